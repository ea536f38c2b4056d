"""Steps of a plan → files that say the same where it is kept: of systemd, of Compose, of Kubernetes."""

from collections.abc import Iterator, Sequence

from reprieve.model.change import Refusal, Step
from reprieve.model.machine import Machine
from reprieve.oom import paths
from reprieve.show import escape
from reprieve.show.changes import SYSCTL_FILE, workload
from reprieve.show.export import BY_COMMAND

_SYSCTLS = ("sysctl", "sysctl.d")


def systemd(steps: Sequence[Step]) -> Iterator[str]:
    """Drop-ins of units and a file for systemd-sysctl, each after a comment that names it, why in it."""
    files: dict[tuple[str, str], dict[str, Step]] = {}
    for step in steps:
        if step.place.kind == "unit":
            path = f"/etc/systemd/system/{step.place.of}.d/90-reprieve.conf"
            section = f"[{step.place.of.rpartition('.')[2].capitalize()}]"
            files.setdefault((path, section), {})[f"{step.place.key}={step.want}"] = step
        elif step.place.kind in _SYSCTLS:
            files.setdefault((SYSCTL_FILE, ""), {})[f"{step.place.key} = {step.want}"] = step
    for number, ((path, section), lines) in enumerate(files.items()):
        if number:
            yield ""
        yield escape.visible(f"# {path}")
        if section:
            yield section
        said = ""
        for line, step in lines.items():
            if step.why and step.why != said:
                said = step.why
                yield f"# {escape.visible(escape.plain(said))}"
            yield line


def compose(steps: Sequence[Step], machine: Machine) -> Iterator[str]:
    """A file that `docker compose` reads beside the one that is there; JSON strings are YAML."""
    import json

    services: dict[str, dict[str, tuple[int, str]]] = {}
    for step in steps:
        service = _service(step, machine)
        for key, value in _of_compose(step):
            said = services.setdefault(service or "", {})
            said[key] = max(said.get(key, (value, step.why)), (value, step.why))  # what is enough for each of it
    yield "# compose.override.yaml"
    yield "services:"
    for name, settings in services.items():
        yield f"  {json.dumps(name)}:"
        told = ""
        for key, (value, why) in settings.items():
            if why and why != told:
                told = why
                yield f"    # {escape.visible(escape.plain(why))}"
            yield f"    {key}: {value}"


def _of_compose(step: Step) -> Iterator[tuple[str, int]]:
    """Attributes of a service, in bytes; none where no file of Compose says it: one that limits nothing has no line."""
    memory, plus, swap = (step.want or "").partition("+")
    if step.place.kind == "process":
        yield "oom_score_adj", int(step.want or 0)
    elif step.place.kind == "container" and memory != "max":
        yield "mem_limit", int(memory)
        if plus:
            yield "memswap_limit", -1 if swap == "max" else int(memory) + int(swap)


def _service(step: Step, machine: Machine) -> str | None:
    """Whose container it is about, or a process in it."""
    if step.place.kind == "container":
        container_id: str | None = step.place.of.rpartition("/")[2]
    elif step.place.kind == "process":
        pid, _, start = step.place.of.partition("@")
        process = next((one for one in machine.processes if (str(one.pid), str(one.start_ticks)) == (pid, start)), None)
        container_id = paths.workload(process.cgroup or "/").container_id if process is not None else None
    else:
        return None
    return next((one.service for one in machine.containers if one.container_id == container_id), None)


_WORKLOADS = {"deploy": "Deployment", "sts": "StatefulSet", "ds": "DaemonSet"}


def kubernetes(steps: Sequence[Step]) -> Iterator[str]:
    """Patches of objects, for kustomize or to be committed where they are kept; JSON strings are YAML."""
    import json

    for number, step in enumerate(one for one in steps if one.place.kind == "k8s"):
        server, namespace, kind, name, container = workload(step.place)
        if number:
            yield "---"
        yield escape.visible(f"# of {server}")
        yield "apiVersion: apps/v1"
        yield f"kind: {_WORKLOADS[kind]}"
        yield "metadata:"
        yield f"  name: {json.dumps(name)}"
        yield f"  namespace: {json.dumps(namespace)}"
        yield "spec:"
        yield "  template:"
        yield "    spec:"
        yield "      containers:"
        yield f"        - name: {json.dumps(container)}"
        yield "          resources:"
        yield "            limits:"
        yield f"              memory: {json.dumps(step.want)}"


_SAYS = {  # what the files of each can say
    "ansible": (*_SYSCTLS, *BY_COMMAND),
    "systemd": ("unit", *_SYSCTLS),
    "compose": ("container", "process"),
    "k8s": ("k8s",),
}
_FILES = {
    "ansible": "play for machines",
    "systemd": "file of systemd",
    "compose": "file of Compose",
    "k8s": "object of Kubernetes",
}


def not_said(steps: Sequence[Step], form: str, machine: Machine) -> Iterator[Refusal]:
    """What files of that form cannot say."""
    for step in steps:
        reason = None
        if form in _SAYS and step.place.kind not in _SAYS[form]:
            reason = f"no {_FILES[form]} says that"
        elif form == "compose" and not any(_of_compose(step)):
            reason = "there no limit is no line: take mem_limit out of the file"
        elif form == "compose" and _service(step, machine) is None:
            reason = "Compose did not make it, as far as it could be seen"
        if reason is not None:
            yield Refusal(
                place=step.place,
                want=step.want,
                reason=reason,
                hint="--as sh does",
                code=step.code,
                called=step.called,
            )

"""Steps of a plan → files that say the same where it is kept: of systemd, of Compose, of Kubernetes."""

from collections.abc import Iterator, Sequence
from math import inf

from reprieve.model.change import Refusal, Step
from reprieve.model.machine import Container, Machine
from reprieve.model.zram import SERVICE, UNIT, unit_text
from reprieve.oom import paths
from reprieve.show import escape
from reprieve.show.changes import SYSCTL_FILE, amounts, workload
from reprieve.show.export import BY_COMMAND

_SYSCTLS = ("sysctl", "sysctl.d")
_ZRAM = ("zram", "zram.service")


def systemd(steps: Sequence[Step]) -> Iterator[str]:
    """Drop-ins of units, a unit, a file for systemd-sysctl: each after a comment that names it, why in it."""
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
    if (made := next((step.want for step in steps if step.place.kind in _ZRAM), None)) is not None:
        if files:
            yield ""
        yield f"# {UNIT}: systemctl enable --now {SERVICE}"
        yield from unit_text(int(made), copied=True).splitlines()


def compose(steps: Sequence[Step], machine: Machine) -> Iterator[str]:
    """A file that `docker compose` reads beside the one that is there, for each project; JSON strings are YAML."""
    import json

    projects: dict[str, dict[str, dict[str, Step]]] = {}
    for step in steps:
        if (made := _made_by_compose(step, machine)) is not None:
            said = projects.setdefault(made.project or "", {}).setdefault(made.service or "", {})
            said[step.place.kind] = max(said.get(step.place.kind, step), step, key=_amount)  # enough for each of it
    for number, (project, services) in enumerate(projects.items()):
        if number:
            yield ""
        yield escape.visible(f"# compose.override.yaml of {project}")
        yield "services:"
        for name, said in services.items():
            yield f"  {json.dumps(name)}:"
            for step in said.values():
                yield from _of_service(step)


def _of_service(step: Step) -> Iterator[str]:
    if step.why:
        yield f"    # {escape.visible(escape.plain(step.why))}"
    if step.place.kind == "container":
        yield "    # of one with deploy.resources.limits Compose takes no mem_limit: then this is its memory there"
    yield from (f"    {key}: {value}" for key, value in _of_compose(step))


def _amount(step: Step) -> tuple[float, ...]:
    """By which of two for one service the larger is known: without a limit is the largest there is."""
    return tuple(inf if value == -1 and key == "memswap_limit" else value for key, value in _of_compose(step))


def _of_compose(step: Step) -> Iterator[tuple[str, int]]:
    """Attributes of a service, in bytes; none where no file of Compose says it: one that limits nothing has no line."""
    memory, plus, swap = (step.want or "").partition("+")
    if step.place.kind == "process":
        yield "oom_score_adj", int(step.want or 0)
    elif step.place.kind == "container" and memory != "max":
        yield "mem_limit", int(memory)
        if plus:
            yield "memswap_limit", -1 if swap == "max" else int(memory) + int(swap)


def _made_by_compose(step: Step, machine: Machine) -> Container | None:
    """Whose container it is about, or a process in it."""
    if step.place.kind == "container":
        container_id: str | None = step.place.of.rpartition("/")[2]
    elif step.place.kind == "process":
        pid, _, start = step.place.of.partition("@")
        process = next((one for one in machine.processes if (str(one.pid), str(one.start_ticks)) == (pid, start)), None)
        container_id = paths.workload(process.cgroup or "/").container_id if process is not None else None
    else:
        return None
    return next((one for one in machine.containers if one.container_id == container_id and one.service), None)


_WORKLOADS = {"deploy": "Deployment", "sts": "StatefulSet", "ds": "DaemonSet"}


def kubernetes(steps: Sequence[Step]) -> Iterator[str]:
    """Patches of objects, for kustomize or to be committed where they are kept; JSON strings are YAML."""
    import json

    for number, step in enumerate(steps):
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
        for field, amount in amounts(step.place, step.want):
            yield f"            {field}:"
            yield f"              memory: {json.dumps(amount)}"


_SAYS = {  # what the files of each can say
    "ansible": (*_SYSCTLS, *BY_COMMAND),
    "systemd": ("unit", *_SYSCTLS, *_ZRAM),
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
        elif form == "compose" and _made_by_compose(step, machine) is None:
            reason = "Compose did not make it, as far as it could be seen"
        if reason is not None:
            yield Refusal(
                place=step.place,
                want=step.want,
                reason=reason,
                hint=_instead(step, form),
                code=step.code,
                called=step.called,
            )


def _instead(step: Step, form: str) -> str:
    """What says it; a word that was taken for a service of systemd may have been meant for one of Compose."""
    name, _, kind = step.place.of.rpartition(".")
    if form == "compose" and step.place.kind == "unit" and kind == "service" and not step.code:
        return f"--as sh does, of this unit of systemd; a container of Compose is docker:{name} or podman:{name}"
    return "--as sh does"

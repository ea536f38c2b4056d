"""What an engine, Kubernetes or systemd tells of one container, pod or unit that was named as a SOURCE; or a pid."""

import os
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from reprieve.machine.host import Identity
from reprieve.machine.source import Block, Source, shown
from reprieve.model.finding import Failure, Gap

if TYPE_CHECKING:
    from reprieve.machine.kubernetes import Pod

_KINDS = ("docker:", "podman:", "pod:", "unit:", "pid:")
KILLED = "137"
_BY_DAEMONS = "earlyoom, nohang: journalctl -u earlyoom -u nohang -u nohang-desktop | reprieve why"
_OTHERS = {
    "139": (
        "SIGSEGV, the program touched memory that it has not; killed for memory by the kernel it ends with 137",
        "coredumpctl tells where it crashed; of kills reprieve why docker:NAME, pod:NS/NAME, unit:NAME or a kernel log",
    ),
    "143": (
        "SIGTERM, it was asked to end; killed for memory by the kernel it ends with 137",
        f"who asked: reprieve why docker:NAME, pod:NS/NAME, unit:NAME; {_BY_DAEMONS}",
    ),
}


def is_asked_for(argument: str) -> bool:
    """Is it `docker:web`, `podman:web`, `pod:shop/web`, `unit:nginx`, `pid:1234` or `137`, and no file of that name?"""
    of_a_kind = argument.startswith(_KINDS) and argument not in _KINDS
    return (of_a_kind or argument == KILLED) and not os.path.exists(argument)


def has_status(word: str) -> bool:
    """Is there somebody to ask how it is?"""
    return word != KILLED and not word.startswith("pid:")


def meaning(word: str) -> Gap | None:
    """What the word itself tells: of an exit status, who may have sent the signal; None: nothing."""
    if word != KILLED:
        return None
    from reprieve.oom.foreign import SIGKILL_TELLS

    hint = f"docker:NAME, pod:NS/NAME, unit:NAME or pid:N asks for the kill of that one; {_BY_DAEMONS}"
    return Gap(place=f"exit status {KILLED}", reason=f"128 + 9: {SIGKILL_TELLS}", hint=hint, hides=False)


def refuse_other_statuses(words: Iterable[str]) -> None:
    """Of an exit status by which the kernel ends nobody for memory: what it is. Raises Failure."""
    for word in words:
        if word in _OTHERS and not os.path.exists(word):
            said, hint = _OTHERS[word]
            raise Failure(f"exit status {word} is 128 + {int(word) - 128}: {said}", hint=hint)


class Status(NamedTuple):
    """What is told of one that was named."""

    source: Source
    away: Gap | None = None  # where the kernel's own words are: it hides if that is surely no log of this machine


def status_of(word: str, identity: Identity) -> Status:
    """What `docker inspect`, `podman inspect`, `kubectl get` or `systemctl show` print of it.

    Raises Failure: it is not there.
    """
    kind, _, name = word.partition(":")
    away = None
    if kind == "pod":
        from reprieve.machine.kubernetes import own_cluster

        told = own_cluster().read_pod(name)
        said, away = _listed(told), _away(told, identity)
    elif kind == "unit":
        from reprieve.machine.systemd import show_unit

        said = show_unit(_whole(name))
    else:
        import json

        from reprieve.machine.engine import local_engine

        said = json.dumps([local_engine(kind).find(name)], indent=1)

    def blocks(_gaps: list[Gap]) -> Iterator[Block]:
        yield said.encode()

    return Status(Source(name=word, kind="file", blocks=blocks, named=True), away)


def _listed(told: "Pod") -> str:
    """A pod and its events, as `kubectl get` lists them. Raises Failure: nothing of it was ever started."""
    import json

    status = told.pod.get("status", {})
    if not any(status.get(key) for key in ("containerStatuses", "initContainerStatuses", "reason")):
        waits = [one.get("message") for one in status.get("conditions", ()) if one.get("status") == "False"]
        why = next(filter(None, waits), "the scheduler has not said why")
        name = f"{told.pod['metadata']['namespace']}/{told.pod['metadata']['name']}"
        raise Failure(f"pod {name} was not started yet: {shown(why)}", hint="kubectl describe pod tells more")
    return json.dumps({"kind": "List", "items": [told.pod, *told.events]}, indent=1)


def _away(told: "Pod", identity: Identity) -> Gap | None:
    """That it ran on another machine, or that nobody says whether; None: on this one.

    A node that is a container, as of kind or minikube, has an id of its own, and the boot of this machine.
    """
    node = told.pod["spec"].get("nodeName")
    if node is None:
        return None
    place, hint = f"kernel log of node {shown(node)}", "ask the same there, or explain its journalctl -k"
    if told.node is None:
        name = (identity.hostname or "").partition(".")[0]
        unknown = Gap(place=place, reason="whether it is this machine's is not told", hint=hint, hides=False)
        return None if node.partition(".")[0] == name else unknown
    info = told.node.get("status", {}).get("nodeInfo", {})
    ids = {str(info.get(key)).replace("-", "") for key in ("machineID", "bootID")}
    return None if ids & {identity.machine_id, identity.boot_id} else Gap(place=place, reason="is elsewhere", hint=hint)


def unit_of(word: str) -> str | None:
    """What the unit of `unit:nginx` is called in paths; None: it names no unit. Raises Failure: there is none."""
    kind, _, name = word.partition(":")
    if kind != "unit":
        return None
    from reprieve.machine.systemd import known_as

    return known_as(_whole(name))


def _whole(name: str) -> str:
    from reprieve.machine.unitfiles import KINDS

    return name if name.rpartition(".")[2] in KINDS else f"{name}.service"


def is_container(word: str) -> bool:
    """Is it `docker:web`, `podman:web`, or a pod, which is several?"""
    return word.startswith(("docker:", "podman:", "pod:"))


def pid_of(word: str) -> int | None:
    """That of `pid:1234`; None: it names none. Raises Failure: it is no number."""
    kind, _, number = word.partition(":")
    if kind != "pid":
        return None
    if re.fullmatch("[1-9][0-9]{0,9}", number) is None:
        raise Failure(f"{number!r} is no pid", hint="pid:1234")
    return int(number)


def living_name(pid: int) -> str | None:
    """Its comm; None: there is no such process now."""
    try:
        with open(f"/proc/{pid}/comm", "rb") as file:
            return file.read(64).decode(errors="backslashreplace").rstrip("\n")
    except (FileNotFoundError, ProcessLookupError):
        return None

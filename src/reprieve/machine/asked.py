"""What a container engine, or systemd, tells of one container or unit that was named as a SOURCE; or a pid."""

import os
import re
from collections.abc import Iterator

from reprieve.machine.source import Block, Source
from reprieve.model.finding import Failure, Gap

_KINDS = ("docker:", "podman:", "unit:", "pid:")
KILLED = "137"


def is_asked_for(argument: str) -> bool:
    """Is it `docker:web`, `podman:web`, `unit:nginx`, `pid:1234` or `137`, and no file of that name?"""
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

    hint = "docker:NAME, unit:NAME or pid:N asks for the kill of that one"
    return Gap(place=f"exit status {KILLED}", reason=f"128 + 9: {SIGKILL_TELLS}", hint=hint, hides=False)


def status_source(word: str) -> Source:
    """What `docker inspect`, `podman inspect` or `systemctl show` print of it. Raises Failure: it is not there."""
    kind, _, name = word.partition(":")
    if kind == "unit":
        from reprieve.machine.systemd import show_unit

        said = show_unit(_whole(name))
    else:
        import json

        from reprieve.machine.engine import local_engine

        said = json.dumps([local_engine(kind).find(name)], indent=1)

    def blocks(_gaps: list[Gap]) -> Iterator[Block]:
        yield said.encode()

    return Source(name=word, kind="file", blocks=blocks, named=True)


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
    """Is it `docker:web` or `podman:web`?"""
    return word.startswith(("docker:", "podman:"))


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

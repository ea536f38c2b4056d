"""One look of `reprieve top`: its moment, the kills of it, and a file of the user's own in which it is kept."""

import os
import time
from collections.abc import Iterable, Iterator, Sequence

from reprieve.machine.events import summarise
from reprieve.machine.source import shown
from reprieve.model.finding import Failure, Gap
from reprieve.model.machine import Machine
from reprieve.model.oom import OomReport
from reprieve.model.snapshot import Snapshot
from reprieve.rules import diagnose
from reprieve.rules.survey import Survey

_HEARD, _ASK = (
    "was heard while top looked: of what was before no log was read",
    "reprieve why, on that machine, reads all",
)


def clock(machine: Machine) -> str:
    """When the machine was looked at, in the time of this one."""
    taken = machine.taken_wall_s
    return "" if taken is None else time.strftime("%H:%M:%S", time.localtime(taken))


def explained(kills: Iterable[OomReport], gaps: Iterable[Gap]) -> Iterator[str]:
    """Kills that came meanwhile, and what was not seen, as JSON lines."""
    from reprieve.show import jsonl

    snapshot = Snapshot(ooms=tuple(kills), gaps=tuple(gaps))
    yield from jsonl.render(snapshot, diagnose(snapshot))


def export(path: str, survey: Survey, kills: Sequence[OomReport], gaps: Sequence[Gap]) -> None:
    """Write what is seen to a new file of the user's own alone: as text, JSON or CSV by the end of its name, else a
    snapshot, which `why`, `next` and `top` take by --from. Raises Failure.
    """
    from reprieve.codec import pack
    from reprieve.show import live, looks

    rows = max(len(survey.processes), len(survey.groups))
    if path.endswith(".txt"):
        data = _text(live.screenful(survey, rows=rows, clock=clock(survey.machine), watched=True))
    elif path.endswith((".json", ".jsonl")):
        data = _text((looks.look(survey, rows), *explained(kills, gaps)))
    elif path.endswith(".csv"):
        killed = looks.csv_kills(survey.machine.taken_wall_s, kills)
        data = _text((looks.csv_head(), *looks.csv_look(survey, rows), *killed))
    else:
        history, heard = tuple(map(summarise, kills)), Gap(place="/dev/kmsg", reason=_HEARD, hint=_ASK)
        told = tuple(gaps) or (heard,)  # else why nothing of it was heard
        seen = Snapshot(machine=survey.machine, ooms=tuple(kills), history=history, gaps=told, logs=())
        data = pack(seen)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(data)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        said = error.strerror if isinstance(error, OSError) else str(error)
        raise Failure(f"{shown(path)}: {said}", hint="name a file that is not there yet") from error


def _text(lines: Iterable[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()

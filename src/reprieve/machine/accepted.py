"""The file of accepted findings, and what the last look found: the two files that `reprieve check` keeps."""

import json
import os
import tomllib
from collections.abc import Sequence
from datetime import MAXYEAR, UTC, date, datetime, time
from typing import NamedTuple

from reprieve.machine.home import state_folder
from reprieve.machine.source import shown
from reprieve.model.accepted import Accepted
from reprieve.model.earlier import Earlier, Exempt, Known
from reprieve.model.finding import Failure

USUAL = "/etc/reprieve/accepted.toml"
_BYTES = 1024 * 1024
_HOW = (
    'an entry is: [[accept]], code = "swap-absent", reason = "…", until = 2027-01-31, and about = "…" if only of that'
)


def read_accepted(path: str, codes: Sequence[str]) -> list[Accepted]:
    """The entries of a file; each holds to the end of its day, in local time. `codes` are those of findings.

    Raises Failure: it cannot be read, an entry lacks its reason or its end, or something in it is misspelt.
    """
    try:
        with open(path, "rb") as file:
            text = file.read(_BYTES).decode()
        told = tomllib.loads(text)
    except OSError as error:
        raise Failure(f"{shown(path)}: {error.strerror}", hint="name a file that can be read") from error
    except (ValueError, RecursionError) as error:  # no UTF-8, no TOML, or a number of more digits than Python takes
        raise Failure(f"{shown(path)}: {error}", hint=_HOW) from error
    entries = told.pop("accept", [])
    if told:
        raise Failure(f"{shown(path)}: there is no `{', '.join(told)}`", hint=_HOW)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise Failure(f"{shown(path)}: `accept` is no list of tables", hint=_HOW)
    accepted = [_entry(path, number, entry) for number, entry in enumerate(entries, 1)]
    for number, entry in enumerate(accepted, 1):
        if entry.code not in codes:
            from difflib import get_close_matches

            near = get_close_matches(entry.code, codes, cutoff=0.5) or codes
            message = f"{shown(path)}, entry {number}: no finding has the code {entry.code!r}"
            raise Failure(message, hint=f"there {'is' if len(near) == 1 else 'are'} {', '.join(near)}")
    return accepted


def _entry(path: str, number: int, entry: dict[str, object]) -> Accepted:
    code, about, reason, until = (entry.get(key) for key in ("code", "about", "reason", "until"))
    unknown = ", ".join(entry.keys() - {"code", "about", "reason", "until"})
    if unknown:
        raise Failure(f"{shown(path)}, entry {number}: there is no {unknown}", hint=_HOW)
    if not isinstance(code, str) or not isinstance(reason, str) or not reason.strip():
        raise Failure(f"{shown(path)}, entry {number}: it needs a code and a reason", hint=_HOW)
    if not isinstance(until, date) or not (about is None or isinstance(about, str)):
        raise Failure(f"{shown(path)}, entry {number}: it needs a date until which it holds", hint=_HOW)
    end = until if isinstance(until, datetime) else datetime.combine(until, time.max)
    try:
        until_s = end.timestamp()
    except (ValueError, OverflowError) as error:  # local time leaves the calendar there
        if end.year != MAXYEAR:
            raise Failure(f"{shown(path)}, entry {number}: it cannot hold until {until}", hint=_HOW) from error
        until_s = end.replace(tzinfo=UTC).timestamp()
    return Accepted(code=code, subject=about, reason=reason, until_s=until_s)


def state_file() -> str:
    """Where the last look is kept: where systemd says (StateDirectory=), of root for the machine, else of the user."""
    if given := os.environ.get("STATE_DIRECTORY", "").partition(":")[0]:
        return os.path.join(given, "check.json")
    if os.geteuid() == 0:
        return "/var/lib/reprieve/check.json"
    return os.path.join(state_folder(), "reprieve/check.json")


class Last(NamedTuple):
    """What is kept of a look: what was found, and what the next one needs of the machine."""

    found: list[Known]
    earlier: Earlier | None = None


def read_last(path: str) -> Last | None:
    """The last look; None: there was none, or it cannot be understood."""
    try:
        with open(path, "rb") as file:
            told = json.loads(file.read(_BYTES))
        return Last([_known(*one) for one in told["found"]], _earlier(told.get("machine")))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Failure(f"{shown(path)}: {error.strerror}", hint="without --since-last it is not needed") from error
    except (ValueError, TypeError, KeyError, RecursionError, AttributeError):
        return None


def _known(code: object, subject: object, *rest: object) -> Known:
    """Raises TypeError or ValueError: it is not as we write it."""
    return Known(_text(code), _text(subject), *(None if one is None else _text(one) for one in rest))


def _text(told: object) -> str:
    """Raises TypeError, or ValueError: half a character, which no output takes."""
    if not isinstance(told, str):
        raise TypeError(told)
    told.encode()
    return told


def _figure(told: object) -> int | float:
    """Raises ValueError: no figure, or none that can be (1e400 is infinite)."""
    if not isinstance(told, int | float) or not 0 <= told < 1 << 63:
        raise ValueError(told)
    return told


def _earlier(told: object) -> Earlier | None:
    """Raises TypeError, ValueError or KeyError: it is not as we write it."""
    if not isinstance(told, dict):  # written before it was kept
        return None
    slab = told["slab_bytes"]
    return Earlier(
        taken_wall_s=float(_figure(told["taken_wall_s"])),
        boot_id=_text(told["boot_id"]),
        slab_bytes=None if slab is None else int(_figure(slab)),
        exempt=tuple(Exempt(*(int(_figure(one)) for one in (pid, start, held))) for pid, start, held in told["exempt"]),
    )


def write_last(path: str, last: Last) -> None:
    """Keep a look, in one step: one that is broken off leaves the last one. Raises Failure."""
    beside = f"{path}.new"
    machine = None if last.earlier is None else last.earlier._asdict()
    try:
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        with open(beside, "w", encoding="ascii") as file:
            found = sorted(last.found, key=lambda one: [part or "" for part in one])
            json.dump({"version": 1, "found": found, "machine": machine}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as error:
        raise Failure(f"{shown(path)}: {error.strerror}", hint="without --since-last it is not needed") from error

"""The file of accepted findings, and what the last look found: the two files that `reprieve check` keeps."""

import json
import os
import tomllib
from datetime import date, datetime, time
from typing import NamedTuple

from reprieve.machine.source import shown
from reprieve.model.accepted import Accepted
from reprieve.model.earlier import Earlier, Exempt
from reprieve.model.finding import Failure

USUAL = "/etc/reprieve/accepted.toml"
_BYTES = 1024 * 1024
_HOW = (
    'an entry is: [[accept]], code = "swap-absent", reason = "…", until = 2027-01-31, and about = "…" if only of that'
)


def read_accepted(path: str) -> list[Accepted]:
    """The entries of a file; each holds to the end of its day, in local time.

    Raises Failure: it cannot be read, or an entry lacks its reason or its end.
    """
    try:
        with open(path, "rb") as file:
            text = file.read(_BYTES).decode()
        entries = tomllib.loads(text).get("accept", [])
    except OSError as error:
        raise Failure(f"{shown(path)}: {error.strerror}", hint="name a file that can be read") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise Failure(f"{shown(path)}: {error}", hint=_HOW) from error
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise Failure(f"{shown(path)}: `accept` is no list of tables", hint=_HOW)
    return [_entry(path, number, entry) for number, entry in enumerate(entries, 1)]


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
    return Accepted(code=code, subject=about, reason=reason, until_s=end.timestamp())


def state_file() -> str:
    """Where the last look is kept: where systemd says (StateDirectory=), of root for the machine, else of the user."""
    if given := os.environ.get("STATE_DIRECTORY", "").partition(":")[0]:
        return os.path.join(given, "check.json")
    if os.geteuid() == 0:
        return "/var/lib/reprieve/check.json"
    home = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local/state")
    return os.path.join(home, "reprieve/check.json")


class Last(NamedTuple):
    """What is kept of a look: code and subject of what was found, and what the next one needs of the machine."""

    found: set[tuple[str, str]]
    earlier: Earlier | None = None


def read_last(path: str) -> Last | None:
    """The last look; None: there was none, or it cannot be understood."""
    try:
        with open(path, "rb") as file:
            told = json.loads(file.read(_BYTES))
        return Last({(str(code), str(subject)) for code, subject in told["found"]}, _earlier(told.get("machine")))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Failure(f"{shown(path)}: {error.strerror}", hint="without --since-last it is not needed") from error
    except (ValueError, TypeError, KeyError, RecursionError, AttributeError):
        return None


def _earlier(told: object) -> Earlier | None:
    """Raises TypeError or KeyError: it is not as we write it."""
    if not isinstance(told, dict):  # written before it was kept
        return None
    slab = told["slab_bytes"]
    return Earlier(
        taken_wall_s=float(told["taken_wall_s"]),
        boot_id=str(told["boot_id"]),
        slab_bytes=None if slab is None else int(slab),
        exempt=tuple(Exempt(int(pid), int(start), int(held)) for pid, start, held in told["exempt"]),
    )


def write_last(path: str, last: Last) -> None:
    """Keep a look, in one step: one that is broken off leaves the last one. Raises Failure."""
    beside = f"{path}.new"
    machine = None if last.earlier is None else last.earlier._asdict()
    try:
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        with open(beside, "w", encoding="ascii") as file:
            json.dump({"version": 1, "found": sorted(last.found), "machine": machine}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as error:
        raise Failure(f"{shown(path)}: {error.strerror}", hint="without --since-last it is not needed") from error

"""What was changed, by whom and why, and what of it is in force: a list of records that only grows.

A record is a line of JSON. What it says is on disk before the machine is touched, so that whatever breaks off in
between can be told, and undone, by who comes next.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol

from reprieve.model.change import Entry, Step, Transaction
from reprieve.model.finding import Failure, Place, parse_place

_VERSION = 1
_RECOVER = "reprieve undo --recover puts back what was not finished"
_DAMAGED = "what it says of changes cannot be trusted: put its line right, or move it away and undo by hand"


def overlaps(one: Place, other: Place) -> bool:
    """Does who changes the one change the other? Fields of `k8s` that change together are one place, of both names.

    A limit of a cgroup is changed after its group was made, never before: so it is asked of the later one first.

    >>> overlaps(Place(kind="k8s", of="web", key="memory+requests"), Place(kind="k8s", of="web", key="requests"))
    True
    """
    if one.kind == other.kind == "k8s" and one.of == other.of:
        return not set(one.key.split("+")).isdisjoint(other.key.split("+"))
    if other.kind == "cgroup.new" and one.kind in ("cgroup", "cgroup.new"):  # what is removed takes its limits along
        return one.of.partition("/")[2] == other.of.partition("/")[2]
    return one == other


class Ledger(Protocol):
    """Lines that outlive this process."""

    def lines(self) -> Sequence[bytes]:
        """All whole lines, the oldest first."""

    def append(self, line: bytes) -> None:
        """Add a line; when this returns the power may go."""


class Past:
    """A ledger that is only read."""

    def __init__(self, lines: Sequence[bytes]) -> None:
        self._lines = lines

    def lines(self) -> Sequence[bytes]:
        """All whole lines, the oldest first."""
        return self._lines

    def append(self, line: bytes) -> None:
        """Raises Failure, always."""
        raise Failure("the journal is only read here")


class Record(NamedTuple):
    """A line of the journal. Fields are added, never used again: an older line is read for ever."""

    change: int
    event: str  # "begun", "changing", "changed", "undone", "reopened", "kept", "ended"
    version: int | None = None  # of "begun"
    wall_s: float | None = None
    boot_id: str | None = None  # of "begun": the present one; of "changing": None for what outlives it
    user: str | None = None
    reason: str | None = None
    kept: bool = True
    entry: int | None = None
    place: str | None = None  # as `Place` is written
    before: str | None = None
    want: str | None = None
    became: str | None = None  # of "undone", as in `Entry`
    unconfirmed: bool = False
    due_boottime_s: float | None = None  # of "ended": when what nobody confirms is undone


def _encode(record: Record) -> bytes:
    """A line without its end: what it says, and nothing it does not."""
    told = {name: value for name, value in record._asdict().items() if value != Record._field_defaults.get(name)}
    return json.dumps(told, separators=(",", ":")).encode()


def _decode(line: bytes) -> Record:
    """Raises ValueError: no record. What a newer version has added is passed over."""
    told = json.loads(line)
    if not isinstance(told, dict):
        raise ValueError("no record")
    known = {name: value for name, value in told.items() if name in Record._fields and value is not None}
    for name, value in known.items():
        kinds = _KINDS.get(name, str)
        if not isinstance(value, kinds) or (isinstance(value, bool) and kinds is not bool):
            raise ValueError(f"{name} is {value!r}")
    try:
        return Record(**known)
    except TypeError:
        raise ValueError("it lacks what each record says") from None


_KINDS: dict[str, type | tuple[type, ...]] = {
    "change": int,
    "version": int,
    "wall_s": (int, float),
    "kept": bool,
    "entry": int,
    "unconfirmed": bool,
    "due_boottime_s": (int, float),
}


class Journal:
    """The transactions of a machine, read from a ledger and added to it. Raises Failure if it is damaged.

    `boot_id` is the present one: values of another boot that do not outlive it are no longer in force. `boottime_s` is
    now, in seconds since it began; None: it is not known, and nothing is overdue.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        boot_id: str | None,
        wall_s: float,
        user: str,
        reason: str | None = None,
        boottime_s: float | None = None,
    ) -> None:
        self._ledger = ledger
        self._boot_id = boot_id
        self._wall_s = wall_s
        self._boottime_s = boottime_s
        self._user = user
        self._reason = reason
        self._transactions: dict[int, Transaction] = {}
        for number, line in enumerate(ledger.lines(), 1):
            try:
                self._take(_decode(line))
            except (ValueError, LookupError) as error:
                raise Failure(f"line {number} of the journal of changes: {error}", hint=_DAMAGED) from error

    def transactions(self) -> tuple[Transaction, ...]:
        """All there ever were, the oldest first."""
        return tuple(self._transactions.values())

    def find(self, number: int) -> Transaction:
        """One of them. Raises Failure: there is none of that number."""
        found = self._transactions.get(number)
        if found is None:
            raise Failure(f"there is no change {number}", hint="reprieve changes lists them")
        return found

    def begin(self, *, kept: bool = True) -> int:
        """Begin a transaction; its number. Raises Failure: an earlier one was not finished, or waits."""
        if unfinished := self.unfinished():
            hint = f"{_RECOVER}, reprieve undo {unfinished[0]} --leave leaves it as it is"
            raise Failure(f"change {unfinished[0]} was begun and not finished", hint=hint)
        if late := self.unconfirmed():
            hint = f"reprieve undo --recover undoes it, reprieve changes --keep {late[0]} keeps it"
            raise Failure(f"change {late[0]} was not confirmed in time, and is in force", hint=hint)
        if waiting := self.waiting():  # who undoes it would find the newer one above it
            hint = f"reprieve changes --keep {waiting[0]} keeps it, reprieve undo {waiting[0]} undoes it now"
            raise Failure(f"change {waiting[0]} waits to be confirmed", hint=hint)
        number = max(self._transactions, default=0) + 1
        self._write(
            Record(
                version=_VERSION,
                change=number,
                event="begun",
                wall_s=self._wall_s,
                boot_id=self._boot_id,
                user=self._user,
                reason=self._reason,
                kept=kept,
            )
        )
        return number

    def record(self, number: int, step: Step, *, lasts: bool) -> Entry:
        """Write down what is about to be changed."""
        self._write(
            Record(
                change=number,
                event="changing",
                entry=len(self.find(number).entries),
                place=str(step.place),
                before=step.before,
                want=step.want,
                boot_id=None if lasts else self._boot_id,
            )
        )
        return self.find(number).entries[-1]

    def changed(self, number: int, entry: Entry) -> None:
        """The value was put, and reads as wanted."""
        self._write(Record(change=number, event="changed", entry=entry.number))

    def undone(self, number: int, entry: Entry, *, became: str | None = None, unconfirmed: bool = False) -> None:
        """The value is as it was before; or has `became` what `Entry` tells, and is no longer ours."""
        self._write(
            Record(
                change=number,
                event="undone",
                entry=entry.number,
                wall_s=self._wall_s,
                became=became,
                unconfirmed=unconfirmed,
            )
        )

    def keep(self, number: int) -> None:
        """Somebody has confirmed it: it is not undone by itself."""
        self.find(number)
        self._write(Record(change=number, event="kept", wall_s=self._wall_s, user=self._user))

    def reopen(self, number: int) -> None:
        """What follows is not finished until `end`."""
        if self.find(number).ended:
            self._write(Record(change=number, event="reopened", wall_s=self._wall_s, user=self._user))

    def end(self, number: int, *, due_boottime_s: float | None = None) -> None:
        """All of it is done; what nobody confirms is undone when that is due."""
        self._write(Record(change=number, event="ended", due_boottime_s=due_boottime_s))

    def in_force(self, number: int) -> list[Entry]:
        """What is, or may be, changed still: not undone, nor gone with an earlier boot."""
        return [entry for entry in self.find(number).entries if self.holds(entry)]

    def holds(self, entry: Entry) -> bool:
        """Is it in force, or may it be?"""
        return entry.state != "undone" and entry.boot_id in (None, self._boot_id)

    def holder(self, place: Place) -> int | None:
        """Which transaction changed a place last, or one that overlaps it, of those in force."""
        for number, transaction in reversed(self._transactions.items()):
            if any(overlaps(entry.place, place) and self.holds(entry) for entry in transaction.entries):
                return number
        return None

    def unfinished(self) -> list[int]:
        """Those that were begun and not ended, the newest first."""
        return [number for number, found in reversed(self._transactions.items()) if not found.ended]

    def waiting(self) -> list[int]:
        """Those in force that nobody has confirmed."""
        return [number for number, found in self._transactions.items() if not found.kept and self.in_force(number)]

    def unconfirmed(self) -> list[int]:
        """Those in force that nobody has confirmed in time: who would have undone them has ended, or was refused."""
        return [number for number in self.waiting() if self._is_late(self.find(number))]

    def _is_late(self, change: Transaction) -> bool:
        if change.boot_id != self._boot_id:
            return True
        due, now = change.due_boottime_s, self._boottime_s
        return due is not None and now is not None and due <= now

    def newest(self) -> int | None:
        """The newest of which something is in force."""
        return next((number for number in reversed(self._transactions) if self.in_force(number)), None)

    def _write(self, record: Record) -> None:
        self._ledger.append(_encode(record))
        self._take(record)

    def _take(self, record: Record) -> None:
        """What one record says. Raises LookupError: it speaks of what is not there."""
        number = record.change
        if record.event == "begun":
            self._transactions[number] = Transaction(
                number=number,
                begun_wall_s=record.wall_s or 0.0,
                boot_id=record.boot_id,
                user=record.user or "",
                reason=record.reason,
                kept=record.kept,
            )
            return
        was = self._transactions[number]
        if record.event == "changing" and record.place is not None:
            entry = Entry(
                number=len(was.entries),
                place=parse_place(record.place),
                before=record.before,
                want=record.want,
                boot_id=record.boot_id,
            )
            self._transactions[number] = replace(was, entries=(*was.entries, entry))
        elif record.event in ("changed", "undone") and record.entry is not None and record.entry >= 0:
            entries = list(was.entries)
            entries[record.entry] = replace(
                entries[record.entry],
                state=record.event,
                undone_wall_s=record.wall_s,
                became=record.became,
                unconfirmed=record.unconfirmed,
            )
            self._transactions[number] = replace(was, entries=tuple(entries))
        elif record.event in ("ended", "reopened"):
            due = was.due_boottime_s if record.due_boottime_s is None else record.due_boottime_s
            self._transactions[number] = replace(was, ended=record.event == "ended", due_boottime_s=due)
        elif record.event == "kept":
            self._transactions[number] = replace(was, kept=True)
        else:
            raise LookupError(f"it says {record.event!r}, which this version does not know")

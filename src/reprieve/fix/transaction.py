"""Change a machine in steps of which all hold or none, and change it back.

Nobody writes an undo: what can be read and written can be put back.
"""

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple, Protocol

from reprieve.fix.journal import Journal
from reprieve.model.change import Blocked, Entry, Stay, Step
from reprieve.model.finding import Failure, Place

_OWNED = "somebody else sets it as well: change it there"
# Kinds of which half may be back: a unit's file, while systemd holds the other value; zram is swapped off, and there;
# the unit that makes it is without its link, and there.
_TWO_HALVES = ("unit", "zram", "zram.service")
# Kinds that one call makes, or finds made by others: where theirs is, nothing of ours was put, or it is no more.
_MADE, _THEIRS = ("cgroup.new",), "other"


class Places(Protocol):
    """The one way to change a machine: a function without it cannot."""

    def identify(self, place: Place) -> Place:
        """The same place, told by what no later process or cgroup can have. Raises Failure: it is no more."""

    def get(self, place: Place) -> str | None:
        """The present value in canonical form; None: absent. Raises Failure: it cannot be read."""

    def put(self, place: Place, want: str | None) -> None:
        """Switch a value in by one call; None: take it away. Raises Failure."""

    def canonical(self, place: Place, want: str | None) -> str | None:
        """How `get` will tell the value once it is there. Raises Failure: no such value can be there."""

    def obstacle(self, place: Place, want: str | None) -> Failure | None:
        """Who would overwrite the value, or which right is missing, found out without changing anything."""

    def lasts(self, place: Place) -> bool:
        """Does a value there outlive the boot?"""

    def gone(self, place: Place) -> bool:
        """Has what it belonged to ended, a process or a cgroup, and the value with it?"""


def apply(
    steps: Iterable[Step],
    places: Places,
    journal: Journal,
    *,
    kept: bool = True,
    begun: Callable[[int], None] = lambda number: None,
) -> int:
    """Put all wanted values in place, in order, or none; the number of the transaction, for `undo`.

    `begun` is told the number before anything is changed; not `kept`, it waits to be confirmed. Raises Failure if a
    value was refused, Blocked if it is no longer as planned or was not kept; if something then would not go back, what
    `undo` raises.
    """
    number = journal.begin(kept=kept)
    try:
        begun(number)
        for step in steps:
            found = places.get(step.place)
            if found == step.want:
                continue
            if found != step.before:
                raise Blocked([_stay(number, step, "unplanned", found)], hint="plan again")
            entry = journal.record(number, step, lasts=places.lasts(step.place))  # on disk: now the power may go
            places.put(step.place, step.want)
            if (found := places.get(step.place)) != step.want:
                places.put(step.place, step.before)
                raise Blocked([_stay(number, step, "unkept", found)], hint=_OWNED)
            journal.changed(number, entry)
    except BaseException:  # Ctrl-C and our own bugs too: half a transaction is the worst end
        undo(number, places, journal)
        raise
    journal.end(number)
    return number


def _stay(number: int, of: Step | Entry, why: str, found: str | None = None, reason: str = "") -> Stay:
    return Stay(place=of.place, why=why, number=number, before=of.before, want=of.want, found=found, reason=reason)


def undo(
    number: int, places: Places, journal: Journal, *, leave: bool = False, unconfirmed: bool = False
) -> list[Stay]:
    """Put back what a transaction changed; what is not as it left it any more, or never was.

    With `leave`, what others have changed since stays theirs; `unconfirmed`, nobody asked for it. Raises Blocked,
    before anything is put back, if a later transaction holds a place of it; at the end, with what stayed, if something
    would not go back.
    """
    entries = journal.in_force(number)
    for entry in entries:
        holder = journal.holder(entry.place)
        if holder is not None and holder != number:
            raise Blocked([_stay(holder, entry, "newer")], hint=f"reprieve undo {holder} first")
    touched = not journal.find(number).ended
    journal.reopen(number)
    stuck, left, waits = list[Stay](), list[Stay](), set[str]()
    for entry in reversed(entries):
        became = None
        try:
            if places.gone(entry.place):
                became = "gone"
                left.append(_stay(number, entry, "gone"))
            else:
                if entry.place.of and entry.place.of in waits:
                    raise Blocked([_stay(number, entry, "waits")])
                found = places.get(entry.place)
                ours = found == entry.want or (found == entry.before and entry.place.kind in _TWO_HALVES)
                if ours:  # else it is back, or somebody's: theirs is newer, and stays
                    try:
                        places.put(entry.place, entry.before)
                    except Failure:
                        touched = touched or _is_in_between(entry, places)
                        raise
                    touched = True
                elif found == entry.before and entry.state == "begun":
                    with suppress(Failure):  # nothing was switched in; what was half made beside it goes, if it can
                        places.put(entry.place, entry.before)
                if (found := places.get(entry.place)) != entry.before:
                    stay = _stay(number, entry, "changed", found)
                    if ours:
                        stay = replace(stay, why="unkept", before=entry.want, want=entry.before)
                    if not leave and not _never_ours(entry, found):
                        raise Blocked([stay])
                    became = "left"
                    left.append(stay)
            touched = True
            journal.undone(number, entry, became=became, unconfirmed=unconfirmed)
        except Failure as failure:
            stays = failure.stays if isinstance(failure, Blocked) else ()
            stays = stays or (_stay(number, entry, "refused", reason=failure.message),)
            if leave:
                left += stays
                journal.undone(number, entry, became="refused", unconfirmed=unconfirmed)
                continue
            waits.add(entry.place.of)
            stuck += stays
    if stuck:
        if not touched and not unconfirmed:  # all is as it was: in force, or others'; who would try again has gone
            journal.end(number)
        hint = f"see to it, then again; or `reprieve undo {number} --leave` ends the change and leaves it so"
        raise Blocked(stuck, hint=hint, status=4)
    journal.end(number)
    return left


def _is_in_between(entry: Entry, places: Places) -> bool:
    """Has an undo that was refused changed something all the same, or may it have?"""
    try:
        return entry.place.kind in _TWO_HALVES or places.get(entry.place) != entry.want
    except Failure:
        return True


def _never_ours(entry: Entry, found: str | None) -> bool:
    """Was it begun, and somebody else was first? Then there is nothing to put back, nor to ask about."""
    return entry.state == "begun" and entry.place.kind in _MADE and found == _THEIRS


class Recovered(NamedTuple):
    """A change that was left by a crash, and is ended."""

    number: int
    entries: list[Entry]  # what was in force of it, or may have been; none: it went with the boot
    left: list[Stay]  # as of `undo`


def recover(places: Places, journal: Journal) -> list[Recovered]:
    """After a crash, undo what was begun and not ended, or waits since another boot to be confirmed; which were.

    The newest first. Raises as `undo` does.
    """
    unconfirmed = set(journal.unconfirmed())
    return [
        Recovered(
            number,
            journal.in_force(number),
            undo(number, places, journal, unconfirmed=number in unconfirmed),
        )
        for number in sorted({*journal.unfinished(), *unconfirmed}, reverse=True)
    ]

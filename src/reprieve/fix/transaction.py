"""Change a machine in steps of which those that belong together all hold or none, and change it back.

Nobody writes an undo: what can be read and written can be put back.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
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


# Within such a block an interruption may end us by an exception: outside it waits, as records and values must agree.
Interruptible = Callable[[], AbstractContextManager[None]]

# Kinds whose values a process or a user holds who may be anybody: who does not let go of theirs stops nobody else's.
_HELD = ("redis", "redis.conf", "process")


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
    due: Callable[[], float | None] = lambda: None,
    interruptible: Interruptible = nullcontext,
    apart: Callable[[Failure, list[Stay]], None] | None = None,
) -> int:
    """Put all wanted values in place, in order, or none; the number of the transaction, for `undo`.

    With `apart` each group of steps all or none: one that fails is put back, and `apart` is told why and what of it is
    left, as others have set it or it has ended. If none is there in the end, or one would not go back, it fails.

    `begun` is told the number before anything is changed; not `kept`, it waits to be confirmed until it is `due`, in
    seconds since the boot, which is asked when all is done. Raises Failure if a value was refused, Blocked if it is no
    longer as planned, was not kept or has ended with its owner; if something then would not go back, what `undo`
    raises. What is put back is not interruptible.
    """
    number = journal.begin(kept=kept)
    try:
        with interruptible():
            begun(number)
        groups = _groups(steps)
        failed = 0
        for group in groups:
            first = len(journal.find(number).entries)
            try:
                for step in group:
                    _put(number, step, places, journal, interruptible)
            except Failure as failure:
                if apart is None or len(groups) == 1:
                    raise
                back = _put_back(number, journal.find(number).entries[first:], places, journal, apart=True)
                if back.stuck:
                    raise
                apart(failure, back.left)
                failed += 1
                if failed == len(groups):
                    raise
        with interruptible():
            pass  # who has interrupted by now has none of it; from here all of it
    except BaseException:  # Ctrl-C and our own bugs too: half a transaction is the worst end
        undo(number, places, journal)
        raise
    journal.end(number, due_boottime_s=due())
    return number


def _groups(steps: Iterable[Step]) -> list[list[Step]]:
    """Which hold together, the group of the first first."""
    groups: dict[int, list[Step]] = {}
    for step in steps:
        groups.setdefault(step.group, []).append(step)
    return list(groups.values())


def _put(number: int, step: Step, places: Places, journal: Journal, interruptible: Interruptible) -> None:
    """One value, unless it is so. Raises Failure; it may be there, and is recorded then."""
    try:
        with interruptible():
            found = places.get(step.place)
        if found == step.want:
            return
        if found != step.before:
            raise Blocked([_stay(number, step, "unplanned", found)], hint="plan again")
        entry = journal.record(number, step, lasts=places.lasts(step.place))  # on disk: now the power may go
        with interruptible():
            places.put(step.place, step.want)
            found = places.get(step.place)
        if found != step.want:
            places.put(step.place, step.before)
            raise Blocked([_stay(number, step, "unkept", found)], hint=_OWNED)
    except Blocked:
        raise
    except Failure as failure:
        if places.gone(step.place):
            raise Blocked([_stay(number, step, "gone")]) from failure
        raise
    journal.changed(number, entry)


def _stay(number: int, of: Step | Entry, why: str, found: str | None = None, reason: str = "") -> Stay:
    return Stay(place=of.place, why=why, number=number, before=of.before, want=of.want, found=found, reason=reason)


def undo(
    number: int,
    places: Places,
    journal: Journal,
    *,
    leave: bool = False,
    unconfirmed: bool = False,
    interruptible: Interruptible = nullcontext,
) -> list[Stay]:
    """Put back what a transaction changed; what is not as it left it any more, or never was.

    With `leave`, what others have changed since stays theirs; `unconfirmed`, nobody asked for it. Raises Blocked,
    before anything is put back, if a later transaction holds a place of it; at the end, with what stayed, if something
    would not go back. Interrupted, it is not finished.
    """
    entries = journal.in_force(number)
    for entry in entries:
        holder = journal.holder(entry.place)
        if holder is not None and holder != number:
            raise Blocked([_stay(holder, entry, "newer")], hint=f"reprieve undo {holder} first")
    touched = not journal.find(number).ended
    journal.reopen(number)
    back = _put_back(
        number, entries, places, journal, leave=leave, unconfirmed=unconfirmed, interruptible=interruptible
    )
    if back.stuck:
        if not (touched or back.touched) and not unconfirmed:
            journal.end(number)  # all is as it was: in force, or others'; who would try again has gone
        hint = f"see to it, then again; or `reprieve undo {number} --leave` ends the change and leaves it so"
        raise Blocked(back.stuck, hint=hint, status=4)
    journal.end(number)
    return back.left


class _Back(NamedTuple):
    """What became of values that were to be put back."""

    stuck: list[Stay]  # would not go
    left: list[Stay]  # are not ours any more
    touched: bool  # something was put back, or is no longer ours


def _put_back(
    number: int,
    entries: Sequence[Entry],
    places: Places,
    journal: Journal,
    *,
    leave: bool = False,
    apart: bool = False,
    unconfirmed: bool = False,
    interruptible: Interruptible = nullcontext,
) -> _Back:
    """The newest first. `leave` as of `undo`; `apart`, what others set stays theirs, and who holds a value keeps it.

    A third value may be our own as long as the place has not told ours: that is left to nobody but who holds it.
    """
    touched = False
    stuck, left, waits = list[Stay](), list[Stay](), set[str]()
    for entry in reversed(entries):
        became = None
        try:
            with interruptible():
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
                        theirs = apart and (entry.state == "changed" or entry.place.kind in _HELD)
                        if not (leave or theirs or _never_ours(entry, found)):
                            raise Blocked([stay])
                        became = "left"
                        left.append(stay)
            touched = True
            journal.undone(number, entry, became=became, unconfirmed=unconfirmed)
        except Failure as failure:
            stays = failure.stays if isinstance(failure, Blocked) else ()
            stays = stays or (_stay(number, entry, "refused", reason=failure.message),)
            if leave or (apart and entry.place.kind in _HELD):
                left += stays
                journal.undone(number, entry, became="refused", unconfirmed=unconfirmed)
                continue
            waits.add(entry.place.of)
            stuck += stays
    return _Back(stuck, left, touched)


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
    """A change that was left by a crash, or by who would have undone it, and is ended."""

    number: int
    entries: list[Entry]  # what was in force of it, or may have been; none: it went with the boot
    left: list[Stay]  # as of `undo`
    unconfirmed: bool  # it was whole, and nobody had confirmed it


def recover(places: Places, journal: Journal, *, interruptible: Interruptible = nullcontext) -> list[Recovered]:
    """After a crash, undo what was begun and not ended, or was not confirmed in time; which were.

    The newest first. Raises as `undo` does.
    """
    unfinished, late = set(journal.unfinished()), set(journal.unconfirmed())
    return [
        Recovered(
            number,
            journal.in_force(number),
            undo(number, places, journal, unconfirmed=number in late, interruptible=interruptible),
            unconfirmed=number not in unfinished,
        )
        for number in sorted(unfinished | late, reverse=True)
    ]

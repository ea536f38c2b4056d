"""`reprieve undo` and `reprieve changes`: what was changed here, and how to have it back."""

import os
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from math import inf
from typing import NamedTuple

from reprieve.apply import ended_by, open_journal
from reprieve.fix.journal import Journal, Past
from reprieve.fix.transaction import Recovered, recover, undo
from reprieve.machine.ledger import MACHINE, LedgerFile, is_there, ledger_path, read_lines
from reprieve.machine.places import MachinePlaces
from reprieve.machine.program import as_root
from reprieve.machine.signals import Interrupted, Signals
from reprieve.machine.watcher import say_ready, since_boot_s, stand_apart, tell_kernel_log
from reprieve.model.change import Blocked, Entry, Stay, Transaction
from reprieve.model.finding import Failure, Place
from reprieve.output import colour, print_lines, width
from reprieve.show import changes, export
from reprieve.show.changes import Present
from reprieve.show.escape import shell, visible
from reprieve.show.text import Page, colours, plain_paint

_AT_A_LOOK = ("sysctl", "sysctl.d", "fstab", "process", "cgroup")  # others ask a manager, who may not answer


class Request(NamedTuple):
    """What was asked for, as on the command line."""

    number: int | None = None
    recover: bool = False
    leave: bool = False


def perform(request: Request) -> int:
    """Undo one change, the newest unless told, or finish what a crash left; the exit status. Raises Failure."""
    try:
        return _perform(request)
    except Blocked as failure:
        raise Failure(changes.blocked(failure), hint=_what_then(failure), status=failure.status) from failure
    except Interrupted as interrupted:
        raise Failure(
            f"{ended_by(interrupted)}: it is put back in part, if at all",
            hint="reprieve undo --recover finishes it",
            status=128 + interrupted.signal,
        ) from interrupted


def _what_then(failure: Blocked) -> str | None:
    """Of one value that somebody else has set, both ways out; nobody is told to remove what others have made."""
    one, *more = (stay for stay in failure.stays if stay.why != "waits")
    if more or one.why != "changed" or changes.is_theirs(one):
        return failure.hint
    if (command := export.by_hand(one.place, one.before)) is None:
        return failure.hint
    again = f"reprieve undo {one.number}"
    return f"to leave it so: {again} --leave; to have it as before: {command}, then {again}"


def _perform(request: Request) -> int:
    path = ledger_path()
    if not is_there(path):  # to look leaves none
        if request.recover:
            print_lines(("Nothing was left unfinished.",))
            return 0
        others = path != MACHINE and is_there(MACHINE)
        mine = " by you" if others else ""
        hint = "what root has changed root undoes: run it as root" if others else "reprieve fix changes something"
        raise Failure(f"nothing was changed here{mine}", hint=hint)
    with Signals() as signals, LedgerFile(path) as ledger:
        journal = open_journal(ledger)
        places = MachinePlaces()
        if request.recover:
            done = recover(places, journal, interruptible=signals.interruptible)
            lines = [line for one in done for line in _recovered(one, journal, places)]
            print_lines(lines or ["Nothing was left unfinished."])
            return 0
        number = request.number
        if number is None:
            number = next(iter(journal.unfinished()), journal.newest())
        if number is None:
            raise Failure("nothing is in force that could be undone", hint="reprieve changes lists what was")
        entries = journal.in_force(number)
        if not entries:
            if not journal.find(number).ended:  # what a crash left of it went with the boot
                journal.end(number)
            print_lines((_nothing(number, journal),))
            return 0
        left = list(map(_left, undo(number, places, journal, leave=request.leave, interruptible=signals.interruptible)))
        back = [entry for entry in entries if _is_back(entry, places)]
        left += _still(back, places)
    by_hand = [f"  {line}" for line in export.undoing(back)]
    said = f"Undone: change {number}. In a shell it is:" if back else f"Change {number} is over; nothing was put back:"
    print_lines((said, *by_hand, *map(visible, left)))
    return 0


def _left(one: Stay) -> str:
    """What stays, and of what would not go the command for later: no undo is left that would."""
    said = changes.left_so(one)
    if one.why != "refused" or (command := export.by_hand(one.place, one.before)) is None:
        return said
    return f"{said}; later, by hand: {command}"


def _recovered(one: Recovered, journal: Journal, places: MachinePlaces) -> list[str]:
    """What became of it."""
    if not one.entries:
        return [_nothing(one.number, journal)]
    back = [entry for entry in one.entries if _is_back(entry, places)]
    what = f"which {'nobody confirmed in time' if one.unconfirmed else 'was not finished'}"
    said = f"Undone: change {one.number}, {what}."
    if not back:
        said = f"Change {one.number}, {what}, is over; nothing was put back:"
    return [said, *(visible(changes.left_so(stay)) for stay in one.left), *_still(back, places)]


def _nothing(number: int, journal: Journal) -> str:
    return f"Change {number}: {state(journal, journal.find(number), {})}, nothing to undo."


def _is_back(entry: Entry, places: MachinePlaces) -> bool:
    """Does its place read as it did before the change?"""
    try:
        return not places.gone(entry.place) and places.get(entry.place) == entry.before
    except Failure:  # told already
        return False


def _still(entries: list[Entry], places: MachinePlaces) -> list[str]:
    """Values that a boot has set from a line that is gone now: they hold until the next one."""
    now = {entry.place.key for entry in entries if entry.place.kind == "sysctl"}
    lines = [entry for entry in entries if entry.place.kind == "sysctl.d" and entry.place.key not in now]
    return [
        f"{entry.place.key} is {entry.want} still, as the last boot set it: sysctl -w {entry.place.key}=… changes it"
        for entry in lines
        if places.get(Place(kind="sysctl", key=entry.place.key)) == entry.want
    ]


def undo_later(number: int, after_s: float) -> int:
    """Wait, then undo a change unless somebody has kept it; what `fix --confirm-within` arms. Raises Failure."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stand_apart()
    say_ready()
    with LedgerFile(ledger_path(), patience_s=inf) as ledger:  # until all is changed, or who changed it has ended
        due = open_journal(ledger).find(number).due_boottime_s
    end = since_boot_s() + after_s if due is None else due
    while (left := end - since_boot_s()) > 0:
        time.sleep(min(left, 60.0))
    with LedgerFile(ledger_path(), patience_s=inf) as ledger, Signals():
        journal = open_journal(ledger, reason="not confirmed")
        if not journal.find(number).kept and journal.in_force(number):
            try:
                undo(number, MachinePlaces(), journal, unconfirmed=True)
            except Failure as failure:  # nobody reads what this process says
                tell_kernel_log(visible(f"change {number} was not confirmed, and {changes.blocked(failure)}"))
                raise
    return 0


def history(*, as_json: bool) -> int:
    """All changes of this machine, the oldest first; the exit status. Raises Failure."""
    path = ledger_path()
    others = path != MACHINE and is_there(MACHINE)
    if others and not is_there(path):
        path, others = MACHINE, False
    journal = open_journal(Past(read_lines(path)), path=path)
    hidden = path == MACHINE and os.geteuid() != 0  # from others /proc may hide root's processes (hidepid)
    found = [(one, _since(journal, one, hidden=hidden)) for one in journal.transactions()]
    if as_json:
        import json

        told_of = [
            {
                "kind": "change",
                "version": 1,
                "state": state(journal, one, since),
                "change": asdict(one),
                "since": [{"entry": at, **now._asdict()} for at, now in since.items()],
            }
            for one, since in found
        ]
        print_lines(map(json.dumps, (*told_of, {"kind": "end", "version": 1, "events": len(found), "exit_status": 0})))
        return 0
    page = Page(width=width(), paint=colours() if colour() else plain_paint)
    told = [(one, _ended(journal, one, since), since) for one, since in found]
    print_lines(changes.history(page, told, _moment) if told else ("Nothing was changed here by reprieve.",))
    if others:
        print_lines(("", f"Of root's changes tells {MACHINE}: {shell(as_root('changes') or ())}"))
    return 0


def _moment(wall_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(wall_s))


def _since(journal: Journal, change: Transaction, *, hidden: bool) -> dict[int, Present]:
    """The values of a change that are no longer as it set them, by their numbers, of kinds that are read at a look.

    What a later change of ours has set is not. `hidden`: processes may be.
    """
    places = MachinePlaces()
    found: dict[int, Present] = {}
    for entry in change.entries:
        if not change.ended or not journal.holds(entry) or journal.holder(entry.place) != change.number:
            continue
        if entry.place.kind not in _AT_A_LOOK or (hidden and entry.place.kind == "process"):
            continue
        with suppress(Failure):  # it may not be read
            gone = places.gone(entry.place)
            now = None if gone else places.get(entry.place)
            if gone or now != entry.want:
                found[entry.number] = Present(now, gone)
    return found


def _ended(journal: Journal, change: Transaction, since: dict[int, Present]) -> str:
    """What is left of a change, and since when nothing is."""
    said = state(journal, change, since)
    undone = [entry.undone_wall_s for entry in change.entries if entry.undone_wall_s is not None]
    return f"{said}, {_moment(max(undone))}" if undone and not any(map(journal.holds, change.entries)) else said


def state(journal: Journal, change: Transaction, since: Mapping[int, Present]) -> str:
    """What is left of a change, in words; `since`: what others have made of its values."""
    holds = [journal.holds(entry) for entry in change.entries]
    if not change.ended:
        return "not finished: reprieve undo --recover"
    if any(holds):
        stands = [held and entry.number not in since for held, entry in zip(holds, change.entries, strict=True)]
        whole = "in force" if all(stands) else "in force in part" if any(stands) else "not undone, and not in force"
        if change.number in journal.unconfirmed():
            return f"{whole}, not confirmed in time: reprieve undo --recover"
        return whole if change.kept else f"{whole}, not confirmed"
    if not change.entries:
        return "nothing was changed"
    ends = {changes.end_of(entry) for entry in change.entries}
    return ends.pop() if len(ends) == 1 else "undone in part"

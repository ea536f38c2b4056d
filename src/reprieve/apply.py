"""`reprieve fix`: what findings ask for, as a plan; shown, agreed to, applied, read back, and undone if it fails."""

import getpass
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType
from typing import NamedTuple

from reprieve.fix.journal import Journal, Ledger
from reprieve.fix.plan import Span, Wanted, plan, wanted_by
from reprieve.fix.transaction import apply
from reprieve.machine.host import Host, identify
from reprieve.machine.ledger import LedgerFile, ledger_path
from reprieve.machine.newgroup import to_start_in
from reprieve.machine.places import MachinePlaces
from reprieve.machine.watcher import undo_unless_kept
from reprieve.model.change import Plan
from reprieve.model.finding import Failure, Gap
from reprieve.model.machine import Machine
from reprieve.model.snapshot import Snapshot
from reprieve.next import look
from reprieve.output import FOUND, INCOMPLETE, REFUSED, colour, print_lines, width
from reprieve.rules.living import check
from reprieve.show import changes, escape, export, files
from reprieve.show.text import Page, colours, plain_paint


class Request(NamedTuple):
    """What was asked for, as on the command line."""

    settings: tuple[Wanted, ...] | None = None  # None: what the findings ask for
    only: tuple[str, ...] = ()
    app: str | None = None  # what is to be changed is such an application, and not the limit that it lives under
    span: Span = Span()
    force: tuple[str, ...] = ()
    yes: bool = False
    dry_run: bool = False
    export: str | None = None  # "sh", "ansible", "systemd", "compose", "k8s"
    confirm_within: int | None = None  # seconds
    reason: str | None = None
    origin: str | None = None


def perform(request: Request) -> int:
    """Look, plan, show, ask, apply, verify; the exit status. Raises Failure."""
    gaps: list[Gap] = []
    machine = look(request.origin, gaps)
    places = MachinePlaces()
    if request.app is not None and not _running(machine, request.app):
        hint = "processes of others are seen as root, those of a container on the host"
        raise Failure(f"no {_APPS[request.app]} is seen here", hint=hint)
    told = _plan(request, machine, places)
    if request.export is not None:
        return _export(request, told, machine)
    unseen = gaps if request.settings is None else []  # what is named is changed whatever else is not seen
    print_lines(_shown(told, machine, unseen))
    if not told.steps:
        return REFUSED if told.refused else INCOMPLETE if any(gap.hides for gap in unseen) else 0
    if request.dry_run or request.origin is not None:
        return FOUND
    if not request.yes and not _agreed():
        print_lines(("Nothing was changed.",))
        return 0
    return _apply(request, told, places)


_APPS = {"redis": "Redis server", "postgresql": "PostgreSQL", "jvm": "JVM", "node": "Node.js"}


def _running(machine: Machine, app: str) -> bool:
    found = {"redis": machine.redis, "postgresql": machine.postgres, "jvm": machine.jvms, "node": machine.nodes_js}
    return bool(found[app])


def _plan(request: Request, machine: Machine, places: MachinePlaces) -> Plan:
    elsewhere = request.export is not None
    if request.settings is not None:
        return plan(request.settings, places, machine, span=request.span, forced=request.force, elsewhere=elsewhere)
    found = [one for one in check(Snapshot(machine=machine)) if not request.only or one.code in request.only]
    wanted, by_hand = wanted_by(found, places.kinds, first=request.app is not None)
    made = plan(wanted, places, machine, span=request.span, forced=request.force, elsewhere=elsewhere)
    return Plan(steps=made.steps, refused=made.refused, by_hand=tuple(one for one in by_hand if one.remedies))


_EXPORTS: dict[str, Callable[[Plan, Machine], Iterator[str]]] = {
    "sh": lambda told, _: export.shell(told.steps, told.by_hand),
    "ansible": lambda told, _: export.ansible(told.steps),
    "systemd": lambda told, _: files.systemd(told.steps),
    "compose": lambda told, machine: files.compose(told.steps, machine),
    "k8s": lambda told, _: files.kubernetes(told.steps),
}


def _export(request: Request, told: Plan, machine: Machine) -> int:
    """The plan for use elsewhere; what it lacks is told beside it. The exit status."""
    lost = tuple(files.not_said(told.steps, request.export or "sh", machine))
    refused = (*told.refused, *lost)
    for said in dict.fromkeys("\n".join(changes.refused(_page(), refusal)) for refusal in refused):  # live, and lasting
        print(said, file=sys.stderr)
    told_there = request.export == "sh" and told.by_hand
    if told.by_hand and not told_there:
        print("\n".join(changes.left(_page(), told.by_hand)), file=sys.stderr)
    if len(told.steps) == len(lost) and not told_there:
        print(f"reprieve: {'what is asked for is refused' if refused else 'nothing to change'}", file=sys.stderr)
    else:
        unsaid = {refusal.place for refusal in lost}
        told = replace(told, steps=tuple(step for step in told.steps if step.place not in unsaid))
        print_lines(_EXPORTS[request.export or "sh"](told, machine))
    return REFUSED if refused else FOUND if request.dry_run and told.steps else 0


def _shown(told: Plan, machine: Machine, gaps: Sequence[Gap]) -> Iterator[str]:
    page = _page()
    name = machine.hostname or "this machine"
    count = len(told.steps)
    what = f"{count} change{'s' * (count > 1)}, together or not at all"
    if not count:
        what = "what is asked for is refused" if told.refused else "nothing to change"
    yield page.headline("Plan", (f"{escape.visible(name)}: {what}",), "strong")
    yield from changes.planned(page, told)
    yield from page.unseen(gaps)


def _page() -> Page:
    return Page(width=width(), paint=colours() if colour() else plain_paint)


def _agreed() -> bool:
    """Raises Failure: there is nobody to ask."""
    if not sys.stdin.isatty():
        raise Failure(
            "nobody is there to ask whether it should be changed", hint="--yes changes it, --dry-run only shows"
        )
    sys.stdout.write("\nApply? [y/N] ")
    sys.stdout.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _apply(request: Request, told: Plan, places: MachinePlaces) -> int:
    path = ledger_path()
    with LedgerFile(path) as ledger, _signals_raise():
        journal = open_journal(ledger, reason=request.reason)
        within = request.confirm_within
        arm: Callable[[int], None] = (
            (lambda number: None) if within is None else (lambda number: undo_unless_kept(number, within))
        )
        try:
            number = apply(told.steps, places, journal, kept=within is None, begun=arm)
        except Failure as failure:
            cause = failure.__context__ if isinstance(failure.__context__, Failure) else None
            said = changes.blocked(failure)
            if not journal.unfinished():
                said = f"nothing stays changed: {said}"
            elif cause is not None:
                said = f"{changes.blocked(cause)}; {said}"
            raise Failure(said, hint=failure.hint, status=REFUSED) from failure
    page = _page()
    made = [step.place for step in told.steps if step.place.kind == "cgroup.new"]
    print_lines(
        (
            "",
            page.headline("Done", (f"change {number}: put, read back and right",), "strong"),
            page.raw("Undo", f"reprieve undo {number}", "command"),
            *(page.raw("Start", escape.shell(to_start_in(Host(), place)), "command") for place in made),
        )
    )
    if within is not None:
        _confirm(number, within)
    return REFUSED if told.refused else 0


def _confirm(number: int, within_s: int) -> None:
    """Ask on a terminal; elsewhere, and from another shell, a command confirms."""
    print_lines((f"Keep it within {within_s} s, or it is undone: reprieve changes --keep {number}",))
    if sys.stdin.isatty():
        sys.stdout.write("Keep it? [y/N] ")
        sys.stdout.flush()
        if sys.stdin.readline().strip().lower() in ("y", "yes"):
            keep(number)
        else:
            print_lines((f"Not kept: it is undone when the time is over; reprieve undo {number} does it now.",))


def keep(number: int) -> None:
    """Confirm a change, so that it is not undone by itself. Raises Failure: it has been."""
    with LedgerFile(ledger_path()) as ledger:
        journal = open_journal(ledger)
        if not journal.in_force(number):
            raise Failure(f"of change {number} nothing is left", hint="reprieve changes tells what became of it")
        journal.keep(number)
    print_lines((f"Change {number} is kept.",))


def open_journal(ledger: Ledger, *, reason: str | None = None) -> Journal:
    """The journal of this machine and boot, in the name of who asked for it."""
    try:
        return Journal(ledger, boot_id=identify().boot_id, wall_s=time.time(), user=_user(), reason=reason)
    except Failure as failure:
        raise Failure(f"{ledger_path()}: {failure.message}", hint=failure.hint) from failure


def _user() -> str:
    """Who it is, and who was asked by: sudo tells."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # no such user here: a container
        name = str(os.geteuid())
    before = os.environ.get("SUDO_USER")
    return f"{before} (as {name})" if before and before != name else name


@contextmanager
def _signals_raise() -> Iterator[None]:
    """Within the block SIGTERM and SIGHUP end it as Ctrl-C does: what was begun is put back."""
    heard = [one for one in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(one) is not signal.SIG_IGN]  # nohup
    before = [(number, signal.signal(number, _leave)) for number in heard]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)


def _leave(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)

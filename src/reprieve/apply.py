"""`reprieve fix`: what findings ask for, as a plan; shown, agreed to, applied, read back, and undone if it fails."""

import getpass
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from reprieve.check import UNIQUE_S
from reprieve.fix.journal import Journal, Ledger
from reprieve.fix.plan import Span, Wanted, plan, wanted_by
from reprieve.fix.transaction import apply
from reprieve.machine.host import Host, identify
from reprieve.machine.ledger import MACHINE, LedgerFile, is_there, ledger_path, read_lines
from reprieve.machine.newgroup import to_start_in
from reprieve.machine.places import CapturedPlaces, MachinePlaces
from reprieve.machine.program import as_asked, with_command
from reprieve.machine.signals import Interrupted, Signals
from reprieve.machine.watcher import since_boot_s, undo_unless_kept
from reprieve.model.change import Blocked, Plan, Stay
from reprieve.model.finding import Failure, Gap
from reprieve.model.machine import Machine
from reprieve.model.snapshot import Snapshot
from reprieve.next import look
from reprieve.output import FOUND, INCOMPLETE, REFUSED, can_ask, colour, print_lines, width
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
    machine = look(request.origin, gaps, unique_s=UNIQUE_S if request.settings is None else 0)
    places = MachinePlaces()
    planned_for = places if request.origin is None else CapturedPlaces(machine)
    if request.app is not None and not _running(machine, request.app):
        hint = "processes of others are seen as root, those of a container on the host"
        raise Failure(f"no {_APPS[request.app]} is seen here", hint=hint)
    told = _plan(request, machine, planned_for)
    told = _at_hand(told)
    unseen = gaps if request.settings is None else []  # what is named is changed whatever else is not seen
    if request.export is not None:
        return _export(request, told, machine, unseen)
    print_lines(_shown(told, machine, unseen))
    if not told.steps:
        return REFUSED if told.refused else INCOMPLETE if _hide(unseen) else 0
    if request.dry_run or request.origin is not None:  # of another machine: nothing of it is done here
        return FOUND
    if not request.yes and not _agreed():
        print_lines(("Nothing was changed.",))
        return 0
    return _apply(request, told, places)


def _hide(gaps: Sequence[Gap]) -> bool:
    """May there be more to change than was found?"""
    return any(gap.hides for gap in gaps)


_APPS = {"redis": "Redis server", "postgresql": "PostgreSQL", "jvm": "JVM", "node": "Node.js"}


def _running(machine: Machine, app: str) -> bool:
    found = {"redis": machine.redis, "postgresql": machine.postgres, "jvm": machine.jvms, "node": machine.nodes_js}
    return bool(found[app])


def _at_hand(told: Plan) -> Plan:
    """The same, with advice that can be followed as it stands."""
    steps = (
        step if step.lacks is None else replace(step, lacks=replace(step.lacks, hint=with_command(step.lacks.hint)))
        for step in told.steps
    )
    refused = (replace(one, hint=with_command(one.hint)) for one in told.refused)
    return replace(told, steps=tuple(steps), refused=tuple(refused))


def _plan(request: Request, machine: Machine, places: MachinePlaces | CapturedPlaces) -> Plan:
    elsewhere, shown = request.export is not None, request.dry_run
    if request.settings is not None:
        return plan(
            request.settings, places, machine, span=request.span, forced=request.force, elsewhere=elsewhere, shown=shown
        )
    found = [one for one in check(Snapshot(machine=machine)) if not request.only or one.code in request.only]
    wanted, by_hand = wanted_by(found, places.kinds, first=request.app is not None)
    made = plan(wanted, places, machine, span=request.span, forced=request.force, elsewhere=elsewhere, shown=shown)
    return Plan(steps=made.steps, refused=made.refused, by_hand=tuple(one for one in by_hand if one.remedies))


_EXPORTS: dict[str, Callable[[Plan, Machine], Iterator[str]]] = {
    "sh": lambda told, _: export.shell(told.steps, told.by_hand),
    "ansible": lambda told, _: export.ansible(told.steps),
    "systemd": lambda told, _: files.systemd(told.steps),
    "compose": lambda told, machine: files.compose(told.steps, machine),
    "k8s": lambda told, _: files.kubernetes(told.steps),
}


def _export(request: Request, told: Plan, machine: Machine, gaps: Sequence[Gap]) -> int:
    """The plan for use elsewhere; what it lacks, and what was not seen, is told beside it. The exit status."""
    lost = tuple(files.not_said(told.steps, request.export or "sh", machine))
    refused = (*told.refused, *lost)
    for said in dict.fromkeys("\n".join(changes.refused(_page(), refusal)) for refusal in refused):  # live, and lasting
        print(said, file=sys.stderr)
    told_there = request.export == "sh" and told.by_hand
    if told.by_hand and not told_there:
        print("\n".join(changes.left(_page(), told.by_hand)), file=sys.stderr)
    if len(told.steps) == len(lost) and not told_there:
        print(f"reprieve: {'what is asked for is refused' if refused else _nothing(gaps)}", file=sys.stderr)
    else:
        unsaid = {refusal.place for refusal in lost}
        told = replace(told, steps=tuple(step for step in told.steps if step.place not in unsaid))
        print_lines(_EXPORTS[request.export or "sh"](told, machine))
    for line in _page().unseen(gaps):
        print(line, file=sys.stderr)
    return REFUSED if refused else FOUND if request.dry_run and told.steps else INCOMPLETE if _hide(gaps) else 0


def _nothing(gaps: Sequence[Gap]) -> str:
    return f"nothing to change{', in what could be seen' if _hide(gaps) else ''}"


def _shown(told: Plan, machine: Machine, gaps: Sequence[Gap]) -> Iterator[str]:
    page = _page()
    name = machine.hostname or "this machine"
    count = len(told.steps)
    groups = len({step.group for step in told.steps})
    what = f"{count} change{'s' * (count > 1)}, together or not at all"
    if groups > 1:
        parts = "each by itself" if groups == count else f"in {groups} parts, each whole or not at all"
        what = f"{count} changes, {parts}"
    if count and {step.place for step in told.steps} == set(changes.for_this_boot(told).values()):
        what = f"{count} change{'s' * (count > 1)}, until the next boot alone"
    if not count:
        what = "what is asked for is refused" if told.refused else _nothing(gaps)
    yield from page.pieces("Plan", (f"{escape.visible(name)}: {what}",), "strong")
    yield from changes.planned(page, told)
    yield from page.unseen(gaps)


def _page() -> Page:
    return Page(width=width(), paint=colours() if colour() else plain_paint)


def _agreed() -> bool:
    """Raises Failure: there is nobody to ask."""
    if not can_ask():
        raise Failure(
            "nobody is there to ask whether it should be changed", hint="--yes changes it, --dry-run only shows"
        )
    sys.stdout.write("\nApply? [y/N] ")
    sys.stdout.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _apply(request: Request, told: Plan, places: MachinePlaces) -> int:
    within = request.confirm_within
    arm: Callable[[int], None] = (
        (lambda number: None) if within is None else (lambda number: undo_unless_kept(number, within))
    )
    with Signals() as signals:
        with LedgerFile(ledger_path()) as ledger:
            journal = open_journal(ledger, reason=request.reason)
            earlier = journal.unfinished()
            failed: list[tuple[Failure, list[Stay]]] = []
            try:
                number = apply(
                    told.steps,
                    places,
                    journal,
                    kept=within is None,
                    begun=arm,
                    due=lambda: None if within is None else since_boot_s() + within,
                    interruptible=signals.interruptible,
                    apart=lambda failure, left: failed.append((failure, left)),
                )
            except (Failure, Interrupted) as failure:
                unfinished = [one for one in journal.unfinished() if one not in earlier]
                raise _became(failure, unfinished, failed) from failure
        page = _page()
        refused = [one for one, _ in failed if not _has_ended(one)]
        in_part = ", in part" if refused else ""
        made = [step.place for step in told.steps if step.place.kind == "cgroup.new"]
        print_lines(
            (
                "",
                page.headline("Done", (f"change {number}{in_part}: put, read back and right",), "strong"),
                *_not_done(page, failed),
                page.raw("Undo", as_asked("undo", f"{number}"), "command"),
                *(page.raw("Start", escape.shell(to_start_in(Host(), place)), "command") for place in made),
            )
        )
    if within is not None:
        _confirm(number, within, ask=signals.came is None)
    return REFUSED if told.refused or refused else 0


def _has_ended(failure: Failure) -> bool:
    """Was it a process, or what else had a value, that is no more? Then there is nothing left to be done."""
    return isinstance(failure, Blocked) and all(stay.why == "gone" for stay in failure.stays)


def _not_done(page: Page, failed: Sequence[tuple[Failure, Sequence[Stay]]]) -> Iterator[str]:
    """What was left out of a change, and why; what belongs to it is put back."""
    for failure, left in failed:
        name, style = ("Ended", "dim") if _has_ended(failure) else ("Not done", "warning")
        yield from page.say(name, escape.visible(changes.blocked(failure)), style)
        for stay in left:
            if stay.why != "gone":
                yield from page.say("", escape.visible(changes.left_so(stay)))
        if failure.hint is not None:
            yield from page.say("", f"→ {failure.hint}")


def _became(
    failure: Failure | Interrupted, unfinished: list[int], failed: Sequence[tuple[Failure, Sequence[Stay]]]
) -> Failure:
    """Of a change that failed or was interrupted: what became of it, and why; `failed` were parts that were apart."""
    if isinstance(failure, Interrupted):
        said = ended_by(failure)
    else:
        stayed = [changes.left_so(stay) for _, left in failed for stay in left if stay.why != "gone"]
        causes = [one for one, _ in failed if one is not failure]
        said = "; ".join(dict.fromkeys((*map(changes.blocked, (*causes, failure)), *stayed)))
    status = 128 + failure.signal if isinstance(failure, Interrupted) else REFUSED
    if not unfinished:
        hint = failure.hint if isinstance(failure, Failure) else None
        return Failure(f"nothing stays changed: {said}", hint=hint, status=status)
    match failure.__context__:
        case Interrupted() as before:
            said = f"{ended_by(before)}; {said}"
        case Failure() as before:
            said = f"{changes.blocked(before)}; {said}"
        case _:
            pass
    hint = (
        "see to it, then `reprieve undo --recover` puts it back; "
        f"or `reprieve undo {unfinished[0]} --leave` ends the change and leaves it so"
    )
    return Failure(f"change {unfinished[0]} is not finished: {said}", hint=hint, status=status)


def ended_by(interrupted: Interrupted) -> str:
    """In words."""
    return f"interrupted by {interrupted.signal.name}"


def _confirm(number: int, within_s: int, *, ask: bool) -> None:
    """Ask on a terminal; elsewhere, and from another shell, a command confirms."""
    print_lines((f"Keep it within {within_s} s, or it is undone: {as_asked('changes', '--keep', f'{number}')}",))
    if ask and can_ask():
        sys.stdout.write("Keep it? [y/N] ")
        sys.stdout.flush()
        if sys.stdin.readline().strip().lower() in ("y", "yes"):
            keep(number)
        else:
            now = as_asked("undo", f"{number}")
            print_lines((f"Not kept: it is undone when the time is over; {now} does it now.",))


def keep(number: int) -> None:
    """Confirm a change, so that it is not undone by itself. Raises Failure: it does not wait for that."""
    path = ledger_path()
    mine, hint = "", "reprieve changes lists them"
    if path != MACHINE and is_there(MACHINE):  # root's answer named the number, and a user asks for it
        mine, hint = " of yours", "what root has changed root keeps: run it as root"
    if not read_lines(path):  # where nothing was ever changed no journal is made
        raise Failure(f"there is no change {number}{mine}", hint=hint)
    with LedgerFile(path) as ledger:
        journal = open_journal(ledger)
        try:
            change = journal.find(number)
        except Failure as failure:
            raise Failure(f"there is no change {number}{mine}", hint=hint) from failure
        if not journal.in_force(number):
            raise Failure(f"of change {number} nothing is left", hint="reprieve changes tells what became of it")
        if not change.ended:
            hint = f"reprieve undo --recover puts it back, reprieve undo {number} --leave leaves it as it is"
            raise Failure(f"change {number} is not finished", hint=hint)
        if change.kept:
            raise Failure(f"change {number}{mine} is in force, and waits for nobody to keep it", hint=hint)
        journal.keep(number)
    print_lines((f"Change {number} is kept.",))


def open_journal(ledger: Ledger, *, path: str | None = None, reason: str | None = None) -> Journal:
    """The journal of this machine and boot, in the name of who asked for it; `path`: it is another's."""
    try:
        return Journal(
            ledger,
            boot_id=identify().boot_id,
            wall_s=time.time(),
            user=_user(),
            reason=reason,
            boottime_s=since_boot_s(),
        )
    except Failure as failure:
        raise Failure(f"{path or ledger_path()}: {failure.message}", hint=failure.hint) from failure


def _user() -> str:
    """Who it is, and who was asked by: sudo tells."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # no such user here: a container
        name = str(os.geteuid())
    before = os.environ.get("SUDO_USER")
    return f"{before} (as {name})" if before and before != name else name

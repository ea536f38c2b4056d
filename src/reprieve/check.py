"""`reprieve check`: what on this machine leads to the next kill."""

import os
import time
from collections.abc import Iterable
from typing import NamedTuple

from reprieve.machine.accepted import USUAL, Last, read_accepted, read_last, state_file, write_last
from reprieve.machine.host import become_expendable
from reprieve.model.accepted import Accepted
from reprieve.model.finding import Finding, Gap
from reprieve.model.machine import Machine
from reprieve.model.snapshot import Snapshot
from reprieve.next import look, whereabouts
from reprieve.oom.groups import ancestors
from reprieve.output import FOUND, INCOMPLETE, colour, print_lines, width, write
from reprieve.rules import SEVERITIES
from reprieve.rules.living import check
from reprieve.rules.living.accepted import sift
from reprieve.rules.living.shares import WARN_SHARE
from reprieve.rules.living.since import remember
from reprieve.show.checked import Fix

UNIQUE_S = 0.1  # to measure what is of single processes alone


class Request(NamedTuple):
    """What was asked for, as on the command line."""

    name: str | None = None  # what concerns this alone
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    warn_share: float = WARN_SHARE
    fail_on: str | None = None
    accepted: str | None = None  # a file of accepted findings
    since_last: bool = False
    origin: str | None = None
    summary: bool = False
    as_json: bool = False
    markdown: bool = False
    html: str | None = None
    verbose: bool = False


def perform(request: Request) -> int:
    """Look, find, tell; the exit status. Raises Failure."""
    become_expendable()
    gaps: list[Gap] = []
    machine = look(request.origin, gaps, unique_s=UNIQUE_S)
    last = read_last(state_file()) if request.since_last else None
    earlier = None if last is None else last.earlier
    known = check(Snapshot(machine=machine), share=request.warn_share, earlier=earlier)
    found = [one for one in known if _wanted(one, request)]
    others, path = 0, None
    if request.name is not None:
        path = whereabouts(machine, request.name)
        of_it = [one for one in found if _concerns(one, path)]
        found, others = of_it, len(found) - len(of_it)
    sifted = sift(found, _entries(request), time.time())
    told, notes = sifted.told, _notes(sifted.accepted, sifted.expired)
    if others:
        count = "1 finding is" if others == 1 else f"{others} findings are"
        notes.append(f"{count} about the rest of the machine: reprieve check")
    if request.since_last:
        told = _new(told, last, notes)
        write_last(state_file(), Last({(one.code, one.subject) for one in sifted.told}, remember(machine)))
    status = _status(request, told, gaps)
    _tell(request, machine, told, notes, gaps, status, path)
    return status


def _wanted(finding: Finding, request: Request) -> bool:
    return finding.code not in request.skip and (not request.only or finding.code in request.only)


def _concerns(finding: Finding, path: str) -> bool:
    """Is it about that group, what is in it, or a group that it is in?"""
    about = None if finding.about is None else finding.about.path
    if path == "/":
        return about == "/"
    return about is not None and (about in (path, *ancestors(path)) or path in ancestors(about)) and about != "/"


def _entries(request: Request) -> list[Accepted]:
    """Of the file that was named, or the usual one if it is there; of another machine's snapshot none but named."""
    if request.accepted is not None:
        return read_accepted(request.accepted)
    if request.origin is None and os.path.exists(USUAL):
        return read_accepted(USUAL)
    return []


def _notes(accepted: list[tuple[Finding, Accepted]], expired: list[Accepted]) -> list[str]:
    """What was left out, and what no longer is: nothing disappears unsaid."""
    said = [f"accepted: {finding.code} ({entry.reason})" for finding, entry in accepted]
    for entry in expired:
        day = time.strftime("%Y-%m-%d", time.localtime(entry.until_s))
        said.append(f"was accepted until {day}: {entry.code} ({entry.reason})")
    return said


def _new(found: list[Finding], last: Last | None, notes: list[str]) -> list[Finding]:
    """Those that the last look did not have; what it had and this one has not is a note."""
    if last is None:
        return found
    now = {(finding.code, finding.subject) for finding in found}
    notes += [f"gone since the last look: {code} {subject}".rstrip() for code, subject in sorted(last.found - now)]
    if stays := len(now & last.found):
        notes.append(f"{stays} known from the last look {'is' if stays == 1 else 'are'} not shown again")
    return [finding for finding in found if (finding.code, finding.subject) not in last.found]


def _status(request: Request, told: list[Finding], gaps: list[Gap]) -> int:
    if request.fail_on is not None:
        worst = SEVERITIES.index(request.fail_on)
        if any(SEVERITIES.index(finding.severity) <= worst for finding in told):
            return FOUND
    return INCOMPLETE if any(gap.hides for gap in gaps) else 0


def _fix(told: list[Finding], machine: Machine) -> Fix | None:
    """What `reprieve fix` would plan of these; None: it is for people to do, or no command would plan these alone.

    Whether it will do all of it only its plan says: that asks systemd, engines and servers.
    """
    if not any(remedy.settings for finding in told for remedy in finding.remedies):
        return None  # so that what changes a machine is not loaded
    from reprieve.fix.plan import wanted_by
    from reprieve.machine.places import MachinePlaces

    kinds = MachinePlaces().kinds
    known = check(Snapshot(machine=machine))  # as `fix` does: by the usual share, without an earlier look
    plans = [one for one in known if wanted_by([one], kinds)[0]]
    of_these = [one for one in plans if one in told]
    codes = tuple(dict.fromkeys(one.code for one in of_these))
    if len(of_these) == len(plans):
        return Fix(plans=len(of_these)) if plans else None
    if not of_these or any(one.code in codes and one not in of_these for one in plans):
        return None  # --only would change what was accepted, or is about others
    return Fix(plans=len(of_these), only=codes)


def _tell(
    request: Request,
    machine: Machine,
    told: list[Finding],
    notes: list[str],
    gaps: list[Gap],
    status: int,
    path: str | None,
) -> None:
    lines: Iterable[str]
    if request.html is not None:
        from reprieve.show import page

        lines = (write(request.html, page.render(Snapshot(machine=machine, gaps=tuple(gaps)), told)),)
    elif request.as_json:
        from reprieve.show import jsonl

        lines = (
            *jsonl.render(Snapshot(gaps=tuple(gaps)), told),
            jsonl.end(events=len(told), exit_status=status),
        )
    elif request.markdown:
        from reprieve.show import markdown

        lines = markdown.checked(machine, told, gaps)
    elif request.summary:
        from reprieve.show import checked

        unseen = sum(gap.hides for gap in gaps)
        lines = (checked.summary(machine, told, unseen=unseen),) if told or unseen else ()
    else:
        from reprieve.show import checked

        lines = checked.render(
            machine,
            told,
            path=path,
            fix=None if request.origin is not None else _fix(told, machine),
            notes=notes,
            gaps=gaps,
            width=width(),
            colour=colour(),
            verbose=request.verbose,
        )
    print_lines(lines)

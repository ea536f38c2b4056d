"""`reprieve check`: what on this machine leads to the next kill."""

import os
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from reprieve.machine.accepted import USUAL, Last, read_accepted, read_last, state_file, write_last
from reprieve.machine.host import become_expendable
from reprieve.model.accepted import Accepted
from reprieve.model.earlier import Earlier, Known
from reprieve.model.finding import Finding, Gap
from reprieve.model.machine import Machine
from reprieve.model.snapshot import Snapshot
from reprieve.next import look, whereabouts
from reprieve.oom.groups import ancestors
from reprieve.output import FOUND, INCOMPLETE, colour, print_lines, width, write
from reprieve.rules import SEVERITIES
from reprieve.rules.living import LIVING, SINCE, check, code_of
from reprieve.rules.living.accepted import Sifted, sift
from reprieve.rules.living.known import compare, place
from reprieve.rules.living.shares import WARN_SHARE
from reprieve.rules.living.since import remember
from reprieve.show.checked import Fix, LeftOut, named
from reprieve.show.escape import visible

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
    all_found = check(Snapshot(machine=machine), share=request.warn_share, earlier=earlier)
    found = [one for one in all_found if _wanted(one.code, request)]
    others, path = 0, None
    if request.name is not None:
        path = whereabouts(machine, request.name)
        of_it = [one for one in found if _concerns(one, path, machine)]
        found, others = of_it, len(found) - len(of_it)
    sifted = sift(found, _entries(request), time.time())
    notes = _notes(sifted.accepted, sifted.expired)
    if others:
        count = "1 finding is" if others == 1 else f"{others} findings are"
        notes.append(_note(f"{count} about the rest of the machine", "reprieve check"))
    told, stands = compare(sifted.told, () if last is None else last.found)
    if last is not None:
        notes += _since(request, last, found, stands)
    status = _status(request, told, gaps)
    left_out = LeftOut(known=stands, accepted=[finding for finding, _ in sifted.accepted])
    read = _tell(request, machine, told, left_out, notes, gaps, status, path)
    if request.since_last and read:  # else the news would be lost
        write_last(state_file(), _kept(request, last, sifted, machine))
    return status


def _wanted(code: str, request: Request) -> bool:
    return code not in request.skip and (not request.only or code in request.only)


def _concerns(finding: Finding, path: str, machine: Machine) -> bool:
    """Is it about that group, what is in it, or a group that it is in?"""
    about = None if finding.about is None else finding.about.path
    if path == "/":
        return about == "/"
    if about == "/":  # the root is all of a machine; within a container it is the container
        return machine.cgroup_private is True
    return about is not None and (about in (path, *ancestors(path)) or path in ancestors(about))


def _entries(request: Request) -> list[Accepted]:
    """Of the file that was named, or the usual one if it is there; of another machine's snapshot none but named."""
    codes = list(map(code_of, LIVING))
    if request.accepted is not None:
        return read_accepted(request.accepted, codes)
    if request.origin is None and os.path.exists(USUAL):
        return read_accepted(USUAL, codes)
    return []


def _note(about: str, said: str) -> Gap:
    return Gap(place=about, reason=visible(said), hides=False)


def _notes(accepted: list[tuple[Finding, Accepted]], expired: list[Accepted]) -> list[Gap]:
    """What was left out, and what no longer is: nothing disappears unsaid."""
    said = [_note("accepted", f"{finding.code} ({entry.reason})") for finding, entry in accepted]
    for entry in expired:
        day = time.strftime("%Y-%m-%d", time.localtime(entry.until_s))
        said.append(_note(f"was accepted until {day}", f"{entry.code} ({entry.reason})"))
    return said


def _since(request: Request, last: Last, found: list[Finding], stands: list[Finding]) -> Iterator[Gap]:
    """What the last look had and this one has not, though it looked for it, and what is not told again."""
    now = {(finding.code, finding.subject) for finding in found}  # what is accepted too
    for code, subject in sorted({(one.code, one.subject) for one in last.found} - now):
        if _wanted(code, request):
            yield _note("gone since the last look", f"{code} {subject}".rstrip())
    if stands:
        yield _note("known from the last look", f"{len(stands)}, not shown again: {named(stands)}")


def _kept(request: Request, last: Last | None, sifted: Sifted, machine: Machine) -> Last:
    """What the next look is to know; of what this one did not look for, what the last one found."""
    found = [Known(one.code, one.subject, one.severity, place(one)) for one in sifted.told]
    if last is None:
        return Last(found, remember(machine))
    found += (one for one in last.found if not _wanted(one.code, request))
    return Last(found, _remembered(request, last.earlier, machine))


def _remembered(request: Request, then: Earlier | None, machine: Machine) -> Earlier | None:
    """The machine as it was when it was last asked what has grown, if it was not booted since."""
    asked = any(_wanted(code_of(rule), request) for rule in SINCE)
    return remember(machine) if asked or then is None or then.boot_id != machine.boot_id else then


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
    left_out: LeftOut,
    notes: list[Gap],
    gaps: list[Gap],
    status: int,
    path: str | None,
) -> bool:
    """False: the reader has left. Raises Failure: it could not be written."""
    lines: Iterable[str]
    if request.html is not None:
        from reprieve.show import checked, page

        seen = Snapshot(machine=machine, gaps=(*gaps, *notes))
        lines = (write(request.html, page.render(seen, told, nothing=checked.nothing(left_out))),)
    elif request.as_json:
        from reprieve.show import jsonl

        lines = (
            *jsonl.render(Snapshot(gaps=(*gaps, *notes)), told),
            jsonl.end(events=len(told), exit_status=status),
        )
    elif request.markdown:
        from reprieve.show import checked, markdown

        lines = markdown.checked(machine, told, (*gaps, *notes), nothing=checked.nothing(left_out))
    elif request.summary:
        from reprieve.show import checked

        unseen = sum(gap.hides for gap in gaps)
        line = checked.summary(machine, told, left_out=left_out, unseen=unseen)
        lines = (line,) if told or unseen else ()  # cron writes a mail of each line: what is known makes none
    else:
        from reprieve.show import checked

        lines = checked.render(
            machine,
            told,
            left_out=left_out,
            path=path,
            fix=None if request.origin is not None else _fix(told, machine),
            notes=notes,
            gaps=gaps,
            width=width(),
            colour=colour(),
            verbose=request.verbose,
        )
    return print_lines(lines)

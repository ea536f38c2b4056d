"""What leads to the next kill → text: a line that sums up, then each finding with what to do."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from reprieve.model.finding import Finding, Gap, Remedy, quote
from reprieve.model.machine import Machine
from reprieve.oom.groups import owner
from reprieve.show import answer, escape
from reprieve.show.text import Page, colours, plain_paint
from reprieve.units import size

_PLURALS = {"critical": "critical", "warning": "warnings", "notice": "notices", "info": "infos"}
_COMMANDS = 4  # of a remedy, unless all are wanted
_SUBJECTS = 5  # of a code, where all is one line


class Fix(NamedTuple):
    """What `reprieve fix` would plan of what was found."""

    plans: int
    only: tuple[str, ...] = ()  # the codes of it; none: it is all that fix would plan here


class LeftOut(NamedTuple):
    """What was found and is not told: where there is any, nothing else found is no health."""

    known: Sequence[Finding] = ()  # from the last look
    accepted: Sequence[Finding] = ()


_NOTHING_LEFT = LeftOut()


def summary(
    machine: Machine, findings: Sequence[Finding], *, left_out: LeftOut = _NOTHING_LEFT, unseen: int = 0
) -> str:
    """One line: how many of each severity, codes and subjects, what was left out, how many places were not seen."""
    known, accepted = left_out
    if findings:
        said = [f"{counted(findings)}: {named(findings)}"]
    elif known:
        said = ["nothing new found"]
    else:
        said = [f"nothing found {'but what is accepted' if accepted else 'that leads to a kill'}"]
    said += [f"{len(ones)} {word}: {named(ones)}" for word, ones in (("known", known), ("accepted", accepted)) if ones]
    if unseen:
        said.append("1 place not seen" if unseen == 1 else f"{unseen} places not seen")
    return ("" if machine.hostname is None else f"{escape.visible(machine.hostname)}: ") + "; ".join(said)


def named(findings: Iterable[Finding]) -> str:
    """Each code once, with subjects that it does not tell itself: `process-holds (java ×2, mysqld), swap-absent`."""
    subjects: dict[str, Counter[str]] = {}
    for finding in findings:
        subjects.setdefault(finding.code, Counter()).update([finding.subject] if _tells(finding) else [])
    return ", ".join(f"{code} ({_listed(of_it)})" if of_it else code for code, of_it in subjects.items())


def _listed(subjects: Counter[str]) -> str:
    said = [escape.name(one) + (f" ×{count}" if count > 1 else "") for one, count in subjects.items()]
    return ", ".join(said if len(said) <= _SUBJECTS else (*said[:_SUBJECTS], f"{len(said) - _SUBJECTS} more"))


def nothing(left_out: LeftOut) -> str:
    """What is said of a machine of which nothing is told."""
    if left_out.known:
        return f"Nothing new was found: {_stand(left_out)}."
    return "Nothing was found but what is accepted." if left_out.accepted else "Nothing was found."


def _stand(left_out: LeftOut) -> str:
    count = len(left_out.known)
    return f"{count} known from the last look {'stands' if count == 1 else 'stand'}"


def counted(findings: Sequence[Finding]) -> str:
    """`1 critical, 2 warnings`, the severest first."""
    counts = Counter(finding.severity for finding in findings)
    return ", ".join(
        f"{counts[one]} {one if counts[one] == 1 else many}" for one, many in _PLURALS.items() if counts[one]
    )


def render(
    machine: Machine,
    findings: Sequence[Finding],
    *,
    left_out: LeftOut = _NOTHING_LEFT,
    path: str | None = None,
    fix: Fix | None = None,
    notes: Sequence[Gap] = (),
    gaps: Sequence[Gap] = (),
    width: int = 80,
    colour: bool = False,
    verbose: bool = False,
) -> Iterator[str]:
    """The findings as lines; of a machine where nothing was found, that. `path`: of the group that was asked for."""
    page = Page(width=width, paint=colours() if colour else plain_paint)
    yield page.headline("Machine", _machine(machine))
    if path is not None:
        yield from page.say("Asked", _asked(machine, path))
    yield from page.pieces("Found", (counted(findings),) if findings else _none_told(left_out, gaps), "strong")
    for finding in findings:
        yield ""
        yield from page.say(finding.severity, answer.claim(finding), finding.severity)
        if verbose:
            for sentence in finding.detail:
                yield from page.say("", sentence)
        for remedy in finding.remedies if verbose else finding.remedies[:1]:
            yield from told_remedy(page, remedy, verbose=verbose)
        if verbose:
            for evidence in finding.evidence:
                line = f"{answer.place(evidence)}  {evidence.text}"
                yield page.raw("", escape.cut(escape.visible(line), page.room), "dim")
        yield page.raw("", f"reprieve why --explain {finding.code}" if verbose else finding.code, "dim")
    if findings and not verbose:
        yield ""
        yield page.headline("More", ("-v: why, all that can be done, the evidence",), "dim")
    for note in notes:
        yield from page.say("Note", f"{note.place}: {note.reason}")
    yield from page.unseen(gaps)
    if fix is not None:
        yield from _fix(page, fix, len(findings))


def _none_told(left_out: LeftOut, gaps: Sequence[Gap]) -> tuple[str, ...]:
    seen = ", in what could be seen" if gaps else ""
    if left_out.known:
        return (f"nothing new{seen}", f"; {_stand(left_out)}")
    return (f"nothing {'but what is accepted' if left_out.accepted else 'that leads to a kill'}{seen}",)


def _fix(page: Page, fix: Fix, found: int) -> Iterator[str]:
    command = " ".join(("reprieve fix", *(f"--only {code}" for code in fix.only)))
    which = "it" if found == 1 else f"all {found}" if fix.plans == found else f"{fix.plans} of these {found}"
    words = f"plans {which}, and asks before it changes anything"
    if len(command) + len(words) < page.room:
        yield page.raw("Fix", f"{command} {words}", "command")
    else:
        yield page.raw("Fix", command, "command")
        yield from page.say("", words, "command")


def _asked(machine: Machine, path: str) -> str:
    """Which group it is, what is in it and what limits it."""
    whose = owner(path, machine.containers)
    said = quote(whose.name) if whose.name == path else f"{quote(whose.name)} ({quote(path)})"
    for group in machine.cgroups:
        if group.path == path:
            held = "" if group.current_bytes is None else f" holds {size(group.current_bytes)}"
            limit = f"limit {size(group.max_bytes)}" if isinstance(group.max_bytes, int) else "no limit of its own"
            return f"{said}{held}, {limit}"
    return f"{said}, whose limits are not seen"


def _machine(machine: Machine) -> tuple[str, ...]:
    told = dict(machine.meminfo)
    total, available, swap = (told.get(name) for name in ("MemTotal", "MemAvailable", "SwapTotal"))
    ram = "memory not told" if total is None else f"{size(total)} of RAM"
    left = "" if available is None else f", {size(available)} of it to be had"
    swapped = "" if swap is None else ", no swap" if swap == 0 else f", {size(swap)} of swap"
    return (f"{quote(machine.hostname or 'this machine')}: {ram}{left}{swapped}",)


def told_remedy(page: Page, remedy: Remedy, *, verbose: bool = False) -> Iterator[str]:
    """What to do, by which commands, by what formula, at what cost."""
    yield from page.say("", f"→ {remedy.title}")
    commands = remedy.commands if verbose else remedy.commands[:_COMMANDS]
    if commands and answer.for_root(remedy):
        yield page.raw("", "  As root:")
    for argv in commands:
        yield page.raw("", f"  $ {escape.shell(argv)}", "command")  # never cut: half a command does something else
    if len(remedy.commands) > len(commands):
        yield page.raw("", f"  and {len(remedy.commands) - len(commands)} commands more: -v shows them")
    if remedy.amount is not None:
        yield from page.say("", f"  {remedy.amount}")
    if remedy.cost is not None:
        yield from page.say("", f"  Cost: {remedy.cost}", "dim")


def _tells(finding: Finding) -> bool:
    """Is its subject more than the code tells? Swap and slab are words of theirs."""
    return finding.subject not in ("", *finding.code.split("-"))

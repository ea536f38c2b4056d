"""Findings → Markdown for a ticket: a name in it is never a link, an element, a mention or the end of a table."""

from collections.abc import Iterable, Iterator, Sequence

from reprieve.model.ending import Ending
from reprieve.model.finding import Finding, Gap, Remedy, quote
from reprieve.model.machine import Machine
from reprieve.model.oom import OomReport, OomSummary
from reprieve.model.snapshot import Snapshot
from reprieve.rules.account import where
from reprieve.show import answer, escape
from reprieve.units import percent, size

_PROCESSES = 20  # a ticket is read, not searched


def render(snapshot: Snapshot, findings: Sequence[Finding]) -> Iterator[str]:
    """Each event of the snapshot, in its order, as lines without their ends; then what could not be seen."""
    for index, oom in enumerate(snapshot.ooms):
        yield from _event(oom, answer.of_event(findings, index), snapshot.history)
    others = [finding for finding in findings if finding.oom is None]
    if others:
        yield from _headed("How it ended", (line for finding in others for line in _finding(finding)))
        yield from _what_to_do(answer.remedies(others))
        shown = (f"{answer.place(line)}  {line.text}" for line in answer.evidence(others))
        yield from _headed("Evidence", escape.fence(shown))
    yield from _items("Refused memory, with nobody killed", map(answer.refused, snapshot.allocation_failures))
    yield from _unseen(snapshot.gaps)


def checked(machine: Machine, findings: Sequence[Finding], gaps: Sequence[Gap], *, nothing: str) -> Iterator[str]:
    """What leads to the next kill, each finding with what to do, or that there is `nothing`; what could not be seen."""
    yield f"## What leads to the next kill: {escape.markdown(quote(machine.hostname or 'this machine'))}"
    yield ""
    if not findings:
        yield nothing
        yield ""
    for finding in findings:
        yield f"### {finding.severity}: {finding.code}"
        yield ""
        yield from _finding(finding)
        yield ""
        for at, remedy in enumerate(finding.remedies, 1):
            yield from _remedy(at, remedy)
        shown = [f"{answer.place(line)}  {line.text}" for line in finding.evidence]
        yield ""
        yield from escape.fence(shown)
        yield ""
    yield from _unseen(gaps)


def listing(history: Iterable[OomSummary]) -> Iterator[str]:
    """All events as a table, in their order."""
    summaries = list(history)
    titles, places = answer.where_told(summaries)
    rows = ((*answer.listed(summary), *place) for summary, place in zip(summaries, places, strict=True))
    return _table(("When", "Killed", "Freed", "Limit", *titles), rows)


def ends(told: Iterable[tuple[Ending, Finding]]) -> Iterator[str]:
    """What managers say of ends, as a table below that of the events; nothing where they say of none."""
    if rows := answer.ended(told):
        yield ""
        yield from _table(("When", "Ended", "Told in"), rows)


def _event(oom: OomReport, findings: Sequence[Finding], history: Sequence[OomSummary]) -> Iterator[str]:
    killed = "".join(answer.who(oom, history))
    yield f"## Out of memory: {escape.markdown(killed)}"
    yield ""
    yield f"- **Limit:** {escape.markdown(''.join(answer.limit(oom)))}"
    yield f"- **What now:** {escape.markdown(answer.now(oom, findings))}"
    if machine := answer.machine(oom):
        yield f"- **Machine:** {escape.markdown(machine)}"
    if trigger := answer.trigger(oom):
        yield f"- **Trigger:** {escape.markdown(trigger)}"
    yield f"- **Source:** {escape.markdown(answer.origin(oom, history))}"
    yield ""
    yield from _why(findings)
    yield from _what_to_do(answer.remedies(findings))
    yield from _memory(oom)
    yield from _processes(oom)
    yield from _zones(oom)
    shown = answer.evidence(findings)
    if shown:
        yield from _headed("Evidence", escape.fence(f"{answer.place(line)}  {line.text}" for line in shown))
    yield from _items("Missing from this text", oom.missing)


def _headed(title: str, lines: Iterable[str]) -> Iterator[str]:
    for at, line in enumerate(lines):
        if at == 0:
            yield f"### {title}"
            yield ""
        yield line
    yield ""


def _items(title: str, marked: Iterable[str]) -> Iterator[str]:
    items = [f"- {escape.markdown(item)}" for item in marked]
    if items:
        yield from _headed(title, items)


def _unseen(gaps: Sequence[Gap]) -> Iterator[str]:
    yield from _items("Not seen", (answer.unseen(gap) for gap in gaps if gap.hides))
    yield from _items("Notes", (answer.unseen(gap) for gap in gaps if not gap.hides))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{' --- |' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(map(escape.markdown, row))} |"


def _why(findings: Sequence[Finding]) -> Iterator[str]:
    if findings:
        yield from _headed("Why", (line for finding in findings for line in _finding(finding)))


def _finding(finding: Finding) -> Iterator[str]:
    yield f"- **{escape.markdown(answer.claim(finding))}**"
    for sentence in finding.detail:
        yield f"  {escape.markdown(sentence)}"


def _what_to_do(remedies: Sequence[Remedy]) -> Iterator[str]:
    if remedies:
        yield from _headed(
            "What to do", (line for at, remedy in enumerate(remedies, 1) for line in _remedy(at, remedy))
        )


def _remedy(number: int, remedy: Remedy) -> Iterator[str]:
    indent = " " * len(f"{number}. ")
    yield f"{number}. **{escape.markdown(remedy.title)}**"
    for label, said in (("Amount", remedy.amount), ("Cost", remedy.cost)):
        if said is not None:
            yield f"{indent}- {label}: {escape.markdown(said)}"
    if remedy.commands:
        if answer.for_root(remedy):
            yield f"{indent}- As root:"
        yield ""
        yield from (f"{indent}{line}" for line in escape.fence(map(escape.shell, remedy.commands), "sh"))


def _memory(oom: OomReport) -> Iterator[str]:
    parts = sorted(where(oom), key=lambda part: -part[1])
    total = sum(held for _, held in parts)
    rows = [(label, size(held), percent(held, total)) for label, held in parts if held > 0]
    if rows:
        yield from _headed("Where the memory was", _table(("Kind", "Size", "Share"), rows))
    yield from _items("Counters of the group", map(answer.counter, oom.memcg.usages if oom.memcg else ()))


def _processes(oom: OomReport) -> Iterator[str]:
    rows = answer.rows(oom)
    if not rows:
        return
    cells = [
        (
            quote(row.task.comm or "?"),
            str(row.task.pid),
            answer.standing(row),
            "" if row.ram_bytes is None else size(row.ram_bytes),
            "" if row.swap_bytes is None else size(row.swap_bytes),
            "" if row.task.oom_score_adj is None else str(row.task.oom_score_adj),
            "killed" if row.killed else "asked for memory" if row.caller else "",
        )
        for row in rows[:_PROCESSES]
    ]
    more = len(rows) - len(cells)
    title = f"Processes ({more} smaller ones left out)" if more else "Processes"
    yield from _headed(title, _table(("Name", "pid", "oom_score", "RAM", "Swap", "oom_score_adj", ""), cells))


def _zones(oom: OomReport) -> Iterator[str]:
    rows = [
        (
            quote(answer.zone_name(zone)),
            *("" if figure is None else size(figure) for figure in (zone.free_bytes, zone.min_bytes, zone.low_bytes)),
            answer.watermark(zone),
        )
        for zone in (oom.memory.zones if oom.memory else ())
        if zone.free_bytes is not None
    ]
    if rows:
        yield from _headed("Zones against their watermarks", _table(("Zone", "Free", "min", "low", ""), rows))

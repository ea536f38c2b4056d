"""Findings → one HTML page: no script, nothing fetched, readable on a phone, in the dark and on paper.

Jinja2 escapes all that is put into the template, and what acts without being markup is made visible first; a name is in
a `bdi` element, so that its direction of writing ends with it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from reprieve.model.finding import Finding, Remedy, quote
from reprieve.model.oom import OomReport, OomSummary, Usage, Zone
from reprieve.model.snapshot import Snapshot
from reprieve.rules.account import where
from reprieve.show import answer, escape
from reprieve.units import percent, size

_WIDE = 1000  # units of a drawing from left to right
_PROCESSES = 25  # in sight; the others are a click away
_HISTORY = 100  # rows: a page is no log
_EVENTS = 12  # of them in sight
_KINDS = 7  # of memory with a colour of its own


@dataclass(frozen=True, slots=True, kw_only=True)
class _Segment:
    """A kind of memory in the stacked bar."""

    label: str
    bytes: int
    share: str
    x: float
    width: float
    colour: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Process:
    """A row of the task dump with the lengths of its bars."""

    row: answer.Row
    ram: float
    swap: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Gauge:
    """A zone: how far its free memory and its watermarks reach."""

    zone: Zone
    name: str
    state: str
    short: bool
    free: float
    marks: tuple[tuple[str, int, float], ...]  # name, bytes, where


@dataclass(frozen=True, slots=True, kw_only=True)
class _View:
    """One event, ready to be drawn."""

    who: str
    limit: str
    now: str
    machine: str | None
    trigger: str | None
    origin: str
    findings: Sequence[Finding]
    remedies: Sequence[Remedy]
    memory: Sequence[_Segment]
    counters: Sequence[Usage]
    processes: Sequence[_Process]
    swapped: bool  # had any process memory in swap?
    scored: bool  # does the report tell what the scores are shares of?
    zones: Sequence[_Gauge]
    oom: OomReport
    cited: frozenset[int]  # lines of the log that a finding shows


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tick:
    """One event on the time line."""

    x: float
    explained: bool


def render(snapshot: Snapshot, findings: Sequence[Finding], *, nothing: str = "") -> str:
    """The page; `nothing` is said where there are no findings."""
    import base64
    import hashlib

    import jinja2
    from markupsafe import Markup

    def finalize(value: object) -> object:
        return escape.visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("reprieve", "show/templates"),
        autoescape=True,
        finalize=finalize,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"parts": escape.parts, "shell": escape.shell, "size": size}
    environment.tests["for_root"] = answer.for_root
    style = environment.get_template("page.css").render()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    others = [finding for finding in findings if finding.oom is None]
    views = [_view(oom, answer.of_event(findings, index), snapshot.history) for index, oom in enumerate(snapshot.ooms)]
    return environment.get_template("page.html").render(
        title=_title(snapshot),
        style=Markup(style),
        style_hash=digest,
        views=views,
        others=others,
        nothing="" if others else nothing,
        other_remedies=answer.remedies(others),
        others_title="How it ended" if snapshot.machine is None and others else _title(snapshot),
        refused=[answer.refused(failure) for failure in snapshot.allocation_failures],
        gaps=[answer.unseen(gap) for gap in snapshot.gaps if gap.hides],
        notes=[answer.unseen(gap) for gap in snapshot.gaps if not gap.hides],
        history=[answer.listed(summary) for summary in snapshot.history[-_HISTORY:]],
        history_length=len(snapshot.history),
        ticks=_ticks(snapshot),
        claim=answer.claim,
        counter=answer.counter,
        place=answer.place,
        quote=quote,
        standing=answer.standing,
        most=_PROCESSES,
        most_events=_EVENTS,
        wide=_WIDE,
    )


def _title(snapshot: Snapshot) -> str:
    if snapshot.machine is not None and not snapshot.ooms:
        return f"What leads to the next kill: {escape.visible(snapshot.machine.hostname or 'this machine')}"
    if len(snapshot.ooms) == 1:
        victim = snapshot.ooms[0].victim
        if victim is not None:
            return f"Out of memory: {escape.plain(answer.process(victim.comm, victim.pid))}"
    return "Out of memory" if len(snapshot.ooms) == 1 else f"Out of memory: {len(snapshot.ooms) or 'no'} events"


def _view(oom: OomReport, findings: Sequence[Finding], history: Sequence[OomSummary]) -> _View:
    processes = _processes(oom)
    return _View(
        who="".join(answer.who(oom, history)),
        limit="".join(answer.limit(oom)),
        now=answer.now(oom, findings),
        machine=answer.machine(oom),
        trigger=answer.trigger(oom),
        origin=answer.origin(oom, history),
        findings=findings,
        remedies=answer.remedies(findings),
        memory=_segments(oom),
        counters=oom.memcg.usages if oom.memcg else (),
        processes=processes,
        swapped=any(process.row.swap_bytes for process in processes),
        scored=any(process.row.score is not None for process in processes),
        zones=[_gauge(zone, zone.free_bytes) for zone in _zones(oom) if zone.free_bytes is not None],
        oom=oom,
        cited=frozenset(line.line for line in answer.evidence(findings) if line.line is not None),
    )


def _segments(oom: OomReport) -> list[_Segment]:
    parts = sorted(((label, held) for label, held in where(oom) if held > 0), key=lambda part: -part[1])
    total = sum(held for _, held in parts)
    segments, x, coloured = [], 0.0, 0
    for label, held in parts:
        if label in ("free", "unaccounted"):
            colour = label
        else:
            colour = f"k{min(coloured, _KINDS)}"
            coloured += 1
        width = _WIDE * held / total
        share = percent(held, total)
        segments.append(_Segment(label=label, bytes=held, share=share, x=x, width=width, colour=colour))
        x += width
    return segments


def _processes(oom: OomReport) -> list[_Process]:
    rows = answer.rows(oom)
    largest = max(((row.ram_bytes or 0) + (row.swap_bytes or 0) for row in rows), default=0) or 1
    return [
        _Process(row=row, ram=_WIDE * (row.ram_bytes or 0) / largest, swap=_WIDE * (row.swap_bytes or 0) / largest)
        for row in rows
    ]


def _zones(oom: OomReport) -> tuple[Zone, ...]:
    return () if oom.memory is None else oom.memory.zones


def _gauge(zone: Zone, free_bytes: int) -> _Gauge:
    printed = (("min", zone.min_bytes), ("low", zone.low_bytes), ("high", zone.high_bytes))
    marks = [(name, mark) for name, mark in printed if mark is not None]
    # Far above its watermarks it does not matter how far: the marks stay apart, the bar runs to the end.
    reach = min(
        max([free_bytes, *(mark for _, mark in marks)]), 3 * max([mark for _, mark in marks], default=free_bytes)
    )
    scale = _WIDE / (1.08 * reach or 1)
    state = answer.watermark(zone)
    return _Gauge(
        zone=zone,
        name=answer.zone_name(zone),
        state=state,
        short=state.startswith("below"),
        free=min(free_bytes * scale, _WIDE),
        marks=tuple((name, mark, mark * scale) for name, mark in marks),
    )


def _ticks(snapshot: Snapshot) -> list[_Tick]:
    """The events on a line of time; in even steps where their times are not told, or not of one clock."""
    history = snapshot.history
    if len(history) < 2:
        return []
    times = _times(history)
    first, length = times[0], times[-1] - times[0]
    explained = {(oom.source, oom.line) for oom in snapshot.ooms}
    return [
        _Tick(
            x=20 + (_WIDE - 40) * (time - first) / length if length else _WIDE / 2,
            explained=(summary.source, summary.line) in explained,
        )
        for summary, time in zip(history, times, strict=True)
    ]


def _times(history: Sequence[OomSummary]) -> list[float]:
    for clock in ([summary.stamp.wall_s for summary in history], [summary.stamp.uptime_s for summary in history]):
        told = [time for time in clock if time is not None]
        if len(told) == len(history) and told == sorted(told):
            return told
    return [float(number) for number in range(len(history))]

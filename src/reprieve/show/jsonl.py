"""Findings and predictions → JSON lines: `--json`. Pure ASCII, so that no name in it moves whoever reads it."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import reprieve.codec as codec
from reprieve.model.finding import Finding, Gap, Remedy
from reprieve.model.machine import Machine
from reprieve.model.oom import OomReport, OomSummary
from reprieve.model.process import Process
from reprieve.model.run import Run
from reprieve.model.snapshot import Snapshot
from reprieve.oom.groups import Room, nearest
from reprieve.oom.living import Prediction, freed_after, freed_bytes, if_nobody, leaves_nobody
from reprieve.rules.account import where
from reprieve.rules.whatif import Cut, Over
from reprieve.show import answer, escape


def render(snapshot: Snapshot, findings: Sequence[Finding], *, verbose: bool = False) -> Iterator[str]:
    """Each event of the snapshot, in its order, then what concerns none of them; `verbose` keeps the log's lines."""
    for index, oom in enumerate(snapshot.ooms):
        yield _line(_event(oom, answer.of_event(findings, index), snapshot.history, verbose=verbose))
    for failure in snapshot.allocation_failures:
        yield _line(codec.Refused(failure=failure if verbose else replace(failure, lines=())))
    for finding in findings:
        if finding.oom is None:
            yield _line(codec.General(finding=_plain(finding)))
    for gap in snapshot.gaps:
        yield _line(codec.Unseen(gap=gap))


def listing(history: Iterable[OomSummary]) -> Iterator[str]:
    """Each event in little."""
    for summary in history:
        yield _line(codec.Listed(summary=summary))


def foretold(steps: Iterable[Prediction], gaps: Sequence[Gap], outlook: codec.Outlook | None = None) -> Iterator[str]:
    """Each kill that would follow, with all who could be chosen; what is so beside; then what could not be seen."""
    for step in steps:
        yield _line(_foretold(step, gaps))
    if outlook is not None:
        yield _line(outlook)
    for gap in gaps:
        yield _line(codec.Unseen(gap=gap))


def outlook(
    machine: Machine,
    steps: Sequence[Prediction],
    *,
    asked: Iterable[Process] = (),
    cuts: Iterable[Cut] = (),
    over: Iterable[Over] = (),
    need_bytes: int | None = None,
    most: int | None = None,
) -> codec.Outlook:
    """What `foretell()` tells in words beside the kills; of the places where memory runs out so many at most."""
    ranks = {candidate.pid: rank for rank, candidate in enumerate(steps[0].choice.ranking, start=1)}
    return codec.Outlook(
        nearest=tuple(map(_left, nearest(machine)[:most])),
        killers=machine.killers,
        grown=tuple(
            codec.Grown(
                pid=cut.process.pid,
                start_ticks=cut.process.start_ticks,
                comm=cut.process.comm,
                asked_bytes=cut.asked_bytes,
                takes=_left(cut.room),
            )
            for cut in cuts
        ),
        lowered=tuple(
            codec.Lowered(
                cgroup=one.group.path, limit_bytes=one.limit_bytes, held_bytes=one.held_bytes, refused=one.refused
            )
            for one in over
        ),
        asked=tuple(
            codec.Turn(pid=one.pid, start_ticks=one.start_ticks, comm=one.comm, rank=ranks.get(one.pid))
            for one in asked
        ),
        need=None if need_bytes is None else _need(steps, need_bytes),
    )


def _left(room: Room) -> codec.Left:
    return codec.Left(
        cgroup=room.path, limit_bytes=room.limit_bytes, left_bytes=room.left_bytes, swap_bytes=room.swap_bytes
    )


def _need(steps: Sequence[Prediction], need_bytes: int) -> codec.Need:
    freed = freed_after(steps)[-1]
    return codec.Need(
        need_bytes=need_bytes,
        freed_bytes=freed,
        kills=sum(bool(step.killed) for step in steps),  # where nobody dies, one step says so
        enough=freed >= need_bytes,
        nobody_left=leaves_nobody(steps[-1]),
    )


def _foretold(step: Prediction, gaps: Iterable[Gap]) -> codec.Foretold:
    processes = [(candidate, step.processes[candidate.pid]) for candidate in step.choice.ranking]
    return codec.Foretold(
        cgroup=step.domain.cgroup,
        nodes=tuple(sorted(step.domain.nodes or ())),
        kept_by=None if step.domain.nodes is None else "policy" if step.domain.by_policy else "cpuset",
        total_pages=step.domain.total_pages,
        page_bytes=step.domain.page_bytes,
        instead=step.instead,
        if_nobody=if_nobody(step, gaps),
        group=step.group,
        killed=tuple(process.pid for process in step.killed),
        freed_bytes=step.freed_bytes,
        stopped=tuple(process.pid for process in step.stopped),
        stopped_bytes=step.stopped_bytes,
        uncounted=step.uncounted,
        margin_pages=step.margin_pages,
        ranking=tuple(
            codec.Ranked(
                pid=process.pid,
                start_ticks=process.start_ticks,
                comm=process.comm,
                cgroup=process.cgroup,
                points=step.choice.points(candidate),
                held_pages=candidate.pages,
                oom_score_adj=candidate.adj,
                freed_bytes=freed_bytes(process),
            )
            for candidate, process in processes
        ),
    )


def ran(run: Run) -> str:
    """What became of a command."""
    return _line(codec.Ran(run=run))


def end(*, events: int, exit_status: int, not_asked_for: int | None = None) -> str:
    """The last line of every output; where events are asked for it tells how many others were found."""
    if not_asked_for is None:
        return _line(codec.End(events=events, exit_status=exit_status))
    return _line(codec.End(events=events, not_asked_for=not_asked_for, exit_status=exit_status))


def _line(line: codec.Line) -> str:
    return escape.json_line(codec.encode(line))


def _event(oom: OomReport, findings: Sequence[Finding], history: Sequence[OomSummary], *, verbose: bool) -> codec.Event:
    return codec.Event(
        who=escape.plain("".join(answer.who(oom, history))),
        limit=escape.plain("".join(answer.limit(oom))),
        what_now=escape.plain(answer.now(oom, findings)),
        memory=tuple(codec.Part(kind=label, bytes=held) for label, held in where(oom)),
        findings=tuple(map(_plain, findings)),
        report=oom if verbose else replace(oom, lines=()),
    )


def _plain(finding: Finding) -> Finding:
    """The finding with its sentences as a terminal shows them; `oom` counts in a snapshot that no reader has."""
    return replace(
        finding,
        claim=escape.plain(finding.claim),
        detail=tuple(map(escape.plain, finding.detail)),
        remedies=tuple(map(_plain_remedy, finding.remedies)),
        oom=None,
    )


def _plain_remedy(remedy: Remedy) -> Remedy:
    return replace(
        remedy,
        title=escape.plain(remedy.title),
        cost=None if remedy.cost is None else escape.plain(remedy.cost),
        amount=None if remedy.amount is None else escape.plain(remedy.amount),
    )

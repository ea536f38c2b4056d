"""Findings and predictions → JSON lines: `--json`. Pure ASCII, so that no name in it moves whoever reads it."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import reprieve.codec as codec
from reprieve.model.finding import Finding, Gap, Remedy
from reprieve.model.oom import OomReport, OomSummary
from reprieve.model.run import Run
from reprieve.model.snapshot import Snapshot
from reprieve.oom.living import Prediction, freed_bytes
from reprieve.rules.account import where
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


def foretold(steps: Iterable[Prediction], gaps: Iterable[Gap]) -> Iterator[str]:
    """Each kill that would follow, with all who could be chosen; then what could not be seen."""
    for step in steps:
        yield _line(_foretold(step))
    for gap in gaps:
        yield _line(codec.Unseen(gap=gap))


def _foretold(step: Prediction) -> codec.Foretold:
    processes = [(candidate, step.processes[candidate.pid]) for candidate in step.choice.ranking]
    return codec.Foretold(
        cgroup=step.domain.cgroup,
        nodes=tuple(sorted(step.domain.nodes or ())),
        total_pages=step.domain.total_pages,
        page_bytes=step.domain.page_bytes,
        instead=step.instead,
        group=step.group,
        killed=tuple(process.pid for process in step.killed),
        freed_bytes=step.freed_bytes,
        stopped=tuple(process.pid for process in step.stopped),
        uncounted=step.uncounted,
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


def end(*, events: int, exit_status: int) -> str:
    """The last line of every output."""
    return _line(codec.End(events=events, exit_status=exit_status))


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

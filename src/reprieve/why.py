"""`reprieve why`: sources in, explanations out. What was killed is read once; how it is told is chosen here."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from reprieve.machine.events import HISTORY, Told, stream, tell
from reprieve.machine.host import Identity, become_expendable, identify
from reprieve.machine.source import Block, Source
from reprieve.model.finding import Failure, Finding, Gap
from reprieve.model.oom import OomReport, OomSummary
from reprieve.model.snapshot import Snapshot
from reprieve.rules import diagnose

FOUND, INCOMPLETE = 3, 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What was asked for, as on the command line."""

    sources: tuple[str, ...] = ()
    verbose: bool = False
    every: bool = False
    last: int | None = None
    listed: bool = False
    since: float | None = None
    until: float | None = None
    pid: int | None = None
    name: str | None = None
    cgroup: str | None = None
    boot: str | None = None
    follow: bool = False
    as_json: bool = False
    markdown: bool = False
    html: str | None = None
    redact: bool = False
    fail_on_kill: bool = False
    pager: bool = True


def perform(request: Request) -> int:
    """Do what was asked; the exit status. Raises Failure."""
    become_expendable()
    identity = identify()
    if request.follow:
        return _follow(request, identity)
    sources, gaps = _sources(request, identity)
    wanted = _wanted(request, identity)
    if request.every:
        return _tell_all(request, sources, wanted, gaps)
    told = tell(sources, wanted, 0 if request.listed else request.last or 1, gaps)
    if request.listed:
        _print(request, _listing(request, [summary for summary in told.history if wanted(summary)]), told.gaps)
    else:
        snapshot = _snapshot(request, told)
        _print(request, _explanation(request, snapshot, diagnose(snapshot)), ())
    return _status(request, any(map(wanted, told.history)), told.gaps)


def explain_code(code: str) -> str:
    """What a finding of this code means: the docstring of its rule. Raises Failure if there is none."""
    import inspect

    from reprieve.rules import RULES

    pages = {rule.__name__.replace("_", "-"): inspect.getdoc(rule) or "" for rule in RULES}
    if code not in pages:
        raise Failure(f"no finding has the code {code!r}", hint=f"there are: {', '.join(pages)}")
    return f"{code}\n\n{pages[code]}"


def _sources(request: Request, identity: Identity) -> tuple[list[Source], list[Gap]]:
    from reprieve.machine.log import named, of_this_machine

    if not request.sources and not sys.stdin.isatty() and _is_piped():
        sources, gaps = named(("-",), identity)
    elif request.sources:
        sources, gaps = named(request.sources, identity)
    else:
        sources, gaps = of_this_machine(identity)
    if sys.stderr.isatty():
        sources = [replace(source, blocks=_with_progress(source)) for source in sources]
    return sources, gaps


def _is_piped() -> bool:
    """`dmesg | reprieve why` means the pipe; under cron or ssh without a terminal, standard input is not one."""
    import stat

    try:
        return stat.S_ISFIFO(os.fstat(0).st_mode)
    except OSError:  # closed
        return False


def _with_progress(source: Source) -> Callable[[list[Gap]], Iterator[Block]]:
    """The same blocks; what takes longer than a second says how far it is, on a line that goes away."""
    from time import monotonic

    def blocks(gaps: list[Gap]) -> Iterator[Block]:
        begun = shown = monotonic()
        read = 0
        for block in source.blocks(gaps):
            yield block
            read += len(block)
            if monotonic() - shown > 0.2 and monotonic() - begun > 1:
                shown = monotonic()
                print(f"\r{source.name[:60]}: {read >> 20} MiB read\x1b[K", end="", file=sys.stderr, flush=True)
        if shown != begun:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    return blocks


def _wanted(request: Request, identity: Identity) -> Callable[[OomSummary], bool]:
    """Which events were asked for. One that cannot be dated is never left out by a date."""
    from reprieve.machine.clock import moment_of

    def wanted(summary: OomSummary) -> bool:
        if request.since is not None or request.until is not None:
            moment = moment_of(summary.stamp)
            if moment is not None and not (request.since or 0) <= moment <= (request.until or float("inf")):
                return False
        if request.pid is not None and all(pid != request.pid for pid, _ in summary.victims):
            return False
        if request.name is not None and all(request.name not in (comm or "") for _, comm in summary.victims):
            return False
        if request.cgroup is not None:
            groups = [group for group in (summary.workload, summary.limit_of) if group is not None]
            if not any(request.cgroup in text for group in groups for text in (group.path, group.name)):
                return False
        return request.boot is None or _is_of_boot(summary, request.boot, identity)

    return wanted


def _is_of_boot(summary: OomSummary, boot: str, identity: Identity) -> bool:
    if boot == "0":
        return summary.boot_id is not None and summary.boot_id == identity.boot_id
    if boot.startswith("-"):
        return f"(boot {boot})" in summary.source
    return summary.boot_id is not None and summary.boot_id.startswith(boot.replace("-", ""))


def _snapshot(request: Request, told: Told) -> Snapshot:
    snapshot = Snapshot(
        ooms=told.ooms,
        history=told.history[-HISTORY:],
        allocation_failures=told.allocation_failures,
        gaps=told.gaps,
    )
    if request.redact:
        from reprieve.show.redact import redact

        return redact(snapshot)
    return snapshot


def _explanation(request: Request, snapshot: Snapshot, findings: Sequence[Finding]) -> Iterator[str]:
    if request.html is not None:
        from reprieve.show import page

        _write(request.html, page.render(snapshot, findings))
        yield f"written: {request.html}"
    elif request.as_json:
        from reprieve.show import jsonl

        yield from jsonl.render(snapshot, findings)
    elif request.markdown:
        from reprieve.show import markdown

        yield from markdown.render(snapshot, findings)
    else:
        from reprieve.show import text

        if not snapshot.ooms and not snapshot.allocation_failures:
            yield "No OOM kill in what could be read."
        yield from text.explain(snapshot, findings, width=width(), colour=colour(), verbose=request.verbose)


def _tell_all(request: Request, sources: list[Source], wanted: Callable[[OomSummary], bool], gaps: list[Gap]) -> int:
    found = False

    def lines() -> Iterator[str]:
        nonlocal found
        for event, history in stream(sources, wanted, gaps):
            found = found or isinstance(event, OomReport)
            told = Told(
                ooms=(event,) if isinstance(event, OomReport) else (),
                history=tuple(history),
                allocation_failures=() if isinstance(event, OomReport) else (event,),
                gaps=(),
            )
            snapshot = _snapshot(request, told)
            yield from _explanation(request, snapshot, diagnose(snapshot))
            if not request.as_json:
                yield ""
        yield from _explanation(request, Snapshot(gaps=tuple(gaps)), ()) if gaps else ()

    _print(request, lines(), ())
    return _status(request, found, gaps)


def _listing(request: Request, history: Sequence[OomSummary]) -> Iterator[str]:
    if request.as_json:
        from reprieve.show import jsonl

        return jsonl.listing(history)
    from reprieve.show import text

    return text.listing(history, width=width(), colour=colour())


def _print(request: Request, lines: Iterable[str], gaps: Iterable[Gap]) -> None:
    long = request.verbose or request.every or request.listed or (request.last or 1) > 1
    with_ends = (f"{line}\n" for line in lines)
    if request.pager and long and sys.stdout.isatty() and not request.as_json:
        import click

        os.environ.setdefault("LESS", "FRX")  # as git has it: no pager for what fits, colours kept
        click.echo_via_pager(with_ends, color=colour())
    else:
        sys.stdout.writelines(with_ends)
    for gap in gaps:
        print(f"reprieve: {gap.place}: {gap.reason}" + (f" ({gap.hint})" if gap.hint else ""), file=sys.stderr)


def _write(path: str, text: str) -> None:
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}", hint="name a file that can be written") from error


def width() -> int:
    """Columns of the terminal, between 40 and 120; 80 without one."""
    import shutil

    return max(40, min(shutil.get_terminal_size((80, 24)).columns, 120))


def colour() -> bool:
    """Are colours welcome? See https://no-color.org."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _status(request: Request, found: bool, gaps: Sequence[Gap]) -> int:
    if found and request.fail_on_kill:
        return FOUND
    return INCOMPLETE if gaps else 0


def _follow(request: Request, identity: Identity) -> int:
    raise NotImplementedError

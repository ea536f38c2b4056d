"""`reprieve why`: sources in, explanations out. What was killed is read once; how it is told is chosen here."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import NamedTuple

from reprieve.machine.events import HISTORY, stream, tell, watch
from reprieve.machine.host import Identity, become_expendable, identify, room_for_a_process
from reprieve.machine.reader import Event
from reprieve.machine.source import Block, Source, shown
from reprieve.model.ending import Ending
from reprieve.model.finding import Failure, Gap
from reprieve.model.oom import AllocationFailure, OomReport, OomSummary
from reprieve.model.snapshot import Snapshot
from reprieve.rules import diagnose

FOUND, INCOMPLETE = 3, 5


class Request(NamedTuple):
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
    wanted, hide = _wanted(request, identity), _hiding(request)
    if request.follow:
        return _follow(request, identity, wanted, hide)
    sources, gaps = _sources(request, identity)
    if request.every and request.html is None and not request.listed:
        return _tell_all(request, sources, wanted, hide, gaps)
    most = 0 if request.listed else sys.maxsize if request.every else request.last or 1
    told = tell(sources, wanted, most, gaps, ended=request.last is None and not request.every)
    found = [summary for summary in told.history if wanted(summary)]
    snapshot = hide(
        replace(
            told,
            history=tuple(found) if request.listed else told.history[-HISTORY:],
            endings=tuple(filter(_wanted_ending(request), told.endings)),
        )
    )
    proven = any(ending.oom_killed for ending in snapshot.endings)
    status = _status(request, bool(found) or proven, told.gaps)
    if request.listed:
        lines = _listing(request, snapshot)
    elif snapshot.ooms or proven:
        lines = _explanation(request, snapshot)
    else:
        lines = chain(_nothing(request, told, sources), _explanation(request, snapshot))
    _print(request, chain(lines, _end(request, len(found), status)))
    return status


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

    if not request.sources and (piped := _piped_in()) is not None:
        sources, gaps = [piped], list[Gap]()
    elif request.sources:
        sources, gaps = named(request.sources, identity)
        sources = [
            source._replace(blocks=_or_empty(source)) if source.name == "stdin" else source for source in sources
        ]
    else:
        sources, gaps = of_this_machine(identity)
    if os.isatty(2):
        sources = [source._replace(blocks=_with_progress(source)) for source in sources]
    return sources, gaps


def _is_given() -> bool:
    """`dmesg | reprieve why` and `reprieve why < kern.log` mean what they say.

    A socket does not: `ssh host reprieve why` has one, and nobody would write to it.
    """
    import stat

    try:
        mode = os.fstat(0).st_mode
    except OSError:  # closed
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode)


def _piped_in() -> Source | None:
    """Standard input that nobody named, if anything is in it: cron and runners give an empty pipe."""
    if not _is_given():
        return None
    from reprieve.machine.source import stdin_source

    source = stdin_source()
    unseen: list[Gap] = []
    rest = source.blocks(unseen)
    first = next(rest, None)
    if first is None and not unseen:
        return None

    def blocks(gaps: list[Gap]) -> Iterator[Block]:
        yield from chain(() if first is None else (first,), rest)
        gaps += unseen

    return source._replace(blocks=blocks)


def _or_empty(source: Source) -> Callable[[list[Gap]], Iterator[Block]]:
    """The same blocks; that there was none is told: what should have written there may have failed."""

    def blocks(gaps: list[Gap]) -> Iterator[Block]:
        empty, gaps_before = True, len(gaps)
        for block in source.blocks(gaps):
            empty = False
            yield block
        if empty and len(gaps) == gaps_before:
            gaps.append(Gap(place=source.name, reason="is empty", hint="without a SOURCE this machine is looked at"))

    return blocks


def _with_progress(source: Source) -> Callable[[list[Gap]], Iterator[Block]]:
    """The same blocks; what takes longer than a second says how far it is, on a line that goes away."""
    from time import monotonic

    from reprieve.show.escape import visible

    name = visible(source.name[:60])

    def blocks(gaps: list[Gap]) -> Iterator[Block]:
        begun = shown = monotonic()
        read = 0
        for block in source.blocks(gaps):
            yield block
            read += len(block)
            if monotonic() - shown > 0.2 and monotonic() - begun > 1:
                shown = monotonic()
                print(f"\r{name}: {read >> 20} MiB read\x1b[K", end="", file=sys.stderr, flush=True)
        if shown != begun:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    return blocks


def _wanted(request: Request, identity: Identity) -> Callable[[OomSummary], bool]:
    """Which events were asked for. One that cannot be dated is never left out by a date."""

    def wanted(summary: OomSummary) -> bool:
        if request.since is not None or request.until is not None:
            from reprieve.machine.clock import moment_of

            this_boot = summary.boot_id is not None and summary.boot_id == identity.boot_id
            moment = moment_of(summary.stamp, this_boot=this_boot)
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


def _wanted_ending(request: Request) -> Callable[[Ending], bool]:
    """Which pasted statuses were asked for. None of them tells a pid, a boot, or the name of a process."""

    def wanted(ending: Ending) -> bool:
        if (request.pid, request.name, request.boot) != (None, None, None):
            return False
        if ending.finished is not None and (request.since is not None or request.until is not None):
            from reprieve.machine.clock import moment_of

            moment = moment_of(ending.finished)
            if moment is not None and not (request.since or 0) <= moment <= (request.until or float("inf")):
                return False
        names = (ending.name, ending.container_id, ending.pod, ending.pod_uid)
        return request.cgroup is None or any(request.cgroup in name for name in names if name is not None)

    return wanted


def _hiding(request: Request) -> Callable[[Snapshot], Snapshot]:
    """What takes the owner's names out of a snapshot, the same pseudonym for the same name throughout."""
    if not request.redact:
        return lambda snapshot: snapshot
    from reprieve.show.redact import Names, redact

    names = Names()
    return lambda snapshot: redact(snapshot, names)


def _explanation(request: Request, snapshot: Snapshot) -> Iterator[str]:
    findings = diagnose(snapshot)
    if request.html is not None:
        from reprieve.show import page

        _write(request.html, page.render(snapshot, findings))
        yield f"written: {request.html}"
    elif request.as_json:
        from reprieve.show import jsonl

        yield from jsonl.render(snapshot, findings, verbose=request.verbose)
    elif request.markdown:
        from reprieve.show import markdown

        yield from markdown.render(snapshot, findings)
    else:
        from reprieve.show import text

        yield from text.explain(
            snapshot,
            findings,
            width=width(),
            colour=colour(),
            verbose=request.verbose,
            hints=not (request.every or request.follow),
        )


def _nothing(request: Request, told: Snapshot, sources: Sequence[Source]) -> Iterator[str]:
    """The answer where no kill is to be explained: that it is so, and where it was looked."""
    if request.as_json:
        return
    if told.history:
        yield f"None of the {len(told.history)} events found is one that was asked for; --list shows them."
    elif request.redact:
        yield "No OOM kill by the kernel in what could be read."
    else:
        from reprieve.show.escape import name

        yield f"No OOM kill by the kernel in {', '.join(name(source.name) for source in sources)}."


def _end(request: Request, events: int, status: int) -> Iterator[str]:
    if request.as_json:
        from reprieve.show import jsonl

        yield jsonl.end(events=events, exit_status=status)


def _tell_all(
    request: Request,
    sources: list[Source],
    wanted: Callable[[OomSummary], bool],
    hide: Callable[[Snapshot], Snapshot],
    gaps: list[Gap],
) -> int:
    events = 0
    proven = False

    def lines() -> Iterator[str]:
        nonlocal events, proven
        wanted_ending = _wanted_ending(request)
        for event, history in stream(sources, wanted, gaps):
            if isinstance(event, Ending) and not wanted_ending(event):
                continue
            events += isinstance(event, OomReport)
            proven = proven or isinstance(event, OomReport) or (isinstance(event, Ending) and event.oom_killed is True)
            yield from _explained(request, event, history, hide)
        if not events and not proven and not request.as_json:
            yield "No OOM kill by the kernel in what could be read, or none that was asked for."
        yield from _explanation(request, hide(Snapshot(gaps=tuple(gaps))))
        yield from _end(request, events, _status(request, proven, gaps))

    _print(request, lines())
    return _status(request, proven, gaps)


def _explained(
    request: Request, event: Event, history: Iterable[OomSummary], hide: Callable[[Snapshot], Snapshot]
) -> Iterator[str]:
    """One event of a stream, explained, and a blank line where people read it."""
    snapshot = Snapshot(
        ooms=(event,) if isinstance(event, OomReport) else (),
        history=tuple(history),
        allocation_failures=(event,) if isinstance(event, AllocationFailure) else (),
        endings=(event,) if isinstance(event, Ending) else (),
    )
    yield from _explanation(request, hide(snapshot))
    if not request.as_json:
        yield ""


def _follow(
    request: Request,
    identity: Identity,
    wanted: Callable[[OomSummary], bool],
    hide: Callable[[Snapshot], Snapshot],
) -> int:
    """Explain each kill when it happens, until the pipe ends, the reader leaves, or Ctrl-C."""
    from reprieve.machine.follow import follow

    if len(request.sources) > 1:
        raise Failure("--follow reads one source", hint="start one for each")
    path = request.sources[0] if request.sources else "-" if _is_given() else None
    kernel = path in (None, "/dev/kmsg")
    name = "kernel log" if path is None else "stdin" if path == "-" else shown(path)  # its buffer, else the journal
    gaps: list[Gap] = []
    if os.isatty(2):
        print("Waiting for kills; Ctrl-C ends it.", file=sys.stderr)
    events = shown_gaps = 0
    # A pipe is read from its start; of what grows, lines are counted from those that are new.
    source = name if path == "-" else f"{name} (new lines)"
    arriving = watch(follow(path, gaps), source, wanted, gaps, identity.boot_id if kernel else None)
    for happened in arriving:
        lines: Iterable[str] = ()
        if happened is not None:
            event, history = happened
            events += isinstance(event, OomReport)
            lines = _explained(request, event, history, hide)
        unseen, shown_gaps = gaps[shown_gaps:], len(gaps)
        if unseen:
            lines = chain(lines, _explanation(request, hide(Snapshot(gaps=tuple(unseen)))))
        if not _print(request, lines):
            break
    status = _status(request, events > 0, gaps)
    _print(
        request,
        chain(_explanation(request, hide(Snapshot(gaps=tuple(gaps[shown_gaps:])))), _end(request, events, status)),
    )
    return status


def _listing(request: Request, snapshot: Snapshot) -> Iterator[str]:
    if request.as_json:
        from reprieve.show import jsonl

        yield from jsonl.listing(snapshot.history)
    elif request.markdown:
        from reprieve.show import markdown

        yield from markdown.listing(snapshot.history)
    else:
        from reprieve.show import text

        yield from text.listing(snapshot.history, width=width(), colour=colour())
    yield from _explanation(request, Snapshot(endings=snapshot.endings, gaps=snapshot.gaps if request.as_json else ()))
    if snapshot.gaps and not request.as_json:  # a list is for pipes: nothing but events in it
        from reprieve.show.escape import visible

        for gap in snapshot.gaps:
            hint = f" ({gap.hint})" if gap.hint else ""
            print(visible(f"reprieve: {gap.place}: {gap.reason}{hint}"), file=sys.stderr)


def _print(request: Request, lines: Iterable[str]) -> bool:
    """Write the lines; False if the reader has left: `| head` has seen enough."""
    long = request.verbose or request.every or request.listed or (request.last or 1) > 1
    paged = request.pager and long and sys.stdout.isatty() and not (request.as_json or request.follow)
    with_ends = (f"{line}\n" for line in lines)
    if paged and room_for_a_process():
        import click

        os.environ.setdefault("LESS", "FRX")  # as git has it: no pager for what fits, colours kept
        click.echo_via_pager(with_ends, color=colour())
        return True
    try:
        sys.stdout.writelines(with_ends)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is still in the buffer goes there at the end
        return False
    return True


def _write(path: str, text: str) -> None:
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}", hint="name a file that can be written") from error


def width() -> int:
    """Columns of the terminal, between 60 and 120; 80 without one."""
    told = os.environ.get("COLUMNS", "")  # as shutil.get_terminal_size() has it, whose module loads three decompressors
    if told.isdecimal() and int(told):
        columns = int(told)
    else:
        try:
            columns = os.get_terminal_size(1).columns or 80
        except OSError:
            columns = 80
    return max(60, min(columns, 120))  # below that figures do not fit beside their names


def colour() -> bool:
    """Are colours welcome? See https://no-color.org."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _status(request: Request, found: bool, gaps: Sequence[Gap]) -> int:
    if found and request.fail_on_kill:
        return FOUND
    return INCOMPLETE if gaps else 0

"""`reprieve why`: sources in, explanations out. What was killed is read once; how it is told is chosen here."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import NamedTuple

from reprieve.machine.events import HISTORY, Known, Wanted, gone_groups, logs_among, retell, stream, tell, watch
from reprieve.machine.host import Identity, become_expendable, identify, room_for_a_process
from reprieve.machine.reader import NO_LOGS, Event, names_a_kill
from reprieve.machine.source import NOTHING_READ, Block, Source, shown
from reprieve.model.ending import Ending
from reprieve.model.finding import Failure, Gap, quote
from reprieve.model.oom import AllocationFailure, OomReport, OomSummary
from reprieve.model.snapshot import Snapshot
from reprieve.oom.counted import is_count, is_lost
from reprieve.output import FOUND, INCOMPLETE, colour, columns, print_lines, width, write
from reprieve.request import (
    Request,
    as_lost,
    count_undated,
    dated,
    is_given,
    is_of_this_machine,
    undated_gap,
    unmapped_gap,
    wanted_by,
)
from reprieve.rules import diagnose, diagnose_each

_STATUSES = 5  # that are told one by one where nothing else is

TYPE_CHECKING = False
if TYPE_CHECKING:
    from reprieve.machine.engine import Ear
    from reprieve.model.change import OurLimit


def perform(request: Request) -> int:
    """Do what was asked; the exit status. Raises Failure."""
    become_expendable()
    if sys.platform == "win32":
        _refuse_living(request)
    request = _of_captured(_named(request))
    identity = identify()
    kept = None if request.origin is None else _load(request.origin)
    taken_of = kept.machine if kept is not None else identity
    present_boot = taken_of.boot_id if taken_of is not None else None
    wanted, hide = wanted_by(request, identity, present_boot), _hiding(request)
    if request.follow:
        return _follow(request, identity, wanted, hide)
    most = 0 if request.listed else sys.maxsize if request.every else request.last or 1
    ended = request.last is None and not request.every
    if kept is not None:
        places: tuple[str, ...] = ("stdin" if request.origin == "-" else shown(request.origin or ""),)
        told = retell(kept, wanted, most, places[0], ended=ended)
    else:
        sources, gaps = _sources(request, identity)
        if request.every and request.html is None and not request.listed:
            return _tell_all(request, identity, sources, wanted, hide, gaps)
        places = _places(sources)
        told = tell(sources, wanted, most, gaps, ended=ended, of_named=request.containers)
    if told.history or request.boot not in (None, "0"):  # else how often the kernel has killed says more
        told = replace(told, gaps=tuple(gap for gap in told.gaps if not is_count(gap)))
    told = replace(told, gaps=_as_lost(request, told, kept, identity))
    found = [summary for summary in told.history if wanted(summary)]
    answered = replace(
        told,
        history=tuple(found[-(request.last or 0) :]) if request.listed else told.history[-HISTORY:],
        endings=tuple(filter(wanted, told.endings)),
    )
    if kept is None:
        answered = replace(
            answered,
            ooms=tuple(dated(request, oom, identity) for oom in answered.ooms),
            history=tuple(dated(request, summary, identity) for summary in answered.history),
            gone_groups=gone_groups(answered.ooms, identity.boot_id),
            our_limits=_ours(answered.ooms, identity.boot_id),
        )
    snapshot = hide(answered)
    undated = count_undated(request, chain(found, told.allocation_failures, answered.endings), identity)
    snapshot = replace(
        snapshot, gaps=(*snapshot.gaps, *undated_gap(request, undated), *unmapped_gap(request, bool(found)))
    )
    proven = any(ending.oom_killed for ending in snapshot.endings)
    status = _status(request, any(map(_is_kill, found)) or proven, told.gaps)
    doubt: Iterable[str] = ()
    others = _of_others(told, snapshot)
    if snapshot.ooms and not (request.listed or request.as_json or request.markdown or request.html):
        doubt, snapshot = _doubt(snapshot, others)
    elif others is not None:
        note = Gap(place="status", reason=f"{others.kills} those whose status was given{others.so}", hides=False)
        snapshot = replace(snapshot, gaps=(*snapshot.gaps, note))
    if request.listed:
        if not (found or snapshot.endings or request.as_json):  # nothing in a pipe, and a word for who looks
            print(f"reprieve: {_none(request, told, places)}", file=sys.stderr)
            snapshot = replace(snapshot, gaps=tuple(gap for gap in snapshot.gaps if not is_count(gap)))
        lines = _listing(request, snapshot)
    elif snapshot.ooms or proven:
        lines = chain(doubt, _explanation(request, snapshot))
    else:
        said = (_no_kill(request, told, snapshot.endings, places), *_standing(request, told, snapshot.endings))
        if not (request.as_json or request.html):  # there it is told as a note
            snapshot = replace(snapshot, gaps=tuple(gap for gap in snapshot.gaps if not is_count(gap)))
        lines = chain(_nothing(request, said), _explanation(request, snapshot, nothing=" ".join(said)))
    _print(request, chain(lines, _end(request, len(found), len(told.history) - len(found), status)))
    return status


def _as_lost(request: Request, told: Snapshot, kept: Snapshot | None, identity: Identity) -> tuple[Gap, ...]:
    """What is said of kills whose lines are overwritten, as far as they can be what was asked for."""
    if not any(map(is_lost, told.gaps)):
        return told.gaps
    machine = None if kept is None else kept.machine
    if kept is None:
        from time import CLOCK_BOOTTIME, clock_gettime, time

        boot_id, booted_s = identity.boot_id, time() - clock_gettime(CLOCK_BOOTTIME)
    elif machine is not None and machine.taken_wall_s is not None and machine.taken_uptime_s is not None:
        boot_id, booted_s = machine.boot_id, machine.taken_wall_s - machine.taken_uptime_s
    else:
        return told.gaps
    uptimes = (one.stamp.uptime_s for one in told.history if one.boot_id is not None and one.boot_id == boot_id)
    told_s = [booted_s + uptime_s for uptime_s in uptimes if uptime_s is not None]
    return as_lost(request, told.gaps, booted_s, told_s)


def _ours(ooms: Sequence[OomReport], boot_id: str | None) -> "tuple[OurLimit, ...]":
    """The limits of these events that a change of ours has set."""
    if all(oom.boot_id is None or oom.boot_id != boot_id for oom in ooms):
        return ()
    from reprieve.ours import our_limits  # loads what keeps changes

    return our_limits(ooms, boot_id)


def _refuse_living(request: Request) -> None:
    """On Windows there is no kernel to ask, nor what runs under one, nor a watch on a file. Raises Failure."""
    hint = "name a log of a Linux machine: reprieve why FILE"
    if is_of_this_machine(request):
        raise Failure("this is Windows: no kernel here has a log of OOM kills", hint=hint)
    if request.follow:
        raise Failure("--follow is not there on Windows", hint=hint)


def _named(request: Request) -> Request:
    """The same; what a SOURCE as `pid:1234` or `unit:nginx` asks for is asked for. Raises Failure."""
    from reprieve.machine.asked import (
        KILLED,
        is_asked_for,
        is_container,
        living_name,
        pid_of,
        refuse_other_statuses,
        unit_of,
    )

    refuse_other_statuses(request.sources)
    words = [word for word in request.sources if is_asked_for(word)]
    if not words:
        return request
    if request.follow:
        raise Failure("--follow reads a log as it grows", hint="reprieve why --follow tells of all kills")
    pids = [pid for word in words if (pid := pid_of(word)) is not None]
    if pids and len(request.sources) > 1:
        raise Failure("a pid is looked for in this machine's own logs, by itself", hint=f"reprieve why {words[0]}")
    if pids:
        name = living_name(pids[0])
        if name is not None:
            from reprieve.show import escape

            known = "" if request.redact else f", as {escape.name(name)}"
            said = (
                f"reprieve: process {pids[0]} lives{known}: it was not killed; what may be told is of another with it"
            )
            print(said, file=sys.stderr)
            print("  reprieve next tells whom the kernel would kill", file=sys.stderr)
        every = request.last is None and not request.listed
        return request._replace(pid=pids[0], boot=request.boot or "0", every=every)  # a pid comes again, in each boot
    if KILLED in words and len(request.sources) > 1:
        raise Failure(f"{KILLED} is asked for by itself", hint=f"reprieve why {KILLED}")
    containers = any(map(is_container, words))
    if containers and not all(map(is_container, words)):
        raise Failure("units and containers are asked for apart", hint=f"reprieve why {words[0]}")
    units = tuple(unit for word in words if (unit := unit_of(word)) is not None)
    return request._replace(units=units, containers=containers)


def explain_code(code: str) -> str:
    """What a finding of this code means: the docstring of its rule. Raises Failure if there is none."""
    import inspect

    from reprieve.rules import RULES
    from reprieve.rules.living import LIVING, code_of

    pages = {code_of(rule): inspect.getdoc(rule) or "" for rule in (*RULES, *LIVING)}
    if code not in pages:
        from difflib import get_close_matches

        near = get_close_matches(code, pages, cutoff=0.5) or [one for one in pages if code and code in one] or pages
        raise Failure(f"no finding has the code {code!r}", hint=f"there are {', '.join(near)}")
    return f"{code}\n\n{pages[code]}"


def _load(path: str) -> Snapshot:
    from reprieve.snapshot import dated_by_machine, load

    return dated_by_machine(load(path))


def _of_captured(request: Request) -> Request:
    """The same; a captured machine that --from names, a sosreport or a root, is a source as any other."""
    if request.origin is None or request.origin == "-":
        return request
    from reprieve.machine.unpack import is_archive

    origin, logs = request.origin, None
    if is_archive(origin) or os.path.isdir(os.path.join(origin, "sos_commands")):
        logs = origin
    elif os.path.isdir(origin):
        logs = os.path.join(origin, "var/log")
        if not os.path.isdir(logs):
            hint = "name a folder of logs as a SOURCE"
            raise Failure(f"{shown(origin)} is no root of a captured machine with logs: no var/log is in it", hint=hint)
    return request if logs is None else request._replace(origin=None, sources=(logs,))


def _refuse_snapshots(paths: Iterable[str]) -> None:
    """A snapshot is no log: read as one it would seem to say that nobody was killed. Raises Failure."""
    for path in filter(os.path.isfile, paths):
        try:
            with open(path, "rb") as file:
                start = file.read(256)
        except OSError:  # told where it is read
            continue
        if start.startswith(b"\x1f\x8b"):
            import zlib

            try:
                start = zlib.decompressobj(wbits=31).decompress(start, 32)
            except zlib.error:
                continue
            if start.startswith(b'{"kind":"snapshot"'):
                raise Failure(f"{shown(path)} is a snapshot, and no log", hint="name it with --from")


def _sources(request: Request, identity: Identity) -> tuple[list[Source], list[Gap]]:
    from reprieve.machine.asked import has_status, is_asked_for, meaning, status_of
    from reprieve.machine.log import named, of_this_machine

    asked = [word for word in request.sources if is_asked_for(word)]
    statuses = [status_of(word, identity) for word in asked if has_status(word)]
    away = [status.away for status in statuses if status.away is not None]
    if not is_of_this_machine(request):
        files = tuple(word for word in request.sources if word not in asked)
        _refuse_snapshots(files)
        sources, gaps = named(files or ("-",), identity)
    elif statuses and len(statuses) == sum(gap.hides for gap in away):  # what is logged here is of others
        sources, gaps = [], away
    else:
        sources, gaps = of_this_machine(identity)
        gaps += away
        if request.boot not in (None, "0"):
            from reprieve.machine.journal import lacks_boot

            gaps += (gap for gap in lacks_boot(request.boot) if gap not in gaps)
    sources = [status.source for status in statuses] + sources
    gaps += [told for word in asked if (told := meaning(word)) is not None]
    if os.isatty(2) and sys.platform != "win32":
        sources = [source._replace(blocks=_with_progress(source)) for source in sources]
    return sources, gaps


def _with_progress(source: Source) -> Callable[[list[Gap]], Iterator[Block]]:
    """The same blocks; what takes longer than a second says how far it is, on a line that goes away."""
    from time import monotonic

    from reprieve.show.escape import visible

    name = visible(source.name[:60])

    def blocks(gaps: list[Gap]) -> Iterator[Block]:
        begun = shown = monotonic()
        read = 0
        if source.kind == "pipe":  # whoever is to write there may take long
            shown -= 1
            print(f"{name}: waiting for what is written to it", end="", file=sys.stderr, flush=True)
        for block in source.blocks(gaps):
            yield block
            read += len(block)
            if monotonic() - shown > 0.2 and monotonic() - begun > 1:
                shown = monotonic()
                print(f"\r{name}: {read >> 20} MiB read\x1b[K", end="", file=sys.stderr, flush=True)
        if shown != begun:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    return blocks


def _hiding(request: Request) -> Callable[[Snapshot], Snapshot]:
    """What takes the owner's names out of a snapshot, the same pseudonym for the same name throughout."""
    if not request.redact:
        if request.origin is not None:
            return lambda snapshot: snapshot
        from reprieve.machine.program import gaps_at_hand

        return lambda told: replace(told, gaps=gaps_at_hand(told.gaps)) if told.gaps else told
    from reprieve.show.redact import Names, redact

    names = Names()
    return lambda snapshot: redact(snapshot, names)


def _explanation(request: Request, snapshot: Snapshot, *, nothing: str = "") -> Iterator[str]:
    findings = diagnose(snapshot)
    if request.origin is None and not request.redact:  # else it is for another machine, or another's eyes
        from reprieve.machine.program import findings_at_hand

        findings = findings_at_hand(findings)
    if request.html is not None:
        from reprieve.show import page

        yield write(request.html, page.render(snapshot, findings, nothing=nothing))
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


def _nothing(request: Request, said: Sequence[str]) -> Iterator[str]:
    """The answer where no kill is to be explained: that it is so, and where it was looked."""
    if request.as_json or request.html == "-":
        return
    if request.markdown:
        yield "\n\n".join(said)
        return
    from reprieve.show.text import wrap

    yield from chain.from_iterable(wrap(one, width()) for one in said)


def _no_kill(request: Request, told: Snapshot, endings: Sequence[Ending], places: Sequence[str]) -> str:
    if kills := _kills(told, endings):
        return _none_but_by_list(len(kills))
    looked = (told.logs or ()) if request.origin is None else _looked_into(told, places)
    if not looked:
        return _unknown(request, told.gaps, places)
    where = "what could be read" if request.redact else _names(request, looked)
    if told.endings:  # a manager's words are no log, and its flag may be false though the kernel killed
        return f"Nothing in {where} proves an OOM kill; the kernel log of its host would tell."
    return f"No OOM kill by the kernel in {where}.{_count(request, told.gaps)}"


def _none(request: Request, told: Snapshot, places: Sequence[str]) -> str:
    """Why a list is empty."""
    return _none_of(len(kills)) if (kills := _kills(told, ())) else _no_kill(request, told, (), places)


def _looked_into(kept: Snapshot, places: Sequence[str]) -> Sequence[str]:
    """The snapshot, if a log was read for it. An older one does not tell: if all could be read, some was."""
    read = bool(kept.logs) if kept.logs is not None else not any(gap.hides for gap in kept.gaps)
    return places if read else ()


def _count(request: Request, gaps: Iterable[Gap]) -> str:
    """How often the kernel has killed, behind another sentence; nothing where that was not told."""
    from reprieve.show.escape import markdown, plain

    words = markdown if request.markdown else plain
    return "".join(words(f" {gap.reason[0].upper()}{gap.reason[1:]}.") for gap in gaps if is_count(gap))


def _standing(request: Request, told: Snapshot, endings: Sequence[Ending]) -> Iterator[str]:
    """How those are whose status was given, where no finding tells it: no SIGKILL, and no kubelet's doing."""
    from reprieve.rules.ending import SIGKILL, how, is_of_event_alone, who
    from reprieve.show.escape import markdown, plain

    if _kills(told, endings):
        return
    words = markdown if request.markdown else plain
    others = [one for one in endings if SIGKILL not in (one.signal, (one.exit_code or 0) - 128)]
    others = [one for one in others if one.reason != "Evicted" and not is_of_event_alone(one)]
    for one in others[:_STATUSES]:
        yield words(f"{who(one)}: {how(one)}")
    if more := len(others[_STATUSES:]):
        yield f"and {more} other{'s' if more > 1 else ''}"


class _Others(NamedTuple):
    """That what is told is a kill of others than those whose status was given."""

    kills: str  # "None of the 7 kills read is of"
    whose: str  # "container web of Docker (exited with status 1)"; names are marked
    so: str  # ": what is told here is of another"


def _of_others(told: Snapshot, shown: Snapshot) -> _Others | None:
    """None: it is not so. `shown`: the same as it is shown, perhaps under pseudonyms."""
    statuses = [one for one in shown.endings if one.container_id is not None or one.pod_uid is not None]
    if not shown.ooms or not statuses:
        return None
    from reprieve.oom.same import Statuses
    from reprieve.rules.ending import how, who

    named = Statuses()
    for ending in told.endings:
        named.add(ending)
    if any(map(named.tell_of, told.history)):
        return None
    count = len({one.container_id or (one.pod_uid, one.name) for one in statuses})
    whose = f"{who(statuses[-1])} ({how(statuses[-1])})"
    surely = all(event.workload is not None for event in told.history)
    kills = "The one kill read is not" if len(told.history) == 1 else f"None of the {len(told.history)} kills read is"
    return _Others(
        kills=f"{kills} of" if surely else f"{kills} known to be of",
        whose=whose if count == 1 else f"the {count} containers whose status was given",
        so=f": what is told here {'is' if surely else 'may be'} of another",
    )


def _doubt(snapshot: Snapshot, others: _Others | None) -> tuple[Iterator[str], Snapshot]:
    """What is to be known before a kill is read that may be another than the one meant; and the rest."""
    from reprieve.machine.asked import KILLED
    from reprieve.show.escape import plain
    from reprieve.show.text import wrap

    told = [gap for gap in snapshot.gaps if gap.place == f"exit status {KILLED}"]
    said = [
        plain(f"Nothing ties that {KILLED} to this kill, the newest here: {gap.hint}. It is {gap.reason}.")
        for gap in told
    ]
    if others is not None:
        said.append(plain(f"{others.kills} {others.whose}{others.so}."))
    lines = chain.from_iterable((*wrap(one, width()), "") for one in said)
    return lines, replace(snapshot, gaps=tuple(gap for gap in snapshot.gaps if gap not in told))


def _kills(told: Snapshot, endings: Sequence[Ending]) -> Sequence[OomSummary | Ending]:
    """Those that the kernel's log tells; without one, those of managers where none of the `endings` was asked for."""
    return told.history or [ending for ending in told.endings if ending.oom_killed and not endings]


def _none_of(kills: int) -> str:
    if kills == 1:
        return "The one event found is not what was asked for"
    return f"None of the {kills} events found is what was asked for"


def _none_but_by_list(kills: int) -> str:
    return f"{_none_of(kills)}; --list alone shows {'them' if kills > 1 else 'it'}."


def _unknown(request: Request, gaps: Sequence[Gap], places: Sequence[str]) -> str:
    """Silence of what is no kernel log must not look like health."""
    reasons = {gap.reason for gap in gaps if gap.hides}
    where = "what was given" if request.redact else _names(request, places)
    if names_a_kill(gaps):
        return f"Of an OOM kill there is a word in {where}, and no more: whose limit it was is not known."
    if any(reason.startswith(NO_LOGS) for reason in reasons):
        said = f"There is no kernel log in {where}"
    else:
        said = "Nothing was read from standard input" if NOTHING_READ in reasons else "No log could be read"
    if count := _count(request, gaps):
        return f"{said}.{count}"
    return f"{said}: whether the kernel killed is not known."


def _places(sources: Iterable[Source]) -> tuple[str, ...]:
    """What was looked at, as it was named."""
    return tuple(dict.fromkeys(source.name if source.within is None else source.within.name for source in sources))


def _names(request: Request, places: Sequence[str]) -> str:
    from reprieve.show.escape import markdown, plain

    words = markdown if request.markdown else plain
    shown = [words(quote(place)) for place in places[: len(places) if len(places) < 6 else 4]]
    return ", ".join(shown) + (f" and {len(places) - len(shown)} others" if len(shown) < len(places) else "")


def _end(request: Request, events: int, others: int, status: int) -> Iterator[str]:
    if request.as_json:
        from reprieve.show import jsonl

        yield jsonl.end(events=events, not_asked_for=others, exit_status=status)


def _tell_all(
    request: Request,
    identity: Identity,
    sources: list[Source],
    wanted: Wanted,
    hide: Callable[[Snapshot], Snapshot],
    gaps: list[Gap],
) -> int:
    events = undated = 0
    told = proven = False
    oldest: OomSummary | None = None  # of this boot, wanted or not
    known = Known()

    def noted(event: OomSummary | AllocationFailure | Ending) -> bool:
        nonlocal oldest
        if isinstance(event, OomSummary) and event.boot_id == identity.boot_id and event.stamp.uptime_s is not None:
            since_s = None if oldest is None else oldest.stamp.uptime_s
            oldest = event if since_s is None or event.stamp.uptime_s < since_s else oldest
        return wanted(event)

    def lines() -> Iterator[str]:
        nonlocal events, undated, told, proven
        for event, history, _ in stream(sources, known, noted, gaps):
            undated += count_undated(request, (event,), identity)
            events += isinstance(event, OomReport)
            told = told or isinstance(event, OomReport) or (isinstance(event, Ending) and event.oom_killed is True)
            proven = proven or _is_kill(event)
            event = dated(request, event, identity) if isinstance(event, OomReport) else event
            if said := list(_explained(request, event, history, identity, hide)):
                yield "\n".join(said)  # written at once: to write a line takes long
        if told or request.boot not in (None, "0"):
            gaps[:] = [gap for gap in gaps if not is_count(gap)]
        if not told and not request.as_json:
            if not logs_among(sources, gaps):
                yield _unknown(request, gaps, _places(sources))
                gaps[:] = [gap for gap in gaps if not is_count(gap)]
            else:
                none = "No OOM kill by the kernel in what could be read."
                yield _none_but_by_list(known.left_out) if known.left_out else none
        still_told = () if oldest is None else (oldest,)
        gaps[:] = _as_lost(request, Snapshot(gaps=tuple(gaps), history=still_told), None, identity)
        last = hide(Snapshot(gaps=tuple(gaps)))
        more = (*undated_gap(request, undated), *unmapped_gap(request, events > 0))
        yield from _explanation(request, replace(last, gaps=(*last.gaps, *more)))
        yield from _end(request, events, known.left_out, _status(request, proven, gaps))

    _print(request, lines())
    return _status(request, proven, gaps)


def _explained(
    request: Request,
    event: Event,
    history: Iterable[OomSummary],
    identity: Identity,
    hide: Callable[[Snapshot], Snapshot],
    endings: tuple[Ending, ...] = (),
) -> Iterator[str]:
    """One event of a stream, and what engines say of it, explained, and a blank line where people read it."""
    ooms = (event,) if isinstance(event, OomReport) else ()
    snapshot = Snapshot(
        ooms=ooms,
        gone_groups=gone_groups(ooms, identity.boot_id),
        our_limits=_ours(ooms, identity.boot_id),
        history=tuple(history),
        allocation_failures=(event,) if isinstance(event, AllocationFailure) else (),
        endings=(event,) if isinstance(event, Ending) else endings,
    )
    yield from _explanation(request, hide(snapshot))
    if not request.as_json:
        yield ""


def _follow(
    request: Request,
    identity: Identity,
    wanted: Wanted,
    hide: Callable[[Snapshot], Snapshot],
) -> int:
    """Explain each kill when it happens, until the pipe ends, the reader leaves, or Ctrl-C."""
    from reprieve.machine.follow import Kept, follow

    if len(request.sources) > 1:
        raise Failure("--follow reads one source", hint="start one for each")
    path = request.sources[0] if request.sources else "-" if is_given() else None
    kernel = path in (None, "/dev/kmsg")
    name = "kernel log" if path is None else "stdin" if path == "-" else shown(path)  # its buffer, else the journal
    gaps: list[Gap] = []
    ears: list[Ear] = []
    if path is None:
        from reprieve.machine.engine import listen

        ears = listen(gaps)
    events = others = undated = shown_gaps = 0
    killed = arrived = False
    kept = Kept()

    def noted(event: OomSummary | AllocationFailure | Ending) -> bool:
        nonlocal arrived, others
        arrived = True
        is_wanted = wanted(event)
        others += isinstance(event, OomSummary) and not is_wanted
        return is_wanted

    # A pipe is read from its start; of what grows, lines are counted from those that are new.
    source = name if path == "-" else f"{name} (new lines)"
    heard = follow(path, gaps, ears, kept)
    arriving = watch(heard, source, noted, gaps, identity.boot_id if kernel else None)
    waits = os.isatty(2)
    for happened in arriving:
        if waits and happened is None:  # not where it is refused at once
            print("Waiting for kills; Ctrl-C ends it.", file=sys.stderr)
            waits = False
        lines: Iterable[str] = ()
        if happened is not None:
            event, history, endings = happened
            events += isinstance(event, OomReport)
            killed = killed or _is_kill(event)
            undated += count_undated(request, (event,), identity)
            event = dated(request, event, identity) if isinstance(event, OomReport) else event
            lines = _explained(request, event, history, identity, hide, endings)
        unseen, shown_gaps = gaps[shown_gaps:], len(gaps)
        if unseen:
            lines = chain(lines, _explanation(request, hide(Snapshot(gaps=tuple(unseen)))))
        if not _print(request, lines):
            break
    if kept.ended and not arrived:  # what it was, as it is told of what is not followed
        from reprieve.machine.log import told_if_no_log

        return _tell_all(request, identity, [told_if_no_log(kept.source(name))], wanted, hide, [])
    status = _status(request, killed, gaps)
    last = hide(Snapshot(gaps=tuple(gaps[shown_gaps:])))
    last = replace(last, gaps=(*last.gaps, *undated_gap(request, undated)))
    _print(request, chain(_explanation(request, last), _end(request, events, others, status)))
    return status


def _listing(request: Request, snapshot: Snapshot) -> Iterator[str]:
    if request.as_json:
        from reprieve.show import jsonl

        yield from jsonl.listing(snapshot.history)
        yield from _explanation(request, Snapshot(endings=snapshot.endings, gaps=snapshot.gaps))
    elif request.markdown:
        from reprieve.show import markdown

        yield from markdown.listing(snapshot.history)
        yield from markdown.ends(diagnose_each(snapshot.endings))
    else:
        from reprieve.show import text

        room = max(60, columns()) if sys.stdout.isatty() else None  # what reads a pipe wants it whole
        yield from text.listing(snapshot.history, width=room, colour=colour())
        yield from text.ends(diagnose_each(snapshot.endings), width=room, colour=colour())
    if snapshot.gaps and not request.as_json:  # a list is for pipes: nothing but events in it
        from reprieve.show.escape import visible

        for gap in snapshot.gaps:
            hint = f" ({gap.hint})" if gap.hint else ""
            print(visible(f"reprieve: {gap.place}: {gap.reason}{hint}"), file=sys.stderr)


def _print(request: Request, lines: Iterable[str]) -> bool:
    """Write the lines; False if the reader has left: `| head` has seen enough."""
    long = request.verbose or request.every or request.listed or (request.last or 1) > 1
    paged = request.pager and long and sys.stdout.isatty() and not (request.as_json or request.follow)
    if paged and room_for_a_process():
        import click

        os.environ.setdefault("LESS", "FRX")  # as git has it: no pager for what fits, colours kept
        click.echo_via_pager((f"{line}\n" for line in lines), color=colour())
        return True
    return print_lines(lines)


def _is_kill(event: Event | OomSummary) -> bool:
    """Was somebody killed? A report whose end is not in the text counts: it is not known that nobody was."""
    match event:
        case OomReport() | OomSummary():
            spared = event.no_killable or bool(event.panic)
            return bool(event.kills if isinstance(event, OomReport) else event.victims) or not spared
        case Ending():
            return event.oom_killed is True
        case _:
            return False


def _status(request: Request, found: bool, gaps: Sequence[Gap]) -> int:
    if found and request.fail_on_kill:
        return FOUND
    return INCOMPLETE if any(gap.hides for gap in gaps) else 0

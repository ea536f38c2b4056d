"""One shortage of memory, and all that were killed in it."""

from collections.abc import Iterator, Sequence
from itertools import chain, pairwise

from reprieve.model.finding import Finding, quote
from reprieve.model.oom import OomReport, OomSummary
from reprieve.model.snapshot import Snapshot
from reprieve.oom.incident import Incident, incident
from reprieve.oom.moments import elapsed_s
from reprieve.rules.evidence import lines
from reprieve.units import duration, size

_NAMES = 4  # in a claim; the detail has them all
_TOLD = 8  # events of which the detail has a sentence each
_SERIES = 3  # kills of one program, each of a younger process: it is started anew, and `repeat-kills` tells of that


def also_killed(snapshot: Snapshot) -> Iterator[Finding]:
    """Others were killed at the same limit just before or after: it is one shortage, and this kill is a part of it.

    Where a kill does not free enough, as of memory in a tmpfs or of the wrong process, the kernel kills again, within
    ten seconds or so; the last to die is often a bystander. Kills at one limit (of a cgroup, or of the machine) of
    which each comes within a minute of the one before are told together. What is one program started anew, and killed
    each time, is not one shortage: there the pids rise from kill to kill, and repeat-kills tells of it.

    Source: out_of_memory() in mm/oom_kill.c; the events of all logs that were read.
    """
    for number, oom in enumerate(snapshot.ooms):
        seen = incident(snapshot.history, oom)
        if seen is None or _is_series(seen, oom):
            continue
        yield Finding(
            code="also-killed",
            severity="warning",
            confidence="certain" if seen.certain else "likely",
            claim=_in_words(seen),
            detail=_each(seen, oom),
            about=oom.limit_of,
            evidence=lines(oom, *_ends(oom)) or lines(oom, oom.line),
            oom=number,
        )


def _is_series(seen: Incident, oom: OomReport) -> bool:
    victims = [event.victims for event in seen.before]
    victims.append(tuple((kill.pid, kill.comm) for kill in oom.kills))
    victims += [event.victims for event in seen.after]
    kills = [event for event in victims if event]
    if len(kills) < _SERIES or not is_started_anew(kills):
        return False
    return bool(set.intersection(*({comm for _, comm in event} for event in kills)))


def is_started_anew(kills: Sequence[Sequence[tuple[int, str | None]]]) -> bool:
    """Can each have been started after the one before it was killed? Pids rise, until they begin again from below."""
    return all(max(pid for pid, _ in one) < min(pid for pid, _ in other) for one, other in pairwise(kills))


def _in_words(seen: Incident) -> str:
    where = "at the same limit" if seen.certain else "at a limit that this text does not name"
    said: list[str] = []
    if seen.before:
        said.append(f"{_those(seen.before, seen.first_s, 'before')}, {where}{_first(seen.before)}")
    if seen.after:
        said.append(_those(seen.after, seen.last_s, "after") + ("" if said else f", {where}"))
    if seen.nobody_s is not None:
        said.append(
            f"{'within' if said else 'Within'} {_span(seen.nobody_s)} nobody was left to kill"
            + ("" if said else f" {where}")
        )
    return "; ".join(said)


def _those(events: Sequence[OomSummary], seconds: float, side: str) -> str:
    """`2 others (nginx, mysqld) were killed in the 4 s before`; a single one by name and number."""
    victims = [victim for event in events for victim in event.victims]
    if len(victims) == 1:
        return f"{_named(*victims[0])} was killed {_span(seconds)} {side}"
    counts: dict[str, int] = {}
    for _, comm in victims:
        counts[comm or "?"] = counts.get(comm or "?", 0) + 1
    told = [quote(comm) + (f" ×{count}" if count > 1 else "") for comm, count in counts.items()]
    more = f" and {len(told) - _NAMES} more" if len(told) > _NAMES else ""
    names = f"all {quote(victims[0][1] or '?')}" if len(told) == 1 else ", ".join(told[:_NAMES])
    return f"{len(victims)} others ({names}{more}) were killed in the {_span(seconds)} {side}"


def _first(events: Sequence[OomSummary]) -> str:
    """The one the shortage began with, and what it held."""
    first = events[0]
    held = None if first.freed_bytes is None else size(first.freed_bytes)
    if len(events) > 1:
        return f"; first {_named(*first.victims[0])}{'' if held is None else f' with {held}'}"
    return "" if held is None else f"; it held {held}"


def _span(seconds: float) -> str:
    return duration(max(seconds, 0.1))


def _named(pid: int, comm: str | None) -> str:
    """A victim by name and number."""
    return f"process {pid}" if comm is None else f"{quote(comm)} (pid {pid})"


def _each(seen: Incident, oom: OomReport) -> tuple[str, ...]:
    events = [*seen.before, *seen.after]
    said = [_told(event, oom) for event in events[:_TOLD]]
    if len(events) > _TOLD:
        said.append(f"So were {len(events) - _TOLD} more.")
    return tuple(said)


def _told(event: OomSummary, oom: OomReport) -> str:
    who = ", ".join([_named(pid, comm) for pid, comm in event.victims[:_NAMES]])
    more = f" and {len(event.victims) - _NAMES} more" if len(event.victims) > _NAMES else ""
    held = "" if event.freed_bytes is None else f" with {size(event.freed_bytes)}"
    until = elapsed_s(event.stamp, oom.stamp)
    when = f"{_span(elapsed_s(oom.stamp, event.stamp) or 0)} after" if until is None else f"{_span(until)} before"
    return f"{who}{more}{held}, {when} ({quote(f'{event.source}:{event.line}')})."


def _ends(oom: OomReport) -> Iterator[int]:
    """The lines that say how the event ended."""
    killed = [kill.line for kill in oom.kills[:1]]
    if not oom.no_killable and oom.panic is None:
        return iter(killed)
    nobody = [line for line, text in oom.lines if "no killable process" in text or "Kernel panic" in text]
    return chain(killed, nobody)

"""Which events are of one shortage of memory: at one limit, each soon after the one before."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from reprieve.model.oom import OomReport, OomSummary
from reprieve.model.workload import Workload
from reprieve.oom.moments import elapsed_s

# What a kill frees is back in a second or two. Where it was not enough, the kernel tries in vain to reclaim before it
# kills again: ten seconds on a machine with a full swap, forty on one without swap whose programs are on a disk. After
# a minute it is another shortage, or a program that was started anew.
SOON_S = 60.0
_LOOK = 8  # of the others of its host one of so many is asked whether all beyond it are too far: to ask takes long
_MACHINE = ("CONSTRAINT_NONE", "global")

_Event = OomReport | OomSummary


class Incident(NamedTuple):
    """The events around one that are of the same shortage, each group in the order of the log."""

    before: tuple[OomSummary, ...]  # that killed
    after: tuple[OomSummary, ...]  # that killed
    first_s: float  # from the first of `before` to the event; 0 if there is none
    last_s: float  # from the event to the last of `after`; 0 if there is none
    nobody_s: float | None  # from the event until nobody was left to kill; None: that is not so
    certain: bool  # is it told whose limit each reached?


def incident(history: Sequence[OomSummary], oom: OomReport) -> Incident | None:
    """What belongs to the event; None where the history does not hold it, or nothing belongs to it."""
    newest_first = range(len(history) - 1, -1, -1)  # of a stream, the event is the newest of its history
    at = next((at for at in newest_first if history[at].line == oom.line and history[at].source == oom.source), None)
    if at is None or oom.sysrq:
        return None
    earlier = _chain(oom, reversed(history[:at]), backwards=True)
    later = _chain(oom, history[at + 1 :], backwards=False)
    before, after = [event for event in earlier[::-1] if event.victims], [event for event in later if event.victims]
    nobody = next((event for event in later if event.no_killable and not event.victims and oom.kills), None)
    if not before and not after and nobody is None:
        return None
    return Incident(
        before=tuple(before),
        after=tuple(after),
        first_s=_between_s(before[0], oom) if before else 0.0,
        last_s=_between_s(oom, after[-1]) if after else 0.0,
        nobody_s=None if nobody is None else _between_s(oom, nobody),
        certain=all(map(_is_named, (*before, *after))) and _is_named(oom),
    )


def follows(earlier: _Event, later: _Event) -> bool:
    """Is the later event of the same shortage as the earlier one?"""
    between = elapsed_s(earlier.stamp, later.stamp)
    return between is not None and between <= SOON_S and _is_at_one_limit(earlier, later)


def identity(group: Workload | None) -> str | None:
    """What stays when it is started anew: a container of a pod gets another path each time, the pod keeps its UID."""
    return group.pod_uid or group.path if group is not None else None


def _chain(oom: OomReport, events: Iterable[OomSummary], *, backwards: bool) -> list[OomSummary]:
    """Those at the same limit, from the event on, until one is not soon enough."""
    found: list[OomSummary] = []
    newest: _Event = oom
    limit = identity(oom.limit_of)
    for at, event in enumerate(events, 1):
        same = (limit is None or identity(event.limit_of) in (None, limit)) and _is_at_one_limit(event, oom)
        if not same and (at % _LOOK or event.host != oom.host):
            continue
        between = elapsed_s(event.stamp, newest.stamp) if backwards else elapsed_s(newest.stamp, event.stamp)
        if same:
            if between is None or between > SOON_S:
                break
            found.append(event)
            newest = event
        elif between is not None and between > SOON_S:
            break  # as all beyond it are
    return found


def _between_s(earlier: _Event, later: _Event) -> float:
    return elapsed_s(earlier.stamp, later.stamp) or 0.0


def _is_at_one_limit(one: _Event, other: _Event) -> bool:
    """Of one boot, and of one cgroup or the machine; where the text does not name a cgroup, it may be the same."""
    if one.host != other.host:
        return False
    if one.boot_id != other.boot_id and one.boot_id is not None and other.boot_id is not None:
        return False
    if one.limit_of is not None and other.limit_of is not None:
        return identity(one.limit_of) == identity(other.limit_of)
    if one.limit_of is not None or other.limit_of is not None:
        unnamed = one if one.limit_of is None else other
        return unnamed.scope == "CONSTRAINT_MEMCG" and bool(_names(one) & _names(other))
    scope, another = one.scope, other.scope
    return scope is not None and (scope == another or (scope in _MACHINE and another in _MACHINE))


def _is_named(event: _Event) -> bool:
    return event.limit_of is not None or event.scope in _MACHINE


def _names(event: _Event) -> set[str | None]:
    if isinstance(event, OomReport):
        return {kill.comm for kill in event.kills}
    return {comm for _, comm in event.victims}

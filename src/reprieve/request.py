"""What was asked of `reprieve why`, and whether an event is of it: of that process, group, boot and time."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import NamedTuple, TypeVar

from reprieve.machine.events import Wanted
from reprieve.machine.host import Identity
from reprieve.model.ending import Ending
from reprieve.model.finding import Gap
from reprieve.model.oom import AllocationFailure, OomReport, OomSummary
from reprieve.oom.counted import is_lost

Happened = OomSummary | OomReport | AllocationFailure | Ending


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
    units: tuple[str, ...] = ()  # of which alone kills are told
    containers: bool = False  # some are among the sources, by name: kills of those alone are told
    boot: str | None = None
    origin: str | None = None
    follow: bool = False
    as_json: bool = False
    markdown: bool = False
    html: str | None = None
    redact: bool = False
    fail_on_kill: bool = False
    pager: bool = True


def wanted_by(request: Request, identity: Identity, present_boot: str | None) -> Wanted:
    """Which events were asked for. One that cannot be dated is never left out by a date.

    `present_boot`: that of boot 0; of a snapshot the one in which it was taken.
    """

    def wanted(event: OomSummary | AllocationFailure | Ending) -> bool:
        if _by_date(request):
            moments = list(_moments(request, event, identity))
            if moments and not _in_time(request, _meant(request, moments)):
                return False
        if request.pid is not None and request.pid not in _pids(event):
            return False
        if request.name is not None and all(request.name not in (comm or "") for comm in _processes(event)):
            return False
        if request.cgroup is not None and all(request.cgroup not in (name or "") for name in _groups(event)):
            return False
        if request.units and not any(
            part in request.units for name in _groups(event) for part in (name or "").split("/")
        ):
            return False
        if request.boot is None or _is_of_boot(event, request.boot, identity, present_boot):
            return True
        return not is_of_this_machine(request) and not _tells_boot(event, identity)

    return wanted


def _by_date(request: Request) -> bool:
    return request.since is not None or request.until is not None


def _in_time(request: Request, moments: Iterable[float]) -> list[float]:
    """Those between the dates that were given."""
    since, until = request.since or 0, request.until or float("inf")
    return [moment for moment in moments if since <= moment <= until]


def _meant(request: Request, moments: list[float]) -> list[float]:
    """With --until alone that of the year which is nearest to it: some year that has gone is before any date."""
    until = request.until
    return moments if until is None or request.since is not None else [min(moments, key=lambda at: abs(at - until))]


def _moment(event: Happened, identity: Identity) -> float | None:
    """When it was, in seconds since 1970, in the latest year that it can be of; None if it cannot be dated."""
    return next(_all_moments(event, identity), None)


def _moments(request: Request, event: Happened, identity: Identity) -> Iterator[float]:
    """When it may have been, the latest first: a date without a year is of each, in this machine's logs of the last."""
    moments = _all_moments(event, identity)
    return islice(moments, 1) if is_of_this_machine(request) else moments


def _all_moments(event: Happened, identity: Identity) -> Iterator[float]:
    from reprieve.machine.clock import moments_of

    if isinstance(event, Ending):
        return iter(()) if event.finished is None else moments_of(event.finished)
    boot_id = _boot_id(event, identity)
    return moments_of(event.stamp, this_boot=boot_id is not None and boot_id == identity.boot_id)


def _boot_id(event: Happened, identity: Identity) -> str | None:
    match event:
        case OomSummary() | OomReport():
            return event.boot_id
        case AllocationFailure():
            return identity.boot_id if event.source.partition("@")[0] == "/dev/kmsg" else None
        case Ending():
            return None


def _pids(event: OomSummary | AllocationFailure | Ending) -> tuple[int | None, ...]:
    if isinstance(event, OomSummary):
        return tuple(pid for pid, _ in event.victims)
    return (event.pid,) if isinstance(event, Ending) else ()


def _processes(event: OomSummary | AllocationFailure | Ending) -> tuple[str | None, ...]:
    """The names of processes it is about; of managers few name them, and the others what they ran in."""
    match event:
        case OomSummary():
            return tuple(comm for _, comm in event.victims)
        case AllocationFailure():
            return (event.comm,)
        case Ending():
            return (event.name,)


def _groups(event: OomSummary | AllocationFailure | Ending) -> tuple[str | None, ...]:
    """The names and paths of the cgroups it is about; of failed allocations the kernel prints none."""
    match event:
        case OomSummary():
            groups = (event.workload, event.limit_of)
            return tuple(text for group in groups if group is not None for text in (group.path, group.name))
        case AllocationFailure():
            return ()
        case Ending():
            return (event.name, event.container_id, event.pod, event.pod_uid)


def _is_of_boot(
    event: OomSummary | AllocationFailure | Ending, boot: str, identity: Identity, present_boot: str | None
) -> bool:
    boot_id = _boot_id(event, identity)
    if boot == "0" and boot_id is not None:
        return boot_id == present_boot
    if boot == "0" or boot.startswith("-"):
        return f"(boot {boot})" in event.source
    return boot_id is not None and boot_id.startswith(boot.replace("-", ""))


def _tells_boot(event: Happened, identity: Identity) -> bool:
    return _boot_id(event, identity) is not None or (not isinstance(event, Ending) and "(boot " in event.source)


def count_undated(request: Request, events: Iterable[Happened], identity: Identity) -> int:
    """How many were kept though they may be of another time, or boot, where that was asked."""
    return sum(
        (_by_date(request) and not _is_surely_in_time(request, event, identity))
        or (request.boot is not None and not _tells_boot(event, identity))
        for event in events
    )


def _is_surely_in_time(request: Request, event: Happened, identity: Identity) -> bool:
    """Told by its date, or, without a year, by the latest that it can be of and no other."""
    moments = list(_moments(request, event, identity))
    return bool(moments) and moments[:1] == _in_time(request, moments)


def undated_gap(request: Request, count: int) -> tuple[Gap, ...]:
    """What is to be said where events are told though nobody knows whether they are of the time asked for."""
    if not count:
        return ()
    options = (("--since", request.since), ("--until", request.until), ("--boot", request.boot))
    asked = " and ".join(option for option, given in options if given is not None)
    events = "1 event has" if count == 1 else f"{count} events have"
    lacks = "no date, or none with a year" if _by_date(request) else "no boot told"
    if _by_date(request) and request.boot is not None:
        lacks += ", or no boot told"
    return (Gap(place=asked, reason=f"{events} {lacks}: of another time perhaps", hides=False),)


def as_lost(request: Request, gaps: Iterable[Gap], booted_s: float, told_s: Sequence[float]) -> tuple[Gap, ...]:
    """The same; kills whose lines are overwritten hide nothing where others are asked for, and are then left out.

    `booted_s`: when the boot began whose kills they are; `told_s`: when those of that boot were that are still told.
    The newest kill is never one of them: where it alone is asked for, and told, they are a note.
    """
    since, until = request.since or float("-inf"), request.until or float("inf")
    other = request.boot not in (None, "0") or until < booted_s or min(told_s, default=float("inf")) <= since
    named = (request.pid, request.name, request.cgroup) != (None, None, None) or request.units or request.containers
    many = request.listed or request.every or (request.last or 1) > 1
    newest = bool(told_s) and not (named or many or _by_date(request))
    return tuple(
        replace(gap, hides=gap.hides and not newest) if is_lost(gap) else gap
        for gap in gaps
        if not (other and is_lost(gap))
    )


def unmapped_gap(request: Request, found: bool) -> tuple[Gap, ...]:
    """What a number that no kill bears may mean. The kernel prints those of the first namespace: task_pid_nr()."""
    if request.pid is None or found:
        return ()
    reason = (
        "the kernel logs the host's numbers: in a container a process has another, and nothing tells which was whose "
        "once it has ended"
    )
    hint = "docker:NAME, podman:NAME or pod:NS/NAME asks for kills in it, --name for those of a program"
    return (Gap(place=f"pid:{request.pid}", reason=reason, hint=hint, hides=False),)


_Dated = TypeVar("_Dated", OomReport, OomSummary)


def dated(request: Request, event: _Dated, identity: Identity) -> _Dated:
    """The same; of this machine's own logs with a date that people read, and how long ago that was."""
    of_this_boot = event.boot_id is not None and event.boot_id == identity.boot_id
    moment = _moment(event, identity) if of_this_boot or is_of_this_machine(request) else None
    if moment is None:
        return event
    from time import time

    from reprieve.machine.clock import spelled, was_suspended
    from reprieve.units import duration

    text = event.stamp.text
    if text is None or text.replace(".", "").isdecimal():
        text = f"about {spelled(moment)}" if text is None and was_suspended() else spelled(moment)
    if isinstance(event, OomReport) and not request.as_json and (ago_s := time() - moment) >= 0:
        text = f"{text}, {duration(ago_s)} ago"
    return replace(event, stamp=replace(event.stamp, text=text))


def is_of_this_machine(request: Request) -> bool:
    """Is it about what this machine keeps itself, rather than about a text that was given?"""
    from reprieve.machine.asked import is_asked_for

    if request.sources:
        return all(map(is_asked_for, request.sources))
    return request.origin is None and not is_given()


def is_given() -> bool:
    """`dmesg | reprieve why` and `reprieve why < kern.log` mean what they say, also where nothing comes.

    /dev/null does not, nor a socket: `ssh host reprieve why` has one, and nobody would write to it. Then, and at a
    terminal, this machine is looked at.
    """
    import stat

    try:
        mode = os.fstat(0).st_mode
    except OSError:  # closed
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode)

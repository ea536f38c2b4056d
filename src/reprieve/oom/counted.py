"""How often the kernel has killed, in its own count: whom, its log tells, which not everybody may read."""

from __future__ import annotations

from reprieve.model.finding import Gap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from reprieve.model.machine import Machine

COUNT = "/proc/vmstat"
FOR_ROOT = "only root may read the kernel log here"  # why it was not read
_LOST = "kills"
_TIMES = {1: "once", 2: "twice"}


def kills_since_boot(machine: Machine | None) -> int | None:
    """Processes that the kernel killed for memory, by limits of cgroups too, and outside of a container that asks.

    None: it does not count them. Since Linux 8e675f7af507 (v4.13, "mm/oom_kill: count global and memory cgroup oom
    kills") they are in /proc/vmstat, which everybody may read.
    """
    return None if machine is None else dict(machine.vmstat).get("oom_kill")


def counted(kills: int, since: str, gaps: Iterable[Gap]) -> str:
    """How often the kernel has killed since then, and who would know whom: not we, for these reasons."""
    if not kills:
        return f"the kernel has killed nobody since {since}"
    whom = "only root may read" if any(FOR_ROOT in gap.reason for gap in gaps) else "its log would tell"
    return f"the kernel has killed {_TIMES.get(kills) or f'{kills} times'} since {since}; whom, {whom}"


def unlogged(kills: int, logged: int, hint: str) -> Gap:
    """What is to be said where the logs that were read tell of fewer kills since boot than the kernel counts."""
    told = f"the logs that could be read tell of {logged:,}" if logged else "no log that could be read tells of one"
    reason = f"{kills:,} since boot by the kernel's own count, and {told}: older lines are overwritten"
    return Gap(place=_LOST, reason=reason, hint=hint)


def is_lost(gap: Gap) -> bool:
    """Is it that of the kills whose lines are overwritten?"""
    return gap.place == _LOST


def is_count(gap: Gap) -> bool:
    """Is it the note of how often the kernel has killed? Where a kill is told, it says nothing more."""
    return gap.place == COUNT and not gap.hides and gap.reason != ""  # a snapshot may have been written by anybody

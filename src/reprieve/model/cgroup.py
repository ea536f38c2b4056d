"""A memory cgroup of the living machine, version 1 or 2."""

from typing import Literal

from reprieve.model.noun import noun
from reprieve.model.pressure import Pressure

Limit = int | Literal["max"] | None  # bytes; "max": none; None: not told, or the kernel has no such file


@noun
class Cgroup:
    """One memory cgroup. Names are version 2's; version 1's files are read into the field that means the same."""

    path: str  # "/" is the root; bytes that are not UTF-8 as `\\xNN`
    version: int  # 1 or 2
    current_bytes: int | None = None  # memory.current; memory.usage_in_bytes
    peak_bytes: int | None = None  # memory.peak; memory.max_usage_in_bytes
    max_bytes: Limit = None  # memory.max; memory.limit_in_bytes
    high_bytes: Limit = None  # memory.high
    low_bytes: Limit = None  # memory.low
    min_bytes: Limit = None  # memory.min
    soft_limit_bytes: Limit = None  # version 1 alone
    swap_current_bytes: int | None = None  # memory.swap.current; version 1: total_swap of memory.stat
    swap_max_bytes: Limit = None  # memory.swap.max
    memsw_max_bytes: Limit = None  # version 1: memory and swap together
    memsw_current_bytes: int | None = None  # version 1
    swappiness: int | None = None  # version 1 has one for each group
    events: tuple[tuple[str, int], ...] = ()  # memory.events, with those below it
    local_events: tuple[tuple[str, int], ...] = ()  # memory.events.local
    stat: tuple[tuple[str, int], ...] = ()  # memory.stat; on version 1 with the `total_` fields, of all below
    pressure: tuple[Pressure, ...] = ()  # memory.pressure
    oom_group: bool | None = None  # memory.oom.group: all die together
    oom_kill_disable: bool | None = None  # version 1: memory.oom_control: who is at the limit waits
    under_oom: bool | None = None  # version 1
    pids: tuple[int, ...] = ()  # processes in it, not below it

"""The living machine at one time: its memory, its settings, its processes and groups."""

from dataclasses import dataclass

from reprieve.model.cgroup import Cgroup
from reprieve.model.pressure import Pressure
from reprieve.model.process import Process

Figures = tuple[tuple[str, int], ...]  # the kernel's own names, in its order


@dataclass(frozen=True, slots=True, kw_only=True)
class SwapArea:
    """A line of /proc/swaps."""

    name: str  # a file, a device; zram is one by its name
    kind: str  # "partition", "file"
    size_bytes: int
    used_bytes: int
    priority: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveZone:
    """A zone of /proc/zoneinfo, in pages."""

    node: int
    name: str
    free_pages: int | None = None
    min_pages: int | None = None
    low_pages: int | None = None
    high_pages: int | None = None
    spanned_pages: int | None = None
    present_pages: int | None = None
    managed_pages: int | None = None
    protection_pages: tuple[int, ...] = ()  # lowmem_reserve
    free_blocks: tuple[int, ...] = ()  # of /proc/buddyinfo: how many of order 0, 1, 2, …


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveNode:
    """A NUMA node: /sys/devices/system/node/nodeN."""

    number: int
    meminfo: Figures = ()  # bytes; HugePages_* are counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Tmpfs:
    """A mounted file system whose files are memory."""

    path: str
    size_bytes: int | None  # the most it may hold; None: not told
    used_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What a machine looks like from its /proc, /sys and cgroups."""

    machine_id: str | None = None
    boot_id: str | None = None
    hostname: str | None = None
    kernel: str | None = None  # uname -r: to show, never to decide by
    taken_wall_s: float | None = None  # since 1970
    taken_uptime_s: float | None = None  # since boot, suspend counted
    page_bytes: int | None = None
    cpus: int | None = None  # possible: what per-CPU counters are kept for
    meminfo: Figures = ()  # bytes; HugePages_* are counts
    vmstat: Figures = ()
    pressure: tuple[Pressure, ...] = ()  # of memory
    swaps: tuple[SwapArea, ...] = ()
    zones: tuple[LiveZone, ...] = ()
    nodes: tuple[LiveNode, ...] = ()
    tmpfs: tuple[Tmpfs, ...] = ()
    sysctls: tuple[tuple[str, str], ...] = ()  # "vm.swappiness" and the value as the kernel writes it
    cgroup_version: str | None = None  # "1", "2", "hybrid"
    cgroups: tuple[Cgroup, ...] = ()  # parents before children; all with a memory controller
    processes: tuple[Process, ...] = ()  # in the order of /proc

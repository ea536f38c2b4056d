"""The living machine at one time: its memory, its settings, its processes and groups."""

from reprieve.model.application import Jvm, NodeJs, Postgres, Redis
from reprieve.model.cgroup import Cgroup, Limit
from reprieve.model.killer import Killer
from reprieve.model.noun import noun
from reprieve.model.pressure import Pressure
from reprieve.model.process import Process
from reprieve.model.rootfs import RootFs
from reprieve.model.unit import Unit

Figures = tuple[tuple[str, int], ...]  # the kernel's own names, in its order


@noun
class SwapArea:
    """A line of /proc/swaps."""

    name: str  # a file, a device; zram is one by its name
    kind: str  # "partition", "file"
    size_bytes: int
    used_bytes: int
    priority: int


@noun
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


@noun
class LiveNode:
    """A NUMA node: /sys/devices/system/node/nodeN."""

    number: int
    meminfo: Figures = ()  # bytes; HugePages_* are counts


@noun
class HeldFile:
    """A file that is memory."""

    path: str  # chosen by a user: untrusted text
    held_bytes: int  # what it takes, holes left out; in swap or not
    uid: int | None = None


@noun
class Tmpfs:
    """A mounted file system whose files are memory."""

    path: str
    size_bytes: int | None  # the most it may hold; None: not told
    used_bytes: int | None
    found_bytes: int | None = None  # in files with a name; the rest of what is used: deleted, and held open
    largest: tuple[HeldFile, ...] = ()


@noun
class Segment:
    """A piece of System V shared memory, a line of /proc/sysvipc/shm: it stays when the last who used it has gone."""

    number: int  # shmid, for ipcrm(1)
    size_bytes: int
    creator_pid: int
    attached: int  # by how many it is mapped
    uid: int
    rss_bytes: int | None = None  # since 2.6.34
    swap_bytes: int | None = None


@noun
class Zram:
    """A compressed disk in memory, /sys/block/zramN, mostly for swap."""

    name: str  # "zram0"
    size_bytes: int  # the most it may be given, as it was before
    algorithm: str | None = None
    stored_bytes: int | None = None  # what it was given, as it was before
    compressed_bytes: int | None = None
    used_bytes: int | None = None  # memory it takes for that
    max_bytes: Limit = None  # the most it may take
    incompressible_pages: int | None = None  # kept as they came


@noun
class HugePool:
    """The huge pages of one size, of the machine or of one of its nodes. What is in a pool, used or not, is taken."""

    page_bytes: int
    node: int | None = None  # None: the whole machine
    total: int | None = None
    free: int | None = None
    reserved: int | None = None  # of those free: promised, not yet touched; None: not told, as for nodes
    surplus: int | None = None  # of the total: above what was asked for, given back when free


@noun
class Container:
    """A running container as its engine calls it."""

    container_id: str  # as in the path of its cgroup
    manager: str  # "docker", "podman", "containerd"
    name: str | None = None  # of a pod's: its name in there
    image: str | None = None
    pod: str | None = None  # of Kubernetes: "namespace/name"
    service: str | None = None  # of Compose: what its file calls it
    project: str | None = None  # of Compose: whose file that is


@noun
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
    huge_pools: tuple[HugePool, ...] = ()
    zram: tuple[Zram, ...] = ()
    root: RootFs | None = None  # None: not told
    segments: tuple[Segment, ...] = ()  # of this IPC namespace
    tmpfs: tuple[Tmpfs, ...] = ()
    sysctls: tuple[tuple[str, str], ...] = ()  # "vm.swappiness" and the value as the kernel writes it
    settings: tuple[tuple[str, str], ...] = ()  # of /sys: the file, and the value or the chosen one of several
    cgroup_version: str | None = None  # "1", "2", "hybrid"
    cgroup_private: bool | None = None  # a container's view: groups above it and beside it are not seen
    cgroups: tuple[Cgroup, ...] = ()  # parents before children; all with a memory controller
    containers: tuple[Container, ...] = ()  # those of engines that could be asked
    killers: tuple[Killer, ...] = ()  # that act before the kernel must
    units: tuple[Unit, ...] = ()  # of systemd; those that run, or say something about memory
    processes: tuple[Process, ...] = ()  # by pid
    jvms: tuple[Jvm, ...] = ()
    nodes_js: tuple[NodeJs, ...] = ()
    postgres: tuple[Postgres, ...] = ()
    redis: tuple[Redis, ...] = ()

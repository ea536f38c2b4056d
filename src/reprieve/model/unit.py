"""A unit of systemd: what its manager holds about its memory, and what its files say about it."""

from reprieve.model.cgroup import Limit
from reprieve.model.noun import noun

# systemd.resource-control(5), systemd.exec(5), systemd.service(5): those of their settings that decide about memory.
MEMORY_KEYS = (
    *("MemoryMax", "MemoryHigh", "MemoryLow", "MemoryMin", "MemorySwapMax", "MemoryLimit"),
    *("OOMScoreAdjust", "OOMPolicy", "ManagedOOMSwap", "ManagedOOMMemoryPressure", "ManagedOOMMemoryPressureLimit"),
    "ManagedOOMPreference",
)


@noun
class UnitLine:
    """A setting about memory in a unit's file, followed by systemd or not. Whoever wrote it wrote anything."""

    path: str
    line: int  # counted from 1; where it begins, if it goes on in the next
    section: str  # "Service"; "" before the first
    key: str  # as it is spelled
    value: str  # without blanks around it, lines that go on joined
    text: str  # the line itself
    written_wall_s: float | None = None  # when its file was last written, since 1970


@noun
class Unit:
    """A service, scope, slice, socket, mount or swap. What its manager says is None where no manager was asked."""

    name: str
    cgroup: str | None = None  # as the manager's root sees it; None: it has none now
    active: str | None = None  # "active", "failed", …; None: files alone were read
    result: str | None = None  # of its last run: "success", "oom-kill"
    main_pid: int | None = None
    n_restarts: int | None = None  # by Restart=
    memory_max_bytes: Limit = None
    memory_high_bytes: Limit = None
    memory_low_bytes: Limit = None
    memory_min_bytes: Limit = None
    memory_swap_max_bytes: Limit = None
    memory_limit_bytes: Limit = None  # of cgroup version 1
    oom_score_adjust: int | None = None
    oom_policy: str | None = None  # "stop", "continue", "kill"; None for kinds that have none
    managed_oom_swap: str | None = None  # "auto", "kill"
    managed_oom_memory_pressure: str | None = None
    managed_oom_memory_pressure_limit_percent: float | None = None  # 0: the default of systemd-oomd
    managed_oom_preference: str | None = None  # "none", "avoid", "omit"
    need_daemon_reload: bool | None = None  # its files are newer than what the manager knows
    fragment_path: str | None = None
    drop_in_paths: tuple[str, ...] = ()  # that the manager has read
    lines: tuple[UnitLine, ...] = ()  # in the order in which systemd reads them: a later one overrides

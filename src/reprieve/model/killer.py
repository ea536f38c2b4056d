"""A program that kills before the kernel must."""

from reprieve.model.noun import noun


@noun
class Killer:
    """A user-space OOM killer that runs here, and at what it acts; None: no such threshold, or it is not told."""

    name: str  # "earlyoom", "systemd-oomd", "nohang", "oomd", "kubelet"
    pid: int
    start_ticks: int
    may_kill_all: bool | None = None  # root, or CAP_KILL: processes of any user
    memory_percent: float | None = None  # acts when less of RAM can be had
    swap_free_percent: float | None = None  # and less of swap is free
    # Acts at these too: nohang, whose levels for SIGKILL may be reached where those for SIGTERM, above, are not.
    hard_memory_percent: float | None = None
    hard_swap_free_percent: float | None = None
    swap_used_percent: float | None = None  # acts when more of RAM and more of swap is used
    # Acts when tasks of a watched group waited for memory so much; with memory_percent those of the machine, while less
    # of RAM can be had, whatever is free of swap.
    pressure_percent: float | None = None
    pressure_s: float | None = None  # for so long
    zram_percent: float | None = None  # with memory_percent: acts when more of RAM is taken by zram

"""Figures of a living machine that several rules ask for, and the lines that show them."""

from reprieve.model.cgroup import Cgroup, Limit
from reprieve.model.finding import Evidence, quote
from reprieve.model.machine import Machine
from reprieve.model.process import Process
from reprieve.oom.groups import Most, called, file_cache_bytes
from reprieve.units import size

_FILES = {  # of version 2, and what version 1 calls the same
    "memory.current": ("current_bytes", "memory.usage_in_bytes"),
    "memory.max": ("max_bytes", "memory.limit_in_bytes"),
    "memory.high": ("high_bytes", "memory.high"),
    "memory.peak": ("peak_bytes", "memory.max_usage_in_bytes"),
    "memory.swap.current": ("swap_current_bytes", "total_swap of memory.stat"),
    "memory.swap.max": ("swap_max_bytes", "memory.swap.max"),
    "memory.memsw.limit_in_bytes": ("memsw_max_bytes", "memory.memsw.limit_in_bytes"),
    "memory.swappiness": ("swappiness", "memory.swappiness"),
}
_DIGITS = 20  # of 64 bits


def figure(machine: Machine, name: str) -> int | None:
    """One figure of /proc/meminfo, in bytes; None if it was not told."""
    return dict(machine.meminfo).get(name)


def memory_and_swap_bytes(machine: Machine) -> int | None:
    """All there is; None if it was not told."""
    ram = figure(machine, "MemTotal")
    return None if ram is None else ram + (figure(machine, "SwapTotal") or 0)


def setting(machine: Machine, name: str) -> int | None:
    """A sysctl that is a number; None if it was not told."""
    told = dict(machine.sysctls).get(name, "")
    return int(told) if told.isascii() and told.isdecimal() and len(told) <= _DIGITS else None


def huge_bytes(machine: Machine) -> int:
    """What the pools of huge pages take, used or not."""
    return sum(pool.page_bytes * (pool.total or 0) for pool in machine.huge_pools if pool.node is None)


def meminfo_lines(machine: Machine, *names: str) -> tuple[Evidence, ...]:
    """These figures as /proc/meminfo has them; those not told are left out."""
    told = dict(machine.meminfo)
    return tuple(
        Evidence(text=f"{name}: {told[name] // 1024} kB", source="/proc/meminfo") for name in names if name in told
    )


def sysctl_lines(machine: Machine, *names: str) -> tuple[Evidence, ...]:
    """These settings; those not told are left out."""
    told = dict(machine.sysctls)
    return tuple(Evidence(text=f"{name} = {told[name]}", source="/proc/sys") for name in names if name in told)


def group_lines(group: Cgroup, *files: str) -> tuple[Evidence, ...]:
    """These files of a cgroup, by their names in version 2, told by those of its own; those not told are left out."""
    shown = []
    for file in files:
        field, old = _FILES[file]
        value: Limit = getattr(group, field)
        if value is not None:
            shown.append(Evidence(text=f"{file if group.version == 2 else old} {value}", source=group.path))
    return tuple(shown)


def process_line(process: Process) -> Evidence:
    """What a process holds, as its status has it."""
    parts = (
        ("oom_score_adj", process.oom_score_adj, 1, ""),
        ("VmRSS", process.rss_bytes, 1024, " kB"),
        ("VmSwap", process.swap_bytes, 1024, " kB"),
        ("VmLck", process.locked_bytes, 1024, " kB"),
        ("private", process.unique_bytes, 1024, " kB"),
    )
    said = ", ".join(f"{name} {value // unit}{end}" for name, value, unit, end in parts if value is not None)
    return Evidence(text=f"{process.comm or '?'}: {said}", source=f"/proc/{process.pid}")


def named(process: Process) -> str:
    """A process by its name and pid, the name marked."""
    return f"process {process.pid}" if process.comm is None else f"{quote(process.comm)} (pid {process.pid})"


def own_bytes(process: Process) -> int:
    """What would be free without it: measured, or what it holds in RAM that is no file, and in swap."""
    if process.unique_bytes is not None:
        return process.unique_bytes + (process.swap_bytes or 0)
    anon = process.rss_anon_bytes if process.rss_anon_bytes is not None else process.rss_bytes
    return (anon or 0) + (process.rss_shmem_bytes or 0) + (process.swap_bytes or 0)


def unreclaimable_bytes(group: Cgroup) -> int | None:
    """What a group holds that is no file cache; None if that was not told."""
    cache = file_cache_bytes(group)
    return None if group.current_bytes is None or cache is None else max(group.current_bytes - cache, 0)


def living(machine: Machine) -> list[Process]:
    """Processes of user space that hold memory."""
    return [one for one in machine.processes if not one.kernel_thread and one.state not in ("Z", "X")]


# -- the limit that an application lives under -------------------------------------------------------------------------


def can_have(machine: Machine, bound: Most) -> str:
    """How much that is, as the second half of a claim."""
    swap = f", and {size(bound.swap_bytes)} of swap" if bound.swap_bytes else ""
    if bound.group is None:
        return f"the machine has {size(bound.memory_bytes)}{swap}"
    whose = quote(called(machine, bound.group.path).name)
    return f"{whose}, which it is in, may hold {size(bound.memory_bytes)}{swap}"


def limit_lines(machine: Machine, bound: Most) -> tuple[Evidence, ...]:
    """The files that say so."""
    if bound.group is None:
        return meminfo_lines(machine, "MemTotal", "SwapTotal")
    return group_lines(bound.group, "memory.max", "memory.swap.max", "memory.memsw.limit_in_bytes")

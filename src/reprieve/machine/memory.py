"""The memory of the whole machine: what the kernel counts, how it is set, where it swaps, and files that are memory.

A file that is not there gives nothing; one that may not be read, or that holds what no kernel writes, gives a gap, and
what can be understood of it still counts.
"""

import os
import re
from dataclasses import replace
from typing import NamedTuple

from reprieve.machine.host import Host
from reprieve.model.finding import Gap
from reprieve.model.machine import Figures, LiveNode, LiveZone, SwapArea, Tmpfs
from reprieve.model.pressure import Pressure
from reprieve.model.rootfs import RootFs

SYSCTLS = (
    *("vm.overcommit_memory", "vm.overcommit_ratio", "vm.overcommit_kbytes"),
    *("vm.panic_on_oom", "vm.oom_kill_allocating_task", "vm.oom_dump_tasks", "vm.memory_failure_early_kill"),
    *("vm.swappiness", "vm.vfs_cache_pressure", "vm.zone_reclaim_mode", "vm.min_unmapped_ratio"),
    *("vm.min_free_kbytes", "vm.watermark_scale_factor", "vm.admin_reserve_kbytes", "vm.user_reserve_kbytes"),
    *("vm.nr_hugepages", "vm.nr_overcommit_hugepages", "vm.max_map_count"),
    *("kernel.dmesg_restrict", "kernel.panic", "kernel.pid_max"),
)


class Mount(NamedTuple):
    """A line of mountinfo."""

    device: str  # its number: "0:25"
    root: str  # what of the file system is mounted: "/" is all of it
    path: str
    kind: str
    options: str  # the file system's own
    mount_options: str = ""  # of the mount: "ro" of either is enough


def number(digits: str) -> int | None:
    """A count as the kernel prints it; None if it is none, or more than any machine counts.

    >>> number("12"), number("-1"), number("1_0"), number("9" * 19)
    (12, None, None, None)
    """
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 18 else None


def read_meminfo(host: Host, gaps: list[Gap]) -> Figures:
    """/proc/meminfo: sizes in bytes, HugePages_* as counts."""
    return _read_figures(host, gaps, "/proc/meminfo")


def read_vmstat(host: Host, gaps: list[Gap]) -> Figures:
    """/proc/vmstat: events since boot, and pages."""
    return _read_figures(host, gaps, "/proc/vmstat")


def read_nodes(host: Host, gaps: list[Gap]) -> tuple[LiveNode, ...]:
    """Each NUMA node that is online, by number; a machine without NUMA has one, or none."""
    folder = "/sys/devices/system/node"
    numbers = (re.fullmatch(r"node([0-9]{1,6})", name) for name in names_in(host, gaps, folder))
    nodes = []
    for node in sorted(int(match[1]) for match in numbers if match):
        figures = _read_figures(host, gaps, f"{folder}/node{node}/meminfo", prefix=f"Node {node} ")
        nodes.append(LiveNode(number=node, meminfo=figures))
    return tuple(nodes)


def read_pressure(host: Host, gaps: list[Gap], path: str = "/proc/pressure/memory") -> tuple[Pressure, ...]:
    """The machine's pressure file; empty where the kernel keeps none."""
    lines = lines_of(host, gaps, path)
    told = [pressure for pressure in map(parse_pressure, lines) if pressure is not None]
    tell_odd(gaps, path, len(lines) - len(told))
    return tuple(told)


def parse_pressure(line: str) -> Pressure | None:
    """A line of a pressure file, the machine's or a cgroup's; None if it is none."""
    average = r"([0-9]{1,3}\.[0-9]{2})"
    match = re.fullmatch(rf"(some|full) avg10={average} avg60={average} avg300={average} total=([0-9]{{1,18}})", line)
    if match is None:
        return None
    kind, avg10, avg60, avg300, total = match.groups()
    return Pressure(
        kind=kind,
        avg10_percent=float(avg10),
        avg60_percent=float(avg60),
        avg300_percent=float(avg300),
        total_us=int(total),
    )


def read_swaps(host: Host, gaps: list[Gap]) -> tuple[SwapArea, ...]:
    """/proc/swaps; empty: none is on, which the kernel says with a heading and no line below it."""
    areas, odd = [], 0
    for line in lines_of(host, gaps, "/proc/swaps"):
        if line.startswith("Filename"):
            continue
        if match := re.fullmatch(r"(\S+)\s+(\w+)\s+([0-9]{1,15})\s+([0-9]{1,15})\s+(-?[0-9]{1,6})", line, re.ASCII):
            name, kind, size, used, priority = match.groups()
            areas.append(
                SwapArea(
                    name=_unescape(name),
                    kind=kind,
                    size_bytes=int(size) * 1024,
                    used_bytes=int(used) * 1024,
                    priority=int(priority),
                )
            )
        else:
            odd += 1
    tell_odd(gaps, "/proc/swaps", odd)
    return tuple(areas)


def read_zones(host: Host, gaps: list[Gap]) -> tuple[LiveZone, ...]:
    """The zones of /proc/zoneinfo, in its order and empty ones too, each with its free blocks of /proc/buddyinfo."""
    blocks = _free_blocks(host, gaps)
    zones: dict[tuple[int, str], dict[str, int]] = {}
    protection: dict[tuple[int, str], tuple[int, ...]] = {}
    at: tuple[int, str] | None = None
    odd = 0
    for line in lines_of(host, gaps, "/proc/zoneinfo"):
        words = line.replace("pages free", "free", 1).split()
        if match := re.fullmatch(_ZONE, line):
            at = int(match[1]), match[2]
            zones[at] = {}
        elif line.startswith("Node") or at is None:
            at, odd = None, odd + 1
        elif len(words) == 2 and words[0] in _ZONE_FIGURES:  # "high:", of a CPU's own list, is another word
            value = number(words[1])
            odd += value is None
            if value is not None:
                zones[at].setdefault(words[0], value)
        elif match := re.fullmatch(r"\s+protection: \(([0-9, ]*)\)", line):
            shares = [number(word.strip()) for word in match[1].split(",")]
            known = tuple(share for share in shares if share is not None)
            odd += len(known) != len(shares)
            protection[at] = known if len(known) == len(shares) else ()
    tell_odd(gaps, "/proc/zoneinfo", odd)
    for at in blocks:
        zones.setdefault(at, {})
    return tuple(
        LiveZone(
            node=node,
            name=name,
            free_pages=figures.get("free"),
            min_pages=figures.get("min"),
            low_pages=figures.get("low"),
            high_pages=figures.get("high"),
            spanned_pages=figures.get("spanned"),
            present_pages=figures.get("present"),
            managed_pages=figures.get("managed"),
            protection_pages=protection.get((node, name), ()),
            free_blocks=blocks.get((node, name), ()),
        )
        for (node, name), figures in zones.items()
    )


def read_tmpfs(host: Host, gaps: list[Gap]) -> tuple[Tmpfs, ...]:
    """The file systems that are memory, each once however often it is mounted.

    Only they are asked how full they are, and only where the way to them leads through no file system that may never
    answer. One that lies below another mount, or belongs to a captured machine, tells its size if it was mounted with
    one, no more.
    """
    found: dict[str, Tmpfs] = {}
    refused: list[str] = []
    mounts = read_mounts(host, gaps)
    for at, (device, _root, path, kind, options, _own) in enumerate(mounts):
        if kind not in ("tmpfs", "devtmpfs", "ramfs") or (device in found and found[device].used_bytes is not None):
            continue
        size = re.search(r"(?:^|,)size=([0-9]{1,15})k(?:,|$)", options)
        tmpfs = Tmpfs(path=path, size_bytes=int(size[1]) * 1024 if size else None, used_bytes=None)
        if not _may_hang(path, mounts[:at], mounts[at + 1 :]):
            try:
                tmpfs = _ask(host, device, tmpfs)
            except (FileNotFoundError, NotADirectoryError):
                pass  # a captured machine, or the mount point is gone from the tree
            except (OSError, ValueError):  # a null byte, in what is no list of mounts
                refused.append(path)
        if device not in found or tmpfs.used_bytes is not None:
            found[device] = tmpfs
    if refused:
        more = f" and {len(refused) - 1} more" if len(refused) > 1 else ""
        gaps.append(Gap(place=refused[0], reason=f"how full it{more} is was not told", hint="run it as root"))
    return tuple(found.values())


def read_root(host: Host, gaps: list[Gap]) -> RootFs | None:
    """The file system of /, the last that was mounted there; how full, if it is that of this machine."""
    mount = next((one for one in reversed(read_mounts(host, gaps)) if one.path == "/"), None)
    if mount is None:
        return None
    read_only = "ro" in {*mount.options.split(","), *mount.mount_options.split(",")}
    found = RootFs(kind=mount.kind, read_only=read_only)
    if host.root or re.match(_SERVED, mount.kind):
        return found
    try:
        state = host.statvfs("/")
    except OSError:
        return found
    unit = state.f_frsize
    return replace(found, size_bytes=state.f_blocks * unit, free_bytes=state.f_bavail * unit)


def read_mounts(host: Host, gaps: list[Gap]) -> list[Mount]:
    """What is mounted as this process sees it, what was mounted later below."""
    for path in ("/proc/self/mountinfo", "/proc/1/mountinfo"):
        lines = lines_of(host, gaps, path)
        if not lines:
            continue
        mount = r"\S+ \S+ ([0-9]+:[0-9]+) (\S+) (\S+) (\S+)(?: \S+)*? - (\S+) \S* (\S*)"
        matches = (re.fullmatch(mount, line) for line in lines)
        mounts = [Mount(m[1], _unescape(m[2]), _unescape(m[3]), m[5], m[6], m[4]) for m in matches if m]
        tell_odd(gaps, path, len(lines) - len(mounts))
        return mounts
    return []


_SYSCTL_A = "/sos_commands/kernel/sysctl_-a"


def read_sysctls(host: Host, gaps: list[Gap]) -> tuple[tuple[str, str], ...]:
    """The settings that bear on memory, of those that this kernel has.

    A sosreport has no /proc/sys, and what `sysctl -a` said in its place.
    """
    values = []
    listed: dict[str, str] = {}
    if host.root:
        lines = (host.text(_SYSCTL_A, gaps) or "").split("\n")
        listed = {name: value for name, sign, value in (line.partition(" = ") for line in lines) if sign}
    for name in SYSCTLS:
        path = "/proc/sys/" + name.replace(".", "/")
        text = host.text(path, gaps)
        if text is None and name in listed:
            path, text = f"{_SYSCTL_A}: {name}", f"{listed[name]}\n"
        if text is None:
            continue
        if re.fullmatch(r"-?[0-9]{1,20}\n", text):
            values.append((name, text.strip()))
        else:
            tell_odd(gaps, path, 1)
    return tuple(values)


def lines_of(host: Host, gaps: list[Gap], path: str) -> list[str]:
    """The lines of a file that hold anything; none, and a gap, where it may not be read or is cut."""
    *whole, rest = (host.text(path, gaps) or "").split("\n")
    if rest:
        gaps.append(Gap(place=path, reason="it ends within a line: the last figure may be cut"))
    return [line for line in whole if line]


def names_in(host: Host, gaps: list[Gap], path: str) -> list[str]:
    """What a folder holds; nothing where there is none, and a gap where it is refused."""
    try:
        return host.names(path)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        gaps.append(Gap(place=path, reason=(error.strerror or str(error)).lower()))
        return []


def tell_odd(gaps: list[Gap], path: str, lines: int) -> None:
    """A gap for lines that were not understood, if there were any."""
    if lines:
        what = "a line" if lines == 1 else f"{lines} lines"
        gaps.append(Gap(place=path, reason=f"{what} of it no kernel is known to write"))


# -- how the kernel writes ---------------------------------------------------------------------------------------------

_SERVED = "nfs|cifs|smb|fuse|ceph|afs|9p|gluster|lustre|gpfs|autofs"  # kinds that begin so wait for somebody
_ZONE = r"Node ([0-9]{1,6}), zone +([A-Za-z0-9]{1,16})"
_ZONE_FIGURES = ("free", "min", "low", "high", "spanned", "present", "managed")


def _read_figures(host: Host, gaps: list[Gap], path: str, prefix: str = "") -> Figures:
    """Lines of a name and a number, in kB or none; kB become bytes."""
    figures, odd = [], 0
    for line in lines_of(host, gaps, path):
        match = re.fullmatch(r"([A-Za-z][A-Za-z0-9_()]{0,63}):?[ \t]+([0-9]{1,15})( kB)?", line.removeprefix(prefix))
        if match and line.startswith(prefix):
            figures.append((match[1], int(match[2]) * (1024 if match[3] else 1)))
        else:
            odd += 1
    tell_odd(gaps, path, odd)
    return tuple(figures)


def _free_blocks(host: Host, gaps: list[Gap]) -> dict[tuple[int, str], tuple[int, ...]]:
    blocks, odd = {}, 0
    for line in lines_of(host, gaps, "/proc/buddyinfo"):
        if match := re.fullmatch(_ZONE + r"((?: +[0-9]{1,15})+) *", line):
            blocks[int(match[1]), match[2]] = tuple(map(int, match[3].split()))
        else:
            odd += 1
    tell_odd(gaps, "/proc/buddyinfo", odd)
    return blocks


def _unescape(name: str) -> str:
    r"""A path as it is: seq_path() in fs/seq_file.c writes blanks, newlines and backslashes in octal, `\040`."""
    return re.sub(r"\\([01][0-7]{2})", lambda octal: chr(int(octal[1], 8)), name)


def _may_hang(path: str, before: list[Mount], after: list[Mount]) -> bool:
    """Does the way to a mount lead through another that a server answers for, or is it below one mounted later?"""
    for above in before:
        if above.path != "/" and f"{path}/".startswith(f"{above.path}/") and re.match(_SERVED, above.kind):
            return True
    return any(f"{path}/".startswith(f"{later.path}/") for later in after)


def _ask(host: Host, device: str, told: Tmpfs) -> Tmpfs:
    """How full the file system is that was mounted there, if it is that which now answers there. Raises OSError."""
    found = os.stat(host.at(told.path)).st_dev
    if device != f"{os.major(found)}:{os.minor(found)}":
        return told
    state = host.statvfs(told.path)
    if not state.f_blocks:  # of a ramfs, and of a tmpfs without a limit, nothing is counted: shmem_statfs()
        return told
    used = (state.f_blocks - state.f_bfree) * state.f_frsize
    return Tmpfs(path=told.path, size_bytes=state.f_blocks * state.f_frsize, used_bytes=used)

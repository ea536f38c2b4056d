"""How large the heap of a runtime may become, by its settings or by its own defaults, and what comes beside it."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from reprieve.model.application import Jvm, NodeJs, Postgres, Redis
from reprieve.model.cgroup import Cgroup
from reprieve.model.machine import Machine
from reprieve.model.process import Process
from reprieve.rules.living.facts import figure
from reprieve.units import GIB, KIB, MIB, size


class Heap(NamedTuple):
    """The most it may become."""

    count_bytes: int
    how: str  # what makes it so, to be said behind it
    told: str | None  # the setting, by the runtime's name; None: its default


Part = tuple[str, int]  # what it is for, and how many bytes


def total(parts: Sequence[Part]) -> int:
    """All parts together."""
    return sum(count for _, count in parts)


def formula(parts: Sequence[Part]) -> str:
    """All parts, and their sum."""
    return " + ".join(f"{size(count)} {name}" for name, count in parts) + f" = {size(total(parts))}"


def _share(whole: int, percentage: float) -> int:
    return int(whole * min(max(0.0, percentage), 100.0) / 100)


def process_of(machine: Machine, runtime: Jvm | NodeJs | Postgres | Redis) -> Process | None:
    """The process that it is."""
    pid, start = runtime.pid, runtime.start_ticks
    return next((one for one in machine.processes if one.pid == pid and one.start_ticks == start), None)


# -- the JVM -----------------------------------------------------------------------------------------------------------
# Arguments::set_heap_size() in src/hotspot/share/runtime/arguments.cpp, and the flags' defaults in globals.hpp.

_SMALL_HEAP = 96 * MIB * 13 // 10 // 8 * 8  # MaxHeapSize before anything is known: ScaleForWordSize(96*M)
_MAX_RAM = 128 * GIB  # more is not counted, unless a percentage or MaxRAM is told
_COMPRESSED = 30 * GIB - 32 * MIB  # the largest heap with 32-bit references that starts at 2 GiB
_SERVER = 1792 * MIB  # of memory and two CPUs make it choose G1: os::is_server_class_machine()


def of_jvm(machine: Machine, jvm: Jvm) -> Heap | None:
    """MaxHeapSize; None if it depends on memory that is not told. HotSpot rounds up to regions of 1 to 32 MiB."""
    if jvm.max_heap_size_bytes is not None:
        return Heap(jvm.max_heap_size_bytes, "by -Xmx", "MaxHeapSize")
    seen = jvm.max_ram_bytes or seen_by_jvm(machine, jvm)
    if seen is None:
        return None
    fixed = (jvm.max_ram_bytes, jvm.max_ram_percentage, jvm.min_ram_percentage, jvm.initial_ram_percentage)
    plain = all(one is None for one in fixed)
    seen = min(seen, _MAX_RAM) if plain else seen
    name, share = "MaxRAMPercentage", jvm.max_ram_percentage
    heap = max(_share(seen, 25.0 if share is None else share), _SMALL_HEAP)
    how = "the least by default"
    if (small := _share(seen, jvm.min_ram_percentage or 50.0)) < _SMALL_HEAP:
        name, share, heap = "MinRAMPercentage", jvm.min_ram_percentage, small
    elif plain:
        heap = min(heap, _COMPRESSED)
    if heap != _SMALL_HEAP:
        percentage = share if share is not None else 50.0 if name == "MinRAMPercentage" else 25.0
        how = f"{percentage:g} % ({name}{', the default' if share is None else ''})"
    how += f" of the {size(seen)} that it takes for its memory"
    return Heap(max(heap, jvm.initial_heap_size_bytes or 0), how, None if share is None else name)


def seen_by_jvm(machine: Machine, jvm: Jvm) -> int | None:
    """How much memory the JVM takes itself to have: that of the machine, or of the cgroups it looks at."""
    ram, process = figure(machine, "MemTotal"), process_of(machine, jvm)
    if ram is None or process is None or jvm.use_container_support is False:
        return ram
    groups = {group.path: group for group in machine.cgroups}
    own = groups.get(process.cgroup or "/")
    if own is None or not _looks(jvm.java_version, own.version):
        return ram
    limits = [own.max_bytes]
    if own.version == 1:  # 8217338 ("Improve systemd slice memory limit support")
        limits.append(dict(own.stat).get("hierarchical_memory_limit"))
    elif _release(jvm.java_version) >= (24, 0):  # 8322420 ("cgroup v2: Limits in parent nested control groups …")
        limits += [group.max_bytes for group in groups.values() if own.path.startswith(f"{group.path.rstrip('/')}/")]
    return min([ram, *(limit for limit in limits if isinstance(limit, int))])


def _looks(version: str | None, cgroups: int) -> bool:
    """Does it look at limits of cgroups? Version 1 since 8146115, version 2 since 8230305; both were ported back."""
    release = _release(version)
    if cgroups == 1:
        return release >= (10, 0) or (8, 191) <= release < (9, 0)
    return release >= (15, 0) or (11, 16) <= release < (12, 0) or (8, 372) <= release < (9, 0)


def _release(version: str | None) -> tuple[int, int]:
    """Feature and update release: (8, 372) of "1.8.0_372", (17, 15) of "17.0.15"; one of today if it is not known."""
    numbers = [int(number) for number in re.findall(r"[0-9]{1,6}", version or "")] or [17]
    if numbers[0] == 1:  # "1.8.0_372"
        numbers = [*numbers[1:2], 0, *numbers[3:4]]
    return numbers[0], numbers[2] if len(numbers) > 2 else 0


# Measured with native memory tracking, OpenJDK 17 and 25, heaps of 256 MiB and 1 GiB nearly full: its tables and
# bitmaps are 2.0 to 4.1 % of the heap and up to 36 MiB besides, Serial's 0.3 %.
COLLECTOR = "for its collector"
_COLLECTOR_LEAST, _COLLECTOR_MOST = 1 / 64, 1 / 12
_SERIAL = 1 / 256
_ITSELF = 12 * MIB  # classes, code and threads of one that does nothing: 16 to 22 MiB, measured
_CODE_CACHE = 240 * MIB  # ReservedCodeCacheSize, with tiered compilation
_STACK = MIB  # ThreadStackSize on 64-bit Linux


def least_of_jvm(machine: Machine, jvm: Jvm, heap: Heap) -> tuple[Part, ...]:
    """What it holds at least when the heap is full."""
    share = _SERIAL if _is_serial(machine, jvm) else _COLLECTOR_LEAST
    return (
        ("heap", heap.count_bytes),
        (COLLECTOR, int(heap.count_bytes * share)),
        ("for the JVM itself", _ITSELF),
    )


def most_of_jvm(machine: Machine, jvm: Jvm, heap: Heap) -> tuple[Part, ...]:
    """What it may hold when everything that has a bound is at it. Direct memory has the heap's, if none of its own."""
    share = _SERIAL if _is_serial(machine, jvm) else _COLLECTOR_MOST
    process = process_of(machine, jvm)
    threads = (process.threads if process is not None else None) or 1
    stack, direct, code = (
        jvm.thread_stack_size_bytes or _STACK,
        jvm.max_direct_memory_size_bytes or heap.count_bytes,
        jvm.reserved_code_cache_size_bytes or _CODE_CACHE,
    )
    parts = (
        ("heap", heap.count_bytes),
        (COLLECTOR, int(heap.count_bytes * share)),
        ("direct memory", direct),
        ("code cache", code),
        (f"stacks ({threads} × {size(stack)})", threads * stack),
    )
    metaspace = jvm.max_metaspace_size_bytes
    return (*parts, ("for the JVM itself", _ITSELF) if metaspace is None else ("metaspace", metaspace))


def told_beside(jvm: Jvm) -> tuple[Part, ...]:
    """What it was told that it may hold beside the heap."""
    parts = (
        ("direct memory", jvm.max_direct_memory_size_bytes),
        ("metaspace", jvm.max_metaspace_size_bytes),
        ("code cache", jvm.reserved_code_cache_size_bytes),
    )
    return tuple((name, count) for name, count in parts if count is not None)


def _is_serial(machine: Machine, jvm: Jvm) -> bool:
    if jvm.collector is not None:
        return jvm.collector in ("Serial", "Epsilon")
    return (machine.cpus or 2) < 2 or (seen_by_jvm(machine, jvm) or _SERVER) < _SERVER


# -- Node.js -----------------------------------------------------------------------------------------------------------
# ResourceConstraints::ConfigureDefaults() and Heap::HeapSizeFromPhysicalMemory() in V8's src/heap/heap.cc; Node gives
# it the lower of RAM and uv_get_constrained_memory().

_OLD_LEAST, _OLD_MOST, _OLD_MOST_LARGE = 256 * MIB, 2 * GIB, 4 * GIB
_LARGE = 15 * GIB  # of memory, from which on the old space may be larger
_SEMI_MOST = 16 * MIB  # until V8 12; later versions allow more
_NODE_ITSELF = 8 * MIB  # beside V8's heaps and the program's file, of one that does nothing


def of_node(machine: Machine, node: NodeJs) -> Heap | None:
    """The old space, where V8 ends the process; None if it depends on memory that is not told."""
    seen = seen_by_node(machine, node)
    if node.max_old_space_size_bytes is not None:
        told = node.max_old_space_size_bytes
        return Heap(told, "by --max-old-space-size", "max-old-space-size")
    if node.max_heap_size_bytes is not None:
        young = 3 * _semi_space(machine, node)
        told = node.max_heap_size_bytes
        return Heap(max(told - young, 0), "by --max-heap-size", "max-heap-size")
    if seen is None:
        return None
    if node.max_old_space_size_percentage is not None:
        share = node.max_old_space_size_percentage
        how = f"{share:g} % (--max-old-space-size-percentage) of the {size(seen)} that it takes for its memory"
        return Heap(_share(seen, share), how, "max-old-space-size-percentage")
    return Heap(_default_old_space(seen), f"the default for the {size(seen)} that it takes for its memory", None)


def _default_old_space(seen_bytes: int) -> int:
    return max(min(seen_bytes // 2, _OLD_MOST_LARGE if seen_bytes >= _LARGE else _OLD_MOST), _OLD_LEAST)


def seen_by_node(machine: Machine, node: NodeJs) -> int | None:
    """How much memory Node takes itself to have: of its own cgroup, none above it, or of the machine.

    libuv looks at version 2 since 1.45: no Node before 18 has it.
    """
    ram, process = figure(machine, "MemTotal"), process_of(machine, node)
    if ram is None or process is None:
        return ram
    own = next((group for group in machine.cgroups if group.path == process.cgroup), None)
    if own is None or (own.version == 2 and _looks_past(node.node_version)):
        return ram
    return min([ram, *_own_limits(own)])


def _looks_past(version: str | None) -> bool:
    match = re.match(r"[0-9]{1,4}(?=\.)", version or "")
    return match is not None and int(match[0]) < 18


def _own_limits(group: Cgroup) -> list[int]:
    limits = (group.max_bytes, group.high_bytes if group.version == 2 else group.soft_limit_bytes)
    return [limit for limit in limits if isinstance(limit, int)]


def _semi_space(machine: Machine, node: NodeJs) -> int:
    """Of the young space, which is three of them; a power of two."""
    told = node.max_semi_space_size_bytes
    if told is None:
        old = _default_old_space(seen_by_node(machine, node) or 0)
        told = min(max(old // (256 if old <= _OLD_LEAST else 128), 512 * KIB), _SEMI_MOST)
    return 1 << (told - 1).bit_length()


def least_of_node(machine: Machine, node: NodeJs, old: Heap) -> tuple[Part, ...]:
    """What it holds at least when V8's heap is full; buffers lie outside it, and nothing bounds them."""
    young = 3 * _semi_space(machine, node)
    return ("old space", old.count_bytes), ("young space", young), ("for Node itself", _NODE_ITSELF)

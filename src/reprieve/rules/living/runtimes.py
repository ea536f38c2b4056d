"""Runtimes with a heap that does not fit under the limit they live under: the JVM, Node.js."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

from reprieve.model.application import Jvm, NodeJs
from reprieve.model.finding import Evidence, Finding, Remedy, quote
from reprieve.model.machine import Machine
from reprieve.model.process import Process
from reprieve.model.snapshot import Snapshot
from reprieve.oom.groups import Most, most, owner
from reprieve.rules.amounts import heap_beside, limit_for_heap
from reprieve.rules.living.facts import can_have, limit_lines, named, process_line
from reprieve.rules.living.heaps import (
    COLLECTOR,
    Heap,
    Part,
    formula,
    least_of_jvm,
    least_of_node,
    most_of_jvm,
    of_jvm,
    of_node,
    process_of,
    seen_by_jvm,
    seen_by_node,
    told_beside,
    total,
)
from reprieve.rules.living.higher import raise_to
from reprieve.units import MIB, size


class _Case(NamedTuple):
    """A runtime, what it may come to hold, and what it can have."""

    machine: Machine
    runtime: Jvm | NodeJs
    process: Process
    heap: Heap
    bound: Most
    alike: int  # how many more in its group are as it is, as workers are

    @property
    def room_bytes(self) -> int:
        """What it can have, if nobody else in the group holds anything."""
        return self.bound.memory_bytes + self.bound.swap_bytes


def jvm_heap_exceeds_limit(snapshot: Snapshot) -> Iterator[Finding]:
    """The heap of a JVM may become larger than fits under the limit that it lives under.

    A JVM collects when its heap nears its own bound, -Xmx, and lets it grow until then: garbage alone fills it. If the
    kernel's limit is met first, it is killed instead, without a word of Java, and HeapDumpOnOutOfMemoryError writes
    nothing. Unless told otherwise the bound is a quarter of the memory that it takes itself to have, half on the
    smallest; it looks for that once, at its start, and it may look past a limit: with -XX:-UseContainerSupport, before
    8u191 and 10 (cgroups of version 2: 8u372, 11.0.16, 15), and on version 2 before 24 at the limit of a group above
    its own. What is no heap, classes, code, stacks, buffers, tables of the collector, comes on top. Silent where the
    full heap and a bare JVM fit, with the swap that it may use: what an application needs beside its heap is not seen.

    Source: Arguments::set_heap_size() in src/hotspot/share/runtime/arguments.cpp; JDK-8146115, 8230305 and 8322420.
    """
    for jvm, case in _jvms(snapshot.machine):
        least = least_of_jvm(case.machine, jvm, case.heap)
        if total(least) <= case.room_bytes:
            continue
        seen = None if case.heap.told == "MaxHeapSize" else seen_by_jvm(case.machine, jvm)
        yield _finding(
            "jvm-heap-exceeds-limit",
            case,
            claim=f"{_named(case)} needs {size(total(least))} or more once its heap is full",
            parts=least,
            detail=(
                f"Its heap may become {size(case.heap.count_bytes)}, {case.heap.how}; full, that is {formula(least)}.",
                *_overlooked(case, seen),
                f"With all that its settings and defaults allow: {_most_of(case, jvm)}.",
            ),
        )


def jvm_settings_exceed_limit(snapshot: Snapshot) -> Iterator[Finding]:
    """The heap of a JVM fits under its limit, but not with all else that it was told it may hold.

    -XX:MaxDirectMemorySize, MaxMetaspaceSize and ReservedCodeCacheSize each bound a part beside the heap; nothing
    bounds their sum but the kernel's limit. Bounds that nobody set are not counted here, though they exist: direct
    memory may be as large as the heap, and classes have none.

    Source: the java command's manual, "Advanced Runtime Options"; src/hotspot/share/runtime/globals.hpp.
    """
    for jvm, case in _jvms(snapshot.machine):
        least, beside = least_of_jvm(case.machine, jvm, case.heap), told_beside(jvm)
        parts = (*least, *beside)
        if total(least) > case.room_bytes or total(parts) <= case.room_bytes:
            continue
        yield _finding(
            "jvm-settings-exceed-limit",
            case,
            claim=f"{_named(case)} was told that it may hold {size(total(parts))}",
            parts=parts,
            detail=(
                f"That is {formula(parts)}.",
                f"With what was not told, by its defaults: {_most_of(case, jvm)}.",
            ),
            severity="notice",
        )


def node_heap_exceeds_limit(snapshot: Snapshot) -> Iterator[Finding]:
    """The heap of a Node.js process may become larger than fits under the limit that it lives under.

    V8 lets its old space grow to its own bound, --max-old-space-size, before it does all it can to collect; at that
    bound it ends the process with a stack trace, and at the kernel's limit the process is killed without one. The bound
    is of the old space, not of what the process holds: the young space comes on top, and so do Buffers, which nothing
    bounds. Unless told otherwise it is half of the memory that Node takes itself to have, 256 MiB at least, 2 GiB at
    most, 4 GiB from 15 GiB on. Node looks at the limit of its own cgroup alone, not at those above; before 18 not at
    cgroups of version 2. Worker threads have a heap each: they are not counted.

    Source: Heap::HeapSizeFromPhysicalMemory() in V8's src/heap/heap.cc; uv_get_constrained_memory() in libuv.
    """
    for node, case in _each(snapshot.machine, () if snapshot.machine is None else snapshot.machine.nodes_js, of_node):
        least = least_of_node(case.machine, node, case.heap)
        if total(least) <= case.room_bytes:
            continue
        yield _finding(
            "node-heap-exceeds-limit",
            case,
            claim=f"{_named(case)} needs {size(total(least))} or more once its heap is full",
            parts=least,
            detail=(
                f"Its old space may become {size(case.heap.count_bytes)}, {case.heap.how}; full, that is "
                f"{formula(least)}.",
                *_overlooked(case, None if case.heap.told else seen_by_node(case.machine, node)),
            ),
        )


_Runtime = TypeVar("_Runtime", Jvm, NodeJs)


def _jvms(machine: Machine | None) -> list[tuple[Jvm, _Case]]:
    return _each(machine, () if machine is None else machine.jvms, of_jvm)


def _each(
    machine: Machine | None,
    runtimes: Iterable[_Runtime],
    heap_of: Callable[[Machine, _Runtime], Heap | None],
) -> list[tuple[_Runtime, _Case]]:
    """Those of which enough is known; of several that are alike in one group the first."""
    found: dict[tuple[str, str | None, Heap], tuple[_Runtime, _Case]] = {}
    for runtime in runtimes:
        if machine is None or (process := process_of(machine, runtime)) is None:
            continue
        path = process.cgroup or "/"
        heap, bound = heap_of(machine, runtime), most(machine, path)
        if heap is None or bound is None:
            continue
        first = found.get((path, process.comm, heap))
        if first is None:
            found[path, process.comm, heap] = runtime, _Case(machine, runtime, process, heap, bound, alike=0)
        else:
            found[path, process.comm, heap] = first[0], first[1]._replace(alike=first[1].alike + 1)
    return list(found.values())


def _named(case: _Case) -> str:
    return named(case.process) + (f", one of {case.alike + 1} alike," if case.alike else "")


def _finding(
    code: str,
    case: _Case,
    *,
    claim: str,
    parts: Sequence[Part],
    detail: tuple[str, ...],
    severity: str = "warning",
) -> Finding:
    path, unseen = case.process.cgroup or "/", " and the ".join(map(_plain, case.runtime.unseen))
    if unseen:
        detail += (f"The {unseen} of the process could not be read: what is told there may make it otherwise.",)
    return Finding(
        code=code,
        severity=severity,
        confidence="possible" if unseen else "likely",
        claim=f"{claim}, and {can_have(case.machine, case.bound)}",
        detail=detail,
        about=owner(path, case.machine.containers),
        subject=f"{path} {case.process.comm or case.process.pid}",
        evidence=(process_line(case.process), *_told_lines(case.runtime), *limit_lines(case.machine, case.bound)),
        remedies=(*_lower(case, parts), *_raise(case, total(parts) - case.heap.count_bytes)),
    )


def _overlooked(case: _Case, seen_bytes: int | None) -> tuple[str, ...]:
    """Where it does not know of the limit, and counts on what it knows."""
    if seen_bytes is None or case.bound.group is None or seen_bytes <= case.bound.memory_bytes:
        return ()
    return (f"It does not see that limit: it takes itself to have {size(seen_bytes)}.",)


def _most_of(case: _Case, jvm: Jvm) -> str:
    said = formula(most_of_jvm(case.machine, jvm, case.heap))
    return said if jvm.max_metaspace_size_bytes is not None else f"{said}, and classes (metaspace) without a bound"


_FIELDS = {
    "MaxHeapSize": "max_heap_size_bytes",
    "InitialHeapSize": "initial_heap_size_bytes",
    "MaxRAM": "max_ram_bytes",
    "MaxRAMPercentage": "max_ram_percentage",
    "MinRAMPercentage": "min_ram_percentage",
    "MaxMetaspaceSize": "max_metaspace_size_bytes",
    "MaxDirectMemorySize": "max_direct_memory_size_bytes",
    "ReservedCodeCacheSize": "reserved_code_cache_size_bytes",
    "UseContainerSupport": "use_container_support",
    "max-old-space-size": "max_old_space_size_bytes",
    "max-old-space-size-percentage": "max_old_space_size_percentage",
    "max-semi-space-size": "max_semi_space_size_bytes",
    "max-heap-size": "max_heap_size_bytes",
}


_PLACES = ("command line", "JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS", "NODE_OPTIONS", "environment")


def _plain(place: str) -> str:
    """Where something is told: a snapshot may name another place than we do."""
    return place if place in (*_PLACES, "option file") else quote(place)


def _told_lines(runtime: Jvm | NodeJs) -> Iterator[Evidence]:
    for name, origin in runtime.origins:
        value = getattr(runtime, _FIELDS.get(name, ""), None)
        if value is not None:
            yield Evidence(text=f"{name} = {value} ({origin})", source=f"/proc/{runtime.pid}")


def _lower(case: _Case, parts: Sequence[Part]) -> tuple[Remedy, ...]:
    """A heap that fits; none where nothing would. What its collector takes follows the heap."""
    limit, collector = case.bound.memory_bytes, dict(parts).get(COLLECTOR, 0)
    beside = total(parts) - case.heap.count_bytes - collector
    fitting = heap_beside(limit, beside + (limit // 64 if collector else 0))
    if fitting is None or fitting.count_bytes >= case.heap.count_bytes:
        return ()
    mib = fitting.count_bytes // MIB
    option, where = f"-Xmx{mib}m", "in JAVA_TOOL_OPTIONS, or before the main class"
    cost = "more collections; where it was killed it throws OutOfMemoryError, which can write a heap dump"
    if isinstance(case.runtime, NodeJs):
        option, where = f"--max-old-space-size={mib}", "in NODE_OPTIONS, or before the script"
        cost = "it ends itself with a stack trace (exit 134) where it was killed; buffers are outside this bound"
    origin = dict(case.runtime.origins).get(case.heap.told or "")
    if origin is not None:
        where = f"instead of {case.heap.told} ({_plain(origin)})"
    title = f"Bound the heap below the limit: {option}, {where}"
    return (Remedy(title=title, cost=cost, amount=fitting.formula),)


def _raise(case: _Case, beside: int) -> Iterator[Remedy]:
    """A limit under which the heap fits, if so much can be had; a default heap would follow it upwards."""
    amount = limit_for_heap(case.heap.count_bytes, beside)
    yield from raise_to(case.machine, case.bound, amount, ", if it needs that heap")

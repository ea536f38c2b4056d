"""Whose a cgroup is, which limit it meets first, and how much it may still take."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from posixpath import commonpath
from typing import NamedTuple

from reprieve.model.cgroup import Cgroup, Limit
from reprieve.model.machine import Container, Machine, SwapArea, Zram
from reprieve.model.workload import Workload
from reprieve.model.zram import RATIO
from reprieve.oom.paths import workload
from reprieve.oom.reclaim import swaps
from reprieve.units import MIB

_MEASURED = 16 * MIB  # stored on zram: of less its own upkeep is a good part
HERE = "this container"  # of whose view the groups around it are no part


class Bound(NamedTuple):
    """The group whose limit is met first; in bytes."""

    group: Cgroup
    limit_bytes: int
    headroom_bytes: int  # what may be charged until a kill: free below it, what can be given up, and swap
    cache_bytes: int | None  # of the headroom, what can be given up; None: not known, and none is counted
    swap_bytes: int = 0  # of the headroom, what has to go to swap for it


def ancestors(path: str) -> Iterator[str]:
    """The groups a group is in, the nearest first: "/a", "/" for "/a/b"."""
    while path != "/":
        path = path.rpartition("/")[0] or "/"
        yield path


def owner(path: str, containers: Iterable[Container]) -> Workload:
    """The workload whose cgroup this is; a container, and its pod, by the names they were given."""
    found = workload(path)
    for container in containers:
        if container.container_id == found.container_id and container.name:
            pod = container.pod or found.pod_uid
            if found.pod_uid is None or pod is None:
                return replace(found, name=found.name.replace(container.container_id[:12], container.name))
            return replace(found, name=f"container {container.name} of pod {pod}")
    return found


def called(machine: Machine, path: str) -> Workload:
    """The same, where the path is of that machine: of a container's view, "/" is the container's own group."""
    found = owner(path, machine.containers)
    return replace(found, kind="container", name=HERE) if path == "/" and machine.cgroup_private else found


def file_cache_bytes(group: Cgroup) -> int | None:
    """File pages on the LRU lists, of the group and those below it: shmem is not on them, locked pages neither.

    None if memory.stat does not tell of both lists.
    """
    stat = dict(group.stat)
    prefix = "total_" if group.version == 1 else ""
    inactive, active = stat.get(f"{prefix}inactive_file"), stat.get(f"{prefix}active_file")
    return None if inactive is None or active is None else inactive + active


def reclaimable_bytes(group: Cgroup) -> int | None:
    """What the kernel can give up for the group at its limit: file cache, and slab of which the kernel says so.

    Of dentries and inodes those in use stay, so it is at most that. Version 1 tells no slab. None: as above.
    """
    cache = file_cache_bytes(group)
    return None if cache is None else cache + dict(group.stat).get("slab_reclaimable", 0)


MaySwap = Callable[[Cgroup], int]  # how much of what a group holds the kernel could swap out now, in bytes


def _nothing(group: Cgroup) -> int:
    return 0


def tightest(groups: Mapping[str, Cgroup], path: str, may_swap: MaySwap = _nothing) -> Bound | None:
    """The limit that the group at `path` meets first, its own or one above it; None if it is under none we know.

    Charging goes from the group upwards and stops at the first that is full (try_charge_memcg() in mm/memcontrol.c): of
    equals the nearest counts. Version 1 has a second limit, of memory and swap together.
    """
    around = _upwards(groups, path)
    bounds = [bound for group in around if (bound := own_bound(group, may_swap(group))) is not None]
    return min(bounds, key=lambda bound: bound.headroom_bytes, default=None)


class Most(NamedTuple):
    """What a group can ever hold, were it alone; in bytes."""

    group: Cgroup | None  # whose limit it is, its own or one above it; None: all memory of the machine
    memory_bytes: int
    swap_bytes: int  # besides


def most(machine: Machine, path: str) -> Most | None:
    """The lowest limit that the group at `path` is under, whatever is used of it; None if there is not even RAM."""
    ram = dict(machine.meminfo).get("MemTotal")
    if ram is None:
        return None
    groups = {group.path: group for group in machine.cgroups}
    lowest = Most(group=None, memory_bytes=ram, swap_bytes=dict(machine.meminfo).get("SwapTotal", 0))
    for group in _upwards(groups, path):
        if isinstance(group.max_bytes, int) and group.max_bytes < lowest.memory_bytes:
            lowest = lowest._replace(group=group, memory_bytes=group.max_bytes)
        swap = swap_allowed(group)
        if isinstance(swap, int):
            lowest = lowest._replace(swap_bytes=min(swap, lowest.swap_bytes))
    return lowest


def own_bound(group: Cgroup, swap_bytes: int = 0) -> Bound | None:
    """The limit of this very group, of which so much may be swapped out; None if it has none we know.

    What is swapped out leaves the limit of memory, and stays in that of memory and swap together.
    """
    cache = reclaimable_bytes(group)
    bounds = []
    for limit, current, swap in (
        (group.max_bytes, group.current_bytes, swap_bytes),
        (group.memsw_max_bytes, group.memsw_current_bytes, 0),
    ):
        if isinstance(limit, int) and current is not None:
            given_up = None if cache is None else min(cache, current)
            headroom = max(limit - current + (given_up or 0) + swap, 0)
            bounds.append(Bound(group, limit, headroom, given_up, min(swap, headroom)))
    return min(bounds, key=lambda bound: bound.headroom_bytes, default=None)


def by_headroom(groups: Iterable[Cgroup], may_swap: MaySwap = _nothing) -> list[Bound]:
    """The limits of the groups that hold anything, the one that is met first by the same growth of all first.

    A limit that the group above has too is told once, of that group, which is full no later: crun puts the limits of a
    container on a group within its scope again, and a pod of one container has the limit of that.
    """
    holding = {group.path: group for group in groups if group.current_bytes}
    bounds = {
        path: bound for path, group in holding.items() if (bound := own_bound(group, may_swap(group))) is not None
    }
    told = [bound for path, bound in bounds.items() if not _repeats(bound, bounds.get(next(ancestors(path), "")))]
    return sorted(told, key=lambda bound: bound.headroom_bytes)


def _repeats(bound: Bound, above: Bound | None) -> bool:
    return (
        above is not None
        and above.limit_bytes == bound.limit_bytes
        and above.headroom_bytes <= bound.headroom_bytes  # else, in version 1, it does not count what is below it
    )


class Room(NamedTuple):
    """A place where memory runs out, and what may still be taken there until it does; in bytes."""

    path: str | None  # the group whose limit it is; None: the machine and its swap
    limit_bytes: int
    left_bytes: int
    swap_bytes: int = 0  # of what is left, what has to go to swap for it


def rooms(machine: Machine) -> list[Room]:
    """Where memory can run out, by how much is left there: the machine, and the limits of its groups.

    The root group has none; a group "/" that has one is the container's whose view this is. Where nobody is, it does
    not run out: see `nearest()`.
    """
    found = [_room(bound) for bound in by_headroom(machine.cgroups, swappable(machine))]
    found += [whole] if (whole := _whole(machine)) is not None else []
    return sorted(found, key=lambda room: room.left_bytes)


def nearest(machine: Machine) -> list[Room]:
    """Where memory runs out first, of what anybody can meet."""
    return met_first(machine, rooms(machine))


def met_first(machine: Machine, found: Iterable[Room]) -> list[Room]:
    """Of `rooms()` those that anybody can meet: a task is in them, or not all who may be are seen.

    A group whose tasks are all in one within it that is full before it is never full itself, and is left out.
    """
    sees_all = _sees_all(machine)
    homes = Counter(path for home in _homes(machine) for path in (home, *ancestors(home)))
    told: list[Room] = []
    never: set[str | None] = set()
    for room in found:
        if room.path in never or (sees_all and room.path is not None and not homes[room.path]):
            continue
        told.append(room)
        if sees_all and room.path is not None:
            never.update(path for path in ancestors(room.path) if homes[path] == homes[room.path])
    return told


def home(machine: Machine, path: str) -> str:
    """The innermost group that holds all who are in that one: a container may have made one for its processes.

    Where not all who may be in it are seen, the group itself.
    """
    below = f"{path.rstrip('/')}/"
    within = [one for one in _homes(machine) if one == path or one.startswith(below)] if _sees_all(machine) else []
    return commonpath(within) if within else path


def _sees_all(machine: Machine) -> bool:
    """Threads of the kernel are in the first pid namespace alone, and hidepid hides them; in a container's view of
    groups there are no others than its own.
    """
    return machine.cgroup_private or any(process.kernel_thread for process in machine.processes)


def _homes(machine: Machine) -> set[str]:
    """The groups with a process in them."""
    homes = {process.cgroup for process in machine.processes if process.cgroup is not None}
    return homes | {group.path for group in machine.cgroups if group.pids}


def first_full(machine: Machine, path: str) -> Room | None:
    """Where memory runs out first for what grows in a group, and how much that may take until then; None: not told."""
    path = home(machine, path)
    groups = {group.path: group for group in machine.cgroups}
    counted = next((one for one in (path, *ancestors(path)) if one in groups), path)  # its own may lack the controller
    bound, whole = tightest(groups, counted, swappable(machine)), _whole(machine)
    if bound is None or (whole is not None and whole.left_bytes < bound.headroom_bytes):
        return whole
    return _room(bound)


def _room(bound: Bound) -> Room:
    return Room(bound.group.path, bound.limit_bytes, bound.headroom_bytes, bound.swap_bytes)


def _whole(machine: Machine) -> Room | None:
    """The machine and its swap, of that on zram what it saves; None: not told."""
    facts = dict(machine.meminfo)
    total, available = facts.get("MemTotal"), facts.get("MemAvailable")
    if total is None or available is None:
        return None
    swap = int(facts.get("SwapFree", 0) * (1 - stays_in_memory(machine))) if swaps(machine) else 0
    return Room(None, total + facts.get("SwapTotal", 0), available + swap, swap)


def stays_in_memory(machine: Machine) -> float:
    """Of what is swapped out from now on, which part takes memory all the same: of zram what it cannot make smaller.

    As measured where a device has enough in it, else by the ratio that is expected.
    """
    devices = {device.name: device for device in machine.zram}
    free = stays = 0.0
    for area in machine.swaps:
        left = max(area.size_bytes - area.used_bytes, 0)
        free += left
        stays += left * _share(devices.get(_base(area))) if is_on_zram(area) else 0
    return stays / free if free else free


def is_on_zram(area: SwapArea) -> bool:
    """Is it memory that is swapped to?"""
    return area.kind == "partition" and _base(area).startswith("zram")


def _base(area: SwapArea) -> str:
    """Of /dev/zram0; Android has it as /dev/block/zram0."""
    return area.name.rpartition("/")[2]


def _share(device: Zram | None) -> float:
    if device is None or device.used_bytes is None or (device.stored_bytes or 0) < _MEASURED:
        return 1 / RATIO
    return min(device.used_bytes / (device.stored_bytes or 1), 1.0)


def swappable(machine: Machine) -> MaySwap:
    """Of each group of a machine how much of what it holds the kernel could swap out now."""
    groups = {group.path: group for group in machine.cgroups}
    free = dict(machine.meminfo).get("SwapFree", 0)
    return lambda group: may_swap(machine, groups, group, free)


def may_swap(
    machine: Machine, groups: Mapping[str, Cgroup], group: Cgroup, free_bytes: int, taken_bytes: int = 0
) -> int:
    """How much the kernel could swap out for the limit of a group, with so much swap free.

    `taken_bytes` of what is left to the group and those above it is not theirs any more.
    """
    swappiness = group.swappiness
    if swappiness == 0 or (swappiness is None and dict(machine.sysctls).get("vm.swappiness") == "0"):
        return 0  # at a limit nothing is swapped then: get_scan_count() in mm/vmscan.c
    room = swap_room(groups, group.path)
    return max(min(room - taken_bytes, free_bytes), 0) if isinstance(room, int) else max(free_bytes, 0)


def swap_room(groups: Mapping[str, Cgroup], path: str) -> Limit:
    """How much more the group may swap out, by its own limit and those above it; "max" if none limits it."""
    room: Limit = "max"
    for group in _upwards(groups, path):
        limit, current = swap_allowed(group), group.swap_current_bytes
        if isinstance(limit, int) and current is not None:
            left = max(limit - current, 0)
            room = min(room, left) if isinstance(room, int) else left
    return room


def counts_swap(group: Cgroup) -> bool:
    """Does the kernel count what the group has in swap? It has no file of it where it does not.

    Not without CONFIG_MEMCG_SWAP, nor with `swapaccount=0`, Debian's default before 5.8, until b25806dcd3d5 (v6.1).
    """
    if group.version == 1:
        return group.memsw_current_bytes is not None or group.memsw_max_bytes is not None
    return group.swap_current_bytes is not None or group.swap_max_bytes is not None


def swap_allowed(group: Cgroup) -> Limit:
    """What its own limit leaves to swap: version 1 limits memory and swap together."""
    limit = group.swap_max_bytes
    if group.version == 1:
        limit = group.memsw_max_bytes
        if isinstance(limit, int) and isinstance(group.max_bytes, int):
            limit = max(limit - group.max_bytes, 0)
    return limit


def _upwards(groups: Mapping[str, Cgroup], path: str) -> Iterator[Cgroup]:
    """The group and those above it that its memory is charged to.

    On version 1 below 5.11 memory.use_hierarchy may be off: then the limits above do not hold, and
    hierarchical_memory_limit, the least of those that do, is above theirs.
    """
    if (own := groups.get(path)) is None:
        return
    yield own
    least = dict(own.stat).get("hierarchical_memory_limit", 0)
    for above in ancestors(path):
        group = groups.get(above)
        if group is not None and not (isinstance(group.max_bytes, int) and group.max_bytes < least):
            yield group

"""Whose a cgroup is, which limit it meets first, and how much it may still take."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

from reprieve.model.cgroup import Cgroup, Limit
from reprieve.model.machine import Container, Machine
from reprieve.model.workload import Workload
from reprieve.oom.paths import workload


class Bound(NamedTuple):
    """The group whose limit is met first; in bytes."""

    group: Cgroup
    limit_bytes: int
    headroom_bytes: int  # what may be charged until it: free below it, and file cache that can be given up
    cache_bytes: int | None  # of the headroom, the file cache; None: not known, and none is counted


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


def file_cache_bytes(group: Cgroup) -> int | None:
    """File pages on the LRU lists, of the group and those below it: shmem is not on them, locked pages neither.

    None if memory.stat does not tell of both lists.
    """
    stat = dict(group.stat)
    prefix = "total_" if group.version == 1 else ""
    inactive, active = stat.get(f"{prefix}inactive_file"), stat.get(f"{prefix}active_file")
    return None if inactive is None or active is None else inactive + active


def tightest(groups: Mapping[str, Cgroup], path: str) -> Bound | None:
    """The limit that the group at `path` meets first, its own or one above it; None if it is under none we know.

    Charging goes from the group upwards and stops at the first that is full (try_charge_memcg() in mm/memcontrol.c): of
    equals the nearest counts. Version 1 has a second limit, of memory and swap together.
    """
    bounds = [bound for group in _upwards(groups, path) if (bound := own_bound(group)) is not None]
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


def own_bound(group: Cgroup) -> Bound | None:
    """The limit of this very group; None if it has none we know."""
    cache = file_cache_bytes(group)
    bounds = []
    for limit, current in (
        (group.max_bytes, group.current_bytes),
        (group.memsw_max_bytes, group.memsw_current_bytes),
    ):
        if isinstance(limit, int) and current is not None:
            given_up = None if cache is None else min(cache, current)
            headroom = max(limit - current, 0) + (given_up or 0)
            bounds.append(Bound(group=group, limit_bytes=limit, headroom_bytes=headroom, cache_bytes=given_up))
    return min(bounds, key=lambda bound: bound.headroom_bytes, default=None)


def by_headroom(groups: Iterable[Cgroup]) -> list[Bound]:
    """The limits of the groups that hold anything, the one that is met first by the same growth of all first.

    A limit that the group above has too is told once, of that group, which is full no later: crun puts the limits of a
    container on a group within its scope again, and a pod of one container has the limit of that.
    """
    holding = {group.path: group for group in groups if group.current_bytes}
    bounds = {path: bound for path, group in holding.items() if (bound := own_bound(group)) is not None}
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


def rooms(machine: Machine) -> list[Room]:
    """Where memory runs out first, by how much is left there: the machine, and the limits of its groups."""
    found = [
        Room(bound.group.path, bound.limit_bytes, bound.headroom_bytes)
        for bound in by_headroom(machine.cgroups)
        if bound.group.path != "/"
    ]
    facts = dict(machine.meminfo)
    total, available = facts.get("MemTotal"), facts.get("MemAvailable")
    if total is not None and available is not None:
        found.append(Room(None, total + facts.get("SwapTotal", 0), available + facts.get("SwapFree", 0)))
    return sorted(found, key=lambda room: room.left_bytes)


def swap_room(groups: Mapping[str, Cgroup], path: str) -> Limit:
    """How much more the group may swap out, by its own limit and those above it; "max" if none limits it."""
    room: Limit = "max"
    for group in _upwards(groups, path):
        limit, current = swap_allowed(group), group.swap_current_bytes
        if isinstance(limit, int) and current is not None:
            left = max(limit - current, 0)
            room = min(room, left) if isinstance(room, int) else left
    return room


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

"""What if: the same machine with one thing changed."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from math import ceil, floor
from typing import NamedTuple

from reprieve.model.cgroup import Cgroup
from reprieve.model.machine import Machine
from reprieve.model.process import Process
from reprieve.model.workload import Workload
from reprieve.oom.groups import Room, ancestors, may_swap, reclaimable_bytes, stays_in_memory
from reprieve.oom.living import freed_bytes
from reprieve.oom.paths import workload
from reprieve.oom.reclaim import swaps

_ID_DIGITS = 8  # of a container's id, at least: fewer are words too
_SHORT_ID = r"[0-9a-f]{4,}"  # where it is said to be a container


def find_processes(machine: Machine, name: str) -> tuple[Process, ...]:
    """Those of that pid, or of that name, or in the cgroups of that name."""
    number = name.removeprefix("pid:")
    if number.isdecimal():
        return tuple(process for process in machine.processes if process.pid == int(number))
    found = tuple(process for process in machine.processes if process.comm == name and not process.kernel_thread)
    if found:
        return found
    paths = set(find_cgroups(machine, name))
    return tuple(
        process for process in machine.processes if paths & {process.cgroup, *ancestors(process.cgroup or "/")}
    )


def find_cgroups(machine: Machine, name: str) -> tuple[str, ...]:
    """The group of that path, else those whose last part is it, or a unit, a container or a pod of that name.

    `docker:web`, `podman:web`, `unit:nginx` and `pod:shop/web` are those of that kind alone, `pid:1234` is where it is.
    """
    kind, _, rest = name.partition(":")
    if kind == "pid" and rest.isdecimal():
        return tuple({process.cgroup: None for process in find_processes(machine, rest) if process.cgroup is not None})
    if kind in _KINDS:
        found = tuple(path for path in _find_cgroups(machine, rest) if _KINDS[kind](workload(path)))
        if not found and kind in ("docker", "podman") and re.fullmatch(_SHORT_ID, rest):
            ids = {one for one in container_ids(machine, kind) if one.startswith(rest)}
            found = tuple(path for one in sorted(ids) for path in _find_cgroups(machine, one))
            found = tuple(path for path in found if _KINDS[kind](workload(path)))
        return found
    return _find_cgroups(machine, name)


def container_ids(machine: Machine, manager: str) -> set[str]:
    """Of all its containers that anything is seen of, whether their names were told or not."""
    paths = {group.path for group in machine.cgroups} | {one.cgroup or "/" for one in machine.processes}
    within = map(workload, paths)
    return {one.container_id for one in within if one.manager == manager and one.container_id is not None}


_KINDS: dict[str, Callable[[Workload], bool]] = {
    "docker": lambda found: found.manager == "docker" and found.kind != "scope",
    "podman": lambda found: found.manager == "podman" and found.kind != "scope",  # that is its monitor
    "pod": lambda found: found.pod_uid is not None,
    "unit": lambda found: found.container_id is None and found.pod_uid is None,
}


def _find_cgroups(machine: Machine, name: str) -> tuple[str, ...]:
    if not name:
        return ()
    # A group without the memory controller is known by its processes alone.
    paths = dict.fromkeys([group.path for group in machine.cgroups] + [one.cgroup or "/" for one in machine.processes])
    if name in paths:
        return (name,)
    ends = [path for path in paths if path.endswith(f"/{name}")]
    ids = {container.container_id for container in machine.containers if container.name == name}
    names = {name, *_pods_called(machine, paths, name)}
    return tuple(ends or (path for path in paths if any(_is_called(path, one, ids) for one in names)))


def _pods_called(machine: Machine, paths: Iterable[str], name: str) -> set[str]:
    """The UIDs of the pods of that name, with its namespace or without."""
    called = {
        one.container_id for one in machine.containers if one.pod and name in (one.pod, one.pod.rpartition("/")[2])
    }
    within = (workload(path) for path in paths) if called else ()
    return {found.pod_uid for found in within if found.container_id in called and found.pod_uid is not None}


def _is_called(path: str, name: str, ids: Collection[str]) -> bool:
    """Is it what makes the group a unit, a container or a pod? What is below it is in it.

    `ids`: of the containers of that name.
    """
    above, _, last = path.rpartition("/")
    if last.rpartition(".")[0] == name:  # nginx for nginx.service
        return True
    own, outer = workload(path), workload(above or "/")
    if own.container_id not in (None, outer.container_id) and own.kind == "container":  # not its monitor
        if own.container_id in ids:
            return True
        return len(name) >= _ID_DIGITS and own.container_id is not None and own.container_id.startswith(name)
    return own.pod_uid == name != outer.pod_uid


def _each(machine: Machine, pids: Collection[int], change: Callable[[Process], Process]) -> Machine:
    processes = tuple(change(process) if process.pid in pids else process for process in machine.processes)
    return replace(machine, processes=processes)


def with_adj(machine: Machine, pids: Collection[int], adj: int) -> Machine:
    """With another oom_score_adj."""
    return _each(machine, pids, lambda process: replace(process, oom_score_adj=adj))


class Cut(NamedTuple):
    """Growth that memory ends before it is all there."""

    process: Process
    asked_bytes: int
    room: Room  # where memory runs out then, and how much of it there is until it does


def grown(machine: Machine, pid: int, by_bytes: int) -> Machine:
    """With a process that has taken so much more private memory, charged to the groups it is in.

    At a limit what can be given up is, then it is swapped out; what fits is told by `first_full()`. Whose pages
    those are changes nobody's score: of one process resident and swapped out count alike.
    """

    def grow(process: Process) -> Process:
        anon = process.rss_anon_bytes
        return replace(
            process,
            rss_bytes=None if process.rss_bytes is None else process.rss_bytes + by_bytes,
            rss_anon_bytes=None if anon is None else anon + by_bytes,
        )

    for path in [one.cgroup or "/" for one in machine.processes if one.pid == pid]:
        machine = _charged(machine, path, by_bytes)
    return _each(machine, (pid,), grow)


def _charged(machine: Machine, path: str, by_bytes: int) -> Machine:
    """With so much more in a group and those it is in, and in the machine."""
    groups, facts = {group.path: group for group in machine.cgroups}, dict(machine.meminfo)
    more, cache_gone, swapped = by_bytes, 0, 0  # of the group and those below it
    free = facts.get("SwapFree", 0)
    for above in (path, *ancestors(path)):
        group = groups.get(above)
        if group is None or group.current_bytes is None:
            continue
        current, cache = group.current_bytes + more, max((reclaimable_bytes(group) or 0) - cache_gone, 0)
        over = max(current - group.max_bytes, 0) if isinstance(group.max_bytes, int) else 0
        given_up = min(over, cache)
        out = min(over - given_up, may_swap(machine, groups, group, free - swapped, swapped))
        more, cache_gone, swapped = more - given_up - out, cache_gone + given_up, swapped + out
        groups[above] = replace(
            group,
            current_bytes=group.current_bytes + more,
            swap_current_bytes=None if group.swap_current_bytes is None else group.swap_current_bytes + swapped,
            memsw_current_bytes=(
                None if group.memsw_current_bytes is None else group.memsw_current_bytes + more + swapped
            ),
            stat=_less_cache(group, cache_gone),
        )
    stays = stays_in_memory(machine)
    for name, taken in (("MemAvailable", by_bytes - floor(swapped * (1 - stays))), ("SwapFree", swapped)):
        if name in facts:
            facts[name] -= taken
    if (short := -facts.get("MemAvailable", 0)) > 0:  # swapped out, whatever limits of groups say
        out = 0 if stays == 1 or not swaps(machine) else ceil(short / (1 - stays))
        facts |= {"MemAvailable": 0, "SwapFree": facts.get("SwapFree", 0) - out}
    facts |= {name: 0 for name in ("SwapFree",) if facts.get(name, 0) < 0}
    return replace(machine, cgroups=tuple(groups.values()), meminfo=tuple(facts.items()))


def _less_cache(group: Cgroup, gone_bytes: int) -> tuple[tuple[str, int], ...]:
    """Its memory.stat with less of what can be given up, inactive file cache first."""
    told = dict(group.stat)
    prefix = "total_" if group.version == 1 else ""
    for name in (f"{prefix}inactive_file", f"{prefix}active_file", "slab_reclaimable"):
        part = min(told.get(name, 0), gone_bytes)
        gone_bytes -= part
        if part:
            told[name] -= part
    return tuple(told.items())


def without(machine: Machine, pids: Collection[int]) -> Machine:
    """As if those processes were not seen."""
    return replace(machine, processes=tuple(process for process in machine.processes if process.pid not in pids))


def ended(machine: Machine, pids: Collection[int]) -> Machine:
    """With those processes gone, and free what they alone held: private memory, page tables and swap."""
    stays = without(machine, pids)
    held_on = {process.mm for process in stays.processes}
    memories = {process.mm or process.pid: process for process in machine.processes if process.pid in pids}
    for process in memories.values():
        if process.mm is None or process.mm not in held_on:
            stays = _uncharged(stays, process)
    return stays


def _uncharged(machine: Machine, process: Process) -> Machine:
    """With what a process alone held back in the groups it was in, and in the machine."""
    swap = process.swap_bytes or 0
    memory = freed_bytes(process) - swap

    def less(held: int | None, by: int) -> int | None:
        return None if held is None else max(held - by, 0)

    around = (process.cgroup or "/", *ancestors(process.cgroup or "/"))
    groups = (
        replace(
            group,
            current_bytes=less(group.current_bytes, memory),
            swap_current_bytes=less(group.swap_current_bytes, swap),
            memsw_current_bytes=less(group.memsw_current_bytes, memory + swap),
        )
        if group.path in around
        else group
        for group in machine.cgroups
    )
    facts = dict(machine.meminfo)
    for name, of, more in (("MemAvailable", "MemTotal", memory), ("SwapFree", "SwapTotal", swap)):
        if name in facts and of in facts:
            facts[name] = min(facts[name] + more, facts[of])
    return replace(machine, cgroups=tuple(groups), meminfo=tuple(facts.items()))


def with_limits(machine: Machine, limits: Mapping[str, int]) -> Machine:
    """With other limits of groups, in bytes by their paths."""
    groups = tuple(
        replace(group, max_bytes=limits[group.path]) if group.path in limits else group for group in machine.cgroups
    )
    return replace(machine, cgroups=groups)


class Over(NamedTuple):
    """A limit that is lower than what its group holds."""

    group: Cgroup
    limit_bytes: int
    held_bytes: int  # once all is given up that can be, and swapped out is what may be

    @property
    def refused(self) -> bool:
        """Version 1 sets no such limit (EBUSY); version 2 sets it, and kills until it holds.

        Source: mem_cgroup_resize_max() and memory_max_write() in mm/memcontrol.c.
        """
        return self.group.version == 1


def over_limit(machine: Machine, path: str) -> Over | None:
    """Of a group that its limit is too low for, by how much; None: it is not, or what the group holds was not told."""
    groups = {group.path: group for group in machine.cgroups}
    group = groups.get(path)
    if group is None or group.current_bytes is None or not isinstance(group.max_bytes, int):
        return None
    cache = reclaimable_bytes(group)
    if cache is None:
        return None
    swapped = may_swap(machine, groups, group, dict(machine.meminfo).get("SwapFree", 0))
    held = group.current_bytes - cache - swapped
    return Over(group, group.max_bytes, held) if held > group.max_bytes else None

"""What if: the same machine with one thing changed."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

from reprieve.model.cgroup import Cgroup
from reprieve.model.machine import Machine
from reprieve.model.process import Process
from reprieve.model.workload import Workload
from reprieve.oom.groups import Room, ancestors, file_cache_bytes, swap_room, tightest
from reprieve.oom.paths import workload

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
        return found
    return _find_cgroups(machine, name)


def container_ids(machine: Machine, manager: str) -> set[str]:
    """Of all its containers that anything is seen of, whether their names were told or not."""
    paths = {group.path for group in machine.cgroups} | {one.cgroup or "/" for one in machine.processes}
    within = map(workload, paths)
    return {one.container_id for one in within if one.manager == manager and one.container_id is not None}


_KINDS: dict[str, Callable[[Workload], bool]] = {
    "docker": lambda found: found.manager == "docker",
    "podman": lambda found: found.manager == "podman",
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
    if own.container_id not in (None, outer.container_id):
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


def first_full(machine: Machine, path: str) -> Room | None:
    """Where memory runs out first for what grows in a group, and how much that may take until then; None: not told.

    What is swapped out counts here: the kernel kills at a limit when file cache and swap are used up too.
    """
    groups = {group.path: group for group in machine.cgroups}
    counted = next((one for one in (path, *ancestors(path)) if one in groups), path)  # its own may lack the controller
    facts = dict(machine.meminfo)
    total, available = facts.get("MemTotal"), facts.get("MemAvailable")
    swap_free = facts.get("SwapFree", 0)
    with_swap = {one.path: _with_swap(one, _may_swap(machine, groups, one, swap_free)) for one in groups.values()}
    bound = tightest(with_swap, counted)
    whole = None
    if total is not None and available is not None:
        whole = Room(None, total + facts.get("SwapTotal", 0), available + swap_free)
    if bound is None or (whole is not None and whole.left_bytes < bound.headroom_bytes):
        return whole
    limit = groups[bound.group.path].max_bytes
    assert isinstance(limit, int)  # else it bounds nothing
    return Room(bound.group.path, limit, bound.headroom_bytes)


def _with_swap(group: Cgroup, swap_bytes: int) -> Cgroup:
    """Its memory and the swap it may still take, as one limit."""
    limit = group.max_bytes
    return replace(group, max_bytes=limit + swap_bytes, memsw_max_bytes=None) if isinstance(limit, int) else group


def _may_swap(machine: Machine, groups: Mapping[str, Cgroup], group: Cgroup, swap_free: int) -> int:
    """How much of what it holds the kernel could swap out now."""
    swappiness = group.swappiness
    if swappiness == 0 or (swappiness is None and dict(machine.sysctls).get("vm.swappiness") == "0"):
        return 0  # at a limit nothing is swapped then: get_scan_count() in mm/vmscan.c
    room = swap_room(groups, group.path)
    return min(room, swap_free) if isinstance(room, int) else swap_free


def grown(machine: Machine, pid: int, by_bytes: int) -> Machine:
    """With a process that has taken so much more private memory, charged to the groups it is in.

    At a limit file cache is given up for it, then it is swapped out; what fits is told by `first_full()`. Whose pages
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
    for above in (path, *ancestors(path)):
        group = groups.get(above)
        if group is None or group.current_bytes is None:
            continue
        current, cache = group.current_bytes + more, max((file_cache_bytes(group) or 0) - cache_gone, 0)
        over = max(current - group.max_bytes, 0) if isinstance(group.max_bytes, int) else 0
        given_up = min(over, cache)
        out = min(over - given_up, _may_swap(machine, groups, group, facts.get("SwapFree", 0) - swapped))
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
    for name, taken in (("MemAvailable", by_bytes - swapped), ("SwapFree", swapped)):
        if name in facts:
            facts[name] -= taken
    if (short := -facts.get("MemAvailable", 0)) > 0:  # swapped out, whatever limits of groups say
        facts |= {"MemAvailable": 0, "SwapFree": facts.get("SwapFree", 0) - short}
    facts |= {name: 0 for name in ("SwapFree",) if facts.get(name, 0) < 0}
    return replace(machine, cgroups=tuple(groups.values()), meminfo=tuple(facts.items()))


def _less_cache(group: Cgroup, gone_bytes: int) -> tuple[tuple[str, int], ...]:
    """Its memory.stat with less file cache, the inactive first."""
    told = dict(group.stat)
    prefix = "total_" if group.version == 1 else ""
    for name in (f"{prefix}inactive_file", f"{prefix}active_file"):
        part = min(told.get(name, 0), gone_bytes)
        gone_bytes -= part
        if part:
            told[name] -= part
    return tuple(told.items())


def without(machine: Machine, pids: Collection[int]) -> Machine:
    """Without those processes."""
    return replace(machine, processes=tuple(process for process in machine.processes if process.pid not in pids))


def with_limit(machine: Machine, path: str, limit_bytes: int) -> Machine:
    """With another limit of a group."""
    groups = tuple(replace(group, max_bytes=limit_bytes) if group.path == path else group for group in machine.cgroups)
    return replace(machine, cgroups=groups)

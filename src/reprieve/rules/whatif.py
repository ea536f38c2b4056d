"""What if: the same machine with one thing changed."""

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace

from reprieve.model.machine import Machine
from reprieve.model.process import Process
from reprieve.model.workload import Workload
from reprieve.oom.groups import ancestors
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


def grown(machine: Machine, pid: int, by_bytes: int) -> Machine:
    """With a process that has taken so much more private memory."""

    def grow(process: Process) -> Process:
        anon = process.rss_anon_bytes
        return replace(
            process,
            rss_bytes=None if process.rss_bytes is None else process.rss_bytes + by_bytes,
            rss_anon_bytes=None if anon is None else anon + by_bytes,
        )

    return _each(machine, (pid,), grow)


def without(machine: Machine, pids: Collection[int]) -> Machine:
    """Without those processes."""
    return replace(machine, processes=tuple(process for process in machine.processes if process.pid not in pids))


def with_limit(machine: Machine, path: str, limit_bytes: int) -> Machine:
    """With another limit of a group."""
    groups = tuple(replace(group, max_bytes=limit_bytes) if group.path == path else group for group in machine.cgroups)
    return replace(machine, cgroups=groups)

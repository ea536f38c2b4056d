"""NUMA: who is kept to a node that is full while others have room."""

from collections.abc import Iterable, Iterator

from reprieve.model.finding import Evidence, Finding, Remedy, quote
from reprieve.model.machine import LiveNode
from reprieve.model.process import Process
from reprieve.model.snapshot import Snapshot
from reprieve.model.workload import Workload
from reprieve.oom.choose import parse_nodes
from reprieve.oom.groups import owner
from reprieve.rules.host import open_nodes
from reprieve.rules.living.facts import living, named, own_bytes, process_line
from reprieve.units import size

_LOW = 0.1  # of what the nodes have: what can still be had there
_ROOM = 4  # times as much on the other nodes


def node_bound(snapshot: Snapshot) -> Iterator[Finding]:
    """Processes may use some memory nodes alone, which are nearly full, while others have room.

    A cpuset is a wall, and so is a memory policy that binds (numactl --membind): the kernel kills behind it rather than
    use a node outside. A process that is bound to none moves on to other nodes by itself, and needs no advice. Of a
    policy that was set for some mappings alone (mbind()) nothing is seen here.

    Source: constrained_alloc() in mm/oom_kill.c; Documentation/admin-guide/mm/numa_memory_policy.rst.
    """
    machine = snapshot.machine
    if machine is None or len(machine.nodes) < 2:
        return
    every = {node.number for node in machine.nodes}
    walls: dict[tuple[str, bool], list[Process]] = {}  # by the nodes, and whether it is a policy of their own
    for process in living(machine):
        allowed = process.bound_to or process.mems_allowed
        if allowed is not None and parse_nodes(allowed) & every < every:
            walls.setdefault((allowed, process.bound_to is not None), []).append(process)
    for (allowed, policy), bound in walls.items():
        inside = [node for node in machine.nodes if node.number in parse_nodes(allowed)]
        outside = [node for node in machine.nodes if node not in inside]
        total, left, elsewhere = sum(map(_total, inside)), sum(map(_left, inside)), sum(map(_left, outside))
        if not total or left > total * _LOW or elsewhere <= max(_ROOM * left, total * _LOW):
            continue
        largest = max(bound, key=own_bytes)
        whose = owner(largest.cgroup or "/", machine.containers)
        others = f" and {len(bound) - 1} others" if len(bound) > 1 else ""
        yield Finding(
            code="node-bound",
            severity="warning",
            confidence="certain",
            claim=f"{named(largest)}{others} may use memory node {quote(allowed)} alone: {size(left)} of {size(total)} "
            f"can be had there, {size(elsewhere)} on others",
            about=whose,
            subject=f"node {allowed}",
            evidence=(
                process_line(largest),
                *(Evidence(text=f"MemFree: {_free(node) // 1024} kB", source=_path(node)) for node in machine.nodes),
            ),
            remedies=(_PREFER if policy else _open(whose, machine.cgroup_version, every),),
        )


_PREFER = Remedy(
    title="Start it without numactl --membind=; --preferred= keeps to a node only while that has room",
    cost="a restart; memory of another node is slower to reach",
)


def _total(node: LiveNode) -> int:
    return dict(node.meminfo).get("MemTotal", 0)


def _left(node: LiveNode) -> int:
    """Free, and file cache that can be dropped."""
    told = dict(node.meminfo)
    return sum(told.get(name, 0) for name in ("MemFree", "Active(file)", "Inactive(file)"))


def _free(node: LiveNode) -> int:
    return dict(node.meminfo).get("MemFree", 0)


def _path(node: LiveNode) -> str:
    return f"/sys/devices/system/node/node{node.number}/meminfo"


def _open(whose: Workload, version: str | None, nodes: Iterable[int]) -> Remedy:
    clear = open_nodes(whose, ",".join(map(str, sorted(nodes)))) if version == "2" else None
    return Remedy(
        title="Let its cpuset use all nodes (cpuset.mems; AllowedMemoryNodes= of a unit)",
        cost="memory of another node is slower to reach",
        commands=(clear,) if clear is not None else (),
    )

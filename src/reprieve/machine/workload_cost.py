"""What comes of it, for pods and nodes, that a workload's container is limited to so much memory, or requests it."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from reprieve.machine.engine import text
from reprieve.oom import fields
from reprieve.units import size

LIMITS, REQUESTS = "limits", "requests"  # as the API names them


class Amount(NamedTuple):
    """Of memory, as it is written in one of these fields; None: it is not."""

    field: str
    quantity: str | None

    @property
    def size_bytes(self) -> fields.Limit:
        """None: there is none, or it is written as nobody here reads it."""
        return fields.quantity(self.quantity)


def amount_of(container: dict[str, Any], field: str) -> Amount:
    """What stands in that field of a container."""
    told = fields.table(fields.table(container, "resources"), field).get("memory")
    return Amount(field, None if told is None else text(str(told)))


def containers_of(told: dict[str, Any]) -> list[dict[str, Any]]:
    """Those that run in its pods, but for what runs before them."""
    return fields.tables(told["spec"]["template"]["spec"], "containers")


def costs(
    told: dict[str, Any], kind: str, container: str, wanted: Sequence[Amount], nodes: list[dict[str, Any]] | None
) -> Iterator[str]:
    """Its pods, their class, where they can run, and when a node that is short of memory would evict them.

    `nodes` of the cluster; None: they were not asked for, or may not be.
    """
    count = told["spec"].get("replicas") if kind != "ds" else told.get("status", {}).get("desiredNumberScheduled")
    pods = "its pods are" if count is None else f"its {count} pods are" if count != 1 else "its pod is"
    strategy = told["spec"].get("updateStrategy") or {}
    if strategy.get("type") == "OnDelete":
        yield f"{pods} made anew only as somebody deletes them (OnDelete)"
    else:
        yield f"{pods} made anew (rollout), now and when it is undone"
    then = _changed(told, container, wanted)
    before, after = _quality(told), _quality(then)
    yield f"QoS class {before} stays" if before == after else f"QoS class {before} becomes {after}"
    asked_bytes, asks_bytes = _requested_bytes(told), _requested_bytes(then)
    of_request = any(one.field == REQUESTS for one in wanted)
    if of_request:
        yield _scheduled(asked_bytes, asks_bytes, nodes)
    elif amount_of(_named(told, container), REQUESTS).quantity is None:
        was = amount_of(_named(told, container), LIMITS).size_bytes
        if amount_of(_named(then, container), LIMITS).quantity is None:
            yield "nothing is requested then: a node takes it in however little it has left"
        else:
            kept = f" and was {size(was)}" if isinstance(was, int) else ""
            yield f"its request, as none is written, is as large as the limit{kept}: a node must have as much left"
    yield _evicted(asked_bytes, asks_bytes)
    less = ", nor whether that is more than it requests" if of_request else ""
    yield f"what it uses now is not known here{less}: kubectl top pod tells, where metrics are kept"


def _scheduled(before_bytes: int | None, after_bytes: int | None, nodes: list[dict[str, Any]] | None) -> str:
    """A node takes a pod if what all its pods request is no more than it has for them, whatever they use."""
    if after_bytes is None:
        return "how much a node must have left for a pod of it is not known here: kubectl describe nodes"
    was = "" if before_bytes in (None, after_bytes) else f", before {_some(before_bytes)}"
    said = f"a node must have {_some(after_bytes)} left for a pod of it{was}"
    room = [
        fields.quantity(fields.table(fields.table(one, "status"), "allocatable").get("memory"))
        for one in nodes or ()
        if not fields.table(one, "spec").get("unschedulable")
    ]
    if not room:
        return f"{said}; which nodes have is not known here: kubectl describe nodes"
    enough = sum(isinstance(one, int) and one >= after_bytes for one in room)
    if not enough:
        none = "the node has not" if len(room) == 1 else f"none of {len(room)} nodes has"
        return f"{said}, and {none} as much at all"
    which = "the node has" if len(room) == 1 else f"{enough} of {len(room)} nodes {'has' if enough == 1 else 'have'}"
    return f"{said}; {which} as much at all, and whether it is left kubectl describe nodes tells"


def _evicted(before_bytes: int | None, after_bytes: int | None) -> str:
    """The order of rankMemoryPressure() in pkg/kubelet/eviction/helpers.go: a pod's use above its request, priority, by
    how much.
    """
    above = "that" if after_bytes is None else _some(after_bytes)
    was = "" if before_bytes in (None, after_bytes) else f" (before above {_some(before_bytes)})"
    return (
        f"a node short of memory evicts first which pods use more than they request, its own above {above}{was}, of "
        "those by priority, then by how much more"
    )


def _some(size_bytes: int | None) -> str:
    return size(size_bytes) if size_bytes else "nothing"


def _changed(told: dict[str, Any], container: str, wanted: Sequence[Amount]) -> dict[str, Any]:
    """The same with these amounts."""
    spec = told["spec"]["template"]["spec"]
    made = []
    for one in containers_of(told):
        resources = fields.table(one, "resources")
        if one["name"] == container:
            amounts = {each.field: {**fields.table(resources, each.field), "memory": each.quantity} for each in wanted}
            resources = {**resources, **amounts}
        made.append({**one, "resources": resources})
    return {"spec": {"template": {"spec": {**spec, "containers": made}}}}


def _named(told: dict[str, Any], name: str) -> dict[str, Any]:
    return next(one for one in containers_of(told) if one["name"] == name)


def _requested_bytes(told: dict[str, Any]) -> int | None:
    """By a pod of it: by all its containers, or by one that runs before them if that is more; PodRequestsAndLimits() in
    pkg/api/v1/resource. None: it is not told in figures.
    """
    before, then = (
        [_requests_bytes(one) for one in fields.tables(told["spec"]["template"]["spec"], key)]
        for key in ("initContainers", "containers")
    )
    known = [one for one in (*before, *then) if one is not None]
    if len(known) < len(before) + len(then):
        return None
    return max(sum(known[len(before) :]), *known[: len(before)], 0)


def _requests_bytes(container: dict[str, Any]) -> int | None:
    """What is not requested is as the limit."""
    request, limit = (amount_of(container, field) for field in (REQUESTS, LIMITS))
    told = limit if request.quantity is None else request
    if told.quantity is None:
        return 0
    return told.size_bytes if isinstance(told.size_bytes, int) else None


def _quality(told: dict[str, Any]) -> str:
    """The QoS class of its pods: GetPodQOS() in pkg/apis/core/v1/helper/qos. What is not requested is as the limit."""
    spec = told["spec"]["template"]["spec"]
    guaranteed, anything = True, False
    for container in (*fields.tables(spec, "initContainers"), *fields.tables(spec, "containers")):
        resources = fields.table(container, "resources")
        limits = fields.table(resources, LIMITS)
        requests = {**limits, **fields.table(resources, REQUESTS)}
        for kind in ("cpu", "memory"):
            asked, limit = (_comparable(kind, one.get(kind)) for one in (requests, limits))
            anything = anything or asked is not None
            guaranteed = guaranteed and limit is not None and asked == limit
    return "Guaranteed" if guaranteed else "Burstable" if anything else "BestEffort"


def _comparable(kind: str, told: object) -> object:
    """Nothing of something is not said."""
    return None if told in (None, "0") else fields.quantity(told) if kind == "memory" else told

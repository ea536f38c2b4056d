"""What comes of it, for pods and nodes, that a workload's container is limited to so much memory, or requests it."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from reprieve.machine.engine import text
from reprieve.machine.workload_use import Use
from reprieve.model.finding import Failure
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


class Pods(NamedTuple):
    """What stands in the spec of a pod before and then, with all that the server adds to what is written."""

    before: dict[str, Any]
    then: dict[str, Any]


def amount_of(container: dict[str, Any], field: str) -> Amount:
    """What stands in that field of a container."""
    told = fields.table(fields.table(container, "resources"), field).get("memory")
    return Amount(field, None if told is None else text(str(told)))


def spec_of(told: dict[str, Any]) -> dict[str, Any]:
    """What is written of its pods."""
    spec: dict[str, Any] = told["spec"]["template"]["spec"]
    return spec


def containers_of(told: dict[str, Any]) -> list[dict[str, Any]]:
    """Those that run in its pods, but for what runs before them."""
    return fields.tables(spec_of(told), "containers")


def named(spec: dict[str, Any], name: str) -> dict[str, Any]:
    """A container of a pod, one of which has that name."""
    return next(one for one in fields.tables(spec, "containers") if one["name"] == name)


def costs(
    told: dict[str, Any],
    kind: str,
    container: str,
    wanted: Sequence[Amount],
    nodes: list[dict[str, Any]] | None,
    pods: Pods | None,
    use: Use | Failure,
) -> Iterator[str]:
    """Its pods, their class, where they can run, and when a node that is short of memory would evict them.

    `nodes` of the cluster; None: they were not asked for, or may not be. `pods` that would be made; None: they were not
    to be had, and what is written has to do. `use` of it now, or why that is not known.
    """
    count = told["spec"].get("replicas") if kind != "ds" else told.get("status", {}).get("desiredNumberScheduled")
    its = "its pods are" if count is None else f"its {count} pods are" if count != 1 else "its pod is"
    strategy = told["spec"].get("updateStrategy") or {}
    if strategy.get("type") == "OnDelete":
        yield f"{its} made anew only as somebody deletes them (OnDelete)"
    else:
        yield f"{its} made anew (rollout), now and when it is undone"
    written = spec_of(changed(told, container, wanted))
    before, then = pods or Pods(spec_of(told), written)
    was, becomes = _quality(before), _quality(then)
    yield f"QoS class {was} stays" if was == becomes else f"QoS class {was} becomes {becomes}"
    asked_bytes, asks_bytes = _requested_bytes(before), _requested_bytes(then)
    of_request = any(one.field == REQUESTS for one in wanted)
    if of_request:
        yield _scheduled(asked_bytes, asks_bytes, nodes)
    elif amount_of(named(written, container), REQUESTS).quantity is None:
        asks = amount_of(named(then, container), REQUESTS)
        if amount_of(named(written, container), LIMITS).quantity is not None:
            had_bytes = _requests_bytes(named(before, container))
            kept = f" and was {size(had_bytes)}" if had_bytes else ""
            yield f"its request, as none is written, is as large as the limit{kept}: a node must have as much left"
        elif asks.quantity is None:
            yield "nothing is requested then: a node takes it in however little it has left"
        else:
            figure = size(asks.size_bytes) if isinstance(asks.size_bytes, int) else asks.quantity
            yield f"its request, as none is written, is {figure} (LimitRange): a node must have as much left"
    if pods is None:
        yield "what a LimitRange of the namespace adds to that is not known here: kubectl get limitrange"
    yield _evicted(asked_bytes, asks_bytes)
    yield _used(use, amount_of(named(then, container), REQUESTS) if of_request else None)


def _used(use: Use | Failure, request: Amount | None) -> str:
    """What it uses now beside a limit, or a request that it may be above."""
    if isinstance(use, Failure):
        less = "" if request is None else ", nor whether that is more than it requests"
        return (
            f"what it uses now is not known here{less} ({use.message}): kubectl top pod tells, where metrics are kept"
        )
    said = f"now it uses up to {size(use.working_set_bytes)} (working set, {use.told} of {use.running} pods told"
    said += "; another may use more)" if use.told < use.running else ")"
    if request is None or not isinstance(request.size_bytes, int):
        return said
    more = "more than" if use.working_set_bytes > request.size_bytes else "no more than"
    return f"{said}, {more} it requests then"


def _scheduled(before_bytes: int | None, after_bytes: int | None, nodes: list[dict[str, Any]] | None) -> str:
    """A node takes a pod if what all its pods request is no more than it has for them, whatever they use."""
    if after_bytes is None:
        return "how much a node must have left for a pod of it is not known here: kubectl describe nodes"
    was = "" if before_bytes in (None, after_bytes) else f", before {_some(before_bytes)}"
    said = f"a node must have {_some(after_bytes)} left for a pod of it{was}"
    told = [
        fields.quantity(fields.table(fields.table(one, "status"), "allocatable").get("memory"))
        for one in nodes or ()
        if not fields.table(one, "spec").get("unschedulable")
    ]
    room = [one for one in told if isinstance(one, int)]
    unread = f", of {len(told) - len(room)} more it is not known here" if len(room) < len(told) else ""
    if not room:
        return f"{said}; which nodes have is not known here: kubectl describe nodes"
    enough = sum(one >= after_bytes for one in room)
    if not enough:
        none = "the node has not" if len(room) == 1 else f"none of {len(room)} nodes has"
        return f"{said}, and {none} as much at all{unread}"
    which = "the node has" if len(room) == 1 else f"{enough} of {len(room)} nodes {'has' if enough == 1 else 'have'}"
    return f"{said}; {which} as much at all{unread}, and whether it is left kubectl describe nodes tells"


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


def changed(told: dict[str, Any], container: str, wanted: Sequence[Amount]) -> dict[str, Any]:
    """The same with these amounts."""
    made = []
    for one in containers_of(told):
        resources = fields.table(one, "resources")
        if one["name"] == container:
            for each in wanted:
                others = {key: has for key, has in fields.table(resources, each.field).items() if key != "memory"}
                amount = {} if each.quantity is None else {"memory": each.quantity}
                resources = {**resources, each.field: {**others, **amount}}
        made.append({**one, "resources": resources})
    template = {**told["spec"]["template"], "spec": {**spec_of(told), "containers": made}}
    return {**told, "spec": {**told["spec"], "template": template}}


def _requested_bytes(spec: dict[str, Any]) -> int | None:
    """By a pod of it: by all its containers, or by one that runs before them if that is more; PodRequestsAndLimits() in
    pkg/api/v1/resource. None: it is not told in figures, or more counts: what its runtime takes (`overhead`), what
    the pod as a whole requests, and what begins before its containers and stays beside them.
    """
    beside = any(one.get("restartPolicy") == "Always" for one in fields.tables(spec, "initContainers"))
    if beside or fields.table(spec, "overhead") or fields.table(spec, "resources"):
        return None
    before, then = (
        [_requests_bytes(one) for one in fields.tables(spec, key)] for key in ("initContainers", "containers")
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


def _quality(spec: dict[str, Any]) -> str:
    """The QoS class of its pods: GetPodQOS() in pkg/apis/core/v1/helper/qos. What is not requested is as the limit."""
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

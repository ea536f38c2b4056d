"""What a container of a workload uses now, as the kubelets of the nodes measure it.

A kubelet tells it through the API server: `kubectl get --raw /api/v1/nodes/NODE/proxy/stats/summary`. It is the working
set, by which it evicts too: all that is used, but for cache of files that was not used of late.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

from reprieve.machine.engine import text
from reprieve.machine.kubernetes import Cluster, refusal
from reprieve.model.finding import Failure
from reprieve.oom import fields

if TYPE_CHECKING:
    from lightkube import AsyncClient

_NODES = 16  # that are asked: a DaemonSet may have pods on thousands
_PATIENCE_S = 4.0  # with each of them: the API server waits longer for one that is down


class Use(NamedTuple):
    """The most that it uses in a pod, of those whose nodes told."""

    pod: str
    working_set_bytes: int
    told: int  # pods
    running: int  # of so many


class _Running(NamedTuple):
    name: str
    node: str


def most_used(cluster: Cluster, namespace: str, workload: dict[str, Any], container: str) -> Use | Failure:
    """A Failure: why it is not known. Few but administrators may ask nodes."""
    try:
        running = _running(cluster, namespace, fields.table(workload["spec"], "selector"))
        answers = _summaries(cluster, sorted({pod.node for pod in running.values()})[:_NODES])
    except Failure as failure:
        return failure
    told = [one for one in answers if not isinstance(one, Failure)]
    found = [
        (used, running[uid].name)
        for summary in told
        for uid, used in _working_sets(summary, container)
        if uid in running
    ]
    if found:
        most, name = max(found)
        return Use(name, most, told=len(found), running=len(running))
    if not running:
        return Failure("no pod of it runs")
    return next((one for one in answers if isinstance(one, Failure)), Failure("its nodes have not measured it yet"))


def _running(cluster: Cluster, namespace: str, selector: dict[str, Any]) -> dict[str, _Running]:
    """Its pods that run, by their UIDs. Raises Failure."""
    labels = _labels(selector)

    async def work(client: "AsyncClient") -> dict[str, _Running]:
        from lightkube.resources.core_v1 import Pod

        found = {}
        async for pod in client.list(Pod, namespace=namespace, labels=labels, fields={"status.phase": "Running"}):
            if pod.metadata and pod.metadata.uid and pod.spec and pod.spec.nodeName:
                found[pod.metadata.uid] = _Running(text(pod.metadata.name or ""), pod.spec.nodeName)
        return found

    return cluster.ask(work)


def _labels(selector: dict[str, Any]) -> dict[str, Any]:
    """As lightkube asks for them. Raises Failure: two of them are about one label, which it cannot say."""
    from lightkube import operators

    labels: dict[str, Any] = dict(fields.table(selector, "matchLabels"))
    for one in fields.tables(selector, "matchExpressions"):
        key, told = str(one.get("key")), one.get("values")
        values = [str(value) for value in told] if isinstance(told, list) else []
        if key in labels:
            break
        match one.get("operator"):
            case "In":
                labels[key] = operators.in_(values)
            case "NotIn":
                labels[key] = operators.not_in(values)
            case "Exists":
                labels[key] = operators.exists()
            case "DoesNotExist":
                labels[key] = operators.not_exists()
            case _:
                break
    else:
        if labels:
            return labels
    raise Failure("its selector is of a kind that is not asked for here")


def _summaries(cluster: Cluster, nodes: list[str]) -> list[dict[str, Any] | Failure]:
    """What the kubelets of these nodes measure, in their order; a Failure where one does not tell. Raises Failure."""

    async def work(client: "AsyncClient") -> list[dict[str, Any] | Failure]:
        import asyncio

        return await asyncio.gather(*(_summary(client, node) for node in nodes))

    return cluster.ask(work) if nodes else []


async def _summary(client: "AsyncClient", node: str) -> dict[str, Any] | Failure:
    import asyncio

    import httpx2
    from lightkube import ApiError
    from lightkube.core.resource import ApiInfo, GlobalResource, ResourceDef
    from msgspec import MsgspecError

    class Summary(dict[str, Any], GlobalResource):
        _api_info = ApiInfo(ResourceDef("", "v1", "Node"), plural="nodes", verbs=["get"], action="proxy/stats/summary")

    try:
        async with asyncio.timeout(_PATIENCE_S):
            return await client.get(Summary, node)
    except ApiError as error:
        return refusal(error)
    except (TimeoutError, httpx2.TimeoutException):
        return Failure(f"node {text(node)} does not answer within {_PATIENCE_S:g} s")
    # KeyError: lightkube looks for the type of what refuses; TypeError: it is no object; RecursionError: it is too deep
    except (httpx2.HTTPError, MsgspecError, KeyError, TypeError, ValueError, RecursionError):
        return Failure(f"what node {text(node)} answers is none of a kubelet")


def _working_sets(summary: dict[str, Any], container: str) -> list[tuple[str, int]]:
    """By the UID of the pod, in bytes."""
    found = []
    for pod in fields.tables(summary, "pods"):
        uid = fields.table(pod, "podRef").get("uid")
        for one in fields.tables(pod, "containers"):
            used = fields.number(fields.table(one, "memory").get("workingSetBytes"))
            if one.get("name") == container and isinstance(uid, str) and used is not None:
                found.append((uid, used))
    return found

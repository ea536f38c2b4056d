"""What a container of a workload uses now, as the kubelets of the nodes measure it.

A kubelet tells it through the API server: `kubectl get --raw /api/v1/nodes/NODE/proxy/stats/summary`. It is the working
set, by which it evicts too: all that is used, but for cache of files that was not used of late.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

from reprieve.machine.engine import text
from reprieve.machine.kubernetes import Cluster
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


def most_used(cluster: Cluster, namespace: str, workload: dict[str, Any], container: str) -> Use | None:
    """None: no pod of it runs, or none of the nodes tells, which few but administrators may ask."""
    import asyncio

    selector = _labels(fields.table(workload["spec"], "selector"))
    if not selector:
        return None

    async def work(client: "AsyncClient") -> Use | None:
        from lightkube.resources.core_v1 import Pod

        running: dict[str, str] = {}
        nodes = set[str]()
        async for pod in client.list(Pod, namespace=namespace, labels=selector, fields={"status.phase": "Running"}):
            if pod.metadata and pod.metadata.uid and pod.spec and pod.spec.nodeName:
                running[pod.metadata.uid] = text(pod.metadata.name or "")
                nodes.add(pod.spec.nodeName)
        asked = sorted(nodes)[:_NODES]
        found = [
            (used, running[uid])
            for summary in await asyncio.gather(*(_summary(client, node) for node in asked))
            for uid, used in _working_sets(summary, container)
            if uid in running
        ]
        if not found:
            return None
        most, name = max(found)
        return Use(name, most, told=len(found), running=len(running))

    try:
        return cluster.ask(work)
    except Failure:
        return None


def _labels(selector: dict[str, Any]) -> dict[str, Any] | None:
    """As lightkube asks for them; None: two of them are about one label, which it cannot say."""
    from lightkube import operators

    labels: dict[str, Any] = dict(fields.table(selector, "matchLabels"))
    for one in fields.tables(selector, "matchExpressions"):
        if one["key"] in labels:
            return None
        match one["operator"]:
            case "In":
                labels[one["key"]] = operators.in_(one["values"])
            case "NotIn":
                labels[one["key"]] = operators.not_in(one["values"])
            case "Exists":
                labels[one["key"]] = operators.exists()
            case "DoesNotExist":
                labels[one["key"]] = operators.not_exists()
            case _:
                return None
    return labels


async def _summary(client: "AsyncClient", node: str) -> dict[str, Any]:
    """What a kubelet measures of its pods; nothing, where it does not tell, or not us."""
    import asyncio

    import httpx2
    from lightkube import ApiError
    from lightkube.core.resource import ApiInfo, GlobalResource, ResourceDef

    class Summary(dict[str, Any], GlobalResource):
        _api_info = ApiInfo(ResourceDef("", "v1", "Node"), plural="nodes", verbs=["get"], action="proxy/stats/summary")

    try:
        async with asyncio.timeout(_PATIENCE_S):
            return await client.get(Summary, node)
    except (ApiError, httpx2.HTTPError, TimeoutError):
        return {}


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

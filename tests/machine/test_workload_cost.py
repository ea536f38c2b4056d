"""What comes of a limit and a request, from an object and nodes as the API server tells them."""

from __future__ import annotations

from typing import Any

import pytest

from reprieve.machine.workload_cost import LIMITS, REQUESTS, Amount, Pods, changed, costs, spec_of
from reprieve.model.finding import Failure

UNASKED = Failure("nobody was asked")


def told(*containers: dict[str, Any], before: tuple[dict[str, Any], ...] = (), **spec: Any) -> dict[str, Any]:
    return {"spec": {"template": {"spec": {"initContainers": list(before), "containers": list(containers)}}, **spec}}


def container(name: str, request: str | None = None, limit: str | None = None) -> dict[str, Any]:
    amounts = {REQUESTS: request, LIMITS: limit}
    return {"name": name, "resources": {field: {"memory": one} for field, one in amounts.items() if one is not None}}


def node(memory: str, **spec: Any) -> dict[str, Any]:
    return {"spec": spec, "status": {"allocatable": {"memory": memory}}}


def asks(told: dict[str, Any], request: str, *nodes: dict[str, Any], kind: str = "deploy") -> str:
    return "; ".join(costs(told, kind, "app", [Amount(REQUESTS, request)], list(nodes), None, UNASKED))


def lifted(told: dict[str, Any], pods: Pods | None) -> str:
    return "; ".join(costs(told, "deploy", "app", [Amount(LIMITS, None)], None, pods, UNASKED))


@pytest.mark.parametrize(
    ("of", "left"),
    [
        (told(container("app", "32Mi")), "1 GiB left for a pod of it, before 32 MiB"),
        (told(container("app", limit="64Mi")), "1 GiB left for a pod of it, before 64 MiB"),
        (told(container("app")), "1 GiB left for a pod of it, before nothing"),
        (told(container("app", "32Mi"), container("log", limit="1Gi")), "2 GiB left for a pod of it, before 1 GiB"),
        (told(container("app", "1Gi", "2Gi")), "1 GiB left for a pod of it;"),
        (told(container("app", "32Mi"), before=(container("load", "4Gi"),)), "4 GiB left for a pod of it;"),
        (
            told(container("app", "32Mi"), before=(container("load", "1Gi"), container("more"))),
            "1 GiB left for a pod of it;",
        ),
    ],
)
def test_a_pod_requests_what_its_containers_do_or_one_before_them(of: dict[str, Any], left: str) -> None:
    assert left in asks(of, "1Gi")


@pytest.mark.parametrize(
    ("of", "more"),
    [
        (told(container("app", "32Mi"), before=({**container("proxy", "64Mi"), "restartPolicy": "Always"},)), {}),
        (told(container("app", "32Mi")), {"overhead": {"memory": "120Mi"}}),
        (told(container("app", "32Mi")), {"resources": {"requests": {"memory": "4Gi"}}}),
    ],
    ids=["a sidecar", "overhead", "the pod as a whole"],
)
def test_where_more_than_its_containers_counts_no_sum_is_told(of: dict[str, Any], more: dict[str, Any]) -> None:
    spec_of(of).update(more)
    said = asks(of, "1Gi", node("8Gi"))
    assert "how much a node must have left for a pod of it is not known here: kubectl describe nodes" in said
    assert "its own above that, of those by priority" in said


def test_what_nobody_here_can_read_is_not_counted() -> None:
    said = asks(told(container("app"), container("log", "1e9")), "1Gi")
    assert "how much a node must have left for a pod of it is not known here" in said
    assert "its own above that, of those by priority" in said


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        ((), "it, before 32 MiB; which nodes have is not known here: kubectl describe nodes"),
        ((node("512Mi"), node("1048576Ki"), node("8Gi")), "; 2 of 3 nodes have as much at all, and whether it is left"),
        ((node("8Gi"), node("8Gi", unschedulable=True)), "; the node has as much at all"),
        ((node("512Mi"), node("1Gi", unschedulable=True), node("600Mi")), ", and none of 2 nodes has as much at all"),
        ((node("512Mi"),), ", and the node has not as much at all"),
        ((node("8000000000m"), {"metadata": {"name": "new"}}), "; which nodes have is not known here"),
        ((node("8000000000m"), node("8Gi"), node("512Mi")), "; 1 of 2 nodes has as much at all, of 1 more it is not"),
        ((node("512Mi"), node("8000000000m")), ", and the node has not as much at all, of 1 more it is not known here"),
    ],
)
def test_nodes_are_counted_by_what_they_have_at_all(nodes: tuple[dict[str, Any], ...], said: str) -> None:
    assert said in asks(told(container("app", "32Mi")), "1Gi", *nodes)


def test_pods_are_as_many_as_the_kind_says() -> None:
    of = told(container("app", "32Mi"), replicas=3, updateStrategy={"type": "OnDelete"})
    assert "its 3 pods are made anew only as somebody deletes them (OnDelete)" in asks(of, "1Gi", kind="sts")
    assert "its 7 pods are made anew (rollout)" in asks(of | ROLLS, "1Gi", kind="ds")
    assert "its pods are made anew" in asks(told(container("app")), "1Gi")


ROLLS: dict[str, Any] = {"spec": told(container("app"))["spec"], "status": {"desiredNumberScheduled": 7}}


@pytest.mark.parametrize(
    ("of", "quality"),
    [
        (told(container("app")), "BestEffort becomes Burstable"),
        (told(container("app", "1Gi", "2Gi")), "Burstable stays"),
        (told({"name": "app", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}), "Guaranteed stays"),
        (told({"name": "app", "resources": {"limits": {"cpu": "1", "memory": "2Gi"}}}), "Guaranteed becomes Burstable"),
    ],
)
def test_the_class_is_by_all_limits_and_requests(of: dict[str, Any], quality: str) -> None:
    assert f"QoS class {quality}" in asks(of, "1Gi")


def test_what_the_server_adds_to_a_pod_counts() -> None:
    of = told(container("app", limit="1Gi"))
    added = told(container("app", "64Mi"))
    said = lifted(of, Pods(spec_of(of), spec_of(added)))
    assert "QoS class Burstable stays" in said
    assert "its request, as none is written, is 64 MiB (LimitRange): a node must have as much left" in said
    assert "its own above 64 MiB (before above 1 GiB)" in said
    assert "not known here: kubectl get limitrange" not in said


def test_what_the_server_adds_is_not_guessed() -> None:
    said = lifted(told(container("app", limit="1Gi")), None)
    assert "what a LimitRange of the namespace adds to that is not known here: kubectl get limitrange" in said


def test_what_goes_is_written_nowhere_and_all_else_stays() -> None:
    of = told({"name": "app", "resources": {LIMITS: {"cpu": "1", "memory": "1Gi"}}}, container("log", "32Mi"))
    then = spec_of(changed(of, "app", [Amount(LIMITS, None)]))
    assert then["containers"] == [{"name": "app", "resources": {LIMITS: {"cpu": "1"}}}, container("log", "32Mi")]

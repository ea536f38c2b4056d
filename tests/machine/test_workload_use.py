"""A limit below what is used: with `matrix` as a real kubelet measures it; else as that one answered to these tests.

`REPRIEVE_RECORD=1 python -m pytest -m matrix tests/machine/test_workload_use.py` records it anew.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.kubernetes import Cluster
from reprieve.machine.kubernetes import own_cluster
from reprieve.machine.workload_cost import LIMITS, Amount, costs
from reprieve.machine.workload_use import Use, most_used
from reprieve.model.finding import Failure
from tests.machine.api_server import Answer, serving
from tests.machine.clusters import Kube, kube, kubeconfig, real
from tests.machine.engines import BUSYBOX, IMAGE
from tests.machine.engines import engine as engine_here
from tests.machine.kubelet import NAME, node, runtime, wait_for
from tests.machine.real import missing
from tests.machine.workloads import app, by, workload

PODS = "/api/v1/namespaces/shop/pods"
SUMMARY = f"/api/v1/nodes/{NAME}/proxy/stats/summary"
MIB = 1 << 20


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("recorded", marks=pytest.mark.slow),
        pytest.param("real", marks=[pytest.mark.matrix, pytest.mark.alone]),
    ],
)
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster | None]:
    """A node on which two pods of `web` hold some 24 and 12 MiB, one of another more."""
    if request.param == "recorded":
        yield None
        return
    if os.geteuid() != 0:
        missing("root")
    folder = tmp_path_factory.mktemp("node")
    with real() as started, engine_here("docker", folder, *runtime(folder)) as engine:
        admin = Kube(address=started.url, folder=folder, cluster=started)
        with node(admin, started, engine, folder):
            admin.make(by("kubectl-create"), workload("web", app(limit="256Mi", request="4Mi")))
            admin.make(PODS, pod("web-a", "web", 24), pod("web-b", "web", 12), pod("other", "other", 36))
            wait_for(lambda: len([used for used in measured(admin) if used > 10 * MIB]) == 3)
            yield started


def pod(name: str, of: str, holds_mib: int) -> dict[str, Any]:
    """What a controller would make of it, on this node."""
    held = (
        f"held=$({BUSYBOX} dd if=/dev/zero bs=1M count={holds_mib} | {BUSYBOX} tr '\\0' x); {BUSYBOX} sleep 900; : kept"
    )
    container = {"name": "app", "image": IMAGE, "imagePullPolicy": "Never", "command": [BUSYBOX, "sh", "-c", held]}
    spec = {"nodeName": NAME, "hostNetwork": True, "automountServiceAccountToken": False, "containers": [container]}
    return {"metadata": {"name": name, "labels": {"app": of}}, "spec": {**spec, "terminationGracePeriodSeconds": 1}}


def measured(kube: Kube) -> list[int]:
    """What the containers of its pods use, as far as the kubelet has measured them."""
    told = kube.call("GET", SUMMARY).get("pods") or []
    found = [one.get("memory", {}) for pod in told for one in pod.get("containers") or []]
    return [one.get("workingSetBytes", 0) for one in found]


@pytest.fixture
def shop(cluster: Cluster | None, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kube]:
    with kube(cluster, request.node.originalname.removeprefix("test_"), tmp_path) as told:
        yield told


def flat(text: str) -> str:
    return " ".join(text.split())


def test_a_limit_below_what_a_pod_holds_is_refused_with_the_figure_and_forced_by_name(shop: Kube) -> None:
    said = flat(shop.run("fix", "limit", "deploy/web", "--max", "8M", "--yes", status=4).stdout)
    words = r"in pod web-a it holds (\d+)(?:\.\d+)? MiB \(working set\).* with a quarter to grow: (\d+)M"
    told = re.search(words, said)
    assert told is not None, said
    assert 24 <= int(told[1]) <= int(told[2]) < 200
    assert "--force memory does it all the same" in said
    assert shop.patches() == []
    shop.run("fix", "limit", "deploy/web", "--max", f"{told[2]}M", "--dry-run", status=3)
    shop.run("fix", "limit", "deploy/web", "--max", "8M", "--yes", "--force", "memory")
    shop.run("undo")
    (forced, back) = shop.patches()
    assert forced["spec"]["template"]["spec"]["containers"] == [app(limit="8Mi")]
    assert back["spec"]["template"]["spec"]["containers"] == [app(limit="256Mi")]


def test_what_is_used_is_told_beside_a_limit_and_held_against_a_request(shop: Kube) -> None:
    said = flat(shop.run("fix", "limit", "deploy/web", "--max", "512M", "--dry-run", status=3).stdout)
    told = re.search(r"now it uses up to (\d+)(?:\.\d+)? MiB \(working set, 2 of 2 pods told\)", said)
    assert told is not None, said
    assert 24 <= int(told[1]) < 200
    for request, than in (("8M", "more than it requests then"), ("200M", "no more than it requests then")):
        said = flat(shop.run("fix", "limit", "deploy/web", "--request", request, "--dry-run", status=3).stdout)
        assert f"2 of 2 pods told), {than}" in said


def test_a_workload_without_a_pod_uses_nothing_that_is_known(shop: Kube) -> None:
    shop.make(by("kubectl-create"), workload("idle", app(limit="64Mi")))
    said = flat(shop.run("fix", "limit", "deploy/idle", "--max", "8M", "--dry-run", status=3).stdout)
    assert "what it uses now is not known here (no pod of it runs): kubectl top pod tells" in said


GIB = 1 << 30
TOLD = {"pods": [{"podRef": {"uid": "1"}, "containers": [{"name": "app", "memory": {"workingSetBytes": 3 * GIB}}]}]}
REFUSED = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "nodes is forbidden", "code": 403}


def used(tmp_path: Path, *nodes: Answer) -> Use | Failure:
    """What is told of a workload with a pod on each of the nodes."""
    pods = [
        {
            "metadata": {"uid": str(number), "name": f"web-{number}"},
            "spec": {"nodeName": f"n{number}", "containers": []},
        }
        for number in range(1, len(nodes) + 1)
    ]

    def answer(asked: str, _who: str, _sent: bytes, _kind: str) -> Answer:
        if (node := re.search(r"/nodes/n([0-9])/", asked)) is not None:
            return nodes[int(node[1]) - 1]
        return Answer(200, json.dumps({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": pods}).encode())

    with serving(answer) as address:
        (tmp_path / "kubeconfig").write_text(kubeconfig(address, "any"))
        cluster = own_cluster({"KUBECONFIG": str(tmp_path / "kubeconfig")})
        return most_used(cluster, "shop", {"spec": workload("web")["spec"]}, "app")


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (Answer(200, b"<html>log in</html>"), "what node n1 answers is none of a kubelet"),
        (Answer(200, b"null"), "what node n1 answers is none of a kubelet"),
        (Answer(200, b"[]"), "its nodes have not measured it yet"),
        (Answer(200, b'{"pods": [{"podRef": 3, "containers": [null]}]}'), "its nodes have not measured it yet"),
        (Answer(200, b"[" * 200000), "what node n1 answers is none of a kubelet"),
        (Answer(404, b"not found"), "what node n1 answers is none of a kubelet"),
        (Answer(403, json.dumps(REFUSED).encode()), "Kubernetes refuses: nodes is forbidden"),
    ],
)
def test_what_one_node_tells_counts_whatever_another_answers(tmp_path: Path, other: Answer, why: str) -> None:
    both = used(tmp_path, Answer(200, json.dumps(TOLD).encode()), other)
    assert both == Use("web-1", 3 * GIB, told=1, running=2)
    alone = used(tmp_path, other)
    assert isinstance(alone, Failure)
    assert alone.message == why


def test_of_the_pods_that_were_not_told_the_plan_says_that_they_may_use_more() -> None:
    told, wanted = workload("web", app()), [Amount(LIMITS, "1Gi")]
    said = "; ".join(costs(told, "deploy", "app", wanted, None, None, Use("web-1", 3 * GIB, told=1, running=2)))
    assert "now it uses up to 3 GiB (working set, 1 of 2 pods told; another may use more)" in said

"""`fix limit deploy/NAME`: with `matrix` at a real API server; else at what that one answered to these very tests.

`REPRIEVE_RECORD=1 python -m pytest -m matrix tests/machine/test_workload.py` records them anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.kubernetes import Cluster
from reprieve.machine.workload import WorkloadLimit, find_workload, quantity
from reprieve.model.finding import Failure, Place
from tests.machine.clusters import VIEWER, Kube, kube, real

APPS = "/apis/apps/v1/namespaces/shop"


@pytest.fixture(
    scope="module",
    params=[pytest.param("recorded", marks=pytest.mark.slow), pytest.param("real", marks=pytest.mark.matrix)],
)
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster | None]:
    if request.param == "recorded":
        yield None
        return
    with real() as started:
        yield started


@pytest.fixture
def shop(cluster: Cluster | None, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kube]:
    with kube(cluster, request.node.originalname.removeprefix("test_"), tmp_path) as told:
        yield told


def workload(name: str, *containers: dict[str, Any], **about: Any) -> dict[str, Any]:
    """One whose pods nobody runs here."""
    labels = {"app": name}
    made = [{"image": "made-up:1", **one} for one in containers]
    return {
        "metadata": {"name": name, **about},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": made}},
        },
    }


def app(name: str = "app", *, limit: str | None = "64Mi", request: str | None = None) -> dict[str, Any]:
    told = {"limits": limit, "requests": request}
    return {"name": name, "resources": {key: {"memory": one} for key, one in told.items() if one is not None}}


def by(manager: str, kind: str = "deployments") -> str:
    return f"{APPS}/{kind}?fieldManager={manager}"


def resources(shop: Kube, name: str, kind: str = "deployments") -> Any:
    """What the server holds for its first container; None where one is told again."""
    told = shop.call("GET", f"{APPS}/{kind}/{name}")
    return told and told["spec"]["template"]["spec"]["containers"][0]["resources"]


def test_a_limit_is_tried_applied_read_back_and_undone(shop: Kube) -> None:
    shop.make(by("kubectl-create"), workload("web", app(limit="64Mi", request="32Mi")))
    said = " ".join(shop.run("fix", "limit", "deploy/web", "--max", "2G", "--yes").stdout.split())
    assert "deploy/shop/web:app memory limit 64Mi → 2Gi" in said
    assert "its 2 pods are made anew (rollout), now and when it is undone" in said
    assert "QoS class Burstable stays" in said
    assert "evicts first who uses more than it requests, app above 32 MiB, of those by priority" in said
    assert "kubectl top pod tells" in said
    assert resources(shop, "web") in (None, {"limits": {"memory": "2Gi"}, "requests": {"memory": "32Mi"}})
    shop.run("undo")
    assert resources(shop, "web") in (None, {"limits": {"memory": "64Mi"}, "requests": {"memory": "32Mi"}})


def test_one_that_had_none_has_none_again(shop: Kube) -> None:
    shop.make(by("kubectl-create", "statefulsets"), workload("db", app(limit=None)))
    said = " ".join(shop.run("fix", "limit", "sts/shop/db", "--max", "1G", "--yes").stdout.split())
    assert "sts/shop/db:app memory limit not set → 1Gi" in said
    assert "QoS class BestEffort becomes Burstable" in said
    assert "its request, as none is written, is as large as the limit" in said
    assert resources(shop, "db", "statefulsets") in (None, {"limits": {"memory": "1Gi"}})
    shop.run("undo")
    assert resources(shop, "db", "statefulsets") in (None, {})


def test_the_second_time_changes_nothing(shop: Kube) -> None:
    shop.make(by("kubectl-create", "daemonsets"), workload("log", app(limit="64Mi")))
    shop.run("fix", "limit", "ds/log", "--max", "96M", "--yes")
    assert "nothing to change" in shop.run("fix", "limit", "ds/log:app", "--max", "96M", "--yes").stdout
    assert shop.run("changes").stdout.count("in force") == 1
    assert resources(shop, "log", "daemonsets") in (None, {"limits": {"memory": "96Mi"}})


def test_of_several_containers_one_is_named(shop: Kube) -> None:
    shop.make(by("kubectl-create"), workload("two", app("app"), app("proxy")))
    environ = {"KUBECONFIG": shop.kubeconfig()}
    with pytest.raises(Failure, match="deploy/two has 2 containers") as caught:
        find_workload("deploy/two", 1 << 30, environ)
    assert caught.value.hint == "deploy/two:app or deploy/two:proxy"
    with pytest.raises(Failure, match="it has no container web") as caught:
        find_workload("deploy/two:web", 1 << 30, environ)
    assert caught.value.hint == "there is app, proxy"
    said = shop.run("fix", "limit", "deploy/two:proxy", "--max", "1G", "--dry-run", status=3).stdout
    assert "deploy/shop/two:proxy memory limit  64Mi → 1Gi" in said


def test_who_was_guaranteed_what_it_has_is_told_what_it_loses(shop: Kube) -> None:
    both = {"cpu": "1", "memory": "64Mi"}
    shop.make(by("kubectl-create"), workload("sure", {"name": "app", "resources": {"limits": both, "requests": both}}))
    said = " ".join(shop.run("fix", "limit", "deploy/sure", "--max", "1G", "--dry-run", status=3).stdout.split())
    assert "QoS class Guaranteed becomes Burstable" in said


def test_a_limit_below_the_request_is_refused_with_the_figure(shop: Kube) -> None:
    shop.make(by("kubectl-create"), workload("asks", app(limit="1Gi", request="512Mi")))
    said = " ".join(shop.run("fix", "limit", "deploy/asks", "--max", "256M", "--yes", status=4).stdout.split())
    assert "app requests 512 MiB, and a limit is not below that → --max 512M or more" in said
    assert resources(shop, "asks") in (None, {"limits": {"memory": "1Gi"}, "requests": {"memory": "512Mi"}})


OWNED: dict[str, tuple[dict[str, Any], str, str]] = {
    "helm": ({"labels": {"app.kubernetes.io/managed-by": "Helm"}}, "kubectl-create", "Helm sets it again"),
    "argo": ({"annotations": {"argocd.argoproj.io/tracking-id": "shop:apps"}}, "kubectl-create", "Argo CD sets it"),
    "flux": ({"labels": {"kustomize.toolkit.fluxcd.io/name": "shop"}}, "kubectl-create", "Flux sets it again"),
    "field": ({}, "kustomize-controller", "kustomize-controller sets it again"),
    "operator": (
        {
            "ownerReferences": [
                {"apiVersion": "db/v1", "kind": "Database", "name": "orders", "uid": "0-1", "controller": True}
            ]
        },
        "kubectl-create",
        "Database orders sets it again",
    ),
}


def test_what_another_writes_again_is_left_to_him(shop: Kube) -> None:
    environ = {"KUBECONFIG": shop.kubeconfig()}
    for name, (about, manager, said) in OWNED.items():
        shop.make(by(manager), workload(name, app(limit="64Mi"), **about))
        place = find_workload(f"deploy/{name}", 1 << 30, environ).place
        refused = WorkloadLimit(environ).obstacle(place, "1Gi")
        assert refused is not None
        assert refused.message.startswith(said)
        assert str(refused.hint).endswith("--as k8s prints what to commit")
        with pytest.raises(Failure, match=said):
            WorkloadLimit(environ).put(place, "1Gi")
        assert resources(shop, name) in (None, {"limits": {"memory": "64Mi"}})


def test_what_helm_keeps_is_refused_and_exported(shop: Kube) -> None:
    about, manager, said = OWNED["helm"]
    shop.make(by(manager), workload("chart", app(limit="64Mi"), **about))
    assert said in shop.run("fix", "limit", "deploy/chart", "--max", "1G", "--yes", status=4).stdout
    patch = shop.run("fix", "limit", "deploy/chart", "--max", "1536M", "--as", "k8s").stdout
    limited = {"name": "app", "resources": {"limits": {"memory": "1536Mi"}}}
    assert yaml.safe_load(patch) == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "chart", "namespace": "shop"},
        "spec": {"template": {"spec": {"containers": [limited]}}},
    }
    kind = "application/strategic-merge-patch+json"  # what kustomize does with it
    shop.call("PATCH", f"{APPS}/deployments/chart", yaml.safe_load(patch), kind=kind)
    assert resources(shop, "chart") in (None, {"limits": {"memory": "1536Mi"}})
    script = shop.run("fix", "limit", "deploy/chart", "--max", "2G", "--as", "sh").stdout
    assert "kubectl set resources deploy/chart --namespace=shop --containers=app --limits=memory=2Gi" in script


def test_what_the_namespace_does_not_allow_is_told_in_its_words(shop: Kube) -> None:
    shop.make(by("kubectl-create"), workload("big", app(limit="64Mi")))
    most = {"limits": [{"type": "Container", "max": {"memory": "512Mi"}}]}
    shop.make("/api/v1/namespaces/shop/limitranges", {"metadata": {"name": "most"}, "spec": most})
    said = " ".join(shop.run("fix", "limit", "deploy/big", "--max", "1G", "--yes", status=4).stdout.split())
    assert "its pods would not be let in" in said
    assert "maximum memory usage per Container is 512Mi, but limit is 1Gi" in said
    assert resources(shop, "big") in (None, {"limits": {"memory": "64Mi"}})
    shop.call("DELETE", "/api/v1/namespaces/shop/limitranges/most")


def test_a_quota_that_would_be_exceeded_is_told_with_its_figures(shop: Kube) -> None:
    shop.make(by("kubectl-create"), workload("much", app(limit="64Mi")))
    hard = {"limits.memory": "512Mi"}
    shop.make("/api/v1/namespaces/shop/resourcequotas", {"metadata": {"name": "all"}, "spec": {"hard": hard}})
    nothing = {"status": {"hard": hard, "used": {"limits.memory": "0"}}}  # no controller counts here
    kind = "application/merge-patch+json"
    shop.call("PATCH", "/api/v1/namespaces/shop/resourcequotas/all/status", nothing, kind=kind)
    said = " ".join(shop.run("fix", "limit", "deploy/much", "--max", "1G", "--yes", status=4).stdout.split())
    assert (
        "exceeded quota: all, requested: limits.memory=1Gi, used: limits.memory=0, limited: limits.memory=512Mi" in said
    )
    assert resources(shop, "much") in (None, {"limits": {"memory": "64Mi"}})
    shop.call("DELETE", "/api/v1/namespaces/shop/resourcequotas/all")


def test_what_somebody_has_changed_since_stays_theirs(shop: Kube) -> None:
    shop.make(by("kubectl-create"), workload("ours", app(limit="64Mi")))
    shop.run("fix", "limit", "deploy/ours", "--max", "1G", "--yes")
    theirs = {"spec": {"template": {"spec": {"containers": [app(limit="3Gi")]}}}}
    kind = "application/strategic-merge-patch+json"
    shop.call("PATCH", f"{APPS}/deployments/ours?fieldManager=kubectl-edit", theirs, kind=kind)
    said = shop.run("undo", status=4).stderr
    assert "reads '3Gi', not the '1Gi' that was put there" in said
    assert resources(shop, "ours") in (None, {"limits": {"memory": "3Gi"}})
    assert "stays '3Gi'" in shop.run("undo", "--leave").stdout


def test_one_that_was_made_anew_is_another(shop: Kube) -> None:
    shop.make(by("kubectl-create"), workload("anew", app(limit="64Mi")))
    shop.run("fix", "limit", "deploy/anew", "--max", "1G", "--yes")
    shop.call("DELETE", f"{APPS}/deployments/anew")
    shop.make(by("kubectl-create"), workload("anew", app(limit="1Gi")))
    assert "is no more" in shop.run("undo").stdout
    assert resources(shop, "anew") in (None, {"limits": {"memory": "1Gi"}})


def test_who_may_only_look_is_told_before_anything_is_changed(shop: Kube) -> None:
    shop.make(by("kubectl-create"), workload("seen", app(limit="64Mi")))
    said = " ".join(
        shop.run("fix", "limit", "deploy/seen", "--max", "1G", "--yes", status=4, who=VIEWER).stdout.split()
    )
    assert 'User "viewer" cannot patch resource "deployments" in API group "apps" in the namespace "shop"' in said


def test_what_is_not_there_is_told(shop: Kube) -> None:
    said = shop.run("fix", "limit", "deploy/nosuch", "--max", "1G", "--yes", status=1).stderr
    assert "namespace shop has no Deployment nosuch\n  kubectl get deployments -n shop" in said


@pytest.mark.parametrize("word", ["deploy/", "deploy/a/b/c", "deploy/Web", "sts/../x", "ds/a:", "deploy/a b"])
def test_what_is_no_name_is_not_asked_for(word: str) -> None:
    with pytest.raises(Failure, match="is no name of a workload"):
        find_workload(word, 1 << 30, {"KUBECONFIG": "/nowhere"})


@pytest.mark.parametrize("of", ["deploy/web", "https://h/shop/deploy/web/app", "https://h/shop/job/web@1-2/app"])
def test_a_place_is_a_server_and_a_whole_name(of: str) -> None:
    with pytest.raises(Failure, match="is no limit of a container of Kubernetes"):
        WorkloadLimit({"KUBECONFIG": "/nowhere"}).get(Place(kind="k8s", of=of, key="memory"))


@pytest.mark.parametrize(
    ("size_bytes", "written"), [(2 << 30, "2Gi"), (1 << 40, "1Ti"), (1_000_000_000, "976560Ki"), (4095, "0")]
)
def test_a_size_is_written_as_the_server_would(size_bytes: int, written: str) -> None:
    assert quantity(size_bytes) == written

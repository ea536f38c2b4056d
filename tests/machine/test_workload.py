"""`fix limit deploy/NAME`: with `matrix` at a real API server; else at what that one answered to these very tests.

`REPRIEVE_RECORD=1 python -m pytest -m matrix tests/machine/test_workload.py` records them anew.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.kubernetes import Cluster
from reprieve.machine.workload import WorkloadMemory, find_workload, quantity
from reprieve.model.change import Step
from reprieve.model.finding import Failure, Place
from reprieve.show import export
from tests.machine.clusters import VIEWER, Kube, kube, kubeconfig, real
from tests.machine.real import program
from tests.machine.workloads import APPS, app, by, workload


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


def holds(shop: Kube, name: str, *containers: dict[str, Any], kind: str = "deployments") -> None:
    """What its containers have there: a real server is asked, past us; what one was asked is told by `put`."""
    told = shop.call("GET", f"{APPS}/{kind}/{name}")
    if told is not None:
        found = told["spec"]["template"]["spec"]["containers"]
        assert [(one["name"], one["resources"]) for one in found] == [
            (one["name"], one["resources"]) for one in containers
        ]


def put(shop: Kube) -> list[tuple[str, str | None]]:
    """What was asked to be changed there, in order: a container, its limit and `+` its request; where one goes."""
    return [_put(sent) for sent in shop.patches()]


def _put(sent: Any) -> tuple[str, str | None]:
    if isinstance(sent, list):
        return " ".join(edit["path"] for edit in sent[1:]), None
    (container,) = sent["spec"]["template"]["spec"]["containers"]
    assert container.keys() == {"name", "resources"}
    assert all(amounts.keys() == {"memory"} for amounts in container["resources"].values())
    amounts = {field: amounts["memory"] for field, amounts in container["resources"].items()}
    return container["name"], "+".join(amounts.get(field, "") for field in ("limits", "requests")).removesuffix("+")


FIRST = "/spec/template/spec/containers/0/resources/limits/memory"


def test_a_limit_is_tried_applied_read_back_and_undone(shop: Kube) -> None:
    shop.make(by("kubectl-create"), workload("web", app(limit="64Mi", request="32Mi")))
    said = " ".join(shop.run("fix", "limit", "deploy/web", "--max", "2G", "--yes").stdout.split())
    assert "deploy/shop/web:app memory limit 64Mi → 2Gi" in said
    assert "its 2 pods are made anew (rollout), now and when it is undone" in said
    assert "QoS class Burstable stays" in said
    assert "evicts first which pods use more than they request, its own above 32 MiB, of those by priority" in said
    assert "kubectl top pod tells" in said
    holds(shop, "web", app(limit="2Gi", request="32Mi"))
    shop.run("undo")
    holds(shop, "web", app(limit="64Mi", request="32Mi"))
    assert put(shop) == [("app", "2Gi"), ("app", "64Mi")]


def test_one_that_had_none_has_none_again(shop: Kube) -> None:
    shop.make(by("kubectl-create", "statefulsets"), workload("db", app(limit=None)))
    said = " ".join(shop.run("fix", "limit", "sts/shop/db", "--max", "1G", "--yes").stdout.split())
    assert "sts/shop/db:app memory limit not set → 1Gi" in said
    assert "QoS class BestEffort becomes Burstable" in said
    assert "its request, as none is written, is as large as the limit" in said
    holds(shop, "db", app(limit="1Gi"), kind="statefulsets")
    shop.run("undo")
    holds(shop, "db", app(limit=None), kind="statefulsets")
    assert put(shop) == [("app", "1Gi"), (FIRST, None)]


def test_one_that_is_lifted_is_taken_out_and_put_back(shop: Kube) -> None:
    shop.make(by("kubectl-create"), workload("free", app(limit="64Mi"), app("log", limit="32Mi")))
    said = " ".join(shop.run("fix", "limit", "deploy/free:app", "--max", "max", "--yes").stdout.split())
    assert "deploy/shop/free:app memory limit 64Mi → not set" in said
    assert "no limit of its own bounds it any more: what it takes is missed by the other pods of its node" in said
    assert "nothing is requested then: a node takes it in however little it has left" in said
    holds(shop, "free", app(limit=None), app("log", limit="32Mi"))
    assert "nothing to change" in shop.run("fix", "limit", "deploy/free:app", "--max", "max", "--yes").stdout
    shop.run("undo")
    holds(shop, "free", app(limit="64Mi"), app("log", limit="32Mi"))
    assert put(shop) == [(FIRST, None), ("app", "64Mi")]
    patch = yaml.safe_load(shop.run("fix", "limit", "deploy/free:app", "--max", "max", "--as", "k8s").stdout)
    (limited,) = patch["spec"]["template"]["spec"]["containers"]
    assert limited == {"name": "app", "resources": {"limits": {"memory": None}}}


def test_the_second_time_changes_nothing(shop: Kube) -> None:
    shop.make(by("kubectl-create", "daemonsets"), workload("log", app(limit="64Mi")))
    shop.run("fix", "limit", "ds/log", "--max", "96M", "--yes")
    assert "nothing to change" in shop.run("fix", "limit", "ds/log:app", "--max", "96M", "--yes").stdout
    assert shop.run("changes").stdout.count("in force") == 1
    holds(shop, "log", app(limit="96Mi"), kind="daemonsets")
    assert put(shop) == [("app", "96Mi")]


THREE = (app("app", limit="64Mi"), app("proxy", limit="64Mi"), {"name": "log", "resources": {"limits": {"cpu": "1"}}})


def with_limits(*limits: str) -> list[dict[str, Any]]:
    """The three, the last of which has a limit of processors."""
    both = {"cpu": "1"} | ({"memory": limits[2]} if len(limits) > 2 else {})
    return [app("app", limit=limits[0]), app("proxy", limit=limits[1]), {"name": "log", "resources": {"limits": both}}]


def test_what_one_container_has_is_not_touched_by_another(shop: Kube) -> None:
    done = [("log", "1Gi"), ("app", "2Gi"), ("app", "3Gi")]
    orders: dict[str, list[tuple[str, str | None]]] = {  # in which it is undone
        "one": [("app", "2Gi"), ("log", None), ("app", "64Mi")],
        "two": [("app", "2Gi"), ("app", "64Mi"), ("log", None)],
    }
    environ = {"KUBECONFIG": shop.kubeconfig()}
    limits = WorkloadMemory(environ)
    for name, undone in orders.items():
        shop.make(by("kubectl-create"), workload(name, *THREE))
        has: dict[str, str | None] = {"app": "64Mi", "proxy": "64Mi", "log": None}
        for container, want in (*done, *undone):
            limits.put(find_workload(f"deploy/{name}:{container}", 1 << 30, environ).place, want)
            has[container] = want
            holds(shop, name, *with_limits(*filter(None, has.values())))
        holds(shop, name, *THREE)
    log = FIRST.replace("0", "2")
    made = [*done, ("app", "2Gi")]
    assert put(shop) == [*made, (log, None), ("app", "64Mi"), *made, ("app", "64Mi"), (log, None)]


def test_while_it_rolls_out_it_is_tried_again(shop: Kube) -> None:
    shop.make(by("kubectl-create"), workload("rolls", app(limit=None)))
    place = find_workload("deploy/rolls", 1 << 30, {"KUBECONFIG": shop.kubeconfig()}).place
    limits = WorkloadMemory({"KUBECONFIG": shop.kubeconfig()})
    for want in ("1Gi", None):
        shop.meanwhile[:] = [lambda: rolled(shop, "rolls", 1), lambda: None, lambda: rolled(shop, "rolls", 2)]
        limits.put(place, want)  # tried, tried again; applied, applied again
        assert limits.get(place) == want
        holds(shop, "rolls", app(limit=want))
    assert put(shop) == [("app", "1Gi"), (FIRST, None)]
    assert [one.status for one in shop.told if one.asked.startswith("PATCH ")] == [409, 200, 409, 200] * 2


def rolled(shop: Kube, name: str, replicas: int) -> None:
    """What a controller does as a rollout goes on."""
    now = shop.call("GET", f"{APPS}/deployments/{name}")
    status = now["status"] | {"replicas": replicas, "observedGeneration": now["metadata"]["generation"]}
    shop.call("PUT", f"{APPS}/deployments/{name}/status", now | {"status": status})


def test_who_changes_the_limit_meanwhile_comes_first(shop: Kube) -> None:
    shop.make(by("kubectl-create"), workload("edited", app(limit="64Mi")))
    environ = {"KUBECONFIG": shop.kubeconfig()}
    place = find_workload("deploy/edited", 1 << 30, environ).place
    theirs = {"spec": {"template": {"spec": {"containers": [app(limit="3Gi")]}}}}
    kind = "application/strategic-merge-patch+json"
    shop.meanwhile.append(
        lambda: shop.call("PATCH", f"{APPS}/deployments/edited?fieldManager=kubectl-edit", theirs, kind=kind)
    )
    with pytest.raises(Failure, match="its limit became '3Gi' meanwhile, from '64Mi'"):
        WorkloadMemory(environ).put(place, "1Gi")
    assert put(shop) == []
    holds(shop, "edited", app(limit="3Gi"))


def test_what_changes_all_the_while_is_told(shop: Kube) -> None:
    shop.make(by("kubectl-create"), workload("busy", app(limit="64Mi")))
    environ = {"KUBECONFIG": shop.kubeconfig()}
    place = find_workload("deploy/busy", 1 << 30, environ).place
    shop.meanwhile[:] = [lambda: rolled(shop, "busy", 1)]
    with pytest.raises(Failure, match="the object has been modified") as caught:
        WorkloadMemory(environ, patience_s=0.0).put(place, "1Gi")
    assert "kubectl rollout status" in str(caught.value.hint)
    assert put(shop) == []


def test_the_same_number_of_bytes_is_the_same_limit(shop: Kube) -> None:
    shop.make(by("kubectl-create"), workload("bytes", app(limit="2147483648")))
    assert "nothing to change" in shop.run("fix", "limit", "deploy/bytes", "--max", "2G", "--yes").stdout
    shop.run("fix", "limit", "deploy/bytes", "--max", "1G", "--yes")
    shop.run("undo")
    assert put(shop) == [("app", "1Gi"), ("app", "2147483648")]
    holds(shop, "bytes", app(limit="2147483648"))


def test_until_the_next_boot_is_nothing_it_can_hold(shop: Kube) -> None:
    shop.make(by("kubectl-create"), workload("brief", app(limit="64Mi")))
    said = " ".join(
        shop.run("fix", "limit", "deploy/brief", "--max", "1G", "--runtime", "--yes", status=4).stdout.split()
    )
    assert "no boot ends what k8s is told → without --runtime it holds until it is undone" in said
    assert put(shop) == []


@pytest.mark.matrix
def test_what_is_printed_does_it_in_a_shell(tmp_path: Path) -> None:
    """By a kubectl, again and again, and of the server it names alone."""
    program("kubectl")
    with real() as cluster:
        shop = Kube(address=cluster.url, folder=tmp_path, cluster=cluster)
        shop.make(by("kubectl-create"), workload("hand", *THREE))
        environ = os.environ | {"KUBECONFIG": shop.kubeconfig()}
        places = [find_workload(f"deploy/hand:{name}", 1 << 30, environ).place for name in ("app", "log")]
        before = dict.fromkeys(places, "64Mi") | {places[1]: None}
        for limits, want in ((("1Gi", "64Mi", "1Gi"), dict.fromkeys(places, "1Gi")), (("64Mi", "64Mi"), before)):
            script = "\n".join(export.shell([step(place, want[place]) for place in places]))
            for _ in range(2):
                subprocess.run(["sh"], input=script, text=True, env=environ, check=True, capture_output=True)
                holds(shop, "hand", *with_limits(*limits))
        elsewhere = script.replace(cluster.url, "https://127.0.0.1:1")
        assert subprocess.run(["sh"], input=elsewhere, text=True, env=environ, capture_output=True).returncode != 0


def step(place: Place, want: str | None) -> Step:
    return Step(place=place, before="?", want=want)


def test_of_several_containers_one_is_named(shop: Kube) -> None:
    shop.make(by("kubectl-create"), workload("twins", app("app"), app("proxy")))
    environ = {"KUBECONFIG": shop.kubeconfig()}
    with pytest.raises(Failure, match="deploy/twins has 2 containers") as caught:
        find_workload("deploy/twins", 1 << 30, environ)
    assert caught.value.hint == "deploy/twins:app or deploy/twins:proxy"
    with pytest.raises(Failure, match="it has no container web") as caught:
        find_workload("deploy/twins:web", 1 << 30, environ)
    assert caught.value.hint == "there is app, proxy"
    said = shop.run("fix", "limit", "deploy/twins:proxy", "--max", "1G", "--dry-run", status=3).stdout
    assert "deploy/shop/twins:proxy memory limit  64Mi → 1Gi" in said


def test_who_was_guaranteed_what_it_has_is_told_what_it_loses(shop: Kube) -> None:
    both = {"cpu": "1", "memory": "64Mi"}
    shop.make(by("kubectl-create"), workload("sure", {"name": "app", "resources": {"limits": both, "requests": both}}))
    said = " ".join(shop.run("fix", "limit", "deploy/sure", "--max", "1G", "--dry-run", status=3).stdout.split())
    assert "QoS class Guaranteed becomes Burstable" in said


def test_a_limit_below_the_request_is_refused_with_the_figure(shop: Kube) -> None:
    shop.make(by("kubectl-create"), workload("asks", app(limit="1Gi", request="512Mi")))
    said = " ".join(shop.run("fix", "limit", "deploy/asks", "--max", "256M", "--yes", status=4).stdout.split())
    assert "app requests 512 MiB, and a limit is not below that → --max 512M or more" in said
    holds(shop, "asks", app(limit="1Gi", request="512Mi"))
    assert put(shop) == []


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
        refused = WorkloadMemory(environ).obstacle(place, "1Gi")
        assert refused is not None
        assert refused.message.startswith(said)
        assert str(refused.hint).endswith("--as k8s prints what to commit")
        with pytest.raises(Failure, match=said):
            WorkloadMemory(environ).put(place, "1Gi")
        holds(shop, name, app(limit="64Mi"))
    assert put(shop) == []


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
    holds(shop, "chart", app(limit="1536Mi"))
    assert put(shop) == []
    script = shop.run("fix", "limit", "deploy/chart", "--max", "2G", "--as", "sh").stdout
    command = "kubectl set resources deploy/chart --namespace=shop --server=http://127.0.0.1:"
    assert command in script
    assert " --containers=app --limits=memory=2Gi" in script


def test_what_the_namespace_does_not_allow_is_told_in_its_words(shop: Kube) -> None:
    shop.make(by("kubectl-create"), workload("big", app(limit="64Mi")))
    most = {"limits": [{"type": "Container", "max": {"memory": "512Mi"}}]}
    shop.make("/api/v1/namespaces/shop/limitranges", {"metadata": {"name": "most"}, "spec": most})
    said = " ".join(shop.run("fix", "limit", "deploy/big", "--max", "1G", "--yes", status=4).stdout.split())
    assert "its pods would not be let in" in said
    assert "maximum memory usage per Container is 512Mi, but limit is 1Gi" in said
    holds(shop, "big", app(limit="64Mi"))
    assert put(shop) == []
    shop.call("DELETE", "/api/v1/namespaces/shop/limitranges/most")


LIMIT_RANGES = "/api/v1/namespaces/shop/limitranges"


def each(**amounts: str) -> dict[str, Any]:
    """What containers of the namespace are given where nothing is written."""
    given = {key: {"memory": amount} for key, amount in amounts.items()}
    return {"metadata": {"name": "given"}, "spec": {"limits": [{"type": "Container", **given}]}}


def test_a_limit_that_the_namespace_gives_all_the_same_is_told_with_its_figure(shop: Kube) -> None:
    shop.make(by("kubectl-create"), workload("still", app(limit="1Gi"), app("log", limit="32Mi")))
    shop.make(LIMIT_RANGES, each(default="128Mi", defaultRequest="64Mi"))
    asked = ("fix", "limit", "deploy/still:app", "--max", "max")
    for also in ((), ("--request", "96M")):
        said = " ".join(shop.run(*asked, *also, "--yes", status=4).stdout.split())
        assert "with none written app has a limit of 128 MiB: a LimitRange of the namespace gives it" in said
        assert "--max with a size counts instead; kubectl get limitrange,resourcequota" in said
        assert "bounds it any more" not in said
    said = " ".join(shop.run(*asked, "--request", "1G", "--yes", status=4).stdout.split())
    assert "its pods would not be let in" in said
    assert 'Invalid value: "1Gi": must be less than or equal to memory limit' in said
    holds(shop, "still", app(limit="1Gi"), app("log", limit="32Mi"))
    assert put(shop) == []
    shop.run(*asked[:4], "2G", "--yes")  # what the hint says
    shop.call("DELETE", f"{LIMIT_RANGES}/given")
    holds(shop, "still", app(limit="2Gi"), app("log", limit="32Mi"))


def test_a_request_that_the_namespace_gives_is_told_with_its_figure(shop: Kube) -> None:
    shop.make(by("kubectl-create"), workload("asked", app(limit="1Gi"), app("log", limit=None)))
    shop.make(LIMIT_RANGES, each(defaultRequest="64Mi"))
    said = " ".join(shop.run("fix", "limit", "deploy/asked:app", "--max", "max", "--yes").stdout.split())
    shop.call("DELETE", f"{LIMIT_RANGES}/given")
    assert "no limit of its own bounds it any more" in said
    assert "QoS class Burstable stays" in said
    assert "its request, as none is written, is 64 MiB (LimitRange): a node must have as much left" in said
    assert "its own above 128 MiB (before above 1.1 GiB)" in said
    assert "nothing is requested then" not in said
    holds(shop, "asked", app(limit=None), app("log", limit=None))


def test_who_has_a_volume_of_his_own_is_tried_like_any_other(shop: Kube) -> None:
    """A StatefulSet mounts what each pod claims, which no pod of it alone has."""
    mounts = {"volumeMounts": [{"name": "data", "mountPath": "/data"}]}
    stored = workload("store", {**app(limit="64Mi"), **mounts})
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    stored["spec"]["volumeClaimTemplates"] = [{"metadata": {"name": "data"}, "spec": claim}]
    shop.make(by("kubectl-create", "statefulsets"), stored)
    shop.make(LIMIT_RANGES, each(max="512Mi"))  # which is what is given, too
    said = " ".join(shop.run("fix", "limit", "sts/store", "--max", "1G", "--yes", status=4).stdout.split())
    assert "maximum memory usage per Container is 512Mi, but limit is 1Gi" in said
    said = " ".join(shop.run("fix", "limit", "sts/store", "--max", "max", "--yes", status=4).stdout.split())
    assert "with none written app has a limit of 512 MiB: a LimitRange of the namespace gives it" in said
    shop.call("DELETE", f"{LIMIT_RANGES}/given")
    holds(shop, "store", app(limit="64Mi"), kind="statefulsets")
    assert put(shop) == []


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
    holds(shop, "much", app(limit="64Mi"))
    assert put(shop) == []
    shop.call("DELETE", "/api/v1/namespaces/shop/resourcequotas/all")


def test_what_somebody_has_changed_since_stays_theirs(shop: Kube) -> None:
    shop.make(by("kubectl-create"), workload("ours", app(limit="64Mi")))
    shop.run("fix", "limit", "deploy/ours", "--max", "1G", "--yes")
    theirs = {"spec": {"template": {"spec": {"containers": [app(limit="3Gi")]}}}}
    kind = "application/strategic-merge-patch+json"
    shop.call("PATCH", f"{APPS}/deployments/ours?fieldManager=kubectl-edit", theirs, kind=kind)
    said = shop.run("undo", status=4).stderr
    assert "deploy/shop/ours:app memory limit is 3Gi: somebody else has set it since change 1 changed it" in said
    holds(shop, "ours", app(limit="3Gi"))
    assert "deploy/shop/ours:app memory limit stays 3Gi, as" in shop.run("undo", "--leave").stdout
    assert put(shop) == [("app", "1Gi")]


def test_one_that_was_made_anew_is_another(shop: Kube) -> None:
    shop.make(by("kubectl-create"), workload("anew", app(limit="64Mi")))
    shop.run("fix", "limit", "deploy/anew", "--max", "1G", "--yes")
    shop.call("DELETE", f"{APPS}/deployments/anew")
    shop.make(by("kubectl-create"), workload("anew", app(limit="1Gi")))
    assert "is no more" in shop.run("undo").stdout
    holds(shop, "anew", app(limit="1Gi"))
    assert put(shop) == [("app", "1Gi")]


def test_who_may_only_look_is_told_before_anything_is_changed(shop: Kube) -> None:
    shop.make(by("kubectl-create"), workload("seen", app(limit="64Mi")))
    said = " ".join(
        shop.run("fix", "limit", "deploy/seen", "--max", "1G", "--yes", status=4, who=VIEWER).stdout.split()
    )
    assert 'User "viewer" cannot patch resource "deployments" in API group "apps" in the namespace "shop"' in said


def test_what_is_not_there_is_told(shop: Kube) -> None:
    for word in ("deploy/nosuch", "deployment/nosuch", "deployments.apps/shop/nosuch"):
        said = shop.run("fix", "limit", word, "--max", "1G", "--yes", status=1).stderr
        assert "namespace shop has no Deployment nosuch\n  kubectl get deployments -n shop" in said


def node(name: str, memory: str) -> dict[str, Any]:
    return {"metadata": {"name": name}, "status": {"allocatable": {"memory": memory}, "capacity": {"memory": memory}}}


RESOURCES = "/spec/template/spec/containers/0/resources"


def test_a_limit_and_a_request_change_by_one_patch_and_go_back_by_one(shop: Kube) -> None:
    shop.make(by("kubectl-create"), workload("pair", app(limit="64Mi", request="32Mi"), app("log", request="16Mi")))
    shop.make("/api/v1/nodes", node("small", "512Mi"), node("large", "8Gi"))
    said = " ".join(
        shop.run("fix", "limit", "deploy/pair:app", "--max", "2G", "--request", "1G", "--yes").stdout.split()
    )
    shop.call("DELETE", "/api/v1/nodes/small")
    shop.call("DELETE", "/api/v1/nodes/large")
    assert "deploy/shop/pair:app memory limit 64Mi, request 32Mi → limit 2Gi, request 1Gi" in said
    assert "its 2 pods are made anew (rollout), now and when it is undone" in said
    assert "QoS class Burstable stays" in said
    assert "a node must have 1 GiB left for a pod of it, before 48 MiB; 1 of 2 nodes has as much at all" in said
    assert "its own above 1 GiB (before above 48 MiB)" in said
    assert "what it uses now is not known here, nor whether that is more than it requests" in said
    holds(shop, "pair", app(limit="2Gi", request="1Gi"), app("log", request="16Mi"))
    shop.run("undo")
    holds(shop, "pair", app(limit="64Mi", request="32Mi"), app("log", request="16Mi"))
    assert put(shop) == [("app", "2Gi+1Gi"), ("app", "64Mi+32Mi")]


def test_a_request_alone_leaves_the_limit_and_is_gone_again(shop: Kube) -> None:
    shop.make(by("kubectl-create"), workload("alone", app(limit="64Mi")))
    said = " ".join(shop.run("fix", "limit", "deploy/alone", "--request", "32M", "--yes").stdout.split())
    assert "deploy/shop/alone:app memory request not set → 32Mi" in said
    assert "a node must have 32 MiB left for a pod of it, before 64 MiB; which nodes have is not known here" in said
    holds(shop, "alone", app(limit="64Mi", request="32Mi"))
    assert "nothing to change" in shop.run("fix", "limit", "deploy/alone", "--request", "32M", "--yes").stdout
    shop.run("undo")
    holds(shop, "alone", app(limit="64Mi"))
    assert put(shop) == [("app", "+32Mi"), (f"{RESOURCES}/requests/memory", None)]


CPU = {"limits": {"cpu": "1"}, "requests": {"cpu": "1"}}


def test_where_there_was_neither_there_is_neither_again(shop: Kube) -> None:
    shop.make(by("kubectl-create"), workload("neither", {"name": "app", "resources": CPU}))
    said = " ".join(
        shop.run("fix", "limit", "deploy/neither", "--max", "1G", "--request", "1G", "--yes").stdout.split()
    )
    assert "deploy/shop/neither:app memory not set → limit 1Gi, request 1Gi" in said
    assert "QoS class Burstable becomes Guaranteed" in said
    assert "its own above 1 GiB (before above nothing)" in said
    both = {field: {"cpu": "1", "memory": "1Gi"} for field in CPU}
    holds(shop, "neither", {"name": "app", "resources": both})
    shop.run("undo")
    holds(shop, "neither", {"name": "app", "resources": CPU})
    assert put(shop) == [("app", "1Gi+1Gi"), (f"{RESOURCES}/limits/memory {RESOURCES}/requests/memory", None)]


def test_of_two_the_one_that_was_there_comes_back_and_the_other_goes(shop: Kube) -> None:
    was = {"limits": {"cpu": "1", "memory": "64Mi"}}
    shop.make(by("kubectl-create"), workload("half", {"name": "app", "resources": was}))
    shop.run("fix", "limit", "deploy/half", "--max", "2G", "--request", "1G", "--yes")
    now = {"limits": {"cpu": "1", "memory": "2Gi"}, "requests": {"memory": "1Gi"}}
    holds(shop, "half", {"name": "app", "resources": now})
    shop.run("undo")  # the request is above the limit that comes back
    holds(shop, "half", {"name": "app", "resources": was})
    assert put(shop) == [("app", "2Gi+1Gi"), (f"{RESOURCES}/limits {RESOURCES}/requests/memory", None)]


def test_limit_and_request_do_not_undo_each_other(shop: Kube) -> None:
    shop.make(by("kubectl-create"), workload("order", app(limit="64Mi")))
    asked = ("fix", "limit", "deploy/order", "--yes")
    for more in (("--max", "1G"), ("--request", "32M"), ("--max", "2G", "--request", "64M")):
        shop.run(*asked, *more)
    for number in ("1", "2"):
        said = shop.run("undo", number, status=1).stderr
        assert "change 3 has changed deploy/shop/order:app memory" in said
        assert "reprieve undo 3 first" in said
    holds(shop, "order", app(limit="2Gi", request="64Mi"))
    shop.run("undo", "3")
    holds(shop, "order", app(limit="1Gi", request="32Mi"))
    shop.run("undo", "1")  # under what is of the request alone
    holds(shop, "order", app(limit="64Mi", request="32Mi"))
    shop.run("undo", "2")
    holds(shop, "order", app(limit="64Mi"))
    assert put(shop) == [
        *(("app", "1Gi"), ("app", "+32Mi"), ("app", "2Gi+64Mi")),
        *(("app", "1Gi+32Mi"), ("app", "64Mi"), (f"{RESOURCES}/requests/memory", None)),
    ]


def test_whoever_puts_limit_and_request_takes_nothing_else_away(shop: Kube) -> None:
    environ = {"KUBECONFIG": shop.kubeconfig()}
    memory, gib = WorkloadMemory(environ), 1 << 30
    shop.make(by("kubectl-create"), workload("turns", app(limit="64Mi"), app("log", limit="1Gi")))
    places = {
        "limit": find_workload("deploy/turns:app", gib, environ).place,
        "request": find_workload("deploy/turns:app", None, environ, request_bytes=gib).place,
        "both": find_workload("deploy/turns:app", 9 * gib, environ, request_bytes=gib).place,
    }
    turns: list[tuple[str, str | None, dict[str, Any]]] = [
        ("request", "32Mi", app(limit="64Mi", request="32Mi")),
        ("limit", "2Gi", app(limit="2Gi", request="32Mi")),
        ("both", "3Gi+1Gi", app(limit="3Gi", request="1Gi")),
        ("limit", "4Gi", app(limit="4Gi", request="1Gi")),
        ("request", "2Gi", app(limit="4Gi", request="2Gi")),
        ("both", "2Gi+32Mi", app(limit="2Gi", request="32Mi")),
        ("request", None, app(limit="2Gi")),
        ("limit", None, app(limit=None)),
        ("both", "+1Gi", app(limit=None, request="1Gi")),
        ("both", "64Mi+", app(limit="64Mi")),
    ]
    for which, want, then in turns:
        memory.put(places[which], want)
        assert memory.get(places[which]) == want
        holds(shop, "turns", then, app("log", limit="1Gi"))


def test_a_request_above_the_limit_is_refused_with_the_figures(shop: Kube) -> None:
    shop.make(by("kubectl-create"), workload("greedy", app(limit="64Mi")))
    said = " ".join(shop.run("fix", "limit", "deploy/greedy", "--request", "128M", "--yes", status=4).stdout.split())
    assert "app is limited to 64 MiB, and a request of 128 MiB is above that" in said
    assert "→ --request 64M or less, or --max 128M or more with it" in said
    assert put(shop) == []
    shop.run("fix", "limit", "deploy/greedy", "--request", "128M", "--max", "128M", "--yes")
    holds(shop, "greedy", app(limit="128Mi", request="128Mi"))


def test_of_two_what_is_so_already_is_no_part_of_the_change(shop: Kube) -> None:
    shop.make(by("kubectl-create"), workload("partly", app(limit="2147483648", request="32Mi")))
    shop.run("fix", "limit", "deploy/partly", "--max", "2G", "--request", "1G", "--yes")
    shop.run("fix", "limit", "deploy/partly", "--max", "3G", "--request", "1G", "--yes")
    said = shop.run("fix", "limit", "deploy/partly", "--max", "3G", "--request", "1G", "--yes").stdout
    assert "nothing to change" in said
    holds(shop, "partly", app(limit="3Gi", request="1Gi"))
    assert put(shop) == [("app", "+1Gi"), ("app", "3Gi")]


def test_who_manages_the_request_leaves_the_limit_to_us(shop: Kube) -> None:
    shop.make(by("kubectl-create"), workload("tuned", app(limit="64Mi", request="32Mi")))
    theirs = {
        "spec": {"template": {"spec": {"containers": [{"name": "app", "resources": {"requests": {"memory": "48Mi"}}}]}}}
    }
    kind = "application/strategic-merge-patch+json"
    shop.call("PATCH", f"{APPS}/deployments/tuned?fieldManager=tuner", theirs, kind=kind)
    for asked in (("--request", "64M"), ("--request", "64M", "--max", "1G")):
        said = " ".join(shop.run("fix", "limit", "deploy/tuned", *asked, "--yes", status=4).stdout.split())
        assert "tuner sets it again → where that reads it; --as k8s prints what to commit" in said
    shop.run("fix", "limit", "deploy/tuned", "--max", "1G", "--yes")
    holds(shop, "tuned", app(limit="1Gi", request="48Mi"))
    assert put(shop) == [("app", "1Gi")]


def test_a_quota_of_requests_is_told_with_its_figures(shop: Kube) -> None:
    shop.make(by("kubectl-create"), workload("quota", app(limit="2Gi", request="32Mi")))
    hard = {"requests.memory": "512Mi"}
    shop.make("/api/v1/namespaces/shop/resourcequotas", {"metadata": {"name": "asked"}, "spec": {"hard": hard}})
    nothing = {"status": {"hard": hard, "used": {"requests.memory": "0"}}}  # no controller counts here
    kind = "application/merge-patch+json"
    shop.call("PATCH", "/api/v1/namespaces/shop/resourcequotas/asked/status", nothing, kind=kind)
    said = " ".join(shop.run("fix", "limit", "deploy/quota", "--request", "1G", "--yes", status=4).stdout.split())
    assert "its pods would not be let in" in said
    assert "exceeded quota: asked, requested: requests.memory=1Gi, used: requests.memory=0" in said
    assert put(shop) == []
    shop.call("DELETE", "/api/v1/namespaces/shop/resourcequotas/asked")


def test_a_request_is_exported_for_who_owns_it(shop: Kube) -> None:
    about, manager, said = OWNED["helm"]
    shop.make(by(manager), workload("charted", app(limit="64Mi"), **about))
    asked = ("fix", "limit", "deploy/charted", "--max", "2G", "--request", "1G")
    assert said in shop.run(*asked, "--yes", status=4).stdout
    patch = yaml.safe_load(shop.run(*asked, "--as", "k8s").stdout)
    assert patch["spec"]["template"]["spec"]["containers"] == [app(limit="2Gi", request="1Gi")]
    assert " --containers=app --limits=memory=2Gi --requests=memory=1Gi" in shop.run(*asked, "--as", "sh").stdout
    patch = yaml.safe_load(shop.run(*asked[:3], *asked[5:], "--as", "k8s").stdout)
    assert patch["spec"]["template"]["spec"]["containers"] == [app(limit=None, request="1Gi")]
    assert put(shop) == []


def test_who_may_not_ask_for_nodes_is_not_told_of_them(shop: Kube) -> None:
    shop.make(by("kubectl-create"), workload("narrow", app(limit="2Gi")))
    environ = {"KUBECONFIG": shop.kubeconfig(VIEWER)}
    cost = find_workload("deploy/narrow", None, environ, request_bytes=1 << 30).cost
    assert "a node must have 1 GiB left for a pod of it, before 2 GiB; which nodes have is not known here" in cost
    assert "what a LimitRange of the namespace adds to that is not known here" in cost


@pytest.mark.matrix
def test_what_is_printed_of_a_request_does_it_in_a_shell(tmp_path: Path) -> None:
    program("kubectl")
    with real() as cluster:
        shop = Kube(address=cluster.url, folder=tmp_path, cluster=cluster)
        shop.make(by("kubectl-create"), workload("hand", *THREE))
        environ = os.environ | {"KUBECONFIG": shop.kubeconfig()}
        place = find_workload("deploy/hand:app", 1 << 30, environ, request_bytes=1 << 20).place
        for want, then in (
            ("1Gi+512Mi", app(limit="1Gi", request="512Mi")),
            ("64Mi+", app(limit="64Mi")),  # the request that goes is above the limit that comes back
            ("+1Gi", app(limit=None, request="1Gi")),
            ("64Mi+32Mi", app(limit="64Mi", request="32Mi")),
            (None, app(limit=None)),
        ):
            script = "\n".join(export.shell([step(place, want)]))
            for _ in range(2):
                subprocess.run(["sh"], input=script, text=True, env=environ, check=True, capture_output=True)
                holds(shop, "hand", then, *THREE[1:])


def test_without_a_cluster_it_is_told_what_is_read_there() -> None:
    with pytest.raises(
        Failure, match=r"^no kubeconfig: /nowhere is not there \(deploy/web is looked up in its cluster, for --as too\)"
    ) as caught:
        find_workload("deploy/web", 1 << 30, {"KUBECONFIG": "/nowhere"})
    assert "KUBECONFIG=FILE names that of the cluster" in str(caught.value.hint)


@pytest.mark.parametrize("word", ["deploy/", "deploy/a/b/c", "deploy/Web", "sts/../x", "ds/a:", "deploy/a b"])
def test_what_is_no_name_is_not_asked_for(word: str) -> None:
    with pytest.raises(Failure, match="is no name of a workload"):
        find_workload(word, 1 << 30, {"KUBECONFIG": "/nowhere"})


@pytest.mark.parametrize("of", ["deploy/web", "https://h/shop/deploy/web/app", "https://h/shop/job/web@1-2/app"])
def test_a_place_is_a_server_and_a_whole_name(of: str) -> None:
    with pytest.raises(Failure, match="is no limit or request of a container of Kubernetes"):
        WorkloadMemory({"KUBECONFIG": "/nowhere"}).get(Place(kind="k8s", of=of, key="memory"))


@pytest.mark.parametrize(
    ("size_bytes", "written"), [(2 << 30, "2Gi"), (1 << 40, "1Ti"), (1_000_000_000, "976560Ki"), (4095, "0")]
)
def test_a_size_is_written_as_the_server_would(size_bytes: int, written: str) -> None:
    assert quantity(size_bytes) == written


@pytest.mark.parametrize(("key", "want"), [("memory", "1Gi+1Gi"), ("requests", "1Gi+"), ("memory+requests", "1Gi")])
def test_a_value_is_of_as_many_amounts_as_its_place(key: str, want: str, tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(kubeconfig("http://127.0.0.1:1", "nobody"))
    place = Place(kind="k8s", of="http://127.0.0.1:1/shop/deploy/web@1-2/app", key=key)
    with pytest.raises(Failure, match=f"'{re.escape(want)}' is no (limit|request)"):
        WorkloadMemory({"KUBECONFIG": str(path)}).put(place, want)

"""`why pod:NAME` on the pod's node: a real API server, a real kubelet, a real Docker, and kills by this kernel."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.machine.clusters import Kube, real
from tests.machine.engines import BUSYBOX, IMAGE
from tests.machine.engines import engine as engine_here
from tests.machine.kubelet import NAME, node, runtime, wait_for
from tests.machine.real import missing

pytestmark = [pytest.mark.matrix, pytest.mark.alone]

PODS = "/api/v1/namespaces/shop/pods"
LOAD = [BUSYBOX, "dd", "if=/dev/zero", "of=/dev/null", "bs=80M", "count=1"]  # holds 80 MiB at once


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kube]:
    if os.geteuid() != 0 or not os.access("/dev/kmsg", os.R_OK):
        missing("root, and a kernel log of its own")
    folder = tmp_path_factory.mktemp("node")
    with real() as cluster, engine_here("docker", folder, *runtime(folder)) as engine:
        kube = Kube(address=cluster.url, folder=folder, cluster=cluster)
        with node(kube, cluster, engine, folder):
            yield kube


def run(shop: Kube, name: str, *command: str, restarts: str = "Never", **about: Any) -> None:
    """A pod with a limit of 48 MiB on this node."""
    limited = {"limits": {"memory": "48Mi"}}
    container = {"name": "app", "image": IMAGE, "imagePullPolicy": "Never", "command": command, "resources": limited}
    spec = {"nodeName": NAME, "hostNetwork": True, "automountServiceAccountToken": False, "restartPolicy": restarts}
    spec |= {"terminationGracePeriodSeconds": 1, "containers": [container | about]}
    shop.make(PODS, {"metadata": {"name": name}, "spec": spec})


def state(shop: Kube, name: str) -> dict[str, Any]:
    statuses = shop.call("GET", f"{PODS}/{name}")["status"].get("containerStatuses") or [{"state": {}}]
    told: dict[str, Any] = statuses[0]["state"]
    return told


def container_of(shop: Kube, name: str) -> str:
    told: str = shop.call("GET", f"{PODS}/{name}")["status"]["containerStatuses"][0]["containerID"]
    return told.removeprefix("docker://")


def why(shop: Kube, word: str) -> str:
    return " ".join(shop.run("why", word).stdout.split())


def test_the_kill_of_a_pod_is_told_by_its_name_with_the_kernels_own_report(shop: Kube) -> None:
    run(shop, "hog", *LOAD)
    wait_for(lambda: "terminated" in state(shop, "hog"))
    assert state(shop, "hog")["terminated"]["reason"] == "OOMKilled"
    run(shop, "later", *LOAD)  # the newest kill is another's
    wait_for(lambda: "terminated" in state(shop, "later"))
    said = why(shop, "pod:shop/hog")
    assert "Killed busybox (pid " in said
    assert f"of container {container_of(shop, 'hog')[:12]} of pod" in said
    assert "Kubernetes says so too: container app of pod hog in namespace shop, OOMKilled, exit status 137" in said


def test_a_child_that_was_killed_is_told_though_the_api_server_knows_of_nothing(shop: Kube) -> None:
    run(shop, "child", BUSYBOX, "sh", "-c", f"{' '.join(LOAD)}; exec {BUSYBOX} sleep 600")
    wait_for(lambda: "running" in state(shop, "child"))
    wait_for(lambda: "Killed busybox (pid " in why(shop, "pod:child"))
    assert "running" in state(shop, "child")
    assert f"of container {container_of(shop, 'child')[:12]} of pod" in why(shop, "pod:child")


STUBBORN = [BUSYBOX, "sh", "-c", f"trap '' TERM; while :; do {BUSYBOX} sleep 1; done"]
FAILS = {"exec": {"command": [BUSYBOX, "false"]}, "periodSeconds": 1, "failureThreshold": 1}


def last(shop: Kube, name: str) -> dict[str, Any]:
    """How it ended before it was started again."""
    statuses = shop.call("GET", f"{PODS}/{name}")["status"].get("containerStatuses") or [{}]
    told: dict[str, Any] = statuses[0].get("lastState", {}).get("terminated", {})
    return told


def test_a_kill_for_a_failed_probe_is_told_as_that(shop: Kube) -> None:
    run(shop, "stuck", *STUBBORN, restarts="Always", livenessProbe=FAILS)
    wait_for(lambda: bool(last(shop, "stuck")))
    assert last(shop, "stuck")["exitCode"] == 137
    said = why(shop, "pod:stuck")
    assert "as its liveness probe had failed: no OOM kill" in said

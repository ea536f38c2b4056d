"""Containers of pods, by what containerd keeps of them: real bundles of its CRI, and nonsense in their place."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from reprieve.machine.cri import parse_bundle, read_cri
from reprieve.machine.host import Host
from reprieve.model.finding import Gap
from reprieve.model.machine import Container, Machine
from reprieve.model.process import Process
from reprieve.oom.groups import owner
from reprieve.rules.whatif import find_cgroups
from tests.machine.real import missing

CAPTURES = Path(__file__).parents[1] / "captures"
WEB = "b4d3d160678783eb4891b3532dbcab555fda3cc2d7ccfa23c620876f1347fd35"
SANDBOX = "9cb38f7158117b23912174c5b951ca451c09aa6528a952ba18205fde801f4884"
POD = "/kubepods/burstable/pod3b7c1f52-8d1e-4a36-9c0a-5f2f6d1e7a90"  # as the bundles have it
SLICE = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod3b7c1f52_8d1e_4a36_9c0a_5f2f6d1e7a90.slice"
STATE = "run/containerd/io.containerd.runtime.v2.task/k8s.io"


@pytest.fixture
def node(tmp_path: Path) -> Host:
    for container_id, name in ((WEB, "container"), (SANDBOX, "sandbox")):
        bundle = tmp_path / STATE / container_id
        bundle.mkdir(parents=True)
        (bundle / "config.json").write_bytes((CAPTURES / f"containerd-cri-{name}.json").read_bytes())
    return Host(str(tmp_path))


@pytest.mark.parametrize("paths", [(f"{POD}/{WEB}", f"{POD}/{SANDBOX}"), (f"{SLICE}/cri-containerd-{WEB}.scope",)])
def test_a_container_is_called_as_its_pod_calls_it(node: Host, paths: tuple[str, ...]) -> None:
    gaps: list[Gap] = []
    found = read_cri(node, (*paths, "/", POD, paths[0]), gaps)
    assert [(one.container_id, one.name, one.pod) for one in found] == [
        (WEB, "nginx", "shop/web-6d4cf56db6-x2x9p"),
        (SANDBOX, "sandbox", "shop/web-6d4cf56db6-x2x9p"),
    ][: len(paths)]
    assert owner(paths[0], found).name == "container nginx of pod shop/web-6d4cf56db6-x2x9p"
    assert gaps == []


def test_it_is_found_by_its_name_and_by_that_of_its_pod(node: Host) -> None:
    paths = (POD, f"{POD}/{WEB}", f"{POD}/{SANDBOX}")
    processes = tuple(Process(pid=pid, start_ticks=pid, cgroup=path) for pid, path in enumerate(paths))
    machine = Machine(processes=processes, containers=read_cri(node, paths, []))
    assert find_cgroups(machine, "nginx") == (f"{POD}/{WEB}",)
    for name in ("web-6d4cf56db6-x2x9p", "shop/web-6d4cf56db6-x2x9p", "3b7c1f52-8d1e-4a36-9c0a-5f2f6d1e7a90"):
        assert find_cgroups(machine, name) == (POD,)
    assert find_cgroups(machine, "x2x9p") == ()
    assert find_cgroups(replace(machine, containers=()), "web-6d4cf56db6-x2x9p") == ()


def test_nothing_is_kept_of_it_but_names(node: Host) -> None:
    (found,) = read_cri(node, (f"{POD}/{WEB}",), [])
    named = {"name": "nginx", "image": "docker.io/library/pause:1", "pod": "shop/web-6d4cf56db6-x2x9p"}
    assert found == Container(container_id=WEB, manager="containerd", **named)


def test_what_is_no_bundle_of_a_pod_tells_nothing(node: Host) -> None:
    whole = json.loads((CAPTURES / "containerd-cri-container.json").read_text())
    texts = ["", "[]", "{}", '{"annotations": 7}', "[" * 99999, json.dumps(whole)[:-9]]
    for key in ("container-type", "sandbox-name", "sandbox-namespace"):
        told = {name: value for name, value in whole["annotations"].items() if not name.endswith(key)}
        texts += [json.dumps(whole | {"annotations": told}), json.dumps(whole | {"annotations": told | {key: [1]}})]
    for text in texts:
        assert parse_bundle(WEB, text.encode()) is None
    odd = {"io.kubernetes.cri.container-name": "\ud800", "io.kubernetes.cri.image-name": 3}
    kept = parse_bundle(WEB, json.dumps({"annotations": whole["annotations"] | odd}).encode())
    assert kept is not None
    assert (kept.name, kept.image) == (r"\ud800", None)


def test_a_container_of_another_runtime_or_that_has_ended_is_no_gap(node: Host) -> None:
    gaps: list[Gap] = []
    other = WEB.replace("b", "c")
    paths = (f"{POD}/{other}", f"/system.slice/docker-{WEB}.scope", f"/kubepods.slice/crio-{WEB}.scope", "/../../x")
    assert read_cri(node, paths, gaps) == ()
    assert gaps == []


def test_what_only_root_may_read_is_a_gap() -> None:
    if os.geteuid() != 0:
        missing("root, whose the bundles are")
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        os.chmod(folder, 0o755)
        bundle = Path(folder, STATE, WEB)
        bundle.mkdir(parents=True, mode=0o700)
        (bundle / "config.json").write_bytes((CAPTURES / "containerd-cri-container.json").read_bytes())
        os.chmod(bundle, 0o700)
        child = os.fork()
        if child == 0:
            try:
                os.setuid(65534)
                gaps: list[Gap] = []
                found = read_cri(Host(folder), (f"{POD}/{WEB}",), gaps)
                refused = Gap(place="names of containers of pods", reason="permission denied", hint="run it as root")
                os._exit(0 if (found, gaps) == ((), [refused]) else 1)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

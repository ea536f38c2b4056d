"""Captured machines that run containers: whose each group is, and what its container was given."""

from __future__ import annotations

from dataclasses import replace

from reprieve.machine.host import Host
from reprieve.machine.observe import observe
from reprieve.model.cgroup import Cgroup, Limit
from reprieve.model.machine import Machine
from reprieve.model.process import Process
from reprieve.model.snapshot import Snapshot
from reprieve.model.workload import Workload
from reprieve.oom.paths import workload
from reprieve.rules.living.commit import overcommit_unbounded
from tests.conftest import Run
from tests.oom.test_living import HOSTS

MIB = 1 << 20
SPARE_SWAP = 64 * MIB - 4096  # the first page is its header


def seen(name: str) -> Machine:
    return observe(Host(str(HOSTS / name)), [], unique_s=0)


def containers(machine: Machine, manager: str) -> dict[Limit | None, tuple[Workload, Cgroup]]:
    """The scopes of its containers, by their limits, which tell them apart."""
    scopes = [(workload(group.path), group) for group in machine.cgroups if group.path.endswith(".scope")]
    return {group.max_bytes: (of, group) for of, group in scopes if of.manager == manager and of.kind == "container"}


def inside(machine: Machine, path: str) -> list[Process]:
    return [one for one in machine.processes if one.cgroup == path or (one.cgroup or "").startswith(f"{path}/")]


def test_what_docker_was_told_is_what_its_containers_have() -> None:
    machine = seen("docker-26")
    assert [(area.name, area.size_bytes) for area in machine.swaps] == [("/dev/vda", SPARE_SWAP)]
    found = containers(machine, "docker")
    assert set(found) == {64 * MIB, 48 * MIB, "max"}

    _, web = found[64 * MIB]
    assert (web.low_bytes, web.swap_max_bytes) == (48 * MIB, 64 * MIB)  # unless it is told, as much swap as memory
    (hog,) = inside(machine, web.path)
    assert (hog.comm, hog.oom_score_adj) == ("hog", 300)
    assert hog.rss_bytes is not None
    assert hog.rss_bytes > 20 * MIB

    _, batch = found[48 * MIB]
    assert batch.swap_max_bytes == 0
    assert dict(batch.local_events)["oom_kill"] == 1
    assert [one.comm for one in inside(machine, batch.path)] == ["sleep"]

    _, free = found["max"]
    assert (free.swap_max_bytes, dict(free.local_events)["oom_kill"]) == ("max", 0)
    (engine,) = [one for one in machine.processes if one.comm == "dockerd"]
    assert (engine.cgroup, engine.oom_score_adj) == ("/system.slice/docker.service", -500)


def test_a_process_of_a_container_is_named_by_it(reprieve: Run) -> None:
    for name, title in (("docker-26", "Docker"), ("podman-5", "Podman")):
        first = reprieve("next", "--from", HOSTS / name).stdout.splitlines()[0]
        assert first.startswith("Next      hog (pid ")
        assert f") of {title} container " in first


def test_what_podman_was_told_is_what_its_containers_have() -> None:
    machine = seen("podman-5")
    found = containers(machine, "podman")
    web_owner, web = found[64 * MIB]
    assert (web_owner.uid, web.low_bytes) == (None, 48 * MIB)
    (hog,) = inside(machine, web.path)
    assert (hog.comm, hog.oom_score_adj) == ("hog", 300)
    assert hog.cgroup == f"{web.path}/container"  # which crun makes, with the same limit
    within = {group.path: group for group in machine.cgroups}[hog.cgroup]
    assert (within.max_bytes, within.swap_max_bytes) == (64 * MIB, 64 * MIB)
    assert workload(within.path).container_id == web_owner.container_id


def test_a_pod_of_podman_has_its_limit_and_its_containers_theirs() -> None:
    machine = seen("podman-5")
    (pod,) = [group for group in machine.cgroups if workload(group.path).kind == "pod"]
    assert workload(pod.path).manager == "podman"
    assert pod.max_bytes == 96 * MIB
    below = [group for group in machine.cgroups if group.path.startswith(f"{pod.path}/") and group.pids]
    assert {group.max_bytes: group.swap_max_bytes for group in below} == {48 * MIB: 0, "max": "max"}
    assert {one.comm for one in inside(machine, pod.path)} == {"hog", "sleep"}


def test_a_container_of_an_ordinary_user_is_theirs() -> None:
    machine = seen("podman-5")
    owner, group = containers(machine, "podman")[32 * MIB]
    assert owner.uid == 1000
    (sleep,) = inside(machine, group.path)
    assert (sleep.comm, sleep.uid) == ("sleep", 1000)  # who is root within
    assert "user@1000.service" in group.path


def test_a_limit_that_crun_repeats_is_told_once(reprieve: Run) -> None:
    said = " ".join(reprieve("next", "--from", HOSTS / "podman-5").stdout.split())
    assert said.count("of user 1000, limit 32 MiB") == 1


# -- a kubelet's node --------------------------------------------------------------------------------------------------

DATABASE = "3f1e6a52-8c0b-4d27-9a55-6f0c1b2d7e94"


def pods(machine: Machine) -> dict[str | None, tuple[Workload, Cgroup]]:
    """The pods by their quality of service."""
    found = [(workload(group.path), group) for group in machine.cgroups]
    return {owner.qos: (owner, group) for owner, group in found if owner.kind == "pod"}


def test_a_pod_of_each_quality_of_service_has_the_limit_it_was_given() -> None:
    found = pods(seen("kubelet-1.20"))
    assert {qos: group.max_bytes for qos, (_, group) in found.items()} == {
        "Guaranteed": 48 * MIB,
        "Burstable": 64 * MIB,
        "BestEffort": "max",
    }
    assert {owner.manager for owner, _ in found.values()} == {"kubernetes"}
    assert found["Guaranteed"][0].pod_uid == DATABASE
    for qos in ("Burstable", "BestEffort"):  # of a folder: the UID is a digest without dashes
        assert len(found[qos][0].pod_uid or "") == 32


def test_the_pods_together_may_have_what_the_node_does_not_keep_back() -> None:
    machine = seen("kubelet-1.20")
    (node,) = [group for group in machine.cgroups if workload(group.path).name == "all Kubernetes pods"]
    assert node.max_bytes == dict(machine.meminfo)["MemTotal"] - 200 * MIB  # kubeReserved


def test_a_container_of_a_pod_is_told_with_its_pod_and_has_the_adjustment_it_was_given() -> None:
    machine = seen("kubelet-1.20")
    for qos, (pod, group) in pods(machine).items():
        keeper, main = sorted(inside(machine, group.path), key=lambda one: one.start_ticks)
        assert (keeper.comm, keeper.oom_score_adj) == ("sleep", -998)
        assert main.comm == ("sleep" if qos == "BestEffort" else "hog")
        assert main.oom_score_adj == -997  # pods of a folder are critical, whatever their quality: IsCriticalPod()
        of = workload(main.cgroup or "")
        assert (of.kind, of.qos, of.pod_uid) == ("container", qos, pod.pod_uid)
        assert of.container_id is not None
    agents = {one.comm: one.oom_score_adj for one in machine.processes}
    assert (agents["kubelet"], agents["dockerd"]) == (-999, -999)


def test_on_a_node_no_pod_of_a_folder_dies_first(reprieve: Run) -> None:
    said = " ".join(reprieve("next", "--from", HOSTS / "kubelet-1.20").stdout.split())
    assert said.startswith("Next systemd-logind ")
    assert "Before kubelet " in said
    assert said.count(", limit 48 MiB") == 1  # of the pod; its one container with a limit has the same


def test_what_a_kubelet_sets_is_no_finding_and_without_one_it_is() -> None:
    machine = seen("kubelet-1.20")
    assert dict(machine.sysctls)["vm.overcommit_memory"] == "1"
    assert list(overcommit_unbounded(Snapshot(machine=machine))) == []
    (finding,) = overcommit_unbounded(Snapshot(machine=replace(machine, killers=())))
    assert finding.code == "overcommit-unbounded"

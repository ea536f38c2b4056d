"""What would be otherwise, and who is meant by a name."""

from __future__ import annotations

import pytest

from reprieve.machine.host import Host
from reprieve.machine.observe import observe
from reprieve.model.cgroup import Cgroup
from reprieve.model.machine import Machine
from reprieve.model.process import Process
from reprieve.rules import whatif
from tests.oom.test_living import HOSTS

ID = "4f1c2d3e4a5b" + 52 * "0"
POD = "95387fa4-3c4a-4b7e-9d0a-5f7f0f1e2d3c"
DOCKER = f"/system.slice/docker-{ID}.scope"
IN_POD = f"/kubepods.slice/kubepods-pod{POD.replace('-', '_')}.slice"


@pytest.fixture(scope="module")
def systemd() -> Machine:
    """Debian 12 with two services in a slice, captured."""
    return observe(Host(str(HOSTS / "v2-systemd-252")), [], unique_s=0)


def _grouped() -> Machine:
    """A container with a group within it, and a pod with a container in it."""
    paths = (DOCKER, f"{DOCKER}/inner", IN_POD, f"{IN_POD}/cri-containerd-{ID[::-1]}.scope")
    groups = tuple(Cgroup(path=path, version=2, pids=(10 + at,)) for at, path in enumerate(paths))
    processes = tuple(Process(pid=10 + at, start_ticks=1, comm="a=b", cgroup=path) for at, path in enumerate(paths))
    return Machine(cgroups=groups, processes=processes)


@pytest.mark.parametrize("name", ["web", "web.service", "/app.slice/web.service"])
def test_a_unit_is_found_by_what_people_call_it(systemd: Machine, name: str) -> None:
    assert whatif.find_cgroups(systemd, name) == ("/app.slice/web.service",)
    assert [process.comm for process in whatif.find_processes(systemd, name)] == ["sleep"]


@pytest.mark.parametrize(
    ("name", "path"),
    [
        (f"docker:{ID[:12]}", DOCKER),
        (f"podman:{ID[:12]}", None),
        (f"unit:{ID[:12]}", None),
        (f"pod:{POD}", IN_POD),
        (f"unit:{POD}", None),
        ("pid:11", f"{DOCKER}/inner"),
        ("pid:99", None),
        ("pid:", None),
        ("unit:", None),
    ],
)
def test_a_word_with_its_kind_is_of_that_kind_alone(name: str, path: str | None) -> None:
    assert whatif.find_cgroups(_grouped(), name) == (() if path is None else (path,))


@pytest.mark.parametrize("name", ["unit:web", "unit:web.service"])
def test_a_unit_is_found_as_one(name: str, systemd: Machine) -> None:
    assert whatif.find_cgroups(systemd, name) == ("/app.slice/web.service",)
    assert len(whatif.find_processes(systemd, name)) == 1


@pytest.mark.parametrize("name", ["", "we", "eb", "web.servic", "app.slice/web", "0"])
def test_a_part_of_a_name_is_nobody(systemd: Machine, name: str) -> None:
    assert whatif.find_cgroups(systemd, name) == ()
    assert whatif.find_processes(systemd, name) == ()


def test_a_pid_is_one_process_and_a_name_all_that_have_it(systemd: Machine) -> None:
    sleeps = [process for process in systemd.processes if process.comm == "sleep"]
    assert len(sleeps) == 2
    assert whatif.find_processes(systemd, "sleep") == tuple(sleeps)
    assert whatif.find_processes(systemd, str(sleeps[0].pid)) == (sleeps[0],)


def test_a_container_is_found_by_the_start_of_its_id_and_a_pod_by_its_uid() -> None:
    machine = _grouped()
    assert whatif.find_cgroups(machine, ID[:12]) == (DOCKER,)
    assert whatif.find_cgroups(machine, ID[:4]) == ()
    assert whatif.find_cgroups(machine, f"docker:{ID[:4]}") == (DOCKER,)
    assert whatif.find_cgroups(machine, f"docker:{ID[:3]}") == ()
    assert whatif.find_cgroups(machine, f"podman:{ID[:4]}") == ()
    assert whatif.find_cgroups(machine, POD) == (IN_POD,)
    assert [process.pid for process in whatif.find_processes(machine, ID[:12])] == [10, 11]
    assert [process.pid for process in whatif.find_processes(machine, POD)] == [12, 13]


def test_nothing_else_is_changed(systemd: Machine) -> None:
    pid = systemd.processes[-1].pid
    assert whatif.with_adj(systemd, {pid}, systemd.processes[-1].oom_score_adj or 0) == systemd
    assert whatif.grown(systemd, pid, 0) == systemd
    assert whatif.without(systemd, ()) == systemd
    changed = whatif.grown(systemd, pid, 4096)
    assert changed.processes[:-1] == systemd.processes[:-1]
    assert (changed.processes[-1].rss_bytes or 0) - (systemd.processes[-1].rss_bytes or 0) == 4096
    limited = whatif.with_limit(systemd, "/app.slice/web.service", 4096)
    assert {group.max_bytes for group in limited.cgroups if group not in systemd.cgroups} == {4096}

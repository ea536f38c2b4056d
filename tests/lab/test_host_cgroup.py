"""A real kill on this machine."""

from __future__ import annotations

from lab.host_cgroup import HostCgroup
from reprieve.model.oom import OomReport
from reprieve.oom.report import read_reports


def test_a_child_that_grows_is_killed_at_the_limit_and_logged(cgroup_here: HostCgroup) -> None:
    kill = cgroup_here.leak()
    assert f"Killed process {kill.pid} (python" in kill.log
    assert f"limit {cgroup_here.limit_bytes // 1024}kB" in kill.log
    assert f"{kill.cgroup},task=python" in kill.log


def test_a_second_kill_is_told_apart_from_the_first(cgroup_here: HostCgroup) -> None:
    first, second = cgroup_here.leak(), cgroup_here.leak()
    assert f"Killed process {first.pid} " not in second.log


def test_a_kill_is_read_from_the_records_of_kmsg_as_it_was_made(cgroup_here: HostCgroup) -> None:
    kill = cgroup_here.leak()
    (oom,) = (event for event in read_reports(kill.log) if isinstance(event, OomReport))
    memory = oom.memcg and oom.memcg.usage("memory")
    assert [killed.pid for killed in oom.kills] == [kill.pid]
    assert (oom.oom_memcg or "").endswith(kill.cgroup)
    assert memory
    assert memory.limit_bytes == cgroup_here.limit_bytes
    assert oom.missing == ()

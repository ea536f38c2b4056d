"""Whom the kernel would kill on a living machine, by captured machines and by its own score."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from reprieve.machine.host import Host
from reprieve.machine.observe import observe
from reprieve.model.cgroup import Cgroup
from reprieve.model.finding import Gap
from reprieve.model.machine import LiveZone, Machine
from reprieve.model.process import Process
from reprieve.model.unit import Unit
from reprieve.oom.choose import oom_score
from reprieve.oom.living import all_seen, if_nobody, one_cgroup, predict, sequence, some_nodes, whole_machine

HOSTS = Path(__file__).parent.parent / "hosts"
PAGE, MIB = 4096, 1 << 20


def _process(pid: int, mib: int, adj: int = 0, cgroup: str = "/", **facts: object) -> Process:
    return replace(
        Process(pid=pid, start_ticks=pid, comm=f"p{pid}", rss_bytes=mib * MIB, oom_score_adj=adj, cgroup=cgroup),
        **facts,  # type: ignore[arg-type]
    )


def _machine(*processes: Process, cgroups: tuple[Cgroup, ...] = (), **facts: object) -> Machine:
    machine = Machine(page_bytes=PAGE, meminfo=(("MemTotal", 1000 * MIB),), processes=processes, cgroups=cgroups)
    return replace(machine, **facts)  # type: ignore[arg-type]


def _killed(machine: Machine, cgroup: str | None = None) -> list[int]:
    domain = whole_machine(machine) if cgroup is None else one_cgroup(machine, cgroup)
    assert domain is not None
    return [process.pid for process in predict(machine, domain).killed]


@pytest.mark.parametrize("host", sorted(path.name for path in HOSTS.iterdir() if (path / "proc").is_dir()))
def test_points_agree_with_the_score_the_kernel_shows_of_each_process(host: str) -> None:
    machine = observe(Host(str(HOSTS / host)), [], unique_s=0)
    domain = whole_machine(machine)
    assert domain is not None
    prediction = predict(machine, domain)
    compared = 0
    for candidate in prediction.choice.ranking:
        shown = prediction.processes[candidate.pid].oom_score
        ours = oom_score(prediction.choice.points(candidate), domain.total_pages)
        assert shown is not None
        assert abs(shown - ours) <= 1, candidate  # its files are read one after the other while it runs
        compared += 1
    assert compared >= 1


def test_who_shares_the_memory_of_the_victim_dies_with_it_and_the_memory_comes_free_once() -> None:
    parent, child = _process(2, 300, mm=2), _process(3, 300, mm=2, oom_score_adj=-1000)
    machine = _machine(_process(1, 9), parent, child, _process(4, 100, mm=4), _process(5, 100, mm=4))
    domain = whole_machine(machine)
    assert domain is not None
    first, second, third = sequence(machine, domain, 1 << 40)
    assert [process.pid for process in first.killed] == [2, 3]
    assert first.sharing == (child,)
    assert first.freed_bytes == 300 * MIB
    assert {process.pid for process in second.killed} == {4, 5}
    assert [process.pid for process in third.killed] == [1]


def test_nobody_is_chosen_who_is_exempt_a_kernel_thread_or_dead() -> None:
    machine = _machine(
        _process(1, 900),
        _process(2, 800, kernel_thread=True),
        _process(3, 700, adj=-1000),
        _process(4, 600, state="Z"),
    )
    assert _killed(machine) == []


def test_the_first_process_of_a_container_is_not_the_init_of_the_machine() -> None:
    assert _killed(_machine(_process(1, 900), _process(7, 800))) == [1]


def test_the_one_whose_memory_or_adj_could_not_be_read_is_counted_not_ranked() -> None:
    machine = _machine(_process(5, 10), _process(6, 20, rss_bytes=None), _process(7, 30, oom_score_adj=None))
    domain = whole_machine(machine)
    assert domain is not None
    prediction = predict(machine, domain)
    assert [one.pid for one in prediction.choice.ranking] == [5]
    assert prediction.uncounted == 2


def test_swap_and_page_tables_count_as_memory_held() -> None:
    machine = _machine(_process(5, 100), _process(6, 50, swap_bytes=40 * MIB, pgtables_bytes=11 * MIB))
    assert _killed(machine) == [6]


def test_adj_weighs_thousandths_of_memory_and_swap_for_the_machine_and_of_the_limit_for_a_group() -> None:
    group = Cgroup(path="/a", version=2, max_bytes=100 * MIB, swap_max_bytes=0, pids=(5, 6))
    machine = _machine(_process(5, 60, cgroup="/a"), _process(6, 10, adj=100, cgroup="/a"), cgroups=(group,))
    assert _killed(machine) == [6]
    assert _killed(machine, "/a") == [5]


@pytest.mark.parametrize(
    ("facts", "total_mib"),
    [
        ({"version": 2, "swap_max_bytes": "max"}, 164),  # all the swap there is
        ({"version": 2, "swap_max_bytes": 32 * MIB}, 132),
        ({"version": 2, "swap_max_bytes": None}, 164),  # swapaccount=0
        ({"version": 2, "swap_max_bytes": None, "swap_current_bytes": 0}, 100),  # its limit was not told
        ({"version": 1, "memsw_max_bytes": 120 * MIB}, 120),
        ({"version": 1, "memsw_max_bytes": 120 * MIB, "swappiness": 0}, 100),
        ({"version": 1, "memsw_max_bytes": "max"}, 164),
        ({"version": 1, "memsw_max_bytes": None, "swappiness": 60}, 164),
        ({"version": 1, "memsw_max_bytes": None, "swappiness": 0}, 100),
    ],
)
def test_the_total_of_a_group_is_its_limit_and_the_swap_it_may_use(facts: dict[str, object], total_mib: int) -> None:
    group = replace(Cgroup(path="/a", version=2, max_bytes=100 * MIB), **facts)  # type: ignore[arg-type]
    machine = _machine(cgroups=(group,), meminfo=(("MemTotal", 1000 * MIB), ("SwapTotal", 64 * MIB)))
    domain = one_cgroup(machine, "/a")
    assert domain is not None
    assert domain.total_pages * PAGE == total_mib * MIB


@pytest.mark.parametrize(
    ("private", "limit", "total_mib"),
    [
        (True, 100 * MIB, 100),
        (True, 1000 * MIB, 1000),  # as lxcfs shows it
        (True, 1001 * MIB, 1000),  # of the machine there is less
        (True, "max", 1000),
        (False, "max", 1000),  # version 1 has the files in the root too
    ],
)
def test_memory_ends_for_all_who_are_seen_at_the_limit_of_their_container_or_in_the_machine(
    private: bool, limit: int | str, total_mib: int
) -> None:
    group = Cgroup(path="/", version=2, max_bytes=limit, swap_max_bytes=0, pids=(5,))  # type: ignore[arg-type]
    domain = all_seen(_machine(_process(5, 1), cgroups=(group,), cgroup_private=private))
    assert domain is not None
    assert domain.total_pages * PAGE == total_mib * MIB
    assert domain.cgroup == ("/" if private and limit in (100 * MIB, 1000 * MIB) else None)


def test_a_group_without_a_limit_has_no_oom_of_its_own() -> None:
    machine = _machine(cgroups=(Cgroup(path="/a", version=2, max_bytes="max"),))
    assert one_cgroup(machine, "/a") is None
    assert one_cgroup(machine, "/b") is None


def test_all_of_the_topmost_group_that_dies_whole_go_with_the_victim_but_the_exempt() -> None:
    groups = (
        Cgroup(path="/a", version=2, max_bytes="max", oom_group=True),
        Cgroup(path="/a/b", version=2, max_bytes=50 * MIB, oom_group=True, pids=(5, 6)),
        Cgroup(path="/a/c", version=2, max_bytes="max", pids=(7, 8)),
    )
    processes = (
        _process(5, 30, cgroup="/a/b"),
        _process(6, 1, cgroup="/a/b"),
        _process(7, 9, cgroup="/a/c"),
        _process(8, 9, adj=-1000, cgroup="/a/c"),
        _process(9, 20),
    )
    machine = _machine(*processes, cgroups=groups)
    assert _killed(machine) == [5, 6, 7]
    assert _killed(machine, "/a/b") == [5, 6]  # a group above the limit does not count


def test_settings_that_replace_the_choice() -> None:
    group = Cgroup(path="/a", version=1, max_bytes=50 * MIB, oom_kill_disable=True, pids=(5,))
    machine = _machine(_process(5, 30, cgroup="/a"), cgroups=(group,))
    for sysctls, of_machine, of_group in (
        ((("vm.panic_on_oom", "0"),), None, "waits"),
        ((("vm.panic_on_oom", "1"),), "panic", "waits"),
        ((("vm.panic_on_oom", "2"),), "panic", "waits"),  # it never comes to out_of_memory()
        ((("vm.oom_kill_allocating_task", "1"),), "allocating-task", "waits"),
    ):
        now = replace(machine, sysctls=sysctls)
        told = [predict(now, domain).instead for domain in (whole_machine(now), one_cgroup(now, "/a")) if domain]
        assert told == [of_machine, of_group], sysctls


def test_of_nodes_only_those_who_may_use_them_can_be_chosen() -> None:
    machine = observe(Host(str(HOSTS / "numa-mini-7")), [], unique_s=0)
    domain = some_nodes(machine, frozenset({1}))
    assert domain is not None
    whole = whole_machine(machine)
    assert whole is not None
    assert domain.total_pages < whole.total_pages
    large = next(one for one in machine.processes if one.comm == "hog")
    hog = replace(large, pid=8999, mems_allowed="0", mm=None)
    wall = (hog, _process(9000, 2, mems_allowed="0-1", bound_to="0"), _process(9001, 1, mems_allowed="1"))
    assert _killed_at_node_1(replace(machine, processes=wall)) == (9000, False)  # in a cpuset policies do not count
    assert _killed_at_node_1(replace(machine, processes=wall[:2])) == (8999, True)  # nor cpusets for a policy
    assert some_nodes(machine, frozenset({7})) is None


def _killed_at_node_1(machine: Machine) -> tuple[int, bool]:
    domain = some_nodes(machine, frozenset({1}))
    assert domain is not None
    return predict(machine, domain).killed[0].pid, domain.by_policy


@pytest.mark.parametrize(("bound_to", "killed"), [("0", 9001), ("0-1", 9000), ("1", 9000), (None, 9000)])
def test_who_is_bound_to_other_nodes_by_a_memory_policy_is_passed_over(bound_to: str | None, killed: int) -> None:
    machine = observe(Host(str(HOSTS / "numa-mini-7")), [], unique_s=0)
    large = _process(9000, 90, mems_allowed="0-1", bound_to=bound_to)
    small = _process(9001, 9, mems_allowed="0-1", bound_to="1")
    assert _killed_at_node_1(replace(machine, processes=(large, small))) == (killed, True)


def test_all_nodes_that_have_memory_are_no_constraint_and_one_without_is_no_place() -> None:
    machine = observe(Host(str(HOSTS / "numa-mini-7")), [], unique_s=0)
    assert some_nodes(machine, frozenset({0, 1})) == whole_machine(machine)
    empty = replace(machine, zones=(*machine.zones, LiveZone(node=2, name="Normal", present_pages=0)))
    assert some_nodes(empty, frozenset({0, 1})) == whole_machine(machine)
    assert some_nodes(empty, frozenset({0, 1, 2})) == whole_machine(machine)
    assert some_nodes(empty, frozenset({2})) is None


def test_without_anybody_to_kill_the_machine_stops_and_a_group_refuses_where_all_were_seen() -> None:
    group = Cgroup(path="/a", version=2, max_bytes=100 * MIB, pids=(5,))
    machine = _machine(_process(5, 60, adj=-1000, cgroup="/a"), cgroups=(group,))
    for domain, then in ((whole_machine(machine), "panic"), (one_cgroup(machine, "/a"), "refused")):
        assert domain is not None
        assert if_nobody(predict(machine, domain)) == then
        for place, seen in (("/proc", False), ("processes", False), ("/proc/7/stat", False), ("/proc/7/maps", True)):
            assert if_nobody(predict(machine, domain), [Gap(place=place, reason="x")]) == (then if seen else "unseen")
        assert if_nobody(predict(machine, domain), [Gap(place="/proc", reason="x", hides=False)]) == then
        weighed = replace(machine, processes=(_process(5, 60, cgroup="/a"),))
        assert if_nobody(predict(weighed, domain)) is None
        unknown = replace(machine, processes=(_process(5, 60, cgroup="/a", rss_bytes=None),))
        assert if_nobody(predict(unknown, domain)) == "unseen"
    stops = whole_machine(machine)
    assert stops is not None
    assert if_nobody(predict(replace(machine, sysctls=(("vm.panic_on_oom", "1"),)), stops)) is None


def test_the_margin_is_what_the_first_has_more_than_the_second() -> None:
    machine = _machine(_process(5, 60), _process(6, 50), _process(7, 70, adj=-1000))
    domain = whole_machine(machine)
    assert domain is not None
    assert predict(machine, domain).margin_pages == 10 * MIB // PAGE
    assert predict(machine, domain, gone={6}).margin_pages is None


def test_one_after_the_other_until_enough_is_free() -> None:
    machine = _machine(*(_process(pid, pid) for pid in range(10, 20)))
    domain = whole_machine(machine)
    assert domain is not None
    assert [one.killed[0].pid for one in sequence(machine, domain, 50 * MIB)] == [19, 18, 17]
    assert len(list(sequence(machine, domain, 900 * MIB))) == 10


def test_of_a_limit_only_what_is_stopped_within_it_comes_free() -> None:
    unit = Unit(name="web.service", cgroup="/web.service", oom_policy="stop")
    group = Cgroup(path="/web.service/worker", version=2, max_bytes=50 * MIB, pids=(5, 6, 8))
    processes = (
        _process(5, 30, cgroup="/web.service/worker", mm=5),
        _process(6, 2, cgroup="/web.service/worker", mm=6),
        _process(7, 20, cgroup="/web.service", mm=7),
        _process(8, 2, cgroup="/web.service/worker", mm=6),
    )
    machine = _machine(*processes, cgroups=(group,), units=(unit,), cgroup_version="2")
    domain = one_cgroup(machine, "/web.service/worker")
    assert domain is not None
    (step,) = sequence(machine, domain, 1 << 40)
    assert [process.pid for process in step.stopped] == [6, 7, 8]
    assert (step.freed_bytes, step.stopped_bytes) == (30 * MIB, 2 * MIB)


def _stopped(policy: str | None, version: str = "2", victim_in: str = "/system.slice/web.service/worker") -> list[int]:
    unit = Unit(name="web.service", cgroup="/system.slice/web.service", oom_policy=policy)
    outer = Unit(name="system.slice", cgroup="/system.slice")
    processes = (
        _process(5, 30, cgroup=victim_in),
        _process(6, 1, cgroup="/system.slice/web.service"),
        _process(7, 1, adj=-1000, cgroup="/system.slice/web.service/other"),
        _process(8, 1, cgroup="/system.slice/web.service-not"),
    )
    machine = _machine(*processes, units=(outer, unit), cgroup_version=version)
    domain = whole_machine(machine)
    assert domain is not None
    prediction = predict(machine, domain)
    assert [process.pid for process in prediction.killed] == [5]
    return [process.pid for process in prediction.stopped]


@pytest.mark.parametrize("policy", ["continue", "kill", None])
def test_without_the_policy_systemd_stops_nobody(policy: str | None) -> None:
    assert _stopped(policy) == []


def test_on_version_1_systemd_hears_of_no_kill() -> None:
    assert _stopped("stop", version="1") == []
    assert _stopped("stop", version="hybrid") == []


def test_a_victim_of_another_unit_stops_nobody() -> None:
    assert _stopped("stop", victim_in="/system.slice/other.service") == []
    assert _stopped("stop", victim_in="/") == []


def test_systemd_stops_the_rest_of_the_unit_the_exempt_too() -> None:
    assert _stopped("stop") == [6, 7]


@pytest.mark.parametrize("page_bytes", [0, -4096])
def test_pages_of_no_size_are_not_told(page_bytes: int) -> None:
    known = _machine(cgroups=(Cgroup(path="/a", version=2, max_bytes=MIB),), page_bytes=page_bytes)
    assert whole_machine(known) is None
    assert all(one_cgroup(known, group.path) is None for group in known.cgroups)


def test_a_swappiness_that_is_no_number_is_not_told() -> None:
    odd = _machine(cgroups=(Cgroup(path="/a", version=2, max_bytes=MIB),), sysctls=(("vm.swappiness", "x"),))
    assert one_cgroup(odd, "/a") == one_cgroup(replace(odd, sysctls=()), "/a")

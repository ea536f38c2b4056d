"""The edges of rules on the living machine, on captured machines in which a few facts were changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from reprieve.model.cgroup import Cgroup
from reprieve.model.earlier import Earlier
from reprieve.model.finding import NAME_END, NAME_START, Finding, Remedy
from reprieve.model.killer import Killer
from reprieve.model.machine import HugePool, LiveNode, Machine, Segment, SwapArea, Tmpfs
from reprieve.model.process import Process
from reprieve.model.snapshot import Snapshot
from reprieve.oom.groups import rooms
from reprieve.rules import SEVERITIES
from reprieve.rules.living import check
from reprieve.rules.living.commit import commit_limit_near, overcommit_unbounded
from reprieve.rules.living.groups import held_at_high, limits_exceed_memory, parent_below_child
from reprieve.rules.living.kernel import huge_pages_reserved, segments_forgotten, tmpfs_holds
from reprieve.rules.living.killers import killers_compete
from reprieve.rules.living.nodes import node_bound
from reprieve.rules.living.order import exempt_holds, exemption_inherited, small_victim_next
from reprieve.rules.living.settings import panic_set
from reprieve.rules.living.shares import group_holds, group_near_limit, memory_nearly_full, process_holds
from reprieve.rules.living.since import exempt_grows, remember, slab_grows
from reprieve.rules.living.swap import swap_absent, swap_forbidden, swap_nearly_full, swap_small, swappiness_zero
from tests.rules.living.made import MIB, captured, crowded, with_group, with_meminfo, with_sysctls

Rule = Callable[[Snapshot], Iterator[Finding]]
V2, V1 = captured("v2-mini-6.12"), captured("v1-mini-6.1")
NO_CACHE = (("inactive_file", 0), ("active_file", 0))


def found(rule: Rule, machine: Machine) -> list[Finding]:
    return list(rule(Snapshot(machine=machine)))


def hog(**facts: object) -> Process:
    """The large process of the captured machine, otherwise."""
    process = next(one for one in V2.processes if one.comm == "hog")
    return replace(process, **facts)  # type: ignore[arg-type]


def with_hog(**facts: object) -> Machine:
    others = tuple(one for one in V2.processes if one.comm != "hog")
    return replace(V2, processes=(*others, hog(**facts)))


def test_without_a_machine_nothing_is_found() -> None:
    assert check(Snapshot()) == []


def test_the_severest_come_first_and_names_are_marked() -> None:
    findings = check(Snapshot(machine=crowded()))
    assert findings == sorted(findings, key=lambda one: SEVERITIES.index(one.severity))
    for finding in findings:
        assert finding.claim.count(NAME_START) == finding.claim.count(NAME_END)
        assert "None" not in finding.claim
        assert finding.evidence
        assert all("None" not in line.text for line in finding.evidence)


@pytest.mark.parametrize("field", [name for name in Machine.__dataclass_fields__ if name != "processes"])
def test_any_part_of_a_machine_may_be_absent(field: str) -> None:
    """Nothing is claimed of what was not told, and nothing raised."""
    whole = crowded()
    empty = () if isinstance(getattr(whole, field), tuple) else None
    less = replace(whole, **{field: empty})  # type: ignore[arg-type]
    assert {one.code for one in check(Snapshot(machine=less))} <= {one.code for one in check(Snapshot(machine=whole))}


# -- what was promised -------------------------------------------------------------------------------------------------


def test_strict_overcommit_speaks_from_nine_tenths_on() -> None:
    strict = with_sysctls(V2, overcommit_memory=2, overcommit_ratio=17)
    assert found(commit_limit_near, with_meminfo(strict, CommitLimit=100 * MIB, Committed_AS=89 * MIB)) == []
    (near,) = found(commit_limit_near, with_meminfo(strict, CommitLimit=100 * MIB, Committed_AS=90 * MIB))
    # (90 + 22.5 - 64) / 212.1 = 22.9 %
    assert near.remedies[0].commands == (("sysctl", "-w", "vm.overcommit_ratio=23"),)
    assert found(commit_limit_near, with_meminfo(V2, CommitLimit=100 * MIB, Committed_AS=90 * MIB)) == []


def test_a_ratio_is_advised_only_above_the_present_one_and_where_ram_is_left_beside_huge_pages() -> None:
    strict = with_meminfo(
        with_sysctls(V2, overcommit_memory=2, overcommit_ratio=50), CommitLimit=100 * MIB, Committed_AS=90 * MIB
    )
    assert found(commit_limit_near, strict)[0].remedies == ()
    all_of_it = HugePool(page_bytes=2 * MIB, total=200, free=0, reserved=0)
    strict = replace(with_sysctls(strict, overcommit_ratio=17), huge_pools=(all_of_it,))
    assert found(commit_limit_near, strict)[0].remedies == ()


def test_where_kbytes_are_set_the_ratio_is_not_advised() -> None:
    strict = with_sysctls(V2, overcommit_memory=2, overcommit_kbytes=102400)
    (near,) = found(commit_limit_near, with_meminfo(strict, CommitLimit=100 * MIB, Committed_AS=99 * MIB))
    assert near.remedies == ()


def test_promises_count_against_ram_and_swap_together() -> None:
    always = with_sysctls(V2, overcommit_memory=1)
    assert found(overcommit_unbounded, with_meminfo(always, Committed_AS=270 * MIB)) == []  # 212 + 64
    (unbounded,) = found(overcommit_unbounded, with_meminfo(always, Committed_AS=280 * MIB))
    assert "before Linux 5.1 so is the fork" in (
        unbounded.remedies[0].cost or ""
    )  # since then 0 refuses none: redis-fork-refused


# -- swap --------------------------------------------------------------------------------------------------------------


def test_no_swap_is_told_where_a_quarter_of_ram_would_go_there() -> None:
    none = with_meminfo(V2, SwapTotal=0, AnonPages=40 * MIB, Shmem=10 * MIB)
    assert found(swap_absent, none) == []
    more = with_meminfo(none, Shmem=20 * MIB)
    assert found(swap_absent, more)[0].remedies
    assert found(swap_absent, replace(more, cgroup_private=True))[0].remedies == ()  # a container cannot add any


def test_little_swap_is_told_where_it_could_take_less_than_a_tenth_and_is_not_nearly_full() -> None:
    little = with_meminfo(V2, SwapTotal=8 * MIB, SwapFree=8 * MIB, AnonPages=100 * MIB, Shmem=0)
    (told,) = found(swap_small, little)
    assert "There is little swap: 8 MiB for 100 MiB" in told.claim
    assert found(swap_small, with_meminfo(little, SwapTotal=10 * MIB, SwapFree=10 * MIB)) == []
    assert found(swap_small, with_meminfo(little, AnonPages=30 * MIB)) == []  # of little, little would go there
    assert found(swap_small, with_meminfo(little, SwapFree=0)) == []  # swap-nearly-full tells of that
    assert found(swap_small, with_meminfo(little, SwapTotal=0, SwapFree=0)) == []


def test_full_swap_is_a_warning_only_while_ram_is_scarce() -> None:
    full = with_meminfo(V2, SwapFree=MIB, MemAvailable=150 * MIB)
    assert [(one.severity, one.remedies) for one in found(swap_nearly_full, full)] == [("info", ())]
    scarce = with_meminfo(full, MemAvailable=20 * MIB)
    assert [one.severity for one in found(swap_nearly_full, scarce)] == ["warning"]


def test_a_second_swap_file_has_another_name() -> None:
    scarce = with_meminfo(V2, SwapFree=MIB, MemAvailable=20 * MIB)
    area = SwapArea(name="/swapfile.reprieve", kind="file", size_bytes=64 * MIB, used_bytes=64 * MIB, priority=-2)
    (full,) = found(swap_nearly_full, replace(scarce, swaps=(area,), root=None))
    assert {argv[-1] for argv in full.remedies[0].commands[1:]} == {"/swapfile.reprieve+"}
    assert "of=/swapfile.reprieve+" in full.remedies[0].commands[0]


def test_beside_a_kubelet_swap_has_another_cost() -> None:
    none = with_meminfo(V2, SwapTotal=0, AnonPages=60 * MIB)
    assert "kubelet" not in (found(swap_absent, none)[0].remedies[0].cost or "")
    node = replace(none, processes=(*none.processes, hog(pid=77777, comm="kubelet")))
    assert "failSwapOn" in (found(swap_absent, node)[0].remedies[0].cost or "")


def test_in_version_1_the_swappiness_of_those_with_a_limit_counts() -> None:
    def said(own: int) -> str:
        groups = tuple(replace(group, swappiness=own) for group in V1.cgroups)
        zero = with_sysctls(with_meminfo(replace(V1, cgroups=groups), SwapTotal=64 * MIB), swappiness=0)
        (finding,) = found(swappiness_zero, zero)
        assert "keep their own" in (finding.remedies[0].cost or "")
        return finding.claim

    assert "of no use to a group" in said(0)
    assert "of no use to a group" not in said(60)


def test_who_forbids_swap_is_named_though_it_is_a_group_above() -> None:
    machine = with_group(V2, "/app", swap_max_bytes=0)
    machine = with_group(machine, "/app/web", current_bytes=39 * MIB, stat=NO_CACHE)
    (forbidden,) = found(swap_forbidden, machine)
    assert forbidden.subject == "/app/web"
    assert forbidden.remedies[0].commands[0][-1] == "/sys/fs/cgroup/app/memory.swap.max"


def test_version_1_forbids_swap_by_a_limit_for_both() -> None:
    facts = {"current_bytes": 23 * MIB, "stat": (("total_inactive_file", 0), ("total_active_file", 0))}
    assert found(swap_forbidden, with_group(V1, "/app/web", **facts)) == []
    both = with_group(V1, "/app/web", **facts, memsw_max_bytes=24 * MIB, memsw_current_bytes=23 * MIB)
    (forbidden,) = found(swap_forbidden, both)
    assert "memory.memsw.limit_in_bytes" in " ".join(line.text for line in forbidden.evidence)


def test_swappiness_of_zero_matters_only_with_swap() -> None:
    zero = with_sysctls(V2, swappiness=0)
    assert len(found(swappiness_zero, zero)) == 1
    assert found(swappiness_zero, with_meminfo(zero, SwapTotal=0)) == []
    assert found(swappiness_zero, with_sysctls(V2, swappiness=1)) == []


@pytest.mark.parametrize(
    ("generations", "own", "never"), [("0x0007", None, True), ("0x0000", None, False), ("0x0007", 60, False)]
)
def test_where_mglru_reclaims_a_swappiness_of_zero_is_never(generations: str, own: int | None, never: bool) -> None:
    settings = (("/sys/kernel/mm/lru_gen/enabled", generations),)
    groups = tuple(replace(group, swappiness=own) for group in V2.cgroups)
    machine = replace(with_sysctls(V2, swappiness=0), settings=settings, cgroups=groups)
    (finding,) = found(swappiness_zero, machine)
    assert ("are never used, as MGLRU reclaims" in finding.claim) is never
    assert (generations in [line.text for line in finding.evidence]) is never
    left = dict(machine.meminfo)["MemAvailable"] + (0 if never else dict(machine.meminfo)["SwapFree"])
    assert [room.left_bytes for room in rooms(machine) if room.path is None] == [left]


# -- groups ------------------------------------------------------------------------------------------------------------


def stalled(**facts: object) -> Machine:
    machine = crowded()
    return with_group(machine, "/app/web", **facts)


def test_a_group_is_stuck_at_high_only_with_nothing_to_give_back() -> None:
    assert [one.subject for one in found(held_at_high, stalled())] == ["/app/web"]
    cache = (("inactive_file", 4 * MIB), ("active_file", 0))
    assert found(held_at_high, stalled(stat=cache)) == []
    assert found(held_at_high, stalled(swap_max_bytes="max")) == []  # the machine has 64 MiB free
    assert found(held_at_high, stalled(current_bytes=30 * MIB)) == []
    assert found(held_at_high, stalled(high_bytes="max")) == []


def test_what_it_could_give_back_is_what_all_verbs_count() -> None:
    """Slab that can go is; swap at a swappiness of 0 is not."""
    slab = (("inactive_file", 0), ("active_file", 0), ("slab_reclaimable", 4 * MIB))
    assert found(held_at_high, stalled(stat=slab)) == []
    never = with_sysctls(stalled(swap_max_bytes="max"), swappiness=0)
    assert [one.subject for one in found(held_at_high, never)] == ["/app/web"]


def test_without_pressure_it_is_likely_and_without_stall_it_is_not_said() -> None:
    (finding,) = found(held_at_high, stalled(pressure=()))
    assert finding.confidence == "likely"
    (line, *_) = next(one for one in crowded().cgroups if one.path == "/app/web").pressure
    assert found(held_at_high, stalled(pressure=(replace(line, avg10_percent=2.0),))) == []


def test_an_inner_limit_above_the_outer_one_is_told_with_the_nearest_that_binds() -> None:
    assert found(parent_below_child, V2) == []
    (inner,) = found(parent_below_child, with_group(V2, "/app/web", max_bytes=100 * MIB))
    assert inner.subject == "/app/web"
    assert "64 MiB" in inner.claim


def test_an_outer_limit_is_raised_only_to_what_the_machine_has_and_not_against_a_kubelet() -> None:
    def advised(outer: str, inner_bytes: int) -> tuple[Remedy, ...]:
        groups = (
            Cgroup(path=outer, version=2, max_bytes=50 * MIB, current_bytes=MIB),
            Cgroup(path=f"{outer}/in", version=2, max_bytes=inner_bytes, current_bytes=MIB),
        )
        (finding,) = found(parent_below_child, replace(V2, cgroups=groups))
        return finding.remedies

    assert advised("/app", 60 * MIB)
    assert advised("/app", 1 << 40) == ()
    assert advised("/kubepods.slice", 60 * MIB) == ()


def test_near_its_limit_a_kubelets_group_gets_no_other_limit() -> None:
    group = Cgroup(path="/kubepods.slice", version=2, max_bytes=50 * MIB, current_bytes=49 * MIB, stat=NO_CACHE)
    (finding,) = group_near_limit(Snapshot(machine=replace(V2, cgroups=(group,))), 0.8)
    assert finding.remedies == ()


def test_limits_are_added_up_once_for_each_topmost_group() -> None:
    def limits(*pairs: tuple[str, int]) -> Machine:
        groups = tuple(Cgroup(path=path, version=2, current_bytes=MIB, max_bytes=limit) for path, limit in pairs)
        return replace(V2, cgroups=groups)

    inside = limits(("/a", 200 * MIB), ("/a/b", 200 * MIB), ("/a/c", 200 * MIB))
    assert found(limits_exceed_memory, inside) == []
    (beside,) = found(limits_exceed_memory, limits(("/a", 200 * MIB), ("/b", 200 * MIB)))
    assert "2 groups add up to 400 MiB" in beside.claim
    assert found(limits_exceed_memory, limits(("/a", 4000 * MIB))) == []


def test_the_limit_that_is_to_be_lowered_is_no_kubelets_and_not_below_what_is_held() -> None:
    def lowered(*groups: Cgroup) -> list[str]:
        (finding,) = found(limits_exceed_memory, replace(V2, cgroups=groups))
        return [one.title.partition(":")[0] for one in finding.remedies]

    pod = f"/kubepods-pod{'1' * 8}_2222_3333_4444_{'5' * 12}.slice"
    for path in ("/kubepods.slice", pod):
        node = Cgroup(path=path, version=2, current_bytes=MIB, peak_bytes=2 * MIB, max_bytes=1000 * MIB)
        agent = Cgroup(path="/agent", version=2, current_bytes=MIB, peak_bytes=60 * MIB, max_bytes=200 * MIB)
        (title,) = lowered(node, agent)
        assert title == f"Lower the limit of {NAME_START}/agent{NAME_END} to 96 MiB"
        assert lowered(node, replace(agent, peak_bytes=190 * MIB)) == []
    reset = replace(agent, path="/reset", current_bytes=100 * MIB, peak_bytes=MIB)
    assert lowered(reset, node)[0].endswith("to 144 MiB")


def test_a_group_counts_without_its_file_cache() -> None:
    def near(**facts: object) -> list[Finding]:
        return list(group_near_limit(Snapshot(machine=with_group(V2, "/app/web", **facts)), 0.8))

    cache = (("inactive_file", 20 * MIB), ("active_file", 0))
    assert near(current_bytes=39 * MIB, stat=cache) == []
    assert [one.subject for one in near(current_bytes=39 * MIB, stat=NO_CACHE)] == ["/app/web"]
    assert near(current_bytes=39 * MIB, stat=()) == []  # how much is cache was not told


def test_a_limit_is_raised_above_itself_or_not_at_all() -> None:
    def raised(share: float, **facts: object) -> list[str]:
        machine = with_meminfo(with_group(V2, "/app", max_bytes="max"), MemTotal=8 << 30)
        machine = with_group(machine, "/app/web", max_bytes=200 * MIB, stat=NO_CACHE, **facts)
        found = group_near_limit(Snapshot(machine=machine), share)
        return [one.title.partition(",")[0] for finding in found for one in finding.remedies]

    assert raised(0.5, current_bytes=108 * MIB) == []  # its half as much again fits
    assert raised(0.5, current_bytes=140 * MIB) == ["Raise its limit to 304 MiB"]
    assert raised(0.5, current_bytes=108 * MIB, swap_current_bytes=100 * MIB) == ["Raise its limit to 464 MiB"]
    assert raised(0.8, current_bytes=199 * MIB) == ["Raise its limit to 304 MiB"]


@pytest.mark.parametrize(
    ("free_mib", "facts", "severity", "says"),
    [
        (0, {}, "warning", "(98 %), caches left out: 1 MiB until a kill"),
        (500, {"swap_max_bytes": 0}, "warning", "(98 %), caches left out: 1 MiB until a kill"),
        (4, {}, "warning", "(98 %), caches left out: 1 MiB until it swaps, 5 MiB until a kill"),
        (500, {}, "notice", "(98 %), caches left out: 1 MiB until it swaps, 501 MiB until a kill"),
        (500, {"swap_max_bytes": 20 * MIB}, "notice", "1 MiB until it swaps, 21 MiB until a kill"),
        (
            500,
            {"stat": (*NO_CACHE, ("slab_reclaimable", 4 * MIB))},
            "notice",
            "(88 %), caches left out: 5 MiB until it",
        ),
    ],
)
def test_near_its_limit_a_group_may_swap_before_anybody_is_killed(
    free_mib: int, facts: dict[str, object], severity: str, says: str
) -> None:
    group = {"max_bytes": 40 * MIB, "current_bytes": 39 * MIB, "stat": NO_CACHE, "swap_max_bytes": "max"} | facts
    machine = with_meminfo(with_group(V2, "/app/web", **group), SwapTotal=500 * MIB, SwapFree=free_mib * MIB)
    (finding,) = group_near_limit(Snapshot(machine=machine), 0.8)
    assert (finding.severity, says in finding.claim) == (severity, True), finding.claim


def test_of_a_limit_of_nothing_no_share_is_told() -> None:
    none = with_group(V2, "/app/web", max_bytes=0, current_bytes=MIB, stat=NO_CACHE)
    assert list(group_near_limit(Snapshot(machine=none), 0.8)) == []


def test_a_full_node_is_a_wall_only_where_others_have_room() -> None:
    def bound(inside: int, outside: int) -> list[Finding]:
        free = {0: inside, 1: outside}
        nodes = tuple(
            LiveNode(number=number, meminfo=(("MemTotal", 1000 * MIB), ("MemFree", free[number]))) for number in free
        )
        return found(node_bound, replace(with_hog(mems_allowed="0"), nodes=nodes))

    assert bound(0, 0) == []
    assert bound(MIB, 50 * MIB) == []
    assert [one.subject for one in bound(MIB, 500 * MIB)] == ["node 0"]


def test_advice_in_version_1_keeps_what_may_be_swapped() -> None:
    path = next(group.path for group in V1.cgroups if isinstance(group.max_bytes, int))
    facts = {"max_bytes": 64 * MIB, "memsw_max_bytes": 64 * MIB, "current_bytes": 63 * MIB, "peak_bytes": 63 * MIB}
    full = with_group(
        V1, path, **facts, memsw_current_bytes=63 * MIB, stat=(("total_inactive_file", 0), ("total_active_file", 0))
    )
    near = next(one for one in group_near_limit(Snapshot(machine=full), 0.8) if one.subject == path)
    first, second = near.remedies[0].commands
    assert (first[-1].rpartition("/")[2], second[-1].rpartition("/")[2]) == (
        "memory.memsw.limit_in_bytes",
        "memory.limit_in_bytes",
    )
    assert first[2] == second[2]


# -- processes ---------------------------------------------------------------------------------------------------------


def test_a_share_of_ram_is_sure_where_it_was_measured() -> None:
    def holds(**facts: object) -> list[Finding]:
        return list(process_holds(Snapshot(machine=with_hog(**facts)), 0.8))

    (sure,) = holds(unique_bytes=180 * MIB)
    assert sure.confidence == "certain"
    (likely,) = holds(unique_bytes=None, rss_anon_bytes=180 * MIB)
    assert likely.confidence == "likely"
    assert holds(unique_bytes=20 * MIB, rss_bytes=200 * MIB, rss_anon_bytes=200 * MIB) == []  # shared with others


def test_what_lies_in_swap_is_no_room_in_ram_for_a_limit_and_what_is_held_above_it_is_told() -> None:
    def kept(left: int | None, held: int, swapped: int) -> list[Remedy]:
        machine = with_hog(unique_bytes=held, swap_bytes=swapped)
        machine = with_meminfo(machine, MemTotal=1000 * MIB, **({} if left is None else {"MemAvailable": left}))
        if left is None:
            machine = replace(machine, meminfo=tuple(one for one in machine.meminfo if one[0] != "MemAvailable"))
        (finding,) = process_holds(Snapshot(machine=machine), 0.6)
        return list(finding.remedies)

    (beside,) = kept(100 * MIB, 400 * MIB, 400 * MIB)  # 500 MiB are of others
    assert beside.commands == (("reprieve", "run", "--max", "400M", "--swap-max", "0", "--", "PROGRAM"),)
    assert "it holds 800 MiB now" in (beside.cost or "")
    (roomy,) = kept(200 * MIB, 700 * MIB, 0)
    assert "now" not in (roomy.cost or "")
    assert kept(None, 700 * MIB, 0) == []  # what others hold is not told


def test_only_the_exempt_that_hold_much_are_told_of() -> None:
    large = {"unique_bytes": 50 * MIB, "oom_score_adj": -1000}
    assert [one.subject for one in found(exempt_holds, with_hog(**large))] == ["hog"]
    assert found(exempt_holds, with_hog(**large | {"oom_score_adj": -999})) == []
    assert found(exempt_holds, with_hog(**large | {"kernel_thread": True})) == []
    assert found(exempt_holds, with_hog(**large | {"state": "Z"})) == []


def test_an_exemption_is_inherited_from_a_parent_of_another_name() -> None:
    exempt = next(one for one in V2.processes if one.oom_score_adj == -1000 and not one.kernel_thread)
    child = {"ppid": exempt.pid, "oom_score_adj": -1000, "unique_bytes": 20 * MIB}
    assert [one.subject for one in found(exemption_inherited, with_hog(**child))] == ["hog"]
    assert found(exemption_inherited, with_hog(**child | {"oom_score_adj": 0})) == []
    assert found(exemption_inherited, with_hog(**child | {"ppid": 1})) == []
    assert found(exemption_inherited, with_hog(**child | {"comm": exempt.comm})) == []


def test_two_findings_about_one_exempt_process_would_advise_two_things() -> None:
    exempt = next(one for one in V2.processes if one.oom_score_adj == -1000 and not one.kernel_thread)
    for held in (10 * MIB, 20 * MIB, 60 * MIB):
        child = with_hog(ppid=exempt.pid, oom_score_adj=-1000, unique_bytes=held, swap_bytes=0)
        assert len(found(exemption_inherited, child) + found(exempt_holds, child)) == 1


def test_only_what_was_there_at_the_last_look_of_this_boot_has_grown() -> None:
    then = with_hog(unique_bytes=4 * MIB, swap_bytes=0, oom_score_adj=-1000)
    then = with_meminfo(replace(then, taken_wall_s=1000.0), SUnreclaim=10 * MIB)
    now = with_hog(unique_bytes=14 * MIB, swap_bytes=0, oom_score_adj=-1000)
    now = with_meminfo(replace(now, taken_wall_s=8200.0), SUnreclaim=30 * MIB)
    earlier = remember(then)
    assert earlier is not None

    def said(rule: Callable[[Snapshot, Earlier | None], Iterator[Finding]], machine: Machine) -> list[str]:
        return [one.claim for one in rule(Snapshot(machine=machine), earlier)]

    (grown,) = said(exempt_grows, now)
    assert grown.endswith("may never be killed and holds 14 MiB, after 4 MiB at the last look 2 h ago")
    (slab,) = said(slab_grows, now)
    assert slab.endswith("take 30 MiB (14 % of RAM), after 10 MiB at the last look 2 h ago")
    for rule in (exempt_grows, slab_grows):
        assert said(rule, then) == []
        assert said(rule, replace(now, boot_id="0" * 32)) == []
        assert list(rule(Snapshot(machine=now), None)) == []
        assert list(rule(Snapshot(), earlier)) == []
    another = replace(now, processes=tuple(replace(one, start_ticks=9**9) for one in now.processes))
    assert said(exempt_grows, another) == []
    assert said(exempt_grows, with_hog(unique_bytes=14 * MIB, swap_bytes=0, oom_score_adj=-999)) == []
    assert remember(replace(then, boot_id=None)) is None


def test_both_scores_are_set_back_where_both_are_wrong() -> None:
    facts = {"cgroup": "/plain", "oom_score_adj": 300, "rss_bytes": MIB, "rss_anon_bytes": MIB}
    small = replace(hog(**facts), pid=500, start_ticks=9**9)
    large = with_hog(oom_score_adj=-900, rss_bytes=100 * MIB, rss_anon_bytes=100 * MIB)
    machine = replace(large, processes=(*large.processes, small))
    (finding,) = found(small_victim_next, machine)
    assert [command[2:] for command in finding.remedies[0].commands] == [
        ("167", "--adjust", "0"),
        ("500", "--adjust", "0"),
    ]


# -- the kernel --------------------------------------------------------------------------------------------------------


def test_huge_pages_that_are_promised_are_not_idle() -> None:
    pool = HugePool(page_bytes=2 * MIB, total=20, free=20, reserved=0)
    (idle,) = found(huge_pages_reserved, replace(V2, huge_pools=(pool,)))
    assert idle.remedies[0].commands[0][2] == 'echo 0 > "$0"'
    assert idle.confidence == "certain"
    assert found(huge_pages_reserved, replace(V2, huge_pools=(replace(pool, reserved=None),)))[0].confidence == "likely"
    assert found(huge_pages_reserved, replace(V2, huge_pools=(replace(pool, reserved=18),))) == []
    assert found(huge_pages_reserved, replace(V2, huge_pools=(replace(pool, node=0),))) == []  # counted already


def test_figures_of_huge_pages_that_changed_while_they_were_read_advise_no_fewer_than_none() -> None:
    torn = HugePool(page_bytes=2 * MIB, total=20, free=30, reserved=0)
    assert found(huge_pages_reserved, replace(V2, huge_pools=(torn,)))[0].remedies[0].title.startswith("Keep 0 of")


def test_segments_of_somebody_are_not_forgotten() -> None:
    segment = Segment(number=3, size_bytes=40 * MIB, creator_pid=1, attached=0, uid=0, rss_bytes=40 * MIB)
    assert found(segments_forgotten, replace(V2, segments=(segment,)))[0].remedies[0].commands == (
        ("ipcrm", "--shmem-id", "3"),
    )
    assert found(segments_forgotten, replace(V2, segments=(replace(segment, attached=1),))) == []
    assert found(segments_forgotten, replace(V2, segments=(replace(segment, rss_bytes=0),))) == []  # never touched


def test_a_tmpfs_is_told_with_what_was_deleted_in_it() -> None:
    mount = Tmpfs(path="/dev/shm", size_bytes=100 * MIB, used_bytes=60 * MIB, found_bytes=10 * MIB)
    (finding,) = found(tmpfs_holds, replace(V2, tmpfs=(mount,)))
    assert "50 MiB are of files that were deleted and are held open still." in finding.detail
    assert finding.remedies[1].commands == (("mount", "-o", "remount,size=60m", "/dev/shm"),)
    assert found(tmpfs_holds, replace(V2, tmpfs=(replace(mount, used_bytes=30 * MIB),))) == []


def test_several_tmpfs_of_which_none_is_large_are_added_up() -> None:
    def mounts(*used_mib: int) -> Machine:
        machine = with_meminfo(V2, MemTotal=300 * MIB)
        return replace(
            machine, tmpfs=tuple(Tmpfs(path=f"/t{mib}", size_bytes=99 * MIB, used_bytes=mib * MIB) for mib in used_mib)
        )

    (together,) = found(tmpfs_holds, mounts(20, 30, 25))
    assert "3 tmpfs hold 75 MiB together, 25 % of RAM" in together.claim
    assert together.subject == "tmpfs"
    assert found(tmpfs_holds, mounts(20, 30)) == []
    assert [one.subject for one in found(tmpfs_holds, mounts(20, 30, 80))] == ["/t80"]  # which is told by itself


def test_the_machine_is_nearly_full_where_neither_ram_nor_swap_is_left() -> None:
    def left(available_mib: int, swap_mib: int = 0) -> list[Finding]:
        figures = {"MemTotal": 1024, "MemAvailable": available_mib, "SwapTotal": 500, "SwapFree": swap_mib}
        return found(memory_nearly_full, with_meminfo(V2, **{name: mib * MIB for name, mib in figures.items()}))

    (scarce,) = left(30, 60)
    assert "has 90 MiB left until a kill (8.8 % of 1 GiB RAM), 60 MiB of it in swap" in scarce.claim
    assert "hog" in scarce.detail[0]
    assert left(103) == left(30, 80) == []
    vast = with_meminfo(V2, MemTotal=512 << 30, MemAvailable=5 << 30, SwapFree=0)
    assert found(memory_nearly_full, vast) == []
    assert found(memory_nearly_full, replace(V2, meminfo=(("MemTotal", 1000 * MIB),))) == []


def test_a_group_without_a_limit_that_holds_most_is_told_once_and_not_beside_its_process() -> None:
    def holding(*groups: Cgroup, process_mib: int = 1) -> list[str]:
        machine = with_meminfo(with_hog(cgroup="/a.service", rss_anon_bytes=process_mib * MIB, unique_bytes=None))
        machine = replace(with_meminfo(machine, MemTotal=100 * MIB), cgroups=groups)
        return [finding.subject for finding in group_holds(Snapshot(machine=machine), 0.8)]

    def group(path: str, mib: int, **facts: object) -> Cgroup:
        return Cgroup(path=path, version=2, current_bytes=mib * MIB, stat=NO_CACHE, **facts)  # type: ignore[arg-type]

    service, inner = group("/a.service", 85, max_bytes="max"), group("/a.service/in", 84)
    assert holding(service, inner) == ["/a.service"]
    assert holding(service, process_mib=81) == []
    assert holding(group("/a.service", 85, max_bytes=90 * MIB)) == []  # group-near-limit tells of it
    assert holding(group("/a.service", 85, max_bytes=100 * MIB)) == ["/a.service"]  # which is none
    assert holding(group("/system.slice", 95), group("/user.slice/user-7.slice", 90), group("/", 99)) == []
    assert holding(group("/a.service", 79)) == []
    assert holding(group("/lxc", 90), group("/lxc/web", 89)) == ["/lxc/web"]  # which holds many programs too
    assert holding(group("/system.slice", 90, max_bytes=95 * MIB), group("/system.slice/a.service", 89)) == []
    assert holding(replace(service, stat=(("inactive_file", 20 * MIB), ("active_file", 0)))) == []


def test_without_systemd_a_limit_for_a_program_is_that_of_run() -> None:
    def advised(first: str) -> tuple[str, ...]:
        machine = with_meminfo(with_hog(rss_anon_bytes=300 * MIB, unique_bytes=None), MemTotal=400 * MIB, SwapTotal=0)
        processes = tuple(replace(one, comm=first) if one.pid == 1 else one for one in machine.processes)
        (finding,) = process_holds(Snapshot(machine=replace(machine, processes=processes)), 0.5)
        return finding.remedies[0].commands[0]

    assert advised("systemd")[:2] == ("systemd-run", "--scope")
    assert advised("sh")[:3] == ("reprieve", "run", "--max")


def test_where_kills_are_switched_off_what_is_at_its_limit_hangs() -> None:
    def claim(**facts: object) -> str:
        cache = (("total_inactive_file", 0), ("total_active_file", 0))
        group = Cgroup(path="/a", version=1, max_bytes=50 * MIB, current_bytes=49 * MIB, stat=cache, **facts)  # type: ignore[arg-type]
        machine = with_meminfo(replace(V1, cgroups=(group,)), SwapFree=0)
        (finding,) = group_near_limit(Snapshot(machine=machine), 0.8)
        return finding.claim

    assert claim().endswith("caches left out: 1 MiB until a kill")
    assert claim(oom_kill_disable=True).endswith("until they hang, as nobody is killed there (oom_kill_disable)")
    assert claim(oom_kill_disable=True, under_oom=True).endswith(
        "caches left out: its processes hang (oom_kill_disable)"
    )
    assert claim(under_oom=True).endswith("caches left out: 1 MiB until a kill")  # for a moment: somebody dies


def test_a_panic_that_nobody_ends_is_worse() -> None:
    reboots = with_sysctls(V2, panic_on_oom=1)
    assert [one.severity for one in found(panic_set, reboots)] == ["notice"]
    stays = replace(reboots, sysctls=tuple((dict(reboots.sysctls) | {"kernel.panic": "0"}).items()))
    assert [one.severity for one in found(panic_set, stays)] == ["warning"]
    assert [one.severity for one in found(panic_set, with_sysctls(V2, panic_on_oom=2))] == ["warning"]


def test_swap_areas_alone_claim_nothing() -> None:
    area = SwapArea(name="/swap", kind="file", size_bytes=MIB, used_bytes=MIB, priority=-2)
    assert check(Snapshot(machine=replace(V2, swaps=(area,)))) == []


@pytest.mark.parametrize(
    ("group", "unit"),
    [
        ("/hostcritical.slice/nohang-desktop.service", "nohang-desktop.service"),
        ("/system.slice/ssh.service", "nohang.service"),  # somebody started it by hand: ssh is not to be stopped
        ("/user.slice/user-0.slice/session-1.scope", "nohang.service"),
        (None, "nohang.service"),
    ],
)
def test_of_two_killers_no_unit_is_to_be_stopped_but_its_own(group: str | None, unit: str) -> None:
    machine = with_hog(comm="nohang", cgroup=group)
    early = Killer(name="earlyoom", pid=1, start_ticks=1)
    last = Killer(name="nohang", pid=hog().pid, start_ticks=hog().start_ticks)
    [finding] = found(killers_compete, replace(machine, killers=(early, last)))
    assert finding.remedies[0].commands == (("systemctl", "disable", "--now", unit),)

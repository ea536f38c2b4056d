"""Limits that are to be raised: no higher than can be had, and what stands in the way where they cannot be."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reprieve.model.cgroup import Cgroup
from reprieve.model.finding import NAME_END, NAME_START, Remedy
from reprieve.model.machine import Machine
from reprieve.model.snapshot import Snapshot
from reprieve.rules.living.groups import held_at_high, parent_below_child
from reprieve.rules.living.shares import group_near_limit
from tests.rules.living.made import captured, with_meminfo

MIB, GIB = 1 << 20, 1 << 30
NO_CACHE = (("inactive_file", 0), ("active_file", 0))
OLD_NO_CACHE = (("total_inactive_file", 0), ("total_active_file", 0))
DOCKER = f"/system.slice/docker-{'a' * 64}.scope"
POD = "/kubepods.slice/kubepods-pod11111111_2222_3333_4444_555555555555.slice"


def machine(*groups: Cgroup, left: int = 4 * GIB) -> Machine:
    """With these groups, and 8 GiB of RAM."""
    told = with_meminfo(captured("v2-mini-6.12"), MemTotal=8 * GIB, MemAvailable=left, SwapTotal=0, SwapFree=0)
    return replace(told, cgroups=groups)


def group(path: str, current: int, most: int | str, **facts: object) -> Cgroup:
    own = {"swap_max_bytes": 0, "stat": NO_CACHE} | facts
    return Cgroup(path=path, version=2, current_bytes=current, max_bytes=most, **own)  # type: ignore[arg-type]


def near(path: str, *groups: Cgroup, left: int = 4 * GIB) -> list[Remedy]:
    """What is advised of that one."""
    findings = group_near_limit(Snapshot(machine=machine(*groups, left=left)), 0.8)
    return [remedy for finding in findings if finding.subject == path for remedy in finding.remedies]


def words(remedies: list[Remedy]) -> list[str]:
    return [one.title.replace(NAME_START, "").replace(NAME_END, "") for one in remedies]


SLICE = group("/a.slice", 6 * GIB, 7 * GIB)


def test_a_limit_is_raised_to_that_of_the_group_around_it_and_no_further() -> None:
    (raised,) = near("/a.slice/db.service", SLICE, group("/a.slice/db.service", 6 * GIB, 6 * GIB + 100 * MIB))
    assert raised.commands == (("systemctl", "set-property", "--", "db.service", "MemoryMax=7168M"),)
    assert (raised.amount or "").endswith(f"but no more than the limit of {NAME_START}a.slice{NAME_END}: 7 GiB")


@pytest.mark.parametrize("limit", [7 * GIB, 7 * GIB - MIB, 7 * GIB + MIB])
def test_where_the_group_around_it_has_no_more_that_is_named_instead(limit: int) -> None:
    remedies = near("/a.slice/db.service", SLICE, group("/a.slice/db.service", 6 * GIB, limit))
    assert words(remedies) == [
        "Raise the limit of a.slice first: the limit of a.slice is 7 GiB, so a higher one of its own is of no use"
    ]
    assert remedies[0].commands == ()


def test_a_limit_is_not_raised_to_more_than_the_machine_has() -> None:
    (raised,) = near("/db.service", group("/db.service", 6 * GIB, 6 * GIB))
    assert raised.commands == (("systemctl", "set-property", "--", "db.service", "MemoryMax=7372M"),)
    assert "all RAM but a tenth" in (raised.amount or "")
    (word,) = words(near("/db.service", group("/db.service", 7 * GIB, 8 * GIB)))
    assert word.startswith("Have it need less, or give the machine more memory: all RAM but a tenth is 7.2 GiB")


def test_what_the_machine_has_left_is_said_where_it_is_less() -> None:
    grown = group("/db.service", 3 * GIB, 3 * GIB)
    assert "must have" not in (near("/db.service", grown)[0].cost or "")
    assert "of which 1 GiB can be had now" in (near("/db.service", grown, left=GIB)[0].cost or "")


def test_a_kubelets_limit_is_no_others_to_raise() -> None:
    node = group("/kubepods.slice", 5 * GIB, 6 * GIB)
    pod = group(POD, 5 * GIB, "max")
    inside = group(f"{POD}/cri-containerd-{'b' * 64}.scope", 5 * GIB, 6 * GIB)
    (word,) = words(near(inside.path, node, pod, inside))
    assert word.startswith("Have it need less, or move it to a larger node: the limit of all Kubernetes pods is 6 GiB")


def test_a_limit_that_follows_is_none_in_the_way() -> None:
    """A pod's is the sum of those of its containers; crun repeats that of a container within its scope."""
    pod, inside = group(POD, GIB, GIB), group(f"{POD}/cri-containerd-{'b' * 64}.scope", GIB, GIB)
    assert words(near(inside.path, pod, inside))[0].startswith("Raise its limit to 1.5 GiB")
    scope = f"/machine.slice/libpod-{'c' * 64}.scope"
    outer, repeated = group(scope, GIB, GIB), group(f"{scope}/container", GIB, GIB)
    assert words(near(repeated.path, outer, repeated))[0].startswith("Raise its limit to 1.5 GiB")
    by_systemd = group(f"{DOCKER}/system.slice/x.service", GIB, GIB)
    (word,) = words(near(by_systemd.path, group(DOCKER, GIB, GIB), by_systemd))
    assert word.startswith("Raise the limit of Docker container aaaaaaaaaaaa first")


def test_of_a_pod_a_container_is_to_be_raised() -> None:
    (raised,) = near(POD, group(POD, GIB, GIB))
    assert raised.title.startswith("Raise the limit of one of its containers")
    assert [command[:3] for command in raised.commands] == [("kubectl", "get", "pods")]


def test_of_version_1_both_limits_are_told_where_they_differ() -> None:
    both = Cgroup(
        path="/batch",
        version=1,
        current_bytes=500 * MIB,
        max_bytes=512 * MIB,
        memsw_max_bytes=GIB,
        memsw_current_bytes=1020 * MIB,
        stat=OLD_NO_CACHE,
    )
    (raised,) = near("/batch", both)
    assert raised.title.startswith("Raise its limits to 768 MiB, 1.2 GiB with swap, if it needs more")
    assert [int(command[2].split()[1]) // MIB for command in raised.commands] == [1280, 768]


# -- memory.high -------------------------------------------------------------------------------------------------------


def at_high(high: int, most: int | str, *around: Cgroup, path: str = "/web.service") -> list[Remedy]:
    held = group(path, high, most, high_bytes=high)
    return [remedy for one in held_at_high(Snapshot(machine=machine(*around, held))) for remedy in one.remedies]


def test_high_is_raised_to_no_more_than_the_limit_at_which_it_is_killed() -> None:
    (raised,) = at_high(3 * GIB, 3 * GIB + 200 * MIB)
    assert raised.commands == (("systemctl", "set-property", "--", "web.service", "MemoryHigh=3272M"),)
    assert (raised.cost or "").endswith("to its memory.max, at which it is killed")
    assert words(at_high(3 * GIB, 3 * GIB + MIB))[0].startswith("Raise its memory.max first")
    assert at_high(3 * GIB, 3 * GIB) == []  # it is killed, and not held


def test_the_high_of_the_container_that_is_looked_from_is_raised_where_it_is_started() -> None:
    held = group("/", 3 * GIB, "max", high_bytes=3 * GIB)
    seen = replace(machine(held), cgroup_private=True)
    (remedy,) = (remedy for one in held_at_high(Snapshot(machine=seen)) for remedy in one.remedies)
    assert remedy.title.endswith(": where it is started, outside of what is seen here")
    assert (remedy.commands, remedy.settings) == ((), ())


def test_high_is_raised_to_no_more_than_the_machine_or_the_group_around_it_has() -> None:
    (raised,) = at_high(7 * GIB, "max")
    assert raised.commands[0][-1] == "MemoryHigh=7372M"
    outer = group("/a.slice", 3 * GIB, "max", high_bytes=4 * GIB)
    (raised,) = at_high(3 * GIB, "max", outer, path="/a.slice/web.service")
    assert raised.commands[0][-1] == "MemoryHigh=4096M"


# -- the limit around --------------------------------------------------------------------------------------------------


def test_an_outer_limit_is_not_raised_above_one_around_it() -> None:
    def advised(outermost: int) -> list[str]:
        groups = (
            group("/a.slice", 2 * GIB, outermost),
            group("/a.slice/a-b.slice", GIB, 2 * GIB),
            group("/a.slice/a-b.slice/c.service", GIB, 3 * GIB),
        )
        findings = parent_below_child(Snapshot(machine=machine(*groups)))
        return words([remedy for one in findings for remedy in one.remedies])

    assert [title[:29] for title in advised(4 * GIB)] == ["Raise the outer limit to 3 Gi"]
    assert advised(2 * GIB + 500 * MIB) == []

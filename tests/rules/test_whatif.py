"""What would be otherwise, and who is meant by a name."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reprieve.machine.host import Host
from reprieve.machine.observe import observe
from reprieve.model.cgroup import Cgroup
from reprieve.model.machine import Machine, SwapArea
from reprieve.model.process import Process
from reprieve.oom.groups import file_cache_bytes, first_full, rooms
from reprieve.oom.reclaim import LRU_GEN
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
    limited = whatif.with_limits(systemd, {"/app.slice/web.service": 4096})
    assert {group.max_bytes for group in limited.cgroups if group not in systemd.cgroups} == {4096}


_MIB = 1 << 20


def _nested(*, swap_max: int = 0, swap_free: int = 0) -> Machine:
    """A group at 30 of 40 MiB, 4 of them file cache, in one at 50 of 100 MiB; the machine has 200 MiB left."""
    cache = (("inactive_file", 3 * _MIB), ("active_file", _MIB))
    inner = Cgroup(
        path="/app/web",
        version=2,
        current_bytes=30 * _MIB,
        max_bytes=40 * _MIB,
        swap_current_bytes=0,
        swap_max_bytes=swap_max,
        stat=cache,
        pids=(7,),
    )
    outer = Cgroup(
        path="/app",
        version=2,
        current_bytes=50 * _MIB,
        max_bytes=100 * _MIB,
        swap_current_bytes=0,
        swap_max_bytes="max",
        stat=cache,
    )
    process = Process(
        pid=7, start_ticks=1, comm="hog", cgroup="/app/web", rss_bytes=26 * _MIB, rss_anon_bytes=26 * _MIB
    )
    facts = {"MemTotal": 400, "MemAvailable": 200, "SwapTotal": swap_free, "SwapFree": swap_free}
    meminfo = tuple((name, count * _MIB) for name, count in facts.items())
    return Machine(cgroups=(outer, inner), processes=(process,), meminfo=meminfo)


def _figures(machine: Machine) -> dict[str, tuple[float, float, float]]:
    """Of each group what is charged to it, is cache of that, and is in swap, in MiB."""
    return {
        group.path: (
            (group.current_bytes or 0) / _MIB,
            (file_cache_bytes(group) or 0) / _MIB,
            (group.swap_current_bytes or 0) / _MIB,
        )
        for group in machine.cgroups
    }


def test_growth_is_charged_to_all_groups_around_the_process_and_to_the_machine() -> None:
    machine = whatif.grown(_nested(), 7, 5 * _MIB)
    assert _figures(machine) == {"/app": (55, 4, 0), "/app/web": (35, 4, 0)}
    assert dict(machine.meminfo)["MemAvailable"] == 195 * _MIB
    assert [(room.path, room.left_bytes // _MIB) for room in rooms(machine)] == [
        ("/app/web", 9),
        ("/app", 49),
        (None, 195),
    ]


def test_at_a_limit_file_cache_is_given_up_first_and_then_it_is_swapped_out() -> None:
    at_limit = whatif.grown(_nested(), 7, 13 * _MIB)
    assert _figures(at_limit) == {"/app": (60, 1, 0), "/app/web": (40, 1, 0)}
    swapping = whatif.grown(_nested(swap_max=8 * _MIB, swap_free=20), 7, 20 * _MIB)
    assert _figures(swapping) == {"/app": (60, 0, 6), "/app/web": (40, 0, 6)}
    assert dict(swapping.meminfo) == {
        "MemTotal": 400 * _MIB,
        "MemAvailable": 186 * _MIB,
        "SwapTotal": 20 * _MIB,
        "SwapFree": 14 * _MIB,
    }


@pytest.mark.parametrize(
    ("swap_max_mib", "swap_free_mib", "full", "left_mib"),
    [(0, 20, "/app/web", 14), (8, 20, "/app/web", 22), (100, 20, "/app/web", 34), (100, 100, "/app/web", 114)],
)
def test_what_is_full_first_counts_file_cache_and_the_swap_that_may_be_used(
    swap_max_mib: int, swap_free_mib: int, full: str, left_mib: int
) -> None:
    machine = _nested(swap_max=swap_max_mib * _MIB, swap_free=swap_free_mib)
    room = first_full(machine, "/app/web")
    assert room is not None
    assert (room.path, room.limit_bytes // _MIB, room.left_bytes // _MIB) == (full, 40, left_mib)
    filled = whatif.grown(machine, 7, room.left_bytes)
    then = first_full(filled, "/app/web")
    assert then is not None
    assert (then.path, then.left_bytes) == (full, 0)


def test_without_swappiness_nothing_is_swapped_out_at_a_limit() -> None:
    machine = replace(_nested(swap_max=100 * _MIB, swap_free=100), sysctls=(("vm.swappiness", "0"),))
    room = first_full(machine, "/app/web")
    assert room is not None
    assert room.left_bytes == 14 * _MIB


def test_the_group_above_or_the_machine_may_be_full_first() -> None:
    above = first_full(whatif.with_limits(_nested(), {"/app": 55 * _MIB}), "/app/web")
    assert above is not None
    assert (above.path, above.left_bytes) == ("/app", 9 * _MIB)
    unlimited = first_full(_nested(), "/elsewhere")
    assert unlimited is not None
    assert (unlimited.path, unlimited.left_bytes) == (None, 200 * _MIB)
    assert first_full(Machine(), "/elsewhere") is None


_FEW = st.integers(0, 60)
_LIMIT = st.one_of(st.just("max"), st.integers(1, 200))


@st.composite
def small_machines(draw: st.DrawFn) -> Machine:
    """One process in up to three nested groups with limits, caches and swap of a few pages, of version 1 or 2."""
    version, swappiness = draw(st.sampled_from((1, 2))), draw(st.sampled_from((0, 60)))
    prefix = "total_" if version == 1 else ""
    groups: list[Cgroup] = []
    cache, slab, anon, swapped = 0, 0, 9, 0  # what the process holds
    for path in draw(st.sampled_from((("/",), ("/a",), ("/a/b", "/a"), ("/a/b", "/a", "/")))):
        cache, slab, anon, swapped = cache + draw(_FEW), slab + draw(_FEW), anon + draw(_FEW), swapped + draw(_FEW)
        stat = ((f"{prefix}inactive_file", cache), (f"{prefix}active_file", 0))
        limit, current = draw(_LIMIT), cache + anon + (slab if version == 2 else 0)
        both = limit + draw(_FEW) if isinstance(limit, int) and draw(st.booleans()) else "max"
        group = Cgroup(
            path=path,
            version=version,
            current_bytes=current,
            max_bytes=limit,  # type: ignore[arg-type]
            swap_current_bytes=swapped,
            swap_max_bytes=draw(_LIMIT) if version == 2 else None,  # type: ignore[arg-type]
            memsw_max_bytes=both if version == 1 else None,  # type: ignore[arg-type]
            memsw_current_bytes=current + swapped if version == 1 else None,
            swappiness=swappiness if version == 1 else None,
            stat=stat if version == 1 else (*stat, ("slab_reclaimable", slab)),
        )
        groups.insert(0, group)
    process = Process(pid=7, start_ticks=1, comm="hog", cgroup=groups[-1].path, rss_bytes=9, rss_anon_bytes=9)
    free = draw(_FEW)
    swap = SwapArea(
        name=draw(st.sampled_from(("/dev/vda", "/dev/zram0"))),
        kind="partition",
        size_bytes=60,
        used_bytes=0,
        priority=0,
    )
    meminfo = (("MemTotal", 500), ("MemAvailable", draw(st.integers(0, 120))), ("SwapTotal", 60), ("SwapFree", free))
    sysctls = (("vm.swappiness", str(swappiness)),)
    settings = ((LRU_GEN, draw(st.sampled_from(("0x0000", "0x0007")))),)
    return Machine(
        settings=settings, cgroups=tuple(groups), processes=(process,), meminfo=meminfo, swaps=(swap,), sysctls=sysctls
    )


ROUNDED = 2  # bytes, of zram


@given(machine=small_machines(), share=st.fractions(0, 1))
def test_what_grows_takes_as_much_from_what_is_left_and_nothing_is_left_of_what_just_fits(
    machine: Machine, share: Fraction
) -> None:
    path = machine.processes[0].cgroup or "/"
    room = first_full(machine, path)
    assert room is not None
    grows = round(room.left_bytes * share)
    then = first_full(whatif.grown(machine, 7, grows), path)
    assert then is not None
    assert then.left_bytes == pytest.approx(room.left_bytes - grows, abs=ROUNDED)
    full = whatif.grown(machine, 7, room.left_bytes)
    assert rooms(full)[0].left_bytes <= ROUNDED  # what stands there is no other figure

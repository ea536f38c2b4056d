from dataclasses import replace

import pytest

from reprieve.model.cgroup import Cgroup
from reprieve.model.machine import Machine, SwapArea, Zram
from reprieve.model.process import Process
from reprieve.oom.groups import ancestors, by_headroom, file_cache_bytes, home, nearest, rooms, swap_room, tightest


def by_path(*groups: Cgroup) -> dict[str, Cgroup]:
    return {group.path: group for group in groups}


ROOT = Cgroup(path="/", version=2)
SLICE = Cgroup(path="/a", version=2, current_bytes=90, max_bytes=100, swap_max_bytes=50, swap_current_bytes=45)
LEAF = Cgroup(path="/a/b", version=2, current_bytes=20, max_bytes=60, swap_max_bytes="max", swap_current_bytes=20)


def test_an_unlimited_group_has_no_bound() -> None:
    assert tightest(by_path(ROOT, replace(SLICE, max_bytes="max")), "/a") is None
    assert tightest(by_path(ROOT, replace(SLICE, max_bytes=None)), "/a") is None
    assert tightest(by_path(ROOT), "/gone") is None


def test_a_usage_that_is_not_known_bounds_nothing() -> None:
    assert tightest(by_path(ROOT, replace(SLICE, current_bytes=None)), "/a") is None
    assert swap_room(by_path(ROOT, replace(SLICE, swap_current_bytes=None)), "/a") == "max"


def test_a_cache_that_is_not_told_is_not_known_and_no_room() -> None:
    assert file_cache_bytes(SLICE) is None
    assert file_cache_bytes(replace(SLICE, stat=(("inactive_file", 9),))) is None
    bound = tightest(by_path(ROOT, SLICE), "/a")
    assert bound is not None
    assert (bound.headroom_bytes, bound.cache_bytes) == (10, None)


def test_the_root_has_nothing_above_it() -> None:
    assert list(ancestors("/")) == []
    assert list(ancestors("/a")) == ["/"]
    assert list(ancestors("/a/b/c")) == ["/a/b", "/a", "/"]


def test_a_parent_with_less_left_is_met_first() -> None:
    bound = tightest(by_path(ROOT, SLICE, LEAF), "/a/b")
    assert bound is not None
    assert (bound.group.path, bound.limit_bytes, bound.headroom_bytes) == ("/a", 100, 10)


def test_of_equals_the_nearest_counts() -> None:
    bound = tightest(by_path(ROOT, SLICE, replace(LEAF, max_bytes=30)), "/a/b")
    assert bound is not None
    assert bound.group.path == "/a/b"


def test_file_cache_counts_as_room_and_shmem_does_not() -> None:
    stat = (("file", 60), ("shmem", 30), ("inactive_file", 10), ("active_file", 15))
    bound = tightest(by_path(ROOT, replace(SLICE, stat=stat), LEAF), "/a/b")
    assert bound is not None
    assert (bound.group.path, bound.headroom_bytes, bound.cache_bytes) == ("/a", 35, 25)
    older = (("active_file", 9), ("total_active_file", 5), ("total_inactive_file", 2))
    assert file_cache_bytes(Cgroup(path="/", version=1, stat=older)) == 7


def test_a_group_above_its_limit_has_no_room_rather_than_less_than_none() -> None:
    bound = tightest(by_path(ROOT, replace(SLICE, current_bytes=120)), "/a")
    assert bound is not None
    assert bound.headroom_bytes == 0


def test_memory_and_swap_together_may_be_what_is_met() -> None:
    group = Cgroup(path="/a", version=1, max_bytes=100, current_bytes=50, memsw_max_bytes=120, memsw_current_bytes=110)
    bound = tightest(by_path(group), "/a")
    assert bound is not None
    assert (bound.limit_bytes, bound.headroom_bytes) == (120, 10)


def test_a_limit_above_does_not_hold_where_the_kernel_says_so() -> None:
    above = Cgroup(path="/a", version=1, max_bytes=100, current_bytes=99)
    below = Cgroup(path="/a/b", version=1, max_bytes=500, current_bytes=50)
    alone = replace(below, stat=(("hierarchical_memory_limit", 500),))  # memory.use_hierarchy is 0
    within = replace(below, stat=(("hierarchical_memory_limit", 100),))
    for group, path in ((alone, "/a/b"), (within, "/a")):
        bound = tightest(by_path(above, group), "/a/b")
        assert bound is not None
        assert bound.group.path == path


def test_the_least_swap_on_the_way_up_is_what_may_be_swapped() -> None:
    assert swap_room(by_path(ROOT), "/") == "max"
    assert swap_room(by_path(ROOT, SLICE, LEAF), "/a/b") == 5
    assert swap_room(by_path(ROOT, SLICE, replace(LEAF, swap_max_bytes=20)), "/a/b") == 0


def test_what_memory_may_not_take_of_both_is_left_to_swap() -> None:
    group = Cgroup(path="/a", version=1, max_bytes=100, memsw_max_bytes=150, swap_current_bytes=20)
    assert swap_room(by_path(group), "/a") == 30
    assert swap_room(by_path(replace(group, memsw_max_bytes="max")), "/a") == "max"


def test_the_limit_with_the_least_room_comes_first_and_an_empty_group_is_passed_over() -> None:
    empty = Cgroup(path="/empty", version=2, current_bytes=0, max_bytes=1)
    told = by_headroom([ROOT, LEAF, SLICE, empty, replace(SLICE, path="/unknown", current_bytes=None)])
    assert [(bound.group.path, bound.headroom_bytes) for bound in told] == [("/a", 10), ("/a/b", 40)]


def test_a_limit_that_is_repeated_within_is_told_once_of_the_outer_group() -> None:
    within = replace(LEAF, max_bytes=100)
    assert [bound.group.path for bound in by_headroom([ROOT, within, SLICE])] == ["/a"]
    fuller = replace(within, current_bytes=95)  # what is in it is not charged to the outer one
    assert [bound.group.path for bound in by_headroom([ROOT, fuller, SLICE])] == ["/a/b", "/a"]
    assert [bound.group.path for bound in by_headroom([ROOT, within, replace(SLICE, max_bytes="max")])] == ["/a/b"]


def test_where_nobody_is_memory_does_not_run_out_unless_some_may_be_hidden() -> None:
    held = {"version": 2, "current_bytes": 10, "max_bytes": 100, "swap_max_bytes": 0}
    paths = ("/listed", "/in", "/in/it", "/empty", "/empty/too")
    groups = tuple(Cgroup(path=path, pids=(9,) * (path == "/listed"), **held) for path in paths)  # type: ignore[arg-type]
    inside = Process(pid=7, start_ticks=1, cgroup="/in/it/below")
    machine = Machine(cgroups=groups, processes=(inside,))
    assert [room.path for room in nearest(machine)] == [room.path for room in rooms(machine)]
    assert {room.path for room in nearest(replace(machine, cgroup_private=True))} == {"/listed", "/in"}
    thread = Process(pid=2, start_ticks=0, cgroup="/", kernel_thread=True)  # who sees one sees all
    assert {room.path for room in nearest(replace(machine, processes=(thread, inside)))} == {"/listed", "/in"}


GIB = 1 << 30


def _area(name: str, free_gib: int) -> SwapArea:
    return SwapArea(name=name, kind="partition", size_bytes=8 * GIB, used_bytes=(8 - free_gib) * GIB, priority=0)


@pytest.mark.parametrize(
    ("areas", "device", "left_gib"),
    [
        ((), None, 3 + 8),  # what is swapped to was not told
        ((_area("/dev/sda2", 8),), None, 3 + 8),
        ((_area("/dev/zram0", 8),), None, 3 + 4),
        ((_area("/dev/block/zram0", 8),), None, 3 + 4),  # as Android has it
        ((_area("/dev/zram0", 8),), Zram(name="zram0", size_bytes=8 * GIB, stored_bytes=0, used_bytes=0), 3 + 4),
        ((_area("/dev/zram0", 8),), Zram(name="zram0", size_bytes=1, stored_bytes=GIB, used_bytes=GIB // 4), 3 + 6),
        ((_area("/dev/zram0", 8),), Zram(name="zram0", size_bytes=1, stored_bytes=GIB, used_bytes=2 * GIB), 3),
        ((_area("/dev/zram0", 4), _area("/swapfile", 4)), None, 3 + 6),
        ((_area("/dev/zram0", 0), _area("/swapfile", 8)), None, 3 + 8),
    ],
)
def test_swap_on_zram_adds_what_it_makes_smaller(
    areas: tuple[SwapArea, ...], device: Zram | None, left_gib: int
) -> None:
    meminfo = (("MemTotal", 8 * GIB), ("MemAvailable", 3 * GIB), ("SwapTotal", 8 * GIB), ("SwapFree", 8 * GIB))
    (room,) = rooms(Machine(meminfo=meminfo, swaps=areas, zram=() if device is None else (device,)))
    assert (room.path, room.limit_bytes, room.left_bytes) == (None, 16 * GIB, left_gib * GIB)
    assert room.swap_bytes == (left_gib - 3) * GIB


def test_a_group_all_whose_tasks_are_in_one_that_is_full_before_it_is_never_full_itself() -> None:
    def limited(path: str, limit: int) -> Cgroup:
        return Cgroup(path=path, version=2, current_bytes=10, max_bytes=limit)

    groups = (ROOT, limited("/pod", 100), limited("/pod/app", 50), limited("/pod/app/inner", 200))
    thread = Process(pid=2, start_ticks=1, kernel_thread=True, cgroup="/")
    app = Process(pid=7, start_ticks=1, cgroup="/pod/app/inner")
    machine = Machine(cgroups=groups, processes=(thread, app))
    assert [room.path for room in nearest(machine)] == ["/pod/app", "/pod/app/inner"]
    assert (home(machine, "/pod"), home(machine, "/gone")) == ("/pod/app/inner", "/gone")
    beside = replace(app, pid=8, cgroup="/pod/pause")
    assert home(replace(machine, processes=(thread, app, beside)), "/pod") == "/pod"
    assert "/pod" in {room.path for room in nearest(replace(machine, processes=(thread, app, beside)))}
    unseen = replace(machine, processes=(app,))  # others may be hidden
    assert {room.path for room in nearest(unseen)} == {"/pod", "/pod/app", "/pod/app/inner"}
    assert home(unseen, "/pod") == "/pod"

"""Who would die is foretold, and then dies: loads made by seeds, in guests with real kernels."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

import pytest
from _pytest.mark import ParameterSet

from lab import kernels
from lab.states import MINI, boot, machine, saved
from reprieve.next import Request, changed, find_domain
from reprieve.oom.groups import rooms
from reprieve.oom.living import one_cgroup, predict
from reprieve.oom.reclaim import LRU_GEN
from tests.lab.conftest import here_or_skipped
from tests.lab.foretold import MYSELF, SEEDS, TOP, Hog, Load, look, make, play

pytestmark = pytest.mark.alone

V1 = f"{TOP}/memory"  # once it is mounted there
MOUNT_V1 = f"umount {TOP}; mount -t tmpfs cgroup {TOP}; mkdir {V1}; mount -t cgroup -o memory cgroup {V1} || exit 8"
# The whole machine, a node, the limit of a group and of the one above, four processors; some have somebody near them.
SLOW_SEEDS = (0, 3, 4, 5, 6)


def _cases() -> Iterator[ParameterSet]:
    for series in kernels.SUITES:
        for seed in SEEDS:
            mark = pytest.mark.slow if seed in SLOW_SEEDS else pytest.mark.matrix
            yield pytest.param(series, seed, id=f"{series}-{seed}", marks=mark)


@pytest.mark.parametrize(("series", "seed"), list(_cases()))
def test_who_dies_was_foretold(series: str, seed: int) -> None:
    load = make(series, seed)
    with here_or_skipped():
        saved(load.series, load.machine)
    told = play(load)
    assert told.died, str(told)
    # Within what the kernel's own counters may be off by, either of two may die.
    assert told.right or (told.bounds is not None and told.bounds < 1), str(told)


@pytest.mark.slow
@pytest.mark.parametrize("series", ["5.10", "7"])
def test_whom_a_limit_kills_that_is_set_below_what_is_held_was_foretold(series: str) -> None:
    sizes = {"small": 8 << 10, "large": 40 << 10, "middle": 16 << 10}
    hogs = tuple(Hog(name=name, group="/alone", kib=kib, adj=0) for name, kib in sizes.items())
    load = Load(series=series, machine=MINI, seed=0, hogs=hogs, swap=False, dies_whole=(), where=None)
    with here_or_skipped():
        state = saved(series, MINI)
    with state.restore() as guest:
        assert guest.run(load.begin()).status == 0
        request = Request(limits=(("/alone", 32 << 20),))
        otherwise = changed(look(guest), request)
        foretold = predict(otherwise.machine, find_domain(otherwise, request))
        guest.run(f"echo 32M > {TOP}/alone/memory.max")
        log = guest.kernel_log()
    assert [over.refused for over in otherwise.over] == [False]
    assert [process.comm for process in foretold.killed] == ["large"]
    killed = re.findall(r"Killed process (\d+) \((\w+)\)", log)  # it may go on before what the first held is free
    assert killed[0] == (str(foretold.killed[0].pid), "large")


@pytest.mark.slow
@pytest.mark.parametrize("version", [1, 2])
def test_where_swap_of_groups_is_not_counted_all_of_it_weighs_in_the_choice_of_a_group(version: int) -> None:
    folder, limit = (TOP, "memory.max") if version == 2 else (V1, "memory.limit_in_bytes")
    hog = "exec hog --name {name} --mib {mib} --adj {adj} --hold -1"
    begin = [
        "for controller in $(cat /sys/fs/cgroup/cgroup.controllers); do",
        "echo -$controller > /sys/fs/cgroup/cgroup.subtree_control; done 2> /dev/null",
        MOUNT_V1 if version == 1 else "true",
        f"echo +memory > {folder}/cgroup.subtree_control 2> /dev/null",
        "mkswap /dev/vda > /dev/null; swapon /dev/vda",
        f"mkdir {folder}/alone || exit 8",
        *(
            f"(echo 0 > {folder}/alone/cgroup.procs; {hog.format(name=name, mib=mib, adj=adj)}) >> /run/ready 2>&1 &"
            for name, mib, adj in (("large", 24, 0), ("small", 8, 200))
        ),
        "tries=0; while [ $(grep -c ' has ' /run/ready) -lt 2 ] && [ $tries -lt 200 ]; do",
        "usleep 100000; tries=$((tries + 1)); done; [ $tries -lt 200 ] || exit 7",
        f"echo 48M > {folder}/alone/{limit}",
    ]
    with here_or_skipped():
        built = replace(machine("5.10", MINI), boot_words=("swapaccount=0",))  # 6.1 counts it all the same
    with boot(built) as guest:
        begun = guest.run("\n".join(begin))
        assert begun.status == 0, begun.output
        seen = look(guest)
        domain = one_cgroup(seen, "/alone")
        assert domain is not None
        foretold = predict(seen, domain)
        spared = "hog --adj -1000 --name spared --step-mib 1 --mib 95"  # with the two, 16 MiB more than there is
        guest.run(f"{MYSELF}; echo 0 > {folder}/alone/cgroup.procs; {spared}; true")
        log = guest.kernel_log()
    group = next(group for group in seen.cgroups if group.path == "/alone")
    assert (group.version, group.swap_current_bytes or group.memsw_current_bytes) == (version, None)
    assert [process.comm for process in foretold.killed] == ["small"]  # of 48 MiB alone it would be the large one
    assert re.findall(r"Killed process \d+ \((\w+)\)", log)[:1] == ["small"]


@pytest.mark.slow
def test_who_is_to_wait_at_a_limit_waits_whatever_is_to_panic() -> None:
    folder = f"{V1}/waits"
    with here_or_skipped():
        state = saved("6.1", MINI)
    with state.restore() as guest:
        begin = f"mkdir {folder}; echo 32M > {folder}/memory.limit_in_bytes; echo 1 > {folder}/memory.oom_control"
        grow = f"(echo 0 > {folder}/cgroup.procs; exec hog --mib 200 --name waiting) > /dev/null 2>&1 &"
        panics = "echo 2 > /proc/sys/vm/panic_on_oom"
        control = guest.run(f"{MOUNT_V1}; {begin}; {panics}\n{grow}\nsleep 3; cat {folder}/memory.oom_control").output
        seen = look(guest)
        log = guest.kernel_log()
    domain = one_cgroup(seen, "/waits")
    assert domain is not None
    assert predict(seen, domain).instead == "waits"
    assert "under_oom 1" in control
    assert "oom-killer" not in log


@pytest.mark.slow
def test_what_is_left_until_a_kill_counts_slab_that_can_be_given_up_and_swap() -> None:
    folder = f"{TOP}/alone"
    names = "number=0; while [ $number -lt 60000 ]; do [ -e /sys/none$number ]; number=$((number + 1)); done"
    begin = f"""
mkswap /dev/vda > /dev/null; swapon /dev/vda
mkdir {folder}; echo 40M > {folder}/memory.max; echo 16M > {folder}/memory.swap.max
(echo 0 > {folder}/cgroup.procs; exec sh -c '{names}'); true
"""  # kernfs keeps a dentry of each name that is not there

    def grow(count_bytes: int) -> str:
        return f"(echo 0 > {folder}/cgroup.procs; exec hog --kib {count_bytes >> 10} --name growing)"

    with here_or_skipped():
        state = saved("6.12", MINI)
    with state.restore() as guest:
        assert guest.run(begin).status == 0
        seen = look(guest)
        room = next(room for room in rooms(seen) if room.path == "/alone")
        fits = guest.run(grow(room.left_bytes - (3 << 20))).status
        before = guest.kernel_log()
        too_much = guest.run(grow(room.left_bytes + (3 << 20))).status
        after = guest.kernel_log()
    group = next(group for group in seen.cgroups if group.path == "/alone")
    assert dict(group.stat)["slab_reclaimable"] > 8 << 20
    assert room.swap_bytes == 16 << 20
    assert (fits, "oom-killer" in before) == (0, False)
    assert too_much != 0
    assert "(growing)" in after


@pytest.mark.slow
@pytest.mark.parametrize(("series", "generations"), [("6.1", 0), ("6.1", 7), ("7", 7)])  # 7 without it: either
def test_at_a_swappiness_of_zero_mglru_kills_with_all_swap_free(series: str, generations: int) -> None:
    begin = "mkswap /dev/vda > /dev/null; swapon /dev/vda; echo 0 > /proc/sys/vm/swappiness"
    with here_or_skipped():
        state = saved(series, MINI)
    with state.restore() as guest:
        guest.run(f"{begin}; echo {generations} > {LRU_GEN}")
        seen = look(guest)
        guest.run("hog --mib 400 --name growing; true")
        log = guest.kernel_log()
    free = re.search(r"Free swap += ([0-9]+)kB", log)
    assert free is not None
    unused = int(free[1]) << 10
    (whole,) = (room for room in rooms(seen) if room.path is None)
    swap = dict(seen.meminfo)["SwapFree"]
    assert (whole.swap_bytes, unused) == ((0, swap) if generations else (swap, pytest.approx(0, abs=8 << 20)))

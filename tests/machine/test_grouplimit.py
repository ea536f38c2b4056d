"""Limits of real cgroups of this machine, of either version: of the one that was meant, or of none."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from reprieve.fix.journal import Journal
from reprieve.fix.plan import Span, Wanted, plan
from reprieve.fix.transaction import apply, undo
from reprieve.machine.cgroup import Hierarchy, read_cgroups, read_hierarchy
from reprieve.machine.demo import small_cgroup
from reprieve.machine.enclosure import Enclosure
from reprieve.machine.grouplimit import limits_of_group, path_in
from reprieve.machine.host import Host
from reprieve.machine.ledger import LedgerFile
from reprieve.machine.places import MachinePlaces
from reprieve.model.cgroup import Limit
from reprieve.model.change import Blocked, Plan
from reprieve.model.finding import Change, Failure, Place
from reprieve.model.machine import Machine
from reprieve.show import changes
from reprieve.units import MIB
from tests.machine.real import missing

_NUMBERS = count(1)
_BOTH = Span()
LIMIT = 32 * MIB
# Waits for a line, so that it is in the cgroup before it grows; then holds what it took until its input ends.
_LOAD = """
import sys
kept = [b"x" * (1 << 20) for _ in range(int(input()))]
print("has it", flush=True)
sys.stdin.read()
"""
HOLDS = (sys.executable, "-S", "-c", _LOAD)


@pytest.fixture
def group() -> Iterator[Enclosure]:
    """A cgroup of 32 MiB and no swap."""
    with small_group() as made:
        yield made


@contextmanager
def small_group(name: str = "", limit_bytes: int = LIMIT) -> Iterator[Enclosure]:
    """A cgroup with such a limit and no swap."""
    try:
        made = small_cgroup(name or f"reprieve-test-{os.getpid()}-{next(_NUMBERS)}", limit_bytes)
        folder = made.__enter__()
    except Failure as failure:
        missing(failure.message)
    try:
        yield folder
    finally:
        made.__exit__(None, None, None)


def old() -> bool:
    found = read_hierarchy(Host(), [])
    return found is not None and found.version != "2"


def most(group: Enclosure) -> Place:
    return Place(kind="cgroup", of=group.path, key="memory.limit_in_bytes" if old() else "memory.max")


def limit(group: Enclosure) -> str:
    return Path(group.folder, most(group).key).read_text().strip()


def planned(*changes: Change, machine: Machine | None = None, span: Span = _BOTH) -> Plan:
    return plan([Wanted(changes)], MachinePlaces(), machine or Machine(), span=span)


def limited(group: Enclosure, **sizes: Limit) -> Plan:
    """As `fix limit` plans it."""
    return planned(*limits_of_group(Host(), group.path, **sizes))


def journal(ledger: LedgerFile) -> Journal:
    return Journal(ledger, boot_id="boot-1", wall_s=1.0, user="root")


@contextmanager
def load(
    argv: Sequence[str], mib: int, begin: Callable[[int], object] = lambda _pid: None
) -> Iterator[subprocess.Popen[str]]:
    """A process that holds so much, or was killed; `begin` is told its pid before it takes any."""
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        try:
            begin(child.pid)
            assert child.stdin
            assert child.stdout
            child.stdin.write(f"{mib}\n")
            child.stdin.flush()
            child.stdout.readline()
            yield child
        finally:
            child.kill()


@contextmanager
def holding(group: Enclosure, mib: int) -> Iterator[subprocess.Popen[str]]:
    """Such a process in it."""
    procs = Path(group.folder, "cgroup.procs")
    with load(HOLDS, mib, lambda pid: procs.write_text(str(pid))) as child:
        yield child


def lives(group: Enclosure, mib: int) -> bool:
    with holding(group, mib) as child:
        return child.communicate(timeout=60)[0] == "" and child.returncode == 0


def test_a_load_that_died_lives_with_a_higher_limit_and_dies_again_after_undo(group: Enclosure, tmp_path: Path) -> None:
    before = sorted((file.name, file.read_text()) for file in Path(group.folder).glob("memory.*limit_in_bytes"))
    assert not lives(group, 48)
    made = limited(group, most=96 * MIB)
    assert made.refused == ()
    assert {step.place.of for step in made.steps} == {f"{os.stat(group.folder).st_ino}:{group.path}"}
    with LedgerFile(str(tmp_path / "ledger")) as ledger:
        number = apply(made.steps, MachinePlaces(), journal(ledger))
        assert limit(group) == str(96 * MIB)
        assert lives(group, 48)
        assert limited(group, most=96 * MIB) == Plan()
        assert undo(number, MachinePlaces(), journal(ledger)) == []
    assert limit(group) == str(LIMIT)
    assert not lives(group, 48)
    assert sorted((file.name, file.read_text()) for file in Path(group.folder).glob("memory.*limit_in_bytes")) == before


@pytest.mark.parametrize(
    ("sizes", "then"),
    [
        ({"most": 64 * MIB}, (64, 64)),  # it had no swap, and gets none
        ({"most": 64 * MIB, "swap": 16 * MIB}, (64, 80)),
        ({"most": 16 * MIB}, (16, 16)),
        ({"most": 16 * MIB, "swap": 8 * MIB}, (16, 24)),
        ({"most": 16 * MIB, "swap": 64 * MIB}, (16, 80)),
        ({"swap": 64 * MIB}, (32, 96)),
    ],
)
def test_where_memory_and_swap_have_one_limit_both_are_written_in_an_order_that_is_allowed(
    sizes: dict[str, int], then: tuple[int, int], group: Enclosure, tmp_path: Path
) -> None:
    both = Path(group.folder, "memory.memsw.limit_in_bytes")
    if not both.exists():
        missing("version 1 of cgroups, with swap counted")
    with LedgerFile(str(tmp_path / "ledger")) as ledger:
        number = apply(limited(group, **sizes).steps, MachinePlaces(), journal(ledger))
        assert (limit(group), both.read_text().strip()) == tuple(str(size * MIB) for size in then)
        assert undo(number, MachinePlaces(), journal(ledger)) == []
    assert (limit(group), both.read_text().strip()) == (str(LIMIT), str(LIMIT))


def test_the_folder_of_a_cgroup_names_it_as_its_path_does(group: Enclosure) -> None:
    by_path = limits_of_group(Host(), group.path, most=64 * MIB)
    assert limits_of_group(Host(), f"{group.folder}/", most=64 * MIB) == by_path


def test_no_limit_is_called_max_and_undone_to_it(tmp_path: Path, group: Enclosure) -> None:
    places = MachinePlaces()
    for file in ("memory.memsw.limit_in_bytes", most(group).key):
        if os.path.exists(f"{group.folder}/{file}"):
            places.put(Place(kind="cgroup", of=group.path, key=file), "max")
    unlimited = limit(group)
    assert places.get(most(group)) == "max"
    made = limited(group, most=64 * MIB)
    assert [(step.before, step.want) for step in made.steps] == [("max", str(64 * MIB))]
    with LedgerFile(str(tmp_path / "ledger")) as ledger:
        number = apply(made.steps, places, journal(ledger))
        assert limit(group) == str(64 * MIB)
        undo(number, places, journal(ledger))
    assert limit(group) == unlimited


def test_a_limit_that_is_lifted_kills_nobody_until_it_is_undone(group: Enclosure, tmp_path: Path) -> None:
    files = [file for file in Path(group.folder).iterdir() if file.name in LIMITS]
    before = [(file, file.read_text()) for file in files]
    assert not lives(group, 48)
    made = limited(group, most="max")
    assert made.refused == ()
    assert {step.want for step in made.steps} == {"max"}
    assert all("no limit of its own bounds it any more" in (step.cost or "") for step in made.steps)
    with LedgerFile(str(tmp_path / "ledger")) as ledger:
        number = apply(made.steps, MachinePlaces(), journal(ledger))
        assert MachinePlaces().get(most(group)) == "max"
        assert lives(group, 48)
        assert limited(group, most="max") == Plan()
        assert undo(number, MachinePlaces(), journal(ledger)) == []
    assert [(file, file.read_text()) for file in files] == before
    assert not lives(group, 48)


LIMITS = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.max", "memory.swap.max")


def test_swap_is_lifted_beside_a_limit_for_memory_that_stays(group: Enclosure, tmp_path: Path) -> None:
    both = Path(group.folder, "memory.memsw.limit_in_bytes")
    if not both.exists():
        missing("version 1 of cgroups, with swap counted")
    with LedgerFile(str(tmp_path / "ledger")) as ledger:
        number = apply(limited(group, swap="max").steps, MachinePlaces(), journal(ledger))
        assert limit(group) == str(LIMIT)
        assert MachinePlaces().get(replace(most(group), key=both.name)) == "max"
        assert limited(group, most=16 * MIB, swap="max").steps[-1].want == str(16 * MIB)
        undo(number, MachinePlaces(), journal(ledger))
    assert both.read_text().strip() == str(LIMIT)
    with pytest.raises(Failure, match="limits memory and swap together"):
        limits_of_group(Host(), group.path, most="max", swap=0)


def test_what_somebody_else_has_set_since_stays(group: Enclosure, tmp_path: Path) -> None:
    with LedgerFile(str(tmp_path / "ledger")) as ledger:
        number = apply(limited(group, most=64 * MIB).steps, MachinePlaces(), journal(ledger))
        Path(group.folder, most(group).key).write_text(str(48 * MIB))
        with pytest.raises(Failure, match=": changed") as caught:
            undo(number, MachinePlaces(), journal(ledger))
    assert isinstance(caught.value, Blocked)
    theirs, *others = caught.value.stays
    assert (theirs.before, theirs.want, theirs.found) == (str(LIMIT), str(64 * MIB), str(48 * MIB))
    name, then = f"{group.path} {most(group).key}", f"change {number} changed it from 32 MiB to 64 MiB"
    assert changes.stay(theirs) == f"{name} is 48 MiB: somebody else has set it since {then}"
    assert [one.why for one in others] == ["waits"] * old()  # the limit for both, which is of the same group
    assert limit(group) == str(48 * MIB)


def test_a_cgroup_that_was_made_anew_at_the_same_path_is_another(tmp_path: Path) -> None:
    name, places = f"reprieve-test-{os.getpid()}-anew", MachinePlaces()
    with LedgerFile(str(tmp_path / "ledger")) as ledger:
        with small_group(name) as group:
            made = planned(Change(place=most(group), want=str(16 * MIB)))
            number = apply(made.steps, places, journal(ledger))
        (step,) = made.steps
        assert places.gone(step.place)
        with small_group(name) as group:
            Path(group.folder, most(group).key).write_text(str(16 * MIB))  # the very value that was put there
            with pytest.raises(Failure, match="was removed, and made anew"):
                places.put(step.place, str(LIMIT))
            (left,) = undo(number, places, journal(ledger))
            assert (left.place, left.why) == (step.place, "gone")
            assert changes.stay(left) == f"cgroup {group.path} is no more"
            assert limit(group) == str(16 * MIB)


def observed() -> Machine:
    host = Host()
    tree = read_hierarchy(host, [])
    assert tree
    return Machine(cgroups=read_cgroups(host, [], tree))


def test_a_limit_below_what_it_holds_is_refused_with_one_that_works(group: Enclosure, tmp_path: Path) -> None:
    with holding(group, 20):
        wanted = limits_of_group(Host(), group.path, most=8 * MIB)
        (refused,) = planned(*wanted, machine=observed()).refused
        assert "beside its cache" in refused.reason
        swaps = not old() or "SwapFree:              0 kB" not in Path("/proc/meminfo").read_text()
        assert (f"--force {most(group).key}" in (refused.hint or "")) == swaps
        enough = (refused.hint or "").removeprefix("more than it holds, with a quarter to grow: ").split("M")[0]
        assert 25 < int(enough) < 40
        made = planned(*limits_of_group(Host(), group.path, most=(int(enough) + 1) * MIB), machine=observed())
        assert made.refused == ()
        with LedgerFile(str(tmp_path / "ledger")) as ledger:
            apply(made.steps, MachinePlaces(), journal(ledger))
    assert limit(group) == str((int(enough) + 1) * MIB)


def test_what_version_1_cannot_take_back_it_refuses_and_all_is_as_before(group: Enclosure, tmp_path: Path) -> None:
    if not old():
        missing("version 1 of cgroups")
    with holding(group, 20), LedgerFile(str(tmp_path / "ledger")) as ledger:
        with pytest.raises(Failure, match="holds more than that, which cannot be taken back"):
            apply(limited(group, most=8 * MIB).steps, MachinePlaces(), journal(ledger))
        assert journal(ledger).unfinished() == []
    assert limit(group) == str(LIMIT)


def test_swap_alone_without_a_limit_for_memory_means_nothing_to_version_1(group: Enclosure) -> None:
    if not old():
        missing("version 1 of cgroups")
    for file in ("memory.memsw.limit_in_bytes", most(group).key):
        Path(group.folder, file).write_text("-1")
    with pytest.raises(Failure, match="limits memory and swap together"):
        limits_of_group(Host(), group.path, swap=MIB)
    with pytest.raises(Failure, match=r"has no memory\.high"):
        limits_of_group(Host(), group.path, high=MIB)


ID = 64 * "a"


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("/system.slice/nginx.service", "reprieve fix limit nginx.service …"),
        ("/system.slice/nginx.service/workers", "reprieve fix limit nginx.service …"),
        ("/system.slice", "reprieve fix limit system.slice …"),
        ("/user.slice/user-1000.slice/mine", "reprieve fix limit user-1000.slice …"),
        (f"/docker/{ID}", f"reprieve fix limit docker:{ID[:12]} …"),
        (f"/system.slice/docker-{ID}.scope", f"reprieve fix limit docker:{ID[:12]} …"),
        (f"/machine.slice/libpod-{ID}.scope/container", f"reprieve fix limit podman:{ID[:12]} …"),
        (f"/kubepods/burstable/pod0123abcd-0123-0123-0123-0123456789ab/{ID}", "give the pod other limits"),
        ("/kubepods.slice", "give the pod other limits"),
        ("/lxc.payload.web", "change it where it is started"),
    ],
)
def test_a_cgroup_that_somebody_looks_after_is_changed_through_them(path: str, hint: str) -> None:
    place = Place(kind="cgroup", of=path, key="memory.max")
    for elsewhere in (False, True):
        told = plan([Wanted((Change(place=place, want="1G"),))], MachinePlaces(), Machine(), elsewhere=elsewhere)
        assert told.steps == ()
        assert "who sets its limits" in told.refused[0].reason
        assert hint in (told.refused[0].hint or "")


def test_without_the_right_it_is_refused_before_anything_is_changed(group: Enclosure) -> None:
    if os.geteuid() != 0:
        missing("root, to become nobody")
    os.setresuid(-1, 65534, -1)
    try:
        (refused,) = limited(group, most=16 * MIB).refused
    finally:
        os.setresuid(-1, 0, -1)
    assert (refused.hint or "").startswith("run it as root (CAP_DAC_OVERRIDE); ")
    assert limit(group) == str(LIMIT)


def test_a_name_of_blanks_and_signs_is_a_name(tmp_path: Path) -> None:
    with small_group(f"a b:1@2 'c' {os.getpid()}") as group:
        made = limited(group, most=16 * MIB)
        with LedgerFile(str(tmp_path / "ledger")) as ledger:
            number = apply(made.steps, MachinePlaces(), journal(ledger))
            assert limit(group) == str(16 * MIB)
            undo(number, MachinePlaces(), journal(ledger))
        assert limit(group) == str(LIMIT)


@pytest.mark.parametrize("path", ["", "/", "lab", "/a//b", "/..", "/a/../b", "/a/.", "/a\n", "/\udcff", "x:/a"])
def test_what_is_no_path_of_a_cgroup_leads_nowhere(path: str, group: Enclosure) -> None:
    with pytest.raises(Failure, match="is no path of a cgroup"):
        MachinePlaces().get(replace(most(group), of=path))


def test_what_cannot_be_there_is_refused(group: Enclosure) -> None:
    for change in (
        Change(place=most(group), want="two apples"),
        Change(place=replace(most(group), key="memory.swappiness"), want="1"),
        Change(place=replace(most(group), of="/nobody-made-this"), want="16M"),
    ):
        made = planned(change)
        assert made.steps == ()
        assert len(made.refused) == 1
    made = planned(Change(place=most(group), want="16M"), span=Span(now=False))
    assert [refused.reason for refused in made.refused] == ["a cgroup does not outlive the boot"]
    assert limit(group) == str(LIMIT)


def test_where_a_part_of_the_tree_is_mounted_its_groups_are_reached_and_no_others(tmp_path: Path) -> None:
    mounted = "31 23 0:30 /pods/a /cg rw - cgroup2 cgroup2 rw\n"
    for folder in ("proc/self", "cg/app", "cg/b"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "proc/self/mountinfo").write_text(mounted)
    (tmp_path / "cg/cgroup.controllers").write_text("memory\n")
    for folder in ("app", "b"):
        (tmp_path / "cg" / folder / "memory.max").write_text("max\n")
    places = MachinePlaces(str(tmp_path))
    assert places.get(Place(kind="cgroup", of="/pods/a/app", key="memory.max")) == "max"
    for outside in ("/app", "/pods/ab", "/pods/a"):
        with pytest.raises(Failure, match="cannot be reached from here"):
            places.get(Place(kind="cgroup", of=outside, key="memory.max"))


OLD = Hierarchy(version="1", folder="/sys/fs/cgroup/memory", top="/", private=False)
INNER = Hierarchy(version="2", folder="/sys/fs/cgroup", top="/pod", private=True)


@pytest.mark.parametrize(
    ("tree", "told", "path"),
    [
        (OLD, "/batch/", "/batch"),
        (OLD, "/sys/fs/cgroup/memory/batch/", "/batch"),
        (OLD, "/sys/fs/cgroup/memory/", "/"),
        (OLD, "/", "/"),
        (INNER, "/sys/fs/cgroup/batch", "/pod/batch"),
        (INNER, "/sys/fs/cgroups/batch", "/sys/fs/cgroups/batch"),
    ],
)
def test_a_path_is_that_of_the_folder_or_of_the_group_with_a_slash_or_without(
    tree: Hierarchy, told: str, path: str
) -> None:
    assert path_in(tree, told) == path


@pytest.mark.parametrize("told", ["batch", "cpu/batch/", "memory.old", ""])
def test_a_folder_of_another_tree_is_refused_and_the_right_one_named(told: str) -> None:
    with pytest.raises(Failure, match="is no folder of a cgroup that limits memory") as refused:
        path_in(OLD, f"/sys/fs/cgroup/{told}")
    assert refused.value.hint == "those are in /sys/fs/cgroup/memory"

"""Cgroups that are made on this machine, of either version: with their limits or not at all, and gone after undo."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pytest

import reprieve
from reprieve.fix.journal import Journal
from reprieve.fix.plan import Span, Wanted, plan
from reprieve.fix.transaction import apply, recover, undo
from reprieve.machine.enclosure import Enclosure
from reprieve.machine.grouplimit import limits_of_group
from reprieve.machine.host import Host
from reprieve.machine.ledger import LedgerFile
from reprieve.machine.newgroup import limits_of_new_group, to_start_in
from reprieve.machine.places import MachinePlaces
from reprieve.model.cgroup import Limit
from reprieve.model.change import Blocked, Plan
from reprieve.model.finding import Change, Failure, Place
from reprieve.model.machine import Machine
from reprieve.show import changes, export
from reprieve.units import MIB
from tests.machine.real import missing, program
from tests.machine.test_grouplimit import HOLDS, load, old, small_group

ROOM, LIMIT = 96 * MIB, 24 * MIB
HALF = 0o1700  # the mode of a group whose limits are not yet all there
PLACES = MachinePlaces()


@pytest.fixture
def outer() -> Iterator[Enclosure]:
    """A cgroup of 96 MiB and no swap, in which groups with limits may be made."""
    with small_group(limit_bytes=ROOM) as made:
        if not old():
            Path(made.folder, "cgroup.subtree_control").write_text("+memory\n")
        if any("systemd keeps" in refused.reason for refused in wanted(made).refused):
            missing("a tree that no systemd keeps")
        yield made


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[LedgerFile]:
    with LedgerFile(str(tmp_path / "ledger")) as kept:
        yield kept


def journal(ledger: LedgerFile, boot_id: str = "boot-1") -> Journal:
    return Journal(ledger, boot_id=boot_id, wall_s=1.0, user="root")


def wanted(outer: Enclosure, name: str = "batch", *, span: Span | None = None, **sizes: Limit) -> Plan:
    """As `fix limit --make` plans it."""
    asked = limits_of_new_group(Host(), f"{outer.path}/{name}", **(sizes or {"most": LIMIT, "swap": 0}))
    return plan([Wanted(asked)], PLACES, Machine(), span=span or Span())


def batch(outer: Enclosure) -> Path:
    return Path(outer.folder, "batch")


def limits(outer: Enclosure) -> list[str]:
    names = ("limit_in_bytes", "memsw.limit_in_bytes") if old() else ("max", "swap.max")
    return [(batch(outer) / f"memory.{name}").read_text().strip() for name in names]


def made(outer: Enclosure) -> list[str]:
    """What they read once it is made."""
    return [str(LIMIT), str(LIMIT if old() else 0)]


@contextmanager
def started(outer: Enclosure, name: str, mib: int) -> Iterator[subprocess.Popen[str]]:
    """A load in a group of it, as we say that one is started there: it holds so much, or was killed."""
    *argv, _ = to_start_in(Host(), Place(kind="cgroup.new", of=f"{outer.path}/{name}", key="memory.max"))
    with load((*argv, *HOLDS), mib) as child:
        yield child


def ended(child: subprocess.Popen[str]) -> int:
    """How it ended: it is told that it may."""
    child.communicate(timeout=60)
    return child.returncode


@contextmanager
def meddled(function: str, act: Callable[[], object], file: str = "newgroup.py") -> Iterator[None]:
    """Somebody does that just before such a function of ours begins."""

    def trace(frame: FrameType, event: str, _what: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_name == function and code.co_filename.endswith(f"/{file}"):
            act()

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


@pytest.mark.parametrize("limited", [False, True], ids=["without", "limited"])
def test_a_load_dies_at_the_limit_of_its_group_where_it_killed_who_was_beside_it(
    limited: bool, outer: Enclosure, ledger: LedgerFile
) -> None:
    Path(outer.folder, "innocent").mkdir()
    if limited:
        number = apply(wanted(outer).steps, PLACES, journal(ledger))
    else:
        batch(outer).mkdir()
    with started(outer, "innocent", 50) as innocent, started(outer, "batch", 60) as load:
        assert (ended(load), ended(innocent)) == ((-9, 0) if limited else (0, -9))
    if limited:
        assert undo(number, PLACES, journal(ledger)) == []
        assert not batch(outer).exists()


def test_it_is_made_with_its_limits_once_and_gone_after_undo(outer: Enclosure, ledger: LedgerFile) -> None:
    told = wanted(outer)
    assert told.refused == ()
    (step,) = told.steps
    assert step.before is None
    number = apply(told.steps, PLACES, journal(ledger))
    assert limits(outer) == made(outer)
    assert batch(outer).stat().st_mode & 0o777 == 0o755
    assert wanted(outer) == Plan()  # of one that is there its limits are asked for
    assert undo(number, PLACES, journal(ledger)) == []
    assert not batch(outer).exists()
    assert wanted(outer) == told


def test_the_folder_names_it_as_its_path_does(outer: Enclosure) -> None:
    by_path = limits_of_new_group(Host(), f"{outer.path}/batch", most=LIMIT)
    assert limits_of_new_group(Host(), f"{outer.folder}/batch/", most=LIMIT) == by_path


def test_who_is_in_it_stays_and_is_named_and_so_is_a_group(outer: Enclosure, ledger: LedgerFile) -> None:
    number = apply(wanted(outer).steps, PLACES, journal(ledger))
    with started(outer, "batch", 1) as load:
        (batch(outer) / "inner").mkdir()
        with pytest.raises(Blocked) as caught:
            undo(number, PLACES, journal(ledger))
        inside = f"(pid {load.pid}), cgroup {outer.path}/batch/inner: end them, or move them elsewhere"
        said = changes.blocked(caught.value)
        assert said.startswith(f"cgroup {outer.path}/batch is not removed: it holds ")
        assert said.endswith(inside)
        assert limits(outer) == made(outer)
        (left,) = undo(number, PLACES, journal(ledger), leave=True)
        assert changes.left_so(left).startswith(f"cgroup {outer.path}/batch stays as it is: it holds ")
        assert journal(ledger).newest() is None
        assert ended(load) == 0
    (batch(outer) / "inner").rmdir()
    assert limits(outer) == made(outer)


def test_of_many_in_it_three_are_named_and_no_other_is_looked_at(outer: Enclosure, ledger: LedgerFile) -> None:
    number = apply(wanted(outer).steps, PLACES, journal(ledger))
    (batch(outer) / "inner").mkdir()
    sleeping = [subprocess.Popen(["sleep", "1000"]) for _ in range(5)]
    looked: list[None] = []
    try:
        for one in sleeping:
            (batch(outer) / "cgroup.procs").write_text(str(one.pid))
        with meddled("_called", lambda: looked.append(None)), pytest.raises(Blocked) as caught:
            undo(number, PLACES, journal(ledger))
    finally:
        for one in sleeping:
            one.kill()
            one.wait()
    said = changes.blocked(caught.value)
    assert said.count("sleep (pid ") == len(looked) == 3
    assert said.endswith(" and 3 more: end them, or move them elsewhere")


def test_a_limit_that_somebody_has_changed_since_keeps_it(outer: Enclosure, ledger: LedgerFile) -> None:
    number = apply(wanted(outer, most=LIMIT).steps, PLACES, journal(ledger))
    file = batch(outer) / ("memory.limit_in_bytes" if old() else "memory.max")
    file.write_text(str(48 * MIB))
    with pytest.raises(Blocked) as caught:
        undo(number, PLACES, journal(ledger))
    now, then = f"made with {file.name} 48 MiB", f"not there to made with {file.name} 24 MiB"
    name = f"cgroup {outer.path}/batch"
    assert changes.blocked(caught.value) == (
        f"{name} is {now}: somebody else has set it since change {number} changed it from {then}"
    )
    assert file.read_text().strip() == str(48 * MIB)


def test_one_of_that_name_that_somebody_makes_after_the_plan_stays(outer: Enclosure, ledger: LedgerFile) -> None:
    told = wanted(outer)
    batch(outer).mkdir()
    before = limits(outer)
    with pytest.raises(Blocked) as caught:
        apply(told.steps, PLACES, journal(ledger))
    assert changes.blocked(caught.value).endswith("/batch is somebody else's, and was not there when it was planned")
    assert limits(outer) == before
    assert journal(ledger).unfinished() == []
    with pytest.raises(Failure, match="somebody else has made it"):
        PLACES.put(told.steps[0].place, told.steps[0].want)
    with pytest.raises(Failure, match="somebody else has made it"):
        PLACES.put(told.steps[0].place, None)
    assert limits(outer) == before


def test_one_that_somebody_makes_first_is_told_as_theirs_and_nothing_is_left_to_undo(
    outer: Enclosure, ledger: LedgerFile
) -> None:
    (step,) = wanted(outer).steps
    with meddled("put", batch(outer).mkdir), pytest.raises(Failure) as caught:
        apply([step], PLACES, journal(ledger))
    assert str(caught.value) == f"{batch(outer)} is there: somebody else has made it"
    assert caught.value.hint == "it stays; plan again"
    assert (journal(ledger).unfinished(), journal(ledger).newest()) == ([], None)
    assert batch(outer).exists()


def make_anew(outer: Enclosure) -> None:
    batch(outer).rmdir()
    batch(outer).mkdir(0o1755)


def test_one_that_takes_its_place_while_it_gets_its_limits_stays(outer: Enclosure) -> None:
    (step,) = wanted(outer).steps
    at_its_first = meddled("put", lambda: make_anew(outer), "grouplimit.py")
    with at_its_first, pytest.raises(Failure, match="made anew"):
        PLACES.put(step.place, step.want)
    assert batch(outer).exists()


def test_one_that_takes_its_place_while_it_is_removed_stays(outer: Enclosure) -> None:
    (step,) = wanted(outer).steps
    PLACES.put(step.place, step.want)
    once_looked = meddled("_remove_empty", lambda: make_anew(outer))
    with once_looked, pytest.raises(Failure, match="somebody else has made it"):
        PLACES.put(step.place, None)
    assert batch(outer).exists()


def test_undo_advises_nobody_to_remove_what_others_have_made(outer: Enclosure) -> None:
    script = """
    mount -t tmpfs none /var/lib || exit
    "$0" -m reprieve fix limit "$1" --max 24M --make --yes && rmdir "$2" && mkdir "$2" && ! "$0" -m reprieve undo &&
    "$0" -m reprieve undo --leave
    """
    argv = [program("unshare"), "-m", "sh", "-c", script, sys.executable, f"{outer.path}/batch/", str(batch(outer))]
    asked = subprocess.run(argv, capture_output=True, text=True, check=False)
    if "unshare" in asked.stderr:
        missing("a mount namespace of one's own")
    assert asked.returncode == 0, asked.stderr
    refused = " ".join(asked.stderr.split())
    assert f"cgroup {outer.path}/batch is somebody else's: somebody else has made it since change 1 " in refused
    assert "`reprieve undo 1 --leave`" in refused
    assert "rmdir" not in refused
    assert f"cgroup {outer.path}/batch stays: somebody else has made it" in asked.stdout
    assert batch(outer).exists()


def test_one_that_was_made_anew_with_the_same_limits_is_another(outer: Enclosure, ledger: LedgerFile) -> None:
    number = apply(wanted(outer).steps, PLACES, journal(ledger))
    batch(outer).rmdir()
    batch(outer).mkdir()
    for change in limits_of_group(Host(), f"{outer.path}/batch", most=LIMIT, swap=0):
        PLACES.put(change.place, change.want)
    assert limits(outer) == made(outer)
    with pytest.raises(Blocked, match="changed"):
        undo(number, PLACES, journal(ledger))
    assert limits(outer) == made(outer)


def test_its_limit_is_changed_after_it_was_made_and_undone_before(outer: Enclosure, ledger: LedgerFile) -> None:
    first = apply(wanted(outer).steps, PLACES, journal(ledger))
    higher = [Wanted(limits_of_group(Host(), f"{outer.path}/batch", most=2 * LIMIT))]
    second = apply(plan(higher, PLACES, Machine()).steps, PLACES, journal(ledger))
    with pytest.raises(Blocked) as caught:
        undo(first, PLACES, journal(ledger))
    assert changes.blocked(caught.value) == f"change {second} has changed cgroup {outer.path}/batch since"
    assert undo(second, PLACES, journal(ledger)) == []
    assert limits(outer) == made(outer)
    assert undo(first, PLACES, journal(ledger)) == []
    assert not batch(outer).exists()


def test_what_the_kernel_does_not_take_leaves_no_group_behind(outer: Enclosure, ledger: LedgerFile) -> None:
    (step,) = wanted(outer).steps
    first, _, _ = step.place.key.partition("+")
    key = f"{first}+memory.nothing_in_bytes" if old() else f"{first}+memory.nothing"
    with pytest.raises(Failure, match=r"has no memory\.nothing"):
        PLACES.put(Place(kind="cgroup.new", of=step.place.of, key=key), f"{LIMIT}+0")
    assert not batch(outer).exists()


def test_what_a_crash_leaves_half_made_is_removed_and_who_is_in_it_is_named(
    outer: Enclosure, ledger: LedgerFile
) -> None:
    (step,) = wanted(outer).steps
    for inside in (False, True):
        told = journal(ledger)
        told.record(told.begin(), step, lasts=PLACES.lasts(step.place))
        batch(outer).mkdir(HALF)
        if inside:
            with started(outer, "batch", 1) as load:
                comm = Path(f"/proc/{load.pid}/comm").read_text().strip()
                with pytest.raises(Blocked) as caught:
                    recover(PLACES, journal(ledger))
                assert changes.blocked(caught.value) == (
                    f"cgroup {outer.path}/batch is not removed: "
                    f"it holds {comm} (pid {load.pid}): end them, or move them elsewhere"
                )
                assert ended(load) == 0
        recover(PLACES, journal(ledger))
        assert journal(ledger).unfinished() == []
        assert not batch(outer).exists()


def test_killed_before_each_line_it_is_there_with_its_limits_or_not_at_all(outer: Enclosure, tmp_path: Path) -> None:
    script = Path(__file__).parents[1] / "lab/die_at_a_group.py"
    argv = [sys.executable, str(script), str(Path(reprieve.__file__).parents[1]), f"{outer.path}/batch"]
    died = subprocess.run(
        argv, env={**os.environ, "LEDGER": str(tmp_path / "died")}, capture_output=True, text=True, check=False
    )
    assert died.returncode == 0, died.stderr
    making, halves, removing = map(int, died.stdout.split())
    assert 5 < halves < making  # it was there half, and was not
    assert removing > 10


def test_a_boot_ends_it(outer: Enclosure, ledger: LedgerFile) -> None:
    number = apply(wanted(outer).steps, PLACES, journal(ledger))
    assert journal(ledger, "boot-2").in_force(number) == []
    (refused,) = wanted(outer, "later", span=Span(now=False)).refused
    assert refused.reason == "a cgroup does not outlive the boot"
    assert "--as sh" in (refused.hint or "")
    assert "on version 2, has each hand on memory: echo +memory > …/cgroup.subtree_control" in (refused.hint or "")


def test_the_commands_do_the_same_once_and_twice_and_leave_nothing_that_has_no_limit(outer: Enclosure) -> None:
    (step,) = wanted(outer).steps
    script = "\n".join(export.shell([step]))
    if not os.path.exists("/sys/fs/cgroup/cgroup.controllers" if not old() else "/sys/fs/cgroup/memory"):
        missing("cgroups where a script finds them")
    for _ in range(2):
        subprocess.run(["sh", "-c", script], check=True)
        assert limits(outer) == made(outer)
    assert export.by_hand(step.place, None) == f"rmdir {batch(outer)}"
    batch(outer).rmdir()
    spoilt = script.replace(f"={LIMIT}", "=two-apples")
    assert spoilt != script
    assert subprocess.run(["sh", "-c", spoilt], check=False, capture_output=True).returncode != 0
    assert not batch(outer).exists()


def test_without_the_right_it_is_refused_before_anything_is_changed(outer: Enclosure) -> None:
    if os.geteuid() != 0:
        missing("root, to become nobody")
    os.setresuid(-1, 65534, -1)
    try:
        (refused,) = wanted(outer).refused
    finally:
        os.setresuid(-1, 0, -1)
    assert (refused.hint or "").startswith("run it as root (CAP_DAC_OVERRIDE); ")
    assert not batch(outer).exists()


def test_where_cgroups_are_mounted_read_only_it_is_refused_and_the_host_named(outer: Enclosure) -> None:
    unshare = program("unshare")
    mount = Path(outer.folder)
    script = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && cd "$1" && exec "$2" -c "$3" "$4"'
    ask = """
import sys
from reprieve.machine.host import Host
from reprieve.machine.newgroup import limits_of_new_group
from reprieve.machine.places import MachinePlaces
(change,) = limits_of_new_group(Host(), sys.argv[1] + "/batch", most=1 << 24)
refused = MachinePlaces().obstacle(change.place, change.want)
print(refused.message, refused.hint)
"""
    argv = [unshare, "-m", "sh", "-c", script, str(mount), "/", sys.executable, ask, outer.path]
    asked = subprocess.run(argv, capture_output=True, text=True, check=False)
    if "unshare" in asked.stderr:
        missing("a mount namespace of one's own")
    assert asked.stderr == ""
    assert "Read-only file system it is mounted read-only" in asked.stdout


def test_what_stands_in_the_way_is_named(outer: Enclosure) -> None:
    (refused,) = wanted(outer, "not/there").refused
    assert refused.reason == f"there is no cgroup {outer.path}/not to make it in"
    assert refused.hint == f"first: reprieve fix limit {outer.path}/not --make …"
    (refused,) = wanted(outer, "cgroup.procs").refused
    assert refused.reason.endswith("/cgroup.procs is there already, and is no cgroup")


SLICE = "reprieve fix limit {0}.slice …, then systemd-run --slice={0} COMMAND, or Slice= in a unit"


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("/system.slice/batch", SLICE.format("system-batch")),
        ("/system.slice/my batch-2", SLICE.format("system-my_batch_2")),
        ("/user.slice/user-1000.slice/mine", "reprieve fix limit user-1000.slice …"),
        ("/batch.slice", "reprieve fix limit batch.slice …"),
        ("/system.slice/nginx.service/workers", "reprieve fix limit nginx.service …"),
        (f"/docker/{64 * 'a'}/in", "reprieve fix limit docker:aaaaaaaaaaaa …"),
        ("/docker/mine", "change it where it is started"),
        ("/kubepods.slice/mine", "give the pod other limits: kubectl set resources"),
    ],
)
def test_below_what_somebody_looks_after_it_is_refused_with_their_way(path: str, hint: str) -> None:
    place = Place(kind="cgroup.new", of=path, key="memory.max")
    for elsewhere in (False, True):
        told = plan([Wanted((Change(place=place, want="1G"),))], PLACES, Machine(), elsewhere=elsewhere)
        assert told.steps == ()
        assert told.refused[0].hint == hint


@pytest.mark.parametrize("path", ["/", "/a//b", "/..", "/a/../b", "/a\n"])
def test_what_is_no_path_of_a_cgroup_leads_nowhere(path: str) -> None:
    with pytest.raises(Failure, match="is no path of a cgroup"):
        limits_of_new_group(Host(), path, most=LIMIT)


def unified(root: Path, *groups: str, systemd: bool = False) -> None:
    """A tree of version 2, as the kernel tells it: each group with what it gives those in it, and who is in it."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/1").mkdir()
    (root / "proc/1/comm").write_text("systemd\n" if systemd else "init\n")
    (root / "proc/self/mountinfo").write_text("31 23 0:30 / /cg rw - cgroup2 cgroup2 rw\n")
    for told in groups:
        path, gives, pids = told.split(",")
        (root / "cg" / path).mkdir(parents=True, exist_ok=True)
        (root / "cg" / path / "cgroup.controllers").write_text("memory\n")
        (root / "cg" / path / "cgroup.subtree_control").write_text(f"{gives}\n")
        (root / "cg" / path / "cgroup.procs").write_text(pids.replace(" ", "\n"))


GIVEN = "echo +memory > {}/cgroup.subtree_control"


@pytest.mark.parametrize(
    ("path", "groups", "hint"),
    [
        ("/b", [",memory,1 2"], None),
        ("/b", [",cpu,1 2"], f"{GIVEN.format('/cg')}: all groups there are counted from then on"),
        ("/a/b", [",memory,1", "a,memory,"], None),
        ("/a/b", [",memory,1", "a,,"], f"{GIVEN.format('/cg/a')}: all groups there are counted from then on"),
        (
            "/a/b",
            [",,1", "a,,"],
            f"{GIVEN.format('/cg')}; {GIVEN.format('/cg/a')}: all groups there are counted from then on",
        ),
        ("/a/b", [",memory,1", "a,,7 8"], "make it elsewhere, or move them into a group of their own first"),
    ],
)
def test_where_no_group_is_given_the_controller_the_command_that_would_is_told(
    path: str, groups: list[str], hint: str | None, tmp_path: Path
) -> None:
    unified(tmp_path, *groups)
    refused = MachinePlaces(str(tmp_path)).obstacle(Place(kind="cgroup.new", of=path, key="memory.max"), "1")
    assert (None if refused is None else refused.hint) == hint


@pytest.mark.parametrize("by", ["pid 1", "its group"])
def test_in_a_tree_that_systemd_keeps_it_is_a_slice_that_is_advised(by: str, tmp_path: Path) -> None:
    unified(tmp_path, ",memory,", systemd=by == "pid 1")
    if by == "its group":
        (tmp_path / "cg/init.scope").mkdir()
    refused = MachinePlaces(str(tmp_path)).obstacle(Place(kind="cgroup.new", of="/batch", key="memory.max"), "1")
    assert refused is not None
    assert refused.hint == SLICE.format("batch")

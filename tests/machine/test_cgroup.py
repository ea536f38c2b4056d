import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reprieve.machine import cgroup
from reprieve.machine.cgroup import Hierarchy, gone, read_cgroups, read_hierarchy
from reprieve.machine.host import Host
from reprieve.model.cgroup import Cgroup
from reprieve.model.finding import Gap
from tests.hosts.capture import FILES
from tests.machine.real import missing

HOSTS = Path(__file__).parent.parent / "hosts"
V1 = Path("/sys/fs/cgroup/memory")
MIB = 1 << 20


def read(root: Path | str) -> tuple[Hierarchy, dict[str, Cgroup], list[Gap]]:
    gaps: list[Gap] = []
    host = Host(str(root))
    hierarchy = read_hierarchy(host, gaps)
    assert hierarchy is not None
    return hierarchy, {group.path: group for group in read_cgroups(host, gaps, hierarchy)}, gaps


def v2_tree(root: Path, **files: bytes) -> Path:
    """Made up: a mount, a root, and a group /a with these files."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/mountinfo").write_text("28 25 0:25 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
    folder = root / "sys/fs/cgroup/a"
    folder.mkdir(parents=True)
    (folder.parent / "cgroup.controllers").write_text("cpu memory\n")
    for name, data in {"memory.current": b"1\n", **files}.items():
        (folder / name).write_bytes(data)
    return root


@pytest.fixture
def group_here() -> Iterator[Path]:
    """A group of this machine's version 1 hierarchy."""
    folder = V1 / f"reprieve-test-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError:
        missing("a memory controller of cgroup v1 in which a group may be made")
    yield folder
    for below, _, _ in os.walk(os.fsencode(folder), topdown=False):
        os.rmdir(below)


@pytest.mark.parametrize(
    ("name", "version", "folder"),
    [
        ("v2-mini-6.12", "2", "/sys/fs/cgroup"),
        ("v2-systemd-252", "2", "/sys/fs/cgroup"),
        ("v2-systemd-257", "2", "/sys/fs/cgroup"),
        ("docker-26", "2", "/sys/fs/cgroup"),
        ("kubelet-1.20", "2", "/sys/fs/cgroup"),
        ("podman-5", "2", "/sys/fs/cgroup"),
        ("v1-mini-6.1", "1", "/sys/fs/cgroup/memory"),
        ("hybrid-systemd-252", "hybrid", "/sys/fs/cgroup/memory"),
    ],
)
def test_a_captured_machine_is_read_without_a_gap(name: str, version: str, folder: str) -> None:
    hierarchy, groups, gaps = read(HOSTS / name)
    assert not gaps
    assert hierarchy == Hierarchy(version=version, folder=folder, top="/", private=False)
    for path in groups:
        assert path == "/" or (path.rpartition("/")[0] or "/") in list(groups)[: list(groups).index(path)]
    for group in groups.values():
        assert group.stat
        assert group.path == "/" or (group.current_bytes is not None and group.max_bytes is not None)


def test_version_2_says_what_was_set() -> None:
    _, groups, _ = read(HOSTS / "v2-mini-6.12")
    web, batch, root = groups["/app/web"], groups["/app/batch"], groups["/"]
    assert (web.max_bytes, web.high_bytes, web.low_bytes, web.swap_max_bytes) == (40 * MIB, 36 * MIB, 0, "max")
    assert (web.oom_group, batch.oom_group, root.oom_group) == (True, False, None)
    assert len(web.pids) == 1
    assert (batch.swap_max_bytes, batch.pids) == (0, ())
    assert dict(batch.local_events)["oom_kill"] == dict(groups["/app"].events)["oom_kill"] == 1
    assert dict(groups["/app"].local_events)["oom_kill"] == 0
    assert (root.current_bytes, root.max_bytes, len(root.pressure)) == (None, None, 2)
    assert groups["/app"].low_bytes == 8 * MIB


def test_version_1_says_what_was_set() -> None:
    _, groups, _ = read(HOSTS / "v1-mini-6.1")
    app, web = groups["/app"], groups["/app/web"]
    assert (app.max_bytes, app.memsw_max_bytes, app.soft_limit_bytes) == (64 * MIB, 96 * MIB, "max")
    assert (web.max_bytes, web.memsw_max_bytes, web.soft_limit_bytes) == (24 * MIB, "max", 20 * MIB)
    assert (web.swappiness, web.swap_current_bytes, len(web.pids)) == (10, 0, 1)
    assert (groups["/plain"].oom_kill_disable, groups["/plain"].under_oom) == (True, False)
    assert dict(app.stat)["total_rss"] > 12 * MIB
    assert dict(web.stat)["hierarchical_memory_limit"] == 24 * MIB
    assert "rss" not in dict(web.stat)


@pytest.mark.parametrize("name", ["v2-systemd-252", "v2-systemd-257", "hybrid-systemd-252"])
def test_the_limits_of_units_are_read(name: str) -> None:
    _, groups, _ = read(HOSTS / name)
    assert groups["/app.slice"].max_bytes == 128 * MIB
    assert groups["/app.slice/web.service"].max_bytes == 96 * MIB
    assert groups["/app.slice/batch.service"].max_bytes == 32 * MIB


def test_a_mounted_group_that_is_not_the_root_is_a_private_view(tmp_path: Path) -> None:
    root = v2_tree(tmp_path)
    (root / "sys/fs/cgroup/cgroup.events").write_text("populated 1\nfrozen 0\n")
    assert read(root)[0].private


def test_a_part_that_is_mounted_keeps_the_paths_that_processes_tell(group_here: Path) -> None:
    (group_here / "inner").mkdir()
    code = """
from reprieve.machine.host import Host
from reprieve.machine.cgroup import *
gaps = []
hierarchy = read_hierarchy(Host(), gaps)
print(hierarchy.top, hierarchy.private, *[group.path for group in read_cgroups(Host(), gaps, hierarchy)], gaps)
"""
    script = f'mount --bind {group_here} {V1} && exec "$0" -c "$1"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, sys.executable, code], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    name = f"/{group_here.name}"
    assert done.stdout.split() == [name, "True", name, f"{name}/inner", "[]"]


def test_without_a_memory_controller_there_is_a_gap(tmp_path: Path) -> None:
    gaps: list[Gap] = []
    assert read_hierarchy(Host(str(tmp_path)), gaps) is None
    assert [gap.reason for gap in gaps] == ["no memory controller is mounted"]


def test_this_machines_groups_say_what_was_set(group_here: Path) -> None:
    (group_here / "inner").mkdir()
    (group_here / "memory.limit_in_bytes").write_text(str(64 * MIB))
    (group_here / "inner/memory.limit_in_bytes").write_text(str(32 * MIB))
    child = subprocess.Popen(["sleep", "60"])
    try:
        (group_here / "inner/cgroup.procs").write_text(str(child.pid))
        _, groups, gaps = read("/")
        outer, inner = groups[f"/{group_here.name}"], groups[f"/{group_here.name}/inner"]
        assert (outer.max_bytes, inner.max_bytes, inner.pids) == (64 * MIB, 32 * MIB, (child.pid,))
        assert not gaps
    finally:
        child.kill()
        child.wait()


def test_a_group_that_is_no_more_is_told_where_all_are_seen(group_here: Path, tmp_path: Path) -> None:
    name = f"/{group_here.name}"
    (group_here / "inner").mkdir()
    asked = (name, f"{name}/inner", f"{name}/gone", f"{name}/../gone", f"{name}/caf\\xe9")
    assert gone(Host(), asked) == (f"{name}/gone",)
    (group_here / "inner").rmdir()
    assert gone(Host(), asked) == (f"{name}/inner", f"{name}/gone")
    assert gone(Host(str(tmp_path)), asked) == ()


def test_names_are_hostile(group_here: Path) -> None:
    # all but a newline: the kernel refuses it, for /proc/PID/cgroup has a group a line
    os.mkdir(os.fsencode(group_here) + b"/a\x1b[2J\tb")
    os.mkdir(os.fsencode(group_here) + b"/caf\xe9 \\ memory.x")
    _, groups, gaps = read("/")
    name = f"/{group_here.name}"
    assert {f"{name}/a\x1b[2J\tb", f"{name}/caf\\xe9 \\ memory.x"} <= set(groups)
    assert groups[f"{name}/a\x1b[2J\tb"].current_bytes is not None
    assert not gaps


def test_a_group_that_is_removed_meanwhile_is_left_out(group_here: Path) -> None:
    stop = threading.Event()

    def come_and_go() -> None:
        while not stop.is_set():
            for name in "abcdefgh":
                (group_here / name).mkdir()
            for name in "abcdefgh":
                (group_here / name).rmdir()

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        for _ in range(100):
            _, groups, gaps = read("/")
            assert not gaps
            assert all(group.current_bytes is not None and group.stat for group in groups.values())
    finally:
        stop.set()
        thread.join()


def test_a_thousand_refusals_are_one_gap(tmp_path: Path) -> None:
    root = v2_tree(tmp_path)
    for number in range(30):
        folder = root / f"sys/fs/cgroup/a/{number}"
        folder.mkdir()
        (folder / "memory.current").write_text("7\n")
        (folder / "memory.stat").mkdir()  # no file
        (folder / "memory.max").write_text("a lot\n")
    _, groups, gaps = read(root)
    assert len(groups) == 32
    [gap] = gaps
    assert gap.place == "/sys/fs/cgroup/a/0/memory.max"
    assert gap.reason == "is not what the kernel writes, and in 29 more cgroups"


def test_a_file_that_may_not_be_read_is_a_gap_with_a_hint() -> None:
    if os.geteuid() != 0:
        missing("root, to become nobody")
    with TemporaryDirectory() as folder:  # pytest's own is closed to others
        root = v2_tree(Path(folder), **{"memory.max": b"max\n"})
        (root / "sys/fs/cgroup/a/memory.max").chmod(0)
        root.chmod(0o755)
        os.setresuid(-1, 65534, -1)
        try:
            _, groups, gaps = read(root)
        finally:
            os.setresuid(-1, 0, -1)
    assert groups["/a"].max_bytes is None
    assert gaps == [Gap(place="/sys/fs/cgroup/a/memory.max", reason="permission denied", hint="run it as root")]


def test_groups_beyond_the_bound_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "GROUPS", 2)
    root = v2_tree(tmp_path)
    for number in range(3):
        (root / f"sys/fs/cgroup/a/{number}").mkdir()
        (root / f"sys/fs/cgroup/a/{number}/memory.current").write_text("7\n")
    _, groups, gaps = read(root)
    assert list(groups) == ["/", "/a"]
    assert [gap.reason for gap in gaps] == ["3 more cgroups than the 2 that were read"]


def test_a_group_the_controller_does_not_reach_is_none(tmp_path: Path) -> None:
    root = v2_tree(tmp_path)
    (root / "sys/fs/cgroup/plain/below").mkdir(parents=True)
    (root / "sys/fs/cgroup/plain/cgroup.procs").write_text("")
    assert list(read(root)[1]) == ["/", "/a"]


@pytest.mark.parametrize("word", [b"9223372036854771712", b"9223372036854710272", b"18446744073709551615", b"max"])
def test_no_limit_is_one_word_on_every_kernel_and_page_size(tmp_path: Path, word: bytes) -> None:
    assert read(v2_tree(tmp_path, **{"memory.max": word + b"\n"}))[1]["/a"].max_bytes == "max"


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(FILES), data=st.binary(max_size=80), version=st.sampled_from(["1", "2"]))
def test_arbitrary_bytes_in_a_file_are_a_gap_or_nothing(tmp_path: Path, name: str, data: bytes, version: str) -> None:
    folder = tmp_path / "g"
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    (folder / name).write_bytes(data)
    gaps: list[Gap] = []
    hierarchy = Hierarchy(version=version, folder="/g", top="/", private=False)
    [group] = read_cgroups(Host(str(tmp_path)), gaps, hierarchy)
    told = [value for value in (group.current_bytes, group.max_bytes, group.memsw_max_bytes) if isinstance(value, int)]
    assert all(str(value).encode() in data.lstrip().lstrip(b"0") or value == 0 for value in told)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=200))
def test_arbitrary_bytes_in_mountinfo_find_nothing(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "proc/self").mkdir(parents=True, exist_ok=True)
    (tmp_path / "proc/self/mountinfo").write_bytes(data)
    gaps: list[Gap] = []
    assert read_hierarchy(Host(str(tmp_path)), gaps) is None
    assert gaps

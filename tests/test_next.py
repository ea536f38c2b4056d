"""`reprieve next` as users run it, on captured machines and on this one."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from reprieve.machine.demo import small_cgroup
from reprieve.machine.enclosure import Enclosure
from reprieve.machine.host import Host
from reprieve.machine.observe import observe
from reprieve.model.cgroup import Cgroup
from reprieve.model.machine import Machine
from reprieve.rules import whatif
from tests.conftest import Run
from tests.machine.real import program
from tests.oom.test_living import HOSTS

SYSTEMD = HOSTS / "v2-systemd-252"


@pytest.fixture
def volunteer() -> Iterator[int]:
    """A process of this machine that would die first of all."""
    argv = [program("sh"), "-c", "echo 1000 > /proc/self/oom_score_adj; read line"]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE)
    yield process.pid
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_on_this_machine_the_volunteer_is_foretold_and_the_tool_itself_is_not(volunteer: int) -> None:
    argv = [sys.executable, "-m", "reprieve", "next", "--json", "-v"]
    tool = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    said, _ = tool.communicate()
    first = json.loads(said.splitlines()[0])
    ranked = {row["pid"]: row for row in first["ranking"]}
    assert ranked[volunteer]["oom_score_adj"] == 1000
    ahead = [row for row in first["ranking"] if row["points"] > ranked[volunteer]["points"]]
    assert [row["oom_score_adj"] for row in ahead if row["oom_score_adj"] < 1000] == []
    assert tool.pid not in ranked  # others of its name may run
    assert json.loads(said.splitlines()[-1]) == {
        "kind": "end",
        "version": 1,
        "events": 1,
        "exit_status": tool.returncode,
    }


def test_of_a_captured_machine_the_largest_dies(reprieve: Run) -> None:
    said = reprieve("next", "--from", HOSTS / "v2-mini-6.12")
    assert said.stdout.splitlines()[0] == "Next      hog (pid 167) of /app/web"
    assert said.stderr == ""


def test_what_if_it_weighed_less_had_a_limit_grew_or_were_gone(reprieve: Run) -> None:
    def first(*options: str) -> str:
        return reprieve("next", "--from", SYSTEMD, *options).stdout.splitlines()[0]

    assert "(pid 197) of lab-runner.service" in first()
    assert "systemd-logind (pid 167)" in first("--set", "lab-runner=-500")
    assert "systemd-logind (pid 167)" in first("--without", "197")
    assert "systemd-journal (pid 135)" in first("--grow", "systemd-journal=200M")
    assert "sleep (pid 203) of web.service" in first("--unit", "web", "--limit", "web=1G")


def test_each_kill_is_told_until_enough_is_free(reprieve: Run) -> None:
    said = reprieve("next", "--from", SYSTEMD, "--need", "300K")
    kills = [line for line in said.stdout.splitlines() if " free" in line and line[:5] in ("Need ", "Kills", "     ")]
    assert kills[0].startswith("Need      300 KiB are free after ")
    assert kills[1].startswith("Kills     1. ")
    assert len(kills) > 2
    never = reprieve("next", "--from", SYSTEMD, "--need", "1T").stdout
    all_of_them = r"Short even killing all who can be killed \((\d+) kills\) frees (\S+ MiB) and no more, not 1 TiB; "
    told = re.search(all_of_them + "there are ", " ".join(never.split()))
    assert told is not None
    whole = reprieve("next", "--from", SYSTEMD, "--need", "1T", "-v", COLUMNS="120").stdout.splitlines()
    *_, last = [line for line in whole if re.match(r"          \d+\. ", line)]
    assert last.strip().startswith(f"{told[1]}. ")
    assert last.endswith(f": {told[2]} free")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--unit", "nginx"), "there is no cgroup nginx"),
        (("--cgroup", "/app.slice/none"), "there is no cgroup /app.slice/none"),
        (("--cgroup", "/init.scope"), "has no memory limit"),
        (("--node", "7"), "there is no node 7"),
        (("--node", "x"), "there is no node x"),
        (("--node", "0-99999999999"), "there is no node 0-99999999999"),
        (("nobody-has-this-name",), "there is no process, unit or cgroup nobody-has-this-name"),
        (("99999999",), "there is no process, unit or cgroup 99999999"),
        (("unit:nope",), "no unit nope is seen here that anybody is in"),
        (("--without", "nobody-has-this-name"), "there is no process, unit or cgroup nobody-has-this-name"),
    ],
)
def test_what_is_not_there_is_told_in_two_lines(reprieve: Run, options: tuple[str, ...], said: str) -> None:
    ended = reprieve("next", "--from", SYSTEMD, *options)
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert said in ended.stderr.splitlines()[0]
    assert len(ended.stderr.splitlines()) == 2


@pytest.mark.parametrize(
    "option",
    ["--set=a=1001", "--set=a=000010000", "--set=a=x", "--set=5", "--limit=web=-1", "--need=lots", "--grow==1M"],
)
def test_what_cannot_be_meant_is_refused(reprieve: Run, option: str) -> None:
    assert reprieve("next", option).returncode == 2


def test_a_snapshot_gives_the_same_answer_as_the_machine_it_was_taken_of(reprieve: Run, tmp_path: Path) -> None:
    reprieve("snapshot", "--from", SYSTEMD, "-o", tmp_path / "machine.gz")
    for options in ((), ("-v",), ("--unit", "web"), ("--need", "300K")):
        told = reprieve("next", "--from", tmp_path / "machine.gz", *options).stdout
        seen = reprieve("next", "--from", SYSTEMD, *options).stdout
        assert told.partition("Not seen")[0] == seen.partition("Not seen")[0]


def test_a_file_that_is_no_snapshot_is_a_failure(reprieve: Run, tmp_path: Path) -> None:
    (tmp_path / "odd").write_text("no snapshot")
    for name in ("odd", "absent"):
        ended = reprieve("next", "--from", tmp_path / name)
        assert ended.returncode == 1
        assert len(ended.stderr.splitlines()) == 2


def test_an_unknown_machine_is_a_failure_not_a_healthy_answer(reprieve: Run, tmp_path: Path) -> None:
    ended = reprieve("next", "--from", tmp_path)
    assert ended.returncode == 1
    assert len(ended.stderr.splitlines()) == 2


def test_a_name_of_strangers_does_not_act_in_an_error(reprieve: Run) -> None:
    ended = reprieve("next", "--from", SYSTEMD, "--unit", "\x1b[2Jx")
    assert "\x1b" not in ended.stderr
    assert os.linesep.join(ended.stderr.splitlines()[:1]).endswith(r"\x1b[2Jx")


_GROWING = """
import sys, time
kept = []
input()
while True:
    kept.append(b"x" * (1 << 20))
    time.sleep(0.1)
"""


def test_watched_the_place_that_fills_first_is_told_with_when_and_who_dies_there(reprieve: Run, real_kill: str) -> None:
    argv = [sys.executable, "-S", "-c", _GROWING]
    with small_cgroup(f"reprieve-next-{os.getpid()}", 1 << 30) as group:
        leak = subprocess.Popen(argv, stdin=subprocess.PIPE, text=True)
        try:
            Path(group.folder, "cgroup.procs").write_text(str(leak.pid))
            assert leak.stdin is not None
            leak.stdin.write("\n")
            leak.stdin.flush()
            said = reprieve("next", "--watch", "4")
            rows = [json.loads(line) for line in reprieve("next", "--watch", "4", "--json").stdout.splitlines()]
        finally:
            leak.kill()
            leak.communicate()
    words = " ".join(said.stdout.split())
    assert f"(pid {leak.pid})" in said.stdout.splitlines()[0]
    when = r"[0-9 mins]+ \([0-9 minsto]+( at the soonest)?\)"
    assert re.search(rf"Time left {when} in {group.path}, \+[0-9.]+ (MiB|GiB)/min", words)
    assert f"Where if {group.path} reached its limit now" in words
    assert re.search(rf"left in {group.path}, limit 1 GiB, full in {when}", words)
    look, foretold = rows[0], rows[1]
    (place,) = (place for place in look["places"] if (place["cgroup"] or "").endswith(group.path))
    assert (look["kind"], place["verdict"], foretold["kind"]) == ("look", "growing", "prediction")
    assert 0 < place["least_s"] <= place["seconds"] <= place["most_s"]
    assert foretold["cgroup"] == place["cgroup"]
    assert foretold["killed"] == [leak.pid]


def test_growth_counts_in_the_groups_around_it_and_where_one_is_full_the_kill_is_there(reprieve: Run) -> None:
    mini = HOSTS / "v2-mini-6.12"

    def words(*options: str) -> str:
        return " ".join(reprieve("next", "--from", mini, *options).stdout.split())

    fits = words("--grow", "hog=10M")
    assert "Where if memory of the machine ran out now" in fits
    assert "it holds 30.3 MiB" in fits
    nearest = "Nearest 73.8 MiB left in /app/web, limit 40 MiB, 64 MiB of it in swap; 205 MiB left in the machine"
    assert nearest in fits  # nobody is in /app/batch, and all of /app is in /app/web, which is full before
    cut = words("--grow", "hog=100M")  # 19.8 MiB to the limit, 64 MiB of swap
    assert cut.startswith("Next hog (pid 167) of /app/web Grows hog (pid 167) takes 83.8 MiB of the 100 MiB: then")
    assert (
        "/app/web is full, at its limit of 40 MiB and its swap used up Where if /app/web reached its limit now" in cut
    )
    assert "it holds 104 MiB, 100 % of that" in cut
    whole = words("--grow", "sh=100G")
    assert "of the 100 GiB: then memory of the machine and its swap is used up Where if memory of the machine" in whole
    asked = words("--grow", "hog=100M", "--cgroup", "/app")
    assert "/app/web is full, at its limit of 40 MiB and its swap used up Where if /app reached its limit now" in asked
    rows = [
        json.loads(line)
        for line in reprieve("next", "--from", mini, "--grow", "hog=100M", "--json").stdout.splitlines()
    ]
    assert (rows[0]["cgroup"], rows[0]["killed"]) == ("/app/web", [167])


_HOLDER = """
import sys
kept = [b"x" * (1 << 20) for _ in range(int(sys.argv[1]))]
print("holds", flush=True)
input()
kept += [b"x" * (1 << 20) for _ in range(100)]
"""


@contextmanager
def holders(group: Enclosure, *mib: int) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes in a group that hold so much each, and wait."""
    argv = [sys.executable, "-S", "-c", f"input()\n{_HOLDER}"]
    started = [
        subprocess.Popen([*argv, str(one)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for one in mib
    ]
    try:
        for one in started:
            group.add(one.pid)
            assert one.stdin is not None
            assert one.stdout is not None
            one.stdin.write("\n")
            one.stdin.flush()
            assert one.stdout.readline() == "holds\n"
        yield started
    finally:
        for one in started:
            one.kill()
            one.communicate()


def test_who_dies_of_the_growth_of_another_is_whom_the_kernel_kills(reprieve: Run, real_kill: str) -> None:
    """The larger one dies when the smaller fills the group, long before that had become the larger."""
    with small_cgroup(f"reprieve-grow-{os.getpid()}", 96 << 20) as group, holders(group, 60, 8) as (large, small):
        said = " ".join(reprieve("next", "--grow", f"{small.pid}=100M").stdout.split())
        assert small.stdin is not None
        small.stdin.write("\n")
        small.stdin.flush()
        ended = large.wait(timeout=60)
    assert f"(pid {large.pid})" in said.partition("Grows")[0]
    assert f"(pid {small.pid}) takes " in said
    assert f"of the 100 MiB: then {group.path} is full, at its limit of 96 MiB" in said
    assert f"Where if {group.path} reached its limit now" in said
    assert ended == -signal.SIGKILL


def test_a_limit_below_what_is_held_kills_or_is_refused_as_was_said(reprieve: Run, real_kill: str) -> None:
    with small_cgroup(f"reprieve-limit-{os.getpid()}", 96 << 20) as group, holders(group, 40, 8) as (large, small):
        said = " ".join(reprieve("next", "--limit", f"{group.path}=24M").stdout.split())
        fits = " ".join(reprieve("next", "--limit", f"{group.path}=90M").stdout.split())
        file = "memory.max" if Path(group.folder, "memory.max").exists() else "memory.limit_in_bytes"
        if file == "memory.max":
            Path(group.folder, file).write_text(str(24 << 20))
            assert large.wait(timeout=60) == -signal.SIGKILL
            assert f"(pid {large.pid})" in said.partition("Limit")[0]
            outcome, where = "set to 24 MiB now, it kills at once", group.path
        else:
            with pytest.raises(OSError, match=os.strerror(errno.EBUSY)):
                Path(group.folder, file).write_text(str(24 << 20))
            assert (large.poll(), small.poll()) == (None, None)
            outcome, where = "the kernel refuses 24 MiB (EBUSY)", "memory of the machine"
    assert re.search(rf"Limit {group.path} holds [45]\d(\.\d)? MiB that neither its caches nor swap", said)
    assert outcome in said
    assert f"Where if {where} " in said
    assert "Limit" not in fits


def test_what_another_held_is_free_without_it(real_kill: str) -> None:
    def look(group: Enclosure) -> tuple[Machine, Cgroup]:
        machine = observe(Host(), [], unique_s=0)
        return machine, next(one for one in machine.cgroups if one.path == group.path)

    with small_cgroup(f"reprieve-less-{os.getpid()}", 96 << 20) as group, holders(group, 40, 8) as (large, _):
        machine, before = look(group)
        foretold = next(one for one in whatif.ended(machine, {large.pid}).cgroups if one.path == group.path)
        large.kill()
        large.wait()
        _, after = look(group)
    assert before.current_bytes is not None
    assert foretold.current_bytes is not None
    assert after.current_bytes is not None
    assert before.current_bytes - after.current_bytes > 40 << 20
    # What an interpreter took before it came into the group is charged to where it was.
    assert abs(foretold.current_bytes - after.current_bytes) < 6 << 20


@pytest.mark.parametrize(
    ("name", "where", "asked"),
    [
        ("docker:1a7ea946c825", "if Docker container 1a7ea946c825 reached its limit now", None),
        ("pid:391", "if Docker container 1a7ea946c825 reached its limit now", None),
        ("unit:lab-runner", "if memory of the machine ran out now", "sh (pid 277) would be chosen after 2 others"),
        ("391", "if Docker container 1a7ea946c825 reached its limit now", None),
        ("systemd-logind", "if memory of the machine ran out now", "would be chosen after 1 other"),
        ("pid:1", "if memory of the machine ran out now", "systemd (pid 1): never, as the first process"),
    ],
)
def test_by_name_the_limit_that_it_fills_first_is_where(
    name: str, where: str, asked: str | None, reprieve: Run
) -> None:
    told = " ".join(reprieve("next", name, "--from", HOSTS / "docker-26").stdout.split())
    assert f"Where {where}" in told
    assert ("Asked" in told) == (asked is not None)
    assert asked is None or asked in told


@pytest.fixture
def nested(tmp_path: Path) -> Path:
    """A machine with a process in /app/web, whose limit is above that of /app, in which another is, with less."""
    shutil.copytree(HOSTS / "v2-mini-6.12", tmp_path / "nested")
    app = tmp_path / "nested/sys/fs/cgroup/app"
    for file, told in (("memory.max", f"{30 << 20}"), ("memory.swap.max", "0"), ("cgroup.procs", "163")):
        (app / file).write_text(f"{told}\n")
    (app.parent / "cgroup.procs").write_text("")
    (tmp_path / "nested/proc/163/cgroup").write_text("0::/app\n")
    (tmp_path / "nested/proc/163/oom_score_adj").write_text("1000\n")
    return tmp_path / "nested"


def test_by_name_an_outer_limit_that_is_full_earlier_is_where_as_with_growth(reprieve: Run, nested: Path) -> None:
    def words(*options: str) -> str:
        return " ".join(reprieve("next", "--from", nested, *options).stdout.split())

    where = "Where if /app reached its limit now"
    assert words("hog").startswith(f"Next sh (pid 163) of /app {where}")
    for named in ((), ("hog",)):
        grown = words(*named, "--grow", "hog=50M")
        assert "then /app is full" in grown
        assert where in grown
    for group in (nested / "sys/fs/cgroup/app", nested / "sys/fs/cgroup/app/web"):  # more than there is
        (group / "memory.max").write_text(f"{1 << 40}\n")
    assert "Where if memory of the machine ran out now" in words("hog")


def test_a_limit_that_is_refused_changes_nothing_else(reprieve: Run, tmp_path: Path) -> None:
    host = tmp_path / "host"
    shutil.copytree(HOSTS / "v1-mini-6.1", host)
    (host / "proc/sys/vm/swappiness").write_text("0\n")
    for file in host.glob("sys/fs/cgroup/memory/**/memory.swappiness"):
        file.write_text("0\n")
    plain = reprieve("next", "--from", host).stdout
    said = reprieve("next", "--from", host, "--limit", "app=1M").stdout
    assert "the kernel refuses 1 MiB (EBUSY)" in " ".join(said.split())
    assert said.partition("\nNearest")[2] == plain.partition("\nNearest")[2] != ""
    lines = reprieve("next", "--from", host, "--limit", "app=1M", "--json").stdout.splitlines()
    row = next(row for row in map(json.loads, lines) if row["kind"] == "outlook")
    assert [(one["cgroup"], one["refused"]) for one in row["lowered"]] == [("/app", True)]
    assert 1 << 20 not in [one["limit_bytes"] for one in row["nearest"]]


def test_nodes_beside_a_cgroup_are_refused_and_all_nodes_are_the_machine(reprieve: Run) -> None:
    said = reprieve("next", "--from", HOSTS / "v2-mini-6.12", "--node", "0", "--cgroup", "app")
    assert (said.returncode, said.stdout) == (2, "")
    assert "the OOM of a memory cgroup knows no nodes" in said.stderr
    numa = HOSTS / "numa-mini-7"
    assert reprieve("next", "--from", numa, "--node", "0-1").stdout == reprieve("next", "--from", numa).stdout
    one = " ".join(reprieve("next", "--from", numa, "--node", "1").stdout.split())
    assert "Where if memory of node 1 ran out now for whom a memory policy keeps to it" in one


def test_where_processes_are_hidden_that_is_told_and_not_that_there_are_none(reprieve: Run, tmp_path: Path) -> None:
    host = tmp_path / "host"
    shutil.copytree(HOSTS / "v2-mini-6.12", host)
    for folder in (host / "proc").iterdir():
        if folder.name.isdecimal():
            shutil.rmtree(folder)
    none = reprieve("next", "--from", host)
    assert (none.returncode, "none were told" in none.stderr) == (1, True)
    (host / "proc/self").mkdir(exist_ok=True)
    (host / "proc/self/mountinfo").write_text("21 1 0:20 / /proc rw - proc proc rw,gid=99,hidepid=invisible\n")
    hidden = reprieve("next", "--from", host)
    assert hidden.returncode == 1
    assert hidden.stderr.splitlines() == [
        "reprieve: no processes are seen (/proc: mounted with hidepid=invisible: processes of others are hidden)",
        "  run it as root",
    ]


def test_that_there_are_more_of_a_name_than_are_listed_is_told(reprieve: Run, tmp_path: Path) -> None:
    host = tmp_path / "host"
    shutil.copytree(HOSTS / "v2-mini-6.12", host)
    for pid in range(9001, 9006):
        shutil.copytree(host / "proc/167", host / f"proc/{pid}")
        (host / f"proc/{pid}/stat").write_text((host / "proc/167/stat").read_text().replace("167 (", f"{pid} (", 1))
        (host / f"proc/{pid}/cgroup").write_text(f"0::/{pid}\n")
    said = reprieve("next", "hog", "--from", host)
    assert said.stderr.splitlines()[1] == "  name one by pid: 167, 9001, 9002, 9003, …"


def test_a_name_beside_another_place_is_refused(reprieve: Run) -> None:
    for option in ("--cgroup", "--node"):
        assert reprieve("next", "unit:web", option, "0").returncode == 2


def test_a_machine_that_was_captured_cannot_be_watched(reprieve: Run) -> None:
    assert reprieve("next", "--watch", "3", "--from", SYSTEMD).returncode == 2


@pytest.mark.parametrize(
    ("host", "spared"),
    [
        ("v2-systemd-252", "Not systemd (pid 1), which holds 7.4 MiB: the first process is never chosen"),
        ("kubelet-1.20", "Not dockerd (pid 300), which holds 101 MiB: its oom_score_adj is -999"),
    ],
)
def test_who_is_spared_is_told_with_his_reason_and_the_figure_of_the_table(
    host: str, spared: str, reprieve: Run
) -> None:
    assert spared in " ".join(reprieve("next", "--from", HOSTS / host).stdout.split())


def test_where_no_container_has_a_name_the_ids_are_told_and_the_start_of_one_is_enough(reprieve: Run) -> None:
    for verb in ("next", "check"):
        said = reprieve(verb, "docker:web", "--from", HOSTS / "docker-26")
        assert said.returncode == 1
        assert (
            "what they are called was not told; by id there is docker:190b8341ceb8, docker:1a7ea946c825," in said.stderr
        )
        assert "reprieve why" not in said.stderr
    found = " ".join(reprieve("next", "docker:1a7e", "--from", HOSTS / "docker-26").stdout.split())
    assert "Where if Docker container 1a7ea946c825 reached its limit now" in found


@pytest.fixture
def full_container(tmp_path: Path) -> Path:
    """A container as it sees itself, captured, with 95 MiB of its 96 MiB taken; the machine has much left."""
    shutil.copytree(HOSTS / "container-nobody-6.12", tmp_path / "container")
    (tmp_path / "container/sys/fs/cgroup/memory.current").write_text(f"{95 << 20}\n")
    return tmp_path / "container"


def test_what_a_container_sees_of_itself_ends_at_its_own_limit(reprieve: Run, full_container: Path) -> None:
    said = " ".join(reprieve("next", "--from", full_container).stdout.split())
    assert "Where if this container reached its limit now, as all that is seen from here is in it" in said
    assert "shares of 96 MiB" in said
    assert re.search(r"Nearest 1\.\d MiB left in this container, limit 96 MiB; \d+ MiB left in the machine", said)
    grown = " ".join(reprieve("next", "--from", full_container, "--grow", "sh=20M").stdout.split())
    assert "then this container is full, at its limit of 96 MiB" in grown
    assert "Nearest 0 B left in this container" in grown
    found = " ".join(reprieve("check", "--from", full_container).stdout.split())
    assert "this container holds 94.1 MiB of the 96 MiB it may" in found
    assert "Raise its limit to 160 MiB, if it needs more: where it is started, outside of what is seen here" in found
    live = reprieve("top", "--once", "--from", full_container).stdout
    assert re.search(r"^Left +1\.\d MiB in this container; \d+ MiB in the machine$", live, re.MULTILINE)


def test_by_name_within_a_container_its_own_limit_concerns_it(reprieve: Run, full_container: Path) -> None:
    sub = full_container / "sys/fs/cgroup/sub"
    sub.mkdir()
    for file, told in (("cgroup.procs", ""), ("memory.current", f"{95 << 20}\n"), ("memory.max", "max\n")):
        (sub / file).write_text(told)
    said = " ".join(reprieve("check", "sub", "--from", full_container, "--only", "group-near-limit").stdout.split())
    assert "/sub holds 95 MiB, no limit of its own" in said
    assert "this container holds 94.1 MiB of the 96 MiB it may" in said


def test_the_root_of_a_machine_has_no_limit_and_of_two_of_a_group_the_last_holds(reprieve: Run) -> None:
    host = HOSTS / "v1-mini-6.1"
    done = reprieve("next", "--from", host, "--limit", "/=100M")
    assert (done.returncode, "the root cgroup holds all of the machine" in done.stderr) == (1, True)
    path = next(one.path for one in observe(Host(str(host)), []).cgroups if one.path != "/")
    last = reprieve("next", "--from", host, "--limit", f"{path}=1G")
    both = reprieve("next", "--from", host, "--limit", f"{path}=1M", "--limit", f"{path}=1G")
    assert both.stdout == last.stdout


def test_a_container_without_a_limit_ends_with_the_machine(reprieve: Run, full_container: Path) -> None:
    (full_container / "sys/fs/cgroup/memory.max").write_text("max\n")
    said = " ".join(reprieve("next", "--from", full_container).stdout.split())
    assert "Where if memory of the machine ran out now" in said
    assert "this container" not in said


def test_of_a_container_the_monitor_is_none_and_its_tasks_meet_the_limit_of_their_own_group(reprieve: Run) -> None:
    podman = HOSTS / "podman-5"
    said = " ".join(reprieve("next", "--from", podman, "podman:1f23463e187a").stdout.split())
    assert said.startswith("Next sleep (pid 432) of Podman container 1f23463e187a of user 1000")
    said = " ".join(reprieve("next", "--from", podman, "podman:826ae4d978ac", "--grow", "334=60M").stdout.split())
    assert "takes 39.8 MiB of the 60 MiB: then Podman container 826ae4d978ac is full, at its limit of 48 MiB" in said
    assert "scores are shares of 48 MiB" in said
    said = " ".join(reprieve("next", "--from", podman).stdout.split())
    assert said.count("left in Podman container 826ae4d978ac") == 1  # all of it is in one group of its own


def test_of_a_unit_or_a_pod_that_is_not_there_those_are_told_that_are(reprieve: Run) -> None:
    podman = HOSTS / "podman-5"
    assert "there is systemd-oomd.service" in reprieve("next", "--from", podman, "unit:systemd-oom.service").stderr
    assert "none at all is seen" in reprieve("next", "--from", podman, "pod:web").stderr


def test_what_is_too_short_to_be_told_from_is_refused_before_it_is_watched(reprieve: Run) -> None:
    for seconds in ("0.5", "2", "2.4"):
        done = reprieve("next", "--watch", seconds, "--cgroup", "/nowhere")  # of which the first look would tell
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.splitlines()[1] == "  --watch 2.5, or longer"
    assert reprieve("next", "--watch", "2.5").stdout.startswith("Next ")

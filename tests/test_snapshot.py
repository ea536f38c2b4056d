"""`reprieve snapshot`: a machine in a file, and what is told of it."""

import gzip
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from reprieve.codec import DOCUMENT_BYTES, pack, unpack
from reprieve.machine.host import Host
from reprieve.machine.observe import observe
from reprieve.model.machine import Machine
from reprieve.model.oom import OomReport, Stamp
from reprieve.model.snapshot import Snapshot
from reprieve.rules import diagnose
from reprieve.show.answer import when
from reprieve.snapshot import REPORTS, dated_by_machine, take
from tests.conftest import Run
from tests.logs_of import LOGS
from tests.machine.real import missing, program
from tests.test_why import on_a_terminal

HOSTS = Path(__file__).parent / "hosts"
WHOLE = HOSTS / "v2-systemd-252"
MYSQLD = LOGS / "084-ubuntu1404-mysqld-python-3.13.log"
SECRET = "open-sesame-4711"


def read(path: Path) -> tuple[Snapshot, Machine]:
    snapshot = unpack(path.read_bytes())
    assert snapshot.machine is not None
    return snapshot, snapshot.machine


@pytest.fixture
def sleeper() -> Iterator[int]:
    """A process that was called with a secret, and knows another."""
    argv = [program("sh"), "-c", "read line", SECRET]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, env={"PASSWORD": SECRET})
    yield process.pid
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.fixture
def captured(tmp_path: Path) -> Path:
    """A captured machine with a log of a kill beside it: it is made up from here."""
    root = tmp_path / "made-up-with-a-log"
    shutil.copytree(WHOLE, root)
    (root / "var/log").mkdir(parents=True)
    shutil.copy(MYSQLD, root / "var/log/kern.log")
    return root


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_without_a_file_to_write_it_does_nothing(reprieve: Run) -> None:
    assert reprieve("snapshot").returncode == 2


def test_a_folder_that_is_no_machine_is_refused_and_nothing_is_written(reprieve: Run, tmp_path: Path) -> None:
    done = reprieve("snapshot", "--from", tmp_path, "-o", "file")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        f"reprieve: {tmp_path} holds neither proc nor sys",
        "  name the root of a captured machine",
    ]
    assert not (tmp_path / "file").exists()


def test_a_place_that_cannot_be_written_is_refused(reprieve: Run) -> None:
    done = reprieve("snapshot", "--from", WHOLE, "-o", "/dev/full")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("reprieve: /dev/full: No space left on device\n")


def test_what_was_there_stays_whole_until_the_new_one_is(tmp_path: Path) -> None:
    dear = pack(Snapshot()) + b"dear to somebody"
    (tmp_path / "file").write_bytes(dear)
    script = (
        "import resource, signal, sys; from reprieve.snapshot import perform\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))\n"
        "perform(output='file', root=sys.argv[1])"
    )
    argv = [sys.executable, "-c", script, str(WHOLE)]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True)
    assert "file: File too large" in done.stderr
    assert (tmp_path / "file").read_bytes() == dear
    assert os.listdir(tmp_path) == ["file"]


def test_a_link_is_not_followed(reprieve: Run, tmp_path: Path) -> None:
    (tmp_path / "target").write_text("of somebody else")
    for name, target in (("link", "target"), ("dangling", "absent")):
        (tmp_path / name).symlink_to(target)
        done = reprieve("snapshot", "--from", WHOLE, "-o", name)
        assert (done.returncode, done.stdout) == (1, "")
        assert f"{name} is a link" in done.stderr
    assert (tmp_path / "target").read_text() == "of somebody else"
    assert not (tmp_path / "absent").exists()


def test_a_terminal_is_not_written_to() -> None:
    assert "a snapshot is no text for a terminal" in on_a_terminal("snapshot", "-o", "-")


# -- what is written ---------------------------------------------------------------------------------------------------


def test_this_machine_is_in_it_and_no_command_line_and_no_environment(
    reprieve: Run, tmp_path: Path, sleeper: int
) -> None:
    done = reprieve("snapshot", "-o", "file")
    snapshot, machine = read(tmp_path / "file")
    assert done.stderr == ""
    first, *unseen = done.stdout.splitlines()
    assert first.startswith(f"written: file: {len(machine.processes)} processes, {len(machine.cgroups)} cgroup")
    assert all(line.startswith("not seen: ") for line in unseen)
    assert done.returncode == (5 if unseen else 0)
    assert "sh" in {process.comm for process in machine.processes if process.pid == sleeper}
    assert SECRET.encode() not in gzip.decompress((tmp_path / "file").read_bytes())
    assert len(snapshot.ooms) <= REPORTS


def test_the_tool_itself_is_not_in_it_nobody_foretells_its_end(reprieve: Run, tmp_path: Path) -> None:
    reprieve("snapshot", "-o", "file")
    machine = unpack((tmp_path / "file").read_bytes()).machine
    assert machine is not None
    assert os.getpid() in {process.pid for process in machine.processes}
    ours = [process for process in machine.processes if process.ppid == os.getpid()]
    assert [process.comm for process in ours if process.oom_score_adj == 1000] == []


def test_what_the_kernel_does_not_tell_everybody_only_the_owner_may_read(reprieve: Run, tmp_path: Path) -> None:
    (tmp_path / "there").write_bytes(pack(Snapshot()) + b"x" * 1_000_000)  # an older one, larger
    (tmp_path / "there").chmod(0o644)
    for name in ("new", "there"):
        reprieve("snapshot", "--from", WHOLE, "-o", name)
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
        read(tmp_path / name)


def test_a_pipe_gets_the_document_alone(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "reprieve", "snapshot", "--from", str(WHOLE), "-o", "-"]
    with (tmp_path / "file").open("wb") as file:
        done = subprocess.run(argv, stdout=file, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 5  # it has no logs
    assert done.stderr.startswith("written: -: 11 processes, 8 cgroups, 0 OOM events, ")
    assert json.loads(gzip.decompress((tmp_path / "file").read_bytes()))["kind"] == "snapshot"


@pytest.mark.parametrize("name", sorted(path.name for path in HOSTS.iterdir() if (path / "proc").is_dir()))
def test_a_captured_machine_is_the_same_from_its_tree_and_from_the_document(
    reprieve: Run, tmp_path: Path, name: str
) -> None:
    reprieve("snapshot", "--from", HOSTS / name, "-o", "file")
    _, machine = read(tmp_path / "file")
    assert machine == observe(Host(str(HOSTS / name)), [])
    reprieve("snapshot", "--from", HOSTS / name, "-o", "again")
    assert (tmp_path / "file").read_bytes() == (tmp_path / "again").read_bytes()


# -- the kills of its logs ---------------------------------------------------------------------------------------------


def test_findings_are_the_same_from_the_document_as_from_the_machine(
    reprieve: Run, tmp_path: Path, captured: Path
) -> None:
    done = reprieve("snapshot", "--from", captured, "-o", "file")
    assert done.stdout.startswith("written: file: 11 processes, 8 cgroups, 1 OOM event, ")
    assert done.returncode == 0
    snapshot, _ = read(tmp_path / "file")
    assert snapshot == take(str(captured))
    assert next(finding.code for finding in diagnose(snapshot)) == "host-full"
    assert diagnose(snapshot) == diagnose(take(str(captured)))


def test_reports_that_are_too_long_for_the_document_are_told_in_little(
    captured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = captured / "var/log/kern.log"
    text = log.read_text()
    log.write_text("".join(text.replace("[ 21", f"[ {boot}1") for boot in (2, 3, 4)))  # one report again would be one
    whole = take(str(captured))
    assert len(whole.ooms) == len(whole.history) == 3
    most = len(whole.ooms[2].lines) + len(whole.ooms[1].lines)
    monkeypatch.setattr("reprieve.snapshot.LINES", most)
    assert take(str(captured)) == replace(whole, ooms=whole.ooms[1:])
    monkeypatch.setattr("reprieve.snapshot.LINES", 1)
    assert take(str(captured)) == replace(whole, ooms=whole.ooms[2:])


def test_of_an_unpacked_sosreport_what_was_not_collected_is_told(reprieve: Run, tmp_path: Path) -> None:
    report = tmp_path / "made-up-sosreport"
    (report / "sos_commands/kernel").mkdir(parents=True)
    shutil.copy(MYSQLD, report / "sos_commands/kernel/dmesg")
    for path in ("proc/meminfo", "proc/vmstat", "proc/swaps", "proc/self/mountinfo", "etc/machine-id"):
        (report / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(WHOLE / path, report / path)
    shutil.copytree(WHOLE / "sys/fs/cgroup", report / "sys/fs/cgroup")
    done = reprieve("snapshot", "--from", report, "-o", "file")
    snapshot, machine = read(tmp_path / "file")
    assert done.returncode == 5
    assert [gap.place for gap in snapshot.machine_gaps] == ["/proc/zoneinfo", "/proc/sys/vm", "processes"]
    assert snapshot.gaps == ()
    assert len(snapshot.ooms) == 1
    assert len(machine.cgroups) == 8


def test_a_line_that_only_looks_like_a_kill_makes_nothing_incomplete(
    reprieve: Run, tmp_path: Path, captured: Path
) -> None:
    with (captured / "var/log/kern.log").open("a") as log:
        log.write("Nov 24 10:00:00 host evil[7]: Out of memory: Killed process 9 (sshd) total-vm:1kB\n")
    done = reprieve("snapshot", "--from", captured, "-o", "file")
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 1
    (gap,) = read(tmp_path / "file")[0].gaps
    assert (gap.reason, gap.hides) == ("looks like a kill, but a program wrote it", False)
    for verb in ("why", "next", "check"):
        assert reprieve(verb, "--from", "file").returncode == 0


# -- without rights ----------------------------------------------------------------------------------------------------


def test_nobody_sees_what_is_open_to_all_and_is_told_what_is_not(as_nobody: Run, tmp_path: Path) -> None:
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.geteuid() and folder != Path("/") and "pytest" in str(folder):
            folder.chmod(0o777)
    done = as_nobody("snapshot", "--output", tmp_path / "file")
    assert done.returncode == 5, done.stderr
    snapshot, machine = read(tmp_path / "file")
    assert dict(machine.meminfo)["MemTotal"] > 0
    assert {1, os.getpid()} <= {process.pid for process in machine.processes}
    assert next(process for process in machine.processes if process.pid == os.getpid()).rss_bytes
    places = {gap.place: gap for gap in (*snapshot.machine_gaps, *snapshot.gaps)}
    of_others = [gap for place, gap in places.items() if place.endswith("/smaps_rollup")]  # as many as time allowed
    assert {gap.hint for gap in of_others} == {"run it as root"}
    if Path("/proc/sys/kernel/dmesg_restrict").read_text().strip() != "1":
        missing("kernel.dmesg_restrict=1")
    assert "/dev/kmsg" in places


# -- and explained elsewhere -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [(), ("-v",), ("--list",), ("--json",), ("--markdown",), ("--redact",), ("--pid", "3882"), ("--last", "2")],
    ids=" ".join,
)
def test_a_snapshot_is_explained_as_the_logs_it_was_made_of(
    reprieve: Run, captured: Path, options: tuple[str, ...]
) -> None:
    reprieve("snapshot", "--from", captured, "-o", "file")
    of_file, of_logs = reprieve("why", "--from", "file", *options), reprieve("why", captured / "var/log", *options)
    assert "3882" in of_file.stdout or "--redact" in options
    assert (of_file.stdout, of_file.returncode) == (of_logs.stdout, of_logs.returncode)


def test_a_captured_machine_is_explained_as_its_logs(reprieve: Run, captured: Path) -> None:
    of_root, of_logs = reprieve("why", "--from", captured), reprieve("why", captured / "var/log")
    assert (of_root.stdout, of_root.returncode) == (of_logs.stdout, of_logs.returncode)
    assert "3882" in of_root.stdout


def test_a_kill_that_only_its_uptime_dates_has_the_date_of_the_machine_that_told_it() -> None:
    machine = Machine(boot_id="a" * 32, taken_wall_s=1_795_442_922.5, taken_uptime_s=100.0)
    ooms = [OomReport(boot_id=boot, stamp=Stamp(uptime_s=40.0)) for boot in ("a" * 32, "b" * 32, None)]
    dated, other, unproven = dated_by_machine(Snapshot(machine=machine, ooms=tuple(ooms))).ooms
    assert dated.stamp.wall_s == 1_795_442_862.5
    assert when(dated.stamp) == "about 2026-11-23 14:07:42 UTC"
    assert [other, unproven] == ooms[1:]
    assert dated_by_machine(Snapshot(ooms=tuple(ooms))).ooms == tuple(ooms)


def test_what_of_the_machine_could_not_be_seen_hides_no_kill(reprieve: Run, captured: Path) -> None:
    shutil.rmtree(captured / "sys")
    for process in (captured / "proc").glob("[0-9]*"):
        shutil.rmtree(process)
    assert reprieve("snapshot", "--from", captured, "-o", "file").returncode == 5
    assert reprieve("why", "--from", "file").returncode == 0


def test_what_of_the_logs_could_not_be_read_leaves_what_is_known_of_the_machine_whole(
    reprieve: Run, captured: Path
) -> None:
    shutil.rmtree(captured / "var/log")
    assert reprieve("snapshot", "--from", captured, "-o", "file").returncode == 5
    assert reprieve("why", "--from", "file").returncode == 5
    for verb in ("next", "check"):
        of_file, of_root = reprieve(verb, "--from", "file"), reprieve(verb, "--from", captured)
        assert of_root.returncode == 0
        assert (of_file.stdout, of_file.returncode) == (of_root.stdout, of_root.returncode)


def test_a_snapshot_without_a_kill_says_so_and_names_itself(reprieve: Run, tmp_path: Path) -> None:
    root = tmp_path / "made-up-quiet"
    shutil.copytree(WHOLE, root)
    (root / "var/log").mkdir(parents=True)
    (root / "var/log/kern.log").write_text("Jan  1 00:00:00 host kernel: [    1.000000] all is well\n")
    reprieve("snapshot", "--from", root, "-o", "file")
    assert reprieve("why", "--from", "file").stdout == "No OOM kill by the kernel in file.\n"


def test_of_more_kills_than_a_snapshot_holds_whole_the_others_are_told_to_be_missing(
    reprieve: Run, captured: Path
) -> None:
    log = captured / "var/log/kern.log"
    line = "Jan  1 00:00:{0:02} host kernel: [   {0}.000000] Out of memory: Killed process {0} (hog) total-vm:9kB, "
    line += "anon-rss:{0}kB, file-rss:0kB\n"
    log.write_text("".join(line.format(number) for number in range(10, 10 + REPORTS + 3)))
    reprieve("snapshot", "--from", captured, "-o", "file")
    told = reprieve("why", "--from", "file", "--all")
    assert told.returncode == 5
    assert told.stdout.count("Killed    hog") == REPORTS
    assert "3 older events are not whole in it" in told.stdout
    assert len(reprieve("why", "--from", "file", "--list").stdout.splitlines()) == REPORTS + 3
    assert reprieve("why", "--from", "file").returncode == 0


def test_what_is_no_snapshot_is_refused(reprieve: Run, tmp_path: Path) -> None:
    for name in (MYSQLD, tmp_path, "absent"):
        done = reprieve("why", "--from", name)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("reprieve: ")
    assert reprieve("why", "--from", "file", MYSQLD).returncode == 2
    assert reprieve("why", "--from", "file", "--follow").returncode == 2


def test_a_snapshot_named_as_a_log_is_told_and_not_taken_for_a_healthy_one(reprieve: Run, tmp_path: Path) -> None:
    reprieve("snapshot", "--from", Path(__file__).parent / "hosts" / "v2-systemd-252", "-o", tmp_path / "taken.gz")
    ended = reprieve("why", tmp_path / "taken.gz")
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert "name it with --from" in ended.stderr
    assert reprieve("why", "--from", tmp_path / "taken.gz").returncode in (0, 5)


def test_a_reader_that_leaves_a_snapshot_is_no_failure() -> None:
    begun = subprocess.Popen(
        [sys.executable, "-m", "reprieve", "snapshot", "-o", "-"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert begun.stdout is not None
    assert begun.stderr is not None
    begun.stdout.close()
    with begun.stderr:
        said = begun.stderr.read().decode()
    assert begun.wait(60) in (0, 5)
    assert "Broken pipe" not in said
    assert said.startswith("written: -")


# -- through a pipe ----------------------------------------------------------------------------------------------------


def piped(data: bytes, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
    argv = [sys.executable, "-m", "reprieve", *arguments, "--from", "-"]
    return subprocess.run(argv, input=data, capture_output=True, check=False)


@pytest.mark.parametrize("verb", [("why",), ("why", "--list"), ("check",), ("next",), ("top", "--once"), ("top",)])
def test_each_verb_reads_a_snapshot_from_a_pipe(verb: tuple[str, ...], captured: Path, tmp_path: Path) -> None:
    data = subprocess.run(
        [sys.executable, "-m", "reprieve", "snapshot", "-o", "-", "--from", str(captured)],
        capture_output=True,
        check=False,
    ).stdout
    (tmp_path / "s.gz").write_bytes(data)
    argv = [sys.executable, "-m", "reprieve", *verb, "--from", str(tmp_path / "s.gz")]
    of_file = subprocess.run(argv, capture_output=True, stdin=subprocess.DEVNULL, check=False)
    told = piped(data, *verb)
    assert (told.returncode, told.stdout, told.stderr) == (of_file.returncode, of_file.stdout, of_file.stderr)
    assert told.stdout


def test_a_file_called_as_standard_input_is_not_read_for_it(captured: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "s.gz"
    take_it = [sys.executable, "-m", "reprieve", "snapshot", "--from", str(captured), "-o", str(snapshot)]
    subprocess.run(take_it, capture_output=True, check=False)
    argv = [sys.executable, "-m", "reprieve", "check", "--from"]
    (tmp_path / "-").mkdir()
    with snapshot.open("rb") as stdin:
        done = subprocess.run([*argv, "-"], stdin=stdin, capture_output=True, cwd=tmp_path)
    of_file = subprocess.run([*argv, str(snapshot)], stdin=subprocess.DEVNULL, capture_output=True, cwd=tmp_path)
    assert (done.stdout, done.returncode) == (of_file.stdout, of_file.returncode)
    assert done.stdout.startswith(b"Machine ")


def test_what_comes_from_a_pipe_is_no_more_trusted_than_a_file() -> None:
    said = piped(b"no snapshot", "check")
    assert (said.returncode, said.stdout) == (1, b"")
    assert said.stderr.startswith(b"reprieve: stdin: it is no snapshot: not compressed with gzip")
    assert piped(gzip.compress(bytes(DOCUMENT_BYTES + 1)), "check").stderr.startswith(
        b"reprieve: stdin: the snapshot is larger than 64 MiB"
    )
    assert piped(b"", "check").returncode == 1
    assert "stdin is a terminal: no snapshot comes from it" in on_a_terminal("check", "--from", "-")


def test_where_there_is_no_room_to_tell_of_a_snapshot_it_says_so(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        argv = [sys.executable, "-m", "reprieve", "snapshot", "--from", str(WHOLE), "-o", str(tmp_path / "s.gz")]
        done = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("reprieve: the answer could not be written: No space left on device\n")

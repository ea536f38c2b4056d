"""`reprieve why` as it is run: every option, every kind of source, every exit status."""

import bz2
import gzip
import json
import lzma
import os
import pty
import re
import select
import shlex
import signal
import stat
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml

from reprieve.codec import pack
from reprieve.machine.events import summarise
from reprieve.machine.source import BLOCK_BYTES
from reprieve.machine.turned import oldest_first
from reprieve.model.finding import Gap
from reprieve.model.machine import Machine
from reprieve.model.oom import OomReport
from reprieve.model.snapshot import Snapshot
from reprieve.oom.foreign import is_newest_first
from reprieve.oom.report import read_reports
from reprieve.oom.tables import parse_kill
from reprieve.request import Request, as_lost
from tests.conftest import Run
from tests.logs_of import LOGS, text_of
from tests.machine.real import missing, program

MYSQLD = LOGS / "084-ubuntu1404-mysqld-python-3.13.log"
UNIT = LOGS / "lab" / "6.1.0-56-cloud-amd64__systemd-unit-memorymax.txt"
CAPTURES = Path(__file__).parent / "captures"
KILL_LINE = "Out of memory: Killed process 77 (fake) total-vm:1kB, anon-rss:1kB, file-rss:1kB"


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """A log of three kills at known times."""
    path = tmp_path / "kern.log"
    line = "2026-11-{day}T10:00:00+00:00 host kernel: Out of memory: Killed process {pid} ({name}) total-vm:9kB, "
    line += "anon-rss:{rss}kB, file-rss:0kB, shmem-rss:0kB, UID:0 pgtables:1kB oom_score_adj:0\n"
    rows = (("01", 71, "alpha", 8), ("03", 72, "beta", 16), ("05", 73, "gamma", 32))
    path.write_text("".join(line.format(day=day, pid=pid, name=name, rss=rss) for day, pid, name, rss in rows))
    return path


def names(done: "subprocess.CompletedProcess[str]") -> list[str]:
    return re.findall(r"\b(alpha|beta|gamma) \(pid", done.stdout)


# -- what it is for ----------------------------------------------------------------------------------------------------


def test_the_answer_in_the_readme_is_the_answer(reprieve: Run, tmp_path: Path) -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    shown = re.search(r"\$ reprieve why kern\.log +# what it means\n(.+?)```", readme, re.DOTALL)
    assert shown is not None
    (tmp_path / "kern.log").write_bytes(MYSQLD.read_bytes())
    assert reprieve("why", "kern.log").stdout == shown[1]


# -- nothing to say ----------------------------------------------------------------------------------------------------


def test_a_log_without_a_kill_says_so_and_is_no_failure(reprieve: Run, tmp_path: Path) -> None:
    (tmp_path / "quiet.log").write_text("[    1.000000] usb 1-1: new device\n")
    done = reprieve("why", "quiet.log", "--fail-on-kill")
    assert (done.returncode, done.stdout, done.stderr) == (0, "No OOM kill by the kernel in quiet.log.\n", "")


def test_an_empty_input_is_told_and_no_other_machine_is_looked_at_instead(reprieve: Run) -> None:
    for arguments in ((), ("-",), ("--fail-on-kill",), ("--all",)):
        done = reprieve("why", *arguments, stdin="")
        assert done.returncode == 5
        said = "Nothing was read from standard input: whether the kernel killed is not known.\n"
        assert done.stdout.startswith(said)
        assert "stdin: is empty: nothing was read" in done.stdout
        assert "/dev/kmsg" not in done.stdout


def test_an_empty_pipe_is_no_answer_about_this_machine_in_json_either(reprieve: Run) -> None:
    for arguments in ((), ("--list",)):
        done = reprieve("why", "--json", *arguments, stdin="")
        gap, end = map(json.loads, done.stdout.splitlines())
        assert (gap["gap"]["place"], gap["gap"]["hides"]) == ("stdin", True)
        assert (end["events"], end["exit_status"], done.returncode) == (0, 5, 5)


@pytest.mark.parametrize("name", ["empty.log", "empty.log.gz"])
def test_an_empty_file_that_was_named_is_told_and_what_to_do(reprieve: Run, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(gzip.compress(b"") if name.endswith("gz") else b"")
    done = reprieve("why", name, COLUMNS="120")
    assert done.returncode == 5
    assert f"Not seen  {name}: is empty (name its rotations" in done.stdout


def test_what_is_no_text_is_told_and_a_kill_in_it_is_shown(reprieve: Run, tmp_path: Path) -> None:
    (tmp_path / "core").write_bytes(os.urandom(100_000) + b"\n" + MYSQLD.read_bytes())
    for path in (sys.executable, "core"):
        done = reprieve("why", path, COLUMNS="120")
        assert done.returncode == 5
        assert f"{path}: is no text (name a kernel log" in " ".join(done.stdout.split())
        assert done.stdout.startswith("Killed    python (pid 3882)" if path == "core" else "No log could be read")
    piped = run_sh(f"cat {sys.executable} | {sys.executable} -m reprieve why")
    assert (piped.returncode, "stdin: is no text" in piped.stdout) == (5, True)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-8"])
def test_a_text_with_a_byte_order_mark_is_read_as_what_it_is(reprieve: Run, tmp_path: Path, encoding: str) -> None:
    mark = "" if encoding == "utf-16" else "\ufeff"  # Python writes that one itself
    status = (CAPTURES / "docker-inspect-oom-pid1.json").read_text().replace("\n", "\r\n")
    (tmp_path / "status.json").write_bytes((mark + status).encode(encoding))
    (tmp_path / "kern.log").write_bytes((mark + MYSQLD.read_text()).encode(encoding))
    (tmp_path / "kern.log.gz").write_bytes(gzip.compress((tmp_path / "kern.log").read_bytes()))
    assert reprieve("why", "status.json").stdout.startswith("Ended     Docker says that container oom1 lost a process")
    whole = reprieve("why", MYSQLD).stdout.splitlines()[0]
    for name in ("kern.log", "kern.log.gz"):
        done = reprieve("why", name)
        assert (done.returncode, done.stdout.splitlines()[0]) == (0, whole)


def newest_first(text: str) -> str:
    return "".join(reversed(text.splitlines(keepends=True)))


@pytest.mark.parametrize(
    "log", ["lab/6.1.0-56-cloud-amd64__memcg.txt", MYSQLD.name, "088-arch-teamviewerd-chrome-journal-6.0.log"]
)
def test_a_log_that_stands_newest_first_is_read_from_its_end(reprieve: Run, log: str) -> None:
    text = text_of(log)
    usual, turned = reprieve("why", stdin=text), reprieve("why", stdin=newest_first(text))
    note = "its lines stand newest first: they were read from the last to the first"
    assert note in " ".join(turned.stdout.split())
    assert note not in " ".join(usual.stdout.split())
    assert turned.returncode == 0
    assert turned.stdout.split("\n\n")[0] == usual.stdout.split("\n\n")[0]


@pytest.mark.parametrize("beside", [0, 400, 4000])
def test_the_length_of_lines_hides_nothing_of_their_order(beside: int) -> None:
    """Of one second, in an export whose lines carry labels: the head of the table below its rows alone tells."""
    labels = "l" * beside
    head = r"(?m)^\w{3} \d\d \S+ \S+ kernel: \[[^\]]*\] (.*)$"
    lines = re.sub(head, rf"2026-11-23T14:08:22Z host kernel: \1 {labels}", text_of(MYSQLD.name))
    assert lines.count(f" {labels}\n") == 85
    assert is_newest_first(newest_first(lines))
    assert not is_newest_first(lines)
    head_alone = next(line for line in lines.splitlines() if "total_vm" in line)
    row = next(line for line in lines.splitlines() if re.search(r"\] +\d+ +\d+ +\d+", line))
    assert not is_newest_first(f"{lines}{row}\n{head_alone}\nthe next report, cut\n")


def test_a_text_that_is_turned_round_and_cut_gives_no_figure_that_is_cut(reprieve: Run) -> None:
    falling = "".join(f"[  {200 - at}.000001] usb 1-1: new device number {at}\n" for at in range(7))
    done = reprieve("why", stdin=f"{falling}[  100.000001] Out of memory: Killed process 12")  # of 1234
    assert done.returncode == 5
    assert "Killed process 12" not in done.stdout
    whole = reprieve("why", stdin=f"{falling}[  100.000001] Out of memory: Killed process 1234 (app)\n")
    assert whole.stdout.startswith("Killed    app (pid 1234)")


def test_what_a_program_wrote_into_an_export_is_no_word_of_the_kernel_s(reprieve: Run) -> None:
    head = "__CURSOR=s=1\n__REALTIME_TIMESTAMP=1700000000000000\n_BOOT_ID=0123456789abcdef0123456789abcdef\n"
    kernel = f"{head}_TRANSPORT=kernel\nSYSLOG_IDENTIFIER=kernel\nMESSAGE=usb 1-1: reset\n\n"
    said = "our runbook:\nOut of memory: Killed process 77 (app)\n"
    length = struct.pack("<Q", len(said)).decode()
    program = f"{head}_TRANSPORT=stdout\nSYSLOG_IDENTIFIER=app\nMESSAGE\n{length}{said}\n\n"
    assert reprieve("why", stdin=kernel).returncode == 0
    done = reprieve("why", stdin=kernel + program)
    assert (done.returncode, "77" in done.stdout) == (0, False)


@pytest.mark.parametrize("end", ["", "\n", "\n\n"])
def test_a_text_of_several_blocks_is_turned_round_line_by_line(end: str) -> None:
    lines = [f"Nov 23 14:{59 - at // 60 % 60:02}:{59 - at % 60:02} lab sshd[7]: {at}" for at in range(30_000)]
    lines[20_000] += "x" * 2 * BLOCK_BYTES
    lines[25_000] = ""
    data = ("\n".join(lines) + end).encode()
    gaps: list[Gap] = []
    told = b"".join(oldest_first(iter([data[:600_000], data[600_000:]]), "x", gaps))
    first = lines[-1] if end else f"{lines[-1].rpartition(' ')[0]} "  # without an end its last word may be cut
    assert told.decode().splitlines() == [*["" for _ in end[1:]], first, *reversed(lines[:-1])]
    assert [gap.hides for gap in gaps] == [False]


def test_what_is_too_large_to_be_turned_round_is_called_so(reprieve: Run, tmp_path: Path) -> None:
    head, tail = "Nov 23 14:{:02}:{:02} lab sshd[7]: session closed\n", text_of(MYSQLD.name)
    others = "".join(head.format(59 - at // 60 % 60, 59 - at % 60) for at in range(3600)) * 110
    (tmp_path / "export.log").write_text(others + tail)
    done = reprieve("why", "export.log")
    assert "its lines stand newest first, so that no report was read whole" in " ".join(done.stdout.split())
    assert "tac FILE | reprieve why" in " ".join(done.stdout.split())


def test_a_zip_archive_is_called_so_and_what_to_do(reprieve: Run, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "logs.zip", "w") as archive:
        archive.write(MYSQLD, "kern.log")
    done = reprieve("why", "logs.zip", COLUMNS="120")
    assert done.returncode == 5
    assert "logs.zip: is a zip archive (unpack it, and name what was in it)" in " ".join(done.stdout.split())
    assert "holds no line" not in done.stdout


def test_a_log_that_a_crash_damaged_is_a_log(reprieve: Run, tmp_path: Path) -> None:
    (tmp_path / "kern.log").write_bytes(bytes(5000) + b"[ 1.0] usb: caf\xe9\n\0\0\0\x01\x1b[1m[ 2.0] usb\n")
    done = reprieve("why", "kern.log")
    assert (done.returncode, done.stdout) == (0, "No OOM kill by the kernel in kern.log.\n")


def test_a_folder_of_many_logs_is_named_in_one_line(reprieve: Run, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    for number in range(100):
        (tmp_path / "logs" / f"{number}.log").write_text("[ 1.0] usb 1-1: new device\n")
    done = reprieve("why", "logs")
    assert re.fullmatch(r"No OOM kill by the kernel in (logs/\d+\.log,?\s){4}and 96 others\.\n", done.stdout)


_JAVA = """10:00:00 ERROR [main] boom
java.lang.OutOfMemoryError: Java heap space
\tat java.base/java.util.Arrays.copyOf(Arrays.java:3537)
"""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (Path("/etc/passwd").read_text(), "holds no line of a kernel log"),
        (_JAVA, "text.log:2: java.lang.OutOfMemoryError: Java heap space: thrown by the JVM itself"),
        ("./run.sh: line 3: 12345 Killed                  ./hog\n", "text.log:1: Killed: SIGKILL, whoever sent it"),
        ("command terminated with exit code 137\n", "text.log:1: exit code 137: SIGKILL, whoever sent it"),
        ("Process finished with exit code 137 (interrupted by signal 9: SIGKILL)\n", "exit code 137: SIGKILL"),
        ("make: *** [Makefile:12: all] Error 137\n", "text.log:1: Error 137: SIGKILL, whoever sent it"),
        ("worker ended: SIGKILL\n", "text.log:1: SIGKILL: sent by the kernel for memory"),
        ("FATAL ERROR: Reached heap limit Allocation failed - JavaScript heap out of memory\n", "Node.js ended itself"),
        ((CAPTURES / "docker-stats-api-live.json").read_text(), "holds no line of a kernel log"),
        ((CAPTURES / "k8s-node.json").read_text(), "holds no line of a kernel log"),
        ("NAME   READY   STATUS\nweb-6d5f   1/1   Running   0   5m\n", "holds no line of a kernel log"),
        (
            "Nov 23 14:08:41 lab sshd[7]: session closed\n" * 3,
            "holds no line of a kernel log: what it holds, programs wrote",
        ),
        ("127.0.0.1 - - [23/Nov/2026:14:08:41 +0000] GET /kernel: 200\n" * 40_000, "at its beginning or end"),
        ("[    17.042] X.Org X Server 1.21.1\n", "holds no line of a kernel log"),
    ],
)
def test_of_what_is_no_kernel_log_nothing_is_concluded(reprieve: Run, tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "text.log").write_text(text)
    for options in ((), ("--all",), ("--redact",), ("--fail-on-kill",)):
        done = reprieve("why", "text.log", *options, COLUMNS="120")
        assert done.returncode == 5
        assert "No OOM kill" not in done.stdout
        assert "whether the kernel killed is not known" in done.stdout
    assert said in " ".join(reprieve("why", "text.log").stdout.split())
    assert "`journalctl -k` or `dmesg`" in " ".join(reprieve("why", "text.log").stdout.split())


@pytest.mark.parametrize(
    "line",
    [
        "[    1.000000] usb 1-1: new device",
        "<6>[    1.000000] usb 1-1: new device",
        "kern  :info  : [    1.000000] usb 1-1: new device",
        "[Mon Nov 23 14:08:41 2026] usb 1-1: new device",
        "[Nov23 14:08] usb 1-1: new device",
        "[  +0.000003] usb 1-1: new device",
        "2026-11-23T14:08:41,123456+00:00 usb 1-1: new device",
        "Nov 23 14:08:41 lab kernel: usb 1-1: new device",
        "Nov 23 14:08:41 lab kernel: [    1.000000] usb 1-1: new device",
        "2026-11-23T14:08:41.123456+00:00 lab kernel: usb 1-1: new device",
        "<6>1 2026-11-23T14:08:41Z lab kernel - - - usb 1-1: new device",
        "6,339,5140900,-;usb 1-1: new device",
        '{"_TRANSPORT":"kernel","SYSLOG_IDENTIFIER":"kernel","MESSAGE":"usb 1-1: new device"}',
        "_TRANSPORT=kernel\nMESSAGE=usb 1-1: new device",
        "Linux version 6.1.0-56-cloud-amd64 (debian-kernel@lists.debian.org)",
        "Nov 23 14:08:41 lab sshd[7]: session closed\nNov 23 14:08:42 lab kernel: usb 1-1: new device",
    ],
)
def test_a_kernel_log_of_any_form_without_a_kill_says_so(reprieve: Run, tmp_path: Path, line: str) -> None:
    (tmp_path / "quiet.log").write_text(f"{line}\n")
    done = reprieve("why", "quiet.log")
    assert (done.returncode, done.stdout) == (0, "No OOM kill by the kernel in quiet.log.\n")


def test_a_line_of_the_kernel_is_seen_wherever_it_stands_in_a_log_of_two_megabytes(
    reprieve: Run, tmp_path: Path
) -> None:
    noise = "Nov 23 14:08:41 lab sshd[7]: session closed\n" * 20_000
    (tmp_path / "syslog").write_text(f"{noise}Nov 23 14:08:42 lab kernel: usb 1-1: new device\n{noise}")
    assert reprieve("why", "syslog").stdout == "No OOM kill by the kernel in syslog.\n"
    started = "Nov 23 14:08:40 lab systemd[1]: Started Daily apt download activities.\n"  # where the kernel writes too
    for begin, end in (("", "Nov 23 14:08:42 lab kernel: usb 1-1: new device\n"), (started, "")):
        (tmp_path / "syslog").write_text(f"{begin}{noise * 3}{end}")  # too long to be looked at as a whole
        assert reprieve("why", "syslog").stdout == "No OOM kill by the kernel in syslog.\n"


def test_what_is_no_log_in_a_folder_is_no_matter(reprieve: Run, tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "access.log").write_text("GET / 200\n")
    (tmp_path / "log" / "kern.log").write_text("[    1.000000] usb 1-1: new device\n")
    assert reprieve("why", "log").returncode == 0


def test_a_folder_or_an_archive_without_a_kernel_log_proves_nothing(reprieve: Run, tmp_path: Path) -> None:
    folder = tmp_path / "sosreport-lab"
    (folder / "sos_commands").mkdir(parents=True)
    (folder / "var" / "log").mkdir(parents=True)
    (folder / "var" / "log" / "messages").touch()
    (folder / "sos_commands" / "journalctl_--list-boots").write_text("-1 0123456789abcdef\n 0 fedcba9876543210\n")
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "auth.log").write_text("Nov 23 14:08:41 lab sshd[7]: session closed\n")
    os.link(tmp_path / "logs" / "auth.log", tmp_path / "logs" / "again.log")
    (tmp_path / "logs" / "empty.log.gz").write_bytes(gzip.compress(b""))
    subprocess.run(["tar", "czf", "report.tgz", "sosreport-lab"], cwd=tmp_path, check=True)
    for name in ("sosreport-lab", "logs", "report.tgz"):
        for options in ((), ("--all",)):
            done = reprieve("why", name, *options, COLUMNS="120")
            assert done.returncode == 5
            said = f"There is no kernel log in {name}: whether the kernel killed is not known.\n"
            assert done.stdout.startswith(f"{said}Not seen  {name}: holds no line of a kernel log (give")
        gap, end = map(json.loads, reprieve("why", name, "--json").stdout.splitlines())
        assert (gap["gap"]["place"], gap["gap"]["hides"], end["exit_status"]) == (name, True, 5)
    quiet = "No OOM kill by the kernel in kern.log.\n"
    (tmp_path / "kern.log").write_text("[    1.000000] usb 1-1: new device\n")
    told = reprieve("why", "kern.log", "logs", COLUMNS="120")
    assert (told.returncode, told.stdout.startswith(quiet)) == (5, True)


def test_of_a_folder_whose_log_could_not_be_read_nothing_is_concluded(reprieve: Run, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "auth.log").write_text("Nov 23 14:08:41 lab sshd[7]: session closed\n")
    (tmp_path / "logs" / "kern.log.gz").write_bytes(gzip.compress(b"text\n")[:12])
    done = reprieve("why", "logs", COLUMNS="120")
    assert done.returncode == 5
    assert done.stdout.startswith(
        "No log could be read: whether the kernel killed is not known.\nNot seen  logs/kern.log"
    )


def test_what_was_asked_for_and_is_not_there_is_said(reprieve: Run, three: Path) -> None:
    done = reprieve("why", three, "--name", "delta")
    assert done.returncode == 0
    assert done.stdout == "None of the 3 events found is what was asked for; --list alone shows them.\n"
    every = reprieve("why", three, "--name", "delta", "--all").stdout
    assert every == done.stdout
    for options, told in (("--name", "delta"), (0, 3)), (("--name", "alpha"), (1, 2)), ((), (3, 0)):
        for way in ((), ("--all",), ("--list",)):
            end = json.loads(reprieve("why", three, *options, *way, "--json").stdout.splitlines()[-1])
            assert (end["events"], end["not_asked_for"]) == told


def test_a_managers_word_is_not_called_a_log_without_kills(reprieve: Run) -> None:
    done = reprieve("why", LOGS.parent / "captures" / "podman-inspect-oom-child-runc.json")  # killed, and not told
    assert "proves an OOM kill; the kernel log of its host would tell" in " ".join(done.stdout.split())
    assert "No OOM kill" not in done.stdout


# -- which kills -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), ["gamma"]),
        (("--last", "2"), ["beta", "gamma"]),
        (("--all",), ["alpha", "beta", "gamma"]),
        (("--list",), ["alpha", "beta", "gamma"]),
        (("--list", "--since", "2026-11-02"), ["beta", "gamma"]),
        (("--list", "--until", "2026-11-04"), ["alpha", "beta"]),
        (("--all", "--since", "2026-11-02", "--until", "2026-11-04"), ["beta"]),
        (("--all", "--since", "Nov 2 2026", "--until", "4 Nov 2026 12:00"), ["beta"]),
        (("--pid", "71"), ["alpha"]),
        (("--name", "bet"), ["beta"]),
        (("--cgroup", "nginx"), []),
        (("--boot", "0"), ["gamma"]),  # a text does not tell its boot
        (("--all", "--boot", "-1"), ["alpha", "beta", "gamma"]),
    ],
)
def test_the_kills_that_are_asked_for(
    reprieve: Run, three: Path, options: tuple[str, ...], expected: list[str]
) -> None:
    done = reprieve("why", three, *options)
    assert done.returncode == 0
    assert list(dict.fromkeys(names(done))) == expected


def test_a_pid_that_no_kill_bears_may_be_one_of_a_container(reprieve: Run, three: Path) -> None:
    for options in ((), ("--all",), ("--list",)):
        none = reprieve("why", three, "--pid", "7", *options)
        assert "nothing tells which was whose once it has ended" in " ".join((none.stdout + none.stderr).split())
        assert none.returncode == 0
        found = reprieve("why", three, "--pid", "71", *options)
        assert "the host's numbers" not in found.stdout + found.stderr


def test_a_date_without_a_year_is_taken_for_the_latest_and_told_so(reprieve: Run, three: Path) -> None:
    done = reprieve("why", three, "--list", "--since", "May 1 13:00")
    assert re.fullmatch(
        r"reprieve: --since is taken as 20\d\d-05-01 13:00:00, the latest that is past\n.*", done.stderr, re.DOTALL
    )
    refused = reprieve("why", three, "--since", "soon")
    assert refused.returncode == 2
    for form in ("2026-11-23 14:08", "Nov 23 14:08:22", "yesterday 14:08", "2 hours ago", "-90min"):
        assert f"'{form}'" in " ".join(refused.stderr.split())


@pytest.mark.parametrize("options", [(), ("--all",), ("--list",), ("--json",), ("--last", "2")])
def test_an_event_without_a_date_is_told_and_that_it_may_be_of_another_time(
    reprieve: Run, three: Path, options: tuple[str, ...]
) -> None:
    with three.open("a") as log:
        log.write("[ 9.5] Out of memory: Killed process 74 (delta) total-vm:9kB, anon-rss:1kB, file-rss:0kB\n")
    said = "1 event has no date, or none with a year: of another time perhaps"
    asked = reprieve("why", three, *options, "--since", "2026-11-04", "--until", "2026-11-06", COLUMNS="120")
    assert said in asked.stdout + asked.stderr
    assert "--since and --until" in asked.stdout + asked.stderr
    assert "delta" in asked.stdout
    assert asked.returncode == 0  # nothing was left unseen
    assert said not in reprieve("why", three, *options).stdout
    dated = reprieve("why", three, *options, "--since", "2026-11-04", "--name", "gamma")
    assert said not in dated.stdout + dated.stderr


@pytest.mark.parametrize("options", [(), ("--all",), ("--list",), ("--json",)])
def test_an_event_that_tells_no_boot_is_told_and_that_it_may_be_of_another(
    reprieve: Run, three: Path, options: tuple[str, ...]
) -> None:
    asked = reprieve("why", three, *options, "--boot", "-1", "--fail-on-kill", COLUMNS="120")
    assert "gamma" in asked.stdout
    assert "no boot told: of another time perhaps" in asked.stdout + asked.stderr
    assert asked.returncode == 3
    proven = json.dumps({"MESSAGE": KILL_LINE, "_TRANSPORT": "kernel", "_HOSTNAME": "h", "_BOOT_ID": "a" * 32})
    other = reprieve("why", "-", *options, "--boot", "b" * 32, stdin=proven + "\n")
    assert "Killed    fake" not in other.stdout
    assert "no boot told" not in other.stdout + other.stderr


_LOST = Gap(place="kills", reason="9 since boot by the kernel's own count, and the logs that could be read tell of 2")


@pytest.mark.parametrize(
    ("asked", "hides"),
    [
        ({}, False),  # the newest kill is never one of them
        ({"last": 1}, False),
        ({"listed": True}, True),
        ({"every": True}, True),
        ({"last": 3}, True),
        ({"pid": 7}, True),
        ({"name": "x"}, True),
        ({"containers": True}, True),
        ({"boot": "0"}, False),
        ({"boot": "-1"}, None),
        ({"until": 500.0}, None),  # before that boot
        ({"until": 2000.0}, True),
        ({"since": 1600.0}, None),  # the buffer goes further back
        ({"since": 1400.0}, True),
    ],
)
def test_kills_that_are_lost_are_told_as_far_as_they_can_be_what_was_asked_for(
    asked: dict[str, Any], hides: bool | None
) -> None:
    other = Gap(place="x", reason="y")
    left = as_lost(Request(**asked), [_LOST, other], 1000.0, [1500.0, 1900.0])
    assert left[-1] == other
    assert [gap.hides for gap in left[:-1]] == [hides] * (hides is not None)
    nothing = as_lost(Request(), [_LOST], 1000.0, [])
    assert [gap.hides for gap in nothing] == [True]


@pytest.mark.parametrize(
    "line",
    [
        "oom_reaper: reaped process 4242 (java), now anon-rss:0kB, file-rss:0kB, shmem-rss:0kB",
        "Tasks state (memory values in pages):",
        "Memory cgroup out of memory: Killed process 47",
    ],
)
def test_what_is_left_of_a_report_denies_no_kill(reprieve: Run, line: str) -> None:
    log = f"[    1.000000] Linux version 6.1\n[   12.345678] {line}"
    done = reprieve("why", "-", stdin=log)
    assert done.returncode == 5
    assert done.stdout.startswith("Of an OOM kill there is a word in stdin, and no more")
    assert "Note stdin:2: " in " ".join(done.stdout.split())
    program_s = reprieve("why", "-", stdin=f"[    1.000000] Linux version 6.1\nNov 23 14:08:41 lab app[7]: {line}\n")
    assert program_s.returncode == 0


def test_a_list_of_nothing_says_so_beside_the_pipe(reprieve: Run, tmp_path: Path) -> None:
    (tmp_path / "kern.log").write_text("Nov 23 14:08:41 lab kernel: usb 1-1: new device\n")
    done = reprieve("why", "--list", "kern.log")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "reprieve: No OOM kill by the kernel in kern.log.\n"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ((), True),
        (("--name", "swapp"), True),
        (("--since", "2026-11-01", "--until", "2026-11-03"), True),
        (("--name", "nginx"), False),
        (("--until", "2026-11-01"), False),
        (("--pid", "5"), False),
        (("--cgroup", "swapper"), False),
        (("--boot", "0"), True),
    ],
)
def test_a_failed_allocation_is_told_where_it_is_asked_for(
    reprieve: Run, tmp_path: Path, options: tuple[str, ...], told: bool
) -> None:
    line = "2026-11-02T10:00:00+00:00 host kernel: swapper/0: page allocation failure: order:5, mode:0xd0\n"
    (tmp_path / "kern.log").write_text(line)
    for form in ((), ("--all",)):
        assert ("Refused" in reprieve("why", "kern.log", *form, *options).stdout) == told


def test_a_cgroup_is_found_by_its_path_or_by_its_name(reprieve: Run) -> None:
    docker = LOGS / "captures" / "dmesg-docker-oom.txt"
    short = "a37d1f170051"
    assert f"container {short}" in reprieve("why", docker, "--cgroup", short).stdout
    assert "leaky.service" in reprieve("why", UNIT, "--cgroup", "leaky.service").stdout.splitlines()[0]


# -- kinds of source ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packing", ["plain", "gz", "xz", "zst", "bz2"])
def test_a_file_is_read_however_it_is_packed(reprieve: Run, tmp_path: Path, packing: str) -> None:
    text = MYSQLD.read_bytes()
    match packing:
        case "zst":
            text = subprocess.run([program("zstd"), "-c"], input=text, capture_output=True, check=True).stdout
        case "gz":
            text = gzip.compress(text)
        case "xz":
            text = lzma.compress(text)
        case "bz2":
            text = bz2.compress(text)
        case _:
            pass
    path = tmp_path / f"kern.log.{packing}"
    path.write_bytes(text)
    assert reprieve("why", path).stdout.startswith("Killed    python (pid 3882)")


def test_a_pipe_a_dash_a_folder_and_a_file_give_the_same_answer(reprieve: Run, tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    (folder / "kern.log").write_bytes(MYSQLD.read_bytes())
    given = (reprieve("why", folder / "kern.log"), reprieve("why", folder))
    piped = (reprieve("why", stdin=MYSQLD.read_text()), reprieve("why", "-", stdin=MYSQLD.read_text()))
    assert len({done.stdout.partition("Evidence")[0] for done in (*given, *piped)}) == 1


def test_a_file_as_standard_input_is_read_and_dev_null_is_not() -> None:
    why = f"{sys.executable} -m reprieve why"
    assert run_sh(f"{why} < {MYSQLD}").stdout.startswith("Killed    python (pid 3882)")
    assert "stdin" not in run_sh(f"{why} --pid 0 < /dev/null").stdout


def test_a_kill_in_two_sources_is_one_and_both_are_named(reprieve: Run, tmp_path: Path) -> None:
    for name in ("kern.log", "syslog"):
        (tmp_path / name).write_bytes(MYSQLD.read_bytes())
    assert len(reprieve("why", "kern.log", "syslog", "--list").stdout.splitlines()) == 1
    told = reprieve("why", "kern.log", "syslog", "-v", COLUMNS="120").stdout
    (source,) = re.findall(r"^Source +(.+)$", told, re.MULTILINE)
    assert source.startswith(("kern.log:2, also in syslog;", "syslog:2, also in kern.log;"))


def test_a_file_that_is_named_twice_is_read_once(reprieve: Run, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    forms = LOGS / "lab" / "6.1.0-56-cloud-amd64__systemd-journal-formats.out.txt"  # without printk's stamps too
    (tmp_path / "logs" / "kern.log").write_bytes(forms.read_bytes())
    (tmp_path / "link").symlink_to("logs/kern.log")
    once = reprieve("why", "--list", "logs/kern.log").stdout
    assert once
    for arguments in (
        ("logs/kern.log", "logs/kern.log"),
        ("link", "logs/kern.log"),
        ("logs", "link"),
        ("link", "logs"),
    ):
        done = reprieve("why", "--list", *arguments)
        assert (done.returncode, done.stdout) == (0, once)
    (tmp_path / "logs" / "auth.log").write_text("Nov 23 14:08:41 lab sshd[7]: session closed\n")
    assert reprieve("why", "--list", "link", "logs").returncode == 0
    command = f"cd {tmp_path}; {sys.executable} -m reprieve why --list link - < logs/kern.log"
    assert run_sh(command).stdout == once


def test_plain_text_proves_nothing_and_the_kernels_buffer_does(reprieve: Run, real_kill: str) -> None:
    plain = " ".join(reprieve("why", MYSQLD, "-v").stdout.split())
    assert "plain text, nothing proves that the kernel wrote it" in plain
    piped = " ".join(reprieve("why", "-", "-v", stdin=real_kill).stdout.split())
    assert "nothing proves that the kernel wrote it" in piped
    if not os.access("/dev/kmsg", os.R_OK):
        missing("the right to read /dev/kmsg")
    assert "written by the kernel" in reprieve("why", "/dev/kmsg", "-v", "--name", "leaky", COLUMNS="120").stdout


def test_what_a_program_wrote_into_the_kernels_log_is_no_kill_and_is_told_of(reprieve: Run, real_kill: str) -> None:
    record = next(line for line in real_kill.splitlines() if "Killed process" in line)
    faked = re.sub(r"^\d+", "12", record).replace("leaky-demo", "innocent")  # facility 1: user space
    for options in ((), ("--all",), ("--json",), ("--markdown",)):
        done = reprieve("why", "-", *options, stdin=faked + "\n")
        assert done.returncode == 0  # else anybody could make a healthy machine look sick
        assert "looks like a kill, but a program wrote it" in done.stdout
    done = reprieve("why", "-", stdin=faked + "\n")
    assert done.stdout.splitlines() == [
        "No OOM kill by the kernel in stdin.",
        "Note      stdin:1: looks like a kill, but a program wrote it",
    ]


def test_a_line_that_a_program_puts_into_dev_kmsg_is_no_kill(reprieve: Run) -> None:
    if os.geteuid() != 0 or not os.access("/dev/kmsg", os.W_OK):
        missing("the right to write /dev/kmsg")
    name = f"fake{os.getpid()}"
    Path("/dev/kmsg").write_text(
        f"Out of memory: Killed process 77 ({name}) total-vm:1kB, anon-rss:1kB, file-rss:1kB\n"
    )
    done = reprieve("why", "/dev/kmsg", "--name", name, COLUMNS="120")
    assert f"Killed    {name}" not in done.stdout
    assert "a program wrote it" in done.stdout


def test_the_journal_keeps_what_programs_wrote_to_the_kernels_log_apart(reprieve: Run) -> None:
    entry = {"MESSAGE": KILL_LINE, "_TRANSPORT": "kernel", "SYSLOG_FACILITY": "0", "_HOSTNAME": "h"}
    kernel, program_ = json.dumps(entry), json.dumps(entry | {"SYSLOG_FACILITY": "1"})
    assert "Killed    fake (pid 77)" in reprieve("why", "-", stdin=kernel + "\n").stdout
    assert "a program wrote it" in reprieve("why", "-", stdin=program_ + "\n").stdout


def test_without_an_argument_the_kernels_own_log_is_read(reprieve: Run, real_kill: str) -> None:
    if os.geteuid() != 0:
        missing("root")
    record = next(line for line in real_kill.splitlines() if "Killed process" in line)
    kill = parse_kill(record.partition(";")[2])
    assert kill is not None
    done = reprieve("why", "--pid", str(kill.pid), "--boot", "0", "--json")
    event = json.loads(done.stdout.splitlines()[0])
    assert event["report"]["source"] == "/dev/kmsg"
    assert event["report"]["verified"] is True
    assert event["report"]["boot_id"]


def test_a_kill_in_the_kernels_buffer_has_a_date(reprieve: Run, real_kill: str) -> None:
    if not os.access("/dev/kmsg", os.R_OK):
        missing("the right to read /dev/kmsg")
    record = next(line for line in real_kill.splitlines() if "Killed process" in line)
    kill = parse_kill(record.partition(";")[2])
    assert kill is not None
    asked = ("why", "/dev/kmsg", "--list", "--pid", str(kill.pid))
    assert "leaky-demo" in reprieve(*asked, "--since", "1 h ago").stdout
    assert reprieve(*asked, "--until", "1 h ago").stdout == ""


def test_a_kill_of_this_boot_is_told_by_the_clock_and_how_long_ago_it_was(reprieve: Run, real_kill: str) -> None:
    if not os.access("/dev/kmsg", os.R_OK):
        missing("the right to read /dev/kmsg")
    record = next(line for line in real_kill.splitlines() if "Killed process" in line)
    kill = parse_kill(record.partition(";")[2])
    assert kill is not None
    asked = ("why", "/dev/kmsg", "--pid", str(kill.pid))
    (when,) = re.findall(r"^When +(.+)$", reprieve(*asked, "-v").stdout, re.MULTILINE)
    assert re.fullmatch(r"(about )?20\d\d-\d\d-\d\d \d\d:\d\d:\d\d, [\d.]+ (s|min|h)( \d+ (s|min))? ago", when)
    assert re.match(r"(about )?20\d\d-\d\d-\d\d \d\d:\d\d:\d\d  leaky-demo", reprieve(*asked, "--list").stdout)
    stamp = json.loads(reprieve(*asked, "--json").stdout.splitlines()[0])["report"]["stamp"]
    assert stamp["uptime_s"] is not None
    assert "ago" not in stamp["text"]  # a record of it is read at another time
    piped = reprieve("why", "-", "-v", stdin=real_kill).stdout  # of whatever machine and boot
    assert re.search(r"^When .* after boot$", piped, re.MULTILINE)


def test_a_list_of_several_logs_and_hosts_says_which(reprieve: Run, tmp_path: Path) -> None:
    line = "2026-11-0{day}T10:00:00+00:00 {host} kernel: Out of memory: Killed process 7{day} (leak) total-vm:9kB, "
    line += "anon-rss:8kB, file-rss:0kB, shmem-rss:0kB, UID:0 pgtables:1kB oom_score_adj:0\n"
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "a.log").write_text("\n" + line.format(day=1, host="db1"))
    (tmp_path / "logs" / "b.log").write_text(line.format(day=2, host="db2"))
    first, second = reprieve("why", "logs", "--list").stdout.splitlines()
    assert first.split()[-2:] == ["db1", "logs/a.log:2"]
    assert second.split()[-2:] == ["db2", "logs/b.log:1"]
    assert "| db2 | logs/b.log:1 |" in reprieve("why", "logs", "--list", "--markdown").stdout.replace("`", "")
    (alone,) = reprieve("why", "logs/a.log", "--list").stdout.splitlines()
    assert "db1" not in alone
    assert "a.log" not in alone
    redacted = reprieve("why", "logs", "--list", "--redact").stdout
    assert "db1" not in redacted
    assert "a.log" not in redacted


def test_crictl_inspect_is_joined_to_the_report_of_its_container(reprieve: Run) -> None:
    log = CAPTURES / "dmesg-cri-oom.txt"
    told = " ".join(reprieve("why", CAPTURES / "crictl-inspect-oom.json", log).stdout.split())
    assert told.startswith("Killed busybox (pid 8436) of container 9b094a104aa1 of pod 5b0e1a52-")
    assert "-5f2f6d1e7a91 (Burstable), held" in told
    assert "The container runtime says so too: container hog of pod web in namespace shop, OOMKilled" in told
    other = " ".join(reprieve("why", CAPTURES / "crictl-inspect-137-not-oom.json", log).stdout.split())
    assert other.startswith("The one event found is not what was asked for")
    assert "SIGKILL ended container stays of pod web in namespace shop" in other


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("status:\n  containerStatuses:\n  - state:\n      reason: OOMKilled\n", "`kubectl get pod POD -o json`"),
        ("CONTAINER      IMAGE   CREATED   STATE    NAME  ATTEMPT  POD ID   POD\n", "`crictl inspect CONTAINER`"),
        ('{"containers": [{"podSandboxId": "e3", "state": "CONTAINER_EXITED"}]}', "`crictl inspect CONTAINER`"),
    ],
)
def test_of_a_status_that_tells_too_little_it_is_said_what_to_give(reprieve: Run, text: str, said: str) -> None:
    done = reprieve("why", "-", stdin=text)
    assert done.returncode == 5
    assert said in " ".join(done.stdout.split())


def test_the_end_of_a_container_is_told_with_its_time(reprieve: Run) -> None:
    told = reprieve("why", CAPTURES / "docker-inspect-oom-pid1.json").stdout
    assert "That was at 2026-11-23T13:39:03Z." in told
    events = reprieve("why", CAPTURES / "docker-events-oom.jsonl").stdout
    assert "That was at 2026-11-23 13:39:03 UTC." in events
    assert "ran out of memory 4 times" in " ".join(events.split())
    assert "The last was at 2026-11-23 13:39:08 UTC." in events
    assert "That was at Mon, 23 Nov 2026 14:14:42 +0000." in reprieve("why", CAPTURES / "k8s-describe-loop.txt").stdout


def test_a_kill_in_a_journal_of_json_is_told_by_a_date(reprieve: Run) -> None:
    text = "Out of memory: Killed process 77 (leak) total-vm:1kB, anon-rss:1kB, file-rss:1kB"
    entry = {"MESSAGE": text, "_TRANSPORT": "kernel", "__REALTIME_TIMESTAMP": "1795442922044183", "_HOSTNAME": "h"}
    told = reprieve("why", "-", stdin=json.dumps(entry) + "\n").stdout
    assert ", 2026-11-23 14:08:42 UTC" in told.splitlines()[0]


# -- forms of answer ---------------------------------------------------------------------------------------------------


def test_the_first_three_lines_are_who_whose_limit_and_what_now(reprieve: Run) -> None:
    lines = reprieve("why", UNIT).stdout.splitlines()
    assert [line.split("  ")[0].strip() for line in lines[:3]] == ["Killed", "Limit", "What now"]
    assert len(lines) <= 24


def test_lines_fit_eighty_columns_or_what_the_terminal_has(reprieve: Run) -> None:
    for columns in (40, 60, 80, 120):
        for line in reprieve("why", UNIT, COLUMNS=str(columns)).stdout.splitlines():
            assert len(line) <= columns or "$ " in line  # a command is never cut


def test_a_list_fits_the_terminal_and_is_whole_in_a_pipe(reprieve: Run) -> None:
    docker = LOGS / "captures" / "dmesg-docker-oom.txt"
    whole = reprieve("why", docker, "--list", COLUMNS="60").stdout.splitlines()
    assert all("…" not in line for line in whole)
    for columns in (60, 80, 200):
        shown = on_a_terminal("why", str(docker), "--list", "--no-pager", COLUMNS=str(columns), NO_COLOR="1")
        assert all(len(line) <= columns for line in shown.splitlines())
        assert "(pid " in shown


def test_json_is_a_document_a_line_and_says_where_it_ends(reprieve: Run, three: Path) -> None:
    for options, kinds in (
        (("--all",), ["event", "event", "event", "end"]),
        ((), ["event", "end"]),
        (("--list",), ["summary", "summary", "summary", "end"]),
    ):
        done = reprieve("why", three, "--json", *options)
        documents = [json.loads(line) for line in done.stdout.splitlines()]
        assert [document["kind"] for document in documents] == kinds
        assert (documents[-1]["version"], documents[-1]["exit_status"]) == (1, done.returncode)


def test_markdown_and_verbose_say_more(reprieve: Run) -> None:
    assert reprieve("why", UNIT, "--markdown").stdout.startswith("## Out of memory: ")
    assert "Where the memory was" in reprieve("why", UNIT, "-v", "--no-pager").stdout


@pytest.mark.parametrize("options", [(), ("--all",)])
def test_a_log_without_a_kill_is_named_in_markdown_as_code(
    reprieve: Run, tmp_path: Path, options: tuple[str, ...]
) -> None:
    (tmp_path / "[x](evil) @all.log").write_text("Nov 24 10:00:00 host kernel: [    1.000000] all is well\n")
    done = reprieve("why", "[x](evil) @all.log", "--markdown", *options)
    assert done.returncode == 0
    assert done.stdout.startswith("No OOM kill by the kernel in")
    assert "[x]" not in re.sub("`[^`]*`", "", done.stdout)


def test_a_page_holds_every_kill_that_was_asked_for(reprieve: Run, three: Path, tmp_path: Path) -> None:
    done = reprieve("why", three, "--all", "--html", "page.html")
    assert done.stdout == "written: page.html\n"
    page = (tmp_path / "page.html").read_text()
    assert all(name in page for name in ("alpha", "beta", "gamma"))


def test_no_name_is_left_where_redaction_is_asked_for(reprieve: Run, three: Path) -> None:
    for options in ((), ("--list",), ("--all",), ("--json", "--list"), ("--markdown",)):
        said = reprieve("why", three, "--redact", *options).stdout
        assert "process-1" in said
        assert not re.search("alpha|beta|gamma|kern.log", said)


def test_no_name_is_left_of_a_pasted_status_either(reprieve: Run) -> None:
    for name in ("k8s-pod-oomkilled-crashloop.json", "k8s-describe-loop.txt", "docker-inspect-oom-pid1.json"):
        for options in ((), ("--json",), ("--markdown",), ("--list",)):
            said = reprieve("why", CAPTURES / name, "--redact", *options).stdout
            assert not re.search(r"\bhog\b|\bloop\b|\boom1\b|118de893d888|a37d1f170051|4b45ccb6", said)


def test_a_code_is_explained_and_an_unknown_one_refused(reprieve: Run) -> None:
    assert "no-swap" in reprieve("why", "--explain", "no-swap").stdout
    done = reprieve("why", "--explain", "no-such")
    assert done.returncode == 1
    assert "there are " in done.stderr


def test_the_text_of_guides_gives_what_it_holds_and_the_field_that_no_kernel_prints(reprieve: Run) -> None:
    told = reprieve("why", CAPTURES / "guide-snippets.log").stdout
    assert told.startswith("Killed    node (pid 12345) of all users (user.slice), held 1.7 GiB")
    assert "Limit     the whole machine" in told
    assert "phandle:" in told
    (event, _) = reprieve("why", CAPTURES / "guide-snippets.log", "--json").stdout.splitlines()
    report = json.loads(event)["report"]
    assert report["constraint"] == "CONSTRAINT_NONE"
    assert report["kills"][0]["anon_rss_bytes"] == 1800000 * 1024


@pytest.mark.parametrize(
    ("name", "said", "command"),
    [
        ("docker-inspect-oom-pid1.json", "Docker says that container oom1 lost a process", "docker logs"),
        ("podman-inspect-oom-runc.json", "SIGKILL ended container oom-runc", "podman logs"),
        ("k8s-describe-loop.txt", "Kubernetes says that container hog of pod loop", "kubectl get pod loop -n default"),
        ("k8s-pod-oomkilled-never.json", "container hog of pod hog", "--cgroup=e75109daf593"),
        ("ctr-events.txt", "containerd says that container c1", "--cgroup=c1"),
    ],
)
def test_a_pasted_status_is_explained_in_every_form(
    reprieve: Run, tmp_path: Path, name: str, said: str, command: str
) -> None:
    path = CAPTURES / name
    told = reprieve("why", path, COLUMNS="120").stdout
    assert said in told
    assert command in told
    assert command in reprieve("why", path, "--markdown").stdout
    finding = json.loads(reprieve("why", path, "--json").stdout.splitlines()[0])["finding"]
    assert finding["code"] in ("ended-by-oom", "killed-without-proof")
    assert finding["evidence"][0]["source"].endswith(name)
    reprieve("why", path, "--html", "page.html")
    assert command.split(" ")[0] in (tmp_path / "page.html").read_text()
    assert name not in reprieve("why", path, "--redact").stdout
    assert reprieve("why", "-", "--fail-on-kill", stdin=path.read_text()).returncode == (0 if "SIGKILL" in said else 3)


@pytest.mark.parametrize(
    "row",
    [
        "web-6d5f   0/1     OOMKilled          3 (45s ago)   5m",
        "prod   web-6d5f   1/2     OOMKilled   3   5m",
        'f1c2a3   nginx   "sh -c x"   2 days ago   Exited (137) 3 minutes ago   web',
    ],
)
def test_a_row_of_a_table_that_names_a_kill_is_no_proof_that_there_was_none(reprieve: Run, row: str) -> None:
    done = reprieve("why", "-", stdin=f"NAME\n{row}\n")
    assert done.returncode == 5
    assert "No OOM kill" not in done.stdout
    assert "No log could be read" not in done.stdout
    of_memory = "OOMKilled" in row
    assert ("kubectl describe pod" if of_memory else "SIGKILL (137), and not who sent it") in done.stdout
    assert done.stdout.startswith(
        "Of an OOM kill there is a word in stdin" if of_memory else "There is no kernel log in"
    )


@pytest.mark.parametrize(
    ("part", "word"),
    [
        ('            "OOMKilled": true,\n            "ExitCode": 137,\n', '"OOMKilled": true'),
        ("> “OOMKilled”: true,\n", "“OOMKilled”: true"),
        ("        exitCode: 137\n        reason: OOMKilled\n", "reason: OOMKilled"),
        ('  "reason": "OOMKilled",\n', '"reason": "OOMKilled"'),
        ("> Reason: OOMKilled\n> Exit Code: 137\n", "Reason: OOMKilled"),
    ],
)
def test_a_part_of_a_status_is_told_by_its_word_and_not_by_who_else_sends_sigkill(
    reprieve: Run, part: str, word: str
) -> None:
    for options in ((), ("--all",), ("--redact",)):
        done = reprieve("why", "-", *options, stdin=part)
        assert done.returncode == 5
        said = " ".join(done.stdout.split())
        assert said.startswith("Of an OOM kill there is a word in")
        assert "docker stop" not in said
        assert "No OOM kill" not in said
    said = " ".join(reprieve("why", "-", stdin=part).stdout.split())
    assert word in said
    assert "its manager's word that the kernel killed a process of it for memory" in said
    assert "kubectl get pod POD -o json" in said


def test_a_flag_that_is_false_leaves_it_open_who_sent_sigkill(reprieve: Run) -> None:
    done = reprieve("why", "-", stdin='"OOMKilled": false,\n"ExitCode": 137,\n')
    assert done.returncode == 5
    assert done.stdout.startswith("There is no kernel log in stdin")
    assert "docker stop" in done.stdout


def test_yaml_is_explained_as_its_json_is(reprieve: Run) -> None:
    told = json.loads((CAPTURES / "k8s-pod-oomkilled-crashloop.json").read_text())
    done = reprieve("why", "-", stdin=f"$ kubectl get pod -o yaml\n{yaml.safe_dump(told)}")
    assert done.returncode == 0
    assert done.stdout.replace("stdin:2", "stdin:1") == reprieve("why", "-", stdin=json.dumps(told)).stdout


def test_yaml_that_cannot_be_read_is_told_and_what_to_give_instead(reprieve: Run) -> None:
    done = reprieve("why", "-", stdin="status:\n  containerStatuses:\n" + "".join(f" {{{n}: [\n" for n in range(40)))
    assert done.returncode == 5
    said = " ".join(done.stdout.split())
    assert "stdin: is YAML that could not be read (give it as JSON: `kubectl get pod POD -o json`" in said


def test_more_statuses_than_are_read_are_told_of(reprieve: Run) -> None:
    told = json.loads((CAPTURES / "k8s-pod-oomkilled-crashloop.json").read_text())
    one = yaml.safe_dump([told])
    text = "apiVersion: v1\nitems:\n" + one * (3 * 2**20 // len(one)) + "kind: List\n"
    done = reprieve("why", "-", stdin=text)
    assert done.returncode == 5
    assert "holds more statuses than 2 MiB" in " ".join(done.stdout.split())


@pytest.mark.parametrize("row", ["the word OOMKilled in a sentence", "f1c2a3   nginx   Exited (0) 3 hours ago"])
def test_a_row_of_a_table_that_names_no_kill_is_no_kernel_log(reprieve: Run, row: str) -> None:
    done = reprieve("why", "-", stdin=f"NAME\n{row}\n")
    assert done.returncode == 5
    assert done.stdout.startswith("There is no kernel log in stdin: whether the kernel killed is not known.")


@pytest.mark.parametrize("name", ["get-events-liveness.txt", "get-events-wide-liveness.txt", "events-liveness.json"])
def test_events_of_a_failed_probe_are_told_as_what_they_are(reprieve: Run, name: str) -> None:
    done = reprieve("why", "-", stdin=(CAPTURES / f"k8s-{name}").read_text())
    assert done.returncode == 0
    said = " ".join(done.stdout.split())
    assert said.startswith(
        "Nothing in stdin proves an OOM kill; the kernel log of its host would tell. Ended The kubelet"
    )
    assert "as its liveness probe had failed: no OOM kill" in said
    assert "its end is not told" not in said


def test_what_a_kubelet_tells_of_is_a_kill_and_no_proof_of_a_full_node(reprieve: Run) -> None:
    done = reprieve("why", CAPTURES / "k8s-events.json", "--fail-on-kill", COLUMNS="120")
    assert done.returncode == 3
    told = " ".join(done.stdout.split())
    assert "The kubelet of node lab-node tells of 10 kills by the kernel (SystemOOM): hog (pids 11213, 12964" in told
    assert "Told from 2026-11-23T14:11:44Z to 2026-11-23T14:11:46Z; a kubelet that starts tells of all kills" in told
    assert "SystemOOM proves a kill, not that the node was full" in told
    assert "See in the kernel log of node lab-node" in told
    assert "No OOM kill" not in told
    for options in (("--pid", "9254"), ("--name", "hog")):
        assert reprieve("why", CAPTURES / "k8s-events.json", *options, "--fail-on-kill").returncode == 3
    assert reprieve("why", CAPTURES / "k8s-events.json", "--pid", "7", "--fail-on-kill").returncode == 0
    assert "lab-node" not in reprieve("why", CAPTURES / "k8s-events.json", "--redact").stdout


def test_an_eviction_is_named_as_one_and_is_no_kill(reprieve: Run) -> None:
    done = reprieve("why", CAPTURES / "k8s-describe-evicted.txt", "--fail-on-kill", COLUMNS="120")
    assert done.returncode == 0
    told = " ".join(done.stdout.split())
    assert "Kubernetes evicted pod crawler-79f7cbc6cf-rzck9 in namespace prod, as its node was short of memory" in told
    assert "no OOM kill by the kernel" in told
    assert "crawler" not in reprieve("why", CAPTURES / "k8s-describe-evicted.txt", "--redact").stdout


HEALTHY_POD = """\
Name:             web
Namespace:        prod
Node:             lab-node/10.0.0.7
Containers:
  app:
    Container ID:   containerd://0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
    State:          Running
      Started:      Mon, 23 Nov 2026 14:08:22 +0000
    Ready:          True
    Restart Count:  0
    Limits:
      memory:  64Mi
"""


# -- a status and a log, given together --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "log", "killed", "said"),
    [
        (
            "docker-inspect-oom-pid1.json",
            "dmesg-docker-oom.txt",
            "hog (pid 12964) of Docker container a37d1f170051",
            "Docker says so too: container oom1, OOMKilled, exit status 137, ended 2026-11-23T13:39:03",
        ),
        (
            "docker-inspect-oom-restarts.json",
            "dmesg-docker-oom.txt",
            "hog (pid 13875) of Docker container 90725b755351",
            "OOMKilled, exit status 137, restarted 3 times",
        ),
        (
            "podman-inspect-oom-runc.json",
            "dmesg-podman-oom.txt",
            "hog (pid 21518) of Podman container f8730df2cdc8",
            "Podman does not call it one for memory: container oom-runc, OOMKilled is false, exit status 137",
        ),
        (
            "k8s-events.json",
            "dmesg-docker-oom.txt",
            "hog (pid 13875) of Docker container 90725b755351",
            "The kubelet says so too: SystemOOM, node lab-node",
        ),
    ],
)
def test_a_status_and_the_kernels_report_of_it_are_one_kill(
    reprieve: Run, status: str, log: str, killed: str, said: str
) -> None:
    sources = (CAPTURES / status, LOGS / "captures" / log)
    for order in (sources, sources[::-1]):
        told = " ".join(reprieve("why", *order, COLUMNS="120").stdout.split())
        assert told.startswith(f"Killed {killed}")
        assert said in told
    piped = reprieve("why", "-", sources[1], stdin=sources[0].read_text(), COLUMNS="120").stdout
    assert piped.startswith(f"Killed    {killed}")
    piped = reprieve("why", "-", sources[0], stdin=sources[1].read_text(), COLUMNS="120").stdout
    assert piped.startswith(f"Killed    {killed}")
    for options in (("-v",), ("--markdown",), ("--redact",)):
        assert said.split(":")[0] in " ".join(reprieve("why", *sources, *options, COLUMNS="120").stdout.split())


@pytest.mark.parametrize(
    ("status", "log", "killed"),
    [
        ("docker-inspect-oom-pid1.json", "dmesg-docker-oom.txt", "hog (pid 12964) of Docker container a37d1f170051"),
        ("podman-inspect-oom-runc.json", "dmesg-podman-oom.txt", "hog (pid 21518) of Podman container f8730df2cdc8"),
    ],
)
def test_a_status_in_one_text_with_the_log_or_in_one_folder_is_as_two_files(
    reprieve: Run, tmp_path: Path, status: str, log: str, killed: str
) -> None:
    parts = [(CAPTURES / status).read_text(), (LOGS / "captures" / log).read_text()]
    (tmp_path / "case").mkdir()
    for name, text in zip((status, log), parts, strict=True):
        (tmp_path / "case" / name).write_text(text)
    for order in (parts, parts[::-1]):
        (tmp_path / "both").write_text("".join(order))
        for told in (reprieve("why", "both"), reprieve("why", stdin="".join(order)), reprieve("why", "case")):
            assert told.stdout.startswith(f"Killed    {killed}")
            assert "None of the" not in told.stdout
        other = reprieve("why", "both", "--list", "--last", "1").stdout.split("(pid ")[1].partition(")")[0]
        assert f"(pid {other})" in reprieve("why", "both", "--pid", other).stdout
        assert f"(pid {other})" in reprieve("why", f"case/{status}", f"case/{log}", "--pid", other).stdout
        os.utime(tmp_path / "case" / status, (1, 1))  # in the other order


def test_what_a_kubelet_wrote_into_the_kernels_log_asks_for_no_older_kill(reprieve: Run, tmp_path: Path) -> None:
    head = "Nov 23 14:0{minute}:41 lab "
    kill = "kernel: oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg={group},"
    kill += "task_memcg={group},task=leak,pid={pid},uid=0\n"
    kill += f"{head}kernel: Memory cgroup out of memory: Killed process {{pid}} (leak) total-vm:9kB, anon-rss:8kB\n"
    said = 'kubelet[77]: "Event occurred" object="lab" kind="Node" reason="SystemOOM" '
    said += 'message="System OOM encountered, victim process: leak, pid: 5"\n'
    older, newer = ((head + kill).format(minute=at, pid=pid, group=f"/pods/{pid}") for at, pid in ((1, 5), (3, 7)))
    (tmp_path / "messages").write_text(older + head.format(minute=2) + said + newer)
    assert "SystemOOM" in reprieve("why", "messages", "--list").stdout
    assert reprieve("why", "messages").stdout.startswith("Killed    leak (pid 7) of /pods/7")


def test_a_status_whose_kill_is_in_no_log_that_was_given_is_told_so(reprieve: Run) -> None:
    sources = (CAPTURES / "k8s-pod-oomkilled-crashloop.json", LOGS / "captures" / "dmesg-k8s-oom.txt")
    told = " ".join(reprieve("why", *sources, COLUMNS="120").stdout.split())
    assert "None of the 2 kills read with it is this one: that log is of another host or time, or is cut." in told
    assert "says so too" not in told


def test_an_end_without_a_kill_in_the_log_may_not_be_the_oom_killers(reprieve: Run) -> None:
    sources = (CAPTURES / "docker-inspect-137-not-oom.json", LOGS / "captures" / "dmesg-docker-oom.txt")
    told = reprieve("why", *sources, COLUMNS="120").stdout
    assert told.startswith(
        "None of the 7 events found is what was asked for; --list alone shows them.\nEnded     SIGKILL"
    )
    assert "is this one: the OOM killer did not do it, or that log is of another host or time" in " ".join(told.split())


def test_the_status_of_who_is_well_hides_no_kill(reprieve: Run) -> None:
    sources = (CAPTURES / "docker-inspect-live-updated.json", LOGS / "captures" / "dmesg-docker-oom.txt")
    assert re.search("(?m)^Killed ", reprieve("why", *sources).stdout)


def exited(name: str, status: int) -> str:
    (one,) = json.loads((CAPTURES / "docker-inspect-137-not-oom.json").read_text())
    one["State"]["ExitCode"] = status
    return json.dumps([one | {"Name": f"/{name}"}], indent=4)


@pytest.mark.parametrize(
    ("status", "whose"),
    [
        (exited("web", 1), "container web of Docker (exited with status 1)"),
        ((CAPTURES / "docker-inspect-live-updated.json").read_text(), "container live1 of Docker (running)"),
        (HEALTHY_POD, "container app of pod web in namespace prod (Running)"),
    ],
)
def test_a_kill_of_another_than_the_one_whose_status_was_given_is_told_as_such(
    reprieve: Run, status: str, whose: str
) -> None:
    log = LOGS / "captures" / "dmesg-docker-oom.txt"
    told = reprieve("why", "-", log, stdin=status, COLUMNS="200").stdout
    first, empty, rest = told.split("\n", 2)
    assert first == f"None of the 7 kills read is of {whose}: what is told here is of another."
    assert empty == ""
    assert rest.startswith("Killed ")
    for option in ("--markdown", "--json"):
        said = reprieve("why", "-", log, option, stdin=status).stdout
        assert "None of the 7 kills read is of those whose status was given" in said
    redacted = reprieve("why", "-", log, "--redact", stdin=status, COLUMNS="200").stdout
    assert redacted.startswith("None of the 7 kills read is of container container-1 of ")
    assert whose.split()[1] not in re.findall(r"[\w-]+", redacted)


def test_the_kill_of_the_one_whose_status_was_given_is_no_others(reprieve: Run) -> None:
    log = LOGS / "captures" / "dmesg-docker-oom.txt"
    for one in ("docker-inspect-oom-pid1.json", "docker-inspect-oom-child.json"):
        for option in ("-v", "--json", "--markdown"):
            assert "what is told here" not in reprieve("why", CAPTURES / one, log, option).stdout


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (exited("web", 1), "container web of Docker: exited with status 1"),
        (exited("all is well", 0), "container “all is well” of Docker: exited with status 0"),
        ((CAPTURES / "docker-inspect-live-updated.json").read_text(), "container live1 of Docker: running"),
        (HEALTHY_POD, "container app of pod web in namespace prod: Running"),
        ("Id=a.service\nActiveState=active\nResult=success\n", "a.service of systemd: active"),
    ],
)
def test_of_a_status_that_proves_no_kill_it_is_told_whose_it_is(reprieve: Run, status: str, said: str) -> None:
    done = reprieve("why", "-", stdin=status)
    assert done.stdout.splitlines() == [
        "Nothing in stdin proves an OOM kill; the kernel log of its host would tell.",
        said,
    ]
    assert done.returncode == 0
    redacted = reprieve("why", "-", "--redact", stdin=status).stdout
    assert said.partition(":")[0] not in redacted
    assert said.partition(":")[2] in redacted


def test_an_end_that_the_engine_was_asked_for_is_no_oom_kill(reprieve: Run) -> None:
    for events, asked in (("docker-events-oom.jsonl", {"kill1", "live1"}), ("podman-events.jsonl", {"live"})):
        told = " ".join(reprieve("why", CAPTURES / events).stdout.split())
        ended = set(re.findall(r"ended container (\S+) by SIGKILL .{20,60} asked to at that moment: no OOM kill", told))
        assert ended == asked


@pytest.mark.parametrize(
    ("log", "limit"),
    [
        ("103-memcg-docker-gunpowder-gentoo-4.8-a.log", "40 MiB of memory+swap for Docker container 2e088fe462e2"),
        ("136-debian-postgres-head-only-6.16.log", "the machine"),
        ("116-arm32-order1-lowmem-quoted-4.14.log", "the machine"),
    ],
)
def test_a_list_tells_the_limit_that_the_explanation_tells(log: str, limit: str, reprieve: Run) -> None:
    assert reprieve("why", "--list", LOGS / log).stdout.rstrip().endswith(f"  {limit}")


def test_a_date_without_a_year_is_of_each_year_it_can_be_of(reprieve: Run) -> None:
    log = LOGS / "077-centos7-rackspace-mysqld-two-events-3.10.log"
    listed = ("why", "--list", log, "--since", "2017-05-01T14:00")
    within = reprieve(*listed, "--until", "2017-05-01T15:00")
    assert [line[:15] for line in within.stdout.splitlines()] == ["May  1 14:16:00"]
    assert "1 event has no date, or none with a year: of another time perhaps" in within.stderr
    assert reprieve(*listed, "--until", "2017-05-01T14:10").stdout == ""
    since = reprieve(*listed)
    assert len(since.stdout.splitlines()) == 2
    assert "2 events have no date, or none with a year" in since.stderr


def test_until_alone_a_date_without_a_year_is_of_the_nearest(reprieve: Run, tmp_path: Path) -> None:
    kill = "host kernel: Out of memory: Killed process {} (hog) total-vm:9kB, anon-rss:1kB, file-rss:0kB"
    days = ("Nov 28 03:04:00", "Nov 28 03:09:00", "Jan  2 10:00:00")
    (tmp_path / "kern.log").write_text("".join(f"{day} {kill.format(pid)}\n" for pid, day in enumerate(days, 7)))
    for year in (2017, 2025):  # whichever year it was
        listed = reprieve("why", "kern.log", "--list", "--until", f"{year}-11-28 03:05")
        assert [line[:15] for line in listed.stdout.splitlines()] == [days[0]]
        assert "1 event has no date, or none with a year: of another time perhaps" in listed.stderr
        later = reprieve("why", "kern.log", "--list", "--until", f"{year}-02-01")
        assert [line[:15] for line in later.stdout.splitlines()] == [*days]
    assert "None of the 3 events" in reprieve("why", "kern.log", "--until", "2017-10-28", "--name", "x").stdout


def test_a_page_of_no_event_says_so(reprieve: Run, three: Path, tmp_path: Path) -> None:
    (tmp_path / "quiet.log").write_text("[    1.000000] usb 1-1: new device\n")
    (tmp_path / "passwd").write_text("root:x:0:0:root:/root\n")
    for arguments, sentence in (
        (("quiet.log",), "No OOM kill by the kernel in quiet.log."),
        (("passwd",), "There is no kernel log in passwd: whether the kernel killed is not known."),
        ((str(three), "--name", "delta"), "None of the 3 events found is what was asked for"),
    ):
        page = reprieve("why", *arguments, "--html", "-").stdout
        assert f"<p>{sentence}" in page
        assert "<title>Out of memory: no events</title>" in page


def test_a_page_can_go_down_a_pipe(reprieve: Run, tmp_path: Path) -> None:
    page = reprieve("why", "--html", "-", LOGS / "077-centos7-rackspace-mysqld-two-events-3.10.log").stdout
    assert page.startswith("<!doctype html>")
    assert page.rstrip().endswith("</html>")
    assert list(tmp_path.iterdir()) == []


def test_an_answer_of_one_sentence_keeps_to_the_width(reprieve: Run) -> None:
    for source in ("docker-inspect-137-not-oom.json", "docker-stats-api-live.json"):
        told = reprieve("why", CAPTURES / source, COLUMNS="60").stdout
        assert max(map(len, told.splitlines())) <= 60, told


def test_a_pod_is_known_by_its_uid_in_the_path(reprieve: Run, tmp_path: Path) -> None:
    log = (LOGS / "captures" / "dmesg-k8s-oom.txt").read_text()
    pod = json.loads((CAPTURES / "k8s-pod-oomkilled-never.json").read_text())
    pod["metadata"]["uid"] = "9bec9ebe-fa84-4118-934d-82889fb07a6c"  # of the older kill of the two
    pod["status"]["containerStatuses"][0]["state"]["terminated"].pop("containerID")
    pod["status"]["containerStatuses"][0].pop("containerID")
    (tmp_path / "pod.json").write_text(json.dumps(pod))
    (tmp_path / "dmesg.txt").write_text(log)
    told = " ".join(reprieve("why", "pod.json", "dmesg.txt", COLUMNS="120").stdout.split())
    assert re.match(r"Killed hog \(pid \d+\) of container \w+ of pod 9bec9ebe-fa84-4118-934d-82889fb07a6c", told)
    assert "Kubernetes says so too: container hog of pod hog in namespace default, OOMKilled" in told
    assert "Ended" not in told


def test_nothing_is_said_to_grow_where_free_memory_lay_out_of_reach(reprieve: Run) -> None:
    told = reprieve("why", LOGS / "004-i386-highmem-mkfs-wrapped-5.7rc3.log").stdout
    assert "Look at what fills" in told
    assert "watch which process grows" not in told


def test_a_status_that_ended_at_another_time_is_not_what_was_asked_for(reprieve: Run) -> None:
    path = CAPTURES / "docker-inspect-oom-pid1.json"
    assert reprieve("why", path, "--fail-on-kill", "--since", "2000-01-01").returncode == 3
    assert reprieve("why", path, "--fail-on-kill", "--until", "2000-01-01").returncode == 0


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("docker-inspect-oom-pid1.json", ("--name", "web")),
        ("docker-inspect-oom-pid1.json", ("--cgroup", "web")),
        ("docker-inspect-oom-pid1.json", ("--pid", "5")),
        ("k8s-pod-oomkilled-never.json", ("--until", "2000-01-01")),
        ("k8s-pod-oomkilled-never.json", ("--since", "now")),
    ],
)
def test_a_status_of_a_kill_that_is_not_asked_for_is_no_silence(
    reprieve: Run, name: str, options: tuple[str, ...]
) -> None:
    told = reprieve("why", CAPTURES / name, *options).stdout
    assert told.startswith("The one event found is not what was asked for; --list alone shows it.")
    assert "No OOM kill" not in told
    assert "is not what was asked for" in reprieve("why", CAPTURES / name, "--list", *options).stderr


def test_of_many_statuses_that_prove_no_kill_some_are_told(reprieve: Run) -> None:
    for count, last in ((5, "container c4 of Docker: exited with status 1"), (6, "and 1 other"), (9, "and 4 others")):
        statuses = "\n".join(exited(f"c{at}", 1) for at in range(count))
        lines = reprieve("why", "-", stdin=statuses).stdout.splitlines()
        assert (len(lines), lines[-1]) == (min(count, 6) + 1, last)


def test_an_end_without_a_kill_that_is_asked_for_by_name_is_what_was_asked_for(reprieve: Run) -> None:
    told = reprieve("why", CAPTURES / "docker-events-oom.jsonl", "--cgroup", "live1").stdout
    assert told.startswith("Nothing in ")
    assert "Docker ended container live1 by SIGKILL" in told
    assert "not what was asked for" not in told


def test_a_container_is_found_by_its_name(reprieve: Run) -> None:
    for option in ("--name", "--cgroup"):
        for more in ((), ("--list",)):
            done = reprieve("why", CAPTURES / "docker-inspect-oom-pid1.json", option, "oom1", *more)
            assert "container oom1 lost a process" in " ".join(done.stdout.split())
            assert "not what was asked for" not in done.stdout + done.stderr


def test_an_end_that_an_event_and_a_status_tell_is_one(reprieve: Run) -> None:
    events = CAPTURES / "docker-events-oom.jsonl"
    for status in ("docker-inspect-oom-pid1.json", "docker26-inspect-oom.json"):
        (name,) = (one["Name"].removeprefix("/") for one in json.loads((CAPTURES / status).read_text()))
        told = " ".join(reprieve("why", events, CAPTURES / status, "--cgroup", name).stdout.split())
        assert f"container {name}" in told
        assert " times" not in told
    told = " ".join(reprieve("why", events, "--cgroup", "loop1").stdout.split())
    assert "container loop1 ran out of memory 4 times" in told


def test_a_unit_that_systemctl_shows_is_explained(reprieve: Run) -> None:
    told = reprieve("why", LOGS / "lab" / "6.1.0-56-cloud-amd64__systemd-unit-memorymax.out.txt").stdout
    assert "systemd says that leaky.service lost a process for memory" in told
    assert "reprieve why --cgroup=leaky.service" in told


def test_a_hostile_name_in_a_status_acts_nowhere(reprieve: Run, tmp_path: Path) -> None:
    name = "a\x1b[31m\u202e\n<b onclick=x>`$(id)`"
    state = {"Status": "exited", "OOMKilled": True, "ExitCode": 137}
    status = json.dumps([{"Name": name, "Id": "--all;$(id)", "State": state}])
    for options in ((), ("-v",), ("--markdown",), ("--json",)):
        said = reprieve("why", "-", *options, stdin=status).stdout
        assert "OOMKilled" in said
        assert not re.search("[\x1b\u202e]|\n<b", said)
    reprieve("why", "-", "--html", "page.html", stdin=status)
    assert "<b onclick" not in (tmp_path / "page.html").read_text()
    commands = re.findall(r"^ +\$ (.+)$", reprieve("why", "-", stdin=status).stdout, re.MULTILINE)
    assert commands
    for command in commands:
        subprocess.run(["sh", "-n", "-c", command], check=True)
        assert command.count("$(id)") == command.count("'") / 2 or "$(id)" not in command


# -- exit statuses and refusals ----------------------------------------------------------------------------------------


def test_a_kill_found_is_status_3_only_where_that_is_asked_for(reprieve: Run, three: Path) -> None:
    assert reprieve("why", three).returncode == 0
    for options in ((), ("--all",), ("--list",), ("--json",)):
        assert reprieve("why", three, "--fail-on-kill", *options).returncode == 3
    assert reprieve("why", three, "--fail-on-kill", "--pid", "99").returncode == 0


@pytest.mark.parametrize(
    ("log", "status"),
    [
        ("027-memcg-no-killable-elided.log", 0),  # nobody was left to kill
        ("lab/6.1.0-56-cloud-amd64__panic-on-oom.txt", 0),  # the machine was stopped instead
        ("136-debian-postgres-head-only-6.16.log", 3),  # cut before it says who
        ("lab/6.1.0-56-cloud-amd64__memcg.txt", 3),
    ],
)
def test_an_event_in_which_nobody_was_killed_is_shown_and_is_no_kill(reprieve: Run, log: str, status: int) -> None:
    for options in ((), ("--all",), ("--json",), ("--list",)):
        done = reprieve("why", LOGS / log, "--fail-on-kill", *options)
        assert done.returncode == status
        assert done.stdout
        assert "No OOM kill" not in done.stdout
    followed = reprieve("why", "--follow", "--fail-on-kill", stdin=(LOGS / log).read_text())
    assert followed.returncode == status


def test_nothing_that_can_be_read_is_status_1_with_what_to_do(reprieve: Run) -> None:
    done = reprieve("why", "absent.log")
    assert (done.returncode, done.stdout) == (1, "")
    said, hint = done.stderr.splitlines()
    assert said == "reprieve: absent.log: does not exist"
    assert hint.startswith("  name a log")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--no-such",),
        ("--since", "soon"),
        ("--last", "0"),
        ("--all", "--list"),
        ("--json", "--markdown"),
        ("--html", "x", "--follow"),
        ("--since", "2026-11-24", "--until", "2026-11-23"),
    ],
)
def test_what_cannot_be_meant_is_status_2(reprieve: Run, arguments: tuple[str, ...]) -> None:
    done = reprieve("why", MYSQLD, *arguments)
    assert (done.returncode, done.stdout) == (2, "")


def test_a_source_among_others_that_is_not_there_is_status_5_and_told(reprieve: Run) -> None:
    done = reprieve("why", MYSQLD, "absent.log")
    assert done.returncode == 5
    assert done.stdout.startswith("Killed    python (pid 3882)")
    assert "Not seen  absent.log: does not exist" in done.stdout


def test_a_hostile_path_moves_no_cursor_on_standard_error(reprieve: Run) -> None:
    path = "a\x1b[2J\u202e\rb"
    for arguments in ((path,), (path, MYSQLD, "--list"), ("--follow", path)):
        said = reprieve("why", *arguments).stderr
        assert "a\\x1b[2J\\u202e\\x0db: does not exist" in said
        assert not re.search("[\x1b\u202e\r]", said)


@pytest.mark.parametrize(
    "asked",
    [
        ("why", "kern.log", "--html", "kern.log"),
        ("check", "--html", "kern.log"),
        ("snapshot", "-o", "kern.log"),
        ("run", "--report", "kern.log", "--", "true"),
    ],
)
def test_no_answer_is_written_over_what_is_none_of_ours(asked: tuple[str, ...], reprieve: Run, tmp_path: Path) -> None:
    log = tmp_path / "kern.log"
    log.write_bytes(Path(MYSQLD).read_bytes())
    done = reprieve(*asked)
    assert done.returncode == (125 if asked[0] == "run" else 1)
    assert "kern.log is there, and holds something else" in done.stderr
    assert log.read_bytes() == Path(MYSQLD).read_bytes()
    log.write_text("")
    for _ in range(2):  # what is empty, or of ours, is replaced
        assert reprieve(*asked).returncode in (0, 5)
        assert log.stat().st_size > 0


@pytest.mark.parametrize("verb", ["why", "check"])
def test_a_hostile_path_of_a_page_moves_no_cursor(reprieve: Run, tmp_path: Path, verb: str) -> None:
    done = reprieve(verb, *([MYSQLD] if verb == "why" else []), "--html", "a\x1b[2Jb.html")
    assert done.stdout == "written: a\\x1b[2Jb.html\n"
    assert (tmp_path / "a\x1b[2Jb.html").exists()


def test_json_in_one_line_that_is_too_long_to_be_read_whole_is_no_silence(reprieve: Run, tmp_path: Path) -> None:
    kernel = [f"May  2 09:17:40 h kernel: [1.{number:06}] usb 1-1: new device" for number in range(6000)]
    (tmp_path / "a.json").write_text(json.dumps({"hits": {"hits": [{"_source": {"message": one}} for one in kernel]}}))
    done = reprieve("why", "a.json")
    assert done.returncode == 5
    assert "JSON in one line" in done.stdout
    assert "jq -r" in done.stdout


def test_who_may_not_read_a_log_is_told_what_to_do(as_nobody: Run) -> None:
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        closed, opened = Path(folder) / "closed.log", Path(folder) / "open.log"
        for path in (closed, opened):
            path.write_bytes(MYSQLD.read_bytes())
        closed.chmod(0o600)
        done = as_nobody("why", closed)
        assert done.returncode == 1
        ours = shlex.join(("sudo", str(Path(sys.executable).with_name("reprieve")), "why"))
        asked = f"{ours} {closed}"  # a command that is too long to be read is not repeated
        hint = f"run it with sudo: `{asked if len(asked) <= 100 else f'{ours} …'}`, or as its owner"
        assert done.stderr == f"reprieve: {closed}: permission denied\n  {hint}\n"
        for among in ((opened, closed), (folder,)):
            done = as_nobody("why", *among)
            assert done.returncode == 5
            assert done.stdout.startswith("Killed    python (pid 3882)")
            assert "closed.log: permission denied" in " ".join(done.stdout.split())


def test_a_pipe_that_nobody_writes_to_is_told_and_one_that_is_slow_is_waited_for(reprieve: Run, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    done = reprieve("why", pipe)
    assert (done.returncode, "nobody writes to this pipe" in done.stdout) == (5, True)
    writer = os.open(pipe, os.O_RDWR)
    with subprocess.Popen(["sleep", "3"], pass_fds=(writer,)):
        os.close(writer)
        assert "waiting for what is written to it" in on_a_terminal("why", str(pipe), COLUMNS="200")


# -- pipes, terminals, colours -----------------------------------------------------------------------------------------


def run_sh(command: str, **env: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, env=os.environ | env, stdin=subprocess.DEVNULL
    )


def test_a_reader_that_leaves_early_ends_it_quietly() -> None:
    many = f"for i in $(seq 400); do cat {MYSQLD}; done"
    command = f"set -o pipefail; ({many}) | {sys.executable} -m reprieve why - --all --json | head -1 | wc -l"
    done = run_sh(command)
    assert (done.stdout.strip(), done.stderr) == ("1", "")


def test_closed_standard_streams_are_no_crash() -> None:
    why = f"{sys.executable} -m reprieve why"
    done = run_sh(f"{why} {MYSQLD} <&-")
    assert done.stdout.startswith("Killed    python (pid 3882)")
    for verb in (f"why {MYSQLD}", f"why {MYSQLD} --fail-on-kill", "check", "why --help"):
        done = run_sh(f"{sys.executable} -m reprieve {verb} >&-")
        assert done.returncode == 1
        assert " could not be written: Bad file descriptor\n  give it an open standard output\n" in done.stderr
    done = run_sh(f"{why} - <&-")
    assert "Traceback" not in done.stderr
    assert done.returncode == 5
    done = run_sh(f"{why} nowhere.log 2>&-")
    assert (done.returncode, done.stdout) == (1, "")
    assert run_sh(f"{sys.executable} -m reprieve run --quiet -- sh -c 'exit 3' 2>&-").returncode == 3
    done = run_sh(f"{sys.executable} -m reprieve fix protect $$ --adj 500 <&-")
    assert (done.returncode, "nobody is there to ask" in done.stderr) == (1, True)


def test_a_terminal_that_cannot_show_a_bar_is_no_crash() -> None:
    done = run_sh(f"{sys.executable} -m reprieve why {UNIT}", PYTHONIOENCODING="ascii")
    assert done.stdout.startswith("Killed    ")
    assert done.stderr == ""


def on_a_terminal(*arguments: str, **env: str) -> str:
    """What a terminal of 80 columns receives."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update({"TERM": "xterm", "PAGER": "cat", "COLUMNS": "80"} | env)
        os.execv(sys.executable, [sys.executable, "-m", "reprieve", *arguments])
    received = b""
    while select.select([terminal], [], [], 20)[0]:
        try:
            data = os.read(terminal, 65536)
        except OSError:  # EIO: the last who had it open has ended
            break
        if not data:
            break
        received += data
    os.close(terminal)
    os.waitpid(pid, 0)
    return received.decode()


def test_a_terminal_gets_colours_unless_it_says_no() -> None:
    assert "\x1b[1m" in on_a_terminal("why", str(UNIT))
    assert "\x1b" not in on_a_terminal("why", str(UNIT), NO_COLOR="1")
    assert "\x1b" not in on_a_terminal("why", str(UNIT), TERM="dumb")


def test_long_output_goes_through_the_pager_unless_told_otherwise() -> None:
    assert "through" in on_a_terminal("why", str(UNIT), "-v", PAGER="echo through; cat")
    assert "through" not in on_a_terminal("why", str(UNIT), "-v", "--no-pager", PAGER="echo through; cat")
    assert "through" not in on_a_terminal("why", str(UNIT), PAGER="echo through; cat")


# -- following ---------------------------------------------------------------------------------------------------------


class Following:
    """`reprieve why --follow` while it runs."""

    def __init__(
        self, *arguments: str | Path, under: tuple[str, ...] = (), env: Mapping[str, str] | None = None
    ) -> None:
        argv = [*under, sys.executable, "-u", "-m", "reprieve", "why", "--follow", *map(str, arguments)]
        self.process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env=os.environ | dict(env or {}),
        )

    def until(self, word: str, repeat: object = None) -> str:
        """All output up to the line with that word; `repeat` is called meanwhile, four times a second."""
        assert self.process.stdout is not None
        received = b""
        end = time.monotonic() + 60
        while time.monotonic() < end and word.encode() not in received:
            if select.select([self.process.stdout], [], [], 0.25)[0]:
                received += os.read(self.process.stdout.fileno(), 65536)
            elif callable(repeat):
                repeat()
        return received.decode()

    def stop(self) -> tuple[int, str, str]:
        self.process.send_signal(signal.SIGINT)
        out, err = self.process.communicate(timeout=30)
        return self.process.returncode, out.decode(), err.decode()


def test_each_kill_is_explained_as_a_log_grows_and_ctrl_c_ends_it_quietly(tmp_path: Path) -> None:
    path = tmp_path / "kern.log"
    path.write_text(text_of("084"))  # what was there before is not told again
    following = Following(path, "--json")
    kills = iter(range(100, 1000))

    def grow() -> None:
        with path.open("a") as log:
            log.write(f"[ 9.5] Out of memory: Killed process {next(kills)} (new) total-vm:9kB, anon-rss:1kB\n")

    first = json.loads(following.until("\n", grow).splitlines()[0])
    assert first["kind"] == "event"
    assert first["report"]["kills"][0]["comm"] == "new"
    assert first["report"]["source"] == f"{path} (new lines)"
    status, rest, errors = following.stop()
    assert (status, errors) == (0, "")
    assert json.loads(rest.splitlines()[-1])["kind"] == "end"


def test_on_a_terminal_it_is_said_at_once_that_it_waits_though_the_log_is_never_silent(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    held = os.open(path, os.O_RDWR)
    ours, theirs = os.openpty()
    argv = [sys.executable, "-u", "-m", "reprieve", "why", "--follow", str(path)]
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)

        def until(word: bytes) -> bytes:
            said, end = b"", time.monotonic() + 60
            while word not in said and time.monotonic() < end:
                os.write(held, b"[ 1.0] eth0: link is up\n")
                if select.select([ours], [], [], 0.1)[0]:
                    said += os.read(ours, 65536)
            return said

        try:
            assert until(b"ends it.").strip() == b"Waiting for kills; Ctrl-C ends it."
            os.write(held, b"[ 9.5] Out of memory: Killed process 7 (new) total-vm:9kB, anon-rss:1kB\n")
            assert b"Waiting" not in until(b"new (pid 7)")
        finally:
            process.kill()
            os.close(held)
            os.close(ours)


def test_who_may_hear_nothing_is_refused_at_once_with_what_to_do(as_nobody: Run) -> None:
    if Path("/proc/sys/kernel/dmesg_restrict").read_text().strip() == "0":
        missing("kernel.dmesg_restrict")
    if not os.access("/dev/kmsg", os.F_OK):
        missing("/dev/kmsg")
    refused = as_nobody("why", "--follow")
    assert refused.returncode == 1
    assert refused.stderr.startswith("reprieve: /dev/kmsg: only root may read the kernel log here; journal")
    assert refused.stderr.splitlines()[1].startswith("  run it with sudo")


def test_what_managers_say_of_ends_is_listed_in_a_line_each(reprieve: Run, tmp_path: Path) -> None:
    names = ("docker-inspect-oom-pid1.json", "docker-inspect-137-not-oom.json", "crictl-inspect-oom.json")
    for name in (*names, "dmesg-cri-oom.txt"):
        (tmp_path / name).write_bytes((CAPTURES / name).read_bytes())
    first, *ends = reprieve("why", tmp_path, "--list").stdout.splitlines()
    assert "busybox (pid 8436)" in first
    by_source = {Path(line.split()[-1].rpartition(":")[0]).name: line for line in ends}
    assert by_source.keys() == set(names)
    assert by_source[names[0]].startswith(
        "2026-11-23T13:39:03.283790698Z  Docker says that container oom1 lost a process"
    )
    assert "SIGKILL ended container kill1" in by_source[names[1]]
    (alone,) = reprieve("why", tmp_path / names[0], "--list").stdout.splitlines()
    assert alone.endswith(" lost a process for memory (OOMKilled)")
    shown = on_a_terminal("why", str(tmp_path), "--list", "--no-pager", COLUMNS="80", NO_COLOR="1").splitlines()
    assert len(shown) == 1 + len(names)
    assert max(map(len, shown)) <= 80
    table = reprieve("why", tmp_path, "--list", "--markdown").stdout
    assert "| When | Ended | Told in |" in table
    assert sum(line.startswith("| 2026-11-") for line in table.splitlines()) == len(names)
    kinds = [json.loads(line)["kind"] for line in reprieve("why", tmp_path, "--list", "--json").stdout.splitlines()]
    assert kinds.count("summary") == 1
    assert kinds[-1] == "end"


def _inspected(name: str, minute: int, *, oom: bool = True, code: int = 137) -> dict[str, object]:
    """As `docker inspect` tells of a container that has ended."""
    finished = f"2026-11-23T{minute // 60:02}:{minute % 60:02}:00Z"
    state = {"Status": "exited", "Running": False, "OOMKilled": oom, "ExitCode": code, "FinishedAt": finished}
    return {"Name": f"/{name}", "Id": name.ljust(64, "0"), "State": state}


def _event(name: str, minute: int, action: str, **told: str) -> str:
    """As `docker events --format json` tells of it."""
    about = {"ID": name.ljust(64, "0"), "Attributes": {"name": name, **told}}
    at = int(datetime(2026, 11, 23, minute // 60, minute % 60, tzinfo=UTC).timestamp())
    return json.dumps({"Type": "container", "Action": action, "Actor": about, "time": at}) + "\n"


def _pod(name: str, at: str) -> dict[str, object]:
    """As `kubectl get pods -o json` has it, without an id."""
    end = {"reason": "OOMKilled", "exitCode": 137, "finishedAt": at}
    status = {"containerStatuses": [{"name": "app", "restartCount": 0, "state": {"terminated": end}}]}
    return {"metadata": {"name": name, "namespace": name[-1]}, "status": status}


@pytest.mark.parametrize("form", [(), ("--markdown",)], ids=["text", "markdown"])
def test_each_end_is_listed_with_its_own_time(reprieve: Run, form: tuple[str, ...]) -> None:
    def listed(text: str) -> list[str]:
        lines = reprieve("why", "--list", *form, stdin=text).stdout.splitlines()
        return [line.removeprefix("| ") for line in lines if re.match(r"(\| )?(20\d\d-|Nov )", line)]

    containers = json.dumps([_inspected("one", 660), _inspected("two", 720)])
    pods = json.dumps({"items": [_pod("db-a", "2026-11-23T11:00:00Z"), _pod("db-b", "2026-11-23T12:00:00Z")]})
    for text, names in ((containers, ("one", "two")), (pods, ("db-a", "db-b"))):
        first, second = listed(text)
        assert first.startswith("2026-11-23T11:00:00Z")
        assert second.startswith("2026-11-23T12:00:00Z")
        assert names[0] in first
        assert names[1] in second
    unit = "Nov 23 11:0{}:00 lab systemd[1]: nginx.service: A process of this unit has been killed by the OOM killer.\n"
    first, second = listed(unit.format(1) + unit.format(2))
    assert (first[:12], second[:12]) == ("Nov 23 11:01", "Nov 23 11:02")
    assert "times" not in first + second


def test_an_end_that_several_tell_of_is_listed_once_as_what_it_is(reprieve: Run) -> None:
    def listed(*texts: str) -> list[str]:
        return reprieve("why", "--list", stdin="\n".join(texts)).stdout.splitlines()

    died = _event("one", 660, "die", exitCode="137")
    by_oom = _event("one", 660, "oom") + died
    assert len(listed(by_oom)) == len(listed(by_oom, json.dumps([_inspected("one", 660)]))) == 1
    (alone,) = listed(by_oom, json.dumps([_inspected("one", 660, oom=False)]))
    assert "ran out of memory" in alone
    later = _event("one", 720, "die", exitCode="137")
    first, second = listed(by_oom + later)  # another end of the same container
    assert "ran out of memory" in first
    assert "nothing here proves that memory was the reason" in second
    (killed,) = listed(died + _event("one", 720, "die", exitCode="0"))  # which ended well after that
    assert "SIGKILL ended container one" in killed


def test_only_what_is_asked_for_is_explained_while_following(tmp_path: Path) -> None:
    path = tmp_path / "kern.log"
    path.touch()
    following = Following(path, "--name", "wanted")

    def grow() -> None:
        with path.open("a") as log:
            for pid, comm in enumerate(("other", "wanted", "other", "wanted"), 10):
                log.write(f"[ 9.5] Out of memory: Killed process {pid} ({comm}) total-vm:9kB, anon-rss:1kB\n")

    said = following.until("wanted (pid", grow) + following.stop()[1]
    assert "wanted (pid" in said
    assert "Killed    other (pid" not in said


def test_a_pipe_is_followed_to_its_end(reprieve: Run) -> None:
    done = reprieve("why", "--follow", "-", "--fail-on-kill", stdin=text_of("077"))
    assert done.returncode == 3
    assert len(re.findall(r"^Killed ", done.stdout, re.MULTILINE)) == 2


@pytest.mark.parametrize("packing", ["gzip", "xz"])
def test_what_is_compressed_is_not_followed_and_it_is_said_what_to_do(
    reprieve: Run, tmp_path: Path, packing: str
) -> None:
    packed = (gzip if packing == "gzip" else lzma).compress(MYSQLD.read_bytes())
    (tmp_path / "log").write_bytes(packed)
    piped = run_sh(f"{sys.executable} -m reprieve why --follow - < {tmp_path / 'log'}")
    for name, done in (("log", reprieve("why", "--follow", "log")), ("stdin", piped)):
        assert (done.returncode, done.stdout) == (1, "")
        said = f"reprieve: {name}: is compressed ({packing}), and no log that grows\n  leave out --follow\n"
        assert done.stderr == said


def test_a_journal_file_is_not_followed_and_it_is_said_what_to_do(reprieve: Run, tmp_path: Path) -> None:
    (tmp_path / "system.journal").write_bytes(b"LPKSHHRH" + bytes(4096))
    done = reprieve("why", "--follow", "system.journal")
    assert (done.returncode, "journalctl -kf | reprieve why --follow -" in done.stderr) == (1, True)


@pytest.mark.parametrize(
    ("text", "said", "status"),
    [
        ("", "Nothing was read from standard input: whether the kernel killed is not known.", 5),
        ("GET / 200\n", "There is no kernel log in stdin: whether the kernel killed is not known.", 5),
        ("GET / 200\n" * 400_000, "There is no kernel log in stdin: whether the kernel killed is not known.", 5),
        ("[    1.000000] usb 1-1: new device\n", "No OOM kill by the kernel in what could be read", 0),
        (
            (CAPTURES / "docker-inspect-oom-pid1.json").read_text(),
            "Ended     Docker says that container oom1 lost a process for memory (OOMKilled)",
            0,
        ),
    ],
    ids=["empty", "of programs", "large", "quiet", "status"],
)
def test_what_came_through_a_pipe_is_told_when_it_has_ended(reprieve: Run, text: str, said: str, status: int) -> None:
    done = reprieve("why", "--follow", "-", stdin=text)
    assert (done.returncode, done.stdout.startswith(said)) == (status, True)
    *_, end = map(json.loads, reprieve("why", "--follow", "-", "--json", stdin=text).stdout.splitlines())
    assert (end["kind"], end["exit_status"]) == ("end", status)


def test_a_real_kill_is_explained_while_it_happens(real_kill: str) -> None:
    from reprieve.machine.demo import kill_a_leak

    following = Following("--cgroup", "reprieve-demo-")  # other tests let the kernel kill meanwhile
    said = following.until("What now", kill_a_leak)
    status, _, errors = following.stop()
    assert said.startswith("Killed    leaky-demo (pid ")
    assert re.search(r"Limit 32 MiB for /\S*reprieve-demo-", " ".join(said.split()))
    assert (status, errors) == (0, "")


# -- what it costs to start --------------------------------------------------------------------------------------------


def test_explaining_a_file_loads_no_more_than_it_needs() -> None:
    code = "import sys; sys.argv = ['reprieve', 'why', sys.argv[1]]\nfrom reprieve.cli import run\n"
    code += "try: run()\nexcept SystemExit: pass\nprint(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code, str(MYSQLD)], capture_output=True, text=True, check=True)
    loaded = set(done.stderr.split())
    assert "reprieve.rules" in loaded
    spared = "json msgspec jinja2 rich rich_click hyperscan subprocess shutil tempfile pathlib signal select logging"
    assert not loaded & set(spared.split())
    assert not loaded & {f"reprieve.{name}" for name in ("codec", "oom.ending", "oom.gfp", "machine.clock")}
    assert not loaded & {f"reprieve.machine.{name}" for name in ("journal", "kmsg", "pstore", "archive", "compressed")}
    assert not loaded & {f"reprieve.model.{name}" for name in ("machine", "change", "application", "unit", "cgroup")}


@pytest.mark.parametrize(
    "arguments",
    [
        *(("why", *options, str(MYSQLD)) for options in ((), ("--list",), ("--all",), ("--json",))),
        *(("why", "--explain", "no-swap"), ("next", "-v"), ("check",), ("demo",), ("completion", "bash")),
    ],
)
def test_an_answer_that_finds_no_room_says_so_and_fails(arguments: tuple[str, ...]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "reprieve", *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "reprieve: the answer could not be written: No space left on device",
        "  write it where there is room",
    ]


def test_the_newest_are_listed(reprieve: Run) -> None:
    loop = LOGS / "captures/6.1-memcg-loop.txt"
    every = reprieve("why", "--list", loop).stdout.splitlines()
    assert reprieve("why", "--list", "--last", "2", loop).stdout.splitlines() == every[-2:]


@pytest.mark.parametrize("word", ["nginx.service", "web", "docker:"])
def test_who_names_what_runs_is_told_how_it_is_asked_for(word: str, reprieve: Run) -> None:
    said = reprieve("why", word)
    assert (said.returncode, said.stdout) == (1, "")
    assert "unit:NAME, docker:NAME" in said.stderr
    assert "unit:NAME" not in reprieve("why", f"./{word}").stderr


# -- how often, where not whom -----------------------------------------------------------------------------------------


@pytest.fixture
def unheard() -> None:
    """On a machine where who is nobody can read of no kill."""
    if Path("/proc/sys/kernel/dmesg_restrict").read_text().strip() != "1":
        missing("kernel.dmesg_restrict=1")
    if any(os.stat(folder).st_mode & stat.S_IXOTH for folder in Path("/var/log/journal").glob("*")):
        missing("a machine without a journal that everybody may read")


@pytest.mark.parametrize("options", [(), ("--markdown",), ("--list",), ("--all",)], ids=" ".join)
def test_who_may_not_read_the_kernel_s_log_is_told_how_often_it_killed(
    as_nobody: Run, open_folder: Path, unheard: None, real_kill: str, options: tuple[str, ...]
) -> None:
    open_folder.chmod(0o777)
    done = as_nobody("snapshot", "-o", open_folder / "s.gz")
    assert done.returncode == 5, done.stderr
    for asked in (("why",), ("why", "--from", open_folder / "s.gz")):
        if "--all" in options and len(asked) > 1:
            continue
        done = as_nobody(*asked, *options)
        said = " ".join((done.stdout + done.stderr).split())
        assert re.search(r"he kernel has killed (once|twice|\d+ times) since boot; whom, only root may read", said)
        assert said.count("since boot") == 1
        assert "No OOM kill" not in said
        assert done.returncode == 5


def test_another_boot_than_this_one_was_not_counted(as_nobody: Run, unheard: None) -> None:
    said = as_nobody("why", "--boot", "-1").stdout
    assert "whether the kernel killed is not known" in said
    assert "since boot" not in said


def test_who_may_read_the_kernel_s_log_is_not_told_that_only_root_may(reprieve: Run) -> None:
    if os.geteuid():
        missing("root")
    for options in ((), ("--list",), ("--json",)):
        done = reprieve("why", *options)
        assert "only root" not in done.stdout + done.stderr
        assert "has killed" not in done.stdout + done.stderr


@pytest.mark.parametrize("reason", ["the kernel has killed \x1b[2J\x1b]0;x\x07\nnobody", ""])
@pytest.mark.parametrize(("place", "log"), [("/proc/vmstat", ""), ("exit status 137", MYSQLD.name)])
def test_what_a_snapshot_says_moves_no_cursor(place: str, log: str, reason: str, reprieve: Run, tmp_path: Path) -> None:
    """Anybody may have written it."""
    events = read_reports(text_of(log)) if log else ()
    ooms = tuple(event for event in events if isinstance(event, OomReport))
    note = Gap(place=place, reason=reason, hint="\x1b[1A", hides=False)
    gaps = (Gap(place="/dev/kmsg", reason="permission denied"), note)
    (tmp_path / "s").write_bytes(pack(Snapshot(ooms=ooms, gaps=gaps, history=tuple(map(summarise, ooms)))))
    for options in ((), ("--markdown",)):
        done = reprieve("why", "--from", "s", *options)
        assert done.returncode in (0, 5), done.stderr
        assert not set(done.stdout + done.stderr) & {"\x1b", "\x07"}


def test_a_snapshot_that_does_not_tell_which_logs_were_read_proves_nothing_if_one_was_not(
    reprieve: Run, tmp_path: Path
) -> None:
    gap = Gap(place="/dev/kmsg", reason="permission denied")
    for gaps, logs, said in (
        ((gap,), None, "No log could be read: whether the kernel killed is not known."),
        ((gap,), (), "No log could be read: whether the kernel killed is not known."),
        ((gap,), ("journal",), "No OOM kill by the kernel in s."),
        ((), None, "No OOM kill by the kernel in s."),
    ):
        (tmp_path / "s").write_bytes(pack(Snapshot(machine=Machine(), gaps=gaps, logs=logs)))
        for options in ((), ("--markdown",)):
            assert reprieve("why", "--from", "s", *options).stdout.replace("`", "").startswith(said)

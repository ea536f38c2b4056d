"""What needs a machine of its own: a mount namespace in which /proc/meminfo or /var/log is what the test says.

`unshare` gives it, the files are real ones, and the code under test knows nothing of it.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from reprieve.machine.host import identify
from tests.machine.real import missing, program
from tests.machine.test_journal import NEW_BOOT, OLD_BOOT, QUIET_BOOT, entry, report

HOUR_US = 3600 * 1_000_000


@pytest.fixture
def own_mounts() -> None:
    """The right to mount, here where nobody else sees it."""
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        missing("the right to make a mount namespace")


def run(code: str, *binds: tuple[Path, str]) -> str:
    """What the code prints where each path is bound over the other."""
    mounts = "".join(f"mount --bind '{source}' '{target}' && " for source, target in binds)
    argv = ["unshare", "--mount", "sh", "-c", f'{mounts} exec "$0" -c "$1"', sys.executable, code]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(("available_kb", "started"), [(65_536, True), (65_535, False)])
def test_below_64_mib_no_process_is_started(own_mounts: None, tmp_path: Path, available_kb: int, started: bool) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text(f"MemTotal: 9 kB\nMemFree: 1 kB\nMemAvailable:    {available_kb} kB\n")
    code = """
from reprieve.machine.journal import journal_sources
gaps = []
journal_sources(("--file=/absent",), name="journal", gaps=gaps)
print(gaps[0].reason)
"""
    program("journalctl")
    said = run(code, (meminfo, "/proc/meminfo"))
    assert ("not asked" in said) is not started


def test_a_kernel_that_does_not_tell_how_much_is_available_is_believed_to_have_enough(
    own_mounts: None, tmp_path: Path
) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 9 kB\nMemFree: 1 kB\n")  # before 3.14
    code = "from reprieve.machine.host import *; print(available_bytes(), room_for_a_process())"
    assert run(code, (meminfo, "/proc/meminfo")) == "None True"


@pytest.fixture
def logs(own_mounts: None, tmp_path: Path) -> Path:
    """A /var/log with a journal of this machine, whose last boot has no kill, and syslogs."""
    remote = program("systemd-journal-remote", "/lib/systemd", "/usr/lib/systemd")
    machine_id = identify().machine_id
    if machine_id is None:
        missing("/etc/machine-id")
    folder = tmp_path / "journal" / machine_id
    folder.mkdir(parents=True)
    text = report(0, OLD_BOOT) + report(HOUR_US, NEW_BOOT) + entry(2 * HOUR_US, QUIET_BOOT, b"usb 1-1: new device")
    argv = [remote, f"--output={folder / 'system.journal'}", "-"]
    subprocess.run(argv, input=text, check=True, capture_output=True)
    for age, name in enumerate(("kern.log", "kern.log.1", "syslog-20260101", "dmesg.0", "auth.log", "messages_other")):
        (tmp_path / name).write_text(f"{name}\n")
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    os.mkfifo(tmp_path / "messages")
    return tmp_path


def test_this_machines_logs_are_found_newest_boot_first(logs: Path) -> None:
    code = """
from reprieve.machine.host import identify
from reprieve.machine.log import of_this_machine
sources, gaps = of_this_machine(identify())
print(*(source.name for source in sources if source.kind != "pstore"), sep="\\n")
print(*gaps)
"""
    assert run(code, (logs, "/var/log")).splitlines() == [
        "/dev/kmsg",
        "journal (boot -1)",
        "journal (boot -2)",
        "/var/log/kern.log",
        "/var/log/kern.log.1",
        "/var/log/syslog-20260101",
        "/var/log/dmesg.0",
    ]


def test_a_boot_of_which_nothing_is_kept_is_a_gap_and_one_without_a_kill_is_none(logs: Path) -> None:
    code = """
from reprieve.machine.journal import lacks_boot
for boot in ("-1", "-2", "-3", "-12", "aaaa", "b", "d", "x"):
    print(boot, *(gap.reason for gap in lacks_boot(boot) if gap.hides))
"""
    said = run(code, (logs, "/var/log")).splitlines()
    lacking = ("-3", "-12", "d", "x")
    assert said == [
        f"{boot} holds nothing of boot {boot}" if boot in lacking else boot
        for boot in ("-1", "-2", "-3", "-12", "aaaa", "b", "d", "x")
    ]


def test_why_of_such_a_boot_is_incomplete(logs: Path) -> None:
    code = """
import subprocess, sys
for boot in ("-1", "-7"):
    done = subprocess.run([sys.executable, "-m", "reprieve", "why", "--boot", boot, "--json"], capture_output=True)
    print(boot, done.returncode, b"holds nothing of boot" in done.stdout)
"""
    said = run(code, (logs, "/var/log")).splitlines()
    assert said[1] == "-7 5 True"
    assert said[0].endswith("False")


def test_without_the_group_of_the_journal_it_is_a_gap_that_names_the_group(logs: Path) -> None:
    for path in (logs.parent, logs, logs / "journal"):
        path.chmod(0o755)
    for path in (logs / "journal").iterdir():
        path.chmod(0o750)
    code = """
import os
from reprieve.machine.journal import journal_sources
gaps = []
os.setresgid(65534, 65534, 65534)
os.setgroups([])
os.setresuid(65534, 65534, 65534)
assert journal_sources(gaps=gaps) == []
print(gaps[0].place, gaps[0].reason, gaps[0].hint, sep=" | ")
"""
    said = run(code, (logs, "/var/log"))
    assert said.startswith("journal | permission denied to the journal of the system | run it with sudo, or: ")
    assert "usermod -aG systemd-journal" in said


def test_where_the_kernels_buffer_is_closed_the_journal_is_followed(logs: Path) -> None:
    if Path("/proc/sys/kernel/dmesg_restrict").read_text().strip() == "0":
        missing("kernel.dmesg_restrict=1")
    for path in (logs.parent.parent, logs.parent, logs, *logs.rglob("*")):
        path.chmod(path.stat().st_mode | (0o055 if path.is_dir() else 0o044))
    remote = program("systemd-journal-remote", "/lib/systemd", "/usr/lib/systemd")
    [journal] = logs.glob("journal/*/system.journal")
    later = logs / "later"
    boot_id = identify().boot_id or missing("a boot id")
    later.write_bytes(entry(3 * HOUR_US, boot_id, b"Out of memory: Killed process 9 (new)"))
    code = f"""
import os, signal, subprocess, json, select
from reprieve.machine import journal, kmsg  # which may lie where nobody else can read
from reprieve.machine.follow import follow
if (writer := os.fork()) == 0:
    while os.getppid() != 1:  # nobody tells when journalctl has begun to look
        select.select([], [], [], 0.5)
        subprocess.run([{remote!r}, "--output={journal}", {str(later)!r}], capture_output=True)
os.setresuid(65534, 65534, 0)
gaps = []
for line in follow(None, gaps):
    if line:
        print(json.loads(line)["MESSAGE"], gaps[0].place)
        break
os.setresuid(0, 0, 0)
os.kill(writer, signal.SIGKILL)
"""
    assert run(code, (logs, "/var/log")) == "Out of memory: Killed process 9 (new) /dev/kmsg"

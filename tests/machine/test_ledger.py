"""The journal of changes on a disk: whole lines, one writer, half a line never stays."""

from __future__ import annotations

import os
import pwd
import re
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from reprieve.machine.ledger import LedgerFile, read_lines
from reprieve.model.finding import Failure
from tests.conftest import Run
from tests.machine.real import missing, program

# The disk is full after five bytes more: RLIMIT_FSIZE makes write(2) short, and then refuse.
_FULL = """
import resource, signal, sys
from reprieve.machine.ledger import LedgerFile
from reprieve.model.finding import Failure
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with LedgerFile(sys.argv[1]) as ledger:
    ledger.append(b"first")
    resource.setrlimit(resource.RLIMIT_FSIZE, (11, resource.RLIM_INFINITY))
    try:
        ledger.append(b"second")
    except Failure:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        ledger.append(b"third")
"""


def test_half_a_line_of_a_full_disk_does_not_stay(tmp_path: Path) -> None:
    path = tmp_path / "changes.jsonl"
    subprocess.run([sys.executable, "-c", _FULL, str(path)], check=True)
    assert path.read_bytes() == b"first\nthird\n"


def test_a_line_that_a_crash_cut_off_never_counted(tmp_path: Path) -> None:
    path = tmp_path / "changes.jsonl"
    path.write_bytes(b"first\nsec")
    assert read_lines(str(path)) == [b"first"]
    with LedgerFile(str(path)) as ledger:
        ledger.append(b"second")
    assert path.read_bytes() == b"first\nsecond\n"


def test_what_has_gone_into_it_is_found_after_a_power_cut_in_a_new_folder_too(tmp_path: Path) -> None:
    """A file that is flushed is not yet in its folder, nor that in the one above: fsync(2)."""
    path = tmp_path / "new" / "changes.jsonl"
    script = "import sys; from reprieve.machine.ledger import LedgerFile\nwith LedgerFile(sys.argv[1]): pass"
    watched = (program("strace"), "-qq", "-y", "-e", "trace=mkdir,fsync", "-o", str(tmp_path / "calls"))
    subprocess.run([*watched, sys.executable, "-c", script, str(path)], check=True)
    calls = [line.partition(" = ")[0].rstrip() for line in (tmp_path / "calls").read_text().splitlines()]
    assert [re.sub(r"\d+(?=<)", "", call) for call in calls] == [
        f'mkdir("{path.parent}", 0755)',
        f"fsync(<{tmp_path}>)",
        f"fsync(<{path.parent}>)",
    ]


def test_there_is_one_writer(tmp_path: Path) -> None:
    path = str(tmp_path / "changes.jsonl")
    with LedgerFile(path), pytest.raises(Failure, match="another reprieve"), LedgerFile(path):
        pass


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_bytes(b"theirs\n")
    (tmp_path / "changes.jsonl").symlink_to("theirs")
    with pytest.raises(Failure), LedgerFile(str(tmp_path / "changes.jsonl")):
        pass
    assert (tmp_path / "theirs").read_bytes() == b"theirs\n"


# -- of a user ---------------------------------------------------------------------------------------------------------


def _as(uid: int, code: str, **environ: str) -> str:
    """What Python prints as that user; ours may lie where nobody else can read it, so it is loaded before."""
    if os.geteuid() != 0:
        missing("root, to become another")
    begin = "import os, sys\nfrom reprieve.machine.ledger import *\nfrom reprieve.machine.home import state_folder\n"
    begin += f"from reprieve.model.finding import Failure\nos.setgroups([]); os.setgid({uid}); os.setuid({uid})\n"
    argv = [sys.executable, "-c", begin + textwrap.dedent(code)]
    return subprocess.run(argv, env=environ, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"HOME": "/home/a"}, "/home/a/.local/state/reprieve/changes.jsonl"),
        ({"HOME": "/home/a", "XDG_STATE_HOME": "/state"}, "/state/reprieve/changes.jsonl"),
        ({"HOME": "/home/a", "XDG_STATE_HOME": "state"}, "/home/a/.local/state/reprieve/changes.jsonl"),
        ({"HOME": ""}, "/.local/state/reprieve/changes.jsonl"),
        ({}, "/.local/state/reprieve/changes.jsonl"),
    ],
)
def test_a_user_s_ledger_is_in_the_user_s_own_folder(environ: dict[str, str], said: str) -> None:
    path = _as(65534, "print(ledger_path())", **environ)
    home = pwd.getpwuid(65534).pw_dir
    assert path == (said if environ.get("HOME") else f"{home}{said}")


def test_where_there_is_no_home_it_is_not_the_root() -> None:
    code = """
    try:
        print(ledger_path())
    except Failure as failure:
        print(failure.message, "|", failure.hint)
    """
    said = _as(54321, code, HOME="")
    assert said.startswith("there is no home folder in which it could be kept | set XDG_STATE_HOME, or HOME, ")


def test_a_home_that_cannot_be_written_needs_no_root() -> None:
    code = """
    try:
        with LedgerFile(ledger_path()):
            print("written")
    except Failure as failure:
        print(failure.message, "|", failure.hint)
    """
    said = _as(65534, code, HOME="/etc")
    assert said.startswith(
        "/etc/.local/state/reprieve/changes.jsonl: Permission denied | set XDG_STATE_HOME, or HOME, "
    )
    assert "root" not in said


def test_a_journal_of_a_user_s_own_that_may_not_be_read_needs_no_root(open_folder: Path) -> None:
    """Root would look into another one."""
    code = """
    try:
        print(read_lines(ledger_path()))
    except Failure as failure:
        print(failure.message, "|", failure.hint)
    """
    (open_folder / "reprieve").mkdir(mode=0o700)
    said = _as(65534, code, HOME="/", XDG_STATE_HOME=str(open_folder))
    assert said.startswith(f"{open_folder}/reprieve/changes.jsonl: Permission denied | set XDG_STATE_HOME, or HOME, ")
    assert _as(65534, code, HOME="/dev/null") == "[]"
    begun = code.replace("print(read_lines(ledger_path()))", "LedgerFile(ledger_path()).__enter__()")
    assert "| set XDG_STATE_HOME, or HOME, " in _as(65534, begun, HOME="/dev/null")


def test_to_undo_where_nothing_was_changed_says_so_and_leaves_no_journal(as_nobody: Run, open_folder: Path) -> None:
    open_folder.chmod(0o777)
    os.environ["XDG_STATE_HOME"] = str(open_folder)
    try:
        done = as_nobody("undo")
    finally:
        del os.environ["XDG_STATE_HOME"]
    assert done.returncode == 1
    assert done.stderr.startswith("reprieve: nothing was changed here")
    assert list(open_folder.iterdir()) == []


def test_who_is_not_root_changes_and_undoes_with_a_journal_of_their_own(as_nobody: Run, open_folder: Path) -> None:
    open_folder.chmod(0o777)
    os.environ["XDG_STATE_HOME"] = str(open_folder)
    sleeper = subprocess.Popen(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "sleep", "60"])
    score = Path(f"/proc/{sleeper.pid}/oom_score_adj")
    before = score.read_text()
    try:
        while b"sleep" not in Path(f"/proc/{sleeper.pid}/cmdline").read_bytes()[:6]:
            time.sleep(0.01)
        done = as_nobody("fix", "protect", str(sleeper.pid), "--adj", "1000", "--yes")
        assert done.returncode == 0, done.stdout + done.stderr
        assert score.read_text() == "1000\n"
        assert "oom_score_adj" in as_nobody("changes").stdout
        assert as_nobody("undo").returncode == 0
        assert score.read_text() == before
    finally:
        sleeper.kill()
        sleeper.wait()
        del os.environ["XDG_STATE_HOME"]
    assert (open_folder / "reprieve" / "changes.jsonl").stat().st_uid == 65534

"""`import reprieve` in a program of somebody's own."""

import subprocess
import sys
from pathlib import Path

import pytest

import reprieve
from reprieve.model.finding import Failure
from reprieve.model.snapshot import Snapshot
from tests.logs_of import LOGS

MYSQLD = LOGS / "084-ubuntu1404-mysqld-python-3.13.log"


def test_importing_it_loads_nothing() -> None:
    code = "import sys; before = set(sys.modules); import reprieve; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) <= {"__future__", "reprieve"}


def test_a_path_a_path_as_text_a_folder_and_the_text_itself_hold_the_same_events(tmp_path: Path) -> None:
    (tmp_path / "kern.log").write_bytes(MYSQLD.read_bytes())
    sources = (MYSQLD, str(MYSQLD), tmp_path, MYSQLD.read_bytes())
    assert {tuple(oom.kills) for source in sources for oom in reprieve.read_reports(source)} == {
        tuple(next(reprieve.read_reports(MYSQLD)).kills)
    }


def test_a_place_that_cannot_be_read_is_a_failure_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="does not exist"):
        next(reprieve.read_reports(tmp_path / "absent"))
    with pytest.raises(Failure, match="holds no log"):
        reprieve.read(tmp_path)


def test_all_that_a_log_tells_can_be_diagnosed() -> None:
    snapshot = reprieve.read(MYSQLD)
    assert isinstance(snapshot, Snapshot)
    assert (len(snapshot.ooms), len(snapshot.history), snapshot.gaps) == (1, 1, ())
    assert reprieve.diagnose(snapshot)[0].code == "host-full"


def test_the_words_of_a_finding_can_be_printed_whatever_the_names_in_them() -> None:
    log = "Out of memory: Killed process 7 (a\x1b[2J) total-vm:9kB, anon-rss:1kB, file-rss:0kB, Score:1\n"
    (finding,) = reprieve.diagnose(reprieve.read(log.encode()))
    assert finding.code == "unknown-field"
    assert "\x02" in finding.claim
    assert reprieve.plain(finding.claim).startswith("No kernel prints Score: there: this text was made up")
    assert reprieve.plain("\x02a\x1b[2J\x03 died") == "“a\\x1b[2J” died"


def test_what_cannot_be_read_raises_what_a_caller_can_name() -> None:
    with pytest.raises(reprieve.Failure, match=r"none\.log: "):
        list(reprieve.read_reports("/nowhere/none.log"))
    with pytest.raises(AttributeError):
        _ = reprieve.Nothing  # type: ignore[attr-defined]


def test_nothing_is_said_of_nothing() -> None:
    assert list(reprieve.read_reports(b"")) == []
    assert reprieve.diagnose(reprieve.read(b"")) == []


def test_all_of_it_can_be_imported_without_what_windows_lacks() -> None:
    """But for the screen and the plugin of pytest, whose packages load some of it here."""
    code = """
import importlib, pkgutil, sys
sys.modules |= dict.fromkeys(("fcntl", "grp", "pwd", "resource", "termios"))
import reprieve
for module in pkgutil.walk_packages(reprieve.__path__, "reprieve."):
    if module.name not in ("reprieve.__main__", "reprieve.tui", "reprieve.pytest_plugin"):
        importlib.import_module(module.name)
        print(module.name)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr == ""
    assert "reprieve.machine.launch" in done.stdout

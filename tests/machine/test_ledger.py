"""The journal of changes on a disk: whole lines, one writer, half a line never stays."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from reprieve.machine.ledger import LedgerFile, read_lines
from reprieve.model.finding import Failure
from tests.machine.real import program

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

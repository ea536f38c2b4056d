"""The journal of changes on a disk: whole lines, one writer, half a line never stays."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from reprieve.machine.ledger import LedgerFile, read_lines
from reprieve.model.finding import Failure

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

"""A process that is killed at any call by which it changes a file: the file is the old one or the new one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from reprieve.fix.journal import Journal
from reprieve.fix.transaction import recover
from reprieve.machine.ledger import LedgerFile
from reprieve.machine.places import MachinePlaces
from reprieve.model.finding import Place
from tests.machine.real import program

CALLS = ("openat", "write", "fsync", "rename", "unlink", "fchmod", "fchown", "ftruncate", "flock", "mkdir", "close")
BOTH = ("sysctl:/vm.swappiness=10", "sysctl.d:/vm.swappiness=10")
QUIET = ("-qq", "-o", "/dev/null")
OLD = b"# mine\nvm.swappiness = 5\nvm.panic_on_oom = 1\n"


def prepared(folder: Path) -> Path:
    (folder / "proc/sys/vm").mkdir(parents=True)
    (folder / "proc/sys/vm/swappiness").write_text("60\n")
    (folder / "etc/sysctl.d").mkdir(parents=True)
    file = folder / "etc/sysctl.d/60-reprieve.conf"
    file.write_bytes(OLD)
    file.chmod(0o640)
    os.chown(file, 0, 1)
    return file


def change(root: Path, ledger: Path, wanted: tuple[str, ...], *tracer: str) -> subprocess.CompletedProcess[str]:
    """Change settings in a process of its own, watched by a tracer."""
    script = Path(__file__).with_name("change_a_file.py")
    argv = [*tracer, sys.executable, "-P", str(script), str(root), str(ledger), *wanted]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def recovered(root: Path, path: Path) -> bool:
    """The next process puts back what was not finished; is the change in force then?"""
    with LedgerFile(str(path)) as ledger:
        journal = Journal(ledger, boot_id="boot-1", wall_s=2.0, user="root")
        recover(MachinePlaces(str(root)), journal)
        assert journal.unfinished() == []
        return journal.newest() is not None


@pytest.mark.parametrize("call", CALLS)
def test_all_of_it_holds_or_is_put_back(call: str, tmp_path: Path) -> None:
    tracer = program("strace")
    kills = finished = 0
    for which in range(1, 60):
        folder = tmp_path / str(which)
        file, ledger = prepared(folder), folder / "state/changes.jsonl"
        traced = [f"--trace-path={path}" for path in watched(folder)]
        done = change(folder, ledger, BOTH, tracer, *QUIET, *traced, "-e", f"inject={call}:signal=KILL:when={which}")
        new = OLD.replace(b"= 5", b"= 10")
        if done.stdout == "done\n":
            assert file.read_bytes() == new
            break
        assert done.returncode == -9, done.stderr
        kills += 1
        found = file.stat()
        assert file.read_bytes() in (OLD, new), f"{call} {which}"
        assert (found.st_mode & 0o777, found.st_uid, found.st_gid) == (0o640, 0, 1)
        holds = recovered(folder, ledger)  # as after the very last record, that it ended
        assert file.read_bytes() == (new if holds else OLD)
        assert (folder / "proc/sys/vm/swappiness").read_text() == ("10\n" if holds else "60\n")
        finished += holds
    else:
        raise AssertionError("it never ended by itself")
    assert finished <= 3  # it is put back nearly everywhere
    assert kills or call in ("unlink", "ftruncate", "mkdir"), f"{call} was never made"


@pytest.mark.parametrize("call", ["openat", "write", "close"])
def test_a_process_has_its_score_or_the_one_it_had(call: str, tmp_path: Path) -> None:
    tracer = program("strace")
    with subprocess.Popen(["sleep", "600"]) as process:
        try:
            score = Path(f"/proc/{process.pid}/oom_score_adj")
            before = score.read_text()
            after = f"{int(before) + 7}\n"
            place = MachinePlaces().identify(Place(kind="process", of=str(process.pid), key="oom_score_adj"))
            traced = [f"--trace-path={path}" for path in (score.parent, score)]
            for which in range(1, 60):
                ledger = tmp_path / f"{which}.jsonl"
                kill = ("-e", f"inject={call}:signal=KILL:when={which}")
                done = change(Path("/"), ledger, (f"{place}={after.strip()}",), tracer, *QUIET, *traced, *kill)
                if done.stdout == "done\n":
                    break
                assert done.returncode == -9, done.stderr
                assert score.read_text() in (before, after)
                assert not recovered(Path("/"), ledger)
                assert score.read_text() == before
            assert which > 1, f"{call} was never made"
            assert score.read_text() == after
        finally:
            process.kill()


def watched(folder: Path) -> list[Path]:
    """The files and folders that are written to."""
    return [
        folder / "state",
        folder / "state/changes.jsonl",
        folder / "proc/sys/vm/swappiness",
        folder / "etc/sysctl.d",
        folder / "etc/sysctl.d/60-reprieve.conf",
        folder / "etc/sysctl.d/.60-reprieve.conf.reprieve",
    ]

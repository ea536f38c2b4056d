"""Where each process stands: of this machine beside what is read of them whole, and of trees that tell nonsense."""

import os
import subprocess
from pathlib import Path

import pytest

from reprieve.machine.host import Host
from reprieve.machine.proc import read_processes
from reprieve.machine.standing import Standing, read_standings
from reprieve.model.finding import Gap


def test_it_is_what_the_kernel_says_of_each() -> None:
    sleepers = [subprocess.Popen(("sleep", "600")) for _ in range(3)]
    pids = [sleeper.pid for sleeper in sleepers]
    try:
        Path(f"/proc/{pids[1]}/oom_score_adj").write_text("700")
        for pid in pids:  # until it is sleep, and no longer we
            while Path(f"/proc/{pid}/comm").read_text() != "sleep\n" or not _state(pid).startswith("S"):
                pass
        gaps: list[Gap] = []
        standings = {one.pid: one for one in read_standings(gaps)}
        told = read_processes(Host(), gaps, files=("status", "oom_score"), pids=pids)
    finally:
        for sleeper in sleepers:
            sleeper.kill()
            sleeper.wait()
    assert [(one.pid, one.oom_score, one.rss_bytes) for one in told] == [
        (pid, standings[pid].oom_score, standings[pid].rss_pages * os.sysconf("SC_PAGE_SIZE")) for pid in pids
    ]
    assert standings[pids[1]].oom_score > standings[pids[0]].oom_score
    assert all(one.rss_bytes for one in told)
    assert gaps == []


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/status").read_text().partition("State:\t")[2]


def test_who_has_ended_is_no_gap_and_what_is_no_number_is_one(tmp_path: Path) -> None:
    for pid, files in ((7, ("667\n", "900 120 80 1 0 60 0\n")), (8, ("667\n",)), (9, ("high\n", "9 1 1 1 0 1 0\n"))):
        (tmp_path / f"proc/{pid}").mkdir(parents=True)
        for name, text in zip(("oom_score", "statm"), files, strict=False):
            (tmp_path / f"proc/{pid}/{name}").write_text(text)
    gaps: list[Gap] = []
    assert read_standings(gaps, f"{tmp_path}/proc") == [Standing(7, 667, 120)]
    assert gaps == [Gap(place="/proc/9/oom_score", reason="it is not as any known kernel writes it")]


@pytest.mark.parametrize("name", ["oom_score", "statm"])
def test_what_cannot_be_read_is_told(tmp_path: Path, name: str) -> None:
    for file in ("oom_score", "statm"):
        (tmp_path / "proc/7" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "proc/7" / file).write_text("1 1\n" if file == "statm" else "1\n")
    (tmp_path / f"proc/7/{name}").unlink()
    (tmp_path / f"proc/7/{name}").mkdir()
    gaps: list[Gap] = []
    assert read_standings(gaps, f"{tmp_path}/proc") == []
    assert gaps == [Gap(place=f"/proc/7/{name}", reason="is a directory")]

"""Programs that kill before the kernel must, as /proc and their own files tell of them."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reprieve.machine.host import Host
from reprieve.machine.killers import parse_earlyoom, parse_oomd, read_killers
from reprieve.machine.proc import read_processes
from reprieve.model.finding import Gap
from tests.machine.real import missing

GIB = 1024**3


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("earlyoom", (10, 10)),
        ("/usr/bin/earlyoom -r 3600", (10, 10)),
        ("earlyoom -m 5 -s 100", (5, 100)),
        ("earlyoom -m20,18 -s15,7", (20, 15)),
        ("earlyoom -M 1048576", (12.5, 10)),
        ("earlyoom -m 10 -M 419430,200000 -S 209715", (pytest.approx(5, abs=0.01), pytest.approx(10, abs=0.01))),
        ("earlyoom --avoid (^|/)(init|sshd)$ --prefer x -g -n -m 7", (7, 10)),
        ("earlyoom -m x", (None, 10)),
        ("earlyoom --no-such-option", (None, None)),
        ("", (None, None)),
    ],
)
def test_earlyoom_is_told_by_its_words(words: str, told: tuple[float, float]) -> None:
    assert parse_earlyoom(words.split(), 8 * GIB, 2 * GIB) == told


def test_oomd_has_defaults_and_later_files_override() -> None:
    assert parse_oomd([]) == (90, 60, 30)
    assert parse_oomd(["[OOM]\n#SwapUsedLimit=10%\n"]) == (90, 60, 30)
    first = "[OOM]\nSwapUsedLimit=80%\nDefaultMemoryPressureLimit=500‰\n"
    assert parse_oomd([first, "[OOM]\nSwapUsedLimit = 70%\nDefaultMemoryPressureDurationSec=2min\n"]) == (70, 50, 120)
    assert parse_oomd(["SwapUsedLimit=lots\nDefaultMemoryPressureDurationSec=soon\n"]) == (None, 60, None)


@given(st.text(max_size=200), st.lists(st.text(max_size=40), max_size=8))
def test_no_text_is_too_odd(text: str, words: list[str]) -> None:
    for figure in (*parse_oomd([text]), *parse_earlyoom(words, GIB, 0)):
        assert figure is None or 0 <= figure <= 1e9 * 60


@pytest.fixture
def early(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process of that name, and with its words, that harms nobody."""
    script = tmp_path / "earlyoom"
    script.write_text("#!/bin/sh\nread line\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    process = subprocess.Popen([script, "-m", "4"], stdin=subprocess.PIPE)
    yield process
    process.communicate()


def test_one_that_runs_is_found_with_its_threshold_and_its_rights(early: subprocess.Popen[bytes]) -> None:
    gaps: list[Gap] = []
    host = Host()
    found = read_killers(host, read_processes(host, gaps, pids=[early.pid, os.getpid()]), GIB, 0, gaps)
    assert [(one.name, one.pid, one.memory_percent) for one in found] == [("earlyoom", early.pid, 4)]
    if os.geteuid() != 0:
        missing("root, whose processes may kill")
    assert found[0].may_kill_all is True


def test_drop_ins_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    files = {
        "proc/7/status": "Name:\tsystemd-oomd\nCapEff:\t0000000000000000\n",
        "etc/systemd/oomd.conf": "[OOM]\nSwapUsedLimit=50%\n",
        "usr/lib/systemd/oomd.conf": "[OOM]\nSwapUsedLimit=10%\nDefaultMemoryPressureLimit=10%\n",
        "usr/lib/systemd/oomd.conf.d/10-defaults.conf": "[OOM]\nDefaultMemoryPressureDurationSec=20s\n",
        "etc/systemd/oomd.conf.d/05-mine.conf": "[OOM]\nDefaultMemoryPressureDurationSec=5s\n",
        "etc/systemd/oomd.conf.d/notes.txt": "[OOM]\nDefaultMemoryPressureDurationSec=1s\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    stat_line = "7 (systemd-oomd) S 1 7 7 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 1 0 100 0 10 " + "0 " * 30
    (tmp_path / "proc/7/stat").write_text(stat_line.rstrip() + "\n")
    host, gaps = Host(str(tmp_path)), list[Gap]()
    (found,) = read_killers(host, read_processes(host, [], page_bytes=4096), GIB, GIB, gaps)
    assert (found.swap_used_percent, found.pressure_percent, found.pressure_s) == (50, 60, 20)
    assert found.may_kill_all is False
    assert gaps == []

"""Programs that kill before the kernel must, as /proc and their own files tell of them."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reprieve.machine.host import Host
from reprieve.machine.killers import parse_earlyoom, parse_nohang, parse_oomd, read_killers
from reprieve.machine.proc import read_processes
from reprieve.model.finding import Gap
from reprieve.model.killer import Killer
from tests.machine.real import missing, program

GIB = 1024**3
NOHANG = Killer(name="nohang", pid=7, start_ticks=100)


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


@pytest.mark.parametrize(
    ("conf", "told"),
    [
        ("", (None, None, None, None)),
        ("soft_threshold_min_mem = 5 %\nsoft_threshold_min_swap = 10 %\n", (5, 10, None, None)),
        ("soft_threshold_min_mem=512 M\nsoft_threshold_min_swap = 512 M\n", (6.25, 25, None, None)),
        ("soft_threshold_min_mem = 5 %\nhard_threshold_min_mem = 9.5 %\n", (9.5, None, None, None)),
        ("soft_threshold_min_mem = 5 %\r\nsoft_threshold_min_swap=10 %\r\n", (5, 10, None, None)),
        ("# soft_threshold_min_mem = 5 %\n  soft_threshold_min_mem = 6 %\n", (None, None, None, None)),
        ("soft_threshold_min_mem = 5\nsoft_threshold_min_swap = lots %\n", (None, None, None, None)),
        ("soft_threshold_min_mem = 1 %\nsoft_threshold_min_swap = 9999 M\n", (1, 100, None, None)),
        ("psi_checking_enabled = False\nsoft_threshold_max_psi = 40\npsi_excess_duration = 30\n", (None,) * 4),
        (
            "psi_checking_enabled = True\nsoft_threshold_max_psi  = 40\npsi_excess_duration = 30\n",
            (None, None, 40, 30),
        ),
    ],
)
def test_nohang_is_told_by_its_file(conf: str, told: tuple[float | None, ...]) -> None:
    killer = parse_nohang(NOHANG, conf, 8 * GIB, 2 * GIB)
    memory, swap, pressure, lasting = told
    assert killer == replace(
        NOHANG, memory_percent=memory, swap_free_percent=swap, pressure_percent=pressure, pressure_s=lasting
    )


@pytest.mark.parametrize(
    ("soft", "hard", "told"),
    [
        ((10, 5), (5, 100), (10, 5, 5, 100)),  # SIGKILL comes with swap free
        ((5, 10), (8, 5), (5, 10, 8, 5)),
        ((5, 10), (2, 5), (5, 10, None, None)),
        ((5, 10), (5, 10), (5, 10, None, None)),
        ((5, 10), (8, 10), (8, 10, None, None)),
    ],
)
def test_a_level_of_nohang_is_told_unless_another_is_reached_wherever_it_is(
    soft: tuple[int, int], hard: tuple[int, int], told: tuple[float | None, ...]
) -> None:
    conf = "".join(
        f"{kind}_threshold_min_mem = {memory} %\n{kind}_threshold_min_swap = {swap} %\n"
        for kind, (memory, swap) in (("soft", soft), ("hard", hard))
    )
    of = parse_nohang(NOHANG, conf, 8 * GIB, 2 * GIB)
    levels = of.memory_percent, of.swap_free_percent, of.hard_memory_percent, of.hard_swap_free_percent
    assert levels == told


def test_without_swap_that_of_nohangs_levels_is_told_which_more_memory_reaches() -> None:
    conf = "soft_threshold_min_mem = 10 %\nsoft_threshold_min_swap = 5 %\n"
    conf += "hard_threshold_min_mem = 5 %\nhard_threshold_min_swap = 100 %\n"
    assert parse_nohang(NOHANG, conf, 8 * GIB, 0) == replace(NOHANG, memory_percent=10)


@pytest.mark.parametrize(
    ("memory", "taken"),
    [("5 %", 50), ("20 %", 25)],  # the second: SIGKILL, the level of which is told then
)
def test_nohang_acts_by_zram_where_it_is_told_to(memory: str, taken: float) -> None:
    conf = f"soft_threshold_min_mem = 10 %\nhard_threshold_min_mem = {memory}\n"
    conf += "soft_threshold_max_zram = 50 %\nhard_threshold_max_zram = 2048 M\n"
    assert parse_nohang(NOHANG, conf, 8 * GIB, GIB).zram_percent is None
    assert parse_nohang(NOHANG, f"{conf}zram_checking_enabled = False", 8 * GIB, GIB).zram_percent is None
    assert parse_nohang(NOHANG, f"{conf}zram_checking_enabled = True", 8 * GIB, GIB).zram_percent == taken


def test_nohang_looks_at_no_pressure_where_there_is_no_swap() -> None:
    conf = "psi_checking_enabled = True\nsoft_threshold_max_psi = 40\npsi_excess_duration = 30\n"
    conf += "soft_threshold_min_mem = 5 %\nsoft_threshold_min_swap = 10 M\n"
    assert parse_nohang(NOHANG, conf, 8 * GIB, 0) == replace(NOHANG, memory_percent=5)


@given(st.text(max_size=200), st.lists(st.text(max_size=40), max_size=8))
def test_no_text_is_too_odd(text: str, words: list[str]) -> None:
    confs = (f"{key} = {text}" for key in ("soft_threshold_min_mem", "psi_excess_duration"))
    told = [parse_nohang(NOHANG, conf + "\npsi_checking_enabled = True", GIB, GIB) for conf in confs]
    figures = (figure for one in told for figure in (one.memory_percent, one.pressure_s))
    for figure in (*parse_oomd([text]), *parse_earlyoom(words, GIB, 0), *figures):
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


@contextmanager
def called_nohang(conf: str, folder: Path) -> Iterator[int]:
    """A process of nobody that calls itself so, in that folder, with these words."""
    process = subprocess.Popen(
        [program("sh"), "-s", "--", "--monitor", "--config", conf],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=folder,
        user=65534 if os.geteuid() == 0 else None,
    )
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"printf nohang > /proc/$$/comm; echo; read line\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"\n"
        yield process.pid
    finally:
        process.communicate()


def level_of(pid: int) -> tuple[float | None, float | None]:
    gaps: list[Gap] = []
    (found,) = read_killers(Host(), read_processes(Host(), gaps, pids=[pid]), GIB, GIB, gaps)
    assert gaps == []
    return found.memory_percent, found.swap_free_percent


def test_of_the_files_that_anybody_may_name_no_pipe_and_no_device_is_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    pipe = os.open(tmp_path / "pipe", os.O_RDWR | os.O_NONBLOCK)
    try:
        os.write(pipe, b"soft_threshold_min_mem = 5 %\n")
        for path in (tmp_path / "pipe", "pipe", "/dev/zero", "/nowhere", ""):
            with called_nohang(str(path), tmp_path) as pid:
                assert level_of(pid) == (None, None)
        assert os.read(pipe, 99) == b"soft_threshold_min_mem = 5 %\n"
    finally:
        os.close(pipe)


def test_of_a_long_file_that_anybody_names_the_beginning_is_read(tmp_path: Path) -> None:
    level = "soft_threshold_min_mem = 5 %\nsoft_threshold_min_swap = 10 %\n"
    blanks = " " * 65000 + "x\n"  # of which each could be the end of a value
    (tmp_path / "conf").write_text(f"{level}a ={blanks}a{blanks}hard_threshold_min_mem = 40 %\n")
    with called_nohang("conf", tmp_path) as pid:
        assert level_of(pid) == (5, 10)


def _machine(root: Path, comm: str, files: dict[str, str]) -> Host:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    stat_line = f"7 ({comm}) S 1 7 7 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 1 0 100 0 10 " + "0 " * 30
    (root / "proc/7/stat").write_text(stat_line.rstrip() + "\n")
    return Host(str(root))


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("/usr/bin/python3 /usr/sbin/nohang --monitor --config /etc/nohang/mine.conf", [(5, 10)]),
        ("/usr/bin/python3 /usr/sbin/nohang -c /etc/nohang/mine.conf --monitor", [(5, 10)]),
        ("/usr/bin/python3 /usr/sbin/nohang --monitor --config mine.conf", [(5, 10)]),  # where it was started
        ("/usr/bin/python3 /usr/sbin/nohang --monitor --config ../mine.conf", [(None, None)]),
        ("/usr/bin/python3 /usr/sbin/nohang --monitor", [(None, None)]),
        ("/usr/bin/python3 /usr/sbin/nohang --monitor --config /etc/nohang/gone.conf", [(None, None)]),
        ("/usr/bin/python3 /usr/sbin/nohang --check --config /etc/nohang/mine.conf", []),  # it kills nobody
        ("hog --config /etc/nohang/mine.conf", []),  # who calls itself so
    ],
)
def test_nohang_is_told_by_the_file_that_it_was_started_with(
    words: str, found: list[tuple[float | None, float | None]], tmp_path: Path
) -> None:
    files = {
        "proc/7/status": "Name:\tnohang\nCapEff:\t00000004210840e6\n",
        "proc/7/cmdline": "".join(f"{word}\0" for word in words.split()),
        "etc/nohang/mine.conf": "soft_threshold_min_mem = 5 %\nsoft_threshold_min_swap = 10 %\n",
    }
    host, gaps = _machine(tmp_path, "nohang", files), list[Gap]()
    (tmp_path / "proc/7/cwd").symlink_to("/etc/nohang")
    told = read_killers(host, read_processes(host, [], page_bytes=4096), GIB, GIB, gaps)
    assert [(one.memory_percent, one.swap_free_percent) for one in told] == found
    assert all(one.may_kill_all for one in told)
    assert gaps == []


def test_drop_ins_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    files = {
        "proc/7/status": "Name:\tsystemd-oomd\nCapEff:\t0000000000000000\n",
        "etc/systemd/oomd.conf": "[OOM]\nSwapUsedLimit=50%\n",
        "usr/lib/systemd/oomd.conf": "[OOM]\nSwapUsedLimit=10%\nDefaultMemoryPressureLimit=10%\n",
        "usr/lib/systemd/oomd.conf.d/10-defaults.conf": "[OOM]\nDefaultMemoryPressureDurationSec=20s\n",
        "etc/systemd/oomd.conf.d/05-mine.conf": "[OOM]\nDefaultMemoryPressureDurationSec=5s\n",
        "etc/systemd/oomd.conf.d/notes.txt": "[OOM]\nDefaultMemoryPressureDurationSec=1s\n",
    }
    host, gaps = _machine(tmp_path, "systemd-oomd", files), list[Gap]()
    (found,) = read_killers(host, read_processes(host, [], page_bytes=4096), GIB, GIB, gaps)
    assert (found.swap_used_percent, found.pressure_percent, found.pressure_s) == (50, 60, 20)
    assert found.may_kill_all is False
    assert gaps == []

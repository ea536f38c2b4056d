"""This machine, looked at again and again: children of the test grow, end, and change their names."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest

from reprieve.machine.host import Host
from reprieve.machine.proc import read_processes
from reprieve.machine.sampler import TURNS, Sampler
from reprieve.model.machine import Machine, Zram
from reprieve.model.process import Process
from tests.machine.test_proc import headless

MIB = 1 << 20
_CHILD = """
import sys
held = []
print("ready", flush=True)
for line in sys.stdin:
    word, _, value = line.strip().partition(" ")
    if word == "take":
        held.append(bytearray(b"x" * int(value)))
    else:
        open(f"/proc/self/{word}", "w").write(value)
    print("done", flush=True)
"""


class Child:
    def __init__(self) -> None:
        argv = [sys.executable, "-S", "-c", _CHILD]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        self.pid = self.process.pid
        self._heard()

    def _heard(self) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline()

    def do(self, what: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{what}\n")
        self._heard()

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def child() -> Iterator[Child]:
    child = Child()
    yield child
    child.end()


def one(machine: Machine, pid: int) -> Process:
    (found,) = (process for process in machine.processes if process.pid == pid)
    return found


def test_memory_that_was_taken_is_seen_by_the_next_look(child: Child) -> None:
    sampler = Sampler()
    before = one(sampler.look(), child.pid)
    child.do(f"take {40 * MIB}")
    after = one(sampler.look(), child.pid)
    assert before.rss_anon_bytes is not None
    assert after.rss_anon_bytes is not None
    assert 40 * MIB <= after.rss_anon_bytes - before.rss_anon_bytes < 44 * MIB
    assert (after.start_ticks, after.cgroup, after.uid) == (before.start_ticks, before.cgroup, before.uid)


def test_what_others_take_is_seen_where_the_first_thread_has_exited() -> None:
    with headless(8 * MIB) as started:
        assert started.stdin is not None
        assert started.stdout is not None
        try:
            assert started.stdout.readline() == b"alone\n"
            sampler = Sampler()
            before = one(sampler.look(), started.pid)
            started.stdin.write(b"%d\n" % (16 * MIB))
            started.stdin.flush()
            assert started.stdout.readline() == b"more\n"
            after = one(sampler.look(), started.pid)
        finally:
            started.kill()
    assert (after.rss_bytes or 0) - (before.rss_bytes or 0) >= 16 * MIB


def test_who_came_is_there_and_who_ended_is_not(child: Child) -> None:
    sampler = Sampler()
    first = sampler.look()
    later = Child()
    assert later.pid not in {process.pid for process in first.processes}
    assert one(sampler.look(), later.pid).oom_score_adj is not None
    later.end()
    pids = {process.pid for process in sampler.look().processes}
    assert later.pid not in pids
    assert child.pid in pids


def test_the_tool_itself_is_not_told_of_nor_what_it_started(child: Child) -> None:
    sampler = Sampler(leave_out=frozenset({os.getpid()}))
    for _ in range(2):
        pids = {process.pid for process in sampler.look().processes}
        assert not pids & {os.getpid(), child.pid}
        assert os.getppid() in pids


def test_another_name_is_seen_by_the_next_look(child: Child) -> None:
    sampler = Sampler()
    sampler.look()
    sampler.look()
    child.do("comm renamed")
    assert one(sampler.look(), child.pid).comm == "renamed"


def test_what_nothing_in_stat_tells_is_seen_when_its_turn_has_come(child: Child) -> None:
    sampler = Sampler()
    sampler.look()
    child.do("oom_score_adj 777")
    seen = [one(sampler.look(), child.pid).oom_score_adj for _ in range(TURNS)]
    assert seen[-1] == 777


def test_what_is_not_read_again_is_as_if_it_were() -> None:
    children = [subprocess.Popen(["sleep", "600"]) for _ in range(5)]
    try:
        sampler = Sampler()
        for _ in range(3):
            machine = sampler.look()
        files = ("status", "oom_score_adj", "oom_score", "cgroup")
        pids = [process.pid for process in children]
        for found in read_processes(Host(), [], files=files, pids=pids, page_bytes=machine.page_bytes):
            seen = one(machine, found.pid)
            for name in ("start_ticks", "comm", "oom_score_adj", "rss_bytes", "rss_anon_bytes", "swap_bytes", "cgroup"):
                assert getattr(seen, name) == getattr(found, name), name
    finally:
        for process in children:
            process.kill()
            process.wait()


def test_zram_and_settings_are_read_again_when_their_turn_has_come() -> None:
    sampler = Sampler()
    first = sampler.look()
    sampler._machine = replace(first, zram=(Zram(name="zram7", size_bytes=1),), settings=(("x", "1"),))
    for _ in range(TURNS):
        machine = sampler.look()
    assert (machine.zram, machine.settings) == (first.zram, first.settings)


def test_the_machine_and_its_groups_move_on() -> None:
    sampler = Sampler()
    first, second = sampler.look(), sampler.look()
    assert first.taken_uptime_s is not None
    assert second.taken_uptime_s is not None
    assert second.taken_uptime_s > first.taken_uptime_s
    assert dict(second.vmstat) != dict(first.vmstat)
    settings = {group.path: (group.max_bytes, group.pids != ()) for group in first.cgroups}
    kept = [group for group in second.cgroups if group.path in settings]
    assert kept
    assert sum(group.max_bytes == settings[group.path][0] for group in kept) == len(kept)


# Everything a look may need was loaded by then: where memory has run out, a disk may not answer.
_AUDIT = """
import os, sys
from reprieve.machine.sampler import Sampler, TURNS
from reprieve.rules.survey import Surveyor
from reprieve.show import live, looks
sampler, surveyor = Sampler(), Surveyor()
surveyor.survey(sampler.look())
opened = set()
def hook(event, arguments):
    if event in ("open", "os.listdir", "os.scandir", "import"):
        opened.add(f"{event} {arguments[0]}")
sys.addaudithook(hook)
for _ in range(2 * TURNS):
    survey = surveyor.survey(sampler.look())
    lines = [*live.screenful(survey), looks.look(survey, 20), *looks.csv_look(survey, 20)]
print(*sorted(one for one in opened if not one.split(" ")[1].startswith(("/proc", "/sys"))), sep="\\n")
"""


def test_after_the_first_look_nothing_is_read_from_a_disk() -> None:
    done = subprocess.run([sys.executable, "-c", _AUDIT], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""

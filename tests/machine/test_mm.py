"""Processes of one memory, by those that the kernel makes so, and by whom it kills with them."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from reprieve.machine import mm
from reprieve.machine.demo import small_cgroup
from reprieve.machine.host import Host
from reprieve.machine.mm import note_shared_memory
from reprieve.machine.observe import observe
from reprieve.machine.proc import read_processes
from reprieve.model.finding import Failure
from reprieve.model.process import Process
from reprieve.oom.living import one_cgroup, predict
from tests.machine.real import missing

# A child of posix_spawn() has its parent's memory until it runs its own program: here it waits for somebody to write.
_SHARES = """
import ctypes, os, sys, threading, time
if os.fork() == 0:  # one that has a memory of its own, as large
    time.sleep(300)
    os._exit(0)
os.mkfifo(sys.argv[1])
libc, actions = ctypes.CDLL(None), ctypes.create_string_buffer(512)  # os.posix_spawn() would keep the GIL
libc.posix_spawn_file_actions_init(actions)
libc.posix_spawn_file_actions_addopen(actions, 9, os.fsencode(sys.argv[1]), os.O_RDONLY, 0)
argv = (ctypes.c_char_p * 2)(b"true", None)
spawn = lambda: libc.posix_spawn(ctypes.byref(ctypes.c_int()), b"/bin/true", actions, None, argv, None)
threading.Thread(target=spawn, daemon=True).start()
print("ready", flush=True)
sys.stdin.readline()
kept = [b"x" * (1 << 20) for _ in range(1000)]
"""
_PATIENCE_S = 60.0


class _Family:
    """A process, its child of the same memory, and its child of another."""

    def __init__(self, parent: "subprocess.Popen[str]") -> None:
        self.parent = parent
        end = time.monotonic() + _PATIENCE_S
        while len(children := self._children()) < 2:
            assert time.monotonic() < end
            time.sleep(0.02)
        self.forked, self.spawned = (one.pid for one in children)  # in the order of their start

    def _children(self) -> list[Process]:
        children = [one for one in read_processes(Host(), []) if one.ppid == self.parent.pid]
        return sorted(children, key=lambda one: (one.start_ticks, one.pid))


@contextlib.contextmanager
def _family(folder: Path, into: Path | None = None) -> Iterator[_Family]:
    pipe = subprocess.PIPE
    argv = ["sh", "-c", 'echo $$ > "$0"; exec "$@"', str(into or "/dev/null")]
    argv += [sys.executable, "-S", "-c", _SHARES, str(folder / "fifo")]
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True) as parent:
        try:
            assert parent.stdout is not None
            assert parent.stdout.readline() == "ready\n"
            family = _Family(parent)
            try:
                yield family
            finally:
                os.kill(family.forked, signal.SIGKILL)
                with contextlib.suppress(
                    OSError
                ):  # who waits for a writer has one, and ends; the kernel may have been first
                    os.close(os.open(folder / "fifo", os.O_WRONLY | os.O_NONBLOCK))
        finally:
            parent.kill()


def _may_compare() -> None:
    """A sandbox may forbid kcmp(2)."""
    compare = mm._kcmp()
    if compare is None or compare(os.getpid(), os.getpid()) != 0:
        missing("a machine that compares memories by kcmp(2)")


def _memories(pids: set[int]) -> dict[int, int | None]:
    processes = note_shared_memory(Host(), read_processes(Host(), []))
    return {one.pid: one.mm for one in processes if one.pid in pids}


def test_who_shares_a_memory_is_told_and_a_fork_does_not(tmp_path: Path) -> None:
    _may_compare()
    with _family(tmp_path) as family:
        parent = family.parent.pid
        told = _memories({parent, family.spawned, family.forked})
    assert told == {parent: parent, family.spawned: parent, family.forked: None}


def test_all_who_share_the_memory_of_the_victim_die_as_foretold(tmp_path: Path) -> None:
    _may_compare()
    try:
        with (
            small_cgroup("reprieve-mm", 64 << 20) as group,
            _family(tmp_path, Path(group.folder, "cgroup.procs")) as family,
        ):
            machine = observe(Host(), [], unique_s=0)
            path = next(one.cgroup for one in machine.processes if one.pid == family.spawned)
            assert path is not None
            domain = one_cgroup(machine, path)
            assert domain is not None
            foretold = predict(machine, domain)
            assert family.parent.stdin is not None
            family.parent.stdin.write("\n")
            family.parent.stdin.flush()
            assert family.parent.wait(_PATIENCE_S) == -9
            after = {one.pid: one.state for one in read_processes(Host(), [])}
    except Failure as failure:
        missing(failure.message)
    dead = {pid for pid in (family.parent.pid, family.spawned, family.forked) if after.get(pid) in (None, "Z", "X")}
    assert {one.pid for one in foretold.killed} == dead == {family.parent.pid, family.spawned}
    assert [one.pid for one in foretold.sharing] == [one.pid for one in foretold.killed[1:]]


def test_a_memory_that_may_not_be_compared_is_not_said_to_be_shared() -> None:
    alike = Process(pid=7, start_ticks=1, rss_bytes=4096, pgtables_bytes=4096, swap_bytes=0)
    processes = [alike, replace(alike, pid=8), replace(alike, pid=9)]
    assert note_shared_memory(Host(), processes, lambda one, other: -1) == processes


@pytest.mark.parametrize("order", [[1, 2, 3, 4, 5, 6], [6, 4, 2, 5, 3, 1]])
def test_each_memory_is_found_in_whatever_order_the_kernel_has_them(order: list[int]) -> None:
    memory = {1: 30, 2: 10, 3: 30, 4: 20, 5: 10, 6: 30}

    def compare(one: int, other: int) -> int:
        return (memory[one] < memory[other]) + 2 * (memory[one] > memory[other])

    alike = Process(pid=1, start_ticks=1, rss_bytes=4096, pgtables_bytes=4096, swap_bytes=0)
    told = note_shared_memory(Host(), [replace(alike, pid=pid) for pid in order], compare)
    assert {one.pid: one.mm for one in told} == {1: 1, 2: 2, 3: 1, 4: None, 5: 2, 6: 1}

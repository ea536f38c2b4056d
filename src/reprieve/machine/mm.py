"""Processes that share one memory, of which none survives another: kcmp(2) tells, and no file does.

A child of vfork() or posix_spawn() until it runs its own program, and whoever was made by clone(CLONE_VM) without
CLONE_THREAD. __oom_kill_process() in mm/oom_kill.c ends all of them, and its words in the log name one.
"""

import os
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cmp_to_key
from itertools import pairwise

from reprieve.machine.host import Host
from reprieve.model.process import Process

_KCMP_VM = 1  # include/uapi/linux/kcmp.h
_SYSCALL = {"x86_64": 312, "aarch64": 272, "riscv64": 272, "ppc64le": 354, "s390x": 343}
_MOST_ASKED = 512  # those that hold most, at a microsecond or two a question

Compare = Callable[[int, int], int]


def note_shared_memory(host: Host, processes: Sequence[Process], compare: Compare | None = None) -> list[Process]:
    """The same processes; those of which several have one memory with `mm`, the lowest pid among these.

    Whose memory we may not compare (that needs the right to trace it) stays as it is.
    """
    compare = compare or _kcmp()
    if host.root or compare is None:
        return list(processes)
    alike: defaultdict[tuple[int | None, int | None], list[int]] = defaultdict(list)
    for process in sorted(processes, key=lambda one: one.rss_bytes or 0, reverse=True)[:_MOST_ASKED]:
        if process.rss_bytes and not process.kernel_thread and process.living_thread is None:  # else it tells of none
            alike[process.pgtables_bytes, process.swap_bytes].append(process.pid)  # counters that are never off
    shared = {pid: mm for pids in alike.values() if len(pids) > 1 for pid, mm in _shared(pids, compare).items()}
    return [replace(one, mm=shared[one.pid]) if one.pid in shared else one for one in processes]


def _shared(pids: list[int], compare: Compare) -> dict[int, int]:
    """By pid: the lowest pid with the same memory. The kernel orders memories, so that neighbours are to be asked."""
    known = [pid for pid in sorted(pids) if compare(pid, pid) == 0]

    def in_order(one: int, other: int) -> int:
        return {1: -1, 2: 1}.get(compare(one, other), 0)

    known.sort(key=cmp_to_key(in_order))
    found: dict[int, int] = {}
    for one, other in pairwise(known):
        if compare(one, other) == 0:
            found[other] = found.setdefault(one, one)
    return found


def _kcmp() -> Compare | None:
    """0: one memory; 1, 2: another, in an order of the kernel's own; else it is not told. None: not on this machine."""
    number = _SYSCALL.get(os.uname().machine)
    if number is None or sys.maxsize < 1 << 32:  # of a program of 32 bits, the numbers are others
        return None
    import ctypes

    syscall = ctypes.CDLL(None).syscall
    return lambda one, other: int(syscall(number, one, other, _KCMP_VM, 0, 0))

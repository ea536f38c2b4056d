"""Looks at this machine's processes so many times: RSS and owner of all, badness of the 50 largest, PSS of the 25."""

from __future__ import annotations

import gc
import os
import sys
from heapq import nlargest

from reprieve.machine.host import Host
from reprieve.machine.memory import read_meminfo
from reprieve.machine.proc import measure_unique, read_processes
from reprieve.model.finding import Gap
from reprieve.model.machine import Machine
from reprieve.model.process import Process
from reprieve.oom.living import predict, whole_machine
from reprieve.oom.paths import workload

_CANDIDATES, _MEASURED = 50, 25


def scan() -> tuple[int, int, int]:
    """How many were seen, were given an owner, and were measured."""
    host, gaps = Host(), list[Gap]()
    page_bytes = os.sysconf("SC_PAGE_SIZE")
    everyone = read_processes(host, gaps, files=("cgroup",), page_bytes=page_bytes)
    groups = {process.cgroup for process in everyone}
    owners = {path: workload(path).name for path in groups if path is not None}
    largest = [process.pid for process in nlargest(_CANDIDATES, everyone, key=_rss)]
    candidates = read_processes(host, gaps, files=("status", "oom_score_adj"), pids=largest, page_bytes=page_bytes)
    machine = Machine(meminfo=read_meminfo(host, gaps), page_bytes=page_bytes, processes=tuple(candidates))
    domain = whole_machine(machine)
    assert domain is not None
    ranked = predict(machine, domain)
    first = [ranked.processes[candidate.pid] for candidate in ranked.choice.ranking[:_MEASURED]]
    measured = measure_unique(host, first, gaps, budget_s=60)
    with_owner = sum(process.cgroup in owners for process in everyone)
    return len(everyone), with_owner, sum(process.pss_bytes is not None for process in measured)


def _rss(process: Process) -> int:
    return process.rss_bytes or 0


if __name__ == "__main__":
    gc.set_threshold(100_000)  # as the command has it
    for _ in range(int(sys.argv[1])):
        print(*scan())

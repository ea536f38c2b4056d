"""The machine, looked at again and again: each time what moves is read, and in turn what seldom does.

To read all of 2,000 processes takes a fifth of a second, and nearly all of them did nothing since. So of each its
`stat` is read, and the rest only where memory came or went, or when its turn has come. Nothing of a disk is read after
the first look.
"""

import os
import time
from dataclasses import replace

from reprieve.machine.cgroup import read_cgroups, read_hierarchy
from reprieve.machine.containers import read_containers
from reprieve.machine.cri import read_cri
from reprieve.machine.host import Host
from reprieve.machine.memory import read_meminfo, read_pressure, read_swaps, read_sysctls, read_vmstat
from reprieve.machine.observe import observe
from reprieve.machine.proc import Glance, glance, list_pids, read_processes
from reprieve.machine.sysfs import read_settings, read_zram
from reprieve.model.cgroup import Cgroup
from reprieve.model.finding import Gap
from reprieve.model.machine import Container, Machine
from reprieve.model.process import Process
from reprieve.oom.paths import workload

TURNS = 20  # looks until each process, and each setting, was read again whatever it did
_FILES = ("status", "oom_score_adj", "cgroup")
_GROUP_FILES = (
    *("memory.current", "memory.swap.current", "memory.stat", "memory.pressure"),
    *("memory.usage_in_bytes", "memory.memsw.usage_in_bytes"),
)
_ENGINES_S = 60.0  # between two questions to an engine that may hang until its deadline


class Sampler:
    """Looks at this machine; `gaps` is what the first look, which is a whole one, could not see.

    `leave_out` are pids that are not told of, nor their children: this process ends before anybody is chosen, and what
    it started to listen to the journal with it.
    """

    def __init__(self, *, leave_out: frozenset[int] = frozenset()) -> None:
        self.gaps: list[Gap] = []
        self._host = Host()
        self._leave_out = leave_out
        self._page_bytes = os.sysconf("SC_PAGE_SIZE")
        self._hierarchy = read_hierarchy(self._host, [])
        self._looks = 0
        self._glances: dict[int, Glance] = {}
        self._known: dict[int, Process] = {}
        self._asked_s = time.monotonic()
        self._machine = self._first()

    def look(self) -> Machine:
        """The machine now. A process that was killed, or a group that was removed, meanwhile is not in it."""
        self._looks += 1
        if self._looks == 1:
            return self._machine
        host, unseen = self._host, list[Gap]()  # said by the first look, and not again each second
        seldom = self._looks % TURNS == 0
        processes, cgroups = self._processes(), self._cgroups(whole=seldom)
        self._machine = replace(
            self._machine,
            taken_wall_s=time.time(),
            taken_uptime_s=time.clock_gettime(time.CLOCK_BOOTTIME),
            meminfo=read_meminfo(host, unseen),
            vmstat=read_vmstat(host, unseen),
            pressure=read_pressure(host, unseen),
            swaps=read_swaps(host, unseen) if seldom else self._machine.swaps,
            sysctls=read_sysctls(host, unseen) if seldom else self._machine.sysctls,
            settings=read_settings(host, unseen) if seldom else self._machine.settings,
            zram=read_zram(host, unseen) if seldom else self._machine.zram,
            cgroups=cgroups,
            processes=processes,
            containers=self._containers(processes, cgroups),
        )
        return self._machine

    def _first(self) -> Machine:
        machine = observe(self._host, self.gaps, unique_s=0)
        self._known = {process.pid: process for process in machine.processes if process.pid not in self._leave_out}
        return replace(machine, processes=self._told())

    def _told(self) -> tuple[Process, ...]:
        return tuple(process for _, process in sorted(self._known.items()) if process.ppid not in self._leave_out)

    def _processes(self) -> tuple[Process, ...]:
        host, known, unseen = self._host, self._known, list[Gap]()
        turn, page_bytes = self._looks % TURNS, self._page_bytes
        glances: dict[int, Glance] = {}
        wanted = []
        for pid in list_pids(host, unseen):
            if pid in self._leave_out:
                continue
            before, process = self._glances.get(pid), known.get(pid)
            due = pid % TURNS == turn
            if process is not None and process.kernel_thread and not due:
                continue
            now = glance(host, pid, before)
            if now is None:
                known.pop(pid, None)
                continue
            glances[pid] = now
            if due or process is None or (now is not before and _moved(now, process, page_bytes)):
                wanted.append(pid)
        there = glances.keys() | {pid for pid, process in known.items() if process.kernel_thread}
        for pid in known.keys() - there:
            del known[pid]
        self._glances = glances
        for process in read_processes(host, unseen, files=_FILES, pids=wanted, page_bytes=page_bytes):
            known[process.pid] = process
        return self._told()

    def _cgroups(self, *, whole: bool) -> tuple[Cgroup, ...]:
        if self._hierarchy is None:
            return ()
        if not whole:
            earlier = {group.path: group for group in self._machine.cgroups}
            groups = read_cgroups(self._host, [], self._hierarchy, files=_GROUP_FILES)
            if all(group.path in earlier for group in groups):
                return tuple(_refreshed(earlier[group.path], group) for group in groups)
        return read_cgroups(self._host, [], self._hierarchy)

    def _containers(self, processes: tuple[Process, ...], cgroups: tuple[Cgroup, ...]) -> tuple[Container, ...]:
        """Asked for again when there is one that was not there, but not each second: an engine may hang."""
        now = time.monotonic()
        if now - self._asked_s < _ENGINES_S:
            return self._machine.containers
        self._asked_s = now
        paths = {group.path for group in cgroups} | {process.cgroup or "/" for process in processes}
        ids = {workload(path).container_id for path in paths}
        if ids <= {None, *(container.container_id for container in self._machine.containers)}:
            return self._machine.containers
        return read_containers(paths, []) + read_cri(self._host, paths, [])


def _moved(now: Glance, process: Process, page_bytes: int) -> bool:
    """Did memory come or go, or is it another? That it ran, or sleeps now, is nothing to us."""
    return (
        now.rss_pages * page_bytes != process.rss_bytes
        or now.start_ticks != process.start_ticks
        or now.comm != process.comm
        or now.zombie != (process.state in ("Z", "X"))
    )


def _refreshed(earlier: Cgroup, now: Cgroup) -> Cgroup:
    return replace(
        earlier,
        current_bytes=now.current_bytes,
        swap_current_bytes=now.swap_current_bytes,
        memsw_current_bytes=now.memsw_current_bytes,
        stat=now.stat,
        pressure=now.pressure,
    )

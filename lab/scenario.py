"""What a scenario is: what it does to memory, and what the kernel must say about it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

from lab.guest import GuestDied
from lab.states import saved

GLOBAL, MEMCG = "CONSTRAINT_NONE", "CONSTRAINT_MEMCG"
CPUSET, MEMPOLICY = "CONSTRAINT_CPUSET", "CONSTRAINT_MEMORY_POLICY"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What one OOM report must say, by what the scenario did. None: nobody, or nothing of the kind."""

    victim: str | None
    constraint: str | None  # None: the kernel gave up before it printed one
    limit_of: str | None = None  # the cgroup whose limit was reached
    limit_bytes: int | None = None
    victim_in: str = "/"  # the victim's own cgroup
    also_killed: tuple[str, ...] | None = ()  # the rest of a group, sorted; None: others, and a race decides who
    victim_adj: int = 0
    order: int | Literal["any"] = 0
    swap_bytes: int | None = 0  # of the machine; None: a memcg report does not tell
    tasks: bool = True  # the task table is printed
    allocating_task: bool = False  # vm.oom_kill_allocating_task chose
    panic: str | None = None
    finds: tuple[str, ...] = ()  # codes of the findings that must explain it


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A script for a guest, and what becomes of it."""

    name: str
    does: str  # to memory, in a sentence
    script: str
    reports: tuple[Report, ...] = ()  # in order; none: the kernel kills nobody
    more_reports: bool = False  # others may follow, or fill the time: a storm, innocents, a group that is empty now
    status: int | None = 0  # of the script; None where the guest panics
    prints: tuple[str, ...] = ()  # the script
    logs: tuple[str, ...] = ()  # the kernel, besides
    machine: str = "mini"
    kernels: tuple[str, ...] | None = None  # series that can; None: all
    timeout_s: float = 180

    @property
    def panics(self) -> bool:
        """The guest does not survive it."""
        return any(report.panic for report in self.reports)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a scenario."""

    log: str  # the kernel's, from the start of the scenario
    output: str  # the script's; empty where the guest panicked
    status: int | None
    seconds: float  # of the script, as this machine's clock counts


def play(scenario: Scenario, series: str) -> Outcome:
    """Run a scenario in a fresh copy of the saved guest. Raises GuestDied where it should have lived, GuestSilent."""
    with saved(series, scenario.machine).restore() as guest:
        start = time.monotonic()
        try:
            answer = guest.run(scenario.script, timeout_s=scenario.timeout_s)
        except GuestDied:
            if not scenario.panics:
                raise
            guest.wait_end()
            return Outcome(log=guest.console(), output="", status=None, seconds=time.monotonic() - start)
        seconds = time.monotonic() - start
        guest.run("sleep 0.3")  # the reaper is a thread of its own, and may be late
        return Outcome(log=guest.kernel_log(), output=answer.output, status=answer.status, seconds=seconds)

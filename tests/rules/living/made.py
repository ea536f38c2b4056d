"""Machines changed from captured ones, for the edges of rules."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

from reprieve.machine.host import Host
from reprieve.machine.observe import observe
from reprieve.model.machine import Machine
from reprieve.model.pressure import Pressure

HOSTS = Path(__file__).parents[2] / "hosts"
MIB = 1024 * 1024


@cache
def captured(name: str) -> Machine:
    """A machine of tests/hosts."""
    return observe(Host(str(HOSTS / name)), [], unique_s=0)


def with_meminfo(machine: Machine, **bytes_of: int) -> Machine:
    """With these figures in place of, or beside, its own; `Active_file` is Active(file)."""
    return replace(machine, meminfo=tuple((dict(machine.meminfo) | bytes_of).items()))


def with_sysctls(machine: Machine, **values: int) -> Machine:
    """With these settings of vm.*."""
    told = dict(machine.sysctls) | {f"vm.{name}": str(value) for name, value in values.items()}
    return replace(machine, sysctls=tuple(told.items()))


def with_group(machine: Machine, path: str, **facts: object) -> Machine:
    """With these facts of a group in place of its own."""
    groups = tuple(
        replace(group, **facts) if group.path == path else group  # type: ignore[arg-type]
        for group in machine.cgroups
    )
    return replace(machine, cgroups=groups)


def crowded() -> Machine:
    """A group that stands still at memory.high, another near its limit, and a machine that would panic."""
    machine = captured("v2-mini-6.12")
    stalled = (
        Pressure(kind="some", avg10_percent=93.5, avg60_percent=60, avg300_percent=20, total_us=1),
        Pressure(kind="full", avg10_percent=93.5, avg60_percent=60, avg300_percent=20, total_us=1),
    )
    nothing = (("inactive_file", 0), ("active_file", 0))
    high = {
        "current_bytes": 32 * MIB,
        "high_bytes": 32 * MIB,
        "max_bytes": "max",
        "swap_max_bytes": 0,
        "pressure": stalled,
    }
    machine = with_group(machine, "/app/web", **high, stat=nothing)
    machine = with_group(machine, "/app/batch", current_bytes=23 * MIB, stat=nothing)
    return with_sysctls(machine, panic_on_oom=1)

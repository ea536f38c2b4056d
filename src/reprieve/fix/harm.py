"""Values that would do harm on this machine as it is now: each with the figure that says so, and what would work."""

from collections.abc import Iterable
from math import ceil
from typing import NamedTuple

from reprieve.model.finding import Change, Place
from reprieve.model.machine import Machine
from reprieve.units import size

_ROOM = 1.25  # of what has been promised: a limit without room refuses the next program
_RATIO = 50  # vm.overcommit_ratio where nothing is said


class Objection(NamedTuple):
    """Why not, and what would work."""

    reason: str
    instead: str


def objections(changes: Iterable[Change], machine: Machine) -> dict[Place, Objection]:
    """Which of the changes, made together, would do harm."""
    wanted = {change.place: change.want for change in changes}
    found = {}
    strict = Place(kind="sysctl", key="vm.overcommit_memory")
    if wanted.get(strict) == "2" and (objection := _strict(wanted, machine)):
        found[strict] = objection
    return found


def _strict(wanted: dict[Place, str | None], machine: Machine) -> Objection | None:
    """vm.overcommit_memory=2 refuses all that is asked for beyond CommitLimit: at once, if more has been promised.

    The limit is vm_commit_limit() in mm/util.c: RAM without huge pages times vm.overcommit_ratio, or
    vm.overcommit_kbytes, and all swap.
    """
    told = dict(machine.meminfo)
    promised, ram, swap = (told.get(name) for name in ("Committed_AS", "MemTotal", "SwapTotal"))
    if promised is None or ram is None:
        return Objection("how much has been promised is not told", "look at Committed_AS in /proc/meminfo")
    ram -= sum(pool.page_bytes * (pool.total or 0) for pool in machine.huge_pools if pool.node is None)
    ratio = _number(wanted, machine, "vm.overcommit_ratio")
    kbytes = _number(wanted, machine, "vm.overcommit_kbytes")
    fixed = kbytes * 1024 if kbytes else ram * (_RATIO if ratio is None else ratio) // 100
    limit = fixed + (swap or 0)
    if promised < limit:
        return None
    enough = ceil((promised * _ROOM - (swap or 0)) / ram * 100)
    return Objection(
        f"{size(promised)} have been promised (Committed_AS), and the limit would be {size(limit)} (CommitLimit): from "
        "then on programs would be refused memory that is free",
        f"a ratio of {enough} leaves room for a quarter more: reprieve fix overcommit strict --ratio {enough}",
    )


def _number(wanted: dict[Place, str | None], machine: Machine, name: str) -> int | None:
    told = wanted.get(Place(kind="sysctl", key=name)) or dict(machine.sysctls).get(name)
    return int(told) if told is not None and told.isascii() and told.isdecimal() else None

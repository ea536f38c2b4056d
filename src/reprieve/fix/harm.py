"""Values that would do harm on this machine as it is now: each with the figure that says so, and what would work."""

from collections.abc import Iterable
from math import ceil
from typing import NamedTuple

from reprieve.model.cgroup import Cgroup
from reprieve.model.finding import Change, Place
from reprieve.model.machine import Machine
from reprieve.units import MIB, parse_size, size

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
    for place, want in wanted.items():
        objection = None
        if place.kind == "unit":
            objection = _unit(place, want, machine)
        elif place.kind == "container":
            objection = _container(place, want, machine)
        if objection is not None:
            found[place] = objection
    return found


def _unit(place: Place, want: str | None, machine: Machine) -> Objection | None:
    """A limit below what is held now kills at once, or stands still; an exemption makes others die for it."""
    if place.key == "OOMScoreAdjust" and want == "-1000":
        return Objection(
            "at -1000 the kernel never chooses it, however it grows: others die first, and what it starts inherits it",
            "-900 protects it as long as it holds less than nine tenths of the memory",
        )
    limit = None if want is None else parse_size(want)
    if limit is None or place.key not in ("MemoryMax", "MemoryHigh"):
        return None
    unit = next((one for one in machine.units if one.name == place.of), None)
    group = next((one for one in machine.cgroups if unit is not None and one.path == unit.cgroup), None)
    held = None if group is None else _held_bytes(group)
    if held is None or limit >= held:
        return None
    if place.key == "MemoryMax":
        return _below(held)
    if not dict(machine.meminfo).get("SwapFree"):
        return Objection(
            f"it holds {size(held)} that cannot be taken back without swap: it would stand "
            "still, neither killed nor done",
            "MemoryMax, at which it is killed, or swap first: reprieve fix swap",
        )
    return None


def _container(place: Place, want: str | None, machine: Machine) -> Objection | None:
    """Its group is the first that bears its id; beside it may be that of its monitor."""
    limit, container_id = parse_size((want or "").partition("+")[0]), place.of.rpartition("/")[2]
    if limit is None:
        return None
    for group in machine.cgroups:
        name = group.path.rpartition("/")[2]
        if container_id in name and "conmon" not in name:
            held = _held_bytes(group)
            return _below(held) if held is not None and limit < held else None
    return None


def _held_bytes(group: Cgroup) -> int | None:
    """What it holds that is not cache of files."""
    if group.current_bytes is None:
        return None
    stat, prefix = dict(group.stat), "total_" if group.version == 1 else ""
    return group.current_bytes - stat.get(f"{prefix}inactive_file", 0) - stat.get(f"{prefix}active_file", 0)


def _below(held: int) -> Objection:
    return Objection(
        f"it holds {size(held)} beside its cache: what swap cannot take of that ends in a kill at once",
        f"more than it holds: {-(-held // MIB)}M",
    )


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
    by_ratio = Place(kind="sysctl", key="vm.overcommit_ratio") in wanted  # which ends vm.overcommit_kbytes
    kbytes = None if by_ratio else _number(wanted, machine, "vm.overcommit_kbytes")
    fixed = kbytes * 1024 if kbytes else ram * (_RATIO if ratio is None else ratio) // 100
    limit = fixed + (swap or 0)
    if promised * _ROOM <= limit:
        return None
    enough = ceil((promised * _ROOM - (swap or 0)) / ram * 100)
    return Objection(
        f"{size(promised)} have been promised (Committed_AS), and the limit would be {size(limit)} (CommitLimit): "
        "programs would be refused memory that is free",
        f"a ratio of {enough} leaves room for a quarter more: reprieve fix overcommit strict --ratio {enough}",
    )


def _number(wanted: dict[Place, str | None], machine: Machine, name: str) -> int | None:
    told = wanted.get(Place(kind="sysctl", key=name)) or dict(machine.sysctls).get(name)
    return int(told) if told is not None and told.isascii() and told.isdecimal() else None

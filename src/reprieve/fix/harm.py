"""Values that would do harm on this machine as it is now: each with the figure that says so, and what would work."""

from collections.abc import Iterable
from math import ceil
from typing import NamedTuple

from reprieve.model.cgroup import Cgroup
from reprieve.model.finding import Change, Place, quote
from reprieve.model.machine import Machine
from reprieve.model.zram import RATIO
from reprieve.units import MIB, parse_size, size

_ROOM = 1.25  # of what is held, or has been promised: a limit without room kills, or refuses, the next
_ADJUSTS = ("OOMScoreAdjust", "oom_score_adj")
_RATIO = 50  # vm.overcommit_ratio where nothing is said


class Objection(NamedTuple):
    """Why not, and what would work."""

    reason: str
    instead: str
    may_be_forced: bool = True  # False: the kernel would not take it either


def objections(changes: Iterable[Change], machine: Machine) -> dict[Place, Objection]:
    """Which of the changes, made together, would do harm."""
    wanted = {change.place: change.want for change in changes}
    found = {}
    strict = Place(kind="sysctl", key="vm.overcommit_memory")
    if wanted.get(strict) == "2" and (objection := _strict(wanted, machine)):
        found[strict] = objection
    for place, want in wanted.items():
        if place.key in _ADJUSTS:
            objection = _exempt(want)
        elif place.kind == "redis":
            objection = _redis(place, want, machine)
        elif place.kind == "container":
            objection = _container(place, want, machine)
        elif place.kind == "zram":
            objection = _zram(want, machine)
        else:
            objection = _limit(place, want, machine)
        if objection is not None:
            found[place] = objection
    return found


def below_use(limit_bytes: int, held_bytes: int, pod: str) -> Objection | None:
    """A limit of a container below what it holds in a pod, told by the node of that."""
    if limit_bytes >= held_bytes:
        return None
    return Objection(
        f"in pod {quote(pod)} it holds {size(held_bytes)} (working set), and is killed before it holds as much again",
        _with_room(held_bytes),
    )


def _with_room(held_bytes: int) -> str:
    return f"more than it holds, with a quarter to grow: {ceil(held_bytes * _ROOM / MIB)}M"


def price(change: Change, machine: Machine) -> str | None:
    """What a value of the kernel's settings costs here, where it costs something: what `reprieve check` would find."""
    match change.place.kind, change.place.key, change.want:
        case "sysctl", "vm.panic_on_oom", "1" | "2":
            every = ", and when a cgroup or a container reaches its own limit" if change.want == "2" else ""
            return f"the machine stops the first time that all memory is used{every}; {_after_panic(machine)}"
        case "sysctl", "vm.swappiness", _ if dict(machine.meminfo).get("SwapTotal") == 0:
            return "none, and no use, until there is swap: here is none"
        case "sysctl", "vm.swappiness", "0":
            return "a process of a cgroup at its limit is killed though swap is free"
        case "sysctl", "vm.overcommit_memory", "1":
            return "what cannot be held is promised too: nobody is refused memory, and who uses it is killed"
        case _:
            return None


def lifting(change: Change, machine: Machine) -> str | None:
    """What it costs that a limit is lifted: what bounds it then."""
    place, want = change.place, change.want
    if place.kind == "k8s":
        lifted = want is None or want.startswith("+")  # beside a request
        return f"{_FREE}: what it takes is missed by the other pods of its node" if lifted else None
    memory, _, swap = (want or "").partition("+")
    if memory in _NONE and (place.key in _MAX or place.kind == "container"):
        return f"{_FREE}: {_above(_group(place, machine), machine)}"
    if memory in _NONE and place.key in _HIGH:
        return f"nothing slows it down before its {_HIGH[place.key]}, if it has one"
    if swap == "max" or (memory in _NONE and place.key in _SWAP):
        return "it may use all the swap there is, which others need too"
    return None


_FREE = "no limit of its own bounds it any more"
_NONE = ("max", "infinity")


def _above(group: Cgroup | None, machine: Machine) -> str:
    """Who dies then for what it takes: the tightest limit around it decides."""
    if group is not None:
        around = [
            (one.max_bytes, one.path)
            for one in machine.cgroups
            if isinstance(one.max_bytes, int) and one.path != "/" and group.path.startswith(f"{one.path}/")
        ]
        if around:
            limit, path = min(around)
            return f"with all else in {quote(path)} it has {size(limit)}, and any of that may be killed for it"
    return "when it takes what the machine has, the kernel chooses among all processes, and another may die"


def _after_panic(machine: Machine) -> str:
    after = dict(machine.sysctls).get("kernel.panic")
    if after is None:
        return "it boots again only if kernel.panic is not 0"
    return f"it {'stays so, as' if after == '0' else 'boots again, as'} kernel.panic is {after}"


def _exempt(want: str | None) -> Objection | None:
    """An exemption makes others die for it."""
    if want == "-1000":
        return Objection(
            "at -1000 the kernel never chooses it, however it grows: others die first, and what it starts inherits it",
            "-900 protects it as long as it holds less than nine tenths of the memory",
        )
    return None


def _limit(place: Place, want: str | None, machine: Machine) -> Objection | None:
    """A limit below what is held now kills at once, or stands still."""
    limit, group = None if want is None else parse_size(want), _group(place, machine)
    if limit is None or group is None or place.key not in (*_MAX, *_HIGH):
        return None
    held = _held_bytes(group, of_both=place.key == _MEMSW)
    if held is None or limit >= held:
        return None
    if place.key in _MAX:
        return _below(held, group, machine)
    if not dict(machine.meminfo).get("SwapFree"):
        return Objection(
            f"it holds {size(held)} that cannot be taken back without swap: it would stand "
            "still, neither killed nor done",
            f"{_HIGH[place.key]}, at which it is killed, or swap first: reprieve fix swap",
        )
    return None


_MEMSW = "memory.memsw.limit_in_bytes"
_MAX = ("MemoryMax", "memory.max", "memory.limit_in_bytes", _MEMSW)
_HIGH = {"MemoryHigh": "MemoryMax", "memory.high": "memory.max"}  # and what kills instead
_SWAP = ("MemorySwapMax", "memory.swap.max")


def _group(place: Place, machine: Machine) -> Cgroup | None:
    """The group that a limit is for."""
    path = place.of if place.kind == "cgroup" else None
    if place.kind == "unit":
        path = next((unit.cgroup for unit in machine.units if unit.name == place.of), None)
    if place.kind == "container":
        return _group_of_container(place.of.rpartition("/")[2], machine)
    return next((group for group in machine.cgroups if group.path == path), None)


def _redis(place: Place, want: str | None, machine: Machine) -> Objection | None:
    """A maxmemory below what is held: writes are refused at once, or keys thrown away."""
    most = parse_size(want) if want is not None and place.key == "maxmemory" else None
    server = next((one for one in machine.redis if f"{one.pid}@{one.start_ticks}" == place.of.partition("/")[2]), None)
    if not most or server is None or server.used_memory_bytes is None or most >= server.used_memory_bytes:
        return None
    held = size(server.used_memory_bytes)
    then = "it would refuse all writes at once"
    if server.maxmemory_policy not in (None, "noeviction"):
        then = f"it would throw away {size(server.used_memory_bytes - most)} at once ({server.maxmemory_policy})"
    return Objection(f"it holds {held}, and {then}", f"more than it holds: {-(-server.used_memory_bytes // MIB)}mb")


def _zram(want: str | None, machine: Machine) -> Objection | None:
    """More than twice the memory: Documentation/admin-guide/blockdev/zram.rst expects a ratio of 2:1, as measured.

    What is swapped to it stays in memory; full at that ratio, twice the memory would fill all of it.
    """
    wanted, ram = None if want is None else parse_size(want), dict(machine.meminfo).get("MemTotal")
    if machine.cgroup_private:
        return Objection("this is a container: it would be swap of the whole machine's", "do it on the host")
    if wanted is None or ram is None or wanted <= ram * RATIO:
        return None
    return Objection(
        f"what is swapped to zram stays in memory, at half its size or so: {size(wanted)} would take more than the "
        f"{size(ram)} there are",
        f"half of the memory is usual, twice is the most: --size {ram // 2 // MIB}M, a swap file beside it for more",
    )


def _container(place: Place, want: str | None, machine: Machine) -> Objection | None:
    """Its group is the first that bears its id; beside it may be that of its monitor."""
    limit, group = parse_size((want or "").partition("+")[0]), _group(place, machine)
    if limit is None or group is None:
        return None
    held = _held_bytes(group)
    return _below(held, group, machine) if held is not None and limit < held else None


def _group_of_container(container_id: str, machine: Machine) -> Cgroup | None:
    for group in machine.cgroups:
        name = group.path.rpartition("/")[2]
        if container_id in name and "conmon" not in name:
            return group
    return None


def _held_bytes(group: Cgroup, *, of_both: bool = False) -> int | None:
    """What it holds that is not cache of files, in swap too where that counts."""
    used = group.memsw_current_bytes if of_both else group.current_bytes
    if used is None:
        return None
    stat, prefix = dict(group.stat), "total_" if group.version == 1 else ""
    return used - stat.get(f"{prefix}inactive_file", 0) - stat.get(f"{prefix}active_file", 0)


def _below(held: int, group: Cgroup, machine: Machine) -> Objection:
    swaps = bool(dict(machine.meminfo).get("SwapFree"))
    ends = "ends in a kill at once" if group.version == 2 else "stays, and the kernel refuses the limit"
    return Objection(
        f"it holds {size(held)} beside its cache: what swap cannot take of that {ends}",
        _with_room(held),
        may_be_forced=group.version == 2 or swaps,
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

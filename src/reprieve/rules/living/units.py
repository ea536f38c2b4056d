"""What unit files of systemd say about memory, and what became of it."""

from collections.abc import Iterator
from typing import NamedTuple

from reprieve.model.finding import Evidence, Finding, Remedy, quote
from reprieve.model.machine import Machine
from reprieve.model.process import Process
from reprieve.model.snapshot import Snapshot
from reprieve.model.unit import Unit, UnitLine
from reprieve.model.workload import Workload
from reprieve.oom.groups import owner
from reprieve.rules.living.facts import named, process_line
from reprieve.rules.living.written import Ignored, Value, read

_HELD = {
    "MemoryMax": "memory_max_bytes",
    "MemoryHigh": "memory_high_bytes",
    "MemoryLow": "memory_low_bytes",
    "MemoryMin": "memory_min_bytes",
    "MemorySwapMax": "memory_swap_max_bytes",
    "MemoryLimit": "memory_limit_bytes",
    "OOMScoreAdjust": "oom_score_adjust",
    "OOMPolicy": "oom_policy",
    "ManagedOOMSwap": "managed_oom_swap",
    "ManagedOOMMemoryPressure": "managed_oom_memory_pressure",
    "ManagedOOMMemoryPressureLimit": "managed_oom_memory_pressure_limit_percent",
    "ManagedOOMPreference": "managed_oom_preference",
}
_ROUNDED_BYTES = 64 * 1024  # to whole pages, of the largest there are
_TICKS = 100  # a second
_CLOCKS_S = 2
_NAMED = 3
_OWN_FOLDERS = ("/etc/", "/run/")  # whose files the owner of the machine writes; the others come with a package


class _Refused(NamedTuple):
    line: UnitLine
    key: str  # as systemd spells it
    why: Ignored


def unit_setting_ignored(snapshot: Snapshot) -> Iterator[Finding]:
    """A unit file says something about memory that systemd does not do.

    systemd has no comments behind a value: `MemoryMax=2G # the limit` is no limit, and a line in the journal is all
    that tells. So it is with units it does not know (2GB, 2GiB, 2g), with a fraction or a figure out of range for
    OOMScoreAdjust, with another section than that of the unit's kind, and with another spelling of the name. A file
    that was changed is not read again before `systemctl daemon-reload`. The service then lives without the limit, or
    without the protection, that everybody believes it has.

    Source: systemd.syntax(7), systemd.resource-control(5), systemd.exec(5); src/core/load-fragment.c.
    """
    machine = snapshot.machine
    for unit in () if machine is None else machine.units:
        about = owner(unit.cgroup, machine.containers) if machine is not None and unit.cgroup else None
        taken: dict[str, tuple[UnitLine, Value]] = {}
        refused: dict[str, _Refused] = {}
        for line in unit.lines:
            if line.section.startswith("X-"):  # meant for others: systemd.syntax(7)
                continue
            key = _key(line)
            value = read(unit.name, line)
            if isinstance(value, Ignored):
                refused[key] = _Refused(line, key, value)
            else:
                taken[key] = (line, value)
                refused.pop(key, None)  # a later line makes up for it
        if lost := [one for one in refused.values() if not _is_so_anyway(unit, one)]:
            yield _ignored(unit, about, lost)
        new = {key: line for key, (line, value) in taken.items() if not _agree(value, _held(unit, key))}
        if new and unit.need_daemon_reload:  # else it was set by hand, or a setting that this systemd has not
            yield _unread(unit, about, new)


def _key(line: UnitLine) -> str:
    return next(key for key in _HELD if key.lower() == line.key.lower())


def _held(unit: Unit, key: str) -> object:
    """What the manager holds; None: it was not asked, or has no such setting."""
    return getattr(unit, _HELD[key])


def _agree(wanted: Value, held: object) -> bool:
    """Is it so, as far as can be told? A share is of what the manager takes for all memory: any limit agrees."""
    if wanted is None or held is None:
        return True
    if isinstance(wanted, float):
        return abs(held - wanted) < 0.1 if isinstance(held, float) else held != "max"
    if isinstance(wanted, int) and isinstance(held, int) and wanted > _ROUNDED_BYTES:
        return abs(held - wanted) < _ROUNDED_BYTES
    return wanted == held


def _is_so_anyway(unit: Unit, refused: _Refused) -> bool:
    """Does the manager hold what was meant, or is there no telling what that was and the manager tells of no such?"""
    held = _held(unit, refused.key)
    if unit.active is None:
        return False
    if held is None:
        return refused.why.instead is not None and refused.why.section is None  # too old to have the setting
    if refused.why.instead is None:
        return False
    line = UnitLine(path="", line=0, section=_section(unit), key=refused.key, value=refused.why.instead, text="")
    meant = read(unit.name, line)
    return not isinstance(meant, Ignored) and _agree(meant, held)


def _section(unit: Unit) -> str:
    return unit.name.rpartition(".")[2].capitalize()


def _ignored(unit: Unit, about: Workload | None, lost: list[_Refused]) -> Finding:
    reasons = list(dict.fromkeys(one.why.reason for one in lost))
    more = f" (and {len(reasons) - 1} reasons more)" if len(reasons) > 1 else ""
    keys = _listed([one.key for one in lost])
    return Finding(
        code="unit-setting-ignored",
        severity="warning",
        confidence="likely" if unit.active is None else "certain",
        claim=f"systemd ignores {keys} of {quote(unit.name)}: {reasons[0]}{more}",
        detail=tuple(f"{one.key}: {one.why.reason}" for one in lost) if more else (),
        about=about,
        subject=unit.name,
        evidence=(*(_line(one.line) for one in lost), *_managers(unit, [one.key for one in lost])),
        remedies=_rewritten(unit, lost),
    )


def _unread(unit: Unit, about: Workload | None, lines: dict[str, UnitLine]) -> Finding:
    restart = _restart(unit, lines)
    return Finding(
        code="unit-setting-ignored",
        severity="warning",
        confidence="certain",
        claim=f"systemd does not know yet what the files of {quote(unit.name)} say of {_listed(list(lines))}: "
        "they were changed, and not read again",
        about=about,
        subject=unit.name,
        evidence=(*map(_line, lines.values()), *_managers(unit, list(lines))),
        remedies=(
            Remedy(
                title="Have systemd read its files again",
                cost=_COST if restart else None,
                commands=(("systemctl", "daemon-reload"), *restart),
            ),
        ),
    )


_COST = "the unit is restarted: oom_score_adj is given at its start"


def _restart(unit: Unit, keys: dict[str, UnitLine] | list[str]) -> tuple[tuple[str, ...], ...]:
    return (("systemctl", "restart", unit.name),) if "OOMScoreAdjust" in keys and unit.active == "active" else ()


def _rewritten(unit: Unit, lost: list[_Refused]) -> tuple[Remedy, ...]:
    """Each line as it was meant, where that can be told, in the place of the one that is ignored."""
    commands: list[tuple[str, ...]] = []
    plain = [one for one in lost if one.why.instead is not None and not one.line.text.endswith("\\")]
    for path in dict.fromkeys(one.line.path for one in plain):
        target = path
        if not path.startswith(_OWN_FOLDERS):
            target = f"/etc/systemd/system/{path.partition('/systemd/system/')[2]}"
            commands.append(("install", "-D", "-m", "644", path, target))
        script = [
            word
            for one in plain
            if one.line.path == path
            for word in _edit(one.line.line, f"{one.key}={one.why.instead}", one.why.section)
        ]
        commands.append(("sed", "-i", *script, target))
    settings = ", ".join(f"{one.key}={one.why.instead}" for one in plain)
    if not commands:
        return (Remedy(title="Write a value that systemd takes: systemctl edit --full", commands=()),)
    restart = _restart(unit, [one.key for one in plain])
    return (
        Remedy(
            title=f"Write it as systemd takes it: {quote(settings)}",
            cost=_COST if restart else None,
            commands=(*commands, ("systemctl", "daemon-reload"), *restart),
        ),
    )


def _edit(line: int, setting: str, section: str | None) -> tuple[str, ...]:
    """For sed(1). In another section it goes to the end of the file: a section may be begun twice."""
    if section is None:
        return ("-e", f"{line}s/.*/{setting}/")
    return ("-e", f"$a [{section}]\\n{setting}", "-e", f"{line}d")


def _line(line: UnitLine) -> Evidence:
    return Evidence(text=line.text, source=line.path, line=line.line)


def _managers(unit: Unit, keys: list[str]) -> tuple[Evidence, ...]:
    """What the manager holds, as systemctl(1) shows it."""
    held = {key: _held(unit, key) for key in keys}
    return tuple(
        Evidence(text=f"{key}={'infinity' if value == 'max' else value}", source=f"systemctl show {unit.name}")
        for key, value in held.items()
        if value is not None
    )


def _listed(keys: list[str]) -> str:
    return ", ".join(keys[:-1]) + (" and " if keys[:-1] else "") + keys[-1]


class _Other(NamedTuple):
    """A unit whose main process has another oom_score_adj than the unit gives it."""

    unit: Unit
    line: UnitLine
    wanted: int
    process: Process
    has: int


def unit_adj_differs(snapshot: Snapshot) -> Iterator[Finding]:
    """A service has not the oom_score_adj that its unit gives it.

    OOMScoreAdjust= is set once, before the program starts: what is written later holds from the next start on. A
    program may change its own, as database servers do for their workers. And where CAP_SYS_RESOURCE is missing, as in
    most containers, systemd may not lower it below what the container was started with, and goes on without a word.
    What counts when memory runs out is what the process has.

    Source: exec_child() in src/core/execute.c ("assuming containerized execution"); __set_oom_adj() in fs/proc/base.c;
    systemd.exec(5).
    """
    machine = snapshot.machine
    if machine is None:
        return
    others = list(_others(machine))
    # Threads of the kernel are in the first pid namespace alone.
    if not any(process.kernel_thread for process in machine.processes):
        if denied := [one for one in others if one.wanted < one.has]:
            yield _denied(denied)
        others = [one for one in others if one not in denied]
    for one in others:
        yield _differs(machine, one)


def _others(machine: Machine) -> Iterator[_Other]:
    by_pid = {process.pid: process for process in machine.processes}
    for unit in machine.units:
        process, line = by_pid.get(unit.main_pid or 0), _wished(unit)
        wanted, has = unit.oom_score_adjust, None if process is None else process.oom_score_adj
        if process is not None and line is not None and wanted is not None and has not in (None, wanted):
            yield _Other(unit, line, wanted, process, has or 0)


def _differs(machine: Machine, one: _Other) -> Finding:
    unit, process = one.unit, one.process
    older = _is_older(machine, process, one.line)
    again = Remedy(
        title="Start it anew, with what its unit says",
        cost="the unit is restarted",
        commands=(("systemctl", "restart", unit.name),),
    )
    now = Remedy(
        title="Set it now; it lasts until the program or a restart sets another",
        commands=(("choom", "--pid", str(process.pid), "--adjust", str(one.wanted)),),
    )
    why = "It is older than the setting: it was not restarted since." if older else "The program has changed its own."
    return Finding(
        code="unit-adj-differs",
        severity="warning" if one.has > one.wanted else "notice",
        confidence="certain",
        claim=f"{quote(unit.name)} is to run with oom_score_adj {one.wanted}, and {named(process)} has {one.has}",
        detail=(why,),
        about=owner(process.cgroup or "/", machine.containers),
        subject=unit.name,
        evidence=(_line(one.line), *_managers(unit, ["OOMScoreAdjust"]), process_line(process)),
        remedies=(again, now) if older else (now,),
    )


def _denied(denied: list[_Other]) -> Finding:
    """One for all of a container: what it lacks, it lacks for all."""
    names = ", ".join(quote(one.unit.name) for one in denied[:_NAMED])
    more = f" and {len(denied) - _NAMED} others" if len(denied) > _NAMED else ""
    are, have = ("are", "they have") if len(denied) > 1 else ("is", "it has")
    return Finding(
        code="unit-adj-differs",
        severity="notice",
        confidence="likely",
        claim=f"{names}{more} {are} to run with a lower oom_score_adj than {have}: in this container systemd may "
        "not lower it",
        subject="container",
        evidence=tuple(shown for one in denied[:_NAMED] for shown in (_line(one.line), process_line(one.process))),
        remedies=(
            Remedy(
                title="Start the container with CAP_SYS_RESOURCE (--cap-add SYS_RESOURCE), or with a lower value of "
                "its own (--oom-score-adj)",
                cost="with that capability it may raise its own limits too",
            ),
        ),
    )


def _wished(unit: Unit) -> UnitLine | None:
    """The line that gave the manager its OOMScoreAdjust; the default of all units is nobody's wish."""
    taken = [line for line in unit.lines if line.key == "OOMScoreAdjust" and _is_taken(unit, line)]
    return taken[-1] if taken and read(unit.name, taken[-1]) == unit.oom_score_adjust else None


def _is_taken(unit: Unit, line: UnitLine) -> bool:
    return not isinstance(read(unit.name, line), Ignored)


def _is_older(machine: Machine, process: Process, line: UnitLine) -> bool:
    """Was the process started before its unit's file was written? The two clocks may differ by a little."""
    if machine.taken_wall_s is None or machine.taken_uptime_s is None or line.written_wall_s is None:
        return False
    booted_s = machine.taken_wall_s - machine.taken_uptime_s
    return booted_s + process.start_ticks / _TICKS + _CLOCKS_S < line.written_wall_s

"""Programs that kill before the kernel must: whether they can act here, and whether they agree."""

from collections.abc import Iterator

from reprieve.model.finding import Change, Evidence, Finding, Place, Remedy, quote
from reprieve.model.killer import Killer
from reprieve.model.snapshot import Snapshot
from reprieve.rules.living.facts import figure, meminfo_lines

_USER_SPACE = ("earlyoom", "systemd-oomd", "oomd", "nohang")


def killer_powerless(snapshot: Snapshot) -> Iterator[Finding]:
    """A program that is to kill before the kernel must may not kill the processes of others.

    It watches, decides, and is refused: kill(2) wants the same user, or CAP_KILL. Such a guard is worse than none, as
    everybody relies on it. Its unit gives it the right with AmbientCapabilities=CAP_KILL, or runs it as root.

    Source: kill(2); capabilities(7).
    """
    machine = snapshot.machine
    for killer in machine.killers if machine is not None else ():
        if killer.may_kill_all is not False or killer.name not in _USER_SPACE:
            continue
        unit = _unit(killer, snapshot)
        yield Finding(
            code="killer-powerless",
            severity="warning",
            confidence="certain",
            claim=f"{quote(killer.name)} (pid {killer.pid}) is to kill before the kernel must, and may not: it lacks "
            "CAP_KILL",
            subject=killer.name,
            evidence=(_line(killer),),
            remedies=(
                Remedy(
                    title=f"Run it as its package does, with AmbientCapabilities=CAP_KILL or as root ({quote(unit)})",
                    cost="it can kill any process but the exempt ones",
                ),
            ),
        )


def killers_compete(snapshot: Snapshot) -> Iterator[Finding]:
    """More than one program kills before the kernel must.

    Each chooses by its own rules and none knows of the others: after one has killed, the other may kill as well before
    the memory of the first victim is back. What one spares, the other need not.

    Source: earlyoom(1); nohang(8); systemd-oomd.service(8).
    """
    machine = snapshot.machine
    killers = [one for one in machine.killers if one.name in _USER_SPACE] if machine is not None else []
    if len(killers) < 2:
        return
    names = ", ".join(f"{quote(one.name)} (pid {one.pid})" for one in killers)
    yield Finding(
        code="killers-compete",
        severity="notice",
        confidence="certain",
        claim=f"{len(killers)} programs kill before the kernel must, each by its own rules: {names}",
        subject="killers",
        evidence=tuple(map(_line, killers)),
        remedies=(
            Remedy(
                title="Keep one of them",
                cost="what only the other would have noticed is left to the kernel",
                commands=(("systemctl", "disable", "--now", _unit(killers[-1], snapshot)),),
            ),
        ),
    )


def oomd_cannot_act(snapshot: Snapshot) -> Iterator[Finding]:
    """systemd-oomd runs, and can kill nobody here.

    It acts on units with ManagedOOMMemoryPressure=kill, and, once most of swap is used, on those with
    ManagedOOMSwap=kill. Both are `auto` unless set, which is no. Debian sets the second for all units and leaves the
    first: on a machine without swap it then never acts. It needs version 2 of the cgroups and PSI besides.

    Source: systemd-oomd.service(8); systemd.resource-control(5), ManagedOOMSwap=.
    """
    machine = snapshot.machine
    oomd = next((one for one in machine.killers if one.name == "systemd-oomd"), None) if machine is not None else None
    told = [unit for unit in (machine.units if machine is not None else ()) if unit.managed_oom_swap is not None]
    if machine is None or oomd is None or not told:
        return
    by_swap = any(unit.managed_oom_swap == "kill" for unit in told)
    if any(unit.managed_oom_memory_pressure == "kill" for unit in told):
        return
    if by_swap and figure(machine, "SwapTotal") != 0:
        return
    why = "for its units swap alone counts, and there is none" if by_swap else "no unit is given to it"
    unit = "system.slice"
    yield Finding(
        code="oomd-cannot-act",
        severity="warning",
        confidence="certain",
        claim=f"systemd-oomd (pid {oomd.pid}) runs, and can kill nobody: {why}",
        subject="systemd-oomd",
        evidence=(
            _line(oomd),
            *(
                Evidence(
                    text=f"ManagedOOMSwap={one.managed_oom_swap}, "
                    f"ManagedOOMMemoryPressure={one.managed_oom_memory_pressure}",
                    source=one.name,
                )
                for one in told[:4]
            ),
            *meminfo_lines(machine, "SwapTotal"),
        ),
        remedies=(
            Remedy(
                title="Let it watch the services of the system, or of users (user.slice)",
                cost="it kills a whole service whose tasks wait for memory for long, before the kernel kills one",
                settings=(Change(place=Place(kind="unit", of=unit, key="ManagedOOMMemoryPressure"), want="kill"),),
                commands=(("systemctl", "set-property", "--", unit, "ManagedOOMMemoryPressure=kill"),),
            ),
        ),
    )


def _unit(killer: Killer, snapshot: Snapshot) -> str:
    """That it runs in if it bears its name; who was started by hand may run in any: the one that its package brings."""
    processes = snapshot.machine.processes if snapshot.machine is not None else ()
    group = next((one.cgroup or "" for one in processes if one.pid == killer.pid), "").rpartition("/")[2]
    return group if group.startswith(killer.name) and group.endswith(".service") else f"{killer.name}.service"


def _line(killer: Killer) -> Evidence:
    may = {True: "may kill all", False: "no CAP_KILL", None: "rights not told"}[killer.may_kill_all]
    return Evidence(text=f"{killer.name}: {may}", source=f"/proc/{killer.pid}")

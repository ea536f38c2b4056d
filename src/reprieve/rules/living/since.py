"""What has grown since the last look, of what nobody can be killed for."""

from collections.abc import Iterator

from reprieve.model.earlier import Earlier, Exempt
from reprieve.model.finding import Evidence, Finding, Remedy
from reprieve.model.machine import Machine
from reprieve.model.oom import OOM_SCORE_ADJ_MIN
from reprieve.model.snapshot import Snapshot
from reprieve.oom.groups import owner
from reprieve.rules.living.facts import figure, living, meminfo_lines, named, own_bytes, process_line
from reprieve.rules.living.order import choosable
from reprieve.units import KIB, duration, percent, size

_MORE = 1.5  # times as much as then: less may come and go
_SLAB = 0.03  # of RAM: by how much it must have grown
_EXEMPT = 0.02  # of RAM


def remember(machine: Machine) -> Earlier | None:
    """What the next look needs of this one; None: it cannot be told of which boot, or when, it was."""
    if machine.boot_id is None or machine.taken_wall_s is None:
        return None
    exempt = (one for one in living(machine) if one.oom_score_adj == OOM_SCORE_ADJ_MIN)
    return Earlier(
        taken_wall_s=machine.taken_wall_s,
        boot_id=machine.boot_id,
        slab_bytes=figure(machine, "SUnreclaim"),
        exempt=tuple(Exempt(one.pid, one.start_ticks, own_bytes(one)) for one in exempt),
    )


def exempt_grows(snapshot: Snapshot, earlier: Earlier | None) -> Iterator[Finding]:
    """A process that may never be killed has grown since the last look.

    With an oom_score_adj of -1000 a leak has no end: the kernel kills all others one after the other, and in the end
    panics. Told by `--since-last` alone, of a process that was there at the last look: what it takes at its start is no
    growth.

    Source: oom_badness() and out_of_memory() in mm/oom_kill.c; Documentation/filesystems/proc.rst, 3.1.
    """
    machine, ram = snapshot.machine, _ram(snapshot, earlier)
    if machine is None or earlier is None or ram is None:
        return
    then = {(one.pid, one.start_ticks): one.held_bytes for one in earlier.exempt}
    for process in living(machine):
        before, held = then.get((process.pid, process.start_ticks)), own_bytes(process)
        if process.oom_score_adj != OOM_SCORE_ADJ_MIN or process.pid == 1 or before is None:
            continue
        if held < before * _MORE or held - before < ram * _EXEMPT:
            continue
        yield Finding(
            code="exempt-grows",
            severity="warning",
            confidence="certain",
            claim=f"{named(process)} may never be killed and holds {size(held)}, {_since(machine, earlier, before)}",
            about=owner(process.cgroup or "/", machine.containers),
            subject=process.comm or str(process.pid),
            evidence=(process_line(process), *meminfo_lines(machine, "MemTotal")),
            remedies=(choosable(process, held, ram),),
        )


def slab_grows(snapshot: Snapshot, earlier: Earlier | None) -> Iterator[Finding]:
    """The kernel's own data that it cannot give back have grown since the last look.

    A leak in a driver or file system, or objects that user space keeps open: sockets, pipes, cgroups. No process owns
    them, so no kill frees them, unless that process was the cause. Names and inodes of files can be given back, and do
    not count. Told by `--since-last` alone.

    Source: Documentation/filesystems/proc.rst, meminfo.
    """
    machine, ram = snapshot.machine, _ram(snapshot, earlier)
    slab = None if machine is None else figure(machine, "SUnreclaim")
    if machine is None or earlier is None or ram is None or slab is None or earlier.slab_bytes is None:
        return
    if slab < earlier.slab_bytes * _MORE or slab - earlier.slab_bytes < ram * _SLAB:
        return
    yield Finding(
        code="slab-grows",
        severity="warning",
        confidence="certain",
        claim=f"The kernel's own data that cannot be given back take {size(slab)} ({percent(slab, ram)} of RAM), "
        + _since(machine, earlier, earlier.slab_bytes),
        subject="slab",
        evidence=(
            Evidence(text=f"SUnreclaim: {earlier.slab_bytes // KIB} kB", source="the last look"),
            *meminfo_lines(machine, "SUnreclaim", "SReclaimable", "MemTotal"),
        ),
        remedies=(
            Remedy(
                title="See which caches are large, and who holds open what is in them (ss -s tells of sockets)",
                cost="no memory",
                commands=(("slabtop", "--once", "--sort=c"),),
            ),
        ),
    )


def _ram(snapshot: Snapshot, earlier: Earlier | None) -> int | None:
    """How much there is, of a machine that was looked at before, since it was booted."""
    machine = snapshot.machine
    if machine is None or earlier is None or machine.boot_id != earlier.boot_id:
        return None
    return figure(machine, "MemTotal") or None


def _since(machine: Machine, earlier: Earlier, before: int) -> str:
    passed_s = (machine.taken_wall_s or 0) - earlier.taken_wall_s
    when = f" {duration(passed_s)} ago" if passed_s >= 1 else ""  # the clock may have been set
    return f"after {size(before)} at the last look{when}"

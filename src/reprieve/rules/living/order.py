"""The order in which the kernel would kill: who is exempt, and who would die in the place of another."""

from collections.abc import Iterator

from reprieve.model.finding import Finding, Remedy
from reprieve.model.oom import OOM_SCORE_ADJ_MIN
from reprieve.model.process import Process
from reprieve.model.snapshot import Snapshot
from reprieve.oom.groups import owner
from reprieve.oom.living import freed_bytes, predict, spared, whole_machine, why_spared
from reprieve.rules.living.facts import figure, living, meminfo_lines, named, own_bytes, process_line
from reprieve.units import percent, size

MUCH = 0.1  # of RAM: what is worth a word if it is held by who can never be killed
_SOME = 0.01  # of RAM: what an exemption by mistake must hold


def exempt_holds(snapshot: Snapshot) -> Iterator[Finding]:
    """A process that may never be killed holds a good part of the memory.

    oom_score_adj of -1000 is not "last": it is never. If such a process grows, the kernel kills all others one after
    the other, and in the end panics. It belongs to what must live to repair the machine (sshd, the agent of a node),
    and is small. A value above -1000 still makes it the last.

    Source: oom_badness() and out_of_memory() in mm/oom_kill.c; Documentation/filesystems/proc.rst, 3.1.
    """
    machine = snapshot.machine
    ram = None if machine is None else figure(machine, "MemTotal")
    if machine is None or not ram:
        return
    for process in living(machine):
        held = own_bytes(process)
        if process.oom_score_adj != OOM_SCORE_ADJ_MIN or process.pid == 1 or held < ram * MUCH:
            continue
        yield Finding(
            code="exempt-holds",
            severity="warning",
            confidence="certain",
            claim=f"{named(process)} may never be killed and holds {size(held)}, {percent(held, ram)} of RAM",
            detail=("If it grows, everybody else is killed before it is, and then the machine panics.",),
            about=owner(process.cgroup or "/", machine.containers),
            subject=process.comm or str(process.pid),
            evidence=(process_line(process), *meminfo_lines(machine, "MemTotal")),
            remedies=(choosable(process, held, ram),),
        )


def exemption_inherited(snapshot: Snapshot) -> Iterator[Finding]:
    """A program may never be killed only because who started it may not.

    A child inherits oom_score_adj when it is forked, and keeps it. What an exempt agent, supervisor or shell starts is
    exempt too, whatever it grows to, unless the starter sets it back: systemd, sshd and container engines do.

    Source: copy_signal() in kernel/fork.c; Documentation/filesystems/proc.rst, 3.1.
    """
    machine = snapshot.machine
    ram = None if machine is None else figure(machine, "MemTotal")
    if machine is None or not ram:
        return
    by_pid = {process.pid: process for process in machine.processes}
    for process in living(machine):
        starter = by_pid.get(process.ppid or 0)
        if process.oom_score_adj != OOM_SCORE_ADJ_MIN or starter is None or starter.pid == 1 or starter.kernel_thread:
            continue
        held = own_bytes(process)
        if starter.oom_score_adj != OOM_SCORE_ADJ_MIN or starter.comm == process.comm:
            continue
        if not ram * _SOME <= held < ram * MUCH:  # of one that holds more exempt-holds tells
            continue
        yield Finding(
            code="exemption-inherited",
            severity="notice",
            confidence="likely",  # it may have been given it on purpose
            claim=f"{named(process)} may never be killed, as {named(starter)} that started it; it holds {size(held)}",
            about=owner(process.cgroup or "/", machine.containers),
            subject=process.comm or str(process.pid),
            evidence=(process_line(process), process_line(starter)),
            remedies=(choosable(process, held, ram),),
        )


def small_victim_next(snapshot: Snapshot) -> Iterator[Finding]:
    """A small process would die first, while a much larger one lives, because of oom_score_adj.

    A value above 0 offers a process up, one below 0 protects it, by thousandths of all memory. What the large one holds
    stays held, so the next kill follows soon. `reprieve next` shows the whole order.

    Source: oom_badness() in mm/oom_kill.c; Documentation/filesystems/proc.rst, 3.1.
    """
    machine = snapshot.machine
    domain = None if machine is None else whole_machine(machine)
    ram = None if machine is None else figure(machine, "MemTotal")
    if machine is None or domain is None or not ram:
        return
    prediction = predict(machine, domain)
    victim, large = prediction.victim, spared(machine, prediction)
    if victim is None or large is None or freed_bytes(large) < ram * MUCH:
        return
    off = [
        one
        for one, wrong in ((large, (large.oom_score_adj or 0) < 0), (victim, (victim.oom_score_adj or 0) > 0))
        if wrong
    ]
    remedy = Remedy(
        title="Let what they hold decide: oom_score_adj 0 (now; OOMScoreAdjust=0 in the unit for the next start)",
        cost="the large one may be killed",
        commands=tuple(("choom", "--pid", str(one.pid), "--adjust", "0") for one in off),
    )
    why = why_spared(prediction, large)
    if large.pid != 1:
        why = f"oom_score_adj is {victim.oom_score_adj} and {large.oom_score_adj}"
    yield Finding(
        code="small-victim-next",
        severity="notice",
        confidence="certain",
        claim=f"If memory ran out now, {named(victim)} would die for {size(freed_bytes(victim))}, and {named(large)} "
        f"live with {size(freed_bytes(large))}: {why}",
        about=owner(victim.cgroup or "/", machine.containers),
        subject=victim.comm or str(victim.pid),
        evidence=(process_line(victim), process_line(large)),
        remedies=(remedy,) if off and large.pid != 1 else (),
    )


def choosable(process: Process, held_bytes: int, ram_bytes: int) -> Remedy:
    """Let the kernel choose an exempt process: a small one by its size, a large one late, as it would be the first."""
    large = held_bytes >= ram_bytes * MUCH
    adj, title = (-500, "Make it late, not exempt") if large else (0, "Let the kernel choose it")
    return Remedy(
        title=f"{title}: oom_score_adj {adj} (now; OOMScoreAdjust={adj} in its unit for its next start)",
        cost="it may be killed",
        commands=(("choom", "--pid", str(process.pid), "--adjust", str(adj)),),
    )

"""Events that ended otherwise than by a choice: a panic, nobody to kill, a person who asked."""

from collections.abc import Iterator

from reprieve.model.finding import Change, Finding, Place, Remedy, quote
from reprieve.model.oom import OOM_SCORE_ADJ_MIN, OomReport
from reprieve.model.snapshot import Snapshot
from reprieve.rules.account import of_cgroup
from reprieve.rules.evidence import lines


def panic_on_oom(snapshot: Snapshot) -> Iterator[Finding]:
    """The machine stopped instead of a process, because vm.panic_on_oom is set.

    1 stops it when the machine as a whole runs out; 2 also for the limit of any cgroup, a cpuset or a memory policy, so
    that one container takes the machine down. A panic that says "deadlocked on memory" is another: there nobody was
    left to kill, whatever the setting.

    Source: check_panic_on_oom() in mm/oom_kill.c; Documentation/admin-guide/sysctl/vm.rst, panic_on_oom.
    """
    for number, oom in enumerate(snapshot.ooms):
        if oom.panic is None or "panic_on_oom is" not in oom.panic:
            continue
        always = "compulsory" in oom.panic
        setting = Change(place=Place(kind="sysctl", key="vm.panic_on_oom"), want="0")
        back = Remedy(
            title="Have the kernel kill a process instead (a file in /etc/sysctl.d keeps it after a reboot)",
            cost="a cluster that relies on the reboot (kernel.panic) to fail over no longer gets it",
            settings=(setting,),
            commands=(("sysctl", "-w", "vm.panic_on_oom=0"),),
        )
        yield Finding(
            code="panic-on-oom",
            severity="critical",
            confidence="certain",
            claim="The kernel stopped the whole machine instead of one process: vm.panic_on_oom is "
            + ("2, which counts for every limit of a cgroup too" if always else "set"),
            about=oom.limit_of,
            evidence=lines(oom, *_panic_lines(oom)),
            remedies=(back,),
            oom=number,
        )


def nobody_killable(snapshot: Snapshot) -> Iterator[Finding]:
    """There was nobody that the kernel may kill.

    Of the machine as a whole that is the end: a panic, "System is deadlocked on memory". In a cgroup the request goes
    on and fails again, so the same report comes many times a second until a limit is raised or memory is freed.
    oom_score_adj of -1000 exempts a process and every child it starts later: give it to as few as can be.

    Source: out_of_memory() in mm/oom_kill.c.
    """
    for number, oom in enumerate(snapshot.ooms):
        if not oom.no_killable or oom.kills:
            continue
        exempt = [task for task in oom.tasks or () if task.oom_score_adj == OOM_SCORE_ADJ_MIN]
        names = ", ".join(dict.fromkeys(quote(task.comm) for task in exempt if task.comm is not None))
        claim = "Nobody was left that the kernel may kill"
        if exempt and oom.tasks is not None and len(exempt) == len(oom.tasks):
            claim = f"Nobody could be killed: oom_score_adj is -1000 for all that there is: {names}"
        yield Finding(
            code="nobody-killable",
            severity="critical",
            confidence="certain",
            claim=claim,
            detail=("The report comes again and again until memory is freed or the limit is raised.",)
            if of_cgroup(oom)
            else (),
            about=oom.limit_of,
            evidence=lines(
                oom,
                *(task.line for task in exempt[:3]),
                *(line for line, text in oom.lines if "no killable process" in text),
                *_panic_lines(oom),
            ),
            oom=number,
        )


def asked_for(snapshot: Snapshot) -> Iterator[Finding]:
    """A person asked for this kill with SysRq-f; memory need not have been short.

    The key combination, or `echo f > /proc/sysrq-trigger`, has the kernel kill the process with the highest score at
    once. Only those whom kernel.sysrq allows can do it from the keyboard, and root from a shell.

    Source: moom_callback() in drivers/tty/sysrq.c; Documentation/admin-guide/sysrq.rst.
    """
    for number, oom in enumerate(snapshot.ooms):
        if not oom.sysrq:
            continue
        yield Finding(
            code="asked-for",
            severity="critical",
            confidence="certain",
            claim="A person asked the kernel for this kill (SysRq-f): it does not show that memory was short",
            evidence=lines(oom, oom.line, oom.trigger.line if oom.trigger is not None else None),
            oom=number,
        )


def _panic_lines(oom: OomReport) -> list[int]:
    return [line for line, text in oom.lines if "Kernel panic" in text or "panic_on_oom" in text]

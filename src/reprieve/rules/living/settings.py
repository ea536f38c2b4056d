"""Settings of the kernel that decide what a shortage of memory becomes."""

from collections.abc import Iterator

from reprieve.model.finding import Change, Finding, Place, Remedy
from reprieve.model.snapshot import Snapshot
from reprieve.rules.living.facts import setting, sysctl_lines


def panic_set(snapshot: Snapshot) -> Iterator[Finding]:
    """When memory runs out the whole machine stops instead of one process, because vm.panic_on_oom is set.

    1 stops it when the machine as a whole runs out; 2 also for the limit of any cgroup, a cpuset or a memory policy, so
    that one container takes the machine down. kernel.panic says how many seconds later it boots again: 0 is never.
    Clusters set it on purpose, so that another node takes over.

    Source: check_panic_on_oom() in mm/oom_kill.c; Documentation/admin-guide/sysctl/vm.rst and kernel.rst.
    """
    machine = snapshot.machine
    mode = None if machine is None else setting(machine, "vm.panic_on_oom")
    if machine is None or not mode:
        return
    stays = dict(machine.sysctls).get("kernel.panic") == "0"
    place = Place(kind="sysctl", key="vm.panic_on_oom")
    back = Remedy(
        title="Have the kernel kill a process instead (a file in /etc/sysctl.d keeps it after a reboot)",
        cost="a cluster that relies on the reboot (kernel.panic) to fail over no longer gets it",
        settings=(Change(place=place, want="0"),),
        commands=(("sysctl", "-w", "vm.panic_on_oom=0"),),
    )
    limits = " or any cgroup reaches its limit" if mode > 1 else ""
    after = " and stays so (kernel.panic is 0)" if stays else ""
    yield Finding(
        code="panic-set",
        severity="warning" if mode > 1 or stays else "notice",
        confidence="certain",
        claim=f"vm.panic_on_oom is {mode}: when memory runs out{limits}, the whole machine stops{after}",
        subject="vm.panic_on_oom",
        evidence=sysctl_lines(machine, "vm.panic_on_oom", "kernel.panic"),
        remedies=(back,),
    )


def allocating_task_set(snapshot: Snapshot) -> Iterator[Finding]:
    """Whoever asks for memory when it has run out will be killed, because vm.oom_kill_allocating_task is set.

    The kernel then looks for nobody: the task whose request fails dies, however small it is, and what filled the
    memory stays. The setting saves a scan of the processes, which matters on machines with tens of thousands of them.

    Source: out_of_memory() in mm/oom_kill.c; Documentation/admin-guide/sysctl/vm.rst, oom_kill_allocating_task.
    """
    machine = snapshot.machine
    if machine is None or not setting(machine, "vm.oom_kill_allocating_task"):
        return
    place = Place(kind="sysctl", key="vm.oom_kill_allocating_task")
    back = Remedy(
        title="Let the kernel choose by size again (a file in /etc/sysctl.d keeps it after a reboot)",
        settings=(Change(place=place, want="0"),),
        commands=(("sysctl", "-w", "vm.oom_kill_allocating_task=0"),),
    )
    yield Finding(
        code="allocating-task-set",
        severity="warning",
        confidence="certain",
        claim="When memory has run out, whoever asks for more is killed: vm.oom_kill_allocating_task is set",
        subject="vm.oom_kill_allocating_task",
        evidence=sysctl_lines(machine, "vm.oom_kill_allocating_task"),
        remedies=(back,),
    )

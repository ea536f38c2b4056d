"""What the kernel has promised, against what it may promise, and what there is."""

from collections.abc import Iterator

from reprieve.model.finding import Change, Finding, Place, Remedy
from reprieve.model.machine import Machine
from reprieve.model.snapshot import Snapshot
from reprieve.rules.amounts import commit_ratio
from reprieve.rules.living.facts import figure, huge_bytes, meminfo_lines, memory_and_swap_bytes, setting, sysctl_lines
from reprieve.units import size

_NEAR = 0.9
_FIGURES = ("CommitLimit", "Committed_AS", "MemAvailable")


def commit_limit_near(snapshot: Snapshot) -> Iterator[Finding]:
    """Under strict overcommit nearly all that may be promised has been: memory will be refused while some is free.

    With vm.overcommit_memory=2 the kernel promises no more than CommitLimit: (RAM less huge pages) × overcommit_ratio,
    50 % unless changed, or overcommit_kbytes, plus swap. What programs asked for counts, not what they use. Whoever
    asks beyond it gets ENOMEM: malloc() fails, fork() fails, and few programs take that well. Nobody is killed for it.

    Source: __vm_enough_memory() in mm/util.c; Documentation/mm/overcommit-accounting.rst.
    """
    machine = snapshot.machine
    if machine is None or setting(machine, "vm.overcommit_memory") != 2:
        return
    limit, promised, left = (figure(machine, name) for name in _FIGURES)
    if limit is None or promised is None or promised < limit * _NEAR:
        return
    free = "" if left is None else f", though {size(left)} could be had"
    yield Finding(
        code="commit-limit-near",
        severity="warning",
        confidence="certain",
        claim=f"{size(promised)} of the {size(limit)} that may be promised are (vm.overcommit_memory=2): "
        f"soon memory is refused{free}",
        subject="vm.overcommit_memory",
        evidence=(
            *sysctl_lines(machine, "vm.overcommit_memory", "vm.overcommit_ratio"),
            *meminfo_lines(machine, *_FIGURES),
        ),
        remedies=tuple(allow_more(machine, promised)),
    )


def overcommit_unbounded(snapshot: Snapshot) -> Iterator[Finding]:
    """The kernel promises whatever is asked for, and has promised more than there is.

    vm.overcommit_memory=1 refuses nothing, however absurd; what cannot be kept ends in a kill later, of whoever is
    largest then. It is right for programs that map far more than they touch, and Redis asks for it, so that its
    background save can fork: a fork copies no memory, but what is written to meanwhile is copied page by page.
    0 refuses only a single request for more than all RAM and swap, since 5.1. A kubelet sets 1 itself when it starts,
    or, told to protect the kernel's settings, does not start without it: beside one it is left alone.

    Source: __vm_enough_memory() in mm/util.c, and 8c7829b04c52 ("mm: fix false-positive OVERCOMMIT_GUESS failures");
    Documentation/mm/overcommit-accounting.rst; setupKernelTunables() in pkg/kubelet/cm/container_manager_linux.go of
    Kubernetes.
    """
    machine = snapshot.machine
    if machine is None or setting(machine, "vm.overcommit_memory") != 1:
        return
    if any(killer.name == "kubelet" for killer in machine.killers):
        return
    promised, there = figure(machine, "Committed_AS"), memory_and_swap_bytes(machine)
    if promised is None or there is None or promised <= there:
        return
    place = Place(kind="sysctl", key="vm.overcommit_memory")
    back = Remedy(
        title="Let the kernel refuse what could never be had (a file in /etc/sysctl.d keeps it after a reboot)",
        cost="who asks for more than all RAM and swap in one piece is refused; before Linux 5.1 so is the fork of who "
        "holds more than is free: Redis cannot save then",
        settings=(Change(place=place, want="0"),),
        commands=(("sysctl", "-w", "vm.overcommit_memory=0"),),
    )
    yield Finding(
        code="overcommit-unbounded",
        severity="notice",
        confidence="certain",
        claim=f"{size(promised)} have been promised, {promised / there:.1f} times the {size(there)} of RAM and swap: "
        "vm.overcommit_memory=1 refuses nothing",
        subject="vm.overcommit_memory",
        evidence=(*sysctl_lines(machine, "vm.overcommit_memory"), *meminfo_lines(machine, "Committed_AS", "MemTotal")),
        remedies=(back,),
    )


def allow_more(machine: Machine, promised_bytes: int) -> Iterator[Remedy]:
    """A higher vm.overcommit_ratio, with which so much may be promised; none where it does not count, or is so high."""
    ram = figure(machine, "MemTotal")
    if ram is None or setting(machine, "vm.overcommit_kbytes"):
        return
    amount = commit_ratio(promised_bytes, ram - huge_bytes(machine), figure(machine, "SwapTotal") or 0)
    if amount is None or amount[0] <= (setting(machine, "vm.overcommit_ratio") or 0):
        return
    ratio, formula = amount
    place = Place(kind="sysctl", key="vm.overcommit_ratio")
    yield Remedy(
        title=f"Allow {ratio} % of RAM to be promised (a file in /etc/sysctl.d keeps it after a reboot)",
        cost="what is promised beyond RAM and swap may end in a kill",
        amount=formula,
        settings=(Change(place=place, want=str(ratio)),),
        commands=(("sysctl", "-w", f"vm.overcommit_ratio={ratio}"),),
    )

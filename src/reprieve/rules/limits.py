"""A memory cgroup reached its limit: its own, or one above it."""

from collections.abc import Iterator
from typing import Literal

from reprieve.model.finding import Change, Evidence, Finding, Place, Remedy, quote
from reprieve.model.oom import Memcg, OomReport, Usage, Workload
from reprieve.model.snapshot import Snapshot
from reprieve.rules.account import UNACCOUNTED, of_cgroup, total_bytes, where
from reprieve.rules.amounts import raised_limit
from reprieve.rules.evidence import lines
from reprieve.units import MIB, percent, size

_LEAK = "where it leaks, a higher limit only delays the next kill"


def cgroup_limit(snapshot: Snapshot) -> Iterator[Finding]:
    """A group of processes reached the memory limit that was set for itself.

    A container, unit or pod may use so much and no more; what it asked for beyond that could not be reclaimed from it,
    so the kernel killed inside it. How much memory the machine has free plays no part: such a kill also happens on a
    machine that is nearly empty, and adding RAM does not help. Adding swap can, if the group may use it.

    Source: mem_cgroup_out_of_memory() in mm/memcontrol.c; Documentation/admin-guide/cgroup-v2.rst, memory.max.
    """
    for number, oom in enumerate(snapshot.ooms):
        group = oom.limit_of
        if group is None or not of_cgroup(oom) or _is_above(oom):
            continue
        reached, name = _reached(oom), quote(group.name)
        own = "" if oom.task_memcg is None else "own "  # else the victim may be of a group below
        if reached is None or not isinstance(reached.limit_bytes, int):
            claim = (
                f"{name} reached its {own}memory limit: it was this limit that ran out, not the memory of the machine"
            )
        elif (reached.usage_bytes or 0) > reached.limit_bytes * 1.05:
            used = size(reached.usage_bytes or 0)
            claim = f"The limit of {name} was set to {size(reached.limit_bytes)} while it used {used}"
        else:
            claim = (
                f"{name} reached its {own}{_WORDS[reached.name]} of {size(reached.limit_bytes)}: "
                "it was this limit that ran out, not the memory of the machine"
            )
        yield Finding(
            code="cgroup-limit",
            severity="critical",
            confidence="certain",
            claim=claim,
            detail=_filled_by(oom),
            about=group,
            evidence=_shown_by(oom, reached),
            remedies=_raise(oom, group, reached),
            oom=number,
        )


def parent_limit(snapshot: Snapshot) -> Iterator[Finding]:
    """The limit of a group above was reached, so a process died whose own group was within its limit.

    All groups below share the limit of the one above: a pod's containers, a slice's units, a user's sessions. The
    kernel chooses among all of them, so the one that died need not be the one that grew, and a higher limit for it
    alone changes nothing.

    Source: mem_cgroup_out_of_memory() in mm/memcontrol.c; Documentation/admin-guide/cgroup-v2.rst, "Memory".
    """
    for number, oom in enumerate(snapshot.ooms):
        group, victim = oom.limit_of, oom.workload
        if group is None or victim is None or not of_cgroup(oom) or not _is_above(oom):
            continue
        reached = _reached(oom)
        name, of = quote(group.name), ""
        if reached is not None and isinstance(reached.limit_bytes, int):
            of = f" of {size(reached.limit_bytes)}"
        if group.kind == "pod":
            claim = f"{name} reached its limit{of}, the sum of its containers' limits, and a process in it died"
        elif group.manager == "kubernetes":
            claim = f"{name} together reached the limit{of} that the node gives to pods; {quote(victim.name)} was hit"
        else:
            claim = (
                f"The limit{of} that was reached belongs to {name}, which holds {quote(victim.name)}: "
                f"a higher limit for {quote(victim.name)} alone will not help"
            )
        yield Finding(
            code="parent-limit",
            severity="critical",
            confidence="certain",
            claim=claim,
            detail=_filled_by(oom),
            about=group,
            evidence=_shown_by(oom, reached),
            remedies=_raise(oom, group, reached),
            oom=number,
        )


_WORDS = {"memory": "memory limit", "memory+swap": "limit for memory and swap together", "kmem": "kernel memory limit"}


def _is_above(oom: OomReport) -> bool:
    """Is the group whose limit was hit above that of the victim?"""
    return oom.task_memcg is not None and oom.oom_memcg is not None and oom.task_memcg != oom.oom_memcg


def _reached(oom: OomReport) -> Usage | None:
    """The counter that stands at its limit; None if the text shows none."""
    for name in _WORDS:
        usage = oom.memcg.usage(name) if oom.memcg is not None else None
        if usage is None or usage.usage_bytes is None or not isinstance(usage.limit_bytes, int):
            continue
        # A charge is for up to 64 pages at once (MEMCG_CHARGE_BATCH), so the last few may stay unused.
        if usage.usage_bytes >= usage.limit_bytes - max(usage.limit_bytes // 100, MIB // 4):
            return usage
    return None


def _shown_by(oom: OomReport, reached: Usage | None) -> tuple[Evidence, ...]:
    counter = reached.line if reached is not None else None
    if oom.constraint_line is None and oom.memcg is not None:  # who it was is then told by "Memory cgroup stats for"
        return lines(oom, counter, *(stat.line for stat in oom.memcg.stats[:1]), oom.selected_line)
    return lines(oom, counter, oom.constraint_line, oom.selected_line)


def _filled_by(oom: OomReport) -> tuple[str, ...]:
    """What the group's memory was, as far as it is worth a sentence."""
    total, parts = total_bytes(oom), where(oom)
    if not total:
        return ()
    large = [(label, held) for label, held in parts if held >= total / 20 and label != UNACCOUNTED]
    large.sort(key=lambda item: -item[1])
    if not large:
        return ()
    said = ", ".join(f"{label} {size(held)} ({percent(held, total)})" for label, held in large)
    return (f"Of the {size(total)} in use: {said}.",)


def _raise(oom: OomReport, group: Workload, reached: Usage | None) -> tuple[Remedy, ...]:
    if reached is None or not isinstance(reached.limit_bytes, int) or reached.name == "kmem":
        return ()
    if group.manager == "kubernetes" and group.kind == "slice":  # the kubelet computes it from the node's capacity
        return ()
    amount = raised_limit(max(reached.limit_bytes, reached.usage_bytes or 0))
    old = oom.memcg is not None and oom.memcg.usage("memory+swap") is not None
    swap = swap_limit(oom.memcg) if oom.memcg is not None else None
    settings, commands, note = set_limit(group, amount.count_bytes, swap=swap, old_cgroups=old)
    need, limit = size(reached.limit_bytes), size(amount.count_bytes)
    title = f"Raise the limit to {limit}, if it needs more than {need}{note}"
    if group.pod_uid is not None:
        title = f"Raise the container's limit to {limit}, if the pod needs more than {need} (command 1 finds it)"
    elif _is_above(oom):
        title = f"Raise the limit of {quote(group.name)} to {limit}, if all in it need more than {need}{note}"
    return (Remedy(title=title, cost=_LEAK, amount=amount.formula, settings=settings, commands=commands),)


_Commands = tuple[tuple[str, ...], ...]


def swap_limit(memcg: Memcg) -> int | Literal["max"] | None:
    """How much swap the group may use, in bytes: its own counter in v2, in v1 part of memory+swap. None: not told."""
    swap, memory, both = memcg.usage("swap"), memcg.usage("memory"), memcg.usage("memory+swap")
    if swap is not None:
        return swap.limit_bytes
    if both is None or both.limit_bytes == "max":
        return "max" if both is not None else None
    if memory is None or not isinstance(memory.limit_bytes, int) or both.limit_bytes is None:
        return None
    return max(both.limit_bytes - memory.limit_bytes, 0)


def set_limit(
    group: Workload, limit_bytes: int, *, swap: int | Literal["max"] | None = None, old_cgroups: bool = False
) -> tuple[tuple[Change, ...], _Commands, str]:
    """How a memory limit is set for such a workload: settings, commands, and what to know, in words after a title.

    `limit_bytes` is in whole MiB. `swap`: what it may use besides, and keeps; None: not known, then as much again.
    `old_cgroups`: version 1 of the cgroup files.
    """
    mib = limit_bytes // MIB
    if group.pod_uid is not None:
        ask = f'{{range .items[?(@.metadata.uid=="{group.pod_uid}")]}}{{.metadata.namespace}} {{.metadata.name}}{{end}}'
        find = ("kubectl", "get", "pods", "--all-namespaces", "-o", f"jsonpath={ask}")
        limits = ("--containers", "CONTAINER", "--limits", f"memory={mib}Mi")
        update = ("kubectl", "set", "resources", "deployment/NAME", "--namespace", "NAMESPACE", *limits)
        return (), (find, update), ""
    if group.kind == "container" and group.container_id is not None:
        if group.manager not in ("docker", "podman"):
            return (), (), ""
        # A limit above the older --memory-swap, which counts both, is refused: both are given.
        both = -1 if swap == "max" else f"{mib + (mib if swap is None else swap // MIB)}m"
        sizes = ("--memory", f"{mib}m", "--memory-swap", str(both))
        where = "docker run or the Compose file" if group.manager == "docker" else "podman run"
        note = f" (until it is made anew; then give it to {where})"
        return (), ((group.manager, "update", *sizes, group.container_id),), note
    if group.container_id is not None:
        return (), (), f" inside {quote(group.name)}"
    if group.unit is not None and group.manager in ("systemd", "snap"):
        return _set_unit_limit(group, group.unit, mib)
    if group.kind == "cgroup" and group.path.startswith("/"):
        if ".." in group.path.split("/"):  # of a group outside the cgroup namespace of the reader, or made up
            return (), (), " (where its files are is not known: its path leads upwards)"
        note = " (until the cgroup is made anew: whoever makes it has to set it then)"
        if not old_cgroups:
            return (), (written(limit_bytes, f"/sys/fs/cgroup{group.path}/memory.max"),), note
        folder = f"/sys/fs/cgroup/memory{group.path}"
        first = (written(limit_bytes + swap, f"{folder}/memory.memsw.limit_in_bytes"),) if isinstance(swap, int) else ()
        return (), (*first, written(limit_bytes, f"{folder}/memory.limit_in_bytes")), note
    return (), (), ""


def written(value: int, file: str) -> tuple[str, ...]:
    """The command that writes a number into a file whose name may hold anything: it is a word apart from the script."""
    return ("sh", "-c", f'echo {value} > "$0"', file)


def _set_unit_limit(group: Workload, unit: str, mib: int) -> tuple[tuple[Change, ...], _Commands, str]:
    want = f"{mib}M"
    if group.uid is not None and not unit.startswith(("user-", "user@", "session-")):
        command = ("systemctl", "--user", "set-property", "--", unit, f"MemoryMax={want}")
        return (), (command,), f", as user {group.uid}"
    if unit.endswith(".scope"):  # made by a program, gone with its processes
        command = ("systemctl", "set-property", "--runtime", "--", unit, f"MemoryMax={want}")
        return (), (command,), " while it lives"
    setting = Change(place=Place(kind="unit", of=unit, key="MemoryMax"), want=want)
    return (setting,), (("systemctl", "set-property", "--", unit, f"MemoryMax={want}"),), ""

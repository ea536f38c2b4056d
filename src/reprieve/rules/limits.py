"""A memory cgroup reached its limit: its own, or one above it."""

import re
from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Literal

from reprieve.model.finding import Change, Evidence, Finding, Place, Remedy, quote
from reprieve.model.oom import Memcg, OomReport, Usage
from reprieve.model.snapshot import Snapshot
from reprieve.model.workload import Workload
from reprieve.oom.limit import COUNTERS, reached
from reprieve.rules.account import UNACCOUNTED, dirty_bytes, of_cgroup, total_bytes, where
from reprieve.rules.amounts import raised_limit
from reprieve.rules.evidence import lines
from reprieve.units import MIB, percent, size

TYPE_CHECKING = False  # of `typing`; it is of a module of what changes a machine
if TYPE_CHECKING:
    from reprieve.model.change import OurLimit

_Commands = tuple[tuple[str, ...], ...]

_LEAK = "where it leaks, a higher limit only delays the next kill"
_WRITTEN = "a writer faster than the disk fills a higher limit too"


def cgroup_limit(snapshot: Snapshot) -> Iterator[Finding]:
    """A group of processes reached the memory limit that was set for itself.

    A container, unit or pod may use so much and no more; what it asked for beyond that could not be reclaimed from it,
    so the kernel killed inside it. How much memory the machine has free plays no part: such a kill also happens on a
    machine that is nearly empty, and adding RAM does not help. Adding swap can, if the group may use it.

    Source: mem_cgroup_out_of_memory() in mm/memcontrol.c; Documentation/admin-guide/cgroup-v2.rst, memory.max.
    """
    for number, oom in enumerate(snapshot.ooms):
        group = oom.limit_of
        if group is not None and of_cgroup(oom) and not _is_above(oom):
            claim = _own_limit(oom, named(group))
            yield _finding("cgroup-limit", number, oom, group, claim, snapshot)


def parent_limit(snapshot: Snapshot) -> Iterator[Finding]:
    """The limit of a group above was reached, so a process died whose own group was within its limit.

    All groups below share the limit of the one above: a pod's containers, a slice's units, a user's sessions. The
    kernel chooses among all of them, so the one that died need not be the one that grew, and a higher limit for it
    alone changes nothing.

    Source: mem_cgroup_out_of_memory() in mm/memcontrol.c; Documentation/admin-guide/cgroup-v2.rst, "Memory".
    """
    for number, oom in enumerate(snapshot.ooms):
        group, victim = oom.limit_of, oom.workload
        if group is not None and victim is not None and of_cgroup(oom) and _is_above(oom):
            claim = _limit_above(oom, group, quote(victim.name))
            yield _finding("parent-limit", number, oom, group, claim, snapshot)


def _finding(code: str, number: int, oom: OomReport, group: Workload, claim: str, snapshot: Snapshot) -> Finding:
    full = reached(oom)
    ours = _set_by(snapshot, group, full)
    return Finding(
        code=code,
        severity="critical",
        confidence="certain",
        claim=claim if ours is None else f"{claim}; change {ours.change} of reprieve has set it",
        detail=(*(() if ours is None else (_way_back(ours),)), *_filled_by(oom)),
        about=group,
        evidence=_shown_by(oom, full),
        remedies=_raise(oom, group, full, snapshot.gone_groups),
        oom=number,
    )


def _set_by(snapshot: Snapshot, group: Workload, full: Usage | None) -> "OurLimit | None":
    """The change of ours that has set that limit, if one has."""
    limit = None if full is None else full.limit_bytes
    return next((one for one in snapshot.our_limits if (one.path, one.limit_bytes) == (group.path, limit)), None)


def _way_back(ours: "OurLimit") -> str:
    before = "there was none" if ours.before_bytes is None else f"it was {size(ours.before_bytes)}"
    back = f"{'as root ' if ours.of_root else ''}`reprieve undo {ours.change}` puts that back"
    return f"Before that change {before}: {back}, `reprieve changes` tells when and why it was made."


def _own_limit(oom: OomReport, name: str) -> str:
    """What is claimed of a group that was at its own limit."""
    full = reached(oom)
    own = "own " if oom.task_memcg == oom.oom_memcg is not None else ""  # else the victim may be of a group below
    ran_out = "it was this limit that ran out, not the memory of the machine"
    if is_lifted(oom):
        return f"{name} was at its {own}memory limit, which was lifted before the kernel printed this: none is set now"
    if full is None or not isinstance(full.limit_bytes, int):
        return f"{name} reached its {own}memory limit: {ran_out}"
    if (full.usage_bytes or 0) > full.limit_bytes * 1.05:
        return f"The limit of {name} was set to {size(full.limit_bytes)} while it used {size(full.usage_bytes or 0)}"
    return f"{name} reached its {own}{_WORDS[full.name]} of {size(full.limit_bytes)}: {ran_out}"


def _limit_above(oom: OomReport, group: Workload, victim: str) -> str:
    """What is claimed of a group above that of the victim."""
    full, name = reached(oom), named(group)
    of = f" of {size(full.limit_bytes)}" if full is not None and isinstance(full.limit_bytes, int) else ""
    if group.kind == "pod":
        return f"{name} reached its limit{of}, the sum of its containers' limits, and a process in it died"
    if group.manager == "kubernetes":
        return f"{name} together reached the limit{of} that the node gives to pods; {victim} was hit"
    return (
        f"The limit{of} that was reached belongs to {name}, which holds {victim}: "
        f"a higher limit for {victim} alone will not help"
    )


_WORDS = {"memory+swap": "limit for memory and swap together", "memory": "memory limit"}


def _is_above(oom: OomReport) -> bool:
    """Is the group whose limit was hit above that of the victim?"""
    if oom.task_memcg is None or oom.oom_memcg is None:
        return False
    return oom.task_memcg.startswith(f"{oom.oom_memcg.rstrip('/')}/") and oom.task_memcg != oom.oom_memcg


def is_lifted(oom: OomReport) -> bool:
    """Was the group's limit taken away between the refusal and the report? The counters are printed a moment later."""
    usages = [oom.memcg.usage(name) for name in COUNTERS] if oom.memcg is not None else []
    told = [usage.limit_bytes for usage in usages if usage is not None]
    return bool(told) and all(limit == "max" for limit in told)


def _shown_by(oom: OomReport, full: Usage | None) -> tuple[Evidence, ...]:
    if full is None and oom.memcg is not None:  # it shows that none is at its limit
        full = oom.memcg.usage("memory")
    counter = full.line if full is not None else None
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


def _raise(oom: OomReport, group: Workload, full: Usage | None, no_more: Collection[str]) -> tuple[Remedy, ...]:
    if is_of_kubelet(group):
        return (_SHARES_OF_NODE,)
    if full is None or not isinstance(full.limit_bytes, int) or oom.memcg is None:
        return _look_at_limit(group) if oom.memcg is None or not oom.memcg.usages else ()
    used = max(full.limit_bytes, full.usage_bytes or 0)
    swapped = 0 if full.name == "memory+swap" else _swapped_bytes(oom)
    amount = raised_limit(used, swapped)
    need, limit = size(used + swapped if swapped else full.limit_bytes), size(amount.count_bytes)
    if is_no_more(group, no_more):
        kind = "" if full.name == "memory" else f" for {full.name}"
        title = (
            f"Give it a limit of {limit}{kind} where it is made, if it needs more than {need}: its cgroup is no more"
        )
        return (Remedy(title=title, cost=_LEAK, amount=amount.formula),)
    memory, gone = oom.memcg.usage("memory"), is_empty(oom) and _ends_with_its_processes(group)
    if full.name == "memory+swap":
        kept = memory.limit_bytes if memory is not None else None
        commands, note = _set_both(group, kept if isinstance(kept, int) else None, amount.count_bytes, gone=gone)
        title, cost = _title(f"memory+swap to {limit}", need, gone), _LEAK
        if isinstance(kept, int):
            cost += f"; what exceeds {size(kept)}, the limit for memory alone, goes to swap"
        return (Remedy(title=title + note, cost=cost, amount=amount.formula, commands=commands),)
    old = oom.memcg.usage("memory+swap") is not None
    swap = swap_limit(oom.memcg)
    settings, commands, note = set_limit(group, amount.count_bytes, swap=swap, old_cgroups=old, gone=gone)
    unwritten = (dirty_bytes(oom) or 0) * 2 >= used
    title = f"Raise the limit to {limit}, if its writer cannot write out as it goes (fsync), or more slowly{note}"
    if not unwritten:
        title = _title(f"the limit to {limit}", need, gone) + note
    if group.pod_uid is not None and not is_inside(group):
        title = f"Raise the container's limit to {limit}, if the pod needs more than {need} (command 1 finds it)"
    elif _is_above(oom):
        title = f"Raise the limit of {named(group)} to {limit}, if all in it need more than {need}{note}"
    higher = Remedy(
        title=title, cost=_WRITTEN if unwritten else _LEAK, amount=amount.formula, settings=settings, commands=commands
    )
    if swapped and used + swapped > _FAR * full.limit_bytes:
        held = f"{need} is {(used + swapped) // full.limit_bytes:,} times the limit of {size(full.limit_bytes)}"
        wrong = f"Find out what is wrong, the limit or what its processes hold (a leak?): {held}"
        return (Remedy(title=wrong, amount=f"{size(used)} + {size(swapped)} in swap = {need}"), higher)
    return (higher,)


# The kubelet computes that limit from the node's capacity and writes it again: what fits under it is to be bounded.
_SHARES_OF_NODE = Remedy(
    title="See which pods take most of the node, and give each a memory limit, so that its own containers die for it",
    cost="nothing to look; a pod with a limit is killed at it. The node keeps a part for itself: Allocatable",
    commands=(
        ("kubectl", "top", "pods", "--all-namespaces", "--sort-by=memory"),
        ("kubectl", "describe", "node", "NODE"),
    ),
)


def _look_at_limit(group: Workload) -> tuple[Remedy, ...]:
    """Where to read a limit that the text does not tell: it has to be known before it can be raised."""
    commands, note = _reading(group), ""
    if group.uid is not None and commands:
        note = f", as user {group.uid}"
    title = (
        f"See how high the limit of {named(group)} is (this text does not tell), and raise it if it needs more{note}"
    )
    return (Remedy(title=title, cost="nothing", commands=commands),) if commands else ()


def _reading(group: Workload) -> _Commands:
    """The commands that show the limit of a workload; () where none is known, or what it was is gone."""
    if leads_upwards(group):
        return ()
    if group.kind == "cgroup" or (is_inside(group) and group.path.startswith("/")):
        files = (f"/sys/fs/cgroup{group.path}/memory.max", f"{_folder(_MEMORY_1)}{group.path}/{_MEMORY_1}")
        return (("grep", "-s", ".", *files),)  # of both versions: it names the file that is there
    if group.pod_uid is not None:
        return (_find_pod(group.pod_uid), ("kubectl", "describe", "pod", "NAME", "--namespace", "NAMESPACE"))
    if group.kind == "container" and group.container_id is not None and group.manager in ("docker", "podman"):
        return ((group.manager, "inspect", "--format", "{{.HostConfig.Memory}}", group.container_id),)
    unit = group.unit
    if group.container_id is not None or group.manager != "systemd" or unit is None or is_transient(unit):
        return ()
    whose = () if group.uid is None or unit.startswith(_OF_THE_SYSTEM) else ("--user",)
    return (("systemctl", *whose, "show", "--property", "MemoryMax,MemoryPeak", "--", unit),)


def is_transient(unit: str) -> bool:
    """Is it a scope, or a service that systemd-run named? Both are gone once their processes are."""
    return (
        unit.endswith(".scope")
        or re.fullmatch(r"run-(?:u\d+|p\d+-i\d+|\d[\d-]*|r[0-9a-f]{32})\.service", unit) is not None
    )


def is_no_more(group: Workload, no_more: Collection[str]) -> bool:
    """Is nothing left that could be told, neither files nor a manager who knows it?"""
    return group.path in no_more and group.kind in ("cgroup", "scope")


def is_of_kubelet(group: Workload) -> bool:
    """Does a kubelet compute its limit, from the capacity of its node? Then nobody else can set it for long."""
    return group.manager == "kubernetes" and group.kind == "slice"


_FAR = 4  # times the limit: half as much again is no answer to what is held then


def _swapped_bytes(oom: OomReport) -> int:
    """What the group's processes have in swap: they had to, at this limit, and a limit that fits holds it too."""
    return sum(task.swap_pages or 0 for task in oom.tasks or ()) * (oom.page_size_bytes or 0)


def _ends_with_its_processes(group: Workload) -> bool:
    """Is it removed then, by whoever ran one thing in it?"""
    transient = group.kind == "unit" and group.unit is not None and is_transient(group.unit)
    return transient or group.kind in ("container", "scope", "cgroup", "run")


def is_empty(oom: OomReport) -> bool:
    """Did all processes of the table die? False where none was printed."""
    dead = {kill.pid for kill in oom.kills}
    return bool(oom.tasks) and all(task.pid in dead for task in oom.tasks or ())


def _title(what: str, need: str, gone: bool) -> str:
    return (
        f"Raise {what} when it runs again, if it needs more" if gone else f"Raise {what}, if it needs more than {need}"
    )


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
    group: Workload,
    limit_bytes: int,
    *,
    swap: int | Literal["max"] | None = None,
    old_cgroups: bool = False,
    gone: bool = False,
    lower: bool = False,
) -> tuple[tuple[Change, ...], _Commands, str]:
    """How a memory limit is set for such a workload: settings, commands, and what to know, in words after a title.

    `limit_bytes` is in whole MiB. `swap`: what it may use besides, and keeps; None: not known, then as much again.
    `old_cgroups`: version 1 of the cgroup files. `gone`: no process is left in it. `lower`: the limit is above that.
    """
    mib = limit_bytes // MIB
    if group.kind == "run":
        return _in_the_mark(group, limit_bytes) or ((), (_run_again(limit_bytes, swap),), "")
    if leads_upwards(group):
        return (), (), _UPWARDS
    files = _limit_files(limit_bytes, swap, old_cgroups=old_cgroups, lower=lower)
    commands = tuple(written(value, f"{_folder(file)}{group.path}/{file}") for file, value in files)
    if is_inside(group):
        return (), commands, _made_anew(gone)
    if group.pod_uid is not None:
        limits = ("--containers", "CONTAINER", "--limits", f"memory={mib}Mi")
        update = ("kubectl", "set", "resources", "deployment/NAME", "--namespace", "NAMESPACE", *limits)
        return (), (_find_pod(group.pod_uid), update), ""
    if group.kind == "container" and group.container_id is not None:
        if group.manager not in ("docker", "podman"):
            return (), (), ""
        both: int | Literal["max"] = "max"
        if swap != "max":
            both = limit_bytes + (limit_bytes if swap is None else swap)
        command = _update(group.manager, group.container_id, limit_bytes, both)
        setting = () if gone or group.uid is not None else (_engine_limit(group, limit_bytes, swap),)
        return setting, (command,), _kept_by(group.manager, gone)
    if group.container_id is not None:
        return (), (), f" inside {quote(group.name)}"
    if group.unit is not None and group.manager in ("systemd", "snap"):
        return _set_unit_limit(group, group.unit, mib, gone=gone)
    if group.kind == "cgroup" and group.path.startswith("/"):
        settings = () if gone or group.manager else tuple(of_group(group, file, value) for file, value in files)
        return settings, commands, _made_anew(gone)
    return (), (), ""


def _find_pod(uid: str) -> tuple[str, ...]:
    ask = f'{{range .items[?(@.metadata.uid=="{uid}")]}}{{.metadata.namespace}} {{.metadata.name}}{{end}}'
    return ("kubectl", "get", "pods", "--all-namespaces", "-o", f"jsonpath={ask}")


def _in_the_mark(group: Workload, limit_bytes: int) -> tuple[tuple[Change, ...], _Commands, str] | None:
    return ((), (), f': memory_limit("{limit_bytes // MIB}M")') if group.manager == "pytest" else None


def _run_again(limit_bytes: int, swap: int | Literal["max"] | None) -> tuple[str, ...]:
    """Its group is gone with its command. What it may swap is told where it was limited."""
    swapped = (
        () if not isinstance(swap, int) else ("--swap-max", str(swap) if swap % MIB or not swap else f"{swap // MIB}M")
    )
    return ("reprieve", "run", "--max", f"{limit_bytes // MIB}M", *swapped, "--", "COMMAND")


def of_group(group: Workload, file: str, value: int | str) -> Change:
    """A limit of a group that nobody looks after."""
    return Change(place=Place(kind="cgroup", of=group.path, key=file), want=str(value))


def _limit_files(
    limit_bytes: int, swap: int | Literal["max"] | None, *, old_cgroups: bool, lower: bool
) -> tuple[tuple[str, int], ...]:
    """What is written where. Version 1 refuses a limit for memory above the one for memory and swap."""
    if not old_cgroups:
        return (("memory.max", limit_bytes),)
    memory = (_MEMORY_1, limit_bytes)
    if not isinstance(swap, int):
        return (memory,)
    both = (_MEMSW_1, limit_bytes + swap)
    return (memory, both) if lower else (both, memory)


_MEMORY_1, _MEMSW_1 = "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"


def _folder(file: str) -> str:
    """Where the tree of groups is that has such files: version 1 has one for each controller."""
    return "/sys/fs/cgroup/memory" if file in (_MEMORY_1, _MEMSW_1) else "/sys/fs/cgroup"


def _set_both(group: Workload, memory_bytes: int | None, both_bytes: int, *, gone: bool) -> tuple[_Commands, str]:
    """How the limit for memory and swap together is raised where version 1 has one, and what to know.

    The limit for memory alone stays as it is. systemd and the kubelet set none for both: who did is not known.
    """
    inside = is_inside(group)
    if group.kind == "run":
        memory_bytes = both_bytes if memory_bytes is None else memory_bytes
        if (mark := _in_the_mark(group, memory_bytes)) is not None:
            return mark[1:]
        return (_run_again(memory_bytes, both_bytes - memory_bytes),), ""
    if group.kind == "container" and group.container_id is not None and memory_bytes is not None and not inside:
        if group.manager in ("docker", "podman"):
            command = _update(group.manager, group.container_id, memory_bytes, both_bytes)
            return (command,), _kept_by(group.manager, gone)
    elif (inside or group.container_id is None) and group.kind != "root" and group.path.startswith("/"):
        if leads_upwards(group):
            return (), _UPWARDS
        file = f"{_folder(_MEMSW_1)}{group.path}/{_MEMSW_1}"
        return (written(both_bytes, file),), _made_anew(gone)
    return (), ""


def _made_anew(gone: bool) -> str:
    if gone:
        return " (if its cgroup is gone, whoever makes it anew has to set it)"
    return " (until the cgroup is made anew: whoever makes it has to set it then)"


_UPWARDS = " (where its files are is not known: its path leads upwards)"


def leads_upwards(group: Workload) -> bool:
    """Is it a path of a group outside the cgroup namespace of the reader, or made up?"""
    return ".." in group.path.split("/")


def is_inside(group: Workload) -> bool:
    """Is it a group that a unit or a container made for processes of its own? Its limit is not that of the whole.

    crun runs a container of Podman in a group `container` of it, which has the limits of the whole.
    """
    last = group.path.rpartition("/")[2]
    whole = group.container_id if group.kind == "container" else group.unit
    return whole is not None and whole not in last and (group.manager, last) != ("podman", "container")


def whole(group: Workload) -> Workload:
    """The unit or container itself, where it is a group inside it."""
    name = group.container_id if group.kind == "container" else group.unit
    parts = group.path.split("/")
    while is_inside(group) and name is not None and name not in parts[-1]:
        parts.pop()
    return replace(group, path="/".join(parts))


def named(group: Workload) -> str:
    """What people call it; a group that a unit or a container made inside has a limit of its own, and is named too."""
    name = quote(group.name)
    return f"{quote(group.path.rpartition('/')[2])} in {name}" if is_inside(group) else name


def set_property(unit: str, setting: str) -> tuple[str, ...]:
    """The command that sets a property of a unit of the system; of one that is made for its processes, for its life."""
    runtime = ("--runtime",) if is_transient(unit) else ()
    return ("systemctl", "set-property", *runtime, "--", unit, setting)


def _update(manager: str, container_id: str, memory_bytes: int, both_bytes: int | Literal["max"]) -> tuple[str, ...]:
    """A limit above the older --memory-swap, which counts both, is refused: both are given, and set in one step."""
    both = "-1" if both_bytes == "max" else _amount(both_bytes)
    return (manager, "update", "--memory", _amount(memory_bytes), "--memory-swap", both, container_id)


def _engine_limit(group: Workload, limit_bytes: int, swap: int | Literal["max"] | None) -> Change:
    """The same as a setting; of an ordinary user's container it is none: where their engine listens is not known."""
    place = Place(kind="container", of=f"{group.manager}/{group.container_id}", key="memory")
    return Change(place=place, want=f"{limit_bytes}" if swap is None else f"{limit_bytes}+{swap}")


def _amount(count_bytes: int) -> str:
    return f"{count_bytes}b" if count_bytes % MIB else f"{count_bytes // MIB}m"


def _kept_by(manager: str, gone: bool) -> str:
    where = "docker run or the Compose file" if manager == "docker" else "podman run"
    until = "if it still exists; when" if gone else "until"
    return f" ({until} it is made anew{',' if gone else '; then'} give it to {where})"


def written(value: int, file: str) -> tuple[str, ...]:
    """The command that writes a number into a file whose name may hold anything: it is a word apart from the script."""
    return ("sh", "-c", f'echo {value} > "$0"', file)


_OF_THE_SYSTEM = ("user-", "user@", "session-")  # units of users that the manager of the machine looks after


def _set_unit_limit(group: Workload, unit: str, mib: int, *, gone: bool) -> tuple[tuple[Change, ...], _Commands, str]:
    want = f"{mib}M"
    of_user = group.uid is not None and not unit.startswith(_OF_THE_SYSTEM)
    user, whose = (("--user",), f", as user {group.uid}") if of_user else ((), "")
    if gone and is_transient(unit):  # its name does not come again
        scope = ("--scope",) if unit.endswith(".scope") else ()
        return (), (("systemd-run", *user, *scope, "--property", f"MemoryMax={want}", "--", "PROGRAM"),), whose
    note = " (for its lifetime only)" if is_transient(unit) else ""
    if of_user:
        command = ("systemctl", "--user", "set-property", "--", unit, f"MemoryMax={want}")
        return (), (command,), note + whose
    if note:
        return (), (set_property(unit, f"MemoryMax={want}"),), note
    setting = Change(place=Place(kind="unit", of=unit, key="MemoryMax"), want=want)
    return (setting,), (set_property(unit, f"MemoryMax={want}"),), ""

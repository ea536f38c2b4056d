"""Higher limits: what is proposed can be had, or it is said what stands in the way."""

from collections.abc import Iterator
from typing import NamedTuple

from reprieve.model.cgroup import Cgroup
from reprieve.model.finding import Change, Place, Remedy, quote
from reprieve.model.machine import Machine
from reprieve.model.workload import Workload
from reprieve.oom.groups import Most, ancestors, called, swap_allowed
from reprieve.rules.amounts import Amount, at_most, limit_for
from reprieve.rules.limits import is_inside, is_of_kubelet, leads_upwards, of_group, set_limit, set_property, written
from reprieve.rules.living.facts import figure
from reprieve.units import MIB, size

_LEAST = 16 * MIB  # higher than it is: less is no help
_OUTSIDE = ": where it is started, outside of what is seen here"
_LEAK = "a leak only takes longer to get there"


class Ceiling(NamedTuple):
    """The most that a group can have, whatever its own limit."""

    count_bytes: int
    words: str  # what it is
    first: str  # what would have to be done before a higher limit is of use


def ceiling(machine: Machine, group: Cgroup, *, of_high: bool = False) -> Ceiling | None:
    """The least of the limits around a group and nine tenths of the RAM; `of_high`: and its memory.max. None: not told.

    A limit that follows its own is none: a container's, around a group within it that repeats it, and its pod's, which
    is the sum of those of its containers. On version 1 below 5.11 limits above need not hold: see oom.groups.
    """
    ram = figure(machine, "MemTotal")
    if ram is None:
        return None
    found = [Ceiling(ram - ram // 10, "all RAM but a tenth", "Have it need less, or give the machine more memory")]
    if of_high and isinstance(group.max_bytes, int):
        found.append(Ceiling(group.max_bytes, "its memory.max", "Raise its memory.max first"))
    own, least = called(machine, group.path), dict(group.stat).get("hierarchical_memory_limit", 0)
    groups = {one.path: one for one in machine.cgroups}
    for above in (groups[path] for path in ancestors(group.path) if path in groups):
        whose = called(machine, above.path)
        if _follows(whose, own):
            continue
        first = f"Raise the limit of {quote(whose.name)} first"
        if is_of_kubelet(whose):
            first = "Have it need less, or move it to a larger node"
        limits = (above.max_bytes, above.high_bytes if of_high else None)
        found += [
            Ceiling(limit, f"the limit of {quote(whose.name)}", first)
            for limit in limits
            if isinstance(limit, int) and limit >= least
        ]
    return min(found, key=lambda one: one.count_bytes)


def _follows(above: Workload, own: Workload) -> bool:
    if own.kind != "container" or is_inside(own):
        return False
    return above.container_id == own.container_id or (above.kind == "pod" and above.pod_uid == own.pod_uid)


def raise_limit(machine: Machine, group: Cgroup, present_bytes: int, amount: Amount) -> tuple[Remedy, ...]:
    """A limit above the present one, no higher than it can be; where it cannot be higher, why not."""
    whose, top = called(machine, group.path), ceiling(machine, group)
    if top is None or is_of_kubelet(whose):
        return ()
    if top.count_bytes < present_bytes + _LEAST:
        return (_obstacle(top, "one of its own"),)
    amount = at_most(amount, top.count_bytes, top.words)
    settings, commands, note = _set_limit(whose, group, amount)
    if whose.kind == "pod":
        title = "Raise the limit of one of its containers, if that needs more: a pod's is the sum of theirs"
        return (Remedy(title=title, cost=_LEAK, commands=commands[:1]),)
    what = f"limit to {size(amount.count_bytes)}"
    both = swap_allowed(group) if group.version == 1 else None
    if isinstance(both, int) and both:
        what = f"limits to {size(amount.count_bytes)}, {size(amount.count_bytes + both)} with swap"
    if group.path == "/":
        note = _OUTSIDE
    title = f"Raise its {what}, if it needs more{note}"
    left = figure(machine, "MemAvailable")
    cost = _LEAK
    if left is not None and amount.count_bytes - present_bytes > left:
        cost += f"; the machine must have that memory, of which {size(left)} can be had now"
    return (Remedy(title=title, cost=cost, amount=amount.formula, settings=settings, commands=commands),)


def raise_high(machine: Machine, group: Cgroup, present_bytes: int, amount: Amount) -> tuple[Remedy, ...]:
    """A memory.high above the present one, likewise."""
    whose, top = called(machine, group.path), ceiling(machine, group, of_high=True)
    if top is None or is_of_kubelet(whose):
        return ()
    if top.count_bytes < present_bytes + _LEAST:
        return (_obstacle(top, "memory.high"),)
    amount = at_most(amount, top.count_bytes, top.words)
    settings: tuple[Change, ...] = ()
    commands: tuple[tuple[str, ...], ...] = ()
    note = ""
    by_systemd = whose.manager == "systemd" and whose.container_id is None and whose.uid is None
    if whose.unit is not None and by_systemd and not is_inside(whose):
        want = f"{amount.count_bytes // MIB}M"
        settings = (Change(place=Place(kind="unit", of=whose.unit, key="MemoryHigh"), want=want),)
        commands = (set_property(whose.unit, f"MemoryHigh={want}"),)
    elif group.path == "/":
        note = _OUTSIDE
    elif whose.path.startswith("/") and not leads_upwards(whose):
        commands = (written(amount.count_bytes, f"/sys/fs/cgroup{whose.path}/memory.high"),)
        if whose.kind == "cgroup":
            settings = (of_group(whose, "memory.high", amount.count_bytes),)
    killed = isinstance(group.max_bytes, int) and amount.count_bytes > group.max_bytes - _LEAST
    return (
        Remedy(
            title=f"Raise its memory.high to {size(amount.count_bytes)}, if it needs more{note}",
            cost=f"{_LEAK}: to its memory.max, at which it is killed" if killed else _LEAK,
            amount=amount.formula,
            settings=settings,
            commands=commands,
        ),
    )


def raise_outer(machine: Machine, outer: Cgroup, amount: Amount) -> tuple[Remedy, ...]:
    """A limit that leaves room for one inside it, where so much can be had."""
    if not _can_have(machine, outer, amount):
        return ()
    settings, commands, note = _set_limit(called(machine, outer.path), outer, amount)
    return (
        Remedy(
            title=f"Raise the outer limit to {size(amount.count_bytes)}, or lower the inner one{note}",
            cost="the machine must have that memory",
            amount=amount.formula,
            settings=settings,
            commands=commands,
        ),
    )


def raise_bound(machine: Machine, bound: Most, wanted_bytes: int, formula: str) -> Iterator[Remedy]:
    """A limit under which so much fits, where it is one of a group and so much can be had."""
    yield from raise_to(machine, bound, limit_for(wanted_bytes, formula))


def raise_to(machine: Machine, bound: Most, amount: Amount, condition: str = "") -> Iterator[Remedy]:
    """The same with an amount that is known. `condition`: words behind the amount."""
    group = bound.group
    if group is None or not _can_have(machine, group, amount):
        return
    whose = called(machine, group.path)
    settings, commands, note = _set_limit(whose, group, amount)
    yield Remedy(
        title=f"Raise the limit of {quote(whose.name)} to {size(amount.count_bytes)}{condition}{note}",
        cost="the machine must have that memory",
        amount=amount.formula,
        settings=settings,
        commands=commands,
    )


def _can_have(machine: Machine, group: Cgroup, amount: Amount) -> bool:
    """More than it may now, no more than can be had, and no kubelet reckons it."""
    whose, top = called(machine, group.path), ceiling(machine, group)
    if top is None or is_of_kubelet(whose) or whose.kind == "pod":
        return False
    present = group.max_bytes if isinstance(group.max_bytes, int) else 0
    return present < amount.count_bytes <= top.count_bytes


def _set_limit(
    whose: Workload, group: Cgroup, amount: Amount
) -> tuple[tuple[Change, ...], tuple[tuple[str, ...], ...], str]:
    return set_limit(whose, amount.count_bytes, swap=swap_allowed(group), old_cgroups=group.version == 1)


def _obstacle(top: Ceiling, what: str) -> Remedy:
    return Remedy(title=f"{top.first}: {top.words} is {size(top.count_bytes)}, so a higher {what} is of no use")

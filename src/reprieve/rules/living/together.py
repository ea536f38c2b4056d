"""All applications of the machine together."""

from collections.abc import Iterator
from typing import NamedTuple

from reprieve.model.finding import Evidence, Finding, quote
from reprieve.model.machine import Machine
from reprieve.model.snapshot import Snapshot
from reprieve.oom.groups import most
from reprieve.rules.living.demand import Demand, demands
from reprieve.rules.living.facts import meminfo_lines, memory_and_swap_bytes
from reprieve.units import size

_NAMED = 4


class _Share(NamedTuple):
    """What one application may take of the machine: its demand, or its limit if that is met first."""

    demand: Demand
    bytes: int
    name: str
    bound: str | None  # of whose limit the share is; None: of none


def applications_exceed_memory(snapshot: Snapshot) -> Iterator[Finding]:
    """Each application fits, and all of them together do not: by their settings they may hold more than there is.

    Of each the worst case counts that its settings and defaults allow, or the limit it lives under where that is
    lower. All at once is rare, and a cache that shrinks under load makes it rarer: this says what bounds are missing,
    not that they will be met. Applications that were not recognised are not in the sum.

    Source: the settings of each application, as its own finding explains them.
    """
    machine = snapshot.machine
    there = None if machine is None else memory_and_swap_bytes(machine)
    if machine is None or there is None:
        return
    shares = sorted(_shares(machine), key=lambda one: -one.bytes)
    total = sum(one.bytes for one in shares)
    if len(shares) < 2 or total <= there:
        return
    more = f" and {len(shares) - _NAMED} more" if len(shares) > _NAMED else ""
    named = ", ".join(f"{one.demand.what} {quote(one.name)} {size(one.bytes)}" for one in shares[:_NAMED])
    yield Finding(
        code="applications-exceed-memory",
        severity="notice",
        confidence="possible",
        claim=f"By their settings {len(shares)} applications may hold {size(total)} together, and RAM and swap are "
        f"{size(there)}",
        detail=(f"At most: {named}{more}.",),
        subject="applications",
        evidence=(
            *(
                Evidence(text=f"{one.demand.what}: {one.bound or one.demand.formula}", source=f"/proc/{one.demand.pid}")
                for one in shares
            ),
            *meminfo_lines(machine, "MemTotal", "SwapTotal"),
        ),
    )


def _shares(machine: Machine) -> Iterator[_Share]:
    """One for each application; several under one limit count as that limit at most, with the first of them."""
    processes = {process.pid: process for process in machine.processes}
    left: dict[str, int] = {}
    for demand in demands(machine):
        process = processes.get(demand.pid)
        if process is None:
            continue
        name = process.comm or str(process.pid)
        limit = most(machine, process.cgroup or "/")
        if limit is None or limit.group is None:
            yield _Share(demand, demand.bytes, name, None)
            continue
        room = left.setdefault(limit.group.path, limit.memory_bytes + limit.swap_bytes)
        taken = min(demand.bytes, room)
        left[limit.group.path] = room - taken
        bound = None if taken == demand.bytes else f"the limit of {limit.group.path}"
        yield _Share(demand, taken, name, bound)

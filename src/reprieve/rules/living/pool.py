"""Workers of one kind that together do not fit once each is as large as the largest."""

from collections.abc import Iterator
from typing import NamedTuple

from reprieve.model.finding import Finding, Remedy, quote
from reprieve.model.machine import Machine
from reprieve.model.process import Process
from reprieve.model.snapshot import Snapshot
from reprieve.oom.groups import Most, most, owner
from reprieve.rules.amounts import pool_that_fits
from reprieve.rules.living.facts import (
    can_have,
    figure,
    limit_lines,
    living,
    named,
    own_bytes,
    process_line,
    unreclaimable_bytes,
)
from reprieve.rules.living.higher import raise_bound
from reprieve.units import MIB, size

_LEAST = 3  # workers; two may be a program and its helper
_LEAST_BYTES = 8 * MIB  # of the largest: smaller ones are no pool that fills a machine
_MEASURED = 0.5  # of them: the largest are measured first
_ALIKE = 0.5  # of the largest, that half of them hold: tabs of a browser and compilers differ more


class _Pool(NamedTuple):
    parent: Process
    workers: list[Process]


def pool_exceeds_limit(snapshot: Snapshot) -> Iterator[Finding]:
    """The workers of one program together do not fit under their limit, once each is as large as the largest is now.

    Application servers start a number of equal processes (gunicorn, uWSGI, PHP-FPM, Apache prefork, Celery, Puma). They
    share what they had when they were forked, and each adds its own; in time most reach the size of the largest. What
    is measured is what each has for itself (private pages and swap), not RSS, in which shared pages count once for each
    of them. A worker that was not measured counts as the largest; where most were not, or are much smaller, nothing is
    said.

    Source: Documentation/filesystems/proc.rst, smaps_rollup.
    """
    machine = snapshot.machine
    for pool in _pools(machine) if machine is not None else ():
        workers, path = pool.workers, pool.workers[0].cgroup or "/"
        bound = most(machine, path) if machine is not None else None
        measured = [own_bytes(one) for one in workers if one.unique_bytes is not None]
        if machine is None or bound is None or len(measured) < max(len(workers) * _MEASURED, 2):
            continue
        largest = max(measured)
        if largest < _LEAST_BYTES or sorted(measured)[len(measured) // 2] < largest * _ALIKE:
            continue
        beside = _beside_bytes(machine, bound, sum(measured))
        room = bound.memory_bytes + bound.swap_bytes
        if beside is None or beside + largest * len(workers) <= room:
            continue
        amount = pool_that_fits(room, beside, largest, len(workers))
        told = f"{len(workers)} × {size(largest)}, the largest, + {size(beside)} that all else in it holds"
        total = beside + largest * len(workers)
        name = quote(workers[0].comm or "?")
        remedies: tuple[Remedy, ...] = ()
        if amount is not None:
            remedies = (
                Remedy(
                    title=f"Run {amount.count_bytes} of them{_setting(pool)}",
                    cost="fewer requests at a time; if they leak, let each end after so many requests besides",
                    amount=amount.formula,
                ),
            )
        yield Finding(
            code="pool-exceeds-limit",
            severity="warning",
            confidence="possible",
            claim=f"The {len(workers)} {name} of {named(pool.parent)} hold up to {size(largest)} each: "
            f"if all did, {size(total)}, and {can_have(machine, bound)}",
            detail=(f"{told} = {size(total)}.",),
            about=owner(path, machine.containers),
            subject=f"{pool.parent.comm or pool.parent.pid} {workers[0].comm}",
            evidence=(*map(process_line, _extremes(workers)), *limit_lines(machine, bound)),
            remedies=(*remedies, *raise_bound(machine, bound, total, f"the {size(total)} of the sum")),
        )


def _pools(machine: Machine) -> Iterator[_Pool]:
    """Children of one parent in one group with one name; those of PostgreSQL are bounded by its settings."""
    by_pid = {one.pid: one for one in machine.processes}
    known = {server.pid for server in machine.postgres}
    found: dict[tuple[int, str | None, str | None], list[Process]] = {}
    for process in living(machine):
        if process.ppid not in known and process.ppid in by_pid and process.ppid != 1:
            found.setdefault((process.ppid, process.comm, process.cgroup), []).append(process)
    for (parent, _, _), workers in found.items():
        if len(workers) >= _LEAST:
            yield _Pool(by_pid[parent], workers)


def _beside_bytes(machine: Machine, bound: Most, workers_bytes: int) -> int | None:
    """What all else holds that lives under the same limit and cannot be given back; None if that is not told."""
    held: int | None
    if bound.group is not None:
        held = unreclaimable_bytes(bound.group)
    else:
        left = figure(machine, "MemAvailable")
        held = None if left is None else bound.memory_bytes - left
    return None if held is None else max(held - workers_bytes, 0)


_SETTINGS = {  # where the number of workers is set, by what these programs call themselves
    "php-fpm": "pm.max_children",
    "apache2": "MaxRequestWorkers",
    "httpd": "MaxRequestWorkers",
    "uwsgi": "processes",
    "gunicorn": "--workers",
    "celery": "--concurrency",
    "puma": "workers",
}


def _setting(pool: _Pool) -> str:
    """In words after a title."""
    for name, setting in _SETTINGS.items():
        if any((one.comm or "").startswith(name) for one in (pool.parent, pool.workers[0])):
            return f": {setting}"
    return ""


def _extremes(workers: list[Process]) -> tuple[Process, Process]:
    measured = [one for one in workers if one.unique_bytes is not None]
    return max(measured, key=own_bytes), min(measured, key=own_bytes)

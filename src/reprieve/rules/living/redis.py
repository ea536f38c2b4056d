"""Redis servers that nothing bounds but the kernel's limit, whose bound is above it, that are full, or cannot fork."""

from collections.abc import Iterator
from typing import NamedTuple

from reprieve.model.application import Redis
from reprieve.model.finding import Change, Evidence, Finding, Place, Remedy, quote
from reprieve.model.machine import Machine
from reprieve.model.process import Process
from reprieve.model.snapshot import Snapshot
from reprieve.oom.groups import Most, most, owner
from reprieve.rules.amounts import maxmemory_now, maxmemory_that_fits
from reprieve.rules.living.commit import allow_more
from reprieve.rules.living.facts import (
    can_have,
    figure,
    limit_lines,
    meminfo_lines,
    named,
    own_bytes,
    process_line,
    setting,
    sysctl_lines,
)
from reprieve.rules.living.heaps import Part, formula, process_of, total
from reprieve.rules.living.higher import raise_bound
from reprieve.units import MIB, percent, size

_ITSELF = 8 * MIB  # of an empty one, measured: Redis 7.0
_FULL = 0.9  # of maxmemory
_MUCH = 0.5  # of all memory: what an unbounded one must hold where no limit is set for it


class _Case(NamedTuple):
    """A server, and what it can have."""

    machine: Machine
    server: Redis
    process: Process
    bound: Most

    @property
    def room_bytes(self) -> int:
        return self.bound.memory_bytes + self.bound.swap_bytes


def _cases(machine: Machine | None) -> Iterator[_Case]:
    for server in machine.redis if machine is not None else ():
        process = None if machine is None else process_of(machine, server)
        bound = None if machine is None or process is None else most(machine, process.cgroup or "/")
        if machine is not None and process is not None and bound is not None:
            yield _Case(machine, server, process, bound)


def saves(server: Redis) -> bool:
    """Does it fork to save? By default it does."""
    return server.save != "" or server.appendonly is True


def buffers(server: Redis) -> int:
    """What its replicas may make it keep for them, besides maxmemory; 0 if they have no bound."""
    return (server.replicas or 0) * _or(server.replica_buffer_bytes, 256 * MIB)


def _or(told: int | None, default: int) -> int:
    return default if told is None else told


def most_of_redis(server: Redis) -> tuple[Part, ...]:
    """What it may hold when it is full; nothing if nothing bounds it."""
    full = server.maxmemory_bytes
    if not full:
        return ()
    parts = [("maxmemory", full), ("for the server itself", _ITSELF)]
    if kept := buffers(server):
        parts.append((f"for its {server.replicas} replicas", kept))
    if saves(server):
        parts.append(("copied while it saves, if all of it is written to meanwhile", full))
    return tuple(parts)


def redis_unbounded(snapshot: Snapshot) -> Iterator[Finding]:
    """A Redis server has no maxmemory, and lives under a limit: what is put into it ends in a kill.

    Without maxmemory, the default, it takes whatever it is given. At the kernel's limit it is killed, and what it held
    since it last saved is lost; with a bound it throws away or refuses, as its policy says. While it saves, its child
    shares its memory, and each page that is written to meanwhile is copied: with saving on, it may need twice as much.

    Source: redis.conf, "MEMORY MANAGEMENT"; Redis' documentation, "Memory optimization".
    """
    for case in _cases(snapshot.machine):
        server, process = case.server, case.process
        told = server.maxmemory_bytes
        if told or (told is None and not server.origins):  # nothing was read: it may well have one
            continue
        held = own_bytes(process)
        if case.bound.group is None and held < case.bound.memory_bytes * _MUCH:
            continue
        yield _finding(
            case,
            "redis-unbounded",
            severity="warning",
            confidence="certain" if told is not None and not server.unseen else "likely",
            claim=f"{named(process)} has no maxmemory: it takes all it is given, and "
            f"{can_have(case.machine, case.bound)}",
            detail=(f"It holds {size(held)} now.",),
            remedies=tuple(_bound(case)) or _too_full(case),
        )


def redis_exceeds_limit(snapshot: Snapshot) -> Iterator[Finding]:
    """The maxmemory of a Redis server does not fit under the limit that it lives under.

    maxmemory bounds the data. Buffers for replicas come on top, what the allocator cannot give back, and, while it
    saves or rewrites its log, a copy of each page that is written to meanwhile: a fork copies no memory, it only
    promises it, so vm.overcommit_memory=1 lets the fork succeed, and does nothing about the copies.

    Source: redis.conf, "maxmemory"; Redis' documentation, "Background saving fails with a fork() error on Linux".
    """
    for case in _cases(snapshot.machine):
        parts = most_of_redis(case.server)
        if total(parts) <= case.room_bytes:
            continue
        plain = total(parts) - (case.server.maxmemory_bytes or 0) * saves(case.server)
        alone = plain > case.room_bytes
        sure = "certain" if alone else "possible"
        claim = f"{named(case.process)} may come to hold {size(total(parts))}"
        if alone:
            claim = f"{named(case.process)} may come to hold {size(plain)} by its maxmemory"
        detail = [f"{formula(parts)}."]
        if case.server.last_cow_bytes and saves(case.server):
            detail.append(f"Its last save copied {size(case.server.last_cow_bytes)}.")
        raised = raise_bound(case.machine, case.bound, total(parts), f"the {size(total(parts))} of the sum")
        remedies = (*_bound(case), *raised)
        yield _finding(
            case,
            "redis-exceeds-limit",
            severity="warning" if alone else "notice",
            confidence="likely" if alone and case.server.unseen else sure,
            claim=f"{claim}{'' if alone else ' while it saves'}, and {can_have(case.machine, case.bound)}",
            detail=tuple(detail),
            remedies=remedies or _too_full(case),
        )


def redis_nearly_full(snapshot: Snapshot) -> Iterator[Finding]:
    """A Redis server is near its maxmemory, and its policy is to refuse writes there.

    With noeviction, the default, every command that would add data fails there: "OOM command not allowed when used
    memory > 'maxmemory'". That is right for data that exists nowhere else, and mostly wrong for a cache, whose least
    used keys may go.

    Source: redis.conf, "maxmemory-policy".
    """
    for case in _cases(snapshot.machine):
        server = case.server
        full, used = server.maxmemory_bytes, server.used_memory_bytes
        if not full or used is None or used < full * _FULL or server.maxmemory_policy != "noeviction":
            continue
        yield _finding(
            case,
            "redis-nearly-full",
            severity="warning",
            confidence="certain",
            claim=f"{named(case.process)} holds {size(used)} of its maxmemory of {size(full)} "
            f"({percent(used, full)}), and will refuse to take more (noeviction)",
            remedies=(
                Remedy(
                    title=f"If it is a cache, let the keys used least go ({_in_its_file(case, 'it')})",
                    cost="keys disappear: wrong where they are the only copy",
                    commands=(_config_set(server, "maxmemory-policy", "allkeys-lru"),),
                ),
                *_bound(case, above=full),
            ),
        )


def redis_fork_refused(snapshot: Snapshot) -> Iterator[Finding]:
    """A Redis server cannot fork to save: the kernel, under strict overcommit, has not so much left to promise.

    A fork copies no memory, but with vm.overcommit_memory=2 all that it could come to copy is promised, and counts
    against CommitLimit: a server that holds half of it cannot fork, however much is free. Saving fails with "Can't save
    in background: fork: Cannot allocate memory", and from then on writes are refused (stop-writes-on-bgsave-error).
    0 refuses no such fork since Linux 5.1, 1 none at all; what is copied then needs memory all the same.

    Source: __vm_enough_memory() in mm/util.c, and 8c7829b04c52 ("mm: fix false-positive OVERCOMMIT_GUESS failures").
    """
    machine = snapshot.machine
    if machine is None or setting(machine, "vm.overcommit_memory") != 2:
        return
    limit, promised = figure(machine, "CommitLimit"), figure(machine, "Committed_AS")
    for case in _cases(machine):
        asks = own_bytes(case.process)
        if limit is None or promised is None or not saves(case.server) or promised + asks <= limit:
            continue
        remedies = (*allow_more(machine, promised + asks), _refuse_less())
        yield _finding(
            case,
            "redis-fork-refused",
            severity="warning",
            confidence="certain" if case.server.last_save_failed else "likely",
            claim=f"{named(case.process)} cannot fork to save: that asks for {size(asks)} at least, and "
            f"{size(max(limit - promised, 0))} may still be promised (vm.overcommit_memory=2)",
            detail=("Its last save failed.",) if case.server.last_save_failed else (),
            evidence=(
                *sysctl_lines(machine, "vm.overcommit_memory", "vm.overcommit_ratio"),
                *meminfo_lines(machine, "CommitLimit", "Committed_AS"),
            ),
            remedies=remedies,
        )


def _refuse_less() -> Remedy:
    place = Place(kind="sysctl", key="vm.overcommit_memory")
    return Remedy(
        title="Let the kernel refuse only what could never be had (a file in /etc/sysctl.d keeps it after a reboot)",
        cost="what programs were promised and then use may end in a kill",
        settings=(Change(place=place, want="0"),),
        commands=(("sysctl", "-w", "vm.overcommit_memory=0"),),
    )


def _bound(case: _Case, above: int = 0) -> Iterator[Remedy]:
    """A maxmemory that fits in RAM, above what it holds: below, keys go or all writes are refused, at once.

    None where nothing does, or what fits is no more than `above`.
    """
    server = case.server
    amount = maxmemory_that_fits(_ram_bytes(case), buffers(server), saving=saves(server))
    if amount is None or amount.count_bytes < _data_bytes(case) or amount.count_bytes <= above:
        return
    yield Remedy(
        title=f"Set maxmemory to {amount.count_bytes // MIB}mb ({_in_its_file(case, 'it')})",
        cost=_at_its_bound(server),
        amount=amount.formula,
        settings=_kept(case, "maxmemory", str(amount.count_bytes)),
        commands=(_config_set(server, "maxmemory", f"{amount.count_bytes // MIB}mb"),),
    )


def _at_its_bound(server: Redis) -> str:
    policy = server.maxmemory_policy or "noeviction"
    if policy != "noeviction":
        return f"what does not fit is thrown away ({policy})"
    return "what does not fit is refused (noeviction); for a cache set a policy, allkeys-lru"


def _data_bytes(case: _Case) -> int:
    """What a maxmemory is held against now; where it did not say, what its process holds."""
    return _or(case.server.used_memory_bytes, own_bytes(case.process))


def _ram_bytes(case: _Case) -> int:
    """What it may keep in RAM: its limit, or, where only the machine bounds it, what it has there and could have.

    Swap is none of it: data that lie there make each request slow.
    """
    left = figure(case.machine, "MemAvailable")
    if case.bound.group is not None or left is None:
        return case.bound.memory_bytes
    resident = max(own_bytes(case.process) - (case.process.swap_bytes or 0), 0)
    return min(case.bound.memory_bytes, resident + left)


def _too_full(case: _Case) -> tuple[Remedy, ...]:
    """Where it holds more than fits already: more room, or no copies, or at least no more data."""
    server, held, room = case.server, _data_bytes(case), _ram_bytes(case)
    twice = " twice, as a save may copy all," if saves(server) else ""
    wanted = (held + held // 4) * (1 + saves(server)) + buffers(server)
    said = f"{size(held)} that it holds + 25 %,{twice} and a quarter of the limit for what it does not count"
    return (*raise_bound(case.machine, case.bound, -(-wanted * 4 // 3), said), *_less(case, held, room))


def _less(case: _Case, held: int, room: int) -> Iterator[Remedy]:
    server = case.server
    without = maxmemory_that_fits(room, buffers(server), saving=False)
    if saves(server) and not server.replicas and without is not None and without.count_bytes >= held:
        mib = without.count_bytes // MIB
        log = (_config_set(server, "appendonly", "no"),) if server.appendonly else ()
        yield Remedy(
            title=f"If it is a cache, have it save nothing, and set maxmemory to {mib}mb "
            f"({_in_its_file(case, 'both')})",
            cost="what it holds is lost whenever it ends",
            amount=without.formula,
            commands=(_config_set(server, "save", ""), *log, _config_set(server, "maxmemory", f"{mib}mb")),
        )
    now = maxmemory_now(held)
    bounded = 0 < (server.maxmemory_bytes or 0) <= now.count_bytes  # it grows no more as it is
    if bounded or now.count_bytes + buffers(server) > room:
        yield Remedy(title=f"Take keys out of it, or move some to another server: {size(held)} are too many here")
        return
    copies = f"; while it saves it may come to need {size(now.count_bytes * 2)} all the same" if saves(server) else ""
    yield Remedy(
        title=f"Let it grow no more: set maxmemory to {now.count_bytes // MIB}mb, little above what it holds",
        cost=f"{_at_its_bound(server)}{copies}",
        amount=now.formula,
        commands=(_config_set(server, "maxmemory", f"{now.count_bytes // MIB}mb"),),
    )


def _kept(case: _Case, name: str, value: str) -> tuple[Change, ...]:
    """A setting of the server as it runs, and in the file that it starts with."""
    server, uid = case.server, case.process.uid
    running = Place(kind="redis", of=f"{_or(server.port, 6379)}/{server.pid}@{server.start_ticks}", key=name)
    changes = (Change(place=running, want=value),)
    if server.config_file is None or uid is None:
        return changes
    file = Place(kind="redis.conf", of=f"{uid}:{server.config_file}", key=name)
    return (*changes, Change(place=file, want=value))


def _in_its_file(case: _Case, what: str) -> str:
    """How it lasts. A change of ours writes no file in a container: its root chooses where that lies."""
    if len(case.process.ns_pids) > 1:
        return f"for its next start, set {what} where its container is made"
    return f"CONFIG REWRITE keeps {what} in its file"


def _config_set(server: Redis, name: str, value: str) -> tuple[str, ...]:
    where: tuple[str, ...] = ("-p", str(server.port)) if server.port else ()
    if server.port == 0:
        where = ("-s", "SOCKET")
    return ("redis-cli", *where, "CONFIG", "SET", name, value)


_SHOWN = {
    "maxmemory": "maxmemory_bytes",
    "maxmemory-policy": "maxmemory_policy",
    "save": "save",
    "appendonly": "appendonly",
}


def _finding(
    case: _Case,
    code: str,
    *,
    severity: str,
    confidence: str,
    claim: str,
    detail: tuple[str, ...] = (),
    evidence: tuple[Evidence, ...] | None = None,
    remedies: tuple[Remedy, ...],
) -> Finding:
    server = case.server
    if server.unseen:
        detail += (f"Not read, and it may be otherwise for that: {', '.join(map(quote, server.unseen))}.",)
    told = []
    for name, origin in server.origins:
        if name in _SHOWN:
            value = getattr(server, _SHOWN[name])
            text = ("no", "yes")[value] if isinstance(value, bool) else value if value != "" else '""'
            told.append(Evidence(text=f"{name} {text}", source=origin))
    if server.used_memory_bytes is not None:
        told.append(Evidence(text=f"used_memory:{server.used_memory_bytes}", source="INFO memory"))
    return Finding(
        code=code,
        severity=severity,
        confidence=confidence,
        claim=claim,
        detail=detail,
        about=owner(case.process.cgroup or "/", case.machine.containers),
        subject=f"redis {_or(server.port, 6379)}",
        evidence=(process_line(case.process), *told, *(evidence or limit_lines(case.machine, case.bound))),
        remedies=remedies,
    )

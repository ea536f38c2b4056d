"""Whom the kernel would kill now: its choice, made on the processes of a living machine before it makes it."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate, chain

from reprieve.model.cgroup import Cgroup, Limit
from reprieve.model.finding import Gap
from reprieve.model.machine import Container, Machine
from reprieve.model.oom import OOM_SCORE_ADJ_MIN
from reprieve.model.process import Process
from reprieve.model.unit import Unit
from reprieve.oom.choose import Candidate, Choice, choose, parse_nodes
from reprieve.oom.groups import ancestors, counts_swap


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """Where memory runs out: who can be chosen for it, and of how much his oom_score_adj is a share."""

    total_pages: int
    page_bytes: int
    cgroup: str | None = None  # whose limit it is; None: memory of the machine
    nodes: frozenset[int] | None = None  # the NUMA nodes that are short; None: all
    by_policy: bool = False  # what keeps those who ask to these nodes: a memory policy; False: a cpuset


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What one call of the OOM killer would do now."""

    domain: Domain
    choice: Choice  # by badness; the first is the victim
    processes: Mapping[int, Process]  # those of the ranking, by pid
    group: str | None = None  # whose memory.oom.group makes all in it die with the victim
    killed: tuple[Process, ...] = ()  # all who die, the victim first
    sharing: tuple[Process, ...] = ()  # those of `killed` that die because the memory of one of the others is theirs
    unit: Unit | None = None  # of systemd, whose process the victim is
    stopped: tuple[Process, ...] = ()  # the rest of the unit, which systemd stops then, as its OOMPolicy= wants it
    instead: str | None = None  # what happens in place of a choice: "panic", "allocating-task", "waits"
    uncounted: int = 0  # processes of which the kernel knows more than could be read: they are not in the ranking
    containers: tuple[Container, ...] = ()  # by whose names people know them

    @property
    def victim(self) -> Process | None:
        """Who dies; None if all are exempt."""
        chosen = self.choice.chosen
        return None if chosen is None else self.processes[chosen.pid]

    @property
    def margin_pages(self) -> int | None:
        """By how much the first is ahead of the second; None: there is no second."""
        ranking = self.choice.ranking
        return None if len(ranking) < 2 else self.choice.points(ranking[0]) - self.choice.points(ranking[1])

    @property
    def memories(self) -> tuple[Process, ...]:
        """Of all who die one for each memory, the victim first."""
        apart: dict[int, Process] = {}
        for process in self.killed:
            apart.setdefault(process.mm or process.pid, process)
        return tuple(apart.values())

    @property
    def freed_bytes(self) -> int:
        """What is sure to come free: anonymous memory, swap and page tables. Files and shmem may be in others' use."""
        return sum(map(freed_bytes, self.memories))

    @property
    def stopped_bytes(self) -> int:
        """What comes free there besides, once systemd has stopped the rest of the unit: SIGTERM takes time."""
        ended, top = {process.mm for process in self.killed} - {None}, self.domain.cgroup
        memories = {
            process.mm or process.pid: process
            for process in self.stopped
            if process.mm not in ended and top in (None, path := process.cgroup or "/", *ancestors(path))
        }
        return sum(map(freed_bytes, memories.values()))


def freed_bytes(process: Process) -> int:
    """Of one process: what nobody else can hold, but for pages that a fork still shares with its parent."""
    anon = process.rss_anon_bytes if process.rss_anon_bytes is not None else process.rss_bytes
    return (anon or 0) + (process.swap_bytes or 0) + (process.pgtables_bytes or 0)


def held_bytes(process: Process) -> int:
    """What the kernel counts of one process: resident, shared or not, swapped out, and page tables."""
    return (process.rss_bytes or 0) + (process.swap_bytes or 0) + (process.pgtables_bytes or 0)


def whole_machine(machine: Machine) -> Domain | None:
    """Memory of the machine, and its swap; None if how much there is was not told."""
    facts = dict(machine.meminfo)
    total, page_bytes = facts.get("MemTotal"), machine.page_bytes
    if total is None or page_bytes is None or page_bytes < 1:
        return None
    return Domain(total_pages=(total + facts.get("SwapTotal", 0)) // page_bytes, page_bytes=page_bytes)


def all_seen(machine: Machine) -> Domain | None:
    """Where memory runs out for all who are seen: at the limit of the container whose view this is, else the machine's.

    None if that was not told. A limit above all memory is no limit.
    """
    whole, own = whole_machine(machine), one_cgroup(machine, "/") if machine.cgroup_private else None
    limit = next((group.max_bytes for group in machine.cgroups if group.path == "/"), None)
    if own is None or whole is None or not isinstance(limit, int) or limit > dict(machine.meminfo)["MemTotal"]:
        return whole or own
    return own


def some_nodes(machine: Machine, nodes: frozenset[int]) -> Domain | None:
    """NUMA nodes to which a cpuset or a policy keeps those who ask; None if they hold nothing, or it was not told.

    All that have memory are no constraint. Source: constrained_alloc() in mm/oom_kill.c adds up node_present_pages().
    """
    zones = [zone for zone in machine.zones if zone.node in nodes]
    present = [zone.present_pages for zone in zones]
    if (
        not nodes <= {zone.node for zone in zones}
        or None in present
        or not any(present)
        or machine.page_bytes is None
        or machine.page_bytes < 1
    ):
        return None
    with_memory = nodes_with_memory(machine)
    if nodes >= with_memory:
        return whole_machine(machine)
    swap_pages = dict(machine.meminfo).get("SwapTotal", 0) // machine.page_bytes
    return Domain(
        total_pages=sum(filter(None, present)) + swap_pages,
        page_bytes=machine.page_bytes,
        nodes=frozenset(nodes),
        by_policy=_by_policy(machine, nodes, with_memory),
    )


def nodes_with_memory(machine: Machine) -> frozenset[int]:
    """node_states[N_MEMORY]: a node may hold processors or a device alone."""
    return frozenset(zone.node for zone in machine.zones if zone.present_pages != 0)


def _by_policy(machine: Machine, nodes: frozenset[int], with_memory: frozenset[int]) -> bool:
    """Does a memory policy keep to these nodes who asks there? Not where only a cpuset keeps anybody to them."""

    def kept(allowed: str | None) -> bool:
        some = parse_nodes(allowed) & with_memory
        return bool(some) and some <= nodes

    asking = [process for process in machine.processes if not process.kernel_thread]
    return any(kept(one.bound_to) for one in asking) or not any(kept(one.mems_allowed) for one in asking)


def one_cgroup(machine: Machine, path: str) -> Domain | None:
    """The limit of a cgroup; None if there is no such group, or it has none.

    Source: mem_cgroup_get_max() in mm/memcontrol.c: the limit, and as much of the machine's swap as the group may use,
    unless its swappiness is 0. Where swap of groups is not counted their limit of it is PAGE_COUNTER_MAX: all of it.
    """
    group = next((group for group in machine.cgroups if group.path == path), None)
    facts, page_bytes = dict(machine.meminfo), machine.page_bytes
    if group is None or page_bytes is None or page_bytes < 1:
        return None
    limit, swap_total = group.max_bytes, facts.get("SwapTotal", 0)
    if group.version == 1 and isinstance(group.memsw_max_bytes, int) and limit == "max":
        return None  # memory+swap is never below memory
    if not isinstance(limit, int):
        return None
    swappiness = group.swappiness
    if swappiness is None:
        swappiness = 0 if dict(machine.sysctls).get("vm.swappiness") == "0" else None
    swap = 0 if swappiness == 0 else min(_swap_limit(group, limit, swap_total), swap_total)
    return Domain(total_pages=max((limit + swap) // page_bytes, 1), page_bytes=page_bytes, cgroup=path)


def _swap_limit(group: Cgroup, limit_bytes: int, total_bytes: int) -> int:
    def least(limit: Limit, taken: int = 0) -> int:
        return limit - taken if isinstance(limit, int) else total_bytes

    if not counts_swap(group):
        return total_bytes
    if group.version == 1:
        return 0 if group.memsw_max_bytes is None else least(group.memsw_max_bytes, limit_bytes)
    return 0 if group.swap_max_bytes is None else least(group.swap_max_bytes)


def predict(machine: Machine, domain: Domain, gone: Iterable[int] = ()) -> Prediction:
    """The kernel's choice if memory ran out there now; `gone` are pids that are dead by then."""
    absent = set(gone)
    processes, candidates, uncounted = {}, [], 0
    # is_global_init() is spared. Pid 1 of a container is not: only the first namespace holds threads of the kernel.
    init = 1 if any(process.kernel_thread for process in machine.processes) else None
    for process in _scanned(machine, domain):
        if process.pid in absent or process.kernel_thread or _is_gone(process):
            continue
        candidate = _candidate(process, domain.page_bytes, init)
        if candidate is None:
            uncounted += 1
            continue
        candidates.append(candidate)
        processes[process.pid] = process
    choice = choose(candidates, domain.total_pages)
    instead = _instead(machine, domain)
    group = None
    killed: tuple[Process, ...] = ()
    sharing: tuple[Process, ...] = ()
    unit: Unit | None = None
    stopped: tuple[Process, ...] = ()
    if choice.chosen is not None and instead is None:
        victim = processes[choice.chosen.pid]
        group = _killing_group(machine, domain, victim)
        others = _members(machine, group) if group is not None else ()
        killed = (
            victim,
            *(
                other
                for other in others
                if other.pid not in (victim.pid, *absent) and other.oom_score_adj != OOM_SCORE_ADJ_MIN
            ),
        )
        sharing = tuple(other for other in _sharing(machine, killed, init) if other.pid not in absent)
        killed += sharing
        unit = _unit(machine, victim)
        ended = absent | {process.pid for process in killed}
        stopped = tuple(other for other in _stopped(machine, unit) if other.pid not in ended)
    return Prediction(
        domain=domain,
        choice=choice,
        processes=processes,
        group=group,
        killed=killed,
        sharing=sharing,
        unit=unit,
        stopped=stopped,
        instead=instead,
        uncounted=uncounted,
        containers=machine.containers,
    )


def spared(machine: Machine, prediction: Prediction) -> Process | None:
    """The largest, if it is not among those who die and they free far less: their death would not help for long."""
    if prediction.domain.cgroup is None and prediction.domain.nodes is None:
        exempt = [process for process in machine.processes if process.oom_score_adj == OOM_SCORE_ADJ_MIN]
    else:
        exempt = []
    largest = max((*prediction.processes.values(), *exempt), key=freed_bytes, default=None)
    if largest is None or largest in prediction.killed or freed_bytes(largest) < 2 * prediction.freed_bytes:
        return None
    return largest


def why_spared(prediction: Prediction, process: Process) -> str:
    """Why a process that is not among those who die is not, in words."""
    adj, chosen = process.oom_score_adj, {candidate.pid for candidate in prediction.choice.ranking}
    if process.pid == 1 and adj != OOM_SCORE_ADJ_MIN and process.pid not in chosen:  # pid 1 of a container is chosen
        return "the first process is never chosen"
    return f"its oom_score_adj is {adj}"


def sequence(machine: Machine, domain: Domain, need_bytes: int) -> Iterator[Prediction]:
    """One kill after the other, until that much came free, or nobody is left.

    Who is stopped with the rest of a unit is taken to be gone before the next kill: by SIGTERM, which may take longer.
    """
    gone: set[int] = set()
    freed = 0
    while freed < need_bytes:
        prediction = predict(machine, domain, gone)
        if not prediction.killed:
            return
        yield prediction
        freed += prediction.freed_bytes + prediction.stopped_bytes
        gone.update(process.pid for process in (*prediction.killed, *prediction.stopped))


def _scanned(machine: Machine, domain: Domain) -> Iterator[Process]:
    """Those who can be chosen, in the order of the kernel's scan: its list of processes is that of their start.

    Of a group: group by group, parents first (mem_cgroup_scan_tasks()), each in the order of its cgroup.procs.
    """
    if domain.cgroup is not None:
        yield from _members(machine, domain.cgroup)
        return
    for process in sorted(machine.processes, key=lambda process: (process.start_ticks, process.pid)):
        # oom_cpuset_eligible(): where a policy constrains, cpusets are irrelevant; where a cpuset does, policies are.
        allowed = process.bound_to if domain.by_policy else process.mems_allowed
        if domain.nodes is None or allowed is None or parse_nodes(allowed) & domain.nodes:
            yield process


_OF_PROCESSES = r"processes|/proc(/([0-9]+|\*)/(stat|status|cgroup))?"  # places of gaps that hide whom to weigh


def if_nobody(prediction: Prediction, gaps: Iterable[Gap] = ()) -> str | None:
    """What the kernel does that finds nobody to kill; None: there is somebody, or a setting comes first.

    "panic": out_of_memory() ends so, of nodes too. "refused": at the limit of a group whoever asks gets none, and the
    others go on. "unseen": some may be there who are hidden from us.
    """
    if prediction.victim is not None or prediction.instead is not None:
        return None
    if prediction.uncounted or any(gap.hides and re.fullmatch(_OF_PROCESSES, gap.place) for gap in gaps):
        return "unseen"
    return "panic" if prediction.domain.cgroup is None else "refused"


def freed_after(steps: Iterable[Prediction]) -> list[int]:
    """What is free after each kill, in bytes, with what systemd stops then."""
    return list(accumulate(step.freed_bytes + step.stopped_bytes for step in steps))


def leaves_nobody(step: Prediction) -> bool:
    """Is nobody left who could be killed after it?"""
    gone = {process.pid for process in (*step.killed, *step.stopped)}
    return all(candidate.pid in gone for candidate in step.choice.ranking)


def _members(machine: Machine, path: str) -> Iterator[Process]:
    """The processes of a group and of those below it."""
    by_pid = {process.pid: process for process in machine.processes}
    for group in chain(group for group in machine.cgroups if group.path == path or path in ancestors(group.path)):
        for pid in group.pids:
            if pid in by_pid:
                yield by_pid[pid]


def _candidate(process: Process, page_bytes: int, init: int | None) -> Candidate | None:
    """None: not enough could be read. oom_badness(): resident, swapped out and page tables."""
    adj, rss_bytes = process.oom_score_adj, process.rss_bytes
    if adj is None or rss_bytes is None:
        return None
    exempt = None
    if process.pid == init:
        exempt = "it is the init of the machine"
    elif adj == OOM_SCORE_ADJ_MIN:
        exempt = "its oom_score_adj is -1000"
    return Candidate(
        pid=process.pid, pages=held_bytes(process) // page_bytes, adj=adj, exempt=exempt, start=process.start_ticks
    )


def _is_gone(process: Process) -> bool:
    """A zombie of which no thread goes on: nothing is left that could be killed."""
    return process.state in ("Z", "X") and (process.threads or 1) < 2


def _killing_group(machine: Machine, domain: Domain, victim: Process) -> str | None:
    """The topmost group of the victim that dies as one, not above the domain: mem_cgroup_get_oom_group()."""
    groups = {group.path: group for group in machine.cgroups}
    found = None
    for path in (victim.cgroup or "/", *ancestors(victim.cgroup or "/")):
        if path in groups and groups[path].oom_group:  # the root has no such file
            found = path
        if path == domain.cgroup:
            break
    return found


def _sharing(machine: Machine, killed: Iterable[Process], init: int | None) -> Iterator[Process]:
    """Who has one memory with somebody who dies: __oom_kill_process() ends them too, whatever their oom_score_adj."""
    pids, memories = {process.pid for process in killed}, {process.mm for process in killed} - {None}
    for process in machine.processes:
        if process.mm in memories and process.pid not in pids and process.pid != init:
            yield process


def _unit(machine: Machine, process: Process) -> Unit | None:
    """The nearest unit that a process is in, as the system's manager knows it."""
    units = {unit.cgroup: unit for unit in machine.units if unit.cgroup not in (None, "/")}
    path = process.cgroup or "/"
    return next((units[group] for group in (path, *ancestors(path)) if group in units), None)


def _stopped(machine: Machine, unit: Unit | None) -> Iterator[Process]:
    """All in a unit that systemd stops when one of its processes was killed for memory.

    systemd sees that in memory.events, which version 1 has not: unit_check_oom() in src/core/unit.c.
    """
    if unit is None or unit.oom_policy != "stop" or machine.cgroup_version != "2":
        return
    for process in machine.processes:
        path = process.cgroup or "/"
        if unit.cgroup in (path, *ancestors(path)):
            yield process


def _instead(machine: Machine, domain: Domain) -> str | None:
    """What the settings put in the place of a choice: out_of_memory(), check_panic_on_oom(), memcg v1's oom_control.

    mem_cgroup_oom() looks at that first: who waits at a limit never comes to out_of_memory(), and panics nobody.
    """
    if any(group.oom_kill_disable for group in machine.cgroups if group.path == domain.cgroup):
        return "waits"
    sysctls = dict(machine.sysctls)
    panics = sysctls.get("vm.panic_on_oom", "0")
    if panics == "2" or (panics == "1" and domain.cgroup is None and domain.nodes is None):
        return "panic"
    if domain.cgroup is None and sysctls.get("vm.oom_kill_allocating_task", "0") != "0":
        return "allocating-task"
    return None

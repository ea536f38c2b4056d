"""`reprieve next`: whom the kernel would kill if memory ran out now, and if things were otherwise."""

import os
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from reprieve.machine.host import Host, become_expendable
from reprieve.machine.observe import observe
from reprieve.machine.program import gaps_at_hand
from reprieve.machine.source import shown
from reprieve.model.finding import Failure, Gap
from reprieve.model.machine import Machine
from reprieve.model.process import Process
from reprieve.oom.choose import parse_nodes
from reprieve.oom.groups import first_full
from reprieve.oom.living import (
    Domain,
    all_seen,
    nodes_with_memory,
    one_cgroup,
    predict,
    sequence,
    some_nodes,
    whole_machine,
)
from reprieve.oom.paths import workload
from reprieve.output import INCOMPLETE, colour, print_lines, width
from reprieve.rules import whatif
from reprieve.units import size

if TYPE_CHECKING:
    from reprieve.rules.survey import Survey

_MOST_KILLS = 1000  # told one after the other
_LOOKS = 15  # between which growth is told: twice as many as it takes
_LEAST_S = 2.5  # to watch: REACH times as long as between all but the last look is a minute, with some time to spare
_ROWS = 20  # processes and cgroups of a look, as with `top`
_NAMED = 4  # of those whom a name could mean
_KINDS = ("pid", "unit", "docker", "podman", "pod")  # that a name may begin with


class Otherwise(NamedTuple):
    """A machine as it would be."""

    machine: Machine
    cuts: tuple[whatif.Cut, ...] = ()  # what of the growth that was asked for memory does not last for
    over: tuple[whatif.Over, ...] = ()  # the limits that were asked for and are lower than what is held

    @property
    def full(self) -> Domain | None:
        """Where memory has run out already, if things are so; None: nowhere. A limit that is refused fills nothing."""
        if killing := [one.group.path for one in self.over if not one.refused]:
            return one_cgroup(self.machine, killing[0])
        return _domain(self.machine, self.cuts[0].room.path) if self.cuts else None


class Request(NamedTuple):
    """What was asked for, as on the command line. Sizes are bytes."""

    name: str | None = None
    cgroup: str | None = None
    node: str | None = None
    need: int | None = None
    adjs: tuple[tuple[str, int], ...] = ()
    limits: tuple[tuple[str, int], ...] = ()
    grown: tuple[tuple[str, int], ...] = ()
    without: tuple[str, ...] = ()
    watch_s: float | None = None
    origin: str | None = None
    as_json: bool = False
    verbose: bool = False


def perform(request: Request) -> int:
    """Look, change what is to be otherwise, foretell; the exit status. Raises Failure."""
    become_expendable()
    if request.cgroup is not None and request.node is not None:
        said = f"--node {request.node} beside --cgroup: the OOM of a memory cgroup knows no nodes"
        raise Failure(said, hint="leave one of the two out", status=2)
    if request.watch_s is not None and request.watch_s < _LEAST_S:
        said = f"--watch {request.watch_s:g}: that is too short to tell a minute ahead"
        raise Failure(said, hint=f"--watch {_LEAST_S:g}, or longer", status=2)
    gaps: list[Gap] = []
    survey = None
    if request.watch_s is not None:
        survey, otherwise = _watch(request, request.watch_s, gaps)
    else:
        seen = look(request.origin, gaps)
        if not seen.processes:
            raise _none_seen(gaps)
        otherwise = changed(seen, request)
    machine = otherwise.machine
    has_run_out = otherwise.cuts or otherwise.over  # comes before what will
    filling = None if has_run_out else _filling(survey, request)
    domain = filling or find_domain(otherwise, request)
    steps = [predict(machine, domain)]
    if request.need is not None:
        steps = list(islice(sequence(machine, domain, request.need), _MOST_KILLS)) or steps
    status = INCOMPLETE if any(gap.hides for gap in gaps) else 0
    asked = () if request.name is None else whatif.find_processes(machine, request.name)
    lines: Iterable[str]
    if request.as_json:
        from reprieve.show import jsonl, looks

        seen_lines = () if survey is None else (looks.look(survey, _ROWS),)
        outlook = jsonl.outlook(
            machine,
            steps,
            asked=asked,
            cuts=otherwise.cuts,
            over=otherwise.over,
            need_bytes=request.need,
            most=_ROWS,
        )
        foretold = jsonl.foretold(steps, gaps, outlook)
        lines = (*seen_lines, *foretold, jsonl.end(events=len(steps), exit_status=status))
    else:
        from reprieve.show.prediction import foretell

        lines = foretell(
            machine,
            steps,
            asked=asked,
            cuts=otherwise.cuts,
            over=otherwise.over,
            need_bytes=request.need,
            survey=survey,
            gaps=gaps,
            width=width(),
            colour=colour(),
            verbose=request.verbose,
        )
    print_lines(lines)
    return status


def _watch(request: Request, watch_s: float, gaps: list[Gap]) -> tuple["Survey", Otherwise]:
    """What is seen in so many seconds, or until we are told to end: what grew, and the machine of the last look."""
    from reprieve.machine.follow import turns
    from reprieve.machine.sampler import Sampler
    from reprieve.rules.survey import Surveyor

    every_s = watch_s / _LOOKS
    sampler = Sampler(leave_out=frozenset({os.getpid()}))
    gaps += gaps_at_hand(sampler.gaps)
    surveyor = Surveyor(every_s=every_s, block_s=0)
    seen = sampler.look()
    if not seen.processes:
        raise _none_seen(gaps)
    otherwise = changed(seen, request)
    survey = surveyor.survey(otherwise.machine)
    for _ in islice(turns(every_s, _LOOKS + 1), 1, None):
        otherwise = changed(sampler.look(), request)
        survey = surveyor.survey(otherwise.machine)
    return survey, otherwise


def _filling(survey: "Survey | None", request: Request) -> Domain | None:
    """The place that is sure to be full first, unless the user has named one."""
    if survey is None or survey.ends_first is None or request.name or request.cgroup or request.node:
        return None
    return _domain(survey.machine, survey.ends_first.room.path)


def _domain(machine: Machine, path: str | None) -> Domain | None:
    """The limit of a group; None for the path: the memory of the machine."""
    return whole_machine(machine) if path is None else one_cgroup(machine, path)


def changed(machine: Machine, request: Request) -> Otherwise:
    """The machine as it would be. Raises Failure: there is nothing of that name."""
    cuts: list[whatif.Cut] = []
    over: list[whatif.Over] = []
    for name, adj in request.adjs:
        machine = whatif.with_adj(machine, {process.pid for process in _processes(machine, name)}, adj)
    for name in request.without:
        machine = whatif.ended(machine, {process.pid for process in _processes(machine, name)})
    limits: dict[str, int] = {}  # the last that is given of a group holds
    for name, limit in request.limits:
        path = _cgroup(machine, name)
        if path == "/" and not machine.cgroup_private:
            raise Failure("the root cgroup holds all of the machine, and has no limit", hint="name another group")
        limits[path] = limit
    limited = whatif.with_limits(machine, limits)
    over += filter(None, (whatif.over_limit(limited, path) for path in limits))
    refused = {one.group.path for one in over if one.refused}
    machine = whatif.with_limits(machine, {path: limit for path, limit in limits.items() if path not in refused})
    for name, more in request.grown:
        largest = max(_processes(machine, name), key=lambda process: process.rss_bytes or 0)
        room = first_full(machine, largest.cgroup or "/")
        if room is not None and room.left_bytes < more:
            cuts.append(whatif.Cut(largest, more, room))
            more = room.left_bytes  # there the kernel kills, and whom, what each holds then decides
        machine = whatif.grown(machine, largest.pid, more)
    return Otherwise(machine, tuple(cuts), tuple(over))


def find_domain(otherwise: Otherwise, request: Request) -> Domain:
    """Where memory runs out: where the user said, for whom he named, where it is full already, or for all who are seen.

    Raises Failure: there is no such place, or its size was not told.
    """
    machine = otherwise.machine
    if request.name is not None:
        room = first_full(machine, whereabouts(machine, request.name))
        if room is not None and (domain := _domain(machine, room.path)) is not None:
            return domain
    if request.cgroup is not None:
        path = _cgroup(machine, request.cgroup)
        domain = one_cgroup(machine, path)
        if domain is None:
            held = next((one.held_bytes for one in otherwise.over if one.group.path == path), None)
            refused = "" if held is None else f", and a lower one than the {size(held)} it holds is refused (EBUSY)"
            raise Failure(f"{path} has no memory limit{refused}", hint=f"try one: --limit {request.cgroup}=512M")
        return domain
    if request.node is not None:
        nodes = parse_nodes(request.node)
        domain = some_nodes(machine, nodes) if nodes else None
        if domain is None:
            there = ", ".join(map(str, sorted(nodes_with_memory(machine))))
            raise Failure(f"there is no node {request.node}", hint=f"nodes with memory: {there or 'none were told'}")
        return domain
    domain = otherwise.full or all_seen(machine)
    if domain is None:
        raise Failure("how much memory there is was not told", hint="/proc/meminfo must be readable")
    return domain


def whereabouts(machine: Machine, name: str) -> str:
    """The path of the group of that name, or in which all processes of that name are. Raises Failure."""
    of_processes = {process.cgroup or "/" for process in whatif.find_processes(machine, name)}
    if of_processes and not whatif.find_cgroups(machine, name):
        if len(of_processes) == 1:
            return of_processes.pop()
        pids = _some([str(process.pid) for process in whatif.find_processes(machine, name)])
        raise Failure(f"processes called {name} are in {len(of_processes)} cgroups", hint=f"name one by pid: {pids}")
    if not whatif.find_cgroups(machine, name) and name.partition(":")[0] not in _KINDS:
        raise _nobody_called(name)
    return _cgroup(machine, name)


def _processes(machine: Machine, name: str) -> tuple[Process, ...]:
    found = whatif.find_processes(machine, name)
    if not found:
        raise _nobody_called(name)
    return found


def _cgroup(machine: Machine, name: str) -> str:
    """The path of the group of that name. Raises Failure: there is none, or there are several."""
    found = whatif.find_cgroups(machine, name)
    if not found:
        raise _unknown(machine, name)
    if len(found) > 1:
        raise Failure(f"{name} could be {len(found)} cgroups", hint=_some(found))
    return found[0]


def _some(names: Sequence[str]) -> str:
    """The first of them, and whether there are more."""
    return ", ".join((*names[:_NAMED], *("…",) * (len(names) > _NAMED)))


def _nobody_called(name: str) -> Failure:
    return Failure(f"there is no process, unit or cgroup {name}", hint="a pid, a name, a unit, a container, a path")


def _none_seen(gaps: Sequence[Gap]) -> Failure:
    """There is nobody to choose from: what hides them, where that is known."""
    gap = next((one for one in gaps if one.place == "/proc" and one.hides), None)
    if gap is not None:
        return Failure(f"no processes are seen ({gap.place}: {gap.reason})", hint=gap.hint or "run it as root")
    hint = "a sosreport holds none: what reprieve snapshot -o FILE writes does"
    return Failure("there are no processes to choose from: none were told", hint=hint)


def _unknown(machine: Machine, name: str) -> Failure:
    """Nobody is called so: in the terms of what it would be."""
    kind, _, rest = name.partition(":")
    if kind == "pid":
        said = f"there is no process {rest} here" if rest.isdecimal() else f"{rest!r} is no pid"
        return Failure(said, hint="ps -e lists them: pid:1234")
    if kind in ("docker", "podman"):
        names = sorted(one.name for one in machine.containers if one.manager == kind and one.name is not None)
        ids = sorted(f"{kind}:{one[:12]}" for one in whatif.container_ids(machine, kind))
        if names:
            hint = f"there is {', '.join(names[:5])}"
        elif ids:
            hint = f"what they are called was not told; by id there is {', '.join(ids[:5])}"
        else:
            hint = "none at all is seen"
        return Failure(f"no running container {rest} of {kind} is seen here", hint=hint)
    if kind in ("unit", "pod"):
        from difflib import get_close_matches

        there = _units(machine) if kind == "unit" else _pods(machine)
        alike = get_close_matches(rest, there) or sorted(there)
        hint = f"there is {_some(alike)}" if there else "none at all is seen; root sees all"
        return Failure(f"no {kind} {rest} is seen here that anybody is in", hint=hint)
    hint = "a path below /sys/fs/cgroup, a unit, a container's name or id, a pod's UID"
    return Failure(f"there is no cgroup {name}", hint=hint)


def _units(machine: Machine) -> set[str]:
    owners = {workload(one.cgroup) for one in machine.processes if one.cgroup is not None}
    return {one.unit for one in owners if one.unit is not None and one.container_id is None}


def _pods(machine: Machine) -> set[str]:
    """By their names, else by their UIDs."""
    named = {one.pod for one in machine.containers if one.pod}
    owners = {workload(one.cgroup) for one in machine.processes if one.cgroup is not None}
    return named or {one.pod_uid for one in owners if one.pod_uid is not None}


def look(origin: str | None, gaps: list[Gap], *, unique_s: float = 0) -> Machine:
    """A machine as it lives, without this process, which soon ends; or as it was captured: a root, a sosreport, a
    snapshot. Raises Failure.
    """
    if origin is None:
        unseen: list[Gap] = []
        machine = observe(Host(), unseen, unique_s=unique_s)
        gaps += gaps_at_hand(unseen)
        return whatif.without(machine, {os.getpid()})
    if origin != "-" and os.path.isdir(origin):
        return _captured(origin, observe(Host(origin), gaps, unique_s=unique_s))
    from reprieve.machine.unpack import is_archive, unpacked  # loads what decompresses

    if origin != "-" and is_archive(origin):
        with unpacked(origin, gaps) as root:
            return observe(Host(root), gaps, unique_s=unique_s)
    from reprieve.snapshot import load  # loads what reads JSON

    snapshot = load(origin)
    if snapshot.machine is None:
        raise Failure(f"{shown(origin)} tells of no machine", hint="reprieve snapshot -o FILE makes one that does")
    gaps += snapshot.machine_gaps
    return snapshot.machine


def _captured(origin: str, machine: Machine) -> Machine:
    """Raises Failure: nothing of a kernel is there, and that nothing is found would be no answer."""
    if machine.meminfo or machine.processes or machine.cgroups or machine.sysctls:
        return machine
    hint = "what reprieve snapshot -o FILE wrote, a sosreport, or the root of a captured machine, with its proc and sys"
    raise Failure(f"{shown(origin)} is no captured machine: it holds nothing of a kernel's /proc or /sys", hint=hint)

"""Whom the kernel would kill next → text: who, why he and not another, what that frees, who comes after."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from math import inf

from reprieve.model.finding import Gap, quote
from reprieve.model.killer import Killer
from reprieve.model.machine import Machine
from reprieve.model.process import Process
from reprieve.oom.choose import Candidate
from reprieve.oom.groups import HERE, called, nearest, owner
from reprieve.oom.living import Prediction, freed_after, held_bytes, if_nobody, leaves_nobody, spared, why_spared
from reprieve.rules.limits import named
from reprieve.rules.survey import Survey
from reprieve.rules.whatif import Cut, Over
from reprieve.show import answer, escape
from reprieve.show.remaining import full_in, left_in, time_left, where
from reprieve.show.text import Page, colours, plain_paint
from reprieve.units import percent, size

_INSTEAD = {
    "panic": "nobody: the kernel would stop the whole machine (vm.panic_on_oom)",
    "allocating-task": "whoever asks for memory then (vm.oom_kill_allocating_task)",
    "waits": "nobody: whoever asks for memory waits (memory.oom_control: oom_kill_disable)",
}
# As panic() prints it. Until 60e2793d440a ("mm, oom: do not trigger out_of_memory from the #PF", v5.16) a page fault
# that was refused made the kernel choose of the whole machine.
_THEN = {
    "panic": "the kernel stops the whole machine: Kernel panic - not syncing: System is deadlocked on memory",
    "refused": "whoever asks for memory at that limit gets none: a system call fails (ENOMEM), a page fault is tried "
    "again without end",
}
_LIMIT = "that limit and the swap it may use"
_NEAREST = 3  # limits
_ROWS = 10  # of the ranking, unless all are wanted
_LABEL, _PLACE, _NAME = 10, 4, 24  # columns of it: in front of a row, the least there, and for a process at least


def foretell(
    machine: Machine,
    steps: Sequence[Prediction],
    *,
    asked: Collection[Process] = (),
    cuts: Sequence[Cut] = (),
    over: Sequence[Over] = (),
    need_bytes: int | None = None,
    survey: Survey | None = None,
    gaps: Sequence[Gap] = (),
    width: int = 80,
    colour: bool = False,
    verbose: bool = False,
) -> Iterator[str]:
    """The first of `steps` as lines; if there are more, each kill until enough is free.

    `asked` are those whom the user named, `cuts` is the growth that memory does not last for, `over` are the limits
    that are lower than what is held, `survey` is what was seen while the machine was watched.
    """
    page = Page(width=width, paint=colours() if colour else plain_paint)
    first = steps[0]
    yield page.headline("Next", foretold_who(first, gaps), "strong")
    if (then := if_nobody(first, gaps)) in _THEN:
        yield from page.say("Then", _THEN[then], "warning")
    if survey is not None:
        yield from page.say("Time left", time_left(survey), "critical" if survey.ends_first else "")
    for cut in cuts:
        yield from page.say("Grows", _cut(machine, cut), "warning")
    for one in over:
        yield from page.say("Limit", _over(machine, one), "warning")
    yield from page.say("Where", _where(first))
    victim = first.victim
    if victim is not None and first.instead is None:
        yield from page.say("Why", _why(first))
        yield from page.say("Frees", _frees(first))
        if len(first.killed) > 1:
            yield from page.say("With it", "; ".join(_with_it(first)))
        if first.stopped:
            yield from page.say("Then", _then(first))
        if largest := _spared(machine, first):
            yield from page.say("Not", largest, "warning")
        if close := _close(first):
            yield from page.say("Close", close)
    if asked and first.instead is None and (place := _place_of(first, asked)):
        yield from page.say("Asked", place)
    if survey is not None:
        yield from page.say("Nearest", _watched(survey))
    whole = first.domain.cgroup in (None, "/") and first.domain.nodes is None
    if whole and survey is None:
        yield from page.say("Nearest", _nearest(machine))
    if whole and (killers := _killers(machine)):
        yield from page.say("Before", killers)
    if need_bytes is not None and first.killed:
        yield ""
        yield from _sequence(page, steps, need_bytes, None if verbose else _ROWS)
    if first.choice.ranking:
        yield ""
        yield from _ranking(page, first, None if verbose else _ROWS)
    if first.uncounted:
        of = f"{first.uncounted} processes" if first.uncounted > 1 else "a process"
        yield from page.say("Not seen", f"the memory or the oom_score_adj of {of}: not in the ranking", "warning")
    yield from page.unseen(gaps)


def foretold_who(prediction: Prediction, gaps: Iterable[Gap] = ()) -> tuple[str, ...]:
    """Who would be killed, or what happens instead: a sentence in pieces, of which only the first must have room.

    `gaps` tell whether those who are seen are all.
    """
    if prediction.instead is not None:
        return (_INSTEAD[prediction.instead],)
    victim = prediction.victim
    if victim is None:
        if if_nobody(prediction, gaps) == "unseen":
            return ("nobody of those who could be seen",)
        return ("nobody: there is no process that the kernel may kill",)
    sharing = len(prediction.sharing)
    others = len(prediction.killed) - 1 - sharing
    said = answer.process(victim.comm, victim.pid) + (f" and {others} more of its group" if others else "")
    said += f" and {sharing} that share{'s' * (sharing == 1)} {'their' if others else 'its'} memory" if sharing else ""
    return (said, answer.of_workload(owner(victim.cgroup or "/", prediction.containers)))


def _place_of(prediction: Prediction, asked: Collection[Process]) -> str | None:
    """When their turn would come; None: now."""
    pids = {process.pid for process in asked}
    for before, candidate in enumerate(prediction.choice.ranking):
        if candidate.pid in pids:
            process = prediction.processes[candidate.pid]
            others = "1 other" if before == 1 else f"{before} others"
            return f"{answer.process(process.comm, process.pid)} would be chosen after {others}" if before else None
    first = next(iter(asked))
    whom = answer.process(first.comm, first.pid) + (f" and {len(pids) - 1} others" if len(pids) > 1 else "")
    if any(process.pid == 1 or process.kernel_thread for process in asked):
        return f"{whom}: never, as the first process and the kernel's own threads are not chosen"
    if any(process.oom_score_adj == -1000 for process in asked):
        return f"{whom}: never, as an oom_score_adj of -1000 exempts from it"
    return f"{whom}: its memory or its oom_score_adj could not be seen"


def _cut(machine: Machine, cut: Cut) -> str:
    """How much of its growth there is memory for, and where that is full then."""
    whom = answer.process(cut.process.comm, cut.process.pid)
    said = f"{whom} takes {size(cut.room.left_bytes)} of the {size(cut.asked_bytes)}"
    if cut.room.path is None:
        return f"{said}: then memory of {where(machine, cut.room)} is used up"
    swap = " and its swap used up" if cut.room.swap_bytes else ""
    return f"{said}: then {where(machine, cut.room)} is full, at its limit of {size(cut.room.limit_bytes)}{swap}"


def _over(machine: Machine, over: Over) -> str:
    """What becomes of a limit that is set lower than what is held."""
    name = quote(called(machine, over.group.path).name)
    said = f"{name} holds {size(over.held_bytes)} that neither its caches nor swap could give up: "
    limit = size(over.limit_bytes)
    return said + (f"the kernel refuses {limit} (EBUSY)" if over.refused else f"set to {limit} now, it kills at once")


def _where(prediction: Prediction) -> str:
    domain = prediction.domain
    total = size(domain.total_pages * domain.page_bytes)
    if domain.cgroup == "/":  # the root has no limit
        inside = "all that is seen from here is in it"
        return f"if {HERE} reached its limit now, as {inside}; scores are shares of {total}, {_LIMIT}"
    if domain.cgroup is not None:
        name = named(owner(domain.cgroup, prediction.containers))
        return f"if {name} reached its limit now; scores are shares of {total}, {_LIMIT}"
    if domain.nodes is not None:
        nodes = ", ".join(map(str, sorted(domain.nodes)))
        wall = "memory policy" if domain.by_policy else "cpuset"
        return f"if memory of node {nodes} ran out now for whom a {wall} keeps to it; scores are shares of {total}"
    return f"if memory of the machine ran out now; scores are shares of {total}, all memory and swap"


def _why(prediction: Prediction) -> str:
    chosen, domain = prediction.choice.ranking[0], prediction.domain
    held = chosen.pages * domain.page_bytes
    said = f"it holds {size(held)}, {percent(chosen.pages, domain.total_pages)} of that"
    if chosen.adj:
        change = "adds" if chosen.adj > 0 else "takes off"
        weight = abs(chosen.adj) * (domain.total_pages // 1000) * domain.page_bytes
        said += f"; its oom_score_adj of {chosen.adj} {change} {size(weight)}"
    if prediction.choice.ties:
        said += "; others have as many points, and the order in which the kernel looks decides"
    margin = prediction.margin_pages
    if margin is not None and margin >= _UNSURE_PAGES:
        second = prediction.processes[prediction.choice.ranking[1].pid]
        said += f"; {answer.process(second.comm, second.pid)} comes next, {size(margin * domain.page_bytes)} behind"
    return said


def _frees(prediction: Prediction) -> str:
    sure = prediction.freed_bytes
    shared = sum((process.rss_bytes or 0) - (process.rss_anon_bytes or 0) for process in prediction.memories)
    said = f"{size(sure)}: private memory, swap and page tables"
    if any(process.rss_anon_bytes is None for process in prediction.memories):
        return f"at most {size(sure)}: what of it is shared was not told"
    return said + (f"; {size(shared)} of files and shared memory may be in the use of others" if shared else "")


def _with_it(prediction: Prediction) -> Iterator[str]:
    """Who dies with the victim, and why."""
    if sharing := prediction.sharing:
        yield f"{_several(sharing)}: one memory with {'it' if len(prediction.killed) == 2 else 'those who die'}"
    group = prediction.killed[1 : len(prediction.killed) - len(sharing)]
    if not group or prediction.group is None:
        return
    unit = prediction.unit
    said = f"memory.oom.group of {quote(owner(prediction.group, prediction.containers).name)} is set"
    by = " (its OOMPolicy is kill)" if unit and unit.cgroup == prediction.group and unit.oom_policy == "kill" else ""
    yield f"{_several(group)}: {said}{by}"


def _then(prediction: Prediction) -> str:
    """Whom systemd ends when it hears of the kill."""
    assert prediction.unit is not None
    said = f"systemd stops the rest of {quote(prediction.unit.name)} (its OOMPolicy is stop)"
    frees = f"which frees {size(prediction.stopped_bytes)} more, by SIGTERM first: it may take a while"
    return f"{said}: {_several(prediction.stopped)}, {frees}"


def _have(processes: Sequence[Process]) -> str:
    return "has" if len(processes) == 1 else "have"


def _several(processes: Sequence[Process]) -> str:
    shown = ", ".join(answer.process(process.comm, process.pid) for process in processes[:3])
    return shown + (f" and {len(processes) - 3} others" if len(processes) > 3 else "")


def _spared(machine: Machine, prediction: Prediction) -> str | None:
    """The largest, if it is another and the victim frees far less."""
    largest = spared(machine, prediction)
    if largest is None:
        return None
    return (
        f"{answer.process(largest.comm, largest.pid)}, which holds {size(held_bytes(largest))}: "
        f"{why_spared(prediction, largest)}"
    )


def _close(prediction: Prediction) -> str | None:
    """The second, if the kernel's own figures are not exact enough to tell."""
    margin = prediction.margin_pages
    if margin is None or margin >= _UNSURE_PAGES or prediction.choice.ties:
        return None
    other = prediction.processes[prediction.choice.ranking[1].pid]
    return (
        f"{answer.process(other.comm, other.pid)} has {margin} pages less, which is within what the kernel's "
        "own counters are off by"
    )


_UNSURE_PAGES = 2 * 64  # of two processes: what a thread or a processor keeps uncounted, at least


def _nearest(machine: Machine) -> str:
    """Where memory runs out first, by how much is left there: the limits of groups, and the machine."""
    said = [left_in(machine, room) for room in nearest(machine)[:_NEAREST]]
    return "; ".join(said) or "how much is left was not told"


def _watched(survey: Survey) -> str:
    """The same, first those that are sure to be full, in the order in which they will be."""
    said = [
        f"{left_in(survey.machine, place.room)}{full_in(place)}"
        for place in sorted(survey.places, key=lambda place: place.left.seconds or inf)[:_NEAREST]
    ]
    return "; ".join(said) or "how much is left was not told"


def _killers(machine: Machine) -> str | None:
    """Who kills before the kernel must, and when."""
    said = [f"{answer.process(one.name, one.pid)} {_acts(one, machine)}" for one in machine.killers]
    return "; ".join(said) + ": by its own rules, before the kernel must" if said else None


def _acts(killer: Killer, machine: Machine) -> str:
    """At what it acts, in words."""
    if killer.may_kill_all is False:
        return "lacks the right to kill"
    ram, swap = dict(machine.meminfo).get("MemTotal"), dict(machine.meminfo).get("SwapTotal")
    conditions = []
    if killer.memory_percent is not None and ram is not None:
        conditions.append(_below(ram, killer.memory_percent, swap, killer.swap_free_percent))
    if killer.swap_used_percent is not None and swap:
        conditions.append(f"more than {killer.swap_used_percent:g} % of RAM and of swap are used")
    if killer.pressure_percent is not None and killer.pressure_s is not None:
        who = (
            "a unit that it watches waits"
            if killer.memory_percent is None
            else "as little RAM can be had and tasks wait"
        )
        conditions.append(f"{who} {killer.pressure_percent:g} % of the time for {killer.pressure_s:g} s")
    if killer.zram_percent is not None and killer.memory_percent is not None and ram is not None:
        taken = size(round(ram * killer.zram_percent / 100))
        conditions.append(f"as little RAM can be had and zram takes more than {taken} of it")
    if killer.hard_memory_percent is not None and ram is not None:
        conditions.append(_below(ram, killer.hard_memory_percent, swap, killer.hard_swap_free_percent))
    return "may kill" if not conditions else f"kills when {', or '.join(conditions)}"


def _below(ram: int, ram_percent: float, swap: int | None, swap_percent: float | None) -> str:
    """How little must be left; at 100 % of swap it does not matter how much is."""
    below = f"less than {size(round(ram * ram_percent / 100))} of RAM can be had"
    if swap_percent is not None and swap_percent < 100 and swap:
        below += f" and less than {size(round(swap * swap_percent / 100))} of swap are free"
    return below


def _sequence(page: Page, steps: Sequence[Prediction], need_bytes: int, most: int | None) -> Iterator[str]:
    """Whether that much would be free, after how many kills; each, and what is free then, with what systemd stops."""
    freed = freed_after(steps)
    kills, need = f"{len(steps)} kill{'s' * (len(steps) > 1)}", size(need_bytes)
    if freed[-1] >= need_bytes:
        waits = freed[-1] - sum(step.stopped_bytes for step in steps) < need_bytes
        once = ", once systemd has stopped the rest of what they were of: until then more may be killed" * waits
        yield from page.say("Need", f"{need} are free after {kills}{once}")
    elif not leaves_nobody(steps[-1]):
        said = f"{need} are not free after {kills}, which leave {size(freed[-1])}; further ones are not told"
        yield from page.say("Short", said, "warning")
    else:
        yield from page.say("Short", _not_even_all(steps, need_bytes, freed[-1]), "warning")
    for number, step in enumerate(islice(steps, most), start=1):
        said = f"{number}. {''.join(foretold_who(step))}: {size(freed[number - 1] - step.stopped_bytes)} free"
        if step.stopped:
            said += f", {size(freed[number - 1])} once {_several(step.stopped)} {_have(step.stopped)} ended"
        yield from page.say("Kills" if number == 1 else "", said)
    if most is not None and len(steps) > most:
        yield page.raw("", f"… {len(steps) - most} more; -v shows them", "dim")


def _not_even_all(steps: Sequence[Prediction], need_bytes: int, freed_bytes: int) -> str:
    """That there is not so much to be had, and how much there is."""
    domain = steps[0].domain
    total = domain.total_pages * domain.page_bytes
    kills = f"{len(steps)} kill{'s' * (len(steps) > 1)}"
    said = f"even killing all who can be killed ({kills}) frees {size(freed_bytes)} and no more, not {size(need_bytes)}"
    return said if need_bytes <= total else f"{said}; there are {size(total)} in all"


def _ranking(page: Page, prediction: Prediction, most: int | None) -> Iterator[str]:
    width = page.room + _LABEL
    indent, columns = _columns(width)
    head = "".join(f"{title:>{columns[title]}}" for title in columns)
    yield page.paint(f"{'':{indent}}{head}  process", "dim")
    ranking = prediction.choice.ranking
    for place, candidate in enumerate(islice(ranking, most), start=1):
        row = escape.cut(_row(prediction, candidate, columns), width - indent)
        yield page.paint(f"{f'{place:>4}':<{indent}}", "label") + page.paint(row, "")
    if most is not None and len(ranking) > most:
        yield page.raw("", f"… {len(ranking) - most} more; -v shows them", "dim")


def _columns(width: int) -> tuple[int, dict[str, int]]:
    """How far in the figures of a row begin, and how wide they are; beside a name there must be room for them."""
    columns = {"points": 10, "holds": 11, "adj": 7}
    if _LABEL + sum(columns.values()) + 2 + _NAME <= width:
        return _LABEL, columns
    while columns and _PLACE + sum(columns.values()) + 2 + _NAME > width:
        columns.popitem()
    return _PLACE, columns


def _row(prediction: Prediction, candidate: Candidate, columns: Mapping[str, int]) -> str:
    process: Process = prediction.processes[candidate.pid]
    told = {
        "points": str(prediction.choice.points(candidate)),
        "holds": size(candidate.pages * prediction.domain.page_bytes),
        "adj": str(candidate.adj),
    }
    group = owner(process.cgroup or "/", prediction.containers)
    said = answer.process(process.comm, process.pid) + answer.of_workload(group)
    return f"{''.join(f'{told[title]:>{wide}}' for title, wide in columns.items())}  {escape.plain(said)}"

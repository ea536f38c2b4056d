"""Who was killed: why this one, together with whom, and how often."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

from reprieve.model.finding import Change, Finding, Place, Remedy, quote
from reprieve.model.oom import OOM_DISABLE, OOM_SCORE_ADJ_MIN, Kill, OomReport, OomSummary, Task
from reprieve.model.snapshot import Snapshot
from reprieve.model.workload import Workload
from reprieve.oom.choose import Row, recompute
from reprieve.oom.incident import SOON_S, identity
from reprieve.oom.moments import elapsed_s
from reprieve.rules.account import largest_task, of_machine, task_pages, total_bytes
from reprieve.rules.evidence import lines
from reprieve.rules.incident import is_started_anew
from reprieve.units import duration, size

_MATTERS = 0.1  # of the memory: what a spared process must hold to be worth a word
_RECENT_S, _QUIET_S = 3600, 600  # what counts as "now" before the end of a log, and as silence


def small_victim(snapshot: Snapshot) -> Iterator[Finding]:
    """A small process died while a much larger one lived, mostly because of oom_score_adj.

    The kernel kills the highest score: RAM, swap and page tables of a process, plus oom_score_adj thousandths of all
    memory. -1000 exempts; a value above 0 offers a process up, however small it is. What the large one holds stays
    held, so the next kill follows soon. A child inherits the value of its parent. Where no adjustment explains it, the
    large one was passed over for what no report tells: it was dying already, or its memory could not be taken from it.

    Source: oom_badness() in mm/oom_kill.c; Documentation/filesystems/proc.rst, 3.1.
    """
    for number, oom in enumerate(snapshot.ooms):
        victim, page = oom.victim, oom.page_size_bytes
        row = _row(oom, victim)
        if victim is None or row is None or page is None:
            continue
        hog = largest_task(oom)
        if hog is None or hog is row or hog.comm is None or task_pages(hog) < 2 * task_pages(row):
            continue
        total = total_bytes(oom) or sum(map(task_pages, oom.tasks or ())) * page
        if task_pages(hog) * page < total * _MATTERS:
            continue
        why = _why_spared(hog, row)
        if why is None and recompute(oom).verdict == "ruled-out":
            why = "no report tells why; one that is dying already is passed over"
        if why is None:
            continue
        name, large, small = quote(hog.comm), size(task_pages(hog) * page), size(task_pages(row) * page)
        yield Finding(
            code="small-victim",
            severity="warning",
            confidence="certain",
            claim=f"{_named(victim)} died with {small} while {name} (pid {hog.pid}) lived with {large}: {why}",
            about=oom.workload,
            evidence=lines(oom, hog.line, row.line, victim.line),
            remedies=() if oom.sysrq else _choose_rightly(oom, hog, row),
            oom=number,
        )


def why_this_one(snapshot: Snapshot) -> Iterator[Finding]:
    """Why the kernel chose this process: the points of the victim beside those of the next, or whose place it took.

    Points are pages of RAM, swap and page tables, plus oom_score_adj thousandths of the memory there is to share: all
    RAM and swap, or the limit. They are recomputed from the task dump, and told only where they bear out the choice.
    Neither age, nor CPU time, nor the number of children counts since 2.6.36; the task that called the OOM killer is
    seldom the culprit. Where all processes of a full machine together hold less than a quarter, the rest is files in
    tmpfs, or the kernel's own, and a kill frees of it only what the killed one had the kernel hold.

    Source: oom_badness() and select_bad_process() in mm/oom_kill.c.
    """
    for number, oom in enumerate(snapshot.ooms):
        if oom.tasks is None:
            continue
        seen = recompute(oom)
        chosen, other, victim = seen.selected(), seen.runner_up(), oom.victim
        if victim is not None and seen.verdict == "not-listed" and oom.selected_pid not in (None, victim.pid):
            yield _in_its_place(number, oom, victim)
        if chosen is None or victim is None or seen.verdict not in ("same", "child"):
            continue
        held = f"had the highest score: {seen.why()}"
        if seen.verdict == "child":
            held = f"died in place of its parent: {_task(chosen.task)} had the highest score, for {seen.why()}"
        yield Finding(
            code="why-this-one",
            severity="info",
            confidence="certain",
            claim=f"{_named(victim)} {held}{_all_hold_little(oom)}",
            detail=(_next(other, seen.page_size_bytes),),
            about=oom.workload,
            evidence=lines(oom, chosen.task.line, other.task.line if other is not None else None, victim.line),
            oom=number,
        )


def _all_hold_little(oom: OomReport) -> str:
    """That most of the memory was not theirs, where it is so: for the end of a claim."""
    total, page = total_bytes(oom), oom.page_size_bytes
    if not of_machine(oom) or not total or page is None:
        return ""
    tasks = oom.tasks or ()
    held = sum((task.rss_pages or 0) * page + (task.pgtables_bytes or 0) for task in tasks)  # what several map: in each
    return "" if held * 4 > total else f"; the {len(tasks):,} listed held no more than {size(held)} of RAM together"


def _in_its_place(number: int, oom: OomReport, victim: Kill) -> Finding:
    """Until 5.0 a child of the chosen one died first, if it had memory of its own, or a thread's whole process."""
    chosen = f"process {oom.selected_pid}"
    if oom.selected_comm is not None:
        chosen = f"{quote(oom.selected_comm)} (pid {oom.selected_pid})"
    return Finding(
        code="why-this-one",
        severity="info",
        confidence="likely",
        claim=f"{_named(victim)} died in place of {chosen}, whom the kernel had chosen: until 5.0 a child went first",
        detail=("What the chosen one held is not in this text.",),
        about=oom.workload,
        evidence=lines(oom, oom.selected_line, victim.line),
        oom=number,
    )


def allocating_task(snapshot: Snapshot) -> Iterator[Finding]:
    """Whoever asked for memory was killed, because vm.oom_kill_allocating_task is set.

    The kernel then looks for nobody: the task whose request failed dies, however small it is, and what filled the
    memory stays. The setting saves a scan of the processes, which matters on machines with tens of thousands of them.

    Source: out_of_memory() in mm/oom_kill.c; Documentation/admin-guide/sysctl/vm.rst, oom_kill_allocating_task.
    """
    for number, oom in enumerate(snapshot.ooms):
        if oom.mode != "oom_kill_allocating_task" or oom.victim is None:
            continue
        setting = Change(place=Place(kind="sysctl", key="vm.oom_kill_allocating_task"), want="0")
        back = Remedy(
            title="Let the kernel choose by size again (a file in /etc/sysctl.d keeps it after a reboot)",
            settings=(setting,),
            commands=(("sysctl", "-w", "vm.oom_kill_allocating_task=0"),),
        )
        yield Finding(
            code="allocating-task",
            severity="warning",
            confidence="certain",
            claim=f"{_named(oom.victim)} died because it asked for memory, whatever it held: "
            "vm.oom_kill_allocating_task is set",
            about=oom.workload,
            evidence=lines(oom, oom.victim.line),
            remedies=(back,),
            oom=number,
        )


def group_kill(snapshot: Snapshot) -> Iterator[Finding]:
    """All processes of the group were to be killed together, because memory.oom.group is set for it.

    One process was chosen; the others died because a group with memory.oom.group=1 is one unit of work. systemd sets it
    for OOMPolicy=kill, the kubelet since 1.28 for every container on cgroup v2 (unless singleProcessOOMKill). A process
    with oom_score_adj -1000 is spared.

    Source: oom_kill_memcg_member() in mm/oom_kill.c; systemd.service(5), OOMPolicy=; kubernetes/kubernetes#117793.
    """
    for number, oom in enumerate(snapshot.ooms):
        if oom.group_path is None or not oom.kills:
            continue
        chosen, rest = oom.kills[0], oom.kills[1:]
        group = quote(oom.workload.name if oom.workload is not None else oom.group_path)
        claim = f"{_named(chosen)} was chosen; {_count(rest)} died with it: memory.oom.group is set for {group}"
        if not rest:
            claim = (
                f"memory.oom.group is set for {group}: all of it was to die; the text tells of {_named(chosen)} alone"
            )
        yield Finding(
            code="group-kill",
            severity="info",
            confidence="certain",
            claim=claim,
            about=oom.workload,
            evidence=lines(oom, *(line for line, text in oom.lines if "memory.oom.group" in text), chosen.line),
            oom=number,
        )


def repeat_kills(snapshot: Snapshot) -> Iterator[Finding]:
    """The same workload was killed again and again.

    Something starts it anew each time, and each time it fills the memory again: those that lived at once are no series,
    and their pids do not rise from kill to kill. An even period with the same size each
    time is a steady load above the limit, or a leak of steady pace; so many seconds is how long a fix has to watch.

    Source: the events of all logs that were read; the same kill from two logs counts once.
    """
    for number, oom in enumerate(snapshot.ooms):
        same = _of_same_load(snapshot.history, oom)
        if len(same) < 3 or oom.victim is None:
            continue
        where = oom.limit_of or oom.workload
        whom = quote(where.name) if where is not None and where.kind != "root" else quote(oom.victim.comm or "?")
        gaps = _gaps_s(same)
        victims = [event.victims for event in same if event.victims]
        if gaps and max(gaps) <= SOON_S and (sum(gaps) < 1 or not is_started_anew(victims)):
            continue  # they lived at once: one shortage, of which `also_killed` tells
        claim = f"{whom} {'reached its limit' if oom.limit_of is not None else 'was killed'} {len(same)} times"
        if gaps:
            claim += f" in {duration(sum(gaps))}, every {duration(_median(gaps))} (median)"
        yield Finding(
            code="repeat-kills",
            severity="warning",
            confidence="certain",
            claim=claim,
            detail=_pace(same, gaps),
            about=where,
            evidence=lines(oom, oom.victim.line),
            oom=number,
        )


def is_it_over(snapshot: Snapshot) -> Iterator[Finding]:
    """Whether the kills went on to the end of the log, or had stopped by then.

    Told of the newest kill alone, beside all others at the same limit: the same cgroup, or the machine; where the text
    does not say which cgroup it was, beside those of the same name. They go on if the last hour has three or more and
    the time since the newest is of the length of those between them; a period is told where four or more agree in it.
    They have stopped if nothing follows for ten minutes and for three times the longest pause between them. Else, and
    where the log ends with the report itself, nothing is claimed; nor is it of a text that was searched for kills (by
    grep), which does not show where its log ended. What was killed need not have been started again.

    Source: the stamps of the events, and of the last line of the log; of the kernel's own buffer the time now.
    """
    oom = snapshot.ooms[-1] if snapshot.ooms else None
    if oom is None or oom.victim is None or oom.sysrq or snapshot.log_ends is None:
        return
    if len(oom.lines) == len(oom.kills):
        return  # nothing but the lines of kills
    killed = [event for event in snapshot.history if event.victims and event.host == oom.host]
    same = [event for event in killed if _is_same_limit(event, oom)]
    since = [elapsed_s(event.stamp, snapshot.log_ends) for event in same]
    claim = _how_it_goes_on(since, "" if oom.limit_of is None else f" at the limit of {quote(oom.limit_of.name)}")
    if claim is None:
        return
    severity, words = claim
    yield Finding(
        code="is-it-over",
        severity=severity,
        confidence="certain",
        claim=words,
        detail=(f"At any limit the log has {len(killed)} kills.",) if len(killed) > len(same) else (),
        about=oom.limit_of,
        evidence=lines(oom, oom.victim.line),
        oom=len(snapshot.ooms) - 1,
    )


def _how_it_goes_on(since: Sequence[float | None], at: str) -> tuple[str, str] | None:
    """Whether kills go on where the log ends: severity and claim; None where that cannot be told.

    `since`: the seconds from each kill to the end of the log. `at`: whose limit it was, in words.
    """
    told = [seconds for seconds in since if seconds is not None]
    if not told or since[-1] is None or told != sorted(told, reverse=True):
        return None
    after = told[-1]
    recent = [seconds for seconds in told if seconds <= _RECENT_S]
    gaps = [earlier - later for earlier, later in pairwise(recent)]
    if len(recent) > 2 and recent[0] - after >= 1 and after <= 2 * max(gaps):
        newest = "at its end" if after < 1 else f"{duration(after)} before its end"
        often = f"{len(recent)} kills{at} in its last {duration(recent[0])}"
        if len(gaps) > 2 and max(gaps) <= 2 * min(gaps):
            often += f", every {duration(_median(gaps))} (median)"
        return "warning", f"It was still going on where the log ends: {often}, the newest {newest}"
    longest = max((earlier - later for earlier, later in pairwise(told)), default=0.0)
    if len(told) < len(since) or after < max(_QUIET_S, 3 * longest):
        return None
    if len(told) == 1:
        return "notice", f"It has not happened again: the log goes on for {duration(after)} without another kill{at}"
    return (
        "warning",
        f"It has stopped as far as the log tells: {len(told)} kills{at}, the last {duration(after)} before its end",
    )


def _row(oom: OomReport, victim: Kill | None) -> Task | None:
    return recompute(oom).tasks.get(victim.pid) if victim is not None else None


def _task(task: Task) -> str:
    return f"process {task.pid}" if task.comm is None else f"{quote(task.comm)} (pid {task.pid})"


def _next(row: Row | None, page: int | None) -> str:
    """Who would have been next, and with how much."""
    if row is None:
        return "There was no other that could be chosen."
    held = f"{row.held_pages} pages" if page is None else size(row.held_pages * page)
    adj = f" and an oom_score_adj of {row.task.oom_score_adj}" if row.task.oom_score_adj else ""
    return f"Next would have been {_task(row.task)}, with {held}{adj}."


def _named(kill: Kill) -> str:
    return f"process {kill.pid}" if kill.comm is None else f"{quote(kill.comm)} (pid {kill.pid})"


def _count(kills: tuple[Kill, ...]) -> str:
    return "1 other process" if len(kills) == 1 else f"{len(kills)} other processes"


def _why_spared(hog: Task, victim: Task) -> str | None:
    if hog.oom_score_adj == OOM_SCORE_ADJ_MIN or hog.oom_adj == OOM_DISABLE:
        return "its oom_score_adj exempts it"
    if hog.pid == 1:
        return "the kernel never chooses pid 1"
    if hog.oom_score_adj is None or victim.oom_score_adj is None or hog.oom_score_adj >= victim.oom_score_adj:
        return None
    return f"oom_score_adj is {hog.oom_score_adj} there, {victim.oom_score_adj} here"


def _choose_rightly(oom: OomReport, hog: Task, victim: Task) -> tuple[Remedy, ...]:
    """Make the large one eligible, or take back what offers the small one up."""
    found = []
    if hog.pid != 1 and hog.oom_score_adj is not None and hog.oom_score_adj < 0:
        name = quote(hog.comm or f"process {hog.pid}")
        found.append(
            Remedy(
                title=f"Let the kernel choose {name} (now; OOMScoreAdjust=0 in its unit for its next start)",
                cost="it may be killed",
                commands=(("choom", "--pid", str(hog.pid), "--adjust", "0"),),
            )
        )
    # Browsers and the like grade their own processes above 0: between two of them nobody's setting is at fault.
    if (victim.oom_score_adj or 0) > 0 >= (hog.oom_score_adj or 0):
        found.append(_stop_offering(oom.workload, quote(victim.comm or "?")))
    return tuple(found)


def _stop_offering(workload: Workload | None, name: str) -> Remedy:
    title, cost = f"Do not offer {name} up: oom_score_adj 0", "the kernel may choose a larger process instead"
    if workload is not None and workload.manager == "systemd" and workload.kind == "unit" and workload.unit is not None:
        setting = Change(place=Place(kind="unit", of=workload.unit, key="OOMScoreAdjust"), want="0")
        return Remedy(title=f"{title} (OOMScoreAdjust=0 in {quote(workload.name)})", cost=cost, settings=(setting,))
    if workload is not None and workload.qos in ("Burstable", "BestEffort"):
        return Remedy(
            title=f"Do not offer {name} up: give its pod's containers requests, of CPU too, equal to their limits "
            "(Guaranteed, -997)",
            cost="the node keeps both for it",
        )
    return Remedy(title=title, cost=cost, commands=(("choom", "--adjust", "0", "--", "PROGRAM"),))


def _of_same_load(history: Sequence[OomSummary], oom: OomReport) -> list[OomSummary]:
    """Those of the same host and of the same limit, or without a limit of the same program in the same workload."""
    if oom.victim is None:
        return []
    host, comm, limit, workload = oom.host, oom.victim.comm, identity(oom.limit_of), identity(oom.workload)
    if limit is not None:
        near = [event for event in history if event.limit_of is not None and event.host == host]
        return [event for event in near if identity(event.limit_of) == limit]
    return [
        event
        for event in history
        if event.limit_of is None and event.host == host and identity(event.workload) == workload
        if comm in [name for _, name in event.victims]
    ]


def _is_same_limit(event: OomSummary, oom: OomReport) -> bool:
    """Is it of the same cgroup or the machine? Of a cgroup that the text does not name: a victim of the same name."""
    if event.limit_of is None and oom.limit_of is None and "CONSTRAINT_MEMCG" in (event.scope, oom.scope):
        same_name = any(comm == kill.comm for _, comm in event.victims for kill in oom.kills)
        return event.scope == oom.scope and same_name
    return identity(event.limit_of) == identity(oom.limit_of)


def _gaps_s(events: list[OomSummary]) -> list[float]:
    """The seconds between kills; [] unless all are told, and none goes back."""
    gaps = [
        elapsed_s(earlier.stamp, later.stamp)
        if earlier.boot_id == later.boot_id or None not in (earlier.stamp.text, later.stamp.text)
        else None
        for earlier, later in pairwise(events)
    ]
    told = [gap for gap in gaps if gap is not None]
    return told if len(told) == len(gaps) else []


def _median(values: Sequence[float]) -> float:
    """The middle one; of two middle ones the upper. The module `statistics` takes a third of our start-up to load."""
    return sorted(values)[len(values) // 2]


def _pace(events: list[OomSummary], gaps: list[float]) -> tuple[str, ...]:
    said = []
    if gaps and max(gaps) <= 2 * min(gaps):
        said.append("The period is even: it is started anew and fills the memory at the same pace each time.")
    freed = [event.freed_bytes for event in events if event.freed_bytes is not None]
    if len(freed) == len(events) and max(freed) > 0:
        if min(freed) >= 0.9 * max(freed):
            said.append(f"It held about the same each time, {size(round(_median(freed)))}.")
        else:
            said.append(f"It held {size(freed[0])} the first time, {size(freed[-1])} the last.")
    return tuple(said)

"""What there is to say about one event, in words and rows, before any format: names are still marked by `quote`."""

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import NamedTuple

from reprieve.model.ending import Ending
from reprieve.model.finding import Evidence, Finding, Gap, Remedy, quote
from reprieve.model.oom import (
    OOM_SCORE_ADJ_MIN,
    AllocationFailure,
    Kill,
    OomReport,
    OomSummary,
    Stamp,
    Task,
    Usage,
    Zone,
)
from reprieve.model.workload import Workload
from reprieve.oom.choose import recompute
from reprieve.oom.incident import Incident, incident
from reprieve.oom.limit import reached
from reprieve.oom.moments import elapsed_s
from reprieve.rules.account import Holder, holders, largest_task, of_cgroup, ram_bytes, task_pages, total_bytes
from reprieve.rules.limits import is_lifted, named
from reprieve.rules.workers import SEVERAL
from reprieve.rules.zones import where_to_look
from reprieve.units import MIB, duration, size, utc


def who(oom: OomReport, history: Sequence[OomSummary] = ()) -> tuple[str, ...]:
    """Who was killed: a sentence in pieces, who it was, of which workload, and what else is known.

    `history`: all events that were seen; of one that killed nobody, who was killed at the same limit just before.
    """
    victim = oom.victim
    if victim is None:
        seen = incident(history, oom)
        return (_nobody(oom),) if seen is None or not seen.before else _nobody_else(oom, seen)
    others = len(oom.kills) - 1
    said = [process(victim.comm, victim.pid) + (f" and {others} more of its group" if others else "")]
    said.append(of_workload(oom.workload) + _class_of(oom.workload))
    freed = [held for kill in oom.kills if (held := held_bytes(kill)) is not None]
    if freed:
        said.append(f", held {size(sum(freed))}{_beside(oom, sum(freed))}")
    if moment := when(oom.stamp):
        said.append(f", {moment}")
    return tuple(said)


def _beside(oom: OomReport, resident: int) -> str:
    """What the victims had in swap, and of page tables, where either is more than what they held in RAM."""
    dead = [task for kill in oom.kills if (task := recompute(oom).tasks.get(kill.pid)) is not None]
    swapped = sum(task.swap_pages or 0 for task in dead) * (oom.page_size_bytes or 0)
    tables = sum(kill.pgtables_bytes or 0 for kill in oom.kills)
    said = f" + {size(swapped)} in swap" if swapped > resident else ""
    return said + (f" + {size(tables)} of page tables" if tables > max(resident, swapped, MIB) else "")


def _nobody(oom: OomReport) -> str:
    if oom.panic is not None:
        return "nobody: the kernel stopped the whole machine instead (panic)"
    if oom.no_killable:
        return "nobody: there was no process left that the kernel may kill"
    if oom.selected_pid is not None:
        return f"not told: the kernel chose {process(oom.selected_comm, oom.selected_pid)}, then the text ends"
    return "not told: this text holds no line that says who was killed"


def _nobody_else(oom: OomReport, seen: Incident) -> tuple[str, ...]:
    """Who was killed before the kernel found nobody left."""
    last, killed = seen.before[-1], sum(len(event.victims) for event in seen.before)
    pid, comm = last.victims[-1]
    said = [process(comm, pid) + (f", the last of {killed}" if killed > 1 else "")]
    said.append(of_workload(last.workload) + _class_of(last.workload))
    then = elapsed_s(last.stamp, oom.stamp) or 0
    end = "the kernel stopped the whole machine (panic)" if oom.panic is not None else "nobody was left to kill"
    if oom.panic is None and not oom.no_killable:
        end = "it happened again, and the text ends before it says to whom"
    if last.freed_bytes is not None:
        said.append(f", held {size(last.freed_bytes)}")
    if moment := when(last.stamp):
        said.append(f", {moment}")
    said.append(f"; {duration(max(then, 0.1))} later {end}")
    return tuple(said)


def process(comm: str | None, pid: int | None) -> str:
    """A process by name and number, as far as they are known."""
    if pid is None:
        return "a process" if comm is None else quote(comm)
    return f"process {pid}" if comm is None else f"{quote(comm)} (pid {pid})"


def of_workload(workload: Workload | None) -> str:
    """` of nginx.service`; empty for the root cgroup, and where it is not known."""
    return "" if workload is None or workload.kind == "root" else f" of {quote(workload.name)}"


def _class_of(workload: Workload | None) -> str:
    """` (Burstable)`: the class of a pod tells what oom_score_adj the kubelet gave it."""
    return "" if workload is None or workload.pod_uid is None or workload.qos is None else f" ({workload.qos})"


def held_bytes(kill: Kill) -> int | None:
    """The memory a victim had in RAM, as its kill line tells; None if it lacks the private part, mostly the largest."""
    told = (kill.anon_rss_bytes, kill.file_rss_bytes, kill.shmem_rss_bytes)
    return None if kill.anon_rss_bytes is None else sum(part for part in told if part is not None)


def when(stamp: Stamp) -> str | None:
    """When, as the log spells it, else by the time since boot."""
    if stamp.text is not None:
        import re

        if stamp.wall_s is not None and re.fullmatch(r"\d{9,10}(?:\.\d{1,9})?", stamp.text):
            return utc(stamp.wall_s)  # as journals count
        return stamp.text if re.fullmatch(_DATE, stamp.text) and "//" not in stamp.text else quote(stamp.text)
    return None if stamp.uptime_s is None else f"{duration(stamp.uptime_s)} after boot"


_DATE = r"(?:[\w :,+/-]|(?<=\d)\.(?=\d)){1,60}"  # no more than a date of any land is made of: it needs no quotes


def limit(oom: OomReport) -> tuple[str, ...]:
    """Whose limit was reached: a sentence in pieces."""
    if oom.sysrq:
        return ("none: a person asked the kernel for this kill (sysrq-f)",)
    if of_cgroup(oom):
        return _memcg_limit(oom)
    if oom.scope == "CONSTRAINT_CPUSET":
        by_cpuset = "its cpuset" if oom.cpuset is None else f"its cpuset {quote(oom.cpuset)}"
        return (_nodes(oom.mems_allowed), f", all that {by_cpuset} allows")
    if oom.scope == "CONSTRAINT_MEMORY_POLICY":
        return (_nodes(oom.nodemask), ", all that its memory policy allows (mbind, numactl)")
    if oom.scope is None:
        return ("not told by this text",)
    told = machine_memory(oom)
    # Before 5.0 no constraint is printed: that it was no cgroup's limit is seen, that it was all memory nodes is not.
    whole = "the whole machine" if oom.scope == "CONSTRAINT_NONE" else "the memory of the machine"
    return (whole, f": {told}" if told else "", "" if told and len(told) > _LONG else "; no cgroup limit")


_LONG = 32  # letters of what the machine has: beside less there is room to say that no limit was reached


def _nodes(printed: str | None) -> str:
    if printed is None or printed == "(null)":
        return "some memory nodes"
    return f"memory node {printed}" if printed.isdigit() else f"memory nodes {quote(printed)}"


def _memcg_limit(oom: OomReport) -> tuple[str, ...]:
    owner, own = oom.limit_of, oom.workload
    name = "a memory cgroup that this text does not name" if owner is None else named(owner)
    below = owner is not None and own is not None and own.path.startswith(f"{owner.path.rstrip('/')}/")
    role = ", its parent" if below and own != owner else ""
    full = reached(oom) or (oom.memcg.usage("memory") if oom.memcg is not None else None)
    if full is not None and is_lifted(oom):
        used = "" if full.usage_bytes is None else f"; {size(full.usage_bytes)} used"
        return (f"none any more for {name}", role, used)
    if full is None or full.limit_bytes is None or full.limit_bytes == "max":
        return (f"the memory limit of {name}", role)
    kind = "" if full.name == "memory" else f" of {full.name}"
    used = "" if full.usage_bytes is None else f"; {size(full.usage_bytes)} used"
    if full.usage_bytes is not None and full.usage_bytes > full.limit_bytes * 0.99:
        used = "; all of it used"
    return (f"{size(full.limit_bytes)}{kind} for {name}", role, used)


def machine_memory(oom: OomReport) -> str | None:
    """`480 MiB of RAM, no swap`; None where the report lacks it."""
    memory, ram = oom.memory, ram_bytes(oom)
    if memory is None:
        return None
    said = [] if ram is None else [f"{size(ram)} of RAM"]
    if memory.swap_total_bytes == 0:
        said.append("no swap")
    elif memory.swap_total_bytes is not None:
        free = "" if memory.swap_free_bytes is None else f" ({size(memory.swap_free_bytes)} free)"
        said.append(f"{size(memory.swap_total_bytes)} of swap{free}")
    return ", ".join(said) or None


def now(oom: OomReport, findings: Sequence[Finding]) -> str:
    """What to do first."""
    first = next((remedy for finding in findings for remedy in finding.remedies), None)
    if first is not None:
        return first.title
    if oom.sysrq:
        return f"Find out who asked for it and why: {_when_asked(oom)}"
    if is_lifted(oom):
        return "Nothing for now: its limit was lifted; set one that fits before it takes the machine"
    if (look := where_to_look(oom)) is not None:
        return look
    if any(finding.code == "page-tables" for finding in findings):
        return "Find out who maps so much, and why: fewer processes that map it, or huge pages, need fewer page tables"
    if oom.missing:
        where = _AFTER_PANIC if oom.panic is not None else "dmesg; journalctl -k, with -b -1 of the boot before"
        unnamed = of_cgroup(oom) and oom.limit_of is None
        why = "it tells whose limit it was, and how high" if unnamed else "parts of it are not here"
        return f"Find the whole report, from “invoked oom-killer” on ({where}): {why}"
    total, groups = total_bytes(oom), holders(oom)
    if total and groups and _bytes(groups[0]) >= total / 4:
        if len(groups[0].tasks) >= SEVERAL:
            return (
                f"Have fewer of what holds most; how many fit, this report does not tell: {holding(groups[0], total)}"
            )
        return f"No remedy is proven by this report alone; watch who holds most: {holding(groups[0], total)}"
    return "No remedy is proven by this report alone; watch which process grows"


_AFTER_PANIC = (
    "its console, /var/crash, /var/lib/systemd/pstore; after the restart journalctl -k -b -1, if it got there"
)


def _when_asked(oom: OomReport) -> str:
    """How memory stood when a person asked for a kill: a machine that hardly answers is why people do."""
    total, hog = total_bytes(oom), largest_task(oom)
    held = (task_pages(hog) if hog is not None else 0) * (oom.page_size_bytes or 0)
    if hog is None or not total or held < total / 2:
        return "nothing here says that memory is short"
    return f"the kernel still had memory, but {process(hog.comm, hog.pid)} held {size(held)} of {size(total)}"


def claim(finding: Finding) -> str:
    """What is claimed, and how sure it is where it is not certain."""
    return finding.claim if finding.confidence == "certain" else f"{finding.claim} ({finding.confidence})"


def remedies(findings: Iterable[Finding]) -> list[Remedy]:
    """What can be done, each thing once, in the order of the findings."""
    return list(dict.fromkeys(remedy for finding in findings for remedy in finding.remedies))


# What only root can do to the machine, or to others' processes; who may use kubectl or podman, their owners know.
_FOR_ROOT = (
    *("systemctl", "systemd-run", "sysctl", "sh", "mount", "dd", "mkswap", "swapon", "ipcrm", "slabtop", "sort"),
    *("docker", "reprieve"),
)
_OF_OTHERS = ("kubectl", "podman")


_ALONE = ("reprieve", "run")  # which does what its caller may


def for_root(remedy: Remedy) -> bool:
    """Are all its commands to be run as root?"""
    if any(argv[0] in _OF_OTHERS or "--user" in argv or argv[:2] == _ALONE for argv in remedy.commands):
        return False
    return any(argv[0].rpartition("/")[2] in _FOR_ROOT or argv[:2] == ("choom", "--pid") for argv in remedy.commands)


def of_event(findings: Sequence[Finding], index: int) -> list[Finding]:
    """The findings about one event, by its place in the snapshot."""
    return [finding for finding in findings if finding.oom == index]


def trigger(oom: OomReport) -> str | None:
    """Whose allocation failed, and what it asked for: seldom the culprit."""
    asked = oom.trigger
    if asked is None:
        return None
    said = process(asked.comm, asked.pid)
    if asked.order is not None and asked.order >= 0:
        blocks = f"2^{asked.order} pages in one piece" if asked.order else "one page"
        said += f" asked for {blocks}"
    if asked.gfp_flags:
        said += f" ({' | '.join(map(quote, asked.gfp_flags))})"
    elif asked.gfp_mask:
        said += f" (gfp_mask {asked.gfp_mask:#x})"
    return said


def machine(oom: OomReport) -> str | None:
    """Host, kernel and hardware, as far as the log names them."""
    told = [
        "" if oom.host is None else f"host {quote(oom.host)}",
        "" if oom.kernel is None else f"Linux {quote(oom.kernel)}",
        "" if oom.hardware is None else quote(oom.hardware),
    ]
    return ", ".join(filter(None, told)) or None


def origin(oom: OomReport, history: Iterable[OomSummary]) -> str:
    """Where the report was read, where else it stands, and whether the kernel wrote it."""
    also: tuple[str, ...] = ()
    for summary in history:
        if (summary.source, summary.line) == (oom.source, oom.line):
            also = summary.also_in
    places = ", also in ".join(map(quote, (f"{oom.source}:{oom.line}", *also)))
    if oom.verified is None:
        return f"{places}; plain text, nothing proves that the kernel wrote it"
    return f"{places}; " + ("written by the kernel" if oom.verified else "written by a program, not by the kernel")


class Row(NamedTuple):
    """A process of the task dump, as the kernel weighed it."""

    task: Task
    score: int | None  # as /proc/PID/oom_score has it, 0 to 2000; None where the total is not told, or it is exempt
    ram_bytes: int | None
    swap_bytes: int | None
    killed: bool
    caller: bool  # its allocation failed


def rows(oom: OomReport, most: int | None = None) -> list[Row]:
    """The processes of the task dump, those first which the kernel would sooner kill, those last which it may not."""
    chosen = [(row.task, row.score) for row in islice(recompute(oom).rows(), most)]
    seen = {task.pid for task, _ in chosen}
    others = [task for task in oom.tasks or () if task.pid not in seen] if most is None or len(chosen) < most else []
    chosen += [(task, None) for task in sorted(others, key=task_pages, reverse=True)]
    killed = {kill.pid for kill in oom.kills}
    caller = None if oom.trigger is None else oom.trigger.pid
    page = oom.page_size_bytes
    return [
        Row(
            task=task,
            score=score,
            ram_bytes=None if task.rss_pages is None or page is None else task.rss_pages * page,
            swap_bytes=None if task.swap_pages is None or page is None else task.swap_pages * page,
            killed=task.pid in killed,
            caller=task.pid == caller,
        )
        for task, score in chosen[:most]
    ]


def held_by(oom: OomReport, most: int) -> list[str]:
    """Who held most, those of one name together, then how many more there are; whoever was killed is among them."""
    groups, total = holders(oom), total_bytes(oom)
    killed = {kill.pid for kill in oom.kills}
    shown = [group for group in groups[:most] if _bytes(group) * 100 >= _bytes(groups[0])]
    if not killed.issubset([task.pid for group in shown for task in group.tasks]) and (
        of_victims := [group for group in groups[len(shown) :] if any(task.pid in killed for task in group.tasks)]
    ):
        shown[most - 1 :] = of_victims[:1]
    said = []
    for group in shown:
        victims = [task for task in group.tasks if task.pid in killed]
        dead = f", {len(victims)} of them killed" if victims else ""
        if len(victims) == 1:
            held = size((victims[0].rss_pages or 0) * (oom.page_size_bytes or 0))
            dead = ", killed" if len(group.tasks) == 1 else f", the killed one {held}"
        said.append(holding(group, total) + dead)
    more = len(oom.tasks or ()) - sum(len(group.tasks) for group in shown)
    return [*said, f"{more} more"] if more > 0 and said else said


def _bytes(group: Holder) -> int:
    return group.rss_bytes + (group.swap_bytes or 0)


def holding(group: Holder, total: int | None) -> str:
    """`httpd ×10 at most 414 MiB`, `mysqld (pid 2) 114 MiB + 20 MiB in swap`; `total`: of all the memory there was."""
    swap = f" + {size(group.swap_bytes)} in swap" if group.swap_bytes else ""
    held = [*map(task_pages, group.tasks)]
    least = max(held, default=0) / 1000
    count = sum([pages >= least for pages in held])  # others are of the same name alone
    if count == 1:
        return f"{process(group.comm, group.tasks[held.index(max(held))].pid)} {size(group.rss_bytes)}{swap}"
    if group.anon_bytes is not None:
        return f"{quote(group.comm)} ×{count} {size(group.anon_bytes)}{swap}"
    most = group.rss_bytes if total is None else min(group.rss_bytes, total)  # what they share counts in each
    return f"{quote(group.comm)} ×{count} at most {size(most)}{swap}"


def zone_name(zone: Zone) -> str:
    """`node 0 DMA32`."""
    return zone.name if zone.node is None else f"node {zone.node} {zone.name}"


def standing(row: Row) -> str:
    """The score of a process as a cell of a table; empty where it is not told."""
    if row.task.oom_score_adj == OOM_SCORE_ADJ_MIN:
        return "never"
    return "" if row.score is None else str(row.score)


def refused(failure: AllocationFailure) -> str:
    """A failed allocation: no kill, and often harmless."""
    blocks = "" if failure.order is None else f" of 2^{failure.order} pages in one piece"
    place = f"{quote(failure.source)}, line {failure.line}"
    return f"{process(failure.comm, None)} was refused memory{blocks}; nobody was killed for it ({place})"


def unseen(gap: Gap) -> str:
    """What could not be seen, why, and what to do to see it; or what is to be noted."""
    hint = "" if gap.hint is None else f" ({gap.hint})"
    return f"{quote(gap.place)}: {gap.reason}{hint}"


def counter(usage: Usage) -> str:
    """A counter of a memory cgroup against its limit."""
    limit = (
        "not told" if usage.limit_bytes is None else "none" if usage.limit_bytes == "max" else size(usage.limit_bytes)
    )
    used = "not told" if usage.usage_bytes is None else size(usage.usage_bytes)
    hits = f", met {usage.failcnt} times" if usage.failcnt else ""
    return f"{quote(usage.name)}: {used} used, limit {limit}{hits}"


def evidence(findings: Iterable[Finding], most: int | None = None) -> list[Evidence]:
    """The lines that show it, each once, in the order of the findings; `most`: the first so many."""
    shown: dict[Evidence, None] = {}
    for line in (line for finding in findings for line in finding.evidence):
        if len(shown) == most:
            break
        shown[line] = None
    return list(shown)


def place(shown: Evidence) -> str:
    """`kern.log:84`; the name of the source is a stranger's."""
    source = shown.source or ""
    return source if shown.line is None else f"{source}:{shown.line}"


def watermark(zone: Zone) -> str:
    """How the free memory of a zone stands to its watermarks, in words; empty where the report does not tell."""
    free = zone.free_bytes
    if free is None:
        return ""
    if zone.min_bytes is not None and free < zone.min_bytes:
        return "below min"
    if zone.low_bytes is not None and free < zone.low_bytes:
        return "below low"
    if zone.high_bytes is not None and free < zone.high_bytes:
        return "below high"
    return "above high" if zone.high_bytes is not None else ""


def listed(summary: OomSummary) -> tuple[str, str, str, str]:
    """One event in a row: when, who, what was freed, whose limit. Names are marked."""
    moment = when(summary.stamp) or "time not told"
    if summary.victims:
        pid, comm = summary.victims[0]
        more = f" +{len(summary.victims) - 1}" if len(summary.victims) > 1 else ""
        victim = f"{process(comm, pid)}{more}"
    else:
        victim = "nobody: panic" if summary.panic else "nobody killable" if summary.no_killable else "not told"
    freed = "" if summary.freed_bytes is None else size(summary.freed_bytes)
    if summary.limit_of is not None:
        whose = named(summary.limit_of)
        if summary.limit_bytes is not None:
            kind = "" if summary.limit_name in (None, "memory") else f" of {summary.limit_name}"
            whose = f"{size(summary.limit_bytes)}{kind}{' for' if kind else ' of'} {whose}"
    else:
        whose = _SCOPES.get(summary.scope or "", "not told")
    return moment, victim, freed, whose


def where_told(history: Sequence[OomSummary]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Host and source of each, with their titles: where there is more than one of them. Names are marked."""
    hosts = [quote(summary.host) if summary.host is not None else "" for summary in history]
    sources = [quote(f"{summary.source}:{summary.line}") for summary in history]
    columns: list[tuple[str, list[str]]] = []
    if len(set(hosts)) > 1:
        columns.append(("Host", hosts))
    if len({summary.source for summary in history}) > 1:
        columns.append(("Log", sources))
    cells = [tuple(column[row] for _, column in columns) for row in range(len(history))]
    return tuple(title for title, _ in columns), cells


def ended(told: Iterable[tuple[Ending, Finding]]) -> list[tuple[str, str, str]]:
    """What managers say of ends, a row for each: when it was, the claim, and where it is told. Names are marked."""
    return [(_when_ended(ending), claim(finding), quote(place(finding.evidence[-1]))) for ending, finding in told]


def _when_ended(ending: Ending) -> str:
    moment = None if ending.finished is None else when(ending.finished)
    return moment or "time not told"


_SCOPES = {
    "CONSTRAINT_NONE": "the machine",
    "global": "the machine",
    "CONSTRAINT_MEMCG": "a memory cgroup",
    "CONSTRAINT_CPUSET": "a cpuset",
    "CONSTRAINT_MEMORY_POLICY": "a memory policy",
}

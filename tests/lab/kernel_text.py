"""What a scenario wants of the kernel, looked for in its text with no parser of ours: the labels of the lab."""

from __future__ import annotations

import itertools
import re

from lab.scenario import Report


def reports(log: str) -> list[str]:
    """The text of each report, from its first line to the next report, or to the end."""
    starts = [match.start() for match in re.finditer(r"^.*invoked oom-killer: ", log, re.MULTILINE)]
    return [log[start:end] for start, end in itertools.pairwise([*starts, len(log)])]


def unsaid(text: str, report: Report) -> list[str]:
    """What the scenario did and the text of the report does not say, or denies."""
    wanted = {"order": "" if report.order == "any" else f", order={report.order}, "}
    if report.victim is None:
        wanted["nobody"] = report.panic or "Out of memory and no killable processes"
    else:
        mode = "Out of memory (oom_kill_allocating_task)" if report.allocating_task else "ut of memory"
        wanted["victim"] = f"({report.victim}) total-vm:"
        wanted["mode"] = f"{mode}: Killed process"
        wanted["adj"] = f" oom_score_adj:{report.victim_adj}\n"
        wanted["constraint"] = f"oom-kill:constraint={report.constraint},"
        wanted["victim in"] = f",task_memcg={report.victim_in},task={report.victim},"
    if report.limit_of is not None:
        wanted["limit of"] = f"Memory cgroup stats for {report.limit_of}:"
    if report.limit_bytes is not None:
        wanted["limit"] = f"kB, limit {report.limit_bytes // 1024}kB, failcnt"
    if report.swap_bytes is not None:
        wanted["swap"] = f"Total swap = {report.swap_bytes // 1024}kB"
    missing = [f"{what}: {words}" for what, words in wanted.items() if words not in text]
    if (tasks := "[  pid  ]" in text) is not report.tasks:
        missing.append(f"task table: {tasks}")
    died, group = _killed(text), report.also_killed
    if group is None:
        agrees = report.victim in died and len(died) > 1
    else:
        agrees = died == sorted([*group, *([report.victim] if report.victim else [])])
    if not agrees:
        missing.append(f"killed: {died}")
    return missing


def _killed(text: str) -> list[str]:
    """Names of the processes that were killed. The victim of a group kill is printed twice."""
    return sorted(dict(re.findall(r"Killed process (\d+) \((.*)\) total-vm:", text)).values())


def is_free_again(text: str) -> bool:
    """Has every zone that is no reserve of others as much as it wants? Somebody has just let go, or swap is written."""
    zones = re.findall(r"Node \d+ (?:DMA32|Normal) free:(\d+)kB .*?\blow:(\d+)kB", text)
    return bool(zones) and all(int(free) > int(low) for free, low in zones)

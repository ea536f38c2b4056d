"""What a scenario wants, looked for in what reprieve reads and says."""

from __future__ import annotations

from lab.scenario import MEMCG, Report
from reprieve.model.finding import Finding
from reprieve.model.oom import OomReport

# Findings a scenario decides one way or the other: where it does not ask for them they must be silent.
DECIDED = (
    *("cgroup-limit", "parent-limit", "host-full", "node-short", "shmem-holds", "kernel-memory"),
    *("no-swap", "swap-full", "cgroup-swap-limit", "group-kill"),
)


def misread(oom: OomReport, report: Report) -> list[str]:
    """Facts of a report that were read otherwise than the scenario made them."""
    victim = oom.victim
    memory = oom.memcg.usage("memory") if oom.memcg else None
    facts: dict[str, tuple[object, object]] = {
        "victim": (victim and victim.comm, report.victim),
        "limit of": (oom.limit_of and oom.limit_of.path, report.limit_of),
        "limit": (memory and memory.limit_bytes, report.limit_bytes),
        "mode": (oom.mode, "oom_kill_allocating_task" if report.allocating_task else None),
        "panic": ((oom.panic or "").startswith(report.panic or "no panic"), report.panic is not None),
        "nobody killable": (oom.no_killable, report.victim is None and "panic_on_oom" not in (report.panic or "")),
        "sysrq": (oom.sysrq, report.order == -1),
        "tasks": (oom.tasks is not None, report.tasks),
        "missing": (len(oom.missing), 0 if report.tasks else 1),
    }
    if report.also_killed is None:
        facts["others killed"] = (len(oom.kills) > 1, True)
    else:
        facts["also killed"] = (tuple(sorted(str(kill.comm) for kill in oom.kills[1:])), report.also_killed)
    if victim is not None:
        facts["constraint"] = (oom.constraint, report.constraint)
        facts["memcg"] = (oom.oom_memcg, report.limit_of)
        facts["victim in"] = (oom.task_memcg, report.victim_in)
        facts["adj"] = (victim.oom_score_adj, report.victim_adj)
        facts["page size"] = (oom.page_size_bytes, 4096)
        facts["selected"] = (oom.selected_pid, victim.pid)
    elif report.limit_of is not None:
        facts["constraint inferred"] = (oom.scope, MEMCG)
    if report.order != "any":
        facts["order"] = (oom.trigger and oom.trigger.order, report.order)
    if report.swap_bytes is not None:
        facts["swap"] = (oom.memory and oom.memory.swap_total_bytes, report.swap_bytes)
    return [f"{what}: read {read!r}, made {made!r}" for what, (read, made) in facts.items() if read != made]


def misjudged(findings: list[Finding], report: Report) -> list[str]:
    """Findings that are missing, or that speak where they must be silent."""
    codes = {finding.code for finding in findings}
    missing = [f"silent: {code}" for code in report.finds if code not in codes]
    return missing + [f"speaks: {code}" for code in DECIDED if code in codes and code not in report.finds]

"""What the reader finds in a log, in the words of the labels beside the logs: `python -m tests.labels LOG`.

`tests/logs/README.md` says what each field means. Figures are in kB as printed.
"""

import json
import sys
from pathlib import Path
from typing import Any

from reprieve.model.oom import Kill, OomReport
from reprieve.oom.report import read_reports
from reprieve.oom.tables import parse_kill

NO_LIMIT_KB = 9007199254740988  # what the kernel prints for "max" on 64 bits with pages of 4 KiB


def _kb(count_bytes: int | None) -> int | None:
    return None if count_bytes is None else count_bytes // 1024


def _printed_pgtables_bytes(oom: OomReport, victim: Kill) -> int | None:
    """As the line says, though near 5.4 it calls bytes kB."""
    lines = (parse_kill(text, line=number) for number, text in oom.lines if number == victim.line)
    return next((kill.pgtables_bytes for kill in lines if kill is not None), victim.pgtables_bytes)


def label(oom: OomReport) -> dict[str, Any]:
    """One event as a label."""
    trigger, victim, memory = oom.trigger, oom.victim, oom.memory
    usage = oom.memcg.usage("memory") if oom.memcg else None
    return {
        "trigger": trigger.comm if trigger else None,
        "gfp_mask": hex(trigger.gfp_mask) if trigger and trigger.gfp_mask is not None else None,
        "order": trigger.order if trigger else None,
        "trigger_oom_score_adj": trigger.oom_score_adj if trigger else None,
        "trigger_oom_adj": trigger.oom_adj if trigger else None,
        "constraint": oom.constraint,
        "constraint_inferred": oom.constraint_inferred,
        "victim_pid": victim.pid if victim else None,
        "victim": victim.comm if victim else None,
        "total_vm_kb": _kb(victim.total_vm_bytes) if victim else None,
        "anon_rss_kb": _kb(victim.anon_rss_bytes) if victim else None,
        "file_rss_kb": _kb(victim.file_rss_bytes) if victim else None,
        "shmem_rss_kb": _kb(victim.shmem_rss_bytes) if victim else None,
        "pgtables_kb": _kb(_printed_pgtables_bytes(oom, victim)) if victim else None,
        "uid": victim.uid if victim else None,
        "victim_oom_score_adj": victim.oom_score_adj if victim else None,
        "kill_score": oom.selected_score,
        "selected_pid": oom.selected_pid,
        "selected": oom.selected_comm,
        "oom_memcg": oom.oom_memcg,
        "task_memcg": oom.task_memcg,
        "memcg_usage_kb": _kb(usage.usage_bytes) if usage else None,
        "memcg_limit_kb": (NO_LIMIT_KB if usage.limit_bytes == "max" else _kb(usage.limit_bytes)) if usage else None,
        "memcg_failcnt": usage.failcnt if usage else None,
        "swap_total_kb": _kb(memory.swap_total_bytes) if memory else None,
        "swap_free_kb": _kb(memory.swap_free_bytes) if memory else None,
        "n_tasks": None if oom.tasks is None else len(oom.tasks),
        "table_columns": oom.task_columns,
        "page_size_kb": _kb(oom.page_size_bytes),
        "reaper_seen": victim.reaped if victim else False,
        "no_killable": oom.no_killable,
        "panic": oom.panic,
        "also_killed": [[kill.pid, kill.comm] for kill in oom.kills[1:]],
        "header_seen": trigger is not None,
        "mode": oom.mode,
    }


def labels(path: Path) -> list[dict[str, Any]]:
    """All events of a log as labels, in its order."""
    text = path.read_bytes().decode(errors="backslashreplace")
    return [label(event) for event in read_reports(text, str(path)) if isinstance(event, OomReport)]


if __name__ == "__main__":
    json.dump(labels(Path(sys.argv[1])), sys.stdout)

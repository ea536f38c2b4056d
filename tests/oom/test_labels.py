"""Every label of every real log is met: nothing missing, wrong, invented, lost or extra."""

import json
from typing import Any

import pytest

from reprieve.model.oom import OomReport
from reprieve.oom.report import read_reports
from tests.labels import label
from tests.logs_of import LOGS

PANIC = "Kernel panic - not syncing: "
FIELDS = """trigger gfp_mask order trigger_oom_score_adj trigger_oom_adj constraint victim_pid victim total_vm_kb
anon_rss_kb file_rss_kb shmem_rss_kb pgtables_kb uid victim_oom_score_adj kill_score selected_pid selected oom_memcg
task_memcg memcg_usage_kb memcg_limit_kb memcg_failcnt swap_total_kb swap_free_kb n_tasks table_columns page_size_kb
reaper_seen no_killable panic also_killed header_seen mode""".split()

Label = dict[str, Any]


def rows() -> list[tuple[str, str, Label]]:
    found = []
    for index in (LOGS / "index.jsonl", LOGS / "lab" / "labels.jsonl"):
        for line in index.read_text().splitlines():
            row = json.loads(line)
            path = index.parent / row["file"]
            section = row.get("section")
            text = path.read_bytes().decode(errors="backslashreplace")
            found.append((f"{path.name} {section or ''}".strip(), section_of(text, section), row))
    return found


def section_of(text: str, section: str | None) -> str:
    if section is None:
        return text
    _, _, after = text.partition(f"##### {section}\n")
    return after.partition("##### ")[0]


def plain(field: str, value: Any) -> Any:
    """One spelling per value: false and empty are "not there"."""
    if value is None or value is False or value in ("", [], ()):
        return None
    if field == "panic":
        return str(value).removeprefix(PANIC).strip()
    if field == "also_killed":
        return sorted(map(tuple, value))
    return list(value) if isinstance(value, tuple) else value


def differences(want: Label, got: Label) -> list[str]:
    told = []
    for field in FIELDS:
        label_says, answer = plain(field, want.get(field)), plain(field, got[field])
        if field in want.get("ambiguous", ()):
            ok = label_says is None or answer in (label_says, None)
        else:
            ok = label_says == answer
        if not ok:
            told.append(f"{field}: the label says {label_says!r}, read {answer!r}")
    return told


ROWS = rows()


@pytest.mark.parametrize(("text", "row"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_every_label_is_met(text: str, row: Label) -> None:
    events = [label(event) for event in read_reports(text) if isinstance(event, OomReport)]
    wanted = row["events"]
    if len(events) != len(wanted) and ("n_events" in row["ambiguous"] or row.get("at_least")):
        victims = [event["victim_pid"] for event in events]
        wanted = [one for one in wanted if one["victim_pid"] in victims]
        events = [events[victims.index(one["victim_pid"])] for one in wanted]
        assert wanted
    assert len(events) == len(wanted)
    assert not [told for one, event in zip(wanted, events, strict=True) for told in differences(one, event)]

"""A limit that was reached, and the change of ours that has set it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from reprieve import ours
from reprieve.fix.journal import Journal
from reprieve.machine.host import identify
from reprieve.machine.ledger import LedgerFile
from reprieve.model.change import OurLimit, Step
from reprieve.model.finding import Place
from reprieve.model.oom import OomReport
from reprieve.oom.paths import workload
from reprieve.oom.report import read_reports
from reprieve.rules import diagnose
from reprieve.show.redact import Names, redact
from tests.rules.cases import LOGS, snapshot

UNIT = Place(kind="unit", of="leaky.service", key="MemoryMax")
GROUP = Place(kind="cgroup", of="4711:/system.slice/leaky.service", key="memory.max")
LIMIT = 32 << 20
LOG = "lab/6.1.0-56-cloud-amd64__systemd-unit-memorymax.txt"


def killed_now() -> OomReport:
    """A kill at the limit of a unit, as if this machine had logged it in this boot."""
    (oom,) = (event for event in read_reports((LOGS / LOG).read_text()) if isinstance(event, OomReport))
    assert oom.limit_of is not None
    assert oom.limit_of.unit == "leaky.service"
    return replace(oom, boot_id=identify().boot_id)


def limit_bytes(oom: OomReport) -> int:
    usage = oom.memcg and oom.memcg.usage("memory")
    assert usage
    assert isinstance(usage.limit_bytes, int)
    return usage.limit_bytes


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(ours, "ledger_path", lambda: str(tmp_path / "changes.jsonl"))
    return tmp_path / "changes.jsonl"


def change(path: Path, *steps: Step, undone: bool = False) -> None:
    """What a `fix` writes down."""
    with LedgerFile(str(path)) as ledger:
        journal = Journal(ledger, boot_id=identify().boot_id, wall_s=1.0, user="root")
        number = journal.begin()
        for step in steps:
            entry = journal.record(number, step, lasts=False)
            journal.changed(number, entry)
            if undone:
                journal.undone(number, entry)
        journal.end(number)


@pytest.mark.parametrize("place", [UNIT, GROUP], ids=["unit", "cgroup"])
def test_the_change_that_has_set_a_limit_is_known_by_its_place_and_its_value(ledger: Path, place: Place) -> None:
    oom = killed_now()
    limit = limit_bytes(oom)
    change(ledger, Step(place=place, before=None, want=str(limit)))
    (told,) = ours.our_limits([oom], oom.boot_id)
    assert told == OurLimit(path="/system.slice/leaky.service", limit_bytes=limit, change=1, before_bytes=None)
    other = replace(oom, limit_of=workload("/system.slice/other.service"))
    assert ours.our_limits([other], oom.boot_id) == ()
    assert ours.our_limits([oom], "another boot") == ()


def test_a_later_change_of_the_same_limit_counts_and_one_that_was_undone_does_not(ledger: Path) -> None:
    oom = killed_now()
    limit = limit_bytes(oom)
    change(ledger, Step(place=UNIT, before=None, want=str(limit)))
    change(ledger, Step(place=UNIT, before=str(limit), want=str(2 * limit)))
    assert ours.our_limits([oom], oom.boot_id) == ()
    change(ledger, Step(place=UNIT, before=str(2 * limit), want=str(limit)))
    (told,) = ours.our_limits([oom], oom.boot_id)
    assert (told.change, told.before_bytes) == (3, 2 * limit)
    change(ledger, Step(place=UNIT, before=str(limit), want="1"), undone=True)
    assert ours.our_limits([oom], oom.boot_id) == (told,)


@pytest.mark.parametrize("damage", [None, b"no journal\n"])
def test_without_a_journal_that_can_be_read_nothing_is_said(ledger: Path, damage: bytes | None) -> None:
    if damage is not None:
        ledger.write_bytes(damage)
    oom = killed_now()
    assert ours.our_limits([oom], oom.boot_id) == ()


def test_it_is_said_with_the_way_back_and_without_names_too() -> None:
    whole = snapshot(LOG)
    (oom,) = whole.ooms
    known = OurLimit(path="/system.slice/leaky.service", limit_bytes=limit_bytes(oom), change=7, before_bytes=1 << 30)
    for told in (replace(whole, our_limits=(known,)), redact(replace(whole, our_limits=(known,)), Names())):
        (finding,) = (found for found in diagnose(told) if found.code == "cgroup-limit")
        assert finding.claim.endswith("; change 7 of reprieve has set it")
        assert "Before that change it was 1 GiB: `reprieve undo 7` puts that back" in finding.detail[0]
    another = replace(known, limit_bytes=1)
    (finding,) = (found for found in diagnose(replace(whole, our_limits=(another,))) if found.code == "cgroup-limit")
    assert "of reprieve" not in finding.claim
    assert not any("reprieve undo" in line for line in finding.detail)

"""Reports come cut: a rule says less of them, never breaks, and does not invent."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from reprieve.machine.events import summarise
from reprieve.model.finding import Finding
from reprieve.model.oom import OomReport
from reprieve.model.snapshot import Snapshot
from reprieve.oom.report import read_reports
from reprieve.rules import diagnose
from reprieve.rules.host import node_short
from reprieve.rules.kernel import huge_pages_idle
from reprieve.rules.zones import fragmented
from reprieve.units import GIB
from tests.rules.cases import LOGS

LOGS_TO_DAMAGE = (
    "lab/6.1.0-56-cloud-amd64__memcg-nested.txt",
    "lab/6.1.0-56-cloud-amd64__global-disk-swap.txt",
    "lab/6.1.0-56-cloud-amd64__global-tmpfs-dd.txt",
    "lab/7.3.4+deb13-cloud-amd64__numa-mempolicy.txt",
    "lab/5.10.0-46-cloud-amd64__global-hugetlb.txt",
    "captures/dmesg-k8s-oom.txt",
    "004-i386-highmem-mkfs-wrapped-5.7rc3.log",
    "074-rhel6-sshd-victim-java-2.6.32-431.log",
)


def _diagnose(lines: list[str]) -> list[Finding]:
    ooms = tuple(event for event in read_reports("\n".join(lines)) if isinstance(event, OomReport))
    return diagnose(Snapshot(ooms=ooms, history=tuple(map(summarise, ooms))))


def _lines(log: str) -> list[str]:
    return (LOGS / log).read_text(encoding="utf-8", errors="backslashreplace").splitlines()


@pytest.mark.parametrize("nodes", ["9" * 5000, "0-1024", "1-", "x"])
def test_nodes_that_no_kernel_prints_are_none(nodes: str) -> None:
    text = "\n".join(_lines("lab/6.1.0-56-cloud-amd64__numa-cpuset.txt"))
    (oom,) = (event for event in read_reports(text) if isinstance(event, OomReport))
    assert list(node_short(Snapshot(ooms=(oom,))))
    assert not list(node_short(Snapshot(ooms=(replace(oom, mems_allowed=nodes),))))


def test_huge_pages_of_a_size_that_is_cut_off_get_no_command() -> None:
    text = "\n".join(_lines("lab/5.10.0-46-cloud-amd64__global-hugetlb.txt"))
    (oom, *_) = (event for event in read_reports(text) if isinstance(event, OomReport))
    assert oom.memory is not None
    idle = next(pool for pool in oom.memory.hugepages if pool.free)
    cut = replace(oom.memory, hugepages=(*oom.memory.hugepages, replace(idle, size_bytes=None)))
    (finding,) = huge_pages_idle(Snapshot(ooms=(replace(oom, memory=cut),)))
    (whole,) = huge_pages_idle(Snapshot(ooms=(oom,)))
    assert finding.remedies == whole.remedies


def test_huge_pages_of_which_more_are_free_than_there_are_count_nowhere() -> None:
    text = "\n".join(_lines("lab/5.10.0-46-cloud-amd64__global-hugetlb.txt"))
    (oom, *_) = (event for event in read_reports(text) if isinstance(event, OomReport))
    assert oom.memory is not None
    pool = replace(next(pool for pool in oom.memory.hugepages if pool.free), size_bytes=GIB, total=2, free=300)
    damaged = replace(oom.memory, hugepages=(*oom.memory.hugepages, pool))
    (finding,) = huge_pages_idle(Snapshot(ooms=(replace(oom, memory=damaged),)))
    (whole,) = huge_pages_idle(Snapshot(ooms=(oom,)))
    assert (finding.claim, finding.remedies) == (whole.claim, whole.remedies)


def test_huge_pages_that_another_node_uses_are_kept() -> None:
    text = "\n".join(_lines("lab/5.10.0-46-cloud-amd64__global-hugetlb.txt"))
    (oom, *_) = (event for event in read_reports(text) if isinstance(event, OomReport))
    assert oom.memory is not None
    idle = next(pool for pool in oom.memory.hugepages if pool.free)
    assert idle.total is not None
    busy = replace(idle, node=1, total=24, free=0)
    two_nodes = replace(oom.memory, hugepages=(*oom.memory.hugepages, busy))
    (finding,) = huge_pages_idle(Snapshot(ooms=(replace(oom, memory=two_nodes),)))
    kept = idle.total - (idle.free or 0) + 24
    assert f"keep {kept} of {idle.total + 24} huge pages" in finding.remedies[0].title
    assert f"echo $(({kept} + " in finding.remedies[0].commands[0][2]
    for damaged in (replace(busy, free=25), replace(busy, total=None)):
        cut = replace(oom.memory, hugepages=(*oom.memory.hugepages, damaged))
        assert not list(huge_pages_idle(Snapshot(ooms=(replace(oom, memory=cut),))))


def test_huge_pages_that_are_promised_are_kept_though_a_report_does_not_tell_of_them(tmp_path: Path) -> None:
    text = "\n".join(_lines("lab/5.10.0-46-cloud-amd64__global-hugetlb.txt"))
    (oom, *_) = (event for event in read_reports(text) if isinstance(event, OomReport))
    (finding,) = huge_pages_idle(Snapshot(ooms=(oom,)))
    assert finding.confidence == "likely"
    (remedy,) = finding.remedies
    ((*shell, folder),) = remedy.commands
    assert folder.startswith("/sys/kernel/mm/hugepages/hugepages-")
    (tmp_path / "resv_hugepages").write_text("7\n")
    subprocess.run([*shell, str(tmp_path)], check=True)
    kept = re.search(r"keep (\d+) of", remedy.title)
    assert kept is not None
    assert (tmp_path / "nr_hugepages").read_text() == f"{int(kept[1]) + 7}\n"


def test_an_order_that_no_kernel_has_is_no_fragmentation() -> None:
    text = "\n".join(_lines("011-android-gki-5.10-kmsg-records-order3.log"))
    oom = next(event for event in read_reports(text) if isinstance(event, OomReport))
    assert oom.trigger is not None
    assert list(fragmented(Snapshot(ooms=(oom,))))
    assert not list(fragmented(Snapshot(ooms=(replace(oom, trigger=replace(oom.trigger, order=20_000)),))))


@pytest.mark.parametrize("log", LOGS_TO_DAMAGE)
def test_a_report_without_its_end_breaks_no_rule(log: str) -> None:
    lines = _lines(log)
    for end in range(len(lines)):
        _diagnose(lines[:end])
        _diagnose([*lines[:end], lines[end][: len(lines[end]) // 2]])


@pytest.mark.parametrize("log", LOGS_TO_DAMAGE)
def test_a_lost_line_brings_no_other_limit_and_no_other_node(log: str) -> None:
    lines = _lines(log)
    whose = {"parent-limit", "node-short", "zone-short", "panic-on-oom", "not-short"}
    whole = {finding.code for finding in _diagnose(lines)} & whose
    for lost in range(len(lines)):
        found = _diagnose(lines[:lost] + lines[lost + 1 :])
        assert {finding.code for finding in found} & whose <= whole, lines[lost]
        if "parent-limit" in whole:  # without the line that says so, it is a limit, but nobody's own
            assert not any("its own" in finding.claim for finding in found)

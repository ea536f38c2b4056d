"""Where the memory was: every page once, or not told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reprieve.model.oom import OomReport, figure
from reprieve.oom.report import read_reports
from reprieve.rules.account import ANON, FREE, HUGE, LOCKED, SHMEM, SLAB, UNACCOUNTED, holders, part, total_bytes, where
from tests.rules.cases import LOGS, snapshot
from tests.rules.test_cases import ALL_LOGS

LAB = "lab/6.1.0-56-cloud-amd64__"
MIB = 1 << 20


@pytest.mark.parametrize(
    "log",
    [
        "135-debian-uwsgi-kill-line-only.log",  # no counters at all
        "119-ubuntu-bash-swap-full-grepped-4.x.log",  # the totals without the counts
        "024-memcg-v2-ppc64le-rhel10-zswap-6.12.log",  # memory.stat without the usage
    ],
)
def test_what_the_report_does_not_tell_is_not_divided(log: str) -> None:
    assert where(snapshot(log).ooms[0]) == ()


def test_counts_that_were_cut_do_not_make_the_rest_look_unaccounted() -> None:
    oom = snapshot(LAB + "global.txt").ooms[0]
    assert oom.memory is not None
    for number in range(len(oom.memory.counts)):
        cut = replace(oom, memory=replace(oom.memory, counts=oom.memory.counts[:number]))
        parts = dict(where(cut))
        assert parts == {} or parts[UNACCOUNTED] < 9 * MIB


@pytest.mark.parametrize("log", ALL_LOGS)
def test_the_parts_add_up_to_the_whole(log: str) -> None:
    for oom in snapshot(log).ooms:
        parts = where(oom)
        assert not parts or sum(size for _, size in parts) == total_bytes(oom)
        assert all(size >= 0 for _, size in parts)
        assert len({label for label, _ in parts}) == len(parts)


@pytest.mark.parametrize("kernel", ["5.10.0-46", "6.1.0-56", "7.3.4+deb13"])
def test_little_is_unaccounted_in_a_machine_without_drivers(kernel: str) -> None:
    oom = snapshot(f"lab/{kernel}-cloud-amd64__global.txt").ooms[0]
    assert (part(oom, UNACCOUNTED) or 0) < (total_bytes(oom) or 0) * 0.07


@pytest.mark.parametrize(
    ("scenario", "label", "least_mib"),
    [
        ("global", ANON, 150),
        ("global-shmem", SHMEM, 130),
        ("global-tmpfs-dd", SHMEM, 130),
        ("global-mlock", LOCKED, 150),
        ("global-hugetlb", HUGE, 80),
        ("global-sock-slab", SLAB, 150),
        ("numa-mempolicy", FREE, 120),
        ("memcg-tmpfs", SHMEM, 30),
        ("memcg", ANON, 31),
    ],
)
@pytest.mark.parametrize("kernel", ["5.10.0-46", "6.1.0-56", "7.3.4+deb13"])
def test_what_a_scenario_fills_is_found(kernel: str, scenario: str, label: str, least_mib: int) -> None:
    oom = snapshot(f"lab/{kernel}-cloud-amd64__{scenario}.txt").ooms[0]
    assert (part(oom, label) or 0) >= least_mib * MIB


def test_shmem_is_not_counted_as_anonymous_too() -> None:
    oom = snapshot(LAB + "global-tmpfs-dd.txt").ooms[0]
    assert oom.memory is not None
    on_lists = (figure(oom.memory.counts, "active_anon") or 0) + (figure(oom.memory.counts, "inactive_anon") or 0)
    assert (part(oom, ANON, SHMEM) or 0) <= (on_lists + 64) * 4096


def test_processes_are_summed_by_name() -> None:
    first = holders(snapshot(LAB + "global-children.txt").ooms[0])[0]
    assert (first.comm, len(first.tasks)) == ("forker", 7)


def test_the_totals_of_a_group_in_v1_hold_its_children() -> None:
    text = (LOGS / "captures/dmesg-k8s-oom.txt").read_text()
    (oom, _) = (event for event in read_reports(text) if isinstance(event, OomReport))
    assert (part(oom, ANON) or 0) > 60 * MIB

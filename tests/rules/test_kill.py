"""Kills that belong together."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reprieve.machine.events import summarise
from reprieve.model.oom import Kill, Memory, OomReport, Stamp, Task
from reprieve.model.snapshot import Snapshot
from reprieve.oom.paths import workload
from reprieve.rules import diagnose
from reprieve.rules.kill import is_it_over, repeat_kills, small_victim, why_this_one
from reprieve.show import escape
from tests.rules.cases import snapshot

POD = "/kubepods.slice/kubepods-pod10d16a28_60ff_475f_a631_510d9792219f.slice"
LOOP = "captures/dmesg-docker-oom.txt"  # the last four kills are of one container that is started anew


def _in_containers(paths: list[str]) -> Snapshot:
    """The loop, as it would be of these containers."""
    whole = snapshot(LOOP)
    history = [replace(event, limit_of=workload(path)) for event, path in zip(whole.history[-4:], paths, strict=True)]
    return Snapshot(ooms=(replace(whole.ooms[-1], limit_of=workload(paths[-1])),), history=tuple(history))


def test_four_containers_are_no_loop() -> None:
    assert not list(repeat_kills(_in_containers([f"/docker/{digit * 64}" for digit in "abcd"])))


def test_two_hosts_are_no_loop() -> None:
    whole = snapshot(LOOP)
    history = tuple(replace(event, host=str(number % 2)) for number, event in enumerate(whole.history[-4:]))
    assert not list(repeat_kills(Snapshot(ooms=(replace(whole.ooms[-1], host="1"),), history=history)))


def test_a_pod_that_gets_a_new_container_each_time_is_a_loop() -> None:
    (finding,) = repeat_kills(_in_containers([f"{POD}/cri-containerd-{digit * 64}.scope" for digit in "abcd"]))
    assert "reached its limit 4 times" in finding.claim


def test_a_loop_tells_its_period_and_its_size() -> None:
    found = [finding for finding in repeat_kills(snapshot(LOOP)) if finding.oom == 6]
    assert "4 times in 2 s, every 0.5 s" in found[0].claim
    assert "It held about the same each time, 32.1 MiB." in found[0].detail


def test_without_times_a_loop_is_only_counted() -> None:
    whole = snapshot(LOOP)
    undated = tuple(replace(event, stamp=replace(event.stamp, uptime_s=None)) for event in whole.history)
    found = list(repeat_kills(Snapshot(ooms=whole.ooms[-1:], history=undated)))
    assert found[0].claim.endswith("reached its limit 4 times")


def test_without_the_end_of_the_log_nothing_is_said_of_what_followed() -> None:
    assert not list(is_it_over(replace(snapshot("captures/6.1-memcg-loop.txt"), log_ends=None)))


@pytest.mark.parametrize(
    ("log", "said"),
    [
        ("captures/6.1-memcg-loop.txt", "still going on where the log ends: 5 kills at the limit of \x02/app\x03 in"),
        ("captures/6.1-memcg-loop-then-quiet.txt", "the last 10 min 47 s before its end"),
        ("captures/6.1-memcg-then-quiet.txt", "the log goes on for 10 min 40 s without another kill"),
    ],
)
def test_whether_kills_went_on_is_told_from_the_end_of_the_log(log: str, said: str) -> None:
    (finding,) = is_it_over(snapshot(log))
    assert said in finding.claim


def _told(scope: str, *kills: tuple[float, str], lines: int) -> Snapshot:
    """Kills at limits that the text does not name, each of so many lines."""
    ooms = tuple(
        OomReport(
            stamp=Stamp(uptime_s=at),
            constraint=scope,
            kills=(Kill(line=1, pid=7, comm=comm),),
            lines=tuple((line, f"Killed process 7 ({comm})") for line in range(1, lines + 1)),
        )
        for at, comm in kills
    )
    return Snapshot(ooms=ooms, history=tuple(map(summarise, ooms)), log_ends=ooms[-1].stamp)


def test_a_text_of_kill_lines_alone_does_not_show_where_its_log_ended() -> None:
    assert not list(is_it_over(_told("CONSTRAINT_MEMCG", (10, "java"), (20, "java"), (30, "java"), lines=1)))


def test_three_programs_at_limits_that_are_not_named_are_no_loop() -> None:
    assert not list(is_it_over(_told("CONSTRAINT_MEMCG", (10, "java"), (20, "node"), (30, "sh"), lines=2)))


def test_a_period_is_told_only_where_three_pauses_agree() -> None:
    loop = (10, "sh"), (20, "sh"), (30, "sh"), (40, "sh")
    (even,) = is_it_over(_told("CONSTRAINT_MEMCG", *loop, lines=2))
    (few,) = is_it_over(_told("CONSTRAINT_MEMCG", *loop[:3], lines=2))
    (uneven,) = is_it_over(_told("CONSTRAINT_MEMCG", (10, "sh"), (11, "sh"), *loop[2:], lines=2))
    assert "4 kills in its last 30 s, every 10 s (median)" in even.claim
    assert all("every" not in finding.claim for finding in (few, uneven))


def test_a_pause_as_long_as_those_between_the_kills_is_no_end() -> None:
    whole = snapshot("captures/6.1-memcg-loop.txt")
    slow = tuple(replace(event, stamp=Stamp(uptime_s=day * 86400.0)) for day, event in enumerate(whole.history))
    newest = replace(whole.ooms[-1], stamp=slow[-1].stamp)
    ended = Stamp(uptime_s=(len(slow) + 1) * 86400.0)
    assert not list(is_it_over(Snapshot(ooms=(newest,), history=slow, log_ends=ended)))


def test_a_pod_is_guaranteed_only_by_requests_of_cpu_and_memory() -> None:
    small, hog = (
        Task(line=1, pid=7, comm="app", rss_pages=100, oom_score_adj=900),
        Task(line=2, pid=8, comm="hog", rss_pages=90_000, oom_score_adj=0),
    )
    oom = OomReport(
        page_size_bytes=4096,
        constraint="CONSTRAINT_NONE",
        tasks=(small, hog),
        kills=(Kill(line=3, pid=7, comm="app"),),
        workload=workload("/kubepods/burstable/pod10d16a28-60ff-475f-a631-510d9792219f"),
        memory=Memory(line=4, totals=(("RAM", 100_000), ("reserved", 0))),
    )
    (finding,) = small_victim(Snapshot(ooms=(oom,)))
    assert "requests, of CPU too, equal to their limits" in finding.remedies[0].title


def test_who_died_because_a_person_asked_is_told_without_advice() -> None:
    asked = snapshot("lab/6.1.0-56-cloud-amd64__global-sysrq-f.txt")
    found = diagnose(asked)
    assert [finding.code for finding in found[:2]] == ["asked-for", "small-victim"]
    assert not any(finding.remedies for finding in found)


def test_of_a_child_that_died_for_its_parent_the_parent_had_the_score() -> None:
    whole = snapshot("084-ubuntu1404-mysqld-python-3.13.log")
    kill = replace(whole.ooms[0].kills[0], pid=4000, comm="child")
    (finding,) = why_this_one(replace(whole, ooms=(replace(whole.ooms[0], kills=(kill,)),)))
    claim = escape.plain(finding.claim)
    assert claim.startswith(
        "child (pid 4000) died in place of its parent: python (pid 3882) had the highest score, for it"
    )

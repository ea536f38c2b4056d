"""Look after look of captured machines on which somebody grows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from reprieve.machine.host import Host
from reprieve.machine.observe import observe
from reprieve.model.machine import Machine
from reprieve.model.pressure import Pressure
from reprieve.oom.groups import nearest
from reprieve.rules.survey import Survey, Surveyor, own_bytes

HOSTS = Path(__file__).parent.parent / "hosts"
MIB = 1 << 20


def growing(
    host: str, seconds: int, *, pid: int | None, group: str | None, step: int, every: int = 1
) -> Iterator[Machine]:
    """The captured machine each second, its memory, a process and a group with `step` bytes more each time."""
    machine = observe(Host(str(HOSTS / host)), [], unique_s=0)
    begun = machine.taken_uptime_s or 0.0
    for second in range(0, seconds, every):
        more = step * second
        yield replace(
            machine,
            taken_uptime_s=begun + second,
            meminfo=tuple((key, value - more if key == "MemAvailable" else value) for key, value in machine.meminfo),
            pressure=(
                Pressure(kind="some", avg10_percent=0, avg60_percent=0, avg300_percent=0, total_us=second * 250_000),
            ),
            processes=tuple(
                replace(one, rss_anon_bytes=(one.rss_anon_bytes or 0) + more) if one.pid == pid else one
                for one in machine.processes
            ),
            cgroups=tuple(
                replace(one, current_bytes=(one.current_bytes or 0) + more) if one.path == group else one
                for one in machine.cgroups
            ),
        )


def last(looks: Iterator[Machine], every_s: float = 1.0) -> Survey:
    surveyor = Surveyor(every_s=every_s)
    return [surveyor.survey(machine) for machine in looks][-1]


def test_one_look_tells_no_growth() -> None:
    survey = last(growing("v2-mini-6.12", 1, pid=None, group=None, step=0))
    assert {held.growth for held in survey.processes} == {None}
    assert {place.left.verdict for place in survey.places} == {"looking"}
    assert survey.ends_first is None


def test_who_grows_and_the_limit_above_him_are_told() -> None:
    survey = last(growing("v2-mini-6.12", 30, pid=167, group="/app/web", step=MIB // 8))
    grown = {held.process.pid: held.growth for held in survey.processes}
    assert grown[167] is not None
    assert grown[167].slope == pytest.approx(60 * MIB // 8)
    assert {pid for pid, trend in grown.items() if trend and trend.slope} == {167}
    first = survey.ends_first
    assert first is not None
    assert first.room.path == "/app/web"
    assert first.left.seconds == pytest.approx(first.room.left_bytes / (MIB / 8), rel=0.01)


def test_who_swaps_at_his_limit_ends_when_he_may_swap_no_more() -> None:
    def swapping() -> Iterator[Machine]:
        """At 21 MiB /app/web swaps what it has more, as long as it may: 64 MiB."""
        for machine in growing("v2-mini-6.12", 30, pid=None, group="/app/web", step=MIB // 8):
            (web,) = (one for one in machine.cgroups if one.path == "/app/web")
            out = max((web.current_bytes or 0) - 21 * MIB, 0)
            swaps = replace(
                web, max_bytes=21 * MIB, current_bytes=(web.current_bytes or 0) - out, swap_current_bytes=out
            )
            facts = dict(machine.meminfo)
            facts["SwapFree"] -= out
            groups = tuple(swaps if one is web else one for one in machine.cgroups)
            yield replace(machine, cgroups=groups, meminfo=tuple(facts.items()))

    survey = last(swapping())
    (web,) = (place for place in survey.places if place.room.path == "/app/web")
    assert web.room.left_bytes == pytest.approx(64 * MIB - 30 * MIB // 8, abs=2 * MIB)
    assert web.growth is not None
    assert web.growth.slope == pytest.approx(60 * MIB // 8, rel=0.01)
    assert web.left.seconds == pytest.approx(web.room.left_bytes / (MIB / 8), rel=0.02)


def test_where_nothing_grows_nothing_ends() -> None:
    survey = last(growing("v2-mini-6.12", 30, pid=None, group=None, step=0))
    assert survey.ends_first is None
    assert {place.left.verdict for place in survey.places} == {"steady"}


def test_at_thirty_seconds_a_look_growth_is_told_as_well() -> None:
    survey = last(growing("v2-mini-6.12", 600, pid=167, group=None, step=1024, every=30), every_s=30)
    (grown,) = (held.growth for held in survey.processes if held.process.pid == 167)
    assert grown is not None
    assert grown.slope == pytest.approx(60 * 1024)


def test_pressure_is_the_share_of_the_time_between_two_looks() -> None:
    survey = last(growing("v2-mini-6.12", 5, pid=None, group=None, step=0))
    assert survey.stalls == pytest.approx([25.0] * 4)
    assert len(survey.lefts) == 5


def test_the_next_victim_is_the_first_in_rank() -> None:
    survey = last(growing("v2-systemd-252", 1, pid=None, group=None, step=0))
    assert survey.prediction is not None
    assert survey.prediction.victim is not None
    (first,) = (held.process.pid for held in survey.processes if held.place == 1)
    assert first == survey.prediction.victim.pid


def test_a_pid_that_is_somebody_else_now_did_not_grow() -> None:
    surveyor = Surveyor()
    for machine in growing("v2-mini-6.12", 40, pid=None, group=None, step=0):
        second = round((machine.taken_uptime_s or 0) * 100)
        changed = [replace(one, start_ticks=second) if one.pid == 167 else one for one in machine.processes]
        survey = surveyor.survey(replace(machine, processes=tuple(changed)))
    assert [held.growth for held in survey.processes if held.process.pid == 167] == [None]


@pytest.mark.parametrize("host", sorted(path.name for path in HOSTS.iterdir() if (path / "proc").is_dir()))
def test_every_captured_machine_can_be_surveyed(host: str) -> None:
    machine = observe(Host(str(HOSTS / host)), [], unique_s=0)
    survey = Surveyor().survey(machine)
    assert [held.bytes for held in survey.processes] == sorted((held.bytes for held in survey.processes), reverse=True)
    assert {held.process.pid for held in survey.processes} == {
        one.pid for one in machine.processes if own_bytes(one) is not None
    }
    assert [place.room for place in survey.places] == nearest(machine)


def test_nothing_told_is_no_failure() -> None:
    survey = Surveyor().survey(Machine())
    assert (survey.places, survey.processes, survey.groups) == ((), (), ())
    assert survey.prediction is None

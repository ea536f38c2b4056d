"""Surveys as lines: of captured machines, with hostile names, in every width."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from math import inf
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reprieve import read_reports
from reprieve.model.cgroup import Cgroup
from reprieve.model.machine import Container, Machine
from reprieve.model.process import Process
from reprieve.model.workload import Workload
from reprieve.rules.survey import Place, Survey, Surveyor
from reprieve.rules.trend import TimeLeft, Trend
from reprieve.show import escape, live, looks
from tests.logs_of import LOGS
from tests.rules.test_survey import MIB, growing, last

PAGES = Path(__file__).parent.parent / "pages"


def golden(name: str, lines: list[str]) -> None:
    text = "".join(f"{line.rstrip()}\n" for line in lines)
    path = PAGES / name
    if os.environ.get("REPRIEVE_UPDATE_GOLDENS"):
        path.write_text(text, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == text


def captured(host: str = "v2-mini-6.12") -> Survey:
    return last(growing(host, 1, pid=None, group=None, step=0))


@pytest.mark.parametrize("host", ["v2-systemd-252", "v1-mini-6.1"])
def test_one_look_fills_a_screen_of_80_by_24(host: str) -> None:
    lines = list(live.screenful(captured(host), clock="14:08:22"))
    assert len(lines) <= 24
    golden(f"top-{host}.txt", lines)


@pytest.mark.parametrize(
    ("width", "told"),
    [
        (40, "TAKEN LEFT NAME"),
        (50, "TAKEN LIMIT LEFT NAME"),
        (60, "TAKEN LIMIT LEFT FULL IN NAME"),
        (70, "TAKEN PER MIN LIMIT LEFT FULL IN NAME"),
        (80, "TAKEN PER MIN LIMIT LEFT FULL IN NAME"),
    ],
)
def test_where_it_is_narrow_figures_give_way_to_whose_they_are(width: int, told: str) -> None:
    survey = captured("v2-systemd-252")
    assert all(escape.columns(line) <= width for line in live.screenful(survey, width=width, rows=9))
    titles = live.group_titles(width)
    assert " ".join(titles.split()) == told
    (row,) = (row for one in survey.groups if (row := live.group_row(one, width)).endswith("  web.service"))
    assert row.index("web.service") == titles.index("NAME")
    titles = live.process_titles(width)
    assert ("ADJ" in titles, "RANK" in titles, " OF" in titles) == (width >= 66, width >= 54, width >= 48)
    for one in survey.processes:
        assert live.process_row(one, survey, width)[titles.index("NAME") :].startswith((one.process.comm or "?")[:15])


@pytest.mark.parametrize("host", ["docker-26", "podman-5"])
@pytest.mark.parametrize("width", [60, 80, 120])
def test_containers_are_told_apart_in_every_width(host: str, width: int) -> None:
    survey = captured(host)
    at = live.group_titles(width).index("NAME")
    names = [live.group_row(one, width)[at:] for one in survey.groups if one.owner.kind == "container"]
    assert len(names) == len(set(names)) > 2
    at = live.process_titles(width).index(" OF") + 1
    inside = [one for one in survey.processes if one.owner.kind == "container"]
    assert inside
    for one in inside:
        assert (one.owner.container_id or "")[:12] in live.process_row(one, survey, width)[at:]


@pytest.mark.parametrize(
    ("width", "of_docker", "of_pod"),
    [
        (108, "Docker container shop-web-1", "container web of pod default/shop-7d4b9"),
        (98, "Docker container shop-web-1", "web of pod default/shop-7d4b9"),
        (88, "docker:shop-web-1", "web of pod…hop-7d4b9"),
        (80, "shop-web-1", "web of…7d4b9"),
    ],
)
def test_a_container_keeps_its_own_name_longest(width: int, of_docker: str, of_pod: str) -> None:
    docker = Workload(path="/d", kind="container", name="Docker container shop-web-1", manager="docker")
    pod = Workload(
        path="/p", kind="container", name="container web of pod default/shop-7d4b9", manager="kubernetes", pod_uid="95"
    )
    group = captured().groups[0]
    at = live.group_titles(width).index("NAME")
    for owner, said in ((docker, of_docker), (pod, of_pod)):
        assert live.group_row(group._replace(owner=owner), width)[at:] == said


def test_the_details_of_a_process_tell_the_image_of_its_container() -> None:
    survey = captured("docker-26")
    held = next(one for one in survey.processes if one.owner.container_id is not None)
    container = Container(container_id=held.owner.container_id or "", manager="docker", image="shop:1.2\x1b")
    named = survey._replace(machine=replace(survey.machine, containers=(container,)))
    assert live.Said("Image", "shop:1.2\\x1b") in live.details(held, named, 80)
    assert "Image" not in [line.label for line in live.details(held, survey, 80)]


@pytest.mark.parametrize(
    ("width", "memory", "time_left"),
    [
        (
            80,
            "██▒▒················ 53.7 MiB of 469 MiB taken, 512 KiB of 64 MiB swap",
            "15 min (10 min to 20 min), +1.5 MiB/min in all system services (syste…",
        ),
        (60, "53.7 MiB of 469 MiB taken, 512 KiB of 64 MiB swap", "15 min (10 min to 20 min), +1.5 MiB/min in all sy…"),
        (40, "53.7 MiB/469 MiB, swap 0.8 %", "15 min (10 min to 20 min)"),
    ],
)
def test_figures_stay_where_it_is_narrow(width: int, memory: str, time_left: str) -> None:
    survey = captured("v2-systemd-252")
    room = survey.places[0].room._replace(path="/system.slice")
    place = Place(room, Trend(1.5 * MIB, 1.0 * MIB, 2.0 * MIB, 120), TimeLeft("growing", 900, 600, 1200, 3600))
    said = heads(survey._replace(places=(place,)), width)
    assert said["Memory"] == memory
    assert said["Time left"] == time_left


@pytest.mark.parametrize(
    ("left", "said"),
    [
        (TimeLeft("steady", horizon_s=3600), "not within 1 h"),
        (TimeLeft("unsure", least_s=600, horizon_s=3600), "10 min or never, not sure"),
        (TimeLeft("looking"), "not known for 18 s yet"),
    ],
)
def test_in_40_columns_the_time_left_is_a_figure(left: TimeLeft, said: str) -> None:
    survey = captured()
    survey = survey._replace(places=(survey.places[0]._replace(left=left),))
    assert heads(survey, 40)["Time left"] == said


@pytest.mark.parametrize(
    ("width", "row"),
    [
        (90, "  44 min ago  39.9 MiB  leaky (pid 221) of leaky.service; 40 MiB for leaky.service"),
        (80, "  44 min ago  39.9 MiB  leaky (pid 221); 40 MiB for leaky.service"),
        (56, "  44 min ago  leaky (pid 221); 40 MiB for leaky.service"),
        (48, "  44 min ago  leaky (pid 221); 40 MiB for leaky…"),
    ],
)
def test_of_a_kill_it_is_seen_how_long_ago_and_at_whose_limit(width: int, row: str) -> None:
    (oom,) = read_reports((LOGS / "lab" / "6.1.0-56-cloud-amd64__systemd-unit-memorymax.txt").read_bytes())
    assert live.kill_row(oom, 2673.0, width) == row


def test_who_would_be_killed_next_is_in_the_table_though_it_is_small() -> None:
    def held(pid: int, rss: int, adj: int) -> Process:
        return Process(pid=pid, start_ticks=pid, comm=f"p{pid}", rss_bytes=rss * MIB, oom_score_adj=adj, cgroup="/")

    facts = (("MemTotal", 9000 * MIB), ("MemAvailable", 500 * MIB))
    exempt = tuple(held(pid, 100 + pid, -1000) for pid in range(1, 41))
    machine = Machine(page_bytes=4096, meminfo=facts, processes=(*exempt, held(99, 10, 0)))
    survey = Surveyor().survey(machine)
    rows = [line for line in live.screenful(survey, height=24) if line[2:].strip().endswith(("-", " -"))]
    (victim,) = (line for line in live.screenful(survey, height=24) if line.startswith(live.NEXT))
    assert " 99 " in victim
    assert rows[-1] == victim
    assert len(list(live.screenful(survey, height=24))) <= 24


@pytest.mark.parametrize("rows", [1, 2, 3, 40, 99])
def test_so_many_rows_as_were_asked_for_are_shown_with_the_next_victim_among_them(rows: int) -> None:
    survey = captured()
    there = (len(survey.processes), len(survey.groups))
    lines = list(live.screenful(survey, rows=rows, height=24))
    above, below = (number for number, line in enumerate(lines) if line == "")
    assert (below - above - 2, len(lines) - below - 2) == tuple(min(rows, count) for count in there)
    assert sum(line.startswith(live.NEXT) for line in lines) == 1


def heads(survey: Survey, width: int = 80) -> dict[str, str]:
    return {line.label: line.text for line in live.head(survey, width=width)}


def test_the_time_left_is_told_with_its_bounds() -> None:
    survey = last(growing("v2-mini-6.12", 60, pid=167, group="/app/web", step=MIB // 16))
    assert heads(survey)["Time left"] == "21 min 22 s in /app/web, +3.8 MiB/min"


@pytest.mark.parametrize(
    ("left", "said"),
    [
        (TimeLeft("looking"), "not known yet"),
        (TimeLeft("steady", horizon_s=59), "not known: what was looked at is too short to tell a minute ahead"),
        (TimeLeft("steady", horizon_s=3600), "nothing grows that would be full within 1 h"),
        (TimeLeft("unsure", least_s=600, horizon_s=3600), "could be full in 10 min, or never"),
        (TimeLeft("growing", 900, 600, 1200, 3600), "15 min (10 min to 20 min) in"),
        (TimeLeft("growing", 900, 600, 90000, 3600), "15 min (10 min at the soonest) in"),
    ],
)
def test_what_is_not_sure_is_not_told_as_if_it_were(left: TimeLeft, said: str) -> None:
    survey = captured()
    survey = survey._replace(places=(survey.places[0]._replace(left=left),))
    assert said in heads(survey)["Time left"]


def test_one_look_does_not_speak_of_time() -> None:
    (said,) = (line for line in live.screenful(captured()) if line.startswith("Time left"))
    assert "one look tells no growth" in said


def hostile(name: str) -> Survey:
    path = f"/user/{name}".replace("\0", "")
    process = Process(pid=7, start_ticks=7, comm=name, rss_bytes=MIB, oom_score_adj=0, cgroup=path)
    group = Cgroup(path=path, version=2, current_bytes=MIB, max_bytes=2 * MIB)
    facts = (("MemTotal", 100 * MIB), ("MemAvailable", 50 * MIB))
    machine = Machine(
        hostname=name, kernel=name, page_bytes=4096, meminfo=facts, processes=(process,), cgroups=(group,)
    )
    return Surveyor().survey(machine)


@given(st.text(max_size=40), st.integers(40, 200))
def test_no_name_acts_or_makes_a_line_wider(name: str, width: int) -> None:
    survey = hostile(name)
    lines = list(live.screenful(survey, width=width))
    rows = [live.process_row(survey.processes[0], survey, width), live.group_row(survey.groups[0], width)]
    for line in (*lines, *rows):
        assert line == escape.visible(line)
    for line in (*lines[:7], *rows):
        assert escape.columns(line) <= width


@given(st.text(max_size=40))
def test_no_name_makes_a_cell_or_a_formula(name: str) -> None:
    survey = hostile(name)
    for line in looks.csv_look(survey, 5):
        assert line == escape.visible(line)
        cells = _cells(line)
        assert len(cells) == len(looks.COLUMNS)
        assert not any(cell.startswith(("=", "+", "-", "@")) for cell in cells)


def _cells(line: str) -> list[str]:
    import csv

    (cells,) = csv.reader([line])
    return cells


@given(st.integers(0, 1 << 50), st.integers(0, 1 << 50), st.integers(0, 1 << 50), st.integers(1, 60))
def test_a_meter_is_as_wide_as_it_was_asked_to_be(taken: int, cache: int, whole: int, width: int) -> None:
    drawn = live.meter(taken, cache, whole, width)
    assert len(drawn) == width
    assert (taken > 0) == drawn.startswith("█") or whole == 0


@given(st.lists(st.floats(0, 1e12), max_size=300), st.floats(0, 1e12), st.integers(1, 80))
def test_a_drawing_is_not_wider_than_it_may_be_and_shows_whatever_is_there(
    values: list[float], most: float, width: int
) -> None:
    drawn = live.spark(values, most, width)
    assert len(drawn) == min(len(values), width)
    assert most == 0 or [char != " " for char in drawn] == [value > 0 for value in values[-width:]]


def test_a_growth_without_bounds_is_told_as_unsure_and_is_json() -> None:
    assert live.growth(Trend(4.0 * MIB, -inf, inf, 15.0)) == "+4 MiB?"
    survey = captured()
    endless = survey.processes[0]._replace(growth=Trend(4.0 * MIB, -inf, inf, 15.0))
    line = looks.look(survey._replace(processes=(endless,)), 5)
    assert '"growth":{"bytes_per_minute":4194304.0,"least":null,"most":null,"seen_s":15.0}' in line


def rows(width: int) -> Iterator[str]:
    survey = captured("v2-systemd-252")
    yield live.process_titles(width)
    yield from (live.process_row(held, survey, width) for held in survey.processes)


def test_a_wide_screen_shows_swap_and_shared_memory_too() -> None:
    assert "SHMEM" not in next(rows(80))
    assert "SHMEM" in next(rows(120))


def test_a_path_without_room_keeps_its_end() -> None:
    survey = captured()
    held = survey.processes[0]
    owner = replace(held.owner, kind="cgroup", name="/a/very/long/path/of/groups/that/ends/in/web")
    assert live.process_row(held._replace(owner=owner), survey, 80).endswith("ends/in/web")

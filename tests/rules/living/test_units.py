"""Unit files and what became of them. Each spelling was given to systemd 252; tests/lab gives it to another again."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reprieve.machine.unitfiles import parse_lines
from reprieve.model.finding import Finding
from reprieve.model.machine import Machine
from reprieve.model.process import Process
from reprieve.model.snapshot import Snapshot
from reprieve.model.unit import MEMORY_KEYS, Unit, UnitLine
from reprieve.rules.living.units import unit_adj_differs, unit_setting_ignored
from reprieve.rules.living.written import Ignored, parse
from tests.rules.living.spellings import SPELLINGS

PATH = "/etc/systemd/system/web.service"
KERNEL = Process(pid=2, start_ticks=1, kernel_thread=True)


def web(text: str, **facts: object) -> Unit:
    """A running service with that file, as its manager would hold it if it took nothing from it."""
    held = {"memory_max_bytes": "max", "oom_score_adjust": 0, "oom_policy": "stop", "need_daemon_reload": False}
    unit = Unit(name="web.service", active="active", fragment_path=PATH, lines=tuple(parse_lines(text, PATH, 1000.0)))
    return replace(unit, **(held | facts))  # type: ignore[arg-type]


def ignored(*units: Unit) -> list[Finding]:
    return list(unit_setting_ignored(Snapshot(machine=Machine(units=units))))


def commands(finding: Finding) -> list[tuple[str, ...]]:
    return [command for remedy in finding.remedies for command in remedy.commands]


# -- silence -----------------------------------------------------------------------------------------------------------


def test_nothing_is_said_without_a_machine_or_units() -> None:
    assert not list(unit_setting_ignored(Snapshot()))
    assert not list(unit_adj_differs(Snapshot()))
    assert ignored() == []


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("[Service]\n# the limit\nMemoryMax=2G\n", {"memory_max_bytes": 2 << 30}),
        ("[Service]\nMemoryMax=2G # the limit\nMemoryMax=2G\n", {"memory_max_bytes": 2 << 30}),
        ("[Service]\nMemoryMax=2G # the limit\n[Service]\nMemoryMax=\n", {}),
        ("[Service]\nMemoryMax=2GB\n", {"memory_max_bytes": 2 << 30}),
        ("[Service]\nMemoryMax=20%\n", {"memory_max_bytes": 5055299584}),
        ("[X-Ours]\nMemoryMax=2G # kept here by a tool of ours\n", {}),
        ("[Service]\nManagedOOMPreference=avoid # new\n", {}),
        ("[Service]\nMemoryMax=1048577\n", {"memory_max_bytes": 1048576}),
        ("[Service]\nOOMScoreAdjust=\nOOMPolicy=\n", {}),
    ],
    ids=["so", "later", "reset", "by-another-way", "share", "others", "older-systemd", "pages", "default"],
)
def test_a_unit_that_is_as_was_meant_is_not_mentioned(text: str, facts: dict[str, object]) -> None:
    assert ignored(web(text, **facts)) == []


def test_a_value_that_the_manager_holds_otherwise_for_no_reason_we_know_is_not_mentioned() -> None:
    assert ignored(web("[Service]\nMemoryMax=2G\n")) == []


# -- each spelling -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("key", "text", "held"), SPELLINGS, ids=str)
def test_a_value_is_taken_as_systemd_takes_it(key: str, text: str, held: int | str | None) -> None:
    value = parse(key, text)
    if held is None:
        assert isinstance(value, Ignored)
        if value.instead is not None:
            assert not isinstance(parse(key, value.instead), Ignored)
    elif isinstance(value, float):
        assert held == "share"
    else:
        assert value == held


@given(
    key=st.sampled_from(MEMORY_KEYS), text=st.text(max_size=30) | st.from_regex(r"[0-9.]{1,6} ?[KMGT]?[iB# ]{0,4}%?")
)
def test_any_text_is_taken_or_is_not_and_what_is_proposed_would_be(key: str, text: str) -> None:
    value = parse(key, text)
    if isinstance(value, Ignored) and value.instead is not None:
        assert not isinstance(parse(key, value.instead), Ignored)
        assert re.fullmatch(r"[\w.% +\t-]+", value.instead)  # it goes into a script for sed


# -- what is ignored ---------------------------------------------------------------------------------------------------


def test_the_lines_of_the_best_known_guide_are_ignored_and_told_once() -> None:
    text = "[Service]\nMemoryMax=2G # Hard limit\nOOMScoreAdjust=-500 # Lower\nOOMPolicy=continue # go on\n"
    (found,) = ignored(web(text))
    assert (found.severity, found.confidence, found.subject) == ("warning", "certain", "web.service")
    assert found.claim == (
        "systemd ignores MemoryMax, OOMScoreAdjust and OOMPolicy of \x02web.service\x03: "
        "a comment behind a value is part of the value"
    )
    assert [(one.source, one.line, one.text) for one in found.evidence[:3]] == [
        (PATH, 2, "MemoryMax=2G # Hard limit"),
        (PATH, 3, "OOMScoreAdjust=-500 # Lower"),
        (PATH, 4, "OOMPolicy=continue # go on"),
    ]
    assert [one.text for one in found.evidence[3:]] == ["MemoryMax=infinity", "OOMScoreAdjust=0", "OOMPolicy=stop"]
    assert commands(found) == [
        (
            *("sed", "-i", "-e", "2s/.*/MemoryMax=2G/", "-e", "3s/.*/OOMScoreAdjust=-500/"),
            *("-e", "4s/.*/OOMPolicy=continue/", PATH),
        ),
        ("systemctl", "daemon-reload"),
        ("systemctl", "restart", "web.service"),
    ]


def test_another_section_or_spelling_is_told_and_moved() -> None:
    (found,) = ignored(web("[Unit]\nMemoryMax=2G\n[Service]\noomscoreadjust=5\n"))
    assert "it stands in [\x02Unit\x03], not in [Service] (and 1 reasons more)" in found.claim
    assert found.detail[1] == "OOMScoreAdjust: it is spelled OOMScoreAdjust"
    assert commands(found)[0] == (
        *("sed", "-i", "-e", "$a [Service]\\nMemoryMax=2G", "-e", "2d"),
        *("-e", "4s/.*/OOMScoreAdjust=5/", PATH),
    )


def test_what_the_kind_of_unit_has_not_is_told() -> None:
    lines = tuple(parse_lines("[Slice]\nOOMScoreAdjust=5\n", "/etc/systemd/system/app.slice"))
    (found,) = ignored(Unit(name="app.slice", active="active", lines=lines))
    assert found.claim.endswith("a slice has no such setting")
    assert commands(found) == []


def test_a_file_of_a_package_is_copied_before_it_is_changed() -> None:
    path = "/usr/lib/systemd/system/web.service.d/10-limit.conf"
    unit = replace(web(""), lines=tuple(parse_lines("[Service]\nMemoryMax=2g\n", path)))
    (found,) = ignored(unit)
    own = "/etc/systemd/system/web.service.d/10-limit.conf"
    assert commands(found) == [
        ("install", "-D", "-m", "644", path, own),
        ("sed", "-i", "-e", "2s/.*/MemoryMax=2G/", own),
        ("systemctl", "daemon-reload"),
    ]


def test_what_nobody_can_mean_is_told_without_a_command() -> None:
    (found,) = ignored(web("[Service]\nMemoryMax=lots\n"))
    assert commands(found) == []
    assert found.remedies


def test_of_files_alone_it_is_likely() -> None:
    lines = tuple(parse_lines("[Service]\nMemoryMax=2G # x\n", PATH))
    (found,) = ignored(Unit(name="web.service", lines=lines))
    assert found.confidence == "likely"
    assert len(found.evidence) == 1


def test_files_that_were_changed_and_not_read_again_are_told() -> None:
    unit = web("[Service]\nMemoryMax=96M\n", memory_max_bytes=1 << 30, need_daemon_reload=True)
    (found,) = ignored(unit)
    assert "does not know yet what the files of \x02web.service\x03 say of MemoryMax" in found.claim
    assert commands(found) == [("systemctl", "daemon-reload")]
    assert ignored(replace(unit, memory_max_bytes=96 << 20)) == []


# -- oom_score_adj -----------------------------------------------------------------------------------------------------


def differs(unit: Unit, *processes: Process) -> list[Finding]:
    machine = Machine(units=(replace(unit, main_pid=7),), processes=processes, taken_wall_s=2000, taken_uptime_s=1500)
    return list(unit_adj_differs(Snapshot(machine=machine)))


def main(adj: int | None, start_s: int = 900) -> Process:
    return Process(pid=7, start_ticks=start_s * 100, comm="web", oom_score_adj=adj)


LOWER = web("[Service]\nOOMScoreAdjust=-500\n", oom_score_adjust=-500)


@pytest.mark.parametrize(
    ("unit", "process"),
    [
        (LOWER, main(-500)),
        (LOWER, main(None)),
        (web("[Service]\nExecStart=true\n"), main(-1000)),
        (web("[Service]\nOOMScoreAdjust=-500 # x\n"), main(-1000)),
        (replace(LOWER, oom_score_adjust=None), main(0)),
    ],
    ids=["so", "not-told", "of-its-own", "ignored", "not-asked"],
)
def test_a_process_as_its_unit_wants_it_is_not_mentioned(unit: Unit, process: Process) -> None:
    assert differs(unit, KERNEL, process) == []


def test_a_program_that_set_its_own_is_told() -> None:
    (found,) = differs(LOWER, KERNEL, main(300))
    assert found.severity == "warning"
    assert found.claim == ("\x02web.service\x03 is to run with oom_score_adj -500, and \x02web\x03 (pid 7) has 300")
    assert found.detail == ("The program has changed its own.",)
    assert commands(found) == [("choom", "--pid", "7", "--adjust", "-500")]
    assert differs(LOWER, KERNEL, main(-900))[0].severity == "notice"


def test_a_process_that_is_older_than_its_setting_is_to_be_started_anew() -> None:
    (found,) = differs(LOWER, KERNEL, main(0, start_s=400))
    assert found.detail == ("It is older than the setting: it was not restarted since.",)
    assert commands(found)[0] == ("systemctl", "restart", "web.service")


def test_in_a_container_that_may_not_lower_it_all_are_told_at_once_and_no_command_that_would_fail() -> None:
    units = tuple(replace(LOWER, name=f"{name}.service", main_pid=pid) for pid, name in enumerate("abcd", start=7))
    processes = tuple(replace(main(0), pid=unit.main_pid or 0) for unit in units)
    (found,) = unit_adj_differs(Snapshot(machine=Machine(units=units, processes=processes)))
    assert found.claim.startswith("\x02a.service\x03, \x02b.service\x03, \x02c.service\x03 and 1 others are to run")
    assert commands(found) == []
    raised = replace(LOWER, lines=tuple(parse_lines("[Service]\nOOMScoreAdjust=500\n", PATH)), oom_score_adjust=500)
    (found,) = differs(raised, main(0))
    assert found.subject == "web.service"


def test_names_of_strangers_are_marked() -> None:
    line = UnitLine(path=PATH, line=1, section="\x1b]0;x", key="MemoryMax", value="1G", text="MemoryMax=1G")
    unit = Unit(name="\x1b[2J.service", active="active", memory_max_bytes="max", lines=(line,))
    (found,) = ignored(unit)
    for name in (unit.name, line.section):
        assert f"\x02{name}\x03" in found.claim

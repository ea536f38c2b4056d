"""Memory really runs out in guests with real kernels; what is read and said of it is held against what was done."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from _pytest.mark import ParameterSet

from lab import kernels, scenarios, states
from lab.guest import GuestSilent
from lab.scenario import Outcome, Scenario
from reprieve.model.oom import OomReport
from reprieve.model.snapshot import Snapshot
from reprieve.oom.report import read_reports
from reprieve.rules import diagnose
from tests.lab import kernel_text, told

# One of each kind that takes seconds: whole machine, adjustment, own limit, the parent's, a group, a panic, no kill.
QUICK = ("global", "global-adj", "memcg", "memcg-nested", "memcg-oom-group", "panic-on-oom2-memcg", "overcommit2")

# Beside the default one, the oldest and the newest: what they print differs most. The others are played by hand.
TOLD_APART = ("5.10", "7")

# Who dies is a race where many grow, and a kernel that swaps to zram may go round in reclaim for minutes before it
# kills: a play that went otherwise is played again. What is read of a play is never given a second chance.
PLAYS = 3


def _cases() -> Iterator[ParameterSet]:
    for series in kernels.SUITES:
        for scenario in scenarios.on(series):
            default = series == kernels.DEFAULT
            if default and scenario.name in QUICK:
                mark = pytest.mark.guest
            elif default or (series in TOLD_APART and scenario.machine in (states.MINI, states.NUMA)):
                mark = pytest.mark.slow
            else:
                mark = pytest.mark.matrix
            yield pytest.param(scenario, series, id=f"{series}-{scenario.name}", marks=mark)


@pytest.mark.parametrize(("scenario", "series"), list(_cases()))
def test_what_is_said_of_a_scenario_is_what_it_did(
    scenario: Scenario, series: str, play_here: Callable[[Scenario, str], Outcome]
) -> None:
    outcome = _as_planned(scenario, lambda: play_here(scenario, series))
    _assert_it_is_read_and_judged(scenario, outcome)
    _assert_the_command_says_it(scenario, outcome)


@pytest.mark.slow
def test_a_kill_is_the_same_in_each_format_of_the_journal_and_of_dmesg(
    play_here: Callable[[Scenario, str], Outcome],
) -> None:
    outcome = play_here(scenarios.named("systemd-journal-formats"), kernels.DEFAULT)
    for section in outcome.output.split("##### ")[1:]:
        command, _, text = section.partition("\n")
        (oom,) = (event for event in read_reports(text) if isinstance(event, OomReport))
        told_by = (command, oom.victim and oom.victim.comm, oom.constraint, oom.oom_memcg, len(oom.tasks or ()))
        assert told_by == (command, "leaky", "CONSTRAINT_MEMCG", "/system.slice/leaky.service", 1), text


def _as_planned(scenario: Scenario, play: Callable[[], Outcome]) -> Outcome:
    for _ in range(PLAYS - 1):
        with suppress(GuestSilent):
            outcome = play()
            if not _otherwise_than_planned(scenario, outcome):
                return outcome
    outcome = play()
    assert _otherwise_than_planned(scenario, outcome) == [], outcome.output + outcome.log
    return outcome


def _otherwise_than_planned(scenario: Scenario, outcome: Outcome) -> list[str]:
    """In what the play differed from its plan, by the kernel's text alone: nothing of ours has read it."""
    found = [] if outcome.status == scenario.status else [f"status {outcome.status}"]
    found += [f"not printed: {words}" for words in scenario.prints if words not in outcome.output]
    found += [f"not logged: {words}" for words in scenario.logs if words not in outcome.log]
    texts = kernel_text.reports(outcome.log)
    if len(texts) < len(scenario.reports) or (len(texts) > len(scenario.reports) and not scenario.more_reports):
        found.append(f"{len(texts)} reports")
    for number, (text, report) in enumerate(zip(texts, scenario.reports, strict=False)):
        found += [f"report {number} without {words}" for words in kernel_text.unsaid(text, report)]
    if texts and scenario.reports and "host-full" in scenario.reports[0].finds and kernel_text.is_free_again(texts[0]):
        found.append("memory had come free again when the first report was printed")
    return found


def _assert_it_is_read_and_judged(scenario: Scenario, outcome: Outcome) -> None:
    read = [event for event in read_reports(outcome.log) if isinstance(event, OomReport)]
    ooms = tuple(oom for oom in read if oom.trigger is not None)  # a storm overwrites the head of the oldest
    findings = diagnose(Snapshot(ooms=ooms))
    texts = kernel_text.reports(outcome.log)
    assert len(ooms) == len(texts), outcome.log
    for number, (oom, text, report) in enumerate(zip(ooms, texts, scenario.reports, strict=False)):
        assert told.misread(oom, report) == [], outcome.log
        of_it = [finding for finding in findings if finding.oom in (number, None)]
        misjudged = told.misjudged(of_it, report)
        if number and kernel_text.is_free_again(text):  # the last victim let go meanwhile: full or not, both are so
            misjudged = [word for word in misjudged if word != "silent: host-full"]
        assert misjudged == [], outcome.log


def _assert_the_command_says_it(scenario: Scenario, outcome: Outcome) -> None:
    argv = [sys.executable, "-m", "reprieve", "why", "-"]
    said = subprocess.run(argv, input=outcome.log, capture_output=True, text=True, timeout=60)
    assert said.stderr == ""
    if not scenario.reports:
        # The kernel may have said nothing at all, and an empty log tells of nothing.
        assert said.stdout.startswith("No OOM kill" if outcome.log else "Nothing was read"), said.stdout
    elif not scenario.more_reports:
        who, _, rest = said.stdout.partition("\nLimit ")
        limit = rest.partition("\nWhat now")[0]
        report = scenario.reports[-1]  # the newest is the one explained
        assert (report.victim or "nobody") in who
        assert report.limit_of is None or f" {report.limit_of}" in limit or report.limit_of.split("/")[-1] in limit

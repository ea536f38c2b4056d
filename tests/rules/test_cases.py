"""Every rule meets its real cases, the silent ones first; and what holds for every finding about every log."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import pytest
from _pytest.mark import ParameterSet

from reprieve.model.finding import NAME_END, NAME_START, Finding
from reprieve.rules import RULES, SEVERITIES, diagnose
from tests.rules.cases import CASES, LOGS, snapshot

ALL_LOGS = sorted(
    str(path.relative_to(LOGS))
    for path in (*LOGS.glob("*.log"), *LOGS.glob("lab/*.txt"), *LOGS.glob("captures/*.txt"))
    if not path.name.endswith(".out.txt")
)


def _silent() -> Iterator[ParameterSet]:
    for code, cases in CASES.items():
        for log, why in cases.silent:
            yield pytest.param(code, log, id=f"{code}: {why}")


def _speaks() -> Iterator[ParameterSet]:
    for code, cases in CASES.items():
        for log in cases.speaks:
            yield pytest.param(code, log, id=f"{code}: {log}")


@pytest.mark.parametrize(("code", "log"), list(_silent()))
def test_a_rule_is_silent_about_a_look_alike(code: str, log: str) -> None:
    assert snapshot(log).ooms or snapshot(log).endings
    assert code not in {finding.code for finding in diagnose(snapshot(log))}


@pytest.mark.parametrize(("code", "log"), list(_speaks()))
def test_a_rule_speaks_of_its_case(code: str, log: str) -> None:
    assert code in {finding.code for finding in diagnose(snapshot(log))}


def test_a_code_is_the_name_of_its_rule() -> None:
    for rule in RULES:
        code = rule.__name__.replace("_", "-")
        assert {finding.code for log in CASES[code].speaks for finding in rule(snapshot(log))} == {code}


@pytest.mark.parametrize("log", ALL_LOGS)
def test_a_finding_shows_lines_of_the_log(log: str) -> None:
    for finding in diagnose(snapshot(log)):
        assert finding.oom is not None
        lines = dict(snapshot(log).ooms[finding.oom].lines)
        assert finding.evidence
        for evidence in finding.evidence:
            assert evidence.line is not None
            assert lines[evidence.line] == evidence.text


@pytest.mark.parametrize("log", ALL_LOGS)
def test_every_command_is_words_that_a_shell_keeps_apart(log: str) -> None:
    for finding in diagnose(snapshot(log)):
        for command in (command for remedy in finding.remedies for command in remedy.commands):
            assert tuple(shlex.split(shlex.join(command))) == command
            assert NAME_START not in "".join(command)


@pytest.mark.parametrize("log", ALL_LOGS)
def test_a_claim_is_one_sentence_with_its_names_marked(log: str) -> None:
    for finding in diagnose(snapshot(log)):
        unnamed = re.sub(f"{NAME_START}[^{NAME_END}]*{NAME_END}", "NAME", finding.claim)
        assert NAME_START not in unnamed
        assert "None" not in unnamed
        assert not unnamed.endswith(".")
        assert ". " not in unnamed


@pytest.mark.parametrize("log", ALL_LOGS)
def test_findings_come_by_event_and_severity(log: str) -> None:
    def order(finding: Finding) -> tuple[int, int]:
        assert finding.oom is not None
        return finding.oom, SEVERITIES.index(finding.severity)

    found = diagnose(snapshot(log))
    assert found == sorted(found, key=order)

"""Memory really runs out in guests with real kernels; what is read and said of it is held against what was done."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from _pytest.mark import ParameterSet

from lab import kernels, scenarios, states
from lab.scenario import Outcome, Scenario
from tests.lab import kernel_text

# One of each kind that takes seconds: whole machine, adjustment, own limit, the parent's, a group, a panic, no kill.
QUICK = ("global", "global-adj", "memcg", "memcg-nested", "memcg-oom-group", "panic-on-oom2-memcg", "overcommit2")


def _cases() -> Iterator[ParameterSet]:
    for series in kernels.SUITES:
        for scenario in scenarios.on(series):
            default = series == kernels.DEFAULT
            if default and scenario.name in QUICK:
                mark = pytest.mark.guest
            elif default or scenario.machine != states.SYSTEMD:
                mark = pytest.mark.slow
            else:
                mark = pytest.mark.matrix
            yield pytest.param(scenario, series, id=f"{series}-{scenario.name}", marks=mark)


@pytest.mark.parametrize(("scenario", "series"), list(_cases()))
def test_a_scenario_ends_as_it_says(
    scenario: Scenario, series: str, play_here: Callable[[Scenario, str], Outcome]
) -> None:
    outcome = play_here(scenario, series)
    assert outcome.status == scenario.status, outcome.output
    assert [words for words in scenario.prints if words not in outcome.output] == [], outcome.output
    assert [words for words in scenario.logs if words not in outcome.log] == [], outcome.log
    told = kernel_text.reports(outcome.log)
    assert len(told) >= len(scenario.reports), outcome.log
    assert scenario.more_reports or len(told) == len(scenario.reports), outcome.log
    for text, report in zip(told, scenario.reports, strict=False):
        assert kernel_text.unsaid(text, report) == [], text

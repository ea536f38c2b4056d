"""Every scenario of the lab, in the order they are listed and run."""

from __future__ import annotations

from collections.abc import Iterator

from lab import kernels, mini_scenarios, systemd_scenarios
from lab.host import LabError
from lab.scenario import Scenario

SCENARIOS = (*mini_scenarios.SCENARIOS, *systemd_scenarios.SCENARIOS)


def named(name: str) -> Scenario:
    """The scenario of that name. Raises LabError if there is none."""
    for scenario in SCENARIOS:
        if scenario.name == name:
            return scenario
    raise LabError(f"no scenario {name}", hint="python -m lab list")


def on(series: str) -> Iterator[Scenario]:
    """The scenarios a kernel of that series can play. Raises LabError if there is no such series."""
    if series not in kernels.SUITES:
        raise LabError(f"no kernel series {series}", hint=f"there are {', '.join(kernels.SUITES)}")
    yield from (scenario for scenario in SCENARIOS if scenario.kernels is None or series in scenario.kernels)

"""What the lab says where it cannot go on."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab import kernels, scenarios
from lab.host import LabError, call


def test_a_kernel_that_was_never_fetched_is_an_error_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPRIEVE_LAB", str(tmp_path))
    with pytest.raises(LabError, match=r"no kernel 6\.1\n  as root: python -m lab setup 6\.1"):
        kernels.find("6.1")


def test_a_series_no_suite_carries_is_an_error_that_names_those_there_are() -> None:
    with pytest.raises(LabError, match=r"there are 5\.10, 6\.1, 6\.12, 7"):
        kernels.fetch("2.6")


def test_a_program_that_fails_is_an_error_with_its_last_words() -> None:
    with pytest.raises(LabError, match=r"sh failed \(3\): no room"):
        call(("sh", "-c", "echo no room >&2; exit 3"))


def test_a_program_that_is_missing_is_an_error_with_the_way_out() -> None:
    with pytest.raises(LabError, match=r"qemu-system-m68k-not-here is not installed\n  as root: python -m lab setup"):
        call(("qemu-system-m68k-not-here",))


def test_every_scenario_has_a_name_of_its_own() -> None:
    names = [scenario.name for scenario in scenarios.SCENARIOS]
    assert sorted(set(names)) == sorted(names)


def test_a_scenario_that_does_not_end_the_guest_says_how_its_script_ends() -> None:
    assert [each.name for each in scenarios.SCENARIOS if each.panics != (each.status is None)] == []

"""Guests, kernels and cgroups for the tests; what this machine cannot give is a skip, or in CI a failure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import reprieve
from lab.guest import GuestDied, GuestSilent
from lab.host import LabError
from lab.host_cgroup import HostCgroup, host_cgroup
from lab.manager import Manager, manager
from lab.scenario import Outcome, Scenario, play
from lab.states import saved
from tests.machine.real import missing


@contextmanager
def here_or_skipped() -> Iterator[None]:
    """Make "this machine has no such thing" a skip, or in CI a failure; never a guest that died."""
    try:
        yield
    except (GuestDied, GuestSilent):
        raise
    except LabError as error:
        missing(str(error))


@pytest.fixture(scope="session")
def play_here() -> Callable[[Scenario, str], Outcome]:
    """Play a scenario on a kernel, in a fresh copy of its saved guest."""

    def play_it(scenario: Scenario, series: str) -> Outcome:
        with here_or_skipped():
            saved(series, scenario.machine)
        return play(scenario, series)

    return play_it


@pytest.fixture(scope="module")
def container() -> Iterator[Manager]:
    """A systemd as the first process of a container, with the tool in it, booted once for a file of tests."""
    with here_or_skipped():
        running = manager(Path(reprieve.__file__).parent.parent)
        booted = running.__enter__()
    try:
        yield booted
    finally:
        running.__exit__(None, None, None)


@pytest.fixture
def cgroup_here() -> Iterator[HostCgroup]:
    """A memory cgroup of this machine with a limit of 32 MiB."""
    with here_or_skipped():
        group = host_cgroup()
        made = group.__enter__()
    try:
        yield made
    finally:
        group.__exit__(None, None, None)

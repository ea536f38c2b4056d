"""A process is ended only if it is the one that was meant."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator

import pytest

from reprieve.machine.handle import Handle
from reprieve.machine.host import Host
from reprieve.machine.proc import glance
from reprieve.model.finding import Failure


@pytest.fixture
def sleeper() -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A process, and its start time."""
    with subprocess.Popen(["sleep", "600"]) as process:
        now = glance(Host(), process.pid, None)
        assert now is not None
        yield process, now.start_ticks
        process.kill()


def test_what_is_sent_reaches_it(sleeper: tuple[subprocess.Popen[bytes], int]) -> None:
    process, start = sleeper
    with Handle(process.pid, start) as handle:
        handle.send(signal.SIGTERM)
        assert process.wait(30) == -signal.SIGTERM
        with pytest.raises(Failure, match="has ended"):
            handle.send(signal.SIGKILL)


def test_another_of_the_same_number_is_not_held(sleeper: tuple[subprocess.Popen[bytes], int]) -> None:
    process, start = sleeper
    with pytest.raises(Failure, match="may be another's"):
        Handle(process.pid, start - 1)
    assert process.poll() is None


def test_who_has_ended_is_not_held(sleeper: tuple[subprocess.Popen[bytes], int]) -> None:
    process, start = sleeper
    process.kill()
    process.wait()
    with pytest.raises(Failure, match="has ended"):
        Handle(process.pid, start)


def test_init_is_not_held() -> None:
    with pytest.raises(Failure, match="pid 1"):
        Handle(1, 0)

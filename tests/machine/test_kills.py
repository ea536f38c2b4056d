"""Kills as they happen: real ones, heard while something else is done."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest

from reprieve.machine.demo import kill_a_leak
from reprieve.machine.host import identify
from reprieve.machine.kills import Kills
from reprieve.model.finding import Failure, Gap
from reprieve.model.oom import OomReport
from tests.machine.real import missing


def heard(kills: Kills, said: str, seconds: float = 30) -> list[OomReport]:
    """Those of the kill with which these records end: other tests let the kernel kill too, before it perhaps."""
    pid = int(re.findall(r"Killed process (\d+) ", said)[-1])
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if new := [oom for oom in kills.new() if oom.kills and oom.kills[0].pid == pid]:
            return new
        time.sleep(0.05)
    return []


def test_a_kill_is_heard_once_with_all_that_the_kernel_said_of_it(real_kill: str) -> None:
    boot = identify().boot_id
    with Kills(boot) as kills:
        try:
            said = kill_a_leak().decode()
        except Failure as failure:
            missing(f"a kill of its own: {failure.message}")
        (oom,) = heard(kills, said)
        assert heard(kills, said, seconds=2) == []
    assert oom.boot_id == boot
    assert oom.tasks
    assert kills.gaps == []


def test_when_the_kernel_s_words_end_nobody_listens_any_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    def until_journalctl_is_killed(_told: int, gaps: list[Gap]) -> Iterator[str]:
        yield "kern  :info  : [    1.000000] a line"
        gaps.append(Gap(place="journalctl", reason="ended"))

    monkeypatch.setattr("reprieve.machine.kills.follow_kernel", until_journalctl_is_killed)
    with Kills(None) as kills:
        end = time.monotonic() + 30
        while not kills.unheard and time.monotonic() < end:
            time.sleep(0.01)
        assert kills.unheard
        assert [gap.reason for gap in kills.gaps] == ["ended"]


def test_to_stop_listening_takes_no_kill() -> None:
    begun = time.monotonic()
    for _ in range(20):
        with Kills(None):
            pass
    assert time.monotonic() - begun < 60  # a second each would be one that waits until it is quiet

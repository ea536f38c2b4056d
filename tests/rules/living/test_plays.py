"""Each rule on the living machine meets what it is about, in a guest in which the tool itself looks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lab import kernels, states
from lab.guest import Guest, GuestDied
from lab.states import Saved
from reprieve.rules.living import LIVING, SINCE, code_of
from tests.lab.conftest import here_or_skipped
from tests.lab.parcel import parcel
from tests.rules.living.plays import IN_OTHER_TESTS, PLAYS

_LOOK = "cd /; PYTHONPATH=/opt/reprieve COLUMNS=1000 python3 -m reprieve check"
_UNPACK = "mkdir /opt/reprieve; tar -C /opt/reprieve -xf /dev/vda\n"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def guest_here(tmp_path_factory: pytest.TempPathFactory) -> tuple[Saved, Path]:
    """The saved systemd guest, and the tool for its spare disk."""
    with here_or_skipped():
        saved = states.saved(kernels.DEFAULT, states.SYSTEMD)
    return saved, parcel(tmp_path_factory.mktemp("tool") / "parcel.tar")


def test_every_rule_has_a_play() -> None:
    assert set(PLAYS) | set(IN_OTHER_TESTS) == set(map(code_of, LIVING))


def _look(code: str) -> str:
    two = " --since-last" if code in map(code_of, SINCE) else ""
    return f"{_LOOK}{two} --only {code}"


def _prepare(guest: Guest, script: str) -> None:
    ended = guest.run(_UNPACK + script, timeout_s=200)
    assert ended.status == 0, ended.output


def _advised(guest: Guest, code: str, remedy: int) -> list[str]:
    """The commands of that remedy, as they are printed."""
    said = guest.run(f"{_look(code)} -v", timeout_s=200).output
    remedies = said.split("\n          → ")[1:]
    assert len(remedies) > remedy, said
    return re.findall(r"^ +\$ (.*)$", remedies[remedy], re.MULTILINE)


@pytest.mark.parametrize("code", list(PLAYS))
def test_it_is_silent_about_look_alikes(code: str, guest_here: tuple[Saved, Path]) -> None:
    saved, tool = guest_here
    for script, why in PLAYS[code].silent:
        with saved.restore(spare=tool) as guest:
            _prepare(guest, script)
            said = guest.run(_look(code), timeout_s=200)
            assert "Found     nothing" in said.output, (why, said.output)


@pytest.mark.parametrize("code", list(PLAYS))
def test_it_speaks_and_what_it_advises_saves_the_load(code: str, guest_here: tuple[Saved, Path]) -> None:
    saved, tool = guest_here
    play = PLAYS[code]
    with saved.restore(spare=tool) as guest:
        _prepare(guest, play.speaks)
        if play.load is None:
            said = guest.run(_look(code), timeout_s=200).output
            assert f"\n          {code}" in said, said
            return
        advised = _advised(guest, code, play.remedy)
        assert advised, "nothing to do"
        before = guest.run("awk '/^MemAvailable/ {print int($2 / 1024)}' /proc/meminfo").output.strip()
        started = next((line for line in advised if line.endswith(" PROGRAM")), None)
        told = f"BEFORE={before}\n"
        if started is not None:  # for the next start: the load starts it
            told += f"ADVISED='{started.removesuffix(' -- PROGRAM')} sh -c'\n"
        else:
            told += "\n".join(advised) + "\n"
        ended = guest.run(told + play.load, timeout_s=200)
        assert ended.status == 0, ended.output + guest.kernel_log()[-2000:]
    with saved.restore(spare=tool) as guest:
        _prepare(guest, play.speaks)
        try:
            unsaved = guest.run(play.load, timeout_s=200)
        except GuestDied:
            return
        assert unsaved.status != 0, unsaved.output

"""reprieve where memory has run out: it answers, and costs no innocent its life."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab import kernels, states
from tests.lab.conftest import here_or_skipped
from tests.lab.parcel import parcel

pytestmark = pytest.mark.alone

KILL = "systemd-run -q --unit=leaky -p MemoryMax=40M hog --mib 300 --name leaky; sleep 3; dmesg -c > /root/kill.log"
# Leaves 40 MiB of what is available. `hog` holds on to the last page of it until it is killed.
INNOCENT = """\
room=$(awk '/^MemAvailable/ {print int($2 / 1024)}' /proc/meminfo)
hog --mib $((room - 40)) --step-mib 1 --name innocent --hold -1 > /run/innocent 2>&1 &
until grep -q has /run/innocent; do sleep 0.5; done
awk '/^MemAvailable/ {print int($2 / 1024)}' /proc/meminfo
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("why /root/kill.log", "Killed    leaky (pid "),
        ("why", "Killed    leaky (pid "),
        ("next", "Next      innocent (pid "),
        ("check", "Machine   "),
        ("top --once", "Machine   "),
    ],
)
def test_with_40_mib_left_it_answers_and_the_large_innocent_lives(command: str, said: str, tmp_path: Path) -> None:
    with here_or_skipped():
        saved = states.saved(kernels.DEFAULT, states.SYSTEMD)
    with saved.restore(spare=parcel(tmp_path / "parcel.tar")) as guest:
        assert guest.run(f"mkdir /opt/reprieve; tar -C /opt/reprieve -xf /dev/vda\n{KILL}").status == 0
        left_mib = int(guest.run(INNOCENT).output)
        assert 30 <= left_mib <= 45
        told = guest.run(f"cd /; PYTHONPATH=/opt/reprieve python3 -m reprieve {command}", timeout_s=200).output
        assert told.startswith(said), told
        assert guest.run("pgrep -x innocent").status == 0
        assert "oom-kill" not in guest.kernel_log()

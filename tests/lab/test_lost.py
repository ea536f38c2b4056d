"""Kills whose lines the kernel's buffer has overwritten: told as not seen, unless what is asked for is younger."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab import kernels, states
from tests.lab.conftest import here_or_skipped
from tests.lab.parcel import parcel
from tests.lab.test_fix import flat, told

pytestmark = pytest.mark.slow

NO_JOURNAL = "systemctl stop 'systemd-journald*'; rm -rf /run/log/journal /var/log/journal"
KILL = "systemd-run -q --wait -p MemoryMax=32M -p MemorySwapMax=0 -p OOMPolicy=continue hog --mib 64 --name {}"
FLOOD = r"""echo on > /proc/sys/kernel/printk_devkmsg
python3 -c 'out = open("/dev/kmsg", "wb", 0); [out.write(b"<7>" + b"x" * 900) for _ in range(1500)]'"""


def test_kills_that_the_buffer_has_lost_are_told_unless_they_are_of_before_what_is_asked_for(tmp_path: Path) -> None:
    with here_or_skipped():
        saved = states.saved(kernels.DEFAULT, states.SYSTEMD)
    with saved.restore(spare=parcel(tmp_path / "parcel.tar")) as guest:
        assert guest.run("mkdir /opt/reprieve; tar -C /opt/reprieve -xf /dev/vda").status == 0
        guest.run(f"{NO_JOURNAL}; {KILL.format('first')}; {FLOOD}", timeout_s=200)
        guest.run(KILL.format("second"), timeout_s=100)
        since = guest.run("sleep 2; date '+%F %T'; sleep 2").output.strip()
        guest.run(KILL.format("third"), timeout_s=100)
        for asked in ("--all", "--list"):
            said = flat(told(guest, f"why {asked} < /dev/null", status=5))
            assert "3 since boot by the kernel's own count, and the logs that could be read tell of 2" in said
            assert ("first" in said, "second" in said, "third" in said) == (False, True, True)
            later = flat(told(guest, f"why {asked} --since '{since}' < /dev/null"))
            assert "by the kernel's own count" not in later
            assert ("second" in later, "third" in later) == (False, True)

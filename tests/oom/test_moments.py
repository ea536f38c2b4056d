"""How much time lies between two lines, whatever their stamps."""

from __future__ import annotations

import pytest

from reprieve.model.oom import Stamp
from reprieve.oom.moments import elapsed_s


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        (Stamp(), Stamp()),
        (Stamp(uptime_s=5.0), Stamp(text="Nov 23 14:08:01")),
        (Stamp(uptime_s=5.0), Stamp(uptime_s=3.0)),
        (Stamp(text="Nov 24 14:08:01"), Stamp(text="Nov 23 17:18:01")),
        (Stamp(text="Feb 28 23:00:00"), Stamp(text="Mar  1 01:00:00")),  # of which year?
        (Stamp(text="Nov 23 14:08:01"), Stamp(text="2026-11-23 14:08:01")),
        (Stamp(text="soon"), Stamp(text="later")),
    ],
)
def test_what_the_stamps_do_not_tell_is_none(earlier: Stamp, later: Stamp) -> None:
    assert elapsed_s(earlier, later) is None


@pytest.mark.parametrize(
    ("earlier", "later", "expected"),
    [
        (Stamp(uptime_s=5.0), Stamp(uptime_s=6.25), 1.25),
        (Stamp(wall_s=5.0), Stamp(wall_s=65.0), 60),
        (Stamp(text="Nov 23 14:08:01"), Stamp(text="Nov 23 17:18:01"), 11400),
        (Stamp(text="Dec 31 23:59:59"), Stamp(text="Jan  1 00:00:09"), 10),
        (Stamp(text="Mon Nov 23 14:08:01 2026"), Stamp(text="Tue Nov 24 14:08:01 2026"), 86400),
        (Stamp(text="2026-11-23T14:08:01,5"), Stamp(text="2026-11-23 14:08:02"), 0.5),
    ],
)
def test_the_time_between_is_told_by_what_both_have(earlier: Stamp, later: Stamp, expected: float) -> None:
    assert elapsed_s(earlier, later) == expected


def test_the_time_since_boot_is_finer_than_a_date_until_a_reboot() -> None:
    begin = Stamp(uptime_s=5.0, text="Nov 23 14:08:01")
    assert elapsed_s(begin, Stamp(uptime_s=6.25, text="Nov 23 14:08:02")) == 1.25
    assert elapsed_s(begin, Stamp(uptime_s=9.0, text="Nov 24 14:08:01")) == 86400

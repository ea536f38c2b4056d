"""What people mean by a moment, and what logs do."""

import re
import time
from datetime import datetime, timedelta

import pytest

from reprieve.machine.clock import FORMS, has_no_year, moment_of, parse_moment, spelled
from reprieve.model.oom import Stamp


@pytest.mark.parametrize(
    "text",
    [
        "",
        "soon",
        "tomorrow",
        "2026-13-01",
        "2026-02-30",
        "5 parsecs ago",
        "25:00",
        "14:60",
        "Feb 30",
        "Foo 1",
        "now 14:08",
        "yesterday 25:00",
        "1 month ago",
        "@",
    ],
)
def test_what_is_no_moment_is_none(text: str) -> None:
    assert parse_moment(text) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-23", datetime(2026, 11, 23).timestamp()),
        ("2026-11-23 14:08", datetime(2026, 11, 23, 14, 8).timestamp()),
        ("2026-11-23T14:08:09+00:00", 1795442889.0),
        ("2026-11-23T14:08:09Z", 1795442889.0),
        ("2026-11-23t14:08:09z", 1795442889.0),
        ("2026-11-23 14:08:09 UTC", 1795442889.0),
        ("2026/11/23 14:08", datetime(2026, 11, 23, 14, 8).timestamp()),
        ("Nov 23 14:08:09 2025", datetime(2025, 11, 23, 14, 8, 9).timestamp()),
        ("Mon Nov 23 14:08:09 2025", datetime(2025, 11, 23, 14, 8, 9).timestamp()),  # dmesg -T
        ("Sun 23 Nov 2025 14:08:09", datetime(2025, 11, 23, 14, 8, 9).timestamp()),
        ("November 23, 2025", datetime(2025, 11, 23).timestamp()),
        ("23 Nov 2026 14:08:09 UTC", 1795442889.0),
        ("@1795442889", 1795442889.0),
    ],
)
def test_a_date_is_of_this_machines_zone_unless_it_says_another(text: str, expected: float) -> None:
    assert parse_moment(text) == expected


@pytest.mark.parametrize("text", ["00:00", "7:05", "14:08", "23:59:59"])
def test_a_time_alone_is_the_latest_that_is_past(text: str) -> None:
    moment = parse_moment(text)
    assert moment is not None
    assert 0 <= time.time() - moment <= 25 * 3600
    said = [int(part) for part in text.split(":")]
    assert [datetime.fromtimestamp(moment).hour, datetime.fromtimestamp(moment).minute] == said[:2]


@pytest.mark.parametrize(
    ("text", "ago_s"),
    [
        ("2 h ago", 7200),
        ("90 min", 5400),
        ("3d ago", 259200),
        ("1 week ago", 604800),
        ("now", 0),
        ("2 hours ago", 7200),
        ("-1h", 3600),
        ("-90min", 5400),
        ("1h 30min ago", 5400),
        ("an hour ago", 3600),
    ],
)
def test_a_while_ago_counts_from_now(text: str, ago_s: float) -> None:
    moment = parse_moment(text)
    assert moment is not None
    assert abs(time.time() - ago_s - moment) < 60


def test_yesterday_begins_at_midnight() -> None:
    moment = parse_moment("yesterday")
    assert moment is not None
    assert datetime.fromtimestamp(moment).hour == 0
    assert moment < (parse_moment("today") or 0)


def test_a_day_may_have_a_time() -> None:
    moment = parse_moment("yesterday 14:08")
    assert moment == (parse_moment("yesterday") or 0) + 14 * 3600 + 8 * 60


@pytest.mark.parametrize(
    "text", ["May 1 13:00", "1 May 13:00", "Dec 31", "jan 1 00:00:00", "Fri Nov 27 14:08:22", "Feb 29"]
)
def test_a_moment_without_a_year_is_of_the_latest_that_is_past(text: str) -> None:
    moment = parse_moment(text)
    assert moment is not None
    assert has_no_year(text)
    day = datetime.fromtimestamp(moment)
    assert moment <= time.time()
    following = day.replace(year=day.year + (4 if text == "Feb 29" else 1))
    assert following > datetime.now() or text == "Feb 29"
    assert spelled(moment).startswith(f"{day.year}-{day.month:02}-{day.day:02} ")


@pytest.mark.parametrize("text", ["2026-11-23", "yesterday", "14:08", "-1h", "Nov 23 14:08:09 2025", "soon"])
def test_of_what_has_a_year_or_needs_none_nothing_is_to_be_said(text: str) -> None:
    assert not has_no_year(text)


def test_every_form_that_is_offered_is_one() -> None:
    forms = re.findall("'([^']+)'", FORMS)
    assert len(forms) > 8
    assert all(parse_moment(form) is not None for form in forms)


def test_a_stamp_without_a_date_is_no_moment() -> None:
    assert moment_of(Stamp(uptime_s=5.0)) is None
    assert moment_of(Stamp(text="Mar 99 10:00:00")) is None
    assert moment_of(Stamp(text="Foo 11 10:00:00")) is None


def test_an_uptime_of_this_boot_is_a_date() -> None:
    moment = moment_of(Stamp(uptime_s=time.clock_gettime(time.CLOCK_BOOTTIME) - 60), this_boot=True)
    assert moment is not None
    assert abs(time.time() - 60 - moment) < 30


def test_a_date_without_a_year_is_the_latest_that_is_past() -> None:
    for days in (0, 40, 300):
        then = (datetime.now() - timedelta(days=days)).replace(microsecond=0)
        months = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
        stamp = Stamp(text=f"{months[then.month - 1]} {then.day:2} {then:%H:%M:%S}")
        assert moment_of(stamp) == then.timestamp()


def test_the_29th_of_february_was_in_the_last_year_that_has_one() -> None:
    moment = moment_of(Stamp(text="Feb 29 12:00:00"))
    assert moment is not None
    assert datetime.fromtimestamp(moment).year % 4 == 0


def test_a_date_that_is_whole_is_believed() -> None:
    assert moment_of(Stamp(text="2026-11-23T14:08:09Z", wall_s=1795442889.0)) == 1795442889.0
    assert moment_of(Stamp(text="Mon Nov 23 14:08:09 2020")) == datetime(2020, 11, 23, 14, 8, 9).timestamp()

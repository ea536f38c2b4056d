"""What time it is, and what people mean by one."""

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from reprieve.model.oom import Stamp

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH_NAMES = (
    *("january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november"),
    "december",
)
_UNIT = r"(s|sec|seconds?|m|min|minutes?|h|hours?|d|days?|w|weeks?)"
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_AGO = rf"-?((?:(?:\d{{1,9}}|an?) ?{_UNIT}(?: |$|(?=\d)))+)(?:ago)?"
_CLOCK = r"(?P<clock>[0-2]?\d:[0-5]\d(?::[0-5]\d)?)(?:[.,]\d{1,9})?"
_DAY = rf"(?P<day>now|today|yesterday)(?: {_CLOCK})?"
_NAMED = (  # as people write it, RFC 3164, `dmesg -T`, `date`
    r"(?:(?:mon|tue|wed|thu|fri|sat|sun)[a-z]{0,6},? )?"
    r"(?:(?P<month>[a-z]{3,9})\.? (?P<date>\d{1,2})|(?P<date_first>\d{1,2})\.? (?P<month_second>[a-z]{3,9})\.?)"
    rf"(?:,? (?P<year>\d{{4}}))?(?:,? {_CLOCK})?(?P<utc> utc| gmt| z)?(?: (?P<year_last>\d{{4}}))?"
)
FORMS = (
    "'2026-11-23', '2026-11-23 14:08', '2026-11-23T14:08:22Z', 'Nov 23', 'Nov 23 14:08:22', '23 Nov 2026 14:08', "
    "'14:08', 'today', 'yesterday 14:08', '2 hours ago', '-90min' and '@1795442902'"
)
_FIRST_YEAR = 2003  # of Linux 2.6: no older report is read
_SYSLOG = r"(?:\w{2,4} )?([A-Z][a-z]{2}) +(\d{1,2}) (\d\d):(\d\d):(\d\d)(?:\.\d+)?(?: (\d{4}))?"


def parse_moment(text: str) -> float | None:
    """One of FORMS → seconds since 1970; None if it is no moment.

    A date without a zone is of this machine's. A time alone, and a date without a year, is the latest that is past.
    """
    words = " ".join(text.split()).lower()
    if re.fullmatch(r"@\d{1,12}", words):
        return float(words[1:])
    if ago := re.fullmatch(_AGO, words):
        parts = re.findall(rf"(\d+|an?) ?{_UNIT}", ago[1])
        return time.time() - sum((int(count) if count.isdigit() else 1) * _SECONDS[unit[0]] for count, unit in parts)
    now = datetime.now()
    if day := re.fullmatch(_DAY, words):
        if day["day"] == "now":
            return None if day["clock"] else now.timestamp()
        return _at(now - timedelta(days=day["day"] == "yesterday"), day["clock"])
    if clock := re.fullmatch(_CLOCK, words):
        moment = _at(now, clock["clock"])
        return moment if moment is None or moment <= now.timestamp() else _at(now - timedelta(days=1), clock["clock"])
    if named := re.fullmatch(_NAMED, words):
        return _of_named(named, now)
    try:
        return datetime.fromisoformat(re.sub(r" ?utc$", "Z", words).replace("/", "-").upper()).timestamp()
    except (ValueError, OverflowError):
        return None


def has_no_year(text: str) -> bool:
    """Is it a date of which the year was not told, but taken?"""
    named = re.fullmatch(_NAMED, " ".join(text.split()).lower())
    return named is not None and not (named["year"] or named["year_last"])


def spelled(moment: float) -> str:
    """`2026-11-23 14:08:22`, by this machine's clock."""
    return f"{datetime.fromtimestamp(moment):%Y-%m-%d %H:%M:%S}"


def was_suspended() -> bool:
    """Was this machine suspended, since its boot, for longer than a date may be wrong by?"""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC) > 60


def _at(day: datetime, clock: str | None) -> float | None:
    """That time of the day, its beginning if none is told; None if there is none such."""
    hour, minute, second = map(int, f"{clock or '0:0'}:0".split(":")[:3])
    try:
        return day.replace(hour=hour, minute=minute, second=second, microsecond=0).timestamp()
    except (ValueError, OverflowError):
        return None


def _of_named(named: re.Match[str], now: datetime) -> float | None:
    name = named["month"] or named["month_second"]
    month = next((at for at, full in enumerate(_MONTH_NAMES, 1) if full.startswith(name)), None)
    if month is None:
        return None
    told = named["year"] or named["year_last"]
    zone = UTC if named["utc"] else None
    for year in [int(told)] if told else range(now.year, now.year - 9, -1):  # 29 February: at most eight years ago
        try:
            day = datetime(year, month, int(named["date"] or named["date_first"]), tzinfo=zone)
        except ValueError:
            continue
        moment = _at(day, named["clock"])
        if moment is None or told or moment <= now.timestamp():
            return moment
    return None


def moment_of(stamp: Stamp, *, this_boot: bool = False) -> float | None:
    """The first of `moments_of`: a date without a year is the latest that is past. None: there is no date."""
    return next(moments_of(stamp, this_boot=this_boot), None)


def moments_of(stamp: Stamp, *, this_boot: bool = False) -> Iterator[float]:
    """When that was, in seconds since 1970, as near as can be told: each year in which it can have been, latest first.

    A date without a zone is of this machine's. The uptime of an event of `this_boot` is a date too, as `dmesg -T` has
    it: wrong by the time the machine was suspended since.
    """
    if stamp.wall_s is not None:
        yield stamp.wall_s
        return
    if this_boot and stamp.uptime_s is not None:
        yield time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + stamp.uptime_s
        return
    match = re.search(_SYSLOG, stamp.text or "")
    if match is None or match[1].lower() not in _MONTHS:
        return
    month = _MONTHS.index(match[1].lower()) + 1
    day, hour, minute, second = map(int, match.group(2, 3, 4, 5))
    soon = datetime.now() + timedelta(days=1)
    for year in (int(match[6]),) if match[6] else range(soon.year, _FIRST_YEAR - 1, -1):
        try:
            moment = datetime(year, month, day, hour, minute, second)
        except ValueError:  # 29 February, or damage
            continue
        if match[6] or moment <= soon:
            yield moment.timestamp()

"""How much time lies between two lines of a log."""

import re
from functools import lru_cache

from reprieve.model.oom import Stamp
from reprieve.oom.lines import days

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_TIME = r"(\d\d):(\d\d):(\d\d(?:[.,]\d{1,9})?)"
_NAMED = rf"({'|'.join(_MONTHS)})\.? +(\d{{1,2}}) (?:(\d{{4}}) )?{_TIME}(?:(?: [A-Z]{{3,5}})? (\d{{4}})\b)?"
_ISO = rf"(\d{{4}})-(\d\d)-(\d\d)[T ]{_TIME}"
_NO_YEAR = 2001  # as good as any that has no 29 February, like the one behind it
_YEAR_S = 365 * 86400.0
_TOGETHER_S = 2.0  # a date is of whole seconds, and a line is written a moment after it is printed


def elapsed_s(earlier: Stamp, later: Stamp) -> float | None:
    """Seconds from one line to another below it; None where their stamps do not tell, or go back.

    The time since boot is believed where no date contradicts it: behind a reboot it counts anew.
    """
    by_date = _between_dates_s(earlier, later)
    if earlier.uptime_s is None or later.uptime_s is None:
        between = by_date
    else:
        between = later.uptime_s - earlier.uptime_s
        if by_date is not None and abs(by_date - between) > _TOGETHER_S:
            between = by_date
    return between if between is not None and between >= 0 else None


def _between_dates_s(earlier: Stamp, later: Stamp) -> float | None:
    if earlier.wall_s is not None and later.wall_s is not None:
        return later.wall_s - earlier.wall_s
    one, other = _date(earlier.text), _date(later.text)
    if one is None or other is None:
        return None
    (year, month, seconds), (other_year, other_month, other_seconds) = one, other
    if (year is None) != (other_year is None):
        return None
    between = other_seconds - seconds
    if year is None and month != other_month:  # RFC 3164: of one year, or over New Year's Eve
        if month < 3 <= other_month:
            return None  # is there a 29 February between them?
        if (month, other_month) == (12, 1):
            between += _YEAR_S
    return between


# As printed, of whatever zone: the year, None where none is printed; the month; the seconds since 1970, in 2001 where
# no year is printed. A bare tuple: it is taken apart for each pair of events that are near each other.
_Date = tuple[int | None, int, float]


@lru_cache(1024)  # each event is held against those near it
def _date(text: str | None) -> _Date | None:
    if text is None:
        return None
    if match := re.search(_NAMED, text):
        name, day, before, hour, minute, second, after = match.groups()
        year, month = before or after, _MONTHS.index(name) + 1
    elif match := re.search(_ISO, text):
        year, number, day, hour, minute, second = match.groups()
        month = int(number)
    else:
        return None
    of_day = int(hour) * 3600 + int(minute) * 60 + float(second.replace(",", "."))
    seconds = days(int(year or _NO_YEAR), month, int(day)) * 86400 + of_day
    return int(year) if year else None, month, seconds

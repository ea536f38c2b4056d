"""How much time lies between two lines of a log."""

import re
from functools import lru_cache

from reprieve.model.oom import Stamp
from reprieve.oom.lines import days

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_TIME = r"(\d\d):(\d\d):(\d\d(?:[.,]\d{1,9})?)"
_NAMED = rf"({'|'.join(_MONTHS)})\.? +(\d{{1,2}}) (?:(\d{{4}}) )?{_TIME}(?:(?: [A-Z]{{3,5}})? (\d{{4}})\b)?"
_ISO = rf"(\d{{4}})-(\d\d)-(\d\d)[T ]{_TIME}"
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
    (year, *begin), (also_year, *end) = one, other
    if (year is None) != (also_year is None):
        return None
    if year is None or also_year is None:  # RFC 3164: of one year, or over New Year's Eve
        if begin[0] < 3 <= end[0]:
            return None  # is there a 29 February between them?
        year, also_year = 2001, 2002 if begin[0] == 12 and end[0] == 1 else 2001
    return _seconds(also_year, end) - _seconds(year, begin)


def _seconds(year: int, rest: list[float]) -> float:
    month, day, hour, minute, second = rest
    return days(year, int(month), int(day)) * 86400 + hour * 3600 + minute * 60 + second


@lru_cache(1024)  # each event is held against those near it
def _date(text: str | None) -> tuple[int | None, float, float, float, float, float] | None:
    """Year, month, day, hour, minute, second as printed, of whatever zone; the year is None where none is printed."""
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
    rest = (float(month), float(day), float(hour), float(minute), float(second.replace(",", ".")))
    return None if year is None else int(year), *rest

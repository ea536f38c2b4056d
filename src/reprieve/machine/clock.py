"""What time it is, and what people mean by one."""

import re
import time
from datetime import datetime, timedelta

from reprieve.model.oom import Stamp

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_AGO = r"(\d+)\s*(s|sec|seconds?|m|min|minutes?|h|hours?|d|days?|w|weeks?)(?:\s+ago)?"
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_SYSLOG = r"(?:\w{2,4} )?([A-Z][a-z]{2}) +(\d{1,2}) (\d\d):(\d\d):(\d\d)(?:\.\d+)?(?: (\d{4}))?"


def parse_moment(text: str) -> float | None:
    """`2026-11-23`, `2026-11-23 14:08`, `14:08`, `2 h ago`, `yesterday` → seconds since 1970; None if it is no moment.

    A date without a zone is of this machine's. A time alone is the latest one that is past.
    """
    words = text.strip().lower()
    today = datetime.now().replace(hour=0, minute=0, second=0, microsecond=0)
    if words in ("now", "today", "yesterday"):
        named = {"now": datetime.now(), "today": today, "yesterday": today - timedelta(days=1)}
        return named[words].timestamp()
    if ago := re.fullmatch(_AGO, words):
        return time.time() - int(ago[1]) * _SECONDS[ago[2][0]]
    if re.fullmatch(r"[0-2]?\d:[0-5]\d(:[0-5]\d)?", words):
        words = f"{words:0>5}" if words.count(":") == 1 else f"{words:0>8}"
        try:
            moment = datetime.fromisoformat(f"{today:%Y-%m-%d} {words}")
        except ValueError:
            return None
        return (moment if moment <= datetime.now() else moment - timedelta(days=1)).timestamp()
    try:
        return datetime.fromisoformat(text.strip()).timestamp()
    except ValueError:
        return None


def moment_of(stamp: Stamp, *, this_boot: bool = False) -> float | None:
    """When that was, in seconds since 1970, as near as can be told; None if the stamp has no date.

    A date without a year is the latest that is past, one without a zone is of this machine's. The uptime of an event of
    `this_boot` is a date too, as `dmesg -T` has it: wrong by the time the machine was suspended since.
    """
    if stamp.wall_s is not None:
        return stamp.wall_s
    if this_boot and stamp.uptime_s is not None:
        return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + stamp.uptime_s
    match = re.search(_SYSLOG, stamp.text or "")
    if match is None or match[1].lower() not in _MONTHS:
        return None
    month = _MONTHS.index(match[1].lower()) + 1
    day, hour, minute, second = map(int, match.group(2, 3, 4, 5))
    soon = datetime.now() + timedelta(days=1)
    years = [int(match[6])] if match[6] else [soon.year, soon.year - 1, soon.year - 2, soon.year - 3, soon.year - 4]
    for year in years:
        try:
            moment = datetime(year, month, day, hour, minute, second)
        except ValueError:  # 29 February, or damage
            continue
        if match[6] or moment <= soon:
            return moment.timestamp()
    return None

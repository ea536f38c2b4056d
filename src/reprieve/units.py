"""Bytes, pages and times, and the words people read for them."""

from functools import lru_cache

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


@lru_cache(256)  # one amount is told in several sentences
def size(count_bytes: int) -> str:
    """Bytes in the unit that leaves one to four digits, two significant ones at least: `512 MiB`, `1.5 GiB`.

    >>> size(0), size(33554432), size(-1536), size(1610612736)
    ('0 B', '32 MiB', '-1.5 KiB', '1.5 GiB')
    """
    sign, rest = ("-", -count_bytes) if count_bytes < 0 else ("", count_bytes)
    if rest < KIB:
        return f"{sign}{rest} B"
    power = min((rest.bit_length() - 1) // 10, len(_UNITS))
    value = rest / (1 << 10 * power)
    if value >= 999.5 and power < len(_UNITS):
        value, power = value / KIB, power + 1
    digits = f"{value:.1f}".removesuffix(".0") if value < 99.95 else f"{value:.0f}"
    return f"{sign}{digits} {_UNITS[power - 1]}"


def percent(part: int, whole: int) -> str:
    """A share in whole percent, with one digit after the point below ten; of nothing it is all.

    >>> percent(1, 3), percent(1, 300), percent(1, 0)
    ('33 %', '0.3 %', '100 %')
    """
    share = 100 * part / whole if whole else 100.0
    return f"{share:.1f} %" if abs(share) < 9.95 else f"{share:.0f} %"


def duration(seconds: float) -> str:
    """A length of time in its two largest units: `3 h 20 min`, `45 s`.

    >>> duration(45.2), duration(12000), duration(90061)
    ('45 s', '3 h 20 min', '1 d 1 h')
    """
    left = round(seconds)
    if 0 < left < 60:
        return f"{left} s"
    parts = []
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, left = divmod(left, length)
        if count:
            parts.append(f"{count} {unit}")
        elif parts:
            break
    return " ".join(parts[:2]) or f"{seconds:.1f} s"


def utc(seconds: float) -> str:
    """Seconds since 1970 as a date. Days are those of the Gregorian calendar, counted from 1 March of the year 0.

    >>> utc(1795442922.5), utc(0), utc(951782399)
    ('2026-11-23 14:08:42 UTC', '1970-01-01 00:00:00 UTC', '2000-02-28 23:59:59 UTC')
    """
    count, second = divmod(int(seconds), 86400)
    era, day = divmod(count + 719468, 146097)
    year = (day - day // 1460 + day // 36524 - day // 146096) // 365
    day -= 365 * year + year // 4 - year // 100
    month = (5 * day + 2) // 153
    day += 1 - (153 * month + 2) // 5
    year, month = year + era * 400 + (month > 9), month + (3 if month < 10 else -9)
    return f"{year:04}-{month:02}-{day:02} {second // 3600:02}:{second // 60 % 60:02}:{second % 60:02} UTC"


def parse_size(text: str) -> int | None:
    """Bytes as people write them; None if it is no size. K is 1024, as for systemd and Docker.

    >>> parse_size("512M"), parse_size("1.5 GiB"), parse_size("100"), parse_size("2 apples")
    (536870912, 1610612736, 100, None)
    """
    import re

    match = re.fullmatch(r"([0-9]{1,19})(\.[0-9]{1,6})? ?(?:([KMGT])(?:i?B)?|B)?", text.strip(), re.IGNORECASE)
    if match is None:
        return None
    unit = KIB ** " KMGT".index((match[3] or " ").upper())
    told = int(match[1]) * unit + int(float(match[2] or 0) * unit)
    return told if told < 1 << 63 else None


def parse_limit(text: str) -> int:
    """A size under which a program could live. Raises ValueError, in words: it is none.

    >>> parse_limit("64M")
    67108864
    >>> parse_limit("64")
    Traceback (most recent call last):
    ValueError: 64 B is less than any program needs: try 64M
    """
    told = parse_size(text)
    if told is None:
        raise ValueError(f"{text!r} is no size: try 512M or 1.5G")
    if told < MIB:
        meant = f"{text}M" if text.isdecimal() and told else "512M"
        raise ValueError(f"{size(told)} is less than any program needs: try {meant}")
    return told


def parse_duration(text: str) -> float | None:
    """Seconds as people write a length of time; None if it is none.

    >>> parse_duration("90"), parse_duration("1h30m"), parse_duration("0.5 min"), parse_duration("soon")
    (90.0, 5400.0, 30.0, None)
    """
    import re

    if re.fullmatch(r" *[0-9]{1,9}(?:\.[0-9]{1,3})? *", text):
        return float(text)
    part = r"([0-9]{1,9}(?:\.[0-9]{1,3})?) ?(s|sec|m|min|h|d) ?"
    if not re.fullmatch(rf"(?:{part})+", text.strip()):
        return None
    return sum(
        float(count) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[unit[0]] for count, unit in re.findall(part, text)
    )

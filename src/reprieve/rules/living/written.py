"""What is written in unit files, as systemd takes it: the value, or why it takes none.

Tried on systemd 252, each spelling below in a unit of its own. Source: config_parse_memory_limit() in
src/core/load-fragment.c, parse_size() in src/basic/parse-util.c, parse_permyriad() in src/basic/percent-util.c.
"""

import re
from typing import NamedTuple

from reprieve.model.finding import quote
from reprieve.model.unit import MEMORY_KEYS, UnitLine

_UNITS = "EPTGMK"
_SIZES = MEMORY_KEYS[:6]
_NOT_ZERO = ("MemoryMax", "MemoryHigh", "MemoryLimit")
_WORDS = {
    "OOMPolicy": ("stop", "continue", "kill"),
    "ManagedOOMSwap": ("auto", "kill"),
    "ManagedOOMMemoryPressure": ("auto", "kill"),
    "ManagedOOMPreference": ("none", "avoid", "omit"),
}
_SECTIONS = {kind: kind.capitalize() for kind in ("service", "scope", "slice", "socket", "mount", "swap")}
_ELSEWHERE = {"OOMScoreAdjust": ("slice", "scope"), "OOMPolicy": ("slice", "socket", "mount", "swap")}
_SHARE = r"(\d{1,3})(?:\.(\d{1,2}))?%"

Value = int | float | str | None  # bytes or "max"; a share in percent; a word; None: whatever is usual


class Ignored(NamedTuple):
    """Why systemd takes nothing from a line, and what it would take in its place."""

    reason: str
    instead: str | None = None  # the value as it is to be spelled; None: nobody can tell what was meant
    section: str | None = None  # where it belongs, if that is elsewhere
    key: str | None = None  # how it is spelled, if it is otherwise


def read(unit: str, line: UnitLine) -> Value | Ignored:
    """What systemd takes from a line of that unit's files."""
    kind = unit.rpartition(".")[2]
    home = _SECTIONS.get(kind, "")
    key = next(one for one in MEMORY_KEYS if one.lower() == line.key.lower())
    value = parse(key, line.value)
    meant = value if isinstance(value, Ignored) else Ignored("", instead=line.value)
    if kind in _ELSEWHERE.get(key, ()):
        return Ignored(f"a {kind} has no such setting")
    if line.section != home:
        return meant._replace(reason=f"it stands in [{quote(line.section)}], not in [{home}]", section=home, key=key)
    if line.key != key:
        return meant._replace(reason=f"it is spelled {key}", key=key)
    return value


def parse(key: str, text: str) -> Value | Ignored:
    """What systemd makes of a value; `key` is one of MEMORY_KEYS."""
    try:
        return _value(key, text)
    except ValueError as error:
        reason = str(error)
    before = re.split(r"[ \t]*[#;]", text, maxsplit=1)[0]
    if before not in ("", text):
        return Ignored("a comment behind a value is part of the value", instead=_if_taken(key, before))
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        return Ignored("the quotes are part of the value", instead=_if_taken(key, text[1:-1]))
    if key in _SIZES:
        plain = re.sub(r"(?i)([kmgtpe])?(?:i?b|ib?)?$", lambda unit: (unit[1] or "").upper(), text.replace(" %", "%"))
        return Ignored(reason, instead=_if_taken(key, "infinity" if text.lower() in _NO_LIMIT else plain))
    if key in _WORDS:
        return Ignored(reason, instead=_if_taken(key, text.lower()))
    return Ignored(reason)


_NO_LIMIT = ("infinity", "max", "unlimited", "none", "-1")


def _if_taken(key: str, text: str) -> str | None:
    try:
        return text if _value(key, text) is not None else None
    except ValueError:
        return None


def _value(key: str, text: str) -> Value:
    """Raises ValueError: systemd refuses it."""
    if key in _SIZES:
        return _limit(key, text)
    if key == "OOMScoreAdjust":
        return _score(text)
    if key == "ManagedOOMMemoryPressureLimit":
        return _share(text) if text else None
    if text and text not in _WORDS[key]:
        raise ValueError(f"it is none of {', '.join(_WORDS[key])}")
    return text or None


def _limit(key: str, text: str) -> int | float | str:
    if text == "":
        return 0 if key in ("MemoryLow", "MemoryMin") else "max"
    if text == "infinity":
        return "max"
    if text.endswith("%"):
        return _share(text)
    size = _size(text)
    if size >= 2**64 - 1 or (size == 0 and key in _NOT_ZERO):
        raise ValueError("it is out of range")
    return size


def _size(text: str) -> int:
    """A sum of figures, their units falling: 1G512M is 1.5G."""
    figure = rf"[ \t]*\+?([0-9]{{1,20}})(?:\.([0-9]{{0,20}}))?[ \t]*([{_UNITS}B]?)"
    if re.fullmatch(f"(?:{figure})+", text) is None:
        raise ValueError(f"a size is a number and one of {', '.join(_UNITS[::-1])}, in capitals and without B or iB")
    total, largest = 0, len(_UNITS) + 2
    for whole, part, unit in re.findall(figure, text):
        power = {"B": 0, "": -1}.get(unit, len(_UNITS) - _UNITS.find(unit))
        if power >= largest:
            raise ValueError("units must fall: 1G512M")
        largest = power
        factor = 1024 ** max(power, 0)
        total += int(whole) * factor + (int(part) * factor // 10 ** len(part) if part else 0)
    return total


def _share(text: str) -> float:
    match = re.fullmatch(_SHARE, text)
    if match is None or int(match[1]) + (int(match[2] or 0) > 0) > 100:
        raise ValueError("a share is at most 100%, with at most two decimals and no blank")
    return float(text[:-1])


def _score(text: str) -> int | None:
    if text == "":
        return None
    if re.fullmatch(r"[+-]?(?:0[xX][0-9a-fA-F]{1,8}|0[0-7]{0,8}|[1-9][0-9]{0,8})", text) is None:
        raise ValueError("it is no whole number")
    octal = re.fullmatch(r"([+-]?)0([0-7]+)", text)
    score = int(f"{octal[1]}0o{octal[2]}" if octal else text, 0)
    if not -1000 <= score <= 1000:
        raise ValueError("it is not between -1000 and 1000")
    return score

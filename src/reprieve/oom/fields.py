"""Fields of what managers print → values of a noun; None where they say nothing, or nothing sensible."""

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import replace
from operator import itemgetter
from typing import Any, Literal, NamedTuple

from reprieve.model.oom import Stamp
from reprieve.oom.lines import stamp

Limit = int | Literal["max"] | None

_UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50}
_UNITS |= {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15}
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def table(parent: dict[str, Any], key: str) -> dict[str, Any]:
    """The object of that name; an empty one where there is none."""
    value = parent.get(key)
    return value if isinstance(value, dict) else {}


def tables(parent: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """The objects of the list of that name."""
    value = parent.get(key)
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def text(value: object) -> str | None:
    """Valid text: JSON can spell half a surrogate pair."""
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) and value else None


def number(value: object) -> int | None:
    """A number of at most 64 bits; None for a larger one: no manager writes it, and no float may hold it."""
    if isinstance(value, str):
        value = int(value) if re.fullmatch(r"-?\d{1,19}", value) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 63 else None


def flag(value: object) -> bool | None:
    """True or false, where it is one."""
    return value if isinstance(value, bool) else None


def limit(value: object) -> Limit:
    """Docker's and Podman's: 0 is none, and so is -1 for swap."""
    told = number(value)
    return "max" if told is not None and told <= 0 else told


def quantity(value: object) -> Limit:
    """A Kubernetes quantity of memory: 64Mi, 1G, 67108864."""
    if value == "max":
        return "max"
    amount = re.fullmatch(r"(\d{1,18}(?:\.\d{1,9})?)([KMGTP]i|[kMGTP]?)", str(value))
    return int(float(amount[1]) * _UNITS[amount[2]]) if amount else None


def identifier(value: object) -> str | None:
    """A container's id without the runtime before it: docker://4f1c…"""
    told = text(value)
    return None if told is None else told.rpartition("://")[2]


def moment(value: object) -> Stamp | None:
    """A date of any manager; None for the year 1, with which Go says "never"."""
    said = text(value)
    if said is None or said.startswith("0001-"):
        return None
    kubectl = re.fullmatch(r"\w{3}, (\d\d) (\w{3}) (\d{4}) (\d\d:\d\d:\d\d [+-]\d{4})", said)
    if kubectl and kubectl[2] in _MONTHS:
        told = stamp(f"{kubectl[3]}-{_MONTHS.index(kubectl[2]) + 1:02}-{kubectl[1]} {kubectl[4]}")
        return replace(told, text=said)
    told = stamp(said)
    return told if told.text is not None else None


def unix_moment(value: object) -> Stamp | None:
    """Seconds since 1970."""
    seconds = number(value)
    return None if seconds is None else Stamp(text=str(seconds), wall_s=float(seconds), certain=True)


# `kubectl describe` names first what it is about; volumes have a "Name:" too, and no such key behind it.
_ABOUT = (
    r"(?m)^[ \t]*Name:[ \t]+(\S{1,253})[ \t]*(?=\n[ \t]*(?:Namespace|Roles?|Priority|Node|Labels):)"
    r"(?:\n[ \t]*Namespace:[ \t]+(\S{1,63})[ \t]*$)?"
)


class Described(NamedTuple):
    """A pod or a node that a text describes."""

    at: int  # where its description begins
    name: str
    namespace: str | None
    lines: range


def described(text: str) -> list[Described]:
    """All that `kubectl describe` describes in it."""
    found = list(numbered(re.finditer(_ABOUT, text), text))
    ends = [*(line for line, _ in found[1:]), text.count("\n") + 2]
    return [
        Described(match.start(), match[1], match[2], range(line, end))
        for (line, match), end in zip(found, ends, strict=False)  # where there is none, one end too many
    ]


def described_at(at: int, descriptions: list[Described]) -> Described | None:
    """In which of them that place of the text is."""
    above = bisect_left(descriptions, at, key=itemgetter(0))
    return descriptions[above - 1] if above else None


def numbered(matches: Iterable[re.Match[str]], text: str) -> Iterator[tuple[int, re.Match[str]]]:
    """Each with the number of the line it begins in, counted on from the one before."""
    number, at = 1, 0
    for match in matches:
        number += text.count("\n", at, match.start())
        at = match.start()
        yield number, match

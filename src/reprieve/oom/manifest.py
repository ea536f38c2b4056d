"""YAML of `kubectl get -o yaml` and `crictl inspect -o yaml` within a text → what its JSON would be.

People paste it whole, from the line they were interested in, indented as in a ticket, and with dots where they left
lines out.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from reprieve.oom.wrapped import ELISION

# A line that stands in no YAML but that of a status; where it stands the rest is looked for around it.
_STATUS = (
    r" *(?:- +)?(?:(?:containerStatuses|initContainerStatuses|lastState|state|terminated):|"
    r"reason: (?:Evicted|SystemOOM|OOMKilling|Killing)|state: CONTAINER_\w+)\s*$"
)
_KEY = r"( *(?:- +)*)[\w./-]+:(?: |$)"
# Nothing in them tells of an end, and most of a pod is of them: what is not there is parsed in no time.
_LEFT_OUT = (
    *("annotations", "managedFields", "args", "command", "env", "envFrom", "volumes", "volumeMounts"),
    *("tolerations", "affinity", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle", "runtimeSpec"),
    *("config", "mounts", "securityContext"),
)
_LEFT_OUT_KEY = rf"( *(?:- +)?)(?:{'|'.join(_LEFT_OUT)}):"
_ALIAS = r"(?:^|[\s\[,{:-])\*\S"  # no manager writes any, and of a few lines they make a text without end
_NOT_YAML = r"[^\t\n\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"
_MOST_LINES = 40_000  # that may tell of an end: forty MiB while they are parsed
_REPAIRS = 20  # lines that are no YAML, of those within
_AGAIN = 1 << 20  # characters, of a text, that are parsed in vain beyond twice: it costs seconds


def objects(text: str, unread: list[int]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each with the number of its first line. Scalars are text, as they stand there.

    `unread` is told the first line of each that is given up, as too much was parsed in vain.

    >>> list(objects("$ kubectl get pod web -o yaml\\n  lastState:\\n    terminated:\\n      exitCode: 137\\n", []))
    [(2, {'lastState': {'terminated': {'exitCode': '137'}}})]
    """
    lines = re.sub(_NOT_YAML, "\ufffd", text).split("\n")
    at, again = 0, _AGAIN
    for number, line in enumerate(lines):
        if number < at or re.match(_STATUS, line) is None:
            continue
        begin = _begin(lines, at, number)
        column = _column(lines[begin])
        end = _end(lines, begin, column)
        at = max(end, number + 1)  # it may end above: no line is looked at for each of those below
        value, again, given_up = _parse([line[column:] for line in _needed(lines[begin:end])], again)
        if isinstance(value, dict):
            yield begin + 1, value
        elif given_up:
            unread.append(begin + 1)


def _column(line: str) -> int:
    """Where its key stands, behind the dash of an item."""
    key = re.match(_KEY, line)
    return len(key[1]) if key is not None else len(line) - len(line.lstrip())


def _begin(lines: Sequence[str], first: int, at: int) -> int:
    """The line, from `first` on, where begins what the line at `at` is part of."""
    begin, column = at, _column(lines[at])
    for number in range(at - 1, first - 1, -1):
        line = lines[number]
        indent = len(line) - len(line.lstrip())
        if line.startswith("---"):
            break
        if indent > column or _is_left_out(line):
            continue
        key = re.match(_KEY, line)
        if key is None:
            if indent == column and line.lstrip().startswith("- "):  # an item of a list that its key does not stand in
                continue
            break
        if len(key[1]) <= column:
            begin, column = number, len(key[1])
    return begin


def _end(lines: Sequence[str], begin: int, column: int) -> int:
    """The line behind the last of it."""
    for number in range(begin + 1, len(lines)):
        line = lines[number]
        indent = len(line) - len(line.lstrip())
        if line.startswith("---") or (indent < column and not _is_left_out(line)):
            return number
    return len(lines)


def _is_left_out(line: str) -> bool:
    """Does it stand for lines that somebody left out, or say nothing?"""
    return re.fullmatch(ELISION, line.strip()) is not None


def _needed(lines: Sequence[str]) -> Iterator[str]:
    """Those that may tell of an end."""
    left_out: int | None = None
    for line in lines:
        indent = len(line) - len(line.lstrip())
        if left_out is not None:
            if not line.strip() or indent > left_out or (indent == left_out and line.lstrip().startswith("- ")):
                continue
            left_out = None
        key = re.match(_LEFT_OUT_KEY, line)
        if key is not None:
            left_out = len(key[1])
            if key[1].strip():  # the first key of an item: the item begins here all the same
                yield f"{key[1]}x:"
        elif not _is_left_out(line) and re.search(_ALIAS, line) is None:
            yield line


def _parse(lines: list[str], again: int) -> tuple[object, int, bool]:
    """None if that is no YAML, but for a few lines that somebody put in; how much may be parsed in vain still; and
    whether it was given up though there may be more in it."""
    import yaml

    if len(lines) > _MOST_LINES:
        return None, again, True
    loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)  # a twentieth of the time, where its library is
    for attempt in range(_REPAIRS):
        if attempt > 1 and again <= 0:  # one bad line is left out all the same: that is all of the text once more
            return None, again, True
        try:
            return yaml.load("\n".join(lines), Loader=loader), again, False
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            if mark is None or not lines:
                return None, again, False
            again -= mark.index if attempt > 1 else 0
            del lines[min(mark.line, len(lines) - 1)]
        except (yaml.YAMLError, RecursionError, ValueError):
            return None, again, False
    return None, again, True

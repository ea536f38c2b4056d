"""The task dump: dump_tasks() in mm/oom_kill.c. Rows are read by the header in the text, never by kernel version."""

import re
from collections.abc import Callable
from dataclasses import fields
from functools import cache
from operator import itemgetter
from typing import Any, NamedTuple

from reprieve.model.oom import Kill, Task

_FIELD = {  # the header's words that are ours; a column of any other name is kept by that name
    "uid": "uid",
    "tgid": "tgid",
    "total_vm": "total_vm_pages",
    "rss": "rss_pages",
    "rss_anon": "rss_anon_pages",
    "rss_file": "rss_file_pages",
    "rss_shmem": "rss_shmem_pages",
    "pgtables_bytes": "pgtables_bytes",
    "nr_ptes": "nr_ptes",
    "nr_pmds": "nr_pmds",
    "swapents": "swap_pages",
    "oom_adj": "oom_adj",
    "oom_score_adj": "oom_score_adj",
}
_HEADER = r"\s*\[\s*pid\s*\]\s+(uid\s+.*)"
_ROW = r"\s*\[\s*([0-9]{1,10})\]\s+([0-9].*)"
_FIGURE_WORD = r"-?[0-9]{1,20}"
_COMMON = ("uid", "tgid", "total_vm", "rss")  # every kernel's first columns


def parse_header(text: str) -> tuple[str, ...] | None:
    """The columns of a task table, `pid` first, as printed; None if it is another line."""
    match = re.match(_HEADER, text)
    return ("pid", *match[1].split()) if match else None


def parse_row(text: str, columns: tuple[str, ...] | None, *, line: int = 1, whole: bool = True) -> Task | None:
    """One row of the table under `columns`; None if it is another line. `whole` False: its last word may be cut.

    Without a header only the columns are read that every kernel prints first, and those its figures give away.
    """
    match = _compiled(_ROW).match(text)
    if match is None:
        return None
    pid, rest = match.groups()
    if columns is None:
        names, words = _guess(rest.split())
        layout = _layout(names)
    else:
        layout = _layout(columns)
        words = rest.split(None, layout.width)
    if not whole:
        words = words[:-1]
    comm = words.pop().rstrip() if len(words) > layout.width else None
    try:
        figures: list[int | None] = [*map(int, words)]  # of 4300 digits at most: sys.int_info
    except ValueError:  # damaged: no word of it is sure to be in its column
        return Task(line=line, pid=int(pid))
    figures += [None] * (layout.width - len(figures))
    others = layout.others and tuple((name, told) for name, at in layout.others if (told := figures[at]) is not None)
    values = layout.of_task((line, int(pid), comm, others, None, *figures))
    new: Any = _Unfrozen()
    new.line, new.pid, new.tgid, new.uid, new.comm, new.total_vm_pages, new.rss_pages, new.rss_anon_pages, *rest = (
        values
    )
    new.rss_file_pages, new.rss_shmem_pages, new.pgtables_bytes, new.nr_ptes, new.nr_pmds, new.swap_pages, *rest = rest
    new.oom_adj, new.oom_score_adj, new.others = rest
    new.__class__ = Task
    task: Task = new
    return task


class _Layout(NamedTuple):
    """What stands between the pid and the name."""

    width: int
    # The fields of the noun in its order, out of: line, pid, name, other columns, None for those not printed, figures.
    of_task: Callable[[tuple[Any, ...]], tuple[Any, ...]]
    others: tuple[tuple[str, int], ...]  # the columns that the noun does not know: the header's word, and which it is


@cache
def _layout(columns: tuple[str, ...]) -> _Layout:
    names = columns[1 if columns[0] == "pid" else 0 : -1 if columns[-1] == "name" else None]
    places = {"line": 0, "pid": 1, "comm": 2, "others": 3}
    places |= {_FIELD[name]: 5 + at for at, name in enumerate(names) if name in _FIELD}
    return _Layout(
        width=len(names),
        of_task=itemgetter(*(places.get(told.name, 4) for told in fields(Task))),
        others=tuple({name: at for at, name in enumerate(names) if name not in _FIELD}.items()),
    )


class _Unfrozen:
    """A task whose fields can be set: a frozen one is filled by a call for each, which takes five times as long."""

    __slots__ = tuple(told.name for told in fields(Task))


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def _guess(words: list[str]) -> tuple[tuple[str, ...], list[str]]:
    """Columns of a row whose header is lost. Three figures and a name after `rss` are page tables, swap and adj, if the
    first is whole KiB of bytes; anything else could be two things, and is left out."""
    count = next((i for i, word in enumerate(words) if not re.fullmatch(_FIGURE_WORD, word)), len(words))
    if count < len(_COMMON):
        return _COMMON, words[:count]
    if count == 7 and int(words[4]) >= 4096 and int(words[4]) % 1024 == 0:
        names: tuple[str, ...] = (*_COMMON, "pgtables_bytes", "swapents", "oom_score_adj")
    elif count == 10 and int(words[7]) >= 4096 and int(words[7]) % 1024 == 0:
        parts = ("rss_anon", "rss_file", "rss_shmem")
        names = (*_COMMON, *parts, "pgtables_bytes", "swapents", "oom_score_adj")
    else:
        name = " ".join(words[count:])
        return _COMMON, [*words[:4], name] if name else words[:4]
    return names, [*words[:count], " ".join(words[count:])] if words[count:] else words[:count]


# Printed by __oom_kill_process() in mm/oom_kill.c. 2.6 gives the name alone, or "vsz:"; RHEL 6 puts the UID before the
# name, RHEL 7 after it: so the pid comes first, then each further field on its own. A comm may hold ")" and blanks;
# each of its 15 bytes may be an escape of four characters.
_KILLED = (
    r"[\s*\-|•`]*(?P<lead>[^:]{0,60}: ?)?Killed process (?P<pid>[0-9]{1,10})(?=[\s,]|$)"
    r"(?:, UID (?P<uid>[0-9]{1,10}),)?(?: \((?P<comm>(?:\\x[0-9a-f]{2}|.){0,15})\)(?=[\s,.]|$))?"
)
_LEADS = ("out of memory", "memory cgroup out of memory", "no available memory")
_FIGURE = r"\b([a-z-]{1,20}):([0-9]{1,20})kB"


def parse_kill(text: str, *, line: int = 1, whole: bool = True, pgtables_bytes: int | None = None) -> Kill | None:
    """Read a "Killed process" line; None if it is another line, or ends before the pid. A field not told whole is None.

    `pgtables_bytes` is the victim's figure in the task dump; without it the printed unit is believed. Another program
    that quotes the line in its own is no kill: the kernel's begins with it, or with what ran out.

    >>> parse_kill("Killed process 7 (java) total-vm:9kB, UID:0 pgtables:40960kB oom", pgtables_bytes=40960)
    Kill(line=1, pid=7, comm='java', total_vm_bytes=9216, anon_rss_bytes=None, ..., pgtables_bytes=40960, uid=0, ...)
    """
    match = re.match(_KILLED, text)
    if match is None or (not whole and match.end("pid") == len(text)):
        return None
    lead = match["lead"]
    if lead is not None and not lead.lower().startswith(_LEADS):
        return None
    rest = text[match.end() :]
    printed = re.findall(_FIGURE, rest)  # a figure without its unit is cut: absent
    size = {name: int(kb) * 1024 for name, kb in reversed(printed)}  # the first counts: another line may be glued on
    # Linux 70cb6d267790 (v5.4) printed bytes here and called them kB, until 941f762bcb27 ("mm/oom: fix pgtables units
    # mismatch in Killed process message"). Both are backported: ask the task dump, not the version.
    if pgtables_bytes is not None and size.get("pgtables") == pgtables_bytes * 1024:
        size["pgtables"] = pgtables_bytes
    return Kill(
        line=line,
        pid=int(match["pid"]),
        comm=match["comm"] if whole or rest.strip() else None,
        total_vm_bytes=size.get("total-vm", size.get("vsz")),
        anon_rss_bytes=size.get("anon-rss"),
        file_rss_bytes=size.get("file-rss"),
        shmem_rss_bytes=size.get("shmem-rss"),
        pgtables_bytes=size.get("pgtables"),
        uid=int(match["uid"]) if match["uid"] else last_number(r"\bUID[: ]([0-9]{1,10})", rest, whole),
        oom_score_adj=last_number(r"\boom_score_adj:(-?[0-9]{1,6})", rest, whole),
    )


def last_number(pattern: str, text: str, whole: bool) -> int | None:
    """The number of that shape; None if there is none, or the text is cut right behind it."""
    match = re.search(pattern + r"(?=\D|$)", text)
    return int(match[1]) if match and (whole or match.end() < len(text)) else None

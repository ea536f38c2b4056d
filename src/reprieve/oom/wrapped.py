"""Messages that a mailer, a terminal or a paste broke in two, joined again."""

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

from reprieve.oom.line import Line

SOFT = "\ud800"  # a line of quoted-printable goes on in the next: half a character, which no text holds
# What people put where they left lines out, or around them; or nothing.
ELISION = (
    r"(?:\[?\.{2,8}\]?|…|<[a-z][a-z ,]{0,60}>|\*{1,3}[^*\n]{1,100}\*{1,3}|"
    r"\(\.{3}(?:[a-z]{1,12}\.{3})?\)|`{3}\w{0,12}|[-=]{2,80})?"
)
# A bare, wrapped line goes on if it begins with what never begins a message, behind what such a line may stand behind.
_GOES_ON = (
    *("gfp_mask=", "order=", "oom_score_adj", "total-vm:", "anon-rss:", "file-rss:", "shmem-rss:", "rss:", "UID:"),
    *("pgtables:", "swapents ", "pgtables_bytes ", "score ", "(", "name", "or sacrifice", "or a child"),
)
# What a break within it leaves of a word or a figure of a kill line, and what then goes on.
_CUT_WORD, _LONGEST_WORD = r"(?:total-vm|anon-rss|file-rss|shmem-rss|pgtables|oom_score_adj):", 14
_CUT_FIGURES = (
    (r"(?:-vm|-rss|pgtables|vsz):[0-9]*$", r"[0-9]*kB"),
    (r"process [0-9]+$", r"[0-9]+ \("),
    (r"(?:UID|oom_score_adj):-?[0-9]*$", r"-?[0-9]+(?: |$)"),
)
# What messages begin with: where a terminal broke lines, such a line is none's rest.
_BEGINS = (
    r"\s*(?:\[|Node |Memory |Out of |Killed |Mem-Info|lowmem_reserve|oom|Call Trace|CPU: |Hardware |Tasks? |\w+ swap |"
    r"\d+ pages|\S{1,15} (?:cpuset=|invoked ))"
)
# And what the kernel ends a report with: behind a stamp or without, it is none's rest.
_OF_THE_END = (
    r"(?:Memory cgroup out of memory|Out of memory): Kill|Killed process \d|oom-kill:c|Tasks in /|oom_reaper: reaped"
)
_STATISTIC = r"[a-z_]+ [0-9]+"  # a line of memory.stat, which is printed in one with those before
_DANGLING = (" score", " process", " killed", " as a", " result of", " limit of")  # no line ends so
_OPEN = r"oom-killer:|Killed process|ill process|\[\s*pid\s*\]"
_WRAP_WIDTH = 64  # mailers break between 72 and 80; below this a line was not broken for its length
_TERMINALS = range(40, 301)  # columns
# Of a text without stamps: so many lines at least, and one of so many, fill the width of a terminal; and fewer end
# within so many columns of it, as those that a mailer breaks do.
_FULL, _OF, _NEAR = 3, 16, 12
_WRAP_PARTS = 40  # physical lines of one message at most: a wrapped Mem-Info or `Modules linked in:` has a dozen


def unwrap(lines: Sequence[tuple[Line, int]]) -> Iterator[tuple[Line, int]]:
    """Join what a mailer, a terminal or a paste broke: a line without prefix that could not fit on the one before.

    Each message with the number of lines that it stood in.
    """
    widest = max((width for _, width in lines), default=0)
    keeps_all = _keeps_all(lines, widest)
    pending: Line | None = None
    broken_at = parts = 0  # width of the last physical line of `pending`, and how many it has
    for line, width in lines:
        if pending is not None and pending.text.endswith(SOFT) and parts < _WRAP_PARTS:
            pending = pending._replace(text=pending.text[:-1] + line.head + line.text, whole=line.whole)
            broken_at, parts = broken_at + width, parts + 1
            continue
        if pending is not None and not line.head and parts < _WRAP_PARTS:
            joined = _joined(pending, line, broken_at, full=broken_at == widest, keeps_all=keeps_all)
            if joined is not None:
                pending = pending._replace(text=joined, whole=line.whole)
                broken_at, parts = width, parts + 1
                continue
        if pending is not None:
            yield pending, parts
        if not line.head and line.text[:1] in (" ", "\t"):  # of a list, or code, in a text
            line = line._replace(text=line.text.lstrip(" \t"))
        pending, broken_at, parts = line, width, 1
    if pending is not None:
        yield pending._replace(text=pending.text.removesuffix(SOFT)), parts


def _keeps_all(lines: Sequence[tuple[Line, int]], widest: int) -> bool:
    """Were lines broken by a terminal, within words too, so that nothing is lost between two?

    Then what was broken is as wide as the widest, or ends with the blank that it was broken behind, which mailers drop.
    """
    if widest not in _TERMINALS:
        return False
    if not any(line.head for line, _ in lines):
        full = sum(width == widest for _, width in lines)
        near = sum(widest - _NEAR <= width < widest for _, width in lines)
        return full >= max(_FULL, len(lines) / _OF, near + 1)
    pairs = ((line, width, rest) for (line, width), (rest, _) in pairwise(lines) if not rest.head and rest.text.strip())
    broken = [(line, width) for line, width, rest in pairs if not re.fullmatch(_STATISTIC, rest.text)]
    kept = sum(width == widest or line.text.endswith(" ") for line, width in broken)
    return kept > 1 and kept * 4 >= len(broken) * 3


def _joined(pending: Line, line: Line, broken_at: int, *, full: bool, keeps_all: bool) -> str | None:
    """Both in one, if the second goes on with what the first began; None: it is a message of its own.

    `full`: the first is as wide as any of the text; `keeps_all`: of a terminal.
    """
    before, after = pending.text, line.text
    if keeps_all and pending.head:
        broken = full or before.endswith(" ")
    else:  # a line that names the constraint has no blanks, but for those of names
        broken = full and (keeps_all or "oom-kill:constraint=" in before) and not re.match(_BEGINS, after)
    if (broken and re.fullmatch(ELISION, after.strip()) is None) or _is_cut(before, after):
        return before + after
    if not _goes_on(pending, line, broken_at):
        return None
    joint = "" if before.endswith("-") or not before else " "
    if before.endswith("/") and re.match("[0-9a-f]{12}", after):
        joint = ""  # within a container's path
    return before.rstrip() + joint + after.lstrip()


def _is_cut(before: str, after: str) -> bool:
    """Was a word or a figure of a kill line broken in two?"""
    if "rocess " not in before and "-vm:" not in before:
        return False
    if any(re.match(rest, after) and re.search(begun, before) for begun, rest in _CUT_FIGURES):
        return True
    end, begin = before[-_LONGEST_WORD:], after[:_LONGEST_WORD]
    return any(word.start() < len(end) < word.end() for word in re.finditer(_CUT_WORD, end + begin))


def _goes_on(pending: Line, line: Line, broken_at: int) -> bool:
    text = line.text
    if pending.text.rstrip().endswith("Memory cgroup") and text.lstrip().startswith("out of memory: "):
        return True  # however short: read apart, the second would tell of the whole machine
    if pending.head:
        if not pending.text:  # `[ 1117.596510]` alone, and its message on the next line
            return not re.fullmatch(ELISION, text.strip())
        start = text.lstrip()
        quoted = pending.kernel is False or pending.text.rstrip().endswith(":")  # or broken behind what ran out
        if not quoted and re.match(_OF_THE_END, start):
            return False
        first_word = text[: len(text) - len(start)] + start.partition(" ")[0]
        return broken_at + 1 + len(first_word) > _WRAP_WIDTH and not re.fullmatch(ELISION, start.rstrip())
    if not 0 < broken_at <= 100:
        return False
    start = text.lstrip()
    if start.startswith("oom-killer:"):
        return pending.text.rstrip().endswith("invoked")
    if pending.text.startswith("Task in") and " limit of /" not in pending.text:
        return True
    if broken_at > _WRAP_WIDTH // 2 and pending.text.rstrip().endswith(_DANGLING):
        return True
    return start.startswith(_GOES_ON) and re.search(_OPEN, pending.text) is not None

"""Is a text a kernel log at all, and in order; and if not, what in it looks like an end for memory?

The former is asked only where no report was found: that a kernel log holds none is an answer; that an application's
does is not.
"""

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from reprieve.oom.line import Line
from reprieve.oom.lines import read_lines

_FALLS = 5  # of times: fewer may be chance
_TIMED = 16 << 10  # characters, of which the times are looked at
_ROW, _HEADER = r"\[ *\d{1,10}\] +\d", r"\[ *pid *\] +uid"
# Shapes that only the kernel's buffer is printed in, whoever wrote into it: /dev/kmsg, the journal's JSON and its
# export, forms of dmesg (--time-format, --decode, --raw without stamps, --json); the banner of a boot without stamps.
_SHAPES = (
    r'(?m)^\d{1,4},\d{1,20},\d{1,18},[^;,\s]{1,4}[,;]|"_TRANSPORT"\s?:\s?"kernel"|^\s*_TRANSPORT=kernel$'
    r"|^(?:\[<\s*\d+\.\d{6}>\]|\[\s*\+\d+\.\d{6}\]|\[[A-Z][a-z]{2}[ \d]\d \d\d:\d\d\]) "
    r"|^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d,\d{6}[+-]\d\d:\d\d |^[a-z]{1,8}\d? *:[a-z]{1,6} *: \["
    r'|^<[0-7]>\S|^\s*"dmesg": \[|^Linux version \d+\.\d'
)
# A stamp of printk's (that of the X server's log has three digits), the tag, dmesg -T.
_KERNELS_HEAD = (
    r"\[\s*\d+\.(?!\d{3}\])\d{1,9}\]|\d.*\skernel(?:\[\d+\])?(?::|\s+-)"
    r"|\[[A-Z][a-z]{2} [A-Z][a-z]{2} +\d+ \d\d:\d\d:\d\d \d{4}\]"
)


def is_kernel_log(text: str, *, whole: bool = True) -> bool:
    """Has any line of it the shape in which the kernel's words are kept?

    Not `whole`: what systemd writes to stands there too, and may be rare in a long one.

    >>> is_kernel_log("Nov 23 14:08:41 lab kernel: usb 1-1: new device\\n"), is_kernel_log("root:x:0:0:root:/root\\n")
    (True, False)
    """
    if re.search(_SHAPES, text) is not None or (not whole and " systemd[1]: " in text):
        return True
    return any(map(_is_of_kernel, read_lines(text)))


def is_newest_first(text: str) -> bool:
    """Do its lines stand the other way round, as in exports that begin with the newest?

    The times of most of them fall; or, where all are of one second, the head of a task table stands below its rows.

    >>> is_newest_first("".join(f"[{at:5d}.000001] usb 1-1: reset\\n" for at in range(9, 0, -1)))
    True
    """
    times = re.findall(r"\[ *(\d{1,8}\.\d{6})\]", text[:_TIMED]) or re.findall(r"\b\d\d:\d\d:\d\d\b", text[:_TIMED])
    steps = [later.rjust(16) > earlier.rjust(16) for earlier, later in pairwise(times) if earlier != later]
    if len(steps) >= _FALLS:
        return sum(steps) * 20 < len(steps) and len(times) * 2 > text.count("\n", 0, _TIMED)
    lines = text.split("\n") if "pid" in text else []
    around = zip(lines, lines[1:], lines[2:], strict=False)
    heads = [(above, below) for above, line, below in around if re.search(_HEADER, line)]
    if any(re.search(_ROW, below) for _, below in heads):  # another was cut behind its head, or stands among others
        return False
    return any(re.search(_ROW, above) for above, _ in heads)


def is_of_programs(text: str) -> bool:
    """Has any line of it the head of a system log, and the tag of another than the kernel?

    >>> is_of_programs("Nov 23 14:08:41 lab sshd[7]: session closed\\n"), is_of_programs("root:x:0:0:root:/root\\n")
    (True, False)
    """
    return any(line.kernel is False for line in read_lines(text))


def _is_of_kernel(line: Line) -> bool:
    return line.kernel or (line.kernel is None and re.search(_KERNELS_HEAD, line.head) is not None)


class Sign(NamedTuple):
    """What looks like an end for memory and is none that a kernel log tells of."""

    line: int
    words: str  # as they stand there
    means: str


_SENDERS = (
    "the kernel for memory, `docker stop` or `kill`, a kubelet, a time limit, a person, or a daemon such as earlyoom "
    "or nohang"
)
SIGKILL_TELLS = f"SIGKILL, whoever sent it: {_SENDERS}"
_JVM = (
    "Java heap space|GC overhead limit exceeded|Metaspace|Direct buffer memory|unable to create (?:new )?native thread"
)
_SIGNS = (  # what they match is shown: no more than words that are spelled out here
    (
        rf"java\.lang\.OutOfMemoryError(?:: (?:{_JVM}))?",
        "thrown by the JVM itself, at a limit of its own; it is no kill",
    ),
    (r"There is insufficient memory for the Java Runtime", "the kernel refused the JVM memory; it is no kill"),
    (r"JavaScript heap out of memory", "Node.js ended itself, at the limit of its heap; it is no kill"),
    (r"^(?:\w+\.)?MemoryError\b", "Python was refused memory; it is no kill"),
    (r"std::bad_alloc|[Cc]annot allocate memory|ENOMEM", "a program was refused memory; it is no kill"),
    (r"fatal error: (?:runtime: )?(?:out of memory|cannot allocate memory)", "Go ended itself; it is no kill"),
)
_MAKE = r"\bmake(?:\[\d{1,4}\])?: \*{3} \[[^\]\n]{1,300}\] "
_SIGKILL = (  # by a status, by its name; by shells (jobs of bash, and zsh's), make, GCC since 10 and before, systemd
    r"(?i:\bexit(?:ed)?(?:[ _-]?(?:code|status|with|value))*[ :=\"]{0,3}\(?137\b)",
    r"(?i:\bsignal(?:[ :=]|\()+(?:9\b|killed\b|sigkill\b)|\bSIGKILL\b)",
    r"^(?:.*: line \d+: +\d+ +|\[\d{1,4}\][ +-]*)?(Killed)(?: {2}|\s*$)",
    r"^(?:zsh: |\[\d{1,4}\][ +-]* \d+ )(killed)(?: {2}|\s*$)",
    rf"{_MAKE}(Error 137)\s*$",
    rf"{_MAKE}(Killed)\s*$",
    r"\b(errno 137)\s*$",
    r"\bfatal error: (Killed signal terminated program)\b",
    r"\binternal compiler error: (Killed) \(program\b",
    r"\b(code=killed, status=9/KILL)\b",
)


# As a status says it, and no sentence: `"OOMKilled": true`, `reason: OOMKilled`, `OOMKilled=true`.
_OOM_KILLED = (
    r"[\"'“]?OOMKilled[\"'”]?\s?[:=]\s?[\"']?(?i:true)\b"
    r"|\berror: (Detected \d{1,6} oom[_-]kill events?)\b"  # of slurmstepd, in its job's cgroup
    r"|[\"'“]?[Rr]eason[\"'”]?[ \t]?[:=][ \t]{0,20}[\"'“]?OOMKilled\b[\"'”]?"
)
BY_OOM = "its manager's word that the kernel killed a process of it for memory"


def oom_killed(text: str) -> Sign | None:
    """The first word of a manager for an OOM kill, in a part of a status of which nothing else can be read.

    >>> oom_killed('  "OOMKilled": true,'), oom_killed('  "OOMKilled": false,')
    (Sign(line=1, words='"OOMKilled": true', means=...), None)
    """
    found = re.search(_OOM_KILLED, text)
    return None if found is None else _sign(text, found, BY_OOM)


# Parts of the kernel's report that prove a kill, or that memory ran out, and are too little to tell of it.
_REMAINS = (
    r"oom_reaper: reaped process \d{1,10}|Killed process \d{0,10}"
    r"|Tasks state \(memory values in pages\)|\[ *pid *\] +uid"
)
OF_A_REPORT = "of the kernel's report of an OOM, whose other lines are not here, or could not be read"


def remains(text: str) -> Sign | None:
    """The first of what is left of a report, in a kernel log in which none was found; what programs say is none.

    >>> remains("[    9.1] oom_reaper: reaped process 7 (sh), now anon-rss:0kB\\n")
    Sign(line=1, words='oom_reaper: reaped process 7', means=...)
    """
    for line in read_lines(text):
        if line.kernel is not False and (found := re.search(_REMAINS, line.text)) is not None:
            return Sign(line.number, found[0], OF_A_REPORT)
    return None


def signs(text: str) -> Iterator[Sign]:
    """The first of each kind: a signal 9 is one, by whatever name."""
    for pattern, means in _SIGNS:
        found = re.search(pattern, text, re.MULTILINE)
        if found is not None:
            yield _sign(text, found, means)
    ends = [found for pattern in _SIGKILL if (found := re.search(pattern, text, re.MULTILINE)) is not None]
    if ends:
        sign = _sign(text, min(ends, key=re.Match.start), SIGKILL_TELLS)
        yield sign._replace(means=f"sent by {_SENDERS}") if "SIGKILL" in sign.words.upper() else sign


def _sign(text: str, found: re.Match[str], means: str) -> Sign:
    return Sign(text.count("\n", 0, found.start()) + 1, found[found.lastindex or 0].strip(), means)

"""Where each process stands, in the kernel's own figures: the cheapest look at all of them that tells who is largest.

Two files of each, and nothing made of them but numbers: some 25 µs a process, most of it the kernel's work. The exact
choice, which `next` foretells, takes five.
"""

import os
from typing import NamedTuple

from reprieve.machine.proc import Problems, note, tell
from reprieve.model.finding import Gap


class Standing(NamedTuple):
    """A process, as the kernel counts it."""

    pid: int
    oom_score: int  # its share of all memory and swap, with its oom_score_adj; 0 too if it is never chosen
    rss_pages: int  # of statm, which since v6.17 adds up what each processor keeps to itself; 0: it has no memory


def read_standings(gaps: list[Gap], proc: str = "/proc") -> list[Standing]:
    """All processes of this machine that can be seen, in the order of /proc; who exits meanwhile is left out.

    No start time is read: before anything is done to one of them, `read_processes` must tell that it is the same.
    """
    opened, read, close = os.open, os.read, os.close  # each is asked for thousands of times
    problems: Problems = {}
    found = []
    folder = opened(proc, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for pid in os.listdir(folder):
            if not pid.isdecimal():
                continue
            file = "oom_score"
            try:
                descriptor = opened(f"{pid}/oom_score", _FLAGS, dir_fd=folder)
                try:
                    score = int(read(descriptor, _BYTES))
                finally:
                    close(descriptor)
                file = "statm"
                descriptor = opened(f"{pid}/statm", _FLAGS, dir_fd=folder)
                try:
                    rss_pages = int(read(descriptor, _BYTES).split(b" ", 2)[1])
                finally:
                    close(descriptor)
            except (FileNotFoundError, ProcessLookupError):
                continue
            except OSError as error:
                reason = (error.strerror or str(error)).lower()
                note(problems, file, reason, int(pid), isinstance(error, PermissionError))
            except (ValueError, IndexError):
                note(problems, file, "it is not as any known kernel writes it", int(pid))
            else:
                found.append(Standing(int(pid), score, rss_pages))
    finally:
        close(folder)
    tell(problems, gaps)
    return found


_BYTES = 256  # statm has seven numbers
_FLAGS = os.O_RDONLY | os.O_CLOEXEC

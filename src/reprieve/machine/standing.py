"""Where each process stands, in the kernel's own figures: the cheapest look at all of them that tells who is largest.

Two files of each, and nothing made of them but numbers: some 25 µs a process, most of it the kernel's work. The exact
choice, which `next` foretells, takes five.
"""

import os
from typing import NamedTuple

from reprieve.machine.host import Host
from reprieve.machine.proc import Problems, list_pids, note, tell
from reprieve.model.finding import Gap


class Standing(NamedTuple):
    """A process, as the kernel counts it."""

    pid: int
    oom_score: int  # its share of all memory and swap, with its oom_score_adj; 0 too if it is never chosen
    rss_pages: int  # of statm, which since v6.17 adds up what each processor keeps to itself; 0: it has no memory


def read_standings(host: Host, gaps: list[Gap]) -> list[Standing]:
    """All processes that can be seen, in the order of /proc; who exits meanwhile is left out.

    No start time is read: before anything is done to one of them, `read_processes` must tell that it is the same.
    """
    problems: Problems = {}
    found = []
    for pid in list_pids(host, gaps):
        file = "oom_score"
        try:
            score = int(_read(host.at(f"/proc/{pid}/oom_score")))
            file = "statm"
            rss_pages = int(_read(host.at(f"/proc/{pid}/statm")).split(b" ", 2)[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        except OSError as error:
            note(problems, file, (error.strerror or str(error)).lower(), pid, isinstance(error, PermissionError))
        except (ValueError, IndexError):
            note(problems, file, "it is not as any known kernel writes it", pid)
        else:
            found.append(Standing(pid, score, rss_pages))
    tell(problems, gaps)
    return found


def _read(path: str) -> bytes:
    descriptor = os.open(path, _FLAGS)
    try:
        return os.read(descriptor, _BYTES)
    finally:
        os.close(descriptor)


_BYTES = 256  # statm has seven numbers
_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

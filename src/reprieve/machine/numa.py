"""To which memory nodes a process has bound itself: by a memory policy, as numactl --membind sets one."""

import re
from collections.abc import Sequence
from dataclasses import replace

from reprieve.machine.host import Host
from reprieve.machine.proc import Problems, note, tell
from reprieve.model.finding import Gap
from reprieve.model.process import Process

_MOST_ASKED = 512  # those that hold most, at some 10 µs each
_LINE_BYTES = 80  # the kernel counts the pages of one more mapping for each line that it has room for
_QUICKLY_BYTES = 64 << 20  # a mapping whose pages are counted in no time; a heap of 20 GiB may be the first, too
_BOUND = rb"[0-9a-f]{1,16} bind[a-z=|]{0,24}:([0-9,-]{1,40}) "


def note_policies(host: Host, processes: Sequence[Process], gaps: list[Gap]) -> list[Process]:
    """The same processes, those that a policy of their own keeps to some nodes with `bound_to`.

    show_numa_map() in fs/proc/task_mmu.c: a mapping for which nobody has set another policy has that of its process, so
    the first line of numa_maps is asked for alone.
    """
    problems: Problems = {}
    bound: dict[int, str] = {}
    for process in sorted(processes, key=lambda one: one.rss_bytes or 0, reverse=True)[:_MOST_ASKED]:
        if process.kernel_thread or not process.rss_bytes:
            continue
        folder = f"/proc/{process.pid}"
        try:
            if host.root or _length(host.read(f"{folder}/maps", _LINE_BYTES)) <= _QUICKLY_BYTES:
                policy = re.match(_BOUND, host.read(f"{folder}/numa_maps", _LINE_BYTES))
                if policy is not None:
                    bound[process.pid] = policy[1].decode()
        except (FileNotFoundError, ProcessLookupError):  # it has exited, or this kernel has no nodes
            continue
        except OSError as error:
            reason, refused = (error.strerror or str(error)).lower(), isinstance(error, PermissionError)
            note(problems, "numa_maps", reason, process.pid, refused)
    tell(problems, gaps)
    return [replace(one, bound_to=bound[one.pid]) if one.pid in bound else one for one in processes]


def _length(line: bytes) -> int:
    """Of the mapping that a line of maps is about, in bytes; 0 where it is none."""
    found = re.match(rb"([0-9a-f]{1,16})-([0-9a-f]{1,16}) ", line)
    return int(found[2], 16) - int(found[1], 16) if found else 0

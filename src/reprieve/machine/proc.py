"""The processes of a machine, as /proc tells of them: each with what the OOM killer weighs.

The kernel's work is what costs, 4 to 12 µs a file: so a file is opened, read once and closed by the system calls
alone, and whoever is in a hurry names the files wanted.
"""

import os
import re
import time
from collections import Counter
from collections.abc import Callable, Container, Iterable
from dataclasses import replace
from functools import lru_cache
from operator import itemgetter
from typing import NamedTuple

from reprieve.machine.host import Host
from reprieve.machine.memory import number, read_mounts
from reprieve.model.finding import Gap
from reprieve.model.process import Process

FILES = ("status", "oom_score_adj", "oom_score", "cgroup")

# To add up a process takes 6 to 11 ms a GiB of small pages, with its memory map locked for reading: a larger one is not
# asked. How many of its pages are huge, and would cost nothing, only the same file tells.
UNIQUE_MOST_BYTES = 3 * 1024**3 // 2


def read_processes(
    host: Host,
    gaps: list[Gap],
    *,
    files: Container[str] = FILES,
    pids: Iterable[int] | None = None,
    page_bytes: int | None = None,
) -> list[Process]:
    """All processes that can be seen, or those named, in the order of /proc.

    Of each its `stat` is read, which tells who it is, and of `files` what is wanted beside. `page_bytes` is the
    machine's page size, in which `stat` counts: without it `rss_bytes` is that of "status". A process that exits
    meanwhile is left out. What is refused or damaged is told once for all, and a hidepid that hides processes from us.
    """
    problems: Problems = {}
    if pids is None:
        pids = list_pids(host, gaps)
        _tell_hidden(host, gaps)
    processes = []
    for pid in pids:
        try:
            process = _read_process(host, pid, files, page_bytes, problems)
        except ProcessLookupError:
            continue
        if process is not None:
            processes.append(process)
    tell(problems, gaps)
    return processes


def measure_unique(
    host: Host,
    processes: list[Process],
    gaps: list[Gap],
    *,
    budget_s: float = 0.1,
    clock: Callable[[], float] = time.monotonic,
) -> list[Process]:
    """The same processes, the largest with what is theirs alone and their share of the rest, until the time is spent.

    Of smaps_rollup (since 4.14), which is for root and the owner. One measured last may overrun by some 15 ms. Who is
    refused is a note, as all else is known of him; but of several children of one parent nobody can say how large they
    may become together.
    """
    problems: Problems = {}
    measured: dict[int, Process] = {}
    end = clock() + budget_s
    for process in sorted(processes, key=_held_bytes, reverse=True):
        if not 0 < _held_bytes(process) <= UNIQUE_MOST_BYTES:
            continue
        if clock() >= end:
            break
        try:
            text = _read(host, process.pid, "smaps_rollup", problems)
            stat = parse_stat(_read(host, process.pid, "stat", problems) or "")
        except ProcessLookupError:
            continue
        if text is None or stat is None or stat.start_ticks != process.start_ticks:
            continue
        pss, clean, dirty = (_bytes(text, key) for key in ("Pss", "Private_Clean", "Private_Dirty"))
        if pss is None or clean is None or dirty is None:
            note(problems, "smaps_rollup", _ODD, process.pid)
        else:
            measured[process.pid] = replace(process, pss_bytes=pss, unique_bytes=clean + dirty)
    unseen = {pid for pids in problems.values() for pid in pids}
    kin = Counter((one.ppid, one.comm) for one in processes if one.pid in unseen)
    tell(problems, gaps, hides=any(count > 1 for count in kin.values()))
    return [measured.get(process.pid, process) for process in processes]


class Glance(NamedTuple):
    """What tells, at the price of one file, whether a process has to be read again."""

    text: bytes  # its stat, whole: the same again means that it did nothing and nothing was taken from it
    start_ticks: int
    comm: str
    zombie: bool
    rss_pages: int
    headless: bool  # what others of its threads hold is not in this file


def glance(host: Host, pid: int, earlier: Glance | None) -> Glance | None:
    """The stat of a process now, `earlier` itself if it did not change; None: it has exited, or cannot be read."""
    try:
        descriptor = os.open(host.at(f"/proc/{pid}/stat"), _FLAGS)
        try:
            text = os.read(descriptor, _ONCE_BYTES)
        finally:
            os.close(descriptor)
    except OSError:  # why, the first look at all of it has told
        return None
    if earlier is not None and text == earlier.text and not earlier.headless:
        return earlier
    stat = parse_stat(text.decode(errors="backslashreplace"))
    if stat is None:
        return None
    return Glance(text, stat.start_ticks, stat.comm, stat.state in ("Z", "X"), stat.rss_pages, _is_headless(stat))


# -- one process -------------------------------------------------------------------------------------------------------


class Stat(NamedTuple):
    """The fields of stat that we want."""

    comm: str
    state: str
    ppid: int
    kernel_thread: bool
    threads: int
    start_ticks: int
    rss_pages: int


class _Status(NamedTuple):
    """The lines of status that we want; those of memory are absent of who has none, a kernel thread or a zombie."""

    uid: int | None = None
    rss_bytes: int | None = None
    rss_anon_bytes: int | None = None
    rss_file_bytes: int | None = None
    rss_shmem_bytes: int | None = None
    swap_bytes: int | None = None
    pgtables_bytes: int | None = None
    locked_bytes: int | None = None
    hugetlb_bytes: int | None = None
    ns_pids: tuple[int, ...] = ()
    mems_allowed: str | None = None


_NO_STATUS = _Status()
_PF_KTHREAD = 0x00200000  # oom_unkillable_task() asks it too


def _read_process(
    host: Host, pid: int, files: Container[str], page_bytes: int | None, problems: "Problems"
) -> Process | None:
    """None: nobody we can tell of. Raises ProcessLookupError: it has exited."""
    text = _read(host, pid, "stat", problems)
    if text is None:
        return None
    stat = parse_stat(text)
    if stat is None:
        note(problems, "stat", _ODD, pid)
        return None
    status, adj, score, cgroup = _NO_STATUS, None, None, None
    if "status" in files and (text := _read(host, pid, "status", problems)) is not None:
        status = _parse_status(text) or _NO_STATUS
        if status is _NO_STATUS:
            note(problems, "status", _ODD, pid)
    thread = None
    if _is_headless(stat) and (living := _living_thread(host, pid, problems)) is not None:
        thread, lives = living
        stat = stat._replace(state=lives.state, rss_pages=lives.rss_pages)
        if "status" in files and (text := _read(host, pid, f"task/{thread}/status", problems)) is not None:
            status = (_parse_status(text) or _NO_STATUS)._replace(uid=status.uid, ns_pids=status.ns_pids)
    if "oom_score_adj" in files and (text := _read(host, pid, "oom_score_adj", problems)) is not None:
        adj = _signed(text)
        if adj is None or not -1000 <= adj <= 1000:
            adj = None
            note(problems, "oom_score_adj", _ODD, pid)
    if "oom_score" in files and (text := _read(host, pid, "oom_score", problems)) is not None:
        score = _signed(text)
        if score is None:
            note(problems, "oom_score", _ODD, pid)
    if "cgroup" in files and (text := _read(host, pid, "cgroup", problems)) is not None:
        cgroup, known = _parse_cgroup(text)
        if not known:
            note(problems, "cgroup", _ODD, pid)
    unseen = thread is None and _is_headless(stat)  # a captured machine has no threads
    return Process(
        pid=pid,
        living_thread=thread,
        start_ticks=stat.start_ticks,
        ppid=stat.ppid,
        comm=stat.comm,
        uid=status.uid,
        threads=stat.threads,
        state=stat.state,
        kernel_thread=stat.kernel_thread,
        oom_score_adj=adj,
        oom_score=score,
        rss_bytes=None if unseen else status.rss_bytes if page_bytes is None else stat.rss_pages * page_bytes,
        rss_anon_bytes=status.rss_anon_bytes,
        rss_file_bytes=status.rss_file_bytes,
        rss_shmem_bytes=status.rss_shmem_bytes,
        swap_bytes=status.swap_bytes,
        pgtables_bytes=status.pgtables_bytes,
        locked_bytes=status.locked_bytes,
        hugetlb_bytes=status.hugetlb_bytes,
        cgroup=cgroup,
        ns_pids=status.ns_pids,
        mems_allowed=status.mems_allowed,
    )


def _is_headless(stat: Stat) -> bool:
    """Has its first thread exited while others go on? Its own files tell of no memory then.

    The killer weighs whatever thread still has the memory: find_lock_task_mm() in mm/oom_kill.c.
    """
    return stat.state in ("Z", "X") and stat.threads > 1 and not stat.kernel_thread


def _living_thread(host: Host, pid: int, problems: "Problems") -> tuple[int, Stat] | None:
    """The first thread that goes on, which the kernel takes too, and its stat; None: none is seen."""
    try:
        names = host.names(f"/proc/{pid}/task")
    except (FileNotFoundError, NotADirectoryError, ProcessLookupError, PermissionError):
        return None
    for name in filter(_is_pid, names):
        try:
            stat = parse_stat(_read(host, pid, f"task/{name}/stat", problems) or "")
        except ProcessLookupError:  # this thread has exited
            continue
        if stat is not None and stat.state not in ("Z", "X"):
            return int(name), stat
    return None


_WANTED = itemgetter(1, 6, 17, 19, 21)  # of what follows the comm: ppid, flags, num_threads, starttime, rss


def parse_stat(text: str) -> Stat | None:
    """do_task_stat() in fs/proc/array.c. The comm may hold ") R 1" and newlines: what follows the last ")" is ours."""
    opened, closed = text.find(" ("), text.rfind(") ")
    fields = text[closed + 2 :].split(maxsplit=22)
    if opened < 1 or closed < opened or len(fields) < 22:
        return None
    told = _WANTED(fields)
    digits = "".join(told)
    if not (digits.isascii() and digits.isdigit()) or max(map(len, told)) > 18:  # as `number` has it, of all at once
        return None
    ppid, flags, threads, start, rss = map(int, told)
    if rss >= 1 << 47:  # 2^63 bytes: no machine's, and no JSON reader's
        return None
    return Stat(
        comm=text[opened + 2 : closed],
        state=fields[0],
        ppid=ppid,
        kernel_thread=bool(flags & _PF_KTHREAD),
        threads=threads,
        start_ticks=start,
        rss_pages=rss,
    )


def _parse_status(text: str) -> _Status | None:
    """proc_pid_status() in fs/proc/array.c and task_mem() in fs/proc/task_mmu.c; None: not as they write.

    These are the counters that oom_badness() adds up: VmSwap is MM_SWAPENTS, VmPTE is mm_pgtables_bytes(). Since
    f1a7941243c1 ("mm: convert mm's rss stats into percpu_counter", v6.2) each CPU keeps a part of them to itself. The
    killer reads them without those parts, and so does stat; status did until 82241a83cd15 ("mm: fix the inaccurate
    memory statistics issue for users", v6.17), and adds them up since.
    """
    if not text.startswith("Name:\t"):
        return None
    uids = (_line(text, "Uid") or "").split()
    pids = (_line(text, "NSpid") or "").split()
    uid = number(uids[1]) if len(uids) == 4 else None
    ns_pids = tuple(pid for pid in map(number, pids) if pid is not None)
    sizes = [_bytes(text, key) for key in _SIZES]
    if (
        uid is None
        or len(ns_pids) != len(pids)
        or any(size is None and f"\n{key}:" in text for key, size in zip(_SIZES, sizes, strict=True))
    ):
        return None
    rss, anon, file, shmem, swap, locked, hugetlb, ptes, pmds = sizes
    return _Status(
        uid=uid,
        rss_bytes=rss,
        rss_anon_bytes=anon,
        rss_file_bytes=file,
        rss_shmem_bytes=shmem,
        swap_bytes=swap,
        # Until af5b0f6a09e4 ("mm: consolidate page table accounting", v4.15) VmPTE was the lowest level alone and
        # VmPMD, since 4.0, the next: the killer counted both.
        pgtables_bytes=None if ptes is None else ptes + (pmds or 0),
        locked_bytes=locked,
        hugetlb_bytes=hugetlb,
        ns_pids=ns_pids,
        mems_allowed=_line(text, "Mems_allowed_list"),
    )


_SIZES = ("VmRSS", "RssAnon", "RssFile", "RssShmem", "VmSwap", "VmLck", "HugetlbPages", "VmPTE", "VmPMD")


@lru_cache(maxsize=256)  # neighbours are mostly of one group
def _parse_cgroup(text: str) -> tuple[str | None, bool]:
    """The path in the hierarchy that counts memory, None if there is none; and whether all lines were understood.

    proc_cgroup_show() in kernel/cgroup/cgroup.c. Version 1 names its controllers; version 2 is hierarchy 0, and has
    those that version 1 has not. A group that was removed under a process still in it is said to be deleted.
    """
    memory: str | None = None
    unified: str | None = None
    known = True
    for line in text.split("\n")[:-1]:
        hierarchy, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not hierarchy.isdigit() or not path.startswith("/"):
            known = False
        elif hierarchy == "0":
            unified = path
        elif "memory" in controllers.split(","):
            memory = path
    found = unified if memory is None else memory
    return None if found is None else found.removesuffix(" (deleted)"), known


def _held_bytes(process: Process) -> int:
    return process.rss_bytes or 0


def _line(text: str, key: str) -> str | None:
    """What stands behind a key. None of a process' own making: its name comes first, with newlines written `\\n`."""
    start = text.find(f"\n{key}:")
    return None if start < 0 else text[start + len(key) + 2 : text.index("\n", start + 1)].strip()


def _bytes(text: str, key: str) -> int | None:
    """A size in kB, as bytes; None if it is absent, or no size."""
    value = _line(text, key)
    if value is None or not value.endswith(" kB"):
        return None
    kib = number(value[:-3])
    return None if kib is None or kib >= 1 << 52 else kib * 1024


def _signed(text: str) -> int | None:
    value = number(text.removeprefix("-")[:-1])
    return value if value is None or not text.startswith("-") else -value


# -- files, and what goes wrong with them ------------------------------------------------------------------------------

Problems = dict[tuple[str, str, bool], list[int]]  # file, reason, whether root could: the processes it was so for
_ODD = "it is not as any known kernel writes it"
_ONCE_BYTES = 4096
_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def list_pids(host: Host, gaps: list[Gap]) -> list[int]:
    """The processes that can be seen, in the order of /proc."""
    try:
        names = host.names("/proc")
    except OSError as error:
        gaps.append(Gap(place="/proc", reason=(error.strerror or str(error)).lower()))
        return []
    return [int(name) for name in names if _is_pid(name)]


def _is_pid(name: str) -> bool:
    """A captured root may hold other names."""
    return len(name) <= 10 and name.isascii() and name.isdigit()


def _read(host: Host, pid: int, file: str, problems: Problems) -> str | None:
    """A file of a process; None if there is no such file, or nothing in it that can be used.

    Raises ProcessLookupError: the process has exited.
    """
    path = f"/proc/{pid}/{file}"
    try:
        descriptor = os.open(host.at(path), _FLAGS)
        try:
            data = os.read(descriptor, _ONCE_BYTES)  # these files come whole, if there is room
        finally:
            os.close(descriptor)
        if len(data) == _ONCE_BYTES:
            data = host.read(path)
    except ProcessLookupError:
        raise
    except (FileNotFoundError, NotADirectoryError):
        if os.path.lexists(f"{host.root}/proc/{pid}"):
            return None
        raise ProcessLookupError(pid) from None
    except OSError as error:
        note(problems, file, (error.strerror or str(error)).lower(), pid, isinstance(error, PermissionError))
        return None
    if not data.endswith(b"\n"):  # cut: its last figure may be too
        note(problems, file, _ODD, pid)
        return None
    return data.decode(errors="backslashreplace")


def note(problems: Problems, file: str, reason: str, pid: int, refused: bool = False) -> None:
    """Keep in mind that this file of a process was of no use, and why."""
    problems.setdefault((file, reason, refused), []).append(pid)


def tell(problems: Problems, gaps: list[Gap], *, hides: bool = True) -> None:
    """One gap for each file and reason."""
    hint = "run it as root" if os.geteuid() else None  # root can be refused too, where it lacks a capability
    for (file, reason, refused), pids in problems.items():
        if len(pids) == 1:
            place, of = f"/proc/{pids[0]}/{file}", ""
        else:
            place, of = f"/proc/*/{file}", f"of {len(pids)} processes: "
        gaps.append(Gap(place=place, reason=of + reason, hint=hint if refused else None, hides=hides))


def _tell_hidden(host: Host, gaps: list[Gap]) -> None:
    """Who is hidden leaves no trace: only the mount option tells that there may be some.

    has_pid_permissions() in fs/proc/base.c: who is in the group of the option `gid`, or in group 0 without one, and who
    may trace a process, see it all the same.
    """
    told: list[Gap] = []
    options = next((mount.options for mount in reversed(read_mounts(host, told)) if mount.path == "/proc"), "")
    gaps.extend(gap for gap in told if gap not in gaps)
    hides = re.search(r"(?:^|,)hidepid=(2|4|invisible|ptraceable)(?:,|$)", options)
    if hides is None:
        return
    own = host.text("/proc/self/status", gaps) or ""
    group = re.search(r"(?:^|,)gid=([0-9]+)", options)
    groups = f"{_line(own, 'Gid') or ''} {_line(own, 'Groups') or ''}".split()
    capabilities = re.search(r"\nCapEff:\t([0-9a-f]{16})\n", own)
    if capabilities and int(capabilities[1], 16) >> _CAP_SYS_PTRACE & 1:
        return
    if hides[1] in ("2", "invisible") and (group[1] if group else "0") in groups:
        return
    gaps.append(
        Gap(
            place="/proc",
            reason=f"mounted with hidepid={hides[1]}: processes of others are hidden",
            hint="run it as root",
        )
    )


_CAP_SYS_PTRACE = 19

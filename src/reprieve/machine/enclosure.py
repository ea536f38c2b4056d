"""A memory cgroup around one command: made where this process may, with its limits read back, told of, removed.

Little is imported: what is loaded here is waited for before each command.
"""

import os
from collections.abc import Iterator
from itertools import count
from time import monotonic, sleep
from typing import NamedTuple

from reprieve.machine.warden import empty, end_group, kill_group, members, remove
from reprieve.model.run import Bounds, Use, is_own

_MADE = count(1)
_ABOUT_TO_END_S = 0.2  # `yes | head`: the first of the two ends behind the second
_LARGEST = 1 << 60  # what version 1 tells of a group without a limit is above that


class Hierarchy(NamedTuple):
    """Where the memory controller is, and where this process is in it."""

    version: int
    mount: str
    root: str  # the path of what is mounted there
    own: str  # the path of this process's group

    def folder(self, path: str) -> str | None:
        """Where the group of that path is; None: what is mounted does not show it."""
        below = path[len(self.root.rstrip("/")) :] if (path + "/").startswith(self.root.rstrip("/") + "/") else None
        return None if below is None or ".." in below.split("/") else (self.mount + below).rstrip("/")


class Enclosure:
    """A group with a command in it."""

    def __init__(self, hierarchy: Hierarchy, folder: str) -> None:
        self.version = hierarchy.version
        self.folder = folder
        self.path = hierarchy.root.rstrip("/") + folder[len(hierarchy.mount) :]
        self.refused: list[str] = []

    def limit(self, bounds: Bounds) -> None:
        """Set the limits; what these cgroups have no limit for is told in `refused`. Raises OSError: it is not kept."""
        if self.version == 2:
            self._limit(bounds.max_bytes, "memory.max", "--max")
            self._limit(bounds.high_bytes, "memory.high", "--high")
            self._limit(bounds.swap_max_bytes, "memory.swap.max", "--swap-max")
            return
        self._limit(bounds.max_bytes, "memory.limit_in_bytes", "--max")
        if bounds.high_bytes is not None:
            self.refused.append("--high (cgroup version 1 has no such limit)")
        if bounds.swap_max_bytes is not None and bounds.max_bytes is None:
            self.refused.append("--swap-max (cgroup version 1 limits memory and swap together: give it with --max)")
        elif bounds.swap_max_bytes is not None and bounds.max_bytes is not None:
            self._limit(bounds.max_bytes + bounds.swap_max_bytes, "memory.memsw.limit_in_bytes", "--swap-max")

    def _limit(self, wanted_bytes: int | None, file: str, option: str) -> None:
        if wanted_bytes is None:
            return
        if not os.path.exists(f"{self.folder}/{file}"):
            self.refused.append(f"{option} (this kernel does not count it: there is no {file})")
            return
        write(f"{self.folder}/{file}", str(wanted_bytes))
        kept = _number(self._read(file))
        if kept is None or not wanted_bytes - os.sysconf("SC_PAGE_SIZE") < kept <= wanted_bytes:  # it keeps whole pages
            raise OSError(f"{file} reads {kept}, not {wanted_bytes}")

    def add(self, pid: int) -> None:
        """Move a process into it. What it holds stays charged to where it was. Raises OSError."""
        write(f"{self.folder}/cgroup.procs", str(pid))

    def members(self) -> list[int]:
        """Who is in it."""
        return members(self.folder)

    def kill(self) -> None:
        """End all who are in it now."""
        kill_group(self.folder)

    def end_stragglers(self) -> int:
        """End who outlived the command, but for those who are about to end by themselves; how many there were."""
        until = monotonic() + _ABOUT_TO_END_S
        while (left := len(self.members())) and monotonic() < until:
            sleep(0.01)
        empty(self.folder)
        return left

    def close(self) -> bool:
        """End who is left in it, and remove it; False: somebody could not be ended."""
        return end_group(self.folder)

    def use(self) -> Use:
        """What it tells of all who were in it."""
        stat = self._figures("memory.stat")
        if self.version == 1:
            return Use(
                peak_bytes=_number(self._read("memory.max_usage_in_bytes")),
                file_bytes=_difference(stat.get("total_cache"), stat.get("total_shmem")),
                shmem_bytes=stat.get("total_shmem"),
                at_max=_number(self._read("memory.failcnt")),
                oom_kills=self._figures("memory.oom_control").get("oom_kill"),
            )
        events = self._figures("memory.events")
        return Use(
            peak_bytes=_number(self._read("memory.peak")),
            swap_peak_bytes=_number(self._read("memory.swap.peak")),
            file_bytes=_difference(stat.get("file"), stat.get("shmem")),
            shmem_bytes=stat.get("shmem"),
            at_max=events.get("max"),
            at_high=events.get("high"),
            waited_us=_waited_us(self._read("memory.pressure")),
            oom_kills=events.get("oom_kill"),
        )

    def _figures(self, file: str) -> dict[str, int]:
        pairs = (line.partition(" ") for line in (self._read(file) or "").splitlines())
        return {key: int(figure) for key, _, figure in pairs if figure.isdecimal()}

    def _read(self, file: str) -> str | None:
        try:
            return read(f"{self.folder}/{file}")
        except OSError:  # this kernel has no such file, or PSI is off
            return None


def _waited_us(pressure: str | None) -> int | None:
    """Of `some avg10=0.00 avg60=0.00 avg300=0.00 total=0` the last."""
    total = (pressure or "").partition("\n")[0].rpartition("total=")[2]
    return int(total) if total.isdecimal() else None


def _number(text: str | None) -> int | None:
    digits = (text or "").strip()
    return int(digits) if digits.isdecimal() and int(digits) < _LARGEST else None


def _difference(whole: int | None, part: int | None) -> int | None:
    return None if whole is None or part is None else whole - part


def find_hierarchy() -> Hierarchy | None:
    """The mounted memory controller, version 1 before 2; None: there is none to be seen. Raises OSError: no /proc."""
    own: dict[str, str] = {}
    for line in read("/proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        own |= dict.fromkeys(controllers.split(","), path)
    second = None
    for line in read("/proc/self/mountinfo").splitlines():
        mounted, _, kind = line.partition(" - ")
        root, mount = (_unescaped(word) for word in mounted.split(" ")[3:5])
        name, _, options = kind.split(" ", 2)
        if name == "cgroup" and "memory" in options.split(","):
            return Hierarchy(1, mount, root, own.get("memory", "/"))
        if name == "cgroup2" and "memory" in (_words(f"{mount}/cgroup.controllers")):
            second = second or Hierarchy(2, mount, root, own.get("", "/"))
    return second


def _unescaped(word: str) -> str:
    """mountinfo writes a blank as \\040."""
    for code in ("040", "011", "012", "134"):
        word = word.replace(f"\\{code}", chr(int(code, 8)))
    return word


def enclose(hierarchy: Hierarchy, name: str, pid: int | None, bounds: Bounds, refusals: list[str]) -> Enclosure | None:
    """Make a group of that name, around a process if one is named; None, and why not, where none can be.

    As near to our own group as may be, whose limits hold for it too where it is below.
    """
    for outer in _candidates(hierarchy):
        sweep(outer)
        made = Enclosure(hierarchy, f"{outer}/{name}")
        try:
            os.mkdir(made.folder)
        except OSError as error:
            refusals.append(f"{outer}: {_reason(error)}")
            continue
        try:
            made.limit(bounds)
            if pid is not None:
                made.add(pid)
        except OSError as error:
            remove(made.folder)
            refusals.append(f"{outer}: {_reason(error)}")
        else:
            return made
    return None


def left_limits(hierarchy: Hierarchy, made: Enclosure) -> Iterator[tuple[str, int]]:
    """The groups that this process is in and the made one is not, with the bytes that they are limited to."""
    file = "memory.max" if hierarchy.version == 2 else "memory.limit_in_bytes"
    path = hierarchy.own
    while path != "/" and not f"{made.path}/".startswith(f"{path}/"):
        folder = hierarchy.folder(path)
        try:
            limit_bytes = None if folder is None else _number(read(f"{folder}/{file}"))
        except OSError:  # it is not to be seen from here
            limit_bytes = None
        if limit_bytes is not None:
            yield path, limit_bytes
        path = os.path.dirname(path)


def is_run_by_systemd() -> bool:
    """Is there a manager to ask for a group, and are our pids its own?

    sd_booted(3) alone is true in a container that has the machine's /run, whose pids are none of the manager's.
    """
    return _words("/proc/1/comm") == ["systemd"] and os.path.isdir("/run/systemd/system")


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def _candidates(hierarchy: Hierarchy) -> Iterator[str]:
    """Where a group may have a memory limit of its own, the nearest first.

    Version 2 gives controllers to groups only below one that holds no process, but for the root.
    """
    own = hierarchy.folder(hierarchy.own)
    if hierarchy.version == 1:
        yield from dict.fromkeys(filter(None, (own, hierarchy.mount)))
        return
    folders = [own or hierarchy.mount]
    while folders[-1] != hierarchy.mount:
        folders.append(os.path.dirname(folders[-1]))
    given = [folder for folder in folders if "memory" in _words(f"{folder}/cgroup.subtree_control")]
    yield from given
    for folder in folders:
        if folder not in given and "memory" in _words(f"{folder}/cgroup.controllers") and give_memory(folder):
            yield folder


def give_memory(folder: str) -> bool:
    """Let groups below this one have limits of memory; False: it may not be, or there are processes in it."""
    try:
        write(f"{folder}/cgroup.subtree_control", "+memory")
    except OSError:
        return False
    return True


def new_name(prefix: str) -> str:
    """A name that tells whose it is: our pid, when we started, in which namespace the pid is ours; and the how manieth.

    A scope of systemd may be there for a moment more when nobody is in it.
    """
    return f"{prefix}{os.getpid()}-{_started(os.getpid())}-{_namespace()}-{next(_MADE)}"


def sweep(outer: str) -> None:
    """End and remove what was left in groups whose `reprieve run` is gone, and the process that watched it too."""
    try:
        names = list(filter(is_own, os.listdir(outer)))
    except OSError:  # it may not be listed: then nothing was made in it either
        return
    for name in names:
        pid, started, namespace, _ = map(int, name.removesuffix(".scope").split("-")[-4:])
        if (
            namespace == _namespace()
            and _started(pid) != started
            and os.access(f"{outer}/{name}/cgroup.procs", os.W_OK)
        ):
            end_group(f"{outer}/{name}", _ABOUT_TO_END_S)  # who cannot be ended now, is at the next time


def _started(pid: int) -> int | None:
    """When a process started, in ticks since boot; None: there is none of that pid."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[19])
    except (FileNotFoundError, ProcessLookupError):
        return None


def _namespace() -> int:
    return os.stat("/proc/self/ns/pid").st_ino


def _words(path: str) -> list[str]:
    try:
        return read(path).split()
    except OSError:
        return []


def read(path: str) -> str:
    """A file of /proc or /sys. Raises OSError."""
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


def write(path: str, text: str) -> None:
    """Into a file of the kernel's, in one call. Raises OSError."""
    with open(path, "w", encoding="ascii") as file:
        file.write(text)

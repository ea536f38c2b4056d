"""The memory cgroups of a machine, version 1, 2 and hybrid: /sys/fs/cgroup → nouns."""

import errno
import os
import re
from collections.abc import Container, Iterable
from typing import NamedTuple

from reprieve.machine.host import READ_BYTES, Host
from reprieve.machine.memory import Mount, parse_pressure, read_mounts
from reprieve.model.cgroup import Cgroup, Limit
from reprieve.model.finding import Gap
from reprieve.model.pressure import Pressure
from reprieve.oom.memory import limit_of

GROUPS = 10_000  # those read; the kernel has ids for 65,535 (MEM_CGROUP_ID_MAX)
_Figures = tuple[tuple[str, int], ...]


class Hierarchy(NamedTuple):
    """Where the memory controller is mounted, and how much of its tree that shows."""

    version: str  # "1", "2"; "hybrid": memory on version 1, beside a version 2 tree without it
    folder: str  # the mount point
    top: str  # the path of what is mounted there, as /proc/PID/cgroup names it: "/" unless a part is mounted
    private: bool  # a container's view: groups above and beside it are not seen


def read_hierarchy(host: Host, gaps: list[Gap]) -> Hierarchy | None:
    """Find the mounted memory controller; None, and a gap, where there is none to be seen."""
    mounts = _reachable(read_mounts(host, gaps))
    unified = [mount for mount in mounts if mount.kind == "cgroup2"]
    for mount in mounts:
        if mount.kind == "cgroup" and "memory" in mount.options.split(","):
            return _hierarchy(host, "hybrid" if unified else "1", mount, gaps)
    for mount in unified:
        if "memory" in (host.text(f"{mount.path}/cgroup.controllers", gaps) or "").split():
            return _hierarchy(host, "2", mount, gaps)
    gaps.append(Gap(place="/sys/fs/cgroup", reason="no memory controller is mounted", hint="see /proc/self/mountinfo"))
    return None


def gone(host: Host, paths: Iterable[str]) -> tuple[str, ...]:
    """Which of these paths, as the kernel's log has them, are of no group any more; none where not all groups are seen.

    A backslash is itself or a byte that is no text, `..` leads out of what is seen, NUL is in no path: not told.
    """
    hierarchy = read_hierarchy(host, [])
    if hierarchy is None or hierarchy.private or hierarchy.top != "/":
        return ()
    plain = [path for path in paths if not {"\\", "\0"} & set(path) and ".." not in path.split("/")]
    return tuple(path for path in plain if not os.path.lexists(host.at(hierarchy.folder + path)))


def counts_swap(host: Host, hierarchy: Hierarchy) -> bool | None:
    """Does the kernel count the swap of groups? None: there is no group to tell it by.

    The root of version 2 has no files of swap, whatever it counts (CFTYPE_NOT_ON_ROOT in mm/memcontrol.c).
    """
    old, folder = hierarchy.version != "2", hierarchy.folder
    limit, both = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes") if old else ("memory.max", "memory.swap.max")
    try:
        below = [] if old else [f"{folder}/{name}" for name in host.names(folder)]
    except OSError:
        return None
    for group in (folder, *below):
        try:
            there = host.names(group)
        except OSError:  # a file, or gone
            continue
        if limit in there:
            return both in there
    return None


def read_cgroups(
    host: Host, gaps: list[Gap], hierarchy: Hierarchy, *, files: Container[str] | None = None
) -> tuple[Cgroup, ...]:
    """All groups with a memory controller, parents before children, each level by name; at most `GROUPS`.

    Of each, `files` are read, as the kernel names them, or all: what is not read is None, or empty.
    A group that is removed meanwhile is left out; what is refused or makes no sense is None, and a gap.
    """
    reader = _Reader(host, version=2 if hierarchy.version == "2" else 1)
    groups: list[Cgroup] = []
    left_out = 0
    waiting = [""]  # relative to the mount point; grows while it is walked, level by level
    for below in waiting:
        listed = reader.list(hierarchy.folder + below)
        if listed is None:
            continue
        there, folders = listed
        if below and reader.usage_file not in there:  # its parent keeps the controller from it, and all below it
            continue
        waiting += [f"{below}/{name}" for name in folders]
        wanted = there if files is None else frozenset(file for file in there if file in files)
        if len(groups) >= GROUPS:
            left_out += 1
        elif (group := reader.group(hierarchy.folder + below, wanted, _path(hierarchy.top, below))) is not None:
            groups.append(group)
    gaps += reader.gaps()
    if left_out:
        gaps.append(Gap(place=hierarchy.folder, reason=f"{left_out} more cgroups than the {GROUPS} that were read"))
    return tuple(groups)


class _Gone(Exception):
    """The group was removed while it was read."""


class _Reader:
    """Reads group after group, and sums up what went wrong: a thousand refusals are one gap."""

    def __init__(self, host: Host, version: int) -> None:
        self.usage_file = "memory.current" if version == 2 else "memory.usage_in_bytes"
        self._host = host
        self._version = version
        self._folder = ""
        self._files: frozenset[str] = frozenset()
        self._names: dict[str, str] = {}  # each name of a figure once: thousands of groups have the same
        self._wrong: dict[tuple[str, str], list[str]] = {}  # (file, reason): the folders

    def gaps(self) -> list[Gap]:
        """One for each file and reason, with the first place it was met."""
        told = []
        for (file, reason), folders in self._wrong.items():
            more = f", and in {len(folders) - 1} more cgroups" if len(folders) > 1 else ""
            place = os.fsencode(f"{folders[0]}/{file}".rstrip("/")).decode(errors="backslashreplace")
            hint = "run it as root" if reason == os.strerror(errno.EACCES).lower() else None
            told.append(Gap(place=place, reason=reason + more, hint=hint))
        return told

    def list(self, folder: str) -> tuple[frozenset[str], list[str]] | None:
        """The files and, sorted, the folders in a folder; None if it is gone or refused."""
        self._folder = folder
        files: list[str] = []
        folders: list[str] = []
        try:
            with os.scandir(self._host.at(folder)) as entries:
                for entry in entries:
                    (folders if entry.is_dir(follow_symlinks=False) else files).append(entry.name)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENODEV):
                self._note("", error)
            return None
        return frozenset(files), sorted(folders)

    def group(self, folder: str, files: frozenset[str], path: str) -> Cgroup | None:
        """One group; None if it was removed."""
        self._folder, self._files = folder, files
        try:
            return self._version_2(path) if self._version == 2 else self._version_1(path)
        except _Gone:
            return None

    def _version_2(self, path: str) -> Cgroup:
        oom_group = self._count("memory.oom.group")
        return Cgroup(
            path=path,
            version=2,
            current_bytes=self._count("memory.current"),
            peak_bytes=self._count("memory.peak"),
            max_bytes=self._limit("memory.max"),
            high_bytes=self._limit("memory.high"),
            low_bytes=self._limit("memory.low"),
            min_bytes=self._limit("memory.min"),
            swap_current_bytes=self._count("memory.swap.current"),
            swap_max_bytes=self._limit("memory.swap.max"),
            events=self._figures("memory.events"),
            local_events=self._figures("memory.events.local"),
            stat=self._figures("memory.stat"),
            pressure=self._pressure("memory.pressure"),
            oom_group=None if oom_group is None else oom_group != 0,
            pids=self._pids("cgroup.procs"),
        )

    def _version_1(self, path: str) -> Cgroup:
        usage, memsw = self._count("memory.usage_in_bytes"), self._count("memory.memsw.usage_in_bytes")
        told = self._figures("memory.stat")
        stat = tuple([figure for figure in told if figure[0].startswith(("total_", "hierarchical_"))])
        control = dict(self._figures("memory.oom_control"))
        disable, waiting, kills = (control.get(key) for key in ("oom_kill_disable", "under_oom", "oom_kill"))
        return Cgroup(
            path=path,
            version=1,
            current_bytes=usage,
            peak_bytes=self._count("memory.max_usage_in_bytes"),
            max_bytes=self._limit("memory.limit_in_bytes"),
            soft_limit_bytes=self._limit("memory.soft_limit_in_bytes"),
            swap_current_bytes=dict(stat).get("total_swap"),  # two counters, read apart, would not subtract exactly
            memsw_max_bytes=self._limit("memory.memsw.limit_in_bytes"),
            memsw_current_bytes=memsw,
            swappiness=self._count("memory.swappiness"),
            local_events=() if kills is None else (("oom_kill", kills),),  # since 4.13
            stat=stat,
            oom_kill_disable=None if disable is None else disable != 0,
            under_oom=None if waiting is None else waiting != 0,
            pids=self._pids("cgroup.procs"),
        )

    def _count(self, file: str) -> int | None:
        if (data := self._read(file)) is None:
            return None
        if (number := _number(data.strip())) is None:
            self._note(file)
        return number

    def _limit(self, file: str) -> Limit:
        if (data := self._read(file)) is None:
            return None
        if data.strip() == b"max":
            return "max"
        if (number := _number(data.strip())) is None:
            self._note(file)
            return None
        return limit_of(number)

    def _figures(self, file: str) -> _Figures:
        figures = []
        for line in (self._read(file) or b"").splitlines():
            key, _, word = line.partition(b" ")
            number = _number(word)
            if number is None or re.fullmatch(rb"[a-z]\w*", key) is None:
                self._note(file)
                continue
            name = key.decode("ascii")
            figures.append((self._names.setdefault(name, name), number))
        return tuple(figures)

    def _pressure(self, file: str) -> tuple[Pressure, ...]:
        lines = (self._read(file) or b"").decode(errors="backslashreplace").splitlines()
        told = [pressure for pressure in map(parse_pressure, lines) if pressure is not None]
        if len(told) < len(lines):
            self._note(file)
        return tuple(told)

    def _pids(self, file: str) -> tuple[int, ...]:
        numbers = [_number(line) for line in (self._read(file) or b"").splitlines()]
        if None in numbers:
            self._note(file)
        return tuple([pid for pid in numbers if pid])  # 0: a process outside our pid namespace

    def _read(self, file: str) -> bytes | None:
        """A file of this group; None if it has no such file or keeps it to itself. Raises _Gone."""
        if file not in self._files:
            return None
        try:
            data = self._host.read(f"{self._folder}/{file}")
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENODEV):  # it was listed: kernfs says so of what was removed
                raise _Gone from error
            if error.errno != errno.EOPNOTSUPP:  # cgroup.procs of a threaded group, pressure where PSI is off
                self._note(file, error)
            return None
        if len(data) >= READ_BYTES:  # its last figure would be a wrong one
            self._note(file)
            return None
        return data

    def _note(self, file: str, error: OSError | None = None) -> None:
        reason = "is not what the kernel writes" if error is None else (error.strerror or str(error)).lower()
        folders = self._wrong.setdefault((file, reason), [])
        if self._folder not in folders[-1:]:
            folders.append(self._folder)


def _number(word: bytes) -> int | None:
    return int(word) if word.isdigit() and len(word) <= 20 else None


def _path(top: str, below: str) -> str:
    return os.fsencode(top.rstrip("/") + below).decode(errors="backslashreplace") or "/"


def _reachable(mounts: list[Mount]) -> list[Mount]:
    """Whole trees before parts; a later mount hides what was at its path."""
    return sorted({mount.path: mount for mount in mounts}.values(), key=lambda mount: mount.root != "/")


def _hierarchy(host: Host, version: str, mount: Mount, gaps: list[Gap]) -> Hierarchy:
    """Whether the true root is mounted is told by its files: in a namespace any group may be called "/".

    cgroup.events is in all groups of version 2 but the root (CFTYPE_NOT_ON_ROOT), release_agent of version 1 in the
    root alone (CFTYPE_ONLY_ON_ROOT).
    """
    try:
        names = host.names(mount.path)
    except OSError as error:
        gaps.append(Gap(place=mount.path, reason=(error.strerror or str(error)).lower()))
        names = []
    private = "cgroup.events" in names if version == "2" else bool(names) and "release_agent" not in names
    return Hierarchy(version=version, folder=mount.path, top=mount.root, private=private)

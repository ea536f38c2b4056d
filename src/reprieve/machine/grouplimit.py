"""The limits of a memory cgroup that nobody looks after, in its own files, version 1 and 2."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from math import inf
from typing import NamedTuple

from reprieve.machine.cgroup import Hierarchy, read_hierarchy
from reprieve.machine.host import Host
from reprieve.machine.writer import failure_of, hand
from reprieve.model.cgroup import Limit
from reprieve.model.finding import Change, Failure, Place
from reprieve.model.workload import Workload
from reprieve.oom.memory import limit_of
from reprieve.oom.paths import workload
from reprieve.units import parse_size

# A path as the kernel prints it; in front of it the inode of its folder, which no later group of that path has.
_OF = r"(?:(?P<inode>[0-9]{1,20}):)?(?P<path>(?:/(?!\.\.?(?:/|$))[^/\x00-\x1f\x7f\ud800-\udfff]+)+)"
_FOLDER = "/sys/fs/cgroup"  # in which version 1 has a tree for each controller
_MEMORY, _BOTH = "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"
_TOGETHER = "memory.oom.group"
_FILES = {
    1: (_MEMORY, "memory.soft_limit_in_bytes", _BOTH),
    2: ("memory.max", "memory.high", "memory.low", "memory.min", "memory.swap.max", _TOGETHER),
}
_MAX = "max"
_Sizes = tuple[tuple[str, Limit], ...]


class GroupLimit:
    """`cgroup:/lab/memory.max`: a limit of a cgroup, which goes with it. `cgroup:4711:/lab/…` is that one alone."""

    lasts = False

    def __init__(self, host: Host) -> None:
        self._host = host

    def identify(self, place: Place) -> Place:
        """With the inode of its folder. Raises Failure: there is no such cgroup, or somebody looks after it.

        Who has set its limits would set them again, on another machine too.
        """
        _, path = which(place)
        if (owned := owned_by(workload(path))) is not None:
            raise owned
        with self.held(place) as held:
            return replace(place, of=f"{held.inode}:{held.path}")

    def get(self, place: Place) -> str | None:
        """In bytes; `max`: no limit. Raises Failure: the cgroup is no more, or has no such file."""
        with self.held(place) as held:
            try:
                descriptor = os.open(place.key, os.O_RDONLY | os.O_CLOEXEC, dir_fd=held.folder)
                try:
                    told = os.read(descriptor, 64).decode(errors="backslashreplace").strip()
                finally:
                    os.close(descriptor)
            except OSError as error:
                raise _failure(held, place, error) from error
        return str(limit_of(int(told))) if told.isascii() and told.isdecimal() else told

    def put(self, place: Place, want: str | None) -> None:
        """One write, to that cgroup or to none."""
        if want is None:
            raise Failure(f"{place} cannot be absent", hint=f"{_MAX} is no limit")
        with self.held(place) as held:
            try:
                hand(place.key, "-1" if held.version == 1 and want == _MAX else want, folder=held.folder)
            except OSError as error:
                raise _failure(held, place, error) from error

    def canonical(self, place: Place, want: str | None) -> str | None:
        """In whole pages, as the kernel keeps them."""
        which(place)
        if want is None or want == _MAX:
            return want
        if place.key == _TOGETHER:
            if want not in ("0", "1"):
                raise Failure(f"{want!r} is no {_TOGETHER}", hint="it is 0 or 1")
            return want
        size = parse_size(want)
        if size is None:
            raise Failure(f"{want!r} is no size", hint=f"512M, 2G or {_MAX}")
        page = os.sysconf("SC_PAGE_SIZE")
        return str(limit_of(size // page * page))

    def obstacle(self, place: Place, want: str | None) -> Failure | None:
        """No right to it."""
        with self.held(place) as held:
            if not os.access(place.key, os.W_OK, dir_fd=held.folder, effective_ids=True):
                return _failure(held, place, OSError(_refused(held.folder), ""))
        return None

    def gone(self, place: Place) -> bool:
        """Was it removed? Another may have its path."""
        try:
            with self.held(place):
                return False
        except Ended:
            return True

    @contextmanager
    def held(self, place: Place) -> Iterator["Held"]:
        """The folder of that very cgroup: what is opened in it is of this one, or fails. Raises Failure."""
        inode, path = which(place)
        tree = tree_of(self._host)
        version = 2 if tree.version == "2" else 1
        if place.key not in _FILES[version]:
            raise Failure(
                f"version {version} of cgroups, which is used here, has no {place.key}",
                hint=f"there are {', '.join(_FILES[version])}",
            )
        lies = folder_of(tree, path)
        try:
            folder = os.open(self._host.root + lies, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError) as error:
            made = "--make makes it, if that is meant; reprieve run makes one for a command"
            raise Ended(f"there is no cgroup {path}", hint=f"its folder would be {lies}; {made}") from error
        except OSError as error:
            raise failure_of(lies, error) from error
        try:
            found = os.fstat(folder).st_ino
            if inode not in (None, found):
                raise Ended(f"cgroup {path} was removed, and made anew")
            yield Held(folder, found, path, version)
        finally:
            os.close(folder)


def limits_of_group(
    host: Host, path: str, *, most: Limit = None, high: Limit = None, swap: Limit = None
) -> tuple[Change, ...]:
    """What is to be written so that a cgroup may hold so many bytes, and so many of swap, in an order that is allowed.

    Version 1 limits memory and swap together, and refuses a limit for memory above that: who raises writes the one for
    both first, who lowers writes it last. What it may have of swap stays as it is, unless told; without a limit for
    memory there is none for both. The path may be that of its folder, too. Raises Failure.
    """
    tree = tree_of(host)
    path = path_in(tree, path)
    if tree.version == "2":
        told = _version_2(most, high, swap)
    else:
        limits = GroupLimit(host)
        now = _number(limits.get(_place(path, _MEMORY)))
        try:
            both_now = _number(limits.get(_place(path, _BOTH)))
        except NoFile:
            if swap is not None:
                raise
            both_now = inf
        told = _version_1(now, both_now, most, high, swap)
    return tuple(Change(place=_place(path, key), want=str(size)) for key, size in told if size is not None)


def limits_of_none(tree: Hierarchy, *, most: Limit, high: Limit, swap: Limit) -> Iterator[tuple[str, str]]:
    """The same of a cgroup that has no limit yet, as each has that is made: file and value. Raises Failure."""
    told = _version_2(most, high, swap) if tree.version == "2" else _version_1(inf, inf, most, high, swap)
    return ((key, str(size)) for key, size in told if size is not None)


def _version_2(most: Limit, high: Limit, swap: Limit) -> _Sizes:
    return (("memory.max", most), ("memory.high", high), ("memory.swap.max", swap))


def _version_1(now: float, both_now: float, most: Limit, high: Limit, swap: Limit) -> _Sizes:
    """What it is limited to now, for memory, and for memory and swap together; there without a limit if not counted."""
    if high is not None:
        raise Failure("version 1 of cgroups, which is used here, has no memory.high", hint="--max is a limit there too")
    memory = now if most is None else _number(str(most))
    both: float | None = None
    if swap is not None:
        if memory == inf and swap != _MAX:
            raise Failure("version 1 of cgroups limits memory and swap together", hint="--max SIZE with --swap-max")
        both = memory + _number(str(swap))
    elif both_now != inf:
        both = memory + both_now - now
    told: Limit = None if both is None else "max" if both == inf else int(both)
    ordered = ((_BOTH, told), (_MEMORY, most))
    return ordered if both is None or both >= both_now else ordered[::-1]


class Ended(Failure):
    """The cgroup is no more."""


class NoFile(Failure):
    """The cgroup has no such file."""


class Held(NamedTuple):
    folder: int
    inode: int
    path: str
    version: int


def _place(path: str, key: str) -> Place:
    return Place(kind="cgroup", of=path, key=key)


def _number(limit: str | None) -> float:
    return int(limit) if limit is not None and limit.isdecimal() else inf


def tree_of(host: Host) -> Hierarchy:
    """Where the groups are. Raises Failure."""
    found = read_hierarchy(host, [])
    if found is None:
        raise Failure("no memory controller is mounted here", hint="see /proc/self/mountinfo")
    return found


def path_in(tree: Hierarchy, told: str) -> str:
    """The path of a cgroup, which may be told as that of its folder, as a shell completes it.

    Raises Failure: it is a folder of cgroups, and none of those that limit memory.
    """
    path = told.rstrip("/")
    if path == tree.folder or path.startswith(f"{tree.folder}/"):
        path = tree.top.rstrip("/") + path.removeprefix(tree.folder)
    elif path == _FOLDER or path.startswith(f"{_FOLDER}/"):
        raise Failure(f"{path} is no folder of a cgroup that limits memory", hint=f"those are in {tree.folder}")
    return path or "/"


def folder_of(tree: Hierarchy, path: str) -> str:
    """Where the cgroup of that path lies. Raises Failure: in no part of the tree that is mounted here."""
    top = tree.top.rstrip("/")
    if not path.startswith(f"{top}/"):
        raise Failure(f"cgroup {path} cannot be reached from here", hint=f"what is in {top} can, or all on the host")
    return tree.folder + path.removeprefix(top)


def which(place: Place) -> tuple[int | None, str]:
    """Inode and path. Raises Failure: a name that is none leads nowhere."""
    match = re.fullmatch(_OF, place.of)
    if match is None:
        raise Failure(f"{place.of!r} is no path of a cgroup below the root, which has no limit", hint="/lab is one")
    return None if match["inode"] is None else int(match["inode"]), match["path"]


def owned_by(whose: Workload) -> Failure | None:
    """Whom a change goes through."""
    if whose.kind == "cgroup" and whose.manager is None:
        return None
    if whose.manager == "kubernetes" or whose.pod_uid is not None:
        hint = "give the pod other limits: kubectl set resources"
    elif whose.container_id is not None and whose.manager in ("docker", "podman"):
        hint = f"reprieve fix limit {whose.manager}:{whose.container_id[:12]} …"
    elif whose.unit is not None and whose.container_id is None:
        hint = f"reprieve fix limit {whose.unit} …"
    else:
        hint = "change it where it is started"
    return Failure(f"it belongs to {whose.name}, who sets its limits", hint=hint)


def _refused(folder: int) -> int:
    return errno.EROFS if os.fstatvfs(folder).f_flag & os.ST_RDONLY else errno.EACCES


def _failure(held: Held, place: Place, error: OSError) -> Failure:
    if error.errno == errno.ENODEV or not os.fstat(held.folder).st_nlink:
        return Ended(f"there is no cgroup {held.path}")
    if error.errno == errno.ENOENT:
        return NoFile(
            f"cgroup {held.path} has no {place.key}", hint="its parent keeps the controller, or the kernel counts none"
        )
    if error.errno == errno.EBUSY:  # version 1 kills nobody for it
        return Failure(
            f"cgroup {held.path} holds more than that, which cannot be taken back", hint="a higher limit, or swap first"
        )
    if error.errno == errno.EINVAL and held.version == 1:
        return Failure(
            f"the kernel refuses that {place.key}: the one for memory is never above that for memory and swap",
            hint="--max and --swap-max change both",
        )
    return failure_of(f"{held.path}/{place.key}", error)

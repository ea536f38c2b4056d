"""A memory cgroup that is made with its limits, where nobody else looks after groups: there whole, or not at all."""

import errno
import os
import re
import time
from contextlib import suppress
from dataclasses import replace
from stat import S_IMODE, S_ISVTX

from reprieve.machine.cgroup import Hierarchy
from reprieve.machine.grouplimit import (
    Ended,
    GroupLimit,
    Held,
    folder_of,
    limits_of_group,
    limits_of_none,
    owned_by,
    path_in,
    tree_of,
    which,
)
from reprieve.machine.host import Host
from reprieve.machine.writer import failure_of, may_write
from reprieve.model.cgroup import Limit
from reprieve.model.finding import Change, Failure, Place
from reprieve.oom.paths import workload

_KIND = "cgroup.new"
_OTHER = "other"
# mkdir(2) makes a group and gives it its mode in one call, so there is no moment in which it is not known as ours; and
# a mode goes with its group: one that is made anew at the same path lacks it. The sticky bit is set on no other cgroup,
# and changes nothing: only the owner may remove groups there anyhow.
_HALF, _WHOLE = 0o1700, 0o1755
_NAMED = 3  # of what a group holds
_PATIENCE_S = 1.0


class NewGroup:
    """`cgroup.new:/batch/memory.max+memory.swap.max`: a cgroup is there, made by us; its value these limits of it.

    Its mode is the last that it gets: what a crash leaves before that is none, and removed, unless somebody is in it.
    """

    lasts = False

    def __init__(self, host: Host) -> None:
        self._host = host
        self._limits = GroupLimit(host)

    def identify(self, place: Place) -> Place:
        """Raises Failure: somebody looks after that part of the tree, by its names on another machine too."""
        _, path = which(place)
        for outer in _upwards(path):
            whose = workload(outer)
            if outer != path and whose.manager == "systemd" and outer.endswith(".slice"):
                raise Failure(f"systemd keeps {outer}, and makes the groups in it", hint=_slice(path))
            if (owned := owned_by(whose)) is not None:
                raise owned
        return place

    def get(self, place: Place) -> str | None:
        """Its limits, in bytes, joined by `+`; `other` where somebody else has made it; None: there is none.

        Raises Failure: half made, it holds somebody.
        """
        limits = _limits(place)
        try:
            with self._limits.held(limits[0]) as held:
                mode = _mode(held)
                if not mode & S_ISVTX:
                    return _OTHER
                if mode == _HALF:
                    self._check_empty(held)
                    return None
                return "+".join(str(self._limits.get(replace(one, of=f"{held.inode}:{held.path}"))) for one in limits)
        except Ended:
            return None

    def put(self, place: Place, want: str | None) -> None:
        """Make it, with its limits; or remove it, if it is ours and holds nobody."""
        if want is None:
            return self._remove(place)
        lies = self._lies(place)
        try:
            os.mkdir(self._host.root + lies, _HALF)
        except FileExistsError as error:
            raise Failure(f"{lies} is there: somebody else has made it", hint="it stays; plan again") from error
        except OSError as error:
            raise _not_made(lies, error) from error
        limits = _limits(place)
        with self._limits.held(limits[0]) as held:
            if not _mode(held) & S_ISVTX:
                raise _theirs()
            try:
                for limit, size in zip(limits, want.split("+"), strict=True):
                    self._limits.put(replace(limit, of=f"{held.inode}:{held.path}"), size)
                os.fchmod(held.folder, _WHOLE)  # switches it in
            except BaseException:  # Ctrl-C too
                with suppress(OSError, Failure):  # somebody is in it already: an undo says who; or it is not ours
                    _remove_now(self._host.root + lies, held)
                raise

    def canonical(self, place: Place, want: str | None) -> str | None:
        """Each in whole pages."""
        if want is None:
            return None
        sizes = zip(_limits(place), want.split("+"), strict=True)
        return "+".join(str(self._limits.canonical(limit, size)) for limit, size in sizes)

    def obstacle(self, place: Place, want: str | None) -> Failure | None:
        """Systemd keeps the tree; no parent; no right to it; it gives its groups no controller."""
        tree, (_, path) = tree_of(self._host), which(place)
        lies = folder_of(tree, path)
        above = os.path.dirname(lies)
        if self._systemd_keeps(tree):
            return Failure(
                "systemd keeps this tree, and no group that it has not made is safe in it", hint=_slice(path)
            )
        if os.path.lexists(self._host.root + lies):
            return Failure(f"{lies} is there already, and is no cgroup", hint="another name")
        if not os.path.isdir(self._host.root + above):
            outer = os.path.dirname(path)
            return Failure(
                f"there is no cgroup {outer} to make it in", hint=f"first: reprieve fix limit {outer} --make …"
            )
        if (refused := may_write(self._host.root + above)) is not None:
            return refused
        return self._without_controller(tree, above) if tree.version == "2" else None

    def _systemd_keeps(self, tree: Hierarchy) -> bool:
        """Its manager is here, or its own group is in this tree: the single-writer rule of its CGROUP_DELEGATION."""
        if self._host.text("/proc/1/comm", []) == "systemd\n":
            return True
        return os.path.isdir(f"{self._host.root}{tree.folder}/init.scope")

    def _without_controller(self, tree: Hierarchy, above: str) -> Failure | None:
        """Version 2 gives a group what its parent has in cgroup.subtree_control, which is to be had from above it.

        All groups there are counted from then on, and lose their limits when it is taken back: so it is left to people.
        """
        folders = [tree.folder, *(tree.folder + path for path in reversed(_upwards(above.removeprefix(tree.folder))))]
        lacking = [folder for folder in folders if "memory" not in self._words(f"{folder}/cgroup.subtree_control")]
        if not lacking:
            return None
        reason = f"{lacking[-1]} gives its groups no memory controller, without which they have no limit"
        for folder in lacking:
            is_root = folder == tree.folder and not tree.private  # which may hold processes all the same
            if not is_root and self._words(f"{folder}/cgroup.procs"):
                return Failure(
                    f"{reason}, and {folder} holds processes, beside which version 2 gives none",
                    hint="make it elsewhere, or move them into a group of their own first",
                )
        commands = [f"echo +memory > {folder}/cgroup.subtree_control" for folder in lacking]
        return Failure(reason, hint=f"{'; '.join(commands)}: all groups there are counted from then on")

    def _words(self, file: str) -> list[str]:
        return (self._host.text(file, []) or "").split()

    def _lies(self, place: Place) -> str:
        return folder_of(tree_of(self._host), which(place)[1])

    def _remove(self, place: Place) -> None:
        lies = self._lies(place)
        try:
            with self._limits.held(_limits(place)[0]) as held:
                if not _mode(held) & S_ISVTX:
                    raise _theirs()
                self._check_empty(held)
                _remove_empty(self._host.root + lies, held)
        except (Ended, FileNotFoundError):
            return
        except OSError as error:
            if error.errno == errno.EBUSY:
                raise Failure("it holds who came just now, or cannot be seen from here") from error
            raise failure_of(lies, error) from error

    def _check_empty(self, held: Held) -> None:
        """Raises Failure, naming who is in it."""
        if inside := self._inside(held):
            raise Failure(f"it holds {inside}: end them, or move them elsewhere")

    def _inside(self, held: Held) -> str:
        """Who is in it, and which groups; empty: nobody."""
        with os.scandir(held.folder) as entries:
            groups = [f"cgroup {held.path}/{one.name}" for one in entries if one.is_dir()]
        try:
            descriptor = os.open("cgroup.procs", os.O_RDONLY | os.O_CLOEXEC, dir_fd=held.folder)
            with open(descriptor, encoding="ascii") as file:
                pids = [int(line) for line in file]
        except OSError:  # a threaded group tells none; it was removed
            pids = []
        told = [*map(self._called, pids[:_NAMED]), *sorted(groups)][:_NAMED]
        more = len(pids) + len(groups) - len(told)
        return ", ".join(told) + (f" and {more} more" if more else "")

    def _called(self, pid: int) -> str:
        if not pid:
            return "a process that cannot be seen from here"
        comm = (self._host.text(f"/proc/{pid}/comm", []) or "").rstrip("\n")
        return f"{comm} (pid {pid})" if comm else f"process {pid}"


def limits_of_new_group(
    host: Host, told: str, *, most: Limit = None, high: Limit = None, swap: Limit = None
) -> tuple[Change, ...]:
    """What makes a cgroup that may hold so many bytes, and so many of swap; of one that is there, what limits it.

    Raises Failure.
    """
    tree = tree_of(host)
    path = path_in(tree, told)
    which(Place(kind=_KIND, of=path))
    if os.path.isdir(host.root + folder_of(tree, path)):
        return limits_of_group(host, path, most=most, high=high, swap=swap)
    files = dict(limits_of_none(tree, most=most, high=high, swap=swap))
    return (Change(place=Place(kind=_KIND, of=path, key="+".join(files)), want="+".join(files.values())),)


def to_start_in(host: Host, place: Place) -> tuple[str, ...]:
    """What starts a command in such a group; COMMAND stands for it. Raises Failure."""
    procs = f"{folder_of(tree_of(host), which(place)[1])}/cgroup.procs"
    return ("sh", "-c", 'echo $$ > "$0" && exec "$@"', procs, "COMMAND")


def _limits(place: Place) -> list[Place]:
    return [Place(kind="cgroup", of=place.of, key=key) for key in place.key.split("+")]


def _mode(held: Held) -> int:
    return S_IMODE(os.fstat(held.folder).st_mode)


def _theirs() -> Failure:
    return Failure("somebody else has made it", hint="it stays")


def _remove_now(folder: str, held: Held) -> None:
    """Never another than what is held, which may lie there by now: no call removes by a descriptor.

    Raises OSError, Failure.
    """
    found = os.stat(folder, follow_symlinks=False)
    if not os.path.samestat(found, os.fstat(held.folder)) or not found.st_mode & S_ISVTX:
        raise _theirs()
    os.rmdir(folder)


def _remove_empty(folder: str, held: Held) -> None:
    """Never one that holds anybody; who has just ended may be counted a moment longer. Raises OSError, Failure."""
    until = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return _remove_now(folder, held)
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > until:
                raise
        time.sleep(0.01)


def _upwards(path: str) -> list[str]:
    """The path, then that of each group around it, but for the root.

    >>> _upwards("/a/b")
    ['/a/b', '/a']
    """
    return [] if path in ("", "/") else [path, *_upwards(os.path.dirname(path))]


def _slice(path: str) -> str:
    """How systemd makes a group with a limit: a slice, which lies in the one whose name it begins with."""
    outer, name = os.path.split(path)
    inside = f"{os.path.basename(outer).removesuffix('.slice')}-" if outer.endswith(".slice") else ""
    called = inside + re.sub(r"[^A-Za-z0-9_.:]", "_", name)
    return f"reprieve fix limit {called}.slice …, then systemd-run --slice={called} COMMAND, or Slice= in a unit"


def _not_made(lies: str, error: OSError) -> Failure:
    if error.errno == errno.EAGAIN:  # cgroup_check_hierarchy_limits() in kernel/cgroup/cgroup.c
        return Failure(
            f"{lies}: there may be no more groups, or none so deep",
            hint="see cgroup.max.descendants and cgroup.max.depth of those around it",
        )
    return failure_of(lies, error)

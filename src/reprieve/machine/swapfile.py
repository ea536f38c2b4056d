"""A swap file in three places, each switched by one call: the file, its use now, its line in /etc/fstab."""

import ctypes
import errno
import os
import re
import stat
import struct
import uuid
from typing import NamedTuple

from reprieve.machine.host import Host, available_bytes, may
from reprieve.machine.source import shown
from reprieve.machine.writer import before_an_open_end, beside_it, may_replace, may_write, remove_file, replace_file
from reprieve.model.finding import Failure, NoRight, Place
from reprieve.model.rootfs import HOLD_SWAP
from reprieve.units import MIB, size

_PATH = r"(?:/[A-Za-z0-9_.+-]+)+"  # what a line of fstab and of /proc/swaps holds without escapes
_KEEP_FREE = 0.05  # of the file system: a full disk stops more than a full memory does
_FITS = 0.9  # of what is available: so much of swap can be taken back
_SYS_ADMIN = 21  # capabilities(7)
_BOOT_BYTES, _INFO, _SIGNATURE = 1024, "=III16s16s", b"SWAPSPACE2"  # of swap_header; the last in its first page
_PREFER = 0x8000  # SWAP_FLAG_PREFER
_FSTAB = "/etc/fstab"


class SwapFile:
    """`swapfile:/swapfile`: a file made for swap, its value its size in bytes. It stays."""

    lasts = True

    def __init__(self, host: Host) -> None:
        self._host = host

    def get(self, place: Place) -> str | None:
        """Its size; `other` where something lies that was not made for swap."""
        path = _at(self._host, place)
        try:
            found = os.lstat(path)
            if not stat.S_ISREG(found.st_mode):
                return "other"
            with open(path, "rb") as file:
                head = file.read(os.sysconf("SC_PAGE_SIZE"))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Failure(f"{shown(path)}: {error.strerror}", hint="run it as root") from error
        return str(found.st_size) if head.endswith(_SIGNATURE) else "other"

    def put(self, place: Place, want: str | None) -> None:
        """Made beside, zeros to the last byte as swap takes no holes, and given its name in one call."""
        path = _at(self._host, place)
        if want is None:
            if _used(self._host, place) is not None:  # by its line in fstab, since a later boot
                Swapping(self._host).put(place, None)
            remove_file(path)
            return
        if os.path.lexists(path):
            raise _is_there(path)
        beside = beside_it(path)
        remove_file(beside)
        try:
            try:
                _fill(beside, int(want))
                os.link(beside, path)  # a rename would take the place of what has come there meanwhile
            finally:
                remove_file(beside)  # which has the folder on disk, too
        except FileExistsError as error:
            raise _is_there(path) from error
        except OSError as error:
            raise Failure(f"{shown(path)}: {error.strerror}", hint="a smaller one may fit") from error

    def canonical(self, place: Place, want: str | None) -> str | None:
        """Whole MiB."""
        _path(place)
        if want is None:
            return None
        if not (want.isascii() and want.isdecimal() and int(want) >= MIB):
            raise Failure(f"{want!r} is no size of a swap file", hint="at least 1M")
        return str(int(want) // MIB * MIB)

    def obstacle(self, place: Place, want: str | None) -> Failure | None:
        """Something lies there; a file system that cannot hold it, or would be full."""
        path = _at(self._host, place)
        if want is None:
            return may_replace(path)
        if self.get(place) is not None:
            return _is_there(path)
        folder = os.path.dirname(path)
        if (open_to := _open_to_others(folder)) is not None:
            return Failure(
                f"{shown(open_to)} is not root's alone: who may write there could have memory swapped to his own file",
                hint="name another file: --file",
            )
        kind = _file_system(self._host, os.path.dirname(_path(place)) or "/")
        if kind not in HOLD_SWAP:
            return Failure(
                f"{shown(folder)} is on {kind or 'what is not known'}, which cannot hold a swap file like this one",
                hint=f"name a file on {', '.join(HOLD_SWAP)}: --file",
            )
        try:
            disk = os.statvfs(folder)
        except OSError as error:
            return Failure(f"{shown(folder)}: {error.strerror}", hint="name another file: --file")
        free, keep = disk.f_bavail * disk.f_frsize, int(disk.f_blocks * disk.f_frsize * _KEEP_FREE)
        if free - int(want) < keep:
            fits = max(free - keep, 0) // MIB
            most = f"{fits}M would fit: --size {fits}M" if fits else "name a file on another disk: --file"
            return Failure(f"{shown(folder)} has {size(free)} free, of which {size(keep)} should stay free", hint=most)
        return may_replace(path)


def _is_there(path: str) -> Failure:
    return Failure(f"{shown(path)} is there already", hint="name another file: --file")


def _open_to_others(folder: str) -> str | None:
    """The first folder on the way in which somebody else than root, or us, may rename what is not his."""
    for way in (folder, os.path.realpath(folder)):
        for end in range(way.count("/") + 1):
            above = "/".join(way.split("/")[: end + 1]) or "/"
            try:
                found = os.stat(above)
            except OSError:  # told when the file system is asked
                return None
            others = found.st_mode & stat.S_IWOTH or (found.st_mode & stat.S_IWGRP and found.st_gid != 0)
            if found.st_uid not in (0, os.geteuid()) or (others and not found.st_mode & stat.S_ISVTX):
                return above
    return None


class Swapping:
    """`swap:/swapfile`: is it swapped to? `on`, or absent. It goes with the boot."""

    lasts = False

    def __init__(self, host: Host) -> None:
        self._host = host

    def get(self, place: Place) -> str | None:
        """As /proc/swaps tells."""
        return "on" if _used(self._host, place) is not None else None

    def put(self, place: Place, want: str | None) -> None:
        """Swap to it, or no longer if what is in it fits into memory."""
        path = _at(self._host, place)
        if want is not None:
            swap_on(path)
        elif (used := _used(self._host, place)) is not None:
            swap_off(path, used)

    def canonical(self, place: Place, want: str | None) -> str | None:
        """`on`, whatever is wanted."""
        return None if want is None else "on"

    def obstacle(self, place: Place, want: str | None) -> Failure | None:
        """Only CAP_SYS_ADMIN may."""
        _path(place)
        return refused_to_swap()


class FstabLine:
    """`fstab:/swapfile`: its line in /etc/fstab, by which each boot swaps to it."""

    lasts = True

    def __init__(self, host: Host) -> None:
        self._host = host

    def get(self, place: Place) -> str | None:
        """Its line, with single blanks."""
        path = _path(place)
        return next((" ".join(line.split()) for line in self._lines() if line.split()[:1] == [path]), None)

    def put(self, place: Place, want: str | None) -> None:
        """The file with this line, or without it, and all others as they were."""
        ours = self.canonical(place, "")
        lines = [line for line in self._lines() if " ".join(line.split()) != ours]
        if want is not None:
            lines.insert(before_an_open_end(lines), f"{want}\n")
        replace_file(self._host.root + _FSTAB, "".join(lines).encode("utf-8", "surrogateescape"))

    def canonical(self, place: Place, want: str | None) -> str | None:
        """The one line there is for a swap file."""
        return None if want is None else f"{_path(place)} none swap sw 0 0"

    def obstacle(self, place: Place, want: str | None) -> Failure | None:
        """There is a line for it that says something else, or the file cannot be written."""
        found = self.get(place)
        if os.path.islink(self._host.root + _FSTAB):
            return Failure(f"{_FSTAB} is a link, made by somebody else", hint="--runtime does without it")
        if want is not None and found is not None:
            return Failure(f"{_FSTAB} has a line for it: {found}", hint="name another file: --file")
        return may_write(self._host.root + _FSTAB) or may_replace(self._host.root + _FSTAB)

    def _lines(self) -> list[str]:
        try:
            return self._host.read(_FSTAB).decode("utf-8", "surrogateescape").splitlines(keepends=True)
        except OSError as error:
            raise Failure(f"{_FSTAB}: {error.strerror}", hint="--runtime does without it") from error


def _path(place: Place) -> str:
    if re.fullmatch(_PATH, place.of) is None or "/../" in f"{place.of}/" or "/./" in f"{place.of}/":
        raise Failure(f"{place.of!r} is no path of a swap file", hint="letters, digits and ._+- : /swapfile")
    return place.of


def _at(host: Host, place: Place) -> str:
    return host.root + _path(place)


def _used(host: Host, place: Place) -> int | None:
    """How many bytes are in it; None: it is not swapped to. The kernel tells its path with links resolved."""
    areas, path = swap_areas(host), _path(place)
    area = areas.get(path) or areas.get(os.path.realpath(path))
    return None if area is None else area.used_bytes


class Area(NamedTuple):
    """What is swapped to, as a line of /proc/swaps tells."""

    used_bytes: int
    priority: int


def swap_areas(host: Host) -> dict[str, Area]:
    """What is swapped to, by path. Raises Failure."""
    try:
        lines = host.read("/proc/swaps").decode(errors="backslashreplace").splitlines()[1:]
    except OSError as error:
        raise Failure(f"/proc/swaps: {error.strerror}") from error
    areas = (words for words in map(str.split, lines) if len(words) == 5)
    return {path: Area(int(used) * 1024, int(priority)) for path, _type, _size, used, priority in areas}


def refused_to_swap() -> Failure | None:
    """Only CAP_SYS_ADMIN may."""
    if may(_SYS_ADMIN):
        return None
    return NoRight("CAP_SYS_ADMIN is missing, without which nobody swaps", hint="run it as root, on the host")


def _file_system(host: Host, folder: str) -> str | None:
    """Of the mount that holds a folder: the longest that is a beginning of it, the last of those that are alike."""
    try:
        lines = host.read("/proc/self/mounts").decode(errors="backslashreplace").splitlines()
    except OSError:
        return None
    best, kind = "", None
    for line in lines:
        words = line.split()
        if len(words) < 3:
            continue
        mount = words[1].rstrip("/")
        if f"{folder}/".startswith(f"{mount}/") and len(mount) >= len(best):
            best, kind = mount, words[2]
    return kind


def _fill(path: str, size_bytes: int) -> None:
    """A head for swap, then zeros; on disk after each 64 MiB: dirty pages are memory, which may be what is short."""
    zeros, piece = bytes(MIB), 64
    head = swap_head(size_bytes)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        for written in range(0, size_bytes, MIB):
            data = memoryview(zeros if written else head + zeros[len(head) :])
            while data:
                data = data[os.write(descriptor, data) :]
            if written // MIB % piece == piece - 1:
                os.fdatasync(descriptor)
                os.posix_fadvise(descriptor, 0, written + MIB, os.POSIX_FADV_DONTNEED)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def swap_head(size_bytes: int, label: str = "") -> bytes:
    """What makes a file one for swap, as mkswap(8) writes it: union swap_header in include/linux/swap.h, version 1.

    Written here: where swap is needed most, there may be no memory left to start a program.
    """
    page = os.sysconf("SC_PAGE_SIZE")
    info = struct.pack(_INFO, 1, size_bytes // page - 1, 0, uuid.uuid4().bytes, label.encode())
    return (bytes(_BOOT_BYTES) + info).ljust(page - len(_SIGNATURE), b"\0") + _SIGNATURE


def swap_label(head: bytes) -> str | None:
    """The label in the first page of swap; None: it is no swap."""
    if not head.endswith(_SIGNATURE):
        return None
    label: bytes = struct.unpack_from(_INFO, head, _BOOT_BYTES)[-1]
    return label.rstrip(b"\0").decode(errors="backslashreplace")


def swap_on(path: str, *, priority: int | None = None) -> None:
    """swapon(2); without a priority the kernel gives one, below those given. Raises Failure."""
    _switched("swapon", path, _libc().swapon(os.fsencode(path), 0 if priority is None else _PREFER | priority))


def swap_off(path: str, used_bytes: int) -> None:
    """swapoff(2), if so much fits into memory. Raises Failure."""
    left = available_bytes()
    if left is None or used_bytes > left * _FITS:
        free = "" if left is None else f", of which {size(left)} can be had"
        raise Failure(
            f"{size(used_bytes)} in {shown(path)} do not fit into memory{free}", hint="end what holds it, then again"
        )
    # A signal ends it. Where signals are only noted it is called again, as Python repeats its own calls and not those
    # of ctypes; where they are `interruptible`, as in `reprieve undo`, the first raises, and the swap stays on.
    while (status := _libc().swapoff(os.fsencode(path))) != 0 and ctypes.get_errno() == errno.EINTR:
        pass
    _switched("swapoff", path, status)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _switched(call: str, path: str, status: int) -> None:
    if status != 0:
        error = ctypes.get_errno()
        hint = _HOLES if call == "swapon" and error == errno.EINVAL else "dmesg may say more"
        raise Failure(f"{shown(path)}: {call}: {os.strerror(error)}", hint=hint)


_HOLES = "its file system holds no swap files"

"""Write a file so that a crash leaves the old one or the new one, whole; write a setting of the kernel."""

import contextlib
import errno
import os
import re
import stat
import struct
import sys
from collections.abc import Iterator

from reprieve.machine.source import shown
from reprieve.model.finding import Failure, NoRight

_MODE = 0o644


def replace_file(path: str, data: bytes, *, folder: int | None = None) -> None:
    """Switch new contents in by one rename; owner, mode, label of the old file stay. The folder must be there.

    `folder` is where it lies, held by `hold_folder`; else the path is followed once. Raises Failure: it cannot be
    written, or it is a link, whose target is somebody else's.
    """
    name, beside = os.path.basename(path), os.path.basename(beside_it(path))
    try:
        with contextlib.ExitStack() as opened:
            start, at = (".", folder) if folder is not None else (os.path.dirname(path), None)
            there = os.open(start, _TO_FLUSH, dir_fd=at)
            opened.callback(os.close, there)
            old = _regular(name, there)
            if old is not None:
                opened.callback(os.close, old)
            _unlink(beside, there)  # left by a crash
            descriptor = os.open(beside, _TO_MAKE, 0o600, dir_fd=there)
            try:
                try:
                    _write_all(descriptor, data)
                    _copy(old, descriptor)
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
                os.rename(beside, name, src_dir_fd=there, dst_dir_fd=there)
            except BaseException:
                with contextlib.suppress(OSError):
                    _unlink(beside, there)
                raise
            os.fsync(there)
    except OSError as error:
        raise failure_of(path, error) from error


def hold_folder(folder: str) -> int:
    """A folder by its path, as a descriptor: what is done by it is done there, wherever the path leads by then.

    No link on the way is followed: it would lead where he wants who may put one there. Raises OSError.
    """
    held = os.open("/", _STEP)
    for name in folder.split("/"):
        if name:
            try:
                step = os.open(name, _STEP, dir_fd=held)
            finally:
                os.close(held)
            held = step
    return held


_STEP = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_TO_FLUSH = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_TO_MAKE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_file(path: str) -> None:
    """Take a file away, and what a crash left beside it; nothing if there is none. Raises Failure."""
    try:
        _unlink(beside_it(path))
        _unlink(path)
        flush_folder(os.path.dirname(path))
    except OSError as error:
        raise failure_of(path, error) from error


def write_setting(path: str, value: str) -> None:
    """Hand the kernel a value by one write(2). Raises Failure."""
    try:
        hand(path, value)
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise Failure(
                f"{shown(path)}: the kernel refuses {value!r}", hint="its documentation names the range"
            ) from error
        raise failure_of(path, error) from error


def hand(path: str, value: str, *, folder: int | None = None) -> None:
    """The one write(2), to a file by its path or by its name in a folder that is held open. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC, dir_fd=folder)
    try:
        os.write(descriptor, f"{value}\n".encode())
    finally:
        os.close(descriptor)


def may_write(path: str) -> Failure | None:
    """What stands in the way of writing to a file or a folder that is there; None: nothing. Changes nothing."""
    try:
        if os.access(path, os.W_OK, effective_ids=True):
            return None
        if (kept := _kept_by(path)) is not None:
            return kept
        read_only = os.statvfs(path).f_flag & os.ST_RDONLY
    except OSError as error:
        return failure_of(path, error)
    return failure_of(path, OSError(errno.EROFS if read_only else errno.EACCES, ""))


def may_replace(path: str) -> Failure | None:
    """What stands in the way of a file made, switched in or taken away; None: nothing. Its folder must be there."""
    folder = os.path.dirname(path)
    return _kept_by(path) or _kept_by(folder) or may_write(folder)


def _kept_by(path: str) -> Failure | None:
    """What chattr(1) has set on a file or a folder, which holds for root too; None: nothing, or it is not told."""
    import fcntl

    try:
        if not stat.S_ISREG(mode := os.lstat(path).st_mode) and not stat.S_ISDIR(mode):
            return None
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            flags = int.from_bytes(fcntl.ioctl(descriptor, _GETFLAGS, bytes(8))[:4], sys.byteorder)
        finally:
            os.close(descriptor)
    except OSError:  # it is not there, may not be read, or its file system has none
        return None
    for flag, letter, word in ((_IMMUTABLE, "i", "immutable"), (_APPEND, "a", "append-only")):
        if flags & flag:
            hint = f"lsattr -d {shown(path)} shows it; chattr -{letter} ends it, if who set it agrees"
            return Failure(f"{shown(path)} is {word} (chattr +{letter})", hint=hint)
    return None


_GETFLAGS = 0x80006601 | struct.calcsize("l") << 16  # FS_IOC_GETFLAGS; other on PowerPC, MIPS and SPARC: no flags then
_IMMUTABLE, _APPEND = 0x10, 0x20


@contextlib.contextmanager
def acting_as(uid: int) -> Iterator[None]:
    """Within the block root is to the kernel that user, in his first group alone; who is not root is who he is.

    Raises Failure: a container may lack the right to.
    """
    if os.geteuid() != 0 or uid == 0:
        yield
        return
    groups, gid = os.getgroups(), os.getegid()
    try:
        try:
            os.setgroups(())
            os.setegid(_group_of(uid))
            os.seteuid(uid)
        except OSError as error:
            raise Failure(f"user {uid}: {error.strerror}", hint="it takes CAP_SETUID and CAP_SETGID") from error
        yield
    finally:
        try:
            _be_root_again(gid, groups)
        finally:
            _be_root_again(gid, groups)  # an interruption between two of these calls, which comes once


def _be_root_again(gid: int, groups: list[int]) -> None:
    os.seteuid(0)
    os.setegid(gid)
    os.setgroups(groups)


def _group_of(uid: int) -> int:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_gid
    except KeyError:  # a user of a container
        return uid


def before_an_open_end(lines: list[str]) -> int:
    """Where a line is added so that without it each byte is as it was: not behind a last line that has no end."""
    return len(lines) - (lines != [] and not lines[-1].endswith("\n"))


def managed_by(text: str) -> str | None:
    """The configuration management whose mark a file begins with: what is changed in it is lost at its next run."""
    found = re.search(_MANAGED, text[:2000], re.IGNORECASE)
    return found[0] if found is not None and re.search("managed|do not edit", text[:2000], re.IGNORECASE) else None


_MANAGED = r"\b(?:Ansible|Puppet|Chef|SaltStack|Salt|CFEngine|NixOS)\b"


def make_folder(folder: str) -> None:
    """Make a folder, and those it is in, each on disk when this returns; nothing if it is there. Raises OSError.

    A file that is flushed is not in a folder that is not: fsync(2).
    """
    if not os.path.isdir(folder):
        above = os.path.dirname(folder) or "."
        make_folder(above)
        try:
            os.mkdir(folder, 0o755)
        except FileExistsError:
            if not os.path.isdir(folder):  # a file, or a link that leads nowhere; else somebody else was faster
                raise
        flush_folder(above)


def flush_folder(folder: str) -> None:
    """Have what a folder holds on disk. Raises OSError."""
    descriptor = os.open(folder, _TO_FLUSH)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def beside_it(path: str) -> str:
    """Where a file is made before it is switched in: no reader of *.conf takes it for one."""
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{name}.reprieve")


def _unlink(path: str, folder: int | None = None) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path, dir_fd=folder)


def _regular(name: str, folder: int) -> int | None:
    """A file, opened; None where there is none."""
    try:
        found = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return None
    try:
        if stat.S_ISREG(os.fstat(found).st_mode):  # what is none is not opened: a watchdog starts when it is
            return os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(found)
    raise OSError(errno.EINVAL, "it is no regular file, and a link is not written through")


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _copy(old: int | None, new: int) -> None:
    """Owner, mode, labels and access lists; a file system that keeps none of the last has none to copy."""
    if old is None:
        os.fchmod(new, _MODE)
        return
    found = os.fstat(old)
    os.fchown(new, found.st_uid, found.st_gid)
    try:
        for name in os.listxattr(old):
            os.setxattr(new, name, os.getxattr(old, name))
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
    os.fchmod(new, stat.S_IMODE(found.st_mode))


_HINTS = {
    errno.EACCES: "run it as root (CAP_DAC_OVERRIDE)",
    errno.EPERM: "run it as root; to root it is refused while it is in use",
    errno.EROFS: "it is mounted read-only, as in most containers: change it on the host, or in the image",
    errno.ENOSPC: "the disk is full",
}


def failure_of(path: str, error: OSError) -> Failure:
    """What the kernel refused of a file, and what to do about it."""
    if error.errno == errno.EPERM and (kept := _kept_by(path) or _kept_by(os.path.dirname(path))) is not None:
        return kept
    reason = os.strerror(error.errno) if error.errno and not error.strerror else error.strerror
    lacking = error.errno == errno.EACCES or (error.errno == errno.EPERM and os.geteuid() != 0)
    kind = NoRight if lacking else Failure
    return kind(f"{shown(path)}: {reason}", hint=_HINTS.get(error.errno or 0))

"""Write a file so that a crash leaves the old one or the new one, whole; write a setting of the kernel."""

import contextlib
import errno
import os
import re
import stat
from collections.abc import Iterator

from reprieve.machine.source import shown
from reprieve.model.finding import Failure

_MODE = 0o644


def replace_file(path: str, data: bytes) -> None:
    """Switch new contents in by one rename; owner, mode, label of the old file stay. The folder must be there.

    Raises Failure: it cannot be written, or it is a link, whose target is somebody else's.
    """
    folder, beside = os.path.dirname(path), beside_it(path)
    try:
        old = _regular(path)
        _unlink(beside)  # left by a crash
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            _write_all(descriptor, data)
            if old is not None:
                os.fchown(descriptor, old.st_uid, old.st_gid)
                _copy_attributes(path, descriptor)
            os.fchmod(descriptor, _MODE if old is None else stat.S_IMODE(old.st_mode))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(beside, path)
        flush_folder(folder)
    except OSError as error:
        raise failure_of(path, error) from error


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
        read_only = os.statvfs(path).f_flag & os.ST_RDONLY
    except OSError as error:
        return failure_of(path, error)
    return failure_of(path, OSError(errno.EROFS if read_only else errno.EACCES, ""))


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
        os.seteuid(0)
        os.setegid(gid)
        os.setgroups(groups)


def _group_of(uid: int) -> int:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_gid
    except KeyError:  # a user of a container
        return uid


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
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def beside_it(path: str) -> str:
    """Where a file is made before it is switched in: no reader of *.conf takes it for one."""
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{name}.reprieve")


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _regular(path: str) -> os.stat_result | None:
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is no regular file, and a link is not written through")
    return found


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _copy_attributes(path: str, descriptor: int) -> None:
    """Labels and access lists; a file system that keeps none has none to copy."""
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return
        raise
    for name in names:
        os.setxattr(descriptor, name, os.getxattr(path, name, follow_symlinks=False))


_HINTS = {
    errno.EACCES: "run it as root (CAP_DAC_OVERRIDE)",
    errno.EPERM: "run it as root; to root it is refused while it is in use, or immutable (lsattr)",
    errno.EROFS: "it is mounted read-only, as in most containers: change it on the host, or in the image",
    errno.ENOSPC: "the disk is full",
}


def failure_of(path: str, error: OSError) -> Failure:
    """What the kernel refused of a file, and what to do about it."""
    reason = os.strerror(error.errno) if error.errno and not error.strerror else error.strerror
    return Failure(f"{shown(path)}: {reason}", hint=_HINTS.get(error.errno or 0))

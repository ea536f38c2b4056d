"""What a process was started with: its program, its words, its environment, and files that these name.

All of it is of the process' own making, and secrets are in it: readers take settings out of it, and keep nothing else.
"""

import errno
import os
import posixpath
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from stat import S_ISLNK, S_ISREG
from typing import NamedTuple

from reprieve.machine.host import Host
from reprieve.machine.proc import Problems, note, read_processes
from reprieve.model.process import Process

FILE_BYTES = 65536  # of a file of options: the longest honest one is a tenth of it
_DEEP = 64
_LINKS = 40  # as the kernel: MAXSYMLINKS


class Started(NamedTuple):
    """What a process was started with."""

    program: str | None  # its file, as the process sees it; None: we may not know
    words: tuple[str, ...] | None  # argv; None: refused, or written over by the process to show a title
    environ: Mapping[str, str] | None  # of it what was asked for; None: refused


def running(host: Host, processes: Collection[Process], names: Collection[str]) -> Iterator[tuple[Process, str | None]]:
    """Those whose program has one of these names, and its path; where we may not know it, those that look as if.

    A process chooses its name and its words, but not what /proc/PID/exe leads to.
    """
    for process in processes:
        if process.kernel_thread or process.state in ("Z", "X"):
            continue
        try:
            program = os.readlink(os.fsencode(f"{host.root}/proc/{process.pid}/exe"))
        except OSError:  # it may not be told to us, or was not captured
            if process.comm not in names and process.comm not in _MAIN:
                continue
            words = _read(host, process.pid, "cmdline", {})
            first = (words or b"").partition(b"\0")[0].partition(b" ")[0]  # a title may follow it
            called = first.rpartition(b"/")[2].decode(errors="backslashreplace")
            if called in names:
                yield process, None
            continue
        path = program.decode(errors="backslashreplace").removesuffix(" (deleted)")
        if posixpath.basename(path) in names:
            yield process, path


_MAIN = ("MainThread", "node-MainThread")  # so Node names its main thread since 22.14


def read_started(
    host: Host, process: Process, program: str | None, names: Collection[str], problems: Problems
) -> Started | None:
    """Words and environment (the variables of these names) of a process; None if it has gone, or is not there yet.

    Its new program is told of before its words are: they are set last of all (create_elf_tables() in fs/binfmt_elf.c).
    """
    words = _read(host, process.pid, "cmdline", problems)
    environ = _read(host, process.pid, "environ", problems)
    now = [one.start_ticks for one in read_processes(host, [], files=(), pids=[process.pid])]
    if now != [process.start_ticks] or words == b"":
        return None
    told: dict[str, str] = {}
    for line in (environ or b"").split(b"\0"):
        name, equals, value = line.decode(errors="backslashreplace").partition("=")
        if equals and name in names:
            told.setdefault(name, value)  # getenv() takes the first
    return Started(
        program=program, words=None if words is None else _words(words), environ=None if environ is None else told
    )


def _words(data: bytes) -> tuple[str, ...] | None:
    """A title is written over the words, and the rest filled up with zeros, as libuv's uv_set_process_title() does."""
    words = data.removesuffix(b"\0").split(b"\0")
    if len(words) > 1 and not any(words[1:]):
        return None
    return tuple(word.decode(errors="backslashreplace") for word in words)


def read_file(host: Host, process: Process, path: str) -> str | None:
    """The beginning of a file that a process named, as the process sees it; None if there is none we may read."""
    try:
        return read_seen(host, process, path, FILE_BYTES).decode(errors="backslashreplace")
    except (OSError, ValueError):  # ValueError: a NUL in the path; either way there is nothing that can be read
        return None


def read_seen(host: Host, process: Process, path: str, limit: int) -> bytes:
    """The first `limit` bytes of a regular file, as a process sees it; what is none is not opened.

    Raises OSError, and ValueError: a NUL in the path.
    """
    with reached(host, process, path) as step:
        if not S_ISREG(os.fstat(step).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        descriptor = os.open(f"/proc/self/fd/{step}", os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        parts, left = [], limit
        while left and (data := os.read(descriptor, min(left, 65536))):
            parts.append(data)
            left -= len(data)
        return b"".join(parts)
    finally:
        os.close(descriptor)


def names_seen(host: Host, process: Process, path: str) -> list[str]:
    """What a folder holds, as a process sees it. Raises as `read_seen` does."""
    with reached(host, process, path) as step:
        return os.listdir(f"/proc/self/fd/{step}")


@contextmanager
def reached(host: Host, process: Process, path: str) -> Iterator[int]:
    """What lies at a path as a process sees it, as a descriptor that is at it and has not opened it.

    Links are followed within the root of the process alone, one name at a time: it could have made one that leads to a
    device of ours, and swap it in while we look. A path that leads upwards ends at the root.
    """
    folder = f"{host.root}/proc/{process.pid}"
    if not path.startswith("/"):
        path = f"{os.readlink(f'{folder}/cwd')}/{path}"
    opened = [os.open(f"{host.root or folder + '/root'}/", _STEP | os.O_DIRECTORY)]
    try:
        _walk(opened, path)
        yield opened[-1]
    finally:
        for descriptor in opened:
            os.close(descriptor)


def _walk(opened: list[int], path: str) -> None:
    """From the root, which is open, to the end of the path; what is on the way stays open."""
    left, links = path.split("/")[::-1], 0
    while left:
        name = left.pop()
        if name == ".." and len(opened) > 1:
            os.close(opened.pop())
        if name in ("", ".", ".."):
            continue
        if len(opened) > _DEEP:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        step = os.open(name, _STEP | os.O_NOFOLLOW, dir_fd=opened[-1])
        opened.append(step)
        if S_ISLNK(os.fstat(step).st_mode):
            target = os.readlink("", dir_fd=step)
            os.close(opened.pop())
            if (links := links + 1) > _LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            if target.startswith("/"):
                while len(opened) > 1:
                    os.close(opened.pop())
            left += target.split("/")[::-1]


_STEP = os.O_PATH | os.O_CLOEXEC


def _read(host: Host, pid: int, file: str, problems: Problems) -> bytes | None:
    """A file of a process; None where there is none, or it is refused."""
    try:
        return host.read(f"/proc/{pid}/{file}")
    except (FileNotFoundError, ProcessLookupError, NotADirectoryError):
        return None
    except OSError as error:
        note(problems, file, (error.strerror or str(error)).lower(), pid, isinstance(error, PermissionError))
        return None

"""What fills the file systems that are memory, and the shared memory of System V."""

import os
from collections.abc import Collection
from dataclasses import replace
from heapq import nlargest
from typing import NamedTuple

from reprieve.machine.host import Host
from reprieve.machine.memory import lines_of, number, tell_odd
from reprieve.model.finding import Gap
from reprieve.model.machine import HeldFile, Segment, Tmpfs

ENTRIES = 10_000  # looked at, in all file systems together: some 50 ms
LARGEST = 5
LEAST_BYTES = 1024 * 1024  # a file system that holds less is not looked into


def read_segments(host: Host, gaps: list[Gap]) -> tuple[Segment, ...]:
    """/proc/sysvipc/shm, in its order; empty where there are none, or the kernel knows of no such thing."""
    path = "/proc/sysvipc/shm"
    segments, odd = [], 0
    for line in lines_of(host, gaps, path):
        words = line.split()
        if words[:2] == ["key", "shmid"]:
            continue
        # sysvipc_shm_proc_show() in ipc/shm.c: key, shmid, perms, size, cpid, lpid, nattch, uid, …, ctime, rss, swap
        told = [number(word) for word in words[1:]]  # a key may be negative
        shmid, _, size, creator, _, attached, uid = told[:7] if len(told) >= 13 and None not in told else [None] * 7
        if shmid is None or size is None or creator is None or attached is None or uid is None:
            odd += 1
            continue
        rss, swap = told[13:15] if len(told) >= 15 else (None, None)
        segments.append(
            Segment(
                number=shmid,
                size_bytes=size,
                creator_pid=creator,
                attached=attached,
                uid=uid,
                rss_bytes=rss,
                swap_bytes=swap,
            )
        )
    tell_odd(gaps, path, odd)
    return tuple(segments)


def find_largest(
    host: Host, gaps: list[Gap], file_systems: tuple[Tmpfs, ...], mounted: Collection[str]
) -> tuple[Tmpfs, ...]:
    """The same file systems, those of which it is known that they hold much with their largest files.

    Nothing that is `mounted` within them is touched: who serves it may not answer. At most `ENTRIES` are looked at, the
    fullest file system first; where that does not do, it is a gap.
    """
    left = ENTRIES
    full = [tmpfs for tmpfs in file_systems if (tmpfs.used_bytes or 0) >= LEAST_BYTES]
    looked: dict[str, Tmpfs] = {}
    for tmpfs in sorted(full, key=lambda tmpfs: -(tmpfs.used_bytes or 0)):
        seen = _look(host, tmpfs.path, mounted, left)
        left -= seen.entries
        if seen.entries_left_out:
            gaps.append(Gap(place=tmpfs.path, reason=f"holds more than the {ENTRIES} files that were looked at"))
        if seen.refused:
            place, error = seen.refused[0]
            more = f", and {len(seen.refused) - 1} more folders could not be looked into" if seen.refused[1:] else ""
            hint = "run it as root" if isinstance(error, PermissionError) else None
            gaps.append(Gap(place=place, reason=(error.strerror or str(error)).lower() + more, hint=hint))
        looked[tmpfs.path] = replace(
            tmpfs,
            found_bytes=None if seen.entries_left_out or seen.refused else sum(file.held_bytes for file in seen.files),
            largest=tuple(nlargest(LARGEST, seen.files, key=lambda file: file.held_bytes)),
        )
    return tuple(looked.get(tmpfs.path, tmpfs) for tmpfs in file_systems)


class _Seen(NamedTuple):
    """What was found below a mount point."""

    files: list[HeldFile]  # each once, however many names it has
    refused: list[tuple[str, OSError]]
    entries: int
    entries_left_out: bool


def _look(host: Host, top: str, mounted: Collection[str], most: int) -> _Seen:
    files: list[HeldFile] = []
    refused: list[tuple[str, OSError]] = []
    linked: set[int] = set()
    entries = 0
    folders = [top]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(host.at(folder)) as found:
                for entry in found:
                    path = f"{folder.rstrip('/')}/{entry.name}"
                    text = os.fsencode(path).decode(errors="backslashreplace")
                    if text in mounted:
                        continue
                    if entries >= most:
                        return _Seen(files, refused, entries, entries_left_out=True)
                    entries += 1
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(path)
                    elif entry.is_file(follow_symlinks=False):
                        try:
                            status = entry.stat(follow_symlinks=False)
                        except FileNotFoundError:  # it was removed meanwhile
                            continue
                        if status.st_ino not in linked:
                            files.append(HeldFile(path=text, held_bytes=status.st_blocks * 512, uid=status.st_uid))
                        if status.st_nlink > 1:
                            linked.add(status.st_ino)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:  # refused, or so deep that its path is too long
            refused.append((os.fsencode(folder).decode(errors="backslashreplace"), error))
    return _Seen(files, refused, entries, entries_left_out=False)

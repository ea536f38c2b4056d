"""A place kernel lines come from, and how the bytes of a file, a pipe or a device are read from it."""

import os
import stat
import sys
from collections.abc import Callable, Iterator
from functools import partial
from io import FileIO
from typing import NamedTuple

from reprieve.model.finding import Gap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from reprieve.model.ending import Ending

BLOCK_BYTES = 512 * 1024  # two fit the second-level cache; much larger blocks are slower

NOTHING_READ = "is empty: nothing was read"  # from standard input

Block = bytes | bytearray

# How compressed files begin. The fourth byte of "BZh" is the block size, "1" to "9".
_PACKINGS = ((b"\x1f\x8b", "gzip"), (b"\xfd7zXZ\x00", "xz"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"BZh", "bzip2"))
JOURNAL_MAGIC = b"LPKSHHRH"  # journal-def.h
_MARKS = ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"), (b"\xef\xbb\xbf", "utf-8-sig"))
if sys.platform == "win32":
    _READ_ONLY = os.O_RDONLY | os.O_BINARY | os.O_NOINHERIT
else:
    _READ_ONLY = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC  # a pipe without a writer: no waiting for one


class Folder:
    """A folder or an archive that was named: one kernel log in it is enough, and without one nothing is known."""

    __slots__ = ("hides", "holds_log", "name", "unread")

    def __init__(self, name: str, unread: int, *, hides: bool) -> None:
        self.name = name
        self.unread = unread  # how many of its sources
        self.hides = hides  # is any of it not among them, or could not be read? It may be the log
        self.holds_log = False


class Told(NamedTuple):
    """What a text tells of ends, read before its events are."""

    endings: tuple["Ending", ...]
    unread: bool  # YAML in it was given up
    given: tuple["Ending", ...] = ()  # those whose kill is meant


class Source(NamedTuple):
    """A place kernel lines come from.

    `blocks(gaps)` gives its plain text from the start, in blocks of 512 KiB or less; a bytearray is overwritten when
    the next block but one is asked for. What cannot be read ends it and is added to `gaps`; nothing is raised.
    Identifiers are None unless the source itself proves them: a file may hold other boots, and other machines.
    """

    name: str  # as evidence names it: the path as given, "/dev/kmsg", "journal (boot -1)", "stdin"
    kind: str  # "file", "pipe", "kmsg", "journal", "pstore"
    blocks: Callable[[list[Gap]], Iterator[Block]]
    machine_id: str | None = None
    boot_id: str | None = None
    newest_s: float | None = None  # when it was last written, seconds since 1970: sources are offered newest first
    named: bool = False  # by the user, itself: not a file of a folder or an archive, nor of this machine's own logs
    within: Folder | None = None  # what was named, where it lies in that
    told: Told | None = None  # None: not read beforehand
    kills: int | None = None  # how many the kernel counts since its boot, of the log that has told of each; None: not


def shown(path: str) -> str:
    """A path as text: bytes that are not UTF-8 as `\\xNN`."""
    return os.fsencode(path).decode(errors="backslashreplace")


def file_source(path: str, kind: str = "file", newest_s: float | None = None) -> Source:
    """A file or a named pipe, plain or compressed."""
    return Source(name=shown(path), kind=kind, blocks=partial(read_path, path), newest_s=newest_s)


def stdin_source() -> Source:
    """Standard input, whatever it is connected to."""
    return Source(name="stdin", kind="pipe", blocks=_read_stdin)


def packing_of(start: Block) -> str | None:
    """How a file that begins so is compressed; None if it is not."""
    for magic, packing in _PACKINGS:
        if start.startswith(magic) and (packing != "bzip2" or start[3:4].isdigit()):
            return packing
    return None


def open_quietly(path: str) -> FileIO:
    """Open for reading without waiting for a writer, becoming a terminal's owner, or buffering. Raises OSError."""
    return FileIO(path, "rb", opener=lambda path, _flags: os.open(path, _READ_ONLY))


def unreadable(path: str, error: OSError) -> Gap:
    """The gap that an error leaves, with what to do where something can be done."""
    if isinstance(error, PermissionError):
        return Gap(place=shown(path), reason="permission denied", hint=_permission_hint(path))
    if isinstance(error, FileNotFoundError):
        return Gap(place=shown(path), reason="does not exist")
    return Gap(place=shown(path), reason=(error.strerror or str(error)).lower())


def read_path(path: str, gaps: list[Gap]) -> Iterator[Block]:
    """The plain text of a file or a pipe."""
    try:
        file = open_quietly(path)
    except OSError as error:
        gaps.append(unreadable(path, error))
        return
    with file:
        yield from read_open(file, shown(path), gaps)


def read_open(file: FileIO, name: str, gaps: list[Gap]) -> Iterator[Block]:
    """The plain text of what is open, from where it stands; unpacked if it begins like a compressed file; as UTF-8."""
    yield from _in_utf_8(_unpacked(file, name, gaps))


def _in_utf_8(blocks: Iterator[Block]) -> Iterator[Block]:
    """The same text without a byte order mark; of UTF-16, which PowerShell writes behind `>`, where that mark tells."""
    first = next(blocks, None)
    if first is None:
        return
    encoding = next((name for mark, name in _MARKS if first.startswith(mark)), None)
    if encoding is None:
        yield first
        yield from blocks
        return
    from codecs import getincrementaldecoder
    from itertools import chain

    decoder = getincrementaldecoder(encoding)(errors="replace")
    for block in chain((first,), blocks, (b"",)):
        text = decoder.decode(block, final=not block).encode(errors="replace")
        for at in range(0, len(text), BLOCK_BYTES):  # it may have grown by half
            yield text[at : at + BLOCK_BYTES]


def _unpacked(file: FileIO, name: str, gaps: list[Gap]) -> Iterator[Block]:
    chunks = _raw_blocks(file, name, gaps)
    first = next(chunks, None)
    if first is None:
        return
    packing = packing_of(first)
    if packing is None:
        yield first
        yield from chunks
    else:
        from itertools import chain

        from reprieve.machine.compressed import unpacked

        yield from unpacked(chain((first,), chunks), packing, name, gaps)


def _read_stdin(gaps: list[Gap]) -> Iterator[Block]:
    try:
        file = FileIO(0, "rb", closefd=False)
    except OSError:  # started without one
        gaps.append(Gap(place="stdin", reason="is closed"))
        return
    yield from read_open(file, "stdin", gaps)


def _raw_blocks(file: FileIO, name: str, gaps: list[Gap]) -> Iterator[Block]:
    """The bytes as they stand there, in two buffers in turn: a reader may look back into the block before.

    A regular file is read up to the size it has now: a log that is written faster than read would never end. One that
    turns out shorter was emptied under us by logrotate's copytruncate; a map of it would have ended in SIGBUS.
    """
    status = os.fstat(file.fileno())
    if sys.platform != "win32" and (stat.S_ISFIFO(status.st_mode) or stat.S_ISCHR(status.st_mode)):
        os.set_blocking(file.fileno(), True)
    expected = status.st_size if stat.S_ISREG(status.st_mode) and status.st_size else None
    size = BLOCK_BYTES if expected is None else min(BLOCK_BYTES, expected)  # a new one is filled with zeros
    buffer, other = _buffer(size), _buffer(size if size == BLOCK_BYTES else 0)
    taken = 0
    while expected is None or taken < expected:
        room = BLOCK_BYTES if expected is None else min(BLOCK_BYTES, expected - taken)
        try:
            filled = _fill(file, memoryview(buffer)[:room])
        except OSError as error:
            gaps.append(Gap(place=name, reason=f"could not be read beyond byte {taken}: {error.strerror}"))
            return
        taken += filled
        if filled == BLOCK_BYTES:
            yield buffer
            buffer, other = other, buffer
            continue
        if filled:
            yield bytes(memoryview(buffer)[:filled])
        if filled < room:
            break
    if not taken and stat.S_ISFIFO(status.st_mode) and name != "stdin":
        gaps.append(Gap(place=name, reason="nobody writes to this pipe"))
    if expected is not None and taken < expected:
        gaps.append(Gap(place=name, reason=f"shrank from {expected} to {taken} bytes while it was read", hint=_ROTATED))


def _buffer(size: int) -> bytearray:
    """A block to read into, 64 bytes into a page.

    malloc puts it 16 bytes into one. There copying a page of the cache takes twice as long: a load seems to wait for
    the store that is 4 KiB minus 16 bytes before it.
    """
    buffer = bytearray(size + 48)
    del buffer[:48]  # a bytearray forgets its beginning without moving the rest
    return buffer


def _fill(file: FileIO, view: memoryview) -> int:
    """Read until the view is full or no more comes; how much. A file of /proc that asks to wait is at its end."""
    filled = 0
    while filled < len(view) and (count := file.readinto(view[filled:])):
        filled += count
    return filled


_ROTATED = "read it again, together with its rotations"


def _permission_hint(path: str) -> str:
    if sys.platform == "win32":
        return "run it as somebody who may read it"
    if not path.startswith("/var/log"):
        return "run it with sudo, or as its owner"
    group = "systemd-journal" if path.startswith("/var/log/journal") else "adm"
    return f"run it with sudo, or: sudo usermod -aG {group} $USER, then log in again"

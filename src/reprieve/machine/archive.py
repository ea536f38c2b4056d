"""A sosreport or another archive of logs: which of its files hold kernel lines, and how they are taken out."""

import os
import re
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import IO

from reprieve.machine.journal import journal_sources
from reprieve.machine.source import BLOCK_BYTES, Block, Source, open_quietly, read_open, read_path, shown
from reprieve.model.finding import Gap

_KERNEL_FILES = (
    r"(?:.*/)?(?:kern\.log|syslog|messages|dmesg|vmcore-dmesg|boot\.msg|console|journalctl)[^/]*"
    r"|(?:.*/)?[^/]+\.journal~?"
    r"|(?:.*/)?pstore/(?:.*/)?dmesg[^/]*"
)
_FILE_BYTES = 512 * 1024 * 1024  # what one file may take on our disk; sos itself cuts logs at 25 MiB
_TOTAL_BYTES = 1024 * 1024 * 1024
_FILES = 500  # each is held open: the usual limit is 1024
_HEADER_BYTES = 1024 * 1024  # of one member: a pax header is read into memory whole, and may claim any size
_TOP = r"^(?:\./)?sosreport-[^/]+/"  # says no more than the name of the archive
UNPACK = "unpack it yourself, and name the folder"
_CALLED = f"kern.log, syslog, messages, dmesg, journalctl, *.journal: for others, {UNPACK}"


def holds_kernel_lines(path: str) -> bool:
    """Is the file of that path one to read? A sosreport has ten thousand, and kernel lines stand in some ten."""
    return re.fullmatch(_KERNEL_FILES, path) is not None


def archive_sources(path: str, gaps: list[Gap]) -> list[Source]:
    """The files with kernel lines in a tar archive, plain or compressed, in one pass.

    Each is copied into a file without a name, so nothing an archive says can end up anywhere, and nothing stays behind
    however we end. Regular files only; a member that claims too much is left out, and becomes a gap.
    """
    name = shown(path)
    sources: list[Source] = []
    left_bytes = _TOTAL_BYTES

    def take(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bool:
        nonlocal left_bytes
        if not member.isreg() or not stays_inside(member.name) or not holds_kernel_lines(member.name):
            return False
        label = f"{name}: {shown(re.sub(_TOP, '', member.name))}"
        if member.size > min(_FILE_BYTES, left_bytes) or len(sources) >= _FILES:
            gaps.append(Gap(place=label, reason="too large to take out", hint=UNPACK))
            return False
        found, taken_bytes = _sources(content(archive, member), label, member, left_bytes, gaps)
        left_bytes -= taken_bytes
        sources.extend(found)
        return True

    known = len(gaps)
    walk(path, take, gaps)
    if not sources and len(gaps) == known:
        gaps.append(Gap(place=name, reason="holds no file that is called as logs of the kernel are", hint=_CALLED))
    return sorted(sources, key=lambda source: source.newest_s or 0.0, reverse=True)


def walk(path: str, take: Callable[[tarfile.TarFile, tarfile.TarInfo], bool], gaps: list[Gap]) -> None:
    """Show each member of a tar archive, plain or compressed, to `take`, which says whether it has read its content.

    In one pass. What is damaged, or does not fit on our disk, becomes a gap, and is the end.
    """
    stream = _Stream(read_path(path, gaps))
    try:
        # It needs no more of a file than `read`, whatever its stub says.
        with tarfile.open(fileobj=stream, mode="r|", bufsize=64 * 1024) as archive:  # type: ignore[call-overload]
            while (member := _next(archive, stream)) is not None:
                if not take(archive, member) and member.isreg():
                    _pass_over(archive, member)
    except (tarfile.TarError, EOFError, ValueError) as error:  # the last of a pax header whose figures are none
        gaps.append(Gap(place=shown(path), reason=f"damaged archive: {error}; read up to there"))
    except OSError as error:
        gaps.append(Gap(place=shown(path), reason=f"could not be taken out: {error.strerror or error}", hint=UNPACK))


class _Stream:
    """Blocks as a file that tarfile reads; it refuses a header that goes on and on."""

    def __init__(self, blocks: Iterator[Block]) -> None:
        self._blocks = blocks
        self._rest = b""
        self.header_bytes: int | None = _HEADER_BYTES  # how many of a header may be read yet; None: contents are read

    def read(self, size: int) -> bytes:
        while len(self._rest) < size and (block := next(self._blocks, None)) is not None:
            self._rest += block
        data, self._rest = self._rest[:size], self._rest[size:]
        if self.header_bytes is not None:
            self.header_bytes -= len(data)
            if self.header_bytes < 0:
                raise tarfile.ReadError("a header of more than 1 MiB")
        return data


def _next(archive: tarfile.TarFile, stream: _Stream) -> tarfile.TarInfo | None:
    """The next member, the contents of the one before having been read."""
    stream.header_bytes = _HEADER_BYTES
    try:
        return archive.next()
    finally:
        stream.header_bytes = None
        archive.members.clear()  # type: ignore[attr-defined]  # it would keep a million of them


def content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    """What a regular file holds, to be read once, now."""
    file = archive.extractfile(member)
    assert file is not None
    return file


def _pass_over(archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    """Read what is stored of a member, so that the next thing to be read is a header.

    Not what it says it holds: the holes of a sparse file are given as zeros, and may be exabytes.
    """
    member.sparse, member.size = None, archive.offset - member.offset_data
    stored = content(archive, member)
    while stored.read(BLOCK_BYTES):
        pass


def stays_inside(path: str) -> bool:
    """Is it a path below the folder that an archive is taken out into?"""
    return not path.startswith("/") and ".." not in path.split("/")


class _Unnamed:
    """A file without a name, gone with the last that holds this."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.path = f"/proc/{os.getpid()}/fd/{descriptor}"  # each opening of it has a position of its own

    def __del__(self) -> None:
        os.close(self._descriptor)


def _kept(blocks: Iterable[Block]) -> _Unnamed:
    with tempfile.TemporaryFile(dir=disk_folder(), buffering=0) as file:
        for block in blocks:
            file.write(block)
        return _Unnamed(os.dup(file.fileno()))


def _up_to(most_bytes: int, source: Source, gaps: list[Gap]) -> Iterator[Block]:
    """What a source gives, as far as there is room for it; the rest becomes a gap."""
    for block in source.blocks(gaps):
        if len(block) > most_bytes:
            yield block[:most_bytes]
            gaps.append(Gap(place=source.name, reason="too large to take out; read up to there", hint=UNPACK))
            return
        most_bytes -= len(block)
        yield block


def disk_folder() -> str | None:
    """On disk: /tmp may be memory."""
    return "/var/tmp" if os.access("/var/tmp", os.W_OK) else None


def _sources(
    content: IO[bytes], name: str, member: tarfile.TarInfo, left_bytes: int, gaps: list[Gap]
) -> tuple[list[Source], int]:
    """The sources in one member, which fits, and what they take on our disk."""
    blocks = iter(lambda: content.read(BLOCK_BYTES), b"")
    if not member.name.endswith((".journal", ".journal~")):
        read = partial(_read, _kept(blocks), name)
        return [Source(name=name, kind="file", blocks=read, newest_s=float(member.mtime))], member.size
    sources: list[Source] = []
    taken_bytes = 0
    with tempfile.NamedTemporaryFile(dir=disk_folder(), suffix=".journal", buffering=0) as file:
        for block in blocks:  # journalctl takes no file without a name (EIDRM): it is read now
            file.write(block)
        for source in journal_sources((f"--file={file.name}",), name=name, gaps=gaps):
            # As JSON it can be many times as long as the member, which is still there.
            room = min(_FILE_BYTES, left_bytes - member.size - taken_bytes)
            kept = _kept(_up_to(room, source, gaps))
            taken_bytes += os.stat(kept.path).st_size
            sources.append(source._replace(blocks=partial(_read, kept, source.name)))
    return sources, taken_bytes


def _read(file: _Unnamed, name: str, gaps: list[Gap]) -> Iterator[Block]:
    with open_quietly(file.path) as opened:
        yield from read_open(opened, name, gaps)

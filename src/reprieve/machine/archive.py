"""A sosreport, packed or unpacked: which of its files hold kernel lines, and how they are taken out."""

import os
import re
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import IO

from reprieve.machine.journal import journal_sources
from reprieve.machine.source import BLOCK_BYTES, Block, Source, open_quietly, read_open, read_path, shown
from reprieve.model.finding import Gap

# Paths inside the report, below its one top folder.
_KERNEL_FILES = (
    r"sos_commands/(?:kernel|general|logs|memory)/(?:dmesg|journalctl)[^/]*"
    r"|var/log/(?:kern\.log|syslog|messages|dmesg)[^/]*"
    r"|var/log/(?:boot\.msg|console)[^/]*"
    r"|(?:var|run)/log/journal/(?:[^/]+/)?[^/]+\.journal"
    r"|(?:sys/fs|var/lib/systemd)/pstore/(?:[^/]+/)*(?:dmesg|console)[^/]*"
    r"|var/crash/(?:[^/]+/)*(?:vmcore-)?dmesg[^/]*"
)
_FILE_BYTES = 1024 * 1024 * 1024  # what one file may take on our disk
_TOTAL_BYTES = 4 * _FILE_BYTES
_FILES = 500  # each is held open: the usual limit is 1024
_HEADER_BYTES = 1024 * 1024  # of one member: a pax header is read into memory whole, and may claim any size
_UNPACK = "unpack it yourself, and name the folder"


def holds_kernel_lines(path: str) -> bool:
    """Is the file of that path in a sosreport one to read?"""
    return re.fullmatch(_KERNEL_FILES, path) is not None


def archive_sources(path: str, gaps: list[Gap]) -> list[Source]:
    """The files with kernel lines in a tar archive, plain or compressed, in one pass.

    Each is copied into a file without a name, so nothing an archive says can end up anywhere, and nothing stays behind
    however we end. Regular files only; a member that claims too much is left out, and becomes a gap.
    """
    name = shown(path)
    sources: list[Source] = []
    left_bytes = _TOTAL_BYTES
    stream = _Stream(read_path(path, gaps))
    try:
        with tarfile.open(fileobj=stream, mode="r|") as archive:  # type: ignore[call-overload]  # it needs `read` alone
            while (member := _next(archive, stream)) is not None:
                content = archive.extractfile(member) if member.isreg() else None
                if content is None:
                    continue
                inside = _below_top(member.name)
                if inside is not None and holds_kernel_lines(inside):
                    label = f"{name}: {shown(inside)}"
                    if member.size > min(_FILE_BYTES, left_bytes) or len(sources) == _FILES:
                        gaps.append(Gap(place=label, reason="too large to take out", hint=_UNPACK))
                    else:
                        left_bytes -= member.size
                        sources += _sources(_taken_out(content), label, member, gaps)
                while content.read(BLOCK_BYTES):  # so that the next thing to be read is a header
                    pass
    except (tarfile.TarError, EOFError) as error:
        gaps.append(Gap(place=name, reason=f"damaged archive: {error}", hint="read up to there"))
    except OSError as error:
        gaps.append(Gap(place=name, reason=f"could not be taken out: {error.strerror or error}", hint=_UNPACK))
    return sorted(sources, key=lambda source: source.newest_s or 0.0, reverse=True)


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


def _below_top(path: str) -> str | None:
    """The path inside the report; None for one that goes elsewhere."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if path.startswith("/") or ".." in parts or len(parts) < 2:
        return None
    return "/".join(parts[1:])


class _Unnamed:
    """A file without a name, gone with the last that holds this."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.path = f"/proc/{os.getpid()}/fd/{descriptor}"  # each opening of it has a position of its own

    def __del__(self) -> None:
        os.close(self._descriptor)


def _taken_out(content: IO[bytes]) -> _Unnamed:
    """A copy on disk: /tmp may be memory."""
    folder = "/var/tmp" if os.access("/var/tmp", os.W_OK) else None
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        while block := content.read(BLOCK_BYTES):
            file.write(block)
        return _Unnamed(os.dup(file.fileno()))


def _sources(file: _Unnamed, name: str, member: tarfile.TarInfo, gaps: list[Gap]) -> list[Source]:
    if not member.name.endswith(".journal"):
        return [Source(name=name, kind="file", blocks=partial(_read, file, name), newest_s=float(member.mtime))]
    found = journal_sources((f"--file={file.path}",), name=name, gaps=gaps)
    return [replace(source, blocks=partial(_read_journal, file, source)) for source in found]


def _read(file: _Unnamed, name: str, gaps: list[Gap]) -> Iterator[Block]:
    with open_quietly(file.path) as opened:
        yield from read_open(opened, name, gaps)


def _read_journal(_file: _Unnamed, source: Source, gaps: list[Gap]) -> Iterator[Block]:
    """journalctl opens the file by its path: it is held until then."""
    return source.blocks(gaps)

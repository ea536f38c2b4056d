"""Compressed logs → plain text, in constant memory, as far as they go."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from reprieve.model.finding import Gap
from reprieve.units import MIB

_PLAIN = 256 * 1024  # handed on at a time: malloc maps and unmaps larger buffers for each, at twice the cost
_BITE = 32 * 1024  # fed at a time behind a member's end: what follows is copied for the next, and members may be tiny
_MEMORY_BYTES = 96 * MIB  # `xz -9` needs 65 MiB; a file can ask for 4 GiB
_ZSTD_WINDOW_LOG = 26  # 64 MiB; `zstd --ultra -22` needs 128 MiB, `--long=31` 2 GiB


class _Unpacker(Protocol):
    """What the decompressors of lzma, bz2, zstd and isal have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1, /) -> bytes: ...


def unpacked(chunks: Iterable[bytes | bytearray], packing: str, name: str, gaps: list[Gap]) -> Iterator[bytes]:
    """The plain text of "gzip", "xz", "zstd" or "bzip2", in blocks of 256 KiB.

    Members that follow one another are read as one text, as `zcat` does; zeros after them are padding. What is cut or
    damaged is read up to there, and becomes a gap.
    """
    begin = _unpacker(packing)
    if begin is None:
        hint = f"pip install backports.zstd, or: {_by_hand(packing, name)}"
        gaps.append(Gap(place=name, reason="no zstd here to read it", hint=hint))
        return
    make, errors = begin
    unpacker = make()
    inside = False  # a member has begun and not ended
    plain = _Gathered()
    for chunk in chunks:
        data, at, bite = bytes(chunk), 0, len(chunk)
        while at < len(data):
            bitten = data[at : at + bite]
            at += len(bitten)
            if not inside and not (bitten := bitten.lstrip(b"\0")):
                continue
            inside = True
            try:
                text = unpacker.decompress(bitten, plain.room())
                while text:
                    yield from plain.add(text)
                    text = b"" if unpacker.eof or unpacker.needs_input else unpacker.decompress(b"", plain.room())
            except errors as error:
                gaps.append(_damage(error, packing, name))
                yield from plain.rest()
                return
            if unpacker.eof:
                at -= len(unpacker.unused_data)
                unpacker, inside, bite = make(), False, _BITE
    if inside:
        gaps.append(Gap(place=name, reason=f"the {packing} data ends in the middle; read up to there"))
    yield from plain.rest()


class _Gathered:
    """Pieces of plain text, put together to blocks of 256 KiB."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.size = 0

    def room(self) -> int:
        return _PLAIN - self.size

    def add(self, piece: bytes) -> Iterator[bytes]:
        self.pieces.append(piece)
        self.size += len(piece)
        if self.size >= _PLAIN:
            yield from self.rest()

    def rest(self) -> Iterator[bytes]:
        if self.pieces:
            yield b"".join(self.pieces)  # a single one is not copied
        self.pieces, self.size = [], 0


def _damage(error: Exception, packing: str, name: str) -> Gap:
    if "emory" not in str(error):  # lzma: "Memory usage limit exceeded"; zstd: "Frame requires too much memory"
        return Gap(place=name, reason=f"damaged {packing}: {error}; read up to there")
    most = _MEMORY_BYTES if packing == "xz" else 1 << _ZSTD_WINDOW_LOG
    hint = f"unpack it where memory is: {_by_hand(packing, name)}"
    return Gap(place=name, reason=f"takes more than {most // MIB} MiB to unpack", hint=hint)


def _by_hand(packing: str, name: str) -> str:
    """The command that unpacks it whatever it takes; FILE where the name is no file's: a pipe, part of an archive."""
    import shlex

    file = shlex.quote(name) if name.isprintable() and os.path.exists(name) else "FILE"
    longest = " --long=31" if packing == "zstd" else ""  # by itself it refuses windows above 128 MiB
    return f"{packing} -dc{longest} < {file} | reprieve why -"


def _unpacker(packing: str) -> tuple[Callable[[], _Unpacker], tuple[type[Exception], ...]] | None:
    """How to begin a member, and what it raises on damaged data; None where nothing here reads it."""
    if packing == "gzip":
        try:
            from isal import igzip_lib
        except ImportError:
            import zlib

            return _Gunzip, (zlib.error,)
        errors: Any = igzip_lib.IsalError  # a class, though its stub says an instance
        return lambda: igzip_lib.IgzipDecompressor(igzip_lib.DECOMP_GZIP), (errors,)
    if packing == "xz":
        import lzma

        return lambda: lzma.LZMADecompressor(memlimit=_MEMORY_BYTES), (lzma.LZMAError,)
    if packing == "bzip2":
        import bz2

        return bz2.BZ2Decompressor, (OSError,)  # "Invalid data stream"
    try:
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd
    except ImportError:
        return None
    options = {int(zstd.DecompressionParameter.window_log_max): _ZSTD_WINDOW_LOG}
    return lambda: zstd.ZstdDecompressor(options=options), (zstd.ZstdError,)


class _Gunzip:
    """zlib's decompressor in the shape of the others: what did not fit into the last answer is kept here."""

    def __init__(self) -> None:
        import zlib

        self._inflate = zlib.decompressobj(wbits=31)  # with the header and the check sum of gzip
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._inflate.eof

    @property
    def unused_data(self) -> bytes:
        return self._inflate.unused_data

    def decompress(self, data: bytes, max_length: int = -1, /) -> bytes:
        text = self._inflate.decompress(self._inflate.unconsumed_tail + data, max_length)
        self.needs_input = not self._inflate.unconsumed_tail and len(text) < max_length
        return text

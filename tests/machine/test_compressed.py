import bz2
import gzip
import lzma
import os
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import reprieve.machine.compressed as compressed
from reprieve.machine.source import BLOCK_BYTES, file_source, packing_of
from reprieve.model.finding import Gap
from tests.machine.real import program, read

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PACK: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "xz": lambda text: lzma.compress(text, preset=0),
    "zstd": zstd.compress,
    "bzip2": bz2.compress,
}
LINES = b"".join(b"Nov 23 18:14:42 node7 app[%d]: request %d done\n" % (n, n * n) for n in range(40_000))  # 1.8 MB

each_packing = pytest.mark.parametrize("packing", PACK)


def unpack(tmp_path: Path, packed: bytes) -> tuple[bytes, list[Gap]]:
    path = tmp_path / "no-name-tells.1"
    path.write_bytes(packed)
    return read(file_source(str(path)))


def test_text_that_begins_like_a_word_is_not_compressed(tmp_path: Path) -> None:
    assert unpack(tmp_path, b"BZheart is a process\n") == (b"BZheart is a process\n", [])


@each_packing
def test_a_compressed_file_is_known_by_its_bytes_and_read_whole(tmp_path: Path, packing: str) -> None:
    assert unpack(tmp_path, PACK[packing](LINES)) == (LINES, [])


@each_packing
def test_blocks_stay_small_however_much_is_packed_into_little(tmp_path: Path, packing: str) -> None:
    path = tmp_path / "bomb"
    path.write_bytes(PACK[packing](bytes(64 * 1024 * 1024)))
    assert max(map(len, file_source(str(path)).blocks([]))) <= BLOCK_BYTES


@each_packing
def test_members_are_read_as_one_text_and_zeros_after_them_are_padding(tmp_path: Path, packing: str) -> None:
    pack = PACK[packing]
    packed = pack(b"one\n") + pack(b"") + pack(b"two\n") + bytes(512)
    assert unpack(tmp_path, packed) == (b"one\ntwo\n", [])


@each_packing
def test_thousands_of_tiny_members_are_read(tmp_path: Path, packing: str) -> None:
    assert unpack(tmp_path, PACK[packing](b"x\n") * 5000) == (b"x\n" * 5000, [])


@each_packing
def test_a_cut_file_gives_what_could_be_read_and_a_gap(tmp_path: Path, packing: str) -> None:
    packed = PACK[packing](LINES)
    text, [gap] = unpack(tmp_path, packed[: len(packed) * 2 // 3])
    assert LINES.startswith(text)
    assert text or packing == "bzip2"  # whose blocks hold 900 kB
    assert gap.reason == f"the {packing} data ends in the middle; read up to there"


@each_packing
def test_bytes_after_the_end_that_are_no_member_are_a_gap(tmp_path: Path, packing: str) -> None:
    text, [gap] = unpack(tmp_path, PACK[packing](LINES) + b"and now for something completely different")
    assert text == LINES
    assert gap.reason.startswith(f"damaged {packing}: ")


@each_packing
@settings(max_examples=40, deadline=None)
@given(at=st.integers(0, 10**6), value=st.integers(0, 255))
def test_a_damaged_byte_ends_in_a_gap_and_never_in_an_exception(packing: str, at: int, value: int) -> None:
    packed = bytearray(PACK[packing](LINES[:20_000]))
    packed[at % len(packed)] = value
    gaps: list[Gap] = []
    text = b"".join(compressed.unpacked([packed], packing, "x", gaps))
    if packing != "zstd":  # whose check sum is an option
        assert gaps or text == LINES[:20_000]


def greedy(packing: str, log: int = 27) -> bytes:
    """Text that takes so much memory to unpack, as a power of 2."""
    if packing == "xz":
        return lzma.compress(LINES, filters=[{"id": lzma.FILTER_LZMA2, "preset": 1, "dict_size": 1 << log}])
    packer = zstd.ZstdCompressor(options={int(zstd.CompressionParameter.window_log): log})
    return packer.compress(LINES) + packer.flush()


@pytest.mark.parametrize(("packing", "log"), [("xz", 26), ("zstd", 26)])
def test_what_the_largest_levels_ask_for_is_read(tmp_path: Path, packing: str, log: int) -> None:
    assert unpack(tmp_path, greedy(packing, log)) == (LINES, [])


@pytest.mark.parametrize(("packing", "log", "most"), [("xz", 27, 96), ("zstd", 27, 64), ("zstd", 31, 64)])
def test_a_file_that_asks_for_gigabytes_is_a_gap_whose_command_reads_it(
    tmp_path: Path, packing: str, log: int, most: int
) -> None:
    program(packing)
    path = tmp_path / "kern log; false '$HOME`"
    path.write_bytes(greedy(packing, log))
    _, [gap] = read(file_source(str(path)))
    assert gap.reason == f"takes more than {most} MiB to unpack"
    said, _, command = (gap.hint or "").partition(": ")
    assert said == "unpack it where memory is"
    packed, _, reader = command.rpartition(" | ")
    assert reader == "reprieve why -"
    assert subprocess.run(["sh", "-c", packed], check=True, capture_output=True).stdout == LINES


@pytest.mark.parametrize("name", ["stdin", "report.tar: var/log/messages.zst", "a\x1bb"])
def test_a_command_names_no_file_that_is_not_there_to_be_named(name: str) -> None:
    gaps: list[Gap] = []
    assert not list(compressed.unpacked([greedy("zstd")], "zstd", name, gaps))
    assert (gaps[0].hint or "").endswith(": zstd -dc --long=31 < FILE | reprieve why -")


@pytest.mark.parametrize("members", [[LINES], [LINES, b"", LINES[:100]]])
def test_the_standard_library_unpacks_gzip_like_isal(members: list[bytes]) -> None:
    packed = b"".join(map(gzip.compress, members))
    for size in (1, 4096, BLOCK_BYTES):
        whole = b""
        unpacker, data = compressed._Gunzip(), b""
        cuts = [*range(0, len(packed), max(size, len(packed) // 500)), len(packed)]
        for start, end in pairwise(cuts):
            data += packed[start:end]
            while data or not unpacker.needs_input:
                whole += unpacker.decompress(data, BLOCK_BYTES)
                data = b""
                if unpacker.eof:
                    unpacker, data = compressed._Gunzip(), unpacker.unused_data
        assert whole == b"".join(members)


def test_without_isal_gzip_is_read_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "kern.log.2.gz"
    path.write_bytes(gzip.compress(LINES) + gzip.compress(b"end\n"))
    code = f"""
import sys
sys.modules["isal"] = None
from tests.machine.real import read
from reprieve.machine.source import file_source
text, gaps = read(file_source({str(path)!r}))
print(len(text), text[-4:], gaps)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True, env=os.environ)
    assert done.stdout.strip() == rf"{len(LINES) + 4} b'end\n' []"


def test_only_known_beginnings_are_packings() -> None:
    assert packing_of(b"") is None
    assert packing_of(b"BZh") is None
    assert packing_of(b"\x1f\x8b\x08") == "gzip"

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from reprieve.machine.host import Identity
from reprieve.machine.log import named
from reprieve.machine.source import BLOCK_BYTES, file_source
from reprieve.model.finding import Failure, Gap
from tests.machine.real import program, read

NOBODY = Identity()


def test_an_empty_file_has_no_blocks_and_no_gap(tmp_path: Path) -> None:
    path = tmp_path / "empty.log"
    path.touch()
    assert read(file_source(str(path))) == (b"", [])


@pytest.mark.parametrize("size", [1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES])
def test_a_file_comes_whole_in_blocks_of_256_kib(tmp_path: Path, size: int) -> None:
    path = tmp_path / "kern.log"
    text = os.urandom(16).hex().encode() * (size // 32 + 1)
    path.write_bytes(text[:size])
    lengths = [len(block) for block in file_source(str(path)).blocks([])]
    assert read(file_source(str(path))) == (text[:size], [])
    assert set(lengths[:-1]) <= {BLOCK_BYTES}


def test_a_path_that_is_not_utf8_is_named_in_valid_text(tmp_path: Path) -> None:
    path = os.path.join(os.fsencode(tmp_path), b"caf\xe9.log")
    Path(os.fsdecode(path)).write_bytes(b"text\n")
    source = file_source(os.fsdecode(path))
    assert source.name.endswith("caf\\xe9.log")
    assert read(source) == (b"text\n", [])


def test_a_log_that_grows_while_it_is_read_ends_where_it_ended_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "kern.log"
    path.write_bytes(b"x" * 3 * BLOCK_BYTES)
    gaps: list[Gap] = []
    size = 0
    for block in file_source(str(path)).blocks(gaps):
        size += len(block)
        with path.open("ab") as file:
            file.write(b"y" * 2 * BLOCK_BYTES)
    assert size == 3 * BLOCK_BYTES
    assert not gaps


def test_a_log_emptied_by_copytruncate_while_it_is_read_ends_there_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "kern.log"
    path.write_bytes(b"x" * 3 * BLOCK_BYTES)
    gaps: list[Gap] = []
    blocks = file_source(str(path)).blocks(gaps)
    next(blocks)
    os.truncate(path, 10)
    assert sum(map(len, blocks)) == 0
    assert [gap.reason for gap in gaps] == [f"shrank from {3 * BLOCK_BYTES} to {BLOCK_BYTES} bytes while it was read"]


def test_a_log_removed_before_it_is_read_is_a_gap(tmp_path: Path) -> None:
    path = tmp_path / "kern.log"
    path.write_bytes(b"x")
    [source], gaps = named([str(path)], NOBODY)
    path.unlink()
    assert read(source) == (b"", [Gap(place=str(path), reason="does not exist")])
    assert gaps == []


def test_a_named_pipe_without_a_writer_does_not_hang(tmp_path: Path) -> None:
    path = str(tmp_path / "pipe")
    os.mkfifo(path)
    [source], _ = named([path], NOBODY)
    assert source.kind == "pipe"
    assert read(source) == (b"", [Gap(place=path, reason="nobody writes to this pipe")])


def test_a_named_pipe_is_read_to_the_end_of_its_writer(tmp_path: Path) -> None:
    path = str(tmp_path / "pipe")
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # so that the writer can open
    writer = os.open(path, os.O_WRONLY)
    text = b"line\n" * 100_000
    feeder = threading.Thread(target=_write_all, args=(writer, text))
    feeder.start()
    [source], _ = named([path], NOBODY)
    assert read(source) == (text, [])
    feeder.join()
    os.close(reader)


def _write_all(descriptor: int, text: bytes) -> None:
    with open(descriptor, "wb") as file:
        file.write(text)


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null", "/dev/random"])
def test_a_device_is_refused_with_what_to_do(path: str) -> None:
    with pytest.raises(Failure, match=f"{path}: is a device, not a log") as failure:
        named([path], NOBODY)
    assert failure.value.hint == "name a file, a folder, or - for a pipe"


def test_a_socket_is_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        with pytest.raises(Failure, match="is a socket, not a log"):
            named([path], NOBODY)


def test_the_log_daemons_own_queue_is_not_emptied_by_us() -> None:
    with pytest.raises(Failure, match="takes the lines away") as failure:
        named(["/proc/kmsg"], NOBODY)
    assert failure.value.hint == "read /dev/kmsg, which leaves them there"


def test_a_file_of_proc_is_read_though_its_size_is_0() -> None:
    [source], gaps = named(["/proc/version"], NOBODY)
    text, more = read(source)
    assert text.startswith(b"Linux version")
    assert gaps == more == []


def test_a_directory_that_appears_where_a_file_was_is_a_gap(tmp_path: Path) -> None:
    assert read(file_source(str(tmp_path)))[1][0].reason == "is a directory"


def test_standard_input_is_read_to_its_end() -> None:
    code = "from tests.machine.real import *; from reprieve.machine.source import *; print(read(stdin_source()))"
    done = subprocess.run([sys.executable, "-c", code], input=b"one\ntwo", capture_output=True, check=True)
    assert done.stdout.strip() == rb"(b'one\ntwo', [])"


def test_compressed_standard_input_is_unpacked() -> None:
    packed = subprocess.run([program("gzip"), "-c"], input=b"one\ntwo", capture_output=True, check=True).stdout
    code = "from tests.machine.real import *; from reprieve.machine.source import *; print(read(stdin_source()))"
    done = subprocess.run([sys.executable, "-c", code], input=packed, capture_output=True, check=True)
    assert done.stdout.strip() == rb"(b'one\ntwo', [])"


def test_a_closed_standard_input_is_a_gap() -> None:
    code = "from tests.machine.real import *; from reprieve.machine.source import *; print(read(stdin_source()))"
    done = subprocess.run(["sh", "-c", 'exec "$0" -c "$1" <&-', sys.executable, code], capture_output=True, check=True)
    assert b"is closed" in done.stdout


def test_reading_a_plain_file_loads_nothing_that_unpacks_runs_or_parses(tmp_path: Path) -> None:
    path = tmp_path / "kern.log"
    path.write_bytes(b"text\n")
    code = f"""
import sys
before = set(sys.modules)
from reprieve.machine.host import identify, become_expendable
from reprieve.machine.log import named
become_expendable()
for source in named([{str(path)!r}], identify())[0]:
    assert b"".join(source.blocks([])) == b"text\\n"
print(*sorted(name for name in set(sys.modules) - before if not name.startswith("reprieve")))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    heavy = {"gzip", "zlib", "lzma", "bz2", "isal", "tarfile", "json", "subprocess", "tempfile", "pathlib", "select"}
    assert not heavy & set(done.stdout.split())

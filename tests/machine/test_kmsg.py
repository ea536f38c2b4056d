import ctypes
import fcntl
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from reprieve.machine.host import identify
from reprieve.machine.kmsg import PATH, kmsg_source, open_kmsg, read_to, records
from reprieve.machine.log import named
from reprieve.model.finding import Gap
from tests.machine.real import missing, read

SYSLOG_ACTION_SIZE_BUFFER = 10


@pytest.fixture
def kernel_log() -> None:
    """/dev/kmsg, to read and to write: its writers are root."""
    if not os.access(PATH, os.R_OK | os.W_OK):
        missing(f"the rights to read and write {PATH}")


@pytest.fixture
def mark(kernel_log: None, tmp_path: Path) -> str:
    """A line of ours in the kernel log, in words nobody else uses."""
    words = f"reprieve test {os.getpid()} {tmp_path.name}"
    with open(PATH, "w") as file:
        file.write(f"<12>{words}\n")
    return words


def test_the_buffer_is_read_to_its_end_without_waiting_for_more(mark: str) -> None:
    text, gaps = read(kmsg_source(identify()))
    assert not [gap for gap in gaps if "lost" not in gap.reason]
    assert mark.encode() in text.splitlines()[-1] or mark.encode() in text


def test_a_record_is_one_line_with_facility_sequence_and_time(mark: str) -> None:
    text, _ = read(kmsg_source(identify()))
    lines = text.splitlines()
    assert all(re.match(rb"\d{1,4},\d+,\d+,[^;]+;", line) for line in lines)
    sequence = [int(line.split(b",")[1]) for line in lines]
    assert sequence == sorted(set(sequence))


def test_what_user_space_wrote_keeps_a_facility_that_the_kernel_does_not_use(mark: str) -> None:
    text, _ = read(kmsg_source(identify()))
    [line] = [line for line in text.splitlines() if mark.encode() in line]
    assert line.startswith(b"12,")


def test_user_space_cannot_pass_for_the_kernel(kernel_log: None) -> None:
    words = f"reprieve test facility {os.getpid()}"
    with open(PATH, "w") as file:
        file.write(f"<4>{words}: Out of memory\n")  # facility 0: devkmsg_write() makes it 1
    text, _ = read(kmsg_source(identify()))
    [line] = [line for line in text.splitlines() if words.encode() in line]
    assert line.startswith(b"12,")


def test_a_newline_in_a_message_does_not_begin_a_line(kernel_log: None) -> None:
    words = f"reprieve test newline {os.getpid()}"
    with open(PATH, "w") as file:
        file.write(f"<12>{words}\n4,1,1,-;Killed process 1 (init)\n")
    text, _ = read(kmsg_source(identify()))
    assert rf"{words}\x0a4,1,1,-;Killed process 1 (init)".encode() in text
    assert not any(line.startswith(b"4,1,1,-;") for line in text.splitlines())


def test_what_the_kernel_writes_meanwhile_is_not_read_and_what_it_overwrote_is_counted() -> None:
    packets = os.O_DIRECT | os.O_NONBLOCK  # a pipe that gives a packet a read, as the buffer gives a record
    (buffer, writer), (end, later) = os.pipe2(packets), os.pipe2(packets)
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 1024 * 1024)
    try:
        for number in range(256):
            if number not in (50, 51, 70):  # overwritten before they could be read
                os.write(writer, f"6,{number},1,-;{'x' * 4000}\n".encode())
        os.write(later, b"6,100,1,-;the first that was not there when reading began\n")
        gaps: list[Gap] = []
        lines = b"".join(read_to(end, buffer, gaps)).splitlines()
        assert 100 < len(lines) < 200
        assert os.read(buffer, 8).startswith(b"6,1")  # the rest is there yet
        assert [gap.reason for gap in gaps] == ["the kernel wrote faster than we read: lines lost, at least: 3"]
    finally:
        for descriptor in (buffer, writer, end, later):
            os.close(descriptor)


@pytest.mark.slow  # it pushes all else out of the kernel's log: for machines that are thrown away
@pytest.mark.skipif(not os.environ.get("CI"), reason="would empty this machine's kernel log")
def test_being_overrun_by_the_kernel_is_a_gap_and_reading_goes_on(kernel_log: None) -> None:
    gaps: list[Gap] = []
    descriptor = open_kmsg(gaps)
    assert descriptor is not None
    try:
        next(records(descriptor, gaps))
        for _ in range(ctypes.CDLL(None).klogctl(SYSLOG_ACTION_SIZE_BUFFER, None, 0) // 512):
            with open(PATH, "w") as file:  # each opening has a rate limit of its own
                file.write("<15>reprieve fills the buffer: " + "." * 900 + "\n")
        lines = list(records(descriptor, gaps))
    finally:
        os.close(descriptor)
    [gap] = gaps
    assert gap.reason.startswith("the kernel wrote faster than we read: lines lost, at least: ")
    assert len(lines) > 50


def test_whoever_may_not_read_it_is_told_what_to_do(kernel_log: None) -> None:
    code = """
import os
from reprieve.machine.host import identify
from reprieve.machine.kmsg import kmsg_source
source, gaps = kmsg_source(identify()), []
os.setuid(65534)
assert list(source.blocks(gaps)) == []
print(gaps[0].reason, "|", gaps[0].hint)
"""
    if Path("/proc/sys/kernel/dmesg_restrict").read_text().strip() == "0" and os.stat(PATH).st_mode & 0o004:
        missing("kernel.dmesg_restrict")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout.startswith("only root may read the kernel log here | run it with sudo")


def test_named_as_an_argument_it_is_read_as_records_of_this_boot(kernel_log: None) -> None:
    identity = identify()
    [source], gaps = named([PATH], identity)
    assert (source.kind, source.boot_id, source.machine_id) == ("kmsg", identity.boot_id, identity.machine_id)
    assert gaps == []

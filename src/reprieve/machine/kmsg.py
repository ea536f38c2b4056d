"""The kernel's own log buffer: /dev/kmsg, one record a read."""

import os
import select
from collections.abc import Iterator
from itertools import dropwhile
from time import monotonic, sleep

from reprieve.machine.host import Host, Identity
from reprieve.machine.source import BLOCK_BYTES, Source
from reprieve.model.finding import Gap
from reprieve.oom.counted import FOR_ROOT

PATH = "/dev/kmsg"
_RECORD_BYTES = 16 * 1024  # CONSOLE_EXT_LOG_MAX is 8192, PRINTK_MESSAGE_MAX 2048; too small a buffer is EINVAL
_WITHOUT_WAITING = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC


def kmsg_source(identity: Identity) -> Source:
    """The records of this boot that are still in the buffer, each a line `PRIORITY,SEQUENCE,USEC,FLAGS…;TEXT`.

    The priority is facility * 8 + level: the kernel's own are below 8, and user space cannot write those.
    """
    from reprieve.machine.memory import read_vmstat

    return Source(
        name=PATH,
        kind="kmsg",
        blocks=_read_records,
        machine_id=identity.machine_id,
        boot_id=identity.boot_id,
        kills=dict(read_vmstat(Host(), [])).get("oom_kill"),  # before the log is read: it holds those by then
    )


def open_kmsg(gaps: list[Gap]) -> int | None:
    """A descriptor that never waits; None, with a gap, where there is none to be had."""
    try:
        return os.open(PATH, _WITHOUT_WAITING)
    except FileNotFoundError:
        gaps.append(Gap(place=PATH, reason="does not exist", hint="in a container: run it on the host"))
    except PermissionError:  # check_syslog_permissions(): CAP_SYSLOG, where kernel.dmesg_restrict is 1; else the mode
        gaps.append(Gap(place=PATH, reason=FOR_ROOT, hint="run it with sudo"))
    except OSError as error:
        gaps.append(Gap(place=PATH, reason=(error.strerror or "cannot be opened").lower()))
    return None


def is_readable(gaps: list[Gap]) -> bool:
    """May we read it? Else a gap says why not."""
    descriptor = open_kmsg(gaps)
    if descriptor is not None:
        os.close(descriptor)
    return descriptor is not None


class Records:
    """The records behind a descriptor, as they are read, and how many were overwritten before they could be."""

    __slots__ = ("_descriptor", "_expected", "lost")

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._expected: int | None = None  # the number of the next record; None: any, at the beginning
        self.lost = 0

    def next(self) -> tuple[int, bytes] | None:
        """The number of a record, and it as one line, its " KEY=value" lines left out; None if there is none yet."""
        while True:
            try:
                record = os.read(self._descriptor, _RECORD_BYTES)
            except BlockingIOError:
                return None
            except BrokenPipeError:  # what we were to read was overwritten; the next read goes on with the oldest
                if self._expected is None:
                    self.lost = 1  # how many is not known
                continue
            fields = record.split(b",", 2)
            if len(fields) < 3 or not fields[1].isdigit():  # the end of what a container has in its place
                return None
            number = int(fields[1])
            if self._expected is not None:
                self.lost += number - self._expected
            self._expected = number + 1
            return number, record.partition(b"\n")[0] + b"\n"  # a newline in the text itself is printed as \x0a

    def gap(self) -> Gap:
        """What is to be said of those that were lost."""
        return Gap(
            place=PATH, reason=f"the kernel wrote faster than we read: lines lost, at least: {self.lost}", hint=LARGER
        )


def records(descriptor: int, gaps: list[Gap]) -> Iterator[bytes]:
    """The records that are there now, each as one line with its newline."""
    waiting = Records(descriptor)
    while (record := waiting.next()) is not None:
        yield record[1]
    if waiting.lost:
        gaps.append(waiting.gap())


def read_until_kill(log: int, cgroup: str, patience_s: float) -> bytes | None:
    """The records from here to a kill in this cgroup, and what comes right behind it; None: there was none in time.

    Its pid does not find it: where this runs in a namespace of pids, the kernel logs another.
    """
    read: list[bytes] = []
    end = monotonic() + patience_s
    while True:
        read += records(log, [])
        in_cgroup = dropwhile(lambda record: os.fsencode(cgroup) not in record, read)
        if any(b"Killed process" in record for record in in_cgroup):
            sleep(0.05)  # the reaper's line
            return b"".join([*read, *records(log, [])])
        if monotonic() > end:
            return None
        select.select([log], [], [], max(end - monotonic(), 0))


LARGER = "a larger buffer keeps more: log_buf_len=4M on the kernel command line"


def _read_records(gaps: list[Gap]) -> Iterator[bytes]:
    descriptor = open_kmsg(gaps)
    if descriptor is None:
        return
    try:
        end = os.open(PATH, _WITHOUT_WAITING)
        try:
            os.lseek(end, 0, os.SEEK_END)
        except OSError:  # some containers have a terminal there
            gaps.append(Gap(place=PATH, reason="is not the kernel's log", hint="in a container: run it on the host"))
        else:
            yield from read_to(end, descriptor, gaps)
        finally:
            os.close(end)
    finally:
        os.close(descriptor)


def read_to(end: int, descriptor: int, gaps: list[Gap]) -> Iterator[bytes]:
    """The records in blocks, up to where `end`, another descriptor of the same buffer, stands; or one block more.

    Without it nobody would come to the end of what the kernel writes as fast as it is read.
    """
    waiting, newer = Records(descriptor), Records(end)
    first_newer: tuple[int, bytes] | None = None
    block = bytearray()
    while (record := waiting.next()) is not None:
        number, line = record
        block += line
        if len(block) >= BLOCK_BYTES:
            yield bytes(block)
            block.clear()
            first_newer = first_newer or newer.next()
            if first_newer is not None and number >= first_newer[0]:
                break
    if block:
        yield bytes(block)
    if waiting.lost:
        gaps.append(waiting.gap())

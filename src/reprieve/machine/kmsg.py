"""The kernel's own log buffer: /dev/kmsg, one record a read."""

import os
from collections.abc import Iterator

from reprieve.machine.host import Identity
from reprieve.machine.source import BLOCK_BYTES, Source
from reprieve.model.finding import Gap

PATH = "/dev/kmsg"
_RECORD_BYTES = 16 * 1024  # CONSOLE_EXT_LOG_MAX is 8192, PRINTK_MESSAGE_MAX 2048; too small a buffer is EINVAL


def kmsg_source(identity: Identity) -> Source:
    """The records of this boot that are still in the buffer, each a line `PRIORITY,SEQUENCE,USEC,FLAGS…;TEXT`.

    The priority is facility * 8 + level: the kernel's own are below 8, and user space cannot write those.
    """
    return Source(
        name=PATH, kind="kmsg", blocks=_read_records, machine_id=identity.machine_id, boot_id=identity.boot_id
    )


def open_kmsg(gaps: list[Gap]) -> int | None:
    """A descriptor that never waits; None, with a gap, where there is none to be had."""
    try:
        return os.open(PATH, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        gaps.append(Gap(place=PATH, reason="does not exist", hint="in a container: run it on the host"))
    except PermissionError:  # check_syslog_permissions(): CAP_SYSLOG, where kernel.dmesg_restrict is 1; else the mode
        gaps.append(Gap(place=PATH, reason="only root may read the kernel log here", hint="run it with sudo"))
    except OSError as error:
        gaps.append(Gap(place=PATH, reason=(error.strerror or "cannot be opened").lower()))
    return None


def records(descriptor: int, gaps: list[Gap]) -> Iterator[bytes]:
    """The records that are there now, each as one line with its newline, its " KEY=value" lines left out."""
    while True:
        try:
            record = os.read(descriptor, _RECORD_BYTES)
        except BlockingIOError:
            return
        except BrokenPipeError:  # EPIPE: what we were to read was overwritten; the next read goes on with the oldest
            gaps.append(Gap(place=PATH, reason="the kernel wrote faster than we read: lines are lost", hint=_LARGER))
            continue
        if not record:
            return
        yield record.partition(b"\n")[0] + b"\n"  # a newline in the text itself is printed as \x0a


_LARGER = "a larger buffer keeps more: log_buf_len=4M on the kernel command line"


def _read_records(gaps: list[Gap]) -> Iterator[bytes]:
    descriptor = open_kmsg(gaps)
    if descriptor is None:
        return
    try:
        block = bytearray()
        for line in records(descriptor, gaps):
            block += line
            if len(block) >= BLOCK_BYTES:
                yield bytes(block)
                block.clear()
        if block:
            yield bytes(block)
    finally:
        os.close(descriptor)

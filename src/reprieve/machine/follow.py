"""Kernel lines as they are written."""

import os
import select
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from io import FileIO
from math import inf
from typing import NamedTuple

from reprieve.machine.host import room_for_a_process
from reprieve.machine.source import JOURNAL_MAGIC, Block, Source, open_quietly, packing_of, shown, unreadable
from reprieve.model.finding import Failure, Gap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from reprieve.machine.engine import Ear

QUIET_S = 1.0
_NO_LOG = "is no log that grows"
_ANOTHER = "name a log file, a pipe, or - for standard input"
_FOLLOW_JOURNAL = "journalctl -kf | reprieve why --follow -"
_KEPT_BYTES, _END_BYTES = 2 * 1024 * 1024, 16 * 1024  # of a pipe, by which it is told what it was
_LOOK_S = 0.25  # how often a file is looked at: the standard library cannot be told of its growth
_LINE_BYTES = 64 * 1024  # a line longer than that is given in pieces
_READ_BYTES = 64 * 1024

# Waits for a descriptor, or for none, so many seconds: True if it can be read, False if not, None if we are to end.
Wait = Callable[[int | None, float], bool | None]


class Said(NamedTuple):
    """A line of what an engine tells of its containers."""

    manager: str
    text: str


class Kept:
    """What came through a pipe, or its beginning and its end: when it has ended it is told what it was."""

    def __init__(self) -> None:
        self.start = bytearray()
        self.end = b""
        self.is_whole = True
        self.ended = False  # else we did

    def add(self, data: bytes) -> None:
        """What came next."""
        self.is_whole = self.is_whole and len(self.start) + len(data) <= _KEPT_BYTES
        if self.is_whole:
            self.start += data
        else:
            self.end = (self.end + data)[-_END_BYTES:]

    def source(self, name: str) -> Source:
        """The same text, to be read as if it had not been followed."""

        def blocks(_gaps: list[Gap]) -> Iterator[Block]:
            yield from filter(None, (bytes(self.start), self.end))

        return Source(name=name, kind="pipe", blocks=blocks)


def follow(
    path: str | None, gaps: list[Gap], ears: "Sequence[Ear]" = (), kept: Kept | None = None
) -> Iterator[str | Said | None]:
    """The lines written from now on: to a file through its rotations, a pipe, or `-`; None: by this machine's kernel.

    What the engines say is told as it comes, beside the kernel's lines; alone, where those cannot be read. Their ears
    are closed in the end.

    None first, once it is known that something can be heard; between them when a second has passed without a line: what
    has come so far is complete. Once, but with ears after each further second too: what an engine said waits longer.
    Ends when a pipe does, and at SIGINT or SIGTERM, which raise nothing meanwhile; a second one acts as ever.
    What cannot be read, or was lost, is added to `gaps`; what comes through a pipe that was named, to `kept`. Raises
    Failure if there is nothing to follow.
    """
    with ExitStack() as opened, told_to_end(ears) as wait:
        for ear in ears:
            opened.callback(ear.close)
        chunks = _engines_at_least(wait, gaps, ears) if ears and path is None else _arriving(path, wait, gaps, kept)
        yield from _lines(chunks, ears)


def follow_kernel(told: int, gaps: list[Gap]) -> Iterator[str | Said | None]:
    """As `follow` of this machine's kernel, in a thread: it ends when SIGTERM, as a byte, is written to `told`."""
    yield from _lines(_arriving(None, partial(_wait, told, ()), gaps))


def _engines_at_least(wait: Wait, gaps: list[Gap], ears: "Sequence[Ear]") -> Iterator[bytes | None]:
    """What this machine's kernel writes; silence, while an engine may speak, where that cannot be read or has ended."""
    try:
        if not (yield from _kernel(wait, gaps, or_journal=True)):
            return
    except Failure:  # a gap tells it
        pass
    while any(ear.descriptor is not None for ear in ears) and wait(None, QUIET_S) is not None:
        yield None


def _arriving(path: str | None, wait: Wait, gaps: list[Gap], kept: Kept | None = None) -> Iterator[bytes | None]:
    if path is None or path == "/dev/kmsg":
        return _kernel(wait, gaps, or_journal=path is None)
    if path == "-":
        return _refusing_packed(_pipe(0, wait, kept), "stdin")
    try:
        file = open_quietly(path)
    except OSError as error:
        gap = unreadable(path, error)
        raise Failure(f"{gap.place}: {gap.reason}", hint=gap.hint or _ANOTHER) from error
    kind = os.fstat(file.fileno()).st_mode
    if stat.S_ISREG(kind):
        _refuse_packed(os.pread(file.fileno(), 512, 0), shown(path))
        return _file(path, file, wait, gaps)
    with file:
        if stat.S_ISFIFO(kind):
            return _refusing_packed(_pipe(os.dup(file.fileno()), wait, kept), shown(path))
    raise Failure(f"{shown(path)}: {_NO_LOG}", hint=_ANOTHER)


def _refusing_packed(chunks: Iterator[bytes | None], name: str) -> Iterator[bytes | None]:
    first = True
    for chunk in chunks:
        if chunk is not None and first:
            first = False
            _refuse_packed(chunk, name)
        yield chunk


def _refuse_packed(start: bytes, name: str) -> None:
    """Nothing is ever written behind what is compressed that could be read by itself. Raises Failure."""
    if (packing := packing_of(start)) is not None:
        raise Failure(f"{name}: is compressed ({packing}), and no log that grows", hint="leave out --follow")
    if start.startswith(JOURNAL_MAGIC):
        raise Failure(f"{name}: is a journal, which is not followed as a file", hint=_FOLLOW_JOURNAL)


def _kernel(wait: Wait, gaps: list[Gap], *, or_journal: bool) -> Generator[bytes | None, None, bool]:
    """Returns whether it has ended, as a journal may; else we are to."""
    from reprieve.machine.kmsg import Records, open_kmsg

    descriptor = open_kmsg(gaps)
    if descriptor is None:
        if or_journal:
            return (yield from _journal(wait, gaps))
        raise Failure(f"{gaps[-1].place}: {gaps[-1].reason}", hint=gaps[-1].hint)
    try:
        os.lseek(descriptor, 0, os.SEEK_END)
        yield None
        records, told = Records(descriptor), 0
        # Before each record it is asked whether we are to end: a flood of them has no end.
        while (ready := wait(descriptor, QUIET_S)) is not None:
            if not ready:
                yield None
            elif (record := records.next()) is not None:
                yield record[1]
            if records.lost and not told:
                told = records.lost
                gaps.append(records.gap())
        if records.lost > told:
            gaps.append(records.gap())
        return False
    finally:
        os.close(descriptor)


def _journal(wait: Wait, gaps: list[Gap]) -> Generator[bytes | None, None, bool]:
    from reprieve.machine.journal import environment, follow_argv, why_unheard

    if not room_for_a_process():
        raise Failure("less than 64 MiB of memory are available: journalctl was not started", hint="run it with sudo")
    unseen = f"{gaps[-1].place}: {gaps[-1].reason}"
    try:
        unheard = why_unheard()
    except OSError as error:
        raise Failure(f"{unseen}; journalctl: {error.strerror}", hint=gaps[-1].hint) from error
    if unheard is not None:
        hint = unheard.hint or gaps[-1].hint
        gaps.append(unheard)
        raise Failure(f"{unseen}; {unheard.place}: {unheard.reason}", hint=hint)
    said = os.memfd_create("journalctl")  # a pipe that nobody reads would fill, and hold it up
    try:
        process = subprocess.Popen(
            follow_argv(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=said,
            env=environment(),
        )
    except OSError as error:
        os.close(said)
        raise Failure(f"{unseen}; journalctl: {error.strerror}", hint=gaps[-1].hint) from error
    gaps[-1] = replace(gaps[-1], reason=f"{gaps[-1].reason}: the journal is followed", hint=None, hides=False)
    assert process.stdout is not None
    try:
        if ended := (yield from _pipe(os.dup(process.stdout.fileno()), wait)):
            words = os.pread(said, _LINE_BYTES, 0).decode(errors="backslashreplace").split("\n")
            last = next((line for line in reversed(words) if line), None)
            gaps.append(Gap(place="journal", reason=f"journalctl ended: {last}" if last else "journalctl ended"))
        return ended
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        os.close(said)


def _pipe(descriptor: int, wait: Wait, kept: Kept | None = None) -> Generator[bytes | None, None, bool]:
    """Returns whether the pipe has ended; else we are to."""
    try:
        yield None
        while (ready := wait(descriptor, QUIET_S)) is not None:
            if not ready:
                yield None
            elif data := os.read(descriptor, _READ_BYTES):
                if kept is not None:
                    kept.add(data)
                yield data
            else:
                if kept is not None:
                    kept.ended = True
                return True
        return False
    finally:
        if descriptor:  # standard input is not ours to close
            os.close(descriptor)


def _file(path: str, file: FileIO, wait: Wait, gaps: list[Gap]) -> Iterator[bytes | None]:
    """As `tail -F` does: from its end, through renames (logrotate) and emptying (copytruncate). Closes the file."""
    successor: FileIO | None = None
    try:
        file.seek(0, os.SEEK_END)
        yield None
        since_s = time.monotonic()  # the last line of this file came, or another had its path
        while True:
            if data := file.read(_READ_BYTES):
                yield data
                since_s = time.monotonic()
                continue
            status = os.fstat(file.fileno())
            if status.st_size < file.tell():
                file.seek(0)
                continue
            if wait(None, _LOOK_S) is None:
                return
            yield None
            if successor is None:
                successor = _successor(path, status, gaps)
                since_s = time.monotonic()
            elif time.monotonic() - since_s >= QUIET_S:  # the log daemon writes to it until it is told of the rename
                file.close()
                file, successor = successor, None
    finally:
        file.close()
        if successor is not None:
            successor.close()


def _successor(path: str, status: os.stat_result, gaps: list[Gap]) -> FileIO | None:
    """What has the path now, if it is another file; None too while there is none, or none that may be read."""
    try:
        now = os.stat(path)
        if (now.st_dev, now.st_ino) == (status.st_dev, status.st_ino):
            return None
        file = open_quietly(path)
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return file
        file.close()
        gap = Gap(place=shown(path), reason=_NO_LOG)
    except FileNotFoundError:  # between the rename and the new file
        return None
    except OSError as error:
        gap = unreadable(path, error)
    if gap not in gaps:
        gaps.append(gap)
    return None


def _lines(chunks: Iterable[bytes | None], ears: "Sequence[Ear]" = ()) -> Iterator[str | Said | None]:
    rest = b""
    said = False  # that it is quiet
    since_s = -inf  # by the clock: an ear ends the waiting early; the first silence is told at once
    for chunk in chunks:
        for ear in ears:
            for text in ear.take():
                said = False
                yield Said(ear.manager, text)
                since_s = time.monotonic()
        if chunk is None:
            if time.monotonic() - since_s >= QUIET_S and (ears or not said):
                said = True
                yield None
                since_s = time.monotonic()
            continue
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > _LINE_BYTES:
            lines.append(rest)
            rest = b""
        for line in lines:
            said = False
            yield line.decode(errors="backslashreplace")
        since_s = time.monotonic()
    if rest:
        yield rest.decode(errors="backslashreplace")


@contextmanager
def told_to_end(ears: "Sequence[Ear]" = ()) -> Iterator[Wait]:
    """SIGINT and SIGTERM end the waiting instead of raising, so no line is lost half explained.

    What engines say meanwhile is heard, and ends the waiting too.
    """
    told, teller = os.pipe()
    os.set_blocking(told, False)
    os.set_blocking(teller, False)
    earlier_teller = signal.set_wakeup_fd(teller, warn_on_full_buffer=False)
    earlier = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def let_the_next_act(number: int, _frame: object) -> None:
        signal.signal(number, earlier[signal.Signals(number)])

    for number in earlier:
        signal.signal(number, let_the_next_act)
    try:
        yield partial(_wait, told, ears)
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(earlier_teller)
        os.close(told)
        os.close(teller)


def turns(every_s: float, count: int | None) -> Iterator[int]:
    """A number for each look, in time for it, until there were `count`, or until we are told to end.

    One that would come late is left out.
    """
    with told_to_end() as wait:
        begun, turn, number = time.monotonic(), 0, 0
        while True:
            yield number
            number += 1
            if number == count:
                return
            turn = max(turn + 1, int((time.monotonic() - begun) / every_s))
            if wait(None, max(begun + turn * every_s - time.monotonic(), 0)) is None:
                return


def _wait(told: int, ears: "Sequence[Ear]", descriptor: int | None, seconds: float) -> bool | None:
    heard = {ear.descriptor: ear for ear in ears if ear.descriptor is not None}
    ready = select.poll()
    for number in heard:
        ready.register(number, select.POLLIN)
    ready.register(told, select.POLLIN)
    if descriptor is not None:
        ready.register(descriptor, select.POLLIN)
    events = ready.poll(seconds * 1000)
    if any(number == told for number, _ in events) and {signal.SIGINT, signal.SIGTERM} & set(os.read(told, 4096)):
        return None
    for number, _ in events:
        if number in heard:
            heard[number].hear()
    return any(number == descriptor for number, _ in events)

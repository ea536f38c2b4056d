"""Questions to a Redis server in its own protocol (RESP 2), on a loopback address or a socket of the file system."""

import os
import re
import socket
import threading
from collections.abc import Callable, Sequence
from functools import partial
from stat import S_ISSOCK
from time import monotonic

from reprieve.machine.cmdline import reached
from reprieve.machine.host import Host
from reprieve.model.process import Process

ANSWER_BYTES = 1024 * 1024  # INFO is some 5 KiB
_CLONE_NEWNET = 0x40000000


class NoAnswer(Exception):
    """It did not answer, and why."""


def ask(
    host: Host, process: Process, commands: Sequence[tuple[str, ...]], *, path: str, port: int, until: float
) -> list[str | list[str]]:
    """The answers of this very process to these commands, the first of them INFO: a text or a list of texts each.

    It is asked at the socket `path`, if there is one, else on loopback at `port`, in its own network. One deadline,
    `until` (of the monotonic clock), is for all. Raises NoAnswer: it refused, too, and what it refused with.
    """
    if monotonic() >= until:
        raise NoAnswer("it was not asked: other servers took the time")
    try:
        with _connect(host, process, path, port, until) as server:
            answers = _talk(server, commands, until)
    except TimeoutError:
        raise NoAnswer("it did not answer in time") from None
    except OSError as error:
        raise NoAnswer((error.strerror or str(error)).lower()) from error
    except ValueError:
        raise NoAnswer("its answer is none of a Redis server") from None
    info = answers[0]
    told = re.search(r"\r\nprocess_id:([0-9]{1,10})\r\n", info if isinstance(info, str) else "")
    if told is None:
        asks = isinstance(info, str) and info.startswith("-NOAUTH")
        raise NoAnswer("it asks for a password, and none is tried" if asks else "it refuses to tell of itself")
    if int(told[1]) != (process.ns_pids[-1] if process.ns_pids else process.pid):
        raise NoAnswer("another process answers in its place")
    return answers


def _connect(host: Host, process: Process, path: str, port: int, until: float) -> socket.socket:
    """Raises OSError."""
    if path:
        with reached(host, process, path) as step:
            if not S_ISSOCK(os.fstat(step).st_mode):
                raise OSError(0, "its socket is none")
            return _connected(socket.AF_UNIX, f"/proc/self/fd/{step}", until)
    errors = []
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        try:
            return _within(process, partial(_connected, family, (address, port), until))
        except OSError as error:
            errors.append(error)
    raise errors[0]


def _connected(family: int, address: str | tuple[str, int], until: float) -> socket.socket:
    server = socket.socket(family)
    try:
        server.settimeout(max(until - monotonic(), 0.001))
        server.connect(address)
    except BaseException:
        server.close()
        raise
    return server


def _within(process: Process, connect: Callable[[], socket.socket]) -> socket.socket:
    """What `connect` makes in the network of the process, which may be a container's: a thread of ours goes there."""
    try:
        there, here = (os.readlink(f"/proc/{who}/ns/net") for who in (process.pid, "self"))
    except OSError:  # it may not be told to us: then we could not go there either
        return connect()
    if there == here:
        return connect()
    made: list[socket.socket | OSError] = []

    def go() -> None:
        try:
            _enter(f"/proc/{process.pid}/ns/net")
            made.append(connect())
        except OSError as error:
            made.append(error)

    thread = threading.Thread(target=go, daemon=True)
    thread.start()
    thread.join()
    (found,) = made
    if isinstance(found, OSError):
        raise found
    return found


def _enter(namespace: str) -> None:
    """Bring this thread into a network. Raises OSError."""
    import ctypes  # os.setns() is there since Python 3.12

    descriptor = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET):
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))
    finally:
        os.close(descriptor)


def _talk(server: socket.socket, commands: Sequence[tuple[str, ...]], until: float) -> list[str | list[str]]:
    """Raises OSError; ValueError: it is no Redis that answers, or the answer is too long."""
    asked = "".join(
        f"*{len(words)}\r\n" + "".join(f"${len(word)}\r\n{word}\r\n" for word in words) for words in commands
    )
    server.sendall(asked.encode("ascii"))
    data = bytearray()
    while True:
        answers = parse(data, len(commands))
        if answers is not None:
            return answers
        if len(data) > ANSWER_BYTES:
            raise ValueError("too long")
        left = until - monotonic()
        if left <= 0:
            raise TimeoutError
        server.settimeout(left)
        block = server.recv(65536)
        if not block:
            raise ValueError("it ends")
        data += block


def parse(data: bytes | bytearray, count: int) -> list[str | list[str]] | None:
    """So many answers, refusals with their "-"; None: they are not all there. Raises ValueError: it is none.

    >>> parse(b"$2\\r\\nhi\\r\\n-NOAUTH no\\r\\n*2\\r\\n$4\\r\\nsave\\r\\n$0\\r\\n\\r\\n", 3)
    ['hi', '-NOAUTH no', ['save', '']]
    """
    answers: list[str | list[str]] = []
    at = 0
    while len(answers) < count:
        kind, line, at = _line(data, at)
        if kind == b"":
            return None
        if kind != b"*":
            text, at = _text(data, kind, line, at)
            if text is None:
                return None
            answers.append(text)
            continue
        texts: list[str] = []
        for _ in range(_length(line)):
            kind, line, at = _line(data, at)
            text, at = _text(data, kind, line, at)
            if text is None:
                return None
            texts.append(text)
        answers.append(texts)
    return answers


def _line(data: bytes | bytearray, at: int) -> tuple[bytes, bytes, int]:
    """The kind of what comes next, its line, and where that ends; no kind: it is not all there."""
    end = data.find(b"\r\n", at)
    if end < 0:
        if data[at : at + 1] not in (b"", *_KINDS):
            raise ValueError("no kind")
        return b"", b"", at
    return bytes(data[at : at + 1]), bytes(data[at + 1 : end]), end + 2


_KINDS = (b"$", b"*", b"-", b"+", b":")


def _text(data: bytes | bytearray, kind: bytes, line: bytes, at: int) -> tuple[str | None, int]:
    """A text, and where it ends; None: it is not all there."""
    if kind == b"":
        return None, at
    if kind == b"$":
        end = at + _length(line)
        if len(data) < end + 2:
            return None, at
        return data[at:end].decode(errors="backslashreplace"), end + 2
    if kind not in _KINDS or kind == b"*":
        raise ValueError("no text")
    return (kind + line if kind == b"-" else line).decode(errors="backslashreplace"), at


def _length(line: bytes) -> int:
    if not re.fullmatch(b"[0-9]{1,7}", line):
        raise ValueError("no length")
    return int(line)

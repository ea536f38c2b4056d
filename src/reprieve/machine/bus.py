"""The system bus of D-Bus: one connection, and one deadline for all waiting on it."""

import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import monotonic
from types import TracebackType
from typing import Any, NamedTuple, Self

from jeepney.auth import BEGIN, Authenticator
from jeepney.low_level import Header, HeaderFields, Message, MessageType, calc_msg_size, parse_signature
from jeepney.wrappers import DBusAddress, new_method_call

_MESSAGE_BYTES = 16 * 1024 * 1024  # 10,000 units in one list are 2 MiB
_ALL_BYTES = 64 * 1024 * 1024  # in one connection: 2,000 units are 30 MiB
_AHEAD = 16  # questions asked before the first of them is answered
_HELLO = DBusAddress("/org/freedesktop/DBus", "org.freedesktop.DBus", "org.freedesktop.DBus")
_SIZES = {b"y": 1, b"n": 2, b"q": 2, b"b": 4, b"i": 4, b"u": 4, b"x": 8, b"t": 8, b"d": 8}
# What jeepney raises where bytes are no message.
_NONSENSE = (ValueError, KeyError, IndexError, TypeError, AssertionError, RecursionError, struct.error)


class Answer(NamedTuple):
    """A reply as it came, read where it is wanted."""

    asked: int  # which of the questions, from 0
    header: Header
    data: bytes
    at: int  # where its body begins

    @property
    def error(self) -> str | None:
        """The name of the error that it is, if it is one."""
        if self.header.message_type is not MessageType.error:
            return None
        return str(self.header.fields.get(HeaderFields.error_name, "an error without a name"))

    @property
    def sender(self) -> str | None:
        """Who said it, by the name that the bus gave him."""
        sender: str | None = self.header.fields.get(HeaderFields.sender)
        return sender

    @property
    def signature(self) -> str:
        """Of what types its body is."""
        return str(self.header.fields.get(HeaderFields.signature, ""))

    def body(self) -> tuple[Any, ...]:
        """All of it. Raises ValueError: it cannot be read."""
        try:
            return tuple(Message.from_buffer(self.data).body)
        except _NONSENSE as error:
            raise ValueError("no message of D-Bus") from error

    def properties(self, wanted: frozenset[bytes]) -> dict[str, object]:
        """Of a body `a{sv}` the values that are wanted. Raises ValueError: it is none, or cannot be read.

        The others are stepped over, mostly by the length they begin with: of the 350 properties of a service a handful
        is of use, and to make values of them all takes ten times as long.
        """
        try:
            if self.signature != "a{sv}":
                raise ValueError("no properties")
            return self._picked(wanted)
        except _NONSENSE as error:
            raise ValueError("no message of D-Bus") from error

    def _picked(self, wanted: frozenset[bytes]) -> dict[str, object]:
        data, at = self.data, self.at
        number = struct.Struct(f"{self.header.endianness.struct_code()}I").unpack_from
        end = at + 4 + number(data, at)[0]
        at += 4
        found: dict[str, object] = {}
        while (at := at + -at % 8) < end:  # the first entry too is at a multiple of 8
            length = number(data, at)[0]
            key = data[at + 4 : at + 4 + length]
            at += length + 5
            length = data[at]
            signature = data[at + 1 : at + 1 + length]
            at += length + 2
            if key in wanted or (after := _after(data, at, signature, number)) is None:
                kind = parse_signature(list(signature.decode()))
                value, after = kind.parse_data(data, at, self.header.endianness)
                if key in wanted:
                    found[key.decode()] = value
            at = after
        return found


def _after(data: bytes, at: int, signature: bytes, number: Any) -> int | None:
    """Where a value ends; None if that is not told by its beginning."""
    first = signature[:1]
    if (size := _SIZES.get(first)) is not None:
        return at + -at % size + size
    if first not in (b"s", b"o", b"a"):
        return None
    at += -at % 4
    length: int = number(data, at)[0]
    at += 4
    if first != b"a":
        return at + length + 1
    return at + (-at % 8 if signature[1:2] in (b"x", b"t", b"d", b"(", b"{") else 0) + length


class Bus:
    """A connection to the bus; a context manager that closes it.

    The deadline is of all the time that is spent on waiting: what we do in between, on a machine that is busy or short
    of memory, is not the fault of the bus.

    Everything on it raises OSError, TimeoutError among them when the deadline is over, or ValueError if what listens
    there speaks no D-Bus.
    """

    def __init__(self, path: str, deadline_s: float) -> None:
        self._left_s = deadline_s
        self._received = bytearray()
        self._all = 0
        self._serial = 0
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            with self._waiting():
                self._socket.connect(path)
            self._authenticate()
            for answer in self.ask([new_method_call(_HELLO, "Hello")]):
                if answer.error is not None:
                    raise ValueError(answer.error)
        except BaseException:  # nobody else has it to close
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def ask(self, questions: Sequence[Message]) -> Iterator[Answer]:
        """The answers, as they come."""
        sent, waiting = 0, dict[int, int]()
        while waiting or sent < len(questions):
            while sent < len(questions) and len(waiting) < _AHEAD:
                self._serial += 1
                waiting[self._serial] = sent
                self._send(questions[sent].serialise(self._serial))
                sent += 1
            data = self._message()
            try:
                header, at = Header.from_buffer(data)
            except _NONSENSE as error:
                raise ValueError("no message of D-Bus") from error
            asked = waiting.pop(header.fields.get(HeaderFields.reply_serial, 0), None)
            if asked is not None:  # else a signal: that we have a name, that somebody came or went
                yield Answer(asked, header, data, at + -at % 8)

    def heard(self, member: str, sender: str | None) -> tuple[Any, ...]:
        """What the next signal of that name and sender says: anybody may send one to us. Others are passed over."""
        while True:
            data = self._message()
            try:
                header, at = Header.from_buffer(data)
            except _NONSENSE as error:
                raise ValueError("no message of D-Bus") from error
            told = Answer(0, header, data, at + -at % 8)
            is_signal = header.message_type is MessageType.signal
            if is_signal and header.fields.get(HeaderFields.member) == member and told.sender == sender:
                return told.body()

    def _message(self) -> bytes:
        self._receive(16)
        try:
            size = calc_msg_size(bytes(self._received[:16]))
        except _NONSENSE as error:
            raise ValueError("no message of D-Bus") from error
        if size > _MESSAGE_BYTES:
            raise ValueError("longer than any honest message")
        self._receive(size)
        data = bytes(self._received[:size])
        del self._received[:size]
        return data

    def _authenticate(self) -> None:
        talk = Authenticator()
        for said in talk:
            self._send(said)
            talk.feed(self._block())  # raises AuthenticationError, a ValueError
        self._send(BEGIN)

    def _send(self, data: bytes) -> None:
        with self._waiting():
            self._socket.sendall(data)

    def _receive(self, size: int) -> None:
        while len(self._received) < size:
            self._received += self._block()

    def _block(self) -> bytes:
        with self._waiting():
            block = self._socket.recv(65536)
        self._all += len(block)
        if not block:
            raise ValueError("the bus hung up")
        if self._all > _ALL_BYTES:
            raise ValueError("it says more than any honest bus")
        return block

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        """Let a call wait for what is left until the deadline; 0 would not wait at all, and is another error."""
        self._socket.settimeout(max(self._left_s, 0.001))
        began = monotonic()
        try:
            yield
        finally:
            self._left_s -= monotonic() - began

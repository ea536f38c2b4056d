"""Entries of a log that stand in several lines each → the same text, each as one object of JSON in one line.

So do `journalctl -o json-pretty`, `-o export` and `-o verbose` print them, and `dmesg --json`. What proves who wrote a
message stands in other lines than the message, and only whoever reads the entry as it was written can tell both from
what a program wrote to look like them: a field of the journal may hold any bytes, newlines too.
"""

import json
import re

from reprieve.oom.pattern import compiled

# Of the journal itself: no program can set them, and one is in every entry.
_PROOFS = ("_TRANSPORT", "_BOOT_ID", "_HOSTNAME", "__REALTIME_TIMESTAMP", "__CURSOR")
_KEPT = {*_PROOFS, "MESSAGE", "SYSLOG_IDENTIFIER", "SYSLOG_FACILITY", "_SOURCE_MONOTONIC_TIMESTAMP"}
_OF_DMESG = {"msg", "pri", "time"}
_FIELD = r"( {4}|)([A-Z_][A-Z0-9_]{0,63})="  # with blanks as in verbose, without as in export
_NAME = r"[A-Z_][A-Z0-9_]{0,63}$"  # export, of a field that is no line of text: eight bytes of length, then the field
_LONGEST = 1 << 32  # bytes of a field: eight letters of a text are a larger number
_LONG = 300  # of a fact: no honest one has more, and it is written again with each message of its entry
_VERBOSE_LEAD = " " * 4
_PAIR = r'\s{0,40}"(\w{1,64})" ?: {0,2}'
_NUMBER = "-?[0-9][0-9.eE+-]{0,30}"
_ELEMENT = rf'"|(?:{_NUMBER}|true|false|null|\[|\]),?$'  # of a list
_VERBOSE = r"(?:\w+ )?(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\S{0,10} \S{1,6}) \[(s=\S{1,400})\]\s*$"
_ESCAPED = r"\\x([89a-f][0-9a-f])"  # a byte that is not UTF-8, as all texts are decoded


class _Entry:
    """One that is being read."""

    __slots__ = ("array", "first", "form", "last", "messages", "more", "told")

    def __init__(self, form: str, first: int) -> None:
        self.form = form  # "json", or the blanks before its fields
        self.first = first  # of its lines
        self.told: dict[str, object] = {}
        self.messages: list[tuple[int, str, object]] = []  # in which line, by which name
        self.more: dict[int, list[str]] = {}  # lines of a message behind its first
        self.last = ""  # the field that lines more may belong to
        self.array: list[int] | None = None  # numbers of bytes, one in a line

    def tell(self, line: int, name: str, value: object) -> None:
        """Take a field; the first of a name counts."""
        if name in ("MESSAGE", "msg"):
            self.messages.append((line, name, value))
        elif name in _KEPT or name in _OF_DMESG:
            self.told.setdefault(name, value[:_LONG] if isinstance(value, str) else value)

    def is_of_journal(self) -> bool:
        """Or of dmesg; else it is of anything that is written so."""
        return {"pri", "time"} <= self.told.keys() or any(isinstance(self.told.get(name), str) for name in _PROOFS)


class _Gatherer:
    """Reads a text line by line; what may be of an entry waits until that is over."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.lines: list[str] = []  # as many as the text has
        self.entry: _Entry | None = None

    def gather(self) -> str:
        """The text with its entries in one line each."""
        at = 0
        while at <= len(self.text):
            end = self.text.find("\n", at)
            end = len(self.text) if end < 0 else end
            at = self._take(self.text[at:end], end + 1)
        self._finish(cut=bool(self.lines[-1]))
        return "\n".join(self.lines)

    def _take(self, line: str, behind: int) -> int:
        """Read a line; where the next begins."""
        entry, number = self.entry, len(self.lines)
        self.lines.append(line)
        if field := compiled(_FIELD).match(line):
            form, name = field.groups()
            if entry is None or entry.form != form:
                self._finish(below=1)
                entry = self.entry = _Entry(form, number) if name in _KEPT else None
            if entry is not None:
                entry.last = name
                entry.tell(number, name, line[field.end() :].removesuffix("\r"))
            return behind
        if compiled(_NAME).match(line) and (found := _length(self.text, behind)):
            if entry is None or entry.form != "":
                self._finish(below=1)
                entry = self.entry = _Entry("", number)
            entry.last = ""
            end = self._end_of_bytes(*found)
            entry.tell(number, line, self.text[found[0] : end])
            self.lines += self.text[behind:end].split("\n")
            return end + 1
        if entry is not None and entry.form == _VERBOSE_LEAD:
            lead = len(f"{_VERBOSE_LEAD}{entry.last}=")  # as far in as its first words a field goes on
            if not line[:lead].strip():
                if entry.last == "MESSAGE":
                    entry.more.setdefault(entry.messages[-1][0], []).append(line[lead:])
                return behind
        if heading := compiled(_VERBOSE).match(line):
            self._finish(below=1)
            self.entry = _Entry(_VERBOSE_LEAD, number)
            self.entry.told |= {"time": heading[1], **_of_cursor(heading[2])}
            return behind
        self._take_json(line)
        return behind

    def _end_of_bytes(self, start: int, length: int) -> int:
        """Where a field of so many bytes ends.

        `\\xff` may be a byte, or the four that a program wrote: what ends with a line counts, and the later, so that
        nothing within a field is taken for what stands behind it.
        """
        text = self.text
        ends = [min(_end(text, start, length, escaped=escaped), len(text)) for escaped in (False, True)]
        end = max((end for end in ends if text.startswith("\n", end)), default=-1)
        if end < 0:
            end = text.find("\n", max(ends))
        return len(text) if end < 0 else end

    def _take_json(self, line: str) -> None:
        entry, number = self.entry, len(self.lines) - 1
        bare = line.strip()
        if bare.endswith("{") or bare in ("}", "},"):
            gathered = self._finish(below=1)
            self.entry = _Entry("json", number) if bare.endswith("{") else None
            if gathered and self.entry is None:
                self.lines[number] = ""
            return
        pair = compiled(_PAIR).match(line)
        if entry is None and pair and pair[1] in _KEPT:  # of one that was cut
            entry = self.entry = _Entry("json", number)
        if entry is None:
            return
        if entry.form != "json":
            self._finish(below=1)
            return
        if pair is None:
            if bare and compiled(_ELEMENT).match(bare) is None:
                self._finish(below=1)
            else:
                _take_element(entry, number, bare.removesuffix(","))
            return
        name, value = pair[1], line[pair.end() :].strip().removesuffix(",")
        entry.last, entry.array = name, [] if value == "[" else None
        if (name in _KEPT or name in _OF_DMESG) and (told := _loaded(value)) is not None:
            entry.tell(number, name, told)

    def _finish(self, *, below: int = 0, cut: bool = False) -> bool:
        """The entry is over, but for so many lines; is it one? `cut`: its last line is, in which a word may end."""
        entry, self.entry = self.entry, None
        if entry is None or not entry.is_of_journal():
            return False
        last = len(self.lines) - below
        if cut and entry.form != "json" and entry.messages and entry.messages[-1][0] == last - 1:
            if entry.told.get("_TRANSPORT", "kernel") == "kernel":
                return False
            entry.messages.pop()
        self.lines[entry.first : last] = [""] * (last - entry.first)
        for number, name, said in entry.messages:
            if entry.more:
                said = "\n".join((str(said), *entry.more.get(number, ())))
            self.lines[number] = json.dumps({name: said, **entry.told}, ensure_ascii=False)
        return True


def as_objects(text: str) -> str:
    """The same text, as long in lines; an entry that was cut is what is left of it.

    >>> as_objects("_HOSTNAME=lab\\nMESSAGE=usb 1-1: reset\\n\\n")
    '\\n{"MESSAGE": "usb 1-1: reset", "_HOSTNAME": "lab"}\\n\\n'
    """
    return _Gatherer(text).gather()


def _take_element(entry: _Entry, number: int, bare: str) -> None:
    """Of a list: a byte of a message that is no text, or one of several messages."""
    if entry.last != "MESSAGE" or entry.array is None:
        return
    if bare == "]":
        if entry.array:
            entry.tell(number - len(entry.array) - 1, "MESSAGE", entry.array)
        entry.array = None
    elif re.fullmatch("[0-9]{1,3}", bare):
        entry.array.append(int(bare))
    elif (said := _loaded(bare)) is not None:
        entry.tell(number, "MESSAGE", said)


def _loaded(value: str) -> object:
    """A text or a number; None, if it is none, or was cut."""
    if not value.startswith('"') and re.fullmatch(_NUMBER, value) is None:
        return None
    try:
        return json.loads(value)
    except ValueError:
        return None


def _of_cursor(cursor: str) -> dict[str, object]:
    """When, and in which boot: `s=..;i=1;b=3231..;m=1b9ee8b;t=60a24181e4000;x=..`."""
    told: dict[str, object] = {}
    if boot := re.search(r";b=([0-9a-f]{32});", cursor):
        told["_BOOT_ID"] = boot[1]
    if microseconds := re.search(r";t=([0-9a-f]{1,14})(?:;|$)", cursor):
        told["__REALTIME_TIMESTAMP"] = str(int(microseconds[1], 16))
    return told


def _length(text: str, at: int) -> tuple[int, int] | None:
    """Where the field begins behind its eight bytes of length there, and that length; None if they are none."""
    start = _end(text, at, 8, escaped=True)
    written = re.sub(
        rb"\\x([89a-f][0-9a-f])",
        lambda escaped: bytes((int(escaped[1], 16),)),
        text[at:start].encode(errors="backslashreplace"),
    )
    length = int.from_bytes(written, "little")
    return (start, length) if len(written) == 8 and length < _LONGEST else None


def _end(text: str, at: int, length: int, *, escaped: bool) -> int:
    """Where so many bytes end. `escaped`: four characters `\\xff` are one of them."""
    if not escaped:
        part = text[at : at + length]
        return at + (length if part.isascii() else len(_encoded(part)[:length].decode(errors="ignore")))
    left = length
    for byte in compiled(_ESCAPED).finditer(text, at, at + length * 4):
        between = len(_encoded(text[at : byte.start()]))
        if between >= left:
            break
        left -= between + 1
        at = byte.end()
    return _end(text, at, left, escaped=False)


def _encoded(text: str) -> bytes:
    return text.encode(errors="replace")  # halves of characters, which only JSON can spell, are in no such text

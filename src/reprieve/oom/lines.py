"""Kernel lines out of whatever carried them: prefixes off, wrapped pastes joined (`oom/wrapped.py`).

A line reaches us from dmesg, a serial console, /dev/kmsg, the journal, syslog, a container log, a mail, a web page or
`grep -n`. Each puts something before the kernel's words, some break them, some escape them. What is taken off is kept
as `head`: it tells when, on which host, and by whom the line was written.
"""

import re
from collections.abc import Iterator
from functools import cache, lru_cache
from itertools import chain, count, repeat
from operator import itemgetter

from reprieve.model.oom import Stamp
from reprieve.oom.line import Line
from reprieve.oom.pattern import compiled
from reprieve.oom.wrapped import SOFT, unwrap

_SYSLOG_DATE = r"""(?:
    (?:\d{4}[ ]|[^\W\d]{2,5}\.?[ ])? (?:[^\W\d]{2,5}\.?|\d{1,2}[月월])[ ]+\d{1,2}[ ](?:\d{4}[ ])?
    \d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:(?:[ ][A-Z]{3,5})?[ ]\d{4}\b)?
)"""
_ISO_DATE = r"""(?:
    (?:[^\W\d]{2,5}\.?[ ])? \d{4}[-/]\d\d[-/]\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?
    (?:[ ]?(?:Z|[+-]\d\d:?\d\d|(?!INFO|WARN|ERROR|DEBUG|FATAL)[A-Z]{3,5}\b))?
  | \d{9,10}\.\d{6}(?=[ ])
)"""
# As Windows, Kibana, spreadsheets and people write it; which of the two is the month it does not tell.
_ANY_DATE = r"""(?:
    \d{1,2}[./-](?:\d{1,2}|[A-Z][a-z]{2})[./-]\d{4},?[ ]\d{1,2}:\d\d:\d\d(?:[.,]\d{1,9})?(?:[ ][AP]M)?
  | (?:[A-Z][a-z]{2},?[ ])?(?:\d{1,2}[ ][A-Z][a-z]{2}|[A-Z][a-z]{2}[ ]\d{1,2},)[ ]\d{4}(?:[ ]@)?
    [ ]\d{1,2}:\d\d:\d\d(?:[.,]\d{1,9})?(?:[ ][AP]M)?(?:[ ][A-Z]{3,5})?
)"""
_DMESG_DATE = r"[^\W\d][^\[\]\n]{2,20}\d\d:\d\d:\d\d[^\[\]\n]{0,12}\d{4}"  # as the language of its user has it
_MINUTE = r"[A-Z][a-z]{2}[ ]?\d{1,2}[ ]\d\d:\d\d"  # dmesg -H and -e
_UPTIME_STAMP = r"\[[<+\s]{0,12}(?:\d-)?\d{1,12}[.,]\d{1,9}(?:[@,]\d{1,3}|s|[ ]<[\s\d.]{1,16}>|>)?\]"
_KERNEL_STAMP = rf"""
    (?:\[(?:{_DMESG_DATE}(?:[ ]<[\s\d.]{{1,16}}>)?                          # dmesg -T
          |(?:[A-Z][a-z]{{2}}[ ])?[A-Z][a-z]{{2}}[ ]?\d{{1,2}}[ ]\d\d:\d\d(?::\d\d)?  # dmesg -H; -T without its year
          |\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{{3}}Z)\](?:[ ]|$)               # Jenkins
      |\[{_ISO_DATE}\](?=[ ]kernel:)
      |\[[^\[\]\n]{{0,24}}\d\d:\d\d[^\[\]\n]{{0,33}}\][ ]?(?={_UPTIME_STAMP}))?  # a terminal's log
    (?:{_UPTIME_STAMP}(?:[ ]?\[\s*[TC]\d+\S*\])?                          # dmesg, with a caller
       (?:[ ]{{0,2}}(?:<\d>)?(?:\.?\(\d\))?\[[^\[\]\n]{{0,16}}:[^\[\]\n]{{0,24}}\])?[ ]?)?   # Android: who, where
"""
_HEAD = rf"""(?x)
(?:[ \t]*(?:[>|][ ]?)+)?                                                  # a quoted mail
(?P<stamped>
  (?:\d{{1,9}}[:-](?=[<\[A-Z]|\d{{4}}-\d\d-\d\d)(?!\w{{3}}-\d{{4}})             # grep -n; grep -r, with and without -n
    |[^\s:\[\]<>]{{1,200}}[:-](?:\d{{1,9}}[:-])?
     (?=<\d|\[\s*\d+\.\d|\[\w{{2,4}}[ ]|[A-Z][a-z]{{2}}[ ]+\d|\d{{4}}-\d\d-\d\d))?
  (?:<(?P<priority>\d{{1,3}})>(?:1[ ])?)?                                    # dmesg -r, serial console; RFC 5424
  (?:(?P<record>[0-9]{{1,4}}),[0-9]{{1,20}},[0-9]{{1,18}},[^;,\s]{{1,4}}(?:,[^;\s]*)?;)?             # /dev/kmsg
  (?:(?P<facility>[a-z]+\d?)[ ]*:[a-z]+[ ]*:[ ])?                           # dmesg -x
  (?:{_SYSLOG_DATE}                                                        # RFC 3164, journalctl: a host, and who wrote
     (?:(?:[ ][^\s:\[\]]+)?(?:[ ][a-z0-9]+\.[a-z]+)?[ ](?P<tag>[^\s:\[\]]+)(?:\[\d+\])?:(?:[ ]|$)
      |[ ]\[kernel\](?:[ ]|$)                                               # metalog
      |[ ][^\s:\[\]]+(?:[ ]kernel)?[ ]+(?={_UPTIME_STAMP}) | [ ]+ | $)       # netconsole: a host
   |{_ISO_DATE}
     (?:[ ](?:stdout|stderr)[ ][FP][ ]                                     # a container log (CRI)
      |[ ]0x[\da-f]+[ ]+\w+[ ]+0x[\da-f]+[ ]+\d+[ ]+\d+[ ]+com\.docker\.[\w.-]+:[ ]  # macOS, of Docker's machine
      |[ ]\[kernel\](?:[ ]|$)
      |[ ]\S+[ ](?P<app>[^\s:]+)[ ]\S+[ ]\S+[ ](?:-|\[[^\]]*\])[ ]\ufeff?   # RFC 5424
      |(?:[ ][^\s:\[\]]+)?[ ](?P<iso_tag>kernel|[^\s:\[\]]+(?=\[\d+\]:))(?:\[\d+\])?:(?:[ ]|$)
      |[ ][^\s:\[\]]+:\d{{1,5}}[ ]+(?={_UPTIME_STAMP})                         # of netconsole: a host and its port
      |[ ]+ | $)                                                           # dmesg --time-format iso, kubectl: no host
   |\d\d-\d\d[ ]\d\d:\d\d:\d\d\.\d{{3}}[ ]+\d+[ ]+\d+[ ][VDIWEF][ ].{{0,30}}?:[ ]  # logcat
   |{_ANY_DATE}(?:[ ][^\s:\[\]]{{1,255}})?(?=[ ]kernel:[ ]))?
  (?:<\d>|[ ](?=\[[ \d]))?{_KERNEL_STAMP}                                     # klogd of old left the level
  (?:[ ]?(?:[^\s:\[\]]+[ ])?kernel:[ ]?(?:<\d>)?{_KERNEL_STAMP})?            # journalctl -o short-monotonic, wall
  (?:[ ]*MESSAGE=)?                                                       # journalctl -o export, verbose
)"""
# A stamp that lost its bracket: whoever copied began one character late.
_CUT_STAMP = r"([ \t>|]{0,12})((?:[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4}|\d{1,12}\.\d{6})\] )"
# `journalctl -o short-monotonic`: a host, and who wrote it. The kernel prints no such words before its own.
_OF_PROGRAM = (
    rf"{_UPTIME_STAMP} (?:[\w.-]{{1,255}} )?(?!kernel: )[^\s:\[\]]{{1,255}}(?:\[\d{{1,10}}\])?: "
    "(?=(?:Out of memory|Memory cgroup out of memory): Kill)"
)
# Where a relay put its own head before that of the machine: a host, and then the head of a line of the kernel's.
_RELAYED = (
    rf"(?x)(?:[\w.:-]{{1,255}}[ ]{{1,2}})?(?=(?:{_SYSLOG_DATE}|{_ISO_DATE})[ ][\w.-]{{1,255}}[ ]kernel(?:\[\d+\])?:[ ])"
)
# The head of most lines there are, and what is behind it, by one search for all lines of a text. Where it matches it is
# what _HEAD would find. Its classes are of ASCII, and spelled as sets, which are asked faster.
_BY_KERNEL = rf"(?:<\d{{1,3}}>)?\s{{0,8}}(?:{_UPTIME_STAMP}|(?:\S{{1,64}} +){{0,5}}kernel: )"
_USUAL = r"""(?xam)^
(?:((?>
  (?:[A-Z][a-z][a-z][ ][ 0-9]\d[ ]\d\d:\d\d:\d\d [ ][\w.-]++ [ ](?:kernel|([\w.-]++))(?:\[\d++\]|):[ ]
   | \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9}|)(?:Z|[+-]\d\d:?\d\d) [ ][\w.-]++ [ ]
     (?:kernel(?:\[\d++\]|)|([\w.-]++)\[\d++\]):[ ]
   | )
  (?:\[[ ]{0,8}+\d{1,12}+\.\d{1,9}+\](?:[ ]?\[[ ]*+[TC]\d++\]|)[ ]|)
))(?![ ]?(?:[^ \t\n\r\f\v:\[\]]++[ ]|)kernel: | [ ]*+MESSAGE= | [A-Z][a-z][a-z][ ][ 0-9]\d[ ]\d\d:
   | <\d | [ ]{0,2}+\[[^\[\].,:\n]{0,40}+[.,:]) |)(.*)""".replace(r"\d", "[0-9]").replace(r"\w", "A-Za-z0-9_")
_JSON_LOGS = ("MESSAGE", "log", "msg")  # journal, Docker, dmesg
# Of shippers, clouds, Graylog and Splunk, and of any program's own log; and what they put all of it into.
_JSON_WORDS = ("message", "textPayload", "line", "short_message", "_raw")
_JSON_WITHIN = ("jsonPayload", "_source", "result")
_JSON_LISTS = ("values", "lines")  # of strings, each of which is a line
_OF_THE_JOURNAL = {"_TRANSPORT", "_BOOT_ID", "__REALTIME_TIMESTAMP"}
_JSON_PAIR = rf'\s*"(?:{"|".join((*_JSON_LOGS, *_JSON_WORDS))})" ?: ?"'  # of an entry that is printed in many lines
_INLINE = r"\[\s{0,8}\d{1,8}\.\d{6}\](?:\[\s*[TC]\d+\])? "  # a kernel line glued to a program's on a console
# What stands before it where a mailer took lines for prose: the rest of the message before, and a head.
_FLOWED = (
    r".{0,200}(?:[(=]|\[<|:\d|kB|\d/\d|process |score |pages ).{0,200} "
    r"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \S{1,255} kernel: $"
)
_WIDE = 200  # columns: no mailer's line has more
# `talosctl dmesg`: of several nodes with the name of each.
_TALOS = rf"(?x)\s*(?:[\w.-]{{1,255}}:[ ])?(?P<facility>[a-z]+\d?):[ ]{{1,8}}[a-z]{{3,7}}:[ ]\[{_ISO_DATE}\]:[ ]"
# A line in quotes or code marks: in a list of a program, a cell, a sentence.
_OPENED = rf"(?x).{{0,200}}?[\"'`](?=(?:{_SYSLOG_DATE}|{_ISO_DATE})[ ])"
# Where another message begins within one: a mailer, or a page, took a paragraph of the log for one of prose.
_GLUED = (
    r"\s(?=(?:[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\S{0,20})(?: \S{1,255})? kernel: "
    r"|\[[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4}\] )"
    r"|(?<=\S)\s?(?=\[\s{0,8}\d{1,8}\.\d{6}\](?:\[\s*[TC]\d+\])? )"
)
_QUOTED = r"\s*([\"'])((?:(?!\1).)*)\1[,;]?\s*$"  # all of a line: of a list that a program wrote
_NUMBERED = r"(?: {0,9}\d{1,9}\t[^\n]*\n| *\n)*(?: {0,9}\d{1,9}(?:\t[^\n]*)?)?"  # cat -n, nl: all of it
_RAN_ON = ("Out of ", "Killed process ")  # until 2.6.24 none ended its line
_NOT_ENDED = r"(?<=child)\s?(?=Killed process |Out of memory: )|(?<=\))(?=Out of memory: |Killed process \d)"
_LONG = 1024  # characters: printk's longest record, LOG_LINE_MAX
_ANSI = r"\x1b\[[0-9;?]*[A-Za-z]"
_COLOUR = r"(?:ESC|\^\[|#033|\\(?:u001b|x1b|033|e))\[[0-9;]{0,8}m"  # of less, `cat -v`, rsyslog, programs
_COLOURED = rf"(?m)^\[[0-9;]{{1,8}}m({_UPTIME_STAMP}|\[{_DMESG_DATE}\])( ?)(?:\[[0-9;]{{1,8}}m){{0,3}}"  # ESC was lost
_OF_ENTRIES = ("_TRANSPORT=", "_BOOT_ID=", "__REALTIME_TIMESTAMP=", '\n\t"')  # that stand in many lines each
_ESCAPES = ("&lt;", "&gt;", "&quot;", "&#39;", "&#x27;", "&nbsp;", "&#160;", "&amp;")
# Some daemons name the host and not who wrote: told by what no program's line begins with.
_DATED = r"[> ]{0,8}[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d "
_UNTAGGED = rf"(?m)^{_DATED}([\w.-]{{1,64}}) (?:(?:Node \d+ )?(?:DMA|Normal|HighMem)(?: per-cpu:| free:|: \d)|\[<)"
_NO_TAG = r"(?!(?!oom-killer)[a-z][\w./-]*(?:\[\d+\])?: )"
_BB_TAG = r"(?i)\[/?(?:b|i|u|code|color|font|quote|size|spoiler)(?:=[^\[\]\n]{1,40})?\]"
_NOT_QUOTED = r"=(?![0-9A-F]{2}|\n|\Z)"  # in quoted-printable no `=` stands for itself
_TAG = r"</?(?:br|span|p|pre|code|div|font|li)\b[^<>\n]{0,200}>"
_WRAPPED_BYTES = 512  # how far a broken line is looked for in a brief reading


def read_lines(text: str, first: int = 1) -> Iterator[Line]:
    """Take a text apart into messages, numbered from `first`; its last line is not `whole` if no newline ends it."""
    return _read_lines(text, first, True)


def _read_lines(text: str, first: int, as_given: bool) -> Iterator[Line]:
    given = text
    if "\r" in text:
        text = text.replace("\r\n", "\n")
    if "\x1b" in text:
        text = re.sub(_ANSI, "", text)
    if _has(text, "<", "br", "/span>", "/p>"):
        text = re.sub(_TAG, "", text)
    if "[/" in text:
        text = re.sub(_BB_TAG, "", text)
    if "=" in text and not compiled(_NOT_QUOTED).search(text) and "=3D" in text:
        text = re.sub("=C2(=\n)?=A0|=([0-9A-F]{2})", _quoted_printable, text).replace("=\n", f"{SOFT}\n")
    if "&" in text and ("&lt;" in text or "&gt;" in text or "&#" in text or "&nbsp;" in text):
        text = _unescape(text)
    if "\xa0" in text:
        text = text.replace("\xa0", " ")
    if "kernel: " not in text and (untagged := compiled(_UNTAGGED).search(text)):
        text = re.sub(rf"(?m)^({_DATED}{re.escape(untagged[1])}) {_NO_TAG}", r"\1 kernel: ", text)
    found: list[_Found] = compiled(_USUAL).findall(text)
    whole = text == "" or text.endswith("\n")
    if whole:
        found.pop()  # what is behind the last newline
    folded = _has(text, "#", "012") or _has(text, "\\", "x0a")
    usual = found and not folded and all(map(_HEAD_OF, found)) and SOFT not in text  # none is the rest of another
    if usual and max(map(len, map(_TEXT, found))) <= _LONG and not _may_run_on(text):  # nor holds one
        lines = _usual(found, first, whole)
        return _disowned(lines) if text[0] == "[" and _may_be_of_program(text) else lines
    if as_given and (plain := _plain(given)) != given:
        return _read_lines(plain, first, False)
    lines = _unglue(unwrap(list(_split(found, first, whole, folded))))
    return _disowned(lines) if "[" in text and _may_be_of_program(text) else lines


def _may_be_of_program(text: str) -> bool:
    return ": Out of memory: Kill" in text or ": Memory cgroup out of memory: Kill" in text


def _disowned(lines: Iterator[Line]) -> Iterator[Line]:
    """The same; what a program wrote to look like a kill is told apart behind a stamp of the kernel's clock too."""
    for line in lines:
        if found := compiled(_OF_PROGRAM).match(raw := line.head + line.text):
            line = line._replace(head=found[0], text=raw[found.end() :], kernel=False)
        yield line


def _plain(text: str) -> str:
    """The same lines without numbers in front, and colours that are written out; each entry of many lines in one."""
    if "\t" in text[:16] and compiled(_NUMBERED).fullmatch(text):
        text = re.sub(r"(?m)^ {0,9}\d{1,9}\t", "", text)
    if any(word in text for word in _OF_ENTRIES) or _has(text, "{", "\n", "\r\n"):
        from reprieve.oom.entries import as_objects

        text = as_objects(text)
    if "m[" in text:
        if compiled(rf"(?m)^{_COLOUR}(?=\[)").search(text):
            text = re.sub(_COLOUR, "", text)
        text = re.sub(_COLOURED, r"\1\2", text)
    return text


def _has(text: str, rare: str, *after: str) -> bool:
    """Is one of the words in it that begin with that character? Those are rare, and found at a leap."""
    at = text.find(rare)
    while at >= 0 and not text.startswith(after, at + 1):
        at = text.find(rare, at + 1)
    return at >= 0


# What a summary of an event is read from: its end points, and whose limit it was. Each part begins with a character
# that is rare in a report, which makes the search four times as fast.
_SPINE = rb"-kill|Kill(?:ed)? process|Memory cgroup|Out of |Tasks? in /|y: usage|Kernel panic|SysRq"
_FAILURE = b"page allocation failure"
_IN_MANY_LINES = rb'(?:\A|\n)[ \t]{0,40}"?(?:_TRANSPORT|_BOOT_ID|msg)(?:=|" ?:)'


def read_spine(data: bytes, first: int = 1) -> Iterator[Line]:
    """The lines that a summary is read from, numbered as `read_lines` does; without table, stack and figures.

    Lines that begin otherwise than the one before come along: a broken line may go on in them.
    """
    if has_entries(data):  # who wrote a message stands in other lines
        yield from read_lines(data.decode(errors="backslashreplace"), first)
        return
    pattern = _SPINE if _FAILURE not in data else _SPINE + b"|" + _FAILURE
    at, number = 0, first
    for match in _compiled_bytes(pattern).finditer(data):
        if match.start() < at:
            continue
        begin = data.rfind(b"\n", at, match.start()) + 1 or at
        start = data[begin : begin + 40].lstrip(b"> ")
        if start.startswith((b"oom-killer:", b"invoked oom-k")):  # who invoked it is on the line before
            begin = data.rfind(b"\n", at, max(at, begin - 1)) + 1 or at
        end = _end_of_line(data, match.end())
        start = data[begin : begin + (4 if data.startswith(b">", begin) else 2)]
        while end < len(data) and not data.startswith(start, end) and end - begin < _WRAPPED_BYTES:
            end = _end_of_line(data, end)
        number += newlines(data, at, begin)
        yield from read_lines(data[begin:end].decode(errors="backslashreplace"), number)
        number += newlines(data, begin, end)
        at = end


def has_entries(data: bytes) -> bool:
    """Are entries in it that have many lines each? (`oom/entries.py`)"""
    words = b"_TRANSPORT" in data or b"_BOOT_ID" in data or b'  "msg"' in data  # of those in one line each too
    return words and _compiled_bytes(_IN_MANY_LINES).search(data) is not None


def newlines(data: bytes, start: int = 0, end: int | None = None) -> int:
    """How many are between the two. `bytes.count` looks at each byte, `replace` leaps: a fifth of the time."""
    part = data[start:end]
    return len(part) - len(part.replace(b"\n", b""))


def _end_of_line(data: bytes, at: int) -> int:
    return data.find(b"\n", at) + 1 or len(data)


@cache
def _compiled_bytes(pattern: bytes) -> re.Pattern[bytes]:
    return re.compile(pattern)


def _unescape(text: str) -> str:
    """Undo what a web page does to a paste; `&` last, so that nothing is undone twice."""
    for escaped, plain in zip(_ESCAPES, "<>\"''  &", strict=True):
        text = text.replace(escaped, plain)
    return text


def _quoted_printable(match: re.Match[str]) -> str:
    """What a mailer wrote `=3D` for `=`; of other characters than ASCII's it is the no-break space alone."""
    if match[2] is None:
        return " " + (match[1] or "")
    code = int(match[2], 16)
    return chr(code) if 0x20 <= code < 0x7F or code == 0x09 else match[0]


_Found = tuple[str, str, str, str]  # of a physical line: head, program (in one of two places; kernel is none), text
_BLANK: _Found = ("", "", "", "")
_HEAD_OF, _TEXT = itemgetter(0), itemgetter(3)


def _usual(found: list[_Found], first: int, whole: bool) -> Iterator[Line]:
    """The messages of lines that all have a usual head; `whole`: so is the last."""
    kernel = [False if program or other else None for _, program, other, _ in found]
    wholes = chain(repeat(True, len(found) - 1), (whole,))
    facts = zip(count(first), map(_TEXT, found), map(_HEAD_OF, found), kernel, wholes, repeat(None))
    return map(tuple.__new__, repeat(Line), facts)  # Line(...) is a call of Python code, which takes four times as long


def _split(found: list[_Found], first: int, whole: bool, folded: bool) -> Iterator[tuple[Line, int]]:
    """Each message with the width of the physical line it stands in. `whole`: the last is; `folded`: one holds more."""
    last = first + len(found) - 1
    spaced = found.count(_BLANK) * 5 > len(found) * 2  # a paste with a blank line behind every line
    for number, (head, program, other, text) in enumerate(found, first):
        if head and not folded:
            kernel = False if program or other else None
            yield Line(number, text, head, kernel, whole or number < last), len(head) + len(text)
        elif head or text or not spaced:
            yield from _split_any(number, head + text, whole or number < last)


def _split_any(number: int, raw: str, whole: bool) -> Iterator[tuple[Line, int]]:
    """The messages of one physical line, whatever carried it."""
    if raw.startswith(("\x1e{", "data: {")):  # journalctl -o json-seq, json-sse
        raw = raw[raw.index("{") :]
    is_object = raw.startswith("{") or compiled(_JSON_PAIR).match(raw) is not None
    if is_object or raw.startswith(('["', "[{", "[[")):
        found = list(_from_json(number, raw))
        if found or is_object:
            yield from ((line, 0) for line in found or (Line(number, raw, whole=whole),))
            return
    if "] " in raw[:48] and (cut := compiled(_CUT_STAMP).match(raw)):
        raw = f"{cut[1]}[{raw[cut.start(2) :]}"
    match_head = compiled(_HEAD).match
    match = match_head(raw)
    assert match is not None  # every part may be empty
    head, end, kernel = match["stamped"], match.end(), None
    if not head and raw[end : end + 1] in (" ", "\t"):  # a list, or code, in a text
        match = match_head(raw, len(raw) - len(raw[end:].lstrip())) or match
        head, end = match["stamped"], match.end() if match["stamped"] else end
    if head:
        kernel = _written_by_kernel(match)
        whose = kernel is None and "kernel" not in head and not head.rstrip().endswith("]")
        if kernel is None and (relayed := compiled(_RELAYED).match(raw, end)):  # a syslog line behind a relay's head
            whose, end, head = True, relayed.end(), ""  # when it was written is told behind
        if whose and (inner := match_head(raw, end)) and inner["stamped"]:  # a syslog line in a container's
            kernel = _written_by_kernel(inner)
            head, end = head + inner["stamped"], inner.end()
    text = raw[end:]
    glued = compiled(_INLINE).search(text) if not head and "] " in text else None
    if glued and not (glued.start() < _WIDE and compiled(_FLOWED).match(text[: glued.start()])):
        head, text = glued[0], _unenclosed(text[: glued.start()], text[glued.end() :])
    if not head and "Z]: " in text and (talos := compiled(_TALOS).match(text)):
        head, text, kernel = talos[0].lstrip(), text[talos.end() :], talos["facility"] == "kern"
    quotes = not head and ('"' in text or "`" in text or "'" in text)
    if quotes and (opened := compiled(_OPENED).match(text)):
        inner = match_head(text, opened.end())
        if inner is not None and inner["stamped"]:
            kernel = _written_by_kernel(inner)
            head, text = inner["stamped"], _unenclosed(opened[0], text[inner.end() :])
    if quotes and not head and (quoted := compiled(_QUOTED).match(text)):
        yield from _split_any(number, quoted[2], whole)
        return
    if not head and " login: " in text:  # a console's prompt
        text = re.sub(r"^\S{1,64} login: (?=\[|.{1,15} invoked oom-killer)", "", text)
    if "#012" in text or "\\x0a" in text:
        first_part, *parts = re.split(r"#012|\\x0a", text)
        yield Line(number, first_part, head, kernel), 0
        kernel = kernel and None  # a newline within a message may be of a name that the kernel prints
        for part in parts[:-1]:
            yield Line(number, part, head, kernel), 0
        text = parts[-1]
    yield Line(number, text, head, kernel, whole), len(raw)


def _unenclosed(before: str, text: str) -> str:
    """Without what closes a message that stands in quotes, or in a cell, of an export."""
    for mark in ('"', "`", "'", "|"):
        if mark in before and (end := re.search(rf"{re.escape(mark)}[\s,;.\])}}]{{0,20}}$", text)):
            return text[: end.start()].rstrip() if mark == "|" else text[: end.start()].replace('""', '"')
    return text


def _written_by_kernel(match: re.Match[str]) -> bool | None:
    """Facility 0 in a record of the kernel's own buffer is proof: user space cannot write it there."""
    if (record := match["record"]) is not None:
        return int(record) < 8
    if (facility := match["facility"]) is not None:
        return facility == "kern"
    app = None if match["app"] == "-" else match["app"]  # not told
    program = match["tag"] or app or match["iso_tag"]
    if program is not None and program != "kernel":
        return False
    if program is None and (priority := match["priority"]) is not None and int(priority) >= 8:
        return False
    return None


def _from_json(number: int, raw: str) -> Iterator[Line]:
    """A line of `journalctl -o json`, of Docker's json-file, or of `dmesg --json`; a list of such, or of lines, as APIs
    answer. None, where it is something else.
    """
    import json

    pair = raw.strip().rstrip(",")
    try:
        told = json.loads(raw if raw.startswith(("{", "[")) else f"{{{pair}}}")
    except (ValueError, RecursionError):
        told = None
    waiting: list[tuple[object, bool]] = [(told, True)]  # a value, and may it be a list of lines?
    while waiting:
        value, of_lines = waiting.pop()
        if isinstance(value, dict):
            lines = list(_from_entry(number, value, nested=value is not told and not of_lines))
            yield from lines
            if not lines and not value.keys() & _OF_THE_JOURNAL:  # whose fields are programs' own
                waiting += reversed([(inner, name in _JSON_LISTS) for name, inner in value.items()])
        elif isinstance(value, list):
            waiting += [(inner, of_lines) for inner in reversed(value)]
        elif isinstance(value, str) and of_lines and value is not told:
            for line in _valid(value).split("\n"):
                if compiled(_BY_KERNEL).match(line):
                    yield from (one for one, _ in _split_any(number, line, True))


def _from_entry(number: int, entry: dict[str, object], *, nested: bool) -> Iterator[Line]:
    """None, where it has no message of a log. What is nested in something else may be of any program."""
    message = _message(entry)
    if message is None or (nested and "_TRANSPORT" not in entry and not compiled(_BY_KERNEL).match(message)):
        return
    fields = {name: value for name, value in entry.items() if isinstance(value, str)}
    # Anybody may write JSON: each part is as long as an honest one may be (HOST_NAME_MAX is 64, a DNS name 255).
    host, tag = fields.get("_HOSTNAME", "-")[:255], fields.get("SYSLOG_IDENTIFIER", "-")[:255]
    when = _seconds(fields.get("__REALTIME_TIMESTAMP")) or fields.get("time", "-")[:64]
    uptime = _seconds(fields.get("_SOURCE_MONOTONIC_TIMESTAMP")) or _of_dmesg(entry)
    head = f"{when} {host} {tag}: " + (f"[{uptime}] " if uptime else "")
    kernel = None
    if "_TRANSPORT" in fields:  # "kernel" is what stood in its buffer, where programs may write too
        kernel = fields["_TRANSPORT"] == "kernel" and fields.get("SYSLOG_FACILITY", "0") == "0"
    elif "msg" in entry and isinstance(priority := entry.get("pri"), int) and priority >= 8:
        kernel = False
    boot_id = fields.get("_BOOT_ID", "")
    boot = boot_id if re.fullmatch("[0-9a-f]{32}", boot_id) else None
    for part in message.removesuffix("\n").split("\n"):
        inner = None if "MESSAGE" in entry else compiled(_HEAD).match(part)
        if inner is not None and inner["stamped"]:  # a container, or a shipper, took it from a log
            kernel, head, part = _written_by_kernel(inner), head + inner["stamped"], part[inner.end() :]
        yield Line(number, part, _valid(head), kernel, True, boot)
        kernel = kernel and None  # a newline within a message may be of a name that the kernel prints


def _message(entry: dict[str, object]) -> str | None:
    within = (inner for key in _JSON_WITHIN if isinstance(inner := entry.get(key), dict))
    return next((said for one in (entry, *within) if (said := _said(one)) is not None), None)


def _said(entry: dict[str, object]) -> str | None:
    said = next((entry[key] for key in _JSON_LOGS if isinstance(entry.get(key), (str, list))), None)
    if said is None:  # what a program says of a kill is none: the kernel's own head stands before the kernel's words
        words = (word for key in _JSON_WORDS if isinstance(word := entry.get(key), str))
        said = next((word for word in words if compiled(_BY_KERNEL).match(word)), None)
    if isinstance(said, list):  # bytes that are not UTF-8 come as a list of numbers
        numbers = (number for number in said if isinstance(number, int) and 0 <= number < 256)
        return bytes(numbers).decode(errors="backslashreplace")
    return _valid(said) if isinstance(said, str) else None


def _valid(text: str) -> str:
    """JSON can spell halves of a character, which no text may hold."""
    return text.encode(errors="backslashreplace").decode()


def _seconds(microseconds: str | None) -> str | None:
    if microseconds is None or re.fullmatch("[0-9]{1,18}", microseconds) is None:
        return None
    return f"{int(microseconds) / 1e6:.6f}"


def _of_dmesg(entry: dict[str, object]) -> str | None:
    """The stamp of an entry of `dmesg --json`: a number where others have a date."""
    uptime = entry.get("time") if "msg" in entry and "pri" in entry else None
    return f"{uptime:.6f}" if isinstance(uptime, int | float) and 0 <= uptime < 1e12 else None


def _may_run_on(text: str) -> bool:
    """Can a line of it hold two messages of which the first did not end its line?"""
    return "child" in text or ")Out of " in text or ")Killed " in text


def _unglue(lines: Iterator[tuple[Line, int]]) -> Iterator[Line]:
    """The same; of a line that holds several messages each by itself.

    No message of the kernel is longer than a record, or stands in two lines: within one, stamps and words are of names,
    which strangers choose.
    """
    for line, lines_of_it in lines:
        text = line.text
        prose = len(text) > _LONG or lines_of_it > 1
        if line.kernel is not None or not (prose or (text.startswith(_RAN_ON) and _may_run_on(text))):
            yield line
            continue
        parts = compiled(_GLUED if prose else _NOT_ENDED).split(text)
        if len(parts) == 1:
            yield line
            continue
        yield line._replace(text=parts[0], whole=True)
        last = len(parts) - 1
        for at, part in enumerate(parts[1:], 1):
            for inner, _ in _split_any(line.number, part, line.whole or at < last):
                yield inner


_UPTIME = r"\[\s*([0-9]{1,12}\.[0-9]{1,9})(?:s|[@,][0-9]{1,3}|[ ]<[\s0-9.]{1,16}>)?\]"
_RECORD = r"[0-9]{1,4},[0-9]{1,20},([0-9]{1,18}),"
_UNIX = r"(?:^|\s)([0-9]{9,10}\.[0-9]{6})\s"
_PLAIN_DATE = r"([A-Z][a-z]{2} [ 0-9][0-9] [0-9][0-9]:[0-9][0-9]:[0-9][0-9])(?= [a-z][\w.-]* kernel: )"  # of most files
_WRITTEN_DATE = rf"(?x)(?:^|[\[\s>:])({_ISO_DATE}|{_SYSLOG_DATE}|{_ANY_DATE}|(?<=\[)(?:{_DMESG_DATE}|{_MINUTE}(?=\])))"


@lru_cache(16)  # the lines of one report share it
def stamp(head: str) -> Stamp:
    """When a line with this prefix was printed, as far as the prefix tells.

    A date with year and zone becomes `wall_s`. RFC 3164 has neither, `dmesg -T` drifts over suspend: text alone.
    """
    uptime = uptime_s(head)
    if unix := compiled(_UNIX).search(head):
        return Stamp(uptime_s=uptime, text=unix[1], wall_s=float(unix[1]), certain=True)
    date = compiled(_PLAIN_DATE).match(head) or compiled(_WRITTEN_DATE).search(head)
    if date is None:
        return Stamp(uptime_s=uptime, certain=uptime is not None)
    text = date[1].strip()
    wall_s = _wall_s(text)
    return Stamp(uptime_s=uptime, text=text, wall_s=wall_s, certain=wall_s is not None)


@lru_cache(16)
def uptime_s(head: str) -> float | None:
    """Its seconds since boot, where the prefix tells them."""
    if uptime := compiled(_UPTIME).search(head):
        return float(uptime[1])
    record = compiled(_RECORD).match(head)
    return int(record[1]) / 1e6 if record else None


def _wall_s(date: str) -> float | None:
    """An ISO date with its zone in seconds since 1970; None if it is another kind, or there is no such moment."""
    iso = re.search(
        r"(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d):(\d\d)(?:[.,]([0-9]{1,9}))? ?(Z|UTC|[+-]\d\d:?\d\d)$", date
    )
    if iso is None:
        return None
    year, month, day, hour, minute, second = map(int, iso.group(1, 2, 3, 4, 5, 6))
    if not (1 <= month <= 12 and 1 <= day <= 31 and hour < 24 and minute < 60 and second <= 60):
        return None
    zone = iso[8]
    ahead_s = 0
    if zone[0] in "+-":
        ahead_s = (int(zone[1:3]) * 60 + int(zone[-2:])) * (60 if zone[0] == "+" else -60)
    fraction = float(f"0.{iso[7]}") if iso[7] else 0.0
    return days(year, month, day) * 86400 + hour * 3600 + minute * 60 + second - ahead_s + fraction


def days(year: int, month: int, day: int) -> int:
    """Days since 1970 in the Gregorian calendar; years begin in March here, so that the leap day is their last."""
    year, month = (year, month - 3) if month > 2 else (year - 1, month + 9)
    return 365 * year + year // 4 - year // 100 + year // 400 + (153 * month + 2) // 5 + day - 1 - 719468


_LEVEL = r"[a-z]+\d?\.(?:emerg|alert|crit|err|warn|notice|info|debug) "  # busybox: facility.level
_HOST_BEHIND_TIME = (
    r"\d:\d\d:\d\d\S{0,20}(?: [AP]M\b)?+(?: \d{4}\b)?(?: [A-Z]{3,5}\b)? (?!\d{4} )"
    rf"(?!{_LEVEL})(\S{{1,255}}) (?:{_LEVEL})?\S{{1,255}}?:(?:\s|$)"
)


def host(head: str) -> str | None:
    """The host a syslog or journal prefix names."""
    named = compiled(_HOST_BEHIND_TIME).search(head)
    named = named or re.search(r"(?:\d\.\d{6}|\]) ([^\s:\[\]]{1,255}) kernel:", head)
    named = named or re.search(r"\d\d:\d\d:\d\d ([^\s:\[\]]{1,255}):\d{1,5} +\[", head)
    named = named or re.match(r"([\w.-]{1,255}): [a-z]+\d?: {1,8}[a-z]{3,7}: \[", head)
    return named[1] if named else None


def caller(head: str) -> str | None:
    """Who printed the line, where the kernel tells (CONFIG_PRINTK_CALLER): `T123` a task, `C0` a processor."""
    named = compiled(r"\]\s?\[\s*([TC]\d+)\]|caller=([TC]\d+)").search(head)
    return (named[1] or named[2]) if named else None

"""The same events, whatever carried their lines: real logs written again as other programs would."""

import csv
import html
import io
import json
import quopri
import re
from collections.abc import Callable

import pytest

from reprieve.model.oom import OomReport
from reprieve.oom.lines import read_lines
from reprieve.oom.report import read_reports
from tests.labels import label
from tests.logs_of import text_of

LOGS = ["001", "016", "025", "043", "052", "074", "077", "084", "088", "089", "101", "103", "105", "108", "113", "145"]


def behind(head: str) -> Callable[[list[str]], str]:
    """Every message behind a prefix, in which `{second}` and `{number}` count."""

    def write(messages: list[str]) -> str:
        heads = (head.format(second=f"{at % 60:02d}", number=at) for at in range(len(messages)))
        return "".join(f"{before}{message}\n" for before, message in zip(heads, messages, strict=True))

    return write


def journal(messages: list[str]) -> str:
    entries = ({"MESSAGE": message, "_TRANSPORT": "kernel", "_HOSTNAME": "h"} for message in messages if message)
    return "".join(f"{json.dumps(entry)}\n" for entry in entries)


def journal_pretty(messages: list[str]) -> str:
    entries = ({"_HOSTNAME": "h", "MESSAGE": message, "_TRANSPORT": "kernel"} for message in messages if message)
    return "".join(json.dumps(entry, indent="\t", separators=(",", " : ")) + "\n" for entry in entries)


def journal_export(messages: list[str]) -> str:
    return "".join(f"_HOSTNAME=h\nMESSAGE={message}\n_TRANSPORT=kernel\n\n" for message in messages if message)


def journal_verbose(messages: list[str]) -> str:
    head = "Tue 2023-11-14 22:13:20.000000 UTC [s=60;i=1;b=ab;m=1b9ee8b;t=60a24181e4000;x=6a]\n"
    fields = "    _HOSTNAME=h\n    MESSAGE={}\n    _TRANSPORT=kernel\n"
    return "".join(head + fields.format(message) for message in messages if message)


def json_file(messages: list[str]) -> str:
    entries = ({"log": f"{message}\n", "stream": "stderr", "time": "2025-10-23T23:16:00Z"} for message in messages)
    return "".join(f"{json.dumps(entry)}\n" for entry in entries)


def dmesg_json(messages: list[str]) -> str:
    entries = [{"pri": 4, "time": 12.5, "msg": message} for message in messages]
    return json.dumps({"dmesg": entries}, indent=3) + "\n"


def shipped(messages: list[str]) -> str:
    entries = ({"log": {"offset": 7}, "message": f"Oct  3 23:16:00 h kernel: {message}"} for message in messages)
    return "".join(f"{json.dumps(entry)}\n" for entry in entries)


def cloud(messages: list[str]) -> str:
    entries = ({"jsonPayload": {"MESSAGE": message}} for message in messages)
    return "".join(f"{json.dumps(entry)}\n" for entry in entries)


def searched(messages: list[str]) -> str:
    entries = ({"_index": "k", "_source": {"message": f"Oct  3 23:16:00 h kernel: {message}"}} for message in messages)
    return "".join(f"{json.dumps(entry)}\n" for entry in entries)


def splunk(messages: list[str]) -> str:
    entries = ({"preview": False, "result": {"_raw": f"Oct  3 23:16:00 h kernel: {message}"}} for message in messages)
    return "".join(f"{json.dumps(entry)}\n" for entry in entries)


def gelf(messages: list[str]) -> str:
    entries = ({"version": "1.1", "short_message": f"[  123.456789] {message}"} for message in messages)
    return "".join(f"{json.dumps(entry)}\n" for entry in entries)


def searched_pretty(messages: list[str]) -> str:
    entries = [{"_source": {"message": f"Oct  3 23:16:00 h kernel: [  1.123456] {message}"}} for message in messages]
    return json.dumps({"hits": {"hits": entries}}, indent=2) + "\n"


def cells(messages: list[str]) -> str:
    rows = io.StringIO()
    lines = [("2025-10-03T23:16:00Z", "h", f"Oct  3 23:16:00 h kernel: [  1.123456] {message}") for message in messages]
    csv.writer(rows, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(lines)
    return rows.getvalue()


TRANSPORTS = {
    "bare": behind(""),
    "dmesg": behind("[{number:5d}.123456] "),
    "dmesg with callers": behind("[{number:5d}.123456] [    C0] "),
    "dmesg -r": behind("<4>[{number:5d}.123456] "),
    "dmesg -T": behind("[Thu Oct 23 23:16:{second} 2025] "),
    "dmesg iso": behind("2025-10-23T23:16:{second},123456+02:00 "),
    "dmesg --json": dmesg_json,
    "kmsg": behind("4,{number},10000000,-;"),
    "kmsg with callers": behind("4,{number},10000000,-,caller=T77;"),
    "journal json": journal,
    "journal json-seq": lambda messages: re.sub("(?m)^(?=.)", "\x1e", journal(messages)),
    "journal json-sse": lambda messages: re.sub("(?m)^(.+)\n", r"data: \1\n\n", journal(messages)),
    "journal json-pretty": journal_pretty,
    "journal export": journal_export,
    "journal verbose": journal_verbose,
    "journal short": behind("Oct  3 23:16:{second} my-host kernel: "),
    "journal short-unix": behind("1795442921.0441{second} lab kernel: "),
    "syslog": behind("Oct  3 23:16:{second} my-host kernel: [{number:5d}.123456] "),
    "syslog with two blanks": behind("Oct  3 23:16:{second} my-host kernel:  [{number:5d}.123456] "),
    "a relay": behind("<4>May  1 10:00:01 relay1 Oct  3 23:16:{second} my-host kernel: [{number:5d}.123456] "),
    "a relay's kernel": behind("May  1 10:00:01 relay1 kernel: Oct  3 23:16:{second} my-host kernel: "),
    "a relay in RFC 5424": behind("<4>1 2024-05-01T10:00:01Z relay1 - - - - Oct  3 23:16:{second} my-host kernel: "),
    "a relay in iso": behind("2024-05-01T10:00:01Z relay1 Oct  3 23:16:{second} my-host kernel: "),
    "syslog with a priority": behind("<4>Oct  3 23:16:{second} my-host kernel: "),
    "syslog with a year": behind("2025 Oct  3 23:16:{second} my-host kernel: "),
    "syslog iso": behind("2025-10-23T23:16:{second}.123456+02:00 my-host kernel: [{number:5d}.123456] "),
    "RFC 5424": behind("<4>1 2025-10-23T23:16:{second}.5Z host kernel - - - "),
    "RFC 5424 with its mark of UTF-8": behind("<4>1 2025-10-23T23:16:{second}.5Z host kernel - - - \ufeff"),
    "colours of less": behind("ESC[32m[{number:5d}.123456] ESC[0mESC[33m"),
    "colours of cat -v": behind("^[[32m[{number:5d}.123456] ^[[0m"),
    "colours of rsyslog": behind("#033[32m[{number:5d}.123456] #033[0m"),
    "colours of JSON": behind("\\u001b[32m[{number:5d}.123456] \\u001b[0m"),
    "colours that lost their ESC": behind("[32m[{number:5d}.123456] [0m"),
    "colours that lost their ESC, with dates": behind("[32m[Thu Oct 23 23:16:{second} 2025] [0m[1m"),
    "logread": behind("Thu Oct 23 23:16:{second} 2025 kern.warn kernel: [{number:5d}.123456] "),
    "date": behind("Thu Oct 23 23:16:{second} CEST 2025 host kernel: "),
    "logcat": behind("10-23 23:16:{second}.123     0     0 W         : "),
    "CRI": behind("2025-10-23T23:16:{second}.000000001+00:00 stdout F "),
    "kubectl --timestamps": behind("2025-10-23T23:16:{second}.000000001Z "),
    "json-file": json_file,
    "a shipper": shipped,
    "a cloud": cloud,
    "Elasticsearch": searched,
    "Elasticsearch in many lines": searched_pretty,
    "CSV": cells,
    "a table": lambda messages: "".join(f"| 23:16 | [  1.123456] {message} |\n" for message in messages),
    "code": lambda messages: "".join(f"`[  1.123456] {message}`\n" for message in messages),
    "Splunk": splunk,
    "GELF": gelf,
    "grep -n": behind("{number}:Oct  3 23:16:{second} my-host kernel: [{number:5d}.123456] "),
    "grep -rn": behind("/var/log/kern.log:{number}:Oct  3 23:16:{second} my-host kernel: "),
    "wall": behind(" kernel:[{number:5d}.123456] "),
    "a mail": behind("> > [{number:5d}.123456] "),
    "a list": behind("    [{number:5d}.123456] "),
    "code in a text": behind("    Oct  3 23:16:{second} my-host kernel: "),
    "bare code in a text": behind("    "),
    "dmesg -T in a text": behind("\t[Thu Oct 23 23:16:{second} 2025] "),
    "dmesg -H": behind("[  +0.0001{second}] "),
    "dmesg -e": behind("[Oct23 23:16] "),
    "dmesg -d": behind("[{number:5d}.123456 <    0.000003>] "),
    "dmesg -T -d": behind("[Thu Oct 23 23:16:{second} 2025 <    0.000003>] "),
    "a terminal's log": behind("[2025-10-23 23:16:{second}] [{number:5d}.123456] "),
    "a terminal's log alone": behind("[2025-10-23T23:16:{second}.123Z] "),
    "dots": behind("23.10.2025 23:16:{second} kernel: "),
    "slashes": behind("10/23/2025 11:16:{second} PM my-host kernel: "),
    "a day's name": behind("Thu 23 Oct 2025 11:16:{second} PM UTC my-host kernel: "),
    "dashes": behind("23-Oct-2025 23:16:{second} my-host kernel: "),
    "Kibana": behind("Oct 23, 2025 @ 23:16:{second}.000 my-host kernel: "),
    "cat -n": behind("{number:6d}\t"),
    "nl": behind("{number:6d}\t[{number:5d}.123456] "),
    "netconsole": behind("Oct  3 23:16:{second} 10.0.0.1 [{number:5d}.123456] "),
    "netconsole, heard with its port": behind("2025-10-23 23:16:{second} 10.0.0.1:6666 [{number:5d}.123456] "),
    "metalog": behind("Oct 03 23:16:{second} [kernel] [{number:5d}.123456] "),
    "metalog without stamps": behind("Oct 03 23:16:{second} [kernel] "),
    "klogd of old": behind("Oct  3 23:16:{second} my-host kernel: <4>[{number:5d}.123456] "),
    "syslog with slashes": behind("2025/10/23 23:16:{second} my-host kernel: "),
    "syslog with a pid": behind("2025-10-23T23:16:{second}+0200 my-host kernel[0]: "),
    "journal in Japanese": behind("10月 23 23:16:{second} my-host kernel: "),
    "CRI of a syslog": behind("2025-10-23T23:16:{second}.001Z stdout F Oct  3 23:16:{second} my-host kernel: "),
    "grep -r": behind("/var/log/messages:Oct  3 23:16:{second} my-host kernel: "),
    "grep -C": behind("messages-{number}-Oct  3 23:16:{second} my-host kernel: "),
    "Samsung's Android": behind("<6>[{number:5d}.123456]  [0:        kswapd0:   77] "),
    "MediaTek's Android": behind("[{number:5d}.123456] <1>.(0)[1234:kswapd0]"),
    "Amlogic": behind("[{number:5d}.123456@2] "),
}


PASTES: dict[str, Callable[[str], str]] = {
    "a mail as it is stored": lambda text: quopri.encodestring(text.encode()).decode(),
    "one with no-break spaces": lambda text: quopri.encodestring(text.replace("  ", "\xa0 ").encode()).decode(),
    "a forum": lambda text: "[CODE]" + text.replace("Free swap", '[COLOR="Red"]Free swap').strip() + "[/CODE]\n",
    "a web page": html.escape,
    "a web page with its tags": lambda text: "<p>" + html.escape(text).replace("\n", "<br />\n") + "</p>\n",
    "a web page with its blanks": lambda text: html.escape(text).replace("  ", "&nbsp; "),
    "CRLF": lambda text: text.replace("\n", "\r\n"),
    "blank lines between": lambda text: text.replace("\n", "\n\n"),
    "blanks at the end": lambda text: re.sub(r"(?m)(\S)$", r"\1   ", text),
    "no-break spaces": lambda text: text.replace("  ", "\xa0 "),
    "colours": lambda text: re.sub(r"(?m)^(.+)$", "\x1b[33m\\1\x1b[0m", text),
    "every line twice": lambda text: re.sub(r"(?m)^(.*\n)", r"\1\1", text),
    "quoted": lambda text: re.sub(r"(?m)^", "> ", text),
}


def events(text: str) -> list[dict[str, object]]:
    return [label(event) for event in read_reports(text) if isinstance(event, OomReport)]


@pytest.mark.parametrize("name", LOGS)
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_transport_changes_nothing(name: str, transport: str) -> None:
    text = text_of(name)
    messages = [line.text for line in read_lines(text)]
    assert events(TRANSPORTS[transport](messages)) == events(text)


@pytest.mark.parametrize("name", LOGS)
@pytest.mark.parametrize("paste", PASTES)
def test_a_paste_changes_nothing(name: str, paste: str) -> None:
    text = text_of(name)
    assert events(PASTES[paste](text)) == events(text)


@pytest.mark.parametrize("name", LOGS)
@pytest.mark.parametrize("columns", [60, 80, 120])
def test_a_terminal_that_breaks_lines_changes_no_fact(columns: int, name: str) -> None:
    text = text_of(name)
    broken = events(re.sub(rf"(.{{{columns}}})(?=.)", "\\1\n", text))
    for told, whole in zip(broken, events(text), strict=True):
        assert {key: told[key] for key in whole if told[key] not in (None, [], False, whole[key])} == {}
    assert broken == events(text) or name in ("001", "103", "113")  # there a part is lost at one of these widths


@pytest.mark.parametrize("name", LOGS)
def test_lines_that_are_alike_in_several_reports_were_not_broken_by_a_terminal(name: str) -> None:
    bare = "".join(f"{line.text}\n" for line in read_lines(text_of(name)))
    assert [line.text for line in read_lines(bare * 4)] == [line.text for line in read_lines(bare)] * 4


@pytest.mark.parametrize("width", [60, 76, 80, 100, 132])
@pytest.mark.parametrize("lead", ["", "[ 2196.812345] ", "> "])
def test_a_kill_line_broken_anywhere_tells_what_it_told_or_nothing(lead: str, width: int) -> None:
    line = (
        f"{lead}Memory cgroup out of memory: Killed process 68061 (stress) total-vm:4195088kB, anon-rss:2884696kB, "
        "file-rss:288kB, shmem-rss:0kB, UID:1000 pgtables:5700kB oom_score_adj:500"
    )
    (whole,) = events(line + "\n")
    for shift in range(30):  # where in a word the break falls
        text = re.sub(rf"(.{{{width - shift}}})(?=.)", f"\\1\n{'> ' if lead == '> ' else ''}", line) + "\n"
        for broken in events(text):
            assert {name: fact for name, fact in broken.items() if fact not in (None, whole[name])} == {}, text


@pytest.mark.parametrize("name", [name for name in LOGS if name != "088"])  # there a program's line would hold it all
def test_a_page_that_makes_a_paragraph_of_lines_changes_nothing(name: str) -> None:
    text = text_of(name)
    paragraph = re.sub(r"\n(?=[A-Z][a-z]{2} [ \d]\d \d\d:|\[\s*\d+\.\d{6}\] )", " ", text)
    assert events(paragraph) == events(text)


@pytest.mark.parametrize("name", LOGS)
@pytest.mark.parametrize("width", [72, 76, 80])
def test_a_mailer_that_breaks_lines_changes_nothing(name: str, width: int) -> None:
    text = text_of(name)
    broken = "".join(f"{line}\n" for whole in text.splitlines() for line in _broken(whole, width))
    assert events(broken) == events(text)


def _broken(line: str, width: int) -> list[str]:
    parts = []
    while len(line) > width and (at := line.rfind(" ", 1, width + 1)) > 0 and line[:at].strip():
        parts.append(line[:at])
        line = line[at + 1 :]
    return [*parts, line]

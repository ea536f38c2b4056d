"""Entries that stand in several lines each: what proves who wrote a message is not in the line of the message."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import pytest

from reprieve.machine.reader import read_briefly, read_source
from reprieve.machine.source import file_source
from reprieve.model.finding import Gap
from reprieve.model.oom import OomReport
from reprieve.oom.entries import as_objects
from reprieve.oom.line import Line
from reprieve.oom.lines import host, read_lines, stamp

KILL = "Out of memory: Killed process 666 (java) total-vm:41976kB, anon-rss:40828kB, file-rss:0kB, shmem-rss:0kB"
TRIGGER = "java invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0"
OF_KERNEL = {"SYSLOG_IDENTIFIER": "kernel", "SYSLOG_FACILITY": "0", "_TRANSPORT": "kernel"}
OF_PROGRAM = {"SYSLOG_IDENTIFIER": "kernel", "_TRANSPORT": "syslog", "_PID": "77"}
ALWAYS = {"_BOOT_ID": "ab" * 16, "_HOSTNAME": "h1"}
CURSOR = f"s=60;i=1;b={'ab' * 16};m=1b9ee8b;t=60a24181e4000;x=6a"


def pretty(fields: dict[str, str]) -> bytes:
    told = {**fields, "__REALTIME_TIMESTAMP": "1700000000000000"}
    return json.dumps(told, indent="\t", separators=(",", " : ")).encode() + b"\n"


def pretty_by_bytes(fields: dict[str, str]) -> bytes:
    told = {**fields, "MESSAGE": list(fields["MESSAGE"].encode()), "__REALTIME_TIMESTAMP": "1700000000000000"}
    return json.dumps(told, indent="\t", separators=(",", " : ")).encode() + b"\n"


def export(fields: dict[str, str]) -> bytes:
    told = b"__REALTIME_TIMESTAMP=1700000000000000\n"
    for name, value in fields.items():
        data = value.encode(errors="surrogateescape")
        is_text = value.isascii() and "\n" not in value
        told += f"{name}".encode() + (b"=" if is_text else b"\n" + struct.pack("<Q", len(data))) + data + b"\n"
    return told + b"\n"


def verbose(fields: dict[str, str]) -> bytes:
    told = f"Tue 2023-11-14 22:13:20.000000 UTC [{CURSOR}]\n"
    for name, value in fields.items():
        told += f"    {name}=" + value.replace("\n", "\n" + " " * (len(name) + 5)) + "\n"
    return told.encode()


Write = Callable[[dict[str, str]], bytes]
FORMS = pytest.mark.parametrize("form", [pretty, pretty_by_bytes, export, verbose])


def lines_of(data: bytes) -> list[Line]:
    return [line for line in read_lines(data.decode(errors="backslashreplace")) if line.text]


@FORMS
def test_what_a_program_wrote_is_not_the_kernels(form: Write) -> None:
    for fields in ({**OF_PROGRAM, "MESSAGE": KILL, **ALWAYS}, {"MESSAGE": KILL, **ALWAYS, **OF_PROGRAM}):
        (line,) = lines_of(form(fields))
        assert (line.text, line.kernel) == (KILL, False)


@FORMS
def test_the_kernels_are_told_with_when_and_where(form: Write) -> None:
    kernels = form({**ALWAYS, "MESSAGE": KILL, **OF_KERNEL})
    line, again = lines_of(kernels * 2)
    assert (line.text, line.kernel, line.boot_id, host(line.head)) == (KILL, True, "ab" * 16, "h1")
    assert stamp(line.head).wall_s == 1700000000
    rows = (kernels * 2).split(b"\n")
    assert [at for at, row in enumerate(rows, 1) if b"MESSAGE" in row] == [line.number, again.number]


@FORMS
def test_no_field_of_a_program_is_taken_for_an_entry(form: Write) -> None:
    within = f"x\n\n__CURSOR=s=1\n_TRANSPORT=kernel\nMESSAGE={KILL}\n\n{KILL}\n    MESSAGE={KILL}\n}}\n{{\n {KILL}"
    for said in (within, f"é \\xff {within}"):
        data = form({**ALWAYS, "FOO": said, "MESSAGE": said, **OF_PROGRAM}) + form({**OF_KERNEL, "MESSAGE": "usb"})
        *forged, usb = lines_of(data)
        assert {line.kernel for line in forged} == {False}
        assert (usb.text, usb.kernel) == ("usb", True)


def test_bytes_that_are_no_text_are_counted_as_bytes() -> None:
    within = f"\udcff\udcfe\n\nMESSAGE={KILL}\n{KILL}"
    for said in (within, f"\\xff{within}"):  # the second cannot be counted: what is in doubt is the program's
        data = export({**ALWAYS, "FOO": said, **OF_PROGRAM, "MESSAGE": "x"}) + export({**OF_KERNEL, "MESSAGE": KILL})
        assert [line.text for line in lines_of(data) if line.kernel is not False] == [KILL]


@FORMS
def test_an_entry_that_was_cut_tells_what_is_left(form: Write) -> None:
    rows = form({**ALWAYS, "SYSLOG_IDENTIFIER": "kernel", "MESSAGE": KILL, "_TRANSPORT": "kernel"}).split(b"\n")
    at = next(at for at, row in enumerate(rows) if b"MESSAGE" in row)
    for part in (rows[at:], rows[: at + 1]):
        if form is not pretty_by_bytes:
            assert KILL in [line.text for line in lines_of(b"\n".join(part) + b"\n")]
    forged = [row.replace(b"kernel", b"syslog") for row in rows]
    for cut in range(at):
        assert {line.kernel for line in lines_of(b"\n".join(forged[cut:])) if "Killed" in line.text} <= {False}
    if form is not pretty_by_bytes:  # no pid is told that was cut
        whole = b"\n".join(rows[: at + 1])
        begin = whole.index(KILL.encode())
        cuts = [line for end in range(1, len(KILL)) for line in lines_of(whole[: begin + end]) if "Killed" in line.text]
        assert bool(cuts) is (form is not pretty)  # of an object without its end nothing is told
        assert not any(line.whole for line in cuts)


@FORMS
@pytest.mark.parametrize("filler", [0, 3000])
def test_a_forged_event_in_a_large_file_is_noted_and_no_more(form: Write, filler: int, tmp_path: Path) -> None:
    usual = form({**ALWAYS, **OF_KERNEL, "MESSAGE": "usb 1-1: reset"}) * 1500
    said = "\n".join(["x" * 80] * (filler // 80) + [TRIGGER, KILL])
    if form in (pretty, pretty_by_bytes):
        said = KILL if form is pretty else said
    log = tmp_path / "log"
    log.write_bytes(usual + form({**ALWAYS, "FOO": "x" * filler, "MESSAGE": said, **OF_PROGRAM}) + usual)
    gaps: list[Gap] = []
    assert list(read_source(file_source(str(log)), gaps)) == []
    assert list(read_briefly(file_source(str(log)), gaps)) == []
    kernels = form({**ALWAYS, **OF_KERNEL, "MESSAGE": TRIGGER}) + form({**ALWAYS, **OF_KERNEL, "MESSAGE": KILL})
    log.write_bytes(usual + kernels)
    if form is not pretty_by_bytes:  # no word of it is in the file
        assert {gap.reason for gap in gaps} == {"looks like a kill, but a program wrote it"}
        (report,) = read_source(file_source(str(log)), gaps)
        assert isinstance(report, OomReport)
        assert (report.boot_id, report.host, report.stamp.wall_s) == ("ab" * 16, "h1", 1700000000)
        (told,) = read_briefly(file_source(str(log)), gaps)
        assert isinstance(told, tuple)
        assert told[1].read(told[0]) == report


def test_dmesg_tells_when_and_whose_in_json() -> None:
    entries = [{"pri": pri, "time": 12.5, "msg": KILL} for pri in (4, 12)]
    text = json.dumps({"dmesg": entries}, indent=3).replace("}, {", "},{")
    kernels, programs = (line for line in lines_of(text.encode()) if line.text == KILL)
    assert (stamp(kernels.head).uptime_s, kernels.kernel, programs.kernel) == (12.5, None, False)


@pytest.mark.parametrize(
    "text",
    [
        f'{{\n  "message": "x",\n  "log": "{KILL}"\n}}\n',
        f'{{\n[    1.000001] {KILL}\n  "MESSAGE": "x"\n}}\n',
        "PATH=/bin\nMESSAGE=x\n\nHOME=/\n",
        f"MESSAGE\nnot a length\n{KILL}\n",
        '{\n  "a": {\n    "MESSAGE": null,\n "_HOSTNAME": 5\n }\n}\n',
        "MESSAGE\n\0\0\0\0\0\0\0\0",
    ],
)
def test_what_is_no_entry_is_left_as_it_is(text: str) -> None:
    assert as_objects(text) == text


@pytest.mark.parametrize(
    "part",
    [
        *("{\n", "}\n", '\t"MESSAGE" : "', '\t"MESSAGE" : [\n1,\n', '\t"_HOSTNAME" : "h",\n', "_HOSTNAME=h\n", "\n"),
        *("MESSAGE=\n", "MESSAGE\n\xff\0\0\0\0\0\0\0", "MESSAGE\n\xff\xff\xff\0\0\0\0\0é\\xff", "    MESSAGE=\n"),
        *("          ", "[1m", "ESC[", "ESC[1m[", "[1m[0.1] [0m", "\\xff", "data: {", "\x1e{"),
    ],
)
def test_hostile_text_takes_no_longer_than_its_length(part: str) -> None:
    head = f"_HOSTNAME={'h' * 65536}\n" if part.startswith("MESSAGE") else "    _HOSTNAME=h\n    MESSAGE=\n"
    text = head + part * (256 * 1024 // len(part))
    begin = perf_counter()
    for line in read_lines(text):
        assert line.number >= 1
    assert perf_counter() - begin < 20

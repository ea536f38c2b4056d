"""What comes before the kernel's words, by transport."""

import json
import re
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reprieve.oom.line import Line
from reprieve.oom.lines import _HEAD, _USUAL, _written_by_kernel, caller, host, read_lines, stamp
from reprieve.oom.report import read_reports
from tests.logs_of import all_logs

WORDS = "Out of memory: Killed process 7 (tmux: server) total-vm:8kB"


def one(text: str) -> Line:
    (line,) = read_lines(f"{text}\n")
    return line


@pytest.mark.parametrize(
    ("head", "kernel"),
    [
        ("", None),
        ("[  123.456789] ", None),
        ("[  123.456789][  T123] ", None),
        ("[71073.562109] [T13546] ", None),
        ("<4>[  123.456789] ", None),
        ("[Thu Oct 23 23:16:06 2025] ", None),
        ("[Mo Okt 23 23:16:06 2025] ", None),
        ("Oct  3 23:13:58 host kernel: ", None),
        ("Oct  3 23:13:58 host kernel: [111764.566248] ", None),
        ("Oct  3 23:13:58 kernel: [111764.566248] ", None),
        ("Nov 12 12:29:23 alien kernel[19202]: ", None),
        ("Nov 03 08:06:47.252691 localhost kernel: ", None),
        ("Thu 2025-10-23 23:13:58 EDT LAPTOP kernel: ", None),
        ("2026-11-23T14:08:41+0000 lab kernel: ", None),
        ("2025-10-23T23:16:06,123456+00:00 ", None),
        ("1795442921.044183 lab kernel: ", None),
        ("[   28.962443] lab kernel: ", None),
        ("Thu Oct 23 23:16:06 2025 kern.warn kernel: [ 1770.251714] ", None),
        ("<4>1 2017-05-01T12:03:58.000000+01:00 aphkrsws7 kernel - - - ", None),
        ("2023-01-07T14:02:11.000000000Z stderr F ", None),
        (" kernel:", None),
        ("5:Dec 21 06:55:33 gdb kernel: [419827.630493] ", None),
        ("/var/log/kern.log:5:Dec 21 06:55:33 gdb kernel: [419827.630493] ", None),
        ("> [  728.287402] ", None),
        ("    MESSAGE=", None),
        ("[Tue Sep 16 03:14:22] ", None),
        ("[Sep 16 03:14:22] ", None),
        ("[2026-05-02 10:14:02 UTC] kernel: ", None),
        ("2026-05-02T10:14:02Z [kernel] ", None),
        ("kern: warning: [2026-05-02T10:14:02.123456789Z]: ", True),
        ("  kern:     err: [2026-05-02T10:14:02.123456789Z]: ", True),
        ("node-1a: kern:     err: [2026-05-02T10:14:02.123456789Z]: ", True),
        ("user: warning: [2026-05-02T10:14:02.123456789Z]: ", False),
        ("4,19685342,241227987454,-,caller=T12845;", True),
        ("kern  :err   : [   49.921978][ T6736] ", True),
        ("12,1968,241227987454,-;", False),
        ("user  :warn  : [   49.921978] ", False),
        ("<13>[  123.456789] ", False),
        ("Oct  3 23:13:58 host node-problem-detector-startup.sh[6018]: ", False),
        ("2025-10-03T23:13:58.123456+02:00 host kubelet[77]: ", False),
    ],
)
def test_the_prefix_comes_off_and_tells_who_wrote(head: str, kernel: bool | None) -> None:
    line = one(head + WORDS)
    assert line.text == WORDS
    assert line.kernel is kernel


def test_a_message_may_begin_with_blanks_and_with_words_like_a_tag() -> None:
    assert one("[    1.000000]  active_file:1 inactive_file:2").text == " active_file:1 inactive_file:2"
    assert one("2025-10-23T23:16:06+00:00 memory: usage 980kB").text == "memory: usage 980kB"
    assert one("2025-10-23T23:16:06+00:00 oom_reaper: reaped process 7 (a)").kernel is None


def test_a_kernel_line_glued_to_a_programs_is_found() -> None:
    line = one("Creating journal (262144 blocks): [   34.739137] mkfs.ext4 invoked oom-killer: gfp_mask=0x1")
    assert line.text.startswith("mkfs.ext4 invoked")


def test_what_ran_on_in_one_line_is_two_messages_however_much_is_around_it() -> None:
    head = "Mar  1 10:00:00 host kernel: "
    ran_on = f"{head}Out of memory: kill process 12 (foo) score 5 or a childKilled process 13 (bar)\n"
    for others in (0, 20):
        texts = [line.text for line in read_lines(f"{head}eth0: link up\n" * others + ran_on)]
        assert texts[others:] == ["Out of memory: kill process 12 (foo) score 5 or a child", "Killed process 13 (bar)"]


@pytest.mark.parametrize("line", ['    "{}",', "    '{}',", "- `{}`", "See: `{}`.", '"{}"'])
def test_a_line_in_quotes_is_taken_out_of_them(line: str) -> None:
    assert one(line.format(f"May  2 09:40:36 lab kernel: {WORDS}")).text == WORDS


def test_a_message_in_quotes_is_one_if_it_is_all_of_its_line() -> None:
    assert one(f'    "{WORDS}",').text == WORDS
    assert one(f"  'kernel: {WORDS}';").text == WORDS
    assert one(f'    "log": "{WORDS}" + more,').text.startswith('"log"')


@pytest.mark.parametrize(
    "around",
    ["```", "```text", "----------", "(...snipped...)", "<list of processes>", "***<long list>***", "*some more here*"],
)
def test_what_people_put_around_a_log_is_no_rest_of_its_lines(around: str) -> None:
    assert [line.text for line in read_lines(f"[    1.000000] {WORDS}\n{around}\n")] == [WORDS, around]


def test_a_head_tells_when_and_where_in_all_its_forms() -> None:
    assert stamp("[dim. 3 mai 18:03:30 2026] ").text == "dim. 3 mai 18:03:30 2026"
    assert stamp("<4>[63651.040374s][pid:2912,cpu3,sh]").uptime_s == 63651.040374
    assert stamp("[Nov30 10:11] ").text == "Nov30 10:11"
    assert stamp("[  +0.000003] ").text is None
    assert host("Mon May  4 02:16:48 2026 kern.warn kernel: ") is None
    assert host("May  4 02:16:48 router kern.warn kernel: ") == "router"
    assert host("2025-10-23 23:16:01 10.0.0.1:6666 [    7.123456] ") == "10.0.0.1"
    assert host("node-1a: kern:     err: [2026-05-02T10:14:02.123Z]: ") == "node-1a"


@pytest.mark.parametrize("date", ["30.11.2026 10:11:12", "Nov 30, 2026 @ 10:11:12.000", "30-Nov-2026 10:11:12"])
def test_a_date_of_any_form_is_told_as_it_stands_and_shows_no_program_for_the_kernel(date: str) -> None:
    assert host(f"{date} PM box kernel: ") == host(f"{date.replace(' 10:', ' 9:')} box kernel: ") == "box"
    line = one(f"{date} box kernel: {WORDS}")
    assert (line.text, stamp(line.head).text, stamp(line.head).wall_s) == (WORDS, date, None)
    assert not any(read_reports(f"{date} app: kernel: Out of memory: Killed process 5 (a) total-vm:1kB\n"))
    assert not any(read_reports(f"{date} app says Out of memory: Killed process 5 (a) total-vm:1kB\n"))


@pytest.mark.parametrize("head", ["[  123.456789] ", "[Thu Apr 17 22:43:41 2025] ", "> [    1.000001] "])
def test_a_stamp_that_lost_its_bracket_is_one(head: str) -> None:
    cut = one(head.replace("[", "") + WORDS)
    assert (cut.text, cut.head.lstrip("[ ")) == (WORDS, head.lstrip("[> "))
    assert one("note 7] " + WORDS).text == "note 7] " + WORDS


def test_escapes_of_syslog_pages_and_terminals_are_undone() -> None:
    assert [line.text for line in read_lines("Jul 15 23:44:32 r kernel: a:1#012 b:2#012 c:3\n")] == [
        "a:1",
        " b:2",
        " c:3",
    ]
    assert one("[1.0] &lt;TASK&gt; &amp;x").text == "<TASK> &x"
    assert one("Dec 23 21:03:36 o \x1b[32mkernel:\x1b[0m\x1b[1m [ 7.345821] x\x1b[0m").text == "x"
    assert [line.text for line in read_lines("[1.0] a\r\n[1.0] b\r\n")] == ["a", "b"]


def test_the_journals_json_is_a_line_for_each_line_of_its_message() -> None:
    entry = {
        "MESSAGE": "active_anon:1\n active_file:2",
        "_TRANSPORT": "kernel",
        "SYSLOG_FACILITY": "0",
        "_HOSTNAME": "lab",
        "SYSLOG_IDENTIFIER": "kernel",
        "__REALTIME_TIMESTAMP": "1795442921044183",
        "_SOURCE_MONOTONIC_TIMESTAMP": "28962443",
        "_BOOT_ID": "323112069467488b85c50886394d6449",
    }
    first, second = read_lines(json.dumps(entry) + "\n")
    assert (first.text, second.text, first.kernel) == ("active_anon:1", " active_file:2", True)
    assert stamp(first.head).wall_s == 1795442921.044183
    assert stamp(first.head).uptime_s == 28.962443
    assert host(first.head) == "lab"
    assert first.boot_id == entry["_BOOT_ID"]


def test_of_hostile_fields_no_more_is_kept_than_honest_ones_hold() -> None:
    names = ("_HOSTNAME", "SYSLOG_IDENTIFIER", "time", "_BOOT_ID", "_SOURCE_MONOTONIC_TIMESTAMP")
    line = one(json.dumps({"MESSAGE": WORDS} | dict.fromkeys(names, "12:00:00x" * 100_000)))
    assert (line.text, line.boot_id) == (WORDS, None)
    assert len(line.head) < 600
    assert one(json.dumps({"MESSAGE": WORDS, "_BOOT_ID": "\ud800"})).boot_id is None


def test_a_head_that_is_all_times_names_no_host() -> None:
    assert host("12:00:00x" * 100_000) is None
    assert host(f"Nov 23 12:00:00 {'x' * 100_000} kernel: ") is None


def test_what_a_program_wrote_into_the_kernels_buffer_is_not_the_kernels_in_the_journal_either() -> None:
    entry = {"MESSAGE": WORDS, "_TRANSPORT": "kernel", "SYSLOG_FACILITY": "1"}
    assert one(json.dumps(entry)).kernel is False


@pytest.mark.parametrize("tag", ["h1 evil[77]: ", "h1 evil: ", "evil[77]: ", "h1 kernel[77]: "])
def test_a_programs_kill_behind_a_stamp_of_the_kernels_clock_is_told_apart(tag: str) -> None:
    others = "[   27.000001] h1 kernel: usb 1-1: reset\n[   27.000002] h1 kernel: " + WORDS + "\n"
    for text in (f"[   28.962443] {tag}{WORDS}\n", others + f"[   28.962443] {tag}{WORDS}\n"):
        *kernels, line = read_lines(text)
        assert (line.text, line.head, line.kernel) == (WORDS, f"[   28.962443] {tag}", False)
        assert all(line.kernel is None for line in kernels)


@pytest.mark.parametrize("text", ["{", '{"a": 1}', "[1, 2]", '{"MESSAGE": null}', "{}" * 5000, '{"MESSAGE": [300]}'])
def test_json_that_is_no_entry_is_a_line(text: str) -> None:
    assert len(list(read_lines(f"{text}\n"))) == 1


def test_a_line_without_its_newline_is_not_whole() -> None:
    assert [line.whole for line in read_lines("[1.0] a\n[1.0] b")] == [True, False]


@given(st.text(alphabet="[]<>0123456789.:, -TCkernel;{}\\#\n", max_size=200))
def test_any_text_is_lines(text: str) -> None:
    for line in read_lines(text):
        assert line.number >= 1
        stamp(line.head)
        host(line.head)
        caller(line.head)


@given(st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1)), st.integers(-11 * 60, 13 * 60))
def test_iso_dates_are_moments(moment: datetime, ahead_min: int) -> None:
    zoned = moment.replace(microsecond=0, tzinfo=timezone(timedelta(minutes=ahead_min)))
    assert stamp(f"{zoned.isoformat()} host kernel: ").wall_s == zoned.timestamp()


def test_dates_without_year_or_zone_are_kept_and_not_believed() -> None:
    assert stamp("Oct  3 23:13:58 host kernel: ").text == "Oct  3 23:13:58"
    assert not stamp("Oct  3 23:13:58 host kernel: ").certain
    assert stamp("[Thu Oct 23 23:16:06 2025] ").wall_s is None


def test_callers_are_told() -> None:
    assert caller("[   49.921978][ T6736] ") == "T6736"
    assert caller("4,19685342,241227987454,-,caller=C0;") == "C0"
    assert caller("[   49.921978] ") is None


def is_read_alike(text: str) -> bool:
    """Do both searches for a head find the same, line by line, where the usual one finds any?"""
    physical = text.split("\n")
    usual = re.findall(_USUAL, text)
    assert len(usual) == len(physical)
    for raw, (head, program, other, rest) in zip(physical, usual, strict=True):
        match = re.match(_HEAD, raw)
        assert match is not None
        assert head + rest == raw
        kernel = False if program or other else None
        if head and (match["stamped"], match.end(), _written_by_kernel(match)) != (head, len(head), kernel):
            return False
    return True


@pytest.mark.parametrize("path", all_logs(), ids=lambda path: path.name)
def test_usual_heads_are_the_same_as_by_the_one_expression_for_all(path: Path) -> None:
    assert is_read_alike(path.read_bytes().decode(errors="backslashreplace").replace("\r\n", "\n"))


DATES = ("Mar  1 00:00:00 ", "2026-11-23T14:08:41+00:00 ", "2026-11-23T14:08:41.123456Z ", "Mar 1 00:00:00 2026 ")
PARTS = (
    *("node7 ", "kernel: ", "kernel:", "sshd[77]: ", "app.x: ", "[   12.345678] ", "[12.345678][  T7] ", "[ 12.34] "),
    *(
        "[Thu Oct 23 23:16:06 2025] ",
        "[UFW BLOCK] ",
        "[ 1234]     0 ",
        "MESSAGE=",
        " ",
        "é ",
        "words of it",
        "<4>",
        "{",
    ),
)


@given(st.lists(st.sampled_from(DATES + PARTS), max_size=7))
def test_usual_heads_are_the_same_whatever_is_put_together(parts: list[str]) -> None:
    assert is_read_alike("".join(parts))


KILLS = (
    "2026-05-02T09:17:40Z h kernel: java invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0",
    "2026-05-02T09:17:40Z h kernel: Memory cgroup out of memory: Killed process 99 (java) total-vm:8kB, anon-rss:4kB",
)


@pytest.mark.parametrize(
    "told",
    [
        list(KILLS),
        [[KILLS[0]], [KILLS[1]]],
        [{"message": kill} for kill in KILLS],
        [{"MESSAGE": kill.partition(": ")[2], "_TRANSPORT": "kernel"} for kill in KILLS],
        {"hits": {"hits": [{"_source": {"message": kill}} for kill in KILLS]}},
        {"data": {"result": [{"stream": {"job": "a"}, "values": [["1777713460000000000", kill] for kill in KILLS]}]}},
        {"results": [{"lines": "\n".join(KILLS).split("\n")}]},
    ],
)
def test_json_that_stands_in_one_line_is_read_as_what_is_in_it(told: object) -> None:
    lines = [line for line in read_lines(json.dumps(told) + "\n") if line.text]
    assert [line.text.partition(" ")[0] for line in lines] == ["java", "Memory"]


@pytest.mark.parametrize(
    "told", ['["Out of memory: Killed process 1 (init)"]', "[" * 5000, '["a', "[1, null, {}]", "[]"]
)
def test_json_that_holds_no_line_of_a_kernel_is_taken_as_it_is(told: str) -> None:
    assert [line.text for line in read_lines(f"{told}\n")] == [told]


FORGED = "kernel: Out of memory: Killed process 1 (init) total-vm:8kB, anon-rss:4kB"


@pytest.mark.parametrize(
    "told",
    [
        {"_TRANSPORT": "journal", "_UID": "1000", "FOO": [FORGED, "b"]},
        {"MESSAGE": None, "_BOOT_ID": "0" * 32, "FOO": {"lines": [FORGED]}},
        {"level": "info", "request": {"msg": FORGED.partition(": ")[2]}},
        {"args": [FORGED]},
    ],
)
def test_what_a_program_writes_within_its_json_is_no_line_of_the_kernel(told: object) -> None:
    (line,) = read_lines(json.dumps(told) + "\n")
    assert line.text.startswith("{")


@pytest.mark.parametrize("tag", ["a/b: 2024] ", "a: [2024] ", "a/b 2024] "])
def test_a_bracket_in_what_a_program_writes_is_no_end_of_a_stamp(tag: str) -> None:
    text = (
        f"May  2 09:17:39 web01 cron: hello\nMay  2 09:17:40 web01 {tag}Out of memory: Killed process 1 (init)\n#012\n"
    )
    lines = [line for line in read_lines(text) if "Killed" in line.text]
    assert [(line.kernel, line.text.startswith("Out of")) for line in lines] in ([(False, False)], [(None, False)])

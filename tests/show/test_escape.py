"""Names of strangers, in every format."""

import json
import subprocess

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from reprieve.model.finding import quote
from reprieve.show import escape

NASTY = st.text(
    st.one_of(
        st.sampled_from(
            "\x00\x01\x02\x03\t\n\r\x1b\x7f\x85\x9b\u00a0\u00ad\u061c\u200b\u200e\u200f\u2028\u2029\u202a\u202e"
        ),
        st.sampled_from("\u2066\u2069\u3164\ufe0f\ufeff\U000e0041\U000e0100“”‘’`'\"\\$!#&|;<>(){}[]*_~-+=@:/.%? "),
        st.sampled_from("abcxyz019éß漢א"),
    ),
    max_size=24,
)


def acts(char: str) -> bool:
    """Would this character do something rather than be seen?"""
    return not char.isprintable() or char in "\u3164\ufe0f\U000e0100"


def test_plain_names_stay_as_they_are() -> None:
    for name in (
        "nginx.service",
        "/a/b",
        "kworker/0:1+events",
        "user 1000",
        "container 4f1c2d of pod 95387fa4 of user 7",
    ):
        assert escape.plain(quote(name)) == name


def test_a_name_that_reads_like_a_sentence_is_in_quotes() -> None:
    assert escape.plain(f"{quote('all is well')} died") == "“all is well” died"
    assert escape.plain(quote("")) == "“”"


def test_a_name_cannot_leave_its_quotes() -> None:
    assert escape.plain(quote("a” and nobody “b")) == "“a\\u201d and nobody \\u201cb”"


def test_words_of_ours_are_made_visible_too() -> None:
    assert escape.plain("a\x1bb") == "a\\x1bb"
    assert escape.plain("a\x02b") == "a\\x02b"


@given(NASTY)
@example("\x1b]8;;http://a\x07b")
def test_nothing_acts_in_a_terminal(name: str) -> None:
    for shown in (escape.visible(name), escape.plain(f"a {quote(name)} b"), escape.name(name)):
        assert not any(map(acts, shown))


def test_printable_text_of_any_language_stays() -> None:
    assert escape.visible("mémoire 漢字 קוד") == "mémoire 漢字 קוד"


@given(st.lists(NASTY, min_size=1, max_size=3))
@example(["-n", "!!", "a\x1b!b"])
@settings(max_examples=40, deadline=None)
def test_a_shell_sees_each_argument_as_the_word_it_is(argv: list[str]) -> None:
    line = escape.shell(argv)
    if any("\0" in word or (word.endswith("\n")) for word in argv):
        assert line.startswith("# no command line")
        return
    assert not any(map(acts, line))
    script = f"set -- {line}\nfor word; do printf '%s\\0' \"$word\"; done"
    subprocess.run(["sh", "-n"], input=line.encode(), check=True)
    seen = subprocess.run(["sh", "-c", script], check=True, capture_output=True).stdout
    assert seen == b"".join(word.encode() + b"\0" for word in argv)


def test_bash_expands_nothing_either() -> None:
    line = escape.shell(["a\x1b!!$(id)`id`"])
    seen = subprocess.run(["bash", "-c", f"set -H; printf %s {line}"], check=True, capture_output=True).stdout
    assert seen == b"a\x1b!!$(id)`id`"


def test_what_no_command_line_can_hold_is_not_said() -> None:
    assert escape.shell(["echo", "a\0b"]).startswith("#")
    assert escape.shell(["echo", "a\n"]).startswith("#")


@given(NASTY)
def test_json_is_ascii_and_exact(name: str) -> None:
    line = escape.json_line(msgspec.json.encode({"name": name}))
    assert json.loads(line) == {"name": name}
    assert all(" " <= char <= "~" for char in line)


@given(NASTY, st.integers(min_value=1, max_value=30))
def test_cut_text_fits(name: str, width: int) -> None:
    shown = escape.visible(name)
    assert escape.columns(escape.cut(shown, width)) <= width


@pytest.mark.parametrize(("text", "columns"), [("abc", 3), ("“a…”", 4), ("漢字", 4), ("e\u0301", 1)])
def test_wide_and_combining_characters_are_counted_as_drawn(text: str, columns: int) -> None:
    assert escape.columns(text) == columns

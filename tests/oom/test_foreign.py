"""What is a kernel log, and what only looks like an end for memory."""

import re
from pathlib import Path

import pytest

from reprieve.oom.foreign import is_kernel_log, is_newest_first, signs
from tests.logs_of import LOGS


@pytest.mark.parametrize("path", sorted(LOGS.glob("*.log")), ids=lambda path: path.name)
def test_every_real_log_with_a_prefix_is_a_kernel_log(path: Path) -> None:
    text = path.read_text(errors="backslashreplace")
    stamped = re.search(r"(?m)^(?:\S+ +){0,6}\[ *\d+\.\d{6}\]|\d\d:\d\d:\d\d\S* \S+ kernel: ", text)
    assert is_kernel_log(text) or not stamped  # bare quotes are known by their words alone, where these are a report


@pytest.mark.parametrize("path", sorted(LOGS.glob("*.log")), ids=lambda path: path.name)
def test_no_real_log_stands_newest_first(path: Path) -> None:
    assert not is_newest_first(path.read_text(errors="backslashreplace"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "root:x:0:0:root:/root:/bin/bash\n",
        '{"read":"2026-11-23T14:08:22Z","memory_stats":{"limit":67108864}}\n',
        "[    17.042] (II) modeset(0): glamor initialized\n",
        "Nov 23 14:08:41 lab sshd[7]: kernel: said a client\n",
        "kernel: 6.1.0\n",
        "2026-11-23 14:08:41,123 INFO [main] started\n",
        "[2026-11-23 14:08:41] production.ERROR: boom\n",
        '{"_TRANSPORT":"stdout","MESSAGE":"hello"}\n',
    ],
)
def test_what_a_program_wrote_is_none(text: str) -> None:
    assert not is_kernel_log(text)


def test_signs_are_told_once_each_with_their_line_and_no_words_of_strangers() -> None:
    text = "ok\njava.lang.OutOfMemoryError: \x1b[31mevil\nagain java.lang.OutOfMemoryError: Metaspace\nexit code 137\n"
    told = list(signs(text))
    assert [(sign.line, sign.words) for sign in told] == [(2, "java.lang.OutOfMemoryError"), (4, "exit code 137")]
    assert list(signs("Killed by accident, it said. The exit was 1370 m away.\n" * 2)) == []

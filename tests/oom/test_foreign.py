"""What is a kernel log, and what only looks like an end for memory."""

import re
from pathlib import Path

import pytest

from reprieve.oom.foreign import is_kernel_log, is_newest_first, oom_killed, signs
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


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("make: *** [Makefile:12: all] Error 137\n", "Error 137"),
        ("make[2]: *** [s-automata] Error 137\n", "Error 137"),
        ("make: *** [all] Killed\n", "Killed"),
        ("g++: fatal error: Killed signal terminated program cc1plus\n", "Killed signal terminated program"),
        ("c++: internal compiler error: Killed (program cc1plus)\n", "Killed"),
        ("zsh: killed     python3 x.py\n", "killed"),
        ("zsh: killed\n", "killed"),
        ("[1]  + 12345 killed     python3 x.py\n", "killed"),
        ("[1]+  Killed                  python3 x.py\n", "Killed"),
        ("npm ERR! errno 137\n", "errno 137"),
        ("a.service: Main process exited, code=killed, status=9/KILL\n", "code=killed, status=9/KILL"),
        ("collect2: fatal error: ld terminated with signal 9 [Killed]\n", "signal 9"),
    ],
)
def test_an_end_by_sigkill_is_known_in_the_words_of_who_tells_of_it(text: str, words: str) -> None:
    (sign,) = signs(f"ok\n{text}")
    assert (sign.line, sign.words) == (2, words)
    assert sign.means.startswith("SIGKILL, whoever sent it: the kernel for memory")


@pytest.mark.parametrize(
    "text",
    [
        "make: *** [Makefile:12: all] Error 1\n",
        "make: *** [Makefile:12: all] Error 1370\n",
        "make: *** [all] Terminated\n",
        "g++: fatal error: no input files\n",
        "c++: internal compiler error: Segmentation fault (program cc1plus)\n",
        "zsh: killed it, says a man\n",
        "zsh: terminated  python3 x.py\n",
        "[1]+  Terminated              python3 x.py\n",
        "errno 13\n",
        "a.service: Main process exited, code=killed, status=15/TERM\n",
    ],
)
def test_other_ends_are_no_sign(text: str) -> None:
    assert list(signs(text)) == []


def test_a_sigkill_told_in_two_words_is_one_sign_and_does_not_repeat_its_name() -> None:
    (sign,) = signs("Process finished with exit code 137 (interrupted by signal 9: SIGKILL)\n")
    assert sign.words == "exit code 137"
    (sign,) = signs("worker ended: SIGKILL\nzsh: killed\n")
    assert (sign.line, sign.words, sign.means[:12]) == (1, "SIGKILL", "sent by the ")


def test_slurm_s_word_for_a_kill_in_its_job_is_a_manager_s() -> None:
    for said in ("Detected 1 oom_kill event in StepId=7.batch.", "Detected 12 oom-kill event(s) in step 7.0 cgroup."):
        sign = oom_killed(f"slurmstepd: error: {said} Some of the step tasks have been OOM Killed.\n")
        assert sign is not None
        assert re.fullmatch(r"Detected \d+ oom.kill events?", sign.words)
    assert oom_killed("slurmstepd: error: Detected a dead node\nwe detected 1 oom_kill event\n") is None


def test_signs_are_told_once_each_with_their_line_and_no_words_of_strangers() -> None:
    text = "ok\njava.lang.OutOfMemoryError: \x1b[31mevil\nagain java.lang.OutOfMemoryError: Metaspace\nexit code 137\n"
    told = list(signs(text))
    assert [(sign.line, sign.words) for sign in told] == [(2, "java.lang.OutOfMemoryError"), (4, "exit code 137")]
    assert list(signs("Killed by accident, it said. The exit was 1370 m away.\n" * 2)) == []

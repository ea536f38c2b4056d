"""`@pytest.mark.memory_limit`: real tests under real limits, run by a pytest of their own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from time import monotonic, sleep

import pytest

from reprieve.machine.enclosure import find_hierarchy
from reprieve.model.run import TEST, is_own
from tests.machine.real import missing
from tests.test_run import _nobodys

_PYTEST = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rA", "--color=no")
_LIMITED = "import os, subprocess, sys, time, unittest, pytest\nlimited = pytest.mark.memory_limit\n"
_LEAK = "kept = [b'x' * (1 << 20) for _ in range(400)]"


@pytest.fixture(autouse=True)
def may_make_groups() -> None:
    """A memory cgroup can be made here, by who runs the tests."""
    if os.geteuid() != 0 or find_hierarchy() is None:
        missing("root, and a memory controller, for a cgroup of its own")


def play(folder: Path, tests: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Those tests, run in that folder."""
    (folder / "test_it.py").write_text(_LIMITED + tests)
    # A folder of its own: else it closes ours to others, which servers that tests beside us run need to be open.
    argv = (*_PYTEST, *options, f"--basetemp={folder}/base", f"--junitxml={folder}/junit.xml", "test_it.py")
    return subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=120)


def outcomes(said: str) -> dict[str, str]:
    return {name: how for how, name in re.findall(r"^(\w+) test_it\.py::(\w+)", said, re.MULTILINE)}


def left() -> list[str]:
    """Groups around tests whose pytest has ended: of one that runs beside us they are there."""
    hierarchy = find_hierarchy()
    assert hierarchy is not None
    made = (folder for folder, _, _ in os.walk(hierarchy.mount) if is_own(name := Path(folder).name) and TEST in name)
    return [folder for folder in made if not Path(f"/proc/{Path(folder).name.split('-')[2]}").exists()]


def test_what_the_kernel_kills_a_test_for_is_its_failure_and_the_others_go_on(tmp_path: Path) -> None:
    tests = f"@limited('40M')\ndef test_leaks():\n    print('so far')\n    {_LEAK}\ndef test_after(): pass\n"
    ended = play(tmp_path, tests, "-v")
    assert outcomes(ended.stdout) == {"test_leaks": "FAILED", "test_after": "PASSED"}
    said = " ".join(ended.stdout.split())
    assert "Ended test_leaks killed by signal 9 (status 137)" in said
    assert "Limit 40 MiB for “a test under its memory_limit”; all of it used" in said
    assert re.search(r'What now Raise the limit to 1\d\dM?.* memory_limit\("1\d\dM"\)', said)
    assert "reprieve run --max" not in said
    assert "Captured stdout call -----------------------------\nso far" in ended.stdout
    assert "40 MiB test_it.py::test_leaks" in said
    assert not left()


def test_only_what_the_function_takes_counts_and_fixtures_are_pytests_own(tmp_path: Path) -> None:
    tests = """
@pytest.fixture(scope="session")
def large():
    yield b"x" * (80 << 20)
    print("torn down in", os.getpid())
@limited("40M")
def test_one(large):
    assert len(large) == 80 << 20
@limited(40 << 20, swap=None)
def test_two(large, tmp_path):
    (tmp_path / "kept").write_text(str(os.getpid()))
    assert len(large) == 80 << 20
"""
    ended = play(tmp_path, tests)
    assert outcomes(ended.stdout) == {"test_one": "PASSED", "test_two": "PASSED"}, ended.stdout
    assert ended.stdout.count("torn down in") == 1
    properties = ElementTree.parse(tmp_path / "junit.xml").iter("property")
    told = [(one.get("name"), one.get("value")) for one in properties]
    assert {value for name, value in told if name == "memory_limit_means"} <= {"cgroup1", "cgroup2", "systemd"}
    assert all(0 < int(value or 0) < 40 << 20 for name, value in told if name == "memory_peak_bytes")
    assert len(told) == 4


@pytest.mark.slow
def test_a_test_ends_as_it_would_without_its_limit(tmp_path: Path) -> None:
    tests = """
@limited("40M")
def test_fails():
    x = 3
    assert x == 4
@limited("40M")
def test_says_why():
    pytest.fail("because", pytrace=False)
@limited("40M")
def test_skips():
    pytest.skip("not here")
@limited("40M")
def test_skips_as_unittest_does():
    raise unittest.SkipTest("no database")
@limited("40M")
@pytest.mark.xfail
def test_is_expected_to():
    assert 0
@limited("40M")
@pytest.mark.xfail(raises=ZeroDivisionError)
def test_raises_that():
    1 / 0
@limited("40M")
@pytest.mark.xfail(raises=ZeroDivisionError)
def test_raises_another():
    [][0]
@limited("40M")
@pytest.mark.parametrize("way", [1])
class TestMethods:
    def test_method(self, way, capsys):
        print("seen")
        assert capsys.readouterr().out == "seen\\n"
"""
    ended = play(tmp_path, tests)
    assert (ended.stdout.count("PASSED"), ended.returncode) == (1, 1)
    found = outcomes(ended.stdout)
    assert (found["test_fails"], found["test_says_why"], found["test_is_expected_to"]) == ("FAILED", "FAILED", "XFAIL")
    assert (found["test_raises_that"], found["test_raises_another"]) == ("XFAIL", "FAILED")
    assert re.search(r"^SKIPPED .*: no database$", ended.stdout, re.MULTILINE)
    assert re.search(r"^SKIPPED .*: not here$", ended.stdout, re.MULTILINE)
    assert re.search(r">       assert x == 4\nE       assert 3 == 4\n\ntest_it\.py:\d: AssertionError", ended.stdout)
    assert "\nbecause\n" in ended.stdout


@pytest.mark.slow
def test_an_exit_ends_the_session(tmp_path: Path) -> None:
    tests = "@limited('40M')\ndef test_it(): pytest.exit('enough', returncode=7)\ndef test_more(): pass\n"
    ended = play(tmp_path, tests)
    assert ended.returncode == 7
    assert "enough" in ended.stdout
    assert "test_more" not in outcomes(ended.stdout)


@pytest.mark.slow
def test_the_kill_of_a_child_fails_the_test_that_started_it(tmp_path: Path) -> None:
    tests = f"""
@limited("60M")
def test_child():
    subprocess.run(["sh", "-c", 'echo 900 > /proc/self/oom_score_adj; exec "$0" -c "$1"', sys.executable, "{_LEAK}"])
"""
    ended = play(tmp_path, tests)
    assert outcomes(ended.stdout) == {"test_child": "FAILED"}
    assert "Killed    python" in ended.stdout
    assert "Ended     test_child with status 0" in ended.stdout


@pytest.mark.slow
def test_who_leaves_at_once_or_leaves_somebody_behind_is_not_waited_for(tmp_path: Path) -> None:
    tests = """
@limited("40M")
def test_leaves():
    os._exit(7)
@limited("40M")
def test_crashes():
    os.kill(os.getpid(), 11)
@limited("40M")
def test_forks():
    if os.fork() == 0:
        time.sleep(900)
"""
    ended = play(tmp_path, tests)
    assert outcomes(ended.stdout) == {"test_leaves": "FAILED", "test_crashes": "FAILED", "test_forks": "PASSED"}
    assert "Ended     test_leaves with status 7" in ended.stdout
    assert "Ended     test_crashes killed by signal 11" in ended.stdout
    assert not left()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mark", "said"),
    [
        ("'a lot'", "memory_limit: 'a lot' is no size: try 512M"),
        ("", "memory_limit: None is no size"),
        ("'1G', 2", "memory_limit takes a size and swap="),
        ("'1G', high='1M'", "memory_limit takes a size and swap="),
    ],
)
def test_a_mark_that_cannot_be_meant_fails_its_test(mark: str, said: str, tmp_path: Path) -> None:
    ended = play(tmp_path, f"@limited({mark})\ndef test_it(): pass\n")
    assert outcomes(ended.stdout) == {"test_it": "FAILED"}
    assert said in ended.stdout


@pytest.mark.slow
def test_who_would_run_without_the_limit_does_not_run(tmp_path: Path) -> None:
    ended = play(
        tmp_path, "class TestOld(unittest.TestCase):\n    @limited('1G')\n    def test_it(self): print('ran')\n"
    )
    assert "memory_limit is for functions and methods of pytest, not of unittest" in ended.stdout
    assert "\nran\n" not in ended.stdout


@pytest.mark.slow
def test_beside_others_each_has_its_own_limit(tmp_path: Path) -> None:
    tests = f"@limited('40M')\n@pytest.mark.parametrize('n', range(4))\ndef test_it(n):\n    if n % 2: {_LEAK}\n"
    ended = play(tmp_path, tests, "-n", "2")
    assert "2 failed, 2 passed" in ended.stdout
    assert len(re.findall(r"^Ended     test_it\[[13]\]", ended.stdout, re.MULTILINE)) == 2


@pytest.mark.slow
def test_without_rights_each_process_has_its_limit_and_that_is_told(open_folder: Path) -> None:
    argv, environ = _nobodys()
    (open_folder / "test_it.py").write_text(
        f"{_LIMITED}@limited('40M')\ndef test_leaks(): {_LEAK}\n@limited('40M')\ndef test_fits(): pass\n"
    )
    python = argv[: argv.index("-m")]
    ended = subprocess.run(
        [*python, *_PYTEST[1:], "test_it.py"], env=environ, cwd=open_folder, capture_output=True, text=True, timeout=120
    )
    assert outcomes(ended.stdout) == {"test_leaks": "FAILED", "test_fits": "PASSED"}, ended.stdout + ended.stderr
    assert "MemoryError" in ended.stdout
    assert "memory_limit: no cgroup could be made for 2 tests: RLIMIT_DATA held each" in ended.stdout


@pytest.mark.slow
def test_ctrl_c_ends_it_and_nothing_stays_behind(tmp_path: Path) -> None:
    waits = "    open('pid', 'w').write(str(os.getpid()))\n    time.sleep(900)\n"
    (tmp_path / "test_it.py").write_text(f"{_LIMITED}@limited('40M')\ndef test_waits():\n{waits}")
    with subprocess.Popen([*_PYTEST, "test_it.py"], cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        until = monotonic() + 60
        while not (tmp_path / "pid").exists() and monotonic() < until:
            sleep(0.02)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in said
    assert process.returncode == 2
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text()}").exists()
    assert not left()

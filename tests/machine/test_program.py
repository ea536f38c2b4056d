"""Advice to run it as root is a command that works: whoever installed it by pipx or in a venv has it where sudo looks
not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from reprieve.machine.program import with_command
from tests.machine.real import as_another, missing

SUDO = "run it with sudo, or as its owner"
# As the console script of an install starts it, without rights.
_AS_NOBODY = """
import sys
from reprieve.machine.program import findings_at_hand, gaps_at_hand, with_command
from reprieve.model.finding import Finding, Gap, Remedy
from reprieve.show.answer import for_root
sys.argv = sys.argv[1:]
print(with_command(with_command("run it with sudo, or as its owner")))
print(with_command("name a log"))
print(gaps_at_hand([Gap(place="/dev/kmsg", reason="refused", hint="run it as root")])[0].hint)
for title in ("See its report (reprieve as root)", "See it (there, as root)"):
    remedy = Remedy(title=title, commands=(("reprieve", "why"), ("reprieve", "run", "--", "COMMAND")))
    finding = Finding(code="c", severity="info", confidence="certain", claim="c", remedies=(remedy,))
    print(findings_at_hand([finding])[0].remedies[0].commands)
remedy = Remedy(title="t", commands=(("reprieve", "why"),))
(told,) = findings_at_hand([Finding(code="c", severity="", confidence="", claim="", remedies=(remedy,))])
print(for_root(told.remedies[0]))
"""


def as_nobody(*argv: str) -> list[str]:
    if os.geteuid() != 0:
        missing("root, to become nobody")
    asked = [*as_another(65534), sys.executable, "-c", _AS_NOBODY, *argv]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.splitlines()


def test_who_is_root_or_installed_it_where_sudo_looks_needs_no_path() -> None:
    assert with_command(SUDO) == SUDO
    for folder in ("/usr/bin", "/usr/local/bin", "/usr/sbin"):
        told = as_nobody(f"{folder}/reprieve", "why")
        assert told[0] == SUDO
        assert told[2] == "run it as root"


def test_of_a_long_command_no_shorter_one_is_told_that_does_more() -> None:
    told = as_nobody("/home/a/.venv/bin/reprieve", "fix", "swappiness", "10", "--reason", "the cache matters " * 9)
    assert told[0] == "run it with sudo: `sudo /home/a/.venv/bin/reprieve fix …`, or as its owner"


def test_another_program_that_asks_us_is_not_what_root_is_to_run() -> None:
    assert as_nobody("/home/a/report.py", "why")[0] == SUDO


def test_what_lies_elsewhere_is_run_by_its_path() -> None:
    told = as_nobody("/home/a b/.venv/bin/reprieve", "why", "my log")
    assert told[0] == "run it with sudo: `sudo '/home/a b/.venv/bin/reprieve' why 'my log'`, or as its owner"
    assert told[1] == "name a log"
    assert told[2] == "run it as root: `sudo '/home/a b/.venv/bin/reprieve' why 'my log'`"
    assert told[3] == "(('/home/a b/.venv/bin/reprieve', 'why'), ('reprieve', 'run', '--', 'COMMAND'))"
    assert told[4] == "(('reprieve', 'why'), ('reprieve', 'run', '--', 'COMMAND'))"
    assert told[5] == "True"


@pytest.mark.parametrize("last", ["x" * 200, "a\x1b[2Jb"])
def test_what_is_too_long_or_cannot_be_shown_is_left_out(last: str) -> None:
    assert as_nobody("/home/a/bin/reprieve", "why", last)[2] == "run it as root: `sudo /home/a/bin/reprieve why …`"


def test_the_command_of_run_is_not_what_root_is_to_run() -> None:
    """It is a log that root may read; the command is a user's, who may have chosen it to be bounded."""
    told = as_nobody("/home/a/bin/reprieve", "run", "--max", "64M", "--", "./build.sh")
    assert told[0] == SUDO
    assert told[2] == "run it as root"


def test_as_a_module_it_is_the_script_beside_its_interpreter() -> None:
    beside = Path(sys.executable).with_name("reprieve")
    if not beside.exists():
        missing("the console script beside the interpreter")
    told = as_nobody("/home/a/lib/reprieve/__main__.py", "why")
    asked = f"sudo {beside} why"  # a command that is too long to be read is not repeated
    assert told[2] == f"run it as root: `{asked if len(asked) <= 100 else f'{asked} …'}`"

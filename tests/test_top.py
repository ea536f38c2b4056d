"""`reprieve top` without its screen, as users run it: one look, look after look, one process."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import jsonschema
import pytest

from reprieve.codec import pack
from reprieve.machine.demo import kill_a_leak
from reprieve.machine.host import Host
from reprieve.machine.observe import observe
from reprieve.model.finding import Gap
from reprieve.model.snapshot import Snapshot
from reprieve.oom.counted import FOR_ROOT
from reprieve.show import looks
from tests.conftest import Run
from tests.machine.real import as_another, missing
from tests.machine.test_kubernetes import extra
from tests.machine.test_sampler import MIB, Child
from tests.rules.test_survey import HOSTS
from tests.test_why import on_a_terminal

SCHEMA = Path(__file__).parents[1] / "docs" / "schema" / "top-1.json"


@contextmanager
def watching(*options: str) -> Iterator[tuple[subprocess.Popen[str], IO[str]]]:
    """`reprieve top` while it runs, and what it prints."""
    argv = [sys.executable, "-m", "reprieve", "top", *options]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout
        finally:
            process.kill()


@pytest.fixture
def child() -> Iterator[Child]:
    child = Child()
    yield child
    child.end()


def test_one_look_at_this_machine_is_a_screenful(reprieve: Run, child: Child) -> None:
    child.do("oom_score_adj 1000")
    child.do(f"take {300 * MIB}")
    said = reprieve("top", "--once")
    assert said.returncode in (0, 5)
    assert said.stderr == ""
    lines = said.stdout.splitlines()
    assert [line.split()[0] for line in lines[:7]] == "Machine Memory Pressure Left Time Next Frees".split()
    assert f"(pid {child.pid})" in lines[5]
    assert any(line.startswith("»") and f" {child.pid} " in line for line in lines)


def test_a_snapshot_gives_the_look_at_the_machine_it_was_taken_of(reprieve: Run, tmp_path: Path) -> None:
    reprieve("snapshot", "--from", HOSTS / "v2-systemd-252", "-o", tmp_path / "machine.gz")
    told = reprieve("top", "--once", "--from", tmp_path / "machine.gz").stdout
    seen = reprieve("top", "--from", HOSTS / "v2-systemd-252").stdout
    assert told.partition("Not seen")[0] == seen.partition("Not seen")[0]
    assert "web.service" in told


def test_without_rights_it_shows_what_is_visible_and_says_what_is_not(as_nobody: Run) -> None:
    said = as_nobody("top", "--once")
    assert said.returncode in (0, 5)
    assert said.stderr == ""
    assert said.stdout.startswith("Machine")
    assert (said.returncode == 5) == ("Not seen" in said.stdout)


def test_of_processes_that_were_not_seen_nobody_is_not_said(reprieve: Run, tmp_path: Path) -> None:
    shutil.copytree(HOSTS / "v2-systemd-252", tmp_path / "sos", ignore=shutil.ignore_patterns("[0-9]*"))
    lines = reprieve("top", "--once", "--from", "sos").stdout.splitlines()
    assert lines[5:7] == ["Next      nobody of those who could be seen", "Frees     not known"]
    assert any(line.startswith("Not seen  processes: ") for line in lines)


@pytest.mark.parametrize(("hides", "word", "status"), [(False, "Note", 0), (True, "Not seen", 5)])
def test_a_note_is_told_as_one_and_makes_no_look_incomplete(
    hides: bool, word: str, status: int, reprieve: Run, tmp_path: Path
) -> None:
    gaps: list[Gap] = []
    machine = observe(Host(str(HOSTS / "v2-systemd-252")), gaps)
    told = Gap(place="/proc/7/smaps_rollup", reason="Permission denied", hides=hides)
    (tmp_path / "s.gz").write_bytes(pack(Snapshot(machine=machine, machine_gaps=(told,))))
    said = reprieve("top", "--once", "--from", "s.gz")
    assert said.stdout.splitlines()[-1] == f"{word:<10}/proc/7/smaps_rollup: Permission denied"
    assert said.returncode == status


@pytest.mark.parametrize("way", [("--batch", "-n", "2"), ("--pid", "1", "-n", "2")])
def test_the_status_of_look_after_look_is_that_of_what_hides_anything(way: tuple[str, ...], reprieve: Run) -> None:
    said = reprieve("top", *way, "--every", "0.1")
    lines = [json.loads(line) for line in said.stdout.splitlines()]
    hides = any(line["gap"]["hides"] for line in lines if line["kind"] == "gap")
    assert (said.returncode, lines[-1]["exit_status"]) == ((5, 5) if hides else (0, 0))


def test_look_after_look_is_a_document_each_that_fits_the_published_schema(reprieve: Run) -> None:
    said = reprieve("top", "--batch", "--every", "0.2", "-n", "3", "--rows", "2")
    lines = [json.loads(line) for line in said.stdout.splitlines()]
    found = [line for line in lines if line["kind"] == "look"]
    assert len(found) == 3
    assert lines[-1] == {"kind": "end", "version": 1, "events": 3, "exit_status": said.returncode}
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text()))
    for line in found:
        validator.validate(line)
    times = [line["taken_uptime_s"] for line in found]
    assert times == sorted(times)


def test_the_published_schema_is_the_one_in_force() -> None:
    current = json.dumps(looks.schema(), indent=1, ensure_ascii=False) + "\n"
    if os.environ.get("REPRIEVE_UPDATE_GOLDENS"):
        SCHEMA.write_text(current)
    assert SCHEMA.read_text() == current


def test_who_grows_is_told_with_how_sure_that_is(child: Child) -> None:
    grown = None
    with watching("--batch", "--every", "1", "-n", "24") as (process, lines):
        for line in lines:
            child.do(f"take {8 * MIB}")
            for row in json.loads(line).get("processes", ()):
                if row["process"]["pid"] == child.pid and row["growth"]:
                    grown = row["growth"]
        assert process.wait() in (0, 5)
    assert grown is not None
    assert 0 < grown["least"] <= grown["bytes_per_minute"] <= grown["most"]


def _is_of(event: dict[str, Any], said: str) -> bool:
    """Is it of the kill that these records tell of?"""
    return any(f"Killed process {kill['pid']} " in said for kill in event["report"]["kills"])


def test_a_kill_is_explained_between_two_looks(real_kill: str) -> None:
    with watching("--batch", "--every", "0.5", "-n", "12") as (_, lines):
        told = [json.loads(lines.readline())]
        said = kill_a_leak().decode()
        told += map(json.loads, lines)
    # Other tests let the kernel kill too: this one's, once.
    (event,) = (line for line in told if line["kind"] == "event" and _is_of(line, said))
    assert event["findings"]


def test_lines_for_a_spreadsheet_have_one_head_and_as_many_cells(reprieve: Run) -> None:
    said = reprieve("top", "--batch", "--csv", "--every", "0.2", "-n", "2", "--rows", "3")
    head, *rows = csv.reader(said.stdout.splitlines())
    assert tuple(head) == looks.COLUMNS
    assert {len(row) for row in rows} == {len(head)}
    assert {"machine", "process"} <= {row[1] for row in rows}


def test_one_process_is_followed_until_it_ends(child: Child) -> None:
    child.do(f"take {20 * MIB}")
    with watching("--pid", str(child.pid), "--every", "0.2") as (process, lines):
        told = [json.loads(lines.readline())]
        child.end()
        told += map(json.loads, lines)
        assert process.wait() in (0, 5)
    seen = told[0]["process"]["process"]
    assert seen["pid"] == child.pid
    assert 20 * MIB <= seen["unique_bytes"] <= seen["pss_bytes"] < 60 * MIB
    assert None in [place["cgroup"] for place in told[0]["places"]]
    assert told[-1]["kind"] == "end"
    assert told[-1]["events"] == sum(line["kind"] == "sample" for line in told)


def test_it_ends_by_ctrl_c_with_its_last_line() -> None:
    with watching("--batch", "--every", "60") as (process, lines):
        json.loads(lines.readline())
        process.send_signal(signal.SIGINT)
        rest = lines.read().splitlines()
        assert process.wait() in (0, 5)
    assert json.loads(rest[-1])["kind"] == "end"


def test_a_reader_that_leaves_ends_it() -> None:
    with watching("--batch", "--every", "0.1") as (process, lines):
        lines.readline()
        lines.close()
        assert process.wait(30) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


@pytest.mark.parametrize(
    "options",
    [
        ("--once", "--batch"),
        ("--batch", "--pid", "1"),
        ("--csv",),
        ("--from", "x", "--batch"),
        ("--batch", "--every", "0"),
        ("--batch", "--every", "nan"),
    ],
)
def test_what_cannot_be_meant_is_refused(reprieve: Run, options: tuple[str, ...]) -> None:
    assert reprieve("top", *options).returncode == 2


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--once", "-n", "3"), "--once is one look: -n is for --batch"),
        (("--once", "--every", "5"), "--once is one look: --every is for --batch"),
        (("--from", "x", "-n", "3"), "--from is one look: -n is for --batch"),
    ],
)
def test_what_is_for_look_after_look_is_refused_for_one(reprieve: Run, options: tuple[str, ...], says: str) -> None:
    said = reprieve("top", *options)
    assert (said.returncode, said.stdout) == (2, "")
    assert says in said.stderr
    assert reprieve("top", "--once", "-n", "1").returncode in (0, 5)


@pytest.mark.parametrize("way", [(), ("--pid", "1", "-n", "1"), ("-n", "3")])
def test_rows_are_asked_for_only_where_they_are_told(reprieve: Run, way: tuple[str, ...]) -> None:
    said = reprieve("top", *way, "--rows", "3")
    assert (said.returncode, said.stdout) == (2, "")
    assert "--rows is for --once, --batch or --from" in said.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "the live view needs a terminal"),
        (("--pid", "4194304"), "there is no process 4194304"),
        (("--from", "absent"), "absent: No such file"),
    ],
)
def test_what_cannot_be_done_is_told_in_two_lines(reprieve: Run, options: tuple[str, ...], said: str) -> None:
    ended = reprieve("top", *options)
    assert ended.returncode == 1
    assert said in ended.stderr
    assert len(ended.stderr.splitlines()) == 2


def test_without_textual_one_line_says_how_to_get_it(tmp_path: Path) -> None:
    (tmp_path / "textual.py").write_text("raise ModuleNotFoundError('no', name='textual')\n")
    said = " ".join(on_a_terminal("top", PYTHONPATH=str(tmp_path)).split())
    assert "the live view needs Textual, and textual is not installed" in said
    assert f"-m pip install '{extra('top')}'" in said


def test_nothing_of_it_is_loaded_by_another_verb() -> None:
    code = "import sys\nfrom reprieve import cli, why, next\n"
    code += "print(*(name for name in sys.modules if name.endswith(('top', 'tui', 'trend', 'survey', 'sampler'))))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_who_may_not_hear_the_kernel_is_told_that_it_killed(real_kill: str) -> None:
    argv = [*as_another(65534), sys.executable, "-m", "reprieve", "top", "--batch", "--csv", "--every", "1", "-n", "8"]
    with subprocess.Popen([*argv, "--rows", "1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        begun = [running.stdout.readline(), running.stdout.readline()]  # the heads of columns, and the first look
        kill_a_leak()
        rest, warned = running.communicate()
    if FOR_ROOT not in warned:
        missing("a kernel log that is root's alone")
    rows = [row for row in csv.DictReader([*begun, *rest.splitlines()]) if row["kind"] == "kill"]
    assert rows
    assert {row["pid"] for row in rows} == {""}


def test_the_kernel_s_count_of_its_kills_is_in_each_look(reprieve: Run, real_kill: str) -> None:
    told = map(json.loads, reprieve("top", "--batch", "--every", "0.2", "-n", "3").stdout.splitlines())
    counts = [line["kills_since_boot"] for line in told if line["kind"] == "look"]
    assert len(counts) == 3
    assert min(counts) >= 1

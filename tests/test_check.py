"""`reprieve check` as users run it, on captured machines and on this one."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from reprieve.codec import pack, schema
from reprieve.machine.accepted import read_last
from reprieve.machine.demo import small_cgroup
from reprieve.machine.host import identify
from reprieve.model.cgroup import Cgroup
from reprieve.model.finding import Failure, Gap
from reprieve.model.snapshot import Snapshot
from reprieve.rules.living import check
from reprieve.show.checked import Fix, render
from tests.conftest import Run
from tests.machine.real import missing
from tests.oom.test_living import HOSTS
from tests.rules.living.made import MIB, crowded

HEALTHY = sorted(folder for folder in HOSTS.iterdir() if (folder / "proc").is_dir())


@pytest.fixture
def sick(tmp_path: Path) -> Path:
    """A snapshot of a machine with several things wrong."""
    path = tmp_path / "sick.gz"
    path.write_bytes(pack(Snapshot(machine=crowded())))
    return path


@pytest.mark.parametrize("host", HEALTHY, ids=lambda host: host.name)
def test_nothing_is_found_on_a_healthy_machine(reprieve: Run, host: Path) -> None:
    said = reprieve("check", "--from", host)
    nothing = "nothing that leads to a kill" + (", in what could be seen" if "Not seen" in said.stdout else "")
    assert said.stdout.splitlines()[1] == f"Found     {nothing}"
    summary = reprieve("check", "--from", host, "--summary").stdout
    unseen = said.stdout.count("Not seen")
    places = "1 place" if unseen == 1 else f"{unseen} places"
    assert summary.endswith(f"nothing found that leads to a kill; {places} not seen\n") if unseen else summary == ""


def test_each_finding_says_what_is_so_and_what_to_do(reprieve: Run, sick: Path) -> None:
    lines = reprieve("check", "--from", sick).stdout.splitlines()
    assert lines[:4] == [
        "Machine   lab: 212 MiB of RAM, 151 MiB of it to be had, 64 MiB of swap",
        "Found     1 critical, 1 warning, 2 notices",
        "",
        "critical  /app/web stands still at its memory.high of 32 MiB, with nothing to",
    ]
    assert "            $ sysctl -w vm.panic_on_oom=0" in lines


def test_the_summary_says_that_something_was_not_seen(reprieve: Run, tmp_path: Path) -> None:
    gaps = (
        *(Gap(place=f"/proc/{pid}/status", reason="refused") for pid in (7, 8)),
        Gap(place="x", reason="", hides=False),
    )
    path = tmp_path / "partly.gz"
    path.write_bytes(pack(Snapshot(machine=crowded(), machine_gaps=gaps)))
    said = reprieve("check", "--from", path, "--summary")
    assert said.stdout.startswith("lab: 1 critical")
    assert said.stdout.endswith("; 2 places not seen\n")
    assert said.returncode == 5


def test_the_summary_is_one_line_with_codes_and_subjects(reprieve: Run, sick: Path) -> None:
    said = reprieve("check", "--from", sick, "--summary").stdout
    assert said == (
        "lab: 1 critical, 1 warning, 2 notices: held-at-high (/app/web), group-near-limit (/app/batch), "
        "swap-forbidden (/app/batch), panic-set (vm.panic_on_oom)\n"
    )


def test_the_same_is_found_in_a_snapshot_as_on_the_machine_it_was_taken_of(reprieve: Run, tmp_path: Path) -> None:
    for host in HEALTHY:
        reprieve("snapshot", "--from", host, "-o", tmp_path / "taken.gz")
        for options in (("-v",), ("--json",), ("--warn-share", "5%", "-v")):
            told = reprieve("check", "--from", tmp_path / "taken.gz", *options).stdout
            seen = reprieve("check", "--from", host, *options).stdout
            assert _findings(told) == _findings(seen)


def _findings(said: str) -> list[str]:
    """All but what could not be seen: a snapshot tells of logs too."""
    return [line for line in said.partition("Not seen")[0].splitlines() if '"kind":"gap"' not in line][:-1]


def test_a_finding_of_a_severity_sets_the_status(reprieve: Run, sick: Path) -> None:
    assert reprieve("check", "--from", sick).returncode == 0
    assert reprieve("check", "--from", sick, "--fail-on", "critical").returncode == 3
    notices = ("--only", "panic-set")
    assert reprieve("check", "--from", sick, "--fail-on", "warning", *notices).returncode == 0
    assert reprieve("check", "--from", sick, "--fail-on", "notice", *notices).returncode == 3


def test_codes_are_chosen_and_left_out(reprieve: Run, sick: Path) -> None:
    only = reprieve("check", "--from", sick, "--only", "panic-set", "--only", "held-at-high", "--summary").stdout
    assert only == "lab: 1 critical, 1 notice: held-at-high (/app/web), panic-set (vm.panic_on_oom)\n"
    less = reprieve("check", "--from", sick, "--skip", "held-at-high", "--summary").stdout
    assert "held-at-high" not in less
    assert "group-near-limit" in less
    unknown = reprieve("check", "--from", sick, "--only", "panic")
    assert unknown.returncode == 2
    assert "panic-set" in unknown.stderr


def test_a_share_is_where_a_group_begins_to_be_told_of(reprieve: Run, sick: Path) -> None:
    told = {
        share: reprieve("check", "--from", sick, "--warn-share", share, "--summary").stdout for share in ("90%", "96")
    }
    assert "group-near-limit" in told["90%"]
    assert "group-near-limit" not in told["96"]
    for share in ("0", "101%", "lots", "-1", "00011000"):
        assert reprieve("check", f"--warn-share={share}").returncode == 2


def test_json_fits_the_schema_and_ends_with_its_end(reprieve: Run, sick: Path) -> None:
    said = reprieve("check", "--from", sick, "--json", "--fail-on", "warning")
    lines = [json.loads(line) for line in said.stdout.splitlines()]
    validator = jsonschema.Draft202012Validator(schema())
    for line in lines:
        validator.validate(line)
    assert [line["finding"]["code"] for line in lines[:-1]] == [
        *("held-at-high", "group-near-limit", "swap-forbidden", "panic-set")
    ]
    assert lines[-1] == {"kind": "end", "version": 1, "events": 4, "exit_status": 3}


def test_markdown_and_a_page_hold_each_finding(reprieve: Run, sick: Path, tmp_path: Path) -> None:
    ticket = reprieve("check", "--from", sick, "--markdown").stdout
    assert ticket.startswith("## What leads to the next kill: `lab`\n")
    assert "### critical: held-at-high\n" in ticket
    assert "sysctl -w vm.panic_on_oom=0" in ticket
    reprieve("check", "--from", sick, "--html", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "<title>What leads to the next kill: lab</title>" in page
    assert "sysctl -w vm.panic_on_oom=0" in page


# -- accepted findings -------------------------------------------------------------------------------------------------

ACCEPTED = """
[[accept]]
code = "panic-set"
reason = "the cluster fails over"
until = 2999-12-31

[[accept]]
code = "group-near-limit"
about = "/app/batch"
reason = "it is sized so"
until = 2999-12-31
"""


def test_what_is_accepted_is_left_out_and_said(reprieve: Run, sick: Path, tmp_path: Path) -> None:
    file = tmp_path / "accepted.toml"
    file.write_text(ACCEPTED)
    said = reprieve("check", "--from", sick, "--accepted", file)
    assert "Found     1 critical, 1 notice" in said.stdout
    assert "Note      accepted: panic-set (the cluster fails over)" in said.stdout
    assert (
        reprieve("check", "--from", sick, "--accepted", file, "--only", "panic-set", "--fail-on", "info").returncode
        == 0
    )


def test_what_is_accepted_of_another_or_until_a_day_past_is_told(reprieve: Run, sick: Path, tmp_path: Path) -> None:
    file = tmp_path / "accepted.toml"
    file.write_text(ACCEPTED.replace("2999-12-31", "2020-01-31").replace("/app/batch", "/app/other"))
    said = reprieve("check", "--from", sick, "--accepted", file).stdout
    assert "Found     1 critical, 1 warning, 2 notices" in said
    assert "was accepted until 2020-01-31: panic-set" in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[[accept]]\ncode = "panic-set"\nuntil = 2999-12-31', "entry 1: it needs a code and a reason"),
        ('[[accept]]\ncode = "panic-set"\nreason = "x"', "entry 1: it needs a date"),
        ('[[accept]]\ncode = "panic-set"\nreason = "x"\nuntil = "soon"', "entry 1: it needs a date"),
        ('[[accept]]\ncode = "panic-set"\nreason = "x"\nuntil = 2999-12-31\nwho = "me"', "there is no who"),
        ("accept = 3", "`accept` is no list of tables"),
        ("[[accept", "accepted.toml: "),
        ("\0", "accepted.toml: "),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(
    reprieve: Run, sick: Path, tmp_path: Path, text: str, said: str
) -> None:
    file = tmp_path / "accepted.toml"
    file.write_text(text)
    ended = reprieve("check", "--from", sick, "--accepted", file)
    assert ended.returncode == 1
    assert said in ended.stderr
    assert len(ended.stderr.splitlines()) == 2
    assert reprieve("check", "--from", sick, "--accepted", tmp_path / "none.toml").returncode == 1


# -- since the last look -----------------------------------------------------------------------------------------------


_HOLDS = "kept = b'x' * (int(input()) << 20); print('has', flush=True); input()"


@contextmanager
def holding(name: str, mib: int) -> Iterator[str]:
    """The path of a cgroup of this machine with a limit of 32 MiB, in which a process holds that much."""
    with ExitStack() as made:
        try:
            group = made.enter_context(small_cgroup(f"{name}-{os.getpid()}", 32 * MIB))
        except Failure as failure:
            missing(failure.message)
        argv = ["sh", "-c", f'echo $$ > {group.folder}/cgroup.procs; exec "$0" -S -c "$1"', sys.executable, _HOLDS]
        child = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            assert child.stdin is not None
            assert child.stdout is not None
            child.stdin.write(f"{mib}\n".encode())
            child.stdin.flush()
            child.stdout.readline()
            yield group.path
        finally:
            child.communicate(b"\n")


@pytest.fixture
def full() -> Iterator[str]:
    """The path of a cgroup of this machine that is near its limit."""
    with holding("reprieve-check", 28) as path:
        yield path


def test_a_second_look_tells_what_is_new_and_what_is_gone(reprieve: Run, tmp_path: Path, full: str) -> None:
    kept = tmp_path / "state" / "check.json"

    def look() -> str:
        options = ("--since-last", "--only", "group-near-limit", "-v")
        return " ".join(reprieve("check", *options, STATE_DIRECTORY=str(kept.parent)).stdout.split())

    claim = f"warning {full} holds "
    assert claim in look()
    found = json.loads(kept.read_text())["found"]
    assert ["group-near-limit", full] in found
    last = read_last(str(kept))
    assert last is not None
    assert last.earlier is not None
    assert last.earlier.boot_id == identify().boot_id
    assert last.earlier.slab_bytes
    kept.write_text(json.dumps({"version": 1, "found": [*found, ["group-near-limit", "/gone"]]}))
    again = look()
    assert claim not in again
    assert "gone since the last look: group-near-limit /gone" in again
    kept.write_text('{"version": 1, "found": []}')
    assert claim in look()


def test_what_fix_would_plan_of_it_is_said_and_is_what_it_plans(reprieve: Run, full: str) -> None:
    which = r"(it|all \d+|\d+ of these \d+)"
    said = rf"Fix +(reprieve fix(?: --only group-near-limit)?) plans {which}, and asks before it changes anything"
    last = reprieve("check", "--only", "group-near-limit", COLUMNS="200").stdout.splitlines()[-1]
    told = re.fullmatch(said, last)
    assert told is not None, last
    assert f"{full} memory." in reprieve(*told[1].split()[1:], "--dry-run", COLUMNS="200").stdout
    narrow = reprieve("check", "--only", "group-near-limit", COLUMNS="60").stdout.splitlines()[-2:]
    assert re.fullmatch(said, " ".join(line.strip() for line in narrow)), narrow
    assert "plans" not in reprieve("check", "--json").stdout


def test_no_command_is_named_that_would_change_what_is_not_told(reprieve: Run, tmp_path: Path, full: str) -> None:
    def last_of(*arguments: str | Path, **env: str) -> str:
        return reprieve("check", *arguments, "--only", "group-near-limit", COLUMNS="200", **env).stdout.splitlines()[-1]

    accepted = tmp_path / "accepted.toml"
    with holding("reprieve-check-too", 28) as beside:
        assert last_of().startswith("Fix ")
        assert not last_of(full).startswith("Fix ")
        accepted.write_text(
            f'[[accept]]\ncode = "group-near-limit"\nabout = "{beside}"\nreason = "known"\nuntil = 2999-12-31\n'
        )
        assert not last_of("--accepted", accepted).startswith("Fix ")
        (tmp_path / "check.json").write_text(
            json.dumps({"version": 1, "found": [["group-near-limit", beside]]}),
        )
        assert not last_of("--since-last", STATE_DIRECTORY=str(tmp_path)).startswith("Fix ")


def test_what_another_share_finds_is_not_said_to_be_planned_by_fix(reprieve: Run) -> None:
    with holding("reprieve-check-half", 16) as half:
        arguments = (half, "--only", "group-near-limit", "--warn-share", "40%")
        told = reprieve("check", *arguments, COLUMNS="200").stdout
    assert f"warning   {half} holds " in told
    assert "Fix " not in told


def test_what_fix_cannot_do_is_not_said_to_be_done_by_it(reprieve: Run, sick: Path) -> None:
    said = reprieve("check", "--from", sick).stdout  # of another machine: nothing is changed there
    assert "Fix " not in said
    fix = Fix(plans=2, only=("a", "b"))
    crowd = check(Snapshot(machine=crowded()))
    *_, last = render(crowded(), crowd, fix=fix, width=120)
    assert last.startswith(f"Fix       reprieve fix --only a --only b plans 2 of these {len(crowd)}, and asks before")
    *_, last = render(crowded(), crowd[:2], fix=Fix(plans=2), width=120)
    assert last == "Fix       reprieve fix plans all 2, and asks before it changes anything"


def test_by_name_what_concerns_it_is_told_and_the_rest_counted(reprieve: Run, full: str) -> None:
    def look(name: str) -> str:
        return " ".join(reprieve("check", name, "--only", "group-near-limit", COLUMNS="200").stdout.split())

    claim = f"warning {full} holds "
    for name in (full, full.rpartition("/")[2]):
        assert claim in look(name)
    if len(full.split("/")) > 2:
        assert claim in look(full.rpartition("/")[0])  # what is in it concerns it
    with small_cgroup(f"reprieve-check-beside-{os.getpid()}", 32 * MIB) as beside:
        said = look(beside.path)
    assert claim not in said
    assert re.search(rf"Asked {beside.path} holds [0-9.]+ [KM]?i?B, limit 32 MiB", said)
    assert re.search(r"[0-9]+ findings? (is|are) about the rest of the machine: reprieve check", said)


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("docker:nope",), 1, "no running container nope of docker is seen here"),
        (("unit:nope",), 1, "no unit nope is seen here that anybody is in"),
        (("pid:99999999",), 1, "there is no process 99999999 here"),
        (("pid:x",), 1, "'x' is no pid"),
        (("nope",), 1, "there is no cgroup nope"),
        (("unit:nope", "--since-last"), 2, "exclude each other"),
    ],
)
def test_a_name_that_cannot_be_meant_is_told(arguments: tuple[str, ...], status: int, said: str, reprieve: Run) -> None:
    ended = reprieve("check", *arguments)
    assert ended.returncode == status
    assert said in ended.stderr


@pytest.mark.parametrize(
    "damaged", ["{[", "[]", '{"found": 3}', '{"found": [[1]]}', '{"found": [], "machine": {}}', "\0"]
)
def test_a_damaged_last_look_is_as_none(reprieve: Run, tmp_path: Path, damaged: str) -> None:
    (tmp_path / "check.json").write_text(damaged)
    said = reprieve("check", "--since-last", STATE_DIRECTORY=str(tmp_path))
    assert said.returncode in (0, 5)
    assert said.stderr == ""
    assert json.loads((tmp_path / "check.json").read_text())["version"] == 1


# -- names of strangers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["-v", "--summary", "--markdown", "--json"])
def test_a_hostile_name_moves_nobody(reprieve: Run, tmp_path: Path, option: str) -> None:
    name = "/app/\x1b[2J\u202e\n<b>[x](http://y)|`"
    machine = crowded()
    groups = tuple(
        Cgroup(path=name, version=2, current_bytes=31 * MIB, max_bytes=32 * MIB, stat=group.stat)
        if group.path == "/app/batch"
        else group
        for group in machine.cgroups
    )
    snapshot = Snapshot(machine=replace(machine, hostname="h\x1b[1m\n", cgroups=groups))
    assert "group-near-limit" in {finding.code for finding in check(snapshot)}
    (tmp_path / "hostile.gz").write_bytes(pack(snapshot))
    said = reprieve("check", "--from", tmp_path / "hostile.gz", option).stdout
    assert "\x1b" not in said
    assert "\u202e" not in said
    assert "\n<b>" not in said
    if option == "--summary":
        assert len(said.splitlines()) == 1


def test_what_is_no_snapshot_is_refused(reprieve: Run, tmp_path: Path) -> None:
    (tmp_path / "no.gz").write_text("x")
    ended = reprieve("check", "--from", tmp_path / "no.gz")
    assert ended.returncode == 1
    assert len(ended.stderr.splitlines()) == 2
    assert reprieve("check", "--from", tmp_path / "no.gz", "--since-last").returncode == 2
    assert reprieve("check", "--json", "--summary").returncode == 2


def test_this_machine_is_looked_at_without_rights_too(reprieve: Run, as_nobody: Run) -> None:
    for run in (reprieve, as_nobody):
        said = run("check")
        assert said.stdout.startswith("Machine   ")
        assert said.stderr == ""
        assert said.returncode in (0, 5)


@pytest.mark.parametrize("verb", [("check",), ("top", "--once"), ("next",)])
def test_a_folder_of_no_machine_is_refused_with_what_to_give(
    verb: tuple[str, ...], reprieve: Run, tmp_path: Path
) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    said = reprieve(*verb, "--from", tmp_path)
    assert (said.returncode, said.stdout) == (1, "")
    assert f"{tmp_path} is no captured machine" in said.stderr
    assert "what reprieve snapshot -o FILE wrote, a sosreport, or the root" in said.stderr

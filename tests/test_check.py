"""`reprieve check` as users run it, on captured machines and on this one."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from reprieve.codec import pack, schema
from reprieve.machine.accepted import read_last
from reprieve.machine.demo import small_cgroup
from reprieve.machine.host import identify
from reprieve.machine.places import CapturedPlaces
from reprieve.model.cgroup import Cgroup
from reprieve.model.finding import Failure, Finding, Gap, Place
from reprieve.model.machine import Machine
from reprieve.model.snapshot import Snapshot
from reprieve.rules.living import check
from reprieve.show.checked import Fix, render, summary
from tests.conftest import Run
from tests.machine.real import missing
from tests.oom.test_living import HOSTS
from tests.rules.living.made import MIB, crowded

PUBLISHED = Path(__file__).parents[1] / "docs" / "schema" / "why-1.json"
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


def test_the_summary_says_whose_each_finding_is() -> None:
    def found(*subjects: str, code: str = "process-holds") -> list[Finding]:
        return [Finding(code=code, severity="warning", confidence="certain", claim="", subject=one) for one in subjects]

    machine = Machine(hostname="lab")
    several = [*found("swap", code="swap-absent"), *found("java", "mysqld", "java")]
    assert summary(machine, several) == "lab: 4 warnings: swap-absent, process-holds (java ×2, mysqld)"
    assert summary(machine, found("a), swap (b")) == "lab: 1 warning: process-holds (“a), swap (b”)"
    assert summary(machine, found(*"abcdefg")).endswith("process-holds (a, b, c, d, e, 2 more)")


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


def test_what_is_accepted_is_said_in_each_format(reprieve: Run, sick: Path, tmp_path: Path) -> None:
    file = tmp_path / "accepted.toml"
    file.write_text(ACCEPTED)
    asked = ("check", "--from", sick, "--accepted", file)
    assert reprieve(*asked, "--summary").stdout == (
        "lab: 1 critical, 1 notice: held-at-high (/app/web), swap-forbidden (/app/batch); "
        "2 accepted: group-near-limit (/app/batch), panic-set (vm.panic_on_oom)\n"
    )
    assert "- `accepted`: panic-set (the cluster fails over)\n" in reprieve(*asked, "--markdown").stdout
    lines = [json.loads(line) for line in reprieve(*asked, "--json").stdout.splitlines()]
    validator = jsonschema.Draft202012Validator(json.loads(PUBLISHED.read_text()))
    for line in lines:
        validator.validate(line)
    gaps = [line["gap"] for line in lines if line["kind"] == "gap"]
    assert [(gap["reason"], gap["hides"]) for gap in gaps if gap["place"] == "accepted"] == [
        ("group-near-limit (it is sized so)", False),
        ("panic-set (the cluster fails over)", False),
    ]
    reprieve(*asked, "--html", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert page.count('<bdi class="name">accepted</bdi>') == 2


def test_where_all_is_accepted_it_is_not_said_that_nothing_was_found(reprieve: Run, sick: Path, tmp_path: Path) -> None:
    file = tmp_path / "accepted.toml"
    file.write_text(ACCEPTED)
    asked = ("check", "--from", sick, "--accepted", file, "--only", "panic-set")
    assert reprieve(*asked).stdout.splitlines()[1] == "Found     nothing but what is accepted"
    assert reprieve(*asked, "--summary").stdout == ""  # cron would write a mail of it each time
    assert "\nNothing was found but what is accepted.\n" in reprieve(*asked, "--markdown").stdout
    assert "<p>Nothing was found but what is accepted.</p>" in reprieve(*asked, "--html", "-").stdout


def test_a_page_says_that_nothing_was_found(reprieve: Run) -> None:
    assert "<p>Nothing was found.</p>" in reprieve("check", "--from", HEALTHY[0], "--html", "-").stdout


@pytest.mark.parametrize("zone", ["UTC", "XST-9", "XST9"])
def test_an_end_on_the_last_day_of_the_calendar_is_for_ever(
    reprieve: Run, sick: Path, tmp_path: Path, zone: str
) -> None:
    file = tmp_path / "accepted.toml"
    file.write_text(ACCEPTED.replace("2999-12-31", "9999-12-31"))
    assert "accepted: panic-set" in reprieve("check", "--from", sick, "--accepted", file, TZ=zone).stdout


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
        ('[[accepted]]\ncode = "panic-set"\nreason = "x"\nuntil = 2999-12-31', "there is no `accepted`"),
        ('[[accept]]\ncode = "panic-set"\nreason = "x"\nuntil = 0001-01-01', "it cannot hold until 0001-01-01"),
        (
            '[[accept]]\ncode = "process-hold"\nreason = "x"\nuntil = 2999-12-31',
            "no finding has the code 'process-hold'",
        ),
        (f"accept = {'1' * 5000}", "accepted.toml: "),
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


def test_a_code_that_is_misspelt_is_told_with_those_it_may_be(reprieve: Run, sick: Path, tmp_path: Path) -> None:
    file = tmp_path / "accepted.toml"
    file.write_text(ACCEPTED.replace("panic-set", "process-hold"))
    told = reprieve("check", "--from", sick, "--accepted", file).stderr.splitlines()
    assert told[0].endswith("accepted.toml, entry 1: no finding has the code 'process-hold'")
    assert "process-holds" in told[1]


# -- the plan for it elsewhere -----------------------------------------------------------------------------------------


def test_what_a_captured_machine_asks_for_is_printed_and_nothing_of_this_one_is_read(reprieve: Run, sick: Path) -> None:
    for origin, given in ((sick, None), ("-", sick)):
        argv = [sys.executable, "-m", "reprieve", "fix", "--as", "sh", "--from", str(origin)]
        with open(given or os.devnull, "rb") as stdin:
            done = subprocess.run(argv, stdin=stdin, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        assert "sysctl -w vm.panic_on_oom=0\n" in done.stdout
        assert "/sys/fs/cgroup/app/batch/memory.max 67108864\n" in done.stdout  # no group of this machine
        subprocess.run(["sh", "-n"], input=done.stdout, text=True, check=True)
    assert reprieve("fix", "--as", "sh", "--dry-run", "--from", sick).returncode == 3
    assert reprieve("fix", "--as", "sh", "--only", "swap-forbidden", "--from", sick).stdout.count("echo") == 1


def test_what_is_printed_for_a_captured_machine_is_spelled_as_its_file_has_it() -> None:
    places = CapturedPlaces(Machine())
    wanted = {"fstab": "/swapfile none swap sw 0 0", "swap": "on"}
    for kind, spelled in wanted.items():
        assert places.canonical(Place(kind=kind, of="/swapfile"), "") == spelled
    assert places.canonical(Place(kind="sysctl", key="vm.swappiness"), " 010") == "10"
    assert places.canonical(Place(kind="cgroup", of="/app", key="memory.max"), "67108864") == "67108864"


@pytest.mark.parametrize("options", [(), ("--dry-run",), ("--yes",), ("swappiness", "10")])
def test_what_is_of_another_machine_is_not_changed_from_here(
    reprieve: Run, sick: Path, options: tuple[str, ...]
) -> None:
    done = reprieve("fix", "--from", sick, *options)
    assert done.returncode == 2
    assert "--from is of" in done.stderr


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
    assert ["group-near-limit", full, "warning"] in [one[:3] for one in found]
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


def test_what_got_worse_is_new(reprieve: Run, tmp_path: Path, full: str) -> None:
    kept = tmp_path / "check.json"

    def look(*entries: list[str]) -> str:
        kept.write_text(json.dumps({"version": 1, "found": entries}))
        options = ("--since-last", "--only", "group-near-limit")
        return reprieve("check", *options, STATE_DIRECTORY=str(tmp_path), COLUMNS="200").stdout

    claim = f"warning   {full} holds "
    assert claim not in look(["group-near-limit", full, "warning"])
    assert claim in look(["group-near-limit", full, "notice"])
    assert claim not in look(["group-near-limit", full])  # as it was written before
    assert ["group-near-limit", full, "warning", full] in json.loads(kept.read_text())["found"]


def test_where_nothing_is_new_what_stands_is_told(reprieve: Run, tmp_path: Path, full: str) -> None:
    def look(*options: str) -> str:
        asked = ("check", "--since-last", "--only", "group-near-limit", *options)
        return reprieve(*asked, STATE_DIRECTORY=str(tmp_path), COLUMNS="200").stdout

    look()
    found = json.loads((tmp_path / "check.json").read_text())["found"]
    stands = "1 known from the last look stands" if len(found) == 1 else f"{len(found)} known from the last look stand"
    text = look()
    assert re.search(rf"^Found     nothing new(, in what could be seen)?; {stands}$", text, re.MULTILINE)
    assert f"known from the last look: {len(found)}, not shown again: group-near-limit ({full}" in " ".join(
        text.split()
    )
    assert look("--summary") == ""
    assert f"\nNothing new was found: {stands}.\n" in look("--markdown")
    assert f"<p>Nothing new was found: {stands}.</p>" in look("--html", "-")
    gaps = [line["gap"] for line in map(json.loads, look("--json").splitlines()) if line["kind"] == "gap"]
    (known,) = [gap for gap in gaps if gap["place"] == "known from the last look"]
    assert known["reason"].startswith(f"{len(found)}, not shown again: group-near-limit ({full}")
    assert not known["hides"]


def test_what_was_not_looked_for_is_neither_gone_nor_forgotten(reprieve: Run, tmp_path: Path) -> None:
    kept = tmp_path / "check.json"
    before = [["group-near-limit", "/gone", "warning", "/gone"], ["panic-set", "elsewhere", "notice", "x"]]

    def look(*options: str) -> tuple[str, list[list[str]]]:
        kept.write_text(_of_this_boot(before, slab_bytes=1 << 60))
        said = reprieve("check", "--since-last", *options, STATE_DIRECTORY=str(tmp_path), COLUMNS="200").stdout
        return said, json.loads(kept.read_text())["found"]

    def grown_from() -> int:
        return int(json.loads(kept.read_text())["machine"]["slab_bytes"])

    for options in (("--only", "panic-set"), ("--skip", "group-near-limit")):
        said, found = look(*options)
        assert "gone since the last look: panic-set elsewhere" in said
        assert "/gone" not in said
        assert before[0] in found
        assert before[1] not in found
        assert (grown_from() == 1 << 60) == (options[0] == "--only")
    said, found = look()
    assert "gone since the last look: group-near-limit /gone" in said
    assert before[0] not in found


def test_what_is_accepted_now_is_not_gone_and_is_told_when_that_ends(reprieve: Run, tmp_path: Path, full: str) -> None:
    accepted = tmp_path / "accepted.toml"
    entry = f'[[accept]]\ncode = "group-near-limit"\nabout = "{full}"\nreason = "known"\nuntil = '

    def look(until: str) -> str:
        accepted.write_text(entry + until)
        options = ("--since-last", "--only", "group-near-limit", "--accepted", accepted)
        return reprieve("check", *options, STATE_DIRECTORY=str(tmp_path), COLUMNS="200").stdout

    claim = f"warning   {full} holds "
    assert claim in look("2020-01-31")
    hidden = look("2999-12-31")
    assert claim not in hidden
    assert f"gone since the last look: group-near-limit {full}" not in hidden
    assert claim in look("2020-01-31")


def test_what_could_not_be_told_is_not_known(reprieve: Run, tmp_path: Path) -> None:
    kept = tmp_path / "state" / "check.json"
    failed = reprieve(
        "check", "--since-last", "--html", tmp_path / "no" / "page.html", STATE_DIRECTORY=str(kept.parent)
    )
    assert failed.returncode == 1
    assert not kept.exists()
    with open("/dev/full", "w") as full:
        argv = [sys.executable, "-m", "reprieve", "check", "--since-last"]
        env = os.environ | {"STATE_DIRECTORY": str(kept.parent)}
        assert subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, env=env).returncode == 1
    assert not kept.exists()
    reprieve("check", "--since-last", STATE_DIRECTORY=str(kept.parent))
    assert kept.exists()


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
        (("nope",), 1, "cgroup nope"),
        (("unit:nope", "--since-last"), 2, "exclude each other"),
    ],
)
def test_a_name_that_cannot_be_meant_is_told(arguments: tuple[str, ...], status: int, said: str, reprieve: Run) -> None:
    ended = reprieve("check", *arguments)
    assert ended.returncode == status
    assert said in ended.stderr


def _of_this_boot(found: Sequence[object] = (), **figures: object) -> str:
    machine: dict[str, object] = {"taken_wall_s": 1.0, "boot_id": identify().boot_id, "slab_bytes": 1, "exempt": []}
    return json.dumps({"version": 1, "found": found, "machine": machine | figures}).replace('"1e400"', "1e400")


@pytest.mark.parametrize(
    "damaged",
    [
        *("{[", "[]", '{"found": 3}', '{"found": [[1]]}', '{"found": [], "machine": {}}', "\0", "[" * 100_000),
        '{"found": [["gone", "\\ud800"]]}',
        '{"found": [["gone", "x", 3]]}',
        '{"found": [["gone", "x", "info", "/proc/7", "more"]]}',
        *(_of_this_boot(**{name: "1e400"}) for name in ("taken_wall_s", "slab_bytes")),
        *(_of_this_boot(exempt=[[1, "1e400", 1]]), _of_this_boot(exempt=[[1, 1, 10**400]]), _of_this_boot(exempt=[1])),
        *(_of_this_boot(slab_bytes=figure) for figure in (10**400, -1, float("nan"), "1")),
    ],
    ids=range(19),
)
def test_a_damaged_last_look_is_as_none(reprieve: Run, tmp_path: Path, damaged: str) -> None:
    (tmp_path / "check.json").write_text(damaged)
    said = reprieve("check", "--since-last", "--json", STATE_DIRECTORY=str(tmp_path))
    assert said.returncode in (0, 5)
    assert said.stderr == ""
    assert "the last look" not in said.stdout
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

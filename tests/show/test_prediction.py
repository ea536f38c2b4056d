"""How it is told whom the kernel would kill next."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
from hypothesis import example, given

from reprieve.model.cgroup import Cgroup
from reprieve.model.finding import Gap
from reprieve.model.killer import Killer
from reprieve.model.machine import Machine, SwapArea
from reprieve.model.process import Process
from reprieve.model.unit import Unit
from reprieve.oom.groups import Room
from reprieve.oom.living import one_cgroup, predict, sequence, whole_machine
from reprieve.oom.reclaim import LRU_GEN
from reprieve.rules.whatif import Cut, Over
from reprieve.show import escape, jsonl
from reprieve.show.prediction import foretell
from tests.show.test_escape import NASTY

PUBLISHED = Path(__file__).parents[2] / "docs" / "schema" / "why-1.json"
MIB = 1 << 20


def machine(name: str = "java", **facts: object) -> Machine:
    processes = (
        Process(pid=7, start_ticks=1, comm=name, cgroup=f"/a/{name}", rss_bytes=90 * MIB, oom_score_adj=0),
        Process(pid=8, start_ticks=2, comm=name, cgroup=f"/a/{name}", rss_bytes=10 * MIB, oom_score_adj=200),
        Process(pid=9, start_ticks=3, comm=name, cgroup="/", rss_bytes=600 * MIB, oom_score_adj=-1000),
    )
    group = Cgroup(path=f"/a/{name}", version=2, max_bytes=100 * MIB, oom_group=True, pids=(7, 8))
    known = Machine(page_bytes=4096, meminfo=(("MemTotal", 1000 * MIB),), cgroups=(group,), processes=processes)
    return replace(known, **facts)  # type: ignore[arg-type]


def told(known: Machine, cgroup: str | None = None, **options: object) -> list[str]:
    domain = whole_machine(known) if cgroup is None else one_cgroup(known, cgroup)
    assert domain is not None
    return list(foretell(known, [predict(known, domain)], **options))  # type: ignore[arg-type]


def test_the_first_line_says_who_and_the_others_why_he() -> None:
    said = told(machine())
    assert said[0] == "Next      java (pid 8) and 1 more of its group of /a/java"
    words = " ".join(" ".join(said).split())
    assert "its oom_score_adj of 200 adds 200 MiB" in words
    assert "java (pid 7): memory.oom.group of /a/java is set" in words
    assert "Not java (pid 9), which holds 600 MiB: its oom_score_adj is -1000" in words


def test_that_nobody_is_left_is_said_only_where_it_is_so() -> None:
    known = machine(cgroups=())
    domain = whole_machine(known)
    assert domain is not None
    steps = list(sequence(known, domain, 1000 * MIB))
    every, first = (" ".join(foretell(known, some, need_bytes=1000 * MIB)) for some in (steps, steps[:1]))
    assert "even killing all who can be killed (2 kills) frees" in " ".join(every.split())
    assert "all who can be killed" not in first
    assert "further ones are not told" in " ".join(first.split())


def test_what_systemd_does_then_is_told_and_that_a_group_dies_by_its_wish() -> None:
    alone = (replace(machine().cgroups[0], oom_group=False),)
    stop = Unit(name="java.service", cgroup="/a/java", oom_policy="stop")
    known = machine(units=(stop,), cgroups=alone, cgroup_version="2")
    said = " ".join(" ".join(told(known)).split())
    assert "Then systemd stops the rest of java.service (its OOMPolicy is stop): java (pid 7)" in said
    domain = whole_machine(known)
    assert domain is not None
    (line,) = jsonl.foretold([predict(known, domain)], [])
    assert (json.loads(line)["killed"], json.loads(line)["stopped"]) == ([8], [7])
    assert json.loads(line)["stopped_bytes"] == 90 * MIB

    said = " ".join(" ".join(told(machine(units=(replace(stop, oom_policy="kill"),), cgroup_version="2"))).split())
    assert "memory.oom.group of /a/java is set (its OOMPolicy is kill)" in said
    assert "systemd stops" not in said
    said = " ".join(" ".join(told(machine(units=(stop,), cgroup_version="2"))).split())
    assert "systemd stops" not in said  # all are dead already


@pytest.mark.parametrize(
    ("need", "says"),
    [(10, "10 MiB are free after 1 kill "), (90, "90 MiB are free after 1 kill, once systemd has stopped the rest")],
)
def test_whom_systemd_stops_is_no_later_victim_and_what_that_frees_is_counted_apart(need: int, says: str) -> None:
    alone = (replace(machine().cgroups[0], oom_group=False),)
    stop = Unit(name="java.service", cgroup="/a/java", oom_policy="stop")
    known = machine(units=(stop,), cgroups=alone, cgroup_version="2")
    domain = whole_machine(known)
    assert domain is not None
    steps = list(sequence(known, domain, need * MIB))
    said = " ".join(" ".join(foretell(known, steps, need_bytes=need * MIB)).split())
    assert f"Need {says}" in said
    assert "1. java (pid 8) of /a/java: 10 MiB free, 100 MiB once java (pid 7) has ended" in said
    assert "which frees 90 MiB more, by SIGTERM first: it may take a while" in said
    assert "2." not in said


def test_in_a_cgroup_the_others_of_the_machine_are_not_spoken_of() -> None:
    words = " ".join(" ".join(told(machine(), "/a/java")).split())
    assert "if /a/java reached its limit now; scores are shares of 100 MiB, that limit and the swap" in words
    assert "pid 9" not in words


@pytest.mark.parametrize(
    ("sysctl", "said"),
    [("vm.panic_on_oom", "nobody: the kernel would stop"), ("vm.oom_kill_allocating_task", "whoever asks for memory")],
)
def test_where_a_setting_decides_nobody_is_named(sysctl: str, said: str) -> None:
    lines = told(machine(sysctls=((sysctl, "1"),)))
    assert lines[0].startswith(f"Next      {said}")
    assert not any(line.startswith(("Why", "Frees", "With it")) for line in lines)


def test_of_a_machine_of_the_exempt_nobody_is_named() -> None:
    known = machine()
    lines = told(replace(known, processes=known.processes[2:]))
    assert lines[0] == "Next      nobody: there is no process that the kernel may kill"


def test_what_the_kernel_does_that_finds_nobody_is_told_where_all_were_seen() -> None:
    known = machine()
    exempt = replace(known, processes=tuple(replace(one, oom_score_adj=-1000) for one in known.processes))
    words = " ".join(" ".join(told(exempt)).split())
    assert (
        "Then the kernel stops the whole machine: Kernel panic - not syncing: System is deadlocked on memory" in words
    )
    words = " ".join(" ".join(told(exempt, "/a/java")).split())
    assert "Then whoever asks for memory at that limit gets none: a system call fails (ENOMEM)" in words
    gap = Gap(place="/proc", reason="mounted with hidepid=2: processes of others are hidden", hint="run it as root")
    hidden = told(exempt, gaps=[gap])
    assert hidden[0] == "Next      nobody of those who could be seen"
    assert not any(line.startswith("Then") for line in [*hidden, *told(known)])


def test_at_40_columns_figures_give_way_and_names_stay() -> None:
    for width, titles in ((40, "points"), (52, "points holds"), (60, "points holds adj"), (80, "points holds adj")):
        lines = told(machine("systemd-journal"), width=width)
        assert max(map(escape.columns, lines)) <= width
        at = next(at for at, line in enumerate(lines) if line.endswith("  process"))
        assert lines[at].split() == [*titles.split(), "process"]
        assert re.match(r" +1 +[0-9].*  systemd-journal \(pid 8", lines[at + 1])
    assert "systemd-journal (pid 8" in " ".join(told(machine("systemd-journal"), width=30)[-2:])


def test_who_comes_next_is_told_with_how_far_he_is_behind() -> None:
    words = " ".join(" ".join(told(machine())).split())
    assert "adds 200 MiB; java (pid 7) comes next, 120 MiB behind" in words


def test_json_tells_what_is_so_beside_the_kills_and_fits_the_published_schema() -> None:
    full = Room("/a/java", 100 * MIB, 7 * MIB, 2 * MIB)
    killer = Killer(name="earlyoom", pid=30, start_ticks=1, memory_percent=10, swap_free_percent=5)
    facts = (("MemTotal", 1000 * MIB), ("MemAvailable", 70 * MIB))
    known = machine(killers=(killer,), meminfo=facts)
    (java, _, exempt), (group,) = known.processes, known.cgroups
    domain = whole_machine(known)
    assert domain is not None
    outlook = jsonl.outlook(
        known,
        list(sequence(known, domain, 1000 * MIB)),
        asked=(java, exempt),
        cuts=(Cut(java, 50 * MIB, full),),
        over=(Over(group, MIB, 90 * MIB),),
        need_bytes=1000 * MIB,
    )
    line, end = jsonl.foretold([], [Gap(place="/proc", reason="x")], outlook)
    document = json.loads(line)
    jsonschema.Draft202012Validator(json.loads(PUBLISHED.read_text())).validate(document)
    left = {"cgroup": None, "limit_bytes": 1000 * MIB, "left_bytes": 70 * MIB, "swap_bytes": 0}
    assert (document["kind"], document["nearest"], json.loads(end)["kind"]) == ("outlook", [left], "gap")
    assert document["killers"][0]["memory_percent"] == 10
    takes = {"cgroup": "/a/java", "limit_bytes": 100 * MIB, "left_bytes": 7 * MIB, "swap_bytes": 2 * MIB}
    assert document["grown"] == [
        {"pid": 7, "start_ticks": 1, "comm": "java", "asked_bytes": 50 * MIB, "takes": takes},
    ]
    low = {"cgroup": "/a/java", "limit_bytes": MIB, "held_bytes": 90 * MIB, "refused": False}
    assert document["lowered"] == [low]
    assert [(one["pid"], one["rank"]) for one in document["asked"]] == [(7, 2), (9, None)]
    need = {"need_bytes": 1000 * MIB, "freed_bytes": 100 * MIB, "kills": 1, "enough": False, "nobody_left": True}
    assert document["need"] == need
    assert jsonl.outlook(known, [predict(known, domain)]).need is None


def test_a_margin_within_the_kernels_own_error_is_told() -> None:
    near = tuple(
        Process(pid=pid, start_ticks=pid, comm="twin", rss_bytes=held, oom_score_adj=0)
        for pid, held in ((7, 90 * MIB), (8, 90 * MIB - 12 * 4096))
    )
    assert any(line.startswith("Close     twin (pid 8) has 12 pages less") for line in told(machine(processes=near)))
    far = (near[0], replace(near[1], rss_bytes=50 * MIB))
    assert not any(line.startswith("Close") for line in told(machine(processes=far)))


def test_where_memory_runs_out_first_is_told_by_what_is_left() -> None:
    swap = (("SwapTotal", 9 * MIB), ("SwapFree", 5 * MIB))
    known = machine(meminfo=(("MemTotal", 1000 * MIB), ("MemAvailable", 70 * MIB), *swap))
    (group,) = known.cgroups
    groups = (replace(group, current_bytes=10 * MIB), replace(group, path="/b", current_bytes=95 * MIB))
    words = " ".join(" ".join(told(replace(known, cgroups=groups))).split())
    said = "Nearest 10 MiB left in /b, limit 100 MiB; 75 MiB left in the machine and its swap; 95 MiB left in /a/java"
    assert said in words  # in each of the groups 5 MiB in swap
    slab = (("inactive_file", 0), ("active_file", 0), ("slab_reclaimable", 20 * MIB))
    kept = (groups[0], replace(groups[1], stat=slab, swap_max_bytes=0, swap_current_bytes=0))
    assert "Nearest 25 MiB left in /b, limit 100 MiB; 75" in " ".join(
        " ".join(told(replace(known, cgroups=kept))).split()
    )
    zram = SwapArea(name="/dev/zram0", kind="partition", size_bytes=9 * MIB, used_bytes=4 * MIB, priority=100)
    compressed = " ".join(" ".join(told(replace(known, cgroups=groups, swaps=(zram,)))).split())
    assert "72.5 MiB left in the machine and its swap, 2.5 MiB of it by swap on zram" in compressed
    disk = SwapArea(name="/srv/zram.img", kind="file", size_bytes=9 * MIB, used_bytes=4 * MIB, priority=1)
    both = " ".join(" ".join(told(replace(known, cgroups=groups, swaps=(zram, disk)))).split())
    assert "73.8 MiB left in the machine and its swap, 3.8 MiB of it by swap, part of which is on zram" in both
    alone = " ".join(" ".join(told(replace(known, cgroups=groups, swaps=(disk,)))).split())
    assert "75 MiB left in the machine and its swap; 95 MiB" in alone
    never = replace(known, sysctls=(("vm.swappiness", "0"),), settings=((LRU_GEN, "0x0007"),))
    assert "70 MiB left in the machine, none in its swap: vm.swappiness is 0" in " ".join(" ".join(told(never)).split())
    mostly = (groups[0], replace(groups[1], current_bytes=97 * MIB))
    words = " ".join(" ".join(told(replace(known, cgroups=mostly))).split())
    assert "Nearest 8 MiB left in /b, limit 100 MiB, 5 MiB of it in swap; 75 MiB left" in words


def test_another_killer_is_named_with_what_it_waits_for() -> None:
    assert not any(line.startswith("Before") for line in told(machine()))
    known = replace(machine(), meminfo=(("MemTotal", 1000 * MIB), ("SwapTotal", 200 * MIB)))
    early = Killer(name="earlyoom", pid=30, start_ticks=1, memory_percent=10, swap_free_percent=5)
    oomd = Killer(name="systemd-oomd", pid=31, start_ticks=1, swap_used_percent=90, pressure_percent=60, pressure_s=30)
    weak = Killer(name="nohang", pid=32, start_ticks=1, may_kill_all=False)
    able = Killer(
        name="nohang", pid=33, start_ticks=1, memory_percent=5, swap_free_percent=10, pressure_percent=40, pressure_s=30
    )
    both = Killer(
        name="nohang",
        pid=34,
        start_ticks=1,
        memory_percent=10,
        swap_free_percent=5,
        hard_memory_percent=5,
        hard_swap_free_percent=100,
        zram_percent=50,
    )
    words = " ".join(" ".join(told(replace(known, killers=(early, oomd, weak, able, both)))).split())
    assert (
        "Before earlyoom (pid 30) kills when less than 100 MiB of RAM can be had and less than 10 MiB of swap" in words
    )
    assert "systemd-oomd (pid 31) kills when more than 90 % of RAM and of swap are used, or a unit that it" in words
    assert "nohang (pid 32) lacks the right to kill" in words
    assert (
        "nohang (pid 33) kills when less than 50 MiB of RAM can be had and less than 20 MiB of swap are free, or as "
        "little RAM can be had and tasks wait 40 % of the time for 30 s" in words
    )
    assert (
        "nohang (pid 34) kills when less than 100 MiB of RAM can be had and less than 10 MiB of swap are free, or as "
        "little RAM can be had and zram takes more than 500 MiB of it, or less than 50 MiB of RAM can be had: by"
        in words
    )


def test_what_could_not_be_seen_is_said() -> None:
    gap = Gap(place="/proc", reason="mounted with hidepid=2: processes of others are hidden", hint="run it as root")
    unknown = Process(pid=10, start_ticks=1, comm="x", rss_bytes=None, oom_score_adj=0)
    known = machine(processes=(*machine().processes, unknown))
    words = " ".join(" ".join(told(known, gaps=[gap])).split())
    assert "Not seen the memory or the oom_score_adj of a process: not in the ranking" in words
    assert "hidepid=2" in words


@given(name=NASTY)
@example(name="\x1b[2J\u202e\nNext ")
def test_no_name_acts_and_every_line_fits(name: str) -> None:
    for line in told(machine(name), gaps=[Gap(place=name, reason="refused")]):
        assert line == escape.visible(line)
    for line in told(machine(name), verbose=True, width=60)[:1]:
        assert escape.columns(line) <= 60


@given(name=NASTY)
@example(name="java")
def test_every_line_of_json_fits_the_published_schema(name: str) -> None:
    known = machine(name)
    domain = whole_machine(known)
    assert domain is not None
    validator = jsonschema.Draft202012Validator(json.loads(PUBLISHED.read_text()))
    (line,) = jsonl.foretold([predict(known, domain)], [])
    document = json.loads(line)
    validator.validate(document)
    assert line.isascii()
    assert [row["pid"] for row in document["ranking"]] == [8, 7]
    assert document["killed"] == [8, 7]
    assert document["ranking"][0]["comm"] == name

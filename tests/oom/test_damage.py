"""Damaged logs: each field equals that of the undamaged log, or is absent. Nothing is invented, nothing is raised."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import fields, is_dataclass
from itertools import count
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from reprieve.model.oom import AllocationFailure, OomReport
from reprieve.model.snapshot import Snapshot
from reprieve.oom.line import Line
from reprieve.oom.report import _kind, read_reports
from reprieve.rules import diagnose
from reprieve.show import text as page
from tests.labels import label
from tests.logs_of import all_logs, text_of

MANGLERS = ("", "\n", "\x00", "]", "(", "9", "\u202e", " ")
Event = OomReport | AllocationFailure

WRAPPED = {"011"}  # with both neighbours of a break gone, halves of two lines look like one
# Where the zone's own line is lost, nothing tells that the reserve behind it was of another zone.
ORDERED = {"lowmem_reserve_pages"}
WHERE_IT_STOOD = ORDERED | {
    "line",
    "last_line",
    "lines",
    "missing",
    "constraint_line",
    "selected_line",
    "source",
    "stamp",
}
REPORTS = [
    "001",
    "011",
    "016",
    "043",
    "074",
    "077",
    "084",
    "088",
    "103",
    "113",
    "155",
    "lab/7.3.4+deb13-cloud-amd64__memcg-oom-group.txt",
    "lab/5.10.0-46-cloud-amd64__global-children.txt",
    "lab/6.1.0-56-cloud-amd64__panic-on-oom.txt",
]


def read(text: str) -> list[Event]:
    return list(read_reports(text))


def ooms(text: str) -> list[OomReport]:
    return [event for event in read(text) if isinstance(event, OomReport)]


def is_told_by(got: Any, whole: Any) -> bool:
    """Does `got` say nothing but what `whole` says?"""
    if got is None or got is False or got == () or got == whole:
        return True
    if is_dataclass(got):
        if type(got) is not type(whole):
            return False
        names = [field.name for field in fields(got) if field.name not in WHERE_IT_STOOD]
        return all(
            is_told_by(getattr(got, name), getattr(whole, name)) for name in names if name != "constraint_inferred"
        )
    if isinstance(got, tuple) and isinstance(whole, tuple):
        return all(any(is_told_by(part, known) for known in whole) for part in got)
    return False


def unsaid(damaged: Iterable[Event], whole: Sequence[Event]) -> list[Event]:
    """Events that say something no event of the whole log says."""
    return [event for event in damaged if not any(is_told_by(event, known) for known in whole)]


def explain(damaged: Event, whole: Sequence[Event]) -> str:
    """Which fields went wrong, against the event that fits best: what a failing test prints."""

    def wrong(known: Event) -> list[str]:
        names = [field.name for field in fields(damaged) if field.name not in WHERE_IT_STOOD | {"constraint_inferred"}]
        pairs = ((name, getattr(damaged, name), getattr(known, name, None)) for name in names)
        return [f"{name}: {got!r} against {want!r}"[:300] for name, got, want in pairs if not is_told_by(got, want)]

    return str(min((wrong(known) for known in whole), key=len))


def check(damaged: str, whole: Sequence[Event]) -> None:
    events = unsaid(read(damaged), whole)
    assert not events, explain(events[0], whole)


@pytest.mark.parametrize("name", REPORTS)
def test_a_log_cut_at_any_line_or_byte_tells_less_and_nothing_else(name: str) -> None:
    text = text_of(name)
    whole = read(text)
    at_lines = [at for at, char in enumerate(text) if char == "\n"]
    at_bytes = random.Random(name).sample(range(len(text)), 25)
    for at in at_lines[:: max(1, len(at_lines) // 25)] + at_bytes:
        check(text[:at], whole)
        check(text[at:], whole)


@pytest.mark.parametrize("name", [name for name in REPORTS if name not in WRAPPED])
def test_lines_that_are_dropped_doubled_or_swapped_invent_nothing(name: str) -> None:
    text = text_of(name)
    whole = read(text)
    lines = text.splitlines(keepends=True)
    for seed in range(5):
        dice = random.Random(seed)
        check("".join(line for line in lines if dice.random() > 0.1), whole)
        check("".join(line * dice.choice((1, 1, 1, 2)) for line in lines), whole)
        swapped = list(lines)
        for at in dice.sample(range(len(lines) - 1), min(20, len(lines) - 1)):
            swapped[at], swapped[at + 1] = swapped[at + 1], swapped[at]
        check("".join(swapped), whole)


@pytest.mark.parametrize(
    ("one", "other"), [("084", "089"), ("016", "001"), ("074", "075"), ("105", "103"), ("025", "043")]
)
def test_two_reports_interleaved_are_not_mixed_up(one: str, other: str) -> None:
    first, second = text_of(one), text_of(other)
    whole = [*read(first), *read(second)]
    for seed in range(10):
        dice = random.Random(seed)
        left, right = first.splitlines(keepends=True)[::-1], second.splitlines(keepends=True)[::-1]
        mixed: list[str] = []
        while left or right:
            side = left if not right or (left and dice.random() < len(left) / (len(left) + len(right))) else right
            mixed += [side.pop() for _ in range(min(dice.choice((1, 1, 2)), len(side)))]
        check("".join(mixed), whole)


def test_of_two_hosts_neither_of_which_has_a_first_line_each_keeps_its_own() -> None:
    row = "[    {0}]     0    {0}     9999     9000    90112        0             0 app{0}"
    said = "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/box{0},"
    said += "task_memcg=/box{0},task=app{0},pid={0},uid=0"
    kill = "Memory cgroup out of memory: Killed process {0} (app{0}) total-vm:9kB, anon-rss:8kB, file-rss:0kB"
    lines = [
        f"Nov 30 10:11:12 box{at} kernel: [   12.345678] {line.format(at)}\n"
        for line in (row, said, kill)
        for at in (1, 2)
    ]
    told = [(event.host, event.oom_memcg, [kill.pid for kill in event.kills]) for event in ooms("".join(lines))]
    assert told == [("box1", "/box1", [1]), ("box2", "/box2", [2])]


@pytest.mark.parametrize("size", [1, 3, 40])
def test_reports_of_hosts_that_write_to_one_log_are_told_as_each_alone(size: int) -> None:
    """Lines of three hosts, each of which has several reports, alternate by one or by so many."""
    names = (
        "7.3.4+deb13-cloud-amd64__memcg-oom-group",
        "5.10.0-46-cloud-amd64__global-children",
        "6.1.0-56-cloud-amd64__memcg",
    )
    hosts: dict[str, list[str]] = {}
    for at, name in enumerate(names):
        lines = [line for line in text_of(f"lab/{name}.txt").splitlines() if line.startswith("[")]
        begin = next(number for number, line in enumerate(lines) if "invoked oom-killer" in line)
        hosts[f"box{at}"] = [f"Nov 30 10:11:12 box{at} kernel: {line}\n" for line in lines[begin : begin + 700]]
    alone = [label(event) for lines in hosts.values() for event in ooms("".join(lines))]
    assert len(alone) > 6
    for seed in range(5):
        dice = random.Random(seed)
        left = {name: lines[::-1] for name, lines in hosts.items()}
        mixed: list[str] = []
        while any(left.values()):
            (name,) = dice.choices(list(left), weights=[len(lines) for lines in left.values()])
            mixed += [left[name].pop() for _ in range(min(dice.randint(1, size), len(left[name])))]
        together = [label(event) for event in ooms("".join(mixed))]
        assert sorted(map(repr, together)) == sorted(map(repr, alone))


def test_a_line_cut_at_any_byte_tells_less_and_nothing_else() -> None:
    kinds = {"trigger", "kill", "select", "constraint", "task_in", "group", "no_killable", "panic", "reaped", "cpuset"}
    lines = {line for path in all_logs() for line in path.read_bytes().decode(errors="backslashreplace").split("\n")}
    shapes: dict[tuple[str | None, str], str] = {}  # lines that differ in their figures alone are one shape
    for line in sorted(lines):
        message = line.partition("] ")[2] or line
        kind = _kind(Line(1, message))
        if kind in kinds:
            shapes.setdefault((kind, "".join("0" if char.isdigit() else char for char in message)), line)
    assert len(shapes) > 150
    for line in shapes.values():
        whole = read(f"{line}\n")
        for end in range(len(line)):
            check(line[:end], whole)


def test_a_row_cut_at_any_byte_tells_less_and_nothing_else() -> None:
    text = text_of("105")
    header = text[: text.index("[  pid  ]")] + text[text.index("[  pid  ]") :].split("\n")[0] + "\n"
    row = "[ 473206]   504 473206  7572670  2308581 60682240  5261310             0 doxy gen\n"
    whole = read(header + row)
    for end in range(len(row) - 1):
        check(header + row[:end], whole)


def test_the_work_grows_with_the_text_and_no_faster() -> None:
    """Counted, not timed: how often the reader looks at a line."""
    text = text_of("084")
    calls = []
    for copies in (1, 2, 4):
        count = 0
        for event in read_reports(text * copies):
            assert isinstance(event, OomReport)
            count += len(event.lines)
        calls.append(count)
    assert calls[2] == 2 * calls[1] == 4 * calls[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", REPORTS)
def test_a_log_cut_at_every_line_and_two_hundred_bytes_tells_less_and_nothing_else(name: str) -> None:
    text = text_of(name)
    text = text[:20_000]  # the work is quadratic
    whole = read(text)
    for at in [at for at, char in enumerate(text) if char == "\n"] + random.Random(name).sample(range(len(text)), 200):
        check(text[:at], whole)
        check(text[at:], whole)


@pytest.mark.matrix
@pytest.mark.parametrize("path", all_logs(), ids=lambda path: path.name)
def test_an_hour_of_mangled_logs_raises_nothing(path: Path) -> None:
    """Each log has its share of the hour; the seed of a failure is in its message."""
    text = path.read_bytes().decode(errors="backslashreplace")[:60_000]
    until = monotonic() + 3600 / len(all_logs())
    for seed in count():
        events = explained(mangle(text, random.Random(f"{path.name} {seed}")), seed)
        assert all(event.line <= event.last_line for event in events), f"seed {seed}"
        if monotonic() > until:
            return


def mangle(text: str, dice: random.Random) -> str:
    mangled = list(text)
    for _ in range(dice.randint(1, 200)):
        at = dice.randrange(len(mangled) + 1)
        mangled[at : at + dice.choice((0, 1, 1, 5, 200))] = dice.choice(MANGLERS)
    return "".join(mangled)


def explained(text: str, seed: int) -> list[Event]:
    """The events of a text, each diagnosed and told."""
    try:
        events = read(text)
        for event in events:
            known = Snapshot(ooms=(event,)) if isinstance(event, OomReport) else Snapshot(allocation_failures=(event,))
            assert "".join(page.explain(known, diagnose(known), width=80, colour=False, verbose=True, hints=True))
    except Exception as error:
        error.add_note(f"seed {seed}")
        raise
    return events


@pytest.mark.parametrize(
    "line",
    [
        "Jan 1 00:00:00 h app: Killed process 7 (x) oom_score_adj:" + "9" * 5000,
        "Out of memory: Killed process " + "9" * 5000 + " (x) total-vm:8kB",
        "Out of memory: Killed process 7 (x) total-vm:" + "9" * 5000 + "kB, UID:" + "9" * 5000,
        "Out of memory: Kill process " + "9" * 5000 + " (x) score 1 or sacrifice child",
        "Out of memory: Kill process 7 (x) score " + "9" * 5000 + " or sacrifice child",
        "java invoked oom-killer: gfp_mask=0x" + "f" * 5000 + ", order=" + "9" * 5000 + ", oom_score_adj=" + "9" * 5000,
        "6,1," + "9" * 400 + ",-;Out of memory: Killed process 7 (x) total-vm:8kB",
        "[" + "9" * 400 + ".000001] Out of memory: Killed process 7 (x) total-vm:8kB",
        "[ 7]     0  7   ²²²      ²   " + "9" * 5000 + "        0             0 x",
        "oom-kill:constraint=A" + ",nodemask=" * 5000,
        "oom-kill:constraint=A" + ",task=" * 5000,
        '{"a":' + "[" * 5000,
        '{"MESSAGE":"Out of memory: Killed process 7 (x)","__REALTIME_TIMESTAMP":"²","_BOOT_ID":["a"]}',
        '{"MESSAGE":"\\ud800 Killed process","__REALTIME_TIMESTAMP":"' + "9" * 400 + '"}',
        '{"MESSAGE":[300, -1, "x", 65]}',
        "[1.0] x" + " " * 20_000 + "\n" + " " * 20_000 + "y",
    ],
    ids=lambda line: line[:40],
)
def test_a_hostile_line_is_a_line(line: str) -> None:
    for event in read(f"[1.0] a invoked oom-killer: gfp_mask=0x1, order=0\n{line}\n"):
        assert str(event).encode()


def test_a_row_that_is_cut_within_its_first_figure_has_its_pid() -> None:
    (event,) = read("[1.0] a invoked oom-killer: gfp_mask=0x1, order=0\n[    289]   9x")
    assert isinstance(event, OomReport)
    assert event.tasks is not None
    assert [(task.pid, task.uid) for task in event.tasks] == [(289, None)]


def test_a_group_of_twenty_thousand_is_one_event() -> None:
    lines = ["a invoked oom-killer: gfp_mask=0x1, order=0", "Memory cgroup out of memory: Killed process 1 (a)"]
    lines.append("Tasks in /pod are going to be killed due to memory.oom.group set")
    lines += [f"Memory cgroup out of memory: Killed process {pid} (a) total-vm:9kB" for pid in range(2, 20_002)]
    lines += [f"oom_reaper: reaped process {pid} (a), now anon-rss:0kB" for pid in range(2, 20_002)]
    (event,) = read("".join(f"[1.000000] {line}\n" for line in lines))
    assert isinstance(event, OomReport)
    assert len(event.kills) == 20_001
    assert all(kill.reaped for kill in event.kills[1:])


@pytest.mark.parametrize(
    "line", ["x" + " " * 200_000 + "oom-killerx", "CPU: 1 PID: 1 Comm: a Tainted: " + " " * 200_000 + "x"]
)
def test_a_long_line_of_blanks_takes_no_longer_than_it_is_long(line: str) -> None:
    """Both would take hours if each blank could be the beginning of the next word."""
    (event,) = read(f"[1.0] a invoked oom-killer: gfp_mask=0x1, order=0\n[1.0] {line}\n")
    assert isinstance(event, OomReport)
    assert event.kernel is None


def test_of_a_table_without_end_the_first_rows_are_read_and_the_rest_counted() -> None:
    head = "java invoked oom-killer: gfp_mask=0xdc0(GFP_KERNEL|__GFP_ZERO), order=0, oom_score_adj=0\n"
    head += "[  pid  ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name\n"
    rows = "".join(
        f"[ {pid:6}]  1000 {pid:6}     1000       10     4096        0             0 java\n" for pid in range(20_007)
    )
    (oom,) = read_reports(head + rows + "Out of memory: Killed process 20006 (java) total-vm:4000kB\n")
    assert isinstance(oom, OomReport)
    assert oom.tasks is not None
    assert len(oom.tasks) == 20_000
    assert oom.victim is not None
    assert oom.victim.pid == 20_006
    assert "7 rows of the task table (the first 20,000 were read)" in oom.missing


def test_an_order_that_no_machine_has_room_for_is_none() -> None:
    head = "java invoked oom-killer: gfp_mask=0xdc0(GFP_KERNEL|__GFP_ZERO), order=9999, oom_score_adj=0\n"
    (oom,) = read_reports(head)
    assert isinstance(oom, OomReport)
    assert oom.trigger is not None
    assert oom.trigger.order is None

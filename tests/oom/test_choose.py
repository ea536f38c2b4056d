"""The formula by itself, and the kernel's choices in real reports."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reprieve.model.oom import OomReport, Task, figure
from reprieve.oom.choose import (
    Candidate,
    Recomputed,
    _can_come_first,
    badness,
    choose,
    oom_score,
    parse_nodes,
    recompute,
)
from reprieve.oom.report import read_reports
from tests.logs_of import LOGS, all_logs, text_of

# Every log in which a verdict is another than "same" or, for want of rows, "no-table": its verdicts in order, and why.
OTHERWISE = {
    "001-memcg-v1-lxc-then-global-panic-5.15.log": "same panic",  # panic_on_oom=1, as the panic says
    "037-btrfs-dd-kvm-nots-6.12.log": "cut",  # ends in the table
    # Sent to the author of "mm, oom: make the calculation of oom badness more accurate", v2, which was wrong: only who
    # had less than no points could be chosen, so first dbus-daemon died and then there was nobody. No report tells.
    "043-numa-random-no-killable-panic-5.8-next.log": "ruled-out ruled-out",
    "068-memcg-ltp-oom03-wrapped.log": "ruled-out",  # the hog was killed before; its parent was all that was left
    "082-rhel6-oom_kill_allocating_task-no-header.log": "allocating-task",  # its kill line says so
    "093-wsl2-grepped-kernlog.log": "not-listed",  # grep left no row
    "125-beaglebone-no-killable-negative-reserved-4.1.log": "nobody",  # while booting: no process yet
    "128-memcg-k8s-selected-differs-from-killed-3.10.log": "not-listed",  # one row, of another pid
    "129-rpi-32bit-highmem-tail-then-next-6.1.log": "not-listed",  # begins within the table
    "140-nuc980-empty-table-no-killable-two-lines.log": "nobody",
    "148-mysqld-hugepages-grep-n-prefixed.log": "not-listed",  # grep left the header of the table
}
LAB_OTHERWISE = {  # what a scenario set up, by its name: the verdict, and how much else the same log may hold
    "global-allocating-task": "allocating-task",  # vm.oom_kill_allocating_task=1
    "memcg-lower-max": "same nobody",  # memory.max below what is used: it kills all, then finds nobody
    "memcg-no-killable": "nobody",  # all at -1000
    "panic-no-killable": "nobody",
    "panic-on-oom": "panic",
    "panic-on-oom2-memcg": "panic",
}


@cache
def reports(path: Path) -> tuple[OomReport, ...]:
    events = read_reports(path.read_bytes().decode(errors="backslashreplace"), path.name)
    return tuple(event for event in events if isinstance(event, OomReport))


def report(name: str, number: int = 0) -> OomReport:
    return [event for event in read_reports(text_of(name), name) if isinstance(event, OomReport)][number]


def labelled() -> Iterator[tuple[Path, list[dict[str, Any]]]]:
    """Every log of whole reports, with what people read in it."""
    for index in (LOGS / "index.jsonl", LOGS / "lab" / "labels.jsonl"):
        for line in index.read_text().splitlines():
            label = json.loads(line)
            if label["complete"] and label.get("section") is None:
                yield index.parent / label["file"], label["events"]


def lab(scenario: str, kernel: str = "6.1.0", number: int = 0) -> OomReport:
    return report(f"lab/{kernel}-56-cloud-amd64__{scenario}.txt", number)


def processes() -> st.SearchStrategy[list[Candidate]]:
    sizes, adjs = st.integers(0, 3000), st.integers(-999, 1000)
    made = st.builds(Candidate, pid=st.integers(2, 9), pages=sizes, adj=adjs, exempt=st.sampled_from([None, "init"]))
    return st.lists(made, max_size=6)


# -- the formula ---------------------------------------------------------------------------------------------------


def test_nobody_is_chosen_of_nobody() -> None:
    assert choose([], 1000).chosen is None


def test_the_exempt_are_never_chosen_however_large() -> None:
    init, small = Candidate(pid=1, pages=9000, adj=1000, exempt="init"), Candidate(pid=7, pages=1, adj=-999)
    assert choose([init, small], 10_000).ranking == (small,)
    assert choose([init], 10_000).chosen is None


def test_a_low_adj_makes_points_negative_and_they_still_compare() -> None:
    one, other = Candidate(pid=7, pages=500, adj=-900), Candidate(pid=8, pages=100, adj=-800)
    choice = choose([one, other], 10_000)
    assert choice.ranking == (other, one)
    assert [choice.points(candidate) for candidate in choice.ranking] == [-7900, -8500]


def test_adj_counts_whole_thousandths_of_the_total() -> None:
    assert badness(Candidate(pid=7, pages=0, adj=1000), 1999) == 1000


def test_of_equals_the_last_one_scanned_dies() -> None:
    first, second, less = (Candidate(pid=pid, pages=pages, adj=0) for pid, pages in ((7, 5), (8, 5), (9, 4)))
    choice = choose([first, second, less], 1000)
    assert (choice.chosen, choice.ties) == (second, (first,))


def test_the_scale_of_oom_score_is_that_of_proc() -> None:
    assert [oom_score(points, 10_000) for points in (0, 10_000, 20_000, -9_990, -9)] == [666, 1333, 2000, 0, 666]


@given(processes(), st.integers(1, 10**7))
def test_nobody_has_more_points_than_the_chosen_one(candidates: list[Candidate], total_pages: int) -> None:
    choice = choose(candidates, total_pages)
    points = [choice.points(candidate) for candidate in choice.ranking]
    assert points == sorted((badness(c, total_pages) for c in candidates if c.exempt is None), reverse=True)
    assert len(choice.ties) == max(points.count(points[0]) - 1, 0) if points else not choice.ties


@given(processes(), st.integers(0, 60))
def test_what_a_larger_total_can_change_is_found_without_trying_them(candidates: list[Candidate], least: int) -> None:
    choice = choose(candidates, least * 1000)
    for candidate in choice.ranking:
        tried = any(
            all(badness(candidate, total) >= badness(other, total) for other in choice.ranking)
            for total in range(least * 1000, (least + 4000) * 1000, 1000)
        )
        assert _can_come_first(choice, candidate, None) == tried


def margin_pages(recomputed: Recomputed) -> int:
    """How far the kernel's choice is ahead of the others."""
    selected, other = recomputed.selected(), recomputed.runner_up()
    assert selected is not None
    assert other is not None
    return selected.points - other.points


def select_score(recomputed: Recomputed) -> int | None:
    """What `Kill process N (…) score` should print: thousandths of the total. None: that is not told exactly.

    Source: select_bad_process() in mm/oom_kill.c, until 5.0.
    """
    row, total = recomputed.selected(), recomputed.total
    return row.score if row and total and total.most_pages == total.pages else None


# -- the kernel's choices ------------------------------------------------------------------------------------------


def test_each_report_has_its_verdict() -> None:
    counts: Counter[str] = Counter()
    for path in all_logs():
        name, scenario = path.name, path.stem.partition("__")[2]
        verdicts = [recompute(one).verdict for one in reports(path)]
        counts.update(verdicts)
        told = [verdict for verdict in verdicts if verdict != "no-table"]
        if scenario in LAB_OTHERWISE:
            assert set(told) <= set(LAB_OTHERWISE[scenario].split()), name
            assert told, name
        else:
            assert told == OTHERWISE.get(name, " ".join(["same"] * len(told))).split(), name
    print(*(f"{verdict} {count}" for verdict, count in counts.most_common()), sep=", ")


def test_the_recomputed_choice_is_whom_people_read_to_be_chosen() -> None:
    compared = 0
    for path, events in labelled():
        for one, label in zip(reports(path), events, strict=True):
            recomputed = recompute(one)
            if label["n_tasks"] and label["selected_pid"] is not None:
                chosen = recomputed.choice.chosen
                agree = chosen is not None and chosen.pid == label["selected_pid"]
                assert agree or recomputed.verdict in ("ruled-out", "allocating-task"), path
                compared += agree
    assert compared > 100


def test_a_printed_score_is_met_exactly() -> None:
    met = []
    for path in all_logs():
        for one in reports(path):
            score = select_score(recompute(one))
            if score is not None and one.selected_score is not None and "swapents" in (one.task_columns or ()):
                assert score == one.selected_score, path
                met.append(score)
    assert set(met) >= {176, 179, 623, 874, 1046, 1003, 701}


@pytest.mark.parametrize("name", ["074-rhel6", "075-rhel6"])
def test_a_table_without_swap_gives_less_than_the_printed_score_by_no_more_than_all_swap(name: str) -> None:
    one = report(name)
    recomputed, memory = recompute(one), one.memory
    assert memory is not None
    assert recomputed.total is not None
    swapped = (memory.swap_total_bytes or 0) - (memory.swap_free_bytes or 0)
    unseen = swapped // 4096 + (figure(memory.counts, "pagetables") or 0)
    score = select_score(recomputed)
    assert score is not None
    assert one.selected_score is not None
    assert score <= one.selected_score <= score + unseen * 1000 // recomputed.total.pages + 1


def test_root_is_let_off_three_percent_where_the_score_says_so() -> None:
    root = recompute(report("077-centos7"))
    selected = root.selected()
    assert selected is not None
    assert (selected.held_pages, selected.points) == (45903, 45903 - 45903 * 3 // 100)


def test_root_in_a_container_is_let_off_nothing_and_the_score_says_so() -> None:
    selected = recompute(report("103-memcg")).selected()
    assert selected is not None
    assert selected.task.uid == 0
    assert selected.points == selected.held_pages


# -- what scores are shares of -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "pages", "most"),
    [
        ("128-memcg", None, None),  # neither Mem-Info nor the limit is in the text
        ("lab/6.1.0-56-cloud-amd64__global-disk-swap", 55594 + 16380, 55594 + 16380),
        ("089-debian8", 983775, 983775),  # "RAM" less "reserved" is 1002409 there; the printed score decides
        ("125-beaglebone", 126777, 126777),  # "reserved" is below zero
        ("lab/6.1.0-56-cloud-amd64__numa-cpuset", 32736, None),  # one node of two
        ("lab/6.1.0-56-cloud-amd64__numa-mempolicy", 32736, None),
        ("lab/6.1.0-56-cloud-amd64__memcg.txt", 8192, None),  # no limit to its swap
        ("lab/6.1.0-56-cloud-amd64__memcg-swap-max", 8192, 12288),
        ("lab/6.1.0-56-cloud-amd64__systemd-unit-memorymax.txt", 10240, 10240),  # no swap for it
        ("101-memcg", 245, None),
        ("104-memcg", 153600, 153600),  # memory+swap: settled by the printed score
    ],
)
def test_the_total_is_that_of_the_constraint(name: str, pages: int | None, most: int | None) -> None:
    total = recompute(report(name)).total
    assert (total.pages, total.most_pages) == (pages, most) if total else pages is None


# -- reasons that no log here has, on real reports altered in one thing ---------------------------------------------


def chosen_instead(one: OomReport, pid: int) -> Recomputed:
    return recompute(replace(one, selected_pid=pid, kills=()))


def test_a_child_that_died_for_its_parent_is_told_apart() -> None:
    one = report("084-ubuntu1404")
    child = replace(one.kills[0], pid=4000)
    assert recompute(replace(one, kills=(child,))).verdict == "child"


def test_equal_points_are_a_tie_whoever_dies() -> None:
    one = lab("global-sock-slab")
    assert recompute(one).choice.ties
    (other,) = recompute(one).choice.ties
    assert chosen_instead(one, other.pid).verdict == "tie"


def test_scores_below_one_are_a_tie_since_old_kernels_made_them_one() -> None:
    one = lab("memcg-nested")
    tasks = tuple(replace(task, oom_score_adj=-998) for task in one.tasks or ())
    least = recompute(replace(one, tasks=tasks)).choice.ranking[-1]
    assert chosen_instead(replace(one, tasks=tasks), least.pid).verdict == "tie"


def test_a_choice_that_swap_not_printed_can_explain_is_not_called_wrong() -> None:
    one = lab("memcg-nested")
    first, *_, last = recompute(one).choice.ranking
    tasks = tuple(replace(task, oom_score_adj=100 if task.pid == last.pid else 0) for task in one.tasks or ())
    assert recompute(replace(one, tasks=tasks)).choice.chosen == first
    assert chosen_instead(replace(one, tasks=tasks), last.pid).verdict == "total"


def test_a_table_without_swap_cannot_refute_a_choice() -> None:
    one = report("074-rhel6")
    assert chosen_instead(one, recompute(one).choice.ranking[1].pid).verdict == "uncounted"


def test_two_that_are_a_step_of_the_counters_apart_may_have_changed_places() -> None:
    one = report("lab/7.3.4+deb13-cloud-amd64__global-children", 1)
    assert margin_pages(recompute(one)) == 32
    assert chosen_instead(one, recompute(one).choice.ranking[1].pid).verdict == "printed-later"


def test_the_formula_before_adj_in_thousandths_is_not_recomputed() -> None:
    one = report("074-rhel6")
    old = tuple(column for column in one.task_columns or () if column != "oom_score_adj")
    tasks = tuple(replace(task, oom_score_adj=None) for task in one.tasks or ())
    assert recompute(replace(one, task_columns=old, tasks=tasks)).verdict == "old-formula"


# -- what it is told for -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "number", "why"),
    [
        ("043-numa", 1, ""),  # nobody was chosen
        ("lab/6.1.0-56-cloud-amd64__global-allocating-task", 0, ""),  # not for its points
        ("lab/5.10.0-46-cloud-amd64__global.txt", 0, "it held 175 MiB, 78 % of all memory"),
        ("075-rhel6", 0, "it held at least 7.3 GiB, 42 % of all memory and swap"),  # swap is not in the table
        ("119-ubuntu-bash", 0, "it held 10.9 GiB, 70 % of all memory and swap"),
        ("lab/6.1.0-56-cloud-amd64__memcg.txt", 0, "it held 32.4 MiB, all of the limit"),
        (
            "lab/5.10.0-46-cloud-amd64__global-adj",
            0,
            "it held 12.5 MiB, 5.6 % of all memory; its oom_score_adj of 900 added 200 MiB",
        ),
        ("043-numa", 0, "it held 952 KiB; its oom_score_adj of -900 took off 102 GiB"),
        (
            "lab/6.1.0-56-cloud-amd64__global-sock-slab",
            0,
            "it held 32 KiB; others had as many points, and the order in which the kernel looks decided",
        ),
        ("017-cpuset", 0, "it held 788294 pages"),  # neither page size nor total is in the text
    ],
)
def test_why_says_what_gave_the_points(name: str, number: int, why: str) -> None:
    assert recompute(report(name, number)).why() == why


def test_no_words_hold_a_name() -> None:
    hostile = "\x1b[31m`rm`"
    for path in all_logs():
        for one in reports(path):
            tasks = tuple(replace(task, comm=hostile) for task in one.tasks or ())
            recomputed = recompute(replace(one, tasks=tasks) if one.tasks else one)
            assert hostile not in recomputed.why() + recomputed.reason


def test_rows_stand_in_the_order_of_their_points_and_the_exempt_are_left_out() -> None:
    recomputed = recompute(lab("global-adj"))
    rows = list(recomputed.rows())
    assert [(row.task.comm, row.points) for row in rows[:3]] == [
        ("scapegoat", 52696),
        ("memhog", 37914),
        ("Web Content", 14196),
    ]
    assert rows[0].held_pages + rows[0].adj_pages == rows[0].points == 3196 + 900 * 55
    assert [row.score for row in rows[:2]] == [1298, 1120]
    assert margin_pages(recomputed) == 52696 - 37914
    assert len(rows) == len(recomputed.tasks) - 1 == 6
    assert all(row.task.oom_score_adj != -1000 for row in rows)


def test_a_row_that_is_cut_is_left_out() -> None:
    one = lab("global")
    tasks = (*(one.tasks or ()), Task(line=1, pid=9, rss_pages=10**9), Task(line=2, pid=10, oom_score_adj=1000))
    assert recompute(replace(one, tasks=tasks)).choice.ranking == recompute(one).choice.ranking


def test_a_cut_text_is_judged_without_fault_and_never_falsely_blamed() -> None:
    for path in all_logs():
        text = path.read_bytes().decode(errors="backslashreplace")
        if path.name in OTHERWISE or len(text) > 60_000:
            continue
        lines = text.splitlines(keepends=True)
        for end in range(0, len(lines), max(1, len(lines) // 12)):
            for event in read_reports("".join(lines[:end]), path.name):
                if isinstance(event, OomReport):
                    assert recompute(event).verdict != "ruled-out", (path, end)


@pytest.mark.parametrize(
    ("printed", "nodes"),
    [
        ("0-2,5", {0, 1, 2, 5}),
        ("(null)", set()),
        ("0-99999999999", set()),
        ("9" * 5000, set()),
        ("1,0-99999", set()),
        ("0-1023", set(range(1024))),
    ],
)
def test_a_list_of_nodes_that_no_kernel_prints_fills_no_memory(printed: str, nodes: set[int]) -> None:
    assert parse_nodes(printed) == nodes


@pytest.mark.parametrize("nodes", ["0-99999999999", "9" * 5000])
def test_a_report_that_names_more_nodes_than_there_can_be_is_recomputed_without_them(nodes: str) -> None:
    text = (LOGS / "lab/6.1.0-56-cloud-amd64__numa-cpuset.txt").read_text()
    report = next(event for event in read_reports(text) if isinstance(event, OomReport))
    assert recompute(replace(report, mems_allowed=nodes)).total is None

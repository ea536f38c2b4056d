"""Whom the kernel chooses, by its own formula, and whether a report bears it out.

The formula is oom_badness() in mm/oom_kill.c as it stands since 5.9: pages held (resident, swapped out, page tables)
plus oom_score_adj thousandths of all the memory there is to share. Rows of a report and processes of a living machine
become candidates alike; what older kernels did otherwise is told from the shape of their report.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import repeat
from typing import NamedTuple

from reprieve.model.oom import OOM_SCORE_ADJ_MIN, Memcg, Memory, OomReport, Task, figure
from reprieve.oom.once import once
from reprieve.units import percent, size


class Candidate(NamedTuple):
    """A process as the OOM killer weighs it."""

    pid: int
    pages: int  # resident, in swap, and of page tables
    adj: int  # oom_score_adj: each unit counts as a thousandth of the total
    exempt: str | None = None  # why it is never chosen, in words
    start: int | None = None  # its start time tells it from a later process of that pid; a report has none


class Choice(NamedTuple):
    """All who can be chosen, in the order of their points."""

    ranking: tuple[Candidate, ...]  # the chosen one first; those exempt are not in it
    total_pages: int
    ties: tuple[Candidate, ...] = ()  # the others with as many points as the first

    @property
    def chosen(self) -> Candidate | None:
        """Who dies; None if all are exempt."""
        return self.ranking[0] if self.ranking else None

    def points(self, candidate: Candidate) -> int:
        """The candidate's badness, in pages."""
        return badness(candidate, self.total_pages)


def badness(candidate: Candidate, total_pages: int) -> int:
    """What the kernel compares, in pages; negative where a low oom_score_adj outweighs all it holds.

    >>> badness(Candidate(pid=7, pages=5000, adj=-100), total_pages=100_000)
    -5000
    """
    return candidate.pages + candidate.adj * (total_pages // 1000)


def oom_score(points: int, total_pages: int) -> int:
    """Points as /proc/PID/oom_score shows them since 5.9: 0 to 2000, and 666 for a process of no size and no adj.

    Source: proc_oom_score() in fs/proc/base.c; 9066e5cfb73c ("mm, oom: make the calculation of oom badness more
    accurate"). C divides towards zero.
    """
    share = abs(points) * 1000 // total_pages
    return (1000 + (share if points >= 0 else -share)) * 2 // 3


def choose(candidates: Iterable[Candidate], total_pages: int) -> Choice:
    """Rank the candidates, given in the order in which the kernel scans them: that of their start.

    Of equals the last one scanned is chosen: since f168a9a54ec3 ("mm: memcontrol: use CSS_TASK_ITER_PROCS at
    mem_cgroup_scan_tasks()", v5.3) oom_evaluate_task() passes over a task only if it has fewer points than the best.
    """
    unit = total_pages // 1000
    ranking = [candidate for candidate in candidates if candidate.exempt is None]
    ranking.reverse()
    ranking.sort(key=lambda candidate: candidate.pages + candidate.adj * unit, reverse=True)
    most = badness(ranking[0], total_pages) if ranking else 0
    ties = []
    for candidate in ranking[1:]:
        if badness(candidate, total_pages) != most:
            break
        ties.append(candidate)
    return Choice(ranking=tuple(ranking), ties=tuple(ties), total_pages=total_pages)


class Total(NamedTuple):
    """The memory that scores are shares of: `totalpages` of constrained_alloc() in mm/oom_kill.c."""

    pages: int  # the least it can be, and what is reckoned with
    most_pages: int | None  # the most; None: how much swap comes to it is not told
    of: str  # what it is, in words


class Row(NamedTuple):
    """A row of a task dump with what the formula makes of it."""

    task: Task
    held_pages: int  # resident, in swap, and of page tables, as far as the table tells
    adj_pages: int  # what its oom_score_adj added, or took off
    points: int  # what was compared: both, less the bonus that root had until 4.16
    # The same in thousandths of the total where the report prints such a score, else as /proc/PID/oom_score has it, of
    # 0 to 2000; None: the total is not in the text.
    score: int | None


class Recomputed(NamedTuple):
    """The choice as the rows of a report make it, held against the kernel's."""

    # "same": whom the kernel chose has the most points. "child": so it is, and a child of it was killed.
    # Nobody was chosen by points: "allocating-task", "panic", "nobody" (all are exempt).
    # The kernel chose another: "tie", "total" (it depends on memory that is not printed), "uncounted" (the table lacks
    # swap), "printed-later", "ruled-out" (for what no report tells).
    # There is nothing to compare: "no-table", "cut", "not-listed", "old-formula" (before 2.6.36).
    verdict: str
    reason: str  # the verdict in a sentence; "the chosen one" is the kernel's
    choice: Choice
    total: Total | None  # None: not in this text; the points are then without oom_score_adj
    selected_pid: int | None  # the row of the kernel's choice
    page_size_bytes: int | None
    tasks: dict[int, Task]  # by pid
    printed: bool = False  # does the report print a score? Then each has it by that scale

    def rows(self) -> Iterator[Row]:
        """The rows that could be chosen, the one with the most points first; those exempt are left out."""
        return map(self._row, self.choice.ranking)

    def _row(self, candidate: Candidate) -> Row:
        task, points = self.tasks[candidate.pid], self.choice.points(candidate)
        return Row(
            task=task,
            held_pages=_held_pages(task, self.page_size_bytes),
            adj_pages=(task.oom_score_adj or 0) * (self.choice.total_pages // 1000),
            points=points,
            score=self._score(points, self.total.pages) if self.total else None,
        )

    def _score(self, points: int, total_pages: int) -> int:
        """oom_badness() of kernels that print it is one at least."""
        return max(points, 1) * 1000 // total_pages if self.printed else oom_score(points, total_pages)

    def selected(self) -> Row | None:
        """Whom the kernel chose; None if nobody, or one who is not in the ranking."""
        return next((self._row(one) for one in self.choice.ranking if one.pid == self.selected_pid), None)

    def runner_up(self) -> Row | None:
        """Who has the most points beside the one whom the kernel chose."""
        return next((self._row(one) for one in self.choice.ranking if one.pid != self.selected_pid), None)

    def why(self) -> str:
        """What gave the chosen one its points, in words and without a name; empty if nobody was chosen by points."""
        row = self.selected()
        if row is None or self.verdict == "allocating-task":
            return ""
        least = "at least " if row.task.swap_pages is None else ""
        said = f"it held {least}{_amount(row.held_pages, self.page_size_bytes)}"
        if self.total and 1 <= (share := row.held_pages * 1000 // self.total.pages) <= 1100:
            said += f", {'all' if share >= 995 else percent(row.held_pages, self.total.pages)} of {self.total.of}"
        adj = row.task.oom_score_adj
        if adj and self.total:
            change = "added" if adj > 0 else "took off"
            said += f"; its oom_score_adj of {adj} {change} {_amount(abs(row.adj_pages), self.page_size_bytes)}"
        if self.verdict == "same" and self.choice.ties:
            said += "; others had as many points, and the order in which the kernel looks decided"
        return said


@once
def recompute(report: OomReport) -> Recomputed:
    """Rank the rows of a report's task dump as the kernel did, and say whether they bear out its choice."""
    total, bonus = _settle(report)
    candidates = _candidates(report, bonus)
    if report.selected_score is not None:
        candidates.reverse()  # kernels that print a score keep the first of equals
    choice = choose(candidates, total.pages if total else 0)
    selected = _selected(report)
    verdict, reason = _judge(report, choice, selected, total)
    return Recomputed(
        verdict=verdict,
        reason=reason,
        choice=choice,
        total=total,
        selected_pid=selected.pid if selected else None,
        page_size_bytes=report.page_size_bytes,
        tasks={task.pid: task for task in report.tasks or ()},
        printed=report.selected_score is not None,
    )


# -- what the rows say -------------------------------------------------------------------------------------------------

_PAGE_BYTES = 4096  # where no buddy list tells the size: only page tables printed in bytes depend on it

# What root is let off: percent of its memory, and points of oom_score_adj. The bonus came with the formula as 30
# points, became 3 % in 778c14affaf9 (v3.14, and backports) and was removed in d46078b28889 (v4.17). It is earned by
# CAP_SYS_ADMIN, not by the uid: root in a container goes without.
_Bonus = tuple[int, int]
_NONE, _PERCENT, _POINTS = (0, 0), (3, 0), (0, 30)


def _candidates(report: OomReport, bonus: _Bonus) -> list[Candidate]:
    """The rows in printed order, which is the order of the scan. A row without its memory or its adj is left out."""
    rows = []
    page_bytes = report.page_size_bytes
    for task in report.tasks or ():
        adj = task.oom_score_adj
        if adj is None or task.rss_pages is None:
            continue
        exempt = "its oom_score_adj is -1000" if adj == OOM_SCORE_ADJ_MIN else None
        pages = _held_pages(task, page_bytes)
        if task.uid == 0:
            pages, adj = pages - pages * bonus[0] // 100, adj - bonus[1]
        rows.append((task.pid, pages, adj, exempt, None))
    return list(map(tuple.__new__, repeat(Candidate), rows))  # Candidate(...) is a call of Python code for each


def _held_pages(task: Task, page_bytes: int | None) -> int:
    """All that counts of a row. Page tables: nr_ptes and nr_pmds are pages of them, pgtables_bytes is all levels."""
    tables = (task.nr_ptes or 0) + (task.nr_pmds or 0) + (task.pgtables_bytes or 0) // (page_bytes or _PAGE_BYTES)
    return (task.rss_pages or 0) + (task.swap_pages or 0) + tables


def _settle(report: OomReport) -> tuple[Total | None, _Bonus]:
    """The total and root's bonus: the ones that give the printed score, where one is printed and they do.

    Else the bonus is told by the columns for page tables: nr_ptes until 4.14, pgtables_bytes since.
    """
    total = _total(report)
    if report.selected_score is None:
        return total, _NONE
    columns = report.task_columns or ()
    usual = _PERCENT if "nr_ptes" in columns else _NONE if "pgtables_bytes" in columns else _POINTS
    task = _selected(report)
    if task is None or total is None or task.oom_score_adj is None:
        return total, usual
    held = _held_pages(task, report.page_size_bytes)
    for pages in dict.fromkeys((total.pages, total.most_pages or total.pages)):
        for bonus in (_NONE, _PERCENT, _POINTS) if task.uid == 0 else (_NONE,):
            points = held - held * bonus[0] // 100 + (task.oom_score_adj - bonus[1]) * (pages // 1000)
            if max(points, 1) * 1000 // pages == report.selected_score:
                known = Total(pages=pages, most_pages=pages, of=total.of)
                return known, bonus if task.uid == 0 else usual
    return total, usual


# -- what they are shares of -------------------------------------------------------------------------------------------


def _total(report: OomReport) -> Total | None:
    """constrained_alloc() in mm/oom_kill.c; None: not in this text."""
    memory, page_bytes = report.memory, report.page_size_bytes or _PAGE_BYTES
    if memory is None:
        return _memcg_total(report.memcg, page_bytes)
    swap = (memory.swap_total_bytes or 0) // page_bytes
    limited = {"CONSTRAINT_CPUSET": report.mems_allowed, "CONSTRAINT_MEMORY_POLICY": report.nodemask}
    if nodes := limited.get(report.scope or ""):
        pages = _present_pages(memory, parse_nodes(nodes), page_bytes)
        # Older kernels took node_spanned_pages(), holes and all, which no report tells.
        return Total(pages=pages + swap, most_pages=None, of="the memory of the nodes it may use") if pages else None
    pages = _managed_pages(memory, page_bytes)
    of = "all memory and swap" if swap else "all memory"
    return Total(pages=pages + swap, most_pages=pages + swap, of=of) if pages else None


def _present_pages(memory: Memory, nodes: frozenset[int], page_bytes: int) -> int:
    """node_present_pages() of those nodes; 0 if one of their zones does not tell."""
    zones = [zone.present_bytes for zone in memory.zones if zone.node in nodes]
    return 0 if None in zones else sum(filter(None, zones)) // page_bytes


def _managed_pages(memory: Memory, page_bytes: int) -> int:
    """totalram_pages(); 0 if the text does not tell.

    It is what the zones manage, if all are in the text: together they have "pages RAM". Else "RAM" less "reserved",
    which is the same except in older kernels: they count reserved page by page, and get below zero.
    """
    present = sum(zone.present_bytes or 0 for zone in memory.zones) // page_bytes
    managed = sum(zone.managed_bytes or 0 for zone in memory.zones) // page_bytes
    ram, reserved = figure(memory.totals, "RAM"), figure(memory.totals, "reserved")
    if managed and present == ram:
        return managed
    return max(ram - reserved, 0) if ram is not None and reserved is not None else 0


def _memcg_total(memcg: Memcg | None, page_bytes: int) -> Total | None:
    """mem_cgroup_get_max() in mm/memcontrol.c: the limit, and the swap that the group may use of what the machine has.

    How much the machine has is not printed.
    """
    memory = memcg.usage("memory") if memcg else None
    if memcg is None or memory is None or not isinstance(memory.limit_bytes, int):
        return None
    limit, most = memory.limit_bytes // page_bytes, None
    swap, both = memcg.usage("swap"), memcg.usage("memory+swap")
    if swap is not None and isinstance(swap.limit_bytes, int):
        most = limit + swap.limit_bytes // page_bytes
    elif both is not None and isinstance(both.limit_bytes, int):
        most = max(limit, both.limit_bytes // page_bytes)
    return Total(pages=max(limit, 1), most_pages=most, of="the limit")


def parse_nodes(text: str | None) -> frozenset[int]:
    """Read a list of nodes as the kernel prints it, `0-1,4`; empty if it is none.

    >>> sorted(parse_nodes("0-1,4"))
    [0, 1, 4]
    """
    nodes: set[int] = set()
    for word in (text or "").split(","):
        match = re.fullmatch(r"([0-9]{1,4})(?:-([0-9]{1,4}))?", word)
        if match is None or (last := int(match[2] or match[1])) > 1023:  # MAX_NUMNODES is 1024
            return frozenset()
        nodes.update(range(int(match[1]), last + 1))
    return frozenset(nodes)


# -- whether it is the kernel's choice ---------------------------------------------------------------------------------

# The table is printed after the choice, while others run. What both read moves in steps: until 6.1 a thread keeps up to
# 64 pages to itself (TASK_RSS_EVENTS_THRESH in mm/memory.c), since f1a7941243c1 (v6.2) a CPU keeps percpu_counter_batch
# of them, 32 at least. So two processes that are within a step of each may have changed places.
_STEP_PAGES = 64

_UNSEEN = (
    "passed over for what no report tells: killed before and not yet gone (MMF_OOM_SKIP), in vfork, or a fault of this "
    "kernel"
)


def _selected(report: OomReport) -> Task | None:
    """The row of the chosen one. Without a select line it is the one killed: since 5.1 they are the same."""
    pid = report.selected_pid
    if pid is None and report.victim:
        pid = report.victim.pid
    return next((task for task in report.tasks or () if task.pid == pid or task.tgid == pid), None)


def _judge(report: OomReport, choice: Choice, selected: Task | None, total: Total | None) -> tuple[str, str]:
    """The verdict and its reason."""
    if report.tasks is None:
        return "no-table", "there is no task table in this text"
    if _is_old_formula(report):
        return "old-formula", "before 2.6.36 address space, CPU time and age counted, which the table does not hold"
    if not report.kills and report.selected_pid is None:
        return _judge_none(report, choice)
    if report.mode == "oom_kill_allocating_task":
        return "allocating-task", "vm.oom_kill_allocating_task is set: whoever asks for memory dies, whatever its score"
    candidate = next((one for one in choice.ranking if selected is not None and one.pid == selected.pid), None)
    if candidate is None:
        return "not-listed", "the chosen one is in no row: the table is cut, it is a thread of another, or it had ended"
    if candidate != choice.chosen:
        return _judge_other(report, choice, candidate, total)
    if report.selected_score is not None and report.kills and report.kills[0].pid != candidate.pid:
        # Removed in bbbe48029720 ("mm, oom: remove 'prefer children over parent' heuristic", v5.1).
        return "child", "the chosen one has the most points; a child of it with memory of its own died in its place"
    return "same", "the chosen one has the most points"


def _is_old_formula(report: OomReport) -> bool:
    """Badness as it was before a63d83f427fb ("oom: badness heuristic rewrite", v2.6.36) brought oom_score_adj."""
    columns, trigger = report.task_columns or (), report.trigger
    if columns:
        return "oom_adj" in columns and "oom_score_adj" not in columns
    return trigger is not None and trigger.oom_adj is not None and trigger.oom_score_adj is None


def _judge_none(report: OomReport, choice: Choice) -> tuple[str, str]:
    """Of a report that tells of nobody who was chosen."""
    if report.panic and not report.no_killable:
        return "panic", "vm.panic_on_oom is set: the kernel stopped before it chose"
    if not report.no_killable:
        return "cut", "the text ends before it says who was chosen"
    if choice.chosen is None:
        return "nobody", "all in the table are exempt" if report.tasks else "there was nobody to choose from"
    return "ruled-out", f"{len(choice.ranking)} in the table had an oom_score_adj above -1000, {_UNSEEN}"


def _judge_other(report: OomReport, choice: Choice, candidate: Candidate, total: Total | None) -> tuple[str, str]:
    """Of a report in whose rows another comes first."""
    points, above = choice.points(candidate), choice.points(choice.ranking[0])
    if points == above:
        return "tie", "another has as many points, and the order in which the kernel looks decided"
    if above <= 1:  # oom_badness() made 1 of whatever is less, until 9066e5cfb73c (v5.9)
        return "tie", "nobody has more than one point, and until 5.9 all who have not are equal"
    if (total is None or total.most_pages != total.pages) and _can_come_first(choice, candidate, total):
        return "total", "who has the most points depends on how much memory and swap there is, which is not printed"
    if all(task.swap_pages is None for task in report.tasks or ()):
        return "uncounted", "swap counts too, and the table does not hold it"
    if above - points <= 2 * _STEP_PAGES:
        return "printed-later", f"{above - points} pages lie between the two, and the table is printed after the choice"
    count = sum(1 for other in choice.ranking if choice.points(other) > points)
    return "ruled-out", f"{count} in the table had more points, {_UNSEEN}"


def _can_come_first(choice: Choice, candidate: Candidate, total: Total | None) -> bool:
    """Is there a total, from the one reckoned with up to the most it can be, that gives it the most points?"""
    least = choice.total_pages // 1000
    most = total.most_pages // 1000 if total and total.most_pages is not None else None
    for other in choice.ranking:  # it stays before another as long as pages + adj * total >= 0
        pages, adj = candidate.pages - other.pages, candidate.adj - other.adj
        if adj > 0:
            least = max(least, -(pages // adj))
        elif adj < 0:
            most = pages // -adj if most is None else min(most, pages // -adj)
        elif pages < 0:
            return False
    return most is None or least <= most


def _amount(pages: int, page_bytes: int | None) -> str:
    return f"{pages} pages" if page_bytes is None else size(pages * page_bytes)

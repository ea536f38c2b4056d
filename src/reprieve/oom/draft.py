"""One out-of-memory event, as its lines come: what each line says, by its own shape, and what follows from all.

Printed by mm/oom_kill.c: dump_header(), oom_kill_process(), __oom_kill_process(), out_of_memory().
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise
from operator import itemgetter
from typing import Any

from reprieve.model.oom import AllocationFailure, Kill, Memcg, Memory, OomReport, Task, Trigger
from reprieve.oom.line import Line
from reprieve.oom.lines import caller, host, stamp, uptime_s
from reprieve.oom.memory import MemcgDraft, MemoryDraft, page_size, parse_allocation_failure
from reprieve.oom.paths import workload
from reprieve.oom.pattern import compiled
from reprieve.oom.tables import LEADS, last_number, parse_header, parse_kill, parse_rows

# 2.6.18 and before print no name; whoever quotes the words in a line of its own has more before them than a name.
_TRIGGER = r"(?P<comm>.{0,80}?)\s{0,8}(?:\binvoked )?oom-killer(?::|$)(?P<rest>.*)"
_FLAGS = r"gfp_mask=(0x[0-9a-f]{1,16})(?=[(,]|\s*$)(?:\(([A-Z0-9_|x]*)\))?"
_CPU = (
    r"CPU:? ?(?P<cpu>[0-9]{1,6})(?: UID: (?P<uid>[0-9]{1,10}))? PID: (?P<pid>[0-9]{1,10}) Comm: (?P<comm>.{0,60}?)"
    r" (?:Kdump: loaded )?(?:Not tainted|Tainted: (?P<taint>[A-Z -]{1,60}?)) +(?P<kernel>\d\S*)"  # RHEL prints dashes
)
_OLD_CPU = (  # to 3.9; the order of the words changed with dump_stack_print_info(), 196779b9b4ce (v3.10)
    r"Pid: (?P<pid>[0-9]{1,10}), comm: (?P<comm>.{0,60}?)"
    r" (?:Not tainted|Tainted: (?P<taint>[A-Z -]{1,60}?)) +(?P<kernel>\d\S*)"
)
_PRINTS_BOTH = r"2\.|3\.[0-7](?!\d)"  # kernels that tell a memory cgroup's usage and Mem-Info in one report
_CPUSET = r".{0,60} cpuset=(\S+) mems_allowed=([\d,-]+)"
_FRAME = (  # on ARM that of who called; the place in the source is put behind by decode_stacktrace.sh, and by syzbot
    r"(?:.*\] |[\w.]+ from )?(?:\? )?\(?([A-Za-z_][\w.]*)"
    r"(?:\+0x[0-9a-f]+| \([\w./-]+:[0-9?]+|  ?[\w./-]+:[0-9]+ \[inline\])"
)
_FRAME_LENGTH = 200  # longer ones are of nobody's kernel, and would be kept
_STACK = r"(?:Stack ?:)?[\s0-9a-f]+$|[0-9a-f]{4}:\s|[\w.]+ from [\w.]+\+0x"  # its words; a frame as ARM has it
_SELECT = (  # "and children." until 2.6.18
    r"[\s*\-|•`]*(?P<lead>[^:]{0,60}: )?[Kk]ill process (?P<pid>[0-9]{1,10}) \((?P<comm>.{0,60}?)\) "
    r"score (?P<score>[0-9]{1,20})(?(lead)(?: (?:or|and)\b|\s*$)| (?:or|and)\b)"
)
_CONSTRAINT = r"\s*oom-kill:constraint=(\w+)"
# Names in it are of strangers and may hold commas: each ends where the next field begins.
_CONTEXT = (
    ("nodemask", r",nodemask=([^=]{0,4096}?),(?:cpuset=|mems_allowed=|global_oom|oom_memcg=|task_memcg=|task=)"),
    ("cpuset", r",cpuset=(.{0,4096}?),mems_allowed="),
    ("mems_allowed", r",mems_allowed=([\d,-]*\d)(?=,[a-z]|\s|$)"),
    # People leave fields out.
    ("oom_memcg", r", {0,8}oom_memcg=(?:(.{0,4096}?),task_memcg=|([^,]{1,4096})(?=, {0,8}task=))"),
    ("task_memcg", r",task_memcg=(.{0,4096}?),task="),
    ("selected_comm", r",task=(?:(.{0,60}),pid=[0-9]|([^,]{1,60})$)"),
)
_CONSTRAINT_LENGTH = 16384  # its two paths are of at most 4096 bytes, its two lists of nodes much shorter
_TASK_IN = r"Task in (?P<task>/.*) killed as a result of limit of (?P<limit>/.*)"
_GROUP = r"\s*Tasks in (/.*) are going to be killed due to memory\.oom\.group set"
_REAPED = r"\s*oom_reaper: reaped process ([0-9]{1,10}) \("
_NOBODY = r"\s*(?:Memory cgroup o|O)ut of memory and no killable process"
_SYSRQ_WORKERS = ("kworker/", "events/")  # moom_callback() in drivers/tty/sysrq.c runs in one
_SLOW_CONSOLE_S = 300.0  # a report of a thousand tasks at 9600 baud takes two minutes
_OOM_PANIC = ("ut of memory", "deadlocked on memory", "panic_on_oom")
_ABOUT_CPU = (  # what dump_stack() and show_regs() print beside the call trace, on all architectures
    "Call Trace", "Call trace", "Backtrace", "Exception stack", "Stack", "Workqueue:", "Tainted:", "Modules linked in:",
    "<TASK>", "</TASK>", "<IRQ>", "</IRQ>", "<EOI>", "<NMI>", "RIP:", "RSP:", "RAX:", "RDX:", "RBP:", "R10:", "R13:",
    "Code:", "ORIG_RAX", "EIP:", "EAX:", "ESI:", "DS:", "CS:", "FS:", "CR2:", "pc :", "lr :", "sp :", "pstate:", "r10:",
    "r7:", "NIP", "LR", "MSR:", "XER:", "CTR:", "GPR", "CFAR", "--- interrupt", "---[", "epc :", "Krnl", "$ 0",
    "COMPACTION is disabled", "Kernel Offset", "dump_slub", "[ dump_slubinfo",
)  # fmt: skip
_MOST_LINES = 5_000  # of one event, beside its tasks: a hundred thousand echoes of one kill are no more evidence
_MOST_TASKS = 20_000  # of one table: 17 MB of facts, and the tool is run where memory has run out
_MOST_KILLS = 32_768  # of one group
_PAGE_SIZES = (4096, 8192, 16384, 65536)
_OF_A_BLOCK = (
    None,
    "cpu",
    "cpuset",
    "title",
    "header",
    "table",
)  # kinds that say nothing without the lines around them
_BEGIN = ("trigger", "sysrq", "failure")  # kinds that begin an event, and say nothing about the one before
_CLAIMED = itemgetter(0, 1)  # number and text of a line


class Draft:
    """An event being read: `take` claims a line of it, or leaves the line to others."""

    def __init__(self, source: str, first: Line) -> None:
        self.source = source
        self.first = first
        self.caller = caller(first.head)
        self.host = host(first.head)  # whose it is, where that tells
        self.headed = False  # its lines have prefixes
        self.crowded = False  # another report was begun and not ended before: lines may be of either
        self.mixed = False  # lines of two reports alternate: only what a single line says can be believed
        self.last_line = first.number
        self.facts: dict[str, Any] = {}  # fields of the noun
        self.claimed: list[tuple[int, str]] = []
        self.room = _MOST_LINES  # for lines to claim; each task brings its own
        self.last_text = self.last_head = ""  # of the line claimed last
        self.stack: list[str] = []
        self.columns: tuple[str, ...] | None = None
        self.tasks: dict[int, Task] | None = None  # by pid, in printed order
        self.rows_left_out = 0
        self.kills: dict[int, Kill] = {}  # by pid, in printed order
        self.reaped: set[int] = set()
        self.ended = False  # by a kill, a panic, or the word that nobody could be killed
        self.failure: AllocationFailure | None = None  # the other kind of report, of which nobody dies
        self.has_memory = self.has_mem_info = self.has_memcg = False
        self.memory = MemoryDraft()
        self.memcg = MemcgDraft()

    def is_cut(self) -> bool:
        """It was begun by a trigger, and no end of it has been seen."""
        return not self.ended and "trigger" in self.facts

    def take(self, kind: str | None, lines: Sequence[Line]) -> int:
        """How many of these lines of one kind, from the first on, are this event's, or nobody's."""
        read = kind == "table" and not (self.failure or self.ended)
        rows = parse_rows(lines, self.columns) if read else ()
        if rows and self._take_table(lines, rows):
            return len(lines)
        for taken, (line, claimed) in enumerate(zip(lines, map(_CLAIMED, lines), strict=True)):
            number, text = claimed
            head = line.head
            if text == self.last_text and head == self.last_head:
                continue  # the echo of a console
            if (self.crowded or self.mixed) and self._is_of_either(kind, line):
                continue
            if kind is None:
                if self.ended or not ((not self.has_memory and self._take_about_cpu(line)) or self._take_memory(line)):
                    return taken
            elif taken < len(rows):
                self._take_row(rows[taken])
            elif not _READERS[kind](self, line):
                return taken
            self.last_text, self.last_head = text, head
            if head:
                self.headed = True
            if number > self.last_line:
                self.last_line = number
            if self.room:
                self.room -= 1
                self.claimed.append(claimed)
        return len(lines)

    def _is_of_either(self, kind: str | None, line: Line) -> bool:
        """Of lines of two reports that may alternate: does it say nothing without those around it?"""
        if self.crowded and not self.mixed and kind not in _BEGIN:
            named = bool(line.head or kind)  # a bare line that is nobody's is no sign
            self.mixed = (named and caller(line.head) != self.caller) or not self._is_near(line)
        return self.mixed and kind in _OF_A_BLOCK

    # -- the beginning -------------------------------------------------------------------------------------------------

    def _take_trigger(self, line: Line) -> bool:
        match = compiled(_TRIGGER).match(line.text)
        if match is None or (self.claimed and not ("anual OOM" in self.claimed[-1][1] and not self.ended)):
            return False
        comm, rest = match["comm"].strip(), match["rest"]
        invoked = "invoked oom-killer" in line.text
        if len(comm) > 15 and len(re.sub(r"\\x[0-9a-f]{2}", "?", comm)) > 15:
            return False
        if "gfp_mask=%" in rest or "gfp_mask=0x%" in rest:
            return False  # somebody else's words about it, or the kernel's source
        if not invoked and (comm or "gfp_mask=" not in rest):
            return False
        order = last_number("order=", "-?[0-9]{1,2}", rest, line.whole)
        if self.claimed and order != -1 and not comm.startswith(_SYSRQ_WORKERS):
            return False  # somebody else's: sysrq-f is carried out by a worker
        old_adj = "oomkilladj=" if "oomkilladj=" in rest else "oom_adj="
        flags = compiled(_FLAGS).search(rest)
        if flags and not line.whole and flags.end() == len(rest):
            flags = None
        self.facts["trigger"] = Trigger(
            line=line.number,
            comm=comm if invoked and comm else None,
            gfp_mask=int(flags[1], 16) if flags else None,
            gfp_flags=tuple(flags[2].split("|")) if flags and flags[2] else (),
            order=order,
            oom_score_adj=last_number("oom_score_adj=", "-?[0-9]{1,6}", rest, line.whole),
            oom_adj=last_number(old_adj, "-?[0-9]{1,6}", rest, line.whole),
        )
        return True

    def _take_sysrq(self, line: Line) -> bool:
        if self.claimed or "anual OOM" not in line.text:
            return False
        self.facts["sysrq"] = True
        return True

    def _take_cpu(self, line: Line) -> bool:
        match = compiled(_CPU).search(line.text) or compiled(_OLD_CPU).search(line.text)
        if match is None or not self._begun() or self.ended or (self._is_past_stack() and not self.crowded):
            return False
        said = match.groupdict()
        if "kernel" in self.facts or (self.crowded and said["comm"] != self.facts["trigger"].comm):
            return self._begins_again()
        trigger: Trigger | None = self.facts.get("trigger")
        comm, uid = said["comm"], said.get("uid")
        if trigger is not None and (trigger.comm is None or comm == trigger.comm or self._is_end_of(comm)):
            self.facts["trigger"] = replace(trigger, comm=comm, pid=int(said["pid"]), uid=int(uid) if uid else None)
        self.facts["kernel"] = said["kernel"] if line.whole or match.end() < len(line.text) else None
        self.facts["tainted"] = re.sub("[ -]", "", said["taint"] or "")
        self.facts["cpu"] = int(said["cpu"]) if said.get("cpu") else None
        return True

    def _is_end_of(self, comm: str) -> bool:
        """The first line of the text lacks its beginning, and with it that of the name; this is the whole name."""
        return self.first.number == 1 and not self.first.head and self.first.text.partition(" invoked ")[0] in comm

    def _take_cpuset(self, line: Line) -> bool:
        match = compiled(_CPUSET).match(line.text)
        if match is None or self._is_past_stack() or not self._begun():
            return False
        self.facts["cpuset"] = match[1]
        if line.whole or match.end() < len(line.text):
            self.facts["mems_allowed"] = match[2]
        return True

    def _take_about_cpu(self, line: Line) -> bool:
        """Call trace, registers and what else dump_stack() prints, between the trigger and the memory."""
        if self._is_past_stack() or not self._begun():
            return False
        text = line.text.lstrip(" ")
        if (frame := _frame(text) if len(text) <= _FRAME_LENGTH else _frame.__wrapped__(text)) is not None:
            self.stack.append(frame)
            return True
        if text.startswith("Hardware name:"):
            self.facts["hardware"] = text.removeprefix("Hardware name:").strip() if line.whole else None
            return True
        return text.startswith(_ABOUT_CPU) or compiled(_STACK).match(text) is not None

    def _is_of_others(self) -> bool:
        """In a mix of two reports, whose lines these are is not known; a line that begins a draft is its own."""
        return self.mixed and bool(self.claimed)

    def _begun(self) -> bool:
        return self.failure is not None or "trigger" in self.facts

    def _is_past_stack(self) -> bool:
        return self.ended or self.has_memory or self.tasks is not None

    # -- the memory ----------------------------------------------------------------------------------------------------

    def _take_memory(self, line: Line) -> bool:
        number, text, whole, headed = line.number, line.text, line.whole, bool(line.head)
        if self.has_memory and text.startswith(("Mem-", "memory: usage")) and not self._goes_on_with_mem_info(text):
            return self._begins_again()
        if self.has_memcg and self.memcg.take(number, text, whole, headed=headed):
            pass  # what either block takes the other does not: the one that is being told is asked first
        elif self.memory.take(number, text, whole, headed=headed):
            self.has_mem_info = self.has_mem_info or text.startswith("Mem-")
        elif self.failure is None and self.memcg.take(number, text, whole, headed=headed):
            self.has_memcg = self.has_memcg or text.startswith("memory: usage")
        else:
            return False
        self.has_memory = True
        if self.has_mem_info and self.has_memcg and not compiled(_PRINTS_BOTH).match(self.facts.get("kernel") or ""):
            self._begins_again()  # of two events
        return True

    def _goes_on_with_mem_info(self, text: str) -> bool:
        """Until 3.8 a memory cgroup's usage was followed by Mem-Info, then by nothing of the cgroup's own."""
        behind_usage = self.has_memcg and not self.has_mem_info and not self.memcg.has_stats()
        return behind_usage and text.startswith("Mem-") and self.tasks is None and not self.ended

    # -- the tasks -----------------------------------------------------------------------------------------------------

    def _take_title(self, line: Line) -> bool:
        return not self.ended and not self.failure

    def _take_table(self, lines: Sequence[Line], rows: Sequence[Task]) -> bool:
        """All at once, as most tables stand there: each row once. False: they are to be taken one by one."""
        tasks = {} if self.tasks is None else self.tasks
        claimed = list(map(_CLAIMED, lines))
        told, texts = {row.pid: row for row in rows}, {text for _, text in claimed}
        if self.crowded or self.mixed or not len(lines) == len(rows) == len(told) == len(texts):
            return False
        if self.last_text in texts or len(tasks) + len(rows) > _MOST_TASKS or not told.keys().isdisjoint(tasks.keys()):
            return False
        tasks.update(told)
        self.tasks = tasks
        self.claimed += claimed  # each brings its own room
        self.last_text, self.last_head = lines[-1].text, lines[-1].head
        self.headed = self.headed or any(line.head for line in lines)
        self.last_line = max(self.last_line, max(claimed)[0])
        return True

    def _take_row(self, row: Task) -> None:
        if self.tasks is None:
            self.tasks = {}
        if row.pid in self.tasks:  # a line may be there twice
            return
        if len(self.tasks) == _MOST_TASKS:
            self.rows_left_out += 1
        else:
            self.tasks[row.pid] = row
            self.room += 1

    def _take_frame(self, line: Line) -> bool:
        """A line that begins as a row of the table does, and is none."""
        return not self.failure and self._take_about_cpu(line)

    def _take_header(self, line: Line) -> bool:
        if self.failure or self.ended:
            return False
        columns = parse_header(line.text)
        if columns is None:
            return self._take_about_cpu(line)
        if self.columns is not None:
            return self._begins_again()
        self.columns = columns if line.whole else None
        self.tasks = self.tasks or {}
        return True

    # -- whom it chose -------------------------------------------------------------------------------------------------

    def _take_constraint(self, line: Line) -> bool:
        match = compiled(_CONSTRAINT).match(line.text)
        if match is None or self.failure or self.ended or "selected_line" in self.facts or self._is_of_others():
            return False
        if not self._is_near(line):
            return False
        text = line.text[:_CONSTRAINT_LENGTH]
        whole = line.whole and text == line.text
        if whole or match.end() < len(text):
            self.facts["constraint"] = match[1]
        self.facts["constraint_line"] = self.facts["selected_line"] = line.number
        for name, pattern in _CONTEXT:
            found = compiled(pattern).search(text)
            if found and (whole or found.end(found.lastindex or 0) < len(text)):
                self.facts[name] = found[found.lastindex or 0]
        for name, field in (("selected_pid", ",pid="), ("selected_uid", ",uid=")):  # at its end: names stand before
            number = last_number(field, "[0-9]{1,10}", text[max(text.rfind(field), 0) :], whole)
            if number is not None:
                self.facts[name] = number
        return True

    def _take_select(self, line: Line) -> bool:
        match = compiled(_SELECT).match(line.text)
        if (
            match is None
            or (not line.whole and match.end() == len(line.text))
            or self.failure
            or self.ended
            or self._is_of_others()
            or not self._is_near(line)
        ):
            return False
        if "selected_line" in self.facts and not self._was_chosen(int(match["pid"])):
            return False
        lead = match["lead"] or ""
        if not self._fits(lead) or (lead and not lead.lower().startswith(LEADS)):  # else somebody quotes it
            return False
        self.facts["selected_line"] = line.number
        self.facts["selected_pid"] = int(match["pid"])
        self.facts["selected_comm"] = match["comm"]
        self.facts["selected_score"] = int(match["score"])
        self._note_lead(lead)
        return True

    def _was_chosen(self, pid: int) -> bool:
        """v5.0, between ef8444ea01d7 and bbbe48029720, says in two lines whom it chose: both are of one event."""
        behind_constraint = self.facts["selected_line"] == self.facts.get("constraint_line")
        return behind_constraint and self.facts.get("selected_pid") in (None, pid)

    def _take_task_in(self, line: Line) -> bool:
        match = compiled(_TASK_IN).match(line.text)
        if match is None or self.failure or self.ended or "oom_memcg" in self.facts or not self._is_near(line):
            return False
        self.facts["task_memcg"] = match["task"]
        if line.whole:
            self.facts["oom_memcg"] = match["limit"].rstrip()
        return True

    def _note_lead(self, lead: str) -> None:
        """The words before "Killed process" or "Kill process": out_of_memory() and its callers give them."""
        if "(oom_kill_allocating_task)" in lead:
            self.facts["mode"] = "oom_kill_allocating_task"
        if "emory cgroup" in lead:
            self.facts["constraint_inferred"] = "CONSTRAINT_MEMCG"
        elif "MPOL_BIND" in lead:
            self.facts["constraint_inferred"] = "CONSTRAINT_MEMORY_POLICY"
        elif "in cpuset" in lead:
            self.facts["constraint_inferred"] = "CONSTRAINT_CPUSET"
        elif lead.lstrip().lower().startswith("out of memory") and " in UB " not in lead:  # of an OpenVZ container
            self.facts["constraint_inferred"] = "global"

    # -- the end -------------------------------------------------------------------------------------------------------

    def _take_kill(self, line: Line) -> bool:
        kill = parse_kill(line.text, line=line.number, whole=line.whole)
        if kill is None or self.failure:
            return False
        known = self.kills.get(kill.pid)
        if known is not None:
            return _is_echo(known, kill) and self._is_near(line)
        if (self.kills and "group_path" not in self.facts) or not self._is_near(line):
            return False
        if len(self.kills) == _MOST_KILLS:
            return False
        lead = line.text.partition("illed process")[0][:-1]
        chosen = self.facts.get("selected_pid")
        one_line = "constraint" in self.facts and "selected_score" not in self.facts
        if not self.kills and chosen not in (None, kill.pid) and one_line:
            return False  # since 5.1 the chosen one is the one killed: this kill is another event's
        if (self._is_of_others() and chosen != kill.pid) or not self._fits(lead):
            return False
        row = (self.tasks or {}).get(kill.pid)
        pgtables = row.pgtables_bytes if row is not None else None
        if pgtables is not None and kill.pgtables_bytes == pgtables * 1024:
            kill = parse_kill(line.text, line=line.number, whole=line.whole, pgtables_bytes=pgtables) or kill
        self._note_lead(lead)
        self.kills[kill.pid] = kill
        self.ended = True
        return True

    def _is_near(self, line: Line) -> bool:
        """Not if its stamp is older than the first line's, or so late that no console is that slow."""
        first_s, this_s = uptime_s(self.first.head), uptime_s(line.head)
        return first_s is None or this_s is None or 0 <= this_s - first_s < _SLOW_CONSOLE_S

    def _fits(self, lead: str) -> bool:
        """The whole machine prints no usage of a cgroup; a memory cgroup no Mem-Info, or until 3.8 behind its own."""
        if "emory cgroup" in lead:
            return not self.has_mem_info or self.has_memcg or "task_memcg" in self.facts
        return not (lead and self.has_memcg)

    def _take_group(self, line: Line) -> bool:
        match = compiled(_GROUP).match(line.text)
        if match is None or self.failure or "group_path" in self.facts:
            return False
        self.facts["group_path"] = match[1]
        return True

    def reap(self, line: Line) -> bool:
        """True if the line says that the memory of a process killed here was taken."""
        match = compiled(_REAPED).match(line.text)
        if match is None or int(match[1]) not in self.kills:
            return False
        self.reaped.add(int(match[1]))
        return True

    def _take_no_killable(self, line: Line) -> bool:
        if line.text.lstrip().startswith("Kernel panic"):
            return self._take_panic(line)
        if self.failure or self.ended or self._is_of_others() or not compiled(_NOBODY).match(line.text):
            return False
        self.facts["no_killable"] = self.ended = True
        return True

    def _take_panic(self, line: Line) -> bool:
        text = line.text.lstrip()
        if not text.startswith("Kernel panic") or not any(words in text for words in _OOM_PANIC):
            return False
        if self.failure or self.kills or "panic" in self.facts or self._is_of_others():
            return False
        if line.whole:
            self.facts["panic"] = text.rstrip()
        if "no killable process" in text:
            self.facts["no_killable"] = True
        self.ended = True
        return True

    # -- the other kind of report --------------------------------------------------------------------------------------

    def _take_failure(self, line: Line) -> bool:
        parts = parse_allocation_failure(line.number, line.text, line.whole)
        if parts is None or self.claimed:
            return False
        self.failure = parts
        return True

    # -- out of it -----------------------------------------------------------------------------------------------------

    def _begins_again(self) -> bool:
        """A part that is printed once comes again: the next report lost its head, or lines of two reports alternate."""
        self.mixed = self.crowded
        return self.mixed

    def finish(self) -> OomReport | AllocationFailure | None:
        """The event, if it was one: memory figures alone are somebody's sysrq-m."""
        head = self.first.head
        memory = self.memory.memory()
        common: dict[str, Any] = {
            "source": self.source,
            "line": self.first.number,
            "last_line": self.last_line,
            "stamp": stamp(head),
            "lines": tuple(self.claimed),
        }
        if self.failure is not None:
            return replace(self.failure, memory=memory, page_size_bytes=page_size(memory), **common)
        facts = self.facts = dict(self.facts)
        if not (facts.keys() & _EVENT or self.kills or self.tasks is not None or self.memcg.memcg()):
            return None
        if self.mixed and self.crowded:  # read before it was noticed
            facts = self.facts = {name: facts[name] for name in ("trigger", "sysrq") if name in facts}
            memory, self.memcg, self.tasks, self.columns, self.stack = None, MemcgDraft(), None, None, []
        trigger: Trigger | None = facts.get("trigger")
        if trigger is not None and self.headed and not self.first.head and trigger.pid is None:
            facts["trigger"] = replace(trigger, comm=None)  # the text begins within this line, perhaps within the name
        memcg = self.memcg.memcg()
        facts |= common | {
            "host": self.host,
            "boot_id": self.first.boot_id,
            "verified": self.first.kernel,
            "kills": tuple(map(self._finished, self.kills.values())),
            "stack": tuple(self.stack),
            "tasks": None if self.tasks is None else tuple(self.tasks.values()),
            "task_columns": self.columns,
            "memory": memory,
            "memcg": memcg,
        }
        return OomReport(**facts | self._conclusions(memory, memcg) | {"missing": tuple(self._missing(memory, memcg))})

    def _conclusions(self, memory: Memory | None, memcg: Memcg | None) -> dict[str, Any]:
        """What follows from the parts together: page size, scope, whose cgroups these are."""
        facts = self.facts
        trigger: Trigger | None = facts.get("trigger")
        inferred = facts.get("constraint_inferred")
        if inferred is None and "constraint" not in facts:
            if (memcg and memcg.usages) or self._is_of_memcg():
                inferred = "CONSTRAINT_MEMCG"
            elif memory or "panic" in facts or any("alloc_pages" in name for name in self.stack):
                inferred = "global"  # NONE, CPUSET or MEMORY_POLICY; a memory cgroup prints no Mem-Info
        hit = facts.get("oom_memcg") or (memcg.stats[0].path if memcg and memcg.stats else None)
        of = facts.get("task_memcg")
        return {
            "sysrq": "sysrq" in facts or (trigger is not None and trigger.order == -1),
            "constraint_inferred": inferred,
            "page_size_bytes": page_size(memory) or self._page_size_of_victim(),
            "workload": workload(of) if of else None,
            "limit_of": workload(hit) if hit else None,
        }

    def _is_of_memcg(self) -> bool:
        """By a cgroup that is named, or by who called: until 4.1 a panic for a memory cgroup tells of all memory."""
        if "mem_cgroup_out_of_memory" in self.stack or self.facts.keys() & _OF_MEMCG:
            return True
        return ("check_panic_on_oom", "mem_cgroup_oom_synchronize") in pairwise(self.stack)

    def _page_size_of_victim(self) -> int | None:
        """total_vm is printed twice: in the victim's row in pages, in the kill line in kB."""
        for pid, kill in self.kills.items():
            task = (self.tasks or {}).get(pid)
            if task is not None and task.total_vm_pages and kill.total_vm_bytes:
                size_bytes, rest = divmod(kill.total_vm_bytes, task.total_vm_pages)
                return size_bytes if not rest and size_bytes in _PAGE_SIZES else None
        return None

    def _missing(self, memory: Memory | None, memcg: Memcg | None) -> Iterator[str]:
        """Parts that every kernel prints and this text lacks, in words; the task dump can be switched off.

        Until 2.6.35, which tells no oom_score_adj, it had to be switched on.
        """
        trigger: Trigger | None = self.facts.get("trigger")
        if trigger is None:
            yield "the line that says who asked for memory (“invoked oom-killer”)"
        if memory is None and memcg is None:
            yield "the memory figures"
        if self.tasks is None and (trigger is None or trigger.oom_score_adj is not None):
            yield "the task table (cut, or vm.oom_dump_tasks=0)"
        if self.rows_left_out:
            yield f"{self.rows_left_out:,} rows of the task table (the first {_MOST_TASKS:,} were read)"
        if not self.kills and not self.facts.keys() & {"no_killable", "panic"}:
            yield "the line that says who was killed (“Killed process”)"

    def _finished(self, kill: Kill) -> Kill:
        uid, reaped = kill.uid, kill.pid in self.reaped
        if uid is None and kill.pid == self.facts.get("selected_pid"):
            uid = self.facts.get("selected_uid")
        return kill if (uid, reaped) == (kill.uid, False) else replace(kill, uid=uid, reaped=reaped)


def _is_echo(known: Kill, kill: Kill) -> bool:
    """Of one pid: printed twice, by a group kill or a console? A pid is used again, sizes hardly are."""
    told = ((known.comm, kill.comm), (known.total_vm_bytes, kill.total_vm_bytes), (known.uid, kill.uid))
    return all(one == other or None in (one, other) for one, other in told)


@lru_cache(256)  # the kills of one kernel have their frames in common
def _frame(text: str) -> str | None:
    """The function that a line of a call trace names."""
    frame = compiled(_FRAME).match(text)
    return frame[1] if frame else None


_READERS = {
    "trigger": Draft._take_trigger,
    "kill": Draft._take_kill,
    "select": Draft._take_select,
    "constraint": Draft._take_constraint,
    "task_in": Draft._take_task_in,
    "group": Draft._take_group,
    "no_killable": Draft._take_no_killable,
    "panic": Draft._take_panic,
    "failure": Draft._take_failure,
    "reaped": Draft.reap,
    "cpuset": Draft._take_cpuset,
    "cpu": Draft._take_cpu,
    "sysrq": Draft._take_sysrq,
    "title": Draft._take_title,
    "header": Draft._take_header,
    "table": Draft._take_frame,
}
_OF_MEMCG = {"oom_memcg", "group_path"}
_EVENT = {"trigger", "selected_line", "task_memcg", "group_path", "no_killable", "panic"}  # any of these makes one

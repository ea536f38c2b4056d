"""Forms of the report that few logs show, each by itself."""

import tracemalloc

import pytest

from reprieve.model.oom import AllocationFailure, Kill, OomReport
from reprieve.oom.line import Line
from reprieve.oom.lines import read_lines
from reprieve.oom.report import read_reports
from reprieve.oom.tables import parse_header, parse_kill, parse_rows
from tests.labels import label
from tests.logs_of import all_logs


def read(text: str) -> list[OomReport]:
    return [event for event in read_reports(text) if isinstance(event, OomReport)]


def told(text: str) -> dict[str, object]:
    (event,) = read(text)
    return {name: value for name, value in label(event).items() if value not in (None, False, [], ())}


def test_the_reaper_is_no_kill() -> None:
    assert parse_kill("oom_reaper: reaped process 7 (sh), now anon-rss:0kB, file-rss:0kB, shmem-rss:0kB") is None


def test_a_cut_kill_line_is_still_a_kill() -> None:
    assert parse_kill("Out of memory: Killed process 7 (sh) total-vm:8") == Kill(line=1, pid=7, comm="sh")


def test_page_tables_that_were_bytes_and_called_kib_are_bytes() -> None:
    line = "Killed process 7 (java) total-vm:9kB, UID:0 pgtables:40960kB oom_score_adj:0"
    kill = parse_kill(line, pgtables_bytes=40960)
    assert kill is not None
    assert kill.pgtables_bytes == 40960


@pytest.mark.parametrize(
    "line",
    [
        'Oct 23 23:13:58 host dockerd[123]: time="2025" level=info msg="Killed process 3 (x)"',
        "Oct 23 23:13:58 host kubelet[3]: I1023 java invoked oom-killer: gfp_mask=0xd0",
        "Oct 23 23:13:58 host systemd[1]: foo.service: A process of this unit has been killed by the OOM killer.",
        "Oct 23 23:13:58 host earlyoom[9]: sending SIGTERM to process 7 uid 1000 “java”: oom_score 900",
        "Start for oom-killer",
        "killed process group leader 17",
        "somebody wrote about the oom-killer: it is bad",
        "2026-11-23 14:08:46 INFO Out of memory: Killed process 7 (java) total-vm:1kB was in the log",
        "kmalloc-2048           59164KB      59164KB",
        "RAX: 0000000000000000 RBX: ffff8880a9e14a08",
    ],
)
def test_the_words_of_others_are_no_event(line: str) -> None:
    assert read(f"{line}\n") == []


def test_a_failed_allocation_is_told_and_kills_nobody() -> None:
    text = (
        "[9.0] sshd: page allocation failure: order:4, mode:0x40dc0(GFP_KERNEL|__GFP_COMP), nodemask=(null)\n"
        "[9.0] CPU: 1 PID: 7 Comm: sshd Not tainted 6.1.0 #1\n[9.0] Mem-Info:\n"
        "[9.0] active_anon:1 inactive_anon:2 isolated_anon:0\n"
    )
    (failure,) = read_reports(text)
    assert isinstance(failure, AllocationFailure)
    assert (failure.comm, failure.order) == ("sshd", 4)
    assert failure.memory is not None


def test_a_failed_allocation_behind_a_kill_keeps_its_own_figures() -> None:
    text = (
        "[8.0] Out of memory: Killed process 7 (a) total-vm:8kB, anon-rss:4kB, file-rss:0kB\n"
        "[9.0] a: page allocation failure: order:0, mode:0x40dc0(GFP_KERNEL)\n[9.0] Mem-Info:\n"
        "[9.0] active_anon:1 inactive_anon:2 isolated_anon:0\n"
    )
    kill, failure = read_reports(text)
    assert isinstance(kill, OomReport)
    assert kill.memory is None
    assert isinstance(failure, AllocationFailure)


def test_figures_of_memory_alone_are_no_event() -> None:
    assert read("[9.0] Mem-Info:\n[9.0] active_anon:1 inactive_anon:2 isolated_anon:0\n[9.0] 65406 pages RAM\n") == []


def test_2_6_10_names_nobody_who_asked() -> None:
    text = "oom-killer: gfp_mask=0xd2\nFree pages:  1796kB (112kB HighMem)\nOut of Memory: Killed process 12 (java).\n"
    assert told(text)["gfp_mask"] == "0xd2"
    assert (told(text)["victim"], "trigger" in told(text)) == ("java", False)


def test_2_6_24_kills_a_child_of_whom_it_selects() -> None:
    text = (
        "[1.0] apache2 invoked oom-killer: gfp_mask=0x1201d2, order=0, oomkilladj=-3\n"
        "[1.1] Out of memory: kill process 4455 (apache2) score 32222 or a child\n[1.2] Killed process 4456 (apache2)\n"
    )
    found = told(text)
    assert (found["selected_pid"], found["victim_pid"], found["trigger_oom_adj"]) == (4455, 4456, -3)


def test_5_0_says_in_two_lines_whom_it_chose_and_may_kill_a_child() -> None:
    constraint = (
        "[1.0] oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),global_oom,task_memcg=/a,task=sh,pid=38,uid=3\n"
    )
    select = "[1.1] Out of memory: Kill process 38 (sh) score 22 or sacrifice child\n"
    found = told(f"{constraint}{select}[1.2] Killed process 52 (make) total-vm:8kB, anon-rss:4kB, file-rss:0kB\n")
    assert (found["selected_pid"], found["kill_score"], found["victim_pid"]) == (38, 22, 52)
    assert (found["constraint"], found["task_memcg"]) == ("CONSTRAINT_NONE", "/a")
    assert len(read(constraint + select.replace("38", "39"))) == 2


@pytest.mark.parametrize(
    "rest", [",task_memcg=/a,task=sh,pid=38,uid=3", ",task_memcg=/a,task=sh,", ",task_me", "/b", ""]
)
def test_a_name_in_the_line_of_the_constraint_is_no_kill_wherever_that_is_cut(rest: str) -> None:
    kill = "[1.000002] Memory cgroup out of memory: Killed process {} (sh) total-vm:8kB, anon-rss:4kB, file-rss:0kB"
    line = "[1.000001] oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),oom_memcg=/x,task=x,pid=1,uid=0"
    text = f"{line}{kill.format(1)}{rest}\n{kill.format(38)}\n"
    assert [one.pid for event in read(text) if isinstance(event, OomReport) for one in event.kills] == [38]


def test_whom_the_line_of_the_constraint_names_stands_at_its_end() -> None:
    line = "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),oom_memcg=/x,pid=1,uid=0,task_memcg=/x,pid=1,uid=0,"
    found = told(f"{line}task=sh,pid=38,uid=3\nMemory cgroup out of memory: Killed process 38 (sh) total-vm:8kB\n")
    assert (found["victim_pid"], found["selected_pid"], found["uid"]) == (38, 38, 3)


def test_a_limit_is_named_where_people_left_fields_out() -> None:
    constraint = "oom-kill:constraint=CONSTRAINT_MEMCG, oom_memcg=/a/b.scope, task=git,pid=38,uid=3\n"
    assert told(constraint)["oom_memcg"] == "/a/b.scope"


def test_behind_a_stamped_line_a_message_without_one_is_no_rest_of_it() -> None:
    text = (
        "[Sat May  2 09:17:40 2026] python invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=944\n"
        "Memory cgroup out of memory: Killed process 7 (python) total-vm:8kB, anon-rss:4kB, file-rss:0kB\n"
        "Tasks in /a are going to be killed due to memory.oom.group set\n```\n"
    )
    found = told(text)
    assert (found["trigger"], found["victim_pid"], found["anon_rss_kb"]) == ("python", 7, 4)
    head = "Nov 14 15:23:48 oldserver kernel: [337631.991218] "
    broken = f"{head}Memory cgroup out of memory:\nKilled process 7 (a) total-vm:8kB\n"
    assert told(broken)["constraint_inferred"] == "CONSTRAINT_MEMCG"


def test_until_2_6_18_the_score_is_of_a_process_and_children() -> None:
    found = told(
        "oom-killer: gfp_mask=0x201d2, order=0\nOut of Memory: Kill process 4567 (java) score 29393 and children.\n"
        "Out of memory: Killed process 4568 (java).\n"
    )
    assert (found["selected_pid"], found["kill_score"], found["victim_pid"]) == (4567, 29393, 4568)


def test_a_score_that_ends_its_line_is_told_if_the_line_is_whole() -> None:
    line = "[Thu Mar  5 18:10:25 2026] Out of memory: Kill process 3558 (java) score 134"
    assert told(f"{line}\n")["kill_score"] == 134
    assert read(line) == []


def test_openvz_kills_in_a_container() -> None:
    """From http://kb.plesk.com/en/123671."""
    found = told(
        "Nov 24 12:17:04 hwnode kernel: [758955.653313] Out of memory in UB 1234: OOM \n"
        "killed process 21738 (php-cgi) score 0 vm:281988kB, rss:17004kB, swap:0kB\n"
    )
    assert (found["victim_pid"], found["victim"], found["total_vm_kb"]) == (21738, "php-cgi", 281988)
    assert "constraint_inferred" not in found


def test_a_selection_that_is_cut_by_hand_has_its_name() -> None:
    """From a public note on QEMU bound to one NUMA node."""
    found = told(
        "oom-kill:constraint=CONSTRAINT_CPUSET,nodemask=(null),cpuset=emulator,mems_allowed=0,global_oom,"
        "task=qemu-system-x86\nOut of memory: Killed process 886679 (qemu-system-x86) total-vm:19254864kB\n"
    )
    assert (found["constraint"], found["selected"]) == ("CONSTRAINT_CPUSET", "qemu-system-x86")


def test_a_mail_that_took_a_log_for_prose_is_taken_apart() -> None:
    """S/390 with Linux 2.6.28, quoted on linux-mm in March 2009."""
    text = """\
> Mar 16 21:40:40 t6360003 kernel: basename invoked oom-killer:
> gfp_mask=0xd0, order=2, oomkilladj=0 Mar 16 21:40:40 t6360003 kernel: CPU:
> 0 Not tainted 2.6.28 #1
> Mar 16 21:40:40 t6360003 kernel: 564 pages in swap cache
> Mar 16 21:40:40 t6360003 kernel: Swap cache stats: add 1106206, delete
> 1105642, find 599107/618721 Mar 16 21:40:40 t6360003 kernel: Free swap  =
> 1959300kB
> Mar 16 21:40:40 t6360003 kernel: Total swap = 1999992kB
> Mar 16 21:40:40 t6360003 kernel: Out of memory: kill process 30502 (cc1)
> score 3672 or a child Mar 16 21:40:40 t6360003 kernel: Killed process 30502
> (cc1)
> Mar 17 01:33:12 t6360003 kernel: sh invoked oom-killer: gfp_mask=0xd0,
> order=2, oomkilladj=0 Mar 17 01:33:12 t6360003 kernel: CPU: 5 Not tainted
> 2.6.28 #1
"""
    first, second = map(label, read(text))
    assert (first["trigger"], first["order"], first["victim_pid"], first["victim"]) == ("basename", 2, 30502, "cc1")
    assert (first["swap_free_kb"], first["swap_total_kb"], first["kill_score"]) == (1959300, 1999992, 3672)
    assert (second["trigger"], second["victim_pid"]) == ("sh", None)


def test_lines_with_stamps_that_a_mail_took_for_prose_are_taken_apart() -> None:
    text = """\
>> Jul  6 06:45:01 coyote kernel: [78748.106803] X invoked oom-killer:
>> gfp_mask=0xd0, order=0, oom_adj=0 Jul  6 06:45:01 coyote kernel:
>> [78748.106808] Pid: 3068, comm: X Tainted: G        W  2.6.31-rc2 #1 Jul\x20
>> 6 06:45:01 coyote kernel: [78748.106811] Call Trace:
>> Jul  6 06:45:01 coyote kernel: [78748.107021] Swap cache stats: add 7937,
>> delete 7321, find 2362/2515 Jul  6 06:45:01 coyote kernel: [78748.107023]
>> Free swap  = 8360652kB Jul  6 06:45:01 coyote kernel: [78748.107024] Total
>> swap = 8385912kB
>> Jul  6 06:45:01 coyote kernel: [78748.121332] Out of memory: kill process
>> 2385 (mysqld) score 15451 or a child Jul  6 06:45:01 coyote kernel:
>> [78748.121334] Killed process 2385 (mysqld)
>> Jul  6 06:45:05 coyote kernel: [78751.516057] Killed process 1995
>> (krunner_lock) Jul  6 06:45:05 coyote kernel: [78751.519481] Killed
>> process 3391 (kwin) Jul  6 06:45:05 coyote kernel: [78751.522674] Killed
>> process 3396 (plasma)
"""
    first, *rest = [label(event) for event in read(text)]
    assert (first["trigger"], first["victim"], first["kill_score"]) == ("X", "mysqld", 15451)
    assert (first["swap_total_kb"], first["swap_free_kb"]) == (8385912, 8360652)
    assert [(one["victim_pid"], one["victim"]) for one in rest] == [
        (1995, "krunner_lock"),
        (3391, "kwin"),
        (3396, "plasma"),
    ]


def test_what_a_listener_puts_before_a_whole_line_is_no_prose() -> None:
    before = "Received message  <3>Jun  8 11:15:26 LEDE kernel: "
    text = (
        f"{before}[  350.064961] Out of memory: Kill process 983 (opkg) score 20 or sacrifice child\n"
        f"{before}[  350.072170] Killed process 2588 (opkg) total-vm:1620kB, anon-rss:584kB, file-rss:0kB\n"
    )
    for log in (text, text.replace("  <3>", " "), text.replace("Received message  <3>", "gateway-7 ")):
        found = told(log)
        assert (found["selected_pid"], found["victim_pid"], found["kill_score"]) == (983, 2588, 20)


def test_rhel_6_puts_the_uid_before_the_name() -> None:
    found = told(
        "Killed process 18992, UID 48, (httpd worker) total-vm:3355660kB, anon-rss:1615472kB, file-rss:10664kB\n"
    )
    assert (found["uid"], found["victim"], found["anon_rss_kb"]) == (48, "httpd worker", 1615472)


@pytest.mark.parametrize(
    "name", ["tmux: server", "(sd-pam)", "531", "in:imjournal", "runc:[2:INIT]", "a) b", "x,y", "[x]"]
)
def test_names_may_hold_anything(name: str) -> None:
    text = (
        f"Oct 23 23:13:58 host kernel: {name} invoked oom-killer: gfp_mask=0xd0, order=1, oom_score_adj=3\n"
        "Oct 23 23:13:58 host kernel: oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,"
        f"oom_memcg=/a,b,task_memcg=/a,b/c,task={name},pid=45,uid=1000\n"
        f"Oct 23 23:13:58 host kernel: Memory cgroup out of memory: Killed process 45 ({name}) total-vm:4kB\n"
    )
    found = told(text)
    assert [found["trigger"], found["selected"], found["victim"]] == [name] * 3
    assert (found["oom_memcg"], found["task_memcg"]) == ("/a,b", "/a,b/c")


def test_unknown_constraints_and_columns_are_taken_as_they_come() -> None:
    text = (
        "[1.0] [  pid  ]   uid  tgid total_vm      rss (01)nrss pgtables_bytes swapents oom_score_adj name\n"
        "[1.0] [    107]     0   107     2982     2592       77      61440        5            -7 ta il\n"
        "[1.0] oom-kill:constraint=CONSTRAINT_BPF_PSI_MEM,nodemask=(null),task=ta il,pid=107,uid=3\n"
    )
    (event,) = read(text)
    assert event.constraint == "CONSTRAINT_BPF_PSI_MEM"
    assert event.tasks is not None
    (task,) = event.tasks
    assert (task.others, task.pgtables_bytes, task.oom_score_adj, task.comm) == (
        (("(01)nrss", 77),),
        61440,
        -7,
        "ta il",
    )


@pytest.mark.parametrize(
    "text",
    [
        "[1.1] Out of memory: Killed process 946 (a b) total-vm:8kB, anon-rss:6kB, shmem-\nrss:12kB, UID:5\n",
        "Out of memory: Killed process 946 (a b) total-vm:8kB, anon-rss:6kB,\nshmem-rss:12kB, UID:5\n",
        "> [  1.100000] Out of memory: Killed process 946 (a b) total-vm:8kB,\n> anon-rss:6kB, shmem-rss:12kB UID:5\n",
    ],
    ids=["within a word", "no prefixes", "a quoted mail"],
)
def test_wrapped_lines_are_joined(text: str) -> None:
    found = told(text)
    assert (found["victim"], found["anon_rss_kb"], found["shmem_rss_kb"], found["uid"]) == ("a b", 6, 12, 5)


def test_blank_lines_between_lines_change_nothing() -> None:
    lines = [
        "[1.1] java invoked oom-killer: gfp_mask=0xd0, order=0, oom_score_adj=0",
        "[1.2] Out of memory: Kill process 4455 (java) score 322 or sacrifice child",
        "[1.3] Killed process 4455 (java) total-vm:81924kB, anon-rss:1234kB, file-rss:55kB",
    ]
    assert told("\n\n".join(lines) + "\n") == told("\n".join(lines) + "\n")


def test_a_group_kill_is_one_event_and_its_victim_counts_once() -> None:
    kill = (
        "Memory cgroup out of memory: Killed process {} (w) total-vm:4kB, anon-rss:3kB, file-rss:0kB, shmem-rss:0kB\n"
    )
    group = "Tasks in /grp are going to be killed due to memory.oom.group set\n"
    (event,) = read(kill.format(7) + group + kill.format(7) + kill.format(8) + kill.format(9))
    assert [victim.pid for victim in event.kills] == [7, 8, 9]
    assert event.group_path == "/grp"


def test_a_late_reaper_finds_its_victim_behind_the_next_trigger() -> None:
    text = (
        "[1.0] Out of memory: Killed process 7 (a) total-vm:4kB, anon-rss:3kB, file-rss:0kB\n"
        "[1.1] b invoked oom-killer: gfp_mask=0xd0, order=0, oom_score_adj=0\n"
        "[1.2] oom_reaper: reaped process 7 (a), now anon-rss:0kB, file-rss:0kB, shmem-rss:0kB\n"
    )
    first, second = read(text)
    assert first.kills[0].reaped
    assert second.kills == ()


def test_several_taints_are_no_kernel_release() -> None:
    text = (
        "[1.0] rsync invoked oom-killer: gfp_mask=0xd0, order=0, oom_score_adj=0\n"
        "[1.0] CPU: 1 PID: 7 Comm: rsync Tainted: G S         OE      6.7.4-arch1-1 #1 20d30c48\n"
    )
    (event,) = read(text)
    assert (event.kernel, event.tainted) == ("6.7.4-arch1-1", "GSOE")


def test_what_red_hat_puts_behind_the_taints_is_no_kernel_release() -> None:
    for cpu in (
        "CPU: 1 PID: 7 Comm: rsync Kdump: loaded Tainted: G           OE  ------------   3.10.0-1160.el7.x86_64 #1",
        "CPU: 1 PID: 7 Comm: rsync Tainted: G           O E ----V-------   3.10.0-1160.el7.x86_64 #1",
        "Pid: 7, comm: rsync Tainted: P        W  ---------------    3.10.0-1160.el7.x86_64 #1",
    ):
        (event,) = read(f"[1.0] rsync invoked oom-killer: gfp_mask=0xd0, order=0, oom_score_adj=0\n[1.0] {cpu}\n")
        assert (event.kernel, event.trigger.pid if event.trigger else None) == ("3.10.0-1160.el7.x86_64", 7)
        assert event.tainted in ("GOE", "GOEV", "PW")


def test_a_stack_with_places_in_the_source_is_one() -> None:
    text = (
        "[ 1.000000] a invoked oom-killer: gfp_mask=0xd0, order=0, oom_score_adj=0\n"
        "[ 1.000001] dump_stack_lvl (lib/dump_stack.c:107 (discriminator 1))\n"
        "[ 1.000002] ? lock_release (kernel/locking/lockdep.c:5190 kernel/locking/lockdep.c:5532)\n"
        "[ 1.000003] dump_header (mm/oom_kill.c:?)\n"
        "[ 1.000004]  out_of_memory mm/oom_kill.c:1159 [inline]\n"
        "[ 1.000005]  alloc_pages+0x1/0x2 mm/mempolicy.c:7\n"
    )
    (event,) = read(text)
    assert event.stack == ("dump_stack_lvl", "lock_release", "dump_header", "out_of_memory", "alloc_pages")


def test_frames_of_arm_name_who_called() -> None:
    for frame in (
        "[<c015eaf4>] (out_of_memory+0x244/0x2c4) from [<c01614d4>] (__alloc_pages+0x45c/0x568)",
        "[<c015eaf4>] (out_of_memory) from [<c01614d4>] (__alloc_pages+0x45c/0x568)",
        "out_of_memory from __alloc_pages+0x45c/0x568",
    ):
        (event,) = read(f"[1.0] a invoked oom-killer: gfp_mask=0xd0, order=0, oom_score_adj=0\n[1.0] {frame}\n")
        assert event.stack == ("__alloc_pages",)


def _cut(at: int, comm: str, caller: str = "") -> str:
    """A report without its end, at that second after boot."""
    lines = (
        f"{comm} invoked oom-killer: gfp_mask=0xd0, order=0, oom_score_adj=0",
        f"CPU: 1 PID: {at} Comm: {comm} Not tainted 3.2.0 #1",
        "Mem-Info:",
        "Free swap  = 3kB",
        f"Total swap = {at}kB",
        "[ pid ]   uid  tgid total_vm      rss cpu oom_adj oom_score_adj name",
        f"[{at:5d}]     0 {at:5d}     2678      264   1       0             0 {comm}",
    )
    return "".join(f"[{at:5d}.00000{number}]{caller} {line}\n" for number, line in enumerate(lines))


@pytest.mark.parametrize("callers", [("", "", ""), ("[    T7]", "[    T8]", "[    T9]")])
@pytest.mark.parametrize("between", ["", "(...snipped...)\n"])
def test_reports_without_an_end_keep_what_they_tell(callers: tuple[str, str, str], between: str) -> None:
    """Of a log whose kill lines went elsewhere: each report begins when the one before is long past."""
    parts = [_cut(at, comm, caller) for at, comm, caller in zip((1000, 2000, 3000), "abc", callers, strict=True)]
    found = [label(event) for event in read(between.join(parts))]
    assert [(one["trigger"], one["swap_total_kb"], one["n_tasks"]) for one in found] == [
        ("a", 1000, 1),
        ("b", 2000, 1),
        ("c", 3000, 1),
    ]


@pytest.mark.parametrize(
    ("chosen", "killed"),
    [
        ("Memory cgroup out of memory: Kill process 41 (py) score 68 or sacrifice child", "Killed process 41 (py)"),
        (
            "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),oom_memcg=/a,task_memcg=/a,task=py,pid=41,uid=0",
            "Memory cgroup out of memory: Killed process 41 (py)",
        ),
    ],
)
def test_whom_a_kernel_chose_hours_later_is_of_no_report_without_an_end(chosen: str, killed: str) -> None:
    text = _cut(1000, "a") + f"[ 9000.000000] {chosen}\n[ 9000.000001] {killed} total-vm:8kB, anon-rss:4kB\n"
    first, second = map(label, read(text))
    assert (first["trigger"], first["selected_pid"], first["victim_pid"]) == ("a", None, None)
    assert (second["selected_pid"], second["victim_pid"]) == (41, 41)


def test_old_kernels_tell_of_a_cgroup_and_of_the_machine_in_each_of_two_reports() -> None:
    """Whom the cgroup chose could not be killed: no line ends the report, and the next one begins."""
    one = """\
[  740.100000] hog invoked oom-killer: gfp_mask=0xd0, order=0, oomkilladj=-17
[  740.100001] Pid: 28, comm: hog Not tainted 2.6.30 #1
[  740.100002] Task in /important killed as a result of limit of /important
[  740.100003] memory: usage 4kB, limit 256000kB, failcnt 1467
[  740.100004] memory+swap: usage 512000kB, limit 512000kB, failcnt 571
[  740.100005] Mem-Info:
[  740.100006] Free swap  = 15kB
[  740.100007] Total swap = 20kB
[  740.100008] Memory cgroup out of memory: kill process 28 (hog) score 0 or a child
"""
    found = [label(event) for event in read(one + one.replace("740.1", "740.2"))]
    assert len(found) == 2
    assert [(each["oom_memcg"], each["memcg_failcnt"], each["swap_total_kb"]) for each in found] == [
        ("/important", 1467, 20)
    ] * 2


def test_a_panic_for_a_memory_cgroup_tells_of_all_memory_and_is_the_cgroups() -> None:
    text = """\
[   81.234289] hog invoked oom-killer: gfp_mask=0xd0, order=0, oom_score_adj=0
[   81.234327]  [<ffffffff81603d1c>] dump_header+0x8e/0x214
[   81.234339]  [<ffffffff8115d83e>] check_panic_on_oom+0x2e/0x60
[   81.234342]  [<ffffffff811c17bf>] {caller}+0x34f/0x580
[   81.234381] Mem-Info:
[   81.234500] Total swap = 0kB
[   81.234867] Kernel panic - not syncing: Out of memory: compulsory panic_on_oom is enabled
"""
    assert told(text.format(caller="mem_cgroup_oom_synchronize"))["constraint_inferred"] == "CONSTRAINT_MEMCG"
    assert told(text.format(caller="out_of_memory"))["constraint_inferred"] == "global"


def test_what_is_missing_is_said() -> None:
    (event,) = read("[1.0] Out of memory: Killed process 7 (a) total-vm:4kB, anon-rss:3kB, file-rss:0kB\n")
    assert len(event.missing) == 3


def test_a_pid_that_is_used_again_is_another_kill() -> None:
    text = (
        "Oct  3 02:13:58 host kernel: Out of memory: Killed process 7 (a) total-vm:4kB, anon-rss:3kB, file-rss:0kB\n"
        "Oct  9 02:13:58 host kernel: Out of memory: Killed process 7 (a) total-vm:9kB, anon-rss:8kB, file-rss:0kB\n"
    )
    assert len(read(text)) == 2
    assert len(read(text.replace("9kB", "4kB").replace("8kB", "3kB"))) == 1


def test_a_memory_cgroup_of_3_7_prints_its_usage_and_mem_info_of_the_machine() -> None:
    """From a mail to linux-mm of 18 December 2012, "memcg, oom: provide more precise dump info"."""
    text = """\
[  204.308085] mal-80 invoked oom-killer: gfp_mask=0xd0, order=0, oom_score_adj=0
[  204.308088] mal-80 cpuset=/ mems_allowed=0
[  204.308090] Pid: 2376, comm: mal-80 Not tainted 3.7.0+ #4
[  204.308100]  [<ffffffff81692515>] dump_header+0x83/0x1ca
[  204.308148] Task in /1/2 killed as a result of limit of /1
[  204.308150] memory: usage 102400kB, limit 102400kB, failcnt 181
[  204.308151] memory+swap: usage 102400kB, limit 102400kB, failcnt 0
[  204.308151] Mem-Info:
[  204.308152] Node 0 DMA per-cpu:
[  204.308154] CPU    0: hi:    0, btch:   1 usd:   0
[  204.308169] active_anon:94139 inactive_anon:41771 isolated_anon:0
[  204.308187] Node 0 DMA: 1*4kB (U) 1*8kB (U) = 12kB
[  204.308215] Free swap  = 499708kB
[  204.308216] Total swap = 499708kB
[  204.316300] 1040368 pages RAM
[  204.316315] [ pid ]   uid  tgid total_vm      rss nr_ptes swapents oom_score_adj name
[  204.316358] [ 2376]  1000  2376    21521    17841      43        0             0 mal-80
[  204.316359] Memory cgroup out of memory: Kill process 2376 (mal-80) score 698 or sacrifice child
[  204.316361] Killed process 2376 (mal-80) total-vm:86084kB, anon-rss:71020kB, file-rss:344kB
"""
    (event,) = read(text)
    found = label(event)
    assert (found["constraint_inferred"], found["oom_memcg"], found["task_memcg"]) == ("CONSTRAINT_MEMCG", "/1", "/1/2")
    assert (found["memcg_usage_kb"], found["memcg_failcnt"], found["swap_total_kb"]) == (102400, 181, 499708)
    assert (found["n_tasks"], found["kill_score"], found["victim_pid"], found["page_size_kb"]) == (1, 698, 2376, 4)


def test_a_kill_request_before_4_2_asks_for_no_order_and_says_so_before() -> None:
    """From a mail of June 2015 on moom_work: 4.1 has both the old order and the new prefix."""
    text = (
        "[  171.7] sysrq: SysRq : Manual OOM execution\n"
        "[  171.8] kworker/2:9 invoked oom-killer: gfp_mask=0xd0, order=0, oom_score_adj=0\n"
    )
    (event,) = read(text)
    assert event.sysrq


def test_a_quote_of_a_selection_is_no_event() -> None:
    quoted = "Memory cgroup out of memory: Kill process 4481 (stress) score 1994 or sacrifice child\n"
    assert len(read(quoted)) == 1
    assert read(f"Warning OOMKilling {quoted}") == []


def test_both_lines_of_a_kill_on_one_are_read() -> None:
    found = told("Out of memory: Kill process 5 (a b) score 130 or sacrifice child Killed process 6 (c) total-vm:8kB\n")
    assert (found["selected"], found["victim"], found["total_vm_kb"]) == ("a b", "c", 8)


def test_lines_that_no_newline_ended_are_read_each() -> None:
    text = (
        "Killed process 19 (trashapplet)Out of memory: kill process 12 (qemu) score 78 or a child"
        "Killed process 12 (qemu)Killed process 12 (qemu)\n"
    )
    first, second = map(label, read(text))
    assert (first["victim_pid"], first["victim"]) == (19, "trashapplet")
    assert (second["selected_pid"], second["victim_pid"], second["victim"], second["kill_score"]) == (
        12,
        12,
        "qemu",
        78,
    )


def test_quoted_printable_is_undone() -> None:
    """As mails to linux-mm of 2011 stand in archives of raw messages."""
    text = (
        "> <4>[ 6232.885314] java invoked oom-killer: gfp_mask=3D0x201da, order=3D0, oom_adj=\n"
        "=3D0, oom_score_adj=3D-7\n"
        "> <4>[ 6232.889190] Normal: 10659*4kB 2735*8kB 1*16kB 0*32kB 0*64kB\n> 0*128kB 0*256kB =3D 64532kB\n"
        "> <4>[ 6232.889194] Total swap =3D 12kB\n"
        "> <4>[ 6232.889199] Out of memory: Killed process 77 (java) total-vm:4kB, anon-r=\nss:3kB, file-rss:0kB\n"
    )
    found = told(text)
    assert (found["gfp_mask"], found["trigger_oom_score_adj"]) == ("0x201da", -7)
    assert (found["swap_total_kb"], found["page_size_kb"], found["anon_rss_kb"]) == (12, 4, 3)


def test_a_log_that_names_the_host_and_nobody_who_wrote_is_read() -> None:
    """From mails to linux-kernel of December 2004 and September 2007."""
    text = (
        "Dec 17 13:46:39 sleepy oom-killer: gfp_mask=0xd2\nDec 17 13:46:40 sleepy DMA per-cpu:\n"
        "Dec 17 13:46:40 sleepy Free pages:         244kB (0kB HighMem)\n"
        "Dec 17 13:46:41 sleepy init invoked oom-killer: gfp_mask=0xd0,\norder=0, oomkilladj=-3\n"
        "Dec 17 13:46:41 sleepy Killed process 5190 (ld)\n"
    )
    first, second = map(label, read(text))
    assert (first["gfp_mask"], first["victim"]) == ("0xd2", None)
    assert (second["trigger"], second["trigger_oom_adj"], second["victim"]) == ("init", -3, "ld")


def test_the_prompt_of_a_console_is_nobodys_name() -> None:
    text = "my-long-host-name-01 login: java invoked oom-killer: gfp_mask=0xd0, order=0, oom_score_adj=3\n"
    found = told(text + "Out of memory: Killed process 5 (java) total-vm:4kB\n")
    assert (found["trigger"], found["trigger_oom_score_adj"], found["victim_pid"]) == ("java", 3, 5)


GROUP = "/docker/0f2b3fcdd2578165ea77266cdc7b1ad43e75877b0ac1889ecda30a78cb78bd53"


@pytest.mark.parametrize(
    "text",
    [
        f"[193038.106468] Task in {GROUP}\nkilled as a result of limit of /docker/\n{GROUP[8:]}\n"
        "[193038.106478] memory: usage 524288kB, limit 524288kB, failcnt 77\n",
        f"[193038.106468] Task in {GROUP} killed as a result of limit of {GROUP}"
        "[193038.106478] memory: usage 524288kB, limit 524288kB, failcnt 77[193038.106480] memory+swap: usage 0kB"
        + f"[193038.106482] Memory cgroup stats for {GROUP}: cache:0KB rss:524288KB" * 8
        + "\n",
        f"2019-10-06 12:57:33.928398+0200 0x1f0f Default 0x0 737 0 com.docker.hyperkit: [47517.500417] Task in {GROUP} "
        f"killed as a result of limit of {GROUP}\n2019-10-06 12:57:33.928398+0200 0x1f0f Default 0x0 737 0 "
        "com.docker.hyperkit: [47517.500418] memory: usage 524288kB, limit 524288kB, failcnt 77\n",
    ],
    ids=["broken within a path", "lines glued", "macOS"],
)
def test_a_containers_path_comes_whole_out_of_pages(text: str) -> None:
    found = told(text)
    assert (found["task_memcg"], found["oom_memcg"], found["memcg_failcnt"]) == (GROUP, GROUP, 77)


def test_a_kernel_that_prints_no_table_unless_asked_lacks_none() -> None:
    old = "oom-killer: gfp_mask=0xd2, order=0\nFree pages: 1796kB (0kB HighMem)\nOut of Memory: Killed process 1 (a).\n"
    assert [event.missing for event in read(old)] == [()]
    assert len(read(old.replace("order=0", "order=0, oom_score_adj=0"))[0].missing) == 1


@pytest.mark.parametrize(
    "line",
    [
        '+\t\tprintk("oom-killer: gfp_mask=0x%x, order=%d\\n",',
        '> -\tpr_warn("%s invoked oom-killer: gfp_mask=%#x(%pGg), order=%d\\n",',
        "1 Time(s): oom-killer: gfp_mask=0x1d2",
    ],
)
def test_neither_the_kernels_source_nor_a_count_of_lines_is_an_event(line: str) -> None:
    assert read(f"{line}\n") == []


# A cgroup, and a process, are named by whoever makes them. No name makes an event of a line, whole or in pieces.
_FORGED = "x[    9.000000] Out of memory: Killed process 1 (systemd) total-vm:900kB, anon-rss:800kB, file-rss:0kB"


@pytest.mark.parametrize("head", ["[    9.100000] ", "Mar 16 21:40:40 h kernel: ", "4,7,9100000,-;"])
def test_the_name_of_a_cgroup_kills_nobody(head: str) -> None:
    words = (
        f"Task in /{_FORGED} killed as a result of limit of /{_FORGED}",
        f"oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset={_FORGED},mems_allowed=0,oom_memcg=/{_FORGED},"
        f"task_memcg=/{_FORGED},task=hog,pid=77,uid=0",
        "Memory cgroup out of memory: Killed process 77 (hog) total-vm:9kB, anon-rss:8kB, file-rss:0kB, shmem-rss:0kB",
    )
    lines = [f"{head}{word}\n" for word in words]
    for text in ("".join(lines), *lines):
        assert {kill.pid for event in read(text) for kill in event.kills} <= {77}
    assert [event.victim.pid for event in read("".join(lines)) if event.victim] == [77]


@pytest.mark.parametrize(
    "line",
    [
        "2024-05-01T10:00:00.000000+02:00 host sudo:      bob : COMMAND=/usr/bin/echo [12345.678901] {}",
        "2024-01-01 00:00:00,123 INFO found: [12345.678901] {}",
        "2024-01-01T00:00:00.1Z stdout F alert: dmesg said [12345.678901] {}",
        "[2024-01-01 00:00:00,123] {}",
        "[12:00] {}",
        '{{"level":"warn","logger":"oom-watch","message":"{}"}}',
        '{{"app":"x","line":"{}"}}',
        '        "message": "{}",',
        "Jan  1 00:00:00 host sshd[1]: {}",
    ],
)
def test_what_a_program_says_in_its_own_log_is_no_event(line: str) -> None:
    said = "Out of memory: Killed process 1234 (java) total-vm:8000kB, anon-rss:4000kB"
    assert read(line.format(said) + "\n" + "Jan  1 00:00:00 host DMA: 1*4kB\n") == []


def test_rows_are_read_together_as_each_by_itself() -> None:
    """What is none of them, behind them, has them read one by one."""
    tables = 0
    for path in all_logs():
        columns: tuple[str, ...] | None = None
        rows: list[Line] = []
        for line in [*read_lines(path.read_bytes().decode(errors="backslashreplace")), Line(0, "")]:
            if rows and not parse_rows([line], columns):
                assert parse_rows(rows, columns) == parse_rows([*rows, Line(0, "none")], columns), path
                tables += len(rows) > 1
                rows = []
            columns = parse_header(line.text) or columns
            if columns is not None and parse_rows([line], columns):
                rows.append(line)
    assert tables > 50


def test_a_row_with_a_figure_that_no_kernel_prints_is_damaged_and_hides_no_other() -> None:
    columns = ("pid", "uid", "tgid", "total_vm", "rss", "name")
    rows = [Line(at, f"[ {at}] 0 {at} 9 {rss} app") for at, rss in enumerate((7, "9" * 400, 8), 1)]
    for found in (parse_rows(rows, columns), [parse_rows([row], columns)[0] for row in rows]):
        assert [(row.pid, row.rss_pages, row.comm) for row in found] == [(1, 7, "app"), (2, None, None), (3, 8, "app")]


def test_a_row_that_is_cut_among_whole_ones_loses_its_last_word_alone() -> None:
    columns = ("pid", "uid", "tgid", "total_vm", "rss", "name")
    rows = [Line(number, f"[{number:5d}]     0 {number:5d}  100  50 sh", whole=number != 2) for number in (1, 2, 3)]
    assert [row.comm for row in parse_rows(rows, columns)] == ["sh", None, "sh"]
    assert parse_rows([], columns) == []


def test_a_report_of_sysrq_that_is_mixed_with_another_is_one_of_sysrq() -> None:
    header = "[   48.04] [  pid  ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name\n"
    one, other = read(
        "[   48.01] locker invoked oom-killer: gfp_mask=0x140dca(GFP_HIGHUSER_MOVABLE), order=0, oom_score_adj=0\n"
        "[   48.02] sysrq: Manual OOM execution\n" + header * 2
    )
    assert (one.sysrq, other.sysrq, other.trigger) == (False, True, None)


def test_the_tags_of_a_forum_are_taken_off_lines_of_a_log() -> None:
    head = "Nov 23 18:14:42 node7 kernel: [   77.123456] "
    (event,) = read(
        f"{head}[b]java invoked oom-killer: gfp_mask=0x140cca(GFP_HIGHUSER_MOVABLE), order=0, oom_score_adj=0[/b]\n"
        f"{head}[color=red]Out of memory: Killed process 7 (java) total-vm:100kB, anon-rss:50kB, file-rss:0kB[/color]\n"
    )
    assert event.trigger is not None
    assert event.trigger.comm == "java"
    assert [kill.pid for kill in event.kills] == [7]


def test_long_lines_behind_a_trigger_are_not_kept() -> None:
    head = "[   77.123456] "
    text = f"{head}java invoked oom-killer: gfp_mask=0x140cca(GFP_HIGHUSER_MOVABLE), order=0, oom_score_adj=0\n"
    text += "".join(f"{head}{number}{'x' * 50_000}+0x1/0x2\n" for number in range(40))
    tracemalloc.start()
    assert len(read(text)) == 1
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 500_000

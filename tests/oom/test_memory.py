"""Mem-Info and memory cgroup blocks: as kernels from 2.6.10 to 7.3 printed them, whole and damaged."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import pytest

from reprieve.model.oom import FreeBlocks, HugePages, Memcg, MemcgStat, Memory, Node, Slab, Usage, Zone, figure
from reprieve.oom.line import Line
from reprieve.oom.lines import read_lines
from reprieve.oom.memory import MemcgDraft, MemoryDraft, page_size, parse_allocation_failure

LOGS = Path(__file__).parents[1] / "logs"
BEGINS = re.compile(r"Mem-[Ii]nfo:|memory: usage |swap: usage |Memory cgroup stats for ")
ENDS = re.compile(
    r"Tasks state|\[\s*pid\s*\]|oom-kill:|\[\s*\d+\]|Out of mem|Kill|Memory cgroup out|Kernel panic"
    r"|.*(?:oom-killer|\+0x)"
)
KB = 1024


def read(*texts: str, whole: bool = True) -> Memory | None:
    draft = MemoryDraft()
    for number, text in enumerate(texts, 2):
        draft.take(number, text, whole or number <= len(texts))
    return draft.memory()


def read_cgroup(*texts: str, whole: bool = True) -> Memcg | None:
    draft = MemcgDraft()
    for number, text in enumerate(texts, 2):
        draft.take(number, text, whole or number <= len(texts))
    return draft.memcg()


def zone(*texts: str, whole: bool = True) -> Zone:
    memory = read(*texts, whole=whole)
    assert memory is not None
    (only,) = memory.zones
    return only


@cache
def blocks() -> tuple[tuple[str, tuple[Line, ...]], ...]:
    """The memory part of each report of all logs: from its first line to the line before the task table."""
    found = []
    for path in (*sorted(LOGS.glob("*.log")), *sorted(LOGS.glob("lab/*.txt"))):
        block: list[Line] | None = None
        for line in read_lines(path.read_bytes().decode(errors="backslashreplace")):
            if ENDS.match(line.text.strip()):
                block = None
            elif BEGINS.match(line.text.strip()) and block is None:
                block = []
                found.append((path.name, block))
            if block is not None and line.text.strip():
                block.append(line)
    assert len(found) > 200
    return tuple((name, tuple(block)) for name, block in found)


def parse(lines: tuple[Line, ...] | list[Line]) -> tuple[Memory | None, Memcg | None]:
    memory, memcg = MemoryDraft(), MemcgDraft()
    for line in lines:
        if not memory.take(line.number, line.text, line.whole):
            memcg.take(line.number, line.text, line.whole)
    return memory.memory(), memcg.memcg()


def different_blocks() -> list[tuple[Line, ...]]:
    """One block of each shape: the same lines and names, whatever their figures."""
    shapes = {
        tuple(re.sub(r"[\s\d]+|\([UMEHCIR]+\)", "9", line.text) for line in block): block for _, block in blocks()
    }
    return list(shapes.values())


def numbers_of(value: object) -> Iterator[int]:
    """All numbers in a noun, but for the numbers of lines."""
    if is_dataclass(value):
        for field in fields(value):
            if field.name not in ("line", "lines"):
                yield from numbers_of(getattr(value, field.name))
    elif isinstance(value, tuple):
        for item in value:
            yield from numbers_of(item)
    elif isinstance(value, int):
        yield value
    elif value == "max":
        yield from ()


def is_part(damaged: object, intact: object) -> bool:
    """Does it tell nothing that the intact noun does not: each field equal, or absent?"""
    if damaged is None or damaged == intact:
        return True
    if is_dataclass(damaged) and type(damaged) is type(intact):
        return all(
            is_part(getattr(damaged, field.name), getattr(intact, field.name))
            for field in fields(damaged)
            if field.name not in ("line", "lines")  # the first that told of it: another, if that one is lost
        )
    if not isinstance(damaged, tuple) or not isinstance(intact, tuple):
        return False
    if set(damaged) <= set(intact):
        return True
    if damaged and isinstance(damaged[0], int | str):  # a figure, or a row of them
        return len(damaged) == len(intact) and all(map(is_part, damaged, intact))
    return all(any(is_part(item, other) for other in intact) for item in damaged)


NOT_OURS = [
    "",
    "   ",
    "CPU: 3 PID: 473206 Comm: doxygen Tainted: G           OE      6.1.1-arch1-1 #1",
    " dump_stack_lvl+0x48/0x60",
    "RAX: 0000000000015fd1 RBX: 0000000000001010 RCX: 00005658cf73d030",
    "R13: 00000000000001 R14: ffffffffffffff78 R15: 00007f5ba2907c00",
    "[    246]     0   246    16404       66   159744      303          -250 systemd-journal",
    "[  pid  ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name",
    "Tasks state (memory values in pages):",
    "Memory cgroup out of memory: Killed process 7 (sh) total-vm:9kB, anon-rss:1kB, file-rss:0kB, shmem-rss:0kB",
    "Out of memory: Killed process 7 (sh) total-vm:9kB, anon-rss:1kB, file-rss:0kB, shmem-rss:0kB, UID:0 pgtables:8kB",
    "Memory: 1017840K/1048044K available (14339K kernel code, 2355K rwdata)",
    "DMA: preallocated 128 KiB GFP_KERNEL pool for atomic allocations",
    "Node 0 hash table entries: 4096",
    "Normal termination",
    "Free the memory",
    "Total of 7 entries",
    "Swap over NFS",
    "Unreclaimable",
    "CPU    0: Machine Check Exception",
    "512 bytes from 10.0.0.1",
    "kmalloc-64              12KB         16KB",  # no list has begun
    "anonymous 12",
    "sshd 4711 0",
]


@pytest.mark.parametrize("text", NOT_OURS)
def test_other_lines_are_left_to_others(text: str) -> None:
    memory, memcg = MemoryDraft(), MemcgDraft()
    assert not memory.take(1, text)
    assert not memcg.take(1, text)
    assert memory.memory() is None
    assert memcg.memcg() is None
    assert page_size(None) is None


def test_the_first_paragraph_counts_pages_however_its_lines_are_broken() -> None:
    lines = ["active_anon:5 inactive_anon:6 isolated_anon:0", " active_file:7 inactive_file:8", " free:9 free_cma:0"]
    whole, joined = read("Mem-Info:", *lines), read("Mem-Info: " + " ".join(lines))
    split = read(*(word for line in lines for word in line.split()))
    assert whole is not None
    assert joined is not None
    assert split is not None
    assert whole.counts == joined.counts == split.counts
    assert figure(whole.counts, "inactive_file") == 8
    assert dict(whole.lines)["free"] == 5


def test_the_counts_of_2_6_are_kept_by_their_names() -> None:
    memory = read("Active:453307 inactive:501457 dirty:0", " free:5206 slab:10533 mapped:19 pagetables:30217 bounce:0")
    assert memory is not None
    assert memory.counts[:2] == (("Active", 453307), ("inactive", 501457))
    assert figure(memory.counts, "slab") == 10533


def test_a_zone_has_its_watermarks_and_all_other_figures_in_bytes() -> None:
    seen = zone(
        "Node 0 DMA32 free:9080kB min:7080kB low:8848kB high:10620kB reserved_highatomic:2048KB isolated(anon):4kB "
        "present:3595360kB managed:3595000kB shmem_thp: 8kB pages_scanned:15126949 all_unreclaimable? yes",
        "lowmem_reserve[]: 0 0 505",
        "Node 0 DMA32: 1*4kB (M) 2*8kB 0*16kB = 20kB",
    )
    assert (seen.node, seen.name, seen.free_bytes, seen.min_bytes) == (0, "DMA32", 9080 * KB, 7080 * KB)
    assert (seen.low_bytes, seen.high_bytes) == (8848 * KB, 10620 * KB)
    assert (seen.present_bytes, seen.managed_bytes) == (3595360 * KB, 3595000 * KB)
    assert figure(seen.figures, "reserved_highatomic") == 2048 * KB
    assert figure(seen.figures, "isolated(anon)") == 4 * KB
    assert figure(seen.figures, "shmem_thp") == 8 * KB
    assert figure(seen.figures, "pages_scanned") == 15126949
    assert seen.all_unreclaimable is True
    assert seen.lowmem_reserve_pages == (0, 0, 505)
    assert seen.blocks[0] == FreeBlocks(size_bytes=4 * KB, count=1, types="M")
    assert seen.blocks[1] == FreeBlocks(size_bytes=8 * KB, count=2)
    assert seen.blocks_total_bytes == 20 * KB


def test_a_kernel_without_numa_names_no_node() -> None:
    seen = zone("HighMem free:497168kB min:512kB low:1000kB high:1500kB", "HighMem: 1*4kB 0*8kB = 4kB")
    assert (seen.node, seen.name, seen.free_bytes, len(seen.blocks)) == (None, "HighMem", 497168 * KB, 2)


def test_underflowed_figures_are_kept_as_printed() -> None:
    seen = zone("Node 0 Normal free:193448kB min:99395541895224kB low:73886371836733356kB high:18446744073709551612kB")
    assert seen.min_bytes == 99395541895224 * KB
    assert seen.high_bytes == 18446744073709551612 * KB
    memory = read("4294965447 pages reserved")
    assert memory is not None
    assert memory.totals == (("reserved", 4294965447),)


def test_figures_of_a_line_that_a_terminal_cut_are_absent() -> None:
    seen = zone("Node 0 DMA free:11556kB min:36kB active_anon:0B", "Node 0 DMA: 7*4kB (U) 5*8kB (UE) 138*128kB (B")
    assert [name for name, _ in seen.figures] == ["free", "min"]
    assert seen.blocks == (
        FreeBlocks(size_bytes=4096, count=7, types="U"),
        FreeBlocks(size_bytes=8192, count=5, types="UE"),
    )
    assert seen.blocks_total_bytes is None


def test_a_node_has_its_figures_on_both_sides_of_the_question() -> None:
    memory = read("Node 1 active_anon:8kB anon_thp: 4kB all_unreclaimable? no Balloon:4kB gpu_active:0kB")
    assert memory is not None
    figures = (("active_anon", 8192), ("anon_thp", 4096), ("Balloon", 4096), ("gpu_active", 0))
    assert memory.nodes == (Node(line=2, node=1, figures=figures, all_unreclaimable=False),)


def test_a_reserve_belongs_to_the_zone_before_it_or_to_none() -> None:
    dma, normal = "Node 0 DMA free:4kB min:4kB", "Node 0 Normal free:8kB min:4kB"
    reserve, other = "lowmem_reserve[]: 0 9 9", "lowmem_reserve[]: 0 0 0"
    told = read(dma, reserve, normal, other)
    assert told is not None
    assert [seen.lowmem_reserve_pages for seen in told.zones] == [(0, 9, 9), (0, 0, 0)]
    swapped = read(dma, normal, reserve, other)
    assert swapped is not None
    assert [seen.lowmem_reserve_pages for seen in swapped.zones] == [(), ()]
    lost = read(dma, reserve, other)
    assert lost is not None
    assert [seen.lowmem_reserve_pages for seen in lost.zones] == [(0, 9, 9)]


def test_the_lists_of_each_cpu_are_told_with_their_zone() -> None:
    seen = zone(
        "Node 0 DMA per-cpu:", "CPU    0: hi:  186, btch:  31 usd:   5", "CPU    1: hi:  186, btch:  31 usd:   0"
    )
    assert seen.per_cpu == ((0, (("hi", 186), ("btch", 31), ("usd", 5))), (1, (("hi", 186), ("btch", 31), ("usd", 0))))


@pytest.mark.parametrize(
    ("rows", "figures"),
    [
        (
            ["CPU    0: Hot: hi:  186, btch:  31 usd:  25   Cold: hi:   62, btch:  15 usd:  44"],
            [
                (
                    ("hot hi", 186),
                    ("hot btch", 31),
                    ("hot usd", 25),
                    ("cold hi", 62),
                    ("cold btch", 15),
                    ("cold usd", 44),
                )
            ],
        ),
        (
            ["cpu 0 hot: low 2, high 6, batch 1", "cpu 0 cold: low 0, high 2, batch 1"],
            [
                (("hot low", 2), ("hot high", 6), ("hot batch", 1)),
                (("cold low", 0), ("cold high", 2), ("cold batch", 1)),
            ],
        ),
        (["cpu 0 hot: high 186, batch 31 used:25"], [(("hot high", 186), ("hot batch", 31), ("hot used", 25))]),
    ],
)
def test_hot_and_cold_lists_of_2_6_are_told_apart(rows: list[str], figures: list[object]) -> None:
    assert [told for _, told in zone("DMA per-cpu:", *rows).per_cpu] == figures


def test_lists_without_their_header_belong_to_no_zone() -> None:
    row = "CPU    0: hi:    0, btch:   1 usd:   0"
    memory = read(row, "DMA per-cpu:", "Normal per-cpu:", row, "HighMem per-cpu: empty", row)
    assert memory is not None
    assert [(seen.name, seen.per_cpu) for seen in memory.zones] == [("DMA", ()), ("Normal", ()), ("HighMem", ())]


def test_huge_pages_are_told_per_node_and_size() -> None:
    memory = read("Node 1 hugepages_total=9 hugepages_free=8 hugepages_surp=7 hugepages_size=2048kB")
    assert memory is not None
    assert memory.hugepages == (HugePages(line=2, node=1, size_bytes=2 << 20, total=9, free=8, surplus=7),)


def test_swap_and_totals_are_read_in_all_forms() -> None:
    new = read(
        "44659 total pagecache pages",
        "24863 pages in swap cache",
        "Swap cache stats: add 28837422, delete 28779281, find 9693294/11901185",
        "Free swap  = 84kB",
        "Total swap = 25165820kB",
        "4115400 pages RAM",
        "0 pages HighMem/MovableOnly",
        "97082 pages reserved",
        "6144 pages cma reserved",
    )
    assert new is not None
    assert (new.pagecache_pages, new.swap_cache_pages) == (44659, 24863)
    assert new.swap_cache_stats == (
        ("add", 28837422),
        ("delete", 28779281),
        ("find", 9693294),
        ("find_total", 11901185),
    )
    assert (new.swap_free_bytes, new.swap_total_bytes) == (84 * KB, 25165820 * KB)
    totals = (("RAM", 4115400), ("HighMem/MovableOnly", 0), ("reserved", 97082), ("cma reserved", 6144))
    assert new.totals == totals
    old = read(
        "Free pages:        5548kB (252kB HighMem)",
        "Swap cache: add 1, delete 2, find 3/4, race 5+6",
        "Free swap:       1004028kB",
        "229376 pages of RAM",
        "3456 reserved pages",
        "123 pages shared",
        "DMA: empty",
    )
    assert old is not None
    assert (old.free_bytes, old.free_highmem_bytes, old.swap_free_bytes) == (5548 * KB, 252 * KB, 1004028 * KB)
    assert old.swap_cache_stats[-2:] == (("race", 5), ("race_total", 6))
    assert old.totals == (("RAM", 229376), ("reserved", 3456), ("shared", 123))
    assert [(seen.name, seen.blocks) for seen in old.zones] == [("DMA", ())]


def test_slab_is_listed_below_its_header() -> None:
    memory = read(
        "Unreclaimable slab info:",
        "Name                      Used          Total\t",
        "btrfs_extent_map     3207098KB    3375622KB",
        "9p-fcall cache (x)       12KB         16KB",
    )
    assert memory is not None
    assert memory.slabs == (
        Slab(line=4, name="btrfs_extent_map", used_bytes=3207098 * KB, total_bytes=3375622 * KB),
        Slab(line=5, name="9p-fcall cache (x)", used_bytes=12 * KB, total_bytes=16 * KB),
    )


def test_code_lines_that_hold_memory_are_listed_where_the_kernel_profiles() -> None:
    memory = read("Memory allocations:", "     127 MiB    31168 mm/page_ext.c:270 func:alloc_page_ext", "7 pages RAM")
    assert memory is not None
    assert memory.allocations == (("mm/page_ext.c:270 func:alloc_page_ext", "127 MiB", 31168),)


@pytest.mark.parametrize(
    ("kb", "limit"),
    [
        (1048576, 1 << 30),
        (9007199254740988, "max"),  # pages of 4 KiB
        (9007199254740928, "max"),  # pages of 64 KiB
        (9007199254740991, "max"),  # until 3.18
        (18014398509481983, "max"),  # res_counter of 3.13
        (8589934588, "max"),  # 32 bits
        (8589934592, 1 << 43),
    ],
)
def test_no_limit_is_max(kb: int, limit: int | Literal["max"]) -> None:
    memcg = read_cgroup(f"memory+swap: usage 512kB, limit {kb}kB, failcnt 3")
    assert memcg is not None
    assert memcg.usages == (Usage(line=2, name="memory+swap", usage_bytes=512 * KB, limit_bytes=limit, failcnt=3),)
    assert memcg.usage("memory") is None


def test_rows_of_memory_stat_belong_to_the_path_above_them() -> None:
    memcg = read_cgroup("Memory cgroup stats for /a b/run-r1:2.scope:", "anon 33386496", "pgfault 8151")
    assert memcg is not None
    assert memcg.stats == (
        MemcgStat(line=2, path="/a b/run-r1:2.scope", figures=(("anon", 33386496), ("pgfault", 8151))),
    )


def test_rows_are_read_from_one_line_too() -> None:
    memcg = read_cgroup("Memory cgroup stats for /foo: anon 4096 file 0", "kernel_stack 16384 slab 0")
    assert memcg is not None
    figures = (("anon", 4096), ("file", 0), ("kernel_stack", 16384), ("slab", 0))
    assert memcg.stats == (MemcgStat(line=2, path="/foo", figures=figures),)


def test_a_text_may_begin_below_the_header() -> None:
    memcg = read_cgroup("workingset_refault_file 7", "pgscan 8")
    assert memcg is not None
    assert memcg.stats == (MemcgStat(line=2, figures=(("workingset_refault_file", 7), ("pgscan", 8))),)


def test_v1_tells_each_child_in_a_line_in_kb() -> None:
    memcg = read_cgroup(
        "Memory cgroup stats for /docker/4f1c: cache:32KB rss:524188KB swap:0KB",
        "Memory cgroup stats for /docker/4f1c/x: cache:0KB rss:4KB",
    )
    assert memcg is not None
    assert [stat.path for stat in memcg.stats] == ["/docker/4f1c", "/docker/4f1c/x"]
    assert memcg.stats[0].figures == (("cache", 32 * KB), ("rss", 524188 * KB), ("swap", 0))


def test_rows_below_two_headers_belong_to_neither() -> None:
    memcg = read_cgroup("Memory cgroup stats for /a:", "Memory cgroup stats for /b:", "anon 1", "anon 2")
    assert memcg is not None
    assert [stat.figures for stat in memcg.stats] == [(), ()]


def test_protection_is_told_since_6_19() -> None:
    memcg = read_cgroup("Memory cgroup min protection 4kB -- low protection 8kB")
    assert memcg is not None
    assert (memcg.min_bytes, memcg.low_bytes) == (4096, 8192)


def test_the_page_size_is_that_of_the_smallest_block() -> None:
    assert page_size(read("Node 0 Normal: 12*64kB (UM) 3*128kB (M) = 1152kB")) == 65536
    assert page_size(read("Mem-Info:")) is None


def test_a_failed_allocation_tells_who_asked_for_what() -> None:
    old = parse_allocation_failure(3, "swapper: page allocation failure. order:1, mode:0x20")
    assert old is not None
    assert (old.line, old.comm, old.order, old.gfp_mask, old.gfp_flags) == (3, "swapper", 1, 0x20, ())
    new = parse_allocation_failure(
        3,
        "kworker/u8:2: page allocation failure: order:4, mode:0x40cc0(GFP_KERNEL|__GFP_COMP), nodemask=(null),cpuset=/",
    )
    assert new is not None
    assert (new.comm, new.order, new.gfp_mask) == ("kworker/u8:2", 4, 0x40CC0)
    assert new.gfp_flags == ("GFP_KERNEL", "__GFP_COMP")


@pytest.mark.parametrize(
    "text", ["sshd invoked oom-killer: order=0", "sshd: page allocation stalls for 10004ms, order:0"]
)
def test_nothing_else_is_a_failed_allocation(text: str) -> None:
    assert parse_allocation_failure(1, text) is None


def test_a_cut_head_of_a_failed_allocation_tells_less_and_nothing_else() -> None:
    for text in (
        "kworker/u8:2: page allocation failure: order:10, mode:0x40cc0(GFP_KERNEL|__GFP_COMP), nodemask=(null)",
        "swapper: page allocation failure. order:10, mode:0x201da",
    ):
        intact = parse_allocation_failure(1, text)
        for end in range(len(text)):
            assert is_part(parse_allocation_failure(1, text[:end], whole=False), intact), text[:end]


def test_every_line_of_the_block_is_claimed_by_one_reader() -> None:
    for name, block in blocks():
        memory, memcg = MemoryDraft(), MemcgDraft()
        for line in block:
            claims = memory.take(line.number, line.text, line.whole), memcg.take(line.number, line.text, line.whole)
            assert sum(claims) == 1, (name, line)


def test_every_number_printed_is_in_the_nouns_as_often() -> None:
    for name, block in blocks():
        if name.startswith("072-"):  # its lines are cut by a terminal
            continue
        printed: Counter[int] = Counter()
        for line in block:
            text = re.sub(r"stats for .*:(?= |$)|\bNode \d+", "", line.text)  # names
            if text.rstrip().endswith("B") and not re.search(r"[:=]", text) and "KB" in text:
                text = " ".join(text.rsplit(None, 2)[1:])  # a slab's name
            for number, unit in re.findall(r"(?<![\w.-])(\d+)([kK]B)?", text):
                printed[int(number) * (KB if unit else 1)] += 1
        memory, memcg = parse(block)
        told = Counter((*numbers_of(memory), *numbers_of(memcg)))
        for limit in printed:
            if limit >= 2**63 - 2**18:  # "max"
                told[limit] += printed[limit]
        assert not printed - told, name


def test_buddy_lists_sum_to_their_total() -> None:
    for name, block in blocks():
        memory, _ = parse(block)
        for seen in memory.zones if memory else ():
            if seen.blocks_total_bytes is not None:
                summed = sum(block.size_bytes * block.count for block in seen.blocks)
                assert summed == seen.blocks_total_bytes, (name, seen)


def vm_stat_slack(block: tuple[Line, ...], name: str) -> int:
    """How many pages a counter of a zone may be off: each CPU keeps up to 125 of them to itself.

    MAX of calculate_normal_threshold() in mm/vmstat.c. A log shows some CPUs of its machine, not how many it has.
    """
    path = next(path for path in (LOGS / name, LOGS / "lab" / name) if path.exists())
    seen = re.findall(rb"CPU:? +(\d+)[: ]", path.read_bytes())
    return 125 * max(2, 1 + max(map(int, seen), default=0))


def test_buddy_lists_sum_to_the_free_memory_of_their_zone() -> None:
    checked = 0
    for name, block in blocks():
        memory, _ = parse(block)
        page = page_size(memory) or 4096
        for seen in memory.zones if memory else ():
            if seen.blocks_total_bytes is not None and seen.free_bytes is not None:
                # The lists are counted under the zone's lock, its counter is read without.
                assert abs(seen.blocks_total_bytes - seen.free_bytes) <= vm_stat_slack(block, name) * page, (name, seen)
                checked += 1
    assert checked > 150


def test_free_memory_of_all_zones_sums_to_the_free_pages() -> None:
    checked = 0
    for name, block in blocks():
        memory, _ = parse(block)
        page, free = page_size(memory), figure(memory.counts, "free") if memory else None
        if memory is None or page is None or free is None:
            continue
        zones = [seen for seen in memory.zones if seen.free_bytes is not None and seen.present_bytes is not None]
        if sum(seen.present_bytes or 0 for seen in zones) != (figure(memory.totals, "RAM") or 0) * page:
            continue  # only the zones that a nodemask allows are printed, or lines are lost
        summed = sum(seen.free_bytes or 0 for seen in zones) // page
        # The same counters, read again: what left or came to the lists of the CPUs meanwhile.
        assert abs(summed - free) <= vm_stat_slack(block, name) * len(zones), name
        checked += 1
    assert checked > 80


def context_of(block: tuple[Line, ...], index: int) -> list[Line]:
    """The lines that a line needs before it: the header of its list, the zone of its reserve."""
    text = block[index].text.lstrip()
    header = None
    if text.startswith(("lowmem_reserve", "CPU")):
        return [block[index - 1]] if index and text.startswith("lowmem") else [*block[:index]]
    if re.match(r"\S.* +\d+KB +\d+KB$", text):
        header = "Unreclaimable slab info:"
    elif re.fullmatch(r"\w+ \d+", text):
        header = "Memory cgroup stats for /x:"
    return [Line(1, header)] if header else []


def different_lines() -> list[tuple[tuple[Line, ...], int]]:
    """One line of each shape, as its block and its place there."""
    return list(
        {
            re.sub(r"\d+", lambda number: "9" * (1 + (number[0] != "0")), line.text): (block, index)
            for block in different_blocks()
            for index, line in enumerate(block)
        }.values()
    )


def test_a_line_cut_at_any_byte_tells_less_and_nothing_else() -> None:
    for block, index in different_lines():
        line, context = block[index], context_of(block, index)
        intact = parse([*context, line])
        for end in range(len(line.text)):
            damaged = parse([*context, line._replace(text=line.text[:end], whole=False)])
            assert is_part(damaged, intact), line.text[:end]
            assert page_size(damaged[0]) in (None, page_size(intact[0]))


def test_a_text_that_begins_within_a_line_tells_less_and_nothing_else() -> None:
    for block, index in different_lines():
        line = block[index]._replace(number=7)
        intact = parse([Line(6, "Active:0"), line])  # below its first line, any line of the paragraph is known
        for start in range(1, len(line.text)):
            assert is_part(parse([Line(1, line.text[start:])]), intact), line.text[start:]


def test_lost_doubled_and_swapped_lines_invent_nothing() -> None:
    for block in different_blocks():
        intact = parse(block)
        for index in range(len(block)):
            before, line, after = block[:index], block[index : index + 1], block[index + 1 :]
            for damaged in (before + after, before + line + line + after, before + after[:1] + line + after[1:]):
                assert is_part(parse(damaged), intact), (index, line)


LONG = 1_000_000
HOSTILE = [
    "active_anon:" + "9" * LONG,
    "active_anon:1 " + "a" * LONG,
    "active_anon:1 " + "a:" * LONG,
    "Node 0 DMA free:" + "9" * LONG + "kB",
    "Node 0 DMA free:4kB " + "a(" * LONG,
    "Node 0 active_anon:4kB " + "aa " * LONG,
    "Node 0 DMA: " + "1*" * LONG,
    "Node " + "9" * LONG + " DMA free:1kB",
    "lowmem_reserve[]: " + "9" * LONG,
    "7 pages " + "a " * LONG + "!",
    "Swap cache stats: " + "add " * LONG,
    "CPU " + "9" * LONG + ": hi: 1, btch: 1 usd: 1",
    "CPU 0: btch: " + "hi:" + " " * LONG,
    "Memory cgroup stats for " + ": " * LONG,
    "Memory cgroup stats for " + "a:" * LONG,
    "Memory cgroup stats for " + ": anon 1" * 100_000 + "x",
    "memory: usage " + "9" * LONG + "kB",
    "anon " + "9" * LONG,
    "anon 1 " * LONG + "x",
    "x: page allocation failure: order:" + "9" * LONG + ", mode:0x" + "f" * LONG,
    "x: page allocation failure: mode:0x1(" + "a|" * LONG,
]


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: text[:24])
def test_a_hostile_line_of_a_megabyte_is_read_in_one_pass(text: str) -> None:
    # Were any expression quadratic, this would take hours: 10^12 steps.
    memory, memcg = MemoryDraft(), MemcgDraft()
    for whole in (True, False):
        memory.take(1, text, whole)
        memcg.take(1, text, whole)
        parse_allocation_failure(1, text, whole)
    assert max((*numbers_of(memory.memory()), *numbers_of(memcg.memcg())), default=0) < 10**24


def test_work_grows_with_the_number_of_lines() -> None:
    import sys

    def calls(lines: list[Line]) -> int:
        count = 0

        def counted(*_: Any) -> None:
            nonlocal count
            count += 1

        sys.setprofile(counted)
        try:
            parse(lines)
        finally:
            sys.setprofile(None)
        return count

    block = [line for _, block in blocks()[:40] for line in block]
    once, four_times = calls(block), calls(block * 4)
    assert four_times < 4.2 * once

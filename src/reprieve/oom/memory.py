"""What the kernel prints about memory in a report: the Mem-Info block, and the block of a memory cgroup.

Mem-Info comes from show_mem() and show_free_areas() (mm/page_alloc.c, since 6.3 mm/show_mem.c), the slab list from
dump_unreclaimable_slab() (mm/slab_common.c), the cgroup block from mem_cgroup_print_oom_meminfo() (mm/memcontrol.c).
Each line is known by its first word and each figure by its own shape, so any kernel's choice of figures is read. A
figure without the unit that belongs to it is cut, and absent; so is the last word of a text that ends within its line.
"""

import re
from collections.abc import Callable
from functools import cache
from typing import Literal

from reprieve.model.oom import (
    AllocationFailure,
    Figures,
    FreeBlocks,
    HugePages,
    Memcg,
    MemcgStat,
    Memory,
    Node,
    Slab,
    Usage,
    Zone,
)

_ZoneKey = tuple[int | None, str]  # node and name; kernels without NUMA print no node

# A blank before the figure: shmem_thp and its like, until 6.16. KB: reserved_highatomic, and the cgroup stats of v1.
_KB = r"\b([A-Za-z]\w*+(?:\(\w++\)|)): ?([0-9]{1,20}+)[kK]B(?!\S)"
_COUNT = r"(?<!\S)([A-Za-z]\w*+):([0-9]{1,20}+)(?!\S)"
_BLOCKS = r"(?<!\S)([0-9]{1,12}+)\*([0-9]{1,12}+)kB(?: \(([A-Z]{1,8}+)\)|)"
_BLOCKS_TOTAL = r" = ([0-9]{1,20})kB(?!\S)"
_HUGEPAGES = r"\bhugepages_(\w+)=([0-9]{1,20})(?:kB)?(?!\S)"
_PER_CPU = r"\b(?:([Hh]ot|[Cc]old):|(hi|low|high|btch|batch|usd|used)[: ] *([0-9]{1,10})(?![^\s,]))"
_PAGES_SCANNED = r"\bpages_scanned:([0-9]{1,20}) "  # the one figure of a zone that is no size
_SIZE = r"(Free swap|Total swap|Free pages) *[=:] *([0-9]{1,20})kB(?: \(([0-9]{1,20})kB HighMem\))?$"
_SWAP_CACHE = r"\b(add|delete|find|race) ([0-9]{1,20})(?:(?=,)|([/+])([0-9]{1,20})(?![^\s,]))"
_TOTAL = r"([0-9]{1,20}) (?:pages (?:of )?(\w[\w /-]*)|total (pagecache) pages|(free|reserved|slab) pages)$"
_USAGE = r"usage ([0-9]{1,20})kB(?:, limit ([0-9]{1,20})kB(?:, failcnt ([0-9]{1,20})(?!\S))?)?"
_PROTECTION = r"min protection ([0-9]{1,20})kB(?: -- low protection ([0-9]{1,20})kB)?"
_ALLOCATION_SITE = r"([0-9.]+(?: ?[kKMGT]?i?B)?) +([0-9]{1,20}) (\S+:[0-9]+ .*)"
_ORDER = r"\border:([0-9]{1,2})(?!\S*[0-9])"
_MODE = r"\bmode:(0x[0-9a-f]{1,16})(?:\(([A-Za-z0-9_|]{0,500})\)|(?![^\s,]))"
_STATS_OF = "Memory cgroup stats for "
_STAT_ROWS = r"(?:[a-z]\w* [0-9]{1,20}(?:\s+|$))+$"
_INLINE_STATS = r"(.*): ?(?=[a-z]\w*(?::[0-9]+KB| [0-9]+)(?!\S))"

# The first word of each line of the first paragraph: of one record from 2.6.28, of lines of their own before, and where
# a log has split it. Since 4.x a new figure has come to the end of a line, or on one of its own.
_COUNTS_FIRST = frozenset(
    {
        "Active",
        "active_anon",
        "active_file",
        "unevictable",
        "slab_reclaimable",
        "mapped",
        "sec_pagetables",
        "kernel_misc_reclaimable",
        "free",
        "free_cma",
    }
)
# What the keys of memory.stat begin with, up to "_": a text may begin below their header.
_STAT_FAMILIES = frozenset(
    {
        *("active", "anon", "cache", "dirty", "file", "hierarchical", "hugetlb", "inactive", "kernel", "mapped"),
        *("numa", "pagetables", "percpu", "pgactivate", "pgdeactivate", "pgdemote", "pgfault", "pglazyfree"),
        *("pglazyfreed", "pgmajfault", "pgpgin", "pgpgout", "pgpromote", "pgrefill", "pgscan", "pgsteal", "pswpin"),
        *("pswpout", "rss", "sec", "shmem", "slab", "sock", "swap", "swapcached", "swpin", "swpout", "thp", "total"),
        *("unevictable", "vmalloc", "workingset", "writeback", "zswap", "zswapped", "zswpin", "zswpout", "zswpwb"),
    }
)
_USAGE_STARTS = ("memory: usage ", "memory+swap: usage ", "swap: usage ", "kmem: usage ")
_FIRST = 1  # line of a source, which may be cut in front: "inactive_anon 7" then reads "active_anon 7"
# No limit: LONG_MAX bytes in whole pages of up to 256 KiB (PAGE_COUNTER_MAX), until 3.18 LONG_MAX or ULONG_MAX bytes
# (res_counter); where a long has 32 bits, LONG_MAX pages of 4 KiB. Who cannot take a limit away, as Docker, raises it
# beyond all there can be.
_NO_LIMIT_BYTES = 2**61
_NO_LIMIT_32_BIT_BYTES = (2**31 - 1) * 4096


def limit_of(limit_bytes: int) -> int | Literal["max"]:
    """A limit as the kernel tells it, in bytes; "max" where its figure means that there is none."""
    return "max" if limit_bytes >= _NO_LIMIT_BYTES or limit_bytes == _NO_LIMIT_32_BIT_BYTES else limit_bytes


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.ASCII)


def _without_cut_word(text: str) -> str:
    """A text that ends within its line, without the word that may be cut. A unit at its end was printed whole."""
    return text if text.endswith(("kB", "KB")) else text.rpartition(" ")[0]


def _sizes(text: str) -> Figures:
    """The `name:NkB` figures of a line, in bytes."""
    return tuple([(name, int(kb) << 10) for name, kb in _compiled(_KB).findall(text)])


def _unreclaimable(text: str) -> bool | None:
    _, found, answer = text.partition("all_unreclaimable? ")
    return answer.startswith("yes") if found and answer.startswith(("yes", "no")) else None


def page_size(memory: Memory | None) -> int | None:
    """The page size in bytes: the smallest block of a buddy list. None: the text holds none."""
    sizes = [block.size_bytes for zone in memory.zones for block in zone.blocks] if memory is not None else []
    return min(sizes, default=None)


def parse_allocation_failure(number: int, text: str, whole: bool = True) -> AllocationFailure | None:
    """The first line of a "page allocation failure" report, of warn_alloc() in mm/page_alloc.c; None: another line.

    >>> failure = parse_allocation_failure(7, "sshd: page allocation failure. order:1, mode:0x20")
    >>> failure.comm, failure.order, failure.gfp_mask
    ('sshd', 1, 32)
    """
    comm, found, rest = text.partition(": page allocation failure")
    if not found:
        return None
    if not whole:
        rest = _without_cut_word(rest)
    order, mode = _compiled(_ORDER).search(rest), _compiled(_MODE).search(rest)
    return AllocationFailure(
        line=number,
        last_line=number,
        # 15 bytes, of up to four characters once escaped; where more stands, other text is glued to it.
        comm=comm if len(comm) <= (60 if "\\" in comm else 15) else None,
        order=int(order[1]) if order else None,
        gfp_mask=int(mode[1], 16) if mode else None,
        gfp_flags=tuple(mode[2].split("|")) if mode and mode[2] else (),
    )


class MemoryDraft:
    """The Mem-Info block of one report, while its lines come in.

    What is told twice counts as told first. A line that belongs to the one before it (lowmem_reserve, a CPU's lists)
    is believed only where the order shows that none between them is missing.
    """

    def __init__(self) -> None:
        self._line: int | None = None
        self._counts: dict[str, int] = {}
        self._kilobytes: dict[str, int] = {}
        self._totals: dict[str, int] = {}
        self._lines: dict[str, int] = {}
        self._swap_cache: Figures = ()
        self._nodes: dict[int, Node] = {}
        self._zones: dict[_ZoneKey, tuple[int, Figures, bool | None]] = {}
        self._reserves: dict[_ZoneKey, tuple[int, ...]] = {}
        self._per_cpu: dict[_ZoneKey, tuple[int, dict[tuple[int, str], Figures]]] = {}
        self._blocks: dict[_ZoneKey, tuple[int, tuple[FreeBlocks, ...], int | None]] = {}
        self._hugepages: dict[tuple[int | None, int | None], HugePages] = {}
        self._slabs: dict[str, Slab] = {}
        self._allocations: dict[str, tuple[str, str, int]] = {}
        self._rows: _Reader | None = None  # reads the rows of the list being told
        self._awaits_reserve: _ZoneKey | None = None  # the zone line before, until its lowmem_reserve is read
        self._awaits_cpus: _ZoneKey | None = None  # the per-cpu header before, until its first CPU is read
        self._cpus_of: _ZoneKey | None = None
        self._may_lack_start = False  # the line that is read

    def take(self, number: int, text: str, whole: bool = True, *, headed: bool = False) -> bool:
        """Read a line; False: it is not of this block. `whole` False: the text ends in it, its last word may be cut;
        `headed`: a head stood before it, so it is not cut in front.
        """
        self._may_lack_start = number == _FIRST and not headed
        if not whole:
            text = _without_cut_word(text)
        first = text.split(None, 1)
        if not first:
            return False
        word = first[0]
        reader = _READERS.get(word)
        if reader is None:
            reader = self._reader_of(word)
            if reader is None:
                return False
        if not reader(self, number, text.strip(), whole):
            return False
        if self._line is None:
            self._line = number
        return True

    def _reader_of(self, word: str) -> "_Reader | None":
        """Who reads a line whose first word is no fixed one: a count, a row of a list, or a number of pages."""
        name, colon, _ = word.partition(":")
        if colon and (name in _COUNTS_FIRST or self._in_counts()):
            return MemoryDraft._take_counts
        if self._rows is not None:
            return self._rows
        return MemoryDraft._take_total if word.isdecimal() else None

    def _in_counts(self) -> bool:
        """The first paragraph has begun, and nothing after it: a line of it may be wrapped anywhere."""
        return bool(self._counts) and not self._nodes and not self._zones

    def memory(self) -> Memory | None:
        """The block as far as it was told; None if no line of it was."""
        if self._line is None:
            return None
        size, totals = self._kilobytes.get, dict(self._totals)
        return Memory(
            line=self._line,
            counts=tuple(self._counts.items()),
            free_bytes=size("Free pages"),
            free_highmem_bytes=size("HighMem"),
            nodes=tuple(self._nodes.values()),
            zones=tuple([self._zone(key) for key in {**self._per_cpu, **self._zones, **self._blocks}]),
            hugepages=tuple(self._hugepages.values()),
            pagecache_pages=totals.pop("pagecache", None),
            swap_cache_pages=totals.pop("in swap cache", None),
            swap_cache_stats=self._swap_cache,
            swap_total_bytes=size("Total swap"),
            swap_free_bytes=size("Free swap"),
            totals=tuple(totals.items()),
            slabs=tuple(self._slabs.values()),
            allocations=tuple(self._allocations.values()),
            lines=tuple(self._lines.items()),
        )

    def _zone(self, key: _ZoneKey) -> Zone:
        cpus_line, cpus = self._per_cpu.get(key, (0, {}))
        blocks_line, blocks, blocks_total = self._blocks.get(key, (cpus_line, (), None))
        line, figures, unreclaimable = self._zones.get(key, (blocks_line, (), None))
        size = dict(reversed(figures)).get
        return Zone(
            line=line,
            name=key[1],
            node=key[0],
            free_bytes=size("free"),
            min_bytes=size("min"),
            low_bytes=size("low"),
            high_bytes=size("high"),
            present_bytes=size("present"),
            managed_bytes=size("managed"),
            figures=figures,
            all_unreclaimable=unreclaimable,
            lowmem_reserve_pages=self._reserves.get(key, ()),
            per_cpu=tuple([(cpu, lists) for (cpu, _), lists in cpus.items()]),
            blocks=blocks,
            blocks_total_bytes=blocks_total,
        )

    def _take_start(self, number: int, text: str, whole: bool) -> bool:
        """The first line; what is below it may be joined to it, where a paste was wrapped."""
        _, _, rest = text.partition(":")
        if rest:
            self.take(number, rest, headed=not self._may_lack_start)
        return True

    def _take_counts(self, number: int, text: str, whole: bool) -> bool:
        """The first paragraph: counts of pages, of one record in five to eight lines."""
        found = _compiled(_COUNT).findall(text)
        for name, pages in found[1:] if self._may_lack_start else found:
            if name not in self._counts:
                self._counts[name] = int(pages)
                self._lines[name] = number
        return bool(found)

    def _take_place(self, number: int, text: str, whole: bool) -> bool:
        """A line that begins with the node, or on kernels without NUMA with the zone."""
        words = text.split(None, 3)
        node = None
        if words[0] == "Node":
            if len(words) < 3 or not (words[1].isdecimal() and len(words[1]) < 10):
                return False
            node = int(words[1])
            del words[:2]
        name, rest = words[0], words[1:]
        if name.endswith(":"):
            return self._take_blocks(number, text, (node, name[:-1]))
        if name.startswith("hugepages_"):
            return self._take_hugepages(number, text, node)
        if ":" in name:
            return node is not None and self._take_node(number, text, node)
        if rest and rest[0].startswith("free:"):
            return self._take_zone(number, text, (node, name))
        if rest and rest[0] == "per-cpu:":
            return self._take_cpus_of(number, text, (node, name))
        return False

    def _take_node(self, number: int, text: str, node: int) -> bool:
        figures = _sizes(text)
        if figures and node not in self._nodes:
            unreclaimable = _unreclaimable(text)
            self._nodes[node] = Node(line=number, node=node, figures=figures, all_unreclaimable=unreclaimable)
        return bool(figures)

    def _take_zone(self, number: int, text: str, key: _ZoneKey) -> bool:
        figures = _sizes(text)
        if "pages_scanned:" in text and (scanned := _compiled(_PAGES_SCANNED).search(text)):
            figures = (*figures, ("pages_scanned", int(scanned[1])))
        # Each zone is followed by its reserve: one that still waits for its own shows that lines are lost or mixed.
        believed = self._awaits_reserve is None and key not in self._zones
        self._zones.setdefault(key, (number, figures, _unreclaimable(text)))
        self._awaits_reserve = key if believed else None
        return True

    def _take_reserve(self, number: int, text: str, whole: bool) -> bool:
        key, self._awaits_reserve = self._awaits_reserve, None
        words = text.split()[1:]
        if whole and key is not None and all(word.isdecimal() and len(word) <= 20 for word in words):
            self._reserves.setdefault(key, tuple([int(word) for word in words]))
        return True

    def _take_cpus_of(self, number: int, text: str, key: _ZoneKey) -> bool:
        """The header of a zone's per-CPU lists, until 4.1; "empty" may follow on the same line."""
        believed = self._awaits_cpus is None and key not in self._per_cpu
        self._per_cpu.setdefault(key, (number, {}))
        self._awaits_cpus = self._cpus_of = key if believed and not text.endswith(" empty") else None
        return True

    def _take_cpu(self, number: int, text: str, whole: bool) -> bool:
        cpu, _, lists = text[3:].lstrip().partition(" ")
        cpu = cpu.rstrip(":")
        if not (cpu.isdecimal() and len(cpu) < 10) or not ("btch:" in lists or "batch " in lists):
            return False
        kind, figures = "", []
        for hot_or_cold, name, pages in _compiled(_PER_CPU).findall(lists):
            if hot_or_cold:
                kind = f"{hot_or_cold.lower()} "
            else:
                figures.append((f"{kind}{name}", int(pages)))
        self._awaits_cpus = None
        if self._cpus_of is not None and figures:
            told = self._per_cpu[self._cpus_of][1]
            row, last = (int(cpu), figures[0][0]), next(reversed(told), (-1, ""))
            if row[0] < last[0] or told.get(row, tuple(figures)) != tuple(figures):
                told.clear()  # CPUs are told in order: the header of another zone is lost or displaced
                self._cpus_of = None
            else:
                told[row] = tuple(figures)
        return True

    def _take_blocks(self, number: int, text: str, key: _ZoneKey) -> bool:
        """A buddy list; each size is followed by the types of its blocks since 3.9, and all by their total."""
        found = _compiled(_BLOCKS).findall(text)
        if not found and not text.endswith(": empty"):
            return False
        total = _compiled(_BLOCKS_TOTAL).search(text)
        if total is None and found and not found[-1][2]:
            found.pop()  # its types may be cut
        if key not in self._blocks:
            blocks = [FreeBlocks(size_bytes=int(kb) << 10, count=int(n), types=types) for n, kb, types in found]
            self._blocks[key] = (number, tuple(blocks), int(total[1]) << 10 if total else None)
        return True

    def _take_hugepages(self, number: int, text: str, node: int | None) -> bool:
        value = dict(_compiled(_HUGEPAGES).findall(text))
        size = int(value["size"]) << 10 if "size" in value else None
        pages = {name: int(value[name]) if name in value else None for name in ("total", "free", "surp")}
        self._hugepages.setdefault(
            (node, size),
            HugePages(
                line=number,
                node=node,
                size_bytes=size,
                total=pages["total"],
                free=pages["free"],
                surplus=pages["surp"],
            ),
        )
        return True

    def _take_total(self, number: int, text: str, whole: bool) -> bool:
        match = _compiled(_TOTAL).match(text)
        if match is None or not whole:  # its name may be cut
            return False
        name = match[2] or match[3] or match[4]
        if name not in self._totals and not self._may_lack_start:
            self._totals[name] = int(match[1])
            self._lines[name] = number
        return True

    def _take_size(self, number: int, text: str, whole: bool) -> bool:
        match = _compiled(_SIZE).match(text)
        if match is None:
            return False
        if match[1] not in self._kilobytes:
            self._kilobytes[match[1]] = int(match[2]) << 10
            self._lines[match[1]] = number
            if match[3]:
                self._kilobytes["HighMem"] = int(match[3]) << 10
        return True

    def _take_swap_cache(self, number: int, text: str, whole: bool) -> bool:
        if not text.startswith("Swap cache"):
            return False
        if not self._swap_cache:
            figures: list[tuple[str, int]] = []
            for name, count, _, second in _compiled(_SWAP_CACHE).findall(text):
                figures.append((name, int(count)))
                if second:
                    figures.append((f"{name}_total", int(second)))
            self._swap_cache = tuple(figures)
        return True

    def _take_list_start(self, number: int, text: str, whole: bool) -> bool:
        """The header of a list: of unreclaimable slab, or of the code lines that hold most memory."""
        if text.startswith(("Unreclaimable slab info", "Name  ")):
            self._rows = MemoryDraft._take_slab
            return True
        if text.startswith(("Memory allocations:", "Memory allocations (")):
            self._rows = MemoryDraft._take_allocation
            return True
        return False

    def _take_slab(self, number: int, text: str, whole: bool) -> bool:
        words = text.rsplit(None, 2)
        if len(words) == 2 and not whole:  # the total is cut
            words.append("")
        if len(words) < 3 or not words[1].endswith("KB") or not (words[2].endswith("KB") or not words[2]):
            return False
        used, total = words[1][:-2], words[2][:-2]
        if not (used.isdecimal() and len(used) <= 20 and (total.isdecimal() or not words[2]) and len(total) <= 20):
            return False
        total_bytes = int(total) << 10 if total else None
        slab = Slab(line=number, name=words[0], used_bytes=int(used) << 10, total_bytes=total_bytes)
        self._slabs.setdefault(slab.name, slab)
        return True

    def _take_allocation(self, number: int, text: str, whole: bool) -> bool:
        match = _compiled(_ALLOCATION_SITE).match(text)
        if match is None or not whole:
            return False
        self._allocations.setdefault(match[3], (match[3], match[1], int(match[2])))
        return True


_Reader = Callable[[MemoryDraft, int, str, bool], bool]
_READERS: dict[str, _Reader] = {
    "Mem-Info:": MemoryDraft._take_start,
    "Mem-info:": MemoryDraft._take_start,  # until 2.6.35
    "Node": MemoryDraft._take_place,
    "lowmem_reserve[]:": MemoryDraft._take_reserve,
    "protections[]:": MemoryDraft._take_reserve,  # until 2.6.10
    "CPU": MemoryDraft._take_cpu,
    "cpu": MemoryDraft._take_cpu,
    "Free": MemoryDraft._take_size,
    "Total": MemoryDraft._take_size,
    "Swap": MemoryDraft._take_swap_cache,
    "Unreclaimable": MemoryDraft._take_list_start,
    "Name": MemoryDraft._take_list_start,
    "Memory": MemoryDraft._take_list_start,
}
for _name in ("DMA", "DMA32", "Normal", "HighMem", "Movable", "Device"):  # zone_names[] in mm/page_alloc.c
    _READERS[_name] = _READERS[f"{_name}:"] = MemoryDraft._take_place


class MemcgDraft:
    """The block of one memory cgroup, while its lines come in. What is told twice counts as told first."""

    def __init__(self) -> None:
        self._taken = False
        self._usages: dict[str, Usage] = {}
        self._stats: dict[str | None, tuple[int, dict[str, int]]] = {}
        self._protection: tuple[int | None, int | None] = (None, None)
        self._rows: dict[str, int] | None = None  # of the memory.stat being told
        self._rows_lost = False  # a second header of that kind: whose rows follow cannot be told
        self._may_lack_start = False  # the line that is read

    def take(self, number: int, text: str, whole: bool = True, *, headed: bool = False) -> bool:
        """Read a line; False: it is not of this block. `whole` False: the text ends in it, its last word may be cut;
        `headed`: a head stood before it, so it is not cut in front.
        """
        self._may_lack_start = number == _FIRST and not headed
        text = (text if whole else _without_cut_word(text)).strip()
        if text.startswith(_USAGE_STARTS):
            taken = self._take_usage(number, text)
        elif text.startswith("Memory cgroup "):
            taken = self._take_stats(number, text, whole) or self._take_protection(text)
        elif self._rows is not None or text.partition(" ")[0].partition("_")[0] in _STAT_FAMILIES:
            taken = self._take_rows(number, text)
        else:
            return False
        self._taken = self._taken or taken
        return taken

    def has_stats(self) -> bool:
        """Figures of a group, as every kernel prints since 3.9, have been told."""
        return bool(self._stats)

    def memcg(self) -> Memcg | None:
        """The block as far as it was told; None if no line of it was."""
        if not self._taken:
            return None
        return Memcg(
            usages=tuple(self._usages.values()),
            stats=tuple(
                [
                    MemcgStat(line=line, path=path, figures=tuple(figures.items()))
                    for path, (line, figures) in self._stats.items()
                ]
            ),
            min_bytes=self._protection[0],
            low_bytes=self._protection[1],
        )

    def _take_usage(self, number: int, text: str) -> bool:
        name, _, rest = text.partition(": ")
        match = _compiled(_USAGE).match(rest)
        if match is None:
            return False
        if name == "swap" and self._may_lack_start:  # of memory+swap
            return True
        limit: int | Literal["max"] | None = None
        if match[2]:
            limit = limit_of(int(match[2]) << 10)
        self._usages.setdefault(
            name,
            Usage(
                line=number,
                name=name,
                usage_bytes=int(match[1]) << 10,
                limit_bytes=limit,
                failcnt=int(match[3]) if match[3] else None,
            ),
        )
        return True

    def _take_stats(self, number: int, text: str, whole: bool) -> bool:
        """The header, alone above its rows (v2, and v1 since 5.3), or with all figures of one group after it (v1)."""
        if not text.startswith(_STATS_OF):
            return False
        told = text[len(_STATS_OF) :]
        if told.endswith(":") and whole:
            path = told[:-1]
            self._rows_lost = self._rows_lost or (self._rows is not None and path not in self._stats)
            self._rows = self._stats.setdefault(path, (number, {}))[1]
        elif (inline := _compiled(_INLINE_STATS).match(told)) is not None:
            figures = self._stats.setdefault(inline[1], (number, {}))[1]
            rest = told[inline.end() :]
            for name, size in _sizes(rest) or _rows(rest):
                figures.setdefault(name, size)
            if "KB" not in rest:
                self._rows = figures
        return True

    def _take_rows(self, number: int, text: str) -> bool:
        """`key value` rows of memory.stat, in bytes or events; several in one text where lines were joined."""
        rows = _rows(text)
        if not rows:
            return False
        if self._rows is None and self._may_lack_start:
            return True
        if self._rows is None:  # the text begins below the header
            self._rows = self._stats.setdefault(None, (number, {}))[1]
        if not self._rows_lost:
            for name, value in rows:
                self._rows.setdefault(name, value)
        return True

    def _take_protection(self, text: str) -> bool:
        match = _compiled(_PROTECTION).match(text, len("Memory cgroup "))
        if match is None:
            return False
        if self._protection == (None, None):
            self._protection = (int(match[1]) << 10, int(match[2]) << 10 if match[2] else None)
        return True


def _rows(text: str) -> Figures:
    """The `key value` pairs that a text consists of; empty if it is anything else."""
    name, _, value = text.partition(" ")
    if value.isdecimal() and len(value) <= 20 and text.isascii() and name.isidentifier() and "a" <= name <= "{":
        return ((name, int(value)),)  # as nearly all rows are
    if _compiled(_STAT_ROWS).match(text) is None:
        return ()
    words = text.split()
    return tuple(zip(words[::2], map(int, words[1::2]), strict=True))

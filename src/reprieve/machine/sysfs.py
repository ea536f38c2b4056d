"""What /sys tells of memory: how huge pages, zswap and the reclaim of generations are set, pools of huge pages, zram.

A file that is not there gives nothing; one that may not be read, or that holds what no kernel writes, gives a gap.
"""

import re

from reprieve.machine.host import Host
from reprieve.machine.memory import names_in, number, tell_odd
from reprieve.model.finding import Gap
from reprieve.model.machine import HugePool, Zram
from reprieve.oom.reclaim import LRU_GEN

SETTINGS = (
    *(f"/sys/kernel/mm/transparent_hugepage/{name}" for name in ("enabled", "defrag", "shmem_enabled")),
    "/sys/kernel/mm/transparent_hugepage/khugepaged/max_ptes_none",
    *(f"/sys/module/zswap/parameters/{name}" for name in ("enabled", "compressor", "max_pool_percent")),
    "/sys/module/zswap/parameters/accept_threshold_percent",
    LRU_GEN,
    "/sys/kernel/mm/lru_gen/min_ttl_ms",  # what was used since is not evicted: rather the OOM killer is called
)


def read_settings(host: Host, gaps: list[Gap]) -> tuple[tuple[str, str], ...]:
    """The settings that this kernel has, under their paths; of a choice the word that is chosen."""
    values = ((path, _value(host, gaps, path)) for path in SETTINGS)
    return tuple((path, value) for path, value in values if value is not None)


def read_huge_pools(host: Host, gaps: list[Gap]) -> tuple[HugePool, ...]:
    """The pools of each size, the whole machine's first, then each node's share."""
    pools = list(_pools(host, gaps, "/sys/kernel/mm/hugepages", None))
    nodes = (re.fullmatch(r"node([0-9]{1,6})", name) for name in names_in(host, gaps, "/sys/devices/system/node"))
    for node in sorted(int(match[1]) for match in nodes if match):
        pools += _pools(host, gaps, f"/sys/devices/system/node/node{node}/hugepages", node)
    return tuple(pools)


def read_zram(host: Host, gaps: list[Gap]) -> tuple[Zram, ...]:
    """The zram devices that are set up, by number."""
    numbers = (re.fullmatch(r"zram([0-9]{1,6})", name) for name in names_in(host, gaps, "/sys/block"))
    devices = (_device(host, gaps, f"zram{at}") for at in sorted(int(match[1]) for match in numbers if match))
    return tuple(device for device in devices if device is not None)


def _device(host: Host, gaps: list[Gap], name: str) -> Zram | None:
    size = _count(host, gaps, f"/sys/block/{name}/disksize")
    if not size:  # loaded, not set up
        return None
    path = f"/sys/block/{name}/mm_stat"  # mm_stat_show() in drivers/block/zram/zram_drv.c, since 4.1
    text = host.text(path, gaps)
    told = [] if text is None else [number(word) for word in text.split()]
    # Fields were added behind these seven: huge_pages (4.19), huge_pages_since (5.14).
    stored, compressed, used, limit, _peak, _same, _compacted = told[:7] if len(told) >= 7 else [None] * 7
    tell_odd(gaps, path, int(text is not None and (stored is None or None in told or not text.endswith("\n"))))
    return Zram(
        name=name,
        size_bytes=size,
        algorithm=_value(host, gaps, f"/sys/block/{name}/comp_algorithm"),
        stored_bytes=stored,
        compressed_bytes=compressed,
        used_bytes=used,
        max_bytes="max" if limit == 0 else limit,
        incompressible_pages=told[7] if len(told) > 7 else None,
    )


def _pools(host: Host, gaps: list[Gap], folder: str, node: int | None) -> list[HugePool]:
    sizes = (re.fullmatch(r"hugepages-([0-9]{1,12})kB", name) for name in names_in(host, gaps, folder))
    return [
        HugePool(
            page_bytes=kib * 1024,
            node=node,
            total=_count(host, gaps, f"{folder}/hugepages-{kib}kB/nr_hugepages"),
            free=_count(host, gaps, f"{folder}/hugepages-{kib}kB/free_hugepages"),
            reserved=_count(host, gaps, f"{folder}/hugepages-{kib}kB/resv_hugepages"),
            surplus=_count(host, gaps, f"{folder}/hugepages-{kib}kB/surplus_hugepages"),
        )
        for kib in sorted(int(match[1]) for match in sizes if match)
    ]


def _count(host: Host, gaps: list[Gap], path: str) -> int | None:
    text = host.text(path, gaps)
    count = None if text is None else number(text.removesuffix("\n"))
    tell_odd(gaps, path, int(text is not None and (count is None or not text.endswith("\n"))))
    return count


def _value(host: Host, gaps: list[Gap], path: str) -> str | None:
    """A word, or of several the one in brackets."""
    text = host.text(path, gaps)
    if text is None:
        return None
    words = text.split() if text.endswith("\n") and re.fullmatch(r"[\w .+:\[\]-]{1,256}\n", text, re.ASCII) else []
    chosen = [word[1:-1] for word in words if word.startswith("[") and word.endswith("]")] or words
    if len(chosen) == 1 and chosen[0]:
        return chosen[0]
    tell_odd(gaps, path, 1)
    return None

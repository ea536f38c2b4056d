"""Which zones a request could be served from, and what they had: out of reach, and in too small pieces."""

from collections.abc import Iterator

from reprieve.model.finding import Finding, Remedy, quote
from reprieve.model.oom import OomReport, OomSummary, Zone, figure
from reprieve.model.snapshot import Snapshot
from reprieve.oom.moments import elapsed_s
from reprieve.oom.once import once
from reprieve.rules.account import of_machine, ram_bytes
from reprieve.rules.evidence import lines
from reprieve.units import size

_GFP_DMA, _GFP_HIGHMEM, _GFP_DMA32, _GFP_MOVABLE = 0x1, 0x2, 0x4, 0x8  # include/linux/gfp_types.h
_AT_ONCE_S = 5.0  # a page fault that fails ends here at once, but for the time the kernel takes to print
_HIGHEST_ORDER = 30  # no kernel has blocks as large
_LOW_ZONES = ("DMA", "DMA32", "Normal")


def zone_short(snapshot: Snapshot) -> Iterator[Finding]:
    """The request could be served from some zones only; they were full, and free memory lay in others.

    A 32-bit kernel can use for itself only the first 800 MiB or so (DMA, Normal), however much high memory is free; a
    64-bit kernel has no such wall. Movable zones hold no memory of the kernel, and a device that asks for DMA or DMA32
    takes nothing above 16 MiB or 4 GiB. More RAM, or a process less in high memory, does not help.

    Source: gfp_zone() in include/linux/gfp.h; Documentation/mm/highmem.rst.
    """
    for number, oom in enumerate(snapshot.ooms):
        zones, others = usable_zones(oom), _out_of_reach(oom)
        if others is None:
            continue
        within, beyond = (sum(zone.free_bytes or 0 for zone in these) for these in (zones, others))
        names, far = (", ".join(dict.fromkeys(quote(zone.name) for zone in these)) for these in (zones, others))
        yield Finding(
            code="zone-short",
            severity="critical",
            confidence="certain",
            claim=f"Only zone {names} could serve the request: {size(within)} were free there, "
            f"{size(beyond)} in {far}, out of its reach",
            evidence=lines(
                oom, oom.trigger.line if oom.trigger is not None else None, *(z.line for z in (*zones, *others))
            ),
            oom=number,
        )


def _out_of_reach(oom: OomReport) -> tuple[Zone, ...] | None:
    """The zones with free memory out of the reach of a request whose own were full; None where it was not so."""
    zones, free, kept = usable_zones(oom), free_bytes(oom), kept_bytes(oom)
    if not of_machine(oom) or not zones or free is None or kept is None or oom.memory is None:
        return None
    within = sum(zone.free_bytes or 0 for zone in zones)
    others = tuple(zone for zone in oom.memory.zones if zone not in zones)
    beyond = sum(zone.free_bytes or 0 for zone in others)
    return None if within > 2 * kept or beyond <= 4 * within else others


def fragmented(snapshot: Snapshot) -> Iterator[Finding]:
    """The kernel wanted pages in a row and found none, though single pages were free.

    Order N is 2^N pages in a row. Up to order 3 the kernel kills to get them; beyond, the request fails and logs
    "page allocation failure" instead. Blocks kept for CMA or for requests that may not wait do not count. Reserved huge
    pages are no fragmentation.

    Source: __zone_watermark_ok() and __alloc_pages_may_oom() in mm/page_alloc.c.
    """
    for number, oom in enumerate(snapshot.ooms):
        seen = _wanted_whole(oom)
        if seen is None:
            continue
        zones, order, wanted, free = seen
        yield Finding(
            code="fragmented",
            severity="critical",
            confidence="likely",
            claim=f"{1 << order} pages in a row (order {order}, {size(wanted)}) were wanted and none was left whole: "
            f"{size(free)} were free in smaller pieces",
            evidence=lines(oom, oom.trigger.line if oom.trigger is not None else None, *_block_lines(oom, zones)),
            oom=number,
        )


def _wanted_whole(oom: OomReport) -> tuple[tuple[Zone, ...], int, int, int] | None:
    """Zones, order, bytes wanted in a row and bytes free in smaller pieces; None where that was not the reason."""
    zones, order = usable_zones(oom), oom.trigger.order if oom.trigger is not None else None
    if not of_machine(oom) or not zones or order is None or oom.page_size_bytes is None:
        return None
    if not 1 <= order <= _HIGHEST_ORDER or any(not zone.blocks or zone.min_bytes is None for zone in zones):
        return None
    wanted = oom.page_size_bytes << order
    free = sum((zone.free_bytes or 0) - (figure(zone.figures, "free_cma") or 0) for zone in zones)
    if free <= sum(zone.min_bytes or 0 for zone in zones) or any(_has_block(zone, wanted) for zone in zones):
        return None
    return zones, order, wanted, free


def not_short(snapshot: Snapshot) -> Iterator[Finding]:
    """The machine was not short of memory when the kernel called its OOM killer.

    Until 5.16 a page fault that failed for another reason ended there too: a process at the limit of its cgroup, or one
    that was dying, made the whole machine kill, or panic where vm.panic_on_oom is set. Such a report has a mask of 0x0.
    A zone whose watermarks are above all the memory there is serves nobody, however much is free: there the kernel's
    own count is broken, as by a balloon that took more from a zone than it had. Where most of the memory was free and
    the text lacks what was asked for, no more than that is claimed.

    Source: pagefault_out_of_memory() in mm/oom_kill.c; 60e2793d440a ("mm, oom: do not trigger out_of_memory from the
    #PF", v5.16).
    """
    for number, oom in enumerate(snapshot.ooms):
        trigger = oom.trigger
        if of_machine(oom) and (seen := _mostly_free(oom)) is not None:
            claim, zones = seen
            yield Finding(
                code="not-short",
                severity="critical",
                confidence="certain",
                claim=claim,
                evidence=lines(oom, *(zone.line for zone in zones)),
                oom=number,
            )
        if not of_machine(oom) or trigger is None or trigger.gfp_mask != 0:
            continue
        free, kept = free_bytes(oom), kept_bytes(oom)
        if free is None or kept is None or free <= 10 * kept:
            continue
        yield Finding(
            code="not-short",
            severity="critical",
            confidence="certain",
            claim=f"The machine was not short of memory, {size(free)} were free: a page fault failed for another "
            "reason, and kernels before 5.16 kill for that",
            evidence=lines(oom, trigger.line, *(zone.line for zone in usable_zones(oom))),
            remedies=(_look_at_limit(snapshot, oom),),
            oom=number,
        )


def _mostly_free(oom: OomReport) -> tuple[str, tuple[Zone, ...]] | None:
    """What is claimed where most of the memory was free, and no mask of 0x0 tells why; and of which zones."""
    free, zones = free_bytes(oom), oom.memory.zones if oom.memory is not None else ()
    whole = ram_bytes(oom) or sum(zone.managed_bytes or 0 for zone in zones)
    if free is None or not zones or not whole or free * 2 < whole:
        return None
    said = f"The machine was not short of memory, {size(free)} of {size(whole)} were free"
    for zone in zones:
        if (zone.min_bytes or 0) > whole:
            kept = f"zone {quote(zone.name)} was to keep {size(zone.min_bytes or 0)} back, more than there is"
            return f"{said}: {kept}, so the kernel's own count of it is broken", (zone,)
    # Without the mask it is not told which zones were in reach: none may be short.
    if oom.trigger is None and all((zone.free_bytes or 0) > 10 * (zone.high_bytes or whole) for zone in zones):
        return f"{said}; what was asked for in vain is not in this text", zones
    return None


def where_to_look(oom: OomReport) -> str | None:
    """What to look at where memory was free and of no use, with what else would help and its cost; None: it was of use.

    It is no remedy: no report proves that it would have saved the load.
    """
    if not of_machine(oom):
        return None
    if (seen := _mostly_free(oom)) is not None:
        if oom.trigger is None:
            return (
                "Look for what was asked for in vain, in the lines before these (“invoked oom-killer”: order, gfp_mask)"
            )
        names = ", ".join(quote(zone.name) for zone in seen[1])
        return (
            f"Look for a balloon (virtio, VMware, Hyper-V) that took memory from zone {names}: its count stays wrong "
            "until that is given back, or a restart"
        )
    zones, said = usable_zones(oom), []
    if (far := _out_of_reach(oom)) is not None:
        names = ", ".join(dict.fromkeys(quote(zone.name) for zone in zones))
        filled = _filled_by(zones)
        wall = "less Movable (movablecore=, kernelcore= at boot) leaves it more"
        if any(zone.name == "HighMem" for zone in far):
            wall = "a 64-bit kernel has no such wall"
        said.append(f"look at what fills {names}{f': {filled}' if filled else ''}; {wall}")
    if _wanted_whole(oom) is not None:
        said.append("try to join free pages, for some seconds of CPU: echo 1 > /proc/sys/vm/compact_memory")
    whole = "; ".join(said)
    return whole[:1].upper() + whole[1:] or None


_KINDS = {
    "page cache": ("active_file", "inactive_file"),
    "heaps and tmpfs": ("active_anon", "inactive_anon"),
    "unevictable": ("unevictable",),
}


def _filled_by(zones: tuple[Zone, ...]) -> str | None:
    """What most of the memory of these zones is, as far as their lines tell."""
    whole = sum(zone.managed_bytes or 0 for zone in zones)
    held = {
        kind: sum(figure(zone.figures, name) or 0 for zone in zones for name in names) for kind, names in _KINDS.items()
    }
    if not whole or not any(held.values()):
        return None
    rest = whole - sum(held.values()) - sum(zone.free_bytes or 0 for zone in zones)
    most, most_bytes = max((*held.items(), ("the kernel itself", rest)), key=lambda kind: kind[1])
    return f"{most} {size(most_bytes)} of {size(whole)}"


def _look_at_limit(snapshot: Snapshot, oom: OomReport) -> Remedy:
    """A limit that was hit a moment before is what failed the page fault: the machine's own settings are beside it."""
    before: OomSummary | None = None
    for event in snapshot.history:
        between = elapsed_s(event.stamp, oom.stamp)
        if event.limit_of is not None and event.host == oom.host and between is not None and between < _AT_ONCE_S:
            before = event
    title = "Look for a group that was at its memory limit just before; from 5.16 on kernels try such a fault again"
    if before is not None and before.limit_of is not None:
        name = quote(before.limit_of.name)
        title = f"Look at {name}, at its memory limit just before; from 5.16 on kernels try such a fault again"
    return Remedy(title=title)


@once
def usable_zones(oom: OomReport) -> tuple[Zone, ...]:
    """The zones that the request could be served from, by the zone bits of its mask; () where that is not told."""
    zones = oom.memory.zones if oom.memory is not None else ()
    mask = oom.trigger.gfp_mask if oom.trigger is not None else None
    if mask is None or any(zone.free_bytes is None or zone.high_bytes is None for zone in zones):
        return ()
    if mask == 0:  # the page fault path does not tell; what it asks for is for user space
        mask = _GFP_HIGHMEM | _GFP_MOVABLE
    if mask & _GFP_DMA:
        names: tuple[str, ...] | None = ("DMA",)
    elif mask & _GFP_DMA32:
        names = ("DMA", "DMA32")
    elif mask & _GFP_HIGHMEM:
        names = None if mask & _GFP_MOVABLE else (*_LOW_ZONES, "HighMem")
    else:
        names = _LOW_ZONES
    return tuple(zone for zone in zones if zone.managed_bytes != 0 and (names is None or zone.name in names))


@once
def kept_bytes(oom: OomReport) -> int | None:
    """What the request may not take of the zones it could use; None where that is not told.

    Up to the high watermark, where the OOM killer last looks; a reserve against requests that could use higher zones
    too (lowmem_reserve); and CMA, which is of no use to the kernel itself.
    """
    zones = usable_zones(oom)
    if not zones or oom.page_size_bytes is None or oom.memory is None:
        return None
    has_high = any(zone.name == "HighMem" for zone in oom.memory.zones)
    reaches_high = any(zone.name not in _LOW_ZONES for zone in zones)
    kept = 0
    for zone in zones:
        reserve = [pages for pages in zone.lowmem_reserve_pages if pages]  # by the highest zone a request may use
        if not reserve or (zone.name == "Normal" and not reaches_high):
            pages = 0
        else:
            pages = min(reserve) if has_high and not reaches_high else max(reserve)
        kept += (zone.high_bytes or 0) + min(pages * oom.page_size_bytes, zone.managed_bytes or 0)
        kept += figure(zone.figures, "free_cma") or 0
    return kept


def free_bytes(oom: OomReport) -> int | None:
    """Free memory of the whole machine: of all zones, those out of reach too. None where it is not told."""
    if oom.memory is None or oom.page_size_bytes is None:
        return None
    count = figure(oom.memory.counts, "free")
    zones = sum(zone.free_bytes or 0 for zone in oom.memory.zones)
    return zones if count is None else max(zones, count * oom.page_size_bytes)


def _has_block(zone: Zone, wanted_bytes: int) -> bool:
    """Has it a free block of that size that any request may take? Before 3.9 the types are not printed."""
    blocks = (block for block in zone.blocks if block.count and block.size_bytes >= wanted_bytes)
    return any(not block.types or set(block.types) & set("UMER") for block in blocks)


def _block_lines(oom: OomReport, zones: tuple[Zone, ...]) -> list[int]:
    """The buddy lists of these zones."""
    starts = tuple(f"{'' if zone.node is None else f'Node {zone.node} '}{zone.name}: " for zone in zones)
    return [number for number, text in oom.lines if text.lstrip().startswith(starts) and "kB" in text]

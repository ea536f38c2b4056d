"""What an allocation asked for: its gfp mask, as the kernel prints it in the reports of OOM and of failed allocations.

Names of the flags are printed since 4.6, and are believed before bits: most bits have moved (include/linux/gfp.h, since
6.0 gfp_types.h). These have not since 2.6.15: 0x1 DMA, 0x2 HIGHMEM, 0x4 DMA32, 0x20 HIGH, 0x40 IO, 0x80 FS. MOVABLE is
0x8 since 2.6.31, and was 0x100000; "may wait" was 0x10 until 4.3.
"""

_DMA, _HIGHMEM, _DMA32, _MOVABLE, _WAIT_UNTIL_4_3, _IO, _FS = 0x1, 0x2, 0x4, 0x8, 0x10, 0x40, 0x80
_MOVABLE_UNTIL_2_6_30 = 0x100000  # later: charged to a memory cgroup, which never goes with HIGHMEM
_HARDWALL = 0x20000  # 2.6.15 to 4.5: as long as names were not printed
_DIRECT_RECLAIM_4_4, _KSWAPD_RECLAIM_4_4 = 0x400000, 0x2000000  # 4.4 and 4.5; nothing was 0x2000000 before
_ZONE_BITS = {
    "GFP_DMA": _DMA,
    "__GFP_DMA": _DMA,
    "GFP_DMA32": _DMA32,
    "__GFP_DMA32": _DMA32,
    "GFP_HIGHUSER": _HIGHMEM,
    "__GFP_HIGHMEM": _HIGHMEM,
    "__GFP_MOVABLE": _MOVABLE,
    "GFP_HIGHUSER_MOVABLE": _HIGHMEM | _MOVABLE,
    "GFP_TRANSHUGE": _HIGHMEM | _MOVABLE,
    "GFP_TRANSHUGE_LIGHT": _HIGHMEM | _MOVABLE,
}
_NO_WAIT = ("", "GFP_ATOMIC", "GFP_NOWAIT", "GFP_TRANSHUGE_LIGHT")


def explain(flags: tuple[str, ...], mask: int | None, *, charged: bool = False) -> str | None:
    """What was asked for, in a few words that follow "asked for"; None if the mask is not told.

    `charged`: a cgroup's limit stopped it. Memory of processes is charged with GFP_KERNEL, so its zone flags say
    nothing there.

    >>> explain(("GFP_NOFS", "__GFP_HIGHMEM", "__GFP_HARDWALL", "__GFP_MOVABLE"), 0x101C4A)
    'memory for a process or a file, without entering a file system'
    """
    if not flags and mask is None:
        return None
    if not flags and not mask:
        return "memory in a page fault (the kernel does not print for what)"
    return _what(flags, mask, charged) + _how(flags, mask)


def _zone_bits(flags: tuple[str, ...], mask: int | None) -> int:
    bits = (mask or 0) & (_DMA | _HIGHMEM | _DMA32 | _MOVABLE)
    for flag in flags:
        bits |= _ZONE_BITS.get(flag, 0)
    if not flags and bits & _HIGHMEM and mask and mask & _MOVABLE_UNTIL_2_6_30:
        bits |= _MOVABLE
    return bits


def _what(flags: tuple[str, ...], mask: int | None, charged: bool) -> str:
    if charged:
        return "memory charged to the cgroup"
    bits = _zone_bits(flags, mask)
    if bits & _DMA:
        return "memory that must lie in zone DMA"
    if bits & _DMA32:
        return "memory that must lie below 4 GiB"
    if "GFP_TRANSHUGE" in flags or "GFP_TRANSHUGE_LIGHT" in flags:
        return "a transparent huge page"
    for_user = _is_user(flags) if flags else bool(bits & _HIGHMEM or (mask or 0) & _HARDWALL)
    return "memory for a process or a file" if for_user else "memory for the kernel itself"


def _is_user(flags: tuple[str, ...]) -> bool:
    """Is it bound to the cpuset of the process (__GFP_HARDWALL), as all memory for user space is?"""
    return any(flag in flags for flag in ("GFP_USER", "GFP_HIGHUSER", "GFP_HIGHUSER_MOVABLE", "__GFP_HARDWALL"))


def _how(flags: tuple[str, ...], mask: int | None) -> str:
    """What the caller could not let the kernel do to find the memory."""
    if flags:
        base = next((flag for flag in flags if flag.startswith("GFP_") and flag not in ("GFP_DMA", "GFP_DMA32")), "")
        waits = base not in _NO_WAIT or "__GFP_DIRECT_RECLAIM" in flags or "__GFP_RECLAIM" in flags
        io = base not in ("", "GFP_NOIO") or "__GFP_IO" in flags
        fs = base not in ("", "GFP_NOIO", "GFP_NOFS") or "__GFP_FS" in flags
    else:
        bits = mask or 0
        waits = bool(bits & (_DIRECT_RECLAIM_4_4 if bits & _KSWAPD_RECLAIM_4_4 else _WAIT_UNTIL_4_3 | _IO | _FS))
        io, fs = bool(bits & _IO), bool(bits & _FS)
    if not waits:
        return ", without waiting for any to be freed"
    if not io:
        return ", without starting I/O"
    return "" if fs else ", without entering a file system"

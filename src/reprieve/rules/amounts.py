"""Proposed amounts: each function returns the amount and its formula with the figures in it."""

from typing import NamedTuple

from reprieve.units import GIB, MIB, size

_STEP = 16 * MIB  # proposals are round figures
_WORK_STEP = MIB // 4  # those for each of many, too


class Amount(NamedTuple):
    """How much, and how it was computed."""

    count_bytes: int
    formula: str


def raised_limit(reached_bytes: int, swapped_bytes: int = 0) -> Amount:
    """A limit above one that was too low: half as much again as was held, swap included, 64 MiB more at least.

    A report shows that a limit was too low, never how high it must be: the peak of the next days tells.
    """
    held = reached_bytes + swapped_bytes
    proposed = _round_up(held + max(held // 2, 64 * MIB))
    said = f"({size(reached_bytes)} + {size(swapped_bytes)} in swap)" if swapped_bytes else size(reached_bytes)
    formula = f"{said} + 50 % (64 MiB at least), in steps of 16 MiB: {size(proposed)}"
    return Amount(count_bytes=proposed, formula=formula)


def limit_by_peak(peak_bytes: int) -> Amount:
    """A limit for a group whose highest use is known: a quarter above it, 32 MiB more at least."""
    proposed = _round_up(peak_bytes + max(peak_bytes // 4, 32 * MIB))
    formula = f"{size(peak_bytes)} at its peak + 25 % (32 MiB at least), in steps of 16 MiB: {size(proposed)}"
    return Amount(count_bytes=proposed, formula=formula)


def at_most(amount: Amount, most_bytes: int, whose: str) -> Amount:
    """The same, or the most that can be had, in whole MiB."""
    if amount.count_bytes <= most_bytes:
        return amount
    proposed = most_bytes // MIB * MIB
    return Amount(count_bytes=proposed, formula=f"{amount.formula}, but no more than {whose}: {size(proposed)}")


def limit_of_parent(child_bytes: int, beside_bytes: int) -> Amount:
    """A limit for a group under which one inside can reach its own, beside what the others hold now."""
    proposed = _round_up(child_bytes + beside_bytes)
    formula = f"{size(child_bytes)} of the inner limit + {size(beside_bytes)} that others in it hold: {size(proposed)}"
    return Amount(count_bytes=proposed, formula=formula)


def own_limit(ram_bytes: int, others_bytes: int) -> Amount | None:
    """A limit for one program beside all others, with a tenth of the RAM to spare; None if they leave it nothing."""
    spare = ram_bytes // 10
    proposed = (ram_bytes - others_bytes - spare) // MIB * MIB
    if proposed < _STEP:
        return None
    formula = f"{size(ram_bytes)} RAM − {size(others_bytes)} of all else − {size(spare)}, a tenth = {size(proposed)}"
    return Amount(count_bytes=proposed, formula=formula)


def less_than_took_all(held_bytes: int) -> Amount:
    """A limit for one program that took all there was, where the text does not tell of the rest: a tenth less."""
    proposed = held_bytes * 9 // 10 // MIB * MIB
    return Amount(
        count_bytes=proposed,
        formula=f"{size(held_bytes)}, with which memory ran out, less a tenth = {size(proposed)}",
    )


def heap_limit(limit_bytes: int) -> Amount:
    """A heap that leaves a quarter of the limit, at least 96 MiB, to stacks, code, buffers and the runtime itself.

    Under 192 MiB half of the limit.
    """
    rest = min(max(limit_bytes // 4, 96 * MIB), limit_bytes // 2)
    proposed = max((limit_bytes - rest) // MIB, 1) * MIB
    return Amount(
        count_bytes=proposed,
        formula=f"{size(limit_bytes)} less 25 % (96 MiB at least) for all that is no heap = {size(proposed)}",
    )


def heap_beside(limit_bytes: int, beside_bytes: int) -> Amount | None:
    """A heap that leaves what `heap_limit` does, and the space for what comes beside it; None under 16 MiB."""
    heap, left = heap_limit(limit_bytes), (limit_bytes - beside_bytes) // MIB * MIB
    if min(heap.count_bytes, left) < _STEP:
        return None
    if heap.count_bytes <= left:
        return heap
    formula = f"{size(limit_bytes)} less the {size(beside_bytes)} for what comes beside it = {size(left)}"
    return Amount(count_bytes=left, formula=formula)


def limit_for_heap(heap_bytes: int, beside_bytes: int) -> Amount:
    """A limit under which such a heap fits: a third more, 96 MiB at least, or what comes beside it."""
    rest = max(heap_bytes // 3, 96 * MIB, beside_bytes)
    proposed = _round_up(heap_bytes + rest)
    formula = f"{size(heap_bytes)} heap + {size(rest)} for all that is no heap, in steps of 16 MiB: {size(proposed)}"
    return Amount(count_bytes=proposed, formula=formula)


def limit_for(wanted_bytes: int, formula: str) -> Amount:
    """A limit under which so much fits."""
    proposed = _round_up(wanted_bytes)
    return Amount(count_bytes=proposed, formula=f"{formula}, in steps of 16 MiB: {size(proposed)}")


def work_mem_that_fits(room_bytes: int, beside_bytes: int, workers: int, factor: float) -> Amount | None:
    """PostgreSQL's work_mem with which so many workers fit beside all else, with a tenth to spare.

    `factor` is how many times as much a hash may take. None if it would be less than 1 MiB.
    """
    spare = room_bytes // 10
    proposed = int((room_bytes - spare - beside_bytes) / (workers * factor)) // _WORK_STEP * _WORK_STEP
    if proposed < MIB:
        return None
    times = f" / {factor:g}" if factor > 1 else ""
    less = f"{size(room_bytes)} − {size(spare)}, a tenth, − {size(beside_bytes)} for all else"
    formula = f"({less}) / {workers} connections and workers{times}, in steps of 256 KiB: {size(proposed)}"
    return Amount(count_bytes=proposed, formula=formula)


def connections_that_fit(room_bytes: int, beside_bytes: int, each_bytes: int) -> Amount | None:
    """How many connections of PostgreSQL fit beside all else, with a tenth to spare; None if fewer than 5 would."""
    spare = room_bytes // 10
    fit = (room_bytes - spare - beside_bytes) // each_bytes
    less = f"{size(room_bytes)} − {size(spare)}, a tenth, − {size(beside_bytes)} for all else"
    return None if fit < 5 else Amount(count_bytes=fit, formula=f"({less}) / {size(each_bytes)} = {fit}")


def a_quarter(room_bytes: int, shares: int = 1) -> Amount:
    """A quarter of what there is, in whole MiB; or one of so many shares of it, for those who work at one time."""
    proposed = max(room_bytes // 4 // shares // MIB, 1) * MIB
    each = f" / {shares} at a time" if shares > 1 else ""
    return Amount(count_bytes=proposed, formula=f"a quarter of {size(room_bytes)}{each}: {size(proposed)}")


def maxmemory_that_fits(room_bytes: int, buffers_bytes: int, *, saving: bool) -> Amount | None:
    """Redis' maxmemory under a limit: a quarter, 16 MiB at least, is for what it does not count, half if it saves.

    Not counted are the server itself, buffers of clients, what the allocator cannot give back. None if none fits.
    """
    spare = max(room_bytes // 4, 16 * MIB)
    left = room_bytes - spare - buffers_bytes
    proposed = (left // 2 if saving else left) // MIB * MIB
    if proposed < MIB:
        return None
    less = f" − {size(buffers_bytes)} for replicas" if buffers_bytes else ""
    said = f"{size(room_bytes)} − {size(spare)}, a quarter (16 MiB at least),{less}".rstrip(",")
    formula = f"({said}) / 2, as a save may copy all = {size(proposed)}" if saving else f"{said} = {size(proposed)}"
    return Amount(count_bytes=proposed, formula=formula)


def maxmemory_now(held_bytes: int) -> Amount:
    """Redis' maxmemory at which it grows no more: what it holds, and a twentieth, as that changes by the moment."""
    proposed = -(-(held_bytes + held_bytes // 20) // MIB) * MIB
    return Amount(count_bytes=proposed, formula=f"{size(held_bytes)} that it holds + 5 % = {size(proposed)}")


def pool_that_fits(room_bytes: int, beside_bytes: int, each_bytes: int, present: int) -> Amount | None:
    """How many workers fit beside all else, with a tenth to spare; None if none would, or no fewer than there are."""
    spare = room_bytes // 10
    fit = (room_bytes - spare - beside_bytes) // each_bytes
    if not 1 <= fit < present:
        return None
    formula = (
        f"({size(room_bytes)} − {size(spare)}, a tenth, − {size(beside_bytes)} of all else) / {size(each_bytes)}, the "
        f"largest = {fit} of {present}"
    )
    return Amount(count_bytes=fit, formula=formula)


def swap_size(swappable_bytes: int) -> Amount:
    """Swap for what nobody uses: a quarter of heaps and tmpfs, 64 MiB to 8 GiB.

    How much of it lies idle cannot be told: a kernel without swap does not age these pages.
    """
    proposed = _round_up(min(max(swappable_bytes // 4, 64 * MIB), 8 * GIB))
    formula = f"a quarter of {size(swappable_bytes)} (64 MiB to 8 GiB), in steps of 16 MiB: {size(proposed)}"
    return Amount(count_bytes=proposed, formula=formula)


def more_swap(total_bytes: int) -> Amount:
    """Swap beside swap that is full: as much again, 64 MiB to 8 GiB."""
    proposed = _round_up(min(max(total_bytes, 64 * MIB), 8 * GIB))
    formula = f"as much again as there is, {size(total_bytes)} (64 MiB to 8 GiB), in steps of 16 MiB: {size(proposed)}"
    return Amount(count_bytes=proposed, formula=formula)


def tmpfs_size_now(used_bytes: int) -> Amount:
    """A size at which a tmpfs can grow no more: what it holds, in whole MiB."""
    proposed = -(-used_bytes // MIB) * MIB
    return Amount(count_bytes=proposed, formula=f"what it holds now, in whole MiB: {size(proposed)}")


def tmpfs_size(held_bytes: int) -> Amount:
    """A size for a tmpfs that outgrew the memory: half of what was found in it."""
    proposed = max(held_bytes // 2 // MIB, 1) * MIB
    return Amount(count_bytes=proposed, formula=f"half of the {size(held_bytes)} found there = {size(proposed)}")


def half_as_many(count: int) -> tuple[int, str]:
    """How many processes to allow where so many filled the memory."""
    return count // 2, f"half of the {count} that were running = {count // 2}"


def jobs_that_fit(sizes_bytes: list[int], total_bytes: int) -> tuple[int, str] | None:
    """How many of such processes leave a tenth of the memory free: one as large as the largest, others as the next.

    None where it is as many as there were, or none.
    """
    largest, following = sorted(sizes_bytes, reverse=True)[:2]
    held, spare = sum(sizes_bytes), total_bytes // 10
    fit = 1 + (held - spare - largest) // max(following, 1)
    if held - spare < largest or fit >= len(sizes_bytes):
        return None
    less = f"{size(held)} held − {size(spare)}, a tenth of all, − {size(largest)} of the largest"
    return fit, f"1 + ({less}) / {size(following)}, the next = {fit} of {len(sizes_bytes)}"


def commit_ratio(promised_bytes: int, ram_bytes: int, swap_bytes: int) -> tuple[int, str] | None:
    """The percentage of RAM that may be promised, a quarter above what is; None if swap alone covers that, or no RAM.

    `ram_bytes` is RAM less huge pages.
    """
    wanted = promised_bytes + promised_bytes // 4
    if ram_bytes <= 0 or wanted <= swap_bytes:
        return None
    ratio = -(-100 * (wanted - swap_bytes) // ram_bytes)
    less = f" − {size(swap_bytes)} of swap" if swap_bytes else ""
    return ratio, f"({size(promised_bytes)} promised + 25 %{less}) / {size(ram_bytes)} of RAM = {ratio} %"


def _round_up(count_bytes: int) -> int:
    return -(-count_bytes // _STEP) * _STEP

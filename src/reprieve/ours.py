"""Which of the limits that were reached a change of ours has set."""

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress

from reprieve.machine.ledger import ledger_path, others_path, read_lines
from reprieve.model.change import Entry, OurLimit
from reprieve.model.finding import Failure
from reprieve.model.oom import OomReport
from reprieve.model.workload import Workload
from reprieve.oom.limit import reached

_OF_UNIT = "MemoryMax"
_OF_GROUP = ("memory.max", "memory.limit_in_bytes")


def our_limits(ooms: Iterable[OomReport], boot_id: str | None) -> tuple[OurLimit, ...]:
    """Of events of this boot; () where nothing was changed here, or the journal of changes may not be read."""
    groups = [
        (oom, oom.limit_of)
        for oom in ooms
        if oom.limit_of is not None and oom.boot_id is not None and oom.boot_id == boot_id
    ]
    if not groups:
        return ()
    found: list[OurLimit] = []
    for path_of, of_root in ((ledger_path, False), (others_path, True)):
        with suppress(Failure):  # what is wrong with it `changes` tells
            path = path_of()
            if path is not None and (lines := read_lines(path)):
                found += _found(groups, lines, path, of_root=of_root)
    return tuple(dict.fromkeys(found))


def _found(
    groups: Iterable[tuple[OomReport, Workload]], lines: list[bytes], path: str, *, of_root: bool
) -> Iterator[OurLimit]:
    from reprieve.apply import open_journal  # loads what changes a machine
    from reprieve.fix.journal import Past

    journal = open_journal(Past(lines), path=path)
    for oom, group in groups:
        usage = reached(oom)
        limit = usage.limit_bytes if usage is not None else None
        for change in reversed(journal.transactions()):
            if oom.stamp.wall_s is not None and oom.stamp.wall_s < change.begun_wall_s:
                continue
            entry = next((one for one in change.entries if journal.holds(one) and _is_of(one, group)), None)
            if entry is not None:
                if isinstance(limit, int) and _bytes(entry.want) == limit:
                    yield OurLimit(
                        path=group.path,
                        limit_bytes=limit,
                        change=change.number,
                        before_bytes=_bytes(entry.before),
                        of_root=of_root,
                    )
                break  # what an earlier one had set is over


def _is_of(entry: Entry, group: Workload) -> bool:
    """Does it set the memory limit of that group?"""
    place = entry.place
    if place.kind == "unit":
        return place.key == _OF_UNIT and place.of == group.unit and group.container_id is None
    if place.kind in ("cgroup", "cgroup.new"):
        return place.key.split("+")[0] in _OF_GROUP and f"/{place.of.partition('/')[2]}" == group.path
    return place.kind == "container" and place.of.rpartition("/")[2] == group.container_id


def _bytes(value: str | None) -> int | None:
    """The limit of memory, which stands before that of swap; None: there is none."""
    told = re.match("[0-9]{1,19}", value or "")
    return None if told is None else int(told[0])

"""Which counter of a cgroup refused."""

from reprieve.model.oom import OomReport, Usage
from reprieve.units import MIB

# Those that call the OOM killer, the one that is asked first before the other: try_charge() in mm/memcontrol.c. A full
# "kmem" only fails the request, and swap of v2 is not charged by it.
COUNTERS = ("memory+swap", "memory")


def reached(oom: OomReport) -> Usage | None:
    """The counter of the group that refused, which stands at its limit; None if the text shows none."""
    memory = oom.memcg.usage("memory") if oom.memcg is not None else None
    for name in COUNTERS:
        usage = oom.memcg.usage(name) if oom.memcg is not None else None
        if usage is None or usage.usage_bytes is None or not isinstance(usage.limit_bytes, int):
            continue
        if name != "memory" and memory is not None and memory.limit_bytes == usage.limit_bytes:
            continue  # both are the same limit: no swap besides
        # A charge is for up to 64 pages at once (MEMCG_CHARGE_BATCH), so the last few may stay unused.
        if usage.usage_bytes >= usage.limit_bytes - max(usage.limit_bytes // 100, MIB // 4):
            return usage
    return None

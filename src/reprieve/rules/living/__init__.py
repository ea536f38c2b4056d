"""What on a living machine leads to the next kill: facts of `Snapshot.machine` to findings."""

from collections.abc import Iterator
from itertools import chain

from reprieve.model.earlier import Earlier
from reprieve.model.finding import Finding
from reprieve.model.snapshot import Snapshot
from reprieve.rules import SEVERITIES
from reprieve.rules.living.commit import commit_limit_near, overcommit_unbounded
from reprieve.rules.living.groups import held_at_high, limits_exceed_memory, parent_below_child
from reprieve.rules.living.kernel import (
    huge_pages_reserved,
    segments_forgotten,
    slab_holds,
    tmpfs_holds,
    unevictable_holds,
)
from reprieve.rules.living.killers import killer_powerless, killers_compete, oomd_cannot_act
from reprieve.rules.living.nodes import node_bound
from reprieve.rules.living.order import exempt_holds, exemption_inherited, small_victim_next
from reprieve.rules.living.pool import pool_exceeds_limit
from reprieve.rules.living.postgres import postgres_backends_spared, postgres_exceeds_limit
from reprieve.rules.living.redis import redis_exceeds_limit, redis_fork_refused, redis_nearly_full, redis_unbounded
from reprieve.rules.living.runtimes import (
    jvm_heap_exceeds_limit,
    jvm_settings_exceed_limit,
    node_heap_exceeds_limit,
)
from reprieve.rules.living.settings import allocating_task_set, panic_set
from reprieve.rules.living.shares import (
    WARN_SHARE,
    group_holds,
    group_near_limit,
    memory_nearly_full,
    process_holds,
)
from reprieve.rules.living.since import exempt_grows, slab_grows
from reprieve.rules.living.swap import (
    swap_absent,
    swap_forbidden,
    swap_nearly_full,
    swap_small,
    swappiness_zero,
    zram_swappiness,
)
from reprieve.rules.living.together import applications_exceed_memory
from reprieve.rules.living.units import unit_adj_differs, unit_setting_ignored

# What stands still already, what will soon run out, what makes it worse when it does. The code of a finding is the name
# of its rule with dashes. Those of SHARES are told besides from which share on they speak.
CHECKS = (
    memory_nearly_full,
    held_at_high,
    swap_nearly_full,
    commit_limit_near,
    node_bound,
    tmpfs_holds,
    segments_forgotten,
    slab_holds,
    huge_pages_reserved,
    unevictable_holds,
    jvm_heap_exceeds_limit,
    node_heap_exceeds_limit,
    jvm_settings_exceed_limit,
    redis_unbounded,
    redis_exceeds_limit,
    redis_nearly_full,
    redis_fork_refused,
    postgres_exceeds_limit,
    postgres_backends_spared,
    pool_exceeds_limit,
    applications_exceed_memory,
    exempt_holds,
    exemption_inherited,
    small_victim_next,
    parent_below_child,
    limits_exceed_memory,
    killer_powerless,
    oomd_cannot_act,
    killers_compete,
    unit_setting_ignored,
    unit_adj_differs,
    swap_forbidden,
    swap_absent,
    swap_small,
    swappiness_zero,
    zram_swappiness,
    overcommit_unbounded,
    panic_set,
    allocating_task_set,
)
SHARES = (group_near_limit, process_holds, group_holds)
SINCE = (exempt_grows, slab_grows)  # told besides what was at the last look
LIVING = (*SHARES, *SINCE, *CHECKS)


def check(snapshot: Snapshot, *, share: float = WARN_SHARE, earlier: Earlier | None = None) -> list[Finding]:
    """All findings about the machine of a snapshot, the severest first, then in the order of LIVING.

    `share` of its limit, or of all memory, from which on a cgroup or a process is worth a word; `earlier` is what is
    known of the last look.
    """
    found: Iterator[Finding] = chain(
        (finding for rule in SHARES for finding in rule(snapshot, share)),
        (finding for rule in SINCE for finding in rule(snapshot, earlier)),
        (finding for rule in CHECKS for finding in rule(snapshot)),
    )
    return sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))


def code_of(rule: object) -> str:
    """The code of a rule's findings: its name with dashes."""
    return str(getattr(rule, "__name__", "")).replace("_", "-")

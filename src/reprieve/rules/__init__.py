"""From facts to findings: what was killed, why, and what to do. Nothing here opens, runs, kills or asks the clock."""

from reprieve.model.ending import Ending
from reprieve.model.finding import Finding
from reprieve.model.snapshot import Snapshot
from reprieve.rules.ending import (
    each_end,
    ended_by_oom,
    killed_by_daemon,
    killed_without_proof,
    manager_agrees,
    manager_differs,
)
from reprieve.rules.growth import alike_hold_most, process_grew
from reprieve.rules.host import host_full, many_processes, node_short
from reprieve.rules.incident import also_killed
from reprieve.rules.kernel import (
    dirty_cache,
    huge_pages_idle,
    kernel_memory,
    locked_memory,
    page_tables,
    shmem_holds,
)
from reprieve.rules.kill import allocating_task, group_kill, is_it_over, repeat_kills, small_victim, why_this_one
from reprieve.rules.kubernetes import evicted, told_by_node_agent
from reprieve.rules.limits import cgroup_limit, parent_limit
from reprieve.rules.swap import cgroup_swap_limit, cgroup_swap_unused, no_swap, swap_full, swap_unused
from reprieve.rules.text import unknown_field
from reprieve.rules.unchosen import asked_for, nobody_killable, panic_on_oom
from reprieve.rules.zones import fragmented, not_short, zone_short

SEVERITIES = ("critical", "warning", "notice", "info")

# What made it unlike other kills, what ran out, what held it, why this victim, how often, what would have helped. The
# code of a finding is the name of its rule with dashes.
RULES = (
    asked_for,
    not_short,
    panic_on_oom,
    shmem_holds,
    dirty_cache,
    kernel_memory,
    cgroup_limit,
    parent_limit,
    node_short,
    zone_short,
    fragmented,
    host_full,
    nobody_killable,
    also_killed,
    is_it_over,
    huge_pages_idle,
    locked_memory,
    page_tables,
    many_processes,
    process_grew,
    alike_hold_most,
    small_victim,
    allocating_task,
    repeat_kills,
    swap_full,
    cgroup_swap_limit,
    no_swap,
    group_kill,
    why_this_one,
    cgroup_swap_unused,
    swap_unused,
    manager_differs,
    manager_agrees,
    unknown_field,
    killed_by_daemon,
    ended_by_oom,
    told_by_node_agent,
    evicted,
    killed_without_proof,
)


def diagnose(snapshot: Snapshot) -> list[Finding]:
    """All findings about a snapshot: by event, then the severest first, then in the order of RULES."""
    found = [finding for rule in RULES for finding in rule(snapshot)]
    return sorted(found, key=lambda finding: (finding.oom or 0, SEVERITIES.index(finding.severity)))


def diagnose_each(endings: tuple[Ending, ...]) -> list[tuple[Ending, Finding]]:
    """What is to be said of each end by itself, for a list: `diagnose` tells those of one workload together."""
    return [(ending, finding) for ending in each_end(endings) for finding in diagnose(Snapshot(endings=(ending,)))]

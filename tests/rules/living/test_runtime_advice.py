"""What is advised of a heap fits, whatever the limit and the settings; machines made up from figures alone."""

from __future__ import annotations

import re
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from reprieve.model.application import Jvm, NodeJs
from reprieve.model.cgroup import Cgroup
from reprieve.model.finding import Finding
from reprieve.model.machine import Machine
from reprieve.model.process import Process
from reprieve.model.snapshot import Snapshot
from reprieve.rules.living import runtimes

MIB = 1 << 20
SIZES = st.integers(1, 1 << 36)
SETTINGS = st.one_of(st.none(), SIZES)


def found(machine: Machine) -> list[Finding]:
    rules = (
        runtimes.jvm_heap_exceeds_limit,
        runtimes.jvm_settings_exceed_limit,
        runtimes.node_heap_exceeds_limit,
    )
    return [finding for rule in rules for finding in rule(Snapshot(machine=machine))]


def made_up(limit_bytes: int, version: int, *, jvms: tuple[Jvm, ...] = (), nodes: tuple[NodeJs, ...] = ()) -> Machine:
    return Machine(
        meminfo=(("MemTotal", 64 << 30), ("SwapTotal", 0)),
        cgroups=(Cgroup(path="/", version=version), Cgroup(path="/app", version=version, max_bytes=limit_bytes)),
        processes=(Process(pid=7, start_ticks=1, comm="java", cgroup="/app", threads=20),),
        jvms=jvms,
        nodes_js=nodes,
    )


def advised(finding: Finding) -> int | None:
    """The heap in bytes, if one is proposed."""
    match = re.search(r"-Xmx(\d+)m|--max-old-space-size=(\d+)", " ".join(one.title for one in finding.remedies))
    return None if match is None else int(match[1] or match[2]) * MIB


def raised_bytes(finding: Finding) -> int | None:
    """The limit, if another one is proposed."""
    commands = [" ".join(command) for remedy in finding.remedies for command in remedy.commands]
    match = re.search(r"echo (\d+) > ", " ".join(commands[-1:]))
    return None if match is None else int(match[1])


@settings(max_examples=300, deadline=None)
@given(limit=SIZES, version=st.sampled_from([1, 2]), heap=SETTINGS, direct=SETTINGS, metaspace=SETTINGS, code=SETTINGS)
def test_a_jvm_with_the_heap_or_under_the_limit_that_was_advised_is_not_told_of(
    limit: int, version: int, heap: int | None, direct: int | None, metaspace: int | None, code: int | None
) -> None:
    jvm = Jvm(
        pid=7,
        start_ticks=1,
        use_container_support=False,
        max_heap_size_bytes=heap,
        max_direct_memory_size_bytes=direct,
        max_metaspace_size_bytes=metaspace,
        reserved_code_cache_size_bytes=code,
    )
    for finding in found(made_up(limit, version, jvms=(jvm,))):
        proposed = advised(finding)
        if proposed is not None:
            follows = replace(jvm, max_heap_size_bytes=proposed)
            codes = [one.code for one in found(made_up(limit, version, jvms=(follows,)))]
            assert finding.code not in codes
        if (raised := raised_bytes(finding)) is not None:
            codes = [one.code for one in found(made_up(raised, version, jvms=(jvm,)))]
            assert finding.code not in codes


@settings(max_examples=300, deadline=None)
@given(limit=SIZES, version=st.sampled_from([1, 2]), old=SETTINGS, semi=st.one_of(st.none(), st.integers(1, 1 << 30)))
def test_node_with_the_heap_that_was_advised_is_not_told_of(
    limit: int, version: int, old: int | None, semi: int | None
) -> None:
    node = NodeJs(pid=7, start_ticks=1, max_old_space_size_bytes=old, max_semi_space_size_bytes=semi)
    for finding in found(made_up(limit, version, nodes=(node,))):
        proposed = advised(finding)
        if proposed is not None:
            assert found(made_up(limit, version, nodes=(replace(node, max_old_space_size_bytes=proposed),))) == []


def test_no_heap_is_advised_in_which_nothing_runs() -> None:
    jvm = Jvm(pid=7, start_ticks=1, max_heap_size_bytes=1 << 30)
    (finding,) = found(made_up(24 * MIB, 2, jvms=(jvm,)))
    assert advised(finding) is None
    assert raised_bytes(finding) is not None


def test_what_could_not_be_read_is_said_and_makes_it_only_possible() -> None:
    jvm = Jvm(pid=7, start_ticks=1, max_heap_size_bytes=1 << 30, unseen=("environment",))
    (finding,) = found(made_up(200 * MIB, 2, jvms=(jvm,)))
    assert finding.confidence == "possible"
    assert "The environment of the process could not be read" in finding.detail[-1]


def test_swap_that_a_group_may_use_is_room() -> None:
    jvm = Jvm(pid=7, start_ticks=1, max_heap_size_bytes=300 * MIB)
    machine = made_up(200 * MIB, 2, jvms=(jvm,))
    assert [one.code for one in found(machine)] == ["jvm-heap-exceeds-limit"]
    swap = replace(machine, meminfo=(("MemTotal", 64 << 30), ("SwapTotal", 1 << 30)))
    assert found(swap) == []
    groups = (machine.cgroups[0], replace(machine.cgroups[1], swap_max_bytes=0))
    assert [one.code for one in found(replace(swap, cgroups=groups))] == ["jvm-heap-exceeds-limit"]


def test_a_heap_larger_than_the_machine_is_told_without_any_limit() -> None:
    jvm = Jvm(pid=7, start_ticks=1, max_heap_size_bytes=80 << 30, origins=(("MaxHeapSize", "command line"),))
    machine = replace(made_up(1, 2, jvms=(jvm,)), cgroups=())
    (finding,) = found(machine)
    assert "and the machine has 64 GiB" in finding.claim
    assert [remedy.title for remedy in finding.remedies] == [
        "Bound the heap below the limit: -Xmx49152m, instead of MaxHeapSize (command line)"
    ]

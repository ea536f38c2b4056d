"""Real JVMs whose settings do not fit beside each other, though each fits: bounds alone, none of it is touched.

The worst case of a JVM is more than twice its heap: direct memory may be as large, unless it is bounded.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from lab.host_cgroup import host_cgroup
from reprieve.machine.host import Host
from reprieve.machine.observe import observe
from reprieve.model.finding import Finding, Gap
from reprieve.model.snapshot import Snapshot
from reprieve.rules.living.together import applications_exceed_memory
from tests.lab.conftest import here_or_skipped
from tests.machine.runtimes import compiled, java

pytestmark = [pytest.mark.slow, pytest.mark.alone]


def _found() -> list[Finding]:
    gaps: list[Gap] = []
    return list(applications_exceed_memory(Snapshot(machine=observe(Host(), gaps, unique_s=0))))


def _ram_mib() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    figures = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    return (figures["MemTotal"] + figures["SwapTotal"]) // 1024


def test_two_that_fit_alone_do_not_fit_together(tmp_path: Path) -> None:
    folder, heap = compiled(tmp_path), f"-Xmx{_ram_mib() * 3 // 10}m"
    with java(folder, heap) as first:
        assert not any(f"/proc/{first.pid}" == line.source for one in _found() for line in one.evidence)
        with java(folder, heap) as second:
            (finding,) = _found()
            assert {f"/proc/{one.pid}" for one in (first, second)} <= {line.source for line in finding.evidence}


def test_what_is_under_a_limit_counts_as_that_limit(tmp_path: Path) -> None:
    folder, heap = compiled(tmp_path), f"-Xmx{_ram_mib() * 3 // 10}m"
    with ExitStack() as made, here_or_skipped():
        group = made.enter_context(host_cgroup(400 << 20))
        made.enter_context(java(folder, heap))
        made.enter_context(java(folder, heap, group=group.folder))
        assert _found() == []

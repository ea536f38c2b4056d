"""JVMs and Node.js processes under limits of real cgroups: whose heap does not fit is told, and lives as advised."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from lab.host_cgroup import HostCgroup, host_cgroup
from reprieve.machine.host import Host
from reprieve.machine.observe import observe
from reprieve.model.finding import Finding, Gap
from reprieve.model.snapshot import Snapshot
from reprieve.rules.living import check
from reprieve.rules.living.demand import demands
from tests.lab.conftest import here_or_skipped
from tests.machine.real import program
from tests.machine.runtimes import compiled, java, node
from tests.rules.test_runtimes import JAVA, NODE

MIB = 1 << 20
CODES = ("jvm-heap-exceeds-limit", "jvm-settings-exceed-limit", "node-heap-exceeds-limit")

pytestmark = pytest.mark.slow


class Case(NamedTuple):
    """A runtime with options in a group of that size."""

    limit_mib: int
    options: tuple[str, ...] = ()
    variable: str = ""  # JAVA_TOOL_OPTIONS or NODE_OPTIONS


SPEAKS = {
    "jvm-heap-exceeds-limit": (
        Case(200, ("-Xmx1g",)),
        Case(200, variable="-Xmx1g"),
        Case(200, ("-Xmx190m",)),  # the heap fits, but not the JVM with it
        Case(400, ("-XX:MaxRAMPercentage=98",)),
        Case(400, ("-XX:MaxRAM=2g",)),
        Case(400, ("-XX:-UseContainerSupport",)),
    ),
    "jvm-settings-exceed-limit": (
        Case(300, ("-Xmx200m", "-XX:MaxDirectMemorySize=200m")),
        Case(300, ("-Xmx200m",), "-XX:MaxMetaspaceSize=128m"),
    ),
    "node-heap-exceeds-limit": (
        Case(300, ("--max-old-space-size=2000",)),
        Case(300, variable="--max_old_space_size=2000"),
        Case(200),  # 256 MiB are the least by default
        Case(300, ("--max-old-space-size=200", "--max-semi-space-size=64")),
    ),
}
SILENT = {
    "jvm-heap-exceeds-limit": (
        (Case(200), "a quarter or half by default"),
        (Case(400, ("-Xmx300m",)), "it fits"),
        (Case(400, ("-XX:MaxRAMPercentage=75",)), "three quarters of what it sees"),
        (Case(400, ("-Xmx300m", "-cp", ".", "-Dx=-Xmx9g")), "it is the value of a property"),
        (Case(400, ("-Xmx9g", "-Xmx300m")), "the later one counts"),
    ),
    "jvm-settings-exceed-limit": (
        (Case(300, ("-Xmx150m", "-XX:MaxDirectMemorySize=64m", "-XX:MaxMetaspaceSize=48m")), "together they fit"),
        (Case(300, ("-Xmx200m",)), "no other bound was set"),
    ),
    "node-heap-exceeds-limit": (
        (Case(300), "256 MiB by default"),
        (Case(300, ("--max-old-space-size=204",)), "it fits"),
        (Case(300, ("--max-old-space-size=200",), "--max-old-space-size=2000"), "the command line counts more"),
    ),
}
PLAYED = [pytest.param(code, case, id=f"{code}-{number}") for code in CODES for number, case in enumerate(SPEAKS[code])]
ALIKE = [pytest.param(code, case, why, id=f"{code}-{why}") for code in CODES for case, why in SILENT[code]]


@pytest.fixture(scope="module")
def waits(tmp_path_factory: pytest.TempPathFactory) -> str:
    return compiled(tmp_path_factory.mktemp("java"))


def told(code: str, case: Case, waits: str) -> tuple[list[Finding], int]:
    """What is found of such a process, and its worst case."""
    with here_or_skipped(), host_cgroup(case.limit_mib * MIB) as group:
        variable = "NODE_OPTIONS" if code.startswith("node") else "JAVA_TOOL_OPTIONS"
        environ = {variable: case.variable} if case.variable else {}
        started = (
            node(*case.options, group=group.folder, environ=environ)
            if code.startswith("node")
            else java(waits, *case.options, group=group.folder, environ=environ)
        )
        with started as waiting:
            machine = observe(Host(), list[Gap](), unique_s=0)
        found = [one for one in check(Snapshot(machine=machine)) if one.about and one.about.path == group.path]
        (demand,) = [one for one in demands(machine) if one.pid == waiting.pid]
        return [one for one in found if one.code in CODES], demand.bytes


@pytest.mark.parametrize(("code", "case", "why"), ALIKE)
def test_it_is_silent_where_it_fits(code: str, case: Case, why: str, waits: str) -> None:
    assert [one.code for one in told(code, case, waits)[0]] == [], why


@pytest.mark.parametrize(("code", "case"), PLAYED)
def test_it_speaks_where_it_does_not_fit_and_is_silent_as_advised(code: str, case: Case, waits: str) -> None:
    (found,), demand_bytes = told(code, case, waits)
    assert found.code == code
    assert demand_bytes > case.limit_mib * MIB
    assert found.remedies[0].amount
    option = re.search(r"-Xmx\d+m|--max-old-space-size=\d+", found.remedies[0].title)
    assert option is not None, found.remedies
    assert told(code, case._replace(options=(*case.options, option[0])), waits)[0] == []


def test_workers_that_are_alike_are_told_once() -> None:
    with here_or_skipped(), host_cgroup(200 * MIB) as group, node(group=group.folder), node(group=group.folder):
        machine = observe(Host(), list[Gap](), unique_s=0)
        found = [one for one in check(Snapshot(machine=machine)) if one.code == "node-heap-exceeds-limit"]
    (one,) = [one for one in found if one.about and one.about.path == group.path]
    assert ", one of 2 alike, needs " in one.claim


# -- what is advised, followed -----------------------------------------------------------------------------------------


def run(group: HostCgroup, argv: Sequence[str]) -> int:
    enter = ("sh", "-c", 'echo $$ > "$0"/cgroup.procs; exec "$@"', str(group.folder))
    return subprocess.run((*enter, *argv), timeout=120, stderr=subprocess.DEVNULL).returncode


@pytest.mark.parametrize("remedy", [0, 1])
def test_a_load_that_dies_in_a_jvm_lives_as_advised(remedy: int, waits: str, tmp_path: Path) -> None:
    """With the heap, or under the limit, that was proposed while a JVM with the same settings was idle."""
    (tmp_path / "Load.java").write_text(JAVA)
    subprocess.run((program("javac"), "Load.java"), cwd=tmp_path, check=True)
    load = ("java", "-XX:+UseG1GC", "-Xmx400m", "-cp", str(tmp_path))
    with here_or_skipped(), host_cgroup(200 * MIB) as group:
        assert run(group, (*load, "Load")) == -9
        with java(waits, "-XX:+UseG1GC", "-Xmx400m", group=group.folder):
            advice = _advised(group, "jvm-heap-exceeds-limit", remedy)
        assert run(group, (*load, *advice, "Load")) == 0


@pytest.mark.parametrize("remedy", [0, 1])
def test_a_load_that_dies_in_node_lives_as_advised(remedy: int) -> None:
    load = (program("node"), "--single-threaded-gc", "--max-old-space-size=2000")
    with here_or_skipped(), host_cgroup(300 * MIB) as group:
        assert run(group, (*load, "-e", NODE)) == -9
        with node("--max-old-space-size=2000", group=group.folder):
            advice = _advised(group, "node-heap-exceeds-limit", remedy)
        assert run(group, (*load, *advice, "-e", NODE)) == 0


# -- what guides say ---------------------------------------------------------------------------------------------------


def test_a_heap_dump_is_written_of_javas_own_error_and_not_of_a_kill(tmp_path: Path) -> None:
    (tmp_path / "Leak.java").write_text(_LEAK)
    subprocess.run((program("javac"), "Leak.java"), cwd=tmp_path, check=True)
    dump = tmp_path / "dump.hprof"
    leak = ("java", "-XX:+HeapDumpOnOutOfMemoryError", f"-XX:HeapDumpPath={dump}", "-cp", str(tmp_path))
    with here_or_skipped(), host_cgroup(200 * MIB) as group:
        assert run(group, (*leak, "-Xmx1g", "Leak")) == -9
        assert not dump.exists()
        assert run(group, (*leak, "-Xmx64m", "Leak")) == 1
    assert dump.stat().st_size > 32 * MIB


_LEAK = """
class Leak {
    public static void main(String[] words) {
        java.util.ArrayList<byte[]> kept = new java.util.ArrayList<>();
        while (true) {
            byte[] more = new byte[1 << 18];
            java.util.Arrays.fill(more, (byte) 1);
            kept.add(more);
        }
    }
}
"""


def test_the_bound_of_the_old_space_does_not_bound_what_node_holds() -> None:
    """Buffers are outside it: a process that may hold 64 MiB there is killed at 200 MiB."""
    buffers = "const kept = []; for (let i = 0; i < 400; i++) kept.push(Buffer.alloc(1 << 20, 1));"
    with here_or_skipped(), host_cgroup(200 * MIB) as group:
        assert run(group, (program("node"), "--max-old-space-size=64", "-e", buffers)) == -9


def _advised(group: HostCgroup, code: str, remedy: int) -> tuple[str, ...]:
    """The option that is advised; or none, once the commands that are advised have been run."""
    machine = observe(Host(), list[Gap](), unique_s=0)
    found = [one for one in check(Snapshot(machine=machine)) if one.code == code]
    (mine,) = [one for one in found if one.about and one.about.path == group.path]
    chosen = mine.remedies[remedy]
    for command in chosen.commands:
        subprocess.run(command, check=True)
    option = re.search(r"-Xmx\d+m|--max-old-space-size=\d+", chosen.title)
    return () if option is None else (option[0],)

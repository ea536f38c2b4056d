"""What a heap may become by our reckoning is what the runtime itself says, over its settings and limits of cgroups."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.host_cgroup import host_cgroup
from reprieve.machine.host import Host
from reprieve.machine.observe import observe
from reprieve.model.application import Jvm, NodeJs
from reprieve.model.cgroup import Cgroup
from reprieve.model.finding import Gap
from reprieve.model.machine import Machine
from reprieve.model.process import Process
from reprieve.rules.living import heaps
from tests.lab.conftest import here_or_skipped
from tests.machine.real import program
from tests.machine.runtimes import JVMS, compiled, java, node

MIB, GIB = 1 << 20, 1 << 30
ROUNDED = 4 * MIB  # the regions of a heap below 16 GiB


@pytest.fixture(scope="module")
def waits(tmp_path_factory: pytest.TempPathFactory) -> str:
    return compiled(tmp_path_factory.mktemp("java"))


@contextmanager
def limited(limit_bytes: int | None, *, inner: bool = False) -> Iterator[Path | None]:
    """A cgroup with a limit, or one without inside it; None: none at all."""
    if limit_bytes is None:
        yield None
        return
    with here_or_skipped(), host_cgroup(limit_bytes) as group:
        if not inner:
            yield group.folder
            return
        inside = group.folder / "inner"
        inside.mkdir()
        try:
            yield inside
        finally:
            _remove(inside)


def _remove(folder: Path) -> None:
    while True:
        try:
            folder.rmdir()
        except OSError:  # busy until the last of its dead is gone
            continue
        return


def seen() -> Machine:
    return observe(Host(), list[Gap](), unique_s=0)


# -- a JVM -------------------------------------------------------------------------------------------------------------

LIMITS = (None, *(count * MIB for count in (96, 200, 249, 260, 400, 512, 1000, 1791, 3000)))
OPTIONS = (
    "-Xmx77m",
    "-Xmx1g -Xms8m",
    "-Xms300m",
    "-XX:MaxRAM=1g",
    "-XX:MaxRAM=150m",
    "-XX:MaxRAM=300m -XX:MaxRAMPercentage=70",
    "-XX:MaxRAMPercentage=75",
    "-XX:MaxRAMPercentage=7.5",
    "-XX:MinRAMPercentage=80 -XX:MaxRAM=150m",
    "-XX:MinRAMPercentage=20 -XX:MaxRAM=1g",
    "-XX:MinRAMPercentage=10 -XX:MaxRAM=200m",
    "-XX:InitialRAMPercentage=50 -XX:MaxRAM=2g",
    "-XX:-UseContainerSupport",
    "-XX:+UseSerialGC -XX:MaxRAM=20g",
    "-XX:+UseParallelGC -XX:MaxRAM=3g",
    "-XX:+UseZGC -XX:MaxRAM=3g",
)


def as_it_says(waits: str, jvm: str, *options: str, group: Path | None = None) -> None:
    with java(waits, *options, group=group, jvm=jvm) as waiting:
        machine = seen()
    (found,) = [one for one in machine.jvms if one.pid == waiting.pid]
    heap = heaps.of_jvm(machine, found)
    assert heap is not None
    assert 0 <= waiting.heap_bytes - heap.count_bytes < ROUNDED, heap


@pytest.mark.slow
@pytest.mark.parametrize("jvm", JVMS)
@pytest.mark.parametrize("limit_bytes", LIMITS)
def test_the_heap_of_a_jvm_follows_the_limit_of_its_group(limit_bytes: int | None, jvm: str, waits: str) -> None:
    with limited(limit_bytes) as group:
        as_it_says(waits, jvm, group=group)


@pytest.mark.slow
@pytest.mark.parametrize("jvm", JVMS)
@pytest.mark.parametrize("options", OPTIONS)
def test_the_heap_of_a_jvm_is_what_it_was_told(options: str, jvm: str, waits: str) -> None:
    as_it_says(waits, jvm, *options.split())


@pytest.mark.slow
@pytest.mark.parametrize("jvm", JVMS)
@pytest.mark.parametrize("options", ["", "-XX:MaxRAMPercentage=60", "-XX:-UseContainerSupport"])
def test_the_heap_of_a_jvm_follows_the_limit_of_a_group_above(options: str, jvm: str, waits: str) -> None:
    with limited(600 * MIB, inner=True) as group:
        as_it_says(waits, jvm, *options.split(), group=group)


@pytest.mark.slow
@pytest.mark.parametrize("jvm", JVMS)
@pytest.mark.parametrize("collector", ["G1", "Parallel", "Serial", "Z"])
def test_a_full_heap_takes_what_was_reckoned_at_least(collector: str, jvm: str, tmp_path: Path) -> None:
    """And less than all that its settings and defaults allow."""
    (tmp_path / "Fill.java").write_text(_FILL)
    subprocess.run((program("javac"), "Fill.java"), cwd=tmp_path, check=True)
    argv = (jvm, f"-XX:+Use{collector}GC", "-Xmx400m", "-Xms400m", "-XX:+AlwaysPreTouch", "Fill")
    child = subprocess.Popen(argv, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "full\n"
        machine = seen()
    finally:
        child.kill()
        child.communicate()
    (process,) = [one for one in machine.processes if one.pid == child.pid]
    (found,) = [one for one in machine.jvms if one.pid == child.pid]
    heap = heaps.of_jvm(machine, found)
    assert heap is not None
    # ZGC's heap is shared memory, which JDK 17 maps three times.
    held = (process.rss_anon_bytes or 0) + min(process.rss_shmem_bytes or 0, 400 * MIB)
    assert heaps.total(heaps.least_of_jvm(machine, found, heap)) <= held
    assert held <= heaps.total(heaps.most_of_jvm(machine, found, heap))


_FILL = """
class Fill {
    public static void main(String[] words) throws Exception {
        byte[][] kept = new byte[1000][];
        for (int i = 0; i < 1000; i++) kept[i] = new byte[300 << 10];
        System.out.println("full");
        System.in.read();
    }
}
"""


# Version 2, which this machine may not have: what each release looks at, by its own sources.
@pytest.mark.parametrize(
    ("version", "cgroups", "own", "above", "looks_at"),
    [
        ("1.8.0_181", 1, 512, "max", None),
        ("1.8.0_191", 1, 512, "max", 512),
        ("1.8.0_362", 2, 512, "max", None),
        ("1.8.0_372", 2, 512, "max", 512),
        ("9.0.4", 1, 512, "max", None),
        ("11.0.15", 1, 512, "max", 512),
        ("11.0.15", 2, 512, "max", None),
        ("11.0.16", 2, 512, "max", 512),
        ("17.0.15", 2, 512, "max", 512),
        ("17.0.15", 2, "max", 512, None),
        ("25.0.3", 2, "max", 512, 512),
        ("25.0.3", 2, 256, 512, 256),
        (None, 2, 512, "max", 512),
    ],
)
def test_a_release_looks_at_the_limits_that_it_knows_of(
    version: str | None, cgroups: int, own: int | str, above: int | str, looks_at: int | None
) -> None:
    groups = tuple(
        Cgroup(path=path, version=cgroups, max_bytes=limit * MIB if isinstance(limit, int) else "max")
        for path, limit in (("/", "max"), ("/app", above), ("/app/web", own), ("/apple", 1))
    )
    jvm = Jvm(pid=7, start_ticks=1, java_version=version)
    process = Process(pid=7, start_ticks=1, cgroup="/app/web")
    machine = Machine(meminfo=(("MemTotal", 8 * GIB),), cgroups=groups, processes=(process,), jvms=(jvm,))
    assert heaps.seen_by_jvm(machine, jvm) == (8 * GIB if looks_at is None else looks_at * MIB)


def test_a_machine_of_which_the_memory_is_not_told_makes_no_heap() -> None:
    jvm, nodejs = Jvm(pid=7, start_ticks=1), NodeJs(pid=7, start_ticks=1)
    assert heaps.of_jvm(Machine(jvms=(jvm,)), jvm) is None
    assert heaps.of_node(Machine(nodes_js=(nodejs,)), nodejs) is None


@settings(max_examples=200, deadline=None)
@given(
    version=st.one_of(st.none(), st.text(), st.from_regex(r"1?\.?[0-9_.]{0,20}")),
    share=st.floats(),
    count=st.integers(),
)
def test_settings_of_whatever_kind_make_a_heap(version: str | None, share: float, count: int) -> None:
    process = Process(pid=7, start_ticks=1, cgroup="/", threads=count)
    root = Cgroup(path="/", version=2, max_bytes=count)
    machine = Machine(meminfo=(("MemTotal", count),), processes=(process,), cgroups=(root,))
    jvm = Jvm(pid=7, start_ticks=1, java_version=version, max_ram_percentage=share, min_ram_percentage=share)
    heap = heaps.of_jvm(machine, jvm)
    assert heap is not None
    assert heaps.formula(heaps.most_of_jvm(machine, jvm, heap))
    nodejs = NodeJs(pid=7, start_ticks=1, node_version=version, max_semi_space_size_bytes=count)
    old = heaps.of_node(machine, nodejs)
    assert old is not None
    assert heaps.formula(heaps.least_of_node(machine, nodejs, old))


# -- Node.js -----------------------------------------------------------------------------------------------------------

NODE_LIMITS = (None, *(count * MIB for count in (200, 400, 600, 1000, 3000, 5000, 14000, 16000)))
NODE_OPTIONS = (
    "--max-old-space-size=100",
    "--max-old-space-size=3000",
    "--max-semi-space-size=1",
    "--max-semi-space-size=3",
    "--max-semi-space-size=64",
    "--max-old-space-size=200 --max-semi-space-size=32",
    "--max-heap-size=500",
)


def as_node_says(*options: str, group: Path | None = None) -> None:
    """To the byte until V8 12; later ones allow the young space up to 192 MiB, and more than was reckoned."""
    printed = subprocess.run((program("node"), "--version"), capture_output=True, text=True, check=True).stdout
    match = re.match(r"v(\d+)\.", printed)
    assert match is not None
    with node(*options, group=group) as waiting:
        machine = seen()
    (found,) = [one for one in machine.nodes_js if one.pid == waiting.pid]
    old = heaps.of_node(machine, found)
    assert old is not None
    reckoned = heaps.total(heaps.least_of_node(machine, found, old)[:2])
    assert 0 <= waiting.heap_bytes - reckoned <= (0 if int(match[1]) < 23 else 144 * MIB), old


@pytest.mark.slow
@pytest.mark.parametrize("limit_bytes", NODE_LIMITS)
def test_the_heap_of_node_follows_the_limit_of_its_group(limit_bytes: int | None) -> None:
    with limited(limit_bytes) as group:
        as_node_says(group=group)


@pytest.mark.slow
@pytest.mark.parametrize("options", NODE_OPTIONS)
@pytest.mark.parametrize("limit_bytes", [None, 600 * MIB])
def test_the_heap_of_node_is_what_it_was_told(options: str, limit_bytes: int | None) -> None:
    with limited(limit_bytes) as group:
        as_node_says(*options.split(), group=group)


@pytest.mark.slow
def test_node_does_not_see_the_limit_of_a_group_above() -> None:
    with limited(600 * MIB, inner=True) as group:
        as_node_says(group=group)


def test_node_before_18_does_not_see_version_2() -> None:
    groups = (Cgroup(path="/app", version=2, max_bytes=512 * MIB, high_bytes=400 * MIB),)
    process = Process(pid=7, start_ticks=1, cgroup="/app")
    for version, expected in (("16.20.2", 8 * GIB), ("20.20.2", 400 * MIB), (None, 400 * MIB)):
        nodejs = NodeJs(pid=7, start_ticks=1, node_version=version)
        machine = Machine(meminfo=(("MemTotal", 8 * GIB),), cgroups=groups, processes=(process,), nodes_js=(nodejs,))
        assert heaps.seen_by_node(machine, nodejs) == expected

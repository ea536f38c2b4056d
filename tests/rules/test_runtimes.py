"""A JVM and a Node process that die at a limit live with the heap that the explanation proposes."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from lab.host_cgroup import HostCgroup, host_cgroup
from reprieve.model.oom import OomReport
from reprieve.model.snapshot import Snapshot
from reprieve.oom.report import read_reports
from reprieve.rules.growth import process_grew
from tests.lab.conftest import here_or_skipped
from tests.machine.real import program

LIVES = {"jvm-heap": "process-grew", "node-heap": "process-grew"}
MIB = 1 << 20

# Both keep little and throw away much: a heap with room to grow does so before it is collected.
JAVA = """
class Load {
    public static void main(String[] words) {
        byte[][] kept = new byte[192][];
        for (int i = 0; i < 12000; i++) {
            kept[i % 192] = new byte[1 << 18];
            java.util.Arrays.fill(kept[i % 192], (byte) 1);
        }
    }
}
"""
NODE = "const kept = []; for (let i = 0; i < 1500000; i++) { kept[i % 60000] = new Array(200).fill(i); }"


@pytest.mark.slow
def test_a_jvm_lives_with_the_proposed_heap(tmp_path: Path) -> None:
    (tmp_path / "Load.java").write_text(JAVA)
    subprocess.run((program("javac"), "Load.java"), cwd=tmp_path, check=True)
    java = ("java", "-XX:+UseG1GC", "-cp", str(tmp_path))
    with here_or_skipped(), host_cgroup(200 * MIB) as group:
        assert _run(group, (*java, "-Xmx1g", "Load")) == -9
        match = re.search(r"-Xmx(\d+)m", _titles(group))
        assert match is not None
        assert _run(group, (*java, match[0], "Load")) == 0


@pytest.mark.slow
def test_a_node_process_lives_with_the_proposed_heap() -> None:
    node = (
        program("node"),
        "--single-threaded-gc",
    )  # a collector of its own threads keeps up or not, as the CPUs are free
    with here_or_skipped(), host_cgroup(300 * MIB) as group:
        assert _run(group, (*node, "--max-old-space-size=2000", "-e", NODE)) == -9
        match = re.search(r"--max-old-space-size=(\d+)", _titles(group))
        assert match is not None
        assert _run(group, (*node, match[0], "-e", NODE)) == 0


def _run(group: HostCgroup, argv: Sequence[str]) -> int:
    enter = ("sh", "-c", 'echo $$ > "$0"/cgroup.procs; exec "$@"', str(group.folder))
    return subprocess.run((*enter, *argv), timeout=120, stderr=subprocess.DEVNULL).returncode


def _titles(group: HostCgroup) -> str:
    """What the explanation of the kill in this cgroup says to do."""
    log = subprocess.run(("dmesg",), capture_output=True, check=True, text=True, errors="backslashreplace").stdout
    ooms = [event for event in read_reports(log) if isinstance(event, OomReport)]
    mine = next(oom for oom in ooms if (oom.oom_memcg or "").endswith(group.path))
    (finding,) = process_grew(Snapshot(ooms=(mine,)))
    return " ".join(remedy.title for remedy in finding.remedies)

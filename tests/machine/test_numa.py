"""To which nodes a process has bound itself, by those that do."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from reprieve.machine.host import Host
from reprieve.machine.numa import note_policies
from reprieve.machine.proc import read_processes
from reprieve.model.finding import Gap
from reprieve.model.process import Process
from tests.machine.real import missing

_BINDS = """
import ctypes, sys
if sys.argv[1:]:
    set_mempolicy, nodes = {"x86_64": 238, "aarch64": 237}.get(sys.argv[1], -1), ctypes.c_ulong(1)
    if ctypes.CDLL(None).syscall(set_mempolicy, 2, ctypes.byref(nodes), 64):  # MPOL_BIND
        print("refused", flush=True)
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize(("arguments", "bound_to"), [([os.uname().machine], "0"), ([], None)])
def test_who_has_bound_itself_is_told_by_its_nodes(arguments: list[str], bound_to: str | None) -> None:
    if not Path("/proc/self/numa_maps").exists():
        missing("a kernel that knows NUMA nodes")
    argv = [sys.executable, "-S", "-c", _BINDS, *arguments]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        if (said := process.stdout.readline()) == "refused\n":
            process.kill()
            missing("a sandbox that allows set_mempolicy(2)")
        assert said == "ready\n"
        gaps: list[Gap] = []
        (told,) = note_policies(Host(), read_processes(Host(), gaps, pids=[process.pid]), gaps)
    assert told.bound_to == bound_to
    assert gaps == []


@pytest.mark.parametrize(
    ("line", "bound_to"),
    [
        (b"00400000 bind:0-1,3 file=/bin/hog mapped=1 N0=1 kernelpagesize_kB=4\n", "0-1,3"),
        (b"00400000 bind=static:1 file=/bin/hog mapped=1 N0=1\n", "1"),
        (b"7f0000000000 bind=static|balancing:0 file=/bin/hog mapped=1 N0=1\n", "0"),
        (b"00400000 prefer:0 file=/bin/hog mapped=1 N0=1 kernelpagesize_kB=4\n", None),
        (b"00400000 interleave:0-1 file=/bin/hog mapped=1 N0=1\n", None),
        (b"00400000 default file=/bin/bind:0 mapped=1 N0=1 kernelpagesize_kB=4\n", None),
        (b"00400000 bind:" + b"0,2,4,6,8," * 20 + b"8 file=/bin/hog\n", None),  # cut: which are behind it is not known
        (b"\xff\x00", None),
        (b"", None),
    ],
)
def test_of_a_line_the_nodes_of_a_policy_that_binds(tmp_path: Path, line: bytes, bound_to: str | None) -> None:
    (tmp_path / "proc/7").mkdir(parents=True)
    (tmp_path / "proc/7/numa_maps").write_bytes(line)
    (told,) = note_policies(Host(str(tmp_path)), [Process(pid=7, start_ticks=1, rss_bytes=4096)], [])
    assert told.bound_to == bound_to

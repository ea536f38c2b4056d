"""The next command for a grown process, of the runtime its name tells: run as printed, it shows who allocated."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from reprieve.model.oom import OomReport
from reprieve.model.snapshot import Snapshot
from reprieve.oom.report import read_reports
from reprieve.rules.growth import process_grew
from tests.logs_of import text_of
from tests.machine.real import missing, program

pytestmark = pytest.mark.slow

MIB = 1 << 20
HOLDS = 80 * MIB
_PATIENCE_S = 120

JAVA = """
class Leak {
    static final java.util.List<Kept> kept = new java.util.ArrayList<>();
    static class Kept { byte[] bytes = new byte[1 << 18]; }
    public static void main(String[] words) throws Exception {
        for (int i = 0; i < 320; i++) kept.add(new Kept());
        System.out.println("has");
        System.in.read();
    }
}
"""
NODE = """
class Kept { constructor(i) { this.held = new Array(1 << 15).fill(i); } }
globalThis.kept = [];
for (let i = 0; i < 320; i++) kept.push(new Kept(i));
console.log("has"); process.stdin.resume();
"""
PYTHON = """
import sys
kept = []
def leak():
    for _ in range(320):
        kept.append(bytearray(1 << 18))
    print("has", flush=True)
    sys.stdin.read()
leak()
"""
GO = """
package main
import ("bufio"; "bytes"; "fmt"; "net"; "net/http"; _ "net/http/pprof"; "os")
var kept [][]byte
func leak() {
	for i := 0; i < 320; i++ {
		kept = append(kept, bytes.Repeat([]byte{1}, 1<<18))
	}
}
func main() {
	port, _ := net.Listen("tcp", "127.0.0.1:0")
	go http.Serve(port, nil)
	leak()
	fmt.Println("has", port.Addr().(*net.TCPAddr).Port)
	bufio.NewReader(os.Stdin).ReadString('\\n')
}
"""
NATIVE = """
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
char *kept[320];
__attribute__((noinline)) void leak(void) {
    for (int i = 0; i < 320; i++) memset(kept[i] = malloc(1 << 18), 1, 1 << 18);
}
int main(void) { leak(); puts("has"); fflush(stdout); getchar(); return 0; }
"""


def _advised(comm: str) -> list[tuple[str, ...]]:
    """The commands against the next one, for a process of that name that was killed."""
    text = text_of("lab/6.1.0-56-cloud-amd64__memcg.txt").replace("memhog", comm)
    (oom,) = (event for event in read_reports(text) if isinstance(event, OomReport))
    (finding,) = process_grew(Snapshot(ooms=(oom,)))
    return [command for remedy in finding.remedies for command in remedy.commands]


def one_of(comm: str, name: str) -> tuple[str, ...]:
    return next(command for command in _advised(comm) if name in command)


@contextmanager
def holding(argv: Sequence[str], folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that has its memory and waits, and what it said."""
    child = subprocess.Popen(argv, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    patience = threading.Timer(_PATIENCE_S, child.kill)  # then its output ends
    try:
        assert child.stdout is not None
        patience.start()
        said = next((line for line in child.stdout if line.startswith("has")), None)
        patience.cancel()
        assert said is not None, child.wait()
        yield child, said
    finally:
        patience.cancel()
        child.kill()
        child.communicate()


def told(argv: Sequence[str], words: Mapping[str, object]) -> list[str]:
    """That command with these words in the place of the advised, its program where it is installed."""
    name, *rest = (str(words.get(word, word)) for word in argv)
    return [program(name, os.path.dirname(sys.executable)), *rest]


def run(argv: Sequence[str], words: Mapping[str, object]) -> str:
    """What it prints."""
    ended = subprocess.run(told(argv, words), capture_output=True, text=True, timeout=_PATIENCE_S)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def peak_bytes(pid: int) -> int:
    match = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert match is not None
    return int(match[1]) * 1024


@pytest.fixture(scope="module")
def java(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("java")
    (folder / "Leak.java").write_text(JAVA)
    subprocess.run((program("javac"), "Leak.java"), cwd=folder, check=True, timeout=_PATIENCE_S)
    return folder


def test_a_jvm_tells_its_classes_in_next_to_no_memory(java: Path) -> None:
    with holding((program("java"), "-Xmx200m", "Leak"), java) as (child, _):
        run(one_of("java", "GC.class_histogram"), {"PID": child.pid})  # what jcmd itself brings in is there once
        before = peak_bytes(child.pid)
        said = run(one_of("java", "GC.class_histogram"), {"PID": child.pid})
        assert peak_bytes(child.pid) - before < HOLDS // 10
    assert re.search(r"320 .* Leak\$Kept", said), said


def test_a_jvm_dumps_a_heap_as_large_as_what_lives_in_it(java: Path) -> None:
    dump = java / "heap.hprof"
    with holding((program("java"), "-Xmx200m", "Leak"), java) as (child, _):
        run(one_of("java", "GC.heap_dump"), {"PID": child.pid, "/var/tmp/heap.hprof": dump})
    assert HOLDS < dump.stat().st_size < HOLDS * 1.5
    assert b"Leak$Kept" in dump.read_bytes()


def test_node_writes_a_snapshot_for_as_much_memory_again_at_most(tmp_path: Path) -> None:
    (tmp_path / "leak.js").write_text(NODE)
    with holding((program("node"), "--heapsnapshot-signal=SIGUSR2", "leak.js"), tmp_path) as (child, _):
        before = peak_bytes(child.pid)
        run(one_of("node", "-USR2"), {"PID": child.pid})
        ends_s = time.monotonic() + _PATIENCE_S
        while not (files := [*tmp_path.glob("*.heapsnapshot")]) or not files[0].read_bytes().rstrip().endswith(b"}"):
            assert time.monotonic() < ends_s
            time.sleep(0.2)
        assert peak_bytes(child.pid) < 2 * before
    assert b'"Kept"' in files[0].read_bytes()


def test_of_python_py_spy_tells_what_it_does(tmp_path: Path) -> None:
    scope = Path("/proc/sys/kernel/yama/ptrace_scope")  # from 1 on a sibling is closed to all but root; 3: to root too
    if scope.exists() and int(scope.read_text()) > (2 if os.geteuid() == 0 else 0):
        missing("the right to trace a process that is no child")
    (tmp_path / "leak.py").write_text(PYTHON)
    with holding((sys.executable, "leak.py"), tmp_path) as (child, _):
        before = peak_bytes(child.pid)
        said = run(one_of("python3", "py-spy"), {"PID": child.pid})
        assert peak_bytes(child.pid) - before < MIB
    assert "leak (leak.py" in said


def test_of_python_memray_tells_who_allocated_though_it_was_killed(tmp_path: Path) -> None:
    (tmp_path / "leak.py").write_text(PYTHON)
    words = {"PROGRAM.py": "leak.py", "/var/tmp/memray.bin": tmp_path / "memray.bin"}
    with holding(told(one_of("python3", "run"), words), tmp_path) as (child, _):
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        said = run(one_of("python3", "summary"), words)
    assert "leak at" in said


def test_of_go_pprof_tells_who_holds_the_heap(tmp_path: Path) -> None:
    (tmp_path / "leak.go").write_text(GO)
    env = os.environ | {"GO111MODULE": "off", "GOCACHE": str(tmp_path / "cache"), "GOFLAGS": ""}
    subprocess.run((program("go"), "build", "leak.go"), cwd=tmp_path, env=env, check=True, timeout=600)
    with holding((str(tmp_path / "leak"),), tmp_path) as (child, has):
        before = peak_bytes(child.pid)
        advised = one_of("prometheus", "pprof")
        said = run(advised, {advised[-1]: advised[-1].replace("6060", has.split()[1])})
        assert peak_bytes(child.pid) - before < HOLDS // 4
    assert "main.leak" in said


def test_of_a_native_program_heaptrack_tells_who_allocated(tmp_path: Path) -> None:
    (tmp_path / "leak.c").write_text(NATIVE)
    subprocess.run((program("cc"), "-g", "-O1", "-o", "leak", "leak.c"), cwd=tmp_path, check=True, timeout=_PATIENCE_S)
    with holding(told(one_of("leaky", "heaptrack"), {"PROGRAM": tmp_path / "leak"}), tmp_path) as (child, _):
        child.communicate("\n", timeout=_PATIENCE_S)
    (file,) = tmp_path.glob("heaptrack.leak.*")
    said = run(("heaptrack_print", str(file)), {})
    assert re.search(r"leak\b.*\n\s+at .*leak\.c", said), said

"""A JVM and a Node.js process that say what they may hold, and wait."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.machine.real import program

JVMS = sorted(str(path) for path in Path("/usr/lib/jvm").glob("*/bin/java") if not path.parents[1].is_symlink())
_WAIT = """
class Wait {
    public static void main(String[] words) throws Exception {
        System.out.println("waits");
        System.in.read();
    }
}
"""
_NODE_WAITS = 'console.log(v8.getHeapStatistics().heap_size_limit, "waits"); process.stdin.resume()'


class Waiting(NamedTuple):
    """A process that waits, and what it says its heap may become."""

    pid: int
    heap_bytes: int


def compiled(folder: Path) -> str:
    """A folder with a class that waits."""
    (folder / "Wait.java").write_text(_WAIT)
    subprocess.run((program("javac"), "Wait.java"), cwd=folder, check=True)
    return str(folder)


@contextmanager
def java(
    folder: str,
    *options: str,
    group: Path | None = None,
    environ: Mapping[str, str] | None = None,
    jvm: str | None = None,
) -> Iterator[Waiting]:
    """A JVM with these options, in that cgroup of version 1 or 2; its heap is MaxHeapSize as it prints it itself."""
    argv = (jvm or program("java"), "-XX:+PrintFlagsFinal", *options, "-cp", folder, "Wait", "-Xmx7m")
    with _waiting(argv, group, environ, folder) as (pid, said):
        match = re.search(r" MaxHeapSize += (\d+) ", said)
        assert match is not None, said
        yield Waiting(pid, int(match[1]))


@contextmanager
def node(
    *options: str, group: Path | None = None, environ: Mapping[str, str] | None = None, script: str = ""
) -> Iterator[Waiting]:
    """A Node.js process with these options; its heap is heap_size_limit of V8."""
    argv = (program("node"), *options, "-e", script + _NODE_WAITS)
    with _waiting(argv, group, environ, "/") as (pid, said):
        yield Waiting(pid, int(said.split()[-2]))


@contextmanager
def _waiting(
    argv: Sequence[str], group: Path | None, environ: Mapping[str, str] | None, folder: str
) -> Iterator[tuple[int, str]]:
    enter = () if group is None else ("sh", "-c", 'echo $$ > "$0"/cgroup.procs; exec "$@"', str(group))
    child = subprocess.Popen(
        (*enter, *argv),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=dict(environ or {}),
        cwd=folder,
        text=True,
    )
    try:
        assert child.stdout is not None
        lines: list[str] = []
        for line in child.stdout:
            lines.append(line)
            if line.endswith("waits\n"):
                break
        else:
            raise AssertionError(f"{argv} ended: {''.join(lines)}")
        yield child.pid, "".join(lines)
    finally:
        child.kill()
        child.communicate()

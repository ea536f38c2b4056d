"""A real OOM kill that harms nobody: a leak in a small memory cgroup of its own, on either version of cgroups."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from reprieve.machine.enclosure import Enclosure, enclose, find_hierarchy
from reprieve.machine.kmsg import open_kmsg, read_until_kill
from reprieve.model.finding import Failure, Gap
from reprieve.model.run import Bounds

LIMIT_BYTES = 32 * 1024 * 1024
# Takes a name of its own; waits for a line, so that it is in the cgroup before it grows; gives up at four times the
# limit, so that a limit that does not hold costs this machine 128 MiB and no more.
_LEAK = """
import sys
open("/proc/self/comm", "w").write("leaky-demo")
limit = int(input())
kept = [b"x" * (1 << 20) for _ in range(4 * limit >> 20)]
sys.exit(3)
"""
_PATIENCE_S = 10.0


def kill_a_leak(limit_bytes: int = LIMIT_BYTES) -> bytes:
    """Let the kernel kill a leaking child at a limit; what it logged of that, as records of /dev/kmsg.

    Raises Failure where no cgroup can be made or the log cannot be read; nothing is left behind either way.
    """
    gaps: list[Gap] = []
    log = open_kmsg(gaps)
    if log is None:
        raise Failure(f"{gaps[0].place}: {gaps[0].reason}", hint=gaps[0].hint)
    try:
        os.lseek(log, 0, os.SEEK_END)
        with small_cgroup(f"reprieve-demo-{os.getpid()}", limit_bytes) as cgroup:
            _run_leak(cgroup, limit_bytes)
            if (read := read_until_kill(log, cgroup.path, _PATIENCE_S)) is not None:
                return read
            raise Failure(
                f"the kernel did not log that it killed in {cgroup.path}",
                hint="sysctl kernel.printk_devkmsg and dmesg tell why",
            )
    finally:
        os.close(log)


@contextmanager
def small_cgroup(name: str, limit_bytes: int) -> Iterator[Enclosure]:
    """Make a memory cgroup with a limit and no swap, and remove it. Raises Failure: this machine does not allow it."""
    hierarchy, refusals = find_hierarchy(), list[str]()
    if hierarchy is None:
        hint = "mount -t cgroup2 none /sys/fs/cgroup, on the host"
        raise Failure("no memory controller is mounted here", hint=hint)
    made = enclose(hierarchy, name, None, Bounds(max_bytes=limit_bytes, swap_max_bytes=0), refusals)
    if made is None:
        raise Failure(f"no memory cgroup can be made: {'; '.join(refusals)}", hint="run it as root")
    try:
        yield made
    finally:
        made.close()


def _run_leak(cgroup: Enclosure, limit_bytes: int) -> None:
    """Run the child in the cgroup until it is killed."""
    argv = [sys.executable, "-I", "-S", "-c", _LEAK]
    child = subprocess.Popen(argv, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        cgroup.add(child.pid)
        child.communicate(f"{limit_bytes}\n", timeout=_PATIENCE_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failure(f"the leak did not end in {cgroup.folder}: {error}", hint="try again") from error
    finally:
        child.kill()
        child.wait()
    if child.returncode != -9:
        raise Failure(f"the limit of {cgroup.folder} does not hold: the leak ended with {child.returncode}")

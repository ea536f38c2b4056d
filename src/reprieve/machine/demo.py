"""A real OOM kill that harms nobody: a leak in a small memory cgroup of its own, on either version of cgroups."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from reprieve.machine.kmsg import open_kmsg, read_until_kill
from reprieve.model.finding import Failure, Gap

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
            _run_leak(cgroup.folder, limit_bytes)
            if (read := read_until_kill(log, cgroup.path, _PATIENCE_S)) is not None:
                return read
            raise Failure(
                f"the kernel did not log that it killed in {cgroup.path}",
                hint="sysctl kernel.printk_devkmsg and dmesg tell why",
            )
    finally:
        os.close(log)


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallCgroup:
    """A memory cgroup with a limit and no swap."""

    folder: str
    path: str  # from the root of the hierarchy, as this process sees it


@contextmanager
def small_cgroup(name: str, limit_bytes: int) -> Iterator[SmallCgroup]:
    """Make a memory cgroup with a limit, and remove it. Raises Failure where this machine does not allow it."""
    version, root = _memory_hierarchy()
    folder = f"{root}/{name}"
    try:
        if version == 2:
            _write(f"{root}/cgroup.subtree_control", "+memory")
        os.mkdir(folder)
    except OSError as error:  # read-only in a container, refused to a user, busy: all of them mean not here
        raise Failure(f"no memory cgroup can be made in {root}: {error.strerror}", hint="run it as root") from error
    try:
        for file, value in _settings(version, limit_bytes):
            if os.path.exists(f"{folder}/{file}"):  # a kernel may be built, or booted, without accounting of swap
                _write(f"{folder}/{file}", value)
        yield SmallCgroup(folder=folder, path=f"/{name}")
    finally:
        _remove(folder)


def _memory_hierarchy() -> tuple[int, str]:
    """The version of the memory controller, and where it is mounted."""
    with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as mounts:
        for line in mounts:
            _, mounted, kind, options, *_ = line.split(" ")
            if kind == "cgroup" and "memory" in options.split(","):
                return 1, mounted
            if kind == "cgroup2":
                with open(f"{mounted}/cgroup.controllers", encoding="ascii") as controllers:
                    if "memory" in controllers.read().split():
                        return 2, mounted
    raise Failure("no memory controller is mounted here", hint="mount -t cgroup2 none /sys/fs/cgroup, on the host")


def _settings(version: int, limit_bytes: int) -> tuple[tuple[str, str], ...]:
    if version == 2:
        return ("memory.max", str(limit_bytes)), ("memory.swap.max", "0")
    return ("memory.limit_in_bytes", str(limit_bytes)), ("memory.memsw.limit_in_bytes", str(limit_bytes))


def _run_leak(folder: str, limit_bytes: int) -> None:
    """Run the child in the cgroup until it is killed."""
    argv = [sys.executable, "-S", "-c", _LEAK]
    child = subprocess.Popen(argv, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        _write(f"{folder}/cgroup.procs", str(child.pid))
        child.communicate(f"{limit_bytes}\n", timeout=_PATIENCE_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failure(f"the leak did not end in {folder}: {error}", hint="try again") from error
    finally:
        child.kill()
        child.wait()
    if child.returncode != -9:
        raise Failure(f"the limit of {folder} does not hold: the leak ended with {child.returncode}")


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


def _remove(folder: str) -> None:
    for _ in range(200):
        try:
            os.rmdir(folder)
        except OSError:  # busy until the last of its dead is gone
            time.sleep(0.02)
        else:
            return
    os.rmdir(folder)

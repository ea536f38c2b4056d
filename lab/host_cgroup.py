"""A real kill on this machine, in a memory cgroup of its own: no guest, no compiler, a fraction of a second.

Needs root, /dev/kmsg and a memory controller, of either version, in which a cgroup may be made.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from lab.host import LabError
from reprieve.machine.demo import small_cgroup
from reprieve.model.finding import Failure

# Waits for a line on stdin, so that it is in the cgroup before it grows; gives up at four times the limit, so that a
# limit that does not hold cannot cost this machine its memory.
LEAK = "import sys; limit = int(input()); kept = [b'x' * (1 << 20) for _ in range(4 * limit >> 20)]; sys.exit(3)"
_NUMBERS = itertools.count(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """A child the kernel killed at the limit."""

    pid: int
    cgroup: str  # its path from the root of the hierarchy, as this process sees it
    log: str  # records as /dev/kmsg gives them, from before the kill to the kill line or a little after


@dataclass(frozen=True, slots=True, kw_only=True)
class HostCgroup:
    """A memory cgroup of this machine with a limit and no swap."""

    folder: Path
    path: str  # from the root of the hierarchy, as this process sees it
    limit_bytes: int

    def leak(self, *, timeout_s: float = 30) -> Kill:
        """Run a child that grows until the kernel kills it. Raises LabError if it lives, or the kernel logs nothing."""
        with _kmsg() as log:
            argv = [sys.executable, "-S", "-c", LEAK]
            child = subprocess.Popen(argv, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            try:
                (self.folder / "cgroup.procs").write_text(str(child.pid))
                child.communicate(f"{self.limit_bytes}\n", timeout=timeout_s)
            finally:
                child.kill()
                child.wait()
            if child.returncode != -9:
                raise LabError(f"a child in {self.folder} should have been killed, and ended with {child.returncode}")
            return Kill(pid=child.pid, cgroup=self.path, log=_read_until_kill(log, child.pid))


@contextmanager
def host_cgroup(limit_bytes: int = 32 << 20) -> Iterator[HostCgroup]:
    """Make a memory cgroup with a limit, remove it at the end. Raises LabError where this machine does not allow it."""
    with ExitStack() as made:
        try:
            name = f"reprieve-lab-{os.getpid()}-{next(_NUMBERS)}"
            cgroup = made.enter_context(small_cgroup(name, limit_bytes))
        except Failure as failure:
            raise LabError(failure.message, hint=failure.hint or "") from failure
        yield HostCgroup(folder=Path(cgroup.folder), path=cgroup.path, limit_bytes=limit_bytes)


@contextmanager
def _kmsg() -> Iterator[int]:
    """/dev/kmsg, positioned after what was logged before."""
    try:
        log = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    except (FileNotFoundError, PermissionError) as error:
        raise LabError(f"/dev/kmsg cannot be read: {error.strerror}", hint="run as root") from error
    try:
        os.lseek(log, 0, os.SEEK_END)
        yield log
    finally:
        os.close(log)


def _read_until_kill(log: int, pid: int) -> str:
    records: list[str] = []
    end = time.monotonic() + 2
    while time.monotonic() < end:
        try:
            records.append(os.read(log, 8192).decode(errors="backslashreplace"))  # one record each
        except BrokenPipeError:  # the log went on so fast that records are gone
            continue
        except BlockingIOError:
            if any(f"Killed process {pid} " in record for record in records):
                return "".join(records)
            time.sleep(0.01)
    raise LabError(f"the kernel did not log that it killed {pid}")

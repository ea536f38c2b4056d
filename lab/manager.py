"""A real systemd on this machine, the first process of a container: units, drop-ins and the bus, within a second.

Needs root and systemd-nspawn. What its units say about memory is kept and told by the manager; whether it also holds
is for a guest to show: on a machine with cgroup version 1 a container has no memory controller.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lab.guest import Answer
from lab.host import LabError, alone, call, folder
from lab.image import BOOKWORM, _debian_tar  # image.py stays as it is: saved guests are named by its bytes

_BOOT_S = 60
_CGROUPS = Path("/sys/fs/cgroup")


class Manager:
    """The container, booted. Its files are thrown away with it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid  # of its first process, as this machine sees it

    @property
    def root(self) -> Path:
        """Where its files are, from here."""
        return Path(f"/proc/{self.pid}/root")

    def run(self, script: str, *, timeout_s: float = 60) -> Answer:
        """Run a shell script in it."""
        inside = ("nsenter", "--target", str(self.pid), *"--mount --uts --ipc --net --pid --cgroup".split())
        done = subprocess.run(
            [*inside, "sh", "-s"],
            input=f"cd /\n{script}",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="backslashreplace",
            timeout=timeout_s,
        )
        return Answer(status=done.returncode, output=done.stdout)


@contextmanager
def manager(*folders: Path) -> Iterator[Manager]:
    """Boot it, with these folders of this machine below /mnt/0, /mnt/1 …, read only. Raises LabError."""
    if os.geteuid() != 0:
        raise LabError("only root can boot a container")
    if shutil.which("systemd-nspawn") is None:
        raise LabError("systemd-nspawn is not installed", hint="as root: apt-get install systemd-container")
    binds = [f"--bind-ro={path}:/mnt/{number}" for number, path in enumerate(folders)]
    name = f"reprieve-{os.getpid()}"
    argv = ["systemd-nspawn", "--quiet", f"--directory={_tree()}", "--volatile=overlay", f"--machine={name}", *binds]
    argv += ["--register=no", "--keep-unit", "--boot", "--console=pipe", "--kill-signal=SIGRTMIN+4"]
    before = _left()
    with tempfile.TemporaryFile() as said:
        nspawn = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        try:
            until = time.monotonic() + _BOOT_S
            while (pid := _child(nspawn.pid)) is None or Manager(pid).run(_BOOTED).status:
                if nspawn.poll() is not None or time.monotonic() > until:
                    said.seek(0)
                    raise LabError(f"the container did not boot: {said.read()[-600:].decode(errors='replace')}")
                time.sleep(0.1)
            yield Manager(pid)
        finally:
            nspawn.send_signal(signal.SIGTERM)
            try:
                nspawn.wait(20)
            except subprocess.TimeoutExpired:
                nspawn.kill()  # its first process goes with it: --kill-signal is for a good end only
                nspawn.wait()
            for group in sorted(_left() - before, reverse=True):  # the innermost first
                with suppress(OSError):
                    group.rmdir()


_BOOTED = "systemctl is-system-running --wait | grep -qE 'running|degraded'"


def _child(pid: int) -> int | None:
    """The container's first process, once nspawn has made it; it gets its namespaces before it runs anything."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(children[0]) if children else None


def _left() -> set[Path]:
    """Groups that nspawn makes and leaves behind where this machine has no systemd to clear them away."""
    tops = [_CGROUPS / name for name in ("", "systemd", "unified")]
    return {path for top in tops for part in ("payload", "supervisor") for path in (top / part).glob("**/")}


def _tree() -> Path:
    """A Debian in a folder, as it comes: nobody writes to it."""
    tar = _debian_tar(BOOKWORM)
    tree = folder() / tar.name.replace("debian-", "tree-").removesuffix(".tar")
    with alone("tree"):
        if not tree.exists():
            half = tree.with_suffix(".half")
            shutil.rmtree(half, ignore_errors=True)
            half.mkdir()
            call(("tar", "-C", half, "-xf", tar))
            half.rename(tree)
    return tree

"""A QEMU guest: boot it or bring a saved one back, run scripts in it, read its console.

Always TCG on one thread, for several virtual CPUs too: /dev/kvm may open where no stock kernel gets past its entry, and
multi-threaded TCG lost boots to a race in the kernel's text patching. A saved guest fits one QEMU build and one
`Machine`, so it is made where it is used and never kept in a repository.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
import select
import shutil
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from lab.host import LabError, call
from lab.kernels import Kernel

SPARE_DISK_MIB = 64
# panic=-1 with -no-reboot: a panic ends QEMU, and the console file has the report. cryptomgr.notests and the rest save
# seconds of a boot under TCG.
BOOT_WORDS = (
    *("console=ttyS0", "quiet", "loglevel=7", "printk.time=1", "panic=-1", "psi=1"),
    *("tsc=reliable", "no_timer_check", "random.trust_cpu=on", "cryptomgr.notests"),
)


class GuestDied(LabError):
    """The guest panicked, powered off or was lost; its console stays readable."""


class GuestSilent(LabError):
    """The guest did not answer in time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What a guest is made of, besides a spare disk of SPARE_DISK_MIB, /dev/vda, for swap or files from outside."""

    kernel: Kernel
    initramfs: Path
    memory_mib: int
    cpus: int = 1
    nodes_mib: tuple[int, ...] = ()  # NUMA nodes, together memory_mib; CPU 0 is of the first
    root: Path | None = None  # of ext4, raw or .qcow2, and read only through an overlay: /dev/vdb
    boot_words: tuple[str, ...] = ()

    def argv(self) -> list[str]:
        """QEMU's arguments, less those that name files of one guest."""
        words = [*BOOT_WORDS, *self.boot_words, *(["lab.root=/dev/vdb"] if self.root else [])]
        argv = ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
        argv += ["-machine", "q35", "-accel", "tcg,thread=single", "-cpu", "max", "-smp", str(self.cpus)]
        argv += ["-m", str(self.memory_mib), "-kernel", str(self.kernel.image), "-initrd", str(self.initramfs)]
        for node, mib in enumerate(self.nodes_mib):
            argv += ["-object", f"memory-backend-ram,id=memory{node},size={mib}M"]
            argv += ["-numa", f"node,nodeid={node},memdev=memory{node}" + (",cpus=0" if node == 0 else "")]
        return [*argv, "-append", " ".join(words)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """How a script in the guest ended, and what it printed on stdout and stderr."""

    status: int
    output: str


class Guest:
    """A running guest; a context manager that ends it.

    Use `Guest.boot` or `Guest.restore`. Files of its own are in a temporary folder.
    """

    def __init__(self, machine: Machine, *, spare: Path | None = None, saved: Path | None = None) -> None:
        self.machine = machine
        self._folder = Path(tempfile.mkdtemp(prefix="reprieve-guest."))
        self._asked = 0
        self._received = b""
        self._runner: socket.socket | None = None
        self._monitor: socket.socket | None = None
        argv = [*machine.argv(), *self._own_files(spare, saved)]
        if saved is not None:
            argv += ["-incoming", f"exec:zstd -dcq < {saved}", "-S"]
        with open(self._folder / "qemu.out", "wb") as out:
            # setpriv: if we are killed, the guest does not live on
            guarded = ["setpriv", "--pdeathsig", "KILL", *argv]
            self._qemu = subprocess.Popen(guarded, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)

    @classmethod
    def boot(cls, machine: Machine, *, spare: Path | None = None, timeout_s: float = 240) -> Self:
        """Start from nothing and wait until the guest takes scripts. Raises GuestDied, GuestSilent."""
        guest = cls(machine, spare=spare)
        try:
            guest._connect()
            guest._wait_for(0, timeout_s)
        except BaseException:  # an interrupt too must not leave a guest behind
            guest.close()
            raise
        return guest

    @classmethod
    def restore(cls, machine: Machine, saved: Path, *, spare: Path | None = None) -> Self:
        """Bring back what `save` wrote, with the bytes of `spare` at the start of the spare disk. Raises GuestDied."""
        guest = cls(machine, spare=spare, saved=saved)
        try:
            guest._connect()
            while guest._command("query-status")["status"] == "inmigrate":
                time.sleep(0.01)
            guest._command("cont")
            guest.run("true", timeout_s=30)
        except BaseException:  # as above
            guest.close()
            raise
        return guest

    def run(self, script: str, *, timeout_s: float = 120) -> Answer:
        """Run a shell script in the guest. Raises GuestDied if it takes the guest down, GuestSilent at the timeout."""
        assert self._runner is not None
        self._asked += 1
        self._runner.sendall(b"%d %s\n" % (self._asked, base64.b64encode(script.encode())))
        return self._wait_for(self._asked, timeout_s)

    def kernel_log(self) -> str:
        """What the kernel logged since the guest was saved, or booted, or the log was cleared, as dmesg prints it."""
        return self.run("busybox dmesg").output

    def console(self) -> str:
        """What the kernel printed on its console in this guest's life; after a panic, all there is."""
        return (self._folder / "console").read_text(errors="backslashreplace").replace("\r", "")

    def save(self, path: Path) -> None:
        """Freeze the guest into a file (and its disk beside it, as .qcow2) and end it."""
        self.run("sync; echo 3 > /proc/sys/vm/drop_caches; dmesg -c > /dev/null")
        self._command("stop")
        self._command("migrate-set-parameters", **{"max-bandwidth": 1 << 34})
        self._command("migrate", uri=f"exec:zstd -1 -q > {path}")
        while (status := self._command("query-migrate").get("status")) != "completed":
            if status == "failed":
                raise LabError("QEMU could not save the guest")
            time.sleep(0.05)
        self._command("quit")
        self._qemu.wait(20)
        if self.machine.root is not None:
            shutil.move(self._folder / "root.qcow2", path.with_suffix(".qcow2"))
        self.close()

    def wait_end(self, timeout_s: float = 30) -> None:
        """Wait for a guest that panics. Raises GuestSilent if it lives on."""
        try:
            self._qemu.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise GuestSilent(f"the guest lives on after {timeout_s:.0f} s") from error

    def cut_power(self, disk: Path) -> None:
        """End the guest as a power cut does, and keep what had reached its spare disk; of a .qcow2, that of its root.

        The guest's memory is lost; QEMU's tables of the qcow2 too, and with them new blocks since the last flush.
        """
        self._qemu.kill()
        self._qemu.wait()
        shutil.copyfile(self._folder / ("root.qcow2" if disk.suffix == ".qcow2" else "spare.img"), disk)

    def close(self) -> None:
        """End the guest and remove its files."""
        for connection in (self._runner, self._monitor):
            if connection is not None:
                connection.close()
        self._qemu.kill()
        self._qemu.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _own_files(self, spare: Path | None, saved: Path | None) -> list[str]:
        disk = self._folder / "spare.img"
        if spare is None:
            disk.touch()
        else:
            shutil.copyfile(spare, disk)
        with open(disk, "r+b") as image:
            image.truncate(SPARE_DISK_MIB << 20)
        drives = [f"file={disk},format=raw"]
        if root := self.machine.root:
            overlay = self._folder / "root.qcow2"
            below = saved.with_suffix(".qcow2") if saved else root
            kind = "qcow2" if below.suffix == ".qcow2" else "raw"
            call(("qemu-img", "create", "-q", "-f", "qcow2", "-b", below, "-F", kind, overlay))
            drives.append(f"file={overlay},format=qcow2")
        argv = ["-chardev", f"file,id=console,path={self._folder}/console", "-serial", "chardev:console"]
        for name, use in (("runner", ["-serial", "chardev:runner"]), ("monitor", ["-mon", "monitor,mode=control"])):
            argv += ["-chardev", f"socket,id={name},path={self._folder}/{name},server=on,wait=off", *use]
        for number, drive in enumerate(drives):
            argv += ["-drive", f"if=none,id=disk{number},cache=unsafe,{drive}"]
            argv += ["-device", f"virtio-blk-pci,drive=disk{number}"]
        return argv

    def _connect(self) -> None:
        self._runner = self._open("runner")
        self._monitor = self._open("monitor")
        self._monitor.recv(4096)  # the greeting
        self._command("qmp_capabilities")

    def _open(self, name: str) -> socket.socket:
        end = time.monotonic() + 20
        while self._qemu.poll() is None and time.monotonic() < end:
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.connect(str(self._folder / name))
            except (FileNotFoundError, ConnectionRefusedError):  # QEMU has not made it yet
                connection.close()
                time.sleep(0.01)
            else:
                return connection
        raise GuestDied(f"QEMU did not start: {(self._folder / 'qemu.out').read_text(errors='replace').strip()[-600:]}")

    def _command(self, execute: str, **arguments: object) -> dict[str, Any]:
        """One QMP command and its result; events in between are skipped."""
        assert self._monitor is not None
        self._monitor.sendall(json.dumps({"execute": execute, "arguments": arguments}).encode())
        with self._monitor.makefile("rb", buffering=0) as lines:
            for line in lines:
                reply = json.loads(line)
                if "error" in reply:
                    raise LabError(f"QEMU refused {execute}: {reply['error']['desc']}")
                if "return" in reply:
                    return dict(reply["return"])
        raise GuestDied(f"QEMU ended before it answered {execute}: {self._last_words()}")

    def _wait_for(self, number: int, timeout_s: float) -> Answer:
        assert self._runner is not None
        end = time.monotonic() + timeout_s
        pattern = rb"@@ %d (\d*) ([A-Za-z0-9+/=]*)\r?\n" % number
        while (match := re.search(pattern, self._received)) is None:
            if (left := end - time.monotonic()) <= 0:
                raise GuestSilent(f"the guest did not answer within {timeout_s:.0f} s: {self._last_words()}")
            if select.select([self._runner], [], [], left)[0]:
                received = self._runner.recv(1 << 16)
                if not received:
                    raise GuestDied(f"the guest is gone: {self._last_words()}")
                self._received += received
        self._received = self._received[match.end() :]
        printed = gzip.decompress(base64.b64decode(match[2])) if match[2] else b""
        return Answer(status=int(match[1] or 0), output=printed.decode(errors="backslashreplace"))

    def _last_words(self) -> str:
        return self.console()[-400:].strip()

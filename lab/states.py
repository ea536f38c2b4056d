"""The guests the lab knows by name, saved once and brought back in a second."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path

from lab import image, kernels
from lab.guest import Guest, GuestDied, GuestSilent, Machine
from lab.host import LabError, alone, call, folder

MACHINES = ("mini", "four", "numa", "systemd", "systemd-v1", "trixie")
MINI, FOUR, NUMA, SYSTEMD, SYSTEMD_V1, TRIXIE = MACHINES
ENGINES = ("6.12", TRIXIE)  # as Debian 13 has them
BOOTS = 3  # a boot under TCG that hangs is rare, and tried again


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """A guest that waits, booted and idle, in a file."""

    machine: Machine
    path: Path

    def restore(self, *, spare: Path | None = None) -> Guest:
        """The guest, running; `spare` is what its spare disk begins with."""
        return Guest.restore(self.machine, self.path, spare=spare)


def machine(series: str, kind: str) -> Machine:
    """The machine of that kind around a fetched kernel. Raises LabError if the kernel or a program is missing."""
    kernel = kernels.find(series)
    initramfs = image.initramfs(kernel)
    match kind:
        case "mini":
            return Machine(kernel=kernel, initramfs=initramfs, memory_mib=256)
        case "four":
            return Machine(kernel=kernel, initramfs=initramfs, memory_mib=256, cpus=4)
        case "numa":
            return Machine(kernel=kernel, initramfs=initramfs, memory_mib=320, nodes_mib=(192, 128))
        case "systemd":
            return Machine(kernel=kernel, initramfs=initramfs, memory_mib=512, root=image.root_image(image.BOOKWORM))
        case "systemd-v1":
            hierarchy = ("systemd.unified_cgroup_hierarchy=0",)
            root = image.root_image(image.BOOKWORM)
            return Machine(kernel=kernel, initramfs=initramfs, memory_mib=512, root=root, boot_words=hierarchy)
        case "trixie":
            return Machine(kernel=kernel, initramfs=initramfs, memory_mib=1024, root=image.root_image(image.TRIXIE))
        case _:
            raise LabError(f"no machine {kind}", hint=f"there are {', '.join(MACHINES)}")


@functools.cache  # what it is made of does not change while a process uses it
def saved(series: str, kind: str) -> Saved:
    """The saved guest of that kernel and kind, made now if this QEMU has not made it yet."""
    built = machine(series, kind)
    version = call(("qemu-system-x86_64", "--version")).splitlines()[0]
    digest = hashlib.sha256("\0".join([version, built.kernel.release, str(built.root), *built.argv()]).encode())
    path = folder() / "states" / f"{series}-{kind}-{digest.hexdigest()[:12]}.zst"
    with alone(f"state-{series}-{kind}"):
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            for stale in path.parent.glob(f"{series}-{kind}-{'[0-9a-f]' * 12}.*"):
                stale.unlink()
            _save(built, path)
    return Saved(machine=built, path=path)


def _save(built: Machine, path: Path) -> None:
    guest = boot(built)
    with guest:
        if built.root is not None:
            guest.run("systemctl is-system-running --wait", timeout_s=240)
        half = path.with_name(path.stem + ".half")
        guest.save(half)
    if built.root is not None:
        half.with_suffix(".qcow2").rename(path.with_suffix(".qcow2"))
    half.rename(path)


def boot(built: Machine, *, spare: Path | None = None) -> Guest:
    """A guest booted from nothing, which is tried again where it hangs."""
    for _ in range(BOOTS - 1):
        try:
            return Guest.boot(built, spare=spare)
        except (GuestDied, GuestSilent):
            continue
    return Guest.boot(built, spare=spare)

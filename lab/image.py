"""What a guest boots from: an initramfs (all of the mini guest), and the root image of the systemd guest."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lab.host import LabError, alone, call, debian_mirror, folder
from lab.kernels import Kernel

HERE = Path(__file__).parent
MODULES = ("virtio_pci", "virtio_blk", "ext4", "lzo-rle", "lz4", "zstd", "zram", "loop", "overlay")
SYSTEMD_PACKAGES = (
    *("systemd", "systemd-sysv", "systemd-oomd", "udev", "dbus", "libpam-systemd", "earlyoom", "kmod", "mount"),
    *("procps", "util-linux", "e2fsprogs", "busybox-static", "python3"),
)
ENGINE_PACKAGES = ("docker.io", "docker-cli", "podman", "crun", "uidmap", "dbus-user-session")
# Nothing but the runner may start by itself: a timer that wakes up is another process in somebody's task table.
MASKED = (
    *("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "fstrim.timer"),
    *("e2scrub_reap.service", "systemd-pstore.service", "systemd-timesyncd.service", "getty.target"),
)
STARTED_BY_SCENARIOS = (
    *("earlyoom.service", "systemd-oomd.service", "docker.service", "docker.socket", "containerd.service"),
    *("podman.service", "podman.socket", "podman-restart.service", "podman-auto-update.service"),
    *("podman-auto-update.timer", "podman-clean-transient.service", "netavark-dhcp-proxy.service"),
    "netavark-dhcp-proxy.socket",
)
RUNNER_UNIT = """\
[Unit]
Description=lab runner
DefaultDependencies=no
After=sysinit.target dbus.socket
[Service]
ExecStart=/lab/runner.sh /dev/ttyS1
OOMScoreAdjust=-1000
OOMPolicy=continue
Restart=always
RestartSec=0
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """A Debian for the disk of a guest."""

    suite: str
    packages: tuple[str, ...]
    mib: int  # of the disk: more than the files need, for swap files and images


BOOKWORM = Root(suite="bookworm", packages=SYSTEMD_PACKAGES, mib=900)
TRIXIE = Root(suite="trixie", packages=(*SYSTEMD_PACKAGES, *ENGINE_PACKAGES), mib=1800)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A file of an initramfs."""

    name: str
    data: bytes
    mode: int = 0o100755


def hog() -> Path:
    """The static program that takes memory, compiled unless its source has not changed."""
    source = HERE / "hog.c"
    built = folder() / f"hog-{_digest([source.read_bytes()])}"
    with alone("hog"):
        if not built.exists():
            call(("gcc", "-O2", "-static", "-s", "-o", built, source))
    return built


def initramfs(kernel: Kernel) -> Path:
    """The mini guest, which is the first step of the systemd guest too: busybox, the runner, hog, modules."""
    modules = kernel.modules(MODULES)
    entries = [
        Entry(name="bin/busybox", data=_busybox().read_bytes()),
        Entry(name="bin/sh", data=b"busybox", mode=0o120777),
        Entry(name="bin/hog", data=hog().read_bytes()),
        Entry(name="init", data=(HERE / "init.sh").read_bytes()),
        Entry(name="lab/runner.sh", data=(HERE / "runner.sh").read_bytes()),
        *(Entry(name=f"lib/modules/{_plain_name(path)}", data=_plain(path)) for path in modules),
        Entry(name="lib/modules.order", data="\n".join(map(_plain_name, modules)).encode()),
    ]
    archive = b"".join(_cpio(entries))
    built = folder() / f"initramfs-{kernel.series}-{_digest([archive])}.cpio"
    with alone("initramfs"):
        if not built.exists():
            _remove_all(f"initramfs-{kernel.series}-*")
            half = built.with_suffix(".half")
            half.write_bytes(archive)
            half.rename(built)
    return built


def root_image(debian: Root) -> Path:
    """The disk of a systemd guest: Debian, the runner as a unit, hog. Needs root to build. No guest writes to it."""
    parts = [hog().read_bytes(), (HERE / "runner.sh").read_bytes(), Path(__file__).read_bytes()]
    built = folder() / f"root-{debian.suite}-{_digest(parts)}.ext4"
    with alone(f"root-{debian.suite}"), tempfile.TemporaryDirectory(dir=folder(), prefix="root.") as name:
        if not built.exists():
            if os.geteuid() != 0:
                raise LabError("only root can build the systemd guest", hint="as root: python -m lab setup --systemd")
            _remove_all(f"root-{debian.suite}-*.ext4")
            root = Path(name) / "root"
            root.mkdir()
            call(("tar", "-C", root, "-xf", _debian_tar(debian)))
            _furnish(root)
            _make_disk(root, built, debian.mib)
    return built


def _debian_tar(debian: Root) -> Path:
    packages = ",".join(debian.packages)
    tar = folder() / f"debian-{debian.suite}-{_digest([packages.encode()])}.tar"
    if not tar.exists():
        mirror = debian_mirror()
        unseen = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "locale", "info")]
        half = tar.with_suffix(".half")
        options = ("--variant=minbase", "--format=tar", f"--include={packages}", f"--keyring={mirror.keyring}")
        no_recommends = '--aptopt=APT::Install-Recommends "false"'
        call(("mmdebstrap", *options, no_recommends, *unseen, debian.suite, half, *mirror.sources(debian.suite)))
        half.rename(tar)
    return tar


def _furnish(root: Path) -> None:
    for clutter in ("var/lib/apt/lists", "var/cache/apt"):
        shutil.rmtree(root / clutter)
        (root / clutter).mkdir()
    units = root / "etc/systemd/system"
    wants = units / "multi-user.target.wants"
    wants.mkdir(exist_ok=True)
    for unit in MASKED:
        (units / unit).unlink(missing_ok=True)
        (units / unit).symlink_to("/dev/null")
    for folder_of_wants in units.glob("*.wants"):
        for unit in STARTED_BY_SCENARIOS:
            (folder_of_wants / unit).unlink(missing_ok=True)
    (units / "lab-runner.service").write_text(RUNNER_UNIT)
    (wants / "lab-runner.service").symlink_to("../lab-runner.service")
    (root / "lab").mkdir()
    shutil.copy(HERE / "runner.sh", root / "lab/runner.sh")
    shutil.copy(hog(), root / "usr/local/bin/hog")
    (root / "etc/hostname").write_text("lab\n")
    (root / "etc/fstab").write_text("")
    (root / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")


def _make_disk(root: Path, built: Path, mib: int) -> None:
    half = built.with_suffix(".half")
    half.unlink(missing_ok=True)
    with open(half, "wb") as disk:
        disk.truncate(mib << 20)
    # No journal: a guest is thrown away. No metadata_csum_seed, orphan_file: a 5.10 kernel mounts it too.
    call(("mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", "-O", "^has_journal,^metadata_csum_seed", "-d", root, half))
    half.rename(built)


def _busybox() -> Path:
    for path in (Path("/bin/busybox"), Path("/usr/bin/busybox")):
        if path.exists():
            return path
    raise LabError("busybox is not installed", hint="as root: python -m lab setup")


def _plain_name(module: Path) -> str:
    return module.name.removesuffix(".xz").removesuffix(".gz").removesuffix(".zst")


def _plain(module: Path) -> bytes:
    match module.suffix:
        case ".xz":
            return lzma.decompress(module.read_bytes())
        case ".gz":
            return gzip.decompress(module.read_bytes())
        case ".zst":
            with tempfile.NamedTemporaryFile() as plain:
                call(("zstd", "-dqf", module, "-o", plain.name))
                return Path(plain.name).read_bytes()
        case _:
            return module.read_bytes()


def _cpio(entries: Iterable[Entry]) -> Iterator[bytes]:
    """A newc archive (Documentation/driver-api/early-userspace/buffer-format.rst), as it is: TCG unpacks slowly."""
    files = list(entries)
    folders = {str(parent): None for entry in files for parent in reversed(Path(entry.name).parents) if parent.name}
    folders |= dict.fromkeys(("proc", "sys", "dev"))
    everything = [*(Entry(name=name, data=b"", mode=0o40755) for name in folders), *files]
    for inode, entry in enumerate([*everything, Entry(name="TRAILER!!!", data=b"", mode=0)], start=1):
        name = entry.name.encode() + b"\0"
        numbers = (inode, entry.mode, 0, 0, 1, 0, len(entry.data), 0, 0, 0, 0, len(name), 0)
        header = b"070701" + b"".join(b"%08X" % number for number in numbers) + name
        yield header + bytes(-len(header) % 4)
        yield entry.data + bytes(-len(entry.data) % 4)


def _digest(parts: Iterable[bytes]) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:12]


def _remove_all(pattern: str) -> None:
    """Remove what earlier sources made; a guest that uses it keeps it open."""
    for stale in folder().glob(pattern):
        stale.unlink()

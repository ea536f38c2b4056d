"""Debian's cloud kernels of several releases, unpacked side by side; the system's own apt is read, never changed."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lab.host import LabError, alone, call, debian_mirror, folder

# The suites that carry each series today. Exact names (6.1.0-56) leave the mirror with the next update, so they are
# looked up. Of 7.x, some releases never had their modules packaged for backports: the next suite is tried then.
SUITES = {
    "5.10": ("bullseye", "bullseye-security"),
    "6.1": ("bookworm", "bookworm-security"),
    "6.12": ("trixie", "trixie-security"),
    "7": ("trixie-backports", "sid"),
}
DEFAULT = "6.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """An unpacked kernel: `folder` holds vmlinuz, release and lib/modules."""

    series: str  # a key of SUITES
    folder: Path

    @property
    def image(self) -> Path:
        """What QEMU boots."""
        return self.folder / "vmlinuz"

    @property
    def release(self) -> str:
        """What uname -r says in it."""
        return (self.folder / "release").read_text().strip()

    def modules(self, names: tuple[str, ...]) -> list[Path]:
        """Files of the modules and of what they need, in the order to insert them; less those built in, or unknown."""
        files: dict[Path, None] = {}
        for name in names:
            try:
                shown = call(("modprobe", "-d", self.folder, "-S", self.release, "--show-depends", name))
            except LabError:  # this kernel has no such module: lz4 for zram is part of zram since v6.12
                continue
            files |= dict.fromkeys(Path(line.split()[1]) for line in shown.splitlines() if line.startswith("insmod "))
        return list(files)


def find(series: str) -> Kernel:
    """A kernel that is here. Raises LabError if it was never fetched."""
    kernel = Kernel(series=series, folder=folder() / "kernels" / series)
    if not (kernel.folder / "release").exists():
        raise LabError(f"no kernel {series}", hint=f"as root: python -m lab setup {series}")
    return kernel


def fetch(series: str) -> Kernel:
    """The newest kernel of a series, from the Debian mirror unless it is here. Raises LabError if there is none."""
    if series not in SUITES:
        raise LabError(f"no kernel series {series}", hint=f"there are {', '.join(SUITES)}")
    place = folder() / "kernels" / series
    with alone(f"kernel-{series}"), tempfile.TemporaryDirectory(dir=folder(), prefix="fetch.") as name:
        if not (place / "release").exists():
            work = Path(name)
            unpacked = _download(series, work)
            place.parent.mkdir(exist_ok=True)
            shutil.rmtree(place, ignore_errors=True)
            unpacked.rename(place)
    return find(series)


def _download(series: str, work: Path) -> Path:
    apt = _private_apt(work, SUITES[series])
    call(["apt-get", *apt, "-qq", "update"])
    for release in _releases(series, call(["apt-cache", *apt, "show", "linux-image-cloud-amd64"])):
        # Since 6.19 the package linux-image depends on linux-binary and linux-modules, which hold what it held.
        needs = call(["apt-cache", *apt, "depends", f"linux-image-{release}"])
        parts = re.findall(rf"Depends: (linux-(?:binary|modules)-{re.escape(release)})\n", needs)
        try:
            call(["apt-get", *apt, "-qq", "download", f"linux-image-{release}", *parts], cwd=work)
        except LabError:  # an index can name what the mirror does not have: the older one may be whole
            continue
        return _unpack(release, work)
    raise LabError(f"the mirror has no whole kernel {series}", hint=f"looked in {' '.join(SUITES[series])}")


def _private_apt(work: Path, suites: tuple[str, ...]) -> list[str]:
    """Options that make apt use these suites and a state of its own, with the proxy and certificates of the machine."""
    for needed in ("lists/partial", "cache/archives/partial"):
        (work / needed).mkdir(parents=True)
    (work / "status").touch()
    mirror = debian_mirror()
    (work / "sources.list").write_text("".join(f"{line}\n" for line in mirror.sources(*suites)))
    options = {
        "Dir::Etc::SourceList": work / "sources.list",
        "Dir::Etc::SourceParts": "-",
        "Dir::Etc::Preferences": "-",
        "Dir::Etc::PreferencesParts": "-",
        "Dir::State::Lists": work / "lists",
        "Dir::State::Status": work / "status",
        "Dir::Cache": work / "cache",
        "Acquire::Languages": "none",
        "Acquire::Check-Valid-Until": "false",  # mirrors that stand still serve Release files past their date
        "APT::Architecture": "amd64",
        "APT::Sandbox::User": "root",  # the folder is not readable for the user _apt
    }
    return [f"-o{key}={value}" for key, value in options.items()]


def _releases(series: str, shown: str) -> Iterator[str]:
    """The releases of a series that the metapackage's records name, the newest first, as apt-cache prints them."""
    pattern = rf"linux-image-({re.escape(series)}\.[^ ,]*-cloud-amd64)"
    yield from dict.fromkeys(re.findall(pattern, shown))


def _unpack(release: str, work: Path) -> Path:
    unpacked = work / "unpacked"
    for package in work.glob("linux-*.deb"):
        call(("dpkg-deb", "-x", package, unpacked))
    modules = next(path for top in ("lib", "usr/lib") if (path := unpacked / top / "modules" / release).is_dir())
    images = (unpacked / "boot" / f"vmlinuz-{release}", modules / "vmlinuz")
    kept = work / "kept"
    (kept / "lib/modules").mkdir(parents=True)
    next(path for path in images if path.is_file()).rename(kept / "vmlinuz")
    modules.rename(kept / "lib/modules" / release)
    call(("depmod", "-b", kept, release))
    (kept / "release").write_text(f"{release}\n")  # last: it says that the rest is whole
    return kept

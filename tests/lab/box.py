"""Servers of this machine for a guest, which has none: a folder to chroot into, with all that they load."""

from __future__ import annotations

import re
import subprocess
import tarfile
from collections.abc import Iterable
from pathlib import Path


def pack_box(archive: tarfile.TarFile, name: str, programs: Iterable[str], folders: Iterable[Path] = ()) -> None:
    """Add programs with their libraries, and folders, as they lie here, below `name`."""
    paths = {Path(program) for program in programs}
    for program in tuple(paths):
        listed = subprocess.run(("ldd", str(program)), capture_output=True, text=True, check=True).stdout
        paths |= set(map(Path, re.findall(r"(/\S+) \(0x", listed)))
    for path in sorted(paths):
        real = path.resolve()
        archive.add(real, f"{name}{path}", recursive=False)
    for folder in folders:
        archive.add(folder, f"{name}{folder}")

"""The tool itself, for a guest: the package, and what it needs to answer on a terminal."""

from __future__ import annotations

import tarfile
from pathlib import Path

import click
import jeepney
import msgspec

import reprieve


def parcel(path: Path) -> Path:
    """A tar archive for the guest's spare disk; compiled already, which the guest's Python believes if it is alike."""
    with tarfile.open(path, "w") as archive:
        for package in (reprieve, click, jeepney, msgspec):
            folder = Path(package.__path__[0])
            archive.add(folder, folder.name)
    return path

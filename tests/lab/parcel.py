"""The tool itself, for a guest: the package, and what it needs to answer on a terminal; and files beside it."""

from __future__ import annotations

import tarfile
from pathlib import Path

import click
import jeepney

import reprieve


def parcel(path: Path, *files: Path) -> Path:
    """A tar archive for the guest's spare disk; compiled already, which the guest's Python believes if it is alike."""
    with tarfile.open(path, "w") as archive:
        for package in (reprieve, click, jeepney):
            folder = Path(package.__path__[0])
            archive.add(folder, folder.name)
        for file in files:
            archive.add(file, file.name)
    return path

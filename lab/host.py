"""What the lab takes from the machine it runs on: a folder, programs, Debian packages and a Debian mirror."""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

MINI_PACKAGES = ("qemu-system-x86", "busybox-static", "kmod", "util-linux", "zstd", "gcc", "libc6-dev")
SYSTEMD_PACKAGES = ("qemu-utils", "mmdebstrap", "e2fsprogs")
KEYRING = "debian-archive-keyring"


class LabError(Exception):
    """The lab cannot do what was asked; `hint` says what would help."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(f"{message}\n  {hint}" if hint else message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirror:
    """Where Debian packages come from, and the keys that sign them."""

    main_url: str
    security_url: str | None
    keyring: Path

    def sources(self, *suites: str) -> list[str]:
        """One-line sources of the suites, as sources.list(5) has them; less those of security if it is not known."""
        urls = {suite: self.security_url if suite.endswith("-security") else self.main_url for suite in suites}
        return [f"deb [arch=amd64 signed-by={self.keyring}] {url} {suite} main" for suite, url in urls.items() if url]


def folder() -> Path:
    """Where kernels, images and saved guests are kept: $REPRIEVE_LAB, or a folder of the user's cache."""
    return Path(os.environ.get("REPRIEVE_LAB") or Path.home() / ".cache/reprieve/lab").absolute()


def call(argv: Sequence[str | Path], *, cwd: Path | None = None, timeout_s: float = 900) -> str:
    """Run a program and return what it printed. Raises LabError if it is missing, fails or does not end."""
    name = Path(argv[0]).name
    try:
        done = subprocess.run(
            argv, cwd=cwd, capture_output=True, text=True, errors="backslashreplace", timeout=timeout_s
        )
    except FileNotFoundError as error:
        raise LabError(f"{name} is not installed", hint="as root: python -m lab setup") from error
    except subprocess.TimeoutExpired as error:
        raise LabError(f"{name} did not end within {timeout_s:.0f} s") from error
    if done.returncode:
        raise LabError(f"{name} failed ({done.returncode}): {done.stderr.strip()[-600:]}")
    return done.stdout


def install(packages: Sequence[str]) -> None:
    """Install those of the packages that are not here, by sudo unless we are root. Raises LabError."""
    missing = [package for package in packages if not _installed(package)]
    if not missing:
        return
    call([*_apt(), "update"])
    call([*_apt(), "install", "--no-install-recommends", *missing])


def _apt() -> list[str]:
    sudo = [] if os.geteuid() == 0 else ["sudo"]
    return [*sudo, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-oDPkg::Lock::Timeout=120"]


def _apt_urls() -> list[str]:
    return sorted(set(call(("apt-get", "indextargets", "--format", "$(REPO_URI)")).split()))


def _installed(package: str) -> bool:
    try:
        return call(("dpkg-query", "-Wf", "${Status}", package)).endswith(" installed")
    except LabError:  # it never heard of the package
        return False


def debian_mirror() -> Mirror:
    """The Debian mirror this machine's own apt uses, or the one in $REPRIEVE_LAB_MIRROR.

    Raises LabError where there is neither (Ubuntu), or no Debian keyring.
    """
    keyrings = (Path(f"/usr/share/keyrings/{KEYRING}.{kind}") for kind in ("gpg", "pgp"))  # .pgp from Debian 13 on
    keyring = next((path for path in keyrings if path.exists()), None)
    if keyring is None:
        raise LabError("the keys of the Debian archive are not here", hint=f"as root: apt-get install {KEYRING}")
    if named := os.environ.get("REPRIEVE_LAB_MIRROR"):
        return Mirror(main_url=named, security_url=None, keyring=keyring)
    urls = _apt_urls()
    if not urls:  # an image whose lists were removed to make it small
        call([*_apt(), "update"])
        urls = _apt_urls()
    # .list: the cloud images of Debian name mirror+file:/etc/apt/mirrors/debian.list
    mains = [url for url in urls if re.search(r"/debian(\.list)?/?$", url)]
    securities = [url for url in urls if re.search(r"/debian-security(\.list)?/?$", url)]
    if not mains:
        raise LabError(
            "apt of this machine knows no Debian mirror, and the guests run Debian kernels",
            hint="set REPRIEVE_LAB_MIRROR to the URL of one, as sources.list(5) has it",
        )
    return Mirror(main_url=mains[0], security_url=next(iter(securities), None), keyring=keyring)


@contextmanager
def alone(what: str) -> Iterator[None]:
    """Hold the lab's lock of that name: of two test runs, one prepares and the other finds it done."""
    folder().mkdir(parents=True, exist_ok=True)
    with open(folder() / f".{what}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield

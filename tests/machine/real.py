"""What these tests need of the machine they run on: absent, they are skipped, but not where CI promises it."""

import functools
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from reprieve.machine.source import Source
from reprieve.model.finding import Gap


def missing(what: str) -> NoReturn:
    """Skip the test; with CI=true, where everything is installed, fail it."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"missing where CI=true: {what}")
    pytest.skip(f"missing here: {what}")


def program(name: str, *folders: str) -> str:
    """The path of a program the test runs."""
    return shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", ""), *folders))) or missing(name)


# Where our Python lies in a home that is closed, as root's often is, only the way to it is opened, and to nobody else.
_OPENED = """
folders="$1 $2"; shift 2
mount -t tmpfs kept /mnt
for folder in $folders; do
    mkdir -p "/mnt$folder"; mount --bind "$folder" "/mnt$folder"
done
for folder in $folders; do
    mkdir -p "$folder"
    closed= way=$folder
    while way=${way%/*}; [ "$way" ]; do
        [ $(($(stat -c 0%a "$way") & 1)) = 1 ] || closed=$way
    done
    [ -z "$closed" ] || mount -t tmpfs -o mode=755 opened "$closed"
    mkdir -p "$folder"; mount --bind "/mnt$folder" "$folder"
done
exec "$@"
"""
_PRIVATE = ("unshare", "--mount", "--propagation", "private")


def as_another(user: int) -> tuple[str, ...]:
    """What stands before a command that root has another user run, by a number."""
    become = ("setpriv", "--reuid", str(user), "--regid", str(user), "--clear-groups")
    if is_open(sys.base_prefix) and is_open(sys.prefix):
        return become
    if not _may_mount():
        missing("a mount namespace")
    return (*_PRIVATE, "sh", "-ec", _OPENED, "sh", sys.base_prefix, sys.prefix, *become)


def is_open(folder: str) -> bool:
    """May everybody pass through it, and through each on the way?"""
    ways = (Path(folder), Path(folder).resolve())
    return all(way.stat().st_mode & stat.S_IXOTH for path in ways for way in (path, *path.parents))


@functools.cache
def _may_mount() -> bool:
    return subprocess.run([*_PRIVATE, "true"], capture_output=True).returncode == 0


def read(source: Source) -> tuple[bytes, list[Gap]]:
    """All of a source, and the gaps it left."""
    gaps: list[Gap] = []
    return b"".join(map(bytes, source.blocks(gaps))), gaps

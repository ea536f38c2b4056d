"""A JVM and Node.js under limits of version 2, in a guest: what they see of them is what is told of them."""

from __future__ import annotations

import gzip
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab import kernels, states
from lab.guest import Guest
from tests.lab.conftest import here_or_skipped
from tests.lab.parcel import parcel
from tests.machine.real import program
from tests.machine.runtimes import compiled

_LOOK = "cd /; PYTHONPATH=/opt/reprieve COLUMNS=1000 python3 -m reprieve check -v --only {}-heap-exceeds-limit\n"
_UNPACK = "mkdir /opt/reprieve; tar -C /opt/reprieve -xf /dev/vda; cd /opt/reprieve\n"
_OWN = "mkdir -p /sys/fs/cgroup/app/web; echo +memory > /sys/fs/cgroup/app/cgroup.subtree_control\n"
_OWN += "echo {limit} > /sys/fs/cgroup/app/web/memory.max\n"
_ABOVE = _OWN.replace("app/web/memory.max", "app/memory.max")
_IN = "sleep 900 | sh -c 'echo $$ > /sys/fs/cgroup/app/web/cgroup.procs; exec {}' > /run/said 2>&1 &\n"
_IN += (
    "for n in $(seq 240); do grep -q waits /run/said && break; sleep 0.5; done; grep -E 'waits|MaxHeapSize' /run/said\n"
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def jre(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tool, a JVM and a class that waits, for the guest's spare disk."""
    folder = tmp_path_factory.mktemp("jre")
    small = ("--strip-debug", "--no-header-files", "--no-man-pages", "--compress=2")
    subprocess.run((program("jlink"), "--add-modules", "java.base", *small, "--output", folder / "jre"), check=True)
    compiled(folder / "jre")
    return _with(folder, "jre")


@pytest.fixture(scope="module")
def nodejs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tool and Node.js, for the guest's spare disk."""
    folder = tmp_path_factory.mktemp("nodejs")
    (folder / "nodejs/bin").mkdir(parents=True)
    shutil.copy(Path(program("node")).resolve(), folder / "nodejs/bin/node")
    return _with(folder, "nodejs")


def _with(folder: Path, name: str) -> Path:
    """One archive of the tool and, compressed, the runtime."""
    tool = parcel(folder / "parcel.tar")
    with (
        gzip.open(folder / "runtime.gz", "wb", compresslevel=6) as packed,
        tarfile.open(fileobj=packed, mode="w") as tar,
    ):
        tar.add(folder / name, name)
    with tarfile.open(tool, "a") as archive:
        archive.add(folder / "runtime.gz", "runtime.gz")
    return tool


@contextmanager
def guest_with(tool: Path) -> Iterator[Guest]:
    with here_or_skipped():
        saved = states.saved(kernels.DEFAULT, states.SYSTEMD)
    with saved.restore(spare=tool) as guest:
        ended = guest.run(_UNPACK + "gzip -dc runtime.gz | tar -C /opt -xf -; rm runtime.gz", timeout_s=200)
        assert ended.status == 0, ended.output
        yield guest


def _java_says(guest: Guest, script: str) -> tuple[int, str]:
    """The heap of a JVM as it says itself, and what is found."""
    ended = guest.run(script + _IN.format("/opt/jre/bin/java -XX:+PrintFlagsFinal -cp /opt/jre Wait"), timeout_s=200)
    match = re.search(r" MaxHeapSize += (\d+) ", ended.output)
    assert match is not None, ended.output
    return int(match[1]) >> 20, guest.run(_LOOK.format("jvm"), timeout_s=200).output


def test_a_jvm_sees_the_limit_of_its_own_group(jre: Path) -> None:
    with guest_with(jre) as guest:
        heap_mib, said = _java_says(guest, _OWN.format(limit="120M"))
    assert heap_mib == 60
    assert "Found     nothing" in said


def test_a_jvm_before_24_does_not_see_the_limit_of_a_group_above(jre: Path) -> None:
    version = subprocess.run((program("java"), "-version"), capture_output=True, text=True, check=True).stderr
    match = re.search(r'version "(\d+)', version)
    assert match is not None
    with guest_with(jre) as guest:
        heap_mib, said = _java_says(guest, _ABOVE.format(limit="120M"))
    if int(match[1]) >= 24:
        assert heap_mib == 60
        assert "Found     nothing" in said
        return
    assert heap_mib == 126
    assert "needs 137 MiB or more once its heap is full, and /app, which it is in, may hold 120 MiB" in said
    assert "It does not see that limit: it takes itself to have" in said


_WAIT = """
console.log(process.constrainedMemory(), require("v8").getHeapStatistics().heap_size_limit, "waits");
process.stdin.resume();
"""


def _node_says(guest: Guest, script: str) -> tuple[list[int], str]:
    """How much memory Node takes itself to have, and its heap; and what is found."""
    guest.run(f"cat > /run/wait.js <<'END'\n{_WAIT}\nEND")
    ended = guest.run(script + _IN.format("/opt/nodejs/bin/node /run/wait.js"), timeout_s=200)
    figures = [int(figure) for figure in re.findall(r"\d+", ended.output)]
    assert len(figures) == 2, ended.output
    return figures, guest.run(_LOOK.format("node"), timeout_s=200).output


def test_node_sees_the_limit_of_its_own_group_and_none_above(nodejs: Path) -> None:
    """Since libuv 1.45. 256 MiB are the least by default: under both of these they do not fit."""
    for script, sees in ((_OWN, True), (_ABOVE, False)):
        with guest_with(nodejs) as guest:
            (seen_bytes, heap_bytes), said = _node_says(guest, script.format(limit="200M"))
        assert (seen_bytes == 200 << 20) == sees
        assert f"needs {(heap_bytes >> 20) + 8} MiB or more once its heap is full, and /app" in said
        assert ("It does not see that limit: it takes itself to have" in said) != sees


def test_node_is_not_told_of_where_its_heap_fits(nodejs: Path) -> None:
    with guest_with(nodejs) as guest:
        _, said = _node_says(guest, _OWN.format(limit="300M"))
    assert "Found     nothing" in said

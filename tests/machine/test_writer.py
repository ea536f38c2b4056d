"""Files and folders made: there when it returns, or told."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reprieve.machine.places import MachinePlaces
from reprieve.machine.writer import make_folder
from reprieve.model.finding import Failure, Place
from tests.machine.real import missing, program


def test_a_folder_is_made_with_those_it_is_in_and_once_more(tmp_path: Path) -> None:
    for _ in range(2):
        make_folder(str(tmp_path / "a" / "b"))
        assert (tmp_path / "a" / "b").is_dir()


def test_a_file_or_a_link_that_leads_nowhere_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nothing")
    for name in ("file", "link"):
        with pytest.raises(FileExistsError):
            make_folder(str(tmp_path / name))


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Callable[[Path, str], None]]:
    """Sets a flag of chattr(1), until the test ends."""
    done: list[tuple[Path, str]] = []

    def keep(path: Path, letter: str) -> None:
        if subprocess.run((program("chattr"), f"+{letter}", path), capture_output=True).returncode != 0:
            missing("root, and a file system with immutable files")
        done.append((path, letter))

    yield keep
    for path, letter in reversed(done):
        subprocess.run(("chattr", f"-{letter}", path), check=True)


def machine(root: Path) -> MachinePlaces:
    for folder in ("etc/sysctl.d", "proc/self"):
        (root / folder).mkdir(parents=True)
    (root / "etc/sysctl.d/60-reprieve.conf").write_text("vm.swappiness = 60\n")
    (root / "etc/fstab").write_text("/dev/sda1 / ext4 defaults 0 1\n")
    return MachinePlaces(str(root))


SETTING, LINE = Place(kind="sysctl.d", key="vm.swappiness"), Place(kind="fstab", of="/swapfile")


@pytest.mark.parametrize(("letter", "word"), [("i", "immutable"), ("a", "append-only")])
@pytest.mark.parametrize("at", ["etc/sysctl.d/60-reprieve.conf", "etc/sysctl.d", "etc/fstab", "etc"])
def test_what_chattr_keeps_is_known_before_and_nothing_is_left_beside_it(
    at: str, letter: str, word: str, kept: Callable[[Path, str], None], tmp_path: Path
) -> None:
    places = machine(tmp_path)
    place, want = (SETTING, "10") if "sysctl.d" in at else (LINE, "/swapfile none swap sw 0 0")
    assert places.obstacle(place, want) is None
    before = sorted(tmp_path.rglob("*"))
    kept(tmp_path / at, letter)
    refused = places.obstacle(place, want)
    assert refused is not None
    assert f"{tmp_path / at} is {word} (chattr +{letter})" in refused.message
    assert f"chattr -{letter}" in (refused.hint or "")
    with pytest.raises(Failure, match=word):
        places.put(place, want)
    if letter == "i" or (tmp_path / at).is_file():  # of a folder in which one may only add, nothing is taken away
        assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("call", ["setresuid", "setresgid"])
def test_interrupted_while_it_becomes_root_again_it_is_root_again(call: str) -> None:
    """The signal comes with one of the calls by which it does."""
    if os.geteuid() != 0:
        missing("root, to become another")
    code = """
import os
from reprieve.machine.signals import Interrupted, Signals
from reprieve.machine.writer import acting_as
os.setgroups([4])
try:
    with Signals() as signals, signals.interruptible(), acting_as(65534):
        print(os.geteuid(), os.getgroups())
except Interrupted:
    print("interrupted")
print(os.geteuid(), os.getegid(), os.getgroups())
"""
    tracer = (program("strace"), "-qq", "-o", "/dev/null", "-e", f"inject={call}:signal=TERM:when=2")
    ended = subprocess.run([*tracer, sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines() == ["65534 []", "interrupted", "0 0 [4]"]

"""A file for swap: nothing that lies there is written over, and nobody else can put his own in its place."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from reprieve.machine.host import Host
from reprieve.machine.swapfile import FstabLine, SwapFile
from reprieve.model.finding import Failure, Place
from reprieve.units import MIB
from tests.machine.real import missing


def at(file: Path) -> Place:
    return Place(kind="swapfile", of=str(file))


def test_a_file_is_made_with_its_name_alone_and_is_gone_after_undo(tmp_path: Path) -> None:
    kind, file = SwapFile(Host()), tmp_path / "swapfile"
    kind.put(at(file), str(2 * MIB))
    assert kind.get(at(file)) == str(2 * MIB)
    assert (os.listdir(tmp_path), file.stat().st_nlink, file.stat().st_mode & 0o777) == (["swapfile"], 1, 0o600)
    with pytest.raises(Failure, match="is there already"):
        kind.put(at(file), str(MIB))
    kind.put(at(file), None)
    assert os.listdir(tmp_path) == []


MADE = """
import os, resource, sys
from reprieve.machine.host import Host
from reprieve.machine.swapfile import SwapFile
from reprieve.model.finding import Failure, Place

file, comes = sys.argv[1], sys.argv[2] == "comes"

def come(event, words):
    if comes and event == "open" and str(words[0]).endswith("/.swapfile.reprieve"):
        with open(file, "w") as other:
            other.write("precious")

sys.addaudithook(come)
if not comes:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
try:
    SwapFile(Host()).put(Place(kind="swapfile", of=file), str(2 << 20))
except Failure as failure:
    print(failure.message)
"""


@pytest.mark.parametrize(("what", "said"), [("comes", "is there already"), ("large", "File too large")])
def test_what_comes_there_meanwhile_is_left_and_what_cannot_be_made_whole_leaves_nothing(
    what: str, said: str, tmp_path: Path
) -> None:
    file = tmp_path / "swapfile"
    done = subprocess.run((sys.executable, "-c", MADE, str(file), what), capture_output=True, text=True, timeout=60)
    assert said in done.stdout, done.stderr
    assert os.listdir(tmp_path) == (["swapfile"] if what == "comes" else [])
    if what == "comes":
        assert file.read_text() == "precious"


@pytest.mark.parametrize(
    ("mode", "theirs", "refused"),
    [(0o755, False, False), (0o1777, False, False), (0o777, False, True), (0o755, True, True)],
)
def test_no_swap_file_is_made_where_somebody_else_could_put_his_own(
    mode: int, theirs: bool, refused: bool, open_folder: Path
) -> None:
    if os.geteuid() != 0:
        missing("root, who alone may swap")
    above = open_folder / "above"
    (above / "folder").mkdir(parents=True)
    above.chmod(mode)
    if theirs:
        os.chown(above, pwd.getpwnam("nobody").pw_uid, 0)
    (open_folder / "link").symlink_to(above)
    for folder in (above / "folder", open_folder / "link" / "folder", above):
        found = SwapFile(Host()).obstacle(at(folder / "swapfile"), str(MIB))
        said = "" if found is None else found.message
        assert ("is not root's alone" in said) == refused, said


@pytest.mark.parametrize(
    "text", [b"", b"# \xff", b"/dev/sda1 / ext4 defaults 0 1", b"# a\n\n/dev/sda1\t/ ext4 rw 0 1\r\n"]
)
def test_each_byte_of_fstab_is_as_it_was_after_undo(text: bytes, tmp_path: Path) -> None:
    fstab, place = tmp_path / "etc" / "fstab", Place(kind="fstab", of="/swapfile")
    fstab.parent.mkdir()
    fstab.write_bytes(text)
    kind = FstabLine(Host(str(tmp_path)))
    line = kind.canonical(place, "on")
    kind.put(place, line)
    assert kind.get(place) == line
    told = fstab.read_bytes().splitlines()
    assert sorted(told) == sorted([*text.splitlines(), str(line).encode()])
    kind.put(place, None)
    assert fstab.read_bytes() == text

"""The unit for zram in a tree; that it makes any, at a boot, is tried in a guest: tests/lab/test_fix_zram.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from reprieve.machine.host import Host
from reprieve.machine.zramunit import ZramUnit
from reprieve.model.finding import Failure, parse_place
from reprieve.model.zram import LINK, UNIT, unit_size, unit_text
from reprieve.units import GIB, MIB

PLACE = parse_place("zram.service:/disksize")
THEIRS = "[Service]\nExecStart=true\nEnvironment=DISKSIZE=5\n"


def machine(root: Path) -> ZramUnit:
    (root / "proc").mkdir()
    (root / "proc/swaps").write_text("Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n")
    (root / "etc/systemd/system").mkdir(parents=True)
    return ZramUnit(Host(str(root)))


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in (root / "etc").rglob("*") if not path.is_dir()}


def test_the_unit_tells_its_size_and_that_of_others_none() -> None:
    assert unit_size(unit_text(GIB)) == unit_size(unit_text(GIB, copied=True)) == GIB
    assert "reprieve undo" in unit_text(GIB)
    assert "reprieve undo" not in unit_text(GIB, copied=True)  # no journal is copied with it
    assert unit_size(THEIRS) is None
    assert unit_size(unit_text(GIB).replace(f"={GIB}", "=1G")) is None


def test_it_is_there_once_its_link_is_and_goes_with_it(tmp_path: Path) -> None:
    unit = machine(tmp_path)
    assert unit.get(PLACE) is None
    unit.put(PLACE, str(64 * MIB))
    assert unit.get(PLACE) == str(64 * MIB)
    assert files(tmp_path) == {UNIT[1:], LINK[1:]}
    unit.put(PLACE, str(32 * MIB))
    assert unit.get(PLACE) == str(32 * MIB)
    (tmp_path / LINK[1:]).unlink()
    assert unit.get(PLACE) is None
    unit.put(PLACE, None)
    assert files(tmp_path) == set()
    assert not (tmp_path / LINK[1:]).parent.exists()


def test_the_folder_of_links_stays_where_others_have_one(tmp_path: Path) -> None:
    unit = machine(tmp_path)
    unit.put(PLACE, str(GIB))
    (theirs := (tmp_path / LINK[1:]).with_name("theirs.service")).symlink_to("/dev/null")
    unit.put(PLACE, None)
    assert theirs.is_symlink()


def test_a_link_elsewhere_a_file_in_its_place_and_a_unit_of_others_read_other(tmp_path: Path) -> None:
    unit = machine(tmp_path)
    link = tmp_path / LINK[1:]
    link.parent.mkdir()
    link.symlink_to("/dev/null")
    assert unit.get(PLACE) == "other"
    link.unlink()
    link.write_text(unit_text(GIB))
    assert unit.get(PLACE) == "other"
    link.unlink()
    link.symlink_to(UNIT)
    assert unit.get(PLACE) == "other"
    (tmp_path / UNIT[1:]).write_text(THEIRS)
    assert unit.get(PLACE) == "other"
    refused = unit.obstacle(PLACE, None)
    assert refused is not None
    assert refused.message == "reprieve-zram.service is there, and not of ours"


def test_a_unit_of_others_stays(tmp_path: Path) -> None:
    unit = machine(tmp_path)
    (tmp_path / UNIT[1:]).write_text(THEIRS)
    unit.put(PLACE, None)
    assert files(tmp_path) == {UNIT[1:]}


def test_without_systemd_none_is_made(tmp_path: Path) -> None:
    refused = machine(tmp_path).obstacle(PLACE, str(GIB))
    assert refused is not None
    assert refused.hint == "--runtime does without it"


@pytest.mark.parametrize("told", ["zram.service:zram1/disksize", "zram.service:/size"])
def test_what_is_no_such_unit_is_refused(told: str, tmp_path: Path) -> None:
    with pytest.raises(Failure, match="is no unit for zram"):
        machine(tmp_path).get(parse_place(told))

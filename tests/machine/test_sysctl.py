"""Settings of the kernel: now, and at each boot."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from reprieve.machine.places import MachinePlaces
from reprieve.model.finding import Failure, Place
from tests.machine.real import missing

NOW = Place(kind="sysctl", key="vm.swappiness")
BOOT = Place(kind="sysctl.d", key="vm.swappiness")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine with what these places need."""
    for folder in ("proc/sys/vm", "etc/sysctl.d", "run/sysctl.d", "usr/lib/sysctl.d"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "proc/sys/vm/swappiness").write_text("60\n")
    return tmp_path


def ours(root: Path) -> Path:
    return root / "etc/sysctl.d/60-reprieve.conf"


def test_a_value_is_read_and_written_as_the_kernel_has_it(root: Path) -> None:
    places = MachinePlaces(str(root))
    assert places.get(NOW) == "60"
    assert places.canonical(NOW, " +010 ") == "10"
    places.put(NOW, "10")
    assert places.get(NOW) == "10"


def test_a_setting_that_this_kernel_lacks_is_told(root: Path) -> None:
    place = Place(kind="sysctl", key="vm.shininess")
    assert MachinePlaces(str(root)).get(place) is None
    obstacle = MachinePlaces(str(root)).obstacle(place, "1")
    assert obstacle is not None
    assert obstacle.message == "this kernel has no vm.shininess"


@pytest.mark.parametrize("key", ["vm/../../../etc/passwd", "vm", "vm.", "../x", "vm.a b", "net.ipv4.ip_forward", ""])
@pytest.mark.parametrize("kind", ["sysctl", "sysctl.d"])
def test_a_name_that_is_none_leads_nowhere(root: Path, kind: str, key: str) -> None:
    with pytest.raises(Failure, match="no setting of memory"):
        MachinePlaces(str(root)).get(Place(kind=kind, key=key))
    with pytest.raises(Failure, match="no setting of memory"):
        MachinePlaces(str(root)).put(Place(kind=kind, key=key), "1")


def test_a_file_of_ours_comes_and_goes(root: Path) -> None:
    places = MachinePlaces(str(root))
    places.put(BOOT, "10")
    assert ours(root).read_text().splitlines()[1:] == ["vm.swappiness = 10"]
    assert ours(root).stat().st_mode & 0o777 == 0o644
    assert places.get(BOOT) == "10"
    places.put(BOOT, None)
    assert os.listdir(root / "etc/sysctl.d") == []


@pytest.mark.parametrize(
    "text",
    [
        b"# mine\nvm.panic_on_oom = 1\n\n; \xff\n",
        b"vm.swappiness=5\nvm.swappiness = 7\nkernel.panic = 10\n",
        b"-vm/swappiness   =   7\n",
        b"vm.swappiness=10\r\n",
        b"vm.panic_on_oom = 1\r\n# \xff",
        b"# mine\nvm.swappiness=7",
        b" ",
    ],
)
def test_undo_gives_back_each_byte_and_the_mode(root: Path, text: bytes) -> None:
    ours(root).write_bytes(text)
    ours(root).chmod(0o640)
    places = MachinePlaces(str(root))
    before = places.get(BOOT)
    places.put(BOOT, "10")
    assert places.get(BOOT) == "10"
    assert all(line in ours(root).read_bytes() for line in text.split(b"\n") if b"swappiness" not in line)
    places.put(BOOT, before)
    assert ours(root).read_bytes() == text
    assert places.get(BOOT) == before
    assert ours(root).stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("etc/sysctl.d/99-site.conf", "vm.swappiness = 1"),
        ("usr/lib/sysctl.d/70-vendor.conf", "-vm/swappiness=1"),
        ("run/sysctl.d/61-x.conf", "vm.swappiness = 1"),
        ("etc/sysctl.conf", "  vm.swappiness=1  "),
    ],
)
def test_a_file_that_is_read_later_is_not_written_past(root: Path, path: str, line: str) -> None:
    (root / path).write_text(f"# first\n{line}\n")
    obstacle = MachinePlaces(str(root)).obstacle(BOOT, "10")
    assert obstacle is not None
    assert obstacle.message == f"/{path} is read after 60-reprieve.conf and sets vm.swappiness to 1"
    assert MachinePlaces(str(root)).obstacle(BOOT, "1") is None


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("etc/sysctl.d/10-site.conf", "vm.swappiness = 1"),
        ("etc/sysctl.d/99-site.conf", "# vm.swappiness = 1"),
        ("etc/sysctl.d/99-site.conf", "; vm.swappiness = 1"),
        ("etc/sysctl.d/99-site.conf", "vm.swappiness_more = 1"),
        ("etc/sysctl.d/99-site.conf", "vm.* = 1"),
        ("etc/sysctl.d/99-site.conf.bak", "vm.swappiness = 1"),
    ],
)
def test_what_does_not_count_later_is_no_obstacle(root: Path, path: str, line: str) -> None:
    (root / path).write_text(f"{line}\n")
    assert MachinePlaces(str(root)).obstacle(BOOT, "10") is None


def test_a_ratio_is_not_written_over_a_limit_in_kilobytes(root: Path) -> None:
    (root / "proc/sys/vm/overcommit_ratio").write_text("0\n")
    (root / "proc/sys/vm/overcommit_kbytes").write_text("9000000\n")
    ratio = Place(kind="sysctl", key="vm.overcommit_ratio")
    obstacle = MachinePlaces(str(root)).obstacle(ratio, "80")
    assert obstacle is not None
    assert "would set it to 0" in obstacle.message
    (root / "proc/sys/vm/overcommit_kbytes").write_text("0\n")
    assert MachinePlaces(str(root)).obstacle(ratio, "80") is None


def test_a_masked_file_does_not_count(root: Path) -> None:
    (root / "usr/lib/sysctl.d/99-vendor.conf").write_text("vm.swappiness = 1\n")
    (root / "etc/sysctl.d/99-vendor.conf").write_text("")
    assert MachinePlaces(str(root)).obstacle(BOOT, "10") is None


def test_a_link_in_the_place_of_our_file_is_not_written_through(root: Path) -> None:
    (root / "etc/theirs").write_text("theirs\n")
    ours(root).symlink_to("../theirs")
    places = MachinePlaces(str(root))
    assert places.obstacle(BOOT, "10") is not None
    with pytest.raises(Failure, match="no regular file"):
        places.put(BOOT, "10")
    assert (root / "etc/theirs").read_text() == "theirs\n"


def test_the_kernel_here_refuses_what_is_out_of_range_and_keeps_what_it_had() -> None:
    if not os.access("/proc/sys/vm/swappiness", os.W_OK, effective_ids=True):
        missing("the right to change settings of the kernel")
    places = MachinePlaces()
    before = places.get(NOW)
    with pytest.raises(Failure, match="the kernel refuses '70000'"):
        places.put(NOW, "70000")
    assert places.get(NOW) == before

"""Swap that is to be added: as the file system of / holds it, and where it holds none, in memory."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lab import kernels, states
from reprieve.model.finding import Remedy
from reprieve.model.machine import SwapArea
from reprieve.model.rootfs import RootFs
from reprieve.model.snapshot import Snapshot
from reprieve.rules.living.swap import swap_absent, swap_nearly_full
from tests.lab.conftest import here_or_skipped
from tests.machine.real import missing, program
from tests.rules.living.made import captured, with_meminfo

MIB, GIB = 1 << 20, 1 << 30
EXT4 = RootFs(kind="ext4", read_only=False, size_bytes=100 * GIB, free_bytes=50 * GIB)


def advised(root: RootFs | None) -> Remedy:
    """Of a machine with 8 GiB and no swap."""
    machine = with_meminfo(captured("v2-systemd-252"), MemTotal=8 * GIB, SwapTotal=0, AnonPages=4 * GIB, Shmem=0)
    (finding,) = swap_absent(Snapshot(machine=replace(machine, root=root, swaps=())))
    (remedy,) = finding.remedies
    return remedy


def test_a_file_is_filled_where_the_root_holds_one() -> None:
    remedy = advised(EXT4)
    assert [command[0] for command in remedy.commands] == ["dd", "chmod", "mkswap", "swapon"]
    assert [change.place.kind for change in remedy.settings] == ["swapfile", "fstab", "swap"]
    assert "ext4" not in (remedy.cost or "")


def test_where_the_file_system_is_not_known_the_cost_names_those_that_hold_one() -> None:
    assert "on ext4, xfs or the like: btrfs, ZFS and overlay hold no file made so" in (advised(None).cost or "")


def test_on_btrfs_it_is_made_by_btrfs_in_a_subvolume_of_its_own() -> None:
    remedy = advised(replace(EXT4, kind="btrfs"))
    assert remedy.commands == (
        ("btrfs", "subvolume", "create", "/swap.reprieve"),
        ("btrfs", "filesystem", "mkswapfile", "--size", "1024M", "/swap.reprieve/swapfile"),
        ("swapon", "/swap.reprieve/swapfile"),
    )
    assert remedy.settings == ()  # `fix` makes none there


@pytest.mark.parametrize("kind", ["overlay", "zfs", "nfs4", "tmpfs", "rootfs", "squashfs", "bcachefs"])
def test_where_it_holds_none_it_is_in_memory(kind: str) -> None:
    remedy = advised(replace(EXT4, kind=kind))
    assert "compressed swap in memory (zram)" in remedy.title
    assert [str(change.place) for change in remedy.settings] == ["zram:/disksize"]
    assert not any("dd" in command for command in remedy.commands)


def test_a_root_that_is_read_only_or_full_holds_none_either() -> None:
    assert "/ is read-only" in advised(replace(EXT4, read_only=True)).title
    assert "/ has 5 GiB free" in advised(replace(EXT4, free_bytes=5 * GIB)).title


def test_it_is_no_larger_than_the_disk_has_room_for() -> None:
    assert "count=512" in advised(replace(EXT4, free_bytes=5632 * MIB)).commands[0]


def test_beside_zram_there_is_no_second_in_the_same_memory() -> None:
    machine = with_meminfo(
        captured("v2-systemd-252"), MemTotal=8 * GIB, SwapTotal=4 * GIB, SwapFree=0, MemAvailable=GIB
    )
    area = SwapArea(name="/dev/zram0", kind="partition", size_bytes=4 * GIB, used_bytes=4 * GIB, priority=100)
    told = replace(machine, swaps=(area,), root=replace(EXT4, kind="overlay"))
    (finding,) = swap_nearly_full(Snapshot(machine=told))
    assert finding.remedies[0].commands == (("mkswap", "/dev/PARTITION"), ("swapon", "/dev/PARTITION"))


@pytest.fixture
def btrfs(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own."""
    disk, mount = tmp_path / "disk", tmp_path / "mount"
    mount.mkdir()
    with disk.open("wb") as file:
        file.truncate(2 * GIB)
    subprocess.run([program("mkfs.btrfs", "/usr/sbin"), "-q", str(disk)], check=True)
    if subprocess.run(["mount", "-o", "loop", str(disk), str(mount)], capture_output=True).returncode:
        missing("a btrfs that may be mounted")
    try:
        yield mount
    finally:
        subprocess.run(["umount", str(mount)], check=True)


@pytest.mark.slow
def test_btrfs_makes_a_file_that_is_fit_to_be_swapped_to(btrfs: Path) -> None:
    *made, _ = advised(replace(EXT4, kind="btrfs")).commands
    for command in made:
        subprocess.run([*command[:-1], f"{btrfs}{command[-1]}"], check=True, capture_output=True)
    file = f"{btrfs}/swap.reprieve/swapfile"
    assert Path(file).stat().st_size == GIB
    mapped = subprocess.run(["btrfs", "inspect-internal", "map-swapfile", file], capture_output=True, text=True)
    assert mapped.returncode == 0, mapped.stderr  # it refuses what swapon(2) would


@pytest.mark.slow
def test_the_device_in_memory_is_swapped_to() -> None:
    shell = next(iter(advised(replace(EXT4, kind="overlay")).commands))
    with here_or_skipped():
        saved = states.saved(kernels.DEFAULT, states.SYSTEMD)
    with saved.restore() as guest:
        ended = guest.run(f"sh -c '{shell[2]}' 64; cat /proc/swaps", timeout_s=200)
        assert ended.status == 0
        assert "/dev/zram0" in ended.output, ended.output
        assert ended.output.split()[-3] == "65532"

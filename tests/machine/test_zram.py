"""What can be told of swap on zram without making any; the rest is tried in a guest: tests/lab/test_fix_zram.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from reprieve.machine.host import Host
from reprieve.machine.swapfile import swap_head, swap_label, swap_off
from reprieve.machine.zram import ZramSwap
from reprieve.model.finding import Failure, parse_place
from reprieve.units import GIB, MIB
from tests.machine.real import program

ANY = parse_place("zram:/disksize")
SWAPS = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"


def machine(root: Path, *devices: str, swaps: str = "", loaded: bool = True) -> ZramSwap:
    """A tree with such devices, of which none is swapped to but what `swaps` says."""
    (root / "proc").mkdir()
    (root / "proc/swaps").write_text(SWAPS + swaps)
    for name in devices:
        (root / "sys/block" / name).mkdir(parents=True)
        (root / "sys/block" / name / "disksize").write_text(f"{64 * MIB}\n")
        (root / "sys/block" / name / "diskseq").write_text(f"{len(name)}\n")
        (root / "sys/block" / name / "mm_stat").write_text("       0        0\n")
        (root / "dev").mkdir(exist_ok=True)
        (root / "dev" / name).write_bytes(swap_head(64 * MIB, "reprieve"))
    if loaded:
        (root / "sys/class/zram-control").mkdir(parents=True)
        (root / "sys/class/zram-control/hot_remove").touch()
    return ZramSwap(Host(str(root)))


def test_the_device_is_a_new_one_with_the_lowest_number_that_is_free(tmp_path: Path) -> None:
    for number, (devices, loaded) in enumerate(
        [((), True), (("zram0",), True), (("zram0", "zram2"), True), ((), False)]
    ):
        (root := tmp_path / str(number)).mkdir()
        told = str(machine(root, *devices, loaded=loaded).identify(ANY))
        assert told == f"zram:zram{[0, 1, 1, 1][number]}/disksize"


def test_the_zram_that_is_swapped_to_is_the_one_that_is_meant(tmp_path: Path) -> None:
    swap = machine(tmp_path, "zram0", "zram3", swaps="/dev/zram3 partition\t65532\t\t1024\t\t-2\n")
    place = swap.identify(ANY)
    assert str(place) == "zram:zram3/disksize"
    assert swap.get(place) == str(64 * MIB)
    refused = swap.obstacle(place, str(GIB))
    assert refused is not None
    assert refused.message == "zram3 is swapped to already: 64 MiB, with 1 MiB in it"
    assert swap.get(parse_place("zram:zram0/disksize")) is None


def test_a_kernel_without_zram_is_told_so(tmp_path: Path) -> None:
    refused = machine(tmp_path, loaded=False).obstacle(parse_place("zram:zram1/disksize"), str(GIB))
    assert refused is not None
    assert "the kernel has no zram" in refused.message
    assert refused.hint == "a swap file does without: reprieve fix swap --size …"


def test_a_size_is_of_whole_mib(tmp_path: Path) -> None:
    swap = machine(tmp_path)
    assert swap.canonical(ANY, str(GIB + 5)) == str(GIB)
    assert swap.canonical(ANY, None) is None
    for no_size in ("0", "5", "", "-1", "1G", "٣"):
        with pytest.raises(Failure, match="is no size of swap"):
            swap.canonical(ANY, no_size)


@pytest.mark.parametrize(
    "told", ["zram:zram01/disksize", "zram:zram1/reset", "zram:sda/disksize", "zram:../x/disksize"]
)
def test_what_is_no_zram_device_is_refused(told: str, tmp_path: Path) -> None:
    with pytest.raises(Failure, match="is no swap on zram"):
        machine(tmp_path).get(parse_place(told))


def test_the_label_of_swap_tells_whose_it_is() -> None:
    assert swap_label(swap_head(GIB, "reprieve")) == "reprieve"
    assert swap_label(swap_head(GIB)) == ""
    assert swap_label(bytes(4096)) is None
    assert swap_label(b"") is None


def test_what_does_not_fit_into_memory_is_not_swapped_off() -> None:
    with pytest.raises(Failure, match=r"1 EiB in /dev/zram1 do not fit into memory, of which \d"):
        swap_off("/dev/zram1", 1 << 60)


def test_a_signal_does_not_end_a_swapoff_half_way() -> None:
    """The kernel ends it where one is pending; the second call is a real one."""
    code = "from reprieve.machine.swapfile import swap_off; swap_off('/nowhere', 4096)"
    tracer = (program("strace"), "-qq", "-o", "/dev/null", "-e", "inject=swapoff:error=EINTR:when=1")
    ended = subprocess.run([*tracer, sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.stderr.splitlines()[-1].endswith(
        ("/nowhere: swapoff: No such file or directory", "/nowhere: swapoff: Operation not permitted")
    )


ONE = parse_place("zram:zram1/disksize")
IN_USE = "/dev/zram1 partition\t65532\t\t0\t\t100\n"


def removed(root: Path) -> str:
    """The numbers of the devices of which the kernel was told."""
    return (root / "sys/class/zram-control/hot_remove").read_text()


def test_a_device_of_others_made_between_plan_and_change_stays(tmp_path: Path) -> None:
    swap = machine(tmp_path, "zram1")
    (tmp_path / "dev/zram1").write_bytes(bytes(4096))
    (tmp_path / "sys/class/zram-control/hot_add").write_text("2\n")
    with pytest.raises(Failure, match="the kernel made zram2, not zram1"):
        swap.put(ONE, str(64 * MIB))
    assert removed(tmp_path) == "2\n"
    (tmp_path / "sys/class/zram-control/hot_remove").write_text("")
    swap.put(ONE, None)
    assert removed(tmp_path) == ""


@pytest.mark.parametrize("head", [swap_head(64 * MIB), swap_head(64 * MIB, "theirs"), bytes(4096)])
def test_a_device_of_others_that_is_swapped_to_is_not_swapped_off(head: bytes, tmp_path: Path) -> None:
    swap = machine(tmp_path, "zram1", swaps=IN_USE)
    assert swap.get(ONE) == str(64 * MIB)
    (tmp_path / "dev/zram1").write_bytes(head)
    assert swap.get(ONE) == "other"
    with pytest.raises(Failure, match="zram1 is swapped to by somebody else"):
        swap.put(ONE, None)
    assert removed(tmp_path) == ""


@pytest.mark.parametrize(
    ("diskseq", "stored", "ours"), [("7", "0", True), ("8", "0", False), ("7", "4096", False), (None, "0", False)]
)
def test_without_a_head_it_is_ours_if_it_is_marked_and_untouched(
    diskseq: str | None, stored: str, ours: bool, tmp_path: Path
) -> None:
    swap = machine(tmp_path, "zram1")
    (tmp_path / "dev/zram1").write_bytes(b"")
    (tmp_path / "sys/class/zram-control/hot_add").write_text("1\n")
    (device := tmp_path / "sys/block/zram1").joinpath("diskseq").write_text("7\n")
    (device / "comp_algorithm").write_text("[lzo]\n")
    (device / "disksize").unlink()
    with pytest.raises(Failure, match="zram1: No such file"):
        swap.put(ONE, str(64 * MIB))
    marker = tmp_path / "run/reprieve/zram1"
    assert marker.read_text() == "diskseq 7\n"
    assert marker.parent.stat().st_mode & 0o777 == 0o700
    if diskseq is None:
        marker.unlink()
    else:
        (device / "diskseq").write_text(f"{diskseq}\n")
    (device / "mm_stat").write_text(f"{stored} 0 0\n")
    swap.put(ONE, None)
    assert removed(tmp_path) == ("1\n" if ours else "")
    assert not marker.exists()


def test_before_disks_were_counted_it_is_marked_by_the_inode_of_its_folder(tmp_path: Path) -> None:
    swap = machine(tmp_path, "zram1")
    (device := tmp_path / "sys/block/zram1").joinpath("diskseq").unlink()
    (tmp_path / "sys/class/zram-control/hot_add").write_text("1\n")
    with pytest.raises(Failure, match="zram1: No such file"):
        swap.put(ONE, str(64 * MIB))
    assert (tmp_path / "run/reprieve/zram1").read_text() == f"inode {device.stat().st_ino}\n"


def test_a_device_that_cannot_be_marked_is_removed_at_once(tmp_path: Path) -> None:
    swap = machine(tmp_path, "zram1")
    (tmp_path / "sys/class/zram-control/hot_add").write_text("1\n")
    (tmp_path / "run").write_text("no folder")
    with pytest.raises(Failure, match="Not a directory"):
        swap.put(ONE, str(64 * MIB))
    assert removed(tmp_path) == "1\n"

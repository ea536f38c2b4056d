"""Settings, pools of huge pages and zram in /sys: captured, this machine's, and trees that are absent or damaged."""

from pathlib import Path

import pytest

from reprieve.machine.host import Host
from reprieve.machine.sysfs import SETTINGS, read_huge_pools, read_settings, read_zram
from reprieve.model.finding import Gap
from reprieve.model.machine import HugePool, Zram
from tests.machine.real import missing

HOSTS = Path(__file__).parent.parent / "hosts"
MIB = 1 << 20
ZRAM = "sys/block/zram0"


def tree(root: Path, **files: str) -> Host:
    for path, content in files.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return Host(str(root))


def test_what_is_not_there_gives_nothing_and_no_gap(tmp_path: Path) -> None:
    gaps: list[Gap] = []
    host = Host(str(tmp_path))
    assert (read_settings(host, gaps), read_huge_pools(host, gaps), read_zram(host, gaps), gaps) == ((), (), (), [])


def test_a_device_that_is_loaded_and_not_set_up_is_none(tmp_path: Path) -> None:
    gaps: list[Gap] = []
    host = tree(tmp_path, **{f"{ZRAM}/disksize": "0\n", f"{ZRAM}/mm_stat": " 0 0 0 0 0 0 0\n"})
    assert (read_zram(host, gaps), gaps) == ((), [])


def test_a_swap_that_is_compressed_memory_tells_what_it_holds_and_what_it_takes() -> None:
    gaps: list[Gap] = []
    (zram,) = read_zram(Host(str(HOSTS / "v2-systemd-252")), gaps)
    assert gaps == []
    assert (zram.name, zram.size_bytes, zram.algorithm, zram.max_bytes) == ("zram0", 64 * MIB, "lzo-rle", "max")
    assert zram.stored_bytes is not None
    assert zram.compressed_bytes is not None
    assert zram.used_bytes is not None
    assert zram.stored_bytes > zram.used_bytes > zram.compressed_bytes > 0
    assert zram.incompressible_pages == 0


def test_an_older_kernel_tells_fewer_figures(tmp_path: Path) -> None:
    gaps: list[Gap] = []
    host = tree(tmp_path, **{f"{ZRAM}/disksize": "8192\n", f"{ZRAM}/mm_stat": "  4096  70  4096  8192  4096  0  0\n"})
    told = Zram(name="zram0", size_bytes=8192, stored_bytes=4096, compressed_bytes=70, used_bytes=4096, max_bytes=8192)
    assert (read_zram(host, gaps), gaps) == ((told,), [])


@pytest.mark.parametrize("figures", ["", "1 2 3\n", "1 2 3 4 5 6\n", "1 2 3 4 5 6 x\n", "1 2 3 4 5 6 7", "\xff\n"])
def test_figures_that_no_kernel_writes_are_a_gap(tmp_path: Path, figures: str) -> None:
    gaps: list[Gap] = []
    host = tree(tmp_path, **{f"{ZRAM}/disksize": "8192\n", f"{ZRAM}/mm_stat": figures})
    (zram,) = read_zram(host, gaps)
    assert zram.size_bytes == 8192
    assert [gap.place for gap in gaps] == [f"/{ZRAM}/mm_stat"]


def test_the_pools_of_the_machine_and_of_its_nodes_are_told_apart() -> None:
    gaps: list[Gap] = []
    pools = read_huge_pools(Host(str(HOSTS / "v2-systemd-252")), gaps)
    assert gaps == []
    assert pools[0] == HugePool(page_bytes=2 * MIB, total=4, free=4, reserved=0, surplus=0)
    assert HugePool(page_bytes=2 * MIB, node=0, total=4, free=4, surplus=0) in pools
    nodes = [pool.node for pool in read_huge_pools(Host(str(HOSTS / "numa-mini-7")), gaps)]
    assert nodes == [None, None, 0, 0, 1, 1]


def test_of_a_choice_the_chosen_word_is_told(tmp_path: Path) -> None:
    gaps: list[Gap] = []
    enabled, _, _, ptes, zswap, *_ = SETTINGS
    host = tree(tmp_path, **{enabled[1:]: "always [madvise] never\n", ptes[1:]: "511\n", zswap[1:]: "N\n"})
    assert read_settings(host, gaps) == ((enabled, "madvise"), (ptes, "511"), (zswap, "N"))
    assert gaps == []


@pytest.mark.parametrize("value", ["", "\n", "a b\n", "[a] [b]\n", "[]\n", "a\0\n", "always [madvise] nev", "x" * 300])
def test_a_setting_that_no_kernel_writes_is_a_gap(tmp_path: Path, value: str) -> None:
    gaps: list[Gap] = []
    assert read_settings(tree(tmp_path, **{SETTINGS[0][1:]: value}), gaps) == ()
    assert [gap.place for gap in gaps] == [SETTINGS[0]]


def test_every_file_of_this_machine_is_understood() -> None:
    gaps: list[Gap] = []
    told = dict(read_settings(Host(), gaps))
    read_zram(Host(), gaps)
    pools = read_huge_pools(Host(), gaps)
    assert gaps == []
    if not Path(SETTINGS[0]).exists():
        missing("transparent huge pages")
    assert f"[{told[SETTINGS[0]]}]" in Path(SETTINGS[0]).read_text()
    for pool in pools:
        assert pool.total is not None
        assert pool.free is not None
        assert 0 <= pool.free <= pool.total

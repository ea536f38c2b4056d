"""Masks as printed by kernels from 2.6.18 to 7.3 (corpus and lab), and as include/linux/gfp.h has them."""

import pytest

from reprieve.oom.gfp import explain

USER = "memory for a process or a file"
KERNEL = "memory for the kernel itself"


def test_no_mask_says_nothing() -> None:
    assert explain((), None) is None


def test_the_page_fault_path_does_not_say_what_for() -> None:
    assert explain((), 0) == "memory in a page fault (the kernel does not print for what)"


def test_the_zones_of_a_charge_to_a_cgroup_are_not_what_it_is_about() -> None:
    assert explain(("GFP_KERNEL",), 0xCC0, charged=True) == "memory charged to the cgroup"
    assert explain(("GFP_NOFS",), 0xC40, charged=True) == "memory charged to the cgroup, without entering a file system"


@pytest.mark.parametrize(
    ("mask", "flags", "words"),
    [
        # 4.6 and later: by name
        (0xCC0, "GFP_KERNEL", KERNEL),
        (0x24000C0, "GFP_KERNEL", KERNEL),
        (0x400DC0, "GFP_KERNEL_ACCOUNT|__GFP_ZERO", KERNEL),
        (0x101CC0, "GFP_USER|__GFP_WRITE", USER),
        (0x6202C2, "GFP_HIGHUSER|__GFP_NOWARN", USER),
        (0x2DC2, "GFP_KERNEL|__GFP_HIGHMEM|__GFP_ZERO|__GFP_NOWARN", KERNEL),  # vmalloc
        (0x100CCA, "GFP_HIGHUSER_MOVABLE", USER),
        (0x14201CA, "GFP_HIGHUSER_MOVABLE|__GFP_COLD", USER),
        (
            0x101C4A,
            "GFP_NOFS|__GFP_HIGHMEM|__GFP_HARDWALL|__GFP_MOVABLE|__GFP_WRITE",
            f"{USER}, without entering a file system",
        ),
        (0xC40, "GFP_NOFS", f"{KERNEL}, without entering a file system"),
        (0xC00, "GFP_NOIO", f"{KERNEL}, without starting I/O"),
        (0x820, "GFP_ATOMIC", f"{KERNEL}, without waiting for any to be freed"),
        (0x800, "GFP_NOWAIT", f"{KERNEL}, without waiting for any to be freed"),
        (0xCC1, "GFP_KERNEL|GFP_DMA", "memory that must lie in zone DMA"),
        (0xCC4, "GFP_KERNEL|GFP_DMA32", "memory that must lie below 4 GiB"),
        (0x3D24CA, "GFP_TRANSHUGE|__GFP_NORETRY", "a transparent huge page"),
        # before: by bits
        (0xD0, "", KERNEL),
        (0x50, "", f"{KERNEL}, without entering a file system"),
        (0x10, "", f"{KERNEL}, without starting I/O"),
        (0x20, "", f"{KERNEL}, without waiting for any to be freed"),
        (0xD1, "", "memory that must lie in zone DMA"),
        (0x21, "", "memory that must lie in zone DMA, without waiting for any to be freed"),
        (0xD2, "", USER),  # 2.6.11
        (0x201D2, "", USER),  # 2.6.18
        (0x1201D2, "", USER),  # 2.6.24
        (0x201DA, "", USER),  # 2.6.32 to 4.3
        (0x200D0, "", USER),
        (0x2080020, "", f"{KERNEL}, without waiting for any to be freed"),  # 4.4
        (0x2400000, "", f"{KERNEL}, without starting I/O"),
        (0x24201CA, "", USER),
    ],
)
def test_a_mask_tells_what_was_asked_for(mask: int, flags: str, words: str) -> None:
    names = tuple(flags.split("|")) if flags else ()
    assert explain(names, mask) == words


def test_names_alone_are_enough() -> None:
    assert explain(("GFP_HIGHUSER_MOVABLE", "__GFP_ZERO"), None) == USER

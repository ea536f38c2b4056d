"""What the first lines say to look at, where no remedy is proven: silent where there is one, or nothing to see."""

from __future__ import annotations

import pytest

from reprieve.rules import diagnose
from reprieve.rules.zones import where_to_look
from reprieve.show import answer, escape
from tests.rules.cases import snapshot

_LAB = "lab/6.1.0-56-cloud-amd64__"


def _now(log: str, event: int) -> str:
    seen = snapshot(log)
    oom = seen.ooms[event]
    number = seen.ooms.index(oom)
    return escape.plain(answer.now(oom, answer.of_event(diagnose(seen), number)))


@pytest.mark.parametrize(
    ("log", "said"),
    [
        (_LAB + "global.txt", "Keep memhog to 141 MiB from its next start"),
        (_LAB + "numa-mempolicy.txt", "Prefer the node instead of binding to it"),
        ("122-xorg-two-lines-ubuntu-2.6.28.log", "Find the whole report"),
        ("116-arm32-order1-lowmem-quoted-4.14.log", "Find the whole report"),
        ("108-ubuntu2110-sysrq-order-minus1.log", "nothing here says that memory is short"),
        ("001-memcg-v1-lxc-then-global-panic-5.15.log", "Look at LXC container test"),
    ],
)
def test_where_there_is_a_remedy_or_nothing_to_see_no_look_is_advised(log: str, said: str) -> None:
    assert said in _now(log, -1)
    assert where_to_look(snapshot(log).ooms[0]) is None


@pytest.mark.parametrize(
    ("log", "event", "said"),
    [
        (
            "004-i386-highmem-mkfs-wrapped-5.7rc3.log",
            0,
            "Look at what fills DMA, Normal: page cache 781 MiB of 841 MiB; a 64-bit kernel has no such wall",
        ),
        (
            "011-android-gki-5.10-kmsg-records-order3.log",
            0,
            "Look at what fills Normal: the kernel itself 3.4 GiB of 6.2 GiB; less Movable (movablecore=, kernelcore= "
            "at boot) leaves it more; try to join free pages, for some seconds of CPU: "
            "echo 1 > /proc/sys/vm/compact_memory",
        ),
        (
            "072-balloon-managed-underflow-5.4-next.log",
            -1,
            "Look for a balloon (virtio, VMware, Hyper-V) that took memory from zone Normal: its count stays wrong "
            "until that is given back, or a restart",
        ),
        (
            "125-beaglebone-no-killable-negative-reserved-4.1.log",
            0,
            "Look for what was asked for in vain, in the lines before these (“invoked oom-killer”: order, gfp_mask)",
        ),
    ],
)
def test_where_memory_was_free_and_of_no_use_it_says_what_to_look_at(log: str, event: int, said: str) -> None:
    assert _now(log, event) == said


def test_after_a_panic_the_rest_of_the_report_is_not_in_dmesg() -> None:
    said = _now("140-nuc980-empty-table-no-killable-two-lines.log", 0)
    assert "dmesg" not in said
    assert "journalctl -k -b -1" in said


def test_where_the_group_is_not_named_the_report_is_said_to_name_it() -> None:
    said = _now("031-memcg-rockpi4-trimmed-wrapped-6.14.log", 0)
    assert said.startswith("Find the whole report")
    assert "journalctl -k, with -b -1 of the boot before" in said  # -k alone is this boot's
    assert said.endswith("it tells whose limit it was, and how high")


def test_who_asked_for_a_kill_may_have_had_a_reason() -> None:
    said = _now("089-debian8-sysrq-manual-oom-3.16.log", 0)
    assert said.endswith("the kernel still had memory, but crash (pid 5802) held 3.3 GiB of 3.8 GiB")


@pytest.mark.parametrize(
    ("log", "claim", "title"),
    [
        ("038-order3-btrfs-slab-elided-6.6.log", "btrfs_extent_map 3.2 GiB", "Find what makes btrfs_extent_map grow"),
        (_LAB + "global-sock-slab.txt", "a socket's buffer was asked for", "Find what makes skbuff_head_cache grow"),
    ],
)
def test_what_the_kernel_holds_is_named_where_the_report_lists_it(log: str, claim: str, title: str) -> None:
    (finding,) = (found for found in diagnose(snapshot(log)) if found.code == "kernel-memory")
    assert claim in escape.plain(finding.claim)
    assert escape.plain(finding.remedies[0].title).startswith(title)


def test_a_limit_that_is_full_of_unwritten_files_is_not_said_to_leak() -> None:
    for log, written in (("009-memcg-v2-dd-mglru-wrapped-6.8.log", True), (_LAB + "memcg.txt", False)):
        (finding,) = (found for found in diagnose(snapshot(log)) if found.code == "cgroup-limit")
        assert ("if its writer cannot write out as it goes" in finding.remedies[0].title) is written
        assert ("leaks" in (finding.remedies[0].cost or "")) is not written


@pytest.mark.parametrize(
    ("log", "little"),
    [
        (_LAB + "global-sock-slab.txt", True),
        ("004-i386-highmem-mkfs-wrapped-5.7rc3.log", True),
        (_LAB + "memcg-tmpfs.txt", False),
        (_LAB + "global.txt", False),
        ("captures/6.1-page-tables.txt", False),
        ("108-ubuntu2110-sysrq-order-minus1.log", False),
    ],
)
def test_where_processes_hold_little_the_choice_says_so(log: str, little: bool) -> None:
    claims = [escape.plain(found.claim) for found in diagnose(snapshot(log)) if found.code == "why-this-one"]
    assert claims
    assert (" listed held no more than " in claims[0]) is little


def test_how_many_workers_is_said_in_the_servers_own_word() -> None:
    log = "077-centos7-rackspace-mysqld-two-events-3.10.log"
    assert _now(log, -1).endswith("at a time (MaxRequestWorkers)")
    amounts = {one.amount for found in diagnose(snapshot(log)) for one in found.remedies if "httpd" in one.title}
    assert all("= 5 of 8; 2 much smaller ones are not counted" in (amount or "") for amount in amounts)  # there are 10
    assert amounts


def test_page_tables_and_many_of_a_name_are_looked_at() -> None:
    assert _now("041-selftest-huge-vm-1100mib-nots.log", 0).startswith("Find out who maps so much")
    assert "fewer of what holds most" in _now("088-arch-teamviewerd-chrome-journal-6.0.log", 0)

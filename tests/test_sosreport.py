"""What a real sosreport of this machine gives `check`, and which rules it leaves without their facts."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from reprieve.machine.host import Host
from reprieve.machine.observe import observe
from reprieve.machine.unpack import unpacked as taken_out
from reprieve.model.finding import Gap
from reprieve.model.machine import Machine
from reprieve.model.snapshot import Snapshot
from reprieve.rules.living import LIVING, check, code_of
from reprieve.snapshot import load
from tests.conftest import Run
from tests.machine.real import program

pytestmark = pytest.mark.slow

# What a rule cannot do without, and a sosreport lacks: it keeps no files of single processes, cgroups or applications.
# Of the rest all is there. Units: it keeps their files, but not what the manager made of them.
LACKS = {
    "processes": (
        *(
            "process-holds",
            "exempt-holds",
            "exemption-inherited",
            "small-victim-next",
            "node-bound",
            "pool-exceeds-limit",
        ),
    ),
    "cgroups": (
        *("group-holds", "group-near-limit", "held-at-high", "parent-below-child", "limits-exceed-memory"),
        "swap-forbidden",
    ),
    "jvms": ("jvm-heap-exceeds-limit", "jvm-settings-exceed-limit", "applications-exceed-memory"),
    "nodes_js": ("node-heap-exceeds-limit",),
    "postgres": ("postgres-exceeds-limit", "postgres-backends-spared"),
    "redis": ("redis-unbounded", "redis-exceeds-limit", "redis-nearly-full", "redis-fork-refused"),
    "killers": ("killer-powerless", "killers-compete", "oomd-cannot-act"),
    "tmpfs": ("tmpfs-holds",),  # how full it is, statvfs(2) alone tells
    "segments": ("segments-forgotten",),
}
SPEAK = {
    *("swap-absent", "swap-small", "swap-nearly-full", "swappiness-zero", "commit-limit-near", "overcommit-unbounded"),
    *("panic-set", "allocating-task-set", "huge-pages-reserved", "slab-holds", "unevictable-holds"),
    *("unit-setting-ignored", "unit-adj-differs", "zram-swappiness", "memory-nearly-full"),
}
TWO_LOOKS = {"exempt-grows", "slab-grows"}  # at a machine that lives
FACTS = ("meminfo", "sysctls", "huge_pools")


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sos")
    plugins = "memory,kernel,process,cgroups,systemd,filesys,block,host,numa"
    argv = [program("sos"), "report", "--batch", "-q", "--only-plugins", plugins, "--tmp-dir", str(folder)]
    subprocess.run(argv, check=True, capture_output=True, timeout=300)
    (archive,) = folder.glob("*.tar.xz")
    # Not tarfile: the Python of Debian 12 is 3.11.2, whose extractall knows no filter.
    subprocess.run((program("tar"), "-C", str(folder), "-xf", str(archive)), check=True)
    (made,) = (path for path in folder.iterdir() if path.is_dir())
    return made


def _machine(unpacked: Path) -> tuple[Machine, list[Gap]]:
    gaps: list[Gap] = []
    return observe(Host(str(unpacked)), gaps, unique_s=0), gaps


def test_every_rule_is_listed_as_speaking_or_lacking() -> None:
    lacking = [code for codes in LACKS.values() for code in codes]
    assert sorted([*lacking, *SPEAK, *TWO_LOOKS]) == sorted(map(code_of, LIVING))


def test_what_the_rules_need_is_there_or_is_a_gap(unpacked: Path) -> None:
    machine, gaps = _machine(unpacked)
    for fact in FACTS:
        assert getattr(machine, fact), fact
    assert {gap.place for gap in gaps} >= {"processes"}
    known = {code for fact, codes in LACKS.items() if not _told(machine, fact) for code in codes}
    assert not {finding.code for finding in check(Snapshot(machine=machine))} & known


def _told(machine: Machine, fact: str) -> bool:
    if fact == "tmpfs":
        return any(mount.used_bytes is not None for mount in machine.tmpfs)
    return bool(getattr(machine, fact))


def test_the_verbs_say_what_a_sosreport_lacks(reprieve: Run, unpacked: Path) -> None:
    checked = reprieve("check", "--from", unpacked)
    assert checked.returncode == 5
    assert "Not seen  processes" in checked.stdout
    foretold = reprieve("next", "--from", unpacked)
    assert foretold.returncode == 1
    assert "no processes to choose from" in foretold.stderr


@pytest.mark.parametrize("verb", ["check", "top"])
def test_packed_it_tells_the_same(reprieve: Run, unpacked: Path, verb: str) -> None:
    (archive,) = unpacked.parent.glob("*.tar.xz")
    packed, folder = reprieve(verb, "--from", archive), reprieve(verb, "--from", unpacked)
    assert packed.stdout == folder.stdout
    assert packed.returncode == folder.returncode == 5


def test_its_kills_are_told_however_it_is_named(reprieve: Run, unpacked: Path) -> None:
    (archive,) = unpacked.parent.glob("*.tar.xz")
    for report in (archive, unpacked):
        of_source, of_origin = reprieve("why", report), reprieve("why", "--from", report)
        assert of_origin.stdout == of_source.stdout != ""
        assert of_origin.returncode == of_source.returncode != 1


def test_a_snapshot_of_the_archive_is_that_of_the_folder(reprieve: Run, unpacked: Path, tmp_path: Path) -> None:
    (archive,) = unpacked.parent.glob("*.tar.xz")
    packed, folder = (reprieve("snapshot", "--from", root, "-o", root.name) for root in (archive, unpacked))
    assert packed.returncode == folder.returncode == 5
    told = [load(str(tmp_path / root.name)) for root in (archive, unpacked)]
    assert told[0].machine == told[1].machine
    assert told[0].machine is not None
    assert [oom.stamp for oom in told[0].history] == [oom.stamp for oom in told[1].history]


def test_the_machine_of_the_archive_is_that_of_the_folder(unpacked: Path) -> None:
    (archive,) = unpacked.parent.glob("*.tar.xz")
    gaps: list[Gap] = []
    with taken_out(str(archive), gaps) as root:
        machine = observe(Host(root), gaps, unique_s=0)
    assert (machine, gaps) == _machine(unpacked)

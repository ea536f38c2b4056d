"""A cgroup of version 2 that is made in a guest: the load that killed who was beside it dies in a group of its own.

A tree that no systemd keeps is what a container with a cgroup namespace sees: so one is begun in the systemd guest.
"""

from __future__ import annotations

import shlex
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import kernels, states
from lab.guest import Answer, Guest
from tests.lab.conftest import here_or_skipped
from tests.lab.parcel import parcel
from tests.lab.test_fix import REPRIEVE, flat, told
from tests.rules.living.plays import _holding

HERE = Path(__file__).parent
CGROUP = "/sys/fs/cgroup"
APP = f"{CGROUP}/system.slice/app.scope"
# The namespace begins while the scope holds its process; then that one moves aside, as version 2 gives a group nothing
# to hand on while it holds processes.
INSIDE = f"""
umount -l {CGROUP}; mount -t cgroup2 none {CGROUP}
mkdir {CGROUP}/init; echo 0 > {CGROUP}/init/cgroup.procs
exec unshare --pid --fork --mount-proc sh -c 'sleep infinity & echo ready > /run/inside; wait'
"""
BEGUN = f"""
rm -f /run/inside
systemd-run -q --scope --unit=app -p Delegate=yes -p MemoryMax=160M -p MemorySwapMax=0 \
    unshare --cgroup --mount sh -c {shlex.quote(INSIDE)} > /dev/null 2>&1 &
until [ -e /run/inside ]; do sleep 0.1; done
"""
INNOCENT = "hog --mib 90 --name innocent --hold -1"
START = f"""sh -c 'echo $$ > "$0" && exec "$@"' {CGROUP}/batch/cgroup.procs"""
LOAD = "hog --mib 80 --name load --hold 1"

pytestmark = pytest.mark.slow


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Guest]:
    """The systemd guest, with the tool, and in it a container that may hold 160 MiB."""
    with here_or_skipped():
        saved = states.saved(kernels.DEFAULT, states.SYSTEMD)
    disk = parcel(tmp_path / "parcel.tar")
    with tarfile.open(disk, "a") as archive:
        for script in ("dying.py", "die_at_a_group.py"):
            archive.add(HERE / script, script)
    with saved.restore(spare=disk) as guest:
        assert guest.run("mkdir /opt/reprieve; tar -C /opt/reprieve -xf /dev/vda").status == 0
        assert guest.run(BEGUN, timeout_s=200).status == 0
        yield guest


def inside(guest: Guest, command: str) -> Answer:
    """A command in the container."""
    enter = f"echo $$ > {APP}/init/cgroup.procs; exec nsenter -t $(pgrep -xo sleep) -C -m -p sh -c"
    return guest.run(f"sh -c {shlex.quote(f'{enter} {shlex.quote(command)}')} 2>&1", timeout_s=200)


def fix(guest: Guest, command: str, status: int = 0) -> str:
    """What the tool says there."""
    ended = inside(guest, f"{REPRIEVE} {command}")
    assert ended.status == status, ended.output
    return flat(ended.output)


def lives(guest: Guest) -> bool:
    return guest.run("pgrep -x innocent").status == 0


def test_the_load_that_killed_who_was_beside_it_dies_in_a_group_of_its_own(guest: Guest) -> None:
    assert inside(guest, _holding(INNOCENT)).status == 0
    assert inside(guest, LOAD).status == 0
    assert not lives(guest)
    assert inside(guest, _holding(INNOCENT)).status == 0
    wanted = "fix limit /batch --max 40M --swap-max 0"

    assert "there is no cgroup /batch" in (said := fix(guest, f"{wanted} --yes", status=4))
    assert "--make makes it, if that is meant" in said
    given = f"echo +memory > {CGROUP}/cgroup.subtree_control"
    assert f"→ {given}: all groups there are counted from then on" in fix(guest, f"{wanted} --make --yes", status=4)
    assert inside(guest, f"{given}; ls -d {CGROUP}/batch").status != 0

    change = "cgroup /batch not there → made with memory.max 40 MiB, memory.swap.max 0 B, until the next boot"
    assert guest.run(f"echo 1 > {APP}/cgroup.max.descendants").status == 0
    assert "there may be no more groups, or none so deep" in fix(guest, f"{wanted} --make --yes", status=4)
    assert guest.run(f"echo max > {APP}/cgroup.max.descendants; ls -d {APP}/batch").status != 0

    said = fix(guest, f"{wanted} --make --high 32M --dry-run", status=3)
    assert change.replace("40 MiB,", "40 MiB, memory.high 32 MiB,") in said
    said = fix(guest, f"{wanted} --make --yes")
    assert change in said
    assert f"Start {START} COMMAND" in said
    assert "nothing to change" in fix(guest, f"{wanted} --make --yes")
    assert inside(guest, f"{START} {LOAD}").status == 137
    assert lives(guest)
    assert "oom_memcg=/system.slice/app.scope/batch," in guest.kernel_log()

    assert inside(guest, _holding(f"{START} hog --mib 4 --name guest --hold -1")).status == 0
    stays = "cgroup /batch is not removed: it holds guest (pid "
    assert stays in fix(guest, "undo", status=4)
    assert inside(guest, f"cat {CGROUP}/batch/memory.max").output == f"{40 << 20}\n"
    assert inside(guest, "pkill -9 -x guest").status == 0
    assert "Undone: change 2" in fix(guest, "undo")
    assert inside(guest, f"ls -d {CGROUP}/batch").status != 0
    assert "made with memory.max 40 MiB" in (said := fix(guest, "changes"))
    assert "undone" in said
    assert lives(guest)


def test_killed_before_each_line_it_is_there_with_its_limits_or_not_at_all(guest: Guest) -> None:
    given = f"echo +memory > {CGROUP}/cgroup.subtree_control"
    died = inside(guest, f"{given}; python3 /opt/reprieve/die_at_a_group.py /opt/reprieve /batch")
    assert died.status == 0, died.output
    making, halves, removing = map(int, died.output.split())
    assert 5 < halves < making
    assert removing > 10


def test_in_the_tree_that_systemd_keeps_a_slice_is_advised_which_does_the_same(guest: Guest) -> None:
    said = flat(told(guest, "fix limit /batch --make --max 40M --yes", status=4))
    assert "systemd keeps this tree" in said
    assert "reprieve fix limit batch.slice …, then systemd-run --slice=batch COMMAND" in said
    assert guest.run(f"ls -d {CGROUP}/batch*").status != 0
    told(guest, "fix limit batch.slice --max 40M --swap-max 0 --yes")
    assert guest.run(f"systemd-run -q --wait --slice=batch {LOAD}", timeout_s=200).status != 0
    assert "oom_memcg=/batch.slice," in guest.kernel_log()

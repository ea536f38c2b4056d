"""A process that a cpuset keeps to a full node, in a guest with two: it is told, and what is advised saves it."""

from __future__ import annotations

import base64
import shlex
from pathlib import Path

import pytest

from lab import kernels, states
from lab.guest import Guest
from lab.states import Saved
from reprieve.machine.host import Host
from reprieve.machine.observe import observe
from reprieve.model.finding import Finding
from reprieve.model.snapshot import Snapshot
from reprieve.rules.living.nodes import node_bound
from tests.hosts.capture import MOUNTS, SHOW
from tests.lab.conftest import here_or_skipped

_BOUND = """
cd /sys/fs/cgroup; mkdir cs; echo 1 > cs/cpuset.mems
sh -c 'echo $$ > cs/cgroup.procs; exec hog --mib '"{mib}"' --name bound --hold -1' &
sleep 6
"""
# What the kernel put on the second node as it booted differs from guest to guest.
_ALL_BUT_8 = "$(($(awk '/MemFree/ {print $4}' /sys/devices/system/node/node1/meminfo) / 1024 - 8))"
_MORE = "sh -c 'echo $$ > /sys/fs/cgroup/cs/cgroup.procs; exec hog --mib 40 --name more' && killall -0 bound"

pytestmark = [pytest.mark.slow, pytest.mark.alone]


@pytest.fixture(scope="module")
def two_nodes() -> Saved:
    with here_or_skipped():
        return states.saved(kernels.DEFAULT, states.NUMA)


def _look(guest: Guest, folder: Path) -> list[Finding]:
    """What the rule finds in the files of the guest."""
    for line in guest.run(SHOW + MOUNTS + "groups /sys/fs/cgroup", timeout_s=200).output.splitlines():
        path, _, content = line.partition(" ")
        if path.startswith("/"):
            target = folder / path.removeprefix("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(base64.b64decode(content))
    return list(node_bound(Snapshot(machine=observe(Host(str(folder)), [], unique_s=0))))


def test_who_is_kept_to_a_full_node_is_told_and_saved(two_nodes: Saved, tmp_path: Path) -> None:
    with two_nodes.restore() as guest:
        assert guest.run(_BOUND.format(mib=_ALL_BUT_8)).status == 0
        (found,) = _look(guest, tmp_path)
        assert "bound" in found.claim
        (remedy,) = found.remedies
        (command,) = remedy.commands
        assert guest.run(f"{shlex.join(command)}\n{_MORE}").status == 0
    with two_nodes.restore() as guest:
        assert guest.run(_BOUND.format(mib=_ALL_BUT_8)).status == 0
        assert guest.run(_MORE).status != 0


_BY_POLICY = f"hog --mib {_ALL_BUT_8} --node 1 --name bound --hold -1 &\nsleep 6"
_MORE_BY_POLICY = "hog --mib 40 --node 1 --name more && killall -0 bound"


def test_who_has_bound_itself_to_a_full_node_is_told_and_lives_where_it_does_not(
    two_nodes: Saved, tmp_path: Path
) -> None:
    with two_nodes.restore() as guest:
        assert guest.run(_BY_POLICY).status == 0
        (found,) = _look(guest, tmp_path)
        assert "bound" in found.claim
        assert "memory node \x021\x03 alone" in found.claim
        assert "--preferred" in found.remedies[0].title
        assert guest.run(_MORE_BY_POLICY).status != 0
    with two_nodes.restore() as guest:
        assert guest.run(_BY_POLICY.replace("--node 1", "")).status == 0
        assert guest.run(_MORE_BY_POLICY).status == 0


@pytest.mark.parametrize(
    ("script", "why"),
    [
        (_BOUND.format(mib=20), "its node has room"),
        ("hog --mib 20 --node 1 --name bound --hold -1 &\nsleep 6", "bound by a policy, and its node has room"),
        ("hog --mib 150 --name free --hold -1 &\nsleep 6", "it is bound to none"),
    ],
)
def test_it_is_silent_where_nobody_is_walled_in(two_nodes: Saved, tmp_path: Path, script: str, why: str) -> None:
    with two_nodes.restore() as guest:
        assert guest.run(script).status == 0
        assert _look(guest, tmp_path) == [], why

"""`fix limit` and `undo` on containers of Docker 26 and Podman 5, which keep them in cgroups of version 2."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab import states
from lab.guest import Guest
from tests.hosts.capture import DOCKERD, IMAGE
from tests.lab.conftest import here_or_skipped
from tests.lab.parcel import parcel
from tests.lab.test_fix import flat, told

MIB = 1 << 20
ENGINES = {
    "docker": DOCKERD,
    "podman": "systemctl start podman.socket; podman import --quiet /lab/image.tar lab:1 > /dev/null || exit 9\n",
}
WEB = "run --detach --network none --memory 64m --memory-swap 64m --name web lab:1 sleep 900 > /dev/null || exit 9\n"
LOAD = "exec web hog --mib 96"
# Of the group its process is in: around it Podman has another, whose limit of swap is not the one that was asked for.
HELD = (
    "cd /sys/fs/cgroup/$(sed s,^0::/,, /proc/$({} inspect --format '{{{{.State.Pid}}}}' web)/cgroup)\n"
    "cat memory.max memory.swap.max"
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """Debian 13 with the tool, and a system of busybox and hog to be an image."""
    with here_or_skipped():
        saved = states.saved(*states.ENGINES)
    with saved.restore(spare=parcel(tmp_path_factory.mktemp("guest") / "parcel.tar")) as guest:
        assert guest.run(f"mkdir /opt/reprieve; tar -C /opt/reprieve -xf /dev/vda; {IMAGE}").status == 0
        yield guest


@pytest.mark.parametrize("engine", ENGINES)
def test_what_was_killed_lives_under_the_new_limit_and_is_killed_again_once_it_is_undone(
    engine: str, guest: Guest
) -> None:
    held = HELD.format(engine)
    begun = guest.run(f"{ENGINES[engine]}{engine} {WEB}", timeout_s=300)
    assert begun.status == 0, begun.output
    assert guest.run(f"{engine} {LOAD}").status == 137
    assert guest.run(held).output == f"{64 * MIB}\n0\n"

    said = told(guest, f"fix limit {engine}:web --max 160M --yes")
    assert f"{engine}:web memory  64 MiB, swap 0 B → 160 MiB, swap 0 B" in said
    assert guest.run(held).output == f"{160 * MIB}\n0\n"
    assert guest.run(f"{engine} {LOAD}").status == 0

    assert "Undone: change " in told(guest, "undo")
    assert guest.run(held).output == f"{64 * MIB}\n0\n"
    assert guest.run(f"{engine} {LOAD}").status == 137

    assert "64 MiB, swap 0 B → no limit" in told(guest, f"fix limit {engine}:web --max max --yes")
    assert guest.run(f"{engine} {LOAD}").status == 0
    assert "nothing to change" in told(guest, f"fix limit {engine}:web --max max --yes")
    assert "Undone: change " in told(guest, "undo")
    assert guest.run(held).output == f"{64 * MIB}\n0\n"

    told(guest, f"fix limit {engine}:web --max 160M --yes")
    assert guest.run(f"{engine} update --memory 128m --memory-swap 128m web").status == 0
    said = flat(told(guest, "undo", status=4))
    assert "memory is 128 MiB, swap 0 B: somebody else has set it since change" in said
    assert "changed it from 64 MiB, swap 0 B to 160 MiB, swap 0 B" in said
    assert guest.run(held).output == f"{128 * MIB}\n0\n"
    assert "stays" in told(guest, "undo --leave")

"""What `reprieve next` says becomes of the rest of a unit, and what does when its hog is killed."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab import kernels, states
from tests.lab.conftest import here_or_skipped
from tests.lab.parcel import parcel

pytestmark = pytest.mark.alone

_START = """\
mkdir /opt/reprieve; tar -C /opt/reprieve -xf /dev/vda
systemd-run -q --unit=web -p MemoryMax=60M -p OOMPolicy={policy} \\
    sh -c 'sleep 301 & hog --mib 40 --name app --hold -1; sleep 302'
until pgrep -x sleep && pgrep -x app; do sleep 0.5; done > /dev/null; sleep 3
"""
_LOOK = "cd /; PYTHONPATH=/opt/reprieve COLUMNS=200 python3 -m reprieve next --unit web"
_KILL = """\
echo 16M > /sys/fs/cgroup/system.slice/web.service/memory.max
until ! pgrep -x app; do sleep 0.5; done > /dev/null; sleep 5
systemctl show web -P Result; pgrep -x sleep > /dev/null && echo sleep lives
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("policy", "said", "became"),
    [
        ("continue", None, ["success", "sleep lives"]),
        ("stop", "Then      systemd stops the rest of web.service (its OOMPolicy is stop): ", ["oom-kill"]),
        ("kill", "memory.oom.group of web.service is set (its OOMPolicy is kill)", ["oom-kill"]),
    ],
)
def test_the_rest_of_a_unit_goes_as_foretold(policy: str, said: str | None, became: list[str], tmp_path: Path) -> None:
    with here_or_skipped():
        saved = states.saved(kernels.DEFAULT, states.SYSTEMD)
    with saved.restore(spare=parcel(tmp_path / "parcel.tar")) as guest:
        started = guest.run(_START.format(policy=policy), timeout_s=200)
        assert started.status == 0, started.output
        foretold = guest.run(_LOOK, timeout_s=200).output
        assert foretold.startswith("Next      app (pid "), foretold
        if said is None:
            assert "OOMPolicy" not in foretold
        else:
            (line,) = (line for line in foretold.splitlines() if said in line)
            assert "sleep (pid " in line
        assert guest.run(_KILL, timeout_s=200).output.splitlines() == became

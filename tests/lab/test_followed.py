"""`why --follow` by whom the kernel's log is closed to: it is refused at once, or the journal is heard."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab import kernels, states
from tests.lab.conftest import here_or_skipped
from tests.lab.parcel import parcel
from tests.lab.test_fix import flat

pytestmark = pytest.mark.slow

FOLLOW = "PYTHONPATH=/opt/reprieve COLUMNS=200 timeout -s INT {} {} python3 -u -m reprieve why --follow"
NOBODY = "setpriv --reuid=65534 --regid=65534 --clear-groups"
READER = "setpriv --reuid=65534 --regid=65534 --groups=systemd-journal"


def test_who_hears_nothing_is_refused_at_once_and_who_hears_the_journal_is_told_of_a_kill(tmp_path: Path) -> None:
    with here_or_skipped():
        saved = states.saved(kernels.DEFAULT, states.SYSTEMD)
    with saved.restore(spare=parcel(tmp_path / "parcel.tar")) as guest:
        assert guest.run("mkdir /opt/reprieve; tar -C /opt/reprieve -xf /dev/vda; chmod -R a+rX /opt").status == 0
        refused = guest.run(f"cd /; {FOLLOW.format(100, NOBODY)} 2>&1 < /dev/null", timeout_s=150)
        assert refused.status == 1, refused.output
        said = flat(refused.output)
        assert "/dev/kmsg: only root may read the kernel log here; journal: permission denied to the journal" in said
        assert "run it with sudo: `sudo " in said
        assert "`, or: sudo usermod -aG systemd-journal $USER, then log in again" in said

        begun = guest.run(
            f"cd /; ({FOLLOW.format(400, READER)} > /run/told 2>&1 < /dev/null; echo $? > /run/ended) &\n"
            "for n in $(seq 200); do grep -q 'journal is followed' /run/told && break; sleep 0.3; done; cat /run/told",
            timeout_s=150,
        )
        assert "Note /dev/kmsg: only root may read the kernel log here: the journal is followed" in flat(begun.output)
        told = guest.run(
            "systemd-run -q --unit=web -p MemoryMax=32M -p MemorySwapMax=0 hog --mib 64\n"
            "for n in $(seq 200); do grep -q Killed /run/told && break; sleep 0.3; done\n"
            "pkill -INT -f '^python3 .*--follow'\n"
            "for n in $(seq 100); do test -s /run/ended && break; sleep 0.2; done; cat /run/told /run/ended",
            timeout_s=200,
        )
        assert "of web.service, held" in flat(told.output)
        assert told.output.count("the journal is followed") == 1
        assert told.output.splitlines()[-1] == "0"

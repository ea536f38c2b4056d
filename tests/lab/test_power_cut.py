"""The power goes while `fix` changes a machine: what is on the disk is the old or the new, and can be put back."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from lab import kernels, states
from tests.lab.conftest import here_or_skipped
from tests.lab.parcel import parcel

REPRIEVE = "PYTHONPATH=/mnt/opt python3 -m reprieve"
# The disk that outlives the power holds the journal, the folder of sysctl.d, and a swap file.
MOUNT = """
cd /; mount /dev/vda /mnt
mkdir -p /mnt/var /mnt/sysctl.d /var/lib/reprieve
mount --bind /mnt/var /var/lib/reprieve
mount --bind /mnt/sysctl.d /etc/sysctl.d
"""
UNPACK = "tar -C /opt -xf /dev/vda; mkfs.ext4 -q -F /dev/vda\n" + MOUNT + "cp -r /opt /mnt/opt; sync\n"
OLD = "# mine\nvm.panic_on_oom = 0\n"
FORMS = {
    "sysctl": "for n in 11 12 13 14 15 16; do {0} fix swappiness $n --yes; done",
    "swap": "for n in 1 2 3; do {0} fix swap --size 12M --file /mnt/swapfile --runtime --yes; {0} undo; done",
}

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("cut_s", [3, 6, 9, 12])
@pytest.mark.parametrize("form", FORMS)
def test_after_a_power_cut_all_of_a_change_holds_or_is_put_back(form: str, cut_s: float, tmp_path: Path) -> None:
    with here_or_skipped():
        saved = states.saved(kernels.DEFAULT, states.SYSTEMD)
    disk = tmp_path / "disk.img"
    with saved.restore(spare=parcel(tmp_path / "parcel.tar")) as guest:
        assert guest.run(f"{UNPACK}printf '{OLD}' > /etc/sysctl.d/60-reprieve.conf; sync").status == 0
        assert guest.run(f"(cd /; {FORMS[form].format(REPRIEVE)}) > /run/out 2>&1 &").status == 0
        time.sleep(cut_s)
        guest.cut_power(disk)
    with saved.restore(spare=disk) as guest:
        assert guest.run(MOUNT).status == 0
        found = guest.run("cat /etc/sysctl.d/60-reprieve.conf").output
        assert found == OLD or found in {f"{OLD}vm.swappiness = {n}\n" for n in range(11, 17)}
        recovered = guest.run(f"cd /; {REPRIEVE} undo --recover 2>&1")
        assert recovered.status == 0, recovered.output
        changes = [json.loads(line) for line in guest.run(f"cd /; {REPRIEVE} changes --json").output.splitlines()]
        assert all(one["change"]["ended"] for one in changes)
        after = guest.run("cat /etc/sysctl.d/60-reprieve.conf; ls /mnt")
        kept = [
            entry["want"]
            for one in changes
            for entry in one["change"]["entries"]
            if entry["state"] == "changed" and entry["place"]["kind"] in ("sysctl.d", "swapfile")
        ]
        if form == "sysctl":
            assert f"vm.swappiness = {kept[-1]}\n" in after.output if kept else "swappiness" not in after.output
        else:
            assert ("swapfile" in after.output.split()) == bool(kept)
        left = guest.run("find /mnt/sysctl.d /mnt -maxdepth 1 -name '.*.reprieve'").output
        assert left == "", left

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
# The disk that outlives the power holds the journal, the folders of sysctl.d and of units, and a swap file.
MOUNT = """
cd /; mount /dev/vda /mnt
mkdir -p /mnt/var /mnt/sysctl.d /var/lib/reprieve; [ -e /mnt/units ] || cp -a /etc/systemd/system /mnt/units
mount --bind /mnt/var /var/lib/reprieve
mount --bind /mnt/sysctl.d /etc/sysctl.d
mount --bind /mnt/units /etc/systemd/system; systemctl daemon-reload
"""
UNPACK = "tar -C /opt -xf /dev/vda; mkfs.ext4 -q -F /dev/vda\n" + MOUNT + "cp -r /opt /mnt/opt; sync\n"
OLD = "# mine\nvm.panic_on_oom = 0\n"
UNITS = "/etc/systemd/system"
WEB = f"printf '[Service]\\nExecStart=/bin/sleep infinity\\n' > {UNITS}/web.service; systemctl daemon-reload\n"
DROP_IN = f"cat {UNITS}/web.service.d/90-reprieve.conf 2> /dev/null"
FORMS = {
    "sysctl": "for n in 11 12 13 14 15 16; do {0} fix swappiness $n --yes; done",
    "swap": "for n in 1 2 3; do {0} fix swap --size 12M --file /mnt/swapfile --runtime --yes; {0} undo; done",
    "unit": "for n in 91 92 93; do {0} fix limit web --max ${{n}}M --yes; {0} undo; done",
}
# Seconds after the first change is begun; two of them in each run of all tests, the others by hand.
CUTS = [pytest.param(at_s, marks=pytest.mark.slow if at_s in (5, 9) else pytest.mark.matrix) for at_s in range(2, 10)]


@pytest.mark.parametrize("cut_s", CUTS)
@pytest.mark.parametrize("form", FORMS)
def test_after_a_power_cut_all_of_a_change_holds_or_is_put_back(form: str, cut_s: float, tmp_path: Path) -> None:
    with here_or_skipped():
        saved = states.saved(kernels.DEFAULT, states.SYSTEMD)
    disk = tmp_path / "disk.img"
    with saved.restore(spare=parcel(tmp_path / "parcel.tar")) as guest:
        assert guest.run(f"{UNPACK}{WEB}printf '{OLD}' > /etc/sysctl.d/60-reprieve.conf; sync").status == 0
        assert guest.run(f"(cd /; {FORMS[form].format(REPRIEVE)}) > /run/out 2>&1 &").status == 0
        time.sleep(cut_s)
        guest.cut_power(disk)
    with saved.restore(spare=disk) as guest:
        assert guest.run(MOUNT).status == 0
        found = guest.run("cat /etc/sysctl.d/60-reprieve.conf").output
        assert found == OLD or found in {f"{OLD}vm.swappiness = {n}\n" for n in range(11, 17)}
        drop_in = guest.run(DROP_IN)
        new = [["[Service]", f"MemoryMax={n << 20}"] for n in (91, 92, 93)]
        assert drop_in.status != 0 or drop_in.output.splitlines()[1:] in new
        recovered = guest.run(f"cd /; {REPRIEVE} undo --recover 2>&1")
        assert recovered.status == 0, recovered.output
        told = guest.run(f"cd /; {REPRIEVE} changes --json").output.splitlines()
        *changes, _end = map(json.loads, told)
        assert all(one["change"]["ended"] for one in changes)
        after = guest.run("cat /etc/sysctl.d/60-reprieve.conf; ls /mnt")
        kept = [
            entry["want"]
            for one in changes
            for entry in one["change"]["entries"]
            if entry["state"] == "changed" and entry["place"]["kind"] in ("sysctl.d", "swapfile", "unit")
        ]
        if form == "sysctl":
            assert f"vm.swappiness = {kept[-1]}\n" in after.output if kept else "swappiness" not in after.output
        elif form == "unit":
            assert guest.run(DROP_IN).output.splitlines()[2:] == [f"MemoryMax={size}" for size in kept]
            assert guest.run("systemctl show -P MemoryMax web").output.split() == (kept or ["infinity"])
            assert (guest.run(f"test -e {UNITS}/web.service.d").status == 0) == bool(kept)
        else:
            assert ("swapfile" in after.output.split()) == bool(kept)
        left = guest.run("find /mnt/sysctl.d /mnt -maxdepth 3 -name '.*.reprieve'").output
        assert left == "", left

"""Swap on zram in a guest: the load that was killed lives, what is refused says what would work, all is gone after."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import kernels, states
from lab.guest import Guest
from tests.lab.conftest import here_or_skipped
from tests.lab.parcel import parcel
from tests.lab.test_fix import REPRIEVE, flat, told

HERE = Path(__file__).parent
THERE = "cat /proc/swaps; cd /sys/block; echo zram*; cd /dev; echo zram*; ls -A /etc/systemd/system"
UNIT, SERVICE = "/etc/systemd/system/reprieve-zram.service", "reprieve-zram.service"
DISK = "dd if=/dev/zero of=/swap bs=1M count=16 2> /dev/null; chmod 600 /swap; mkswap -q /swap; swapon -p 200 /swap"
CONTROL = "/sys/class/zram-control"
# udev looks into a device that was written to, and the kernel removes none that is open.
GONE = f"until {{ echo 1 > {CONTROL}/hot_remove; }} 2> /dev/null; do sleep 0.1; done"
# Another's device, still untouched, comes after the plan.
BETWEEN = f"""
cat > /run/between.py <<'END'
from reprieve.fix.journal import Journal
from reprieve.fix.transaction import apply
from reprieve.machine.ledger import LedgerFile
from reprieve.machine.places import MachinePlaces
from reprieve.model.change import Step
from reprieve.model.finding import Failure, parse_place
with LedgerFile("/run/between.jsonl") as ledger:
    place = MachinePlaces().identify(parse_place("zram:/disksize"))
    assert open("{CONTROL}/hot_add").read() == "1\\n"
    try:
        told = Journal(ledger, boot_id="boot-1", wall_s=1.0, user="root")
        apply([Step(place=place, before=None, want=str(64 << 20))], MachinePlaces(), told)
    except Failure as failure:
        print(failure.message)
END
PYTHONPATH=/opt/reprieve python3 /run/between.py 2>&1
"""
# 44 MiB of pages that differ and repeat, as heaps often do, in a group that may hold 40. What zram holds of them is
# charged to nobody. Python has run before, so that its files are charged elsewhere: a group full of them stands still.
LOAD = """
cat > /run/load.py <<'END'
held = [(b"%08d some words that repeat; " % at * 128)[:4096] for at in range(11 * 1024)]
END
python3 -c pass
mkdir -p /sys/fs/cgroup/app; echo 40M > /sys/fs/cgroup/app/memory.max
(sh -c 'echo $$ > /sys/fs/cgroup/app/cgroup.procs; exec python3 /run/load.py')
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """The systemd guest, with the tool, and zram as a module on its disk besides the one that is loaded."""
    with here_or_skipped():
        saved = states.saved(kernels.DEFAULT, states.SYSTEMD)
    kernel = kernels.find(kernels.DEFAULT)
    disk = parcel(tmp_path_factory.mktemp("guest") / "parcel.tar")
    with tarfile.open(disk, "a") as archive:
        for script in ("dying.py", "die_at_a_line.py", "die_at_the_zram_unit.py"):
            archive.add(HERE / script, script)
        for module in kernel.modules(("zram",)):
            archive.add(module, f"modules/{module.name}")
    with saved.restore(spare=disk) as guest:
        assert guest.run("mkdir /opt/reprieve; tar -C /opt/reprieve -xf /dev/vda").status == 0
        yield guest


def test_the_load_that_is_killed_without_lives_with_it(guest: Guest) -> None:
    before = guest.run(THERE).output
    assert guest.run(f"echo +memory > /sys/fs/cgroup/cgroup.subtree_control; {LOAD}", timeout_s=200).status == 137
    assert "swap on zram1  not set → 100 MiB, now" in told(guest, "fix zram --size 100M --yes --runtime")
    assert "nothing to change" in told(guest, "fix zram --size 100M --yes --runtime")
    assert guest.run(LOAD, timeout_s=200).status == 0
    assert int(guest.run("awk '/^pswpout/ {print $2}' /proc/vmstat").output) > 1000  # pages
    assert "Undone: change 1" in told(guest, "undo")
    assert guest.run(THERE).output == before


def test_it_is_used_before_all_other_swap_and_leaves_the_device_of_others(guest: Guest) -> None:
    theirs = "echo 8M > /sys/block/zram0/disksize; echo mine > /dev/zram0"
    assert guest.run(f"{DISK}; {theirs}").status == 0
    told(guest, "fix zram --size 32M --yes")
    swaps = {line.split()[0]: line.split()[-1] for line in guest.run("cat /proc/swaps").output.splitlines()}
    assert (swaps["/swap"], swaps["/dev/zram1"]) == ("200", "201")
    told(guest, "undo")
    assert (
        guest.run("head -c 5 /dev/zram0; swapoff /swap; rm /swap; echo 1 > /sys/block/zram0/reset").output == "mine\n"
    )


def test_what_others_swap_to_is_told_and_stays(guest: Guest) -> None:
    theirs = "echo 64M > /sys/block/zram0/disksize; mkswap -q /dev/zram0; swapon /dev/zram0"
    assert guest.run(theirs).status == 0
    said = flat(told(guest, "fix zram --size 100M --yes", status=4))
    assert "zram0 is swapped to already: 64 MiB, with 0 B in it → two would share the same memory" in said
    told(guest, "fix zram --size 64M --yes", status=4)
    assert guest.run("swapoff /dev/zram0 && echo 1 > /sys/block/zram0/reset").status == 0


def test_what_others_have_made_and_swapped_to_since_ours_was_removed_stays(guest: Guest) -> None:
    told(guest, "fix zram --size 64M --yes --runtime")
    by_hand = f"swapoff /dev/zram1 && {GONE}"
    theirs = f"cat {CONTROL}/hot_add; echo 64M > /sys/block/zram1/disksize; mkswap -q /dev/zram1; swapon /dev/zram1"
    assert guest.run(f"{by_hand} && {theirs}").output == "1\n"
    before = guest.run(THERE).output
    assert "swap on zram1 is somebody else's" in flat(told(guest, "undo", status=4))
    assert guest.run(THERE).output == before
    assert guest.run(by_hand).status == 0


def test_what_others_make_between_plan_and_change_stays(guest: Guest) -> None:
    before = guest.run(THERE).output
    ended = guest.run(f"{BETWEEN}cat /sys/block/zram1/disksize; ls -d /sys/block/zram*")
    assert ended.output == "the kernel made zram2, not zram1\n0\n/sys/block/zram0\n/sys/block/zram1\n"
    assert guest.run(GONE).status == 0
    assert guest.run(THERE).output == before


def test_a_size_beyond_twice_the_memory_is_refused(guest: Guest) -> None:
    said = flat(told(guest, "fix zram --size 1G --yes", status=4))
    assert "1 GiB would take more than the 469 MiB there are → half of the memory is usual" in said
    assert "--force disksize" in said


def test_without_the_right_nothing_is_changed(guest: Guest) -> None:
    before = guest.run(THERE).output
    drop = "setpriv --bounding-set=-sys_admin --inh-caps=-sys_admin"
    ended = guest.run(f"cd /; {drop} env {REPRIEVE.partition('; ')[2]} fix zram --size 64M --yes 2>&1")
    assert ended.status == 4, ended.output
    assert "CAP_SYS_ADMIN is missing" in ended.output
    assert guest.run(THERE).output == before


def test_the_script_does_the_same_twice_no_more_than_once(guest: Guest) -> None:
    before = guest.run(THERE).output
    assert guest.run(DISK).status == 0
    for _ in range(2):
        ended = guest.run(f"{REPRIEVE} fix zram --size 100M --as sh > /run/fix.sh && sh /run/fix.sh")
        assert ended.status == 0, ended.output
        assert guest.run("cat /sys/block/zram1/disksize; ls -d /sys/block/zram2").output.startswith(f"{100 << 20}\n")
        assert guest.run("ls -d /sys/block/zram2").status != 0
        assert guest.run("awk '/zram1/ {print $5}' /proc/swaps").output == "201\n"
    assert guest.run(f"systemctl start {SERVICE} && swapoff /dev/zram1 && {GONE}").status == 0
    assert guest.run(f"systemctl restart {SERVICE}; cat /sys/block/zram1/disksize").output == f"{100 << 20}\n"
    assert guest.run(f"swapoff /swap; rm /swap; systemctl disable --now {SERVICE} && rm {UNIT}").status == 0
    assert guest.run(THERE).output == before


def test_the_unit_is_made_by_the_files_that_are_printed_and_gone_when_it_is_stopped(guest: Guest) -> None:
    before = guest.run(THERE).output
    ended = guest.run(f"{REPRIEVE} fix zram --size 100M --as systemd > {UNIT} && systemctl enable --now {SERVICE}")
    assert ended.status == 0, ended.output
    assert guest.run("awk '/zram1/ {print $5}' /proc/swaps; cat /sys/block/zram1/disksize").output == (
        f"100\n{100 << 20}\n"
    )
    assert guest.run(f"systemctl disable --now {SERVICE} && rm {UNIT}").status == 0
    assert guest.run(THERE).output == before


def test_for_later_boots_alone_nothing_is_swapped_to_and_another_size_is_another_change(guest: Guest) -> None:
    before = guest.run(THERE).output
    said = flat(told(guest, "fix zram --size 96M --persistent --yes"))
    assert f"swap on zram not set → 96 MiB, at each boot ({UNIT})" in said
    assert "zram1" not in said
    assert "nothing to change" in told(guest, "fix zram --size 96M --persistent --yes")
    assert guest.run("cat /proc/swaps").output in before
    assert guest.run(f"systemctl is-enabled {SERVICE}; systemd-analyze verify {UNIT}").output == "enabled\n"
    assert "96 MiB → 64 MiB" in told(guest, "fix zram --size 64M --persistent --yes")
    assert f"DISKSIZE={64 << 20}\n" in guest.run(f"cat {UNIT}").output
    told(guest, "undo")
    assert f"DISKSIZE={96 << 20}\n" in guest.run(f"cat {UNIT}").output
    told(guest, "undo")
    assert guest.run(THERE).output == before


@pytest.mark.parametrize(
    ("file", "said"),
    [
        (
            "/usr/lib/systemd/system-generators/zram-generator",
            "zram-generator is installed, which makes zram at each boot → zram-size = 64 below [zram0] in "
            "/etc/systemd/zram-generator.conf; --runtime does without it",
        ),
        (
            "/usr/lib/systemd/system/zramswap.service",
            "zram-tools is installed, which makes zram at each boot → SIZE=64 in /etc/default/zramswap; --runtime does "
            "without it",
        ),
    ],
)
def test_where_somebody_else_makes_it_at_each_boot_it_is_for_this_one(file: str, said: str, guest: Guest) -> None:
    before = guest.run(THERE).output
    assert guest.run(f"printf '#!/bin/sh\\n' > {file}; chmod +x {file}").status == 0
    assert said in flat(told(guest, "fix zram --size 64M --yes --persistent", status=4))
    assert guest.run(THERE).output == before
    assert said in flat(told(guest, "fix zram --size 64M --yes", status=4))
    assert "/dev/zram1" in guest.run("cat /proc/swaps").output
    told(guest, "undo")
    assert guest.run(f"rm {file}").status == 0
    assert guest.run(THERE).output == before


def test_where_somebody_else_has_come_since_the_unit_makes_none(guest: Guest) -> None:
    before = guest.run(THERE).output
    file = "/usr/lib/systemd/system-generators/zram-generator"
    told(guest, "fix zram --size 64M --yes --persistent")
    assert guest.run(f"touch {file}; systemctl start {SERVICE}; rm {file}; cat /proc/swaps").output in before
    theirs = "echo 32M > /sys/block/zram0/disksize; mkswap -q /dev/zram0; swapon /dev/zram0"
    assert guest.run(f"{theirs}; systemctl start {SERVICE}").status != 0
    assert "zram0 is swapped to already" in guest.run(f"journalctl -u {SERVICE} -o cat").output
    assert "zram1" not in guest.run("cat /proc/swaps").output
    assert guest.run("swapoff /dev/zram0 && echo 1 > /sys/block/zram0/reset").status == 0
    told(guest, "undo")
    assert guest.run(f"systemctl reset-failed; {THERE}").output == before


def test_a_unit_of_its_name_that_others_wrote_stays(guest: Guest) -> None:
    before = guest.run(THERE).output
    assert guest.run(f"printf '[Service]\\nExecStart=true\\n' > {UNIT}").status == 0
    assert "reprieve-zram.service is there, and not of ours" in flat(
        told(guest, "fix zram --size 64M --yes --persistent", status=4)
    )
    assert guest.run(f"rm {UNIT}").status == 0
    told(guest, "fix zram --size 64M --yes --persistent")
    assert guest.run(f"sed -i 's/^Environment=DISKSIZE=.*/Environment=DISKSIZE=5/' {UNIT}").status == 0
    said = flat(told(guest, "undo", status=4))
    assert f"swap on zram ({UNIT}) is 5 B: somebody else has set it since" in said
    assert guest.run(f"rm {UNIT} /etc/systemd/system/swap.target.wants/{SERVICE}").status == 0
    assert guest.run("rmdir /etc/systemd/system/swap.target.wants; systemctl daemon-reload").status == 0
    assert guest.run(THERE).output == before


def test_of_the_unit_killed_before_any_line_it_holds_or_is_gone(guest: Guest) -> None:
    before = guest.run(THERE).output
    ended = guest.run("python3 /opt/reprieve/die_at_the_zram_unit.py /opt/reprieve 2>&1", timeout_s=900)
    assert ended.status == 0, ended.output
    making, unmaking = map(int, ended.output.split())
    assert making > 3
    assert unmaking > 3
    assert guest.run(THERE).output == before


def test_killed_before_any_line_it_holds_or_is_gone(guest: Guest) -> None:
    before = guest.run(THERE).output
    ended = guest.run("python3 /opt/reprieve/die_at_a_line.py /opt/reprieve 2>&1", timeout_s=500)
    assert ended.status == 0, ended.output
    making, left, unmaking = map(int, ended.output.split())
    assert making > 30
    assert left < 15  # lines from hot_add to the marker
    assert unmaking > 15
    assert guest.run(f"swapoff /dev/zram1; {GONE}").status == 0
    assert guest.run(THERE).output == before


def test_the_module_is_loaded_where_it_is_there_and_missed_where_it_is_not(guest: Guest) -> None:
    assert guest.run("rmmod zram").status == 0
    assert "the kernel has no zram" in flat(told(guest, "fix zram --size 64M --yes", status=4))
    several = "echo options zram num_devices=4 > /etc/modprobe.d/zram.conf"
    placed = "d=/lib/modules/$(uname -r); mkdir -p $d/kernel; cp /opt/reprieve/modules/* $d/kernel; depmod"
    assert guest.run(f"{several}; {placed}").status == 0
    said = flat(told(guest, "fix zram --size 64M --yes", status=4))
    assert "loaded, the module zram made zram4 the next, not zram1 plan again" in said
    assert guest.run("echo /sys/block/zram*").output.count("zram") == 4
    assert guest.run("rmmod zram; rm /etc/modprobe.d/zram.conf").status == 0
    told(guest, "fix zram --size 64M --yes")
    assert "/dev/zram1" in guest.run("cat /proc/swaps").output
    told(guest, "undo")
    assert guest.run("cat /proc/swaps; ls -d /sys/block/zram*").output.endswith("\n/sys/block/zram0\n")
    told(guest, "fix zram --size 64M --yes --persistent")
    assert guest.run(f"rmmod zram && systemctl start {SERVICE}").status == 0
    assert "/dev/zram1" in guest.run("cat /proc/swaps").output
    told(guest, "undo")
    assert guest.run("cat /proc/swaps; ls -d /sys/block/zram*").output.endswith("\n/sys/block/zram0\n")

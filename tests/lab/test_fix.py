"""`fix` and `undo` in a guest: the load that stopped the machine no longer does, and all is put back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import kernels, states
from lab.guest import Guest
from tests.lab.conftest import here_or_skipped
from tests.lab.parcel import parcel
from tests.rules.living.plays import PLAYS, _holding

REPRIEVE = "cd /; PYTHONPATH=/opt/reprieve COLUMNS=200 python3 -m reprieve"
FILE = "/etc/sysctl.d/60-reprieve.conf"
BY_SYSCTL = ("panic-set", "allocating-task-set", "overcommit-unbounded", "swappiness-zero", "commit-limit-near")

SWAP = (
    "md5sum /etc/fstab; grep swapfile /etc/fstab; awk '{print $1}' /proc/swaps; "
    "stat -c '%a %n' /swapfile* /.swapfile* 2> /dev/null"
)

pytestmark = pytest.mark.slow


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Guest]:
    """The systemd guest, with the tool."""
    with here_or_skipped():
        saved = states.saved(kernels.DEFAULT, states.SYSTEMD)
    with saved.restore(spare=parcel(tmp_path / "parcel.tar")) as guest:
        assert guest.run("mkdir /opt/reprieve; tar -C /opt/reprieve -xf /dev/vda").status == 0
        yield guest


def told(guest: Guest, command: str, status: int = 0) -> str:
    """What the tool says."""
    ended = guest.run(f"{REPRIEVE} {command} 2>&1", timeout_s=200)
    assert ended.status == status, ended.output
    return ended.output


def flat(said: str) -> str:
    """Without the ends of its lines."""
    return " ".join(said.split())


def value(guest: Guest, name: str) -> str:
    return guest.run(f"sysctl -n {name}").output.strip()


@pytest.mark.parametrize("code", [code for code in BY_SYSCTL if code in PLAYS])
def test_what_a_finding_asks_for_is_applied_and_saves_the_load(code: str, guest: Guest) -> None:
    play = PLAYS[code]
    assert play.load is not None
    assert guest.run(play.speaks, timeout_s=200).status == 0
    asked = told(guest, f"fix --only {code} --dry-run", status=3)
    name, before = re.findall(r"Change +(\S+)  (\S+) → \S+, now", asked)[0]
    assert value(guest, name) == before
    assert "Done      change 1: put, read back and right" in told(guest, f"fix --only {code} --yes --reason tried")
    assert value(guest, name) != before
    ended = guest.run(f"BEFORE=0\n{play.load}", timeout_s=200)
    assert ended.status == 0, ended.output + guest.kernel_log()[-2000:]
    assert "in force" in told(guest, "changes")
    assert f"{name} = " in guest.run(f"cat {FILE}").output
    assert "Undone: change 1" in told(guest, "undo")
    assert value(guest, name) == before
    assert guest.run(f"test -e {FILE}").status != 0
    assert "undone" in told(guest, "changes")


@pytest.mark.parametrize("code", ["swap-absent", "swap-nearly-full"])
def test_a_swap_file_is_made_saves_the_load_and_is_gone_after_undo(code: str, guest: Guest) -> None:
    play = PLAYS[code]
    assert play.load is not None
    assert guest.run(play.speaks, timeout_s=200).status == 0
    before = guest.run(SWAP).output
    told(guest, f"fix --only {code} --yes")
    there = guest.run(SWAP).output
    assert "/swapfile.reprieve none swap sw 0 0" in there
    assert "600 /swapfile.reprieve" in there
    ended = guest.run(f"BEFORE=0\n{play.load}", timeout_s=200)
    assert ended.status == 0, ended.output + guest.kernel_log()[-2000:]
    assert guest.run("pkill -9 hog; pkill -9 -x app; pkill -9 -x late; sleep 1; true").status == 0
    assert guest.run("sed -i 's/ sw 0 0$/ sw,pri=5 0 0/' /etc/fstab").status == 0
    said = flat(told(guest, "undo", status=4))
    assert "is /swapfile.reprieve none swap sw,pri=5 0 0: somebody else has set it since" in said
    assert "to have it as before" not in said  # no command of ours knows their line
    assert "see to it, then again; or `reprieve undo 1 --leave` ends the change" in said
    assert guest.run("sed -i 's/ sw,pri=5 0 0$/ sw 0 0/' /etc/fstab").status == 0
    assert "Undone: change 1" in told(guest, "undo")
    assert guest.run(SWAP).output == before


def test_swap_whose_contents_do_not_fit_into_memory_is_not_taken_away(guest: Guest) -> None:
    told(guest, "fix swap --size 96M --yes")
    assert guest.run(_holding("hog --mib 430 --name app --hold -1"), timeout_s=200).status == 0
    said = told(guest, "undo", status=4)
    assert "do not fit into memory" in said
    there = guest.run(f"cat /proc/swaps; {SWAP}").output
    assert "600 /swapfile.reprieve" in there
    assert "/swapfile.reprieve none swap sw 0 0" in there
    assert guest.run("pkill -9 -x app; sleep 1; true").status == 0
    assert "Undone: change 1" in told(guest, "undo")
    assert "/swapfile.reprieve" not in guest.run(SWAP).output


_UNIT = """
cat > /etc/systemd/system/leaky.service <<'END'
[Service]
ExecStart=/bin/sh -c 'sleep 3; exec $(command -v hog) --mib 900 --name leaky --hold -1'
OOMScoreAdjust=-900
END
systemctl daemon-reload; systemctl start leaky
"""


@pytest.mark.parametrize("limited", [False, True], ids=["without", "limited"])
def test_a_limit_holds_for_who_runs_and_keeps_the_kill_in_the_unit(limited: bool, guest: Guest) -> None:
    innocent = _holding("hog --mib 100 --name innocent --hold -1")
    unit = _UNIT.replace("sleep 3;", "until [ -e /run/go ]; do sleep 0.2; done;")
    assert guest.run(innocent + unit, timeout_s=200).status == 0
    if limited:
        told(guest, "fix limit leaky --max 64M --swap-max 0 --yes")
        held = guest.run("cat /sys/fs/cgroup/system.slice/leaky.service/memory.max").output
        assert held == f"{64 << 20}\n"
    until = (
        "for n in $(seq 100); do systemctl -q is-active leaky && pgrep -x innocent > /dev/null || break; sleep 1; done"
    )
    guest.run(f"touch /run/go; {until}", timeout_s=200)
    assert (guest.run("pgrep -x innocent").status == 0) is limited
    if limited:
        assert guest.run("systemctl show -P Result leaky").output == "oom-kill\n"
        assert "change 1 of reprieve has set it" in flat(told(guest, "why"))
        assert "`reprieve undo 1` puts that back" in flat(told(guest, "why -v"))
        told(guest, "undo")
        assert "of reprieve has set it" not in flat(told(guest, "why"))
        assert guest.run("systemctl show -P MemoryMax leaky").output == "infinity\n"


@pytest.mark.parametrize("protected", [False, True], ids=["without", "protected"])
def test_a_process_that_is_protected_lives_where_it_died(protected: bool, guest: Guest) -> None:
    for name, mib in (("big", 200), ("small", 120)):
        assert guest.run(_holding(f"hog --mib {mib} --name {name} --hold -1"), timeout_s=200).status == 0
    score = "cat /proc/$(pgrep -x big)/oom_score_adj"
    if protected:
        told(guest, "fix protect $(pgrep -x big) --yes")
        assert guest.run(score).output == "-500\n"
        assert "nothing to change" in told(guest, "fix protect $(pgrep -x big) --yes")
    assert guest.run(_holding("hog --mib 180 --name late --adj -500 --hold -1"), timeout_s=200).status == 0
    killed = guest.run("dmesg | grep -c 'Out of memory: Killed'").output
    assert killed != "0\n"
    assert (guest.run("pgrep -x big").status == 0) is protected
    if protected:
        told(guest, "undo")
        assert guest.run(score).output == "0\n"
        told(guest, "fix protect $(pgrep -x big) --adj 300 --yes")
        assert guest.run("pkill -9 -x big; sleep 1; true").status == 0
        assert re.search(r"^process \d+ is no more$", told(guest, "undo"), re.MULTILINE)


_LOAD = "echo $$ > /sys/fs/cgroup/lab/cgroup.procs; exec hog --mib 96 --name load"


def test_a_cgroup_may_hold_more_after_fix_and_as_before_after_undo(guest: Guest) -> None:
    held = "cat /sys/fs/cgroup/lab/memory.max /sys/fs/cgroup/lab/memory.swap.max"
    lab = "mkdir /sys/fs/cgroup/lab && echo 64M > /sys/fs/cgroup/lab/memory.max && " + held
    before = guest.run(f"echo +memory > /sys/fs/cgroup/cgroup.subtree_control; {lab}").output
    assert before == f"{64 << 20}\nmax\n"
    assert guest.run(f"(sh -c '{_LOAD}')", timeout_s=200).status == 137
    assert "/lab memory.max  64 MiB → 128 MiB" in told(guest, "fix limit /lab --max 128M --swap-max 0 --yes")
    assert guest.run(held).output == f"{128 << 20}\n0\n"
    assert "nothing to change" in told(guest, "fix limit /lab --max 128M --swap-max 0 --yes")
    assert guest.run(f"(sh -c '{_LOAD}')", timeout_s=200).status == 0
    assert "Undone: change 1" in told(guest, "undo")
    assert guest.run(held).output == before
    assert guest.run(f"(sh -c '{_LOAD}')", timeout_s=200).status == 137

    stays = _LOAD.replace("--mib 96", "--mib 40 --hold -1")
    assert guest.run(_holding(f"sh -c '{stays}'"), timeout_s=200).status == 0
    assert "ends in a kill at once" in flat(told(guest, "fix limit /lab --max 16M --yes", status=4))
    assert "neither killed nor done" in flat(told(guest, "fix limit /lab --high 16M --yes", status=4))
    said = told(guest, "fix limit /system.slice/systemd-journald.service --max 1G", status=4)
    assert "reprieve fix limit systemd-journald.service" in flat(said)
    assert guest.run("cat /sys/fs/cgroup/lab/memory.high; pgrep -x load > /dev/null").output == "max\n"
    told(guest, "fix limit /lab --max 96M --yes")
    said = flat(told(guest, "fix limit /lab --max max --swap-max max --high max --yes"))
    assert "/lab memory.max 96 MiB → no limit" in said
    assert "memory.high" not in said
    assert guest.run(held).output == "max\nmax\n"
    told(guest, "undo")
    assert guest.run("cat /sys/fs/cgroup/lab/memory.max").output == f"{96 << 20}\n"
    assert guest.run("pkill -9 -x load; sleep 1; rmdir /sys/fs/cgroup/lab").status == 0
    assert guest.run(lab).status == 0
    assert "cgroup /lab is no more" in told(guest, "undo")
    assert guest.run(held).output == before


def test_a_slice_that_is_not_there_is_made_with_its_limit_for_whoever_is_put_into_it(guest: Guest) -> None:
    def within(mib: int) -> int:
        return guest.run(f"systemd-run -q --wait --slice=batch hog --mib {mib} --name app --hold 1").status

    told(guest, "fix limit batch.slice --max 32M --yes")
    assert within(8) == 0
    assert within(60) != 0
    assert "oom_memcg=/batch.slice," in guest.kernel_log()
    told(guest, "undo")
    assert within(60) == 0
    assert guest.run("systemctl show -P DropInPaths batch.slice").output.strip() == ""


def test_what_systemd_sets_at_boot_is_what_was_written(guest: Guest) -> None:
    told(guest, "fix swappiness 11 --persistent --yes")
    assert value(guest, "vm.swappiness") != "11"
    assert guest.run("/lib/systemd/systemd-sysctl").status == 0
    assert value(guest, "vm.swappiness") == "11"


def test_a_file_that_would_win_at_boot_is_named_and_only_what_holds_now_is_changed(guest: Guest) -> None:
    assert guest.run("echo 'vm.swappiness = 30' > /etc/sysctl.d/99-site.conf").status == 0
    said = told(guest, "fix swappiness 11 --yes", status=4)
    assert "/etc/sysctl.d/99-site.conf is read after 60-reprieve.conf and sets vm.swappiness to 30" in " ".join(
        said.split()
    )
    assert value(guest, "vm.swappiness") == "11"
    assert guest.run(f"test -e {FILE}").status != 0


def test_strict_overcommit_is_refused_while_more_is_promised_and_done_with_the_ratio_it_names(guest: Guest) -> None:
    maps = "import mmap, time; m = mmap.mmap(-1, 250 << 20); time.sleep(900)"
    assert guest.run(f"for n in 1 2 3; do python3 -c '{maps}' > /dev/null 2>&1 & done\nsleep 5").status == 0
    said = told(guest, "fix overcommit strict --yes", status=4)
    assert "Refused   vm.overcommit_memory = 2: " in said
    assert value(guest, "vm.overcommit_memory") == "0"
    advised = re.findall(r"reprieve fix overcommit strict --ratio \d+", " ".join(said.split()))[0]
    told(guest, f"{advised.removeprefix('reprieve ')} --yes")
    assert value(guest, "vm.overcommit_memory") == "2"
    assert guest.run("/bin/true").status == 0
    told(guest, "undo")
    assert (value(guest, "vm.overcommit_memory"), value(guest, "vm.overcommit_ratio")) == ("0", "50")


@pytest.mark.parametrize("ends", ["is killed", "waits"])
def test_a_change_nobody_confirms_is_undone_whatever_becomes_of_who_made_it(ends: str, guest: Guest) -> None:
    fix = f"{REPRIEVE} fix swappiness 11 --yes --confirm-within 20"
    if ends == "is killed":
        made = guest.run(
            f"setsid sh -c '{fix}' > /run/fix.out 2>&1 &\n"
            "until grep -q keep /run/fix.out; do sleep 0.2; done; pkill -9 -f 'reprieve [f]ix'; cat /run/fix.out"
        )
    else:
        made = guest.run(f"{fix} < /dev/null")
    assert "reprieve changes --keep 1" in made.output
    assert value(guest, "vm.swappiness") == "11"
    watches = "w=$(pgrep -f 'unless-[k]ept'); cat /proc/$w/oom_score_adj; grep -v ':/$' /proc/$w/cgroup"
    assert guest.run(watches).output.split() == ["-1000"]  # the kernel chooses others, and no group of it is limited
    assert (
        guest.run("for n in $(seq 90); do test $(sysctl -n vm.swappiness) = 11 || exit 0; sleep 1; done; exit 1").status
        == 0
    )
    assert guest.run("sleep 2; true").status == 0
    assert "undone" in told(guest, "changes")


def test_a_change_that_is_confirmed_stays(guest: Guest) -> None:
    told(guest, "fix swappiness 11 --yes --confirm-within 30 < /dev/null")
    assert "not confirmed" in told(guest, "changes")
    assert "Change 1 is kept." in told(guest, "changes --keep 1")
    assert guest.run("sleep 45").status == 0
    assert value(guest, "vm.swappiness") == "11"
    assert "in force\n" in told(guest, "changes")


def test_without_the_right_nothing_is_changed_and_who_has_it_is_told(guest: Guest) -> None:
    as_nobody = "setpriv --reuid 65534 --clear-groups env HOME=/tmp PYTHONPATH=/opt/reprieve COLUMNS=200"
    ended = guest.run(f"cd /; {as_nobody} python3 -m reprieve fix swappiness 11 --yes 2>&1")
    assert ended.status == 4
    assert "run it as root" in ended.output
    assert value(guest, "vm.swappiness") != "11"


def test_of_two_at_once_one_is_refused(guest: Guest) -> None:
    hold = "exec 9>>/var/lib/reprieve/changes.jsonl; flock 9; touch /run/held; sleep 600"
    begun = f"mkdir -p /var/lib/reprieve; sh -c '{hold}' > /dev/null 2>&1 & until [ -e /run/held ]; do sleep 0.1; done"
    assert guest.run(begun).status == 0
    assert "another reprieve is changing this machine" in told(guest, "fix swappiness 11 --yes", status=1)
    assert value(guest, "vm.swappiness") != "11"

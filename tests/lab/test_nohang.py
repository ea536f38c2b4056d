"""nohang of Debian kills in a guest before the kernel must; what it writes then is read, and what it waits for told."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lab import kernels, states
from lab.guest import Guest
from reprieve.oom.ending import read_endings
from tests.lab.conftest import here_or_skipped
from tests.lab.parcel import parcel
from tests.machine.real import missing

pytestmark = pytest.mark.slow

PACKAGE = Path(__file__).parents[2] / ".build" / "nohang" / "nohang.deb"
SET_UP = """
mkdir /opt/reprieve; tar -m -C /opt/reprieve -xf /dev/vda
dpkg -i /opt/reprieve/nohang.deb; systemctl stop nohang nohang-desktop
conf() { sed -i "s/^$1 = .*/$1 = $2/" /etc/nohang/nohang.conf; }
conf soft_threshold_min_mem '25 %'; conf hard_threshold_min_mem '10 %'
"""
_HAS_STARTED = "journalctl -t nohang -t nohang-desktop -b --no-pager | grep -q 'has started'"
STARTED = f"\nfor n in $(seq 60); do {_HAS_STARTED} && break; sleep 0.5; done\n"
GROWS = "hog --mib 3000 --step-mib 1 --pace-ms 15 --name"
TOLD = "echo rc=$?; sleep 2; journalctl -u nohang -b --no-pager"
SILENT = """
hog --mib 330 --name nohang --hold 6
echo rc=$?
systemctl stop weak  # which writes what it kept so far
systemd-run -q --unit=own -p MemoryMax=32M hog --mib 64
while test "$(systemctl show -P ActiveState own)" != failed; do sleep 0.2; done
systemctl show own -p Id,Result,ExecMainCode,ExecMainStatus
echo
nohang --check --config /etc/nohang/nohang.conf 2>&1 | systemd-cat -t nohang
for said in 'Implementing a corrective action:' '  Sending SIGKILL to the victim' 'OK; total response time: 90ms'
do logger -t mallory "$said"; done
sleep 2
journalctl -t nohang -t mallory -b --no-pager
"""
REPRIEVE = "cd /; PYTHONPATH=/opt/reprieve COLUMNS=1000 python3 -m reprieve"


@pytest.fixture
def guest_with(tmp_path: Path) -> Callable[..., Guest]:
    """A guest in which it is installed, with settings of the test's, and does not run yet."""
    if not PACKAGE.exists():
        missing("the package of nohang: make .build/nohang/nohang.deb")
    with here_or_skipped():
        saved = states.saved(kernels.DEFAULT, states.SYSTEMD)

    def set_up(settings: str = "") -> Guest:
        guest = saved.restore(spare=parcel(tmp_path / "parcel.tar", PACKAGE))
        ended = guest.run(f"{{ {SET_UP}{settings}\n}} 2>&1", timeout_s=200)
        assert "Setting up nohang" in ended.output, ended.output
        return guest

    return set_up


def _said(guest: Guest, words: str) -> str:
    return " ".join(guest.run(f"{REPRIEVE} {words}", timeout_s=200).output.split())


def test_what_it_asked_to_end_is_told_with_its_threshold(guest_with: Callable[..., Guest]) -> None:
    with guest_with() as guest:
        guest.run(f"systemctl start nohang{STARTED}", timeout_s=200)
        before = _said(guest, "next")
        assert re.search(r"nohang \(pid \d+\) kills when less than 117 MiB of RAM can be had", before), before
        played = guest.run(f"{GROWS} 'ea] t, name: x'\n{TOLD}", timeout_s=200).output
        assert "rc=143" in played, played
        assert "Out of memory" not in guest.kernel_log()
        [told] = read_endings(played)
        assert (told.manager, told.name, told.signal, told.oom_killed) == ("nohang", "ea] t, name: x", 15, True), played
        assert re.match(
            r"MemAvailable \[\d+ MiB, [\d.]+ %\] <= soft_threshold_min_mem \[117 MiB, 25.0 %\]; "
            r"SwapFree \[0 MiB, 0.0 %\] <= soft_threshold_min_swap \[0 MiB, - %\]; "
            r"Vm, MiB: Size: \d+, RSS: \d+ \(Anon: \d+, File: \d+, Shmem: \d+\), Swap: 0; "
            r"The victim .* in [\d.]+s; MemAvailable: [\d.]+ MiB, SwapFree: 0.0 MiB$",
            told.reason or "",
        ), told.reason
        guest.run("journalctl -u nohang -b --no-pager > /tmp/told; journalctl -u nohang -b -o json > /tmp/told.json")
        claim = f"nohang killed process “ea] t, name: x” (pid {told.pid}, by SIGTERM), before the kernel had to"
        for asked in ("/tmp/told", f"--pid {told.pid} /tmp/told", "/tmp/told.json"):
            said = _said(guest, f"why {asked}")
            assert claim in said, said
            assert "/etc/nohang/nohang.conf" in said
        assert claim in _said(guest, "why --list /tmp/told")
        argv = [sys.executable, "-m", "reprieve", "why", "--json", "-"]  # which the guest has no parts for
        said = subprocess.run(argv, input=played, capture_output=True, text=True, timeout=60).stdout
        finding = json.loads(said.splitlines()[0])["finding"]
        assert (finding["code"], finding["claim"]) == ("killed-by-daemon", claim)


def test_what_it_killed_as_it_did_not_end_is_told_once(guest_with: Callable[..., Guest]) -> None:
    with guest_with("conf separate_log True; conf max_soft_exit_time 1") as guest:
        guest.run(f"systemctl start nohang{STARTED}", timeout_s=200)
        stubborn = f"mkdir -p '/srv/a\nb'; cd '/srv/a\nb'; sh -c \"trap '' TERM; exec {GROWS} stub\""
        played = guest.run(f"{stubborn}\n{TOLD}", timeout_s=200).output
        assert "rc=137" in played, played
        assert "Out of memory" not in guest.kernel_log()
        own = guest.run("cat /var/log/nohang/nohang.log").output
        for text in (played, own):
            assert "Sending SIGTERM to the victim" in text
            [told] = read_endings(text)
            assert (told.name, told.signal, told.finished is not None) == ("stub", 9, True), text
        said = _said(guest, "why /var/log/nohang/nohang.log")
        assert f"nohang killed process stub (pid {told.pid}, by SIGKILL), before the kernel had to" in said, said


def test_where_it_kills_nobody_nothing_is_told(guest_with: Callable[..., Guest]) -> None:
    """It may not; it tells its settings, and what there is of memory; others write and are called as it does and is.

    The kernel kills one meanwhile.
    """
    run = "systemd-run -q --unit=weak -p User=nobody -p SyslogIdentifier=nohang nohang --monitor --config /tmp/n.conf"
    with guest_with("conf print_mem_check_results True; conf min_mem_report_interval 1") as guest:
        guest.run(f"cp /etc/nohang/nohang.conf /tmp/n.conf; {run}{STARTED}", timeout_s=200)
        powerless = _said(guest, "check --only killer-powerless")
        assert re.search(r"nohang \(pid \d+\) is to kill before the kernel must, and may not", powerless), powerless
        assert "lacks the right to kill" in _said(guest, "next")
        played = guest.run(SILENT, timeout_s=200).output
        for words in ("rc=0", "MemAvail: ", "Cannot send a signal: PermissionError", "config is OK", "mallory"):
            assert words in played, played
        assert [(told.manager, told.name) for told in read_endings(played)] == [("systemd", "own.service")]


def test_of_two_killers_the_unit_that_is_to_go_is_named(guest_with: Callable[..., Guest]) -> None:
    swap = "dd if=/dev/zero of=/swap bs=1M count=96 2> /dev/null; chmod 600 /swap; mkswap -q /swap; swapon /swap"
    with guest_with(swap) as guest:
        guest.run("systemctl start earlyoom; sleep 1; hog --mib 1 --name nohang --hold 900 > /dev/null 2>&1 &\nsleep 1")
        assert "Found nothing" in _said(guest, "check --only killers-compete")
        guest.run(f"systemctl start nohang-desktop{STARTED}", timeout_s=200)
        said = _said(guest, "next")
        assert re.search(
            r"nohang \(pid \d+\) kills when less than [\d.]+ MiB of RAM can be had and less than 9.6 MiB of swap are "
            r"free, or as little RAM can be had and tasks wait 40 % of the time for 30 s",
            said,
        ), said
        said = _said(guest, "check --only killers-compete -v")
        advised = "systemctl disable --now nohang-desktop.service"
        assert f"$ {advised} " in said, said
        guest.run(advised)
        assert "Found nothing" in _said(guest, "check --only killers-compete")

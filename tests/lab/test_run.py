"""`reprieve run` where systemd manages the machine and cgroups are of version 2."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab import kernels, states
from lab.guest import Answer, Guest
from tests.lab.conftest import here_or_skipped
from tests.lab.parcel import parcel

pytestmark = pytest.mark.slow

_LOOK = "cd /; export PYTHONPATH=/opt/reprieve COLUMNS=100\n"
_RUN = "python3 -m reprieve run"
_LEFT = (
    "systemctl list-units --all --no-legend 'reprieve*'; find /sys/fs/cgroup -name 'reprieve-run-*'; "
    "pgrep -f '[w]arden.py'"
)
# What Debian's dbus-user-session adds: a bus for each user, which their manager starts.
_BUS_OF_USERS = r"""
mkdir -p /etc/systemd/user/sockets.target.wants
printf '[Socket]\nListenStream=%%t/bus\n[Install]\nWantedBy=sockets.target\n' > /etc/systemd/user/dbus.socket
daemon='/usr/bin/dbus-daemon --session --address=systemd: --nofork --nopidfile --systemd-activation'
printf '[Unit]\nRequires=dbus.socket\n[Service]\nType=notify\nExecStart=%s\n' "$daemon" > /etc/systemd/user/dbus.service
ln -sf ../dbus.socket /etc/systemd/user/sockets.target.wants/dbus.socket
useradd --create-home somebody
systemctl start user@$(id -u somebody)
"""


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """The systemd guest, with the tool: once, as nothing is to stay behind in it."""
    with here_or_skipped():
        saved = states.saved(kernels.DEFAULT, states.SYSTEMD)
    with saved.restore(spare=parcel(tmp_path_factory.mktemp("parcel") / "parcel.tar")) as guest:
        assert guest.run("mkdir /opt/reprieve; tar -C /opt/reprieve -xf /dev/vda").status == 0
        yield guest


@pytest.fixture(autouse=True)
def nothing_stays_behind(guest: Guest) -> Iterator[None]:
    yield
    until = f'for n in $(seq 60); do test -z "$({_LEFT})" && exit 0; sleep 1; done; {_LEFT}; exit 1'
    left = guest.run(until, timeout_s=200)
    assert left.status == 0, left.output


def ran(guest: Guest, script: str) -> Answer:
    return guest.run(f"{_LOOK}{script}", timeout_s=300)


def test_limits_hold_in_a_scope_of_systemd(guest: Guest) -> None:
    shows = "cd /sys/fs/cgroup$(cut -c4- /proc/self/cgroup); pwd; cat memory.max memory.high memory.swap.max; exit 3"
    done = ran(guest, f"{_RUN} --max 64M --high 48M --swap-max 0 -- sh -c '{shows}' 2>&1")
    assert done.status == 3, done.output
    said, folder, *limits = done.output.splitlines()
    assert said == "reprieve: 64 MiB of memory at most, held back above 48 MiB, no swap, in a scope of systemd"
    assert folder.startswith("/sys/fs/cgroup/system.slice/reprieve-run-")
    assert folder.endswith(".scope/command")
    assert limits == [str(64 << 20), str(48 << 20), "0"]


def test_a_kill_in_the_scope_is_explained(guest: Guest) -> None:
    done = ran(guest, f"{_RUN} --max 32M -- hog --mib 100 --name app 2>&1")
    assert done.status == 137, done.output
    assert "Peak      32 MiB of 32 MiB (100 %)" in done.output
    assert "Killed    app (pid " in done.output
    assert "Limit     32 MiB for “a command under reprieve run”; all of it used" in done.output
    assert "$ reprieve run --max 96M -- COMMAND" in done.output


def test_what_was_slowed_and_what_was_cache_is_told(guest: Guest) -> None:
    done = ran(guest, f"{_RUN} -v --max 64M --high 20M -- dd if=/dev/vdb of=/dev/null bs=1M count=60 2>&1")
    assert done.status == 0, done.output
    assert "Slowed    " in done.output
    assert "of it were files it had read or written, which is given back" in done.output


def test_when_reprieve_is_killed_the_scope_goes_with_it(guest: Guest) -> None:
    script = f"""
{_RUN} -q -- sh -c 'setsid sleep 900 & echo $! > /run/child; echo $$ > /run/command; wait' &
until test -s /run/command; do sleep 0.2; done
kill -9 $!
for n in $(seq 60); do
    kill -0 $(cat /run/child) 2> /dev/null || kill -0 $(cat /run/command) 2> /dev/null || exit 0
    sleep 1
done
exit 1
"""
    assert ran(guest, script).status == 0


def test_stopping_the_scope_ends_the_command_and_reprieve(guest: Guest) -> None:
    script = f"""
{_RUN} -q -- sh -c 'echo > /run/began; exec sleep 900' &
until test -e /run/began; do sleep 0.2; done
systemctl stop 'reprieve-run-*.scope'
wait $!
"""
    assert ran(guest, script).status == 143


def test_where_there_is_no_manager_to_ask_the_group_is_our_own(guest: Guest) -> None:
    hidden = "mount -t tmpfs none /run/systemd"
    done = ran(guest, f"unshare -m sh -c '{hidden}; {_RUN} --max 64M cat /proc/self/cgroup' 2>&1")
    assert done.status == 0, done.output
    said, group = done.output.splitlines()
    assert said == "reprieve: 64 MiB of memory at most, in a cgroup of its own"
    assert group.startswith("0::/system.slice/reprieve-run-")


def test_without_rights_and_a_manager_of_ones_own_rlimits_are_what_is_left(guest: Guest) -> None:
    as_nobody = "setpriv --reuid 65534 --regid 65534 --clear-groups env XDG_RUNTIME_DIR="
    done = ran(guest, f"{as_nobody} {_RUN} --max 64M -- sh -c 'ulimit -d' 2>&1")
    assert done.status == 0, done.output
    said, limit = done.output.splitlines()
    assert "no cgroup can be made here (systemd: " in said
    assert "not enforced: --max for all its processes together" in said
    assert limit == str(64 << 10)


def test_a_user_gets_a_scope_of_their_own_manager(guest: Guest) -> None:
    assert guest.run(_BUS_OF_USERS, timeout_s=200).status == 0
    as_user = "setpriv --reuid somebody --regid somebody --init-groups env XDG_RUNTIME_DIR=/run/user/$(id -u somebody)"
    shows = "cd /sys/fs/cgroup$(cut -c4- /proc/self/cgroup); pwd; cat memory.max"
    done = ran(guest, f"{as_user} {_RUN} --max 64M -- sh -c '{shows}' 2>&1")
    assert done.status == 0, done.output
    said, folder, limit = done.output.splitlines()
    assert said == "reprieve: 64 MiB of memory at most, in a scope of systemd"
    assert "/user.slice/user-" in folder
    assert limit == str(64 << 20)

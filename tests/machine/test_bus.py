"""Signals on a real bus."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from jeepney.wrappers import DBusAddress, new_method_call, new_signal

from reprieve.machine.bus import Bus
from tests.machine.real import program

_DBUS = DBusAddress("/org/freedesktop/DBus", "org.freedesktop.DBus", "org.freedesktop.DBus")
_CONFIG = """\
<!DOCTYPE busconfig PUBLIC '-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN'
 'http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd'>
<busconfig><type>session</type><listen>unix:path={path}</listen><policy context='default'>
<allow send_destination='*'/><allow receive_sender='*'/><allow own='*'/></policy></busconfig>
"""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[str]:
    """Where a bus of our own listens."""
    config = tmp_path / "config"
    config.write_text(_CONFIG.format(path=tmp_path / "bus"))
    argv = [program("dbus-daemon"), f"--config-file={config}", "--nofork", "--print-address"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as daemon:
        assert daemon.stdout is not None
        assert daemon.stdout.readline().startswith(b"unix:path=")
        yield str(tmp_path / "bus")
        daemon.terminate()


def test_a_signal_is_heard_and_others_before_it_are_passed_over(place: str) -> None:
    with Bus(place, 20.0) as listener:
        rule = "type='signal',member='NameOwnerChanged'"
        asked = new_method_call(_DBUS, "AddMatch", "s", (rule,))
        assert [answer.error for answer in listener.ask([asked])] == [None]
        with Bus(place, 20.0) as other:
            own = new_method_call(_DBUS, "RequestName", "su", ("org.example.Other", 0))
            assert [answer.error for answer in other.ask([own])] == [None]
        names = [listener.heard("NameOwnerChanged", "org.freedesktop.DBus")[0] for _ in range(2)]
        assert names[0].startswith(":")
        assert names[1] == "org.example.Other"


def test_a_signal_of_somebody_else_is_not_the_one_that_is_waited_for(place: str) -> None:
    with Bus(place, 3.0) as listener, Bus(place, 20.0) as forger:
        asked = new_method_call(_DBUS, "AddMatch", "s", ("type='signal',member='JobRemoved'",))
        assert [answer.error for answer in listener.ask([asked])] == [None]
        forged = new_signal(DBusAddress("/x", None, "org.example.Manager"), "JobRemoved", "u", (1,))
        asked_too = new_method_call(_DBUS, "GetId")  # a signal has no answer: this one comes behind it
        list(forger.ask([asked_too]))
        forger._send(forged.serialise(99))
        list(forger.ask([asked_too]))
        with pytest.raises(TimeoutError):
            listener.heard("JobRemoved", "org.freedesktop.DBus")


def test_a_signal_that_does_not_come_ends_at_the_deadline(place: str) -> None:
    with Bus(place, 1.0) as listener, pytest.raises(TimeoutError):
        listener.heard("JobRemoved", "org.freedesktop.DBus")

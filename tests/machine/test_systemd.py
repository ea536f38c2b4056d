"""What systemd's manager says on the bus: as one of 252 said it, and sockets behind which something else listens."""

import gzip
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jeepney.low_level import calc_msg_size

from reprieve.machine.host import Host
from reprieve.machine.systemd import ask_manager, read_units
from reprieve.machine.unitfiles import UnitFiles
from reprieve.model.finding import Gap
from reprieve.model.unit import Unit
from tests.machine.real import missing, program

CAPTURE = Path(__file__).parents[1] / "captures" / "systemd-252-bus.gz"
OK = b"OK 1234567890123456789012345678901234\r\n"
# In the order in which the manager listed them; those that were asked about when it was recorded.
NAMES = (
    *("dbus.service", "web.service", "earlyoom.service", "-.slice", "stale.service", "system.slice"),
    *("systemd-journald.service", "systemd-udevd.service", "tran.service", "systemd-oomd.service", "good.service"),
)
HINT = "its units are told by their files alone"


def recorded() -> list[bytes]:
    """What the bus sent, message by message."""
    data, messages = gzip.decompress(CAPTURE.read_bytes()), []
    while data:
        size = calc_msg_size(data[:16])
        messages.append(data[:size])
        data = data[size:]
    return messages


class Listener:
    """A bus that says what it is told to: to who asks who it is, and then to each question the next."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.greeting, self.answers, self.hangs = OK, list[bytes](), False
        self.kept: list[socket.socket] = []
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(str(path))
        self.socket.listen()
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def close(self) -> None:
        """Whoever was kept waiting is let go."""
        self.socket.shutdown(socket.SHUT_RDWR)  # accept() does not notice that its socket is closed
        self.thread.join(10)
        for one in (self.socket, *self.kept):
            one.close()

    def _serve(self) -> None:
        while True:
            try:
                asker, _ = self.socket.accept()
            except OSError:
                return
            asker.settimeout(10)
            with suppress(OSError):  # it had enough
                self._talk(asker)
            if self.hangs:
                self.kept.append(asker)
            else:
                asker.close()

    def _talk(self, asker: socket.socket) -> None:
        asked = asker.recv(4096)
        if not self.greeting:
            return
        asker.sendall(self.greeting)
        asked = asker.recv(4096).removeprefix(b"BEGIN\r\n")
        answers = iter(self.answers)
        while True:
            while len(asked) >= 16 and len(asked) >= (size := calc_msg_size(asked[:16])):
                asked = asked[size:]
                answer = next(answers, None)
                if answer is None:
                    return
                asker.sendall(answer)
            if not (more := asker.recv(65536)):
                return
            asked += more

    def ask(self, deadline_s: float = 20.0, root: Path | None = None) -> tuple[dict[str, Unit], list[Gap], bool]:
        units: dict[str, Unit] = {}
        gaps: list[Gap] = []
        files = UnitFiles(Host(str(root or self.path.parent / "none")))
        whole = ask_manager(units, files, set(NAMES), gaps, str(self.path), deadline_s)
        return units, gaps, whole


@pytest.fixture(scope="module")
def bus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listener]:
    listener = Listener(tmp_path_factory.mktemp("bus") / "s")
    yield listener
    listener.close()
    assert not listener.thread.is_alive()


@pytest.fixture(autouse=True)
def _as_usual(bus: Listener) -> None:
    hello, name, *others = recorded()
    bus.greeting, bus.hangs, bus.answers = OK, False, [hello + name, *others]  # a signal comes behind the first


# -- silence -----------------------------------------------------------------------------------------------------------


def test_a_machine_without_systemd_has_no_units_and_is_asked_for_none() -> None:
    if Path("/run/systemd/system").is_dir():
        missing("a machine that systemd has not booted")
    gaps: list[Gap] = []
    assert read_units(Host(), gaps, ["/system.slice/web.service"]) == ()
    assert gaps == []


def test_of_a_captured_machine_without_unit_files_nothing_is_told(tmp_path: Path) -> None:
    gaps: list[Gap] = []
    assert read_units(Host(str(tmp_path)), gaps, ["/system.slice/web.service"]) == ()
    assert gaps == []


# -- what is told instead ----------------------------------------------------------------------------------------------


def test_a_bus_that_is_not_there_is_told(tmp_path: Path) -> None:
    left_behind = tmp_path / "left-behind"
    with socket.socket(socket.AF_UNIX) as once:
        once.bind(str(left_behind))
    for path, reason in ((tmp_path / "absent", "no such file or directory"), (left_behind, "connection refused")):
        gaps: list[Gap] = []
        assert not ask_manager({}, UnitFiles(Host(str(tmp_path))), set(), gaps, str(path), 20.0)
        assert gaps == [Gap(place=str(path), reason=reason, hint=HINT)]


@pytest.mark.parametrize("answered", [0, 1, 5])
def test_a_bus_that_hangs_costs_its_deadline_and_what_came_in_time_stays(bus: Listener, answered: int) -> None:
    bus.answers, bus.hangs = bus.answers[:answered], True
    units, gaps, whole = bus.ask(deadline_s=0.5)
    assert list(units) == list(NAMES[: max(answered - 2, 0)])
    assert gaps == [Gap(place=str(bus.path), reason="no whole answer within 0.5 s", hint=HINT)]
    assert not whole


def test_a_socket_at_which_nobody_waits_costs_its_deadline(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as deaf, socket.socket(socket.AF_UNIX) as first:
        deaf.bind(str(tmp_path / "s"))
        deaf.listen(0)
        first.connect(str(tmp_path / "s"))  # the queue is full: who comes next waits to be let in
        gaps: list[Gap] = []
        assert not ask_manager({}, UnitFiles(Host(str(tmp_path))), set(), gaps, str(tmp_path / "s"), 0.2)
    assert [gap.reason for gap in gaps] in (
        ["no whole answer within 0.2 s"],
        ["resource temporarily unavailable"],
    )


@pytest.mark.parametrize("greeting", [b"REJECTED DBUS_COOKIE_SHA1\r\n", b"SSH-2.0-OpenSSH_9.2p1\r\n", b"", b"x" * 9000])
def test_who_refuses_or_is_no_bus_is_told(bus: Listener, greeting: bytes) -> None:
    bus.greeting = greeting
    units, gaps, whole = bus.ask()
    assert (units, whole) == ({}, False)
    assert [gap.hint for gap in gaps] == [HINT]


def test_a_bus_on_which_no_systemd_is_is_told(tmp_path: Path) -> None:
    config = tmp_path / "bus.conf"
    config.write_text(
        "<!DOCTYPE busconfig PUBLIC '-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN' "
        "'http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd'><busconfig><type>session</type>"
        f"<listen>unix:path={tmp_path}/s</listen><policy context='default'>"
        "<allow send_destination='*'/><allow receive_sender='*'/><allow own='*'/></policy></busconfig>"
    )
    daemon = subprocess.Popen(
        [program("dbus-daemon"), f"--config-file={config}", "--nofork", "--print-address"],
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
    )
    try:
        assert daemon.stdout is not None
        assert daemon.stdout.readline().startswith(b"unix:path=")
        gaps: list[Gap] = []
        assert not ask_manager({}, UnitFiles(Host(str(tmp_path))), set(), gaps, str(tmp_path / "s"), 20.0)
    finally:
        daemon.terminate()
        daemon.communicate(timeout=20)
    assert [gap.reason for gap in gaps] == [
        "its answer is none of systemd's manager: org.freedesktop.DBus.Error.ServiceUnknown"
    ]


@given(data=st.data())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_units_or_told(bus: Listener, data: st.DataObject) -> None:
    hello, name, *others = recorded()
    answers = [hello + name, *others]
    which = data.draw(st.integers(0, 4))
    spoilt = bytearray(answers[which])
    if data.draw(st.booleans()):
        for _ in range(data.draw(st.integers(1, 20))):
            spoilt[data.draw(st.integers(0, len(spoilt) - 1))] = data.draw(st.integers(0, 255))
    else:
        spoilt = bytearray(data.draw(st.binary(max_size=64)))
    bus.answers = [*answers[:which], bytes(spoilt), *answers[which + 1 :]]
    units, gaps, whole = bus.ask(deadline_s=0.05)
    assert whole is not bool(gaps)
    assert all(unit.name == name for name, unit in units.items())


def test_nested_without_end_is_told(bus: Listener) -> None:
    listed = recorded()[2]
    at = listed.index(b"a(ssssssouso)")
    bus.answers[1] = listed[:at] + b"aaaaaaaaaaaaa" + listed[at + 13 :]
    units, gaps, _ = bus.ask()
    assert units == {}
    assert [gap.reason.partition(":")[0] for gap in gaps] == ["its answer is none of systemd's manager"]


# -- what is known -----------------------------------------------------------------------------------------------------


def test_a_unit_is_what_its_manager_holds(bus: Listener) -> None:
    units, gaps, whole = bus.ask()
    assert (gaps, whole, tuple(units)) == ([], True, NAMES)
    good = units["good.service"]
    assert good.main_pid is not None
    assert (good.cgroup, good.active, good.result) == ("/system.slice/good.service", "active", "success")
    assert (good.memory_max_bytes, good.memory_swap_max_bytes, good.memory_low_bytes) == (3 << 30, 0, 0)
    assert isinstance(good.memory_high_bytes, int)
    assert (good.oom_score_adjust, good.oom_policy, good.n_restarts) == (-500, "continue", 0)
    assert (good.managed_oom_memory_pressure, good.managed_oom_memory_pressure_limit_percent) == ("kill", 60.0)
    assert (good.managed_oom_swap, good.managed_oom_preference) == ("auto", "none")
    assert good.fragment_path == "/etc/systemd/system/good.service"
    assert good.drop_in_paths == ("/etc/systemd/system/good.service.d/50-more.conf",)
    assert (good.need_daemon_reload, units["stale.service"].need_daemon_reload) == (False, True)
    web = units["web.service"]
    assert (web.memory_max_bytes, web.oom_score_adjust, web.oom_policy) == ("max", 0, "stop")
    slice_ = units["system.slice"]
    assert (slice_.memory_max_bytes, slice_.oom_score_adjust, slice_.oom_policy) == ("max", None, None)
    assert (slice_.main_pid, slice_.result) == (None, None)


def test_what_its_files_say_is_beside_it(bus: Listener, tmp_path: Path) -> None:
    folder = tmp_path / "etc/systemd/system"
    folder.mkdir(parents=True)
    (folder / "web.service").write_text("[Service]\nMemoryMax=2G # Hard limit\n")
    units, _, _ = bus.ask(root=tmp_path)
    (line,) = units["web.service"].lines
    assert (line.path, line.line, line.value) == ("/etc/systemd/system/web.service", 2, "2G # Hard limit")


def test_a_unit_that_has_gone_meanwhile_is_left_out(bus: Listener) -> None:
    gone = error_message(b"org.freedesktop.DBus.Error.UnknownObject", serial=4)
    bus.answers[3] = gone
    units, gaps, whole = bus.ask()
    assert set(units) == set(NAMES) - {"web.service"}
    assert (gaps, whole) == ([], True)


def error_message(name: bytes, serial: int) -> bytes:
    """An error in answer to that question."""
    from jeepney.low_level import Endianness, Header, HeaderFields, Message, MessageType

    fields = {HeaderFields.error_name: name.decode(), HeaderFields.reply_serial: serial}
    header = Header(Endianness.little, MessageType.error, 0, 1, 0, 9, fields)
    return bytes(Message(header, ()).serialise())


def test_of_a_captured_machine_its_files_alone_are_told(tmp_path: Path) -> None:
    folder = tmp_path / "etc/systemd/system"
    folder.mkdir(parents=True)
    (folder / "web.service").write_text("[Service]\nMemoryMax=2G # Hard limit\n")
    (folder / "quiet.service").write_text("[Service]\nExecStart=true\n")
    gaps: list[Gap] = []
    (unit,) = read_units(Host(str(tmp_path)), gaps, [])
    assert gaps == []
    assert (unit.name, unit.active, unit.memory_max_bytes) == ("web.service", None, None)
    assert [(line.line, line.written_wall_s) for line in unit.lines] == [(2, None)]


def test_names_that_are_no_text_enter_as_text(tmp_path: Path) -> None:
    folder = tmp_path / "etc/systemd/system"
    folder.mkdir(parents=True)
    with open(os.fsencode(folder) + b"/\xff.service", "w") as file:
        file.write("[Service]\nMemoryMax=1G\n")
    (unit,) = read_units(Host(str(tmp_path)), [], [])
    assert unit.name == "\\xff.service"
    assert unit.lines[0].path == "/etc/systemd/system/\\xff.service"


def test_a_bus_that_never_stops_talking_is_left(bus: Listener) -> None:
    of_another = recorded()[3]  # an answer to what was not asked yet
    bus.answers = [bus.answers[0], of_another * (65 * 2**20 // len(of_another))]
    units, gaps, whole = bus.ask(deadline_s=60)
    assert (units, whole) == ({}, False)
    assert [gap.reason for gap in gaps] == ["its answer is none of systemd's manager: it says more than any honest bus"]


def test_what_we_do_between_answers_does_not_count(bus: Listener) -> None:
    from jeepney.wrappers import DBusAddress, new_method_call

    from reprieve.machine.bus import Bus

    question = new_method_call(DBusAddress("/x", "x.y"), "X")
    with Bus(str(bus.path), 1.0) as asked:
        told = []
        for answer in asked.ask([question] * 4):
            time.sleep(0.4)  # together longer than the deadline
            told.append(answer.asked)
    assert told == [0, 1, 2, 3]

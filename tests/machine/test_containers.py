"""What engines call their containers: real engines, and sockets behind which something else listens."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reprieve.codec import unpack
from reprieve.machine.containers import read_containers
from reprieve.model.finding import Gap
from reprieve.model.machine import Container, Machine
from reprieve.oom.groups import owner
from reprieve.rules.whatif import find_cgroups
from tests.conftest import Run
from tests.machine.engines import KINDS, Engine
from tests.machine.engines import engine as engine_here

pytestmark = pytest.mark.alone

ID = "186e75b3c2e14b13a7f3acd23ae4b21b8490d213c8b2473b48a13da772333bb6"
OF_DOCKER = f"/docker/{ID}"
OF_PODMAN = f"/machine.slice/libpod-{ID}.scope"
OK = b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n"


def listed(**other: object) -> bytes:
    return OK + json.dumps([{"Id": ID, "Names": ["/web"], "Image": "nginx:1"} | other]).encode()


class Listener:
    """A socket that answers whoever asks with these bytes, and then closes or keeps silent."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answer, self.closes, self.asked = b"", True, 0
        self.said: list[bytes] = []  # by those who asked
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
            self.asked += 1
            self.said.append(asker.recv(4096))
            with suppress(OSError):  # it had enough
                asker.sendall(self.answer)
            if self.closes:
                asker.close()
            else:
                self.kept.append(asker)

    def read(self, path: str = OF_DOCKER, deadline_s: float = 2.0) -> tuple[tuple[Container, ...], list[Gap]]:
        gaps: list[Gap] = []
        place = {"DOCKER_HOST": f"unix://{self.path}", "CONTAINER_HOST": f"unix://{self.path}"}
        return read_containers([path], gaps, environ=place, deadline_s=deadline_s), gaps


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listener]:
    listener = Listener(tmp_path_factory.mktemp("engine") / "s")
    yield listener
    listener.close()
    assert not listener.thread.is_alive()


@pytest.fixture(autouse=True)
def _as_usual(engine: Listener) -> None:
    engine.answer, engine.closes, engine.asked = listed(), True, 0


# -- silence -----------------------------------------------------------------------------------------------------------


def test_no_engine_is_asked_where_no_cgroup_is_a_container_of_it(engine: Listener) -> None:
    assert engine.read("/system.slice/nginx.service") == ((), [])
    assert engine.read(f"/kubepods/pod1/cri-containerd-{ID}.scope") == ((), [])
    assert engine.asked == 0


def test_an_engine_that_is_not_there_leaves_nothing(tmp_path: Path) -> None:
    left_behind = tmp_path / "left-behind"
    with socket.socket(socket.AF_UNIX) as once:
        once.bind(str(left_behind))
    for path in (tmp_path / "absent", left_behind):
        gaps: list[Gap] = []
        assert read_containers([OF_DOCKER], gaps, environ={"DOCKER_HOST": f"unix://{path}"}) == ()
        assert gaps == []


def test_a_container_that_the_engine_does_not_know_keeps_its_id() -> None:
    known = Container(container_id=64 * "b", manager="docker", name="web")
    assert owner(OF_DOCKER, (known,)).name == "Docker container 186e75b3c2e1"


# -- what is told instead ----------------------------------------------------------------------------------------------


def test_an_engine_that_hangs_costs_its_deadline_and_is_told(engine: Listener) -> None:
    engine.answer, engine.closes = listed()[:40], False
    containers, gaps = engine.read(deadline_s=0.2)
    assert containers == ()
    assert [(gap.place, gap.reason) for gap in gaps] == [(str(engine.path), "no whole answer within 0.2 s")]


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.2p1\r\n",
        b"HTTP/1.0 403 Forbidden\r\n\r\n[]",
        OK,
        OK + b"{}",
        OK + b"[null]",
        OK + b'[{"Id": 7, "Names": []}]',
        OK + b"[" * 100_000,
        OK + b"\xff\xfe",
    ],
    ids=["nothing", "ssh", "forbidden", "no-body", "no-list", "null", "number", "deep", "no-text"],
)
def test_what_is_no_list_of_containers_is_told(engine: Listener, answer: bytes) -> None:
    engine.answer = answer
    containers, gaps = engine.read()
    assert containers == ()
    assert [gap.reason for gap in gaps] == ["its answer is no list of containers"]


@given(
    body=st.binary(max_size=200) | st.recursive(st.none() | st.text(), st.lists).map(lambda x: json.dumps(x).encode())
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_containers_or_told(engine: Listener, body: bytes) -> None:
    engine.answer = OK + body
    containers, gaps = engine.read()
    assert bool(gaps) or containers == ()


# -- what is known -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "manager"), [(OF_DOCKER, "docker"), (OF_PODMAN, "podman")])
def test_a_container_is_known_by_its_name(engine: Listener, path: str, manager: str) -> None:
    containers, gaps = engine.read(path)
    assert gaps == []
    assert containers == (Container(container_id=ID, manager=manager, name="web", image="nginx:1"),)
    assert owner(path, containers).name == f"{manager.title()} container web"


def test_halves_of_a_character_in_a_name_enter_as_text(engine: Listener) -> None:
    engine.answer = listed(Names=["/\ud800"], Image=None)
    (container,), _ = engine.read()
    assert (container.name, container.image) == ("\\ud800", None)


def test_a_cgroup_is_found_by_the_name_of_its_container_and_what_is_below_it_is_not() -> None:
    from reprieve.model.cgroup import Cgroup

    groups = tuple(Cgroup(path=path, version=2) for path in ("/", OF_PODMAN, f"{OF_PODMAN}/container"))
    known = Container(container_id=ID, manager="podman", name="web")
    assert find_cgroups(Machine(cgroups=groups, containers=(known,)), "web") == (OF_PODMAN,)


# -- a real engine -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=KINDS)
def web(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Engine, str]]:
    """An engine of our own, and a container in it that is called web-under-test."""
    with engine_here(request.param, tmp_path_factory.mktemp(request.param)) as engine:
        yield engine, engine.run("web-under-test", Memory=64 << 20)


@pytest.mark.slow
def test_a_real_container_is_told_by_its_name_and_found_by_it(
    reprieve: Run, tmp_path: Path, web: tuple[Engine, str]
) -> None:
    engine, container_id = web
    listens = engine.environment
    named = reprieve("next", "--container", "web-under-test", **listens).stdout
    assert f"of {engine.title} container web-under-test" in named.splitlines()[0]
    assert f"if {engine.title} container web-under-test reached its limit now" in " ".join(named.split())

    absent = dict.fromkeys(listens, f"unix://{tmp_path}/absent")
    by_id = reprieve("next", "--container", container_id[:12], **absent).stdout
    assert f"of {engine.title} container {container_id[:12]}" in by_id.splitlines()[0]

    reprieve("snapshot", "-o", "file", **listens)
    machine = unpack((tmp_path / "file").read_bytes()).machine
    assert machine is not None
    (known,) = (one for one in machine.containers if one.container_id == container_id)
    assert known.name == "web-under-test"
    assert known.image is not None
    assert known.image.endswith("made-up:1")
    again = reprieve("next", "--from", "file", "--container", "web-under-test").stdout
    assert again.splitlines()[0] == named.splitlines()[0]

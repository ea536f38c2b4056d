"""Container engines of our own, without networks, for the tests: real ones, whose containers end with them."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from tests.machine.real import missing, program

KINDS = ("docker", "podman")
BUSYBOX = "/bin/busybox"
WAITS = (BUSYBOX, "sleep", "600")
IMAGE = "made-up:1"


class Engine(NamedTuple):
    """A real engine, which runs what is in busybox."""

    manager: str
    address: str

    @property
    def title(self) -> str:
        return self.manager.title()

    @property
    def environment(self) -> dict[str, str]:
        """Where it listens, for who asks it."""
        return {"DOCKER_HOST" if self.manager == "docker" else "CONTAINER_HOST": self.address}

    def call(self, asked: str, body: object = None) -> Any:
        """What it answers; an answer that is no success fails the test."""
        method, path = asked.split()
        content = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        return json.loads(_call(self.address, method, path, content) or b"null")

    def run(self, name: str, *command: str, **limits: object) -> str:
        """A container, started; its id. `limits` are of HostConfig, `labels` are labels."""
        labels = limits.pop("labels", {})
        ulimits = [{"Name": "nofile", "Soft": 1024, "Hard": 1024}, {"Name": "nproc", "Soft": 1000, "Hard": 1000}]
        told = {"NetworkMode": "none", **limits} | ({"Ulimits": ulimits} if self.manager == "podman" else {})
        wanted = {"Image": IMAGE, "Cmd": command or WAITS, "HostConfig": told, "Labels": labels}
        made: str = self.call(f"POST /containers/create?name={name}", wanted)["Id"]
        self.call(f"POST /containers/{made}/start")
        return made

    def remove(self, name: str) -> None:
        self.call(f"DELETE /containers/{name}?force=1")

    def within(self, name: str, *command: str) -> int:
        """Run a command in a container; its exit status, as a shell in there tells it in a file.

        What Podman 4.3 says of an exec that was killed may be for ever that it runs.
        """
        told = Path(f"/proc/{self.call(f'GET /containers/{name}/json')['State']['Pid']}/root/status")
        told.unlink(missing_ok=True)
        script = f'"$@"; echo $? > /status.new; {BUSYBOX} mv /status.new /status'
        wanted = {"Cmd": [BUSYBOX, "sh", "-c", script, "sh", *command], "AttachStdout": False, "AttachStderr": False}
        number = self.call(f"POST /containers/{name}/exec", wanted)["Id"]
        _call(self.address, "POST", f"/exec/{number}/start", b'{"Detach": true}')
        ends = time.monotonic() + 60
        while not told.exists():
            assert time.monotonic() < ends, f"{command} has not ended"
            time.sleep(0.05)
        return int(told.read_text())

    def wait(self, name: str) -> dict[str, Any]:
        """Its state, once it has ended."""
        ends = time.monotonic() + 60
        while (state := self.call(f"GET /containers/{name}/json")["State"])["Running"]:
            assert time.monotonic() < ends, f"{name} has not ended"
            time.sleep(0.05)
        told: dict[str, Any] = state
        return told


@contextmanager
def engine(manager: str, folder: Path, *options: str) -> Iterator[Engine]:
    """One that listens in a folder, until the block ends. Skips where it is not installed, or cannot run.

    `options` are further ones of dockerd.
    """
    if os.geteuid() != 0:
        missing("root, for a container engine")
    image = folder / "image.tar"
    with tarfile.open(image, mode="w") as packed:
        packed.add(os.path.realpath(program("busybox")), "bin/busybox")
    with _docker(folder, image, options) if manager == "docker" else _podman(folder, image) as started:
        try:
            yield started
        finally:
            for one in started.call("GET /containers/json?all=1"):
                started.remove(one["Id"])


@contextmanager
def _docker(folder: Path, image: Path, options: Sequence[str]) -> Iterator[Engine]:
    address = f"unix://{folder}/s"
    argv = [program("dockerd", "/usr/sbin"), f"--host={address}", f"--data-root={folder}/data"]
    argv += [f"--exec-root={folder}/exec", f"--pidfile={folder}/pid", "--storage-driver=vfs", *options]
    with _listening([*argv, "--bridge=none", "--iptables=false", "--ip6tables=false"], address, folder / "log"):
        _call(address, "POST", "/images/create?fromSrc=-&repo=made-up&tag=1", image.read_bytes())
        yield Engine("docker", address)


@contextmanager
def _podman(folder: Path, image: Path) -> Iterator[Engine]:
    address = f"unix://{folder}/s"
    with tempfile.TemporaryDirectory(prefix="podman-") as run:  # it refuses a path of more than 50 characters there
        podman = [program("podman"), "--root", f"{folder}/data", "--runroot", run]
        podman += ["--cgroup-manager", "cgroupfs", "--storage-driver", "vfs", "--events-backend", "file"]
        taken = subprocess.run([*podman, "import", image, IMAGE], capture_output=True, text=True)
        assert taken.returncode == 0, taken.stderr
        try:
            with _listening([*podman, "system", "service", "--time=0", address], address, folder / "log"):
                yield Engine("podman", address)
        finally:
            _end_monitors(folder)


def _end_monitors(folder: Path) -> None:
    """Those of commands in containers wait for minutes to be asked how it ended."""
    for cmdline in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = cmdline.read_bytes().split(b"\0")
        except OSError:  # it has ended
            continue
        if words[0].endswith(b"/conmon") and any(word.startswith(os.fsencode(folder)) for word in words):
            with suppress(ProcessLookupError):
                os.kill(int(cmdline.parent.name), signal.SIGKILL)


@contextmanager
def _listening(argv: list[str], address: str, log: Path) -> Iterator[None]:
    with open(log, "wb") as file:
        daemon = subprocess.Popen(  # where it works Podman's monitors leave a file that says "oom"
            argv, stdout=file, stderr=file, stdin=subprocess.DEVNULL, cwd=log.parent
        )
    try:
        while daemon.poll() is None:
            try:
                _call(address, "GET", "/_ping")
            except OSError:
                time.sleep(0.1)
            else:
                break
        if daemon.poll() is not None:
            missing(f"a machine where {argv[0]} runs: {log.read_text()[-300:]}")
        yield
    finally:
        daemon.terminate()
        daemon.wait(60)


def _call(address: str, method: str, path: str, body: bytes | None = None) -> bytes:
    with socket.socket(socket.AF_UNIX) as asked:
        asked.settimeout(60)
        asked.connect(address.removeprefix("unix://"))
        connection = http.client.HTTPConnection("engine")
        connection.sock = asked
        connection.request(method, path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        said = answer.read()
    assert answer.status < 400, said
    return said

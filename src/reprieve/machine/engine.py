"""Container engines: Docker's own API, and what Podman speaks on its socket."""

import json
import os
import re
import socket
from collections.abc import Mapping
from time import monotonic
from typing import Any, NamedTuple

from reprieve.machine.source import shown
from reprieve.model.finding import Failure, Gap

SOCKETS = {"docker": "/run/docker.sock", "podman": "/run/podman/podman.sock"}  # by the manager a cgroup's path tells
VARIABLES = {"docker": "DOCKER_HOST", "podman": "CONTAINER_HOST"}  # where the user's own engine listens
TITLES = {"docker": "Docker", "podman": "Podman"}
_START = {"docker": "systemctl start docker", "podman": "systemctl start podman.socket"}
_ANSWER_BYTES = 16 * 1024 * 1024  # a few KiB for each container
_EVENT_BYTES = 256 * 1024  # of one; they have a few KiB, with all labels of a container
_DEADLINE_S = 30.0  # an update waits for the kernel, which may have to take memory back first
# Of what is run in a container (a health check, each few seconds) nothing is heard. "died" is Podman's word.
_HEARD = "%7B%22type%22:%5B%22container%22%5D,%22event%22:%5B%22oom%22,%22kill%22,%22die%22,%22died%22%5D%7D"
# Its options, each with a value or none, come first: `podman run image service` is another thing.
_PODMAN_SERVICE = rb"(?:[^\0]*/)?podman\0(?:-[^\0]*\0(?:[^-\0][^\0]*\0)?)*system\0service\0"
_NAMES = 5  # of containers that are told where one is not there
_NAME_LENGTH = 255


class Answer(NamedTuple):
    """What was answered, in the terms of HTTP."""

    status: int
    body: bytes


def own_socket(address: str) -> str | None:
    """The path of `unix:///run/user/1000/docker.sock`; an engine elsewhere runs no container of this machine."""
    return address.removeprefix("unix://") if address.startswith("unix:///") else None


def ask(path: str, asked: str, deadline_s: float, content: bytes = b"") -> Answer:
    """Ask `GET /containers/json`, or such; raises OSError, or ValueError if the answer is none, or too long."""
    head = f"{asked} HTTP/1.0\r\nHost: engine\r\n"  # HTTP/1.0: the answer ends where the stream does
    if content:
        head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n"
    until = monotonic() + deadline_s
    answer = bytearray()
    with socket.socket(socket.AF_UNIX) as engine:
        engine.settimeout(deadline_s)
        engine.connect(path)
        engine.sendall(f"{head}\r\n".encode() + content)
        while len(answer) <= _ANSWER_BYTES:
            engine.settimeout(max(until - monotonic(), 0.001))  # 0 would not wait at all, and is another error
            block = engine.recv(65536)
            if not block:
                break
            answer += block
    begin, _, body = bytes(answer).partition(b"\r\n\r\n")
    status = re.match(rb"HTTP/1\.[01] (\d{3})[ \r]", begin)
    if status is None or len(answer) > _ANSWER_BYTES:
        raise ValueError(begin[:40])
    return Answer(int(status[1]), body)


class Engine(NamedTuple):
    """One that listens on a socket of this machine."""

    manager: str  # "docker", "podman"
    socket: str

    @property
    def title(self) -> str:
        """What people call it."""
        return TITLES[self.manager]

    def ask(self, asked: str, content: bytes = b"") -> Answer:
        """As above. Raises Failure: it is not there, refuses to talk, or talks nonsense."""
        place = f"{self.title}, at {shown(self.socket)}"
        try:
            return ask(self.socket, asked, _DEADLINE_S, content)
        except (FileNotFoundError, ConnectionRefusedError):
            variable = VARIABLES[self.manager]
            hint = f"{_START[self.manager]}, or say where it listens: {variable}=unix:///run/user/1000/…"
            raise Failure(f"{place}, does not listen", hint=hint) from None
        except PermissionError:
            raise Failure(f"{place}: permission denied", hint="run it as root") from None
        except TimeoutError:
            raise Failure(f"{place}: no whole answer within {_DEADLINE_S:g} s", hint="is it busy, or stuck?") from None
        except OSError as error:
            raise Failure(f"{place}: {error.strerror or error}", hint="run it as root, on the host") from error
        except ValueError as error:
            raise Failure(f"{place}: its answer is none of an engine", hint="which program listens there?") from error

    def inspect(self, name: str) -> dict[str, Any] | None:
        """What it tells of a container, by its name or id; None: there is none. Raises Failure."""
        if re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}", name) is None:
            raise Failure(f"{name!r} is no name of a container", hint="docker:web, podman:web, or an id")
        answer = self.ask(f"GET {self._own}/containers/{name}/json")
        if answer.status == 404:
            return None
        if answer.status >= 300:
            raise self.refusal(answer)
        told = _parsed(answer.body)
        if not isinstance(told, dict) or not isinstance(told.get("Id"), str):
            raise Failure(f"{self.title}, at {shown(self.socket)}: its answer is no container")
        return told

    def find(self, name: str) -> dict[str, Any]:
        """The same. Raises Failure: there is none, with the names that are there."""
        found = self.inspect(name)
        if found is not None:
            return found
        from difflib import get_close_matches

        names = self._names()
        near = get_close_matches(name, names, _NAMES) or names
        more = ", …" if len(near) > _NAMES else ""
        there = f"there is {', '.join(near[:_NAMES])}{more}" if near else "there is none at all"
        raise Failure(f"{self.title} knows no container {name}", hint=there)

    def refusal(self, answer: Answer) -> Failure:
        """What it said, where it would not."""
        told = _parsed(answer.body)
        said = told.get("message") if isinstance(told, dict) else None
        reason = text(said) if isinstance(said, str) else f"status {answer.status}"
        return Failure(f"{self.title} refuses: {reason}", hint="what it logs may tell more")

    @property
    def _own(self) -> str:
        """Podman's own form tells of an end what `podman inspect` does; its copy of Docker's cannot update before 5."""
        return "/v4.0.0/libpod" if self.manager == "podman" else ""

    def update(self, container_id: str, content: bytes) -> Answer:
        """Change its limits. Raises Failure: it does not answer."""
        return self.ask(f"POST {self._own}/containers/{container_id}/update", content)

    def _names(self) -> list[str]:
        listed = _parsed(self.ask("GET /containers/json?all=1").body)
        names = [one.get("Names") for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
        return [text(own[0].removeprefix("/")) for own in names if isinstance(own, list) and own and _is_text(own[0])]


class Ear:
    """What one tells of its containers from now on, as it happens; `descriptor` is None where it has ended.

    Why it cannot be heard, or no longer, is added to `gaps`; the kernel's log hides nothing for it.
    """

    __slots__ = ("_answered", "_gaps", "_place", "_rest", "_said", "_socket", "descriptor", "manager")

    def __init__(self, manager: str, path: str, gaps: list[Gap]) -> None:
        self.manager = manager
        self.descriptor: int | None = None
        self._gaps, self._place = gaps, f"events of {TITLES[manager]}, at {shown(path)}"
        self._answered = False
        self._rest = b""
        self._said: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.setblocking(False)  # one that hangs has taken the question, and says nothing
        try:
            self._socket.connect(path)
            self._socket.sendall(f"GET /events?filters={_HEARD} HTTP/1.0\r\nHost: engine\r\n\r\n".encode())
        except FileNotFoundError:
            self._socket.close()
        except PermissionError:
            self._end("permission denied", "run it as root: kills in containers are told by their names then")
        except OSError as error:
            self._end((error.strerror or str(error)).lower())
        else:
            self.descriptor = self._socket.fileno()

    def hear(self) -> None:
        """Read what has come."""
        try:
            block = self._socket.recv(65536)
        except BlockingIOError:
            return
        except OSError as error:
            self._end((error.strerror or str(error)).lower())
            return
        *lines, self._rest = (self._rest + block).split(b"\n")
        if lines and not self._answered:
            self._answered = re.match(rb"HTTP/1\.[01] 200[ \r]", lines[0]) is not None
            if not self._answered:
                self._end(f"it answers {shown(lines[0][:60].decode(errors='backslashreplace'))}")
                return
        self._said += [line.decode(errors="backslashreplace") for line in lines]
        if not block:
            self._end("it has ended them")
        elif len(self._rest) > _EVENT_BYTES:
            self._end(f"one of them is longer than {_EVENT_BYTES // 1024} KiB")

    def take(self) -> list[str]:
        """The lines since it was asked before."""
        said, self._said = self._said, []
        return said

    def close(self) -> None:
        """Hear no more of it."""
        self._socket.close()
        self.descriptor = None

    def _end(self, reason: str, hint: str | None = None) -> None:
        self.close()
        self._gaps.append(Gap(place=self._place, reason=reason, hint=hint, hides=False))


def listen(gaps: list[Gap], environ: Mapping[str, str] = os.environ) -> list[Ear]:
    """To those engines that run on this machine: where systemd listens for one, to ask would start it."""
    running = _running()
    managers = sorted({manager for manager, _ in running})
    places = [(manager, own_socket(environ.get(VARIABLES[manager], "")) or SOCKETS[manager]) for manager in managers]
    owned = [place for place in places if (owner := _owner(place[1])) is None or (place[0], owner) in running]
    return [ear for ear in (Ear(*place, gaps) for place in owned) if ear.descriptor is not None]


def _owner(path: str) -> int | None:
    """Whose socket it is; None: not to be seen, which an ear tells."""
    try:
        return os.stat(path).st_uid
    except OSError:
        return None


def _running() -> set[tuple[str, int]]:
    """The managers whose daemon is among the processes, and whose process that is."""
    found = set()
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb", buffering=0) as file:
                words, owner = file.read(4096), os.fstat(file.fileno()).st_uid
        except OSError:  # it has ended, or is not to be seen
            continue
        if re.match(rb"(?:[^\0]*/)?dockerd\0", words):
            found.add(("docker", owner))
        elif re.match(_PODMAN_SERVICE, words):
            found.add(("podman", owner))
    return found


def local_engine(manager: str, environ: Mapping[str, str] = os.environ) -> Engine:
    """The one that the user's own commands would ask. Raises Failure: it is elsewhere."""
    variable = VARIABLES[manager]
    address = environ.get(variable, "")
    if address and own_socket(address) is None:
        said = f"{variable} names an engine that is not on this machine: {shown(address)}"
        raise Failure(said, hint=f"run it there, or without {variable}")
    return Engine(manager, own_socket(address) or SOCKETS[manager])


def text(said: str) -> str:
    """JSON can spell halves of a character, which no text may hold."""
    return said[:_NAME_LENGTH].encode(errors="backslashreplace").decode()


def _is_text(told: object) -> bool:
    return isinstance(told, str)


def _parsed(body: bytes) -> Any:
    """None: it is no JSON."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None

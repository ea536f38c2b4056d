"""What container engines call the containers they run: Docker's own API, which Podman speaks too, on its socket."""

import json
import os
import socket
from collections.abc import Iterable, Mapping
from time import monotonic

from reprieve.machine.source import shown
from reprieve.model.finding import Gap
from reprieve.model.machine import Container
from reprieve.oom.paths import workload

_SOCKETS = {"docker": "/run/docker.sock", "podman": "/run/podman/podman.sock"}  # by the manager a cgroup's path tells
_VARIABLES = {"docker": "DOCKER_HOST", "podman": "CONTAINER_HOST"}  # where the user's own engine listens
_ASK = b"GET /containers/json HTTP/1.0\r\nHost: engine\r\n\r\n"  # HTTP/1.0: the answer ends where the stream does
_DEADLINE_S = 2.0
_ANSWER_BYTES = 16 * 1024 * 1024  # a few KiB for each container
_NAME_LENGTH = 255
_HINT = "their containers are told by their ids"


def read_containers(
    paths: Iterable[str], gaps: list[Gap], *, environ: Mapping[str, str] = os.environ, deadline_s: float = _DEADLINE_S
) -> tuple[Container, ...]:
    """The running containers, by their ids, of those engines whose containers are among these paths of cgroups.

    An engine that is not there leaves nothing; one that refuses, hangs or talks nonsense is told, after its deadline.

    Source: https://docs.docker.com/reference/api/engine/version/v1.41/#tag/Container/operation/ContainerList.
    """
    managers = {found.manager for found in map(workload, paths) if found.container_id is not None}
    found: list[Container] = []
    for manager, usual in _SOCKETS.items():
        if manager not in managers:
            continue
        place = _own(environ.get(_VARIABLES[manager], "")) or usual
        try:
            found += _parse(manager, _ask(place, deadline_s))
        except (FileNotFoundError, ConnectionRefusedError):  # no engine listens there: a path alone starts none
            continue
        except PermissionError:
            gaps.append(Gap(place=shown(place), reason="permission denied", hint=_HINT))
        except TimeoutError:
            gaps.append(Gap(place=shown(place), reason=f"no whole answer within {deadline_s:g} s", hint=_HINT))
        except OSError as error:
            gaps.append(Gap(place=shown(place), reason=(error.strerror or str(error)).lower(), hint=_HINT))
        except ValueError:
            gaps.append(Gap(place=shown(place), reason="its answer is no list of containers", hint=_HINT))
    return tuple(found)


def _own(address: str) -> str | None:
    """The path of `unix:///run/user/1000/docker.sock`; an engine elsewhere runs no container of this machine."""
    return address.removeprefix("unix://") if address.startswith("unix:///") else None


def _ask(path: str, deadline_s: float) -> bytes:
    """The body of the answer. Raises OSError; ValueError if it is none, or too long."""
    until = monotonic() + deadline_s
    answer = bytearray()
    with socket.socket(socket.AF_UNIX) as engine:
        engine.settimeout(deadline_s)
        engine.connect(path)
        engine.sendall(_ASK)
        while len(answer) <= _ANSWER_BYTES:
            engine.settimeout(max(until - monotonic(), 0.001))  # 0 would not wait at all, and is another error
            block = engine.recv(65536)
            if not block:
                break
            answer += block
    head, _, body = bytes(answer).partition(b"\r\n\r\n")
    if not head.startswith((b"HTTP/1.0 200 ", b"HTTP/1.1 200 ")) or len(answer) > _ANSWER_BYTES:
        raise ValueError(head[:40])
    return body


def _parse(manager: str, body: bytes) -> list[Container]:
    """The containers of an answer. Raises ValueError if it is no list of them."""
    try:
        listed = json.loads(body)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(listed, list):
        raise ValueError("no list")
    found = []
    for one in listed:
        names = one.get("Names") if isinstance(one, dict) else None
        if not isinstance(names, list) or not isinstance(one.get("Id"), str):
            raise ValueError("no container")
        name = next((name for name in names if isinstance(name, str)), None)
        image = one.get("Image")
        found.append(
            Container(
                manager=manager,
                container_id=_text(one["Id"]),
                name=None if name is None else _text(name.removeprefix("/")),
                image=_text(image) if isinstance(image, str) else None,
            )
        )
    return found


def _text(said: str) -> str:
    """JSON can spell halves of a character, which no text may hold."""
    return said[:_NAME_LENGTH].encode(errors="backslashreplace").decode()

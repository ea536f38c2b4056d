"""What container engines call the containers they run: Docker's own API, which Podman speaks too, on its socket."""

import json
import os
from collections.abc import Iterable, Mapping

from reprieve.machine.engine import SOCKETS, VARIABLES, ask, own_socket, text
from reprieve.machine.source import shown
from reprieve.model.finding import Gap
from reprieve.model.machine import Container
from reprieve.oom.paths import workload

_DEADLINE_S = 2.0
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
    for manager, usual in SOCKETS.items():
        if manager not in managers:
            continue
        place = own_socket(environ.get(VARIABLES[manager], "")) or usual
        try:
            answer = ask(place, "GET /containers/json", deadline_s)
            found += _parse(manager, answer.body if answer.status == 200 else b"")
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
        image, labels = one.get("Image"), one.get("Labels")
        service, project = (
            labels.get(f"com.docker.compose.{key}") if isinstance(labels, dict) else None
            for key in ("service", "project")
        )
        found.append(
            Container(
                manager=manager,
                container_id=text(one["Id"]),
                name=None if name is None else text(name.removeprefix("/")),
                image=text(image) if isinstance(image, str) else None,
                service=text(service) if isinstance(service, str) else None,
                project=text(project) if isinstance(project, str) else None,
            )
        )
    return found

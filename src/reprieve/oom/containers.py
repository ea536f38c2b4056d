"""Events of Docker and Podman, as they come → how containers ended.

Docker tells that memory ran out ("oom") before the end ("die"); Podman of the end alone ("died", "die" on its socket).
Both tell of signals they were asked to send ("kill"): `docker stop` of SIGTERM and, ten seconds later, SIGKILL.
"""

from dataclasses import replace
from typing import Any

from reprieve.model.ending import KILL, OOM, Ending
from reprieve.model.oom import Stamp
from reprieve.oom import fields

_SIGKILL = 9
_AT_ONCE_S = 2.0  # a process is gone that soon, and dates of events are of whole seconds


class Ends:
    """Ends of containers, put together of what is told of each."""

    def __init__(self) -> None:
        self._short: dict[str | None, Ending] = {}  # of memory, and not ended yet
        self._asked: dict[str | None, tuple[int, Stamp | None]] = {}  # who was to get which signal, and when

    def add(self, event: dict[str, Any], line: int, manager: str | None = None) -> Ending | None:
        """The end this event tells, whichever form it has; `manager`: who tells it, where the form does not show."""
        own = "Action" not in event  # as `podman events` prints it, rather than an engine's API
        action = fields.text(event.get("Status" if own else "Action"))
        actor = fields.table(event, "Actor")
        about = fields.table(actor, "Attributes")
        container_id = fields.text(event.get("ID") if own else actor.get("ID"))
        at = fields.moment(event.get("Time")) if own else fields.unix_moment(event.get("time"))
        ending = Ending(
            manager=manager or ("podman" if own else "docker"),
            line=line,
            name=fields.text(event.get("Name") if own else about.get("name")),
            container_id=container_id,
        )
        if action == OOM:
            self._short.setdefault(container_id, replace(ending, reason=OOM, oom_killed=True))
        elif action == KILL:
            self._asked[container_id] = (fields.number(about.get("signal")) or _SIGKILL, at)  # Podman tells none
        elif action in ("die", "died"):
            code = event.get("ContainerExitCode") if own else about.get("exitCode", about.get("containerExitCode"))
            ending = replace(ending, state=action, exit_code=fields.number(code), finished=at)
            signal, when = self._asked.pop(container_id, (None, None))
            if self._short.pop(container_id, None):
                return replace(ending, reason=OOM, oom_killed=True)
            return replace(ending, reason=KILL) if signal == _SIGKILL and _is_at_once(when, at) else ending
        return None

    def left(self) -> list[Ending]:
        """Those that memory ran out in and of whose end nothing was told so far; each is given once."""
        left = list(self._short.values())
        self._short.clear()
        return left


def _is_at_once(asked: Stamp | None, ended: Stamp | None) -> bool:
    if asked is None or ended is None or asked.wall_s is None or ended.wall_s is None:
        return False
    return 0 <= ended.wall_s - asked.wall_s <= _AT_ONCE_S

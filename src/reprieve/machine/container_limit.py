"""The limits of a container, set by the engine that runs it and read back from its cgroup, which is what holds.

What was tried of Docker 20.10 and Podman 4.3 is beside what follows from it. A value is `67108864+33554432`, memory and
swap besides, each `max` where nothing limits it; without a plus where the kernel counts no swap.
"""

import json
import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from reprieve.machine.cgroup import Hierarchy, counts_swap, read_hierarchy
from reprieve.machine.engine import TITLES, Engine, local_engine, text
from reprieve.machine.host import Host
from reprieve.machine.warden import members
from reprieve.model.cgroup import Limit
from reprieve.model.finding import Failure, Place, quote
from reprieve.oom.memory import limit_of
from reprieve.units import MIB, parse_size

_KEY = "memory"
_LEAST_BYTES = 6 * MIB  # linuxMinMemory in Docker's daemon/daemon_unix.go
# Docker takes no limit away: 0 leaves it, -1 is refused, and of MemorySwap -1 changes its book and not the cgroup. So
# they are raised beyond all there can be; as MemorySwap counts both, its part for swap is beyond it too.
_BEYOND_BYTES = 1 << 61
_BOTH_BEYOND_BYTES = (1 << 63) - 4096


class _Limits(NamedTuple):
    memory_bytes: Limit
    swap_bytes: Limit  # None: the kernel counts no swap

    def __str__(self) -> str:
        return f"{self.memory_bytes}" if self.swap_bytes is None else f"{self.memory_bytes}+{self.swap_bytes}"


class Target(NamedTuple):
    """A container that somebody named: the place of its limits, what it is called, and who will forget them."""

    place: Place
    called: str
    cost: str | None


class ContainerLimit:
    """`container:docker/ID/memory`; of an engine that listens elsewhere than usual `container:docker@SOCKET/ID/memory`.

    By its id: one that is made anew under the same name is another, and is not touched.
    """

    lasts = True  # Docker keeps them, Podman since 5.1 (7dc7cbf37fc0); before, the container's next start ends them

    def __init__(self, host: Host) -> None:
        self._host = host

    def get(self, place: Place) -> str | None:
        """What its cgroup holds; while it does not run, with what its engine would start it."""
        engine, container_id = _parts(place)
        return str(self._limits(engine.find(container_id)))

    def put(self, place: Place, want: str | None) -> None:
        """Have the engine set both at once, and see that the cgroup holds them; else they are put back."""
        engine, container_id = _parts(place)
        before = self.get(place)
        if want is None or before is None:
            raise Failure(f"{place} always has a value", hint="max is no limit")
        answer = engine.update(container_id, _request(engine, want))
        found = self.get(place)
        if answer.status < 300 and found == want:
            return
        if answer.status < 300 or found != before:  # its book too: it would come with the next start
            engine.update(container_id, _request(engine, before))
        if answer.status >= 300:
            raise engine.refusal(answer)
        raise Failure(
            f"{engine.title} says that it is done, and the cgroup of {container_id[:12]} holds {found}, not {want}",
            hint=f"does the kernel count swap? {engine.manager} info warns where it does not",
        )

    def canonical(self, place: Place, want: str | None) -> str | None:
        """In whole pages; what is not said of swap stays: `512M`, `512M+0`, `+0`. `max` alone lifts both."""
        engine, container_id = _parts(place)
        if want is None:
            raise Failure("the limits of a container are changed, not taken away", hint="max is no limit")
        now = self._limits(engine.find(container_id))
        memory, plus, swap = want.partition("+")
        wanted = _Limits(_pages(memory) if memory else now.memory_bytes, _pages(swap) if plus else now.swap_bytes)
        if memory == "max" and not plus and wanted.swap_bytes is not None:
            wanted = wanted._replace(swap_bytes="max")
        if plus and now.swap_bytes is None:
            raise Failure("this kernel counts no swap of groups", hint="swapaccount=1 on its command line, and a boot")
        if isinstance(wanted.memory_bytes, str) and isinstance(wanted.swap_bytes, int):
            raise Failure("swap is limited only beside memory", hint="--max says how much memory it may have")
        if engine.manager == "docker" and isinstance(wanted.memory_bytes, int) and wanted.memory_bytes < _LEAST_BYTES:
            raise Failure("Docker takes no limit below 6 MiB", hint="--max 6M or more")
        return str(wanted)

    def obstacle(self, place: Place, want: str | None) -> Failure | None:
        """It does not run, or it is another's, who makes it anew."""
        engine, container_id = _parts(place)
        told = engine.find(container_id)
        labels, called = _labels(told), _name(told)
        if pod := labels.get("io.kubernetes.pod.name"):
            return Failure(f"{called} is of the pod {pod}: a kubelet sets its limits", hint="kubectl set resources")
        if service := labels.get("com.docker.swarm.service.name"):
            hint = f"docker service update --limit-memory … {service}"
            return Failure(f"{called} is a task of the service {service}, which makes it anew", hint=hint)
        if not _pid(told):
            return Failure(
                f"{called} does not run: what it holds is not known", hint=f"{engine.manager} start {called}"
            )
        return None

    def gone(self, place: Place) -> bool:
        """Was it removed?"""
        engine, container_id = _parts(place)
        return engine.inspect(container_id) is None

    def _limits(self, told: dict[str, Any]) -> _Limits:
        hierarchy, pid = read_hierarchy(self._host, []), _pid(told)
        if pid is not None:
            return self._held(hierarchy, pid, told["Id"])
        booked = _booked(told)  # swap too, though its cgroup will have no limit of it where the kernel counts none
        counted = hierarchy is None or counts_swap(self._host, hierarchy) is not False
        return booked if counted else booked._replace(swap_bytes=None)

    def _held(self, hierarchy: Hierarchy | None, pid: int, container_id: str) -> _Limits:
        """What the cgroup of a process of it holds; that it is its own is told by the id in its path."""
        if hierarchy is None:
            raise Failure("no memory controller is mounted", hint="mount -t cgroup2 none /sys/fs/cgroup")
        folders = _folders(self._host, hierarchy, pid, container_id)
        if hierarchy.version == "2":
            memory = [self._limit(f"{folder}/memory.max") for folder in folders]
            swap = [self._swap(f"{folder}/memory.swap.max") for folder in folders]
            return _Limits(_least(memory), None if None in swap else _least(swap))
        limit, both = (
            self._limit(f"{folders[0]}/memory.limit_in_bytes"),
            self._swap(f"{folders[0]}/memory.memsw.limit_in_bytes"),
        )
        if isinstance(both, int) and isinstance(limit, int):
            return _Limits(limit, max(both - limit, 0))
        return _Limits(limit, both)

    def _swap(self, path: str) -> Limit:
        try:
            self._host.read(path)
        except FileNotFoundError:
            return None
        except OSError:  # told below
            pass
        return self._limit(path)

    def _limit(self, path: str) -> Limit:
        said = _text(self._host, path).strip()
        if said == "max":
            return "max"
        if not said.isascii() or not said.isdecimal():
            raise Failure(f"{path} is not what the kernel writes")
        return limit_of(int(said))


def find_container(word: str, environ: Mapping[str, str] = os.environ) -> Target:
    """Whom `docker:web` or `podman:web` names now. Raises Failure: nobody."""
    manager, _, name = word.partition(":")
    engine = local_engine(manager, environ)
    told = engine.find(name)
    usual = engine == local_engine(manager, {})
    of = f"{manager}{'' if usual else f'@{engine.socket}'}/{told['Id']}"
    return Target(Place(kind="container", of=of, key=_KEY), _name(told), _cost(engine, told))


def find_members(word: str, environ: Mapping[str, str] = os.environ) -> tuple[str, list[int]]:
    """What `docker:web` or `podman:web` is called, and who is in it now. Raises Failure: nobody is."""
    engine = local_engine(word.partition(":")[0], environ)
    told = engine.find(word.partition(":")[2])
    called, pid, host = _name(told), _pid(told), Host()
    if pid is None:
        raise Failure(f"{called} does not run: nobody is in it", hint=f"{engine.manager} start {called}")
    hierarchy = read_hierarchy(host, [])
    if hierarchy is None:
        raise Failure("no memory controller is mounted", hint="mount -t cgroup2 none /sys/fs/cgroup")
    return called, members(_folders(host, hierarchy, pid, told["Id"])[0])


def _folders(host: Host, hierarchy: Hierarchy, pid: int, container_id: str) -> list[str]:
    """Of the groups of a container that a process is in. Raises Failure: it is in none."""
    lines = _text(host, f"/proc/{pid}/cgroup")
    paths = _own_groups(lines, container_id, version_2=hierarchy.version == "2")
    return [hierarchy.folder + path.removeprefix(hierarchy.top.rstrip("/")) for path in paths]


def _text(host: Host, path: str) -> str:
    try:
        return host.read(path).decode(errors="backslashreplace")
    except OSError as error:
        raise Failure(
            f"{path}: {(error.strerror or str(error)).lower()}",
            hint="has it ended? Else run it as root, on the host",
        ) from error


def _cost(engine: Engine, told: dict[str, Any]) -> str | None:
    """Who makes it anew, without these limits."""
    labels, settings = _labels(told), told.get("HostConfig")
    said = []
    if engine.manager == "podman":
        said.append("Podman before 5.1 forgets it when the container is started again: give it to podman run too")
    if project := labels.get("com.docker.compose.project"):
        whose = f"{quote(labels.get('com.docker.compose.service', ''))} in {quote(project)}"
        said.append(f"`compose up` makes it anew with what its file says: set mem_limit of {whose} too")
    elif unit := labels.get("PODMAN_SYSTEMD_UNIT"):
        said.append(f"{quote(unit)} makes it anew without it")
    elif isinstance(settings, dict) and settings.get("AutoRemove") is True:
        said.append("it is removed with its end (--rm)")
    return "; ".join(said) or None


def _parts(place: Place) -> tuple[Engine, str]:
    """Raises Failure: it is no such place."""
    head, _, container_id = place.of.rpartition("/")
    manager, at, path = head.partition("@")
    if manager not in TITLES or re.fullmatch("[0-9a-f]{64}", container_id) is None or place.key != _KEY:
        raise Failure(f"{place} is no limit of a container", hint="container:docker/ID/memory is one")
    return (Engine(manager, path) if at else local_engine(manager, {})), container_id


def _own_groups(lines: str, container_id: str, *, version_2: bool) -> list[str]:
    """The group of the container, of the lines of /proc/PID/cgroup, and the one that crun makes in it, whose limits are
    the engine's as well: under systemd the outer one gets memory and swap together as its limit of swap (crun 1.21).

    Raises Failure: it is not in one.
    """
    for line in lines.splitlines():
        _, controllers, path = line.split(":", 2) if line.count(":") >= 2 else ("", "", "")
        if "memory" in controllers.split(",") if not version_2 else line.startswith("0::"):
            parts = path.split("/")
            for count, part in enumerate(parts, 1):
                if container_id in part:
                    ends = [count, count + 1] if parts[count : count + 1] == ["container"] else [count]
                    return ["/".join(parts[:end]) for end in ends]
    raise Failure(f"the cgroup of {container_id[:12]} is not seen from here", hint="run it on the host")


def _least(limits: list[Limit]) -> Limit:
    return min((limit for limit in limits if isinstance(limit, int)), default="max")


def _request(engine: Engine, want: str) -> bytes:
    """What sets both, in the engine's terms: memory, and memory and swap together."""
    memory, plus, swap = want.partition("+")
    if engine.manager == "podman":
        limits = {"limit": -1 if memory == "max" else int(memory)}
        if plus:
            limits["swap"] = -1 if "max" in (memory, swap) else int(memory) + int(swap)
        return json.dumps({"memory": limits}).encode()
    told = {"Memory": _BEYOND_BYTES if memory == "max" else int(memory)}
    if plus:
        told["MemorySwap"] = _BOTH_BEYOND_BYTES if "max" in (memory, swap) else int(memory) + int(swap)
    return json.dumps(told).encode()


def _booked(told: dict[str, Any]) -> _Limits:
    """What its engine would start it with."""
    settings = told.get("HostConfig")
    memory, both = (
        (settings.get(key) for key in ("Memory", "MemorySwap")) if isinstance(settings, dict) else (None, None)
    )
    if not isinstance(memory, int) or not isinstance(both, int):
        raise Failure(f"which limits {_name(told)} has is not told")
    if memory <= 0 or memory >= _BEYOND_BYTES:
        return _Limits("max", "max")
    return _Limits(memory, "max" if both <= 0 or both >= _BEYOND_BYTES else max(both - memory, 0))


def _pages(said: str) -> Limit:
    size = None if said == "max" else parse_size(said)
    if size is None and said != "max":
        raise Failure(f"{said!r} is no size", hint="512M, 2G or max")
    page = os.sysconf("SC_PAGE_SIZE")
    return "max" if size is None else size // page * page


def _pid(told: dict[str, Any]) -> int | None:
    state = told.get("State")
    pid = state.get("Pid") if isinstance(state, dict) else None
    return pid if isinstance(pid, int) and pid > 0 else None


def _name(told: dict[str, Any]) -> str:
    name = told.get("Name")
    return text(name.removeprefix("/") if isinstance(name, str) and name else told["Id"][:12])


def _labels(told: dict[str, Any]) -> dict[str, str]:
    """Anybody may have chosen them."""
    config = told.get("Config")
    labels = config.get("Labels") if isinstance(config, dict) else None
    if not isinstance(labels, dict):
        return {}
    return {key: value for key, value in labels.items() if isinstance(key, str) and isinstance(value, str)}

"""A cgroup path → the workload people know, from the path alone.

Who makes which path:

- Kubernetes: `pod` + UID below `kubepods`, `burstable` or `besteffort` between them unless Guaranteed; with the systemd
  driver each is a slice named after its parents, and `-` in a UID is `_`: pkg/kubelet/cm/pod_container_manager_linux.go
  and cgroup_manager_linux.go. A static pod's UID is 32 digits without dashes.
- Containers: `docker-ID.scope`, `cri-containerd-ID.scope`, `crio-ID.scope`, `libpod-ID.scope` with systemd, else the ID
  below `docker`, a pod, or `libpod_parent` (`libpod-ID`): runc libcontainer/cgroups/systemd, containerd CRI
  `getCgroupsPath`, CRI-O internal/config/cgmgr, Podman libpod/container_internal_common.go. `SLICE:PREFIX:ID` is what
  runc makes of the systemd spelling when it is told to use cgroupfs. The ID is 64 hex digits.
- systemd: units and slices by their suffix, `session-N.scope` and `user-UID.slice` from logind, `\\xNN` escapes:
  systemd.unit(5), systemd-logind(8). Desktop programs: docs/DESKTOP_ENVIRONMENTS.md of systemd.
- Snap: `snap.NAME.APP.service` or `snap.NAME.APP-UUID.scope`: snapd sandbox/cgroup/tracking.go.
- `reprieve run`: `reprieve-run-PID-START-NAMESPACE`, as a scope of systemd or as it is: machine/enclosure.py; pytest's
  tests with a memory_limit: `reprieve-test-…`.
- LXC: `lxc/NAME`, since 4.0 `lxc.payload.NAME` and `lxc.monitor.NAME`: src/lxc/cgroups/cgfsng.c.
"""

import re
from dataclasses import replace
from functools import lru_cache

from reprieve.model.run import COMMAND, TEST, is_own
from reprieve.model.workload import Workload

_ID = r"[0-9a-f]{64}"
_POD = r"pod(?P<uid>[0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32})"
_SNAP = r"snap\.(?P<name>[^.]+)\.(?P<app>[^.]+?)(?:[-.][0-9a-f]{8}-[0-9a-f-]{27})?\.(?:service|scope)"
_QOS = {"burstable": "Burstable", "besteffort": "BestEffort"}
_PREFIXES = {
    "docker": "docker",
    "cri-containerd": "containerd",
    "nerdctl": "containerd",
    "crio": "cri-o",
    "libpod": "podman",
}
_TITLES = {"docker": "Docker", "containerd": "containerd", "cri-o": "CRI-O", "podman": "Podman", "lxc": "LXC"}
_TITLES |= {"systemd-nspawn": "systemd-nspawn"}
_GROUPS = {  # groups that hold everything of one kind: what they are called
    "system.slice": ("systemd", "all system services (system.slice)"),
    "user.slice": ("systemd", "all users (user.slice)"),
    "machine.slice": ("systemd", "all machines and containers (machine.slice)"),
    "docker": ("docker", "all Docker containers (/docker)"),
    "libpod_parent": ("podman", "all Podman containers (/libpod_parent)"),
}
_UNITS = (".service", ".scope", ".socket", ".mount", ".swap")


@lru_cache(maxsize=256)  # what is killed is killed again
def workload(path: str) -> Workload:
    """Name the workload whose cgroup this is; an unknown path is named by itself.

    A path is chosen by whoever may make cgroups: it is no proof of who runs there, and it is untrusted text.

    >>> workload("/system.slice/docker-" + 64 * "a" + ".scope").name
    'Docker container aaaaaaaaaaaa'
    >>> workload("/user.slice/user-1000.slice/session-3.scope").name
    'session 3 of user 1000'
    """
    found = Workload(path=path, kind="root", name="the root cgroup")
    parent = ""
    for part in filter(None, path.split("/")):
        seen = _run(found, part) or _container(found, parent, part) or _kubernetes(found, part) or _systemd(found, part)
        if seen is None and found.kind in ("root", "cgroup", "slice"):
            seen = Workload(path=path, kind="cgroup", name=path, uid=found.uid)
        found = seen or found  # else it is a group that a unit or a container made for its own processes
        parent = part
    return found


def _run(outer: Workload, part: str) -> Workload | None:
    if not part.startswith("reprieve-") or not is_own(part):
        return None
    if part.startswith(TEST):
        return replace(outer, kind="run", manager="pytest", name="a test under its memory_limit", unit=None)
    name = "a command under reprieve run"
    if outer.kind == "run":  # each has a limit: by the pid of its reprieve they are told apart
        name += f" {part.removeprefix(COMMAND).partition('-')[0]}, within another"
    return replace(outer, kind="run", name=name, unit=None)


def _container(outer: Workload, parent: str, part: str) -> Workload | None:
    if len(part) < 64 and "lxc" not in part and "lxc" not in parent:  # an ID alone is longer
        return None
    prefixes = "|".join(_PREFIXES)
    if match := re.fullmatch(rf"(?:(?P<slice>[^:]+):)?(?P<prefix>{prefixes})[-:](?P<id>{_ID})(?:\.scope)?", part):
        if match["slice"]:  # `SLICE:PREFIX:ID`: the pod is named in the same part
            outer = _kubernetes(outer, match["slice"]) or outer
        return _named_container(outer, _PREFIXES[match["prefix"]], match["id"], unit=part)
    if match := re.fullmatch(rf"(?P<prefix>{prefixes})-conmon-(?P<id>{_ID})(?:\.scope)?", part):
        seen = _named_container(outer, _PREFIXES[match["prefix"]], match["id"], unit=part)
        return replace(seen, kind="scope", name=f"the monitor (conmon) of {seen.name}")
    if re.fullmatch(_ID, part):
        if parent == "libpod_parent":
            return replace(outer, kind="pod", name=f"Podman pod {part[:12]}", manager="podman")
        return _named_container(outer, "docker" if parent == "docker" else outer.manager, part)
    if match := re.fullmatch(rf"(?:machine|user)-libpod_pod_(?P<id>{_ID})\.slice", part):
        return replace(outer, kind="pod", name=f"Podman pod {match['id'][:12]}{_of_user(outer)}", manager="podman")
    if match := re.fullmatch(r"lxc\.(?P<part>payload|monitor)\.(?P<name>.+)", part):
        if match["part"] == "monitor":
            return replace(outer, kind="cgroup", name=f"the monitor of LXC container {match['name']}", manager="lxc")
        return _named_container(outer, "lxc", match["name"])
    if parent in ("lxc", "lxc.payload"):
        return _named_container(outer, "lxc", part)
    return None


def _named_container(outer: Workload, manager: str | None, container_id: str, unit: str = "") -> Workload:
    name = container_id[:12] if re.fullmatch(_ID, container_id) else container_id
    title = _TITLES.get(manager or "")
    said = f"{title} container {name}" if title else f"container {name}"
    if outer.pod_uid is not None:
        said = f"container {name} of pod {outer.pod_uid}"
    return replace(
        outer,
        kind="container",
        name=said + _of_user(outer),
        manager=manager,
        container_id=container_id,
        unit=unit if unit.endswith(".scope") else None,
    )


def _kubernetes(outer: Workload, part: str) -> Workload | None:
    if "pod" not in part and part not in _QOS:
        return None
    # kubelet started by kind or with --cgroup-root puts "kubelet" in front of every slice.
    if match := re.fullmatch(rf"(?:[a-z]+-)?kubepods-(?:(?P<qos>burstable|besteffort)-)?{_POD}\.slice", part):
        return _pod(outer, match["uid"], match["qos"])
    if match := re.fullmatch(_POD, part):
        return _pod(outer, match["uid"], next((qos for qos in _QOS if outer.qos == _QOS[qos]), None))
    if match := re.fullmatch(r"(?:[a-z]+-)?kubepods(?:-(?P<qos>burstable|besteffort))?(?:\.slice)?", part):
        return _pods(outer, match["qos"], part)
    if part in _QOS and outer.manager == "kubernetes" and outer.kind == "slice":
        return _pods(outer, part, part)
    return None


def _pods(outer: Workload, qos: str | None, part: str) -> Workload:
    name = f"all {_QOS[qos]} pods" if qos else "all Kubernetes pods"
    unit = part if part.endswith(".slice") else None
    return replace(outer, kind="slice", name=name, manager="kubernetes", qos=_QOS.get(qos or ""), unit=unit)


def _pod(outer: Workload, uid: str, qos: str | None) -> Workload:
    said = _QOS[qos] if qos else "Guaranteed" if outer.manager == "kubernetes" else None
    uid = uid.replace("_", "-")
    return replace(outer, kind="pod", name=f"pod {uid}", manager="kubernetes", pod_uid=uid, qos=said, unit=None)


def _systemd(outer: Workload, part: str) -> Workload | None:
    inside = f" in {outer.name}" if outer.container_id is not None or outer.pod_uid is not None else ""
    if part in _GROUPS and not inside:
        if outer.uid is not None:  # user managers have slices of the same names
            return outer
        manager, name = _GROUPS[part]
        return replace(outer, kind="slice", name=name, manager=manager, unit=part if "." in part else None)
    if inside and part.endswith(".slice"):
        return outer
    if match := re.fullmatch(r"user-(?P<uid>\d{1,10})\.slice", part):
        uid = int(match["uid"])
        return replace(outer, kind="user", name=f"user {uid}", manager="systemd", unit=part, uid=uid)
    if match := re.fullmatch(r"user@(?P<uid>\d{1,10})\.service", part):
        uid = int(match["uid"])
        name = f"the services and programs of user {uid}{inside}"
        return replace(outer, kind="user", name=name, manager="systemd", unit=part, uid=uid)
    if part.endswith(".slice"):
        return replace(outer, kind="slice", name=_unescape(part) + _of_user(outer), manager="systemd", unit=part)
    if part.endswith(_UNITS) and not part.startswith("."):
        return _unit(outer, part, inside or _of_user(outer))
    return None


def _unit(outer: Workload, part: str, where: str) -> Workload:
    unit = replace(outer, kind="scope" if part.endswith(".scope") else "unit", manager="systemd", unit=part)
    if match := re.fullmatch(r"session-(?P<session>c?\d{1,10})\.scope", part):
        return replace(unit, kind="session", name=f"session {match['session']}{where}")
    if part == "init.scope":
        return replace(unit, name=f"the service manager (systemd){where}")
    if match := re.fullmatch(r"systemd-nspawn@(?P<name>.+)\.service", part):
        return replace(_named_container(outer, "systemd-nspawn", _unescape(match["name"])), unit=part)
    if match := re.fullmatch(r"machine-qemu\\x2d\d+\\x2d(?P<name>.+)\.scope", part):  # libvirt: number, then name
        return replace(unit, name=f"virtual machine {_unescape(match['name'])}", manager="libvirt")
    if match := re.fullmatch(r"machine-(?P<name>.+)\.scope", part):
        return replace(unit, name=f"machine {_unescape(match['name'])}")
    if match := re.fullmatch(_SNAP, part):
        app = match["name"] if match["app"] == match["name"] else f"{match['name']}.{match['app']}"
        return replace(unit, name=f"snap {app}{where}", manager="snap")
    if match := re.fullmatch(r"app-(?:[^-]+-)?(?P<id>[^-@]+)(?:-[^-]+\.scope|(?:@[^@]*)?\.service)", part):
        return replace(unit, name=f"{_unescape(match['id'])}{where}")
    return replace(unit, name=f"{part}{where}")


def _of_user(outer: Workload) -> str:
    return "" if outer.uid is None else f" of user {outer.uid}"


def _unescape(text: str) -> str:
    def plain(match: re.Match[str]) -> str:
        return bytes.fromhex(match[0].replace("\\x", "")).decode(errors="backslashreplace")

    return re.sub(r"(?:\\x[0-9a-f]{2})+", plain, text)

"""A transient scope of systemd around a command: asked for on the bus, and below it a group that is ours.

systemd removes a scope as soon as nobody is in it, and with it all that its files tell. So the command gets a group of
its own in the scope, which is delegated to us, and the process that watches over it is in another beside it.

Source: https://systemd.io/CONTROL_GROUP_INTERFACE, https://systemd.io/CGROUP_DELEGATION.
"""

import os

from jeepney.low_level import Message
from jeepney.wrappers import DBusAddress, new_method_call

from reprieve.machine.bus import Bus
from reprieve.machine.enclosure import Enclosure, Hierarchy, read, sweep, write
from reprieve.model.run import TEST, Bounds

_SYSTEMD = "org.freedesktop.systemd1"
_MANAGER = DBusAddress("/org/freedesktop/systemd1", _SYSTEMD, f"{_SYSTEMD}.Manager")
_DBUS = DBusAddress("/org/freedesktop/DBus", "org.freedesktop.DBus", "org.freedesktop.DBus")
_RULE = f"type='signal',sender='{_SYSTEMD}',interface='{_SYSTEMD}.Manager',member='JobRemoved'"
_DEADLINE_S = 10.0
_COMMAND, _TEST = "a command under reprieve run", "a test under its memory_limit"  # as systemctl shows them


def enclose_by_systemd(hierarchy: Hierarchy, name: str, held: int, warden: int, bounds: Bounds) -> Enclosure:
    """A scope around both processes, and in it a group around the command's, with the limits.

    Raises OSError, or ValueError where the manager refuses or the bus talks nonsense.
    """
    with Bus(_bus(), _DEADLINE_S) as bus:
        _start(bus, f"{name}.scope", (held, warden))
    path = read(f"/proc/{held}/cgroup").partition("0::")[2].partition("\n")[0]
    folder = hierarchy.folder(path)
    if folder is None or not path.endswith(f"/{name}.scope"):
        raise ValueError(f"the scope is not where it should be, but at {path}")
    sweep(os.path.dirname(folder))
    for part in ("warden", "command"):
        os.mkdir(f"{folder}/{part}")
    write(f"{folder}/warden/cgroup.procs", str(warden))
    made = Enclosure(hierarchy, f"{folder}/command")
    made.add(held)
    write(f"{folder}/cgroup.subtree_control", "+memory")
    made.limit(bounds)
    return made


def _bus() -> str:
    """That of the system for root, for others their own, whose manager may make scopes for them."""
    if os.geteuid() == 0:
        return "/run/dbus/system_bus_socket"
    return f"{os.environ.get('XDG_RUNTIME_DIR') or f'/run/user/{os.getuid()}'}/bus"


def _start(bus: Bus, name: str, pids: tuple[int, ...]) -> None:
    questions = [new_method_call(_DBUS, "AddMatch", "s", (_RULE,)), _ask(name, pids, policy=True)]
    match, asked = sorted(bus.ask(questions))
    if asked.error is not None:  # a scope has an OOMPolicy since 253, and stops by it when one of it is killed
        (asked,) = bus.ask([_ask(name, pids, policy=False)])
    for answer in (match, asked):
        if answer.error is not None:
            raise ValueError(f"systemd refuses a scope: {answer.error}")
    (job,) = asked.body()
    while True:
        _, of, _, result = bus.heard("JobRemoved", asked.sender)
        if of == job:
            break
    if result != "done":
        raise ValueError(f"systemd could not start the scope: {result}")


def _ask(name: str, pids: tuple[int, ...], *, policy: bool) -> Message:
    properties: list[tuple[str, tuple[str, object]]] = [
        ("Description", ("s", _TEST if name.startswith(TEST) else _COMMAND)),
        ("PIDs", ("au", list(pids))),
        ("Delegate", ("b", True)),
        ("CollectMode", ("s", "inactive-or-failed")),
    ]
    if policy:
        properties.append(("OOMPolicy", ("s", "continue")))
    return new_method_call(_MANAGER, "StartTransientUnit", "ssa(sv)a(sa(sv))", (name, "fail", properties, []))

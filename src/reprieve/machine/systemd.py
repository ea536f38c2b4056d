"""The units of systemd: what the manager of the system holds about their memory, and what their files say."""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from reprieve.machine.host import Host
from reprieve.machine.source import shown
from reprieve.machine.unitfiles import KINDS, UnitFiles
from reprieve.model.cgroup import Limit
from reprieve.model.finding import Failure, Gap
from reprieve.model.unit import Unit
from reprieve.units import utc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jeepney.wrappers import DBusAddress

    from reprieve.machine.bus import Bus

_BUS = "/run/dbus/system_bus_socket"
BOOTED = "/run/systemd/system"  # sd_booted(3)
_DEADLINE_S = 5.0  # of waiting: 160 units take 0.2 s, and far more where memory is short
_RELOAD_S = 60.0  # to read all files again, on a machine that is slow
_MOST = 2000  # units that are asked about, and told
_HINT = "its units are told by their files alone"
_NO_LIMIT = 2**64 - 1
_WANTED = frozenset(
    b"Id ControlGroup ActiveState Result MainPID NRestarts FragmentPath DropInPaths NeedDaemonReload Names "
    b"MemoryMax MemoryHigh MemoryLow MemoryMin MemorySwapMax MemoryLimit OOMScoreAdjust OOMPolicy ManagedOOMSwap "
    b"ManagedOOMMemoryPressure ManagedOOMMemoryPressureLimit ManagedOOMPreference".split()
)
_GONE = ("org.freedesktop.DBus.Error.UnknownObject", "org.freedesktop.systemd1.NoSuchUnit")
_SYSTEMD = "org.freedesktop.systemd1"
_WITHOUT = "what does without it: reprieve why, reprieve run --max SIZE -- COMMAND, reprieve fix protect PID"
_ODD = "its answer is none of systemd's manager"


class NoManager(Failure):
    """There is no systemd on this machine."""


class _Listed(NamedTuple):
    name: str
    path: str  # of its object on the bus


def read_units(
    host: Host,
    gaps: list[Gap],
    paths: Iterable[str],
    *,
    environ: Mapping[str, str] = os.environ,
    deadline_s: float = _DEADLINE_S,
) -> tuple[Unit, ...]:
    """Units that run in one of these cgroups, or whose files say something about memory; by their names.

    `paths` are of cgroups with processes. On this machine those that its manager has loaded; of a captured one, where
    there is no manager to ask, those whose files are in it. A machine without systemd has none.

    Source: https://www.freedesktop.org/software/systemd/man/latest/org.freedesktop.systemd1.html.
    """
    files = UnitFiles(host)
    running = {part for path in paths for part in path.split("/") if part.rpartition(".")[2] in KINDS}
    units: dict[str, Unit] = {}
    if not host.root:
        if not os.path.isdir(BOOTED):
            return ()
        place = _place(environ.get("DBUS_SYSTEM_BUS_ADDRESS", ""))
        whole = ask_manager(units, files, running, gaps, place, deadline_s)
    if host.root or not whole:
        for name in (files.names(gaps) | running) - units.keys():
            if lines := files.lines((name,), gaps):
                units[shown(name)] = Unit(name=shown(name), lines=lines)
    if len(units) > _MOST:
        gaps.append(Gap(place="systemd", reason=f"of its {len(units)} units {_MOST} are told"))
    return tuple(units[name] for name in sorted(units)[:_MOST])


def _place(address: str) -> str:
    """The path of `unix:path=/run/dbus/system_bus_socket`; a bus elsewhere is none of this machine."""
    first = address.partition(";")[0].partition(",")[0]
    return first.removeprefix("unix:path=") if first.startswith("unix:path=/") else _BUS


def ask_manager(
    units: dict[str, Unit], files: UnitFiles, running: set[str], gaps: list[Gap], place: str, deadline_s: float
) -> bool:
    """Add what the manager on the bus at `place` tells until the deadline; was that all?

    A bus that is not there, refuses, hangs or talks nonsense becomes a gap.
    """
    from reprieve.machine.bus import Bus  # loads what speaks D-Bus, where there is a manager to ask

    try:
        with Bus(place, deadline_s) as bus:
            wanted = [one for one in _list(bus) if one.name in running or files.lines((one.name,), gaps)]
            if len(wanted) > _MOST:
                gaps.append(Gap(place="systemd", reason=f"of its {len(wanted)} units {_MOST} are told"))
            for unit in _describe(bus, wanted[:_MOST], files, gaps):
                units[unit.name] = unit
    except TimeoutError:
        reason = f"no whole answer within {deadline_s:g} s"
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
    except ValueError as error:
        reason = f"{_ODD}: {error}"
    else:
        return True
    gaps.append(Gap(place=shown(place), reason=reason, hint=_HINT))
    return False


def ask_unit(host: Host, name: str) -> Unit | None:
    """What the manager of this machine holds of one unit, which it loads if it has to; None: there is no such unit.

    Raises Failure: there is no manager, or it does not answer.
    """
    told = _load(name, _WANTED)
    return None if told is None else _unit(str(told.get("Id", name)), told, UnitFiles(host), [])


def _load(name: str, wanted: frozenset[bytes]) -> dict[str, object] | None:
    """What of a unit is wanted, loaded if it has to be; None: there is none. Raises Failure."""
    from jeepney.wrappers import DBusAddress, new_method_call

    with _talking() as bus:
        (answer,) = bus.ask([new_method_call(_manager(), "LoadUnit", "s", (name,))])
        if answer.error is not None:
            raise ValueError(answer.error)
        properties = DBusAddress(str(answer.body()[0]), _SYSTEMD, "org.freedesktop.DBus.Properties")
        (answer,) = bus.ask([new_method_call(properties, "GetAll", "s", ("",))])
        if answer.error is not None:
            raise ValueError(answer.error)
        told = answer.properties(wanted | {b"LoadState"})
    return told if told.get("LoadState") == "loaded" else None


def known_as(name: str) -> str:
    """What a unit is called, of which this may be another name. Raises Failure: there is no such unit."""
    told = _load(name, frozenset((b"Id",)))
    if told is None:
        raise Failure(f"systemd knows no {name}", hint="systemctl list-units names them")
    return str(told.get("Id", name))


def show_unit(name: str) -> str:
    """What `systemctl show` prints of how a unit is and how it ended. Raises Failure: there is no such unit."""
    told = _load(name, frozenset(key.encode() for key in (*_SHOWN, *_SHOWN_MOMENTS)))
    if told is None:
        raise Failure(f"systemd knows no {name}", hint="systemctl list-units names them")
    limits = ("MemoryMax", "MemoryLimit")
    lines = [
        f"{key}={'infinity' if key in limits and told[key] == _NO_LIMIT else told[key]}"
        for key in _SHOWN
        if key in told
    ]
    moments = [(key, told.get(key)) for key in _SHOWN_MOMENTS]
    lines += [f"{key}={utc(since / 1e6)}" for key, since in moments if isinstance(since, int) and since]
    return "\n".join(lines) + "\n"


_SHOWN = ("Id", "ActiveState", "Result", "ExecMainCode", "ExecMainStatus", "MemoryMax", "MemoryLimit", "NRestarts")
_SHOWN_MOMENTS = ("ExecMainStartTimestamp", "ExecMainExitTimestamp")


def reload_units() -> None:
    """Have the manager read all unit files again, as `systemctl daemon-reload` does. Raises Failure."""
    from jeepney.wrappers import new_method_call

    with _talking() as bus:
        (answer,) = bus.ask([new_method_call(_manager(), "Reload")])
        if answer.error is not None:
            raise ValueError(answer.error)


def stop_unit(name: str) -> None:
    """Have the manager stop a unit, if it has it loaded. Raises Failure."""
    from jeepney.wrappers import new_method_call

    with _talking() as bus:
        (answer,) = bus.ask([new_method_call(_manager(), "StopUnit", "ss", (name, "replace"))])
        if answer.error not in (None, *_GONE):
            raise ValueError(answer.error)


@contextmanager
def _talking() -> Iterator["Bus"]:
    """The bus, with time to read all files again; what goes wrong on it is a Failure."""
    from reprieve.machine.bus import Bus

    if not os.path.isdir(BOOTED):
        raise NoManager("systemd does not run here", hint=_WITHOUT)
    place = _place(os.environ.get("DBUS_SYSTEM_BUS_ADDRESS", ""))
    try:
        with Bus(place, _RELOAD_S) as bus:
            yield bus
    except TimeoutError:
        raise Failure(
            f"systemd gave no answer within {_RELOAD_S:g} s", hint="systemctl status shows if it is busy"
        ) from None
    except OSError as error:
        raise Failure(f"{shown(place)}: {error.strerror or error}", hint="run it as root, on the host") from error
    except ValueError as error:
        raise Failure(f"systemd refuses: {error}", hint="run it as root") from error


def _manager() -> "DBusAddress":
    from jeepney.wrappers import DBusAddress

    return DBusAddress("/org/freedesktop/systemd1", _SYSTEMD, f"{_SYSTEMD}.Manager")


def _list(bus: "Bus") -> list[_Listed]:
    """The units that have a cgroup, or could. Raises what `Bus` raises."""
    from jeepney.wrappers import new_method_call

    (answer,) = bus.ask([new_method_call(_manager(), "ListUnits")])
    if answer.error is not None:
        raise ValueError(answer.error)
    listed = answer.body()
    if answer.signature != "a(ssssssouso)":
        raise ValueError("no list of units")
    return [
        _Listed(name, path)
        for name, _, loaded, _, _, _, path, *_ in listed[0]
        if name.rpartition(".")[2] in KINDS and loaded == "loaded"
    ]


def _describe(bus: "Bus", listed: list[_Listed], files: UnitFiles, gaps: list[Gap]) -> Iterator[Unit]:
    """What the manager holds of each, as it answers; those that have gone meanwhile are left out."""
    from jeepney.wrappers import DBusAddress, new_method_call

    addresses = [DBusAddress(one.path, _SYSTEMD, "org.freedesktop.DBus.Properties") for one in listed]
    # The name of no interface is all of them: sd-bus, and so systemctl(1), means it that way.
    for answer in bus.ask([new_method_call(address, "GetAll", "s", ("",)) for address in addresses]):
        if answer.error in _GONE:
            continue
        if answer.error is not None:
            raise ValueError(answer.error)
        yield _unit(listed[answer.asked].name, answer.properties(_WANTED), files, gaps)


def _unit(name: str, told: dict[str, object], files: UnitFiles, gaps: list[Gap]) -> Unit:
    def text(key: str) -> str | None:
        value = told.get(key)
        return value if isinstance(value, str) and value else None

    def number(key: str) -> int | None:
        value = told.get(key)
        return value if isinstance(value, int) else None

    def limit(key: str) -> Limit:
        value = number(key)
        return "max" if value == _NO_LIMIT else value

    def texts(key: str) -> tuple[str, ...]:
        value = told.get(key)
        return tuple(one for one in value if isinstance(one, str)) if isinstance(value, list) else ()

    share, stale, fragment = number("ManagedOOMMemoryPressureLimit"), told.get("NeedDaemonReload"), text("FragmentPath")
    names = (name, *(other for other in texts("Names") if other != name))
    return Unit(
        name=name,
        cgroup=text("ControlGroup"),
        active=text("ActiveState"),
        result=text("Result"),
        main_pid=number("MainPID") or None,
        n_restarts=number("NRestarts"),
        memory_max_bytes=limit("MemoryMax"),
        memory_high_bytes=limit("MemoryHigh"),
        memory_low_bytes=limit("MemoryLow"),
        memory_min_bytes=limit("MemoryMin"),
        memory_swap_max_bytes=limit("MemorySwapMax"),
        memory_limit_bytes=limit("MemoryLimit"),
        oom_score_adjust=number("OOMScoreAdjust"),
        oom_policy=text("OOMPolicy"),
        managed_oom_swap=text("ManagedOOMSwap"),
        managed_oom_memory_pressure=text("ManagedOOMMemoryPressure"),
        managed_oom_memory_pressure_limit_percent=None if share is None else round(share / (2**32 - 1) * 100, 2),
        managed_oom_preference=text("ManagedOOMPreference"),
        need_daemon_reload=stale if isinstance(stale, bool) else None,
        fragment_path=fragment,
        drop_in_paths=texts("DropInPaths"),
        lines=files.lines(names, gaps, fragment),
    )

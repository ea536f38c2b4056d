"""Settings of a unit of systemd, in a drop-in of ours; never by set-property, which leaves files of others behind."""

import errno
import os
import re
from typing import NamedTuple

from reprieve.machine.host import Host
from reprieve.machine.source import shown
from reprieve.machine.systemd import NoManager, ask_unit, reload_units
from reprieve.machine.unitfiles import UnitFiles
from reprieve.machine.writer import failure_of, make_folder, may_replace, may_write, remove_file, replace_file
from reprieve.model.finding import Failure, Gap, Place
from reprieve.model.unit import Unit
from reprieve.units import parse_size

_NAME = r"[A-Za-z0-9:_.\\@-]{1,250}\.(service|slice|scope|socket|mount|swap)"
_FOLDER = "/etc/systemd/system"
_OURS = "90-reprieve.conf"
_HEAD = "# Written by reprieve. `reprieve changes` tells when and why, `reprieve undo` takes it back."
_TRANSIENT = "/run/systemd/transient/"
_INFINITY = "infinity"
_SIZES = {  # settings that are sizes, and where the manager's own value of them is
    "MemoryMax": "memory_max_bytes",
    "MemoryHigh": "memory_high_bytes",
    "MemoryLow": "memory_low_bytes",
    "MemoryMin": "memory_min_bytes",
    "MemorySwapMax": "memory_swap_max_bytes",
}


class _Words(NamedTuple):
    field: str
    allowed: tuple[str, ...]


_WORDS = {
    "OOMPolicy": _Words("oom_policy", ("continue", "stop", "kill")),
    "ManagedOOMSwap": _Words("managed_oom_swap", ("auto", "kill")),
    "ManagedOOMMemoryPressure": _Words("managed_oom_memory_pressure", ("auto", "kill")),
    "ManagedOOMPreference": _Words("managed_oom_preference", ("none", "avoid", "omit")),
}
_ADJUST = "OOMScoreAdjust"


class UnitSetting:
    """`unit:nginx.service/MemoryMax`: in nginx.service.d/90-reprieve.conf, taken over by the manager at once."""

    lasts = True

    def __init__(self, host: Host) -> None:
        self._host = host

    def get(self, place: Place) -> str | None:
        """What our drop-in says; None: nothing."""
        _check(place)
        return self._settings(place).get(place.key)

    def put(self, place: Place, want: str | None) -> None:
        """Switch the file in, have it read, and see that the manager holds it. Without a line there is no file."""
        _check(place)
        settings = self._settings(place)
        if want is None:
            settings.pop(place.key, None)
        else:
            settings[place.key] = want
        path = self._path(place)
        folder = os.path.dirname(path)
        if settings:
            try:
                make_folder(folder)
            except OSError as error:
                raise Failure(f"{shown(folder)}: {error.strerror}", hint="run it as root") from error
            lines = [_HEAD, f"[{place.of.rpartition('.')[2].capitalize()}]", *map("=".join, settings.items()), ""]
            replace_file(path, "\n".join(lines).encode())
        elif os.path.isdir(folder):
            remove_file(path)
            try:
                os.rmdir(folder)
            except OSError as error:
                # Others' files are in it, or it is a mount, or a link to a folder.
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY, errno.ENOTDIR):
                    raise failure_of(folder, error) from error
        reload_units()
        if want is not None and (held := _held(ask_unit(self._host, place.of), place.key)) != want:
            raise Failure(f"systemd holds {place.key}={held} of {place.of}, not {want}", hint="systemctl cat shows why")

    def canonical(self, place: Place, want: str | None) -> str | None:
        """Sizes in bytes, in whole pages as the kernel keeps them."""
        _check(place)
        if want is None:
            return None
        if place.key in _SIZES:
            size = None if want == _INFINITY else parse_size(want)
            if size is None and want != _INFINITY:
                raise Failure(f"{want!r} is no size", hint="512M, 2G or infinity")
            if size is None:
                return self._without(place)
            page = os.sysconf("SC_PAGE_SIZE")
            return str(size // page * page)
        if place.key == _ADJUST:
            if re.fullmatch(r"-?[0-9]{1,4}", want) is None or not -1000 <= int(want) <= 1000:
                raise Failure(f"{want!r} is no oom_score_adj", hint="it goes from -1000 to 1000")
            return str(int(want))
        if want not in (allowed := _WORDS[place.key].allowed):
            raise Failure(f"{want!r} is no {place.key}", hint=f"there are {', '.join(allowed)}")
        return want

    def obstacle(self, place: Place, want: str | None) -> Failure | None:
        """No such unit; one that somebody else makes anew; a line that is read later; no right."""
        _check(place)
        try:
            unit = ask_unit(self._host, place.of)
        except NoManager as failure:
            return Failure(failure.message, hint=_instead(place) or failure.hint)
        if unit is None:
            hints = ("systemctl list-units names them", _instead(place))
            return Failure(f"systemd knows no {place.of}", hint="; ".join(filter(None, hints)))
        if unit.name != place.of:
            return Failure(f"{place.of} is another name of {unit.name}", hint=f"say {unit.name}")
        if (unit.fragment_path or "").startswith(_TRANSIENT):
            return Failure(
                f"{place.of} is made by who starts it, and gone with its end", hint="give the limit to who starts it"
            )
        gaps: list[Gap] = []
        lines = UnitFiles(self._host).lines((place.of,), gaps, unit.fragment_path)
        for line in lines:
            name = os.path.basename(line.path)
            if line.key == place.key and line.path != unit.fragment_path and name > _OURS and line.value != want:
                return Failure(
                    f"{line.path}, line {line.line}, is read after ours: {line.text}", hint="change it there"
                )
        path = self._path(place)
        is_there = os.path.isdir(os.path.dirname(path))
        return may_replace(path) if is_there else may_write(self._host.root + _FOLDER)

    def _without(self, place: Place) -> str | None:
        """What lifts a limit: a line that says so; none where there is neither one of ours nor another's."""
        if self.get(place) is not None:
            return _INFINITY
        try:
            unit = ask_unit(self._host, place.of)
        except NoManager as failure:
            raise Failure(failure.message, hint=_instead(place)) from failure
        return None if _held(unit, place.key) == _INFINITY else _INFINITY

    def _path(self, place: Place) -> str:
        return f"{self._host.root}{_FOLDER}/{place.of}.d/{_OURS}"

    def _settings(self, place: Place) -> dict[str, str]:
        """What our drop-in says, in its order. Raises Failure: somebody else has written in it."""
        path = self._path(place)
        try:
            with open(path, encoding="utf-8") as file:
                lines = [line.strip() for line in file.read(65536).splitlines()]
        except FileNotFoundError:
            return {}
        except (OSError, UnicodeDecodeError) as error:
            raise Failure(f"{shown(path)}: {error}", hint="move it away") from error
        settings = dict[str, str]()
        for line in lines:
            key, equals, value = line.partition("=")
            if equals and key in (*_SIZES, *_WORDS, _ADJUST):
                settings[key] = value
            elif line and line != _HEAD and not line.startswith("["):
                raise Failure(f"{shown(path)} holds what is not ours: {line!r}", hint="move that to a file of its own")
        return settings


def _check(place: Place) -> None:
    """Raises Failure: a name that is none leads nowhere."""
    if re.fullmatch(_NAME, place.of) is None:
        raise Failure(f"{place.of!r} is no unit", hint="nginx.service is one")
    if place.key not in (*_SIZES, *_WORDS, _ADJUST):
        raise Failure(
            f"{place.key!r} is no setting of memory", hint=f"there are {', '.join((*_SIZES, *_WORDS, _ADJUST))}"
        )


def _instead(place: Place) -> str | None:
    """What does it without the unit; None: nothing. Who named it may have meant a process, by its name or pid."""
    if place.key == _ADJUST:
        return f"{place.of} would be a unit; a process is named by its pid: reprieve fix protect PID"
    if place.key not in _SIZES:
        return None
    word = place.of.removesuffix(".service")
    taken = f"{word} was taken for a unit, and no process has a limit by its pid; " if word.isdecimal() else ""
    return f"{taken}reprieve run --max SIZE -- COMMAND limits a command, reprieve fix limit /CGROUP a cgroup"


def _held(unit: Unit | None, key: str) -> str | None:
    """The manager's own value, as `canonical` spells it."""
    if unit is None:
        return None
    if key == _ADJUST:
        return None if unit.oom_score_adjust is None else str(unit.oom_score_adjust)
    told = getattr(unit, _SIZES[key] if key in _SIZES else _WORDS[key].field)
    return None if told is None else _INFINITY if told == "max" else str(told)

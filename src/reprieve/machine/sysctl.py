"""Settings of the kernel: as they are, in /proc/sys, and as they will be after a boot, in a file of ours."""

import os
import re

from reprieve.machine.host import Host
from reprieve.machine.source import shown
from reprieve.machine.writer import before_an_open_end, may_replace, may_write, remove_file, replace_file, write_setting
from reprieve.model.finding import Failure, Place

_NAME = r"(?:vm|kernel)\.[a-z0-9_]+"
_FOLDERS = ("/etc/sysctl.d", "/run/sysctl.d", "/usr/local/lib/sysctl.d", "/usr/lib/sysctl.d", "/lib/sysctl.d")
_LAST = "/etc/sysctl.conf"  # procps reads it last; systemd where a link in sysctl.d leads there
_OURS = "60-reprieve.conf"
_RATIO, _KBYTES = "vm.overcommit_ratio", "vm.overcommit_kbytes"
_HEAD = "# Written by reprieve. `reprieve changes` tells when and why, `reprieve undo` takes it back.\n"


class Sysctl:
    """`sysctl:/vm.swappiness`: the value that holds now. It goes with the boot."""

    lasts = False

    def __init__(self, host: Host) -> None:
        self._host = host

    def get(self, place: Place) -> str | None:
        """As the kernel writes it."""
        try:
            return _canonical(self._host.read(_file(place)).decode(errors="backslashreplace"))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Failure(f"{_file(place)}: {error.strerror}", hint="run it as root") from error

    def put(self, place: Place, want: str | None) -> None:
        """One write; there is no setting without a value."""
        if want is None:
            raise Failure(f"{place} cannot be absent", hint="the kernel always has a value")
        write_setting(self._host.root + _file(place), want)

    def canonical(self, place: Place, want: str | None) -> str | None:
        """One blank between numbers, no signs that the kernel leaves out."""
        return None if want is None else _canonical(want)

    def obstacle(self, place: Place, want: str | None) -> Failure | None:
        """No such setting in this kernel, or no right to it."""
        if self.get(place) is None:
            return Failure(f"this kernel has no {place.key}")
        if place.key == _RATIO and (fixed := self.get(Place(kind=place.kind, key=_KBYTES))) not in (None, "0"):
            # overcommit_ratio_handler() in mm/util.c sets the other to 0: what it was would be lost, for undo too.
            return Failure(f"{_KBYTES} is {fixed}, and to write the ratio would set it to 0", hint=f"change {_KBYTES}")
        return may_write(self._host.root + _file(place))


class SysctlFile:
    """`sysctl.d:/vm.swappiness`: its line in /etc/sysctl.d/60-reprieve.conf, which holds from the next boot on."""

    lasts = True

    def __init__(self, host: Host) -> None:
        self._host = host

    @property
    def path(self) -> str:
        """Our file."""
        return f"{self._host.root}{_FOLDERS[0]}/{_OURS}"

    def get(self, place: Place) -> str | None:
        """What our file says; None: nothing."""
        name = _key(place)
        found = [value for key, value in map(_setting, self._lines()) if key == name]
        return _canonical(found[-1]) if found else None

    def put(self, place: Place, want: str | None) -> None:
        """The file with this line otherwise and all others as they were; without any, no file."""
        name, lines = _key(place), self._lines()
        at = [number for number, line in enumerate(lines) if _setting(line)[0] == name]
        if want is not None:
            if at:
                lines[at[-1]] = _set_to(lines[at[-1]], want)
            else:
                lines = lines or [_HEAD]
                lines.insert(before_an_open_end(lines), f"{place.key} = {want}\n")
        elif at:
            del lines[at[-1]]
        if lines and lines != [_HEAD]:
            replace_file(self.path, "".join(lines).encode("utf-8", "surrogateescape"))
        else:
            remove_file(self.path)

    def canonical(self, place: Place, want: str | None) -> str | None:
        """As in /proc/sys."""
        return None if want is None else _canonical(want)

    def obstacle(self, place: Place, want: str | None) -> Failure | None:
        """A file that is read later sets it otherwise, or ours cannot be written."""
        _key(place)
        for path in self._later():
            for line in _read_lines(self._host, path):
                key, value = _setting(line)
                # A pattern, vm.*, is about those that no line names: sysctl.d(5).
                if key == place.key and _canonical(value) != want:
                    return Failure(
                        f"{shown(path)} is read after {_OURS} and sets {place.key} to {_canonical(value)}",
                        hint="change it there, or --runtime changes what holds until the next boot",
                    )
        if os.path.lexists(self.path) and (not os.path.isfile(self.path) or os.path.islink(self.path)):
            return Failure(f"{shown(self.path)} is no regular file", hint="move it away")
        return may_replace(self.path)

    def _lines(self) -> list[str]:
        return _read_lines(self._host, f"{_FOLDERS[0]}/{_OURS}")

    def _later(self) -> list[str]:
        """Files whose lines count after ours: by name, whichever folder; of one name the first folder alone."""
        found: dict[str, str] = {}
        for folder in _FOLDERS:
            try:
                names = self._host.names(folder)
            except OSError:
                continue
            for name in names:
                if name.endswith(".conf") and name > _OURS:
                    found.setdefault(name, f"{folder}/{name}")
        return [found[name] for name in sorted(found)] + [_LAST]


def _read_lines(host: Host, path: str) -> list[str]:
    try:
        return host.read(path).decode("utf-8", "surrogateescape").splitlines(keepends=True)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise Failure(f"{shown(path)}: {error.strerror}", hint="run it as root") from error


def _setting(line: str) -> tuple[str, str]:
    """Key and value of a line, as sysctl.d(5) reads it; a comment has no key. `/` may separate the words of a key."""
    text = line.strip()
    key, equals, value = text.partition("=")
    if not equals or text.startswith(("#", ";")):
        return "", ""
    return key.strip().removeprefix("-").strip().replace("/", "."), value.strip()


def _set_to(line: str, want: str) -> str:
    """The line with another value; what is around it stays."""
    text, value = line.rstrip(), _setting(line)[1]
    return text[: len(text) - len(value)] + want + line[len(text) :]


def _canonical(value: str) -> str:
    return " ".join(str(int(word)) if re.fullmatch(r"[+-]?[0-9]{1,19}", word) else word for word in value.split())


def _key(place: Place) -> str:
    """Raises Failure: a name that is none leads nowhere."""
    if re.fullmatch(_NAME, place.key) is None:
        raise Failure(f"{place.key!r} is no setting of memory", hint="vm.swappiness is one")
    return place.key


def _file(place: Place) -> str:
    return "/proc/sys/" + _key(place).replace(".", "/")

"""Swap on zram for later boots: a unit of ours, which makes it at each of them."""

import errno
import os
import shutil

from reprieve.machine.host import Host
from reprieve.machine.source import shown
from reprieve.machine.systemd import BOOTED, reload_units, stop_unit
from reprieve.machine.writer import failure_of, flush_folder, make_folder, may_replace, remove_file, replace_file
from reprieve.machine.zram import PATH, ZramSwap
from reprieve.model.finding import Failure, Place
from reprieve.model.zram import LINK, OWNERS, SERVICE, UNIT, is_ours, unit_size, unit_text
from reprieve.units import MIB

_OTHER = "other"
_NEEDS = ("mkswap", "swapon", "awk")  # of what its script starts, what a small system may lack
_WITHOUT = "--runtime does without it"


class ZramUnit:
    """`zram.service:/disksize`: the unit and the link by which a boot starts it; its value the size in bytes. It stays.

    The link switches it in: a unit without it is never started.
    """

    lasts = True

    def __init__(self, host: Host) -> None:
        self._host = host
        self._swap = ZramSwap(host)

    def get(self, place: Place) -> str | None:
        """The size that is made at each boot; `other` where what is started is not of ours."""
        _check(place)
        path = self._host.root + LINK
        try:
            if os.readlink(path) != UNIT:
                return _OTHER
        except FileNotFoundError:
            return None
        except OSError as error:
            if os.path.lexists(path):  # no link
                return _OTHER
            raise failure_of(path, error) from error
        size_bytes = unit_size(self._text() or "")
        return _OTHER if size_bytes is None else str(size_bytes)

    def put(self, place: Place, want: str | None) -> None:
        """The unit, then its link; or what it has made at this boot, then the link, then the unit."""
        _check(place)
        if want is None:
            return self._remove()
        folder = os.path.dirname(self._host.root + LINK)
        replace_file(self._host.root + UNIT, unit_text(int(want)).encode())
        try:
            make_folder(folder)
            if not os.path.lexists(self._host.root + LINK):
                os.symlink(UNIT, self._host.root + LINK)
            flush_folder(folder)
        except OSError as error:
            raise failure_of(LINK, error) from error
        if self._has_manager():
            reload_units()

    def canonical(self, place: Place, want: str | None) -> str | None:
        """As of the swap."""
        return self._swap.canonical(place, want)

    def obstacle(self, place: Place, want: str | None) -> Failure | None:
        """Somebody else makes zram at each boot; something lies there; no systemd, no zram; no right to it."""
        found = self.get(place)
        if want is not None:
            if not self._has_manager():
                return Failure("systemd does not run here, whose unit would make it at each boot", hint=_WITHOUT)
            for owner in OWNERS:
                if any(os.path.exists(self._host.root + file) for file in owner.files):
                    hint = f"{owner.instead.format(int(want) // MIB)}; {_WITHOUT}"
                    return Failure(f"{owner.name} is installed, which makes zram at each boot", hint=hint)
            for name in _NEEDS:
                if shutil.which(name, path=PATH) is None:
                    return Failure(f"there is no {name}, which each boot needs to make it", hint=_WITHOUT)
            if (missing := self._swap.missing()) is not None:
                return missing
        if found == _OTHER or ((text := self._text()) is not None and not is_ours(text)):
            return Failure(f"{SERVICE} is there, and not of ours", hint=f"systemctl cat {SERVICE} shows it")
        link = self._host.root + LINK
        by_link = may_replace(link) if os.path.isdir(os.path.dirname(link)) else None
        return by_link or may_replace(self._host.root + UNIT)

    def _remove(self) -> None:
        for place in self._swap.made_at_boot():
            self._swap.put(place, None)
        link = self._host.root + LINK
        try:
            if os.path.islink(link):
                os.unlink(link)
                flush_folder(os.path.dirname(link))
            os.rmdir(os.path.dirname(link))
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST):  # no folder; others' links in it
                raise failure_of(link, error) from error
        if (text := self._text()) is not None and is_ours(text):
            remove_file(self._host.root + UNIT)
        if self._has_manager():
            reload_units()
            stop_unit(SERVICE)  # without a file there is nothing that it would start

    def _has_manager(self) -> bool:
        return not self._host.root and os.path.isdir(BOOTED)

    def _text(self) -> str | None:
        """Of the unit; None: there is none."""
        try:
            return self._host.read(UNIT, 65536).decode(errors="backslashreplace")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Failure(f"{shown(UNIT)}: {error.strerror}", hint="move it away") from error


def _check(place: Place) -> None:
    if place.of or place.key != "disksize":
        raise Failure(f"{place} is no unit for zram", hint="zram.service:/disksize is one")

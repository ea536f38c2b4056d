"""Swap that is compressed and stays in memory: a zram device of our own, made, swapped to, and gone after.

Documentation/admin-guide/blockdev/zram.rst; drivers/block/zram/zram_drv.c.
"""

import errno
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace

from reprieve.machine.host import Host, may
from reprieve.machine.source import shown
from reprieve.machine.swapfile import refused_to_swap, swap_areas, swap_head, swap_label, swap_off, swap_on
from reprieve.machine.writer import failure_of, hand, may_write, remove_file, replace_file
from reprieve.model.finding import Failure, Place
from reprieve.model.zram import AT_BOOT, CONTROL, NOW
from reprieve.units import MIB, size

_OF = r"zram(0|[1-9][0-9]{0,5})"
# Until it has a head, a device is ours by a file of its name, which says which of that name. It goes with the boot too.
_MARKERS = "/run/reprieve"
_OTHER = "other"
_LABELS = (NOW, AT_BOOT)
# zstd makes pages smallest, and a page that is smaller is a kill that comes later; lz4 is faster. What a kernel offers
# of them is its configuration's choice.
_ALGORITHMS = ("zstd", "lz4")
_PRIORITY = 100  # as others set it: far above the disks, which the kernel numbers from -2 down
_PRIORITY_MAX = 32767  # SWAP_FLAG_PRIO_MASK
_PATIENCE_S = 10  # udev looks into a device that was written to, and the kernel removes none that is open
_SYS_MODULE = 16  # capabilities(7)
_INSTEAD = "a swap file does without: reprieve fix swap --size …"


class ZramSwap:
    """`zram:zram1/disksize`: a device made for it is swapped to; its value its size in bytes. It goes with the boot.

    All is made before swapon(2) switches it in, and the device is always a new one: so what is undone is gone, and
    nobody's device is touched.
    """

    lasts = False

    def __init__(self, host: Host) -> None:
        self._host = host

    def identify(self, place: Place) -> Place:
        """Without a name, the zram that is swapped to; if there is none, the device that will be made.

        hot_add gives the lowest number that is free. The module makes zram0 when it is loaded, which is left alone.
        """
        if place.of:
            return place
        there = [name for path in swap_areas(self._host) if re.fullmatch(_OF, name := path.removeprefix("/dev/"))]
        return replace(place, of=there[0] if there else self._next(0 if self._has(CONTROL) else 1))

    def get(self, place: Place) -> str | None:
        """Its size, as long as it is swapped to; `other` where that is somebody else's doing."""
        name = _name(place)
        if f"/dev/{name}" not in swap_areas(self._host):
            return None
        try:
            return self._read(name, "disksize").strip() if self._label(name) in _LABELS else _OTHER
        except OSError as error:
            raise failure_of(f"/dev/{name}", error) from error

    def put(self, place: Place, want: str | None) -> None:
        """Make a device and swap to it; or swap to it no longer, if what is in it fits into memory, and remove it."""
        name = _name(place)
        if want is None:
            if (area := swap_areas(self._host).get(f"/dev/{name}")) is not None:
                if self.get(place) == _OTHER:
                    raise Failure(f"{name} is swapped to by somebody else", hint="it stays")
                swap_off(f"{self._host.root}/dev/{name}", area.used_bytes)
            self._remove(name)
            return
        if not self._has(CONTROL):
            _load()
            if (following := self._next(0)) != name:  # options zram num_devices=4, in modprobe.d(5)
                raise Failure(f"loaded, the module zram made {following} the next, not {name}", hint="plan again")
        self._add(name)
        try:
            self._choose_algorithm(name)
            hand(f"{self._host.root}/sys/block/{name}/disksize", want)
            _write_head(f"{self._host.root}/dev/{name}", swap_head(int(want), NOW))
        except OSError as error:
            raise Failure(f"{name}: {error.strerror}", hint=f"a smaller one may do; {_INSTEAD}") from error
        swap_on(f"{self._host.root}/dev/{name}", priority=self._priority())

    def canonical(self, place: Place, want: str | None) -> str | None:
        """Whole MiB."""
        if want is None:
            return None
        if not (want.isascii() and want.isdecimal() and int(want) >= MIB):
            raise Failure(f"{want!r} is no size of swap", hint="at least 1M")
        return str(int(want) // MIB * MIB)

    def obstacle(self, place: Place, want: str | None) -> Failure | None:
        """One is swapped to already; no zram in this kernel; no right to it."""
        name = _name(place)
        if want is not None and (area := swap_areas(self._host).get(f"/dev/{name}")) is not None:
            return Failure(
                f"{name} is swapped to already: {self._size(name)}, with {size(area.used_bytes)} in it",
                hint=f"two would share the same memory; undo that one first, or: swapoff /dev/{name}",
            )
        if self._has(CONTROL):
            return refused_to_swap() or may_write(f"{self._host.root}{CONTROL}/hot_remove")
        return self.missing() or self._not_loadable() or refused_to_swap()

    def made_at_boot(self) -> Iterator[Place]:
        """What is swapped to as our unit has made it. Raises Failure."""
        for path in swap_areas(self._host):
            if re.fullmatch(_OF, name := path.removeprefix("/dev/")):
                try:
                    if self._label(name) == AT_BOOT:
                        yield Place(kind="zram", of=name, key="disksize")
                except OSError as error:
                    raise failure_of(path, error) from error

    def missing(self) -> Failure | None:
        """This kernel has no zram, nor a module of it; None: it has."""
        if self._has(CONTROL):
            return None
        release = os.uname().release
        try:
            modules = self._host.read(f"/lib/modules/{release}/modules.dep", 16 * MIB)
        except OSError:
            modules = b""
        if b"/zram.ko" not in modules:
            return Failure(f"the kernel has no zram, and no module of it is there for {release}", hint=_INSTEAD)
        return None

    def _next(self, number: int) -> str:
        """The lowest that is free from a number on, as zram_add() in zram_drv.c takes it."""
        while self._has(f"/sys/block/zram{number}"):
            number += 1
        return f"zram{number}"

    def _add(self, name: str) -> None:
        """A device, and the marker that it is ours. Raises Failure: it has another number than was planned.

        Killed between the two, it stays behind, empty: nobody else's is taken for ours.
        """
        path = f"{CONTROL}/hot_add"  # zram_hot_add in zram_drv.c: to read it makes a device, and tells its number
        try:
            number = self._host.read(path, 64).decode().strip()
            try:
                if f"zram{number}" != name:
                    hint = "somebody makes devices too: plan again"
                    raise Failure(f"the kernel made zram{number}, not {name}", hint=hint)
                self._mark(name)
            except BaseException:
                self._hot_remove(number)
                raise
        except OSError as error:
            raise failure_of(path, error) from error

    def _mark(self, name: str) -> None:
        """Raises Failure, OSError."""
        os.makedirs(self._host.root + _MARKERS, mode=0o700, exist_ok=True)
        replace_file(f"{self._host.root}{_MARKERS}/{name}", self._which(name))

    def _unmark(self, name: str) -> None:
        """Raises Failure."""
        if self._has(_MARKERS):
            remove_file(f"{self._host.root}{_MARKERS}/{name}")

    def _is_marked(self, name: str) -> bool:
        """Is it this device that was marked, not a later one of its name? Raises OSError."""
        try:
            return self._host.read(f"{_MARKERS}/{name}", 64) == self._which(name)
        except FileNotFoundError:
            return False

    def _which(self, name: str) -> bytes:
        """What no later device of that name has. Raises OSError.

        The kernel's count of disks, since 5.15; else the inode of its folder, which kernfs gives in turn.
        """
        try:
            return f"diskseq {self._read(name, 'diskseq').strip()}\n".encode()
        except FileNotFoundError:
            return f"inode {os.stat(f'{self._host.root}/sys/block/{name}').st_ino}\n".encode()

    def _choose_algorithm(self, name: str) -> None:
        """The first the kernel offers and takes: what it offers may be a module it has not got. Else its own choice.

        Raises OSError.
        """
        offered = self._read(name, "comp_algorithm").replace("[", "").replace("]", "").split()
        for algorithm in _ALGORITHMS:
            if algorithm in offered:
                try:
                    hand(f"{self._host.root}/sys/block/{name}/comp_algorithm", algorithm)
                except OSError:
                    continue
                return

    def _priority(self) -> int:
        """Above all that is swapped to: what is in memory is faster."""
        highest = max((area.priority for area in swap_areas(self._host).values()), default=0)
        return min(max(_PRIORITY, highest + 1), _PRIORITY_MAX)

    def _remove(self, name: str) -> None:
        """The device, if it is ours, then its marker."""
        try:
            if self._has(f"/sys/block/{name}") and self._is_ours(name):
                self._hot_remove(name.removeprefix("zram"))
        except OSError as error:
            raise Failure(f"{name} cannot be removed: {error.strerror}", hint=f"lsof /dev/{name}") from error
        self._unmark(name)

    def _is_ours(self, name: str) -> bool:
        """Its marker says so, and nothing was ever written to it; or its head does. Raises OSError."""
        if self._is_marked(name) and self._read(name, "mm_stat").split()[:1] == ["0"]:
            return True
        return self._label(name) in _LABELS

    def _label(self, name: str) -> str | None:
        """Raises OSError."""
        return swap_label(self._host.read(f"/dev/{name}", os.sysconf("SC_PAGE_SIZE")))

    def _hot_remove(self, number: str) -> None:
        """Raises OSError."""
        until = time.monotonic() + _PATIENCE_S
        while True:
            try:
                return hand(f"{self._host.root}{CONTROL}/hot_remove", number)
            except OSError as error:
                if error.errno != errno.EBUSY or time.monotonic() > until:
                    raise
            time.sleep(0.05)

    def _not_loadable(self) -> Failure | None:
        """Why the module cannot be loaded; None: it can."""
        if shutil.which("modprobe", path=PATH) is None:
            return Failure("the module zram is not loaded, and there is no modprobe here", hint="load it: insmod")
        if not may(_SYS_MODULE):
            return Failure("CAP_SYS_MODULE is missing, to load the module zram", hint="on the host: modprobe zram")
        return None

    def _read(self, name: str, file: str) -> str:
        """Raises OSError."""
        return self._host.read(f"/sys/block/{name}/{file}", 4096).decode(errors="backslashreplace")

    def _size(self, name: str) -> str:
        """Raises Failure."""
        try:
            return size(int(self._read(name, "disksize")))
        except OSError as error:
            raise failure_of(f"/sys/block/{name}/disksize", error) from error

    def _has(self, path: str) -> bool:
        return os.path.exists(self._host.root + path)


def _name(place: Place) -> str:
    if re.fullmatch(_OF, place.of) is None or place.key != "disksize":
        raise Failure(f"{place} is no swap on zram", hint="zram:zram1/disksize is one")
    return place.of


def _load() -> None:
    """Raises Failure. Whoever undoes it leaves the module: it costs nothing, and others may use it by then."""
    modprobe = shutil.which("modprobe", path=PATH)
    if modprobe is None:
        raise Failure("the module zram is not loaded, and there is no modprobe here", hint="load it: insmod")
    try:
        ended = subprocess.run((modprobe, "zram"), stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failure(f"modprobe zram: {error}", hint=_INSTEAD) from error
    if ended.returncode != 0:
        said = ended.stderr.decode(errors="backslashreplace").strip()
        raise Failure(f"modprobe zram: {shown(said) or f'status {ended.returncode}'}", hint=_INSTEAD)


def _write_head(path: str, head: bytes) -> None:
    """Raises OSError: a /dev that is not the kernel's has no such device."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, head)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


PATH = "/usr/sbin:/usr/bin:/sbin:/bin"

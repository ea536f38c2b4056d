"""In a guest: swap on zram is made, and undone, by processes of which each is killed before another line of ours.

Argument: the folder of the package. Prints how often it was killed while making, how often of those a device stayed
behind, and how often it was killed while undoing.
"""

import sys
from contextlib import suppress
from functools import partial
from pathlib import Path

sys.path.insert(0, sys.argv[1])

from dying import forget, in_force, killed, make, unmake

from reprieve.model.finding import parse_place

FILE = "zram.py"  # of the rest a test dies on a dictionary: tests/fix
DEVICE, MARKER = Path("/sys/block/zram1"), Path("/run/reprieve/zram1")
make_it = partial(make, parse_place("zram:zram1/disksize"), str(4 << 20))


def there() -> tuple[bool, bool]:
    """Is it swapped to, and is the device there?"""
    return "/dev/zram1" in Path("/proc/swaps").read_text(), DEVICE.exists()


def devices() -> set[str]:
    return {path.name for path in Path("/sys/block").glob("zram*")}


def stayed_behind() -> bool:
    """Killed before it was marked, a device may: untouched, and no other with it. What is left of it is removed."""
    if not DEVICE.exists():
        return False
    assert (DEVICE / "disksize").read_text() == "0\n"
    assert not MARKER.exists()
    while DEVICE.exists():  # udev may look into it, and the kernel removes none that is open
        with suppress(OSError):
            Path("/sys/class/zram-control/hot_remove").write_text("1")
    return True


def made_at_each_line() -> tuple[int, int]:
    before, which, left = devices(), 1, 0
    while killed(make_it, which, FILE):
        if in_force():
            assert there() == (True, True), f"made to line {which}"
            unmake()
        else:
            assert not there()[0], f"made to line {which}"
            left += stayed_behind()
        assert devices() == before, f"made to line {which}"
        forget()
        which += 1
    assert there() == (True, True)
    return which - 1, left


def unmade_at_each_line() -> int:
    which = 1
    while killed(unmake, which, FILE):
        holds = in_force()
        assert there() == (holds, holds), f"unmade to line {which}"
        if not holds:
            forget()
            make_it()
        which += 1
    assert there() == (False, False)
    return which - 1


(making, left), unmaking = made_at_each_line(), unmade_at_each_line()
forget()
make_it()
assert not in_force("boot-2")  # gone with the boot, for all the journal knows: nothing is touched
assert there() == (True, True)
print(making, left, unmaking)

"""In the systemd guest: the unit for zram is made, and undone, by processes that are killed before a line of ours.

It is undone as after a boot, once it has made its swap. Argument: the folder of the package. Prints how often it was
killed while making, and while undoing.
"""

import subprocess
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, sys.argv[1])

from dying import forget, in_force, killed, make, unmake

from reprieve.model.finding import parse_place
from reprieve.model.zram import LINK, SERVICE, UNIT, unit_text

FILE, STRIDE = "zramunit.py", 7  # systemd reads all unit files again each time
SIZE = 4 << 20
make_it = partial(make, parse_place("zram.service:/disksize"), str(SIZE))


def there() -> tuple[bool, bool]:
    """Would a boot start it, and is the unit there? It is never half there."""
    assert not Path(UNIT).exists() or Path(UNIT).read_text() == unit_text(SIZE)
    return Path(LINK).is_symlink(), Path(UNIT).exists()


def swapped() -> bool:
    return "/dev/zram1" in Path("/proc/swaps").read_text()


def start() -> None:
    subprocess.run(("systemctl", "restart", SERVICE), check=True)
    assert swapped()


def active() -> bool:
    return subprocess.run(("systemctl", "is-active", "--quiet", SERVICE)).returncode == 0


which = 1
while killed(make_it, which, FILE):
    begun = there()
    assert begun != (True, False), f"made to line {which}"
    holds = in_force()
    assert there() == (holds, holds), f"made to line {which}"
    if holds:
        unmake()
        assert there() == (False, False), f"made to line {which}"
    forget()
    which += STRIDE
assert there() == (True, True)
making, which = which // STRIDE, 1
start()
while killed(unmake, which, FILE):
    assert there() != (True, False), f"unmade to line {which}"
    holds = in_force()
    assert there() == (holds, holds), f"unmade to line {which}"
    if not holds:
        assert (swapped(), active()) == (False, False), f"unmade to line {which}"
        forget()
        make_it()
    start()
    which += STRIDE
assert (there(), swapped(), active()) == ((False, False), False, False)
print(making, which // STRIDE)

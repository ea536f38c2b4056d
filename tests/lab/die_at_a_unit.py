"""In a container with systemd: a limit of a unit is set, and undone, by processes killed before a line of ours.

Argument: the folder of the package. Prints how often it was killed while setting it, and while undoing it.
"""

import subprocess
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, sys.argv[1])

from dying import forget, in_force, killed, make, unmake

from reprieve.model.finding import parse_place

FILE, STRIDE = "dropin.py", 3  # systemd reads all unit files again each time
WANT = str(64 << 20)
OURS = Path("/etc/systemd/system/web.service.d/90-reprieve.conf")
make_it = partial(make, parse_place("unit:web.service/MemoryMax"), WANT)


def there() -> tuple[bool, bool]:
    """Does systemd hold it, and does our file say it?"""
    shown = subprocess.run(["systemctl", "show", "-P", "MemoryMax", "web"], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() in (WANT, "infinity")
    assert not OURS.exists() or f"\nMemoryMax={WANT}\n" in OURS.read_text()
    return shown.stdout.strip() == WANT, OURS.exists()


which = 1
while killed(make_it, which, FILE):
    holds = in_force()
    assert there() == (holds, holds), f"set to line {which}"
    if holds:
        unmake()
    assert there() == (False, False), f"set to line {which}"
    forget()
    which += STRIDE
assert there() == (True, True)
setting, which = which // STRIDE, 1
while killed(unmake, which, FILE):
    holds = in_force()
    assert there() == (holds, holds), f"undone to line {which}"
    if not holds:
        forget()
        make_it()
    which += STRIDE
assert there() == (False, False)
print(setting, which // STRIDE)

"""In a guest: swap on zram is made, and undone, by processes of which each is killed before another line of ours.

Argument: the folder of the package. Prints how often it was killed while making, how often of those a device stayed
behind, and how often it was killed while undoing.
"""

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

sys.path.insert(0, sys.argv[1])

from reprieve.fix.journal import Journal
from reprieve.fix.transaction import apply, recover, undo
from reprieve.machine.ledger import LedgerFile
from reprieve.machine.places import MachinePlaces
from reprieve.model.change import Step
from reprieve.model.finding import parse_place

FILE = "zram.py"  # of the rest a test dies on a dictionary: tests/fix
PLACE = parse_place("zram:zram1/disksize")
SIZE = str(4 << 20)
LEDGER = "/run/changes.jsonl"
DEVICE, MARKER = Path("/sys/block/zram1"), Path("/run/reprieve/zram1")


def journal(ledger: LedgerFile, boot: str = "boot-1") -> Journal:
    return Journal(ledger, boot_id=boot, wall_s=1.0, user="root")


def make() -> None:
    with LedgerFile(LEDGER) as ledger:
        apply([Step(place=PLACE, before=None, want=SIZE)], MachinePlaces(), journal(ledger))


def unmake() -> None:
    with LedgerFile(LEDGER) as ledger:
        undo(1, MachinePlaces(), journal(ledger))


def in_force(boot: str = "boot-1") -> bool:
    """Once all that was begun is finished."""
    with LedgerFile(LEDGER) as ledger:
        told = journal(ledger, boot)
        recover(MachinePlaces(), told)
        assert told.unfinished() == []
        return told.newest() is not None


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


def killed(act: Callable[[], None], which: int) -> bool:
    """Was a process that does this killed before its line of that number? Otherwise it has done it."""
    child = os.fork()
    if child == 0:
        sys.settrace(counting(which))
        act()
        sys.settrace(None)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL), status
    return status != 0


def counting(which: int) -> Callable[[FrameType, str, Any], Any]:
    left = which

    def trace(frame: FrameType, event: str, _what: object) -> object:
        nonlocal left
        if event == "line":
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace if frame.f_code.co_filename.endswith(FILE) else None

    return trace


def forget() -> None:
    Path(LEDGER).unlink()


def made_at_each_line() -> tuple[int, int]:
    before, which, left = devices(), 1, 0
    while killed(make, which):
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
    while killed(unmake, which):
        holds = in_force()
        assert there() == (holds, holds), f"unmade to line {which}"
        if not holds:
            forget()
            make()
        which += 1
    assert there() == (False, False)
    return which - 1


(making, left), unmaking = made_at_each_line(), unmade_at_each_line()
forget()
make()
assert not in_force("boot-2")  # gone with the boot, for all the journal knows: nothing is touched
assert there() == (True, True)
print(making, left, unmaking)

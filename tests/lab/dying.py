"""Changes made and undone by processes that are killed before a line of ours; for scripts in a guest or a container.

`sys.path` has the package by then.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from reprieve.fix.journal import Journal
from reprieve.fix.transaction import apply, recover, undo
from reprieve.machine.ledger import LedgerFile
from reprieve.machine.places import MachinePlaces
from reprieve.model.change import Step
from reprieve.model.finding import Place

_LEDGER = os.environ.get("LEDGER", "/run/changes.jsonl")


def _journal(ledger: LedgerFile, boot: str = "boot-1") -> Journal:
    return Journal(ledger, boot_id=boot, wall_s=1.0, user="root")


def make(place: Place, want: str) -> None:
    """The first change, of what is absent."""
    with LedgerFile(_LEDGER) as ledger:
        apply([Step(place=place, before=None, want=want)], MachinePlaces(), _journal(ledger))


def unmake() -> None:
    """It is undone."""
    with LedgerFile(_LEDGER) as ledger:
        undo(1, MachinePlaces(), _journal(ledger))


def in_force(boot: str = "boot-1") -> bool:
    """Is it, once all that was begun is finished?"""
    with LedgerFile(_LEDGER) as ledger:
        told = _journal(ledger, boot)
        recover(MachinePlaces(), told)
        assert told.unfinished() == []
        return told.newest() is not None


def forget() -> None:
    """There never was a change."""
    Path(_LEDGER).unlink()


def killed(act: Callable[[], None], which: int, file: str) -> bool:
    """Was a process that does this killed before its line of that number in a file? Otherwise it has done it."""
    child = os.fork()
    if child == 0:
        sys.settrace(_counting(which, file))
        act()
        sys.settrace(None)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL), status
    return status != 0


def _counting(which: int, file: str) -> Callable[[FrameType, str, Any], Any]:
    left = which

    def trace(frame: FrameType, event: str, _what: object) -> object:
        nonlocal left
        if event == "line":
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace if frame.f_code.co_filename.endswith(file) else None

    return trace

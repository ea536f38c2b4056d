"""Being told to end: at once, but while a machine is changed between two steps, and never within one."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import NoReturn


class Interrupted(BaseException):
    """Ctrl-C, SIGTERM or SIGHUP: who asked for it wants it to end. No Exception: nothing here handles it on the way."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = signal.Signals(number)


class Signals:
    """Within the block SIGINT, SIGTERM and SIGHUP are noted; they end nothing but what is `interruptible`.

    So a record of the journal and what is known of it never part, and what is put back is put back to its end.
    """

    def __init__(self) -> None:
        self.came: int | None = None  # the first of them
        self._raises = False

    def __enter__(self) -> "Signals":
        heard = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = [(number, signal.getsignal(number)) for number in heard]
        self._before = [(number, handler) for number, handler in before if handler != signal.SIG_IGN]  # nohup
        for number, _ in self._before:
            signal.signal(number, self._note)
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        for number, handler in self._before:
            signal.signal(number, handler)

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """What may take long, and leaves what can be put back wherever it ends. Raises Interrupted: one has come."""
        self._raises = True  # first, so that none comes between this and the look
        try:
            if self.came is not None:
                raise Interrupted(self.came)
            yield
        finally:
            self._raises = False

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.came = self.came or number
        if self._raises:
            self._raises = False  # a second one does not end what the first has led to
            raise Interrupted(number)


def end_by_ctrl_c() -> NoReturn:
    """End as SIGINT ends who does not handle it: a shell ends its loop then, and calls it status 130."""
    end_by(signal.SIGINT)


def end_by(number: int) -> NoReturn:
    """End as that signal ends who does not handle it."""
    if sys.platform != "win32":
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(128 + number)  # the first process of a container is not ended by a signal of its own

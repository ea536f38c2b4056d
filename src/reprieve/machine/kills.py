"""Kills as they happen, while something else is done."""

import os
import signal
from collections import deque
from threading import Thread
from types import TracebackType

from reprieve.machine.events import watch
from reprieve.machine.follow import follow_kernel
from reprieve.model.finding import Failure, Gap
from reprieve.model.oom import OomReport

_KEPT = 100  # that nobody has asked for yet


class Kills:
    """Listens to this machine's kernel in a thread of its own, which sleeps until the kernel says something.

    `gaps`: why it cannot be heard, or what of its words was lost. `unheard`: nothing of them is heard, or no longer.
    """

    def __init__(self, boot_id: str | None) -> None:
        self.gaps: list[Gap] = []
        self.unheard = False
        self._boot_id = boot_id
        self._new: deque[OomReport] = deque(maxlen=_KEPT)
        self._told, self._teller = os.pipe()
        self._thread = Thread(target=self._listen, name="kills", daemon=True)

    def __enter__(self) -> "Kills":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.write(self._teller, bytes([signal.SIGTERM]))
        self._thread.join()
        os.close(self._told)
        os.close(self._teller)

    def new(self) -> list[OomReport]:
        """Those that are complete since it was asked before, each told a second after its last line."""
        found = []
        while self._new:
            found.append(self._new.popleft())
        return found

    def _listen(self) -> None:
        try:
            lines = follow_kernel(self._told, self.gaps)
            for seen in watch(lines, "kernel log", lambda _: True, self.gaps, self._boot_id):
                if seen is not None and isinstance(seen.event, OomReport):
                    self._new.append(seen.event)
        except Failure as failure:  # nobody waits for this thread: what it meets is told where all else is
            if not (self.gaps and failure.message.endswith(f"{self.gaps[-1].place}: {self.gaps[-1].reason}")):
                self.gaps.append(Gap(place="kernel log", reason=failure.message, hint=failure.hint))
        self.unheard = True  # journalctl may have ended, or been killed itself

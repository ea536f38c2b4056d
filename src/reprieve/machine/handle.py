"""A process held by a descriptor: what is sent through it reaches that process, or nobody."""

import os
import signal
from types import TracebackType

from reprieve.machine.host import Host
from reprieve.machine.proc import glance
from reprieve.model.finding import Failure


class Handle:
    """Holds the process of that pid and start time. Raises Failure: it is not there, or may not be ended.

    The descriptor is opened first, and then it is asked whose the pid is: had it been given to another before, the
    start time tells; after, the descriptor is still that of the first. Since Linux 5.3.
    """

    def __init__(self, pid: int, start_ticks: int) -> None:
        if pid == 1:
            raise Failure("pid 1 is the machine's own, and ends with it", hint="reboot, if that is wanted")
        try:
            self._descriptor = os.pidfd_open(pid)
        except ProcessLookupError as gone:
            raise Failure(f"process {pid} has ended", hint="nothing is to be done") from gone
        except OSError as error:
            raise Failure(f"process {pid} cannot be held: {error.strerror}", hint=f"kill {pid}, by hand") from error
        now = glance(Host(), pid, None)
        if now is None or now.start_ticks != start_ticks:
            os.close(self._descriptor)
            raise Failure(f"process {pid} has ended, and its number may be another's", hint="nothing was sent")
        self.pid = pid

    def __enter__(self) -> "Handle":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)

    def send(self, number: signal.Signals) -> None:
        """Raises Failure: it has ended, or we may not."""
        try:
            signal.pidfd_send_signal(self._descriptor, number)
        except ProcessLookupError as gone:
            raise Failure(f"process {self.pid} has ended by itself", hint="nothing was sent") from gone
        except PermissionError as refused:
            raise Failure(f"process {self.pid} is not yours to end", hint="run it as root") from refused

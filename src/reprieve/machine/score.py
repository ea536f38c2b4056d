"""The oom_score_adj of a process that runs. Its pid may become another's: that and its start time say who is meant."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

from reprieve.machine.host import Host, has_first_users, may, root_could
from reprieve.machine.proc import parse_stat
from reprieve.machine.writer import failure_of, hand
from reprieve.model.finding import Failure, NoRight, Place

_FILE = "oom_score_adj"
_OF = r"(?P<pid>[1-9][0-9]{0,9})(?:@(?P<start>[0-9]{1,19}))?"
_SYS_RESOURCE = 24  # capabilities(7)
_WHO_HAS_IT = "root has it on the host, and in a container by --cap-add SYS_RESOURCE"


class ProcessScore:
    """`process:1234@56789/oom_score_adj`: of who has pid 1234 and started at that tick. It goes with the process.

    Its threads share the value. So does who shares its memory without being one: the kernel writes it to those too,
    __set_oom_adj() in fs/proc/base.c. Who was started by it before keeps what was inherited then.
    """

    lasts = False

    def __init__(self, host: Host) -> None:
        self._host = host

    def identify(self, place: Place) -> Place:
        """Of a bare pid, who has it now. Raises Failure: nobody."""
        with self._held(place) as held:
            return replace(place, of=f"{held.pid}@{held.start_ticks}")

    def get(self, place: Place) -> str | None:
        """As the kernel writes it. Raises Failure: the process has ended."""
        with self._held(place) as held:
            try:
                return _read(held.folder, _FILE).strip()
            except OSError as error:
                raise _failure(held.pid, error) from error

    def put(self, place: Place, want: str | None) -> None:
        """One write, to that process or to none."""
        if want is None:
            raise Failure(f"{place} cannot be absent", hint="the kernel always has a value")
        with self._held(place) as held:
            try:
                hand(_FILE, want, folder=held.folder)
            except OSError as error:
                if error.errno == errno.EACCES and _writable(held.folder):  # it was opened, and refused then
                    raise _too_low(want) from error
                raise _failure(held.pid, error) from error

    def canonical(self, place: Place, want: str | None) -> str | None:
        """A number."""
        _whose(place)
        if want is None:
            return None
        if re.fullmatch(r"-?[0-9]{1,4}", want) is None or not -1000 <= int(want) <= 1000:
            raise Failure(f"{want!r} is no {_FILE}", hint="it goes from -1000 to 1000")
        return str(int(want))

    def obstacle(self, place: Place, want: str | None) -> Failure | None:
        """A thread of the kernel; a process of somebody else; the right to lower it is missing.

        Without that right it may be lowered as far as somebody with it has set it last (oom_score_adj_min), which the
        kernel tells nobody: it is not counted on, though an undo may live from it.
        """
        with self._held(place) as held:
            if held.kernel_thread:
                return Failure(f"process {held.pid} is a thread of the kernel, which is never chosen")
            if not _writable(held.folder):
                whose = os.stat(_FILE, dir_fd=held.folder).st_uid
                hint = "run it as root, or as that user"
                if want is not None and int(want) < 0 and not root_could(self._host, _SYS_RESOURCE):
                    hint = f"not even root may lower it here; {_WHO_HAS_IT}"
                return NoRight(f"process {held.pid} belongs to uid {whose}", hint=hint)
        now = self.get(place)
        if want is not None and now is not None and int(want) < int(now) and not self._may_lower():
            return _too_low(want, now, hint=self._who_could())
        return None

    def gone(self, place: Place) -> bool:
        """Has it ended? Its pid may have been given to another."""
        try:
            with self._held(place):
                return False
        except _Ended:
            return True

    def _may_lower(self) -> bool:
        return has_first_users(self._host) and may(_SYS_RESOURCE)

    def _who_could(self) -> str:
        if os.geteuid() == 0:
            return _WHO_HAS_IT
        could = root_could(self._host, _SYS_RESOURCE)
        return "run it as root" if could else f"not even root has it here; {_WHO_HAS_IT}"

    @contextmanager
    def _held(self, place: Place) -> Iterator["_Held"]:
        """The folder of that very process: what is opened in it is of this process, or fails. Raises Failure."""
        pid, start_ticks = _whose(place)
        try:
            folder = os.open(f"{self._host.root}/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise _failure(pid, error) from error
        try:
            try:
                stat = parse_stat(_read(folder, "stat"))
            except OSError as error:
                raise _failure(pid, error) from error
            if stat is None:
                raise Failure(f"/proc/{pid}/stat is not what the kernel writes")
            if start_ticks not in (None, stat.start_ticks):
                raise _Ended(f"process {pid} has ended, and its pid is another's now")
            yield _Held(folder, pid, stat.start_ticks, stat.kernel_thread)
        finally:
            os.close(folder)


class _Ended(Failure):
    """The process is no more."""


class _Held(NamedTuple):
    folder: int
    pid: int
    start_ticks: int
    kernel_thread: bool


def _whose(place: Place) -> tuple[int, int | None]:
    """Pid and start time. Raises Failure: it is no process."""
    match = re.fullmatch(_OF, place.of)
    if match is None or place.key != _FILE:
        raise Failure(f"{str(place)!r} is no score of a process", hint=f"process:1234/{_FILE} is one")
    return int(match["pid"]), None if match["start"] is None else int(match["start"])


def _read(folder: int, name: str) -> str:
    descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
    try:
        return os.read(descriptor, 4096).decode(errors="backslashreplace")
    finally:
        os.close(descriptor)


def _writable(folder: int) -> bool:
    return os.access(_FILE, os.W_OK, dir_fd=folder, effective_ids=True)


def _failure(pid: int, error: OSError) -> Failure:
    if error.errno in (errno.ENOENT, errno.ESRCH):
        return _Ended(f"there is no process {pid}", hint="ps -e lists them")
    return failure_of(f"/proc/{pid}/{_FILE}", error)


def _too_low(want: str, now: str | None = None, *, hint: str = _WHO_HAS_IT) -> Failure:
    since = "" if now is None else f" from {now}"
    return NoRight(f"to lower it{since} to {want} takes CAP_SYS_RESOURCE, which is missing here", hint=hint)

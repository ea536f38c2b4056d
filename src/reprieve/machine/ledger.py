"""The journal of changes on disk: a line at a time, each on disk before the next step, and one writer at a time."""

import contextlib
import errno
import os
import time
from types import TracebackType

from reprieve.machine.home import INSTEAD, state_folder
from reprieve.machine.source import shown
from reprieve.machine.writer import failure_of, flush_folder, make_folder
from reprieve.model.finding import Failure

MACHINE = "/var/lib/reprieve/changes.jsonl"
_NOT_YOURS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EEXIST)
_BYTES = 64 * 1024 * 1024  # some hundred thousand changes


def ledger_path() -> str:
    """Where it is kept: by root for the machine, by others for themselves. Raises Failure: there is no place for it."""
    if os.geteuid() == 0:
        return MACHINE
    return os.path.join(state_folder(), "reprieve/changes.jsonl")


def others_path() -> str | None:
    """Where root keeps those of the machine, which are not this user's and may be read; None: nowhere."""
    return MACHINE if os.geteuid() != 0 and os.access(MACHINE, os.R_OK) else None


def is_there(path: str) -> bool:
    """Was a ledger begun there? One that we may not see is."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def read_lines(path: str) -> list[bytes]:
    """The whole lines of a ledger; a last one without its end was cut off by a crash, and never counted.

    [] where there is no ledger. Raises Failure.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(min(os.fstat(file.fileno()).st_size, _BYTES) + 1)  # no larger buffer: memory may be short
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        hint = INSTEAD if path != MACHINE else "run it as root"
        raise Failure(f"{shown(path)}: {error.strerror}", hint=hint) from error
    if len(data) > _BYTES:
        raise Failure(f"{shown(path)} is larger than {_BYTES} bytes", hint="move it away: what it tells can be read")
    return data.split(b"\n")[:-1]


class LedgerFile:
    """A ledger held for writing until the `with` block ends. Raises Failure: another process holds it, or no right."""

    def __init__(self, path: str, *, patience_s: float = 0.0) -> None:
        self._path = path
        self._patience_s = patience_s  # how long to wait for another who holds it

    def __enter__(self) -> "LedgerFile":
        folder = os.path.dirname(self._path)
        try:
            make_folder(folder)
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
            self._descriptor = os.open(self._path, flags, 0o644)
            try:
                self._lock()
                self._mend()
            except BaseException:
                os.close(self._descriptor)
                raise
            flush_folder(folder)
        except BlockingIOError:
            raise Failure("another reprieve is changing this machine", hint="wait until it has ended") from None
        except OSError as error:
            if self._path != MACHINE and error.errno in _NOT_YOURS:  # no right of root's would be needed elsewhere
                raise Failure(f"{shown(self._path)}: {error.strerror}", hint=INSTEAD) from error
            raise failure_of(self._path, error) from error
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        os.close(self._descriptor)

    def lines(self) -> list[bytes]:
        """All of it."""
        return read_lines(self._path)

    def append(self, line: bytes) -> None:
        """Add a line, and wait until it is on disk. Raises Failure."""
        whole = os.fstat(self._descriptor).st_size
        try:
            data = line + b"\n"
            while data:
                data = data[os.write(self._descriptor, data) :]
            os.fsync(self._descriptor)
        except OSError as error:
            with contextlib.suppress(OSError):  # half a line, as of a full disk: what is added next would stick to it
                os.ftruncate(self._descriptor, whole)
            raise Failure(
                f"{shown(self._path)}: {error.strerror}", hint="nothing is changed without a journal"
            ) from error

    def _lock(self) -> None:
        """Raises BlockingIOError: another process holds it all the time."""
        import fcntl

        end = time.monotonic() + self._patience_s
        while True:
            try:
                return fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= end:
                    raise
                time.sleep(0.1)

    def _mend(self) -> None:
        """Cut off a line that a crash left without its end: it was not on disk, so nothing followed from it."""
        whole = sum(len(line) + 1 for line in read_lines(self._path))
        if whole != os.fstat(self._descriptor).st_size:
            os.ftruncate(self._descriptor, whole)

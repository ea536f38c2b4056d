"""A process of its own that undoes a change unless somebody confirms it: it outlives the terminal and its parent."""

import contextlib
import os
import select
import subprocess
import sys

from reprieve.model.finding import Failure

_START_S = 120.0  # an interpreter, on a machine that is slow or short of memory
_READY = "REPRIEVE_READY_FD"


def undo_unless_kept(number: int, within_s: int) -> None:
    """Start the one that waits, and see that it does. It is in a session of its own and holds nothing open.

    Raises Failure: it could not be started, so nothing should be changed.
    """
    argv = [sys.executable, "-m", "reprieve", "undo", str(number), "--unless-kept", str(within_s)]
    ours, theirs = os.pipe()
    try:
        subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=(theirs,),
            env=os.environ | {_READY: str(theirs)},
        )
    except OSError as error:
        os.close(ours)
        raise Failure(f"who would undo it could not be started: {error.strerror}") from error
    finally:
        os.close(theirs)
    try:
        if not (select.select([ours], [], [], _START_S)[0] and os.read(ours, 1)):
            raise Failure("who would undo it did not start", hint="reprieve undo must run by itself here")
    finally:
        os.close(ours)


def say_ready() -> None:
    """In the one that waits: it has begun to."""
    if told := os.environ.pop(_READY, None):
        os.write(int(told), b"1")
        os.close(int(told))


def tell_kernel_log(said: str) -> None:
    """For root to find: who waits has no terminal."""
    with contextlib.suppress(OSError), open("/dev/kmsg", "w", encoding="utf-8") as file:
        file.write(f"reprieve: {said}\n")

"""A process of its own that undoes a change unless somebody confirms it: it outlives the terminal and its parent."""

import contextlib
import os
import select
import subprocess
import sys
import time

from reprieve.machine.writer import hand
from reprieve.model.finding import Failure

_START_S = 120.0  # an interpreter, on a machine that is slow or short of memory
_READY = "REPRIEVE_READY_FD"


def undo_unless_kept(number: int, within_s: int) -> None:
    """Start the one that waits, and see that it does. It is in a session of its own and holds nothing open.

    Raises Failure: it could not be started, so nothing should be changed.
    """
    # Nothing is loaded from the folder this was called in: it may be anybody's, and we are root.
    argv = [sys.executable, "-P", "-m", "reprieve", "undo", str(number), "--unless-kept", str(within_s)]
    environ = dict(os.environ)
    if path := environ.pop("PYTHONPATH", None):
        environ["PYTHONPATH"] = os.pathsep.join(os.path.abspath(one) for one in path.split(os.pathsep) if one)
    ours, theirs = os.pipe()
    try:
        subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=(theirs,),
            env=environ | {_READY: str(theirs)},
            cwd="/",
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


def since_boot_s() -> float:
    """Now. A suspended machine waits as well."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def stand_apart() -> None:
    """Leave the groups of who called, as it may be their limit that is to be undone, and be never chosen by the kernel.

    As far as we may: it takes root, and cgroups that can be written. Else it ends with those groups.
    """
    for tree in ("", "/unified", "/systemd", "/memory"):  # of version 2; of both, where each has a part; of version 1
        with contextlib.suppress(OSError):
            hand(f"/sys/fs/cgroup{tree}/cgroup.procs", "0")
    with contextlib.suppress(OSError):
        hand("/proc/self/oom_score_adj", "-1000")


def say_ready() -> None:
    """In the one that waits: it has begun to."""
    if told := os.environ.pop(_READY, None):
        os.write(int(told), b"1")
        os.close(int(told))


def tell_kernel_log(said: str) -> None:
    """For root to find: who waits has no terminal."""
    with contextlib.suppress(OSError), open("/dev/kmsg", "w", encoding="utf-8") as file:
        file.write(f"reprieve: {said}\n")

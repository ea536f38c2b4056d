"""A process of its own that undoes a change unless somebody confirms it: it outlives the terminal and its parent."""

import subprocess
import sys

from reprieve.model.finding import Failure


def undo_unless_kept(number: int, within_s: int) -> None:
    """Start the one that waits. It is in a session of its own and holds nothing open.

    Raises Failure: it could not be started, so nothing should be changed.
    """
    argv = [sys.executable, "-P", "-m", "reprieve", "undo", str(number), "--unless-kept", str(within_s)]
    try:
        subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )
    except OSError as error:
        raise Failure(f"who would undo it could not be started: {error.strerror}") from error

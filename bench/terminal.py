"""Runs a command on a terminal of 80 x 24 for so many seconds, then types `q`: `terminal.py SECONDS COMMAND…`.

What it draws is read and dropped: its CPU time and its memory are what is asked for, and whoever waits for us is told.
"""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import sys
import termios
import time

_PATIENCE_S = 30  # after the `q`


def run(seconds: float, argv: list[str]) -> int:
    """Its exit status; it is ended if it does not leave."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ["TERM"] = "xterm-256color"
        os.execvp(argv[0], argv)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    begun, typed = time.monotonic(), False
    while True:
        passed = time.monotonic() - begun
        if passed >= seconds and not typed:
            os.write(terminal, b"q")
            typed = True
        if passed >= seconds + _PATIENCE_S:
            os.kill(pid, 9)
        if select.select([terminal], [], [], 0.25)[0]:
            try:
                os.read(terminal, 65536)
            except OSError:  # EIO: it has ended
                break
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


if __name__ == "__main__":
    sys.exit(run(float(sys.argv[1]), sys.argv[2:]))

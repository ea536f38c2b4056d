"""The command's way in. The version is told before anything is loaded: scripts ask for it often."""

import gc
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def main() -> None:
    """Run `reprieve` with the arguments of this process."""
    try:
        _run()
    except KeyboardInterrupt:  # while it is loaded; of what it does then the verbs tell
        from reprieve.machine.signals import end_by_ctrl_c

        end_by_ctrl_c()


def _run() -> "NoReturn":
    if sys.argv[1:] in (["--version"], ["-V"]):
        from reprieve import __version__

        _end(0, f"reprieve {__version__}\n")
    if {"-h", "--help"} & set(sys.argv[1:]) and sys.stdout is not None and sys.stdout.isatty():
        from rich_click.patch import patch

        patch()  # before any command is made; what is read by programs stays plain
    gc.set_threshold(100_000)  # neither modules nor facts hold cycles worth a pass each few thousand objects
    from reprieve.cli import run

    try:
        run()
    except SystemExit as ended:
        if isinstance(ended.code, str):
            raise
        status = ended.code or 0
    else:
        status = 0
    _end(status)


def _end(status: int, left: str = "") -> "NoReturn":
    """Write what is left to be written, and end."""
    try:
        if sys.stdout is not None:
            sys.stdout.write(left)
            sys.stdout.flush()
        if sys.stderr is not None:
            sys.stderr.flush()
    except BrokenPipeError:
        pass  # the reader has left
    except OSError as error:  # a full disk
        if not status:  # else it has been told, where there was a place for it
            from contextlib import suppress

            from reprieve.output import unwritten

            failure, status = unwritten(error), 1
            with suppress(OSError):
                os.write(2, f"reprieve: {failure.message}\n  {failure.hint}\n".encode())
    os._exit(status)  # nothing is held but memory: to take it apart costs a tenth of the whole


if __name__ == "__main__":
    main()

"""The command's way in. The version is told before anything is loaded: scripts ask for it often."""

import gc
import os
import sys


def main() -> None:
    """Run `reprieve` with the arguments of this process."""
    if sys.argv[1:] in (["--version"], ["-V"]):
        from reprieve import __version__

        print(f"reprieve {__version__}")
        return
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
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        pass  # the reader has left
    except OSError:  # a full disk; it has been told where there was a place for it
        status = status or 1
    os._exit(status)  # nothing is held but memory: to take it apart costs a tenth of the whole


if __name__ == "__main__":
    main()

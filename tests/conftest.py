"""What several rooms need: the command as users run it, and a kill that is real."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import settings

from reprieve.machine.demo import kill_a_leak
from reprieve.model.finding import Failure
from tests.logs_of import LOGS
from tests.machine.real import missing

settings.register_profile("no-deadline", deadline=None)  # on a busy machine it is the machine that is late
settings.load_profile("no-deadline")

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def reprieve(tmp_path: Path) -> Run:
    """Run `reprieve` with these arguments; `stdin` is text for a pipe, None is no input, as under cron."""

    def run(*arguments: str | Path, stdin: str | None = None, **env: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "reprieve", *map(str, arguments)],
            **({"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}),
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={key: value for key, value in os.environ.items() if key not in ("COLUMNS", "NO_COLOR")} | env,
        )

    return run


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that all users may look into. To those of pytest each pytest that begins closes the way for others."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(scope="session")
def real_kill() -> str:
    """What this machine's kernel logged of a leak that it killed in a cgroup of its own."""
    try:
        return kill_a_leak().decode(errors="backslashreplace")
    except Failure as failure:
        missing(f"a kill of its own: {failure.message}")


# Everything is loaded as root first: an interpreter may lie where nobody else can read it.
_AS_NOBODY = """
import contextlib, io, os, sys
from reprieve import cli
import reprieve.check, reprieve.demo, reprieve.machine.archive, reprieve.show.checked, reprieve.snapshot, subprocess
import reprieve.show.live, reprieve.top, reprieve.apply, reprieve.fix_verbs
log, *asked = sys.argv[1:]
def run(*arguments):
    sys.argv[1:] = arguments
    try:
        cli.run()
    except SystemExit as ended:
        return ended.code
with contextlib.redirect_stdout(io.StringIO()):
    run("why", log, "--no-pager")
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
sys.exit(run(*asked))
"""


@pytest.fixture
def as_nobody() -> Run:
    """Run `reprieve` without any rights."""
    if os.geteuid() != 0:
        missing("root, to become nobody")
    log = LOGS / "084-ubuntu1404-mysqld-python-3.13.log"

    def run(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
        argv = [sys.executable, "-c", _AS_NOBODY, str(log), *map(str, arguments)]
        return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True)

    return run

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
from tests.machine.real import as_another, missing

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


@pytest.fixture
def as_nobody() -> Run:
    """Run `reprieve` without any rights."""
    if os.geteuid() != 0:
        missing("root, to become nobody")

    def run(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
        argv = [*as_another(65534), sys.executable, "-m", "reprieve", *map(str, arguments)]
        return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True)

    return run

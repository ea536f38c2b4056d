"""What this machine lacks is a skip by hand and a failure in CI, never silence."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab.host import LabError
from tests.lab.conftest import here_or_skipped
from tests.machine.real import is_open, missing, program


@pytest.mark.parametrize("ci", [None, "", "false"])
def test_what_is_missing_here_is_skipped(monkeypatch: pytest.MonkeyPatch, ci: str | None) -> None:
    monkeypatch.delenv("CI", raising=False)
    if ci is not None:
        monkeypatch.setenv("CI", ci)
    with pytest.raises(pytest.skip.Exception, match="missing here: no-such-program"):
        program("no-such-program")


def test_what_is_missing_in_ci_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="missing where CI=true: no-such-program"):
        program("no-such-program")
    with pytest.raises(pytest.fail.Exception, match="missing where CI=true: no kernel"), here_or_skipped():
        raise LabError("no kernel")


def test_what_lies_behind_a_closed_folder_or_link_is_not_open_to_others(open_folder: Path) -> None:
    (open_folder / "home/python").mkdir(parents=True)
    (open_folder / "link").symlink_to(open_folder / "home/python")
    both = [str(open_folder / name) for name in ("home/python", "link")]
    assert [*map(is_open, both)] == [True, True]
    (open_folder / "home").chmod(0o700)
    assert [*map(is_open, both)] == [False, False]


_AS_ANOTHER = """
import subprocess, sys, pytest
from tests.machine.real import as_another
try:
    before = as_another(65534)
except pytest.skip.Exception as skipped:
    sys.exit(f"skipped: {skipped}")
sys.exit(subprocess.call([*before, sys.executable, "-c", "import os; print(os.getuid())"]))
"""


def test_root_that_may_not_mount_becomes_another_where_python_is_open_and_else_skips() -> None:
    if os.geteuid() != 0:
        missing("root, to become another")
    less = (program("setpriv"), "--bounding-set=-sys_admin", "--inh-caps=-sys_admin")
    environ = {name: value for name, value in os.environ.items() if name != "CI"}
    done = subprocess.run(
        [*less, sys.executable, "-c", _AS_ANOTHER],
        cwd=Path(__file__).parents[2],
        env=environ | {"PYTHONPATH": "."},
        capture_output=True,
        text=True,
    )
    if is_open(sys.prefix) and is_open(sys.base_prefix):
        assert (done.returncode, done.stdout) == (0, "65534\n")
    else:
        assert (done.returncode, done.stderr) == (1, "skipped: missing here: a mount namespace\n")

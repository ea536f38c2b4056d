"""What this machine lacks is a skip by hand and a failure in CI, never silence."""

import pytest

from lab.host import LabError
from tests.lab.conftest import here_or_skipped
from tests.machine.real import program


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

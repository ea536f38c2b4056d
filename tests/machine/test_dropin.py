"""The drop-in of ours taken away, and what stands in the way of its folder's end."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from reprieve.machine.dropin import UnitSetting
from reprieve.machine.host import Host
from reprieve.machine.systemd import BOOTED
from reprieve.machine.writer import acting_as
from reprieve.model.finding import Failure, Place
from tests.machine.real import missing


def test_a_folder_that_cannot_be_taken_away_is_told() -> None:
    if os.geteuid() != 0:
        missing("root, to be somebody else")
    with tempfile.TemporaryDirectory() as root:  # of pytest's own folders others see nothing
        os.chmod(root, 0o755)
        folder = Path(root) / "etc/systemd/system/web.service.d"
        folder.mkdir(parents=True)
        os.chown(folder, 65534, 65534)
        with acting_as(65534), pytest.raises(Failure, match=r"web\.service\.d"):
            UnitSetting(Host(root=root)).put(Place(kind="unit", of="web.service", key="MemoryMax"), None)
        assert folder.is_dir()


@pytest.mark.parametrize(
    ("unit", "key", "hint"),
    [
        (
            "bash.service",
            "OOMScoreAdjust",
            "bash.service would be a unit; a process is named by its pid: reprieve fix protect PID",
        ),
        (
            "web.service",
            "MemoryMax",
            "reprieve run --max SIZE -- COMMAND limits a command, reprieve fix limit /CGROUP a cgroup",
        ),
        ("1.service", "MemoryMax", "1 was taken for a unit, and no process has a limit by its pid; reprieve run --max"),
        ("web.service", "OOMPolicy", "what does without it: reprieve why, reprieve run"),
    ],
)
def test_without_systemd_what_does_it_without_a_unit_is_told(unit: str, key: str, hint: str) -> None:
    if os.path.isdir(BOOTED):
        pytest.skip("this machine has systemd")
    place = Place(kind="unit", of=unit, key=key)
    refused = UnitSetting(Host()).obstacle(place, "-500")
    assert refused is not None
    assert refused.message == "systemd does not run here"
    assert (refused.hint or "").startswith(hint)
    if key == "MemoryMax":
        with pytest.raises(Failure, match="systemd does not run here") as lifted:
            UnitSetting(Host()).canonical(place, "infinity")
        assert lifted.value.hint == refused.hint

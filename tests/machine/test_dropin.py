"""The drop-in of ours taken away, and what stands in the way of its folder's end."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from reprieve.machine.dropin import UnitSetting
from reprieve.machine.host import Host
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

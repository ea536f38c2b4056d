"""`why unit:NAME` where a systemd runs: what its manager tells of an end."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lab import kernels, states
from lab.manager import Manager
from tests.lab.conftest import here_or_skipped
from tests.lab.parcel import parcel

pytestmark = pytest.mark.slow


def why(container: Manager, word: str) -> str:
    ended = container.run(f"PYTHONPATH=/mnt/0 COLUMNS=200 python3 -m reprieve why {word} 2>&1 < /dev/null")
    return " ".join(ended.output.split())


def test_a_unit_that_was_killed_is_told_in_the_words_of_its_manager(container: Manager) -> None:
    container.run("systemd-run -q --unit=killed sleep 900; systemctl kill -s KILL killed; sleep 1")
    said = why(container, "unit:killed")
    assert "SIGKILL ended killed.service (signal 9); nothing here proves that memory was the reason" in said
    assert said == why(container, "unit:killed.service").replace("unit:killed.service", "unit:killed")


def test_a_unit_that_is_well_or_not_there_is_told(container: Manager) -> None:
    container.run("systemd-run -q --unit=well sleep 900")
    assert re.match(r"No OOM kill|None of the |Nothing in |The one event found is not ", why(container, "unit:well"))
    assert "systemd knows no nobody.service" in why(container, "unit:nobody")


def test_the_kernels_report_of_a_unit_is_told_though_anothers_is_newer(tmp_path: Path) -> None:
    with here_or_skipped():
        saved = states.saved(kernels.DEFAULT, states.SYSTEMD)
    with saved.restore(spare=parcel(tmp_path / "parcel.tar")) as guest:
        assert guest.run("mkdir /opt/reprieve; tar -C /opt/reprieve -xf /dev/vda").status == 0
        for name in ("web", "other"):
            guest.run(
                f"systemd-run -q --unit={name} -p MemoryMax=32M -p MemorySwapMax=0 hog --mib 64\n"
                f"while test $(systemctl show -P ActiveState {name}) != failed; do sleep 0.2; done",
                timeout_s=100,
            )
        why = "cd /; PYTHONPATH=/opt/reprieve COLUMNS=200 python3 -m reprieve why"
        told = " ".join(guest.run(f"{why} unit:web < /dev/null 2>&1", timeout_s=100).output.split())
        assert re.match(r"Killed hog \(pid \d+\) of web\.service, held", told), told
        assert "other.service" not in told
        listed = guest.run(f"{why} unit:web --list < /dev/null 2>&1", timeout_s=100).output
        assert len(re.findall(r"hog \(pid \d+\) .* of web\.service", listed)) == 1, listed
        assert "other.service" not in listed
        unit = "/etc/systemd/system/mail.service"
        command = "[Service]\\nExecStart=/bin/sleep 9\\n[Install]\\nAlias=post.service\\n"
        guest.run(
            f"printf '{command}' > {unit}; ln -s {unit} /etc/systemd/system/post.service; systemctl daemon-reload"
        )
        guest.run(
            "systemctl set-property --runtime mail MemoryMax=32M MemorySwapMax=0; systemctl start mail\n"
            "sh -c 'echo $$ > /sys/fs/cgroup/system.slice/mail.service/cgroup.procs; exec hog --mib 64'",
            timeout_s=100,
        )
        told = guest.run(f"{why} unit:post < /dev/null 2>&1", timeout_s=100).output
        assert re.match(r"Killed    hog \(pid \d+\) of mail\.service", told), told

"""Which commands are for root is said once for each thing to do, the same way in every format."""

from __future__ import annotations

import pytest

from reprieve.model.finding import Remedy
from reprieve.model.oom import OomReport
from reprieve.model.snapshot import Snapshot
from reprieve.oom.report import read_reports
from reprieve.rules import diagnose
from reprieve.show import answer, markdown, page, text
from tests.rules.cases import LOGS

UNIT = "lab/6.1.0-56-cloud-amd64__systemd-unit-memorymax.txt"


@pytest.mark.parametrize(
    "command",
    [
        ("systemctl", "--user", "set-property", "--", "sync.service", "MemoryMax=96M"),
        ("kubectl", "get", "pods"),
        ("podman", "update", "--memory", "96m", "a"),
        ("choom", "--adjust", "0", "--", "PROGRAM"),
        ("jcmd", "PID", "GC.class_histogram"),
    ],
)
def test_what_its_owner_can_run_is_not_for_root(command: tuple[str, ...]) -> None:
    assert not answer.for_root(Remedy(title="t", commands=(command,)))


@pytest.mark.parametrize(
    "command",
    [("sysctl", "-w", "vm.panic_on_oom=0"), ("choom", "--pid", "7", "--adjust", "0"), ("ipcrm", "--shmem-id", "7")],
)
def test_what_changes_the_machine_is_for_root(command: tuple[str, ...]) -> None:
    assert answer.for_root(Remedy(title="t", commands=(command,)))


def test_every_format_says_so_once_for_each_remedy() -> None:
    log = (LOGS / UNIT).read_text(errors="backslashreplace")
    facts = Snapshot(ooms=tuple(event for event in read_reports(log) if isinstance(event, OomReport))[-1:])
    findings = diagnose(facts)
    count = sum(map(answer.for_root, answer.remedies(findings)))
    assert count
    assert "\n".join(text.explain(facts, findings)).count("As root") == 1
    assert "\n".join(text.explain(facts, findings, verbose=True)).count("As root:") == count
    assert "\n".join(markdown.render(facts, findings)).count("As root:") == count
    assert page.render(facts, findings).count("As root:") == count
    assert "sudo" not in page.render(facts, findings)

"""Explanations of real logs as they are printed: REPRIEVE_UPDATE_GOLDENS=1 writes them anew, to be read before use."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from reprieve.machine.events import summarise, tell
from reprieve.machine.source import file_source
from reprieve.model.oom import OomReport
from reprieve.model.snapshot import Snapshot
from reprieve.oom.report import read_reports
from reprieve.rules import diagnose
from reprieve.show import answer, escape, markdown, text
from tests.logs_of import all_logs

TESTS = Path(__file__).parents[1]
LOGS = {
    "global": "084-ubuntu1404-mysqld-python-3.13.log",
    "unit": "lab/6.1.0-56-cloud-amd64__systemd-unit-memorymax.txt",
    "parent": "lab/7.3.4+deb13-cloud-amd64__memcg-nested.txt",
    "group": "lab/7.3.4+deb13-cloud-amd64__memcg-oom-group.txt",
    "user": "016-memcg-v2-rsync-user-slice-arch-6.7.log",
    "policy": "113-rocky8-memory-policy-numa-hash012.log",
    "panic": "001-memcg-v1-lxc-then-global-panic-5.15.log",
    "line": "135-debian-uwsgi-kill-line-only.log",
    "pod": "114-memcg-aks-oom-group-npd.log",
    "burst": "lab/7.3.4+deb13-cloud-amd64__global-shmem.txt",
    "killed-then-panic": "043-numa-random-no-killable-panic-5.8-next.log",
}


def newest(name: str) -> Snapshot:
    log = (TESTS / "logs" / LOGS[name]).read_text(errors="backslashreplace")
    ooms = [event for event in read_reports(log, Path(LOGS[name]).name) if isinstance(event, OomReport)]
    return Snapshot(ooms=tuple(ooms[-1:]), history=tuple(map(summarise, ooms)))


def page(name: str, form: str) -> str:
    facts = newest(name)
    findings = diagnose(facts)
    lines = {
        "txt": lambda: text.explain(facts, findings),
        "verbose.txt": lambda: text.explain(facts, findings, verbose=True),
        "md": lambda: markdown.render(facts, findings),
    }[form]()
    return "\n".join(lines) + "\n"


PRINTED = [(name, "txt") for name in LOGS]
PRINTED += [(name, form) for name in ("global", "unit", "policy") for form in ("verbose.txt", "md")]


@pytest.mark.parametrize(("name", "form"), PRINTED)
def test_it_is_printed_as_it_was(name: str, form: str) -> None:
    golden = TESTS / "pages" / f"{name}.{form}"
    printed = page(name, form)
    if os.environ.get("REPRIEVE_UPDATE_GOLDENS"):
        golden.write_text(printed)
    assert printed == golden.read_text()


@pytest.mark.parametrize("name", LOGS)
def test_half_a_screen_is_24_lines_of_80_columns(name: str) -> None:
    lines = page(name, "txt").splitlines()
    assert len(lines) <= 24
    assert not [line for line in lines if len(line) > 80 and "$ " not in line]  # a command is never cut


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("log", all_logs(), ids=lambda log: log.name)
def test_every_answer_is_24_lines_at_most_with_all_its_commands(log: Path, width: int) -> None:
    told = tell([file_source(str(log))], lambda _event: True, 1, ended=True)
    told = replace(told, gaps=(), allocation_failures=(), endings=())
    findings = diagnose(told)
    lines = list(text.explain(told, findings, width=width))
    assert len(lines) <= 24
    assert all(escape.columns(line) <= width for line in lines if "$ " not in line)
    for remedy in answer.remedies(findings)[:1] if told.ooms else ():
        assert sum("$ " in line for line in lines) == min(len(remedy.commands), 4)

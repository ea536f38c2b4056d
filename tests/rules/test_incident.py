"""Kills of one shortage are told together, and no others."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reprieve.machine.events import summarise, tell
from reprieve.machine.source import file_source
from reprieve.model.finding import NAME_END, NAME_START, Finding
from reprieve.model.oom import Kill, OomReport, OomSummary, Stamp
from reprieve.model.snapshot import Snapshot
from reprieve.oom.paths import workload
from reprieve.rules.incident import also_killed
from reprieve.show import answer, escape
from tests.rules.cases import LOGS, snapshot

SHMEM = "lab/7.3.4+deb13-cloud-amd64__global-shmem.txt"
LOWERED = "lab/7.3.4+deb13-cloud-amd64__memcg-lower-max.txt"
PANIC = "043-numa-random-no-killable-panic-5.8-next.log"


def told(*kills: tuple[float, int, str], limit: str | None = "/app", at: int = -1) -> list[Finding]:
    """What is said of one of these kills: (when, pid, name), the newest unless told otherwise."""
    ooms = [
        OomReport(
            line=number,
            stamp=Stamp(uptime_s=when),
            constraint="CONSTRAINT_MEMCG",
            limit_of=None if limit is None else workload(limit),
            kills=(Kill(line=number, pid=pid, comm=comm, anon_rss_bytes=1 << 20, file_rss_bytes=0),),
            lines=((number, f"Killed process {pid} ({comm})"),),
        )
        for number, (when, pid, comm) in enumerate(kills, 1)
    ]
    return list(also_killed(Snapshot(ooms=(ooms[at],), history=tuple(map(summarise, ooms)))))


def plain(text: str) -> str:
    return text.replace(NAME_START, "").replace(NAME_END, "")


def newest(log: str) -> Snapshot:
    """As `reprieve why` chooses what to explain."""
    return tell([file_source(str(LOGS / log))], lambda _event: True, 1, ended=True)


def test_a_kill_alone_has_no_others() -> None:
    assert not told((10, 7, "app"))


def test_what_was_killed_a_minute_and_more_before_is_of_another_shortage() -> None:
    assert not told((10, 7, "sh"), (70.1, 8, "app"))
    assert told((10, 7, "sh"), (70, 8, "app"))


def test_what_was_killed_in_another_boot_is_of_another_shortage() -> None:
    assert not told((5000, 7, "sh"), (10, 8, "app"))
    whole = newest(SHMEM)
    others = tuple(replace(event, boot_id=str(at)) for at, event in enumerate(whole.history))
    assert not list(also_killed(replace(whole, ooms=(replace(whole.ooms[0], boot_id="2"),), history=others)))


def test_a_program_that_is_started_anew_and_killed_again_is_no_single_shortage() -> None:
    assert not told((10, 7, "app"), (12, 9, "app"), (14, 11, "app"))
    assert told((10, 11, "app"), (12, 9, "app"), (14, 7, "app"))  # the last was there before the first was killed


def test_those_before_are_counted_by_name_and_the_first_is_named() -> None:
    (finding,) = told((10, 4, "mysqld"), (11, 9, "nginx"), (12, 3, "mysqld"), (14, 8, "sh"))
    assert plain(finding.claim) == (
        "3 others (mysqld ×2, nginx) were killed in the 4 s before, at the same limit; first mysqld (pid 4) with 1 MiB"
    )
    assert plain(finding.detail[0]) == "mysqld (pid 4) with 1 MiB, 4 s before (-:1)."
    assert len(finding.detail) == 3


def test_those_after_are_told_too_where_another_kill_than_the_newest_is_asked_for() -> None:
    (finding,) = told((10, 4, "mysqld"), (11, 9, "nginx"), (12, 3, "sh"), at=1)
    assert plain(finding.claim) == (
        "mysqld (pid 4) was killed 1 s before, at the same limit; it held 1 MiB; sh (pid 3) was killed 1 s after"
    )


def test_of_a_limit_that_is_not_named_it_is_likely_to_be_the_same() -> None:
    (finding,) = told((10, 4, "mysqld"), (11, 9, "nginx"), limit=None)
    assert finding.confidence == "likely"
    assert "at a limit that this text does not name" in finding.claim


def test_of_many_the_claim_has_four_names_and_the_detail_an_end() -> None:
    (finding,) = told(*((10 + at / 10, 500 - at, f"app{at}") for at in range(100)))
    assert "99 others (app0, app1, app2, app3 and 95 more)" in plain(finding.claim)
    assert len(finding.detail) == 9
    assert finding.detail[-1] == "So were 91 more."


@pytest.mark.parametrize("log", [SHMEM, LOWERED])
def test_where_others_died_the_finding_shows_a_line_of_the_report(log: str) -> None:
    (finding,) = also_killed(newest(log))
    assert "Killed process" in finding.evidence[0].text


def test_rather_than_a_report_that_found_nobody_the_kill_before_it_is_explained() -> None:
    told = newest(LOWERED)
    assert told.ooms[0].victim is not None
    assert told.history[-1].no_killable
    (finding,) = also_killed(told)
    assert finding.claim == "Within 0.1 s nobody was left to kill at the same limit"


def test_rather_than_a_kill_line_alone_the_report_that_follows_it_is_explained() -> None:
    told = newest("072-balloon-managed-underflow-5.4-next.log")
    assert told.ooms[0].memory is not None
    said = escape.plain("".join(answer.who(told.ooms[0], told.history)))
    assert said.startswith("login (pid 537), held 860 KiB, ")
    assert said.endswith("; 0.1 s later it happened again, and the text ends before it says to whom")


def test_a_report_whose_end_is_lost_is_not_explained_where_the_one_before_it_tells_of_memory() -> None:
    assert newest("004-i386-highmem-mkfs-wrapped-5.7rc3.log").ooms[0].victim is not None


def test_a_panic_is_headed_by_whom_the_kernel_killed_before_it() -> None:
    told = newest(PANIC)
    said = escape.plain("".join(answer.who(told.ooms[0], told.history)))
    assert said.startswith("dbus-daemon (pid 1155) of dbus.service, held 576 KiB, ")
    assert said.endswith("; 10 s later the kernel stopped the whole machine (panic)")
    assert answer.who(told.ooms[0])[0].startswith("nobody: the kernel stopped")


def test_a_storm_in_which_nobody_can_be_killed_has_no_others() -> None:
    found = list(also_killed(snapshot("lab/7.3.4+deb13-cloud-amd64__memcg-no-killable.txt")))
    assert found == []


def test_a_history_of_another_log_says_nothing() -> None:
    known: tuple[OomSummary, ...] = snapshot(SHMEM).history
    assert not list(also_killed(Snapshot(ooms=(replace(newest(SHMEM).ooms[0], source="x"),), history=known)))

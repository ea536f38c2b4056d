"""What `--redact` leaves of a report."""

import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from reprieve.model.finding import Gap
from reprieve.model.machine import Machine
from reprieve.model.oom import OomReport
from reprieve.model.snapshot import Snapshot
from reprieve.model.unit import Unit, UnitLine
from reprieve.oom.report import read_reports
from reprieve.rules import diagnose
from reprieve.show import jsonl, text
from reprieve.show.redact import Names, redact
from tests.show.examples import snapshot

LOGS = Path(__file__).parents[1] / "logs"
FULL = [
    "016-memcg-v2-rsync-user-slice-arch-6.7.log",
    "077-centos7-rackspace-mysqld-two-events-3.10.log",
    "084-ubuntu1404-mysqld-python-3.13.log",
    "088-arch-teamviewerd-chrome-journal-6.0.log",
    "101-memcg-docker-memorymonster-ubuntu-3.13.log",
    "113-rocky8-memory-policy-numa-hash012.log",
    "145-memcg-eks-kubelet-podruntime-slice-5.4.log",
]


def read(name: str) -> Snapshot:
    log = (LOGS / name).read_text(errors="backslashreplace")
    return Snapshot(ooms=tuple(event for event in read_reports(log, name) if isinstance(event, OomReport)))


def said(facts: Snapshot) -> str:
    return "\n".join(
        [*text.explain(facts, diagnose(facts), verbose=True), *jsonl.render(facts, diagnose(facts), verbose=True)]
    )


def test_nothing_becomes_nothing() -> None:
    assert redact(Snapshot()) == Snapshot()


def test_of_the_machine_nothing_is_left_the_names_and_files_of_its_units_neither() -> None:
    path = "/run/systemd/transient/secret.service"
    line = UnitLine(path=path, line=2, section="Service", key="MemoryMax", value="1G", text="MemoryMax=1G # secret")
    machine = Machine(units=(Unit(name="secret.service", fragment_path=path, lines=(line,)),))
    assert redact(Snapshot(machine=machine, machine_gaps=(Gap(place=path, reason="permission denied"),))) == Snapshot()


@pytest.mark.parametrize("name", FULL)
def test_findings_stay_the_same(name: str) -> None:
    facts = read(name)
    assert facts.ooms
    found = [(finding.code, finding.severity, finding.confidence) for finding in diagnose(facts)]
    assert [(finding.code, finding.severity, finding.confidence) for finding in diagnose(redact(facts))] == found


@pytest.mark.parametrize("name", FULL)
def test_figures_stay_the_same(name: str) -> None:
    facts = read(name)
    before, after = facts.ooms, redact(facts).ooms
    assert [oom.memory for oom in after] == [oom.memory for oom in before]
    assert [[kill.anon_rss_bytes for kill in oom.kills] for oom in after] == [
        [kill.anon_rss_bytes for kill in oom.kills] for oom in before
    ]
    assert [[task.pid for task in oom.tasks or ()] for oom in after] == [
        [task.pid for task in oom.tasks or ()] for oom in before
    ]


def test_a_workload_stays_of_its_kind() -> None:
    for name in FULL:
        facts = read(name)
        for before, after in zip(facts.ooms, redact(facts).ooms, strict=True):
            if before.workload is not None and after.workload is not None:
                assert (after.workload.kind, after.workload.manager, after.workload.qos) == (
                    before.workload.kind,
                    before.workload.manager,
                    before.workload.qos,
                )


@pytest.mark.parametrize(
    ("name", "secrets"),
    [
        ("016-memcg-v2-rsync-user-slice-arch-6.7.log", "run-u640|xxxxxxxxxxxxxxxxx"),
        ("077-centos7-rackspace-mysqld-two-events-3.10.log", "yum-cron|driveclient|nova-agent|fail2ban-server"),
        ("084-ubuntu1404-mysqld-python-3.13.log", "capstonealzheimer|Bochs|upstart-file-br|acpid"),
        ("088-arch-teamviewerd-chrome-journal-6.0.log", "teamviewerd|TeamViewer"),
        ("101-memcg-docker-memorymonster-ubuntu-3.13.log", "memorymonster|[1-9a-f][0-9a-f]{63}"),
        ("145-memcg-eks-kubelet-podruntime-slice-5.4.log", "podruntime"),
    ],
)
def test_names_are_gone_from_all_that_is_said(name: str, secrets: str) -> None:
    facts = read(name)
    assert re.search(secrets, said(facts))
    assert not re.search(secrets, said(redact(facts)))


def test_a_name_has_one_pseudonym_wherever_it_stands() -> None:
    oom = redact(snapshot("secretive")).ooms[0]
    assert {task.comm for task in oom.tasks or ()} == {"process-1"}
    assert oom.kills[0].comm == "process-1"
    assert oom.text(4) == "Memory cgroup out of memory: Killed process 508 (process-1) total-vm:21504kB"


def test_pseudonyms_last_from_one_snapshot_to_the_next() -> None:
    names = Names()
    redact(snapshot("first"), names)
    assert redact(snapshot("second"), names).ooms[0].kills[0].comm == "process-2"
    assert redact(snapshot("first"), names).ooms[0].kills[0].comm == "process-1"


def test_pseudonyms_are_numbered_as_the_names_are_met() -> None:
    lines = tuple((at, f"[{at:5}]     0 {at:5}     1      1    0     0 {name}") for at, name in enumerate("edcba", 1))
    said = redact(Snapshot(ooms=(OomReport(lines=lines),))).ooms[0].lines
    assert [text.rpartition("-")[2] for _, text in said] == ["1", "2", "3", "4", "5"]


@given(st.lists(st.text(alphabet="zq-^] /é", min_size=1, max_size=4)), st.text(alphabet="zq-^] /é", max_size=20))
@example(["z", "zq", "zq-z"], "zq-z zq-zq")
@example(["zq z", "z"], "zq zq z")
def test_the_longest_name_that_stands_as_a_word_is_replaced(secret: list[str], line: str) -> None:
    comms = [name for name in dict.fromkeys(secret) if Names().comm(name) != name]
    words = "|".join(map(re.escape, sorted(comms, key=len, reverse=True)))
    numbers = Names()
    told = {name: numbers.comm(name) for name in comms}
    wanted = re.sub(rf"(?<!\w)(?:{words})(?!\w)", lambda match: told[match[0]], line) if comms else line
    assert Names().replacing((), comms)(line) == wanted


def test_programs_known_to_all_keep_their_names() -> None:
    assert redact(snapshot("java")).ooms[0].kills[0].comm == "java"


def test_a_name_that_a_cut_line_holds_is_gone_too() -> None:
    oom = OomReport(
        lines=((1, "Killed process 7 (secretive"), (2, "[    7]     0     7     1     1    0     0 secretive"))
    )
    assert "secretive" not in str(redact(Snapshot(ooms=(oom,))))


def test_what_a_machine_is_made_of_is_left_out_whole() -> None:
    told = ("Hardware name: Acme X1, BIOS 7", "Modules linked in: acme_secret(OE) ext4", " Modules linked in:")
    oom = OomReport(lines=tuple(enumerate(told, 1)))
    assert [text for _, text in redact(Snapshot(ooms=(oom,))).ooms[0].lines] == [
        "Hardware name: (left out)",
        "Modules linked in: (left out)",
        " Modules linked in: (left out)",
    ]


@pytest.mark.parametrize("folder", ["/var/log", "/run/log", "/dev/shm", "/run/acme"])
def test_a_log_that_cannot_be_read_is_named_no_more_than_one_that_can(folder: str) -> None:
    gaps = (Gap(place=f"{folder}/acme/secret.log", reason="permission denied", hint="run it with sudo"),)
    assert redact(Snapshot(gaps=gaps)).gaps[0].place == "log-1"


@pytest.mark.parametrize(
    "place",
    [
        *("/dev/kmsg", "journal", "/var/log/kern.log", "/var/log/messages-20260101.gz", "/var/log/syslog.1"),
        *("/var/log/journal", "/sys/fs/pstore", "/sys/fs/pstore/dmesg-efi-170000000001", "/proc/*/smaps_rollup"),
    ],
)
def test_a_place_that_every_machine_has_keeps_its_name(place: str) -> None:
    gap = Gap(place=place, reason="permission denied")
    assert redact(Snapshot(gaps=(gap,))).gaps == (gap,)


def test_a_command_that_reads_a_source_names_it_as_the_rest_does() -> None:
    gap = Gap(place="/home/secret one/kern.log.zst", reason="", hint="zstd -dc < '/home/secret one/kern.log.zst' | x")
    assert redact(Snapshot(gaps=(gap,))).gaps == (Gap(place="log-1", reason="", hint="zstd -dc < log-1 | x"),)


@given(
    st.tuples(st.text(alphabet="zq\u202e |()", max_size=6), st.text(alphabet="zq\u202e |()", max_size=6)).map(
        lambda around: f"{around[0]}zq{around[1]}".strip().ljust(3, "z")
    )
)
def test_no_odd_name_comes_through(name: str) -> None:
    facts = Snapshot(ooms=snapshot(name).ooms)
    assert "zq" not in str([(oom.lines, oom.kills, oom.tasks, oom.workload, oom.host) for oom in redact(facts).ooms])

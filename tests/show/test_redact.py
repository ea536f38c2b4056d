"""What `--redact` leaves of a report."""

import re
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from reprieve.model.ending import Ending
from reprieve.model.finding import Gap
from reprieve.model.machine import Machine
from reprieve.model.oom import OomReport
from reprieve.model.snapshot import Snapshot
from reprieve.model.unit import Unit, UnitLine
from reprieve.oom.ending import read_endings
from reprieve.oom.report import read_reports
from reprieve.rules import diagnose
from reprieve.show import jsonl, markdown, page, text
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


EARLYOOM = (
    'Nov 23 14:05:26 lab earlyoom[700]: sending SIGKILL to process 4242 uid 1000 "zqbilling": oom_score 1200, '
    'VmRSS 2300 MiB, cmdline "/opt/zq/bin/zqbilling --db postgres://u:zqpw@zqdb/x VmRSS 1 MiB"'
)
OOMD = (
    "Nov 23 14:09:52 lab systemd-oomd[329]: Killed /zq.slice/zqjob.service due to memory pressure for /zq.slice being "
    "61.21% > 60.00% for > 1min 30s with reclaim activity"
)
NOHANG = (Path(__file__).parents[1] / "logs/lab/6.1.0-57-cloud-amd64__systemd-nohang.out.txt").read_text()


def every_form(facts: Snapshot) -> str:
    findings = diagnose(facts)
    return "\n".join(
        [
            *text.explain(facts, findings, verbose=False),
            *text.explain(facts, findings, verbose=True),
            *jsonl.render(facts, findings, verbose=True),
            *markdown.render(facts, findings),
            page.render(facts, findings),
        ]
    )


@pytest.mark.parametrize(
    ("line", "stays"),
    [
        (EARLYOOM, "oom_score 1200, VmRSS 2300 MiB"),
        (
            NOHANG.replace("eater", "zqbilling").replace("realpath: /", "realpath: /srv/zq/"),
            "MemAvailable [113 MiB, 24.1 %] <= soft_threshold_min_mem [117 MiB, 25.0 %]; SwapFree [0 MiB, 0.0 %] <= "
            "soft_threshold_min_swap [0 MiB, - %]; Vm, MiB: Size: 298, RSS: 298 (Anon: 297, File: 1, Shmem: 0), Swap: 0"
            "; The victim died in 0.267s; MemAvailable: 410.9 MiB, SwapFree: 0.0 MiB",
        ),
        (OOMD, "memory pressure for /slice-1.slice being 61.21% > 60.00% for > 1min 30s with reclaim activity"),
    ],
)
def test_of_what_a_daemon_said_its_figures_stay_and_no_name(line: str, stays: str) -> None:
    endings = read_endings(line)
    assert endings
    assert "zq" in every_form(Snapshot(endings=endings))
    redacted = redact(Snapshot(endings=endings))
    assert redacted.endings[0].reason == stays
    assert "zq" not in every_form(redacted)


@pytest.mark.parametrize(
    "words",
    [
        "CrashLoopBackOff",
        "The node was low on resource: memory",
        "The node had condition: [MemoryPressure]",
        "memory used (900) / total (1000) and swap used (950) / total (1000) being more than 90.00%",
        "Memory cgroup out of memory: Killed process 7 (java) total-vm:9kB, anon-rss:1kB, UID:0 oom_score_adj:0",
        "Out of memory: Kill process 7, UID 0, (java)",
    ],
)
def test_words_that_name_nobody_stay(words: str) -> None:
    for agent in ("kubernetes", "node-problem-detector"):
        (ending,) = redact(Snapshot(endings=(Ending(manager=agent, line=1, state_reason=words),))).endings
        assert ending.state_reason == words


SECRET = "zqsecret"
SAID = st.sampled_from(
    [
        "{}",
        "OOMKilled {}",
        "exited\n{}",
        'oom_score 1, VmRSS 2 MiB, cmdline "{}"',
        "memory pressure for {} being 1% > 2% for > 3s",
        "memory pressure for /a being 1% > 2% for > 3s {} being x",
        "memory pressure {}",
        "MemAvailable [1 MiB, 1 %] <= {} [1 MiB, 1 %]",
        "The victim died in 1s; {}",
        "The node was low on resource: {}",
        "The node was low on resource: memory. Container {} was using 1Ki",
        'Usage of EmptyDir volume "{}" exceeds the limit',
        "Killed process 7 ({}) total-vm:9kB",
        "Kill process 1 ({}) and Killed process 7 (java)",
        "Out of memory: Killed process 7 (java) {}",
    ]
).map(lambda form: form.format(SECRET))
STATE = ("name", "node", "container_id", "pod", "namespace", "pod_uid", "qos", "state", "state_reason", "reason")
MANAGERS = (
    *(
        "docker",
        "podman",
        "containerd",
        "cri",
        "kubernetes",
        "systemd",
        "systemd-oomd",
        "earlyoom",
        "nohang",
        "kubelet",
    ),
    "node-problem-detector",
)


@pytest.mark.parametrize("manager", MANAGERS)
@given(
    st.fixed_dictionaries({}, optional=dict.fromkeys(STATE, SAID)),
    st.sampled_from([None, True, False]),
    st.sampled_from([None, 1, 137]),
)
@settings(max_examples=12, deadline=None)
def test_nothing_a_stranger_may_write_of_an_end_comes_through(
    manager: str, said: dict[str, str], oom_killed: bool | None, exit_code: int | None
) -> None:
    ending = Ending(
        manager=manager,
        line=1,
        source=f"/{SECRET}/log",
        oom_killed=oom_killed if manager in MANAGERS[:6] else True,
        exit_code=exit_code,
        pid=7,
        **said,  # type: ignore[arg-type]
    )
    gap = Gap(place=f"/{SECRET}/log", reason=f"/{SECRET}/log is cut", hint=f"cat /{SECRET}/log")
    redacted = redact(Snapshot(endings=(ending,), gaps=(gap,)))
    assert SECRET not in str((redacted.endings, redacted.gaps))
    assert SECRET not in every_form(redacted)


def test_every_text_of_an_ending_is_looked_at() -> None:
    texts = {field.name for field in fields(Ending) if field.type in (str, str | None)}
    assert texts == {*STATE, "manager", "source"}

"""What is said of a manager's status, and that the place it points to holds the answer."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reprieve.model.ending import Ending
from reprieve.model.finding import Finding, quote
from reprieve.model.oom import Stamp
from reprieve.model.snapshot import Snapshot
from reprieve.rules import diagnose
from reprieve.rules.ending import how
from reprieve.show.escape import plain
from reprieve.show.redact import redact
from tests.rules.cases import CASES, snapshot
from tests.rules.test_cases import ALL_LOGS

LOOKED_UP = {
    "the container's id leads to the kill in its host's log": "ended-by-oom",
    "the id of a container Podman calls not killed leads to its kill": "killed-without-proof",
    "the victim's name leads to its kill in its node's log": "told-by-node-agent",
    "the limit that failed the page fault stands before it in the log": "not-short",
}


def said(code: str, *endings: Ending) -> list[Finding]:
    return [finding for finding in diagnose(Snapshot(endings=endings)) if finding.code == code]


@pytest.mark.parametrize("log", ALL_LOGS)
def test_no_real_log_has_a_field_that_no_kernel_prints(log: str) -> None:
    assert "unknown-field" not in {finding.code for finding in diagnose(snapshot(log))}


def test_what_runs_or_ended_well_is_no_finding() -> None:
    running = Ending(manager="docker", line=1, name="web", state="running", oom_killed=False)
    ended = Ending(manager="systemd", line=1, name="a.service", reason="success", exit_code=0, oom_killed=False)
    assert diagnose(Snapshot(endings=(running, ended))) == []


def test_systemd_names_whoever_sent_the_signal_when_it_was_systemd() -> None:
    stopped = Ending(manager="systemd", line=1, name="a.service", reason="timeout", signal=9, oom_killed=False)
    assert diagnose(Snapshot(endings=(stopped,))) == []


def test_a_container_that_is_killed_over_and_over_is_one_finding() -> None:
    died = Ending(manager="docker", line=1, name="web", container_id="ab", state="die", oom_killed=True)
    ends = [replace(died, line=line) for line in (1, 5, 9)]
    (finding,) = said("ended-by-oom", *ends)
    assert "3 times" in finding.claim
    assert [line.line for line in finding.evidence] == [1, 5, 9]


def test_what_a_status_tells_of_the_end_that_an_event_told_is_no_second_end() -> None:
    event = Ending(manager="docker", line=1, name="web", state="die", reason="oom", oom_killed=True)
    event = replace(event, finished=Stamp(text="1795441143", wall_s=1795441143.0))
    status = replace(event, line=9, state="exited", reason=None)
    for finished, is_second in (
        (Stamp(text="2026-11-23T13:39:03.28Z", wall_s=1795441143.28), False),
        (None, False),
        (Stamp(text="2026-11-23T13:49:03Z", wall_s=1795441743.0), True),
    ):
        for ends in ((event, replace(status, finished=finished)), (replace(status, finished=finished), event)):
            (finding,) = said("ended-by-oom", *ends)
            assert ("memory 2 times (" in finding.claim) == is_second
            assert len(finding.evidence) == 2


@pytest.mark.parametrize(
    ("ending", "said"),
    [
        (Ending(manager="docker", line=1), "its end is not told"),
        (Ending(manager="docker", line=1, state="created", exit_code=0), "created"),
        (Ending(manager="docker", line=1, state="die", exit_code=1), "ended with status 1"),
        (Ending(manager="docker", line=1, state="exited", exit_code=1), "exited with status 1"),
        (Ending(manager="kubernetes", line=1, state="Terminated", exit_code=0), "Terminated with status 0"),
        (Ending(manager="kubernetes", line=1, state="waiting", exit_code=1), "waiting, ended with status 1 before"),
        (Ending(manager="systemd", line=1, state="failed", signal=11), "failed by signal 11"),
    ],
)
def test_how_one_is_stands_in_its_managers_words(ending: Ending, said: str) -> None:
    assert plain(how(ending)) == said


def test_a_child_that_was_killed_is_told_from_the_first_process() -> None:
    (child,) = said("ended-by-oom", Ending(manager="docker", line=1, name="web", exit_code=0, oom_killed=True))
    assert any("a child was killed" in sentence for sentence in child.detail)


def test_a_name_that_looks_like_an_option_is_given_to_no_command() -> None:
    hostile = Ending(manager="kubernetes", line=1, name="x", pod="--all", namespace="default", oom_killed=True)
    (finding,) = said("ended-by-oom", hostile)
    assert all("--all" not in argv for remedy in finding.remedies for argv in remedy.commands)


@pytest.mark.parametrize("name", ["a-long-name-of-a-container", "--follow"])
def test_a_container_whose_id_is_not_told_is_asked_for_by_its_whole_name(name: str) -> None:
    (finding,) = said("ended-by-oom", Ending(manager="docker", line=1, name=name, oom_killed=True))
    why, logs = finding.remedies[0].commands
    assert why == ("reprieve", "why", f"--cgroup={name}")
    assert logs == ("docker", "logs", "--tail=50", "--", name)


@pytest.mark.parametrize(
    ("code", "status", "log"),
    [
        ("ended-by-oom", "../captures/docker-inspect-oom-pid1.json", "captures/dmesg-docker-oom.txt"),
        ("ended-by-oom", "../captures/docker-inspect-oom-child.json", "captures/dmesg-docker-oom.txt"),
        ("killed-without-proof", "../captures/podman-inspect-oom-runc.json", "captures/dmesg-podman-oom.txt"),
    ],
)
def test_the_command_it_gives_finds_the_kill_in_the_log_of_the_host(code: str, status: str, log: str) -> None:
    (finding,) = (finding for finding in diagnose(snapshot(status)) if finding.code == code)
    (option,) = (
        word for remedy in finding.remedies for argv in remedy.commands for word in argv if word.startswith("--cgroup=")
    )
    group = option.removeprefix("--cgroup=")
    assert any(oom.workload is not None and group in oom.workload.path for oom in snapshot(log).ooms)


def test_the_name_a_node_tells_finds_the_kills_it_tells_of() -> None:
    (finding,) = (one for one in diagnose(snapshot("../captures/k8s-events.json")) if one.code == "told-by-node-agent")
    (option,) = (word for argv in finding.remedies[0].commands for word in argv if word.startswith("--name="))
    told = {ending.pid for ending in snapshot("../captures/k8s-events.json").endings}
    found = {
        kill.pid
        for oom in snapshot("captures/dmesg-docker-oom.txt").ooms
        for kill in oom.kills
        if kill.comm is not None and option.removeprefix("--name=") in kill.comm
    }
    assert len(found & told) >= 3


def test_every_case_of_advice_is_one_of_these() -> None:
    assert {name for code in LOOKED_UP.values() for name in CASES[code].lives} == set(LOOKED_UP)


def test_the_limit_that_failed_the_page_fault_stands_before_it_in_the_log() -> None:
    log = CASES["not-short"].speaks[0]
    (finding,) = (finding for finding in diagnose(snapshot(log)) if finding.code == "not-short")
    at_limit, stopped = snapshot(log).ooms
    assert at_limit.limit_of is not None
    assert quote(at_limit.limit_of.name) in finding.remedies[0].title
    assert at_limit.trigger is not None
    assert stopped.trigger is not None
    assert at_limit.trigger.pid == stopped.trigger.pid


def test_a_kill_for_a_failed_probe_is_the_kubelets_and_none_for_memory() -> None:
    (finding,) = diagnose(snapshot("../captures/k8s-describe-liveness.txt"))
    assert (finding.code, finding.confidence) == ("killed-without-proof", "likely")
    assert plain(finding.claim) == (
        "The kubelet ended container app of pod stuck in namespace shop by SIGKILL (exit status 137 = 128 + 9), as its "
        "liveness probe had failed: no OOM kill"
    )
    assert finding.remedies[0].commands == (("kubectl", "describe", "pod", "stuck", "-n", "shop"),)
    (redacted,) = diagnose(redact(snapshot("../captures/k8s-describe-liveness.txt")))
    assert "as its liveness probe had failed" in redacted.claim
    assert "stuck" not in redacted.claim
    (ending,) = snapshot("../captures/k8s-describe-liveness.txt").endings
    hostile = replace(ending, pod="--all")
    assert [one.remedies[0].commands for one in diagnose(Snapshot(endings=(hostile,)))] == [()]


@pytest.mark.parametrize("name", ["k8s-get-events-liveness.txt", "k8s-get-events-wide-liveness.txt"])
def test_an_event_of_a_failed_probe_alone_is_the_kubelets_doing_too(name: str) -> None:
    (finding,) = diagnose(snapshot(f"../captures/{name}"))
    assert (finding.code, finding.confidence) == ("killed-without-proof", "likely")
    claim = "The kubelet ended container app of pod stuck, as its liveness probe had failed: no OOM kill"
    assert plain(finding.claim) == claim
    assert "not with which status it ended" in finding.detail[0]
    assert finding.remedies[0].commands == (("kubectl", "describe", "pod", "stuck"),)

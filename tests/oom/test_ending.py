import json
import random
import re
import subprocess
import sys
import textwrap
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from reprieve.model.ending import Ending
from reprieve.oom.ending import read_endings
from reprieve.oom.manifest import objects

CAPTURES = Path(__file__).parents[1] / "captures"
LAB = Path(__file__).parents[1] / "logs" / "lab"
MIB = 1024 * 1024
PASTES = sorted(path for path in CAPTURES.iterdir() if path.suffix in (".json", ".jsonl", ".txt"))
UNITS = "6.1.0-56-cloud-amd64__systemd-unit-memorymax.out.txt"


def endings(name: str) -> tuple[Ending, ...]:
    return read_endings((CAPTURES / name).read_text())


def ending(name: str) -> Ending:
    [only] = endings(name)
    return only


@pytest.mark.parametrize("name", ["k8s-node.json", "docker-stats-api-live.json", "guide-snippets.log", "README.md"])
def test_what_tells_of_no_end_gives_none(name: str) -> None:
    assert endings(name) == ()


@pytest.mark.parametrize("path", sorted(LAB.glob("*.txt")), ids=lambda path: path.name)
def test_a_kernel_log_tells_of_no_end(path: Path) -> None:
    if not path.name.endswith(".out.txt"):
        assert read_endings(path.read_text(errors="backslashreplace")) == ()


@pytest.mark.parametrize(
    ("name", "exit_code", "oom_killed"),
    [
        ("docker-inspect-137-not-oom.json", 137, False),  # docker kill
        ("docker-inspect-oom-pid1.json", 137, True),
        ("docker-inspect-oom-child.json", 0, True),  # the flag stands though all ended well
        ("docker-inspect-oom-child-137.json", 137, True),
        ("docker-inspect-oom-restarts.json", 137, True),
        ("docker26-inspect-oom.json", 137, True),
        ("docker-inspect-live-updated.json", None, False),  # it runs: its exit code of 0 says nothing
        ("podman-inspect-oom-runc.json", 137, False),  # a kill that Podman 4 does not tell
        ("podman-inspect-oom-child-runc.json", 0, False),
        ("podman5-inspect-oom-runc.json", 137, True),
    ],
)
def test_inspect_tells_exit_code_and_flag_and_nothing_is_concluded(
    name: str, exit_code: int | None, oom_killed: bool
) -> None:
    told = ending(name)
    assert (told.exit_code, told.oom_killed) == (exit_code, oom_killed)
    assert told.manager == ("podman" if name.startswith("podman") else "docker")


def test_inspect_tells_name_limits_restarts_and_times() -> None:
    told = ending("docker-inspect-oom-restarts.json")
    assert (told.name, told.state, told.restarts) == ("loop1", "exited", 3)
    assert told.container_id == "90725b755351ce1adc67ff7fdcdb8160d6def56e7e1b558ee0875cbf199f6442"
    assert (told.memory_limit_bytes, told.memory_and_swap_limit_bytes) == (32 * MIB, 64 * MIB)
    assert told.finished is not None
    assert told.finished.text == "2026-11-23T13:39:08.535430321Z"
    assert told.finished.certain


def test_a_limit_that_is_not_set_is_max_and_one_that_is_not_told_is_none() -> None:
    assert ending("docker-inspect-live-updated.json").memory_and_swap_limit_bytes == "max"
    [state_alone] = read_endings('{"Status":"exited","Running":false,"OOMKilled":true,"ExitCode":137}')
    assert (state_alone.memory_limit_bytes, state_alone.oom_killed) == (None, True)


def test_time_of_an_end_that_has_not_come_is_none() -> None:
    assert ending("docker-inspect-live-updated.json").finished is None


def test_docker_events_tie_a_kill_to_the_end_of_its_container() -> None:
    told = endings("docker-events-oom.jsonl")
    assert [(end.name, end.exit_code, end.oom_killed) for end in told] == [
        ("oom1", 137, True),
        ("oom2", 0, True),
        ("oom3", 137, True),
        ("kill1", 137, None),
        *[("loop1", 137, True)] * 4,
        ("live1", 137, None),
    ]


def as_lines(events: str) -> str:
    """The same as `docker events` prints them."""
    lines = []
    for event in map(json.loads, events.splitlines()):
        at = datetime.fromtimestamp(event["time"], UTC).strftime("%Y-%m-%dT%H:%M:%S")
        about = ", ".join(f"{name}={value}" for name, value in sorted(event["Actor"]["Attributes"].items()))
        date = f"{at}.{event['timeNano'] % 10**9:09}Z"
        lines.append(f"{date} {event['Type']} {event['Action']} {event['Actor']['ID']} ({about})\n")
    return "".join(lines)


@pytest.mark.parametrize("name", ["docker-events-oom.jsonl", "docker26-event-oom.jsonl"])
def test_docker_events_as_lines_tell_the_same(name: str) -> None:
    text = (CAPTURES / name).read_text()
    told, expected = read_endings(as_lines(text)), read_endings(text)
    assert told
    dates = [[end.finished.wall_s for end in ends if end.finished] for ends in (told, expected)]
    assert dates[0] == pytest.approx(dates[1], abs=1)
    assert [replace(end, finished=None) for end in told] == [replace(end, finished=None) for end in expected]


def test_a_label_of_a_container_is_not_its_name() -> None:
    event = "2026-11-23T13:39:03.123456789Z container oom 0123456789ab (image=x, {}name=web)\n"
    (told,) = read_endings(event.format(""))
    assert (told.name, told.oom_killed, told.manager) == ("web", True, "docker")
    (told,) = read_endings(event.format("label=a, name=mysql, "))
    assert told.name is None
    (told,) = read_endings(event.format("label=two\nlines, "))
    assert (told.container_id, told.name) == ("0123456789ab", None)


def test_a_kill_in_a_container_that_lives_on_is_told_without_an_end() -> None:
    told = endings("docker26-event-oom.jsonl")
    assert [(end.name, end.exit_code, end.oom_killed) for end in told] == [("o1", None, True), ("o2", None, True)]


def test_podman_events_tell_the_end_alone() -> None:
    told = endings("podman-events.jsonl")
    assert {end.oom_killed for end in told} == {None}
    assert [(end.name, end.exit_code) for end in told[:2]] == [("oom-runc", 137), ("oomc-runc", None)]


def test_crictl_inspect_tells_pod_limit_and_end() -> None:
    told = ending("crictl-inspect-oom.json")
    assert (told.manager, told.pod, told.namespace, told.name) == ("cri", "web", "shop", "hog")
    assert told.container_id == "9b094a104aa1ec1fd3423a979679afdbfec57178bbb88e5cdc58b0d0a1d026bf"
    assert (told.state, told.reason, told.exit_code, told.oom_killed) == ("exited", "OOMKilled", 137, True)
    assert told.memory_limit_bytes == 64 * MIB
    assert told.finished is not None
    assert told.finished.text == "2026-11-29T05:54:58.483044054Z"
    other = ending("crictl-inspect-137-not-oom.json")
    assert (other.reason, other.exit_code, other.oom_killed) == ("Error", 137, False)


def test_of_a_container_that_runs_crictl_tells_no_end() -> None:
    text = (CAPTURES / "crictl-inspect-oom.json").read_text().replace("CONTAINER_EXITED", "CONTAINER_RUNNING")
    [told] = read_endings(text)
    assert (told.state, told.exit_code, told.reason, told.oom_killed, told.finished) == ("running", *[None] * 4)


@pytest.mark.parametrize("status", ["{}", "7", '{"state": 7}', '{"state": "CONTAINER_EXITED", "labels": 7}'])
def test_what_is_no_status_of_a_runtime_is_no_crash(status: str) -> None:
    told = read_endings(f'{{"status": {status}, "info": ["CONTAINER_EXITED", "OOMKilled"]}}')
    assert [end.oom_killed for end in told] == [None] * ("EXITED" in status)


def test_containerd_events_tell_kill_and_exit() -> None:
    told = ending("ctr-events.txt")
    assert (told.container_id, told.namespace, told.exit_code, told.oom_killed) == ("c1", "default", 137, True)


def test_an_exec_in_a_container_is_not_its_end() -> None:
    text = (CAPTURES / "ctr-events.txt").read_text().replace('"id":"c1","pid"', '"id":"exec1","pid"')
    [told] = read_endings(text)
    assert (told.exit_code, told.oom_killed) == (None, True)


@pytest.mark.parametrize("name", ["k8s-pod-oomkilled-crashloop.json", "k8s-describe-loop.txt"])
def test_a_pod_in_a_crash_loop_is_told_alike_by_json_and_describe(name: str) -> None:
    told = ending(name)
    assert (told.pod, told.namespace, told.name, told.qos) == ("loop", "default", "hog", "Burstable")
    assert told.container_id == "118de893d888ff87c1c786ca7fcec1a20f1ccf343dcffa28c5969df56056ac1a"
    assert (told.reason, told.exit_code, told.oom_killed, told.restarts) == ("OOMKilled", 137, True, 2)
    assert (told.state or "").lower() == "waiting"
    assert told.state_reason == "CrashLoopBackOff"
    assert told.memory_limit_bytes == 64 * MIB
    assert told.started is not None
    assert told.finished is not None
    assert (told.started.wall_s, told.finished.wall_s) == (1795443280.0, 1795443282.0)


def test_a_pod_that_is_not_restarted_has_ended() -> None:
    told = ending("k8s-pod-oomkilled-never.json")
    assert (told.state, told.state_reason, told.reason) == ("terminated", None, "OOMKilled")
    assert told.pod_uid == "7c25c128-e288-4d00-9d42-b3fdaa7fe6e1"


def test_a_description_without_the_containers_id_or_a_part_of_it_tells_of_the_end() -> None:
    whole = (CAPTURES / "k8s-describe-loop.txt").read_text()
    (known,) = read_endings(whole)
    (without,) = read_endings("".join(line for line in whole.splitlines(True) if "Container ID" not in line))
    assert without == replace(known, container_id=None)
    start, end = whole.index("    Last State:"), whole.index("    Ready:  ")
    for indent in ("", "    "):
        part = "".join(f"{indent}{line}" for line in textwrap.dedent(whole[start:end]).splitlines(True))
        (told,) = read_endings(part)
        assert (told.reason, told.exit_code, told.oom_killed, told.line) == ("OOMKilled", 137, True, 1)
        assert (told.finished, told.name) == (known.finished, None)
    for other in (
        "State: Terminated\n",
        "State:  Terminated\nReason: x\n",
        "  State: Running\n    Reason: OOMKilled\n",
    ):
        assert read_endings(other) == ()


# What mails, tickets and chats do to the lines of a paste.
SPOILT = {
    "quoted": lambda line: f"> {line}",
    "quoted without a blank": lambda line: f">{line}",
    "quoted twice": lambda line: f"> > {line}",
    "barred": lambda line: f"| {line}",
    "indented": lambda line: f"    {line}",
    "indented by a tab": lambda line: f"\t{line}",
    "tabs for blanks": lambda line: line.replace("  ", "\t"),
    "stripped": str.lstrip,
    "squeezed": lambda line: re.sub(" +", " ", line),
    "stripped and squeezed": lambda line: re.sub(" +", " ", line.strip(" ")),
    "of Windows": lambda line: line.replace("\n", "\r\n"),
    "of a web page": lambda line: line.replace(" ", "\xa0"),
}


def spoilt(name: str, how: str) -> str:
    return "".join(map(SPOILT[how], (CAPTURES / name).read_text().splitlines(True)))


@pytest.mark.parametrize("how", SPOILT)
@pytest.mark.parametrize("name", ["k8s-describe-loop.txt", "k8s-describe-evicted.txt", "k8s-describe-liveness.txt"])
def test_a_description_in_a_mail_a_ticket_or_a_chat_tells_the_same(name: str, how: str) -> None:
    assert read_endings(spoilt(name, how)) == endings(name)


@pytest.mark.parametrize("how", SPOILT)
def test_an_end_cut_out_of_it_tells_the_same_there(how: str) -> None:
    lines = spoilt("k8s-describe-loop.txt", how).splitlines(True)
    (first,) = [number for number, line in enumerate(lines) if "Last" in line and "Terminated" in line]
    (told,) = read_endings("".join(lines[first : first + 5]))
    (known,) = endings("k8s-describe-loop.txt")
    assert (told.reason, told.exit_code, told.finished) == (known.reason, known.exit_code, known.finished)


@pytest.mark.parametrize("how", ["quoted", "barred", "indented by a tab", "stripped", "of Windows"])
@pytest.mark.parametrize("name", ["docker-inspect-oom-pid1.json", "k8s-pod-oomkilled-never.json", "ctr-events.txt"])
def test_quoted_words_of_other_managers_tell_the_same(name: str, how: str) -> None:
    if name != "ctr-events.txt" or "quoted" in how:
        assert read_endings(spoilt(name, how)) == endings(name)


def test_the_state_cut_out_of_docker_inspect_tells_of_the_end() -> None:
    lines = (CAPTURES / "docker-inspect-oom-pid1.json").read_text().splitlines(True)
    (known,) = endings("docker-inspect-oom-pid1.json")
    first = next(number for number, line in enumerate(lines) if '"State"' in line)
    for part in (lines[:40], lines[first:], lines[first : first + 14], [f"> {line}" for line in lines[first:40]]):
        (told,) = read_endings("".join(part))
        assert (told.manager, told.oom_killed, told.exit_code) == ("docker", True, 137)
        assert (told.finished, told.name) == (known.finished, None)


def test_a_part_of_a_pods_json_tells_of_the_end() -> None:
    pod = json.loads((CAPTURES / "k8s-pod-oomkilled-crashloop.json").read_text())
    statuses = pod["status"]["containerStatuses"]
    last = statuses[0]["lastState"]
    keyed = [
        f'"{key}": {json.dumps(value, indent=2)},\n' for key, value in (("containerStatuses", statuses), *last.items())
    ]
    keyed.append(f'  "lastState": {json.dumps(last)},\n  "name": "hog",\n')
    bare = [json.dumps(value) for value in (statuses, statuses[0], last, last["terminated"])]
    for part in (*keyed, *bare):
        (told,) = read_endings(part)
        assert (told.manager, told.reason, told.exit_code, told.oom_killed) == ("kubernetes", "OOMKilled", 137, True)
        assert told.finished is not None
    assert only_names(keyed[0]) == only_names(bare[1]) == ["hog"]


def only_names(text: str) -> list[str | None]:
    return [told.name for told in read_endings(text)]


@pytest.mark.parametrize(
    "text",
    [
        '{"exitCode": 137, "msg": "OOMKilled"}',
        '{"terminated": true, "reason": "OOMKilled"}',
        '{"reason": "Evicted", "terminated": {}}',
        '"State": {"Name": "OOMKilled"}',
        '"state": {"waiting": {"reason": "OOMKilled"}}',
    ],
)
def test_json_of_other_programs_tells_of_no_end(text: str) -> None:
    assert read_endings(text) == ()


def test_two_pods_described_one_after_the_other_are_kept_apart() -> None:
    text = (CAPTURES / "k8s-describe-loop.txt").read_text()
    first, second = read_endings(text + "\n\n" + text.replace("loop", "other"))
    assert (first.pod, second.pod) == ("loop", "other")
    assert second.line > first.line


def test_several_pods_of_a_list_are_all_told() -> None:
    pods = [json.loads((CAPTURES / f"k8s-pod-oomkilled-{name}.json").read_text()) for name in ("never", "crashloop")]
    told = read_endings(json.dumps({"kind": "List", "items": pods}))
    assert [end.pod for end in told] == ["hog", "loop"]


def test_a_kubelets_events_tell_of_each_kill_once() -> None:
    told = endings("k8s-events.json")
    assert {(one.manager, one.node, one.name, one.reason, one.oom_killed) for one in told} == {
        ("kubelet", "lab-node", "hog", "SystemOOM", True)
    }
    pids = [11213, 12964, 13182, 13376, 13646, 13721, 13798, 13875, 21596, 9254]
    assert [one.pid for one in told] == pids
    assert [one.state_reason for one in told if one.state_reason] == ["combined from similar events"]
    assert {one.finished.text for one in told if one.finished} == {"2026-11-23T14:11:44Z", "2026-11-23T14:11:46Z"}


def test_rows_of_events_tell_which_node_and_which_process() -> None:
    described = endings("k8s-describe-node.txt")
    assert [(one.node, one.name, one.pid) for one in described] == [
        ("node-9f4e", None, None),
        ("node-9f4e", "stress ng", 470521),
    ]
    listed = [one for one in endings("k8s-get-events.txt") if one.reason != "Evicted"]
    assert [(one.manager, one.node, one.name, one.pid, one.line) for one in listed] == [
        ("kubelet", "node-9f4e", "stress", 470521, 3),
        ("node-problem-detector", "node-9f4e", "stress", 68061, 5),
    ]


def test_an_eviction_is_none_of_the_kernels_kills_however_it_is_told() -> None:
    (described,) = endings("k8s-describe-evicted.txt")
    words = (
        "The node was low on resource: memory. Container crawler was using 9402820Ki, which exceeds its request of 7G."
    )
    pod = {"metadata": {"name": "crawler-79f7cbc6cf-rzck9", "namespace": "prod"}, "spec": {"nodeName": "node-35dd7b4d"}}
    status = {"phase": "Failed", "reason": "Evicted", "message": words, "qosClass": "Burstable"}
    (as_json,) = read_endings(json.dumps(pod | {"status": status}))
    (row,) = read_endings(
        "NAMESPACE   NAME   READY   STATUS\nprod   crawler-79f7cbc6cf-rzck9   0/1   Evicted   0   3d\n"
    )
    for told in (described, as_json, row):
        assert (told.manager, told.pod, told.namespace) == ("kubernetes", "crawler-79f7cbc6cf-rzck9", "prod")
        assert (told.reason, told.oom_killed) == ("Evicted", None)
    assert (described.state_reason, as_json.state_reason, row.state_reason) == (words, words, None)
    assert (described.node, as_json.node) == ("node-35dd7b4d", "node-35dd7b4d")
    listed = [one for one in endings("k8s-get-events.txt") if one.reason == "Evicted"]
    assert [(one.pod, one.line) for one in listed] == [("worker-0", 6), ("worker-1", 8)]


@pytest.mark.parametrize("text", ["He was Evicted in 2019", "SystemOOM", "Warning  SystemOOM  node/a  and so on"])
def test_words_of_kubelets_in_a_sentence_tell_of_nothing(text: str) -> None:
    assert read_endings(text) == ()


def test_systemctl_show_and_status_tell_one_unit_alike() -> None:
    shown, status = read_endings((LAB / UNITS).read_text())
    assert shown.name == status.name == "leaky.service"
    assert shown.reason == status.reason == "oom-kill"
    assert shown.signal == status.signal == 9
    assert shown.oom_killed is status.oom_killed is True
    assert shown.exit_code is status.exit_code is None
    assert (shown.memory_limit_bytes, shown.restarts) == (40 * MIB, 0)
    assert status.finished is not None
    assert status.finished.text == "Mon 2026-11-23 14:08:41 UTC"


def test_on_cgroup_v1_systemd_saw_a_signal_and_no_more() -> None:
    name = UNITS.replace("6.1.0-56-cloud-amd64", "5.10.0-46-cloud-amd64-legacyv1")
    for told in read_endings((LAB / name).read_text()):
        assert (told.reason, told.signal, told.oom_killed) == ("signal", 9, False)


def test_an_exit_is_no_signal_and_a_running_unit_has_not_finished() -> None:
    text = (LAB / UNITS).read_text()
    exited = text.replace("ExecMainCode=2", "ExecMainCode=1").replace("ExecMainStatus=9", "ExecMainStatus=137")
    assert next((end.exit_code, end.signal) for end in read_endings(exited)) == (137, None)
    running = "● nginx.service - web\n     Active: active (running) since Mon 2026-11-23 14:08:41 UTC; 3s ago\n"
    [told] = read_endings(running)
    assert (told.state, told.reason, told.finished, told.oom_killed) == ("active", None, None, None)


def test_a_prompt_and_other_words_around_a_paste_do_no_harm() -> None:
    paste = (CAPTURES / "docker-inspect-oom-pid1.json").read_text()
    told = read_endings(f"Hi all,\n[1] look at this:\n$ docker inspect oom1\n{paste}\n{{ nothing\n{paste}")
    assert [end.name for end in told] == ["oom1", "oom1"]
    assert told[0].line == 4


def test_half_a_surrogate_pair_in_a_name_becomes_text() -> None:
    [told] = read_endings('{"Name":"/a\\ud800b","State":{"OOMKilled":true,"ExitCode":true,"Running":"x"}}')
    assert told.name == "a\\ud800b"
    assert told.exit_code is None


def test_a_number_that_no_manager_writes_is_not_told() -> None:
    event = '{"Type":"container","Action":"die","time":%s,"Actor":{"ID":"x","Attributes":{"exitCode":"%s"}}}'
    [told] = read_endings(event % ("9" * 400, 1 << 63))
    assert (told.container_id, told.finished, told.exit_code) == ("x", None, None)


def test_a_container_whose_name_is_no_text_has_none() -> None:
    told = read_endings(
        '{"spec":{"containers":[{"name":["a"]}]},"status":{"containerStatuses":[{"name":["a"],"restartCount":2}]}}'
    )
    assert [(end.name, end.restarts) for end in told] == [(None, 2)]


def test_a_hundred_thousand_ends_are_told_with_their_lines() -> None:
    assert [end.line for end in read_endings('{"OOMKilled":true}\n' * 100_000)] == list(range(1, 100_001))


@pytest.mark.parametrize("start", ["[1,\n" * 900 + "1,\n" * 600_000, "[\n" * 1_000_000])
def test_brackets_that_are_never_closed_are_not_read_again_and_again(start: str) -> None:
    told = read_endings(f'{{"OOMKilled":true}}\n{start}')
    assert [end.line for end in told] == [1]


@pytest.mark.parametrize("bomb", ["[" * 100_000, '{"OOMKilled":' * 50_000, '[\n"OOMKilled"' * 20_000, "\n" * 200_000])
def test_a_text_that_is_all_brackets_ends(bomb: str) -> None:
    assert read_endings(f'"OOMKilled"\n{bomb}') == ()


@pytest.mark.parametrize("path", [*PASTES, LAB / UNITS], ids=lambda path: path.name)
@settings(max_examples=30, deadline=None)
@given(seed=st.integers())
def test_a_damaged_paste_raises_nothing(path: Path, seed: int) -> None:
    text = path.read_text()
    chance = random.Random(seed)
    at, to = sorted(chance.randrange(len(text)) for _ in range(2))
    for damaged in (
        text[:at],
        text[at:],
        text[:at] + text[to:],
        text[:at] + chance.choice('{}[]":\n\0\ud800') + text[at:],
    ):
        for told in read_endings(damaged):
            str(told).encode()


def test_a_journal_tells_who_killed_before_the_kernel_had_to() -> None:
    [*_, oomd] = read_endings((LAB / "6.1.0-56-cloud-amd64__systemd-systemd-oomd.out.txt").read_text())
    assert (oomd.manager, oomd.name, oomd.oom_killed) == ("systemd-oomd", "press.service", True)
    assert (oomd.reason or "").startswith("memory pressure for /system.slice/press.service being 24.93% > 5.00%")
    [early] = read_endings((LAB / "6.1.0-56-cloud-amd64__systemd-earlyoom.out.txt").read_text())
    assert (early.manager, early.name, early.pid, early.signal) == ("earlyoom", "eater", 443, 15)
    assert early.finished is not None
    assert early.finished.text == "Nov 23 14:05:32"


def test_what_systemd_says_of_a_kill_is_told_in_all_its_words() -> None:
    """Those of a user's manager too; what systemd-oomd tells itself is told once."""
    new = "May  2 19:40:40 lab systemd[1879]: bot.service: The kernel OOM killer killed some processes in this unit.\n"
    [bot] = read_endings(new)
    assert (bot.manager, bot.name, bot.oom_killed) == ("systemd", "bot.service", True)
    unit = "May  2 19:40:41 lab systemd[1879]: app-a.scope: systemd-oomd killed some process(es) in this unit.\n"
    [app] = read_endings(unit)
    assert (app.manager, app.name, app.reason) == (
        "systemd-oomd",
        "app-a.scope",
        "killed some process(es) in this unit",
    )
    itself = "May  2 19:40:41 lab systemd-oomd[7]: Killed /user.slice/app-a.scope due to memory p>\n"
    assert [ending.line for ending in read_endings(unit + itself)] == [2]


@pytest.mark.parametrize("voice", ["systemd[1234]: ", "systemd: "])
def test_a_word_of_systemd_without_its_date_is_one(voice: str) -> None:
    [app] = read_endings(f"{voice}app.scope: systemd-oomd killed 7 process(es) in this unit.\n")
    assert (app.manager, app.name, app.finished) == ("systemd-oomd", "app.scope", None)
    [web] = read_endings(f"{voice}web.service: A process of this unit has been killed by the OOM killer.\n")
    assert (web.manager, web.name) == ("systemd", "web.service")
    assert (
        read_endings(f"sshd[7]: {voice}web.service: A process of this unit has been killed by the OOM killer.\n") == ()
    )


RESULT = "web.service: Failed with result 'oom-kill'.\n"
MAIN = "web.service: Main process exited, code=killed, status=9/KILL\n"


@pytest.mark.parametrize(
    "voice", ["", "systemd[1]: ", "Nov 23 14:05:26 lab systemd[1]: ", "2026-11-23T14:05:26Z lab systemd[9]: "]
)
def test_a_unit_that_failed_for_a_kill_is_an_end(voice: str) -> None:
    [web] = read_endings(f"{voice}{MAIN}{voice}{RESULT}")
    assert (web.manager, web.name, web.reason, web.signal) == ("systemd", "web.service", "oom-kill", 9)
    assert web.oom_killed
    [web] = read_endings(f"{voice}{RESULT}")
    assert web.signal is None


@pytest.mark.parametrize(
    "text",
    [
        RESULT.replace("oom-kill", "exit-code"),
        MAIN + RESULT.replace("oom-kill", "signal"),
        f"Nov 23 14:05:26 lab app[7]: {RESULT}",
        f"it says {RESULT}",
        RESULT.replace("web.service", "web"),
        RESULT.replace(".\n", ", says the guide\n"),
    ],
)
def test_another_result_or_another_s_word_for_it_is_none(text: str) -> None:
    assert read_endings(text) == ()


@pytest.mark.parametrize(
    "kill",
    [
        "systemd[1]: web.service: A process of this unit has been killed by the OOM killer.",
        "systemd[1]: web.service: systemd-oomd killed 7 process(es) in this unit.",
        "systemd-oomd[7]: Killed /system.slice/web.service due to memory pressure for / being 9% > 5%",
    ],
)
@pytest.mark.parametrize("date", ["", "Nov 23 14:05:26 lab "])
def test_that_a_unit_failed_is_told_once_with_what_it_failed_for(date: str, kill: str) -> None:
    [web] = read_endings(f"{date}{kill}\n{date}systemd[1]: {RESULT}")
    assert (web.line, web.name) == (1, "web.service")


def test_a_unit_that_failed_for_a_later_kill_is_told_twice() -> None:
    kill = "Nov 23 14:05:26 lab systemd[1]: web.service: A process of this unit has been killed by the OOM killer.\n"
    first, second = read_endings(f"{kill}Nov 23 15:05:26 lab systemd[1]: {RESULT}")
    assert (first.reason, second.reason) == ("killed by the OOM killer", "oom-kill")


SYSTEM_OOM = "System OOM encountered, victim process: java, pid: 4242"


@pytest.mark.parametrize(
    ("line", "node"),
    [
        (SYSTEM_OOM, None),
        (f"Nov 23 14:05:26 lab kubelet[987]: {SYSTEM_OOM}", None),
        (f'I1123 14:05:26.1 987 event.go:1] "Event occurred" object="n1" kind="Node" message="{SYSTEM_OOM}"', "n1"),
        (
            "Nov 23 14:05:26 lab k3s[9]: I1123 14:05:26.1 9 event.go:1] "
            'Event(v1.ObjectReference{Kind:"Node", Namespace:"", Name:"n1", UID:"n1"}): '
            f"type: 'Warning' reason: 'SystemOOM' {SYSTEM_OOM}",
            "n1",
        ),
    ],
)
def test_a_kubelet_s_own_log_is_read_as_its_events_are(line: str, node: str | None) -> None:
    [java] = read_endings(f"{line}\n")
    assert (java.manager, java.reason, java.name, java.pid, java.node) == ("kubelet", "SystemOOM", "java", 4242, node)


@pytest.mark.parametrize(
    "line",
    [
        f"Nov 23 14:05:26 lab app[7]: {SYSTEM_OOM}",
        f"Look for {SYSTEM_OOM}",
        f"{SYSTEM_OOM} is what it says",
        "System OOM encountered, victim process: <process>, pid: <pid>",
    ],
)
def test_who_speaks_of_a_kubelet_s_words_is_no_kubelet(line: str) -> None:
    assert read_endings(f"{line}\n") == ()


def test_a_process_that_earlyoom_asked_first_is_told_once() -> None:
    asked = 'Nov 23 14:05:32 lab earlyoom[4]: sending SIGTERM to process 7 uid 0 "a": badness 9, VmRSS 334 MiB\n'
    [once] = read_endings(asked + asked.replace("TERM", "KILL"))
    assert (once.line, once.signal) == (2, 9)
    assert [one.pid for one in read_endings(asked + asked.replace("process 7", "process 8"))] == [7, 8]


EARLY = 'Nov {} lab earlyoom[4]: sending SIG{} to process {} uid 0 "mysqld": badness 9, VmRSS 334 MiB\n'


def ends_of(*lines: str) -> list[tuple[int, int | None]]:
    return [(told.line, told.pid) for told in read_endings("".join(lines))]


def test_a_pid_that_comes_again_days_later_is_another_end() -> None:
    assert ends_of(EARLY.format("23 14:05:32", "KILL", 812), EARLY.format("30 14:05:32", "KILL", 812)) == [
        (1, 812),
        (2, 812),
    ]


@pytest.mark.parametrize("dates", [("23 23:59:50", "24 00:00:05"), ("24 00:00:05", "23 23:59:50")])
def test_signals_for_two_that_are_mixed_are_two_ends(dates: tuple[str, str]) -> None:
    """An export may have the newest first."""
    first, last = dates
    asked = (EARLY.format(first, "TERM", 812), EARLY.format(first, "TERM", 813))
    assert ends_of(*asked, EARLY.format(last, "KILL", 812)) == [(2, 813), (3, 812)]


def test_signals_that_go_on_for_minutes_are_one_end() -> None:
    lines = [EARLY.format(f"23 14:{minute:02}:00", "TERM", 812) for minute in range(9)]
    assert ends_of(*lines, EARLY.format("23 14:09:30", "KILL", 812)) == [(9, 812), (10, 812)]
    assert ends_of(*lines, EARLY.format("23 14:08:30", "KILL", 812)) == [(10, 812)]


def test_where_dates_do_not_tell_how_far_apart_they_are_neighbours_are_one_end() -> None:
    of_other_tongue = EARLY.replace("Nov {}", "нояб. 23 14:05:32")
    first, other, last = (of_other_tongue.format(*one) for one in (("TERM", 812), ("TERM", 813), ("KILL", 812)))
    assert ends_of(first, last, other) == [(2, 812), (3, 813)]
    assert ends_of(first, other, last) == [(1, 812), (2, 813), (3, 812)]


def test_what_systemd_repeats_of_oomd_is_told_once_if_it_is_about_then() -> None:
    echo = "Nov {} lab systemd[1]: a.service: systemd-oomd killed 3 process(es) in this unit.\n"
    itself = "Nov {} lab systemd-oomd[7]: Killed /a.service due to memory pressure for / being 9% > 5% for > 2s\n"
    for pair in (itself + echo, echo + itself):
        text = pair.format("20 14:05:30", "20 14:05:32")
        assert len(read_endings(text)) == 1
        later = read_endings(text + echo.format("30 14:05:32"))
        assert [(told.line, (told.reason or "")[:6]) for told in later][1:] == [(3, "killed")]
    assert len(read_endings(itself.format("20 14:05:30") + echo.format("20 14:09:30"))) == 2
    assert len(read_endings(itself.format("20 14:05:30") + echo.format("20 14:05:30").replace("a.", "b."))) == 2


def test_a_hundred_thousand_signals_are_told_with_their_lines() -> None:
    asked = "".join(EARLY.format("23 14:05:32", "TERM", pid) for pid in range(50_000))
    told = read_endings(asked + asked.replace("TERM", "KILL"))
    assert [(one.line, one.pid) for one in told] == [(50_001 + pid, pid) for pid in range(50_000)]


NOHANG = "6.1.0-57-cloud-amd64__systemd-nohang"
ASKED = (LAB / f"{NOHANG}.out.txt").read_text()


@pytest.mark.parametrize(
    ("name", "victim", "signal", "when"),
    [
        ("", ("eater", 323), 15, "Nov 29 22:08:27"),
        ("-kill", ("stub, name: x", 323), 9, "Nov 29 22:08:43"),  # SIGTERM before, which it did not obey
        ("-own-log", ("stub, name: x", 323), 9, "2026-11-29 22:08:42,385"),
    ],
)
def test_nohang_tells_whom_it_ended_and_at_what_threshold(
    name: str, victim: tuple[str, int], signal: int, when: str
) -> None:
    [told] = endings_of(name)
    assert (told.manager, (told.name, told.pid), told.signal, told.oom_killed) == ("nohang", victim, signal, True)
    assert told.finished is not None
    assert told.finished.text == when
    assert re.fullmatch(
        r"MemAvailable \[\d+ MiB, [\d.]+ %\] <= soft_threshold_min_mem \[117 MiB, 25.0 %\]; "
        r"SwapFree \[0 MiB, 0.0 %\] <= soft_threshold_min_swap \[0 MiB, - %\]; "
        r"Vm, MiB: Size: \d+, RSS: \d+ \(Anon: \d+, File: 1, Shmem: 0\), Swap: 0; "
        r"The victim died in [\d.]+s; MemAvailable: [\d.]+ MiB, SwapFree: 0.0 MiB",
        told.reason or "",
    ), told.reason


def endings_of(name: str) -> tuple[Ending, ...]:
    return read_endings((LAB / f"{NOHANG}{name}.out.txt").read_text())


def test_nohang_that_kills_nobody_tells_of_no_end() -> None:
    assert "Sending SIGKILL to the victim" in (LAB / f"{NOHANG}-silent.out.txt").read_text()
    assert [told.manager for told in endings_of("-silent")] == ["systemd"]  # of another's, which the kernel killed


@pytest.mark.parametrize(
    ("instead", "of"),
    [
        ("mallory[297]: ", "nohang[297]: "),  # anybody
        ("Selected process died before corrective action", "OK; total response time: 230ms"),
        ("Cannot send a signal: PermissionError", "OK; total response time: 230ms"),
        ("  Executing the command: kill -USR1 323", "  Sending SIGTERM to the victim"),
        ("  PID:       , name: ", "  PID:       323, name: "),
        ("nohang[298]: Memory info, MiB:", "nohang[297]: Memory info, MiB:"),  # of another
    ],
)
def test_a_block_of_nohang_that_is_not_whole_is_no_end(instead: str, of: str) -> None:
    of = re.sub(r"\d+ms", lambda _: re.findall(r"OK; total response time: (\d+ms)", ASKED)[0], of)
    assert of in ASKED
    text = ASKED.replace(of, instead).replace(
        "  PID: 323, name: ", "  PID: , name: " if "PID" in of else "  PID: 323, name: "
    )
    assert read_endings(text) == ()


def test_the_end_that_nohang_tells_of_needs_no_end_of_its_block_and_no_status_of_the_victim() -> None:
    [whole] = endings_of("")
    cut = ASKED[: ASKED.index("The victim died")]
    [told] = read_endings(cut)
    assert (told.pid, told.name, told.signal) == (whole.pid, whole.name, whole.signal)
    brief = re.sub(r"(?s)[^\n]*Victim status.*?(?=[^\n]*Memory info)", "", ASKED)  # print_victim_status = False
    assert len(brief) < len(ASKED)
    [told] = read_endings(brief)
    assert (told.pid, told.name, told.line < whole.line) == (whole.pid, whole.name, True)
    desktop = ASKED.replace(" nohang[", " nohang-desktop[")
    assert read_endings(desktop) == (whole,)


def test_each_threshold_of_nohang_is_told() -> None:
    low = "MemAvailable [10 MiB, 2.1 %] <= hard_threshold_min_mem [11 MiB, 2.3 %]"
    zram = "MemUsedZram [300 MiB, 64.0 %] >= soft_threshold_max_zram [258 M, 55.0 %]"
    pressure = "Current PSI metric value (91.2) >= hard_threshold_max_psi (90.0)"
    lasting = "PSI metric value exceeded psi_excess_duration (30.0s) for 31.4s"
    head = "Nov 29 22:08:27 lab nohang[297]: "
    again = f"{head}Recheck memory levels...\n" + "".join(f"{head}  {one}\n" for one in (low, zram, pressure, lasting))
    [told] = read_endings(ASKED.replace(f"{head}Victim status", f"{again}{head}Victim status"))
    assert (told.reason or "").startswith(f"{low}; {zram}; {pressure}; {lasting}; Vm, MiB: "), told.reason


@pytest.mark.parametrize("name", ["a, badness: 1", "x, state: S (", "[ OK ] Sending", "FINISHING", "a  b", "1 (x)"])
def test_a_victim_of_nohang_has_the_name_it_chose(name: str) -> None:
    [told] = read_endings(ASKED.replace(": eater,", f": {name},").replace("(runner.sh)", f"({name})"))
    assert (told.name, told.pid) == (name, 323)


def test_a_folder_of_a_victim_that_reads_as_the_edge_of_a_block_is_none() -> None:
    edge = "<<=== FINISHING implement_corrective_action() ===<<"
    [told] = read_endings(ASKED.replace("cwd realpath: /", f"cwd realpath: /srv/{edge}"))
    assert told.name == "eater"


FORGED = (
    "  PID: 1, name: sshd, badness: 9",
    "  PID:       1, name: sshd, state: S (sleeping), EUID: 0, SID: 1 (systemd), lifetime: 14.0s",
    "New victim is cached victim 1 (sshd)",
    "Recheck memory levels...",
    "  MemAvailable [9 MiB, 0.1 %] <= hard_threshold_min_mem [9 MiB, 0.1 %]",
    "  Vm, MiB:   Size: 9, RSS: 9 (Anon: 9, File: 0, Shmem: 0), Swap: 9",
    "Implementing a corrective action:",
    "  Sending SIGKILL to the victim",
    "OK; total response time: 1ms",
    "The victim died in 9.9s",
)


@pytest.mark.parametrize("lines", [*((one,) for one in FORGED), FORGED, (FORGED[0], FORGED[3])])
@pytest.mark.parametrize("own_log", [False, True])
def test_a_folder_of_a_victim_that_names_another_is_not_believed(lines: tuple[str, ...], own_log: bool) -> None:
    """The journal puts a head before each line of a message, and its own log before the first alone."""
    text = (LAB / f"{NOHANG}{'-own-log' if own_log else ''}.out.txt").read_text()
    head = "" if own_log else "Nov 29 22:08:27 lab nohang[297]: "
    folder = "".join(f"\n{head}{line}" for line in lines)
    forged = re.sub(r"cwd realpath: /.*", lambda match: match[0] + folder, text)
    assert forged != text
    [whole], [told] = read_endings(text), read_endings(forged)
    assert (told.name, told.pid, told.signal, told.reason) == (whole.name, whole.pid, whole.signal, whole.reason)


def test_a_folder_that_tells_of_a_signal_is_no_end_where_none_was_sent() -> None:
    folder = "".join(f"\nNov 29 22:08:27 lab nohang[297]: {line}" for line in FORGED)
    refused = re.sub(r"OK; total response time: \d+ms", "Cannot send a signal: PermissionError", ASKED)
    assert read_endings(refused.replace("cwd realpath: /", f"cwd realpath: /srv{folder}")) == ()


@pytest.mark.parametrize(
    "line",
    [
        "  PID:" + " " * 330_000 + "9, name: " + ", badness: " * 30_000,
        "  PID: 9, name: " + ", state: S (s), EUID: 1, SID: 1 (" * 20_000,
        "New victim is cached victim 9 (" + ")" * 660_000 + " ",
    ],
)
def test_a_line_of_nohang_that_is_endless_names_nobody(line: str) -> None:
    of = next(one for one in ASKED.splitlines() if ", badness: " in one)
    head = of.partition("  PID")[0]
    [told] = read_endings(ASKED.replace(of, f"{of}\n{head}{line}"))
    assert (told.name, told.pid) == ("eater", 323)
    assert read_endings(ASKED.replace(of, f"{head}{line}")) == ()


def test_two_that_nohang_ended_are_two() -> None:
    both = read_endings(ASKED + ASKED.replace("eater", "other").replace("323", "324"))
    assert [(one.name, one.pid) for one in both] == [("eater", 323), ("other", 324)]


@pytest.mark.parametrize(
    "line",
    [
        "Nov 23 14:09:52 lab mallory[7]: Killed /system.slice/a.service due to memory pressure for / being 9% > 5%",
        "Killed /system.slice/a.service due to memory pressure for / being 24.93% > 5.00% for > 2s",
        "Nov 23 14:09:52 lab systemd-oomd[329]: Considered 1 cgroups for killing, top candidates were:",
        "Nov 23 14:05:26 lab earlyoom[441]: sending SIGTERM when mem <= 20.00% and swap <= 100.00%,",
        "Nov 23 14:05:26 lab systemd-x[7]: a.service: A process of this unit has been killed by the OOM killer.",
        "a.service: The kernel OOM killer killed some processes in this unit.",
    ],
)
def test_a_line_that_is_no_word_of_a_daemon_about_its_kill_is_no_ending(line: str) -> None:
    assert read_endings(line + "\n") == ()


PODS = ("k8s-pod-oomkilled-crashloop.json", "k8s-pod-oomkilled-never.json", "k8s-pod-liveness.json")
YAML_OF = (*PODS, "crictl-inspect-oom.json", "crictl-inspect-137-not-oom.json")


def as_yaml(value: object) -> str:
    """As kubectl writes it: keys sorted, and no list further in than its key."""
    return str(yaml.safe_dump(value))


@pytest.mark.parametrize("around", ["{}", "$ kubectl get pod -o yaml\n{}$ exit\n", "---\n{}---\n"])
@pytest.mark.parametrize("name", YAML_OF)
def test_yaml_is_read_as_its_json_is(name: str, around: str) -> None:
    told = json.loads((CAPTURES / name).read_text())
    (found,) = read_endings(around.format(as_yaml(told)))
    (expected,) = read_endings(json.dumps(told))
    assert replace(found, line=1) == replace(expected, line=1)


@pytest.mark.parametrize("name", ["k8s-events.json", "k8s-events-liveness.json"])
def test_events_in_yaml_are_read_as_their_json_is(name: str) -> None:
    told = json.loads((CAPTURES / name).read_text())
    found, expected = read_endings(as_yaml(told)), read_endings(json.dumps(told))
    assert expected
    assert [replace(one, line=1) for one in found] == [replace(one, line=1) for one in expected]


def test_a_list_in_yaml_is_all_its_pods() -> None:
    told = [json.loads((CAPTURES / name).read_text()) for name in PODS]
    whole = as_yaml({"apiVersion": "v1", "items": told, "kind": "List"})
    assert [found.pod for found in read_endings(whole)] == [pod["metadata"]["name"] for pod in told]


def test_a_part_of_yaml_that_somebody_cut_out_is_read_with_dots_for_what_is_left_out() -> None:
    pod = as_yaml(json.loads((CAPTURES / PODS[0]).read_text()))
    status = pod[pod.index("  containerStatuses:") :]
    for part in (status, status[status.index("    lastState:") :], textwrap.indent(status, "> ")):
        for seam in ("\n", "\n...\n", "\n      [...]\n", "\n    <snip>\n"):
            (found,) = read_endings(part.replace("\n", seam, 3))
            assert (found.reason, found.exit_code) == ("OOMKilled", 137)


def test_hostile_yaml_makes_no_text_without_end() -> None:
    bomb = "".join(f"    a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 60))
    for text in (
        f"lastState:\n  terminated:\n    a0: &a0 [x, x]\n{bomb}    message: *a59\n",
        "lastState:\n  terminated:\n    x: " + "[" * 100_000 + "\n",
        "lastState:\n  terminated:\n" + "    [\n" * 50_000,
        "lastState:\n  terminated:\n" + "".join(f"{' ' * (4 + n)}a:\n" for n in range(1_500)),
    ):
        assert [found.exit_code for found in read_endings(text + yaml_status())] == [137]


def test_what_yaml_says_again_by_a_name_is_left_out() -> None:
    told = "lastState:\n  terminated:\n    exitCode: 137\n    a: &a [x, x]\n    b: [*a, *a]\n    message: *a\n"
    assert list(objects(told, [])) == [(1, {"lastState": {"terminated": {"exitCode": "137", "a": ["x", "x"]}}})]


def yaml_status(*, bad_lines: int = 0, message: int = 0) -> str:
    """The end of a container, with lines in it that are no YAML, and a message so long."""
    told = f"  terminated:\n    exitCode: 137\n    reason: OOMKilled\n    message: {'x' * message}\n"
    return f"---\nlastState:\n{told}" + "]\n" * bad_lines


_EXIT_CODES = """
import sys
from reprieve.oom.ending import read_endings
print(*sorted({ending.exit_code for ending in read_endings(sys.stdin.read())}))
"""


@pytest.mark.parametrize(
    ("text", "exit_codes"),
    [
        ("  a:\n - a:\n" * 20_000 + "  state:\n" * 20_000, "137"),  # each ends above where it is looked for
        (("- state:\n    terminated:\n      exitCode: 1\n" + "\t@\n" * 15) * 4_000, "1 137"),  # fifteen times each
    ],
    ids=["ends-above", "many-times"],
)
def test_hostile_yaml_is_read_to_its_end_and_so_is_what_stands_behind_it(text: str, exit_codes: str) -> None:
    argv = [sys.executable, "-c", _EXIT_CODES]
    done = subprocess.run(argv, input=text + yaml_status(), capture_output=True, text=True, timeout=100, check=True)
    assert done.stdout == f"{exit_codes}\n"


def test_yaml_with_one_bad_line_is_read_however_long_it_is_and_whatever_stands_before_it() -> None:
    for before in ("", yaml_status(bad_lines=25, message=200_000)):
        unread: list[int] = []
        (found,) = read_endings(before + yaml_status(bad_lines=1, message=0 if before else 1_200_000), unread)
        assert (found.reason, found.line) == ("OOMKilled", before.count("\n") + 2)
        assert unread == ([2] if before else [])


def test_yaml_that_is_given_up_is_told() -> None:
    unread: list[int] = []
    spoilt = yaml_status(bad_lines=25, message=200_000)  # it takes all that may be parsed in vain
    assert read_endings(spoilt + yaml_status(bad_lines=2) + yaml_status(), unread)[0].exit_code == 137
    assert unread == [2, spoilt.count("\n") + 2]
    unread.clear()
    assert read_endings(yaml_status() + yaml_status(bad_lines=25), unread)[0].exit_code == 137  # more than are left out
    assert len(unread) == 1
    unread.clear()
    assert read_endings(yaml_status() + "state: 9\n", unread)[0].exit_code == 137
    assert unread == []


@given(st.lists(st.sampled_from(as_yaml(json.loads((CAPTURES / PODS[0]).read_text())).splitlines()), max_size=60))
@settings(max_examples=50)
def test_whatever_lines_of_yaml_are_left_nothing_is_raised(lines: list[str]) -> None:
    assert all(found.manager == "kubernetes" for found in read_endings("\n".join(lines)))

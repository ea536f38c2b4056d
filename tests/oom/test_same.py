"""Which report of the kernel a manager's words are about."""

from dataclasses import replace

import pytest

from reprieve.machine.events import summarise
from reprieve.model.ending import Ending
from reprieve.model.oom import OomReport
from reprieve.oom.report import read_reports
from reprieve.oom.same import Statuses, is_about
from tests.logs_of import LOGS


def reports(name: str) -> list[OomReport]:
    text = (LOGS / "captures" / name).read_text()
    return [event for event in read_reports(text, name) if isinstance(event, OomReport)]


DOCKER, POD = reports("dmesg-docker-oom.txt")[0], reports("dmesg-k8s-oom.txt")[0]
ID = "a37d1f170051ff9b1070a2047e4d6751f1315e01b7dc937f9a8b04de50c07280"
UID = "9bec9ebe-fa84-4118-934d-82889fb07a6c"


@pytest.mark.parametrize(
    ("ending", "event"),
    [
        (Ending(manager="docker", line=1, container_id=ID[:12] + 52 * "0"), DOCKER),  # ids are compared whole
        (Ending(manager="docker", line=1, name="hog", finished=DOCKER.stamp), DOCKER),  # names and times prove nothing
        (Ending(manager="kubernetes", line=1, pod_uid=UID, container_id=64 * "a"), POD),  # another container of the pod
        (Ending(manager="kubernetes", line=1, pod="hog"), POD),
        (Ending(manager="kubelet", line=1, name="other", pid=12964), DOCKER),
        (Ending(manager="kubelet", line=1, name="hog", pid=12964, node="b"), replace(DOCKER, host="a")),
        (Ending(manager="systemd", line=1, name="hog.service"), DOCKER),
        (Ending(manager="nohang", line=1, name="hog", pid=12964, oom_killed=True), DOCKER),  # the kernel did not, then
    ],
)
def test_what_is_not_proven_to_be_the_same_is_another(ending: Ending, event: OomReport) -> None:
    statuses = Statuses()
    statuses.add(ending)
    for told in (event, summarise(event)):
        assert not is_about(ending, told)
        assert not statuses.tell_of(told)


@pytest.mark.parametrize(
    ("ending", "event"),
    [
        (Ending(manager="docker", line=1, container_id=ID), DOCKER),
        (Ending(manager="kubernetes", line=1, pod_uid=UID), POD),
        (Ending(manager="kubelet", line=1, name="hog", pid=12964), DOCKER),
        (Ending(manager="kubelet", line=1, name="hog", pid=12964, node="a.example.org"), replace(DOCKER, host="a")),
    ],
)
def test_an_id_of_the_path_or_the_process_proves_it(ending: Ending, event: OomReport) -> None:
    statuses = Statuses()
    statuses.add(ending)
    for told in (event, summarise(event)):
        assert is_about(ending, told)
        assert statuses.tell_of(told)


@pytest.mark.parametrize("manager", ["earlyoom", "nohang"])
def test_a_kill_by_another_daemon_leaves_no_kill_of_the_kernel_out(manager: str) -> None:
    statuses = Statuses()
    statuses.add(Ending(manager=manager, line=1, name="hog", pid=7, signal=9, oom_killed=True))
    assert not statuses.of_a_kill

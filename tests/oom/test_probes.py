"""A container that a kubelet ended as its probe had failed: what it told of it, and of other ends of that container."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from reprieve.model.ending import FAILED_LIVENESS, Ending
from reprieve.oom import probes
from reprieve.oom.ending import read_endings

CAPTURES = Path(__file__).parents[1] / "captures"
POD, EVENTS = ((CAPTURES / f"k8s-{name}-liveness.json").read_text() for name in ("pod", "events"))
DESCRIBED, ROWS = ((CAPTURES / f"k8s-{name}-liveness.txt").read_text() for name in ("describe", "get-events"))


def only(text: str) -> Ending:
    (found,) = read_endings(text)
    return found


WIDE = (CAPTURES / "k8s-get-events-wide-liveness.txt").read_text()
PASTES = {"json": POD + EVENTS, "events first": EVENTS + POD, "described": DESCRIBED, "rows": POD + ROWS}
PASTES |= {"wide": POD + WIDE, "of all namespaces": POD + re.sub(r"(?m)^(?=\d)", "shop        ", ROWS)}


@pytest.mark.parametrize("text", PASTES.values(), ids=PASTES)
def test_an_event_of_a_kubelet_tells_why_it_ended(text: str) -> None:
    told = only(text)
    assert (told.pod, told.name, told.exit_code) == ("stuck", "app", 137)
    assert told.reason == FAILED_LIVENESS
    assert told.oom_killed is False


def test_without_the_event_nothing_tells_why() -> None:
    assert only(POD).reason == "Error"


def changed(**end: Any) -> str:
    """The pod, of which the last end is another."""
    pod = json.loads(POD)
    pod["status"]["containerStatuses"][0]["lastState"]["terminated"] |= end
    return json.dumps(pod)


@pytest.mark.parametrize(
    "pod",
    [
        changed(exitCode=143),  # it ended as it was asked to
        changed(reason="OOMKilled"),
        changed(startedAt="2030-01-01T00:00:00Z", finishedAt="2030-01-01T00:05:00Z"),  # a later run
        changed(startedAt="2020-01-01T00:00:00Z", finishedAt="2020-01-01T00:05:00Z"),
        POD.replace('"stuck"', '"other"'),
        POD.replace('"name": "app"', '"name": "web"'),
    ],
)
def test_another_end_is_not_explained_by_it(pod: str) -> None:
    ends = [ending.reason for ending in read_endings(f"{pod}\n{EVENTS}") if ending.exit_code is not None]
    assert ends
    assert FAILED_LIVENESS not in ends


ALONE = {"json": EVENTS, "rows": ROWS, "wide": WIDE, "described": DESCRIBED[DESCRIBED.index("Events:") :]}
ALONE |= {"of all namespaces": ROWS.replace("\n", "\nshop   "), "again": ROWS + ROWS.replace("6s ", "2s (x2 over 9s)")}


@pytest.mark.parametrize("text", ALONE.values(), ids=ALONE)
def test_alone_an_event_tells_who_ended_it_and_not_by_what(text: str) -> None:
    told = only(text)
    assert (told.manager, told.name, told.reason) == ("kubernetes", "app", FAILED_LIVENESS)
    assert (told.exit_code, told.signal, told.state, told.oom_killed) == (None, None, None, None)
    assert told.pod == (None if text.startswith("Events:") else "stuck")
    assert told.namespace == ("shop" if "shop" in text else None)


def test_an_end_that_is_told_is_not_told_again_by_the_event() -> None:
    for pod in (POD, changed(exitCode=143), changed(reason="OOMKilled")):
        assert only(f"{pod}\n{EVENTS}").exit_code is not None


@pytest.mark.parametrize("said", ["Stopping container app", "Container app failed liveness probe, and what is that"])
def test_what_a_kubelet_does_not_say_is_no_event_of_it(said: str) -> None:
    words = "Container app failed liveness probe, will be restarted"
    assert words in EVENTS
    for text in (f"{POD}\n{EVENTS.replace(words, said)}", DESCRIBED.replace(words, said)):
        assert only(text).reason == "Error"


def of_namespace(namespace: str, text: str, uid: str = "1099a532-2b01-4c70-8edc-ae8ae407a496") -> str:
    """The same, of a pod of the same name in another namespace."""
    return text.replace('"shop"', f'"{namespace}"').replace("1099a532-2b01-4c70-8edc-ae8ae407a496", uid)


def reasons(text: str) -> list[str | None]:
    return [ending.reason for ending in read_endings(text)]


def test_a_pod_of_the_same_name_is_another_one() -> None:
    other = of_namespace("a", POD, "a-uid")
    assert reasons(f"{POD}\n{other}\n{EVENTS}") == [FAILED_LIVENESS, "Error"]
    assert reasons(f"{POD}\n{other}\n{of_namespace('a', EVENTS, 'a-uid')}") == ["Error", FAILED_LIVENESS]
    assert reasons(f"{of_namespace('shop', POD, 'made-anew')}\n{EVENTS}") == ["Error"]
    assert reasons(f"{POD}\n{other}\n{PASTES['of all namespaces'].removeprefix(POD)}") == [FAILED_LIVENESS, "Error"]
    described = re.sub(r"(?s)\nEvents:.*", "\n", DESCRIBED).replace("Namespace:    shop", "Namespace:    a")
    for text in (f"{described}{DESCRIBED}", f"{described}{EVENTS}\n{DESCRIBED}"):
        assert reasons(text) == ["Error", FAILED_LIVENESS]
    assert reasons(f"{described}\n{EVENTS}") == ["Error"]


@pytest.mark.parametrize("asked", ["namespace", "uid"])
def test_what_is_not_told_of_a_pod_differs_from_nothing(asked: str) -> None:
    line = re.compile(rf'\n *"{asked}": "[^"]*"(,?)')
    assert reasons(f"{POD}\n{line.sub(_shorter, EVENTS)}") == [FAILED_LIVENESS]
    assert reasons(f"{line.sub(_shorter, POD)}\n{EVENTS}") == [FAILED_LIVENESS]


def _shorter(line: re.Match[str]) -> str:
    """The last of an object is replaced, as the comma before it stays."""
    return "" if line[1] else '\n"left": "out"'


AGES = {
    # an hour before: a run that ended long ago
    "another run": ("Killing    6s ", "Killing    55m"),
    "another run, told twice": ("Killing    6s ", "Killing    55m (x3 over 58m)"),
    # after the newest start: what runs now is to be ended, and its end is not told yet
    "this run": ("Started    2s (x2 over 8s)", "Started    9s (x2 over 20s)"),
    "no start": ("  Normal   Started    2s (x2 over 8s)  kubelet  Started container app\n", ""),
    "no age": ("Killing    6s ", "Killing    <unknown>"),
}


@pytest.mark.parametrize("change", AGES.values(), ids=AGES)
def test_a_row_is_of_the_end_that_its_age_and_that_of_the_newest_start_tell(change: tuple[str, str]) -> None:
    assert change[0] in DESCRIBED
    assert reasons(DESCRIBED.replace(*change)) == ["Error"]


def test_a_row_of_a_table_of_events_is_of_one_end_too() -> None:
    for rows in (ROWS, WIDE):
        assert reasons(f"{POD}\n{re.sub('(?m)^6s ', '55m', rows)}") == ["Error"]
        later = "later\n"  # another container's start tells nothing
        begun = re.sub("(?m)^2s( .*) app", r"2s\1 web", rows)
        assert reasons(f"{POD}\n{later}{begun}") == ["Error"]


def test_of_what_waits_to_run_again_the_newest_start_is_of_the_run_that_ended() -> None:
    waiting = re.sub(r"State:          Running\n.*", "State: Waiting\n      Reason: CrashLoopBackOff", DESCRIBED)
    assert reasons(waiting) == ["Error"]  # the row is of the run before
    ended = waiting.replace("Started    2s (x2 over 8s)", "Started    8s            ")
    assert reasons(ended) == [FAILED_LIVENESS]
    assert reasons(ended.replace("Killing    6s ", "Killing    55m")) == ["Error"]
    unbegun = re.sub(r"(?m)^.* Started container app\n?", "", waiting)
    assert reasons(unbegun) == [FAILED_LIVENESS]


def test_a_pod_that_is_described_twice_has_rows_of_two_times() -> None:
    later = DESCRIBED.replace("16:16:4", "17:16:4").replace("16:16:5", "17:16:5")
    assert reasons(f"{DESCRIBED}{later}") == [FAILED_LIVENESS, FAILED_LIVENESS]
    assert reasons(f"{DESCRIBED}{later.replace('Killing    6s ', 'Killing    55m')}") == [FAILED_LIVENESS, "Error"]
    assert reasons(f"{DESCRIBED.replace('Killing    6s ', 'Killing    55m')}{later}") == ["Error", FAILED_LIVENESS]


@pytest.mark.parametrize(
    ("age", "between"),
    [
        ("7s", (7, 8)),
        ("119s", (119, 120)),
        ("5m", (300, 301)),
        ("5m30s", (330, 331)),
        ("55m", (3300, 3360)),
        ("3h", (10800, 10860)),
        ("3h20m", (12000, 12060)),
        ("26h", (26 * 3600, 27 * 3600)),
        ("3d", (3 * 86400, 3 * 86400 + 3600)),
        ("9d", (9 * 86400, 10 * 86400)),
        ("3y", (3 * 365 * 86400, 4 * 365 * 86400)),
    ],
)
def test_an_age_is_of_what_it_spells_or_a_little_more(age: str, between: tuple[int, int]) -> None:
    rows = DESCRIBED.replace("Killing    6s ", f"Killing    {age}")
    (kill,) = probes.from_rows(rows)
    assert kill.after_start_s == (2 - between[1], 3 - between[0])


def test_a_row_begins_near_its_message_and_none_is_looked_for_in_a_line_without_end() -> None:
    row = next(line for line in DESCRIBED.split("\n") if "Killing" in line)
    assert len(list(probes.from_rows(DESCRIBED.replace(row, f"{row}{' ' * 200}")))) == 1
    for hostile in (
        row.replace("kubelet  ", f"kubelet  {' ' * 700}"),
        f"{'Normal Killing ' * 20}{' ' * 10_000}x",
        f"{row} " * 1000,
        row.replace("Killing", "Killing " * 100),
    ):
        assert list(probes.from_rows(DESCRIBED.replace(row, hostile))) == []


def test_alike_rows_and_events_are_one_and_each_end_finds_its_own_among_many() -> None:
    days = [f"2026-11-{day:02}T16:16:" for day in range(1, 30)]
    events = "\n".join(EVENTS.replace("2026-11-29T16:16:", day) for day in days for _ in range(2))
    pods = "\n".join(POD.replace("2026-11-29T16:16:", day) for day in days)
    assert reasons(f"{events}\n{pods}") == [FAILED_LIVENESS] * len(days)
    others = "\n".join(POD.replace("2026-11-29T16:16:", day.replace("T16", "T18")) for day in days)
    assert reasons(f"{events}\n{others}") == ["Error"] * len(days)

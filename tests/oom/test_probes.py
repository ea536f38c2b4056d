"""A container that a kubelet ended as its probe had failed: what it told of it, and of other ends of that container."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from reprieve.model.ending import FAILED_LIVENESS, Ending
from reprieve.oom.ending import read_endings

CAPTURES = Path(__file__).parents[1] / "captures"
POD, EVENTS = ((CAPTURES / f"k8s-{name}-liveness.json").read_text() for name in ("pod", "events"))
DESCRIBED, ROWS = ((CAPTURES / f"k8s-{name}-liveness.txt").read_text() for name in ("describe", "get-events"))


def only(text: str) -> Ending:
    (found,) = read_endings(text)
    return found


WIDE = (CAPTURES / "k8s-get-events-wide-liveness.txt").read_text()
PASTES = {"json": POD + EVENTS, "events first": EVENTS + POD, "described": DESCRIBED, "rows": POD + ROWS}
PASTES |= {"wide": POD + WIDE, "of all namespaces": POD + ROWS.replace("6s ", "shop        6s ")}


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
    assert FAILED_LIVENESS not in [ending.reason for ending in read_endings(f"{pod}\n{EVENTS}")]


@pytest.mark.parametrize("said", ["Stopping container app", "Container app failed liveness probe, and what is that"])
def test_what_a_kubelet_does_not_say_is_no_event_of_it(said: str) -> None:
    words = "Container app failed liveness probe, will be restarted"
    assert words in EVENTS
    for text in (f"{POD}\n{EVENTS.replace(words, said)}", DESCRIBED.replace(words, said)):
        assert only(text).reason == "Error"

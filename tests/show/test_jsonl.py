"""What `reprieve why --json` writes, held against the published schema."""

import json
import os
from pathlib import Path

import jsonschema
import pytest
from hypothesis import example, given, settings

from reprieve import codec
from reprieve.model.oom import OomReport
from reprieve.model.snapshot import Snapshot
from reprieve.show import jsonl
from tests.show.examples import event, finding, snapshot, summary
from tests.show.test_escape import NASTY

PUBLISHED = Path(__file__).parents[2] / "docs" / "schema" / "why-1.json"


def lines(name: str = "memhog", *, verbose: bool = False) -> list[str]:
    said = [*jsonl.render(snapshot(name), [finding(name)], verbose=verbose), *jsonl.listing([summary(name)])]
    return [*said, jsonl.end(events=1, exit_status=3)]


def test_of_nothing_nothing_is_said_but_the_end() -> None:
    assert list(jsonl.render(Snapshot(), [])) == []
    assert json.loads(jsonl.end(events=0, exit_status=0)) == {
        "kind": "end",
        "version": 1,
        "events": 0,
        "exit_status": 0,
    }


def test_the_published_schema_is_the_one_in_force() -> None:
    current = json.dumps(codec.schema(), indent=1, ensure_ascii=False) + "\n"
    if os.environ.get("REPRIEVE_UPDATE_GOLDENS"):
        PUBLISHED.write_text(current)
    assert PUBLISHED.read_text() == current


@pytest.mark.parametrize("verbose", [False, True])
def test_every_line_fits_the_published_schema(verbose: bool) -> None:
    validator = jsonschema.Draft202012Validator(json.loads(PUBLISHED.read_text()))
    for line in [*lines(verbose=verbose), *jsonl.render(Snapshot(ooms=(OomReport(),)), [])]:
        validator.validate(json.loads(line))


def test_another_version_does_not_fit_the_schema() -> None:
    validator = jsonschema.Draft202012Validator(json.loads(PUBLISHED.read_text()))
    assert not validator.is_valid(json.loads(lines()[0]) | {"version": 2})


def test_the_log_is_in_it_only_when_asked_for() -> None:
    assert json.loads(lines()[0])["report"]["lines"] == []
    assert len(json.loads(lines(verbose=True)[0])["report"]["lines"]) == 4


def test_claims_are_words_without_marks() -> None:
    claim = json.loads(lines("all is well")[0])["findings"][0]["claim"]
    assert claim == "“/all is well” reached its limit of 32 MiB"


@given(NASTY)
@example("\x7f\u202e\n")
@settings(deadline=None)
def test_lines_are_ascii_and_give_back_every_fact(name: str) -> None:
    said = lines(name, verbose=True)
    assert all(" " <= char <= "~" for line in said for char in line)
    read = codec.decode(said[0].encode())
    assert isinstance(read, codec.Event)
    assert read.report == event(name)

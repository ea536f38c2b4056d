"""The journal is read for ever, and believed only whole."""

from __future__ import annotations

import pytest

from reprieve.fix.transaction import apply, undo
from reprieve.model.finding import Failure
from tests.fix.dictionary import DictionaryPlaces, World, journal, place, step

# Lines as version 1 wrote them: they are never written again, and must be read by every later version.
VERSION_1 = (
    b'{"change":1,"event":"begun","version":1,"wall_s":1795863235.5,"boot_id":"boot-1","user":"anna (as root)"}',
    b'{"change":1,"event":"changing","boot_id":"boot-1","entry":0,"place":"sysctl:/vm.swappiness",'
    b'"before":"60","want":"10"}',
    b'{"change":1,"event":"changed","entry":0}',
    b'{"change":1,"event":"changing","entry":1,"place":"sysctl.d:/vm.swappiness","want":"10"}',
    b'{"change":1,"event":"changed","entry":1}',
    b'{"change":1,"event":"ended"}',
)


def test_what_version_1_wrote_is_read() -> None:
    change = journal(World(disk=list(VERSION_1))).find(1)
    assert (change.user, change.begun_wall_s, change.ended, change.kept) == ("anna (as root)", 1795863235.5, True, True)
    assert [(entry.before, entry.want, entry.state, entry.boot_id) for entry in change.entries] == [
        ("60", "10", "changed", "boot-1"),
        (None, "10", "changed", None),
    ]


def test_of_a_change_to_be_confirmed_an_older_version_told_no_time_and_it_waits() -> None:
    older = VERSION_1[0].replace(b'"change":1', b'"change":1,"kept":false')
    told = journal(World(disk=[older, *VERSION_1[1:]]), since_s=1e9)
    assert (told.waiting(), told.unconfirmed()) == ([1], [])


def test_what_a_newer_version_adds_to_a_record_is_passed_over() -> None:
    newer = VERSION_1[0].replace(b'"change":1', b'"change":1,"fleet":"eu"')
    assert journal(World(disk=[newer, *VERSION_1[1:]])).newest() == 1


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"null",
        b'{"change":1,"event":"begun"',
        b'{"change":7,"event":"ended"}',
        b'{"change":1,"event":"changed","entry":9}',
        b'{"change":1,"event":"changed","entry":-1}',
        b'{"change":1,"event":"melted"}',
        b'{"change":"1","event":"begun"}',
        b"\xff\xfe",
        b"[]",
        b'{"change":true,"event":"ended"}',
        b'{"change":1,"event":"changing","entry":0,"place":"nowhere"}',
    ],
)
def test_a_damaged_line_is_named_and_nothing_is_changed(line: bytes) -> None:
    there = World(values={place("vm.swappiness"): "10"}, disk=[*VERSION_1, line])
    with pytest.raises(Failure, match="line 7 of the journal of changes"):
        undo(1, DictionaryPlaces(there), journal(there))
    assert there.values == {place("vm.swappiness"): "10"}


def test_a_record_holds_only_what_it_says() -> None:
    there = World(values={place("a"): "1"})
    apply([step("a", "1", "2")], DictionaryPlaces(there), journal(there))
    assert there.disk[2] == b'{"change":1,"event":"changed","entry":0}'


def test_there_is_no_change_of_an_unknown_number() -> None:
    with pytest.raises(Failure, match="no change 3"):
        journal(World()).find(3)

"""A snapshot in a document and back: every fact, and what no reader may be harmed by."""

import dataclasses
import json
import os
import types
import zlib
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reprieve import codec
from reprieve.codec import Document, pack, unpack
from reprieve.model.finding import Failure, Gap
from reprieve.model.machine import Machine
from reprieve.model.process import Process
from reprieve.model.snapshot import Snapshot

PUBLISHED = Path(__file__).parents[1] / "docs" / "schema" / "snapshot-1.json"
GZIP = 31


def packed(document: object) -> bytes:
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    return zlib.compress(text, wbits=GZIP)


def refused(data: bytes) -> Failure:
    with pytest.raises(Failure) as caught:
        unpack(data)
    return caught.value


def any_of(hint: Any) -> st.SearchStrategy[Any]:
    """Values of a type, of those that the nouns are made of."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is tuple and arguments[1:] == (...,):
        return st.lists(any_of(arguments[0]), max_size=2).map(tuple)
    if origin is tuple:
        return st.tuples(*map(any_of, arguments))
    if origin in (Union, types.UnionType):
        return st.one_of(*map(any_of, arguments))
    if origin is Literal:
        return st.sampled_from(arguments)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return st.builds(hint, **{name: any_of(part) for name, part in get_type_hints(hint).items()})
    plain: dict[object, st.SearchStrategy[Any]] = {
        types.NoneType: st.none(),
        bool: st.booleans(),
        int: st.integers(-(1 << 63), (1 << 64) - 1),
        float: st.floats(allow_nan=False, allow_infinity=False),
        str: st.text(max_size=8),
    }
    return plain[hint]


# The hints of Snapshot are not resolved when it runs: the document's are the same.
FACTS = {name: hint for name, hint in get_type_hints(Document).items() if name not in ("version", "kind")}
SNAPSHOTS = st.builds(Snapshot, **{name: any_of(hint) for name, hint in FACTS.items()})


def test_nothing_comes_back_as_nothing() -> None:
    assert unpack(pack(Snapshot())) == Snapshot()


def test_the_document_has_every_field_of_a_snapshot() -> None:
    assert sorted(FACTS) == sorted(field.name for field in dataclasses.fields(Snapshot))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(snapshot=SNAPSHOTS)
def test_every_fact_comes_back_and_gives_the_same_bytes(snapshot: Snapshot) -> None:
    data = pack(snapshot)
    assert unpack(data) == snapshot
    assert pack(unpack(data)) == data


def test_the_published_schema_is_the_one_in_force() -> None:
    current = json.dumps(codec.snapshot_schema(), indent=1, ensure_ascii=False) + "\n"
    if os.environ.get("REPRIEVE_UPDATE_GOLDENS"):
        PUBLISHED.write_text(current)
    assert PUBLISHED.read_text() == current


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(snapshot=SNAPSHOTS)
def test_every_document_fits_the_published_schema(snapshot: Snapshot) -> None:
    validator = jsonschema.Draft202012Validator(json.loads(PUBLISHED.read_text()))
    validator.validate(json.loads(zlib.decompress(pack(snapshot), wbits=GZIP)))


def test_a_field_of_a_later_reprieve_is_passed_over() -> None:
    machine = {"hostname": "web1", "moods": [{"calm": True}]}
    read = unpack(packed({"kind": "snapshot", "version": 1, "machine": machine, "weather": {"rain": [1, 2]}}))
    assert read == Snapshot(machine=Machine(hostname="web1"))


def test_a_document_of_a_later_version_is_refused_with_what_to_do() -> None:
    failure = refused(packed({"kind": "snapshot", "version": 2, "machine": "changed"}))
    assert failure.message == "the snapshot is of version 2; this reprieve reads up to 1"
    assert failure.hint


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"kind": "event", "version": 1}, "it holds no snapshot, but: event"),
        ({"version": 1}, "missing required field `kind`"),
        ({"kind": "snapshot"}, "missing required field `version`"),
        ({"kind": "snapshot", "version": 0}, "Invalid enum value 0"),
        ({"kind": "snapshot", "version": "1"}, "Expected `int`, got `str`"),
        ({"kind": "snapshot", "version": 1, "machine": []}, "at `$.machine`"),
        ({"kind": "snapshot", "version": 1, "machine": {"processes": [{"pid": "1", "start_ticks": 1}]}}, "`$.machine"),
        ({"kind": "snapshot", "version": 1, "machine": {"processes": [{"pid": 1}]}}, "missing required field"),
        ({"kind": "snapshot", "version": 1, "gaps": {}}, "at `$.gaps`"),
        ([], "Expected `object`, got `array`"),
        (b"", "Input data was truncated"),
        (b'{"kind":"snapshot","version":1,"log_ends":', "Input data was truncated"),
        (b'{"kind":"snapshot","version":1}{}', "trailing characters"),
        (b'{"kind":"snap\xff","version":1}', "it is no snapshot"),  # in words of msgspec, which differ by its version
        (b'{"kind":"snapshot","version":1,"machine":{"hostname":"\\ud800"}}', "it is no snapshot"),
        (b'{"kind":"snapshot","version":1,"machine":{"hostname":"\\udc00"}}', "it is no snapshot"),
        (b'{"kind":"snapshot","version":1,"x":' + b"[" * 2_000_000, "maximum recursion depth"),
        (b'{"kind":"snapshot","version":1,"x":' + b'{"a":' * 2_000_000, "maximum recursion depth"),
        (b"[" * 2_000_000, "Expected `object`"),
        (b" " * (codec.DOCUMENT_BYTES + 1), "larger than 64 MiB"),
    ],
)
def test_what_is_no_snapshot_is_refused_and_it_is_said_why(document: object, says: str) -> None:
    failure = refused(packed(document))
    assert says in failure.message
    assert failure.hint


@pytest.mark.parametrize("data", [b"kern.log: Out of memory", b"{}", b"\x28\xb5\x2f\xfd\x00", bytes(100)])
def test_what_is_not_packed_as_a_snapshot_is_refused(data: bytes) -> None:
    assert "not compressed with gzip" in refused(data).message


def test_a_snapshot_that_is_cut_or_damaged_is_refused_or_is_still_the_same() -> None:
    snapshot = Snapshot(gaps=tuple(Gap(place=f"/proc/{at}", reason="refused") for at in range(20)))
    data = pack(snapshot)
    for at in range(len(data)):
        assert "cut" in refused(data[:at]).message
    for at in range(len(data)):
        try:
            read = unpack(data[:at] + bytes((data[at] ^ 0x40,)) + data[at + 1 :])
        except Failure:
            continue
        assert read == snapshot  # of the header, or another way to pack the same text


def test_what_a_process_was_called_with_and_knows_has_no_place_in_it() -> None:
    names = {field.name for noun in (Machine, Process) for field in dataclasses.fields(noun)}
    assert not {name for name in names if any(word in name for word in ("cmdline", "argv", "environ", "command"))}

"""Settings of a Redis server, as it runs and in its file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reprieve.machine.host import Host
from reprieve.machine.places import MachinePlaces
from reprieve.machine.redisplaces import RedisLine
from reprieve.model.finding import Failure, Place
from reprieve.units import MIB


def at(file: Path, key: str = "maxmemory") -> Place:
    return Place(kind="redis.conf", of=str(file), key=key)


LINES = st.lists(
    st.sampled_from(
        [
            "",
            "# maxmemory 1gb",
            "maxmemory 100mb",
            "  MaxMemory\t0 ",
            "maxmemory-policy x",
            "port 1",
            "\udcff",
            "\r",
        ]
    ),
    max_size=6,
)


@given(lines=LINES, want=st.sampled_from(["1gb", "2048", "0"]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_line_is_put_and_each_byte_is_as_it_was_after_undo(lines: list[str], want: str, tmp_path: Path) -> None:
    file = tmp_path / "redis.conf"
    before = "\n".join(lines).encode("utf-8", "surrogateescape")
    file.write_bytes(before)
    file.chmod(0o640)
    kind = RedisLine(Host())
    old, new = kind.get(at(file)), kind.canonical(at(file), want)
    kind.put(at(file), new)
    assert kind.get(at(file)) == new
    assert kind.canonical(at(file), want) == new
    kind.put(at(file), old)
    assert file.read_bytes() == before
    assert file.stat().st_mode & 0o777 == 0o640


def test_the_same_size_in_other_words_is_no_change(tmp_path: Path) -> None:
    file = tmp_path / "redis.conf"
    file.write_text("maxmemory 1gb\nmaxmemory 100mb\n")
    assert RedisLine(Host()).get(at(file)) == "100mb"  # the last counts
    assert RedisLine(Host()).canonical(at(file), str(100 * MIB)) == "100mb"
    assert RedisLine(Host()).canonical(at(file), "1gb") == str(1024 * MIB)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("include /etc/redis/local.conf\n", "includes other files"),
        ("# Ansible managed\nport 1\n", "managed by Ansible"),
        ("# This file is managed by Puppet. DO NOT EDIT\n", "managed by Puppet"),
        ("# include /etc/redis/local.conf\n# a salty chef\n", None),
    ],
)
def test_a_file_that_others_write_is_left_to_them(text: str, said: str | None, tmp_path: Path) -> None:
    file = tmp_path / "redis.conf"
    file.write_text(text)
    obstacle = RedisLine(Host()).obstacle(at(file), "1")
    assert (obstacle is None) == (said is None)
    if obstacle is not None and said is not None:
        assert said in obstacle.message
        assert "--runtime" in (obstacle.hint or "")
    (tmp_path / "link.conf").symlink_to(file)
    assert RedisLine(Host()).obstacle(at(tmp_path / "link.conf"), "1") is not None


@pytest.mark.parametrize("want", ["lots", "-1", "1gb\nrequirepass x", "allkeys-lru"])
@pytest.mark.parametrize("place", ["redis:6379/1@1/maxmemory", "redis.conf:/x/maxmemory", "redis.conf:/x/requirepass"])
def test_what_is_no_size_is_refused(place: str, want: str) -> None:
    kind, _, rest = place.partition(":")
    of, _, key = rest.rpartition("/")
    with pytest.raises(Failure):
        MachinePlaces().canonical(Place(kind=kind, of=of, key=key), want)


def test_a_server_that_has_ended_is_gone_though_its_pid_is_anothers() -> None:
    ours = Place(kind="redis", of=f"6379/{os.getpid()}@1", key="maxmemory")
    assert MachinePlaces().gone(ours)
    with pytest.raises(Failure, match="has ended"):
        MachinePlaces().get(ours)

"""Settings of a Redis server, as it runs and in its file."""

from __future__ import annotations

import os
import pwd
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reprieve.machine.host import Host
from reprieve.machine.places import MachinePlaces
from reprieve.machine.redisplaces import RedisLine
from reprieve.model.change import Step
from reprieve.model.finding import Failure, Place
from reprieve.show.export import shell
from reprieve.units import MIB
from tests.machine.real import missing
from tests.machine.servers import reachable


def at(file: Path, key: str = "maxmemory") -> Place:
    return Place(kind="redis.conf", of=f"{os.geteuid()}:{file}", key=key)


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
    with pytest.raises(Failure, match="link"):
        RedisLine(Host()).obstacle(at(tmp_path / "link.conf"), "1")


@pytest.mark.parametrize("want", ["lots", "-1", "1gb\nrequirepass x", "allkeys-lru"])
@pytest.mark.parametrize(
    "place",
    ["redis:6379/1@1/maxmemory", "redis.conf:0:/x/maxmemory", "redis.conf:0:/x/requirepass", "redis.conf:/x/maxmemory"],
)
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


def test_what_is_exported_is_done_as_the_user_of_the_server(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        missing("root, who may act as another")
    nobody = pwd.getpwnam("nobody")
    reachable(tmp_path)
    (tmp_path / "roots.conf").write_text("maxmemory 1\n")
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "redis.conf").write_text("port 1\nmaxmemory 3\n")
    for path in (theirs, theirs / "redis.conf"):
        os.chown(path, nobody.pw_uid, nobody.pw_gid)

    def run(path: Path, want: str | None) -> int:
        place = Place(kind="redis.conf", of=f"{nobody.pw_uid}:{path}", key="maxmemory")
        script = "\n".join(shell([Step(place=place, before=None, want=want)]))
        return subprocess.run(["sh", "-c", script], capture_output=True).returncode

    def text() -> str:
        return (theirs / "redis.conf").read_text()

    assert (run(theirs / "redis.conf", "9"), text()) == (0, "port 1\nmaxmemory 9\n")
    assert (run(theirs / "redis.conf", None), text()) == (0, "port 1\n")
    assert (run(theirs / "redis.conf", "9"), text()) == (0, "port 1\nmaxmemory 9\n")
    assert (theirs / "redis.conf").stat().st_uid == nobody.pw_uid
    assert run(tmp_path / "roots.conf", "9") != 0
    assert (tmp_path / "roots.conf").read_text() == "maxmemory 1\n"


def test_the_word_of_a_server_leads_no_further_than_its_user(open_folder: Path) -> None:
    """Which file is its own, and where its folders lead, is told by whoever runs it."""
    if os.geteuid() != 0:
        missing("root, who could be led astray")
    nobody = pwd.getpwnam("nobody")
    roots = open_folder / "root"
    roots.mkdir(mode=0o755)
    (roots / "open").write_text("maxmemory 1\n")
    (roots / "secret").write_text("maxmemory 2\n")
    (roots / "secret").chmod(0o600)
    theirs = open_folder / "theirs"
    theirs.mkdir()
    (theirs / "redis.conf").write_text("maxmemory 3\n")
    for path in (theirs, theirs / "redis.conf"):
        os.chown(path, nobody.pw_uid, nobody.pw_gid)
    (theirs / "folder").symlink_to(roots)
    kind = RedisLine(Host())

    def of(path: Path) -> Place:
        return Place(kind="redis.conf", of=f"{nobody.pw_uid}:{path}", key="maxmemory")

    for led in (roots / "open", theirs / "folder" / "open"):
        refused = kind.obstacle(of(led), "9")
        assert refused is not None
        with pytest.raises(Failure):
            kind.put(of(led), "9")
        assert (roots / "open").read_text() == "maxmemory 1\n"
    with pytest.raises(Failure, match="Permission denied"):
        kind.get(of(theirs / "folder" / "secret"))
    os.mkfifo(theirs / "pipe", 0o666)
    with pytest.raises(Failure, match="no file"):
        kind.get(of(theirs / "pipe"))
    assert kind.obstacle(of(theirs / "redis.conf"), "9") is None
    kind.put(of(theirs / "redis.conf"), "9")
    assert (theirs / "redis.conf").read_text() == "maxmemory 9\n"
    assert (theirs / "redis.conf").stat().st_uid == nobody.pw_uid
    assert (os.geteuid(), os.getegid()) == (0, os.getgid())

"""Settings of a Redis server, as it runs and in its file."""

from __future__ import annotations

import json
import os
import pwd
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reprieve.machine.host import Host
from reprieve.machine.places import MachinePlaces
from reprieve.machine.redisplaces import RedisLine
from reprieve.model.change import Step
from reprieve.model.finding import Failure, Place
from reprieve.show.export import ansible, shell
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


@pytest.mark.parametrize("tool", ["sh", "ansible"])
@pytest.mark.parametrize("before", ["port 1", "port 1\n", "", "port 1\n  maxmemory 3"])
def test_a_line_that_is_exported_is_one_of_its_own(before: str, tool: str, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        missing("root, who may act as another")
    file = tmp_path / "redis.conf"
    file.write_text(before)
    step = Step(place=at(file), before=None, want="9")
    script = "\n".join(shell([step]))
    if tool == "ansible":
        ((_, command),) = re.findall(r"(cmd: !unsafe )(.*)", "\n".join(ansible([step])))
        script = json.loads(command)
    for _ in range(2):
        subprocess.run(["sh", "-c", script], check=True)
        lines = [" ".join(line.split()) for line in file.read_text().splitlines()]
        assert lines == [*(["port 1"] if before else []), "maxmemory 9"]


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

    assert kind.obstacle(of(roots / "open"), "9") is not None
    with pytest.raises(Failure, match="Permission denied"):
        kind.get(of(roots / "secret"))
    with pytest.raises(Failure, match="Not a directory"):
        kind.obstacle(of(theirs / "folder" / "open"), "9")
    for led in (roots / "open", theirs / "folder" / "open"):
        with pytest.raises(Failure):
            kind.put(of(led), "9")
        assert (roots / "open").read_text() == "maxmemory 1\n"
    os.mkfifo(theirs / "pipe", 0o666)
    with pytest.raises(Failure, match="no file"):
        kind.get(of(theirs / "pipe"))
    assert kind.obstacle(of(theirs / "redis.conf"), "9") is None
    kind.put(of(theirs / "redis.conf"), "9")
    assert (theirs / "redis.conf").read_text() == "maxmemory 9\n"
    assert (theirs / "redis.conf").stat().st_uid == nobody.pw_uid
    assert (os.geteuid(), os.getegid()) == (0, os.getgid())


LED = """
import os, sys
from reprieve.machine.host import Host
from reprieve.machine.redisplaces import RedisLine
from reprieve.model.finding import Place

folder, target = sys.argv[1:]
swapped = []

def swap(event, words):
    if event == "open" and str(words[0]).endswith(".redis.conf.reprieve") and not swapped:
        swapped.append(os.rename(folder, folder + ".away"))
        os.symlink(target, folder)

sys.addaudithook(swap)  # told before the kernel is asked
RedisLine(Host()).put(Place(kind="redis.conf", of=f"{os.geteuid()}:{folder}/redis.conf", key="maxmemory"), "9")
assert swapped
"""


def test_a_folder_that_becomes_a_link_while_it_is_written_leads_nowhere(tmp_path: Path) -> None:
    """Root of a container is root to the kernel: what he may not reach is kept from him by the path alone."""
    theirs, roots = tmp_path / "theirs", tmp_path / "modprobe.d"
    theirs.mkdir()
    roots.mkdir()
    (theirs / "redis.conf").write_text("install x /bin/sh\n")
    subprocess.run((sys.executable, "-c", LED, str(theirs), str(roots)), check=True, timeout=60)
    assert list(roots.iterdir()) == []
    assert [path.name for path in (tmp_path / "theirs.away").iterdir()] == ["redis.conf"]
    assert (tmp_path / "theirs.away" / "redis.conf").read_text() == "install x /bin/sh\nmaxmemory 9\n"


def test_a_path_with_a_nul_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="is no file of a user"):
        RedisLine(Host()).get(at(tmp_path / "a\0b"))


def test_no_link_on_the_way_to_the_file_is_followed(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "redis.conf").write_text("maxmemory 1\n")
    (tmp_path / "link").symlink_to("there")
    kind = RedisLine(Host())
    for path in (tmp_path / "link" / "redis.conf", tmp_path / "there" / ".." / "there" / "redis.conf"):
        with pytest.raises(Failure):
            kind.get(at(path))
        with pytest.raises(Failure):
            kind.put(at(path), "9")
        with pytest.raises(Failure):
            kind.obstacle(at(path), "9")
    assert (tmp_path / "there" / "redis.conf").read_text() == "maxmemory 1\n"
    kind.put(at(tmp_path / "there" / "redis.conf"), "9")
    assert (tmp_path / "there" / "redis.conf").read_text() == "maxmemory 9\n"

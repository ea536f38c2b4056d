"""The limits of a container: of captured files, and of real engines, whose containers die and live by them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from time import sleep
from typing import NamedTuple

import pytest

from reprieve.machine.container_limit import ContainerLimit, find_container
from reprieve.machine.host import Host
from reprieve.model.finding import Failure, Place, parse_place
from reprieve.next import look
from tests.conftest import Run
from tests.machine.engines import BUSYBOX, KINDS, Engine
from tests.machine.engines import engine as engine_here
from tests.machine.test_containers import ID, OK, Listener

pytestmark = pytest.mark.alone

MIB = 1 << 20
NO_LIMIT = "9223372036854771712\n"


class Told(NamedTuple):
    """An engine that is asked of one container, and the files of the machine it is on."""

    engine: Listener
    root: Path

    def says(self, **inspected: object) -> None:
        state = {"Running": True, "Pid": 42}
        self.engine.answer = OK + json.dumps({"Id": ID, "Name": "/web", "State": state} | inspected).encode()

    def holds(self, files: dict[str, str], *, cgroup: str, version: str) -> None:
        """The container's process is in this group, which has these files; below it is one that crun made."""
        mount = "cgroup2 none rw" if version == "2" else "cgroup none rw,memory"
        self._write("/proc/self/mountinfo", f"1 0 0:1 / /sys/fs/cgroup rw - {mount}\n")
        self._write("/sys/fs/cgroup/cgroup.controllers", "memory\n")
        self._write("/proc/42/cgroup", f"0::{cgroup}/container\n" if version == "2" else f"4:memory:{cgroup}\n0::/\n")
        for name, said in files.items():
            self._write(f"/sys/fs/cgroup{cgroup}/{name}", said)
            self._write(f"/sys/fs/cgroup{cgroup}/container/{name}", said)

    def limit(self) -> ContainerLimit:
        return ContainerLimit(Host(str(self.root)))

    def place(self, manager: str = "docker") -> Place:
        return parse_place(f"container:{manager}@{self.engine.path}/{ID}/memory")

    def _write(self, path: str, said: str) -> None:
        file = self.root / path.removeprefix("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(said)


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Told]:
    listener = Listener(tmp_path / "s")
    found = Told(listener, tmp_path / "root")
    found.says()
    yield found
    listener.close()


VERSION_2 = {"memory.max": "67108864\n", "memory.swap.max": "0\n"}
SCOPE = f"/system.slice/docker-{ID}.scope"


@pytest.mark.parametrize(
    ("version", "files", "value"),
    [
        ("2", VERSION_2, "67108864+0"),
        ("2", {"memory.max": "max\n", "memory.swap.max": "max\n"}, "max+max"),
        ("2", {"memory.max": f"{1 << 61}\n", "memory.swap.max": f"{(1 << 63) - 4096 - (1 << 61)}\n"}, "max+max"),
        ("2", {"memory.max": "67108864\n"}, "67108864"),
        (
            "1",
            {"memory.limit_in_bytes": "67108864\n", "memory.memsw.limit_in_bytes": "100663296\n"},
            "67108864+33554432",
        ),
        ("1", {"memory.limit_in_bytes": "67108864\n", "memory.memsw.limit_in_bytes": NO_LIMIT}, "67108864+max"),
        ("1", {"memory.limit_in_bytes": NO_LIMIT, "memory.memsw.limit_in_bytes": NO_LIMIT}, "max+max"),
        ("1", {"memory.limit_in_bytes": "67108864\n"}, "67108864"),
    ],
)
def test_what_the_cgroup_of_a_container_holds_is_its_limit(
    version: str, files: dict[str, str], value: str, told: Told
) -> None:
    told.holds(files, cgroup=SCOPE, version=version)
    assert told.limit().get(told.place()) == value
    assert told.limit().canonical(told.place(), "128M") == "134217728" + value.removeprefix(value.partition("+")[0])


@pytest.mark.parametrize("version", ["1", "2"])
@pytest.mark.parametrize("counted", [False, True])
def test_one_that_has_ended_is_said_to_hold_no_more_of_swap_than_while_it_ran(
    version: str, counted: bool, told: Told
) -> None:
    """The engine books a limit of swap where the kernel has none, and undo would take it for somebody else's."""
    one, both = "memory.max", "memory.swap.max"
    if version == "1":
        one, both = "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"
    files = {one: "536870912\n"} | ({both: NO_LIMIT if version == "1" else "max\n"} if counted else {})
    told.holds(files, cgroup=SCOPE, version=version)
    for above in ("", "/system.slice"):
        if above or version == "1":  # the root of version 2 has none of them
            for name, said in files.items():
                (told.root / f"sys/fs/cgroup{above}/{name}").write_text(said)
    running = told.limit().get(told.place())
    told.says(State={"Running": False, "Pid": 0}, HostConfig={"Memory": 512 * MIB, "MemorySwap": -1})
    assert told.limit().get(told.place()) == running == "536870912" + ("+max" if counted else "")
    shutil.rmtree(told.root / "sys")  # nothing to tell by: as it is booked
    (told.root / "sys/fs/cgroup").mkdir(parents=True)
    assert told.limit().get(told.place()) == "536870912+max"


def test_of_the_two_groups_that_crun_makes_the_tighter_counts(told: Told) -> None:
    told.holds(VERSION_2, cgroup=SCOPE, version="2")
    (told.root / f"sys/fs/cgroup{SCOPE}/memory.swap.max").write_text("67108864\n")  # Podman 5.4 with crun 1.21
    assert told.limit().get(told.place()) == "67108864+0"


def test_what_is_not_said_of_swap_stays_and_all_is_in_whole_pages(told: Told) -> None:
    told.holds(VERSION_2, cgroup=SCOPE, version="2")
    for want, value in (("+32M", "67108864+33554432"), ("100000000+4097", "99999744+4096"), ("max", "max+max")):
        assert told.limit().canonical(told.place(), want) == value


@pytest.mark.parametrize(
    ("manager", "want", "reason"),
    [
        ("docker", "5M", "no limit below 6 MiB"),
        ("docker", "max+0", "swap is limited only beside memory"),
        ("docker", "much", "'much' is no size"),
        ("podman", "max+0", "swap is limited only beside memory"),
    ],
)
def test_what_no_engine_sets_is_refused(manager: str, want: str, reason: str, told: Told) -> None:
    told.holds(VERSION_2, cgroup=SCOPE, version="2")
    with pytest.raises(Failure, match=reason):
        told.limit().canonical(told.place(manager), want)


def test_a_limit_of_swap_is_refused_where_the_kernel_counts_none(told: Told) -> None:
    told.holds({"memory.max": "67108864\n"}, cgroup=SCOPE, version="2")
    with pytest.raises(Failure, match="counts no swap"):
        told.limit().canonical(told.place(), "128M+0")


def test_where_the_engine_says_done_and_the_cgroup_keeps_its_value_it_is_told_and_put_back(told: Told) -> None:
    told.holds(VERSION_2, cgroup=SCOPE, version="2")
    with pytest.raises(Failure, match=r"says that it is done, and the cgroup of .* holds 67108864\+0"):
        told.limit().put(told.place(), "134217728+max")
    asked = [said for said in told.engine.said if said.startswith(b"POST")]
    assert [json.loads(said.partition(b"\r\n\r\n")[2]) for said in asked] == [
        {"Memory": 128 * MIB, "MemorySwap": (1 << 63) - 4096},
        {"Memory": 64 * MIB, "MemorySwap": 64 * MIB},
    ]


def test_a_process_in_a_cgroup_without_the_id_is_not_taken_for_the_container(told: Told) -> None:
    told.holds(VERSION_2, cgroup="/system.slice/nginx.service", version="2")
    with pytest.raises(Failure, match="is not seen from here"):
        told.limit().get(told.place())


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ({"io.kubernetes.pod.name": "web-1"}, "of the pod web-1: a kubelet sets its limits"),
        ({"com.docker.swarm.service.name": "shop"}, "a task of the service shop"),
    ],
)
def test_what_others_make_anew_is_left_to_them(labels: dict[str, str], reason: str, told: Told) -> None:
    told.says(Config={"Labels": labels})
    failure = told.limit().obstacle(told.place(), "67108864+0")
    assert failure is not None
    assert reason in failure.message


def test_who_forgets_it_is_told(told: Told) -> None:
    told.says(Config={"Labels": {"com.docker.compose.project": "shop", "com.docker.compose.service": "web"}})
    found = find_container("docker:web", {"DOCKER_HOST": f"unix://{told.engine.path}"})
    assert found.place == told.place()
    assert found.called == "web"
    assert found.cost is not None
    assert "makes it anew with what its file says" in found.cost
    told.says(HostConfig={"AutoRemove": True})
    assert find_container("docker:web", {"DOCKER_HOST": f"unix://{told.engine.path}"}).cost == (
        "it is removed with its end (--rm)"
    )


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"SSH-2.0-OpenSSH_9.2p1\r\n", "its answer is none of an engine"),
        (OK + b"[]", "its answer is no container"),
        (OK + b"[" * 100_000, "its answer is no container"),
        (b'HTTP/1.0 500 Oops\r\n\r\n{"message": "\\u001b[31mno"}', "Docker refuses: \x1b\\[31mno"),
        (b"HTTP/1.0 404 Not Found\r\n\r\n", "Docker knows no container 186e75b3c2e1"),
    ],
)
def test_what_is_no_container_is_told(answer: bytes, reason: str, told: Told) -> None:
    told.engine.answer = answer
    with pytest.raises(Failure, match=reason):
        told.limit().get(told.place())


def test_an_engine_that_is_elsewhere_or_does_not_listen_is_named() -> None:
    with pytest.raises(Failure, match="DOCKER_HOST names an engine that is not on this machine: tcp://other:2375"):
        find_container("docker:web", {"DOCKER_HOST": "tcp://other:2375"})
    with pytest.raises(Failure, match="Podman, at /nowhere/s, does not listen") as caught:
        find_container("podman:web", {"CONTAINER_HOST": "unix:///nowhere/s"})
    assert "systemctl start podman.socket" in str(caught.value.hint)


@pytest.mark.parametrize("name", ["", "../../images", "a b", "web/json?x=", "-x", "a\r\nb"])
def test_what_is_no_name_is_not_asked_for(name: str, told: Told) -> None:
    with pytest.raises(Failure, match="is no name of a container"):
        find_container(f"docker:{name}", {"DOCKER_HOST": f"unix://{told.engine.path}"})
    assert told.engine.asked == 0


@pytest.mark.parametrize("of", [f"lxc/{ID}", "docker/web", f"{ID}", f"docker/{ID[:12]}"])
def test_a_place_is_an_engine_and_a_whole_id(of: str) -> None:
    with pytest.raises(Failure, match="is no limit of a container"):
        ContainerLimit(Host()).get(Place(kind="container", of=of, key="memory"))


def test_who_has_no_right_to_the_engine_is_told(as_nobody: Run, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    os.chmod(told.engine.path, 0o600)
    for folder in (*told.engine.path.parents,):
        if folder.stat().st_uid == 0 and folder.stat().st_mode & 0o777 == 0o700:
            os.chmod(folder, 0o711)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{told.engine.path}")
    ended = as_nobody("fix", "limit", "docker:web", "--max", "64M", "--yes")
    assert ended.returncode == 1
    assert f"Docker, at {told.engine.path}: permission denied" in ended.stderr
    assert told.engine.asked == 0


# -- real engines ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=KINDS)
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with engine_here(request.param, tmp_path_factory.mktemp(request.param)) as started:
        yield started


Fix = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def fix(engine: Engine, tmp_path: Path) -> Fix:
    """Run `reprieve` with a journal of changes of its own, in the place of this machine's."""
    keeps = tmp_path / "lib"
    keeps.mkdir()
    mount = 'mount --bind "$0" /var/lib && exec "$@"'
    private = ["unshare", "--mount", "--propagation", "private", "sh", "-c", mount, str(keeps)]

    def run(*arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        ended = subprocess.run(
            [*private, sys.executable, "-m", "reprieve", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=os.environ | engine.environment | {"COLUMNS": "120"},
        )
        assert ended.returncode == status, ended.stdout + ended.stderr
        return ended

    return run


@pytest.fixture
def web(engine: Engine) -> Iterator[str]:
    """A container with 48 MiB and no swap, that waits; its id."""
    yield engine.run("web", Memory=48 * MIB, MemorySwap=48 * MIB)
    for one in engine.call("GET /containers/json?all=1"):
        engine.remove(one["Id"])


def held(engine: Engine, container_id: str) -> str | None:
    path = engine.address.removeprefix("unix://")
    return ContainerLimit(Host()).get(parse_place(f"container:{engine.manager}@{path}/{container_id}/memory"))


LOAD = (BUSYBOX, "dd", "if=/dev/zero", "of=/dev/null", "bs=80M", "count=1")  # holds 80 MiB at once


@pytest.mark.slow
def test_a_load_that_died_at_the_limit_lives_after_it_was_raised_and_undo_gives_the_old_one(
    engine: Engine, fix: Fix, web: str
) -> None:
    assert engine.within("web", *LOAD) == 137
    said = fix("fix", "limit", f"{engine.manager}:web", "--max", "128M", "--yes").stdout
    assert f"Change    {engine.manager}:web memory  48 MiB, swap 0 B → 128 MiB, swap 0 B" in said
    assert held(engine, web) == f"{128 * MIB}+0"
    assert engine.within("web", *LOAD) == 0
    fix("undo")
    assert held(engine, web) == f"{48 * MIB}+0"
    assert engine.within("web", *LOAD) == 137


@pytest.mark.slow
def test_a_load_that_died_at_the_limit_lives_once_it_is_lifted_and_undo_gives_the_old_one(
    engine: Engine, fix: Fix, web: str
) -> None:
    assert engine.within("web", *LOAD) == 137
    said = fix("fix", "limit", f"{engine.manager}:web", "--max", "max", "--yes").stdout
    assert f"Change    {engine.manager}:web memory  48 MiB, swap 0 B → no limit" in said
    assert "Cost      no limit of its own bounds it any more" in said
    assert held(engine, web) == "max+max"
    assert engine.within("web", *LOAD) == 0
    again = fix("fix", "limit", f"{engine.manager}:web", "--max", "max", "--swap-max", "max", "--yes").stdout
    assert "nothing to change" in again
    fix("undo")
    assert held(engine, web) == f"{48 * MIB}+0"
    assert engine.within("web", *LOAD) == 137
    swapped = fix("fix", "limit", f"{engine.manager}:web", "--swap-max", "max", "--yes").stdout
    assert "it may use all the swap there is" in swapped
    assert held(engine, web) == f"{48 * MIB}+max"
    refused = fix("fix", "limit", f"{engine.manager}:web", "--max", "max", "--swap-max", "0", status=4).stdout
    assert "swap is limited only beside memory" in refused


@pytest.mark.slow
def test_all_who_are_in_it_are_protected_and_undo_gives_each_the_score_it_had(
    engine: Engine, fix: Fix, web: str
) -> None:
    script = f"{BUSYBOX} sleep 900 & exec {BUSYBOX} sleep 901"
    engine.run("two", BUSYBOX, "sh", "-c", script)
    first = engine.call("GET /containers/two/json")["State"]["Pid"]
    children = Path(f"/proc/{first}/task/{first}/children")
    while not children.read_text().split():
        sleep(0.02)
    scores = [Path(f"/proc/{pid}/oom_score_adj") for pid in (first, *children.read_text().split())]
    before = [score.read_text() for score in scores]
    said = fix("fix", "protect", f"{engine.manager}:two", "--adj", "300", "--yes").stdout
    assert f"process {first} of two oom_score_adj" in said
    assert [score.read_text() for score in scores] == ["300\n"] * 2
    fix("undo")
    assert [score.read_text() for score in scores] == before
    engine.call("POST /containers/two/stop?t=0")
    assert "does not run: nobody is in it" in fix("fix", "protect", f"{engine.manager}:two", status=1).stderr


@pytest.mark.slow
def test_the_second_time_changes_nothing(engine: Engine, fix: Fix, web: str) -> None:
    fix("fix", "limit", f"{engine.manager}:web", "--max", "64M", "--yes")
    assert "nothing to change" in fix("fix", "limit", f"{engine.manager}:{web[:12]}", "--max", "64M", "--yes").stdout
    assert fix("changes").stdout.count("in force") == 1


@pytest.mark.slow
def test_one_that_had_no_limit_has_none_again(engine: Engine, fix: Fix, web: str) -> None:
    free = engine.run("free")
    assert held(engine, free) == "max+max"
    fix("fix", "limit", f"{engine.manager}:free", "--max", "48M", "--swap-max", "0", "--yes")
    assert held(engine, free) == f"{48 * MIB}+0"
    assert engine.within("free", *LOAD) == 137
    fix("undo")
    assert held(engine, free) == "max+max"
    assert engine.within("free", *LOAD) == 0


@pytest.mark.slow
def test_what_others_have_set_since_stays_theirs(engine: Engine, fix: Fix, web: str) -> None:
    fix("fix", "limit", f"{engine.manager}:web", "--max", "64M", "--yes")
    path = f"{engine.address.removeprefix('unix://')}/{web}"
    ContainerLimit(Host()).put(parse_place(f"container:{engine.manager}@{path}/memory"), f"{96 * MIB}+0")
    said = fix("undo", status=4).stderr
    assert f"reprieve: {engine.manager}:{web[:12]} memory is 96 MiB, swap 0 B: somebody else has set it since" in said
    assert "change 1 changed it from 48 MiB, swap 0 B to 64 MiB, swap 0 B" in said
    back = f" update --memory {48 * MIB} --memory-swap {48 * MIB} {web}, then reprieve undo 1"
    assert "to leave it so: reprieve undo 1 --leave; to have it as before: " in said
    assert back in said
    assert held(engine, web) == f"{96 * MIB}+0"
    assert "memory stays 96 MiB, swap 0 B, as somebody else set it" in fix("undo", "--leave").stdout


@pytest.mark.slow
def test_one_that_was_made_anew_under_its_name_is_another(engine: Engine, fix: Fix, web: str) -> None:
    fix("fix", "limit", f"{engine.manager}:web", "--max", "64M", "--yes")
    engine.remove("web")
    again = engine.run("web", Memory=64 * MIB, MemorySwap=64 * MIB)
    assert f"{engine.manager}:{web[:12]} is no more" in fix("undo").stdout
    assert held(engine, again) == f"{64 * MIB}+0"


@pytest.mark.slow
def test_docker_keeps_it_and_podman_before_5_forgets_it_when_it_is_started_again(
    engine: Engine, fix: Fix, web: str
) -> None:
    said = fix("fix", "limit", f"{engine.manager}:web", "--max", "64M", "--yes").stdout
    engine.call("POST /containers/web/restart?t=0")
    version = engine.call("GET /version")["Version"]
    forgets = engine.manager == "podman" and tuple(map(int, version.split(".")[:2])) < (5, 1)
    assert held(engine, web) == (f"{48 * MIB}+0" if forgets else f"{64 * MIB}+0")
    assert ("Podman before 5.1 forgets it" in said) == (engine.manager == "podman")
    engine.call("POST /containers/web/stop?t=0")
    fix("undo")
    engine.call("POST /containers/web/start")
    assert held(engine, web) == f"{48 * MIB}+0"


@pytest.mark.slow
def test_a_limit_below_what_it_holds_is_refused_with_the_figure(engine: Engine, fix: Fix, web: str) -> None:
    load = f"({BUSYBOX} head -c 30m /dev/zero; {BUSYBOX} sleep 600) | {BUSYBOX} tail -c 30m"
    full = engine.run("full", BUSYBOX, "sh", "-c", load, Memory=64 * MIB, MemorySwap=64 * MIB)
    while _used_bytes(full) < 30 * MIB:
        time.sleep(0.05)
    machine = look(None, [])
    said = " ".join(fix("fix", "limit", f"{engine.manager}:full", "--max", "20M", "--yes", status=4).stdout.split())
    assert f"Refused {engine.manager}:full memory = 20 MiB: it holds 3" in said
    # Version 1 refuses what cannot be swapped out, whoever forces it.
    takes = any(group.version == 2 for group in machine.cgroups) or dict(machine.meminfo)["SwapFree"] > 0
    assert ("--force memory does it all the same" in said) == takes
    assert held(engine, full) == f"{64 * MIB}+0"


def _used_bytes(container_id: str) -> int:
    machine = look(None, [])
    return next(
        group.current_bytes or 0
        for group in machine.cgroups
        if container_id in group.path and "conmon" not in group.path
    )


@pytest.mark.slow
def test_one_that_does_not_run_or_is_not_there_is_refused(engine: Engine, fix: Fix, web: str) -> None:
    engine.call("POST /containers/web/stop?t=0")
    said = fix("fix", "limit", f"{engine.manager}:web", "--max", "64M", "--yes", status=4).stdout
    assert "web does not run" in said
    assert f"→ {engine.manager} start web" in said
    absent = fix("fix", "limit", f"{engine.manager}:wbe", "--max", "64M", "--yes", status=1).stderr
    assert f"{engine.title} knows no container wbe" in absent
    assert "there is web" in absent


@pytest.mark.slow
def test_as_a_script_it_does_the_same(engine: Engine, fix: Fix, web: str) -> None:
    script = fix("fix", "limit", f"{engine.manager}:web", "--max", "64M", "--swap-max", "16M", "--as", "sh").stdout
    assert f" update --memory {64 * MIB} --memory-swap {80 * MIB} web\n" in script
    if shutil.which(engine.manager) is not None:  # Debian has Docker's client in a package of its own
        subprocess.run(["sh", "-c", script], check=True, capture_output=True)
        assert held(engine, web) == f"{64 * MIB}+{16 * MIB}"

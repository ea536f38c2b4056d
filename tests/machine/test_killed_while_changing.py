"""A process that is killed at any call by which it changes a file: the file is the old one or the new one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from reprieve.fix.journal import Journal
from reprieve.fix.transaction import recover, undo
from reprieve.machine.container_limit import find_container
from reprieve.machine.demo import small_cgroup
from reprieve.machine.grouplimit import limits_of_group
from reprieve.machine.host import Host
from reprieve.machine.ledger import LedgerFile
from reprieve.machine.newgroup import limits_of_new_group
from reprieve.machine.places import MachinePlaces
from reprieve.machine.proc import read_processes
from reprieve.machine.workload import find_workload
from reprieve.model.finding import Failure, Place
from reprieve.units import MIB
from tests.machine.clusters import Kube, real
from tests.machine.engines import engine
from tests.machine.real import missing, program
from tests.machine.servers import redis
from tests.machine.test_grouplimit import old, small_group
from tests.machine.workloads import APPS, app, by, workload

CALLS = ("openat", "write", "fsync", "renameat", "unlinkat", "fchmod", "fchown", "flock", "mkdir", "close")
BOTH = ("sysctl:/vm.swappiness=10", "sysctl.d:/vm.swappiness=10")
QUIET = ("-qq", "-o", "/dev/null")
OLD = b"# mine\nvm.swappiness = 5\nvm.panic_on_oom = 1\n"


def prepared(folder: Path) -> Path:
    (folder / "proc/sys/vm").mkdir(parents=True)
    (folder / "proc/sys/vm/swappiness").write_text("60\n")
    (folder / "etc/sysctl.d").mkdir(parents=True)
    file = folder / "etc/sysctl.d/60-reprieve.conf"
    file.write_bytes(OLD)
    file.chmod(0o640)
    os.chown(file, 0, 1)
    return file


def change(root: Path, ledger: Path, wanted: tuple[str, ...], *tracer: str) -> subprocess.CompletedProcess[str]:
    """Change settings in a process of its own, watched by a tracer."""
    script = Path(__file__).with_name("change_a_file.py")
    argv = [*tracer, sys.executable, "-P", str(script), str(root), str(ledger), *wanted]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def recovered(root: Path, path: Path) -> bool:
    """The next process puts back what was not finished; is the change in force then?"""
    with LedgerFile(str(path)) as ledger:
        journal = Journal(ledger, boot_id="boot-1", wall_s=2.0, user="root")
        recover(MachinePlaces(str(root)), journal)
        assert journal.unfinished() == []
        return journal.newest() is not None


@pytest.mark.parametrize("call", CALLS)
def test_all_of_it_holds_or_is_put_back(call: str, tmp_path: Path) -> None:
    tracer = program("strace")
    kills = finished = 0
    for which in range(1, 60):
        folder = tmp_path / str(which)
        file, ledger = prepared(folder), folder / "state/changes.jsonl"
        traced = [f"--trace-path={path}" for path in watched(folder)]
        done = change(folder, ledger, BOTH, tracer, *QUIET, *traced, "-e", f"inject={call}:signal=KILL:when={which}")
        new = OLD.replace(b"= 5", b"= 10")
        if done.stdout == "done\n":
            assert file.read_bytes() == new
            break
        assert done.returncode == -9, done.stderr
        kills += 1
        found = file.stat()
        assert file.read_bytes() in (OLD, new), f"{call} {which}"
        assert (found.st_mode & 0o777, found.st_uid, found.st_gid) == (0o640, 0, 1)
        holds = recovered(folder, ledger)  # as after the very last record, that it ended
        assert file.read_bytes() == (new if holds else OLD)
        assert (folder / "proc/sys/vm/swappiness").read_text() == ("10\n" if holds else "60\n")
        finished += holds
    else:
        raise AssertionError("it never ended by itself")
    assert finished <= 3  # it is put back nearly everywhere
    assert kills, f"{call} was never made"


class Living(NamedTuple):
    """Values of what lives, as they are and as they are wanted."""

    wanted: tuple[str, ...]  # PLACE=VALUE
    traced: tuple[Path, ...]  # the files whose calls are counted; none: all calls are
    read: Callable[[], str]  # what is in force, as it tells itself


@contextmanager
def a_process(_folder: Path) -> Iterator[Living]:
    with subprocess.Popen(["sleep", "600"]) as process:
        try:
            score = Path(f"/proc/{process.pid}/oom_score_adj")
            place = MachinePlaces().identify(Place(kind="process", of=str(process.pid), key="oom_score_adj"))
            yield Living((f"{place}={int(score.read_text()) + 7}",), (score.parent, score), score.read_text)
        finally:
            process.kill()


@contextmanager
def a_cgroup(_folder: Path) -> Iterator[Living]:
    try:
        made = small_cgroup(f"reprieve-killed-{os.getpid()}", 32 * MIB)
        group = made.__enter__()
    except Failure as failure:
        missing(failure.message)
    try:
        changes = limits_of_group(Host(), group.path, most=64 * MIB, high=None, swap=0)
        places = [MachinePlaces().identify(change.place) for change in changes]
        files = [Path(group.folder, place.key) for place in places]
        wanted = tuple(f"{place}={change.want}" for place, change in zip(places, changes, strict=True))
        yield Living(wanted, (Path(group.folder), *files), lambda: " ".join(file.read_text() for file in files))
    finally:
        made.__exit__(None, None, None)


@contextmanager
def a_new_cgroup(_folder: Path) -> Iterator[Living]:
    with small_group(limit_bytes=96 * MIB) as outer:
        if not old():
            Path(outer.folder, "cgroup.subtree_control").write_text("+memory\n")
        (change,) = limits_of_new_group(Host(), f"{outer.path}/batch", most=64 * MIB, swap=0)
        if (refused := MachinePlaces().obstacle(change.place, change.want)) is not None:
            missing(f"cgroups that may be made: {refused.message}")
        made = Path(outer.folder, "batch")
        files = [made / name for name in change.place.key.split("+")]

        def read() -> str:
            return f"{made.stat().st_mode:o} {[file.read_text() for file in files]}" if made.exists() else ""

        yield Living((f"{change.place}={change.want}",), (made, *files), read)


@contextmanager
def a_server(folder: Path) -> Iterator[Living]:
    with redis(folder, "--maxmemory", "20mb", "--maxmemory-policy", "allkeys-lru") as server:
        (process,) = read_processes(Host(), [], pids=(server.pid,))
        place = f"redis:0/{server.pid}@{process.start_ticks}/maxmemory"
        yield Living((f"{place}={30 * MIB}",), (), lambda: server.cli("CONFIG", "GET", "maxmemory").stdout)


@contextmanager
def a_container_of_podman(_folder: Path) -> Iterator[Living]:
    with tempfile.TemporaryDirectory(prefix="p.") as short, engine("podman", Path(short)) as podman:  # for its sockets
        podman.run("one", Memory=48 * MIB, MemorySwap=48 * MIB)
        place = find_container("podman:one", podman.environment).place
        pid = podman.call("GET /containers/one/json")["State"]["Pid"]
        group = next(one.cgroup for one in read_processes(Host(), [], pids=(pid,)))
        version_1 = Path(f"/sys/fs/cgroup/memory{group}")
        names = ("limit_in_bytes", "memsw.limit_in_bytes") if version_1.exists() else ("max", "swap.max")
        folder = version_1 if version_1.exists() else Path(f"/sys/fs/cgroup{group}")

        def read() -> str:  # its book tells of 4.3 what it was made with
            return " ".join((folder / f"memory.{name}").read_text() for name in names)

        yield Living((f"{place}={MachinePlaces().canonical(place, f'{64 * MIB}+0')}",), (), read)


@contextmanager
def a_container(_folder: Path) -> Iterator[Living]:
    with tempfile.TemporaryDirectory(prefix="d.") as short, engine("docker", Path(short)) as docker:  # for its sockets
        docker.run("one", Memory=48 * MIB, MemorySwap=48 * MIB)
        place = find_container("docker:one", docker.environment).place

        def read() -> str:
            told = docker.call("GET /containers/one/json")["HostConfig"]
            return f"{told['Memory']} {told['MemorySwap']}"

        yield Living((f"{place}={MachinePlaces().canonical(place, f'{64 * MIB}+0')}",), (), read)


@contextmanager
def a_workload(folder: Path) -> Iterator[Living]:
    """Put back, its limit is another and its request goes: by another kind of patch than put there."""
    with real() as cluster, pytest.MonkeyPatch.context() as environment:
        shop = Kube(address=cluster.url, folder=folder, cluster=cluster)
        shop.make(by("kubectl-create"), workload("web", app(limit="64Mi")))
        environment.setenv("KUBECONFIG", shop.kubeconfig())
        found = find_workload("deploy/web", 2 << 30, request_bytes=1 << 30)

        def read() -> str:
            told = shop.call("GET", f"{APPS}/deployments/web")["spec"]["template"]["spec"]["containers"]
            return json.dumps(told[0]["resources"], sort_keys=True)

        yield Living((f"{found.place}={found.want}",), (), read)


@pytest.mark.parametrize(
    ("what", "call"),
    [
        *((a_process, call) for call in ("openat", "write", "close")),
        *((a_cgroup, call) for call in ("openat", "write", "close")),
        *((a_new_cgroup, call) for call in ("mkdir", "openat", "write", "fchmod", "close")),
        *(pytest.param(a_server, call, marks=pytest.mark.slow) for call in ("connect", "sendto", "recvfrom")),
        *(
            pytest.param(what, call, marks=(pytest.mark.slow, pytest.mark.alone))
            for what in (a_container, a_container_of_podman)
            for call in ("connect", "sendto", "recvfrom")
        ),
        *(  # at fsync the journal is written
            pytest.param(a_workload, call, marks=pytest.mark.matrix)
            for call in ("connect", "sendto", "recvfrom", "fsync")
        ),
    ],
)
def test_what_lives_has_its_value_or_the_one_it_had(
    what: Callable[[Path], AbstractContextManager[Living]], call: str, tmp_path: Path
) -> None:
    """Killed at the first call, the second, and so on, until it ends before that one."""
    tracer = program("strace")
    (tmp_path / "here").mkdir()
    with what(tmp_path / "here") as living:
        before = living.read()
        traced = [f"--trace-path={path}" for path in living.traced]
        for which in range(1, 80):
            ledger = tmp_path / f"{which}.jsonl"
            kill = ("-e", f"inject={call}:signal=KILL:when={which}")
            done = change(Path("/"), ledger, living.wanted, tracer, *QUIET, *traced, *kill)
            if done.stdout == "done\n":
                break
            assert done.returncode == -9, done.stderr
            holds = recovered(Path("/"), ledger)  # as after the very last record, that it ended
            assert (living.read() == before) != holds
            if holds:
                with LedgerFile(str(ledger)) as kept:
                    undo(1, MachinePlaces(), Journal(kept, boot_id="boot-1", wall_s=3.0, user="root"))
                assert living.read() == before
        else:
            raise AssertionError("it never ended by itself")
        assert which > 1, f"{call} was never made"
        assert living.read() != before


def watched(folder: Path) -> list[Path]:
    """The files and folders that are written to."""
    return [
        folder / "state",
        folder / "state/changes.jsonl",
        folder / "proc/sys/vm/swappiness",
        folder / "etc/sysctl.d",
        folder / "etc/sysctl.d/60-reprieve.conf",
        folder / "etc/sysctl.d/.60-reprieve.conf.reprieve",
    ]

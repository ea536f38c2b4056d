"""Real PostgreSQL and Redis servers, on sockets of the file system, by a user without rights."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.machine.real import missing, program

_PATIENCE_S = 30


def of_postgres(name: str) -> str:
    """A program of PostgreSQL; Debian keeps those of each version in a folder of their own."""
    folders = [str(path) for path in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
    return shutil.which(name, path=os.pathsep.join(folders)) or program(name)


def user() -> str | None:
    """PostgreSQL does not run as root."""
    return "nobody" if os.geteuid() == 0 else None


def own(*paths: Path) -> None:
    """Give what a test made to the user of the servers."""
    if (name := user()) is not None:
        for path in paths:
            shutil.chown(path, name, pwd.getpwnam(name).pw_gid)


def reachable(folder: Path) -> None:
    """Let others pass through the folders of pytest, which are its user's alone."""
    for above in (folder, *folder.parents):
        if above.stat().st_uid == os.geteuid() and str(above).startswith("/tmp/"):
            above.chmod(above.stat().st_mode | 0o011)


@dataclass(frozen=True, slots=True, kw_only=True)
class Postgres:
    """A running server."""

    pid: int  # of the postmaster
    folder: Path  # where its data and its socket are

    def waiting(self) -> int:
        """How many sessions sleep, having done what they were told before."""
        asleep = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
        return int(self.psql(asleep).stdout or 0)

    def wake(self) -> None:
        """End those that sleep."""
        self.psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")

    def psql(self, *commands: str) -> subprocess.CompletedProcess[str]:
        """Run commands in one session."""
        return self.start(*commands).finish()

    def start(self, *commands: str) -> Session:
        """Begin a session that runs commands."""
        words = [word for command in commands for word in ("-c", command)]
        argv = [of_postgres("psql"), "-h", str(self.folder), "-U", "postgres", "-AtqX", "-v", "ON_ERROR_STOP=1", *words]
        return Session(
            process=subprocess.Popen(
                [*argv, "postgres"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A session of psql."""

    process: subprocess.Popen[str]

    def finish(self) -> subprocess.CompletedProcess[str]:
        """Wait until it ends."""
        out, err = self.process.communicate(timeout=240)
        return subprocess.CompletedProcess(self.process.args, self.process.returncode, out, err)


@contextmanager
def data_of_postgres(folder: Path) -> Iterator[Path]:
    """A folder with data of a new server."""
    reachable(folder.parent)
    folder.mkdir()
    own(folder)
    argv = (of_postgres("initdb"), "-D", str(folder), "-U", "postgres", "-A", "trust", "--no-sync")
    subprocess.run((*argv, "--locale=C", "--encoding=UTF8"), user=user(), check=True, capture_output=True, cwd="/")
    yield folder


@contextmanager
def postgres(data: Path, *words: str, group: Path | None = None) -> Iterator[Postgres]:
    """Run a server in the foreground, in a cgroup; without TCP."""
    argv = (of_postgres("postgres"), "-D", str(data), "-k", str(data), "-h", "", "-F", *words)
    with _running(argv, group, data / "log") as process:
        ready = (of_postgres("psql"), "-h", str(data), "-U", "postgres", "-c", "select 1", "postgres")
        _wait(process, data / "log", lambda: subprocess.run(ready, capture_output=True).returncode == 0)
        yield Postgres(pid=process.pid, folder=data)


@dataclass(frozen=True, slots=True, kw_only=True)
class Redis:
    """A running server."""

    process: subprocess.Popen[bytes]
    socket: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def cli(self, *words: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
        """Say something to it."""
        argv = (program("redis-cli"), "-s", str(self.socket), *words)
        return subprocess.run(argv, capture_output=True, text=True, input=given, timeout=240)


@contextmanager
def redis(folder: Path, *words: str, group: Path | None = None, before: Sequence[str] = ()) -> Iterator[Redis]:
    """Run a server in the foreground, in a cgroup, on a socket; `before` is a command that runs it."""
    reachable(folder)
    own(folder)
    socket = folder / "redis.sock"
    argv = (*before, program("redis-server"), *words, "--unixsocket", str(socket), "--dir", str(folder))
    argv = argv if "--port" in words else (*argv, "--port", "0")
    with _running(argv, group, folder / "log") as process:
        _wait(process, folder / "log", socket.is_socket)
        yield Redis(process=process, socket=socket)


@contextmanager
def _running(argv: Sequence[str], group: Path | None, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run it as a user without rights, in a cgroup; end it, and nobody else, at the end."""
    drop: Sequence[str] = ()
    if (name := user()) is not None:
        drop = (program("setpriv"), f"--reuid={name}", f"--regid={pwd.getpwnam(name).pw_gid}", "--clear-groups")
    enter = ("sh", "-c", 'echo $$ > "$0"/cgroup.procs; exec "$@"', str(group)) if group is not None else ()
    with log.open("wb") as out:
        process = subprocess.Popen((*enter, *drop, *argv), stdout=out, stderr=out, stdin=subprocess.DEVNULL, cwd="/")
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], log: Path, ready: object) -> None:
    end = time.monotonic() + _PATIENCE_S
    while not (callable(ready) and ready()):
        if process.poll() is not None or time.monotonic() > end:
            missing(f"a server that starts: {log.read_text(errors='replace')[-500:]}")
        time.sleep(0.05)


def as_stranger(code: str, *words: str) -> str:
    """What a script prints that gives up all rights."""
    if os.geteuid() != 0:
        missing("root, to become somebody else")
    done = subprocess.run((sys.executable, "-c", code, *words), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout

"""What becomes of a change whose maker is interrupted, is told and is so: real processes, signals and journals."""

from __future__ import annotations

import json
import os
import pty
import pwd
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, NamedTuple

import pytest

from reprieve.fix.journal import Journal, Past
from reprieve.machine.demo import small_cgroup
from reprieve.machine.host import Host, identify
from reprieve.machine.ledger import read_lines
from reprieve.machine.proc import read_processes
from reprieve.model.finding import Failure
from reprieve.units import MIB
from tests.machine.real import as_another, missing, program

USER = 1500  # of no account, and the journal is his own


class Sleeper(NamedTuple):
    """A process of a user, and the folder that is his home."""

    pid: int
    home: Path

    @property
    def ledger(self) -> Path:
        """His journal."""
        return self.home / ".local/state/reprieve/changes.jsonl"

    def score(self) -> int:
        """Its oom_score_adj now."""
        return int(Path(f"/proc/{self.pid}/oom_score_adj").read_text())

    def journal(self) -> Journal:
        """What is told of his changes."""
        lines = read_lines(str(self.ledger))
        return Journal(Past(lines), boot_id=identify().boot_id, wall_s=1.0, user="he")

    def traced(self, *inject: str) -> tuple[str, ...]:
        """A tracer that counts the calls on his journal, and on the score."""
        files = (self.ledger, Path(f"/proc/{self.pid}"), Path(f"/proc/{self.pid}/oom_score_adj"))
        paths = (f"--trace-path={file}" for file in files)
        injected = (word for one in inject for word in ("-e", f"inject={one}"))
        return (program("strace"), "-qq", "-o", "/dev/null", *paths, *injected)

    def run(self, *words: str, tracer: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        """Run `reprieve` as he would."""
        argv = (*tracer, sys.executable, "-m", "reprieve", *words)
        with started(self.home, *argv, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
            said = process.communicate()
        return subprocess.CompletedProcess(process.args, process.returncode, *said)


@contextmanager
def started(home: Path, *argv: str, **how: Any) -> Iterator[subprocess.Popen[str]]:
    """A process of a user whose home that is; it ends with the block."""
    away = ("XDG_STATE_HOME", "SUDO_USER")
    environ = {name: value for name, value in os.environ.items() if name not in away}
    how = {"stdout": subprocess.PIPE} | how
    how["env"] = environ | {"HOME": str(home), "COLUMNS": "200", "NO_COLOR": "1"}
    before = as_another(USER) if os.geteuid() == 0 else ()
    with subprocess.Popen((*before, *argv), text=True, cwd="/", **how) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def asleep(home: Path) -> Iterator[subprocess.Popen[str]]:
    """A process of his that sleeps."""
    with started(home, "sh", "-c", "echo; exec sleep 600") as process:
        assert process.stdout
        assert process.stdout.readline()  # from here on it is his
        yield process


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[Sleeper]:
    """Reached through folders that are root's alone, as those of pytest are, is no home."""
    home = Path(mkdtemp(prefix="reprieve-home-")) if os.geteuid() == 0 else tmp_path
    if os.geteuid() == 0:
        os.chown(home, USER, USER)
    try:
        with asleep(home) as process:
            yield Sleeper(process.pid, home)
    finally:
        for pid in watchers(home):  # each sleeps on until its time is over
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if home != tmp_path:
            subprocess.run(["rm", "-r", str(home)], check=True)


def becomes(sleeper: Sleeper, ended: subprocess.CompletedProcess[str], before: int) -> str:
    """What was told; it is what is so, in the journal and in the kernel."""
    journal = sleeper.journal()
    told = ended.stderr.strip() or ended.stdout
    if (number := journal.newest()) is None:
        assert journal.unfinished() == [], told
        assert sleeper.score() == before
        assert "nothing stays changed: interrupted by " in told
        assert ended.returncode > 128
        return "undone"
    assert journal.unfinished() == [], told
    assert sleeper.score() != before
    assert f"change {number}: put, read back and right" in told
    assert ended.returncode == 0
    return "in force"


@pytest.mark.parametrize(("name", "status"), [("INT", 130), ("TERM", 143)])
def test_interrupted_while_a_record_goes_to_the_disk_a_change_is_in_force_or_undone(
    name: str, status: int, sleeper: Sleeper
) -> None:
    """The signal comes with the call and is handled right after it: of `begun`, `changing`, `changed`, `ended`."""
    ends = []
    for which in range(1, 6):
        before = sleeper.score()
        tracer = sleeper.traced(f"fsync:signal={name}:when={which}")
        ended = sleeper.run("fix", "protect", str(sleeper.pid), "--adj", str(before + 7), "--yes", tracer=tracer)
        ends.append(becomes(sleeper, ended, before))
        assert ended.returncode in (0, status)
        if ends[-1] == "in force":
            assert sleeper.run("undo").returncode == 0
    assert ends == ["undone", "undone", "undone", "in force", "in force"]


@pytest.mark.parametrize("which", [3, 4])
def test_a_second_signal_does_not_cut_what_the_first_has_put_back(which: int, sleeper: Sleeper) -> None:
    """SIGTERM while the value is put; SIGHUP while what became of it is written down: as sudo relays them."""
    before = sleeper.score()
    tracer = sleeper.traced("write:signal=TERM:when=3", f"fsync:signal=HUP:when={which}")
    ended = sleeper.run("fix", "protect", str(sleeper.pid), "--adj", str(before + 7), "--yes", tracer=tracer)
    assert becomes(sleeper, ended, before) == "undone"
    assert ended.returncode == 128 + signal.SIGTERM
    assert len(sleeper.journal().find(1).entries) == 1  # it was about to be changed


def test_an_undo_that_is_interrupted_is_finished_or_says_who_finishes_it(sleeper: Sleeper) -> None:
    ends = set()
    for which in range(1, 5):
        before = sleeper.score()
        assert sleeper.run("fix", "protect", str(sleeper.pid), "--adj", str(before + 7), "--yes").returncode == 0
        ended = sleeper.run("undo", tracer=sleeper.traced(f"fsync:signal=INT:when={which}"))
        if ended.returncode == 0:
            assert "Undone" in ended.stdout
        else:
            assert ended.returncode == 130
            assert "undo --recover" in ended.stderr
            assert sleeper.journal().unfinished()
            assert sleeper.run("undo", "--recover").returncode == 0
        ends.add(ended.returncode)
        assert (sleeper.score(), sleeper.journal().unfinished(), sleeper.journal().newest()) == (before, [], None)
    assert ends == {0, 130}


def test_interrupted_while_a_value_is_put_it_is_put_back(sleeper: Sleeper) -> None:
    before = sleeper.score()
    argv = (sys.executable, "-m", "reprieve", "fix", "protect", str(sleeper.pid), "--adj", str(before + 7), "--yes")
    hangs = sleeper.traced("write:delay_enter=10000000:when=3")
    with started(sleeper.home, *hangs, *argv, stderr=subprocess.PIPE) as process:
        while not (sleeper.ledger.exists() and len(read_lines(str(sleeper.ledger))) == 2):
            assert process.poll() is None
            time.sleep(0.01)
        (child,) = map(int, Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())
        os.kill(child, signal.SIGINT)
        told = process.communicate()[1]
    assert "nothing stays changed: interrupted by SIGINT" in told
    assert (sleeper.score(), sleeper.journal().unfinished()) == (before, [])


def together(sleeper: Sleeper, folder: Path, script: str) -> list[str]:
    """What a script says in which root, whose journal is kept in that folder, and he do things to one machine."""
    if os.geteuid() != 0:
        missing("root, for a journal of its own")
    folder.mkdir()
    ours = (
        'mount --bind "$1" /var/lib; python=$2 home=$3 pid=$4\n'
        'root() { "$python" -m reprieve "$@" 2>&1; }\n'
        f'he() {{ HOME="$home" {shlex.join(as_another(USER))} "$python" -m reprieve "$@" 2>&1; }}\n'
    )
    argv = ("unshare", "--mount", "--propagation", "private", "sh", "-c", ours + script, "sh")
    about = (str(folder), sys.executable, str(sleeper.home), str(sleeper.pid))
    ended = subprocess.run(
        [*argv, *about],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        env=os.environ | {"COLUMNS": "200", "HOME": str(sleeper.home)},
    )
    assert ended.stderr == ""
    return ended.stdout.splitlines()


def test_where_nothing_was_ever_changed_undo_makes_no_journal(sleeper: Sleeper, tmp_path: Path) -> None:
    said = together(
        sleeper, tmp_path / "lib", "root undo --recover; root undo; root changes --keep 3; he undo --recover"
    )
    assert [line for line in said if not line.startswith(" ")] == [
        "Nothing was left unfinished.",
        "reprieve: nothing was changed here",
        "reprieve: there is no change 3",
        "Nothing was left unfinished.",
    ]
    assert list((tmp_path / "lib").iterdir()) == []
    assert list(sleeper.home.iterdir()) == []


def test_what_root_changes_leaves_other_users_their_own_journals(sleeper: Sleeper, tmp_path: Path) -> None:
    """His change is made before root's, seen and undone after it, and he makes another; root's is not his to see."""
    before = sleeper.score()
    script = (
        f'he fix protect "$pid" --adj {before + 7} --yes > /dev/null; root fix protect $$ --adj {before + 9} --yes'
        ' > /dev/null; he changes; he undo 1; cat "/proc/$pid/oom_score_adj"; '
        f'he fix protect "$pid" --adj {before + 8} --yes | grep Done; root changes'
    )
    his, process, told, undone, command, score, done, ours, shell = (
        re.sub(" +", " ", line) for line in together(sleeper, tmp_path / "lib", script) if line
    )
    assert "1500 in force" in his
    assert process == f" process {sleeper.pid} oom_score_adj {before} → {before + 7}, until it ends"
    assert told.startswith("Of root's changes tells /var/lib/reprieve/changes.jsonl: sudo ")
    assert told.endswith("reprieve changes")
    assert undone == "Undone: change 1. In a shell it is:"
    assert command.strip()
    assert score == str(before)
    assert done == "Done change 2: put, read back and right"
    assert "root in force" in ours
    assert f"→ {before + 9}" in shell
    assert sleeper.journal().newest() == 2


def test_what_somebody_else_has_set_since_is_not_told_as_in_force(sleeper: Sleeper) -> None:
    before, score = sleeper.score(), Path(f"/proc/{sleeper.pid}/oom_score_adj")
    assert sleeper.run("fix", "protect", str(sleeper.pid), "--adj", str(before + 7), "--yes").returncode == 0
    assert "  in force\n" in sleeper.run("changes").stdout
    score.write_text(str(before + 9))
    told = sleeper.run("changes").stdout
    assert "not undone, and not in force" in told
    assert f"now {before + 9}: set by somebody else" in told
    one = json.loads(sleeper.run("changes", "--json").stdout.splitlines()[0])
    assert (one["state"], one["since"]) == (
        "not undone, and not in force",
        [{"entry": 0, "value": str(before + 9), "gone": False}],
    )
    assert sleeper.journal().newest() == 1  # to look changes nothing
    assert sleeper.run("fix", "protect", str(sleeper.pid), "--adj", str(before + 11), "--yes").returncode == 0
    assert "somebody else" not in sleeper.run("changes").stdout  # it was he, by the second change


def watchers(home: Path) -> Iterator[int]:
    """Who wait to undo a change of his, or one that root made with his home."""
    for name in filter(str.isdecimal, os.listdir("/proc")):
        with suppress(OSError):  # it has ended, or is another's
            words, environ = (Path("/proc", name, file).read_bytes().split(b"\0") for file in ("cmdline", "environ"))
            if b"--unless-kept" in words and f"HOME={home}".encode() in environ:
                yield int(name)


def test_a_change_whose_watcher_was_killed_is_told_when_its_time_is_over_and_undone_by_recovering(
    sleeper: Sleeper,
) -> None:
    before = sleeper.score()
    fix = ("fix", "protect", str(sleeper.pid), "--yes", "--adj")
    assert "Keep it within 20 s" in sleeper.run(*fix, str(before + 7), "--confirm-within", "20").stdout
    (waits,) = watchers(sleeper.home)
    os.kill(waits, signal.SIGKILL)
    assert "not confirmed\n" in sleeper.run("changes").stdout
    assert sleeper.run("undo", "--recover").stdout == "Nothing was left unfinished.\n"
    time.sleep(20)
    assert sleeper.score() == before + 7
    assert "in force, not confirmed in time: reprieve undo --recover" in sleeper.run("changes").stdout
    refused = sleeper.run(*fix, str(before + 8))
    assert "change 1 was not confirmed in time" in refused.stderr
    assert "reprieve undo --recover" in refused.stderr
    assert sleeper.run("undo", "--recover").stdout == "Undone: change 1, which nobody confirmed in time.\n"
    assert (sleeper.score(), sleeper.journal().waiting()) == (before, [])
    assert "undone: nobody confirmed" in sleeper.run("changes").stdout


def test_what_root_waits_for_is_kept_by_root_alone_and_the_commands_are_sudo_s(
    sleeper: Sleeper, tmp_path: Path
) -> None:
    """He has a change 1 of his own in force; what sudo's answer names would otherwise be taken for it."""
    before = sleeper.score()
    script = (
        f'he fix protect "$pid" --adj {before + 7} --yes > /dev/null\n'
        f"SUDO_USER=he root fix protect $$ --adj {before + 9} --yes --confirm-within 60 | grep -o 'sudo .*'\n"
        f"SUDO_USER=he root fix protect $$ --adj {before + 10} --yes | tail -2\n"
        "he changes --keep 1; he changes --keep 7; root changes --keep 1; root changes --keep 1"
    )
    told = together(sleeper, tmp_path / "lib", script)
    undo, keep, pending, either, mine, advice, none, again, *_, kept, waits, _ = told
    ours = Path(sys.executable).with_name("reprieve")
    assert undo == f"sudo {ours} undo 1"
    assert keep == f"sudo {ours} changes --keep 1"
    assert "change 1" in pending
    assert either.strip() == f"sudo {ours} changes --keep 1 keeps it, sudo {ours} undo 1 undoes it now"
    assert mine == "reprieve: change 1 of yours is in force, and waits for nobody to keep it"
    asked = f"sudo {ours} changes --keep 1"
    asked = asked if len(asked) <= 100 else f"sudo {ours} changes …"
    assert advice.strip() == f"what root has changed root keeps: run it as root: `{asked}`"
    assert none == "reprieve: there is no change 7 of yours"
    assert again.strip().startswith("what root has changed root keeps")
    assert kept == "Change 1 is kept."
    assert waits == "reprieve: change 1 is in force, and waits for nobody to keep it"


def test_what_is_not_finished_is_not_kept(sleeper: Sleeper) -> None:
    """Who was to undo it began, and was refused."""
    before = sleeper.score()
    fix = ("fix", "protect", str(sleeper.pid), "--adj", str(before + 7), "--yes", "--confirm-within", "60")
    assert sleeper.run(*fix).returncode == 0
    (waits,) = watchers(sleeper.home)
    os.kill(waits, signal.SIGKILL)
    with sleeper.ledger.open("a") as ledger:
        ledger.write('{"change":1,"event":"reopened","wall_s":1.0,"user":"he"}\n')
    refused = sleeper.run("changes", "--keep", "1")
    assert "change 1 is not finished" in refused.stderr
    assert "reprieve undo 1 --leave leaves it as it is" in refused.stderr
    assert sleeper.run("undo", "--recover").returncode == 0
    assert sleeper.score() == before


def test_a_damaged_journal_of_root_s_is_named_where_it_lies(sleeper: Sleeper, tmp_path: Path) -> None:
    script = (
        "root fix protect $$ --adj 1000 --yes > /dev/null; echo nonsense >> /var/lib/reprieve/changes.jsonl; he changes"
    )
    said = together(sleeper, tmp_path / "lib", script)
    assert said[0].startswith("reprieve: /var/lib/reprieve/changes.jsonl: line ")


def may_lower_scores() -> bool:
    """Is CAP_SYS_RESOURCE held? Containers often are without."""
    status = Path("/proc/self/status").read_text()
    return bool(int(status.partition("CapEff:")[2].split()[0], 16) >> 24 & 1)


def test_who_undoes_it_is_in_no_group_of_who_called_and_is_never_chosen(sleeper: Sleeper, tmp_path: Path) -> None:
    """It undoes the change when its time is over, though the caller's group is killed as a whole."""
    if os.geteuid() != 0:
        missing("root, whose watcher may leave its groups")
    before = sleeper.score()
    try:
        made = small_cgroup(f"reprieve-watched-{os.getpid()}", 256 * MIB)
        group = made.__enter__()
    except Failure as failure:
        missing(failure.message)
    try:
        script = (
            f"(echo 0 > {group.folder}/cgroup.procs; "
            f'root fix protect "$pid" --adj {before + 7} --yes --confirm-within 20) | tail -1\n'
            "for w in /proc/[0-9]*; do grep -qsa 'unless-[k]ept' $w/cmdline && grep -qsa HOME=$home $w/environ &&"
            " cat $w/oom_score_adj $w/cgroup; done\n"
            f"for p in $(cat {group.folder}/cgroup.procs); do kill -9 $p; done\n"
            f"for n in $(seq 400); do grep -qx {before} /proc/$pid/oom_score_adj && break; sleep 0.1; done\n"
            "root changes"
        )
        said = together(sleeper, tmp_path / "lib", script)
    finally:
        made.__exit__(None, None, None)
    keep, score, *groups, undone, _ = said
    assert keep.startswith("Keep it within 20 s")
    assert score == ("-1000" if may_lower_scores() else Path("/proc/self/oom_score_adj").read_text().strip())
    assert groups
    assert not [line for line in groups if line.endswith(group.path)]
    assert "undone: nobody confirmed" in undone
    assert sleeper.score() == before


@pytest.mark.parametrize("home", [None, ""], ids=["none", "empty"])
def test_without_a_home_that_is_named_it_is_that_of_the_account(home: str | None) -> None:
    """An empty one is not the root of all files. 65534 has an account everywhere."""
    if os.geteuid() != 0:
        missing("root, to be another user")
    script = "from reprieve.machine.ledger import ledger_path; print(ledger_path())"
    environ = {name: value for name, value in os.environ.items() if name not in ("HOME", "XDG_STATE_HOME")}
    said = subprocess.run(
        [*as_another(65534), sys.executable, "-c", script],
        env=environ if home is None else environ | {"HOME": home},
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout == f"{pwd.getpwuid(65534).pw_dir}/.local/state/reprieve/changes.jsonl\n"


# Processes, and what else is wanted of them, as findings or members of a container are: each by itself.
_APART = """
import sys
from reprieve.apply import Request, perform
from reprieve.fix.plan import Wanted
from reprieve.model.finding import Change, Failure, parse_place
wanted = [[one.rpartition("=") for one in word.split(",")] for word in sys.argv[2:]]
wanted = [[Change(place=parse_place(place), want=want) for place, _, want in one] for one in wanted]
try:
    sys.exit(perform(Request(settings=tuple(Wanted(tuple(one)) for one in wanted), yes=sys.argv[1] == "--yes")))
except Failure as failure:
    print("failed:", failure)
    sys.exit(failure.status)
"""


def changed_apart(sleeper: Sleeper, *words: str) -> tuple[int, str]:
    """Each word's changes together, or not at all: the status, and what was said."""
    with started(sleeper.home, sys.executable, "-c", _APART, "--yes", *words) as asked:
        said = re.sub(r"\s+", " ", asked.communicate()[0])
    return asked.returncode, said


def test_who_ends_while_it_is_asked_is_left_out_and_told_and_the_others_are_changed(sleeper: Sleeper) -> None:
    before = sleeper.score()
    with asleep(sleeper.home) as other:
        words = [f"process:{pid}/oom_score_adj={before + 7}" for pid in (other.pid, sleeper.pid)]
        ours, theirs = pty.openpty()
        with started(sleeper.home, sys.executable, "-c", _APART, "ask", *words, stdin=theirs, stdout=theirs) as asked:
            os.close(theirs)
            said = b""
            with suppress(OSError):  # EIO: it has ended
                while more := os.read(ours, 4096):
                    said += more
                    if b"Apply?" in more:
                        other.kill()
                        other.wait()
                        os.write(ours, b"y\n")
            os.close(ours)
            status = asked.wait()
    told = re.sub(r"\s+", " ", said.decode())
    assert status == 0, told
    assert "2 changes, each by itself" in told
    assert f"Ended process {other.pid} is no more" in told
    assert "Done change 1: put, read back and right" in told
    assert sleeper.score() == before + 7
    assert sleeper.journal().unfinished() == []
    assert sleeper.run("undo").returncode == 0
    assert sleeper.score() == before


@contextmanager
def stubborn_redis(sleeper: Sleeper, then: str) -> Iterator[str]:
    """The place of a server's maxmemory: it says OK, and it is `then` after that, whatever it was told."""
    program = sleeper.home / "redis-server"
    shutil.copy(os.path.realpath(sys.executable), program)
    script = Path(__file__).with_name("machine") / "stubborn_redis.py"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    own = sleeper.home / "server.py"
    own.write_text(script.read_text())
    argv = ("env", f"PYTHONHOME={sys.base_prefix}", str(program), str(own), "--port", str(port), "--then", then)
    with started(sleeper.home, *argv) as server:
        assert server.stdout
        if server.stdout.readline() != "ready\n":
            missing("a Python that runs from a copy")
        (process,) = read_processes(Host(), [], pids=(server.pid,))
        yield f"redis:{port}/{server.pid}@{process.start_ticks}/maxmemory"


@pytest.mark.parametrize(
    ("then", "why"),
    [
        ("1000", "maxmemory is 1000 B after 2 KiB was put there"),  # it has not changed it
        ("3000", "maxmemory stays 2.9 KiB, as somebody else set it"),  # nor does it take back what it was
        ("refused", "refuses maxmemory 2000"),
    ],
)
def test_a_server_that_does_as_it_likes_holds_up_nothing_that_does_not_belong_to_it(
    then: str, why: str, sleeper: Sleeper
) -> None:
    before = sleeper.score()
    with asleep(sleeper.home) as other, stubborn_redis(sleeper, then) as place:
        belongs = f"process:{other.pid}/oom_score_adj={before + 8},{place}=2000"
        process = f"process:{sleeper.pid}/oom_score_adj={before + 7}"
        status, told = changed_apart(sleeper, belongs, process)
        assert int(Path(f"/proc/{other.pid}/oom_score_adj").read_text()) == before
    assert status == 4, told
    assert "3 changes, in 2 parts, each whole or not at all" in told
    assert "Done change 1, in part: put, read back and right" in told
    assert "Not done " in told
    assert why in told
    assert sleeper.score() == before + 7
    assert sleeper.journal().unfinished() == []
    assert [entry.place.of.partition("@")[0] for entry in sleeper.journal().in_force(1)] == [str(sleeper.pid)]


def test_a_server_that_does_not_let_go_of_a_value_keeps_it_and_holds_up_nothing_else(sleeper: Sleeper) -> None:
    before = sleeper.score()
    with stubborn_redis(sleeper, "2000") as place:
        belongs = f"{place}=2000,{place}-policy=allkeys-lru"
        status, told = changed_apart(sleeper, belongs, f"process:{sleeper.pid}/oom_score_adj={before + 7}")
    assert status == 4, told
    assert "maxmemory-policy is 2 KiB, and was 1000 B when it was planned" in told
    assert "maxmemory stays as it is: " in told
    assert sleeper.score() == before + 7
    assert sleeper.journal().unfinished() == []


def test_where_nothing_of_it_can_be_done_nothing_stays_and_each_reason_is_told(sleeper: Sleeper) -> None:
    with stubborn_redis(sleeper, "refused") as place:
        words = (f"{place}=2000", f"{place.replace('maxmemory', 'maxmemory-policy')}=allkeys-lru")
        status, told = changed_apart(sleeper, *words)
    assert status == 4, told
    assert "failed: nothing stays changed: " in told
    assert "refuses maxmemory 2000" in told
    assert "maxmemory-policy is refused, and was 1000 B when it was planned" in told
    assert (sleeper.journal().unfinished(), sleeper.journal().newest()) == ([], None)

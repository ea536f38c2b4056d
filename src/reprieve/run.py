"""`reprieve run`: a command under limits, and what became of it.

What is loaded before the command runs is waited for by whoever starts it; the rest is loaded when it has ended.
"""

import os
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from io import FileIO
from time import monotonic
from types import TracebackType
from typing import NamedTuple, Self

from reprieve.machine.launch import OURS, Ended, Held, Order, User, Warden, await_end, keep_signals
from reprieve.model.finding import Failure
from reprieve.model.run import Bounds, Enforcement, Run
from reprieve.show import escape, ran
from reprieve.units import size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from reprieve.machine.enclosure import Enclosure
    from reprieve.model.finding import Gap
    from reprieve.model.oom import OomReport

    Kills = tuple[Sequence[OomReport], Sequence[Gap]]

_UNTIL_LOGGED_S = 2.0  # the kernel kills first and tells then


class Request(NamedTuple):
    """What was asked for, as on the command line."""

    argv: tuple[str, ...]
    bounds: Bounds
    user: str | None = None
    nice: int | None = None
    adj: int | None = None
    node: int | None = None
    time_s: float | None = None
    report: str | None = None
    as_json: bool = False
    verbose: bool = False
    quiet: bool = False


def perform(request: Request) -> int:
    """Run the command; the exit status, which is its own. Raises Failure with one of ours."""
    with Report(request.report) as report:
        log = _end_of_log()
        run, pid = attempt(request, order_of(request))
        _tell(request, run, _kills(log, run, pid), report)
    return run.status


def attempt(request: Request, order: Order) -> tuple[Run, int]:
    """Run it once; what became of it, and the pid it had. Raises Failure with a status of ours."""
    held, warden, enclosure = Held(order), Warden(), None
    try:
        enclosure, enforcement = _enclose(held, warden, request.bounds)
        held.await_ready()
        if not (request.quiet or request.as_json):
            say([ran.began(request.bounds, enforcement)])
        run = _await(request, held, enclosure, enforcement, monotonic())
    finally:
        if enclosure is None or enclosure.close():
            warden.dismiss()  # else it tries again, when we are gone
    return run, held.pid


def order_of(request: Request) -> Order:
    """What is to be run, and how; signals are kept from us from here on. Raises Failure: there is no such user."""
    return Order(
        argv=request.argv,
        mask=keep_signals(),
        adj=request.adj,
        nice=request.nice,
        node=request.node,
        user=_user(request.user),
    )


def _user(name: str | None) -> User | None:
    if name is None:
        return None
    import pwd

    try:
        told = pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
    except (KeyError, OverflowError):
        raise Failure(f"--user {name}: there is no such user", hint="getent passwd names them", status=OURS) from None
    return User(told.pw_name, told.pw_uid, told.pw_gid, told.pw_dir, told.pw_shell)


class Report:
    """Where the facts go, opened first: that it cannot be is told before anything runs. A context manager.

    What cannot be written later is no reason to lose the command's status. Raises Failure.
    """

    def __init__(self, path: str | None) -> None:
        self._path = path
        try:
            self._file = FileIO(os.devnull if path is None else path, "w")
        except OSError as error:
            hint = "name a file that can be written"
            raise Failure(f"--report {path}: {error.strerror}", hint=hint, status=OURS) from error

    def write(self, lines: Iterable[str]) -> None:
        """All of them, or say that it could not be done."""
        left = "".join(f"{line}\n" for line in lines).encode("ascii")
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            say([escape.visible(f"reprieve: --report {self._path}: {error.strerror}: what is in it is not all")])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def _end_of_log() -> int | None:
    """Behind the last line of the kernel's, from which on it may tell of a kill. Read when there is one."""
    try:
        log = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # told if it is missed
        return None
    try:
        os.lseek(log, 0, os.SEEK_END)
    except OSError:  # some containers have a terminal there
        os.close(log)
        return None
    return log


def _enclose(held: Held, warden: Warden, bounds: Bounds) -> tuple["Enclosure | None", Enforcement]:
    """A group around the command, by the best means there is, and what is not held by it."""
    from reprieve.machine.enclosure import enclose, find_hierarchy, is_run_by_systemd, left_limits, new_name

    refusals: list[str] = []
    hierarchy, made, means = None, None, "systemd"
    with suppress(OSError):  # no /proc
        hierarchy = find_hierarchy()
    if hierarchy is None:
        refusals.append("no memory controller is mounted")
    else:
        name = new_name()
        if hierarchy.version == 2 and is_run_by_systemd():
            from reprieve.machine.scope import enclose_by_systemd

            try:
                made = enclose_by_systemd(hierarchy, name, held.pid, warden.pid, bounds)
            except (OSError, ValueError) as error:
                refusals.append(f"systemd: {(isinstance(error, OSError) and error.strerror) or error}")
        if made is None:
            means = f"cgroup{hierarchy.version}"
            made = enclose(hierarchy, name, held.pid, bounds, refusals)
    if made is None or hierarchy is None:
        warden.order(f"tree {held.pid}")
        return None, Enforcement(means="rlimit", unenforced=tuple(_beyond_rlimits(bounds)), refusals=tuple(refusals))
    warden.order(f"group {made.folder}")
    left = (f"the {size(most)} of {path}, which reprieve was started in" for path, most in left_limits(hierarchy, made))
    unenforced = (*made.refused, *left)
    return made, Enforcement(means=means, cgroup=made.path, unenforced=unenforced, refusals=tuple(refusals))


def _beyond_rlimits(bounds: Bounds) -> Iterator[str]:
    if bounds.max_bytes is not None:
        yield "--max for all its processes together, for shared memory and for files"
    if bounds.high_bytes is not None:
        yield "--high"
    if bounds.swap_max_bytes is not None:
        yield "--swap-max"


def _await(
    request: Request, held: Held, enclosure: "Enclosure | None", enforcement: Enforcement, began_s: float
) -> Run:
    """Let it run, and wait for its end."""
    from reprieve.machine.warden import descendants, kill_tree

    if enclosure is None:
        held.let_go(grouped=False, data_bytes=request.bounds.max_bytes)
        ended = await_end(held.pid, request.time_s, lambda: descendants(held.pid), lambda: kill_tree(held.pid))
        return _run(request, enforcement, ended, began_s)
    held.let_go(grouped=True)
    ended = await_end(held.pid, request.time_s, enclosure.members, enclosure.kill)
    run = _run(request, enforcement, ended, began_s)
    return replace(run, left_behind=enclosure.end_stragglers(), use=enclosure.use())


def _run(request: Request, enforcement: Enforcement, ended: Ended, began_s: float) -> Run:
    return Run(
        argv=tuple(word.encode(errors="surrogateescape").decode(errors="backslashreplace") for word in request.argv),
        bounds=request.bounds,
        enforcement=enforcement,
        status=ended.status,
        signal=ended.signal,
        out_of_time=ended.out_of_time,
        asked_to_end=ended.asked,
        wall_s=monotonic() - began_s,
        largest_process_bytes=ended.largest_process_bytes,
    )


def _kills(log: int | None, run: Run, pid: int) -> "Kills":
    """What the kernel has logged of kills in the command's group, or of the command where it has none, oldest first."""
    count = run.use.oom_kills if run.use is not None else None
    if count == 0 or (count is None and run.signal != signal.SIGKILL):
        return (), ()
    from reprieve.machine.kmsg import read_until_kill, records
    from reprieve.model.finding import Gap
    from reprieve.model.oom import OomReport
    from reprieve.oom.report import read_reports

    told: bytes | None = None
    group = run.enforcement.cgroup
    if log is not None:
        told = b"".join(records(log, [])) if group is None else read_until_kill(log, _name(group), _UNTIL_LOGGED_S)
    events = read_reports((told or b"").decode(errors="backslashreplace"), "/dev/kmsg")
    ooms = [oom for oom in events if isinstance(oom, OomReport) and _is_of(oom, group, pid)]
    if ooms or not count:
        return ooms, ()
    killed = "a process of it was" if count == 1 else f"{count} processes of it were"
    if log is None:
        lacking, hint = "only root may read the kernel's report", "run it as root, or ask root for reprieve why"
    else:
        lacking, hint = "the kernel has logged no report of it", "it leaves some out where they come too often"
    return (), (Gap(place="/dev/kmsg", reason=f"{killed} killed for memory; {lacking}", hint=hint),)


def _name(group: str) -> str:
    """The part of the path that is ours alone: the kernel may know the group by a longer one, of `run` under `run`."""
    return next(part for part in reversed(group.split("/")) if part.startswith("reprieve-run-"))


def _is_of(oom: "OomReport", group: str | None, pid: int) -> bool:
    if group is None:
        return any(kill.pid == pid for kill in oom.kills)
    return any(_name(group) in (path or "") for path in (oom.task_memcg, oom.oom_memcg))


def _tell(request: Request, run: Run, kills: "Kills", report: Report) -> None:
    """What became of it: for people where somebody was killed or they ask for it, and for programs."""
    ooms, gaps = kills
    worth = ooms or gaps or run.out_of_time or run.left_behind
    if not (worth or request.verbose or request.as_json or request.report):
        return
    from reprieve.model.snapshot import Snapshot
    from reprieve.rules import diagnose

    snapshot = Snapshot(ooms=tuple(ooms), gaps=tuple(gaps))
    findings = diagnose(snapshot)
    if request.as_json or request.report is not None:
        from reprieve.show import jsonl

        lines = [jsonl.ran(run), *jsonl.render(snapshot, findings)]
        lines.append(jsonl.end(events=len(ooms), exit_status=run.status))
        report.write(lines)
        if request.as_json:
            say(lines)
            return
    if request.quiet and not ooms and not gaps:
        return
    from reprieve.show import text

    colour = os.isatty(2) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    page = text.Page(width=_width(), paint=text.colours() if colour else text.plain_paint)
    say(ran.ended(page, run))
    if ooms or gaps:
        say([""])
        say(text.explain(snapshot, findings, width=_width(), colour=colour, verbose=request.verbose, hints=False))


def _width() -> int:
    try:
        return max(60, min(os.get_terminal_size(2).columns, 120))
    except OSError:  # no terminal
        return 80


def say(lines: Iterable[str]) -> None:
    """To standard error, whose end may have gone: that is no reason to lose the command's status."""
    if sys.stderr is None:
        return
    try:
        sys.stderr.writelines(f"{line}\n" for line in lines)
        sys.stderr.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what is still in the buffer goes there at the end

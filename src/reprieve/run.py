"""`reprieve run`: a command under limits, and what became of it.

What is loaded before the command runs is waited for by whoever starts it; the rest is loaded when it has ended.
"""

import os
import sys
from collections.abc import Iterable
from dataclasses import replace
from io import FileIO
from time import monotonic
from types import TracebackType
from typing import NamedTuple, Self

from reprieve.bounded import enclose_best, end_of_log, kills_of, story
from reprieve.machine.launch import OURS, Ended, Held, Order, User, Warden, await_end, keep_signals
from reprieve.model.finding import Failure
from reprieve.model.run import Bounds, Enforcement, Run
from reprieve.show import escape, ran

TYPE_CHECKING = False
if TYPE_CHECKING:
    from reprieve.bounded import Kills
    from reprieve.machine.enclosure import Enclosure


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
    with Report(request.report, as_json=request.as_json) as report:
        log = end_of_log()
        run, pid = attempt(request, order_of(request))
        tell(request, run, kills_of(log, run, pid), report)
    return run.status


def attempt(request: Request, order: Order) -> tuple[Run, int]:
    """Run it once; what became of it, and the pid it had. Raises Failure with a status of ours."""
    held, warden, enclosure = Held(order), Warden(), None
    try:
        enclosure, enforcement = enclose_best(held.pid, warden, request.bounds)
        held.await_ready()
        if not (request.quiet or request.as_json):
            say(_wrapped(ran.began(request.bounds, enforcement)))
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

    What cannot be written later is no reason to lose the command's status. Whoever reads it, or with `as_json` standard
    error, waits for the last line, and gets it where nothing could be run. Raises Failure.
    """

    def __init__(self, path: str | None, *, as_json: bool = False) -> None:
        self._path = path
        self._as_json = as_json
        try:
            if path is not None:
                from reprieve.output import refuse_to_lose

                refuse_to_lose(path, lambda begin: begin.startswith(b'{"kind":"'))
            self._file = FileIO(os.devnull if path is None else path, "w")
        except (OSError, Failure) as error:
            if as_json:
                say([_end(OURS)])
            said = f"{path}: {error.strerror}" if isinstance(error, OSError) else error.message
            hint = "name another file" if isinstance(error, Failure) else "name a file that can be written"
            raise Failure(f"--report {said}", hint=hint, status=OURS) from error

    def write(self, lines: Iterable[str]) -> None:
        """All of them, or say that it could not be done."""
        left = "".join(f"{line}\n" for line in lines).encode("ascii")
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            self._lament(error)

    def _lament(self, error: OSError) -> None:
        say([escape.visible(f"reprieve: --report {self._path}: {error.strerror}: what is in it is not all")])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Failure):
            if self._path is not None:
                self.write([_end(error.status)])
            if self._as_json:
                say([_end(error.status)])
        try:
            self._file.close()
        except OSError as late:  # some servers of files tell then that their disk is full
            self._lament(late)


def _end(status: int) -> str:
    """The last line, where nothing could be run."""
    from reprieve.show import jsonl

    return jsonl.end(events=0, exit_status=status)


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
        argv=said(request.argv),
        bounds=request.bounds,
        enforcement=enforcement,
        status=ended.status,
        signal=ended.signal,
        out_of_time=ended.out_of_time,
        asked_to_end=ended.asked,
        wall_s=monotonic() - began_s,
        largest_process_bytes=ended.largest_process_bytes,
    )


def said(argv: Iterable[str]) -> tuple[str, ...]:
    """Words as a noun may have them: bytes that are not UTF-8, and on Windows halves of a character, as `\\x…`."""
    errors = "surrogatepass" if sys.platform == "win32" else "surrogateescape"
    return tuple(word.encode(errors=errors).decode(errors="backslashreplace") for word in argv)


def tell(request: Request, run: Run, kills: "Kills", report: Report) -> None:
    """What became of it: for people where somebody was killed or they ask for it, and for programs."""
    ooms, gaps = kills
    refused = run.enforcement.means == "job" and run.use is not None and run.use.at_max  # where nobody is killed for it
    refused = refused or ran.is_probably_refused(run)
    worth = ooms or gaps or refused or run.out_of_time or run.left_behind or ran.is_unexplained(run)
    if not (worth or request.verbose or request.as_json or request.report):
        return
    if request.as_json or request.report is not None:
        from reprieve.machine.program import gaps_at_hand
        from reprieve.model.snapshot import Snapshot
        from reprieve.rules import diagnose
        from reprieve.show import jsonl

        snapshot = Snapshot(ooms=tuple(ooms), gaps=gaps_at_hand(gaps))
        lines = [jsonl.ran(run), *jsonl.render(snapshot, diagnose(snapshot))]
        lines.append(jsonl.end(events=len(ooms), exit_status=run.status))
        report.write(lines)
        if request.as_json:
            say(lines)
            return
    if request.quiet and not (ooms or gaps or refused):
        return
    plain = sys.platform == "win32" or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    say(story(run, kills, width=_width(), colour=os.isatty(2) and not plain, verbose=request.verbose))


def _wrapped(line: str) -> Iterable[str]:
    """For a terminal; who reads a log wants a line each."""
    if not os.isatty(2):
        return (line,)
    from reprieve.show.text import wrap

    return (f"  {part}" if at else part for at, part in enumerate(wrap(line, _width() - 2)))


def _width() -> int:
    from reprieve.output import LEAST

    try:
        return max(LEAST, min(os.get_terminal_size(2).columns or 80, 120))
    except OSError:  # no terminal
        return 80


def say(lines: Iterable[str]) -> None:
    """To standard error, whose end may have gone: that is no reason to lose the command's status."""
    try:
        sys.stderr.writelines(f"{line}\n" for line in lines)
        sys.stderr.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what is still in the buffer goes there at the end

"""`@pytest.mark.memory_limit("512M")`: the function of a test under a limit; what it is killed for is its failure.

The function alone is forked off and held, as the command of `reprieve run` is. Fixtures are made and ended here, in the
process of pytest, which shares what they hold with it: only what the function itself takes counts.
"""

import os
import pickle
import select
import signal
import sys
import unittest
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from time import monotonic
from types import TracebackType
from typing import NamedTuple, NoReturn, Self

import pytest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from reprieve.model.run import Bounds, Run

_INSIDE = pytest.StashKey[bool]()
_MARK = "memory_limit"
_MEANS, _PEAK = "memory_limit_means", "memory_peak_bytes"  # properties of the report, in junit.xml too
_OWN_ENDS = {  # which say all in a sentence
    pytest.skip.Exception: "skip",
    unittest.SkipTest: "skip",
    pytest.xfail.Exception: "xfail",
    pytest.fail.Exception: "fail",
}
_OWN: tuple[type[BaseException], ...] = tuple(_OWN_ENDS)


class _Outcome(NamedTuple):
    """How the function ended, as the other process tells it."""

    kind: str  # "passed", "skip", "xfail", "fail", "raised", "exit", "interrupted"
    said: str = ""
    error: BaseException | None = None  # itself, of an exit, and where xfail(raises=) asks for it


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        f'{_MARK}(size, swap="0"): run the function of the test with so much memory at most (reprieve)',
    )


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Whoever is not called by way of `pytest_pyfunc_call` would run without its limit."""
    of_unittest = isinstance(item, pytest.Function) and item.cls and issubclass(item.cls, unittest.TestCase)
    if item.get_closest_marker(_MARK) and (of_unittest or not isinstance(item, pytest.Function)):
        pytest.fail(f"{_MARK} is for functions and methods of pytest, not of unittest", pytrace=False)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """The function, in a process of its own under the limit of its mark."""
    mark = pyfuncitem.get_closest_marker(_MARK)
    if mark is None or pyfuncitem.stash.get(_INSIDE, False):
        return None
    if sys.platform != "linux":
        pytest.skip(f"{_MARK} needs Linux")
    pyfuncitem.stash[_INSIDE] = True
    try:
        _run(pyfuncitem, *_limits(*mark.args, **mark.kwargs))
    finally:
        pyfuncitem.stash[_INSIDE] = False
    return True


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How much the limited tests took, with -v; and which had no group."""
    told = {report.nodeid: dict(report.user_properties) for report in _calls(terminalreporter)}
    alone = sum(properties.get(_MEANS) == "rlimit" for properties in told.values())
    peaks = {nodeid: properties[_PEAK] for nodeid, properties in told.items() if _PEAK in properties}
    if terminalreporter.verbosity > 0 and peaks:
        from reprieve.units import size

        terminalreporter.section("memory at its peak")
        for nodeid, peak in peaks.items():
            if isinstance(peak, int):
                terminalreporter.line(f"{size(peak):>10}  {nodeid}")
    if alone:
        count = "1 test" if alone == 1 else f"{alone} tests"
        terminalreporter.line(
            f"{_MARK}: no cgroup could be made for {count}: RLIMIT_DATA held each process by itself", yellow=True
        )


def _calls(reporter: pytest.TerminalReporter) -> Iterator[pytest.TestReport]:
    for reports in reporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport) and report.when == "call":
                yield report


def _limits(size: object = None, *more: object, swap: object = "0", **unknown: object) -> tuple[int, int | None]:
    """What the mark says, in bytes; None: no limit of swap."""
    if more or unknown:
        pytest.fail(f'{_MARK} takes a size and swap=: {_MARK}("512M", swap="0")', pytrace=False)
    bytes_at_most = _bytes(size)
    return bytes_at_most, None if swap is None else _bytes(swap)


def _bytes(told: object) -> int:
    from reprieve.units import parse_size

    count = told if isinstance(told, int) and told >= 0 else parse_size(told) if isinstance(told, str) else None
    if count is None:
        pytest.fail(f"{_MARK}: {told!r} is no size: try 512M", pytrace=False)
    return count


def _run(item: pytest.Function, max_bytes: int, swap_max_bytes: int | None) -> None:
    """Fork, hold, enclose, let go, listen. Fails the test as the function failed, or for what killed it."""
    from reprieve.bounded import end_of_log, kills_of, story
    from reprieve.model.finding import Failure
    from reprieve.model.run import Bounds

    bounds = Bounds(max_bytes=max_bytes, swap_max_bytes=swap_max_bytes)
    with ExitStack() as opened:
        if (log := end_of_log()) is not None:
            opened.callback(os.close, log)
        call = opened.enter_context(_Call(item))
        try:
            outcome, run = _bounded(item, call, bounds)
        except Failure as failure:
            pytest.fail(f"{_MARK}: {failure.message}", pytrace=False)
        kills = kills_of(log, run, call.pid)
    item.user_properties.append((_MEANS, run.enforcement.means))
    if run.use is not None and run.use.peak_bytes is not None:
        item.user_properties.append((_PEAK, run.use.peak_bytes))
    if any(kills) or outcome is None:
        told = "" if outcome is None or outcome.kind == "passed" else f"{outcome.said}\n\n"
        pytest.fail(told + "\n".join(story(run, kills, width=100)), pytrace=False)
    _end_as(outcome)


def _bounded(item: pytest.Function, call: "_Call", bounds: "Bounds") -> tuple[_Outcome | None, "Run"]:
    """Enclose the call and let it go; how it ended. Raises Failure."""
    from reprieve.bounded import enclose_best
    from reprieve.machine.launch import Warden
    from reprieve.model.run import TEST, Run

    began_s = monotonic()
    warden, enclosure, use, left_behind = Warden(), None, None, 0
    try:
        enclosure, enforcement = enclose_best(call.pid, warden, bounds, TEST)
        outcome, status = call.let_go(bounds.max_bytes if enclosure is None else None)
        if enclosure is not None:
            left_behind = enclosure.end_stragglers()
            use = enclosure.use()
    finally:
        if enclosure is None or enclosure.close():
            warden.dismiss()
    code = os.waitstatus_to_exitcode(status)
    return outcome, Run(
        argv=(item.name,),
        bounds=bounds,
        enforcement=enforcement,
        status=128 - code if code < 0 else code,
        signal=-code if code < 0 else None,
        wall_s=monotonic() - began_s,
        use=use,
        left_behind=left_behind,
    )


def _end_as(outcome: _Outcome) -> None:
    if outcome.kind == "skip":
        pytest.skip(outcome.said)
    if outcome.kind == "xfail":
        pytest.xfail(outcome.said)
    if outcome.kind == "interrupted":
        raise KeyboardInterrupt
    if outcome.error is not None:
        raise outcome.error
    if outcome.kind != "passed":
        pytest.fail(outcome.said, pytrace=False)


class _Call:
    """The function in a forked process, which waits to be let go; it ends when this one does."""

    def __init__(self, item: pytest.Function) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        hold, self._go = os.pipe()
        self._told, tell = os.pipe()
        parent = os.getpid()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of threads, which the child is without
            self.pid = os.fork()
        if self.pid == 0:
            os.close(self._go)
            os.close(self._told)
            _be_the_function(item, hold, tell, parent)
        os.close(hold)
        os.close(tell)
        self._ended = False

    def let_go(self, data_bytes: int | None) -> tuple[_Outcome | None, int]:
        """Let it run, with RLIMIT_DATA if there is no group; how it ended, and its wait status. None: it was ended."""
        with suppress(BrokenPipeError):  # it is dead already, of a limit below what waiting takes
            os.write(self._go, b"%d" % (-1 if data_bytes is None else data_bytes))
        said = b"".join(self._blocks())
        _, status = os.waitpid(self.pid, 0)
        self._ended = True
        try:
            kind, words, error = pickle.loads(said)
        except (EOFError, pickle.UnpicklingError):  # it ended in the middle, or before
            return None, status
        return _Outcome(kind, words, _loaded(error)), status

    def _blocks(self) -> Iterator[bytes]:
        """What it tells, to its end: who was forked in it may hold the pipe for longer."""
        try:
            ended = os.pidfd_open(self.pid)
        except OSError:  # Linux before 5.3
            ended = None
        try:
            while ended is None or self._told in select.select((self._told, ended), (), ())[0]:
                if not (block := os.read(self._told, 65536)):
                    return
                yield block
        finally:
            if ended is not None:
                os.close(ended)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it, if it has not been let go to its end."""
        os.close(self._go)
        os.close(self._told)
        if not self._ended:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)


def _be_the_function(item: pytest.Function, hold: int, tell: int, parent: int) -> NoReturn:
    """In the new process: wait, run it, tell how it ended. Nothing of pytest's own end is done here."""
    try:
        outcome = _outcome(item, lambda: _held(item, hold, parent))
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # gone, or closed by the test
                stream.flush()
        said = memoryview(pickle.dumps((outcome.kind, outcome.said, _dumped(outcome.error))))
        while said:
            said = said[os.write(tell, said) :]
    finally:
        os._exit(0)


def _held(item: pytest.Function, hold: int, parent: int) -> None:
    """The function, once it may."""
    _await_go(hold, parent)
    item.ihook.pytest_pyfunc_call(pyfuncitem=item)


def _dumped(error: BaseException | None) -> bytes:
    """Empty: it cannot be told to another process."""
    try:
        return b"" if error is None else pickle.dumps(error)
    except (pickle.PicklingError, TypeError, AttributeError, RecursionError):
        return b""


def _loaded(told: bytes) -> BaseException | None:
    try:
        error = pickle.loads(told) if told else None
    except (pickle.UnpicklingError, TypeError, AttributeError, ImportError):  # its class wants to be made otherwise
        return None
    return error if isinstance(error, BaseException) else None


def _await_go(hold: int, parent: int) -> None:
    from reprieve.machine.launch import die_with_parent, limit_data

    die_with_parent()
    told = os.read(hold, 64)
    os.close(hold)
    if not told or os.getppid() != parent:
        os._exit(0)
    if int(told) >= 0:  # beside what it shares with its parent, which counts here
        with open("/proc/self/status", "rb") as file:
            inherited = int(file.read().partition(b"VmData:")[2].split()[0]) * 1024
        limit_data(inherited + int(told))


def _outcome(item: pytest.Function, function: Callable[[], object]) -> _Outcome:
    try:
        function()
    except _OWN as end:
        kind = next(kind for own, kind in _OWN_ENDS.items() if isinstance(end, own))
        if kind != "fail" or not getattr(end, "pytrace", True):
            return _Outcome(kind, str(end))
        return _Outcome("raised", _rendered(item))
    except KeyboardInterrupt:
        return _Outcome("interrupted")
    except pytest.exit.Exception as end:
        return _Outcome("exit", str(end), end)
    except BaseException as error:  # noqa: BLE001 - whatever a test raises is told by the process that runs the others
        expected = any(mark.kwargs.get("raises") for mark in item.iter_markers("xfail"))
        return _Outcome("raised", _rendered(item), error if expected else None)
    return _Outcome("passed")


def _rendered(item: pytest.Function) -> str:
    """The traceback, as pytest shows it."""
    return str(item.repr_failure(pytest.ExceptionInfo.from_current()))

"""A command: forked and held before it runs anything, let go, its signals and its end waited for without a look at the
clock.

The command stays in our session and process group, so a terminal and a shell see one job: Ctrl-C, Ctrl-Z and `fg` reach
it as if it were alone.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from time import monotonic
from typing import NamedTuple, NoReturn

from reprieve.model.finding import Failure

OURS, NOT_RUN, NOT_FOUND = 125, 126, 127  # as env(1), nice(1), timeout(1) and docker have them
GRACE_S = 10.0  # between asking it to end, when its time is over, and ending it
if sys.platform != "win32":  # which has none of these, nor calls what uses them: see machine/job.py
    TO_END = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
    _FORWARDED = (*TO_END, signal.SIGUSR1, signal.SIGUSR2)
    _HEARD = (*_FORWARDED, signal.SIGCHLD)
    _STOPS = (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)  # by which job control stops a job
    _IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)
_SAID_BYTES = 65536  # what the child says is one write, and fits into a pipe
_PR_SET_PDEATHSIG = 1
_MPOL_BIND = 2  # set_mempolicy(2), whose number is that of the architecture
_SET_MEMPOLICY = {"x86_64": 238, "aarch64": 237, "riscv64": 237, "ppc64le": 261, "s390x": 270}


class User(NamedTuple):
    """As whom it runs."""

    name: str
    uid: int
    gid: int
    home: str
    shell: str


class Order(NamedTuple):
    """What is to be run, and how; None: as we run ourselves."""

    argv: tuple[str, ...]
    mask: Iterable[int]  # the signals that are kept from it
    adj: int | None = None
    nice: int | None = None
    node: int | None = None
    user: User | None = None


class Ended(NamedTuple):
    """How the command ended."""

    status: int  # its own, or 128 and the signal
    signal: int | None
    out_of_time: bool
    asked: int | None  # the last signal by which somebody asked for the end of it
    largest_process_bytes: int | None  # None: it is not known, as it is below what we held when we forked


def keep_signals() -> Iterable[int]:
    """Keep signals to this process until they are waited for; those that were kept from it before."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # where it is ignored, nobody can be waited for
    return signal.pthread_sigmask(signal.SIG_BLOCK, _HEARD)


class Held:
    """The command's process, which waits to be let go.

    Until it is let go it may be moved; where this process dies, it ends.
    """

    def __init__(self, order: Order) -> None:
        told, tell = os.pipe()
        hold, self._go = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._go)
            _become(order, hold, tell)
        os.close(hold)
        os.close(tell)
        self._told = told

    def await_ready(self) -> None:
        """Wait until it is what it should be, but for the group it is in. Raises Failure: it cannot be."""
        self._hear(os.read(self._told, _SAID_BYTES))

    def let_go(self, *, grouped: bool, data_bytes: int | None = None) -> None:
        """Let it run, and die with us if it is in a group; `data_bytes`: RLIMIT_DATA of each process, where it is not.

        Raises Failure: there is no such command, or it cannot be run.
        """
        with suppress(BrokenPipeError):  # it is dead already, of a limit below what waiting takes: how, is told later
            os.write(self._go, b"group" if grouped else b"alone %d" % (-1 if data_bytes is None else data_bytes))
        os.close(self._go)
        self._hear(os.read(self._told, _SAID_BYTES))
        os.close(self._told)

    def _hear(self, said: bytes) -> None:
        """What it could not do; nothing, or an empty line, if it could."""
        if not said.strip():
            return
        os.waitpid(self.pid, 0)
        status, message, hint = said.decode(errors="surrogateescape").rstrip("\n").split("\0")
        raise Failure(message, hint=hint or None, status=int(status))


def _become(order: Order, hold: int, tell: int) -> NoReturn:
    """In the new process: all that can fail first, then wait, then become the command."""
    parent = os.getppid()
    try:
        import ctypes  # noqa: F401 - for later: loaded while the parent makes the group, and before another user may not
        import resource  # noqa: F401 - as well

        _prepare(order)
        os.write(tell, b"\n")
        how, _, figure = os.read(hold, 64).partition(b" ")
        if how == b"group":
            die_with_parent()
        elif figure not in (b"", b"-1"):
            limit_data(int(figure))
        if not how or os.getppid() != parent:  # it died before it let us go, or before we asked to die with it
            os._exit(OURS)
        for number in _IGNORED_BY_PYTHON:
            signal.signal(number, signal.SIG_DFL)
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # it would be an exception, not an end by it
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, order.mask)
        os.execvp(order.argv[0], order.argv)
    except Failure as failure:
        _tell(tell, failure.status, failure.message, failure.hint or "")
    except OSError as error:
        status = NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_RUN
        _tell(tell, status, f"{order.argv[0]}: {error.strerror}", _hint(order.argv[0], error))
    except (ImportError, MemoryError, ValueError) as error:
        _tell(tell, OURS, f"{order.argv[0]} could not be started: {error!r}", "")
    finally:
        os._exit(OURS)


def die_with_parent() -> None:
    """Have the kernel end this process when the one that forked it ends."""
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))


def limit_data(most_bytes: int) -> None:
    """RLIMIT_DATA of this process and those it starts: so much, or less where it may not have as much."""
    from resource import RLIM_INFINITY, RLIMIT_DATA, getrlimit, setrlimit

    hard = getrlimit(RLIMIT_DATA)[1]
    most = most_bytes if hard == RLIM_INFINITY else min(most_bytes, hard)
    setrlimit(RLIMIT_DATA, (most, most))


def _tell(tell: int, status: int, message: str, hint: str) -> None:
    os.write(tell, f"{status}\0{message}\0{hint}".encode(errors="surrogateescape"))


def _hint(name: str, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "it is looked for in PATH; a script may also name an interpreter that is not there"
    return "is it a program, and may be executed?" if "/" in name else ""


def _prepare(order: Order) -> None:
    """Everything about the process itself. Raises Failure."""
    if order.node is not None:
        _bind(order.node)
    if order.nice is not None:
        try:
            os.setpriority(os.PRIO_PROCESS, 0, order.nice)
        except OSError as error:
            hint = _who_may_lower("--nice", order.nice, "SYS_NICE", order)
            raise _refused("--nice", order.nice, error, hint) from error
    if order.adj is not None:
        try:
            with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
                file.write(str(order.adj))
        except OSError as error:
            hint = _who_may_lower("--adj", order.adj, "SYS_RESOURCE", order)
            raise _refused("--adj", order.adj, error, hint) from error
    if order.user is not None:
        _turn_into(order.user)


def _refused(option: str, value: object, error: OSError, hint: str) -> Failure:
    return Failure(f"{option} {value}: {error.strerror}", hint=hint, status=OURS)


_CAPABILITIES = {"SYS_NICE": 23, "SYS_RESOURCE": 24}  # capabilities(7)


def _who_may_lower(option: str, value: int, capability: str, order: Order) -> str:
    """Root, by a command that leaves the command to its user; or root elsewhere, where that right is kept from ours."""
    from reprieve.machine.host import Host, root_could
    from reprieve.machine.program import run_as_root

    takes = f"below the present one it takes CAP_{capability}"
    if not root_could(Host(), _CAPABILITIES[capability]):
        elsewhere = f"root has it on the host, and in a container by --cap-add {capability}"
        return f"{takes}, which not even root has here; {elsewhere}"
    command = run_as_root(option, str(value), named=order.user is not None)
    return f"{takes}, which is missing here" if command is None else f"{takes}; run it as root: `{command}`"


def _turn_into(user: User) -> None:
    try:
        os.initgroups(user.name, user.gid)
        os.setgid(user.gid)
        os.setuid(user.uid)
    except OSError as error:
        from reprieve.machine.program import run_as_root

        command = run_as_root("--user", user.name, named=True)
        takes = "it takes CAP_SETUID and CAP_SETGID"
        hint = takes if command is None else f"run it as root: `{command}`"
        raise _refused("--user", user.name, error, hint) from error
    os.environ.update(HOME=user.home, USER=user.name, LOGNAME=user.name, SHELL=user.shell)


def _bind(node: int) -> None:
    """Take memory of one NUMA node alone: the kernel keeps that over fork and exec."""
    import ctypes

    number = _SET_MEMPOLICY.get(os.uname().machine)
    if number is None:
        raise Failure(f"--node is not known for {os.uname().machine}", hint="numactl --membind", status=OURS)
    words = node // 64 + 1
    mask = (ctypes.c_uint64 * words)(*(1 << node % 64 if at == node // 64 else 0 for at in range(words)))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(number, _MPOL_BIND, mask, ctypes.c_ulong(64 * words + 1)):
        error = OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        raise _refused("--node", node, error, "/sys/devices/system/node/online tells which there are")


class Warden:
    """The process that watches over us, and what it is to do when we are gone."""

    def __init__(self) -> None:
        from reprieve.machine import warden

        hears, self._orders = os.pipe()
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            self.pid = self._spawn(warden.__file__, hears, null)
        except OSError as error:
            raise Failure(
                f"who watches over the command could not be started: {error.strerror}", status=OURS
            ) from error
        os.close(hears)
        os.close(null)

    @staticmethod
    def _spawn(program: str, hears: int, null: int) -> int:
        return os.posix_spawn(
            sys.executable,
            (sys.executable, "-I", "-S", program),
            os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, hears, 0), *((os.POSIX_SPAWN_DUP2, null, end) for end in (1, 2))],
            setsid=True,
            setsigmask=signal.valid_signals(),
        )

    def order(self, what: str) -> None:
        """`group FOLDER` or `tree PID`: whom to end."""
        try:
            os.write(self._orders, os.fsencode(f"{what}\n"))
        except BrokenPipeError:
            raise Failure("who watches over the command has been killed", hint="try again", status=OURS) from None

    def dismiss(self) -> None:
        """Nothing is left to be done, so it ends: at once, for it may not even have begun."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self._orders)


def await_end(pid: int, time_s: float | None, members: Callable[[], list[int]], kill: Callable[[], None]) -> Ended:
    """Wait for the command, and hand on what is sent to us: once. A second request to end it ends all of it.

    Not what the terminal sends, which reaches the command by itself, however often; nor what comes from the command.
    """
    until = None if time_s is None else monotonic() + time_s
    requests, last, out_of_time = 0, None, False
    while True:
        heard = (
            signal.sigwaitinfo(_HEARD) if until is None else signal.sigtimedwait(_HEARD, max(until - monotonic(), 0))
        )
        if heard is None:
            if out_of_time:
                until = None
                kill()
            else:
                out_of_time, until = True, monotonic() + GRACE_S
                _send(pid, signal.SIGTERM)
        elif heard.si_signo == signal.SIGCHLD:
            if (ended := _reap(pid)) is not None:
                return ended._replace(out_of_time=out_of_time, asked=last)
        elif heard.si_code > 0:  # SI_KERNEL: by a key at the terminal
            last = heard.si_signo if heard.si_signo in TO_END and is_heeded(heard.si_signo) else last
        elif heard.si_pid not in (pid, *members()):  # SI_USER, SI_QUEUE, SI_TKILL: kill(2)
            last = heard.si_signo if heard.si_signo in TO_END and is_heeded(heard.si_signo) else last
            requests += heard.si_signo in (signal.SIGINT, signal.SIGTERM)
            if requests > 1:
                kill()
            else:
                _send(pid, heard.si_signo)


def is_heeded(number: int) -> bool:
    """Not what was ignored when we were started, by nohup(1), or `&` in a script: blocked, it is told all the same."""
    return signal.getsignal(number) is not signal.SIG_IGN


def _send(pid: int, number: int) -> None:
    with suppress(PermissionError):  # sudo(8) is another user's: what ends all of it may do more, and is tried next
        os.kill(pid, number)


def _reap(pid: int) -> Ended | None:
    """The command, if it has ended. If job control has stopped it alone, stop too: the shell waits for us."""
    one, told, usage = os.wait4(pid, os.WNOHANG | os.WUNTRACED)
    if one == 0:
        return None
    if os.WIFSTOPPED(told):
        if os.WSTOPSIG(told) in _STOPS:
            os.kill(os.getpid(), signal.SIGSTOP)
            os.kill(pid, signal.SIGCONT)  # `fg` sends it to all of the job; `kill -CONT` to us alone
        return None
    number = os.WTERMSIG(told) if os.WIFSIGNALED(told) else None
    status = 128 + number if number is not None else os.WEXITSTATUS(told)
    # The kernel keeps the most that was resident over exec: what the process held while it was still ours counts too.
    largest_bytes = usage.ru_maxrss * 1024
    known = largest_bytes > _own_peak_bytes()
    return Ended(status, number, False, None, largest_process_bytes=largest_bytes if known else None)


def _own_peak_bytes() -> int:
    """The most that we held resident: VmHWM, since our own ru_maxrss counts who started us."""
    with open("/proc/self/status", "rb") as file:
        return int(file.read().partition(b"VmHWM:")[2].split()[0]) * 1024

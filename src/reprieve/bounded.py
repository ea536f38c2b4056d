"""A process under limits, by the best means there is, and what is known of its end: for `run`, and for pytest."""

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import suppress

from reprieve.machine.launch import Warden
from reprieve.model.finding import Failure
from reprieve.model.run import COMMAND, Bounds, Enforcement, Run, is_own
from reprieve.show import escape, ran
from reprieve.units import size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from reprieve.machine.enclosure import Enclosure
    from reprieve.model.finding import Gap
    from reprieve.model.oom import OomReport

    Kills = tuple[Sequence[OomReport], Sequence[Gap]]

_UNTIL_LOGGED_S = 2.0  # the kernel kills first and tells then


def enclose_best(
    pid: int, warden: Warden, bounds: Bounds, prefix: str = COMMAND
) -> tuple["Enclosure | None", Enforcement]:
    """A group around a process, by the best means there is, and what is not held by it; None: there is no group."""
    from reprieve.machine.enclosure import enclose, find_hierarchy, is_run_by_systemd, left_limits, new_name

    refusals: list[str] = []
    hierarchy, made, means = None, None, "systemd"
    with suppress(OSError):  # no /proc
        hierarchy = find_hierarchy()
    if hierarchy is None:
        refusals.append("no memory controller is mounted")
    else:
        name = new_name(prefix)
        if hierarchy.version == 2 and is_run_by_systemd():
            from reprieve.machine.scope import enclose_by_systemd

            try:
                made = enclose_by_systemd(hierarchy, name, pid, warden.pid, bounds)
            except (OSError, ValueError) as error:
                refusals.append(f"systemd: {(isinstance(error, OSError) and error.strerror) or error}")
        if made is None:
            means = f"cgroup{hierarchy.version}"
            made = enclose(hierarchy, name, pid, bounds, refusals)
    if made is None or hierarchy is None:
        warden.order(f"tree {pid}")
        return None, Enforcement(means="rlimit", unenforced=tuple(_beyond_rlimits(bounds)), refusals=tuple(refusals))
    try:
        warden.order(f"group {made.folder}")
    except Failure:
        made.close()
        raise
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


def end_of_log() -> int | None:
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


def kills_of(log: int | None, run: Run, pid: int) -> "Kills":
    """What the kernel has logged of kills in its group, or of the process where it has none, oldest first."""
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
        from reprieve.machine.program import as_root

        reads = as_root("why")  # the command is not for root to run, only the log is for root to read
        hint = "reprieve why tells it on the host" if reads is None else f"{escape.shell(reads)} tells it"
        lacking = "only root may read the kernel's report"
    else:
        lacking, hint = "the kernel has logged no report of it", "it leaves some out where they come too often"
    return (), (Gap(place="/dev/kmsg", reason=f"{killed} killed for memory; {lacking}", hint=hint),)


def _name(group: str) -> str:
    """The part of the path that is ours alone: the kernel may know the group by a longer one, of `run` under `run`."""
    return next(part for part in reversed(group.split("/")) if is_own(part))


def _is_of(oom: "OomReport", group: str | None, pid: int) -> bool:
    if group is None:
        return any(kill.pid == pid for kill in oom.kills)
    return any(_name(group) in (path or "") for path in (oom.task_memcg, oom.oom_memcg))


def story(run: Run, kills: "Kills", *, width: int, colour: bool = False, verbose: bool = False) -> Iterator[str]:
    """How it ended and what it needed; and each kill, explained."""
    from reprieve.machine.program import gaps_at_hand
    from reprieve.model.snapshot import Snapshot
    from reprieve.rules import diagnose
    from reprieve.show import text

    ooms, gaps = kills
    page = text.Page(width=width, paint=text.colours() if colour else text.plain_paint)
    yield from ran.ended(page, run, explained=bool(ooms))
    if ran.is_probably_refused(run):
        from reprieve.machine.program import as_root, user_name

        yield from ran.for_all_of_it(page, run, as_root("run", "--user", user_name()))
    if ooms or gaps:
        snapshot = Snapshot(ooms=tuple(ooms), gaps=gaps_at_hand(gaps))
        yield ""
        yield from text.explain(snapshot, diagnose(snapshot), width=width, colour=colour, verbose=verbose, hints=False)

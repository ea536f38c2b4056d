"""`reprieve snapshot`: all that can be seen of a machine, in one file that travels."""

import os
import sys
from dataclasses import replace
from itertools import accumulate
from typing import TypeVar

from reprieve.codec import DOCUMENT_BYTES, is_packed, pack, unpack
from reprieve.machine.events import HISTORY, gone_groups, tell
from reprieve.machine.host import Host, Identity, become_expendable, identify
from reprieve.machine.observe import observe
from reprieve.machine.program import gaps_at_hand
from reprieve.machine.source import Source, shown
from reprieve.model.finding import Failure, Gap
from reprieve.model.oom import OomReport, OomSummary
from reprieve.model.snapshot import Snapshot
from reprieve.ours import our_limits
from reprieve.output import INCOMPLETE, print_lines, refuse_to_lose
from reprieve.rules.whatif import without
from reprieve.show.escape import visible
from reprieve.units import size, utc

REPORTS = 16  # the newest events that are told whole, with their lines; of the others a summary
LINES = 50_000  # in them together, but for the newest: a report has one for each process of its machine

_Dated = TypeVar("_Dated", OomReport, OomSummary)


def perform(*, output: str, root: str) -> int:
    """Look at the machine of that root, write the file, say what is in it; the exit status. Raises Failure."""
    become_expendable()
    if output == "-" and sys.stdout.isatty():
        raise Failure("a snapshot is no text for a terminal", hint="reprieve snapshot -o FILE")
    snapshot = take(root)
    data = pack(snapshot)
    _write(output, data)
    unseen = [gap for gap in (*snapshot.machine_gaps, *snapshot.gaps) if gap.hides]
    said = [f"written: {visible(shown(output))}: {_summary(snapshot)}, {size(len(data))}"]
    for gap in gaps_at_hand(unseen):
        hint = f" ({gap.hint})" if gap.hint else ""
        said.append(visible(f"not seen: {gap.place}: {gap.reason}{hint}"))
    if output == "-":
        print("\n".join(said), file=sys.stderr)
    else:
        print_lines(said)
    return INCOMPLETE if unseen else 0


def take(root: str = "/") -> Snapshot:
    """A machine now, or as a root or a sosreport has it, packed or not, and the kills of its logs. Raises Failure."""
    if os.path.isfile(root):
        from reprieve.machine.unpack import is_archive, unpacked  # loads what decompresses

        if is_archive(root):
            gaps: list[Gap] = []
            with unpacked(root, gaps) as folder:
                return _take(Host(folder), root, gaps)
    return _take(Host(root), Host(root).root, [])


def _take(host: Host, logs: str, machine_gaps: list[Gap]) -> Snapshot:
    if not os.path.isdir(f"{host.root}/proc") and not os.path.isdir(f"{host.root}/sys"):
        raise Failure(f"{shown(logs)} holds neither proc nor sys", hint="name the root of a captured machine")
    machine = observe(host, machine_gaps)  # first: to read logs takes memory and time
    if not host.root:
        machine = without(machine, {os.getpid()})  # it ends before anybody is chosen
    gaps: list[Gap] = []
    identity = identify(host.root)
    told = tell(_sources(logs, identity, gaps), lambda _: True, REPORTS, gaps)
    return replace(
        told,
        ooms=_newest(told.ooms),
        gone_groups=gone_groups(told.ooms, identity.boot_id) if not host.root else (),
        our_limits=our_limits(told.ooms, identity.boot_id) if not host.root else (),
        history=told.history[-HISTORY:],
        machine=machine,
        machine_gaps=tuple(machine_gaps),
    )


def load(path: str) -> Snapshot:
    """What was written to that file; to standard input, if it is `-`. Raises Failure: it cannot be read, or holds no
    snapshot.
    """
    piped = path == "-"
    name = "stdin" if piped else shown(path)
    if piped and os.isatty(0):
        raise Failure(
            "stdin is a terminal: no snapshot comes from it", hint="reprieve snapshot -o - writes one to a pipe"
        )
    try:
        with open(0 if piped else path, "rb", closefd=not piped) as file:
            data = file.read(DOCUMENT_BYTES + 1)
    except OSError as error:
        raise Failure(f"{name}: {error.strerror}", hint="name a file that can be read") from error
    try:
        return unpack(data)
    except Failure as failure:
        raise Failure(f"{name}: {failure.message}", hint=failure.hint) from failure


def dated_by_machine(kept: Snapshot) -> Snapshot:
    """The same; what the time since boot alone dates has about the date, by the clock of the machine that told of it.

    The kernel's own stamps do not count how long it was suspended.
    """
    machine = kept.machine
    if machine is None or machine.boot_id is None or machine.taken_wall_s is None or machine.taken_uptime_s is None:
        return kept
    boot_id, booted_s = machine.boot_id, machine.taken_wall_s - machine.taken_uptime_s

    def dated(event: _Dated) -> _Dated:
        at = event.stamp
        if event.boot_id != boot_id or at.uptime_s is None or at.text is not None:
            return event
        wall_s = booted_s + at.uptime_s
        return replace(event, stamp=replace(at, text=f"about {utc(wall_s)}", wall_s=wall_s))

    return replace(kept, ooms=tuple(map(dated, kept.ooms)), history=tuple(map(dated, kept.history)))


def _newest(ooms: tuple[OomReport, ...]) -> tuple[OomReport, ...]:
    """Those that a document has room for."""
    lines = list(accumulate(len(oom.lines) for oom in reversed(ooms)))
    fits = max(sum(count <= LINES for count in lines), 1)
    return ooms[-fits:]


def _sources(root: str, identity: Identity, gaps: list[Gap]) -> list[Source]:
    """The logs of a machine: a sosreport keeps them in many places, a tree where they were."""
    from reprieve.machine.log import named, of_this_machine

    if not root:
        sources, unseen = of_this_machine(identity)
    else:
        whole = os.path.isfile(root) or os.path.isdir(f"{root}/sos_commands")
        folder = root if whole else f"{root}/var/log"
        try:
            sources, unseen = named((folder,), identity)
        except Failure as none:
            sources, unseen = [], [Gap(place="logs", reason=none.message)]
    gaps += unseen
    return sources


def _summary(snapshot: Snapshot) -> str:
    machine = snapshot.machine
    assert machine is not None
    counts = (
        (len(machine.processes), "process", "processes"),
        (len(machine.cgroups), "cgroup", "cgroups"),
        (len(snapshot.history), "OOM event", "OOM events"),
    )
    return ", ".join(f"{count} {one if count == 1 else many}" for count, one, many in counts)


def _write(path: str, data: bytes) -> None:
    """To a file of the user's own alone: what is in it, the kernel does not tell everybody.

    One that is there is replaced once the new one is whole; a pipe or a device is written to. Raises Failure.
    """
    try:
        if path == "-":
            try:
                sys.stdout.buffer.write(data)
                sys.stdout.flush()
            except BrokenPipeError:  # the reader has left; what is still in the buffer goes nowhere
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        elif os.path.exists(path) and not os.path.isfile(path):
            with open(os.open(path, os.O_WRONLY | os.O_CLOEXEC), "wb") as file:
                file.write(data)
        elif os.path.islink(path):
            raise Failure(f"{shown(path)} is a link", hint="name the file that is meant; - is standard output")
        else:
            refuse_to_lose(path, is_packed)
            _replace(path, data)
    except OSError as error:
        raise Failure(f"{shown(path)}: {error.strerror}", hint="name a file that can be written") from error


def _replace(path: str, data: bytes) -> None:
    """By one rename; if anything fails, all is as it was. Raises OSError."""
    beside = f"{path}.{os.getpid()}.new"
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        os.rename(beside, path)
    except BaseException:  # Ctrl-C too
        os.unlink(beside)
        raise

"""reprieve: what Linux killed for memory, why, and what to do about it.

As a library:

    import reprieve

    for oom in reprieve.read_reports("/var/log/kern.log"):
        print(oom.victim, oom.scope)

    snapshot = reprieve.read("/var/log/kern.log")
    for finding in reprieve.diagnose(snapshot):
        print(finding.severity, finding.code, reprieve.plain(finding.claim))

Importing costs nothing: what reads is loaded at the first call.
"""

from __future__ import annotations

TYPE_CHECKING = False  # of `typing`, which takes a third of the time in which Python starts
if TYPE_CHECKING:
    from collections.abc import Iterator
    from os import PathLike

    from reprieve.machine.source import Source
    from reprieve.model.finding import Failure as Failure
    from reprieve.model.finding import Finding, Gap
    from reprieve.model.oom import OomReport
    from reprieve.model.snapshot import Snapshot

__version__ = "0.1.0"


if not TYPE_CHECKING:  # else any name were one of the module's

    def __getattr__(name: str) -> object:
        """`Failure`, which what cannot be read raises: loaded when it is asked for."""
        if name == "Failure":
            from reprieve.model.finding import Failure

            return Failure
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def read_reports(source: str | PathLike[str] | bytes) -> Iterator[OomReport]:
    """Every out-of-memory event in a log, in its order, in constant memory.

    `source` is the path of a file, plain or compressed, or of a folder, an archive or a journal; bytes are the text of
    a log itself. Raises Failure if nothing can be read. What can be read in part ends early: `read` tells of that.
    """
    from reprieve.machine.reader import read_source
    from reprieve.model.oom import OomReport

    gaps: list[Gap] = []
    for one in _sources(source, gaps):
        for event in read_source(one, gaps):
            if isinstance(event, OomReport):
                yield event


def read(source: str | PathLike[str] | bytes) -> Snapshot:
    """All that a log tells, as `diagnose` wants it: events, failed allocations, pasted statuses, and what was not seen.

    `source` as for `read_reports`. The same event from several files of a folder is there once. Raises Failure if
    nothing can be read.
    """
    import sys

    from reprieve.machine.events import tell

    gaps: list[Gap] = []
    return tell(_sources(source, gaps), lambda _: True, sys.maxsize, gaps)


def diagnose(snapshot: Snapshot) -> list[Finding]:
    """What the facts show: by event (`Finding.oom` counts in `snapshot.ooms`), then the severest first.

    In claims, details, titles and costs a name that a stranger chose stands between marks, the control characters
    `reprieve.model.finding.NAME_START` and `NAME_END`: `plain` makes text of them that is safe to print; for any other
    format escape what is between, and drop the marks.
    """
    from reprieve.rules import diagnose as all_rules

    return all_rules(snapshot)


def plain(marked: str) -> str:
    """The words of a finding as a terminal or a log may have them: no marks, and no name in them can act or mislead.

    >>> plain("\\x02a b\\x03 was killed")
    '“a b” was killed'
    """
    from reprieve.show.escape import plain as escaped

    return escaped(marked)


def _sources(source: str | PathLike[str] | bytes, gaps: list[Gap]) -> list[Source]:
    from reprieve.machine.source import Source

    if isinstance(source, bytes):
        return [Source(name="-", kind="pipe", blocks=lambda _gaps: iter((source,)))]
    from os import fspath

    from reprieve.machine.host import identify
    from reprieve.machine.log import named

    found, unseen = named((fspath(source),), identify())
    gaps += unseen
    return found

"""Facts and findings ↔ JSON: what `--json` prints, one object a line, and those lines read back; and the
document that a snapshot travels in.

Every object has a `version`, and a `kind` that says which of the shapes below it is. A field is added, never re-used; a
reader passes over fields and kinds it does not know. None is "not told", never 0. Figures are pairs of name and number,
in the order in which the kernel printed them.
"""

import zlib
from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from reprieve.model.change import OurLimit
from reprieve.model.ending import Ending
from reprieve.model.finding import Failure, Finding, Gap
from reprieve.model.killer import Killer
from reprieve.model.machine import Machine
from reprieve.model.oom import AllocationFailure, OomReport, OomSummary, Stamp
from reprieve.model.run import Run
from reprieve.model.snapshot import Snapshot

VERSION: Literal[1] = 1
DOCUMENT_BYTES = 64 * 1024 * 1024  # of a snapshot, unpacked: 10,000 processes in 1,000 cgroups are a fifth of it


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """What one kind of memory held."""

    kind: str
    bytes: int


class Event(msgspec.Struct, frozen=True, kw_only=True, tag="event", tag_field="kind"):
    """One event, explained: the three answers in words, where the memory was, the findings, and all the report tells.

    Words are safe to print; in `report` names are exact, whatever they hold. `report.lines` is empty unless asked for.
    """

    version: Literal[1] = VERSION
    who: str
    limit: str
    what_now: str
    memory: tuple[Part, ...]
    findings: tuple[Finding, ...]
    report: OomReport


class Listed(msgspec.Struct, frozen=True, kw_only=True, tag="summary", tag_field="kind"):
    """One event in little, as `--list` has it."""

    version: Literal[1] = VERSION
    summary: OomSummary


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag="allocation-failure", tag_field="kind"):
    """Memory was refused to somebody, and nobody was killed."""

    version: Literal[1] = VERSION
    failure: AllocationFailure


class General(msgspec.Struct, frozen=True, kw_only=True, tag="finding", tag_field="kind"):
    """A finding about no single event."""

    version: Literal[1] = VERSION
    finding: Finding


class Unseen(msgspec.Struct, frozen=True, kw_only=True, tag="gap", tag_field="kind"):
    """What could not be looked at, or a note where it `hides` nothing: without one that does, everything was seen."""

    version: Literal[1] = VERSION
    gap: Gap


class End(msgspec.Struct, frozen=True, kw_only=True, tag="end", tag_field="kind"):
    """The last line: without it the output is cut."""

    version: Literal[1] = VERSION
    events: int
    not_asked_for: int | UnsetType = UNSET  # of `why`: so many more were found
    exit_status: int


class Ranked(msgspec.Struct, frozen=True, kw_only=True):
    """A process that could be chosen, as the kernel weighs it; the names are exact, whatever they hold."""

    pid: int
    start_ticks: int
    comm: str | None
    cgroup: str | None
    points: int  # badness, in pages
    held_pages: int  # resident, in swap, and of page tables
    oom_score_adj: int
    freed_bytes: int  # private memory, swap and page tables: what comes free for sure


class Foretold(msgspec.Struct, frozen=True, kw_only=True, tag="prediction", tag_field="kind"):
    """What one call of the OOM killer would do now: `reprieve next --json`, a line for each kill."""

    version: Literal[1] = VERSION
    cgroup: str | None  # whose limit is reached; null: memory of the machine
    nodes: tuple[int, ...]  # that are short; empty: all
    kept_by: str | None = None  # what keeps to these nodes those who ask: "policy", "cpuset"; null: all are short
    total_pages: int  # of which a point of oom_score_adj is a thousandth
    page_bytes: int
    instead: str | None  # "panic", "allocating-task", "waits": nobody is chosen
    if_nobody: str | None = None  # can be killed: "panic", "refused" (whoever asks for more), "unseen" (not all were)
    group: str | None  # all of whom die together
    killed: tuple[int, ...]  # pids, the chosen one first
    freed_bytes: int
    stopped: tuple[int, ...] = ()  # pids: the rest of the victim's unit, which systemd stops then (OOMPolicy=stop)
    stopped_bytes: int = 0  # what comes free besides once they have ended: by SIGTERM first, which takes time
    uncounted: int  # processes that could not be weighed
    margin_pages: int | None = None  # by which the first is ahead of the second; null: there is no second
    ranking: tuple[Ranked, ...]  # the chosen one first


class Left(msgspec.Struct, frozen=True, kw_only=True):
    """A place where memory runs out, and what is left until it does."""

    cgroup: str | None  # whose limit it is; null: the machine and its swap
    limit_bytes: int
    left_bytes: int
    swap_bytes: int  # of what is left, what has to go to swap for it


class Grown(msgspec.Struct, frozen=True, kw_only=True):
    """Growth that was asked for and that memory ends: it takes what is left in a place, which is full then."""

    pid: int
    start_ticks: int
    comm: str | None
    asked_bytes: int
    takes: Left


class Lowered(msgspec.Struct, frozen=True, kw_only=True):
    """A limit that was asked for and is lower than what its group holds."""

    cgroup: str
    limit_bytes: int
    held_bytes: int  # that neither its caches nor swap could give up
    refused: bool  # the kernel does not set it (EBUSY), and all is as without it; false: it kills at once


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """When the turn of a process that was named would come."""

    pid: int
    start_ticks: int
    comm: str | None
    rank: int | None  # 1 is next; null: it cannot be chosen, or was not weighed


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the kills foretold free as much as was asked for."""

    need_bytes: int
    freed_bytes: int  # by all of them, with what systemd stops
    kills: int
    enough: bool
    nobody_left: bool  # could be killed after them


class Outlook(msgspec.Struct, frozen=True, kw_only=True, tag="outlook", tag_field="kind"):
    """What is so beside the kills foretold: `reprieve next --json`, one line behind them."""

    version: Literal[1] = VERSION
    nearest: tuple[Left, ...]  # where somebody is; the one with the least left first
    killers: tuple[Killer, ...]  # that act before the kernel must
    grown: tuple[Grown, ...]
    lowered: tuple[Lowered, ...]
    asked: tuple[Turn, ...]
    need: Need | None  # null: nobody asked


class Ran(msgspec.Struct, frozen=True, kw_only=True, tag="run", tag_field="kind"):
    """What became of a command under limits: `reprieve run --report FILE` and `--json`; its kills are events behind."""

    version: Literal[1] = VERSION
    run: Run


Line = Ran | Event | Listed | Refused | General | Unseen | End | Foretold | Outlook


def encode(line: Line) -> bytes:
    """One line, without its end."""
    return msgspec.json.encode(line)


def decode(line: bytes) -> Line:
    """A line read back. Raises msgspec.ValidationError where it is none of ours."""
    read: Line = msgspec.json.decode(line, type=Line)
    return read


def schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a line."""
    named = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "One line of --json"}
    return named | _schema(Line)


class Document(msgspec.Struct, frozen=True, kw_only=True, tag="snapshot", tag_field="kind"):
    """A snapshot as it travels: what it holds, field by field."""

    version: Literal[1] = VERSION
    ooms: tuple[OomReport, ...] = ()
    history: tuple[OomSummary, ...] = ()
    log_ends: Stamp | None = None
    gone_groups: tuple[str, ...] = ()
    our_limits: tuple[OurLimit, ...] = ()
    allocation_failures: tuple[AllocationFailure, ...] = ()
    machine: Machine | None = None
    logs: tuple[str, ...] | None = None
    endings: tuple[Ending, ...] = ()
    gaps: tuple[Gap, ...] = ()
    machine_gaps: tuple[Gap, ...] = ()


class _Head(msgspec.Struct, frozen=True, kw_only=True):
    """What every document of ours says first, whatever its version."""

    kind: str
    version: int


def pack(snapshot: Snapshot) -> bytes:
    """One JSON document, compressed with gzip; the same snapshot gives the same bytes."""
    facts = {name: getattr(snapshot, name) for name in Document.__struct_fields__ if name != "version"}
    return zlib.compress(msgspec.json.encode(Document(**facts)), wbits=_GZIP)


def unpack(data: bytes) -> Snapshot:
    """The snapshot that was packed. Raises Failure: cut, damaged, too large, of a newer version, or something else.

    Whoever wrote it is not trusted: nothing is run or made but the nouns, each field checked for its type, in at most
    64 MiB of text.
    """
    text = _inflate(data)
    try:
        head = msgspec.json.decode(text, type=_Head)
        if head.kind != "snapshot":
            raise Failure(f"it holds no snapshot, but: {head.kind[:40]}", hint=_HOW)
        if head.version > VERSION:
            raise Failure(
                f"the snapshot is of version {head.version}; this reprieve reads up to {VERSION}",
                hint="read it with the reprieve that wrote it, or a newer one",
            )
        document = msgspec.json.decode(text, type=Document)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Failure(f"it is no snapshot: {error}", hint=_HOW) from error
    facts = {name: getattr(document, name) for name in Document.__struct_fields__ if name != "version"}
    return Snapshot(**facts)


def is_packed(begin: bytes) -> bool:
    """Are these the first bytes of a snapshot?"""
    try:
        return zlib.decompressobj(wbits=_GZIP).decompress(begin, 64).startswith(b'{"kind":"snapshot"')
    except zlib.error:
        return False


def _inflate(data: bytes) -> bytes:
    inflater = zlib.decompressobj(wbits=_GZIP)
    try:
        text = inflater.decompress(data, DOCUMENT_BYTES + 1)
    except zlib.error as error:
        raise Failure("it is no snapshot: not compressed with gzip, or damaged", hint=_HOW) from error
    if len(text) > DOCUMENT_BYTES:
        raise Failure(
            f"the snapshot is larger than {DOCUMENT_BYTES >> 20} MiB", hint="no honest one is: do not trust it"
        )
    if not inflater.eof:
        raise Failure("the snapshot is cut: its end is missing", hint="copy it again")
    return text


_GZIP = 31  # wbits: the largest window, with gzip's header and check sum, and no date in it
_HOW = "reprieve snapshot -o FILE makes one"


def snapshot_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of the document."""
    named = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "What reprieve snapshot writes"}
    return named | _schema(Document)


def _schema(shape: Any) -> dict[str, Any]:
    """As msgspec has it, with docstrings as Python 3.13 keeps them: before, their lines stand as far in as the code."""
    from inspect import cleandoc

    told = msgspec.json.schema(shape)
    for one in told["$defs"].values():
        if "description" in one:
            one["description"] = cleandoc(one["description"])
    return told

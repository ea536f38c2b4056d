"""Facts and findings ↔ JSON: what `reprieve why --json` prints, one object a line, and those lines read back.

Every object has a `version`, and a `kind` that says which of the shapes below it is. A field is added, never re-used; a
reader passes over fields and kinds it does not know. None is "not told", never 0. Figures are pairs of name and number,
in the order in which the kernel printed them.
"""

from typing import Any, Literal

import msgspec

from reprieve.model.finding import Finding, Gap
from reprieve.model.oom import AllocationFailure, OomReport, OomSummary

VERSION: Literal[1] = 1


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
    """What could not be looked at: without one of these, everything was."""

    version: Literal[1] = VERSION
    gap: Gap


class End(msgspec.Struct, frozen=True, kw_only=True, tag="end", tag_field="kind"):
    """The last line: without it the output is cut."""

    version: Literal[1] = VERSION
    events: int
    exit_status: int


Line = Event | Listed | Refused | General | Unseen | End


def encode(line: Line) -> bytes:
    """One line, without its end."""
    return msgspec.json.encode(line)


def decode(line: bytes) -> Line:
    """A line read back. Raises msgspec.ValidationError where it is none of ours."""
    read: Line = msgspec.json.decode(line, type=Line)
    return read


def schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a line."""
    named = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "One line of reprieve why --json"}
    return named | msgspec.json.schema(Line)

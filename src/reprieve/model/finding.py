"""What the user came for: a claim about an event, its evidence, and what to do."""

from reprieve.model.noun import noun
from reprieve.model.workload import Workload

_WHOLE = ("swapfile", "swap", "fstab", "file")  # kinds whose places are paths, without a key
NAME_START, NAME_END = "\x02", "\x03"


def quote(name: str) -> str:
    """Mark a name that a stranger chose, so that `show` escapes it for the format at hand."""
    inside = name.replace(NAME_START, "\\x02").replace(NAME_END, "\\x03")
    return f"{NAME_START}{inside}{NAME_END}"


@noun
class Place:
    """Where a value lives: `sysctl:/vm.swappiness`, `unit:nginx.service/MemoryMax`, `swap:/swapfile`."""

    kind: str
    of: str = ""
    key: str = ""

    def __str__(self) -> str:
        return f"{self.kind}:{self.of}/{self.key}" if self.key else f"{self.kind}:{self.of}"


def parse_place(text: str) -> Place:
    """The place that is written so. Raises ValueError.

    >>> parse_place("unit:nginx.service/MemoryMax")
    Place(kind='unit', of='nginx.service', key='MemoryMax')
    """
    kind, colon, rest = text.partition(":")
    if not colon or not rest:
        raise ValueError(f"{text!r} is no place: sysctl:/vm.swappiness is one")
    of, slash, key = rest.rpartition("/")
    return Place(kind=kind, of=of, key=key) if slash and kind not in _WHOLE else Place(kind=kind, of=rest)


@noun
class Change:
    """A place and the value wanted there; None is absent."""

    place: Place
    want: str | None


@noun
class Evidence:
    """A line that shows it, as printed."""

    text: str
    source: str | None = None
    line: int | None = None


@noun
class Remedy:
    """One thing to do, what it costs, and how its amount was computed."""

    title: str
    cost: str | None = None  # what it costs or risks
    amount: str | None = None  # the formula with its figures, where an amount is proposed
    settings: tuple[Change, ...] = ()
    commands: tuple[tuple[str, ...], ...] = ()  # argument lists; `show` makes shell words of them


@noun
class Finding:
    """A claim, how sure it is, about whom, on which evidence, and what to do."""

    code: str
    severity: str  # "critical", "warning", "notice", "info"
    confidence: str  # "certain", "likely", "possible"
    claim: str  # one sentence; names in it are marked by `quote`
    detail: tuple[str, ...] = ()  # further sentences: why it matters, what the figures are
    about: Workload | None = None
    subject: str = ""  # what it is about, spelled alike at each look: a unit, a cgroup, a setting; "" is the machine
    evidence: tuple[Evidence, ...] = ()
    remedies: tuple[Remedy, ...] = ()
    oom: int | None = None  # which event of the snapshot it explains, counted from 0


@noun
class Gap:
    """What we could not see, and what to do to see it."""

    place: str
    reason: str
    hint: str | None = None
    hides: bool = True  # may anything be behind it? Else it is a note, which makes no answer incomplete


class Failure(Exception):
    """The error a user can act on: what happened, and what to do."""

    def __init__(self, message: str, hint: str | None = None, status: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.status = status  # with which the process ends; 4: a change was refused or rolled back


class NoRight(Failure):
    """It may not be changed by us; who has the right may."""

"""What changing a machine is made of: the plan, and what the journal keeps of it."""

from collections.abc import Sequence

from reprieve.model.finding import Failure, Finding, Place
from reprieve.model.noun import noun


@noun
class Lack:
    """A right that is missing, and how to get it."""

    reason: str
    hint: str | None = None


@noun
class Step:
    """One value to change. Both values are as the place itself tells them; None: absent."""

    place: Place
    before: str | None
    want: str | None
    code: str = ""  # of the finding that asks for it; "": the user does
    why: str = ""  # names in it are marked by `quote`
    cost: str | None = None
    called: str | None = None  # what the user calls it, where the place has a number: untrusted text
    group: int = 0  # steps of one hold together or not at all
    lacks: Lack | None = None  # of a plan that is only to be shown: why we could not do it


@noun
class Refusal:
    """A value that is not to be changed, or cannot be, with the figure that says so."""

    place: Place
    want: str | None
    reason: str
    hint: str | None = None  # what would work
    code: str = ""
    called: str | None = None


@noun
class Plan:
    """What would be changed, what not, and what is left to people."""

    steps: tuple[Step, ...] = ()
    refused: tuple[Refusal, ...] = ()
    by_hand: tuple[Finding, ...] = ()  # whose remedies are no settings


@noun
class Entry:
    """One value that a transaction changed."""

    number: int  # within its transaction, counted from 0
    place: Place
    before: str | None
    want: str | None
    boot_id: str | None = None  # of a value that goes with its boot; None: it stays
    state: str = "begun"  # "begun": it may be changed or not; "changed"; "undone"
    undone_wall_s: float | None = None  # None: it is not, or an older version did not say when
    became: str | None = None  # of "undone": "left" as another set it, "refused" to go back, "gone"; None: put back
    unconfirmed: bool = False  # of "undone": by itself, as nobody had confirmed it in time


@noun
class OurLimit:
    """A memory limit that a change of ours has set, and that is in force."""

    path: str  # of the cgroup
    limit_bytes: int
    change: int  # its number
    before_bytes: int | None  # None: there was none
    of_root: bool = False  # it is told in root's journal, and another user looks


@noun
class Stay:
    """A value that is not changed, or not put back: what is there is not what was expected, or it would not go."""

    place: Place
    why: str  # "changed": by others since; "refused"; "waits": for another; "gone"; "newer": a later change holds it;
    # "unplanned": it is not as when it was planned; "unkept": it was put, or put back, and something else is there
    number: int  # of the transaction; of "newer" of the later one
    before: str | None = None
    want: str | None = None
    found: str | None = None  # what is there, of "changed", "unplanned", "unkept"; None: absent
    reason: str = ""  # of "refused"


class Blocked(Failure):
    """A change, or an undo, that values stand against; who tells it finds the words."""

    def __init__(self, stays: Sequence[Stay], hint: str | None = None, status: int = 1) -> None:
        super().__init__("; ".join(f"{stay.place}: {stay.why}" for stay in stays), hint=hint, status=status)
        self.stays = tuple(stays)


@noun
class Transaction:
    """What was changed at one time, each part of it whole or not at all."""

    number: int
    begun_wall_s: float
    boot_id: str | None
    user: str
    reason: str | None = None
    ended: bool = False  # False: it is under way, or was broken off
    kept: bool = True  # False: it is undone by itself unless somebody confirms it
    due_boottime_s: float | None = None  # when that is, in seconds since its boot; None: it is not, or not told
    entries: tuple[Entry, ...] = ()

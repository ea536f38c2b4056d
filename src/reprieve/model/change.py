"""What changing a machine is made of: the plan, and what the journal keeps of it."""

from reprieve.model.finding import Finding, Place
from reprieve.model.noun import noun


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
class Transaction:
    """What was changed together: all of it, or nothing."""

    number: int
    begun_wall_s: float
    boot_id: str | None
    user: str
    reason: str | None = None
    ended: bool = False  # False: it is under way, or was broken off
    kept: bool = True  # False: it is undone by itself unless somebody confirms it
    entries: tuple[Entry, ...] = ()

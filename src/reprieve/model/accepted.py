"""A finding that somebody has looked at and accepted, until a day."""

from typing import NamedTuple


class Accepted(NamedTuple):
    """One entry of a file of accepted findings."""

    code: str
    subject: str | None  # of the finding; None: all of that code
    reason: str
    until_s: float  # since 1970: after that it is told again

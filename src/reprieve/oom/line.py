"""A message of a log, and what carried it."""

from typing import NamedTuple


class Line(NamedTuple):
    """One message. A tuple, not a dataclass: a report has hundreds, and they end as facts of a noun."""

    number: int  # of its first physical line, counted from 1
    text: str  # what the kernel printed
    head: str = ""  # what was before it, as it stands in the log
    kernel: bool | None = None  # True, False: the transport proves who wrote it; None: it cannot tell
    whole: bool = True  # False: the text ends here without a newline, so its last word may be cut
    boot_id: str | None = None  # where the journal tells

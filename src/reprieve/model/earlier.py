"""What of the last look at this machine is kept, for what only two looks can tell."""

from typing import NamedTuple


class Exempt(NamedTuple):
    """A process that could not be killed then, and what it held of its own."""

    pid: int
    start_ticks: int
    held_bytes: int


class Earlier(NamedTuple):
    """The machine as it was; of the same boot or of another."""

    taken_wall_s: float
    boot_id: str
    slab_bytes: int | None  # that the kernel could not give back
    exempt: tuple[Exempt, ...]


class Known(NamedTuple):
    """A finding of the last look."""

    code: str
    subject: str
    severity: str | None = None  # None: it was not kept then, nor how many there were
    place: str | None = None  # where its first evidence was: of several of one name it tells which

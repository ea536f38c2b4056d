"""All we know about one machine at one time; a pasted log is a snapshot with `ooms` alone."""

from __future__ import annotations

from reprieve.model.noun import noun

TYPE_CHECKING = False  # of `typing`; each dataclass costs `why` a millisecond, and it shows none of a living machine
if TYPE_CHECKING:
    from reprieve.model.change import OurLimit
    from reprieve.model.ending import Ending
    from reprieve.model.finding import Gap
    from reprieve.model.machine import Machine
    from reprieve.model.oom import AllocationFailure, OomReport, OomSummary, Stamp


@noun
class Snapshot:
    """The one argument of every rule."""

    ooms: tuple[OomReport, ...] = ()  # those to explain, in the order of the log
    history: tuple[OomSummary, ...] = ()  # every event that was seen, those in `ooms` too, oldest first
    log_ends: Stamp | None = None  # of the last line with a stamp in the log of the newest event; its buffer: now
    gone_groups: tuple[str, ...] = ()  # paths of cgroups of these events that are no more, where that can be told
    our_limits: tuple[OurLimit, ...] = ()  # of cgroups of these events, where that can be told
    allocation_failures: tuple[AllocationFailure, ...] = ()
    machine: Machine | None = None  # as it lives; None: a log alone
    logs: tuple[str, ...] | None = None  # that could be read, kill or not; None: not told, by an older reprieve
    endings: tuple[Ending, ...] = ()  # what managers say of their workloads
    gaps: tuple[Gap, ...] = ()  # in what the logs tell
    machine_gaps: tuple[Gap, ...] = ()  # in `machine`

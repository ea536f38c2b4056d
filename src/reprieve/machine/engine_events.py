"""What engines say of their containers while the kernel's log is followed: joined to its reports, or told alone."""

from collections import deque
from dataclasses import replace
from json import loads
from time import monotonic

from reprieve.model.ending import KILL, Ending
from reprieve.model.oom import OomSummary
from reprieve.oom.containers import Ends
from reprieve.oom.same import is_about

TYPE_CHECKING = False
if TYPE_CHECKING:
    from reprieve.machine.follow import Said

_WAITS_S = 2.0  # for the kernel's report, which a journal may bring late
_LATE_S = 30.0  # so long after one of them the other may be about the same kill: memory is short
_TOLD = 256  # reports that an engine's word may be about, and words that a report may be


class Engines:
    """What engines say of containers, until the kernel's report of the same kill has had time to come."""

    def __init__(self) -> None:
        self._ends = Ends()
        self._waiting: list[Ending] = []
        self._since_s: float | None = None  # when the first of what waits came
        self._told: deque[tuple[float, OomSummary]] = deque(maxlen=_TOLD)  # when a report was given out
        self._alone: deque[tuple[float, Ending]] = deque(maxlen=_TOLD)  # when a word was, without one
        self._lines = 0

    def add(self, said: "Said") -> None:
        """A line of one; what is no event is nothing."""
        try:
            event = loads(said.text)
        except (ValueError, RecursionError):  # the head of its answer
            return
        if isinstance(event, dict) and event.get("Type") == "container":
            self._since_s = self._since_s or monotonic()
            self._lines += 1
            ending = self._ends.add(event, self._lines, said.manager)
            self._waiting += [] if ending is None else [ending]

    def overdue(self) -> bool:
        """Has one waited as long as it may?"""
        return self._since_s is not None and monotonic() - self._since_s > _WAITS_S

    def of(self, event: OomSummary) -> tuple[Ending, ...]:
        """Those that are about this kill, else those that were told alone a short while ago; each is joined once."""
        waiting = self._all()
        self._told.append((monotonic(), event))
        self._waiting = [ending for ending in waiting if not is_about(ending, event)]
        if said := tuple(ending for ending in waiting if is_about(ending, event)):
            return said
        late = [told for told in self._alone if monotonic() - told[0] < _LATE_S and is_about(told[1], event)]
        for told in late:
            self._alone.remove(told)
        return tuple(ending for _, ending in late)

    def unexplained(self) -> list[Ending]:
        """Those of a kill that no report is about, or of one that was asked for; of the others nothing is known."""
        recent = [event for moment, event in self._told if monotonic() - moment < _LATE_S]
        waiting, self._waiting, self._since_s = self._all(), [], None
        alone = [
            ending
            for ending in waiting
            if ending.reason == KILL or (ending.oom_killed and not any(is_about(ending, event) for event in recent))
        ]
        self._alone += ((monotonic(), ending) for ending in alone if ending.oom_killed)
        return alone

    def _all(self) -> list[Ending]:
        self._waiting += self._ends.left()
        return [replace(ending, source=f"{ending.manager} events") for ending in self._waiting]

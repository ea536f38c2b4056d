"""What nohang writes while it ends a process, a block of lines, → the end that it tells of.

Source: implement_corrective_action(), find_victim_info() and log() of nohang 0.2.0. In the journal each line has a
head; in a log of its own (`separate_log`) a message has a date, and its further lines have nothing.
"""

import re

from reprieve.model.ending import Ending
from reprieve.oom.line import Line
from reprieve.oom.lines import stamp

_BY = r"(?:^| )nohang(?:-desktop)?(?:\[\d{1,10}\])?: "
_DATED = r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}: )(.*)"
_OWN_LOG = "its own log"
_EDGES = ("=== STARTING implement_corrective_action() ====", "=== FINISHING implement_corrective_action() ===")
_LOOKS_AGAIN = "Recheck memory levels..."  # what was exceeded is told anew
_ACTS = "Implementing a corrective action:"
_SENDS = r"Sending SIG(TERM|KILL) to the victim"
_SENT = r"OK; total response time: \d+ms"  # else it died before, or PermissionError
# A name has 15 bytes, which may be escaped. One of the two stands before it looks again, whatever it prints behind.
_VICTIM = (
    r"PID: (\d{1,10}), [Nn]ame: (.{0,60}), badness: -?\d{1,10}",
    r"New victim is cached victim (\d{1,10}) \((.{0,60})\)",
)
# The lines that are kept, figures all: check_mem_swap_ex(), check_zram_ex(), check_psi_ex(), and what came of it.
_EXCEEDED = (
    r"(?:MemAvailable|SwapFree|MemUsedZram) \[[\d.]+ MiB, [\d.]+ %\] [<>]= "
    r"(?:soft|hard)_threshold_(?:min_mem|min_swap|max_zram) \[[\d.]+ M(?:iB)?, [\d.-]+ %\]"
    r"|Current PSI metric value \([\d.]+\) >= (?:soft|hard)_threshold_max_psi \([\d.]+\)"
    r"|PSI metric value exceeded psi_excess_duration \([\d.]+s\) for [\d.]+s"
)
_HELD = r"Vm, MiB: Size: \d+, RSS: \d+(?: \(Anon: \d+, File: \d+, Shmem: \d+\))?, Swap: \d+"
_CAME = (
    r"The victim (?:died|became a zombie|doesn't respond on corrective action) in [\d.]+s"
    r"|MemAvailable: [\d.]+ MiB, SwapFree: [\d.]+ MiB"
)
_FIGURE = rf"(?:{_EXCEEDED}|{_HELD}|{_CAME})"
FIGURES = rf"{_FIGURE}(?:; {_FIGURE})*"  # a reason, whole: it names nobody
_SIGNALS = {"TERM": 15, "KILL": 9}


class Blocks:
    """Takes lines in their order, of anybody, and tells an end when the block that tells of it is over.

    A victim's folder stands in its block as it is, newlines and all, behind what it held: between that and the signal
    nothing is believed, but for the edge of a block.
    """

    def __init__(self) -> None:
        self._voice: str | None = None
        self._when = ""  # the last head: in its own log what it sends stands in a line that has none
        self._begin()

    def _begin(self) -> None:
        self._named: re.Match[str] | None = None
        self._victim: re.Match[str] | None = None  # who was named when it looked again
        self._acts = False
        self._sends: tuple[int, Line, str] | None = None  # signal, its line, and the head that tells when
        self._sent = False
        self._exceeded: list[str] = []
        self._held: list[str] = []
        self._came: list[str] = []

    def add(self, line: Line) -> Ending | None:
        """The end that the block before this line told of; None: of none, or it goes on."""
        head, said, voice = line.head, line.text.strip(), self._voice
        if head:
            by = re.search(_BY, head)
            if by is None:
                return None
            voice = by[0]
        elif dated := re.fullmatch(_DATED, line.text):
            head, said, voice = dated[1], dated[2].strip(), _OWN_LOG
        elif voice != _OWN_LOG:
            return None
        ended = None
        if voice != self._voice or said.strip("<>") in _EDGES:
            ended = self.left()
            self._voice = voice
        self._read(line, head, said)
        return ended

    def left(self) -> Ending | None:
        """That of a block whose end is not there."""
        victim, sends = self._victim, self._sends if self._sent else None
        reason = "; ".join((*self._exceeded, *self._held, *self._came))
        self._begin()
        if sends is None or victim is None:
            return None
        signal, line, head = sends
        return Ending(
            manager="nohang",
            line=line.number,
            name=victim[2],
            pid=int(victim[1]),
            reason=reason or None,
            signal=signal,
            oom_killed=True,
            finished=stamp(head),
        )

    def _read(self, line: Line, head: str, said: str) -> None:
        acts, self._acts = self._acts, said == _ACTS
        if acts and (sends := re.fullmatch(_SENDS, said)):
            self._sends = _SIGNALS[sends[1]], line, head or self._when
            self._sent = False  # what was before, a folder said
            self._came.clear()
        elif self._sends is not None:
            self._sent = self._sent or re.fullmatch(_SENT, said) is not None
            if self._sent and re.fullmatch(_CAME, said):
                self._came.append(said)
        elif self._held:
            pass
        elif said == _LOOKS_AGAIN:
            self._victim = self._named
            self._exceeded.clear()
        elif re.fullmatch(_EXCEEDED, said):
            self._exceeded.append(said)
        elif re.fullmatch(_HELD, held := re.sub(" +", " ", said)):
            self._held = [held]
        else:
            self._named = next(filter(None, (re.fullmatch(one, said) for one in _VICTIM)), self._named)
        self._when = head or self._when

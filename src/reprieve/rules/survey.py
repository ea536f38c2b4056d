"""What matters of a living machine now: where memory runs out and when, who holds it, who grows, who is next."""

from collections import deque
from collections.abc import Hashable, Iterable
from math import inf
from typing import NamedTuple

from reprieve.model.cgroup import Cgroup
from reprieve.model.machine import Machine
from reprieve.model.process import Process
from reprieve.model.workload import Workload
from reprieve.oom.groups import Room, called, met_first, owner, reclaimable_bytes, rooms
from reprieve.oom.living import Prediction, all_seen, predict
from reprieve.rules.trend import BLOCK_S, TimeLeft, Trend, Window, time_left

HISTORY = 240  # looks that are kept to be drawn


class Place(NamedTuple):
    """A place where memory runs out, and when, at the present pace."""

    room: Room
    growth: Trend | None
    left: TimeLeft


class Held(NamedTuple):
    """A process, and what of the memory is its own."""

    process: Process
    bytes: int  # private memory and swap; all that is resident where the kernel does not tell them apart
    growth: Trend | None  # of these
    place: int | None  # in the order in which the kernel would choose: 1 is next; None: it cannot be chosen
    owner: Workload


class Charged(NamedTuple):
    """A cgroup, and what of its memory the kernel cannot give up."""

    group: Cgroup
    bytes: int
    growth: Trend | None  # of these
    place: Place | None  # its own limit; None: it has none
    owner: Workload


class Survey(NamedTuple):
    """One look at a machine."""

    machine: Machine
    places: tuple[Place, ...]  # that somebody can meet, the one with the least left first
    processes: tuple[Held, ...]  # with memory of their own; the largest first
    groups: tuple[Charged, ...]  # the largest first
    prediction: Prediction | None  # None: how much memory there is was not told
    block_s: float = BLOCK_S  # of which time the least of each value counts
    stalls: tuple[float, ...] = ()  # percent of the time that somebody waited for memory, at each look, oldest first
    lefts: tuple[int, ...] = ()  # bytes left in the machine and its swap, at each look

    @property
    def ends_first(self) -> Place | None:
        """The place that is sure to be full first, at the present pace; None: nothing is sure to be."""
        growing = [place for place in self.places if place.left.verdict == "growing"]
        return min(growing, key=lambda place: place.left.seconds or 0, default=None)

    def by_left(self) -> list[Charged]:
        """The groups whose limit is met first; behind them the limits that nobody can meet, and who has none."""
        met = {place.room.path for place in self.places}

        def order(one: Charged) -> tuple[bool, float]:
            return one.group.path not in met, inf if one.place is None else one.place.room.left_bytes

        return sorted(self.groups, key=order)


class Surveyor:
    """Makes surveys of one look after the other, and keeps what of them is needed to tell growth."""

    def __init__(self, *, every_s: float = 1.0, block_s: float = BLOCK_S) -> None:
        self._block_s = max(block_s, every_s)
        self._windows: dict[Hashable, Window] = {}
        self._stalls: deque[float] = deque(maxlen=HISTORY)
        self._lefts: deque[int] = deque(maxlen=HISTORY)
        self._stalled: tuple[float, int] | None = None  # when, and the microseconds waited until then

    def survey(self, machine: Machine) -> Survey:
        """The machine as it is in this look, with what it did in those before."""
        at_s = machine.taken_uptime_s
        kept, self._windows = self._windows, {}

        def growth(of: Hashable, value: int) -> Trend | None:
            if at_s is None:
                return None
            window = self._windows[of] = kept.get(of) or Window(self._block_s)
            window.add(at_s, value)
            return window.trend()

        places = [
            _place(room, growth(("room", room.path), room.limit_bytes - room.left_bytes)) for room in rooms(machine)
        ]
        domain = all_seen(machine)
        prediction = None if domain is None else predict(machine, domain)
        owners = _owners(machine)
        self._remember(machine, next((place.room for place in places if place.room.path is None), None))
        standing = {} if prediction is None else {one.pid: at for at, one in enumerate(prediction.choice.ranking, 1)}
        processes = [
            Held(
                process,
                held,
                growth((process.pid, process.start_ticks), held),
                standing.get(process.pid),
                owners[process.cgroup or "/"],
            )
            for process in machine.processes
            if (held := own_bytes(process)) is not None
        ]
        limits = {place.room.path: place for place in places}
        met = {room.path for room in met_first(machine, [place.room for place in places])}
        groups = [
            Charged(group, taken, growth(group.path, taken), limits.get(group.path), called(machine, group.path))
            for group in machine.cgroups
            if (group.path != "/" or machine.cgroup_private) and (taken := taken_bytes(group)) is not None
        ]
        return Survey(
            machine=machine,
            places=tuple(place for place in places if place.room.path in met),
            processes=tuple(sorted(processes, key=lambda one: (-one.bytes, one.process.pid))),
            groups=tuple(sorted(groups, key=lambda one: (-one.bytes, one.group.path))),
            prediction=prediction,
            block_s=self._block_s,
            stalls=tuple(self._stalls),
            lefts=tuple(self._lefts),
        )

    def _remember(self, machine: Machine, whole: Room | None) -> None:
        if whole is not None:
            self._lefts.append(whole.left_bytes)
        waited = next((line.total_us for line in machine.pressure if line.kind == "some"), None)
        at_s = machine.taken_uptime_s
        if waited is None or at_s is None:
            return
        if self._stalled is not None and at_s > self._stalled[0]:
            share = (waited - self._stalled[1]) / 1e4 / (at_s - self._stalled[0])
            self._stalls.append(min(max(share, 0.0), 100.0))
        self._stalled = at_s, waited


def own_bytes(process: Process) -> int | None:
    """Private memory and swap: what a process itself makes grow; None: it has none, or it is not told."""
    if process.kernel_thread or process.state in ("Z", "X"):
        return None
    held = process.rss_bytes if process.rss_anon_bytes is None else process.rss_anon_bytes
    return None if held is None else held + (process.swap_bytes or 0)


def taken_bytes(group: Cgroup) -> int | None:
    """What is charged to a group, less what can be given up; None: it is not told."""
    if group.current_bytes is None:
        return None
    return max(group.current_bytes - (reclaimable_bytes(group) or 0), 0)


def _place(room: Room, growth: Trend | None) -> Place:
    return Place(room, growth, time_left(room.left_bytes, growth))


def _owners(machine: Machine) -> dict[str, Workload]:
    paths: Iterable[str] = {group.path for group in machine.cgroups} | {one.cgroup or "/" for one in machine.processes}
    return {path: owner(path, machine.containers) for path in paths}

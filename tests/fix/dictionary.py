"""A machine that is a dictionary, a disk that is a list: where death, refusal and stubbornness are injected."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from reprieve.fix.journal import Journal
from reprieve.model.change import Step
from reprieve.model.finding import Failure, Place


class Died(BaseException):
    """The process is no more; nothing it would do after that is done."""


@dataclass
class Life:
    """A process that dies at its n-th touch of the world, before it or just after it was done; None: it lives."""

    dies_at: int | None = None
    after: bool = False
    touches: int = 0

    def before_touch(self) -> None:
        """Every call passes here first."""
        self.touches += 1
        if self.dies_at is not None and (
            self.touches > self.dies_at or (self.touches == self.dies_at and not self.after)
        ):
            raise Died

    def after_touch(self) -> None:
        """And here, when it was done."""
        if self.touches == self.dies_at:
            raise Died


@dataclass
class World:
    """What outlives the process."""

    values: dict[Place, str | None] = field(default_factory=dict)
    disk: list[bytes] = field(default_factory=list)
    refuses: set[Place] = field(default_factory=set)  # whoever puts there fails
    stubborn: dict[Place, str] = field(default_factory=dict)  # whatever is put there, this is read
    lasting: set[Place] = field(default_factory=set)
    ended: set[Place] = field(default_factory=set)


class DictionaryPlaces:
    """`Places` of a world."""

    def __init__(self, world: World, life: Life | None = None) -> None:
        self.world = world
        self.life = life or Life()
        self.puts = 0

    def identify(self, place: Place) -> Place:
        return place

    def get(self, place: Place) -> str | None:
        self.life.before_touch()
        found = self.world.values.get(place)
        self.life.after_touch()
        return found

    def put(self, place: Place, want: str | None) -> None:
        self.life.before_touch()
        if place in self.world.refuses:
            raise Failure(f"{place}: Permission denied")
        self.puts += 1
        self.world.values[place] = self.world.stubborn.get(place, want)
        self.life.after_touch()

    def canonical(self, place: Place, want: str | None) -> str | None:
        return want

    def obstacle(self, place: Place, want: str | None) -> Failure | None:
        return None

    def lasts(self, place: Place) -> bool:
        return place in self.world.lasting

    def gone(self, place: Place) -> bool:
        return place in self.world.ended


class ListLedger:
    """`Ledger` on a world's disk."""

    def __init__(self, world: World, life: Life | None = None) -> None:
        self.world = world
        self.life = life or Life()

    def lines(self) -> Sequence[bytes]:
        return list(self.world.disk)

    def append(self, line: bytes) -> None:
        self.life.before_touch()
        self.world.disk.append(line)
        self.life.after_touch()


def journal(world: World, life: Life | None = None, *, boot: str = "boot-1", since_s: float | None = None) -> Journal:
    """A journal as a new process opens it."""
    return Journal(ListLedger(world, life), boot_id=boot, wall_s=1.0, user="root", boottime_s=since_s)


def place(name: str) -> Place:
    """A place of no matter."""
    return Place(kind="sysctl", key=name)


def step(name: str, before: str | None, want: str | None) -> Step:
    """A step of no matter."""
    return Step(place=place(name), before=before, want=want)

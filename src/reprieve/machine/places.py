"""What can be changed on a machine: a kind of place, a class that reads and writes it. A new kind is a line here."""

from typing import Protocol, runtime_checkable

from reprieve.machine.container_limit import ContainerLimit
from reprieve.machine.dropin import UnitSetting
from reprieve.machine.grouplimit import GroupLimit
from reprieve.machine.host import Host
from reprieve.machine.newgroup import NewGroup
from reprieve.machine.redisplaces import RedisLine, RedisSetting
from reprieve.machine.score import ProcessScore
from reprieve.machine.swapfile import FstabLine, SwapFile, Swapping
from reprieve.machine.sysctl import Sysctl, SysctlFile
from reprieve.machine.workload import WorkloadMemory
from reprieve.machine.zram import ZramSwap
from reprieve.machine.zramunit import ZramUnit
from reprieve.model.finding import Failure, Place
from reprieve.model.machine import Machine


class Kind(Protocol):
    """One kind of place; each method as in `fix.transaction.Places`."""

    lasts: bool

    def get(self, place: Place) -> str | None: ...
    def put(self, place: Place, want: str | None) -> None: ...
    def canonical(self, place: Place, want: str | None) -> str | None: ...
    def obstacle(self, place: Place, want: str | None) -> Failure | None: ...


@runtime_checkable
class Mortal(Protocol):
    """A kind whose places end with what they are of, a process or a container; no other ends while the kernel runs."""

    def gone(self, place: Place) -> bool: ...


@runtime_checkable
class Named(Protocol):
    """A kind whose names are given again: it takes more than a pid, or a path, to tell its places."""

    def identify(self, place: Place) -> Place: ...


class MachinePlaces:
    """The places of this machine, or of one whose root is mounted elsewhere."""

    def __init__(self, root: str = "/") -> None:
        host = Host(root)
        self._kinds: dict[str, Kind] = {
            "sysctl": Sysctl(host),
            "sysctl.d": SysctlFile(host),
            "swapfile": SwapFile(host),
            "swap": Swapping(host),
            "fstab": FstabLine(host),
            "zram": ZramSwap(host),
            "zram.service": ZramUnit(host),
            "unit": UnitSetting(host),
            "redis": RedisSetting(host),
            "redis.conf": RedisLine(host),
            "process": ProcessScore(host),
            "cgroup": GroupLimit(host),
            "cgroup.new": NewGroup(host),
            "container": ContainerLimit(host),
            "k8s": WorkloadMemory(),
        }

    @property
    def kinds(self) -> frozenset[str]:
        """What there are places of."""
        return frozenset(self._kinds)

    def identify(self, place: Place) -> Place:
        """The place told by what is never given again. Raises Failure: it is no more."""
        kind = self._of(place)
        return kind.identify(place) if isinstance(kind, Named) else place

    def get(self, place: Place) -> str | None:
        """The present value. Raises Failure."""
        return self._of(place).get(place)

    def put(self, place: Place, want: str | None) -> None:
        """Switch a value in. Raises Failure."""
        self._of(place).put(place, want)

    def canonical(self, place: Place, want: str | None) -> str | None:
        """How it will read. Raises Failure."""
        return self._of(place).canonical(place, want)

    def obstacle(self, place: Place, want: str | None) -> Failure | None:
        """What stands in the way."""
        return self._of(place).obstacle(place, want)

    def lasts(self, place: Place) -> bool:
        """Does it outlive the boot?"""
        return self._of(place).lasts

    def gone(self, place: Place) -> bool:
        """Has what it belonged to ended?"""
        kind = self._of(place)
        return isinstance(kind, Mortal) and kind.gone(place)

    def _of(self, place: Place) -> Kind:
        kind = self._kinds.get(place.kind)
        if kind is None:
            raise Failure(f"{place}: this version cannot change that", hint="a newer one may")
        return kind


_OF_WANT_ALONE = ("sysctl", "sysctl.d", "swapfile", "swap", "fstab")  # kinds that read nothing to spell a value


class CapturedPlaces:
    """Those of a machine that was captured, for a plan to be printed: nothing is read of this one, nothing written."""

    def __init__(self, machine: Machine) -> None:
        self._sysctls = dict(machine.sysctls)
        self._usual = MachinePlaces()

    @property
    def kinds(self) -> frozenset[str]:
        """What a plan may name when it is carried out later: by then a process may be another."""
        return self._usual.kinds - {"process"}

    def identify(self, place: Place) -> Place:
        """The same."""
        return place

    def get(self, place: Place) -> str | None:
        """The value as far as it was captured."""
        return self._sysctls.get(place.key) if place.kind == "sysctl" else None

    def put(self, place: Place, want: str | None) -> None:
        """Raises Failure."""
        raise Failure(f"{place}: a captured machine is not changed", hint="--as sh prints what does it there")

    def canonical(self, place: Place, want: str | None) -> str | None:
        """As it is wanted; of a line the whole line."""
        return self._usual.canonical(place, want) if place.kind in _OF_WANT_ALONE else want

    def obstacle(self, place: Place, want: str | None) -> Failure | None:
        """None is known."""
        return None

    def lasts(self, place: Place) -> bool:
        """Does it outlive the boot?"""
        return self._usual.lasts(place)

    def gone(self, place: Place) -> bool:
        """Nobody looks."""
        return False

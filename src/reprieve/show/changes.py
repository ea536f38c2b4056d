"""Plans and past changes → text."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import zip_longest
from typing import NamedTuple

from reprieve.model.change import Blocked, Entry, Plan, Refusal, Stay, Transaction
from reprieve.model.finding import Failure, Finding, Place
from reprieve.model.zram import UNIT
from reprieve.show import escape
from reprieve.show.checked import told_remedy
from reprieve.show.text import Page
from reprieve.units import size

SYSCTL_FILE = "/etc/sysctl.d/60-reprieve.conf"
_FILES = {"sysctl.d": SYSCTL_FILE, "zram.service": UNIT}  # of places that are called as what is now
_WHEN = {
    "sysctl": "now",
    "sysctl.d": f"at each boot ({SYSCTL_FILE})",
    "process": "until it ends",
    "cgroup": "until it is removed",
    "cgroup.new": "until the next boot",
    "redis": "now",
    "zram": "now",
    "zram.service": f"at each boot ({UNIT})",
    "redis.conf": "at its next start",
}


def planned(page: Page, plan: Plan) -> Iterator[str]:
    """Each step with what it was and what it becomes, why, and what it costs; then what is refused, and left."""
    told, cost = None, None
    for step in plan.steps:
        if (step.code, step.why) != told:
            told, cost = (step.code, step.why), None
            yield ""
            if step.why:
                yield from page.say("Why", f"{step.why} ({step.code})")
        if step.cost is not None and step.cost != cost:
            cost = step.cost
            yield from page.say("Cost", cost, "dim")
        told_change = difference(step.place, step.before, step.want, step.called)
        yield page.raw("Change", told_change, "strong")
    if lacks := [step.lacks for step in plan.steps if step.lacks is not None]:
        reasons = "; ".join(dict.fromkeys(lack.reason for lack in lacks))
        yield ""
        yield from page.say("Lacking", f"the right to do it: {reasons}", "warning")
        if lacks[0].hint is not None:
            yield from page.say("", f"→ {lacks[0].hint}")
    until_boot = for_this_boot(plan)
    for refusal in plan.refused:
        yield ""
        yield from refused(page, refusal, until_boot=refusal.place in until_boot)
    if plan.by_hand:
        yield ""
        yield from left(page, plan.by_hand)


def left(page: Page, findings: Iterable[Finding]) -> Iterator[str]:
    """What is left to people, each with the first that can be done."""
    for finding in findings:
        yield from page.say("By hand", f"{finding.claim} ({finding.code})")
        yield from told_remedy(page, finding.remedies[0])
    yield page.raw("", "reprieve check -v shows all that can be done", "dim")


_UNTIL_BOOT = {"sysctl.d": "sysctl", "zram.service": "zram"}  # what lasts, and what is until the next boot


def for_this_boot(plan: Plan) -> dict[Place, Place]:
    """What is refused from the next boot on → what is changed until then all the same."""
    now = {(step.place.kind, step.place.key): step.place for step in plan.steps}
    found = {one.place: now.get((_UNTIL_BOOT.get(one.place.kind, ""), one.place.key)) for one in plan.refused}
    return {lasting: place for lasting, place in found.items() if place is not None}


def refused(page: Page, refusal: Refusal, *, until_boot: bool = False) -> Iterator[str]:
    """What is not changed, why not, and what would work. `until_boot`: the same is changed until the next boot."""
    told = f"{where(refusal.place, refusal.called)} = {_value(refusal.place, refusal.want)}"
    if until_boot:
        told += f", {_WHEN[refusal.place.kind]}"
    yield from page.say("Refused", f"{escape.visible(told)}: {refusal.reason}", "warning")
    if refusal.hint is not None:
        yield from page.say("", f"→ {refusal.hint}")
    if until_boot:
        yield from page.say("", "what is changed now holds until the next boot alone")


def difference(place: Place, before: str | None, after: str | None, called: str | None = None) -> str:
    """`vm.swappiness  60 → 10, now`."""
    name, when = where(place, called), _WHEN.get(place.kind)
    if place.key == "OOMScoreAdjust":
        when = "from its next start"
    told = f"{name}  {_value(place, before)} → {_value(place, after)}"
    return escape.visible(told if when is None else f"{told}, {when}")


def blocked(failure: Failure) -> str:
    """A failure in words; where values stand against a change, each in the words of its owner."""
    return "; ".join(map(stay, failure.stays)) if isinstance(failure, Blocked) else failure.message


def stay(one: Stay) -> str:
    """What is there, what was to be, and why it is not."""
    name, before, want, found = where(one.place), *(_value(one.place, v) for v in (one.before, one.want, one.found))
    if (file := _FILES.get(one.place.kind)) is not None:
        name = f"{name} ({file})"
    match one.why:
        case "changed":
            then = f"change {one.number} changed it from {before} to {want}"
            did = "removed" if one.found is None else "made" if is_theirs(one) else "set"
            return f"{name} is {found}: somebody else has {did} it since {then}"
        case "refused":
            if one.place.kind == "cgroup.new":
                return f"{name} is not removed: {one.reason}"
            back = "to what it was" if one.before is None else f"from {want} to {before}"
            return f"{name} does not go back {back}: {one.reason}"
        case "waits":
            return f"{name} waits for what does not go back"
        case "gone":
            owner = name.removesuffix(" memory limit").removesuffix(f" {one.place.key}")
            return f"{'cgroup ' if one.place.kind == 'cgroup' else ''}{owner} is no more"
        case "newer":
            return f"change {one.number} has changed {name} since"
        case "unplanned":
            return f"{name} is {found}, and was {before} when it was planned"
        case _:
            return f"{name} is {found} after {want} was put there"


def left_so(one: Stay) -> str:
    """What an undo leaves as it is, as it was told to or as there is nothing to put back."""
    name = where(one.place)
    match one.why:
        case "changed":
            if is_theirs(one):
                return f"{name} stays: somebody else has made it"
            return f"{name} stays {_value(one.place, one.found)}, as somebody else set it"
        case "refused":
            return f"{name} stays as it is: {one.reason}"
        case _:
            return stay(one)


def is_theirs(one: Stay) -> bool:
    """Is it a cgroup that somebody else has made?"""
    return one.place.kind == "cgroup.new" and one.found == "other"


def _value(place: Place, value: str | None) -> str:
    if place.kind == "cgroup.new":
        return _made(place, value)
    if value is None:
        return "not set"
    if place.kind == "container":
        return _limits(value)
    if place.kind == "k8s" and "+" in place.key:
        return ", ".join(f"{field[:-1]} {_amount(one)}" for field, one in amounts(place, value))
    if place.key == "maxmemory" and value == "0":
        return "no bound"
    if place.kind in ("zram", "zram.service") and value == "other":
        return "somebody else's"
    sizes = place.kind in ("swapfile", "zram", "zram.service") or (
        place.key.lower().startswith(_SIZES) and place.key != "memory.oom.group"
    )
    return _amount(value) if sizes else value


def _made(place: Place, value: str | None) -> str:
    """`made with memory.max 2 GiB` for `2147483648`."""
    if value in (None, "other"):
        return "not there" if value is None else "somebody else's"
    files = zip_longest(place.key.split("+"), (value or "").split("+"))
    return f"made with {', '.join(f'{file} {_amount(size)}' for file, size in files)}"


def _amount(value: str | None) -> str:
    if value in ("max", "infinity"):
        return "no limit"
    return "not set" if value is None else size(int(value)) if value.isdecimal() else value


_SIZES = ("memory", "maxmemory", "requests")


def _limits(value: str) -> str:
    """`512 MiB, swap 0 B` for `536870912+0`."""
    memory, plus, swap = value.partition("+")
    told = [size(int(memory)) if memory.isdecimal() else "no limit"] if memory else []
    if plus and (memory, swap) != ("max", "max"):
        told.append(f"swap {size(int(swap)) if swap.isdecimal() else 'without limit'}")
    return ", ".join(told)


def where(place: Place, called: str | None = None) -> str:
    """A place in the words of its owner."""
    match place.kind:
        case "unit":
            return f"{place.of} {place.key}"
        case "container":
            manager, _, container_id = engine(place)
            return f"{manager}:{called or container_id[:12]} memory"
        case "process":
            return f"process {place.of.partition('@')[0]}{f' of {called}' if called else ''} {place.key}"
        case "cgroup":
            return f"{path_of(place)} {place.key}"
        case "cgroup.new":
            return f"cgroup {place.of}"
        case "redis":
            port, _, process = place.of.partition("/")
            at = f"at port {port}" if port != "0" else f"(pid {process.partition('@')[0]})"
            return f"redis-server {at} {place.key}"
        case "redis.conf":
            return f"{path_of(place)}: {place.key}"
        case "k8s":
            _, namespace, kind, name, container = workload(place)
            fields = [field for field, _ in amounts(place, None)]
            what = f" {fields[0][:-1]}" if len(fields) == 1 else ""
            return f"{kind}/{namespace}/{name}:{container} memory{what}"
        case "swapfile":
            return f"file {place.of}"
        case "swap":
            return f"swapping to {place.of}"
        case "zram":
            return f"swap on {place.of or 'zram'}"
        case "zram.service":
            return "swap on zram"
        case "fstab":
            return f"/etc/fstab: {place.of}"
        case _:
            return place.key


def path_of(place: Place) -> str:
    """Of a cgroup or a redis.conf, without what says which one of that path it is, or whose."""
    return f"/{place.of.partition('/')[2]}"


def engine(place: Place) -> tuple[str, str, str]:
    """Its manager, where it listens unless as usual, and the container's id: of `docker@/run/user/1000/s/ID`."""
    head, _, container_id = place.of.rpartition("/")
    manager, _, listens = head.partition("@")
    return manager, listens, container_id


def workload(place: Place) -> tuple[str, str, str, str, str]:
    """The server, namespace, kind, name and container of a limit of Kubernetes."""
    server, namespace, kind, name, container = place.of.rsplit("/", 4)
    return server, namespace, kind, name.partition("@")[0], container


_FIELDS = {"memory": "limits", "requests": "requests"}


def amounts(place: Place, value: str | None) -> list[tuple[str, str | None]]:
    """What such a value says, by fields of the API: of `memory+requests` and `2Gi+` limits are 2Gi, requests none."""
    keys, told = place.key.split("+"), (value or "").split("+")
    return [(_FIELDS.get(key, key), one or None) for key, one in zip_longest(keys, told[: len(keys)])]


class Present(NamedTuple):
    """What became of a value that nobody has undone."""

    value: str | None  # None: absent
    gone: bool  # with what it belonged to


def history(
    page: Page, told: Iterable[tuple[Transaction, str, Mapping[int, Present]]], moment: Callable[[float], str]
) -> Iterator[str]:
    """Each transaction, and what is left of it in words: its number, when, by whom, and what it changed.

    With the values that others have changed since. `moment` tells a time as clocks here do.
    """
    for transaction, state, since in told:
        who = escape.visible(transaction.user)
        head = f"{moment(transaction.begun_wall_s)}  {who}  {state}"
        yield page.raw(f"{transaction.number:>4}", head, "strong")
        if transaction.reason:
            yield from page.say("", f"“{escape.visible(transaction.reason)}”")
        for entry in transaction.entries:
            yield page.raw("", _entry(entry, moment) + _now(entry, since.get(entry.number)))


def _entry(entry: Entry, moment: Callable[[float], str]) -> str:
    told = difference(entry.place, entry.before, entry.want)
    if entry.state != "undone":
        return told if entry.state == "changed" else f"{told}  {entry.state}"
    when = "" if entry.undone_wall_s is None else f", {moment(entry.undone_wall_s)}"
    return f"{told}  {end_of(entry)}{when}"


def _now(entry: Entry, now: Present | None) -> str:
    if now is None:
        return ""
    if now.gone:
        return f"  gone with its {entry.place.kind}"
    return escape.visible(f"  now {_value(entry.place, now.value)}: set by somebody else")


_OWNERS = {"redis": "server", "k8s": "workload", "zram": "device"}


def end_of(entry: Entry) -> str:
    """What became of a value that is no longer in force, in words."""
    if entry.state != "undone":
        return "gone with the boot"
    match entry.became:
        case None:
            return "undone: nobody confirmed" if entry.unconfirmed else "undone"
        case "gone":
            return f"gone with its {_OWNERS.get(entry.place.kind, entry.place.kind)}"
        case "left":
            did = "made or set" if entry.place.kind == "cgroup.new" else "set"
            return f"left as somebody else {did} it"
        case _:
            return "left: it could not be put back"

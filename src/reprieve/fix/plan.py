"""Settings that are wanted → the steps that bring them about, and what is refused, with the figure that says why."""

from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from reprieve.fix.harm import Objection, lifting, objections, price
from reprieve.fix.transaction import Places
from reprieve.model.change import Lack, Plan, Refusal, Step
from reprieve.model.finding import Change, Failure, Finding, NoRight, Place
from reprieve.model.machine import Machine


class Wanted(NamedTuple):
    """Settings that are of use only together, who asks for them and why."""

    changes: tuple[Change, ...]
    code: str = ""
    why: str = ""
    cost: str | None = None
    called: str | None = None  # of whom the settings are, where their places have a number
    against: Objection | None = None  # what others than this machine say of the first of them


class Span(NamedTuple):
    """How long it is to hold: until the next boot, from then on, or both."""

    now: bool = True
    later: bool = True


_BOTH = Span()
_NOW = ("sysctl", "swap", "redis", "zram")  # what holds until the next boot, or start
_AT_BOOT = ("fstab", "redis.conf")  # what holds from then on
_MORTAL = {  # what ends before that, and who lasts
    "process": "reprieve fix protect UNIT holds for whoever runs in it",
    "cgroup": "tell who makes it",
    "cgroup.new": "what --as sh prints makes it, where that is run at each boot, behind what makes those around it "
    "(and, on version 2, has each hand on memory: echo +memory > …/cgroup.subtree_control); a slice of systemd lasts",
}
_UNENDING = {"k8s": "without --runtime it holds until it is undone"}  # what is of no machine, so no boot ends it


def wanted_by(
    findings: Iterable[Finding], kinds: Container[str], *, first: bool = False
) -> tuple[list[Wanted], list[Finding]]:
    """What findings ask for, of each its first remedy made of settings of these kinds; and those left to people.

    `first`: of each its first remedy or none.
    """
    wanted, by_hand = [], []
    for finding in findings:
        for remedy in finding.remedies[:1] if first else finding.remedies:
            if remedy.settings and all(change.place.kind in kinds for change in remedy.settings):
                wanted.append(Wanted(remedy.settings, finding.code, finding.claim, remedy.cost))
                break
        else:
            by_hand.append(finding)
    return wanted, by_hand


def plan(
    wanted: Sequence[Wanted],
    places: Places,
    machine: Machine,
    *,
    span: Span = _BOTH,
    forced: Container[str] = (),
    elsewhere: bool = False,
    shown: bool = False,
) -> Plan:
    """The steps from what is to what is wanted, in its order; of two that want one place the first is followed.

    `forced` are names of settings that are changed although it does harm. What somebody else would overwrite, and what
    there is no right to change, is refused all the same, unless it is to be changed `elsewhere`.
    What is only to be `shown` is planned without the right to it, which each step tells. Each of `wanted` is a group of
    steps, but for those that share a step, which are one.
    """
    steps: dict[Place, Step] = {}
    refused: list[Refusal] = []
    harmful = objections([change for one in wanted for change in one.changes], machine)
    harmful |= {one.changes[0].place: one.against for one in wanted if one.against is not None}
    for number, one in enumerate(wanted):
        found, against = _together(
            one,
            places,
            machine,
            span,
            {place: harmful[place] for place in harmful if place.key not in forced},
            elsewhere,
            shown,
        )
        refused += against
        same = [steps[step.place] for step in found if step.place in steps]
        others = {step.place: step for step in same}
        contested = [step for step in found if step.want != others.setdefault(step.place, step).want]
        if contested:  # all, or none
            for step in contested:
                earlier = Failure(f"{others[step.place].code} wants {others[step.place].want} there")
                refused.append(_refusal(step.place, step.want, one, earlier))
            continue
        for step in found:
            steps.setdefault(step.place, replace(step, group=number))
        joined = {step.group for step in same}
        steps |= {place: replace(step, group=number) for place, step in steps.items() if step.group in joined}
    return Plan(steps=tuple(steps.values()), refused=tuple(refused))


def _together(
    one: Wanted,
    places: Places,
    machine: Machine,
    span: Span,
    harmful: dict[Place, Objection],
    elsewhere: bool,
    shown: bool,
) -> tuple[list[Step], list[Refusal]]:
    """The steps of settings that belong together: none if one of them is refused, be it not only for the next boot."""
    steps: list[Step] = []
    refused: list[Refusal] = []
    for change in one.changes:
        if (objection := harmful.get(change.place)) is not None:
            forced = f"; --force {change.place.key} does it all the same" if objection.may_be_forced else ""
            hint = f"{objection.instead}{forced}"
            return [], [_refusal(change.place, change.want, one, Failure(objection.reason, hint=hint))]
        if (lasting := _MORTAL.get(change.place.kind)) is not None and not span.now:
            ended = Failure(f"a {change.place.kind.removesuffix('.new')} does not outlive the boot", hint=lasting)
            return [], [_refusal(change.place, change.want, one, ended)]
        if (holds := _UNENDING.get(change.place.kind)) is not None and not span.later:
            unended = Failure(f"no boot ends what {change.place.kind} is told", hint=holds)
            return [], [_refusal(change.place, change.want, one, unended)]
        try:
            meant = places.identify(change.place)
        except Failure as failure:
            return [], [_refusal(change.place, change.want, one, failure, by_others=not (elsewhere or shown))]
        cost = price(change, machine) if one.cost is None else one.cost
        if not one.code and (free := lifting(change, machine)) is not None:  # a finding says what its remedy costs
            cost = free if cost is None else f"{free}; {cost}"
        for place in _spread(meant, span):
            step = _step(place, change.want, one._replace(cost=cost), places, elsewhere, shown)
            if isinstance(step, Refusal):
                refused.append(step)
                if place == meant:
                    return [], refused
            elif step is not None:
                steps.append(step)
    return steps, refused


def _spread(place: Place, span: Span) -> Iterator[Place]:
    """A setting of the kernel is a value now and a line that is read at each boot; all else is one place.

    But for zram: a device now, and a unit that makes one at each boot.
    """
    if (span.now or place.kind not in _NOW) and (span.later or place.kind not in _AT_BOOT):
        yield place
    if span.later and place.kind == "sysctl":
        yield replace(place, kind="sysctl.d")
    if span.later and place.kind == "zram":
        yield replace(place, kind="zram.service", of="")


def _step(
    place: Place, wanted: str | None, one: Wanted, places: Places, elsewhere: bool, shown: bool
) -> Step | Refusal | None:
    """None: it is so already."""
    lacks: Lack | None = None
    try:
        before, want = places.get(place), places.canonical(place, wanted)
        if before == want:
            return None
        obstacle = None if elsewhere else places.obstacle(place, want)
        if shown and isinstance(obstacle, NoRight):
            lacks = Lack(reason=obstacle.message, hint=obstacle.hint)
            obstacle = None
    except Failure as failure:
        obstacle = failure
    if obstacle is not None:
        return _refusal(place, wanted, one, obstacle, by_others=not (elsewhere or shown))
    return Step(
        place=place,
        before=before,
        want=want,
        code=one.code,
        why=one.why,
        cost=one.cost,
        called=one.called,
        lacks=lacks,
    )


def _refusal(place: Place, want: str | None, one: Wanted, failure: Failure, *, by_others: bool = False) -> Refusal:
    """`by_others`: who lacks the right may have it planned for others, and has not."""
    hint = failure.hint
    if by_others and isinstance(failure, NoRight):
        hint = _FOR_OTHERS if hint is None else f"{hint}; {_FOR_OTHERS}"
    return Refusal(place=place, want=want, reason=failure.message, hint=hint, code=one.code, called=one.called)


_FOR_OTHERS = "--dry-run shows the plan, --as sh prints it for who has the right"

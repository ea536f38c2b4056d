"""Where memory runs out, and how long what is left there lasts, in words."""

from reprieve.model.machine import Machine
from reprieve.oom.groups import Room, called, is_on_zram
from reprieve.oom.reclaim import swaps
from reprieve.rules.limits import named
from reprieve.rules.survey import Place, Survey
from reprieve.rules.trend import LEAST, REACH, TimeLeft
from reprieve.units import duration, size


def where(machine: Machine, room: Room) -> str:
    """A place where memory runs out; the name in it is quoted."""
    if room.path is None:
        swap = dict(machine.meminfo).get("SwapTotal") and swaps(machine)
        return "the machine and its swap" if swap else "the machine"
    return named(called(machine, room.path))


def left_in(machine: Machine, room: Room) -> str:
    """How much is left until a kill there, its limit, and where most of what is left is swap, so much of it."""
    said = f"{size(room.left_bytes)} left in {where(machine, room)}"
    if room.path is None:
        if not swaps(machine) and dict(machine.meminfo).get("SwapTotal"):
            return f"{said}, none in its swap: vm.swappiness is 0"
        on_zram = [is_on_zram(area) for area in machine.swaps if area.size_bytes > area.used_bytes]
        if not any(on_zram):
            return said
        part = "" if all(on_zram) else ", part of which is"
        return f"{said}, {size(room.swap_bytes)} of it by swap{part} on zram"
    swap = f", {size(room.swap_bytes)} of it in swap" if room.swap_bytes * 2 > room.left_bytes else ""
    return f"{said}, limit {size(room.limit_bytes)}{swap}"


def time_left(survey: Survey) -> str:
    """When which place is full, if all goes on as it does; or why that is not told."""
    first = survey.ends_first
    if first is not None:
        pace = "" if first.growth is None else f", +{size(round(first.growth.slope))}/min"
        return f"{_span(first.left)} in {where(survey.machine, first.room)}{pace}"
    known = [place for place in survey.places if place.left.verdict != "looking"]
    if not known:
        return f"not known yet: growth is told after {LEAST * survey.block_s:.0f} s" if survey.places else "not known"
    unsure = [(place.left.least_s or 0, place.room) for place in known if place.left.verdict == "unsure"]
    if unsure:
        least_s, room = min(unsure, key=lambda one: one[0])
        return f"not sure: {where(survey.machine, room)} could be full in {duration(least_s)}, or never"
    horizon = min(place.left.horizon_s or 0 for place in known)
    if horizon < 60:
        return (
            f"not known: what was looked at is too short to tell a minute ahead, which takes {60 / REACH:g} s at least"
        )
    return f"nothing grows that would be full within {duration(horizon // 60 * 60)}"


def time_left_in_pieces(survey: Survey) -> tuple[str, ...]:
    """The same in few words: first its figures, what matters most before the rest, and last where that is."""
    first = survey.ends_first
    if first is not None:
        assert first.left.seconds is not None
        said = duration(first.left.seconds)
        pace = "" if first.growth is None else f", +{size(round(first.growth.slope))}/min"
        return said, _span(first.left).removeprefix(said), pace, f" in {where(survey.machine, first.room)}"
    known = [place for place in survey.places if place.left.verdict != "looking"]
    if not known:
        return (f"not known for {LEAST * survey.block_s:.0f} s yet" if survey.places else "not known"), ""
    unsure = [(place.left.least_s or 0, place.room) for place in known if place.left.verdict == "unsure"]
    if unsure:
        least_s, room = min(unsure, key=lambda one: one[0])
        return f"{duration(least_s)} or never", ", not sure", f" in {where(survey.machine, room)}"
    horizon = min(place.left.horizon_s or 0 for place in known)
    if horizon < 60:
        return "not known", ": what was looked at is too short to tell a minute ahead", ""
    return f"not within {duration(horizon // 60 * 60)}", ""


def full_in(place: Place) -> str:
    """When this place is full, to stand behind how much is left in it; nothing where that is not known."""
    match place.left.verdict:
        case "growing":
            return f", full in {_span(place.left)}"
        case "unsure":
            return f", full in {duration(place.left.least_s or 0)} at the soonest, or never"
        case "steady":
            return ", not growing"
        case _:
            return ""


def _span(left: TimeLeft) -> str:
    """How long it lasts, and between what bounds."""
    assert left.seconds is not None
    assert left.least_s is not None
    said, soonest = duration(left.seconds), duration(left.least_s)
    if left.most_s is None or left.most_s > (left.horizon_s or 0):
        return f"{said} ({soonest} at the soonest)"
    latest = duration(left.most_s)
    return said if latest == soonest else f"{said} ({soonest} to {latest})"

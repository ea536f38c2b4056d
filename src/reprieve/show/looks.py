"""Surveys → JSON lines and CSV: `reprieve top --batch` and `--pid`. Pure ASCII, as all JSON of ours is."""

from collections.abc import Iterable, Iterator
from math import isfinite
from typing import Any, Literal

import msgspec

from reprieve.model.machine import Figures
from reprieve.model.oom import OomReport
from reprieve.model.pressure import Pressure
from reprieve.model.process import Process
from reprieve.oom.counted import kills_since_boot
from reprieve.rules.survey import Charged, Held, Place, Survey
from reprieve.rules.trend import Trend
from reprieve.show import answer, escape

VERSION: Literal[1] = 1


class Growth(msgspec.Struct, frozen=True, kw_only=True):
    """A slope, and the bounds it has with 95 % confidence; null: not known."""

    bytes_per_minute: float
    least: float | None
    most: float | None
    seen_s: float  # how long was looked at


class LeftOver(msgspec.Struct, frozen=True, kw_only=True):
    """A place where memory runs out, and when, if all goes on as it does."""

    cgroup: str | None  # whose limit it is; null: the machine and its swap
    limit_bytes: int
    left_bytes: int
    swap_bytes: int = 0  # of what is left, what has to go to swap for it
    growth: Growth | None
    verdict: str  # "looking", "steady", "unsure", "growing"
    seconds: float | None
    least_s: float | None
    most_s: float | None
    horizon_s: float | None


class OneProcess(msgspec.Struct, frozen=True, kw_only=True):
    """A process; the names in it are exact, whatever they hold."""

    process: Process
    owner: str  # safe to print
    own_bytes: int  # private memory and swap
    growth: Growth | None
    rank: int | None  # in the order in which the kernel would choose: 1 is next


class OneGroup(msgspec.Struct, frozen=True, kw_only=True):
    """A cgroup; its path is exact, whatever it holds."""

    path: str
    owner: str  # safe to print
    current_bytes: int | None
    taken_bytes: int  # less the file cache that can be given up
    growth: Growth | None
    pids: tuple[int, ...]


class Look(msgspec.Struct, frozen=True, kw_only=True, tag="look", tag_field="kind"):
    """One look at a machine."""

    version: Literal[1] = VERSION
    taken_wall_s: float | None
    taken_uptime_s: float | None
    meminfo: Figures
    pressure: tuple[Pressure, ...]
    places: tuple[LeftOver, ...]  # the one with the least left first
    next: tuple[int, ...]  # pids of those who would be killed next, the chosen one first
    kills_since_boot: int | None = None  # processes the kernel killed, by its own count; null: it keeps none
    process_count: int
    processes: tuple[OneProcess, ...]  # the largest, and those who are next
    cgroup_count: int
    cgroups: tuple[OneGroup, ...]


class Sample(msgspec.Struct, frozen=True, kw_only=True, tag="sample", tag_field="kind"):
    """One look at one process, and at the limits it lives under."""

    version: Literal[1] = VERSION
    taken_wall_s: float | None
    process: OneProcess
    places: tuple[LeftOver, ...]


Line = Look | Sample


def schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a line."""
    named = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "One line of reprieve top --batch"}
    return named | msgspec.json.schema(Line)


def look(survey: Survey, rows: int) -> str:
    """A survey as one line, with that many processes and cgroups."""
    machine = survey.machine
    shown = _shown(survey, rows)
    return _line(
        Look(
            taken_wall_s=machine.taken_wall_s,
            taken_uptime_s=machine.taken_uptime_s,
            meminfo=machine.meminfo,
            pressure=machine.pressure,
            places=tuple(map(_place, survey.places[:rows])),
            next=() if survey.prediction is None else tuple(one.pid for one in survey.prediction.killed),
            kills_since_boot=kills_since_boot(machine),
            process_count=len(survey.processes),
            processes=tuple(map(_process, shown)),
            cgroup_count=len(survey.groups),
            cgroups=tuple(map(_group, survey.groups[:rows])),
        )
    )


def sample(survey: Survey) -> str:
    """The one process of a survey as one line."""
    (held,) = survey.processes
    return _line(
        Sample(
            taken_wall_s=survey.machine.taken_wall_s,
            process=_process(held),
            places=tuple(map(_place, survey.places)),
        )
    )


def _shown(survey: Survey, rows: int) -> list[Held]:
    """The largest, and those who are next, who may be small."""
    doomed = set() if survey.prediction is None else {one.pid for one in survey.prediction.killed}
    return [one for at, one in enumerate(survey.processes) if at < rows or one.process.pid in doomed]


def _process(held: Held) -> OneProcess:
    return OneProcess(
        process=held.process,
        owner=_owner(held),
        own_bytes=held.bytes,
        growth=_growth(held.growth),
        rank=held.place,
    )


def _group(charged: Charged) -> OneGroup:
    return OneGroup(
        path=charged.group.path,
        owner=_owner(charged),
        current_bytes=charged.group.current_bytes,
        taken_bytes=charged.bytes,
        growth=_growth(charged.growth),
        pids=charged.group.pids,
    )


def _place(place: Place) -> LeftOver:
    room, left = place.room, place.left
    return LeftOver(
        cgroup=room.path,
        limit_bytes=room.limit_bytes,
        left_bytes=room.left_bytes,
        swap_bytes=room.swap_bytes,
        growth=_growth(place.growth),
        verdict=left.verdict,
        seconds=left.seconds,
        least_s=left.least_s,
        most_s=left.most_s,
        horizon_s=left.horizon_s,
    )


def _growth(trend: Trend | None) -> Growth | None:
    if trend is None:
        return None
    least, most = (bound if isfinite(bound) else None for bound in (trend.least, trend.most))
    return Growth(bytes_per_minute=trend.slope, least=least, most=most, seen_s=trend.seconds)


def _owner(row: Held | Charged) -> str:
    return escape.visible(row.owner.name)


def _line(line: Line) -> str:
    return escape.json_line(msgspec.json.encode(line))


# -- CSV ---------------------------------------------------------------------------------------------------------------

COLUMNS = (
    *("time_s", "kind", "pid", "start_ticks", "name", "cgroup", "owner", "own_bytes", "rss_bytes", "shmem_bytes"),
    *("swap_bytes", "pss_bytes", "unique_bytes", "oom_score_adj", "rank", "growth_bytes_per_minute", "growth_least"),
    *("growth_most", "limit_bytes", "left_bytes", "time_left", "time_left_s", "time_left_least_s", "time_left_most_s"),
)


def csv_head() -> str:
    """The names of the columns."""
    return ",".join(COLUMNS)


def csv_look(survey: Survey, rows: int) -> Iterator[str]:
    """A survey as lines: where memory runs out, the processes, the cgroups; what is not told is empty."""
    time_s = survey.machine.taken_wall_s
    for place in survey.places[:rows]:
        yield _cells(
            time_s, "machine" if place.room.path is None else "limit", cgroup=place.room.path, **_csv_place(place)
        )
    for held in _shown(survey, rows):
        yield _csv_process(time_s, held)
    for charged in survey.groups[:rows]:
        yield _cells(
            time_s,
            "cgroup",
            cgroup=charged.group.path,
            owner=charged.owner.name,
            own_bytes=charged.bytes,
            **_csv_growth(charged.growth),
        )


def csv_sample(survey: Survey) -> Iterator[str]:
    """The one process of a survey, and the limits it lives under."""
    time_s = survey.machine.taken_wall_s
    for held in survey.processes:
        yield _csv_process(time_s, held)
    for place in survey.places:
        yield _cells(
            time_s, "machine" if place.room.path is None else "limit", cgroup=place.room.path, **_csv_place(place)
        )


def csv_kills(time_s: float | None, kills: Iterable[OomReport]) -> Iterator[str]:
    """A line for each process the kernel killed."""
    for oom in kills:
        for kill in oom.kills:
            yield _cells(
                time_s,
                "kill",
                pid=kill.pid,
                name=kill.comm,
                cgroup=None if oom.workload is None else oom.workload.path,
                owner=None if oom.workload is None else oom.workload.name,
                rss_bytes=answer.held_bytes(kill),
            )


def csv_unknown_kills(time_s: float | None, count: int) -> Iterator[str]:
    """A line for each process the kernel killed of which nobody may tell us more."""
    for _ in range(count):
        yield _cells(time_s, "kill")


def _csv_process(time_s: float | None, held: Held) -> str:
    process = held.process
    return _cells(
        time_s,
        "process",
        pid=process.pid,
        start_ticks=process.start_ticks,
        name=process.comm,
        cgroup=process.cgroup,
        owner=held.owner.name,
        own_bytes=held.bytes,
        rss_bytes=process.rss_bytes,
        shmem_bytes=process.rss_shmem_bytes,
        swap_bytes=process.swap_bytes,
        pss_bytes=process.pss_bytes,
        unique_bytes=process.unique_bytes,
        oom_score_adj=process.oom_score_adj,
        rank=held.place,
        **_csv_growth(held.growth),
    )


_Cell = int | float | str | None


def _csv_growth(trend: Trend | None) -> dict[str, _Cell]:
    told = _growth(trend)
    if told is None:
        return {}
    return {
        "growth_bytes_per_minute": round(told.bytes_per_minute),
        "growth_least": None if told.least is None else round(told.least),
        "growth_most": None if told.most is None else round(told.most),
    }


def _csv_place(place: Place) -> dict[str, _Cell]:
    return {
        **_csv_growth(place.growth),
        "limit_bytes": place.room.limit_bytes,
        "left_bytes": place.room.left_bytes,
        "time_left": place.left.verdict,
        "time_left_s": place.left.seconds,
        "time_left_least_s": place.left.least_s,
        "time_left_most_s": place.left.most_s,
    }


def _cells(time_s: float | None, kind: str, **cells: _Cell) -> str:
    told: dict[str, _Cell] = {"time_s": time_s, "kind": kind, **cells}
    return ",".join(_cell(told.get(column)) for column in COLUMNS)


def _cell(value: _Cell) -> str:
    """A figure, or text that a spreadsheet takes for text: what begins like a formula is begun with `'`."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.1f}"
    if isinstance(value, int):
        return str(value)
    shown = escape.visible(value)
    if shown.startswith(("=", "+", "-", "@")):
        shown = f"'{shown}"
    return '"' + shown.replace('"', '""') + '"' if {",", '"', "'"} & set(shown) else shown

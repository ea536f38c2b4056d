"""Surveys → lines for a terminal: where memory runs out and when, who is next, and rows of processes and cgroups.

Everything here is safe to show: names of strangers were made so, and no line is wider than it was asked to be.
"""

from collections.abc import Iterable, Iterator, Sequence
from math import isfinite
from typing import NamedTuple

from reprieve.model.finding import Gap, quote
from reprieve.model.machine import Machine
from reprieve.model.oom import OomReport
from reprieve.model.workload import Workload
from reprieve.oom.groups import ancestors, reclaimable_bytes
from reprieve.oom.living import if_nobody
from reprieve.oom.paths import workload
from reprieve.rules.survey import Charged, Held, Survey
from reprieve.rules.trend import Trend
from reprieve.show import answer, escape
from reprieve.show.prediction import foretold_who
from reprieve.show.remaining import left_in, time_left, time_left_in_pieces, where
from reprieve.show.text import Page, Paint, colours, plain_paint, wrap
from reprieve.units import duration, percent, size

NEXT = "»"  # who is killed next
_BAR, _LEAST_BAR = 24, 8  # columns
_LABEL = 10
_WIDE = 100  # columns, from which on there is room for more than what matters most
# From which width on there is room for each beside whose a row is.
_OF_PROCESSES = {"growth": 80, "adj": 66, "rank": 54, "of": 48}
_OF_GROUPS = {"bar": 80, "growth": 66, "full": 55, "limit": 44}
_OF_KILLS = {"held": 60}
_WHOM = 16  # columns for who was killed, at least
_FELT = 64 * 1024  # bytes a minute: less is nothing
_LEVELS = " ▁▂▃▄▅▆▇█"


class Said(NamedTuple):
    """A line: a word for what it tells, the text, and its role."""

    label: str
    text: str
    role: str = ""


# -- the head ----------------------------------------------------------------------------------------------------------


def head(survey: Survey, *, width: int, clock: str = "", gaps: Iterable[Gap] = ()) -> list[Said]:
    """What is to be known first: seven lines, whatever the machine. `clock` is the time as people read it.

    `gaps` tell whether those who are seen are all.
    """
    room = width - _LABEL
    machine = survey.machine
    said = [
        Said("Machine", _apart(_machine(machine), clock, room)),
        Said("Memory", _memory(machine, room), "bar"),
        Said("Pressure", _drawn(_pressure(survey), survey.stalls, 100.0, room), _alarm(survey)),
        Said("Left", _drawn(_left(survey), survey.lefts, _total(survey), room)),
        Said("Time left", _time_left(survey, room), "critical" if survey.ends_first else ""),
        Said("Next", _next(survey, gaps), "strong"),
        Said("Frees", _frees(survey, gaps)),
    ]
    return [Said(label, escape.cut(text, room), role) for label, text, role in said]


def _machine(machine: Machine) -> str:
    name = "this machine" if machine.hostname is None else escape.name(machine.hostname)
    kernel = "" if machine.kernel is None else f", Linux {escape.visible(machine.kernel)}"
    up = "" if machine.taken_uptime_s is None else f", up {duration(machine.taken_uptime_s)}"
    return name + kernel + up


def _memory(machine: Machine, room: int) -> str:
    facts = dict(machine.meminfo)
    total, available, free = (facts.get(key) for key in ("MemTotal", "MemAvailable", "MemFree"))
    if not total or available is None:
        return "how much there is was not told"
    taken = max(total - available, 0)
    cache = max(available - (available if free is None else free), 0)
    said, swap, swapped = f"{size(taken)} of {size(total)}", "", ""
    if (swap_total := facts.get("SwapTotal")) is not None:
        used = swap_total - facts.get("SwapFree", 0)
        swap = f", {size(used)} of {size(swap_total)} swap" if swap_total else ", no swap"
        swapped = f", swap {percent(used, swap_total)}" if swap_total else swap
    forms = (f"{said} taken{swap}", f"{said}{swap}", f"{said}{swapped}", f"{size(taken)}/{size(total)}{swapped}")
    text = next((form for form in forms if len(form) <= room), said)
    bar = min(room - len(text) - 1, _BAR)
    return f"{meter(taken, cache, total, bar)} {text}" if bar >= _LEAST_BAR else text


def _pressure(survey: Survey) -> str:
    lines = {line.kind: line for line in survey.machine.pressure}
    some, full = lines.get("some"), lines.get("full")
    if some is None:
        return "not told by this kernel"
    now = f"{survey.stalls[-1]:.0f} % now, " if survey.stalls else ""
    all_waited = "" if full is None else f", all {full.avg10_percent:.1f}"
    return f"{now}{some.avg10_percent:.1f} % in 10 s{all_waited}, {some.avg60_percent:.1f} in 1 min"


def _alarm(survey: Survey) -> str:
    """Above a tenth of the time people feel it."""
    some = next((line.avg10_percent for line in survey.machine.pressure if line.kind == "some"), 0.0)
    return "critical" if some >= 10 else ""


def _left(survey: Survey) -> str:
    if not survey.places:
        return "how much is left was not told"
    nearest = survey.places[0].room
    said = f"{size(nearest.left_bytes)} in {escape.plain(where(survey.machine, nearest))}"
    whole = next((place.room for place in survey.places if place.room.path is None), None)
    if whole is None or whole is nearest:
        return said
    return f"{said}; {size(whole.left_bytes)} in the machine"


def _total(survey: Survey) -> float:
    return float(next((place.room.limit_bytes for place in survey.places if place.room.path is None), 0))


def _time_left(survey: Survey, room: int) -> str:
    """All of it where there is room, else its figures, of which the last give way; names are cut."""
    text = escape.plain(time_left(survey))
    if escape.columns(text) <= room:
        return text
    *figures, place = map(escape.plain, time_left_in_pieces(survey))
    text = ""
    for figure in figures:
        text += figure if len(text) + len(figure) <= room else ""
    return text + place if room - len(text) > len(" in ") + 4 else text


def _next(survey: Survey, gaps: Iterable[Gap]) -> str:
    if survey.prediction is None:
        return "how much memory there is was not told"
    return "".join(map(escape.plain, foretold_who(survey.prediction, gaps)))


def _frees(survey: Survey, gaps: Iterable[Gap]) -> str:
    prediction = survey.prediction
    if prediction is None or if_nobody(prediction, gaps) == "unseen":
        return "not known"
    if not prediction.killed:
        return "nothing"
    total = prediction.domain.total_pages * prediction.domain.page_bytes
    freed = prediction.freed_bytes
    return f"{size(freed)}, {percent(freed, total)} of memory and swap" if total else size(freed)


# -- the rows ----------------------------------------------------------------------------------------------------------


def process_titles(width: int) -> str:
    """The words above the rows of processes."""
    growth, adj, rank, of = (width >= least for least in _OF_PROCESSES.values())
    more = f"{'SWAP':>10}{'SHMEM':>10}" if width >= _WIDE else ""
    told = f"{'PER MIN':>11}" * growth + f"{'RANK':>6}" * rank + f"{'ADJ':>6}" * adj + more
    return escape.cut(f"  {'OWN':>8}{told}{'PID':>9}  {'NAME':<16}{' OF' * of}", width)


def process_row(held: Held, survey: Survey, width: int) -> str:
    """What a process holds of its own, how that grows, its place in the kernel's order, who it is and whose."""
    process = held.process
    mark = NEXT if dies_next(held, survey) else " "
    rank = "" if held.place is None else str(held.place)
    adj = "" if process.oom_score_adj is None else str(process.oom_score_adj)
    has_growth, has_adj, has_rank, has_of = (width >= least for least in _OF_PROCESSES.values())
    more = f"{_size(process.swap_bytes):>10}{_size(process.rss_shmem_bytes):>10}" if width >= _WIDE else ""
    told = f"{growth(held.growth):>11}" * has_growth + f"{rank:>6}" * has_rank + f"{adj:>6}" * has_adj + more
    line = f"{mark} {size(held.bytes):>8}{told}{process.pid:>9}  {_fit(escape.name(process.comm or '?'), 16)} "
    return escape.cut(line + _whose(held.owner, width - escape.columns(line)) * has_of, width)


def dies_next(held: Held, survey: Survey) -> bool:
    """Is it of those whom the kernel would kill now?"""
    prediction = survey.prediction
    return prediction is not None and any(one.pid == held.process.pid for one in prediction.killed)


def group_titles(width: int) -> str:
    """The words above the rows of cgroups."""
    bar, growth, full, limit = (width >= least for least in _OF_GROUPS.values())
    limits = f"{'LIMIT':>10}" * limit + f"{'LEFT':>9}" + f"{'FULL IN':>12}" * full
    told = f"  {'TAKEN':>8}" + f"{'PER MIN':>11}" * growth
    return escape.cut(f"{told}{limits}{' ' * 14 * bar}  NAME", width)


def group_row(charged: Charged, width: int) -> str:
    """What a cgroup holds that cannot be dropped, how that grows, its limit as a bar, when that is met, whose it is."""
    place = charged.place
    limit = left = full = drawn = ""
    if place is not None:
        limit, left = size(place.room.limit_bytes), size(place.room.left_bytes)
        full = _full_in(place.left.verdict, place.left.seconds, place.left.least_s)
        cache = reclaimable_bytes(charged.group) or 0
        drawn = meter(charged.bytes, cache, place.room.limit_bytes, 12)
    has_bar, has_growth, has_full, has_limit = (width >= least for least in _OF_GROUPS.values())
    limits = f"{limit:>10}" * has_limit + f"{left:>9}" + f"{full:>12}" * has_full
    figures = f"  {size(charged.bytes):>8}" + f"{growth(charged.growth):>11}" * has_growth
    figures += limits + f"  {drawn:<12}" * has_bar
    name = _whose(charged.owner, width - len(figures) - 2, _within(charged.group.path))
    return escape.cut(f"{figures}  {name}", width)


def _within(path: str) -> str:
    """Which group of a container it is that it, or its runtime, made below its own: `/container`, `/init.scope`."""
    whose, own = workload(path), path
    if whose.kind != "container":
        return ""
    for above in ancestors(path):
        if workload(above).name != whose.name:
            break
        own = above
    return path.removeprefix(own)


def _full_in(verdict: str, seconds: float | None, least_s: float | None) -> str:
    match verdict:
        case "growing" if seconds is not None:
            return duration(seconds)
        case "unsure" if least_s is not None:
            return f"{duration(least_s)}?"
        case _:
            return ""


def growth(trend: Trend | None) -> str:
    """Bytes a minute, `?` where it is not sure which way it goes; empty where nothing is known yet.

    >>> growth(Trend(36700160, 30000000, 40000000, 120)), growth(Trend(1048576, -9, 2000000, 120))
    ('+35 MiB', '+1 MiB?')
    """
    if trend is None:
        return ""
    if abs(trend.slope) < _FELT:
        return "0"
    sure = "" if trend.least > 0 or trend.most < 0 else "?"
    return f"{'+' if trend.slope > 0 else ''}{size(round(trend.slope))}{sure}"


def meter(taken: int, cache: int, whole: int, width: int) -> str:
    """A bar for a limit: what is taken, what of the rest is cache that can be dropped, and what is free.

    >>> meter(1, 1, 4, 8)
    '██▒▒····'
    """
    full = min(round(width * taken / whole), width) if whole else width
    full = max(full, 1) if taken else full
    dropped = min(round(width * (taken + cache) / whole), width) - full if whole else 0
    return "█" * full + "▒" * max(dropped, 0) + "·" * (width - full - max(dropped, 0))


def spark(values: Sequence[float], most: float, width: int) -> str:
    """The newest values, one a column, each as high as its share of `most`; what is not 0 is seen.

    >>> spark([0, 1, 50, 100], 100, 8)
    ' ▁▄█'
    """
    steps = len(_LEVELS) - 1
    return "".join(
        _LEVELS[max(round(steps * min(value / most, 1)), int(value > 0))] if most > 0 else _LEVELS[0]
        for value in values[-width:]
    )


def _drawn(text: str, values: Sequence[float], most: float, room: int) -> str:
    """Text, and at the right what it was before, as far as there is room for it."""
    left = room - escape.columns(text) - 2
    if left < 8 or len(values) < 2:
        return text
    return _apart(text, spark(values, most, min(left, 40)), room)


def _apart(text: str, right: str, room: int) -> str:
    gap = room - escape.columns(text) - escape.columns(right)
    return f"{text}{' ' * gap}{right}" if gap >= 2 else text


def _whose(workload: Workload, room: int, within: str = "") -> str:
    """The name of a workload and what is below it; without room for all what tells it from its neighbours.

    Of a path that is the end, of a container its own name, and of what else has more words than one both ends.
    """
    if workload.kind == "root":
        return "-"
    names = [escape.plain(quote(name + within)) for name in _names(workload)]
    name = next((name for name in names if escape.columns(name) <= room), names[-1])
    if escape.columns(name) <= room or room < 2 or workload.kind in ("unit", "slice"):
        return name
    begin = "" if workload.kind == "cgroup" else name[: len(name) // 2]
    end = name.removeprefix(begin)
    while escape.columns(begin) + escape.columns(end) > room - 1:
        if len(begin) > len(end):
            begin = begin[:-1]
        else:
            end = end[1:]
    return f"{begin}…{end}"


def _names(workload: Workload) -> Iterator[str]:
    """What people call it, the longest first; the words of whoever made it go before its own name does."""
    yield workload.name
    kind = workload.kind if workload.kind in ("container", "pod") else None
    if kind is not None and f"{kind} " in workload.name:
        own = workload.name.partition(f"{kind} ")[2].removesuffix(f" of user {workload.uid}")
        if workload.manager is not None and workload.pod_uid is None:
            yield f"{workload.manager}:{own}"
        yield own


def _size(count_bytes: int | None) -> str:
    return "" if count_bytes is None else size(count_bytes)


def _fit(text: str, width: int) -> str:
    shown = escape.cut(text, width)
    return shown + " " * (width - escape.columns(shown))


def kill_titles(width: int) -> str:
    """The words above the rows of kills."""
    held = f"{'HELD':>10}" * (width >= _OF_KILLS["held"])
    return escape.cut(f"  {'WHEN':>10}{held}  WHO WAS KILLED; WHOSE LIMIT", width)


def kill_row(oom: OomReport, ago_s: float | None, width: int) -> str:
    """How long ago it was told, what was held, who was killed, and whose limit that was, which gives way last."""
    held = [told for kill in oom.kills if (told := answer.held_bytes(kill)) is not None]
    has_held = width >= _OF_KILLS["held"]
    figures = f"  {_ago(ago_s):>10}" + f"{size(sum(held)) if held else '':>10}" * has_held + "  "
    who, of = (*map(escape.plain, answer.who(oom)[:2]), "")[:2]
    limit = escape.plain(answer.limit(oom)[0])
    room = width - len(figures) - escape.columns(limit) - 2
    who = who + of if escape.columns(who + of) <= room else escape.cut(who, max(room, _WHOM))
    return escape.cut(f"{figures}{who}; {limit}", width)


def kill_words(oom: OomReport) -> str:
    """What a kill can be found by."""
    return escape.plain("".join((*answer.who(oom), "; ", *answer.limit(oom))))


def _ago(seconds: float | None) -> str:
    """In the largest unit alone, which is enough to know it by.

    >>> _ago(2673), _ago(0.2), _ago(None)
    ('44 min ago', 'now', '')
    """
    if seconds is None:
        return ""
    return "now" if seconds < 1 else f"{' '.join(duration(seconds).split()[:2])} ago"


# -- one of them, at length --------------------------------------------------------------------------------------------


def details(held: Held, survey: Survey, width: int) -> list[Said]:
    """All that is known of a process; what would be free without it, where that was measured."""
    process, machine = held.process, survey.machine
    room = width - _LABEL
    uid = "" if process.uid is None else f", uid {process.uid}"
    threads = f", {process.threads} threads" if (process.threads or 1) > 1 else ""
    parts = [
        f"{what} {size(part)}"
        for what, part in (
            ("private", process.rss_anon_bytes),
            ("files", process.rss_file_bytes),
            ("shared", process.rss_shmem_bytes),
            ("in swap", process.swap_bytes),
            ("page tables", process.pgtables_bytes),
        )
        if part is not None
    ]
    said = [
        Said(
            "Process",
            f"{escape.name(process.comm or '?')} (pid {process.pid}){uid}{threads}",
            "strong",
        ),
        Said("Of", _whose(held.owner, room)),
        *([Said("Image", image)] if (image := _image(held, machine)) else []),
        Said("Cgroup", escape.visible(process.cgroup or "not told")),
        Said("Holds", ", ".join(parts) or "not told"),
    ]
    if process.unique_bytes is not None and process.pss_bytes is not None:
        shared = f"{size(process.pss_bytes)} with its share of what is shared"
        said.append(Said("Measured", f"{size(process.unique_bytes)} would be free if it ended alone; {shared}"))
    said.append(Said("Grows", _bounds(held.growth)))
    said.append(Said("Rank", _rank(held, survey)))
    above = {process.cgroup, *ancestors(process.cgroup or "/"), None}
    for place in survey.places:
        if place.room.path in above:
            full = _full_in(place.left.verdict, place.left.seconds, place.left.least_s)
            when = f", full in {full}" if full else ""
            said.append(Said("Limit", escape.plain(left_in(machine, place.room)) + when))
    return [
        Said(line.label if at == 0 else "", part, line.role)
        for line in said
        for at, part in enumerate(wrap(line.text, room))
    ]


def _image(held: Held, machine: Machine) -> str:
    """Of which image the container is that it is in; empty where it is in none, or none is told."""
    container_id = held.owner.container_id
    images = {container.container_id: container.image for container in machine.containers}
    return escape.visible(images.get(container_id or "") or "")


def _bounds(trend: Trend | None) -> str:
    if trend is None:
        return "not known yet"
    if not (isfinite(trend.least) and isfinite(trend.most)):
        return f"{growth(trend)} a minute; how sure that is cannot be told yet"
    least, most = size(round(trend.least)), size(round(trend.most))
    return (
        f"{growth(trend)} a minute, between {least} and {most} with 95 % confidence; seen for {duration(trend.seconds)}"
    )


def _rank(held: Held, survey: Survey) -> str:
    if held.place is None or survey.prediction is None:
        return "the kernel does not choose it"
    said = f"{held.place} of {len(survey.prediction.choice.ranking)}, its oom_score_adj is {held.process.oom_score_adj}"
    return f"{said}; it would be killed next" if dies_next(held, survey) else said


# -- one screenful -----------------------------------------------------------------------------------------------------


def screenful(
    survey: Survey,
    *,
    width: int = 80,
    height: int = 24,
    rows: int | None = None,
    colour: bool = False,
    clock: str = "",
    gaps: Sequence[Gap] = (),
    watched: bool = False,
) -> Iterator[str]:
    """One look as lines: the head, the largest processes, the cgroups whose limits are met first.

    With `rows` so many processes and so many cgroups, if there are, whatever the `height`. What could not be seen comes
    below, and does not count in either. `watched`: there were looks before, which may tell growth.
    """
    paint = colours() if colour else plain_paint
    page = Page(width=width, paint=paint)
    said = head(survey, width=width, clock=clock, gaps=gaps)
    for label, text, role in said if watched else _once(said):
        yield page.raw(label, escape.cut(text, page.room), role)
    room = height - 7 - 2 - 2  # heads, blank lines
    below = min(len(survey.groups), room // 3 if rows is None else rows)
    above = max(room - below, 0) if rows is None else rows
    yield ""
    shown = [process_row(one, survey, width) for one in _with_victim(survey, above)]
    yield from _rows(paint, process_titles(width), shown, len(shown))
    if below:
        yield ""
        yield from _rows(paint, group_titles(width), [group_row(one, width) for one in survey.by_left()], below)
    yield from page.unseen(gaps)


def _with_victim(survey: Survey, most: int) -> Sequence[Held]:
    """The largest; in the last row who would be killed next, where no row above is one of those."""
    largest = survey.processes[:most]
    if not largest or any(dies_next(one, survey) for one in largest):
        return largest
    victim = next((one for one in survey.processes[most:] if dies_next(one, survey)), None)
    return largest if victim is None else (*largest[:-1], victim)


def _once(lines: list[Said]) -> list[Said]:
    """One look shows no growth, and says so."""
    said = "one look tells no growth: reprieve top, or top --batch"
    return [Said(line.label, said, "dim") if line.label == "Time left" else line for line in lines]


def _rows(paint: Paint, titles: str, rows: Sequence[str], most: int) -> Iterator[str]:
    yield paint(titles, "dim")
    for row in rows[:most]:
        yield paint(row, "strong") if row.startswith(NEXT) else row

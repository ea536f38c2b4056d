"""Events of a kubelet that ends a container as its probe had failed, and the ends that they tell of.

Source: computePodActions() in pkg/kubelet/kuberuntime/kuberuntime_manager.go; HumanDuration() in
k8s.io/apimachinery/pkg/util/duration for how kubectl spells an age.
"""

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import accumulate, product
from math import inf
from typing import Any, NamedTuple

from reprieve.model.ending import FAILED_LIVENESS, FAILED_STARTUP, Ending
from reprieve.model.oom import Stamp
from reprieve.oom import fields

_SIGKILL_STATUS = 137
_REASONS = {"liveness": FAILED_LIVENESS, "startup": FAILED_STARTUP}
_CLOCKS_DIFFER_S = 2.0  # dates are of whole seconds
_SAID = r"Container (?P<name>[a-z0-9-]{1,63}) failed (?P<probe>liveness|startup) probe(?:, will be restarted)?"
_WORDS = rf"{_SAID}|Started container:? (?P<started>[a-z0-9-]{{1,63}})"
_LATER_COLUMNS = r"(?: +\d\S{0,20} +\d[^\n]{0,300})? *(?:\n|\Z)"  # of `kubectl get events -o wide`
_HEAD_LENGTH = 700  # of a row: its message begins within that
_AGE = r"(?P<last>(?:\d{1,6}[ydhms])+)(?: \(x\d+ over (?P<first>(?:\d{1,6}[ydhms])+)\))?"
_SECONDS = {"y": 365 * 86400, "d": 86400, "h": 3600, "m": 60, "s": 1}
_SPELLED = (("s", 600), ("m", 8 * 3600), ("h", 8 * 86400), ("d", 2 * 365 * 86400))
_WHATEVER = ""  # no name of anything


class KillEvent(NamedTuple):
    """That a kubelet was about to end a container, once or several times: alike events become one that counts."""

    pod: str | None
    container: str
    probe: str  # "liveness", "startup"
    line: int
    namespace: str | None = None
    pod_uid: str | None = None
    first: Stamp | None = None
    last: Stamp | None = None


class KillRow(NamedTuple):
    """The same in a table, which tells by how long ago: the newest such row of a container in it."""

    pod: str | None
    container: str
    probe: str
    line: int
    namespace: str | None
    lines: range | None  # of the description that it stands in; None for `kubectl get events`
    after_start_s: tuple[float, float] | None  # at least, at most: after the newest start of it in that table


ProbeKill = KillEvent | KillRow


def from_event(event: dict[str, Any], line: int) -> Iterator[KillEvent]:
    """Of `kubectl get events -o json`, if it is one."""
    about, said = fields.table(event, "involvedObject"), fields.text(event.get("message")) or ""
    if event.get("reason") == "Killing" and (match := re.fullmatch(_SAID, said)):
        first, last = (event.get(key) or event.get("eventTime") for key in ("firstTimestamp", "lastTimestamp"))
        pod, namespace, uid = (fields.text(about.get(key)) for key in ("name", "namespace", "uid"))
        when = (fields.moment(first), fields.moment(last))
        yield KillEvent(pod, match["name"], match["probe"], line, namespace, uid, *when)


class _Ages(NamedTuple):
    """Of a row, in seconds: each lies between what it spells and one more of its smallest unit."""

    first: tuple[float, float]
    last: tuple[float, float]


class _About(NamedTuple):
    pod: str | None
    container: str
    namespace: str | None
    lines: range | None


def from_rows(text: str) -> Iterator[KillRow]:
    """Rows of tables. `kubectl describe` names the pod above them, and `kubectl get events` in each."""
    kills: dict[_About, tuple[_Ages | None, str, int]] = {}
    starts: dict[_About, _Ages] = {}
    described = fields.described(text)
    at, line = 0, 1
    for match, head in _heads(text):
        line += text.count("\n", at, match.start())
        at = match.start()
        container = match["name"] or match["started"]
        reason = "Killing" if match["name"] else "Started"
        if (row := _row(head, reason)) is None:
            continue
        named, namespace, ages = row
        if named is not None:
            about = _About(named, container, namespace, None)
        elif (above := fields.described_at(match.start(), described)) is not None:
            about = _About(above.name, container, above.namespace, above.lines)
        else:  # the rows alone were pasted
            about = _About(None, container, None, None)
        if match["started"]:
            if ages is not None and (about not in starts or ages.last < starts[about].last):
                starts[about] = ages
        elif about not in kills or _is_newer(ages, kills[about][0]):
            kills[about] = (ages, match["probe"], line)
    for about, (killed, probe, line) in kills.items():
        started = starts.get(about)
        after = None
        if started is not None and killed is not None:
            after = (started.last[0] - killed.first[1], started.last[1] - killed.last[0])
        yield KillRow(about.pod, about.container, probe, line, about.namespace, about.lines, after)


def _is_newer(ages: _Ages | None, than: _Ages | None) -> bool:
    return ages is not None and (than is None or ages.last < than.last)


def _heads(text: str) -> Iterator[tuple[re.Match[str], str]]:
    """Messages that end a row, with what stands before them: one in a line, however long that line is."""
    words, whole = re.compile(_WORDS), re.compile(rf"(?:{_WORDS}){_LATER_COLUMNS}")
    at = 0
    while (found := words.search(text, at)) is not None:
        begin = text.rfind("\n", max(0, found.start() - _HEAD_LENGTH), found.start()) + 1
        if (begin or found.start() <= _HEAD_LENGTH) and (match := whole.match(text, found.start())):
            yield match, text[begin : found.start()]
        at = text.find("\n", found.end())
        if at < 0:
            return


def _row(head: str, reason: str) -> tuple[str | None, str | None, _Ages | None] | None:
    """The pod, the namespace and the ages that are told before a message; None if that is no row of an event.

    `kubectl describe pod`: Type Reason Age From; `kubectl get events`: [Namespace] Last-seen Type Reason Object
    [Subobject Source].
    """
    words = head.split()
    if reason not in words or words[max(0, words.index(reason) - 1)] != "Normal":
        return None
    before, after = words[: words.index(reason) - 1], words[words.index(reason) + 1 :]
    pod = next((word.removeprefix("pod/") for word in after if word.startswith("pod/")), None)
    if pod is None:
        return None, None, _ages(" ".join(after))
    namespace = before[0] if before and not re.match(rf"{_AGE}\Z|<", before[0]) else None
    return pod, namespace, _ages(" ".join(before[namespace is not None :]))


def _ages(spelled: str) -> _Ages | None:
    match = re.match(rf"{_AGE}(?: |\Z)", spelled)
    return None if match is None else _Ages(_seconds(match["first"] or match["last"]), _seconds(match["last"]))


def _seconds(age: str) -> tuple[float, float]:
    """At least, and at most: what is zero is not spelled, nor are small units of a great age."""
    parts = re.findall(r"(\d+)([ydhms])", age)
    told = float(sum(int(number) * _SECONDS[unit] for number, unit in parts))
    exact = next((unit for unit, below_s in _SPELLED if told < below_s), parts[-1][1])
    return told, told + _SECONDS[exact]


def told_with(endings: Iterable[Ending], kills: Iterable[ProbeKill]) -> Iterator[Ending]:
    """The same; those by SIGKILL that such an event is about have what it tells as their reason."""
    events: dict[tuple[str | None, ...], list[KillEvent]] = {}
    rows: dict[tuple[object, ...], KillRow] = {}
    for kill in dict.fromkeys(kills):
        # Under what it tells, and under what an end may not tell.
        if isinstance(kill, KillRow):
            for namespace in (kill.namespace, _WHATEVER):
                rows[kill.lines and kill.lines.start, kill.pod, kill.container, namespace] = kill
            continue
        for known in set(product((kill.namespace, _WHATEVER), (kill.pod_uid, _WHATEVER))):
            events.setdefault((kill.pod, kill.container, *known), []).append(kill)
    dated = {key: _by_dates(same) for key, same in events.items()}
    begun = sorted({kill.lines.start for kill in rows.values() if kill.lines is not None})
    for ending in endings:
        if ending.exit_code != _SIGKILL_STATUS or ending.oom_killed or ending.pod is None:
            yield ending
            continue
        spaces, uids = _asked(ending.namespace), _asked(ending.pod_uid)
        found: list[ProbeKill] = []
        for known in product(spaces, uids):
            same = dated.get((ending.pod, ending.name, *known))
            event = None if same is None else _covering(same, ending)
            found += () if event is None else (event,)
        above = begun[: bisect_right(begun, ending.line)][-1:]
        for place, namespace in product((*above, None), spaces):
            row = rows.get((place, ending.pod, ending.name, namespace))
            if row is not None and _is_of(row, ending):
                found.append(row)
        yield replace(ending, reason=_REASONS[found[-1].probe]) if found else ending


def told_alone(endings: Iterable[Ending], kills: Iterable[ProbeKill]) -> Iterator[Ending]:
    """Containers of whose ends nothing else tells: that a kubelet was about to end them, the last time."""
    told = {(ending.pod, ending.name) for ending in endings}
    last = {(kill.namespace, kill.pod, kill.container): kill for kill in kills}
    for kill in last.values():
        if not told & {(kill.pod, kill.container), (None, kill.container)}:
            yield Ending(
                manager="kubernetes",
                line=kill.line,
                name=kill.container,
                pod=kill.pod,
                namespace=kill.namespace,
                reason=_REASONS[kill.probe],
                finished=kill.last if isinstance(kill, KillEvent) else None,
            )


def _asked(name: str | None) -> tuple[str | None, ...]:
    """What an event can be filed under that is about something of this name."""
    return (_WHATEVER,) if name is None else (name, None)


class _ByDates(NamedTuple):
    """Events about one container, by when they were first told."""

    firsts_s: list[float]
    longest: list[KillEvent]  # of those up to it, the one that was told last


def _by_dates(kills: list[KillEvent]) -> _ByDates:
    ordered = sorted(kills, key=lambda kill: _wall_s(kill.first, -inf))
    return _ByDates([_wall_s(kill.first, -inf) for kill in ordered], list(accumulate(ordered, _told_later)))


def _told_later(one: KillEvent, other: KillEvent) -> KillEvent:
    return one if _wall_s(one.last, inf) > _wall_s(other.last, inf) else other


def _covering(kills: _ByDates, ending: Ending) -> KillEvent | None:
    """One by whose dates this run of the container can be one that was to be ended.

    While one runs, its status is that of the run before; then the last time is of the one that runs.
    """
    until = bisect_right(kills.firsts_s, _wall_s(ending.finished, inf) + _CLOCKS_DIFFER_S)
    if until == 0:
        return None
    kill = kills.longest[until - 1]
    return kill if _wall_s(ending.started, -inf) <= _wall_s(kill.last, inf) + _CLOCKS_DIFFER_S else None


def _is_of(row: KillRow, ending: Ending) -> bool:
    """Whether it was to be ended in this run, by the date of the newest start: by its age alone it is of any run."""
    if row.lines is not None and ending.line not in row.lines:
        return False
    if row.after_start_s is None:
        return ending.runs_since is None  # else the start that came after is left out, and with it how long after
    newest = _wall_s(ending.runs_since or ending.started, inf)
    earliest, latest = (newest + after for after in row.after_start_s)
    finished, started = _wall_s(ending.finished, -inf), _wall_s(ending.started, inf)
    return earliest <= finished + _CLOCKS_DIFFER_S and started <= latest + _CLOCKS_DIFFER_S


def _wall_s(stamp: Stamp | None, unknown: float) -> float:
    return unknown if stamp is None or stamp.wall_s is None else stamp.wall_s

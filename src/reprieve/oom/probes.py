"""Events of a kubelet that ends a container as its probe had failed, and the ends that they tell of.

Source: computePodActions() in pkg/kubelet/kuberuntime/kuberuntime_manager.go.
"""

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from reprieve.model.ending import FAILED_LIVENESS, FAILED_STARTUP, Ending
from reprieve.model.oom import Stamp
from reprieve.oom import fields

_SIGKILL_STATUS = 137
_REASONS = {"liveness": FAILED_LIVENESS, "startup": FAILED_STARTUP}
_CLOCKS_DIFFER_S = 2.0  # dates are of whole seconds
_SAID = r"Container (?P<name>[a-z0-9-]{1,63}) failed (?P<probe>liveness|startup) probe(?:, will be restarted)?"
# `kubectl describe pod`: Type Reason Age From Message; `kubectl get events`: [Namespace] Last-seen Type Reason Object
# [Subobject Source] Message [First-seen Count Name].
_ROW = rf"(?m)^.{{0,300}}?\bNormal +Killing +(?P<about>\S.{{0,300}}?) +{_SAID}(?: +\d\S* +\d.*)? *$"
_POD = r"\bpod/(\S{1,253})"


class ProbeKill(NamedTuple):
    """That a kubelet was about to end a container, once or several times: alike events become one that counts."""

    pod: str | None
    container: str
    probe: str  # "liveness", "startup"
    first: Stamp | None = None
    last: Stamp | None = None


def from_event(event: dict[str, Any]) -> Iterator[ProbeKill]:
    """Of `kubectl get events -o json`, if it is one."""
    about, said = fields.table(event, "involvedObject"), fields.text(event.get("message")) or ""
    if event.get("reason") == "Killing" and (match := re.fullmatch(_SAID, said)):
        first, last = (event.get(key) or event.get("eventTime") for key in ("firstTimestamp", "lastTimestamp"))
        when = (fields.moment(first), fields.moment(last))
        yield ProbeKill(fields.text(about.get("name")), match["name"], match["probe"], *when)


def from_rows(text: str) -> Iterator[ProbeKill]:
    """Rows of tables: when it was they tell by how long ago. `kubectl describe` names the pod above them."""
    described = [(match.start(), match[1]) for match in re.finditer(r"(?m)^Name: +(\S{1,253})$", text)]
    for match in re.finditer(_ROW, text):
        named, above = re.search(_POD, match["about"]), bisect_left(described, (match.start(), ""))
        pod = named[1] if named else described[above - 1][1] if above else None
        yield ProbeKill(pod, match["name"], match["probe"])


def told_with(endings: Iterable[Ending], kills: Iterable[ProbeKill]) -> Iterator[Ending]:
    """The same; those by SIGKILL that such an event is about have what it tells as their reason."""
    by_name: dict[tuple[str | None, str | None], list[ProbeKill]] = {}
    for kill in kills:
        by_name.setdefault((kill.pod, kill.container), []).append(kill)
    for ending in endings:
        found = [kill for kill in by_name.get((ending.pod, ending.name), ()) if _is_of(kill, ending)]
        killed = ending.exit_code == _SIGKILL_STATUS and not ending.oom_killed
        yield replace(ending, reason=_REASONS[found[-1].probe]) if found and killed else ending


def _is_of(kill: ProbeKill, ending: Ending) -> bool:
    """Whether this run of it can be one that was to be ended: by their dates, where there are such.

    While one runs, its status is that of the run before; then the last time is of the one that runs.
    """
    return _in_order(kill.first, ending.finished) and _in_order(ending.started, kill.last)


def _in_order(one: Stamp | None, other: Stamp | None) -> bool:
    if one is None or other is None or one.wall_s is None or other.wall_s is None:
        return True
    return one.wall_s <= other.wall_s + _CLOCKS_DIFFER_S

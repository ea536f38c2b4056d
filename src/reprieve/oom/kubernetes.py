"""What Kubernetes says of ends: statuses and descriptions of pods, events of kubelets, rows of tables.

An event "SystemOOM" is a kubelet's reading of its node's kernel log (pkg/kubelet/oom/oom_watcher_linux.go);
"OOMKilling" that of node-problem-detector (config/kernel-monitor.json), which repeats the kernel's line; "Evicted" is
a kubelet's own doing, before the kernel has to (pkg/kubelet/eviction/eviction_manager.go).
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from reprieve.model.ending import Ending
from reprieve.oom import fields
from reprieve.oom.tables import parse_kill

_SYSTEM_OOM = (
    r"(?P<combined>\(combined from similar events\): )?System OOM encountered"
    r"(?:, victim process: (?P<comm>.{0,64}?), pid: (?P<pid>\d{1,10})\b)?"
)
# `kubectl describe node`: Type Reason Age From Message; `kubectl get events`: [Namespace] Last-seen Type Reason Object
# [Subobject Source] Message. Kubernetes before 1.19 writes "kubelet, NODE" for From.
_EVENT_ROW = r"(?m)^.{0,300}?\bWarning +SystemOOM +(?P<about>\S.{0,200}?) +" + _SYSTEM_OOM
_KILL_ROW = r"(?m)^.{0,300}?\bWarning +OOMKilling +(?P<about>\S.{0,200}?) +(?P<said>(?:\S.{0,60})?Killed process .*)"
_EVICTION_ROW = (
    r"(?m)^(?: {0,4}|(?P<namespace>\S{1,253}) +)?(?:\S{1,30} +)?Warning +Evicted +(?P<about>\S.{0,300}?) +"
    r"(?P<why>(?:The node |Pod The node |Usage of |Pod ephemeral |Container ).*)"
)
_NODE = r"\bnode/(\S{1,253})|\b(?:kubelet|kernel-monitor), (\S{1,253})"
_POD_ROW = r"(?m)^(?:(?P<namespace>\S{1,63}) +)?(?P<pod>\S{1,253}) +\d+/\d+ +Evicted\b"  # `kubectl get pods`


def from_event(event: dict[str, Any], line: int) -> Iterator[Ending]:
    """One event of `kubectl get events -o json`, if it tells of an end."""
    about, source = fields.table(event, "involvedObject"), fields.table(event, "source")
    said = fields.text(event.get("message")) or ""
    when = next((event[key] for key in ("lastTimestamp", "eventTime", "firstTimestamp") if event.get(key)), None)
    node = fields.text(source.get("host")) or fields.text(event.get("reportingInstance"))
    own = fields.text(about.get("name")) if about.get("kind") == "Node" else None
    if event.get("reason") == "SystemOOM" and (match := re.match(_SYSTEM_OOM, said)):
        yield _system_oom(match, line, node=own or node, finished=fields.moment(when))
    elif event.get("reason") == "OOMKilling":
        yield from _oom_killing(said, line, node=own or node, finished=fields.moment(when))
    elif event.get("reason") == "Evicted" and about.get("kind") == "Pod":
        yield Ending(
            manager="kubernetes",
            line=line,
            pod=fields.text(about.get("name")),
            namespace=fields.text(about.get("namespace")),
            pod_uid=fields.text(about.get("uid")),
            node=node,
            reason="Evicted",
            state_reason=said or None,
            finished=fields.moment(when),
        )


def _system_oom(match: re.Match[str], line: int, **known: Any) -> Ending:
    return Ending(
        manager="kubelet",
        line=line,
        name=fields.text(match["comm"]),
        pid=fields.number(match["pid"]),
        reason="SystemOOM",
        state_reason="combined from similar events" if match["combined"] else None,
        oom_killed=True,
        **known,
    )


def _oom_killing(said: str, line: int, **known: Any) -> Iterator[Ending]:
    kill = parse_kill(said)
    if kill is not None:
        yield Ending(
            manager="node-problem-detector",
            line=line,
            name=kill.comm,
            pid=kill.pid,
            reason="OOMKilling",
            state_reason=said.strip(),
            oom_killed=True,
            **known,
        )


def from_rows(text: str) -> Iterator[Ending]:
    """Rows of tables of events and of pods. `kubectl describe` names above them what they are about."""
    described = fields.described(text)

    def about(match: re.Match[str], names: str) -> str | None:
        named = re.search(names, match["about"])
        if named is not None:
            return str(next(filter(None, named.groups())))
        above = fields.described_at(match.start(), described)
        return None if above is None else above.name

    for line, row in fields.numbered(re.finditer(_EVENT_ROW, text), text):
        ending = _system_oom(row, line, node=about(row, _NODE))
        yield replace(ending, state_reason="combined from similar events") if "(x" in row["about"] else ending
    for line, row in fields.numbered(re.finditer(_KILL_ROW, text), text):
        yield from _oom_killing(row["said"], line, node=about(row, _NODE))
    for line, row in fields.numbered(re.finditer(_EVICTION_ROW, text), text):
        pod, why = about(row, r"\bpod/(\S{1,253})"), row["why"].strip()
        yield Ending(manager="kubernetes", line=line, pod=pod, reason="Evicted", state_reason=why)
    for line, row in fields.numbered(re.finditer(_POD_ROW, text), text):
        yield Ending(manager="kubernetes", line=line, pod=row["pod"], namespace=row["namespace"], reason="Evicted")


def from_pod(pod: dict[str, Any], line: int) -> Iterator[Ending]:
    """That it was evicted; for each container its last end, and where it runs again, or waits to, that state too."""
    metadata, spec, status = (fields.table(pod, key) for key in ("metadata", "spec", "status"))
    if status.get("reason") == "Evicted":
        yield Ending(
            manager="kubernetes",
            line=line,
            pod=fields.text(metadata.get("name")),
            namespace=fields.text(metadata.get("namespace")),
            pod_uid=fields.text(metadata.get("uid")),
            qos=fields.text(status.get("qosClass")),
            node=fields.text(spec.get("nodeName")),
            state=fields.text(status.get("phase")),
            reason="Evicted",
            state_reason=fields.text(status.get("message")),
        )
    limits = {
        fields.text(container.get("name")): fields.quantity(
            fields.table(fields.table(container, "resources"), "limits").get("memory", "max")
        )
        for key in ("initContainers", "containers")
        for container in fields.tables(spec, key)
    }
    for key in ("initContainerStatuses", "containerStatuses"):
        for container in fields.tables(status, key):
            name = fields.text(container.get("name"))
            now, before = fields.table(container, "state"), fields.table(container, "lastState")
            state = next((key for key in now if key in ("waiting", "running", "terminated")), None)
            end = fields.table(now, "terminated") or fields.table(before, "terminated")
            if state is None and not end and "restartCount" not in container:  # what is left of a cut text
                continue
            reason, why = fields.text(end.get("reason")), fields.text(fields.table(now, state or "").get("reason"))
            yield Ending(
                manager="kubernetes",
                line=line,
                name=name,
                container_id=fields.identifier(end.get("containerID") or container.get("containerID")),
                pod=fields.text(metadata.get("name")),
                namespace=fields.text(metadata.get("namespace")),
                pod_uid=fields.text(metadata.get("uid")),
                qos=fields.text(status.get("qosClass")),
                state=fields.text(state),
                state_reason=None if state == "terminated" else why,
                reason=reason,
                exit_code=fields.number(end.get("exitCode")),
                signal=fields.number(end.get("signal")),
                oom_killed=None if reason is None else reason == "OOMKilled",
                memory_limit_bytes=limits.get(name),
                restarts=fields.number(container.get("restartCount")),
                started=fields.moment(end.get("startedAt")),
                finished=fields.moment(end.get("finishedAt")),
                runs_since=fields.moment(fields.table(now, "running").get("startedAt")),
            )


_Entry = tuple[int, int, str, str]  # its line, how far it stands in, key, value
_CONTAINERS = ("Containers", "Init Containers")
_BEHIND = ("Conditions", "Volumes", "QoS Class", "Node-Selectors", "Tolerations", "Events", "Ephemeral Containers")
_OF_STATE = ("Reason", "Message", "Exit Code", "Signal", "Started", "Finished")


def from_describe(text: str) -> Iterator[Ending]:
    """`kubectl describe pod`: what a key belongs to is told by how far it stands in; if that is lost, by the key."""
    yield from list(_from_entries(_indented(text))) or _from_entries(_flat(text))


def _indented(text: str) -> Iterator[_Entry]:
    for number, line in enumerate(text.split("\n"), 1):
        if entry := re.match(r"( *)([A-Za-z][\w .-]{0,252}):(.*)", line):
            yield number, len(entry[1]), entry[2], entry[3].strip()


def _flat(text: str) -> Iterator[_Entry]:
    """As far in as kubectl prints them; chats and mailers strip blanks, squeeze them, or make tabs of them."""
    inside = False
    lines = [*text.split("\n"), ""]
    for number, line in enumerate(lines[:-1], 1):
        entry = re.match(r"[ \t]*([A-Za-z][\w .-]{0,252}):(.*)", line)
        if entry is None:
            continue
        key, value, next_line = entry[1], entry[2].strip(), lines[number].lstrip()
        depth = 0
        if key in (*_CONTAINERS, *_BEHIND):
            inside = key in _CONTAINERS
        elif key == "Name" and next_line.startswith("Namespace:"):  # not that of a volume
            inside = False
        elif key == "Name":
            continue
        elif inside and not value and next_line.startswith(("Container ID:", "Image:")):
            depth = 2
        elif inside:
            depth = 6 if key in _OF_STATE or key[0].islower() else 4
        yield number, depth, key, value


def _from_entries(entries: Iterable[_Entry]) -> Iterator[Ending]:
    pod: dict[str, str] = {}
    containers: list[tuple[int, str, dict[str, str]]] = []
    section, group, inside = "", "", False
    for number, depth, key, value in entries:
        if depth == 0:
            section = key
            if key == "Name" and inside:  # the next pod
                yield from _described(pod, containers)
                pod, containers = {}, []
            inside = inside or key in _CONTAINERS
            pod.setdefault(key, value)
        elif section in _CONTAINERS:
            if depth == 2:
                containers.append((number, key, {}))
            elif containers and depth == 4:
                group = key
                containers[-1][2].setdefault(key, value)
            elif containers and depth == 6:
                containers[-1][2].setdefault(f"{group}/{key}", value)
    yield from _described(pod, containers)


# A part of it that somebody cut out: a state that has ended, and what stands below it.
_STATE = (
    r"(?m)^[ \t]*(?:Last )?State:[ \t]+Terminated[ \t]*\n"
    rf"((?:[ \t]*(?:{'|'.join(_OF_STATE)}):[ \t].*(?:\n|\Z))+)"
)


def from_state(text: str) -> Iterator[Ending]:
    """The end of a container, of a description from which more than that was left out."""
    for line, found in fields.numbered(re.finditer(_STATE, text), text):
        said = dict(re.findall(r"(?m)^[ \t]*([A-Z][A-Za-z ]{1,20}):[ \t]+(.*?)[ \t]*$", found[1]))
        reason = said.get("Reason")
        if reason == "OOMKilled" or "Exit Code" in said:
            yield Ending(
                manager="kubernetes",
                line=line,
                reason=reason,
                exit_code=fields.number(said.get("Exit Code")),
                signal=fields.number(said.get("Signal")),
                oom_killed=None if reason is None else reason == "OOMKilled",
                started=fields.moment(said.get("Started")),
                finished=fields.moment(said.get("Finished")),
            )


def _described(pod: dict[str, str], containers: list[tuple[int, str, dict[str, str]]]) -> Iterator[Ending]:
    if containers and pod.get("Reason") == "Evicted":
        yield Ending(
            manager="kubernetes",
            line=containers[0][0],
            pod=pod.get("Name"),
            namespace=pod.get("Namespace"),
            qos=pod.get("QoS Class"),
            node=pod.get("Node", "").partition("/")[0] or None,
            state=pod.get("Status"),
            reason="Evicted",
            state_reason=pod.get("Message"),
        )
    for line, name, said in containers:
        if "Container ID" not in said and not said.keys() & {"State", "Last State"}:
            continue
        which = "State" if said.get("State") == "Terminated" else "Last State"
        reason = said.get(f"{which}/Reason")
        limits = "max" if "Restart Count" in said and "Limits" not in said else said.get("Limits/memory")
        yield Ending(
            manager="kubernetes",
            line=line,
            name=name,
            container_id=fields.identifier(said["Container ID"]) if "Container ID" in said else None,
            pod=pod.get("Name"),
            namespace=pod.get("Namespace"),
            qos=pod.get("QoS Class"),
            state=said.get("State"),
            state_reason=None if which == "State" else said.get("State/Reason"),
            reason=reason,
            exit_code=fields.number(said.get(f"{which}/Exit Code")),
            signal=fields.number(said.get(f"{which}/Signal")),
            oom_killed=None if reason is None else reason == "OOMKilled",
            memory_limit_bytes=fields.quantity(limits),
            restarts=fields.number(said.get("Restart Count")),
            started=fields.moment(said.get(f"{which}/Started")),
            finished=fields.moment(said.get(f"{which}/Finished")),
            runs_since=fields.moment(said.get("State/Started")) if said.get("State") == "Running" else None,
        )

"""Pasted words of container and service managers → how their workloads ended.

Read by shape: `docker inspect`, `podman inspect`, `docker events`, `podman events` (JSON), `ctr events`,
`kubectl get pod -o json`, `kubectl describe pod`, `systemctl status`, `systemctl show`; and lines of a journal in which
systemd, systemd-oomd or earlyoom tell of a kill.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, Literal

from reprieve.model.ending import Ending
from reprieve.model.oom import Stamp
from reprieve.oom.lines import Line, read_lines, stamp

Limit = int | Literal["max"] | None

# Without one of these words nothing here reads the text: most texts are searched once and left.
_JSON_WORDS = ('"OOMKilled"', '"containerStatuses"', '"Action"', '"Type"')
_JOURNAL_WORDS = ("killed by the OOM killer", " due to memory ", "sending SIG")
# unit_log_oom() in systemd's src/core/unit.c (since 244; "process(es)" of systemd-oomd since 248); monitor_*_contexts_
# handler() in src/oom/oomd-manager.c; kill_process() in earlyoom's kill.c.
_OF_SYSTEMD = r"(?P<unit>\S+): A process of this unit has been killed by the OOM killer\."
_OF_OOMD = r"Killed (?P<path>/.*?) due to (?P<reason>memory (?:pressure|used) .*)"
_OF_EARLYOOM = r'sending SIG(?P<signal>TERM|KILL) to process \d{1,10} uid \d{1,10} "(?P<comm>.*)": (?P<reason>.*)'
_SIGNALS = {"HUP": 1, "INT": 2, "QUIT": 3, "ILL": 4, "ABRT": 6, "BUS": 7, "FPE": 8, "KILL": 9, "SEGV": 11, "TERM": 15}
_UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50}
_UNITS |= {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15}
_FAILED_BYTES = 8 * 2**20  # what opens a bracket and is no JSON is read again from the next one: so much in all
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def read_endings(text: str) -> tuple[Ending, ...]:
    """Every container and unit the text tells the state of, in its order; none if it is no such text.

    >>> [(ending.name, ending.reason) for ending in read_endings("Id=nginx.service\\nResult=oom-kill\\n")]
    [('nginx.service', 'oom-kill')]
    """
    found: list[Ending] = []
    if any(word in text for word in _JSON_WORDS):
        found += _from_json(text)
    if "/tasks/" in text:
        found += _from_ctr_events(text)
    if "Container ID:" in text:
        found += _from_describe(text)
    if "Active: " in text:
        found += _from_status(text)
    if "Result=" in text:
        found += _from_show(text)
    if any(word in text for word in _JOURNAL_WORDS):
        told = {(ending.manager, ending.name) for ending in found}  # `systemctl status` quotes the journal
        found += [ending for ending in _from_journal(text) if (ending.manager, ending.name) not in told]
    return tuple(sorted(found, key=lambda ending: ending.line))


def _from_journal(text: str) -> Iterator[Ending]:
    """Lines that bear the name of who wrote them; anybody may have written it, as any line of a text."""
    for line in read_lines(text):
        if "systemd[1]: " in line.head:
            if match := re.fullmatch(_OF_SYSTEMD, line.text):
                yield _of_daemon("systemd", line, name=match["unit"], reason="killed by the OOM killer")
        elif re.search(r"systemd-oomd(?:\[\d+\])?: ", line.head):
            if match := re.fullmatch(_OF_OOMD, line.text):
                yield _of_daemon("systemd-oomd", line, name=match["path"].rpartition("/")[2], reason=match["reason"])
        elif re.search(r"earlyoom(?:\[\d+\])?: ", line.head) and (match := re.fullmatch(_OF_EARLYOOM, line.text)):
            name, number = match["comm"], _SIGNALS[match["signal"]]
            yield replace(_of_daemon("earlyoom", line, name=name, reason=match["reason"]), signal=number)


def _of_daemon(manager: str, line: Line, *, name: str, reason: str) -> Ending:
    when = stamp(line.head)
    return Ending(manager=manager, line=line.number, name=name, reason=reason, oom_killed=True, finished=when)


def _from_json(text: str) -> Iterator[Ending]:
    """Every JSON value that begins a line, whatever stands around it: a prompt, a command, another value."""
    from json import JSONDecodeError, JSONDecoder

    decode = JSONDecoder().raw_decode
    events: list[tuple[int, dict[str, Any]]] = []
    end = failed_bytes = 0
    for line, bracket in _numbered(re.finditer(r"(?m)^[ \t]*([\[{])", text), text):
        begin = bracket.start(1)
        if begin < end:
            continue
        if failed_bytes > _FAILED_BYTES:
            break
        try:
            value, end = decode(text, begin)
        except (ValueError, RecursionError) as error:  # another kind of bracket, or cut
            reached = text.find("\n", error.pos) if isinstance(error, JSONDecodeError) else -1
            failed_bytes += (reached if reached >= 0 else len(text)) - begin
            continue
        for item in value if isinstance(value, list) else [value]:
            if not isinstance(item, dict):
                continue
            if item.get("Type") == "container":
                events.append((line, item))
            else:
                yield from _from_object(item, line)
    yield from _from_events(events)


def _numbered(matches: Iterable[re.Match[str]], text: str) -> Iterator[tuple[int, re.Match[str]]]:
    """Each with the number of the line it begins in, counted on from the one before."""
    number, at = 1, 0
    for match in matches:
        number += text.count("\n", at, match.start())
        at = match.start()
        yield number, match


def _from_object(item: dict[str, Any], line: int) -> Iterator[Ending]:
    if "containerStatuses" in _object(item, "status"):
        yield from _from_pod(item, line)
    elif isinstance(item.get("items"), list):  # `kubectl get pods -o json`
        for pod in item["items"]:
            if isinstance(pod, dict):
                yield from _from_pod(pod, line)
    elif "OOMKilled" in item:  # docker inspect --format '{{json .State}}'
        yield _from_inspect({"State": item}, line)
    elif "OOMKilled" in _object(item, "State"):
        yield _from_inspect(item, line)


def _from_inspect(item: dict[str, Any], line: int) -> Ending:
    state, host = item["State"], _object(item, "HostConfig")
    ended = state.get("Running") is not True  # while it runs ExitCode is 0, and says nothing
    name = _text(item.get("Name"))
    return Ending(
        manager="podman" if "OciVersion" in state else "docker",
        line=line,
        name=None if name is None else name.removeprefix("/"),
        container_id=_text(item.get("Id")),
        state=_text(state.get("Status")),
        exit_code=_int(state.get("ExitCode")) if ended else None,
        oom_killed=_flag(state.get("OOMKilled")),
        memory_limit_bytes=_limit(host.get("Memory")),
        memory_and_swap_limit_bytes=_limit(host.get("MemorySwap")),
        restarts=_int(item.get("RestartCount")),
        started=_stamp(state.get("StartedAt")),
        finished=_stamp(state.get("FinishedAt")) if ended else None,
    )


def _from_pod(pod: dict[str, Any], line: int) -> Iterator[Ending]:
    """For each container its last end, and where it runs again, or waits to, that state too."""
    metadata, spec, status = (_object(pod, key) for key in ("metadata", "spec", "status"))
    limits = {
        _text(container.get("name")): _quantity(_object(_object(container, "resources"), "limits").get("memory", "max"))
        for key in ("initContainers", "containers")
        for container in _objects(spec, key)
    }
    for key in ("initContainerStatuses", "containerStatuses"):
        for container in _objects(status, key):
            name = _text(container.get("name"))
            now, before = _object(container, "state"), _object(container, "lastState")
            state = next(iter(now), None)
            end = _object(now, "terminated") or _object(before, "terminated")
            reason = _text(end.get("reason"))
            yield Ending(
                manager="kubernetes",
                line=line,
                name=name,
                container_id=_id(end.get("containerID") or container.get("containerID")),
                pod=_text(metadata.get("name")),
                namespace=_text(metadata.get("namespace")),
                pod_uid=_text(metadata.get("uid")),
                qos=_text(status.get("qosClass")),
                state=_text(state),
                state_reason=None if state == "terminated" else _text(_object(now, state or "").get("reason")),
                reason=reason,
                exit_code=_int(end.get("exitCode")),
                signal=_int(end.get("signal")),
                oom_killed=None if reason is None else reason == "OOMKilled",
                memory_limit_bytes=limits.get(name),
                restarts=_int(container.get("restartCount")),
                started=_stamp(end.get("startedAt")),
                finished=_stamp(end.get("finishedAt")),
            )


def _from_events(events: list[tuple[int, dict[str, Any]]]) -> Iterator[Ending]:
    """Docker tells of kills ("oom") before the end ("die"); Podman of the end alone ("died")."""
    killed: dict[str | None, Ending] = {}
    for line, event in events:
        podman = "Action" not in event
        action = _text(event.get("Status" if podman else "Action"))
        actor = _object(event, "Actor")
        about = _object(actor, "Attributes")
        container_id = _text(event.get("ID") if podman else actor.get("ID"))
        at = _stamp(event.get("Time")) if podman else _unix(event.get("time"))
        ending = Ending(
            manager="podman" if podman else "docker",
            line=line,
            name=_text(event.get("Name") if podman else about.get("name")),
            container_id=container_id,
        )
        if action == "oom":
            killed.setdefault(container_id, replace(ending, oom_killed=True))
        elif action in ("die", "died"):
            code = event.get("ContainerExitCode") if podman else about.get("exitCode")
            oom_killed = True if killed.pop(container_id, None) else None
            yield replace(ending, state=action, exit_code=_int(code), oom_killed=oom_killed, finished=at)
    yield from killed.values()  # it lives on, or the text ends before it does


def _from_ctr_events(text: str) -> Iterator[Ending]:
    """`TIME NAMESPACE /tasks/oom {"container_id":"c1"}`, and /tasks/exit; an exec in it has an id of its own."""
    from json import loads

    killed: dict[str | None, Ending] = {}
    for number, line in enumerate(text.split("\n"), 1):
        event = re.fullmatch(r"(\d{4}-\d\d-\d\d .{1,60}?) (\S+) /tasks/(oom|exit) (\{.*\})\s*", line)
        if event is None:
            continue
        try:
            about = loads(event[4])
        except (ValueError, RecursionError):
            continue
        container_id = _text(about.get("container_id"))
        ending = Ending(manager="containerd", line=number, container_id=container_id, namespace=event[2])
        if event[3] == "oom":
            killed.setdefault(container_id, replace(ending, oom_killed=True))
        elif about.get("id") == about.get("container_id"):
            yield replace(
                ending,
                state="exited",
                exit_code=_int(about.get("exit_status")),
                oom_killed=True if killed.pop(container_id, None) else None,
                finished=_stamp(about.get("exited_at")),
            )
    yield from killed.values()


def _from_describe(text: str) -> Iterator[Ending]:
    """`kubectl describe pod`: what a key belongs to is told by how far it stands in."""
    pod: dict[str, str] = {}
    containers: list[tuple[int, str, dict[str, str]]] = []
    section, group, inside = "", "", False
    for number, line in enumerate(text.split("\n"), 1):
        entry = re.match(r"( *)([A-Za-z][\w .-]{0,252}):(.*)", line)
        if entry is None:
            continue
        depth, key, value = len(entry[1]), entry[2], entry[3].strip()
        if depth == 0:
            section = key
            if key == "Name" and inside:  # the next pod
                yield from _described(pod, containers)
                pod, containers = {}, []
            inside = inside or key in ("Containers", "Init Containers")
            pod.setdefault(key, value)
        elif section in ("Containers", "Init Containers"):
            if depth == 2:
                containers.append((number, key, {}))
            elif containers and depth == 4:
                group = key
                containers[-1][2].setdefault(key, value)
            elif containers and depth == 6:
                containers[-1][2].setdefault(f"{group}/{key}", value)
    yield from _described(pod, containers)


def _described(pod: dict[str, str], containers: list[tuple[int, str, dict[str, str]]]) -> Iterator[Ending]:
    for line, name, said in containers:
        if "Container ID" not in said:
            continue
        which = "State" if said.get("State") == "Terminated" else "Last State"
        reason = said.get(f"{which}/Reason")
        limits = "max" if "Restart Count" in said and "Limits" not in said else said.get("Limits/memory")
        yield Ending(
            manager="kubernetes",
            line=line,
            name=name,
            container_id=_id(said["Container ID"]),
            pod=pod.get("Name"),
            namespace=pod.get("Namespace"),
            qos=pod.get("QoS Class"),
            state=said.get("State"),
            state_reason=None if which == "State" else said.get("State/Reason"),
            reason=reason,
            exit_code=_int(said.get(f"{which}/Exit Code")),
            signal=_int(said.get(f"{which}/Signal")),
            oom_killed=None if reason is None else reason == "OOMKilled",
            memory_limit_bytes=_quantity(limits),
            restarts=_int(said.get("Restart Count")),
            started=_stamp(said.get(f"{which}/Started")),
            finished=_stamp(said.get(f"{which}/Finished")),
        )


def _from_status(text: str) -> Iterator[Ending]:
    """`systemctl status`: a unit's line begins with its dot, or since 247 with what became of it."""
    heads = list(re.finditer(r"(?m)^[●○×*↻•] (\S{1,256}\.\w{4,9})\b.*$", text))
    ends = [head.start() for head in heads[1:]] + [len(text)]  # without a head one too many
    for (line, head), end in zip(_numbered(heads, text), ends, strict=False):
        body = text[head.end() : end]
        active = re.search(r"(?m)^ +Active: (\S+)(?: \([^()\n]*?(?:Result: ([\w-]+))?\))?(?: since ([^;\n]+))?", body)
        if active is None:
            continue
        main = re.search(r"(?m)^ +Main PID: \d+ .*?\(?code=(\w+), (?:signal|status)=(\w+)", body)
        code, status = (main[1], main[2]) if main else (None, None)
        yield Ending(
            manager="systemd",
            line=line,
            name=head[1],
            state=active[1],
            reason=active[2],
            exit_code=_int(status) if code == "exited" else None,
            signal=_SIGNALS.get(status or "") if code in ("killed", "dumped") else None,
            oom_killed=None if active[2] is None else active[2] == "oom-kill",
            finished=_stamp(active[3]) if active[1] in ("failed", "inactive") else None,
        )


def _from_show(text: str) -> Iterator[Ending]:
    """`systemctl show`: KEY=VALUE lines, an empty one between units."""
    first, said = 1, dict[str, str]()
    for number, line in enumerate([*text.split("\n"), ""], 1):
        entry = re.match(r"([A-Z][A-Za-z]{1,60})=(.*)", line)
        if entry is not None:
            first = first if said else number
            said.setdefault(entry[1], entry[2].strip())
            continue
        if "Result" in said and said.keys() & {"Id", "ActiveState", "ExecMainStatus", "MemoryMax"}:
            yield _shown(said, first)
        said = {}


def _shown(said: dict[str, str], line: int) -> Ending:
    code, status = (
        said.get("ExecMainCode"),
        _int(said.get("ExecMainStatus")),
    )  # CLD_EXITED 1, CLD_KILLED 2, CLD_DUMPED 3
    limit = said.get("MemoryMax") or said.get("MemoryLimit")  # the latter is of cgroup v1
    return Ending(
        manager="systemd",
        line=line,
        name=said.get("Id"),
        state=said.get("ActiveState"),
        reason=said["Result"] or None,
        exit_code=status if code == "1" else None,
        signal=status if code in ("2", "3") else None,
        oom_killed=said["Result"] == "oom-kill",
        memory_limit_bytes="max" if limit == "infinity" else _int(limit),
        restarts=_int(said.get("NRestarts")),
        started=_stamp(said.get("ExecMainStartTimestamp")),
        finished=_stamp(said.get("ExecMainExitTimestamp")),
    )


def _object(parent: dict[str, Any], key: str) -> dict[str, Any]:
    value = parent.get(key)
    return value if isinstance(value, dict) else {}


def _objects(parent: dict[str, Any], key: str) -> list[dict[str, Any]]:
    value = parent.get(key)
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _text(value: object) -> str | None:
    """Valid text: JSON can spell half a surrogate pair."""
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) and value else None


def _int(value: object) -> int | None:
    """A number of at most 64 bits; None for a larger one: no manager writes it, and no float may hold it."""
    if isinstance(value, str):
        value = int(value) if re.fullmatch(r"-?\d{1,19}", value) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 63 else None


def _flag(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _limit(value: object) -> Limit:
    """Docker's and Podman's: 0 is none, and so is -1 for swap."""
    number = _int(value)
    return "max" if number is not None and number <= 0 else number


def _quantity(value: object) -> Limit:
    """A Kubernetes quantity of memory: 64Mi, 1G, 67108864."""
    if value == "max":
        return "max"
    amount = re.fullmatch(r"(\d{1,18}(?:\.\d{1,9})?)([KMGTP]i|[kMGTP]?)", str(value))
    return int(float(amount[1]) * _UNITS[amount[2]]) if amount else None


def _id(value: object) -> str | None:
    """A container's id without the runtime before it: docker://4f1c…"""
    text = _text(value)
    return None if text is None else text.rpartition("://")[2]


def _stamp(value: object) -> Stamp | None:
    """A date of any manager; None for the year 1, with which Go says "never"."""
    text = _text(value)
    if text is None or text.startswith("0001-"):
        return None
    kubectl = re.fullmatch(r"\w{3}, (\d\d) (\w{3}) (\d{4}) (\d\d:\d\d:\d\d [+-]\d{4})", text)
    if kubectl and kubectl[2] in _MONTHS:
        told = stamp(f"{kubectl[3]}-{_MONTHS.index(kubectl[2]) + 1:02}-{kubectl[1]} {kubectl[4]}")
        return replace(told, text=text)
    told = stamp(text)
    return told if told.text is not None else None


def _unix(value: object) -> Stamp | None:
    seconds = _int(value)
    return None if seconds is None else Stamp(text=str(seconds), wall_s=float(seconds), certain=True)

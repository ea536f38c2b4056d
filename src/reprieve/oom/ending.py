"""Pasted words of container and service managers → how their workloads ended.

Read by shape: `docker inspect`, `podman inspect`, `docker events`, `podman events`, `crictl inspect` (JSON), `ctr
events`, what kubectl prints of pods and events (`kubernetes.py`), `systemctl status`, `systemctl show`; and lines of a
journal in which systemd, systemd-oomd, earlyoom or nohang (`nohang.py`) tell of a kill.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from reprieve.model.ending import Ending
from reprieve.oom import fields
from reprieve.oom.line import Line
from reprieve.oom.lines import read_lines, stamp
from reprieve.oom.moments import elapsed_s

if TYPE_CHECKING:
    from reprieve.oom.probes import ProbeKill

# Without one of these words nothing here reads the text: most texts are searched once and left.
_JSON_WORDS = (
    '"OOMKilled"',
    '"terminated"',
    '"exitCode"',
    '"CONTAINER_EXITED"',
    '"CONTAINER_RUNNING"',
    '"containerStatuses"',
    '"Action"',
    '"Type"',
    '"SystemOOM"',
    '"OOMKilling"',
    '"Killing"',
    '"Evicted"',
)
_YAML_WORDS = (
    *("ontainerStatuses:", "tate:\n", "terminated:\n", "state: CONTAINER_"),
    *("reason: Evicted", "reason: SystemOOM", "reason: OOMKilling", "reason: Killing"),
)
_KUBECTL_WORDS = (
    "Container ID:",
    "State:",
    "System OOM encountered",
    "OOMKilling",
    "Evicted",
    " failed liveness probe",
    " failed startup probe",
)
_JOURNAL_WORDS = (
    "killed by the OOM killer",
    "OOM killer killed some",
    "systemd-oomd killed",
    " due to memory ",
    "sending SIG",
    "Sending SIG",
    "with result 'oom-kill'",
    "System OOM encountered, victim process: ",
)
# In systemd's src/core/unit.c: of the kernel's kills since 244, later in other words, of systemd-oomd's since 248;
# monitor_*_contexts_handler() in src/oom/oomd-manager.c, of which a pager cuts the end; kill_process() in earlyoom's
# kill.c.
_VOICE = r"\s*((?:systemd|systemd-oomd|earlyoom)(?:\[\d{1,10}\])?: )"
_ECHO = "killed "
_OF_SYSTEMD = (
    r"(?P<unit>\S+): (?:A process of this unit has been killed by the OOM killer"
    r"|The kernel OOM killer killed some processes in this unit"
    rf"|systemd-oomd (?P<oomd>{_ECHO}.{{1,20}} process\(es\) in this unit))\."
)
# Since 243, behind the former or alone: unit_log_failure() in the same file; journalctl -o cat leaves the voice out.
_RESULT = "oom-kill"
_FAILED = rf"(?P<unit>\S{{1,256}}\.(?:service|scope|slice|socket|mount|swap)): Failed with result '{_RESULT}'\."
_MAIN_KILLED = r"(?P<unit>\S{1,256}): Main process exited, code=killed, status=9/KILL"
# The event of a kubelet in its own log, as client-go or klog writes it, or its bare words.
_KUBELET = r"(?:^|\s)(?:kubelet|kubelite|k3s|rke2|\S*daemon-kubelite)(?:\[\d+\])?: $"
_OF_KUBELET = (
    r"(?:^|message=\"|reason: 'SystemOOM' )System OOM encountered, victim process: (?P<comm>.{1,64}), "
    r"pid: (?P<pid>\d{1,10})\"?\s*$"
)
_OF_NODE = r"\bobject=\"/?([^\s\"]{1,253})\"|Kind:\"Node\", Namespace:\"\", Name:\"([^\s\"]{1,253})\""
_OF_OOMD = r"Killed (?P<path>/.*?) due to (?P<reason>memory (?:pressure|used) .*|memory.{0,12}>$)"
_OF_EARLYOOM = (
    r'sending SIG(?P<signal>TERM|KILL) to process (?P<pid>\d{1,10}) uid \d{1,10} "(?P<comm>.*)": (?P<reason>.*)'
)
_SIGNALS = {"HUP": 1, "INT": 2, "QUIT": 3, "ILL": 4, "ABRT": 6, "BUS": 7, "FPE": 8, "KILL": 9, "SEGV": 11, "TERM": 15}
# As prettyPrintEvent() in cli/command/system/events.go of docker/cli has it, unless --format asks for JSON.
_DOCKER_EVENT = r"(?m)^(\d{4}-\d\d-\d\dT\S{1,40}) container (oom|die|kill) ([0-9a-f]{12,64}) \((.*)$"
_ONE_END_S = 60.0  # between the signals for one process, and the words of two about one kill
_FAILED_BYTES = 8 * 2**20  # what opens a bracket and is no JSON is read again from the next one: so much in all


_QUOTE = r"(?m)^[ \t]*(?:[>|] ?)+"  # a mail, a ticket, a chat
# What may stand for itself where somebody cut it out of a status, or cut the rest away.
_PARTS = ("State", "state", "lastState", "terminated", "containerStatuses", "initContainerStatuses")


def read_endings(text: str, unread: list[int] | None = None) -> tuple[Ending, ...]:
    """Every container and unit the text tells the state of, in its order; none if it is no such text.

    `unread` is told the lines where YAML begins that is given up, as it would take too long.

    >>> [(ending.name, ending.reason) for ending in read_endings("Id=nginx.service\\nResult=oom-kill\\n")]
    [('nginx.service', 'oom-kill')]
    """
    text = _unquoted(text)
    found: list[Ending] = []
    kills: list[ProbeKill] = []
    if any(word in text for word in _JSON_WORDS):
        found += _from_json(text, kills)
    if any(word in text for word in _YAML_WORDS):
        from reprieve.oom.manifest import objects

        given_up = [] if unread is None else unread
        found += (ending for line, item in objects(text, given_up) for ending in _from_object(item, line, kills))
    if "/tasks/" in text:
        found += _from_ctr_events(text)
    if " container " in text:
        found += _from_events(_docker_events(text), "docker")
    if any(word in text for word in _KUBECTL_WORDS):
        found += _from_kubectl(text, kills)
    if "Active: " in text:
        found += _from_status(text)
    if "Result=" in text:
        found += _from_show(text)
    if kills:
        from reprieve.oom import probes

        found = [*probes.told_with(found, kills), *probes.told_alone(found, kills)]
    if any(word in text for word in _JOURNAL_WORDS):
        told = {(ending.manager, ending.name) for ending in found}  # `systemctl status` quotes the journal
        found += [ending for ending in _from_journal(text) if (ending.manager, ending.name) not in told]
    return tuple(_each_once(sorted(found, key=lambda ending: ending.line)))


def _unquoted(text: str) -> str:
    """The same lines without what a mail or a ticket put before them, and with blanks and quotation marks as typed."""
    text = text.replace("\r\n", "\n").replace("\xa0", " ").replace("\t", "  ")
    if "“OOMKilled”" in text:
        text = re.sub("[“”]", '"', text)
    return re.sub(_QUOTE, "", text) if ">" in text or "|" in text else text


def _each_once(endings: Iterable[Ending]) -> Iterator[Ending]:
    """The same; a kill that a kubelet tells of again, and an eviction that stands in a status and in events, once."""
    seen: set[tuple[object, ...]] = set()
    for ending in endings:
        key: tuple[object, ...] | None = None
        if ending.node is not None and ending.pid is not None:
            key = (ending.manager, ending.node, ending.pid, ending.name)
        elif ending.reason == "Evicted" and ending.pod is not None:
            key = (ending.pod,)
        if key is None or key not in seen:
            yield ending
        seen.add(key or ())


def _from_kubectl(text: str, kills: "list[ProbeKill]") -> Iterator[Ending]:
    from reprieve.oom import kubernetes, probes

    kills += probes.from_rows(text)
    described = list(kubernetes.from_describe(text))
    yield from described or kubernetes.from_state(text)
    yield from kubernetes.from_rows(text)


def _from_journal(text: str) -> Iterator[Ending]:
    """Each end once: one that does not obey is sent a second signal, and systemd repeats what systemd-oomd tells."""
    told = list(_from_lines(text))
    places = range(len(told))
    echoes = {*_echoes(told, places), *_echoes(told, reversed(places))}  # either may stand first
    last: dict[tuple[object, ...], int] = {}
    ends: dict[int, Ending] = {}
    for at in places:
        ending = told[at]
        if at in echoes:
            continue
        ends[at] = ending
        if ending.pid is None:
            continue
        whose = ending.manager, ending.pid, ending.name
        if whose in last and _are_one(told, last[whose], at):
            del ends[last[whose]]
        last[whose] = at
    yield from ends.values()


def _echoes(told: list[Ending], places: Iterable[int]) -> Iterator[int]:
    """Where systemd tells of what systemd-oomd did, if that itself told it shortly before, in this order of places; and
    that a unit failed, if either has told of what it failed for.
    """
    by_itself: dict[str | None, int] = {}
    told_of: dict[str | None, int] = {}
    for at in places:
        ending = told[at]
        if _is_result(ending):
            if ending.name in told_of and _are_one(told, told_of[ending.name], at):
                yield at
            continue
        if _is_echo(ending):
            if ending.name in by_itself and _are_one(told, by_itself[ending.name], at):
                yield at
        elif ending.manager == "systemd-oomd":
            by_itself[ending.name] = at
        told_of[ending.name] = at


def _are_one(told: list[Ending], one: int, other: int) -> bool:
    """Within a minute, whichever came first; where the dates do not tell, as neighbours."""
    first, second = told[one].finished, told[other].finished
    apart_s = None
    if first is not None and second is not None:
        apart_s = elapsed_s(first, second)
        apart_s = elapsed_s(second, first) if apart_s is None else apart_s
    return abs(one - other) == 1 if apart_s is None else apart_s <= _ONE_END_S


def _is_echo(ending: Ending) -> bool:
    """Did systemd tell it of systemd-oomd, and not that itself, which tells why?"""
    return ending.manager == "systemd-oomd" and (ending.reason or "").startswith(_ECHO)


def _is_result(ending: Ending) -> bool:
    """Is it told as what a unit failed with?"""
    return ending.manager == "systemd" and ending.reason == _RESULT


def _failed(line: Line, killed: set[str]) -> Ending | None:
    """A unit that failed for a kill; None: it is another line. `killed`: whose first process was, gathered here."""
    if (main := re.match(_MAIN_KILLED, line.text)) is not None:
        killed.add(main["unit"])
    match = re.fullmatch(_FAILED, line.text.rstrip())
    if match is None:
        return None
    unit = match["unit"]
    signal = _SIGNALS["KILL"] if unit in killed else None
    killed.discard(unit)
    return replace(_of_daemon("systemd", line, name=unit, reason=_RESULT), state="failed", signal=signal)


def _of_kubelet(line: Line) -> Ending | None:
    """A process of which a kubelet read in the kernel log of its node; None: it is another line."""
    match = re.search(_OF_KUBELET, line.text)
    if match is None:
        return None
    node = re.search(_OF_NODE, line.text)
    told = _of_daemon("kubelet", line, name=match["comm"], reason="SystemOOM")
    return replace(told, pid=int(match["pid"]), node=None if node is None else node[1] or node[2])


def _from_lines(text: str) -> Iterator[Ending]:
    """Lines that bear the name of who wrote them; anybody may have written it, as any line of a text."""
    from reprieve.oom.nohang import Blocks

    blocks, killed = Blocks(), set[str]()
    for line in map(_voiced, read_lines(text)):
        if re.search(r"(?:^|\s)systemd(?:\[\d+\])?: $", line.head):  # that of a user too
            match = re.fullmatch(_OF_SYSTEMD, line.text)
            if match is not None and match["oomd"] is not None:
                yield _of_daemon("systemd-oomd", line, name=match["unit"], reason=match["oomd"])
            elif match is not None:
                yield _of_daemon("systemd", line, name=match["unit"], reason="killed by the OOM killer")
            elif (failed := _failed(line, killed)) is not None:
                yield failed
        elif re.search(r"systemd-oomd(?:\[\d+\])?: ", line.head):
            if match := re.match(_OF_OOMD, line.text):
                yield _of_daemon("systemd-oomd", line, name=match["path"].rpartition("/")[2], reason=match["reason"])
        elif re.search(r"earlyoom(?:\[\d+\])?: ", line.head):
            if match := re.fullmatch(_OF_EARLYOOM, line.text):
                told = _of_daemon("earlyoom", line, name=match["comm"], reason=match["reason"])
                yield replace(told, pid=int(match["pid"]), signal=_SIGNALS[match["signal"]])
        elif (ending := blocks.add(line)) is not None:
            yield ending
        elif not line.head and (failed := _failed(line, killed)) is not None:
            yield failed
        elif (not line.head or re.search(_KUBELET, line.head)) and (of_node := _of_kubelet(line)) is not None:
            yield of_node
    if (ending := blocks.left()) is not None:
        yield ending


def _voiced(line: Line) -> Line:
    """With its writer as its head, where somebody left out the date."""
    voice = None if line.head else re.match(_VOICE, line.text)
    return line if voice is None else line._replace(head=voice[1], text=line.text[voice.end() :])


def _of_daemon(manager: str, line: Line, *, name: str, reason: str) -> Ending:
    when = stamp(line.head)
    dated = None if when.text is None and when.uptime_s is None else when
    return Ending(manager=manager, line=line.number, name=name, reason=reason, oom_killed=True, finished=dated)


def _from_json(text: str, kills: "list[ProbeKill]") -> Iterator[Ending]:
    """Every JSON value that begins a line, whatever stands around it: a prompt, a command, another value.

    To `kills` is added what kubelets were about to do.
    """
    from json import JSONDecodeError, JSONDecoder

    decode = JSONDecoder().raw_decode
    events: list[tuple[int, dict[str, Any]]] = []
    end = failed_bytes = 0
    for line, bracket in fields.numbered(
        re.finditer(rf'(?m)^[ \t]*(?:"({"|".join(_PARTS)})"\s?:\s?)?([\[{{])', text), text
    ):
        begin = bracket.start(2)
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
        if bracket[1] is not None:
            value = {bracket[1]: value}
        for item in value if isinstance(value, list) else [value]:
            if not isinstance(item, dict):
                continue
            if item.get("Type") == "container":
                events.append((line, item))
            else:
                yield from _from_object(item, line, kills)
    yield from _from_events(events)


def _from_object(item: dict[str, Any], line: int, kills: "list[ProbeKill]") -> Iterator[Ending]:
    if isinstance(item.get("items"), list):  # `kubectl get pods -o json`, and events
        for one in fields.tables(item, "items"):
            yield from _from_kubernetes(one, line, kills)
    elif str(fields.table(item, "status").get("state")).startswith("CONTAINER_"):  # crictl inspect
        yield _from_cri(item, line)
    elif "metadata" in item or "containerStatuses" in fields.table(item, "status"):
        yield from _from_kubernetes(item, line, kills)
    elif "OOMKilled" in item:  # docker inspect --format '{{json .State}}'
        yield _from_inspect({"State": item}, line)
    elif "OOMKilled" in fields.table(item, "State"):
        yield _from_inspect(item, line)
    else:
        yield from _from_part(item, line)


def _from_part(item: dict[str, Any], line: int) -> Iterator[Ending]:
    """What was cut out of a pod: statuses of containers, one of them, its state, the end that this tells."""
    from reprieve.oom import kubernetes

    if "exitCode" in item and "finishedAt" in item:
        item = {"terminated": item}
    if "exitCode" in fields.table(item, "terminated"):
        item = {"lastState": item}
    ends = (fields.table(fields.table(item, key), "terminated") for key in ("state", "lastState"))
    if any("exitCode" in end for end in ends):
        item = {"containerStatuses": [item]}
    parts = {key: item[key] for key in ("initContainerStatuses", "containerStatuses") if key in item}
    yield from kubernetes.from_pod({"status": parts}, line)


def _from_kubernetes(item: dict[str, Any], line: int, kills: "list[ProbeKill]") -> Iterator[Ending]:
    from reprieve.oom import kubernetes, probes

    if "involvedObject" not in item:
        yield from kubernetes.from_pod(item, line)
        return
    kills += probes.from_event(item, line)
    yield from kubernetes.from_event(item, line)


def _from_inspect(item: dict[str, Any], line: int) -> Ending:
    state, host = item["State"], fields.table(item, "HostConfig")
    ended = state.get("Running") is not True  # while it runs ExitCode is 0, and says nothing
    name = fields.text(item.get("Name"))
    return Ending(
        manager="podman" if "OciVersion" in state else "docker",
        line=line,
        name=None if name is None else name.removeprefix("/"),
        container_id=fields.text(item.get("Id")),
        state=fields.text(state.get("Status")),
        exit_code=fields.number(state.get("ExitCode")) if ended else None,
        oom_killed=fields.flag(state.get("OOMKilled")),
        memory_limit_bytes=fields.limit(host.get("Memory")),
        memory_and_swap_limit_bytes=fields.limit(host.get("MemorySwap")),
        restarts=fields.number(item.get("RestartCount")),
        started=fields.moment(state.get("StartedAt")),
        finished=fields.moment(state.get("FinishedAt")) if ended else None,
    )


def _from_cri(item: dict[str, Any], line: int) -> Ending:
    """ContainerStatus of the Container Runtime Interface, as crictl prints it; what is started again has another id.

    Source: api.proto of k8s.io/cri-api, and ContainerStatus.Reason in containerd and CRI-O: "OOMKilled", "Error", …
    """
    status = item["status"]
    labels, ended = fields.table(status, "labels"), status["state"] == "CONTAINER_EXITED"
    linux = fields.table(fields.table(status, "resources"), "linux")
    limit = linux.get("memoryLimitInBytes", linux.get("memory_limit_in_bytes"))
    reason = fields.text(status.get("reason")) if ended else None
    return Ending(
        manager="cri",
        line=line,
        name=fields.text(fields.table(status, "metadata").get("name")),
        container_id=fields.text(status.get("id")),
        pod=fields.text(labels.get("io.kubernetes.pod.name")),
        namespace=fields.text(labels.get("io.kubernetes.pod.namespace")),
        pod_uid=fields.text(labels.get("io.kubernetes.pod.uid")),
        state=str(status["state"]).removeprefix("CONTAINER_").lower(),
        reason=reason,
        exit_code=fields.number(status.get("exitCode")) if ended else None,
        oom_killed=None if reason is None else reason == "OOMKilled",
        memory_limit_bytes=fields.limit(limit),
        started=fields.moment(status.get("startedAt")),
        finished=fields.moment(status.get("finishedAt")) if ended else None,
    )


def _from_events(events: Iterable[tuple[int, dict[str, Any]]], manager: str | None = None) -> Iterator[Ending]:
    from reprieve.oom.containers import Ends

    ends = Ends()
    for line, event in events:
        if (ending := ends.add(event, line, manager)) is not None:
            yield ending
    yield from ends.left()  # it lives on, or the text ends before it does


def _docker_events(text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """`TIME container ACTION ID (exitCode=137, image=web, name=web1)`, as events that `Ends` reads.

    Labels stand there too, and may hold anything: what is told twice is left out.
    """
    for line, event in fields.numbered(re.finditer(_DOCKER_EVENT, text), text):
        told: dict[str, str | None] = {}
        about = event[4].rstrip().removesuffix(")")  # a label may hold a line's end
        for name, value in re.findall(r"(?:^|, )(exitCode|name|signal)=([^,]*)", about):
            told[name] = None if name in told else value
        yield (
            line,
            {
                "Time": event[1],
                "Status": event[2],
                "ID": event[3],
                "Name": told.get("name"),
                "ContainerExitCode": told.get("exitCode"),
                "Actor": {"Attributes": told},
            },
        )


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
        container_id = fields.text(about.get("container_id"))
        ending = Ending(manager="containerd", line=number, container_id=container_id, namespace=event[2])
        if event[3] == "oom":
            killed.setdefault(container_id, replace(ending, oom_killed=True))
        elif about.get("id") == about.get("container_id"):
            yield replace(
                ending,
                state="exited",
                exit_code=fields.number(about.get("exit_status")),
                oom_killed=True if killed.pop(container_id, None) else None,
                finished=fields.moment(about.get("exited_at")),
            )
    yield from killed.values()


def _from_status(text: str) -> Iterator[Ending]:
    """`systemctl status`: a unit's line begins with its dot, or since 247 with what became of it."""
    heads = list(re.finditer(r"(?m)^[●○×*↻•] (\S{1,256}\.\w{4,9})\b.*$", text))
    ends = [head.start() for head in heads[1:]] + [len(text)]  # without a head one too many
    for (line, head), end in zip(fields.numbered(heads, text), ends, strict=False):
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
            exit_code=fields.number(status) if code == "exited" else None,
            signal=_SIGNALS.get(status or "") if code in ("killed", "dumped") else None,
            oom_killed=None if active[2] is None else active[2] == "oom-kill",
            finished=fields.moment(active[3]) if active[1] in ("failed", "inactive") else None,
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
        fields.number(said.get("ExecMainStatus")),
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
        memory_limit_bytes="max" if limit == "infinity" else fields.number(limit),
        restarts=fields.number(said.get("NRestarts")),
        started=fields.moment(said.get("ExecMainStartTimestamp")),
        finished=fields.moment(said.get("ExecMainExitTimestamp")),
    )

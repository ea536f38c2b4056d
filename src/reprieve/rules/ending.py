"""What managers say of an end, and what that proves: Docker, Podman, containerd, Kubernetes, systemd."""

import re
from collections.abc import Iterator

from reprieve.model.ending import FAILED_LIVENESS, FAILED_STARTUP, KILL, OF_A_PROCESS, OOM, Ending
from reprieve.model.finding import Evidence, Finding, Remedy, quote
from reprieve.model.oom import OomReport, OomSummary, Stamp
from reprieve.model.snapshot import Snapshot
from reprieve.oom.same import NODE_AGENTS, is_about
from reprieve.units import size, utc

SIGKILL = 9
_JOURNAL = "killed by the OOM killer"  # systemd's words in the journal; in a status it says "oom-kill"
_MANAGERS = {
    "docker": "Docker",
    "podman": "Podman",
    "kubernetes": "Kubernetes",
    "kubelet": "The kubelet",
    "cri": "The container runtime",
}  # the others write themselves small
_DIED = ("die", "died")  # an engine's event, rather than a state
_ENDED = ("exited", "dead", "stopped", "terminated", "failed", "inactive")
_ENDS_WITHIN_S = 60.0  # of the kill; where only a child was killed the container may live on for days
_CLOCKS_DIFFER_S = 2.0  # dates of logs are of whole seconds
_ID_LENGTH = 12  # of a container's id: what `docker ps` shows, and enough to find it in a path
DAEMONS = {  # that kill by themselves, and what of them is to be known
    "systemd-oomd": "`oomctl` shows what it watches, and at what pressure it acts.",
    "earlyoom": "`systemctl cat earlyoom` shows at what levels it acts.",
    "nohang": "At what levels it acts stands in /etc/nohang/nohang.conf, of nohang-desktop in nohang-desktop.conf: "
    "soft_threshold_min_mem and soft_threshold_min_swap for SIGTERM, and SIGKILL behind it for who has not ended in "
    "max_soft_exit_time; hard_… for SIGKILL at once. Lower ones let it act later, once it is restarted.",
}
_NO_REPORT = "The kernel log has no report of it: it is no kill by the kernel."
_DAEMON = "a daemon such as earlyoom or nohang"
_OTHERS = {  # who else sends SIGKILL
    "docker": f"docker stop (after 10 s), docker kill, docker rm -f, a person, or {_DAEMON}",
    "podman": f"podman stop (after 10 s), podman kill, podman rm -f, a person, or {_DAEMON}",
    "containerd": f"whoever stops containers in it, a person, or {_DAEMON}",
    "kubernetes": "the kubelet when the grace period is over (a failed liveness probe, an eviction, a deletion, a "
    f"drain), a person, or {_DAEMON}",
    "cri": f"the kubelet when the grace period is over, crictl stop, a person, or {_DAEMON}",
    "systemd": f"systemctl kill, a person, or {_DAEMON}",
}
_FALSE = {  # why "not for memory" does not settle it
    "docker": "OOMKilled is false: no limit of its own was reached, yet on cgroup v1 Docker is not told of kills on a "
    "machine that is full.",
    "podman": "OOMKilled is false, which says nothing: Podman before 5 never sets it.",
    "cri": "The reason is not OOMKilled: a runtime says so only if it heard of the kill before the end.",
    "systemd": "Result is not oom-kill: on cgroup v2 that would rule memory out, on v1 systemd is told of no kill.",
}


def ended_by_oom(snapshot: Snapshot) -> Iterator[Finding]:
    """The manager says that a process was killed for memory: OOMKilled is true, or Result=oom-kill.

    That proves the kill, and little else. Any process of the container or unit may have died, not the first one alone:
    where a child was killed, the exit status can be 0. Which process it was, what held the memory, and whether it was
    this limit, a parent's or the whole machine stands in the kernel log of that host alone. For systemd it can also
    have been systemd-oomd, which acts before the kernel does: then the kernel log has no report.

    Source: mem_cgroup_oom() in mm/memcontrol.c, memory.events in Documentation/admin-guide/cgroup-v2.rst; OOMPolicy= in
    systemd.service(5).
    """
    for endings in _by_workload(snapshot.endings):
        last = endings[-1]
        if not last.oom_killed or last.manager in (*DAEMONS, *NODE_AGENTS) or _is_in_the_kernels_words(last, snapshot):
            continue
        often = _often(endings)
        what = "lost a process for memory" if last.reason != OOM else "ran out of memory"
        yield Finding(
            code="ended-by-oom",
            severity="critical",
            confidence="certain",
            claim=f"{_manager(last)} says that {_workload(last)} {what}{often} ({_flag(last)})",
            detail=(*_when(endings), *_about_kill(last), *_in_the_logs(last, snapshot)),
            evidence=tuple(map(_evidence, endings)),
            remedies=(_look("Ask the kernel log of its host which process it was, and what held the memory", last),),
        )


def killed_by_daemon(snapshot: Snapshot) -> Iterator[Finding]:
    """systemd-oomd, earlyoom or nohang killed it, before the kernel had to.

    The kernel log has no report of such a kill. systemd-oomd ends a whole cgroup: for pressure (the time its processes
    stood still for memory), or for swap that is nearly used up. earlyoom and nohang end one process when little memory
    and swap are left, nohang for pressure too where it is told so: by SIGTERM, which a process may take its time with
    (status 143), and by SIGKILL (137) when less is left, or when it does not end. The memory may have been full, or
    close to it; what it was full of only the time before can tell.

    Source: systemd-oomd.service(8), oomd.conf(5); earlyoom(1); nohang(8).
    """
    for endings in _by_workload(snapshot.endings):
        last = endings[-1]
        about = DAEMONS.get(last.manager)
        if about is None:
            continue
        often = _often(endings)
        yield Finding(
            code="killed-by-daemon",
            severity="critical",
            confidence="certain",
            claim=f"{last.manager} killed {_victim(last)}{often}, before the kernel had to",
            detail=(*_when(endings), f"Its words: {quote(last.reason or '')}", f"{_NO_REPORT} {about}"),
            evidence=tuple(map(_evidence, endings)),
        )


def _victim(ending: Ending) -> str:
    """`press.service`, `process eater (pid 443, by SIGTERM)`."""
    name = quote(ending.name or "")
    if ending.manager not in OF_A_PROCESS:
        return name
    pid = "" if ending.pid is None else f"pid {ending.pid}, "
    return f"process {name} ({pid}by {'SIGKILL' if ending.signal == SIGKILL else 'SIGTERM'})"


def manager_agrees(snapshot: Snapshot) -> Iterator[Finding]:
    """The status of the container, pod or node that was read with the log tells of this very kill.

    They are joined by the container's id in the path of the cgroup, else by the UID of the pod, and a kubelet's words
    by the process. The kernel's report says more than any status does.

    Source: the paths that container engines and the kubelet make: `-v` shows that of the victim.
    """
    for index, oom, ending in _joined(snapshot):
        if ending.oom_killed is not False and not _is_another_time(ending, oom):
            yield Finding(
                code="manager-agrees",
                severity="info",
                confidence="certain",
                claim=f"{_manager(ending)} says so too: {_status(ending)}",
                detail=_limits_differ(ending, oom),
                evidence=(_evidence(ending),),
                oom=index,
            )


def manager_differs(snapshot: Snapshot) -> Iterator[Finding]:
    """The status that was read with the log is of this very container or pod, and tells something else.

    A flag of false does not weigh against a report of the kernel: Podman before 5 never sets it, and on cgroup v1
    Docker is not told of kills on a machine that is full. Where the times differ, the status is of another end of the
    same container: a log holds them all, a status the last.

    Source: what Podman 4.3 and 5.4 said of one kill.
    """
    for index, oom, ending in _joined(snapshot):
        denied, another = ending.oom_killed is False, _is_another_time(ending, oom)
        if not denied and not another:
            continue
        what = "does not call it one for memory" if denied else "tells of another end of it"
        yield Finding(
            code="manager-differs",
            severity="notice",
            confidence="certain",
            claim=f"{_manager(ending)} {what}: {_status(ending)}",
            detail=((_why_false(ending),) if denied else ()) + _limits_differ(ending, oom),
            evidence=(_evidence(ending),),
            oom=index,
        )


def _why_false(ending: Ending) -> str:
    if ending.manager == "docker" and ending.state == "running":
        return "OOMKilled is false: Docker sets it when a container ends, and this one runs."
    return _FALSE.get(ending.manager, "Its flag is false.")


def _flag(ending: Ending) -> str:
    """The word by which it says so."""
    if ending.manager == "systemd":
        return _JOURNAL if ending.reason == _JOURNAL else "Result=oom-kill"
    return "event oom" if ending.reason == OOM else "OOMKilled"


def _joined(snapshot: Snapshot) -> Iterator[tuple[int, OomReport, Ending]]:
    """Each event with the last status that is about it."""
    for index, oom in enumerate(snapshot.ooms):
        for endings in _by_workload(snapshot.endings):
            if is_about(endings[-1], oom):
                yield index, oom, endings[-1]


def _is_another_time(ending: Ending, oom: OomReport) -> bool:
    """Where both have a date with year and zone, and the end was before the kill, or of a run that came after it."""
    at = None if ending.finished is None else ending.finished.wall_s
    if at is None or oom.stamp.wall_s is None or ending.manager in NODE_AGENTS:
        return False
    later_s = at - oom.stamp.wall_s
    return later_s < -_CLOCKS_DIFFER_S or (later_s > _ENDS_WITHIN_S and bool(ending.restarts))


def _status(ending: Ending) -> str:
    """`container web, OOMKilled, exit status 137, restarted 3 times, ended 2026-11-23T14:08:22Z`."""
    if ending.manager in NODE_AGENTS:
        of_node = "" if ending.node is None else f", node {quote(ending.node)}"
        return f"{ending.reason}{of_node}"
    said = [_workload(ending)]
    if ending.oom_killed is not None:
        said.append(_flag(ending) if ending.oom_killed else "OOMKilled is false")
    if ending.exit_code is not None:
        said.append(f"exit status {ending.exit_code}")
    if ending.restarts:
        said.append(f"restarted {ending.restarts} times")
    if at := _at(ending):
        said.append(f"ended {at}")
    return ", ".join(said)


def _at(ending: Ending) -> str | None:
    """When it ended, as its manager spells it."""
    finished = ending.finished
    if finished is None or finished.text is None:
        return None
    if finished.text.isdecimal() and finished.wall_s is not None:  # as `docker events` counts
        return utc(finished.wall_s)
    text = re.sub(r"(:\d\d)[.,]\d+", r"\1", finished.text)  # a billionth of a second is nobody's question
    return text if re.fullmatch(r"[\w :,+-]{1,60}", text) else quote(text)  # no more than a date is made of


def _limits_differ(ending: Ending, oom: OomReport) -> tuple[str, ...]:
    usage = oom.memcg.usage("memory") if oom.memcg is not None else None
    met, now = usage.limit_bytes if usage is not None else None, ending.memory_limit_bytes
    if not isinstance(met, int) or not isinstance(now, int) or met == now or oom.limit_of != oom.workload:
        return ()
    return (f"Its memory limit is {size(now)} now, and was {size(met)} when the kernel killed.",)


def _in_the_logs(ending: Ending, snapshot: Snapshot) -> Iterator[str]:
    """What the logs that were read with the status tell of it."""
    if ending.manager == "systemd" or not snapshot.history:
        return
    found = [event for event in snapshot.history if is_about(ending, event)]
    if found:
        yield f"The kernel's report of it: {quote(f'{found[-1].source}:{found[-1].line}')}."
        return
    other = "that log is of another host or time, or is cut"
    if not ending.oom_killed:
        other = f"the OOM killer did not do it, or {other}"
    if len(snapshot.history) == 1:
        yield f"The kill in the log that was read with it is another: {other}."
    else:
        yield f"None of the {len(snapshot.history)} kills read with it is this one: {other}."


def _is_in_the_kernels_words(ending: Ending, snapshot: Snapshot) -> bool:
    """A manager's word for a kill that is explained by the kernel's own report, or systemd's of any, says no more."""
    if ending.manager != "systemd":
        return any(is_about(ending, oom) for oom in snapshot.ooms)
    events: tuple[OomSummary, ...] = snapshot.history
    return any(event.workload is not None and event.workload.name == ending.name for event in events)


def killed_without_proof(snapshot: Snapshot) -> Iterator[Finding]:
    """It ended by SIGKILL, exit status 137, and nothing in the text proves that memory was the reason.

    137 is 128 + 9: SIGKILL, whoever sent it. The OOM killer sends it, and so does everybody who stops what will not
    stop: `docker stop` after ten seconds, the kubelet when the grace period is over, a person. The manager's flag does
    not settle it where it is false: Podman before 5 never sets it, systemd is told of no kill on cgroup v1, and Docker
    there of none that a full machine made. The kernel log of the host settles it. Where events tell that an engine was
    just asked to kill it, or that a kubelet was to end it for a failed probe, that is said instead; of the latter also
    where nothing else is told of the end.

    Source: signal(7); Documentation/admin-guide/cgroup-v1/memory.rst, 10; what Podman 4.3 and 5.4 said of one kill.
    """
    proven = {_key(ending) for ending in snapshot.endings if ending.oom_killed}
    gone = {ending.pod for ending in snapshot.endings if ending.reason == "Evicted"}
    for endings in _by_workload(snapshot.endings):
        last = endings[-1]
        if is_of_event_alone(last) and _key(last) not in proven:
            yield _on_probe_alone(endings)
            continue
        if SIGKILL not in (last.signal, (last.exit_code or 0) - 128) or _key(last) in proven:
            continue
        if (last.pod is not None and last.pod in gone) or any(is_about(last, oom) for oom in snapshot.ooms):
            continue  # it is told who it was
        if last.manager == "systemd" and last.reason not in (None, "signal"):
            continue  # systemd says who it was: timeout, watchdog
        how = "signal 9" if last.signal == SIGKILL else "exit status 137 = 128 + 9"
        if last.reason == KILL:
            yield _on_request(endings, how)
            continue
        if last.reason in (FAILED_LIVENESS, FAILED_STARTUP):
            yield _on_probe(endings, how)
            continue
        not_told = f"No flag is in this text; it can have been the OOM killer, {_OTHERS[last.manager]}."
        told = f"{_FALSE.get(last.manager, '')} Others send it too: {_OTHERS[last.manager]}.".lstrip()
        yield Finding(
            code="killed-without-proof",
            severity="notice",
            confidence="certain",
            claim=f"SIGKILL ended {_workload(last)} ({how}); nothing here proves that memory was the reason",
            detail=(*_when(endings), not_told if last.oom_killed is None else told, *_in_the_logs(last, snapshot)),
            evidence=tuple(map(_evidence, endings)),
            remedies=(_look("See in the kernel log of its host whether it was the OOM killer", last),),
        )


def _on_request(endings: list[Ending], how: str) -> Finding:
    last = endings[-1]
    engine, other = _MANAGERS[last.manager], f"{last.manager} stop, after its ten seconds"
    return Finding(
        code="killed-without-proof",
        severity="notice",
        confidence="likely",  # the kernel can have been first
        claim=f"{engine} ended {_workload(last)} by SIGKILL ({how}), as it was asked to at that moment: no OOM kill",
        detail=(*_when(endings), f"The event before its end is {last.manager} kill; {other}, tells the same."),
        evidence=tuple(map(_evidence, endings)),
    )


def _on_probe(endings: list[Ending], how: str) -> Finding:
    """It is asked by SIGTERM before, and given its grace period: killContainer() in pkg/kubelet/kuberuntime."""
    last = endings[-1]
    probe = (last.reason or "").removeprefix("failed ")
    return Finding(
        code="killed-without-proof",
        severity="notice",
        confidence="likely",  # the kernel can have been first; of several times an event tells the first and the last
        claim=f"The kubelet ended {_workload(last)} by SIGKILL ({how}), as its {probe} had failed: no OOM kill",
        detail=(
            *_when(endings),
            "An event of it says so. SIGTERM came first: it had not ended when its grace period was over.",
        ),
        evidence=tuple(map(_evidence, endings)),
        remedies=(Remedy(title="See in its events (Unhealthy) what became of the probe", commands=_describe(last)),),
    )


def is_of_event_alone(ending: Ending) -> bool:
    """That a kubelet was about to end it is all that is told of it: by what it ended is not."""
    return ending.reason in (FAILED_LIVENESS, FAILED_STARTUP) and ending.exit_code is None


def _on_probe_alone(endings: list[Ending]) -> Finding:
    last = endings[-1]
    probe = (last.reason or "").removeprefix("failed ")
    return Finding(
        code="killed-without-proof",
        severity="notice",
        confidence="likely",  # that it was ended is certain; the kernel can have been first
        claim=f"The kubelet ended {_workload(last)}, as its {probe} had failed: no OOM kill",
        detail=(
            *_when(endings),
            "An event of it says so, and not with which status it ended: it is sent SIGTERM, and SIGKILL (137) when "
            "its grace period is over. The description of its pod tells that, and whether its last end was another.",
        ),
        evidence=tuple(map(_evidence, endings)),
        remedies=(Remedy(title="See how it ended, and what became of the probe", commands=_describe(last)),),
    )


def _describe(ending: Ending) -> tuple[tuple[str, ...], ...]:
    if ending.pod is None or ending.pod.startswith("-"):  # a stranger's word, which may not become an option
        return ()
    where = () if ending.namespace is None else ("-n", ending.namespace)
    return (("kubectl", "describe", "pod", ending.pod, *where),)


def _often(endings: list[Ending]) -> str:
    count = _count(endings)
    return f" {count} times" if count > 1 else ""


def _count(endings: list[Ending]) -> int:
    return len(_ends(endings))


def _ends(endings: list[Ending]) -> list[Ending]:
    """Each end of one workload once: events tell of one each, statuses of the last, which an event may have told.

    `systemctl show` and `status` tell of one, and `show` may do without the time.
    """
    if endings[-1].manager == "systemd":
        by_time = {ending.finished: ending for ending in endings}
        return [ending for at, ending in by_time.items() if at is not None] or endings[-1:]
    ends = [ending for ending in endings if not _is_status(ending)]
    for status in filter(_is_status, endings):
        if not any(_may_be_one_moment(status.finished, end.finished) for end in ends):
            ends.append(status)
    return ends


def each_end(endings: tuple[Ending, ...]) -> list[Ending]:
    """Each end once, in their order; one that somebody calls one for memory, or an eviction, is told as that alone."""
    apart = {end for same in _by_workload(endings) for end in _ends(same)}
    gone = {ending.pod for ending in endings if ending.reason == "Evicted"} - {None}
    for_memory: dict[object, set[int | None]] = {}
    for ending in endings:
        if ending.oom_killed:
            for_memory.setdefault(_key(ending), set()).add(_second(ending))

    def is_told_better(ending: Ending) -> bool:
        if ending.oom_killed or ending.reason == "Evicted":
            return False
        seconds, at = for_memory.get(_key(ending), set()), _second(ending)
        if ending.pod in gone or at is None or None in seconds:
            return ending.pod in gone or bool(seconds)
        return any(at + later_s in seconds for later_s in (-2, -1, 0, 1, 2))  # their clocks differ

    return [ending for ending in dict.fromkeys(endings) if ending in apart and not is_told_better(ending)]


def _second(ending: Ending) -> int | None:
    wall_s = None if ending.finished is None else ending.finished.wall_s
    return None if wall_s is None else int(wall_s)


def _is_status(ending: Ending) -> bool:
    is_event = ending.reason in (OOM, KILL) or ending.state in _DIED
    return ending.manager in ("docker", "podman", "cri", "kubernetes") and not is_event


def _may_be_one_moment(one: Stamp | None, other: Stamp | None) -> bool:
    """Of dates without zone only those that are spelled alike."""
    if one is None or other is None:
        return True
    if one.wall_s is None or other.wall_s is None:
        return one.text == other.text
    return abs(one.wall_s - other.wall_s) <= _CLOCKS_DIFFER_S


def _by_workload(endings: tuple[Ending, ...]) -> list[list[Ending]]:
    """Ends of the same container or unit that ended alike, together."""
    groups: dict[object, list[Ending]] = {}
    for ending in endings:
        groups.setdefault((_key(ending), ending.oom_killed), []).append(ending)
    return list(groups.values())


def _key(ending: Ending) -> tuple[object, ...]:
    if ending.manager in NODE_AGENTS:
        return ending.manager, ending.node, ending.pid, None if ending.pid else (ending.source, ending.line)
    if ending.container_id is not None:
        return ending.manager, ending.container_id
    place = None if ending.name else (ending.source, ending.line)
    return ending.manager, ending.namespace, ending.pod, ending.name, place


def _manager(ending: Ending) -> str:
    return _MANAGERS.get(ending.manager, ending.manager)


def _workload(ending: Ending) -> str:
    if ending.manager == "systemd":
        return "a unit" if ending.name is None else quote(ending.name)
    name = ending.name or (ending.container_id or "")[:_ID_LENGTH]
    container = f"container {quote(name)}" if name else "a container"
    if ending.pod is None:
        return container
    namespace = "" if ending.namespace is None else f" in namespace {quote(ending.namespace)}"
    return f"{container} of pod {quote(ending.pod)}{namespace}"


def who(ending: Ending) -> str:
    """`container web of Docker`, `container web of pod shop in namespace prod`, `nginx.service of systemd`."""
    known_by_it = ending.pod is not None or ending.manager == "cri"
    return _workload(ending) if known_by_it else f"{_workload(ending)} of {_manager(ending)}"


def how(ending: Ending) -> str:
    """`exited with status 1`, `running`, `running, ended with status 1 before`: as its manager says it."""
    signal, code = ending.signal, ending.exit_code
    end = f"by signal {signal}" if signal is not None else None if code is None else f"with status {code}"
    if ending.state is None or ending.state in _DIED:
        return "its end is not told" if end is None else f"ended {end}"
    state = quote(ending.state)
    if end is None or ending.state == "created":  # Docker gives that one a status of 0 too
        return state
    return f"{state} {end}" if ending.state.lower() in _ENDED else f"{state}, ended {end} before"


def _when(endings: list[Ending]) -> Iterator[str]:
    if at := _at(endings[-1]):
        yield f"{'The last was' if _count(endings) > 1 else 'That was'} at {at}."


def _about_kill(ending: Ending) -> Iterator[str]:
    if ending.reason == OOM:
        yield (
            "The event is no count of kills: on cgroup v1 it says that a limit was reached, its own or one above; on "
            "v2 that one or several processes in it were killed."
        )
    limit = ending.memory_limit_bytes
    if limit == "max":
        yield "It has no memory limit of its own: a parent's was reached, or the machine was full."
    elif limit is not None:
        yield f"Its memory limit is {size(limit)} now."
    if ending.reason == _JOURNAL:
        yield "It was the kernel: of its own kills systemd-oomd tells in other words."
    elif ending.manager == "systemd":
        yield "It was the kernel, or systemd-oomd, which kills before the kernel has to."
    elif SIGKILL in (ending.signal, (ending.exit_code or 0) - 128):
        yield "Exit status 137 = 128 + 9: its first process was killed, or passed on that a child of it was."
    elif ending.exit_code is not None:
        yield f"Its first process was not the one: it ended with status {ending.exit_code}, so a child was killed."
    if ending.restarts:
        yield f"It was restarted {ending.restarts} times so far."


def _evidence(ending: Ending) -> Evidence:
    figures = (
        ("state", ending.state),
        ("reason", ending.reason),
        ("exit status", ending.exit_code),
        ("signal", ending.signal),
        ("killed for memory", None if ending.oom_killed is None else "yes" if ending.oom_killed else "no"),
    )
    said = ", ".join(f"{name} {value}" for name, value in figures if value is not None)
    return Evidence(text=f"{_manager(ending)}: {said}", source=ending.source, line=ending.line)


def _look(title: str, ending: Ending) -> Remedy:
    """Where the answer is; every name in it is a stranger's, and none may become an option."""
    short = None if ending.container_id is None else ending.container_id[:_ID_LENGTH]
    name = None if ending.manager in ("cri", "kubernetes") else ending.name  # there no cgroup bears it
    known = [one for one in (short, ending.pod_uid, name) if one is not None]
    commands: list[tuple[str, ...]] = []
    if ending.pod is not None and not ending.pod.startswith("-"):
        where = ("-n", ending.namespace) if ending.namespace is not None else ()
        commands.append(("kubectl", "get", "pod", ending.pod, *where, "-o", "wide"))  # names its node
        if ending.name is not None:
            commands.append(("kubectl", "logs", ending.pod, *where, f"--container={ending.name}", "--previous"))
    if known:
        commands.append(("reprieve", "why", f"--cgroup={known[0]}"))
    if ending.manager == "systemd" and ending.name is not None:
        commands.append(("journalctl", f"--unit={ending.name}", "--lines=50"))
    elif ending.manager in ("docker", "podman") and known:
        commands.append((ending.manager, "logs", "--tail=50", "--", known[0]))
    place = {
        "cri": " (reprieve as root)",
        "kubernetes": " (the last on its node, as root)",
        "podman": " (reprieve as root)",
    }
    return Remedy(title=title + place.get(ending.manager, ""), commands=tuple(commands))

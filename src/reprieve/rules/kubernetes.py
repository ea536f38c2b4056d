"""What is told of a node of Kubernetes: kills that its agents read of in its kernel log, and pods it evicted."""

from collections.abc import Iterator

from reprieve.model.ending import Ending
from reprieve.model.finding import Evidence, Finding, Remedy, quote
from reprieve.model.snapshot import Snapshot
from reprieve.oom.same import NODE_AGENTS, is_about

_PIDS = 3  # that a sentence names
_NOT_PROOF = (
    "SystemOOM proves a kill, not that the node was full: kubelets (that of 1.20 among them) tell of kills at a "
    "container's own limit by this word too."
)
_LATE = "a kubelet that starts tells of all kills that the kernel log still holds: they may be older"


def told_by_node_agent(snapshot: Snapshot) -> Iterator[Finding]:
    """A node's events say SystemOOM or OOMKilling: its kubelet, or node-problem-detector, read of it in the kernel log.

    A process was killed, that much is certain. That the whole node was short of memory is not what SystemOOM proves:
    where a kubelet does not understand the kernel's lines, each kill at the limit of a container is told by this word
    too. Nor is the time certain: a kubelet that starts reads the kernel log from its beginning, tells of old kills as
    if they were new; and events that are alike are combined, so that one stands for several. The kernel log of the node
    tells whose limit it was, when, and what held the memory.

    Source: pkg/kubelet/oom/oom_watcher_linux.go; https://github.com/kubernetes/kubernetes/issues/100483;
    config/kernel-monitor.json of node-problem-detector.
    """
    groups: dict[tuple[str, str | None], list[Ending]] = {}
    for ending in snapshot.endings:
        if ending.manager in NODE_AGENTS and not any(is_about(ending, event) for event in snapshot.ooms):
            groups.setdefault((ending.manager, ending.node), []).append(ending)
    for (agent, node), endings in groups.items():
        of_node = f" of node {quote(node)}" if node is not None else ""
        often = "a kill" if len(endings) == 1 else f"{len(endings)} kills"
        yield Finding(
            code="told-by-node-agent",
            severity="critical",
            confidence="certain",
            claim=f"The {agent}{of_node} tells of {often} by the kernel ({endings[0].reason}){_victims(endings)}",
            detail=tuple(_about(endings)),
            evidence=tuple(Evidence(text=_said(ending), source=ending.source, line=ending.line) for ending in endings),
            remedies=(_look(node, endings),),
        )


def _victims(endings: list[Ending]) -> str:
    by_name: dict[str, list[int]] = {}
    for ending in endings:
        if ending.name is not None and ending.pid is not None:
            by_name.setdefault(ending.name, []).append(ending.pid)
    told = []
    for name, pids in list(by_name.items())[:_PIDS]:
        shown = ", ".join(map(str, pids[:_PIDS]))
        more = f" and {len(pids) - _PIDS} others" if len(pids) > _PIDS else ""
        told.append(f"{quote(name)} (pid{'s' if len(pids) > 1 else ''} {shown}{more})")
    others = f" and {len(by_name) - _PIDS} other programs" if len(by_name) > _PIDS else ""
    return f": {', '.join(told)}{others}" if told else ""


def _about(endings: list[Ending]) -> Iterator[str]:
    times = sorted({ending.finished.text for ending in endings if ending.finished and ending.finished.text})
    if times:
        between = f"at {quote(times[0])}" if len(times) == 1 else f"from {quote(times[0])} to {quote(times[-1])}"
        yield f"Told {between}; {_LATE}."
    if endings[0].manager != "kubelet":
        in_cgroup = sum("cgroup" in (ending.state_reason or "").partition("Killed process")[0] for ending in endings)
        if in_cgroup == len(endings):
            yield "It was the limit of a cgroup that ran out, not the memory of the node."
        return
    if any(ending.state_reason is not None for ending in endings):
        yield "One of the events stands for others that were like it: there may be more kills than are named."
    yield _NOT_PROOF


def _said(ending: Ending) -> str:
    if ending.manager != "kubelet":
        return f"{ending.reason}: {ending.state_reason}"
    return "SystemOOM" if ending.pid is None else f"SystemOOM, victim process: {ending.name}, pid: {ending.pid}"


def _look(node: str | None, endings: list[Ending]) -> Remedy:
    """The names are strangers': each is one word with its option."""
    names = dict.fromkeys(ending.name for ending in endings if ending.name is not None)
    asked = ("reprieve", "why", "--list", *(f"--name={name}" for name in list(names)[:1] if len(names) == 1))
    place = "the node" if node is None else f"node {quote(node)}"
    return Remedy(
        title=f"See in the kernel log of {place} whose limit it was, when, and what held the memory (there, as root)",
        commands=(asked, ("reprieve", "why")),
    )


def evicted(snapshot: Snapshot) -> Iterator[Finding]:
    """A kubelet evicted the pod, before the kernel had to kill.

    No OOM kill: when less memory is left on a node than its threshold (100 MiB unless set otherwise), the kubelet ends
    whole pods, first those that use more than they request, by priority and by how much more. The same word stands for
    evictions for want of disk or of process ids; the message tells which.

    Source: https://kubernetes.io/docs/concepts/scheduling-eviction/node-pressure-eviction/.
    """
    for ending in snapshot.endings:
        if ending.manager != "kubernetes" or ending.reason != "Evicted":
            continue
        namespace = "" if ending.namespace is None else f" in namespace {quote(ending.namespace)}"
        pod = "a pod" if ending.pod is None else f"pod {quote(ending.pod)}{namespace}"
        words = ending.state_reason
        memory = words is not None and ("resource: memory" in words or "MemoryPressure" in words)
        of_memory = ", as its node was short of memory" if memory else ""
        yield Finding(
            code="evicted",
            severity="warning" if memory else "notice",
            confidence="certain",
            claim=f"Kubernetes evicted {pod}{of_memory}: no OOM kill by the kernel",
            detail=_of_eviction(words, memory=memory),
            evidence=(
                Evidence(text=f"Evicted{f': {words}' if words else ''}", source=ending.source, line=ending.line),
            ),
        )


def _of_eviction(words: str | None, *, memory: bool) -> tuple[str, ...]:
    if words is None:
        return ("What the node was short of is in the pod's own message: kubectl describe pod.",)
    first = ("Pods that use more than they request are evicted before others.",) if memory else ()
    return (f"Its words: {quote(words)}", *first)

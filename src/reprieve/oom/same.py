"""Is the kernel's report of the very container, pod or process that a manager's words are about?"""

from reprieve.model.ending import Ending
from reprieve.model.oom import OomReport, OomSummary

_SIGKILL = 9
NODE_AGENTS = ("kubelet", "node-problem-detector")  # what they say is of processes, not of containers


def is_about(ending: Ending, event: OomReport | OomSummary) -> bool:
    """Told by ids alone, which no two share: a container's, else a pod's; of what a node's agents say the process."""
    if ending.manager in NODE_AGENTS:
        host = event.host.partition(".")[0] if event.host is not None and ending.node is not None else None
        return (ending.pid, ending.name) in _victims(event) and host in (None, (ending.node or "").partition(".")[0])
    group = event.workload
    if group is None:
        return False
    if ending.container_id is not None and group.container_id is not None:
        return ending.container_id == group.container_id
    if ending.container_id is not None and group.path.endswith(f"/{ending.container_id}"):
        return True  # `ctr run`: an id that somebody chose
    return ending.pod_uid is not None and ending.pod_uid == group.pod_uid


def _victims(event: OomReport | OomSummary) -> tuple[tuple[int, str | None], ...]:
    return event.victims if isinstance(event, OomSummary) else tuple((kill.pid, kill.comm) for kill in event.kills)


class Statuses:
    """Those that were told, found by what they name: there may be as many as a cluster has pods."""

    def __init__(self) -> None:
        self.of_a_kill = False  # does any that is asked for, and names whom, tell of its end by SIGKILL?
        self._by_name: dict[object, list[Ending]] = {}

    def add(self, ending: Ending, *, asked_for: bool = True) -> None:
        """One more. Not `asked_for`, by --pid as an example: its kill is rather told, and another's is no less."""
        killed = ending.oom_killed is True or ending.signal == _SIGKILL or ending.exit_code == 128 + _SIGKILL
        process = ending.pid if ending.manager in NODE_AGENTS else None  # other daemons killed before the kernel did
        names = {ending.container_id, ending.pod_uid, process} - {None}
        self.of_a_kill = self.of_a_kill or (asked_for and killed and bool(names))
        for name in names:
            self._by_name.setdefault(name, []).append(ending)

    def tell_of(self, event: OomReport | OomSummary) -> bool:
        """Is one of them about this event?"""
        if not self._by_name:
            return False
        group = event.workload
        names: list[object] = [pid for pid, _ in _victims(event)]
        if group is not None:
            names += (group.container_id, group.pod_uid, group.path.rpartition("/")[2])
        return any(is_about(ending, event) for name in names for ending in self._by_name.get(name, ()))

"""Is the kernel's report of the very container, pod or process that a manager's words are about?"""

from reprieve.model.ending import Ending
from reprieve.model.oom import OomReport, OomSummary

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

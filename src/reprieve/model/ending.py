"""How a workload ended, in the words of what runs it."""

from typing import Literal

from reprieve.model.noun import noun
from reprieve.model.oom import Stamp

OOM, KILL = "oom", "kill"  # events of an engine
FAILED_LIVENESS, FAILED_STARTUP = "failed liveness probe", "failed startup probe"  # an event of a kubelet, in its words
OF_A_PROCESS = ("earlyoom", "nohang")  # they end one process before the kernel must, and name that, not its unit


@noun
class Ending:
    """What Docker, Podman, containerd, Kubernetes or systemd says of one container or unit; nothing is concluded.

    All text is chosen by strangers. None is "not said".
    """

    # "docker", "podman", "containerd", "cri", "kubernetes", "systemd"; who killed by itself: "systemd-oomd",
    # "earlyoom", "nohang"; who read it in the kernel log of a node: "kubelet", "node-problem-detector"
    manager: str
    line: int  # where in its source it is told, counted from 1
    source: str = "-"
    name: str | None = None  # of the container or unit; of the process, where it is that which is named
    pid: int | None = None  # of the process, where earlyoom, nohang or an agent of a node tells it
    node: str | None = None  # of Kubernetes, where the text tells it
    container_id: str | None = None
    pod: str | None = None
    namespace: str | None = None  # of the pod, or containerd's
    pod_uid: str | None = None
    qos: str | None = None
    state: str | None = None  # now, in the manager's word: "exited", "running", "Waiting", "failed"
    state_reason: str | None = None  # "CrashLoopBackOff"; words of the kubelet (eviction), of the kernel (OOMKilling)
    # Of the end: "OOMKilled", "Error", "oom-kill", "signal", "SystemOOM"; a daemon's words; of an engine's events
    # "oom", and "kill" where it had just been asked for it; of a kubelet's events "failed liveness probe";
    # with nothing else told, that was about to be its end.
    reason: str | None = None
    exit_code: int | None = None  # 137 is 128 + SIGKILL, whoever sent it
    signal: int | None = None  # where the manager tells it apart from an exit
    # The manager's own flag. True: a process in it was killed, not always its first one. False proves nothing: Podman
    # before 5 never sets it, and systemd on cgroup v1 sees no kills.
    oom_killed: bool | None = None
    memory_limit_bytes: int | Literal["max"] | None = None  # now: it can have been another when it ended
    memory_and_swap_limit_bytes: int | Literal["max"] | None = None
    restarts: int | None = None
    started: Stamp | None = None
    finished: Stamp | None = None
    runs_since: Stamp | None = None  # after that end, where Kubernetes tells it: what runs now

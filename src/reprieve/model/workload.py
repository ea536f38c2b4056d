"""Whose a cgroup is: apart from what the kernel reports, which is much, and not loaded where a command only runs."""

from reprieve.model.noun import noun


@noun
class Workload:
    """Whose cgroup a path is, in the words of those who made it: read from the path alone."""

    path: str
    kind: str  # "pod", "container", "unit", "session", "user", "slice", "scope", "run", "cgroup", "root"
    name: str  # what people call it: nginx.service, user 1000, pod 95387fa4-…, docker container 4f1c2d3e4a5b
    manager: str | None = None  # "docker", "containerd", "cri-o", "podman", "kubernetes", "systemd", "lxc", …
    container_id: str | None = None
    pod_uid: str | None = None
    qos: str | None = None  # "Guaranteed", "Burstable", "BestEffort"
    unit: str | None = None
    uid: int | None = None

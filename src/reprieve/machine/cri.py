"""What Kubernetes calls the containers of containerd: of the OCI bundles that it keeps while they run.

Its socket speaks gRPC, which nothing else here needs; what is wanted stands in a file beside it, as it was told to the
runtime. Of that file, which holds environments too, the annotations of CRI alone are looked at.
"""

import json
import re
from collections.abc import Collection, Iterable

from reprieve.machine.host import Host
from reprieve.model.finding import Gap
from reprieve.model.machine import Container
from reprieve.oom.paths import workload

# Where containerd keeps its state: of its package, of k3s and RKE2, of MicroK8s.
_STATES = ("/run/containerd", "/run/k3s/containerd", "/var/snap/microk8s/common/run/containerd")
_BUNDLE = "io.containerd.runtime.v2.task/k8s.io"  # of the namespace that CRI has
_MANAGERS = ("containerd", "kubernetes")  # a path of cgroupfs does not tell the runtime
_BYTES = 1024 * 1024
_NAME_LENGTH = 255


def read_cri(
    host: Host, paths: Iterable[str], gaps: list[Gap], *, states: Collection[str] = _STATES
) -> tuple[Container, ...]:
    """The containers of pods among these paths of cgroups, by their names in their pods.

    Where there is no such file, or it is another's, nothing is told; where it may not be read, a gap says so.

    Source: pkg/cri/annotations/annotations.go of containerd.
    """
    found, refused = [], 0
    for container_id in dict.fromkeys(filter(None, map(_of_pod, paths))):
        for state in states:
            try:
                data = host.read(f"{state}/{_BUNDLE}/{container_id}/config.json", _BYTES)
            except PermissionError:
                refused += 1
            except OSError:  # of another runtime, or it has ended
                continue
            else:
                if (container := parse_bundle(container_id, data)) is not None:
                    found.append(container)
            break
    if refused:
        reason = f"of {refused} containers: permission denied" if refused > 1 else "permission denied"
        gaps.append(Gap(place="names of containers of pods", reason=reason, hint="run it as root"))
    return tuple(found)


def parse_bundle(container_id: str, data: bytes) -> Container | None:
    """The container of an OCI bundle; None if it is none of a pod."""
    try:
        told = json.loads(data)["annotations"]
        kind, name, pod, space, image = (
            told.get(f"io.kubernetes.cri.{key}")
            for key in ("container-type", "container-name", "sandbox-name", "sandbox-namespace", "image-name")
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    if not isinstance(pod, str) or not isinstance(space, str) or kind not in ("container", "sandbox"):
        return None
    return Container(
        container_id=container_id,
        manager="containerd",
        name=_text(name) if isinstance(name, str) else "sandbox" if kind == "sandbox" else None,
        image=_text(image) if isinstance(image, str) else None,
        pod=_text(f"{space}/{pod}"),
    )


def _of_pod(path: str) -> str | None:
    """The id of a container of a pod, in hexadecimal digits: it becomes the name of a folder."""
    found = workload(path)
    told = found.container_id if found.manager in _MANAGERS and found.pod_uid is not None else None
    return told if told is not None and re.fullmatch("[0-9a-f]{64}", told) else None


def _text(said: str) -> str:
    """JSON can spell halves of a character, which no text may hold."""
    return said[:_NAME_LENGTH].encode(errors="backslashreplace").decode()

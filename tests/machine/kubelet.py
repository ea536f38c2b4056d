"""A node of a real cluster on this machine: a kubelet with a Docker of its own, which runs pods of busybox for real."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lab.kubernetes import Cluster, program
from tests.machine.clusters import Kube, kubeconfig
from tests.machine.engines import Engine

NAME = "lab-node"
_PATIENCE_S = 60.0
# What a kubelet sets on its machine, for all who are on it. It finds them set, in a /proc of its own, and sets nothing.
_SETTINGS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}
# It wants its pauses at -998, which takes CAP_SYS_RESOURCE: where that is not to be had they stay at 0.
_RUNTIME = """#!{python}
import json, os, sys
if "--bundle" in sys.argv:
    path = sys.argv[sys.argv.index("--bundle") + 1] + "/config.json"
    told = json.load(open(path))
    if told["process"].get("oomScoreAdj", 0) < 0:
        told["process"]["oomScoreAdj"] = 0
        json.dump(told, open(path, "w"))
os.execvp("runc", ["runc", *sys.argv[1:]])
"""


def runtime(folder: Path) -> list[str]:
    """Options of dockerd for a runtime that a kubelet can ask for scores it has no right to."""
    path = folder / "runtime"
    path.write_text(_RUNTIME.format(python=sys.executable))
    path.chmod(0o755)
    return [f"--add-runtime=lab={path}", "--default-runtime=lab"]


@contextmanager
def node(kube: Kube, cluster: Cluster, engine: Engine, folder: Path) -> Iterator[None]:
    """It is ready when the block begins."""
    engine.call(
        f"POST /commit?container={engine.run('pause')}&repo=pause&tag=1", {"Cmd": ["/bin/busybox", "sleep", "900"]}
    )
    engine.remove("pause")
    config = {
        "kind": "KubeletConfiguration",
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "cgroupDriver": "cgroupfs",
        "protectKernelDefaults": True,
        "makeIPTablesUtilChains": False,
        "failSwapOn": False,
        "port": _free_port(),
        "healthzPort": 0,
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "evictionHard": {"memory.available": "1Mi"},
        "imageGCHighThresholdPercent": 100,
    }
    (folder / "kubelet.json").write_text(json.dumps(config))
    authority = cluster.folder / "apiserver.crt"
    (folder / "kubelet.kubeconfig").write_text(kubeconfig(cluster.url, cluster.token, authority))
    script = []
    for number, (path, value) in enumerate(_SETTINGS.items()):
        (folder / f"setting-{number}").write_text(f"{value}\n")
        script.append(f"mount --bind {folder}/setting-{number} /proc/sys/{path}")
    argv = [str(program("kubelet")), f"--config={folder}/kubelet.json", f"--kubeconfig={folder}/kubelet.kubeconfig"]
    argv += [f"--root-dir={folder}/kubelet", f"--hostname-override={NAME}", "--container-runtime=docker"]
    argv += [f"--docker={engine.address}", "--housekeeping_interval=1s"]  # by which it measures what they use
    argv += [f"--docker-endpoint={engine.address}", "--network-plugin=", "--pod-infra-container-image=pause:1"]
    argv += [f"--cert-dir={folder}/pki", "--v=2"]
    own = ["unshare", "--mount", "--propagation", "slave", "sh", "-c", " && ".join([*script, 'exec "$@"']), "sh"]
    with (folder / "kubelet.log").open("wb") as log:
        process = subprocess.Popen([*own, *argv], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        wait_for(lambda: _is_ready(kube), process, folder)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        _leave_nothing(engine, folder)


def _leave_nothing(engine: Engine, folder: Path) -> None:
    """Its cgroups, once no container is in them, and what Docker mounts for pods that have the network of the host."""
    for one in engine.call("GET /containers/json?all=1"):
        engine.remove(one["Id"])
    for group in sorted(Path("/sys/fs/cgroup").glob("*/kubepods/**/"), key=lambda path: -len(path.parts)):
        with suppress(OSError):  # another's is not empty
            group.rmdir()
    subprocess.run(["umount", folder / "exec/netns/default"], capture_output=True, check=False)


def _is_ready(kube: Kube) -> bool:
    conditions: dict[str, str] = {}
    for one in kube.call("GET", "/api/v1/nodes")["items"]:
        conditions |= {told["type"]: told["status"] for told in one["status"].get("conditions", ())}
    return conditions.get("Ready") == "True"


def wait_for(
    holds: Callable[[], bool], process: subprocess.Popen[bytes] | None = None, folder: Path | None = None
) -> None:
    """Until it holds; an error of a test if it does not, or the process ends."""
    ends = time.monotonic() + _PATIENCE_S
    while not holds():
        if (process is not None and process.poll() is not None) or time.monotonic() > ends:
            log = "" if folder is None else (folder / "kubelet.log").read_text(errors="backslashreplace")
            told = [line for line in log.splitlines() if line.startswith(("E", "F"))]
            raise AssertionError(f"it has not come: {told[-20:]}")
        time.sleep(0.2)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port

"""`why pod:NAME`: with `matrix` at a real API server; else at what that one answered to these very tests.

What a kubelet wrote of a pod is that of `tests/captures`, put into the server as a kubelet does: none runs here.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.kubernetes import Cluster
from reprieve.machine.asked import status_of
from reprieve.machine.host import Identity
from reprieve.machine.kubeplugin import Plugin, Server, token_of
from reprieve.machine.kubernetes import own_cluster
from reprieve.model.finding import Failure
from tests.conftest import Run
from tests.machine.api_server import Answer, serving
from tests.machine.clusters import ADMIN, VIEWER, Kube, kube, kubeconfig, real

CAPTURES = Path(__file__).parent.parent / "captures"
PODS = "/api/v1/namespaces/shop/pods"
KERNEL_LOG = CAPTURES.parent / "logs/captures/dmesg-k8s-oom.txt"
ANOTHER = "19841012f2341b79e9e46255d62f46c3591dd30c454d28dd722ec1972839266c"  # a container in it, the older of two
MACHINE_ID = "0" * 31 + "1"  # of the node: no machine that runs this has it


@pytest.fixture(scope="module", params=["recorded", pytest.param("real", marks=pytest.mark.matrix)])
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster | None]:
    if request.param == "recorded":
        yield None
        return
    with real() as started:
        kube = Kube(address=started.url, folder=started.folder, cluster=started)
        node = json.loads((CAPTURES / "k8s-node.json").read_text())
        node["status"]["nodeInfo"] |= {"machineID": MACHINE_ID, "bootID": MACHINE_ID}
        kube.make("/api/v1/nodes", {"metadata": {"name": "lab-node"}, "spec": {}})
        kube.call("PUT", "/api/v1/nodes/lab-node/status", _of_now(kube, "/api/v1/nodes/lab-node", node))
        for name in ("never", "crashloop"):
            pod = json.loads((CAPTURES / f"k8s-pod-oomkilled-{name}.json").read_text())
            pod["metadata"] = {"name": pod["metadata"]["name"], "namespace": "shop"}
            kube.make(PODS, {key: pod[key] for key in ("metadata", "spec")})
            path = f"{PODS}/{pod['metadata']['name']}"
            kube.call("PUT", f"{path}/status", _of_now(kube, path, pod))
        kube.make(
            PODS, {"metadata": {"name": "waits"}, "spec": {"containers": [{"name": "app", "image": "made-up:1"}]}}
        )
        yield started


def _of_now(kube: Kube, path: str, wanted: dict[str, Any]) -> dict[str, Any]:
    told: dict[str, Any] = kube.call("GET", path)
    return told | {"status": wanted["status"]}


@pytest.fixture
def shop(cluster: Cluster | None, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kube]:
    with kube(cluster, request.node.originalname.removeprefix("test_"), tmp_path) as told:
        yield told


def test_the_pod_is_told_by_its_name_with_limit_status_and_restarts(shop: Kube) -> None:
    said = " ".join(shop.run("why", "pod:shop/loop", status=5).stdout.split())
    assert "Kubernetes says that container hog of pod loop in namespace shop lost a process for memory" in said
    assert "Its memory limit is 64 MiB now" in said
    assert "It was restarted 2 times so far" in said
    assert "kernel log of node lab-node" in said  # which this machine is not
    assert "ask the same there" in said
    said = shop.run("why", "--redact", "pod:shop/loop", status=5).stdout
    assert all(name not in said for name in ("loop", "shop", "lab-node", "hog"))


def test_it_is_joined_to_the_kernels_report_of_its_container_and_of_no_other(shop: Kube, tmp_path: Path) -> None:
    own = "118de893d888ff87c1c786ca7fcec1a20f1ccf343dcffa28c5969df56056ac1a"
    log = tmp_path / "kern.log"
    log.write_text(KERNEL_LOG.read_text())
    said = " ".join(shop.run("why", "pod:shop/loop", str(log)).stdout.split())
    assert "None of the 2 kills read with it is this one" in said
    log.write_text(KERNEL_LOG.read_text().replace(ANOTHER, own))
    said = " ".join(shop.run("why", "pod:loop", str(log)).stdout.split())
    assert "Killed hog (pid 1945) of container 118de893d888 of pod" in said
    assert "Kubernetes says so too: container hog of pod loop in namespace shop, OOMKilled, exit status 137" in said
    assert "restarted 2 times" in said


def test_of_a_node_that_is_this_machine_the_own_logs_are_read(shop: Kube, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", shop.kubeconfig())
    assert status_of("pod:shop/hog", Identity(machine_id=MACHINE_ID)).away is None
    elsewhere = status_of("pod:shop/hog", Identity(machine_id="another")).away
    assert elsewhere is not None
    assert elsewhere.hides


def test_a_node_that_may_not_be_asked_for_is_told_by_its_name(shop: Kube, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", shop.kubeconfig(VIEWER))
    assert status_of("pod:shop/hog", Identity(hostname="lab-node.example")).away is None
    unknown = status_of("pod:shop/hog", Identity(hostname="web-1")).away
    assert unknown is not None
    assert (unknown.reason, unknown.hides) == ("whether it is this machine's is not told", False)


def test_a_pod_that_was_not_started_has_nothing_to_explain(shop: Kube) -> None:
    said = shop.run("why", "pod:waits", status=1).stderr
    assert "pod shop/waits was not started yet: the scheduler has not said why" in said


def test_a_pod_that_is_not_there_is_told_with_those_that_are(shop: Kube) -> None:
    assert "namespace shop has no pod lop\n  there is loop" in shop.run("why", "pod:shop/lop", status=1).stderr
    assert "namespace web has no pod x\n  there is none at all" in shop.run("why", "pod:web/x", status=1).stderr


def test_who_may_not_look_is_told_what_the_server_says(shop: Kube) -> None:
    said = shop.run("why", "pod:kube-system/dns", status=1, who=VIEWER).stderr
    assert 'pods "dns" is forbidden: User "viewer" cannot get resource "pods"' in said
    assert "kubectl auth can-i --list tells what is allowed" in said
    said = shop.run("why", "pod:shop/loop", status=1, who="somebody").stderr
    assert said == "reprieve: Kubernetes refuses: Unauthorized\n  log in again, as for kubectl\n"


def test_a_kill_in_a_pod_that_lives_on_is_told_before_newer_ones_of_others(reprieve: Run, tmp_path: Path) -> None:
    pod = json.loads((CAPTURES / "k8s-pod-oomkilled-never.json").read_text())
    status = pod["status"]["containerStatuses"][0]  # as a kubelet has it when a child was killed: it knows of nothing
    status |= {"state": {"running": {"startedAt": "2026-11-23T14:14:00Z"}}, "containerID": f"docker://{ANOTHER}"}
    (tmp_path / "pod.json").write_text(json.dumps(pod))
    said = reprieve("why", "pod.json", KERNEL_LOG).stdout
    assert " ".join(said.split()).startswith(f"Killed hog (pid 1945) of container {ANOTHER[:12]} of pod")


# -- without a server, or with what is none ----------------------------------------------------------------------------


def led_to(folder: Path, text: str) -> dict[str, str]:
    (folder / "config").write_text(text)
    return {"KUBECONFIG": str(folder / "config")}


def test_without_a_kubeconfig_it_is_told_how_to_name_one(tmp_path: Path) -> None:
    with pytest.raises(Failure, match=r"no kubeconfig: /nowhere/a nor /nowhere/b is not there") as caught:
        own_cluster({"KUBECONFIG": "/nowhere/a:/nowhere/b"})
    assert "KUBECONFIG=FILE names that of the cluster" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "leads to no cluster: No current context set"),
        ("[1, 2]", "is no kubeconfig"),
        ("clusters: {", "is no kubeconfig"),
        ("clusters: [{name: a, cluster: 7}]", "is no kubeconfig"),
        ("clusters: []\ncontexts: []", "leads to no cluster: No current context set"),
        ("clusters: []\ncontexts: []\ncurrent-context: a", "leads to no cluster: Context 'a' not found"),
        ("clusters: []\ncontexts: [{name: a, context: {cluster: b}}]\ncurrent-context: a", "has no 'b', which its con"),
        ("\0", "is no kubeconfig"),
    ],
)
def test_what_is_no_kubeconfig_is_told(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(Failure, match=said):
        own_cluster(led_to(tmp_path, text))


def test_of_several_kubeconfigs_the_first_counts_for_each_name(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text("current-context: lab\nusers: [{name: me, user: {token: of-the-first}}]\nclusters:\ncontexts:\n")
    second.write_text(
        kubeconfig("https://second", "of-the-second").replace("current-context: lab", "current-context: x")
    )
    config = own_cluster({"KUBECONFIG": f"{first}:/nowhere:{second}"}).config
    assert (config.cluster.server, config.user and config.user.token) == ("https://second", "of-the-first")


def test_paths_in_a_kubeconfig_begin_in_its_folder(tmp_path: Path) -> None:
    text = kubeconfig("https://h", "t").replace('"server":', '"certificate-authority": "ca.crt", "server":')
    assert own_cluster(led_to(tmp_path, text)).config.cluster.certificate_auth == str(tmp_path / "ca.crt")


def test_a_server_that_does_not_answer_is_named(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        at = f"http://127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(Failure, match=f"Kubernetes, at {at}, does not answer") as caught:
            own_cluster(led_to(tmp_path, kubeconfig(at, ADMIN))).read_pod("web")
    assert "is lab the context that is meant?" in str(caught.value.hint)


def test_a_server_that_hangs_costs_its_deadline(tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        at = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(Failure, match=r"no whole answer within 0.2 s"):
            own_cluster(led_to(tmp_path, kubeconfig(at, ADMIN))).read_pod("web", deadline_s=0.2)


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, b"<html>log in</html>"),
        Answer(200, b"[]"),
        Answer(200, b'{"kind": "Pod"}'),
        Answer(200, b'{"metadata": {"name": 7}}'),
        Answer(200, b"[" * 100_000),
        Answer(502, b"<html>Bad Gateway</html>"),
    ],
)
def test_what_is_no_api_server_is_told(answer: Answer, tmp_path: Path) -> None:
    with (
        serving(lambda *_asked: answer) as at,
        pytest.raises(Failure, match="its answer is none of an API server"),
    ):
        own_cluster(led_to(tmp_path, kubeconfig(at, ADMIN))).read_pod("web")


def with_plugin(at: str, script: str, version: str = "v1", **more: object) -> str:
    """A kubeconfig that names a script as what logs in."""
    plugin = {"apiVersion": f"client.authentication.k8s.io/{version}", "command": "sh", "args": ["-c", script], **more}
    return kubeconfig(at, "TOKEN").replace("token: TOKEN", f"exec: {json.dumps(plugin)}")


def test_a_plugin_is_told_the_cluster_and_asked_for_a_token_in_either_form(tmp_path: Path) -> None:
    asked: list[str] = []

    def answer(_asked: str, who: str, _sent: bytes, _kind: str) -> Answer:
        asked.append(who)
        return Answer(401, b'{"kind": "Status", "code": 401, "message": "Unauthorized"}')

    token = json.dumps({"status": {"token": "of-the-plugin"}})
    script = f"printf %s \"$KUBERNETES_EXEC_INFO\" > {tmp_path}/told-$OF; cat > {tmp_path}/read; echo '{token}'"
    for version in ("v1", "v1beta1"):
        with serving(answer) as at:
            config = with_plugin(at, script, version, env=[{"name": "OF", "value": version}])
            with pytest.raises(Failure, match="Kubernetes refuses: Unauthorized"):
                own_cluster(led_to(tmp_path, config)).read_pod("web")
        told = json.loads((tmp_path / f"told-{version}").read_text())
        assert (told["apiVersion"], told["kind"]) == (f"client.authentication.k8s.io/{version}", "ExecCredential")
        said = {"server": at, "insecure-skip-tls-verify": False}
        assert told["spec"] == {"cluster": said, "interactive": False}
        assert (tmp_path / "read").read_bytes() == b""  # what we are sent is not for it
    assert asked == ["of-the-plugin"] * 2


def test_a_plugin_is_told_by_whom_the_server_is_certified(tmp_path: Path) -> None:
    script = 'printf %s "$KUBERNETES_EXEC_INFO" > told; echo "{\\"status\\": {\\"token\\": \\"of-the-plugin\\"}}"'
    argv = ("sh", "-c", f"cd {tmp_path}; {script}")
    plugin = Plugin(argv=argv, version="client.authentication.k8s.io/v1", environ={}, install=None)
    assert token_of(plugin, Server("https://h", "UEVN", insecure=False), 60) == "of-the-plugin"
    told = json.loads((tmp_path / "told").read_text())
    assert told["spec"]["cluster"]["certificate-authority-data"] == "UEVN"


@pytest.mark.parametrize(
    ("script", "said", "hint"),
    [
        ("echo 'no such profile' >&2; echo more >&2; exit 3", "ended with status 3: no such profile$", "log in again"),
        ("exit 3", "ended with status 3: and says nothing$", "log in again"),
        ('echo \'{"status": {"clientCertificateData": "PEM"}}\'', "gives a certificate; only tokens", "client-key"),
        ("echo '{\"status\": {}}'", "gives no token$", "log in again"),
        ("echo '[]'", "gives no token$", "log in again"),
        ("echo hello", "gives no token$", "log in again"),
        ('echo \'{"status": {"token": 7}}\'', "gives no token$", "log in again"),
    ],
)
def test_a_plugin_that_gives_no_token_is_named(script: str, said: str, hint: str, tmp_path: Path) -> None:
    with pytest.raises(Failure, match=f"^sh, which the kubeconfig names to log in, {said}") as caught:
        own_cluster(led_to(tmp_path, with_plugin("http://127.0.0.1:1", script))).read_pod("web")
    assert hint in str(caught.value.hint)


def test_a_plugin_that_hangs_is_ended_at_the_deadline(tmp_path: Path) -> None:
    script = f"echo $$ > {tmp_path}/pid; exec sleep 600"
    with pytest.raises(Failure, match="sh, which the kubeconfig names to log in, did not end within 2 s"):
        own_cluster(led_to(tmp_path, with_plugin("http://127.0.0.1:1", script))).read_pod("web", deadline_s=2)
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists()


def test_a_plugin_that_is_not_there_is_told_with_how_to_get_it(tmp_path: Path) -> None:
    text = with_plugin("http://127.0.0.1:1", "", command="/nowhere/login", installHint="apt-get install login")
    with pytest.raises(Failure, match=r"^/nowhere/login, which the kubeconfig names to log in: no such file") as caught:
        own_cluster(led_to(tmp_path, text)).read_pod("web")
    assert caught.value.hint == "apt-get install login"


@pytest.mark.parametrize("word", ["pod:", "pod:A", "pod:a/b/c", "pod:a b", "pod:../x", "pod:-a"])
def test_what_is_no_name_of_a_pod_is_not_asked_for(word: str, tmp_path: Path) -> None:
    with pytest.raises(Failure, match="is no name of a pod"):
        own_cluster(led_to(tmp_path, kubeconfig("http://127.0.0.1:1", ADMIN))).read_pod(word.removeprefix("pod:"))


def extra(name: str) -> str:
    """What the package asks for, for its users who want that too."""
    asked = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    [needed] = asked["project"]["optional-dependencies"][name]
    return str(needed)


def test_without_the_extra_one_line_says_how_to_get_it(tmp_path: Path) -> None:
    program = "import sys; sys.modules['lightkube'] = None; sys.argv[1:] = ['why', 'pod:web']; "
    program += "from reprieve import cli; cli.run()"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert ended.returncode == 1
    assert ended.stderr.endswith(f"  {sys.executable} -m pip install '{extra('kubernetes')}'\n")

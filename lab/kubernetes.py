"""A real Kubernetes 1.20: etcd of Debian, the API server and the kubelet built from Debian's source.

Debian ships its client alone; but the source package of bookworm has the whole tree, with all that it needs.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from lab.host import LabError, call, debian_mirror, folder, install

PACKAGES = ("etcd-server", "golang-1.19-go", "rsync", "jq", "make", "gcc", "libc6-dev", "dpkg-dev", "openssl")
_SERVER, _KUBELET = "kube-apiserver", "kubelet"
_VERSION = "v1.20.2"
_BUILD_S = 3 * 3600
_PATIENCE_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A running API server."""

    url: str
    folder: Path
    token: str  # of one who may do everything


def program(name: str = _SERVER) -> Path:
    """What was built. Raises LabError: nothing was."""
    kept = folder() / "kubernetes" / name
    if not kept.exists():
        raise LabError(f"{name} of Kubernetes was not built", hint="make kubernetes")
    return kept


def build() -> None:
    """Build what is not kept."""
    install(PACKAGES)
    kept = folder() / "kubernetes"
    wanted = [name for name in (_SERVER, _KUBELET) if not (kept / name).exists()]
    if not wanted:
        return
    kept.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="build-", dir=kept) as work:
        tree = _source(Path(work))
        home = tree / ".go/src/k8s.io"
        home.mkdir(parents=True)
        (home / "kubernetes").symlink_to(tree)
        settings = {
            "GOPATH": str(tree / ".go"),
            "GO111MODULE": "off",
            "GOPROXY": "off",
            "CGO_ENABLED": "0",
            "HOME": work,
        }
        settings |= {"KUBE_GIT_VERSION": _VERSION, "KUBE_GIT_COMMIT": "debian", "KUBE_GIT_TREE_STATE": "clean"}
        settings |= {"PATH": f"/usr/lib/go-1.19/bin:{os.environ['PATH']}"}
        env = [f"{name}={value}" for name, value in settings.items()]
        for name in wanted:
            call(["env", *env, "make", f"WHAT=cmd/{name}"], cwd=home / "kubernetes", timeout_s=_BUILD_S)
            shutil.copy(tree / "_output/bin" / name, kept / f"{name}.new")
            (kept / f"{name}.new").rename(kept / name)


def _source(work: Path) -> Path:
    """Debian's source, unpacked; the system's own list of sources stays as it is."""
    mirror = debian_mirror()
    (work / "lists/partial").mkdir(parents=True)
    (work / "sources.list").write_text(f"deb-src [signed-by={mirror.keyring}] {mirror.main_url} bookworm main\n")
    apt = [
        f"-oDir::Etc::SourceList={work}/sources.list",
        "-oDir::Etc::SourceParts=-",
        f"-oDir::State::Lists={work}/lists",
    ]
    apt += ["-oAPT::Sandbox::User=root"]
    call(["apt-get", *apt, "-qq", "update"])
    call(["apt-get", *apt, "-qq", "source", "kubernetes"], cwd=work)
    return next(path for path in work.iterdir() if path.name.startswith("kubernetes-") and path.is_dir())


@contextmanager
def control_plane(users: Sequence[tuple[str, str]] = ()) -> Iterator[Cluster]:
    """etcd and an API server on loopback, until the block ends. `users`: further tokens and whose they are."""
    built, token = program(), secrets.token_hex(16)
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kubernetes-")))
        (home / "tokens").write_text(
            f'{token},admin,admin,"system:masters"\n' + "".join(f"{one},{name},{name}\n" for one, name in users)
        )
        key = home / "accounts.key"
        call(["openssl", "genrsa", "-out", key, "2048"])
        store, peers, port = (_free_port() for _ in range(3))
        at = f"http://127.0.0.1:{store}"
        etcd = ["etcd", f"--data-dir={home}/etcd", f"--listen-client-urls={at}", f"--advertise-client-urls={at}"]
        etcd += [f"--listen-peer-urls=http://127.0.0.1:{peers}", "--unsafe-no-fsync"]
        stack.enter_context(_running(etcd[:-1], home / "etcd.log"))
        server = [str(built), f"--etcd-servers={at}", f"--cert-dir={home}", f"--secure-port={port}"]
        server += ["--bind-address=127.0.0.1", f"--token-auth-file={home}/tokens", "--authorization-mode=Node,RBAC"]
        server += ["--disable-admission-plugins=ServiceAccount", "--service-account-issuer=https://lab"]
        server += ["--kubelet-preferred-address-types=InternalIP"]  # no resolver knows its nodes
        server += [f"--service-account-key-file={key}", f"--service-account-signing-key-file={key}"]
        process = stack.enter_context(
            _running([*server, "--service-cluster-ip-range=10.0.0.0/24"], home / "apiserver.log")
        )
        cluster = Cluster(url=f"https://127.0.0.1:{port}", folder=home, token=token)
        _wait_until_ready(cluster, process)
        yield cluster


def _wait_until_ready(cluster: Cluster, process: subprocess.Popen[bytes]) -> None:
    ends = time.monotonic() + _PATIENCE_S
    while True:
        try:
            trusted = ssl.create_default_context(cafile=cluster.folder / "apiserver.crt")
            asked = urllib.request.Request(
                f"{cluster.url}/readyz", headers={"Authorization": f"Bearer {cluster.token}"}
            )
            with urllib.request.urlopen(asked, context=trusted, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            if process.poll() is not None or time.monotonic() > ends:
                told = (cluster.folder / "apiserver.log").read_text(errors="backslashreplace")[-600:]
                raise LabError(f"the API server is not ready: {told}") from None
            time.sleep(0.2)


@contextmanager
def _running(argv: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as out:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port

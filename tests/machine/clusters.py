"""A Kubernetes to test with: what a real API server answered, told again; or, with `matrix`, that server itself."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab.host import LabError
from lab.kubernetes import Cluster, control_plane
from tests.machine.api_server import Exchange, recording, replaying
from tests.machine.real import missing

ADMIN, VIEWER, NOBODY = "admin", "viewer", "nobody-here"  # bearers, by their names: a recording holds no token

_TOKENS = {VIEWER: "of-the-viewer"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kube:
    """Where `reprieve` is led, and what becomes of what it asks there."""

    address: str
    folder: Path
    cluster: Cluster | None  # None: what one answered is told again
    told: list[Exchange] = field(default_factory=list)  # what it was asked through that address
    meanwhile: list[Callable[[], object]] = field(default_factory=list)  # what others do before the next patches

    def make(self, path: str, *objects: dict[str, Any]) -> None:
        """Have objects there."""
        for one in objects:
            self.call("POST", path, one)

    def call(self, method: str, path: str, body: object = None, kind: str = "application/json") -> Any:
        """What the server itself answers, past all that stands between; None where there is none."""
        if self.cluster is None:
            return None
        headers = {"Authorization": f"Bearer {self.cluster.token}", "Content-Type": kind}
        sent = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.cluster.url}{path}", method=method, headers=headers, data=sent)
        trusted = ssl.create_default_context(cafile=self.cluster.folder / "apiserver.crt")
        with urllib.request.urlopen(request, context=trusted, timeout=60) as response:
            return json.loads(response.read())

    def patches(self) -> list[Any]:
        """Those that were made, not only tried, through that address."""
        made = (one for one in self.told if one.asked.startswith("PATCH ") and "dryRun=" not in one.asked)
        return [one.sent for one in made if one.status == 200]

    def kubeconfig(self, who: str = ADMIN) -> str:
        """A file of one user of it."""
        path = self.folder / f"kubeconfig-{who}"
        path.write_text(
            kubeconfig(self.address, who)
            if self.cluster is None or self.address != self.cluster.url
            else kubeconfig(self.address, self.cluster.token, authority=self.cluster.folder / "apiserver.crt")
        )
        return str(path)

    def run(self, *arguments: str, status: int = 0, who: str = ADMIN) -> subprocess.CompletedProcess[str]:
        """Run `reprieve` with a journal of changes of its own, in the place of this machine's."""
        keeps = self.folder / "lib"
        keeps.mkdir(exist_ok=True)
        mount = 'mount --bind "$0" /var/lib && exec "$@"'
        private = ["unshare", "--mount", "--propagation", "private", "sh", "-c", mount, str(keeps)]
        ended = subprocess.run(
            [*(private if os.geteuid() == 0 else ()), sys.executable, "-m", "reprieve", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=os.environ | {"COLUMNS": "120", "KUBECONFIG": self.kubeconfig(who), "XDG_STATE_HOME": str(keeps)},
        )
        assert ended.returncode == status, ended.stdout + ended.stderr
        return ended


def kubeconfig(server: str, token: str, authority: Path | None = None) -> str:
    """What kubectl would have: one cluster, one user, the namespace `shop`."""
    at = {"server": server} | ({} if authority is None else {"certificate-authority": str(authority)})
    return (
        f"clusters: [{{name: lab, cluster: {json.dumps(at)}}}]\nusers: [{{name: me, user: {{token: {token}}}}}]\n"
        "contexts: [{name: lab, context: {cluster: lab, user: me, namespace: shop}}]\ncurrent-context: lab\n"
    )


@contextmanager
def real() -> Iterator[Cluster]:
    """A real API server, in which `shop` is a namespace, and a viewer may look at what is in it alone."""
    try:
        with control_plane([(_TOKENS[VIEWER], VIEWER)]) as cluster:
            admin = Kube(address=cluster.url, folder=cluster.folder, cluster=cluster)
            admin.make("/api/v1/namespaces", {"metadata": {"name": "shop"}})
            rbac, group = "/apis/rbac.authorization.k8s.io/v1/namespaces/shop", "rbac.authorization.k8s.io"
            rule = {"apiGroups": ["", "apps"], "resources": ["pods", "events", "deployments"], "verbs": ["get", "list"]}
            admin.make(f"{rbac}/roles", {"metadata": {"name": "look"}, "rules": [rule]})
            role = {"apiGroup": group, "kind": "Role", "name": "look"}
            bound = {"roleRef": role, "subjects": [{"kind": "User", "name": VIEWER}], "metadata": {"name": VIEWER}}
            admin.make(f"{rbac}/rolebindings", bound)
            yield cluster
    except LabError as error:
        missing(str(error))


@contextmanager
def kube(cluster: Cluster | None, name: str, folder: Path) -> Iterator[Kube]:
    """For one test, by its name; what a real server answers is recorded where REPRIEVE_RECORD is set."""
    told: list[Exchange] = []
    meanwhile: list[Callable[[], object]] = []
    if cluster is None:
        with replaying(name, told) as address:
            yield Kube(address=address, folder=folder, cluster=None, told=told)
        return
    tokens, kept = _TOKENS | {ADMIN: cluster.token}, name if os.environ.get("REPRIEVE_RECORD") else None
    with recording(cluster, tokens, kept, told, meanwhile) as address:
        yield Kube(address=address, folder=folder, cluster=cluster, told=told, meanwhile=meanwhile)

"""The program that a kubeconfig names to give a token: client.authentication.k8s.io, as kubectl would run it.

lightkube would run one too, but leaves it our standard input, tells it nothing of the cluster, and lets it run on.
"""

import json
import os
import subprocess
from collections.abc import Mapping
from typing import NamedTuple

from reprieve.machine.engine import text
from reprieve.machine.source import shown
from reprieve.model.finding import Failure
from reprieve.oom import fields

_LOG_IN = "log in again, as for kubectl"


class Plugin(NamedTuple):
    """What a kubeconfig says of it."""

    argv: tuple[str, ...]
    version: str  # of the question: client.authentication.k8s.io/v1
    environ: Mapping[str, str]  # beside what we have
    install: str | None  # how to get it, in the words of who wrote the file


class Server(NamedTuple):
    """For which cluster it is asked; as the fields of ExecCredential have it."""

    url: str
    authority: str | None  # base64 of PEM
    insecure: bool


def token_of(plugin: Plugin, server: Server, deadline_s: float) -> str:
    """What it gives. Raises Failure: it is not there, fails, takes too long, or gives none."""
    name = f"{shown(plugin.argv[0])}, which the kubeconfig names to log in"
    cluster: dict[str, object] = {"server": server.url, "insecure-skip-tls-verify": server.insecure}
    cluster |= {} if server.authority is None else {"certificate-authority-data": server.authority}
    spec = {"cluster": cluster, "interactive": False}
    asked = {"apiVersion": plugin.version, "kind": "ExecCredential", "spec": spec}
    environ = os.environ | plugin.environ | {"KUBERNETES_EXEC_INFO": json.dumps(asked)}
    try:
        ended = subprocess.run(
            plugin.argv, stdin=subprocess.DEVNULL, capture_output=True, env=environ, timeout=deadline_s
        )
    except subprocess.TimeoutExpired:
        hint = "kubectl get pods: does it ask for something there?"
        raise Failure(f"{name}, did not end within {deadline_s:.0f} s", hint=hint) from None
    except OSError as error:
        hint = text(plugin.install) if plugin.install else "what the kubeconfig names is to be there"
        raise Failure(f"{name}: {(error.strerror or str(error)).lower()}", hint=hint) from error
    if ended.returncode != 0:
        said = ended.stderr.decode(errors="backslashreplace").strip().splitlines()
        first = text(said[0]) if said else "and says nothing"
        raise Failure(f"{name}, ended with status {ended.returncode}: {first}", hint=_LOG_IN)
    try:
        told = json.loads(ended.stdout)
    except (ValueError, RecursionError):
        told = None
    status = fields.table(told if isinstance(told, dict) else {}, "status")
    token = status.get("token")
    if isinstance(token, str) and token:
        return token
    if status.get("clientCertificateData"):
        hint = "client-certificate and client-key in the kubeconfig are taken: it can be kept there"
        raise Failure(f"{name}, gives a certificate; only tokens are taken from it", hint=hint)
    raise Failure(f"{name}, gives no token", hint=_LOG_IN)

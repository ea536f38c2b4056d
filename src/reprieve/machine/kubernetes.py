"""The API server of Kubernetes, asked by lightkube as whom the user's own kubeconfig names, within one deadline.

lightkube is an extra: nothing else imports it, and what it raises ends here.
"""

import base64
import os
import re
import shlex
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from reprieve.machine.engine import text
from reprieve.machine.kubeplugin import Plugin, Server, token_of
from reprieve.machine.source import shown
from reprieve.model.finding import Failure

if TYPE_CHECKING:
    from lightkube import ApiError, AsyncClient, KubeConfig
    from lightkube.config.kubeconfig import SingleConfig

_EXTRA = "lightkube>=1.0,<2"
_DEADLINE_S = 10.0
_NAMES = 5  # of pods that are told where one is not there
NAME = "[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?"  # of a name: RFC 1123
_POD = rf"(?:(?P<namespace>{NAME})/)?(?P<name>{NAME})"
_BESIDE = (  # in which entries of a kubeconfig there are paths, which begin in its folder
    ("clusters", "cluster", ("certificate-authority",)),
    ("users", "user", ("client-certificate", "client-key", "tokenFile")),
)

_Told = TypeVar("_Told")


class Pod(NamedTuple):
    """What the API server tells of a pod, as `kubectl get -o json` would print it."""

    pod: dict[str, Any]
    events: list[dict[str, Any]]  # of this very pod, as long as the server keeps them: an hour unless told
    node: dict[str, Any] | None  # None: there is none, or it may not be asked for


class Cluster(NamedTuple):
    """An API server, and as whom it is asked."""

    config: "SingleConfig"

    @property
    def server(self) -> str:
        """Its address."""
        return shown(self.config.cluster.server)

    @property
    def namespace(self) -> str:
        """That of the context."""
        return shown(self.config.namespace)

    def ask(self, work: "Callable[[AsyncClient], Awaitable[_Told]]", deadline_s: float = _DEADLINE_S) -> _Told:
        """What comes of the work with a client. Raises Failure: the server is not there, refuses, or talks nonsense."""
        return _ask(self.config, work, deadline_s)

    def read_pod(self, called: str, *, deadline_s: float = _DEADLINE_S) -> Pod:
        """Of `shop/web`, or of `web` in the namespace of the context. Raises Failure: it is not there, or not told."""
        match = re.fullmatch(_POD, called)
        if match is None:
            raise Failure(f"{called!r} is no name of a pod", hint="pod:NAMESPACE/NAME, or pod:NAME")
        name, namespace = match["name"], match["namespace"] or self.namespace

        async def work(client: "AsyncClient") -> Pod:
            from lightkube import ApiError
            from lightkube.resources import core_v1

            try:
                pod = (await client.get(core_v1.Pod, name, namespace=namespace)).to_dict()
            except ApiError as error:
                if error.status.code != 404:
                    raise
                near = await _near(client, name, namespace)
                raise Failure(f"namespace {namespace} has no pod {name}", hint=near) from None
            uid = str(pod["metadata"]["uid"])
            listed = client.list(core_v1.Event, namespace=namespace, fields={"involvedObject.uid": uid})
            events = [event.to_dict() async for event in listed]
            node = None
            if on := pod["spec"].get("nodeName"):
                try:
                    node = (await client.get(core_v1.Node, on)).to_dict()
                except ApiError as error:
                    if error.status.code not in (403, 404):  # nodes are of no namespace: few may ask for them
                        raise
            return Pod(pod, events, node)

        return self.ask(work, deadline_s)

    def read_nodes(self) -> list[dict[str, Any]] | None:
        """All of the cluster; None: they may not be asked for, or are too many to be told in time."""

        async def work(client: "AsyncClient") -> list[dict[str, Any]]:
            from lightkube.resources.core_v1 import Node

            return [node.to_dict() async for node in client.list(Node)]

        try:
            return self.ask(work)
        except Failure:
            return None


async def _near(client: "AsyncClient", name: str, namespace: str) -> str:
    """Which pods there are: those of a Deployment have another name each time."""
    from difflib import get_close_matches

    from lightkube import ApiError
    from lightkube.resources.core_v1 import Pod

    try:
        pods = [pod.metadata.name async for pod in client.list(Pod, namespace=namespace) if pod.metadata]
    except ApiError:
        return f"kubectl get pods -n {namespace}"
    names = [text(one) for one in pods if one]
    near = get_close_matches(name, names, _NAMES, cutoff=0.4) or names
    more = ", …" if len(near) > _NAMES else ""
    return f"there is {', '.join(near[:_NAMES])}{more}" if near else "there is none at all: pod:NAMESPACE/NAME"


def _ask(
    config: "SingleConfig", work: "Callable[[AsyncClient], Awaitable[_Told]]", deadline_s: float = _DEADLINE_S
) -> _Told:
    """What comes of the work with a client. Raises Failure: the server is not there, refuses, or talks nonsense."""
    import asyncio

    import httpx2
    import msgspec
    from lightkube import ApiError, AsyncClient, ConfigError

    place = f"Kubernetes, at {shown(config.cluster.server)}"
    ends_s = time.monotonic() + deadline_s

    async def within(config: "SingleConfig") -> _Told:
        async with asyncio.timeout(ends_s - time.monotonic()):
            client = AsyncClient(config, timeout=httpx2.Timeout(deadline_s))
            try:
                return await work(client)
            finally:
                await client.close()

    try:
        return asyncio.run(within(_logged_in(config, deadline_s)))
    except (TimeoutError, httpx2.TimeoutException):
        hint = f"is it reached from here? kubectl --context={config.context_name} version"
        raise Failure(f"{place}: no whole answer within {deadline_s:g} s", hint=hint) from None
    except ApiError as error:
        raise refusal(error) from error
    except httpx2.TransportError as error:
        hint = f"does it run, and is {config.context_name} the context that is meant?"
        raise Failure(f"{place}, does not answer: {text(str(error))}", hint=hint) from error
    except ConfigError as error:
        raise Failure(
            f"{place}: {text(str(error))}", hint="does kubectl get in? Then lightkube does not know this way"
        ) from error
    except OSError as error:  # a certificate that is not there
        raise Failure(f"{place}: {text(str(error))}", hint="what the kubeconfig names is to be there") from error
    # KeyError: lightkube looks for the type of what refuses, and a proxy may give none
    except (
        *(httpx2.HTTPError, httpx2.InvalidURL, msgspec.MsgspecError),
        *(KeyError, ValueError, TypeError, RecursionError),
    ) as error:
        said = f"{place}: its answer is none of an API server ({text(str(error))})"
        raise Failure(said, hint="which program listens there?") from error


def _logged_in(config: "SingleConfig", deadline_s: float) -> "SingleConfig":
    """With a token in the place of a plugin that gives one."""
    from msgspec.structs import replace

    user, cluster = config.user, config.cluster
    if user is None or user.exec is None or user.token is not None or user.token_file is not None:
        return config
    authority = cluster.certificate_auth_data
    if authority is None and cluster.certificate_auth is not None:
        with open(cluster.certificate_auth, "rb") as file:
            authority = base64.b64encode(file.read()).decode()
    plugin = Plugin(
        argv=(user.exec.command, *(user.exec.args or ())),
        version=user.exec.apiVersion,
        environ={one.name: one.value for one in user.exec.env or ()},
        install=user.exec.installHint,
    )
    token = token_of(plugin, Server(cluster.server, authority, cluster.insecure), deadline_s)
    return config._replace(user=replace(user, token=token, exec=None))


def refusal(error: "ApiError") -> Failure:
    """What the server said, where it would not."""
    said = text(error.status.message or f"status {error.status.code}")
    hints = {
        401: "log in again, as for kubectl",
        403: "kubectl auth can-i --list tells what is allowed; who rules the cluster allows more",
        409: "something changes it all the while: kubectl rollout status tells when that ends",
    }
    return Failure(f"Kubernetes refuses: {said}", hint=hints.get(error.status.code or 0))


def own_cluster(environ: Mapping[str, str] = os.environ) -> Cluster:
    """That of the present context, as kubectl has it. Raises Failure: there is none."""
    return _chosen(_kubeconfig(environ), None)


def cluster_at(server: str, environ: Mapping[str, str] = os.environ) -> Cluster:
    """That at this address, by the present context or the first that leads there. Raises Failure: none does."""
    config = _kubeconfig(environ)
    for name in (config.current_context, *config.contexts):
        try:
            found = _chosen(config, name)
        except Failure:  # what another context lacks is none of our business
            continue
        if found.server == server:
            return found
    hint = "KUBECONFIG=FILE names the one by which it was changed"
    raise Failure(f"no context of the kubeconfig leads to {shown(server)}", hint=hint)


def _chosen(config: "KubeConfig", context: str | None) -> Cluster:
    from lightkube import ConfigError
    from lightkube.config.models import User

    hint = "kubectl config get-contexts lists them, kubectl config use-context NAME chooses"
    try:
        found = config.get(context)
    except ConfigError as error:
        raise Failure(f"the kubeconfig leads to no cluster: {text(str(error))}", hint=hint) from error
    except KeyError as error:  # of its context
        raise Failure(f"the kubeconfig has no {text(str(error))}, which its context names", hint=hint) from error
    assert found is not None  # that is the default, and none is given
    return Cluster(found._replace(user=found.user or User()))


def _kubeconfig(environ: Mapping[str, str]) -> "KubeConfig":
    """Of the files of KUBECONFIG, and of each name in them, the first counts; without it ~/.kube/config; without that,
    in a pod, its own account. Raises Failure.
    """
    try:
        import yaml
        from lightkube import ConfigError, KubeConfig
        from msgspec import MsgspecError
    except ImportError as error:
        said = f"Kubernetes is asked by lightkube, an extra that is not installed here ({error.name})"
        raise Failure(said, hint=f"{shlex.quote(sys.executable)} -m pip install {shlex.quote(_EXTRA)}") from error

    named = [path for path in environ.get("KUBECONFIG", "").split(os.pathsep) if path]
    paths = [path for path in named or [os.path.expanduser("~/.kube/config")] if os.path.exists(path)]
    if not paths and (named or "KUBERNETES_SERVICE_HOST" not in environ):
        looked = " nor ".join(map(shown, named)) or "KUBECONFIG is not set, and ~/.kube/config"
        usual = "/etc/kubernetes/admin.conf on a node of kubeadm, /etc/rancher/k3s/k3s.yaml of k3s"
        hint = f"KUBECONFIG=FILE names that of the cluster, as {usual}"
        raise Failure(f"no kubeconfig: {looked} is not there", hint=hint)
    try:
        if not paths:
            return KubeConfig.from_service_account()
        merged: dict[str, Any] = {}
        for path in paths:
            with open(path, encoding="utf-8") as file:
                _merge(merged, yaml.safe_load(file) or {}, os.path.dirname(os.path.abspath(path)))
        return KubeConfig.from_dict(merged)
    except OSError as error:
        said = f"{shown(str(error.filename))}: {(error.strerror or str(error)).lower()}"
        raise Failure(said, hint="KUBECONFIG=FILE names one that may be read") from error
    # What stands in such a file may be anything: what is no table where one is looked for fails as it is used.
    except (yaml.YAMLError, ConfigError, MsgspecError, ValueError, LookupError, TypeError, AttributeError) as error:
        where = shown(":".join(paths)) or "the account of this pod"
        why = " ".join(text(line) for line in str(error).splitlines())
        raise Failure(f"{where} is no kubeconfig: {why}", hint="kubectl config view shows it") from error


def _merge(merged: dict[str, Any], told: dict[str, Any], folder: str) -> None:
    """What one file says, where none before it did; its paths begin in its folder."""
    for entries, inside, keys in _BESIDE:
        for entry in told.get(entries) or ():
            for key in keys:
                if entry[inside].get(key):
                    entry[inside][key] = os.path.join(folder, entry[inside][key])
    for entries in ("clusters", "contexts", "users"):
        known = merged.setdefault(entries, [])
        names = {entry["name"] for entry in known}
        known += [entry for entry in told.get(entries) or () if entry["name"] not in names]
    if told.get("current-context"):
        merged.setdefault("current-context", told["current-context"])

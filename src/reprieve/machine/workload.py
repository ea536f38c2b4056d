"""The memory limit that a Deployment, StatefulSet or DaemonSet gives a container of its pods.

It is set by server-side apply as the field manager `reprieve-CONTAINER`, tried before with dry-run, and read back. What
a manager applied before and now leaves out is taken away: so there is one for each container, of this one field.
A value is the quantity as the API server writes it (`2Gi`); None: no limit.
"""

import os
import re
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from reprieve.machine.engine import text
from reprieve.machine.kubernetes import NAME, Cluster, cluster_at, own_cluster
from reprieve.machine.workload_owner import owner_of
from reprieve.model.finding import Failure, Place, quote
from reprieve.oom import fields
from reprieve.units import parse_size, size

if TYPE_CHECKING:
    from lightkube import AsyncClient

KINDS = {"deploy": "Deployment", "sts": "StatefulSet", "ds": "DaemonSet"}
_KEY = "memory"
_MANAGER = "reprieve"
_PATIENCE_S, _PAUSE_S = 10.0, 0.2  # with what is changed while it is changed: a rollout, which changes its status
_WORD = rf"(?P<kind>{'|'.join(KINDS)})/(?:(?P<namespace>{NAME})/)?(?P<name>{NAME})(?::(?P<container>{NAME}))?"
_OF = (
    rf"(?P<server>.+)/(?P<namespace>{NAME})/(?P<kind>{'|'.join(KINDS)})/(?P<name>{NAME})@(?P<uid>[0-9a-f-]{{1,64}})"
    rf"/(?P<container>{NAME})"
)
_UNITS = (("Ti", 1 << 40), ("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10))


class Target(NamedTuple):
    """A container that somebody named: the place of its limit, and what comes of changing it."""

    place: Place
    cost: str


class _Parts(NamedTuple):
    server: str
    namespace: str
    kind: str
    name: str
    uid: str
    container: str


class WorkloadLimit:
    """`k8s:https://10.0.0.1:6443/shop/deploy/web@UID/app/memory`, by the server's address: another context is another
    cluster; and by its UID: one that is made anew under the same name is another.
    """

    lasts = True

    def __init__(self, environ: Mapping[str, str] = os.environ, *, patience_s: float = _PATIENCE_S) -> None:
        self._environ, self._patience_s = environ, patience_s

    def get(self, place: Place) -> str | None:
        """The limit that is written there."""
        parts, cluster = self._of(place)
        return _limit(_container(_same(_read(cluster, parts), parts, place), parts.container))

    def put(self, place: Place, want: str | None) -> None:
        """Try it, then apply it to what was looked at: who has changed the limit in between comes first."""
        parts, cluster = self._of(place)
        told = _same(_read(cluster, parts), parts, place)
        if (owner := owner_of(told, parts.container)) is not None:
            raise owner
        for dry_run in (True, False):
            self._apply(cluster, parts, told, want, dry_run=dry_run)

    def canonical(self, place: Place, want: str | None) -> str | None:
        """In whole pages, as the server writes it, or as it is written already."""
        parts, cluster = self._of(place)
        if want is None:
            return None
        wanted = fields.quantity(want)
        size_bytes = wanted if isinstance(wanted, int) else parse_size(want)
        if size_bytes is None or quantity(size_bytes) == "0":
            raise Failure(f"{want!r} is no limit that a process could live in", hint="512M, 2G")
        there = _limit(_container(_same(_read(cluster, parts), parts, place), parts.container))
        there_bytes = fields.quantity(there)
        same = isinstance(there_bytes, int) and quantity(there_bytes) == quantity(size_bytes)
        return there if same else quantity(size_bytes)

    def obstacle(self, place: Place, want: str | None) -> Failure | None:
        """Who would write it again, what it requests, and what the server says of it, and of a pod like that."""
        parts, cluster = self._of(place)
        told = _same(_read(cluster, parts), parts, place)
        if (owner := owner_of(told, parts.container)) is not None:
            return owner
        container = _container(told, parts.container)
        asked, limit = _amount(container, "requests"), fields.quantity(want)
        if isinstance(asked, int) and isinstance(limit, int) and limit < asked:
            reason = f"{parts.container} requests {size(asked)}, and a limit is not below that"
            return Failure(reason, hint=f"--max {-(-asked // (1 << 20))}M or more, or less of a request first")
        try:
            made = self._apply(cluster, parts, told, want, dry_run=True)
        except Failure as failure:
            return failure
        return _refused_pod(cluster, parts, made)

    def gone(self, place: Place) -> bool:
        """Was it deleted, or made anew?"""
        parts, cluster = self._of(place)
        told = _read(cluster, parts)
        return told is None or told["metadata"]["uid"] != parts.uid

    def _apply(
        self, cluster: Cluster, parts: _Parts, told: dict[str, Any], want: str | None, *, dry_run: bool
    ) -> dict[str, Any]:
        """What it is then, if its limit still is what was told of it. Raises Failure: another's limit would change.

        Every change of the object has a version, that of its status by a rollout too: then it is looked at again.
        """
        ends_s, container = time.monotonic() + self._patience_s, _container(told, parts.container)
        while True:
            try:
                made = _patch(cluster, parts, told, want, dry_run=dry_run)
                break
            except _Conflict as conflict:
                now = _read(cluster, parts)
                if now is None or now["metadata"]["uid"] != parts.uid:
                    raise Failure(f"{parts.kind}/{parts.name} was deleted meanwhile") from conflict
                if (owner := owner_of(now, parts.container)) is not None:
                    raise owner from conflict
                found, was = _limit(_container(now, parts.container)), _limit(container)
                if found != was:
                    raise Failure(
                        f"its limit became {found!r} meanwhile, from {was!r}", hint="plan again"
                    ) from conflict
                if time.monotonic() > ends_s:
                    raise
                time.sleep(_PAUSE_S)
                told = now
        if also := _beside(told, parts.container) ^ _beside(made, parts.container):
            names = ", ".join(sorted({text(name) for name, *_ in also}))
            raise Failure(f"with it the server would change what {names} may have")
        return made

    def _of(self, place: Place) -> tuple[_Parts, Cluster]:
        match = re.fullmatch(_OF, place.of)
        if match is None or place.key != _KEY:
            hint = "k8s:https://10.0.0.1:6443/shop/deploy/web@UID/app/memory is one"
            raise Failure(f"{place} is no limit of a container of Kubernetes", hint=hint)
        parts = _Parts(**match.groupdict())
        return parts, cluster_at(parts.server, self._environ)


def find_workload(word: str, most_bytes: int, environ: Mapping[str, str] = os.environ) -> Target:
    """What `deploy/web`, `sts/shop/db` or `ds/shop/log:app` names, and what a limit of so much comes to.

    Raises Failure: nothing has that name, or it has several containers.
    """
    match = re.fullmatch(_WORD, word)
    if match is None:
        raise Failure(f"{word!r} is no name of a workload", hint="deploy/NAME, sts/NAMESPACE/NAME, ds/NAME:CONTAINER")
    cluster = own_cluster(environ)
    named = _Parts(
        server=cluster.server,
        namespace=match["namespace"] or cluster.namespace,
        kind=match["kind"],
        name=match["name"],
        uid="",
        container=match["container"] or "",
    )
    told = _read(cluster, named)
    if told is None:
        kinds = f"{KINDS[named.kind].lower()}s"
        hint = f"kubectl get {kinds} -n {named.namespace} tells which there are; deploy/NAMESPACE/NAME is of another"
        raise Failure(f"namespace {named.namespace} has no {KINDS[named.kind]} {named.name}", hint=hint)
    names = [text(one["name"]) for one in _containers(told)]
    if not named.container and len(names) != 1:
        raise Failure(f"{word} has {len(names)} containers", hint=" or ".join(f"{word}:{name}" for name in names))
    parts = named._replace(uid=told["metadata"]["uid"], container=named.container or names[0])
    _container(told, parts.container)
    of = f"{parts.server}/{parts.namespace}/{parts.kind}/{parts.name}@{parts.uid}/{parts.container}"
    return Target(Place(kind="k8s", of=of, key=_KEY), "; ".join(_costs(told, parts, quantity(most_bytes))))


def quantity(size_bytes: int) -> str:
    """In whole pages, and the largest unit without a fraction, as the API server writes it.

    >>> quantity(2 << 30), quantity(1536 << 20), quantity(4097)
    ('2Gi', '1536Mi', '4Ki')
    """
    page = os.sysconf("SC_PAGE_SIZE")
    whole = size_bytes // page * page
    return next((f"{whole // unit}{name}" for name, unit in _UNITS if whole and whole % unit == 0), "0")


def _read(cluster: Cluster, parts: _Parts) -> dict[str, Any] | None:
    """None: there is none of that name."""

    async def work(client: "AsyncClient") -> dict[str, Any] | None:
        from lightkube import ApiError
        from lightkube.resources import apps_v1

        try:
            told = await client.get(getattr(apps_v1, KINDS[parts.kind]), parts.name, namespace=parts.namespace)
        except ApiError as error:
            if error.status.code == 404:
                return None
            raise
        found: dict[str, Any] = told.to_dict()
        return found

    return cluster.ask(work)


class _Conflict(Failure):
    """It has another version than what was looked at."""


def _patch(cluster: Cluster, parts: _Parts, told: dict[str, Any], want: str | None, *, dry_run: bool) -> dict[str, Any]:
    """What it is then, if it still is of the version that was told.

    To let go of the field is not to remove it: who held its parent as an empty one holds it then (tried on 1.20). So it
    is removed by name, where it stands.
    """
    version = told["metadata"]["resourceVersion"]
    wanted: dict[str, Any] | list[dict[str, Any]]
    if want is None:
        at = [one["name"] for one in _containers(told)].index(parts.container)
        path = f"/spec/template/spec/containers/{at}/resources/limits/{_KEY}"
        # Of a version that is replaced by another the server says that it conflicts; of one that is tested, nothing.
        wanted = [{"op": "replace", "path": "/metadata/resourceVersion", "value": version}]
        wanted.append({"op": "remove", "path": path})
    else:
        wanted = _limited(parts, want)
        wanted["metadata"]["resourceVersion"] = version

    async def work(client: "AsyncClient") -> dict[str, Any]:
        from lightkube import ApiError
        from lightkube.resources import apps_v1
        from lightkube.types import PatchType

        from reprieve.machine.kubernetes import refusal

        try:
            applied = await client.patch(
                getattr(apps_v1, KINDS[parts.kind]),
                parts.name,
                wanted,
                namespace=parts.namespace,
                patch_type=PatchType.JSON if want is None else PatchType.APPLY,
                field_manager=f"{_MANAGER}-{parts.container}",  # a container's name has at most 63 characters
                force=want is not None,  # from the hand of a person: whoever else holds it was an obstacle
                dry_run=dry_run,
            )
        except ApiError as error:
            if error.status.code != 409:
                raise
            said = refusal(error)
            raise _Conflict(said.message, hint=said.hint) from None
        made: dict[str, Any] = applied.to_dict()
        return made

    return cluster.ask(work)


def _limited(parts: _Parts, want: str) -> dict[str, Any]:
    """All that is said of it, as an object of the API."""
    limited = {"name": parts.container, "resources": {"limits": {_KEY: want}}}
    return {
        "apiVersion": "apps/v1",
        "kind": KINDS[parts.kind],
        "metadata": {"name": parts.name, "namespace": parts.namespace},
        "spec": {"template": {"spec": {"containers": [limited]}}},
    }


def _refused_pod(cluster: Cluster, parts: _Parts, made: dict[str, Any]) -> Failure | None:
    """Whether a pod of what was made would be let in: limits of the namespace and quotas hold for pods alone."""
    template = made["spec"]["template"]
    like = {**template.get("metadata", {}), "name": f"{parts.name[:200]}-reprieve", "namespace": parts.namespace}

    async def work(client: "AsyncClient") -> Failure | None:
        from lightkube import ApiError
        from lightkube.resources.core_v1 import Pod

        from reprieve.machine.kubernetes import refusal

        pod = Pod.from_dict({"metadata": like, "spec": template["spec"]})
        assert isinstance(pod, Pod)  # lightkube calls it what all its objects are
        try:
            await client.create(pod, dry_run=True)
        except ApiError as error:
            said = error.status.message or ""
            if error.status.code == 403 and "cannot create resource" not in said:  # else it is we who may not
                return Failure(f"its pods would not be let in: {refusal(error).message}", hint=_LIMITS)
        return None

    return cluster.ask(work)


_LIMITS = "kubectl get limitrange,resourcequota tells what the namespace allows"


def _same(told: dict[str, Any] | None, parts: _Parts, place: Place) -> dict[str, Any]:
    """Raises Failure: it is no more."""
    if told is None or told["metadata"]["uid"] != parts.uid:
        raise Failure(f"{place} is no more", hint="one of that name is another")
    return told


def _containers(told: dict[str, Any]) -> list[dict[str, Any]]:
    return fields.tables(told["spec"]["template"]["spec"], "containers")


def _container(told: dict[str, Any], name: str) -> dict[str, Any]:
    found = next((one for one in _containers(told) if one["name"] == name), None)
    if found is None:
        names = ", ".join(text(one["name"]) for one in _containers(told))
        raise Failure(f"it has no container {name}", hint=f"there is {names}")
    return found


def _limit(container: dict[str, Any]) -> str | None:
    told = fields.table(fields.table(container, "resources"), "limits").get(_KEY)
    return None if told is None else text(str(told))


def _beside(told: dict[str, Any], container: str) -> set[tuple[str, str, str, str]]:
    """What all its containers request and are limited to, but for the limit that is meant."""
    spec = told["spec"]["template"]["spec"]
    return {
        (one["name"], of, key, str(amount))
        for one in (*fields.tables(spec, "initContainers"), *fields.tables(spec, "containers"))
        for of in ("limits", "requests")
        for key, amount in fields.table(fields.table(one, "resources"), of).items()
        if (one["name"], of, key) != (container, "limits", _KEY)
    }


def _amount(container: dict[str, Any], of: str) -> fields.Limit:
    return fields.quantity(fields.table(fields.table(container, "resources"), of).get(_KEY))


def _costs(told: dict[str, Any], parts: _Parts, want: str) -> Iterator[str]:
    """What it comes to: its pods, their class, and when a node that is short of memory would evict them."""
    count = told["spec"].get("replicas") if parts.kind != "ds" else told.get("status", {}).get("desiredNumberScheduled")
    pods = "its pods are" if count is None else f"its {count} pods are" if count != 1 else "its pod is"
    strategy = told["spec"].get("updateStrategy") or {}
    if strategy.get("type") == "OnDelete":
        yield f"{pods} made anew only as somebody deletes them (OnDelete)"
    else:
        yield f"{pods} made anew (rollout), now and when it is undone"
    before, after = _quality(told, None), _quality(told, (parts.container, want))
    yield f"QoS class {before} stays" if before == after else f"QoS class {before} becomes {after}"
    container = _container(told, parts.container)
    asked = _amount(container, "requests")
    if asked is None:
        was = _amount(container, "limits")
        kept = f" and was {size(was)}" if isinstance(was, int) else ""
        yield f"its request, as none is written, is as large as the limit{kept}: a node must have as much left"
    above = size(asked) if isinstance(asked, int) else "that"
    yield (
        f"a node short of memory evicts first who uses more than it requests, {quote(parts.container)} above {above}, "
        "of those by priority, then by how much more"
    )
    yield "what it uses now is not known here: kubectl top pod tells, where metrics are kept"


def _quality(told: dict[str, Any], changed: tuple[str, str] | None) -> str:
    """The QoS class of its pods: GetPodQOS() in pkg/apis/core/v1/helper/qos. What is not requested is as the limit."""
    spec = told["spec"]["template"]["spec"]
    guaranteed, anything = True, False
    for container in (*fields.tables(spec, "initContainers"), *fields.tables(spec, "containers")):
        resources = fields.table(container, "resources")
        limits = dict(fields.table(resources, "limits"))
        if changed is not None and container["name"] == changed[0]:
            limits[_KEY] = changed[1]
        requests = {**limits, **fields.table(resources, "requests")}
        for kind in ("cpu", _KEY):
            asked, limit = (_comparable(kind, one.get(kind)) for one in (requests, limits))
            anything = anything or asked is not None
            guaranteed = guaranteed and limit is not None and asked == limit
    return "Guaranteed" if guaranteed else "Burstable" if anything else "BestEffort"


def _comparable(kind: str, told: object) -> object:
    """Nothing of something is not said."""
    return None if told in (None, "0") else fields.quantity(told) if kind == _KEY else told

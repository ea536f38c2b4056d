"""The memory that a Deployment, StatefulSet or DaemonSet limits a container of its pods to, and what it requests of it.

It is set by server-side apply as the field manager `reprieve-CONTAINER`, tried before with dry-run, and read back. What
a manager applied before and now leaves out is taken away: so there is one for each container and key, which always says
the same fields. Limit and request that change together are one place: two patches would make the pods anew twice, and
the first of them could ask for what no node has.
A value is the quantity as the API server writes it (`2Gi`), None where there is none; of both `2Gi+1Gi`, `+1Gi`.
"""

import os
import re
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from reprieve.machine.engine import text
from reprieve.machine.kubernetes import NAME, Cluster, cluster_at, own_cluster
from reprieve.machine.workload_cost import (
    LIMITS,
    REQUESTS,
    Amount,
    Pods,
    amount_of,
    changed,
    containers_of,
    costs,
    named,
    spec_of,
)
from reprieve.machine.workload_owner import owner_of
from reprieve.machine.workload_use import Use, most_used
from reprieve.model.finding import Failure, Place
from reprieve.oom import fields
from reprieve.units import MIB, parse_size, size

if TYPE_CHECKING:
    from lightkube import AsyncClient

KINDS = {"deploy": "Deployment", "sts": "StatefulSet", "ds": "DaemonSet"}
_LIMIT, _REQUEST, _BOTH = "memory", "requests", "memory+requests"
_FIELDS = {_LIMIT: (LIMITS,), _REQUEST: (REQUESTS,), _BOTH: (LIMITS, REQUESTS)}  # which fields a key is about
_CALLED = {_LIMIT: "limit", _REQUEST: "request", _BOTH: "limit and request"}
_MANAGER = "reprieve"
_PATIENCE_S, _PAUSE_S = 10.0, 0.2  # with what is changed while it is changed: a rollout, which changes its status
_WORD = rf"(?P<kind>{'|'.join(KINDS)})/(?:(?P<namespace>{NAME})/)?(?P<name>{NAME})(?::(?P<container>{NAME}))?"
_OF = (
    rf"(?P<server>.+)/(?P<namespace>{NAME})/(?P<kind>{'|'.join(KINDS)})/(?P<name>{NAME})@(?P<uid>[0-9a-f-]{{1,64}})"
    rf"/(?P<container>{NAME})"
)
_UNITS = (("Ti", 1 << 40), ("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10))


class Target(NamedTuple):
    """A container that somebody named: the place of what is to change, to what, and what comes of it."""

    place: Place
    want: str | None
    cost: str
    use: Use | Failure  # now; or why that is not known here


class _Parts(NamedTuple):
    server: str
    namespace: str
    kind: str
    name: str
    uid: str
    container: str
    key: str


class WorkloadMemory:
    """`k8s:https://10.0.0.1:6443/shop/deploy/web@UID/app/memory`, by the server's address: another context is another
    cluster; and by its UID: one that is made anew under the same name is another.
    """

    lasts = True

    def __init__(self, environ: Mapping[str, str] = os.environ, *, patience_s: float = _PATIENCE_S) -> None:
        self._environ, self._patience_s = environ, patience_s

    def get(self, place: Place) -> str | None:
        """What is written there."""
        parts, cluster = self._of(place)
        return _joined(_present(_same(_read(cluster, parts), parts, place), parts))

    def put(self, place: Place, want: str | None) -> None:
        """Try it, then apply it to what was looked at: who has changed it in between comes first."""
        (parts, cluster), wanted = self._of(place), _amounts(place, want)
        told = _same(_read(cluster, parts), parts, place)
        if (owner := owner_of(told, parts.container, _FIELDS[parts.key])) is not None:
            raise owner
        for dry_run in (True, False):
            self._apply(cluster, parts, told, wanted, dry_run=dry_run)

    def canonical(self, place: Place, want: str | None) -> str | None:
        """In whole pages, as the server writes it, or as it is written already."""
        parts, cluster = self._of(place)
        if want is None:
            return None
        present = _present(_same(_read(cluster, parts), parts, place), parts)
        wanted = _amounts(place, want)
        return _joined([_written(one, there) for one, there in zip(wanted, present, strict=True)])

    def obstacle(self, place: Place, want: str | None) -> Failure | None:
        """Who would write it again, a request above the limit, what the server says of it, and of a pod like that."""
        parts, cluster = self._of(place)
        told, wanted = _same(_read(cluster, parts), parts, place), _amounts(place, want)
        if (owner := owner_of(told, parts.container, _FIELDS[parts.key])) is not None:
            return owner
        if (crossed := _crossed(_container(told, parts.container), parts, wanted)) is not None:
            return crossed
        try:
            made = self._apply(cluster, parts, told, wanted, dry_run=True)
        except Failure as failure:
            return failure
        (pod,) = _try_pods(cluster, parts, made)
        return pod if pod is None or isinstance(pod, Failure) else _given(pod, parts, wanted)

    def gone(self, place: Place) -> bool:
        """Was it deleted, or made anew?"""
        parts, cluster = self._of(place)
        told = _read(cluster, parts)
        return told is None or told["metadata"]["uid"] != parts.uid

    def _apply(
        self, cluster: Cluster, parts: _Parts, told: dict[str, Any], wanted: Sequence[Amount], *, dry_run: bool
    ) -> dict[str, Any]:
        """What it is then, if that still is what was told of it. Raises Failure: something else would change with it.

        Every change of the object has a version, that of its status by a rollout too: then it is looked at again.
        """
        ends_s, before = time.monotonic() + self._patience_s, _joined(_present(told, parts))
        while True:
            try:
                made = _patch(cluster, parts, told, wanted, dry_run=dry_run)
                break
            except _Conflict as conflict:
                now = _read(cluster, parts)
                if now is None or now["metadata"]["uid"] != parts.uid:
                    raise Failure(f"{parts.kind}/{parts.name} was deleted meanwhile") from conflict
                if (owner := owner_of(now, parts.container, _FIELDS[parts.key])) is not None:
                    raise owner from conflict
                if (found := _joined(_present(now, parts))) != before:
                    said = f"its {_CALLED[parts.key]} became {found!r} meanwhile, from {before!r}"
                    raise Failure(said, hint="plan again") from conflict
                if time.monotonic() > ends_s:
                    raise
                time.sleep(_PAUSE_S)
                told = now
        if also := _beside(told, parts) ^ _beside(made, parts):
            names = ", ".join(sorted({text(name) for name, *_ in also}))
            raise Failure(f"with it the server would change what {names} may have")
        return made

    def _of(self, place: Place) -> tuple[_Parts, Cluster]:
        match = re.fullmatch(_OF, place.of)
        if match is None or place.key not in _FIELDS:
            hint = "k8s:https://10.0.0.1:6443/shop/deploy/web@UID/app/memory is one"
            raise Failure(f"{place} is no limit or request of a container of Kubernetes", hint=hint)
        parts = _Parts(**match.groupdict(), key=place.key)
        return parts, cluster_at(parts.server, self._environ)


def find_workload(
    word: str,
    most: fields.Limit,
    environ: Mapping[str, str] = os.environ,
    *,
    request_bytes: int | None = None,
) -> Target:
    """What `deploy/web`, `sts/shop/db` or `ds/shop/log:app` names, and what such a limit and request come to.

    Of the two that is meant which is given, and not so already; with "max" there is no limit. Raises Failure: nothing
    has that name, or it has several containers.
    """
    match = re.fullmatch(_WORD, word)
    if match is None:
        raise Failure(f"{word!r} is no name of a workload", hint="deploy/NAME, sts/NAMESPACE/NAME, ds/NAME:CONTAINER")
    try:
        cluster = own_cluster(environ)
    except Failure as failure:
        raise Failure(
            f"{failure.message} ({word} is looked up in its cluster, for --as too)", hint=failure.hint
        ) from failure
    sought = _Parts(
        server=cluster.server,
        namespace=match["namespace"] or cluster.namespace,
        kind=match["kind"],
        name=match["name"],
        uid="",
        container=match["container"] or "",
        key=_BOTH,
    )
    told = _read(cluster, sought)
    if told is None:
        kinds = f"{KINDS[sought.kind].lower()}s"
        hint = f"kubectl get {kinds} -n {sought.namespace} tells which there are; deploy/NAMESPACE/NAME is of another"
        raise Failure(f"namespace {sought.namespace} has no {KINDS[sought.kind]} {sought.name}", hint=hint)
    names = [text(one["name"]) for one in containers_of(told)]
    if not sought.container and len(names) != 1:
        raise Failure(f"{word} has {len(names)} containers", hint=" or ".join(f"{word}:{name}" for name in names))
    parts = sought._replace(uid=told["metadata"]["uid"], container=sought.container or names[0])
    asked = [
        Amount(field, quantity(amount) if isinstance(amount, int) else None)
        for field, amount in ((LIMITS, most), (REQUESTS, request_bytes))
        if amount is not None
    ]
    present = {one.field: one for one in _present(told, parts)}
    wanted = [one for one in asked if _written(one, present[one.field]) != present[one.field]] or asked
    key = next(key for key, meant in _FIELDS.items() if meant == tuple(one.field for one in wanted))
    of = f"{parts.server}/{parts.namespace}/{parts.kind}/{parts.name}@{parts.uid}/{parts.container}"
    nodes = cluster.read_nodes() if any(one.field == REQUESTS for one in wanted) else None
    before, then = _try_pods(cluster, parts, told, changed(told, parts.container, wanted))
    pods = Pods(before, then) if isinstance(before, dict) and isinstance(then, dict) else None
    use = most_used(cluster, parts.namespace, told, parts.container)
    cost = "; ".join(costs(told, parts.kind, parts.container, wanted, nodes, pods, use))
    return Target(Place(kind="k8s", of=of, key=key), _joined(wanted), cost, use)


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


def _patch(
    cluster: Cluster, parts: _Parts, told: dict[str, Any], wanted: Sequence[Amount], *, dry_run: bool
) -> dict[str, Any]:
    """What it is then, if it still is of the version that was told.

    To let go of the field is not to remove it: who held its parent as an empty one holds it then (tried on 1.20). So it
    is removed by name, where it stands.
    """
    applies = all(one.quantity is not None for one in wanted)
    said = _applied(parts, told, wanted) if applies else _edited(parts, told, wanted)

    async def work(client: "AsyncClient") -> dict[str, Any]:
        from lightkube import ApiError
        from lightkube.resources import apps_v1
        from lightkube.types import PatchType

        from reprieve.machine.kubernetes import refusal

        try:
            applied = await client.patch(
                getattr(apps_v1, KINDS[parts.kind]),
                parts.name,
                said,
                namespace=parts.namespace,
                patch_type=PatchType.APPLY if applies else PatchType.JSON,
                field_manager=_manager(parts),
                force=applies,  # from the hand of a person: whoever else holds it was an obstacle
                dry_run=dry_run,
            )
        except ApiError as error:
            if error.status.code != 409:
                raise
            refused = refusal(error)
            raise _Conflict(refused.message, hint=refused.hint) from None
        made: dict[str, Any] = applied.to_dict()
        return made

    return cluster.ask(work)


def _manager(parts: _Parts) -> str:
    """No container's name has a dot, so none of these is another's; at most 63 characters of it, of 128."""
    return f"{_MANAGER}-{parts.container}" + ("" if parts.key == _LIMIT else f".{parts.key}")


def _applied(parts: _Parts, told: dict[str, Any], wanted: Sequence[Amount]) -> dict[str, Any]:
    """All that is said of it, as an object of the API."""
    amounts = {one.field: {"memory": one.quantity} for one in wanted}
    version = told["metadata"]["resourceVersion"]
    return {
        "apiVersion": "apps/v1",
        "kind": KINDS[parts.kind],
        "metadata": {"name": parts.name, "namespace": parts.namespace, "resourceVersion": version},
        "spec": {"template": {"spec": {"containers": [{"name": parts.container, "resources": amounts}]}}},
    }


def _edited(parts: _Parts, told: dict[str, Any], wanted: Sequence[Amount]) -> list[dict[str, Any]]:
    """The same by where it stands, as something of it goes."""
    at = [one["name"] for one in containers_of(told)].index(parts.container)
    # Of a version that is replaced by another the server says that it conflicts; of one that is tested, nothing.
    version = told["metadata"]["resourceVersion"]
    edits: list[dict[str, Any]] = [{"op": "replace", "path": "/metadata/resourceVersion", "value": version}]
    resources = fields.table(_container(told, parts.container), "resources")
    for one in wanted:
        path, there = f"/spec/template/spec/containers/{at}/resources/{one.field}", fields.table(resources, one.field)
        if one.quantity is not None:
            edits.append({"op": "add", "path": path, "value": {**there, "memory": one.quantity}})
        elif "memory" in there:
            edits.append({"op": "remove", "path": f"{path}/memory"})
    return edits


def _try_pods(cluster: Cluster, parts: _Parts, *workloads: dict[str, Any]) -> list[dict[str, Any] | Failure | None]:
    """The spec of a pod of each, as the server would make it: it adds what a LimitRange says.

    A Failure: it would let none in, as limits of the namespace and quotas hold for pods alone. None: we may not try.
    """

    async def work(client: "AsyncClient") -> list[dict[str, Any] | Failure | None]:
        return [await _try_pod(client, parts, one) for one in workloads]

    return cluster.ask(work)


async def _try_pod(client: "AsyncClient", parts: _Parts, workload: dict[str, Any]) -> dict[str, Any] | Failure | None:
    from lightkube import ApiError
    from lightkube.resources.core_v1 import Pod

    from reprieve.machine.kubernetes import refusal

    about = workload["spec"]["template"].get("metadata", {})
    like = {**about, "name": f"{parts.name[:200].rstrip('.')}-reprieve", "namespace": parts.namespace}
    spec = spec_of(workload)
    if claims := [one["metadata"]["name"] for one in fields.tables(workload["spec"], "volumeClaimTemplates")]:
        others = [one for one in fields.tables(spec, "volumes") if one["name"] not in claims]
        spec = {**spec, "volumes": [*others, *({"name": one, "emptyDir": {}} for one in claims)]}
    pod = Pod.from_dict({"metadata": like, "spec": spec})
    assert isinstance(pod, Pod)  # lightkube calls it what all its objects are
    try:
        made: dict[str, Any] = (await client.create(pod, dry_run=True)).to_dict()["spec"]
    except ApiError as error:
        said = error.status.message or ""
        forbidden = error.status.code == 403 and "cannot create resource" not in said  # else it is we who may not
        if forbidden or (error.status.code == 422 and ".resources." in said):  # with what a LimitRange has added
            return Failure(f"its pods would not be let in: {refusal(error).message}", hint=_LIMITS)
        return None
    return made


def _given(pod: dict[str, Any], parts: _Parts, wanted: Sequence[Amount]) -> Failure | None:
    """A limit that is taken out, and is there all the same."""
    given = amount_of(named(pod, parts.container), LIMITS)
    if Amount(LIMITS, None) not in wanted or given.quantity is None:
        return None
    figure = size(given.size_bytes) if isinstance(given.size_bytes, int) else given.quantity
    reason = f"with none written {parts.container} has a limit of {figure}: a LimitRange of the namespace gives it"
    return Failure(reason, hint=f"--max with a size counts instead; {_LIMITS}")


_LIMITS = "kubectl get limitrange,resourcequota tells what the namespace allows"


def _same(told: dict[str, Any] | None, parts: _Parts, place: Place) -> dict[str, Any]:
    """Raises Failure: it is no more."""
    if told is None or told["metadata"]["uid"] != parts.uid:
        raise Failure(f"{place} is no more", hint="one of that name is another")
    return told


def _container(told: dict[str, Any], name: str) -> dict[str, Any]:
    found = next((one for one in containers_of(told) if one["name"] == name), None)
    if found is None:
        names = ", ".join(text(one["name"]) for one in containers_of(told))
        raise Failure(f"it has no container {name}", hint=f"there is {names}")
    return found


def _present(told: dict[str, Any], parts: _Parts) -> list[Amount]:
    """What is written there of what is meant."""
    container = _container(told, parts.container)
    return [amount_of(container, field) for field in _FIELDS[parts.key]]


def _amounts(place: Place, want: str | None) -> list[Amount]:
    """The amounts of a value. Raises Failure: it is none."""
    names = _FIELDS[place.key]
    told = [""] * len(names) if want is None else want.split("+")
    if len(told) != len(names):
        raise Failure(f"{want!r} is no {_CALLED[place.key]}", hint="512M, 2G; of both 2G+1G")
    return [Amount(field, one or None) for field, one in zip(names, told, strict=True)]


def _joined(amounts: Sequence[Amount]) -> str | None:
    """The value that they make."""
    told = [one.quantity for one in amounts]
    return "+".join(one or "" for one in told) if any(one is not None for one in told) else None


def _written(want: Amount, there: Amount) -> Amount:
    """In whole pages, as the server writes it, or as it is written already. Raises Failure: nothing fits into it."""
    if want.quantity is None:
        return want
    size_bytes = want.size_bytes if isinstance(want.size_bytes, int) else parse_size(want.quantity)
    if size_bytes is None or quantity(size_bytes) == "0":
        raise Failure(f"{want.quantity!r} is no amount that a process could live in", hint="512M, 2G")
    same = isinstance(there.size_bytes, int) and quantity(there.size_bytes) == quantity(size_bytes)
    return there if same else Amount(want.field, quantity(size_bytes))


def _crossed(container: dict[str, Any], parts: _Parts, wanted: Sequence[Amount]) -> Failure | None:
    """A request above the limit, with both figures."""
    meant = {one.field: one for one in wanted}
    limit, asked = (meant.get(field, amount_of(container, field)).size_bytes for field in (LIMITS, REQUESTS))
    if not isinstance(limit, int) or not isinstance(asked, int) or asked <= limit:
        return None
    least_max = f"--max {-(-asked // MIB)}M or more"
    if parts.key == _LIMIT:
        reason = f"{parts.container} requests {size(asked)}, and a limit is not below that"
        return Failure(reason, hint=f"{least_max}, or less of a --request with it")
    reason = f"{parts.container} is limited to {size(limit)}, and a request of {size(asked)} is above that"
    return Failure(reason, hint=f"--request {limit // MIB}M or less, or {least_max} with it")


def _beside(told: dict[str, Any], parts: _Parts) -> set[tuple[str, str, str, str]]:
    """What all its containers request and are limited to, but for what is meant."""
    spec = told["spec"]["template"]["spec"]
    return {
        (one["name"], field, key, str(amount))
        for one in (*fields.tables(spec, "initContainers"), *fields.tables(spec, "containers"))
        for field in (LIMITS, REQUESTS)
        for key, amount in fields.table(fields.table(one, "resources"), field).items()
        if one["name"] != parts.container or field not in _FIELDS[parts.key] or key != "memory"
    }

"""Who would write the memory limit or request of a workload's container again, if we changed it."""

import json
from collections.abc import Collection, Iterator
from typing import Any

from reprieve.machine.engine import text
from reprieve.model.finding import Failure

# Those by whose hand people change things: what else sets a field sets it again.
_BY_HAND = ("kubectl", "reprieve", "before-first-apply")
_MARKS = {  # labels and annotations of who writes all of it again: what he is called, and where the change belongs
    "argocd.argoproj.io/tracking-id": ("Argo CD", "in the repository that it deploys"),
    "argocd.argoproj.io/instance": ("Argo CD", "in the repository that it deploys"),
    "kustomize.toolkit.fluxcd.io/name": ("Flux", "in the repository that it deploys"),
    "helm.toolkit.fluxcd.io/name": ("Flux", "in the values of its HelmRelease"),
    "meta.helm.sh/release-name": ("Helm", "in the values of its release: helm upgrade"),
}


def owner_of(told: dict[str, Any], container: str, fields: Collection[str]) -> Failure | None:
    """Who would write it again: told by marks, by who made the object, and by who manages one of the fields."""
    about = told["metadata"]
    marks = {**(about.get("labels") or {}), **(about.get("annotations") or {})}
    found = next((owner for mark, owner in _MARKS.items() if mark in marks), None)
    if found is None and marks.get("app.kubernetes.io/managed-by") == "Helm":
        found = _MARKS["meta.helm.sh/release-name"]
    if found is None:
        by = next((one for one in about.get("ownerReferences") or () if one.get("controller")), None)
        if by is not None:
            found = (f"{by['kind']} {by['name']}", "in what its operator reads")
    if found is None:
        manager = next((one for one in _managers(about, container, fields) if not one.startswith(_BY_HAND)), None)
        found = None if manager is None else (manager, "where that reads it")
    if found is None:
        return None
    return Failure(f"{text(found[0])} sets it again", hint=f"{found[1]}; --as k8s prints what to commit")


def _managers(about: dict[str, Any], container: str, fields: Collection[str]) -> Iterator[str]:
    """Who holds one of them: managedFields of the API server."""
    for entry in about.get("managedFields") or ():
        held = entry.get("fieldsV1") or {}
        for step in ("f:spec", "f:template", "f:spec", "f:containers"):
            held = held.get(step) or {}
        key = next((one for one in held if one.startswith("k:") and json.loads(one[2:]) == {"name": container}), None)
        resources = {} if key is None else held[key].get("f:resources") or {}
        if any("f:memory" in (resources.get(f"f:{field}") or {}) for field in fields):
            yield str(entry.get("manager"))

"""Objects for tests that change the memory of workloads: in a namespace `shop`, of containers that nobody runs."""

from __future__ import annotations

from typing import Any

APPS = "/apis/apps/v1/namespaces/shop"


def workload(name: str, *containers: dict[str, Any], **about: Any) -> dict[str, Any]:
    """One whose pods nobody runs here."""
    labels = {"app": name}
    made = [{"image": "made-up:1", **one} for one in containers]
    return {
        "metadata": {"name": name, **about},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": made}},
        },
    }


def app(name: str = "app", *, limit: str | None = "64Mi", request: str | None = None) -> dict[str, Any]:
    told = {"limits": limit, "requests": request}
    return {"name": name, "resources": {key: {"memory": one} for key, one in told.items() if one is not None}}


def by(manager: str, kind: str = "deployments") -> str:
    return f"{APPS}/{kind}?fieldManager={manager}"

"""What each application may come to hold, by its settings: the worst case, so that it can be added up for the host."""

from collections.abc import Iterator
from typing import NamedTuple

from reprieve.model.machine import Machine
from reprieve.rules.living import heaps
from reprieve.rules.living.postgres import most_of_postgres
from reprieve.rules.living.redis import most_of_redis


class Demand(NamedTuple):
    """What one application may come to hold."""

    pid: int
    what: str  # "JVM", "Node.js", "PostgreSQL", "Redis"
    bytes: int
    formula: str


def demands(machine: Machine) -> Iterator[Demand]:
    """One for each application whose settings bound it, those by whose defaults it is bounded among them."""
    for jvm in machine.jvms:
        heap = heaps.of_jvm(machine, jvm)
        if heap is not None:
            parts = heaps.most_of_jvm(machine, jvm, heap)
            yield Demand(jvm.pid, "JVM", heaps.total(parts), heaps.formula(parts))
    for node in machine.nodes_js:
        old = heaps.of_node(machine, node)
        if old is not None:
            parts = heaps.least_of_node(machine, node, old)
            yield Demand(node.pid, "Node.js", heaps.total(parts), heaps.formula(parts))
    for postgres in machine.postgres:
        parts = most_of_postgres(machine, postgres)
        yield Demand(postgres.pid, "PostgreSQL", heaps.total(parts), heaps.formula(parts))
    for redis in machine.redis:
        if parts := most_of_redis(redis):
            yield Demand(redis.pid, "Redis", heaps.total(parts), heaps.formula(parts))

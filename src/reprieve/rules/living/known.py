"""Findings that the last look had, and those that are new."""

from collections.abc import Iterable
from typing import NamedTuple

from reprieve.model.earlier import Known
from reprieve.model.finding import Finding
from reprieve.rules import SEVERITIES


class Compared(NamedTuple):
    """What is new, and what was known."""

    new: list[Finding]
    stands: list[Finding]


def compare(findings: Iterable[Finding], known: Iterable[Known]) -> Compared:
    """Known are as many of a code and subject as there were, none of them severer than then."""
    left: dict[tuple[str, str], list[Known]] = {}
    for one in known:
        left.setdefault((one.code, one.subject), []).append(one)
    # The severest first: what fits it fits the others too, so that only one is new where one is severer.
    found = sorted(findings, key=lambda one: SEVERITIES.index(one.severity))
    stands: set[int] = set()
    for same in (True, False):  # the very one first, else another of its name would be told in its stead
        for at, finding in enumerate(found):
            of_it = left.get((finding.code, finding.subject), [])
            fitting = (one for one in of_it if _is_no_worse(finding, one) and (not same or one.place == place(finding)))
            if at in stands or (then := next(fitting, None)) is None:
                continue
            stands.add(at)
            if then.severity in SEVERITIES:
                of_it.remove(then)
    new = [finding for at, finding in enumerate(found) if at not in stands]
    return Compared(new, [found[at] for at in sorted(stands)])


def place(finding: Finding) -> str | None:
    """Where it shows, of a process with its pid."""
    return finding.evidence[0].source if finding.evidence else None


def _is_no_worse(finding: Finding, then: Known) -> bool:
    if then.severity not in SEVERITIES:  # not kept, or a word of a later reprieve
        return True
    return SEVERITIES.index(then.severity) <= SEVERITIES.index(finding.severity)

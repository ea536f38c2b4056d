"""Findings that somebody has looked at and accepted, until a day."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from reprieve.model.accepted import Accepted
from reprieve.model.finding import Finding


class Sifted(NamedTuple):
    """What is left to be told, and what was left out."""

    told: list[Finding]
    accepted: list[tuple[Finding, Accepted]]
    expired: list[Accepted]  # that would have left out something


def sift(findings: Iterable[Finding], entries: Sequence[Accepted], now_s: float) -> Sifted:
    """Leave out what is accepted now."""
    sifted = Sifted([], [], [])
    for finding in findings:
        fitting = [one for one in entries if one.code == finding.code and one.subject in (None, finding.subject)]
        valid = next((one for one in fitting if one.until_s > now_s), None)
        if valid is not None:
            sifted.accepted.append((finding, valid))
            continue
        sifted.told.append(finding)
        sifted.expired.extend(one for one in fitting if one not in sifted.expired)
    return sifted

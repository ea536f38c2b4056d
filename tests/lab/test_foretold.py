"""Who would die is foretold, and then dies: loads made by seeds, in guests with real kernels."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from _pytest.mark import ParameterSet

from lab import kernels
from lab.states import saved
from tests.lab.conftest import here_or_skipped
from tests.lab.foretold import SEEDS, make, play

pytestmark = pytest.mark.alone

# The whole machine, a node, the limit of a group and of the one above, four processors; some have somebody near them.
SLOW_SEEDS = (0, 3, 4, 5, 6)


def _cases() -> Iterator[ParameterSet]:
    for series in kernels.SUITES:
        for seed in SEEDS:
            mark = pytest.mark.slow if seed in SLOW_SEEDS else pytest.mark.matrix
            yield pytest.param(series, seed, id=f"{series}-{seed}", marks=mark)


@pytest.mark.parametrize(("series", "seed"), list(_cases()))
def test_who_dies_was_foretold(series: str, seed: int) -> None:
    load = make(series, seed)
    with here_or_skipped():
        saved(load.series, load.machine)
    told = play(load)
    assert told.died, str(told)
    # Within what the kernel's own counters may be off by, either of two may die.
    assert told.right or (told.bounds is not None and told.bounds < 1), str(told)

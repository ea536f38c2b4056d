"""How fast, and how long it lasts: what must hold for any series."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reprieve.rules.trend import LEAST, POINTS, REACH, Trend, Window, time_left, trend

SIZES = st.integers(0, 1 << 45)
SERIES = st.lists(SIZES, min_size=LEAST, max_size=POINTS)


def spaced(values: list[int], seconds: float = 3.0) -> list[tuple[float, int]]:
    return [(at * seconds, value) for at, value in enumerate(values)]


def of(values: list[int]) -> Trend:
    found = trend(spaced(values))
    assert found is not None
    return found


@given(st.lists(SIZES, max_size=LEAST - 1))
def test_too_few_points_tell_nothing(values: list[int]) -> None:
    assert trend(spaced(values)) is None


@given(SERIES)
def test_the_slope_lies_within_its_bounds(values: list[int]) -> None:
    found = of(values)
    assert found.least <= found.slope <= found.most


@given(SIZES, st.integers(LEAST, POINTS))
def test_what_does_not_move_has_no_slope(value: int, count: int) -> None:
    assert of([value] * count)[:3] == (0, 0, 0)


@given(SIZES, st.integers(1, 1 << 30), st.integers(LEAST, POINTS))
def test_a_straight_line_has_its_own_slope_and_no_doubt(start: int, step: int, count: int) -> None:
    found = of([start + at * step for at in range(count)])
    for told in found[:3]:
        assert told == pytest.approx(step * 20)
    assert found.grows


@given(SERIES, st.integers(0, 1 << 40))
def test_what_lies_below_it_all_does_not_matter(values: list[int], base: int) -> None:
    assert of([value + base for value in values])[:3] == pytest.approx(of(values)[:3])


@given(SERIES)
def test_upside_down_the_slope_is_the_other_way(values: list[int]) -> None:
    up, down = of(values), of([-value for value in values])
    assert (down.slope, down.least, down.most) == pytest.approx((-up.slope, -up.most, -up.least))


@given(SERIES, st.integers(2, 50))
def test_so_many_times_as_much_grows_so_many_times_as_fast(values: list[int], times: int) -> None:
    assert of([value * times for value in values]).slope == pytest.approx(times * of(values).slope)


@given(SIZES, st.integers(1, 1 << 30), st.integers(8, POINTS), st.data())
def test_one_wild_point_does_not_move_the_slope(start: int, step: int, count: int, data: st.DataObject) -> None:
    values = [start + at * step for at in range(count)]
    values[data.draw(st.integers(0, count - 1))] = data.draw(SIZES)
    assert of(values).slope == pytest.approx(step * 20)


def wandering(seed: int, returns: float, drift: float) -> list[int]:
    """Each point `returns` of the one before, a random step, and so much more each time."""
    chance, away, values = random.Random(seed), 0.0, []
    for at in range(POINTS):
        away = returns * away + chance.gauss(0, 1e6)
        values.append(int(1e9 + away + at * drift))
    return values


@pytest.mark.parametrize("returns", [0.0, 0.5, 0.9, 1.0])
def test_what_only_wanders_seldom_seems_to_grow(returns: float) -> None:
    assert sum(of(wandering(seed, returns, 0)).grows for seed in range(200)) <= 10  # 2.5 % are 5


@pytest.mark.parametrize("returns", [0.0, 0.5, 0.9, 1.0])
def test_the_true_slope_lies_within_the_bounds_nineteen_times_of_twenty(returns: float) -> None:
    drift = 2e6
    within = [of(wandering(seed, returns, drift)) for seed in range(200)]
    assert sum(found.least <= drift * 20 <= found.most for found in within) >= 186


def test_what_grows_much_faster_than_it_wanders_is_seen() -> None:
    assert all(of(wandering(seed, 1.0, 2e6)).grows for seed in range(50))


def test_a_leak_in_lumps_is_seen() -> None:
    chance = random.Random(1)
    values, held = [], 0
    for _ in range(POINTS):
        held += 64 << 20 if chance.random() < 0.3 else 0
        values.append(held)
    assert of(values).grows


# -- windows -----------------------------------------------------------------------------------------------------------


def test_what_comes_and_goes_within_a_block_is_not_there() -> None:
    window = Window(3.0)
    for second in range(60):
        window.add(float(second), 1000 + (500 if second % 3 else 0) + second // 3)
    found = window.trend()
    assert found is not None
    assert found.slope == pytest.approx(20)


@given(st.lists(st.tuples(st.floats(0.1, 60), SIZES), min_size=1, max_size=200))
def test_a_window_looks_back_so_many_blocks_and_no_more(steps: list[tuple[float, int]]) -> None:
    window, at_s = Window(3.0), 0.0
    for step, value in steps:
        at_s += step
        window.add(at_s, value)
    found = window.trend()
    assert found is None or found.seconds <= POINTS * 63


def test_a_window_keeps_as_much_after_an_hour_as_after_a_minute() -> None:
    window = Window(3.0)
    for second in range(3600):
        window.add(float(second), second)
    assert len(window._values) == POINTS


def test_a_clock_that_goes_back_is_passed_over() -> None:
    window = Window(1.0)
    for second in (0, 1, 2, 3, 4, 5, 6, 2, 7, 8):
        window.add(float(second), second)
    found = window.trend()
    assert found is not None
    assert found.slope == pytest.approx(60)


# -- time left ---------------------------------------------------------------------------------------------------------


def trends(least: float) -> st.SearchStrategy[Trend]:
    bounds = st.lists(st.floats(least, 1e12), min_size=3, max_size=3).map(sorted)
    return st.builds(lambda told, seconds: Trend(told[1], told[0], told[2], seconds), bounds, st.floats(15, 3600))


TRENDS = trends(-1e12)


def test_without_growth_there_is_no_answer() -> None:
    assert time_left(1 << 30, None).verdict == "looking"


@given(SIZES, TRENDS)
def test_the_answer_lies_within_its_bounds_and_does_not_reach_further_than_was_looked(left: int, found: Trend) -> None:
    told = time_left(left, found)
    assert told.horizon_s == pytest.approx(REACH * found.seconds)
    if told.verdict == "growing":
        assert found.grows
        assert told.seconds is not None
        assert told.least_s is not None
        assert told.most_s is not None
        assert told.least_s <= told.seconds <= told.most_s
        assert told.least_s <= REACH * found.seconds
    elif told.verdict == "unsure":
        assert found.least <= 0 < found.most
        assert told.seconds is None
    else:
        assert told.verdict == "steady"
        assert found.most <= 0 or left / found.most * 60 > REACH * found.seconds


@given(st.lists(SIZES, min_size=2, max_size=20, unique=True), trends(1))
def test_more_left_lasts_longer(lefts: list[int], found: Trend) -> None:
    lasts = [told.seconds for left in sorted(lefts) if (told := time_left(left, found)).seconds is not None]
    assert all(early <= late for early, late in pairwise(lasts))

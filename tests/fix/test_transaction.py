"""All or nothing: whatever refuses, whoever interferes, wherever the process dies."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reprieve.fix.transaction import apply, recover, undo
from reprieve.model.change import Blocked, Stay, Step
from reprieve.model.finding import Failure, Place
from reprieve.show import changes
from reprieve.undo import state
from tests.fix.dictionary import DictionaryPlaces, Died, Life, World, journal, place, step

BEFORE: dict[Place, str | None] = {place("a"): "1", place("b"): None, place("c"): "3"}
STEPS = (step("a", "1", "10"), step("b", None, "20"), step("c", "3", None))
AFTER: dict[Place, str | None] = {place("a"): "10", place("b"): "20", place("c"): None}


def world() -> World:
    return World(values=dict(BEFORE), lasting={place("b")})


def test_what_is_so_already_is_not_touched() -> None:
    there = world()
    apply(STEPS, DictionaryPlaces(there), journal(there))
    again = DictionaryPlaces(there)
    number = apply([step("a", "10", "10"), step("b", "20", "20")], again, journal(there))
    assert again.puts == 0
    assert journal(there).in_force(number) == []


def test_all_values_are_put_and_undo_puts_them_back() -> None:
    there = world()
    number = apply(STEPS, DictionaryPlaces(there), journal(there))
    assert there.values == AFTER
    assert journal(there).unfinished() == []
    undo(number, DictionaryPlaces(there), journal(there))
    assert there.values == BEFORE
    assert journal(there).newest() is None


@pytest.mark.parametrize("refused", ["a", "b", "c"])
def test_a_refusal_leaves_all_as_it_was(refused: str) -> None:
    there = world()
    there.refuses = {place(refused)}
    with pytest.raises(Failure, match="Permission denied"):
        apply(STEPS, DictionaryPlaces(there), journal(there))
    assert there.values == BEFORE
    assert journal(there).unfinished() == []


def test_an_undo_that_is_refused_before_anything_is_put_back_leaves_the_change_in_force_and_others_free() -> None:
    there = world()
    number = apply(STEPS, DictionaryPlaces(there), journal(there))
    there.refuses = {one.place for one in STEPS}
    with pytest.raises(Blocked, match="c: refused"):
        undo(number, DictionaryPlaces(there), journal(there))
    assert there.values == AFTER
    assert journal(there).unfinished() == []
    assert len(journal(there).in_force(number)) == len(STEPS)
    there.refuses = {place("a")}  # the others go back: it is neither done nor undone
    with pytest.raises(Blocked, match="a: refused"):
        undo(number, DictionaryPlaces(there), journal(there))
    assert journal(there).unfinished() == [number]
    there.refuses = set()
    undo(number, DictionaryPlaces(there), journal(there))
    assert there.values == BEFORE


class Halfway(DictionaryPlaces):
    """A put changes something and fails all the same, or nobody can look then."""

    def __init__(self, there: World, *, blind: bool) -> None:
        super().__init__(there)
        self.blind, self.failed = blind, False

    def put(self, place: Place, want: str | None) -> None:
        if not self.blind:
            self.world.values[place] = "half"
        self.failed = True
        raise Failure(f"{place}: Input/output error")

    def get(self, place: Place) -> str | None:
        if self.blind and self.failed:
            raise Failure(f"{place}: Input/output error")
        return super().get(place)


@pytest.mark.parametrize("blind", [False, True])
def test_an_undo_that_fails_half_way_leaves_the_change_unfinished(blind: bool) -> None:
    there = World(values={place("a"): "1"})
    number = apply([step("a", "1", "10")], DictionaryPlaces(there), journal(there))
    with pytest.raises(Blocked, match="a: refused"):
        undo(number, Halfway(there, blind=blind), journal(there))
    assert journal(there).unfinished() == [number]


def test_of_what_has_two_halves_a_refused_undo_may_have_put_back_one() -> None:
    unit = Place(kind="unit", of="web.service", key="MemoryMax")
    there = World(values={unit: None})
    number = apply([Step(place=unit, before=None, want="1")], DictionaryPlaces(there), journal(there))
    there.refuses = {unit}
    with pytest.raises(Blocked, match="refused"):
        undo(number, DictionaryPlaces(there), journal(there))
    assert journal(there).unfinished() == [number]


def test_an_undo_that_nobody_asked_for_and_was_refused_is_left_to_who_recovers() -> None:
    there = World(values={place("a"): "1"})
    number = apply([step("a", "1", "10")], DictionaryPlaces(there), journal(there), kept=False)
    there.refuses = {place("a")}
    with pytest.raises(Blocked, match="a: refused"):
        undo(number, DictionaryPlaces(there), journal(there), unconfirmed=True)
    assert journal(there).unfinished() == [number]
    there.refuses = set()
    recover(DictionaryPlaces(there), journal(there))
    assert there.values == {place("a"): "1"}


def test_a_value_that_is_not_kept_is_put_back_with_those_before_it() -> None:
    there = world()
    there.stubborn = {place("b"): "16"}
    with pytest.raises(Failure, match="b: changed") as blocked:  # nor put back
        apply(STEPS, DictionaryPlaces(there), journal(there))
    assert isinstance(unkept := blocked.value.__context__, Blocked)
    assert changes.blocked(unkept) == "b is 16 after 20 was put there"
    assert there.values[place("a")] == "1"


def test_what_is_put_back_and_reads_as_before_that_is_nobody_elses_doing() -> None:
    there = world()
    number = apply(STEPS, DictionaryPlaces(there), journal(there))
    there.stubborn = {place("a"): "10"}
    with pytest.raises(Blocked, match="a: unkept") as blocked:
        undo(number, DictionaryPlaces(there), journal(there))
    assert changes.blocked(blocked.value) == "a is 10 after 1 was put there"
    assert there.values == BEFORE | {place("a"): "10"}


def test_a_value_changed_since_the_plan_is_not_overwritten() -> None:
    there = world()
    there.values[place("b")] = "somebody's"
    with pytest.raises(Failure, match="b: unplanned") as blocked:
        apply(STEPS, DictionaryPlaces(there), journal(there))
    assert changes.blocked(blocked.value) == "b is somebody's, and was not set when it was planned"
    assert there.values == BEFORE | {place("b"): "somebody's"}


@pytest.mark.parametrize("after", [False, True], ids=["before it", "after it"])
def test_wherever_the_process_dies_the_next_one_makes_it_all_or_nothing(after: bool) -> None:
    whole = Life()
    there = world()
    apply(STEPS, DictionaryPlaces(there, whole), journal(there, whole))
    assert whole.touches > 15
    for dies_at in range(1, whole.touches + 1):
        there = world()
        life = Life(dies_at=dies_at, after=after)
        with pytest.raises(Died):
            apply(STEPS, DictionaryPlaces(there, life), journal(there, life))
        ended = journal(there).unfinished() == [] and journal(there).newest() is not None
        recover(DictionaryPlaces(there), journal(there))
        assert there.values == (AFTER if ended else BEFORE), f"died at touch {dies_at}"
        assert journal(there).unfinished() == []


@pytest.mark.parametrize("after", [False, True], ids=["before it", "after it"])
def test_wherever_an_undo_dies_recovering_finishes_it(after: bool) -> None:
    there = world()
    number = apply(STEPS, DictionaryPlaces(there), journal(there))
    whole, disk = Life(), list(there.disk)
    undo(number, DictionaryPlaces(there, whole), journal(there, whole))
    for dies_at in range(1, whole.touches + 1):
        there = World(values=dict(AFTER), disk=list(disk), lasting={place("b")})
        life = Life(dies_at=dies_at, after=after)
        with pytest.raises(Died):
            undo(number, DictionaryPlaces(there, life), journal(there, life))
        begun = journal(there).unfinished() == [number]
        recover(DictionaryPlaces(there), journal(there))
        assert there.values == (BEFORE if begun or dies_at == whole.touches else AFTER), f"died at touch {dies_at}"


@pytest.mark.parametrize("after", [False, True], ids=["before it", "after it"])
def test_wherever_the_power_goes_the_next_boot_puts_back_what_lasts_and_touches_nothing_else(after: bool) -> None:
    """`b` lasts; the others have another value since the boot, which by chance may be the one that was wanted."""
    whole = Life()
    first = world()
    apply(STEPS, DictionaryPlaces(first, whole), journal(first, whole))
    for dies_at in range(1, whole.touches + 1):
        there = world()
        life = Life(dies_at=dies_at, after=after)
        with pytest.raises(Died):
            apply(STEPS, DictionaryPlaces(there, life), journal(there, life))
        there.values |= {place("a"): "10", place("c"): "5"}
        told = journal(there, boot="boot-2")
        ended, begun = told.unfinished() == [] and told.newest() is not None, told.unfinished()
        recovered = recover(DictionaryPlaces(there), told)
        assert [one.number for one in recovered] == begun
        assert {entry.place for one in recovered for entry in one.entries} <= {place("b")}
        assert there.values == {place("a"): "10", place("b"): "20" if ended else None, place("c"): "5"}
        assert recover(DictionaryPlaces(there), journal(there, boot="boot-2")) == []


@pytest.mark.parametrize("dies_at", range(1, 40))
def test_dying_while_recovering_is_recovered_from(dies_at: int) -> None:
    there = world()
    life = Life(dies_at=14)
    with pytest.raises(Died):
        apply(STEPS, DictionaryPlaces(there, life), journal(there, life))
    second = Life(dies_at=dies_at)
    try:
        recover(DictionaryPlaces(there, second), journal(there, second))
    except Died:
        recover(DictionaryPlaces(there), journal(there))
    assert there.values == BEFORE
    assert journal(there).unfinished() == []


def test_nothing_new_begins_before_what_a_crash_left_is_finished() -> None:
    there = world()
    life = Life(dies_at=8)
    with pytest.raises(Died):
        apply(STEPS, DictionaryPlaces(there, life), journal(there, life))
    with pytest.raises(Failure, match="not finished"):
        apply(STEPS, DictionaryPlaces(there), journal(there))


def test_what_others_have_changed_since_is_theirs() -> None:
    there = world()
    number = apply(STEPS, DictionaryPlaces(there), journal(there))
    there.values[place("a")] = "theirs"
    with pytest.raises(Blocked) as blocked:
        undo(number, DictionaryPlaces(there), journal(there))
    theirs = Stay(place=place("a"), why="changed", number=number, before="1", want="10", found="theirs")
    assert blocked.value.stays == (theirs,)
    assert there.values == BEFORE | {place("a"): "theirs"}
    assert undo(number, DictionaryPlaces(there), journal(there), leave=True) == [theirs]
    assert there.values[place("a")] == "theirs"
    assert journal(there).unfinished() == []


def test_an_older_change_is_not_undone_under_a_newer_one() -> None:
    there = world()
    older = apply(STEPS, DictionaryPlaces(there), journal(there))
    newer = apply([step("a", "10", "11")], DictionaryPlaces(there), journal(there))
    with pytest.raises(Blocked, match="a: newer") as blocked:
        undo(older, DictionaryPlaces(there), journal(there))
    assert changes.blocked(blocked.value) == f"change {newer} has changed a since"
    assert there.values == AFTER | {place("a"): "11"}
    undo(newer, DictionaryPlaces(there), journal(there))
    undo(older, DictionaryPlaces(there), journal(there))
    assert there.values == BEFORE


LIMIT, REQUEST, BOTH = (Place(kind="k8s", of="app", key=key) for key in ("memory", "requests", "memory+requests"))


@pytest.mark.parametrize(
    ("under", "over"), [(LIMIT, BOTH), (REQUEST, BOTH), (BOTH, LIMIT), (BOTH, REQUEST), (BOTH, BOTH)]
)
def test_a_place_that_shares_a_field_is_held_by_the_newer(under: Place, over: Place) -> None:
    there = World(lasting={LIMIT, REQUEST, BOTH})
    older, newer = (
        apply([Step(place=at, before=there.values.get(at), want=want)], DictionaryPlaces(there), journal(there))
        for at, want in ((under, "1Gi"), (over, "2Gi+"))
    )
    with pytest.raises(Blocked, match="newer") as blocked:
        undo(older, DictionaryPlaces(there), journal(there))
    assert blocked.value.hint == f"reprieve undo {newer} first"
    undo(newer, DictionaryPlaces(there), journal(there))
    undo(older, DictionaryPlaces(there), journal(there))
    assert not any(there.values.values())


@pytest.mark.parametrize(
    ("under", "over"),
    [
        (LIMIT, REQUEST),
        (REQUEST, LIMIT),
        (LIMIT, Place(kind="k8s", of="log", key="memory+requests")),
        (Place(kind="cgroup", of="app", key="memory"), BOTH),
    ],
)
def test_a_place_that_shares_none_is_not(under: Place, over: Place) -> None:
    there = World()
    older = apply([Step(place=under, before=None, want="1Gi")], DictionaryPlaces(there), journal(there))
    apply([Step(place=over, before=None, want="2Gi")], DictionaryPlaces(there), journal(there))
    undo(older, DictionaryPlaces(there), journal(there))
    assert there.values == {under: None, over: "2Gi"}


def test_changes_of_different_places_are_undone_in_any_order() -> None:
    there = world()
    first = apply([step("a", "1", "10")], DictionaryPlaces(there), journal(there))
    apply([step("b", None, "20")], DictionaryPlaces(there), journal(there))
    undo(first, DictionaryPlaces(there), journal(there))
    assert there.values == BEFORE | {place("b"): "20"}


def test_what_goes_with_the_boot_is_gone_with_it_and_the_rest_is_undone() -> None:
    there = world()
    number = apply(STEPS, DictionaryPlaces(there), journal(there))
    there.values |= {place("a"): "1", place("c"): "3"}  # as a boot leaves them
    later = journal(there, boot="boot-2")
    assert [entry.place for entry in later.in_force(number)] == [place("b")]
    undo(number, DictionaryPlaces(there), later)
    assert there.values == BEFORE


def test_what_has_ended_needs_no_undo() -> None:
    there = world()
    number = apply([step("a", "1", "10")], DictionaryPlaces(there), journal(there))
    there.ended = {place("a")}
    assert undo(number, DictionaryPlaces(there), journal(there)) == [
        Stay(place=place("a"), why="gone", number=number, before="1", want="10")
    ]
    assert journal(there).newest() is None


def test_who_is_to_undo_it_is_told_before_anything_is_changed() -> None:
    there = world()
    seen: list[tuple[int, dict[Place, str | None]]] = []
    apply(
        STEPS,
        DictionaryPlaces(there),
        journal(there),
        kept=False,
        begun=lambda number: seen.append((number, dict(there.values))),
    )
    assert seen == [(1, BEFORE)]
    assert not journal(there).find(1).kept
    journal(there).keep(1)
    assert journal(there).find(1).kept


def test_what_nobody_confirmed_before_a_boot_is_undone_by_recovering() -> None:
    there = world()
    apply(STEPS, DictionaryPlaces(there), journal(there), kept=False)
    assert recover(DictionaryPlaces(there), journal(there)) == []  # of this boot: who undoes it waits
    assert [one.number for one in recover(DictionaryPlaces(there), journal(there, boot="boot-2"))] == [1]
    assert there.values[place("b")] is None
    assert state(journal(there, boot="boot-2"), journal(there).find(1), {}) == "undone in part"
    assert journal(there).find(1).entries[1].unconfirmed


def test_what_nobody_confirmed_in_time_is_told_and_undone_by_recovering() -> None:
    there = world()
    apply(STEPS, DictionaryPlaces(there), journal(there), kept=False, due=lambda: 60.0)
    early, late = journal(there, since_s=59.0), journal(there, since_s=60.0)
    assert state(early, early.find(1), {}) == "in force, not confirmed"
    assert state(late, late.find(1), {}) == "in force, not confirmed in time: reprieve undo --recover"
    assert recover(DictionaryPlaces(there), early) == []
    with pytest.raises(Failure, match="change 1 was not confirmed in time") as refused:
        late.begin()
    assert "reprieve undo --recover" in (refused.value.hint or "")
    (recovered,) = recover(DictionaryPlaces(there), late)
    assert recovered.unconfirmed
    assert there.values == BEFORE
    assert state(late, late.find(1), {}) == "undone: nobody confirmed"


@given(
    wanted=st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 2)), unique_by=lambda one: one[0]),
    refuses=st.sets(st.sampled_from("abcdef"), max_size=2),
    ended=st.sets(st.sampled_from("abcdef"), max_size=1),
    dies_at=st.one_of(st.none(), st.integers(1, 80)),
)
def test_of_groups_that_are_apart_each_is_there_or_not_and_one_that_fails_takes_no_other_along(
    wanted: list[tuple[str, int]], refuses: set[str], ended: set[str], dies_at: int | None
) -> None:
    there = World(values={place(name): "1" for name in "abcdef"})
    there.refuses, there.ended = set(map(place, refuses)), set(map(place, ended))
    steps = [replace(step(name, "1", "2"), group=group) for name, group in wanted]
    life, failed, died = Life(dies_at=dies_at), list[Failure](), False
    try:
        apply(
            steps, DictionaryPlaces(there, life), journal(there, life), apart=lambda failure, _: failed.append(failure)
        )
    except Died:
        died, there.refuses = True, set()
        recover(DictionaryPlaces(there), journal(there))
    except Failure:
        assert len({group for _, group in wanted if any(n in refuses for n, g in wanted if g == group)}) == len(
            {group for _, group in wanted}
        )
    assert journal(there).unfinished() == []
    done = {place(name) for name, group in wanted if not any(n in refuses for n, g in wanted if g == group)}
    changed = {at for at, value in there.values.items() if value == "2"} - there.ended
    assert changed in ((done - there.ended, set()) if died else (done - there.ended,))
    if not died:
        assert {entry.place for entry in journal(there).in_force(1)} == done


def test_a_third_value_of_a_group_apart_that_may_be_ours_is_nobody_elses() -> None:
    """The place takes 3 for 2, and does not go back: all is put back, and what would not is not finished."""
    there = World(values={place("a"): "1", place("b"): "1"}, stubborn={place("a"): "3"})
    steps = [replace(step("b", "1", "2"), group=0), replace(step("a", "1", "2"), group=1)]
    told = list[Failure]()
    with pytest.raises(Blocked):
        apply(steps, DictionaryPlaces(there), journal(there), apart=lambda failure, _: told.append(failure))
    assert told == []
    assert there.values == {place("a"): "3", place("b"): "1"}
    assert journal(there).unfinished() == [1]


def test_what_was_confirmed_in_time_is_never_late() -> None:
    there = world()
    apply(STEPS, DictionaryPlaces(there), journal(there), kept=False, due=lambda: 60.0)
    journal(there, since_s=59.0).keep(1)
    assert recover(DictionaryPlaces(there), journal(there, since_s=99.0)) == []
    assert there.values == AFTER


def test_what_belongs_to_what_would_not_go_back_stays_with_it() -> None:
    file, used = Place(kind="swapfile", of="/swap"), Place(kind="swap", of="/swap")
    there = World(values={file: None, used: None})
    steps = [Step(place=file, before=None, want="1"), Step(place=used, before=None, want="on")]
    number = apply(steps, DictionaryPlaces(there), journal(there))
    there.refuses = {used}
    with pytest.raises(Failure, match="swapfile:/swap: waits") as blocked:
        undo(number, DictionaryPlaces(there), journal(there))
    assert changes.blocked(blocked.value) == (
        "swapping to /swap does not go back to what it was: swap:/swap: Permission denied; "
        "file /swap waits for what does not go back"
    )
    assert there.values == {file: "1", used: "on"}
    there.refuses = set()
    undo(number, DictionaryPlaces(there), journal(there))
    assert there.values == {file: None, used: None}


def test_of_what_has_two_halves_both_are_put_back_and_what_is_back_is_not_touched() -> None:
    unit, plain = Place(kind="unit", of="web.service", key="MemoryMax"), place("a")
    there = World(values={unit: "1", plain: "1"})
    steps = [Step(place=one, before="1", want="2") for one in (unit, plain)]
    number = apply(steps, DictionaryPlaces(there), journal(there))
    there.values = {unit: "1", plain: "1"}  # somebody has put back both, of the unit its file at least
    again = DictionaryPlaces(there)
    assert undo(number, again, journal(there)) == []
    assert again.puts == 1
    assert journal(there).find(number).ended


@pytest.mark.parametrize("refuses", [False, True])
def test_what_was_half_made_and_never_switched_in_goes_if_it_can(refuses: bool) -> None:
    there = World(values={place("a"): "1"})
    kept = journal(there)
    number = kept.begin(kept=True)
    kept.record(number, step("a", "1", "2"), lasts=False)  # on disk, and then the process was killed
    there.refuses = {place("a")} if refuses else set()
    again = DictionaryPlaces(there)
    assert [one.number for one in recover(again, journal(there))] == [number]
    assert (again.puts, there.values) == (0 if refuses else 1, {place("a"): "1"})


@pytest.mark.parametrize("leave", [False, True])
def test_a_group_that_somebody_else_made_first_is_theirs_and_asks_nothing(leave: bool) -> None:
    group = Place(kind="cgroup.new", of="/batch", key="memory.max")
    there = World()
    kept = journal(there)
    number = kept.begin(kept=True)
    kept.record(number, Step(place=group, before=None, want="1"), lasts=False)
    there.values = {group: "other"}
    again = DictionaryPlaces(there)
    (left,) = undo(number, again, journal(there), leave=leave)
    assert changes.left_so(left) == "cgroup /batch stays: somebody else has made it"
    assert (again.puts, there.values) == (0, {group: "other"})
    assert journal(there).find(number).ended
    assert state(journal(there), journal(there).find(number), {}) == "left as somebody else made or set it"


@pytest.mark.parametrize(("found", "finished"), [("2", False), ("other", True)])
def test_a_group_that_was_made_by_us_or_may_have_been_is_not_let_go_unasked(found: str, finished: bool) -> None:
    group = Place(kind="cgroup.new", of="/batch", key="memory.max")
    there = World()
    kept = journal(there)
    number = kept.begin(kept=True)
    entry = kept.record(number, Step(place=group, before=None, want="1"), lasts=False)
    if finished:
        kept.changed(number, entry)
        kept.end(number)
    there.values = {group: found}
    with pytest.raises(Blocked, match="changed"):
        undo(number, DictionaryPlaces(there), journal(there))
    assert there.values == {group: found}
    assert journal(there).newest() == number


def test_what_would_not_go_back_is_no_usual_failure() -> None:
    there = world()
    number = apply(STEPS, DictionaryPlaces(there), journal(there))
    there.refuses = {place("c")}
    with pytest.raises(Blocked) as blocked:
        undo(number, DictionaryPlaces(there), journal(there))
    assert blocked.value.status == 4


def test_while_one_waits_to_be_confirmed_no_other_is_begun() -> None:
    there = world()
    first = apply([step("a", "1", "10")], DictionaryPlaces(there), journal(there), kept=False)
    with pytest.raises(Failure, match=f"change {first} waits to be confirmed"):
        apply([step("a", "10", "20")], DictionaryPlaces(there), journal(there))
    assert there.values == BEFORE | {place("a"): "10"}
    undo(first, DictionaryPlaces(there), journal(there))
    assert apply([step("a", "1", "20")], DictionaryPlaces(there), journal(there)) == first + 1


def test_an_undo_that_finds_all_of_it_changed_by_others_leaves_it_in_force_and_blocks_nothing() -> None:
    there = world()
    number = apply([step("a", "1", "10")], DictionaryPlaces(there), journal(there))
    there.values[place("a")] = "7"
    with pytest.raises(Failure, match="a: changed") as refused:
        undo(number, DictionaryPlaces(there), journal(there))
    assert f"reprieve undo {number} --leave" in (refused.value.hint or "")
    assert journal(there).unfinished() == []
    assert journal(there).newest() == number
    apply([step("b", None, "20")], DictionaryPlaces(there), journal(there))
    assert undo(number, DictionaryPlaces(there), journal(there), leave=True)[0].found == "7"
    assert there.values[place("a")] == "7"


def test_one_that_cannot_be_watched_changes_nothing() -> None:
    def nobody(number: int) -> None:
        raise Failure("who would undo it could not be started")

    there = world()
    with pytest.raises(Failure, match="could not be started"):
        apply(STEPS, DictionaryPlaces(there), journal(there), begun=nobody)
    assert there.values == BEFORE
    assert journal(there).unfinished() == []


_NAMES = st.sampled_from(("a", "b", "c", "d"))
_VALUES = st.one_of(st.none(), st.sampled_from(("1", "2", "3")))


@given(
    start=st.dictionaries(_NAMES, _VALUES, min_size=4),
    wanted=st.lists(st.tuples(_NAMES, _VALUES), max_size=6, unique_by=lambda one: one[0]),
    refuses=st.sets(_NAMES, max_size=2),
    stubborn=st.dictionaries(_NAMES, st.sampled_from(("8", "9")), max_size=1),
    dies_at=st.one_of(st.none(), st.integers(1, 60)),
)
def test_whatever_happens_in_the_end_all_of_it_is_there_or_none(
    start: dict[str, str | None],
    wanted: list[tuple[str, str | None]],
    refuses: set[str],
    stubborn: dict[str, str],
    dies_at: int | None,
) -> None:
    before = {place(name): value for name, value in start.items()}
    there = World(values=dict(before), refuses=set(map(place, refuses)))
    there.stubborn = {place(name): value for name, value in stubborn.items() if name not in refuses}
    steps: list[Step] = [step(name, start[name], value) for name, value in wanted]
    life = Life(dies_at=dies_at)
    ended = False
    try:
        apply(steps, DictionaryPlaces(there, life), journal(there, life))
        ended = True
    except (Died, Failure):
        there.stubborn, there.refuses = {}, set()
        try:
            recover(DictionaryPlaces(there), journal(there))
        except Failure:  # a stubborn value is nobody's any more: it is told, and all others are back
            changed = {at for at in before if there.values[at] != before[at]}
            assert changed <= {place(name) for name in stubborn}
            return
    after = before | {one.place: one.want for one in steps}
    assert there.values == (after if ended or there.values == after else before)


def test_the_journal_tells_what_became_of_each_value_and_when() -> None:
    there = world()
    number = apply(STEPS, DictionaryPlaces(there), journal(there), kept=False)
    assert {entry.undone_wall_s for entry in journal(there).find(number).entries} == {None}
    there.values[place("a")], there.ended = "theirs", {place("b")}
    undo(number, DictionaryPlaces(there), journal(there), leave=True, unconfirmed=True)
    entries = journal(there).find(number).entries
    assert [(entry.became, entry.undone_wall_s) for entry in entries] == [("left", 1.0), ("gone", 1.0), (None, 1.0)]
    assert {entry.unconfirmed for entry in entries} == {True}
    assert [changes.end_of(entry) for entry in entries] == [
        "left as somebody else set it",
        "gone with its sysctl",
        "undone: nobody confirmed",
    ]


def test_what_would_not_go_back_and_is_left_is_not_called_undone() -> None:
    there = world()
    number = apply(STEPS[:1], DictionaryPlaces(there), journal(there))
    there.refuses = {place("a")}
    undo(number, DictionaryPlaces(there), journal(there), leave=True)
    assert state(journal(there), journal(there).find(number), {}) == "left: it could not be put back"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, "undone"),
        ({place("a"): "theirs"}, "undone in part"),
        ({place("a"): "theirs", place("b"): "5", place("c"): "5"}, "left as somebody else set it"),
    ],
)
def test_a_change_is_called_undone_when_all_of_it_is(change: dict[Place, str | None], said: str) -> None:
    there = world()
    number = apply(STEPS, DictionaryPlaces(there), journal(there))
    there.values |= change
    undo(number, DictionaryPlaces(there), journal(there), leave=True)
    assert state(journal(there), journal(there).find(number), {}) == said


def test_an_undo_of_which_an_older_version_told_no_time_is_read() -> None:
    there = world()
    number = apply(STEPS[:1], DictionaryPlaces(there), journal(there))
    there.disk.append(b'{"change":1,"event":"undone","entry":0}')
    (entry,) = journal(there).find(number).entries
    assert (entry.undone_wall_s, changes.end_of(entry)) == (None, "undone")

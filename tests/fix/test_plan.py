"""What is wanted, what is there, and what stands in the way → steps and refusals."""

from __future__ import annotations

import pytest

from reprieve.fix.plan import Span, Wanted, plan, wanted_by
from reprieve.model.cgroup import Cgroup
from reprieve.model.change import Lack
from reprieve.model.finding import Change, Failure, Finding, NoRight, Place, Remedy
from reprieve.model.machine import HugePool, Machine
from reprieve.model.unit import Unit
from reprieve.units import GIB, MIB
from tests.fix.dictionary import DictionaryPlaces, World

SWAPPINESS = Place(kind="sysctl", key="vm.swappiness")
AT_BOOT = Place(kind="sysctl.d", key="vm.swappiness")
STRICT = Place(kind="sysctl", key="vm.overcommit_memory")
RATIO = Place(kind="sysctl", key="vm.overcommit_ratio")
SWAP_FILE = tuple(Place(kind=kind, of="/swap") for kind in ("swapfile", "swap", "fstab"))


class Obstructed(DictionaryPlaces):
    """Places of which one cannot be changed."""

    def __init__(self, world: World, obstructed: Place) -> None:
        super().__init__(world)
        self.obstructed = obstructed

    def obstacle(self, place: Place, want: str | None) -> Failure | None:
        return Failure("somebody's", hint="ask them") if place == self.obstructed else None


def there() -> DictionaryPlaces:
    return DictionaryPlaces(World(values={SWAPPINESS: "60", STRICT: "0", RATIO: "50"}))


def wants(*settings: tuple[Place, str | None], code: str = "") -> Wanted:
    return Wanted(tuple(Change(place=place, want=want) for place, want in settings), code)


def test_what_is_so_already_is_no_step() -> None:
    told = plan([wants((SWAPPINESS, "60"))], there(), Machine(), span=Span(later=False))
    assert told.steps == ()
    assert told.refused == ()


def test_a_setting_of_the_kernel_is_changed_now_and_at_each_boot_unless_told() -> None:
    both = plan([wants((SWAPPINESS, "10"))], there(), Machine())
    assert [(step.place, step.before, step.want) for step in both.steps] == [
        (SWAPPINESS, "60", "10"),
        (AT_BOOT, None, "10"),
    ]
    now = plan([wants((SWAPPINESS, "10"))], there(), Machine(), span=Span(later=False))
    assert [step.place for step in now.steps] == [SWAPPINESS]
    later = plan([wants((SWAPPINESS, "10"))], there(), Machine(), span=Span(now=False))
    assert [step.place for step in later.steps] == [AT_BOOT]


def test_of_two_who_want_one_place_the_first_is_followed_and_the_other_told() -> None:
    told = plan([wants((SWAPPINESS, "10"), code="a"), wants((SWAPPINESS, "1"), code="b")], there(), Machine())
    assert {step.want for step in told.steps} == {"10"}
    assert [(refusal.code, refusal.reason) for refusal in told.refused] == [("b", "a wants 10 there")] * 2


def test_of_what_belongs_together_nothing_is_planned_where_an_earlier_one_wants_otherwise() -> None:
    asked = [wants((SWAPPINESS, "10"), code="x"), wants((RATIO, "80"), (SWAPPINESS, "20"), code="y")]
    told = plan(asked, there(), Machine(), span=Span(later=False))
    assert [step.place for step in told.steps] == [SWAPPINESS]
    assert [(one.code, one.reason) for one in told.refused] == [("y", "x wants 10 there")]


def test_what_wants_two_values_for_one_place_is_refused() -> None:
    for others in ((), ((RATIO, "80"),)):
        told = plan([wants(*others, (SWAPPINESS, "10"), (SWAPPINESS, "20"), code="x")], there(), Machine())
        assert told.steps == ()
        assert {(one.want, one.reason) for one in told.refused} == {("20", "x wants 10 there")}


def test_what_is_wanted_apart_is_a_group_each_and_what_shares_a_step_is_one() -> None:
    a, b, c, d = (Place(kind="process", of=str(pid), key="oom_score_adj") for pid in range(1, 5))
    places = DictionaryPlaces(World(values=dict.fromkeys((a, b, c, d), "0")))
    told = plan([wants((a, "1")), wants((b, "1")), wants((c, "1"), (d, "1"))], places, Machine())
    assert [(step.place, step.group) for step in told.steps] == [(a, 0), (b, 1), (c, 2), (d, 2)]
    told = plan([wants((a, "1")), wants((b, "1")), wants((c, "1")), wants((a, "1"), (c, "1"))], places, Machine())
    assert [(step.place, step.group) for step in told.steps] == [(a, 3), (b, 1), (c, 3)]


def test_settings_that_belong_together_are_refused_together() -> None:
    whole = wants(*((place, "on") for place in SWAP_FILE))
    for obstructed in SWAP_FILE:
        told = plan([whole], Obstructed(World(), obstructed), Machine())
        assert told.steps == ()
        assert [(refusal.place, refusal.reason) for refusal in told.refused] == [(obstructed, "somebody's")]


class Forbidden(DictionaryPlaces):
    """Places that only others may change."""

    def obstacle(self, place: Place, want: str | None) -> Failure | None:
        return NoRight("root's", hint="be root")


def test_what_is_only_shown_is_planned_without_the_right_which_is_told() -> None:
    world, asked = World(values={SWAPPINESS: "60"}), [wants((SWAPPINESS, "10"))]
    told = plan(asked, Forbidden(world), Machine(), shown=True)
    assert [(step.place, step.before, step.want) for step in told.steps] == [
        (SWAPPINESS, "60", "10"),
        (AT_BOOT, None, "10"),
    ]
    assert {step.lacks for step in told.steps} == {Lack(reason="root's", hint="be root")}
    assert told.refused == ()


def test_what_nobody_may_is_refused_where_it_is_only_shown_too() -> None:
    told = plan([wants((SWAPPINESS, "10"))], Obstructed(there().world, SWAPPINESS), Machine(), shown=True)
    assert told.steps == ()
    assert [(one.reason, one.hint) for one in told.refused] == [("somebody's", "ask them")]


def test_who_lacks_the_right_is_told_how_others_get_the_commands() -> None:
    told = plan([wants((SWAPPINESS, "10"))], Forbidden(World(values={SWAPPINESS: "60"})), Machine())
    assert told.steps == ()
    assert [one.hint for one in told.refused] == [
        "be root; --dry-run shows the plan, --as sh prints it for who has the right"
    ]


@pytest.mark.parametrize(("elsewhere", "shown"), [(True, False), (False, True)])
def test_who_has_asked_to_see_the_plan_or_the_commands_is_not_told_to(elsewhere: bool, shown: bool) -> None:
    class Unreadable(DictionaryPlaces):
        def get(self, place: Place) -> str | None:
            raise NoRight("root's", hint="be root")

    told = plan([wants((SWAPPINESS, "10"))], Unreadable(World()), Machine(), elsewhere=elsewhere, shown=shown)
    assert {one.hint for one in told.refused} == {"be root"}


def test_what_is_to_be_changed_elsewhere_needs_no_right_here() -> None:
    world = World(values={SWAPPINESS: "60"})
    asked = [wants((SWAPPINESS, "10"))]
    assert plan(asked, Obstructed(world, SWAPPINESS), Machine()).steps == ()
    told = plan(asked, Obstructed(world, SWAPPINESS), Machine(), elsewhere=True)
    assert [step.place for step in told.steps] == [SWAPPINESS, AT_BOOT]
    assert told.refused == ()


def test_what_holds_now_is_changed_though_what_holds_at_boot_is_somebodys() -> None:
    world = World(values={SWAPPINESS: "60"})
    told = plan([wants((SWAPPINESS, "10"))], Obstructed(world, AT_BOOT), Machine())
    assert [step.place for step in told.steps] == [SWAPPINESS]
    assert [refusal.place for refusal in told.refused] == [AT_BOOT]


def machine(promised: int, *, huge: int = 0, swap: int = 0, ratio: str = "50") -> Machine:
    figures = (("MemTotal", 8 * GIB), ("SwapTotal", swap), ("Committed_AS", promised))
    pools = (HugePool(page_bytes=2 * MIB, total=huge),)
    return Machine(meminfo=figures, huge_pools=pools, sysctls=(("vm.overcommit_ratio", ratio),))


def strict(told: Machine, *more: tuple[Place, str], forced: tuple[str, ...] = ()) -> list[str]:
    made = plan([wants(*more, (STRICT, "2"))], there(), told, forced=forced)
    assert (made.steps == ()) == (made.refused != ())
    return [f"{refusal.reason}: {refusal.hint}" for refusal in made.refused]


def test_a_promise_within_the_limit_may_be_kept_to() -> None:
    assert strict(machine(3 * GIB)) == []
    assert strict(machine(3 * GIB + 512 * MIB)) != []  # a limit without room refuses the next program
    assert strict(machine(4 * GIB, swap=2 * GIB)) == []
    assert strict(machine(5 * GIB, ratio="80")) == []
    assert strict(machine(5 * GIB), (RATIO, "80")) == []


def test_a_limit_below_what_has_been_promised_is_refused_with_a_ratio_that_works() -> None:
    for promised, huge in ((4 * GIB, 0), (3 * GIB, 1024)):
        (said,) = strict(machine(promised, huge=huge))
        ratio = said.split("--ratio ")[1].split(";")[0]
        assert strict(machine(promised, huge=huge), (RATIO, ratio)) == []
    assert strict(machine(4 * GIB), forced=("vm.overcommit_memory",)) == []


def test_without_the_figures_it_is_not_done() -> None:
    assert strict(Machine()) == ["how much has been promised is not told: look at Committed_AS in /proc/meminfo; "
                                 "--force vm.overcommit_memory does it all the same"]  # fmt: skip


ID = 64 * "a"
LIMIT = Place(kind="container", of=f"docker/{ID}", key="memory")


def holding(group: str, mib: int, cache_mib: int = 0, *, version: int = 2) -> Machine:
    """A machine with a container's group, which holds so much, and that of its monitor, which holds more."""
    name = "total_inactive_file" if version == 1 else "inactive_file"
    own = Cgroup(path=group, version=version, current_bytes=mib * MIB, stat=((name, cache_mib * MIB),))
    monitor = Cgroup(path=f"/machine.slice/libpod-conmon-{ID}.scope", version=version, current_bytes=GIB)
    return Machine(cgroups=(monitor, own))


@pytest.mark.parametrize("group", [f"/docker/{ID}", f"/system.slice/docker-{ID}.scope"])
@pytest.mark.parametrize("version", [1, 2])
def test_a_limit_of_a_container_below_what_it_holds_beside_its_cache_is_refused(group: str, version: int) -> None:
    places = DictionaryPlaces(World(values={LIMIT: f"{64 * MIB}+0"}))
    told = plan([wants((LIMIT, "20M+0"))], places, holding(group, 30, version=version))
    ends = "ends in a kill at once" if version == 2 else "stays, and the kernel refuses the limit"
    assert [refusal.reason for refusal in told.refused] == [
        f"it holds 30 MiB beside its cache: what swap cannot take of that {ends}"
    ]
    assert plan([wants((LIMIT, "20M+0"))], places, holding(group, 30), forced=("memory",)).steps != ()
    assert plan([wants((LIMIT, "20M+0"))], places, holding(group, 30, 15, version=version)).steps != ()
    assert plan([wants((LIMIT, "+0"))], places, holding(group, 30)).steps != ()
    assert plan([wants((LIMIT, "20M+0"))], places, Machine()).steps != ()


def finding(code: str, *remedies: Remedy) -> Finding:
    return Finding(code=code, severity="warning", confidence="certain", claim=code, remedies=remedies)


def test_of_each_finding_the_first_remedy_made_of_settings_that_can_be_changed_is_taken() -> None:
    change = Change(place=SWAPPINESS, want="10")
    other = Change(place=Place(kind="melt", of="x"), want="1")
    talk = Remedy(title="think")
    mixed = Remedy(title="both", settings=(change, other))
    fit = Remedy(title="set", cost="none", settings=(change,))
    wanted, by_hand = wanted_by([finding("a", talk, mixed, fit), finding("b", mixed), finding("c")], {"sysctl"})
    assert wanted == [Wanted((change,), "a", "a", "none")]
    assert [one.code for one in by_hand] == ["b", "c"]
    wanted, by_hand = wanted_by([finding("a", talk, fit), finding("b", fit)], {"sysctl"}, first=True)
    assert [one.code for one in wanted] == ["b"]
    assert [one.code for one in by_hand] == ["a"]


ZRAM = Place(kind="zram", key="disksize")


def test_zram_may_be_twice_as_large_as_the_memory_and_no_larger_unless_forced() -> None:
    there, told = DictionaryPlaces(World()), Machine(meminfo=(("MemTotal", 2 * GIB),))
    assert plan([wants((ZRAM, str(4 * GIB)))], there, told).steps != ()
    made = plan([wants((ZRAM, str(5 * GIB)))], there, told)
    assert made.steps == ()
    (refusal,) = made.refused
    assert "5 GiB would take more than the 2 GiB there are" in refusal.reason
    assert "--size 1024M" in str(refusal.hint)
    assert plan([wants((ZRAM, str(5 * GIB)))], there, told, forced=("disksize",)).steps != ()


def test_zram_is_not_made_from_within_a_container() -> None:
    there = DictionaryPlaces(World())
    inside = plan([wants((ZRAM, str(GIB)))], there, Machine(cgroup_private=True))
    assert [refusal.reason for refusal in inside.refused] == [
        "this is a container: it would be swap of the whole machine's"
    ]


def test_zram_is_a_device_now_and_a_unit_for_later_boots() -> None:
    there, now, later = DictionaryPlaces(World()), "zram:/disksize", "zram.service:/disksize"
    for span, due in ((Span(), [now, later]), (Span(later=False), [now]), (Span(now=False), [later])):
        told = plan([wants((ZRAM, str(GIB)))], there, Machine(), span=span)
        assert [str(step.place) for step in told.steps] == due


def test_what_no_boot_ends_is_not_set_until_the_next() -> None:
    limit = Place(kind="k8s", of="https://h/shop/deploy/web@1/app", key="memory")
    told = plan([wants((limit, "1Gi"))], DictionaryPlaces(World()), Machine(), span=Span(later=False))
    assert told.steps == ()
    assert [refusal.hint for refusal in told.refused] == ["without --runtime it holds until it is undone"]


@pytest.mark.parametrize(
    ("key", "want", "cost"),
    [
        ("vm.panic_on_oom", "0", None),
        ("vm.panic_on_oom", "1", "the machine stops the first time that all memory is used; it stays so, as"),
        ("vm.panic_on_oom", "2", "used, and when a cgroup or a container reaches its own limit; it stays so, as"),
        ("vm.swappiness", "10", None),
        ("vm.swappiness", "0", "a process of a cgroup at its limit is killed though swap is free"),
        ("vm.overcommit_memory", "0", None),
        ("vm.overcommit_memory", "1", "nobody is refused memory, and who uses it is killed"),
    ],
)
def test_a_value_that_a_check_would_find_has_its_cost(key: str, want: str, cost: str | None) -> None:
    place = Place(kind="sysctl", key=key)
    machine = Machine(meminfo=(("SwapTotal", GIB),), sysctls=(("kernel.panic", "0"),))
    steps = plan([wants((place, want))], DictionaryPlaces(World(values={place: "?"})), machine).steps
    assert len(steps) == 2
    for step in steps:
        assert (step.cost is None) == (cost is None)
        assert (cost or "") in (step.cost or "")


@pytest.mark.parametrize(
    ("place", "want", "cost"),
    [
        (
            Place(kind="unit", of="web.service", key="MemoryMax"),
            "infinity",
            "with all else in \x02/a.slice\x03 it has 4 GiB",
        ),
        (Place(kind="cgroup", of="/b", key="memory.max"), "max", "the kernel chooses among all processes"),
        (Place(kind="cgroup", of="/b", key="memory.memsw.limit_in_bytes"), "max", "the kernel chooses among all"),
        (
            Place(kind="container", of=f"docker/{64 * 'c'}", key="memory"),
            "max+max",
            "with all else in \x02/docker\x03 it",
        ),
        (Place(kind="container", of=f"docker/{64 * 'c'}", key="memory"), "+max", "it may use all the swap there is"),
        (Place(kind="cgroup", of="/b", key="memory.high"), "max", "nothing slows it down before its memory.max"),
        (Place(kind="cgroup", of="/b", key="memory.swap.max"), "max", "it may use all the swap there is"),
        (Place(kind="cgroup", of="/b", key="memory.max"), "1073741824", None),
        (Place(kind="unit", of="web.service", key="MemoryHigh"), "1073741824", None),
        (Place(kind="k8s", of="https://h/shop/deploy/web@1/app", key="memory"), None, "the other pods of its node"),
    ],
)
def test_what_bounds_it_once_its_limit_is_lifted_is_told(place: Place, want: str | None, cost: str | None) -> None:
    groups = (
        Cgroup(path="/a.slice", version=2, max_bytes=4 * GIB),
        Cgroup(path="/a.slice/web.service", version=2, max_bytes=GIB),
        Cgroup(path="/b", version=2, max_bytes=GIB),
        Cgroup(path="/docker", version=2, max_bytes=2 * GIB),
        Cgroup(path=f"/docker/{64 * 'c'}", version=2, max_bytes=GIB),
    )
    machine = Machine(cgroups=groups, units=(Unit(name="web.service", cgroup="/a.slice/web.service"),))
    (step,) = plan([wants((place, want))], DictionaryPlaces(World(values={place: "?"})), machine).steps
    assert (step.cost is None) == (cost is None)
    assert (cost or "") in (step.cost or "")
    made = plan([wants((place, want))._replace(cost="it ends")], DictionaryPlaces(World(values={place: "?"})), machine)
    assert (made.steps[0].cost or "").endswith("it ends" if cost is None else "; it ends")


def test_a_panic_with_a_reboot_says_so_and_an_unknown_one_what_decides() -> None:
    place = Place(kind="sysctl", key="vm.panic_on_oom")
    for sysctls, said in (((("kernel.panic", "10"),), "boots again, as kernel.panic is 10"), ((), "only if kernel.")):
        values = DictionaryPlaces(World(values={place: "0"}))
        step = plan([wants((place, "1"))], values, Machine(sysctls=sysctls)).steps[0]
        assert said in (step.cost or "")


def test_swappiness_without_swap_is_of_no_use() -> None:
    for told, useless in (((("SwapTotal", 0),), True), ((("SwapTotal", GIB),), False), ((), False)):
        step = plan([wants((SWAPPINESS, "10"))], there(), Machine(meminfo=told)).steps[0]
        assert ("until there is swap" in (step.cost or "")) is useless

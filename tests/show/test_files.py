"""What is exported for Compose, of plans that no engine here has."""

from dataclasses import replace

from reprieve.model.change import Step
from reprieve.model.finding import Place
from reprieve.model.machine import Container, Machine
from reprieve.show import files

MIB = 1 << 20


def _container(number: int, service: str | None, project: str = "shop") -> Container:
    return Container(container_id=f"{number:064x}", manager="docker", service=service, project=project)


def _limit(number: int, want: str) -> Step:
    return Step(place=Place(kind="container", of=f"docker/{number:064x}", key="memory"), before="max+max", want=want)


MACHINE = Machine(
    containers=(_container(1, "web"), _container(2, "web"), _container(3, "web", "other\n"), _container(4, None))
)


def _said(*steps: Step) -> list[str]:
    return [line for line in files.compose(steps, MACHINE) if "deploy.resources" not in line]


def test_of_two_containers_of_one_service_the_larger_limit_is_said_whole() -> None:
    small, large = _limit(1, f"{64 * MIB}+{64 * MIB}"), _limit(2, f"{128 * MIB}+max")
    for steps in ((small, large), (large, small)):
        assert _said(*steps) == [
            "# compose.override.yaml of shop",
            "services:",
            '  "web":',
            f"    mem_limit: {128 * MIB}",
            "    memswap_limit: -1",
        ]


def test_without_a_limit_of_swap_is_more_than_with_one() -> None:
    some, all_of_it = _limit(1, f"{64 * MIB}+{64 * MIB}"), _limit(2, f"{64 * MIB}+max")
    assert "    memswap_limit: -1" in _said(some, all_of_it)
    assert "    memswap_limit: -1" in _said(all_of_it, some)


def test_services_of_one_name_in_two_projects_are_two() -> None:
    said = _said(_limit(1, f"{64 * MIB}+0"), _limit(3, f"{32 * MIB}+0"))
    assert said[0] == "# compose.override.yaml of shop"
    assert "# compose.override.yaml of other\\x0a" in said
    assert said.count('  "web":') == 2
    assert f"    mem_limit: {32 * MIB}" in said


def test_what_it_cannot_say_is_refused_with_the_reason() -> None:
    steps = (
        _limit(4, f"{64 * MIB}+0"),
        _limit(1, "max+max"),
        Step(place=Place(kind="sysctl", key="vm.swappiness"), before="60", want="1"),
    )
    reasons = [refusal.reason for refusal in files.not_said(steps, "compose", MACHINE)]
    assert reasons == [
        "Compose did not make it, as far as it could be seen",
        "there no limit is no line: take mem_limit out of the file",
        "no file of Compose says that",
    ]


def test_a_word_that_was_taken_for_a_unit_is_told_how_a_container_is_named() -> None:
    unit = Step(place=Place(kind="unit", of="web.service", key="MemoryMax"), before=None, want=str(64 * MIB))

    def hint(step: Step, form: str) -> str | None:
        (refusal,) = files.not_said([step], form, MACHINE)
        return refusal.hint

    named = "--as sh does, of this unit of systemd; a container of Compose is docker:web or podman:web"
    assert hint(unit, "compose") == named
    assert hint(unit, "k8s") == "--as sh does"
    found = replace(unit, code="unit-setting-ignored")  # nobody has named it
    assert hint(found, "compose") == "--as sh does"
    slices = replace(unit, place=Place(kind="unit", of="batch.slice", key="MemoryMax"))
    assert hint(slices, "compose") == "--as sh does"

"""What the last look had, and what is new."""

from dataclasses import replace
from itertools import permutations

from reprieve.model.earlier import Known
from reprieve.model.finding import Evidence, Finding
from reprieve.rules.living.known import compare


def holds(severity: str = "warning", subject: str = "java") -> Finding:
    return Finding(code="process-holds", severity=severity, confidence="certain", claim="", subject=subject)


def kept(severity: str | None = "warning", subject: str = "java") -> Known:
    return Known("process-holds", subject, severity)


def of_process(pid: int, severity: str = "warning") -> Finding:
    return replace(holds(severity), evidence=(Evidence(text="java: VmRSS 9 kB", source=f"/proc/{pid}"),))


def test_what_stands_as_it_was_or_milder_is_not_new() -> None:
    assert compare([holds()], [kept()]) == ([], [holds()])
    assert compare([holds("info")], [kept("critical")]).new == []
    assert compare([], [kept()]) == ([], [])


def test_what_is_severer_than_it_was_is_new() -> None:
    assert compare([holds("critical")], [kept()]) == ([holds("critical")], [])


def test_one_more_of_a_name_is_new_and_one_alone() -> None:
    assert compare([holds(), holds()], [kept()]) == ([holds()], [holds()])
    assert compare([holds(), holds()], [kept(), kept()]).new == []
    assert compare([holds(), holds()], [kept(), kept(subject="mysqld")]).new == [holds()]


def test_where_one_is_severer_the_others_are_not_told_in_its_stead() -> None:
    now = (holds("critical"), holds("warning"), holds("info"))
    for found in permutations(now):
        assert compare(found, [kept("info"), kept("warning"), kept("warning")]).new == [holds("critical")]


def test_of_several_of_a_name_the_one_that_came_is_told() -> None:
    known = [kept()._replace(place=f"/proc/{pid}") for pid in (20, 30)]
    assert compare([of_process(pid) for pid in (10, 20, 30)], known).new == [of_process(10)]
    assert compare([of_process(30), of_process(10)], known).new == []  # one went, and another came


def test_of_several_of_a_name_the_one_that_got_worse_is_told() -> None:
    known = [Known("process-holds", "java", "warning", "/proc/1"), Known("process-holds", "java", "info", "/proc/2")]
    assert compare([of_process(1, "info"), of_process(2, "warning")], known).new == [of_process(2, "warning")]


def test_of_an_older_look_all_of_a_code_and_subject_are_known() -> None:
    for severity in (None, "a word of a later reprieve"):
        assert compare([holds("critical"), holds()], [kept(severity)]).new == []

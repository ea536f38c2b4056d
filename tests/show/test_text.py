"""What `reprieve why` prints on a terminal."""

from dataclasses import replace

from hypothesis import example, given
from hypothesis import strategies as st

from reprieve.model.finding import Gap, Remedy
from reprieve.model.oom import OomReport, Stamp
from reprieve.model.snapshot import Snapshot
from reprieve.model.workload import Workload
from reprieve.oom.paths import workload
from reprieve.show import escape, text
from tests.show.examples import event, finding, snapshot, summary
from tests.show.test_escape import NASTY, acts


def lines(name: str = "memhog", *, width: int = 80, verbose: bool = False) -> list[str]:
    return list(text.explain(snapshot(name), [finding(name)], width=width, verbose=verbose))


def test_of_nothing_nothing_is_said() -> None:
    assert list(text.explain(Snapshot(), [])) == []


def test_of_an_empty_report_nothing_is_made_up() -> None:
    said = list(text.explain(Snapshot(ooms=(OomReport(),)), []))
    assert said[0] == "Killed    not told: this text holds no line that says who was killed"
    assert said[1] == "Limit     not told by this text"


def test_the_first_three_lines_answer_who_whose_limit_what_now() -> None:
    assert lines()[:3] == [
        "Killed    memhog (pid 508) of /memhog/child, held 21 MiB, Nov 23 memhog",
        "Limit     32 MiB for /memhog, its parent; all of it used",
        "What now  Raise the limit of memhog to 48 MiB",
    ]


def test_one_event_takes_half_a_screen() -> None:
    said = list(text.explain(Snapshot(ooms=(event(),)), [finding()] * 9))
    assert len(said) <= 24
    assert all(escape.columns(line) <= 80 for line in said)
    assert any(line.startswith("Evidence") for line in said)


def test_a_line_says_how_to_see_more_unless_told_not_to() -> None:
    facts = snapshot()
    more = [line for line in text.explain(facts, []) if line.startswith("More")]
    assert more == ["More      -v: every process, the zones, all evidence; --list: all 2 events"]
    assert not [line for line in text.explain(facts, [], hints=False) if line.startswith("More")]


def test_a_kill_asked_for_by_a_person_reaches_no_limit() -> None:
    said = list(text.explain(Snapshot(ooms=(replace(event(), sysrq=True),)), []))
    assert said[1] == "Limit     none: a person asked the kernel for this kill (sysrq-f)"


def test_the_other_victims_of_a_group_are_counted() -> None:
    oom = event()
    group = replace(oom, kills=(*oom.kills, replace(oom.kills[0], pid=509)))
    said = list(text.explain(Snapshot(ooms=(group,)), []))
    assert said[0].startswith("Killed    memhog (pid 508) and 1 more of its group of /memhog/child, held 42 MiB")


@given(NASTY, st.booleans(), st.integers(min_value=30, max_value=120))
@example("x\x1b[2J\u202e\n", True, 80)
def test_no_name_acts_on_the_terminal(name: str, verbose: bool, width: int) -> None:
    said = lines(name, width=width, verbose=verbose)
    said += text.listing([summary(name)], width=width)
    assert not any(acts(char) for line in said for char in line)


@given(NASTY, st.integers(min_value=40, max_value=120))
def test_the_head_answers_in_at_most_three_lines_each_whatever_the_names(name: str, width: int) -> None:
    head = lines(name, width=width)
    head = head[: head.index("")]
    labels = [line[:9].rstrip() for line in head]
    assert [label for label in labels if label] == ["Killed", "Limit", "What now"]
    assert labels.index("Limit") <= 3
    assert labels.index("What now") - labels.index("Limit") <= 3
    assert all(escape.columns(line) <= width for line in head)


def test_what_has_no_room_on_a_line_goes_on_in_the_next_and_nothing_is_lost() -> None:
    pod = workload("/kubepods.slice/kubepods-pod10d16a28_60ff_475f_a631_510d9792219f.slice/cri-containerd-" + 64 * "a")
    head = list(text.explain(Snapshot(ooms=(replace(event(), workload=pod, limit_of=pod),)), [], width=60))
    assert head[:6] == [
        "Killed    memhog (pid 508) of container aaaaaaaaaaaa of pod",
        "          10d16a28-60ff-475f-a631-510d9792219f (Guaranteed),",
        "          held 21 MiB, Nov 23 memhog",
        "Limit     32 MiB for container aaaaaaaaaaaa of pod",
        "          10d16a28-60ff-475f-a631-510d9792219f;",
        "          all of it used",
    ]


def test_what_hides_nothing_is_a_note_and_comes_last() -> None:
    notes = (Gap(place="stdin:1", reason="is forged", hides=False), Gap(place="kern.log", reason="is gone"))
    said = list(text.explain(Snapshot(gaps=notes), []))
    assert said == ["Not seen  kern.log: is gone", "Note      stdin:1: is forged"]


def test_colours_come_only_when_told() -> None:
    assert "\x1b" not in "".join(lines())
    coloured = list(text.explain(snapshot(), [finding()], colour=True))
    assert "\x1b[1m" in coloured[0]


def test_the_list_has_one_line_for_each_event() -> None:
    assert list(text.listing([summary(), summary()], width=100)) == 2 * [
        "Nov 23 memhog  memhog (pid 508) +1    21 MiB  32 MiB of /memhog"
    ]


def test_in_a_narrow_list_the_date_and_the_size_give_way_before_the_limit_and_the_victim() -> None:
    when = Stamp(text="2026-11-23T14:08:22.123456+00:00")
    limit = Workload(path="/docker/4f1c", kind="container", name="docker container 4f1c2d3e4a5b")
    one = replace(summary(), stamp=when, victims=((4194304, "unattended-upgr"),), limit_of=limit)
    who, whose = "unattended-upgr (pid 4194304)", "32 MiB of docker container 4f1c2d3e4a5b"
    said = {width: "".join(text.listing([one], width=width)) for width in (60, 80, 100, 120, 200, None)}
    assert said[60] == f"2026-11-23T14:08:22…  {who}  32 MiB…"
    assert said[80] == f"2026-11-23T14:08:22…  {who}  32 MiB of docker container…"
    assert said[100] == f"2026-11-23T14:08:22.123456+…  {who}  {whose}"
    assert said[120] == said[200] == said[None] == f"2026-11-23T14:08:22.123456+00:00  {who}    21 MiB  {whose}"


def test_the_victim_in_a_list_is_cut_last() -> None:
    one = replace(summary(), victims=((7, "\x1b" * 15),))
    (narrow,) = text.listing([one], width=60)
    (whole,) = text.listing([one], width=None)
    assert escape.columns(narrow) <= 60
    assert "\\x1b" * 9 in narrow
    assert whole.endswith("/memhog")


@given(st.integers(min_value=1, max_value=10**9), st.integers(min_value=1, max_value=60))
def test_a_bar_is_never_longer_than_its_room(part: int, width: int) -> None:
    assert 1 <= len(text.bar(part, 10**9, width)) <= width


@given(st.text(alphabet="ab ", max_size=60), st.integers(min_value=1, max_value=20))
def test_wrapping_keeps_every_letter(said: str, width: int) -> None:
    wrapped = list(text.wrap(said, width))
    assert "".join(wrapped).replace(" ", "") == said.replace(" ", "")
    assert all(len(line) <= width for line in wrapped)


def test_what_to_do_is_never_cut() -> None:
    title = "If everything below the group needs more than 32 MiB together, raise it to 96 MiB"
    said = list(text.explain(snapshot(), [replace(finding(), remedies=(Remedy(title=title),))]))
    assert said[2:4] == [
        "What now  If everything below the group needs more than 32 MiB together, raise",
        "          it to 96 MiB",
    ]

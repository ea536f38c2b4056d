"""Steps as lines and as scripts: a script does what the step does, to who was meant or to nobody."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from reprieve.machine.places import MachinePlaces
from reprieve.model.change import Entry, Plan, Refusal, Stay, Step, Transaction
from reprieve.model.finding import Place, parse_place
from reprieve.show import changes, export
from reprieve.show.changes import Present
from reprieve.show.text import Page, plain_paint


def in_a_shell(step: Step) -> subprocess.CompletedProcess[str]:
    script = "\n".join(export.shell([step]))
    return subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)


def test_the_score_of_a_process_is_written_to_that_process_alone() -> None:
    with subprocess.Popen(["sleep", "600"]) as process:
        try:
            score = Path(f"/proc/{process.pid}/oom_score_adj")
            before = int(score.read_text())
            place = MachinePlaces().identify(Place(kind="process", of=str(process.pid), key="oom_score_adj"))
            step = Step(place=place, before=str(before), want=str(before + 5))
            assert changes.difference(place, step.before, step.want) == (
                f"process {process.pid} oom_score_adj  {before} → {before + 5}, until it ends"
            )
            earlier = Place(kind="process", of=f"{process.pid}@1", key=place.key)
            refused = in_a_shell(Step(place=earlier, before="0", want="999"))
            assert (refused.returncode, refused.stderr) == (1, f"process {process.pid} has ended\n")
            assert int(score.read_text()) == before
            assert in_a_shell(step).returncode == 0
            assert int(score.read_text()) == before + 5
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("key", "before", "after", "said"),
    [
        ("memory", "64Mi", "2147483648", "…:app memory limit  64Mi → 2 GiB"),
        ("requests", None, "1Gi", "…:app memory request  not set → 1Gi"),
        ("memory+requests", "64Mi+", "2Gi+1Gi", "…:app memory  limit 64Mi, request not set → limit 2Gi, request 1Gi"),
        ("memory+requests", None, "+1Gi", "…:app memory  not set → limit not set, request 1Gi"),
    ],
)
def test_limit_and_request_of_a_workload_are_told_apart(key: str, before: str | None, after: str, said: str) -> None:
    place = Place(kind="k8s", of="https://h/shop/deploy/web@1-2/app", key=key)
    assert changes.difference(place, before, after) == said.replace("…", "deploy/shop/web")


def test_a_limit_of_a_cgroup_is_a_size_and_its_path_one_word() -> None:
    place = Place(kind="cgroup", of="4711:/a b:1/'$(x)'\u202e", key="memory.limit_in_bytes")
    said = changes.difference(place, "max", "33554432")
    assert said == "/a b:1/'$(x)'\\u202e memory.limit_in_bytes  no limit → 32 MiB, until it is removed"
    (line,) = list(export.shell([Step(place=place, before="33554432", want="max")]))[2:]
    words = subprocess.run(["sh", "-c", f"set -- {line}; printf '%s\\n' \"$@\""], capture_output=True, check=True)
    *_, file, value = words.stdout.decode().splitlines()
    assert value == "-1"
    assert file.startswith("/sys/fs/cgroup/memory/a b:1/'$(x)'")
    together = Place(kind="cgroup", of="4711:/a", key="memory.oom.group")
    assert changes.difference(together, "0", "1") == "/a memory.oom.group  0 → 1, until it is removed"


@pytest.mark.parametrize(
    ("place", "found", "said"),
    [
        ("sysctl:/vm.swappiness", "5", "vm.swappiness is 5: somebody else has set it"),
        (
            "sysctl.d:/vm.swappiness",
            "5",
            "vm.swappiness (/etc/sysctl.d/60-reprieve.conf) is 5: somebody else has set it",
        ),
        (
            "sysctl.d:/vm.swappiness",
            None,
            "vm.swappiness (/etc/sysctl.d/60-reprieve.conf) is not set: somebody else has removed it",
        ),
        (
            "zram.service:/disksize",
            "other",
            "swap on zram (/etc/systemd/system/reprieve-zram.service) is somebody else's: somebody else has set it",
        ),
    ],
)
def test_what_others_have_set_is_told_with_where(place: str, found: str | None, said: str) -> None:
    theirs = Stay(place=parse_place(place), why="changed", number=3, before=None, want="10", found=found)
    assert changes.stay(theirs).startswith(f"{said} since change 3 changed it from not set to 10")


def test_what_became_of_a_value_is_told_with_its_time() -> None:
    places = (Place(kind="process", of="7@1", key="oom_score_adj"), Place(kind="sysctl", key="vm.swappiness"))
    entries = tuple(
        Entry(number=number, place=place, before="0", want="9", state="undone", undone_wall_s=5.0, became=became)
        for number, (place, became) in enumerate(zip(places, ("gone", "left"), strict=True))
    )
    change = Transaction(number=3, begun_wall_s=2.0, boot_id=None, user="anna", ended=True, entries=entries)
    page = Page(width=120, paint=plain_paint)
    head, first, second = changes.history(page, [(change, "undone in part", {})], lambda wall_s: f"at {wall_s:g}")
    assert head.split() == "3 at 2 anna undone in part".split()
    assert first.endswith("until it ends  gone with its process, at 5")
    assert second.endswith("now  left as somebody else set it, at 5")
    held = replace(change, entries=tuple(replace(entry, state="changed") for entry in entries))
    since = {0: Present(None, gone=True), 1: Present("60", gone=False)}
    _, first, second = changes.history(page, [(held, "not undone", since)], lambda wall_s: f"at {wall_s:g}")
    assert first.endswith("until it ends  gone with its process")
    assert second.endswith("now  now 60: set by somebody else")


@pytest.mark.parametrize(
    ("told", "before", "command"),
    [
        ("sysctl:/vm.swappiness", "60", "sysctl -w vm.swappiness=60"),
        ("sysctl.d:/vm.swappiness", None, "sed -i '/^vm[.]swappiness *=/d' /etc/sysctl.d/60-reprieve.conf"),
        ("redis:6379/7@1/maxmemory", "0", "redis-cli -p 6379 CONFIG SET maxmemory 0"),
        ("redis:0/7@1/maxmemory", "0", None),
        ("unit:web.service/MemoryMax", None, None),
        ("fstab:/swapfile", None, None),
        ("swapfile:/swapfile", "other", None),
        ("zram:/disksize", "other", None),
        ("zram.service:", "other", None),
    ],
)
def test_by_hand_it_is_one_command_that_works_whatever_is_there_or_none(
    told: str, before: str | None, command: str | None
) -> None:
    kind, _, rest = told.partition(":")
    assert export.by_hand(parse_place(told) if rest else Place(kind=kind), before) == command


@pytest.mark.parametrize(
    ("now", "lasting", "when"),
    [
        ("sysctl:/vm.swappiness", "sysctl.d:/vm.swappiness", "at each boot (/etc/sysctl.d/60-reprieve.conf)"),
        ("zram:zram1/disksize", "zram.service:/disksize", "at each boot (/etc/systemd/system/reprieve-zram.service)"),
    ],
)
def test_what_is_refused_for_later_boots_alone_is_told_from_what_is_changed_now(
    now: str, lasting: str, when: str
) -> None:
    step = Step(place=parse_place(now), before=None, want="10")
    refusal = Refusal(place=parse_place(lasting), want="10", reason="somebody's", hint="ask them")
    page, holds = Page(width=120, paint=plain_paint), "what is changed now holds until the next boot alone"
    said = "\n".join(changes.planned(page, Plan(steps=(step,), refused=(refusal,))))
    assert f", {when}: somebody's" in said
    assert holds in said
    for steps in ((), (Step(place=parse_place("sysctl:/vm.panic_on_oom"), before="0", want="1"),)):
        said = "\n".join(changes.planned(page, Plan(steps=steps, refused=(refusal,))))
        assert "somebody's" in said
        assert when not in said
        assert holds not in said

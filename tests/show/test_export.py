"""What is printed for another machine: as its tools read it, whatever names are in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import yaml
from hypothesis import given
from hypothesis import strategies as st

from reprieve.model.change import Step
from reprieve.model.finding import Place
from reprieve.model.zram import UNIT
from reprieve.show.export import ansible


class Unsafe(NamedTuple):
    """A text that Ansible takes as it is; each other one is a template."""

    text: str


class Reader(yaml.SafeLoader):  # type: ignore[misc]
    """YAML as Ansible reads it."""


Reader.add_constructor("!unsafe", lambda reader, node: Unsafe(reader.construct_scalar(node)))

TEMPLATE = '{{ lookup("pipe", "touch pwned") }}{% raw %}{#'


def tasks(*steps: Step) -> list[dict[str, object]]:
    (play,) = yaml.load("\n".join(ansible(steps)), Reader)
    told = play["tasks"]
    assert isinstance(told, list)
    return told


def texts(task: object) -> list[object]:
    """All values of a task."""
    return [text for value in task.values() for text in texts(value)] if isinstance(task, Mapping) else [task]


def step(kind: str, of: str, key: str, want: str, called: str | None = None) -> Step:
    return Step(place=Place(kind=kind, of=of, key=key), before=None, want=want, called=called)


def test_no_name_in_a_play_is_a_template() -> None:
    steps = (
        step("redis.conf", f"0:/srv/{TEMPLATE}/redis.conf", "maxmemory", "9"),
        step("container", f"docker/{'a' * 64}", "memory", "536870912+max", called=TEMPLATE),
        step("cgroup", f"/{TEMPLATE}", "memory.max", "9"),
        step("sysctl", "", "vm.swappiness", TEMPLATE),
        step("sysctl.d", "", "vm.dirty_ratio", TEMPLATE),
        step("zram.service", "zram", "disksize", str(1 << 30)),
    )
    told = [text for task in tasks(*steps) for text in texts(task)]
    assert sum(isinstance(text, Unsafe) and "touch pwned" in text.text for text in told) >= len(steps) - 1
    assert not [text for text in told if not isinstance(text, Unsafe) and "{" in str(text)]
    (unit,) = [text for text in told if isinstance(text, Unsafe) and UNIT in text.text]
    assert "${#1}" in unit.text


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_name_is_in_a_play_what_it_is(called: str) -> None:
    (task,) = tasks(step("container", f"docker/{'a' * 64}", "memory", "max+max", called=called))
    (name, command) = texts(task)
    assert isinstance(name, Unsafe)
    assert isinstance(command, Unsafe)
    if called.isprintable() and called.isascii():
        assert called in name.text
    if called.isalnum() and called.isprintable():
        assert called in command.text

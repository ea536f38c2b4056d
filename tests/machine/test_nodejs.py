"""Node.js among the processes: its words and NODE_OPTIONS, as Node takes them, and as no one should."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reprieve.machine.cmdline import Started
from reprieve.machine.host import Host
from reprieve.machine.nodejs import read_nodes_js, read_told, split_options
from reprieve.machine.proc import read_processes
from reprieve.model.application import NodeJs
from reprieve.model.finding import Gap
from tests.machine.real import program
from tests.machine.runtimes import node

MIB = 1 << 20
WORDS = st.one_of(
    st.text(),
    st.sampled_from("-e --eval - -- app.js --max-old-space-size --max_old_space_size=1e9 --max-heap-size=0x8".split()),
    st.builds("--max-old-space-size={}".format, st.one_of(st.text(), st.integers())),
)


def told(*words: str, variable: str = "") -> dict[str, tuple[str, str]]:
    """Each option, and where it was told."""
    values, origins = read_told(Started("/bin/node", ("node", *words), {"NODE_OPTIONS": variable}))
    return {name: (value, origins[name]) for name, value in values.items()}


def nodejs(pid: int) -> tuple[NodeJs | None, list[Gap]]:
    """The Node.js process of this machine with that pid, if it is one."""
    gaps: list[Gap] = []
    found = read_nodes_js(Host(), gaps, read_processes(Host(), gaps, pids=[pid]))
    return (found[0] if found else None), gaps


# -- what is none ------------------------------------------------------------------------------------------------------


def test_words_of_the_script_are_none_of_node() -> None:
    for script in (("app.js",), ("--", "app.js"), ("-",), ("-r", "./x.js", "app.js"), ("--inspect", "app.js")):
        assert told(*script, "--max-old-space-size=100") == {}


def test_what_node_does_not_take_is_not_told() -> None:
    assert told("--max-old-space-size=", "--max-old-space-size=1g", "--max-old-space-size", "-max-heap-size=9") == {}


@settings(max_examples=300, deadline=None)
@given(words=st.lists(WORDS), variable=st.text())
def test_no_words_of_whatever_kind_are_too_much(words: list[str], variable: str) -> None:
    found = told(*words, variable=variable)
    assert all(value.strip("0123456789.") == "" for value, _ in found.values())
    assert len("".join(split_options(variable))) <= len(variable)


def test_a_script_that_is_called_node_is_no_node(tmp_path: Path) -> None:
    (tmp_path / "node").write_text("#!/bin/sh\nread line\n")
    (tmp_path / "node").chmod(0o755)
    child = subprocess.Popen([str(tmp_path / "node")], stdin=subprocess.PIPE)
    try:
        while Path(f"/proc/{child.pid}/comm").read_text() != "node\n":
            pass
        assert nodejs(child.pid) == (None, [])
    finally:
        child.kill()
        child.communicate()


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(cmdline=st.binary(), environ=st.binary(), comm=st.sampled_from([b"node", b"MainThread", b"sh"]))
def test_a_hostile_process_is_told_of_or_left_out(cmdline: bytes, environ: bytes, comm: bytes, tmp_path: Path) -> None:
    folder = tmp_path / "made-up/proc/7"
    folder.mkdir(parents=True, exist_ok=True)
    stat = b"7 (%s) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 3 0 9000 3133440 390 18446744073709551615 1 1\n" % comm
    for name, data in (("stat", stat), ("cmdline", b"node\0" + cmdline), ("environ", environ)):
        (folder / name).write_bytes(data)
    gaps: list[Gap] = []
    host = Host(str(tmp_path / "made-up"))
    found = read_nodes_js(host, gaps, read_processes(host, gaps))
    assert [one.pid for one in found] == ([7] if comm != b"sh" else [])


# -- what is told ------------------------------------------------------------------------------------------------------


def test_the_command_line_counts_more_than_the_variable() -> None:
    assert told("--max-old-space-size=2", "--max_old_space_size=3", "a.js", variable="--max-old-space-size=4") == {
        "max-old-space-size": ("3", "command line")
    }


FORMS = (
    (("--max-old-space-size=300",), ""),
    (("--max_old_space_size=300", "--max-old-space-size=400"), "--max-old-space-size=500"),
    (("--no-warnings", "--max-semi-space-size=8"), '--redirect-warnings "/dev/a b" --max-old-space-size=200'),
    ((), '"--max-old-space-size=300" --no-warnings'),
    ((), '--redirect-warnings="/dev/a \\"b --max-old-space-size=1" --max-old-space-size=700'),
)


@pytest.mark.slow
@pytest.mark.parametrize(("words", "variable"), FORMS)
def test_options_are_read_as_node_reads_them(words: tuple[str, ...], variable: str) -> None:
    with node("--max-semi-space-size=16", *words, environ={"NODE_OPTIONS": variable}) as waiting:
        found, gaps = nodejs(waiting.pid)
    assert found is not None
    assert (gaps, found.unseen) == ([], ())
    assert found.max_old_space_size_bytes is not None
    assert found.max_semi_space_size_bytes is not None
    assert waiting.heap_bytes == found.max_old_space_size_bytes + 3 * found.max_semi_space_size_bytes


@pytest.mark.slow
def test_a_title_written_over_the_words_is_no_word() -> None:
    title = "process.title = '--max-old-space-size=9';"
    with node(
        "--max-old-space-size=300", script=title, environ={"NODE_OPTIONS": "--max-old-space-size=400"}
    ) as waiting:
        found, gaps = nodejs(waiting.pid)
    assert found is not None
    assert (gaps, found.unseen) == ([], ("command line",))
    assert found.max_old_space_size_bytes == 400 * MIB


@pytest.mark.slow
def test_its_version_is_that_of_the_headers_beside_it() -> None:
    printed = subprocess.run((program("node"), "--version"), capture_output=True, text=True, check=True).stdout
    with node() as waiting:
        found, _ = nodejs(waiting.pid)
    assert found is not None
    assert found.node_version in (None, printed.strip().removeprefix("v"))

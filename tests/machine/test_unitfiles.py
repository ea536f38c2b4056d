"""What unit files say about memory, found and read as systemd does: held against a real one in tests/lab."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reprieve.machine.host import Host
from reprieve.machine.unitfiles import UnitFiles, parse_lines
from reprieve.model.finding import Gap

ETC, RUN, VENDOR = "etc/systemd/system", "run/systemd/system", "usr/lib/systemd/system"


def said(text: str) -> list[tuple[int, str, str, str]]:
    return [(line.line, line.section, line.key, line.value) for line in parse_lines(text, "x")]


class Tree:
    """A folder of unit files: it is made up."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, path: str, *settings: str, section: str = "Service") -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join((f"[{section}]", *settings, "")))

    def said(self, *names: str) -> list[str]:
        gaps: list[Gap] = []
        lines = UnitFiles(Host(str(self.root))).lines(names, gaps)
        assert gaps == []
        return [f"{line.path.rpartition('/')[2]}:{line.line} {line.key}={line.value}" for line in lines]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path / "made-up-host")


# -- the text of one file ----------------------------------------------------------------------------------------------


def test_comments_and_other_settings_are_none() -> None:
    assert said("[Service]\n# MemoryMax=1G\n ; MemoryMax=2G\nExecStart=true\nTasksMax=5\nMemoryMax\n\n") == []


def test_a_comment_behind_a_value_is_part_of_it() -> None:
    assert said("[Service]\n MemoryMax = 2G # the limit\n") == [(2, "Service", "MemoryMax", "2G # the limit")]


def test_a_line_that_goes_on_is_joined_and_comments_within_it_are_left_out() -> None:
    assert said(
        "[Service]\nExecStart=a\\\n# MemoryMax=1G\n MemoryMax=2G\nMemoryMax=\\\n#c\n 8G\nMemoryMin=1\\\\\n"
    ) == [
        (5, "Service", "MemoryMax", "8G"),
        (8, "Service", "MemoryMin", "1\\\\"),
    ]


def test_section_and_spelling_are_as_they_stand() -> None:
    assert said("memorymax=1\r\n[Unit]\r\nOOMSCOREADJUST=5\r\n") == [
        (1, "", "memorymax", "1"),
        (3, "Unit", "OOMSCOREADJUST", "5"),
    ]


@given(st.text(alphabet=st.sampled_from("[]=#;\\\n\r \tMemoryMax1GService\x00é"), max_size=200) | st.text(max_size=200))
def test_any_text_has_lines_that_stand_in_it(text: str) -> None:
    lines = text.split("\n")
    for line in parse_lines(text, "x"):
        assert line.text == lines[line.line - 1]


# -- which files are read, in which order ------------------------------------------------------------------------------


def test_a_unit_without_files_says_nothing(tree: Tree) -> None:
    tree.write(f"{ETC}/other.service", "MemoryMax=1G")
    assert tree.said("web.service") == []


def test_the_administrators_file_hides_that_of_the_package(tree: Tree) -> None:
    tree.write(f"{VENDOR}/web.service", "MemoryMax=1G")
    tree.write(f"{ETC}/web.service", "MemoryMax=2G")
    assert tree.said("web.service") == ["web.service:2 MemoryMax=2G"]


def test_drop_ins_are_read_by_their_names_whatever_their_folders(tree: Tree) -> None:
    tree.write(f"{VENDOR}/web.service", "MemoryMax=1G")
    tree.write(f"{ETC}/web.service.d/10-first.conf", "MemoryMax=2G")
    tree.write(f"{RUN}/web.service.d/90-last.conf", "MemoryMax=")
    tree.write(f"{VENDOR}/web.service.d/50-middle.conf", "MemoryMax=3G")
    tree.write(f"{ETC}/web.service.d/50-middle.conf", "MemoryMax=4G")
    tree.write(f"{ETC}/web.service.d/70-none.txt", "MemoryMax=9G")
    assert tree.said("web.service") == [
        "web.service:2 MemoryMax=1G",
        "10-first.conf:2 MemoryMax=2G",
        "50-middle.conf:2 MemoryMax=4G",
        "90-last.conf:2 MemoryMax=",
    ]


def test_templates_shorter_names_other_names_and_all_of_a_kind_have_drop_ins_too(tree: Tree) -> None:
    tree.write(f"{VENDOR}/web-app@.service", "MemoryMax=1G")
    for number, name in enumerate(("service", "web-@1.service", "web-.service", "web-app@.service", "site.service")):
        tree.write(f"{ETC}/{name}.d/{number}.conf", f"MemoryMin={number}")
    assert tree.said("web-app@1.service", "site.service") == [
        "web-app@.service:2 MemoryMax=1G",
        *(f"{number}.conf:2 MemoryMin={number}" for number in range(5)),
    ]
    assert tree.said("web-app.service") == ["0.conf:2 MemoryMin=0", "2.conf:2 MemoryMin=2"]


def test_what_is_hidden_by_a_link_to_nothing_says_nothing(tree: Tree) -> None:
    tree.write(f"{VENDOR}/web.service", "MemoryMax=1G")
    (tree.root / ETC).mkdir(parents=True)
    (tree.root / ETC / "web.service").symlink_to("/dev/null")
    assert tree.said("web.service") == []


def test_units_with_files_are_known_and_templates_are_none(tree: Tree) -> None:
    for name in (
        "web.service",
        "app@.service",
        "app@1.service",
        "web-.service.d/x.conf",
        "app.slice.d/x.conf",
        "a.timer",
    ):
        tree.write(f"{ETC}/{name}")
    assert UnitFiles(Host(str(tree.root))).names([]) == {"web.service", "app@1.service", "app.slice"}


def test_what_cannot_be_read_is_told(tree: Tree) -> None:
    tree.write(f"{ETC}/web.service.d/x.conf/y", "MemoryMax=1G")
    gaps: list[Gap] = []
    assert UnitFiles(Host(str(tree.root))).lines(("web.service",), gaps) == ()
    assert [(gap.place, gap.reason) for gap in gaps] == [("/etc/systemd/system/web.service.d/x.conf", "is a directory")]

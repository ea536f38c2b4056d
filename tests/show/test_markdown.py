"""What `reprieve why --markdown` writes, seen by a renderer as GitHub, GitLab and Jira have one."""

from html.parser import HTMLParser

from hypothesis import example, given, settings
from markdown_it import MarkdownIt

from reprieve.model.finding import Gap
from reprieve.model.oom import OomReport
from reprieve.model.snapshot import Snapshot
from reprieve.show import markdown
from tests.show.examples import event, finding, snapshot, summary
from tests.show.test_escape import NASTY, acts

RENDERER = MarkdownIt("commonmark", {"html": True, "linkify": True}).enable(["table", "strikethrough", "linkify"])


class Elements(HTMLParser):
    """Every element of a page with its attributes, and every text."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, tuple[tuple[str, str | None], ...]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, tuple(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def rendered(name: str) -> Elements:
    lines = [*markdown.render(snapshot(name), [finding(name)]), *markdown.listing([summary(name)])]
    assert not any(acts(char) for line in lines for char in line)
    seen = Elements()
    seen.feed(RENDERER.render("\n".join(lines)))
    return seen


def test_of_nothing_nothing_is_said() -> None:
    assert list(markdown.render(Snapshot(), [])) == []


def test_an_empty_report_has_no_empty_sections() -> None:
    lines = list(markdown.render(Snapshot(ooms=(OomReport(),)), []))
    assert not [line for line in lines if line.startswith("###")]


def test_what_hides_nothing_is_not_among_what_was_not_seen() -> None:
    notes = (Gap(place="stdin:1", reason="is forged", hides=False), Gap(place="kern.log", reason="is gone"))
    said = "\n".join(markdown.render(Snapshot(gaps=notes), []))
    assert said.split("### ")[1:] == ["Not seen\n\n- `kern.log`: is gone\n\n", "Notes\n\n- `stdin:1`: is forged\n"]


def test_words_that_are_no_names_become_no_link_either() -> None:
    gap = Gap(place="x", reason="ended: see http://evil.example", hint="zstd -dc < www.evil.example.zst | reprieve why")
    lines = list(markdown.render(Snapshot(gaps=(gap,)), []))
    seen = Elements()
    seen.feed(RENDERER.render("\n".join(lines)))
    assert "a" not in [name for name, _ in seen.found]
    assert "http://evil.example (zstd -dc < www.evil.example.zst" in seen.text
    assert r"www\.evil" in "\n".join(lines)


def test_the_first_lines_answer_who_whose_limit_what_now() -> None:
    lines = list(markdown.render(Snapshot(ooms=(event(),)), [finding()]))
    assert lines[:4] == [
        "## Out of memory: `memhog` (pid 508) of `/memhog/child`, held 21 MiB, Nov 23 memhog",
        "",
        "- **Limit:** 32 MiB for `/memhog`, its parent; all of it used",
        "- **What now:** Raise the limit of `memhog` to 48 MiB",
    ]


@given(NASTY)
@example("http://evil.example")
@example("www.evil.com")
@example("a@evil.com")
@example("<img src=x onerror=alert(1)>")
@example("`|`\n# a")
@example("|x|\n| - |")
@example("```\n<b>")
@example("~~a~~ **b** __c__ [d](http://e) ![f](g) :smile: @everyone #1")
@example("a\\")
@example(" ")
@settings(deadline=None)
def test_no_name_becomes_an_element_a_link_or_a_cell(name: str) -> None:
    assert _but_code(rendered(name)) == _but_code(rendered("memhog"))


def _but_code(seen: Elements) -> list[tuple[str, tuple[tuple[str, str | None], ...]]]:
    return [element for element in seen.found if element != ("code", ())]  # a name may be one, a date is not


def test_a_name_is_read_as_it_was_chosen() -> None:
    assert "**rm** `x` <b>" in rendered("**rm** `x` <b>").text

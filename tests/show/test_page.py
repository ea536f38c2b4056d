"""The page that `reprieve why --html` writes, as a parser and as a real browser see it."""

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given, settings

from reprieve.model.finding import Gap
from reprieve.model.oom import OomReport, Stamp
from reprieve.model.snapshot import Snapshot
from reprieve.show import page
from tests.show.examples import event, finding, snapshot, summary
from tests.show.test_escape import NASTY, acts
from tests.show.test_markdown import Elements

FETCHES = {
    "script",
    "link",
    "img",
    "iframe",
    "object",
    "embed",
    "video",
    "audio",
    "source",
    "form",
    "input",
    "base",
    "a",
}


def parsed(html: str) -> Elements:
    seen = Elements()
    seen.feed(html)
    return seen


def rendered(name: str) -> Elements:
    html = page.render(snapshot(name), [finding(name)])
    assert not any(acts(char) for char in html if char != "\n")
    return parsed(html)


def shape(seen: Elements) -> list[tuple[str, tuple[tuple[str, str | None], ...]]]:
    return [
        element for element in seen.found if element != ("bdi", (("class", "name"),))
    ]  # a date may be a name or not


def test_of_nothing_there_is_a_page_that_holds_nothing() -> None:
    html = page.render(Snapshot(), [])
    assert "<article>" not in html
    assert "<h2>" not in html


def test_an_empty_report_has_no_empty_sections() -> None:
    html = page.render(Snapshot(ooms=(OomReport(),)), [])
    assert html.count("<h2>") == 1  # the report itself


def test_what_hides_nothing_is_not_among_what_was_not_seen() -> None:
    html = page.render(Snapshot(gaps=(Gap(place="stdin:1", reason="is forged", hides=False),)), [])
    assert "<h2>Notes</h2>" in html
    assert "<h2>Not seen</h2>" not in html


def test_no_name_becomes_an_element_or_an_attribute() -> None:
    assert shape(rendered("<img src=x onerror=alert(1)>'\"")) == shape(rendered("memhog"))


@given(NASTY)
@example("</style><script>")
@example("{{ 7 * 7 }}{% raw %}")
@example("&lt;b&gt;")
@settings(deadline=None, max_examples=40)
def test_the_page_is_the_same_whatever_the_names(name: str) -> None:
    assert shape(rendered(name)) == shape(rendered("memhog"))


def test_nothing_in_it_can_be_fetched_or_run() -> None:
    seen = rendered("url(http://leak.test/a)")
    assert not FETCHES & {tag for tag, _ in seen.found}
    names = {attribute for _, attributes in seen.found for attribute, _ in attributes}
    assert not {name for name in names if name.startswith("on") or name in ("src", "href", "style")}
    style = page.render(Snapshot(), []).partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style


def test_the_victim_is_marked_in_words() -> None:
    html = page.render(snapshot(), [finding()])
    assert html.count('<b class="tag">killed</b>') == 1


def test_lines_that_findings_rest_on_are_marked_in_the_log() -> None:
    html = page.render(snapshot(), [finding()])
    assert html.count("<mark>") == 1


def test_the_time_line_appears_with_the_second_event() -> None:
    one = Snapshot(ooms=(event(),), history=(summary(),))
    assert "events in time" not in page.render(one, [])
    assert "2 events in time" in page.render(snapshot(), [])


def test_the_time_line_keeps_the_distances_of_the_clock() -> None:
    history = tuple(replace(summary(), stamp=Stamp(uptime_s=at)) for at in (0.0, 10.0, 100.0))
    html = page.render(Snapshot(history=history), [])
    assert [part.partition('"')[0] for part in html.split('class="tick" x1="')[1:]] == ["20.0", "116.0", "980.0"]


@pytest.mark.slow
def test_a_real_browser_finds_no_fault_and_fetches_nothing(tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    assert browser is not None, "needs chromium"
    hostile = "<img src=http://leak.test/x onerror=alert(1)>"

    def opened(name: str) -> Elements:
        (tmp_path / "page.html").write_text(page.render(snapshot(name), [finding(name)]))
        arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--disable-component-update",
            "--enable-logging=stderr",
            f"--user-data-dir={tmp_path / 'profile'}",
            f"--log-net-log={tmp_path / 'net.json'}",
        ]
        run = subprocess.run(
            [browser, *arguments, "--dump-dom", (tmp_path / "page.html").as_uri()],
            capture_output=True,
            check=True,
            text=True,
            timeout=120,
        )
        assert "CONSOLE" not in run.stderr
        requests = (tmp_path / "net.json").read_text()
        assert "page.html" in requests  # it is a log of requests
        assert "leak.test" not in requests
        assert "<article>" in run.stdout
        return parsed(run.stdout)

    assert shape(opened(hostile)) == shape(opened("memhog"))

"""The screen of `reprieve top`: what is on it, and what each key does."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, repeat
from pathlib import Path

import pytest
from textual.pilot import Pilot

import reprieve
from reprieve.machine.observe import observe
from reprieve.model.finding import Gap
from reprieve.model.machine import Machine
from reprieve.model.oom import OomReport
from reprieve.model.process import Process
from reprieve.oom.counted import FOR_ROOT
from reprieve.rules.survey import Surveyor
from reprieve.show import escape
from reprieve.snapshot import load
from reprieve.tui import Top
from tests.logs_of import LOGS
from tests.machine.test_sampler import MIB, Child
from tests.rules.test_survey import growing
from tests.show.test_live import golden, hostile
from tests.test_why import on_a_terminal

Use = Callable[[Pilot[None]], Awaitable[None]]
UNIT = LOGS / "lab" / "6.1.0-56-cloud-amd64__systemd-unit-memorymax.txt"
KILLS = list(reprieve.read_reports(UNIT.read_bytes()))


def screen(pilot: Pilot[None]) -> list[str]:
    strips = pilot.app.screen._compositor.render_strips()
    return ["".join(segment.text for segment in strip).rstrip() for strip in strips]


async def look(pilot: Pilot[None], times: int = 1) -> None:
    assert isinstance(pilot.app, Top)
    for _ in range(times):
        pilot.app.action_look_now()
        await pilot.app.workers.wait_for_complete()
    await pilot.pause()


def use(looks: Iterator[Machine], do: Use, kills: Sequence[OomReport] = (), size: tuple[int, int] = (80, 24)) -> None:
    """Do something with a screen on which time passes by the looks alone; the kills are told with the first."""
    told = iter([kills])

    async def run() -> None:
        app = Top(look=lambda: next(looks), new_kills=lambda: next(told, ()), every_s=86400, surveyor=Surveyor())
        async with app.run_test(size=size) as pilot:
            await pilot.pause()
            await do(pilot)

    asyncio.run(run())


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def web(seconds: int = 100) -> Iterator[Machine]:
    """A machine on which /app/web grows by 3.75 MiB a minute."""
    return growing("v2-mini-6.12", seconds, pid=167, group="/app/web", step=MIB // 16)


def services() -> Iterator[Machine]:
    """A machine with nine processes that do nothing."""
    return growing("v2-systemd-252", 100, pid=None, group=None, step=0)


def test_the_screens_are_the_pages(utc: None) -> None:
    async def do(pilot: Pilot[None]) -> None:
        await look(pilot, 50)
        for name, keys in (
            ("processes", "1"),
            ("cgroups", "2"),
            ("kills", "3"),
            ("why", "w"),
            ("process", "escape 1 enter"),
            ("help", "escape question_mark"),
            ("export", "escape space e ctrl+u x"),
        ):
            await pilot.press(*keys.split())
            await pilot.pause()
            golden(f"top-screen-{name}.txt", screen(pilot)[:-1])  # the last line is for a while

    use(web(), do, KILLS)


def test_a_note_is_no_place_that_was_not_seen() -> None:
    gaps = (Gap(place="/proc/1", reason="is closed"), Gap(place="/proc/2", reason="is odd", hides=False))

    async def run() -> None:
        app = Top(look=lambda: next(services()), new_kills=tuple, unseen=lambda: gaps, every_s=86400)
        async with app.run_test(size=(80, 60)) as pilot:
            await pilot.press("question_mark")
            await pilot.pause()
            told = [line.strip() for line in screen(pilot)]
            assert "Not seen: /proc/1: is closed" in told
            assert "Note: /proc/2: is odd" in told

    asyncio.run(run())


def test_nobody_is_next_only_where_all_were_seen() -> None:
    unseen = [Gap(place="/proc", reason="hidepid")]
    machine = replace(next(services()), processes=())

    async def run() -> None:
        app = Top(look=lambda: machine, unseen=lambda: unseen, every_s=86400)
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            assert screen(pilot)[5] == "Next      nobody of those who could be seen"
            unseen.clear()
            await look(pilot)
            assert screen(pilot)[5].startswith("Next      nobody: there is no process")

    asyncio.run(run())


@pytest.mark.parametrize("size", [(40, 12), (80, 24), (200, 60)])
def test_every_size_is_filled_and_not_overrun(size: tuple[int, int]) -> None:
    async def do(pilot: Pilot[None]) -> None:
        for key in "1 2 3 question_mark escape 1 enter".split():
            await pilot.press(key)
            await pilot.pause()
            lines = screen(pilot)
            assert len(lines) == size[1]
            assert max(map(escape.columns, lines)) <= size[0]
        await pilot.press("escape")
        await pilot.pause()
        assert screen(pilot)[-1].startswith("s sort")

    use(services(), do, size=size)


def test_keys_are_offered_where_they_do_something() -> None:
    async def do(pilot: Pilot[None]) -> None:
        for view, offered in (("1", "↵ more  k kill"), ("2", ""), ("3", "↵ why")):
            await pilot.press(view)
            await pilot.pause()
            middle = screen(pilot)[-1].removeprefix("s sort  / find  f filter  space freeze")
            assert middle.removesuffix("  e export  ? help  q quit").strip() == offered

    use(services(), do)


def test_another_size_is_drawn_anew() -> None:
    async def do(pilot: Pilot[None]) -> None:
        assert not any("SHMEM" in line for line in screen(pilot))
        await pilot.resize_terminal(120, 30)
        await pilot.pause()
        assert any("SHMEM" in line for line in screen(pilot))

    use(services(), do)


@pytest.mark.parametrize("name", ["[red]x[/red]", "\x1b[2J", "a\nb", "[/]", "\u202eabc", "日本語", "x" * 15])
def test_no_name_acts_on_the_screen(name: str) -> None:
    async def do(pilot: Pilot[None]) -> None:
        for key in "1 2 1 k escape enter".split():
            await pilot.press(key)
            await pilot.pause()
            for line in screen(pilot):
                assert line == escape.visible(line)
        if name.startswith("[red]"):
            assert "[red]x[/red]" in "".join(screen(pilot))

    machine = hostile(name).machine
    use(repeat(machine), do)


def rows(pilot: Pilot[None]) -> list[str]:
    """The names in the rows, from the top."""
    return [line[44:60].strip() for line in screen(pilot)[9:-1] if line.strip()]


def test_rows_are_sorted_filtered_and_found() -> None:
    async def do(pilot: Pilot[None]) -> None:
        assert rows(pilot)[:2] == ["systemd", "systemd-udevd"]
        await pilot.press("s", "s")
        await pilot.pause()
        assert rows(pilot)[:2] == ["sh", "systemd-logind"]
        await pilot.press("f", *"WEB.SERVICE", "enter")
        await pilot.pause()
        assert rows(pilot) == ["sleep"]
        assert "1 with “web.service”" in screen(pilot)[7]
        await pilot.press("escape", "slash", *"dbus", "enter", "enter")
        await pilot.pause()
        assert "dbus-daemon (pid 165)" in screen(pilot)[1]
        await pilot.press("escape", "slash", *"nobody", "enter")
        await pilot.pause()
        assert screen(pilot)[-1] == " no row holds “nobody”"

    use(services(), do)


def test_the_chosen_row_moves_with_who_is_in_it() -> None:
    async def do(pilot: Pilot[None]) -> None:
        await pilot.press("down", "down")
        await pilot.press("s", "s", "enter")
        await pilot.pause()
        assert "systemd-journal (pid 135)" in screen(pilot)[1]

    use(services(), do)


def test_what_is_frozen_stays_and_what_happens_meanwhile_is_kept() -> None:
    async def do(pilot: Pilot[None]) -> None:
        await look(pilot, 3)
        await pilot.press("space")
        before = screen(pilot)
        await look(pilot, 40)
        assert screen(pilot) == before
        assert "FROZEN" in before[7]
        await pilot.press("space")
        await pilot.pause()
        assert "+3.8 MiB" in screen(pilot)[9]

    use(web(), do)


def test_a_kill_is_told_and_explained_as_why_does() -> None:
    async def do(pilot: Pilot[None]) -> None:
        await look(pilot)
        assert screen(pilot)[-1].startswith(" killed: leaky (pid 221) of leaky.service")
        assert "3 Kills 1" in screen(pilot)[7]
        await pilot.press("w")
        await pilot.pause()
        assert screen(pilot)[1].startswith("Killed    leaky (pid 221) of leaky.service")

    use(services(), do, KILLS)


def test_only_the_newest_kills_are_kept_and_each_keeps_its_explanation() -> None:
    (oom,) = KILLS
    many = [replace(oom, kills=(replace(oom.kills[0], pid=pid),)) for pid in range(1000, 1150)]

    async def do(pilot: Pilot[None]) -> None:
        await look(pilot)
        assert "3 Kills 100" in screen(pilot)[7]
        await pilot.press("3", "down", "enter")
        await pilot.pause()
        assert "(pid 1148)" in screen(pilot)[1]

    use(services(), do, many)


# -- what reaches beyond the screen ------------------------------------------------------------------------------------


@pytest.fixture
def child() -> Iterator[Child]:
    child = Child()
    child.do(f"comm end-{child.pid}")
    yield child
    child.end()


def with_child(child: Child) -> Iterator[Machine]:
    from reprieve.machine.host import Host

    machine = observe(Host(), [], unique_s=0)
    return chain([machine], repeat(machine))


@pytest.mark.parametrize("typed", ["", "kill", "kill 1", "y", "KILL {pid}", "kill {pid}0"])
def test_no_process_ends_without_its_number_typed(child: Child, typed: str) -> None:
    async def do(pilot: Pilot[None]) -> None:
        await pilot.press("slash", *f"end-{child.pid}", "enter", "k")
        await pilot.pause()
        assert f"kill {child.pid}" in "".join(screen(pilot))
        await pilot.press(*(char.replace(" ", "space") for char in typed.format(pid=child.pid)), "enter")
        await pilot.pause()
        assert screen(pilot)[-1] == " nothing was sent"
        await pilot.press("k", "escape")
        await pilot.pause()

    use(with_child(child), do)
    assert child.process.poll() is None


@pytest.mark.parametrize(("word", "number"), [("term", 15), ("kill", 9)])
def test_a_process_ends_when_that_is_confirmed(child: Child, word: str, number: int) -> None:
    async def do(pilot: Pilot[None]) -> None:
        await pilot.press("slash", *f"end-{child.pid}", "enter", "k")
        await pilot.pause()
        await pilot.press(*word, "space", *str(child.pid), "enter")
        await pilot.pause()
        assert screen(pilot)[-1].endswith(f"was sent to process {child.pid}")

    use(with_child(child), do)
    assert child.process.wait(30) == -number


def test_who_took_the_number_since_is_not_asked_about(child: Child) -> None:
    def earlier() -> Iterator[Machine]:
        (machine,) = (next(with_child(child)),)

        def older(one: Process) -> Process:
            return replace(one, start_ticks=one.start_ticks - 1) if one.pid == child.pid else one

        return repeat(replace(machine, processes=tuple(map(older, machine.processes))))

    async def do(pilot: Pilot[None]) -> None:
        await pilot.press("slash", *f"end-{child.pid}", "enter", "k")
        await pilot.pause()
        assert "may be another's" in screen(pilot)[-1]

    use(earlier(), do)
    assert child.process.poll() is None


def test_what_is_seen_is_written_once_in_the_form_that_the_name_asks_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    async def do(pilot: Pilot[None]) -> None:
        await look(pilot)
        for name in ("a.txt", "b.jsonl", "c.csv", "d.gz", "a.txt"):
            await pilot.press("e", "ctrl+u", *name, "enter")
            await pilot.pause()
        assert "a.txt: File exists" in screen(pilot)[-1]

    use(services(), do, KILLS)
    assert "web.service" in (tmp_path / "a.txt").read_text()
    kinds = [json.loads(line)["kind"] for line in (tmp_path / "b.jsonl").read_text().splitlines()]
    assert kinds[:2] == ["look", "event"]
    assert ",kill,221," in (tmp_path / "c.csv").read_text()
    snapshot = load(str(tmp_path / "d.gz"))
    assert snapshot.machine is not None
    assert len(snapshot.ooms) == 1
    assert snapshot.logs == ()  # nobody read of what was before
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_of_what_the_view_has_seen_the_time_left_is_written_too(tmp_path: Path) -> None:
    async def do(pilot: Pilot[None]) -> None:
        await look(pilot, 50)
        await pilot.press("e", "ctrl+u", *str(tmp_path / "a.txt"), "enter")
        await pilot.pause()

    use(web(), do)
    lines = (tmp_path / "a.txt").read_text().splitlines()
    assert lines[4].startswith("Time left 21 min 31 s in /app/web, +")


# -- a real terminal ---------------------------------------------------------------------------------------------------


_TOP = ("-m", "reprieve", "top", "--every", "0.2")
# Its second look waits for ever in /proc, as where memory is short; it is ended otherwise than it was told, in the end.
_HANGING = """
import os, signal, threading
from reprieve.machine.sampler import Sampler
look, seen = Sampler.look, []
def hang(self):
    if seen:
        open(os.environ["HANGS"], "w").close()
        threading.Event().wait()
    seen.append(look(self))
    return seen[0]
Sampler.look = hang
signal.alarm(30)
from reprieve.tui import run
run(every_s=0.05)
"""


def live(*keys: bytes | signal.Signals | Path, argv: Sequence[str] = _TOP, **env: str) -> tuple[int, str]:
    """Exit status, and what a terminal of 80 x 24 receives: each key once the screen is there, and `q`.

    A signal may be one; a path is waited for.
    """
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update({"TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"} | env)
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):  # who runs the tests may ignore one
            signal.signal(number, signal.SIG_DFL)
        os.execv(sys.executable, [sys.executable, *argv])
    modes = termios.tcgetattr(terminal)
    received, waiting = b"", [*keys, b"q"]
    while select.select([terminal], [], [], 30)[0]:
        try:
            data = os.read(terminal, 65536)
        except OSError:  # EIO: it has ended
            break
        received += data
        if waiting and b"Time left" in received:
            key = waiting.pop(0)
            if isinstance(key, Path):
                until = time.monotonic() + 60
                while not key.exists() and time.monotonic() < until:
                    time.sleep(0.01)
                key = waiting.pop(0)
                assert isinstance(key, bytes | signal.Signals)
            if isinstance(key, bytes):
                os.write(terminal, key)
            else:
                os.kill(pid, key)
    assert termios.tcgetattr(terminal) == modes
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), received.decode(errors="replace")


COLOUR = re.compile(r"\x1b\[[0-9;]*\b(3[0-7]|4[0-7]|38;|48;)")


def test_on_a_terminal_it_shows_this_machine_and_leaves_it_as_it_was() -> None:
    status, received = live(b"2", b"1")
    assert status == 0
    assert "Cgroups" in received
    assert "\x1b[?1049l" in received  # the screen of before is back
    assert COLOUR.search(received)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_told_to_end_it_ends_so_and_leaves_the_terminal_as_it_was(number: signal.Signals) -> None:
    status, received = live(number)
    assert status == -number
    assert received.rindex("\x1b[?1049l") > received.rindex("\x1b[?1049h")
    assert received.rindex("\x1b[?25h") > received.rindex("\x1b[?25l")


def test_told_to_end_while_a_look_hangs_it_ends_all_the_same(tmp_path: Path) -> None:
    hangs = tmp_path / "hangs"
    status, received = live(b"2", b"1", hangs, signal.SIGTERM, argv=("-c", _HANGING), HANGS=str(hangs))
    assert hangs.exists()
    assert status == -signal.SIGTERM
    assert "\x1b[?1049l" in received


def test_after_so_many_looks_it_leaves_by_itself() -> None:
    received = on_a_terminal("top", "--every", "0.1", "-n", "3")
    assert "Time left" in received
    assert "\x1b[?1049l" in received


def test_without_colours_it_shows_the_same() -> None:
    status, received = live(NO_COLOR="1")
    assert status == 0
    assert "Processes" in received
    assert not COLOUR.search(received)


_AUDIT = """
import asyncio, sys
import reprieve
from reprieve.machine.kills import Kills
from reprieve.machine.sampler import Sampler, TURNS
from reprieve.tui import Top
kills = list(reprieve.read_reports(sys.argv[1]))
opened = set()
def hook(event, arguments):
    if event in ("open", "os.listdir", "os.scandir", "import"):
        opened.add(f"{event} {arguments[0]}")
async def main():
    app = Top(look=Sampler().look, new_kills=lambda: [kills.pop()] if kills else [], every_s=86400)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        sys.addaudithook(hook)
        keys = "2 3 enter escape 1 enter escape question_mark escape f x enter escape k"
        for key in ["r"] * 2 * TURNS + keys.split():
            await pilot.press(key)
            await app.workers.wait_for_complete()
            await pilot.pause()
        seen = sorted(one for one in opened if not one.split(" ")[1].startswith(("/proc", "/sys")))
    print(*seen, sep="\\n")
with Kills(None):
    asyncio.run(main())
"""


def test_once_it_is_there_nothing_is_read_from_a_disk() -> None:
    done = subprocess.run([sys.executable, "-c", _AUDIT, str(UNIT)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def counting(*kills: int | None) -> Iterator[Machine]:
    """A machine whose kernel has killed so often at each look; None: it does not count them."""
    machine = next(services())
    others = tuple(figure for figure in machine.vmstat if figure[0] != "oom_kill")
    for count in kills:
        yield replace(machine, vmstat=others if count is None else (*others, ("oom_kill", count)))


@pytest.mark.parametrize(
    ("counts", "tab", "said"),
    [
        ((7, 9), "3 Kills 2", "the kernel has killed twice since this began; whom, only root may read"),
        ((7, 8), "3 Kills 1", "the kernel has killed once since this began; whom, only root may read"),
        ((7, 7), "3 Kills 0", "the kernel has killed nobody since this began"),
        ((None, None), "3 Kills ?", "kills cannot be seen here"),
    ],
)
def test_who_may_not_hear_the_kernel_sees_how_often_it_killed(
    counts: tuple[int | None, ...], tab: str, said: str, tmp_path: Path
) -> None:
    unheard = (Gap(place="/dev/kmsg", reason=FOR_ROOT),)
    looks = counting(*counts)

    async def run() -> None:
        app = Top(look=lambda: next(looks), unheard=lambda: unheard, every_s=86400, surveyor=Surveyor())
        async with app.run_test(size=(100, 24)) as pilot:
            await look(pilot)
            await pilot.press("3")
            await pilot.pause()
            seen = screen(pilot)
            assert any(tab in line for line in seen)
            assert any(f"  {said}: ? tells why" in line for line in seen)
            await pilot.press("w")
            await pilot.pause()
            assert screen(pilot)[-1] == f" {said}"
            await pilot.press("e", "ctrl+u", *str(tmp_path / "seen.gz"), "enter")
            await pilot.pause()

    asyncio.run(run())
    assert load(str(tmp_path / "seen.gz")).gaps == unheard

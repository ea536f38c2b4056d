"""The live view: a screen of a terminal, made with Textual, of what `show.live` says of each look.

What strangers chose reaches the screen as plain segments of text that were made visible: never as markup.
"""

import asyncio
import concurrent.futures.thread  # noqa: F401  # here, not at its first use: a disk may not answer then
import gc
import os
import shlex  # noqa: F401
import signal
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, ClassVar, NamedTuple

from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.strip import Strip
from textual.widget import Widget
from textual.widgets import Input, Static

from reprieve.looked import clock, export
from reprieve.machine.events import summarise
from reprieve.machine.handle import Handle
from reprieve.machine.host import Host, identify
from reprieve.machine.kills import Kills
from reprieve.machine.proc import measure_unique
from reprieve.machine.program import gaps_at_hand
from reprieve.machine.sampler import Sampler
from reprieve.machine.signals import end_by
from reprieve.model.finding import Failure, Gap
from reprieve.model.machine import Machine
from reprieve.model.oom import OomReport
from reprieve.model.snapshot import Snapshot
from reprieve.oom.counted import counted, kills_since_boot
from reprieve.rules import diagnose
from reprieve.rules.survey import Charged, Held, Survey, Surveyor
from reprieve.show import answer, escape, live
from reprieve.show.text import explain, wrap
from reprieve.units import size

_KILLS = 100  # that are kept
_SAID_S = 6.0  # that an answer stays
_PATIENCE_S = 1.0  # with a look that hangs, for who is told to end
_HELP = (
    "1 2 3, tab    processes, cgroups, kills",
    "up down, page up, page down, home, end    which row; another than the first moves with who is in it",
    "s    sort by the next column",
    "/ n  find a name, an owner, a pid; the next one",
    "f    show only rows that hold a text; escape shows all again",
    "space    freeze the screen; what happens meanwhile is kept",
    "enter    in the processes, all about one; in the kills, why the kernel killed",
    "w    why the kernel killed: the kill that is chosen, or the newest",
    "k    end a process: what to send is typed, with its pid",
    "e    write what is seen to a file: .txt, .jsonl, .csv, else a snapshot for --from",
    "r    look now",
    "q    leave",
    "",
    "OWN is private memory and swap. PER MIN is the median slope of the last two minutes, with ? where it is not sure "
    "which way it goes. RANK is the kernel's order, and » whom it would kill next. TAKEN leaves out file cache that "
    "can be dropped, which is ▒ in a bar. Time left is told with bounds that hold 95 %, if the pace stays, and not "
    "further than 30 times as long as was seen.",
)
_STYLES = {
    "strong": Style(bold=True),
    "label": Style(bold=True),
    "critical": Style(color="red", bold=True),
    "warning": Style(color="yellow"),
    "bar": Style(color="cyan"),
    "dim": Style(dim=True),
    "": Style(),
}


def run(*, every_s: float, looks: int | None = None) -> int:
    """Show this machine until the user leaves, or after so many looks; the exit status."""
    sampler = Sampler(leave_out=frozenset({os.getpid()}))
    with Kills(identify().boot_id) as kills:
        app = Top(
            look=sampler.look,
            new_kills=kills.new,
            unseen=lambda: (*sampler.gaps, *kills.gaps),
            unheard=lambda: kills.gaps if kills.unheard else (),
            every_s=every_s,
            looks=looks,
        )
        gc.freeze()  # what was loaded stays
        app.run(mouse=False)  # so that the terminal's own selection works
    if app.told_to_end is not None:
        end_by(app.told_to_end)
    return app.return_code or 0


class Kind(NamedTuple):
    """What a table does with its rows, each at the time when it is needed: most are never seen."""

    key: Callable[[Any], Hashable]  # whose a row is
    draw: Callable[[Any, int], str]  # for a width
    words: Callable[[Any], str]  # what is searched in it
    role: Callable[[Any], str]


class Rows(Widget, can_focus=True):
    """Rows of which one is chosen, or a text that can be moved. Only what is seen is drawn."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "move(-1)"),
        Binding("down", "move(1)"),
        Binding("pageup", "page(-1)"),
        Binding("pagedown", "page(1)"),
        Binding("home", "move(-1000000)"),
        Binding("end", "move(1000000)"),
    ]

    def __init__(self, kind: Kind, rows: Sequence[Any] = (), *, choose: bool = True) -> None:
        super().__init__()
        self._choose = choose
        self._kind = kind
        self._rows = rows
        self._at = self._first = 0
        self._key: Hashable = None

    @property
    def chosen(self) -> Any:
        """The row, None if there is none."""
        return self._rows[self._at] if self._choose and self._rows else None

    def put(self, kind: Kind, rows: Sequence[Any]) -> None:
        """Other rows: the chosen one is the same as before, unless it was the first, or is gone."""
        self._kind, self._rows = kind, rows
        if self._key is not None:
            self._at = next((at for at, row in enumerate(rows) if kind.key(row) == self._key), self._at)
        self.action_move(0)

    def find(self, text: str, after: int) -> bool:
        """Choose the next row that holds a text, from so many behind the chosen one; False: there is none."""
        order = [*range(self._at + after, len(self._rows)), *range(min(self._at + after, len(self._rows)))]
        found = next((at for at in order if text in self._kind.words(self._rows[at])), None)
        if found is not None:
            self.action_move(found - self._at)
        return found is not None

    def action_move(self, by: int) -> None:
        height = max(self.size.height, 1)
        if self._choose:
            self._at = max(min(self._at + by, len(self._rows) - 1), 0)
            self._key = self._kind.key(self._rows[self._at]) if self._rows and self._at else None
            self._first = max(min(self._first, self._at), self._at - height + 1)
        else:
            self._first += by
        self._first = max(min(self._first, len(self._rows) - height), 0)
        self.refresh()

    def action_page(self, by: int) -> None:
        self.action_move(by * max(self.size.height - 1, 1))

    def render_line(self, y: int) -> Strip:
        at, width = self._first + y, self.size.width
        if at >= len(self._rows):
            return Strip.blank(width)
        row = self._rows[at]
        style = _STYLES.get(self._kind.role(row), _STYLES[""])
        if self._choose and at == self._at:
            style += Style(reverse=True)
        return Strip([Segment(self._kind.draw(row, width), style)]).adjust_cell_length(width, style)


class Pager(ModalScreen[None]):
    """A text over the whole screen."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,enter", "dismiss")]

    def __init__(self, title: str, lines: Iterable[tuple[str, str]]) -> None:
        super().__init__()
        self._title = title
        self._lines = list(lines)

    def compose(self) -> ComposeResult:
        yield Static(_styled(self._title, "strong"))
        yield Rows(_LINES, self._lines, choose=False)
        yield Static(_styled(" up, down, page up, page down; escape goes back", "dim"))

    def on_mount(self) -> None:
        self.query_one(Rows).focus()


class Ask(ModalScreen[str | None]):
    """A question below some lines; what was typed, or None."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss")]

    def __init__(self, lines: Sequence[str], typed: str = "") -> None:
        super().__init__()
        self._lines = lines
        self._typed = typed

    def compose(self) -> ComposeResult:
        with Vertical(id="ask"):
            for line in self._lines:
                yield Static(_styled(line, ""), classes="said")
            yield Input(self._typed, select_on_focus=False, compact=True)

    def on_mount(self) -> None:
        self.query_one(Input).focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        self.dismiss(event.value.strip())


class View(NamedTuple):
    """One of the tables: what it is called, the columns it can be sorted by, and what can be done with a row."""

    name: str
    orders: tuple[str, ...]
    keys: str

    @property
    def said(self) -> str:
        """The keys that do something here."""
        return f"s sort  / find  f filter  space freeze{self.keys}  e export  ? help  q quit"


_VIEWS = (
    View("Processes", ("own memory", "growth", "rank", "swap", "pid"), "  ↵ more  k kill"),
    View("Cgroups", ("least left", "taken", "growth"), ""),
    View("Kills", ("time",), "  ↵ why"),
)


class Killed(NamedTuple):
    """A kill that was told while this runs."""

    number: int
    oom: OomReport
    uptime_s: float | None  # of the look that told it: the kernel's own clock of it stands still in suspend


class Top(App[None]):
    """The screen. `look` gives the machine now; it is called in a thread, once at a time."""

    ENABLE_COMMAND_PALETTE = False
    CSS = """
    Screen, Pager { background: ansi_default; }
    Static { height: 1; text-wrap: nowrap; text-overflow: ellipsis; }
    #head { height: 7; }
    Rows { height: 1fr; }
    Ask { align: left bottom; background: transparent; }
    #ask { height: auto; max-height: 100%; border-top: solid ansi_default; background: ansi_default; }
    .said { height: auto; text-wrap: wrap; }
    Input { background: ansi_default; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("1", "view(0)"),
        Binding("2", "view(1)"),
        Binding("3", "view(2)"),
        Binding("tab", "next_view", priority=True),
        Binding("s", "sort"),
        Binding("slash", "search"),
        Binding("n", "search_again"),
        Binding("f", "filter"),
        Binding("escape", "unfilter"),
        Binding("space", "freeze"),
        Binding("enter", "more"),
        Binding("w", "why"),
        Binding("k", "kill"),
        Binding("e", "export"),
        Binding("r", "look_now"),
        Binding("question_mark", "help"),
        Binding("q,ctrl+c", "quit"),
    ]

    def __init__(
        self,
        *,
        look: Callable[[], Machine],
        new_kills: Callable[[], Sequence[OomReport]] = tuple,
        unseen: Callable[[], Sequence[Gap]] = tuple,
        unheard: Callable[[], Sequence[Gap]] = tuple,  # why the kernel's words are not
        every_s: float = 1.0,
        surveyor: Surveyor | None = None,
        looks: int | None = None,
    ) -> None:
        super().__init__(ansi_color=True)  # the terminal's own, also where NO_COLOR takes them away
        self._look = look
        self._new_kills = new_kills
        self._unseen = unseen
        self._unheard = unheard
        self._every_s = every_s
        self._looks_left = looks
        self._surveyor = surveyor or Surveyor(every_s=every_s)
        self._survey = self._surveyor.survey(look())  # before the screen is taken: what fails now is told in words
        self._killed_before = kills_since_boot(self._survey.machine)
        self._kills: deque[Killed] = deque(maxlen=_KILLS)  # the newest first
        self.told_to_end: int | None = None  # by which signal
        self._view = 0
        self._orders = [0] * len(_VIEWS)
        self._sought = self._filter = ""
        self._frozen: Survey | None = None
        self._said: tuple[float, str, str] | None = None  # until when, what, its role

    def compose(self) -> ComposeResult:
        yield Static(id="head")
        yield Static(id="tabs")
        yield Static(id="titles")
        yield Rows(_LINES)
        yield Static(id="keys")

    def on_load(self) -> None:
        """Before the screen is taken: earlyoom asks first, and of all it asks us; the terminal is to be given back."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:  # nohup
                loop.add_signal_handler(number, self._end_by, number)

    def _end_by(self, number: int) -> None:
        self.told_to_end = self.told_to_end or number
        self.exit()
        asyncio.get_running_loop().call_later(_PATIENCE_S, end_by, number)  # a look may hang where memory is short

    def on_mount(self) -> None:
        self.theme = "ansi-dark"
        self.query_one(Rows).focus()
        self.set_interval(self._every_s, self.action_look_now)

    def on_resize(self) -> None:
        self.call_after_refresh(self._draw)

    # -- looks ---------------------------------------------------------------------------------------------------------

    def action_look_now(self) -> None:
        """Look in a thread: a file of /proc may take its time where memory is short, and keys are to be heard."""
        if not any(worker.is_running for worker in self.workers):
            self.run_worker(self._look_once, thread=True)

    def _look_once(self) -> None:
        survey, kills = self._surveyor.survey(self._look()), self._new_kills()
        self.call_from_thread(self._take, survey, kills)

    def _take(self, survey: Survey, kills: Sequence[OomReport]) -> None:
        earlier = self._count(self._survey)
        self._survey = survey
        for oom in kills:
            number = self._kills[0].number + 1 if self._kills else 1
            self._kills.appendleft(Killed(number, oom, survey.machine.taken_uptime_s))
        if kills and not self._frozen:
            self._say(f"killed: {escape.plain(''.join(answer.who(kills[-1])[:2]))}; w tells why", "critical")
        elif self._unheard() and (self._count(survey) or 0) > (earlier or 0) and not self._frozen:
            self._say(self._counted(survey), "critical")
        if not self._frozen:
            self._draw()
        if self._looks_left is not None:
            self._looks_left -= 1
            if self._looks_left <= 0:
                self.exit()

    def _count(self, survey: Survey) -> int | None:
        """How often the kernel has killed since this began; None: not told."""
        now = kills_since_boot(survey.machine)
        return None if now is None or self._killed_before is None else now - self._killed_before

    def _counted(self, survey: Survey) -> str:
        """What can be told of kills where the kernel's own words may not be read."""
        count = self._count(survey)
        return "kills cannot be seen here" if count is None else counted(count, "this began", self._unheard())

    @property
    def _shown(self) -> Survey:
        return self._frozen or self._survey

    # -- what is drawn -------------------------------------------------------------------------------------------------

    def _draw(self) -> None:
        width, survey = self.screen_stack[0].size.width, self._shown
        head = Text(no_wrap=True)
        for line in live.head(survey, width=width, clock=clock(survey.machine), gaps=self._unseen()):
            head.append(f"{line.label:<10}", _STYLES["label"]).append(f"{line.text}\n", _STYLES.get(line.role, ""))
        head.right_crop(1)
        kind, rows = self._rows(survey)
        if self._filter:
            rows = [row for row in rows if self._filter in kind.words(row)]
        titles = (
            live.process_titles(width),
            live.group_titles(width),
            live.kill_titles(width),
        )[self._view]
        if self._view == 2 and self._unheard():
            titles = escape.cut(f"  {self._counted(survey)}: ? tells why", width)
        base = self.screen_stack[0]
        base.query_one("#head", Static).update(head)
        base.query_one("#tabs", Static).update(self._tabs(survey, len(rows)))
        base.query_one("#titles", Static).update(_styled(titles, "dim"))
        base.query_one(Rows).put(kind, rows)
        if self._said is not None and self._said[0] < time.monotonic():
            self._said = None
        _, said, role = self._said or (0, _VIEWS[self._view].said, "dim")
        base.query_one("#keys", Static).update(_styled(escape.cut(said, width), role))

    def _tabs(self, survey: Survey, shown: int) -> Text:
        tabs = Text(no_wrap=True)
        killed: int | str = len(self._kills)
        if self._unheard():
            told = self._count(survey)
            killed = "?" if told is None else told
        for at, (view, count) in enumerate(
            zip(_VIEWS, (len(survey.processes), len(survey.groups), killed), strict=True)
        ):
            style = Style(bold=True, underline=True) if at == self._view else Style(dim=True)
            tabs.append(" ").append(f"{at + 1} {view.name} {count}", style).append(" ")
        tabs.append(f"  by {_VIEWS[self._view].orders[self._orders[self._view]]}")
        if self._filter:
            tabs.append(f"  {shown} with “{escape.visible(self._filter)}”")
        if self._frozen:
            tabs.append("  ").append("FROZEN", Style(reverse=True))
        if unseen := len(self._unseen()):
            tabs.append(f"  {unseen} not seen: ?", _STYLES["warning"])
        return tabs

    def _rows(self, survey: Survey) -> tuple[Kind, Sequence[Any]]:
        order = _VIEWS[self._view].orders[self._orders[self._view]]
        match self._view:
            case 0:
                return _processes(survey), sorted(survey.processes, key=_process_order(order))
            case 1:
                return _GROUPS, _groups(survey, order)
            case _:
                return _killed(survey), tuple(self._kills)

    def _say(self, text: str, role: str = "strong") -> None:
        self._said = time.monotonic() + _SAID_S, f" {text}", role
        self._draw()

    # -- keys ----------------------------------------------------------------------------------------------------------

    def action_view(self, view: int) -> None:
        self._view = view
        self.query_one(Rows).action_move(-1_000_000)
        self._draw()

    def action_next_view(self) -> None:
        if len(self.screen_stack) == 1:
            self.action_view((self._view + 1) % len(_VIEWS))

    def action_sort(self) -> None:
        self._orders[self._view] = (self._orders[self._view] + 1) % len(_VIEWS[self._view].orders)
        self._draw()

    def action_freeze(self) -> None:
        self._frozen = None if self._frozen else self._survey
        self._draw()

    def action_search(self) -> None:
        def found(typed: str | None) -> None:
            if typed:
                self._sought = typed.casefold()
                self._find(0)

        self.push_screen(Ask(("Find a name, an owner or a pid:",)), found)

    def action_search_again(self) -> None:
        if self._sought:
            self._find(1)

    def _find(self, after: int) -> None:
        if not self.query_one(Rows).find(self._sought, after):
            self._say(f"no row holds “{escape.visible(self._sought)}”", "warning")

    def action_filter(self) -> None:
        def told(typed: str | None) -> None:
            if typed is not None:
                self._filter = typed.casefold()
                self._draw()

        self.push_screen(Ask(("Show only rows that hold:",), self._filter), told)

    def action_unfilter(self) -> None:
        self._filter = ""
        self._draw()

    def action_help(self) -> None:
        width = self.size.width
        lines = [(line, "") for text in _HELP for line in _wrapped(text, width)]
        for gap in gaps_at_hand(self._unseen()):
            word, role = ("Not seen", "warning") if gap.hides else ("Note", "")
            lines += [(line, role) for line in _wrapped(f"{word}: {escape.plain(answer.unseen(gap))}", width)]
        self.push_screen(Pager("Keys, and what is shown", lines))

    def action_more(self) -> None:
        chosen = self.query_one(Rows).chosen
        if isinstance(chosen, Held):
            self._details(chosen)
        elif self._view == 2:
            self.action_why()

    def _details(self, held: Held) -> None:
        """Its memory added up mapping by mapping, which is done for one process alone, when it is asked for."""
        (measured,) = measure_unique(Host(), [held.process], [])
        lines = live.details(held._replace(process=measured), self._shown, self.size.width)
        self.push_screen(Pager("A process", ((f"{line.label:<10}{line.text}", line.role) for line in lines)))

    def action_why(self) -> None:
        if not self._kills and self._unheard():
            self._say(self._counted(self._shown), "warning")
            return
        if not self._kills:
            self._say("the kernel has killed nobody since this began; reprieve why tells of before", "dim")
            return
        oom = ((self.query_one(Rows).chosen if self._view == 2 else None) or self._kills[0]).oom
        history = tuple(summarise(one.oom) for one in reversed(self._kills))
        snapshot = Snapshot(ooms=(oom,), history=history)
        width = min(self.size.width, 120)
        lines = explain(snapshot, diagnose(snapshot), width=width, verbose=True)
        self.push_screen(Pager("Why the kernel killed", ((line, "") for line in lines)))

    def action_kill(self) -> None:
        held = self.query_one(Rows).chosen
        if not isinstance(held, Held):
            return
        process = held.process
        try:
            handle = Handle(process.pid, process.start_ticks)
        except Failure as failure:
            self._say(failure.message, "warning")
            return
        name = escape.plain("".join((answer.process(process.comm, process.pid), answer.of_workload(held.owner))))
        lines = (
            f"End {name}, which holds {size(held.bytes)} of its own?",
            "What it has not saved is lost, and who runs it may start it again.",
            f"Type  term {process.pid}  to ask it to end,  kill {process.pid}  to end it at once; escape leaves it:",
        )

        def confirmed(typed: str | None) -> None:
            with handle:
                self._end(handle, typed)

        self.push_screen(Ask(lines), confirmed)

    def _end(self, handle: Handle, typed: str | None) -> None:
        numbers = {f"term {handle.pid}": signal.SIGTERM, f"kill {handle.pid}": signal.SIGKILL}
        number = numbers.get(typed or "")
        if number is None:
            self._say("nothing was sent", "dim")
            return
        try:
            handle.send(number)
        except Failure as failure:
            self._say(failure.message, "warning")
        else:
            self._say(f"{number.name} was sent to process {handle.pid}")

    def action_export(self) -> None:
        def told(path: str | None) -> None:
            if not path:
                return
            try:
                export(path, self._shown, [one.oom for one in reversed(self._kills)], self._unheard())
            except Failure as failure:
                self._say(escape.visible(failure.message), "warning")
            else:
                self._say(f"written: {escape.visible(path)}")

        name = time.strftime("reprieve-top-%Y%m%d-%H%M%S.gz")
        self.push_screen(Ask(("Write what is seen to (.txt, .jsonl, .csv; else a snapshot for --from):",), name), told)


def _processes(survey: Survey) -> Kind:
    return Kind(
        key=lambda held: (held.process.pid, held.process.start_ticks),
        draw=lambda held, width: live.process_row(held, survey, width),
        words=lambda held: f"{held.process.comm or ''} {held.process.pid} {held.owner.name}".casefold(),
        role=lambda held: "strong" if live.dies_next(held, survey) else "",
    )


def _process_order(order: str) -> Callable[[Held], float]:
    match order:
        case "growth":
            return lambda held: -held.growth.slope if held.growth else 0.0
        case "rank":
            return lambda held: held.place or 1e9
        case "swap":
            return lambda held: -(held.process.swap_bytes or 0)
        case "pid":
            return lambda held: held.process.pid
        case _:
            return lambda held: -held.bytes


def _growing(charged: Charged) -> str:
    return "critical" if charged.place is not None and charged.place.left.verdict == "growing" else ""


def _groups(survey: Survey, order: str) -> Sequence[Charged]:
    match order:
        case "growth":
            return sorted(survey.groups, key=lambda charged: -charged.growth.slope if charged.growth else 0.0)
        case "taken":
            return survey.groups
        case _:
            return survey.by_left()


def _killed(survey: Survey) -> Kind:
    def draw(kill: Killed, width: int) -> str:
        now_s = survey.machine.taken_uptime_s
        return live.kill_row(kill.oom, None if now_s is None or kill.uptime_s is None else now_s - kill.uptime_s, width)

    return Kind(
        key=lambda kill: kill.number,
        draw=draw,
        words=lambda kill: live.kill_words(kill.oom).casefold(),
        role=lambda kill: "",
    )


_GROUPS = Kind(
    key=lambda charged: charged.group.path,
    draw=live.group_row,
    words=lambda charged: f"{charged.group.path} {charged.owner.name}".casefold(),
    role=_growing,
)
_LINES = Kind(
    key=lambda line: None,
    draw=lambda line, width: escape.cut(line[0], width),
    words=lambda line: line[0],
    role=lambda line: line[1],
)


def _styled(text: str, role: str) -> Text:
    return Text(text, _STYLES.get(role, ""))


def _wrapped(text: str, width: int) -> Iterable[str]:
    return wrap(text, width) if text else ("",)

"""Findings → text for a terminal: the first three lines say who, whose limit, what now; the rest fits half a screen."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence

from reprieve.model.ending import Ending
from reprieve.model.finding import Evidence, Finding, Gap, Remedy, quote
from reprieve.model.oom import OomReport, OomSummary
from reprieve.model.snapshot import Snapshot
from reprieve.rules.account import where
from reprieve.show import answer, escape
from reprieve.units import percent, size

_LABEL = 10  # columns of the words at the left
_STATUSES = ("manager-agrees", "manager-differs")  # findings that have a place of their own, below the event
_HALF_A_SCREEN = 22  # lines, but for a blank one and the last
_OTHERS = "also-killed"  # the finding that has a place of its own, beside who was killed

Paint = Callable[[str, str], str]  # (text, role) -> text


def explain(
    snapshot: Snapshot,
    findings: Sequence[Finding],
    *,
    width: int = 80,
    colour: bool = False,
    verbose: bool = False,
    hints: bool = True,
) -> Iterator[str]:
    """Each event of the snapshot, in its order, as lines without their ends; then what could not be seen.

    With `hints` a line says which options show more.
    """
    paint = colours() if colour else plain_paint
    page = Page(width=width, paint=paint)
    for index, oom in enumerate(snapshot.ooms):
        if index:
            yield ""
        about = answer.of_event(findings, index)
        statuses = [] if verbose else [finding for finding in about if finding.code in _STATUSES]
        about = [finding for finding in about if finding not in statuses]
        origin = answer.origin(oom, snapshot.history) if verbose else None
        yield from _event(page, oom, about, snapshot.history, origin)
        for finding in statuses:
            yield from page.say("Status", answer.claim(finding), finding.severity)
            yield from (line for sentence in finding.detail for line in page.say("", sentence))
    for failure in snapshot.allocation_failures:
        yield from page.say("Refused", answer.refused(failure))
    if hints and snapshot.ooms and not verbose:
        seen = len(snapshot.history)
        more = [f"; --list: all {seen} events", "; --all: each explained"] if seen > 1 else []
        yield page.headline("More", ("-v: every process, the zones, all evidence", *more), "dim")
    for finding in findings:
        if finding.oom is None:
            yield from _general(page, finding)
    yield from page.unseen(snapshot.gaps)


def listing(history: Iterable[OomSummary], *, width: int | None = 80, colour: bool = False) -> Iterator[str]:
    """One line for each event: when, who, how much was freed, whose limit; of any length if `width` is None.

    Of several hosts or logs it says which. Where there is no room for all, the ends of the dates give way (zone,
    fraction, year), then what was freed, then whose limit it was, and where it stands; who was killed is cut last.
    """
    paint = colours() if colour else plain_paint
    history = list(history)
    rows = [tuple(map(escape.plain, answer.listed(summary))) for summary in history]
    told = [tuple(map(escape.plain, cells)) for cells in answer.where_told(history)[1]]
    widths = [max(map(escape.columns, column)) for column in zip(*told, strict=True)]
    at, who, limit = (max((escape.columns(row[cell]) for row in rows), default=0) for cell in (0, 1, 3))
    freed = True
    if width is not None:
        who = min(who, _USUAL_NAME)
        room = width - who - min(limit, _USUAL_LIMIT) - 4
        freed = room - 10 >= min(at, _TO_THE_SECOND)
        at = min(at, max(room - 10 * freed, _TO_THE_SECOND))
    for (moment, victim, held, whose), places in zip(rows, told, strict=True):
        cells = [_pad(escape.cut(moment, at), at), _pad(victim, who), *([f"{held:>8}"] if freed else [])]
        cells += [_pad(whose, min(limit, _USUAL_LIMIT)) if places else whose, *map(_pad, places, widths)]
        line = "  ".join(cells).rstrip()
        yield paint(line if width is None else escape.cut(line, width), "")


def ends(told: Sequence[tuple[Ending, Finding]], *, width: int | None = 80, colour: bool = False) -> Iterator[str]:
    """One line for each of what managers say of an end: when, what they say, and where unless it is all in one text."""
    paint = colours() if colour else plain_paint
    rows = [tuple(map(escape.plain, row)) for row in answer.ended(told)]
    at = max((escape.columns(moment) for moment, _, _ in rows), default=0)
    at = at if width is None else min(at, _TO_THE_SECOND)
    alone = len({ending.source for ending, _ in told}) == 1
    for moment, said, place in rows:
        line = "  ".join((_pad(escape.cut(moment, at), at), said, *(() if alone else (place,))))
        yield paint(line if width is None else escape.cut(line, width), "")


_MOST_OF_PIECES = 3  # lines
_TO_THE_SECOND = 20  # columns: `2026-11-23T14:08:22…`, `Mon Nov 23 14:08:22…`
_USUAL_NAME = 32  # columns: 15 of a name, its pid, quotes; a longer one moves what is right of it
_USUAL_LIMIT = 40  # columns: a size, and whose


class Page:
    """Lines of a width, with words at the left that name what follows."""

    def __init__(self, *, width: int, paint: Paint) -> None:
        self.room = width - _LABEL
        self.paint = paint

    def headline(self, label: str, said: Sequence[str], role: str = "") -> str:
        """One line: the first piece, and of the others those for which there is room."""
        line = escape.cut(escape.plain(said[0]), self.room)
        for piece in map(escape.plain, said[1:]):
            if escape.columns(line) + escape.columns(piece) > self.room:
                break
            line += piece
        return self.raw(label, line, role)

    def pieces(self, label: str, said: Sequence[str], role: str = "") -> list[str]:
        """A sentence in pieces, broken between them where it can be; three lines at most, whatever the names in it.

        Where it has more, the longest piece loses its middle: of a path the end says most, and all else stays.
        """
        told = list(map(escape.plain, said))
        lines = self._laid_out(told)
        if len(lines) > _MOST_OF_PIECES and len(told) > 1:
            longest = max(range(len(told)), key=lambda at: len(told[at]))
            told[longest] = escape.cut_within(told[longest], self.room)
            lines = self._laid_out(told)
        return self._paragraph(label, lines, role, _MOST_OF_PIECES)

    def _laid_out(self, pieces: Sequence[str]) -> list[str]:
        lines = [""]
        for piece in pieces:
            left, rest = self.room - escape.columns(lines[-1]), piece.lstrip(",;: ")
            if lines[-1] and escape.columns(piece) > left and escape.columns(rest) <= self.room:
                lines[-1] += piece[:1].strip() if left else ""
                lines.append(rest)
            else:
                lines[-1:] = wrap(lines[-1] + piece, self.room) if piece else lines[-1:]
        return lines

    def say(self, label: str, marked: str, role: str = "", most: int | None = None) -> list[str]:
        """A paragraph, its first line labelled; of more lines than `most` the last kept one ends in `…`."""
        return self._paragraph(label, wrap(escape.plain(marked), self.room), role, most)

    def _paragraph(self, label: str, lines: list[str], role: str, most: int | None) -> list[str]:
        if most is not None and len(lines) > most:
            lines[most - 1] = escape.cut(f"{lines[most - 1]} …", self.room)
            del lines[most:]
        return [self.raw("" if at else label, line, role) for at, line in enumerate(lines)]

    def unseen(self, gaps: Sequence[Gap]) -> Iterator[str]:
        """What could not be seen, then what hides nothing and is only to be known."""
        for gap in gaps:
            if gap.hides:
                yield from self.say("Not seen", answer.unseen(gap), "warning")
        for gap in gaps:
            if not gap.hides:
                yield from self.say("Note", answer.unseen(gap))

    def raw(self, label: str, line: str, role: str = "") -> str:
        """One line as it is: a command, a bar, a line of a log that was made visible."""
        return self.paint(label.ljust(_LABEL), "label") + self.paint(line, role)

    def labelled(self, label: str, lines: Iterable[str]) -> Iterator[str]:
        """Lines made without a label, the first of them labelled."""
        for at, line in enumerate(lines):
            yield line if at else line.replace(" " * _LABEL, label.ljust(_LABEL), 1)


def _event(
    page: Page, oom: OomReport, findings: Sequence[Finding], history: Sequence[OomSummary], origin: str | None
) -> Iterator[str]:
    head = [
        *page.pieces("Killed", answer.who(oom, history), "strong"),
        *page.pieces("Limit", answer.limit(oom)),
        *page.say("What now", answer.now(oom, findings)),  # whole: half an action is another one
    ]
    for finding in findings:
        if finding.code == _OTHERS and (oom.victim is not None or len(finding.detail) > 1):  # else the head tells of it
            head += page.say("Also", answer.claim(finding), finding.severity, most=3)
    yield from head
    yield ""
    if origin is not None:
        yield from _all_of(page, oom, findings, origin)
    else:
        rest = [finding for finding in findings if finding.code != _OTHERS]
        yield from _half_a_screen(page, oom, rest, _HALF_A_SCREEN - len(head))


def _general(page: Page, finding: Finding) -> Iterator[str]:
    """What is known beside the events: how a container or a unit ended, in its manager's words."""
    yield from page.say("Ended", answer.claim(finding), finding.severity)
    for sentence in finding.detail:
        yield from page.say("", sentence)
    for remedy in finding.remedies:
        yield from page.say("What now", remedy.title)
        if answer.for_root(remedy):
            yield page.raw("", "As root:")
        for argv in remedy.commands:
            yield page.raw("", f"$ {escape.shell(argv)}", "command")
    yield from page.labelled("Evidence", [_evidence_line(page, evidence) for evidence in finding.evidence[:4]])


def _half_a_screen(page: Page, oom: OomReport, findings: Sequence[Finding], room: int) -> Iterator[str]:
    why = [line for finding in findings[:3] for line in page.say("", answer.claim(finding), finding.severity, most=3)]
    why += page.say("", f"The kernel's last words: {quote(oom.panic)}", most=2) if oom.panic else ()
    remedies = answer.remedies(findings)
    commands = list(_commands(page, remedies[0])) if remedies else []
    price = list(_price(page, remedies[0])) if remedies else []
    memory = list(_memory(page, oom, most=4))
    processes = _processes(page, oom)
    largest, smaller = processes[:1], processes[1:]
    evidence = [_evidence_line(page, evidence) for evidence in answer.evidence(findings, most=2)]
    others = [page.say("", remedy.title) for remedy in remedies[1:3]]
    proof, more = evidence[:1], evidence[1:]

    def fit(part: list[str]) -> list[str]:
        nonlocal room
        del part[max(room, 0) :]
        room -= len(part)
        return part

    # What matters most has room first; half of the commands would do something else than all of them.
    for part in (commands, why, price, proof, largest, memory, smaller):
        fit(part)
    missing = fit(page.say("", ", ".join(oom.missing), most=max(min(room, 4), 1)))
    fit(more)
    fitting: list[str] = []
    for other in others:  # whole, or not at all
        if len(other) > room:
            break
        fitting += other
        room -= len(other)
    yield from page.labelled("Why", why)
    yield from page.labelled("Memory", memory)
    yield from page.labelled("Processes", largest + smaller)
    yield from page.labelled("As root" if remedies and answer.for_root(remedies[0]) else "How", commands + price)
    yield from page.labelled("Or", fitting)
    yield from page.labelled("Missing", missing)
    yield from page.labelled("Evidence", proof + more)


def _commands(page: Page, remedy: Remedy) -> Iterator[str]:
    for argv in remedy.commands[:4]:
        yield page.raw("", f"$ {escape.shell(argv)}", "command")  # never cut: half a command does something else
    if len(remedy.commands) > 4:
        yield page.raw("", f"and {len(remedy.commands) - 4} commands more: -v shows them")


def _price(page: Page, remedy: Remedy) -> Iterator[str]:
    """How its amount was computed, and what it costs."""
    if remedy.amount is not None:
        yield from page.say("", remedy.amount, most=2)
    if remedy.cost is not None:
        yield from page.say("", f"Cost: {remedy.cost}", "dim", most=3)


def _memory(page: Page, oom: OomReport, most: int | None = None) -> Iterator[str]:
    """Where the memory was: a bar for each kind, the largest first."""
    parts = sorted(((label, held) for label, held in where(oom) if held > 0), key=lambda part: -part[1])
    total = sum(held for _, held in parts)
    shown = parts if most is None or len(parts) <= most else parts[: most - 1]
    left = total - sum(held for _, held in shown)
    if left:
        shown = [*shown, ("all else", left)]
    names = max((len(label) for label, _ in shown), default=0)
    room = max(page.room - names - 20, 8)
    for label, held in shown:
        figures = f"{label:<{names}}  {size(held):>8}  {percent(held, total):>5}  "
        yield page.raw("", figures) + page.paint(bar(held, total, room), "bar")


def bar(part: int, whole: int, width: int) -> str:
    """A bar whose length is the share, in eighths of a column; at least a sliver of what is there.

    >>> bar(3, 16, 4), bar(1, 1000, 4), bar(1, 1, 4)
    ('▊', '▏', '████')
    """
    eighths = max(round(8 * width * part / whole), 1)
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()


def _processes(page: Page, oom: OomReport) -> list[str]:
    """Who held most, by name; an item is not broken."""
    lines: list[str] = []
    for item in map(escape.plain, answer.held_by(oom, most=4)):
        if lines and escape.columns(lines[-1]) + 3 + escape.columns(item) <= page.room:
            lines[-1] += f" · {item}"
        else:
            lines.append(escape.cut(item, page.room))
    return [page.raw("", line) for line in lines]


def _all_of(page: Page, oom: OomReport, findings: Sequence[Finding], origin: str) -> Iterator[str]:
    for label, said in (("When", answer.when(oom.stamp)), ("Where", answer.machine(oom)), ("Source", origin)):
        if said is not None:
            yield from page.say(label, said)
    if asked := answer.trigger(oom):
        yield from page.say("Trigger", f"{asked}; it only met the shortage, it need not have caused it")
    yield ""
    for at, finding in enumerate(findings):
        yield from page.say("Why" if at == 0 else "", answer.claim(finding), finding.severity)
        for sentence in finding.detail:
            yield from page.say("", sentence)
        yield page.raw("", f"reprieve why --explain {escape.visible(finding.code)}", "dim")
    if oom.panic:
        yield from page.say("Panic", quote(oom.panic))
    yield from _section(page, "To do", _remedies(page, answer.remedies(findings)))
    yield from _section(page, "Where the memory was", _memory(page, oom))
    yield from _section(page, "Counters", _counters(page, oom))
    yield from _section(page, "Processes, in the order in which the kernel would choose them", _tasks(page, oom))
    yield from _section(page, "Zones", _zones(page, oom))
    yield from _section(page, "Evidence", _all_evidence(page, findings))
    if oom.missing:
        yield ""
        yield from page.say("Missing", ", ".join(oom.missing))


def _section(page: Page, title: str, lines: Iterable[str]) -> Iterator[str]:
    for at, line in enumerate(lines):
        if at == 0:
            yield ""
            yield page.paint(title, "label")
        yield line


def _remedies(page: Page, remedies: Sequence[Remedy]) -> Iterator[str]:
    for number, remedy in enumerate(remedies, 1):
        yield from page.say(f"{number:>8}.", remedy.title, "strong")
        for said, prefix in ((remedy.amount, "Amount: "), (remedy.cost, "Cost: ")):
            if said is not None:
                yield from page.say("", prefix + said)
        if answer.for_root(remedy):
            yield page.raw("", "As root:")
        for argv in remedy.commands:
            yield page.raw("", f"$ {escape.shell(argv)}", "command")


def _counters(page: Page, oom: OomReport) -> Iterator[str]:
    for usage in oom.memcg.usages if oom.memcg else ():
        yield from page.say("", answer.counter(usage))


def _tasks(page: Page, oom: OomReport) -> Iterator[str]:
    rows = answer.rows(oom)
    if not rows:
        return
    yield page.paint(f"{'':<{_LABEL}}{'score':>6} {'RAM':>9} {'swap':>9} {'adj':>6} {'pid':>8}  name", "dim")
    for row in rows:
        adj = "" if row.task.oom_score_adj is None else str(row.task.oom_score_adj)
        mark = "killed" if row.killed else "asked" if row.caller else ""
        held = f"{_amount(row.ram_bytes):>9} {_amount(row.swap_bytes):>9}"
        line = f"{answer.standing(row):>6} {held} {adj:>6} {row.task.pid:>8}"
        yield page.raw(f"  {mark}", f"{line}  {escape.name(row.task.comm or '?')}", "strong" if row.killed else "")


def _amount(count_bytes: int | None) -> str:
    return "" if count_bytes is None else size(count_bytes)


def _zones(page: Page, oom: OomReport) -> Iterator[str]:
    zones = [zone for zone in (oom.memory.zones if oom.memory else ()) if zone.free_bytes is not None]
    if not zones:
        return
    head = f"{'':<{_LABEL}}{'zone':<16}{'free':>10}{'min':>10}{'low':>10}{'high':>10}"
    yield page.paint(head, "dim")
    for zone in zones:
        figures = (zone.free_bytes, zone.min_bytes, zone.low_bytes, zone.high_bytes)
        cells = "".join(f"{_amount(figure):>10}" for figure in figures)
        yield page.raw("", f"{escape.visible(answer.zone_name(zone)):<16}{cells}  {answer.watermark(zone)}")


def _evidence_line(page: Page, evidence: Evidence) -> str:
    place = _place(evidence)
    if len(place) > 24:  # its end tells more than the folders it is in
        place = "…" + place[-23:]
    return page.raw("", escape.cut(f"{place}  {escape.visible(evidence.text)}", page.room), "dim")


def _place(evidence: Evidence) -> str:
    return escape.visible(answer.place(evidence))


def _all_evidence(page: Page, findings: Sequence[Finding]) -> Iterator[str]:
    for evidence in sorted(answer.evidence(findings), key=lambda evidence: (evidence.source or "", evidence.line or 0)):
        yield page.raw("", f"{_place(evidence)}  {escape.visible(evidence.text)}", "dim")


def _pad(text: str, width: int) -> str:
    return text + " " * (width - escape.columns(text))


def wrap(text: str, width: int) -> list[str]:
    """Lines of at most that width, broken at blanks; a longer word is broken where the line ends."""
    lines: list[str] = []
    text = text.lstrip(" ")
    columns = len if text.isascii() else escape.columns
    while columns is len and len(text) > width and (end := text.rfind(" ", 0, width + 1)) > 0:
        lines.append(text[:end])
        text = text[end + 1 :].lstrip(" ")
    if text and columns(text) <= width:
        lines.append(text)
        return lines
    line, used = "", 0
    for word in text.split(" "):
        length = columns(word)
        if line and used + 1 + length > width:
            lines.append(line)
            line, used = word, length
        else:
            line, used = (f"{line} {word}", used + 1 + length) if line else (word, length)
        while used > width:
            kept = line[:width]
            while len(kept) > 1 and columns(kept) > width:
                kept = kept[:-1]
            lines.append(kept)
            line = line[len(kept) :]
            used = columns(line)
    if line:
        lines.append(line)
    return lines


def prose(text: str, width: int) -> Iterator[str]:
    """Paragraphs laid out anew; code between backquotes, a path, an address stay whole, and may be longer."""
    for at, paragraph in enumerate(text.split("\n\n")):
        if at:
            yield ""
        line = ""
        for word in re.findall(r"(?:`[^`]*`|\S)+", paragraph):
            if line and escape.columns(line) + 1 + escape.columns(word) > width:
                yield line
                line = word
            else:
                line = f"{line} {word}" if line else word
        yield line


def plain_paint(text: str, role: str) -> str:
    return text


def colours() -> Paint:
    from click import style

    def paint(text: str, role: str) -> str:
        match role:
            case "label" | "strong":
                return style(text, bold=True)
            case "critical":
                return style(text, fg="red")
            case "bar" | "command":
                return style(text, fg="cyan")
            case "dim":
                return style(text, dim=True)
            case _:
                return text

    return paint

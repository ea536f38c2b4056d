"""The lines of a report that show a claim."""

from reprieve.model.finding import Evidence
from reprieve.model.oom import OomReport


def lines(oom: OomReport, *numbers: int | None) -> tuple[Evidence, ...]:
    """The lines of these numbers, each once and in their order; those that the text lacks are left out."""
    wanted = dict.fromkeys(number for number in numbers if number is not None)
    found = {number: text for number, text in oom.lines if number in wanted}
    return tuple(Evidence(text=found[number], source=oom.source, line=number) for number in wanted if number in found)


def memory_lines(oom: OomReport, *figures: str) -> tuple[Evidence, ...]:
    """The lines of the Mem-Info block where these figures stand."""
    where = dict(oom.memory.lines) if oom.memory is not None else {}
    return lines(oom, *(where.get(figure) for figure in figures))

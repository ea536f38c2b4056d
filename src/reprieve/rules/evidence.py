"""The lines of a report that show a claim."""

from reprieve.model.finding import Evidence
from reprieve.model.oom import OomReport
from reprieve.oom.once import once


def lines(oom: OomReport, *numbers: int | None) -> tuple[Evidence, ...]:
    """The lines of these numbers, each once and in their order; those that the text lacks are left out."""
    found = _by_number(oom)
    told = [number for number in dict.fromkeys(numbers) if number is not None and number in found]
    return tuple([Evidence(text=found[number], source=oom.source, line=number) for number in told])


@once
def _by_number(oom: OomReport) -> dict[int, str]:
    return dict(oom.lines)


def memory_lines(oom: OomReport, *figures: str) -> tuple[Evidence, ...]:
    """The lines of the Mem-Info block where these figures stand."""
    where = dict(oom.memory.lines) if oom.memory is not None else {}
    return lines(oom, *(where.get(figure) for figure in figures))

"""Runs two commands in turn and makes a figure of what they cost."""

from __future__ import annotations

import os
import shlex
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One finished process, with all the processes it waited for, as the kernel accounts for them."""

    cpu_s: float  # user and system
    rss_bytes: int  # the most that one of them held at a time
    printed_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What is run, in the folder that holds the logs; what it prints goes to a file there."""

    argv: tuple[str, ...]
    without: str | None = None  # a package that cannot be imported in it

    def __str__(self) -> str:
        words = shlex.join(Path(word).name if os.path.isabs(word) else word for word in self.argv)
        return words if self.without is None else f"{words} (without {self.without})"


Figure = Callable[[Sequence[Run], Sequence[Run]], float]  # of our runs and theirs


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A promise: a figure made of the runs of two commands, or of one, and the most that it may be."""

    what: str
    ours: Command
    theirs: Command | None = None
    figure: Figure
    unit: str
    at_most: float | None  # None: told for its own sake
    runs: int = 5


Group = Callable[[Path], Iterable[Bar]]  # writes its logs into a folder of its own


def cpu_ratio(ours: Sequence[Run], theirs: Sequence[Run]) -> float:
    return cpu_s(ours) / cpu_s(theirs)


def rss_mib(ours: Sequence[Run], _theirs: Sequence[Run]) -> float:
    return max(run.rss_bytes for run in ours) / 2**20


def cpu_s(runs: Sequence[Run]) -> float:
    return statistics.median(run.cpu_s for run in runs)


# A process counts as its own the most that whoever started it held until then: so it is a small one that does. Python
# ignores SIGPIPE, which is inherited: who writes into a pipe that nobody reads would not end.
_START = """
import os, signal, sys
pid = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ, setsigdef=(signal.SIGPIPE, signal.SIGXFSZ))
_, status, used = os.wait4(pid, 0)
told = os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime, used.ru_maxrss * 1024
print(*told, file=open(sys.argv[1], "w"))
"""


def measure(command: Command, folder: Path) -> Run:
    """Run a command once. Raises CalledProcessError if it fails; 3 tells of findings, 5 of gaps."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment["LC_ALL"] = "C.UTF-8"
    if command.without is not None:
        shadow = folder / f"without-{command.without}"
        shadow.mkdir(exist_ok=True)
        (shadow / f"{command.without}.py").write_text("raise ImportError\n")
        environment["PYTHONPATH"] = str(shadow)
    output, used = folder / "output", folder / "used"
    starter = (sys.executable, "-I", "-S", "-c", _START, str(used))
    with output.open("wb") as printed:
        argv = (*starter, *command.argv)
        subprocess.run(argv, cwd=folder, env=environment, stdout=printed, stdin=subprocess.DEVNULL, check=True)
    status, cpu, rss = used.read_text().split()
    if int(status) not in (0, 3, 5):
        raise subprocess.CalledProcessError(int(status), command.argv)
    return Run(cpu_s=float(cpu), rss_bytes=int(rss), printed_bytes=output.stat().st_size)


def contest(bar: Bar, folder: Path) -> tuple[list[Run], list[Run]]:
    """The runs of both, in turn, after one of each that is not counted, unless one long run is all."""
    ours: list[Run] = []
    theirs: list[Run] = []
    for _ in range(bar.runs + (bar.runs > 1)):
        ours.append(measure(bar.ours, folder))
        if bar.theirs is not None:
            theirs.append(measure(bar.theirs, folder))
    return ours[-bar.runs :], theirs[-bar.runs :]


HEAD = (
    "| what | ours | CPU s | MiB | printed | theirs | CPU s | printed | figure | bar | |",
    "| --- | --- | ---: | ---: | ---: | --- | ---: | ---: | ---: | ---: | --- |",
)


def contest_row(bar: Bar, folder: Path) -> tuple[str, bool]:
    """A line of the table, and whether the bar is met; a command that fails meets none."""
    try:
        ours, theirs = contest(bar, folder)
    except subprocess.CalledProcessError as error:
        return _line(bar.what, f"`{bar.ours}`", *[""] * 6, f"{error}", _number(bar.at_most), "**failed**"), False
    figure = bar.figure(ours, theirs)
    met = bar.at_most is None or figure <= bar.at_most
    verdict = "" if bar.at_most is None else "met" if met else "**missed**"
    cells = [bar.what, f"`{bar.ours}`", f"{cpu_s(ours):.3f}", f"{rss_mib(ours, ()):.0f}", f"{ours[-1].printed_bytes}"]
    if bar.theirs is None:
        cells += ["", "", ""]
    else:
        cells += [f"`{bar.theirs}`", f"{cpu_s(theirs):.3f}", f"{theirs[-1].printed_bytes}"]
    return _line(*cells, f"{figure:.2f} {bar.unit}", _number(bar.at_most), verdict), met


def _line(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _number(at_most: float | None) -> str:
    return "" if at_most is None else f"{at_most:g}"

"""The bars, a group for each log or set of logs that they share."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from bench.run import Bar, Command, Group, cpu_ratio, cpu_s, rss_mib
from reprieve.machine.demo import small_cgroup

_PYTHON = sys.executable
_REPRIEVE = str(Path(sys.executable).parent / "reprieve")
_SEED = ("grep", "-i", r"oom\|killed process\|out of memory")  # what people type today


def finding(folder: Path) -> Sequence[Bar]:
    """1 GB of ordinary lines, 200 reports in them; plain, and as logrotate leaves it."""
    log = "syslog"
    _make(folder / log, "--size=1000000000", "--reports=200")
    subprocess.run(["gzip", "-k", log], cwd=folder, check=True)
    subprocess.run(["zstd", "-qk", log], cwd=folder, check=True)
    os.sync()  # else the first rows are measured while the disk is written
    grep = Command(argv=(*_SEED, log))
    why = Command(argv=(_REPRIEVE, "why", log))
    slow = Command(argv=why.argv, without="hyperscan")
    bars = [
        Bar(what="1 GB, 200 reports", ours=why, theirs=grep, figure=cpu_ratio, unit="×", at_most=0.65),
        Bar(what="the same without hyperscan", ours=slow, theirs=grep, figure=cpu_ratio, unit="×", at_most=1.4),
        Bar(what="memory for it", ours=why, figure=rss_mib, unit="MiB", at_most=60, runs=1),
    ]
    for packed in (f"{log}.gz", f"{log}.zst"):
        packed_bar = partial(Bar, ours=Command(argv=(_REPRIEVE, "why", packed)), figure=cpu_ratio, unit="×", runs=3)
        alone = Command(argv=(_PYTHON, str(Path(__file__).parent / "unpack.py"), packed))
        zgrep = Command(argv=("zgrep", *_SEED[1:], f"{log}.gz"))  # it finds nothing in a .zst
        bars += [
            packed_bar(what="the same, compressed, by the decompressor alone", theirs=alone, at_most=1.7),
            packed_bar(what="the same, compressed, by zgrep", theirs=zgrep, at_most=0.35),
        ]
    zst = Command(argv=(_REPRIEVE, "why", f"{log}.zst"))
    zstdgrep = Command(argv=("zstdgrep", *_SEED[1:], f"{log}.zst"))
    beside = "the same, compressed, by zstdgrep"
    return [*bars, Bar(what=beside, ours=zst, theirs=zstdgrep, figure=cpu_ratio, unit="×", at_most=None, runs=3)]


def explaining(folder: Path) -> Sequence[Bar]:
    """200 reports of 120 lines in 16 MB, against the same length without any."""
    for name, reports in (("with", 200), ("none", 0)):
        _make(folder / name, "--size=16000000", f"--reports={reports}", "--rows", "54", "54")
    return [
        Bar(
            what=what,
            ours=Command(argv=(_REPRIEVE, "why", *options, "with")),
            theirs=Command(argv=(_REPRIEVE, "why", *options, "none")),
            figure=lambda ours, theirs: (cpu_s(ours) - cpu_s(theirs)) / 200 * 1000,
            unit="ms",
            at_most=1.5,
            runs=15,
        )
        for what, options in (
            ("a report of 120 lines, found and counted", ()),
            ("a report of 120 lines, explained", ("--all",)),
        )
    ]


def many(folder: Path) -> Sequence[Bar]:
    """2,500, 5,000 and 10,000 reports of 200 rows and nothing between them."""
    for count in (2_500, 5_000, 10_000):
        _make(folder / f"{count}", f"--reports={count}", "--rows", "200", "200")
    bars = []
    for options in (("--list",), ("--all", "--json")):
        small, middle, large = (
            Command(argv=(_REPRIEVE, "why", *options, f"{count}")) for count in (2_500, 5_000, 10_000)
        )
        linear = partial(Bar, what="twice as many reports", figure=cpu_ratio, unit="×", at_most=2.5, runs=1)
        bars += [
            Bar(what="10,000 reports", ours=large, figure=rss_mib, unit="MiB", at_most=120, runs=1),
            linear(ours=large, theirs=middle),
            linear(ours=middle, theirs=small),
        ]
    return bars


def hostile(folder: Path) -> Sequence[Bar]:
    """A log of nothing but kill lines, and a line that does not end."""
    _make(folder / "kills", "--size=100000000", "--hostile=kills")
    _make(folder / "line", "--size=500000000", "--hostile=line")
    return [
        Bar(what=what, ours=Command(argv=(_REPRIEVE, "why", name)), figure=rss_mib, unit="MiB", at_most=60, runs=1)
        for what, name in (("100 MB of kill lines", "kills"), ("500 MB in one line", "line"))
    ]


def living(_folder: Path) -> Iterator[Bar]:
    """A machine with 2,000 processes more while the bars are asked for: thirty looks in a process, and thirty of ps."""
    sleepers = [subprocess.Popen(("sleep", "3600"), stdin=subprocess.DEVNULL) for _ in range(_SLEEPERS)]
    looks = Command(argv=(_PYTHON, str(Path(__file__).parent / "scan.py"), str(_LOOKS)))
    ps = Command(argv=("sh", "-c", f"for look in $(seq {_LOOKS}); do ps aux --sort=-%mem; done"))
    smem = Command(argv=("smem", "-t", "-k", "-c", "pid name pss"))
    try:
        yield Bar(
            what=f"2,000 processes, {_LOOKS} looks", ours=looks, theirs=ps, figure=cpu_ratio, unit="×", at_most=0.65
        )
        yield Bar(
            what="one of them, start-up shared",
            ours=looks,
            theirs=smem,
            figure=lambda ours, theirs: cpu_s(ours) / _LOOKS / cpu_s(theirs),
            unit="×",
            at_most=0.05,
            runs=3,
        )
        whole = Command(argv=(_REPRIEVE, "next"))
        one_ps = Command(argv=("ps", "aux", "--sort=-%mem"))
        yield Bar(what="the whole of `next`", ours=whole, theirs=one_ps, figure=cpu_ratio, unit="×", at_most=None)
        yield Bar(what="memory for it", ours=whole, figure=rss_mib, unit="MiB", at_most=60, runs=1)
        yield from _watched()
        with contextlib.ExitStack() as made:
            for number in range(_GROUPS):
                made.enter_context(small_cgroup(f"reprieve-bench-{number}", 1 << 30))
            check = Command(argv=(_REPRIEVE, "check"))
            seconds = Bar(
                what="`check`, with 200 cgroups", ours=check, figure=lambda ours, _: cpu_s(ours), unit="s", at_most=1
            )
            yield seconds
            yield replace(seconds, what="memory for it", figure=rss_mib, unit="MiB", at_most=80, runs=1)
    finally:
        for sleeper in sleepers:
            sleeper.kill()
        for sleeper in sleepers:
            sleeper.wait()


_SLEEPERS, _LOOKS, _GROUPS = 2_000, 30, 200


def searching(_folder: Path) -> Iterator[Bar]:
    """2,000 processes in a PID namespace of their own: who is the largest, fifty times in a process.

    earlyoom, told that memory is short and to kill nobody, searches at each look. It reads the oom_score of all, and
    the statm of those who may be the largest yet: of all, where all are alike, and of nobody behind a large one.
    """
    ours = (_PYTHON, str(Path(__file__).parent / "search.py"), str(_SEARCHES))
    earlyoom = f"{_EARLYOOM} --dryrun -m 99,99 -s 100,100 -r 0 2>&1 | grep -m {_SEARCHES} 'not actually sending'"
    for mib, what, at_most in (
        (0, "RSS and oom_score of 2,000 alike, as earlyoom's search", 1.1),
        (256, "the same behind a large one, of which alone earlyoom reads the RSS", None),
    ):
        with _crowd(mib) as inside:
            yield Bar(
                what=what,
                ours=Command(argv=(*inside, *ours)),
                theirs=Command(argv=(*inside, "sh", "-c", earlyoom)),
                figure=cpu_ratio,
                unit="×",
                at_most=at_most,
            )


@contextlib.contextmanager
def _crowd(mib: int) -> Iterator[tuple[str, ...]]:
    """The words that lead a command to where the crowd is."""
    argv = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
    crowd = (_PYTHON, str(Path(__file__).parent / "crowd.py"), str(_SLEEPERS), str(mib))
    with subprocess.Popen((*argv, *crowd), stdout=subprocess.PIPE) as outside:
        try:
            assert outside.stdout is not None
            outside.stdout.readline()
            init = Path(f"/proc/{outside.pid}/task/{outside.pid}/children").read_text().strip()
            yield ("nsenter", "--target", init, "--pid", "--mount", "--")
        finally:
            outside.kill()


_SEARCHES = 50  # earlyoom starts faster than an interpreter: what is to be compared are searches
_EARLYOOM = Path(__file__).parent.parent / ".build" / "earlyoom" / "usr" / "bin" / "earlyoom"


def _watched() -> Iterator[Bar]:
    """The live view on a terminal, thirty looks, one a second; and ten a second, as many as an hour has.

    These beside the first 1,500, after which every window is full.
    """
    watch = (_PYTHON, str(Path(__file__).parent / "terminal.py"))
    top = Command(argv=(*watch, "90", _REPRIEVE, "top", "--every", "1", "-n", "30"))
    glances = Command(argv=(*watch, "90", str(_GLANCES), "-t", "1", "--stop-after", "30", "--disable-check-update"))
    yield Bar(what="thirty looks of `top`", ours=top, theirs=glances, figure=cpu_ratio, unit="×", at_most=0.5, runs=3)
    yield Bar(what="memory for it", ours=top, figure=rss_mib, unit="MiB", at_most=60, runs=1)
    hour, full = (
        Command(argv=(*watch, "1200", _REPRIEVE, "top", "--every", "0.1", "-n", looks)) for looks in ("3600", "1500")
    )
    yield Bar(
        what="more memory for the looks of an hour",
        ours=hour,
        theirs=full,
        figure=lambda ours, theirs: rss_mib(ours, ()) - rss_mib(theirs, ()),
        unit="MiB",
        at_most=2,
        runs=1,
    )


_GLANCES = Path(__file__).parent.parent / ".build" / "glances" / "bin" / "glances"


def start(folder: Path) -> Sequence[Bar]:
    """One report, in units of an interpreter that does nothing."""
    _make(folder / "dmesg", "--reports=1", "--rows", "54", "54")
    nothing = Command(argv=(_PYTHON, "-c", "pass"))
    return [
        Bar(what=what, ours=Command(argv=argv), theirs=nothing, figure=cpu_ratio, unit="×", at_most=at_most, runs=25)
        for what, argv, at_most in (
            ("the version", (_REPRIEVE, "--version"), 2),
            ("one report, explained", (_REPRIEVE, "why", "dmesg"), 8),
        )
    ]


def _make(log: Path, *options: str) -> None:
    subprocess.run([_PYTHON, str(Path(__file__).parent / "corpus.py"), str(log), *options], check=True)


GROUPS: tuple[Group, ...] = (finding, explaining, many, hostile, living, searching, start)

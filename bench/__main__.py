"""Measures the groups named, or all of them: then docs/benchmarks.md gets the figures."""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import tempfile
import textwrap
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bench import launch
from bench.bars import GROUPS
from bench.run import HEAD, contest_row

_REPORT = Path(__file__).parent.parent / "docs" / "benchmarks.md"
_INTRODUCTION = """\
# Benchmarks

Written by `make bench`, which makes its logs from templates and a seed (`bench/corpus.py`), runs the two commands of
each row in turn (A B A B …) after one run of each that is not counted, and compares medians. CPU seconds are user and
system time of the whole process and of those it started, from `wait4`; MiB is the most resident memory of any run.
What a command prints is written to a file: told to print to `/dev/null`, GNU grep stops at the first hit. How often
`reprieve next` foretells the right kill is in [foretold](foretold.md). The machine is shared: from day to day the first
row has read 0.59 to 0.69 ×, and that of a report explained, by the same code within an hour, 1.55 ms where `why --all
none` takes 0.095 s and 1.73 ms where it takes 0.103 s. The logs are on the disk before it: while they were written back
it read a tenth to a fifth too high.

"""
_LAUNCHED = """\
## Until a command begins

In the systemd guest of the [lab](lab.md), whose processor is emulated: the ratios count. Wall, medians of runs in turn.
`python -m bench.launch` measures it alone.

"""


def _machine() -> str:
    """The line that says what was measured on."""
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    packages = ", ".join(f"{name} {_version(name)}" for name in ("reprieve", "hyperscan", "isal", "backports.zstd"))
    grep = subprocess.run(["grep", "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
    return (
        f"{model}, {os.cpu_count()} processors, Linux {platform.release()}, Python {platform.python_version()}, "
        f"{packages}, {grep}; page cache warm; medians of runs in turn"
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def main() -> int:
    """Measure the groups named, or all; with all of them the figures are written to docs/benchmarks.md."""
    names = [group.__name__ for group in GROUPS]
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "groups", nargs="*", metavar="GROUP", help=f"of {', '.join(names)}; all of them if none is named"
    )
    chosen = parser.parse_args().groups
    if unknown := set(chosen) - set(names):
        parser.error(f"no such group: {', '.join(sorted(unknown))}")
    launched, all_met = ("", True) if chosen else launch.measure()  # first: without a guest all would be for nothing
    table = list(HEAD)
    print("\n".join(HEAD), flush=True)
    for group in GROUPS:
        if chosen and group.__name__ not in chosen:
            continue
        with tempfile.TemporaryDirectory(prefix="reprieve-bench-") as folder:
            for bar in group(Path(folder)):
                line, met = contest_row(bar, Path(folder))
                print(line, flush=True)
                table.append(line)
                all_met &= met
    if not chosen:
        told = ("\n".join(table), _LAUNCHED + "\n".join(textwrap.wrap(launched, 120, break_on_hyphens=False)))
        _REPORT.write_text(_INTRODUCTION + _machine() + ".\n\n" + "\n\n".join(told) + "\n")
    return 0 if all_met else 1


if __name__ == "__main__":
    raise SystemExit(main())

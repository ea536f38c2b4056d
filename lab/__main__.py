"""The lab by hand: python -m lab setup | boot | run | ready | logs | list."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lab import kernels, scenarios, states
from lab.host import KEYRING, MINI_PACKAGES, SYSTEMD_PACKAGES, LabError, install
from lab.scenario import Outcome, Scenario, play


def setup(series: Sequence[str], *, systemd: bool, engines: bool) -> None:
    """Install what the guests need, fetch kernels, save guests. What is here already is left alone."""
    with _timed("packages"):
        install((*MINI_PACKAGES, KEYRING, *(SYSTEMD_PACKAGES if systemd else ())))
    for one in series:
        with _timed(f"kernel {one}"):
            kernels.fetch(one)
        with _timed(f"mini guest {one}"):
            states.saved(one, states.MINI)
    if systemd:
        with _timed(f"systemd guest {kernels.DEFAULT}"):
            states.saved(kernels.DEFAULT, states.SYSTEMD)
    if engines:
        with _timed("guest with container engines"):
            states.saved(*states.ENGINES)


def boot(series: str, machine: str, scripts: Sequence[str]) -> None:
    """Run scripts, or the lines of stdin, in a saved guest."""
    start = time.monotonic()
    with states.saved(series, machine).restore() as guest:
        print(f"{guest.machine.kernel.release} ready after {time.monotonic() - start:.2f} s", file=sys.stderr)
        for script in scripts or map(str.strip, sys.stdin):
            answer = guest.run(script)
            print(answer.output, end="")
            if answer.status:
                print(f"[status {answer.status}]", file=sys.stderr)


def ready(series: str, machine: str, times: int) -> None:
    """Print how long a saved guest takes until it has run its first script, from the start of QEMU."""
    guest = states.saved(series, machine)
    taken = []
    for _ in range(times):
        start = time.monotonic()
        with guest.restore() as running:
            running.run("true")
            taken.append(time.monotonic() - start)
    median = statistics.median(taken)
    print(f"{machine} {series}: median {median:.2f} s of {times}, {min(taken):.2f} to {max(taken):.2f} s")


def logs(target: Path, series: Sequence[str]) -> None:
    """Write what every scenario makes each kernel log, and an index of how it went."""
    target.mkdir(parents=True, exist_ok=True)
    with open(target / "index.jsonl", "a") as index:
        for one in series:
            for scenario in scenarios.on(one):
                print(json.dumps(_record(scenario, one, target)), file=index, flush=True)


def _record(scenario: Scenario, series: str, target: Path) -> dict[str, object]:
    outcome = play(scenario, series)
    release = kernels.find(series).release
    stem = f"{release}__{scenario.name}"
    (target / f"{stem}.log").write_text(outcome.log)
    if outcome.output:
        (target / f"{stem}.out.txt").write_text(outcome.output)
    print(f"{release} {scenario.name}: {_summary(outcome)}", file=sys.stderr)
    return {
        "kernel": release,
        "scenario": scenario.name,
        "status": outcome.status,
        "seconds": round(outcome.seconds, 2),
    }


def _summary(outcome: Outcome) -> str:
    return f"status {outcome.status}, {outcome.log.count('Killed process')} kill lines, {outcome.seconds:.1f} s"


@contextmanager
def _timed(what: str) -> Iterator[None]:
    start = time.monotonic()
    yield
    print(f"{what}: {time.monotonic() - start:.1f} s", file=sys.stderr)


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lab", description="Virtual machines in which memory runs out.")
    verbs = parser.add_subparsers(dest="verb", required=True)

    verb = verbs.add_parser("setup", help="install packages (as root), fetch kernels, save guests")
    verb.add_argument(
        "series", nargs="*", metavar="KERNEL", help=f"{', '.join(kernels.SUITES)}; default {kernels.DEFAULT}"
    )
    verb.add_argument("--systemd", action="store_true", help="the systemd guest too")
    verb.add_argument(
        "--all", action="store_true", help="all kernels, the systemd guest, the one with container engines"
    )

    verb = verbs.add_parser("boot", help="run scripts in a guest: those given, or the lines of stdin")
    verb.add_argument("script", nargs="*")
    verb.add_argument("--kernel", default=kernels.DEFAULT)
    verb.add_argument("--machine", default=states.MINI, choices=states.MACHINES)

    verb = verbs.add_parser("run", help="run a scenario; prints the kernel's log")
    verb.add_argument("scenario")
    verb.add_argument("--kernel", default=kernels.DEFAULT)

    verb = verbs.add_parser("ready", help="measure how soon a saved guest runs its first script")
    verb.add_argument("--kernel", default=kernels.DEFAULT)
    verb.add_argument("--machine", default=states.MINI, choices=states.MACHINES)
    verb.add_argument("--times", type=int, default=11)

    verb = verbs.add_parser("logs", help="capture the log of every scenario")
    verb.add_argument("folder", type=Path)
    verb.add_argument("series", nargs="*", metavar="KERNEL", help="default: all")

    verbs.add_parser("list", help="name the scenarios")
    return parser


def main() -> int:
    """Do what the command line says; 1 if the lab cannot."""
    asked = _arguments().parse_args()
    try:
        match asked.verb:
            case "setup":
                every = tuple(kernels.SUITES) if asked.all else (kernels.DEFAULT,)
                setup(asked.series or every, systemd=asked.systemd or asked.all, engines=asked.all)
            case "boot":
                boot(asked.kernel, asked.machine, asked.script)
            case "run":
                outcome = play(scenarios.named(asked.scenario), asked.kernel)
                print(outcome.log, end="")
                print(outcome.output, end="", file=sys.stderr)
                print(_summary(outcome), file=sys.stderr)
            case "ready":
                ready(asked.kernel, asked.machine, asked.times)
            case "logs":
                logs(asked.folder, asked.series or tuple(kernels.SUITES))
            case _:  # list: argparse lets nothing else pass
                for scenario in scenarios.SCENARIOS:
                    print(f"{scenario.name:32} {scenario.does}")
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

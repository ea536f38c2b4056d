"""The table of real cases behind each rule: `python -m tests.rules.evidence`; status 1 if a cell is empty."""

from __future__ import annotations

import sys

from reprieve.rules import RULES, diagnose
from reprieve.rules.living import LIVING, code_of
from tests.rules.cases import CASES, snapshot
from tests.rules.living.plays import IN_OTHER_TESTS, PLAYS
from tests.rules.test_ending import LOOKED_UP
from tests.rules.test_lives import LOADS
from tests.rules.test_runtimes import LIVES


def main() -> int:
    """Print the table; 1 if a rule lacks a case, or a case its rule."""
    codes = [rule.__name__.replace("_", "-") for rule in RULES]
    empty = [f"{code} is no rule" for code in CASES if code not in codes]
    print("| finding | speaks | silent about a look-alike | died before, lives after |")
    print("| --- | --- | --- | --- |")
    for code in codes:
        cells = _cells(code)
        empty += [f"{code}: no case where {title}" for title, cell in cells.items() if not cell]
        print(f"| {code} | {' | '.join('; '.join(cell) or '**empty**' for cell in cells.values())} |")
    print(
        "\n| finding of a living machine, played in guests by make test-all | silent where | the load that is saved |"
    )
    print("| --- | --- | --- |")
    for code in map(code_of, LIVING):
        if code in IN_OTHER_TESTS:
            print(f"| {code} | {IN_OTHER_TESTS[code]} | |")
            continue
        play = PLAYS.get(code)
        if play is None or not play.speaks or not play.silent:
            empty.append(f"{code}: no play")
            continue
        silent = "; ".join(why for _, why in play.silent)
        print(f"| {code} | {silent} | {'(no advice)' if play.load is None else 'lives once the advice is followed'} |")
    for line in empty:
        print(line, file=sys.stderr)
    return 1 if empty else 0


def _cells(code: str) -> dict[str, list[str]]:
    if code not in CASES:
        return {"it speaks": [], "it is silent": [], "its advice saves a load": []}
    cases = CASES[code]
    speaks = [log for log in cases.speaks if any(found.code == code for found in diagnose(snapshot(log)))]
    silent = [
        f"{log} ({why})" for log, why in cases.silent if all(found.code != code for found in diagnose(snapshot(log)))
    ]
    advises = any(found.remedies for log in speaks for found in diagnose(snapshot(log)) if found.code == code)
    saved = {name: load.code for name, load in LOADS.items()} | LIVES | LOOKED_UP
    lives = [name for name in cases.lives if saved.get(name) == code]
    return {
        "it speaks": speaks if len(speaks) == len(cases.speaks) else [],
        "it is silent": silent if len(silent) == len(cases.silent) else [],
        "its advice saves a load": lives if advises else ["(no advice)"],
    }


if __name__ == "__main__":
    sys.exit(main())

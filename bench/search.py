"""Looks LOOKS times at where each process stands, and says who is the largest, as earlyoom does: `search.py LOOKS`."""

from __future__ import annotations

import gc
import sys
from operator import itemgetter

from reprieve.machine.standing import read_standings

if __name__ == "__main__":
    gc.set_threshold(100_000)  # as in `reprieve` itself
    for _ in range(int(sys.argv[1])):
        standings = read_standings([])
        largest = max(standings, key=itemgetter(1, 2))  # oom_score, then RSS
        print(len(standings), *largest)

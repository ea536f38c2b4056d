"""Looks LOOKS times at where each process stands, and says who is the largest, as earlyoom does: `search.py LOOKS`."""

from __future__ import annotations

import sys

from reprieve.machine.standing import read_standings

if __name__ == "__main__":
    for _ in range(int(sys.argv[1])):
        standings = read_standings([])
        largest = max(standings, key=lambda one: (one.oom_score, one.rss_pages))
        print(len(standings), *largest)

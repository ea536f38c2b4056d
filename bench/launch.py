"""From `reprieve run` to the first instruction of its command, in the systemd guest: `python -m bench.launch`.

The bar is six times an interpreter that does nothing and three times `systemd-run --scope true`, in the same guest.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from lab import kernels, states
from tests.lab.parcel import parcel

_RUNS = 5
_MEASURE = f"""
import json, statistics, subprocess, time
def wall(*argv):
    begun = time.monotonic()
    subprocess.run(argv, check=True, capture_output=True)
    return time.monotonic() - begun
def to_exec(*argv):
    begun = time.monotonic()
    said = subprocess.run((*argv, "cat", "/proc/uptime"), check=True, capture_output=True, text=True).stdout
    return float(said.split()[0]) - begun
kinds = {{
    "nothing": lambda: wall("python3", "-c", "pass"),
    "scope": lambda: wall("systemd-run", "--scope", "true"),
    "run": lambda: to_exec("python3", "-m", "reprieve", "run", "-q"),
}}
taken = {{kind: [] for kind in kinds}}
for _ in range({_RUNS} + 1):
    for kind, measure in kinds.items():
        taken[kind].append(measure())
print(json.dumps({{kind: statistics.median(times[1:]) for kind, times in taken.items()}}))
"""


def main() -> int:
    """Measure in turn, after one of each that is not counted; 1 if the bar is missed."""
    saved = states.saved(kernels.DEFAULT, states.SYSTEMD)
    with tempfile.TemporaryDirectory() as folder, saved.restore(spare=parcel(Path(folder) / "parcel.tar")) as guest:
        guest.run("mkdir /opt/reprieve; tar -C /opt/reprieve -xf /dev/vda")
        script = f"cd /; PYTHONPATH=/opt/reprieve python3 - <<'END'\n{_MEASURE}END\n"
        told = json.loads(guest.run(script, timeout_s=900).output)
    bar_s = 6 * told["nothing"] + 3 * told["scope"]
    figures = ", ".join(f"{kind} {1000 * taken_s:.0f} ms" for kind, taken_s in told.items())
    print(f"{figures}; {told['run'] / told['nothing']:.1f} × nothing, {told['run'] / bar_s:.0%} of the bar")
    return int(told["run"] > bar_s)


if __name__ == "__main__":
    sys.exit(main())

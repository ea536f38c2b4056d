"""From `reprieve run` to the first instruction of its command, and what it costs then, in the systemd guest.

The bar is six times an interpreter that does nothing and three times `systemd-run --scope true`, in the same guest;
and while the command runs, nothing of ours does. `python -m bench.launch` measures this alone.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from lab import kernels, states
from tests.lab.parcel import parcel

_RUNS = 5
_IDLE_S = 20
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
told = {{kind: statistics.median(times[1:]) for kind, times in taken.items()}}
def ours():
    pids = subprocess.run(("pgrep", "-P", str(run.pid)), capture_output=True, text=True).stdout.split()
    return {{pid: open(f"/proc/{{pid}}/comm").read().strip() for pid in (str(run.pid), *pids)}}
def switches(pids):
    lines = [line for pid in pids for line in open(f"/proc/{{pid}}/status") if "ctxt_switches" in line]
    return sum(int(line.split()[1]) for line in lines)
run = subprocess.Popen(("python3", "-m", "reprieve", "run", "-q", "sleep", "900"))
while "sleep" not in ours().values():
    time.sleep(0.1)
time.sleep(3)
pids = [pid for pid, name in ours().items() if name != "sleep"]
before = switches(pids)
time.sleep({_IDLE_S})
told["processes"], told["switches"] = len(pids), switches(pids) - before
run.terminate()
run.wait()
print(json.dumps(told))
"""


def measure() -> tuple[str, bool]:
    """A sentence that tells it, and whether the bar is met; in turn, after one of each that is not counted.

    Raises LabError: there is no guest here.
    """
    saved = states.saved(kernels.DEFAULT, states.SYSTEMD)
    with tempfile.TemporaryDirectory() as folder, saved.restore(spare=parcel(Path(folder) / "parcel.tar")) as guest:
        guest.run("mkdir /opt/reprieve; tar -C /opt/reprieve -xf /dev/vda")
        script = f"cd /; PYTHONPATH=/opt/reprieve python3 - <<'END'\n{_MEASURE}END\n"
        told = json.loads(guest.run(script, timeout_s=900).output)
    share = told["run"] / (6 * told["nothing"] + 3 * told["scope"])
    met = share <= 1 and told["switches"] == 0
    return (
        f"From `reprieve run` to the first instruction of its command {1000 * told['run']:.0f} ms, where "
        f"`python3 -c pass` takes {1000 * told['nothing']:.0f} ms and `systemd-run --scope true` "
        f"{1000 * told['scope']:.0f} ms: {share:.2f} of the bar, six times the first and three times the second. While "
        f"the command runs, the {told['processes']} processes of ours were woken {told['switches']} times in "
        f"{_IDLE_S} s. {'Met' if met else 'Missed'}."
    ), met


def main() -> int:
    """1 if the bar is missed."""
    said, met = measure()
    print(said)
    return int(not met)


if __name__ == "__main__":
    sys.exit(main())

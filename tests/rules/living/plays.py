"""For each rule on the living machine: what is done in a guest so that it speaks, look-alikes, and a load to save.

A play is of the systemd guest (469 MiB of RAM, cgroup v2, no swap), in which the tool itself looks. `load` is a script
that fails there, and succeeds once the first remedy of the finding has been followed to the letter.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Play:
    """The real cases of one rule."""

    speaks: str
    silent: tuple[tuple[str, str], ...]  # script, and what is different
    load: str | None = None  # None: the rule advises nothing that changes what happens
    remedy: int = 0  # which of the remedies is followed


_SWAP = "dd if=/dev/zero of=/swap bs=1M count=96 2> /dev/null; chmod 600 /swap; mkswap -q /swap; swapon /swap\n"

_LITTLE_SWAP = _SWAP.replace("count=96", "count=16")


def _group(name: str, *settings: str) -> str:
    """A group of version 2 below the root."""
    made = f"mkdir -p /sys/fs/cgroup/{name}\n"
    for setting in settings:
        file, _, value = setting.partition("=")
        made += f"echo {value} > /sys/fs/cgroup/{name}/{file}\n"
    return made


def _in(name: str, command: str) -> str:
    """To run a command in a group, from its first page on."""
    return f"sh -c 'echo $$ > /sys/fs/cgroup/{name}/cgroup.procs; exec {command}'"


def _holding(command: str) -> str:
    """A hog in the background that stays; gone on when it has what it wants, or has been trying for 20 s."""
    return (
        f"{command} > /run/hog.out 2>&1 &\n"
        "for n in $(seq 40); do grep -q has /run/hog.out && break; sleep 0.5; done; rm -f /run/hog.out\n"
    )


_CACHE = "cat /usr/lib/x86_64-linux-gnu/*.so* /usr/bin/* > /dev/null"
_HIGH = _group("app", "memory.high=32M")
_GOES_ON = _in("app", "hog --mib 40 --name app --hold -1") + " > /run/done 2>&1 &\n"
_NEVER_DONE = "for n in $(seq 16); do grep -q has /run/done && exit 0; sleep 0.5; done; exit 1"
_UNITS = """
systemd-run -q --unit=web -p MemoryMax={0} -p OOMScoreAdjust=-900 sh -c '{1}sleep 900'
systemd-run -q --unit=batch -p MemoryMax=200M sleep 900
sleep 2
"""
_BYSTANDER = _holding("hog --mib 90 --name bystander --hold -1")
# The tool's look before, and a process that takes 40 MiB, but not while it is looked at.
_FIRST_LOOK = "(cd /; PYTHONPATH=/opt/reprieve python3 -m reprieve check --since-last > /dev/null)\n"
_GROWS = """
hog --mib 40 --step-mib 1 --pace-ms 200 --name app --adj {0} --hold -1 > /run/hog.out 2>&1 &
sleep 1; pkill -STOP -x app
"""
_GROWN = "pkill -CONT -x app; for n in $(seq 60); do grep -q has /run/hog.out && break; sleep 0.5; done\n"
_ZRAM = "echo 256M > /sys/block/zram0/disksize; mkswap -q /dev/zram0; swapon /dev/zram0\n"
# Heaps that repeat, as they often do, and lie idle beside a file that is worked on; and whether, three times through,
# less of it is read again than there is of it.
_IDLE_HEAPS = """
cat > /run/idle.py <<'END'
import time
held = [(b"%08d some words that repeat; " % at * 128)[:4096] for at in range(40 * 1024)]
print("has", flush=True)
time.sleep(900)
END
"""
_AGAIN = "awk '/^workingset_refault_file/ {print $2}' /proc/vmstat"
_BESIDE_IDLE = (
    "sync; echo 3 > /proc/sys/vm/drop_caches\n"
    + _IDLE_HEAPS
    + _holding("python3 /run/idle.py")
    + "for n in 1 2 3; do cat /big > /dev/null; done\n"
)
_WORKED_ON = "dd if=/dev/urandom of=/big bs=1M count=280 2> /dev/null\n" + _BESIDE_IDLE
_IS_KEPT = f"pkill -f idle.py\nbefore=$({_AGAIN})\n{_BESIDE_IDLE}[ $(($({_AGAIN}) - before)) -lt $((280 * 256)) ]"
_SYSRQ = "sleep 1; echo f > /proc/sysrq-trigger; sleep 2\n"
_SEGMENT = """
cat > /run/segment.py <<'END'
import ctypes, sys, time
libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_void_p
number = libc.shmget(0, 30 << 20, 0o1600)
at = libc.shmat(number, None, 0)
ctypes.memset(at, 1, 30 << 20)
print("has", flush=True)
time.sleep(float(sys.argv[1]))
END
"""
_MAPS = "python3 -c 'import mmap, time; m = mmap.mmap(-1, 1 << 30); print(\"has\", flush=True); time.sleep(900)'"
_AVAILABLE = "awk '/^MemAvailable/ {print int($2 / 1024)}' /proc/meminfo"

# What no such guest has, by the test that has it.
_RUNTIMES = "real ones, under limits they fit or not: tests/rules/living/test_runtimes.py"
_SERVERS = "real servers: tests/rules/living/test_servers.py"
_SERVERS_IN_GUEST = "real servers, in a guest: tests/rules/living/test_servers_in_guest.py"
IN_OTHER_TESTS = {
    "node-bound": "two memory nodes: tests/rules/living/test_nodes.py",
    "jvm-heap-exceeds-limit": _RUNTIMES,
    "jvm-settings-exceed-limit": _RUNTIMES,
    "node-heap-exceeds-limit": _RUNTIMES,
    "redis-unbounded": _SERVERS,
    "redis-exceeds-limit": _SERVERS,
    "redis-nearly-full": _SERVERS,
    "redis-fork-refused": _SERVERS_IN_GUEST,
    "postgres-exceeds-limit": _SERVERS,
    "postgres-backends-spared": _SERVERS_IN_GUEST,
    "pool-exceeds-limit": "programs with workers: tests/rules/living/test_servers.py",
    "applications-exceed-memory": "real JVMs: tests/rules/living/test_together.py",
}

# A service with this file; what stands in it about memory, and what it runs.
_SERVICE = """
printf '[Service]\\nExecStart={1}\\n{0}\\n' > /etc/systemd/system/web.service
systemctl daemon-reload; systemctl start web; sleep 2
"""
_GROWS_IN_WEB = (
    _BYSTANDER
    + "sh -c 'echo $$ > /sys/fs/cgroup/system.slice/web.service/cgroup.procs; "
    + "exec hog --mib 380 --name leak --adj -900'\nsleep 1; pgrep -x bystander"
)
_SETS_OWN = 'sh -c "echo 300 > /proc/self/oom_score_adj; exec hog --mib 60 --name app --hold -1"'

PLAYS = {
    "held-at-high": Play(
        speaks=_HIGH + _GOES_ON + "sleep 14",
        silent=(
            (_SWAP + _HIGH + _GOES_ON + "sleep 14", "it can swap, and gets on"),
            (_HIGH + _in("app", f'sh -c "{_CACHE}"') + "; sleep 4", "it is full of file cache, which is dropped"),
            (_HIGH + _holding(_in("app", "hog --mib 20 --hold -1")), "it holds less"),
        ),
        load=_NEVER_DONE,
    ),
    "killer-powerless": Play(
        speaks="setpriv --reuid 65534 --regid 65534 --clear-groups earlyoom -r 0 > /dev/null 2>&1 &\nsleep 2",
        silent=(("earlyoom -r 0 > /dev/null 2>&1 &\nsleep 2", "as root"), ("true", "none runs")),
    ),
    "oomd-cannot-act": Play(
        speaks="systemctl start systemd-oomd",
        silent=(
            (
                "systemctl set-property -- user.slice ManagedOOMMemoryPressure=kill; systemctl start systemd-oomd",
                "given",
            ),
            (_SWAP + "systemctl start systemd-oomd", "there is swap, which counts for all units"),
            ("true", "it does not run"),
        ),
        load="sleep 2; oomctl | grep -q /system.slice",
    ),
    "killers-compete": Play(
        speaks="systemctl start earlyoom systemd-oomd",
        silent=(("systemctl start earlyoom", "one alone"),),
        load="sleep 1; test $(pgrep -x -c 'earlyoom|systemd-oomd') = 1",
    ),
    "swap-absent": Play(
        speaks=_holding("hog --mib 200 --name app --hold -1"),
        silent=(
            (_SWAP + _holding("hog --mib 200 --name app --hold -1"), "there is swap"),
            (_holding("hog --mib 20 --name app --hold -1"), "little would go there"),
        ),
        load="hog --mib 235 --name late --adj -900 && pgrep -x app",
    ),
    "swap-small": Play(
        speaks=_LITTLE_SWAP + _holding("hog --mib 200 --name app --hold -1"),
        silent=(
            (_SWAP + _holding("hog --mib 200 --name app --hold -1"), "there is enough of it"),
            (_LITTLE_SWAP + _holding("hog --mib 20 --name app --hold -1"), "little would go there"),
        ),
        load="hog --mib 255 --name late --adj -900 && pgrep -x app",
    ),
    "swap-nearly-full": Play(
        speaks=_SWAP + _holding("hog --mib 480 --name app --hold -1"),
        silent=(
            (_SWAP + _holding("hog --mib 200 --name app --hold -1"), "there is swap, and nothing in it"),
            (_holding("hog --mib 300 --name app --hold -1"), "there is none at all"),
        ),
        load="hog --mib 80 --name late --adj -900 && pgrep -x app",
    ),
    "swap-forbidden": Play(
        speaks=_SWAP
        + _group("app", "memory.max=64M", "memory.swap.max=0")
        + _holding(_in("app", "hog --mib 50 --name app --hold -1")),
        silent=(
            (
                _SWAP + _group("app", "memory.max=64M") + _holding(_in("app", "hog --mib 50 --name app --hold -1")),
                "it may use swap",
            ),
            (
                _group("app", "memory.max=64M", "memory.swap.max=0")
                + _holding(_in("app", "hog --mib 50 --name app --hold -1")),
                "the machine has none either",
            ),
        ),
        load=_in("app", "hog --mib 30 --name late") + " && pgrep -x app",
    ),
    "swappiness-zero": Play(
        speaks=_SWAP + "sysctl -q -w vm.swappiness=0\n" + _group("app", "memory.max=40M"),
        silent=(
            (_SWAP + "sysctl -q -w vm.swappiness=1", "as little as possible"),
            ("sysctl -q -w vm.swappiness=0", "there is no swap"),
        ),
        load=_in("app", "hog --mib 60 --name app"),
    ),
    "zram-swappiness": Play(
        speaks=_ZRAM + _WORKED_ON,
        silent=(
            (_ZRAM + _group("app", "memory.max=40M") + _holding(_in("app", "hog --mib 60 --hold -1")), "no file is"),
            (_ZRAM + "sysctl -q -w vm.swappiness=150\n" + _WORKED_ON, "swap counts as cheaper"),
            (_ZRAM + _SWAP + _WORKED_ON, "a disk is swapped to as well"),
        ),
        load=_IS_KEPT,
    ),
    "group-near-limit": Play(
        speaks=_group("app", "memory.max=64M") + _holding(_in("app", "hog --mib 56 --name app --hold -1")),
        silent=(
            (_group("app", "memory.max=64M") + _in("app", f'sh -c "{_CACHE}"') + "; sleep 2", "it is file cache"),
            (
                _group("app", "memory.max=96M") + _holding(_in("app", "hog --mib 56 --name app --hold -1")),
                "there is more room",
            ),
        ),
        load=_in("app", "hog --mib 20 --name late") + " && pgrep -x app",
    ),
    "memory-nearly-full": Play(
        speaks=_holding("hog --mib 190 --name app --hold -1") + _holding("hog --mib 190 --name app --hold -1"),
        silent=(
            (_holding("hog --mib 300 --name app --hold -1"), "there is more left"),
            (f"{_CACHE}; {_CACHE}", "it is full of file cache"),
            (
                _SWAP + _holding("hog --mib 190 --name app --hold -1") + _holding("hog --mib 190 --name app --hold -1"),
                "there is swap to go to",
            ),
        ),
    ),
    "group-holds": Play(
        speaks=_group("app") + _holding(_in("app", "hog --mib 190 --hold -1")) * 2,
        silent=(
            (
                "".join(_group(name) + _holding(_in(name, "hog --mib 190 --hold -1")) for name in ("app", "web")),
                "two groups hold as much together",
            ),
            (_group("app") + _holding(_in("app", "hog --mib 378 --hold -1")), "one process alone holds it"),
            (
                _group("app", "memory.max=400M") + _holding(_in("app", "hog --mib 190 --hold -1")) * 2,
                "it has a limit",
            ),
            (_group("app") + _in("app", f'sh -c "{_CACHE}; {_CACHE}"'), "it is file cache"),
        ),
    ),
    "process-holds": Play(
        speaks=_holding("hog --mib 20 --name bystander --adj 900 --hold -1")
        + _holding("hog --mib 378 --name app --hold -1"),
        silent=(
            (
                _holding("hog --mib 190 --name app --hold -1") + _holding("hog --mib 190 --name app --hold -1"),
                "two hold as much together",
            ),
            (_group("app", "memory.max=64M") + _holding(_in("app", "hog --mib 60 --hold -1")), "its group is full"),
        ),
        load="pkill -9 -x app\nsleep 1\n${ADVISED:-sh -c} 'hog --mib 2000 --name app'\nsleep 1; pgrep -x bystander",
    ),
    "limits-exceed-memory": Play(
        speaks=_UNITS.format("400M", ""),
        silent=((_UNITS.format("200M", ""), "together they fit"),),
        load=_BYSTANDER
        + "pid=$(systemctl show -P MainPID web)\n"
        + "sh -c 'echo $$ > /sys/fs/cgroup/system.slice/web.service/cgroup.procs; "
        "exec hog --mib 380 --name leak --adj -900'\nsleep 1; pgrep -x bystander",
    ),
    "parent-below-child": Play(
        speaks=_group("app", "memory.max=48M", "cgroup.subtree_control=+memory") + _group("app/web", "memory.max=96M"),
        silent=(
            (
                _group("app", "memory.max=128M", "cgroup.subtree_control=+memory")
                + _group("app/web", "memory.max=96M"),
                "the outer limit is above",
            ),
        ),
        load=_in("app/web", "hog --mib 80 --name app"),
    ),
    "commit-limit-near": Play(
        speaks=_holding("hog --mib 200 --name app --hold -1")
        + "sysctl -q -w vm.overcommit_memory=2\n"
        # the least of some looks: what is promised to a program that is just ending is not
        + "promised=$(for n in 1 2 3 4 5 6 7 8; do sleep 0.5; awk '/^Committed_AS/ {print $2}' /proc/meminfo; done"
        + " | sort -n | head -n 1)\n"
        + "total=$(awk '/^MemTotal/ {print $2}' /proc/meminfo)\nratio=$((promised * 100 / total + 6))\n"
        + "sysctl -q -w vm.overcommit_ratio=$ratio",
        silent=(
            (
                _holding("hog --mib 150 --name app --hold -1")
                + "sysctl -q -w vm.overcommit_ratio=90 vm.overcommit_memory=2",
                "more may be promised",
            ),
            (_holding("hog --mib 150 --name app --hold -1"), "the kernel guesses"),
        ),
        load="hog --mib 40 --name late",
    ),
    "overcommit-unbounded": Play(
        speaks="sysctl -q -w vm.overcommit_memory=1\n" + _holding(_MAPS),
        silent=(
            ("sysctl -q -w vm.overcommit_memory=1", "it has promised little"),
            (_holding("python3 -c 'import time; print(\"has\", flush=True); time.sleep(9)'"), "it guesses"),
        ),
        load="python3 -c 'bytearray(4 << 30)'; test $? = 1",
    ),
    "panic-set": Play(
        speaks="sysctl -q -w vm.panic_on_oom=1",
        silent=(("sysctl -q -w vm.panic_on_oom=0", "it kills"),),
        load="hog --mib 2000 --name app; test $? = 137",
    ),
    "allocating-task-set": Play(
        speaks="sysctl -q -w vm.oom_kill_allocating_task=1",
        silent=(("sysctl -q -w vm.oom_kill_allocating_task=0", "it looks for the largest"),),
        load=_holding("hog --mib 300 --name large --hold -1") + "hog --mib 150 --name late --adj -500",
    ),
    "huge-pages-reserved": Play(
        speaks="sysctl -q -w vm.nr_hugepages=60",
        silent=(
            ("sysctl -q -w vm.nr_hugepages=4", "it is little"),
            (
                "sysctl -q -w vm.nr_hugepages=30\n"
                + _holding(
                    "python3 -c 'import mmap, time; m = mmap.mmap(-1, 60 << 20, flags=mmap.MAP_PRIVATE | "
                    'mmap.MAP_ANONYMOUS | 0x40000); m.write(b"x" * (60 << 20)); print("has", flush=True); '
                    "time.sleep(900)'"
                ),
                "they are used",
            ),
        ),
        load="hog --mib 360 --name app",
    ),
    "tmpfs-holds": Play(
        speaks="mount -t tmpfs -o size=400m t /mnt; dd if=/dev/zero of=/mnt/f bs=1M count=120 2> /dev/null",
        silent=(
            (
                "mount -t tmpfs -o size=400m t /mnt; dd if=/dev/zero of=/mnt/f bs=1M count=20 2> /dev/null",
                "it holds little",
            ),
            ("dd if=/dev/zero of=/root/f bs=1M count=120 2> /dev/null", "the file is on a disk"),
        ),
        remedy=1,
        load="rm /mnt/f\n" + _BYSTANDER + "dd if=/dev/zero of=/mnt/g bs=1M count=390 2> /dev/null; pgrep -x bystander",
    ),
    "segments-forgotten": Play(
        speaks=_SEGMENT + "python3 /run/segment.py 0",
        silent=((_SEGMENT + _holding("python3 /run/segment.py 900"), "somebody is attached"),),
        load=f"test $({_AVAILABLE}) -gt $((${{BEFORE:-9999}} + 20))",
    ),
    "slab-holds": Play(
        speaks=_holding("hog --mib 110 --kind socket --name sockhog --hold -1"),
        silent=(
            ("find / -xdev > /dev/null", "names of files, which can be given back"),
            (_holding("hog --mib 110 --name app --hold -1"), "a process holds as much"),
        ),
    ),
    "unevictable-holds": Play(
        speaks=_holding("hog --mib 140 --kind lock --name locked --hold -1"),
        silent=((_holding("hog --mib 140 --name app --hold -1"), "as large, and not locked"),),
    ),
    "exempt-holds": Play(
        speaks=_holding("hog --mib 150 --name app --adj -1000 --hold -1"),
        silent=(
            (_holding("hog --mib 150 --name app --adj -900 --hold -1"), "late, but not exempt"),
            (_holding("hog --mib 10 --name app --adj -1000 --hold -1"), "exempt, and small"),
        ),
        load="echo -999 > /proc/self/oom_score_adj\nhog --mib 280 --name late --adj -900",
    ),
    "exempt-grows": Play(
        speaks=_GROWS.format("-1000") + _FIRST_LOOK + _GROWN,
        silent=(
            (_GROWS.format("-900") + _FIRST_LOOK + _GROWN, "it grows as much, and can be killed"),
            (_GROWS.format("-1000") + _GROWN + _FIRST_LOOK + "sleep 5", "it has what it wants"),
            (_FIRST_LOOK + _GROWS.format("-1000") + _GROWN, "it was not there at the last look: it has just begun"),
        ),
        load=_SYSRQ + "! pgrep -x app",
    ),
    "slab-grows": Play(
        speaks=_FIRST_LOOK + _holding("hog --mib 30 --kind socket --name sockhog --hold -1"),
        silent=(
            (_FIRST_LOOK + "find / -xdev > /dev/null", "names of files, which can be given back"),
            (_FIRST_LOOK + _holding("hog --mib 60 --name app --hold -1"), "a process has grown as much"),
            (_holding("hog --mib 30 --kind socket --hold -1") + _FIRST_LOOK, "it was so at the last look"),
        ),
    ),
    "exemption-inherited": Play(
        speaks="sh -c 'echo -1000 > /proc/self/oom_score_adj; hog --mib 30 --name app --hold -1' &\nsleep 5",
        silent=(
            ("sh -c 'echo -1000 > /proc/self/oom_score_adj; hog --mib 30 --adj 0 --hold -1' &\nsleep 5", "set back"),
            ("sh -c 'hog --mib 30 --adj -1000 --hold -1' &\nsleep 5", "of its own wish"),
        ),
        load=_SYSRQ + "! pgrep -x app",
    ),
    "small-victim-next": Play(
        speaks=_holding("hog --mib 150 --name large --adj -900 --hold -1")
        + _holding("hog --mib 10 --name small --adj 300 --hold -1"),
        silent=(
            (
                _holding("hog --mib 150 --name large --hold -1") + _holding("hog --mib 10 --name small --hold -1"),
                "the large one would die",
            ),
        ),
        load=_SYSRQ + "pgrep -x small",
    ),
    "unit-setting-ignored": Play(
        speaks=_SERVICE.format("MemoryMax=80M # the limit\\nOOMPolicy=continue", "sleep 900"),
        silent=(
            (_SERVICE.format("# the limit\\nMemoryMax=80M", "sleep 900"), "the comment is a line of its own"),
            (
                _SERVICE.format("MemoryMax=80M # the limit\\nMemoryMax=80M", "sleep 900"),
                "a later line says it again",
            ),
        ),
        load=_GROWS_IN_WEB,
    ),
    "unit-adj-differs": Play(
        speaks=_SERVICE.format("OOMScoreAdjust=-500", _SETS_OWN),
        silent=(
            (_SERVICE.format("OOMScoreAdjust=-500", "hog --mib 60 --name app --hold -1"), "it is so"),
            (_SERVICE.format("OOMPolicy=continue", _SETS_OWN), "the unit wants nothing"),
        ),
        load=_holding("hog --mib 30 --name other --hold -1") + _SYSRQ + "pgrep -x app",
    ),
}

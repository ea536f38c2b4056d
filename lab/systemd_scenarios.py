"""Scenarios of the systemd guest: 512 MiB, Debian with systemd as PID 1, the journal, earlyoom and systemd-oomd."""

from __future__ import annotations

from lab.scenario import GLOBAL, MEMCG, Report, Scenario

MIB = 1 << 20
# `ended UNIT`: wait until it runs no more, then give the journal a moment to take the kernel's lines.
ENDED = """\
ended() { while systemctl -q is-active "$1"; do sleep 0.2; done; sleep 1; }
"""
SWAP_FILE = "fallocate -l 96M /swapfile; chmod 600 /swapfile; mkswap -q /swapfile; swapon /swapfile\n"
LEAKY_UNIT = """\
mkdir -p /etc/systemd/system/leaky.service.d
printf '[Service]\\nExecStart=/usr/local/bin/hog --mib 400 --name leaky\\n' > /etc/systemd/system/leaky.service
printf '[Service]\\nMemoryMax=40M\\nOOMScoreAdjust=250\\n' > /etc/systemd/system/leaky.service.d/50-limits.conf
systemctl daemon-reload
systemctl start leaky
ended leaky
"""
JOURNAL_FORMATS = (
    "short short-full short-iso short-precise short-monotonic short-unix json cat export with-unit verbose"
)


def _killed(
    victim: str, group: str, *, mib: int = 40, victim_in: str = "", adj: int = 0, also: tuple[str, ...] | None = ()
) -> Report:
    return Report(
        victim=victim,
        constraint=MEMCG,
        limit_of=group,
        limit_bytes=mib * MIB,
        victim_in=victim_in or group,
        victim_adj=adj,
        also_killed=also,
        swap_bytes=None,
        finds=("parent-limit" if victim_in else "cgroup-limit", *([] if also == () else ["group-kill"])),
    )


def _policy(unit: str, policy: str) -> str:
    """Start a unit whose shell outlives its child; wait until the unit has ended, or the child at least."""
    return (
        f"systemd-run -q --unit={unit} -p MemoryMax=40M -p OOMPolicy={policy} "
        "sh -c 'sleep 301 & hog --mib 200 --name child; echo child ended with $?; sleep 300'\n"
        f"until grep -q 'oom_kill [1-9]' /sys/fs/cgroup/system.slice/{unit}.service/memory.events 2> /dev/null\n"
        f"do systemctl -q is-active {unit} || break; sleep 0.2; done\nsleep 3\n"
        f"systemctl show {unit} -p Result,OOMPolicy,ActiveState,SubState\njournalctl -u {unit} --no-pager\n"
    )


UNITS = (
    Scenario(
        name="systemd-unit-memorymax",
        machine="systemd",
        does="A service reaches MemoryMax.",
        script=ENDED + LEAKY_UNIT + "systemctl show leaky -p Result,ExecMainStatus\njournalctl -u leaky --no-pager\n",
        reports=(_killed("leaky", "/system.slice/leaky.service", adj=250),),
        prints=("Result=oom-kill", "ExecMainStatus=9", "has been killed by the OOM killer"),
    ),
    Scenario(
        name="systemd-unit-oompolicy-continue",
        machine="systemd",
        does="A child of a service reaches MemoryMax; with OOMPolicy=continue the service runs on.",
        script=_policy("cont", "continue"),
        reports=(_killed("child", "/system.slice/cont.service"),),
        prints=("Result=success", "SubState=running", "child ended with 137"),
    ),
    Scenario(
        name="systemd-unit-oompolicy-stop",
        machine="systemd",
        does="A child of a service reaches MemoryMax; with OOMPolicy=stop systemd ends the service.",
        script=_policy("stp", "stop"),
        reports=(_killed("child", "/system.slice/stp.service"),),
        prints=("Result=oom-kill",),
    ),
    Scenario(
        name="systemd-unit-oompolicy-kill",
        machine="systemd",
        does="A child of a service reaches MemoryMax; with OOMPolicy=kill the kernel kills the service as a group.",
        script=_policy("kil", "kill"),
        reports=(_killed("child", "/system.slice/kil.service", also=None),),
        prints=("Result=oom-kill",),
    ),
    Scenario(
        name="systemd-slice-limit",
        machine="systemd",
        does="A service without a limit of its own reaches that of its slice.",
        script=ENDED + "systemctl set-property --runtime user.slice MemoryMax=60M\n"
        "systemd-run -q --unit=inslice --slice=user.slice hog --mib 400 --name sliced\nended inslice\n"
        "systemctl show inslice -p Result,MemoryMax\n",
        reports=(_killed("sliced", "/user.slice", mib=60, victim_in="/user.slice/inslice.service"),),
        prints=("Result=oom-kill", "MemoryMax=infinity"),
    ),
    Scenario(
        name="systemd-scope",
        machine="systemd",
        does="A command run in a scope reaches the limit of the scope.",
        script="systemd-run -q --scope --unit=sc -p MemoryMax=30M hog --mib 300 --name scoped\n"
        "echo status $?\nsleep 1\nsystemctl show sc.scope -p Result\n",
        reports=(_killed("scoped", "/system.slice/sc.scope", mib=30),),
        prints=("status 137", "Result=oom-kill"),
    ),
    Scenario(
        name="systemd-unit-memoryhigh",
        machine="systemd",
        does="A service above MemoryHigh without swap is throttled, and nobody is killed.",
        script="systemd-run -q --unit=hi -p MemoryHigh=30M hog --mib 36 --name throttled --hold 5\nsleep 5\n"
        "cat /sys/fs/cgroup/system.slice/hi.service/memory.events\n",
        prints=("oom_kill 0\n",),
    ),
    Scenario(
        name="systemd-v1-unit-memorymax",
        machine="systemd-v1",
        does="A service reaches MemoryMax on cgroup v1: systemd sees a signal; only the kernel tells of memory.",
        script=ENDED + LEAKY_UNIT + "systemctl show leaky -p Result,ExecMainStatus\n",
        reports=(_killed("leaky", "/system.slice/leaky.service", adj=250),),
        prints=("Result=signal", "ExecMainStatus=9"),
        kernels=("5.10", "6.1"),
    ),
    Scenario(
        name="systemd-global",
        machine="systemd",
        does="A service fills the machine; with its files on disk and no swap, long reclaim comes before the kill.",
        script=ENDED + "systemd-run -q --unit=big -p OOMScoreAdjust=500 hog --mib 3000 --name biggie\nended big\n"
        "systemctl show big -p Result\n",
        reports=(
            Report(
                victim="biggie",
                constraint=GLOBAL,
                victim_in="/system.slice/big.service",
                victim_adj=500,
                finds=("host-full", "no-swap"),
            ),
        ),
        prints=("Result=oom-kill",),
        timeout_s=240,
    ),
)

WITHOUT_A_KILL = (
    Scenario(
        name="systemd-swapfile",
        machine="systemd",
        does="A process larger than the memory survives by a swap file.",
        script=SWAP_FILE + "hog --mib 430 --name swapper\necho status $?\nfree\n",
        prints=("status 0",),
        timeout_s=180,
    ),
    Scenario(
        name="systemd-zram",
        machine="systemd",
        does="A process fits beside an empty swap on zram.",
        script="echo 96M > /sys/block/zram0/disksize && mkswap -q /dev/zram0 && swapon /dev/zram0 || exit 1\n"
        "hog --mib 400 --name swapper\necho status $?\ncat /proc/swaps\n",
        prints=("status 0", "/dev/zram0"),
        timeout_s=180,
    ),
    Scenario(
        name="systemd-earlyoom",
        machine="systemd",
        does="earlyoom ends a process before the kernel must: a death with no report.",
        script="printf 'EARLYOOM_ARGS=\"-m 20 -s 100 -r 2\"\\n' > /etc/default/earlyoom\nsystemctl start earlyoom\n"
        "sleep 1\nhog --mib 3000 --step-mib 1 --pace-ms 10 --name eater\necho status $?\nsleep 1\n"
        "journalctl -u earlyoom --no-pager\n",
        prints=("status 143", "sending SIGTERM to process"),
    ),
    Scenario(
        name="systemd-oomd",
        machine="systemd",
        does="systemd-oomd ends a service for its memory pressure: a death with no report.",
        script=ENDED + SWAP_FILE + "mkdir -p /etc/systemd/oomd.conf.d\n"
        "printf '[OOM]\\nDefaultMemoryPressureDurationSec=2s\\n' > /etc/systemd/oomd.conf.d/lab.conf\n"
        "systemctl start systemd-oomd\nsleep 1\n"
        "systemd-run -q --unit=press -p ManagedOOMMemoryPressure=kill -p ManagedOOMMemoryPressureLimit=5% "
        "-p MemoryHigh=40M hog --mib 200 --name presser --hold 60\nended press\n"
        "systemctl show press -p Result\njournalctl -u press -u systemd-oomd --no-pager\n",
        prints=("Result=oom-kill", "due to memory pressure for /system.slice/press.service"),
        timeout_s=150,
    ),
)

FORMATS = (
    Scenario(
        name="systemd-journal-formats",
        machine="systemd",
        does="One kill, as journalctl and dmesg print it in each of their formats.",
        script=ENDED
        + "since=$(date '+%F %T')\n"
        + LEAKY_UNIT
        + f"for format in {JOURNAL_FORMATS}\n"
        + 'do echo "##### journalctl -k -o $format"; journalctl -k -o $format --no-pager --since="$since"; done\n'
        + 'for option in --ctime --decode --raw\ndo echo "##### dmesg $option"; dmesg $option; done\n',
        reports=(_killed("leaky", "/system.slice/leaky.service", adj=250),),
        prints=("##### journalctl -k -o json\n", "##### dmesg --raw\n"),
        timeout_s=180,
    ),
)

SCENARIOS = (*UNITS, *WITHOUT_A_KILL, *FORMATS)

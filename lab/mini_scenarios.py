"""Scenarios of the mini guest: 256 MiB (320 on two nodes) without swap, busybox, cgroup v2 at /sys/fs/cgroup."""

from __future__ import annotations

from lab.scenario import CPUSET, GLOBAL, MEMCG, MEMPOLICY, Report, Scenario

MIB = 1 << 20
INNOCENTS = """\
hog --mib 8 --name innocent --hold -1 &
hog --mib 12 --name 'Web Content' --adj 200 --hold -1 &
hog --mib 4 --name protected --adj -500 --hold -1 &
sleep 2
"""
HOG = "hog --mib 2000 --name memhog\n"
SWAP_DISK = "mkswap /dev/vda > /dev/null && swapon /dev/vda || exit 1\n"
DISK_SWAP_BYTES = 64 * MIB - 4096  # the first page is its header
CGROUP_V1 = "umount /sys/fs/cgroup; mkdir /cg1; mount -t cgroup -o memory m /cg1 || exit 1; cd /cg1\n"
TMPFS_DD = "dd if=/dev/zero of=/mnt/f bs=1M count=600\n"
# What is left once the writer is dead is often not enough for a guest to answer by: it panics, nobody left to kill. The
# shell gives the file up by itself, for which it needs no process.
GIVE_UP = "status=$?\n: > /mnt/f\nexit $status\n"


def _group(name: str, *settings: str) -> str:
    """Make a cgroup, step into its folder, write settings such as memory.max=32M."""
    written = "".join(f"echo {value} > {key}\n" for key, value in (setting.split("=") for setting in settings))
    return f"mkdir -p /sys/fs/cgroup/{name}\ncd /sys/fs/cgroup/{name}\n{written}"


def _inside(command: str, group: str = ".") -> str:
    """The command, as a process of the cgroup."""
    return f"sh -c 'echo $$ > {group}/cgroup.procs; exec {command}'"


def _limit(
    group: str,
    *,
    mib: int = 32,
    victim: str | None = "memhog",
    victim_in: str = "",
    also: tuple[str, ...] = (),
    finds: tuple[str, ...] = ("cgroup-limit",),
) -> Report:
    return Report(
        victim=victim,
        constraint=MEMCG,
        limit_of=group,
        limit_bytes=mib * MIB,
        victim_in=victim_in or group,
        also_killed=also,
        swap_bytes=None,
        finds=finds,
    )


_FULL = ("host-full", "no-swap")
_SHMEM = (*_FULL, "shmem-holds")
_GLOBAL = Report(victim="memhog", constraint=GLOBAL, finds=_FULL)
_SWAP_FULL = Report(victim="memhog", constraint=GLOBAL, swap_bytes=DISK_SWAP_BYTES, finds=("host-full", "swap-full"))
_PANIC = "Kernel panic - not syncing: "

MEMORY = (
    Scenario(
        name="global",
        does="One process takes all of a small machine; bystanders with other adjustments live.",
        script=INNOCENTS + HOG,
        reports=(_GLOBAL,),
        status=137,
    ),
    Scenario(
        name="global-adj",
        does="The machine fills up; a small process with oom_score_adj 900 dies first, then the one that grew.",
        script="hog --mib 10 --name scapegoat --adj 900 --hold -1 &\nsleep 1\n" + HOG,
        reports=(
            Report(victim="scapegoat", constraint=GLOBAL, victim_adj=900, finds=(*_FULL, "small-victim")),
            _GLOBAL,
        ),
        status=137,
    ),
    Scenario(
        name="global-allocating-task",
        does="With vm.oom_kill_allocating_task=1 the latecomer dies, though another process is larger.",
        script="echo 1 > /proc/sys/vm/oom_kill_allocating_task\nhog --mib 120 --name resident --hold -1 &\nsleep 3\n"
        + HOG,
        reports=(Report(victim="memhog", constraint=GLOBAL, allocating_task=True, finds=_FULL),),
        status=137,
    ),
    Scenario(
        name="global-no-dump-tasks",
        does="The machine fills up with vm.oom_dump_tasks=0: no task table.",
        script="echo 0 > /proc/sys/vm/oom_dump_tasks\n" + HOG,
        reports=(Report(victim="memhog", constraint=GLOBAL, tasks=False, finds=_FULL),),
        status=137,
    ),
    Scenario(
        name="global-children",
        does="Seven processes of one name grow side by side and die one after the other.",
        script="hog --mib 400 --children 6 --name forker\nwhile killall -0 forker 2> /dev/null; do sleep 1; done\n",
        reports=(Report(victim="forker", constraint=GLOBAL, finds=_FULL),) * 5,  # the last may find room and end
        more_reports=True,
    ),
    Scenario(
        name="global-sysrq-f",
        does="Somebody asks for a kill by SysRq f while memory is free.",
        script=INNOCENTS + "hog --mib 40 --name memhog --hold -1 &\nsleep 2\necho f > /proc/sysrq-trigger\nsleep 1\n",
        reports=(Report(victim="Web Content", constraint=GLOBAL, victim_adj=200, order=-1, finds=("small-victim",)),),
    ),
    Scenario(
        name="global-shmem",
        does="A process maps and fills a file on tmpfs: its memory is shmem, and stays when it is dead.",
        script="mount -t tmpfs -o size=100% t /mnt\n" + INNOCENTS + "hog --mib 2000 --kind file=/mnt/f --name shmhog\n",
        reports=(Report(victim="shmhog", constraint=GLOBAL, finds=_SHMEM),),
        more_reports=True,
        status=137,
    ),
    Scenario(
        name="global-tmpfs-dd",
        does="Files on tmpfs fill the machine: bystanders die, nothing is freed, then the writer, who is small.",
        script="mount -t tmpfs -o size=150% t /mnt\n" + INNOCENTS + TMPFS_DD + GIVE_UP,
        reports=(
            Report(victim="Web Content", constraint=GLOBAL, victim_adj=200, finds=_SHMEM),
            Report(victim="innocent", constraint=GLOBAL, finds=_SHMEM),
            Report(victim="dd", constraint=GLOBAL, finds=_SHMEM),
        ),
        more_reports=True,
        status=137,
    ),
    Scenario(
        name="global-mlock",
        does="A process locks what it takes: unevictable memory.",
        script="ulimit -l unlimited\nhog --mib 2000 --kind lock --name locker\n",
        reports=(Report(victim="locker", constraint=GLOBAL, finds=("host-full",)),),
        status=137,
    ),
    Scenario(
        name="global-hugetlb",
        does="80 MiB lie idle as reserved huge pages while a process fills the rest.",
        script="echo 40 > /proc/sys/vm/nr_hugepages\n" + HOG,
        reports=(_GLOBAL,),
        logs=("hugepages_total=40 hugepages_free=40",),
        status=137,
    ),
    Scenario(
        name="global-sock-slab",
        does="Datagrams nobody reads: the memory is the kernel's (slab), the process that queued them is tiny.",
        script="exec hog --mib 2000 --kind socket --name sockhog\n",
        reports=(Report(victim="sockhog", constraint=GLOBAL, order="any", finds=("host-full", "kernel-memory")),),
        logs=("Unreclaimable slab info:",),
        status=137,
    ),
    Scenario(
        name="overcommit2",
        does="Strict overcommit refuses an allocation: ENOMEM, and no kill.",
        script="echo 2 > /proc/sys/vm/overcommit_memory\nhog --mib 1000 --name memhog\n",
        status=12,
    ),
    Scenario(
        name="overcommit0-huge",
        does="The heuristic refuses an allocation far above the machine: ENOMEM, and no kill.",
        script="hog --mib 100000 --step-mib 50000 --name memhog\n",
        status=12,
        prints=("Cannot allocate memory",),
    ),
)


CGROUPS = (
    Scenario(
        name="memcg",
        does="A process reaches the limit of its own cgroup while the machine has room.",
        script=_group("app", "memory.max=32M") + _inside("hog --mib 200 --name memhog") + "\ncat memory.events\n",
        reports=(_limit("/app"),),
        prints=("oom_kill 1\n",),
    ),
    Scenario(
        name="memcg-nested",
        does="The limit of the parent is reached; the victim's own cgroup, and its sibling, have none.",
        script=_group("par", "cgroup.subtree_control=+memory", "memory.max=32M")
        + "mkdir c1 c2\n"
        + _inside("hog --mib 10 --name sibling --hold -1", "c2")
        + " &\nsleep 1\n"
        + _inside("hog --mib 200 --name memhog", "c1")
        + "\ncat c1/memory.events\n",
        reports=(_limit("/par", victim_in="/par/c1", finds=("parent-limit",)),),
        prints=("oom_kill 1\n",),
    ),
    Scenario(
        name="memcg-oom-group",
        does="memory.oom.group: the whole cgroup dies with the one that reached the limit.",
        script=_group("grp", "memory.max=32M", "memory.oom.group=1")
        + _inside("hog --mib 6 --name worker1 --hold -1")
        + " &\n"
        + _inside("hog --mib 6 --name worker2 --hold -1")
        + " &\nsleep 1\n"
        + _inside("hog --mib 200 --name memhog"),
        reports=(_limit("/grp", also=("worker1", "worker2"), finds=("cgroup-limit", "group-kill")),),
        status=137,
    ),
    Scenario(
        name="memcg-oom-group-unkillable",
        does="memory.oom.group with a member at oom_score_adj -1000: it alone survives.",
        script=_group("grq", "memory.max=32M", "memory.oom.group=1")
        + _inside("hog --mib 6 --name keepme --adj -1000 --hold -1")
        + " &\nsleep 1\n"
        + _inside("hog --mib 200 --name memhog")
        + "\nkillall -0 keepme && echo keepme lives\n",
        reports=(_limit("/grq", finds=("cgroup-limit", "group-kill")),),
        prints=("keepme lives",),
    ),
    Scenario(
        name="memcg-no-killable",
        does="The only process of a cgroup at its limit is exempt: a storm of reports, nobody dies.",
        script="dmesg -n 1\n"  # the console would slow it all down
        + _group("nok", "memory.max=32M")
        + _inside("hog --mib 40 --step-mib 1 --name unkillable --adj -1000")
        + " &\nuntil grep -q '^oom [1-9]' memory.events; do sleep 1; done\n"
        + "echo max > memory.max\nwait\ncat memory.events\n",
        reports=(_limit("/nok", victim=None),),
        more_reports=True,
        prints=("oom_kill 0\n",),
    ),
    Scenario(
        name="memcg-tmpfs",
        does="Files on tmpfs are charged to the cgroup that wrote them: the limit is reached by a tiny process.",
        script=_group("tf", "memory.max=32M") + "mount -t tmpfs t /mnt\n" + _inside(TMPFS_DD),
        reports=(_limit("/tf", victim="dd", finds=("cgroup-limit", "shmem-holds")),),
        status=137,
    ),
    Scenario(
        name="memcg-high",
        does="memory.high without swap: the process is throttled to a crawl, and nobody is killed.",
        script=_group("hi", "memory.high=32M")
        + _inside("timeout 8 hog --mib 40 --name throttled")
        + "\ncat memory.events\n",
        prints=("oom_kill 0\n",),
    ),
    Scenario(
        name="memcg-lower-max",
        does="Somebody lowers memory.max below what is in use: the writer of the limit invokes the kill.",
        script=_group("low")
        + _inside("hog --mib 60 --name memhog --hold -1")
        + " &\nsleep 2\necho 20M > memory.max\nsleep 1\ncat memory.events\n",
        reports=(_limit("/low", mib=20),),
        more_reports=True,
        prints=("oom_kill 1\n",),
    ),
    Scenario(
        name="memcg-v1",
        does="The limit of a cgroup of the first version is reached.",
        script=CGROUP_V1
        + "mkdir app\ncd app\necho 32M > memory.limit_in_bytes\n"
        + _inside("hog --mib 200 --name memhog")
        + "\ncat memory.oom_control\n",
        reports=(_limit("/app"),),
        prints=("oom_kill 1\n",),
        kernels=("5.10", "6.1"),  # from 6.12 on Debian's cloud kernels leave CONFIG_MEMCG_V1 out
    ),
    Scenario(
        name="memcg-v1-oom-disabled",
        does="memory.oom_control=1 freezes a process at its limit; with the limit raised it fills the machine.",
        script=CGROUP_V1
        + "mkdir dis\ncd dis\necho 32M > memory.limit_in_bytes\necho 1 > memory.oom_control\n"
        + _inside("hog --mib 200 --name memhog")
        + " &\nsleep 3\ncat memory.oom_control\necho 500M > memory.limit_in_bytes\nwait\n",
        reports=(Report(victim="memhog", constraint=GLOBAL, victim_in="/dis", finds=_FULL),),
        prints=("under_oom 1",),
        kernels=("5.10", "6.1"),
    ),
)

SWAP = (
    Scenario(
        name="global-disk-swap",
        does="Memory, then the swap partition fill up.",
        script=SWAP_DISK + INNOCENTS + HOG,
        reports=(
            Report(victim="memhog", constraint=GLOBAL, swap_bytes=DISK_SWAP_BYTES, finds=("host-full", "swap-full")),
        ),
        status=137,
    ),
    Scenario(
        name="global-zram-full",
        does="Swap on zram fills up with pages that do not compress: it takes the memory it should save.",
        script="echo 64M > /sys/block/zram0/disksize && mkswap /dev/zram0 > /dev/null && swapon /dev/zram0 || exit 1\n"
        + INNOCENTS
        + HOG,
        reports=(
            Report(victim="memhog", constraint=GLOBAL, swap_bytes=DISK_SWAP_BYTES, finds=("host-full", "swap-full")),
        ),
        status=137,
    ),
    Scenario(
        name="memcg-swap-max",
        does="A cgroup reaches both its limits, memory and swap, while the swap of the machine has room.",
        script=SWAP_DISK
        + _group("sw", "memory.max=32M", "memory.swap.max=16M")
        + _inside("hog --mib 200 --name memhog"),
        reports=(_limit("/sw", finds=("cgroup-limit", "cgroup-swap-limit")),),
        logs=("limit 16384kB",),
        status=137,
    ),
    Scenario(
        name="memcg-swap-none",
        does="The machine has free swap, but memory.swap.max=0 keeps the cgroup from it.",
        script=SWAP_DISK + _group("ns", "memory.max=32M", "memory.swap.max=0") + _inside("hog --mib 200 --name memhog"),
        reports=(_limit("/ns", finds=("cgroup-limit", "cgroup-swap-limit")),),
        logs=("swap: usage 0kB, limit 0kB",),
        status=137,
    ),
)

NODES = (
    Scenario(
        name="numa-cpuset",
        does="A cpuset holds a process to the second node; the first has room.",
        script=_group("cs", "cpuset.mems=1") + _inside("hog --mib 1000 --name memhog"),
        reports=(Report(victim="memhog", constraint=CPUSET, victim_in="/cs", finds=("node-short",)),),
        machine="numa",
        status=137,
    ),
    Scenario(
        name="numa-mempolicy",
        does="A process bound itself to the second node; the first has room.",
        script="hog --mib 1000 --node 1 --name memhog\n",
        reports=(Report(victim="memhog", constraint=MEMPOLICY, finds=("node-short",)),),
        machine="numa",
        status=137,
    ),
    Scenario(
        name="numa-global",
        does="A process fills both nodes.",
        script=INNOCENTS + HOG,
        reports=(_GLOBAL,),
        machine="numa",
        status=137,
    ),
)

PANICS = (
    Scenario(
        name="panic-on-oom",
        does="vm.panic_on_oom=1: the machine goes down instead of a process.",
        script="echo 1 > /proc/sys/vm/panic_on_oom\n" + INNOCENTS + HOG,
        reports=(
            Report(
                victim=None,
                constraint=None,
                panic=_PANIC + "Out of memory: system-wide panic_on_oom is enabled",
                finds=_FULL,
            ),
        ),
        status=None,
    ),
    Scenario(
        name="panic-on-oom2-memcg",
        does="vm.panic_on_oom=2: the limit of one cgroup takes the machine down.",
        script="echo 2 > /proc/sys/vm/panic_on_oom\n"
        + _group("app", "memory.max=32M")
        + _inside("hog --mib 200 --name memhog"),
        reports=(
            Report(
                victim=None,
                constraint=None,
                limit_of="/app",
                limit_bytes=32 * MIB,
                swap_bytes=None,
                panic=_PANIC + "Out of memory: compulsory panic_on_oom is enabled",
                finds=("cgroup-limit",),
            ),
        ),
        status=None,
    ),
    Scenario(
        name="panic-no-killable",
        does="Files on tmpfs fill the machine and every process is exempt.",
        script="mount -t tmpfs -o size=200% t /mnt\necho -1000 > /proc/self/oom_score_adj\n" + TMPFS_DD,
        reports=(
            Report(
                victim=None,
                constraint=None,
                panic=_PANIC + "System is deadlocked on memory",
                finds=_SHMEM,
            ),
        ),
        status=None,
    ),
)

SCENARIOS = (*MEMORY, *CGROUPS, *SWAP, *NODES, *PANICS)

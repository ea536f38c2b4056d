"""How the machines in this folder were captured: python -m tests.hosts.capture [NAME ...], with the lab set up.

What a guest's files say is printed by a shell in it, and written here as it is: no byte is edited. Of the groups that
systemd makes a few are kept.
"""

from __future__ import annotations

import base64
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lab.states import MINI, NUMA, SYSTEMD, SYSTEMD_V1, TRIXIE, saved
from reprieve.machine.memory import SYSCTLS
from reprieve.machine.sysfs import SETTINGS
from tests.hosts.kubelet import packed_kubelet

FOLDER = Path(__file__).parent
FILES = (
    *("cgroup.controllers", "cgroup.events", "cgroup.procs", "release_agent", "memory.current", "memory.peak"),
    *("memory.max", "memory.high", "memory.low", "memory.min", "memory.swap.current", "memory.swap.max"),
    *("memory.events", "memory.events.local", "memory.stat", "memory.pressure", "memory.oom.group"),
    *("memory.usage_in_bytes", "memory.max_usage_in_bytes", "memory.limit_in_bytes", "memory.soft_limit_in_bytes"),
    *("memory.memsw.usage_in_bytes", "memory.memsw.limit_in_bytes", "memory.swappiness", "memory.oom_control"),
)
# Of a whole machine. Of processes: the kernel's first thread, and all that run a program.
MACHINE = (
    *("/etc/machine-id", "/proc/meminfo", "/proc/vmstat", "/proc/zoneinfo", "/proc/buddyinfo", "/proc/swaps"),
    *("/proc/uptime", "/proc/stat", "/proc/pressure/memory", "/proc/sysvipc/shm", "/proc/sys/kernel/random/boot_id"),
    *("/proc/sys/kernel/hostname", "/proc/sys/kernel/osrelease"),
    *(f"/proc/sys/{name.replace('.', '/')}" for name in SYSCTLS),
    *("/sys/devices/system/cpu/possible", "/sys/devices/system/node/node*/meminfo"),
    *("/sys/devices/system/node/node*/hugepages/*/*", "/sys/kernel/mm/hugepages/*/*_hugepages"),
    *SETTINGS,
    *(f"/sys/block/zram*/{name}" for name in ("disksize", "mm_stat", "comp_algorithm")),
)
PROCESS = ("stat", "status", "oom_score_adj", "oom_score", "cgroup", "smaps_rollup", "numa_maps")
# Of systemd's groups.
KEPT = (
    r"^/sys/fs/cgroup(/memory)?(/(app|machine|kubepods)\.slice(/.*)?|/init\.scope|"
    r"/user\.slice(/[^/]+\.(slice|service))*(/libpod-[^/]+(/container)?)?|"
    r"/system\.slice(/(cron|dbus|docker|containerd|kubelet)\.service|/docker-[^/]+\.scope)?)?$"
)
# Prints "PATH BASE64" for each file; a file that refuses to be read (a threaded group's cgroup.procs) is not printed.
SHOW = f"""
show() {{ said=$(base64 -w 0 "$1" 2> /dev/null) && echo "$2 $said"; }}
groups() {{ find "$1" -type d | grep -E "${{2:-^}}" | while read -r group; do
    for file in {" ".join(FILES)}; do test -e "$group/$file" && show "$group/$file" "$group/$file"; done
done; }}
machine() {{ for file in {" ".join(MACHINE)}; do test -e "$file" && show "$file" "$file"; done
    for process in /proc/[0-9]*; do
        test $process = /proc/2 || readlink $process/exe > /dev/null || continue
        for file in {" ".join(PROCESS)}; do test -e "$process/$file" && show "$process/$file" "$process/$file"; done
    done; }}
"""
FEW = f"groups /sys/fs/cgroup '{KEPT}'\n"
MOUNTS = "machine; show /proc/self/mountinfo /proc/self/mountinfo; show /proc/self/cgroup /proc/self/cgroup\n"
# Swap on zram; huge pages that nobody uses; shared memory that outlives its maker.
ODDS = """
echo 64M > /sys/block/zram0/disksize && mkswap -q /dev/zram0 && swapon /dev/zram0
echo 4 > /proc/sys/vm/nr_hugepages
ipcmk -M 3000000 > /dev/null
"""
FILLED = "hog --mib 420 --step-mib 4 --hold 2\n"  # leaves something in swap
# A service of which half was swapped out: asked for by memory.reclaim, which Linux has since 5.19.
COLD = """
systemd-run -q --slice=app.slice --unit=cold hog --mib 40 --hold -1
sleep 6; echo 20M > /sys/fs/cgroup/app.slice/cold.service/memory.reclaim || exit 9
"""
# A slice with a limit over two services that stay, one of them with swap forbidden and some file cache.
UNITS = """
systemd-run -q --slice=app.slice --unit=web -p MemoryMax=96M -p MemoryHigh=80M -p OOMPolicy=kill sleep 900
systemd-run -q --slice=app.slice --unit=batch -p MemoryMax=32M -p MemorySwapMax=0 \\
    sh -c 'cat /usr/lib/x86_64-linux-gnu/*.so* > /dev/null; sleep 900'
systemctl set-property --runtime app.slice MemoryMax=128M MemoryLow=16M
sleep 8
"""
# An image of busybox and hog for the engines, which ask no registry.
IMAGE = """
mkdir -p /lab/root/bin; cd /lab/root/bin; cp /bin/busybox /usr/local/bin/hog .; ln -s busybox sh; ln -s busybox sleep
tar -C /lab/root -cf /lab/image.tar .; cd /
"""
SWAP = "mkswap -q /dev/vda; swapon /dev/vda\n"
# No bridge: the guest's kernel has no netfilter.
DOCKERD = """
mkdir -p /etc/docker
echo '{"bridge": "none", "iptables": false, "ip6tables": false}' > /etc/docker/daemon.json
systemctl start docker && docker import - lab:1 < /lab/image.tar > /dev/null || exit 9
"""
# One with room, more likely to die than others; one without swap, where a child has been killed; one without limits.
DOCKER = """
run() { docker run --detach --network none "$@" > /dev/null || exit 9; }
run --memory 64m --memory-reservation 48m --oom-score-adj 300 lab:1 hog --mib 20 --hold -1
run --memory 48m --memory-swap 48m lab:1 sh -c 'hog --mib 100; exec sleep 900'
run lab:1 sleep 900
sleep 8
"""
# The same first one; a pod with a limit over two, one of them without swap; one of an ordinary user, under a limit.
PODMAN = """
run() { podman run --quiet --detach --network none "$@" > /dev/null || exit 9; }
podman import --quiet /lab/image.tar lab:1 > /dev/null
run --memory 64m --memory-reservation 48m --oom-score-adj 300 lab:1 hog --mib 20 --hold -1
podman pod create --name app --infra=false --share= --memory 96m > /dev/null
run --pod app --memory 48m --memory-swap 48m lab:1 sh -c 'hog --mib 8 --hold -1'
run --pod app lab:1 sleep 900
useradd --create-home user && loginctl enable-linger user && systemctl start user@1000
su - user -c 'export XDG_RUNTIME_DIR=/run/user/1000 DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/1000/bus
podman import --quiet /lab/image.tar lab:1 && podman run --quiet --detach --network none --memory 32m lab:1 sleep 900' \
    > /dev/null || exit 9
sleep 8
"""
# A pod of each quality of service, as a node's own pods are told: one with a UID of its own, two that get one. No
# server: what kubelet makes of a pod is the same. Two containers each: the first only keeps the pod.
KUBELET = """
gunzip -c /dev/vda > /usr/local/bin/kubelet; chmod +x /usr/local/bin/kubelet
docker import --change 'CMD ["sleep", "900"]' - pause:1 < /lab/image.tar > /dev/null
mkdir -p /etc/kubernetes/manifests
pod() { cat > /etc/kubernetes/manifests/$1.yaml << END
apiVersion: v1
kind: Pod
metadata: {name: $1, uid: $2}
spec:
  hostNetwork: true
  containers: [{name: main, image: "lab:1", imagePullPolicy: Never, command: [$3], resources: {$4}}]
END
}
pod database 3f1e6a52-8c0b-4d27-9a55-6f0c1b2d7e94 'hog, --mib, "24", --hold, "-1"' 'limits: {cpu: 50m, memory: 48Mi}'
pod web '' 'hog, --mib, "20", --hold, "-1"' 'requests: {memory: 32Mi}, limits: {memory: 64Mi}'
pod batch '' 'sleep, "900"' ''
cat > /etc/kubernetes/kubelet.yaml << END
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
cgroupDriver: systemd
staticPodPath: /etc/kubernetes/manifests
makeIPTablesUtilChains: false
address: 127.0.0.1
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
kubeReserved: {memory: 200Mi}
evictionHard: {memory.available: 50Mi}
END
systemd-run -q --unit=kubelet /usr/local/bin/kubelet --config=/etc/kubernetes/kubelet.yaml --network-plugin= \\
    --pod-infra-container-image=pause:1
tries=0
until [ $(find /sys/fs/cgroup/kubepods.slice -path '*/docker-*' -name cgroup.procs -exec cat {} + | wc -l) = 6 ]; do
    tries=$((tries + 1)); test $tries -lt 60 || exit 9; sleep 5
done 2> /dev/null
sleep 20
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capture:
    """A guest of the lab, and what is done in it before it is looked at."""

    series: str
    machine: str
    script: str
    spare: Callable[[], Path] | None = None  # what its spare disk begins with


CAPTURES = {
    "v2-mini-6.12": Capture(
        series="6.12",
        machine=MINI,
        script="""
mkswap /dev/vda > /dev/null; swapon /dev/vda
cd /sys/fs/cgroup; mkdir -p app/web app/batch plain; echo +memory > app/cgroup.subtree_control
echo 64M > app/memory.max; echo 8M > app/memory.low; echo 40M > app/web/memory.max; echo 36M > app/web/memory.high
echo 1 > app/web/memory.oom.group; echo 24M > app/batch/memory.max; echo 0 > app/batch/memory.swap.max
(echo 0 > app/web/cgroup.procs; exec hog --mib 20 --hold 600) &
(echo 0 > app/batch/cgroup.procs; exec hog --mib 60) ; sleep 6; cd /
"""
        + MOUNTS
        + "groups /sys/fs/cgroup",
    ),
    "v1-mini-6.1": Capture(
        series="6.1",
        machine=MINI,
        script="""
echo -memory > /sys/fs/cgroup/cgroup.subtree_control; umount /sys/fs/cgroup; mkdir -p /sys/fs/cgroup
mount -t tmpfs cgroup /sys/fs/cgroup; mkdir -p /sys/fs/cgroup/memory
mount -t cgroup -o memory cgroup /sys/fs/cgroup/memory || exit 9
mkswap /dev/vda > /dev/null; swapon /dev/vda
cd /sys/fs/cgroup/memory; mkdir -p app/web plain
echo 64M > app/memory.limit_in_bytes; echo 96M > app/memory.memsw.limit_in_bytes
echo 24M > app/web/memory.limit_in_bytes; echo 20M > app/web/memory.soft_limit_in_bytes
echo 10 > app/web/memory.swappiness; echo 1 > plain/memory.oom_control
(echo 0 > app/web/cgroup.procs; exec hog --mib 12 --hold 600) & sleep 4; cd /
"""
        + MOUNTS
        + "groups /sys/fs/cgroup",
    ),
    "numa-mini-7": Capture(
        series="7",
        machine=NUMA,
        script="""
mkswap /dev/vda > /dev/null; swapon /dev/vda
mkdir -p /dev/shm; mount -t tmpfs -o size=64m shm /dev/shm
dd if=/dev/zero of=/dev/shm/filled bs=1M count=12 2> /dev/null
hog --mib 40 --hold 600 & sleep 4
"""
        + MOUNTS
        + "groups /sys/fs/cgroup",
    ),
    # What an ordinary user in a container sees: a group, processes and files in memory of its own, memory of the host.
    "container-nobody-6.12": Capture(
        series="6.12",
        machine=SYSTEMD,
        script="cat > /run/show.sh <<'END'\n"
        + SHOW
        + MOUNTS
        + """groups /sys/fs/cgroup
END
cat > /run/inside.sh <<'END'
umount /sys/fs/cgroup; mount -t cgroup2 cgroup /sys/fs/cgroup; mount -t tmpfs -o mode=1777,size=16m tmp /tmp
exec setpriv --reuid 65534 --regid 65534 --clear-groups sh /run/show.sh
END
systemd-run -q --wait --pipe --unit=box -p MemoryMax=96M -p MemoryHigh=80M \\
    unshare --cgroup --mount --pid --fork --mount-proc sh /run/inside.sh
""",
    ),
    "v2-systemd-252": Capture(series="6.1", machine=SYSTEMD, script=ODDS + FILLED + UNITS + MOUNTS + FEW),
    "hybrid-systemd-252": Capture(
        series="6.1",
        machine=SYSTEMD_V1,
        script=UNITS
        + MOUNTS
        + f"""groups /sys/fs/cgroup/memory '{KEPT}'
show /sys/fs/cgroup/unified/cgroup.controllers /sys/fs/cgroup/unified/cgroup.controllers
""",
    ),
    "v2-systemd-257": Capture(series="7", machine=TRIXIE, script=ODDS + UNITS + COLD + MOUNTS + FEW),
    "docker-26": Capture(series="6.12", machine=TRIXIE, script=SWAP + IMAGE + DOCKERD + DOCKER + MOUNTS + FEW),
    "podman-5": Capture(series="6.12", machine=TRIXIE, script=SWAP + IMAGE + PODMAN + MOUNTS + FEW),
    "kubelet-1.20": Capture(
        series="6.12",
        machine=TRIXIE,
        script=IMAGE + DOCKERD + KUBELET + MOUNTS + FEW,
        spare=packed_kubelet,
    ),
}


def capture(name: str) -> None:
    """Boot the guest, do what is to be done, write its files below this folder in place of what was there."""
    wanted = CAPTURES[name]
    spare = wanted.spare() if wanted.spare else None
    with saved(wanted.series, wanted.machine).restore(spare=spare) as guest:
        answer = guest.run(f"{SHOW}{wanted.script}\nexit 0", timeout_s=600)
    if answer.status:
        raise SystemExit(f"{name}: the guest's script ended with {answer.status}: {answer.output[-400:]}")
    shutil.rmtree(FOLDER / name, ignore_errors=True)
    for line in answer.output.splitlines():
        path, _, content = line.partition(" ")
        if not path.startswith("/"):
            print(f"{name}: {line}", file=sys.stderr)
            continue
        target = FOLDER / name / path.removeprefix("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(base64.b64decode(content))


if __name__ == "__main__":
    for name in sys.argv[1:] or CAPTURES:
        capture(name)

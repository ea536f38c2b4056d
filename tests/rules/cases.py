"""For each rule: real logs where it speaks, look-alikes where it is silent, and loads that its advice saved."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from reprieve.machine.events import summarise, tell
from reprieve.machine.source import file_source
from reprieve.model.ending import Ending
from reprieve.model.oom import AllocationFailure, OomReport
from reprieve.model.snapshot import Snapshot
from reprieve.oom.ending import read_endings
from reprieve.oom.report import read_reports

LOGS = Path(__file__).parent.parent / "logs"
_LAB = "lab/6.1.0-56-cloud-amd64__"
_NEWER = "lab/6.1.0-57-cloud-amd64__"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cases:
    """The real cases of one rule. `speaks` and `silent` are logs below tests/logs; the latter with what differs."""

    speaks: tuple[str, ...]
    silent: tuple[tuple[str, str], ...]
    lives: tuple[str, ...] = ()  # names in test_lives.LOADS; none: the rule advises nothing that changes the outcome


_PASTED = "../captures/"
_LEGACY = "lab/5.10.0-46-cloud-amd64-legacyv1__"
CASES = {
    "ended-by-oom": Cases(
        speaks=(
            _PASTED + "docker-inspect-oom-pid1.json",
            _PASTED + "docker-inspect-oom-child.json",
            _PASTED + "docker-events-oom.jsonl",
            _PASTED + "podman5-inspect-oom-runc.json",
            _PASTED + "k8s-pod-oomkilled-crashloop.json",
            _PASTED + "k8s-describe-loop.txt",
            _PASTED + "ctr-events.txt",
            _LAB + "systemd-unit-memorymax.out.txt",
            _LAB + "systemd-systemd-oomd.out.txt",
            _LAB + "systemd-unit-oompolicy-continue.out.txt",
        ),
        silent=(
            (_PASTED + "docker-inspect-137-not-oom.json", "docker kill: 137 too"),
            (_PASTED + "docker-inspect-live-updated.json", "it runs"),
            (_PASTED + "podman-inspect-oom-runc.json", "killed for memory, but this Podman cannot tell"),
            (_LAB + "systemd-journal-formats.out.txt", "the kernel's own words of it are there"),
        ),
        lives=("the container's id leads to the kill in its host's log",),
    ),
    "told-by-node-agent": Cases(
        speaks=(_PASTED + "k8s-events.json", _PASTED + "k8s-describe-node.txt", _PASTED + "k8s-get-events.txt"),
        silent=(
            (_PASTED + "k8s-pod-oomkilled-never.json", "a pod's own status"),
            (_PASTED + "k8s-describe-loop.txt", "a pod's events, none of its node"),
        ),
        lives=("the victim's name leads to its kill in its node's log",),
    ),
    "evicted": Cases(
        speaks=(_PASTED + "k8s-describe-evicted.txt", _PASTED + "k8s-get-events.txt"),
        silent=((_PASTED + "k8s-pod-oomkilled-never.json", "the kernel's kill at the limit of a container"),),
    ),
    "manager-agrees": Cases(
        speaks=(
            _PASTED + "docker-inspect-oom-pid1.json + captures/dmesg-docker-oom.txt",
            _PASTED + "docker-inspect-oom-restarts.json + captures/dmesg-docker-oom.txt",
            _PASTED + "k8s-events.json + captures/dmesg-docker-oom.txt",
        ),
        silent=(
            (_PASTED + "k8s-pod-oomkilled-crashloop.json + captures/dmesg-k8s-oom.txt", "kills of other pods"),
            (_PASTED + "podman-inspect-oom-runc.json + captures/dmesg-podman-oom.txt", "this Podman denies it"),
            (_PASTED + "podman5-inspect-oom-runc.json + captures/dmesg-podman-oom.txt", "another container"),
        ),
    ),
    "manager-differs": Cases(
        speaks=(_PASTED + "podman-inspect-oom-runc.json + captures/dmesg-podman-oom.txt",),
        silent=(
            (_PASTED + "docker-inspect-oom-pid1.json + captures/dmesg-docker-oom.txt", "both say so"),
            (_PASTED + "docker-inspect-137-not-oom.json + captures/dmesg-docker-oom.txt", "another container"),
        ),
    ),
    "killed-by-daemon": Cases(
        speaks=(
            _LAB + "systemd-systemd-oomd.out.txt",
            _LAB + "systemd-earlyoom.out.txt",
            _NEWER + "systemd-nohang.out.txt",
            _NEWER + "systemd-nohang-kill.out.txt",
            _NEWER + "systemd-nohang-own-log.out.txt",
        ),
        silent=(
            (
                _NEWER + "systemd-nohang-silent.out.txt",
                "nohang may not, shows its settings, and another says its words",
            ),
            (_LAB + "systemd-unit-memorymax.out.txt", "the kernel's kill of a unit"),
            (_LAB + "systemd-unit-oompolicy-kill.out.txt", "the kernel's, and systemd's own words of it"),
        ),
    ),
    "killed-without-proof": Cases(
        speaks=(
            _PASTED + "docker-inspect-137-not-oom.json",
            _PASTED + "podman-inspect-oom-runc.json",
            _PASTED + "podman-events.jsonl",
            _LEGACY + "systemd-unit-memorymax.out.txt",
        ),
        silent=(
            (_PASTED + "docker-inspect-oom-child-137.json", "OOMKilled proves it"),
            (_PASTED + "docker-inspect-oom-child.json", "its exit status is 0"),
            (_PASTED + "docker-inspect-live-updated.json", "it runs"),
            (_LAB + "systemd-unit-memorymax.out.txt", "Result proves it"),
        ),
        lives=("the id of a container Podman calls not killed leads to its kill",),
    ),
    "unknown-field": Cases(
        speaks=(_PASTED + "guide-snippets.log",),
        silent=(
            ("074-rhel6-sshd-victim-java-2.6.32-431.log", "UID before the name"),
            (_LAB + "memcg.txt", "all fields of 6.1"),
            ("120-two-events-no-comm-2.6.18rc7.log", "no name at all"),
        ),
    ),
    "cgroup-limit": Cases(
        speaks=(
            _LAB + "memcg.txt",
            _LAB + "memcg-v1.txt",
            _LAB + "memcg-lower-max.txt",
            _LAB + "systemd-unit-memorymax.txt",
            "captures/dmesg-docker-oom.txt",
            "captures/dmesg-podman-oom.txt",
            "104-memcg-docker-gunpowder-gentoo-4.8-b.log",
        ),
        silent=(
            (_LAB + "memcg-nested.txt", "the limit is the parent's"),
            (_LAB + "memcg-v1-oom-disabled.txt", "a process in a cgroup dies, but the machine is full"),
            (_LAB + "global.txt", "no cgroup has a limit"),
        ),
        lives=("cgroup-limit", "unit-limit"),
    ),
    "parent-limit": Cases(
        speaks=(
            _LAB + "memcg-nested.txt",
            _LAB + "systemd-slice-limit.txt",
            "captures/dmesg-k8s-oom.txt",
            "114-memcg-aks-oom-group-npd.log",
            "145-memcg-eks-kubelet-podruntime-slice-5.4.log",
        ),
        silent=(
            (_LAB + "memcg.txt", "the limit is its own"),
            ("captures/dmesg-docker-oom.txt", "nested, but the limit is the container's own"),
        ),
        lives=("parent-limit",),
    ),
    "node-short": Cases(
        speaks=(
            _LAB + "numa-cpuset.txt",
            _LAB + "numa-mempolicy.txt",
            "113-rocky8-memory-policy-numa-hash012.log",
        ),
        silent=(
            (_LAB + "numa-global.txt", "both nodes are full"),
            (_LAB + "global.txt", "there is one node"),
        ),
        lives=("cpuset", "memory-policy"),
    ),
    "zone-short": Cases(
        speaks=(
            "004-i386-highmem-mkfs-wrapped-5.7rc3.log",
            "005-i386-highmem-mem-info-only-wrapped.log",
            "011-android-gki-5.10-kmsg-records-order3.log",
        ),
        silent=(
            (_LAB + "global.txt", "all zones are full"),
            (_LAB + "numa-mempolicy.txt", "free memory out of reach, but of another node"),
            ("097-i386-pgd-alloc-no-table-4.8.log", "a 32-bit kernel without high memory"),
        ),
    ),
    "fragmented": Cases(
        speaks=("011-android-gki-5.10-kmsg-records-order3.log",),
        silent=(
            ("116-arm32-order1-lowmem-quoted-4.14.log", "two pages in a row were wanted, and there are many"),
            (_LAB + "global-sock-slab.txt", "pages in a row were wanted, but all is full"),
            (_LAB + "global-hugetlb.txt", "huge pages are reserved, but single pages were wanted"),
        ),
    ),
    "not-short": Cases(
        speaks=(
            "001-memcg-v1-lxc-then-global-panic-5.15.log",
            "072-balloon-managed-underflow-5.4-next.log",
            "125-beaglebone-no-killable-negative-reserved-4.1.log",
        ),
        silent=(
            (_LAB + "global-sysrq-f.txt", "as much free, but a person asked for the kill"),
            (_LAB + "numa-mempolicy.txt", "as much free, but on a node out of reach"),
            ("004-i386-highmem-mkfs-wrapped-5.7rc3.log", "1 GiB free, but in a zone out of reach"),
            ("011-android-gki-5.10-kmsg-records-order3.log", "1.9 GiB free, but not eight pages in a row"),
        ),
        lives=("the limit that failed the page fault stands before it in the log",),
    ),
    "panic-on-oom": Cases(
        speaks=(
            _LAB + "panic-on-oom.txt",
            _LAB + "panic-on-oom2-memcg.txt",
            "001-memcg-v1-lxc-then-global-panic-5.15.log",
        ),
        silent=(
            (_LAB + "panic-no-killable.txt", "a panic, but because nobody could be killed"),
            ("030-memcg-oom-group-softlockup-panic-arm64.log", "a panic after a kill, but for a lockup"),
        ),
        lives=("panic",),
    ),
    "nobody-killable": Cases(
        speaks=(
            _LAB + "memcg-no-killable.txt",
            _LAB + "panic-no-killable.txt",
            "043-numa-random-no-killable-panic-5.8-next.log",
            "125-beaglebone-no-killable-negative-reserved-4.1.log",
        ),
        silent=(
            (_LAB + "panic-on-oom.txt", "nobody was killed, but by the setting"),
            (_LAB + "memcg-oom-group-unkillable.txt", "one is exempt, others are not"),
        ),
    ),
    "asked-for": Cases(
        speaks=(
            _LAB + "global-sysrq-f.txt",
            "089-debian8-sysrq-manual-oom-3.16.log",
            "108-ubuntu2110-sysrq-order-minus1.log",
        ),
        silent=((_LAB + "global.txt", "the same processes, and memory ran out"),),
    ),
    "huge-pages-idle": Cases(
        speaks=(_LAB + "global-hugetlb.txt", "lab/5.10.0-46-cloud-amd64__global-hugetlb.txt"),
        silent=(
            (_LAB + "global.txt", "no huge pages are reserved"),
            ("148-mysqld-hugepages-grep-n-prefixed.log", "the text holds no pool of them"),
        ),
        lives=("huge-pages",),
    ),
    "locked-memory": Cases(
        speaks=(_LAB + "global-mlock.txt", "lab/5.10.0-46-cloud-amd64__global-mlock.txt"),
        silent=(
            (_LAB + "global-shmem.txt", "as unmovable without swap, but not locked"),
            ("097-i386-pgd-alloc-no-table-4.8.log", "41 of 234 MiB: not what filled it"),
        ),
    ),
    "host-full": Cases(
        speaks=(
            _LAB + "global.txt",
            _LAB + "global-disk-swap.txt",
            _LAB + "global-children.txt",
            _LAB + "numa-global.txt",
            "057-xfs-cc1plus-loglevel-wrapped-6.9.log",
            "074-rhel6-sshd-victim-java-2.6.32-431.log",
            "077-centos7-rackspace-mysqld-two-events-3.10.log",
        ),
        silent=(
            (_LAB + "memcg.txt", "a cgroup's limit"),
            (_LAB + "numa-mempolicy.txt", "one node is full, the other free"),
            (_LAB + "global-sysrq-f.txt", "a person asked for the kill"),
            ("004-i386-highmem-mkfs-wrapped-5.7rc3.log", "low memory is full, high memory has 1 GiB free"),
            ("011-android-gki-5.10-kmsg-records-order3.log", "eight pages in a row are wanted, single ones are free"),
        ),
        lives=("workers",),
    ),
    "shmem-holds": Cases(
        speaks=(
            _LAB + "global-tmpfs-dd.txt",
            _LAB + "global-shmem.txt",
            _LAB + "memcg-tmpfs.txt",
            "115-memcg-kata-shmem-quoted-elided.log",
            "097-i386-pgd-alloc-no-table-4.8.log",
        ),
        silent=(
            (_LAB + "global.txt", "as full, of heaps"),
            (_LAB + "global-mlock.txt", "as unmovable, but a process holds it"),
        ),
        lives=("tmpfs",),
    ),
    "dirty-cache": Cases(
        speaks=(
            "009-memcg-v2-dd-mglru-wrapped-6.8.log",
            "016-memcg-v2-rsync-user-slice-arch-6.7.log",
        ),
        silent=(
            (_LAB + "memcg-tmpfs.txt", "the group wrote as much, but to a tmpfs"),
            (_LAB + "memcg.txt", "the group is as full, of heaps"),
        ),
    ),
    "kernel-memory": Cases(
        speaks=(
            _LAB + "global-sock-slab.txt",
            "captures/6.1-trace-buffer.txt",
            "038-order3-btrfs-slab-elided-6.6.log",
            "001-memcg-v1-lxc-then-global-panic-5.15.log",
        ),
        silent=(
            (_LAB + "global-mlock.txt", "unevictable, but a process holds it"),
            (_LAB + "global-tmpfs-dd.txt", "no process holds it, but it is tmpfs"),
            ("105-arch-doxygen-6.1.log", "3.1 GiB unaccounted are a fifth: worth no claim"),
        ),
        lives=("sockets",),
    ),
    "page-tables": Cases(
        speaks=("captures/6.1-page-tables.txt", "041-selftest-huge-vm-1100mib-nots.log"),
        silent=(
            ("captures/6.1-fork-storm.txt", "28 MiB of them, an eighth, for six thousand processes"),
            ("011-android-gki-5.10-kmsg-records-order3.log", "hundreds have more of them than memory, 3 MiB each"),
            ("024-memcg-v2-ppc64le-rhel10-zswap-6.12.log", "more of them than memory in RAM: the rest is in swap"),
        ),
    ),
    "many-processes": Cases(
        speaks=("captures/6.1-fork-storm.txt",),
        silent=(
            (_LAB + "global-children.txt", "seven of a name, and large"),
            ("011-android-gki-5.10-kmsg-records-order3.log", "hundreds of processes, 290 MiB of stacks, but of 11 GiB"),
            ("088-arch-teamviewerd-chrome-journal-6.0.log", "229 processes, and memory is in their heaps"),
        ),
        lives=("fork-storm",),
    ),
    "alike-hold-most": Cases(
        speaks=(
            "057-xfs-cc1plus-loglevel-wrapped-6.9.log",
            "074-rhel6-sshd-victim-java-2.6.32-431.log",
            "075-rhel6-java-self-2.6.32-431.log",
            _LAB + "global-children.txt",
        ),
        silent=(
            ("012-memcg-v1-tail-no-header-before.log", "ten of a name share what they map"),
            ("084-ubuntu1404-mysqld-python-3.13.log", "one of the five holds most alone"),
            ("088-arch-teamviewerd-chrome-journal-6.0.log", "45 of a name, with half of what they seem to hold"),
        ),
        lives=("jobs",),
    ),
    "process-grew": Cases(
        speaks=(
            _LAB + "global.txt",
            _LAB + "memcg.txt",
            "084-ubuntu1404-mysqld-python-3.13.log",
            "056-python-28gb-quoted-debian-6.11.log",
            "092-wsl2-dmesg-tail-human.log",
            "105-arch-doxygen-6.1.log",
            "119-ubuntu-bash-swap-full-grepped-4.x.log",
        ),
        silent=(
            ("057-xfs-cc1plus-loglevel-wrapped-6.9.log", "many compilers share it"),
            (_LAB + "global-tmpfs-dd.txt", "the writer of the files is tiny"),
            ("074-rhel6-sshd-victim-java-2.6.32-431.log", "the largest holds less than half"),
            ("128-memcg-k8s-selected-differs-from-killed-3.10.log", "no other process to compare it with is told"),
        ),
        lives=("contained", "contained-by-what-it-held", "jvm-heap", "node-heap"),
    ),
    "small-victim": Cases(
        speaks=(
            _LAB + "global-sysrq-f.txt",
            _LAB + "global-adj.txt",
            "068-memcg-ltp-oom03-wrapped.log",
            "088-arch-teamviewerd-chrome-journal-6.0.log",
        ),
        silent=(
            (_LAB + "global.txt", "the exempt one is tiny, the largest died"),
            (_LAB + "global-tmpfs-dd.txt", "a bystander died, but no process is large"),
            ("074-rhel6-sshd-victim-java-2.6.32-431.log", "a small child died in place of its parent: no adjustment"),
        ),
        lives=("spared-hog", "scapegoat"),
    ),
    "allocating-task": Cases(
        speaks=(_LAB + "global-allocating-task.txt", "082-rhel6-oom_kill_allocating_task-no-header.log"),
        silent=((_LAB + "global.txt", "the one that asked died, but for its size"),),
        lives=("allocating-task",),
    ),
    "why-this-one": Cases(
        speaks=(
            _LAB + "global.txt",
            _LAB + "global-sysrq-f.txt",
            _LAB + "memcg.txt",
            "088-arch-teamviewerd-chrome-journal-6.0.log",
            "077-centos7-rackspace-mysqld-two-events-3.10.log",
            "128-memcg-k8s-selected-differs-from-killed-3.10.log",
        ),
        silent=(
            (_LAB + "global-allocating-task.txt", "no score chose it"),
            (_LAB + "global-no-dump-tasks.txt", "no table tells who held what"),
        ),
    ),
    "repeat-kills": Cases(
        speaks=("captures/dmesg-docker-oom.txt", "captures/6.1-memcg-loop.txt"),
        silent=(
            ("077-centos7-rackspace-mysqld-two-events-3.10.log", "twice is no series"),
            (_LAB + "global-tmpfs-dd.txt", "three kills, of three programs"),
            (_LAB + "global-children.txt", "seven kills of one program, whose processes lived at once"),
            (_LAB + "memcg-oom-group.txt", "four died, in one kill"),
        ),
    ),
    "also-killed": Cases(
        speaks=(
            _LAB + "global-tmpfs-dd.txt",
            _LAB + "global-shmem.txt",
            _LAB + "global-children.txt",
            _LAB + "memcg-lower-max.txt",
            "043-numa-random-no-killable-panic-5.8-next.log",
        ),
        silent=(
            ("captures/6.1-memcg-loop.txt", "five kills at one limit, of a program that is started anew"),
            ("captures/dmesg-k8s-oom.txt", "two kills in two seconds, at the limits of two pods"),
            ("077-centos7-rackspace-mysqld-two-events-3.10.log", "two kills of one machine, two hours apart"),
            (_LAB + "memcg-oom-group.txt", "four died, in one kill"),
            ("001-memcg-v1-lxc-then-global-panic-5.15.log", "a kill at a limit, a quarter of a second before a panic"),
        ),
    ),
    "is-it-over": Cases(
        speaks=(
            "captures/6.1-memcg-loop.txt",
            "captures/6.1-memcg-loop-then-quiet.txt",
            "captures/6.1-memcg-then-quiet.txt",
            _LAB + "global-children.txt",
        ),
        silent=(
            (_LAB + "memcg.txt", "the log ends with the report"),
            ("084-ubuntu1404-mysqld-python-3.13.log", "three minutes of silence after one kill prove nothing"),
            ("captures/dmesg-docker-oom.txt", "a loop of two seconds, and some more behind it"),
            (_LAB + "global-sysrq-f.txt", "a person asked for the kill"),
        ),
    ),
    "swap-full": Cases(
        speaks=(
            _LAB + "global-disk-swap.txt",
            "105-arch-doxygen-6.1.log",
            "119-ubuntu-bash-swap-full-grepped-4.x.log",
        ),
        silent=(
            (_LAB + "global.txt", "no swap is not full swap"),
            ("089-debian8-sysrq-manual-oom-3.16.log", "swap has room, a person asked for the kill"),
            ("captures/6.1-memcg-swap-max.txt", "the group's swap is full, not the machine's"),
        ),
    ),
    "cgroup-swap-limit": Cases(
        speaks=(
            "captures/6.1-memcg-swap-max.txt",
            "captures/6.1-memcg-swap-none.txt",
            "104-memcg-docker-gunpowder-gentoo-4.8-b.log",
        ),
        silent=(
            (_LAB + "memcg-swap-max.txt", "it may use 16 MiB of swap, and used none: the machine has none"),
            ("captures/dmesg-docker-oom.txt", "as much swap again as memory (v1), and it used none"),
            (_LAB + "memcg.txt", "it may use all swap; the machine has none"),
            (_LAB + "global-disk-swap.txt", "the machine's swap is full"),
        ),
        lives=("cgroup-swap",),
    ),
    "cgroup-swap-unused": Cases(
        speaks=(
            _LAB + "memcg.txt",
            _LAB + "memcg-swap-max.txt",
        ),
        silent=(
            ("captures/6.1-memcg-swap-max.txt", "it used all that it may"),
            ("captures/6.1-memcg-swap-none.txt", "it may use none"),
            ("009-memcg-v2-dd-mglru-wrapped-6.8.log", "it held file cache"),
            (_LAB + "global.txt", "no limit of a group"),
        ),
        lives=("cgroup-swappiness", "cgroup-no-swap"),
    ),
    "swap-unused": Cases(
        speaks=("captures/6.12-swappiness-0.txt", "captures/7-swappiness-0.txt"),
        silent=(
            ("captures/6.12-swappiness-0-mlock.txt", "what held the memory is locked in it"),
            ("captures/6.1-swappiness-0.txt", "without the multi-generational LRU it is full when somebody dies"),
            ("011-android-gki-5.10-kmsg-records-order3.log", "pages in a row were wanted"),
            ("001-memcg-v1-lxc-then-global-panic-5.15.log", "hardly any memory that could go there"),
            ("089-debian8-sysrq-manual-oom-3.16.log", "a person asked for the kill"),
            (_LAB + "global.txt", "there is no swap"),
        ),
        lives=("swap-never",),
    ),
    "no-swap": Cases(
        speaks=(
            _LAB + "global.txt",
            "057-xfs-cc1plus-loglevel-wrapped-6.9.log",
            "077-centos7-rackspace-mysqld-two-events-3.10.log",
        ),
        silent=(
            (_LAB + "global-sock-slab.txt", "no swap either, but kernel memory cannot be swapped"),
            (_LAB + "global-mlock.txt", "no swap either, but locked memory cannot be swapped"),
            (_LAB + "numa-mempolicy.txt", "no swap either, but another node is free"),
            (_LAB + "memcg.txt", "a report of a limit does not tell"),
        ),
        lives=("swap", "swap-file"),
    ),
    "group-kill": Cases(
        speaks=(
            _LAB + "memcg-oom-group.txt",
            _LAB + "memcg-oom-group-unkillable.txt",
            _LAB + "systemd-unit-oompolicy-kill.txt",
            "114-memcg-aks-oom-group-npd.log",
        ),
        silent=(
            (_LAB + "memcg.txt", "a group at its limit, and one of it dies"),
            (_LAB + "systemd-unit-oompolicy-stop.txt", "systemd stops the rest itself, after the kill"),
            (_LAB + "global-children.txt", "seven die, one by one"),
        ),
    ),
}


@cache
def snapshot(log: str) -> Snapshot:
    """All that one log tells; or a status and a log that were given together: "STATUS + LOG"."""
    ooms: list[OomReport] = []
    failures: list[AllocationFailure] = []
    endings: list[Ending] = []
    names = log.split(" + ")
    for name in names:
        text = (LOGS / name).read_text(encoding="utf-8", errors="backslashreplace")
        for event in read_reports(text, name):
            if isinstance(event, OomReport):
                ooms.append(event)
            else:
                failures.append(event)
        endings += (replace(ending, source=name) for ending in read_endings(text))
    return Snapshot(
        ooms=tuple(ooms),
        history=tuple(map(summarise, ooms)),
        log_ends=tell([file_source(str(LOGS / names[-1]))], lambda _event: True, 1).log_ends,
        allocation_failures=tuple(failures),
        endings=tuple(endings),
    )

"""A snapshot without the names of its owner: what may be pasted into a public ticket.

Names of hosts, programs, cgroups, units, pods, containers, sources and hardware become pseudonyms, the same one
wherever the same name stands; figures, times, pids, uids, the kernel's version and its words stay. Programs that half
the world runs keep their names, since advice depends on them. It is done before any rule, so that nothing said about
the snapshot can hold what is no longer in it.
"""

import re
import shlex
from collections.abc import Callable, Iterable
from dataclasses import replace

from reprieve.model.ending import OF_A_PROCESS, Ending
from reprieve.model.finding import Gap
from reprieve.model.oom import AllocationFailure, OomReport, OomSummary
from reprieve.model.snapshot import Snapshot
from reprieve.model.workload import Workload
from reprieve.oom.nohang import FIGURES
from reprieve.oom.paths import workload
from reprieve.oom.same import NODE_AGENTS

# Words that tell nothing of their owner: the kernel's own in these lines, and programs known to all.
_KNOWN = """
    Killed killed process Process task tasks Task Tasks oom kill killer invoked memory Memory cgroup constraint score
    Node Normal Mem-Info swap pages free total kernel root init null none swapper kthreadd kswapd0 khugepaged kcompactd0
    systemd (sd-pam) systemd-journal systemd-logind systemd-udevd systemd-resolve systemd-network systemd-timesyn
    dbus-daemon dbus-broker sshd bash sh dash zsh cron crond atd agetty getty login su sudo rsyslogd syslogd auditd
    polkitd NetworkManager dhclient chronyd ntpd snapd containerd containerd-shim dockerd runc crun conmon pause kubelet
    java python python2 python3 node ruby perl php php-fpm beam.smp dotnet mysqld mariadbd postgres mongod redis-server
    memcached nginx httpd apache2 haproxy qemu-system-x86 chrome chromium firefox Xorg gnome-shell make cc1 cc1plus ld
    rustc stress stress-ng dd tar gzip rsync cp find grep vim top htop
"""
_STAY = (  # parts of a cgroup path that are the same everywhere
    r"(?:system|user|machine|app|session|background|init|kubepods(?:-burstable|-besteffort)?)\.(?:slice|scope)|"
    r"user-\d+\.slice|user@\d+\.service|session-c?\d+\.scope|kubepods|burstable|besteffort|docker|lxc|libpod_parent|"
    r"(?:lxc\.payload|lxc\.monitor|machine\.slice|system-[a-z]+\.slice|supervisor|payload)|\.\.|"
    r"reprieve-(?:run|test)-\d+-\d+-\d+-\d+(?:\.scope)?|"
)
_PSEUDONYM = (  # a container or a pod, once its number is in it
    r"(?:[a-z]+-)*\d{12}0{52}(?:\.scope)?|(?:kubepods-(?:burstable-|besteffort-)?)?pod[\d_-]{36}(?:\.slice)?"
)
_CONTAINER = r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])"
_POD = r"pod([0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32})(?![0-9a-f])"
_SLOTS = (  # where names stand in the kernel's lines, also in one that is cut before its name ends
    r"^(.{1,60}?) (?:invoked oom-killer|cpuset=)",
    r"[Cc]omm: (.{1,60}?) (?:Not tainted|Tainted|Kdump)",
    r"process \d+,?(?: UID \d+,?)? \(([^()]{1,60})",
    r"\btask=([^,]{1,60})",
    r"^\[ *\d+\](?: +-?\d+)+ +(\S.*)$",
    r"^(.{1,60}?): page allocation failure",
)
_TELLING = ("Hardware name:", "Modules linked in:")  # what the machine is made of, and for: left out whole
_OF_EVERY_MACHINE = (  # places whose names tell nothing of their owner
    r"exit status \d+|journal|/dev/kmsg|/(?:proc|sys)/.+|"
    r"/(?:var|run)/log(?:/(?:journal|kern\.log|messages|syslog)(?:[.-]\d+)?(?:\.\w+)?)?"
)
_PATHS = (
    r"(?:oom_memcg|task_memcg|cpuset)=([^,\s]+)",
    r"(?:stats for|limit of|Tasks? in) (/\S*?):?(?= killed| are going|$)",
)
# How managers begin what they say, as far as it names nobody: what follows, a command line for one, is left out whole.
# Of states and reasons the vocabularies of Docker, Podman, Kubernetes, containerd, CRI-O and systemd.
_SAYINGS = (
    r"(?:created|configured|initialized|running|paused|restarting|removing|stopping|stopped|exited|dead|died?|unknown|"
    r"(?:in)?active|(?:de)?activating|reloading|refreshing|maintenance|failed|"
    r"[Ww]aiting|Running|[Tt]erminated|Pending|Succeeded|Failed|Unknown|Guaranteed|Burstable|BestEffort|"
    r"OOMKilled|Error|Completed|ContainerCannotRun|ContainerStatusUnknown|StartError|DeadlineExceeded|Evicted|SystemOOM|"
    r"OOMKilling|CrashLoopBackOff|ContainerCreating|PodInitializing|ImagePullBackOff|ErrImagePull|InvalidImageName|"
    r"CreateContainer(?:Config)?Error|RunContainerError|combined from similar events|oom|kill|"
    r"success|exit-code|signal|core-dump|watchdog|timeout|protocol|resources|oom-kill|start-limit-hit|assert|"
    r"(?:exec-)?condition|killed by the OOM killer|failed (?:liveness|startup) probe|"
    r"killed (?:some|\d+) process\(es\) in this unit)$",
    r"(?:Pod )?The node (?:was low on resource|had condition): "
    r"(?:\[(?:(?:Memory|Disk|PID)Pressure(?:, )?)+\]|memory|ephemeral-storage|inodes|pids)",
    r"(?:badness|oom_score|oom_score_adj|VmRSS) -?\d+(?: [KMG]iB)?"  # earlyoom
    r"(?:, (?:badness|oom_score|oom_score_adj|VmRSS) -?\d+(?: [KMG]iB)?)*",
    FIGURES,  # nohang
    r"memory pressure for \S+ being [\d.]+% > [\d.]+% for > \d+(?:us|ms|s|min|h|d)"
    r"(?: \d+(?:us|ms|s|min|h|d))*(?: with reclaim activity)?",
    r"memory used \(\d+\) / total \(\d+\) and swap used \(\d+\) / total \(\d+\) being more than [\d.]+%",
    r"(?:(?:Memory cgroup o|O)ut of memory: )?Kill(?:ed)? process \d+,?(?: UID \d+,?)? \([^()]{1,60}\)"
    r"(?:,? (?:total-vm|vsz|anon-rss|file-rss|shmem-rss|UID|pgtables|oom_score_adj):-?\d+(?:kB)?)*",
)


def redact(snapshot: Snapshot, names: "Names | None" = None) -> Snapshot:
    """The same snapshot under pseudonyms: under those of `names`, where events come one snapshot at a time."""
    names = names or Names()
    return Snapshot(
        ooms=tuple(_report(names, oom) for oom in snapshot.ooms),
        history=tuple(_summary(names, summary) for summary in snapshot.history),
        log_ends=snapshot.log_ends,
        gone_groups=tuple(names.path(path) for path in snapshot.gone_groups),
        our_limits=tuple(replace(one, path=names.path(one.path)) for one in snapshot.our_limits),
        allocation_failures=tuple(_failure(names, failure) for failure in snapshot.allocation_failures),
        endings=tuple(_ending(names, ending) for ending in snapshot.endings),
        gaps=tuple(_gap(names, gap) for gap in snapshot.gaps),
    )


class Names:
    """Pseudonyms, given in the order in which names are met."""

    def __init__(self) -> None:
        self.given: dict[str, dict[str, int]] = {}
        self.known = frozenset(_KNOWN.split())

    def number(self, kind: str, name: str) -> int:
        """The same number for the same name of a kind, from 1."""
        given = self.given.setdefault(kind, {})
        return given.setdefault(name, len(given) + 1)

    def comm(self, name: str) -> str:
        return name if name in self.known or name.isdecimal() else f"process-{self.number('comm', name)}"

    def maybe_comm(self, name: str | None) -> str | None:
        return None if name is None else self.comm(name)

    def of(self, kind: str, name: str | None) -> str | None:
        return None if name is None else f"{kind}-{self.number(kind, name)}"

    def source(self, name: str) -> str:
        return name if name in ("-", "/dev/kmsg", "journal") else f"log-{self.number('source', name)}"

    def path(self, path: str) -> str:
        """A cgroup path of the same shape: what makes it a pod, a container or a unit stays."""
        return "/".join(self._part(part) for part in path.split("/"))

    def maybe_path(self, path: str | None) -> str | None:
        return None if path is None else self.path(path)

    def _part(self, part: str) -> str:
        part = re.sub(_CONTAINER, lambda match: self.container(match[0]), part)
        named = re.sub(_POD, self._pod, part)
        if re.fullmatch(_PSEUDONYM, named) or re.fullmatch(_STAY, part) or part.isdecimal():
            return named
        stem, dot, suffix = part.rpartition(".")
        if dot and suffix in ("service", "scope", "slice", "socket", "mount"):
            return f"{suffix}-{self.number(suffix, stem)}.{suffix}"
        return f"group-{self.number('group', part)}"

    def container(self, container_id: str) -> str:
        """An id of the same length."""
        return f"{self.number('container-id', container_id):012d}".ljust(64, "0")

    def pod_uid(self, uid: str) -> str:
        """A UID of the same length, with dashes."""
        return "-".join(("00000000", "0000", "0000", "0000", f"{self.number('pod-uid', uid):012d}"))

    def _pod(self, match: re.Match[str]) -> str:
        uid = self.pod_uid(match[1].replace("_", "-"))
        return "pod" + (uid.replace("-", "_") if "_" in match[1] else uid)

    def replacing(self, paths: Iterable[str], comms: Iterable[str]) -> Callable[[str], str]:
        """What replaces these names, and those of hosts, in a line, wherever one stands as a word."""
        given = {host: f"host-{number}" for host, number in self.given.get("host", {}).items()}
        given |= {path: self.path(path) for path in paths} | {comm: self.comm(comm) for comm in comms}
        changed = {name: other for name, other in given.items() if name and name != other}
        return _replacing(changed) if changed else lambda line: line


def _replacing(given: dict[str, str]) -> Callable[[str], str]:
    """Of names that begin at the same place the longest counts. Time is that of the line, however many names there are:
    an expression that names them all would try each of them at every letter.
    """
    lengths: dict[str, list[int]] = {}  # by the first letter, the longest first
    for name in sorted(given, key=len, reverse=True):
        of_letter = lengths.setdefault(name[0], [])
        if len(name) not in of_letter[-1:]:
            of_letter.append(len(name))
    begin, word = re.compile(rf"(?<!\w)[{''.join(map(re.escape, lengths))}]"), re.compile(r"\w")

    def replaced(line: str) -> str:
        told, done = [], 0
        for begun in begin.finditer(line):
            at = begun.start()
            for length in lengths[line[at]] if at >= done else ():
                other = given.get(line[at : at + length])
                if other is not None and word.match(line, at + length) is None:
                    told += [line[done:at], other]
                    done = at + length
                    break
        return "".join((*told, line[done:]))

    return replaced


def _lines(
    names: Names, lines: tuple[tuple[int, str], ...], paths: Iterable[str], comms: Iterable[str]
) -> tuple[tuple[int, str], ...]:
    """`paths` and `comms`: names that are known from elsewhere; those in the places for names are added."""
    all_paths, all_comms = dict.fromkeys(paths), dict.fromkeys(comms)  # in their order, which numbers the pseudonyms
    for _, text in lines:
        all_comms |= dict.fromkeys(match[1].strip() for slot in _SLOTS for match in re.finditer(slot, text))
        all_paths |= dict.fromkeys(match[1] for slot in _PATHS for match in re.finditer(slot, text))
    for nobodys in ("/", "(null)"):
        all_paths.pop(nobodys, None)
    replaced = names.replacing(all_paths, all_comms)
    shown = []
    for number, text in lines:
        if text.lstrip().startswith(_TELLING):
            text = f"{text.partition(':')[0]}: (left out)"
        shown.append((number, replaced(text)))
    return tuple(shown)


def _report(names: Names, oom: OomReport) -> OomReport:
    stats = oom.memcg.stats if oom.memcg else ()
    trigger = oom.trigger.comm if oom.trigger else None
    comms = (*(kill.comm for kill in oom.kills), *(task.comm for task in oom.tasks or ()), oom.selected_comm, trigger)
    groups = (oom.oom_memcg, oom.task_memcg, oom.group_path, oom.cpuset, *(stat.path for stat in stats))
    known = [comm for comm in comms if comm is not None]
    paths = [path for path in groups if path is not None and path != "/"]
    host = names.of("host", oom.host)  # before the lines, which may hold it
    lines = _lines(names, oom.lines, paths, known)
    return replace(
        oom,
        source=names.source(oom.source),
        host=host,
        boot_id=names.of("boot", oom.boot_id),
        hardware=None,
        trigger=replace(oom.trigger, comm=names.maybe_comm(oom.trigger.comm)) if oom.trigger else None,
        cpuset=names.maybe_path(oom.cpuset),
        oom_memcg=names.maybe_path(oom.oom_memcg),
        task_memcg=names.maybe_path(oom.task_memcg),
        group_path=names.maybe_path(oom.group_path),
        selected_comm=names.maybe_comm(oom.selected_comm),
        kills=tuple(replace(kill, comm=names.maybe_comm(kill.comm)) for kill in oom.kills),
        tasks=None if oom.tasks is None else tuple(replace(t, comm=names.maybe_comm(t.comm)) for t in oom.tasks),
        memcg=oom.memcg
        and replace(oom.memcg, stats=tuple(replace(stat, path=names.maybe_path(stat.path)) for stat in stats)),
        workload=_workload(names, oom.workload),
        limit_of=_workload(names, oom.limit_of),
        lines=lines,
    )


def _workload(names: Names, group: Workload | None) -> Workload | None:
    return None if group is None else workload(names.path(group.path))


def _summary(names: Names, summary: OomSummary) -> OomSummary:
    return replace(
        summary,
        source=names.source(summary.source),
        host=names.of("host", summary.host),
        boot_id=names.of("boot", summary.boot_id),
        workload=_workload(names, summary.workload),
        limit_of=_workload(names, summary.limit_of),
        victims=tuple((pid, names.maybe_comm(comm)) for pid, comm in summary.victims),
        also_in=tuple(map(names.source, summary.also_in)),
    )


def _failure(names: Names, failure: AllocationFailure) -> AllocationFailure:
    return replace(
        failure,
        source=names.source(failure.source),
        comm=names.maybe_comm(failure.comm),
        lines=_lines(names, failure.lines, (), (failure.comm,) if failure.comm else ()),
    )


def _ending(names: Names, ending: Ending) -> Ending:
    """Containers and pods have the pseudonyms of their cgroups' paths: the kernel's report of one is still its."""
    comm = ending.name if ending.manager in (*OF_A_PROCESS, *NODE_AGENTS) else None
    if ending.manager == "systemd-oomd":
        name = names.maybe_path(ending.name)
    else:
        kind = {"systemd": "unit"}.get(ending.manager, "container")
        name = names.of(kind, ending.name) if comm is None else names.comm(comm)
    return replace(
        ending,
        source=names.source(ending.source),
        name=name,
        node=names.of("host", ending.node),
        container_id=None if ending.container_id is None else names.container(ending.container_id),
        pod=names.of("pod", ending.pod),
        namespace=names.of("namespace", ending.namespace),
        pod_uid=None if ending.pod_uid is None else names.pod_uid(ending.pod_uid),
        qos=_saying(names, ending.qos),
        state=_saying(names, ending.state),
        state_reason=_saying(names, ending.state_reason, comm),
        reason=_saying(names, ending.reason),
    )


def _saying(names: Names, words: str | None, comm: str | None = None) -> str | None:
    """A manager's words, as far as they are known to name nobody; `comm`: of the process that they may be about."""
    if words is None:
        return None
    words = re.sub(r"(?<=^memory pressure for ).+(?= being )", lambda path: names.path(path[0]), words)
    ((_, words),) = _lines(names, ((0, words),), (), () if comm is None else (comm,))
    told = next(filter(None, (re.match(saying, words) for saying in _SAYINGS)), None)
    return "(left out)" if told is None else told[0]


def _gap(names: Names, gap: Gap) -> Gap:
    if re.fullmatch(_OF_EVERY_MACHINE, gap.place):
        return gap
    place = names.source(gap.place)
    return replace(
        gap,
        place=place,
        reason=gap.reason.replace(gap.place, place) if gap.place else gap.reason,
        hint=gap.hint and gap.hint.replace(shlex.quote(gap.place), place),
    )

"""Nouns of one small event, in which a stranger chose every name."""

from reprieve.model.finding import Change, Evidence, Finding, Gap, Place, Remedy, quote
from reprieve.model.oom import (
    AllocationFailure,
    Kill,
    Memcg,
    MemcgStat,
    Memory,
    OomReport,
    OomSummary,
    Stamp,
    Task,
    Trigger,
    Usage,
    Zone,
)
from reprieve.model.snapshot import Snapshot
from reprieve.model.workload import Workload

MIB = 1024 * 1024
PAGE = 4096


def event(name: str = "memhog") -> OomReport:
    """A group of 32 MiB that is full; every name in it is `name`."""
    workload = Workload(path=f"/{name}/child", kind="cgroup", name=f"/{name}/child")
    return OomReport(
        source=f"{name}.log",
        line=1,
        last_line=4,
        stamp=Stamp(uptime_s=56.3, text=f"Nov 23 {name}"),
        host=name,
        trigger=Trigger(line=1, comm=name, pid=508, order=0, gfp_flags=(name,)),
        kernel=name,
        hardware=name,
        stack=(name,),
        constraint="CONSTRAINT_MEMCG",
        cpuset=name,
        mems_allowed="0",
        oom_memcg=f"/{name}",
        task_memcg=f"/{name}/child",
        kills=(Kill(line=4, pid=508, comm=name, anon_rss_bytes=20 * MIB, file_rss_bytes=MIB),),
        tasks=(
            Task(line=2, pid=506, comm=name, rss_pages=3246, swap_pages=0, oom_score_adj=0, pgtables_bytes=61440),
            Task(line=3, pid=508, comm=name, rss_pages=5214, swap_pages=0, oom_score_adj=0, pgtables_bytes=77824),
        ),
        memory=Memory(
            line=1, zones=(Zone(line=1, name=name, node=0, free_bytes=MIB, min_bytes=2 * MIB, low_bytes=3 * MIB),)
        ),
        memcg=Memcg(
            usages=(Usage(line=1, name="memory", usage_bytes=32 * MIB, limit_bytes=32 * MIB, failcnt=7),),
            stats=(MemcgStat(line=1, path=f"/{name}", figures=(("anon", 30 * MIB), ("file", MIB), ("shmem", 4096))),),
        ),
        page_size_bytes=PAGE,
        workload=workload,
        limit_of=Workload(path=f"/{name}", kind="cgroup", name=f"/{name}"),
        missing=(f"the part that {quote(name)} hid",),
        lines=(
            (1, f"{name} invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0"),
            (2, f"[    506]     0   506     3328     3246    61440        0             0 {name}"),
            (3, f"[    508]     0   508     5376     5214    77824        0             0 {name}"),
            (4, f"Memory cgroup out of memory: Killed process 508 ({name}) total-vm:21504kB"),
        ),
    )


def finding(name: str = "memhog") -> Finding:
    """A finding about it, with a command that holds the name."""
    return Finding(
        code="cgroup-limit",
        severity="critical",
        confidence="likely",
        claim=f"{quote('/' + name)} reached its limit of 32 MiB",
        detail=(f"{quote(name)} held most of it.",),
        evidence=(Evidence(text=f"Killed process 508 ({name})", source=f"{name}.log", line=4),),
        remedies=(
            Remedy(
                title=f"Raise the limit of {quote(name)} to 48 MiB",
                cost=f"memory that {quote(name)} takes from others",
                amount="32 MiB × 1.5 = 48 MiB",
                settings=(Change(place=Place(kind="cgroup", of=name, key="memory.max"), want=name),),
                commands=(("echo", name), ("systemctl", "status", name)),
            ),
        ),
        oom=0,
    )


def summary(name: str = "memhog") -> OomSummary:
    """The event in little."""
    return OomSummary(
        source=f"{name}.log",
        line=1,
        stamp=Stamp(uptime_s=56.3, text=f"Nov 23 {name}"),
        host=name,
        scope="CONSTRAINT_MEMCG",
        workload=Workload(path=f"/{name}/child", kind="cgroup", name=f"/{name}/child"),
        limit_of=Workload(path=f"/{name}", kind="cgroup", name=f"/{name}"),
        victims=((508, name), (506, name)),
        freed_bytes=21 * MIB,
        limit_bytes=32 * MIB,
        boot_id=name,
        also_in=(name,),
    )


def snapshot(name: str = "memhog") -> Snapshot:
    """All of it."""
    return Snapshot(
        ooms=(event(name),),
        history=(summary(name), summary(name)),
        allocation_failures=(AllocationFailure(source=f"{name}.log", line=9, comm=name, order=4),),
        gaps=(Gap(place=f"/var/log/{name}", reason=f"{quote(name)} may not be read", hint="ask root"),),
    )

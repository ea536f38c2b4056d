"""Whatever a machine looks like: no amount that is advised is silly. Machines made up from figures alone."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from reprieve.model.application import Jvm, NodeJs, Postgres, Redis
from reprieve.model.cgroup import Cgroup, Limit
from reprieve.model.finding import Finding, Remedy
from reprieve.model.machine import HugePool, Machine, SwapArea, Tmpfs
from reprieve.model.process import Process
from reprieve.model.rootfs import RootFs
from reprieve.model.snapshot import Snapshot
from reprieve.rules.living import check

MIB, GIB = 1 << 20, 1 << 30
DOCKER, POD = "a" * 64, "/kubepods.slice/kubepods-pod11111111_2222_3333_4444_555555555555.slice"
LIBPOD = f"/machine.slice/libpod-{'c' * 64}.scope"
TREE = (  # parents first
    *("/", "/a.slice", "/a.slice/web.service", "/batch", "/batch/jobs", "/lone.service", "/system.slice"),
    *(f"/system.slice/docker-{DOCKER}.scope", f"/system.slice/docker-{DOCKER}.scope/inner", "/machine.slice"),
    *(LIBPOD, f"{LIBPOD}/container", "/kubepods.slice", POD, f"{POD}/cri-containerd-{'b' * 64}.scope"),
)
SIZES = st.one_of(st.integers(0, 32 * GIB), st.integers(1, 512).map(lambda count: count * 64 * MIB))
SMALL = st.one_of(st.integers(1, 4 * GIB), st.integers(1, 64).map(lambda count: count * 64 * MIB))
LIMITS: st.SearchStrategy[Limit] = st.one_of(st.just("max"), SIZES)


@st.composite
def machines(draw: st.DrawFn) -> Machine:
    ram = draw(st.sampled_from([256 * MIB, 2 * GIB, 8 * GIB, 32 * GIB]))
    version = draw(st.sampled_from([1, 2]))
    swap = draw(st.sampled_from([0, 64 * MIB, 8 * GIB]))

    def up_to(most: int) -> int:
        return draw(st.one_of(st.integers(0, most), st.just(most), st.just(most * 19 // 20)))

    paths = draw(st.lists(st.sampled_from(TREE), unique=True, max_size=6))
    groups = tuple(group(draw, path, version, ram) for path in sorted(paths, key=TREE.index))
    scope = next((one for one in groups if one.path == LIBPOD), None)  # crun repeats its limits in it
    groups = tuple(replace(scope, path=one.path) if scope and one.path.startswith(LIBPOD) else one for one in groups)
    homes = st.sampled_from([*paths, "/none"])
    processes = tuple(process(draw, pid, draw(homes), ram, swap) for pid in range(2, 2 + draw(st.integers(0, 4))))
    figures = {
        "MemTotal": ram,
        "MemAvailable": up_to(ram),
        "SwapTotal": swap,
        "SwapFree": up_to(swap),
        **{name: up_to(ram) for name in ("AnonPages", "Shmem", "SUnreclaim", "Unevictable")},
        "CommitLimit": draw(SIZES),
        "Committed_AS": draw(SIZES),
    }
    free = draw(st.integers(0, 40))
    pool = HugePool(
        page_bytes=2 * MIB, total=draw(st.integers(0, 80)), free=free, reserved=draw(st.sampled_from([None, 0, free]))
    )
    root = RootFs(
        kind=draw(st.sampled_from(["ext4", "xfs", "btrfs", "overlay", "nfs"])),
        read_only=draw(st.booleans()),
        size_bytes=20 * GIB,
        free_bytes=up_to(20 * GIB),
    )
    numbers = {"vm.overcommit_memory": (0, 1, 2), "vm.overcommit_ratio": (0, 50, 100), "vm.swappiness": (0, 60)}
    areas = (
        SwapArea(
            name=draw(st.sampled_from(["/dev/zram0", "/swapfile.reprieve"])),
            kind="file",
            size_bytes=swap,
            used_bytes=0,
            priority=0,
        ),
    )
    return Machine(
        page_bytes=4096,
        meminfo=tuple((name, figure) for name, figure in figures.items() if draw(st.integers(0, 19))),
        sysctls=tuple((name, str(draw(st.sampled_from(values)))) for name, values in numbers.items()),
        huge_pools=(pool,),
        tmpfs=(Tmpfs(path="/dev/shm", size_bytes=ram, used_bytes=up_to(ram)),),
        swaps=areas if swap else (),
        root=draw(st.sampled_from([None, root])),
        cgroup_version=str(version),
        cgroups=groups,
        processes=processes,
        redis=tuple(redis(draw, one) for one in processes if draw(st.booleans())),
        postgres=tuple(postgres(draw, one) for one in processes if draw(st.booleans())),
        jvms=tuple(Jvm(pid=one.pid, start_ticks=1, max_heap_size_bytes=draw(SMALL)) for one in processes[:1]),
        nodes_js=tuple(
            NodeJs(pid=one.pid, start_ticks=1, max_old_space_size_bytes=draw(SMALL)) for one in processes[1:2]
        ),
    )


def group(draw: st.DrawFn, path: str, version: int, ram: int) -> Cgroup:
    most: Limit = draw(LIMITS)
    top = most if isinstance(most, int) else ram
    current = draw(st.one_of(st.integers(0, top), st.just(top), st.just(top * 9 // 10)))
    cache = draw(st.sampled_from([0, current // 3]))
    prefix = "total_" if version == 1 else ""
    both = draw(st.integers(0, 8 * GIB)) + top if isinstance(most, int) and draw(st.booleans()) else "max"
    return Cgroup(
        path=path,
        version=version,
        current_bytes=current,
        peak_bytes=draw(st.one_of(st.none(), st.integers(0, top))),
        max_bytes=most,
        high_bytes=draw(st.sampled_from(["max", current])) if version == 2 else None,
        swap_max_bytes=draw(st.sampled_from(["max", 0, GIB])) if version == 2 else None,
        swap_current_bytes=draw(st.sampled_from([0, 64 * MIB])),
        memsw_max_bytes=both if version == 1 else None,  # type: ignore[arg-type]
        memsw_current_bytes=current if version == 1 else None,
        stat=((f"{prefix}inactive_file", cache), (f"{prefix}active_file", 0)),
    )


def process(draw: st.DrawFn, pid: int, home: str, ram: int, swap: int) -> Process:
    held = draw(st.one_of(st.integers(0, ram), st.just(ram * 9 // 10)))
    return Process(
        pid=pid,
        start_ticks=1,
        ppid=draw(st.sampled_from([1, 2])),
        comm="worker",
        uid=0,
        threads=4,
        oom_score_adj=draw(st.sampled_from([-1000, 0, 300])),
        rss_bytes=held,
        rss_anon_bytes=held,
        unique_bytes=draw(st.sampled_from([None, held])),
        swap_bytes=draw(st.integers(0, swap)),
        cgroup=home,
    )


def redis(draw: st.DrawFn, own: Process) -> Redis:
    return Redis(
        pid=own.pid,
        start_ticks=1,
        maxmemory_bytes=draw(st.one_of(st.just(0), SMALL)),
        maxmemory_policy=draw(st.sampled_from([None, "noeviction", "allkeys-lru"])),
        save=draw(st.sampled_from(["", "60 1"])),
        appendonly=draw(st.booleans()),
        replicas=draw(st.sampled_from([None, 2])),
        used_memory_bytes=draw(st.one_of(st.none(), st.integers(0, (own.rss_bytes or 0) + (own.swap_bytes or 0)))),
        origins=(("maxmemory", "itself"),),
    )


def postgres(draw: st.DrawFn, own: Process) -> Postgres:
    return Postgres(
        pid=own.pid,
        start_ticks=1,
        shared_buffers_bytes=draw(SMALL),
        work_mem_bytes=draw(st.integers(64 << 10, GIB)),
        maintenance_work_mem_bytes=draw(SMALL),
        max_connections=draw(st.integers(1, 500)),
        max_parallel_workers=draw(st.integers(0, 16)),
        origins=(("work_mem", "postgresql.conf:1"),),
    )


# -- what is advised, as numbers ---------------------------------------------------------------------------------------


def limits(remedy: Remedy) -> Iterator[tuple[str, str, int]]:
    """What is to be limited (the end of a path of a group, or all of it), by which file, to how many bytes."""
    for argv in remedy.commands:
        line = shlex.join(argv)
        if match := re.search(r"set-property (?:--runtime )?-- (\S+) Memory(Max|High)=(\d+)M", line):
            yield f"/{match[1]}", f"memory.{match[2].lower()}", int(match[3]) * MIB
        if match := re.search(r"update --memory (\d+)(m|b) --memory-swap (\S+) (\w+)$", line):
            yield match[4], "memory.max", int(match[1]) * {"m": MIB, "b": 1}[match[2]]
        if match := re.search(r"echo (\d+) > .* /sys/fs/cgroup(?:/memory)?(/.*)/(memory\.\w+)$", line.replace("'", "")):
            yield match[2], match[3].replace("limit_in_bytes", "max"), int(match[1])
        if argv[-1].startswith("--limits") or "--limits" in argv:
            yield "cri-containerd", "memory.max", int(re.sub(r"\D", "", argv[argv.index("--limits") + 1])) * MIB


def whose(machine: Machine, name: str) -> Cgroup:
    found = [one for one in machine.cgroups if one.path == name]
    found = found or [one for one in machine.cgroups if one.path.endswith(name) or f"-{name}." in one.path]
    found = found or [one for one in machine.cgroups if name in one.path]
    return found[-1] if name == "cri-containerd" else found[0]


def around(machine: Machine, one: Cgroup) -> list[int]:
    """The limits of the groups it is in, but of those that have its own."""
    follows = (POD,) if one.path.startswith(POD) else (LIBPOD,) if one.path.startswith(LIBPOD) else ()
    above = [
        group
        for group in machine.cgroups
        if one.path != group.path and one.path.startswith(f"{group.path.rstrip('/')}/")
    ]
    return [group.max_bytes for group in above if isinstance(group.max_bytes, int) and group.path not in follows]


def bounds(machine: Machine, path: str) -> list[int]:
    """The limits that a process lives under; of a group that is not told it is not known which is around it."""
    if path not in {one.path for one in machine.cgroups}:
        return []
    return [number(one.max_bytes) for one in machine.cgroups if f"{path}/".startswith(f"{one.path.rstrip('/')}/")]


def number(limit: object) -> int:
    return limit if isinstance(limit, int) else 1 << 62


def check_limits(machine: Machine, remedy: Remedy) -> None:
    figures = dict(machine.meminfo)
    for name, file, count in limits(remedy):
        one = whose(machine, name)
        assert one.path != "/kubepods.slice"
        if file == "memory.memsw.max":
            assert count > number(one.memsw_max_bytes) or "Lower" in remedy.title
            continue
        present = number(one.high_bytes if file == "memory.high" else one.max_bytes)
        if remedy.title.startswith("Lower"):
            assert number(one.current_bytes) <= count < present
            continue
        assert remedy.title.startswith("Raise"), remedy.title
        assert present < count <= min(figures["MemTotal"], *around(machine, one), 1 << 62)
        assert file == "memory.max" or count <= number(one.max_bytes)


def check_application(machine: Machine, finding: Finding, remedy: Remedy) -> None:
    ram = dict(machine.meminfo).get("MemTotal", 0)
    pid = re.search(r"\(pid (\d+)\)", finding.claim)
    for argv in remedy.commands:
        line = " ".join(argv)
        if match := re.search(r"CONFIG SET maxmemory (-?\d+)mb$", line):
            server = next(one for one in machine.redis if pid and one.pid == int(pid[1]))
            process = next(one for one in machine.processes if one.pid == server.pid)
            held = server.used_memory_bytes
            if held is None:
                held = (process.rss_bytes or 0) + (process.swap_bytes or 0)
            assert held <= int(match[1]) * MIB <= min([ram, *bounds(machine, process.cgroup or "/")])
        if argv[0] == "psql":
            server_ = next(one for one in machine.postgres if pid and one.pid == int(pid[1]))
            told = re.findall(r"ALTER SYSTEM SET (\w+) = '(\d+)(\w*)'", line)
            assert told, line
            for name, value, unit in told:
                most = number(getattr(server_, name if name == "max_connections" else f"{name}_bytes"))
                assert 0 < int(value) * {"": 1, "kB": 1024, "MB": MIB}[unit] < most, (name, value, most)
    if match := re.search(r"-Xmx(\d+)m|--max-old-space-size=(\d+)", remedy.title):
        heaps = {one.pid: one.max_heap_size_bytes for one in machine.jvms}
        heaps |= {one.pid: one.max_old_space_size_bytes for one in machine.nodes_js}
        assert pid
        assert 16 * MIB <= int(match[1] or match[2]) * MIB < number(heaps[int(pid[1])])


def check_machine(machine: Machine, remedy: Remedy) -> None:
    figures, numbers = dict(machine.meminfo), dict(machine.sysctls)
    for argv in remedy.commands:
        line = " ".join(argv)
        if match := re.search(r"^systemd-run .*MemoryMax=(\d+)M", line):
            assert 16 * MIB <= int(match[1]) * MIB < figures["MemTotal"]
        if match := re.search(r"vm.overcommit_ratio=(\d+)", line):
            assert int(match[1]) > int(numbers["vm.overcommit_ratio"])
        if match := re.search(r"echo (-?\d+) > .*nr_hugepages", line):
            (pool,) = machine.huge_pools
            assert (pool.total or 0) - (pool.free or 0) <= int(match[1]) < (pool.total or 0)
        if match := re.search(r"count=(\d+)$|--size (\d+)M", line):
            made = int(match[1] or match[2]) * MIB
            assert made >= 64 * MIB
            assert machine.root is None or made <= number(machine.root.free_bytes)
        if "zramctl" in line:
            assert 0 < int(argv[-1]) * MIB <= figures["MemTotal"]
        if match := re.search(r"remount,size=(\d+)m", line):
            assert int(match[1]) * MIB >= (machine.tmpfs[0].used_bytes or 0)


def check_growth(machine: Machine, finding: Finding, remedy: Remedy) -> None:
    """What is to grow no more is not bounded above its present bound."""
    if not remedy.title.startswith("Let it grow no more: set maxmemory"):
        return
    (most,) = re.findall(r"CONFIG SET maxmemory (\d+)mb", " ".join(remedy.commands[0]))
    pid = re.search(r"\(pid (\d+)\)", finding.claim)
    assert pid
    (own,) = (one for one in machine.redis if one.pid == int(pid[1]))
    assert not own.maxmemory_bytes or int(most) * MIB < own.maxmemory_bytes


@settings(max_examples=600, deadline=None)
@given(machine=machines())
def test_no_amount_that_is_advised_is_silly(machine: Machine) -> None:
    for finding in check(Snapshot(machine=machine), share=0.5):
        for remedy in finding.remedies:
            said = f"{remedy.title} {remedy.amount}"
            assert not re.search(r"[-−][0-9.]+ (?:B|[KMGT]iB|%)|(?:to|keep) 0 B|None [MG]iB", said), said
            assert not re.search(r", set(?: ,|$)", remedy.title), said
            check_limits(machine, remedy)
            check_application(machine, finding, remedy)
            check_machine(machine, remedy)
            check_growth(machine, finding, remedy)


def test_redis_is_told_to_grow_no_more_only_where_that_is_below_its_bound() -> None:
    own = Process(pid=7, start_ticks=1, ppid=1, comm="redis-server", rss_bytes=5 * GIB, unique_bytes=5 * GIB)
    figures = (("MemTotal", 8 * GIB), ("MemAvailable", GIB), ("SwapTotal", 0))
    for maxmemory, advised in ((5 * GIB, False), (5376 * MIB, False), (5377 * MIB, True)):  # 5 GiB + 5 % are 5376 MiB
        server = Redis(
            pid=7, start_ticks=1, used_memory_bytes=5 * GIB, maxmemory_bytes=maxmemory, save="3600 1", replicas=0
        )
        machine = Machine(meminfo=figures, cgroup_version="2", processes=(own,), redis=(server,))
        (finding,) = (one for one in check(Snapshot(machine=machine)) if one.code == "redis-exceeds-limit")
        assert any(remedy.title.startswith("Let it grow no more") for remedy in finding.remedies) is advised
        for remedy in finding.remedies:
            check_growth(machine, finding, remedy)


def test_a_machine_without_figures_is_advised_nothing() -> None:
    assert check(Snapshot(machine=replace(Machine(), cgroups=()))) == []

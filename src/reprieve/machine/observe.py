"""A whole machine, read once: all readers on one `Host`."""

import os
import re
import time
from math import inf

from reprieve.machine.cgroup import read_cgroups, read_hierarchy
from reprieve.machine.containers import read_containers
from reprieve.machine.cri import read_cri
from reprieve.machine.host import Host, identify
from reprieve.machine.jvm import read_jvms
from reprieve.machine.killers import read_killers
from reprieve.machine.memory import (
    read_meminfo,
    read_mounts,
    read_nodes,
    read_pressure,
    read_root,
    read_swaps,
    read_sysctls,
    read_tmpfs,
    read_vmstat,
    read_zones,
    tell_odd,
)
from reprieve.machine.mm import note_shared_memory
from reprieve.machine.nodejs import read_nodes_js
from reprieve.machine.numa import note_policies
from reprieve.machine.postgres import read_postgres
from reprieve.machine.proc import measure_unique, read_processes
from reprieve.machine.redis import read_redis
from reprieve.machine.shm import find_largest, read_segments
from reprieve.machine.sysfs import read_huge_pools, read_settings, read_zram
from reprieve.machine.systemd import read_units
from reprieve.model.finding import Gap
from reprieve.model.machine import Figures, LiveZone, Machine


def observe(host: Host, gaps: list[Gap], *, unique_s: float = 0.1) -> Machine:
    """The machine now, or as it was captured, as far as it can be seen from here; what cannot is told in `gaps`.

    `unique_s` is the time to spend on measuring what belongs to single processes alone; to read a capture costs nobody.
    """
    told: list[Gap] = []
    unique_s = inf if host.root else unique_s
    identity = identify(host.root)
    meminfo, zones = read_meminfo(host, told), read_zones(host, told)
    page_bytes = _page_bytes(host, meminfo, zones)
    processes = read_processes(host, told, page_bytes=page_bytes)
    nodes = read_nodes(host, told)
    noted = note_shared_memory(host, processes)
    noted = note_policies(host, noted, told) if len(nodes) > 1 else noted
    measured = measure_unique(host, noted, told, budget_s=unique_s)
    hierarchy = read_hierarchy(host, told)
    cgroups = () if hierarchy is None else read_cgroups(host, told, hierarchy)
    homes = [process.cgroup or "/" for process in processes]
    paths = [group.path for group in cgroups] + homes
    uptime_s = _uptime_s(host, told)
    machine = Machine(
        machine_id=_identifier(told, "/etc/machine-id", identity.machine_id),
        boot_id=_identifier(told, "/proc/sys/kernel/random/boot_id", identity.boot_id),
        hostname=identity.hostname,
        kernel=(host.text("/proc/sys/kernel/osrelease", told) or "").strip() or None,
        taken_wall_s=_wall_s(host, told, uptime_s),
        taken_uptime_s=uptime_s,
        page_bytes=page_bytes,
        cpus=_cpus(host, told),
        meminfo=meminfo,
        vmstat=read_vmstat(host, told),
        pressure=read_pressure(host, told),
        swaps=read_swaps(host, told),
        zones=zones,
        nodes=nodes,
        huge_pools=read_huge_pools(host, told),
        zram=read_zram(host, told),
        root=read_root(host, told),
        segments=read_segments(host, told),
        tmpfs=find_largest(host, told, read_tmpfs(host, told), {mount.path for mount in read_mounts(host, told)}),
        sysctls=read_sysctls(host, told),
        settings=read_settings(host, told),
        cgroup_version=None if hierarchy is None else hierarchy.version,
        cgroup_private=None if hierarchy is None else hierarchy.private,
        cgroups=cgroups,
        containers=((() if host.root else read_containers(paths, told)) + read_cri(host, paths, told)),
        units=read_units(host, told, homes),
        killers=read_killers(host, processes, dict(meminfo).get("MemTotal"), dict(meminfo).get("SwapTotal"), told),
        processes=tuple(sorted(measured, key=lambda one: one.pid)),
        jvms=read_jvms(host, told, processes),
        nodes_js=read_nodes_js(host, told, processes),
        postgres=read_postgres(host, told, processes),
        redis=read_redis(host, told, processes),
    )
    _tell_view(machine, told)
    _tell_absent(machine, told)
    gaps += dict.fromkeys(told)  # mounts are asked for more than once
    return machine


def _tell_view(machine: Machine, gaps: list[Gap]) -> None:
    """Say that it is a container's view, where it is one: nothing that is beyond it was refused, it just is not there.

    Threads of the kernel are in the first pid namespace alone; hidepid, which hides them too, is told by itself.
    """
    reason, hint = "a container's view: what is outside it is not seen", "run it on the host"
    if machine.cgroup_private:
        gaps.append(Gap(place="cgroups", reason=reason, hint=hint))
    hidden = any(gap.place == "/proc" for gap in gaps)
    if machine.processes and not hidden and not any(process.kernel_thread for process in machine.processes):
        gaps.append(Gap(place="processes", reason=reason, hint=hint))


def _tell_absent(machine: Machine, gaps: list[Gap]) -> None:
    """What every Linux has is not there: this is not all of one, as a sosreport is not."""
    for place, facts in (
        ("/proc/meminfo", machine.meminfo),
        ("/proc/vmstat", machine.vmstat),
        ("/proc/zoneinfo", machine.zones),
        ("/proc/sys/vm", machine.sysctls),
        ("processes", machine.processes),
    ):
        if not facts and not any(gap.place.startswith(place) for gap in gaps):
            gaps.append(Gap(place=place, reason="none of it is there, though every Linux has it"))


def _identifier(gaps: list[Gap], path: str, told: str | None) -> str | None:
    if told is None or re.fullmatch(r"[0-9a-f]{32}", told):
        return told
    if told != "uninitialized":  # machine-id(5): an image that was not booted yet
        gaps.append(Gap(place=path, reason="it is no identifier of 32 hexadecimal digits"))
    return None


def _page_bytes(host: Host, meminfo: Figures, zones: tuple[LiveZone, ...]) -> int | None:
    """Of a captured machine no file tells: MemTotal is what its zones manage (adjust_managed_page_count() in mm/)."""
    if not host.root:
        return os.sysconf("SC_PAGE_SIZE")
    managed = sum(zone.managed_pages or 0 for zone in zones)
    size, rest = divmod(dict(meminfo).get("MemTotal", 0), managed or 1)
    return size if rest == 0 and size >= 4096 and size & (size - 1) == 0 else None


def _uptime_s(host: Host, gaps: list[Gap]) -> float | None:
    text = host.text("/proc/uptime", gaps)
    match = re.fullmatch(r"([0-9]{1,10}\.[0-9]{2}) [0-9]{1,15}\.[0-9]{2}\n", text or "")
    tell_odd(gaps, "/proc/uptime", int(text is not None and match is None))
    return float(match[1]) if match else None


def _wall_s(host: Host, gaps: list[Gap], uptime_s: float | None) -> float | None:
    """The time of the machine: a captured one tells, to a second, when it was booted."""
    if not host.root:
        return time.time()
    text = host.text("/proc/stat", gaps)
    booted = re.search(r"^btime ([0-9]{1,12})$", text or "", re.MULTILINE)
    tell_odd(gaps, "/proc/stat", int(text is not None and booted is None))
    return None if booted is None or uptime_s is None else int(booted[1]) + uptime_s


def _cpus(host: Host, gaps: list[Gap]) -> int | None:
    """How many are in a list as the kernel writes it: "0-3,8"."""
    path = "/sys/devices/system/cpu/possible"
    text = host.text(path, gaps)
    if text is None:
        return None
    ranges = [re.fullmatch(r"([0-9]{1,6})(?:-([0-9]{1,6}))?", part) for part in text.removesuffix("\n").split(",")]
    counts = [int(match[2] or match[1]) - int(match[1]) + 1 for match in ranges if match]
    if len(counts) < len(ranges) or min(counts) < 1:
        tell_odd(gaps, path, 1)
        return None
    return sum(counts)

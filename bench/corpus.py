"""The logs that are measured on: made from templates and a seed, the same bytes every time (`corpus.py --help`).

Between the reports stand eighteen kinds of ordinary syslog line and five that look like an OOM kill and are none
(`room`, `zoom`, `bloom`, `killed process group leader`, `reason=OOMKilled`): in 1 GB some 2 100 of them, beside the
reports' own lines, are what `grep -i "oom\\|killed process\\|out of memory"` prints.
"""

from __future__ import annotations

import argparse
import random
from datetime import datetime, timedelta
from typing import BinaryIO

_SEED = 20260
_BEGIN = datetime(2026, 3, 1, 0, 0, 0)
_HOST = "node7"
_LINES_PER_SECOND = 24  # written in one go: what makes a gigabyte in seconds rather than minutes

_ORDINARY = (
    "kernel: [{up}] [UFW BLOCK] IN=eth0 OUT= MAC=02:42:{h2}:{h2}:00:01 SRC=203.0.113.{b} DST=10.4.{b}.{b} LEN=40 "
    "TOS=0x00 PREC=0x00 TTL=242 ID={w} PROTO=TCP SPT={w} DPT={w} WINDOW=1024 RES=0x00 SYN URGP=0",
    "kernel: [{up}] docker0: port {n}(veth{h6}) entered forwarding state",
    "kernel: [{up}] EXT4-fs (nvme{n}n1p1): mounted filesystem with ordered data mode. Opts: (null)",
    "kernel: [{up}] perf: interrupt took too long ({w} > {w}), lowering kernel.perf_event_max_sample_rate to {w}",
    "sshd[{w}]: Failed password for invalid user admin{b} from 198.51.100.{b} port {w} ssh2",
    "sshd[{w}]: Connection closed by authenticating user root 198.51.100.{b} port {w} [preauth]",
    "sshd[{w}]: pam_unix(sshd:session): session opened for user deploy by (uid=0)",
    "systemd[1]: Started Session {w} of user deploy.",
    "systemd[1]: run-docker-runtime\\x2drunc-moby-{h6}{h6}-runc.{h6}.mount: Succeeded.",
    "systemd[1]: apt-daily.service: Consumed {b}.{n}s CPU time.",
    'kubelet[{w}]: I0301 12:{m}:{m}.{w} {w} kubelet.go:{w}] "SyncLoop (PLEG): event for pod" '
    'pod="shop/checkout-{h6}-{h4}" event=&{{ID:{h6}{h6} Type:ContainerStarted Data:{h6}{h6}}}',
    'kubelet[{w}]: E0301 12:{m}:{m}.{w} {w} pod_workers.go:{w}] "Error syncing pod, skipping" err="failed to pull '
    'image: rpc error: code = Unknown" pod="shop/search-{h6}-{h4}"',
    'nginx[{w}]: 10.4.{b}.{b} - - [01/Mar/2026:12:{m}:{m} +0000] "GET /api/v1/items/{w}?page={b} HTTP/1.1" 200 {w} '
    '"-" "Mozilla/5.0 (X11; Linux x86_64)" 0.{b}',
    'nginx[{w}]: 10.4.{b}.{b} - - [01/Mar/2026:12:{m}:{m} +0000] "POST /login HTTP/1.1" 302 {b} "-" "curl/8.5.0" 0.{b}',
    "postgres[{w}]: [{b}-1] LOG:  checkpoint complete: wrote {w} buffers ({n}.{n}%); 0 WAL file(s) added, 0 removed, "
    "{n} recycled; write={w}.{b} s, sync=0.{b} s, total={w}.{b} s",
    "postgres[{w}]: [{b}-1] LOG:  duration: {w}.{b} ms  statement: SELECT id, state FROM orders WHERE customer = {w}",
    "java[{w}]: 12:{m}:{m}.{b} INFO  [http-nio-8080-exec-{n}] c.e.shop.CartService - cart {h6}{h6} priced in {b} ms",
    'node[{w}]: {{"level":30,"time":17{w}{w},"pid":{w},"hostname":"web-{n}","msg":"request completed",'
    '"responseTime":{b}}}',
)
_DECOYS = (
    "java[{w}]: 12:{m}:{m}.{b} INFO  [main] c.e.meet.Lobby - room {w} opened for {n} guests",
    'node[{w}]: {{"level":30,"pid":{w},"msg":"zoom level {n} for tile {w}"}}',
    "postgres[{w}]: [{b}-1] LOG:  bloom index scan on items took {b} ms",
    "supervisord[{w}]: killed process group leader {w} of worker-{n}",
    "kubelet[{w}]: I0301 12:{m}:{m}.{w} {w} status_manager.go:{w}] pod shop/cart-{h6} terminated reason=OOMKilled",
)
_DECOYS_PER_GB = 2128

_TRACE = """\
CPU: {cpu} PID: {pid} Comm: {comm} Not tainted 6.1.0-18-amd64 #1  Debian 6.1.76-1
Hardware name: Example Cloud Compute/Board, BIOS 1.16.2 04/01/2024
Call Trace:
 <TASK>
 dump_stack_lvl+0x44/0x5c
 dump_header+0x4a/0x211
 oom_kill_process.cold+0xb/0x10
 out_of_memory+0x1fd/0x4c0
{path}
 __alloc_pages+0x30b/0x330
 folio_alloc+0x17/0x50
 __filemap_get_folio+0x155/0x340
 filemap_fault+0x139/0x910
 __do_fault+0x31/0x80
 do_fault+0x1b9/0x410
 __handle_mm_fault+0x660/0xfa0
 handle_mm_fault+0xdb/0x2d0
 do_user_addr_fault+0x19c/0x570
 exc_page_fault+0x70/0x170
 asm_exc_page_fault+0x22/0x30
RIP: 0033:0x7f{addr}
Code: Unable to access opcode bytes at 0x7f{addr}.
RSP: 002b:00007ffd{addr} EFLAGS: 00010246
RAX: 0000000000000000 RBX: 00005581{addr} RCX: 00007f{addr}
RDX: 0000000000000001 RSI: 0000000000001000 RDI: 0000000000000000
 </TASK>
"""
_GLOBAL = """\
Mem-Info:
active_anon:{shmem} inactive_anon:{anon} isolated_anon:0
 active_file:312 inactive_file:407 isolated_file:0
 unevictable:768 dirty:0 writeback:0
 slab_reclaimable:9034 slab_unreclaimable:16772
 mapped:1190 shmem:{shmem} pagetables:6011
 sec_pagetables:0 bounce:0
 kernel_misc_reclaimable:0
 free:21201 free_pcp:63 free_cma:0
Node 0 active_anon:{shmem4}kB inactive_anon:{anon4}kB active_file:1248kB inactive_file:1628kB unevictable:3072kB \
isolated(anon):0kB isolated(file):0kB mapped:4760kB dirty:0kB writeback:0kB shmem:{shmem4}kB shmem_thp: 0kB \
shmem_pmdmapped: 0kB anon_thp: 2048kB writeback_tmp:0kB kernel_stack:5120kB pagetables:24044kB sec_pagetables:0kB \
all_unreclaimable? no
Node 0 DMA free:14336kB boost:0kB min:128kB low:160kB high:192kB reserved_highatomic:0KB active_anon:0kB \
inactive_anon:0kB active_file:0kB inactive_file:0kB unevictable:0kB writepending:0kB present:15992kB managed:15360kB \
mlocked:0kB bounce:0kB free_pcp:0kB local_pcp:0kB free_cma:0kB
lowmem_reserve[]: 0 2911 7848 7848 7848
Node 0 DMA32 free:44288kB boost:0kB min:25036kB low:31292kB high:37548kB reserved_highatomic:0KB active_anon:1024kB \
inactive_anon:2840576kB active_file:128kB inactive_file:512kB unevictable:0kB writepending:0kB present:3129332kB \
managed:3063796kB mlocked:0kB bounce:0kB free_pcp:252kB local_pcp:0kB free_cma:0kB
lowmem_reserve[]: 0 0 4936 4936 4936
Node 0 Normal free:26180kB boost:0kB min:42464kB low:53080kB high:63696kB reserved_highatomic:0KB active_anon:3072kB \
inactive_anon:4712448kB active_file:1120kB inactive_file:1116kB unevictable:3072kB writepending:0kB present:5242880kB \
managed:5054464kB mlocked:3072kB bounce:0kB free_pcp:0kB local_pcp:0kB free_cma:0kB
lowmem_reserve[]: 0 0 0 0 0
Node 0 DMA: 0*4kB 0*8kB 0*16kB 0*32kB 0*64kB 0*128kB 0*256kB 0*512kB 2*1024kB (UM) 2*2048kB (M) 2*4096kB (M) = 14336kB
Node 0 DMA32: 608*4kB (UME) 544*8kB (UME) 320*16kB (UME) 192*32kB (UME) 96*64kB (UME) 32*128kB (UM) 16*256kB (UM) \
8*512kB (M) 8*1024kB (M) 0*2048kB 0*4096kB = 44672kB
Node 0 Normal: 1025*4kB (UME) 506*8kB (UE) 320*16kB (UE) 214*32kB (UE) 96*64kB (UE) 0*128kB 0*256kB 0*512kB 0*1024kB \
0*2048kB 0*4096kB = 26260kB
Node 0 hugepages_total=0 hugepages_free=0 hugepages_surp=0 hugepages_size=1048576kB
Node 0 hugepages_total=0 hugepages_free=0 hugepages_surp=0 hugepages_size=2048kB
4096 total pagecache pages
0 pages in swap cache
Free swap  = 0kB
Total swap = 0kB
2097051 pages RAM
0 pages HighMem/MovableOnly
63646 pages reserved
0 pages hwpoisoned
"""
_MEMCG = """\
memory: usage {limit}kB, limit {limit}kB, failcnt {failcnt}
swap: usage 0kB, limit 0kB, failcnt 0
Memory cgroup stats for {group}:
anon {anon_bytes}
file 4096000
kernel 6291456
kernel_stack 1048576
pagetables 2097152
sec_pagetables 0
percpu 28672
sock 0
vmalloc 24576
shmem 1351680
file_mapped 1351680
file_dirty 0
file_writeback 0
swapcached 0
anon_thp 0
file_thp 0
shmem_thp 0
inactive_anon {anon_bytes}
active_anon 1396736
inactive_file 1806336
active_file 937984
unevictable 0
slab_reclaimable 1105920
slab_unreclaimable 1662976
slab 2768896
workingset_refault_anon 0
workingset_refault_file {failcnt}
workingset_activate_anon 0
workingset_activate_file 4012
pgfault 1894211
pgmajfault 9917
pgrefill 60211
pgscan 911045
pgsteal 604410
"""
_COMMS = (
    "java", "node", "python3", "postgres", "nginx", "php-fpm8.2", "containerd-shim", "tmux: server", "runc:[2:INIT]",
    "(sd-pam)", "kube-proxy", "redis-server", "gunicorn", "ruby", "prometheus", "dockerd", "mysqld", "beam.smp",
)  # fmt: skip


def report_lines(chance: random.Random, *, rows: int, memcg: bool) -> list[str]:
    """One report as Linux 6.1 prints it, with `rows` rows in its task table; 61 lines more, or 69 for a cgroup."""
    pid = chance.randrange(300_000, 400_000)
    comm = chance.choice(_COMMS)
    rss = chance.randrange(60_000, 1_700_000)  # pages
    group = f"/kubepods.slice/kubepods-burstable.slice/pod{chance.getrandbits(48):012x}"
    trigger = chance.choice(_COMMS)
    text = f"{trigger} invoked oom-killer: gfp_mask=0x1100cca(GFP_HIGHUSER_MOVABLE), order=0, oom_score_adj=0\n"
    text += _TRACE.format(
        cpu=chance.randrange(8),
        pid=pid - 7,
        comm=trigger,
        path=" try_charge_memcg+0x6bb/0x7a0" if memcg else " __alloc_pages_slowpath.constprop.0+0xb2c/0xdd0",
        addr=f"{chance.getrandbits(32):08x}",
    )
    if memcg:
        text += _MEMCG.format(limit=rss * 4 + 8192, failcnt=pid, group=group, anon_bytes=rss * 4096)
    else:
        shmem = rss // 16
        text += _GLOBAL.format(anon=rss, anon4=rss * 4, shmem=shmem, shmem4=shmem * 4)
    text += "Tasks state (memory values in pages):\n"
    text += "[  pid  ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name\n"
    tasks = [(400 + 7 * row, chance.choice(_COMMS), chance.randrange(200, 5_000)) for row in range(rows - 1)]
    for number, name, pages in [*tasks, (pid, comm, rss)]:
        text += f"[{number:7d}]   999 {number:5d} {pages * 3:8d} {pages:8d} {pages // 512 * 4096 + 40960:8d}        0"
        text += f"             0 {name}\n"
    scope = f"oom_memcg={group},task_memcg={group}" if memcg else "global_oom,task_memcg=/system.slice/app.service"
    constraint = "CONSTRAINT_MEMCG" if memcg else "CONSTRAINT_NONE"
    text += f"oom-kill:constraint={constraint},nodemask=(null),cpuset=/,mems_allowed=0,{scope}"
    text += f",task={comm},pid={pid},uid=999\n"
    text += (
        f"{'Memory cgroup out' if memcg else 'Out'} of memory: Killed process {pid} ({comm}) total-vm:{rss * 12}kB, "
    )
    text += f"anon-rss:{rss * 4 - 512}kB, file-rss:512kB, shmem-rss:0kB, UID:999 pgtables:{rss // 512 * 4 + 40}kB "
    text += "oom_score_adj:0\n"
    text += f"oom_reaper: reaped process {pid} ({comm}), now anon-rss:0kB, file-rss:0kB, shmem-rss:0kB\n"
    return text.splitlines()


def write_log(file: BinaryIO, *, size_bytes: int, reports: int, rows: range) -> None:
    """Write a syslog file of at least `size_bytes` with `reports` spread evenly over it, two in three of a cgroup.

    Each has a number of task rows taken from `rows`. With `size_bytes=0` nothing stands between the reports.
    """
    chance = random.Random(_SEED)
    bodies = _bodies(chance)
    written, reported = 0, 0
    for second in range(10**9):
        now = _BEGIN + timedelta(milliseconds=300 * second)
        stamp = f"{now:%b} {now.day:2d} {now:%H:%M:%S} {_HOST} ".encode()
        uptime = f"{80_000 + 0.3 * second:.6f}".encode()
        if written * (reports + 1) >= size_bytes * (reported + 1) and reported < reports:
            lines = report_lines(chance, rows=chance.choice(rows), memcg=reported % 3 != 0)
            prefix = stamp + b"kernel: [" + uptime + b"] "
            block = b"".join(prefix + line.encode() + b"\n" for line in lines)
            reported += 1
        elif written < size_bytes:
            start = chance.randrange(len(bodies) - _LINES_PER_SECOND)
            block = stamp + stamp.join(bodies[start : start + _LINES_PER_SECOND]).replace(b"{up}", uptime)
        else:
            return
        written += file.write(block)


def _bodies(chance: random.Random) -> list[bytes]:
    """Lines without their stamp: enough that no two seconds look alike to a compressor's window."""
    count, mean = 60_000, 143  # lines; bytes of one
    decoys = set(chance.sample(range(count), round(_DECOYS_PER_GB * count * mean / 10**9) or 1))
    return [_fill(chance, chance.choice(_DECOYS if index in decoys else _ORDINARY)) for index in range(count)]


def _fill(chance: random.Random, template: str) -> bytes:
    line = template.format(
        up="{up}",
        n=chance.randrange(10),
        b=chance.randrange(256),
        m=f"{chance.randrange(60):02d}",
        w=chance.randrange(1024, 65536),
        h2=f"{chance.getrandbits(8):02x}",
        h4=f"{chance.getrandbits(16):04x}",
        h6=f"{chance.getrandbits(24):06x}",
    )
    return line.encode() + b"\n"


def write_kills(file: BinaryIO, *, size_bytes: int) -> None:
    """Write a log in which every line tells of a kill."""
    line = f"Mar  1 00:00:00 {_HOST} kernel: [8.1] Out of memory: Killed process 7 (java) total-vm:9kB, anon-rss:8kB\n"
    _repeat(file, line.encode(), size_bytes)


def write_long_line(file: BinaryIO, *, size_bytes: int) -> None:
    """Write a single line without an end, with a kill in it now and then."""
    _repeat(file, b"x" * 100_000 + b" Out of memory: Killed process 7 (java) total-vm:9kB, anon-rss:8kB ", size_bytes)


def _repeat(file: BinaryIO, text: bytes, size_bytes: int) -> None:
    block = text * (1024 * 1024 // len(text) + 1)
    for _ in range(size_bytes // len(block)):
        file.write(block)


def main() -> None:
    """Make one log, in a process of its own: the kernel counts the memory of who starts a command as the command's."""
    parser = argparse.ArgumentParser(description="Make a log to measure on.")
    parser.add_argument("file")
    parser.add_argument("--size", type=int, default=0, metavar="BYTES", help="at least so long")
    parser.add_argument("--reports", type=int, default=0, help="so many, spread evenly; the whole of it with no --size")
    parser.add_argument(
        "--rows", type=int, nargs=2, default=(20, 220), metavar=("FEWEST", "MOST"), help="in each table"
    )
    parser.add_argument("--hostile", choices=("kills", "line"), help="nothing but kill lines; one line without an end")
    asked = parser.parse_args()
    with open(asked.file, "wb") as file:
        if asked.hostile == "kills":
            write_kills(file, size_bytes=asked.size)
        elif asked.hostile == "line":
            write_long_line(file, size_bytes=asked.size)
        else:
            rows = range(asked.rows[0], asked.rows[1] + 1)
            write_log(file, size_bytes=asked.size, reports=asked.reports, rows=rows)


if __name__ == "__main__":
    main()

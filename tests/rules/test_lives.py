"""The same load dies, is explained, the advice of the explanation is followed to the letter, and it lives."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from _pytest.mark import ParameterSet

from lab import kernels
from lab.guest import GuestDied
from lab.states import saved
from reprieve.machine.events import summarise
from reprieve.model.finding import Finding, Remedy
from reprieve.model.oom import OomReport
from reprieve.model.snapshot import Snapshot
from reprieve.oom.report import read_reports
from reprieve.rules import diagnose
from tests.lab.conftest import here_or_skipped

pytestmark = pytest.mark.alone


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """A load of a guest: shell scripts, of status 0 if all that should live does."""

    code: str  # of the finding whose advice is followed
    dies: str
    advice: Callable[[Finding], str]  # what the finding says to do, as a script
    lives: str  # ADVICE stands for it
    fresh: bool = False  # in another guest: the advice is for the next start
    panics: bool = False  # with the guest
    machine: str = "mini"
    series: str = kernels.DEFAULT
    seen: Callable[[str], str] = str  # what is left of the log that is explained


def _without_figures(log: str) -> str:
    """As pasted by people who leave out what they cannot read."""
    return re.sub(r"(?ms)^[^\n]*Mem-Info:.*?(?=^[^\n]*\[ *pid *\])", "", log)


def _first_command(finding: Finding) -> str:
    return shlex.join(_advised(finding).commands[0])


def _advised(finding: Finding) -> Remedy:
    return next(remedy for remedy in finding.remedies if remedy.commands)


def _adjust(finding: Finding) -> str:
    """What choom does, which the guest lacks."""
    match = re.fullmatch(r"choom --pid (\d+) --adjust (-?\d+)", _first_command(finding))
    assert match is not None
    return f"echo {match[2]} > /proc/{match[1]}/oom_score_adj"


def _unoffered(finding: Finding) -> str:
    assert _first_command(finding) == "choom --adjust 0 -- PROGRAM"
    return "adj=0"


def _bound_tmpfs(finding: Finding) -> str:
    remount = next(command for remedy in finding.remedies for command in remedy.commands if command[0] == "mount")
    return shlex.join(word.replace("MOUNTPOINT", "/mnt") for word in remount)


def _fewer(finding: Finding) -> str:
    match = re.search(r" = (\d+) of \d$", finding.remedies[0].amount or "")
    assert match is not None
    return f"workers={match[1]}"


def _jobs(finding: Finding) -> str:
    match = re.fullmatch(r"Run no more than (\d+) \x02cc1plus\x03 .* \(make -j, ninja -j\)", finding.remedies[0].title)
    assert match is not None
    return f"jobs={match[1]}"


def _swap_disk(finding: Finding) -> str:
    """The swap of the advice, on a disk: the root of the mini guest is RAM, where a swap file is of no use."""
    making = next(one for one in finding.remedies if one.commands and one.commands[0][0] == "dd")
    commands = [shlex.join(command) for command in making.commands]
    assert commands[2:] == ["mkswap /swapfile.reprieve", "swapon /swapfile.reprieve"]
    return "\n".join(commands[2:]).replace("/swapfile.reprieve", "/dev/vda")


def _unbound(finding: Finding) -> str:
    assert _first_command(finding) == "numactl --preferred=1 -- PROGRAM"
    return "hog"  # no --node: it is bound to none, as with --preferred


def _contain(finding: Finding) -> str:
    """The scope that systemd-run makes, in a guest without systemd."""
    no_swap = r"(?: --property MemorySwapMax=0)?"  # the guest has none
    match = re.fullmatch(
        rf"systemd-run --scope --property MemoryMax=(\d+)M{no_swap} -- PROGRAM", _first_command(finding)
    )
    assert match is not None
    return f"mkdir /sys/fs/cgroup/app\necho {match[1]}M > /sys/fs/cgroup/app/memory.max"


def _contain_by_what_it_held(finding: Finding) -> str:
    assert "with which memory ran out" in (_advised(finding).amount or "")
    return _contain(finding)


def _bound_tasks(finding: Finding) -> str:
    """The scope that systemd-run makes, in a guest without systemd."""
    match = re.fullmatch(r"systemd-run --scope --property TasksMax=(\d+) -- PROGRAM", _first_command(finding))
    assert match is not None
    return f"mkdir /sys/fs/cgroup/app\necho {match[1]} > /sys/fs/cgroup/app/pids.max"


def _confine(finding: Finding) -> str:
    assert any("give that service a memory limit" in remedy.title for remedy in finding.remedies)
    return _CGROUP


def _in(group: str, command: str) -> str:
    return f"sh -c 'echo $$ > /sys/fs/cgroup/{group}/cgroup.procs; exec {command}'"


_BYSTANDERS = (
    "hog --mib 8 --name bystander --hold -1 &\nhog --mib 12 --name 'Web Content' --adj 200 --hold -1 &\nsleep 1\n"
)
_OFFERED_UP = _BYSTANDERS.replace("--adj 200", "--adj 900")
_BYSTANDER_LIVES = "\nsleep 1\nkillall -0 bystander"
_THEY_LIVE = "\nsleep 1\nkillall -0 bystander && killall -0 'Web Content'"
_FILL_TMPFS = (
    "hog --mib 4 --name last --adj -500 --hold -1 &\n" + _BYSTANDERS + "dd if=/dev/zero of=/mnt/f bs=1M count=600"
)
_WORK = (
    "for n in $(seq $workers); do hog --mib 30 --name worker --hold 9 & done\n"
    "sleep 6\n[ $(pidof worker | wc -w) = $workers ]"
)
_BUILD = (  # the large one has grown before memory runs out, or nobody could tell that it is
    "hog --mib 60 --name cc1plus --hold 20 &\nsleep 3\n"
    "for n in $(seq 2 $jobs); do hog --mib 28 --name cc1plus --hold 20 & done\n"
    "sleep 6\n[ $(pidof cc1plus | wc -w) = $jobs ]"
)
_OFFERED = (
    "hog --mib 120 --name large --hold -1 &\nsleep 3\nhog --mib 20 --name small --adj $adj --hold -1 &\nsleep 1\n"
)
_OFFERED += "hog --mib 80 --name late\nkillall -0 small"
_CGROUP = "cd /sys/fs/cgroup\nmkdir app\necho 32M > app/memory.max\n"
_PARENT = "cd /sys/fs/cgroup\nmkdir par\necho +memory > par/cgroup.subtree_control\necho 32M > par/memory.max\n"
_PARENT += "mkdir par/child\n"
_SWAP = "mkswap /dev/vda > /dev/null && swapon /dev/vda\n"

_STORM = "mkdir -p /tmp\necho 'for n in $(seq 6000); do sleep 600 & done' > /tmp/storm\n"
_UNIT = "cat > /etc/systemd/system/app.service <<EOF\n[Service]\nType=oneshot\nExecStart=hog --mib 60 --name app\n"

LOADS = {
    "cgroup-limit": Load(
        code="cgroup-limit",
        dies=_CGROUP + _in("app", "hog --mib 60 --name app"),
        advice=_first_command,
        lives="ADVICE\n" + _in("app", "hog --mib 60 --name app"),
    ),
    "parent-limit": Load(
        code="parent-limit",
        dies=_PARENT + "echo 90M > par/child/memory.max\n" + _in("par/child", "hog --mib 60 --name child"),
        advice=_first_command,
        lives="ADVICE\n" + _in("par/child", "hog --mib 60 --name child"),
    ),
    "cpuset": Load(
        code="node-short",
        dies="cd /sys/fs/cgroup\nmkdir cs\necho 1 > cs/cpuset.mems\n" + _in("cs", "hog --mib 130 --name bound"),
        advice=_first_command,
        lives="ADVICE\n" + _in("cs", "hog --mib 130 --name bound"),
        machine="numa",
    ),
    "memory-policy": Load(
        code="node-short",
        dies="hog --mib 130 --node 1 --name bound",
        advice=_unbound,
        lives="ADVICE --mib 130 --name free",
        machine="numa",
    ),
    "workers": Load(code="host-full", dies="workers=8\n" + _WORK, advice=_fewer, lives="ADVICE\n" + _WORK, fresh=True),
    "jobs": Load(code="alike-hold-most", dies="jobs=8\n" + _BUILD, advice=_jobs, lives="ADVICE\n" + _BUILD, fresh=True),
    "tmpfs": Load(
        code="shmem-holds",
        dies="mount -t tmpfs -o size=150% t /mnt\n" + _FILL_TMPFS,
        advice=_bound_tmpfs,
        lives="mount -t tmpfs -o size=150% t /mnt\nADVICE\n" + _FILL_TMPFS + _THEY_LIVE,
        fresh=True,
    ),
    "sockets": Load(
        code="kernel-memory",
        dies=_BYSTANDERS + "hog --mib 2000 --kind socket --name sockhog" + _THEY_LIVE,
        advice=_confine,
        lives=_BYSTANDERS + "ADVICE\n" + _in("app", "hog --mib 2000 --kind socket --name sockhog") + _THEY_LIVE,
        fresh=True,
    ),
    "contained": Load(
        code="process-grew",
        dies=_OFFERED_UP + "hog --mib 2000 --name memhog" + _THEY_LIVE,
        advice=_contain,
        lives=_OFFERED_UP + "ADVICE\n" + _in("app", "hog --mib 2000 --name memhog") + _THEY_LIVE,
        fresh=True,
    ),
    "contained-by-what-it-held": Load(
        code="process-grew",
        dies=_OFFERED_UP + "hog --mib 2000 --name memhog" + _THEY_LIVE,
        advice=_contain_by_what_it_held,
        lives=_OFFERED_UP + "ADVICE\n" + _in("app", "hog --mib 2000 --name memhog") + _THEY_LIVE,
        fresh=True,
        seen=_without_figures,
    ),
    "spared-hog": Load(
        code="small-victim",
        dies="hog --mib 140 --name spared --adj -1000 --hold -1 &\nsleep 3\nhog --mib 70 --name small",
        advice=_adjust,
        lives="ADVICE\nhog --mib 70 --name small",
    ),
    "scapegoat": Load(
        code="small-victim", dies="adj=900\n" + _OFFERED, advice=_unoffered, lives="ADVICE\n" + _OFFERED, fresh=True
    ),
    "cgroup-swap": Load(
        code="cgroup-swap-limit",
        dies=_SWAP + _CGROUP + "echo 0 > app/memory.swap.max\n" + _in("app", "hog --mib 60 --name app"),
        advice=_first_command,
        lives="ADVICE\n" + _in("app", "hog --mib 60 --name app"),
    ),
    "cgroup-swappiness": Load(
        code="cgroup-swap-unused",
        dies=_SWAP + "sysctl -q -w vm.swappiness=0\n" + _CGROUP + _in("app", "hog --mib 60 --name app"),
        advice=_first_command,
        lives="ADVICE\n" + _in("app", "hog --mib 60 --name app"),
    ),
    "cgroup-no-swap": Load(
        code="cgroup-swap-unused",
        dies=_CGROUP + _in("app", "hog --mib 60 --name app"),
        advice=_swap_disk,
        lives="ADVICE\n" + _in("app", "hog --mib 60 --name app"),
    ),
    "swap-never": Load(
        code="swap-unused",
        dies=_SWAP + "sysctl -q -w vm.swappiness=0\nhog --mib 210 --name app",
        advice=lambda finding: shlex.join(_advised(finding).commands[-1]),
        lives="ADVICE\nhog --mib 210 --name app",
        series="7",
    ),
    "allocating-task": Load(
        code="allocating-task",
        dies="echo 1 > /proc/sys/vm/oom_kill_allocating_task\nhog --mib 120 --name resident --hold -1 &\nsleep 3\n"
        "hog --mib 80 --name late",
        advice=_first_command,
        lives="ADVICE\nhog --mib 80 --name late",
    ),
    "fork-storm": Load(
        code="many-processes",
        dies=_OFFERED_UP + _STORM + "sh /tmp/storm" + _BYSTANDER_LIVES,
        advice=_bound_tasks,
        lives=_OFFERED_UP + _STORM + "ADVICE\n" + _in("app", "sh /tmp/storm") + _BYSTANDER_LIVES,
        fresh=True,
    ),
    "huge-pages": Load(
        code="huge-pages-idle",
        dies="echo 40 > /proc/sys/vm/nr_hugepages\nhog --mib 140 --name app",
        advice=_first_command,
        lives="ADVICE\nhog --mib 140 --name app",
    ),
    "panic": Load(
        code="panic-on-oom",
        dies="echo 1 > /proc/sys/vm/panic_on_oom\n" + _BYSTANDERS + "hog --mib 2000 --name memhog" + _BYSTANDER_LIVES,
        advice=_first_command,
        lives="echo 1 > /proc/sys/vm/panic_on_oom\nADVICE\n"
        + _BYSTANDERS
        + "hog --mib 2000 --name memhog"
        + _BYSTANDER_LIVES,
        fresh=True,
        panics=True,
    ),
    "unit-limit": Load(
        code="cgroup-limit",
        dies=_UNIT + "MemoryMax=40M\nEOF\nsystemctl daemon-reload; systemctl start app",
        advice=_first_command,
        lives="ADVICE && systemctl start app",
        machine="systemd",
    ),
    "swap-file": Load(
        code="no-swap",
        dies="hog --mib 440 --name app",
        advice=lambda finding: " && ".join(map(shlex.join, _advised(finding).commands)),
        lives="ADVICE && hog --mib 440 --name app",
        machine="systemd",
    ),
    "swap": Load(
        code="no-swap", dies="hog --mib 220 --name app", advice=_swap_disk, lives="ADVICE\nhog --mib 220 --name app"
    ),
}


QUICK = ("huge-pages", "cgroup-limit", "parent-limit", "memory-policy", "spared-hog", "cgroup-swap", "swap")


def _explain(log: str) -> list[Finding]:
    ooms = tuple(event for event in read_reports(log) if isinstance(event, OomReport))
    return diagnose(Snapshot(ooms=ooms, history=tuple(map(summarise, ooms))))


def _marked() -> list[ParameterSet]:
    return [pytest.param(name, marks=pytest.mark.guest if name in QUICK else pytest.mark.slow) for name in LOADS]


@pytest.mark.parametrize("name", _marked())
def test_a_load_that_died_lives_once_the_advice_is_followed(name: str) -> None:
    load = LOADS[name]
    with here_or_skipped():
        state = saved(load.series, load.machine)
    with state.restore() as guest:
        try:
            assert guest.run(load.dies).status != 0
            assert not load.panics
        except GuestDied:  # of memory that no kill frees the kernel may find nobody more to kill, and panics
            assert load.panics or load.fresh
            guest.wait_end()
        # The newest kill; of the console, since the kernel's own buffer is too small for a table of a thousand rows.
        finding = [found for found in _explain(load.seen(guest.console())) if found.code == load.code][-1]
        lives = load.lives.replace("ADVICE", load.advice(finding))
        if not load.fresh:
            answer = guest.run(lives)
            assert answer.status == 0, answer.output + guest.kernel_log()[-2000:]
            return
    with state.restore() as guest:
        answer = guest.run(lives)
        assert answer.status == 0, answer.output + guest.kernel_log()[-2000:]

"""Programs that kill before the kernel must: which run here, at what they act, and whether they may."""

import getopt
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

from reprieve.machine.cmdline import read_file
from reprieve.machine.host import Host
from reprieve.model.finding import Gap
from reprieve.model.killer import Killer
from reprieve.model.process import Process

NAMES = ("earlyoom", "systemd-oomd", "oomd", "nohang", "kubelet")
_CAP_KILL = 5
_CMDLINE_BYTES = 16384
_CONF = ("/usr/lib/systemd/oomd.conf", "/etc/systemd/oomd.conf")  # oomd.conf(5): the first in /etc, else the vendor's
_CONF_FOLDERS = ("/usr/lib/systemd/oomd.conf.d", "/run/systemd/oomd.conf.d", "/etc/systemd/oomd.conf.d")
# earlyoom(1), up to 1.9. It ends at an option it does not know, so one that runs has these alone.
_SHORT = "m:s:M:S:kinN:P:dvr:phg"
_LONG = ["prefer=", "avoid=", "ignore=", "dryrun", "ignore-root-user", "sort-by-rss", "syslog", "debug", "help"]


def read_killers(
    host: Host, processes: Iterable[Process], total_bytes: int | None, swap_bytes: int | None, gaps: list[Gap]
) -> tuple[Killer, ...]:
    """Those among the processes. `total_bytes`, `swap_bytes`: of which the sizes that others are given are shares."""
    found = []
    for process in processes:
        name = next((one for one in NAMES if process.comm == one[:15]), None)
        if name is None or process.kernel_thread or process.state in ("Z", "X"):
            continue
        words = _words(host, process.pid, gaps) if name in ("earlyoom", "nohang") else []
        if name == "nohang" and words and "--monitor" not in words:  # it only shows its settings, or all tasks
            continue
        killer = Killer(
            name=name,
            pid=process.pid,
            start_ticks=process.start_ticks,
            may_kill_all=_may_kill_all(host, process, gaps),
        )
        if name == "earlyoom":
            memory, swap = parse_earlyoom(words, total_bytes, swap_bytes)
            killer = replace(killer, memory_percent=memory, swap_free_percent=swap)
        elif name == "nohang":
            killer = parse_nohang(killer, _nohang_conf(host, process, words), total_bytes, swap_bytes)
        elif name == "systemd-oomd":
            used, pressure, lasting = parse_oomd(_conf_texts(host, gaps))
            killer = replace(killer, swap_used_percent=used, pressure_percent=pressure, pressure_s=lasting)
        found.append(killer)
    return tuple(found)


def parse_earlyoom(
    words: list[str], total_bytes: int | None, swap_bytes: int | None
) -> tuple[float | None, float | None]:
    """Percent of memory and of swap below which it sends SIGTERM; None: no such words were told, or they make no sense.

    Both must be below. Of a share and a size the lower counts; sizes are KiB.
    """
    if not words:
        return None, None
    try:
        options, _ = getopt.gnu_getopt(words[1:], _SHORT, _LONG)
    except getopt.GetoptError:
        return None, None
    given = {name: value.partition(",")[0] for name, value in options}
    return (
        _least(given.get("-m"), given.get("-M"), total_bytes),
        _least(given.get("-s"), given.get("-S"), swap_bytes),
    )


def _least(share: str | None, size: str | None, total_bytes: int | None) -> float | None:
    shares = []
    if size is not None and size.isdecimal() and total_bytes:
        shares.append(min(int(size[:15]) * 1024 * 100 / total_bytes, 100.0))
    if share is not None and share.isdecimal():
        shares.append(min(float(share[:4]), 100.0))
    if share is None and size is None:
        return 10.0
    return min(shares, default=None)


class _Level(NamedTuple):
    """At what nohang sends a signal: memory and swap must both be below."""

    kind: str  # "soft": SIGTERM, "hard": SIGKILL
    memory_percent: float
    swap_percent: float | None

    def covers(self, other: "_Level") -> bool:
        """Is it reached wherever the other is?"""
        one, two = self.swap_percent, other.swap_percent
        swap = one == two or (one is not None and two is not None and one > two)
        return swap and self.memory_percent >= other.memory_percent


def parse_nohang(killer: Killer, text: str, total_bytes: int | None, swap_bytes: int | None) -> Killer:
    """The same killer with what its file tells: lines of `key = value`, none of which begins with a blank.

    For pressure and for zram memory must be below too; at pressure it looks where there is swap.
    """
    told: dict[str, str] = {}
    for line in text.split("\n"):
        key, _, value = line.partition("=")
        if not line.startswith((" ", "\t")):
            told.setdefault(key.strip(), value.strip())
    levels = [
        _Level(kind, memory, None if swap_bytes == 0 else _share(told.get(f"{kind}_threshold_min_swap"), swap_bytes))
        for kind in ("soft", "hard")
        if (memory := _share(told.get(f"{kind}_threshold_min_mem"), total_bytes)) is not None
    ]
    if len(levels) > 1 and levels[0].covers(levels[1]):
        levels.pop()
    elif len(levels) > 1 and levels[1].covers(levels[0]):
        levels.pop(0)
    kind = "soft"
    if levels:
        kind, memory, swap = levels[0]
        killer = replace(killer, memory_percent=memory, swap_free_percent=swap)
    if len(levels) > 1:
        _, memory, swap = levels[1]
        killer = replace(killer, hard_memory_percent=memory, hard_swap_free_percent=swap)
    if told.get("psi_checking_enabled") == "True" and swap_bytes:
        pressure, lasting = _number(told.get(f"{kind}_threshold_max_psi")), _number(told.get("psi_excess_duration"))
        killer = replace(killer, pressure_percent=pressure, pressure_s=lasting)
    if told.get("zram_checking_enabled") == "True":
        killer = replace(killer, zram_percent=_share(told.get(f"{kind}_threshold_max_zram"), total_bytes))
    return killer


def _share(text: str | None, of_bytes: int | None) -> float | None:
    """Percent: of `5 %` as it is, of `300 M` (MiB) what it is of all."""
    match = re.fullmatch(r"([0-9.]{1,12})[ \t]*([%M])", text or "")
    figure = None if match is None else _number(match[1])
    if match is None or figure is None or (match[2] == "M" and not of_bytes):
        return None
    return min(figure if match[2] == "%" else figure * 2**20 * 100 / (of_bytes or 1), 100.0)


def _number(text: str | None) -> float | None:
    return float(text) if text is not None and re.fullmatch(r"[0-9]{1,9}(?:\.[0-9]{0,9})?", text) else None


def _nohang_conf(host: Host, process: Process, words: list[str]) -> str:
    """The file that it was told, which it read when it started; anybody may call himself so, and name any file."""
    told = next((after for word, after in pairwise(words) if word in ("-c", "--config")), None)
    return "" if told is None else read_file(host, process, told) or ""


def parse_oomd(texts: Iterable[str]) -> tuple[float | None, float | None, float | None]:
    """Percent of swap used, percent of pressure, and for how many seconds, at which systemd-oomd acts: oomd.conf(5)."""
    told = {"SwapUsedLimit": "90%", "DefaultMemoryPressureLimit": "60%", "DefaultMemoryPressureDurationSec": "30s"}
    for text in texts:
        for key, value in re.findall(r"^[ \t]*([A-Za-z]+)[ \t]*=[ \t]*(\S+)[ \t]*$", text, re.MULTILINE):
            if key in told:
                told[key] = value
    return (
        _percent(told["SwapUsedLimit"]),
        _percent(told["DefaultMemoryPressureLimit"]),
        _seconds(told["DefaultMemoryPressureDurationSec"]),
    )


def _percent(text: str) -> float | None:
    match = re.fullmatch(r"([0-9]{1,4}(?:\.[0-9]{1,4})?)([%‰‱])", text)
    return None if match is None else float(match[1]) / {"%": 1, "‰": 10, "‱": 100}[match[2]]


def _seconds(text: str) -> float | None:
    match = re.fullmatch(r"([0-9]{1,9})(s|sec|min|m)?", text)
    return None if match is None else float(match[1]) * (60 if (match[2] or "").startswith("m") else 1)


def _conf_texts(host: Host, gaps: list[Gap]) -> Iterator[str]:
    """The files in the order in which later ones override: the main one, then drop-ins by name, /etc before /usr."""
    own = [text for path in _CONF if (text := host.text(path, gaps)) is not None]
    yield from own[-1:]
    named: dict[str, str] = {}
    for folder in _CONF_FOLDERS:
        try:
            names = host.names(folder)
        except OSError:
            continue
        named.update({name: f"{folder}/{name}" for name in names if name.endswith(".conf")})
    for name in sorted(named):
        yield host.text(named[name], gaps) or ""


def _words(host: Host, pid: int, gaps: list[Gap]) -> list[str]:
    try:
        line = host.read(f"/proc/{pid}/cmdline", _CMDLINE_BYTES)
    except (FileNotFoundError, ProcessLookupError, NotADirectoryError):
        return []
    except OSError as error:
        gaps.append(Gap(place=f"/proc/{pid}/cmdline", reason=(error.strerror or str(error)).lower()))
        return []
    return [os.fsdecode(word) for word in line.split(b"\0")[:-1]]


def _may_kill_all(host: Host, process: Process, gaps: list[Gap]) -> bool | None:
    """kill(2): who has CAP_KILL; in the first user namespace root has, unless it was taken from it."""
    text = host.text(f"/proc/{process.pid}/status", gaps)
    match = None if text is None else re.search(r"^CapEff:\t([0-9a-f]{16})$", text, re.MULTILINE)
    return None if match is None else bool(int(match[1], 16) >> _CAP_KILL & 1)

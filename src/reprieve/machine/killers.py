"""Programs that kill before the kernel must: which run here, at what they act, and whether they may."""

import getopt
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import pairwise
from operator import itemgetter

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
            conf = _nohang_conf(host, words, gaps)
            memory, swap, pressure, lasting = parse_nohang(conf, total_bytes, swap_bytes)
            killer = replace(
                killer, memory_percent=memory, swap_free_percent=swap, pressure_percent=pressure, pressure_s=lasting
            )
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


def parse_nohang(
    text: str, total_bytes: int | None, swap_bytes: int | None
) -> tuple[float | None, float | None, float | None, float | None]:
    """Percent of memory and of swap below which it sends a signal; percent of pressure, and for how many seconds.

    Memory and swap must both be below: of the two thresholds the one that is reached first, SIGTERM's as a rule. For
    pressure memory must be too, and it is looked at where there is swap.
    """
    told: dict[str, str] = {}
    for key, value in re.findall(r"^([a-z_]+)[ \t]*=[ \t]*(.*?)[ \t]*$", text, re.MULTILINE):
        told.setdefault(key, value)
    pairs = [
        (memory, _share(told.get(f"{kind}_threshold_min_swap"), swap_bytes))
        for kind in ("soft", "hard")
        if (memory := _share(told.get(f"{kind}_threshold_min_mem"), total_bytes)) is not None
    ]
    memory, swap = max(pairs, key=itemgetter(0), default=(None, None))
    if told.get("psi_checking_enabled") != "True" or not swap_bytes:
        return memory, swap, None, None
    return memory, swap, _number(told.get("soft_threshold_max_psi")), _number(told.get("psi_excess_duration"))


def _share(text: str | None, of_bytes: int | None) -> float | None:
    """Percent: of `5 %` as it is, of `300 M` (MiB) what it is of all."""
    match = re.fullmatch(r"([0-9.]{1,12})[ \t]*([%M])", text or "")
    figure = None if match is None else _number(match[1])
    if match is None or figure is None or (match[2] == "M" and not of_bytes):
        return None
    return min(figure if match[2] == "%" else figure * 2**20 * 100 / (of_bytes or 1), 100.0)


def _number(text: str | None) -> float | None:
    return float(text) if text is not None and re.fullmatch(r"[0-9]{1,9}(?:\.[0-9]{0,9})?", text) else None


def _nohang_conf(host: Host, words: list[str], gaps: list[Gap]) -> str:
    """The file that it was told, which it read when it started; empty where it was told one from its own folder."""
    told = next((after for word, after in pairwise(words) if word in ("-c", "--config")), "")
    return (host.text(told, gaps) or "") if told.startswith("/") else ""


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

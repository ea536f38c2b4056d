"""PostgreSQL servers among the processes, and what they were told about memory.

What is told later counts: postgresql.conf with the files it names, postgresql.auto.conf, the command line
(SelectConfigFiles() and ProcessConfigFileInternal() in src/backend/utils/misc/guc.c; guc-file.l).
"""

import re
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from reprieve.machine.cmdline import read_started, running
from reprieve.machine.config import DEEP, Files, beside
from reprieve.machine.host import Host
from reprieve.machine.proc import Problems, tell
from reprieve.model.application import Postgres
from reprieve.model.finding import Gap
from reprieve.model.process import Process
from reprieve.units import GIB, KIB, MIB

_BLOCK = 8 * KIB  # BLCKSZ and XLOG_BLCKSZ, unless built otherwise
# What a bare number counts (guc_tables.c), in bytes; settings that are no sizes stand below.
_SIZES = {
    "shared_buffers": _BLOCK,
    "wal_buffers": _BLOCK,
    "temp_buffers": _BLOCK,
    "work_mem": KIB,
    "maintenance_work_mem": KIB,
    "autovacuum_work_mem": KIB,
}
_COUNTS = ("port", "max_connections", "autovacuum_max_workers", "max_parallel_workers")
_WORDS = ("huge_pages", "hash_mem_multiplier")
_PATHS = ("data_directory", "config_file")
_KNOWN = frozenset((*_SIZES, *_COUNTS, *_WORDS, *_PATHS))
_UNITS = {"B": 1, "kB": KIB, "MB": MIB, "GB": GIB, "TB": 1024 * GIB}
_MOST_CHILDREN = 5000  # whose title is read


class Told(NamedTuple):
    """Settings by PostgreSQL's names as they are written, each with where it was told last."""

    values: dict[str, str]
    origins: dict[str, str]

    def put(self, name: str, value: str, origin: str) -> None:
        if name in _KNOWN:
            self.values[name] = value
            self.origins.pop(name, None)
            self.origins[name] = origin


def read_postgres(host: Host, gaps: list[Gap], processes: Collection[Process]) -> tuple[Postgres, ...]:
    """The servers among these processes, each by its postmaster. What may not be read is a gap, and named in it."""
    found = []
    problems: Problems = {}
    family = {process.pid: (process, program) for process, program in running(host, processes, _PROGRAMS)}
    for process, program in family.values():
        if process.ppid in family:
            continue
        started = read_started(host, process, program, ("PGDATA",), problems)
        if started is None or (started.words or ())[1:2] in _NO_SERVERS:
            continue
        files = Files(host, process, gaps, [], [])
        if started.words is None:
            files.unseen.append("command line")
        argued = read_words(started.words or ())
        told, version = _read_files(files, argued, (started.environ or {}).get("PGDATA"))
        for name, value in argued.values.items():
            told.put(name, value, "command line")
        children = [one for one in processes if one.ppid == process.pid]
        found.append(_server(process, version, told, files.unseen, _backends(host, children)))
    tell(problems, gaps)
    return tuple(found)


_PROGRAMS = ("postgres", "postmaster")
_NO_SERVERS = (("--single",), ("--boot",), ("--check",), ("--describe-config",), ("-C",))  # they end by themselves


def _server(process: Process, version: str | None, told: Told, unseen: list[str], backends: int | None) -> Postgres:
    def size(name: str) -> int | None:
        return parse_size(told.values.get(name, ""), _SIZES[name])

    def count(name: str) -> int | None:
        value = told.values.get(name, "")
        return int(value) if re.fullmatch("[0-9]{1,9}", value) else None

    factor, huge = told.values.get("hash_mem_multiplier", ""), told.values.get("huge_pages", "").lower()
    return Postgres(
        pid=process.pid,
        start_ticks=process.start_ticks,
        postgres_version=version,
        port=count("port"),
        shared_buffers_bytes=size("shared_buffers"),
        huge_pages=_HUGE.get(huge),
        wal_buffers_bytes=size("wal_buffers"),
        max_connections=count("max_connections"),
        work_mem_bytes=size("work_mem"),
        hash_mem_multiplier=float(factor) if re.fullmatch(r"[0-9]{1,4}(?:\.[0-9]{0,9})?", factor) else None,
        temp_buffers_bytes=size("temp_buffers"),
        maintenance_work_mem_bytes=size("maintenance_work_mem"),
        autovacuum_work_mem_bytes=size("autovacuum_work_mem"),
        autovacuum_max_workers=count("autovacuum_max_workers"),
        max_parallel_workers=count("max_parallel_workers"),
        backends=backends,
        origins=tuple((name, origin) for name, origin in told.origins.items() if name not in _PATHS),
        unseen=tuple(unseen),
    )


_HUGE = {
    "try": "try",
    **dict.fromkeys(("on", "true", "yes", "1"), "on"),
    **dict.fromkeys(("off", "false", "no", "0"), "off"),
}


def parse_size(text: str, unit: int) -> int | None:
    """A size as PostgreSQL reads it, in bytes; a bare number counts `unit`. None: it is none, or -1, "by itself".

    >>> parse_size("64MB", 1024), parse_size("16384", 8192), parse_size("1.5 GB", 1024), parse_size("-1", 1024)
    (67108864, 134217728, 1610612736, None)
    """
    match = re.fullmatch(r"\s*(0[xX][0-9a-fA-F]{1,8}|[0-9]{1,15}(?:\.[0-9]{0,9})?)\s*([a-zA-Z]{0,2})\s*", text)
    if match is None or (match[2] and match[2] not in _UNITS):
        return None
    number = int(match[1], 16) if match[1][:2].lower() == "0x" else float(match[1])
    value = int(number * (_UNITS[match[2]] if match[2] else unit))
    return value if value < 1 << 60 else None


# -- where they are told -----------------------------------------------------------------------------------------------


def read_words(words: Sequence[str]) -> Told:
    """The settings of a command line, and the folder that -D names as `data_directory`.

    PostmasterMain() in src/backend/postmaster/postmaster.c: getopt(), with `--NAME=VALUE` as `-c NAME=VALUE`.
    """
    told = Told({}, {})
    left = list(words[:0:-1])
    while left:
        word = left.pop()
        if word.startswith("--"):
            _assign(told, word[2:])
            continue
        if not word.startswith("-") or word == "-":
            break  # no option: nothing that follows is one
        for at, letter in enumerate(word[1:], 1):
            if letter in _WITH_VALUE:
                value = word[at + 1 :] or (left.pop() if left else "")
                if letter == "c":
                    _assign(told, value)
                elif letter in _LETTERS:
                    told.put(_LETTERS[letter], value, "command line")
                break
    return told


_WITH_VALUE = "BCcDdfhkNoprStvW"
_LETTERS = {"B": "shared_buffers", "D": "data_directory", "N": "max_connections", "S": "work_mem", "p": "port"}


def _assign(told: Told, text: str) -> None:
    name, equals, value = text.partition("=")
    if equals:
        told.put(name.replace("-", "_").lower(), value, "command line")


def _read_files(files: Files, argued: Told, pgdata: str | None) -> tuple[Told, str | None]:
    """What the files say, and which version they are of.

    Of the postmaster the working folder is its data (ChangeToDataDir()); a path that was relative when it was started
    cannot be followed any more, and is taken for that.
    """
    told = Told({}, {})
    folder = argued.values.get("data_directory") or pgdata or "."
    folder = folder if folder.startswith("/") else "."
    config = argued.values.get("config_file", f"{folder}/postgresql.conf")
    followed = config.startswith("/") or config == "./postgresql.conf"
    if not (followed and _read_file(files, told, config, 0)) and config not in files.unseen:
        files.unseen.append(config)  # every server has it
    data = told.values.get("data_directory", folder)
    data = data if data.startswith("/") else folder
    _read_file(files, told, f"{data}/postgresql.auto.conf", 0)
    version = (files.text(f"{data}/PG_VERSION") or "").strip()
    return told, version if re.fullmatch(r"[0-9]{1,2}(\.[0-9]{1,2})?", version) else None


def _read_file(files: Files, told: Told, path: str, depth: int) -> bool:
    """False if there is none that can be read."""
    text = files.text(path)
    if text is None:
        return False
    settings, odd = parse_file(text)
    files.odd(path, odd)
    for line, name, value in settings:
        if name in ("include", "include_if_exists", "include_dir"):
            for one in _included(files, beside(path, value)) if name == "include_dir" else (beside(path, value),):
                if depth < DEEP:
                    _read_file(files, told, one, depth + 1)
        else:
            told.put(name, value, f"{path}:{line}")
    return True


def _included(files: Files, folder: str) -> Iterable[str]:
    for name in files.names(folder):
        if name.endswith(".conf") and not name.startswith("."):
            yield f"{folder}/{name}"


_LINE = (
    r"\s*([A-Za-z_][A-Za-z_0-9$]*(?:\.[A-Za-z_][A-Za-z_0-9$]*)*)(?:\s*=\s*|\s+|(?='))"
    r"('(?:[^'\\]|''|\\.)*'|[^\s#'=]+)\s*(?:#.*)?"
)


def parse_file(text: str) -> tuple[list[tuple[int, str, str]], int]:
    """The settings of a file: line, name, value; and how many lines are none.

    >>> parse_file("Work_Mem = 64MB  # much\\ninclude_dir 'it''s'\\n# all\\n= 1\\n")
    ([(1, 'work_mem', '64MB'), (2, 'include_dir', "it's")], 1)
    """
    settings, odd = [], 0
    pattern = re.compile(_LINE)
    for number, line in enumerate(text.split("\n"), 1):
        if not (line := line.strip()) or line.startswith("#"):
            continue
        match = pattern.fullmatch(line)
        if match is None:
            odd += 1
            continue
        name, value = match[1].lower(), match[2]
        if value.startswith("'"):
            value = re.sub(r"''|\\(.)", lambda escaped: escaped[1] or "'", value[1:-1])
        settings.append((number, name, value))
    return settings, odd


# -- whom it serves ----------------------------------------------------------------------------------------------------

_SERVES = rb"postgres: .* (?:\[local\]|\S+\([0-9]+\))(?: |$)"  # "postgres: 15/main: user database [local] idle"


def _backends(host: Host, children: Sequence[Process]) -> int | None:
    """How many serve a connection, by the titles that they give themselves (init_ps_display()); None: not told."""
    titles = []
    for child in children[:_MOST_CHILDREN]:
        try:
            titles.append(host.read(f"/proc/{child.pid}/cmdline", 4096).rstrip(b"\0"))
        except OSError:  # it may not be told to us, has gone, or was not captured
            continue
    if children and not titles:
        return None
    return sum(re.match(_SERVES, title) is not None for title in titles)

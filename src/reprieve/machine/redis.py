"""Redis servers among the processes, and what they were told about memory: by themselves, or by their files.

A Redis writes a title over its command line, so which file it was started with is mostly not to be seen. It says what
holds when it is asked, on a loopback address or a socket, with INFO and CONFIG GET of single names. No password is
tried.
"""

import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from time import monotonic
from typing import NamedTuple

from reprieve.machine.cmdline import reached, read_started, running
from reprieve.machine.config import DEEP, Files
from reprieve.machine.host import Host
from reprieve.machine.proc import Problems, tell
from reprieve.machine.resp import NoAnswer, ask
from reprieve.model.application import Redis
from reprieve.model.finding import Gap
from reprieve.model.process import Process
from reprieve.units import KIB

DEADLINE_S = 1.0  # for all servers together
ITSELF = "the server itself"
_NAME = "redis-server"
_PROGRAMS = (_NAME, "redis-check-rdb", "redis-check-aof")  # one program, which goes by the name that it is called by
_USUAL = ("/etc/redis/redis.conf", "/etc/redis.conf", "/usr/local/etc/redis/redis.conf")
_KNOWN = frozenset(
    "port unixsocket maxmemory maxmemory-policy save appendonly client-output-buffer-limit repl-backlog-size".split()
)


class Told(NamedTuple):
    """Settings by Redis' names, each with its words, and with where it was told last."""

    values: dict[str, tuple[str, ...]]
    origins: dict[str, str]

    def put(self, name: str, words: Sequence[str], origin: str) -> None:
        if name not in _KNOWN:
            return
        # Lines of `save` add up; the first takes the place of the default, and an empty one of all before.
        before = self.values.get(name, ()) if name == "save" and tuple(words) != ("",) else ()
        if name == "client-output-buffer-limit":  # one for each class of clients
            before = self.values.get(name, ())
        self.values[name] = (*(word for word in before if word), *words)
        self.origins.pop(name, None)
        self.origins[name] = origin


def read_redis(
    host: Host, gaps: list[Gap], processes: Collection[Process], *, deadline_s: float = DEADLINE_S
) -> tuple[Redis, ...]:
    """The servers among these processes. What may not be read, or was not answered, is a gap, and named in it."""
    found = []
    problems: Problems = {}
    until = monotonic() + deadline_s
    family = {one.pid: (one, path) for one, path in running(host, processes, _PROGRAMS) if one.comm == _NAME}
    for process, program in family.values():
        if process.ppid in family:  # a child that saves
            continue
        started = read_started(host, process, program, (), problems)
        title = _title(host, process)
        if started is None or title.endswith("[sentinel]"):
            continue
        told_gaps: list[Gap] = []
        files = Files(host, process, told_gaps, [], [])
        told = _read_settings(files, started.words, title)
        answers: list[str | list[str]] = []
        try:
            if host.root:
                raise NoAnswer("it is a capture")
            path, port = _address(told, title)
            answers = ask(host, process, _ASKED, path=path, port=port, until=until)
        except NoAnswer as reason:
            if not host.root:
                hint = "what its file says is taken" if told.origins else "CONFIG GET maxmemory, asked by hand, tells"
                told_gaps.append(Gap(place=f"{_NAME}, process {process.pid}", reason=str(reason), hint=hint))
            gaps += told_gaps
            found.append(_by_files(process, told, (ITSELF, *files.unseen)))
        else:
            found.append(_by_answers(host, process, answers))
    tell(problems, gaps)
    return tuple(found)


# -- what it says ------------------------------------------------------------------------------------------------------

_GET = ("save", "client-output-buffer-limit", "repl-backlog-size")  # never `*`: passwords are among them
_ASKED = (("INFO",), *(("CONFIG", "GET", name) for name in _GET))


def talk(host: Host, process: Process, *commands: tuple[str, ...]) -> list[str | list[str]]:
    """What the server that this process is answers to these commands. Raises NoAnswer."""
    for one, program in running(host, (process,), _PROGRAMS):
        started, title = read_started(host, one, program, (), {}), _title(host, one)
        told = _read_settings(Files(host, one, [], [], []), started and started.words, title)
        path, port = _address(told, title)
        return ask(host, one, (("INFO",), *commands), path=path, port=port, until=monotonic() + DEADLINE_S)[1:]
    raise NoAnswer("it is no Redis server")


def _address(told: Told, title: str) -> tuple[str, int]:
    """The path of its socket, if it has one, and its port."""
    path = " ".join(told.values.get("unixsocket", ())) or title.partition("unixsocket:")[2].partition(" ")[0]
    port = _number(told, "port")
    return path, 6379 if port is None else port


def _by_answers(host: Host, process: Process, answers: Sequence[str | list[str]]) -> Redis:
    """INFO is a text, each setting a list of its name and its value; a text in its place says why it is refused."""
    info = parse_info(answers[0]) if isinstance(answers[0], str) else {}
    told = Told({}, {})
    for name, answer in zip(_GET, answers[1:], strict=True):
        if isinstance(answer, list) and len(answer) == 2 and answer[0] == name:
            told.put(name, answer[1].split() or [""], ITSELF)
    for name, field in (("maxmemory", "maxmemory"), ("maxmemory-policy", "maxmemory_policy"), ("port", "tcp_port")):
        if field in info:
            told.put(name, [info[field]], ITSELF)
    if "aof_enabled" in info:
        told.put("appendonly", ["yes" if info["aof_enabled"] == "1" else "no"], ITSELF)
    cow = [
        size for size in (_digits(info, "rdb_last_cow_size"), _digits(info, "aof_last_cow_size")) if size is not None
    ]
    status = info.get("rdb_last_bgsave_status")
    return _redis(
        process,
        told,
        unseen=tuple(name for name in _GET if name not in told.values),
        redis_version=info.get("redis_version", "")[:20] or None,
        config_file=_same_file(host, process, info.get("config_file", "")),
        replicas=_digits(info, "connected_slaves"),
        used_memory_bytes=_digits(info, "used_memory"),
        used_memory_peak_bytes=_digits(info, "used_memory_peak"),
        last_cow_bytes=max(cow, default=None),
        last_save_failed=None if status is None else status != "ok",
    )


def _same_file(host: Host, process: Process, path: str) -> str | None:
    """A path that leads us where it leads the process; else None.

    None too of one in a container: what is in its files, and where they lie, is for its root to choose, and he is no
    root of ours.
    """
    if not path.startswith("/") or os.path.normpath(path) != path or not _is_beside_us(process):
        return None
    try:
        with reached(host, process, path) as step:
            return path if os.path.samestat(os.fstat(step), os.stat(host.at(path))) else None
    except (OSError, ValueError):  # ValueError: a NUL in it; anybody may call himself redis-server, and say so
        return None


def _is_beside_us(process: Process) -> bool:
    """Is it in our own namespace of pids? A container is in one of its own."""
    try:
        return os.path.samestat(*(os.stat(f"/proc/{who}/ns/pid") for who in (process.pid, "self")))
    except OSError:
        return False


def parse_info(text: str) -> dict[str, str]:
    """The fields of an answer to INFO, the first of each name."""
    fields: dict[str, str] = {}
    for line in text.split("\r\n"):
        name, colon, value = line.partition(":")
        if colon:
            fields.setdefault(name, value)
    return fields


def _digits(fields: Mapping[str, str], name: str) -> int | None:
    value = fields.get(name, "")
    return int(value) if re.fullmatch("[0-9]{1,18}", value) else None


# -- what its files say ------------------------------------------------------------------------------------------------


def _by_files(process: Process, told: Told, unseen: tuple[str, ...]) -> Redis:
    return _redis(process, told, unseen=unseen)


def _title(host: Host, process: Process) -> str:
    """What it shows in place of its command line: "redis-server 127.0.0.1:6379 [cluster]"."""
    try:
        data = host.read(f"/proc/{process.pid}/cmdline", 4096)
    except OSError:  # it has gone, or was not captured
        return ""
    return data.partition(b"\0")[0].decode(errors="backslashreplace")


def _read_settings(files: Files, words: Sequence[str] | None, title: str) -> Told:
    """Of the file on the command line, then its options; if these cannot be seen, of a usual file for its port."""
    shown = re.search(r" \S*:([0-9]{1,5})(?: |$)", title)
    if words is not None and len(words) > 1:
        told = Told({}, {})
        if words[1].startswith("/"):
            _read_file(files, told, words[1], 0)
        elif not words[1].startswith("-"):  # from the folder in which it was started, which it has left
            files.unseen.append(words[1])
        for name, *value in read_options(words[1:]):
            told.put(name, value, "command line")
        return told
    for path in _USUAL:
        told = Told({}, {})
        _read_file(files, told, path, 0)
        if told.values and shown is not None and int(shown[1]) == (_number(told, "port") or 6379):
            return told
    told = Told({}, {})
    if shown is not None:
        told.put("port", [shown[1]], "title")
    return told


def read_options(words: Sequence[str]) -> Iterator[list[str]]:
    """The options of a command line, each with its words; `--` begins one (main() in src/server.c)."""
    option: list[str] = []
    for word in words:
        if word.startswith("--") and len(word) > 2:
            if option:
                yield option
            option = [word[2:].lower()]
        elif option:
            option.append(word)
    if option:
        yield option


def _read_file(files: Files, told: Told, path: str, depth: int) -> None:
    text = files.text(path)
    if text is None:
        return
    settings, odd = parse_file(text)
    files.odd(path, odd)
    for line, name, words in settings:
        if name == "include" and words and depth < DEEP:
            for one in _matching(files, words[0]):
                _read_file(files, told, one, depth + 1)
        else:
            told.put(name, words, f"{path}:{line}")


def _matching(files: Files, path: str) -> list[str]:
    """A path, or those that fit where its last part has `*` or `?`, since 7.0; others than that are not followed."""
    folder, _, last = path.rpartition("/")
    if not re.search(r"[*?]", last):
        return [path]
    fits = re.compile("".join({"*": "[^/]*", "?": "[^/]"}.get(char, re.escape(char)) for char in last))
    return [f"{folder}/{name}" for name in files.names(folder or ".") if fits.fullmatch(name) and name[0] != "."]


def parse_file(text: str) -> tuple[list[tuple[int, str, list[str]]], int]:
    r"""The settings of a file: line, name, words; and how many lines have quotes that do not end.

    >>> parse_file('maxmemory 100mb\n# all\nSAVE ""\n dir "a b\n')
    ([(1, 'maxmemory', ['100mb']), (3, 'save', [''])], 1)
    """
    settings, odd = [], 0
    for number, line in enumerate(text.split("\n"), 1):
        line = line.strip(" \t\r")
        if not line or line.startswith("#"):
            continue
        words = re.findall(_WORD, line)
        if not words or re.sub(_WORD, "", line).strip():
            odd += 1
            continue
        name, *rest = [_unquoted(word) for word in words]
        settings.append((number, name.lower(), rest))
    return settings, odd


_WORD = r"\"(?:[^\"\\]|\\.)*\"(?!\S)|'(?:[^'\\]|\\.)*'(?!\S)|[^\s\"']\S*"  # sdssplitargs() in src/sds.c


def _unquoted(word: str) -> str:
    return re.sub(r"\\(.)", r"\1", word[1:-1]) if word[:1] in ("'", '"') else word


# -- the noun ----------------------------------------------------------------------------------------------------------


def _redis(
    process: Process,
    told: Told,
    *,
    unseen: tuple[str, ...],
    redis_version: str | None = None,
    config_file: str | None = None,
    replicas: int | None = None,
    used_memory_bytes: int | None = None,
    used_memory_peak_bytes: int | None = None,
    last_cow_bytes: int | None = None,
    last_save_failed: bool | None = None,
) -> Redis:
    policy, only, save = _word(told, "maxmemory-policy"), _word(told, "appendonly"), told.values.get("save")
    return Redis(
        pid=process.pid,
        start_ticks=process.start_ticks,
        redis_version=redis_version,
        port=_number(told, "port"),
        config_file=config_file,
        maxmemory_bytes=parse_size(_word(told, "maxmemory")),
        maxmemory_policy=policy if re.fullmatch("[a-z-]{1,30}", policy) else None,
        save=None if save is None or not all(re.fullmatch("[0-9]{0,10}", word) for word in save) else " ".join(save),
        appendonly={"yes": True, "no": False}.get(only.lower()),
        replica_buffer_bytes=_replica_buffer(told.values.get("client-output-buffer-limit", ())),
        repl_backlog_size_bytes=parse_size(_word(told, "repl-backlog-size")),
        replicas=replicas,
        used_memory_bytes=used_memory_bytes,
        used_memory_peak_bytes=used_memory_peak_bytes,
        last_cow_bytes=last_cow_bytes,
        last_save_failed=last_save_failed,
        origins=tuple(told.origins.items()),
        unseen=unseen,
    )


def _word(told: Told, name: str) -> str:
    words = told.values.get(name, ())
    return words[0] if words else ""


def _number(told: Told, name: str) -> int | None:
    word = _word(told, name)
    return int(word) if re.fullmatch("[0-9]{1,5}", word) else None


def _replica_buffer(words: Sequence[str]) -> int | None:
    """The hard limit of the last "replica HARD SOFT SECONDS"; "slave" before 5."""
    found = None
    for name, hard in zip(words[::4], words[1::4], strict=False):
        if name.lower() in ("replica", "slave"):
            found = parse_size(hard)
    return found


def parse_size(text: str) -> int | None:
    """A size as Redis reads it: k is 1000, kb is 1024 (memtoull() in src/util.c).

    >>> parse_size("100mb"), parse_size("1G"), parse_size("0"), parse_size("-1")
    (104857600, 1000000000, 0, None)
    """
    match = re.fullmatch(r"([0-9]{1,18})([kmg]?)(b?)", text.lower())
    if match is None:
        return None
    value = int(match[1]) * (KIB if match[3] else 1000) ** " kmg".index(match[2] or " ")
    return value if value < 1 << 60 else None

"""Java virtual machines among the processes, and what they were told about memory: HotSpot's flags.

They are told in this order, and what is told later counts: JAVA_TOOL_OPTIONS, JDK_JAVA_OPTIONS, the command line,
_JAVA_OPTIONS (Arguments::parse() in src/hotspot/share/runtime/arguments.cpp). The launcher puts in the words of @files,
up to the main class (src/java.base/share/native/libjli/args.c).
"""

import posixpath
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import NamedTuple

from reprieve.machine.cmdline import Started, read_file, read_started, running
from reprieve.machine.host import Host
from reprieve.machine.proc import Problems, tell
from reprieve.model.application import Jvm
from reprieve.model.finding import Gap
from reprieve.model.process import Process
from reprieve.units import KIB

VARIABLES = ("JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS")
_MOST_FILES = 32
_File = Callable[[str], str | None]  # a path, as the process sees it → its text; None: we may not read it


class Told(NamedTuple):
    """Flags by HotSpot's names, each with where it was told last; and where more may be told."""

    flags: dict[str, int | float | bool | str]
    origins: dict[str, str]
    unseen: list[str]


def read_jvms(host: Host, gaps: list[Gap], processes: Collection[Process]) -> tuple[Jvm, ...]:
    """The JVMs among these processes. What may not be read is a gap, and named in the JVM it is about."""
    found = []
    problems: Problems = {}
    for process, program in running(host, processes, ("java",)):
        if not _maps_hotspot(host, process):
            continue
        started = read_started(host, process, program, VARIABLES, problems)
        if started is None:
            continue
        version = None if program is None else _version(host, process, program)

        def file(path: str, process: Process = process) -> str | None:
            return read_file(host, process, path)

        found.append(_jvm(process, version, read_told(started, file, old=version is not None and version[:3] == "1.8")))
    tell(problems, gaps)
    return tuple(found)


def read_told(started: Started, file: _File, *, old: bool = False) -> Told:
    """The flags of a JVM from what it was started with; `old`: Java 8, whose launcher knows no files of words."""
    told = Told({}, {}, [])
    environ = started.environ or {}
    if started.environ is None:
        told.unseen.append("environment")
    if started.words is None:
        told.unseen.append("command line")
    _take(told, _split(environ.get("JAVA_TOOL_OPTIONS", "")), "JAVA_TOOL_OPTIONS", file)
    if not old:
        words = _expanded(_split(environ.get("JDK_JAVA_OPTIONS", "")), file, told.unseen)
        _take(told, words, "JDK_JAVA_OPTIONS", file)
    words = _expanded((started.words or ())[1:], file, told.unseen, expands=not old)
    _take(told, words, "command line", file)
    _take(told, _split(environ.get("_JAVA_OPTIONS", "")), "_JAVA_OPTIONS", file)
    return told


def _jvm(process: Process, version: str | None, told: Told) -> Jvm:
    def number(name: str) -> int | None:
        value = told.flags.get(name)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def share(name: str) -> float | None:
        value = told.flags.get(name)
        return value if isinstance(value, float) else None

    collector, support = told.flags.get("UseGC"), told.flags.get("UseContainerSupport")
    return Jvm(
        pid=process.pid,
        start_ticks=process.start_ticks,
        java_version=version,
        collector=collector if isinstance(collector, str) else None,
        max_heap_size_bytes=number("MaxHeapSize"),
        initial_heap_size_bytes=number("InitialHeapSize"),
        max_ram_bytes=number("MaxRAM"),
        max_ram_percentage=share("MaxRAMPercentage"),
        min_ram_percentage=share("MinRAMPercentage"),
        initial_ram_percentage=share("InitialRAMPercentage"),
        max_metaspace_size_bytes=number("MaxMetaspaceSize"),
        max_direct_memory_size_bytes=number("MaxDirectMemorySize"),
        reserved_code_cache_size_bytes=number("ReservedCodeCacheSize"),
        thread_stack_size_bytes=number("ThreadStackSize"),
        use_container_support=support if isinstance(support, bool) else None,
        origins=tuple(told.origins.items()),
        unseen=tuple(dict.fromkeys(told.unseen)),
    )


# -- one option --------------------------------------------------------------------------------------------------------

_SHORT = {"-Xmx": "MaxHeapSize", "-Xms": "InitialHeapSize", "-Xss": "ThreadStackSize"}
_SIZES = (
    "MaxHeapSize",
    "InitialHeapSize",
    "MaxRAM",
    "MaxMetaspaceSize",
    "MaxDirectMemorySize",
    "ReservedCodeCacheSize",
)
_SHARES = {f"{name}RAMPercentage": f"{name}RAMFraction" for name in ("Max", "Min", "Initial")}


_COLLECTORS = tuple(f"{name}GC" for name in "G1 Serial Parallel ParallelOld ConcMarkSweep Z Shenandoah Epsilon".split())


def _take(told: Told, words: Iterable[str], origin: str, file: _File) -> None:
    for word in words:
        if word.startswith("-XX:VMOptionsFile="):  # since 9; its options count as if they stood here
            text = file(word.partition("=")[2])
            if text is None:
                told.unseen.append("option file")
            else:
                _take(told, (one for one in _split(text) if "VMOptionsFile" not in one), origin, file)
        elif (flag := parse_option(word)) is not None:
            name, value = flag
            told.flags[name] = value
            told.origins.pop(name, None)
            told.origins[name] = origin


def parse_option(word: str) -> tuple[str, int | float | bool | str] | None:
    """A flag that bears on memory, by HotSpot's name of it, and its value in bytes or percent; None: some other word.

    >>> parse_option("-Xmx2g"), parse_option("-XX:MaxRAMPercentage=75"), parse_option("-XX:+UseSerialGC")
    (('MaxHeapSize', 2147483648), ('MaxRAMPercentage', 75.0), ('UseGC', 'Serial'))
    """
    if (name := _SHORT.get(word[:4])) is not None:
        size = parse_bytes(word[4:])
        return None if size is None else (name, size)
    if not word.startswith("-XX:"):
        return None
    if word[5:] == "UseContainerSupport":
        return word[5:], word[4] == "+"
    if word.startswith("-XX:+Use") and word[8:] in _COLLECTORS:
        return "UseGC", word[8:].removesuffix("GC")
    name, _, value = word[4:].partition("=")
    if name in _SIZES:
        size = parse_bytes(value)
        return None if size is None else (name, size)
    if name == "ThreadStackSize" and re.fullmatch("[0-9]{1,9}", value):  # counted in KiB
        return name, int(value) * KIB
    for share, fraction in _SHARES.items():
        if name == share and re.fullmatch(r"[0-9]{1,3}(?:\.[0-9]{0,9})?", value) and float(value) <= 100:
            return share, float(value)
        if name == fraction and re.fullmatch("[1-9][0-9]{0,8}", value):  # before 10; an older way to say the same
            return share, 100 / int(value)
    return None


def parse_bytes(text: str) -> int | None:
    """A size as HotSpot reads it: digits or 0x…, and k, m, g or t; None: it is none, or more than can be.

    >>> parse_bytes("512m"), parse_bytes("0x10K"), parse_bytes("1.5g")
    (536870912, 16384, None)
    """
    match = re.fullmatch(r"(0[xX][0-9a-fA-F]{1,16}|[0-9]{1,19})([kKmMgGtT]?)", text)
    if match is None:
        return None
    value = int(match[1], 0 if match[1][:2] in ("0x", "0X") else 10) * KIB ** " kmgt".index(match[2].lower() or " ")
    return value if 0 < value < 1 << 63 else None


# -- words -------------------------------------------------------------------------------------------------------------


def _split(text: str) -> list[str]:
    """The words of a variable: blanks part them, quotes of either kind hold them together and are taken off."""
    return [
        re.sub(r"'([^']*)'?|\"([^\"]*)\"?", lambda match: match[1] or match[2] or "", word)
        for word in re.findall(r"(?:'[^']*'?|\"[^\"]*\"?|[^\s'\"])+", text)
    ]


def split_file(text: str) -> list[str]:
    r"""The words of an @file: as in a variable, and `#` begins a comment; in quotes `\` escapes, also a line's end.

    >>> split_file("-Xmx1g # not -Xmx2g\n'-Da=b c' \"-Dd=e\\\n   f\"")
    ['-Xmx1g', '-Da=b c', '-Dd=ef']
    """
    words: list[str] = []
    word, quote, at = "", "", 0
    begun, blanks = False, re.compile(r"[\r\n\t \f]+")
    while at < len(text):
        char = text[at]
        at += 1
        if quote and char == "\\" and at < len(text):
            if text[at] in "\r\n":
                at = blank.end() if (blank := blanks.match(text, at)) else at
            else:
                word += _ESCAPED.get(text[at], text[at])
                at += 1
        elif char in ("\r\n" if quote else " \t\r\n\f#"):  # a quote ends with its line
            if begun:
                words.append(word)
            word, quote, begun = "", "", False
            if char == "#":
                end = text.find("\n", at)
                at = len(text) if end < 0 else end
        elif char == quote:
            quote = ""
        elif not quote and char in "'\"":
            quote, begun = char, True
        else:
            word, begun = word + char, True
    return [*words, word] if begun else words


_ESCAPED = {"n": "\n", "r": "\r", "t": "\t", "f": "\f"}
# Options of the launcher whose value is the next word: IsWhiteSpaceOption() in java.c.
_WITH_WORD = frozenset(
    "-cp -classpath --class-path --describe-module -d --source --module-path -p --upgrade-module-path --add-modules "
    "--enable-native-access --limit-modules --add-exports --add-opens --add-reads --patch-module".split()
)


def _expanded(words: Iterable[str], file: _File, unseen: list[str], *, expands: bool = True) -> Iterator[str]:
    """The words up to the main class, those of @files among them: checkArg() and JLI_PreprocessArg() in args.c."""
    expects, files = False, 0
    for word in words:
        inner: Iterable[str] = (word,)
        if expands and word.startswith("@") and len(word) > 1:
            files += 1
            text = None if word.startswith("@@") or files > _MOST_FILES else file(word[1:])
            if text is not None:
                inner = split_file(text)
            elif not word.startswith("@@"):
                unseen.append("option file")
                continue
        for one in inner:
            if not one.startswith("-"):
                if not expects:
                    return
                expects = False
                continue
            yield one
            if one in ("-jar", "-m", "--module") or one.startswith("--module="):
                return
            expects = one in _WITH_WORD
            expands = expands and one != "--disable-@files"


# -- who it is ---------------------------------------------------------------------------------------------------------


def _maps_hotspot(host: Host, process: Process) -> bool:
    """Has it loaded HotSpot? Anything can be called java. Yes where we may not know; OpenJ9 has other flags."""
    try:
        maps = host.read(f"/proc/{process.pid}/maps")
    except OSError:
        return True
    return b"/libjvm.so" in maps and b"/libj9vm" not in maps


def _version(host: Host, process: Process, program: str) -> str | None:
    """What the file `release` says, beside the folder of the program; of Java 8 it may be one higher."""
    home = posixpath.dirname(posixpath.dirname(program))
    for folder in (home, posixpath.dirname(home)):
        text = read_file(host, process, f"{folder}/release") or ""
        if match := re.search(r'^JAVA_VERSION="([0-9][0-9._]{0,30})"$', text, re.MULTILINE):
            return match[1]
    return None

"""Node.js among the processes, and what it was told about memory: options of V8, in NODE_OPTIONS or before the script.

The command line counts more than NODE_OPTIONS, of two the later one (doc/api/cli.md of Node.js).
"""

import posixpath
import re
from collections.abc import Collection, Iterable, Iterator

from reprieve.machine.cmdline import Started, read_file, read_started, running
from reprieve.machine.host import Host
from reprieve.machine.proc import Problems, tell
from reprieve.model.application import NodeJs
from reprieve.model.finding import Gap
from reprieve.model.process import Process
from reprieve.units import MIB


def read_nodes_js(host: Host, gaps: list[Gap], processes: Collection[Process]) -> tuple[NodeJs, ...]:
    """The Node.js processes among these. What may not be read is a gap, and named in the process it is about."""
    found = []
    problems: Problems = {}
    for process, program in running(host, processes, ("node", "nodejs")):
        if process.threads == 1:  # Node starts threads before it runs a line: it is something else of that name
            continue
        started = read_started(host, process, program, ("NODE_OPTIONS",), problems)
        if started is not None:
            found.append(_node(process, None if program is None else _version(host, process, program), started))
    tell(problems, gaps)
    return tuple(found)


def _node(process: Process, version: str | None, started: Started) -> NodeJs:
    values, origins = read_told(started)

    def size(name: str) -> int | None:
        value = values.get(name)
        return None if value is None or not value.isdecimal() or not 0 < int(value) < 1 << 40 else int(value) * MIB

    share = values.get(_PERCENTAGE, "")
    unseen = [("environment", started.environ), ("command line", started.words)]
    return NodeJs(
        pid=process.pid,
        start_ticks=process.start_ticks,
        node_version=version,
        max_old_space_size_bytes=size("max-old-space-size"),
        max_old_space_size_percentage=float(share) if re.fullmatch(r"[0-9]{1,3}(?:\.[0-9]{1,9})?", share) else None,
        max_semi_space_size_bytes=size("max-semi-space-size"),
        max_heap_size_bytes=size("max-heap-size"),
        origins=tuple(origins.items()),
        unseen=tuple(name for name, told in unseen if told is None),
    )


_PERCENTAGE = "max-old-space-size-percentage"
_NAMES = ("max-old-space-size", _PERCENTAGE, "max-semi-space-size", "max-heap-size")


def read_told(started: Started) -> tuple[dict[str, str], dict[str, str]]:
    """Options by their names, each with its value, and with where it was told."""
    values: dict[str, str] = {}
    origins: dict[str, str] = {}
    variable = split_options((started.environ or {}).get("NODE_OPTIONS", ""))
    for origin, words in (("NODE_OPTIONS", variable), ("command line", _options((started.words or ())[1:]))):
        for word in words:
            name, equals, value = word.removeprefix("--").partition("=")
            name = name.replace("_", "-")  # V8 takes both
            if word.startswith("--") and equals and name in _NAMES and re.fullmatch(r"[0-9.]{1,20}", value):
                values[name] = value
                origins.pop(name, None)
                origins[name] = origin
    return values, origins


# Options whose value may be the next word. Of one that is not known the next word is taken for the script, and what
# follows it is not read: so an option of ours is overlooked, never one of the script's taken for ours.
_WITH_WORD = frozenset(
    "-e --eval -p --print -pe -r --require -C --conditions --import --loader --experimental-loader --title "
    "--input-type --env-file --inspect-port --icu-data-dir --openssl-config --redirect-warnings --diagnostic-dir "
    "--dns-result-order --unhandled-rejections --disable-warning --watch-path --test-reporter".split()
)


def _options(words: Iterable[str]) -> Iterator[str]:
    """The words before the script."""
    expects = False
    for word in words:
        if expects:
            expects = False
        elif word == "--" or not word.startswith("-") or word == "-":
            return
        else:
            yield word
            expects = word in _WITH_WORD


def split_options(text: str) -> list[str]:
    r"""The words of NODE_OPTIONS: blanks part them, double quotes hold together, in them `\` escapes.

    ParseNodeOptionsEnvVar() in src/node_options.cc.

    >>> split_options('--require "./a b.js" "--max-old-space-size=300"')
    ['--require', './a b.js', '--max-old-space-size=300']
    """
    words: list[str] = []
    word, quoted, begun, escaped = "", False, False, False
    for char in text:
        if escaped:
            word, escaped = word + char, False
        elif quoted and char == "\\":
            escaped = True
        elif char == '"':
            quoted, begun = not quoted, True
        elif char == " " and not quoted:
            if begun:
                words.append(word)
            word, begun = "", False
        else:
            word, begun = word + char, True
    return [*words, word] if begun else words


def _version(host: Host, process: Process, program: str) -> str | None:
    """Of the header file that is installed beside it, by most but the distributions."""
    folder = posixpath.dirname(posixpath.dirname(program))
    text = read_file(host, process, f"{folder}/include/node/node_version.h") or ""
    numbers = [re.search(rf"^#define NODE_{part}_VERSION ([0-9]{{1,4}})$", text, re.MULTILINE) for part in _PARTS]
    return ".".join(match[1] for match in numbers if match) if all(numbers) else None


_PARTS = ("MAJOR", "MINOR", "PATCH")

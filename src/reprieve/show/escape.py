"""The one place where text of strangers is made harmless: for a terminal, Markdown, HTML, JSON and a shell.

A process chooses its name, a user the path of a cgroup, anybody may write to a log. Nothing of that may move a cursor,
turn the direction of writing, end a line, make an element or a link, or become a second word of a command.
"""

from collections.abc import Callable, Iterable
from functools import cache, lru_cache
from itertools import pairwise

from reprieve.model.finding import NAME_END, NAME_START

TYPE_CHECKING = False
if TYPE_CHECKING:
    import re

# Printable by Unicode's categories, and yet drawn as nothing: fillers, variation selectors, the blank Braille pattern.
_UNSEEN = frozenset(
    {
        *(0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0),
        *(*range(0x180B, 0x1810), *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)),
    }
)
_PLAIN = r"[A-Za-z0-9_./:@%+,=~#\[\]()-]+"  # a name of these needs no quotes to be seen as one
_OURS = (  # the words of which `oom.paths` makes the name of a workload
    " all and cgroup container containerd containers CRI-O Docker group in Kubernetes LXC machine machines manager "
    "monitor of pod Podman pods programs root scope service services session snap system systemd-nspawn the user users "
    "virtual "
)


def visible(text: str) -> str:
    """Each character that acts, hides or cannot be drawn as `\\xNN`, `\\uNNNN` or `\\UNNNNNNNN`; others as they are.

    >>> visible("a\\x1b[31m\\u202eb\\n")
    'a\\\\x1b[31m\\\\u202eb\\\\x0a'
    """
    if text.isprintable() and (text.isascii() or _UNSEEN.isdisjoint(map(ord, text))):
        return text
    return "".join(char if _is_seen(char) else _spell(char) for char in text)


def _is_seen(char: str) -> bool:
    return char.isprintable() and ord(char) not in _UNSEEN


def _spell(char: str) -> str:
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def parts(marked: str) -> tuple[tuple[str, bool], ...]:
    """Text with names marked by `quote`, cut into (text made visible, is it a name?)."""
    return tuple((visible(piece), is_name) for piece, is_name in _cut(marked))


def _cut(marked: str) -> list[tuple[str, bool]]:
    """The same as it stands there; a mark that has no other is a part of the text."""
    first, *rest = marked.split(NAME_START)
    pieces = [(first, False)] if first or not rest else []
    for piece in rest:
        inside, end, behind = piece.partition(NAME_END)
        pieces.append((inside, True) if end else (NAME_START + piece, False))
        if behind:
            pieces.append((behind, False))
    return pieces


def plain(marked: str) -> str:
    """For a terminal: names in quotes where they could be taken for words of ours.

    >>> plain("\\x02nginx\\x03 and \\x02all is well\\x03 died")
    'nginx and “all is well” died'
    """
    return "".join([name(piece) if is_name else visible(piece) for piece, is_name in _cut(marked)])


@lru_cache(64)  # a victim is named in most lines about it
def name(text: str) -> str:
    """One name for a terminal, in quotes where it could be taken for words of ours, or is not made as paths are."""
    import re

    shown = visible(text)
    words = shown.split(" ")
    ours = [f" {word} " in _OURS for word in words]
    alone = len(words) == 1 or (any(ours) and all(one or two for one, two in pairwise(ours)))
    if alone and all(re.fullmatch(_PLAIN, word) for word in words):
        return shown
    return "“" + shown.replace("“", "\\u201c").replace("”", "\\u201d") + "”"


def markdown(marked: str) -> str:
    """For Markdown: names as code, which neither links nor emphasises; all else means nothing but itself."""
    return "".join(code(text) if is_name else _markdown_text(text) for text, is_name in parts(marked))


def _markdown_text(text: str) -> str:
    import re

    return re.sub(r"([\\`*{}\[\]<>#|~&$@!]|(?<!\w)_|_(?!\w)|:(?=//)|(?<=www)\.)", r"\\\1", text)


def code(text: str) -> str:
    """A code span that holds just this text, also inside a table: `|` is spelled `\\x7c`, as it would end the cell.

    >>> code("a`b|c")
    '``a`b\\\\x7cc``'
    """
    shown = visible(text).replace("|", "\\x7c") or "\\x20"
    tick = "`" * (_longest_run(shown) + 1)
    pad = " " if shown.startswith(("`", " ")) or shown.endswith(("`", " ")) else ""
    return f"{tick}{pad}{shown}{pad}{tick}"


def fence(lines: Iterable[str], language: str = "text") -> list[str]:
    """A fenced block of these lines, whatever they hold."""
    shown = [visible(line) for line in lines]
    mark = "`" * max(3, 1 + max(map(_longest_run, shown), default=0))
    return [f"{mark}{language}", *shown, mark]


def _longest_run(text: str) -> int:
    import re

    return max(map(len, re.findall("`+", text)), default=0)


def shell(argv: Iterable[str]) -> str:
    """A command line for `sh`, each argument one word; with NUL, or `\\n` at an end, a comment.

    >>> shell(["kill", "a b"]), shell(["echo", "a\\x1b"]), shell(["echo", "\\0"])
    ("kill 'a b'", 'echo "$(printf \\'a\\\\033\\')"', '# no command line can hold the name this is about')
    """
    words = [_word(argument) for argument in argv]
    if None in words:
        return "# no command line can hold the name this is about"
    return " ".join(word for word in words if word is not None)


def _word(argument: str) -> str | None:
    if argument == visible(argument):
        import shlex

        return shlex.quote(argument)
    if "\0" in argument or argument.endswith("\n"):  # $(...) takes line ends off
        return None
    # POSIX has no other way to write a byte that is not itself shown. All but letters and digits is octal: `!` and `\`
    # mean something even here, and a `-` at the start would be an option of printf.
    octal = "".join(
        chr(byte) if byte < 0x80 and chr(byte).isalnum() else f"\\{byte:03o}"
        for byte in argument.encode("utf-8", "backslashreplace")
    )
    return f"\"$(printf '{octal}')\""


def json_line(document: bytes) -> str:
    """A JSON document as pure ASCII: no reader is moved by a name in it, and every value stays exact."""
    text = document.decode()
    if not text.isascii():
        text = "".join(char if char < "\x80" else _json_escape(char) for char in text)
    return text.replace("\x7f", "\\u007f")


def _json_escape(char: str) -> str:
    utf16 = char.encode("utf-16-be")
    return "".join(f"\\u{utf16[at]:02x}{utf16[at + 1]:02x}" for at in range(0, len(utf16), 2))


def columns(text: str) -> int:
    """How many columns of a terminal the text takes."""
    if text.isascii():
        return len(text)
    if _wide_in()(text) is None:
        return len(text)
    import unicodedata

    return sum(0 if unicodedata.combining(char) else 1 + (unicodedata.east_asian_width(char) in "WF") for char in text)


@cache
def _wide_in() -> "Callable[[str], re.Match[str] | None]":
    """What may not be one column: all but Latin letters, dashes, quotes, arrows and bars."""
    import re

    return re.compile(r"[^\0-\u02ff\u2010-\u25ff]").search


def cut_within(text: str, width: int) -> str:
    """The text with `…` for a part before its end, so that it is that wide.

    >>> cut_within(" of /user.slice/user-1000.slice/app.slice/web.service", 40)
    ' of /user.…0.slice/app.slice/web.service'
    """
    if columns(text) <= width:
        return text
    begin = width // 4
    rest = text[begin:]
    while rest and columns(rest) > width - begin - 1:
        rest = rest[1:]
    return f"{text[:begin]}…{rest}"


def cut(text: str, width: int) -> str:
    """The text, ended by `…` where it would be wider."""
    if columns(text) <= width:
        return text
    kept = text[: max(width - 1, 0)]
    while kept and columns(kept) > width - 1:
        kept = kept[:-1]
    return kept.rstrip(" ") + "…"

"""How every verb answers: lines on standard output or a page, as wide and as coloured as is welcome; exit statuses."""

import os
import sys
from collections.abc import Callable, Iterable
from errno import EBADF
from functools import cache

from reprieve.machine.source import shown
from reprieve.model.finding import Failure

# Beside 0, 1 (failed) and 2 (usage): something was found, a change was refused, not everything could be read.
FOUND, REFUSED, INCOMPLETE = 3, 4, 5


LEAST = 40  # columns that text needs


def print_lines(lines: Iterable[str]) -> bool:
    """To standard output; False if the reader has left. Raises Failure: there is no room for them."""
    try:
        sys.stdout.writelines(f"{line}\n" for line in lines)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is still in the buffer goes there at the end
        return False
    except OSError as error:
        raise unwritten(error) from error
    return True


def unwritten(error: OSError, what: str = "the answer") -> Failure:
    """That standard output takes nothing more, or was closed from the start."""
    hint = "give it an open standard output" if error.errno == EBADF else "write it where there is room"
    return Failure(f"{what} could not be written: {error.strerror}", hint=hint)


def write(path: str, text: str) -> str:
    """A page, to a file; what to say of it: of `-`, standard output, the page itself. Raises Failure."""
    from reprieve.show.escape import visible

    if path == "-":
        return text.rstrip("\n")

    refuse_to_lose(path, lambda begin: _OF_A_PAGE in begin)
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise Failure(f"{shown(path)}: {error.strerror}", hint="name a file that can be written") from error
    return f"written: {visible(shown(path))}"


_OF_A_PAGE = b'<meta name="generator" content="reprieve">'  # in the first lines of each page
_BEGIN = 512  # bytes


def refuse_to_lose(path: str, is_ours: Callable[[bytes], bool]) -> None:
    """Whoever slips writes over a log: only what begins as ours do is replaced, or is empty. Raises Failure."""
    try:
        if not os.path.isfile(path):
            return
        with open(path, "rb") as file:
            begin = file.read(_BEGIN)
    except OSError:  # who may not read it is told when it is written to
        return
    if begin and not is_ours(begin):
        raise Failure(f"{shown(path)} is there, and holds something else", hint="name another file, or remove that one")


def width() -> int:
    """Columns for text: those of the terminal, between 40 and 120; 80 without one.

    Commands are never cut, nor are rows of figures: they may be longer.
    """
    return max(LEAST, min(columns(), 120))  # below that figures do not fit beside their names


def columns() -> int:
    """Of the terminal, as COLUMNS or it tells; 80 without one."""
    told = os.environ.get("COLUMNS", "")  # as shutil.get_terminal_size() has it, whose module loads three decompressors
    if told.isdecimal() and int(told):
        return int(told)
    if not _is_terminal():
        return 80
    try:
        return os.get_terminal_size(1).columns or 80
    except OSError:  # it was closed
        return 80


@cache
def _is_terminal() -> bool:
    """Is it one that this process writes to? Each event of a log asks, and it does not become one."""
    return os.isatty(1)


def can_ask() -> bool:
    """Is there somebody who can answer a question?"""
    return sys.stdin is not None and sys.stdin.isatty()


def colour() -> bool:
    """Are colours welcome? See https://no-color.org. A console of Windows may show their codes."""
    if sys.platform == "win32":
        return False
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

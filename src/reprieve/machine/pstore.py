"""What the kernel left in firmware or reserved memory when it panicked: pstore."""

import os
import re
from collections.abc import Iterator, Sequence
from functools import partial

from reprieve.machine.source import Source, file_source, read_path, unreadable
from reprieve.model.finding import Gap

_FOLDERS = ("/sys/fs/pstore", "/var/lib/systemd/pstore")  # systemd-pstore moves them from the first to the second
_PART = rb"([A-Za-z][\w ]*#\d+) Part(\d+)\n"  # pstore_dump(): why, for the how-manieth time; Part1 is the newest text


def pstore_sources(folders: Sequence[str] = _FOLDERS, *, gaps: list[Gap]) -> list[Source]:
    """A source for each folder that holds records, its parts in the order they were printed. No record is normal."""
    return [source for folder in folders for source in _in_folder(folder, gaps)]


def _in_folder(folder: str, gaps: list[Gap]) -> Iterator[Source]:
    dated: list[tuple[float, str]] = []
    below: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    below.append(entry.path)
                elif entry.name.startswith(("dmesg", "console")):
                    try:
                        dated.append((entry.stat(follow_symlinks=False).st_mtime, entry.path))
                    except OSError as error:  # moved just now, or the folder may be listed and not entered
                        gaps.append(unreadable(entry.path, error))
    except FileNotFoundError:  # no pstore, or moved just now
        return
    except OSError as error:
        gaps.append(unreadable(folder, error))
        return
    joined = [record for record in dated if record[1].endswith("/dmesg.txt")]  # systemd-pstore has done our work
    dated = sorted(joined or dated)
    if len(dated) == 1:
        yield file_source(dated[0][1], "pstore", dated[0][0])
    elif dated:
        yield Source(name=folder, kind="pstore", blocks=partial(_in_order, dated), newest_s=dated[-1][0])
    for path in sorted(below):
        yield from _in_folder(path, gaps)


def _in_order(dated: list[tuple[float, str]], gaps: list[Gap]) -> Iterator[bytes]:
    """The text of the records without their "Oops#1 Part2" lines: a report can begin in one and end in the next.

    Part1 is written first and holds the end of the text: each run of parts that begins with it is turned round.
    """
    records = []
    for modified_s, path in dated:
        text = b"".join(map(bytes, read_path(path, gaps)))  # at most the size of a firmware variable
        match = re.match(_PART, text)
        event, part = (match[1], int(match[2])) if match else (path.encode(errors="surrogateescape"), 1)
        records.append((int(modified_s), event, part, text[match.end() :] if match else text))
    run: list[bytes] = []
    for _, _, part, text in sorted(records):
        if part == 1:
            yield from reversed(run)
            run.clear()
        run.append(text if text.endswith(b"\n") else text + b"\n")
    yield from reversed(run)

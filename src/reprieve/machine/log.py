"""Where kernel lines are to be found: what the arguments name, or all that this machine keeps."""

import os
import re
import stat
import sys
from collections.abc import Iterator, Sequence

from reprieve.machine.host import Identity
from reprieve.machine.source import (
    JOURNAL_MAGIC,
    NOTHING_READ,
    Block,
    Folder,
    Source,
    file_source,
    open_quietly,
    packing_of,
    read_path,
    shown,
    stdin_source,
    unreadable,
)
from reprieve.machine.turned import oldest_first
from reprieve.model.finding import Failure, Gap
from reprieve.oom.counted import COUNT, counted

_KERNEL_LOGS = r"(?:kern\.log|syslog|messages|dmesg)(?:[.-].*)?"  # with rotations: .1, .2.gz, -20260101.zst
_ZIP, _ZIPPED, _UNZIP = b"PK\x03\x04", "is a zip archive", "unpack it, and name what was in it"
_KMSG_DEVICE = 1 << 8 | 11  # major 1, minor 11, as in admin-guide/devices.txt: Windows has no makedev(3)
_IN_TEXT = bytes((*b"\a\b\t\n\v\f\r\x1b", *range(0x20, 0x7F), *range(0x80, 0x100)))  # Latin-1 and colours too
_MOST_FILES = 10_000  # below one folder: a whole system has a hundred times as many that are text
_HOLE = bytes(64)  # a crash leaves zeros where the disk had not yet what was written; they say nothing
_LOOKED_AT_BYTES = 64 * 1024
_STRANGE = 16  # so many bytes are damage, however short the text
_ANOTHER = "name a log, a folder of logs or - for standard input"
if sys.platform != "win32":
    _ANOTHER += "; without one this machine's are read"
_CALLED = (
    "name a log by its path; what runs here, or ran, is asked for as pid:NUMBER, unit:NAME, docker:NAME, podman:NAME "
    "or pod:NAMESPACE/NAME, and kills of a program by --name NAME"
)


def named(arguments: Sequence[str], identity: Identity) -> tuple[list[Source], list[Gap]]:
    """The sources that the arguments name, in their order, the newest of a folder first, and what cannot be read.

    An argument is a file, a folder, an archive, a `.journal` file, a device, a named pipe, or `-` for standard input.
    A file or pipe that turns out empty, or no text, becomes a gap as it is read: it is hardly the one that was meant.
    One that is named twice, or lies in a folder that is named too, is one source.
    Raises Failure if nothing at all can be read.
    """
    sources: list[Source] = []
    gaps: list[Gap] = []
    files = _Files()
    for argument in arguments:
        gaps_before = len(gaps)
        files.turn_to_next()
        found = _stdin(files) if argument == "-" else _named(argument, identity, gaps, files)
        names = ("stdin", shown(argument))  # not what is in a folder or an archive: rotations are often empty
        itself = [told_if_no_log(source) for source in found if source.name in names]
        inside = [source for source in found if source.name not in names]
        lacks_any = files.known > 0 or any(gap.hides for gap in gaps[gaps_before:])
        folder = Folder(shown(argument), len(inside), hides=lacks_any)
        sources += itself + [source._replace(within=folder) for source in inside]
    if not sources:
        gap = gaps[0] if gaps else Gap(place=shown(arguments[0]), reason="holds no log", hint="name a log file")
        is_a_name = sys.platform != "win32" and not any("/" in one or os.path.exists(one) for one in arguments)
        raise Failure(f"{gap.place}: {gap.reason}", hint=_CALLED if is_a_name else gap.hint or _ANOTHER)
    return sources, gaps


def of_this_machine(identity: Identity) -> tuple[list[Source], list[Gap]]:
    """All that this machine keeps of its kernel's words: the buffer, the journal, /var/log, and what crashes left."""
    from reprieve.machine.journal import journal_sources
    from reprieve.machine.kmsg import is_readable, kmsg_source
    from reprieve.machine.pstore import pstore_sources

    gaps: list[Gap] = []
    sources = [kmsg_source(identity), *journal_sources(gaps=gaps)]
    logs = _logs_in("/var/log", gaps)
    why_not: list[Gap] = []
    if not is_readable(why_not):
        if not (sources[1:] or logs or gaps):
            gaps.append(Gap(place="journal", reason="none is kept here, nor a kernel log in /var/log", hides=False))
        if sources[0].kills is not None:
            gaps.append(Gap(place=COUNT, reason=counted(sources[0].kills, "boot", why_not), hides=False))
        sources[0] = sources[0]._replace(kills=None)
    return sources + _newest_first([*logs, *pstore_sources(gaps=gaps)]), gaps


def told_if_no_log(source: Source) -> Source:
    """The same, the oldest line first; that it was empty, or no text, becomes a gap behind its last block."""
    if source.kind not in ("file", "pipe"):
        return source

    def blocks(gaps: list[Gap]) -> Iterator[Block]:
        gaps_before = len(gaps)
        reason: str | None = "is empty"
        for at, block in enumerate(oldest_first(source.blocks(gaps), source.name, gaps)):
            if at == 0:
                reason = None if is_text(block) else _ZIPPED if block.startswith(_ZIP) else "is no text"
            yield block
        if reason is not None and len(gaps) == gaps_before:  # else what was in the way is told already
            hint = _ROTATIONS if source.kind == "file" else _WRITER
            hint = {"is no text": _A_LOG, _ZIPPED: _UNZIP}.get(reason, hint)
            reason = NOTHING_READ if reason == "is empty" and source.name == "stdin" else reason
            gaps.append(Gap(place=source.name, reason=reason, hint=hint))

    return source._replace(blocks=blocks, named=True)


_ROTATIONS = "name its rotations, or no SOURCE at all: then this machine is looked at"
_WRITER = (
    "what should have written to it failed, or found nothing, as grep does; "
    "`reprieve why < /dev/null` looks at this machine"
)
_A_LOG = "name a kernel log: text, packed or not, a .journal file, or an archive of logs"


def is_text(start: Block) -> bool:
    """Can this be the beginning of a log, though damaged? Of a program, a picture or noise 5 to 10 % are control bytes.

    >>> is_text(bytes(4096) + b"caf\\xe9 \\0\\x1b[1m"), is_text(bytes(range(256))), is_text(bytes(4096))
    (True, False, False)
    """
    said = bytes(start[:_LOOKED_AT_BYTES]).replace(_HOLE, b"").rstrip(b"\0")
    strange = len(said.translate(None, _IN_TEXT))
    return bool(said) and not said.startswith(_ZIP) and (strange <= _STRANGE or strange * 25 <= len(said))


class _Files:
    """Those that are sources already, and the argument that made each one."""

    def __init__(self) -> None:
        self._of: dict[tuple[int, int], int] = {}
        self._argument = 0
        self.known = 0  # how many of this argument are of an earlier one

    def turn_to_next(self) -> None:
        """Those of the next argument follow."""
        self._argument += 1
        self.known = 0

    def is_new(self, status: os.stat_result) -> bool:
        """Is it not yet among them? It is from now on."""
        if not status.st_ino:  # Windows does not tell it of what a folder holds
            return True
        one = (status.st_dev, status.st_ino)
        self.known += self._of.get(one, self._argument) != self._argument
        if one in self._of:
            return False
        self._of[one] = self._argument
        return True


def _stdin(files: _Files) -> list[Source]:
    try:
        status = os.fstat(0)
    except OSError:  # closed, as is told where it is read
        return [stdin_source()]
    return [stdin_source()] if files.is_new(status) else []


def _named(path: str, identity: Identity, gaps: list[Gap], files: _Files) -> list[Source]:
    try:
        status = os.stat(path)
    except OSError as error:
        gaps.append(unreadable(path, error))
        return []
    if stat.S_ISDIR(status.st_mode):
        return _in_folder(path, gaps, files)
    if not files.is_new(status):
        return []
    if stat.S_ISREG(status.st_mode):
        return _in_file(path, status.st_mtime, gaps)
    if stat.S_ISFIFO(status.st_mode):
        return [file_source(path, "pipe")]
    if sys.platform != "win32" and stat.S_ISCHR(status.st_mode) and status.st_rdev == _KMSG_DEVICE:
        from reprieve.machine.kmsg import kmsg_source

        return [kmsg_source(identity)]
    kind = "socket" if stat.S_ISSOCK(status.st_mode) else "device"
    gaps.append(Gap(place=shown(path), reason=f"is a {kind}, not a log", hint="name a file, a folder, or - for a pipe"))
    return []


def _in_file(path: str, newest_s: float, gaps: list[Gap]) -> list[Source]:
    if os.path.realpath(path) == "/proc/kmsg":
        reason = "reading it takes the lines away from the log daemon"
        gaps.append(Gap(place=shown(path), reason=reason, hint="read /dev/kmsg, which leaves them there"))
        return []
    try:
        with open_quietly(path) as file:
            start = file.read(512) or b""
    except OSError as error:
        gaps.append(unreadable(path, error))
        return []
    if start.startswith(JOURNAL_MAGIC):
        from reprieve.machine.journal import journal_file_sources

        return journal_file_sources(path, gaps)
    if packing_of(start) is not None:
        start = bytes(next(read_path(path, []), b"")[:512])
    if start[257:262] == b"ustar":
        from reprieve.machine.archive import archive_sources

        return archive_sources(path, gaps)
    return [file_source(path, newest_s=newest_s)]


def _in_folder(folder: str, gaps: list[Gap], files: _Files) -> list[Source]:
    """The logs in a folder and below, newest first; of an unpacked sosreport those that hold kernel lines."""
    is_report = os.path.isdir(os.path.join(folder, "sos_commands"))
    found: list[Source] = []
    for path, status in _files_below(folder, gaps):
        if is_report:
            from reprieve.machine.archive import holds_kernel_lines

            if not holds_kernel_lines(os.path.relpath(path, folder)):
                continue
        elif not _is_log_like(path):
            continue
        if not files.is_new(status):
            continue
        if len(found) >= _MOST_FILES:
            reason = f"holds more than {_MOST_FILES:,} files that may be logs: the others were not read"
            gaps.append(Gap(place=shown(folder), reason=reason, hint="name a folder of logs: /var/log is one"))
            break
        found += _in_file(path, status.st_mtime, gaps)
    return _newest_first(found)


def _files_below(folder: str, gaps: list[Gap]) -> Iterator[tuple[str, os.stat_result]]:
    """Every regular file that holds anything. No link is followed: it could lead in a circle, or anywhere."""
    pending = [folder]
    while pending:
        here = pending.pop()
        try:
            with os.scandir(here) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
                    elif entry.is_file(follow_symlinks=False):
                        status = entry.stat(follow_symlinks=False)
                        if status.st_size:
                            yield entry.path, status
        except OSError as error:
            gaps.append(unreadable(here, error))


def _is_log_like(path: str) -> bool:
    """Text, or compressed, or a journal: not a program's data. One that cannot be opened counts, and becomes a gap."""
    try:
        with open_quietly(path) as file:
            start = file.read(512) or b""
    except OSError:
        return True
    if start.startswith(JOURNAL_MAGIC) or packing_of(start) is not None:
        return True
    return b"\0" not in start or re.search(r"log|messages|dmesg|kern", os.path.basename(path)) is not None


def _logs_in(folder: str, gaps: list[Gap]) -> list[Source]:
    try:
        names = [name for name in os.listdir(folder) if re.fullmatch(_KERNEL_LOGS, name)]
    except OSError as error:
        gaps.append(unreadable(folder, error))
        return []
    found: list[Source] = []
    for name in names:
        path = os.path.join(folder, name)
        try:
            status = os.stat(path)
        except OSError as error:
            gaps.append(unreadable(path, error))
            continue
        if stat.S_ISREG(status.st_mode) and status.st_size:
            found += _in_file(path, status.st_mtime, gaps)
    return found


def _newest_first(sources: list[Source]) -> list[Source]:
    return sorted(sources, key=lambda source: source.newest_s or 0.0, reverse=True)

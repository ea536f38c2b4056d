"""What the files of systemd's units say about memory: their fragments and drop-ins, found and read as systemd does."""

import errno
import os
import re
from collections.abc import Iterator

from reprieve.machine.host import Host
from reprieve.machine.source import shown
from reprieve.model.finding import Gap
from reprieve.model.unit import MEMORY_KEYS, UnitLine

KINDS = ("service", "scope", "slice", "socket", "mount", "swap")  # that have a cgroup
# systemd.unit(5), "Unit File Load Path": what is found first hides what has the same name in those behind.
_FOLDERS = (
    *("/etc/systemd/system.control", "/run/systemd/system.control", "/run/systemd/transient"),
    *("/run/systemd/generator.early", "/etc/systemd/system", "/etc/systemd/system.attached", "/run/systemd/system"),
    *("/run/systemd/system.attached", "/run/systemd/generator", "/usr/local/lib/systemd/system"),
    *("/usr/lib/systemd/system", "/lib/systemd/system", "/run/systemd/generator.late"),
)
_FILE_BYTES = 256 * 1024  # of one file: the longest honest one is a tenth of it
_TEXT_LENGTH = 1000  # of one setting: an honest one is a tenth of it
_BLANKS = " \t\n\r"
_KNOWN = {key.lower() for key in MEMORY_KEYS}


class UnitFiles:
    """All unit files of a machine; each is read once."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._names: dict[str, frozenset[str]] = {}  # what each folder holds, as the system spells it
        self._read: dict[str, tuple[UnitLine, ...]] = {}

    def names(self, gaps: list[Gap]) -> set[str]:
        """The units that have a fragment or drop-ins of their own. A template is none, nor is a part of names."""
        names = {name.removesuffix(".d") for folder in _FOLDERS for name in self._in(folder, gaps)}
        return {name for name in names if re.fullmatch(rf"[^@]*[^@-](?:@.+)?\.(?:{'|'.join(KINDS)})", name)}

    def lines(self, names: tuple[str, ...], gaps: list[Gap], fragment: str | None = None) -> tuple[UnitLine, ...]:
        """Of the unit of those names, its own first, in the order in which systemd reads them.

        `fragment` is its main file, where the manager has told it.
        """
        path = fragment or self._fragment(names[0], gaps)
        paths = ([path] if path else []) + self._drop_ins(names, gaps)
        return tuple(line for path in paths for line in self._file(path, gaps))

    def _fragment(self, name: str, gaps: list[Gap]) -> str | None:
        for spelled in filter(None, (name, _template(name))):
            for folder in _FOLDERS:
                if spelled in self._in(folder, gaps):
                    return f"{folder}/{spelled}"
        return None

    def _drop_ins(self, names: tuple[str, ...], gaps: list[Gap]) -> list[str]:
        """Sorted by their own names; of equal ones the first in order of folders hides the others.

        Source: unit_file_find_dropin_paths() in src/shared/dropin.c.
        """
        kind = names[0].rpartition(".")[2]
        wanted = [(folder, f"{part}.d") for name in names for folder in _FOLDERS for part in _parts(name)]
        wanted += [(folder, f"{kind}.d") for folder in _FOLDERS]
        found: dict[str, str] = {}
        for folder, name in wanted:
            if name in self._in(folder, gaps):
                for file in self._in(f"{folder}/{name}", gaps):
                    if file.endswith(".conf"):
                        found.setdefault(file, f"{folder}/{name}/{file}")
        return [found[file] for file in sorted(found)]

    def _in(self, folder: str, gaps: list[Gap]) -> frozenset[str]:
        if folder not in self._names:
            try:
                self._names[folder] = frozenset(self._host.names(folder))
            except (FileNotFoundError, NotADirectoryError):
                self._names[folder] = frozenset()
            except OSError as error:
                self._names[folder] = frozenset()
                _note(gaps, folder, error)
        return self._names[folder]

    def _file(self, path: str, gaps: list[Gap]) -> tuple[UnitLine, ...]:
        if path not in self._read:
            self._read[path] = ()
            try:
                text = self._host.read(path, _FILE_BYTES).decode(errors="backslashreplace")
                # A copy is written when it is copied.
                written = None if self._host.root else os.stat(self._host.at(path)).st_mtime
            except FileNotFoundError:  # gone since it was listed
                pass
            except OSError as error:
                _note(gaps, path, error)
            else:
                self._read[path] = tuple(parse_lines(text, shown(path), written))
        return self._read[path]


def parse_lines(text: str, path: str, written_wall_s: float | None = None) -> Iterator[UnitLine]:
    """The settings about memory in the text of a unit file, whatever their section and however they are spelled.

    Source: config_parse() and parse_line() in src/shared/conf-parser.c: a comment is a line of its own, also within a
    setting that goes on; an odd number of backslashes at its end makes a line go on.
    """
    section, joined, first, begins = "", "", 0, ""
    for number, line in enumerate(text.split("\n"), start=1):
        if line.lstrip(_BLANKS).startswith(("#", ";")):
            continue
        if not joined:
            first, begins = number, line
        goes_on = (len(line) - len(line.rstrip("\\"))) % 2
        joined += line[:-1] + " " if goes_on else line
        if goes_on:
            continue
        said, joined = joined.strip(_BLANKS), ""
        if said.startswith("["):
            section = said.removeprefix("[").removesuffix("]")
            continue
        key, equals, value = said.partition("=")
        if equals and key.rstrip(_BLANKS).lower() in _KNOWN:
            yield UnitLine(
                path=path,
                line=first,
                section=section[:_TEXT_LENGTH],
                key=key.rstrip(_BLANKS),
                value=value.strip(_BLANKS)[:_TEXT_LENGTH],
                text=begins[:_TEXT_LENGTH],
                written_wall_s=written_wall_s,
            )


def _template(name: str) -> str | None:
    """foo@.service for foo@bar.service."""
    prefix, at, rest = name.partition("@")
    instance, dot, kind = rest.rpartition(".")
    return f"{prefix}@.{kind}" if at and dot and instance else None


def _parts(name: str) -> Iterator[str]:
    """Names under which drop-ins of a unit may stand, the nearest first.

    Its own, that of its template, and shorter and shorter ones: foo-.service for foo-bar.service.
    """
    yield name
    if template := _template(name):
        yield from _parts(template)
    stem, dot, kind = name.rpartition(".")
    prefix, _, instance = stem.partition("@")
    shorter = prefix.removesuffix("-").rpartition("-")[0]
    if shorter:
        yield from _parts(f"{shorter}-{'@' if instance else ''}{instance}{dot}{kind}")  # of a template's: no template's


def _note(gaps: list[Gap], path: str, error: OSError) -> None:
    if error.errno != errno.EXDEV:  # of a captured machine: a link to /dev/null, or an alias of what is there too
        gaps.append(Gap(place=shown(path), reason=(error.strerror or str(error)).lower()))

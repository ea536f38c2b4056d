"""A captured machine in an archive, as `sos report` leaves it: the files that tell of memory, below a folder."""

import errno
import os
import re
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from reprieve.machine.archive import UNPACK, content, disk_folder, stays_inside, walk
from reprieve.machine.host import READ_BYTES
from reprieve.machine.source import read_path, shown
from reprieve.model.finding import Failure, Gap

# What the readers of a `Host` ask for. A sosreport has ten thousand files.
_TOLD = (
    r"proc/(?:buddyinfo|meminfo|stat|swaps|uptime|vmstat|zoneinfo|(?:pressure|sysvipc)/[^/]+|sys/.+)"
    r"|proc/(?:self|[0-9]{1,10}/(?!maps$|smaps$)[a-z_]+|self/[a-z_]+)"
    r"|sys/(?:block|devices/system/(?:node|cpu)|fs/cgroup|kernel/mm|module/zswap)/.+"
    r"|etc/machine-id|sos_commands/kernel/sysctl_-a"
    r"|(?:etc|run|usr/lib|usr/local/lib)/systemd/(?:system|generator|transient|oomd\.conf).*"
)
_UNITS = r"(?:etc|run|usr/lib|usr/local/lib)/systemd/system[^/]*/[^/]+"
# Links are not taken out: what they lead to is put where they are.
_LINKED = ((r"^lib/systemd/", "usr/lib/systemd/"), (r"^sys/devices/virtual/block/", "sys/block/"))
_NAME_LENGTH = 1000
_FILES = 100_000  # a machine of 10,000 processes, told whole
_TOTAL_BYTES = 1024 * 1024 * 1024


def is_archive(path: str) -> bool:
    """Is it a tar archive, plain or compressed, whatever its name? Of a pipe nothing is read: it would be gone."""
    if not os.path.isfile(path):
        return False
    start = bytes(next(read_path(path, []), b"")[:512])
    return start[257:262] == b"ustar"


@contextmanager
def unpacked(path: str, gaps: list[Gap]) -> Iterator[str]:
    """The root of the machine in an archive; it goes with the context. Raises Failure: there is none in it.

    Regular files only, each of a name on our list and below one top folder, and no more than a machine has: nothing an
    archive says ends up anywhere else. Of links there is one, made anew: which process /proc/self was. What is left out
    for its size becomes a gap.
    """
    with tempfile.TemporaryDirectory(prefix="reprieve-", dir=disk_folder()) as root:
        taken, left_bytes, itself = 0, _TOTAL_BYTES, None

        def take(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bool:
            nonlocal taken, left_bytes, itself
            name = _place(member.name)
            if name is None:
                return False
            if member.issym():
                if re.fullmatch(_UNITS, name):  # one that is linked to /dev/null is masked, as an empty one is
                    _write(root, name, b"")
                elif name == "proc/self" and re.fullmatch("[0-9]{1,10}", member.linkname):
                    itself = member.linkname
                return False
            if not member.isreg():
                return False
            if member.size > min(READ_BYTES, left_bytes) or taken >= _FILES:
                gaps.append(Gap(place=f"{shown(path)}: /{shown(name)}", reason="too large to take out", hint=UNPACK))
                return False
            _write(root, name, content(archive, member).read())
            taken, left_bytes = taken + 1, left_bytes - member.size
            return True

        walk(path, take, gaps)
        if itself is not None and os.path.isdir(f"{root}/proc/{itself}") and not os.path.lexists(f"{root}/proc/self"):
            os.symlink(itself, f"{root}/proc/self")
        if not os.path.isdir(f"{root}/proc") and not os.path.isdir(f"{root}/sys"):
            raise Failure(f"{shown(path)} holds no machine: neither proc nor sys", hint="name a sosreport")
        yield root


def _place(name: str) -> str | None:
    """Where a member belongs below the root, the top folder taken off; None: it is not on the list."""
    if len(name) > _NAME_LENGTH or not stays_inside(name):
        return None
    _, _, inner = name.removeprefix("./").partition("/")
    for there, here in _LINKED:
        inner = re.sub(there, here, inner)
    return inner if re.fullmatch(_TOLD, inner) else None


def _write(root: str, name: str, data: bytes) -> None:
    """The first of a name counts. There is no link below the root, for none was made."""
    place = f"{root}/{name}"
    try:
        os.makedirs(os.path.dirname(place), exist_ok=True)
        with open(place, "xb") as file:
            file.write(data)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG):
            raise

"""Which machine and which boot this is, how much memory is left, and how to be the next to go."""

import errno
import os
import re
import sys
from stat import S_ISDIR, S_ISREG
from typing import NamedTuple

from reprieve.model.finding import Gap

READ_BYTES = 4 * 1024 * 1024  # of one file of /proc or /sys: the longest honest one is a tenth of it
MIN_AVAILABLE_BYTES = 64 * 1024 * 1024  # below this no process is started: it might be what kills an innocent one


class Host:
    """The facts of a machine, seen from a root: `/`, or the folder of a captured one. Paths are absolute in it.

    Raises what the kernel raises: FileNotFoundError and ProcessLookupError where there is nothing, PermissionError.
    """

    __slots__ = ("_real", "root")

    def __init__(self, root: str = "/") -> None:
        self.root = root.rstrip("/")
        self._real = os.path.realpath(self.root) if self.root else ""

    def at(self, path: str) -> str:
        """Where a path lies. Raises OSError.

        A captured machine comes from strangers: no link in it leads out of it (to files of ours, to a watchdog that
        starts when it is opened), and it holds files and folders alone.
        """
        if "\0" in path:  # of a name that somebody chose, or wrote into a capture: Python would raise ValueError
            raise OSError(errno.EINVAL, "a NUL in its path")
        if not self.root:
            return path
        real = os.path.realpath(self.root + path)
        if real != self._real and not real.startswith(f"{self._real}/"):
            raise OSError(errno.EXDEV, "a link leads out of the captured machine")
        mode = os.lstat(real).st_mode
        if not S_ISREG(mode) and not S_ISDIR(mode):
            raise OSError(errno.EINVAL, "neither a file nor a folder")
        return real

    def read(self, path: str, limit: int = READ_BYTES) -> bytes:
        """The first `limit` bytes of a file. Raises OSError."""
        descriptor = os.open(self.at(path), os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            data = os.read(descriptor, min(limit, 65536))
            if not data:
                return b""
            parts = [data]
            while (size := sum(map(len, parts))) < limit and (data := os.read(descriptor, min(limit - size, 65536))):
                parts.append(data)
            return b"".join(parts)
        finally:
            os.close(descriptor)

    def names(self, path: str) -> list[str]:
        """What a folder holds, in the kernel's order. Raises OSError."""
        return os.listdir(self.at(path))

    def statvfs(self, path: str) -> os.statvfs_result:
        """How full the file system is on which a path stands. Raises OSError."""
        return os.statvfs(self.at(path))

    def text(self, path: str, gaps: list[Gap]) -> str | None:
        """A file as text; None where there is none. What may not be read, or fails to be, becomes a gap."""
        try:
            return self.read(path).decode(errors="backslashreplace")
        except (FileNotFoundError, ProcessLookupError, NotADirectoryError):
            return None
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            gaps.append(Gap(place=path, reason=reason, hint=_AS_ROOT if isinstance(error, PermissionError) else None))
            return None


_AS_ROOT = "run it as root"


class Identity(NamedTuple):
    """What a report must carry to be of this machine and boot; identifiers are 32 hex digits, as in the journal."""

    machine_id: str | None = None
    boot_id: str | None = None
    hostname: str | None = None


def identify(root: str = "") -> Identity:
    """This machine, this boot. In a container: its own machine id and name, the boot of the host."""
    if sys.platform == "win32":  # none that a report of a Linux could be of
        return Identity()
    host = Host(root)
    boot_id = _first_line(host, "/proc/sys/kernel/random/boot_id")
    return Identity(
        machine_id=_first_line(host, "/etc/machine-id"),
        boot_id=None if boot_id is None else boot_id.replace("-", ""),
        hostname=_first_line(host, "/proc/sys/kernel/hostname"),
    )


def available_bytes() -> int | None:
    """Memory that can be had without swapping: MemAvailable of /proc/meminfo, since 3.14."""
    try:
        with open("/proc/meminfo", "rb") as file:
            for line in file:
                if line.startswith(b"MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:  # no /proc here
        pass
    return None


def room_for_a_process() -> bool:
    """May another process be started? Yes if the kernel does not say how much memory is left."""
    available = available_bytes()
    return available is None or available >= MIN_AVAILABLE_BYTES


def may(capability: int) -> bool:
    """Does this process hold a capability, by its number in capabilities(7)? The kernel has the last word."""
    try:
        with open("/proc/self/status", "rb") as file:
            for line in file:
                if line.startswith(b"CapEff:"):
                    return bool(int(line.split()[1], 16) >> capability & 1)
    except OSError:  # no /proc here
        pass
    return False


def root_could(host: Host, capability: int) -> bool:
    """Could root here hold a capability that capable() asks for? Yes where the kernel does not say.

    Nobody whom we start gets what our bounding set lacks, by sudo neither: capabilities(7).
    """
    try:
        told = re.search(rb"^CapBnd:\s*([0-9a-f]{1,16})$", host.read("/proc/self/status", 65536), re.MULTILINE)
    except OSError:  # no /proc here
        told = None
    return (told is None or bool(int(told[1], 16) >> capability & 1)) and has_first_users(host)


def has_first_users(host: Host) -> bool:
    """Is this the first user namespace? capable() asks that one: root of another has a capability there alone."""
    try:
        return host.read("/proc/self/uid_map", 4096).split() == _ALL_USERS
    except OSError:  # a kernel without user namespaces
        return True


_ALL_USERS = [b"0", b"0", b"4294967295"]


def become_expendable() -> bool:
    """Ask the kernel to kill this process, and those it starts, before any other. False if there is no /proc to ask at.

    Raising one's own oom_score_adj needs no right; oom_adj_write() and its successor refuse only to lower it.
    """
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
    except OSError:
        return False
    return True


def _first_line(host: Host, path: str) -> str | None:
    try:
        text = host.read(path, 4096).decode(errors="backslashreplace")
    except OSError:
        return None
    return text.partition("\n")[0].strip() or None

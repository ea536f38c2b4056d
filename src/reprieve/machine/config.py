"""The files of settings that a server reads, as it sees them, within bounds: they may be of anybody's making."""

from typing import NamedTuple

from reprieve.machine.cmdline import names_seen, read_seen
from reprieve.machine.host import Host
from reprieve.model.finding import Gap
from reprieve.model.process import Process

FILE_BYTES = 1024 * 1024  # the longest that is delivered, that of Redis, is a tenth of it
FILES = 64
DEEP = 10  # files that name files: PostgreSQL stops there (CONF_FILE_MAX_DEPTH)


class Files(NamedTuple):
    """The files of one server; what cannot be read of them is a gap, and among `unseen`."""

    host: Host
    process: Process
    gaps: list[Gap]
    unseen: list[str]
    opened: list[str]

    def text(self, path: str) -> str | None:
        """A file; None where there is none, or it cannot be read."""
        if len(self.opened) == FILES:
            self._miss(path, f"more than {FILES} files of settings")
            return None
        self.opened.append(path)
        try:
            data = read_seen(self.host, self.process, path, FILE_BYTES + 1)
        except (FileNotFoundError, NotADirectoryError, ProcessLookupError):
            return None
        except OSError as error:
            self._refused(path, error)
            return None
        except ValueError:  # a NUL in its name
            return None
        if len(data) > FILE_BYTES:
            self._miss(path, f"larger than {FILE_BYTES} bytes")
            return None
        return data.decode(errors="backslashreplace")

    def names(self, path: str) -> list[str]:
        """What a folder holds, in the order of its bytes; nothing where there is none, or it cannot be read."""
        try:
            return sorted(names_seen(self.host, self.process, path), key=str.encode)
        except (FileNotFoundError, NotADirectoryError, ProcessLookupError):
            return []
        except OSError as error:
            self._refused(path, error)
            return []
        except ValueError:  # a NUL in its name
            return []

    def odd(self, path: str, lines: int) -> None:
        """Some lines of a file are not as the server takes them."""
        if lines:
            self._miss(path, f"{lines} of its lines cannot be understood")

    def _refused(self, path: str, error: OSError) -> None:
        hint = "run it as root" if isinstance(error, PermissionError) else None
        self._miss(path, (error.strerror or str(error)).lower(), hint)

    def _miss(self, path: str, reason: str, hint: str | None = None) -> None:
        if path not in self.unseen:
            self.unseen.append(path)
            self.gaps.append(Gap(place=f"{path}, of process {self.process.pid}", reason=reason, hint=hint))


def beside(path: str, name: str) -> str:
    """A file that another one names: as it is, or from the folder of that one."""
    return name if name.startswith("/") else f"{path.rpartition('/')[0]}/{name}"

"""Settings of a Redis server: as it runs, by CONFIG SET, and in the file that it starts with.

Its file is edited by the line, as by hand: CONFIG REWRITE writes all that the server holds, which no undo puts back.
"""

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from reprieve.machine.host import Host
from reprieve.machine.proc import read_processes
from reprieve.machine.redis import parse_file, parse_size, talk
from reprieve.machine.resp import NoAnswer
from reprieve.machine.source import shown
from reprieve.machine.writer import acting_as, failure_of, hold_folder, managed_by, may_replace, replace_file
from reprieve.model.finding import Failure, Place
from reprieve.model.process import Process

_OF = r"[0-9]{1,5}/([0-9]{1,10})@([0-9]{1,20})"
_TO_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a pipe there has nobody wait
_FILE_BYTES = 1024 * 1024  # a redis.conf with all its comments is a tenth of it
_POLICY = r"(?:noeviction|(?:allkeys|volatile)-(?:lru|lfu|lrm|random)|volatile-ttl)"


class RedisSetting:
    """`redis:6379/812@4711/maxmemory`: of the server at that port, which is process 812, begun at tick 4711."""

    lasts = False

    def __init__(self, host: Host) -> None:
        self._host = host

    def get(self, place: Place) -> str | None:
        """As the server tells it: sizes in bytes."""
        _check(place)
        (answer,) = self._say(place, "CONFIG", "GET", place.key)
        if not isinstance(answer, list) or len(answer) != 2:
            raise Failure(f"{_named(place)} does not tell its {place.key}", hint=_ASK)
        return answer[1]

    def put(self, place: Place, want: str | None) -> None:
        """One CONFIG SET; there is no setting without a value."""
        _check(place)
        (answer,) = self._say(place, "CONFIG", "SET", place.key, want or "")
        if answer != "OK":
            said = answer if isinstance(answer, str) else "it answers with a list"
            raise Failure(f"{_named(place)} refuses {place.key} {want}: {said.removeprefix('-')}", hint=_ASK)

    def canonical(self, place: Place, want: str | None) -> str | None:
        """Sizes in bytes."""
        return None if want is None else _checked(place, want)

    def obstacle(self, place: Place, want: str | None) -> Failure | None:
        """None that is known before: a server that may not be asked has failed to tell its value."""
        _check(place)
        return None

    def gone(self, place: Place) -> bool:
        """Has the server ended? Another one at its port is another one."""
        return self._process(place) is None

    def _say(self, place: Place, *words: str) -> list[str | list[str]]:
        process = self._process(place)
        if process is None:
            raise Failure(f"{_named(place)} has ended", hint="plan again")
        try:
            return talk(self._host, process, words)
        except NoAnswer as reason:
            raise Failure(f"{_named(place)}: {reason}", hint=_ASK) from reason

    def _process(self, place: Place) -> Process | None:
        match = re.fullmatch(_OF, place.of)
        if match is None:
            raise Failure(f"{place.of!r} is no Redis server", hint="6379/PID@START is one")
        pid, start = map(int, match.groups())
        for process in read_processes(self._host, [], pids=(pid,)):
            if process.start_ticks == start and process.state not in ("Z", "X"):
                return process
        return None


_ASK = "redis-cli CONFIG GET maxmemory, asked by hand, tells"


class RedisLine:
    """`redis.conf:105:/etc/redis/redis.conf/maxmemory`: the line that counts when the server starts, in its own words.

    It is read and written as the user of that number, whom the server runs as: which file it is, the server says, and
    whose folder it is in may put a link there at any moment. Nothing is reached by it that he could not reach himself.
    Root of a container is root to the kernel too, so the folder that it is read in is held until it is written.
    """

    lasts = True

    def __init__(self, host: Host) -> None:
        self._host = host

    def get(self, place: Place) -> str | None:
        """The value as it is written there; None: no such line."""
        with self._held(place) as folder:
            lines = self._lines(place, folder)
        at = _line_of(lines, place.key)
        return None if at is None else _written(lines[at])

    def put(self, place: Place, want: str | None) -> None:
        """The file with this line otherwise, and each other byte as it was."""
        with self._held(place) as folder:
            lines = self._lines(place, folder)
            at = _line_of(lines, place.key)
            if want is None:
                if at is not None:
                    del lines[at]
            elif at is not None:
                told = lines[at].rstrip()
                lines[at] = told[: -len(_written(told))] + want + lines[at][len(told) :]
            else:
                lines.insert(len(lines) - (lines[-1] == ""), f"{place.key} {want}")
            data = "\n".join(lines).encode("utf-8", "surrogateescape")
            replace_file(self._whose(place)[1], data, folder=folder)

    def canonical(self, place: Place, want: str | None) -> str | None:
        """The same size in other words, if it is there in them."""
        if want is None:
            return None
        checked, there = _checked(place, want), self.get(place)
        return there if there is not None and _value(place.key, there) == checked else checked

    def obstacle(self, place: Place, want: str | None) -> Failure | None:
        """Other files count too, somebody else writes it, or its user may not."""
        uid, path = self._whose(place)
        instead = "change it there, or --runtime changes the running server alone"
        with self._held(place) as folder:
            lines = self._lines(place, folder)
            if any(name == "include" for _, name, _ in parse_file("\n".join(lines))[0]):
                return Failure(f"{shown(path)} includes other files", hint=instead)
            if owner := managed_by("\n".join(lines)):
                return Failure(f"{shown(path)} says that it is managed by {owner}", hint=instead)
            try:
                found = os.stat(os.path.basename(path), dir_fd=folder, follow_symlinks=False)
            except OSError as error:
                return failure_of(path, error)
            if (found.st_uid, found.st_gid) != (uid, os.getegid()) and os.geteuid() != 0:
                return Failure(f"{shown(path)} is not all the server's: its owner or group is another", hint=instead)
            return may_replace(path)

    def _whose(self, place: Place) -> tuple[int, str]:
        uid, _, path = place.of.partition(":")
        plain = path.startswith("/") and os.path.normpath(path) == path and "\0" not in path
        if re.fullmatch("[0-9]{1,10}", uid) is None or not plain:
            raise Failure(f"{place.of!r} is no file of a user", hint="105:/etc/redis/redis.conf is one")
        return int(uid), self._host.root + path

    @contextmanager
    def _held(self, place: Place) -> Iterator[int]:
        """The folder that it lies in; within the block we are its user. Raises Failure."""
        _check(place)
        uid, path = self._whose(place)
        with acting_as(uid):
            try:
                folder = hold_folder(os.path.dirname(path))
            except OSError as error:
                raise _unread(path, error) from error
            try:
                yield folder
            finally:
                os.close(folder)

    def _lines(self, place: Place, folder: int) -> list[str]:
        path = self._whose(place)[1]
        try:
            descriptor = os.open(os.path.basename(path), _TO_READ, dir_fd=folder)
            with open(descriptor, "rb") as file:
                is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
                data = file.read(_FILE_BYTES + 1) if is_file else b""
        except OSError as error:
            raise _unread(path, error) from error
        if not is_file or len(data) > _FILE_BYTES:
            what = "it is too large" if is_file else "it is no file"
            raise Failure(f"{shown(path)} is no redis.conf: {what}", hint="redis-cli INFO server names it")
        return data.decode("utf-8", "surrogateescape").split("\n")


def _unread(path: str, error: OSError) -> Failure:
    return Failure(f"{shown(path)}: {error.strerror}", hint="run it as root; a link is not followed")


def _line_of(lines: list[str], key: str) -> int | None:
    """The last of these lines that sets it, which counts."""
    found = None
    for at, line in enumerate(lines):
        words = line.split(None, 1)
        if len(words) == 2 and words[0].lower() == key:
            found = at
    return found


def _written(line: str) -> str:
    return line.split(None, 1)[1].rstrip()


def _value(key: str, text: str) -> str | None:
    """In canonical form; None: it is none."""
    if key == "maxmemory":
        count = parse_size(text)
        return None if count is None else str(count)
    return text if re.fullmatch(_POLICY, text) else None


def _checked(place: Place, want: str) -> str:
    """Raises Failure: no server can hold that."""
    _check(place)
    value = _value(place.key, want)
    if value is None:
        raise Failure(
            f"{want!r} is no {place.key}", hint="2gb is a size, allkeys-lru a policy, as in Redis' own redis.conf"
        )
    return value


def _check(place: Place) -> None:
    if place.key not in ("maxmemory", "maxmemory-policy"):
        raise Failure(f"{place.key!r} is no setting of memory", hint="maxmemory is one, maxmemory-policy the other")


def _named(place: Place) -> str:
    port, _, process = place.of.partition("/")
    return f"redis-server (pid {process.partition('@')[0]})" + (f" at port {port}" if port != "0" else "")

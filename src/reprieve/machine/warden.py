"""The process beside a command: when `reprieve run` dies, however it dies, it ends what is left and clears away.

It is started as a program of its own, with all signals blocked and in a session of its own, and waits for the end of a
pipe whose other end `reprieve run` alone holds. The last line in the pipe is its order: `group FOLDER` or `tree PID`.
Only the standard library is imported, and little of it: it lives as long as the command does.
"""

import os
import signal
import time

PATIENCE_S = 30.0  # who sleeps uninterruptibly, on a dead server of files for one, cannot be ended
_PAUSE_S = 0.01


def members(folder: str) -> list[int]:
    """Who is in a cgroup and below it; 0, which stands for who cannot be seen from here, is left out."""
    found: list[int] = []
    for inner, _, _ in os.walk(folder):
        try:
            with open(f"{inner}/cgroup.procs", encoding="ascii") as file:
                found += [pid for pid in map(int, file) if pid]
        except OSError:  # removed meanwhile; a threaded group has none of its own
            continue
    return found


def kill_group(folder: str) -> None:
    """End all who are in a cgroup now."""
    try:
        with open(f"{folder}/cgroup.kill", "w", encoding="ascii") as file:  # version 2, since 5.14: forks too
            file.write("1")
    except OSError:
        _send(signal.SIGKILL, members(folder))


def kill_tree(pid: int) -> None:
    """End a process and those it has started, as far as they have not detached themselves from it.

    All are stopped before the first is ended: the children of who has ended are nobody's any more.
    """
    held: list[int] = []
    while new := [one for one in descendants(pid) if one not in held]:
        _send(signal.SIGSTOP, new)
        held += new
    _send(signal.SIGKILL, held)


def descendants(pid: int) -> list[int]:
    """A process and all below it, the upper ones first; nobody where it is gone."""
    children: dict[int, list[int]] = {}
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                parent = int(file.read().rpartition(b")")[2].split()[1])
        except (OSError, ValueError, IndexError):  # it has ended
            continue
        children.setdefault(parent, []).append(int(name))
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return found


def _send(number: int, pids: list[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except OSError:  # it has ended, or is another user's
            continue


def end_group(folder: str, patience_s: float = PATIENCE_S) -> bool:
    """End all who are in a cgroup, and remove it; False: somebody could not be ended."""
    return empty(folder, patience_s) and remove(folder, patience_s)


def empty(folder: str, patience_s: float = PATIENCE_S) -> bool:
    """End all who are in a cgroup; False: somebody could not be ended."""
    until = time.monotonic() + patience_s
    while members(folder):
        kill_group(folder)
        if time.monotonic() > until:
            return False
        time.sleep(_PAUSE_S)
    return True


def remove(folder: str, patience_s: float = PATIENCE_S) -> bool:
    """Remove an empty cgroup, and those below it; False: it is still there."""
    until = time.monotonic() + patience_s
    for inner, _, _ in os.walk(folder, topdown=False):
        while os.path.isdir(inner):
            try:
                os.rmdir(inner)
            except FileNotFoundError:
                break
            except OSError:  # busy until the last of its dead is gone
                if time.monotonic() > until:
                    return False
                time.sleep(_PAUSE_S)
    return True


def main() -> None:
    """Wait for the end of standard input, and do what its last line says."""
    said = b""
    while block := os.read(0, 4096):
        said += block
    order, _, of = said.rstrip(b"\n").rpartition(b"\n")[2].partition(b" ")
    if order == b"group":
        end_group(os.fsdecode(of))
    elif order == b"tree":
        kill_tree(int(of))


if __name__ == "__main__":
    main()
    os._exit(0)  # nothing is held but memory

"""Until when a log tells what followed a kill."""

from __future__ import annotations

import time
from collections.abc import Iterator

from reprieve.machine.events import tell
from reprieve.machine.source import Source
from reprieve.model.finding import Gap
from reprieve.model.oom import Stamp

KILL = "Out of memory: Killed process 7 (hog) total-vm:9kB, anon-rss:4kB, file-rss:0kB, shmem-rss:0kB"


def source(text: str, *, name: str = "kern.log", kind: str = "file", newest_s: float | None = None) -> Source:
    def blocks(_gaps: list[Gap]) -> Iterator[bytes]:
        data = text.encode()
        yield from (data[at : at + 50] for at in range(0, len(data), 50))

    return Source(name=name, kind=kind, blocks=blocks, newest_s=newest_s)


def ends(*sources: Source) -> Stamp | None:
    return tell(sources, lambda _event: True, 1).log_ends


def test_without_a_kill_there_is_nothing_to_tell() -> None:
    assert ends(source("Nov 23 14:08:01 web cron[1]: all is well\n")) is None


def test_of_the_journal_only_what_is_near_events_was_read() -> None:
    assert ends(source(f"Nov 23 14:08:01 web kernel: {KILL}\nNov 23 17:00:00 web x: y\n", kind="journal")) is None


def test_another_hosts_log_says_nothing_about_this_ones() -> None:
    killed = source(f"Nov 23 14:08:01 web kernel: {KILL}\n", newest_s=1.0)
    other = source("Nov 23 17:00:00 db cron[1]: all is well\n", name="db.log", newest_s=2.0)
    end = ends(killed, other)
    assert end is not None
    assert end.text == "Nov 23 14:08:01"


def test_the_last_line_with_a_stamp_ends_a_log() -> None:
    end = ends(source(f"[5.0] {KILL}\n[77.5] eth0: link up\n  and a line without\n\n"))
    assert end is not None
    assert end.uptime_s == 77.5


def test_a_log_goes_on_in_its_newer_rotation() -> None:
    killed = source(f"Nov 23 14:08:01 web kernel: [5.0] {KILL}\n", name="kern.log.1", newest_s=1.0)
    newer = source("Nov 24 17:00:00 web kernel: [3.0] another boot\n", newest_s=2.0)
    assert ends(killed, newer) == Stamp(text="Nov 24 17:00:00")


def test_the_kernels_buffer_tells_until_now() -> None:
    end = ends(source(f"4,1,5000000,-;{KILL}\n", name="/dev/kmsg", kind="kmsg"))
    assert end is not None
    assert end.uptime_s is not None
    assert end.uptime_s <= time.monotonic()

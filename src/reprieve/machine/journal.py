"""The journal, asked through `journalctl`: the host's own version reads its own format."""

import json
import os
import re
import select
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from reprieve.machine.host import room_for_a_process
from reprieve.machine.source import BLOCK_BYTES, Source, shown
from reprieve.model.finding import Gap

_PLACE = "journal"
_FIELDS = (
    "MESSAGE,PRIORITY,SYSLOG_FACILITY,SYSLOG_IDENTIFIER,_TRANSPORT,_HOSTNAME,_MACHINE_ID,_SOURCE_MONOTONIC_TIMESTAMP"
)
_KERNEL = ("_TRANSPORT=kernel",)  # all boots; --dmesg means this one
# Read by journalctl's PCRE2 at five times the speed of its JSON. Upper case in it makes it case-sensitive.
_TELLTALE = "oom-kill|[Kk]illed process|[Oo]ut of [Mm]emory|page allocation failure"
_AFTERMATH_BYTES = 1024 * 1024  # read after the last hit: a task table without its kill line, the reaper
_LINE_BYTES = 1024 * 1024  # of a hit: the kernel's own lines are 2 KiB at most, as JSON some more
_SILENCE_S = 120.0  # without a byte from journalctl: a disk that hangs; it searches a hundred million entries by then


@dataclass(slots=True)
class _Hits:
    """What a boot says about memory: the cursors of its first and last line; the clock of a machine can jump."""

    first: str
    last: str
    machine_id: str | None
    newest_us: int = 0  # since 1970


class _Refused(Exception):
    """journalctl ended with an error; its words."""


def journal_sources(where: Sequence[str] = (), *, name: str = _PLACE, gaps: list[Gap]) -> list[Source]:
    """The boots in whose kernel lines something about memory stands, newest first; each a text of JSON lines.

    `where` are further arguments of journalctl (`--file=…`, `--directory=…`); none means this machine's journal.
    Lines of `_TRANSPORT=kernel` come from the kernel's buffer; those that user space wrote into it have a
    SYSLOG_FACILITY above 0. journalctl before 237, or built without PCRE2, cannot search: then it is one source.
    """
    gaps_before = len(gaps)
    try:
        boots = _boots_with_hits(where, name, gaps)
    except FileNotFoundError:
        if where or _is_kept():
            gaps.append(Gap(place=name, reason="journalctl is not installed", hint="it comes with systemd"))
        return []
    except _Refused as refusal:
        if re.search(r"pattern matching support|unrecognized option|invalid option", str(refusal)):
            argv = ["journalctl", "--no-pager", "--quiet", "--output=json", "--all", *where, *_KERNEL]
            return [Source(name=name, kind="journal", blocks=partial(_read, argv, name, None))]
        gaps.append(Gap(place=name, reason=str(refusal)))
        return []
    if not boots and len(gaps) == gaps_before and (where or _is_kept()):  # it has been searched: that is an answer
        return [Source(name=name, kind="journal", blocks=_nothing)]
    numbers = _boot_numbers([]) if boots and not where else {}
    return [
        Source(
            name=_name(name, boot_id, numbers, alone=bool(where) and len(boots) == 1),
            kind="journal",
            blocks=partial(_read, _of_boot(where, boot_id, hits.first), name, hits.last),
            machine_id=hits.machine_id,
            boot_id=boot_id,
            newest_s=hits.newest_us / 1e6,
        )
        for boot_id, hits in sorted(boots.items(), key=lambda boot: boot[1].newest_us, reverse=True)
    ]


def journal_file_sources(path: str, gaps: list[Gap]) -> list[Source]:
    """The same of one `.journal` file."""
    literal = re.sub(r"([*?[])", r"[\1]", path)  # journalctl takes a pattern
    return journal_sources((f"--file={literal}",), name=shown(path), gaps=gaps)


def follow_argv() -> list[str]:
    """What prints kernel lines as they come, as JSON."""
    return _argv("--follow", "--lines=0", *_KERNEL)


def why_unheard() -> Gap | None:
    """Why nothing the kernel says would be heard in the journal; None: it is heard, as far as can be known.

    Who may not see the journal of the system waits for ever. Raises OSError: there is no journalctl, or it cannot run.
    """
    gaps: list[Gap] = []
    try:
        heard = any(_run(_argv("--lines=1", *_KERNEL), _PLACE, gaps))
    except _Refused as refusal:
        return Gap(place=_PLACE, reason=str(refusal))
    if not (heard or gaps or _is_kept()):
        gaps.append(Gap(place=_PLACE, reason="none is kept here"))
    return None if heard else next(iter(gaps), None)


def environment() -> dict[str, str]:
    """Ours, with journalctl's words in English: its errors are told apart by them."""
    return {**os.environ, "LC_ALL": "C.UTF-8"}


def _argv(*arguments: str) -> list[str]:
    return ["journalctl", "--no-pager", "--output=json", "--all", f"--output-fields={_FIELDS}", *arguments]


def _of_boot(where: Sequence[str], boot_id: str, cursor: str) -> list[str]:
    return _argv("--quiet", *where, *_KERNEL, f"_BOOT_ID={boot_id}", f"--cursor={cursor}")


def _name(name: str, boot_id: str, numbers: dict[str, int], *, alone: bool) -> str:
    if alone:
        return name
    return f"{name} (boot {numbers.get(boot_id, boot_id[:8])})"  # `journalctl --boot` takes either


def _boots_with_hits(where: Sequence[str], name: str, gaps: list[Gap]) -> dict[str, _Hits]:
    boots: dict[str, _Hits] = {}
    for line in _lines(_run(_argv(*where, *_KERNEL, f"--grep={_TELLTALE}"), name, gaps), name, gaps):
        if not line.startswith(b"{"):
            continue
        entry = json.loads(line)
        boot_id, machine_id, cursor = entry.get("_BOOT_ID"), entry.get("_MACHINE_ID"), entry["__CURSOR"]
        if not isinstance(boot_id, str):  # a journal that was put together by hand; a list: it has several
            continue
        if boot_id in boots:
            boots[boot_id].last = cursor
        else:
            machine_id = machine_id if isinstance(machine_id, str) else None
            boots[boot_id] = _Hits(first=cursor, last=cursor, machine_id=machine_id)
        boots[boot_id].newest_us = int(entry["__REALTIME_TIMESTAMP"])
    return boots


def _is_kept() -> bool:
    """Does this machine keep a journal, on disk or in memory?"""
    folders = ("/var/log/journal", "/run/log/journal")
    return any(os.path.isdir(folder) and (not os.access(folder, os.R_OK) or os.listdir(folder)) for folder in folders)


def _nothing(_gaps: list[Gap]) -> Iterator[bytes]:
    return iter(())


def _boot_numbers(gaps: list[Gap]) -> dict[str, int]:
    """The numbers people give boots, 0 for this one: `IDX BOOT_ID FIRST LAST`, with a header since 254.

    With a gap they are not all: journalctl refused, timed out, may not see them, or was not asked.
    """
    argv = ["journalctl", "--no-pager", "--quiet", "--list-boots"]
    try:
        text = b"".join(_run(argv, _PLACE, gaps)).decode(errors="backslashreplace")
    except _Refused as refusal:
        gaps.append(Gap(place=_PLACE, reason=str(refusal)))
        return {}
    return {boot_id: int(number) for number, boot_id in re.findall(r"(?m)^\s*(-?\d+) ([0-9a-f]{32}) ", text)}


def lacks_boot(boot: str) -> list[Gap]:
    """That nothing is kept of a boot, by its number or the begin of its id: silence about it must not look like health.

    Nothing but the journal tells boots apart. Where it does not tell which it has, the reason why is the gap.
    """
    gaps: list[Gap] = []
    try:
        numbers = _boot_numbers(gaps).items()
    except FileNotFoundError:  # a gap tells it
        return []
    by_id = not boot.startswith("-")
    kept = (boot_id.startswith(boot.replace("-", "")) if by_id else str(number) == boot for boot_id, number in numbers)
    if any(kept):
        return []
    if gaps:
        return gaps
    hint = "journalctl --list-boots names those that are kept; in other logs --since tells times apart"
    return [Gap(place=_PLACE, reason=f"holds nothing of boot {shown(boot)}", hint=hint)]


def _read(argv: list[str], name: str, until: str | None, gaps: list[Gap]) -> Iterator[bytes]:
    """What the command prints, to a little beyond the entry with the cursor `until`, or to the end."""
    sought = b"" if until is None else until.encode()
    seam, beyond = b"", 0
    try:
        for block in _run(argv, name, gaps):
            yield block
            if beyond or (sought and sought in seam + block):
                beyond += len(block)
                if beyond > _AFTERMATH_BYTES:
                    return
            seam = block[-len(sought) :]
    except FileNotFoundError:
        gaps.append(Gap(place=name, reason="journalctl is not installed"))
    except _Refused as refusal:
        gaps.append(Gap(place=name, reason=str(refusal)))


def _lines(blocks: Iterator[bytes], name: str, gaps: list[Gap]) -> Iterator[bytes]:
    """The lines that have ended; those of more than 1 MiB are left out, and become a gap."""
    rest: list[bytes] = []
    size = too_long = 0
    for block in blocks:
        *ends, begun = block.split(b"\n")
        for end in ends:
            if size + len(end) > _LINE_BYTES:
                too_long += 1
            else:
                yield b"".join((*rest, end))
            rest, size = [], 0
        size += len(begun)
        if size > _LINE_BYTES:
            rest.clear()
        else:
            rest.append(begun)
    too_long += size > _LINE_BYTES
    if too_long:
        gaps.append(Gap(place=name, reason=f"lines of more than 1 MiB were not read: {too_long}"))


def _run(argv: list[str], name: str, gaps: list[Gap]) -> Iterator[bytes]:
    """What the command prints, in blocks. Raises FileNotFoundError if there is none, _Refused if it fails.

    Its hints about what we may not see become a gap. It is ended when nobody reads on.
    """
    if not room_for_a_process():
        hint = "less than 64 MiB are available: read the kernel log alone (/dev/kmsg), or try again later"
        reason = "not asked: starting journalctl could cost another process its life"
        gaps.append(Gap(place=name, reason=reason, hint=hint))
        return
    pipe = subprocess.PIPE
    try:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, env=environment())
    except FileNotFoundError:
        raise
    except OSError as error:  # no memory for a fork, no right to run it
        raise _Refused(f"journalctl could not be started: {error.strerror}") from error
    said = bytearray()
    try:
        yield from _printed(process, said)
        status = process.wait()
    except TimeoutError:
        gaps.append(Gap(place=name, reason=f"journalctl said nothing for {_SILENCE_S:.0f} s", hint=_BY_HAND))
        return
    finally:
        process.kill()  # does nothing to one that has been waited for
        process.communicate()
    words = said.decode(errors="backslashreplace").strip()
    if "insufficient permissions" in words or "not seeing messages from other users" in words:
        hint = "run it with sudo, or: sudo usermod -aG systemd-journal $USER, then log in again"
        gaps.append(Gap(place=name, reason="permission denied to the journal of the system", hint=hint))
    elif status != 0 and words:  # "--grep" without a match exits 1 and says nothing
        raise _Refused(words.splitlines()[-1])


def _printed(process: subprocess.Popen[bytes], said: bytearray) -> Iterator[bytes]:
    """Its standard output; the end of its standard error goes to `said`. Raises TimeoutError if both are silent."""
    assert process.stdout is not None
    assert process.stderr is not None
    out, err = process.stdout.fileno(), process.stderr.fileno()
    ready = select.poll()
    ready.register(out, select.POLLIN)
    ready.register(err, select.POLLIN)
    still_open = {out, err}
    while still_open:
        events = ready.poll(_SILENCE_S * 1000)
        if not events:
            raise TimeoutError
        for descriptor, _ in events:
            data = os.read(descriptor, BLOCK_BYTES)
            if not data:
                ready.unregister(descriptor)
                still_open.discard(descriptor)
            elif descriptor == out:
                yield data
            else:
                said[:] = (said + data)[-4096:]


_BY_HAND = "ask it yourself: journalctl --dmesg --grep=oom-kill"

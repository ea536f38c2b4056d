"""The power goes while `fix` and `undo` run; the machine boots, really, from the disk that is left.

That disk is the root's, with a journal as machines have it: units, fstab, sysctl.d, a swap file and the journal of
changes are files of it, and nothing else outlives. The boot is one: kernel, systemd, another boot id; only services
that no form has to do with are masked, by its command line. What the disk was told and did not flush is lost as far as
QEMU had it in tables of its own.
"""

from __future__ import annotations

import json
import random
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from lab import kernels, states
from lab.guest import Guest, Machine
from lab.host import call
from reprieve.model.zram import LINK, SERVICE, UNIT
from tests.lab.conftest import here_or_skipped
from tests.lab.parcel import parcel

SEED = 92  # of when the power goes: after which record of the journal of changes, and how long after
MOST_RECORDS = 12
UNUSED = (
    *("systemd-udev-trigger", "systemd-udevd", "systemd-logind", "systemd-user-sessions", "systemd-sysusers"),
    *("systemd-tmpfiles-setup", "systemd-tmpfiles-setup-dev", "systemd-random-seed", "systemd-update-utmp"),
    *("modprobe@configfs", "modprobe@dm_mod", "modprobe@drm", "modprobe@fuse", "modprobe@loop"),
)
DROP_IN = "/etc/systemd/system/web.service.d/90-reprieve.conf"
SYSCTL_D, FSTAB = "/etc/sysctl.d/60-reprieve.conf", "/etc/fstab"
OURS = (DROP_IN, SYSCTL_D, FSTAB)
BOOT_ID = "cat /proc/sys/kernel/random/boot_id"
AGAIN = "cd /; COLUMNS=200 python3 /opt/again.py /opt"
SAID = "-- said\n"  # after each command
# Each file is there before, with an owner and a mode that no new one has; the unit's by a change that stays.
FURNISH = f"""
tar -C /opt -xf /dev/vda
printf '[Service]\\nExecStart=/bin/sleep infinity\\n[Install]\\nWantedBy=multi-user.target\\n' \
    > /etc/systemd/system/web.service
systemctl enable --now web
({AGAIN}) <<END || exit 1
fix limit web --high 900M --yes
END
printf '# mine\\nvm.panic_on_oom = 0\\n' > {SYSCTL_D}
printf '# mine\\n' > {FSTAB}
chown 0:1 {" ".join(OURS)}; chmod 640 {" ".join(OURS)}
"""
OWNED = "640 0 1"

pytestmark = pytest.mark.slow


class Lasting(NamedTuple):
    """A form that changes a line which outlives the boot."""

    fix: str  # with {}, another value each time
    values: tuple[str, ...]
    kind: str  # of its place
    file: str
    line: str  # with {}, the value as the place tells it
    shown: str  # a command that prints what the system took from it
    unset: str  # what that prints without the line
    undone_after: int = 2  # changes
    once: bool = False  # the line is read at boot alone: who takes it back later leaves the value


class Living(NamedTuple):
    """A form that changes what goes with the boot."""

    fix: str  # with {}, another value each time
    values: tuple[str, ...]
    first: str  # a script that makes what is changed
    other: str  # one that makes another of its name in the next boot, with {}, the value that was wanted in this one
    read: str  # one that prints it
    undone_after: int = 2  # changes


SIZES = tuple(f"{n}M" for n in range(64, 80))
NUMBERS = tuple(map(str, range(61, 77)))
SWAPPED = "sed -n 's,^/swap .*,/swap none swap sw 0 0,p' /proc/swaps"  # as its line in fstab is
LASTING = {
    "sysctl": Lasting(
        *("swappiness {}", NUMBERS, "sysctl.d", SYSCTL_D, "vm.swappiness = {}\n"),
        *("sysctl -n vm.swappiness", "60"),
        once=True,
    ),
    "swap": Lasting(
        *("swap --size {} --file /swap", ("8M", "9M") * 8, "fstab", FSTAB, "{}\n"),
        *(SWAPPED, ""),
        undone_after=1,
    ),
    **{
        name: Lasting(fix, values, "unit", DROP_IN, f"{key}={{}}\n", f"systemctl show -P {key} web", unset)
        for name, fix, values, key, unset in (
            ("limit", "limit web --max {}", SIZES, "MemoryMax", "infinity"),
            ("protect", "protect web --adj {}", NUMBERS, "OOMScoreAdjust", "0"),
            ("oom-policy", "oom-policy web {}", ("continue", "kill") * 8, "OOMPolicy", "stop"),
        )
    },
}
PID = 20001
PROCESS = f"echo {PID - 1} > /proc/sys/kernel/ns_last_pid; sleep 900 > /dev/null 2>&1 & test $! = {PID} || exit 1\n"
GROUP = "mkdir /sys/fs/cgroup/lab || exit 1\n"
ZRAM = "cat /sys/class/zram-control/hot_add; echo {} > /sys/block/zram1/disksize\n"
LIVING = {
    "cgroup": Living(
        *("limit /lab --max {}", SIZES, GROUP, f"{GROUP}echo {{}} > /sys/fs/cgroup/lab/memory.max"),
        "cat /sys/fs/cgroup/lab/memory.max",
    ),
    "score": Living(
        *(f"protect {PID} --adj {{}}", NUMBERS, PROCESS, f"{PROCESS}echo {{}} > /proc/{PID}/oom_score_adj"),
        f"cat /proc/{PID}/oom_score_adj",
    ),
    "zram": Living(
        *("zram --size {} --runtime", SIZES, "", f"{ZRAM}mkswap -q -L reprieve /dev/zram1; swapon /dev/zram1"),
        "cat /sys/block/zram1/disksize; grep -o zram1 /proc/swaps",
        undone_after=1,
    ),
}


class Unit(NamedTuple):
    """The form that changes what each boot makes, and nothing now."""

    fix: str = "zram --size {} --persistent"
    values: tuple[str, ...] = SIZES
    undone_after: int = 2  # changes


class Ready(NamedTuple):
    """The machine before the power goes: furnished, and saved."""

    machine: Machine
    saved: Path
    boot_id: str
    records: int  # in the journal of changes
    files: dict[str, str]  # what is in them, by path


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ready]:
    with here_or_skipped():
        machine = states.machine(kernels.DEFAULT, states.SYSTEMD)
    assert machine.root is not None
    folder = tmp_path_factory.mktemp("ready")
    root = folder / "root.ext4"
    call(("cp", "--sparse=always", machine.root, root))
    call(("tune2fs", "-O", "has_journal", root))
    machine = replace(machine, root=root, boot_words=tuple(f"systemd.mask={unit}.service" for unit in UNUSED))
    disk = parcel(folder / "parcel.tar")
    with tarfile.open(disk, "a") as archive:
        archive.add(Path(__file__).with_name("again.py"), "again.py")
    with states.boot(machine, spare=disk) as guest:
        furnished = guest.run(FURNISH)
        assert furnished.status == 0, furnished.output
        files = {path: guest.run(f"cat {path}").output for path in OURS}
        boot_id = guest.run(BOOT_ID).output
        records = int(guest.run("wc -l < /var/lib/reprieve/changes.jsonl").output)
        guest.save(folder / "ready.zst")
    yield Ready(machine, folder / "ready.zst", boot_id, records, files)
    root.unlink()  # a quarter of a GiB, which pytest would keep


@contextmanager
def _booted_after_a_cut(form: Lasting | Living | Unit, ready: Ready, disk: Path) -> Iterator[Guest]:
    """The machine booted anew, whose power went while the form was made, and some of it undone, again and again."""
    lines = []
    for number, value in enumerate(form.values, 1):
        lines.append(f"fix {form.fix.format(value)} --yes\n")
        lines += ["undo\n"] * (number % form.undone_after == 0)
    chance = random.Random(f"{form.fix} {SEED}")
    when = f"{ready.records + chance.randint(3, MOST_RECORDS)} {10 ** chance.uniform(-4, -0.5)}"
    first = form.first if isinstance(form, Living) else ""
    with Guest.restore(ready.machine, ready.saved) as guest:
        begun = guest.run(f"{first}({AGAIN} {when}) > /run/out 2>&1 <<'END' &\n{''.join(lines)}END\n")
        assert begun.status == 0, begun.output
        until = time.monotonic() + 300
        while "it stands still" not in guest.console():
            assert time.monotonic() < until, guest.run("cat /run/out").output
            time.sleep(0.05)
        guest.cut_power(disk)
    with states.boot(replace(ready.machine, root=disk)) as guest:
        assert guest.run("systemctl is-system-running --wait", timeout_s=240).output == "running\n"
        assert guest.run(BOOT_ID).output != ready.boot_id
        yield guest


@pytest.mark.parametrize("form", LASTING.values(), ids=LASTING)
def test_what_lasts_is_the_old_or_the_new_and_the_next_boot_reads_it(
    form: Lasting, ready: Ready, tmp_path: Path
) -> None:
    with _booted_after_a_cut(form, ready, tmp_path / "root.qcow2") as guest:
        changes = _changes(*_told(guest, "changes --json"))
        booted = _found(form, guest)
        assert booted in [_due(value, form, ready) for value in _may_be(form.kind, changes)]

        said, again, told = _told(guest, "undo --recover", "undo --recover", "changes --json")
        for one in changes:
            lasts = any(entry["boot_id"] is None and entry["state"] != "undone" for entry in one["entries"])
            assert (f"Undone: change {one['number']}, which was not finished.\n" in said) == (
                lasts and not one["ended"]
            )
        assert again == "Nothing was left unfinished.\n"
        changes = _changes(told)
        assert all(one["ended"] for one in changes)
        (value,) = _may_be(form.kind, changes)
        due = _due(value, form, ready)
        if form.once:
            assert ("as the last boot set it" in said) == (booted.shown != due.shown)
            due = due._replace(shown=booted.shown)
        assert _found(form, guest) == due
        left = guest.run(f"cd /; ls -A / /etc {' '.join(str(Path(file).parent) for file in OURS)}").output
        assert ".reprieve" not in left
        swapfile = guest.run("stat -c '%a %u %g' /swap").output
        assert swapfile == ("600 0 0\n" if form.kind == "fstab" and value is not None else _NO_SWAP)


_NO_SWAP = "stat: cannot statx '/swap': No such file or directory\n"


@pytest.mark.parametrize("form", LIVING.values(), ids=LIVING)
def test_what_does_not_last_is_gone_with_the_boot_and_another_of_its_name_stays(
    form: Living, ready: Ready, tmp_path: Path
) -> None:
    with _booted_after_a_cut(form, ready, tmp_path / "root.qcow2") as guest:
        _, *changes = _changes(*_told(guest, "changes --json"))
        unfinished = [one["number"] for one in changes if not one["ended"]]
        want = [entry["want"] for one in changes for entry in one["entries"]][-1]
        made = guest.run(form.other.format(want))
        assert made.status == 0, made.output
        before = guest.run(form.read).output
        assert want in before.split()

        said, again, told = _told(guest, "undo --recover", "undo --recover", "changes --json")
        assert again == "Nothing was left unfinished.\n"
        _, *changes = _changes(told)
        assert all(one["ended"] for one in changes)
        gone = [one["number"] for one in changes if any(entry["state"] != "undone" for entry in one["entries"])]
        assert all((one["state"] == "gone with the boot") == (one["number"] in gone) for one in changes)
        ends = {one["number"]: f"Change {one['number']}: {one['state']}, nothing to undo.\n" for one in changes}
        assert said == ("".join(ends[number] for number in unfinished) or "Nothing was left unfinished.\n")
        for number in gone[-1:]:
            assert _told(guest, f"undo {number}") == [f"Change {number}: gone with the boot, nothing to undo.\n"]
        assert guest.run(form.read).output == before


# Of the unit: the size in it, if its link is there; its files; its state; what is swapped to, and of which size.
MADE = f"""
grep -o 'DISKSIZE=[0-9]*' {LINK}; ls {UNIT} {LINK}; systemctl is-active {SERVICE}; grep -o zram1 /proc/swaps
cat /sys/block/zram1/disksize; awk '/zram1/ {{print "priority", $5}}' /proc/swaps; ls /sys/block | grep zram
"""
NONE_MADE = f"{MADE}systemctl list-units --all --plain --no-legend {SERVICE}"


def _made(size_bytes: str | None) -> str:
    if size_bytes is None:
        return "inactive\nzram0\n"
    files = f"DISKSIZE={size_bytes}\n{UNIT}\n{LINK}\nactive\n"
    return f"{files}zram1\n{size_bytes}\npriority 100\nzram0\nzram1\n"


def _is(guest: Guest, script: str) -> str:
    return guest.run(f"({script}) 2> /dev/null").output


def test_zram_is_made_at_each_boot_and_at_none_once_it_is_undone(ready: Ready, tmp_path: Path) -> None:
    size_bytes = str(96 << 20)
    with Guest.restore(ready.machine, ready.saved) as guest:
        assert "96 MiB, at each boot" in _told(guest, "fix zram --size 96M --yes")[0]
        assert guest.run("sync").status == 0
        guest.cut_power(tmp_path / "first.qcow2")
    with states.boot(replace(ready.machine, root=tmp_path / "first.qcow2")) as guest:
        assert guest.run("systemctl is-system-running --wait", timeout_s=240).output == "running\n"
        assert guest.run(BOOT_ID).output != ready.boot_id
        assert _is(guest, MADE) == _made(size_bytes)
        again, undone = _told(guest, "fix zram --size 96M --yes", "undo")
        assert "nothing to change" in again
        assert "Undone: change 2" in undone
        assert _is(guest, NONE_MADE) == _made(None)
        assert guest.run("sync").status == 0
        guest.cut_power(tmp_path / "second.qcow2")
    with states.boot(replace(ready.machine, root=tmp_path / "second.qcow2")) as guest:
        assert guest.run("systemctl is-system-running --wait", timeout_s=240).output == "running\n"
        assert _is(guest, NONE_MADE) == _made(None)


def test_the_unit_for_zram_is_the_old_or_the_new_and_the_next_boot_starts_it(ready: Ready, tmp_path: Path) -> None:
    with _booted_after_a_cut(Unit(), ready, tmp_path / "root.qcow2") as guest:
        may = _may_be("zram.service", _changes(*_told(guest, "changes --json")))
        assert _is(guest, MADE).replace(f"{UNIT}\ninactive", "inactive") in [_made(value) for value in may]
        _, again, told = _told(guest, "undo --recover", "undo --recover", "changes --json")
        assert again == "Nothing was left unfinished.\n"
        (value,) = _may_be("zram.service", _changes(told))
        if value is None:
            assert _is(guest, NONE_MADE) == _made(None)
        else:
            assert _is(guest, f"grep -o 'DISKSIZE=[0-9]*' {LINK}") == f"DISKSIZE={value}\n"
        assert ".reprieve" not in guest.run("ls -A /etc/systemd/system").output


class Found(NamedTuple):
    """A file, and what the system took from it."""

    owned: str  # mode, owner, group
    text: str
    shown: str


def _found(form: Lasting, guest: Guest) -> Found:
    told = guest.run(f"stat -c '%a %u %g' {form.file}; cat {form.file}").output
    owned, _, text = told.partition("\n")
    return Found(owned, text, guest.run(form.shown).output.strip())


def _due(value: str | None, form: Lasting, ready: Ready) -> Found:
    """With this value, or none, in the file as it was before."""
    line = "" if value is None else form.line.format(value)
    return Found(OWNED, ready.files[form.file] + line, form.unset if value is None else value)


def _may_be(kind: str, changes: list[dict[str, Any]]) -> set[str | None]:
    """Which values it may have, by the journal: one, or two where something was not finished."""
    may: set[str | None] = {None}
    for change in changes[1:]:
        for entry in change["entries"]:
            if entry["place"]["kind"] == kind:
                before, want = entry["before"], entry["want"]
                undone = entry["state"] == "undone"
                sure = {before} if undone else {want}
                may = sure if undone or change["ended"] else {before, want}
    return may


def _told(guest: Guest, *commands: str) -> list[str]:
    """What each of them says; none fails."""
    lines = "".join(f"{command}\n" for command in commands)
    ended = guest.run(f"({AGAIN}) 2>&1 <<'END'\n{lines}END\n", timeout_s=200)
    assert ended.status == 0, ended.output
    return ended.output.split(SAID)[:-1]


def _changes(told: str) -> list[dict[str, Any]]:
    """All there were, each with what is left of it in words; the first is the one that stays."""
    *documents, _end = map(json.loads, told.splitlines())
    return [{**one["change"], "state": one["state"]} for one in documents]

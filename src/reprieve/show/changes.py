"""Plans and past changes → text, and the same steps as a script or a playbook."""

from collections.abc import Iterable, Iterator, Sequence

from reprieve.model.change import Entry, Plan, Refusal, Step, Transaction
from reprieve.model.finding import Place
from reprieve.show import escape
from reprieve.show.text import Page
from reprieve.units import MIB, size

_FILE = "/etc/sysctl.d/60-reprieve.conf"
_WHEN = {"sysctl": "now", "sysctl.d": f"at each boot ({_FILE})"}


def planned(page: Page, plan: Plan) -> Iterator[str]:
    """Each step with what it was and what it becomes, why, and what it costs; then what is refused, and left."""
    told = None
    for step in plan.steps:
        if (step.code, step.why) != told:
            told = (step.code, step.why)
            yield ""
            if step.why:
                yield from page.say("Why", f"{step.why} ({step.code})")
            if step.cost is not None:
                yield from page.say("Cost", step.cost, "dim")
        told_change = difference(step.place, step.before, step.want, step.called)
        yield page.raw("Change", told_change, "strong")
    for refusal in plan.refused:
        yield ""
        yield from refused(page, refusal)
    for at, finding in enumerate(plan.by_hand):
        if not at:
            yield ""
        yield from page.say("" if at else "By hand", f"{finding.claim} ({finding.code})")
    if plan.by_hand:
        yield page.raw("", "reprieve check -v shows how", "dim")


def refused(page: Page, refusal: Refusal) -> Iterator[str]:
    """What is not changed, why not, and what would work."""
    name = escape.visible(f"{where(refusal.place, refusal.called)} = {_value(refusal.place, refusal.want)}")
    yield from page.say("Refused", f"{name}: {refusal.reason}", "warning")
    if refusal.hint is not None:
        yield from page.say("", f"→ {refusal.hint}")


def difference(place: Place, before: str | None, after: str | None, called: str | None = None) -> str:
    """`vm.swappiness  60 → 10, now`."""
    name, when = where(place, called), _WHEN.get(place.kind)
    if place.key == "OOMScoreAdjust":
        when = "from its next start"
    told = f"{name}  {_value(place, before)} → {_value(place, after)}"
    return escape.visible(told if when is None else f"{told}, {when}")


def _value(place: Place, value: str | None) -> str:
    if value is None:
        return "not set"
    if place.kind == "container":
        return _limits(value)
    sizes = place.kind == "swapfile" or place.key.startswith("Memory")
    return size(int(value)) if sizes and value.isdecimal() else value


def _limits(value: str) -> str:
    """`512 MiB, swap 0 B` for `536870912+0`."""
    memory, plus, swap = value.partition("+")
    told = [size(int(memory)) if memory.isdecimal() else "no limit"] if memory else []
    if plus and (memory, swap) != ("max", "max"):
        told.append(f"swap {size(int(swap)) if swap.isdecimal() else 'without limit'}")
    return ", ".join(told)


def where(place: Place, called: str | None = None) -> str:
    """A place in the words of its owner."""
    if place.kind == "unit":
        return f"{place.of} {place.key}"
    if place.kind == "container":
        manager, _, container_id = _engine(place)
        return f"{manager}:{called or container_id[:12]} memory"
    return place.key or {"swapfile": "file ", "swap": "swapping to ", "fstab": "/etc/fstab: "}[place.kind] + place.of


def history(page: Page, told: Iterable[tuple[Transaction, str, str]]) -> Iterator[str]:
    """Each transaction, its moment and what is left of it in words: its number, by whom, and what it changed."""
    for transaction, moment, state in told:
        who = escape.visible(transaction.user)
        yield page.raw(f"{transaction.number:>4}", f"{moment}  {who}  {state}", "strong")
        if transaction.reason:
            yield from page.say("", f"“{escape.visible(transaction.reason)}”")
        for entry in transaction.entries:
            yield page.raw("", _entry(entry))


def _entry(entry: Entry) -> str:
    told = difference(entry.place, entry.before, entry.want)
    return told if entry.state == "changed" else f"{told}  {entry.state}"


def shell(steps: Sequence[Step]) -> Iterator[str]:
    """The steps as commands for `sh`, for a machine like this one: review it, then run it as root."""
    yield "#!/bin/sh"
    yield "set -eu"
    told = None
    for step in steps:
        if step.why and step.why != told:
            told = step.why
            yield f"# {escape.visible(escape.plain(step.why))}"
        yield from map(escape.shell, _commands(step.place, step.want, step.called))


def undoing(entries: Sequence[Entry]) -> Iterator[str]:
    """What puts the values back by hand, the newest first."""
    for entry in reversed(entries):
        yield from map(escape.shell, _commands(entry.place, entry.before))


def _commands(place: Place, want: str | None, called: str | None = None) -> list[tuple[str, ...]]:
    """What does it in a shell; done again, it changes nothing."""
    if place.kind == "unit":
        return _unit(place, want)
    if place.kind == "container":
        return [_update(place, want or "max+max", called)]
    if place.kind in _SWAP:
        return _swap(place, want)
    if place.kind == "sysctl":
        return [("sysctl", "-w", f"{place.key}={want}")]
    without = ("sed", "-i", f"/^{place.key.replace('.', '[.]')} *=/d", _FILE)
    return [without] if want is None else [("touch", _FILE), without, _append(f"{place.key} = {want}", _FILE)]


def _append(line: str, file: str) -> tuple[str, ...]:
    """Add a line unless it is there; a last line without an end gets one first."""
    script = (
        'grep -qxF -- "$1" "$2" 2> /dev/null || '
        '{ [ -z "$(tail -c1 "$2" 2> /dev/null)" ] || echo >> "$2"; printf "%s\\n" "$1" >> "$2"; }'
    )
    return ("sh", "-c", script, "sh", line, file)


def _unit(place: Place, want: str | None) -> list[tuple[str, ...]]:
    file = f"/etc/systemd/system/{place.of}.d/90-reprieve.conf"
    section = f"[{place.of.rpartition('.')[2].capitalize()}]"
    reload, without = ("systemctl", "daemon-reload"), ("sed", "-i", f"/^{place.key}=/d", file)
    if want is None:
        return [without, reload]
    made = [("mkdir", "-p", file.rpartition("/")[0]), ("touch", file), without]
    return [*made, _append(section, file), _append(f"{place.key}={want}", file), reload]


def _engine(place: Place) -> tuple[str, str, str]:
    """Its manager, where it listens unless as usual, and the container's id: of `docker@/run/user/1000/s/ID`."""
    head, _, container_id = place.of.rpartition("/")
    manager, _, listens = head.partition("@")
    return manager, listens, container_id


def _update(place: Place, want: str, called: str | None) -> tuple[str, ...]:
    """Both at once; no engine takes a limit away by its command, so it is raised beyond all there can be."""
    (manager, listens, container_id), (memory, plus, swap) = _engine(place), want.partition("+")
    argv = [manager, *((_LISTENS[manager], f"unix://{listens}") if listens else ()), "update"]
    argv += ["--memory", str(_BEYOND_BYTES) if memory == "max" else memory]
    if plus:
        both = _BOTH_BEYOND_BYTES if "max" in (memory, swap) else int(memory) + int(swap)
        argv += ["--memory-swap", str(both)]
    return (*argv, called or container_id)


_LISTENS = {"docker": "--host", "podman": "--url"}
_BEYOND_BYTES, _BOTH_BEYOND_BYTES = 1 << 61, (1 << 63) - 4096  # the latter counts swap too, which is beyond it as well
_SWAP = ("swapfile", "swap", "fstab")
_BY_COMMAND = (*_SWAP, "unit", "container")  # for which a play has no module of its own


def _swap(place: Place, want: str | None) -> list[tuple[str, ...]]:
    file = place.of
    if place.kind == "swap":
        if want is None:
            return [("swapoff", file)]
        return [("sh", "-c", 'swapon --show=NAME --noheadings | grep -qxF -- "$1" || swapon "$1"', "sh", file)]
    if place.kind == "fstab":
        if want is None:
            return [("sed", "-i", f"\\#^{file.replace('.', '[.]')} none swap sw 0 0$#d", "/etc/fstab")]
        return [_append(want, "/etc/fstab")]
    if want is None:
        return [("rm", file)]
    make = (  # zeros, not fallocate: swapon refuses holes
        '[ -e "$1" ] || { umask 077; dd if=/dev/zero of="$1.new" bs=1M count="$2" conv=fsync && mkswap "$1.new" '
        '&& mv "$1.new" "$1"; }'
    )
    return [("sh", "-c", make, "sh", file, str(int(want) // MIB))]


def ansible(steps: Sequence[Step]) -> Iterator[str]:
    """The steps as a play, which writes the file and sets the value; JSON strings are YAML."""
    import json

    yield "- name: reprieve"
    yield "  hosts: all"
    yield "  become: true"
    yield "  tasks:"
    sysctls = [step for step in steps if step.place.kind.startswith("sysctl")]
    lasting = {step.place.key for step in sysctls if step.place.kind == "sysctl.d"}
    living = {step.place.key for step in sysctls if step.place.kind == "sysctl"}
    for key, want in {step.place.key: step.want for step in sysctls}.items():
        yield f"    - name: {json.dumps(f'{key} = {want}')}"
        if key in lasting:
            yield "      ansible.posix.sysctl:"
            yield f"        name: {json.dumps(key)}"
            yield f"        value: {json.dumps(want)}"
            yield f"        sysctl_file: {_FILE}"
            yield f"        sysctl_set: {str(key in living).lower()}"
            yield f"        reload: {str(key in living).lower()}"
        else:
            yield f"      ansible.builtin.command: {json.dumps(f'sysctl -w {key}={want}')}"
    for step in steps:
        if step.place.kind in _BY_COMMAND:
            script = " && ".join(escape.shell(argv) for argv in _commands(step.place, step.want, step.called))
            yield f"    - name: {json.dumps(f'{where(step.place, step.called)} = {step.want}')}"
            yield f"      ansible.builtin.shell: {json.dumps(script)}"

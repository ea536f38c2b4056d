"""Steps of a plan → a script, a play: for review, and for another machine."""

from collections.abc import Iterator, Sequence

from reprieve.model.change import Entry, Step
from reprieve.model.finding import Finding, Place
from reprieve.model.zram import CONTROL, NOW, SCRIPT, SERVICE, UNIT, unit_text
from reprieve.show import escape
from reprieve.show.changes import SYSCTL_FILE, amounts, engine, path_of, where, workload
from reprieve.units import MIB


def shell(steps: Sequence[Step], by_hand: Sequence[Finding] = ()) -> Iterator[str]:
    """The steps as commands for `sh`, for a machine like this one: review it, then run it as root.

    What is left to people is told as comments.
    """
    yield "#!/bin/sh"
    yield "set -eu"
    told = None
    for step in steps:
        if step.why and step.why != told:
            told = step.why
            yield f"# {escape.visible(escape.plain(step.why))}"
        yield from map(escape.shell, _commands(step.place, step.want, step.called))
    for finding in by_hand:
        remedy = finding.remedies[0]
        yield f"# {escape.visible(escape.plain(finding.claim))} ({finding.code})"
        yield f"# By hand: {escape.visible(escape.plain(remedy.title))}"
        yield from (f"# {escape.shell(argv)}" for argv in remedy.commands)


def undoing(entries: Sequence[Entry]) -> Iterator[str]:
    """What puts the values back by hand, the newest first."""
    for entry in reversed(entries):
        yield from map(escape.shell, _commands(entry.place, entry.before))


def by_hand(place: Place, value: str | None) -> str | None:
    """The one command that sets it whatever is there now; None: it takes several, or finds only what we put there."""
    if place.kind in (*_SWAP, "zram", "zram.service") or (place.kind == "redis" and place.of.startswith("0/")):
        return None  # of a server with a socket alone nobody tells us its path
    commands = _commands(place, value)
    return escape.shell(commands[0]) if len(commands) == 1 else None


def _commands(place: Place, want: str | None, called: str | None = None) -> list[tuple[str, ...]]:
    """What does it in a shell; done again, it changes nothing."""
    match place.kind:
        case "sysctl":
            return [("sysctl", "-w", f"{place.key}={want}")]
        case "sysctl.d":
            without = ("sed", "-i", f"/^{place.key.replace('.', '[.]')} *=/d", SYSCTL_FILE)
            with_it = (("touch", SYSCTL_FILE), without, _append(f"{place.key} = {want}", SYSCTL_FILE))
            return [without] if want is None else list(with_it)
        case "unit":
            return _unit(place, want)
        case "container":
            return [_update(place, want or "max+max", called)]
        case "k8s":
            return _resources(place, want)
        case "process":
            pid, _, start = place.of.partition("@")
            return [("sh", "-c", _SCORE, "sh", pid, start, str(want))]
        case "cgroup":
            return [("sh", "-c", 'echo "$1" > "$0"', f"{_folder(place)}/{place.key}", _size(place, want))]
        case "cgroup.new":
            return [_group(place, want)]
        case "redis":
            port = place.of.partition("/")[0]
            at = ("-p", port) if port != "0" else ("-s", "SOCKET")
            return [("redis-cli", *at, "CONFIG", "SET", place.key, want or "")]
        case "redis.conf":
            return _line(place, want)
        case "zram":
            return _zram(place, want)
        case "zram.service":
            return _zram_unit(want)
        case _:
            return _swap(place, want)


# Field 22 of its stat is when it started: a pid may be another's by now.
_SCORE = (
    '[ "$(sed "s/.*) //" "/proc/$1/stat" | cut -d" " -f20)" = "$2" ] || { echo "process $1 has ended" >&2; exit 1; }; '
    'echo "$3" > "/proc/$1/oom_score_adj"'
)


def _folder(place: Place) -> str:
    return f"/sys/fs/cgroup{'/memory' if _is_old(place) else ''}{path_of(place)}"


def _size(place: Place, want: str | None) -> str:
    return "-1" if _is_old(place) and want == "max" else str(want)


def _is_old(place: Place) -> bool:
    """Is it of version 1, which has a tree for each controller?"""
    return place.key.endswith("in_bytes")


def _group(place: Place, want: str | None) -> tuple[str, ...]:
    if want is None:
        return ("rmdir", _folder(place))
    limits = zip(place.key.split("+"), want.split("+"), strict=True)
    return ("sh", "-c", _MADE, _folder(place), *(f"{file}={_size(place, size)}" for file, size in limits))


# What is made, and cannot be limited, is no group to leave behind.
_MADE = (
    'made=; [ -d "$0" ] || { mkdir "$0" && made=1; } || exit; for limit do '
    'echo "${limit#*=}" > "$0/${limit%%=*}" || { [ -z "$made" ] || rmdir "$0"; exit 1; }; done'
)


def _resources(place: Place, want: str | None) -> list[tuple[str, ...]]:
    """What goes first: a request may be above the limit that is left."""
    server, namespace, kind, name, container = workload(place)
    of = (f"{kind}/{name}", f"--namespace={namespace}", f"--server={server}")
    wanted = amounts(place, want)
    gone = [("sh", "-c", _WITHOUT, *of, _AT % (container, field), container, field) for field, one in wanted if not one]
    said = [f"--{field}=memory={one}" for field, one in wanted if one]
    return [*gone, *([("kubectl", "set", "resources", *of, f"--containers={container}", *said)] if said else [])]


# At which place of the list it stands, if it has such an amount: `set resources` writes 0 for none, and so does a patch
# by name where there is none already (tried on 1.20).
_AT = (
    '{{range $at, $one := .spec.template.spec.containers}}{{if eq $one.name "%s"}}'
    "{{with $one.resources}}{{with .%s}}{{if .memory}}{{$at}}{{end}}{{end}}{{end}}{{end}}{{end}}"
)
_WITHOUT = (
    'at=$(kubectl get "$0" "$1" "$2" -o go-template="$3") || exit; [ -z "$at" ] || { '
    'at="/spec/template/spec/containers/$at"; kubectl patch "$0" "$1" "$2" --type=json --patch "['
    '{\\"op\\": \\"test\\", \\"path\\": \\"$at/name\\", \\"value\\": \\"$4\\"}, '
    '{\\"op\\": \\"remove\\", \\"path\\": \\"$at/resources/$5/memory\\"}]"; }'
)


def _line(place: Place, want: str | None) -> list[tuple[str, ...]]:
    uid = place.of.partition(":")[0]
    if want is None:
        return [("sh", "-c", f'{_AS}sed -i "$1" "$2"', uid, f"/^[[:space:]]*{place.key}[[:space:]]/d", path_of(place))]
    edit = f"s/^\\([[:space:]]*{place.key}[[:space:]]*\\).*/\\1{want}/"
    script = (
        'if grep -q "^[[:space:]]*$1[[:space:]]" "$3"; then sed -i "$4" "$3"; '
        f'else {_ended("$3")}; printf "%s %s\\n" "$1" "$2" >> "$3"; fi'
    )
    return [("sh", "-c", f"{_AS}sh -c '{script}' sh \"$@\"", uid, place.key, want, path_of(place), edit)]


# As the user of the server: which file it is, he says, and where its folders lead.
_AS = 'exec setpriv --reuid "$0" --regid "$(id -g "$0")" --init-groups -- '


def _ended(file: str) -> str:
    """What ends the last line of a file: what is appended would be of it."""
    return f'[ -z "$(tail -c1 "{file}" 2> /dev/null)" ] || echo >> "{file}"'


def _append(line: str, file: str) -> tuple[str, ...]:
    """Add a line unless it is there; a last line without an end gets one first."""
    script = f'grep -qxF -- "$1" "$2" 2> /dev/null || {{ {_ended("$2")}; printf "%s\\n" "$1" >> "$2"; }}'
    return ("sh", "-c", script, "sh", line, file)


def _unit(place: Place, want: str | None) -> list[tuple[str, ...]]:
    file = f"/etc/systemd/system/{place.of}.d/90-reprieve.conf"
    section = f"[{place.of.rpartition('.')[2].capitalize()}]"
    reload, without = ("systemctl", "daemon-reload"), ("sed", "-i", f"/^{place.key}=/d", file)
    if want is None:
        return [without, reload]
    made = [("mkdir", "-p", file.rpartition("/")[0]), ("touch", file), without]
    return [*made, _append(section, file), _append(f"{place.key}={want}", file), reload]


def _update(place: Place, want: str, called: str | None) -> tuple[str, ...]:
    """Both at once; no engine takes a limit away by its command, so it is raised beyond all there can be."""
    (manager, listens, container_id), (memory, plus, swap) = engine(place), want.partition("+")
    argv = [manager, *((_LISTENS[manager], f"unix://{listens}") if listens else ()), "update"]
    argv += ["--memory", str(_BEYOND_BYTES) if memory == "max" else memory]
    if plus:
        both = _BOTH_BEYOND_BYTES if "max" in (memory, swap) else int(memory) + int(swap)
        argv += ["--memory-swap", str(both)]
    return (*argv, called or container_id)


_LISTENS = {"docker": "--host", "podman": "--url"}
_BEYOND_BYTES, _BOTH_BEYOND_BYTES = 1 << 61, (1 << 63) - 4096  # the latter counts swap too, which is beyond it as well
_SWAP = ("swapfile", "swap", "fstab")
BY_COMMAND = (  # what has no module of its own
    *(*_SWAP, "zram", "zram.service", "unit", "container", "process", "cgroup", "cgroup.new", "redis", "redis.conf"),
)


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


def _zram(place: Place, want: str | None) -> list[tuple[str, ...]]:
    if want is None:
        device, number = f"/dev/{place.of}", place.of.removeprefix("zram")
        return [("swapoff", device), ("sh", "-c", 'echo "$1" > "$0"', f"{CONTROL}/hot_remove", number)]
    return [("sh", "-c", " ".join(SCRIPT), CONTROL, want, NOW)]


def _zram_unit(want: str | None) -> list[tuple[str, ...]]:
    if want is None:
        return [("systemctl", "disable", "--now", SERVICE), ("rm", UNIT), ("systemctl", "daemon-reload")]
    lines = unit_text(int(want), copied=True).splitlines()
    return [("sh", "-c", 'printf "%s\\n" "$@" > "$0"', UNIT, *lines), ("systemctl", "enable", SERVICE)]


def ansible(steps: Sequence[Step]) -> Iterator[str]:
    """The steps as a play, which writes the file and sets the value.

    Names in it are anybody's, and `${#1}` of a shell begins a comment of Jinja: no text of it is a template.
    """
    yield "- name: reprieve"
    yield "  hosts: all"
    yield "  become: true"
    yield "  tasks:"
    sysctls = [step for step in steps if step.place.kind.startswith("sysctl")]
    lasting = {step.place.key for step in sysctls if step.place.kind == "sysctl.d"}
    living = {step.place.key for step in sysctls if step.place.kind == "sysctl"}
    for key, want in {step.place.key: step.want for step in sysctls}.items():
        yield f"    - name: {_no_template(f'{key} = {want}')}"
        if key in lasting:
            yield "      ansible.posix.sysctl:"
            yield f"        name: {_no_template(key)}"
            yield f"        value: {_no_template(want or '')}"
            yield f"        sysctl_file: {SYSCTL_FILE}"
            yield f"        sysctl_set: {str(key in living).lower()}"
            yield f"        reload: {str(key in living).lower()}"
        else:
            yield "      ansible.builtin.command:"
            yield f"        cmd: {_no_template(f'sysctl -w {key}={want}')}"
    for step in steps:
        if step.place.kind in BY_COMMAND:
            script = " && ".join(escape.shell(argv) for argv in _commands(step.place, step.want, step.called))
            yield f"    - name: {_no_template(escape.visible(f'{where(step.place, step.called)} = {step.want}'))}"
            yield "      ansible.builtin.shell:"
            yield f"        cmd: {_no_template(script)}"


def _no_template(text: str) -> str:
    """A text that Ansible takes as it is, in ASCII: a string of JSON is one of YAML, but for pairs of surrogates."""
    import json

    told = json.dumps(text, ensure_ascii=False)
    return "!unsafe " + "".join(char if " " <= char < "\x7f" else f"\\U{ord(char):08x}" for char in told)

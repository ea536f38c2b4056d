"""What makes swap on zram without us: a script for `sh`, and the unit of systemd that runs it at each boot."""

import re
from typing import NamedTuple

CONTROL = "/sys/class/zram-control"  # since 4.2; before, the devices were made when the module was loaded
NOW, AT_BOOT = "reprieve", "reprieve-boot"  # labels in the head of the swap: a device with neither is somebody else's
FOLDER = "/etc/systemd/system"
SERVICE = "reprieve-zram.service"
UNIT = f"{FOLDER}/{SERVICE}"
LINK = f"{FOLDER}/swap.target.wants/{SERVICE}"  # by which a boot starts it
RATIO = 2  # how many pages zram makes one of, as Documentation/admin-guide/blockdev/zram.rst expects
_COPIED = f"# Written by reprieve, and copied here: `systemctl disable --now {SERVICE}` ends it."
_HEAD = "# Written by reprieve: `reprieve changes` tells when and why, `reprieve undo` takes it back."


class Owner(NamedTuple):
    """Who else makes zram at each boot, once he is installed."""

    name: str
    files: tuple[str, ...]  # of which one is there then
    instead: str  # where he is told how large; {} are MiB


OWNERS = (
    Owner(
        "zram-generator",
        tuple(f"{at}/systemd/system-generators/zram-generator" for at in ("/usr/lib", "/lib", "/usr/local/lib")),
        "zram-size = {} below [zram0] in /etc/systemd/zram-generator.conf",
    ),
    Owner(
        "zram-tools",
        ("/usr/lib/systemd/system/zramswap.service", "/lib/systemd/system/zramswap.service"),
        "SIZE={} in /etc/default/zramswap",
    ),
    Owner(
        "zram-config",
        ("/usr/lib/systemd/system/zram-config.service", "/lib/systemd/system/zram-config.service"),
        "it takes half of the memory",
    ),
)

# $0 is the control, $1 the size in bytes, $2 the label. The number is the kernel's to give. Of the algorithms the last
# that it takes counts. It is used before all other swap. Done again, it changes nothing.
SCRIPT = (
    'for a in $(sed -n "s,^/dev/\\(zram[0-9]*\\)[[:space:]].*,\\1,p" /proc/swaps); do',
    '[ "$(cat "/sys/block/$a/disksize")" = "$1" ] && exit 0; echo "$a is swapped to already" >&2; exit 1; done;',
    '[ -e "$0" ] || modprobe zram && n=$(cat "$0/hot_add") && cd "/sys/block/zram$n" &&',
    "for a in lz4 zstd; do { echo $a > comp_algorithm; } 2> /dev/null || :; done &&",
    'echo "$1" > disksize && mkswap -L "$2" "/dev/zram$n" &&',
    "p=$(awk 'BEGIN { p = 100 } NR > 1 && $5 >= p { p = $5 + 1 } END { print p < 32767 ? p : 32767 }' /proc/swaps) &&",
    'swapon -p "$p" "/dev/zram$n"',
)
# Those with the label $1, which stands behind 1052 bytes of the head. udev may look into one, and the kernel removes
# none that is open.
_STOP = (
    'for a in $(sed -n "s,^/dev/\\(zram[0-9]*\\)[[:space:]].*,\\1,p" /proc/swaps); do',
    '[ "$(dd if="/dev/$a" bs=1 skip=1052 count=${#1} 2> /dev/null)" = "$1" ] || continue;',
    'swapoff "/dev/$a" || exit; until { echo "${a#zram}" > "$0/hot_remove"; } 2> /dev/null; do sleep 0.1; done; done',
)


def unit_text(size_bytes: int, *, copied: bool = False) -> str:
    """The unit: before swap.target, and not where another owner has been installed since, or in a container.

    `copied`: by people, of whom no journal tells.

    After `dev-zram0.swap`, which a line of fstab may ask for: ours then says that it is swapped to.
    """
    there = "".join(f"ConditionPathExists=!{file}\n" for owner in OWNERS for file in owner.files)
    return f"""\
{_COPIED if copied else _HEAD}
[Unit]
Description=Swap that is compressed and stays in memory
DefaultDependencies=no
Before=swap.target
After=dev-zram0.swap
ConditionVirtualization=!container
{there}
[Service]
Type=oneshot
RemainAfterExit=yes
Environment=DISKSIZE={size_bytes}
ExecStart={_command(SCRIPT, "${DISKSIZE}", AT_BOOT)}
ExecStop={_command(_STOP, AT_BOOT)}

[Install]
WantedBy=swap.target
"""


def unit_size(text: str) -> int | None:
    """How large the swap is that such a unit makes, in bytes; None: the text is not of ours."""
    found = re.search(r"^Environment=DISKSIZE=([1-9][0-9]{0,18})$", text, re.MULTILINE)
    return int(found[1]) if found is not None and is_ours(text) else None


def is_ours(text: str) -> bool:
    """Does the text of a unit say that it is?"""
    return text.startswith((f"{_HEAD}\n", f"{_COPIED}\n"))


def _command(script: tuple[str, ...], *arguments: str) -> str:
    """A command line of systemd.service(5), in whose quotes `\\`, `"`, `$` and `%` are its own."""
    quoted = [re.sub(r'[\\"]', r"\\\g<0>", line).replace("$", "$$").replace("%", "%%") for line in script]
    said = " \\\n    ".join(quoted)
    return f'/bin/sh -c "{said}" {" ".join((CONTROL, *arguments))}'

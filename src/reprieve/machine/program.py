"""How this program is started as root: sudo looks in its own folders, and pipx and venv install into none of them."""

import os
import re
import shlex
import sys
from collections.abc import Iterable
from dataclasses import replace

from reprieve.model.finding import Finding, Gap

_SECURE = frozenset(f"{above}/{name}" for above in ("/usr/local", "/usr", "") for name in ("sbin", "bin"))
_OURS = r"(?<![\w/])reprieve (?=undo\b|changes\b)"
_LONG = 100  # characters of a command: more is not copied from the end of a sentence
_ADVICE = r"run it (?:with sudo|as root)\b(?!: `)"  # which is not followed by a command yet
_ELSEWHERE = r"\((?:there|the last on its node), as root\)$"  # another machine's reprieve lies where it lies


def away_from_root() -> tuple[str, ...] | None:
    """The words that start it whoever says them; None: "reprieve" is enough, or we are root already.

    sudoers(5) has secure_path in every distribution's file; a file run by its path is started all the same.
    """
    return None if sys.platform == "win32" or os.geteuid() == 0 else _where_it_lies()


def _where_it_lies() -> tuple[str, ...] | None:
    """None: in a folder in which sudo looks, as far as is known."""
    path = os.path.abspath(sys.argv[0])
    if os.path.basename(path) == "__main__.py":
        beside = os.path.join(os.path.dirname(sys.executable), "reprieve")
        return (beside,) if os.path.isfile(beside) else (sys.executable, "-P", "-m", "reprieve")
    if os.path.basename(path) != "reprieve" or os.path.dirname(path) in _SECURE:
        return None
    return (path,)


def as_root(*arguments: str) -> tuple[str, ...] | None:
    """A command of ours as who is not root has it done by sudo; None: we are root, or there is none."""
    if sys.platform == "win32" or os.geteuid() == 0:
        return None
    return ("sudo", *(away_from_root() or ("reprieve",)), *arguments)


def run_as_root(*wanted: str, named: bool) -> str | None:
    """This `run` as who is not root has it done; None: we are root.

    Root is for what is `wanted`, not for the command: that is run as our user, unless the options have `named` one.
    """
    whose = () if named else ("--user", user_name())
    if (argv := as_root("run", *whose, *sys.argv[2:])) is None:
        return None
    command = shlex.join(argv)
    if sys.argv[1:2] == ["run"] and len(command) <= _LONG and command.isprintable():
        return command
    return shlex.join(as_root("run", *whose, *wanted, "--", "COMMAND") or ())


def as_asked(*arguments: str) -> str:
    """A command of ours, for whoever asked for this one: sudo's user is not in root's journal."""
    asked: tuple[str, ...] = ("reprieve",)
    if sys.platform != "win32" and os.geteuid() == 0 and os.environ.get("SUDO_USER"):
        asked = ("sudo", *(_where_it_lies() or asked))
    return shlex.join((*asked, *arguments))


def for_whoever_asked(hint: str | None) -> str | None:
    """The same advice, with our commands about changes for whoever asked for this one."""
    ours = as_asked()
    return hint if hint is None or ours == "reprieve" else re.sub(_OURS, lambda _: f"{ours} ", hint)


def user_name() -> str:
    """Whose process this is, as `--user` takes it."""
    import pwd

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # no such user here: a container
        return str(os.geteuid())


def with_command(hint: str | None) -> str | None:
    """The same advice; that to run it as root with a command that sudo finds, where it would not find "reprieve"."""
    words = away_from_root()
    if hint is None or words is None or sys.argv[1:2] == ["run"]:  # the log is root's to read, no command to run
        return hint
    shown = "--dry-run" if sys.argv[1:2] == ["fix"] else None  # who is to do it has seen the plan
    command = shlex.join(("sudo", *words, *(word for word in sys.argv[1:] if word != shown)))
    if len(command) > _LONG or not command.isprintable():
        command = f"{shlex.join(('sudo', *words, *sys.argv[1:2]))} …"  # a shorter one would do more than was asked for
    return re.sub(_ADVICE, lambda advice: f"{advice[0]}: `{command}`", hint, count=1)


def gaps_at_hand(gaps: Iterable[Gap]) -> tuple[Gap, ...]:
    """Those of this machine, with advice that can be followed as it stands."""
    return tuple(gap if gap.hint is None else replace(gap, hint=with_command(gap.hint)) for gap in gaps)


def findings_at_hand(findings: Iterable[Finding]) -> list[Finding]:
    """The same, with commands of ours that root finds, where they are for root and for this machine."""
    words = away_from_root()
    if words is None:
        return list(findings)
    return [
        replace(
            finding,
            remedies=tuple(
                remedy
                if re.search(_ELSEWHERE, remedy.title)
                else replace(
                    remedy,
                    commands=tuple(
                        (*words, *argv[1:]) if argv[0] == "reprieve" and argv[1:2] != ("run",) else argv
                        for argv in remedy.commands
                    ),
                )
                for remedy in finding.remedies
            ),
        )
        for finding in findings
    ]

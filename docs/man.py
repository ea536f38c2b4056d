"""Write docs/man/reprieve.1 from the commands themselves: `python docs/man.py`."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

import click

from reprieve import __version__
from reprieve.cli import cli

PAGE = Path(__file__).parent / "man" / "reprieve.1"
STATUSES = (
    ("0", "Looked everywhere that was asked for; whether there was a kill is in the answer."),
    ("1", "Nothing could be done. Two lines on standard error: what happened, and what to do."),
    ("2", "The arguments cannot be meant."),
    (
        "3",
        "Somebody was killed and --fail-on-kill given, a finding and --fail-on, or fix --dry-run has changes to make.",
    ),
    ("4", "A change was refused, or rolled back; what is in force is told."),
    (
        "5",
        "Not everything could be read, or nothing of it was a kernel log; "
        "the answer names each place, and what to do to see it.",
    ),
    (
        "130",
        "Ctrl-C ended it before its answer: it dies by SIGINT, which shells call so. "
        "why --follow, top --batch and next --watch end by it with one of the above.",
    ),
    ("128 and more", "That signal interrupted a change, which was put back, or an undo, which is not finished."),
)
STATUS_OF_RUN = (
    "reprieve run ends with the status of its command, 128 and the signal if one ended it, or: 125 it failed itself, "
    "by a wrong option too, 126 the command cannot be run, 127 there is none: as env(1) has it, since 1 to 5 may be "
    "the command's."
)
ENVIRONMENT = (
    ("NO_COLOR", "No colours, whatever its value."),
    ("PAGER", "What long output goes through."),
    ("COLUMNS", "How wide answers are laid out, between 40 and 120; without it, as wide as the terminal, else 80."),
    ("XDG_STATE_HOME, HOME", "Below which the journal of changes of a user who is not root lies, see FILES."),
    ("STATE_DIRECTORY", "Where check --since-last keeps its last look; systemd sets it by StateDirectory=."),
    ("DOCKER_HOST, CONTAINER_HOST", "Where Docker and Podman listen: unix:///run/user/1000/podman/podman.sock."),
    ("KUBECONFIG", "Files that tell of a cluster, parted by colons; else ~/.kube/config, else that of the pod."),
)
FILES = (
    ("/var/lib/reprieve/changes.jsonl", "The journal of what root has changed: fix, undo, changes."),
    ("$XDG_STATE_HOME/reprieve/changes.jsonl", "That of another user, else in ~/.local/state/reprieve."),
    ("check.json", "Beside it: the last look of check --since-last."),
    ("/etc/reprieve/accepted.toml", "Findings that somebody has looked at, with a reason and an end."),
)
EXAMPLES = (
    ("reprieve why", "The newest kill in the kernel log, the journal and /var/log of this machine."),
    ("dmesg | reprieve why", "The newest one in that text."),
    ("reprieve why /var/log/kern.log* --list", "One line for each kill."),
    ("reprieve why --all --html kills.html kern.log", "All of them as one page."),
    ("kubectl describe pod web | reprieve why", "What the status proves, and where to look next."),
    ("reprieve why --follow --json", "A document for each kill, when it happens."),
    ("reprieve top --pid 4711 --every 30 --csv", "How much it holds and how fast that grows, until it ends."),
    ("reprieve fix --dry-run", "What the findings ask for, as a plan; nothing is changed."),
    ("reprieve fix swap --size 4G --yes", "A swap file, used now and at each boot."),
    ("reprieve run --max 2G -- make -j8", "All its processes together get 2 GiB; a kill is explained."),
    ("reprieve undo", "The newest change, taken back."),
    ("reprieve next --unit web --set worker=500", "Who dies if web reaches its limit, were the workers volunteers."),
)


def page() -> str:
    """The page as roff."""
    return "\n".join(_page()) + "\n"


def verbs() -> Iterator[tuple[str, click.Command]]:
    """Each verb, and each form of `fix`, by its words."""
    context = click.Context(cli)
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        yield name, command
        if isinstance(command, click.Group):
            yield from ((f"{name} {form}", one) for form, one in sorted(command.commands.items()))


def _page() -> Iterator[str]:
    yield f'.TH REPRIEVE 1 "" "reprieve {__version__}" "User Commands"'
    yield ".SH NAME"
    yield f"reprieve \\- {_roff(_sentence(cli.help))}"
    yield ".SH SYNOPSIS"
    for name, command in verbs():
        usage = " ".join(command.collect_usage_pieces(click.Context(command)))
        yield f"\\fBreprieve {_roff(name)}\\fR {_roff(usage)}"
        yield ".br"
    yield ".SH COMMANDS"
    for name, command in verbs():
        yield f".SS {_roff(name)}"
        yield from _paragraphs(inspect.cleandoc(command.help or ""))
        yield from _options(command)
    yield ".SH EXIT STATUS"
    yield from _terms(STATUSES)
    yield ".PP"
    yield from _paragraphs(STATUS_OF_RUN)
    yield ".SH ENVIRONMENT"
    yield from _terms(ENVIRONMENT)
    yield ".SH FILES"
    yield from _terms(FILES)
    yield ".SH EXAMPLES"
    yield from _terms(EXAMPLES)
    yield ".SH SEE ALSO"
    yield ".BR dmesg (1),"
    yield ".BR journalctl (1),"
    yield ".BR proc (5)"


def _paragraphs(text: str) -> Iterator[str]:
    for at, paragraph in enumerate(text.split("\n\n")):
        if at:
            yield ".PP"
        if "\b" in paragraph:  # click's mark for lines to be kept
            yield ".nf"
            yield from (_roff(line.strip()) for line in paragraph.split("\n") if line != "\b")
            yield ".fi"
        else:
            yield _roff(" ".join(paragraph.split()))


def _options(command: click.Command) -> Iterator[str]:
    for option in command.params:
        if isinstance(option, click.Option) and not option.hidden:
            spelled = ", ".join(sorted((*option.opts, *option.secondary_opts), key=len))
            value = "" if option.is_flag else f" {option.metavar or option.make_metavar(click.Context(command))}"
            yield from _terms(((spelled + value, option.help or ""),))


def _terms(pairs: tuple[tuple[str, str], ...]) -> Iterator[str]:
    for term, said in pairs:
        yield ".TP"
        yield f".B {_roff(term)}"
        yield _roff(said)


def _sentence(text: str | None) -> str:
    first = (text or "").partition("\n\n")[0].rstrip(".")
    return first[:1].lower() + first[1:]


def _roff(text: str) -> str:
    """Text that troff prints as it is: no escapes, no requests, hyphens that can be copied."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("`", "\\(ga").replace("'", "\\(aq")
    return f"\\&{escaped}" if escaped.startswith(".") else escaped


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")

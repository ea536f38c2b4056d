"""The verbs that look at the living machine: `next`, `check`, `top`, `snapshot`."""

import sys

import click

from reprieve.cli import SPELLED


def size_option(_context: click.Context, _option: click.Parameter, text: str | None) -> int | None:
    return None if text is None else _parsed_size(text)


def _sizes(_context: click.Context, _option: click.Parameter, pairs: tuple[str, ...]) -> tuple[tuple[str, int], ...]:
    return tuple((name, _parsed_size(told)) for name, told in map(_split, pairs))


def _adjs(_context: click.Context, _option: click.Parameter, pairs: tuple[str, ...]) -> tuple[tuple[str, int], ...]:
    return tuple((name, _parsed_adj(told)) for name, told in map(_split, pairs))


def _split(pair: str) -> tuple[str, str]:
    """NAME=VALUE; the name may hold `=` itself."""
    name, sign, told = pair.rpartition("=")
    if not sign or not name:
        raise click.BadParameter(f"{pair!r} is no NAME=VALUE")
    return name, told


def _parsed_size(text: str) -> int:
    from reprieve.units import parse_size

    told = parse_size(text)
    if told is None:
        raise click.BadParameter(f"{text!r} is no size: try 512M or 1.5G")
    return told


def _parsed_adj(text: str) -> int:
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= 4 and int(digits) <= 1000):
        raise click.BadParameter(f"{text!r} is no oom_score_adj: it goes from -1000 to 1000")
    return int(text)


def _seconds(_context: click.Context, _option: click.Parameter, seconds: float | None) -> float | None:
    if seconds is not None and not 0.1 <= seconds <= 86400:  # nan is not either
        raise click.BadParameter("between a tenth of a second and a day")
    return seconds


@click.command("next")
@click.argument("name", required=False)
@click.option(
    *("--cgroup", "--unit", "--container"),
    metavar="NAME",
    help="If this cgroup reached its limit: a path, unit, name or id.",
)
@click.option("--node", metavar="N", help="If memory of this NUMA node ran out.")
@click.option("--need", callback=size_option, metavar="SIZE", help="Each kill, until that much is free.")
@click.option(
    *("--set", "adjs"),
    callback=_adjs,
    multiple=True,
    metavar="NAME=ADJ",
    help="What if its oom_score_adj were this?",
)
@click.option(
    *("--limit", "limits"),
    callback=_sizes,
    multiple=True,
    metavar="CGROUP=SIZE",
    help="What if the memory limit were this?",
)
@click.option(
    *("--grow", "grown"), callback=_sizes, multiple=True, metavar="NAME=SIZE", help="What if it took so much more?"
)
@click.option("--without", multiple=True, metavar="NAME", help="What if it were not there?")
@click.option(
    *("--watch", "watch_s"),
    type=float,
    callback=_seconds,
    metavar="SECONDS",
    help="Look for so long first, 2.5 s at least: when what is left is used up, and who dies where it is first.",
)
@click.option(
    "--from",
    "origin",
    type=click.Path(readable=False),
    metavar="FILE",
    help="A snapshot (`-`: from standard input), sosreport, captured root.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document a line, for scripts.")
@click.option("-v", "--verbose", is_flag=True, help="All who can be chosen.")
def foretell(**options: object) -> None:
    """Whom the kernel would kill if memory ran out now.

    The kernel's own choice, made before it makes it: of the whole machine, or of a cgroup that reaches its limit. With
    NAME: where memory runs out first for it, at a limit around it or in the machine.
    NAME is docker:web, podman:web, unit:nginx, pod:shop/web, pid:1234; or a pid, a process, a unit, a container's name
    or id, a pod's UID, a cgroup.
    """
    if options["name"] and (options["cgroup"] or options["node"]):
        raise click.UsageError(f"NAME and --{'cgroup' if options['cgroup'] else 'node'} exclude each other")
    if options["watch_s"] is not None and options["origin"]:
        raise click.UsageError("--watch and --from exclude each other")
    from reprieve.next import Request, perform

    sys.exit(perform(Request(**options)))  # type: ignore[arg-type]


def checks_option(_context: click.Context, _option: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    from reprieve.rules.living import LIVING, code_of

    known = set(map(code_of, LIVING))
    for code in given:
        if code not in known:
            raise click.BadParameter(f"{code!r} is no code of a finding: there are {', '.join(sorted(known))}")
    return given


def _share(_context: click.Context, _option: click.Parameter, text: str) -> float:
    digits = text.strip().removesuffix("%").strip()
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= 3 and 1 <= int(digits) <= 100):
        raise click.BadParameter(f"{text!r} is no share: try 80%")
    return int(digits) / 100


def complete_checks(_context: click.Context, _option: click.Parameter, begun: str) -> list[str]:
    from reprieve.rules.living import LIVING, code_of

    return [code for code in map(code_of, LIVING) if code.startswith(begun)]


@click.command()
@click.argument("name", required=False)
@click.option("-v", "--verbose", is_flag=True, help="Why each matters, all that can be done, the evidence.")
@click.option(
    *("--only", "only"),
    multiple=True,
    callback=checks_option,
    shell_complete=complete_checks,
    metavar="CODE",
    help="Findings of this code alone.",
)
@click.option(
    *("--skip", "skip"),
    multiple=True,
    callback=checks_option,
    shell_complete=complete_checks,
    metavar="CODE",
    help="No findings of this code.",
)
@click.option(
    "--warn-share",
    default="80%",
    callback=_share,
    metavar="SHARE",
    help="From which share of its limit, or of RAM, a group or a process is told of: 80% unless given.",
)
@click.option(
    "--fail-on",
    type=click.Choice(("critical", "warning", "notice", "info")),
    metavar="SEVERITY",
    help="Exit with status 3 on a finding of this severity, or a worse one.",
)
@click.option(
    "--accepted",
    type=click.Path(readable=False),
    metavar="FILE",
    help="Findings to leave out, each with a reason and an end; /etc/reprieve/accepted.toml unless given.",
)
@click.option("--since-last", is_flag=True, help="What is new since the last look with this option.")
@click.option("--summary", is_flag=True, help="One line, and none if all was seen and nothing found: for cron.")
@click.option(
    "--from",
    "origin",
    type=click.Path(readable=False),
    metavar="FILE",
    help="A snapshot (`-`: from standard input), sosreport, captured root.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document a line, for scripts.")
@click.option("--markdown", is_flag=True, help="For a ticket.")
@click.option("--html", type=click.Path(readable=False), metavar="FILE", help="One self-contained page.")
def check(**options: object) -> None:
    """What on this machine leads to the next kill.

    Settings, limits and what is held now, each finding with its evidence and what to do. Nothing is changed. With NAME
    (docker:web, podman:web, unit:nginx, pod:shop/web, pid:1234) what concerns that: itself, what is in it, and the
    groups it is in.
    """
    if options["name"] and options["since_last"]:
        raise click.UsageError("NAME and --since-last exclude each other: the last look is of the whole machine")
    for group in (("as_json", "markdown", "html", "summary"), ("origin", "since_last")):
        given = [f"--{SPELLED.get(name, name.replace('_', '-'))}" for name in group if options[name]]
        if len(given) > 1:
            raise click.UsageError(f"{' and '.join(given)} exclude each other")
    from reprieve.check import Request, perform

    sys.exit(perform(Request(**options)))  # type: ignore[arg-type]


@click.command()
@click.option("--once", is_flag=True, help="One look, as text.")
@click.option("--batch", is_flag=True, help="Look after look, a JSON document each.")
@click.option("--csv", is_flag=True, help="Lines of CSV instead of JSON.")
@click.option("--pid", type=click.IntRange(1), metavar="PID", help="This process alone, until it ends; JSON lines.")
@click.option(
    *("--every", "every_s"), type=float, callback=_seconds, metavar="SECONDS", help="Between two looks; 1 if not told."
)
@click.option(*("-n", "--count", "looks"), type=click.IntRange(1), metavar="N", help="End after that many looks.")
@click.option(
    "--rows",
    type=click.IntRange(1),
    metavar="N",
    help="So many processes and cgroups in a look, the next victim always; 20.",
)
@click.option(
    "--from",
    "origin",
    type=click.Path(readable=False),
    metavar="FILE",
    help="One look at a snapshot (`-`: from standard input), a sosreport, a captured root.",
)
def top(**options: object) -> None:
    """Watch who holds memory, who grows, and when it runs out.

    Where memory runs out first and when, at the present pace; the processes by what they hold of their own, the next
    victim marked; the cgroups and their limits; kills as they happen. `?` in the live view tells the keys.
    """
    from reprieve.top import Request, perform

    request = Request(**options)  # type: ignore[arg-type]
    ways = [f"--{way}" for way in ("once", "batch", "pid") if options[way]]
    if len(ways) > 1:
        raise click.UsageError(f"{' and '.join(ways)} exclude each other")
    if request.origin is not None and (request.batch or request.pid):
        raise click.UsageError("--from is one look: --once")
    if (request.once or request.origin is not None) and (request.every_s is not None or request.looks not in (None, 1)):
        option = "--every" if request.every_s is not None else "-n"
        raise click.UsageError(f"{'--once' if request.once else '--from'} is one look: {option} is for --batch")
    if request.csv and not (request.batch or request.pid):
        raise click.UsageError("--csv is for --batch or --pid")
    if request.rows is not None and not (request.once or request.batch or request.origin is not None):
        raise click.UsageError("--rows is for --once, --batch or --from")
    sys.exit(perform(request))


@click.command()
@click.option("-o", "--output", required=True, type=click.Path(readable=False), metavar="FILE", help="`-` for a pipe.")
@click.option(
    "--from", "root", default="/", metavar="PATH", help="A captured machine: a sosreport, packed or not, or a root."
)
def snapshot(output: str, root: str) -> None:
    """Write what is seen of this machine's memory to one file.

    One compressed JSON document, for another machine: memory, settings, processes, cgroups, and the kills in the logs;
    no command lines and no environments. What could not be seen is told, here and in the file.
    """
    from reprieve.snapshot import perform

    sys.exit(perform(output=output, root=root))

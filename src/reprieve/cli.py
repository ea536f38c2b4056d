"""The command line: arguments in, output and exit status out.

Exit status: 0 looked, 1 a `Failure` (two lines: what, and what to do), 2 usage, 3 somebody was killed and
`--fail-on-kill` was given, 4 a change was refused or rolled back, 5 not everything could be read. Only this file
catches a `Failure`.
"""

import os
import sys
from collections.abc import Callable, Sequence
from io import TextIOWrapper
from typing import Any

import click

from reprieve import __version__
from reprieve.model.finding import Failure


def run() -> None:
    """Parse the arguments, do the work, exit."""
    if sys.stdout is None:  # started without one: the exit status may be all that is asked for
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without UTF-8 shows ? for a bar, and the rest
    try:
        cli(prog_name="reprieve")
    except Failure as failure:
        from reprieve.show.escape import visible  # a path, and what a program says, are words of strangers

        click.echo(f"reprieve: {visible(failure.message)}", err=True)
        if failure.hint:
            click.echo(f"  {visible(failure.hint)}", err=True)
        sys.exit(failure.status)


class _Verbs(click.Group):
    """The verbs; a file in the place of one is most likely a log."""

    def resolve_command(
        self, context: click.Context, words: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if words and self.get_command(context, words[0]) is None and os.path.exists(words[0]):
            from reprieve.show.escape import shell

            context.fail(f"No such command {words[0]!r}. Did you mean: {shell(('reprieve', 'why', words[0]))}")
        return super().resolve_command(context, words)


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, "-V", "--version", message="%(prog)s %(version)s")
def cli() -> None:
    """What Linux killed for memory, why, and what to do about it."""


def _moment(_context: click.Context, option: click.Parameter, text: str | None) -> float | None:
    if text is None:
        return None
    from reprieve.machine.clock import FORMS, has_no_year, parse_moment, spelled

    moment = parse_moment(text)
    if moment is None:
        raise click.BadParameter(f"{text!r} is no date: there are {FORMS}")
    if has_no_year(text):
        click.echo(f"reprieve: {option.opts[0]} is taken as {spelled(moment)}, the latest that is past", err=True)
    return moment


def _codes(_context: click.Context, _option: click.Parameter, begun: str) -> list[str]:
    from reprieve.rules import RULES
    from reprieve.rules.living import LIVING, code_of

    return [code for code in map(code_of, (*RULES, *LIVING)) if code.startswith(begun)]


@cli.command()
@click.argument("sources", nargs=-1, metavar="[SOURCE]...", type=click.Path(readable=False))
@click.option("-v", "--verbose", is_flag=True, help="All of it: every process with its score, zones, evidence.")
@click.option("--all", "every", is_flag=True, help="Explain every kill, the oldest first.")
@click.option("--last", type=click.IntRange(1), metavar="N", help="Explain the newest N.")
@click.option("--list", "listed", is_flag=True, help="One line for each kill.")
@click.option("--since", callback=_moment, metavar="WHEN", help="Not before: a date, 'May 1 13:00', 14:08, '2 h ago'.")
@click.option("--until", callback=_moment, metavar="WHEN", help="Not after.")
@click.option("--pid", type=int, metavar="PID", help="Kills of this process.")
@click.option("--name", metavar="NAME", help="Kills of processes whose name holds this.")
@click.option(
    "--cgroup", metavar="NAME", help="Kills in cgroups, units, containers or pods whose path or name holds this."
)
@click.option(
    "--boot", metavar="BOOT", help="Kills of this boot: 0 is the present one, -1 the one before, or a boot id."
)
@click.option(
    "--from", "origin", type=click.Path(readable=False), metavar="FILE", help="The kills a snapshot tells of."
)
@click.option("--follow", "-f", is_flag=True, help="Wait, and explain each kill as it happens.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document a line, for scripts.")
@click.option("--markdown", is_flag=True, help="For a ticket.")
@click.option("--html", type=click.Path(readable=False), metavar="FILE", help="One self-contained page.")
@click.option(
    "--redact",
    is_flag=True,
    help="Replace names of hosts, processes, users and containers; well-known programs (java, mysqld) keep theirs.",
)
@click.option("--explain", "code", metavar="CODE", shell_complete=_codes, help="What a finding of this code means.")
@click.option("--fail-on-kill", is_flag=True, help="Exit with status 3 if somebody was killed.")
@click.option("--pager/--no-pager", default=True, help="Show long output in a pager, on a terminal, or as it comes.")
@click.pass_context
def why(context: click.Context, /, sources: tuple[str, ...], code: str | None, **options: object) -> None:
    """Explain what was killed, why, and what to do.

    SOURCE is a log file, a folder of logs, a compressed log, a sosreport, a .journal file, what docker, podman, kubectl
    or systemctl print of an end, or `-` for standard input. Without one: what is piped in; at a terminal, and with
    /dev/null for input, this machine's kernel buffer, journal and /var/log.
    """
    _refuse_contradictions(options)
    from reprieve.why import Request, explain_code, perform, print_lines

    if options["origin"] and sources:
        raise click.UsageError("a SOURCE and --from exclude each other")
    if code is not None:
        print_lines([explain_code(code)])
        return
    context.exit(perform(Request(sources=sources, **options)))  # type: ignore[arg-type]


def _refuse_contradictions(options: dict[str, object]) -> None:
    for group in (
        ("as_json", "markdown", "html"),
        ("every", "last", "listed", "follow"),
        ("html", "listed", "follow"),
        ("origin", "follow"),
    ):
        given = [f"--{_SPELLED.get(name, name)}" for name in group if options[name]]
        if len(given) > 1:
            raise click.UsageError(f"{' and '.join(given)} exclude each other")
    since, until = options["since"], options["until"]
    if isinstance(since, float) and isinstance(until, float) and since > until:
        raise click.UsageError("--since is after --until: no time is between them")


_SPELLED = {"as_json": "json", "every": "all", "listed": "list", "origin": "from"}


@cli.command()
@click.option("-v", "--verbose", is_flag=True, help="All that is known about the kill.")
def demo(verbose: bool) -> None:
    """Let the kernel kill a leak in a small cgroup of its own, and explain it."""
    from reprieve.demo import perform

    perform(verbose=verbose)


def _size(_context: click.Context, _option: click.Parameter, text: str | None) -> int | None:
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


@cli.command("next")
@click.option(
    *("--cgroup", "--unit", "--container"),
    metavar="NAME",
    help="If this cgroup reached its limit: a path, unit, name or id.",
)
@click.option("--node", metavar="N", help="If memory of this NUMA node ran out.")
@click.option("--need", callback=_size, metavar="SIZE", help="Each kill, until that much is free.")
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
    help="Look for so long first: when what is left is used up, and who dies where it is first.",
)
@click.option(
    "--from",
    "origin",
    type=click.Path(readable=False),
    metavar="FILE",
    help="A snapshot, sosreport, captured root.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document a line, for scripts.")
@click.option("-v", "--verbose", is_flag=True, help="All who can be chosen.")
def foretell(**options: object) -> None:
    """Whom the kernel would kill if memory ran out now.

    The kernel's own choice, made before it makes it: of the whole machine, or of a cgroup that reaches its limit.
    NAME is a pid, a process, a unit, a container's name or id, a pod's UID or a cgroup.
    """
    if options["watch_s"] is not None and options["origin"]:
        raise click.UsageError("--watch and --from exclude each other")
    from reprieve.next import Request, perform

    sys.exit(perform(Request(**options)))  # type: ignore[arg-type]


def _checks(_context: click.Context, _option: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
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


def _known_checks(_context: click.Context, _option: click.Parameter, begun: str) -> list[str]:
    from reprieve.rules.living import LIVING, code_of

    return [code for code in map(code_of, LIVING) if code.startswith(begun)]


@cli.command()
@click.option("-v", "--verbose", is_flag=True, help="Why each matters, all that can be done, the evidence.")
@click.option(
    *("--only", "only"),
    multiple=True,
    callback=_checks,
    shell_complete=_known_checks,
    metavar="CODE",
    help="Findings of this code alone.",
)
@click.option(
    *("--skip", "skip"),
    multiple=True,
    callback=_checks,
    shell_complete=_known_checks,
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
    help="A snapshot, sosreport, captured root.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document a line, for scripts.")
@click.option("--markdown", is_flag=True, help="For a ticket.")
@click.option("--html", type=click.Path(readable=False), metavar="FILE", help="One self-contained page.")
def check(**options: object) -> None:
    """What on this machine leads to the next kill.

    Settings, limits and what is held now, each finding with its evidence and what to do. Nothing is changed.
    """
    for group in (("as_json", "markdown", "html", "summary"), ("origin", "since_last")):
        given = [f"--{_SPELLED.get(name, name.replace('_', '-'))}" for name in group if options[name]]
        if len(given) > 1:
            raise click.UsageError(f"{' and '.join(given)} exclude each other")
    from reprieve.check import Request, perform

    sys.exit(perform(Request(**options)))  # type: ignore[arg-type]


@cli.command()
@click.option("--once", is_flag=True, help="One look, as text.")
@click.option("--batch", is_flag=True, help="Look after look, a JSON document each.")
@click.option("--csv", is_flag=True, help="Lines of CSV instead of JSON.")
@click.option("--pid", type=click.IntRange(1), metavar="PID", help="This process alone, until it ends; JSON lines.")
@click.option(
    *("--every", "every_s"), type=float, callback=_seconds, metavar="SECONDS", help="Between two looks; 1 if not told."
)
@click.option(*("-n", "--count", "looks"), type=click.IntRange(1), metavar="N", help="End after that many looks.")
@click.option("--rows", type=click.IntRange(1), metavar="N", help="So many processes and cgroups in a look; 20.")
@click.option(
    "--from",
    "origin",
    type=click.Path(readable=False),
    metavar="FILE",
    help="One look at a snapshot, a sosreport, a captured root.",
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
    if request.csv and not (request.batch or request.pid):
        raise click.UsageError("--csv is for --batch or --pid")
    sys.exit(perform(request))


@cli.command()
@click.option("-o", "--output", required=True, type=click.Path(readable=False), metavar="FILE", help="`-` for a pipe.")
@click.option("--from", "root", default="/", metavar="DIR", help="A captured machine: an unpacked sosreport, a root.")
def snapshot(output: str, root: str) -> None:
    """Write all that can be seen of this machine's memory to a file that travels.

    One compressed JSON document: memory, settings, processes, cgroups, and the kills in the logs; no command lines and
    no environments. What could not be seen is told, here and in the file.
    """
    from reprieve.snapshot import perform

    sys.exit(perform(output=output, root=root))


def _within(_context: click.Context, _option: click.Parameter, seconds: int | None) -> int | None:
    if seconds is not None and not 5 <= seconds <= 86400:
        raise click.BadParameter("between 5 seconds and a day")
    return seconds


_HOW_TO_FIX = (
    click.option("--yes", "-y", is_flag=True, help="Change it without asking."),
    click.option("--dry-run", is_flag=True, help="Only show; exit with status 3 if there is something to change."),
    click.option("--runtime", is_flag=True, help="Only until the next boot; both, unless told."),
    click.option("--persistent", is_flag=True, help="Only from the next boot on; both, unless told."),
    click.option(
        "--confirm-within",
        type=int,
        callback=_within,
        metavar="SECONDS",
        help="Undo it by itself unless it is confirmed in time, whatever becomes of this shell.",
    ),
    click.option("--force", multiple=True, metavar="NAME", help="Change this setting although it does harm."),
    click.option("--as", "export", type=click.Choice(("sh", "ansible")), help="Print it for use elsewhere instead."),
    click.option("--reason", metavar="TEXT", help="Why, for the journal of changes."),
)


def _how_to_fix(function: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(_HOW_TO_FIX):
        function = option(function)
    return function


def _fix(settings: Sequence[tuple[str, str]] | None, options: dict[str, Any]) -> None:
    from reprieve.apply import Request, perform
    from reprieve.fix.plan import Span, Wanted
    from reprieve.model.finding import Change, parse_place

    runtime, persistent = options.pop("runtime"), options.pop("persistent")
    if options["yes"] and (options["dry_run"] or options["export"]):
        raise click.UsageError("--yes changes the machine, --dry-run and --as do not")
    wanted = None
    if settings is not None:
        wanted = (Wanted(tuple(Change(place=parse_place(told), want=want) for told, want in settings)),)
    span = Span(now=runtime or not persistent, later=persistent or not runtime)
    sys.exit(perform(Request(settings=wanted, span=span, **options)))


@cli.group(invoke_without_command=True)
@click.option(
    *("--only", "only"),
    multiple=True,
    callback=_checks,
    shell_complete=_known_checks,
    metavar="CODE",
    help="What findings of this code ask for, alone.",
)
@_how_to_fix
@click.pass_context
def fix(context: click.Context, /, **options: object) -> None:
    """Change what leads to the next kill: planned, asked, applied, read back, undone if it fails.

    Without a COMMAND: what the findings of `reprieve check` ask for. All changes of a plan hold, or none.
    """
    if context.invoked_subcommand is None:
        _fix(None, options)
    elif any(options.values()):
        context.fail(f"options stand behind the command: reprieve fix {context.invoked_subcommand} …")


@fix.command("swappiness")
@click.argument("weight", type=click.IntRange(0, 200))
@_how_to_fix
def fix_swappiness(weight: int, **options: object) -> None:
    """How dear swapping is against reading files again: 0 to 200, above 100 for zram. 1 is as little as possible."""
    _fix([("sysctl:/vm.swappiness", str(weight))], options)


_MODES = {"guess": "0", "always": "1", "strict": "2"}


@fix.command("overcommit")
@click.argument("mode", type=click.Choice(tuple(_MODES)))
@click.option("--ratio", type=click.IntRange(0, 10000), metavar="PERCENT", help="Of RAM that may be promised.")
@_how_to_fix
def fix_overcommit(mode: str, ratio: int | None, **options: object) -> None:
    """What the kernel promises: what could be had (guess), anything (always), or CommitLimit and no more (strict)."""
    first = [] if ratio is None else [("sysctl:/vm.overcommit_ratio", str(ratio))]
    _fix([*first, ("sysctl:/vm.overcommit_memory", _MODES[mode])], options)


@fix.command("panic-on-oom")
@click.argument("mode", type=click.IntRange(0, 2))
@_how_to_fix
def fix_panic_on_oom(mode: int, **options: object) -> None:
    """Whether the machine stops when memory runs out: never (0), when all of it has (1), at any limit too (2)."""
    _fix([("sysctl:/vm.panic_on_oom", str(mode))], options)


@fix.command("swap")
@click.option("--size", "size_bytes", required=True, callback=_size, metavar="SIZE", help="1M or more: 4G.")
@click.option("--file", default="/swapfile.reprieve", metavar="PATH", help="/swapfile.reprieve unless told.")
@_how_to_fix
def fix_swap(size_bytes: int, file: str, **options: object) -> None:
    """Add a swap file: made, swapped to, and in /etc/fstab. Undone, it is swapped off and gone."""
    _fix([(f"swapfile:{file}", str(size_bytes)), (f"swap:{file}", "on"), (f"fstab:{file}", "")], options)


def _unit_name(_context: click.Context, _option: click.Parameter, name: str) -> str:
    return name if name.rpartition(".")[2] in _KINDS else f"{name}.service"


_KINDS = ("service", "slice", "scope", "socket", "mount", "swap")


@fix.command("limit")
@click.argument("unit", callback=_unit_name)
@click.option("--max", "most", callback=_size, metavar="SIZE", help="MemoryMax: at which somebody in it is killed.")
@click.option(
    "--high", callback=_size, metavar="SIZE", help="MemoryHigh: above which it is slowed down, and reclaimed."
)
@click.option("--swap-max", callback=_size, metavar="SIZE", help="MemorySwapMax: how much swap it may use.")
@_how_to_fix
def fix_limit(unit: str, most: int | None, high: int | None, swap_max: int | None, **options: object) -> None:
    """Limit the memory of a unit of systemd, by a drop-in of ours that the manager takes over at once."""
    told = (("MemoryMax", most), ("MemoryHigh", high), ("MemorySwapMax", swap_max))
    settings = [(f"unit:{unit}/{key}", str(size)) for key, size in told if size is not None]
    if not settings:
        raise click.UsageError("--max, --high or --swap-max says to what it is to be limited")
    _fix(settings, options)


@fix.command("protect")
@click.argument("unit", callback=_unit_name)
@click.option("--adj", type=click.IntRange(-1000, 1000), default=-500, show_default=True, help="Its oom_score_adj.")
@_how_to_fix
def fix_protect(unit: str, adj: int, **options: object) -> None:
    """Have the kernel choose a unit later than others, from its next start on: what it runs inherits that."""
    _fix([(f"unit:{unit}/OOMScoreAdjust", str(adj))], options)


@fix.command("oom-policy")
@click.argument("unit", callback=_unit_name)
@click.argument("policy", type=click.Choice(("continue", "stop", "kill")))
@_how_to_fix
def fix_oom_policy(unit: str, policy: str, **options: object) -> None:
    """What becomes of a unit when one of it is killed: nothing, it is stopped, or all of it is killed with it."""
    _fix([(f"unit:{unit}/OOMPolicy", policy)], options)


@cli.command()
@click.argument("number", type=click.IntRange(1), required=False)
@click.option("--recover", is_flag=True, help="Put back what was begun and not finished, after a crash.")
@click.option("--leave", is_flag=True, help="Leave what somebody else has changed since as it is, and be done with it.")
@click.option("--unless-kept", type=int, hidden=True)
def undo(number: int | None, recover: bool, leave: bool, unless_kept: int | None) -> None:
    """Put back what `reprieve fix` has changed: change NUMBER, or the newest.

    What somebody else has changed since is never overwritten. The same as shell commands is printed.
    """
    if recover and (number is not None or leave):
        raise click.UsageError("--recover finishes all that was begun: it takes no NUMBER")
    from reprieve.undo import Request, perform, undo_later

    if unless_kept is not None and number is not None:
        sys.exit(undo_later(number, unless_kept))
    sys.exit(perform(Request(number=number, recover=recover, leave=leave)))


@cli.command()
@click.option("--keep", type=click.IntRange(1), metavar="NUMBER", help="Confirm a change made with --confirm-within.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document a line, for scripts.")
def changes(keep: int | None, as_json: bool) -> None:
    """What was changed here, when, by whom and why, and what of it is in force."""
    if keep is not None:
        from reprieve.apply import keep as confirm

        confirm(keep)
        return
    from reprieve.undo import history

    sys.exit(history(as_json=as_json))


@cli.command()
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
def completion(shell: str) -> None:
    """Print a script that teaches a shell to complete `reprieve`.

    \b
    bash:  reprieve completion bash > ~/.local/share/bash-completion/completions/reprieve
    zsh:   reprieve completion zsh > a folder of $fpath, as _reprieve
    fish:  reprieve completion fish > ~/.config/fish/completions/reprieve.fish
    """
    from click.shell_completion import get_completion_class

    from reprieve.why import print_lines

    scripts = get_completion_class(shell)
    assert scripts is not None  # click knows these three
    print_lines([scripts(cli, {}, "reprieve", "_REPRIEVE_COMPLETE").source()])

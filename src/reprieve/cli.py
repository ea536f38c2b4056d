"""The command line: arguments in, output and exit status out.

Exit status: 0 looked, 1 a `Failure` (two lines: what, and what to do), 2 usage, 3 somebody was killed and
`--fail-on-kill` was given, 4 a change was refused or rolled back, 5 not everything could be read; Ctrl-C ends it by
SIGINT, which shells call 130; of `run` that of its command. Only this file catches a `Failure`.
"""

import os
import sys
from contextlib import suppress
from io import TextIOWrapper

import click

from reprieve import __version__
from reprieve.model.finding import Failure


def run() -> None:
    """Parse the arguments, do the work, exit."""
    # Started without one: no answer is lost unsaid, as none can be written to what is open to be read alone.
    for name, mode in (("stdout", os.O_RDONLY), ("stderr", os.O_WRONLY)):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, mode), "w"))
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without UTF-8 shows ? for a bar, and the rest
    try:
        _obey()
    except Failure as failure:
        from reprieve.machine.program import for_whoever_asked, with_command
        from reprieve.show.escape import visible  # a path, and what a program says, are words of strangers

        hint = for_whoever_asked(with_command(failure.hint))
        told = [f"reprieve: {visible(failure.message)}", *([f"  {visible(hint)}"] if hint else [])]
        if sys.stderr.isatty():  # who reads a log wants a line each
            from reprieve.output import LEAST
            from reprieve.show.text import wrap

            columns = max(LEAST, os.get_terminal_size(sys.stderr.fileno()).columns or 80)
            parts = [part for line in told for part in wrap(line, columns - 2)]
            told = [f"  {part}" if at else part for at, part in enumerate(parts)]
        with suppress(OSError):  # who was to read it has gone, or its disk is full: the status is still told
            for line in told:
                click.echo(line, err=True)
        sys.exit(failure.status)


def _obey() -> None:
    """Raises Failure."""
    try:
        cli(prog_name="reprieve", windows_expand_args="run" not in sys.argv[1:2])  # no shell there does, nor undoes it
    except OSError as error:
        ours = sys.argv[1 : sys.argv.index("--") if "--" in sys.argv else None]
        if not {"-h", "--help"} & set(ours):  # which click writes itself
            raise
        from reprieve.output import unwritten

        raise unwritten(error, "the help") from error


_LATER = {  # verbs whose options are made where they are asked for: all of them are a tenth of the start
    **dict.fromkeys(("next", "check", "top", "snapshot"), "living_verbs"),
    **dict.fromkeys(("fix", "undo", "changes"), "fix_verbs"),
    "run": "run_verb",
}


_ON_WINDOWS = ("run", "why")  # no Linux is there to be looked at, nor changed


class _Verbs(click.Group):
    """The verbs, most of them loaded when they are needed; a file in the place of one is likely a log."""

    def list_commands(self, context: click.Context) -> list[str]:
        names = sorted({*super().list_commands(context), *_LATER})
        return [name for name in names if name in _ON_WINDOWS] if sys.platform == "win32" else names

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if sys.platform == "win32" and name not in _ON_WINDOWS:
            return None
        if name not in _LATER:
            return super().get_command(context, name)
        from importlib import import_module

        module = import_module(f"reprieve.{_LATER[name]}")
        command: click.Command = getattr(module, "foretell" if name == "next" else name)
        return command

    def resolve_command(
        self, context: click.Context, words: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if words and self.get_command(context, words[0]) is None and not context.resilient_parsing:
            if sys.platform == "win32" and words[0] in {*super().list_commands(context), *_LATER}:
                context.fail(f"{words[0]} is not there on Windows")
            if os.path.exists(words[0]):
                from reprieve.show.escape import shell

                context.fail(f"No such command {words[0]!r}. Did you mean: {shell(('reprieve', 'why', words[0]))}")
            from difflib import get_close_matches

            # Click knows those alone that are loaded.
            if near := get_close_matches(words[0], self.list_commands(context), n=1):
                context.fail(f"No such command {words[0]!r}. Did you mean: reprieve {near[0]}")
        return super().resolve_command(context, words)

    def invoke(self, context: click.Context) -> object:
        try:
            return super().invoke(context)
        except click.NoSuchOption as error:  # by no slip is anybody led to the one that is dangerous
            near = [option for option in error.possibilities or () if option != "--force"]
            raise click.NoSuchOption(error.option_name, possibilities=near, ctx=error.ctx) from None
        except KeyboardInterrupt:  # which click calls aborted, with status 1
            from reprieve.machine.signals import end_by_ctrl_c

            end_by_ctrl_c()


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
@click.option("--last", type=click.IntRange(1), metavar="N", help="Explain the newest N, or list them.")
@click.option("--list", "listed", is_flag=True, help="One line for each kill.")
@click.option("--since", callback=_moment, metavar="WHEN", help="Not before: a date, 'May 1 13:00', 14:08, '2 h ago'.")
@click.option("--until", callback=_moment, metavar="WHEN", help="Not after.")
@click.option("--pid", type=int, metavar="PID", help="Kills of this process.")
@click.option("--name", metavar="NAME", help="Kills of processes, or of containers, whose name holds this.")
@click.option(
    "--cgroup", metavar="NAME", help="Kills in cgroups, units, containers or pods whose path or name holds this."
)
@click.option(
    "--boot", metavar="BOOT", help="Kills of this boot: 0 is the present one, -1 the one before, or a boot id."
)
@click.option(
    *("--from", "origin"),
    type=click.Path(readable=False),
    metavar="FILE",
    help="The kills a snapshot tells of; `-`: of standard input.",
)
@click.option(
    "--follow",
    "-f",
    is_flag=True,
    help="Wait, and explain each kill as it happens; of this machine Docker and Podman are heard too.",
)
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
    or systemctl print of an end, or `-` for standard input; or docker:NAME, podman:NAME, pod:NAMESPACE/NAME, unit:NAME,
    whose status is asked for, pid:N or the exit status 137, with this machine's own logs. Without one: what is piped
    in; at a terminal, and with /dev/null for input, this machine's kernel buffer, journal and /var/log.
    """
    _refuse_contradictions(options)
    from reprieve.output import print_lines, width
    from reprieve.request import Request
    from reprieve.why import explain_code, perform

    if options["origin"] and sources:
        raise click.UsageError("a SOURCE and --from exclude each other")
    if code is not None:
        from reprieve.show.text import prose

        print_lines(prose(explain_code(code), width()))
        return
    context.exit(perform(Request(sources=sources, **options)))  # type: ignore[arg-type]


def _refuse_contradictions(options: dict[str, object]) -> None:
    for group in (
        ("as_json", "markdown", "html"),
        ("every", "last", "follow"),
        ("every", "listed", "follow"),
        ("html", "listed", "follow"),
        ("origin", "follow"),
    ):
        given = [f"--{SPELLED.get(name, name)}" for name in group if options[name]]
        if len(given) > 1:
            raise click.UsageError(f"{' and '.join(given)} exclude each other")
    since, until = options["since"], options["until"]
    if isinstance(since, float) and isinstance(until, float) and since > until:
        raise click.UsageError("--since is after --until: no time is between them")


SPELLED = {"as_json": "json", "every": "all", "listed": "list", "origin": "from"}


@cli.command()
@click.option("-v", "--verbose", is_flag=True, help="All that is known about the kill.")
def demo(verbose: bool) -> None:
    """Let the kernel kill a leak in a small cgroup, and explain it."""
    from reprieve.demo import perform

    perform(verbose=verbose)


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

    from reprieve.output import print_lines

    scripts = get_completion_class(shell)
    assert scripts is not None  # click knows these three
    script = scripts(cli, {}, "reprieve", "_REPRIEVE_COMPLETE").source()
    # Click 8.5: zsh completes nothing at the second try, as the file is a function by then; fish is told of what an
    # option does up to a comma.
    script = script.replace("$zsh_eval_context[-1] == loadautofunc", "$funcstack[1] == _reprieve")
    print_lines([script.replace('string split ","', 'string split --max 1 ","')])

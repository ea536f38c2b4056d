"""The verb that runs a command: `run`."""

import sys

import click
from click.core import ParameterSource

from reprieve.model.run import Bounds

_OF_LINUX = ("high_bytes", "swap_max_bytes", "adj", "nice", "node", "user", "smallest")  # Windows has nothing like it
_LONGEST_S = 100 * 365 * 86400  # a clock in nanoseconds ends after 292 years


class _Usage(click.UsageError):
    exit_code = 125


class _Run(click.Command):
    """A command whose exit status is that of another: what is wrong with its own arguments is 125."""

    def parse_args(self, context: click.Context, words: list[str]) -> list[str]:
        try:
            left = super().parse_args(context, words)
        except click.UsageError as error:
            raise _Usage(error.format_message(), error.ctx) from error
        for option in self.params if sys.platform == "win32" else ():
            if option.name in _OF_LINUX and context.get_parameter_source(option.name) is ParameterSource.COMMANDLINE:
                raise _Usage(f"{option.opts[0]} is not there on Windows", context)
        return left


def _size(_context: click.Context, _option: click.Parameter, text: str | None) -> int | None:
    if text is None:
        return None
    from reprieve.units import parse_size

    if (told := parse_size(text)) is None:
        raise click.BadParameter(f"{text!r} is no size: try 512M or 1.5G")
    return told


def limit_option(_context: click.Context, _option: click.Parameter, text: str | None) -> int | None:
    if text is None:
        return None
    from reprieve.units import parse_limit

    try:
        return parse_limit(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _duration(_context: click.Context, _option: click.Parameter, text: str | None) -> float | None:
    if text is None:
        return None
    from reprieve.units import parse_duration

    if not (told := parse_duration(text)) or told > _LONGEST_S:
        raise click.BadParameter(f"{text!r} is no length of time: try 90, 10m or 1h30m")
    return told


@click.command(cls=_Run, context_settings={"allow_interspersed_args": False})
@click.option(
    "--max",
    "max_bytes",
    callback=limit_option,
    metavar="SIZE",
    help="Of all its processes: above it one is killed; on Windows it gets no more.",
)
@click.option(
    "--high", "high_bytes", callback=limit_option, metavar="SIZE", help="Above it they are slowed and reclaimed from."
)
@click.option("--swap-max", "swap_max_bytes", callback=_size, metavar="SIZE", help="How much swap they may use.")
@click.option("--adj", type=click.IntRange(-1000, 1000), metavar="ADJ", help="Its oom_score_adj: -1000 to 1000.")
@click.option("--nice", type=click.IntRange(-20, 19), metavar="N", help="Its priority: 19 gives way to all others.")
@click.option("--node", type=click.IntRange(0, 1023), metavar="N", help="Memory of this NUMA node alone.")
@click.option("--user", metavar="USER", help="As this user.")
@click.option(
    "--time",
    "time_s",
    callback=_duration,
    metavar="TIME",
    help="So long: then SIGTERM, and SIGKILL 10 s later; on Windows all of it ends at once.",
)
@click.option("--report", type=click.Path(readable=False), metavar="FILE", help="What became of it, as JSON lines.")
@click.option("--json", "as_json", is_flag=True, help="The same on standard error, instead of words.")
@click.option("--smallest", is_flag=True, help="Run it again and again: the smallest limit with which it ends well.")
@click.option("-v", "--verbose", is_flag=True, help="What it needed, however it ends; all about a kill.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing unless somebody is killed.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="[--] COMMAND [ARGUMENT]...")
def run(
    command: tuple[str, ...],
    max_bytes: int | None,
    high_bytes: int | None,
    swap_max_bytes: int | None,
    smallest: bool,
    **options: object,
) -> None:
    """Run a command under limits, and say what became of it.

    In a scope of systemd, else in a cgroup of its own, else under rlimits; on Windows in a job object: a line on
    standard error says which, and what is not enforced. A kill is explained. Signals are handed on; a second SIGTERM or
    SIGINT sent to reprieve ends all of it, and so does the end of reprieve.

    The exit status is that of the command, 128 and the signal if one ended it; 125: reprieve failed, 126: the command
    cannot be run, 127: there is none.
    """
    if high_bytes is not None and max_bytes is not None and high_bytes > max_bytes:
        raise _Usage("--high is above --max: it would never be reached")
    from reprieve.run import Request

    bounds = Bounds(max_bytes=max_bytes, high_bytes=high_bytes, swap_max_bytes=swap_max_bytes)
    request = Request(argv=command, bounds=bounds, **options)  # type: ignore[arg-type]
    if smallest:
        if request.as_json or high_bytes is not None:
            raise _Usage(f"--smallest and {'--json' if request.as_json else '--high'} exclude each other")
        from reprieve.smallest import search

        sys.exit(search(request))
    if sys.platform == "win32":
        from reprieve.run_windows import perform
    else:
        from reprieve.run import perform
    sys.exit(perform(request))


if sys.platform == "win32":
    for _option in run.params:
        if isinstance(_option, click.Option):
            _option.hidden = _option.name in _OF_LINUX

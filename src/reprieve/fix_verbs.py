"""The verbs that change the machine: `fix` and its forms, `undo`, `changes`."""

import shlex
import sys
from collections.abc import Callable, Sequence
from typing import Any, Literal

import click

from reprieve.living_verbs import checks_option, complete_checks, size_option
from reprieve.run_verb import limit_option

Bound = int | Literal["max"] | None  # bytes; "max": the limit is lifted; None: it is not spoken of


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
    click.option(
        *("--as", "export"),
        type=click.Choice(("sh", "ansible", "systemd", "compose", "k8s")),
        help="Print it for use elsewhere instead.",
    ),
    click.option("--reason", metavar="TEXT", help="Why, for the journal of changes."),
)


def _how_to_fix(function: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(_HOW_TO_FIX):
        function = option(function)
    return function


def _fix(
    settings: Sequence[tuple[str, str | None]] | None, options: dict[str, Any], *, apart: bool = False, **about: Any
) -> None:
    """`about`: what else is known of what is wanted, as what a container is called.

    The settings hold together or not at all, but for `apart`.
    """
    from reprieve.apply import Request, perform
    from reprieve.fix.plan import Span, Wanted
    from reprieve.model.finding import Change, parse_place

    runtime, persistent = options.pop("runtime"), options.pop("persistent")
    if options["yes"] and (options["dry_run"] or options["export"]):
        raise click.UsageError("--yes changes the machine, --dry-run and --as do not")
    wanted = None
    if settings is not None:
        changes = tuple(Change(place=parse_place(told), want=want) for told, want in settings)
        names = {change.place.key for change in changes}
        for name in options["force"]:
            if name not in names:
                raise click.UsageError(f"--force {name} is no setting of this plan: {', '.join(sorted(names))}")
        wanted = tuple(Wanted((one,), **about) for one in changes) if apart else (Wanted(changes, **about),)
    span = Span(now=runtime or not persistent, later=persistent or not runtime)
    sys.exit(perform(Request(settings=wanted, span=span, **options)))


class _Fix(click.Group):
    """Keeps what stands before its command and what follows, to say how it is written."""

    def parse_args(self, context: click.Context, words: list[str]) -> list[str]:
        context.meta[_WORDS] = tuple(words)
        return super().parse_args(context, words)

    def resolve_command(
        self, context: click.Context, words: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        told = context.meta[_WORDS]
        context.meta[_PARTS] = (told[: len(told) - len(words)], tuple(words))
        return super().resolve_command(context, words)


_WORDS, _PARTS = "reprieve.fix.words", "reprieve.fix.parts"


def _in_order(before: tuple[str, ...], command: tuple[str, ...]) -> str:
    """The same words, with the options behind the command; what stands behind `--` is none."""
    at = command.index("--") if "--" in command else len(command)
    return shlex.join(("reprieve", "fix", *command[:at], *before, *command[at:]))


@click.group(cls=_Fix, invoke_without_command=True)
@click.option(
    *("--only", "only"),
    multiple=True,
    callback=checks_option,
    shell_complete=complete_checks,
    metavar="CODE",
    help="What findings of this code ask for, alone.",
)
@click.option(
    *("--from", "origin"),
    type=click.Path(readable=False),
    metavar="FILE",
    help="With --as, of another machine: a snapshot (`-`: from standard input), sosreport, captured root.",
)
@_how_to_fix
@click.pass_context
def fix(context: click.Context, /, **options: object) -> None:
    """Change what leads to the next kill, so that it can be undone.

    Without a COMMAND: what the findings of `reprieve check` ask for. It is planned, asked, applied and read back; what
    belongs together holds together, or not at all.
    """
    if context.invoked_subcommand is None:
        if options["origin"] is not None and options["export"] is None:
            raise click.UsageError("--from is of another machine, which is not changed from here: --as sh prints how")
        _fix(None, options)
    elif options["origin"] is not None:
        context.fail(f"--from is of what findings ask for, {context.invoked_subcommand} needs none")
    elif options["only"]:
        context.fail(f"--only is of findings, {context.invoked_subcommand} is asked for by name: give one of them")
    elif any(options.values()):
        context.fail(f"options stand behind the command: {_in_order(*context.meta[_PARTS])}")


@fix.command("swappiness")
@click.argument("weight", type=click.IntRange(0, 200))
@_how_to_fix
def fix_swappiness(weight: int, **options: object) -> None:
    """How dear swapping is against reading files again.

    0 to 200, above 100 for zram; 1 is as little as possible.
    """
    _fix([("sysctl:/vm.swappiness", str(weight))], options)


_MODES = {"guess": "0", "always": "1", "strict": "2"}


@fix.command("overcommit")
@click.argument("mode", type=click.Choice(tuple(_MODES)))
@click.option("--ratio", type=click.IntRange(0, 10000), metavar="PERCENT", help="Of RAM that may be promised.")
@_how_to_fix
def fix_overcommit(mode: str, ratio: int | None, **options: object) -> None:
    """How much memory the kernel promises.

    What could be had (guess), anything (always), or CommitLimit and no more (strict).
    """
    if ratio is not None and mode != "strict":
        raise click.UsageError("--ratio counts in the strict mode alone")
    first = [] if ratio is None else [("sysctl:/vm.overcommit_ratio", str(ratio))]
    _fix([*first, ("sysctl:/vm.overcommit_memory", _MODES[mode])], options)


@fix.command("panic-on-oom")
@click.argument("mode", type=click.IntRange(0, 2))
@_how_to_fix
def fix_panic_on_oom(mode: int, **options: object) -> None:
    """Whether the machine stops when memory runs out.

    Never (0), when all of it has run out (1), at any cgroup's limit too (2).
    """
    _fix([("sysctl:/vm.panic_on_oom", str(mode))], options)


@fix.command("swap")
@click.option("--size", "size_bytes", required=True, callback=size_option, metavar="SIZE", help="1M or more: 4G.")
@click.option("--file", default="/swapfile.reprieve", metavar="PATH", help="/swapfile.reprieve unless told.")
@_how_to_fix
def fix_swap(size_bytes: int, file: str, **options: object) -> None:
    """Add a swap file: made, swapped to, and in /etc/fstab. Undone, it is swapped off and gone."""
    _fix([(f"swapfile:{file}", str(size_bytes)), (f"fstab:{file}", ""), (f"swap:{file}", "on")], options)


@fix.command("zram")
@click.option("--size", "size_bytes", required=True, callback=size_option, metavar="SIZE", help="1M or more: 2G.")
@_how_to_fix
def fix_zram(size_bytes: int, **options: object) -> None:
    """Add swap that is compressed and stays in memory: a device now, and a unit that makes one at each boot.

    It is used before all other swap. Undone, it is swapped off, and both are gone.
    """
    _fix([("zram:/disksize", str(size_bytes))], options, cost=_ZRAM_COST)


_ZRAM_COST = "processor time for what is swapped; what does not compress takes as much memory as before"


def _named_unit(word: str) -> str:
    """What `nginx`, `nginx.service` or `unit:nginx` calls; without a kind it is a service."""
    name = word.removeprefix("unit:")
    kind = name.rpartition(".")[2]
    if not name or "/" in name or name.startswith(("pid:", "pod:")):
        raise click.BadParameter(f"{word!r} is no unit: nginx, or nginx.service, is one")
    if "." in name and kind in _WITHOUT_MEMORY:
        raise click.BadParameter(f"{name} holds no memory: name what it starts, as {name.rpartition('.')[0]}.service")
    return name if kind in _KINDS else f"{name}.service"


_KINDS = ("service", "slice", "scope", "socket", "mount", "swap")
_WITHOUT_MEMORY = ("timer", "target", "path", "device", "automount")


_Parse = Callable[[click.Context, click.Option, str | None], int | None]


def _bound(parse: _Parse) -> Callable[[click.Context, click.Option, str | None], Bound]:
    """A size, or the kernel's word for none."""

    def parsed(context: click.Context, option: click.Option, text: str | None) -> Bound:
        if text == "max":
            return "max"
        if text is not None and text.lower() in ("infinity", "unlimited", "none", "-1"):
            raise click.BadParameter(f"{text!r} is no size: max lifts a limit")
        return parse(context, option, text)

    return parsed


@fix.command("limit")
@click.argument("target", metavar="UNIT|docker:NAME|podman:NAME|deploy/NAME|/CGROUP")
@click.option(
    "--max", "most", callback=_bound(limit_option), metavar="SIZE|max", help="At which somebody in it is killed."
)
@click.option(
    "--high", callback=_bound(limit_option), metavar="SIZE|max", help="Above which it is slowed down, and reclaimed."
)
@click.option("--swap-max", callback=_bound(size_option), metavar="SIZE|max", help="How much swap it may use.")
@click.option("--request", callback=limit_option, metavar="SIZE", help="Which a node of Kubernetes keeps for it.")
@click.option("--make", is_flag=True, help="Make the cgroup if it is not there, until the next boot.")
@_how_to_fix
def fix_limit(
    target: str,
    most: Bound,
    high: Bound,
    swap_max: Bound,
    request: int | None,
    make: bool,
    **options: object,
) -> None:
    """Limit the memory of a unit, a container, a workload of Kubernetes, or a cgroup.

    A unit of systemd by a drop-in of ours, which its manager takes over at once, a slice also before it is there; a
    container (docker:web, podman:web) by its engine, which sets --max and --swap-max together and keeps what is not
    said; deploy/NAME, sts/NAMESPACE/NAME, ds/NAME:CONTAINER (or kubectl's long words, as deployment/NAME) in the
    cluster that the kubeconfig names, by --max and --request, whose pods are made anew with it; a cgroup that nobody
    looks after by its path, until it is removed, which --make makes, empty, and undo removes if it is empty again.
    `max` in the place of a SIZE lifts the limit, as far as it is its own.
    """
    if most is None and high is None and swap_max is None and request is None:
        raise click.UsageError("--max, --high, --swap-max or --request says to what it is to be limited")
    if isinstance(high, int) and isinstance(most, int) and high > most:
        raise click.UsageError("--high is above --max: it would never be reached")
    if make and not target.startswith("/"):
        raise click.UsageError(f"--make makes a cgroup, by its path: /batch; {target!r} is made by who starts it")
    kind, slash, rest = target.partition("/")
    if slash and (short := _WORKLOADS.get(kind.lower().removesuffix(".apps"))) is not None:
        workload = f"{short}/{rest}"
        return _limit_workload(workload, most, request, options, other=high if swap_max is None else swap_max)
    if target.startswith("pod:") or (slash and kind and not target.startswith(_ENGINES)):
        raise click.UsageError(f"{target!r} cannot be limited here; what can: {_LIMITED}")
    if request is not None:
        raise click.UsageError(f"--request is what a node of Kubernetes keeps for a pod: {_kept_for(target)}")
    if make:
        return _make_group(target, most, high, swap_max, options)
    if not target.startswith(_ENGINES):
        return _fix(_limits_of(target, most, high, swap_max), options)
    if high is not None:
        raise click.UsageError("no engine gives a container a --high: --max and --swap-max are what it sets")
    from reprieve.machine.container_limit import find_container

    found = find_container(target)
    want = ("" if most is None else str(most)) + ("" if swap_max is None else f"+{swap_max}")
    return _fix([(str(found.place), want)], options, called=found.called, cost=found.cost)


def _make_group(target: str, most: Bound, high: Bound, swap_max: Bound, options: dict[str, Any]) -> None:
    from reprieve.machine.host import Host
    from reprieve.machine.newgroup import limits_of_new_group

    changes = limits_of_new_group(Host(), target, most=most, high=high, swap=swap_max)
    is_new = any(change.place.kind == "cgroup.new" for change in changes)
    cost = "it is empty: who is to be limited is started in it, nobody is moved" if is_new else None
    _fix([(str(change.place), change.want) for change in changes], options, cost=cost)


_ENGINES = ("docker:", "podman:")
_WORKLOADS = {  # kubectl's own words, and those it prints: deployment.apps/web
    **dict.fromkeys(("deploy", "deployment", "deployments"), "deploy"),
    **dict.fromkeys(("sts", "statefulset", "statefulsets"), "sts"),
    **dict.fromkeys(("ds", "daemonset", "daemonsets"), "ds"),
}
_LIMITED = (
    "a unit, docker:NAME, podman:NAME, deployment/NAME, statefulset/NAME, daemonset/NAME, a cgroup by its path, /NAME; "
    "of other pods the limit stands in the manifest that makes them"
)


def _limit_workload(target: str, most: Bound, request: int | None, options: dict[str, Any], *, other: Bound) -> None:
    if other is not None:
        raise click.UsageError("a container of Kubernetes has a --max and a --request of memory, no more")
    if isinstance(most, int) and request is not None and request > most:
        raise click.UsageError("--request is above --max: no such pod would be let in")
    from reprieve.fix.harm import below_use
    from reprieve.machine.workload import find_workload
    from reprieve.model.finding import Failure

    found = find_workload(target, most, request_bytes=request)
    against, use = None, found.use
    if isinstance(most, int) and found.place.key != "requests" and not isinstance(use, Failure):
        against = below_use(most, use.working_set_bytes, use.pod)
    _fix([(str(found.place), found.want)], options, cost=found.cost, against=against)


def _kept_for(target: str) -> str:
    """What keeps memory for others, which is something else."""
    if target.startswith(_ENGINES):
        return "--memory-reservation of an engine keeps nothing, a full machine reclaims down to it"
    return f"{'memory.low' if target.startswith('/') else 'MemoryLow='} keeps what it has from being reclaimed"


def _limits_of(target: str, most: Bound, high: Bound, swap_max: Bound) -> list[tuple[str, str | None]]:
    """The settings that limit it: a path is a cgroup, a word a unit."""
    if target.startswith("/"):
        from reprieve.machine.grouplimit import limits_of_group
        from reprieve.machine.host import Host

        changes = limits_of_group(Host(), target, most=most, high=high, swap=swap_max)
        return [(str(change.place), change.want) for change in changes]
    told = (("MemoryMax", most), ("MemoryHigh", high), ("MemorySwapMax", swap_max))
    unit = f"unit:{_named_unit(target)}"
    return [(f"{unit}/{key}", "infinity" if size == "max" else str(size)) for key, size in told if size is not None]


def _score_of(target: str) -> str:
    """The place of a score: a number is a process, a word a unit."""
    pid = target.removeprefix("pid:")
    if pid.isascii() and pid.isdecimal() and int(pid):
        return f"process:{int(pid)}/oom_score_adj"
    return f"unit:{_named_unit(target)}/OOMScoreAdjust"


@fix.command("protect")
@click.argument("target", metavar="UNIT|PID|docker:NAME|podman:NAME")
@click.option("--adj", type=click.IntRange(-1000, 1000), default=-500, show_default=True, help="Its oom_score_adj.")
@_how_to_fix
def fix_protect(target: str, adj: int, **options: object) -> None:
    """Have the kernel choose a unit, a process or a container later.

    A unit from its next start on; a process, and all who are in a container, now, until they end. What they start from
    then on inherits it.
    """
    if not target.startswith(_ENGINES):
        return _fix([(_score_of(target), str(adj))], options)
    from reprieve.machine.container_limit import find_members

    called, pids = find_members(target)
    engine = target.partition(":")[0]
    cost = f"who is in it now, and whom they start; made anew it is without: {engine} run --oom-score-adj={adj}"
    scores = [(f"process:{pid}/oom_score_adj", str(adj)) for pid in pids]
    return _fix(scores, options, apart=True, called=called, cost=cost)  # one of them may end any moment


_APPS = {"redis": "redis-", "postgresql": "postgres-", "jvm": "jvm-", "node": "node-heap-"}  # begin codes of findings


@fix.command("app")
@click.argument("name", type=click.Choice(tuple(_APPS)))
@_how_to_fix
def fix_app(name: str, **options: object) -> None:
    """What findings about such servers or runtimes ask of themselves.

    Redis as it runs, and in its file. What PostgreSQL, a JVM or Node.js needs is computed and told, for who owns it.
    """
    from reprieve.rules.living import LIVING, code_of

    only = tuple(code for code in map(code_of, LIVING) if code.startswith(_APPS[name]))
    _fix(None, {"only": only, "app": name, **options})


@fix.command("oom-policy")
@click.argument("unit")
@click.argument("policy", type=click.Choice(("continue", "stop", "kill")))
@_how_to_fix
def fix_oom_policy(unit: str, policy: str, **options: object) -> None:
    """What becomes of a unit when one of it is killed.

    Nothing (continue), the rest is stopped (stop), or all of it is killed at once (kill).
    """
    _fix([(f"unit:{_named_unit(unit)}/OOMPolicy", policy)], options)


@click.command()
@click.argument("number", type=click.IntRange(1), required=False)
@click.option("--recover", is_flag=True, help="Put back what was begun and not finished, after a crash.")
@click.option("--leave", is_flag=True, help="Leave what somebody else has changed since as it is, and be done with it.")
@click.option("--yes", "-y", is_flag=True, expose_value=False, help="As `fix` takes it: undo never asks.")
@click.option("--unless-kept", type=int, hidden=True)
def undo(number: int | None, recover: bool, leave: bool, unless_kept: int | None) -> None:
    """Put back what `reprieve fix` changed: NUMBER, or the newest.

    What somebody else has changed since is never overwritten. The same as shell commands is printed.
    """
    if recover and (number is not None or leave):
        raise click.UsageError("--recover finishes all that was begun: it takes no NUMBER")
    from reprieve.undo import Request, perform, undo_later

    if unless_kept is not None and number is not None:
        sys.exit(undo_later(number, unless_kept))
    sys.exit(perform(Request(number=number, recover=recover, leave=leave)))


@click.command()
@click.option("--keep", type=click.IntRange(1), metavar="NUMBER", help="Confirm a change made with --confirm-within.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document a line, for scripts.")
def changes(keep: int | None, as_json: bool) -> None:
    """What was changed here, when and by whom, and what is in force."""
    if keep is not None:
        from reprieve.apply import keep as confirm

        confirm(keep)
        return
    from reprieve.undo import history

    sys.exit(history(as_json=as_json))

"""Steps of a plan → files of systemd, for review and for another machine."""

from collections.abc import Iterator, Sequence

from reprieve.model.change import Refusal, Step
from reprieve.show import escape

_SYSCTL = "/etc/sysctl.d/60-reprieve.conf"


def systemd(steps: Sequence[Step]) -> Iterator[str]:
    """Drop-ins of units and a file for systemd-sysctl, each after a comment that names it, why in it."""
    files: dict[tuple[str, str], dict[str, Step]] = {}
    for step in steps:
        if step.place.kind == "unit":
            path = f"/etc/systemd/system/{step.place.of}.d/90-reprieve.conf"
            section = f"[{step.place.of.rpartition('.')[2].capitalize()}]"
            files.setdefault((path, section), {})[f"{step.place.key}={step.want}"] = step
        elif step.place.kind in _SYSCTLS:
            files.setdefault((_SYSCTL, ""), {})[f"{step.place.key} = {step.want}"] = step
    for number, ((path, section), lines) in enumerate(files.items()):
        if number:
            yield ""
        yield escape.visible(f"# {path}")
        if section:
            yield section
        said = ""
        for line, step in lines.items():
            if step.why and step.why != said:
                said = step.why
                yield f"# {escape.visible(escape.plain(said))}"
            yield line


_SYSCTLS = ("sysctl", "sysctl.d")


def not_said(steps: Sequence[Step]) -> Iterator[Refusal]:
    """What files of systemd cannot say."""
    for step in steps:
        if step.place.kind not in ("unit", *_SYSCTLS):
            yield Refusal(
                place=step.place,
                want=step.want,
                reason="no file of systemd says that",
                hint="--as sh does",
                code=step.code,
            )

"""What is odd about the text itself."""

from collections.abc import Iterator

from reprieve.model.finding import Finding, quote
from reprieve.model.snapshot import Snapshot
from reprieve.oom.pattern import compiled
from reprieve.rules.evidence import lines

# All that __oom_kill_process() has ever printed behind the name; distributions' own are among them.
_PRINTED = ("total-vm", "vsz", "anon-rss", "file-rss", "shmem-rss", "pgtables", "oom_score_adj", "UID", "rss", "swap")
_AFTER_NAME = r"Killed process \d+,?(?: UID \d+,?)? \(.{0,60}?\),?"
_VALUE = r":(?:0x[0-9a-f]+|-?\d+)(?:kB)?(?=[ ,]|$)"
_FIELD = rf"[ ,]*([A-Za-z_][\w-]{{1,30}}){_VALUE}"
_KNOWN = rf"(?:[ ,]*(?:{'|'.join(_PRINTED)}){_VALUE})*"


def unknown_field(snapshot: Snapshot) -> Iterator[Finding]:
    """The "Killed process" line has a field that no kernel prints.

    Such lines are copied from guide to guide: the text was made up, or changed, and its figures may be too.
    Do not decide anything on them; take the report from the machine itself.

    Source: __oom_kill_process() in mm/oom_kill.c, in every release since 2.6.
    """
    for number, oom in enumerate(snapshot.ooms):
        for kill in oom.kills:
            shown = lines(oom, kill.line)
            names = [name for line in shown for name in _unknown(line.text)]
            if not names:
                continue
            yield Finding(
                code="unknown-field",
                severity="info",
                confidence="certain",
                claim=f"No kernel prints {' or '.join(quote(f'{name}:') for name in names)} there: this text was made "
                "up or changed, and its figures may be too",
                evidence=shown,
                oom=number,
            )


def _unknown(text: str) -> Iterator[str]:
    """Of the fields that follow each other behind the victim's name the unknown ones; anything else ends them."""
    start = compiled(_AFTER_NAME).search(text)
    if start is None or (known := compiled(_KNOWN).match(text, start.end())) is None:
        return
    at, field_at = known.end(), compiled(_FIELD).match
    while field := field_at(text, at):
        if field[1] not in _PRINTED:
            yield field[1]
        at = field.end()

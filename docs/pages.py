"""Write docs/findings/ from the docstrings of the rules: `python docs/pages.py`."""

from __future__ import annotations

import inspect
from pathlib import Path

from reprieve.rules import RULES
from reprieve.rules.living import LIVING, code_of

FOLDER = Path(__file__).parent / "findings"
_KILLS = "What `reprieve why` can say about a kill:"
_LIVING = "What `reprieve check` can say about a living machine:"


def pages() -> dict[str, str]:
    """The text of each page by its file name: one for each finding, and README.md that names them all."""
    written = {}
    index = ["# Findings", "", "`reprieve why --explain CODE` prints the same pages."]
    for title, rules in ((_KILLS, RULES), (_LIVING, LIVING)):
        index += ["", title, ""]
        for rule in rules:
            code = code_of(rule)
            claim, _, why = inspect.cleandoc(rule.__doc__ or "").partition("\n\n")
            written[f"{code}.md"] = f"# {code}\n\n**{claim}**\n\n{why}\n"
            index.append(f"- [{code}]({code}.md): {claim}")
    written["README.md"] = "\n".join((*index, ""))
    return written


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")

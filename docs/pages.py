"""Write docs/findings/ from the docstrings of the rules: `python docs/pages.py`."""

from __future__ import annotations

import inspect
from pathlib import Path

from reprieve.rules import RULES

FOLDER = Path(__file__).parent / "findings"


def pages() -> dict[str, str]:
    """The text of each page by its file name: one for each finding, and README.md that names them all."""
    written, index = {}, []
    for rule in RULES:
        code = rule.__name__.replace("_", "-")
        claim, _, why = inspect.cleandoc(rule.__doc__ or "").partition("\n\n")
        written[f"{code}.md"] = f"# {code}\n\n**{claim}**\n\n{why}\n"
        index.append(f"- [{code}]({code}.md): {claim}")
    head = (
        "# Findings\n\nWhat `reprieve why` can say about a kill. `reprieve why --explain CODE` prints the same page.\n"
    )
    written["README.md"] = "\n".join((head, *index, ""))
    return written


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")

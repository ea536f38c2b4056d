"""The pages about findings, which `python docs/pages.py` writes from the rules."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from reprieve.rules import RULES

DOCS = Path(__file__).parent.parent.parent / "docs"


def test_the_pages_are_those_of_the_rules() -> None:
    pages = runpy.run_path(str(DOCS / "pages.py"))["pages"]()
    assert {path.name: path.read_text(encoding="utf-8") for path in (DOCS / "findings").iterdir()} == pages


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_page_has_a_claim_a_reason_and_a_source(rule: object) -> None:
    claim, why, source = (rule.__doc__ or "").strip().split("\n\n")
    assert claim.endswith(".")
    assert "\n" not in claim
    assert why.strip()
    assert source.strip().startswith("Source: ")

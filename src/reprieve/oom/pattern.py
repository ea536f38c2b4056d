"""Patterns, compiled when they are first needed: all that the grammar has take longer than most logs."""

import re
from functools import cache


@cache
def compiled(pattern: str) -> re.Pattern[str]:
    """The pattern, compiled once; `re` itself forgets after some hundred, and is three times as slow to remember."""
    return re.compile(pattern)

"""What these tests need of the machine they run on: absent, they are skipped, but not where CI promises it."""

import os
import shutil
from typing import NoReturn

import pytest

from reprieve.machine.source import Source
from reprieve.model.finding import Gap


def missing(what: str) -> NoReturn:
    """Skip the test; with CI=true, where everything is installed, fail it."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"missing where CI=true: {what}")
    pytest.skip(f"missing here: {what}")


def program(name: str, *folders: str) -> str:
    """The path of a program the test runs."""
    return shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", ""), *folders))) or missing(name)


def read(source: Source) -> tuple[bytes, list[Gap]]:
    """All of a source, and the gaps it left."""
    gaps: list[Gap] = []
    return b"".join(map(bytes, source.blocks(gaps))), gaps

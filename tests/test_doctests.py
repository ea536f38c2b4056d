"""The examples in the docstrings are true."""

import doctest
import importlib
import pkgutil

import pytest

import reprieve

NAMES = ["reprieve"] + [
    module.name for module in pkgutil.walk_packages(reprieve.__path__, "reprieve.") if "__main__" not in module.name
]


@pytest.mark.parametrize("name", NAMES)
def test_examples(name: str) -> None:
    tried = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert tried.failed == 0


def test_there_are_examples() -> None:
    finder = doctest.DocTestFinder()
    examples = [test for name in NAMES for test in finder.find(importlib.import_module(name)) if test.examples]
    assert len(examples) >= 8

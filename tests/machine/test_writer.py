"""Folders made: there when it returns, or told."""

from __future__ import annotations

from pathlib import Path

import pytest

from reprieve.machine.writer import make_folder


def test_a_folder_is_made_with_those_it_is_in_and_once_more(tmp_path: Path) -> None:
    for _ in range(2):
        make_folder(str(tmp_path / "a" / "b"))
        assert (tmp_path / "a" / "b").is_dir()


def test_a_file_or_a_link_that_leads_nowhere_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nothing")
    for name in ("file", "link"):
        with pytest.raises(FileExistsError):
            make_folder(str(tmp_path / name))

"""Who undoes a change that nobody confirms."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.machine.real import missing

_STARTS = "from reprieve.machine.watcher import undo_unless_kept; undo_unless_kept(1, 0)"


def test_it_loads_nothing_from_the_folder_it_is_called_in(tmp_path: Path) -> None:
    """Root may stand in anybody's."""
    if os.geteuid() != 0:
        missing("root, for a /var/lib of its own")
    (tmp_path / "reprieve").mkdir()
    (tmp_path / "reprieve" / "__init__.py").touch()
    (tmp_path / "reprieve" / "__main__.py").write_text(f"open({str(tmp_path / 'taken')!r}, 'w')\n")
    own = f'mount -t tmpfs own /var/lib && cd "$1" && exec {sys.executable} -P -c "{_STARTS}"'
    argv = ["unshare", "--mount", "sh", "-c", own, "sh", str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=200)
    assert not (tmp_path / "taken").exists()
    assert (done.returncode, done.stderr) == (0, "")

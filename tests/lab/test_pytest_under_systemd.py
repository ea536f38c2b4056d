"""`@pytest.mark.memory_limit` where systemd manages the machine and cgroups are of version 2, as root and as a user."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

import pytest

from lab import kernels, states
from lab.guest import Answer, Guest
from tests.lab.conftest import here_or_skipped
from tests.lab.parcel import parcel
from tests.lab.test_run import _BUS_OF_USERS, _LEFT

pytestmark = pytest.mark.slow

_NEEDED = ("pytest", "pluggy", "iniconfig", "packaging", "pygments", "reprieve")  # with what names their plugins
_TESTS = """
import pytest
def where():
    return open("/proc/self/cgroup").read().strip()
@pytest.mark.memory_limit("64M")
def test_leaks():
    print("so far", where())
    kept = [b"x" * (1 << 20) for _ in range(300)]
@pytest.mark.memory_limit("64M")
def test_fits():
    print("fits in", where())
def test_after():
    print("after in", where())
"""
_PYTEST = "PYTHONPATH=/opt/reprieve python3 -m pytest -p no:cacheprovider -rA -v --color=no test_it.py 2>&1"
_SCOPE = r"/reprieve-test-[0-9-]+\.scope/command"


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """The systemd guest, with the tool, and pytest, which finds its plugin by itself; and a user with a manager."""
    with here_or_skipped():
        saved = states.saved(kernels.DEFAULT, states.SYSTEMD)
    folder = tmp_path_factory.mktemp("guest")
    disk = parcel(folder / "parcel.tar")
    (folder / "test_it.py").write_text(_TESTS)
    with tarfile.open(disk, "a") as archive:
        archive.add(folder / "test_it.py", "tests/test_it.py")
        for name in _NEEDED:
            told = distribution(name)
            for top in {file.parts[0] for file in told.files or ()} - {"..", "__pycache__", "reprieve"}:
                archive.add(Path(str(told.locate_file(top))), top)
    with saved.restore(spare=disk) as guest:
        assert guest.run("mkdir /opt/reprieve; tar -C /opt/reprieve -xf /dev/vda").status == 0
        assert guest.run(_BUS_OF_USERS, timeout_s=200).status == 0
        yield guest


@pytest.fixture(autouse=True)
def nothing_stays_behind(guest: Guest) -> Iterator[None]:
    yield
    look = _LEFT.replace("reprieve-run-", "reprieve-test-")
    left = guest.run(
        f'for n in $(seq 60); do test -z "$({look})" && exit 0; sleep 1; done; {look}; exit 1', timeout_s=200
    )
    assert left.status == 0, left.output


def outcomes(ended: Answer) -> dict[str, str]:
    return {name: how for how, name in re.findall(r"^(\w+) test_it\.py::(\w+)", ended.output, re.MULTILINE)}


def test_the_leak_is_killed_in_its_scope_and_explained_and_the_next_test_runs(guest: Guest) -> None:
    ended = guest.run(f"cd /opt/reprieve/tests; {_PYTEST}", timeout_s=400)
    assert outcomes(ended) == {"test_leaks": "FAILED", "test_fits": "PASSED", "test_after": "PASSED"}, ended.output
    assert re.search(rf"^so far 0::/system\.slice{_SCOPE}$", ended.output, re.MULTILINE), ended.output
    assert re.search(rf"^fits in 0::/system\.slice{_SCOPE}$", ended.output, re.MULTILINE)
    assert "after in 0::/system.slice/lab" in ended.output
    said = " ".join(ended.output.split())
    assert "Ended test_leaks killed by signal 9 (status 137)" in said
    assert "Limit 64 MiB for “a test under its memory_limit”; all of it used" in said
    assert re.search(r'memory_limit\("\d+M"\)', said)
    assert "64 MiB test_it.py::test_leaks" in said
    assert "no cgroup could be made" not in said
    journal = guest.run("journalctl -o cat -u 'reprieve-test-*'").output
    assert journal.count("scope - a test under its memory_limit.") == 2
    assert journal.count("A process of this unit has been killed by the OOM killer.") == 1


def test_a_user_gets_scopes_of_their_own_manager(guest: Guest) -> None:
    as_user = "setpriv --reuid somebody --regid somebody --init-groups env XDG_RUNTIME_DIR=/run/user/$(id -u somebody)"
    ended = guest.run(f"cd /opt/reprieve/tests; {as_user} {_PYTEST}", timeout_s=400)
    assert outcomes(ended) == {"test_leaks": "FAILED", "test_fits": "PASSED", "test_after": "PASSED"}, ended.output
    assert re.search(rf"^so far 0::/user\.slice/user-\d+\.slice/.*{_SCOPE}$", ended.output, re.MULTILINE)
    said = " ".join(ended.output.split())
    assert "Ended test_leaks killed by signal 9 (status 137)" in said
    assert "Peak 64 MiB of 64 MiB (100 %)" in said
    assert "a process of it was killed for memory; only root may read the kernel's report" in said
    assert "no cgroup could be made" not in said

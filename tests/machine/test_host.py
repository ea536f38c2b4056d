import os
import subprocess
import sys
from pathlib import Path

import pytest

from reprieve.machine.host import Host, Identity, available_bytes, identify, root_could
from reprieve.machine.observe import observe
from reprieve.model.finding import Gap


def test_the_identity_is_written_as_the_journal_writes_it() -> None:
    identity = identify()
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert identity.boot_id == boot_id.replace("-", "")
    assert identity.hostname == Path("/proc/sys/kernel/hostname").read_text().strip()
    machine_id = Path("/etc/machine-id")
    assert identity.machine_id == (machine_id.read_text().strip() if machine_id.exists() else None)


def test_available_memory_is_in_bytes() -> None:
    available = available_bytes()
    assert available is not None
    assert available % 1024 == 0
    assert available > 16 * 1024 * 1024


def test_we_and_what_we_start_offer_ourselves_to_the_kernel_first() -> None:
    code = """
import subprocess
from reprieve.machine.host import become_expendable
assert become_expendable() and become_expendable()
print(open("/proc/self/oom_score_adj").read(), subprocess.check_output(["cat", "/proc/self/oom_score_adj"], text=True))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout.split() == ["1000", "1000"]


@pytest.mark.parametrize(
    ("bounding", "users", "could"),
    [
        ("000001ffffffffff", "0 0 4294967295", True),
        ("000001fffeffffff", "0 0 4294967295", False),
        ("000001ffffffffff", "0 1000 1", False),
        (None, None, True),
    ],
)
def test_root_could_have_what_is_in_the_bounding_set_of_the_first_users(
    bounding: str | None, users: str | None, could: bool, tmp_path: Path
) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    if bounding is not None and users is not None:
        (tmp_path / "proc/self/status").write_text(f"CapEff:\t0000000000000000\nCapBnd:\t{bounding}\nSpeculation:\t0\n")
        (tmp_path / "proc/self/uid_map").write_text(f"         {users}\n")
    assert root_could(Host(str(tmp_path)), 24) is could


@pytest.fixture
def strange(tmp_path: Path) -> Path:
    """A captured machine that came from a stranger; beside it is a file of ours."""
    root = tmp_path / "made-up-strange"
    (root / "proc/sys/vm").mkdir(parents=True)
    (root / "etc").mkdir()
    (tmp_path / "ours").write_text("MemTotal: 7 kB\n")
    return root


@pytest.mark.parametrize("target", ["../../ours", "/proc/meminfo", "../../made-up-strange-2/meminfo"])
def test_no_link_leads_out_of_a_captured_machine(strange: Path, target: str) -> None:
    (strange / "proc/meminfo").symlink_to(target)
    (strange.parent / "made-up-strange-2").mkdir()
    gaps: list[Gap] = []
    assert Host(str(strange)).text("/proc/meminfo", gaps) is None
    assert [gap.reason for gap in gaps] == ["a link leads out of the captured machine"]


def test_a_link_within_a_captured_machine_is_followed(strange: Path) -> None:
    (strange / "proc/self").symlink_to("7")
    (strange / "proc/7").mkdir()
    (strange / "proc/7/status").write_text("Name:\tsh\n")
    assert Host(str(strange)).read("/proc/self/status") == b"Name:\tsh\n"


@pytest.mark.parametrize("kind", ["cgroup2 none rw", "cgroup none rw,memory", "tmpfs none rw"])
def test_a_path_with_a_nul_in_a_captured_machine_is_a_gap_at_most(strange: Path, kind: str) -> None:
    (strange / "proc/self").mkdir()
    (strange / "proc/self/mountinfo").write_text(f"1 0 0:1 / /a\\000b rw - {kind}\n")
    gaps: list[Gap] = []
    assert observe(Host(str(strange)), gaps).cgroups == ()
    with pytest.raises(OSError, match="a NUL in its path"):
        Host().read("/tmp/a\0b")


def test_a_pipe_in_a_captured_machine_is_not_waited_for_and_a_device_not_opened(strange: Path) -> None:
    for path in ("etc/machine-id", "proc/meminfo", "proc/mounts"):
        os.mkfifo(strange / path)
    (strange / "proc/7").mkdir()
    os.mkfifo(strange / "proc/7/stat")
    gaps: list[Gap] = []
    assert identify(str(strange)) == Identity()
    machine = observe(Host(str(strange)), gaps)
    assert (machine.meminfo, machine.processes) == ((), ())
    assert {gap.place for gap in gaps if gap.reason == "neither a file nor a folder"} == {
        "/proc/meminfo",
        "/proc/7/stat",
    }

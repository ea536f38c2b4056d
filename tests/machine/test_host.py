import subprocess
import sys
from pathlib import Path

from reprieve.machine.host import available_bytes, identify


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

"""The oom_score_adj of real processes: of the one that was meant, or of none."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from reprieve.fix.journal import Journal
from reprieve.fix.plan import Span, Wanted, plan
from reprieve.fix.transaction import apply, undo
from reprieve.machine.host import Host, may
from reprieve.machine.ledger import LedgerFile
from reprieve.machine.places import MachinePlaces
from reprieve.machine.score import ProcessScore
from reprieve.machine.writer import acting_as
from reprieve.model.change import Blocked, Plan
from reprieve.model.finding import Change, Failure, Place
from reprieve.model.machine import Machine
from reprieve.show import changes
from tests.machine.real import missing

SYS_RESOURCE = 24
_BOTH = Span()


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


def of(pid: int | str) -> Place:
    return Place(kind="process", of=str(pid), key="oom_score_adj")


def score(pid: int) -> int:
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


def planned(place: Place, want: int, span: Span = _BOTH) -> Plan:
    return plan([Wanted((Change(place=place, want=str(want)),))], MachinePlaces(), Machine(), span=span)


def journal(ledger: LedgerFile) -> Journal:
    return Journal(ledger, boot_id="boot-1", wall_s=1.0, user="root")


def test_it_is_raised_read_back_and_put_back(sleeper: subprocess.Popen[bytes], tmp_path: Path) -> None:
    before = score(sleeper.pid)
    made = planned(of(sleeper.pid), before + 5)
    (step,) = made.steps
    assert step.place.of.startswith(f"{sleeper.pid}@")
    with LedgerFile(str(tmp_path / "ledger")) as ledger:
        number = apply(made.steps, MachinePlaces(), journal(ledger))
        assert score(sleeper.pid) == before + 5
        assert planned(of(sleeper.pid), before + 5) == Plan()
        assert undo(number, MachinePlaces(), journal(ledger)) == []
    assert score(sleeper.pid) == before


def test_what_somebody_else_has_given_it_since_stays(sleeper: subprocess.Popen[bytes], tmp_path: Path) -> None:
    before = score(sleeper.pid)
    with LedgerFile(str(tmp_path / "ledger")) as ledger:
        number = apply(planned(of(sleeper.pid), before + 5).steps, MachinePlaces(), journal(ledger))
        Path(f"/proc/{sleeper.pid}/oom_score_adj").write_text(str(before + 6))
        with pytest.raises(Failure, match="oom_score_adj: changed"):
            undo(number, MachinePlaces(), journal(ledger))
    assert score(sleeper.pid) == before + 6


def test_of_a_process_that_has_ended_nothing_is_left_to_undo(sleeper: subprocess.Popen[bytes], tmp_path: Path) -> None:
    made = planned(of(sleeper.pid), score(sleeper.pid) + 5)
    with LedgerFile(str(tmp_path / "ledger")) as ledger:
        number = apply(made.steps, MachinePlaces(), journal(ledger))
        sleeper.kill()
        sleeper.wait()
        (left,) = undo(number, MachinePlaces(), journal(ledger))
        assert (left.place, left.why) == (made.steps[0].place, "gone")
        assert changes.stay(left) == f"process {sleeper.pid} is no more"
        assert journal(ledger).in_force(number) == []


def test_another_process_with_its_pid_is_not_touched(sleeper: subprocess.Popen[bytes], tmp_path: Path) -> None:
    before, places = score(sleeper.pid), MachinePlaces()
    pid, _, start = places.identify(of(sleeper.pid)).of.partition("@")
    earlier = of(f"{pid}@{int(start) - 1}")
    assert places.gone(earlier)
    assert not places.gone(of(f"{pid}@{start}"))
    for touch in (places.get, places.identify, lambda place: places.put(place, "999")):
        with pytest.raises(Failure, match="has ended, and its pid is another's now"):
            touch(earlier)
    made = planned(earlier, before + 5)
    assert made.steps == ()
    assert "its pid is another's now" in made.refused[0].reason
    assert score(sleeper.pid) == before


def test_who_ends_between_plan_and_change_is_told(sleeper: subprocess.Popen[bytes], tmp_path: Path) -> None:
    made = planned(of(sleeper.pid), score(sleeper.pid) + 5)
    sleeper.kill()
    sleeper.wait()
    with LedgerFile(str(tmp_path / "ledger")) as ledger:
        with pytest.raises(Blocked) as ended:
            apply(made.steps, MachinePlaces(), journal(ledger))
        assert changes.blocked(ended.value) == f"process {sleeper.pid} is no more"
        assert journal(ledger).unfinished() == []
    assert "there is no process" in planned(of(sleeper.pid), 5).refused[0].reason


def test_without_the_capability_to_lower_it_that_is_told_and_nothing_changed(
    sleeper: subprocess.Popen[bytes],
) -> None:
    if may(SYS_RESOURCE):
        missing("a place without CAP_SYS_RESOURCE")
    before = score(sleeper.pid)
    (refused,) = planned(of(sleeper.pid), before - 1).refused
    assert refused.reason == (
        f"to lower it from {before} to {before - 1} takes CAP_SYS_RESOURCE, which is missing here"
    )
    assert "root has it on the host" in (refused.hint or "")
    with pytest.raises(Failure, match="takes CAP_SYS_RESOURCE"):  # as the kernel says itself
        MachinePlaces().put(of(sleeper.pid), str(before - 1))
    assert score(sleeper.pid) == before


@pytest.mark.parametrize(
    ("bounding", "hint"),
    [
        ("000001ffffffffff", "run it as root"),
        ("000001fffeffffff", "not even root has it here; root has it on the host, and in a container by --cap-add"),
    ],
)
def test_who_is_not_root_is_told_whether_root_could_lower_it(bounding: str, hint: str) -> None:
    if os.geteuid() != 0:
        missing("root, to become nobody")
    with tempfile.TemporaryDirectory() as root:  # of pytest's own folders others see nothing
        (process := Path(root) / "proc/7").mkdir(parents=True)
        (own := Path(root) / "proc/self").mkdir()
        (process / "stat").write_text(Path("/proc/self/stat").read_text())
        (process / "oom_score_adj").write_text("0\n")
        (own / "status").write_text(f"CapBnd:\t{bounding}\n")
        (own / "uid_map").write_text("0 0 4294967295\n")
        os.chmod(root, 0o755)
        os.chown(process / "oom_score_adj", 65534, 65534)
        with acting_as(65534):
            refused = ProcessScore(Host(root)).obstacle(of(7), "-5")
    assert refused is not None
    assert refused.message == "to lower it from 0 to -5 takes CAP_SYS_RESOURCE, which is missing here"
    assert (refused.hint or "").startswith(hint)


def test_a_thread_of_the_kernel_is_refused() -> None:
    if not Path("/proc/2/exe").is_symlink() or os.path.exists("/proc/2/exe"):
        missing("threads of the kernel, which a namespace of pids hides")
    (refused,) = planned(of(2), 5).refused
    assert refused.reason == "process 2 is a thread of the kernel, which is never chosen"


def test_a_process_of_somebody_else_is_refused(sleeper: subprocess.Popen[bytes]) -> None:
    if os.geteuid() != 0:
        missing("root, to become nobody")
    os.setresuid(-1, 65534, -1)
    try:
        (refused,) = planned(of(sleeper.pid), 999).refused
    finally:
        os.setresuid(-1, 0, -1)
    assert refused.reason == f"process {sleeper.pid} belongs to uid 0"


def test_an_exemption_is_refused_and_a_score_that_is_none(sleeper: subprocess.Popen[bytes]) -> None:
    (refused,) = planned(of(sleeper.pid), -1000).refused
    assert "others die first" in refused.reason
    (refused,) = planned(of(sleeper.pid), 1001).refused
    assert refused.reason == "'1001' is no oom_score_adj"


def test_for_the_next_boot_there_is_none(sleeper: subprocess.Popen[bytes]) -> None:
    made = planned(of(sleeper.pid), 5, span=Span(now=False))
    assert made.steps == ()
    assert [refused.reason for refused in made.refused] == ["a process does not outlive the boot"]


@pytest.mark.parametrize("told", ["", "0", "-1", "1/../2", "1@", "1@x", "self", "٣"])
def test_what_is_no_process_leads_nowhere(told: str) -> None:
    with pytest.raises(Failure, match="is no score of a process"):
        MachinePlaces().get(of(told))

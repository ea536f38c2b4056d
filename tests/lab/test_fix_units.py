"""`fix` and `undo` on units of a real systemd: what its manager holds, and whose settings stay."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.manager import Manager
from tests.machine.real import missing

pytestmark = pytest.mark.slow

_REPRIEVE = "PYTHONPATH=/mnt/0 COLUMNS=200 python3 -m reprieve"
_UNITS = "/etc/systemd/system"
_OURS = f"{_UNITS}/web.service.d/90-reprieve.conf"


@pytest.fixture
def web(container: Manager) -> Iterator[Manager]:
    """With a unit that runs and says nothing about memory, and an empty journal of changes."""
    unit = "[Service]\\nExecStart=sleep 900\\n"
    made = container.run(
        f"rm -rf {_UNITS}/web.service.d /var/lib/reprieve; printf '{unit}' > {_UNITS}/web.service\n"
        "systemctl daemon-reload; systemctl restart web"
    )
    assert made.status == 0, made.output
    yield container
    container.run("systemctl stop web")


def told(container: Manager, command: str, status: int = 0) -> str:
    ended = container.run(f"{_REPRIEVE} {command} 2>&1")
    assert ended.status == status, ended.output
    return ended.output


def held(container: Manager, key: str, unit: str = "web") -> str:
    return container.run(f"systemctl show -P {key} {unit}").output.strip()


def test_a_limit_is_held_by_the_manager_at_once_and_undone(web: Manager) -> None:
    before = held(web, "MemoryMax")
    said = told(web, "fix limit web --max 64M --high 48M --yes")
    assert "Change    web.service MemoryMax  not set → 64 MiB" in said
    assert (held(web, "MemoryMax"), held(web, "MemoryHigh")) == (str(64 << 20), str(48 << 20))
    assert held(web, "NeedDaemonReload") == "no"
    assert held(web, "DropInPaths") == _OURS
    told(web, "undo")
    assert held(web, "MemoryMax") == before
    assert web.run(f"test -e {_UNITS}/web.service.d").status != 0


def test_files_of_systemd_that_are_exported_do_the_same_elsewhere(web: Manager) -> None:
    exported = web.run(f"{_REPRIEVE} fix limit web --max 64M --swap-max 0 --as systemd")
    assert exported.status == 0, exported.output
    head, *lines = exported.output.splitlines()
    assert held(web, "MemoryMax") == "infinity"
    written = "\\n".join(lines)
    web.run(f"mkdir {_UNITS}/web.service.d; printf '{written}\\n' > {head.removeprefix('# ')}; systemctl daemon-reload")
    assert (held(web, "MemoryMax"), held(web, "MemorySwapMax")) == (str(64 << 20), "0")
    assert "nothing to change" in told(web, "fix limit web --max 64M --swap-max 0 --yes")
    whole = told(web, "fix swappiness 10 --as systemd")
    assert whole == "# /etc/sysctl.d/60-reprieve.conf\nvm.swappiness = 10\n"
    assert "no file of systemd says that" in told(web, "fix swap --size 16M --as systemd", status=4)
    web.run(f"rm -r {_UNITS}/web.service.d; systemctl daemon-reload")


def test_what_a_unit_says_itself_is_overridden_and_comes_back(web: Manager) -> None:
    web.run(f"printf 'MemoryMax=1G\\nOOMPolicy=stop\\n' >> {_UNITS}/web.service; systemctl daemon-reload")
    told(web, "fix limit web --max 64M --yes")
    told(web, "fix oom-policy web continue --yes")
    assert (held(web, "MemoryMax"), held(web, "OOMPolicy")) == (str(64 << 20), "continue")
    told(web, "undo 1")
    assert (held(web, "MemoryMax"), held(web, "OOMPolicy")) == (str(1 << 30), "continue")
    told(web, "undo")
    assert held(web, "OOMPolicy") == "stop"
    assert web.run(f"test -e {_UNITS}/web.service.d").status != 0


def test_a_limit_is_lifted_and_comes_back(web: Manager) -> None:
    web.run(f"printf 'MemoryMax=1G\\n' >> {_UNITS}/web.service; systemctl daemon-reload")
    said = told(web, "fix limit web --max max --high max --yes")
    assert "Cost      no limit of its own bounds it any more" in said
    assert "Change    web.service MemoryMax  not set → no limit" in said
    assert "MemoryHigh" not in said  # nothing limits that: there is nothing to lift
    assert held(web, "MemoryMax") == "infinity"
    assert web.run(f"cat {_OURS}").output.splitlines()[-1] == "MemoryMax=infinity"
    told(web, "undo")
    assert held(web, "MemoryMax") == str(1 << 30)
    told(web, "fix limit web --max 64M --yes")
    told(web, "fix limit web --max max --yes")
    assert held(web, "MemoryMax") == "infinity"
    told(web, "undo")
    assert held(web, "MemoryMax") == str(64 << 20)


def test_a_drop_in_that_is_read_later_is_named_and_nothing_is_changed(web: Manager) -> None:
    web.run(
        f"mkdir {_UNITS}/web.service.d; printf '[Service]\\nMemoryMax=2G\\n' > {_UNITS}/web.service.d/95-site.conf\n"
        "systemctl daemon-reload"
    )
    said = told(web, "fix limit web --max 64M --yes", status=4)
    assert f"{_UNITS}/web.service.d/95-site.conf, line 2, is read after ours: MemoryMax=2G" in " ".join(said.split())
    assert held(web, "MemoryMax") == str(2 << 30)
    assert web.run(f"ls {_UNITS}/web.service.d").output.split() == ["95-site.conf"]


@pytest.mark.parametrize(
    ("made", "seen", "taken"),
    [
        ("mkdir {}; mount -t tmpfs none {}", "mountpoint {}", "umount {}; rmdir {}"),
        ("mkdir /etc/dropins; ln -s /etc/dropins {}", "readlink {}", "rm {}; rmdir /etc/dropins"),
    ],
    ids=["mount", "link"],
)
def test_the_folder_of_drop_ins_stays_where_it_is_somebodys_own(made: str, seen: str, taken: str, web: Manager) -> None:
    folder = f"{_UNITS}/web.service.d"
    web.run(made.format(folder, folder))
    told(web, "fix limit web --max 64M --yes")
    assert held(web, "MemoryMax") == str(64 << 20)
    assert "Undone: change 1" in told(web, "undo")
    assert held(web, "MemoryMax") == "infinity"
    assert web.run(seen.format(folder)).status == 0
    assert web.run(f"ls -A {folder}/").output == ""
    assert web.run(taken.format(folder, folder)).status == 0


@pytest.mark.parametrize(("letter", "at"), [("i", "/90-reprieve.conf"), ("a", "/90-reprieve.conf"), ("a", "")])
def test_what_chattr_keeps_of_a_drop_in_is_known_before(letter: str, at: str, web: Manager) -> None:
    told(web, "fix limit web --max 64M --yes")
    kept = f"{_UNITS}/web.service.d{at}"
    if web.run(f"chattr +{letter} {kept}").status != 0:
        missing("a file system with immutable files")
    try:
        before = web.run(f"ls -A {_UNITS}/web.service.d; cat {_OURS}").output
        said = told(web, "fix limit web --max 32M --yes", status=4)
        assert f"{kept} is {'immutable' if letter == 'i' else 'append-only'} (chattr +{letter})" in said
        assert web.run(f"ls -A {_UNITS}/web.service.d; cat {_OURS}").output == before
        assert held(web, "MemoryMax") == str(64 << 20)
    finally:
        web.run(f"chattr -{letter} {kept}")


def test_what_others_have_written_in_our_file_is_not_lost(web: Manager) -> None:
    told(web, "fix limit web --max 64M --yes")
    web.run(f"echo 'CPUQuota=10%' >> {_OURS}")
    said = told(web, "undo", status=4)
    assert "holds what is not ours: 'CPUQuota=10%'" in said
    assert "CPUQuota=10%" in web.run(f"cat {_OURS}").output


def test_who_runs_under_it_keeps_its_score_until_its_next_start(web: Manager) -> None:
    said = told(web, "fix protect web --adj -700 --yes")
    assert "web.service OOMScoreAdjust  not set → -700, from its next start" in said
    assert held(web, "OOMScoreAdjust") == "-700"


def test_killed_before_any_line_the_file_and_the_manager_agree_once_it_is_recovered(web: Manager) -> None:
    for script in ("dying.py", "die_at_a_unit.py"):
        (web.root / "run" / script).write_text((Path(__file__).parent / script).read_text())
    ended = web.run("python3 /run/die_at_a_unit.py /mnt/0 2>&1", timeout_s=500)
    assert ended.status == 0, ended.output
    setting, undoing = map(int, ended.output.split())
    assert min(setting, undoing) > 5
    assert web.run(f"test -e {_UNITS}/web.service.d").status != 0


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("fix limit nobody --max 64M --yes", "systemd knows no nobody.service"),
        ("fix limit 'a;b' --max 64M --yes", "is no unit"),
        ("fix protect web --adj -1000 --yes", "the kernel never chooses it"),
    ],
)
def test_what_cannot_or_should_not_be_is_refused(command: str, reason: str, web: Manager) -> None:
    assert reason in told(web, command, status=4)
    assert web.run(f"test -e {_UNITS}/web.service.d").status != 0


def test_another_name_of_a_unit_is_told(web: Manager) -> None:
    web.run(f"ln -sf web.service {_UNITS}/alias.service; systemctl daemon-reload; systemctl restart web")
    assert "alias.service is another name of web.service" in told(web, "fix limit alias --max 64M --yes", status=4)
    web.run(f"rm {_UNITS}/alias.service; systemctl daemon-reload")


def test_a_unit_that_somebody_makes_anew_is_left_to_them(web: Manager) -> None:
    assert web.run("systemd-run -q --unit=made sleep 900").status == 0
    assert "made by who starts it" in told(web, "fix limit made --max 64M --yes", status=4)
    web.run("systemctl stop made")


def test_as_a_script_it_does_the_same(web: Manager) -> None:
    script = told(web, "fix limit web --max 64M --as sh")
    assert web.run(f"cat > /run/script <<'END'\n{script}END\nsh /run/script && sh /run/script").status == 0
    assert web.run(f"cat {_OURS}").output == f"[Service]\nMemoryMax={64 << 20}\n"
    assert held(web, "MemoryMax") == str(64 << 20)


def test_the_second_time_changes_nothing(web: Manager) -> None:
    told(web, "fix limit web --max 64M --yes")
    before = web.run(f"stat -c '%Y %i' {_OURS}").output
    assert "nothing to change" in told(web, "fix limit web --max 64M --yes")
    assert web.run(f"stat -c '%Y %i' {_OURS}").output == before

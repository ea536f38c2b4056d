"""A real systemd, the first process of a container: how it takes what unit files say, and what the tool makes of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lab.manager import Manager
from reprieve.machine.host import Host
from reprieve.machine.systemd import ask_manager
from reprieve.machine.unitfiles import UnitFiles
from reprieve.model.finding import Gap
from reprieve.model.unit import MEMORY_KEYS, Unit
from tests.rules.living.spellings import SPELLINGS

pytestmark = pytest.mark.slow

_UNITS = Path("etc/systemd/system")
_LOOK = (
    "PYTHONPATH=/mnt/0 COLUMNS=1000 python3 -m reprieve check -v --only unit-setting-ignored --only unit-adj-differs"
)


class Inside(Host):
    """The container's files, while it runs: from here, or a link in them would lead to ours."""

    def __init__(self, container: Manager) -> None:
        super().__init__("/")
        self.top = container.root

    def at(self, path: str) -> str:
        """Where it is from here."""
        return f"{self.top}{path}"


def write(container: Manager, name: str, *settings: str) -> None:
    file = container.root / _UNITS / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("\n".join(("[Service]", *settings, "")))


def told(container: Manager, *names: str) -> dict[str, Unit]:
    units: dict[str, Unit] = {}
    gaps: list[Gap] = []
    place = f"{container.root}/run/dbus/system_bus_socket"
    assert ask_manager(units, UnitFiles(Inside(container)), set(names), gaps, place, 60), gaps
    return units


def looked(container: Manager) -> str:
    return container.run(_LOOK).output


def test_each_spelling_is_taken_as_we_think(container: Manager) -> None:
    before = {"MemoryMax": "7G", "MemoryHigh": "7G", "MemoryLow": "7G", "MemorySwapMax": "7G"}
    before |= {"OOMScoreAdjust": "7", "OOMPolicy": "continue"}
    kept = dict.fromkeys(before, 7 << 30) | {"OOMScoreAdjust": 7}
    names = [f"spelled{number}.service" for number in range(len(SPELLINGS))]
    for name, (key, text, _) in zip(names, SPELLINGS, strict=True):
        write(container, name, "ExecStart=sleep 900", f"{key}={before[key]}", f"{key}={text}")
    container.run(f"systemctl daemon-reload; systemctl start {' '.join(names)}")
    units = told(container, *names)
    fields = dict(zip(MEMORY_KEYS[:5], ("max", "high", "low", "min", "swap_max"), strict=True))
    for name, (key, text, wanted) in zip(names, SPELLINGS, strict=True):
        unit = units[name]
        assert [line.value for line in unit.lines] == [before[key], text]
        if key == "OOMPolicy":
            assert unit.oom_policy == (wanted or "continue"), text
        else:
            held = unit.oom_score_adjust if key == "OOMScoreAdjust" else getattr(unit, f"memory_{fields[key]}_bytes")
            if wanted == "share":
                assert held not in (7 << 30, "max"), text
            else:
                assert held == (kept[key] if wanted is None else wanted), text
    container.run(f"systemctl stop {' '.join(names)}; rm /etc/systemd/system/spelled*; systemctl daemon-reload")


def test_files_are_found_as_it_finds_them(container: Manager) -> None:
    write(container, "app-web@.service", "ExecStart=sleep 900", "MemoryMax=1G")
    for name in ("app-web@1.service", "app-web@.service", "app-@1.service", "app-.service", "service", "other.service"):
        write(container, f"{name}.d/{name}.conf", "OOMPolicy=stop")
    write(container, "app-web@1.service.d/40-x.conf", "MemoryMax=2G")
    container.run("systemctl daemon-reload; systemctl start app-web@1; systemctl set-property app-web@1 MemoryMax=3G")
    container.run("systemctl daemon-reload")  # until then what was set last is last
    unit = told(container, "app-web@1.service")["app-web@1.service"]
    paths = list(dict.fromkeys(line.path for line in unit.lines))
    assert paths == [unit.fragment_path, *unit.drop_in_paths]
    assert len(paths) == 8
    assert unit.memory_max_bytes == 3 << 30
    container.run("systemctl stop app-web@1; rm -r /etc/systemd/system/*app-* /etc/systemd/system/service.d")
    container.run("rm -r /etc/systemd/system.control; systemctl daemon-reload")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (("MemoryMax=2G # Hard limit", "OOMPolicy=continue # go on"), "a comment behind a value"),
        (("MemoryMax=2GB",), "a size is a number"),
        (("OOMPolicy=continue", "[Unit]", "MemoryMax=2G"), "it stands in [Unit], not in [Service]"),
        (("memorymax=2G", "OOMPolicy=continue"), "it is spelled MemoryMax"),
    ],
    ids=["comment", "unit", "section", "spelling"],
)
def test_what_it_ignores_is_told_and_what_is_advised_makes_it_so(
    container: Manager, settings: tuple[str, ...], says: str
) -> None:
    write(container, "web.service", "ExecStart=sleep 900", *settings)
    container.run("systemctl daemon-reload; systemctl restart web")
    said = looked(container)
    assert "systemd ignores" in said
    assert "of web.service" in said
    assert says in " ".join(said.split())
    for command in re.findall(r"^ +\$ (.*)$", said, re.MULTILINE):
        ended = container.run(command)
        assert ended.status == 0, (command, ended.output)
    assert "systemd ignores" not in looked(container)
    unit = told(container, "web.service")["web.service"]
    assert unit.memory_max_bytes == 2 << 30
    container.run("systemctl stop web; rm /etc/systemd/system/web.service; systemctl daemon-reload")


def test_look_alikes_are_not_told(container: Manager) -> None:
    write(
        container,
        "web.service",
        "ExecStart=sleep 900",
        "# the limit",
        "MemoryMax=2GB",
        "MemoryMax=2G",
        "[X-Y]",
        "MemoryMax=1",
    )
    write(container, "raised.service", "ExecStart=sleep 900", "OOMScoreAdjust=500")
    container.run("systemctl daemon-reload; systemctl restart web raised")
    said = looked(container)
    assert "web.service" not in said
    assert "raised.service" not in said
    container.run("systemctl stop web raised; rm /etc/systemd/system/{web,raised}.service; systemctl daemon-reload")


def test_a_file_that_was_changed_is_read_again_as_advised(container: Manager) -> None:
    write(container, "web.service", "ExecStart=sleep 900", "MemoryMax=1G")
    container.run("systemctl daemon-reload; systemctl restart web; sleep 1.1")
    write(container, "web.service", "ExecStart=sleep 900", "MemoryMax=2G")
    said = looked(container)
    assert "systemd does not know yet what the files of web.service say of MemoryMax" in said
    assert "$ systemctl daemon-reload" in said
    container.run("systemctl daemon-reload")
    assert "web.service" not in looked(container)
    container.run("systemctl stop web; rm /etc/systemd/system/web.service; systemctl daemon-reload")


def test_where_systemd_may_not_lower_it_the_container_is_told_not_each_unit(container: Manager) -> None:
    lacks = container.run("echo -1 > /proc/self/oom_score_adj").status != 0
    assert lacks, "the container has CAP_SYS_RESOURCE"
    write(container, "web.service", "ExecStart=sleep 900", "OOMScoreAdjust=-500")
    container.run("systemctl daemon-reload; systemctl restart web")
    said = looked(container)
    assert " ".join(said.split()).count("in this container systemd may not lower it") == 1
    assert "$ choom" not in said
    container.run("systemctl stop web; rm /etc/systemd/system/web.service; systemctl daemon-reload")


def test_when_the_bus_is_gone_files_alone_are_told(container: Manager) -> None:
    write(container, "web.service", "ExecStart=sleep 900", "MemoryMax=2G # x")
    container.run("systemctl daemon-reload; systemctl restart web; mv /run/dbus/system_bus_socket /run/dbus/away")
    try:
        said = looked(container)
    finally:
        container.run("mv /run/dbus/away /run/dbus/system_bus_socket; systemctl stop web")
        container.run("rm /etc/systemd/system/web.service; systemctl daemon-reload")
    assert "systemd ignores MemoryMax of web.service" in said
    assert "Not seen  /run/dbus/system_bus_socket: no such file or directory (its units are told by their files" in said

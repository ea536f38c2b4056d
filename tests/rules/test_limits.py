"""The commands that set a limit, by what a cgroup path tells."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path
from typing import Literal

import pytest

from reprieve.oom.paths import workload
from reprieve.rules.limits import set_limit, written
from reprieve.show import escape

ID = 64 * "a"
UID = "10d16a28-60ff-475f-a631-510d9792219f"
MIB = 1 << 20


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/kubepods.slice",
        "/lxc/101",
        f"/docker/{ID}/system.slice/nginx.service",  # systemd of the container, not of the machine
        "/lxc/101/ns/system.slice/nginx.service",
        "/../../../etc/app",
        "/app/..",
    ],
)
def test_where_the_host_has_no_command_none_is_given(path: str) -> None:
    assert set_limit(workload(path), 96 * MIB)[:2] == ((), ())


@pytest.mark.parametrize(
    ("path", "command"),
    [
        (f"/docker/{ID}", f"docker update --memory 96m --memory-swap 192m {ID}"),
        (f"/machine.slice/libpod-{ID}.scope", f"podman update --memory 96m --memory-swap 192m {ID}"),
        ("/system.slice/nginx.service", "systemctl set-property -- nginx.service MemoryMax=96M"),
        ("/system.slice/run-r1.scope", "systemctl set-property --runtime -- run-r1.scope MemoryMax=96M"),
        ("/user.slice/user-1000.slice", "systemctl set-property -- user-1000.slice MemoryMax=96M"),
        (
            "/user.slice/user-1000.slice/session-3.scope",
            "systemctl set-property --runtime -- session-3.scope MemoryMax=96M",
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/sync.service",
            "systemctl --user set-property -- sync.service MemoryMax=96M",
        ),
        ("/app", """sh -c 'echo 100663296 > "$0"' /sys/fs/cgroup/app/memory.max"""),
        ("/a..b", """sh -c 'echo 100663296 > "$0"' /sys/fs/cgroup/a..b/memory.max"""),
    ],
)
def test_a_limit_is_set_as_its_maker_wants_it(path: str, command: str) -> None:
    assert shlex.join(set_limit(workload(path), 96 * MIB)[1][-1]) == command


def test_a_pod_is_found_by_its_uid_before_its_limit_is_set() -> None:
    find, update = set_limit(workload(f"/kubepods/burstable/pod{UID}/{ID}"), 96 * MIB)[1]
    assert UID in shlex.join(find)
    assert update[-2:] == ("--limits", "memory=96Mi")


@pytest.mark.parametrize(("swap", "both"), [("max", "-1"), (0, "96m"), (32 * MIB, "128m")])
def test_a_container_keeps_the_swap_it_may_use(swap: int | Literal["max"], both: str) -> None:
    (command,) = set_limit(workload(f"/docker/{ID}"), 96 * MIB, swap=swap)[1]
    assert command[command.index("--memory-swap") + 1] == both


def test_in_the_first_version_the_limit_for_both_is_raised_first() -> None:
    first, second = set_limit(workload("/app"), 96 * MIB, swap=0, old_cgroups=True)[1]
    assert (first[-1], second[-1]) == (
        "/sys/fs/cgroup/memory/app/memory.memsw.limit_in_bytes",
        "/sys/fs/cgroup/memory/app/memory.limit_in_bytes",
    )


def test_a_cgroup_of_the_first_version_has_another_file() -> None:
    (command,) = set_limit(workload("/app"), 96 * MIB, old_cgroups=True)[1]
    assert command[-1] == "/sys/fs/cgroup/memory/app/memory.limit_in_bytes"


def test_a_name_like_an_option_stays_a_name() -> None:
    (command,) = set_limit(workload("/system.slice/--no-block.service"), 96 * MIB)[1]
    assert command.index("--") < command.index("--no-block.service")


def test_a_name_with_shell_words_stays_one_word() -> None:
    (command,) = set_limit(workload("/a; rm -rf $HOME `id` '\""), 96 * MIB)[1]
    assert command[-1] == "/sys/fs/cgroup/a; rm -rf $HOME `id` '\"/memory.max"


@pytest.mark.parametrize("name", ["memory.max", "-n", "a; rm -rf $HOME `id` '\"", "a\x1b[31m!b\n.max"])
def test_a_number_gets_into_the_file_whatever_its_name(tmp_path: Path, name: str) -> None:
    subprocess.run(["sh", "-c", escape.shell(written(96 * MIB, str(tmp_path / name)))], check=True)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "100663296\n")]

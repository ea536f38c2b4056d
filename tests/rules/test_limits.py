"""The commands that set a limit, by what a cgroup path tells."""

from __future__ import annotations

import os
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from reprieve.machine.demo import small_cgroup
from reprieve.machine.events import summarise
from reprieve.model.finding import Failure
from reprieve.model.oom import OomReport
from reprieve.model.snapshot import Snapshot
from reprieve.oom.limit import reached
from reprieve.oom.paths import workload
from reprieve.oom.report import read_reports
from reprieve.rules import diagnose
from reprieve.rules.growth import process_grew
from reprieve.rules.host import open_nodes
from reprieve.rules.limits import cgroup_limit, set_limit, whole, written
from reprieve.rules.swap import allow_swap, cgroup_swap_limit
from reprieve.show import answer, escape
from tests.machine.real import missing
from tests.rules.cases import LOGS, snapshot

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
        ("/app/reprieve-run-7-2079803-4026531836-1", "reprieve run --max 96M -- COMMAND"),
        ("/system.slice/reprieve-run-7-2079803-4026531836-1.scope/command", "reprieve run --max 96M -- COMMAND"),
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


@pytest.mark.parametrize(
    ("path", "there", "gone"),
    [
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/run-u640.service",
            "systemctl --user set-property -- run-u640.service MemoryMax=96M",
            "systemd-run --user --property MemoryMax=96M -- PROGRAM",
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/run-p9-i10.scope",
            "systemctl --user set-property -- run-p9-i10.scope MemoryMax=96M",
            "systemd-run --user --scope --property MemoryMax=96M -- PROGRAM",
        ),
        (
            f"/system.slice/run-r{'0a' * 16}.service",
            f"systemctl set-property --runtime -- run-r{'0a' * 16}.service MemoryMax=96M",
            "systemd-run --property MemoryMax=96M -- PROGRAM",
        ),
        (
            "/system.slice/run-docker.service",  # somebody's own
            "systemctl set-property -- run-docker.service MemoryMax=96M",
            "systemctl set-property -- run-docker.service MemoryMax=96M",
        ),
    ],
)
def test_what_systemd_run_started_has_its_limit_from_its_next_start(path: str, there: str, gone: str) -> None:
    group = workload(path)
    assert shlex.join(set_limit(group, 96 * MIB)[1][-1]) == there
    assert shlex.join(set_limit(group, 96 * MIB, gone=True)[1][-1]) == gone


def _told_of_no_limit(path: str) -> list[str]:
    text = f"oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg={path},task_memcg="
    text += f"{path},task=app,pid=7,uid=0\nMemory cgroup out of memory: Killed process 7 (app) total-vm:9kB\n"
    ooms = tuple(event for event in read_reports(text) if isinstance(event, OomReport))
    (finding,) = cgroup_limit(Snapshot(ooms=ooms))
    return [shlex.join(command) for remedy in finding.remedies for command in remedy.commands]


@pytest.mark.parametrize(
    ("path", "command"),
    [
        ("/app", "grep -s . /sys/fs/cgroup/app/memory.max /sys/fs/cgroup/memory/app/memory.limit_in_bytes"),
        ("/system.slice/nginx.service", "systemctl show --property MemoryMax,MemoryPeak -- nginx.service"),
        ("/user.slice/user-7.slice", "systemctl show --property MemoryMax,MemoryPeak -- user-7.slice"),
        (
            "/user.slice/user-7.slice/user@7.service/app.slice/sync.service",
            "systemctl --user show --property MemoryMax,MemoryPeak -- sync.service",
        ),
        (f"/docker/{ID}", f"docker inspect --format '{{{{.HostConfig.Memory}}}}' {ID}"),
        (f"/kubepods/burstable/pod{UID}/{ID}", "kubectl describe pod NAME --namespace NAMESPACE"),
        ("/kubepods.slice", "kubectl describe node NODE"),
    ],
)
def test_a_limit_that_the_text_does_not_tell_is_looked_at(path: str, command: str) -> None:
    assert _told_of_no_limit(path)[-1] == command


@pytest.mark.parametrize(
    "path",
    [
        "/system.slice/run-u7.service",
        "/system.slice/run-p9-i10.service",
        "/system.slice/app.scope",
        "/../app",
        "/lxc/101",
    ],
)
def test_where_the_limit_cannot_be_seen_any_more_no_look_is_advised(path: str) -> None:
    assert _told_of_no_limit(path) == []


def test_the_look_names_the_file_that_is_there(tmp_path: Path) -> None:
    (look,) = _told_of_no_limit("/app")
    (tmp_path / "memory.max").write_text("98304\n")
    here = look.replace("/sys/fs/cgroup/memory/app", str(tmp_path / "none")).replace(
        "/sys/fs/cgroup/app", str(tmp_path)
    )
    seen = subprocess.run(shlex.split(here), capture_output=True, text=True, timeout=20, check=False)
    assert (seen.stdout, seen.stderr) == (f"{tmp_path}/memory.max:98304\n", "")


@pytest.mark.parametrize(
    ("path", "swap", "settings"),
    [
        (f"/docker/{ID}", 0, [(f"container:docker/{ID}/memory", f"{96 * MIB}+0")]),
        (f"/docker/{ID}", "max", [(f"container:docker/{ID}/memory", f"{96 * MIB}+max")]),
        (f"/machine.slice/libpod-{ID}.scope", None, [(f"container:podman/{ID}/memory", f"{96 * MIB}")]),
        (f"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope", 0, []),
        (f"/kubepods/burstable/pod{UID}/{ID}", 0, []),
    ],
)
def test_a_limit_of_a_container_is_a_setting_where_its_engine_is_the_machines(
    path: str, swap: int | Literal["max"] | None, settings: list[tuple[str, str]]
) -> None:
    told = set_limit(workload(path), 96 * MIB, swap=swap)[0]
    assert [(str(change.place), change.want) for change in told] == settings
    assert set_limit(workload(path), 96 * MIB, swap=swap, gone=True)[0] == ()


@pytest.mark.parametrize(
    "path", ["/system.slice/nginx.service/worker", f"/docker/{ID}/inner", f"/kubepods/burstable/pod{UID}/{ID}/inner"]
)
def test_a_group_inside_a_unit_or_a_container_has_a_limit_of_its_own(path: str) -> None:
    group = workload(path)
    settings, (command,), _ = set_limit(group, 96 * MIB)
    assert settings == ()
    assert shlex.join(command) == f"""sh -c 'echo 100663296 > "$0"' /sys/fs/cgroup{path}/memory.max"""
    (swap,) = allow_swap(group, old_cgroups=False)
    assert swap.commands[0][-1] == f"/sys/fs/cgroup{path}/memory.swap.max"
    above = whole(group)
    assert above.path == path.rpartition("/")[0]
    assert set_limit(above, 96 * MIB) == set_limit(workload(above.path), 96 * MIB)


def test_the_limit_of_a_group_that_nobody_looks_after_is_a_setting_in_the_order_of_its_commands() -> None:
    group = workload("/a b")
    (new,), *_ = set_limit(group, 96 * MIB)
    assert (str(new.place), new.want) == ("cgroup:/a b/memory.max", str(96 * MIB))
    (swap,) = allow_swap(group, old_cgroups=False)
    assert [(str(one.place), one.want) for one in swap.settings] == [("cgroup:/a b/memory.swap.max", "max")]
    for lower in (False, True):
        settings, commands, _ = set_limit(group, 96 * MIB, swap=0, old_cgroups=True, lower=lower)
        assert [f"/sys/fs/cgroup/memory/a b/{one.place.key}" for one in settings] == [one[-1] for one in commands]
        assert settings[0].place.key == ("memory.limit_in_bytes" if lower else "memory.memsw.limit_in_bytes")
    assert set_limit(group, 96 * MIB, gone=True)[0] == ()
    for path in ("/system.slice/nginx.service/worker", f"/docker/{ID}", "/lxc.monitor.web"):
        told = set_limit(workload(path), 96 * MIB)[0] + tuple(
            one for remedy in allow_swap(workload(path), old_cgroups=False) for one in remedy.settings
        )
        assert not [one for one in told if one.place.kind == "cgroup"]


def test_the_group_that_crun_makes_in_a_container_is_the_container() -> None:
    path = f"/machine.slice/libpod-{ID}.scope"
    assert set_limit(workload(f"{path}/container"), 96 * MIB) == set_limit(workload(path), 96 * MIB)


def test_the_claim_names_the_group_whose_limit_it_was() -> None:
    text = (LOGS / "lab/6.1.0-56-cloud-amd64__memcg.txt").read_text()
    (oom,) = (event for event in read_reports(text) if isinstance(event, OomReport))
    inside = workload("/system.slice/nginx.service/worker")
    (finding,) = cgroup_limit(Snapshot(ooms=(replace(oom, limit_of=inside, workload=inside),)))
    assert escape.plain(finding.claim).startswith("worker in nginx.service reached its own memory limit")


@pytest.mark.parametrize("path", ["/../app", "/../app/nginx.service", f"/../docker/{ID}/inner"])
def test_of_a_path_that_leads_upwards_no_file_is_known(path: str) -> None:
    group = workload(path)
    assert set_limit(group, 96 * MIB)[:2] == ((), ())
    assert allow_swap(group, old_cgroups=False) == ()
    assert open_nodes(group) is None


@pytest.mark.parametrize("path", ["/system.slice/nginx.service", "/system.slice/nginx.service/worker", "/app"])
def test_in_the_first_version_systemd_sets_no_swap(path: str) -> None:
    (remedy,) = allow_swap(workload(path), old_cgroups=True)
    assert remedy.title.endswith("raise memory.memsw.limit_in_bytes of the group")
    assert (remedy.commands, remedy.settings) == ((), ())


def test_no_file_is_kept_for_a_scope_whose_name_may_come_again() -> None:
    scope = workload("/system.slice/run-r1.scope")
    (remedy,) = allow_swap(scope, old_cgroups=False)
    for command in (*remedy.commands, open_nodes(scope)):
        assert command is not None
        assert command[:3] == ("systemctl", "set-property", "--runtime")


def test_a_service_of_a_container_is_no_unit_of_the_machine() -> None:
    assert open_nodes(workload(f"/docker/{ID}/system.slice/nginx.service")) is None


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


def test_in_the_first_version_the_limit_for_both_is_lowered_last() -> None:
    first, second = set_limit(workload("/app"), 96 * MIB, swap=0, old_cgroups=True, lower=True)[1]
    assert (first[-1], second[-1]) == (
        "/sys/fs/cgroup/memory/app/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/app/memory.memsw.limit_in_bytes",
    )


@pytest.mark.parametrize(("limit", "wanted", "lower"), [(64, 96, False), (96, 64, True)])
def test_the_kernel_takes_the_limits_of_a_group_in_that_order(limit: int, wanted: int, lower: bool) -> None:
    try:
        with small_cgroup(f"reprieve-test-{os.getpid()}", limit * MIB) as group:
            folder = Path(group.folder)
            old, both = (folder / "memory.limit_in_bytes").exists(), (folder / "memory.memsw.limit_in_bytes").exists()
            swap = 0 if both else None
            for command in set_limit(workload(group.path), wanted * MIB, swap=swap, old_cgroups=old, lower=lower)[1]:
                subprocess.run(command, check=True)
            files = ["memory.limit_in_bytes"] if old else ["memory.max"]
            for file in (*files, *(["memory.memsw.limit_in_bytes"] if both else [])):
                assert (folder / file).read_text() == f"{wanted * MIB}\n"
    except Failure as failure:
        missing(f"a cgroup of its own: {failure.message}")


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


@pytest.mark.parametrize("log", ["101-memcg-docker-memorymonster-ubuntu-3.13.log", "captures/dmesg-docker-oom.txt"])
def test_where_memory_and_swap_together_have_room_the_memory_limit_refused(log: str) -> None:
    assert {full.name for oom in snapshot(log).ooms if (full := reached(oom)) is not None} == {"memory"}


def test_the_same_limit_for_both_is_the_memory_limit() -> None:
    (oom,) = snapshot("104-memcg-docker-gunpowder-gentoo-4.8-b.log").ooms
    assert oom.memcg is not None
    full = tuple(replace(usage, usage_bytes=MIB, limit_bytes=MIB) for usage in oom.memcg.usages[:2])
    refused = reached(replace(oom, memcg=replace(oom.memcg, usages=full)))
    assert refused is not None
    assert refused.name == "memory"


@pytest.mark.parametrize(
    ("log", "name", "command"),
    [
        ("103-memcg-docker-gunpowder-gentoo-4.8-a.log", "40 MiB", "docker update --memory 20m --memory-swap 112m"),
        ("104-memcg-docker-gunpowder-gentoo-4.8-b.log", "600 MiB", "docker update --memory 300m --memory-swap 912m"),
    ],
)
def test_limit_claim_and_command_speak_of_the_counter_that_refused(log: str, name: str, command: str) -> None:
    (oom,) = snapshot(log).ooms
    (finding,) = cgroup_limit(snapshot(log))
    assert answer.limit(oom)[0].startswith(f"{name} of memory+swap for ")
    assert f"limit for memory and swap together of {name}:" in finding.claim
    assert shlex.join(finding.remedies[0].commands[0]).startswith(command)
    assert finding.evidence[0].text.startswith("memory+swap: ")


def test_in_a_plain_cgroup_the_limit_for_both_alone_is_raised() -> None:
    (oom,) = snapshot("104-memcg-docker-gunpowder-gentoo-4.8-b.log").ooms
    moved = replace(oom, limit_of=workload("/app"), workload=workload("/app"))
    ((command,),) = (found.remedies[0].commands for found in cgroup_limit(Snapshot(ooms=(moved,))))
    assert command == written(912 * MIB, "/sys/fs/cgroup/memory/app/memory.memsw.limit_in_bytes")


def test_a_limit_that_was_lifted_is_no_limit_any_more() -> None:
    whole = snapshot("lab/7.3.4+deb13-cloud-amd64__memcg-no-killable.txt")
    (finding,) = cgroup_limit(Snapshot(ooms=whole.ooms[-1:]))
    assert finding.claim.endswith("none is set now")
    assert not finding.remedies
    assert answer.limit(whole.ooms[-1])[0].startswith("none any more for ")
    assert answer.now(whole.ooms[-1], [finding]).startswith("Nothing for now")


def test_what_is_gone_with_its_processes_is_not_said_to_be_there() -> None:
    (finding,) = cgroup_limit(snapshot("captures/6.1-memcg-swap-max.txt"))
    assert "when it runs again" in finding.remedies[0].title
    gone = set_limit(workload("/system.slice/run-r1.scope"), 96 * MIB, gone=True)
    assert shlex.join(gone[1][0]) == "systemd-run --scope --property MemoryMax=96M -- PROGRAM"


@pytest.mark.parametrize(("path", "there"), [("/app", False), ("/system.slice/run-r1.scope", False), ("/docker", True)])
def test_of_a_cgroup_that_is_no_more_nothing_is_to_be_written(path: str, there: bool) -> None:
    """A container or a unit lives on without its cgroup: its manager keeps the limit."""
    whole = snapshot("captures/6.1-memcg-swap-max.txt")
    name = f"{path}/{ID}" if there else path
    (oom,) = (replace(oom, limit_of=workload(name)) for oom in whole.ooms)
    for gone in ((), (name,)):
        known = replace(whole, ooms=(oom,), gone_groups=gone)
        (found,) = cgroup_limit(known)
        (swap,) = cgroup_swap_limit(known)
        written_to = bool(found.remedies[0].commands)
        assert written_to == (there or not gone)
        assert bool(swap.remedies) == (there or not gone)
        assert ("its cgroup is no more" in found.remedies[0].title) != written_to


@pytest.mark.parametrize(
    ("log", "first", "then"),
    [
        (
            "101-memcg-docker-memorymonster-ubuntu-3.13.log",
            "31.8 GiB is 33,977 times the limit of 980 KiB",
            "Raise the limit to 47.6 GiB",
        ),
        (
            "014-memcg-v2-stress-nots-5.2rc-constraint-none.log",
            "221 MiB is 221 times the limit of 1 MiB",
            "Raise the limit to 336 MiB",
        ),
    ],
)
def test_where_far_more_is_in_swap_the_limit_or_the_program_is_wrong(log: str, first: str, then: str) -> None:
    (finding,) = cgroup_limit(snapshot(log))
    assert finding.remedies[0].title.endswith(first)
    assert finding.remedies[1].title.startswith(then)


def test_a_higher_limit_is_not_the_first_thing_where_files_in_memory_fill_it() -> None:
    titles = [
        remedy.title for remedy in answer.remedies(diagnose(snapshot("lab/6.1.0-56-cloud-amd64__memcg-tmpfs.txt")))
    ]
    assert titles[0].startswith("Find the files")
    assert any(title.startswith("Raise") for title in titles[1:])


def test_a_limit_of_a_group_inside_a_unit_is_not_said_to_be_that_of_the_unit() -> None:
    (oom,) = snapshot("lab/6.1.0-56-cloud-amd64__memcg.txt").ooms
    inside = workload("/system.slice/web.service/workers")
    moved = replace(oom, limit_of=inside, workload=inside)
    said = escape.plain("".join(answer.limit(moved)))
    assert said.startswith("32 MiB for workers in web.service")
    assert escape.plain(answer.listed(summarise(moved))[3]) == "32 MiB of workers in web.service"


def test_a_limit_for_a_whole_unit_is_said_to_be_one() -> None:
    (oom,) = snapshot("lab/6.1.0-56-cloud-amd64__systemd-global-oom-service.txt").ooms
    (finding,) = process_grew(Snapshot(ooms=(oom,)))
    contain = finding.remedies[0]
    assert escape.plain(contain.title).startswith("Keep all of big.service to 382 MiB")
    assert contain.cost == "all that runs in it counts, and at that limit the kernel kills one of them"
    (alone,) = process_grew(Snapshot(ooms=(replace(oom, workload=workload("/user.slice")),)))
    assert escape.plain(alone.remedies[0].title).startswith("Keep biggie to 382 MiB from its next start")

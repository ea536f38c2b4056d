"""What is exported for Compose, given to Compose: who died in its containers lives in those it makes anew."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.machine.engines import BUSYBOX, Engine, engine
from tests.machine.real import program

pytestmark = [pytest.mark.slow, pytest.mark.alone]

_FILE = """
services:
  "web":
    image: made-up:1
    network_mode: none
    command: [{busybox}, sleep, "600"]
    mem_limit: 16m
    memswap_limit: 16m
"""
_FILLS = "head -c 24m /dev/zero | tail -c 24m > /dev/null"  # tail holds all of it


class Project:
    """A folder with a file of Compose, on an engine of our own."""

    def __init__(self, folder: Path, docker: Engine) -> None:
        self.folder, self.docker = folder, docker
        (folder / "compose.yaml").write_text(_FILE.format(busybox=json.dumps(BUSYBOX)))

    def compose(self, *arguments: str) -> str:
        files = [word for file in sorted(self.folder.glob("*.yaml"), reverse=True) for word in ("-f", file.name)]
        argv = [program("docker-compose"), "-p", "shop", *files, *arguments]
        environ = os.environ | self.docker.environment
        ended = subprocess.run(argv, cwd=self.folder, env=environ, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    def fix(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "reprieve", "fix", *arguments]
        environ = os.environ | self.docker.environment
        return subprocess.run(argv, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True)

    @property
    def container(self) -> str:
        return self.compose("ps", "-q", "web").strip()


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with tempfile.TemporaryDirectory(prefix="d.") as short, engine("docker", Path(short)) as docker:  # for its sockets
        made = Project(tmp_path, docker)
        made.compose("up", "-d")
        yield made


def test_who_died_lives_in_what_compose_makes_of_the_export(project: Project) -> None:
    first = project.container
    assert project.docker.within(first, BUSYBOX, "sh", "-c", _FILLS) != 0
    exported = project.fix("limit", f"docker:{first[:12]}", "--max", "64M", "--swap-max", "0", "--as", "compose")
    assert (exported.returncode, exported.stderr) == (0, "")
    (project.folder / "added.yaml").write_text(exported.stdout)
    project.compose("up", "-d")
    second = project.container
    assert second != first
    assert project.docker.within(second, BUSYBOX, "sh", "-c", _FILLS) == 0
    again = project.fix("limit", f"docker:{second[:12]}", "--max", "64M", "--swap-max", "0", "--dry-run")
    assert again.returncode == 0, again.stdout + again.stderr


def test_a_score_is_exported_to_the_service_of_whom_it_is(project: Project) -> None:
    first = project.container
    exported = project.fix("protect", f"docker:{first[:12]}", "--adj", "300", "--as", "compose")
    assert (exported.returncode, exported.stderr) == (0, "")
    (project.folder / "added.yaml").write_text(exported.stdout)
    project.compose("up", "-d")
    pid = project.docker.call(f"GET /containers/{project.container}/json")["State"]["Pid"]
    assert Path(f"/proc/{pid}/oom_score_adj").read_text() == "300\n"


def test_of_what_compose_did_not_make_nothing_is_exported(project: Project) -> None:
    project.docker.run("alone", Memory=64 << 20)
    exported = project.fix("limit", "docker:alone", "--max", "32M", "--as", "compose")
    assert (exported.returncode, exported.stdout) == (4, "")
    assert "Compose did not make it" in exported.stderr
    sysctl = project.fix("swappiness", "1", "--as", "compose")
    assert (sysctl.returncode, sysctl.stdout) == (4, "")
    assert "no file of Compose says that" in sysctl.stderr

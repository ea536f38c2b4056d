"""The command itself: version, help, completion, the man page, the demo."""

import os
import pty
import re
import runpy
import select
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Run
from tests.machine.real import missing, program
from tests.test_why import on_a_terminal

DOCS = Path(__file__).parents[1] / "docs"


def test_no_command_is_a_page_of_help_and_an_unknown_one_is_refused(reprieve: Run) -> None:
    assert "Usage: reprieve" in reprieve().stderr + reprieve().stdout
    assert reprieve("what").returncode == 2


def test_the_version_is_told_before_anything_is_loaded() -> None:
    code = "import sys; sys.argv[1:] = ['--version']\nfrom reprieve.__main__ import main\nmain()\n"
    code += "print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert re.fullmatch(r"reprieve \d+\.\d+\.\d+\n", done.stdout)
    assert not {"click", "re", "typing", "dataclasses", "collections"} & set(done.stderr.split())


def test_help_is_pretty_on_a_terminal_and_plain_for_a_program(reprieve: Run) -> None:
    assert "╭─" in on_a_terminal("why", "--help")
    plain = reprieve("why", "--help").stdout
    assert "╭─" not in plain
    assert "\x1b" not in plain


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_is_given_a_script_that_it_can_read(reprieve: Run, tmp_path: Path, shell: str) -> None:
    script = tmp_path / "script"
    script.write_text(reprieve("completion", shell).stdout)
    assert "_REPRIEVE_COMPLETE" in script.read_text()
    if shell == "bash":
        assert subprocess.run([program("bash"), "-n", script], capture_output=True, check=True).stderr == b""


@pytest.mark.slow
def test_zsh_completes_again_and_again(reprieve: Run, tmp_path: Path) -> None:
    (tmp_path / "_reprieve").write_text(reprieve("completion", "zsh").stdout)
    begin = f"fpath=({tmp_path} $fpath); autoload -U compinit; compinit -u -d {tmp_path}/dump"
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        os.execv(program("zsh"), ["zsh", "-f", "-i"])
    try:
        os.write(terminal, f"{begin}\n".encode())
        for begun, whole in (("why --explain no-s", "no-swap"), ("why --foll", "--follow"), ("why --pag", "--pager")):
            os.write(terminal, f"reprieve {begun}\t".encode())
            until_shown(terminal, whole)
            os.write(terminal, b"\x15")  # Ctrl-U: the next line
    finally:
        os.close(terminal)
        os.waitpid(pid, 0)


def until_shown(terminal: int, word: str) -> None:
    """Read until it is on the terminal; that it does not come in a minute fails the test."""
    shown = b""
    while word.encode() not in shown:
        assert select.select([terminal], [], [], 60)[0], shown
        shown += os.read(terminal, 65536)


@pytest.mark.slow
def test_fish_completes_and_tells_what_an_option_does(reprieve: Run, tmp_path: Path) -> None:
    script = tmp_path / "reprieve.fish"
    script.write_text(reprieve("completion", "fish").stdout)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    for begun, whole in (("why --foll", "--follow\tWait, and explain"), ("why --explain no-s", "no-swap\n")):
        argv = [program("fish"), "--no-config", "--command", f"source {script}; complete -C 'reprieve {begun}'"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, env=os.environ | {"PATH": path})
        assert done.stdout.startswith(whole), done.stderr


def test_options_and_codes_are_completed(reprieve: Run) -> None:
    asked = {"_REPRIEVE_COMPLETE": "bash_complete"}
    assert "plain,--explain\n" in reprieve(COMP_WORDS="reprieve why --ex", COMP_CWORD="2", **asked).stdout
    assert "plain,no-swap\n" in reprieve(COMP_WORDS="reprieve why --explain no", COMP_CWORD="3", **asked).stdout


def test_the_man_page_is_that_of_the_commands() -> None:
    page = runpy.run_path(str(DOCS / "man.py"))["page"]()
    assert (DOCS / "man" / "reprieve.1").read_text(encoding="utf-8") == page


def test_troff_has_nothing_to_say_against_the_man_page() -> None:
    argv = [program("groff"), "-man", "-Tutf8", "-ww", str(DOCS / "man" / "reprieve.1")]
    done = subprocess.run(argv, capture_output=True, check=True)
    assert done.stderr == b""
    assert b"--fail-on-kill" in re.sub(rb"\x1b\[\d+m|.\x08", b"", done.stdout)


# -- the demo ----------------------------------------------------------------------------------------------------------


def test_the_demo_explains_a_kill_that_it_made(reprieve: Run, real_kill: str) -> None:
    before = set(os.listdir("/sys/fs/cgroup"))
    done = reprieve("demo")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Killed    leaky-demo (pid " in done.stdout
    assert "recorded" not in done.stdout
    assert set(os.listdir("/sys/fs/cgroup")) == before


def test_the_demo_finds_its_kill_where_its_pids_are_not_those_of_the_kernel(real_kill: str) -> None:
    assert "leaky-demo" in real_kill  # here it can be made
    inside = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-m", "reprieve", "demo"]
    done = subprocess.run(inside, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if "unshare" in done.stderr:
        missing(f"a namespace of pids: {done.stderr}")
    assert done.stdout.startswith("A process leaked in a memory cgroup of its own")


def test_without_the_rights_the_demo_explains_a_recorded_kill_and_says_so(as_nobody: Run) -> None:
    done = as_nobody("demo")
    assert (done.returncode, done.stderr) == (0, "")
    assert "This is a recorded one" in done.stdout
    assert re.search(r"^Killed    \S+ \(pid \d+\)", done.stdout, re.MULTILINE)


def test_a_log_in_the_place_of_a_verb_is_answered_with_the_verb(reprieve: Run, tmp_path: Path) -> None:
    (tmp_path / "kern log").touch()
    done = reprieve("kern log")
    assert done.returncode == 2
    assert "Did you mean: reprieve why 'kern log'" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("fix", "limit", "nginx", "--max", "64"), "64 B is less than any program needs: try 64M"),
        (("fix", "limit", "nginx", "--high", "1K"), "1 KiB is less than any program needs: try 512M"),
        (
            ("fix", "limit", "nginx.timer", "--max", "64M"),
            "nginx.timer holds no memory: name what it starts, as nginx.",
        ),
        (("fix", "limit", "", "--max", "64M"), "'' is no unit"),
        (
            ("fix", "limit", "pod:shop/web", "--max", "64M"),
            "'pod:shop/web' cannot be limited here; what can: a unit, docker:NAME, podman:NAME, deployment/NAME, "
            "statefulset/NAME, daemonset/NAME, a cgroup by its path",
        ),
        (("fix", "limit", "job/x", "--max", "64M"), "of other pods the limit stands in the manifest that makes them"),
        (
            ("fix", "limit", "cronjob/x", "--max", "64M"),
            "'cronjob/x' cannot be limited here; what can: a unit, docker:NAME",
        ),
        (("fix", "limit", "pod/x", "--max", "64M"), "'pod/x' cannot be limited here; what can: a unit, docker:NAME"),
        (("fix", "protect", "deployment/web"), "'deployment/web' is no unit: nginx, or nginx.service, is one"),
        (("fix", "oom-policy", "job/x", "stop"), "'job/x' is no unit: nginx, or nginx.service, is one"),
        (("fix", "limit", "pid:12", "--max", "64M"), "'pid:12' is no unit"),
        (("fix", "protect", "pid:0"), "'pid:0' is no unit"),
        (("fix", "limit", "nginx", "--max", "infinity"), "'infinity' is no size: max lifts a limit"),
        (("fix", "limit", "nginx", "--swap-max", "-1"), "'-1' is no size: max lifts a limit"),
        (("fix", "limit", "deploy/web", "--max", "max", "--high", "max"), "a --max and a --request of memory, no more"),
        (("fix", "limit", "nginx", "--max", "64M", "--high", "1G"), "--high is above --max: it would never be reached"),
        (
            ("fix", "limit", "nginx", "--request", "1G"),
            "--request is what a node of Kubernetes keeps for a pod: MemoryLow=",
        ),
        (("fix", "limit", "nginx", "--max", "1G", "--make"), "'nginx' is made by who starts it"),
        (("fix", "limit", "docker:web", "--max", "1G", "--make"), "--make makes a cgroup, by its path: /batch"),
        (("fix", "limit", "/lab", "--make"), "says to what it is to be limited"),
        (("fix", "limit", "/lab", "--max", "1G", "--request", "1G"), "keeps for a pod: memory.low"),
        (("fix", "limit", "docker:web", "--request", "1G"), "keeps for a pod: --memory-reservation of an engine"),
        (("fix", "limit", "deploy/web", "--max", "1G", "--request", "2G"), "no such pod would be let in"),
        (
            ("fix", "limit", "deploy/web", "--request", "1G", "--high", "2G"),
            "has a --max and a --request of memory, no more",
        ),
        (("fix", "limit", "deploy/web"), "--max, --high, --swap-max or --request says to what it is to be limited"),
        (("fix", "swappiness", "1", "--force", "swap"), "--force swap is no setting of this plan: vm.swappiness"),
        (("fix", "overcommit", "guess", "--ratio", "80"), "--ratio counts in the strict mode alone"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_looked_at(
    arguments: tuple[str, ...], says: str, reprieve: Run
) -> None:
    said = reprieve(*arguments, "--dry-run")
    assert said.returncode == 2
    assert says in " ".join(said.stderr.split())
    assert said.stdout == ""


@pytest.mark.parametrize(
    "kind", ["deployment", "deployments", "Deployment", "deployment.apps", "statefulset", "daemonset"]
)
def test_the_long_words_of_kubectl_name_a_workload_too(kind: str, reprieve: Run) -> None:
    said = reprieve("fix", "limit", f"{kind}/shop/web/more", "--max", "1G", "--dry-run")
    short = {"statefulset": "sts", "daemonset": "ds"}.get(kind, "deploy")
    assert said.returncode == 1
    assert f"'{short}/shop/web/more' is no name of a workload" in said.stderr


@pytest.mark.parametrize("option", ["--yes", "-y"])
def test_undo_takes_the_consent_that_it_does_not_ask_for(option: str, reprieve: Run) -> None:
    said = reprieve("undo", option, "999999")
    assert (said.returncode, "No such option" in said.stderr) == (1, False)
    assert reprieve("undo", "999999").stderr == said.stderr


def test_what_is_refused_for_now_and_for_later_alike_is_told_once(reprieve: Run) -> None:
    said = reprieve("fix", "swappiness", "1", "--as", "k8s")
    assert (said.returncode, said.stdout) == (4, "")
    assert said.stderr.count("no object of Kubernetes says that") == 1


def test_a_process_is_named_to_all_verbs_alike(reprieve: Run) -> None:
    with subprocess.Popen(["sleep", "600"]) as process:
        try:
            for word in (f"pid:{process.pid}", f"{process.pid}"):
                said = reprieve("fix", "protect", word, "--adj", "300", "--dry-run")
                assert (said.returncode, f"process {process.pid} oom_score_adj" in said.stdout) == (3, True), (
                    said.stdout
                )
        finally:
            process.kill()

"""The command itself: version, help, completion, the man page, the demo."""

import os
import pty
import re
import runpy
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from reprieve.machine.systemd import BOOTED
from reprieve.rules import RULES
from reprieve.rules.living import LIVING, code_of
from reprieve.show.text import prose
from reprieve.why import explain_code
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
    assert "its cgroup is no more" in " ".join(done.stdout.split())
    assert "$ " not in done.stdout  # nothing is left on which a command could work


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
    told = re.sub(r"\s+", "", done.stdout)  # where a line ends depends on how long the program's path is
    assert "Thisisarecordedone" in told
    assert re.search(r"\(`sudo\S+demo`makesone\)", told)
    assert re.search(r"^Killed    \S+ \(pid \d+\)", done.stdout, re.MULTILINE)


def test_a_log_in_the_place_of_a_verb_is_answered_with_the_verb(reprieve: Run, tmp_path: Path) -> None:
    (tmp_path / "kern log").touch()
    done = reprieve("kern log")
    assert done.returncode == 2
    assert "Did you mean: reprieve why 'kern log'" in done.stderr


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("chek", "check"),
        ("chages", "changes"),
        ("snapshop", "snapshot"),
        ("nxt", "next"),
        ("tpo", "top"),
        ("und", "undo"),
        ("whi", "why"),
    ],
)
def test_a_verb_that_is_spelled_nearly_right_is_answered_with_it(word: str, meant: str, reprieve: Run) -> None:
    said = reprieve(word)
    assert said.returncode == 2
    assert said.stderr.endswith(f"No such command '{word}'. Did you mean: reprieve {meant}\n")
    asked = {"_REPRIEVE_COMPLETE": "bash_complete", "COMP_WORDS": f"reprieve {word} x", "COMP_CWORD": "2"}
    assert reprieve(**asked).stderr == ""


def test_no_slip_leads_to_the_option_that_is_dangerous(reprieve: Run) -> None:
    for said in (reprieve("fix", "swappiness", "10", "--from", "x"), reprieve("fix", "swap", "--for")):
        assert (said.returncode, "--force" in said.stderr) == (2, False)
        assert "No such option" in said.stderr
    assert "'--list'" in reprieve("why", "--lst").stderr


@pytest.mark.parametrize("word", ["xyzzy", "status", "kill", "list"])
def test_what_is_near_no_verb_is_answered_with_none(word: str, reprieve: Run) -> None:
    said = reprieve(word)
    assert (said.returncode, "Did you mean" in said.stderr) == (2, False)


def test_the_page_of_each_finding_keeps_to_the_width_but_for_words_that_are_whole() -> None:
    for code in map(code_of, (*RULES, *LIVING)):
        text = explain_code(code)
        for width in (40, 80):
            lines = list(prose(text, width))
            assert all(len(line) <= width or re.fullmatch(r"\S+|\S*`[^`]+`\S*", line) for line in lines), lines
            assert " ".join(lines).split() == text.split()
    assert "`MemoryMax=2G # the limit`" in "\n".join(prose(explain_code("unit-setting-ignored"), 40))


def test_a_page_is_as_wide_as_the_terminal(reprieve: Run) -> None:
    assert max(map(len, reprieve("why", "--explain", "no-swap").stdout.splitlines())) <= 80
    narrow = reprieve("why", "--explain", "no-swap", COLUMNS="40").stdout
    assert "The machine has no swap, so memory that\nnobody uses had to stay in RAM.\n" in narrow


# -- Ctrl-C ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "verb", [("why",), ("why", "--from"), ("check", "--from"), ("next", "--from"), ("top", "--once", "--from")]
)
def test_ctrl_c_ends_a_verb_as_it_ends_any_program(verb: tuple[str, ...], tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = os.open(pipe, os.O_RDWR)  # who writes nothing
    argv = [sys.executable, "-m", "reprieve", *verb, str(pipe)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            until_opened(process.pid, pipe)
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=30) == (b"", b"")
        finally:
            process.kill()
            os.close(writer)
    assert process.returncode == -signal.SIGINT


def until_opened(pid: int, path: Path) -> None:
    """Wait until that process has the file open; that it does not come to it in a minute fails the test."""
    for _ in range(6000):
        with suppress(OSError):  # one that was closed meanwhile
            if any(opened.exists() and opened.samefile(path) for opened in Path(f"/proc/{pid}/fd").iterdir()):
                return
        time.sleep(0.01)
    pytest.fail(f"{path} was not opened")


def test_ctrl_c_while_it_is_loaded_ends_it_quietly(reprieve: Run, tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text("import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)\n")
    path = os.pathsep.join((str(tmp_path), os.environ.get("PYTHONPATH", "")))
    done = reprieve("check", PYTHONPATH=path)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


def test_the_first_process_of_a_namespace_is_ended_by_ctrl_c_too(tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text("raise KeyboardInterrupt\n")
    inside = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-m", "reprieve", "check"]
    environ = os.environ | {"PYTHONPATH": os.pathsep.join((str(tmp_path), os.environ.get("PYTHONPATH", "")))}
    done = subprocess.run(inside, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environ)
    if "unshare" in done.stderr:
        missing(f"a namespace of pids: {done.stderr}")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


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


def test_a_dry_run_without_the_right_shows_the_plan_and_which_right_is_missing(as_nobody: Run) -> None:
    now = Path("/proc/sys/vm/swappiness").read_text().strip()
    want = "11" if now != "11" else "12"
    done = as_nobody("fix", "swappiness", want, "--dry-run", "--runtime")
    assert done.returncode == 3, done.stderr
    assert f"vm.swappiness  {now} → {want}, now" in done.stdout
    assert "Lacking   the right to do it: /proc/sys/vm/swappiness: Permission denied" in done.stdout
    assert "→ run it as root" in done.stdout
    refused = as_nobody("fix", "swappiness", want, "--yes", "--runtime")
    assert refused.returncode == 4
    assert "--as sh" in " ".join(refused.stdout.split())
    assert Path("/proc/sys/vm/swappiness").read_text().strip() == now


def test_what_a_plan_could_not_see_is_told_as_check_tells_it_and_is_its_status(as_nobody: Run) -> None:
    code = "node-heap-exceeds-limit"  # of which there are none here
    with subprocess.Popen(["sleep", "600"]) as one, subprocess.Popen(["sleep", "600"]) as other:  # a pool, it may be
        try:
            seen = as_nobody("check", "--only", code)
            told = as_nobody("fix", "--only", code, "--dry-run")
            printed = as_nobody("fix", "--only", code, "--as", "ansible")
        finally:
            one.kill()
            other.kill()
    assert (seen.returncode, "Not seen" in seen.stdout) == (5, True)
    assert told.returncode == 5
    assert "nothing to change, in what could be seen" in told.stdout
    assert "Not seen  “/proc/*/smaps_rollup”" in told.stdout
    assert (printed.returncode, printed.stdout) == (5, "")
    assert "nothing to change, in what could be seen" in printed.stderr
    assert "Not seen  “/proc/*/smaps_rollup”" in printed.stderr


def test_a_plan_without_what_is_to_last_says_that_it_is_until_the_next_boot(reprieve: Run) -> None:
    if Path(BOOTED).is_dir():
        pytest.skip("this machine has systemd")
    said = reprieve("fix", "zram", "--size", "64M", "--dry-run")
    if "systemd does not run here" not in " ".join(said.stdout.split()) or said.returncode != 3:
        missing(f"zram: {said.stdout}{said.stderr}")
    assert "1 change, until the next boot alone" in said.stdout
    assert "together or not at all" not in said.stdout
    assert "1 change, together" in reprieve("fix", "zram", "--size", "64M", "--runtime", "--dry-run").stdout


@pytest.mark.parametrize(
    ("asked", "whole"),
    [
        ("--dry-run swappiness 10", "swappiness 10 --dry-run"),
        ("--reason swappiness --runtime swappiness 10", "swappiness 10 --reason swappiness --runtime"),
        ("--dry-run protect -- 7", "protect --dry-run -- 7"),
    ],
)
def test_options_before_the_command_are_told_where_they_belong(asked: str, whole: str, reprieve: Run) -> None:
    said = reprieve("fix", *asked.split())
    assert (said.returncode, said.stdout) == (2, "")
    assert said.stderr.endswith(f"options stand behind the command: reprieve fix {whole}\n")
    only = reprieve("fix", "--only", "swap-absent", "swappiness", "10")
    assert (only.returncode, "--only is of findings" in only.stderr) == (2, True)


def test_a_dry_run_with_the_right_lacks_nothing(reprieve: Run) -> None:
    if os.geteuid() != 0:
        missing("root")
    assert "Lacking" not in reprieve("fix", "swappiness", "11", "--dry-run").stdout


@pytest.mark.parametrize("asked", ["--version", "-V", "--help", "why --help", "changes", "why --explain host-full"])
def test_where_there_is_no_room_for_an_answer_it_says_so(asked: str) -> None:
    with open("/dev/full", "w") as full:
        argv = [sys.executable, "-m", "reprieve", *asked.split()]
        done = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[1:] == ["  write it where there is room"]
    assert "Traceback" not in done.stderr


def test_a_version_that_nobody_reads_is_no_failure() -> None:
    ours = f"exec 3>&1 2>&1; {{ {sys.executable} -m reprieve --version; echo $? >&3; }}"
    for way in (">&-", "| true"):
        done = subprocess.run(["sh", "-c", f"{ours} {way}"], capture_output=True, text=True)
        assert done.stdout == "0\n"


def test_the_man_page_tells_no_option_that_is_nobody_s_to_give() -> None:
    page = (Path(__file__).parents[1] / "docs" / "man" / "reprieve.1").read_text()
    assert "unless\\-kept" not in page
    for name in ("XDG_STATE_HOME", "KUBECONFIG", "DOCKER_HOST", "CONTAINER_HOST", "COLUMNS"):
        assert name in page

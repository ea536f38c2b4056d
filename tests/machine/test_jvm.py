"""JVMs among the processes: their words, files of words and variables, as HotSpot takes them, and as no one should."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reprieve.machine.cmdline import Started
from reprieve.machine.host import Host
from reprieve.machine.jvm import parse_bytes, parse_option, read_jvms, read_told, split_file
from reprieve.machine.proc import read_processes
from reprieve.model.application import Jvm
from reprieve.model.finding import Gap
from tests.machine.real import program
from tests.machine.runtimes import JVMS, compiled, java

MIB = 1 << 20
WORDS = st.one_of(
    st.text(),
    st.sampled_from(
        "-Xmx -Xmx1g -Xms9m -Xss1m -XX:MaxRAMPercentage= @ @@ @f -cp -jar Main -XX:+UseG1GC -XX:-UseContainerSupport "
        "-XX:MaxRAMFraction=0 --module=m -XX:VMOptionsFile=f -XX:MaxRAM=0x -XX:+UseGC -XX:ThreadStackSize=9g".split()
    ),
    st.builds("-XX:{}={}".format, st.sampled_from(["MaxHeapSize", "MaxRAMPercentage", "MaxRAM"]), st.text()),
    st.builds("-Xmx{}{}".format, st.integers(), st.sampled_from(["", "k", "m", "g", "t", "x"])),
)


def told(*words: str, file: str | None = None, **variables: str) -> dict[str, tuple[object, str]]:
    """Each flag, and where it was told."""
    started = Started(program="/bin/java", words=("java", *words), environ=variables)
    found = read_told(started, lambda _: file)
    return {name: (value, found.origins[name]) for name, value in found.flags.items()}


def jvm(pid: int) -> tuple[Jvm | None, list[Gap]]:
    """The JVM of this machine with that pid, if it is one."""
    gaps: list[Gap] = []
    found = read_jvms(Host(), gaps, read_processes(Host(), gaps, pids=[pid]))
    return (found[0] if found else None), gaps


@pytest.fixture(scope="module")
def waits(tmp_path_factory: pytest.TempPathFactory) -> str:
    return compiled(tmp_path_factory.mktemp("java"))


# -- what is none ------------------------------------------------------------------------------------------------------


def test_words_of_the_application_are_none_of_the_jvm() -> None:
    for main in (("Main",), ("-jar", "app.jar"), ("-m", "app/Main"), ("--module=app/Main",), ("-cp", "x", "Main")):
        assert told(*main, "-Xmx1g", "-XX:MaxRAMPercentage=50", "@f", file="-Xmx2g") == {}


def test_the_value_of_an_option_is_no_main_class() -> None:
    assert told("-cp", "Main", "--add-opens", "a/b=c", "-Xmx1m", "Main") == {"MaxHeapSize": (MIB, "command line")}


def test_what_is_no_size_is_not_told() -> None:
    words = "-Xmx -Xmx-1 -Xmx1.5g -Xmx1gb -Xmx0 -XX:MaxRAM=g -XX:ThreadStackSize=1m -XX:MaxRAMPercentage=101".split()
    assert told(*words, "-Xmx99999999999999999999", "-Xmx9999999t", "-XX:MaxRAMFraction=0", "Main") == {}


@settings(max_examples=300, deadline=None)
@given(words=st.lists(WORDS), tool=st.text(), launcher=st.text(), last=st.text(), file=st.text(), old=st.booleans())
def test_no_words_of_whatever_kind_are_too_much(
    words: list[str], tool: str, launcher: str, last: str, file: str, old: bool
) -> None:
    environ = {"JAVA_TOOL_OPTIONS": tool, "JDK_JAVA_OPTIONS": launcher, "_JAVA_OPTIONS": last}
    found = read_told(Started("/bin/java", ("java", *words), environ), lambda _: file, old=old)
    assert set(found.flags) == set(found.origins)
    for name, value in found.flags.items():
        if isinstance(value, float):
            assert 0 <= value <= 100, name
        elif isinstance(value, int):
            assert 0 <= value < 1 << 63, name


@given(text=st.text())
def test_a_file_of_words_of_whatever_kind_has_words(text: str) -> None:
    assert len("".join(split_file(text))) <= len(text)


@given(count=st.integers(1, (1 << 62) - 1))
def test_a_size_is_read_as_it_was_written(count: int) -> None:
    assert parse_bytes(str(count)) == count == parse_bytes(hex(count))
    assert parse_option(f"-Xmx{count}") == ("MaxHeapSize", count)


def test_a_program_that_is_called_java_is_no_jvm(tmp_path: Path) -> None:
    shutil.copy(program("sleep"), tmp_path / "java")
    child = subprocess.Popen([str(tmp_path / "java"), "60"])
    try:
        assert os.readlink(f"/proc/{child.pid}/exe") == str(tmp_path / "java")
        assert jvm(child.pid) == (None, [])
    finally:
        child.kill()
        child.wait()


# -- what is told ------------------------------------------------------------------------------------------------------


def test_what_is_told_later_counts_and_it_is_said_where() -> None:
    assert told(
        *("-Xmx3m", "-Xms3m", "-XX:MaxRAM=1g", "Main"),
        JAVA_TOOL_OPTIONS="-Xmx1m -Xss1m",
        JDK_JAVA_OPTIONS="-Xmx2m -Xms2m",
        _JAVA_OPTIONS="-Xmx4m",
    ) == {
        "ThreadStackSize": (MIB, "JAVA_TOOL_OPTIONS"),
        "InitialHeapSize": (3 * MIB, "command line"),
        "MaxRAM": (1 << 30, "command line"),
        "MaxHeapSize": (4 * MIB, "_JAVA_OPTIONS"),
    }


def test_a_file_that_cannot_be_read_is_told() -> None:
    found = read_told(Started("/bin/java", ("java", "@f", "-XX:VMOptionsFile=g", "-Xmx1m", "Main"), {}), lambda _: None)
    assert (found.unseen, found.flags) == (["option file", "option file"], {"MaxHeapSize": MIB})


FORMS = (  # a file of words, its names and quotes as HotSpot's launcher takes them
    "-Xmx300m -Xss512k",
    "# -Xmx1g\n-Xmx300m \"-Dx=a b\" '-Xss512k' -XX:MaxMetaspaceSize=100m",
    "'-Dn=\\tx' -Dpath=c:\\temp -Xmx0x12c00k #-Xmx9m\n\n-Xms5m",
    '-Dq="half quoted" "-Dc=con\\\n     tinued" -Xmx314572800 "-Dend=unterminated\n-Xms6m',
    "-XX:MaxRAMPercentage=33.5\t-XX:ReservedCodeCacheSize=64m\f-XX:ThreadStackSize=2048\r\n-XX:+UseSerialGC",
)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_files_of_words_are_read_as_the_launcher_reads_them(form: str, waits: str, tmp_path: Path) -> None:
    (tmp_path / "words").write_text(form)
    (Path(waits) / "relative").write_text(form)
    (tmp_path / "link").symlink_to("words")
    variables = {"JDK_JAVA_OPTIONS": f"-Xms7m @{tmp_path}/link", "JAVA_TOOL_OPTIONS": "-XX:MaxRAM='3g'"}
    for words in ((f"@{tmp_path}/words",), ("@relative",), ("@./../" + Path(waits).name + "/relative",)):
        with java(waits, *words, environ=variables) as waiting:
            found, gaps = jvm(waiting.pid)
            flags = subprocess.run(
                (program("jcmd"), str(waiting.pid), "VM.flags"), capture_output=True, text=True, check=True
            ).stdout
        assert found is not None
        assert gaps == []
        assert found.unseen == ()
        assert found.max_ram_bytes == 3 << 30
        names = {
            "MaxHeapSize": found.max_heap_size_bytes,
            "InitialHeapSize": found.initial_heap_size_bytes,
            "ReservedCodeCacheSize": found.reserved_code_cache_size_bytes,
        }
        for name, value in names.items():
            if value is not None:
                align = {"InitialHeapSize": 2 * MIB, "MaxHeapSize": 2 * MIB}.get(name, 1)
                assert f"-XX:{name}={-(-value // align) * align} " in flags
        assert (found.collector == "Serial") == ("+UseSerialGC" in form)


@pytest.mark.slow
@pytest.mark.parametrize("path", JVMS)
def test_a_jvm_is_found_whatever_it_is_called(path: str, waits: str, tmp_path: Path) -> None:
    (tmp_path / "payments").symlink_to(path)
    release = Path(path).parents[1].joinpath("release").read_text()
    with java(waits, "-Xmx64m", "-XX:-UseContainerSupport", jvm=str(tmp_path / "payments")) as waiting:
        found, gaps = jvm(waiting.pid)
    assert gaps == []
    assert found is not None
    assert f'JAVA_VERSION="{found.java_version}"' in release
    assert (found.max_heap_size_bytes, found.use_container_support, found.unseen) == (64 * MIB, False, ())


@pytest.mark.slow
def test_what_others_may_not_read_is_a_gap_and_named(waits: str) -> None:
    with java(waits, "-Xmx64m") as waiting:
        answer, asked = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.setgid(65534)
            os.setuid(65534)
            found, gaps = jvm(waiting.pid)
            os.write(asked, repr((found and (found.max_heap_size_bytes, found.unseen), gaps)).encode())
            os._exit(0)
        os.waitpid(pid, 0)
        said = os.read(answer, 65536).decode()
        os.close(answer)
        os.close(asked)
    gap = Gap(place=f"/proc/{waiting.pid}/environ", reason="permission denied", hint="run it as root")
    assert said == repr(((64 * MIB, ("environment",)), [gap]))


@pytest.mark.slow
def test_secrets_among_the_words_are_not_kept(waits: str) -> None:
    with java(waits, "-Xmx64m", "-Dpassword=hunter2", environ={"JAVA_TOOL_OPTIONS": "-Xss1m -Dkey=hunter2"}) as waiting:
        found, _ = jvm(waiting.pid)
    assert found is not None
    assert "hunter2" not in repr(found)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(cmdline=st.binary(), environ=st.binary(), comm=st.sampled_from([b"java", b"sh"]))
def test_a_hostile_process_is_told_of_or_left_out(cmdline: bytes, environ: bytes, comm: bytes, tmp_path: Path) -> None:
    folder = tmp_path / "made-up/proc/7"
    folder.mkdir(parents=True, exist_ok=True)
    stat = b"7 (%s) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 3 0 9000 3133440 390 18446744073709551615 1 1\n" % comm
    for name, data in (("stat", stat), ("cmdline", b"java\0" + cmdline), ("environ", environ)):
        (folder / name).write_bytes(data)
    gaps: list[Gap] = []
    host = Host(str(tmp_path / "made-up"))
    found = read_jvms(host, gaps, read_processes(host, gaps))
    assert [one.pid for one in found] == ([7] if comm == b"java" else [])

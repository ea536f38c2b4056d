import gzip
import os
import subprocess
import sys
from pathlib import Path

import pytest

from reprieve.machine.host import Identity, identify
from reprieve.machine.log import named, of_this_machine
from reprieve.model.finding import Failure, Gap
from tests.machine.real import missing, read

NOBODY = Identity()


def log(path: Path, text: str | bytes, at_s: int = 1000) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    os.utime(path, (at_s, at_s))
    return str(path)


def test_a_file_that_is_not_there_is_a_failure_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(Failure, match=r"absent\.log: does not exist"):
        named([str(tmp_path / "absent.log")], NOBODY)


def test_a_folder_without_a_log_is_a_failure(tmp_path: Path) -> None:
    log(tmp_path / "program", b"\x7fELF\0\0\0")
    (tmp_path / "kern.log").touch()
    with pytest.raises(Failure, match="holds no log"):
        named([str(tmp_path)], NOBODY)


def test_one_bad_argument_among_good_ones_is_a_gap(tmp_path: Path) -> None:
    good = log(tmp_path / "kern.log", "text\n")
    sources, gaps = named([good, "/absent", "-"], NOBODY)
    assert [source.name for source in sources] == [good, "stdin"]
    assert gaps == [Gap(place="/absent", reason="does not exist")]


def test_the_logs_of_a_folder_come_newest_first_whatever_they_are_packed_with(tmp_path: Path) -> None:
    names = [
        log(tmp_path / "messages-20260101", "older\n", 1000),
        log(tmp_path / "sub/deeper/x.gz", gzip.compress(b"newer\n"), 2000),
        log(tmp_path / "messages", "newest\n", 3000),
    ]
    log(tmp_path / "wtmp", b"\x07\0\0\0binary", 4000)
    sources, gaps = named([str(tmp_path)], NOBODY)
    assert [source.name for source in sources] == names[::-1]
    assert [read(source)[0] for source in sources] == [b"newest\n", b"newer\n", b"older\n"]
    assert gaps == []


def test_a_log_with_a_hole_of_zeros_from_a_crash_is_still_a_log(tmp_path: Path) -> None:
    path = log(tmp_path / "kern.log", bytes(4096) + b"text\n")
    [source], _ = named([str(tmp_path)], NOBODY)
    assert source.name == path


def test_of_a_folder_that_is_a_whole_system_so_many_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reprieve.machine.log._MOST_FILES", 3)
    for number in range(5):
        (tmp_path / f"{number}.log").write_text("text\n")
    sources, gaps = named([str(tmp_path)], NOBODY)
    assert len(sources) == 3
    assert [gap.reason for gap in gaps] == ["holds more than 3 files that may be logs: the others were not read"]


def test_links_pipes_and_sockets_in_a_folder_are_passed_by(tmp_path: Path) -> None:
    path = log(tmp_path / "kern.log", "text\n")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "again.log").symlink_to(path)
    (tmp_path / "zero.log").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe.log")
    sources, gaps = named([str(tmp_path)], NOBODY)
    assert [source.name for source in sources] == [path]
    assert gaps == []


def test_a_link_that_is_named_is_followed(tmp_path: Path) -> None:
    log(tmp_path / "kern.log", "text\n")
    (tmp_path / "link.log").symlink_to(tmp_path / "kern.log")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    [source], gaps = named([str(tmp_path / "link.log"), str(tmp_path / "circle")], NOBODY)
    assert read(source) == (b"text\n", [])
    assert [gap.reason for gap in gaps] == ["too many levels of symbolic links"]


def test_a_file_is_one_source_however_often_it_is_named(tmp_path: Path) -> None:
    path = log(tmp_path / "logs/kern.log", "text\n")
    os.link(path, tmp_path / "logs/same.log")
    folder = str(tmp_path / "logs")
    assert [source.name for source in named([path, folder, path], NOBODY)[0]] == [path]
    [source], _ = named([folder, path], NOBODY)
    assert source.within is not None
    assert (source.within.name, source.within.unread, source.within.hides) == (folder, 1, False)


def test_what_another_user_may_not_read_is_a_gap_with_what_to_do(tmp_path: Path) -> None:
    if os.getuid() != 0:
        missing("root, to become somebody else")
    code = """
import os, sys, tempfile
from reprieve.machine.host import Identity
from reprieve.machine.log import named
from reprieve.model.finding import Failure
with tempfile.TemporaryDirectory() as folder:
    os.chmod(folder, 0o755)
    for name in ("open.log", "closed.log"):
        with open(f"{folder}/{name}", "w") as file: file.write("text")
    os.chmod(f"{folder}/closed.log", 0o600)
    os.mkdir(f"{folder}/closed", 0o700)
    if os.fork() == 0:
        os.setresuid(65534, 65534, 65534)
        sources, gaps = named([folder], Identity())
        assert [source.name for source in sources] == [f"{folder}/open.log"]
        assert {(gap.place, gap.reason) for gap in gaps} == {
            (f"{folder}/closed.log", "permission denied"), (f"{folder}/closed", "permission denied")}
        assert all(gap.hint.startswith("run it with sudo") for gap in gaps)
        try:
            named([f"{folder}/closed.log"], Identity())
        except Failure as failure:
            print(failure, "|", failure.hint, flush=True)
        os._exit(0)
    assert os.wait()[1] == 0
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "closed.log: permission denied | run it with sudo, or as its owner" in done.stdout, done.stderr


def test_this_machine_offers_its_kernels_buffer_first_and_reads_without_an_exception() -> None:
    identity = identify()
    sources, _ = of_this_machine(identity)
    assert (sources[0].name, sources[0].kind, sources[0].boot_id) == ("/dev/kmsg", "kmsg", identity.boot_id)
    for source in sources:
        text, gaps = read(source)
        assert text or gaps or source.kind != "kmsg"


def test_what_was_named_and_is_empty_or_no_text_is_a_gap_and_what_only_lies_there_is_not(tmp_path: Path) -> None:
    rotated = log(tmp_path / "kern.log.2.gz", gzip.compress(b""))
    [source], _ = named([str(tmp_path)], NOBODY)
    assert read(source) == (b"", [])
    [source], _ = named([rotated], NOBODY)
    assert [gap.reason for gap in read(source)[1]] == ["is empty"]
    noise = log(tmp_path / "noise", bytes(range(256)) * 9)
    [source], _ = named([noise], NOBODY)
    text, gaps = read(source)
    assert (len(text), [(gap.place, gap.reason) for gap in gaps]) == (256 * 9, [(noise, "is no text")])


def test_what_could_not_be_read_is_not_called_empty(tmp_path: Path) -> None:
    cut = log(tmp_path / "kern.log.gz", gzip.compress(b"text\n")[:12])
    [source], _ = named([cut], NOBODY)
    assert [gap.reason for gap in read(source)[1]] == ["the gzip data ends in the middle; read up to there"]

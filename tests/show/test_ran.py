"""What `reprieve run` tells of a job object of Windows, as no machine of ours can make one."""

from reprieve.model.run import Bounds, Enforcement, Run, Use
from reprieve.show import ran
from reprieve.show.text import Page, plain_paint

_JOB = Enforcement(means="job")
_RUN = Run(
    argv=("build.exe",),
    bounds=Bounds(max_bytes=64 << 20),
    enforcement=_JOB,
    status=0xC0000017,
    wall_s=1.0,
    use=Use(peak_bytes=48 << 20, at_max=2),
)


def test_a_limit_of_committed_memory_is_called_that() -> None:
    assert ran.began(_RUN.bounds, _JOB) == "reprieve: 64 MiB of committed memory at most, in a job object"
    assert ran.began(Bounds(), _JOB) == "reprieve: without a limit, in a job object"


def test_who_reached_the_limit_was_refused_and_its_status_is_told_as_windows_names_it() -> None:
    told = "\n".join(ran.ended(Page(width=100, paint=plain_paint), _RUN))
    assert "build.exe with status 0xc0000017" in told
    assert "48 MiB of 64 MiB (75 %), all its processes together, as far as it was committed" in told
    assert "reached 2 times: it was refused memory" in told


def test_what_is_not_enforced_is_not_told_as_a_limit_that_holds() -> None:
    bounds = Bounds(max_bytes=64 << 20, high_bytes=32 << 20, swap_max_bytes=0)
    lacking = ("--high (cgroup version 1 has no such limit)", "the 1 GiB of /a, which reprieve was started in")
    held = Enforcement(means="cgroup1", unenforced=lacking)
    assert ran.began(bounds, held) == (
        "reprieve: 64 MiB of memory at most, no swap, in a cgroup of its own (version 1); not enforced: "
        + "; ".join(lacking)
    )
    for alone, option in ((Bounds(high_bytes=1), "--high"), (Bounds(swap_max_bytes=0), "--swap-max")):
        said = ran.began(alone, Enforcement(means="cgroup1", unenforced=(f"{option} (why)",)))
        assert said == f"reprieve: without a limit, in a cgroup of its own (version 1); not enforced: {option} (why)"

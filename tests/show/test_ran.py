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

"""The structures of job objects are laid out as Windows has them on 64 bits (winnt.h)."""

import ctypes

from reprieve.machine import job


def test_structures_are_as_large_as_windows_has_them() -> None:
    sizes = {
        job.JOBOBJECT_BASIC_LIMIT_INFORMATION: 64,
        job.IO_COUNTERS: 48,
        job.JOBOBJECT_EXTENDED_LIMIT_INFORMATION: 144,
        job.JOBOBJECT_ASSOCIATE_COMPLETION_PORT: 16,
        job.STARTUPINFOW: 104,
        job.PROCESS_INFORMATION: 24,
    }
    assert {structure: ctypes.sizeof(structure) for structure in sizes} == sizes


def test_what_is_written_and_read_is_where_windows_has_it() -> None:
    limits, basic = job.JOBOBJECT_EXTENDED_LIMIT_INFORMATION, job.JOBOBJECT_BASIC_LIMIT_INFORMATION
    assert basic.LimitFlags.offset == 16
    assert limits.ProcessMemoryLimit.offset == 112
    assert limits.JobMemoryLimit.offset == 120
    assert limits.PeakProcessMemoryUsed.offset == 128
    assert limits.PeakJobMemoryUsed.offset == 136
    assert job.JOBOBJECT_BASIC_PROCESS_ID_LIST.ProcessIdList.offset == 8
    assert job.STARTUPINFOW.hStdInput.offset == 80
    assert job.PROCESS_INFORMATION.dwProcessId.offset == 16

"""A command in a job object of Windows: limited and read back before it runs, and its end waited for without polling.

The structures are the same everywhere, so that a test can look at them; the calls are there on Windows alone.

Source: https://learn.microsoft.com/windows/win32/procthread/job-objects, and the page of each name that is used here.
"""

import ctypes
import sys
from ctypes import Structure, c_int, c_int64, c_size_t, c_uint16, c_uint32, c_uint64, c_void_p, c_wchar_p
from typing import NamedTuple

from reprieve.model.finding import Failure
from reprieve.model.run import Use

DWORD = c_uint32  # ctypes.wintypes has it as c_ulong, which elsewhere is of 8 bytes
ULONG_PTR = SIZE_T = c_size_t
HANDLE = c_void_p

OURS, NOT_RUN, NOT_FOUND = 125, 126, 127  # as on Linux
KILLED = 137  # with which who is ended by us ends, as on Linux

_LIMIT_JOB_MEMORY, _LIMIT_KILL_ON_JOB_CLOSE = 0x200, 0x2000  # JOB_OBJECT_LIMIT_…
_BASIC_PROCESS_ID_LIST, _ASSOCIATE_COMPLETION_PORT, _EXTENDED_LIMIT = 3, 7, 9  # JOBOBJECTINFOCLASS
_AT_LIMIT = (9, 10)  # JOB_OBJECT_MSG_PROCESS_MEMORY_LIMIT, JOB_OBJECT_MSG_JOB_MEMORY_LIMIT
_CREATE_SUSPENDED = 0x4
_INFINITE = _FAILED = 0xFFFFFFFF
_WAIT_TIMEOUT = 258
_NOT_THERE = (2, 3)  # ERROR_FILE_NOT_FOUND, ERROR_PATH_NOT_FOUND
_LONGEST_WAIT_MS = 1 << 31
_PAGE_BYTES = 4096  # of x86 and of Arm
_ABOUT_TO_END_S = 0.2
_TO_END_S = 5.0
_OF_JOB, _OF_KEYS, _OF_COMMAND = 1, 2, 3  # who wrote a message: its completion key


class JOBOBJECT_BASIC_LIMIT_INFORMATION(Structure):
    _fields_ = (
        ("PerProcessUserTimeLimit", c_int64),
        ("PerJobUserTimeLimit", c_int64),
        ("LimitFlags", DWORD),
        ("MinimumWorkingSetSize", SIZE_T),
        ("MaximumWorkingSetSize", SIZE_T),
        ("ActiveProcessLimit", DWORD),
        ("Affinity", ULONG_PTR),
        ("PriorityClass", DWORD),
        ("SchedulingClass", DWORD),
    )


class IO_COUNTERS(Structure):
    _fields_ = (
        ("ReadOperationCount", c_uint64),
        ("WriteOperationCount", c_uint64),
        ("OtherOperationCount", c_uint64),
        ("ReadTransferCount", c_uint64),
        ("WriteTransferCount", c_uint64),
        ("OtherTransferCount", c_uint64),
    )


class JOBOBJECT_EXTENDED_LIMIT_INFORMATION(Structure):
    _fields_ = (
        ("BasicLimitInformation", JOBOBJECT_BASIC_LIMIT_INFORMATION),
        ("IoInfo", IO_COUNTERS),
        ("ProcessMemoryLimit", SIZE_T),
        ("JobMemoryLimit", SIZE_T),
        ("PeakProcessMemoryUsed", SIZE_T),
        ("PeakJobMemoryUsed", SIZE_T),
    )


class JOBOBJECT_ASSOCIATE_COMPLETION_PORT(Structure):
    _fields_ = (("CompletionKey", c_void_p), ("CompletionPort", HANDLE))


class JOBOBJECT_BASIC_PROCESS_ID_LIST(Structure):
    _fields_ = (
        ("NumberOfAssignedProcesses", DWORD),
        ("NumberOfProcessIdsInList", DWORD),
        ("ProcessIdList", ULONG_PTR * 16384),
    )


class STARTUPINFOW(Structure):
    _fields_ = (
        ("cb", DWORD),
        ("lpReserved", c_wchar_p),
        ("lpDesktop", c_wchar_p),
        ("lpTitle", c_wchar_p),
        ("dwX", DWORD),
        ("dwY", DWORD),
        ("dwXSize", DWORD),
        ("dwYSize", DWORD),
        ("dwXCountChars", DWORD),
        ("dwYCountChars", DWORD),
        ("dwFillAttribute", DWORD),
        ("dwFlags", DWORD),
        ("wShowWindow", c_uint16),
        ("cbReserved2", c_uint16),
        ("lpReserved2", c_void_p),
        ("hStdInput", HANDLE),
        ("hStdOutput", HANDLE),
        ("hStdError", HANDLE),
    )


class PROCESS_INFORMATION(Structure):
    _fields_ = (("hProcess", HANDLE), ("hThread", HANDLE), ("dwProcessId", DWORD), ("dwThreadId", DWORD))


class Ended(NamedTuple):
    """How the command ended."""

    status: int  # its own, of 32 bits: 0xC0000005 is an access violation; KILLED where we have ended it
    out_of_time: bool
    asked: int | None  # the last key by which somebody asked for its end: SIGINT or SIGBREAK


if sys.platform == "win32":
    import os
    import shutil
    import signal
    from ctypes import FormatError, WinDLL, byref, get_last_error, sizeof
    from subprocess import list2cmdline
    from threading import Thread
    from time import monotonic
    from typing import Any

    _Handler = ctypes.WINFUNCTYPE(c_int, DWORD)  # HANDLER_ROUTINE
    _KEYS = {0: signal.SIGINT, 1: signal.SIGBREAK}  # CTRL_C_EVENT, CTRL_BREAK_EVENT
    _BOOL = (c_int, 0)  # the type of the answer, and which one says that it failed
    _OR_NULL = (HANDLE, None)
    _CALLS = {
        "CreateJobObjectW": (_OR_NULL, (c_void_p, c_wchar_p)),
        "SetInformationJobObject": (_BOOL, (HANDLE, c_int, c_void_p, DWORD)),
        "QueryInformationJobObject": (_BOOL, (HANDLE, c_int, c_void_p, DWORD, c_void_p)),
        "AssignProcessToJobObject": (_BOOL, (HANDLE, HANDLE)),
        "TerminateJobObject": (_BOOL, (HANDLE, DWORD)),
        "CreateIoCompletionPort": (_OR_NULL, (HANDLE, HANDLE, ULONG_PTR, DWORD)),
        "PostQueuedCompletionStatus": (_BOOL, (HANDLE, DWORD, ULONG_PTR, c_void_p)),
        "ResumeThread": ((DWORD, _FAILED), (HANDLE,)),
        "WaitForSingleObject": ((DWORD, _FAILED), (HANDLE, DWORD)),
        "GetExitCodeProcess": (_BOOL, (HANDLE, c_void_p)),
        "TerminateProcess": (_BOOL, (HANDLE, DWORD)),
        "SetConsoleCtrlHandler": (_BOOL, (_Handler, c_int)),
        "CloseHandle": (_BOOL, (HANDLE,)),
    }

    def _raising(failed: int | None) -> Any:
        def check(answer: int | None, call: Any, _arguments: object) -> int | None:
            if answer == failed:
                raise Failure(f"{call.__name__}: {_last_error()}", status=OURS)
            return answer

        return check

    def _last_error() -> str:
        return f"{FormatError(get_last_error()).strip()} (error {get_last_error()})"

    _windows = WinDLL("kernel32", use_last_error=True)
    for _name, ((_answer, _failed), _arguments) in _CALLS.items():
        _call = getattr(_windows, _name)
        _call.restype, _call.argtypes, _call.errcheck = _answer, _arguments, _raising(_failed)
    # These two say something by failing.
    _windows.GetQueuedCompletionStatus.restype = c_int
    _windows.GetQueuedCompletionStatus.argtypes = (HANDLE, c_void_p, c_void_p, c_void_p, DWORD)
    _windows.CreateProcessW.restype = c_int
    _windows.CreateProcessW.argtypes = (
        *(c_wchar_p, c_wchar_p, c_void_p, c_void_p, c_int, DWORD, c_void_p, c_wchar_p),
        *(c_void_p, c_void_p),
    )

    class Job:
        """A job object with a command in it. It has no name, so nobody else's is meant; when this process ends, however
        that is, Windows closes it, and ends all who are in it. Everything here raises Failure with a status of ours.
        """

        def __init__(self) -> None:
            self._job = _windows.CreateJobObjectW(None, None)
            self._port = _windows.CreateIoCompletionPort(HANDLE(-1), None, 0, 1)  # INVALID_HANDLE_VALUE: of no file
            told = JOBOBJECT_ASSOCIATE_COMPLETION_PORT(CompletionKey=_OF_JOB, CompletionPort=self._port)
            self._set(_ASSOCIATE_COMPLETION_PORT, told)
            self._process: int | None = None
            self._at_limit = 0
            self._hears = _Handler(self._hear)  # kept, as Windows calls it

        def limit(self, max_bytes: int | None) -> None:
            """How much memory all of it may have committed together; it is read back. None: as much as there is."""
            told = JOBOBJECT_EXTENDED_LIMIT_INFORMATION()
            told.BasicLimitInformation.LimitFlags = _LIMIT_KILL_ON_JOB_CLOSE  # Wine keeps to it, and reads back none
            if max_bytes is not None:
                told.BasicLimitInformation.LimitFlags |= _LIMIT_JOB_MEMORY
                told.JobMemoryLimit = max_bytes
            self._set(_EXTENDED_LIMIT, told)
            if max_bytes is None:
                return
            kept = self._limits()
            limited = kept.BasicLimitInformation.LimitFlags & _LIMIT_JOB_MEMORY
            if not limited or not max_bytes - _PAGE_BYTES < kept.JobMemoryLimit <= max_bytes:  # it keeps whole pages
                hint = "Wine is one that takes it and drops it; without --max the command runs unlimited"
                read = f"JobMemoryLimit reads {kept.JobMemoryLimit}, not {max_bytes}"
                raise Failure(f"--max is not kept by this Windows: {read}", hint=hint, status=OURS)

        def start(self, argv: tuple[str, ...]) -> None:
            """Start the command: suspended, put into the job, let go, so that nothing of it runs outside."""
            program = shutil.which(argv[0])
            if program is None:
                if os.path.exists(argv[0]):
                    raise Failure(f"{argv[0]} is no program", hint="PATHEXT tells the endings", status=NOT_RUN)
                hint = "it is looked for here and in PATH, with the endings of PATHEXT"
                raise Failure(f"{argv[0]}: there is no such program", hint=hint, status=NOT_FOUND)
            if program.lower().endswith((".bat", ".cmd")):  # whose words cmd.exe would read anew
                hint = f"reprieve run -- cmd /c {argv[0]} …"
                raise Failure(f"{argv[0]} is a batch file, which is run by cmd.exe", hint=hint, status=NOT_RUN)
            words = ctypes.create_unicode_buffer(list2cmdline(argv))
            begin, made = STARTUPINFOW(cb=sizeof(STARTUPINFOW)), PROCESS_INFORMATION()
            inherits, flags = 1, _CREATE_SUSPENDED  # what we were given to hand on; nothing of ours can be inherited
            if not _windows.CreateProcessW(
                program, words, None, None, inherits, flags, None, None, byref(begin), byref(made)
            ):
                status = NOT_FOUND if get_last_error() in _NOT_THERE else NOT_RUN
                raise Failure(f"{argv[0]}: {_last_error()}", hint="is it a program?", status=status)
            try:
                _windows.AssignProcessToJobObject(self._job, made.hProcess)
                _windows.SetConsoleCtrlHandler(self._hears, 1)  # a key that comes before ends us, and so the command
                _windows.ResumeThread(made.hThread)
            except Failure:
                _windows.TerminateProcess(made.hProcess, OURS)
                raise
            _windows.CloseHandle(made.hThread)
            self._process = made.hProcess

        def await_end(self, time_s: float | None) -> Ended:
            """Wait for the command. When its time is over, and at a second Ctrl-C or Ctrl-Break, all of it is ended.

            The first one it gets from the console itself, as we do.
            """
            Thread(target=self._tell_end, daemon=True).start()
            until = None if time_s is None else monotonic() + time_s
            keys, asked, out_of_time = 0, None, False
            while (told := self._next(until)) is None or told[0] != _OF_COMMAND:
                if told is None:
                    out_of_time, until = True, None
                    self.terminate()
                elif told[0] == _OF_KEYS:
                    keys, asked = keys + 1, told[1]
                    if keys > 1:
                        self.terminate()
                elif told[1] in _AT_LIMIT:
                    self._at_limit += 1
            status = DWORD()
            _windows.GetExitCodeProcess(self._process, byref(status))
            return Ended(status.value, out_of_time, asked)

        def end_stragglers(self) -> int:
            """End who outlived the command, but for those who are about to end by themselves; how many there were."""
            left = self._await_emptiness(_ABOUT_TO_END_S)
            if left:
                self.terminate()
                self._await_emptiness(_TO_END_S)
            return left

        def use(self) -> Use:
            """What it tells of all who were in it. A message of the limit may get lost, and Wine keeps no peak."""
            return Use(peak_bytes=self._limits().PeakJobMemoryUsed or None, at_max=self._at_limit or None)

        def largest_process_bytes(self) -> int | None:
            """The most that one process of it had committed."""
            return self._limits().PeakProcessMemoryUsed or None

        def terminate(self) -> None:
            """End all who are in it now."""
            _windows.TerminateJobObject(self._job, KILLED)

        def _await_emptiness(self, most_s: float) -> int:
            until = monotonic() + most_s
            while (left := self._count()) and self._next(until) is not None:
                pass  # somebody has ended: is anybody left?
            return left

        def _count(self) -> int:
            told = JOBOBJECT_BASIC_PROCESS_ID_LIST()
            self._ask(_BASIC_PROCESS_ID_LIST, told)
            return int(told.NumberOfAssignedProcesses)

        def _limits(self) -> JOBOBJECT_EXTENDED_LIMIT_INFORMATION:
            told = JOBOBJECT_EXTENDED_LIMIT_INFORMATION()
            self._ask(_EXTENDED_LIMIT, told)
            return told

        def _set(self, kind: int, told: Structure) -> None:
            _windows.SetInformationJobObject(self._job, kind, byref(told), sizeof(told))

        def _ask(self, kind: int, told: Structure) -> None:
            _windows.QueryInformationJobObject(self._job, kind, byref(told), sizeof(told), None)

        def _next(self, until: float | None) -> tuple[int, int] | None:
            """The next message: who wrote it, and what; None: the time is over."""
            what, key, pid = DWORD(), ULONG_PTR(), c_void_p()
            while True:
                left_s = None if until is None else max(until - monotonic(), 0)
                most_ms = _INFINITE if left_s is None else min(int(left_s * 1000) + 1, _LONGEST_WAIT_MS)
                if _windows.GetQueuedCompletionStatus(self._port, byref(what), byref(key), byref(pid), most_ms):
                    return key.value, what.value
                if get_last_error() != _WAIT_TIMEOUT:
                    raise Failure(f"GetQueuedCompletionStatus: {_last_error()}", status=OURS)
                if until is not None and monotonic() >= until:
                    return None

        def _tell_end(self) -> None:
            """The job's own message of it need not arrive."""
            _windows.WaitForSingleObject(self._process, _INFINITE)
            _windows.PostQueuedCompletionStatus(self._port, 0, _OF_COMMAND, None)

        def _hear(self, event: int) -> int:
            """A key of the console, in a thread of Windows; 0: it is for who comes next, in the end what ends us."""
            if event not in _KEYS:
                return 0
            _windows.PostQueuedCompletionStatus(self._port, _KEYS[event], _OF_KEYS, None)
            return 1

"""Signals are noted, and end only what may be interrupted."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from threading import Timer

import pytest

from reprieve.machine.signals import Interrupted, Signals


@pytest.fixture(autouse=True)
def heard() -> Iterator[None]:
    """Ctrl-C as Python has it: a shell that starts something beside itself has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_what_waits_is_ended_by_the_first_and_what_follows_by_none() -> None:
    with Signals() as signals:
        begun = time.monotonic()
        Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
        with pytest.raises(Interrupted) as ended, signals.interruptible():
            time.sleep(60)
        assert time.monotonic() - begun < 30
        os.kill(os.getpid(), signal.SIGHUP)  # as sudo does after it
        os.kill(os.getpid(), signal.SIGINT)
        assert (ended.value.signal, signals.came) == (signal.SIGTERM, signal.SIGTERM)


def test_one_that_comes_between_two_steps_ends_the_next() -> None:
    with Signals() as signals:
        os.kill(os.getpid(), signal.SIGINT)
        done = ["a record"]
        with pytest.raises(Interrupted), signals.interruptible():
            done.append("a value")
    assert done == ["a record"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_what_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Signals() as signals, signals.interruptible():
            os.kill(os.getpid(), signal.SIGHUP)
        assert signals.came is None
    finally:
        signal.signal(signal.SIGHUP, before)

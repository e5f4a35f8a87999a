"""Forks of a process whose threads are in the middle of something."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from chalk_online_store import _fork as forks
from chalk_online_store._fork import forks_wait

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]


def fork_sees(lock: threading.Lock) -> bool:
    """Whether a lock was free at the moment of a fork."""
    child = os.fork()
    if child == 0:
        os._exit(int(not lock.acquire(blocking=False)))
    return os.waitpid(child, 0)[1] == 0


@contextmanager
def at_work(lock: threading.Lock, until: threading.Event) -> Iterator[None]:
    """Another thread has a lock that no fork can renew, and gives it back in the end."""
    began = threading.Event()

    def work() -> None:
        with forks_wait(), lock:
            began.set()
            until.wait(60)

    thread = threading.Thread(target=work)
    thread.start()
    began.wait(60)
    try:
        yield
    finally:
        until.set()
        thread.join()


def test_a_fork_waits_for_what_it_must_not_interrupt() -> None:
    """A lock of others, held while forks have to wait, is never held in the child."""
    for _ in range(20):
        lock, soon = threading.Lock(), threading.Event()
        with at_work(lock, soon):
            threading.Timer(0.01, soon.set).start()
            assert fork_sees(lock)


def test_a_fork_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes longer than forks wait is interrupted; the child can do it itself."""
    monkeypatch.setattr(forks, "FORK_TIMEOUT_SECONDS", 0.05)
    lock = threading.Lock()
    with at_work(lock, threading.Event()):
        assert not fork_sees(lock)
    with forks_wait():
        assert fork_sees(lock)


def test_a_thread_forks_in_the_middle_of_its_own_work() -> None:
    """Nobody waits for itself, and the child comes to the end of it as well."""
    child = -1
    with forks_wait():
        child = os.fork()
    if child == 0:
        with forks_wait():
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0

"""Threads that run beside callers, and results that they share."""

from __future__ import annotations

import gc
import operator
import threading
import time
from collections.abc import Callable
from functools import partial

import pytest

from chalk_online_store.drivers.workers import Workers
from chalk_online_store.effects import SharedResult

SECONDS = 60.0


def soon(condition: Callable[[], bool]) -> bool:
    """Whether a condition comes to hold."""
    ends = time.monotonic() + SECONDS
    while not condition() and time.monotonic() < ends:
        time.sleep(0.001)
    return condition()


def test_each_call_has_its_result() -> None:
    """Results and exceptions of calls reach the threads that submitted them."""
    workers = Workers(4, "test")
    results = [workers.submit(partial(operator.floordiv, 100, number)) for number in range(10)]
    assert [result.result(SECONDS) for result in results[1:]] == [100 // n for n in range(1, 10)]
    with pytest.raises(ZeroDivisionError):
        results[0].result(SECONDS)
    workers.stop()


def test_calls_that_wait_for_each_other_have_a_thread_each() -> None:
    """Up to `max_threads` calls run at once, also if some threads were idle before."""
    workers = Workers(8, "test")
    for _ in range(20):
        barrier = threading.Barrier(8)
        results = [workers.submit(partial(barrier.wait, SECONDS)) for _ in range(8)]
        assert sorted(result.result(SECONDS) for result in results) == list(range(8))
    assert len(workers._threads) == 8
    workers.stop()


def test_stop_finishes_what_was_submitted() -> None:
    """`stop` waits for all calls, ends the threads, and refuses more."""
    workers = Workers(2, "test")
    done: list[int] = []
    workers.submit(lambda: None).result(SECONDS)
    for number in range(10):
        workers.submit(partial(done.append, number))
    workers.stop()
    assert sorted(done) == list(range(10))
    assert not any(thread.is_alive() for thread in workers._threads)
    with pytest.raises(RuntimeError, match="stopped"):
        workers.submit(lambda: None)


def test_workers_that_nobody_stops_end() -> None:
    """Threads end when the object that began them is collected."""
    workers = Workers(2, "test")
    workers.submit(lambda: None).result(SECONDS)
    threads = workers._threads
    assert soon(lambda: len(threads) == 1)
    del workers
    gc.collect()
    assert soon(lambda: not threads[0].is_alive())


def test_without_another_thread_the_call_is_made_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """If the system refuses a thread, the call is made by the one that was to begin it."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    workers = Workers(2, "test")
    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert workers.submit(lambda: 5).result(SECONDS) == 5
    monkeypatch.undo()
    workers.stop()


def test_a_result_is_settled_once() -> None:
    """The first result stays, and each callback is called once."""
    result: SharedResult[int] = SharedResult()
    called: list[object] = []
    result.add_done_callback(called.append)
    result.set_result(1)
    result.set_exception(ValueError())
    result.add_done_callback(called.append)
    assert result.result() == 1
    assert called == [result, result]


def test_a_result_whose_owner_has_ended_is_over() -> None:
    """A result is over once its owner is released, although nothing was set."""
    result: SharedResult[int] = SharedResult()
    with result.owner:
        assert (result.is_over, result.done()) == (False, False)
    assert (result.is_over, result.done()) == (True, False)
    with pytest.raises(TimeoutError):
        result.result(0.001)


def test_a_result_wakes_threads_that_wait() -> None:
    """Threads that wait get the result that another thread sets."""
    workers = Workers(4, "test")
    shared: SharedResult[str] = SharedResult()
    waiting = [workers.submit(lambda: shared.result(SECONDS)) for _ in range(3)]
    assert soon(lambda: len(shared._callbacks) == 3)
    shared.set_result("value")
    assert [each.result(SECONDS) for each in waiting] == ["value"] * 3
    workers.stop()

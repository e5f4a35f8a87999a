"""Threads for what runs beside the callers, which stand exceptions of signal handlers.

`concurrent.futures.ThreadPoolExecutor` does not: `submit` enters a semaphore and starts a thread
in Python, and an exception there leaves locks held by the main thread that all workers need. Here
the main thread makes single calls into C only: it puts work into a `SimpleQueue`, and has
`_thread` begin a thread, in which a worker is started.
"""

from __future__ import annotations

import _thread
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TypeVar

from chalk_online_store.effects import SharedResult

T = TypeVar("T")

_STOP_TIMEOUT_SECONDS = 60.0


class Workers:
    """At most `max_threads` threads of this process, begun as they are needed."""

    def __init__(self, max_threads: int, name: str) -> None:
        self._max_threads = max_threads
        self._name = name
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._unfinished: set[Callable[[], None]] = set()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._stopped = False

    def submit(self, call: Callable[[], T]) -> SharedResult[T]:
        """Call in a thread, soon; return a result of what it returns or raises.

        Raises `RuntimeError` after `stop`.
        """
        if self._stopped:
            raise RuntimeError("The store's threads were stopped.")
        result: SharedResult[T] = SharedResult()

        def work() -> None:
            with result.owner:
                try:
                    if not result.done():  # Else the caller has given up.
                        result.set_result(call())
                except BaseException as error:  # For the caller that awaits it.
                    result.set_exception(error)
                finally:
                    self._unfinished.discard(work)

        # An interruption between these leaves a count that is too high, and one more thread.
        self._unfinished.add(work)
        self._queue.put(work)
        if len(self._threads) < min(len(self._unfinished), self._max_threads):
            _thread.start_new_thread(self._start, ())
        return result

    def stop(self) -> None:
        """End the threads once they have done what was submitted."""
        with self._lock:
            self._stopped = True
            threads = list(self._threads)
        for _ in threads:
            self._queue.put(None)
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(_STOP_TIMEOUT_SECONDS)

    def _start(self) -> None:
        """Start a worker, from a thread in which no signal handler runs."""
        with self._lock:
            if self._stopped or len(self._threads) >= self._max_threads:
                return
            name = f"{self._name}_{len(self._threads)}"
            thread = threading.Thread(target=self._run, name=name, daemon=True)
            with suppress(RuntimeError):  # The system has no more threads: this one has to do.
                thread.start()
                self._threads.append(thread)
                return
        self._run_queued()

    def _run(self) -> None:
        while (work := self._queue.get()) is not None:
            work()
            del work  # Else it stays until there is more.

    def _run_queued(self) -> None:
        with suppress(Empty):
            while (work := self._queue.get_nowait()) is not None:
                work()

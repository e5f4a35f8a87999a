"""The process beside the tests, as the tests see it; what runs there is in `world`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from chalk_online_store.testing.engines import EngineNotStarted, reap

_SCRIPT = Path(__file__).with_name("world")


class World:
    """A process that runs proxies and replication, outside of this interpreter.

    It ends with `stop`, with this object, with the interpreter, and when this process is killed:
    its orders come over a pipe, which ends then.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._turn = threading.Lock()

    @property
    def pid(self) -> int:
        """Its process id; `EngineNotStarted` when it does not run."""
        return self._running().pid

    def start(self) -> Self:
        """Start, and return once it takes orders. Raises `EngineNotStarted` if it does not."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, str(_SCRIPT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            self._stopper = weakref.finalize(self, _end, self._process, os.getpid())
            try:
                self._hear()
            except BaseException:  # Also when the wait is interrupted.
                self.stop()
                raise
        return self

    def stop(self) -> None:
        """Stop, and return once it is gone. Harmless when it does not run."""
        if self._process is not None:
            self._process = None
            self._stopper()

    def order(self, do: str, **options: Any) -> Any:
        """Have something done, and give what came of it. Safe for threads.

        Raises `EngineNotStarted` when the process has ended or cannot do it.
        """
        with self._turn:
            orders = self._running().stdin
            assert orders is not None
            try:
                orders.write(json.dumps({"do": do, **options}).encode() + b"\n")
                orders.flush()
            except OSError as error:
                raise EngineNotStarted("the helper process has ended") from error
            heard = self._hear()
        if "error" in heard:
            raise EngineNotStarted(f"the helper process could not {do}: {heard['error']}")
        return heard["result"]

    def _hear(self) -> dict[str, Any]:
        answers = self._running().stdout
        assert answers is not None
        line = answers.readline()
        if not line:
            raise EngineNotStarted("the helper process has ended: see what it printed")
        heard: dict[str, Any] = json.loads(line)
        return heard

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise EngineNotStarted("the helper process is not running")
        return self._process

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def _end(process: subprocess.Popen[bytes], owner: int) -> None:
    """End the orders, which ends the process; by force after a while."""
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(BrokenPipeError):  # of an order that nobody took any more
        process.stdin.close()
    process.stdout.close()
    if os.getpid() != owner:  # A fork of the process that started it does not own it.
        return
    reap(process)

"""Exceptions of signal handlers inside a call, at every point at which CPython can raise them.

CPython runs the handler of a signal in the main thread, at the end of a call, at the entry of a
function and at a jump backwards. `Interruptions` visits these points one after the other: it runs
a call under a trace, marks a signal as pending before the n-th of these instructions, and lets
CPython run the handler where it would. The signal must not be handled inside the trace function
itself. Therefore the last thing that the function does is a subscript, after which CPython does
not look for signals, and which calls `_thread.interrupt_main` from C.
"""

from __future__ import annotations

import _thread
import dis
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from types import CodeType, FrameType
from typing import Any

STRESS = int(os.environ.get("CHALK_STRESS", "1"))


class Interruption(BaseException):
    """Raised by the signal handler, as `KeyboardInterrupt` is."""


class SoftLimit(Exception):
    """Raised by the signal handler, as the soft time limit of a task queue is."""


class _Pending:
    """`pending[signal]` marks a signal as pending, without any Python code."""

    __getitem__ = staticmethod(_thread.interrupt_main)


_pending: Any = _Pending()
_FIRST_RESUME_WITHOUT_CHECK = 2  # After `yield from` and `await`.


@cache
def _points(code: CodeType) -> frozenset[int]:
    """The offsets of the instructions at the end of which CPython looks for signals."""
    return frozenset(each.offset for each in dis.get_instructions(code) if _looks_for_signals(each))


def _looks_for_signals(instruction: dis.Instruction) -> bool:
    match instruction.opname:
        case "CALL" | "CALL_KW" | "CALL_FUNCTION_EX" | "JUMP_BACKWARD":
            return True
        case "RESUME":
            return (instruction.arg or 0) < _FIRST_RESUME_WITHOUT_CHECK
    return False


@contextmanager
def handler(error: Callable[[], BaseException]) -> Iterator[None]:
    """Let SIGALRM raise an error in the main thread."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        if frame is None or frame.f_code is not Interruptions._step.__code__:
            raise error()

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGALRM, before)


class Interruptions:
    """Interrupts a call at its `at`-th point, then at every `every`-th point after that."""

    def __init__(self, at: int, every: int = sys.maxsize) -> None:
        self._next = at
        self._every = every
        self.passed = 0
        """The points that the call came to."""

    def run(self, call: Callable[[], object]) -> BaseException | None:
        """Run the call; what it raised."""
        sys._getframe().f_trace_opcodes = True  # From 3.12 on, one frame decides for all.
        # Exceptions in finalizers are expected. A hook in Python would be interrupted as well.
        before, sys.unraisablehook = sys.unraisablehook, id
        sys.settrace(self._enter)
        try:
            call()
        except (Interruption, SoftLimit) as error:
            return error
        finally:
            sys.settrace(None)
            sys.unraisablehook = before
        return None

    def _enter(self, frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename == __file__:
            return None
        frame.f_trace_lines = False
        frame.f_trace_opcodes = True
        return self._step

    def _step(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "opcode" and frame.f_lasti in _points(frame.f_code):
            self.passed += 1
            if self.passed == self._next:
                self._next += self._every
                _pending[signal.SIGALRM]
        return self._step


def interrupted_by_timer(call: Callable[[], object], after: float, again: float) -> bool:
    """Run a call with a timer of the system, in seconds; return whether it was interrupted."""
    is_armed = True

    def interrupt(number: int, frame: FrameType | None) -> None:
        if is_armed:
            raise SoftLimit

    handler_before, hook_before = signal.signal(signal.SIGALRM, interrupt), sys.unraisablehook
    sys.unraisablehook = id
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, after, again)
            call()
        finally:
            is_armed = False  # The first instruction here, so that no signal comes before it.
    except SoftLimit:
        return True
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.unraisablehook = hook_before
        signal.signal(signal.SIGALRM, handler_before)
    return False

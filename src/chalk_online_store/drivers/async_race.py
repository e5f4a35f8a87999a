"""A race on asyncio: the first leg runs in the asker's own task, the others in tasks of theirs.

Most races are decided before their second leg begins: those cost no task and no timer.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from operator import itemgetter
from typing import Any

from chalk_online_store.drivers.loops import DeadlineTimer
from chalk_online_store.effects import Operation, Race

Run = Callable[[Operation[Any]], Awaitable[Any]]


class AsyncRace:
    """One race, for one task. `alarm` tells it when the next leg is to begin."""

    _begun = 1  # Most races never need more than this: the first leg.
    _running = 1
    _errors: tuple[tuple[int, Exception], ...] = ()
    _tasks: tuple[asyncio.Task[None], ...] = ()
    _waiting: asyncio.Future[None] | None = None
    _decided = _interrupted = False
    _value: Any = None
    _error: BaseException | None = None

    def __init__(self, race: Race, run: Run, alarm: DeadlineTimer) -> None:
        parent = asyncio.current_task()
        assert parent is not None
        self._asker = parent
        self._cancelling = parent.cancelling()
        self._context = copy_context()  # The alarm has that of somebody else.
        self._race = race
        self._run = run
        self._alarm = alarm
        self.due = time.monotonic() + race.stagger

    # --- the asker's task ---

    async def result(self) -> Any:
        """What the winner answers; raises when all have raised."""
        try:
            self._alarm.waiting.add(self)
            self._alarm.set(self.due)
            value = await self._run(self._race.operations[0])
        except BaseException as error:
            if not self._was_interrupted():
                if not isinstance(error, Exception):
                    raise
                await self._follow_up(error)
        else:
            if not self._was_interrupted():
                return value
        finally:
            self._decided = True
            self._alarm.waiting.discard(self)
            if self._tasks:
                await self._cancel_others()
        return self._outcome()

    def _was_interrupted(self) -> bool:
        """Whether another leg cancelled the asker's task, and nobody else has."""
        return self._interrupted and self._asker.uncancel() <= self._cancelling

    async def _follow_up(self, error: Exception) -> None:
        """Wait for the others, as the first leg has raised."""
        self._waiting = self._alarm.loop.create_future()
        self._failed(0, error)
        await self._waiting

    def _outcome(self) -> Any:
        if self._error is not None:
            raise self._error
        return self._value

    async def _cancel_others(self) -> None:
        others = [task for task in self._tasks if not task.done()]
        for task in others:
            task.cancel()
        if others:
            await asyncio.wait(others)

    # --- the others' tasks ---

    async def _follow(self, position: int, operation: Operation[Any]) -> None:
        try:
            value = await self._run(operation)
        except Exception as error:
            self._failed(position, error)
        except BaseException as error:  # It ends the race, unless that is why it was cancelled.
            self._decide(None, error)
        else:
            self._decide(value, None)

    # --- both ---

    def ring(self) -> None:
        """Begin the next leg: it is time, or all that have begun have raised."""
        operations, position = self._race.operations, self._begun
        self.due = math.inf
        leg = self._follow(position, operations[position])
        self._tasks += (self._alarm.loop.create_task(leg, context=self._context),)
        # Only now: a leg that could not begin would be waited for without end.
        self._begun += 1
        self._running += 1
        if self._begun < len(operations):
            self.due = time.monotonic() + self._race.stagger
            self._alarm.set(self.due)

    def _failed(self, position: int, error: Exception) -> None:
        self._errors += ((position, error),)
        self._running -= 1
        if self._running or self._decided:
            return
        if self._begun < len(self._race.operations):
            self.ring()
        else:
            self._decide(None, min(self._errors, key=itemgetter(0))[1])

    def _decide(self, value: Any, error: BaseException | None) -> None:
        if self._decided:
            return
        self._decided = True
        self.due = math.inf  # No leg begins while the asker's task is still being cancelled.
        self._value, self._error = value, error
        if self._waiting is None:
            self._interrupted = True
            self._asker.cancel()
        elif not self._waiting.done():  # Else the asker was cancelled.
            self._waiting.set_result(None)

"""A race on asyncio: the first leg runs in the asker's own task, the others in tasks of theirs.

Most races are decided before their second leg begins: those cost no task and no timer.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from typing import Any

from chalk_online_store.drivers.loops import Alarm
from chalk_online_store.drivers.steps import Crew
from chalk_online_store.effects import Operation, Race

Run = Callable[[Operation[Any]], Awaitable[Any]]


class Contest:
    """One race, for one task. `alarm` tells it when the next leg is to begin."""

    __slots__ = (
        "_alarm",
        "_asker",
        "_cancelling",
        "_context",
        "_crew",
        "_decided",
        "_error",
        "_interrupted",
        "_run",
        "_running",
        "_stagger",
        "_tasks",
        "_value",
        "_waiting",
        "due",
    )

    def __init__(self, race: Race, run: Run, alarm: Alarm) -> None:
        asker = asyncio.current_task()
        assert asker is not None
        self._run = run
        self._alarm = alarm
        self._asker = asker
        self._cancelling = asker.cancelling()
        self._context = copy_context()  # The alarm has that of somebody else.
        self._crew = Crew(race.operations)
        self._stagger = race.stagger
        self._running = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._waiting: asyncio.Future[None] | None = None
        self._decided = self._interrupted = False
        self._value: Any = None
        self._error: BaseException | None = None
        self.due = math.inf

    async def result(self) -> Any:
        """What the winner answers; raises when all have raised."""
        self._alarm.waiting.add(self)
        try:
            return await self._lead(self._take()[1])
        finally:
            self._decided = True
            self._alarm.waiting.discard(self)
            if self._tasks:
                await self._cancel_others()

    # --- the asker's task ---

    async def _lead(self, operation: Operation[Any]) -> Any:
        """Run the first leg, unless another one wins meanwhile; then wait for the others."""
        try:
            value = await self._run(operation)
        except BaseException as error:
            if self._was_interrupted():
                return self._outcome()
            if not isinstance(error, Exception):
                raise
            self._waiting = self._alarm.loop.create_future()
            self._failed(0, error)
        else:
            return self._outcome() if self._was_interrupted() else value
        await self._waiting
        return self._outcome()

    def _was_interrupted(self) -> bool:
        """Whether another leg cancelled the asker's task, and nobody else has."""
        return self._interrupted and self._asker.uncancel() <= self._cancelling

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
        except BaseException as error:
            self._decide(None, error)
            raise
        else:
            self._decide(value, None)

    # --- both ---

    def ring(self) -> None:
        """Begin the next leg: it is time, or all that have begun have raised."""
        leg = self._follow(*self._take())
        self._tasks.append(self._alarm.loop.create_task(leg, context=self._context))

    def _take(self) -> tuple[int, Operation[Any]]:
        taken = self._crew.take()
        assert taken is not None
        self._running += 1
        self.due = math.inf
        if self._crew.waits and self._stagger < math.inf:
            self.due = time.monotonic() + self._stagger
            self._alarm.set(self.due)
        return taken

    def _failed(self, position: int, error: Exception) -> None:
        self._crew.failed(position, error)
        self._running -= 1
        if self._running or self._decided:
            return
        if self._crew.waits:
            self.ring()
        else:
            self._decide(None, self._crew.first_error)

    def _decide(self, value: Any, error: BaseException | None) -> None:
        if self._decided:
            return
        self._decided = True
        self._value, self._error = value, error
        if self._waiting is None:
            self._interrupted = True
            self._asker.cancel()
        elif not self._waiting.done():  # Else the asker was cancelled.
            self._waiting.set_result(None)

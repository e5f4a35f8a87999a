"""The parts that bring rows into the table, from one fault to the next.

A fault is an exception that nothing expects: after it, queues and batches may be in any state. So
all parts end, and a new pipeline begins with what the ledger has as pending.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from inspect import GEN_CLOSED, getgeneratorstate

from chalk_online_store.effects import Operation
from chalk_online_store.operations.core import Core
from chalk_online_store.schema import seconds
from chalk_online_store.writer.intake import Intake
from chalk_online_store.writer.ledger import Ledger
from chalk_online_store.writer.pending import Pending, by_arrival, by_event_time
from chalk_online_store.writer.rate import Concurrency, WriteRate
from chalk_online_store.writer.sending import Sender
from chalk_online_store.writer.settings import Writing
from chalk_online_store.writer.signal import Signal, StopFlag

_MOST_ENCODED = 2048
"""Rows that are further on than the inbox, where the oldest ones may have to go."""

_WATCH_SECONDS = 5.0


class Pipeline:
    """Encodes rows, has them spooled, and sends them. Used in the writer's loop alone."""

    def __init__(
        self,
        core: Core,
        settings: Writing,
        ledger: Ledger,
        bell: Signal,
        rate: WriteRate,
        rng: random.Random,
        *,
        is_spooled: bool,
        is_replayed: bool,
    ) -> None:
        """`bell` wakes the intake; `is_replayed` says that records are needed without a spool."""
        self.stop_flag = StopFlag()
        self._bell = bell
        self._stopped = Signal()
        by_event = settings.ordering == "event"
        self.pending = Pending(by_event_time if by_event else by_arrival)
        self.concurrency = Concurrency(settings.max_concurrency)
        self.sender = Sender(
            core,
            ledger,
            self.pending,
            self.stop_flag,
            ordering=settings.ordering,
            rate=rate,
            concurrency=self.concurrency,
            timeout=seconds(settings.write_timeout),
            rng=rng,
        )
        self.intake = Intake(
            core,
            ledger,
            self.pending,
            self.sender.wake,
            bell,
            self.stop_flag,
            batch_age=seconds(settings.max_batch_age),
            spooled=is_spooled,
            kept=is_spooled or is_replayed,
            most_encoded=_MOST_ENCODED if settings.when_full == "shed_oldest" else math.inf,
        )

    def stop(self) -> None:
        """Let all parts end; what is under way is still waited for."""
        self.stop_flag.is_set = True
        self._bell.notify()
        self.sender.wake_all()
        self._stopped.notify()

    def guard(self, run: Callable[[], Operation[None]]) -> Operation[None]:
        """Run one part. A fault of one ends all of them, since they share what it was changing."""
        try:
            yield from run()
        except BaseException:
            self.stop()
            raise

    def watch(self, parts: Sequence[Operation[None]]) -> Operation[None]:
        """End all parts if one has ended before them, which `guard` can have missed."""
        while not self.stop_flag.is_set:
            seen = self._stopped.count
            if any(getgeneratorstate(part) == GEN_CLOSED for part in parts):
                self.stop()
            yield from self._stopped.wait(seen, _WATCH_SECONDS)

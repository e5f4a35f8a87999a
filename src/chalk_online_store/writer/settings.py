"""How a persistence writer behaves."""

from __future__ import annotations

import logging
import traceback
from dataclasses import dataclass
from typing import Literal, get_args

from chalk_online_store.arguments import (
    MAX_TIMEOUT_SECONDS,
    check_choice,
    finite_number,
    whole_number,
)
from chalk_online_store.errors import InvalidValue
from chalk_online_store.logs import event
from chalk_online_store.operations.write import Ordering, check_ordering
from chalk_online_store.schema import Duration, seconds

WhenFull = Literal["block", "shed_oldest", "raise"]


@dataclass(frozen=True, slots=True)
class Writing:
    """The settings of a persistence writer; raises `InvalidValue` for what cannot be meant.

    `ordering` is as for `OnlineStore.write`: by "event" time, or "arrival" for bulk loads.

    At most `max_rows` rows, of about `max_bytes` in memory, are under way. `when_full` says what
    becomes of one more: "block" lets `submit` wait, for `block_timeout` at most; "raise" refuses
    it by `QueueFull`; "shed_oldest" gives the oldest rows that wait to the dead letters. Rows
    wait at most `max_batch_age` for others to be encoded, and sent, together.

    `wcu_per_second` bounds what is written, all together; without, throttles do. At most
    `max_concurrency` requests are under way, and each batch has `write_timeout` until it is tried
    again; what is refused or throttled is so at once.

    Of a table in several regions, what a region has acknowledged in the last `replay_window` is
    written again where it may be lost with that region; without a spool, at most `replay_bytes`
    of it are kept. AWS: Global Tables usually replicate within a second, without a guarantee.
    """

    ordering: Ordering = "event"
    max_rows: int = 100_000
    max_bytes: int = 256 << 20
    when_full: WhenFull = "block"
    block_timeout: Duration = "30s"
    max_batch_age: Duration = "20ms"
    wcu_per_second: float | None = None
    max_concurrency: int = 32
    write_timeout: Duration = "5s"
    replay_window: Duration = "90s"
    replay_bytes: int = 256 << 20

    def __post_init__(self) -> None:
        check_ordering(self.ordering)
        check_choice(self.when_full, get_args(WhenFull), "Writing(when_full=...)")
        for name in ("max_rows", "max_bytes", "max_concurrency"):
            whole_number(getattr(self, name), f"Writing({name}=...)")
        whole_number(self.replay_bytes, "Writing(replay_bytes=...)", least=0)
        if self.wcu_per_second is not None:
            finite_number(
                self.wcu_per_second,
                "Writing(wcu_per_second=...)",
                least=1,
                remedy="Pass WCU per second, or None for no bound.",
            )
        for name in ("block_timeout", "max_batch_age", "write_timeout", "replay_window"):
            argument = f"Writing({name}=...)"
            found = seconds(getattr(self, name), argument)
            if not 0 < found <= MAX_TIMEOUT_SECONDS:
                raise InvalidValue(f'{argument} is a time above 0, and below 11 days, as in "5s".')


# --- What a writer tells of itself ---------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WriterStats:
    """One writer's account since it was made; `accepted == written + dead + pending`.

    `pending` rows, of about `pending_bytes` in memory, are under way: `queued` of them wait to be
    encoded, the oldest for `oldest_seconds`; the rest is encoded, as `waiting` changes. A row
    that a newer one has made superfluous counts as `written` once that is. `recovered` rows, which
    are among the accepted ones, were left in the spool by an earlier process.

    `batches`, of `changes` to items altogether, took `requests` and `wcu`; `retries` changes had
    to be sent again. `throttles` are answers that asked for a slower pace, and `superseded`
    changes came later than newer values. `requests_under_way` are at most `concurrency` now, and
    the pace is `wcu_per_second`, infinite where nothing bounds it.

    `replayed` changes were written again after a failover, and `replay_bytes` are kept in memory
    for that; regions that were lost are owed `replay_owed` parcels when they return. `shortened`
    parcels were let go of too early, for want of room. `undelivered` dead letters could not be
    delivered. Of the spool there are `spool_records` of `spool_bytes`; `spool_damaged` are lost.
    """

    accepted: int
    written: int
    dead: int
    pending: int
    pending_bytes: int
    queued: int
    waiting: int
    oldest_seconds: float
    recovered: int
    batches: int
    changes: int
    superseded: int
    requests: int
    requests_under_way: int
    retries: int
    throttles: int
    wcu: float
    concurrency: int
    wcu_per_second: float
    replayed: int
    replay_bytes: int
    replay_owed: int
    shortened: int
    undelivered: int
    spool_records: int
    spool_bytes: int
    spool_damaged: int


# --- What writers log: never a key or a value ----------------------------------------------


LOG = logging.getLogger("chalk_online_store.writer")


def log_mistake(what: str, error: BaseException) -> None:
    """An exception that nothing here should raise: where it came from, not what it says."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    said = event("mistake", error=error)
    LOG.error("%s: %s\n%s", what, type(error).__name__, frames, extra=said)

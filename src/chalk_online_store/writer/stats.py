"""What a writer tells of itself."""

from __future__ import annotations

from dataclasses import dataclass


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

"""What is read and written: one schema, 100 rows of it, four calls."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from chalk_online_store import Feature, Namespace, Vector

TABLE = "features"
REGION = "us-east-1"
STALENESS = timedelta(days=30)
OBSERVED_AT = datetime.now(UTC)
"""When every value was true: recent, so that none is stale."""

_VECTOR: Any = Vector  # Type checkers take no subscript of it outside of annotations.

KINDS: dict[str, Any] = {
    "amount_mean_7d": float,
    "amount_mean_30d": float,
    "amount_stddev_30d": float,
    "amount_max_90d": float,
    "balance_ratio": float,
    "chargeback_rate": float,
    "device_risk": float,
    "fraud_score": float,
    "txn_count_1h": int,
    "txn_count_7d": int,
    "txn_count_30d": int,
    "failed_logins_24h": int,
    "account_age_days": int,
    "country": str,
    "email_domain": str,
    "segment": str,
    "is_verified": bool,
    "has_premium": bool,
    "last_seen": datetime,
    "embedding": _VECTOR[32, "f4"],
}
"""Each feature's type: 8 floats, 5 ints, 3 strs, 2 bools, a datetime, a vector of 32 floats."""

USER = Namespace(
    "user",
    int,
    tuple(Feature(name, kind, max_staleness=STALENESS) for name, kind in KINDS.items()),
)


@dataclass(frozen=True)
class Call:
    """One kind of call that every client makes: reads or writes the first `entities` rows."""

    title: str
    entities: int


READ_MANY = Call("read 100 x 20", 100)
READ_ONE = Call("read 1 x 20", 1)
WRITE = Call("write 25 x 20, last arrival wins", 25)
UPDATE = Call("write 25 x 20, newest observed-at wins", 25)
CALLS = (READ_MANY, READ_ONE, WRITE, UPDATE)


def make_rows(seed: int = 20) -> list[dict[str, Any]]:
    """As many rows as the largest call needs, with the primary keys 0, 1, 2 and so on."""
    rng = random.Random(seed)
    return [{"id": number} | _values(rng) for number in range(READ_MANY.entities)]


def _values(rng: random.Random) -> dict[str, Any]:
    return {name: value_of(rng, kind, name) for name, kind in KINDS.items()}


def value_of(rng: random.Random, kind: Any, name: str) -> Any:
    """A value of a feature."""
    if kind is float:  # Half of them measured, with 17 digits, half rounded, as money is.
        measured = rng.lognormvariate(0, 2)
        return round(measured, 2) if "amount" in name else measured
    if kind is int:
        return rng.randrange(10 ** rng.randrange(1, 6))
    if kind is str:
        return "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randrange(2, 16)))
    if kind is bool:
        return rng.random() < 0.5
    if kind is datetime:
        return OBSERVED_AT - timedelta(microseconds=rng.randrange(10**12))
    return np.array([rng.gauss(0, 1) for _ in range(kind.size)], kind.dtype)


ROWS = make_rows()


def columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """The features of rows, column by column: what every client's read must come to."""
    return {name: [row[name] for row in rows] for name in KINDS}

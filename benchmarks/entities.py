"""Entities of 20, 100 and 500 features: one mix, once, five and 25 times.

The mix is that of `data.KINDS`, under names of 16 characters on average.
"""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

from benchmarks.data import value_of
from chalk_online_store import Feature, Namespace, Vector

COUNTS = (20, 100, 500)
ENTITIES = 100
SEED = 20
STALENESS = timedelta(days=30)
OBSERVED = datetime(2026, 1, 2, 3, 4, 5, 123_457, UTC)
"""When every value was true: not today, so that bytes are the same each time."""

_VECTOR: Any = Vector  # Type checkers take no subscript of it outside of annotations.
_MIX: dict[str, Any] = {
    "txn_amount_mean_7d": float,
    "txn_amount_mean_30d": float,
    "txn_amount_stddev_30d": float,
    "txn_amount_max_90d": float,
    "balance_to_limit_ratio": float,
    "chargeback_rate_90d": float,
    "device_risk_score": float,
    "fraud_score": float,
    "txn_count_1h": int,
    "txn_count_7d": int,
    "txn_count_30d": int,
    "failed_logins_24h": int,
    "account_age_days": int,
    "billing_country": str,
    "email_domain": str,
    "customer_segment": str,
    "is_email_verified": bool,
    "has_premium_plan": bool,
    "last_seen_at": datetime,
    "merchant_embedding": _VECTOR[32, "f4"],
}
_SUBJECTS = ("", "_device", "_merchant", "_card", "_address")
_CHANNELS = ("", "_web", "_app", "_store", "_phone")


def kinds(count: int) -> dict[str, Any]:
    """So many features by name: `fraud_score`, `fraud_score_device`, `fraud_score_card_web`."""
    suffixes = [subject + channel for channel in _CHANNELS for subject in _SUBJECTS]
    some = suffixes[: count // len(_MIX)]
    return {name + suffix: kind for suffix in some for name, kind in _MIX.items()}


def namespace(count: int) -> Namespace:
    """A namespace with all of these features in one group."""
    declared = (Feature(name, kind, max_staleness=STALENESS) for name, kind in kinds(count).items())
    return Namespace("user", int, tuple(declared))


def entities(count: int) -> list[dict[str, Any]]:
    """Rows of so many features, with keys of eight digits: the same ones each time."""
    rng = random.Random(SEED)
    wanted = kinds(count).items()
    return [
        {"id": rng.randrange(10**7, 10**8)}
        | {name: _value(rng, kind, name) for name, kind in wanted}
        for _ in range(ENTITIES)
    ]


def _value(rng: random.Random, kind: Any, name: str) -> Any:
    if kind is datetime:
        return OBSERVED - timedelta(microseconds=rng.randrange(10**12))
    return value_of(rng, kind, name)

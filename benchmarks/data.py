"""What is read and written: rows of any number of features, the same in every process.

Imports nothing of the store, so that rivals run without it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias

import numpy as np

Row: TypeAlias = dict[str, Any]

ROWS = 100
"""How many rows there are; a key beyond them is answered with one of these."""
OBSERVED_AT = datetime(2026, 1, 2, 3, 4, 5, 123_457, UTC)
"""When every value was true."""
STALENESS = timedelta(days=36_500)
"""So long that no value is ever stale; the store checks each all the same."""


class Floats(NamedTuple):
    """The kind of a vector: so many numbers of a numpy dtype."""

    size: int
    dtype: str


MIX: dict[str, Any] = {
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
    "embedding": Floats(32, "f4"),
}
"""Each feature's type: 8 floats, 5 ints, 3 strs, 2 bools, a datetime, a vector of 32 floats."""


@dataclass(frozen=True)
class Dataset:
    """Rows with so many features: the mix again and again, or evenly picked from it."""

    features: int

    @cached_property
    def kinds(self) -> dict[str, Any]:
        """Each feature's type."""
        if self.features < len(MIX):
            places = [number * len(MIX) // self.features for number in range(self.features)]
            names = list(MIX)
            return {names[place]: MIX[names[place]] for place in places}
        rounds = range(self.features // len(MIX))
        return {_numbered(name, n): kind for n in rounds for name, kind in MIX.items()}

    @cached_property
    def rows(self) -> list[Row]:
        """`ROWS` rows with the primary keys 0, 1, 2 and so on."""
        rng = random.Random(20)
        return [{"id": number} | self._values(rng) for number in range(ROWS)]

    def _values(self, rng: random.Random) -> Row:
        return {name: value_of(rng, kind, name) for name, kind in self.kinds.items()}


def _numbered(name: str, number: int) -> str:
    return f"{name}_{number}" if number else name


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

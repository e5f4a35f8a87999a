"""What caches and Bloom filters save and cost, and the libraries beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.caching import bloom_libraries, lru_libraries, paths, rcu, window
from benchmarks.worker import versions_of

PACKAGES = (
    "cachebox",
    "cachetools",
    "fastbloom_rs",
    "numpy",
    "pybloom_live",
    "rbloom",
    "xxhash",
)


def run(
    rounds: int = 15,
    seed: int = 0,
    *,
    entities: int = 20_000,
    batches: int = 1_000,
    keys: int = 1_000_000,
    refreshes: Sequence[float] = window.REFRESHES,
) -> list[dict[str, Any]]:
    """The lines of every table; `keys` is how many a Bloom filter by itself has."""
    return [
        *_of("rcu", rcu.run(entities, batches, seed)),
        *_of("paths", paths.run(rounds, seed, keys)),
        *_of("bloom", bloom_libraries.run(rounds, seed, keys)),
        *_of("lru", lru_libraries.run(rounds, seed)),
        *_of("window", window.run(refreshes)),
    ]


def versions() -> dict[str, str]:
    """The libraries that took part."""
    return dict(versions_of(PACKAGES))


def _of(table: str, lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"table": table} | line for line in lines]

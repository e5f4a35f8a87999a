"""Samples to a table: medians, and ratios to the store's own clients round by round."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from typing import NamedTuple

from benchmarks.measure import Sampled
from benchmarks.stores import AsyncStore, Store
from benchmarks.table import as_table

OURS = (Store.name, AsyncStore.name)
PACKAGES = ("chalk-online-store", "boto3", "botocore", "httptools", "msgspec", "numpy")


class Quartiles(NamedTuple):
    """The middle half of what the rounds gave."""

    low: float
    median: float
    high: float


class Line(NamedTuple):
    """One client at one call: its time, and how many times that of each of ours it is."""

    call: str
    client: str
    microseconds: float
    ratios: dict[str, Quartiles]


def lines(samples: Sequence[Sampled]) -> list[Line]:
    """A line per sampled client and call, in the order given."""
    by_name = {(sampled.call, sampled.client): sampled.microseconds for sampled in samples}
    return [
        Line(
            call,
            client,
            statistics.median(times),
            {ours: quartiles(times, by_name[call, ours]) for ours in OURS},
        )
        for call, client, times in samples
    ]


def quartiles(times: Sequence[float], ours: Sequence[float]) -> Quartiles:
    """Of the ratios of two clients' times in the same round."""
    ratios = [theirs / own for theirs, own in zip(times, ours, strict=True)]
    if len(ratios) == 1:
        return Quartiles(*ratios * 3)
    return Quartiles(*statistics.quantiles(ratios, n=4, method="inclusive"))


def as_text(results: Iterable[Line]) -> str:
    """The lines as a Markdown table that can be read as it stands."""
    head = ["call", "client", "CPU us", *(f"x {ours}" for ours in OURS)]
    body = [
        [line.call, line.client, f"{line.microseconds:,.0f}"]
        + [as_cell(line.ratios[ours], line.client == ours) for ours in OURS]
        for line in results
    ]
    return as_table(head, body, texts=2)


def as_cell(ratio: Quartiles, itself: bool) -> str:
    return "1" if itself else f"{ratio.median:.2f} ({ratio.low:.2f}-{ratio.high:.2f})"


def setting() -> str:
    """What ran, in one line."""
    names = [f"{name} {version(name)}" for name in PACKAGES]
    return f"Python {platform.python_version()} on {platform.machine()}: {', '.join(names)}"

"""What one look at all regions found, as tables and as plain data."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from chalk_online_store.cli.stores import OpenedStore, opened_store
from chalk_online_store.drivers.steps import read_clocks
from chalk_online_store.errors import InvalidURL
from chalk_online_store.operations.regions import Health, MeasuredLag, RegionKeeper
from chalk_online_store.routing.router import RegionStatus, Router
from chalk_online_store.routing.settings import Routing

_LOOKS = 3
"""A region that does not answer is read so many times, until its router calls it down."""

_TIMEOUT = 2.0
"""Seconds that a region has to answer in."""


@dataclass(frozen=True, slots=True)
class Regions:
    """The regions of a store."""

    store: OpenedStore
    router: Router
    keeper: RegionKeeper


@contextmanager
def opened(url: str) -> Iterator[Regions]:
    """Open the regions of a URL; raises `InvalidURL` where it can have none."""
    with opened_store(url, Routing()) as store:
        if store.router is None:
            raise InvalidURL(
                "Regions are those of a URL such as dynamodb:///TABLE?region=A,B, or "
                "valkey://primary:6379,replica:6379/0."
            )
        yield Regions(store, store.router, RegionKeeper(store.backend, store.router))


@dataclass(frozen=True, slots=True)
class Lag:
    """The replication from one region to another, and what is known of it; seconds or None."""

    source: str
    target: str
    measured: float | None
    behind: float | None
    note: str

    @property
    def text(self) -> str:
        """For people."""
        if self.measured is not None:
            return f"{self.measured:.2f} s"
        known = "" if self.behind is None else f"about {self.behind:.1f} s behind"
        return ", ".join(filter(None, (self.note, known))) or "no heartbeat there"


@dataclass(frozen=True, slots=True)
class RegionSurvey:
    """Every region just now, and how far replication is; `beat` says whether that was measured."""

    health: Health
    status: Sequence[RegionStatus]
    lag: Sequence[Lag]
    beat: bool

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        checks = {check.name: check for check in self.health.regions}
        return {
            "ok": self.health.ok,
            "preferred_ok": self.health.preferred_ok,
            "regions": [
                {
                    "name": each.name,
                    "ok": checks[each.name].ok,
                    "seconds": checks[each.name].seconds,
                    "state": each.state,
                    "reason": checks[each.name].reason or each.reason,
                    "for_seconds": None if math.isinf(each.for_seconds) else each.for_seconds,
                    "reads": each.reads,
                    "writes": each.writes,
                    "orders": each.orders,
                    "not_replicated_from": list(each.not_replicated_from),
                }
                for each in self.status
            ],
            "lag": [asdict(lag) for lag in self.lag],
        }

    def tables(self) -> list[tuple[Sequence[str], list[list[str]]]]:
        """The heads and the rows of two tables: the regions, and the replication."""
        head = ("region", "state", "for", "answered in", "reads", "writes", "orders", "reason")
        rows = [self._row(region) for region in self.plain()["regions"]]
        how = "measured just now, one item" if self.beat else "by the last heartbeats"
        lags = [[lag.source, lag.target, lag.text] for lag in self.lag]
        return [(head, rows), (("from", "to", how), lags)]

    def _row(self, region: dict[str, Any]) -> list[str]:
        passed = region["for_seconds"]
        return [
            region["name"],
            region["state"],
            "-" if passed is None else f"{passed:.0f} s",
            f"{region['seconds'] * 1000:.1f} ms" if region["ok"] else "no answer",
            "yes" if region["reads"] else "",
            "yes" if region["writes"] else "",
            region["orders"],
            region["reason"],
        ]


def survey(regions: Regions, beat: bool, within: float) -> RegionSurvey:
    """Read every region, and measure the replication for at most `within` seconds."""
    health = _health(regions)
    answering = [check.name for check in health.regions if check.ok]
    measured = regions.store.run(regions.keeper.measure_lag(answering, within)) if beat else []
    found = {(lag.source, lag.target): lag for lag in measured}
    status = regions.router.status(read_clocks())
    lags = []
    for target in status:
        for source, behind in target.behind.items():
            lag = found.get((source, target.name))
            note = _note(lag, within) if beat else ""
            lags.append(Lag(source, target.name, lag.seconds if lag else None, behind, note))
    return RegionSurvey(health, status, lags, beat)


def _note(lag: MeasuredLag | None, within: float) -> str:
    """Why there is no figure."""
    if lag is None:
        return "not measured: no answer"
    if lag.seconds is not None:
        return ""
    return f"not measured: {lag.reason}" if lag.reason else f"not within {within:g} s"


def _health(regions: Regions) -> Health:
    health = regions.router.health
    for _ in range(_LOOKS):
        found = regions.store.run(regions.keeper.health(regions.store.call(_TIMEOUT)))
        if all(check.ok or not health[check.name].well for check in found.regions):
            break
    return found

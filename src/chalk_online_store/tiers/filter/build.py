"""Building Bloom filters from what is in the table, beside writers and readers.

See `tiers.filter.keeper` for why no entity is lost between the Scan and the log.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import msgspec
import numpy as np

from chalk_online_store.backend import Backend, Call
from chalk_online_store.codec.changes import ConditionalWrite, key_of
from chalk_online_store.codec.registry import filter_mark
from chalk_online_store.effects import NOW, All, Instant, Operation, Sleep
from chalk_online_store.errors import DamagedItem, WriteConflict
from chalk_online_store.report import Report
from chalk_online_store.schema import Namespace
from chalk_online_store.tiers.filter.bloom import Hashes, KeyFilter, Size, different, hash_keys
from chalk_online_store.tiers.filter.keeper import SETTLE_SECONDS
from chalk_online_store.tiers.filter.log import Control, FilterLog, Followed
from chalk_online_store.tiers.filter.segments import (
    Building,
    Head,
    LayerInfo,
    Segment,
    numbered,
    reaches,
    seal_struct,
)
from chalk_online_store.tiers.filter.snapshots import replace_snapshot

REPLICA_SECONDS = 10.0
"""How far an eventually consistent Scan may be behind, at most: it is waited for as well."""

REPLICATION_SECONDS = 60.0
"""How far a region may be behind another, at most, where there are several."""

_ROOM = 10
"""For each so many entities that were found a filter has room for one more, at least."""

_STEP_SECONDS = 60.0
_FOLLOW_SECONDS = 60.0
_TRY_AGAIN_SECONDS = 1.0
_PAGE_ITEMS = 20_000

_NOT_WHOLE = "The log of a Bloom filter is not whole any more: build the filter once more."

Progress = Callable[[int, float], None]
"""Told after each page how many items were scanned so far, and the RCU that they took."""


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What a build found and took; `bytes` are those of all filters, `seconds` include the wait."""

    entities: dict[str, int]
    bytes: int
    items_scanned: int
    rcu: float
    wcu: float
    seconds: float


@dataclass
class _Gathered(Followed):
    """The entities of one namespace, from the Scan and from the log."""

    hashes: list[Hashes] = field(default_factory=list)

    def learn(self, stream: str, number: int, segment: Segment) -> None:
        """Add what a segment announces."""
        self.hashes.append(segment.hashes)


class _Build:
    """One namespace's filter on its way."""

    def __init__(self, log: FilterLog, namespace: Namespace) -> None:
        config = namespace.online_store_config.bloom_filter
        assert config is not None  # Whoever builds it has checked that.
        self.config = config
        self._log = log
        self._mark = filter_mark(namespace.name, log.layout)
        self._id = ""
        self.gathered = _Gathered(0, None, {})
        self.bytes = 0

    def announce(self, marked: bool, call: Call) -> Operation[None]:
        """Say in the head that a build has begun; `marked` says whether the registry knows."""
        while True:
            self._id = secrets.token_hex(8)  # Another one: it could have been put unnoticed.
            now: Instant = yield NOW
            control = yield from self._log.control(call)
            positions = {}
            for stream in control.streams:
                positions[stream] = yield from self._end_of(stream, control, call)
            building = Building(self._id, positions)
            head = control.head or Head(now.wall // 1_000_000, (), (), {}, {}, {}, now.wall, 1)
            head = msgspec.structs.replace(
                head, building=building, partitions=self.config.partitions
            )
            item = seal_struct(self._log.layout, self._log.places.head(), head)
            swaps = [ConditionalWrite(control.item, item)] + (
                [] if marked else [ConditionalWrite(None, self._mark)]
            )
            if (yield from self._log.backend.transact(swaps, call)):
                self.gathered.positions = positions
                return
            yield Sleep(_TRY_AGAIN_SECONDS)

    def _end_of(self, stream: str, control: Control, call: Call) -> Operation[int]:
        floor = control.head.floors.get(stream, 0) if control.head else 0
        items = yield from self._log.backend.list_partition(
            self._log.places.log(stream), numbered(floor), call
        )
        return int(key_of(self._log.layout, items[-1]).sk) if items else floor

    def follow(self, call: Call) -> Operation[None]:
        """Gather what was announced meanwhile."""
        control = yield from self._log.control(call)
        head = control.head
        if head is None or not self._is_under_way(head):
            raise WriteConflict("Another build of this Bloom filter has begun: leave it to that.")
        if not reaches(self.gathered.positions, head.floors):
            raise DamagedItem(_NOT_WHOLE)  # This process stood still for many minutes.
        for stream in control.streams:
            whole = yield from self._log.follow(stream, self.gathered, call)
            if not whole or self.gathered.damaged:
                raise DamagedItem(_NOT_WHOLE)

    def _is_under_way(self, head: Head) -> bool:
        """Whether the head still says that this build is."""
        return head.building is not None and head.building.id == self._id

    def finish(self) -> Operation[Report]:
        """Put the new filter in the place of the old one."""
        while True:
            now: Instant = yield NOW
            call = Call(now.monotonic + _STEP_SECONDS, region=self._log.backend.home)
            yield from self.follow(call)
            known = self._filter()
            revise = partial(self._revise, known.sizes, dict(self.gathered.positions))
            if (yield from replace_snapshot(self._log, known.layers, revise, call)):
                return call.report
            yield Sleep(_TRY_AGAIN_SECONDS)

    def _filter(self) -> KeyFilter:
        hashes = different(np.concatenate([np.empty(0, "<u8"), *self.gathered.hashes]))
        self.gathered.hashes = [hashes]
        room = max(self.config.expected_entities, len(hashes) + len(hashes) // _ROOM)
        known = KeyFilter.sized(room, self.config.target_false_positive_rate)
        known.add(hashes)
        self.bytes = known.nbytes
        return known

    def _revise(
        self,
        sizes: tuple[Size, ...],
        positions: dict[str, int],
        head: Head,
        layers: tuple[LayerInfo, ...],
        now: int,
    ) -> Head | None:
        if not self._is_under_way(head) or not reaches(positions, head.floors):
            return None
        return msgspec.structs.replace(
            head,
            generation=head.generation + 1,
            sizes=sizes,
            layers=layers,
            positions=positions,
            building=None,
        )


class _Scan:
    """A parallel Scan of a table for keys, within a rate."""

    def __init__(
        self,
        backend: Backend,
        builds: Mapping[str, _Build],
        segments: int,
        rcu_per_second: float | None,
        progress: Progress,
    ) -> None:
        self._backend = backend
        self._builds = builds
        self._segments = segments
        self._rate = None if rcu_per_second is None else rcu_per_second / segments
        self._progress = progress
        self.items = 0
        self.rcu = 0.0

    def run(self) -> Operation[None]:
        """Scan it all."""
        yield All([self._scan(number) for number in range(self._segments)], self._segments)

    def _scan(self, segment: int) -> Operation[None]:
        start, limit, followed_at = b"", _PAGE_ITEMS if self._rate is None else 100, 0.0
        while True:
            now: Instant = yield NOW
            call = Call(now.monotonic + _STEP_SECONDS, region=self._backend.home)
            if segment == 0 and now.monotonic - followed_at > _FOLLOW_SECONDS:
                followed_at = now.monotonic  # Long before what was announced leaves the log.
                for build in self._builds.values():
                    yield from build.follow(call)
            page = yield from self._backend.scan_keys(segment, self._segments, start, limit, call)
            self._take(page.pks, page.units)
            if not page.next:
                return
            start = page.next
            if self._rate is not None:
                limit = yield from self._pace(limit, page.units, now.monotonic)

    def _take(self, pks: Sequence[str], units: float) -> None:
        by_prefix: dict[str, dict[str, None]] = {}
        for pk in pks:  # The items of an entity lie together.
            by_prefix.setdefault(pk.partition(":")[0], {})[pk] = None
        for prefix, some in by_prefix.items():
            if prefix in self._builds:
                self._builds[prefix].gathered.hashes.append(hash_keys(list(some)))
        self.items += len(pks)
        self.rcu += units
        self._progress(self.items, self.rcu)

    def _pace(self, limit: int, units: float, began: float) -> Operation[int]:
        """Wait until the rate allows for what a page took; the size of the next one."""
        assert self._rate is not None
        now: Instant = yield NOW
        yield Sleep(max(0.0, units / self._rate - (now.monotonic - began)))
        return max(1, min(_PAGE_ITEMS, round(limit * self._rate / max(units, 0.5))))


def build_filters(
    backend: Backend,
    namespaces: Mapping[str, tuple[Namespace, bool]],
    *,
    wait: float,
    segments: int,
    rcu_per_second: float | None,
    progress: Progress,
) -> Operation[BuildReport]:
    """Build the filters of namespaces, by their ids, with one Scan of the table.

    With each namespace comes whether the registry has its mark. `wait` is in seconds. Raises
    `WriteConflict` where another build begins meanwhile, `DamagedItem` where the log was damaged
    meanwhile, and `RequestError`.
    """
    began: Instant = yield NOW
    builds = {
        namespace_id: _Build(FilterLog(backend, namespace_id), namespace)
        for namespace_id, (namespace, _) in namespaces.items()
    }
    report = Report()
    for namespace_id, build in builds.items():
        call = Call(began.monotonic + _STEP_SECONDS, report=report, region=backend.home)
        yield from build.announce(namespaces[namespace_id][1], call)
    yield Sleep(wait)
    scan = _Scan(backend, builds, segments, rcu_per_second, progress)
    yield from scan.run()
    for build in builds.values():
        report.add((yield from build.finish()))
    ended: Instant = yield NOW
    return BuildReport(
        entities={
            namespace.name: len(builds[namespace_id].gathered.hashes[0])
            for namespace_id, (namespace, _) in namespaces.items()
        },
        bytes=sum(build.bytes for build in builds.values()),
        items_scanned=scan.items,
        rcu=report.rcu + scan.rcu,
        wcu=report.wcu,
        seconds=ended.monotonic - began.monotonic,
    )


DEFAULT_WAIT = SETTLE_SECONDS + REPLICA_SECONDS
"""Seconds after which every writer knows of a build."""


def wait_of(regions: int) -> float:
    """Seconds after which every writer knows of a build, in any of so many regions."""
    return DEFAULT_WAIT + (REPLICATION_SECONDS if regions > 1 else 0.0)

"""Writing and deleting features: encode all, check all, then send."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

import msgspec

from chalk_online_store.arguments import check_choice
from chalk_online_store.backend import Backend, Call, Outcome, WriteOutcome
from chalk_online_store.codec.changes import Change, render_fresh
from chalk_online_store.codec.layout import ItemKey, TableLayout
from chalk_online_store.codec.namespaces import GroupCodec, NamespaceCodec, Planned
from chalk_online_store.codec.results import RESULTS, expiring
from chalk_online_store.codec.sizes import MAX_ITEM_BYTES, item_size
from chalk_online_store.effects import NOW, Instant, Operation
from chalk_online_store.errors import ItemTooLarge, OnlineStoreError, WriteFailed, write_advice
from chalk_online_store.operations.times import future_timestamp
from chalk_online_store.report import Report
from chalk_online_store.tiers.coalescing import Coalescer
from chalk_online_store.tiers.lru import InFlightWrite, ItemCache, Key, Read

Ordering = Literal["event", "arrival"]
"""Whether the newest observed-at wins, or whatever arrives last."""

_SURELY_FITS = MAX_ITEM_BYTES // 2
"""Bytes of JSON, which is longer than what DynamoDB counts: most items need no closer look."""

TOMBSTONE_SECONDS = 7 * 86_400
"""How long a deleted entity is remembered, so that late older writes do not bring it back."""


def changes_of_rows(
    codec: NamespaceCodec, rows: Sequence[Mapping[str, Any]], observed_at: Sequence[int]
) -> list[Planned]:
    """Encode every row. Raises for the first bad one, naming its position, with nothing sent."""
    try:
        planned = codec.changes_of_rows(rows, observed_at)
        if codec.namespace is RESULTS:
            planned = expiring(planned, rows)
        for _, change in planned:
            if len(b"".join(change.attributes)) >= _SURELY_FITS:
                _check_size(codec.layout, change)
    except Exception:  # noqa: BLE001 - row by row it is the same, or the error of one row.
        planned, refused = row_by_row(codec, rows, observed_at, stop=True)
        for position, error in refused.items():
            error.add_note(f"In the row at position {position}; nothing was written.")
            raise error from None
    return planned


def row_by_row(
    codec: NamespaceCodec,
    rows: Sequence[Mapping[str, Any]],
    observed_at: Sequence[int],
    stop: bool = False,
    latest: int | None = None,
) -> tuple[list[Planned], dict[int, OnlineStoreError]]:
    """What the good rows change, and why each bad one is refused; `stop` at the first of these.

    `latest` is the newest observed-at that a row may have (UTC us); None for any.
    """
    planned: list[Planned] = []
    refused: dict[int, OnlineStoreError] = {}
    for position, row in enumerate(rows):
        try:
            if latest is not None and observed_at[position] > latest:
                raise future_timestamp("this row")
            changes = codec.changes(row, observed_at[position])
            for change in changes:
                _check_size(codec.layout, change)
        except OnlineStoreError as error:
            refused[position] = error
            if stop:
                break
        else:
            planned += [(position, change) for change in changes]
    if codec.namespace is RESULTS:
        planned = expiring(planned, rows)
    return planned, refused


def expiring_by(planned: Sequence[Planned], expires_at: int) -> list[Planned]:
    """The same changes, the items of which expire at `expires_at` (UTC s) at the latest."""
    return [
        (position, msgspec.structs.replace(change, expires_at=_earlier(change, expires_at)))
        for position, change in planned
    ]


def _earlier(change: Change, expires_at: int) -> int:
    return expires_at if change.expires_at is None else min(change.expires_at, expires_at)


def _check_size(layout: TableLayout, change: Change) -> None:
    size = item_size(msgspec.json.decode(render_fresh(layout, change)))
    if size > MAX_ITEM_BYTES:
        raise ItemTooLarge(
            f"An item of {size:,} bytes: DynamoDB takes {MAX_ITEM_BYTES:,} at most. "
            "Put large features into a group of their own."
        )


def changes_of_deletes(
    codec: NamespaceCodec, keys: Sequence[Any], names: Sequence[str] | None, now: int, wall: int
) -> list[Planned]:
    """Remove some features of each key, or all of it. `now` and `wall` in UTC microseconds.

    All of it are the groups that the registry has: the schema may lack some of them.
    """
    pks = enumerate(codec.partition_keys(keys))
    if names is not None:
        codec.check_features(names)
        groups = codec.groups.values()
        removals = [(i, _remove(group, pk, names, now)) for i, pk in pks for group in groups]
        return [(position, change) for position, change in removals if change is not None]
    expires_at = max(now, wall) // 1_000_000 + TOMBSTONE_SECONDS
    stored = list(codec.registry.groups_of(codec.namespace.name))
    return [
        (position, Change.of(ItemKey(pk, sk), now, {}, True, width, expires_at))
        for position, pk in pks
        for sk, width in stored
    ]


def _remove(group: GroupCodec, pk: str, names: Sequence[str], now: int) -> Change | None:
    ids = [c.id for c in group.columns if c.feature.name in names]
    return group.change_of(pk, dict.fromkeys(ids), now) if ids else None


def write(
    backend: Backend,
    cache: ItemCache | None,
    codec: NamespaceCodec,
    planned: Sequence[Planned],
    ordering: Ordering,
    call: Call,
    coalescer: Coalescer | None = None,
    superseded: set[int] | None = None,
) -> Operation[None]:
    """Send planned changes; those of one item one after the other, in the order given.

    Adds the positions of changes that newer values have superseded to `superseded`. Raises
    `WriteFailed` where some could not be written before the deadline.
    """
    apply = backend.change if ordering == "event" else backend.replace
    failed: dict[int, OnlineStoreError] = {}
    for wave in _batches_without_conflict(planned):
        changes = [change for _, change in wave]
        now: Instant = yield NOW
        outcomes: list[Outcome] = []
        writing = InFlightWrite(change.key for change in changes)
        with writing.owner:
            try:
                if cache is not None:
                    cache.write_begins(writing)
                outcomes = yield from apply(changes, call)
            finally:  # If the call was cut off, the state of these items is not known.
                if coalescer is not None:  # Before the cache: it could keep a row from before.
                    coalescer.written(writing.keys)
                if cache is not None:
                    whole = _left_whole(changes, outcomes)
                    cache.written(writing, dict(_reads_of(codec, whole)), now.monotonic)
        failed |= _count(wave, outcomes, call.report)
        if superseded is not None and WriteOutcome.SUPERSEDED in outcomes:
            superseded.update(
                position
                for (position, _), outcome in zip(wave, outcomes, strict=True)
                if outcome is WriteOutcome.SUPERSEDED
            )
    if failed:
        call.report.failed += len(failed)
        example = next(iter(failed.values()))
        raise WriteFailed(
            f"{len(failed)} rows of {codec.namespace.name!r} were not written: {example} "
            f"{write_advice(failed.values())}",
            failed,
            call.report,
        ) from example


def _batches_without_conflict(planned: Sequence[Planned]) -> list[list[Planned]]:
    """The n-th change of each item goes into the n-th wave: no batch names an item twice."""
    if len({change.key for _, change in planned}) == len(planned):
        return [list(planned)]
    waves: list[list[Planned]] = []
    seen: dict[ItemKey, int] = {}
    for item in planned:
        key = item[1].key
        turn = seen.get(key, 0)
        seen[key] = turn + 1
        if turn == len(waves):
            waves.append([])
        waves[turn].append(item)
    return waves


def _count(
    wave: Sequence[Planned], outcomes: Sequence[Outcome], report: Report
) -> dict[int, OnlineStoreError]:
    """What failed, by the position of its row; the rest goes into the report."""
    if outcomes.count(WriteOutcome.APPLIED) == len(wave):
        report.items_written += len(wave)
        return {}
    failures = [
        (position, outcome)
        for (position, _), outcome in zip(wave, outcomes, strict=True)
        if isinstance(outcome, OnlineStoreError)
    ]
    superseded = outcomes.count(WriteOutcome.SUPERSEDED) + outcomes.count(WriteOutcome.LEFT_NEWER)
    report.superseded += superseded
    report.items_written += len(outcomes) - len(failures) - superseded
    return dict(failures)


def _left_whole(changes: Sequence[Change], outcomes: Sequence[Outcome]) -> list[Change]:
    """Changes of which it is known what the item is now."""
    return [
        change
        for change, outcome in zip(changes, outcomes, strict=False)
        if outcome is WriteOutcome.APPLIED and change.form.whole
    ]


def _reads_of(codec: NamespaceCodec, changes: Iterable[Change]) -> Iterable[tuple[Key, Read]]:
    """The items that changes leave, as a read would find them."""
    shapes = {group.sk: group.shape for group in codec.groups.values()}
    for change in changes:
        shape = shapes.get(change.key.sk)
        if shape is None:  # A delete covers groups that the schema does not declare.
            continue
        if change.erases:
            yield change.key, (shape, None)
        else:
            item = render_fresh(codec.layout, change)
            yield change.key, (shape, shape.decode_items([item])[0])


def check_ordering(ordering: str) -> None:
    """Refuse what is no ordering."""
    check_choice(ordering, get_args(Ordering), "ordering")

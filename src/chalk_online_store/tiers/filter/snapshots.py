"""Snapshots of a Bloom filter: how one is put in the place of another, and merges of the log.

Whoever makes a snapshot first puts a claim, so that others leave it to them. The claim lists the
layers that will be written: where a process dies on its way, the next one removes what it left.
The new head is put in one transaction with the removal of the claim, on the condition that both
are as they were; so a process that was taken for dead cannot put its own any more.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import msgspec

from chalk_online_store.backend import Call, fan_out
from chalk_online_store.codec.changes import Attributes, Change, ConditionalWrite
from chalk_online_store.codec.layout import ItemKey
from chalk_online_store.effects import NOW, Instant, Operation
from chalk_online_store.errors import DamagedItem
from chalk_online_store.tiers.filter.bloom import Layer
from chalk_online_store.tiers.filter.keeper import FilterKeeper
from chalk_online_store.tiers.filter.log import FilterLog
from chalk_online_store.tiers.filter.segments import (
    BuildLease,
    FilterItemKind,
    Head,
    LayerInfo,
    chunks_of,
    describe,
    reaches,
    seal,
    seal_struct,
    unseal_struct,
)

RETAIN = 600_000_000
"""For how long segments stay in the log once they are in a snapshot, at least (us)."""

LEAST_LOG_BYTES = 64 * 1024
"""A shorter log is not worth a merge."""

_CLAIM = 120_000_000
"""After how long whoever makes a snapshot is taken for dead (us)."""

_WRITES_AT_ONCE = 4
_DELETES_AT_ONCE = 1000

Revise = Callable[[Head, tuple[LayerInfo, ...], int], "Head | None"]
"""A head, the layers of a new snapshot and the time (UTC us) to the new head; None to give up."""


def replace_snapshot(
    log: FilterLog, layers: Sequence[Layer], revise: Revise, call: Call
) -> Operation[bool]:
    """Put a snapshot of these layers. False where others were faster, or are at it."""
    ids = [secrets.token_hex(4) for _ in layers]
    claim = yield from _claim(log, layers, ids, call)
    if claim is None:
        return False
    now: Instant = yield NOW
    control = yield from log.control(call)
    before = control.head
    contents = [layer.content() for layer in layers]
    infos = tuple(map(partial(_info, before), layers, contents, ids))
    after = revise(before, infos, now.wall) if before else None
    done = False
    if before and after:
        for info, content in zip(infos, contents, strict=True):
            if info.id in ids:
                yield from _write_layer(log, info, content, call)
        item = seal_struct(log.layout, log.places.head(), after)
        swaps = [ConditionalWrite(control.item, item), ConditionalWrite(claim, None)]
        done = yield from log.backend.transact(swaps, call)
        if not done:  # Or it was, and only the answer was lost.
            done = (yield from log.control(call)).head == after
    kept = after if done else before
    yield from _remove_layers(log, (*(before.layers if before else ()), *infos), kept, call)
    if done and before and after:
        yield from _remove_segments(log, before.floors, after.floors, call)
    else:
        yield from log.backend.transact([ConditionalWrite(claim, None)], call)
    return done


def _info(before: Head | None, layer: Layer, content: bytes, layer_id: str) -> LayerInfo:
    """What the new head says of a layer: a full one that is there already stays where it is."""
    if not layer.count:
        return LayerInfo("", 0, 0, b"")
    info = describe(layer, content, layer_id)
    for old in before.layers if before else ():
        if old.id and (old.nbytes, old.digest) == (info.nbytes, info.digest):
            return msgspec.structs.replace(info, id=old.id)
    return info


def _claim(
    log: FilterLog, layers: Sequence[Layer], ids: Sequence[str], call: Call
) -> Operation[Attributes | None]:
    """The claim that was put; None where another one holds."""
    now: Instant = yield NOW
    control = yield from log.control(call)
    other = _read_claim(log, control.claim)
    if other is not None and other.until > now.wall:
        return None
    infos = tuple(
        LayerInfo(layer_id, layer.count, layer.nbytes, b"")
        for layer, layer_id in zip(layers, ids, strict=True)
    )
    claim = BuildLease(secrets.token_hex(4), now.wall + _CLAIM, infos)
    item = seal_struct(log.layout, log.places.claim(), claim)
    if not (yield from log.backend.transact([ConditionalWrite(control.claim, item)], call)):
        return None
    if other is not None:
        head = (yield from log.control(call)).head
        yield from _remove_layers(log, other.layers, head, call)
    return item


def _read_claim(log: FilterLog, item: Attributes | None) -> BuildLease | None:
    try:
        return None if item is None else unseal_struct(item, log.places.claim(), BuildLease)
    except DamagedItem:  # It is as good as expired, with nothing to remove.
        return BuildLease("", 0)


def _write_layer(log: FilterLog, info: LayerInfo, content: bytes, call: Call) -> Operation[None]:
    def write(number: int, chunk: bytes, part: Call) -> Operation[bool]:
        item = seal(log.layout, log.places.chunk(info.id, number), FilterItemKind.CHUNK, chunk)
        return (yield from log.backend.transact([ConditionalWrite(None, item)], part))

    tasks = [partial(write, *numbered) for numbered in enumerate(chunks_of(content))]
    yield from fan_out(call, tasks, _WRITES_AT_ONCE)


def _remove_layers(
    log: FilterLog, layers: Iterable[LayerInfo], head: Head | None, call: Call
) -> Operation[None]:
    """Remove the chunks of layers, but for those that the head has."""
    kept = {info.id for info in head.layers} if head else set()
    gone = [info for info in layers if info.id not in kept]
    keys = [log.places.chunk(info.id, n) for info in gone for n in range(info.chunks)]
    yield from remove(log, keys, call)


def _remove_segments(
    log: FilterLog, before: dict[str, int], after: dict[str, int], call: Call
) -> Operation[None]:
    for stream, floor in after.items():
        numbers = range(before.get(stream, 0) + 1, floor + 1)
        yield from remove(log, [log.places.segment(stream, n) for n in numbers], call)


def remove(log: FilterLog, keys: Sequence[ItemKey], call: Call) -> Operation[None]:
    """Remove items, whether they are there or not."""
    changes = [Change.of(key, 0, {}, True, 0, None) for key in dict.fromkeys(keys)]
    for start in range(0, len(changes), _DELETES_AT_ONCE):
        yield from log.backend.replace(changes[start : start + _DELETES_AT_ONCE], call)


# --- merging -------------------------------------------------------------------------------


def merge_is_due(keeper: FilterKeeper) -> bool:
    """Whether the log has become longer than the snapshot.

    So a byte of the log costs a byte of a snapshot, at most, and whoever loads the filter reads
    about twice its size, at most.
    """
    followed = keeper.followed
    if keeper.merging or followed is None or followed.filter is None or followed.damaged:
        return False
    return followed.log_bytes >= max(LEAST_LOG_BYTES, followed.filter.nbytes)


def merge_apart(keeper: FilterKeeper, timeout: float) -> Operation[None]:
    """Merge within `timeout` seconds, for those who run beside others."""
    try:
        now: Instant = yield NOW
        yield from merge(keeper, Call(now.monotonic + timeout, region=keeper.log.backend.home))
    finally:
        keeper.merging = False


def merge(keeper: FilterKeeper, call: Call) -> Operation[bool]:
    """Make a snapshot of the filter as it is; False where another process does, or did."""
    followed = keeper.followed
    if followed is None or followed.filter is None or followed.damaged:
        return False
    generation, positions = followed.generation, dict(followed.positions)

    def revise(head: Head, layers: tuple[LayerInfo, ...], now: int) -> Head | None:
        if head.generation != generation or not reaches(positions, head.positions):
            return None
        head = msgspec.structs.replace(head, layers=layers, positions=positions)
        if now - head.marked_at < RETAIN:
            return head
        return msgspec.structs.replace(head, floors=head.marks, marks=positions, marked_at=now)

    # The layers have all that the log had at these positions, and perhaps more.
    try:
        done = yield from replace_snapshot(keeper.log, followed.filter.layers, revise, call)
    finally:  # Whatever came of it, it is not tried again at once.
        followed.log_bytes = 0
    return done

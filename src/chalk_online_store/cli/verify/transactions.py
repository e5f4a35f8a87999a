"""Checks of transactions: all of their writes, or none."""

from __future__ import annotations

from collections.abc import Sequence

from chalk_online_store.cli.verify.checks import Check, Units
from chalk_online_store.cli.verify.context import CheckContext
from chalk_online_store.codec.changes import Attributes
from chalk_online_store.codec.layout import ItemKey
from chalk_online_store.codec.swaps import ConditionalWrite


def _transact(context: CheckContext, swaps: Sequence[ConditionalWrite]) -> bool:
    return context.client.run(lambda call: context.client.backend.transact(swaps, call))


def _fresh(context: CheckContext, key: ItemKey, value: str) -> Attributes:
    return context.fresh(context.text(key, value))


def _count(context: CheckContext, keys: Sequence[ItemKey]) -> int:
    return sum(context.client.item(key) is not None for key in keys)


def _check_transaction(context: CheckContext) -> str:
    keys = [context.scratch.key() for _ in range(3)]
    old, *others = (_fresh(context, key, "old") for key in keys)
    done = _transact(context, [ConditionalWrite(None, item) for item in (old, others[0])])
    written = _count(context, keys)
    # The second one exists already.
    refused = not _transact(
        context, [ConditionalWrite(None, others[1]), ConditionalWrite(None, others[0])]
    )
    unchanged = _count(context, keys) == written
    new = _fresh(context, keys[0], "new")
    replaced = _transact(context, [ConditionalWrite(old, new), ConditionalWrite(others[0], None)])
    left = _count(context, keys)
    seen = (
        f"{'done' if done and written == 2 else 'not done'}",
        f"{'refused' if refused else 'not refused'} {'as a whole' if unchanged else 'in part'}",
        f"{'replaced and removed' if replaced and left == 1 else 'neither replaced nor removed'}",
    )
    return ", ".join(seen)


def _check_single(context: CheckContext) -> str:
    """A swap that is alone goes by PutItem and DeleteItem, at half the units."""
    key = context.scratch.key()
    old, new = _fresh(context, key, "old"), _fresh(context, key, "new")
    steps = [
        ConditionalWrite(None, old),
        ConditionalWrite(None, new),
        ConditionalWrite(new, None),
        ConditionalWrite(old, new),
        ConditionalWrite(new, None),
    ]
    done = [_transact(context, [swap]) for swap in steps]
    return ", ".join("done" if each else "refused" for each in done)


TRANSACTION_CHECKS = [
    Check(
        "transactions",
        "done, refused as a whole, replaced and removed",
        _check_transaction,
        Units(12, 15),
    ),
    Check(
        "conditional PutItem and DeleteItem",
        "done, refused, refused, done, done",
        _check_single,
        Units(1, 5),
    ),
]

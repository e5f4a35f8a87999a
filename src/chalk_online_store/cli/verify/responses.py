"""Checks of the headers of all responses of a run, and of latency."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from chalk_online_store.cli.verify.checks import Check, Measured, Units
from chalk_online_store.cli.verify.context import CheckContext, ResponseLog
from chalk_online_store.codec.layout import ItemKey
from chalk_online_store.codec.swaps import ConditionalWrite

_PERCENTILES = (50, 95, 99)
_BATCH = 10


def _check_checksums(context: CheckContext) -> str:
    log = _log(context)
    if log.damaged:
        return "wrong on some responses"
    if log.checksums == log.responses:
        return "on every response, all correct"
    return "on some responses" if log.checksums else "on no response"


def _check_request_ids(context: CheckContext) -> str:
    log = _log(context)
    ids = log.request_ids - {""}
    if "" in log.request_ids:
        return "on no response" if not ids else "on some responses"
    return "on every response, all different" if len(ids) == log.responses else "some twice"


def _log(context: CheckContext) -> ResponseLog:
    """Return the log of the run, after one more request: it is never empty."""
    context.client.item(context.scratch.key())
    return context.client.transport.log


# --- latency -------------------------------------------------------------------------------

_Send = Callable[[CheckContext, list[ItemKey], int], object]
"""Sends request number n. All of the keys have items."""


def _update(context: CheckContext, keys: list[ItemKey], number: int) -> None:
    context.client.apply(context.text(keys[0], at=number + 1))


def _put(context: CheckContext, keys: list[ItemKey], number: int) -> None:
    fresh = context.fresh(context.change(context.scratch.beside(keys[0], f"p{number}"), {}))
    context.client.run(
        lambda call: context.client.backend.transact([ConditionalWrite(None, fresh)], call)
    )


def _transact(context: CheckContext, keys: list[ItemKey], number: int) -> None:
    made = [context.scratch.beside(keys[0], f"{part}{number}") for part in "tu"]
    swaps = [ConditionalWrite(None, context.fresh(context.change(key, {}))) for key in made]
    context.client.run(lambda call: context.client.backend.transact(swaps, call))


_SENDS: dict[str, _Send] = {
    "GetItem": lambda c, keys, n: c.client.read(keys[:1], consistent=False),
    "BatchGetItem": lambda c, keys, n: c.client.read(keys, consistent=False),
    "Query": lambda c, keys, n: c.client.query(keys[1].pk),
    "UpdateItem": _update,
    "PutItem": _put,
    "BatchWriteItem": lambda c, keys, n: c.client.put_all([c.text(key) for key in keys[1:]]),
    "TransactWriteItems": _transact,
    "DeleteItem": lambda c, keys, n: c.client.delete(keys[:1]),
}


def _latency_check(operation: str, send: _Send, units: Units) -> Callable[[int], Check]:
    def run(context: CheckContext) -> Measured:
        keys = [context.scratch.key() for _ in range(_BATCH)]
        context.client.put_all([context.text(key) for key in keys])
        latencies = context.client.transport.log.latencies
        before = len(latencies.get(operation, ()))
        for number in range(context.requests):
            send(context, keys, number)
        seconds = latencies[operation][before:]
        figures = {
            f"p{percent}_ms": 1e3 * float(np.percentile(seconds, percent, method="inverted_cdf"))
            for percent in _PERCENTILES
        }
        figures["max_ms"] = 1e3 * max(seconds)
        shown = ", ".join(f"{name[:-3]} {value:.1f}" for name, value in figures.items())
        return Measured(f"{shown} ms", True, {**figures, "requests": float(len(seconds))})

    def make(requests: int) -> Check:
        cost = Units(units.rcu * requests + _BATCH, units.wcu * requests + 2 * _BATCH)
        return Check(f"latency of {operation}", "measured", run, cost)

    return make


_UNITS = {
    "GetItem": Units(0.5),
    "BatchGetItem": Units(0.5 * _BATCH),
    "Query": Units(1),
    "UpdateItem": Units(0, 1),
    "PutItem": Units(0, 2),
    "BatchWriteItem": Units(0, _BATCH - 1),
    "TransactWriteItems": Units(0, 6),
    "DeleteItem": Units(0, 1),
}


def latency_checks(requests: int) -> list[Check]:
    """Return a check for each operation. Each measures `requests` requests."""
    return [_latency_check(name, send, _UNITS[name])(requests) for name, send in _SENDS.items()]


RESPONSE_CHECKS = [
    Check("CRC32 headers", "on every response, all correct", _check_checksums, Units(2, 1)),
    Check("request ids", "on every response, all different", _check_request_ids, Units(2, 1)),
]

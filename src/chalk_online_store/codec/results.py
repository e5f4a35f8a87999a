"""Results of queries: how one is named in the table, and what lies there.

A result is an entity of a namespace of its own. Its key is a digest of the query's name, version
and inputs, of 160 bits: two of a trillion results share one with a probability of 10^-24, so none
is compared. It holds one document, `[version, limit, typed, untyped]`: features that the schema
declares as the attributes that their types are stored in, by full name, others as msgpack does.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from chalk_online_store.arguments import check_text, name_mapping
from chalk_online_store.codec.canonical import canonical
from chalk_online_store.codec.namespaces import Planned
from chalk_online_store.codec.shapes import Column
from chalk_online_store.codec.values import UNREADABLE, ValueRefused
from chalk_online_store.errors import DamagedItem, InvalidValue
from chalk_online_store.schema import Document, Feature, Namespace

RESULTS = Namespace("__query__", str, [Feature("result", Document)])
"""The namespace of results. No schema may have one of that name."""

_VERSION = 1
_DIGEST_BYTES = 20

FindColumn = Callable[[str], Column | None]
"""The column of a feature by its full name; None where the schema declares no such feature."""


def key_of(query: str, version: str, inputs: Mapping[str, Any]) -> str:
    """The primary key of a query's result for these inputs, whatever their order.

    Raises `InvalidValue`.
    """
    check_text(query, "query")
    check_text(version, "version")
    inputs = name_mapping(inputs, "inputs", '{"user.id": 7}')
    if not query:
        raise InvalidValue("query must be the name of a query; got an empty str. Pass its name.")
    found = [(name, _canonical(name, value)) for name, value in inputs.items()]
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    digest.update(canonical([query, version, dict(found)]))
    return base64.urlsafe_b64encode(digest.digest()).rstrip(b"=").decode()


def _canonical(name: Any, value: Any) -> bytes:
    try:
        return canonical(value)
    except (TypeError, ValueError, RecursionError, ValueRefused) as error:
        reason = str(error) if isinstance(error, ValueRefused) else type(error).__name__
        raise InvalidValue(
            f"The input {name!r} of a query is a {type(value).__name__} that has no canonical "
            f"form, or holds one ({reason})."
        ) from None


def row_of(
    key: str, features: Mapping[str, Any], limit: int | None, column: FindColumn
) -> dict[str, Any]:
    """A row of `RESULTS`; `limit` is its max staleness in microseconds, None for no end.

    Raises `InvalidValue` naming the feature.
    """
    typed: dict[str, bytes] = {}
    untyped: dict[str, Any] = {}
    for name, value in features.items():
        found = column(name)
        if found is None:
            untyped[name] = value
        else:
            typed[name] = found.encode(value)
    return {"id": key, "result": [_VERSION, limit, typed, untyped]}


class Result(NamedTuple):
    """What lies in a result: its features, and how old it may be, in microseconds."""

    limit: int | None
    features: dict[str, Any]


def result_of(document: Any, column: FindColumn) -> Result:
    """A result from its document.

    Raises `DamagedItem`, and `UnknownFeature` for a typed feature that the schema does not have.
    """
    try:
        version, limit, typed, untyped = document
        if version != _VERSION:
            raise DamagedItem(f"A query result has the unknown version {version!r}.")
        return Result(limit, {**dict(_decoded(typed, column)), **untyped})
    except (TypeError, ValueError, AttributeError, *UNREADABLE) as error:
        raise DamagedItem("A query result cannot be read as the schema says.") from error


def _decoded(typed: Mapping[str, bytes], column: FindColumn) -> Iterator[tuple[str, Any]]:
    for name, attribute in typed.items():
        found = column(name)
        if found is None:
            raise DamagedItem(f"A query result has {name}, which the schema does not declare.")
        codec = found.codec
        yield name, codec.decode(msgspec.json.decode(attribute, type=codec.attribute, strict=False))


def expiring(planned: Sequence[Planned], rows: Sequence[Mapping[str, Any]]) -> list[Planned]:
    """What rows of `RESULTS` change, each with the expiry that its own limit says."""
    found = []
    for position, change in planned:
        limit = rows[position]["result"][1]
        expires_at = None if limit is None else -(-(change.observed_at + limit) // 1_000_000)
        found.append((position, msgspec.structs.replace(change, expires_at=expires_at)))
    return found

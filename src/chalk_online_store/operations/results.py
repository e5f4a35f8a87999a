"""Online query results: what a query gave for its inputs, kept beside the features."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from chalk_online_store.arguments import name_mapping, plain_name
from chalk_online_store.codec.results import Result, key_of, result_of, row_of
from chalk_online_store.codec.shapes import Column
from chalk_online_store.errors import DamagedItem, RegistryUnavailable, UnknownFeature
from chalk_online_store.operations.registry import RegistryKeeper
from chalk_online_store.operations.rows import Rows, Status
from chalk_online_store.report import Report
from chalk_online_store.schema import Duration, Namespace, microseconds
from chalk_online_store.schema.types import struct_fields

_EXAMPLE = '{"user.risk": 0.5}'


@dataclass(frozen=True, slots=True)
class QueryResult:
    """What `read_result` found: `features` are those that were written, None without a hit.

    `status` is `hit`, `missing`, `stale` or `failed`, as for features.
    """

    status: Status
    features: dict[str, Any] | None
    observed_at: datetime | None
    report: Report

    def __getitem__(self, name: str) -> Any:
        name = plain_name(name)
        if self.features is None:
            raise UnknownFeature(f"There is no result ({self.status.value}), so no {name!r} in it.")
        return self.features[name]


class ResultCodec:
    """Makes rows of results, by the features that a store's schema declares."""

    def __init__(self, schema: Mapping[str, Namespace], registry: RegistryKeeper) -> None:
        self._schema = schema
        self._registry = registry

    def row(
        self,
        query: str,
        inputs: Mapping[str, Any],
        features: Mapping[str, Any],
        version: str,
        max_staleness: Duration,
    ) -> dict[str, Any]:
        """A row of `RESULTS`.

        Raises `InvalidValue`; `RegistryUnavailable` for a feature that is stored under ids which
        this process does not know yet.
        """
        features = name_mapping(features, "features", _EXAMPLE)
        key = key_of(query, version, inputs)
        limit = microseconds(max_staleness, "max_staleness")
        return row_of(key, features, limit, self._column)

    def result(self, document: Any) -> Result:
        """See `codec.results.result_of`."""
        return result_of(document, self._column)

    def of_structs(self, features: Mapping[str, Any]) -> Iterator[Namespace]:
        """The namespaces whose ids it takes to store some of these features."""
        features = name_mapping(features, "features", _EXAMPLE)
        names = {name.partition(".")[0] for name in features if self._needs_ids(name)}
        return (self._schema[name] for name in sorted(names))

    def _declared(self, name: str) -> Namespace | None:
        prefix, _, feature = name.partition(".")
        namespace = self._schema.get(prefix)
        return namespace if namespace is not None and feature in namespace.by_name else None

    def _needs_ids(self, name: str) -> bool:
        namespace = self._declared(name)
        if namespace is None:
            return False
        feature = namespace.feature(name)
        return any(True for _ in struct_fields(feature.type, name))

    def _column(self, name: str) -> Column | None:
        namespace = self._declared(name)
        if namespace is None:
            return None
        feature = namespace.feature(name)
        if not self._needs_ids(name):
            return Column("", feature, name)
        codec = self._registry.present(namespace)
        codec.check()
        codec.check_features([feature.name])
        if any(f"{entry.name}.".startswith(f"{name}.") for entry in codec.missing):
            raise RegistryUnavailable(f"{name} has fields whose ids are not known yet: warm().")
        return next(c for g in codec.groups.values() for c in g.columns if c.full_name == name)


def found_result(codec: ResultCodec, rows: Rows, now: int) -> QueryResult:
    """What the one row of `RESULTS` says at `now` (UTC us)."""
    status, document, written = rows.answer(0, "result")
    observed_at = rows[0].observed_at("result")
    features = None
    if status is Status.HIT:
        try:
            limit, features = codec.result(document)
        except DamagedItem:
            status, features = Status.FAILED, None
        else:
            if limit is not None and now > (written or 0) + limit:
                status, features = Status.STALE, None
    return QueryResult(status, features, observed_at, rows.report)

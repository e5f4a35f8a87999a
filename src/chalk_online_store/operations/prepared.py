"""Reads whose features are resolved once, for any number of calls."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from chalk_online_store.arguments import check_flag
from chalk_online_store.errors import InvalidValue
from chalk_online_store.operations import read as reading
from chalk_online_store.operations.matrix import check_numeric, matrix_form
from chalk_online_store.schema import Duration, Namespace, microseconds

C = TypeVar("C")


@dataclass(frozen=True, eq=False)
class ReadRequest(Generic[C]):
    """One read of `OnlineStore.read_many`, with the arguments of `OnlineStore.read`."""

    schema: type[C] | Namespace
    keys: Iterable[Any]
    features: Sequence[Any] | None = None
    max_staleness: Mapping[Any, Duration] | None = None


@dataclass(eq=False, slots=True)
class Prepared:
    """A read of some features, resolved once and for all that do not change.

    `schema` is what the caller named the namespace by: kept, so that its `id` is no other's.
    `overrides` are those of their max staleness. `defaults` says whether declared defaults are
    served. `plan` is by the last reading of the registry that it was needed with.
    """

    schema: Namespace | type
    namespace: Namespace
    names: tuple[str, ...]
    overrides: reading.Overrides
    defaults: bool = False
    plan: reading.ReadPlan | None = None

    def check_matrix(self, dtype: Any, missing: Any, skip_failed: Any) -> None:
        """Check a matrix of these features before it is read. Raises `InvalidValue`."""
        matrix_form(dtype, missing)
        check_flag(skip_failed, "skip_failed")
        for name in self.names:
            feature = self.namespace.feature(name)
            check_numeric(self.namespace.full_name(feature), feature.type)


def prepare(
    schema: Namespace | type,
    namespace: Namespace,
    names: tuple[str, ...] | None,
    overrides: reading.Overrides,
    defaults: bool = False,
) -> Prepared:
    """Resolve a read. Raises `UnknownFeature`, and `InvalidSchema` for a bad duration."""
    names = tuple(namespace.by_name) if names is None else names
    for name in names:
        namespace.feature(name)
    if len({namespace.feature(name).name for name in overrides}) != len(overrides):
        raise InvalidValue(
            f"max_staleness names a feature of {namespace.name!r} twice, by its short name and in "
            "full. Keep one of them."
        )
    for name, duration in overrides.items():
        microseconds(duration, f"max_staleness of {name}")
    return Prepared(schema, namespace, names, overrides, defaults)

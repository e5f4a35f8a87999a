"""Values as JSON has them, and back: bytes as base64, moments and Decimals as text."""

from __future__ import annotations

from decimal import InvalidOperation
from typing import Any

import msgspec
import numpy as np

from chalk_online_store.cli.jsons import finite
from chalk_online_store.errors import InvalidValue
from chalk_online_store.schema import Namespace
from chalk_online_store.schema.types import VectorType


def to_plain(value: Any) -> Any:
    """A value of any feature type, for `json.dumps`; what JSON lacks of floats becomes text."""
    try:
        builtins = msgspec.to_builtins(value, order="deterministic", enc_hook=_other)
    except (TypeError, InvalidOperation):  # Enums and NaN of Decimal have no order within a set.
        builtins = msgspec.to_builtins(value, enc_hook=_other)
    return finite(msgspec.to_builtins(builtins), str)  # Once more for the bytes of an Enum.


def _other(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if hasattr(value, "model_dump"):  # pydantic's
        return value.model_dump()
    raise NotImplementedError(type(value).__name__)


def from_plain(namespace: Namespace, row: Any) -> dict[str, Any]:
    """A row from JSON, each value as its feature's annotation says.

    Raises `InvalidValue` naming the feature, but no value; `UnknownFeature`.
    """
    if not isinstance(row, dict) or namespace.key_name not in row:
        raise InvalidValue(f"A row is a JSON object with the primary key {namespace.key_name!r}.")
    return {name: _typed(namespace, name, value) for name, value in row.items()}


def _typed(namespace: Namespace, name: str, value: Any) -> Any:
    kind: Any = namespace.primary_key
    if name != namespace.key_name:
        feature = namespace.feature(name)
        if isinstance(feature.type, VectorType):  # The codec takes any sequence of numbers.
            return value
        kind = feature.annotation
    try:
        return msgspec.convert(value, kind, strict=False, dec_hook=_made)
    except (msgspec.ValidationError, TypeError, ValueError):
        raise InvalidValue(f"{namespace.name}.{name}: this is no {_name(kind)}.") from None


def _made(kind: type, value: Any) -> Any:
    """What msgspec does not know how to make of JSON: pydantic's models, and arrays within."""
    if hasattr(kind, "model_validate"):
        return kind.model_validate(value)
    return np.asarray(value) if kind is np.ndarray else value


def _name(kind: Any) -> str:
    return getattr(kind, "__name__", str(kind))

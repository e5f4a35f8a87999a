"""The types that a feature can have, read from Python annotations.

`docs/types.md` has a row per type. A type's `name` is what the registry keeps: two types with
one name are stored alike.
"""

from __future__ import annotations

import enum
import types
import typing
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal, Union
from uuid import UUID

import numpy as np

from chalk_online_store.errors import InvalidSchema

_DTYPES: dict[Any, str] = {
    "f2": "f2",
    "f4": "f4",
    "f8": "f8",
    np.float16: "f2",
    np.float32: "f4",
    np.float64: "f8",
}


class Vector:
    """A vector of `size` floats: `Vector[32]` (fp16), `Vector[32, "f4"]`, `Vector[32, "f8"]`.

    For linters and type checkers, which take a string in an annotation for a name and refuse a
    bare number, `Annotated[np.ndarray, Vector[32, np.float32]]` says the same. Values are
    numpy arrays of shape `(size,)`; any sequence of numbers is taken in.
    fp16 is the default, as in Chalk.
    """

    size: ClassVar[int] = 0
    dtype: ClassVar[str] = "f2"
    _made: ClassVar[dict[tuple[int, str], type[Vector]]] = {}

    def __class_getitem__(cls, arguments: Any) -> type[Vector]:
        pair = arguments if isinstance(arguments, tuple) else (arguments, "f2")
        size, given = pair if len(pair) == 2 else (pair, None)
        dtype = _DTYPES.get(given)
        if not isinstance(size, int) or size < 1 or dtype is None:
            raise InvalidSchema(
                f"Vector[{size!r}, {given!r}]: the size is an int from 1, the dtype one of "
                '"f2", "f4", "f8", or numpy\'s float16, float32, float64.'
            )
        if (size, dtype) not in cls._made:
            members = {"size": size, "dtype": dtype}
            cls._made[size, dtype] = type(f"Vector[{size}, {dtype}]", (Vector,), members)
        return cls._made[size, dtype]


@dataclass(frozen=True, slots=True)
class Scalar:
    """A type with one native form: `name` is one of `SCALARS`' values."""

    name: str


@dataclass(frozen=True, slots=True)
class VectorType:
    """A vector of `size` floats of `dtype` f2, f4 or f8."""

    size: int
    dtype: str

    @property
    def name(self) -> str:
        """The registry's name for it."""
        return f"vector[{self.size},{self.dtype}]"


@dataclass(frozen=True)
class ChoiceType:
    """An Enum or a Literal: stored as its value, of the one scalar type `member`.

    `choices` maps each stored value to what the user's code sees.
    """

    member: Scalar
    choices: dict[Any, Any]

    @property
    def name(self) -> str:
        """The registry's name: that of the value which is stored."""
        return self.member.name


FeatureType = Scalar | VectorType | ChoiceType

SCALARS: dict[Any, Scalar] = {
    bool: Scalar("bool"),
    str: Scalar("str"),
    bytes: Scalar("bytes"),
    int: Scalar("int"),
    float: Scalar("float"),
    Decimal: Scalar("decimal"),
    datetime: Scalar("datetime"),
    date: Scalar("date"),
    time: Scalar("time"),
    timedelta: Scalar("timedelta"),
    UUID: Scalar("uuid"),
    types.NoneType: Scalar("none"),
}


def read_annotation(annotation: Any) -> tuple[FeatureType, bool]:
    """The type that an annotation names, and whether it may be null (`T | None`).

    Raises `InvalidSchema` for an annotation that no row of `docs/types.md` covers.
    """
    arguments = typing.get_args(annotation)
    if typing.get_origin(annotation) is Annotated:
        vectors = [a for a in arguments[1:] if isinstance(a, type) and issubclass(a, Vector)]
        kind, nullable = read_annotation((vectors or arguments)[0])
        return kind, nullable or types.NoneType in typing.get_args(arguments[0])
    if typing.get_origin(annotation) in (Union, types.UnionType):
        rest = [argument for argument in arguments if argument is not types.NoneType]
        if len(rest) != 1:
            raise _unsupported(annotation)
        return read_annotation(rest[0])[0], True
    return _read_plain(annotation), annotation in (None, types.NoneType)


def _read_plain(annotation: Any) -> FeatureType:
    if annotation is None:
        return SCALARS[types.NoneType]
    if typing.get_origin(annotation) is Literal:
        values = typing.get_args(annotation)
        return _choices(annotation, [(value, value) for value in values])
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return _choices(annotation, [(member.value, member) for member in annotation])
    if isinstance(annotation, type) and issubclass(annotation, Vector) and annotation.size:
        return VectorType(annotation.size, annotation.dtype)
    try:
        return SCALARS[annotation]
    except (KeyError, TypeError):
        raise _unsupported(annotation) from None


def _choices(annotation: Any, choices: list[tuple[Any, Any]]) -> ChoiceType:
    kinds = {type(value) for value, _ in choices}
    if len(kinds) != 1 or not kinds <= {str, int, bytes, bool}:
        raise InvalidSchema(
            f"{annotation!r}: the values of an Enum or Literal must all be str, all int, "
            "all bool or all bytes."
        )
    return ChoiceType(SCALARS[kinds.pop()], dict(choices))


def _unsupported(annotation: Any) -> InvalidSchema:
    return InvalidSchema(f"{annotation!r} is not a feature type; docs/types.md lists them.")

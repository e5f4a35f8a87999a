"""The types that a feature can have.

`docs/types.md` has a row per type. A type's `name` is what the registry keeps: two types with
one name are stored alike.
"""

from __future__ import annotations

import copyreg
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, ClassVar
from uuid import UUID

from chalk_online_store.errors import InvalidSchema

_DTYPES = ("f2", "f4", "f8")
_NUMPY_DTYPES = {"float16": "f2", "float32": "f4", "float64": "f8"}
"""By the names of numpy's classes: numpy is not imported before a store is opened."""


class _VectorClass(type):
    """The class of `Vector` and `Vector[n]`, which are pickled as such."""


class Vector(metaclass=_VectorClass):
    """A vector of `size` floats: `Vector[32]` (fp16), `Vector[32, "f4"]`, `Vector[32, "f8"]`.

    Values are numpy arrays of shape `(size,)`; any sequence of numbers is taken in.
    fp16 is the default, as in Chalk.

    mypy takes such an annotation for Any, pyright for a numpy array. For linters, which take a
    string in an annotation for a name, `Vector[32, np.float32]` says the same as `"f4"`, and so
    does `Annotated[np.ndarray, Vector[32, np.float32]]`.
    """

    size: ClassVar[int] = 0
    dtype: ClassVar[str] = "f2"
    _made: ClassVar[dict[tuple[int, str], type[Vector]]] = {}

    def __class_getitem__(cls, arguments: Any) -> type[Vector]:
        pair = arguments if isinstance(arguments, tuple) else (arguments, "f2")
        size, given = pair if len(pair) == 2 else (pair, None)
        dtype = _dtype(given)
        if not isinstance(size, int) or size < 1 or dtype is None:
            raise InvalidSchema(
                f"Vector[{size!r}, {given!r}]: the size is an int from 1, the dtype one of "
                '"f2", "f4", "f8", or numpy\'s float16, float32, float64.'
            )
        if (size, dtype) not in cls._made:
            members = {"size": size, "dtype": dtype}
            made: Any = _VectorClass(f"Vector[{size}, {dtype}]", (Vector,), members)
            cls._made[size, dtype] = made
        return cls._made[size, dtype]


def _reduce_vector(cls: type[Vector]) -> Any:
    return (Vector.__class_getitem__, ((cls.size, cls.dtype),)) if cls.size else "Vector"


copyreg.pickle(_VectorClass, _reduce_vector)  # type: ignore[arg-type]  # It is a class.


def _dtype(given: Any) -> str | None:
    if isinstance(given, type) and given.__module__ == "numpy":
        return _NUMPY_DTYPES.get(given.__name__)
    return given if isinstance(given, str) and given in _DTYPES else None


@dataclass(frozen=True, slots=True)
class Scalar:
    """A type with one native form: `name` is one of `SCALARS`' values."""

    name: str


@dataclass(frozen=True, slots=True)
class VectorType:
    """A vector of `size` floats of `dtype` f2, f4 or f8.

    It is stored as bytes or, if `listed`, as a list of numbers, which a vector index needs.
    """

    size: int
    dtype: str
    listed: bool = False

    @property
    def name(self) -> str:
        """The registry's name for it."""
        form = ",list" if self.listed else ""
        return f"vector[{self.size},{self.dtype}{form}]"


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


@dataclass(frozen=True, slots=True)
class Element:
    """What a list, set, tuple, dict or struct holds: a type, and whether it may be null."""

    type: FeatureType
    nullable: bool


@dataclass(frozen=True, slots=True)
class ListType:
    """A list, or a tuple of any length: `make` is which."""

    element: Element
    make: type

    @property
    def name(self) -> str:
        """The registry's name for it."""
        return f"list[{self.element.type.name}]"


@dataclass(frozen=True, slots=True)
class TupleType:
    """A tuple with a type for each place."""

    elements: tuple[Element, ...]

    @property
    def name(self) -> str:
        """The registry's name for it."""
        return f"tuple[{','.join(element.type.name for element in self.elements)}]"


@dataclass(frozen=True, slots=True)
class SetType:
    """A set or frozenset of scalars: `make` is which."""

    element: Scalar | ChoiceType
    make: type

    @property
    def name(self) -> str:
        """The registry's name for it."""
        return f"set[{self.element.name}]"


@dataclass(frozen=True, slots=True)
class DictType:
    """A dictionary from str."""

    value: Element

    @property
    def name(self) -> str:
        """The registry's name for it."""
        return f"dict[{self.value.type.name}]"


@dataclass(frozen=True, slots=True)
class StructField:
    """One field of a struct; `default` makes the value of a field that was not stored."""

    name: str
    element: Element
    default: Callable[[], Any] | None
    required: bool = True


@dataclass(frozen=True)
class StructType:
    """A dataclass, attrs class, pydantic model, NamedTuple, TypedDict or msgspec Struct.

    `cls` is the class of its values (dict for a TypedDict), `make` builds one from a dictionary
    of its fields, `get` reads a field.
    """

    cls: type
    fields: tuple[StructField, ...]
    make: Callable[[dict[str, Any]], Any]
    get: Callable[[Any, str], Any]

    name = "struct"


@dataclass(frozen=True, slots=True)
class DocumentType:
    """Anything that msgpack holds exactly: the escape hatch."""

    name = "document"


FeatureType = (
    Scalar
    | VectorType
    | ChoiceType
    | ListType
    | TupleType
    | SetType
    | DictType
    | StructType
    | DocumentType
)

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


def struct_fields(kind: FeatureType, path: str) -> Iterator[tuple[str, StructField]]:
    """Every field of every struct within a type, under its path: `user.address.street`.

    These have short ids, as features have. Lists and dictionaries add nothing to a path; the
    places of a tuple are numbered.
    """
    if isinstance(kind, StructType):
        for field in kind.fields:
            yield f"{path}.{field.name}", field
            yield from struct_fields(field.element.type, f"{path}.{field.name}")
    elif isinstance(kind, TupleType):
        for place, element in enumerate(kind.elements):
            yield from struct_fields(element.type, f"{path}.{place}")
    elif isinstance(kind, ListType | DictType):
        element = kind.element if isinstance(kind, ListType) else kind.value
        yield from struct_fields(element.type, path)

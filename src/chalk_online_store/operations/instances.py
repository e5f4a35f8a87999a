"""Rows of a read as instances of the user's own classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from chalk_online_store.errors import IncompleteRow, InvalidSchema, InvalidValue
from chalk_online_store.schema.instances import Field, RowClass, check_types, form_of
from chalk_online_store.schema.types import FeatureType

NOTHING: Any = object()
"""What stands for a default that is not given: None is one."""

_MOST_NAMED = 3


class _Answer(Protocol):
    @property
    def status(self) -> str: ...


class Read(Protocol):
    """What is asked of rows."""

    keys: Sequence[Any]

    def answer(self, index: int, name: str) -> _Answer:
        """Why one of them is None."""


def instances(
    rows: Read,
    column: Callable[[str], list[Any]],
    key_name: str,
    kinds: Mapping[str, FeatureType],
    cls: type,
    default: Any,
) -> list[Any]:
    """See `Rows.to`; `column` gives the values of a feature."""
    form = form_of(cls)
    check_types(form, kinds)
    fields = _readable(form, key_name, kinds)
    columns = [rows.keys if f.feature == key_name else column(f.feature) for f in fields]
    names = [field.name for field in fields]
    open_to_gaps = [f for f, column in zip(fields, columns, strict=True) if _has_none(column)]
    made: list[Any] = []
    lacking: dict[int, dict[str, str]] = {}
    for index, values in enumerate(zip(*columns, strict=True)):
        found = dict(zip(names, values, strict=True))
        gaps = _fill(rows, index, found, open_to_gaps)
        if gaps:
            lacking[index] = gaps
        made.append(default if gaps else _make(form, index, found, default))
    if lacking and default is NOTHING:
        raise IncompleteRow(_message(form, lacking), lacking)
    return made


def _make(form: RowClass, index: int, found: dict[str, Any], default: Any) -> Any:
    """An instance, or the default where the class refuses the values."""
    try:
        return form.make(found)
    except Exception as error:
        if default is not NOTHING:
            return default
        raise InvalidValue(
            f"The row at position {index} cannot become a {form.cls.__name__}: its constructor "
            f"raised {type(error).__name__}. Say what stands for such a row: rows.to(cls, default)."
        ) from error


def _readable(form: RowClass, key_name: str, kinds: Mapping[str, FeatureType]) -> list[Field]:
    """The fields that are made of what was read; a class may have a default for the others."""
    found = [field for field in form.fields if field.feature in kinds or field.feature == key_name]
    needed = [field.name for field in form.fields if field not in found and not field.has_default]
    if needed or not found:
        raise InvalidSchema(
            f"{form.cls.__name__} needs {', '.join(needed)}, which was not read: name it among the "
            "features of the read, or give the field a default."
        )
    return found


def _has_none(column: Sequence[Any]) -> bool:
    return any(value is None for value in column)


def _fill(rows: Read, index: int, found: dict[str, Any], fields: Sequence[Field]) -> dict[str, str]:
    """See to the Nones of a row: what is left lacks, with the reason."""
    lacking = {}
    for field in fields:
        if found[field.name] is not None:
            continue
        status = str(rows.answer(index, field.feature).status)
        if status != "null" and field.has_default:
            del found[field.name]
        elif not field.nullable:
            lacking[field.feature] = status
    return lacking


def _message(form: RowClass, lacking: Mapping[int, Mapping[str, str]]) -> str:
    index, gaps = next(iter(lacking.items()))
    named = ", ".join(f"{name} ({why})" for name, why in list(gaps.items())[:_MOST_NAMED])
    return (
        f"{len(lacking)} rows lack what {form.cls.__name__} needs; the one at position {index}: "
        f"{named}. Give the fields a default or `| None`, or say what stands for such a row: "
        "rows.to(cls, default)."
    )

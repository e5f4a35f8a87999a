"""The types of columns of text, when no schema states them.

A type is taken only if every text of the file is in its plain form. So texts with leading zeros,
numbers with more digits than their type has, and columns of mixed content stay text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from chalk_online_store.integrations.texts import Texts
from chalk_online_store.schema import Document, Feature, Namespace

_INT = "^(0|-?[1-9][0-9]{0,17})$"
_FLOAT = (
    r"^-?((0|[1-9][0-9]{0,14})"  # A float holds every integer of 15 digits.
    r"|(0|[1-9][0-9]*)\.[0-9]+([eE][+-][0-9]{1,2})?"
    r"|[1-9]([eE][+-][0-9]{1,2}))$"  # Not 12E5, which may be an identifier.
)
_MOMENT = "^[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9]{2}:[0-9]{2}:[0-9]{2}"
_FORMS: tuple[tuple[pa.DataType, str], ...] = (
    (pa.bool_(), "^([Tt]rue|[Ff]alse|TRUE|FALSE)$"),
    (pa.int64(), _INT),
    (pa.float64(), _FLOAT),
    (pa.date32(), "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"),
    (pa.timestamp("us", "UTC"), rf"{_MOMENT}(\.[0-9]{{1,6}})?(Z|[+-][0-9]{{2}}:?[0-9]{{2}})$"),
    (pa.timestamp("us"), rf"{_MOMENT}(\.[0-9]{{1,6}})?$"),
)
_DIGITS = 17
"""A float keeps every number of so many digits apart from its neighbours as it prints it."""


class TextTypes:
    """The types that all texts of each column, so far, are values of."""

    def __init__(self, names: Iterable[str]) -> None:
        self._possible = {name: list(_FORMS) for name in names}
        self._seen = dict.fromkeys(self._possible, False)

    def add(self, columns: Mapping[str, Any]) -> None:
        """Look at some rows."""
        for name, column in columns.items():
            if name not in self._possible or not isinstance(column, Texts):
                continue
            texts = column.array.drop_null()
            self._seen[name] = self._seen[name] or len(texts) > 0
            self._possible[name] = [each for each in self._possible[name] if _fits(texts, *each)]

    def schema(self) -> pa.Schema:
        """Return the narrowest type of each column; text if there is none."""
        return pa.schema(
            [
                (name, possible[0][0] if possible and self._seen[name] else pa.string())
                for name, possible in self._possible.items()
            ]
        )


def _fits(texts: pa.Array, kind: pa.DataType, form: str) -> bool:
    if not pc.all(pc.match_substring_regex(texts, form), min_count=0).as_py():
        return False
    if pa.types.is_floating(kind):
        digits = pc.replace_substring_regex(texts, "[eE].*$", "")
        digits = pc.replace_substring_regex(digits, r"^-?[0.]*|\.", "")
        return (pc.max(pc.utf8_length(digits)).as_py() or 0) <= _DIGITS
    if pa.types.is_temporal(kind):
        try:
            texts.cast(kind)
        except pa.ArrowInvalid:
            return False
    return True


# --- JSON Lines ----------------------------------------------------------------------------

_EXACT = 2**53
_KINDS: dict[type, type] = {bool: bool, int: int, Decimal: float, float: float, str: str}


class JsonTypes:
    """The types of the values under each name of lines of JSON."""

    def __init__(self) -> None:
        self._kinds: dict[str, set[Any]] = {}
        self._inexact: set[str] = set()

    def add(self, row: Mapping[str, Any]) -> None:
        """Look at a row."""
        for name, value in row.items():
            kinds = self._kinds.setdefault(name, set())
            if value is not None:
                kinds.add(_KINDS.get(type(value), Document))
                if isinstance(value, int) and abs(value) > _EXACT:
                    self._inexact.add(name)

    def names(self) -> list[str]:
        """Return every name, in the order of their first rows."""
        return list(self._kinds)

    def type_of(self, name: str) -> Any:
        """Return the type of a name's values: a document if they are of several."""
        kinds = self._kinds[name]
        if kinds == {int, float} and name not in self._inexact:
            return float
        if len(kinds) == 1:
            return next(iter(kinds))
        return Document if kinds else str

    def namespace(self, name: str, key: list[str], leave_out: str | None) -> Namespace:
        """Return the namespace of these rows."""
        features = [
            Feature(each, _nullable(self.type_of(each)))
            for each in self.names()
            if each not in {*key, leave_out}
        ]
        parts = tuple(self.type_of(each) for each in key)
        composite = len(parts) > 1
        annotation = tuple[parts] if composite else parts[0]  # type: ignore[valid-type]
        return Namespace(name, annotation, features, key_name="id" if composite else key[0])


def _nullable(kind: Any) -> Any:
    return kind if kind is Document else kind | None

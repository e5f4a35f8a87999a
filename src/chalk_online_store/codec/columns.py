"""Rows that come as columns: encoded without a dictionary for each row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, overload

Row = Mapping[str, Any]


class Stored(list["int | None"]):
    """Moments as the table stores them: integers, of which `make` makes each value.

    They are of the type's range. Days since 1970 of dates, microseconds of the others.
    """

    def __init__(self, numbers: Iterable[int | None], make: Callable[[int], Any]) -> None:
        super().__init__(numbers)
        self.make = make

    def values(self) -> list[Any]:
        """What they stand for."""
        make = self.make
        return [None if number is None else make(number) for number in self]


class ColumnBatch(Sequence[Row]):
    """Rows, as columns of one length by name, the primary key's among them.

    It is a sequence of rows as well, which are made when they are asked for: wherever rows are
    written it may stand for them.
    """

    def __init__(self, columns: Mapping[str, Sequence[Any]]) -> None:
        self.columns = columns

    @cached_property
    def _rows(self) -> list[Row]:
        columns = [c.values() if isinstance(c, Stored) else c for c in self.columns.values()]
        names = tuple(self.columns)
        return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]

    def __len__(self) -> int:
        return min(map(len, self.columns.values()), default=0)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | Sequence[Row]:
        return self._rows[index]

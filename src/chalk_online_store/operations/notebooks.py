"""Rows as a table of HTML, which notebooks display."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from html import escape
from typing import Any, Protocol

_CELL = reprlib.Repr()
_CELL.maxstring = _CELL.maxother = _CELL.maxlong = 80


class _Answer(Protocol):
    @property
    def status(self) -> str: ...
    @property
    def value(self) -> Any: ...


class ReadRows(Protocol):
    """The part of `Rows` that a table displays."""

    keys: Sequence[Any]

    @property
    def features(self) -> Sequence[str]:
        """The names of the columns."""

    def answer(self, index: int, name: str) -> _Answer:
        """The status and value of one cell."""


def rows_table(rows: ReadRows, key_name: str, limit: int) -> str:
    """Render the first `limit` rows. A cell without a value shows its status."""
    names = [key_name, *rows.features]
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    body = "".join(
        f"<tr><th>{_shown(key)}</th>"
        + "".join(f"<td>{_cell(rows.answer(index, name))}</td>" for name in rows.features)
        + "</tr>"
        for index, key in enumerate(rows.keys[:limit])
    )
    rest = len(rows.keys) - limit
    more = f"<p>and {rest} more rows</p>" if rest > 0 else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


def _cell(answer: _Answer) -> str:
    status = str(answer.status)
    return _shown(answer.value) if status == "hit" else f"<i>{escape(status)}</i>"


def _shown(value: Any) -> str:
    return escape(value if isinstance(value, str) and len(value) <= 80 else _CELL.repr(value))

"""Markdown tables that can be read as they stand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def as_table(head: Sequence[str], body: Iterable[Sequence[str]], texts: int) -> str:
    """The rows under their headings: the first `texts` columns to the left, numbers right."""
    rows = list(body)
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    rule = ["-" * width for width in widths]
    return "\n".join(_line(cells, widths, texts) for cells in (head, rule, *rows))


def _line(cells: Sequence[str], widths: Sequence[int], texts: int) -> str:
    padded = [
        cell.ljust(width) if place < texts else cell.rjust(width)
        for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return f"| {' | '.join(padded)} |"

"""Tables: drawn for people, tab-separated where the output is no terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

from rich.bar import Bar
from rich.box import SIMPLE_HEAD
from rich.table import Table

from chalk_online_store.cli.terminal import make_console, say_cells, visible_text

Cell: TypeAlias = str | Bar


def print_table(
    head: Sequence[str],
    rows: Iterable[Sequence[Cell]],
    *,
    title: str = "",
    numbers: bool = False,
    err: bool = False,
) -> None:
    """Print a table; tab-separated lines where the output is no terminal. `err` is for notes.

    With `numbers`, all columns but the first hold numbers. Columns without a heading hold bars:
    they are drawn on a terminal alone, as is the title.
    """
    console = make_console(stderr=err)
    if console.is_terminal:
        console.print(draw_table(head, rows, title=title, numbers=numbers))
        return
    for row in (head, *rows):
        say_cells((cell for name, cell in zip(head, row, strict=True) if name), err=err)


def draw_table(
    head: Sequence[str], rows: Iterable[Sequence[Cell]], *, title: str = "", numbers: bool = False
) -> Table:
    """A table as a terminal shows it."""
    table = Table(title=visible_text(title) if title else None, title_justify="left")
    if numbers:  # There are many columns: 80 characters have to do.
        table.box, table.show_edge, table.padding = SIMPLE_HEAD, False, 0
    for place, name in enumerate(head):
        right = numbers and place and name
        table.add_column(visible_text(name), justify="right" if right else "left")
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Bar) else visible_text(cell) for cell in row))
    return table

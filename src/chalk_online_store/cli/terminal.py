"""What commands show to people: texts as they are, never markup or control characters.

Names, keys, values and messages come from tables, files and servers. rich would read "[red]" in
them as markup, and a terminal would obey an escape sequence, or turn a line around after a
bidirectional mark. So every command prints by these functions: consoles have markup switched off,
and characters that are not shown are written as escapes. JSON, lock files and Terraform are
written as they are: they are for programs, and escape such characters themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

import typer
from rich.bar import Bar
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from chalk_online_store.cli.visible import visible, visible_lines


def make_console(*, stderr: bool = False) -> Console:
    """Make a console that takes no markup, emoji codes or highlighting from texts."""
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def visible_text(text: str) -> Text:
    """Return a visible text for rich, without markup."""
    return Text(visible(text))


def say(text: str = "", *, err: bool = False) -> None:
    """Print lines, on standard error if `err`; characters that are not shown are escaped."""
    typer.echo(visible_lines(text), err=err)


def say_cells(cells: Iterable[object], *, err: bool = False) -> None:
    """Print the cells of a row, separated by tabs."""
    typer.echo("\t".join(visible(str(cell)) for cell in cells), err=err)


# --- Tables: drawn for people, tab-separated where the output is no terminal ---------------


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

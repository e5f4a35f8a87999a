"""What commands show to people: texts as they are, never markup or control characters.

Names, keys, values and messages come from tables, files and servers. rich would read "[red]" in
them as markup, and a terminal would obey an escape sequence, or turn a line around after a
bidirectional mark. So every command prints by these functions: consoles have markup switched off,
and characters that are not shown are written as escapes. JSON, lock files and Terraform are
written as they are: they are for programs, and escape such characters themselves.
"""

from __future__ import annotations

from collections.abc import Iterable

import typer
from rich.console import Console
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

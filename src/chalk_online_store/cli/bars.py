"""Progress bars: on standard error, and on a terminal alone."""

from __future__ import annotations

from rich.console import Console
from rich.progress import Progress, ProgressColumn


def bars(*columns: ProgressColumn | str, console: Console | None = None) -> Progress:
    """Bars that are gone in the end; rich's own columns, unless some are given."""
    console = console or Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)

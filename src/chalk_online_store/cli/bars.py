"""Progress bars: on standard error, and on a terminal alone."""

from __future__ import annotations

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from chalk_online_store.cli.terminal import make_console, visible_text


class Description(ProgressColumn):
    """What a task does, as it is: rich's own column takes markup."""

    def render(self, task: Task) -> Text:
        """Return the description of a task."""
        return visible_text(task.description)


def bars(*columns: ProgressColumn | str, console: Console | None = None) -> Progress:
    """Make bars that disappear in the end; with rich's own columns, unless some are given."""
    console = console or make_console(stderr=True)
    columns = columns or (
        Description(),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)

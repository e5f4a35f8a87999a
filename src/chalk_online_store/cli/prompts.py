"""Asking before what costs something, or cannot be taken back."""

from __future__ import annotations

import typer

from chalk_online_store.cli.terminal import say
from chalk_online_store.cli.visible import visible_lines


def confirm(question: str, yes: bool) -> None:
    """Go on where the answer is yes, or was given by `--yes`; the question goes to stderr.

    Raises `typer.Abort` where it is no, or where nobody can answer.
    """
    if yes:
        return
    try:
        agreed = typer.confirm(visible_lines(question), err=True)
    except typer.Abort as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        say("Nobody answers: give --yes.", err=True)
        raise
    if not agreed:
        raise typer.Abort

"""Options that many commands take, so that they are called and explained alike."""

from __future__ import annotations

from typing import Annotated

import typer

from chalk_online_store.cli.terminal import say
from chalk_online_store.cli.visible import visible_lines
from chalk_online_store.integrations.modules import load_namespace
from chalk_online_store.schema import Namespace

URL_VARIABLE = "CHALK_ONLINE_STORE_URL"
"""The environment variable that `--url` is read from where it is not given."""

Url = Annotated[str, typer.Option(envvar=URL_VARIABLE, help="URL of the store.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
JsonLines = Annotated[bool, typer.Option("--json", help="Print one JSON line per entity.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Skip the confirmation.")]
Schemas = Annotated[
    list[str], typer.Option("--schema", help="Schema, as module:Class. Can be repeated.")
]
OneSchema = Annotated[str, typer.Option("--schema", help="Schema, as module:Class.")]
Features = Annotated[
    list[str] | None,
    typer.Option("--feature", help="Feature to use. Can be repeated. Default: all."),
]


def given(context: typer.Context, option: str) -> bool:
    """Whether an option stands on the command line, and not in the environment alone."""
    source = context.get_parameter_source(option)
    return source is not None and source.name == "COMMANDLINE"


# --- Asking before what costs something, or cannot be taken back ---------------------------


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


# --- Schemas that are named on the command line --------------------------------------------


def namespace_called(name: str) -> Namespace:
    """The namespace called `module:Class`; modules of the working directory are found, too."""
    return load_namespace(name, "--schema")

"""Options that many commands take, so that they are called and explained alike."""

from __future__ import annotations

from typing import Annotated

import typer

URL_VARIABLE = "CHALK_ONLINE_STORE_URL"
"""The environment variable that `--url` is read from where it is not given."""

Url = Annotated[str, typer.Option(envvar=URL_VARIABLE, help="The URL of the store.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
JsonLines = Annotated[bool, typer.Option("--json", help="Print JSON lines, one for each entity.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Schemas = Annotated[
    list[str], typer.Option("--schema", help="A schema, as module:Class. Can be repeated.")
]
OneSchema = Annotated[str, typer.Option("--schema", help="The schema, as module:Class.")]
Features = Annotated[
    list[str] | None, typer.Option("--feature", help="Only this one. Can be repeated.")
]


def given(context: typer.Context, option: str) -> bool:
    """Whether an option stands on the command line, and not in the environment alone."""
    source = context.get_parameter_source(option)
    return source is not None and source.name == "COMMANDLINE"

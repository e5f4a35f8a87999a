"""The command `terraform`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from chalk_online_store.cli.jsons import print_json
from chalk_online_store.cli.terminal import say
from chalk_online_store.errors import InvalidValue
from chalk_online_store.provision.spec import read_spec
from chalk_online_store.provision.terraform import render


def terraform(
    table: Annotated[Path, typer.Argument(help="The table as it should be, as TOML.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the files into this directory.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the files as JSON.")] = False,
) -> None:
    """Render a table, its autoscaling and its IAM policies as Terraform.

    Change the description, not the files: they are written anew.

    Example: chalk-online-store terraform table.toml --output infra/features
    """
    files = render(read_spec(table))
    if output is not None:
        _write(files, output)
    elif not as_json:
        for name, text in files.items():
            typer.echo(f"# {name}\n\n{text}")
    if as_json:
        print_json(files)


def _write(files: dict[str, str], directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (directory / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise InvalidValue(f"--output {directory} cannot be written: {error.strerror}.") from None
    say(f"Written: {', '.join(sorted(files))} in {directory}.", err=True)

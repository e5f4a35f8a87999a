"""The command `terraform`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from chalk_online_store.cli import WrongUsage
from chalk_online_store.cli.json_output import print_json
from chalk_online_store.cli.terminal import say
from chalk_online_store.errors import InvalidValue
from chalk_online_store.provisioning.rendered_files import write_rendered
from chalk_online_store.provisioning.spec import read_spec
from chalk_online_store.provisioning.terraform import render
from chalk_online_store.provisioning.terraform_module import render_module


def terraform(
    tables: Annotated[
        list[Path],
        typer.Argument(
            metavar="TABLE...",
            help="Description of the table (TOML). With --module, one file per environment.",
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Directory for the files.")
    ] = None,
    module: Annotated[
        bool,
        typer.Option(
            "--module", help="Render a module, and an environment per TABLE, named after its file."
        ),
    ] = False,
    adopt: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help='Adopt an existing table: its address in the state, or "import" if it is '
            "in no state.",
        ),
    ] = None,
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove old files that are no longer rendered.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the files as JSON.")] = False,
) -> None:
    """Render a table, its autoscaling and its IAM policies as Terraform.

    Change the description, not the files: rendering again replaces them. A manifest next to the
    files records their names and checksums.

    Example: chalk-online-store terraform table.toml --output infra/features
    """
    files = _rendered(tables, adopt, as_module=module)
    if output is not None:
        _write(files, output, may_prune=prune)
    elif not as_json:
        for name, text in files.items():
            typer.echo(f"# {name}\n\n{text}")
    if as_json:
        print_json(files)


def _rendered(tables: list[Path], adopted: str | None, *, as_module: bool) -> dict[str, str]:
    if len(tables) > 1 and (adopted or not as_module):
        option = "--adopt" if adopted else "Without --module, the command"
        raise WrongUsage(f"{option} takes one TABLE; got {len(tables)}.")
    if not as_module:
        return render(read_spec(tables[0]), adopted)
    specs = {path.stem: read_spec(path) for path in tables}
    if len(specs) < len(tables):
        raise WrongUsage("Two TABLEs have one file name. Each environment is named after its file.")
    return render_module(specs, adopted)


def _write(files: dict[str, str], directory: Path, *, may_prune: bool) -> None:
    try:
        found = write_rendered(directory, files, may_prune=may_prune)
    except OSError as error:
        raise InvalidValue(f"--output {directory} cannot be written: {error.strerror}.") from None
    removed = f" Removed: {', '.join(found.removed)}." if found.removed else ""
    say(f"Written: {', '.join(sorted(found.written))} in {directory}.{removed}", err=True)

"""`copy-feast`: the values of one Feast online store to another."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from chalk_online_store.cli import require
from chalk_online_store.cli.json_output import print_json
from chalk_online_store.cli.options import Json
from chalk_online_store.cli.terminal import say


def copy_feast(
    source: Annotated[
        Path, typer.Argument(help="Feast repository to copy from, with feature_store.yaml.")
    ],
    target: Annotated[
        Path, typer.Argument(help="Feast repository to copy to, after `feast apply`.")
    ],
    entities: Annotated[
        Path, typer.Argument(help="Parquet file with the join keys of all entities.")
    ],
    view: Annotated[
        list[str] | None, typer.Option(help="Feature view to copy. Can be repeated. Default: all.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Copy all values of the given entities from one Feast online store to another.

    Newer values in the target remain, so you can repeat a copy.

    Example: chalk-online-store copy-feast old_repo new_repo drivers.parquet --view driver_stats
    """
    require("feast", "feast")
    import pyarrow.parquet
    from feast import FeatureStore

    from chalk_online_store.integrations.feast import copy_online

    copied = copy_online(
        FeatureStore(str(source)),
        FeatureStore(str(target)),
        pyarrow.parquet.read_table(entities).to_pylist(),
        view,
    )
    if as_json:
        print_json([asdict(one) for one in copied])
        return
    for one in copied:
        found = one.entities - one.missing
        say(f"{one.view}: {found:,} of {one.entities:,} entities copied")

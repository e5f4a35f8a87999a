"""JSON on standard output: a document a line, and nothing beside it."""

from __future__ import annotations

import json
import math
from typing import Any

import typer


def print_json(value: Any) -> None:
    """Print a document; a number that JSON has not, as infinity, becomes null."""
    typer.echo(json.dumps(_finite(value), allow_nan=False))


def _finite(value: Any) -> Any:
    match value:
        case float() if not math.isfinite(value):
            return None
        case dict():
            return {name: _finite(each) for name, each in value.items()}
        case list() | tuple():
            return [_finite(each) for each in value]
    return value

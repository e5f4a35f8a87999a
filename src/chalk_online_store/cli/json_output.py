"""JSON on standard output: a document a line, and nothing beside it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import typer


def print_json(value: Any) -> None:
    """Print a document; a number that JSON has not, as infinity, becomes null."""
    typer.echo(json.dumps(finite(value, lambda number: None), allow_nan=False))


def finite(value: Any, instead: Callable[[float], Any]) -> Any:
    """A value of builtins with something instead of each number that JSON has not."""
    match value:
        case float() if not math.isfinite(value):
            return instead(value)
        case dict():
            return {name: finite(each, instead) for name, each in value.items()}
        case list() | tuple():
            return [finite(each, instead) for each in value]
    return value

"""Descriptions in TOML files, checked as they are read."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TypeVar

import msgspec

from chalk_online_store.errors import InvalidValue

T = TypeVar("T")


def read_toml(path: Path, kind: type[T]) -> T:
    """What a TOML file says, as a struct; raises `InvalidValue` naming the file and the place."""
    try:
        return msgspec.convert(tomllib.loads(path.read_text()), kind)
    except OSError as error:
        raise InvalidValue(f"{path} cannot be read: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise InvalidValue(f"{path}: {error}") from None

"""How far a command has come, kept on disk, so that it goes on after an interruption."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeVar

import msgspec

from chalk_online_store.errors import InvalidValue

P = TypeVar("P", bound=msgspec.Struct)


def load_checkpoint(path: Path, kind: type[P], what: str) -> P | None:
    """What was kept of such a command, None where nothing was; raises `InvalidValue`."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError:
        raise InvalidValue(f"{path} is no progress of a {what}: remove it.") from None


def save_checkpoint(path: Path, progress: msgspec.Struct) -> None:
    """Put progress on disk, whole or not at all."""
    beside = path.with_name(f"{path.name}.new")
    with beside.open("wb") as file:
        file.write(msgspec.json.encode(progress))
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)

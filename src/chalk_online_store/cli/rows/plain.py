"""Values as JSON has them: bytes as base64, moments and Decimals as text.

`chalk_online_store.integrations.json_rows` reads them.
"""

from __future__ import annotations

from decimal import InvalidOperation
from typing import Any

import msgspec
import numpy as np

from chalk_online_store.cli.json_output import finite


def to_plain(value: Any) -> Any:
    """A value of any feature type, for `json.dumps`; what JSON lacks of floats becomes text."""
    try:
        builtins = msgspec.to_builtins(value, order="deterministic", enc_hook=_other)
    except (TypeError, InvalidOperation):  # Enums and NaN of Decimal have no order within a set.
        builtins = msgspec.to_builtins(value, enc_hook=_other)
    return finite(msgspec.to_builtins(builtins), str)  # Once more for the bytes of an Enum.


def _other(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if hasattr(value, "model_dump"):  # pydantic's
        return value.model_dump()
    raise NotImplementedError(type(value).__name__)

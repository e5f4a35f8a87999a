"""Holding what is read to its source: bit for bit, with its status and its observed-at."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import numpy as np

from chalk_online_store.cli.demo.workload import Truth
from chalk_online_store.operations.rows import Answer, Rows, Status

_EXAMPLES = 5


@dataclass
class Verdict:
    """How many values were compared, and how many of them differ, with some examples."""

    checked: int = 0
    wrong: int = 0
    examples: list[str] = field(default_factory=list)

    def check(self, rows: Rows, truth: Mapping[Any, Mapping[str, Truth]]) -> None:
        """Compare every feature of every row, both by column and one by one."""
        for name, values in rows.to_dict().items():
            for index, (key, value) in enumerate(zip(rows.keys, values, strict=True)):
                answer, expected = rows.answer(index, name), truth[key][name]
                self.checked += 1
                if not is_exactly(answer, expected) or bits(value) != bits(expected.value):
                    self._blame(f"{name} of {key}: {answer}, {value!r} by column, not {expected}")

    def _blame(self, what: str) -> None:
        self.wrong += 1
        if len(self.examples) < _EXAMPLES:
            self.examples.append(what)


def is_exactly(answer: Answer, truth: Truth) -> bool:
    """Whether a read answers the very value, of the very type, at its own time."""
    status = Status.NULL if truth.value is None else Status.HIT
    return (
        answer.status is status
        and answer.observed_at == truth.observed_at
        and bits(answer.value) == bits(truth.value)
    )


def bits(value: Any) -> Any:
    """What two values share only if nothing tells them apart: NaN and -0.0 included."""
    match value:
        case float():
            return float, struct.pack("<d", value)
        case Decimal():
            return Decimal, value.as_tuple()
        case np.ndarray():
            return value.dtype, value.shape, value.tobytes()
        case _:
            return type(value), value

"""Values that cannot be decoded: each concerns its own cell, on every engine and in every form."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any, Literal
from uuid import UUID

import pytest

from chalk_online_store import (
    DamagedValue,
    Document,
    Feature,
    IncompleteRow,
    InvalidValue,
    LRUCache,
    Namespace,
    ReadFailed,
    Vector,
)
from chalk_online_store.codec.changes import Change
from chalk_online_store.codec.layout import ItemKey
from tests.contract.conftest import Open
from tests.contract.test_registry import run, soon
from tests.contract.test_writes import T0, at

vector: Any = Vector


class Old(Enum):
    LOW = "low"


class New(Enum):
    LOW = "low"
    HIGH = "high"


@dataclass
class Address:
    street: str
    number: int

    def __post_init__(self) -> None:
        if self.number < 0:
            raise ValueError("secret")


DAMAGE: dict[str, tuple[Any, Any, bytes]] = {
    "choice": (Old, Old.LOW, b'{"S":"high"}'),
    "literal": (Literal["s", "m"], "s", b'{"S":"secret"}'),
    "count": (int, 1, b'{"N":"1.5"}'),
    "wrong": (int, 1, b'{"S":"secret"}'),
    "price": (Decimal, Decimal("1.5"), b'{"S":"secret"}'),
    "seen": (datetime, at(1), b'{"N":"1%s"}' % (b"0" * 30)),
    "day": (date, date(2026, 1, 1), b'{"N":"1000000000"}'),
    "token": (UUID, UUID(int=1), b'{"B":"AAAA"}'),
    "embedding": (vector[2, "f4"], [1, 2], b'{"B":"AAAA"}'),
    "tags": (list[int], [1], b'{"L":[{"N":"1"},{"N":"1.5"}]}'),
    "names": (list[Old], [Old.LOW], b'{"L":[{"S":"low"},{"S":"high"}]}'),
    "pair": (tuple[int, str], (1, "x"), b'{"L":[{"N":"1"}]}'),
    "sizes": (dict[str, int], {"a": 1}, b'{"M":{"a":{"S":"secret"}}}'),
    "address": (Address, Address("x", 1), b'{"M":{"a":{"S":"x"},"b":{"N":"-1"}}}'),
    "street": (Address, Address("x", 1), b'{"M":{"a":{"N":"1"},"b":{"N":"1"}}}'),
    "document": (Document, {"a": 1}, b'{"B":"wQ=="}'),
}
KINDS = Namespace(
    "user",
    int,
    [Feature("fine", str), *(Feature(name, kind) for name, (kind, _, _) in DAMAGE.items())],
)
GOOD = {"fine": "x"} | {name: value for name, (_, value, _) in DAMAGE.items()}
STATUSES = ["hit", "failed", "hit"]


@pytest.mark.parametrize("cache", [None, LRUCache(100)], ids=["plain", "cached"])
def test_a_damaged_value_concerns_its_own_cell(
    open_store: Open, url: str, cache: LRUCache | None
) -> None:
    """The other values of its row and of its column are served; it is failed, with a position."""
    store = open_store([KINDS], lru_cache=cache)
    store.write(KINDS, [{"id": key, **GOOD} for key in range(3)], observed_at=at(1))
    ids = [column.id for column in store.core.registry.present(KINDS).groups["default"].columns]
    attributes = [b'{"S":"x"}', *(attribute for _, _, attribute in DAMAGE.values())]
    values = dict(zip(ids, attributes, strict=True))
    time = (at(2) - T0).seconds * 1_000_000 + int(T0.timestamp()) * 1_000_000
    change = Change.of(ItemKey("a:1", "a"), time, values, True, len(ids), None)
    run(url, lambda backend: backend.replace([change], soon()))
    store = open_store([KINDS], lru_cache=cache)
    for _ in range(2):
        rows = store.read(KINDS, [0, 1, 2])
        assert rows.column("fine") == ["x"] * 3
        for name in DAMAGE:
            assert [status.value for status in rows.statuses(name)] == STATUSES, name
            for ask in (rows.column, rows[1].__getitem__, rows.to_numpy):
                with pytest.raises(DamagedValue, match=rf"position 1 .*user\.{name}") as failed:
                    ask(name)
                assert "secret" not in str(failed.value)
            found = rows.column(name, skip_failed=True)
            assert (found[0] is not None, found[1], found[2] is not None) == (True, None, True)
            assert (rows[1].get(name, "default"), rows[1].observed_at(name)) == ("default", at(2))
            assert rows.times(name) == [time - 60_000_000, time, time - 60_000_000]
        (single,) = store.read(KINDS, [1], ["fine", "count"])
        assert (single["fine"], single.status("count")) == ("x", "failed")
    with pytest.raises(ReadFailed, match="position 1"):
        rows.to_dict()
    skipped = rows.to_arrow(statuses=True, skip_failed=True).to_pydict()
    for name in DAMAGE:
        assert [value is None for value in skipped[name]] == [False, True, False]
        assert skipped[f"{name}.status"] == STATUSES
    store.write(KINDS, [{"id": 1, **GOOD}])
    assert store.read(KINDS, [0, 1, 2], consistent=True).statuses("count") == ["hit"] * 3


def test_an_unknown_choice_leaves_the_batch(open_store: Open) -> None:
    """A process that does not know a choice yet reads all other entities of the batch."""
    older = Namespace("user", int, [Feature("risk", Old)])
    newer = Namespace("user", int, [Feature("risk", New)])
    old, new = open_store([older]), open_store([newer])
    old.write(older, [{"id": key, "risk": Old.LOW} for key in range(100)])
    new.write(newer, [{"id": 50, "risk": New.HIGH}])
    rows = old.read(older, range(100))
    assert [i for i, status in enumerate(rows.statuses("risk")) if status == "failed"] == [50]
    assert rows.column("risk", skip_failed=True).count(Old.LOW) == 99
    with pytest.raises(DamagedValue, match="'risk' of the key at position 50"):
        rows.to_dict()


@dataclass
class Strict:
    id: int
    count: int

    def __post_init__(self) -> None:
        if self.count == 2:
            raise ValueError("secret")


def test_rows_of_classes_with_damaged_values(open_store: Open) -> None:
    """A failed value raises with its position, or is lacking; a class that refuses is named."""
    text = Namespace("user", int, [Feature("address", Address), Feature("count", Old)])
    store = open_store([text])
    choices = Namespace("user", int, [Feature("address", Address), Feature("count", New)])
    for key, choice in enumerate((New.LOW, New.HIGH)):
        row = {"id": key, "address": Address("x", key), "count": choice}
        open_store([choices]).write(choices, [row])

    @dataclass
    class Counted:
        id: int
        count: Old

    rows = store.read(text, [0, 1])
    with pytest.raises(DamagedValue, match="position 1"):
        rows.to(Counted)
    with pytest.raises(IncompleteRow) as incomplete:
        rows.to(Counted, skip_failed=True)
    assert incomplete.value.lacking == {1: {"count": "failed"}}
    assert rows.to(Counted, None, skip_failed=True) == [Counted(0, Old.LOW), None]

    strict = Namespace("strict", int, [Feature("count", int)])
    store = open_store([strict])
    store.write(strict, [{"id": key, "count": key} for key in range(4)])
    rows = store.read(strict, range(4))
    with pytest.raises(InvalidValue, match="row at position 2 cannot become a Strict") as refused:
        rows.to(Strict)
    assert "secret" not in str(refused.value)
    assert [row is None for row in rows.to(Strict, None)] == [False, False, True, False]

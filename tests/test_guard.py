"""The guard before sending: no item above DynamoDB's 400 KB leaves the process."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from chalk_online_store import ItemTooLarge, features
from chalk_online_store.codec.sizes import MAX_ITEM_BYTES, value_size
from chalk_online_store.planning.explain import explain
from tests.fakes import SimulatedStore
from tests.strategies import floats, ints

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)


@features
class Page:
    id: str
    text: str
    body: bytes
    score: float
    rank: int


sizes = st.integers(MAX_ITEM_BYTES - 3, MAX_ITEM_BYTES + 3) | st.integers(1_000, 500_000)
characters = st.sampled_from(["a", '"', "\x00", "é", "☃", "\U0001f600"])


def a_row(size: int, score: float, rank: int, character: str, share: float) -> dict[str, Any]:
    """A row whose item has so many bytes, of which the text has a share."""
    row = {"id": "k☃", "text": "", "body": b"", "score": score, "rank": rank}
    left = size - explain(Page, row, NOW).bytes
    text = character * int(left * share / len(character.encode()))
    return {**row, "text": text, "body": bytes(left - len(text.encode()))}


@pytest.mark.parametrize("ordering", ["event", "arrival"])
@given(size=sizes, score=floats, rank=ints, character=characters, share=st.floats(0, 1))
def test_just_what_is_too_large_is_refused_and_not_sent(
    ordering: str, size: int, score: float, rank: int, character: str, share: float
) -> None:
    """An item of 409,600 bytes is sent, whatever it holds, and one of 409,601 is not."""
    store = SimulatedStore([Page])
    row = a_row(size, score, rank, character, share)
    if size <= MAX_ITEM_BYTES:
        store.write(Page, [row], observed_at=NOW, ordering=ordering)
        assert store.sent("UpdateItem" if ordering == "event" else "BatchWriteItem")
        return
    rows = [{**row, "id": "small", "body": b"", "text": ""}, row]
    with pytest.raises(ItemTooLarge, match=f"{size:,} bytes"):
        store.write(Page, rows, observed_at=NOW, ordering=ordering)
    assert store.driver.sent == []


def in_base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def nested(values: SearchStrategy[Any]) -> SearchStrategy[Any]:
    lists = st.builds(lambda some: {"L": some}, st.lists(values, max_size=3))
    maps = st.builds(lambda some: {"M": some}, st.dictionaries(st.text(), values, max_size=3))
    return lists | maps


scalars = (
    st.builds(lambda text: {"S": text}, st.text())
    | st.builds(lambda raw: {"B": in_base64(raw)}, st.binary())
    | st.builds(lambda number: {"N": str(number)}, ints)
    | st.sampled_from([{"NULL": True}, {"BOOL": False}])
    | st.builds(lambda some: {"BS": list(map(in_base64, some))}, st.lists(st.binary(), min_size=1))
)


@given(st.recursive(scalars, nested))
def test_json_is_longer_than_what_is_counted(value: dict[str, Any]) -> None:
    """So the guard need not count what is short as JSON, and looks at large items only."""
    assert value_size(value) < len(msgspec.json.encode(value))

"""Request bodies of reads: joined from bytes, and the JSON that they should be."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chalk_online_store import Feature
from chalk_online_store.codec.layout import TableLayout
from chalk_online_store.codec.shapes import Column, Shape
from chalk_online_store.dynamodb.bodies import Bodies, ReadBodies
from tests.helpers import stress

LAYOUTS = [TableLayout(), TableLayout('p"k%b', "s\\k%d", "\u00e9")]
texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8) | st.sampled_from(
    ['","', '\\","', '"},"', "%b", "a:1", "\\", '"']
)


def reads_of(layout: TableLayout, sks: list[str], *, projected: bool) -> ReadBodies:
    columns = (Column("a", Feature("x", int), "user.x"), Column("%b", Feature("y", int), "user.y"))
    return Bodies("t", layout).reads(sks, Shape(layout, columns, projected))


def names_of(layout: TableLayout, *, projected: bool) -> dict[str, Any]:
    if not projected:
        return {}
    names = [layout.pk, layout.sk, "@", "~", "a", "@a", "%b", "@%b"]
    aliases = {f"#{i}": name for i, name in enumerate(names)}
    return {"ProjectionExpression": ",".join(aliases), "ExpressionAttributeNames": aliases}


every_layout = pytest.mark.parametrize("layout", LAYOUTS, ids=["plain", "odd"])
quick = settings(max_examples=stress(40))


@every_layout
@quick
@given(st.lists(texts, min_size=1, max_size=4), texts, st.booleans(), st.booleans())
def test_a_batch_get_asks_for_its_keys(
    layout: TableLayout, pks: list[str], sk: str, consistent: bool, projected: bool
) -> None:
    """Whatever is in a key, the body is the JSON with that key, and with the options asked for."""
    body = json.loads(reads_of(layout, [sk], projected=projected).batch_get(pks, consistent))
    asked = {
        **names_of(layout, projected=projected),
        **({"ConsistentRead": True} if consistent else {}),
        "Keys": [{layout.pk: {"S": pk}, layout.sk: {"S": sk}} for pk in pks],
    }
    assert body == {"RequestItems": {"t": asked}, "ReturnConsumedCapacity": "TOTAL"}


@every_layout
@quick
@given(texts, texts, st.booleans(), st.booleans())
def test_a_get_asks_for_its_key(
    layout: TableLayout, pk: str, sk: str, consistent: bool, projected: bool
) -> None:
    """The same of a single item."""
    body = json.loads(reads_of(layout, [sk], projected=projected).get(pk, consistent))
    assert body == {
        "TableName": "t",
        "Key": {layout.pk: {"S": pk}, layout.sk: {"S": sk}},
        **names_of(layout, projected=projected),
        **({"ConsistentRead": True} if consistent else {}),
        "ReturnConsumedCapacity": "TOTAL",
    }


@every_layout
@quick
@given(texts, st.lists(texts, min_size=2, max_size=3), st.booleans(), st.booleans())
def test_a_query_asks_from_the_first_to_the_last_sort_key(
    layout: TableLayout, pk: str, sks: list[str], projected: bool, continues: bool
) -> None:
    """A Query of several groups spans them all, and begins where the last page ended."""
    start = {"x": {"S": "1"}} if continues else {}
    reads = reads_of(layout, sks, projected=projected)
    body = json.loads(reads.query(pk, True, json.dumps(start).encode() if continues else b""))
    names = names_of(layout, projected=projected)
    aliases = {**names.pop("ExpressionAttributeNames", {}), "#p": layout.pk, "#s": layout.sk}
    assert body == {
        "TableName": "t",
        **names,
        **({"ExclusiveStartKey": start} if continues else {}),
        "ExpressionAttributeNames": aliases,
        "KeyConditionExpression": "#p=:p AND #s BETWEEN :a AND :b",
        "ExpressionAttributeValues": {
            ":a": {"S": min(sks)},
            ":b": {"S": max(sks)},
            ":p": {"S": pk},
        },
        "ConsistentRead": True,
        "ReturnConsumedCapacity": "TOTAL",
    }

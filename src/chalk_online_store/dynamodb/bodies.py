"""Request bodies, joined from bytes that are already JSON."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import msgspec

from chalk_online_store.codec.changes import (
    Attributes,
    Change,
    render_fresh,
    render_item,
)
from chalk_online_store.codec.layout import ItemKey, TableLayout
from chalk_online_store.codec.shapes import Shape
from chalk_online_store.codec.swaps import Swap

_json = msgspec.json.encode


@lru_cache(maxsize=1024)
def _projection(names: tuple[str, ...]) -> bytes:
    aliases = {f"#{i}": name for i, name in enumerate(names)}
    return b'"ProjectionExpression":%b,"ExpressionAttributeNames":%b,' % (
        _json(",".join(aliases)),
        _json(aliases),
    )


class Bodies:
    """The bodies of requests to one table."""

    def __init__(self, table: str, layout: TableLayout) -> None:
        self.layout = layout
        self._table = _json(table)
        self._pk = _json(layout.pk)
        self._sk = _json(layout.sk)

    def key(self, key: ItemKey) -> bytes:
        """A key as DynamoDB's JSON."""
        return b'{%b:{"S":%b},%b:{"S":%b}}' % (self._pk, _json(key.pk), self._sk, _json(key.sk))

    def _options(self, shape: Shape, consistent: bool) -> bytes:
        projection = _projection(tuple(shape.attribute_names)) if shape.projected else b""
        return b'"ConsistentRead":true,' + projection if consistent else projection

    def get(self, key: ItemKey, shape: Shape, consistent: bool) -> bytes:
        """GetItem."""
        return b'{"TableName":%b,"Key":%b,%b"ReturnConsumedCapacity":"TOTAL"}' % (
            self._table,
            self.key(key),
            self._options(shape, consistent),
        )

    def get_whole(self, key: ItemKey) -> bytes:
        """GetItem of all attributes, strongly read."""
        return (
            b'{"TableName":%b,"Key":%b,"ConsistentRead":true,"ReturnConsumedCapacity":"TOTAL"}'
            % (
                self._table,
                self.key(key),
            )
        )

    def batch_get(self, keys: Iterable[ItemKey], shape: Shape, consistent: bool) -> bytes:
        """BatchGetItem of at most 100 keys."""
        return b'{"RequestItems":{%b:{%b"Keys":[%b]}},"ReturnConsumedCapacity":"TOTAL"}' % (
            self._table,
            self._options(shape, consistent),
            b",".join(map(self.key, keys)),
        )

    def batch_write(self, changes: Iterable[Change]) -> bytes:
        """BatchWriteItem of at most 25 items: puts, and deletes of what a change erases."""
        requests = b",".join(map(self._write_request, changes))
        return b'{"RequestItems":{%b:[%b]},"ReturnConsumedCapacity":"TOTAL"}' % (
            self._table,
            requests,
        )

    def _write_request(self, change: Change) -> bytes:
        if change.erases:
            return b'{"DeleteRequest":{"Key":%b}}' % self.key(change.key)
        return b'{"PutRequest":{"Item":%b}}' % render_fresh(self.layout, change)

    def delete(self, key: ItemKey) -> bytes:
        """DeleteItem, unconditionally."""
        return b'{"TableName":%b,"Key":%b,"ReturnConsumedCapacity":"TOTAL"}' % (
            self._table,
            self.key(key),
        )

    def put(self, item: Attributes, condition: bytes) -> bytes:
        """PutItem under a condition, given as the members of the request that state it."""
        return (
            b'{"TableName":%b,"Item":%b,%b,"ReturnConsumedCapacity":"TOTAL",'
            b'"ReturnValuesOnConditionCheckFailure":"ALL_OLD"}'
        ) % (self._table, render_item(item), condition)

    def update(self, key: ItemKey, expressions: bytes) -> bytes:
        """UpdateItem; `expressions` are the members of the request that say what and when."""
        return (
            b'{"TableName":%b,"Key":%b,%b,"ReturnConsumedCapacity":"TOTAL",'
            b'"ReturnValuesOnConditionCheckFailure":"ALL_OLD"}'
        ) % (self._table, self.key(key), expressions)

    def query(self, pk: str, after: str, start: bytes = b"") -> bytes:
        """Query of a partition's items whose sort key is greater than `after`, strongly read."""
        page = b'"ExclusiveStartKey":%b,' % start if start else b""
        return (
            b'{"TableName":%b,"KeyConditionExpression":"#p=:p AND #s>:s",%b'
            b'"ExpressionAttributeNames":{"#p":%b,"#s":%b},'
            b'"ExpressionAttributeValues":{":p":{"S":%b},":s":{"S":%b}},'
            b'"ConsistentRead":true,"ReturnConsumedCapacity":"TOTAL"}'
        ) % (self._table, page, self._pk, self._sk, _json(pk), _json(after))

    def transact(self, swaps: Iterable[Swap]) -> bytes:
        """TransactWriteItems of at most 100 swaps."""
        actions = b",".join(map(self._action, swaps))
        return b'{"TransactItems":[%b],"ReturnConsumedCapacity":"TOTAL"}' % actions

    def _action(self, swap: Swap) -> bytes:
        condition = self._unchanged(swap.before)
        if swap.after is not None:
            item = render_item(swap.after)
            return b'{"Put":{"TableName":%b,"Item":%b,%b}}' % (self._table, item, condition)
        key = self.key(swap.key(self.layout))
        return b'{"Delete":{"TableName":%b,"Key":%b,%b}}' % (self._table, key, condition)

    def _unchanged(self, item: Attributes | None) -> bytes:
        """The members that state the condition that an item is still the same."""
        if item is None:
            return (
                b'"ConditionExpression":"attribute_not_exists(#p)",'
                b'"ExpressionAttributeNames":{"#p":%b}'
            ) % self._pk
        names = [name for name in item if name not in (self.layout.pk, self.layout.sk)]
        return (
            b'"ConditionExpression":%b,"ExpressionAttributeNames":%b,'
            b'"ExpressionAttributeValues":{%b}'
        ) % (
            _json(" AND ".join(f"#{i}=:{i}" for i in range(len(names)))),
            _json({f"#{i}": name for i, name in enumerate(names)}),
            b",".join(b'":%d":%b' % (i, item[name]) for i, name in enumerate(names)),
        )

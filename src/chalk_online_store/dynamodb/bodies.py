"""Request bodies, joined from bytes that are already JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from chalk_online_store.codec.changes import (
    Attributes,
    Change,
    ConditionalWrite,
    render_fresh,
    render_item,
)
from chalk_online_store.codec.compiled import kernels
from chalk_online_store.codec.layout import ItemKey, TableLayout
from chalk_online_store.codec.nearest import VectorQuery
from chalk_online_store.codec.shapes import Shape

_json = msgspec.json.encode


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

    def get_whole(self, key: ItemKey) -> bytes:
        """GetItem of all attributes, strongly read."""
        return (
            b'{"TableName":%b,"Key":%b,"ConsistentRead":true,"ReturnConsumedCapacity":"TOTAL"}'
            % (
                self._table,
                self.key(key),
            )
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
        return b'{"TableName":%b,"Key":%b,%b}' % (self._table, self.key(key), _ACKNOWLEDGED)

    def put(self, item: bytes, condition: bytes) -> bytes:
        """PutItem under a condition, given as the members of the request that state it."""
        return (
            b'{"TableName":%b,"Item":%b,%b,%b,"ReturnValuesOnConditionCheckFailure":"ALL_OLD"}'
        ) % (self._table, item, condition, _ACKNOWLEDGED)

    def update(self, key: ItemKey, expressions: bytes) -> bytes:
        """UpdateItem; `expressions` are the members of the request that say what and when."""
        return (
            b'{"TableName":%b,"Key":%b,%b,%b,"ReturnValuesOnConditionCheckFailure":"ALL_OLD"}'
        ) % (self._table, self.key(key), expressions, _ACKNOWLEDGED)

    def batch_get(self, keys: Iterable[ItemKey], consistent: bool) -> bytes:
        """BatchGetItem of at most 100 items of any groups, with all attributes."""
        return b'{"RequestItems":{%b:{%b"Keys":[%b]}},%b' % (
            self._table,
            _STRONG[consistent],
            b",".join(map(self.key, keys)),
            _COUNTED,
        )

    def reads(self, sks: Sequence[str], shape: Shape) -> ReadBodies:
        """The requests for items of these sort keys, read as one shape."""
        return ReadBodies(self._table, self.layout, tuple(sks), shape)

    def query(self, pk: str, after: str, start: bytes = b"") -> bytes:
        """Query of a partition's items whose sort key is greater than `after`, strongly read."""
        page = b'"ExclusiveStartKey":%b,' % start if start else b""
        return (
            b'{"TableName":%b,"KeyConditionExpression":"#p=:p AND #s>:s",%b'
            b'"ExpressionAttributeNames":{"#p":%b,"#s":%b},'
            b'"ExpressionAttributeValues":{":p":{"S":%b},":s":{"S":%b}},'
            b'"ConsistentRead":true,"ReturnConsumedCapacity":"TOTAL"}'
        ) % (self._table, page, self._pk, self._sk, _json(pk), _json(after))

    def transact(self, swaps: Iterable[ConditionalWrite]) -> bytes:
        """TransactWriteItems of at most 100 swaps."""
        actions = b",".join(map(self._action, swaps))
        return b'{"TransactItems":[%b],"ReturnConsumedCapacity":"TOTAL"}' % actions

    def search_of_no_index(self) -> bytes:
        """SearchVectors of an index that no table has."""
        return b'{"TableName":%b,"IndexName":"%b","SearchVector":[{"N":"1"}],"TopK":1}' % (
            self._table,
            _NO_INDEX,
        )

    def search(self, query: VectorQuery, vector: Sequence[float]) -> bytes:
        """SearchVectors for one vector: keys, and the attributes that the query wants."""
        names = {"#p": self.layout.pk, "#s": self.layout.sk}
        names |= {f"#{i}": name for i, name in enumerate(query.projected)}
        projection = ",".join(names)
        names |= {f"#c{i}": each.id for i, each in enumerate(query.conditions)}
        conditions = b""
        if query.conditions:
            places = range(len(query.conditions))
            conditions = b'"SearchConditionExpression":%b,"ExpressionAttributeValues":{%b},' % (
                _json(" AND ".join(f"#c{i} = :c{i}" for i in places)),
                b",".join(
                    b'":c%d":%b' % (i, each.attribute) for i, each in enumerate(query.conditions)
                ),
            )
        numbers = b'"},{"N":"'.join(_json(vector)[1:-1].split(b","))
        return (
            b'{"TableName":%b,"IndexName":%b,"SearchVector":[{"N":"%b"}],"TopK":%d,'
            b'"ProjectionExpression":%b,"ExpressionAttributeNames":%b,%b'
            b'"ReturnConsumedCapacity":"INDEXES"}'
        ) % (
            self._table,
            _json(query.index),
            numbers,
            query.k,
            _json(projection),
            _json(names),
            conditions,
        )

    def _action(self, swap: ConditionalWrite) -> bytes:
        operation, members = self._members(swap)
        return b'{"%b":{%b}}' % (operation.encode(), members)

    def swap(self, swap: ConditionalWrite) -> tuple[str, bytes]:
        """The operation that performs a single swap, and its body."""
        operation, members = self._members(swap)
        return f"{operation}Item", b"{%b,%b}" % (members, _ACKNOWLEDGED)

    def _members(self, swap: ConditionalWrite) -> tuple[str, bytes]:
        condition = self._unchanged(swap.before)
        if swap.after is not None:
            item = render_item(swap.after)
            return "Put", b'"TableName":%b,"Item":%b,%b' % (self._table, item, condition)
        key = self.key(swap.key(self.layout))
        return "Delete", b'"TableName":%b,"Key":%b,%b' % (self._table, key, condition)

    def scan(
        self, segment: int, segments: int, start: bytes, limit: int, *, keys_only: bool
    ) -> bytes:
        """Scan of one segment: of whole items, or for keys alone."""
        page = b'"ExclusiveStartKey":%b,' % start if start else b""
        return (
            b'{"TableName":%b,"Segment":%d,"TotalSegments":%d,"Limit":%d,%b%b'
            b'"ReturnConsumedCapacity":"TOTAL"}'
        ) % (self._table, segment, segments, limit, page, self._projected if keys_only else b"")

    @property
    def _projected(self) -> bytes:
        return (b'"ProjectionExpression":"#p,#s","ExpressionAttributeNames":{"#p":%b,"#s":%b},') % (
            self._pk,
            self._sk,
        )

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


class ReadBodies:
    """Requests for items of some sort keys of one table, all but the partition keys prepared."""

    def __init__(
        self, table: bytes, layout: TableLayout, sks: tuple[str, ...], shape: Shape
    ) -> None:
        pk, sk = _json(layout.pk), _json(layout.sk)
        self._before = b'{%b:{"S":' % pk
        self._after = b'},%b:{"S":%b}}' % (sk, _json(sks[0]))
        self._between = b'"%b,%b"' % (self._after, self._before)  # … keys without escapes.
        names = shape.attribute_names if shape.projected else []
        aliases = {f"#{i}": name for i, name in enumerate(names)}
        options = b'"ProjectionExpression":%b,' % _json(",".join(aliases)) if aliases else b""
        named = b'"ExpressionAttributeNames":%b,' % _json(aliases) if aliases else b""
        self._get = b'{"TableName":%b,%b%b' % (table, options, named)
        batch_get = b'{"RequestItems":{%b:{%b%b' % (table, options, named)
        self._batch_get = {
            consistent: b'%b%b"Keys":[' % (batch_get, strong)
            for consistent, strong in _STRONG.items()
        }
        self._kernels = kernels()
        self._query = (
            b'{"TableName":%b,%b"ExpressionAttributeNames":%b,'
            b'"KeyConditionExpression":"#p=:p AND #s BETWEEN :a AND :b",'
            b'"ExpressionAttributeValues":{":a":{"S":%b},":b":{"S":%b},":p":{"S":'
        ) % (
            table,
            options,
            _json(aliases | {"#p": layout.pk, "#s": layout.sk}),
            _json(min(sks)),
            _json(max(sks)),
        )

    def get(self, pk: str, consistent: bool) -> bytes:
        """GetItem of the first sort key."""
        return b"".join((self._get, b'"Key":', self._key(pk), b",", _STRONG[consistent], _COUNTED))

    def batch_get(self, pks: Sequence[str], consistent: bool) -> bytes:
        """BatchGetItem of at most 100 items, of the first sort key."""
        if self._kernels is not None and type(pks) is list:
            body: bytes | None = self._kernels.key_list(
                self._batch_get[consistent], self._before + b'"', b'"' + self._after, _END, pks
            )
            if body is not None:
                return body
        texts = _json(pks)
        # A key that has a quote, or is a comma, would be split in two below.
        if b"\\" in texts or b',","' in texts or b'[","' in texts:
            keys = b",".join(map(self._key, pks))
        else:
            keys = texts[1:-1].replace(b'","', self._between)
            keys = b"".join((self._before, keys, self._after))
        return b"".join((self._batch_get[consistent], keys, _END))

    def _key(self, pk: str) -> bytes:
        return b"".join((self._before, _json(pk), self._after))

    def query(self, pk: str, consistent: bool, start: bytes = b"") -> bytes:
        """Query of every item of a partition from the first to the last sort key."""
        page = b'"ExclusiveStartKey":%b,' % start if start else b""
        return b"".join((self._query, _json(pk), b"}},", page, _STRONG[consistent], _COUNTED))


_NO_INDEX = b"health-check"
"""Names of indexes have a dot."""

_COUNTED = b'"ReturnConsumedCapacity":"TOTAL"}'

_END = b"]}}," + _COUNTED

_ACKNOWLEDGED = b'"ReturnConsumedCapacity":"INDEXES"'
"""For writes of one item: it makes their responses differ from reads that found no item."""

_STRONG = {False: b"", True: b'"ConsistentRead":true,'}

"""DynamoDB's answers: typed decoding, and a class for every way to fail."""

from __future__ import annotations

import importlib
import itertools
import zlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import lru_cache
from operator import attrgetter
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypeAlias, TypeVar

import msgspec

from chalk_online_store import errors
from chalk_online_store.codec.changes import key_of, parse_item
from chalk_online_store.codec.compiled import Frame
from chalk_online_store.codec.decoding import Row
from chalk_online_store.codec.layout import ItemKey
from chalk_online_store.codec.shapes import Shape
from chalk_online_store.codec.values import UNREADABLE
from chalk_online_store.dynamodb.failures import CheckFailure, failure, identify
from chalk_online_store.dynamodb.messages import Response

R = TypeVar("R")
T_co = TypeVar("T_co", covariant=True)

_ABSENT = msgspec.Raw(b"")
_NO_ITEM = msgspec.Raw(b"null")

RawItem: TypeAlias = dict[str, msgspec.Raw]
"""An item whose attributes are still JSON."""


class Mismatch(Exception):
    """An answer belongs to another request. The text has the reason, without keys and values."""


class Decoder(Protocol[T_co]):
    """What makes an answer of a body; raises as msgspec does."""

    def decode(self, body: bytes, /) -> T_co:
        """The answer in a body."""
        ...


class IndexCapacity(msgspec.Struct, gc=False):
    """Bytes that were written to one vector index."""

    VectorWriteRequestBytes: float = 0.0


class Capacity(msgspec.Struct, gc=False):
    """Consumed capacity units of one table, and the bytes of its vector indexes."""

    CapacityUnits: float = 0.0
    TableName: str | None = None
    Table: msgspec.Raw = _ABSENT
    VectorIndexes: dict[str, IndexCapacity] = {}

    @property
    def index_bytes(self) -> float:
        """The bytes that were written to vector indexes."""
        return sum(index.VectorWriteRequestBytes for index in self.VectorIndexes.values())

    @property
    def has_detail(self) -> bool:
        """True if the engine reports the table apart from its indexes, as `INDEXES` asks for."""
        return self.Table is not _ABSENT


class Answer(msgspec.Struct, kw_only=True):
    """The members that distinguish the answers to different operations."""

    own: ClassVar[frozenset[str]] = frozenset()
    """The members that an answer of this class may have."""

    Item: msgspec.Raw = _ABSENT
    Items: msgspec.Raw = _ABSENT
    Attributes: msgspec.Raw = _ABSENT
    Responses: msgspec.Raw = _ABSENT
    UnprocessedKeys: msgspec.Raw = _ABSENT
    UnprocessedItems: msgspec.Raw = _ABSENT
    SearchResults: msgspec.Raw = _ABSENT

    def is_foreign(self) -> bool:
        """Return True if it has members of the answer to another operation."""
        members, count = _foreign_members(type(self))
        return members(self).count(_ABSENT) < count


_TELLING = frozenset(Answer.__struct_fields__)


@lru_cache
def _foreign_members(kind: type[Answer]) -> tuple[Callable[[Answer], tuple[Any, ...]], int]:
    names = _TELLING - kind.own
    return attrgetter(*names), len(names)


class OneTable(Answer):
    """An answer that concerns one item or page."""

    ConsumedCapacity: Capacity | None = None

    @property
    def units(self) -> float:
        """The capacity units that were consumed; 0 where the engine counts none."""
        return self.ConsumedCapacity.CapacityUnits if self.ConsumedCapacity else 0.0


class Tables(Answer):
    """An answer that could concern several tables."""

    ConsumedCapacity: list[Capacity] = []

    @property
    def units(self) -> float:
        """As `OneTable.units`."""
        return sum([table.CapacityUnits for table in self.ConsumedCapacity])


class WriteResponse(OneTable):
    """PutItem, UpdateItem, DeleteItem."""

    own = frozenset({"Attributes"})

    @property
    def index_bytes(self) -> float:
        """The bytes that were written to vector indexes."""
        return self.ConsumedCapacity.index_bytes if self.ConsumedCapacity else 0.0


class SearchCapacity(msgspec.Struct, gc=False):
    """The bytes that a search examined and returned."""

    VectorSearchRequestBytes: float = 0.0


class SearchResult(msgspec.Struct):
    """An item of a vector index, and how near it is."""

    Item: RawItem
    Score: float


class Found(Answer, kw_only=True):
    """SearchVectors."""

    own = frozenset({"SearchResults"})

    SearchResults: list[SearchResult]  # type: ignore[assignment]
    ConsumedCapacity: SearchCapacity | None = None

    @property
    def units(self) -> float:
        """A search takes no capacity units: it is billed by its bytes."""
        return 0.0

    @property
    def search_bytes(self) -> float:
        """The bytes that are billed; 0 for an engine that counts none."""
        return self.ConsumedCapacity.VectorSearchRequestBytes if self.ConsumedCapacity else 0.0


class Transacted(Tables):
    """TransactWriteItems."""


class GetItemResponse(OneTable, Generic[R]):
    """GetItem."""

    own = frozenset({"Item"})

    # Not `R | None`: msgspec takes no Raw for it.
    Item: R = None  # type: ignore[assignment]

    def items(self) -> Iterable[R]:
        """The item, if there is one."""
        return [] if self.Item in (None, _NO_ITEM) else [self.Item]


class QueryResponse(OneTable, Generic[R], kw_only=True):
    """Query and Scan."""

    own = frozenset({"Items"})

    Items: list[R]  # type: ignore[assignment]
    Count: int | None = None
    LastEvaluatedKey: msgspec.Raw = _ABSENT

    def items(self) -> Iterable[R]:
        """The items of this page."""
        return self.Items


class LeftKeys(msgspec.Struct):
    """The keys of one table that BatchGetItem left."""

    Keys: list[RawItem]


class BatchGetItemResponse(Tables, Generic[R]):
    """BatchGetItem."""

    own = frozenset({"Responses", "UnprocessedKeys"})

    Responses: dict[str, list[R]] = {}  # type: ignore[assignment]
    UnprocessedKeys: dict[str, LeftKeys] = {}  # type: ignore[assignment]

    def items(self) -> Iterable[R]:
        """The items of every table: there is one."""
        return itertools.chain.from_iterable(self.Responses.values())


class PutRequest(msgspec.Struct):
    """An unprocessed put."""

    Item: RawItem


class DeleteRequest(msgspec.Struct):
    """An unprocessed delete."""

    Key: RawItem


class WriteRequest(msgspec.Struct):
    """An unprocessed write: one field is set."""

    PutRequest: PutRequest | None = None
    DeleteRequest: DeleteRequest | None = None

    @property
    def key(self) -> RawItem:
        """The attributes that hold the key, perhaps among others."""
        if self.PutRequest:
            return self.PutRequest.Item
        if self.DeleteRequest:
            return self.DeleteRequest.Key
        raise Mismatch("an unprocessed request is neither a put nor a delete")


class BatchWritten(Tables, kw_only=True):
    """BatchWriteItem."""

    own = frozenset({"UnprocessedItems"})

    UnprocessedItems: dict[str, list[WriteRequest]]  # type: ignore[assignment]


written = msgspec.json.Decoder(WriteResponse, strict=False)
transacted = msgspec.json.Decoder(Transacted, strict=False)
queried = msgspec.json.Decoder(QueryResponse[RawItem], strict=False)
found = msgspec.json.Decoder(Found, strict=False)
batch_written = msgspec.json.Decoder(BatchWritten, strict=False)
raw_item = msgspec.json.Decoder(GetItemResponse[RawItem])


class ReadAnswer(NamedTuple):
    """An answer with its items read as rows, and what is wrong with those that are none.

    `rows` is a `Frame` if the compiled decoder read all of them. `size` is that of the whole
    answer, in bytes of JSON.
    """

    answer: Any
    rows: list[Row] | Frame
    damaged: list[tuple[ItemKey, errors.DamagedItem]]
    size: int

    @property
    def units(self) -> float:
        """As the answer's."""
        units: float = self.answer.units
        return units


class RowsDecoder:
    """Decodes a GetItem, BatchGetItem or Query response whose items are of one shape."""

    def __init__(self, answer: Any, shape: Shape) -> None:
        self._shape = shape
        self._compiled = shape.decoder.compiled
        self._typed = msgspec.json.Decoder(answer[shape.decoder.struct], strict=False)
        self._raw = msgspec.json.Decoder(answer[msgspec.Raw], strict=False)

    def decode(self, body: bytes) -> ReadAnswer:
        """The answer in a body; an item that is damaged harms no other one."""
        if self._compiled is not None:
            try:
                frame, cut, resume = self._compiled(body)
                answer = self._raw.decode(body[:cut] + body[resume:])
                return ReadAnswer(answer, frame, [], len(body))
            except ValueError:  # Something out of the ordinary, perhaps damage.
                pass
        try:
            answer = self._typed.decode(body)
            rows = self._shape.decoder.rows(answer.items())
        except (msgspec.ValidationError, errors.DamagedItem):
            return self._one_by_one(body)
        return ReadAnswer(answer, rows, [], len(body))

    def _one_by_one(self, body: bytes) -> ReadAnswer:
        rows: list[Row] = []
        found = ReadAnswer(self._raw.decode(body), rows, [], len(body))
        for item in map(bytes, found.answer.items()):
            (row,) = self._shape.decode_each([item])
            if isinstance(row, errors.DamagedItem):
                found.damaged.append((self._key(item), row))
            else:
                rows.append(row)
        return found

    def _key(self, item: bytes) -> ItemKey:
        try:
            return key_of(self._shape.layout, parse_item(item))
        except errors.DamagedItem as error:
            raise Mismatch("an item has no readable key") from error


def find_crc32() -> Callable[[bytes], int]:
    """Return the fastest CRC32 that is installed.

    zlib computes it without SIMD: 9 % of a BatchGetItem of 70 KB. Those of isal and zlib-ng take a
    twentieth of that, and come with the extra `speed`.
    """
    for name in ("isal.isal_zlib", "zlib_ng.zlib_ng"):
        with suppress(ImportError):
            found: Callable[[bytes], int] = importlib.import_module(name).crc32
            return found
    return zlib.crc32


crc32 = find_crc32()


def read(
    response: Response,
    decoder: Decoder[R],
    what: str,
    check_failure: CheckFailure | None = None,
    now: int | None = None,
    sent: bytes = b"",
) -> R:
    """The answer in a response; `what` names operation and table for the error.

    `check_failure` is called with an answer that is not 200, before its error is raised. `now` and
    `sent` are as for `failures.failure`.

    Raises the class of `errors.RequestError` that fits, also for a body whose CRC32 is not the
    one that DynamoDB sent with it. Raises `ResponseMismatch` if `decoder` or `check_failure`
    raises `Mismatch`.
    """
    checksum = response.headers.get("x-amz-crc32")
    damaged: errors.RequestError
    try:
        if checksum is not None and str(crc32(response.body)) != checksum.strip():
            damaged = errors.ChecksumMismatch(f"{what}: the answer was damaged on its way.")
            cause: Exception | None = None
        elif response.status != 200:
            raise failure(response, what, check_failure, now, sent)
        else:
            return decoder.decode(response.body)
    except Mismatch as error:
        damaged, cause = _mismatch(what, str(error)), error
    except msgspec.ValidationError as error:
        # Damaged items are decoded one by one, so it is the answer that has a wrong form.
        damaged, cause = _mismatch(what, "it has another form"), error
    except UNREADABLE as error:
        damaged, cause = errors.MalformedResponse(f"{what}: the answer is not JSON."), error
    identify(damaged, response)
    raise damaged from cause


def _mismatch(what: str, why: str) -> errors.ResponseMismatch:
    return errors.ResponseMismatch(f"{what}: the response does not match the request: {why}.")

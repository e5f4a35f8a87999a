"""The hot paths in C, each exact or handed over to Python. Absent if no C compiler built it.

Each function handles the plain case and refuses everything else, by `ValueError`, None or False.
The code in Python that calls it then decides, and defines what the result has to be.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, TypeAlias, final

MatrixFeature: TypeAlias = tuple[int, int, int, int, int, int, int, int, int, float, float | None]

@final
class Decoder:
    """A decoder of responses with certain attributes.

    `attributes` has position, kind and reader of each attribute by its name, as made by
    `decoding.described`; it must not change, and is not checked. Positions are those of a row,
    with an item's base at the position of the times. After the row's positions come `width` more,
    for the observed-at of each value. Kinds: 0 is str of S, 1 bytes of B, 2 bool of BOOL, 3 int of
    N, 4 float of N, and 5 only what the reader returns. The reader gets the JSON of an attribute
    of another type, or of one whose value is not plain: a string with escapes, an int beyond 64
    bits, a float with an exponent.
    """

    def __new__(
        cls,
        attributes: dict[str, tuple[int, int, Callable[[bytes], object] | None]],
        width: int,
        /,
    ) -> Decoder: ...
    def decode(self, body: bytes, /) -> tuple[Frame, int, int]:
        """Decode a response of BatchGetItem, GetItem or Query to its items and two offsets.

        Without the bytes between the two offsets, the body is the response with one empty item in
        place of all items.

        Raises ValueError for every response that is not plain, and if a reader raises an
        exception: the decoder in Python then reads it. JSON with white space between tokens, which
        DynamoDB does not send, is not plain. In attributes that nobody asked for, words, numbers,
        escapes and UTF-8 are not checked.
        """

@final
class Frame(Sequence[Any]):
    """The items of a response: a sequence of row tuples, each made when it is first read.

    A row is (pk, sk, latest, times, value, …). `latest` is in UTC microseconds, 0 if there is
    none. `times` is None if every value is present and as old as `latest`; otherwise it has the
    observed-at of each value, None for an absent value. A value that is absent or null is None.
    After `place`, the sequence has a row for each key, None if the response has no such item.
    """

    present: int
    """The number of items in the response."""
    has_times: bool
    """True if a row is None, or has times."""
    oldest: int | None
    """The least observed-at among all rows, in UTC microseconds; None without items."""

    def __getitem__(self, index: Any) -> Any: ...
    def __len__(self) -> int: ...
    def count(self, value: object, /) -> int: ...
    def place(self, pks: Sequence[str], sk: str, /) -> bool:
        """Order the items by their partition keys.

        Returns False, and changes nothing, if an item has another key than one of these distinct
        keys, or if two items have the same key.
        """
    def contents(self, column: int, /) -> list[Any]:
        """Return the value of each row at a position of the columns."""
    def times(self, column: int, /) -> list[int | None]:
        """Return the observed-at of each of these values, None if the value is absent."""
    def block(self, column: int, size: int, /) -> bytes | None:
        """Return the bytes of a column joined; None unless each value has `size` bytes."""
    def moments(self, column: int, /) -> list[datetime | None] | None:
        """Return a column of microseconds as UTC datetimes; None if one is out of range."""

@final
class Filler:
    """Features of one group, for matrices of any number of reads.

    A feature is (kind, position, column, feature, size, staleness, low, high, factor, divisor,
    fallback), as made by `operations.matrix`.
    """

    def __new__(cls, features: tuple[MatrixFeature, ...], /) -> Filler: ...
    def fill(
        self,
        found: Frame | list[Any],
        now: int,
        values: object,
        statuses: object,
        missing: float,
        /,
    ) -> bool:
        """Write the features of rows into a matrix, and their statuses into another one.

        Both are C-contiguous and have a row for each row. `values` has elements of 4 or 8 bytes.
        Returns False if a value is not plain: the contents of the matrices are then undefined.
        """

def partition_keys(prefix: str, keys: Sequence[Any], kind: type, /) -> list[str] | None:
    """Return the partition keys of primary keys that are all of a kind: int, or ASCII str.

    None for anything else, and for a key that is too long.
    """

def key_list(
    head: bytes, before: bytes, after: bytes, tail: bytes, pks: list[str], /
) -> bytes | None:
    """Join a body from partition keys, each between `before` and `after`, with commas.

    None unless all of them are ASCII without letters that JSON escapes.
    """

def encode(
    kind: int,
    values: Sequence[Any],
    null: bytes | None,
    yes: bytes,
    no: bytes,
    array: type,
    letter: str,
    size: int,
    /,
) -> list[bytes] | None:
    """Return the attribute of each value of a kind: those of a decoder, 6 datetime or 7 vector.

    None has the attribute `null`, bools have `yes` or `no`. A vector is an instance of `array`
    itself, with `size` elements of the buffer format `letter`. None if a value is of another class,
    or is not plain.
    """

def cut(texts: bytes, /) -> list[bytes] | None:
    """Return the attributes of numbers in a JSON array; None if one cannot be stored as it is."""

def pack(item: dict[str, bytes], left_out: frozenset[str], /) -> bytes | None:
    """Return an item in msgpack, as `valkey.packing.packed_item` does; None if it is not plain."""

def render(
    parts: tuple[bytes, ...],
    pk: str,
    sk: str,
    times: tuple[int, ...],
    attributes: tuple[bytes, ...],
    /,
) -> bytes | None:
    """Join an item from the parts between its values. Raises ValueError if their numbers differ.

    None unless the keys are ASCII without letters that JSON escapes.
    """

def dicts(names: tuple[str, ...], columns: tuple[list[Any], ...], count: int, /) -> list[Any]:
    """Return a dict for each position of columns of `count` values. Raises ValueError."""

def quotient(value: int, places: int, /) -> float:
    """Return the float nearest to value / 10**places, for 64 bits and up to 19 places."""

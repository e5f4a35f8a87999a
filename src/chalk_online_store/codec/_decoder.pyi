"""Read answers to rows, in C: exact, or a ValueError. Absent where no C compiler built it."""

from collections.abc import Callable
from typing import Any

def decode(
    attributes: dict[str, tuple[int, int, Callable[[bytes], object] | None]],
    width: int,
    body: bytes,
    /,
) -> tuple[list[tuple[Any, ...]], int, int]:
    """The rows of an answer of BatchGetItem, GetItem or Query, in its order; and two places.

    A row is (pk, sk, latest, times, value, …), with `width` values. `latest` is in UTC
    microseconds, 0 where there is none. `times` is None where every value is there and as old as
    the latest; else it holds the time of each value, None where the value is absent. A value that
    is absent or null is None. Without the bytes between the two places, the body is the answer
    with one empty item for all there are.

    `attributes` has place, kind and reader of each attribute by its name. Places are those of a
    row, with an item's base at that of the times, and behind them `width` more for the own time
    of each value. Kinds: 0 gives str of S, 1 bytes of B, 2 bool of BOOL, 3 int of N, 4 float of N
    and 5 only what the reader makes. It gets the JSON of an attribute of another type, or of one
    whose value is not plain: a string with escapes, an int beyond 64 bits, a float with an
    exponent. The mapping has to come from `decoding.described`, and must not change: nothing
    here is checked again.

    Raises ValueError for whatever it is not sure of, and also where a reader raises any exception:
    the decoder in Python then decides. So it does for JSON with white space between tokens, which
    DynamoDB does not send. In what nobody asked for, words, numbers, escapes and UTF-8 are not
    looked into: only where it ends.
    """

"""Read answers to rows, in C: exact, or a ValueError. Absent where no C compiler built it."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, final

@final
class Decoder:
    """Decodes answers of BatchGetItem, GetItem and Query into rows.

    `columns` are attribute name, kind and reader of each feature. Kinds: "S" gives str, "B"
    bytes, "BOOL" bool, "int" int, "float" float (of N, or of the eight bytes of a B), and "other"
    what `read` makes of the attribute's JSON. `pk` and `sk` name the keys, `latest` and `base`
    the times of an item; `own` is what an id is prefixed with in the name of a value's own time.

    A decoder never changes; threads may share it. Raises ValueError for an unknown kind and for
    two attributes of one name, TypeError for arguments of another type.
    """

    def __new__(
        cls,
        columns: Sequence[tuple[str, str, Callable[[bytes], object] | None]],
        pk: str,
        sk: str,
        latest: str,
        base: str,
        own: str,
    ) -> Decoder: ...
    def decode(self, body: bytes) -> tuple[list[tuple[Any, ...]], bytes]:
        """The rows of an answer in its order, and the answer's JSON without the items.

        A row is (pk, sk, latest, times, value, …). `latest` is in UTC microseconds, 0 where there
        is none. `times` is None where every value is there and as old as the latest; else it
        holds the time of each value, None where the value is absent. A value that is absent or
        null is None.

        Raises ValueError for whatever it is not sure of: the decoder in Python then decides.
        """

def moments(values: Sequence[int | None]) -> list[datetime | None]:
    """UTC microseconds since 1970 to aware datetimes; None stays None.

    Raises OverflowError outside of the years 1 to 9999, TypeError for what is no int.
    """

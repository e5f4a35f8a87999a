"""The public API as type checkers see it: checked by mypy with the rest, and by pyright.

Nothing here runs. `tests/typing/test_checkers.py` has pyright look at it, where it is installed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, assert_type

import numpy as np
import pydantic

from chalk_online_store import (
    AsyncOnlineStore,
    AsyncPersistenceWriter,
    AsyncTicket,
    Namespace,
    OnlineStore,
    PersistenceWriter,
    Report,
    Row,
    Rows,
    Status,
    Ticket,
    Vector,
    feature,
    features,
)


@features(max_staleness="30d")
@dataclass
class User:
    id: int
    email: str | None
    visits: int = 0
    risk: Annotated[float, feature(max_staleness="1h")] = 0.0


@features
class Item(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)

    sku: Annotated[str, feature(primary=True)]
    embedding: Annotated[np.ndarray, Vector[3]]


assert_type(User(1, None), User)
assert_type(User(1, None).risk, float)


def reads(store: OnlineStore) -> None:
    rows = store.read(User, [1, 2], ["email"])
    assert_type(rows, Rows)
    assert_type(rows[0], Row)
    assert_type(rows[0].status("email"), Status)
    assert_type(rows[0].observed_at("email"), datetime | None)
    assert_type(rows.to(User), list[User])
    assert_type(rows.to(User, None), list[User | None])
    assert_type(rows.to(Item, "none"), list[Item | str])
    assert_type(rows.to_dict(), dict[str, list[Any]])


def writes(store: OnlineStore, namespace: Namespace) -> None:
    assert_type(store.write(User, [User(1, "a@b.c"), User(2, None, visits=3)]), Report)
    assert_type(store.write(User, [{"id": 1, "email": None}, User(2, None)]), Report)
    assert_type(store.write(namespace, [{"id": 1}]), Report)
    assert_type(store.write(namespace, ({"id": i} for i in range(3))), Report)
    store.write(User, 7)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


async def awaits(store: AsyncOnlineStore) -> None:
    assert_type(await store.write(User, [User(1, None)]), Report)
    assert_type((await store.read(User, [1])).to(User), list[User])


async def submits(writer: PersistenceWriter, other: AsyncPersistenceWriter) -> None:
    assert_type(writer.submit(User, [User(1, None), {"id": 2}]), Ticket)
    assert_type(await other.submit(User, [User(1, None)]), AsyncTicket)

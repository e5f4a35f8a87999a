"""The public API as type checkers see it: checked by mypy with the rest, and by pyright.

Nothing here runs. `tests/typing/test_checkers.py` runs pyright on it. `mistakes.py` has what must
be an error.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, assert_type
from uuid import UUID

import numpy as np
import pydantic

from chalk_online_store import (
    AsyncOnlineStore,
    AsyncPersistenceWriter,
    AsyncTicket,
    CountReport,
    DeletedWhere,
    Namespace,
    OnlineStore,
    PersistenceWriter,
    PreparedRead,
    ReadRequest,
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


@features
class Account:
    """A plain class, which has instances."""

    id: str
    owner: UUID | None
    balance: Decimal
    visits: int
    plan: str
    history: Vector[4]
    trend: Vector[4, "f4"] | None  # noqa: F821, UP037 - a dtype
    limit: float = feature(max_staleness="1h", default=0.0)


@features(name="session")
class Session:
    id: UUID
    risk: float


@features
class Order:
    number: int = feature(primary=True)
    total: Decimal


assert_type(User(1, None), User)
assert_type(User(1, None).risk, float)


def reads(store: OnlineStore, namespace: Namespace, name: str) -> None:
    rows = store.read(User, [1, 2], ["email"])
    assert_type(rows, Rows[User])
    assert_type(rows[0], Row[User])
    assert_type(rows[0].status("email"), Status)
    assert_type(rows[0].observed_at(User.risk), datetime | None)
    assert_type(rows.to(User), list[User])
    assert_type(rows.to(User, None), list[User | None])
    assert_type(rows.to(Item, "none"), list[Item | str])
    assert_type(rows.to_dict(), dict[str, list[Any]])
    for row in rows:
        assert_type(row, Row[User])
    assert_type(store.read(Account, ["a"]), Rows[Account])
    assert_type(store.read(Session, [UUID(int=1)]), Rows[Session])
    assert_type(store.read(Order, [1]), Rows[Order])
    assert_type(store.read(Item, ["a"]), Rows[Item])
    assert_type(store.read(namespace, [1]), Rows[Any])
    assert_type(store.prepare(User, [User.risk]), PreparedRead[User])
    assert_type(store.prepare(User).read([1]), Rows[User])
    assert_type(store.get(User, 1), Row[User])
    assert_type(store.get(Account, "a", defaults=True)[Account.limit], float | None)
    assert_type(store.prepare(Order).get(1), Row[Order])
    assert_type(next(store.scan(Account, [Account.limit])), Rows[Account])
    assert_type(store.count(Account), CountReport)
    found = store.delete_where(Account, lambda row: row[Account.limit] is None)
    assert_type(found, DeletedWhere)
    assert_type(store.forget(Account, "a").verified, bool)
    both = store.read_many(ReadRequest(User, [1]), ReadRequest(Account, ["a"], [Account.limit]))
    assert_type(both, tuple[Rows[User], Rows[Account]])
    many = [ReadRequest(User, [1]) for _ in range(9)]
    assert_type(store.read_many(*many, timeout=0.5)[0].report, Report)
    assert_type(rows[0]["email"], Any)
    assert_type(rows[0][name], Any)


def references(store: OnlineStore) -> None:
    rows = store.read(
        Account, ["a"], [Account.limit, Account.owner, "plan"], max_staleness={Account.limit: "5m"}
    )
    row = rows[0]
    assert_type(row[Account.limit], float | None)
    assert_type(row[Account.visits], int | None)
    assert_type(row[Account.balance], Decimal | None)
    assert_type(row[Account.owner], UUID | None)
    assert_type(row[Account.plan], Any)  # As for any str.
    assert_type(row.get(Account.limit), float | None)
    assert_type(row.get(Account.limit, 0.0), float)
    assert_type(rows.column(Account.limit), list[float | None])
    assert_type(rows.column(Account.visits), list[int | None])
    assert_type(rows.column("limit"), list[Any])
    store.delete(Account, ["a"], [Account.limit])
    store.write(Account, [{Account.id: "a", Account.limit: 0.5}])


def instances(store: OnlineStore) -> None:
    account = Account("a", None, Decimal(1), 1, "free", np.zeros(4), None, limit=3.0)
    assert_type(account.limit, float)
    assert_type(account.plan, str)
    account.history.tolist()
    store.write(Account, [account])
    Session(id=UUID(int=1), risk=0.5)


def writes(store: OnlineStore, namespace: Namespace) -> None:
    assert_type(store.write(User, [User(1, "a@b.c"), User(2, None, visits=3)]), Report)
    assert_type(store.write(User, [{"id": 1, "email": None}, User(2, None)]), Report)
    assert_type(store.write(namespace, [{"id": 1}]), Report)
    assert_type(store.write(namespace, ({"id": i} for i in range(3))), Report)


async def awaits(store: AsyncOnlineStore) -> None:
    assert_type(await store.write(User, [User(1, None)]), Report)
    assert_type((await store.read(User, [1])).to(User), list[User])
    assert_type(await store.read(User, [1]), Rows[User])
    assert_type(await store.get(User, 1), Row[User])
    both = await store.read_many(ReadRequest(User, [1]), ReadRequest(Item, ["a"]))
    assert_type(both, tuple[Rows[User], Rows[Item]])
    assert_type(await store.prepare(Order).get(1), Row[Order])
    assert_type(await store.prepare(Order).read([1]), Rows[Order])
    assert_type((await store.read(Account, ["a"]))[0][Account.limit], float | None)


async def submits(writer: PersistenceWriter, other: AsyncPersistenceWriter) -> None:
    assert_type(writer.submit(User, [User(1, None), {"id": 2}]), Ticket)
    assert_type(await other.submit(User, [User(1, None)]), AsyncTicket)

"""Mistakes that a type checker reports: mypy and pyright find an error in each marked line.

Nothing here runs. mypy refuses a mark that is not needed; `test_checkers.py` compares the lines
for which pyright reports an error with those that are marked.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from chalk_online_store import AsyncOnlineStore, OnlineStore, feature, features


@features
class User:
    id: int
    email: str | None
    visits: int
    risk: float = feature(max_staleness="1h")


@features
class Account:
    id: str
    visits: int


@features
class Session:
    id: UUID
    risk: float


def references(store: OnlineStore) -> None:
    rows = store.read(User, [1], [User.rsik])  # type: ignore[attr-defined]
    print(rows.column(User.rsik))  # type: ignore[attr-defined]
    print(rows[0][User.rsik])  # type: ignore[attr-defined]
    print(rows[0][User.risk] + 1)  # type: ignore[operator]
    name: str | None = rows[0][User.visits]  # type: ignore[assignment]
    risks: list[float] = rows.column(User.risk)  # type: ignore[assignment]
    print(rows.first, name, risks)  # type: ignore[attr-defined]


def keys(store: OnlineStore) -> None:
    print(store.read(User, ["a"])[0])  # type: ignore[index]
    print(store.read(Account, [1])[0])  # type: ignore[index]
    print(store.read(Session, ["a"])[0])  # type: ignore[index]
    print(store.get(User, "a")["risk"])  # type: ignore[index]
    store.read(User, 7)  # type: ignore[call-overload]
    store.read("user", [1])  # type: ignore[call-overload]


def instances(store: OnlineStore) -> None:
    User(1, None, 3)  # type: ignore[call-arg]
    User(1, None, 3, risk="high")  # type: ignore[arg-type]
    User(1, None, 3, 0.5, rsik=0.5)  # type: ignore[call-arg]
    store.write(User, 7)  # type: ignore[arg-type]


async def awaits(store: AsyncOnlineStore) -> None:
    print((await store.read(User, ["a"]))[0])  # type: ignore[index]
    rows = await store.read(User, [1])
    value: Any = rows[0][User.rsik]  # type: ignore[attr-defined]
    print(value)

"""What the registry has otherwise than the schema: only calls that use it are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from chalk_online_store import (
    Feature,
    Namespace,
    OnlineStore,
    PersistenceWriter,
    RegistryError,
    TypeConflict,
    WriteFailed,
)
from chalk_online_store.codec.changes import Attributes, ConditionalWrite, key_of
from chalk_online_store.codec.layout import TableLayout
from chalk_online_store.codec.registry import Entry
from chalk_online_store.writer.ledger import DeadLetter
from tests.contract.conftest import AnyStore, Open
from tests.contract.test_registry import run, soon
from tests.contract.test_writes import at, users, values

BEFORE = users("n", name=str)
AFTER = users(n=float, name=str, new=str)
MOVED = Namespace("user", int, [Feature("n", int, group="other"), Feature("name", str)])
LAYOUT = TableLayout()
SHOP = Namespace("shop", int, [Feature("a", int)])


def conflicting(open_store: Open, schema: Namespace) -> AnyStore:
    """A store whose schema has `n` otherwise than the table."""
    open_store([BEFORE]).write(BEFORE, [{"id": 1, "n": 1, "name": "x"}], observed_at=at(1))
    return open_store([schema])


@pytest.mark.parametrize(
    ("schema", "error"), [(AFTER, TypeConflict), (MOVED, RegistryError)], ids=["type", "group"]
)
def test_calls_that_use_a_conflicting_feature_are_refused(
    open_store: Open, schema: Namespace, error: type[RegistryError]
) -> None:
    """Reads, writes and deletes of the feature name it; a read of all features uses it too."""
    store = conflicting(open_store, schema)
    calls: list[Callable[[], object]] = [
        lambda: store.read(schema, [1]),
        lambda: store.read(schema, [1], ["name", "n"]),
        lambda: store.read_prepared(schema, ["n"], [1]),
        lambda: store.write(schema, [{"id": 1, "name": "y"}, {"id": 1, "name": "y", "n": 2}]),
        lambda: store.write(schema, [{"id": 1, "n": 2}] * 3, ordering="arrival"),
        lambda: store.delete(schema, [1], ["n"]),
    ]
    for call in calls:
        with pytest.raises(error, match=r"user\.n is "):
            call()
    assert values(open_store([BEFORE]), BEFORE) == {"n": 1, "name": "x"}


@pytest.mark.parametrize("schema", [AFTER, MOVED], ids=["type", "group"])
def test_calls_that_do_not_use_it_go_on(open_store: Open, schema: Namespace) -> None:
    """Other features are read, written, registered and deleted; the feature keeps its value."""
    store = conflicting(open_store, schema)
    store.warm(1)
    assert store.read(schema, [1], ["name"])[0]["name"] == "x"
    assert store.write(schema, [{"id": 1, "name": "y"}], observed_at=at(2)).items_written == 1
    assert store.read_prepared(schema, ["name"], [1])[0]["name"] == "y"
    if schema is AFTER:
        store.write(schema, [{"id": 1, "name": "z", "new": "new"}], observed_at=at(3))
        assert store.read(schema, [1], ["new"])[0]["new"] == "new"
    assert values(open_store([BEFORE]), BEFORE)["n"] == 1
    store.delete(schema, [1], ["name"])
    assert values(open_store([BEFORE]), BEFORE) == {"n": 1}
    store.delete(schema, [1])
    assert values(open_store([BEFORE]), BEFORE) == {}


def test_a_resolved_conflict_is_noticed(open_store: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a drop the other type is registered by a store that was refused before."""
    monkeypatch.setattr("chalk_online_store.operations.registry.REFRESH_SECONDS", 0.0)
    store = conflicting(open_store, AFTER)
    with pytest.raises(TypeConflict):
        store.read(AFTER, [1])
    open_store([BEFORE]).drop(BEFORE, ["n"])
    assert store.read(AFTER, [1])[0].status("n") == "missing"
    store.write(AFTER, [{"id": 1, "n": 0.5}])
    assert store.read(AFTER, [1], consistent=True)[0]["n"] == 0.5


def test_another_key_type_refuses_the_namespace(open_store: Open) -> None:
    """A primary key of another type concerns every call of the namespace, and no other one."""
    conflicting(open_store, AFTER)
    texts = Namespace("user", str, [Feature("name", str)])
    store = open_store([texts, SHOP])
    for call in (store.read, store.delete):
        with pytest.raises(TypeConflict, match="user is str in the schema, but int"):
            call(texts, ["1"])
    with pytest.raises(TypeConflict, match="user is str in the schema, but int"):
        store.write(texts, [{"id": "1", "name": "x"}])
    store.write(SHOP, [{"id": 1, "a": 1}])
    assert store.read(SHOP, [1])[0]["a"] == 1


def test_a_persistence_writer_refuses_rows_with_the_feature(open_store: Open, url: str) -> None:
    """Rows that have a conflicting feature are dead letters; the others are written."""
    conflicting(open_store, AFTER)
    letters: list[DeadLetter] = []
    with OnlineStore.open(url, [AFTER]) as store:
        with PersistenceWriter(store, dead_letters=letters.extend) as writer:
            ticket = writer.submit(AFTER, [{"id": 2, "n": 0.5}, {"id": 3, "name": "z"}])
            with pytest.raises(WriteFailed) as caught:
                ticket.wait(timeout=60)
        found = store.read(AFTER, [3], ["name"], consistent=True).column("name")
    assert (ticket.written, ticket.dead, found) == (1, 1, ["z"])
    assert list(caught.value.failed) == [0]
    assert isinstance(letters[0].error, TypeConflict)


# --- a damaged registry --------------------------------------------------------------------


def put(url: str, *items: Attributes) -> None:
    """Put items into the registry, whatever is there under their keys."""

    def operation(backend: Any) -> Any:
        for item in items:
            swap = ConditionalWrite(None, item)
            key = swap.key(backend.layout)
            present = yield from backend.list_partition(key.pk, "$", soon())
            before = next((i for i in present if key_of(backend.layout, i) == key), None)
            assert (yield from backend.transact([ConditionalWrite(before, item)], soon()))

    run(url, operation)


def entry(name: str, name_id: str, **more: str) -> dict[str, bytes]:
    """The item of a feature's entry."""
    found = Entry(name, name_id, "int", "default", more.pop("state", "active"))
    return dict(found.name_item(LAYOUT))


DAMAGE: dict[str, list[dict[str, bytes]]] = {
    "two names of one id": [entry("user.other", "a")],
    "a dropped feature's id": [entry("user.old!a", "a", state="retired")],
    "a name of another item": [{**entry("user.x", "x"), "name": b'{"S":"user.y"}'}],
    "an id of another form": [entry("user.x", "a b")],
    "an empty id": [entry("user.x", "")],
    "the id of the key": [entry("user.x", "pk")],
    "the id of bookkeeping": [entry("user.x", "@")],
    "a very long id": [entry("user.x", "a" * 3000)],
    "another attribute type": [{**entry("user.x", "x"), "id": b'{"N":"1"}'}],
    "no attributes": [{k: v for k, v in entry("user.x", "x").items() if k in ("pk", "sk")}],
    "an unknown state": [entry("user.x", "x", state="later")],
    "a damaged namespace": [{**entry("user", "a"), "type": b'{"BOOL":true}'}],
}


@pytest.mark.parametrize("items", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_registry_refuses_the_namespace_alone(
    url: str, items: list[dict[str, bytes]]
) -> None:
    """Every call of the namespace names the remedy, at once; other namespaces are served."""
    user = users("n")
    with OnlineStore.open(url, [user, SHOP]) as store:
        store.write(user, [{"id": 1, "n": 1}])
        store.write(SHOP, [{"id": 1, "a": 1}])
    put(url, *items)
    wider = users("n", "more")
    with OnlineStore.open(url, [wider, SHOP]) as store:
        calls: list[Callable[[], object]] = [
            lambda: store.read(wider, [1], ["n"]),
            lambda: store.write(wider, [{"id": 1, "n": 2}]),
            lambda: store.delete(wider, [1]),
            lambda: store.delete(wider, [1], ordering="arrival"),
            lambda: store.rename(wider, "n", "m"),
            lambda: store.drop(wider, ["n"]),
        ]
        for call in calls:
            with pytest.raises(RegistryError, match=r"registry.* lock file"):
                call()
        store.write(SHOP, [{"id": 1, "a": 2}])
        assert store.read(SHOP, [1])[0]["a"] == 2


def test_what_later_versions_keep_in_the_registry_is_left_alone(url: str) -> None:
    """A mark that this version does not know does no harm."""
    put(url, {"pk": b'{"S":"!registry"}', "sk": b'{"S":"~later:user"}'})
    with OnlineStore.open(url, [SHOP]) as store:
        store.write(SHOP, [{"id": 1, "a": 2}])
        assert store.read(SHOP, [1])[0]["a"] == 2


def test_a_registry_that_lost_a_namespace_gives_it_no_new_id(url: str) -> None:
    """A namespace whose features are registered is not registered anew under another id."""
    put(url, entry("user.n", "a"))
    user = users("n")
    with (
        OnlineStore.open(url, [user]) as store,
        pytest.raises(RegistryError, match="lacks user, though it has entries"),
    ):
        store.write(user, [{"id": 1, "n": 1}])


def test_a_repaired_registry_is_noticed(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that was refused goes on once the registry is right again."""
    monkeypatch.setattr("chalk_online_store.operations.registry.REFRESH_SECONDS", 0.0)
    user = users("n")
    with OnlineStore.open(url, [user]) as store:
        store.write(user, [{"id": 1, "n": 1}])
    put(url, entry("user.x", "a"))
    with OnlineStore.open(url, [user]) as store:
        for call in (lambda: store.read(user, [1]), lambda: store.write(user, [{"id": 1}])):
            with pytest.raises(RegistryError, match=r"user\.n and user\.x have one id"):
                call()
        put(url, entry("user.x", "b"))
        assert store.read(user, [1])[0]["n"] == 1
        store.write(user, [{"id": 1, "n": 2}])

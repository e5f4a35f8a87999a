"""The registry on every engine: renaming, dropping, types anew, many writers at once."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from chalk_online_store import (
    Feature,
    InvalidValue,
    Namespace,
    OnlineStore,
    RegistryError,
    Status,
    TypeConflict,
    UnknownFeature,
)
from chalk_online_store.backend import Call
from chalk_online_store.codec.changes import ConditionalWrite
from chalk_online_store.codec.registry import ACTIVE, RETIRED, Entry, Registry
from chalk_online_store.connect import connect
from chalk_online_store.drivers.steps import read_clocks
from chalk_online_store.drivers.sync import SyncDriver
from chalk_online_store.effects import Operation
from chalk_online_store.operations.registry import RegistryKeeper
from tests.contract.conftest import Open
from tests.contract.test_writes import at, users, values

AB = users("a", "b")
AC = users("a", "c")
A = users("a")


def soon() -> Call:
    return Call(read_clocks().monotonic + 30)


def run(url: str, operation: Any) -> Any:
    """The result of `operation(backend)` on the table at a URL."""
    backend, transports, _ = connect(url, None)
    driver = SyncDriver(transports)
    try:
        return driver.run(operation(backend))
    finally:
        driver.close()


def registry_of(url: str) -> Registry:
    found: Registry = run(url, lambda backend: RegistryKeeper(backend).load(soon()))
    return found


def test_a_renamed_feature_keeps_its_values(open_store: Open) -> None:
    """Values lie under an id, so a new name finds what was written under the old one."""
    old = open_store([AB])
    old.write(AB, [{"id": 1, "a": 1, "b": 2}], observed_at=at(1))
    old.rename(AB, "b", "c")
    new = open_store([AC])
    assert values(new, AC) == {"a": 1, "c": 2}
    new.write(AC, [{"id": 1, "a": 3, "c": 3}], observed_at=at(3))
    old.write(AB, [{"id": 1, "a": 2, "b": 2}], observed_at=at(2))
    assert values(old, AB) == {"a": 3, "b": 3}


def test_a_process_that_starts_with_the_old_name_goes_on(open_store: Open, url: str) -> None:
    """The old name is an alias, never registered anew, and can become the name again."""
    store = open_store([AB])
    store.write(AB, [{"id": 1, "a": 1, "b": 2}])
    store.rename(AB, "user.b", "user.c")
    later = open_store([AB])
    assert later.write(AB, [{"id": 1, "a": 5, "b": 5}]).requests == 2  # The registry, the write.
    assert values(later, AB) == {"a": 5, "b": 5}
    states = {e.name: (e.id, e.state) for e in registry_of(url).entries}
    assert (states["user.b"], states["user.c"]) == (("b", "alias"), ("b", "active"))
    later.rename(AB, "c", "b")
    later.rename(AB, "c", "b")
    states = {e.name: (e.id, e.state) for e in registry_of(url).entries}
    assert (states["user.b"], states["user.c"]) == (("b", "active"), ("b", "alias"))


def test_a_chain_of_names(open_store: Open) -> None:
    """A feature may be renamed again and again, by any of its names; all of them find it."""
    store = open_store([AB])
    store.write(AB, [{"id": 1, "a": 1, "b": 2}])
    store.rename(AB, "b", "c")
    store.rename(AB, "b", "d")
    for name in "bcd":
        schema = users("a", name)
        assert values(open_store([schema]), schema) == {"a": 1, name: 2}


def test_renames_that_are_refused(open_store: Open) -> None:
    """A name that is taken, missing, malformed or elsewhere is refused, and nothing changes."""
    store = open_store([AB])
    store.write(AB, [{"id": 1, "a": 1, "b": 2}])
    with pytest.raises(RegistryError, match="another feature"):
        store.rename(AB, "a", "b")
    with pytest.raises(UnknownFeature, match=r"user\.x is not in the registry"):
        store.rename(AB, "x", "y")
    for name in ("", "a b", "a!b", "a.b", "a/b"):
        with pytest.raises(RegistryError):
            store.rename(AB, "a", name)
    assert values(open_store([AB]), AB) == {"a": 1, "b": 2}


def test_both_names_at_once_are_refused(open_store: Open) -> None:
    """A schema with the old and the new name of one feature would store two values in one."""
    store = open_store([AB])
    store.write(AB, [{"id": 1, "a": 1, "b": 2}])
    store.rename(AB, "b", "c")
    both = users("a", "b", "c")
    with pytest.raises(RegistryError, match=r"user\.b and user\.c are two names"):
        open_store([both]).read(both, [1])


def test_a_dropped_name_is_free_for_another_type(open_store: Open, url: str) -> None:
    """After a drop the name takes a new type under a new id, and no old value shows."""
    text = users("a", b=str)
    store = open_store([AB])
    store.write(AB, [{"id": 1, "a": 1, "b": 2}], observed_at=at(1))
    with pytest.raises(TypeConflict, match=r"user\.b is str .* but int"):
        open_store([text]).write(text, [{"id": 1, "b": "x"}])
    store.drop(AB, ["b"])
    again = open_store([text])
    assert values(again, text) == {"a": 1}
    again.write(text, [{"id": 1, "b": "x"}], observed_at=at(2))
    assert values(again, text) == {"a": 1, "b": "x"}
    entries = {e.name: (e.id, e.type, e.state) for e in registry_of(url).entries}
    assert entries["user.b"] == ("c", "str", "active")
    assert entries["user.b!b"] == ("b", "int", "retired")


def test_a_dropped_name_is_free_for_another_group(open_store: Open) -> None:
    """After a drop a feature may be declared in another group."""
    store = open_store([AB])
    store.write(AB, [{"id": 1, "a": 1, "b": 2}])
    store.drop(AB, ["b"])
    moved = Namespace("user", int, [Feature("a", int), Feature("b", int, group="other")])
    open_store([moved]).write(moved, [{"id": 1, "b": 3}])
    assert values(open_store([moved]), moved) == {"a": 1, "b": 3}


def test_the_store_that_dropped_a_feature_knows_it_no_more(open_store: Open, url: str) -> None:
    """Its schema still has the feature, but it neither registers, writes nor reads it again."""
    store = open_store([AB])
    store.write(AB, [{"id": 1, "a": 1, "b": 2}], observed_at=at(1))
    store.drop(AB, ["b"])
    store.write(AB, [{"id": 1, "a": 3}], observed_at=at(3))
    with pytest.raises(UnknownFeature, match=r"user\.b was dropped"):
        store.write(AB, [{"id": 1, "a": 4, "b": 4}])
    row = store.read(AB, [1], consistent=True)[0]
    assert (row["a"], row.status("b")) == (3, Status.MISSING)
    assert "user.b" not in registry_of(url).by_name


def test_drops_that_change_nothing(open_store: Open) -> None:
    """Dropping what was never registered does nothing; what no one knows is refused."""
    store = open_store([AB])
    store.drop(AB, ["user.a"])
    with pytest.raises(UnknownFeature, match=r"user\.x is not"):
        store.drop(AB, ["x"])
    with pytest.raises(InvalidValue, match="list"):
        store.drop(AB, "ab")


def test_a_drop_takes_the_aliases_along(open_store: Open, url: str) -> None:
    """Every name of a dropped feature becomes free, whichever of them was used to drop it."""
    store = open_store([AB])
    store.write(AB, [{"id": 1, "a": 1, "b": 2}])
    store.rename(AB, "b", "c")
    store.drop(AB, ["b"])
    assert [e.name for e in registry_of(url).entries if e.id == "b"] == ["user.c!b"]
    abc = users("a", "b", "c")
    open_store([abc]).write(abc, [{"id": 1, "a": 1, "b": 2, "c": 3}])
    assert {n: e.id for n, e in registry_of(url).by_name.items() if "." in n} == {
        "user.a": "a",
        "user.b": "c",
        "user.c": "d",
    }


def test_no_id_is_given_twice(open_store: Open, url: str) -> None:
    """However often a name is dropped and registered again, its ids are all different."""
    for round_ in range(5):
        store = open_store([AB])
        store.write(AB, [{"id": 1, "a": round_, "b": round_}])
        store.drop(AB, ["b"])
    ids = [e.id for e in registry_of(url).entries if e.scope == "user."]
    assert ids == ["a", *"bcdef"]


@pytest.mark.parametrize("partly", [False, True])
def test_whole_writes_after_a_drop_take_one_request(open_store: Open, partly: bool) -> None:
    """A drop costs an item with times of its own one exact write; then all goes as before."""
    store = open_store([AB])
    store.write(AB, [{"id": 1, "a": 1, "b": 1}], observed_at=at(1))
    if partly:
        store.write(AB, [{"id": 1, "b": 2}], observed_at=at(2))
    store.drop(AB, ["b"])
    store.write(AB, [{"id": 1, "a": 3}], observed_at=at(3))
    assert store.write(AB, [{"id": 1, "a": 4}], observed_at=at(4)).requests == 1
    assert store.write(AB, [{"id": 1, "a": 2}], observed_at=at(2)).superseded == 1
    assert values(store, AB) == {"a": 4}


def test_a_whole_write_clears_away_what_was_dropped(open_store: Open, url: str) -> None:
    """A whole write leaves neither a value nor a time of a dropped feature in the item."""
    for key, partly in ((1, False), (2, True)):
        store = open_store([schema := users("a", f"b{key}")])
        store.write(schema, [{"id": key, "a": 1, f"b{key}": 1}], observed_at=at(1))
        if partly:
            store.write(schema, [{"id": key, f"b{key}": 2}], observed_at=at(2))
        store.drop(schema, [f"b{key}"])
        store.write(schema, [{"id": key, "a": 3}], observed_at=at(3))
        (item,) = run(url, lambda b, key=key: b.list_partition(f"a:{key}", "#", soon()))
        assert set(item) == {"pk", "sk", "a", "@", "%"}


def test_an_older_process_writes_on_after_a_drop(open_store: Open) -> None:
    """A process that has not heard of the drop harms nobody; its value of it is not served."""
    older, newer = open_store([AB]), open_store([A])
    older.write(AB, [{"id": 1, "a": 1, "b": 1}], observed_at=at(1))
    newer.drop(A, ["b"])
    newer.write(A, [{"id": 1, "a": 3}], observed_at=at(3))
    older.write(AB, [{"id": 1, "a": 2, "b": 2}], observed_at=at(2))
    older.write(AB, [{"id": 1, "a": 4, "b": 4}], observed_at=at(4))
    assert values(newer, A) == {"a": 4}
    anew = users("a", b=str)
    assert values(open_store([anew]), anew) == {"a": 4}


def test_an_older_process_does_not_move_the_time_of_a_feature_registered_anew(
    open_store: Open,
) -> None:
    """The width of a group grows with every id ever given, so it still tells who knows less."""
    older = open_store([AB])
    older.write(AB, [{"id": 1, "a": 1, "b": 1}], observed_at=at(1))
    open_store([A]).drop(A, ["b"])
    anew = users("a", b=str)
    newer = open_store([anew])
    newer.write(anew, [{"id": 1, "a": 2, "b": "x"}], observed_at=at(2))
    older.write(AB, [{"id": 1, "a": 4, "b": 4}], observed_at=at(4))
    row = newer.read(anew, [1], consistent=True)[0]
    assert (row["b"], row.observed_at("b")) == ("x", at(2))
    newer.write(anew, [{"id": 1, "b": "y"}], observed_at=at(3))
    assert values(newer, anew) == {"a": 4, "b": "y"}


@dataclass
class Address:
    street: str
    zip: int


@dataclass
class Place:
    street: str
    zip: str


def test_a_struct_is_dropped_with_its_fields(open_store: Open, url: str) -> None:
    """The names of its fields become free as well, for another type each."""
    before = Namespace("user", int, [Feature("home", Address)])
    after = Namespace("user", int, [Feature("home", Place)])
    store = open_store([before])
    store.write(before, [{"id": 1, "home": Address("s", 1)}])
    with pytest.raises(TypeConflict, match=r"user\.home\.zip is str"):
        open_store([after]).read(after, [1])
    store.drop(before, ["home"])
    again = open_store([after])
    again.write(after, [{"id": 1, "home": Place("s", "1")}])
    assert values(again, after) == {"home": Place("s", "1")}
    retired = [e.name for e in registry_of(url).entries if e.state == RETIRED]
    assert retired == ["user.home!a", "user.home.street!a", "user.home.zip!b"]


def test_the_field_of_a_struct_can_be_renamed(open_store: Open) -> None:
    """A field keeps its id, and so its values, under a new name; its struct cannot be renamed."""

    @dataclass
    class Moved:
        road: str
        zip: int

    before = Namespace("user", int, [Feature("home", Address)])
    after = Namespace("user", int, [Feature("home", Moved)])
    store = open_store([before])
    store.write(before, [{"id": 1, "home": Address("s", 1)}])
    with pytest.raises(RegistryError, match="struct with fields"):
        store.rename(before, "home", "house")
    store.rename(before, "home.street", "home.road")
    assert values(open_store([after]), after) == {"home": Moved("s", 1)}


def test_many_stores_register_at_once(open_store: Open, url: str) -> None:
    """Threads with overlapping schemas end with one map, which all of them use."""
    schemas = [users(*(f"f{i}" for i in range(start, start + 60))) for start in range(0, 120, 20)]
    open_store([schemas[0]])

    def register(schema: Namespace) -> None:
        with OnlineStore.open(url, [schema], timeout=60) as store:
            store.write(schema, [{"id": 1, **dict.fromkeys(schema.by_name, 1)}])

    threads = [threading.Thread(target=register, args=[schema]) for schema in schemas]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    entries = [e for e in registry_of(url).entries if e.scope == "user."]
    assert len({e.id for e in entries}) == len({e.name for e in entries}) == 160
    everything = users(*(f"f{i}" for i in range(160)))
    assert values(open_store([everything]), everything) == dict.fromkeys(everything.by_name, 1)


def parsed(item: Mapping[str, bytes]) -> dict[str, Any]:
    """An item without the white space that some engines have in their JSON."""
    return {name: json.loads(value) for name, value in item.items()}


def test_a_transaction_is_all_or_nothing(url: str) -> None:
    """Puts, replacements and removals happen together, each only where its item is as stated."""

    def operation(backend: Any) -> Operation[Any]:
        one, two, three = (Entry(f"x.{n}", n, "int", "g").name_item(backend.layout) for n in "abc")
        changed = {**one, "state": b'{"S":"other"}'}
        pk = "!registry"
        assert (
            yield from backend.transact(
                [ConditionalWrite(None, one), ConditionalWrite(None, two)], soon()
            )
        )
        for wrong in (
            ConditionalWrite(None, two),
            ConditionalWrite(changed, one),
            ConditionalWrite(changed, None),
        ):
            assert not (yield from backend.transact([wrong, ConditionalWrite(None, three)], soon()))
        assert len((yield from backend.list_partition(pk, "$", soon()))) == 2
        swaps = [
            ConditionalWrite(one, changed),
            ConditionalWrite(two, None),
            ConditionalWrite(None, three),
        ]
        assert (yield from backend.transact(swaps, soon()))
        assert not (yield from backend.transact(swaps, soon()))
        found = yield from backend.list_partition(pk, "$", soon())
        assert list(map(parsed, found)) == list(map(parsed, [changed, three]))

    run(url, operation)


def test_the_registry_is_gap_free(open_store: Open, url: str) -> None:
    """What several schemas registered one after the other has the shortest ids there are."""
    for names in ("ab", "bc", "acd"):
        schema = users(*names)
        open_store([schema]).write(schema, [{"id": 1, names[0]: 1}])
    entries = [e for e in registry_of(url).entries if e.scope == "user." and e.state == ACTIVE]
    assert [(e.name, e.id) for e in entries] == [(f"user.{c}", c) for c in "abcd"]

"""A table behind a cache that processes share: what others write is seen, come what may."""

from __future__ import annotations

import itertools
import logging
import os
import signal
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chalk_online_store import (
    InvalidURL,
    OnlineStore,
    PersistenceWriter,
    Rows,
    Status,
    features,
)
from chalk_online_store.backend import Call, GroupKeys, RowOrError
from chalk_online_store.codec.layout import TableLayout
from chalk_online_store.connect import SHARED_CACHE
from chalk_online_store.dynamodb.urls import DynamoDBTarget
from chalk_online_store.effects import NOW, Effect, Instant, Operation, Send
from chalk_online_store.schema import namespace_of
from chalk_online_store.testing import Dynoxide, Moto, Valkey, create_table
from chalk_online_store.tiers.shared_cache import (
    FILL_WINDOW_SECONDS,
    RETRY_AFTER_SECONDS,
    SharedCacheBackend,
)
from chalk_online_store.urls import parse_url
from chalk_online_store.valkey.scripts import FILL, UPDATE
from chalk_online_store.valkey.sharing import HOLD, SharedItems
from tests.contract.conftest import REGION
from tests.helpers import stress


@features
class User:
    id: int
    a: int | None
    b: int | None
    c: int | None


@features(name="user")
class OldUser:
    id: int
    a: int | None


@features
class Flag:
    id: int
    on: bool


START = datetime(2026, 1, 1, tzinfo=UTC)


def at(second: int) -> datetime:
    return START + timedelta(seconds=second)


class Place:
    """A table of its own, and a cache of its own before it."""

    def __init__(self, engine: Dynoxide, valkey: Valkey) -> None:
        name = f"shared-{uuid.uuid4().hex}"
        create_table(engine.endpoint_url, name, region=REGION)
        self.prefix = f"{uuid.uuid4().hex}:"
        self.plain = f"dynamodb:///{name}?region={REGION}&endpoint_url={engine.endpoint_url}"
        self.url = f"{self.plain}&shared_cache_timeout=2&shared_cache={valkey.url(self.prefix)}"
        self.client = redis.Redis(port=valkey.port or 0)
        self._opened: list[OnlineStore] = []

    def open(self, schema: Any = User, **options: Any) -> OnlineStore:
        """A store as another process has it."""
        return self._open(self.url, schema, **options)

    def open_plain(self, schema: Any = User) -> OnlineStore:
        """A store that knows nothing of the cache."""
        return self._open(self.plain, schema)

    def _open(self, url: str, schema: Any, **options: Any) -> OnlineStore:
        self._opened.append(OnlineStore.open(url, schema=[schema], **options))
        return self._opened[-1]

    def keys(self) -> dict[bytes, bytes]:
        """What the cache holds, by the end of its keys."""
        found: list[bytes] = list(self.client.scan_iter(f"{self.prefix}*"))
        return {key.rpartition(b"/")[2]: bytes(self.client.get(key) or b"") for key in found}  # type: ignore[arg-type] # a server without decode_responses answers bytes

    def key(self, entity: int) -> bytes:
        """The key of an entity in the cache."""
        (found,) = self.client.scan_iter(f"{self.prefix}*:{entity}:*")
        return bytes(found)

    def forget(self, entity: int) -> None:
        """Take an entity out of the cache."""
        for key in self.client.scan_iter(f"{self.prefix}*:{entity}:*"):
            self.client.delete(key)

    def close(self) -> None:
        """Give everything back."""
        for store in self._opened:
            store.close()
        self.client.close()


@pytest.fixture
def place(dynoxide: Dynoxide, valkey: Valkey) -> Iterator[Place]:
    found = Place(dynoxide, valkey)
    yield found
    found.close()


def hits(rows: Rows) -> tuple[int, float]:
    """Items that came from the shared cache, and the units that the table took."""
    return rows.report.shared_hits, rows.report.rcu


# --- reading and writing -------------------------------------------------------------------


def test_what_one_process_reads_another_finds(place: Place) -> None:
    """A second process reads without a unit of the table, absent entities as well."""
    one, other = place.open(), place.open()
    one.write(User, [{"id": 1, "a": 1, "b": None, "c": 3}], observed_at=at(1))
    first = one.read(User, [1, 2])
    other.warm(1)
    again = other.read(User, [1, 2])
    assert (hits(first), hits(again)) == ((0, 1.0), (2, 0.0))
    assert again.to_dict() == first.to_dict() == {"a": [1, None], "b": [None] * 2, "c": [3, None]}
    assert again.statuses("b") == [Status.NULL, Status.MISSING]
    assert again[0].observed_at("a") == at(1)


@pytest.mark.parametrize("entity", [1, 2])
def test_a_write_is_told(place: Place, entity: int) -> None:
    """What a process writes is read by others at once, from the cache, also where nothing was."""
    one, other = place.open(), place.open()
    one.write(User, [{"id": 1, "a": 1, "b": 2, "c": 3}], observed_at=at(1))
    other.read(User, [1, 2])
    one.write(User, [{"id": entity, "b": 7}], observed_at=at(2))
    rows = other.read(User, [entity])
    assert (hits(rows), rows[0]["b"]) == ((1, 0.0), 7)
    one.write(User, [{"id": entity, "b": 6}], observed_at=at(1))
    assert other.read(User, [entity])[0]["b"] == 7
    one.delete(User, [entity], observed_at=at(3))
    gone = other.read(User, [entity])
    assert (hits(gone), gone.statuses("b")) == ((1, 0.0), [Status.MISSING])


def test_what_nobody_reads_is_not_kept(place: Place) -> None:
    """Writes alone leave nothing in the cache but what is heard of for a few seconds."""
    place.open().write(User, [{"id": i, "a": 1} for i in range(5)])
    values = place.keys().values()
    assert [value[:1] for value in values] == [b"?"] * 5
    lives = [place.client.ttl(key) for key in place.client.scan_iter(f"{place.prefix}*")]
    assert all(HOLD - 2 <= life <= HOLD for life in lives)


def test_items_are_kept_for_their_time_alone(place: Place) -> None:
    """Being told of does not keep an item longer; one that is about to go has to be read anew."""
    store = place.open()
    store.write(User, [{"id": 1, "a": 1, "b": 2, "c": 3}], observed_at=at(1))
    store.read(User, [1])
    place.client.expire(place.key(1), 100)
    store.write(User, [{"id": 1, "a": 2}], observed_at=at(2))
    assert 98 <= place.client.ttl(place.key(1)) <= 100
    place.client.expire(place.key(1), HOLD - 2)
    store.write(User, [{"id": 1, "a": 3}], observed_at=at(3))
    rows = store.read(User, [1])
    assert (hits(rows)[0], rows[0]["a"], rows[0]["b"]) == (0, 3, 2)
    assert 298 <= place.client.ttl(place.key(1)) <= 300


def test_a_write_in_order_of_arrival_is_seen(place: Place) -> None:
    """One that replaces newer values is read of the table, and not kept for a while."""
    one, other = place.open(), place.open()
    one.write(User, [{"id": 1, "a": 1, "b": 2, "c": 3}], observed_at=at(9))
    other.read(User, [1])
    one.write(User, [{"id": 1, "a": 5, "b": 6, "c": 7}], observed_at=at(1), ordering="arrival")
    assert [other.read(User, [1])[0]["a"] for _ in range(2)] == [5, 5]
    assert list(place.keys().values()) == [b"!"]


def test_a_strong_read_renews_the_cache(place: Place) -> None:
    """What was written past the cache is found by a consistent read, and by all after it."""
    one, other = place.open(), place.open()
    one.write(User, [{"id": 1, "a": 1, "b": 2, "c": 3}], observed_at=at(1))
    one.read(User, [1])
    place.open_plain().write(User, [{"id": 1, "a": 2}], observed_at=at(2))
    assert other.read(User, [1])[0]["a"] == 1  # For as long as the cache keeps it.
    assert one.read(User, [1], consistent=True)[0]["a"] == 2
    rows = other.read(User, [1])
    assert (hits(rows), rows[0]["a"]) == ((1, 0.0), 2)


def test_every_process_finds_the_features_that_it_knows(place: Place) -> None:
    """What a process with an older schema has read serves one that knows more features."""
    store = place.open()
    store.write(User, [{"id": 1, "a": 1, "b": 2, "c": 3}])
    place.open(OldUser).read(OldUser, [1])
    rows = store.read(User, [1])
    assert (hits(rows), rows.to_dict()) == ((1, 0.0), {"a": [1], "b": [2], "c": [3]})


def test_a_persistence_writer_tells_as_well(place: Place) -> None:
    """What a background writer has written is read from the cache."""
    store, reader = place.open(), place.open()
    store.write(User, [{"id": 1, "a": 1, "b": 2, "c": 3}], observed_at=at(1))
    reader.read(User, [1])
    with PersistenceWriter(store) as writer:
        writer.submit(User, [{"id": 1, "a": 8}], observed_at=at(2)).wait(timeout=60)
    rows = reader.read(User, [1])
    assert (hits(rows), rows[0]["a"], rows[0]["b"]) == ((1, 0.0), 8, 2)


def test_an_item_of_any_engine_is_kept(valkey: Valkey) -> None:
    """An engine that writes its JSON with spaces, as moto does, has the same items in the cache."""
    with Moto() as moto:
        table = f"shared-{uuid.uuid4().hex}"
        create_table(moto.endpoint_url, table, region=REGION)
        url = f"dynamodb:///{table}?region={REGION}&endpoint_url={moto.endpoint_url}"
        cached = f"{url}&shared_cache_timeout=2&shared_cache={valkey.url(f'{uuid.uuid4().hex}:')}"
        with OnlineStore.open(cached, [Flag]) as one, OnlineStore.open(cached, [Flag]) as other:
            one.write(Flag, [{"id": 1, "on": True}, {"id": 2, "on": False}])
            one.read(Flag, [1, 2])
            rows = other.read(Flag, [1, 2])
            assert (rows.report.shared_hits, rows.to_dict()) == (2, {"on": [True, False]})


# --- what comes between --------------------------------------------------------------------


class Stepped:
    """Performs operations up to where they would tell the cache something."""

    def __init__(self, store: OnlineStore, operation: Operation[Any]) -> None:
        self._driver = store.driver
        self._operation = operation
        self._effect: Effect | None = next(operation)
        self.result: Any = None
        self._run()

    def _run(self) -> None:
        while self._effect is not None and not _tells(self._effect):
            self._step()

    def finish(self) -> Any:
        """Go on to the end."""
        while self._effect is not None:
            self._step()
        return self.result

    def _step(self) -> None:
        try:
            self._effect = self._operation.send(self._driver.run(_performed(self._effect)))
        except StopIteration as stop:
            self.result, self._effect = stop.value, None


def _performed(effect: Any) -> Operation[Any]:
    return (yield effect)


def _tells(effect: Effect) -> bool:
    if not isinstance(effect, Send) or effect.to != SHARED_CACHE:
        return False
    return effect.request.commands[0][1] in (FILL.sha, UPDATE.sha, FILL.text, UPDATE.text)


def reading(store: OnlineStore, key: int) -> Stepped:
    """A read that has the table's answer, and is about to fill the cache with it."""
    return Stepped(store, store.core.read(store.core.prepare(User, None, None), [key], False, 10.0))


def writing(store: OnlineStore, row: dict[str, Any], second: int, ordering: Any) -> Stepped:
    """A write that the table has, and the cache is about to hear of."""
    operation = store.core.write(
        User, [row], observed_at=at(second), ordering=ordering, timeout=10.0
    )
    return Stepped(store, operation)


def deleting(store: OnlineStore, key: int, second: int) -> Stepped:
    operation = store.core.delete(
        User, [key], None, observed_at=at(second), ordering="event", timeout=10.0
    )
    return Stepped(store, operation)


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("how", ["whole", "part", "delete", "arrival", "late"])
def test_a_slow_read_brings_nothing_back(place: Place, there: bool, how: str) -> None:
    """What a read saw before a write does not hide the write, though it is kept after it."""
    slow, writer, other = place.open(), place.open(), place.open()
    writer.write(User, [{"id": 9, "a": 0, "b": 0, "c": 0}], observed_at=at(1))
    if there:
        writer.write(User, [{"id": 1, "a": 1, "b": 2, "c": 3}], observed_at=at(5))
    read = reading(slow, 1)
    if how == "delete":
        writer.delete(User, [1], observed_at=at(6))
    elif how == "part":
        writer.write(User, [{"id": 1, "a": 7}], observed_at=at(6))
    else:
        second = {"whole": 6, "arrival": 2, "late": 2}[how]
        ordering: Any = "arrival" if how == "arrival" else "event"
        row = {"id": 1, "a": 7, "b": 8, "c": 9}
        writer.write(User, [row], observed_at=at(second), ordering=ordering)
    read.finish()
    expected = place.open_plain().read(User, [1]).to_dict()
    assert [other.read(User, [1]).to_dict() for _ in range(2)] == [expected] * 2


class Play:
    """Three processes, each of whose reads and writes may be halted before the cache hears."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.stores = [place.open() for _ in range(3)]
        self.halted: list[Stepped] = []
        self._values = itertools.count(100)

    def read(self, store: OnlineStore, second: int, key: int, _: Any) -> None:
        self.halted.append(reading(store, key))

    def write(self, store: OnlineStore, second: int, key: int, names: set[str]) -> None:
        self.halted.append(writing(store, self._row(key, names), second, "event"))

    def arrive(self, store: OnlineStore, second: int, key: int, _: Any) -> None:
        self.halted.append(writing(store, self._row(key, set("abc")), second, "arrival"))

    def delete(self, store: OnlineStore, second: int, key: int, _: Any) -> None:
        self.halted.append(deleting(store, key, second))

    def finish(self, _: OnlineStore, second: int, key: int, __: Any) -> None:
        """One that is halted."""
        if self.halted:
            self.halted.pop(second % len(self.halted)).finish()

    def forget(self, _: OnlineStore, second: int, key: int, __: Any) -> None:
        """As a cache does that is full; of what was told lately only one that is too small."""
        if not self.halted:
            self.place.forget(key)

    def _row(self, key: int, names: set[str]) -> dict[str, Any]:
        return {"id": key} | {name: next(self._values) for name in sorted(names)}


steps = st.tuples(
    st.sampled_from([Play.read, Play.write, Play.arrive, Play.delete, Play.finish, Play.forget]),
    st.integers(0, 2),
    st.integers(1, 2),
    st.sets(st.sampled_from("abc"), min_size=1),
)


@settings(max_examples=stress(25), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(script=st.lists(steps, max_size=14), seconds=st.permutations(range(1, 15)))
def test_the_cache_says_what_the_table_says(
    place: Place, script: list[Any], seconds: list[int]
) -> None:
    """Whatever reads and writes of three processes do to each other, they end up at one truth."""
    play = Play(place)
    for (do, number, key, names), second in zip(script, seconds, strict=False):
        do(play, play.stores[number], second, key, names)
    for each in reversed(play.halted):
        each.finish()
    expected = place.open_plain().read(User, [1, 2])
    for store in play.stores * 2:
        rows = store.read(User, [1, 2])
        assert rows.to_dict() == expected.to_dict()
        assert [rows.statuses(n) for n in "abc"] == [expected.statuses(n) for n in "abc"]
    for key in (1, 2):
        play.stores[0].delete(User, [key], ordering="arrival")
        place.forget(key)


# --- a cache that does not do as it should ---------------------------------------------------


def test_a_cache_that_hangs_costs_little_and_forgets(
    dynoxide: Dynoxide, caplog: pytest.LogCaptureFixture
) -> None:
    """Reads and writes go on without it; what it has not heard of, it forgets when it is back."""
    caplog.set_level(logging.INFO)
    with Valkey() as server:
        place = Place(dynoxide, server)
        one, other = place.open(), place.open()
        one.write(User, [{"id": 1, "a": 1, "b": 2, "c": 3}], observed_at=at(1))
        other.read(User, [1])
        os.kill(server.pid, signal.SIGSTOP)
        try:
            one.write(User, [{"id": 1, "a": 2}], observed_at=at(2))
            assert one.read(User, [1])[0]["a"] == 2
            (stats,) = [one.stats().shared_cache]
            assert stats is not None
            assert (stats.failures, stats.untold) == (1, 1)
        finally:
            os.kill(server.pid, signal.SIGCONT)
        time.sleep(RETRY_AFTER_SECONDS)
        assert one.read(User, [1])[0]["a"] == 2
        assert other.read(User, [1])[0]["a"] == 2
        told = [record.message for record in caplog.records if "shared" in record.name]
        assert [message[:24] for message in told] == [
            "the shared cache is away",
            "the shared cache is back",
        ]
        place.close()


def test_a_call_without_time_is_not_the_caches_fault(place: Place) -> None:
    """A caller who cannot wait for it does not have it left alone by all."""
    store = place.open()
    store.write(User, [{"id": 1, "a": 1, "b": 2, "c": 3}])
    for timeout in (0.0, 1e-6):
        store.read(User, [1], timeout=timeout)
    store.read(User, [1])
    found = store.stats().shared_cache
    assert found is not None
    assert (found.failures, found.filled) == (0, 1)


def test_an_item_that_cannot_be_packed_is_read_all_the_same(place: Place) -> None:
    """What somebody else has put into the table is for the schema to judge, and is not kept."""
    store = place.open()
    store.write(User, [{"id": 1, "a": 1, "b": 2, "c": 3}])
    target = parse_url(place.plain)
    assert isinstance(target, DynamoDBTarget)
    client = boto3.client("dynamodb", region_name=REGION, endpoint_url=target.endpoint_urls[0])
    (item,) = [
        each for each in client.scan(TableName=target.table)["Items"] if each["pk"]["S"][0] != "!"
    ]
    client.put_item(TableName=target.table, Item=item | {"@": {"N": "1.5"}})
    client.close()
    place.forget(1)
    assert [store.read(User, [1]).statuses("a") for _ in range(2)] == [[Status.FAILED]] * 2
    assert place.keys() == {}


def test_a_cache_that_is_not_there_is_no_obstacle(dynoxide: Dynoxide) -> None:
    """A store opens, reads and writes where nobody listens, and says that it has no hits."""
    with Valkey() as server:
        place = Place(dynoxide, server)
    store = place.open()
    store.write(User, [{"id": 1, "a": 1}])
    assert store.read(User, [1]).to_dict() == {"a": [1], "b": [None], "c": [None]}
    found = store.stats().shared_cache
    assert found is not None
    assert (found.hits, found.failures) == (0, 1)
    place.close()


@pytest.mark.parametrize("value", [b"", b"text", b"\x81\xa1@", b"\xff", b"\x81\xa1a\x01"])
def test_what_is_no_item_is_read_of_the_table(place: Place, value: bytes) -> None:
    """A value that somebody else put there is no answer, and a good one takes its place."""
    one, other = place.open(), place.open()
    one.write(User, [{"id": 1, "a": 1, "b": 2, "c": 3}])
    one.read(User, [1])
    place.client.set(place.key(1), value)
    assert [one.read(User, [1])[0]["a"] for _ in range(3)] == [1, 1, 1]
    place.client.set(place.key(1), value)
    other.write(User, [{"id": 1, "a": 5}])
    assert [one.read(User, [1])[0]["a"] for _ in range(3)] == [5, 5, 5]


def test_a_wrong_password_is_told_without_it(
    dynoxide: Dynoxide, valkey: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    """A cache that refuses its user is done without, and no log says by which password."""
    place = Place(dynoxide, valkey)
    place.url = place.url.replace("valkey://", "valkey://nobody:secret@")
    assert "secret" not in repr(parse_url(place.url))
    with caplog.at_level(logging.INFO):
        store = place.open()
        store.write(User, [{"id": 1, "a": 1}])
        assert store.read(User, [1])[0]["a"] == 1
    assert "the shared cache is away" in caplog.text
    assert "secret" not in caplog.text
    place.close()


# --- time ------------------------------------------------------------------------------------


class FakeTable:
    """A table that answers at once, from regions as they are stated."""

    layout = TableLayout()
    identity = home = origin = "fake"

    def __init__(self, answered: dict[str, float | None]) -> None:
        self.answered = answered

    def get(self, wanted: list[GroupKeys], call: Call) -> Operation[list[list[RowOrError]]]:
        yield from ()
        for region, behind in self.answered.items():
            call.report.answered_by(region, behind)
        return [[None for _ in want.pks] for want in wanted]


def fills(answered: dict[str, float | None], seconds: float, deadline: float) -> bool:
    """Whether what was read is given to the cache; the table has taken so many seconds."""
    cache = SharedItems("", "fake", SHARED_CACHE, ttl=300, timeout=1.0, clustered=False)
    table: Any = FakeTable(answered)
    backend = SharedCacheBackend(table, cache)
    with OnlineStore.open("sqlite://", [User]) as store:
        codec = store.core.registry.draft(namespace_of(User))
    shape = next(iter(codec.groups.values())).shape
    times = iter([0.0, seconds, seconds])
    reading = backend.get([GroupKeys("a", shape, ["a:1"])], Call(deadline))
    sent: list[Any] = []
    answer: Any = None
    while True:
        try:
            effect: Any = reading.send(answer)
        except StopIteration:
            return FILL.sha in sent
        if effect is NOW:
            answer = Instant(next(times), 0)
        else:
            sent.append(effect.request.commands[0][1])
            answer = [[None]] if len(sent) == 1 else [1]


@pytest.mark.parametrize(
    ("answered", "seconds", "deadline", "kept"),
    [
        ({}, 0.1, 10.0, True),
        ({}, FILL_WINDOW_SECONDS - 0.1, 10.0, True),
        ({}, FILL_WINDOW_SECONDS, 10.0, False),
        ({}, 1.0, 1.0, False),
        ({"us-east-1": 0.0}, 0.1, 10.0, True),
        ({"us-west-2": FILL_WINDOW_SECONDS + 1}, 0.1, 10.0, False),
        ({"us-west-2": None}, 0.1, 10.0, False),
        ({"us-east-1": 0.0, "us-west-2": FILL_WINDOW_SECONDS + 1}, 0.1, 10.0, False),
    ],
)
def test_what_may_be_old_is_not_kept(
    answered: dict[str, float | None], seconds: float, deadline: float, kept: bool
) -> None:
    """A read that took long, or came from a region that may be behind, does not fill the cache."""
    assert fills(answered, seconds, deadline) is kept


# --- URLs ------------------------------------------------------------------------------------


def test_a_url_names_the_cache() -> None:
    """The options of a URL, and what they are without being stated."""
    target = parse_url("dynamodb:///table?shared_cache=valkeys://u:p%2540@host?prefix=a:%26db=1")
    assert isinstance(target, DynamoDBTarget)
    assert target.shared_cache is not None
    assert (target.shared_cache.prefix, target.shared_cache.tls) == ("a:", True)
    assert (target.shared_cache_ttl, target.shared_cache_timeout) == (300, 0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("shared_cache=sqlite://", "Valkey or Redis"),
        ("shared_cache=host:6379", "begins with"),
        ("shared_cache=valkey://", "no host"),
        ("shared_cache=valkey://one,two", "its primary"),
        ("shared_cache_ttl=5", "does not name"),
        ("shared_cache=valkey://host&shared_cache_ttl=1.5", "above 0"),
        ("shared_cache=valkey://host&shared_cache_timeout=0", "above 0"),
    ],
)
def test_a_url_that_names_none_is_refused(options: str, message: str) -> None:
    """What is no cache, and options without one, are refused before anything is opened."""
    with pytest.raises(InvalidURL, match=message):
        parse_url(f"dynamodb:///table?{options}")

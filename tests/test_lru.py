"""The item cache: bounded, aged, and never behind the writes of its own process."""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from chalk_online_store import Feature, LRUCache, Namespace
from chalk_online_store.backend import Applied, Call, Outcome
from chalk_online_store.cache.lru import MISS, ItemCache
from chalk_online_store.codec.changes import Change
from chalk_online_store.codec.layout import ItemKey, TableLayout
from chalk_online_store.codec.namespaces import NamespaceCodec
from chalk_online_store.codec.registry import Registry
from chalk_online_store.codec.shapes import Shape
from chalk_online_store.effects import Instant, Operation, Send
from chalk_online_store.operations import write as writing

A, B, C = (ItemKey(pk, "a") for pk in ("n:1", "n:2", "n:3"))


def cache_of(size: int = 10, ttl: str = "10s", misses: bool = False) -> ItemCache:
    return ItemCache(LRUCache(size, ttl, store_cache_misses=misses))


def fill(cache: ItemCache, rows: dict[ItemKey, Any], now: float = 0.0) -> None:
    cache.fill(rows, cache.lease(), now)


def get(cache: ItemCache, key: ItemKey, now: float = 0.0) -> Any:
    return cache.get_many([key], now)[0]


def test_what_was_filled_is_found_in_order() -> None:
    """A batch is answered in its own order, and a key of which nothing is known by MISS."""
    cache = cache_of()
    fill(cache, {A: "a", B: "b"})
    assert cache.get_many([B, C, A, B], 0.0) == ["b", MISS, "a", "b"]


def test_an_entry_expires_after_its_own_ttl() -> None:
    """Each entry is served for as long as the ttl says, counted from its own filling."""
    cache = cache_of(ttl="10s")
    fill(cache, {A: "a"}, now=0.0)
    fill(cache, {B: "b"}, now=5.0)
    assert cache.get_many([A, B], 9.999) == ["a", "b"]
    assert cache.get_many([A, B], 10.0) == [MISS, "b"]
    assert cache.get_many([A, B], 15.0) == [MISS, MISS]


def test_an_endless_ttl() -> None:
    """Without a ttl an entry stays until it is pushed out."""
    cache = ItemCache(LRUCache(1))
    fill(cache, {A: "a"})
    assert get(cache, A, now=1e12) == "a"


def test_a_hit_does_not_lengthen_a_life() -> None:
    """Reading an entry keeps it from being pushed out, not from growing old."""
    cache = cache_of(ttl="10s")
    fill(cache, {A: "a"})
    assert get(cache, A, now=9.0) == "a"
    assert get(cache, A, now=11.0) is MISS


def test_the_least_recently_used_goes_first() -> None:
    """The cache never holds more than it may, and keeps what was asked for last."""
    cache = cache_of(size=2)
    fill(cache, {A: "a", B: "b"})
    get(cache, A)
    fill(cache, {C: "c"})
    assert cache.get_many([A, B, C], 0.0) == ["a", MISS, "c"]


@pytest.mark.parametrize(("misses", "known"), [(True, None), (False, MISS)])
def test_an_absent_item_is_known_if_asked_for(misses: bool, known: Any) -> None:
    """That an entity has no item is remembered only with `store_cache_misses`."""
    cache = cache_of(misses=misses)
    fill(cache, {A: None})
    assert get(cache, A) is known
    fill(cache, {A: "a"})
    fill(cache, {A: None})
    assert get(cache, A) is known


def test_a_write_replaces_what_was_known() -> None:
    """After a write its row is served; where the row is not known, nothing is."""
    cache = cache_of()
    fill(cache, {A: "old", B: "old", C: "old"})
    cache.written({A: "new"}, [B], 0.0)
    assert cache.get_many([A, B, C], 0.0) == ["new", MISS, "old"]


def test_a_read_that_began_before_a_write_is_turned_away() -> None:
    """What a read brings from before a write does not hide that write; later reads fill again."""
    cache = cache_of()
    lease = cache.lease()
    cache.written({A: "new"}, [B], 0.0)
    cache.fill({A: "old", B: "old", C: "c"}, lease, 0.0)
    assert cache.get_many([A, B, C], 0.0) == ["new", MISS, "c"]
    fill(cache, {A: "newest", B: "b"})
    assert cache.get_many([A, B], 0.0) == ["newest", "b"]


@pytest.mark.parametrize("row", ["old", None])
def test_a_lease_holds_through_very_many_writes(row: str | None) -> None:
    """A read is turned away also when the write of its key is too long ago to be remembered."""
    cache = cache_of(size=10, misses=True)
    before = cache.lease()
    cache.written({}, [A], 0.0)
    after = cache.lease()
    for number in range(65_536):
        cache.written({}, [ItemKey(f"n:{number}", "b")], 0.0)
    cache.fill({A: row}, before, 0.0)
    assert get(cache, A) is MISS
    cache.fill({A: "new"}, after, 0.0)
    assert get(cache, A) == "new"


def test_very_many_writes_do_not_stop_the_cache() -> None:
    """After more writes than are remembered, new reads of any key fill the cache as ever."""
    cache = cache_of()
    cache.written({}, [ItemKey(f"n:{number}", "b") for number in range(70_000)], 0.0)
    fill(cache, {A: "a", ItemKey("n:1", "b"): "b"})
    assert cache.get_many([A, ItemKey("n:1", "b")], 0.0) == ["a", "b"]


KEYS = st.sampled_from([A, B, C])


@dataclass
class Modelled:
    """The cache as a list of facts: what is kept, until when, and what each key was."""

    size: int = 2
    kept: OrderedDict[ItemKey, tuple[float, Any]] = field(default_factory=OrderedDict)
    versions: dict[ItemKey, int] = field(default_factory=lambda: dict.fromkeys((A, B, C), 0))

    def put(self, key: ItemKey, row: Any, now: float) -> None:
        self.kept.pop(key, None)
        self.kept[key] = (now + 10, row)
        while len(self.kept) > self.size:
            self.kept.popitem(last=False)

    def get(self, key: ItemKey, now: float) -> Any:
        if key not in self.kept:
            return MISS
        self.kept.move_to_end(key)
        expires, row = self.kept[key]
        return row if expires > now else MISS


class CacheMachine(RuleBasedStateMachine):
    """Reads that take their time, writes in between, and a clock: against the model."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = cache_of(size=2, ttl="10s", misses=True)
        self.model = Modelled()
        self.now = 0.0
        self.reads: list[tuple[int, ItemKey, int]] = []

    @rule(seconds=st.sampled_from([1.0, 4.0, 10.0]))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds

    @rule(key=KEYS)
    def begin_read(self, key: ItemKey) -> None:
        """A read sees the item's present version, and brings it later."""
        self.reads.append((self.cache.lease(), key, self.model.versions[key]))

    @precondition(lambda self: self.reads)
    @rule(data=st.data())
    def end_read(self, data: st.DataObject) -> None:
        """Reads end in any order; the model takes only the version that is still the last."""
        read = data.draw(st.sampled_from(self.reads))
        self.reads.remove(read)
        lease, key, version = read
        self.cache.fill({key: version}, lease, self.now)
        if version == self.model.versions[key]:
            self.model.put(key, version, self.now)

    @rule(key=KEYS, known=st.booleans())
    def write(self, key: ItemKey, known: bool) -> None:
        """A write makes a new version, which is known whole or not."""
        self.model.versions[key] += 1
        version = self.model.versions[key]
        self.cache.written({key: version} if known else {}, [] if known else [key], self.now)
        self.model.kept.pop(key, None)
        if known:
            self.model.put(key, version, self.now)

    @rule(keys=st.lists(KEYS, max_size=3))
    def ask(self, keys: list[ItemKey]) -> None:
        """Every answer is the model's."""
        expected = [self.model.get(key, self.now) for key in keys]
        assert self.cache.get_many(keys, self.now) == expected

    @invariant()
    def nothing_is_behind(self) -> None:
        """No entry is older than the last write of its key."""
        for key, (_, version) in self.model.kept.items():
            assert version == self.model.versions[key]


CacheMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
test_the_cache_behaves_as_its_model = CacheMachine.TestCase


class Interrupted(dict[ItemKey, Any]):
    """Rows of which another thread asks the cache while it is taking them in."""

    def __init__(self, rows: dict[ItemKey, Any], ask: Callable[[], Future[Any]]) -> None:
        super().__init__(rows)
        self.ask = ask

    def items(self) -> Iterator[tuple[ItemKey, Any]]:  # type: ignore[override]
        """The pairs, with a question after the first, and time enough to answer it."""
        first, *others = super().items()
        yield first
        wait([self.ask()], timeout=0.05)
        yield from others


@pytest.mark.parametrize("by", ["fill", "written"])
def test_a_batch_is_seen_whole_or_not_at_all(by: str) -> None:
    """A thread that asks in the midst of a fill or a write waits for its end."""
    cache = cache_of()
    asked: list[Future[Any]] = []
    with ThreadPoolExecutor(1) as threads:

        def ask() -> Future[Any]:
            asked.append(threads.submit(cache.get_many, [A, B], 0.0))
            return asked[-1]

        rows = Interrupted({A: "a", B: "b"}, ask)
        if by == "fill":
            fill(cache, rows)
        else:
            cache.written(rows, [], 0.0)
        assert asked[0].result() == ["a", "b"]


@pytest.fixture
def _eager_threads() -> Iterator[None]:
    """Threads that interrupt each other as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("_eager_threads")
def test_threads_never_read_behind_a_write() -> None:
    """While threads write and read the same few keys, no reader ever sees a version go back."""
    cache = cache_of(size=2)
    table = dict.fromkeys((A, B, C), 0)  # what the engine holds
    wrong: list[str] = []
    done = threading.Event()

    def write(key: ItemKey) -> None:
        for version in range(1, 2000):
            table[key] = version
            cache.written({key: version} if version % 3 else {}, [] if version % 3 else [key], 0.0)

    def read() -> None:
        while not done.is_set():
            for key in (A, B, C):
                written, lease = table[key] - 1, cache.lease()
                found = get(cache, key)
                if found is not MISS and found < written:
                    wrong.append(f"{found} after {written}")
                cache.fill({key: table[key]}, lease, 0.0)

    with ThreadPoolExecutor(5) as threads:
        reading = [threads.submit(read) for _ in range(2)]
        written = [threads.submit(write, key) for key in (A, B, C)]
        wait(written)
        done.set()
    for future in reading + written:
        future.result()  # Raises what the thread raised.
    assert wrong == []
    fill(cache, dict(table))
    assert sum(found is not MISS for found in cache.get_many([A, B, C], 0.0)) == 2


# --- writes through the cache --------------------------------------------------------------


class OneEngine:
    """A backend to which a request is under way between two steps of its operation."""

    layout = TableLayout()

    def __init__(self) -> None:
        self.arrived: list[Change] = []

    def change(self, changes: Sequence[Change], call: Call) -> Operation[list[Outcome]]:
        """Every change is applied as soon as it is sent; its answer comes later."""
        self.arrived += changes
        yield Send(changes, 1.0)
        return [Applied.WHOLLY] * len(changes)

    replace = change


def codec_of(namespace: Namespace) -> NamespaceCodec:
    registry = Registry()
    entries = registry.allocate(registry.missing(namespace), frozenset())
    return NamespaceCodec(namespace, Registry(tuple(entries)), TableLayout())


@pytest.mark.parametrize("ordering", ["event", "arrival"])
def test_two_writers_leave_the_last_row_or_none(ordering: writing.Ordering) -> None:
    """Of two writes of one item under way at once, the cache never keeps the one that lost."""
    codec = codec_of(Namespace("user", int, (Feature("risk", int),)))
    cache, engine = cache_of(), OneEngine()
    operations = []
    for observed_at in (5, 6):  # Applied in this order, …
        rows = [{"id": 1, "risk": observed_at}]
        planned = writing.changes_of_rows(codec, rows, [observed_at])
        operation = writing.write(engine, cache, codec, planned, ordering, Call(9.0))  # type: ignore[arg-type]
        next(operation)
        operation.send(Instant(0.0, 0))
        operations.append(operation)
    for operation in reversed(operations):  # … answered in the other.
        with pytest.raises(StopIteration):
            operation.send([Applied.WHOLLY])
    found = get(cache, engine.arrived[-1].key)
    assert found is MISS or read(codec, found) == 6


def read(codec: NamespaceCodec, row: Any) -> Any:
    shape: Shape = codec.groups["default"].shape
    cell = shape.cell(row, 0)
    return cell and cell.value

"""The item cache: bounded, aged, never behind the writes of its own process, read once by many."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

import cachetools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from chalk_online_store import Feature, InvalidSchema, LRUCache, Namespace
from chalk_online_store.backend import Call, Outcome, WriteOutcome
from chalk_online_store.codec.changes import Change
from chalk_online_store.codec.layout import TableLayout
from chalk_online_store.codec.namespaces import NamespaceCodec
from chalk_online_store.codec.registry import Registry
from chalk_online_store.effects import Instant, Operation, Send
from chalk_online_store.operations import write as writing
from chalk_online_store.tiers.lru import MISS, InFlightRead, InFlightWrite, ItemCache, Key
from tests.helpers import stress

SHAPE = object()
SK = "a"


def cache_of(size: int = 10, ttl: str = "10s", misses: bool = False, **more: Any) -> ItemCache:
    more.setdefault("ttl_jitter", 0.0)
    return ItemCache(LRUCache(size, ttl, misses, **more), random.Random(7))


def fill(cache: ItemCache, rows: Mapping[str, Any], now: float = 0.0) -> None:
    """As a read does that begins and ends now."""
    trip = under_way()
    cache.begin_fetch(rows, SK, SHAPE, trip)
    bring(cache, trip, rows, now)


def under_way() -> InFlightRead:
    trip = InFlightRead()
    trip.owner.acquire()
    return trip


def brought_anew(cache: ItemCache, due: Iterable[Key]) -> InFlightRead:
    trip = under_way()
    cache.renew(due, trip)
    return trip


def begin_write(cache: ItemCache, keys: Iterable[Key]) -> InFlightWrite:
    writing = InFlightWrite(keys)
    writing.owner.acquire()
    cache.write_begins(writing)
    return writing


def bring(cache: ItemCache, trip: InFlightRead, rows: Mapping[str, Any], now: float = 0.0) -> None:
    """Land a trip with these rows by partition key."""
    cache.land(trip, [(pk, SK) for pk in rows], list(rows.values()), now)


def ask(cache: ItemCache, *pks: str, now: float = 0.0, shape: Any = SHAPE) -> list[Any]:
    """What the cache has, by a read that goes no further."""
    trip = under_way()
    found = cache.look(pks, SK, shape, now, trip).found
    cache.fail(trip, None)
    return found


def write(cache: ItemCache, rows: Mapping[str, Any], unknown: Sequence[str] = ()) -> None:
    """As a write does that begins and ends now."""
    begun = begin_write(cache, [(pk, SK) for pk in (*rows, *unknown)])
    cache.written(begun, {(pk, SK): (SHAPE, row) for pk, row in rows.items()}, 0.0)


def test_what_was_filled_is_found_in_order() -> None:
    """A batch is answered in its own order, and a key of which nothing is known by MISS."""
    cache = cache_of()
    fill(cache, {"A": "a", "B": "b"})
    assert ask(cache, "B", "C", "A", "B") == ["b", MISS, "a", "b"]


def test_an_entry_expires_after_its_own_ttl() -> None:
    """Each entry is served for as long as the ttl says, counted from its own filling."""
    cache = cache_of(ttl="10s")
    fill(cache, {"A": "a"}, now=0.0)
    fill(cache, {"B": "b"}, now=5.0)
    assert ask(cache, "A", "B", now=9.999) == ["a", "b"]
    assert ask(cache, "A", "B", now=10.0) == [MISS, "b"]
    assert ask(cache, "A", "B", now=15.0) == [MISS, MISS]
    assert cache.stats().expired == 3


def test_an_endless_ttl() -> None:
    """Without a ttl an entry stays until it is pushed out."""
    cache = cache_of(size=1, ttl="infinity", ttl_jitter=0.5, refresh_ahead=0.5)
    fill(cache, {"A": "a"})
    assert ask(cache, "A", now=1e12) == ["a"]


def test_a_hit_does_not_lengthen_a_life() -> None:
    """Reading an entry keeps it from being pushed out, not from growing old."""
    cache = cache_of(ttl="10s")
    fill(cache, {"A": "a"})
    assert ask(cache, "A", now=9.0) == ["a"]
    assert ask(cache, "A", now=11.0) == [MISS]


def test_jitter_spreads_what_was_read_together() -> None:
    """Entries of one fill expire evenly over the last part of the ttl, and none after it."""
    cache = cache_of(size=1000, ttl="10s", ttl_jitter=0.2)
    names = [str(number) for number in range(1000)]
    fill(cache, dict.fromkeys(names, "x"))
    alive = [1000 - ask(cache, *names, now=now).count(MISS) for now in (7.99, 9.0, 10.0)]
    assert alive[0] == 1000
    assert 400 < alive[1] < 600
    assert alive[2] == 0


def test_the_least_recently_used_goes_first() -> None:
    """The cache never holds more than it may, and keeps what was asked for last."""
    cache = cache_of(size=2)
    fill(cache, {"A": "a", "B": "b"})
    ask(cache, "A")
    fill(cache, {"C": "c"})
    assert ask(cache, "A", "B", "C") == ["a", MISS, "c"]
    assert (cache.stats().evictions, cache.stats().entries) == (1, 2)


@given(st.lists(st.integers(0, 12), max_size=200), st.integers(1, 8))
def test_it_keeps_what_cachetools_keeps(asked: list[int], size: int) -> None:
    """Read through, it hits and misses exactly as cachetools' LRUCache of the same size."""
    cache = cache_of(size=size)
    reference: cachetools.LRUCache[str, str] = cachetools.LRUCache(size)
    for pk in map(str, asked):
        known = reference.get(pk, MISS)
        assert ask(cache, pk) == [known]
        if known is MISS:
            reference[pk] = pk
            fill(cache, {pk: pk})


@pytest.mark.parametrize(("misses", "known"), [(True, None), (False, MISS)])
def test_an_absent_item_is_known_if_asked_for(misses: bool, known: Any) -> None:
    """That an entity has no item is remembered only with `store_cache_misses`, for any shape."""
    cache = cache_of(misses=misses)
    fill(cache, {"A": None})
    assert ask(cache, "A") == ask(cache, "A", shape=object()) == [known]
    fill(cache, {"A": "a"})
    fill(cache, {"A": None})
    assert ask(cache, "A") == [known]
    assert cache.stats().negative_hits == (3 if misses else 0)


def test_a_row_of_another_shape_is_none() -> None:
    """A row that was read by another reading of the registry is not served."""
    cache = cache_of()
    fill(cache, {"A": "a"})
    assert ask(cache, "A", shape=object()) == [MISS]


# --- bounded by bytes ----------------------------------------------------------------------


def row_of(number: int, size: int = 10) -> tuple[Any, ...]:
    return (f"a:{number}", SK, 1, None, float(number), number, "x" * size)


def test_bytes_are_bounded() -> None:
    """However large the rows, the cache stays below its bytes; a row that is larger stays out."""
    cache = cache_of(size=10_000, max_bytes=100_000)
    sizes = random.Random(1).choices([10, 1_000, 20_000], k=500)
    for number, size in enumerate(sizes):
        fill(cache, {str(number): row_of(number, size)})
        assert cache.stats().bytes <= 100_000
    assert cache.stats().entries > 5
    fill(cache, {"large": row_of(1, 200_000)})
    assert ask(cache, "large", "499")[0] is MISS
    assert cache.stats().entries > 5


def test_bytes_go_with_their_entries() -> None:
    """What expires, is overwritten or is deleted is not counted any more."""
    cache = cache_of(max_bytes=100_000)
    fill(cache, {"A": row_of(1), "B": row_of(2)})
    both = cache.stats().bytes
    fill(cache, {"A": row_of(1)})
    assert cache.stats().bytes == both
    write(cache, {}, ["A", "B"])
    assert (cache.stats().bytes, cache.stats().entries) == (0, 0)


@pytest.mark.parametrize("bound", [None, 10**9])
def test_bytes_are_about_what_python_takes(bound: int | None) -> None:
    """The estimate, sampled where no bound asks for more, is within a fifth of the truth."""
    cache = cache_of(size=100_000, max_bytes=bound)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for start in range(0, 20_000, 100):
        rows = {}
        for number in range(start, start + 100):
            pk = f"user:{number}"
            rows[pk] = (pk, SK, number + 10**15, None, number * 1.1, f"{number:050}", None)
        fill(cache, rows)
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert 0.8 < cache.stats().bytes / taken < 1.2


# --- reads under way -----------------------------------------------------------------------


def test_a_second_reader_waits_for_the_first() -> None:
    """Of two that miss one key, one brings it; both get it, and it is kept."""
    cache = cache_of()
    first, second = under_way(), under_way()
    assert cache.look(["A"], SK, SHAPE, 0.0, first).missed == [0]
    look = cache.look(["B", "A"], SK, SHAPE, 0.0, second)
    assert (look.found, look.missed, look.joined) == ([MISS, first], [0], [1])
    bring(cache, first, {"A": "a"})
    assert first.future is not None
    assert first.future.result() == {("A", SK): "a"}
    assert ask(cache, "A") == ["a"]
    assert cache.stats().joined == 1


def test_a_reader_of_another_shape_goes_by_itself() -> None:
    """Rows of one shape are no answer to a read of another."""
    cache = cache_of()
    cache.look(["A"], SK, SHAPE, 0.0, under_way())
    assert cache.look(["A"], SK, object(), 0.0, under_way()).missed == [0]


def test_who_fails_leaves_the_way_to_others() -> None:
    """After a read that brought nothing the next one reads; who waited hears why."""
    cache = cache_of()
    first, second = under_way(), under_way()
    cache.look(["A"], SK, SHAPE, 0.0, first)
    cache.look(["A"], SK, SHAPE, 0.0, second)
    cache.fail(first, ValueError("why"))
    assert first.future is not None
    with pytest.raises(ValueError, match="why"):
        first.future.result()
    assert cache.look(["A"], SK, SHAPE, 0.0, second).missed == [0]


def test_a_read_that_began_before_a_write_is_turned_away() -> None:
    """What a read brings from before a write does not hide that write, and nobody joins it."""
    cache = cache_of()
    trip = under_way()
    cache.look(["A", "B", "C"], SK, SHAPE, 0.0, trip)
    write(cache, {"A": "new"}, ["B"])
    later = under_way()
    assert cache.look(["B", "C"], SK, SHAPE, 0.0, later).joined == [1]
    cache.fail(later, None)
    bring(cache, trip, {"A": "old", "B": "old", "C": "c"})
    assert ask(cache, "A", "B", "C") == ["new", MISS, "c"]


def test_a_write_replaces_what_was_known() -> None:
    """After a write its row is served; where the row is not known, nothing is."""
    cache = cache_of()
    fill(cache, {"A": "old", "B": "old", "C": "old"})
    write(cache, {"A": "new"}, ["B"])
    assert ask(cache, "A", "B", "C") == ["new", MISS, "old"]
    assert cache.stats().invalidations == 1


# --- renewal -------------------------------------------------------------------------------


def due_at(cache: ItemCache, now: float) -> tuple[list[Any], list[Key]]:
    """What is found at a time, and what is to be read anew."""
    trip = under_way()
    found = cache.look(["A"], SK, SHAPE, now, trip).found
    cache.fail(trip, None)
    return found, trip.due


@pytest.mark.parametrize(
    ("options", "fresh", "aged", "gone"),
    [
        ({"refresh_ahead": 0.2}, 7.9, 8.1, 10.0),
        ({"stale_while_revalidate": "5s"}, 9.9, 10.1, 15.0),
        ({"refresh_ahead": 0.2, "stale_while_revalidate": "5s"}, 7.9, 14.9, 15.0),
    ],
)
def test_an_aged_entry_is_served_and_renewed(
    options: Any, fresh: float, aged: float, gone: float
) -> None:
    """Near its end, or beyond it for a while, an entry is served; the first hit has it renewed."""
    cache = cache_of(ttl="10s", **options)
    fill(cache, {"A": "a"})
    assert due_at(cache, fresh) == (["a"], [])
    assert due_at(cache, aged) == (["a"], [("A", SK)])
    assert due_at(cache, aged) == (["a"], [])
    assert due_at(cache, gone) == ([MISS], [])


def test_an_interrupted_read_is_replaced() -> None:
    """Items that an interrupted read had registered are read by the next read."""
    cache = cache_of()
    lost = under_way()
    cache.look(["A"], SK, SHAPE, 0.0, lost)
    joined = cache.look(["A"], SK, SHAPE, 0.0, under_way())
    assert joined.joined == [0]
    lost.owner.release()
    assert lost.future is not None
    assert lost.future.is_over
    again = under_way()
    assert cache.look(["A"], SK, SHAPE, 0.0, again).missed == [0]
    bring(cache, lost, {"A": "late"})
    bring(cache, again, {"A": "a"})
    assert ask(cache, "A") == ["a"]


def test_an_interrupted_write_invalidates() -> None:
    """An item is not served from the cache after an interrupted write of it."""
    cache = cache_of()
    fill(cache, {"A": "a", "B": "b"})
    lost = begin_write(cache, [("A", SK)])
    assert ask(cache, "A", "B") == ["a", "b"]
    lost.owner.release()
    trip = under_way()
    look = cache.look(["A", "B"], SK, SHAPE, 0.0, trip)
    assert look.found == [MISS, "b"]
    bring(cache, trip, {"A": "new"})
    write(cache, {"B": "c"})
    assert ask(cache, "A", "B") == ["new", "c"]
    assert cache._writing == {}


def test_items_of_interrupted_reads_are_not_kept_for_ever() -> None:
    """The table of reads in flight stays bounded, however many were interrupted."""
    cache = cache_of()
    for number in range(30_000):
        cache.look([str(number)], SK, SHAPE, 0.0, InFlightRead())
    assert len(cache._flying) < 10_000


def test_a_renewal_begins_a_new_life() -> None:
    """What a renewal brings is served for a whole ttl again; meanwhile nobody else reads."""
    cache = cache_of(ttl="10s", refresh_ahead=0.5)
    fill(cache, {"A": "a"})
    _, due = due_at(cache, 6.0)
    trip = brought_anew(cache, due)
    assert brought_anew(cache, due).shapes == {}
    bring(cache, trip, {"A": "b"}, now=7.0)
    assert due_at(cache, 11.9) == (["b"], [])
    assert cache.stats().refreshes == 1


def test_a_renewal_of_what_was_written_is_not_kept() -> None:
    """A write during a renewal has the last word."""
    cache = cache_of(ttl="10s", refresh_ahead=0.5)
    fill(cache, {"A": "a"})
    trip = brought_anew(cache, due_at(cache, 6.0)[1])
    write(cache, {"A": "new"})
    bring(cache, trip, {"A": "old"}, now=7.0)
    assert ask(cache, "A", now=7.0) == ["new"]


@pytest.mark.parametrize(
    "options",
    [
        {"max_size": 0},
        {"max_size": 1, "max_bytes": 0},
        {"max_size": 1, "ttl": "soon"},
        {"max_size": 1, "ttl_jitter": 1.0},
        {"max_size": 1, "refresh_ahead": -0.1},
        {"max_size": 1, "stale_while_revalidate": "a while"},
    ],
)
def test_a_cache_that_nobody_can_mean_is_refused(options: Any) -> None:
    """What is out of range is refused where it is declared."""
    with pytest.raises(InvalidSchema):
        LRUCache(**options)


# --- coherence -----------------------------------------------------------------------------

PKS = st.sampled_from("AB")


@dataclass(eq=False)
class ARead:
    """A read of one key: what the engine answered, once it did, and from when on it is right."""

    pk: str
    trip: InFlightRead
    least: int
    joined: InFlightRead | None = None
    answer: int | None = None


@dataclass(eq=False)
class AWrite:
    """A write of one key: the version that the engine made of it, once it did."""

    pk: str
    begun: InFlightWrite
    version: int | None = None


class Coherence(RuleBasedStateMachine):
    """Reads and writes that take their time, in any order: nobody ever sees the past.

    The engine counts each key's versions. Once a write has returned, no read that begins later
    may see a version from before it, be it from the cache, by itself or with another's read.
    """

    def __init__(self) -> None:
        super().__init__()
        self.cache = cache_of(size=2, misses=True, refresh_ahead=0.5)
        self.engine = dict.fromkeys("AB", 0)
        self.returned = dict.fromkeys("AB", 0)
        self.reads: list[ARead] = []
        self.writes: list[AWrite] = []
        self.now = 0.0

    @rule(seconds=st.sampled_from([1.0, 6.0]))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds

    @rule(pk=PKS)
    def begin_read(self, pk: str) -> None:
        """A read finds the key, joins another, or sets out; what is due is read anew."""
        trip = under_way()
        look = self.cache.look([pk], SK, SHAPE, self.now, trip)
        read = ARead(pk, trip, self.returned[pk])
        if look.joined:
            read.joined = look.found[0]
            self.reads.append(read)
        elif look.missed:
            self.reads.append(read)
        else:
            assert look.found[0] >= read.least
        if trip.due and (renewal := brought_anew(self.cache, trip.due)).shapes:
            self.reads.append(ARead(pk, renewal, self.returned[pk]))

    @rule(pk=PKS)
    def begin_strong_read(self, pk: str) -> None:
        """A strong read sets out whatever is known."""
        trip = under_way()
        self.cache.begin_fetch([pk], SK, SHAPE, trip)
        self.reads.append(ARead(pk, trip, self.returned[pk]))

    @precondition(lambda self: self.reads)
    @rule(data=st.data())
    def engine_answers(self, data: st.DataObject) -> None:
        """The engine reads the version of now."""
        read = data.draw(st.sampled_from(self.reads))
        if read.joined is None and read.answer is None:
            read.answer = self.engine[read.pk]

    @precondition(lambda self: self.reads)
    @rule(data=st.data(), fails=st.booleans())
    def end_read(self, data: st.DataObject, fails: bool) -> None:
        """Reads end in any order, some without an answer; those who joined get it."""
        read = data.draw(st.sampled_from(self.reads))
        if read.joined is not None:
            return
        self.reads.remove(read)
        if fails or read.answer is None:
            self.cache.fail(read.trip, None)
        else:
            bring(self.cache, read.trip, {read.pk: read.answer}, self.now)
        for other in [r for r in self.reads if r.joined is read.trip]:
            self.reads.remove(other)
            assert read.trip.future is not None
            brought = read.trip.future.result().get((other.pk, SK))
            assert brought is None or brought >= other.least

    @rule(pk=PKS)
    def begin_write(self, pk: str) -> None:
        """A write is sent."""
        self.writes.append(AWrite(pk, begin_write(self.cache, [(pk, SK)])))

    @precondition(lambda self: self.writes)
    @rule(data=st.data())
    def engine_writes(self, data: st.DataObject) -> None:
        """The engine makes a new version."""
        write = data.draw(st.sampled_from(self.writes))
        if write.version is None:
            self.engine[write.pk] += 1
            write.version = self.engine[write.pk]

    @precondition(lambda self: self.writes)
    @rule(data=st.data(), known=st.booleans())
    def end_write(self, data: st.DataObject, known: bool) -> None:
        """A write returns, with the whole item or without; or fails, which leaves all open."""
        write = data.draw(st.sampled_from(self.writes))
        self.writes.remove(write)
        version = write.version
        reads = {(write.pk, SK): (SHAPE, version)} if known and version is not None else {}
        self.cache.written(write.begun, reads, self.now)
        self.returned[write.pk] = max(self.returned[write.pk], version or 0)


Coherence.TestCase.settings = settings(max_examples=stress(25), stateful_step_count=40)
test_no_read_sees_the_past = Coherence.TestCase


class Question:
    """What another thread asks the cache between two items, with time enough to answer it."""

    def __init__(self, threads: ThreadPoolExecutor, cache: ItemCache) -> None:
        self._ask: Callable[[], Future[Any]] = lambda: threads.submit(ask, cache, "A", "B")
        self.asked: list[Future[Any]] = []

    def __call__(self) -> None:
        """Ask for the first time, later wait for the answer."""
        if self.asked:
            wait(self.asked, timeout=0.05)
        else:
            self.asked.append(self._ask())


class InterruptedRows(list[Any]):
    """Rows between which a question is asked."""

    question: Question

    def __iter__(self) -> Iterator[Any]:
        """The rows."""
        for row in super().__iter__():
            self.question()
            yield row


class InterruptedReads(dict[Key, Any]):
    """Items between which a question is asked."""

    question: Question

    def __getitem__(self, key: Key) -> Any:
        """An item."""
        self.question()
        return super().__getitem__(key)


@pytest.mark.parametrize("by", ["land", "written"])
def test_a_batch_is_seen_whole_or_not_at_all(by: str) -> None:
    """A thread that asks in the midst of a fill or a write waits for its end."""
    cache = cache_of()
    keys = [("A", SK), ("B", SK)]
    with ThreadPoolExecutor(1) as threads:
        question = Question(threads, cache)
        if by == "land":
            trip = under_way()
            cache.begin_fetch("AB", SK, SHAPE, trip)
            rows = InterruptedRows(["new", "new"])
            rows.question = question
            cache.land(trip, keys, rows, 0.0)
        else:
            reads = InterruptedReads(dict.fromkeys(keys, (SHAPE, "new")))
            reads.question = question
            cache.written(begin_write(cache, keys), reads, 0.0)
        assert question.asked[0].result() == ["new", "new"]


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
    table = dict.fromkeys("ABC", 0)  # What the engine holds.
    returned = dict.fromkeys("ABC", 0)
    wrong: list[str] = []
    done = threading.Event()

    def write_all(pk: str) -> None:
        for version in range(1, 1500):
            begun = begin_write(cache, [(pk, SK)])
            table[pk] = version
            known = {(pk, SK): (SHAPE, version)} if version % 3 else {}
            cache.written(begun, known, 0.0)
            returned[pk] = version

    def read_all() -> None:
        while not done.is_set():
            for pk in "ABC":
                least, trip = returned[pk], under_way()
                look = cache.look([pk], SK, SHAPE, 0.0, trip)
                if look.missed:
                    bring(cache, trip, {pk: table[pk]})
                elif look.joined:
                    found = look.found[0].future.result()[pk, SK]
                    wrong.extend([f"{found} after {least}"] * (found < least))
                elif look.found[0] < least:
                    wrong.append(f"{look.found[0]} after {least}")

    with ThreadPoolExecutor(5) as threads:
        readers = [threads.submit(read_all) for _ in range(2)]
        writers = [threads.submit(write_all, pk) for pk in "ABC"]
        wait(writers)
        done.set()
    for future in readers + writers:
        future.result()  # Raises what the thread raised.
    assert wrong == []
    fill(cache, dict(table))
    assert 3 - ask(cache, "A", "B", "C").count(MISS) == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_fork_keeps_the_rows_and_waits_for_nobody() -> None:
    """In a child forked while the lock is held and reads are under way, the cache works."""
    cache = cache_of()
    fill(cache, {"A": "a"})
    cache.look(["B"], SK, SHAPE, 0.0, under_way())
    begun = begin_write(cache, [("C", SK)])
    with cache._lock:
        child = os.fork()
        if child == 0:
            signal.alarm(5)  # Rather than wait for ever.
            look = cache.look(["A", "B"], SK, SHAPE, 0.0, under_way())
            cache.written(begun, {}, 0.0)
            os._exit(0 if look.found[0] == "a" and look.missed == [1] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


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
        return [WriteOutcome.APPLIED] * len(changes)

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
            operation.send([WriteOutcome.APPLIED])
    shape = codec.groups["default"].shape
    (found,) = ask(cache, engine.arrived[-1].key.pk, shape=shape)
    cell = None if found is MISS else shape.cell(found, 0)
    assert cell is None or cell.value == 6

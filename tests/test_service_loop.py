"""The loop of the persistence service in virtual time, on a bus and a table in memory.

Time passes only in polls and waits. A cluster has consumers that are killed, lose partitions and
are refused commits; at each commit, every acknowledged message must be written or dead.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import pytest

from chalk_online_store import InvalidValue, QueueFull, RegistryUnavailable, features
from chalk_online_store.codec.columns import Stored
from chalk_online_store.effects import Instant
from chalk_online_store.errors import BusFailed, OnlineStoreError
from chalk_online_store.writer.service import (
    DeadMessage,
    DecodedRow,
    Listener,
    Message,
    Partition,
    PersistenceLoop,
    ServiceSettings,
)
from tests.helpers import stress

START = 1_700_000_000_000_000


@features
class User:
    id: int
    visits: int


class Clock:
    """Virtual time."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> Instant:
        return Instant(self.seconds, START + int(self.seconds * 1e6))

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


class Table:
    """Rows by key: the newest observed-at wins."""

    def __init__(self) -> None:
        self.rows: dict[int, tuple[int, int]] = {}
        self.written: set[tuple[int, int]] = set()

    def apply(self, key: int, at: int, visits: int) -> None:
        self.written.add((key, at))
        if at >= self.rows.get(key, (0, 0))[0]:
            self.rows[key] = (at, visits)


class FakeTicket:
    """Rows that reach the table at a time."""

    durable = False
    """With a spool, True before the rows are written."""

    def __init__(self, writer: FakeWriter, rows: list[tuple[int, int, Any]], at: float) -> None:
        self._writer = writer
        self.rows = rows
        self.at = at
        self._done = False
        self.errors: dict[int, OnlineStoreError] = {}

    @property
    def done(self) -> bool:
        if not self._done and self._writer.clock.seconds >= self.at:
            self.finish()
        return self._done

    def finish(self) -> None:
        self._done = True
        self._writer.pending -= len(self.rows)
        for position, (key, at, visits) in enumerate(self.rows):
            if isinstance(visits, int):
                self._writer.table.apply(key, at, visits)
            else:
                self.errors[position] = InvalidValue("user.visits: expected an int; got str.")


class FakeWriter:
    """A persistence writer whose rows are written `took` seconds later."""

    def __init__(
        self, clock: Clock, table: Table, *, took: float = 0.05, room: int = 10**9
    ) -> None:
        self.clock = clock
        self.table = table
        self.took = took
        self.room = room
        self.pending = 0
        self.tickets: list[FakeTicket] = []

    def submit(
        self,
        schema: Any,
        rows: Iterable[Mapping[str, Any]],
        observed_at: Stored,
        *,
        on_invalid: str,
    ) -> FakeTicket:
        assert (schema, on_invalid) == (User, "dead_letter")
        taken = [
            (row["id"], at or 0, row["visits"]) for row, at in zip(rows, observed_at, strict=True)
        ]
        if self.pending and self.pending + len(taken) > self.room:
            raise QueueFull("full")
        self.pending += len(taken)
        ticket = FakeTicket(self, taken, self.clock.seconds + self.took)
        self.tickets.append(ticket)
        return ticket


class Cluster:
    """Partitions, their committed offsets, and who has which."""

    def __init__(self, partitions: int = 4) -> None:
        self.logs: dict[Partition, list[Message]] = {
            Partition("users", n): [] for n in range(partitions)
        }
        self.committed = dict.fromkeys(self.logs, 0)
        self.members: list[FakeBus] = []
        self.on_commit: Callable[[Partition, int], None] = lambda partition, offset: None

    def publish(self, key: int, at: int, value: bytes) -> Message:
        partition = Partition("users", key % len(self.logs))
        log = self.logs[partition]
        log.append(Message(partition, len(log), value, str(key).encode(), (), at))
        return log[-1]

    def rebalance(self) -> None:
        """Share the partitions among the members, which are told at their next poll."""
        for member in self.members:
            member.wanted = set()
        for number, partition in enumerate(self.logs):
            if self.members:
                self.members[number % len(self.members)].wanted.add(partition)

    def lag(self) -> int:
        return sum(len(log) - self.committed[p] for p, log in self.logs.items())


class FakeBus:
    """A consumer of a cluster."""

    def __init__(self, cluster: Cluster, clock: Clock) -> None:
        self.cluster = cluster
        self.clock = clock
        self.wanted: set[Partition] = set()
        self.positions: dict[Partition, int] = {}
        self.paused = False
        self.refusing = 0
        self.polls = 0
        self.closed = False
        self.failure: BusFailed | None = None

    def start(self, listener: Listener) -> None:
        self.listener = listener
        self.cluster.members.append(self)
        self.cluster.rebalance()

    def poll(self, limit: int, timeout: float) -> Sequence[Message]:
        self.polls += 1
        self.clock.sleep(0.001)
        if self.failure is not None:
            raise self.failure
        self._rebalance()
        found: list[Message] = []
        if not self.paused:
            for partition, position in self.positions.items():
                some = self.cluster.logs[partition][position : position + limit - len(found)]
                found += some
                self.positions[partition] = position + len(some)
        if not found:
            self.clock.sleep(timeout)
        return found

    def _rebalance(self) -> None:
        gone = self.positions.keys() - self.wanted
        if gone:
            self.listener.revoked(gone)
            for partition in gone:
                del self.positions[partition]
        for partition in self.wanted - self.positions.keys():
            others = [m for m in self.cluster.members if m is not self]
            if not any(partition in other.positions for other in others):
                self.positions[partition] = self.cluster.committed[partition]

    def lose(self) -> None:
        """Another consumer may have the partitions already, as after a long silence."""
        lost = set(self.positions)
        self.positions.clear()
        self.listener.lost(lost)

    def commit(self, offsets: Mapping[Partition, int], *, wait: bool) -> None:
        if self.refusing:
            self.refusing -= 1
            self.listener.commit_refused(BusFailed("REBALANCE_IN_PROGRESS"))
            return
        for partition, offset in offsets.items():
            assert partition in self.positions, "committed a partition of another consumer"
            self.cluster.on_commit(partition, offset)
            self.cluster.committed[partition] = offset
        self.listener.committed(offsets)

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    def lag(self) -> Mapping[Partition, int]:
        return {p: len(self.cluster.logs[p]) - self.cluster.committed[p] for p in self.positions}

    def close(self) -> None:
        self.closed = True
        self.leave()

    def leave(self) -> None:
        self.positions.clear()
        self.cluster.members.remove(self)
        self.cluster.rebalance()


def decode(message: Message) -> Iterator[DecodedRow]:
    """`12` is a value, `+12` two rows, `bad` cannot be decoded, `text` has an invalid value."""
    text = (message.value or b"").decode()
    if text == "bad":
        raise InvalidValue("The message is not JSON.")
    if text == "bug":
        raise ZeroDivisionError("secret")
    at = message.timestamp or 0
    visits = text if text == "text" else int(text)
    key = int(message.key or b"")
    if text.startswith("+"):
        yield DecodedRow(User, {"id": key + 1000, "visits": visits}, at)
    yield DecodedRow(User, {"id": key, "visits": visits}, at)


class World:
    """A cluster, a table and one consumer, or more."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.cluster = Cluster()
        self.table = Table()
        self.dead: list[DeadMessage] = []
        self.failing = 0

    def deliver(self, letters: Sequence[DeadMessage]) -> None:
        if self.failing:
            self.failing -= 1
            raise OSError("disk full")
        self.dead += letters

    def loop(
        self, writer: FakeWriter | None = None, settings: ServiceSettings | None = None
    ) -> tuple[PersistenceLoop, FakeBus, FakeWriter]:
        bus = FakeBus(self.cluster, self.clock)
        writer = writer or FakeWriter(self.clock, self.table)
        loop = PersistenceLoop(
            bus, writer, decode, self.deliver, settings, now=self.clock.now, sleep=self.clock.sleep
        )
        bus.start(loop)
        return loop, bus, writer

    def publish(self, count: int, value: str = "7", first: int = 0) -> list[Message]:
        return [
            self.cluster.publish(key, START + key, value.encode())
            for key in range(first, first + count)
        ]


def run_for(world: World, loop: PersistenceLoop, seconds: float) -> None:
    end = world.clock.seconds + seconds
    while world.clock.seconds < end:
        loop.step()


@pytest.fixture
def world() -> World:
    return World()


def test_messages_are_committed_after_their_rows_are_written(world: World) -> None:
    """Rows under way for 10 s are not acknowledged before; then all are, and the lag is 0."""
    world.publish(100)
    loop, _, _ = world.loop(FakeWriter(world.clock, world.table, took=10.0))
    run_for(world, loop, 9.0)
    assert world.cluster.lag() == 100
    assert loop.stats().pending == 100
    run_for(world, loop, 3.0)
    assert world.cluster.lag() == 0
    assert len(world.table.rows) == 100
    assert loop.stats().lag == dict.fromkeys(world.cluster.logs, 0)


def test_with_a_spool_messages_are_committed_when_they_are_durable(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that are on disk are acknowledged, although the table takes another 1000 s."""
    monkeypatch.setattr(FakeTicket, "durable", True)
    world.publish(100)
    loop, _, _ = world.loop(
        FakeWriter(world.clock, world.table, took=1000.0), ServiceSettings(commit_at="durable")
    )
    run_for(world, loop, 3.0)
    assert (world.cluster.lag(), world.table.rows) == (0, {})


def test_a_later_batch_does_not_commit_an_earlier_one(world: World) -> None:
    """The second batch is written first: no offset moves until the first one is written."""
    loop, _, writer = world.loop(FakeWriter(world.clock, world.table, took=60.0))
    world.publish(10)
    run_for(world, loop, 0.1)
    writer.took = 0.01
    world.publish(10, first=10)
    run_for(world, loop, 5.0)
    assert world.cluster.lag() == 20
    run_for(world, loop, 60.0)
    assert world.cluster.lag() == 0


def test_bad_messages_are_dead_letters_with_their_bytes(world: World) -> None:
    """Undecodable messages, invalid values and bugs of a decoder are each a dead letter once."""
    good = world.publish(20)
    bad = [*world.publish(1, "bad"), *world.publish(1, "text"), *world.publish(1, "bug")]
    loop, _, _ = world.loop()
    run_for(world, loop, 5.0)
    assert sorted(letter.message.offset for letter in world.dead) == [m.offset for m in bad]
    assert {letter.message.value for letter in world.dead} == {b"bad", b"text", b"bug"}
    assert world.cluster.lag() == 0
    assert len(world.table.rows) == len(good)
    assert all("secret" not in str(letter.error) for letter in world.dead)


def test_a_message_with_a_good_and_a_bad_row_is_one_dead_letter(world: World) -> None:
    """Of two rows of a message, both dead, the message is delivered once."""
    world.cluster.publish(1, START, b"text")
    loop, _, writer = world.loop()
    loop._decode = lambda message: [
        DecodedRow(User, {"id": 1, "visits": "text"}, START),
        DecodedRow(User, {"id": 2, "visits": "text"}, START),
        DecodedRow(User, {"id": 3, "visits": 1}, START),
    ]
    run_for(world, loop, 3.0)
    assert len(world.dead) == 1
    assert world.table.rows == {3: (START, 1)}
    assert len(writer.tickets) == 1


def test_nothing_is_committed_before_dead_letters_are_stored(world: World) -> None:
    """While the destination fails, the dead message and all after it stay unacknowledged."""
    world.cluster.publish(0, START, b"bad")
    world.cluster.publish(4, START, b"1")
    world.cluster.publish(1, START, b"1")
    world.failing = 3
    loop, _, _ = world.loop()
    run_for(world, loop, 2.5)
    assert world.cluster.lag() == 3  # All of them were in one batch.
    assert loop.stats().undelivered >= 2
    run_for(world, loop, 3.0)
    assert (world.cluster.lag(), len(world.dead)) == (0, 1)


def test_back_pressure_pauses_and_keeps_polling(world: World) -> None:
    """A full writer pauses the bus, which is still polled; with room, all is written once."""
    world.publish(500)
    settings = ServiceSettings(poll_messages=50)
    loop, bus, writer = world.loop(
        FakeWriter(world.clock, world.table, took=20.0, room=120), settings
    )
    run_for(world, loop, 15.0)
    assert bus.paused
    assert writer.pending <= 120
    polls = bus.polls
    run_for(world, loop, 1.0)
    assert bus.polls > polls + 10
    writer.took = 0.01
    run_for(world, loop, 30.0)
    assert (bus.paused, world.cluster.lag(), len(world.table.rows)) == (False, 0, 500)
    assert sum(len(ticket.rows) for ticket in writer.tickets) == 500  # Decoded and submitted once.


def test_memory_is_bounded_while_dead_letters_cannot_be_stored(world: World) -> None:
    """At `max_messages` the bus is paused, although the writer has room."""
    world.publish(1000, "bad")
    world.failing = 10**6
    loop, bus, _ = world.loop(settings=ServiceSettings(poll_messages=10, max_messages=100))
    run_for(world, loop, 20.0)
    assert bus.paused
    assert loop.stats().pending <= 110
    world.failing = 0
    run_for(world, loop, 60.0)
    assert (world.cluster.lag(), len(world.dead)) == (0, 1000)


def test_refused_commits_are_repeated(world: World) -> None:
    """Five refused commits cost five intervals, and nothing else."""
    world.publish(40)
    loop, bus, _ = world.loop()
    bus.refusing = 5
    run_for(world, loop, 4.0)
    assert world.cluster.lag() == 40
    run_for(world, loop, 4.0)
    assert world.cluster.lag() == 0
    assert loop.stats().refused_commits == 5


def test_revoked_partitions_are_written_and_committed_first(world: World) -> None:
    """Pending rows of revoked partitions are waited for, so the next consumer repeats nothing."""
    world.publish(80)
    first, _, _ = world.loop(FakeWriter(world.clock, world.table, took=2.0))
    first.step()
    second, _, writer = world.loop()
    first.step()
    assert first.stats().revocations == 1
    assert world.cluster.lag() == 0
    run_for(world, second, 2.0)
    assert writer.tickets == []


def test_a_slow_table_does_not_hold_up_a_rebalance(world: World) -> None:
    """Rows that are not written within `revoke_timeout` are left to the next consumer."""
    world.publish(80)
    first, _, _ = world.loop(FakeWriter(world.clock, world.table, took=1000.0))
    first.step()
    second, _, writer = world.loop()
    before = world.clock.seconds
    first.step()
    assert 5.0 <= world.clock.seconds - before < 6.0
    run_for(world, second, 3.0)
    assert sum(len(ticket.rows) for ticket in writer.tickets) == 40
    assert world.cluster.lag() == 40  # Those that the first consumer still has.


def test_lost_partitions_are_not_committed(world: World) -> None:
    """After a loss nothing of those partitions is committed, although it is written."""
    world.publish(40)
    loop, bus, _ = world.loop()
    loop.step()
    bus.wanted = set()
    bus.lose()
    run_for(world, loop, 5.0)
    assert len(world.table.rows) == 40
    assert world.cluster.lag() == 40


def test_a_stop_drains(world: World) -> None:
    """`run` writes and commits what was submitted, and leaves the bus."""
    world.publish(40)
    bus = FakeBus(world.cluster, world.clock)
    writer = FakeWriter(world.clock, world.table, took=3.0)
    loop = PersistenceLoop(
        bus, writer, decode, world.deliver, now=world.clock.now, sleep=world.clock.sleep
    )
    submit = writer.submit

    def submit_and_stop(*args: Any, **kwargs: Any) -> FakeTicket:
        loop.stop()
        return submit(*args, **kwargs)

    writer.submit = submit_and_stop  # type: ignore[method-assign]
    loop.run()
    assert bus.closed
    assert world.cluster.lag() == 0
    assert len(world.table.rows) == 40


def test_a_stop_is_bounded(world: World) -> None:
    """With a table that does not respond, `run` returns after `drain_timeout`, uncommitted."""
    world.publish(40)
    loop, _, _ = world.loop(
        FakeWriter(world.clock, world.table, took=1e9), ServiceSettings(drain_timeout="7s")
    )
    loop.step()
    before = world.clock.seconds
    loop._drain()
    assert 7.0 <= world.clock.seconds - before < 8.0
    assert world.cluster.lag() == 40


def test_a_bus_that_fails_is_closed(world: World) -> None:
    """`BusFailed` ends `run`, after the bus was closed."""
    bus = FakeBus(world.cluster, world.clock)
    bus.failure = BusFailed("fenced")
    writer = FakeWriter(world.clock, world.table)
    loop = PersistenceLoop(bus, writer, decode, world.deliver, now=world.clock.now)
    with pytest.raises(BusFailed):
        loop.run()
    assert bus.closed


def test_messages_wait_while_the_registry_is_unreachable(world: World) -> None:
    """A decoder that needs the registry is called again a second later; no message is dead."""
    world.publish(10)
    loop, bus, _ = world.loop()
    calls = 0

    def unavailable(message: Message) -> Iterator[DecodedRow]:
        nonlocal calls
        calls += 1
        if calls < 4:
            raise RegistryUnavailable("warm()")
        return decode(message)

    loop._decode = unavailable
    run_for(world, loop, 2.5)
    assert bus.paused
    run_for(world, loop, 5.0)
    assert (world.cluster.lag(), world.dead, bus.paused) == (0, [], False)


def test_a_row_that_submit_refuses_does_not_take_others_along(world: World) -> None:
    """If `submit` raises for a batch, its rows are submitted one by one, and one is dead."""
    world.publish(10)
    loop, _, writer = world.loop()
    submit = writer.submit

    def picky(schema: Any, rows: Any, times: Any, *, on_invalid: str) -> FakeTicket:
        if any(row["id"] == 4 for row in rows):
            raise InvalidValue("row")
        return submit(schema, rows, times, on_invalid=on_invalid)

    writer.submit = picky  # type: ignore[method-assign, assignment]
    run_for(world, loop, 3.0)
    assert sorted(world.table.rows) == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    assert [letter.message.key for letter in world.dead] == [b"4"]
    assert world.cluster.lag() == 0


def test_the_oldest_message_and_the_rate_are_reported(world: World) -> None:
    """`oldest_seconds` grows while a message is pending; `rows_per_second` is a mean of 10 s."""
    world.publish(100)
    loop, _, _ = world.loop(FakeWriter(world.clock, world.table, took=30.0))
    run_for(world, loop, 20.0)
    assert 18.0 < loop.stats().oldest_seconds < 21.0
    run_for(world, loop, 15.0)
    stats = loop.stats()
    assert (stats.oldest_seconds, stats.rows_per_second, stats.pending) == (0.0, 10.0, 0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"poll_messages": 0},
        {"max_messages": True},
        {"commit_interval": "0s"},
        {"commit_at": "sent"},
        {"drain_timeout": "infinity"},
    ],
    ids=str,
)
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    """Each setting names itself in its error."""
    with pytest.raises(InvalidValue, match=next(iter(wrong))):
        ServiceSettings(**wrong)


# --- anything, at any moment ---------------------------------------------------------------


class Storm:
    """Consumers that are killed, revoked, refused and slowed down at random."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.world = World()
        self.world.cluster.on_commit = self.check
        self.bad: list[Message] = []
        self.running: list[tuple[PersistenceLoop, FakeBus, FakeWriter]] = []
        self.at = START

    def check(self, partition: Partition, offset: int) -> None:
        """Every message that a commit acknowledges is written, or stored as a dead message."""
        dead = {id(letter.message) for letter in self.world.dead}
        for message in self.world.cluster.logs[partition][:offset]:
            if id(message) not in dead:
                assert (int(message.key or b""), message.timestamp) in self.world.table.written

    def run(self) -> None:
        for _ in range(120):
            self.rng.choice(self.actions())()
            for loop, bus, _ in self.running:
                if bus in self.world.cluster.members:
                    for _ in range(self.rng.randrange(4)):
                        loop.step()
        self.recover()

    def actions(self) -> Sequence[Callable[[], None]]:
        return (self.start, self.kill, self.publish, self.publish, self.lose, self.refuse,
                self.fail_letters, self.slow_down)  # fmt: skip

    def start(self) -> None:
        if len(self.running) < 3:
            writer = FakeWriter(self.world.clock, self.world.table, room=self.rng.choice([5, 1000]))
            settings = ServiceSettings(
                poll_messages=self.rng.choice([1, 7, 100]), max_messages=50, revoke_timeout="1s"
            )
            self.running.append(self.world.loop(writer, settings))

    def kill(self) -> None:
        """Some rows under way were written, and some were not."""
        if self.running:
            _, bus, writer = self.running.pop(self.rng.randrange(len(self.running)))
            for ticket in writer.tickets:
                if not ticket._done and self.rng.random() < 0.5:
                    ticket.finish()
            bus.leave()

    def publish(self) -> None:
        for _ in range(self.rng.randrange(40)):
            self.at += 1
            value = self.rng.choice(["bad", "text", "+3"] + [str(self.at % 997)] * 20)
            message = self.world.cluster.publish(self.rng.randrange(30), self.at, value.encode())
            if value in ("bad", "text"):
                self.bad.append(message)

    def lose(self) -> None:
        if self.running:
            self.rng.choice(self.running)[1].lose()

    def refuse(self) -> None:
        if self.running:
            self.rng.choice(self.running)[1].refusing = self.rng.randrange(4)

    def fail_letters(self) -> None:
        self.world.failing = self.rng.randrange(3)

    def slow_down(self) -> None:
        if self.running:
            self.rng.choice(self.running)[2].took = self.rng.choice([0.0, 0.05, 1.5, 4.0])

    def recover(self) -> None:
        for _, bus, _ in self.running:
            if bus in self.world.cluster.members:
                bus.leave()
        self.world.failing = 0
        self.running = [self.world.loop(), self.world.loop()]
        for _ in range(2000):
            for loop, _, _ in self.running:
                loop.step()
            if not self.world.cluster.lag():
                break


@pytest.mark.parametrize("seed", range(stress(20)))
def test_no_storm_loses_a_message(seed: int) -> None:
    """After random kills, losses, refusals and outages: newest values, all dead letters, no lag."""
    storm = Storm(seed)
    storm.run()
    world = storm.world
    assert world.cluster.lag() == 0
    expected: dict[int, tuple[int, int]] = {}
    for log in world.cluster.logs.values():
        for message in log:
            if (message.value or b"") not in (b"bad", b"text"):
                key = int(message.key or b"")
                keys = [key, key + 1000] if message.value == b"+3" else [key]
                for each in keys:
                    newest = (message.timestamp or 0, int(message.value or b""))
                    expected[each] = max(expected.get(each, (0, 0)), newest)
    assert world.table.rows == expected
    assert {id(m) for m in storm.bad} == {id(letter.message) for letter in world.dead}

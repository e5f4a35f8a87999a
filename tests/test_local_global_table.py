"""A local Global Table replicates as a real one does, through cuts, losses and crashes."""

from __future__ import annotations

import asyncio
import http.client
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalk_online_store import OnlineStore, Status, features
from chalk_online_store.testing import (
    EngineNotStarted,
    Latency,
    LocalGlobalTable,
    NotReplicated,
    Throttling,
)
from chalk_online_store.testing.world import replication
from chalk_online_store.testing.world.applying import request
from chalk_online_store.testing.world.engine import STREAMS, TABLES
from chalk_online_store.testing.world.versions import NEVER, Item, Links, Sent, Version, image_of

EAST, WEST, THIRD = "us-east-1", "us-west-2", "eu-west-1"
FOREVER = 3600.0


@features
class User:
    """What the stores of these tests keep."""

    id: int
    visits: int


@pytest.fixture
def three() -> Iterator[LocalGlobalTable]:
    """A table in three regions, without lag."""
    with LocalGlobalTable((EAST, WEST, THIRD), lag=0) as table:
        yield table


# --- what clients do -------------------------------------------------------------------------


def call(url: str, operation: str, api: str = TABLES, /, **body: Any) -> Any:
    """A request to an endpoint, which must be granted."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)
    signature = "AWS4-HMAC-SHA256 Credential=a/20250101/b/dynamodb/aws4_request, "
    headers = {
        "X-Amz-Target": f"{api}.{operation}",
        "X-Amz-Date": "20250101T000000Z",
        "Content-Type": "application/x-amz-json-1.0",
        "Authorization": f"{signature}SignedHeaders=host, Signature=c",
    }
    try:
        connection.request("POST", "/", json.dumps(body), headers)
        answer = connection.getresponse()
        told = json.loads(answer.read())
    finally:
        connection.close()
    assert answer.status == 200, told
    return told


def key(number: int) -> dict[str, Any]:
    return {"pk": {"S": f"k{number}"}, "sk": {"S": "x"}}


def put(table: LocalGlobalTable, region: str, number: int, value: object) -> None:
    item = {**key(number), "v": {"S": str(value)}}
    call(table.region(region).endpoint_url, "PutItem", TableName=table.table, Item=item)


def remove(table: LocalGlobalTable, region: str, number: int) -> None:
    url = table.region(region).endpoint_url
    call(url, "DeleteItem", TableName=table.table, Key=key(number))


def get(table: LocalGlobalTable, region: str, number: int) -> str | None:
    """The value in a region, past its proxy."""
    url = table.region(region).engine.endpoint_url
    told = call(url, "GetItem", TableName=table.table, Key=key(number))
    value: str | None = told.get("Item", {}).get("v", {}).get("S")
    return value


def everything(table: LocalGlobalTable, region: str) -> list[Any]:
    url = table.region(region).engine.endpoint_url
    items: list[Any] = call(url, "Scan", TableName=table.table)["Items"]
    return sorted(items, key=lambda item: item["pk"]["S"])


# --- replication -----------------------------------------------------------------------------


def test_a_store_finds_in_one_region_what_another_one_wrote(
    local_global_table: LocalGlobalTable,
) -> None:
    """Writes, updates and deletes of a store reach the other region."""
    table = local_global_table
    stores = [
        OnlineStore.open(url, schema=[User], session=table.session()) for url in table.urls.values()
    ]
    east, west = stores
    east.write(User, [{"id": i, "visits": i} for i in range(50)])
    table.wait_until_replicated()
    assert [row["visits"] for row in west.read(User, range(50))] == list(range(50))
    west.write(User, [{"id": 1, "visits": 100}])
    west.delete(User, [2])
    table.wait_until_replicated()
    rows = east.read(User, [1, 2])
    assert rows[0]["visits"] == 100
    assert rows[1].status("visits") is Status.MISSING
    for store in stores:
        store.close()


def test_the_later_of_two_writes_wins(local_global_table: LocalGlobalTable) -> None:
    """100 items changed in both regions, one straight after the other, end as changed last."""
    table = local_global_table
    for number in range(100):
        put(table, EAST, number, "initial")
    table.wait_until_replicated()
    for number in range(100):
        first, second = (EAST, WEST) if number % 2 else (WEST, EAST)
        put(table, first, number, "first")
        if number % 5:
            put(table, second, number, "second")
        else:
            remove(table, second, number)
    table.wait_until_replicated()
    expected = ["second" if number % 5 else None for number in range(100)]
    for region in (EAST, WEST):
        assert [get(table, region, number) for number in range(100)] == expected


def test_writes_at_the_same_time_end_the_same(three: LocalGlobalTable) -> None:
    """Whatever the interleaving of writers in three regions, all hold the same items."""

    def write(region: str, seed: int) -> None:
        rng = random.Random(seed)
        for step in range(100):
            if rng.random() < 0.3:
                remove(three, region, rng.randrange(10))
            else:
                put(three, region, rng.randrange(10), f"{region} {step}")

    with ThreadPoolExecutor() as writers:
        list(writers.map(write, [EAST, WEST, THIRD], range(3)))
    three.wait_until_replicated()
    east, west, third = (everything(three, region) for region in (EAST, WEST, THIRD))
    assert east == west == third
    assert east


def test_an_item_of_every_type_arrives_as_it_was(local_global_table: LocalGlobalTable) -> None:
    """Numbers, sets, lists, maps and nulls are the same in the other region, also when changed."""
    item: dict[str, Any] = {
        **key(1),
        "n": {"N": "1.5"},
        "b": {"B": "AAE="},
        "t": {"BOOL": True},
        "z": {"NULL": True},
        "ss": {"SS": ["b", "a"]},
        "ns": {"NS": ["2", "1"]},
        "l": {"L": [{"S": ""}, {"N": "1"}]},
        "m": {"M": {"q": {"NULL": True}, "é": {"S": "ü"}}},
    }
    table = local_global_table
    url = table.region(EAST).endpoint_url
    call(url, "PutItem", TableName=table.table, Item=item)
    table.wait_until_replicated()
    assert everything(table, WEST) == [item]
    item |= {"n": {"N": "2"}, "new": {"S": "x"}}
    del item["z"]
    call(url, "PutItem", TableName=table.table, Item=item)
    table.wait_until_replicated()
    assert everything(table, WEST) == [item]


def test_nothing_is_replicated_back(three: LocalGlobalTable) -> None:
    """A write makes one record in each region's stream, and no more."""
    put(three, EAST, 1, "once")
    three.wait_until_replicated()
    put(three, WEST, 1, "twice")
    three.wait_until_replicated()
    assert [records(three, region) for region in (EAST, WEST, THIRD)] == [2, 2, 2]


def records(table: LocalGlobalTable, region: str) -> int:
    """How many there are in the stream of a region."""
    url = table.region(region).engine.endpoint_url
    (stream,) = call(url, "ListStreams", STREAMS, TableName=table.table)["Streams"]
    arn = stream["StreamArn"]
    described = call(url, "DescribeStream", STREAMS, StreamArn=arn)["StreamDescription"]
    place = {"StreamArn": arn, "ShardId": described["Shards"][0]["ShardId"]}
    start = call(url, "GetShardIterator", STREAMS, ShardIteratorType="TRIM_HORIZON", **place)
    return len(call(url, "GetRecords", STREAMS, **start)["Records"])


# --- lag -------------------------------------------------------------------------------------


def test_no_write_arrives_before_its_lag() -> None:
    """Between a write and its arrival lie as many seconds as the lag says, also one set later."""
    with LocalGlobalTable(lag=0.1) as table:
        assert arrival(table, EAST, WEST, 1) >= 0.1
        table.set_lag(0.2, source=EAST)
        assert arrival(table, EAST, WEST, 2) >= 0.2
        assert arrival(table, WEST, EAST, 3) >= 0.1


def arrival(table: LocalGlobalTable, source: str, target: str, number: int) -> float:
    began = time.monotonic()
    put(table, source, number, "new")
    while get(table, target, number) is None:
        assert time.monotonic() < began + 10
    return time.monotonic() - began


def test_the_lag_of_one_way_is_its_own(three: LocalGlobalTable) -> None:
    """A slow way to one region does not keep a write from another one."""
    three.set_lag(FOREVER, source=EAST, target=WEST)
    put(three, EAST, 1, "new")
    eventually_has(three, THIRD, 1, "new")
    assert get(three, WEST, 1) is None
    assert three.pending() == {EAST: 0, WEST: 1, THIRD: 0}
    with pytest.raises(NotReplicated, match="'us-west-2': 1"):
        three.wait_until_replicated(timeout=0.05)


def eventually_has(table: LocalGlobalTable, region: str, number: int, value: str) -> None:
    deadline = time.monotonic() + 120
    while get(table, region, number) != value:
        assert time.monotonic() < deadline
        time.sleep(0.005)


# --- partitions ------------------------------------------------------------------------------


def test_a_partition_keeps_writes_apart_and_heals(three: LocalGlobalTable) -> None:
    """What is cut off arrives elsewhere at once, and here after the partition."""
    three.partition(EAST, WEST)
    put(three, EAST, 1, "from the east")
    put(three, WEST, 2, "from the west")
    three.wait_until_replicated()  # as far as it can
    assert get(three, THIRD, 1) == "from the east"
    assert get(three, THIRD, 2) == "from the west"
    assert get(three, WEST, 1) is None
    assert get(three, EAST, 2) is None
    three.heal()
    three.wait_until_replicated()
    assert get(three, WEST, 1) == "from the east"
    assert get(three, EAST, 2) == "from the west"


def test_conflicts_of_a_partition_are_settled_by_when_they_were_made() -> None:
    """After healing, the later write of each item is everywhere, whichever side made it."""
    with LocalGlobalTable(lag=0) as table:
        table.partition(EAST, WEST)
        for number in range(20):
            first, second = (EAST, WEST) if number % 2 else (WEST, EAST)
            put(table, first, number, "first")
            put(table, second, number, "second")
        table.heal()
        table.wait_until_replicated()
        for region in (EAST, WEST):
            assert [get(table, region, number) for number in range(20)] == ["second"] * 20


def test_lag_and_partition_can_hide_writes_that_arrive_in_time(three: LocalGlobalTable) -> None:
    """A newer version that is cut off does not keep an older one from a third region."""
    three.partition(WEST, THIRD)
    put(three, EAST, 1, "older")
    three.wait_until_replicated()
    three.partition(EAST, WEST)
    put(three, WEST, 1, "newer")
    put(three, EAST, 1, "newest")
    three.wait_until_replicated()
    assert [get(three, region, 1) for region in (EAST, WEST, THIRD)] == [
        "newest",
        "newer",
        "newest",
    ]
    three.heal()
    three.wait_until_replicated()
    assert [get(three, region, 1) for region in (EAST, WEST, THIRD)] == ["newest"] * 3


# --- losses ----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["blackhole", "refused"])
def test_a_lost_region_comes_back_with_what_it_had(how: Any) -> None:
    """It serves nobody and hears nothing; restored, it gives its own writes and gets the others."""
    with LocalGlobalTable(lag=FOREVER) as table:
        put(table, EAST, 1, "not replicated yet")
        url = table.urls[EAST] + "&read_timeout=0.2&connect_timeout=0.2"
        with OnlineStore.open(url, schema=[User], session=table.session()) as store:
            store.write(User, [{"id": 1, "visits": 1}])
            table.set_lag(0)
            table.lose(EAST, how)
            table.lose(EAST, how)
            assert store.read(User, [1], timeout=0.3)[0].status("visits") is Status.FAILED
            put(table, WEST, 2, "meanwhile")
            table.wait_until_replicated()  # of nothing: there is one region left
            assert get(table, EAST, 2) is None
            assert get(table, WEST, 1) is None
            table.restore(EAST)
            table.restore(EAST)
            assert store.read(User, [1])[0]["visits"] == 1
        table.wait_until_replicated()
        assert get(table, EAST, 2) == "meanwhile"
        assert get(table, WEST, 1) == "not replicated yet"


def test_healing_does_not_restore_a_lost_region(three: LocalGlobalTable) -> None:
    """Partitions and losses end separately."""
    three.lose(EAST)
    three.partition(EAST, WEST)
    three.heal()
    put(three, WEST, 1, "new")
    three.wait_until_replicated()
    assert get(three, THIRD, 1) == "new"
    assert get(three, EAST, 1) is None


def test_a_region_has_faults_of_its_own(local_global_table: LocalGlobalTable) -> None:
    """Faults hit the clients of one region, and not replication."""
    table = local_global_table
    east, west = table.region(EAST), table.region(WEST)
    west.inject(Throttling())
    west.inject(Latency(0.01))
    put(table, EAST, 1, "new")
    table.wait_until_replicated()
    assert get(table, WEST, 1) == "new"
    with pytest.raises(AssertionError, match="ProvisionedThroughputExceeded"):
        put(table, WEST, 1, "refused")
    west.clear()
    with east.fault(Throttling()):
        put(table, WEST, 1, "newer")
    assert west.proxy.stats().faulted == {"Throttling": 1, "Latency": 1}


# --- crashes ---------------------------------------------------------------------------------


def test_replication_goes_on_after_an_engine_was_killed(tmp_path: Path) -> None:
    """An engine that is killed and started again gives what it had and gets what it missed."""
    with LocalGlobalTable(path=tmp_path, lag=0) as table:
        east = table.region(EAST).engine
        for number in range(30):
            put(table, EAST, number, "before")
        east.kill()
        for number in range(15, 45):
            put(table, WEST, number, "meanwhile")
        assert EAST not in table.pending()
        with pytest.raises(NotReplicated, match="'us-east-1': None"):
            table.wait_until_replicated(timeout=0.05)
        east.start()
        for number in range(40, 60):
            put(table, EAST, number, "after")
        table.wait_until_replicated()
        expected = ["before"] * 15 + ["meanwhile"] * 25 + ["after"] * 20
        for region in (EAST, WEST):
            assert [get(table, region, number) for number in range(60)] == expected


def test_an_engine_that_hangs_holds_up_nobody_else(
    local_global_table: LocalGlobalTable,
) -> None:
    """A stopped process is not waited for; when it goes on, it catches up."""
    table = local_global_table
    pid = table.region(EAST).engine.pid
    put(table, EAST, 2, "before")
    os.kill(pid, signal.SIGSTOP)
    try:
        for _ in range(3):
            put(table, WEST, 1, "meanwhile")
        assert table.pending().keys() == {WEST}
    finally:
        os.kill(pid, signal.SIGCONT)
    table.wait_until_replicated()
    assert get(table, EAST, 1) == "meanwhile"
    assert get(table, WEST, 2) == "before"


def test_a_table_comes_back_with_its_files(tmp_path: Path) -> None:
    """Stopped and started again on the same directory, it has its items and replicates new ones."""
    with LocalGlobalTable(path=tmp_path) as table:
        for start in range(0, 1250, 25):  # more than one page of the stream
            puts = [{"PutRequest": {"Item": key(start + number)}} for number in range(25)]
            url = table.region(EAST).endpoint_url
            call(url, "BatchWriteItem", RequestItems={table.table: puts})
        table.wait_until_replicated()
        table.stop()
        table.stop()
        with pytest.raises(KeyError):
            table.region(EAST)
        assert table.start() is table
        assert table.start() is table
        put(table, WEST, 2000, "new")
        remove(table, WEST, 1)
        table.wait_until_replicated()
        assert len(everything(table, EAST)) == 1250
        assert everything(table, EAST) == everything(table, WEST)
        assert get(table, EAST, 2000) == "new"


def test_stop_leaves_no_process() -> None:
    """After `stop`, engines and proxies are gone."""
    with LocalGlobalTable() as table:
        endpoints = [table.region(name).endpoint_url for name in table.urls]
        endpoints += [table.region(name).engine.endpoint_url for name in table.urls]
    for endpoint in endpoints:
        with pytest.raises(ConnectionRefusedError):
            call(endpoint, "ListTables")
    with pytest.raises(EngineNotStarted, match="not running"):
        _ = table.pid


# --- what it is called -----------------------------------------------------------------------


def test_urls_name_regions_and_their_proxies(local_global_table: LocalGlobalTable) -> None:
    """One URL names all regions in order of preference, others those that are asked for."""
    table = local_global_table
    east, west = (table.region(name).endpoint_url for name in (EAST, WEST))
    start = f"dynamodb:///{table.table}"
    assert table.url() == f"{start}?region={EAST},{WEST}&endpoint_url={east},{west}"
    assert table.url([WEST, EAST], read_timeout=0.2) == (
        f"{start}?region={WEST},{EAST}&endpoint_url={west},{east}&read_timeout=0.2"
    )
    assert table.urls == {EAST: table.url([EAST]), WEST: table.url([WEST])}
    with pytest.raises(KeyError):
        table.url(["mars-1"])


@pytest.mark.parametrize(
    ("regions", "name"),
    [((EAST, EAST), "long-enough-name"), ((), "long-enough-name"), ((EAST,), "short")],
)
def test_what_cannot_be_a_table_is_refused(regions: tuple[str, ...], name: str) -> None:
    """Regions that are not different, and names that are too short, are a `ValueError`."""
    with pytest.raises(ValueError, match=r"regions?|needs 11 letters|different ones"):
        LocalGlobalTable(regions, table=name)


# --- for pytest ------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_fixtures_are_there_for_users(tmp_path: Path) -> None:
    """A suite that names the module has both fixtures, fresh for each test."""
    plugins = 'pytest_plugins = ["chalk_online_store.testing.fixtures"]\n'
    (tmp_path / "conftest.py").write_text(plugins)
    (tmp_path / "test_users.py").write_text(
        "import pytest\n"
        "from chalk_online_store.testing import Refused\n"
        '@pytest.mark.parametrize("time", [1, 2])\n'
        "def test_both(time, fault_proxy, local_global_table):\n"
        "    assert fault_proxy.stats().faulted == {}\n"
        "    fault_proxy.inject(Refused())\n"
        '    assert local_global_table.pending() == {"us-east-1": 0, "us-west-2": 0}\n'
        '    local_global_table.lose("us-east-1")\n'
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "2 passed" in ran.stdout, ran.stdout + ran.stderr


def test_pytest_is_needed_by_the_fixtures_alone() -> None:
    """The kit works where pytest is not installed."""
    script = "import sys, chalk_online_store.testing\nassert 'pytest' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)


# --- who wins, without an engine -------------------------------------------------------------

WRITTEN = st.sampled_from([None, "x", "y", "new"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.sampled_from("abc"), WRITTEN),
        st.tuples(st.sampled_from(["look", "read"]), st.sampled_from("abc"), st.none()),
        st.tuples(st.sampled_from(["apply", "effect"]), st.sampled_from("abc"), st.none()),
        st.tuples(st.just("answer"), st.sampled_from("abc"), st.sampled_from(["lost", None])),
    ),
    max_size=60,
)


Record = tuple[str | None, bool]
"""What became of the item, and whether a client made it so."""


class Simulated:
    """Three regions of one item, their streams, and the replicator's knowledge of them."""

    def __init__(self) -> None:
        self.links = Links(list("abc"), 0)
        self.item = Item({}, list("abc"))
        self.stored: dict[str, str | None] = dict.fromkeys("abc")
        self.streams: dict[str, list[Record]] = {name: [] for name in "abc"}
        self.under_way: dict[str, tuple[str | None, Sent]] = {}
        self.granted: dict[str, bool] = {}
        self.told: dict[str, list[Sent]] = {name: [] for name in "abc"}
        self.looks: dict[str, tuple[list[Record], list[Sent]]] = {}
        self.newest = NEVER
        self.unique: set[str | None] = set()
        """What one client wrote once."""
        self._clock = itertools.count(1)

    def store(self, region: str, image: str | None, is_clients: bool) -> None:
        if image is not None or self.stored[region] is not None:
            self.stored[region] = image
            self.streams[region].append((image, is_clients))

    def write(self, region: str, image: str | None) -> None:
        """A client writes."""
        if image == "new":
            image = f"new {next(self._clock)}"
            self.unique.add(image)
        self.store(region, image, True)

    def look(self, region: str, _: object = None) -> None:
        """The replicator asks for what is new in a stream."""
        if region not in self.looks:
            self.looks[region] = self.streams[region], self.told[region]
            self.streams[region], self.told[region] = [], []

    def read(self, region: str, _: object = None) -> None:
        """It reads what it has asked for."""
        records, told = self.looks.pop(region, ([], []))
        for image, is_clients in records:
            version = self.item.note(region, image, next(self._clock))
            assert version is None or is_clients or image not in self.unique
            self.note(region, version)
        for sent in told:
            self.item.forget(region, sent)

    def note(self, region: str, version: Version | None) -> None:
        if version is not None:
            self.newest = max(self.newest, version)
            for target, _lag in self.links.targets(region):
                self.item.arrive(target, version)

    def apply(self, region: str, _: object = None) -> None:
        """The replicator sends what is due, one after the other."""
        old = self.item.holds[region].image
        if region not in self.under_way and (sent := self.item.send(region)):
            self.under_way[region] = old, sent

    def effect(self, region: str, _: object = None) -> None:
        """What was sent takes effect, if the item is as it was thought to be."""
        if region in self.under_way and region not in self.granted:
            old, sent = self.under_way[region]
            self.granted[region] = self.stored[region] == old
            if self.granted[region]:
                self.store(region, sent.version.image, False)

    def answer(self, region: str, how: object = None) -> None:
        """The replicator hears of it, or that the answer was lost."""
        self.effect(region)
        if region in self.under_way:
            _, sent = self.under_way.pop(region)
            if not self.granted.pop(region) and how != "lost":
                self.note(region, self.item.refuse(region, sent))
            self.told[region].append(sent)

    def finish(self) -> None:
        for _ in range(10):
            for step in (self.answer, self.read, self.look, self.apply):
                for region in "abc":
                    step(region)


@given(STEPS)
def test_all_regions_end_with_the_winner(steps: list[tuple[str, str, str | None]]) -> None:
    """Whatever the order of steps, the newest version is everywhere, and none but clients' is."""
    world = Simulated()
    for what, region, value in steps:
        getattr(world, what)(region, value)
    world.finish()
    assert set(world.stored.values()) == {world.newest.image}
    assert world.item.settle()
    assert not any(world.item.lacks(region, world.links) for region in "abc")


class Scripted:
    """An engine, or a stream, that answers what the test says, when it says so."""

    def __init__(self) -> None:
        self.asked: asyncio.Queue[asyncio.Future[Any]] = asyncio.Queue()

    async def call(self, *_: object) -> Any:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.asked.put_nowait(answer)
        return await answer

    read = call

    async def answer(self, told: Any) -> None:
        (await self.asked.get()).set_result(told)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> dict[int, tuple[Scripted, Scripted]]:
    """The engines of two ports and their streams, as the replicator finds them."""
    pairs = {port: (Scripted(), Scripted()) for port in (1, 2)}
    streams = dict(pairs.values())
    monkeypatch.setattr(replication, "Engine", lambda port: pairs[port][0])
    monkeypatch.setattr(replication, "Stream", lambda engine, _: streams[engine])
    return pairs


def record(image: str) -> dict[str, Any]:
    change = {"Keys": key(1), "NewImage": {**key(1), "v": {"S": image}}}
    return {"dynamodb": {**change, "ApproximateCreationDateTime": int(time.time())}}


def test_an_answer_says_nothing_of_what_is_applied_after_it(
    scripted: dict[int, tuple[Scripted, Scripted]],
) -> None:
    """An application that is answered after its record was read does not hide the next one's."""
    (_, east), (engine, west) = scripted.values()

    async def play() -> Item:
        replicator = replication.Replicator("features", {EAST: 1, WEST: 2}, 0)
        replicator.start()
        await west.answer([])
        await east.answer([record("first")])
        first, look = await engine.asked.get(), await west.asked.get()
        await east.answer([record("second")])
        look.set_result([record("first")])
        first.set_result({})
        second, look = await engine.asked.get(), await west.asked.get()
        look.set_result([])  # a look from before the second application
        await west.answer([record("second")])
        await west.asked.get()
        second.set_result({})
        return replicator.item(key(1))

    item = asyncio.run(asyncio.wait_for(play(), 10))
    assert item.holds[WEST].region == EAST
    assert item.holds[WEST] == item.holds[EAST]


def test_nothing_is_applied_to_a_region_before_it_is_known(
    scripted: dict[int, tuple[Scripted, Scripted]],
) -> None:
    """What a region has from an earlier start, and lost since, is not brought back to it."""
    (_, east), (engine, west) = scripted.values()

    async def play() -> Item:
        replicator = replication.Replicator("features", {EAST: 1, WEST: 2}, 0)
        replicator.start()
        await east.answer([record("old")])
        await east.asked.get()
        assert engine.asked.empty()
        await west.answer([record("old"), record("new")])
        await west.asked.get()
        assert engine.asked.empty()
        return replicator.item(key(1))

    item = asyncio.run(asyncio.wait_for(play(), 10))
    assert json.loads(item.holds[WEST].image or "")["v"] == {"S": "new"}


def test_a_write_waits_for_what_a_hanging_engine_holds(
    scripted: dict[int, tuple[Scripted, Scripted]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is sent on after the records from before: else they would be taken for its time's."""
    monkeypatch.setattr(replication, "PATIENCE", 0.01)
    _, (_, west) = scripted.values()

    async def play() -> None:
        replicator = replication.Replicator("features", {EAST: 1, WEST: 2}, 0)
        replicator.start()
        look = await west.asked.get()
        assert (await replicator.pending())[WEST] is None
        write = asyncio.create_task(replicator.watcher(WEST).before("PutItem"))
        done, _ = await asyncio.wait([write], timeout=0.1)
        assert not done
        look.set_result([])
        await write

    asyncio.run(asyncio.wait_for(play(), 10))


def test_a_client_may_write_what_is_just_being_applied() -> None:
    """Its write is a version of its own, as the refusal of the application shows."""
    item = Item({}, ["a", "b"])
    same, newer = item.note("a", "same", 1), item.note("a", "newer", 2)
    assert same
    assert newer
    item.arrive("b", same)
    sent = item.send("b")
    assert sent
    assert item.note("b", "same", 3) is None  # It looks like what was sent.
    item.arrive("b", newer)
    clients = item.refuse("b", sent)
    assert clients == Version(3, "b", "same")
    assert item.due("b") is None
    item.arrive("a", clients)
    assert item.due("a") == clients


def test_a_condition_names_what_was_and_what_comes() -> None:
    """The item must have all it had, and must not have got what is to be added."""
    old, new = image_of({**key(1), "v": {"S": "a"}}), image_of({**key(1), "w": {"S": "b"}})
    operation, body = request("features", key(1), old, new)
    assert operation == "PutItem"
    names = body["ExpressionAttributeNames"]
    assert body["ConditionExpression"] == (
        "#0 = :0 AND #1 = :1 AND #2 = :2 AND attribute_not_exists(#3)"
    )
    assert list(names.values()) == ["pk", "sk", "v", "w"]
    assert body["ExpressionAttributeValues"][":2"] == {"S": "a"}
    operation, body = request("features", key(1), None, new)
    assert body["ConditionExpression"] == "attribute_not_exists(#0)"
    operation, body = request("features", key(1), old, None)
    assert operation == "DeleteItem"
    assert body["Key"] == key(1)

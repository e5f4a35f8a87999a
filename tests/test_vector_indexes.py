"""Vector indexes: what is stored, what DynamoDB is asked, and how indexes come to be."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from moto import mock_aws

from chalk_online_store import (
    Feature,
    InvalidSchema,
    InvalidValue,
    Namespace,
    OnlineStore,
    Vector,
    VectorIndex,
    VectorIndexUnavailable,
    explain,
)
from chalk_online_store.backend import Call, RequestInfo
from chalk_online_store.cli.doctor.vector_indexes import check_vector_indexes, wanted_indexes
from chalk_online_store.codec.decoding import Reading
from chalk_online_store.codec.keys import keys_decoder, keys_encoder
from chalk_online_store.codec.layout import TableLayout
from chalk_online_store.codec.registry import Registry
from chalk_online_store.codec.sizes import value_size
from chalk_online_store.codec.values import scalar_codec
from chalk_online_store.codec.vector_indexes import index_specs
from chalk_online_store.dynamodb.matching import Matcher
from chalk_online_store.dynamodb.responses import Mismatch
from chalk_online_store.dynamodb.sessions import search_host
from chalk_online_store.dynamodb.wire import SEARCH
from chalk_online_store.effects import NOW, Instant
from chalk_online_store.errors import (
    ConnectionFailed,
    InvalidCredentials,
    RequestError,
    RequestRefused,
)
from chalk_online_store.provisioning.control_plane import ControlPlane
from chalk_online_store.provisioning.observing import observe
from chalk_online_store.provisioning.planning import plan
from chalk_online_store.provisioning.policies import reader
from chalk_online_store.provisioning.schema_indexes import create_vector_indexes, vector_indexes_of
from chalk_online_store.provisioning.spec import (
    OnDemand,
    Provisioned,
    TableSpec,
    Units,
    render_spec,
)
from chalk_online_store.provisioning.state import (
    Key,
    RegionTableState,
    TableState,
    VectorIndexState,
)
from chalk_online_store.provisioning.terraform import render
from chalk_online_store.routing.router import Router
from chalk_online_store.routing.searches import RETRY_AFTER_SECONDS, SearchRoute
from chalk_online_store.schema.types import VectorType
from chalk_online_store.testing import Dynoxide, Ministack, create_table
from tests.helpers import stress

vector: Any = Vector
REGION = "us-east-1"

USER = Namespace(
    "user",
    int,
    [
        Feature("country", str),
        Feature("tenant", int),
        Feature("plan", str),
        Feature("visits", int, max_staleness="1d"),
        Feature(
            "embedding",
            vector[3, "f4"],
            index=VectorIndex(filters=["country"], partition="tenant", project=["plan"]),
        ),
    ],
)


# --- the stored form -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "values", "stored"),
    [
        ("f2", [0.1, -0.0, 65504], ["0.1", "0.0", "65500"]),
        ("f4", [0.1, 16777216, 1e-45], ["0.1", "16777216.0", "1.4013e-45"]),
        ("f8", [0.1, 1e30, -2.5], ["0.1", "1e30", "-2.5"]),
    ],
)
def test_stored_bytes_stay(dtype: str, values: list[float], stored: list[str]) -> None:
    """A vector is stored as ever: with the fewest digits, as lists that every version reads."""
    codec = scalar_codec(VectorType(3, dtype, listed=True))
    attribute = msgspec.json.decode(codec.encode(values))
    assert attribute == {"L": [{"N": text} for text in stored]}


@settings(max_examples=stress(60))
@given(st.sampled_from(["f2", "f4", "f8"]), st.data())
def test_every_vector_is_read_as_it_was_written(dtype: str, data: st.DataObject) -> None:
    """Lists of numbers keep every bit, but the sign of zeros, of all that an index can hold."""
    width = {"f2": 16, "f4": 32, "f8": 64}[dtype]
    largest = min(float(np.finfo(dtype).max), float(np.finfo("f4").max))
    floats = st.floats(-largest, largest, width=width)  # type: ignore[arg-type] # one of these
    given_values = np.array(data.draw(st.lists(floats, min_size=1, max_size=300)), dtype)
    codec = scalar_codec(VectorType(len(given_values), dtype, listed=True))
    expected = (given_values + 0.0).tobytes()
    assert Reading("a", codec).read(codec.encode(given_values)) == expected


def test_what_an_index_cannot_hold_is_refused() -> None:
    """NaN, infinities and what no float32 holds are refused before anything is sent."""
    codec = scalar_codec(VectorType(1, "f8", listed=True))
    for bad in (float("nan"), float("-inf"), 3.5e38):
        with pytest.raises(Exception, match="cannot be indexed"):
            codec.encode([bad])


@pytest.mark.parametrize(("dtype", "size"), [("f2", 1768), ("f4", 2478), ("f8", 4211)])
def test_the_bytes_of_a_vector(dtype: str, size: int) -> None:
    """The documentation's sizes of 384 dimensions are those that DynamoDB counts."""
    values = np.random.default_rng(7).normal(size=384)
    unit = (values / np.linalg.norm(values)).astype(dtype)
    attribute = scalar_codec(VectorType(384, dtype, listed=True)).encode(unit)
    assert value_size(msgspec.json.decode(attribute)) == pytest.approx(size, rel=0.02)


@settings(max_examples=stress(60))
@given(st.data())
def test_keys_are_decoded(data: st.DataObject) -> None:
    """The primary key of a partition key is the one that it was made of."""
    parts = {int: st.integers(), str: st.text(st.characters(codec="utf-8")), uuid.UUID: st.uuids()}
    kinds = data.draw(st.lists(st.sampled_from(list(parts)), min_size=1, max_size=3))
    annotation = kinds[0] if len(kinds) == 1 else tuple[tuple(kinds)]  # type: ignore[misc]
    values = tuple(data.draw(parts[kind]) for kind in kinds)
    key = Namespace("n", annotation, []).key
    value = values[0] if len(kinds) == 1 else values
    pks = keys_encoder("n", key)("a:", [value])
    assert keys_decoder(key)("a:", pks) == [value]


# --- declarations --------------------------------------------------------------------------


def test_names_of_indexes_stay() -> None:
    """Attributes and index names are made of names: changing them would orphan every index."""
    (spec,) = index_specs([USER])
    assert msgspec.to_builtins(spec) == {
        "name": "x_qFksVdEh4F.58225648",
        "attribute": "x_qFksVdEh4F",
        "dimensions": 3,
        "distance": "cosine",
        "feature": "user.embedding",
        "partition": {"name": "x_Xu42kqHIeJ", "type": "N"},
        "filters": ({"name": "x_sRulru1O84", "type": "S"},),
        "projected": ("@", "~", "@x_2LDy8Rk1oY", "@x_qFksVdEh4F", "x_2LDy8Rk1oY"),
    }


@pytest.mark.parametrize(
    ("features", "says"),
    [
        ([Feature("a", vector[3], index=VectorIndex(filters=["b"]))], "not a feature"),
        (
            [Feature("a", vector[3], index=VectorIndex(filters=["b"])), Feature("b", bool)],
            "cannot be compared",
        ),
        (
            [
                Feature("a", vector[3], index=VectorIndex(filters=["b"])),
                Feature("b", str, group="other"),
            ],
            "in group 'other'",
        ),
        (
            [Feature("a", vector[3], index=VectorIndex(filters=["b"])), Feature("b", str | None)],
            "null",
        ),
        ([Feature("a", vector[3], index=VectorIndex(project=["a"]))], "the vector itself"),
        (
            [
                Feature("a", vector[3], index=VectorIndex(project=[f"f{i}" for i in range(9)])),
                *(Feature(f"f{i}", int) for i in range(9)),
            ],
            "takes 21 attributes",
        ),
    ],
)
def test_indexes_that_cannot_be_declared(features: list[Feature], says: str) -> None:
    """What DynamoDB would refuse is refused when it is declared, with the remedy."""
    with pytest.raises(InvalidSchema, match=says):
        Namespace("n", int, features)


def test_features_that_cannot_be_indexed() -> None:
    """An index is for vectors of at most 4096 dimensions, without nulls, and well formed."""
    for annotation in (int, vector[4097], vector[3] | None):
        with pytest.raises(InvalidSchema):
            Feature("a", annotation, index=VectorIndex())
    Feature("a", vector[3] | None, index=VectorIndex(), cache_nulls="evict_nulls")
    wrong: list[dict[str, Any]] = [
        {"distance": "manhattan"},
        {"filters": "country"},
        {"filters": ["a", "a"]},
        {"filters": [1]},
        {"partition": 7},
        {"partition": "a", "filters": ["a"]},
        {"filters": [f"f{i}" for i in range(19)]},
    ]
    for options in wrong:
        with pytest.raises((InvalidSchema, InvalidValue)):
            VectorIndex(**options)


# --- the endpoint for searches -------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "search"),
    [
        ("dynamodb.us-east-1.amazonaws.com", "search-dynamodb.us-east-1.amazonaws.com"),
        ("dynamodb-fips.us-east-1.amazonaws.com", "search-dynamodb-fips.us-east-1.amazonaws.com"),
        ("dynamodb.eu-west-1.api.aws", "search-dynamodb.eu-west-1.api.aws"),
        ("dynamodb.cn-north-1.amazonaws.com.cn", "search-dynamodb.cn-north-1.amazonaws.com.cn"),
        (
            "123456789012.ddb.us-east-1.amazonaws.com",
            "123456789012.search-ddb.us-east-1.amazonaws.com",
        ),
        ("127.0.0.1", "127.0.0.1"),
        ("dynamodb.example.com", "dynamodb.example.com"),
        ("vpce-1-2.dynamodb.us-east-1.vpce.amazonaws.com",) * 2,
    ],
)
def test_the_host_of_searches(host: str, search: str) -> None:
    """AWS's hosts have a second one for searches; any other host answers them itself."""
    assert search_host(host) == search


def test_a_failing_search_endpoint_is_tried_last() -> None:
    """A search goes to the next region within its call, and the router hears nothing of it."""
    router = Router(["a", "b"], "a")
    route = SearchRoute(router)
    asked: list[str] = []

    def attempt(region: str, until: float) -> Any:
        asked.append(region)
        yield NOW
        if region == "a":
            raise ConnectionFailed("a does not answer")
        return until

    def search(at: float) -> Call:
        call = Call(at + 10)
        operation = route.attempt(
            attempt, RequestInfo("SearchVectors", 1, False), Instant(at, 0), call
        )
        try:
            next(operation)
            while True:
                operation.send(Instant(at, 0))
        except StopIteration:
            return call

    first = search(100.0)
    assert (asked, first.report.failovers, first.report.regions) == (["a", "b"], 1, {"b": 1})
    assert search(101.0).report.failovers == 0
    assert asked == ["a", "b", "b"]
    search(100.0 + 2 * RETRY_AFTER_SECONDS)
    assert asked[3:] == ["a", "b"]
    assert router.health["a"].well


# --- engines -------------------------------------------------------------------------------


def url_of(engine: Dynoxide | Ministack, schema: list[Any]) -> str:
    table = f"vectors-{uuid.uuid4().hex}"
    create_table(engine.endpoint_url, table, schema=schema)
    return f"dynamodb:///{table}?region={REGION}&endpoint_url={engine.endpoint_url}"


ROW = {"country": "ch", "tenant": 7, "plan": "free", "visits": 3}


@pytest.fixture
def store(dynoxide: Dynoxide) -> Iterator[OnlineStore]:
    """A store with three users."""
    with OnlineStore.open(url_of(dynoxide, [USER]), [USER], timeout=60) as store:
        vectors = [[1, 0, 0], [1, 1, 0], [0, 1, 0]]
        store.write(USER, [{**ROW, "id": i, "embedding": v} for i, v in enumerate(vectors)])
        yield store


WHERE = {"tenant": 7}
HIT = b'{"Item":{"pk":{"S":"a:1"},"sk":{"S":"a"}},"Score":0.5}'


def test_projected_features_need_no_read(store: OnlineStore) -> None:
    """A search for features that the index copies reads nothing else, and knows their times."""
    now = datetime.now(UTC)
    store.write(USER, [{"id": 1, "plan": "paid"}], observed_at=now + timedelta(seconds=1))
    found = store.search(USER, "embedding", [1, 0, 0], where=WHERE, features=["plan"])
    assert found["plan"] == ["free", "paid", "free"]
    assert found[1].observed_at("plan") == now + timedelta(seconds=1)
    assert (found.report.requests, found.report.rcu) == (1, 0.0)
    assert not found.exact
    whole = store.search(USER, "embedding", [1, 0, 0], where=WHERE, features=["visits"])
    assert (whole.report.requests, whole.report.rcu) == (2, 1.5)


def test_projected_filters_are_served_from_the_index(dynoxide: Dynoxide) -> None:
    """A filter that is projected too is copied once, with its time, which is checked."""
    index = VectorIndex(filters=["country"], project=["country", "plan"])
    features = [
        Feature("country", str, max_staleness="1h"),
        Feature("plan", str),
        Feature("at", vector[2], index=index),
    ]
    users = Namespace("user", int, features)
    (spec,) = vector_indexes_of([users])
    assert len(spec.projected) == 6
    now = datetime.now(UTC)
    with OnlineStore.open(url_of(dynoxide, [users]), [users], timeout=60) as store:
        rows = [{"id": i, "country": "ch", "plan": "free", "at": [1, i]} for i in range(3)]
        store.write(users, rows, observed_at=now - timedelta(days=1))
        store.write(users, [{"id": 1, "country": "ch"}], observed_at=now)
        found = store.search(users, "at", [1, 0], features=["plan", "country"])
        assert found["country"] == [None, "ch", None]
        assert found.report.rcu == 0
        fresh = store.search(users, "at", [1, 0], where={"country": "ch"}, features=["plan"])
        assert [row.key for row in fresh] == [1]
        assert (fresh.report.rcu, fresh.report.search_dropped) == (0, 2)


def test_the_account_of_a_search(store: OnlineStore) -> None:
    """Reports have the bytes that DynamoDB bills: of a search, and of writes to an index."""
    report = store.write(USER, [{**ROW, "id": 9, "embedding": [0, 0, 1]}])
    assert report.index_write_bytes == 1024
    assert report.wcu == 1
    found = store.search(USER, "embedding", [[1, 0, 0], [0, 1, 0]], where=WHERE)
    assert found.report.search_bytes == 2048


def test_left_out_entities_are_replaced(dynoxide: Dynoxide) -> None:
    """Stale entities that an index finds are counted, and others are found in their place."""
    points = Namespace(
        "p", int, [Feature("at", vector[2], index=VectorIndex(), max_staleness="1d")]
    )
    with OnlineStore.open(url_of(dynoxide, [points]), [points], timeout=60) as store:
        now = datetime.now(UTC)
        for old, keys in ((True, range(5)), (False, range(5, 8))):
            rows = [{"id": key, "at": [1, key / 100]} for key in keys]
            store.write(points, rows, observed_at=now - timedelta(days=2 * old))
        found = store.search(points, "at", [1, 0], k=2)
        assert [row.key for row in found] == [5, 6]
        assert found.report.search_dropped == 5


def test_a_search_without_its_index(dynoxide: Dynoxide) -> None:
    """A table without the index says so, with what to do, and can be written and read."""
    with OnlineStore.open(url_of(dynoxide, []), [USER], timeout=60) as store:
        store.write(USER, [{**ROW, "id": 1, "embedding": [1, 0, 0]}])
        assert store.read(USER, [1])["plan"] == ["free"]
        with pytest.raises(VectorIndexUnavailable, match="provision"):
            store.search(USER, "embedding", [1, 0, 0], where=WHERE)


def test_a_partition_has_to_be_named(store: OnlineStore) -> None:
    """Every search of an index with a partition names its value; others' entities are not found."""
    with pytest.raises(InvalidValue, match="tenant"):
        store.search(USER, "embedding", [1, 0, 0])
    assert len(store.search(USER, "embedding", [1, 0, 0], where={"tenant": 8})) == 0
    assert len(store.search(USER, "embedding", [1, 0, 0], where={**WHERE, "country": "ch"})) == 3


def test_a_feature_that_was_registered_before_is_no_filter(dynoxide: Dynoxide) -> None:
    """A filter cannot be under a short id, which other namespaces have for other types."""
    before = Namespace("user", int, [Feature("country", str)])
    url = url_of(dynoxide, [])
    with OnlineStore.open(url, [before], timeout=60) as store:
        store.write(before, [{"id": 1, "country": "ch"}])
    index = VectorIndex(filters=["country"])
    after = Namespace("user", int, [Feature("country", str), Feature("at", vector[2], index=index)])
    with OnlineStore.open(url, [after], timeout=60) as store:
        store.write(after, [{"id": 1, "at": [1, 0]}])
        assert store.read(after, [1])["country"] == ["ch"]
        with pytest.raises(InvalidSchema, match="under a new name"):
            store.search(after, "at", [1, 0])
    with pytest.raises(InvalidSchema, match="under a new name"):
        create_vector_indexes(url, [after])


@pytest.mark.slow
def test_indexes_are_added_to_a_table(ministack: Ministack) -> None:
    """An index is built beside the others and waited for; a second call has nothing to do."""
    url = url_of(ministack, [])
    points = Namespace("p", int, [Feature("at", vector[2], index=VectorIndex())])
    with OnlineStore.open(url, [points], timeout=60) as store:
        store.write(points, [{"id": key, "at": [1, key]} for key in range(3)])
        assert create_vector_indexes(url, [points]) == [
            index.name for index in vector_indexes_of([points])
        ]
        assert create_vector_indexes(url, [points]) == []
        assert [row.key for row in store.search(points, "at", [1, 2], k=2)] == [2, 1]


def test_a_provisioned_table_takes_no_index(dynoxide: Dynoxide) -> None:
    """AWS has no vector indexes on provisioned tables: creating one is refused with its reason."""
    table = f"vectors-{uuid.uuid4().hex}"
    client = boto3.client("dynamodb", region_name=REGION, endpoint_url=dynoxide.endpoint_url)
    client.create_table(
        TableName=table,
        ProvisionedThroughput={"ReadCapacityUnits": 5, "WriteCapacityUnits": 5},
        AttributeDefinitions=[{"AttributeName": n, "AttributeType": "S"} for n in ("pk", "sk")],
        KeySchema=[
            {"AttributeName": "pk", "KeyType": "HASH"},
            {"AttributeName": "sk", "KeyType": "RANGE"},
        ],
    )
    client.close()
    with pytest.raises(RequestRefused, match="PAY_PER_REQUEST"):
        create_vector_indexes(dynoxide.url(table), [USER])


class Unreachable:
    """A transport to an endpoint that does not answer."""

    def send(self, request: Any, timeout: float) -> Any:
        raise ConnectionFailed("no answer")

    def warm(self, connections: int, timeout: float) -> int:
        return 0

    def close(self) -> None:
        pass


def test_a_search_fails_over_and_reads_stay(dynoxide: Dynoxide) -> None:
    """Where a region's endpoint for searches is down, another one answers; reads do not move."""
    url = url_of(dynoxide, [USER]).replace(REGION, f"{REGION},us-west-2")
    url = url.replace(dynoxide.endpoint_url, f"{dynoxide.endpoint_url},{dynoxide.endpoint_url}")
    with OnlineStore.open(url, [USER], timeout=60) as store:
        store.write(USER, [{**ROW, "id": 1, "embedding": [1, 0, 0]}])
        store.driver.transports[REGION + SEARCH] = Unreachable()  # type: ignore[index] # a dict
        found = store.search(USER, "embedding", [1, 0, 0], where=WHERE, features=["plan"])
        assert found["plan"] == ["free"]
        assert (found.report.region, found.report.failovers) == ("us-west-2", 1)
        read = store.read(USER, [1], ["plan"])
        assert (read.report.region, read.report.failovers) == (REGION, 0)
        assert [check.search_error for check in store.health().regions][1] == ""


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b'{"SearchResults":[{"Item":{"pk":{"S":"b:1"},"sk":{"S":"a"}},"Score":0}]}', "requested"),
        (b'{"SearchResults":[{"Item":{"pk":{"S":"a:1"},"sk":{"S":"b"}},"Score":0}]}', "requested"),
        (b'{"SearchResults":[%b,%b]}' % (HIT, HIT), "one search"),
        (b'{"SearchResults":[{"Item":{"pk":{"S":"a:1"}},"Score":0}]}', "no readable key"),
        (b'{"SearchResults":[],"Items":[]}', "another operation"),
    ],
)
def test_responses_of_other_requests_are_refused(body: bytes, why: str) -> None:
    """A response with keys that no search of this namespace and group has is not accepted."""
    expected = Matcher("table", TableLayout()).search("a:", "a", 3)
    assert len(expected.decode(b'{"SearchResults":[%b]}' % HIT).SearchResults) == 1
    with pytest.raises(Mismatch, match=why):
        expected.decode(body)


# --- plans ---------------------------------------------------------------------------------


def spec_of(*schema: Namespace, **options: Any) -> TableSpec:
    return TableSpec("table", (REGION,), vector_indexes=vector_indexes_of(schema), **options)


def state_of(*indexes: str) -> TableState:
    found = {name: VectorIndexState("ACTIVE", False, "x", 0, 0) for name in indexes}
    keys = (Key("pk", "HASH", "S"), Key("sk", "RANGE", "S"))
    state = RegionTableState(
        status="ACTIVE",
        keys=keys,
        billing_mode="PAY_PER_REQUEST",
        vector_indexes=found,
        attributes={"pk": "S", "sk": "S", "x_other": "N"},
    )
    return TableState("table", {REGION: state})


def test_a_new_table_has_its_indexes() -> None:
    """CreateTable has the indexes of the spec, and the types of what they compare."""
    calls = [c.call for c in plan(spec_of(USER), TableState("table", {})).changes if c.call]
    arguments = calls[0].arguments
    assert [d["AttributeName"] for d in arguments["AttributeDefinitions"]][:2] == ["pk", "sk"]
    (index,) = arguments["VectorIndexes"]
    assert index["DistanceFunction"] == "COSINE"
    assert [each["SearchSchemaElementType"] for each in index["SearchSchema"]] == [
        "HASH",
        "INLINE_FILTER",
    ]
    assert index["Projection"]["ProjectionType"] == "INCLUDE"


def test_another_definition_is_another_index() -> None:
    """Whatever is changed of an index gives it another name; what it is not made of does not."""

    def name(size: int = 3, **options: Any) -> str:
        index = VectorIndex(**options)
        features = [Feature("at", vector[size], index=index), Feature("a", str), Feature("b", str)]
        return vector_indexes_of([Namespace("p", int, features)])[0].name

    changed: list[dict[str, Any]] = [
        {"distance": "euclidean"},
        {"filters": ["a"]},
        {"filters": ["a", "b"]},
        {"partition": "a"},
        {"project": ["a"]},
        {"size": 4},
    ]
    assert len({name(), *(name(**options) for options in changed)}) == 7
    assert name(filters=["a", "b"]) == name(filters=["b", "a"])


def test_a_changed_index_is_built_beside_the_old_one() -> None:
    """The new index is created, and the old one deleted only where that is named."""
    made = plan(spec_of(USER), state_of("old"))
    (creation,) = (c for c in made.changes if c.what == "vector index")
    (deletion,) = (c for c in made.held if c.what == "vector index")
    assert creation.call
    assert "x_other" in str(creation.call.arguments["AttributeDefinitions"])
    assert deletion.needs == (f"vector-index:{REGION}",)
    allowed = plan(spec_of(USER), state_of("old"), frozenset(deletion.needs))
    assert [c.sign for c in allowed.changes if c.what == "vector index"] == ["+", "-"]


def test_a_sixth_index_is_impossible() -> None:
    """A table that has five indexes takes no other one: the plan says what to delete."""
    made = plan(spec_of(USER), state_of("a", "b", "c", "d", "e"))
    (change,) = (c for c in made.impossible if c.what == "vector index")
    assert "5 vector indexes" in change.why


def test_indexes_need_a_table_on_demand() -> None:
    """A provisioned table with vector indexes is refused, as AWS refuses it."""
    with pytest.raises(InvalidValue, match="on demand"):
        spec_of(USER, capacity=Provisioned(Units(1), Units(1)))
    assert "x_" in render_spec(spec_of(USER, capacity=OnDemand()))


def test_older_botocores_know_vector_indexes(dynoxide: Dynoxide) -> None:
    """Plans are carried out whatever botocore's model knows, and what is there is observed."""
    url = url_of(dynoxide, [USER])
    assert create_vector_indexes(url, [USER]) == []
    table = url.partition("?")[0].removeprefix("dynamodb:///")
    client = boto3.client("dynamodb", region_name=REGION, endpoint_url=dynoxide.endpoint_url)
    definitions = client.describe_table(TableName=table)["Table"]["AttributeDefinitions"]
    client.close()
    assert len(definitions) == 4


def test_health_asks_the_endpoint_for_searches(dynoxide: Dynoxide, store: OnlineStore) -> None:
    """A store with an index checks both endpoints, and reads count alone for its health."""
    (check,) = store.health().regions
    assert (check.ok, check.search_error) == (True, "")
    url = url_of(dynoxide, [USER])
    with OnlineStore.open(url, [USER], timeout=60) as other:
        other.driver.transports[SEARCH] = NoEndpoint()  # type: ignore[index] # a dict
        found = other.health()
        assert found.ok
        assert "no endpoint" in found.regions[0].search_error


class NoEndpoint:
    def send(self, request: Any, timeout: float) -> Any:
        raise InvalidCredentials("no endpoint")

    def close(self) -> None:
        pass


def test_searches_are_mocked_too() -> None:
    """Under moto's mock a search reaches no other machine: moto, which lacks it, refuses it."""
    with mock_aws():
        client = boto3.client("dynamodb", region_name=REGION)
        client.create_table(
            TableName="features",
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": n, "AttributeType": "S"} for n in ("pk", "sk")],
            KeySchema=[
                {"AttributeName": "pk", "KeyType": "HASH"},
                {"AttributeName": "sk", "KeyType": "RANGE"},
            ],
        )
        url = f"dynamodb:///features?region={REGION}"
        with OnlineStore.open(url, [USER], timeout=5) as store:
            store.write(USER, [{**ROW, "id": 1, "embedding": [1, 0, 0]}])
            with pytest.raises(RequestError):
                store.search(USER, "embedding", [1, 0, 0], where=WHERE, timeout=2)


# --- what is told of indexes ---------------------------------------------------------------


def test_explain_has_the_bytes_of_both_forms() -> None:
    """An explanation tells what the list of numbers takes, and what the index is billed for."""
    explained = explain(USER, {**ROW, "id": 1, "embedding": [0.25, 0.5, 1]})
    (vector_bytes,) = explained.items[0].vectors
    assert vector_bytes.feature == "user.embedding"
    assert (vector_bytes.listed_bytes, vector_bytes.binary_bytes) == (3 + 3 + 2 + 2 + 2, 12)
    assert vector_bytes.write_bytes == 1024
    assert "vector index of user.embedding" in str(explained)


def test_policies_allow_searches() -> None:
    """Whoever reads may search the table's indexes, by a statement without conditions."""
    statements = reader(spec_of(USER)).document("123456789012")["Statement"]
    (search,) = [each for each in statements if each["Sid"] == "Search"]  # type: ignore[attr-defined]
    assert search["Action"] == ["dynamodb:SearchVectors"]
    assert search["Resource"] == [f"arn:aws:dynamodb:{REGION}:123456789012:table/table/index/*"]
    assert "Condition" not in search


def test_terraform_says_that_it_has_no_vector_indexes() -> None:
    """The provider lacks vector indexes: the file says so, and leaves their attributes alone."""
    main = render(spec_of(USER))["main.tf"]
    assert "does not have\n# them" in main
    assert "ignore_changes" in main
    assert "attribute" in main.partition("ignore_changes")[2].partition("]")[0]


def test_doctor_looks_at_indexes(dynoxide: Dynoxide, store: OnlineStore) -> None:
    """Doctor tells of indexes that are ready, that are missing, and of items they leave out."""
    store.write(USER, [{"id": 9, "embedding": [1, 0, 0], "country": "ch"}])
    wanted, failed = wanted_indexes([USER], store.driver.run(store.core.known_registry(None)))
    other = Namespace(
        "user", int, [*USER.features[:4], Feature("x", vector[2], index=VectorIndex())]
    )
    missing, _ = wanted_indexes([other], Registry())
    table = store.core.backend.identity.split()[0]
    with ControlPlane(endpoint_urls={REGION: dynoxide.endpoint_url}) as plane:
        state = observe(plane, table, [REGION])
        checks = [*check_vector_indexes(plane, state, [REGION], wanted)]
        others = [*check_vector_indexes(plane, state, [REGION], missing)]
    assert failed == []
    assert [(check.verdict, check.what) for check in checks] == [
        ("ok", "vector index"),
        ("warning", "vector partition"),
    ]
    assert checks[1].found.startswith("1 of the first")
    assert [check.verdict for check in others] == ["error", "note"]

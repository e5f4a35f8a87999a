"""Messages to rows: every format, the observed-at, query results, and the configuration."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalk_online_store import InvalidSchema, InvalidValue, OnlineStore, Vector, features
from chalk_online_store.integrations.persistence import (
    DecodedRow,
    check_service,
    encode_result,
    load_config,
)
from chalk_online_store.integrations.persistence.config import ServiceConfig
from chalk_online_store.integrations.persistence.messages import Decoder, unframed
from chalk_online_store.writer.service import DeadMessage, DeadMessageFile, Message, Partition

AT = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)
AT_US = int(AT.timestamp()) * 1_000_000 + AT.microsecond


class Plan(Enum):
    FREE = "free"
    PAID = "paid"


@features(max_staleness="30d")
class User:
    id: int
    visits: int
    risk: float | None
    plan: Plan
    balance: Decimal
    seen: datetime
    device: UUID
    picture: bytes
    tags: set[str]
    embedding: Vector[2]


@features
class Order:
    id: str
    total: float


MODULE = "tests.test_persistence_messages"


def message(
    value: bytes | None,
    *,
    topic: str = "users",
    headers: tuple[tuple[str, bytes | None], ...] = (),
    timestamp: int | None = AT_US,
) -> Message:
    return Message(Partition(topic, 0), 0, value, b"key", headers, timestamp)


Make = Callable[..., Decoder]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Makes the decoder of a topic `users` with some settings."""
    monkeypatch.setitem(sys.modules, MODULE, sys.modules[__name__])

    def decoder(**settings: Any) -> Decoder:
        topic = {"name": "users", "schema": f"{MODULE}:User"} | settings
        if topic["schema"] is None:
            del topic["schema"]
        return configured(tmp_path, topics=[topic]).decoder(store.core, tmp_path)

    store = OnlineStore.open("sqlite://", schema=[User, Order])
    return decoder


def configured(home: Path, **settings: Any) -> ServiceConfig:
    import tomli_w

    path = home / "writer.toml"
    given = {"dead_letters": {"file": "dead.jsonl"}, "group": "g"} | settings
    path.write_text(tomli_w.dumps(given))
    return load_config(path)


def one(decoder: Decoder, given: Message) -> DecodedRow:
    (found,) = decoder(given)
    return found


# --- JSON -----------------------------------------------------------------------------------


def test_json_members_become_features_of_their_types(make: Make) -> None:
    """Each member is read by the type of its feature, exactly, and the timestamp is event time."""
    value = {
        "id": 7,
        "visits": 10**30,
        "risk": None,
        "plan": "paid",
        "balance": "1.10",
        "seen": AT.isoformat(),
        "device": "12345678-1234-5678-1234-567812345678",
        "picture": "AAE=",
        "tags": ["a", "b"],
        "embedding": [0.5, 1],
    }
    found = one(make(), message(json.dumps(value).encode()))
    assert found.observed_at == AT_US
    assert found.schema is not None
    assert found.row == {
        "id": 7,
        "visits": 10**30,
        "risk": None,
        "plan": Plan.PAID,
        "balance": Decimal("1.10"),
        "seen": AT,
        "device": UUID("12345678-1234-5678-1234-567812345678"),
        "picture": b"\x00\x01",
        "tags": {"a", "b"},
        "embedding": [0.5, 1.0],
    }


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (b"{", "not JSON"),
        (b"\xff", "UTF-8"),
        (b"[1]", "must be an object"),
        (b'{"id": 1, "id": 2}', "twice"),
        (b'{"visits": 1}', "null or missing"),
        (b'{"id": 1, "riks": 1}', "riks"),
        (b'{"id": 1, "visits": null}', "null"),
        (None, "tombstones"),
    ],
    ids=str,
)
def test_what_is_not_a_row_is_refused(make: Make, value: bytes | None, said: str) -> None:
    """Each fault is an `InvalidValue` that says what is wrong."""
    with pytest.raises(InvalidValue, match=said):
        make()(message(value))


def test_records_renames_and_unknown_members(make: Make) -> None:
    """A row can be an inner object, with other names, among members that are ignored."""
    decoder = make(
        record="payload.after",
        rename={"user_id": "id", "n": "visits"},
        unknown_members="ignore",
        observed_at="payload.ts_ms",
        observed_at_unit="ms",
    )
    value = {"payload": {"after": {"user_id": 1, "n": 2, "more": 3}, "ts_ms": 1_700_000_000_123}}
    found = one(decoder, message(json.dumps(value).encode()))
    assert found.row == {"id": 1, "visits": 2}
    assert found.observed_at == 1_700_000_000_123_000
    with pytest.raises(InvalidValue, match="'after' must be an object"):
        decoder(message(b'{"payload": {"after": null, "ts_ms": 5}}'))


def test_tombstones_can_be_skipped(make: Make) -> None:
    """A message without a value has no rows then."""
    assert make(tombstones="skip")(message(None)) == []


# --- the observed-at ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "value", "headers"),
    [
        ({"observed_at": "ts"}, {"ts": AT.isoformat()}, ()),
        ({"observed_at": "ts", "observed_at_unit": "us"}, {"ts": AT_US}, ()),
        ({"observed_at": "ts", "observed_at_unit": "us"}, {"ts": str(AT_US)}, ()),
        ({"observed_at": "ts", "time_zone": "+01:00"}, {"ts": "2026-01-02T04:04:05.678901"}, ()),
        ({"observed_at": "header:t"}, {}, (("t", b"1"), ("t", AT.isoformat().encode()))),
        ({"observed_at": "header:t", "observed_at_unit": "us"}, {}, (("t", b"%d" % AT_US),)),
        ({}, {}, ()),
    ],
    ids=str,
)
def test_the_observed_at_is_exact(
    make: Make, settings: dict[str, Any], value: dict[str, Any], headers: Any
) -> None:
    """A member, a header or the timestamp gives the same microsecond, and is no feature."""
    body = json.dumps({"id": 1} | value).encode()
    found = one(make(**settings), message(body, headers=headers))
    assert (found.observed_at, found.row) == (AT_US, {"id": 1})


@pytest.mark.parametrize(
    ("settings", "value", "said"),
    [
        ({"observed_at": "ts"}, {}, "missing"),
        ({"observed_at": "ts"}, {"ts": 5}, "observed_at_unit"),
        ({"observed_at": "ts"}, {"ts": "2026-01-02T03:04:05"}, "time zone"),
        ({"observed_at": "ts"}, {"ts": "yesterday"}, "ISO 8601"),
        ({"observed_at": "ts", "observed_at_unit": "ms"}, {"ts": 10**18}, "unit"),
        ({"observed_at": "ts", "observed_at_unit": "s"}, {"ts": 1.5}, "whole number"),
        ({"observed_at": "ts", "observed_at_unit": "s"}, {"ts": True}, "whole number"),
        ({"observed_at": "ts", "observed_at_unit": "s"}, {"ts": "9" * 5000}, "unit"),
        ({"observed_at": "ts", "observed_at_unit": "s"}, {"ts": -1}, "before 1970"),
        ({"observed_at": "header:t"}, {}, "missing"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_an_observed_at_that_is_not_known_is_refused(
    make: Make, settings: dict[str, Any], value: dict[str, Any], said: str
) -> None:
    """The current time never replaces it: a message that is delivered again must not be newer."""
    with pytest.raises(InvalidValue, match=said):
        make(**settings)(message(json.dumps({"id": 1} | value).encode()))


def test_a_message_without_a_timestamp_is_refused(make: Make) -> None:
    """The error says to name a member or a header."""
    with pytest.raises(InvalidValue, match="member or header"):
        make()(message(b'{"id": 1}', timestamp=None))


# --- Avro and Protobuf ----------------------------------------------------------------------

AVRO = {
    "type": "record",
    "name": "User",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "visits", "type": "int"},
        {"name": "risk", "type": ["null", "double"]},
        {"name": "plan", "type": {"type": "enum", "name": "Plan", "symbols": ["free", "paid"]}},
        {
            "name": "balance",
            "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2},
        },
        {"name": "seen", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "picture", "type": "bytes"},
        {"name": "tags", "type": {"type": "array", "items": "string"}},
        {"name": "ts", "type": {"type": "long", "logicalType": "timestamp-micros"}},
    ],
}
RECORD = {
    "id": 7,
    "visits": 3,
    "risk": 0.1,
    "plan": "paid",
    "balance": Decimal("1.10"),
    "seen": AT,
    "picture": b"\x00",
    "tags": ["a"],
    "ts": AT,
}
ROW = {name: value for name, value in RECORD.items() if name != "ts"} | {
    "plan": Plan.PAID,
    "tags": {"a"},
}


@pytest.mark.parametrize("framing", ["none", "registry"])
def test_avro_records_are_rows(make: Make, tmp_path: Path, framing: str) -> None:
    """Logical types are exact, with and without the frame of a registry; damage is refused."""
    fastavro = pytest.importorskip("fastavro")
    (tmp_path / "user.avsc").write_text(json.dumps(AVRO))
    decoder = make(format="avro", avro_schema="user.avsc", observed_at="ts", framing=framing)
    data = BytesIO()
    fastavro.schemaless_writer(data, fastavro.parse_schema(AVRO), RECORD)
    body = (b"\x00\x00\x00\x00\x05" if framing == "registry" else b"") + data.getvalue()
    found = one(decoder, message(body))
    assert (found.row, found.observed_at) == (ROW, AT_US)
    for damaged in (body[:-3], body + b"\x00", b"", b"\xff" * 40):
        with pytest.raises(InvalidValue):
            decoder(message(damaged))


def protobuf_class() -> Any:
    """The class that protoc would generate for a message `User`."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2

    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="tests/user.proto", package="tests.persistence", syntax="proto3"
    )
    file.dependency.append("google/protobuf/timestamp.proto")
    enum = file.enum_type.add(name="Plan")
    enum.value.add(name="free", number=0)
    enum.value.add(name="paid", number=1)
    user = file.message_type.add(name="User")
    for number, (name, kind, kind_name) in enumerate(
        [
            ("id", field.TYPE_INT64, ""),
            ("visits", field.TYPE_INT32, ""),
            ("risk", field.TYPE_DOUBLE, ""),
            ("plan", field.TYPE_ENUM, ".tests.persistence.Plan"),
            ("seen", field.TYPE_MESSAGE, ".google.protobuf.Timestamp"),
            ("picture", field.TYPE_BYTES, ""),
            ("tags", field.TYPE_STRING, ""),
            ("ts", field.TYPE_MESSAGE, ".google.protobuf.Timestamp"),
        ],
        start=1,
    ):
        added = user.field.add(name=name, number=number, type=kind, label=field.LABEL_OPTIONAL)
        if kind_name:
            added.type_name = kind_name
        if name == "tags":
            added.label = field.LABEL_REPEATED
        if name == "risk":  # `optional double risk`: with presence.
            user.oneof_decl.add(name="_risk")
            added.proto3_optional, added.oneof_index = True, 0
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(timestamp_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tests.persistence.User"))


@pytest.mark.parametrize("framing", ["none", "registry"])
def test_protobuf_messages_are_rows(
    make: Make, monkeypatch: pytest.MonkeyPatch, framing: str
) -> None:
    """Fields without presence have defaults, unset optional ones are absent; damage is refused."""
    pytest.importorskip("google.protobuf")
    cls = protobuf_class()
    monkeypatch.setattr(sys.modules[__name__], "UserMessage", cls, raising=False)
    decoder = make(
        format="protobuf", message=f"{MODULE}:UserMessage", observed_at="ts", framing=framing
    )
    given = cls(id=7, plan=1, picture=b"\x00", tags=["a"])
    given.seen.FromDatetime(AT)
    given.ts.FromDatetime(AT)
    frame = b"\x00\x00\x00\x00\x05" + b"\x00" if framing == "registry" else b""
    found = one(decoder, message(frame + given.SerializeToString()))
    expected = {name: ROW[name] for name in ("id", "plan", "seen", "picture", "tags")}
    assert (found.row, found.observed_at) == (expected | {"visits": 0}, AT_US)
    given.risk = 0.0
    found = one(decoder, message(frame + given.SerializeToString()))
    assert found.row["risk"] == 0.0
    with pytest.raises(InvalidValue):
        decoder(message(frame + b"\xff\xff\xff"))
    given.ts.nanos += 1
    with pytest.raises(InvalidValue, match="microseconds"):
        decoder(message(frame + given.SerializeToString()))


@given(st.binary(max_size=40))
def test_any_bytes_are_unframed_or_refused(value: bytes) -> None:
    """A frame is removed, or the message is refused as an `InvalidValue`."""
    try:
        assert value == value[:5] + unframed(value)
        assert value[0] == 0
    except InvalidValue:
        assert len(value) < 5 or value[0] != 0


# --- functions ------------------------------------------------------------------------------


def decode_csv(given: Message) -> Any:
    """A function of a user's: `id,visits`, one of each line."""
    text = (given.value or b"").decode()
    if text == "none":
        return None
    if text == "other":
        return [DecodedRow(Order, {"id": "o", "total": 1.0}, AT)]  # type: ignore[arg-type]
    if text == "wrong":
        return ["text"]
    rows = [line.split(",") for line in text.splitlines()]
    return ({"id": int(key), "visits": int(visits)} for key, visits in rows)


def test_a_function_decodes_to_any_number_of_rows(make: Make) -> None:
    """Mappings have the topic's namespace and observed-at; a `DecodedRow` brings its own."""
    decoder = make(format="function", function=f"{MODULE}:decode_csv")
    rows = list(decoder(message(b"1,2\n3,4")))
    assert [row.row for row in rows] == [{"id": 1, "visits": 2}, {"id": 3, "visits": 4}]
    assert {row.observed_at for row in rows} == {AT_US}
    assert list(decoder(message(b"none"))) == []
    other = one(decoder, message(b"other"))
    assert (other.schema, other.observed_at) == (Order, AT_US)
    with pytest.raises(InvalidValue, match="dicts or DecodedRows"):
        decoder(message(b"wrong"))


# --- query results --------------------------------------------------------------------------


def test_query_results_are_read_back_as_they_were_published(make: Make) -> None:
    """`encode_result`, decoded and written, is what `read_result` finds, with declared types."""
    decoder = make(schema=None, results=True)
    inputs = {"user.id": 1, "amount": 1.5, "tags": ["a", None]}
    values = {"user.balance": "1.10", "reasons": ["new"], "user.plan": "paid"}
    body = encode_result(
        "fraud", inputs, values, version="3", max_staleness="1h", observed_at=datetime.now(UTC)
    )
    found = one(decoder, message(body))
    with OnlineStore.open("sqlite://", schema=[User]) as store:
        store.write(store.core.of_results(), [dict(found.row)], observed_at=datetime.now(UTC))
        result = store.read_result("fraud", inputs, version="3")
        assert result.features == {
            "user.balance": Decimal("1.10"),
            "reasons": ["new"],
            "user.plan": Plan.PAID,
        }
        assert store.read_result("fraud", inputs | {"amount": 1}, version="3").status == "missing"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"inputs": {"a": AT}}, "inputs: expected values of JSON; got datetime"),
        ({"features": {"a": float("nan")}}, "NaN"),
        ({"inputs": {1: 2}}, "names must be str"),
        ({"observed_at": AT.replace(tzinfo=None)}, "time zone"),
    ],
    ids=str,
)
def test_results_that_json_does_not_hold_are_refused(wrong: dict[str, Any], said: str) -> None:
    """What would be read back as something else is refused by the publisher."""
    right: dict[str, Any] = {"inputs": {}, "features": {}, "observed_at": AT}
    with pytest.raises(InvalidValue, match=said):
        encode_result("q", **(right | wrong))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"more": 1}, "more"),
        ({"inputs": None}, "inputs"),
        ({"features": {"user.balance": "x"}}, "user.balance"),
        ({"version": 3}, "version"),
        ({"observed_at": None}, "observed-at"),
    ],
    ids=str,
)
def test_wrong_result_messages_are_refused(make: Make, change: dict[str, Any], said: str) -> None:
    """A message that is no result is an `InvalidValue` that names the member."""
    right = json.loads(encode_result("q", {}, {"a": 1}, observed_at=AT))
    with pytest.raises(InvalidValue, match=said):
        make(schema=None, results=True)(message(json.dumps(right | change).encode()))


# --- dead letters ---------------------------------------------------------------------------


def test_a_dead_letter_file_has_the_original_bytes(tmp_path: Path) -> None:
    """Key, value and headers come back from base64; the file is its owner's alone."""
    import base64

    path = tmp_path / "dead.jsonl"
    given = Message(Partition("t", 3), 42, b"\xff\x00", None, (("h", b"\x01"), ("n", None)), 5)
    sink = DeadMessageFile(path)
    sink([DeadMessage(given, InvalidValue("The message is not JSON."))])
    sink([DeadMessage(given, InvalidValue("x"))])
    first, second = map(json.loads, path.read_text().splitlines())
    assert (first["topic"], first["partition"], first["offset"]) == ("t", 3, 42)
    assert (first["error"], first["reason"]) == ("InvalidValue", "The message is not JSON.")
    assert base64.b64decode(first["value"]) == b"\xff\x00"
    assert (first["key"], first["headers"]) == (None, [["h", "AQ=="], ["n", None]])
    assert second["reason"] == "x"
    assert path.stat().st_mode & 0o777 == 0o600


# --- the configuration ----------------------------------------------------------------------

TOPIC = {"name": "users", "schema": f"{MODULE}:User"}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"topics": []}, "at least one"),
        ({"topics": [TOPIC, TOPIC]}, "once"),
        ({"topics": [TOPIC | {"formt": "json"}]}, "formt"),
        ({"topics": [TOPIC | {"format": "avro"}]}, "avro_schema"),
        ({"topics": [TOPIC | {"function": "a:b"}]}, "function"),
        ({"topics": [TOPIC | {"results": True}]}, "either schema"),
        ({"topics": [{"name": "users"}]}, "either schema"),
        ({"topics": [TOPIC | {"observed_at_unit": "ns"}]}, "observed_at_unit"),
        ({"topics": [TOPIC], "dead_letters": {}}, "topic or file"),
        ({"topics": [TOPIC], "dead_letters": {"topic": "users"}}, "must not be consumed"),
        ({"topics": [TOPIC], "service": {"commit_at": "durable"}}, "spool"),
        ({"topics": [TOPIC], "service": {"drain": "1s"}}, "drain"),
        ({"topics": [TOPIC], "writer": {"max_rows": 0}}, "max_rows"),
        ({"topics": [TOPIC], "writer": {"ordering": "arrival"}}, "ordering"),
    ],
    ids=str,
)
def test_a_wrong_configuration_is_refused(tmp_path: Path, wrong: dict[str, Any], said: str) -> None:
    """The error names the file and the setting."""
    with pytest.raises(InvalidValue, match=said) as raised:
        configured(tmp_path, **wrong)
    assert "writer.toml" in str(raised.value)


def test_a_configuration_needs_dead_letters(tmp_path: Path) -> None:
    """A service must not drop messages in silence, so it has to know where they go."""
    path = tmp_path / "writer.toml"
    path.write_text('[[topics]]\nname = "a"\nschema = "a:B"\n')
    with pytest.raises(InvalidValue, match="dead_letters"):
        load_config(path)
    path.write_text("topics = [")
    with pytest.raises(InvalidValue, match=r"writer\.toml"):
        load_config(path)


def test_secrets_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable is read when it is used; one that is not set is named."""
    from chalk_online_store.integrations.persistence.config import read_options

    monkeypatch.setenv("PASSWORD", "secret")
    options = {"sasl.password": {"env": "PASSWORD"}, "linger.ms": 5, "security.protocol": "SSL"}
    config = configured(tmp_path, topics=[TOPIC], kafka={"common": options})
    found = read_options(config.kafka.common)
    assert found == options | {"sasl.password": "secret"}
    monkeypatch.delenv("PASSWORD")
    with pytest.raises(InvalidValue, match="PASSWORD is not set"):
        read_options(config.kafka.common)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nats://a", "kafka:// or sqs://"),
        ("kafka:///topic", "names brokers"),
        ("kafka://user:secret@a:1/t", "no credentials"),
        ("kafka://a:1?grp=1", "options group"),
    ],
)
def test_a_wrong_bus_url_is_refused(url: str, said: str) -> None:
    """The error says what a URL of a bus has, and does not quote secrets."""
    from chalk_online_store import InvalidURL
    from chalk_online_store.integrations.persistence.service import parse_bus_url

    with pytest.raises(InvalidURL, match=said) as raised:
        parse_bus_url(url)
    assert "secret" not in str(raised.value)


def test_check_finds_a_schema_that_cannot_be_imported(make: Make, tmp_path: Path) -> None:
    """`--check` imports schemas and functions without a connection."""
    wrong = configured(tmp_path, topics=[{"name": "users", "schema": "nowhere:User"}])
    with pytest.raises(InvalidSchema, match="nowhere"):
        check_service("sqs:///users?region=us-east-1", wrong, tmp_path)
    wrong = configured(tmp_path, topics=[TOPIC | {"format": "function", "function": "os:name"}])
    with pytest.raises(InvalidValue, match="cannot be called"):
        check_service("sqs:///users?region=us-east-1", wrong, tmp_path)
    right = configured(tmp_path, topics=[TOPIC])
    with pytest.raises(InvalidValue, match="other"):
        check_service("sqs:///other?region=us-east-1", right, tmp_path)
